//! What an update writes down about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::blame::Blame;
use super::machine::State;
use super::setting::Setting;
use crate::docker::ContainerDetail;
use crate::model::history::{Bytes, Release};
use crate::model::operation;
use crate::model::reference::{Digest, Repository, ServiceName, Tag};
use crate::report::DataReport;

/// The shape of the file that this dkv writes.
const FORMAT: u32 = 1;

/// Everything that finishing or undoing an update takes. Holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    format: u32,
    /// What is under way.
    pub state: State,
    /// When the update began; RFC 3339, UTC.
    pub started_at: String,
    /// Who began it.
    pub started_by: String,
    /// The Compose project.
    pub project: String,
    /// Where it was begun.
    #[serde(default)]
    pub setting: Option<Setting>,
    /// How it was asked for.
    pub options: Options,
    /// What is to run after it.
    #[serde(default)]
    pub goal: Goal,
    /// Whether any container may have been replaced.
    pub is_replacing: bool,
    /// Every container of the deployment as it was when the update began.
    pub ran: Vec<Ran>,
    /// How many containers services had that had another number than their files said.
    #[serde(default)]
    pub counts: BTreeMap<String, u32>,
    /// The services that were stopped on purpose, and stay so.
    #[serde(default)]
    pub left_stopped: BTreeSet<String>,
    /// The services that were not as they should be, without those that were stopped on purpose.
    #[serde(default)]
    pub failing: BTreeSet<String>,
    /// The services that had done their work and ended with success: jobs, which do so again when
    /// they are started again.
    #[serde(default)]
    pub completed: BTreeSet<String>,
    /// The services that ran by a profile that is not switched on.
    #[serde(default)]
    pub awake: BTreeSet<String>,
    /// The images that ran, with what brings them back.
    pub kept: Vec<Kept>,
    /// What [`State::Preparing`] has found.
    #[serde(flatten)]
    pub plan: Plan,
    /// What [`State::Saving`] has done.
    #[serde(flatten)]
    pub saving: Saving,
    /// Why the update goes back, in part or as a whole.
    #[serde(flatten)]
    pub failure: Failure,
    /// The services whose new release was given up while the others' updates went on.
    #[serde(default)]
    pub given_up: Vec<GivenUp>,
}

/// What is to become of a deployment; empty until that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The releases to record once they are healthy.
    pub targets: Vec<Target>,
    /// The Compose services to replace, because they get another image.
    pub changed: Vec<String>,
    /// The Compose services that go along, because they hang on to those or Compose restarts them
    /// after them.
    #[serde(default)]
    pub followers: Vec<String>,
    /// Compose's variables for what ran, where they are not the manifest's.
    pub variables_before: BTreeMap<String, String>,
    /// Compose's variables for what shall run.
    pub variables_after: BTreeMap<String, String>,
}

/// What was done for the data; empty unless something was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saving {
    /// The Compose services that were stopped for the data backup.
    pub stopped: Vec<String>,
    /// The file of the data backup.
    pub data_backup: Option<String>,
    /// What was saved, or why nothing was.
    #[serde(default)]
    pub data: Option<DataReport>,
}

/// Why an update goes back; empty while it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why, line by line.
    pub reason: Vec<String>,
    /// Whose new release is at fault, and whose is not.
    #[serde(default)]
    pub blame: Blame,
}

/// How an update was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// Take what an earlier update found bad.
    pub retry: bool,
    /// Leave the data backup out.
    pub no_data_backup: bool,
    /// Go on with the other services when one fails.
    #[serde(default)]
    pub keep_going: bool,
    /// How long containers may take to become healthy, where not the manifest's time holds.
    pub timeout: Option<Duration>,
}

/// What is to run after an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// What their tags name, of these services, or of all if none is named.
    Latest(Vec<ServiceName>),
    /// The version of this name; none if it was asked for by digest.
    Version(Option<Tag>),
    /// The releases before.
    Previous,
    /// A release of the history.
    Release,
    /// What the manifest's text with this digest records.
    Record {
        /// The text.
        text: Digest,
        /// Whether that undoes operations or does them again.
        kind: operation::Kind,
        /// Which ones.
        takes: Vec<u64>,
    },
}

impl Default for Goal {
    fn default() -> Self {
        Self::Latest(Vec::new())
    }
}

impl Goal {
    /// Whether the record comes back as a whole, whatever runs.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Record { .. })
    }

    /// Whether it goes to where the deployment was before.
    #[must_use]
    pub fn is_return(&self) -> bool {
        matches!(self, Self::Previous | Self::Release | Self::Record { .. })
    }
}

/// A container before the update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Its Compose service.
    pub compose_service: String,
    /// The manifest service whose image it runs.
    pub service: Option<ServiceName>,
    /// The daemon's full container ID.
    pub container: String,
    /// The container's name.
    #[serde(default)]
    pub name: String,
    /// The image that it runs.
    pub image_id: Option<Digest>,
    /// The image reference that it was made with.
    pub image: String,
    /// Whether it was running.
    pub is_running: bool,
    /// Whether it was as it should be.
    pub is_good: bool,
    /// How long its own health check lets it take to become healthy.
    #[serde(default)]
    pub patience: Duration,
    /// The networks that it was attached to.
    #[serde(default)]
    pub networks: Vec<String>,
}

/// A service whose old version was kept or brought back while the others were updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The manifest service.
    pub service: ServiceName,
    /// Why, line by line.
    pub reason: Vec<String>,
    /// Whether its digest was found bad, and is remembered as such.
    pub is_rejected: bool,
}

/// An image that ran, and what brings it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The manifest service.
    pub service: ServiceName,
    /// The repository that it was started from.
    pub repository: Repository,
    /// The image.
    pub image_id: Digest,
    /// The tag that keeps it from being pruned.
    pub keep_tag: Tag,
    /// What Compose gets as its tag: `tag@digest`, or the keep-tag where no digest is known.
    pub tag: String,
}

/// A release to record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The manifest service.
    pub service: ServiceName,
    /// The release's tag.
    pub tag: Tag,
    /// Its bytes.
    #[serde(flatten)]
    pub bytes: Bytes,
}

#[cfg(test)]
impl Ran {
    /// A container that runs and is good, of which nothing else is known.
    pub fn of_test(compose_service: &str) -> Self {
        Self {
            compose_service: compose_service.to_owned(),
            service: None,
            container: String::new(),
            name: String::new(),
            image_id: None,
            image: String::new(),
            is_running: true,
            is_good: true,
            patience: Duration::ZERO,
            networks: Vec::new(),
        }
    }
}

impl Plan {
    /// What is to be recorded of the manifest service `name`.
    #[must_use]
    pub fn target(&self, name: &ServiceName) -> Option<&Target> {
        self.targets.iter().find(|target| target.service == *name)
    }
}

impl Target {
    /// The target that records `release` for `service`.
    #[must_use]
    pub fn new(service: &ServiceName, release: &Release) -> Self {
        Self { service: service.clone(), tag: release.tag.clone(), bytes: release.bytes.clone() }
    }

    /// The release that is to be recorded.
    #[must_use]
    pub fn release(&self) -> Release {
        Release::new(self.tag.clone(), self.bytes.clone())
    }
}

impl Journal {
    /// The journal of an update that begins.
    #[must_use]
    pub fn new(project: &str, started_at: String, started_by: String, options: Options) -> Self {
        Self {
            format: FORMAT,
            state: State::Preparing,
            started_at,
            started_by,
            project: project.to_owned(),
            setting: None,
            options,
            goal: Goal::default(),
            is_replacing: false,
            ran: Vec::new(),
            counts: BTreeMap::new(),
            left_stopped: BTreeSet::new(),
            failing: BTreeSet::new(),
            completed: BTreeSet::new(),
            awake: BTreeSet::new(),
            kept: Vec::new(),
            plan: Plan::default(),
            saving: Saving::default(),
            failure: Failure::default(),
            given_up: Vec::new(),
        }
    }

    /// Reads a journal.
    ///
    /// # Errors
    ///
    /// The bytes are no journal, or one of another dkv.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).context("it is not an update's journal")?;
        if head.format != FORMAT {
            bail!("its format {} is not the one this dkv knows ({FORMAT})", head.format);
        }
        serde_json::from_slice(bytes).context("it is damaged")
    }

    /// The journal's text.
    ///
    /// # Errors
    ///
    /// It has no JSON form.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Whether `compose_service` had a container.
    #[must_use]
    pub fn had_container(&self, compose_service: &str) -> bool {
        self.ran.iter().any(|ran| ran.compose_service == compose_service)
    }

    /// Whether `container` was there before the update.
    #[must_use]
    pub fn knew(&self, container: Option<&ContainerDetail>) -> bool {
        container.is_some_and(|container| self.ran.iter().any(|ran| ran.container == container.id))
    }

    /// Whether all containers of `compose_service` were as they should be, and it had one.
    #[must_use]
    pub fn was_good(&self, compose_service: &str) -> bool {
        let mut containers =
            self.ran.iter().filter(|ran| ran.compose_service == compose_service).peekable();
        containers.peek().is_some() && containers.all(|ran| ran.is_good)
    }

    /// Whether `compose_service` was running and as it should be: nothing that does its work and
    /// ends.
    #[must_use]
    pub fn was_serving(&self, compose_service: &str) -> bool {
        let mut containers =
            self.ran.iter().filter(|ran| ran.compose_service == compose_service).peekable();
        containers.peek().is_some() && containers.all(|ran| ran.is_running && ran.is_good)
    }

    /// The Compose services that were not as they should be, and that the update leaves alone.
    #[must_use]
    pub fn left_failing(&self) -> Vec<String> {
        self.failing.iter().filter(|name| !self.is_replaced(name)).cloned().collect()
    }

    /// Whether nothing of `service` is replaced, and some of its containers are not as they should
    /// be: what they run is not proven.
    #[must_use]
    pub fn is_unproven(&self, service: &ServiceName) -> bool {
        let mine = self.ran.iter().filter(|ran| ran.service.as_ref() == Some(service));
        let mine: BTreeSet<&str> = mine.map(|ran| ran.compose_service.as_str()).collect();
        mine.iter().any(|name| self.failing.contains(*name))
            && !mine.iter().any(|name| self.is_changed(name))
    }

    /// Whether the new release of `service` was given up.
    #[must_use]
    pub fn is_given_up(&self, service: &ServiceName) -> bool {
        self.given_up.iter().any(|given_up| given_up.service == *service)
    }

    /// Whether `compose_service` is to be replaced by another version.
    #[must_use]
    pub fn is_changed(&self, compose_service: &str) -> bool {
        self.plan.changed.iter().any(|changed| changed == compose_service)
    }

    /// Whether the containers of `compose_service` are replaced, by another version or along with
    /// one.
    #[must_use]
    pub fn is_replaced(&self, compose_service: &str) -> bool {
        self.is_changed(compose_service) || self.is_follower(compose_service)
    }

    /// Whether `compose_service` goes along with one that is replaced.
    #[must_use]
    pub fn is_follower(&self, compose_service: &str) -> bool {
        self.plan.followers.iter().any(|follower| follower == compose_service)
    }

    /// All Compose services whose containers are replaced.
    #[must_use]
    pub fn replaced(&self) -> Vec<String> {
        self.plan.changed.iter().chain(&self.plan.followers).cloned().collect()
    }

    /// How many containers `compose_service` had.
    #[must_use]
    pub fn containers_of(&self, compose_service: &str) -> i64 {
        let mine = self.ran.iter().filter(|ran| ran.compose_service == compose_service).count();
        i64::try_from(mine).unwrap_or(i64::MAX)
    }

    /// The Compose service of the container with this name or ID, if it was one of the deployment.
    #[must_use]
    pub fn owner(&self, container: &str) -> Option<&str> {
        let is = |ran: &&Ran| {
            ran.name == container || (container.len() >= 12 && ran.container.starts_with(container))
        };
        self.ran.iter().find(is).map(|ran| ran.compose_service.as_str())
    }

    /// Whether the manifest service `name` has containers, and all of them were stopped on purpose.
    #[must_use]
    pub fn is_stopped(&self, name: &ServiceName) -> bool {
        let mut mine = self.ran.iter().filter(|ran| ran.service.as_ref() == Some(name)).peekable();
        mine.peek().is_some() && mine.all(|ran| self.left_stopped.contains(&ran.compose_service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let options = Options { timeout: Some(Duration::from_millis(1500)), ..Options::default() };
        let mut journal =
            Journal::new("shop", "2026-01-12T12:29:08Z".to_owned(), "alice".to_owned(), options);
        let ran = |compose_service: &str, is_good| Ran {
            service: "web".parse().ok(),
            container: "0123".to_owned(),
            name: format!("shop-{compose_service}-1"),
            image_id: Some(Digest::of(b"1")),
            image: "r.example/web:1".to_owned(),
            is_good,
            ..Ran::of_test(compose_service)
        };
        journal.ran = vec![ran("web", true), ran("web", false), ran("db", true)];
        journal.kept.push(Kept {
            service: "web".parse().unwrap(),
            repository: "r.example/web".parse().unwrap(),
            image_id: Digest::of(b"1"),
            keep_tag: "dkv-1".parse().unwrap(),
            tag: format!("1@{}", Digest::of(b"1")),
        });
        journal
    }

    #[test]
    fn what_is_written_is_read() {
        let journal = journal();
        assert_eq!(Journal::parse(journal.text().unwrap().as_bytes()).unwrap(), journal);
    }

    #[test]
    fn other_formats_and_torn_files_are_refused() {
        let text = journal().text().unwrap();
        let newer = text.replace("\"format\": 1", "\"format\": 2");
        assert!(Journal::parse(newer.as_bytes()).unwrap_err().to_string().contains("format 2"));
        assert!(Journal::parse(&text.as_bytes()[..text.len() / 2]).is_err());
        assert!(Journal::parse(b"").is_err());
    }

    #[test]
    fn a_service_was_good_if_all_its_containers_were() {
        let journal = journal();
        assert!(journal.was_good("db") && !journal.was_good("web") && !journal.was_good("cache"));
    }

    #[test]
    fn a_service_was_serving_if_all_its_containers_ran_and_were_good() {
        let mut journal = journal();
        assert!(
            journal.was_serving("db")
                && !journal.was_serving("web")
                && !journal.was_serving("cache")
        );
        journal.ran[2].is_running = false;
        assert!(!journal.was_serving("db"));
    }
}
