//! What `update-safe` returns.

use serde::{Deserialize, Serialize};

use super::{ContainerLine, FailureDetail, Files, ServiceChange};

/// What came of an `update-safe`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateResult {
    /// Nothing was done, because only the plan was asked for.
    #[default]
    Planned,
    /// The new versions run.
    Updated,
    /// Some do; with `--keep-going`, or where what a service runs already is not proven.
    PartlyUpdated,
    /// There was nothing new.
    Unchanged,
    /// What ran before runs, after `--abort` or a failure.
    Restored,
    /// What ran before was started again, and is not as it was.
    RestoreFailed,
}

/// `update-safe`: what was updated, or with `--dry-run` would be. An update that fails before
/// anything was replaced is an error document.
#[derive(Debug, Default, Serialize)]
pub struct SafeUpdate {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What came of it.
    pub result: UpdateResult,
    /// One entry a service of the manifest.
    pub services: Vec<ServiceChange>,
    /// The Compose services whose containers were replaced.
    pub replaced: Vec<ReplacedService>,
    /// The Compose services that were only stopped for the time in which their data was saved.
    pub paused: Vec<ReplacedService>,
    /// The Compose services that were stopped on purpose, and still are.
    pub stopped: Vec<String>,
    /// The Compose services that are not as they should be, as before the update: it does not touch
    /// them.
    pub failing: Vec<String>,
    /// The services whose new version failed and was given up, with `--keep-going`.
    pub given_up: Vec<GivenUpService>,
    /// The releases that are remembered as bad: their own container was started and failed by
    /// itself.
    pub rejected: Vec<Finding>,
    /// The releases that were tried and are not held to be bad, although the update failed.
    pub spared: Vec<Finding>,
    /// The containers as they run now, problems first.
    pub containers: Vec<ContainerLine>,
    /// The data backup that was made.
    pub data_backup: Option<String>,
    /// What was done for the data, or would be; `null` where nothing is replaced.
    pub data: Option<DataReport>,
    /// What became of the deployment's files.
    pub files: Files,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FailureDetail>,
}

/// What an update does for the data.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataReport {
    /// The backup's file.
    pub file: Option<String>,
    /// What it holds.
    pub sources: Vec<DataSource>,
    /// The operator's own command that makes it.
    pub command: Option<String>,
    /// How many bytes that takes where it is; `null` if that is not known.
    pub bytes: Option<u64>,
    /// How many bytes the backup takes.
    pub stored_bytes: Option<u64>,
    /// What services write that is not known to be a database's, or that the manifest leaves out.
    pub left_out: Vec<DataSource>,
    /// Why nothing is saved.
    pub reason: Option<String>,
}

/// A place of data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSource {
    /// The volume, or the path on the host.
    pub source: String,
    /// The Compose services that write it.
    pub services: Vec<String>,
}

impl std::fmt::Display for DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)?;
        if self.services.is_empty() { Ok(()) } else { write!(f, " ({})", self.services.join(", ")) }
    }
}

/// What a failed update says about one release.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The manifest service.
    pub service: String,
    /// The release's tag.
    pub tag: Option<String>,
    /// The release's digest.
    pub digest: Option<String>,
    /// Why it is rejected, or why not.
    pub reason: String,
}

/// A service whose new version was given up.
#[derive(Debug, Clone, Serialize)]
pub struct GivenUpService {
    /// The manifest service.
    pub service: String,
    /// Why.
    pub reason: String,
    /// Whether the new version is rejected.
    pub rejected: bool,
}

/// A Compose service whose containers were replaced or stopped for a while.
#[derive(Debug, Clone, Serialize)]
pub struct ReplacedService {
    /// The Compose service.
    pub compose_service: String,
    /// The manifest service whose image it runs; `null` for one that is not tracked.
    pub service: Option<String>,
    /// From the end of the old container to a good one, by the daemon's clock; `null` if there was
    /// no old one, or that was not seen.
    pub downtime_seconds: Option<f64>,
}

/// `restore-data`: what was put back.
#[derive(Debug, Serialize)]
pub struct RestoredData {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Whether an interrupted restore was undone.
    pub undone: bool,
    /// The backup's file.
    pub backup: String,
    /// When it was made.
    pub made_at: String,
    /// The directories and volumes that it holds.
    pub sources: Vec<String>,
    /// The Compose services that were stopped meanwhile.
    pub stopped: Vec<String>,
    /// The backup of what was there before.
    pub copy: Option<String>,
    /// With `--dry-run`: the directories and volumes that would be saved as that.
    pub would_save: Vec<String>,
}
