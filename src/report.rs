//! What commands return: one struct each, as text or as JSON.
//!
//! The JSON is frozen: fields are added, never renamed, removed or given another meaning; `schema`
//! is 1 until that has to change. Every document has `schema` and `command`; times are RFC 3339,
//! digests `sha256:…`, missing values `null`.
#![deny(clippy::disallowed_methods)]

mod backups;
pub mod drift;
pub mod migrate;
mod operation;
pub mod pin;
mod update;

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::model::history::{Bytes, Release};
use crate::model::manifest::{Manifest, Rank, Service, Source};
use crate::plan::{Outcome, Step};

pub use backups::{BackupChange, Backups, DataBackupLine, ManifestBackupLine};
pub use operation::{OperationView, Operations, Undone};
pub use update::{
    DataReport, DataSource, Finding, GivenUpService, ReplacedService, RestoredData, SafeUpdate,
    UpdateResult,
};

/// A report with what every JSON document carries.
#[derive(Debug, Serialize)]
pub struct Document<'a, T> {
    /// Version of the shape.
    pub schema: u8,
    /// The command, by its full name; `null` if the command line names none.
    pub command: Option<&'a str>,
    /// The report's own fields.
    #[serde(flatten)]
    pub body: &'a T,
    /// What the user was warned of until then; lines of a stream have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

impl<'a, T> Document<'a, T> {
    /// Wraps the report of `command`; empty if it is not known.
    #[must_use]
    pub fn new(command: &'a str, body: &'a T, warnings: Vec<String>) -> Self {
        Self { warnings: Some(warnings), ..Self::line(command, body) }
    }

    /// Wraps one of many that come one by one.
    #[must_use]
    pub fn line(command: &'a str, body: &'a T) -> Self {
        let command = Some(command).filter(|name| !name.is_empty());
        Self { schema: 1, command, body, warnings: None }
    }
}

/// A failed command.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What went wrong.
    pub error: FailureDetail,
}

/// What went wrong, for programs.
#[derive(Debug, Serialize)]
pub struct FailureDetail {
    /// The kind, in the words of the exit-code table.
    pub kind: Kind,
    /// The process's exit code.
    pub exit_code: u8,
    /// The message, with the causes behind it.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// The failure that `chain` tells of.
    #[must_use]
    pub fn new(chain: &anyhow::Error) -> Self {
        let kind = crate::error::kind(chain);
        let hint = crate::error::find(chain).and_then(Error::hint).map(str::to_owned);
        Self {
            error: FailureDetail {
                kind,
                exit_code: kind.exit_code(),
                message: format!("{chain:#}"),
                hint,
            },
        }
    }
}

/// `help-version`.
#[derive(Debug, Serialize)]
pub struct Help {
    /// The text, for people.
    pub text: &'static str,
}

/// One release.
#[derive(Debug, Clone, Serialize)]
pub struct ReleaseView {
    /// The tag.
    pub tag: String,
    /// Digest in the registry.
    pub digest: Option<String>,
    /// Digest of the index's entry for this host.
    pub platform_digest: Option<String>,
    /// The daemon's name for the image.
    pub image_id: Option<String>,
    /// When it was recorded.
    pub deployed_at: Option<String>,
    /// By whom.
    pub deployed_by: Option<String>,
}

impl From<&Release> for ReleaseView {
    fn from(release: &Release) -> Self {
        let Bytes { digest, platform_digest, image_id } = &release.bytes;
        Self {
            tag: release.tag.to_string(),
            digest: digest.as_ref().map(ToString::to_string),
            platform_digest: platform_digest.as_ref().map(ToString::to_string),
            image_id: image_id.as_ref().map(ToString::to_string),
            deployed_at: release.deployed_at.clone(),
            deployed_by: release.deployed_by.clone(),
        }
    }
}

impl ReleaseView {
    /// The tag and the beginning of the digest, as tables show them.
    #[must_use]
    pub fn short(&self) -> String {
        match self.digest.as_deref().or(self.image_id.as_deref()) {
            Some(digest) => format!("{} ({})", self.tag, short_digest(digest)),
            None => self.tag.clone(),
        }
    }
}

/// The first twelve digits of a digest.
#[must_use]
pub fn short_digest(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// `version`: what is recorded as current.
#[derive(Debug, Serialize)]
pub struct Versions {
    /// One entry a service, in the manifest's order.
    pub services: Vec<ServiceVersion>,
}

/// The current version of one service.
#[derive(Debug, Serialize)]
pub struct ServiceVersion {
    /// The service.
    pub name: String,
    /// Its repository.
    pub image: Option<String>,
    /// The current release's tag; `null` if nothing is recorded yet.
    pub tag: Option<String>,
    /// Its digest.
    pub digest: Option<String>,
    /// Its image ID.
    pub image_id: Option<String>,
    /// When it became current.
    pub deployed_at: Option<String>,
    /// Who made it current.
    pub deployed_by: Option<String>,
    /// The tag that `pull-latest` follows.
    pub track: String,
    /// Where its images come from.
    pub source: Source,
    /// Whether `pull-latest` leaves it alone.
    pub held: bool,
    /// Whether it is a version set by hand.
    pub custom: bool,
    /// Why it was set by hand.
    pub custom_reason: Option<String>,
    /// The tag that a rollback goes to.
    pub previous: Option<String>,
}

impl Versions {
    /// The report for `services`.
    #[must_use]
    pub fn of(services: &[&Service]) -> Self {
        Self { services: services.iter().map(|service| ServiceVersion::of(service)).collect() }
    }
}

impl ServiceVersion {
    fn of(service: &Service) -> Self {
        let current = service.current().map(ReleaseView::from);
        let custom = service.custom_in_force();
        Self {
            name: service.name.to_string(),
            image: service.image.as_ref().map(ToString::to_string),
            tag: current.as_ref().map(|release| release.tag.clone()),
            digest: current.as_ref().and_then(|release| release.digest.clone()),
            image_id: current.as_ref().and_then(|release| release.image_id.clone()),
            deployed_at: service
                .deployed_at
                .clone()
                .or_else(|| current.as_ref()?.deployed_at.clone()),
            deployed_by: service
                .deployed_by
                .clone()
                .or_else(|| current.as_ref()?.deployed_by.clone()),
            track: service.track_name().to_owned(),
            source: service.source,
            held: service.held,
            custom: custom.is_some(),
            custom_reason: custom.and_then(|custom| custom.reason.clone()),
            previous: service
                .previous_index()
                .map(|index| service.history.entries()[index].tag.to_string()),
        }
    }
}

/// `version-history`: every remembered release.
#[derive(Debug, Serialize)]
pub struct Histories {
    /// One entry a service, in the manifest's order.
    pub services: Vec<ServiceHistory>,
}

/// The releases of one service, newest first.
#[derive(Debug, Serialize)]
pub struct ServiceHistory {
    /// The service.
    pub name: String,
    /// Whether `pull-latest` leaves it alone.
    pub held: bool,
    /// The releases.
    pub releases: Vec<HistoryEntry>,
}

/// One release and its place in the history.
#[derive(Debug, Serialize)]
pub struct HistoryEntry {
    /// The release.
    #[serde(flatten)]
    pub release: ReleaseView,
    /// What it is to the others.
    pub status: Rank,
    /// Whether it is a version set by hand.
    pub custom: bool,
    /// Whether nothing tells any more which bytes it had.
    pub lost: bool,
}

impl Histories {
    /// The report for `services`.
    #[must_use]
    pub fn of(services: &[&Service]) -> Self {
        let services = services.iter().map(|service| ServiceHistory {
            name: service.name.to_string(),
            held: service.held,
            releases: service
                .history
                .entries()
                .iter()
                .enumerate()
                .map(|(index, entry)| HistoryEntry {
                    release: entry.into(),
                    status: service.status(index),
                    custom: service.history.current_index() == Some(index)
                        && service.custom_in_force().is_some(),
                    lost: entry.is_lost(|tag| service.is_moving(tag)),
                })
                .collect(),
        });
        Self { services: services.collect() }
    }
}

/// What a command that changes versions did, or with `--dry-run` would do.
#[derive(Debug, Default, Serialize)]
pub struct Changes {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// One entry a service.
    pub services: Vec<ServiceChange>,
    /// What became of the deployment's files.
    pub files: Files,
}

/// What happened to one service.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceChange {
    /// The service.
    pub name: String,
    /// What happened.
    pub outcome: Outcome,
    /// The release before.
    pub from: Option<ReleaseView>,
    /// The release now.
    pub to: Option<ReleaseView>,
    /// What the operator should know beyond that.
    pub notes: Vec<String>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl ServiceChange {
    /// What `step` does.
    #[must_use]
    pub fn of(step: &Step) -> Self {
        Self {
            name: step.before.name.to_string(),
            outcome: step.outcome,
            from: step.before.current().map(ReleaseView::from),
            to: step.after.current().map(ReleaseView::from),
            notes: step.notes.clone(),
            error: None,
        }
    }

    /// A service that was left alone, and why.
    #[must_use]
    pub fn skipped(service: &Service, why: String) -> Self {
        let mut change = Self::of(&Step::unchanged(service));
        change.outcome = Outcome::Skipped;
        change.notes.push(why);
        change
    }

    /// A service that could not be done.
    #[must_use]
    pub fn failed(service: &Service, error: &anyhow::Error) -> Self {
        let mut change = Self::of(&Step::unchanged(service));
        change.outcome = Outcome::Failed;
        change.error = Some(format!("{error:#}"));
        change
    }
}

/// What became of the deployment's files.
#[derive(Debug, Default, Serialize)]
pub struct Files {
    /// Whether the manifest was written.
    pub manifest_written: bool,
    /// Whether `versions.env` was written.
    pub env_written: bool,
    /// The manifest's backup.
    pub backup: Option<String>,
    /// Where a `versions.env` that was edited by hand was saved.
    pub env_backup: Option<String>,
}

/// `generate-env`.
#[derive(Debug, Serialize)]
pub struct EnvReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The file.
    pub file: String,
    /// `current`, `old-header`, `stale`, `edited` or `missing`, as it was found.
    pub found: &'static str,
    /// Whether it was written.
    pub written: bool,
    /// Where a file that was edited by hand was saved.
    pub backup: Option<String>,
    /// The assignments.
    pub variables: std::collections::BTreeMap<String, String>,
}

/// The services of a manifest that a list of names selects, for reports that need no plan.
#[must_use]
pub fn all_services(manifest: &Manifest) -> Vec<&Service> {
    manifest.services.values().collect()
}

/// `up`, `updb`, `restart`, `start`: what runs afterwards.
#[derive(Debug, Default, Serialize)]
pub struct Started {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What was done, step by step; with `--dry-run`, what would be.
    pub steps: Vec<String>,
    /// The containers, problems first.
    pub containers: Vec<ContainerLine>,
    /// Why the command failed, if it did after it had started something.
    pub error: Option<FailureDetail>,
}

/// How a container stands: what its judgement comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its health check passes.
    Healthy,
    /// It runs and has no health check.
    Unchecked,
    /// It has done its work and ended.
    Completed,
    /// It is waited for.
    Pending,
    /// It is not what it should be.
    Failed,
}

impl Standing {
    /// The word for it in tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unchecked => "unchecked",
            Self::Completed => "completed",
            Self::Pending => "pending",
            Self::Failed => "failed",
        }
    }
}

/// One container of a deployment.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerLine {
    /// The Compose service.
    pub compose_service: String,
    /// The manifest service whose image it runs; `null` for one that is not tracked.
    pub service: Option<String>,
    /// The container's name; `null` if there is none.
    pub container: Option<String>,
    /// The tag that runs.
    pub tag: Option<String>,
    /// The digest that runs.
    pub digest: Option<String>,
    /// The image ID that runs.
    pub image_id: Option<String>,
    /// The daemon's state: `running`, `exited`, …; `missing` if there is no container.
    pub state: String,
    /// What the daemon says of the health check: `starting`, `healthy`, `unhealthy`; `null` if
    /// there is none.
    pub health: Option<&'static str>,
    /// The judgement.
    pub verdict: Standing,
    /// The judgement in words.
    pub details: String,
    /// When the container was started.
    pub started_at: Option<String>,
    /// Since when it is in its state.
    pub since: Option<String>,
    /// What it exited with; `null` if it has not.
    pub exit_code: Option<i64>,
    /// How often the daemon has started it again.
    pub restarts: i64,
    /// Whether it runs what the manifest says; `null` if that cannot be told.
    pub as_recorded: Option<bool>,
    /// Why it is not as it should be, line by line.
    pub problem: Vec<String>,
}

impl ContainerLine {
    /// The beginning of the digest for tables. The image's ID stands in only where the record
    /// itself has nothing else, as for a local build; of what is not tracked it would pass for a
    /// digest.
    #[must_use]
    pub fn shown_digest(&self) -> &str {
        let id = self.image_id.as_deref().filter(|_| self.service.is_some());
        self.digest.as_deref().or(id).map_or("-", short_digest)
    }
}

/// `check-updates`.
#[derive(Debug, Serialize)]
pub struct Updates {
    /// One entry a service, in the manifest's order.
    pub services: Vec<ServiceUpdate>,
}

/// How a service stands against its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateState {
    /// The tracked tag names what is recorded.
    UpToDate,
    /// It names another release.
    Update,
    /// The recorded version has other bytes now.
    Rebuilt,
    /// `pull-latest` leaves it alone.
    Held,
    /// Built on this host.
    Local,
    /// A rollback left what the tag names.
    Behind,
    /// A safe update found bad what the tag names.
    Rejected,
    /// The registry could not be asked.
    Unknown,
}

impl UpdateState {
    /// The state in words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UpToDate => "up to date",
            Self::Update => "update",
            Self::Rebuilt => "rebuilt",
            Self::Held => "held",
            Self::Local => "local",
            Self::Behind => "behind by choice",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

/// What `pull-latest` would do to one service.
#[derive(Debug, Serialize)]
pub struct ServiceUpdate {
    /// The service.
    pub name: String,
    /// The recorded tag.
    pub tag: Option<String>,
    /// The recorded digest.
    pub digest: Option<String>,
    /// The tracked tag.
    pub track: String,
    /// Whether that names one release, so that the service stays what it is until told.
    pub stays: bool,
    /// What was asked for.
    pub available_tag: Option<String>,
    /// The version that it is, if one names the same bytes.
    pub available_version: Option<String>,
    /// The digest that it names now; `null` for a local build, which has none.
    pub available_digest: Option<String>,
    /// The newest version in the repository; `null` unless its tags were listed, which an unchanged
    /// `latest` gives no reason for.
    pub newest: Option<String>,
    /// How it stands.
    pub state: UpdateState,
    /// More about it.
    pub details: String,
    /// Whether `pull-latest` would record something.
    pub would_change: bool,
    /// Why no version is known for the available digest.
    pub unresolved: Option<String>,
    /// How the version is known: `same-digest`, `same-platform-digest`, `ecr-public-api`,
    /// `ecr-private-api`.
    pub evidence: Option<&'static str>,
}

impl ServiceUpdate {
    /// The entry for `service`.
    #[must_use]
    pub fn of(
        service: &Service,
        state: UpdateState,
        found: Option<&crate::plan::Found>,
        details: String,
    ) -> Self {
        let current = service.current().map(ReleaseView::from);
        Self {
            name: service.name.to_string(),
            tag: current.as_ref().map(|current| current.tag.clone()),
            digest: current.and_then(|current| current.digest),
            track: service.track_name().to_owned(),
            stays: service.follows_release(),
            available_tag: found.map(|found| found.asked.to_string()),
            available_version: None,
            available_digest: found
                .and_then(|found| found.bytes.digest.as_ref())
                .map(ToString::to_string),
            newest: None,
            state,
            details,
            would_change: false,
            unresolved: None,
            evidence: None,
        }
    }
}

/// `ecr-login`.
#[derive(Debug, Default, Serialize)]
pub struct EcrLogin {
    /// The private registry; `null` if the manifest uses none.
    pub registry: Option<String>,
    /// Until when the login works.
    pub expires_at: Option<String>,
    /// Whether the Docker command line was logged in as well.
    pub docker: bool,
}

/// `status`, and the first part of `info` and `health`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The Compose project.
    pub project: String,
    /// Whether every container is as it should be.
    pub healthy: bool,
    /// Whether Compose described the project. Without it, services that lack a container are not
    /// known.
    pub complete: bool,
    /// The containers, and the services that lack one: problems first.
    pub containers: Vec<StatusLine>,
}

/// One container of `status`.
#[derive(Debug, Serialize)]
pub struct StatusLine {
    /// The container.
    #[serde(flatten)]
    pub container: ContainerLine,
    /// Whether the database files describe its service.
    pub database: bool,
    /// Whether the manifest has its image.
    pub tracked: bool,
    /// The release that the manifest says should run.
    pub recorded: Option<ReleaseView>,
}

/// `info`: what runs, and what is recorded.
#[derive(Debug, Serialize)]
pub struct Info {
    /// What runs.
    #[serde(flatten)]
    pub status: Status,
    /// What is recorded; nothing without a manifest.
    #[serde(flatten)]
    pub versions: Versions,
}

/// `health`: what runs, and what `pull-latest` would change.
#[derive(Debug, Serialize)]
pub struct Health {
    /// What runs.
    #[serde(flatten)]
    pub status: Status,
    /// What registries have; nothing without a manifest.
    #[serde(flatten)]
    pub updates: Updates,
}

/// One line of `logs`; each is a document of its own.
#[derive(Debug, Serialize)]
pub struct LogLine {
    /// The Compose service, with `-2` and so on for further containers of it.
    pub service: String,
    /// When the daemon received it.
    pub time: String,
    /// The text, without what a terminal would obey.
    pub text: String,
}

/// `prune`: the keep-tags of releases that no history remembers.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The tags that were removed; with `--dry-run`, that would be.
    pub removed: Vec<String>,
    /// The tags that containers still need.
    pub in_use: Vec<String>,
}
