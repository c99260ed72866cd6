//! The version manifest: what it says, read strictly from what the old tool and its wizard wrote
//! (schema 1.0) and from our own schema 1.1, and the edits that record a change in it.

mod keys;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use write::Listing;

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;

use super::history::{Bytes, History, Release};
use super::reference::{Digest, Platform, Reference, Repository, ServiceName, Tag};
use super::track;
use super::yaml::Document;

/// The tag that `pull-latest` follows where the manifest names no other.
pub const DEFAULT_TRACK: &str = "latest";

/// How many rejected digests a service remembers.
pub const REJECTED_LIMIT: usize = 5;

/// The registry that the old tool took where its manifest names none.
const DEFAULT_ECR_REGISTRY: &str = "public.ecr.aws";

/// A manifest as read, with its source, so that it can be edited in place.
#[derive(Debug)]
pub struct Manifest {
    document: Document,
    /// Whether the file is of schema 1.0, the old tool's.
    pub is_legacy: bool,
    /// Where images without a name of their own live.
    pub ecr: Option<Ecr>,
    /// Which Compose files belong to the deployment.
    pub compose: ComposeSettings,
    /// How `versions.env` is written.
    pub env: EnvSettings,
    /// What a safe update saves before it changes anything.
    pub data_backup: DataBackup,
    /// How container logs are kept.
    pub logs: LogSettings,
    /// The services, in the file's order.
    pub services: IndexMap<ServiceName, Service>,
    /// The Compose services that nothing here is about, because somebody said so.
    pub untracked: Vec<String>,
    /// What a reader should know about the file: read, but not as it probably was meant.
    pub warnings: Vec<String>,
}

/// The `ecr` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ecr {
    /// Host of the public registry.
    pub registry: String,
    /// The publisher's alias there.
    pub repository_alias: String,
    /// Whether images come from the private registry instead.
    pub use_private: bool,
    /// Host of the private registry, perhaps with a path.
    pub private_registry: String,
    /// AWS region of the private registry.
    pub private_region: String,
}

impl Ecr {
    /// The prefix of the images that follow this section: `public.ecr.aws/alias`, or the private
    /// registry.
    #[must_use]
    pub fn prefix(&self) -> String {
        if self.is_private() { self.private_registry.clone() } else { self.public_prefix() }
    }

    /// Whether images come from the private registry.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.use_private && !self.private_registry.is_empty()
    }

    fn public_prefix(&self) -> String {
        match self.repository_alias.as_str() {
            "" => self.registry.clone(),
            alias => format!("{}/{alias}", self.registry),
        }
    }

    /// Both prefixes that an image may spell out without meaning more than "the default".
    fn prefixes(&self) -> [String; 2] {
        [self.public_prefix(), self.private_registry.clone()]
    }
}

/// The `compose` section; empty lists mean Compose's own convention.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComposeSettings {
    /// Application files.
    pub files: Vec<String>,
    /// Database files.
    pub db_files: Vec<String>,
    /// The project's name, where it is not what Compose would call it.
    pub project: Option<String>,
}

/// The `env` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvSettings {
    /// File name, relative to the deployment directory.
    pub file: String,
    /// What variable names begin with.
    pub prefix: String,
    /// What tag variables carry.
    pub pin: super::env_file::Pin,
}

impl Default for EnvSettings {
    fn default() -> Self {
        Self {
            file: "versions.env".to_owned(),
            prefix: "DK_".to_owned(),
            pin: super::env_file::Pin::Digest,
        }
    }
}

/// The `data_backup` setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataBackup {
    /// What databases write, see [`crate::data`]; and of these Compose services, what they are said
    /// to be.
    Databases(BTreeMap<String, bool>),
    /// These paths.
    Paths(Vec<String>),
    /// This command, run instead of a copy.
    Command {
        /// The program and its arguments.
        words: Vec<String>,
        /// How long it may take: a run that nobody watches must end.
        timeout: Duration,
    },
    /// Nothing.
    None,
}

impl Default for DataBackup {
    fn default() -> Self {
        Self::Databases(BTreeMap::new())
    }
}

/// The `logs` section: days until archived logs are compressed and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Compressed after so many days.
    pub compress_after_days: u32,
    /// Removed after so many days.
    pub delete_after_days: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { compress_after_days: 3, delete_after_days: 7 }
    }
}

/// What a remembered release is to the others of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// What the manifest says should run.
    Current,
    /// What a rollback goes to.
    Previous,
    /// Older than that.
    Archived,
    /// Left by a rollback.
    RolledBack,
}

impl Rank {
    /// The word for it in the manifest.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Archived => "archived",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// What a reference in a Compose file is to the tag that a service follows, the closest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It names that tag.
    Track,
    /// It names a release that the service remembers.
    Remembered,
    /// It names a version of what the tag moves along.
    Version,
    /// It names something else: perhaps another program from the same repository.
    Other,
}

/// Where a service's images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A registry.
    #[default]
    Registry,
    /// This host's builds; never pulled.
    Local,
}

/// A version that somebody set by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    /// The tag that was set.
    pub tag: Tag,
    /// The bytes that it holds for, whatever else the tag names later; `None` where nothing but the
    /// tag is known of them.
    pub digest: Option<Digest>,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub applied_at: Option<String>,
    /// By whom.
    pub applied_by: Option<String>,
}

/// A digest that a safe update tried and found bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The digest of the bad release.
    pub digest: Digest,
    /// The tag it went by.
    pub tag: Option<Tag>,
    /// What was wrong with it.
    pub reason: Option<String>,
    /// When it was found out.
    pub at: Option<String>,
}

/// One service: an image repository and its releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its key in the manifest.
    pub name: ServiceName,
    /// The repository; `None` until [`Manifest::settle`] has said where the image lives.
    pub image: Option<Repository>,
    /// Whether the manifest says nothing more about the image than the `ecr` default, and so
    /// follows it.
    pub follows_ecr: bool,
    /// The moving tag that `pull-latest` follows, if the manifest or a Compose default names one.
    pub track: Option<Tag>,
    /// The platform whose image it runs, where that is not the host's.
    pub platform: Option<Platform>,
    /// Where its images come from.
    pub source: Source,
    /// Whether `pull-latest` leaves it alone.
    pub held: bool,
    /// The Compose services that run it, where the manifest names them.
    pub compose_services: Vec<String>,
    /// A further variable that gets the tag.
    pub env_tag: Option<String>,
    /// A further variable that gets the image.
    pub env_image: Option<String>,
    /// A pattern of what counts as a version: `*` stands for any characters, `?` for one; no
    /// regular expression.
    pub version_pattern: Option<String>,
    /// How long it may take to become healthy.
    pub health_timeout: Option<Duration>,
    /// When the current release became current.
    pub deployed_at: Option<String>,
    /// Who made it current.
    pub deployed_by: Option<String>,
    /// Its releases.
    pub history: History,
    /// The version set by hand, if one was set.
    pub custom: Option<Custom>,
    /// The digests found bad, newest first.
    pub rejected: Vec<Rejected>,
}

impl Service {
    /// A service with nothing but a name and a repository.
    #[must_use]
    pub fn new(name: ServiceName, image: Option<Repository>) -> Self {
        Self {
            name,
            image,
            follows_ecr: false,
            track: None,
            platform: None,
            source: Source::Registry,
            held: false,
            compose_services: Vec::new(),
            env_tag: None,
            env_image: None,
            version_pattern: None,
            health_timeout: None,
            deployed_at: None,
            deployed_by: None,
            history: History::default(),
            custom: None,
            rejected: Vec::new(),
        }
    }

    /// The tag that `pull-latest` follows.
    #[must_use]
    pub fn track_name(&self) -> &str {
        self.track.as_ref().map_or(DEFAULT_TRACK, Tag::as_str)
    }

    /// Whether `tag` says nothing about which bytes it named: the tracked tag or `latest`, unless
    /// it names one release (`1.20.3` as the default of a Compose file).
    #[must_use]
    pub fn is_moving(&self, tag: &Tag) -> bool {
        tag.as_str() == DEFAULT_TRACK
            || (tag.as_str() == self.track_name() && !track::is_release(tag))
    }

    /// Whether the tag that it follows names one release, so that it stays what it is until told.
    #[must_use]
    pub fn follows_release(&self) -> bool {
        self.source == Source::Registry && self.track.as_ref().is_some_and(track::is_release)
    }

    /// The command that records which bytes the current release has, and changes as little as it
    /// can besides.
    #[must_use]
    pub fn what_records(&self) -> String {
        match self.current().filter(|current| !self.is_moving(&current.tag)) {
            Some(current) => format!("`dkv version-pull {} {}`", self.name, current.tag),
            None => format!("`dkv pull-latest {}`", self.name),
        }
    }

    /// What a reference in a Compose file is to the tag that the service follows.
    #[must_use]
    pub fn fit(&self, reference: &Reference) -> Fit {
        let mut entries = self.history.entries().iter();
        let digest = reference.digest.as_ref();
        let has_digest =
            |release: &Release| digest.is_some_and(|digest| release.bytes.has_digest(digest));
        let tag = match (&reference.tag, digest) {
            (Some(tag), _) => tag.as_str(),
            (None, None) => DEFAULT_TRACK,
            (None, Some(_)) if entries.any(has_digest) => return Fit::Remembered,
            (None, Some(_)) => return Fit::Version,
        };
        if tag == self.track_name() {
            Fit::Track
        } else if entries.any(|release| release.tag.as_str() == tag || has_digest(release)) {
            Fit::Remembered
        } else if track::is_of_line(tag, self.track_name(), self.current().map(|one| &one.tag)) {
            Fit::Version
        } else {
            Fit::Other
        }
    }

    /// The release that the manifest says should run.
    #[must_use]
    pub fn current(&self) -> Option<&Release> {
        self.history.current()
    }

    /// The index of the release that a rollback goes to.
    #[must_use]
    pub fn previous_index(&self) -> Option<usize> {
        self.history.previous_index(|tag| self.is_moving(tag))
    }

    /// Whether somebody has written a tag into the manifest that the history does not have, and no
    /// digest of it.
    #[must_use]
    pub fn is_named_by_hand(&self) -> bool {
        let is_unknown = |release: &Release| {
            let digest = release.bytes.digest.as_ref().or(release.unverified_digest.as_ref());
            release.origin.is_none() && digest.is_none()
        };
        self.source == Source::Registry
            && self.history.entries().len() > 1
            && self.current().is_some_and(is_unknown)
    }

    /// The custom version, if that is what is current.
    #[must_use]
    pub fn custom_in_force(&self) -> Option<&Custom> {
        let current = self.current()?;
        self.custom.as_ref().filter(|custom| match &custom.digest {
            Some(digest) => current.bytes.has_digest(digest),
            None => custom.tag == current.tag,
        })
    }

    /// The rejection of `digest`, if a safe update found it bad.
    #[must_use]
    pub fn rejection(&self, digest: &Digest) -> Option<&Rejected> {
        self.rejected.iter().find(|rejected| rejected.digest == *digest)
    }

    /// The release with these bytes, if a rollback by hand has left it.
    #[must_use]
    pub fn left_by_rollback(&self, bytes: &Bytes) -> Option<&Release> {
        let mut left = self.history.entries().iter().filter(|entry| entry.rolled_back);
        left.find(|entry| bytes.is_known() && entry.bytes.name() == bytes.name())
    }

    /// What the release at `index` is to the others.
    #[must_use]
    pub fn status(&self, index: usize) -> Rank {
        let entry = self.history.entries().get(index);
        if self.history.current_index() == Some(index) {
            Rank::Current
        } else if self.previous_index() == Some(index) {
            Rank::Previous
        } else if entry.is_some_and(|entry| entry.rolled_back) {
            Rank::RolledBack
        } else {
            Rank::Archived
        }
    }
}

impl Manifest {
    /// Gives every service without an image its own: what `hint` finds in a Compose file
    /// (repository and default tag), else the `ecr` default. The default tag becomes the track.
    ///
    /// # Errors
    ///
    /// A service's name makes no repository.
    pub fn settle(
        &mut self,
        hint: impl Fn(&Service) -> Option<(Repository, Option<Tag>)>,
    ) -> Result<(), super::reference::InvalidName> {
        let names: Vec<ServiceName> = self
            .services
            .values()
            .filter(|service| service.image.is_none())
            .map(|service| service.name.clone())
            .collect();
        for name in names {
            let default = self.default_image(&name)?;
            let prefixes = self.ecr.as_ref().map(Ecr::prefixes).unwrap_or_default();
            let Some(service) = self.services.get_mut(&name) else { continue };
            let hinted = if service.follows_ecr { None } else { hint(service) };
            let defaults: Vec<String> =
                prefixes.iter().map(|prefix| format!("{prefix}/{name}")).collect();
            service.image = Some(match hinted {
                Some((image, tag)) => {
                    service.track =
                        service.track.take().or(tag.filter(|tag| tag.as_str() != DEFAULT_TRACK));
                    let is_default = defaults.iter().any(|one| image.as_written() == one);
                    if is_default { default } else { image }
                }
                None => default,
            });
        }
        Ok(())
    }

    /// The texts of the histories of services that are not listed any more.
    pub fn unlisted_histories(&self) -> impl Iterator<Item = &str> {
        let all = self.document.root().get("history").and_then(|all| all.mapping().ok());
        all.into_iter().flatten().filter_map(|(key, history)| {
            let name: ServiceName = key.text().ok()?.parse().ok()?;
            let is_listed = self.services.contains_key(&name);
            (!is_listed).then(|| &self.source()[history.target().span()])
        })
    }

    /// Whether only a history is left of a service: somebody took out its entry.
    #[must_use]
    pub fn lost_entry(&self, name: &ServiceName) -> bool {
        let history = self.document.root().get("history");
        !self.services.contains_key(name)
            && history.is_some_and(|all| all.get(name.as_str()).is_some())
    }

    /// The repository that a service without a name of its own has by the `ecr` section.
    ///
    /// # Errors
    ///
    /// The section and the service's name make no valid repository.
    pub fn default_image(
        &self,
        service: &ServiceName,
    ) -> Result<Repository, super::reference::InvalidName> {
        let prefix = match &self.ecr {
            Some(ecr) => ecr.prefix(),
            None => DEFAULT_ECR_REGISTRY.to_owned(),
        };
        format!("{prefix}/{service}").parse()
    }

    /// The text that the manifest was read from.
    #[must_use]
    pub fn source(&self) -> &str {
        self.document.source()
    }

    /// Finds a service by its name, taking `-` and `_` for one another where only one service fits.
    #[must_use]
    pub fn find(&self, name: &ServiceName) -> Option<&Service> {
        if let Some(service) = self.services.get(name) {
            return Some(service);
        }
        let plain = name.as_str().replace('-', "_");
        let mut alike = self
            .services
            .values()
            .filter(|service| service.name.as_str().replace('-', "_") == plain);
        alike.next().filter(|_| alike.next().is_none())
    }
}
