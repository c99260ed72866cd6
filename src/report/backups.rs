//! What `backups` returns.

use serde::Serialize;

/// `backups`: what can be put back.
#[derive(Debug, Serialize)]
pub struct Backups {
    /// The data backups, newest first.
    pub data: Vec<DataBackupLine>,
    /// The manifest as it was before each change, newest first.
    pub manifests: Vec<ManifestBackupLine>,
}

/// One data backup.
#[derive(Debug, Serialize)]
pub struct DataBackupLine {
    /// Its name, for `restore-data`.
    pub name: String,
    /// Its file.
    pub file: String,
    /// When it was made; `null` where only its name tells.
    pub made_at: Option<String>,
    /// By whom.
    pub made_by: Option<String>,
    /// How many bytes the file has; `null` if it cannot be looked at.
    pub size: Option<u64>,
    /// How many bytes the data took where it was.
    pub bytes: Option<u64>,
    /// Whether it is a dump, which only the database's own program can read.
    pub dump: bool,
    /// What it holds.
    pub sources: Vec<String>,
    /// When the `update-safe` began that it was made for.
    pub update_started_at: Option<String>,
    /// What that was to change.
    pub changes: Vec<BackupChange>,
    /// The backup that was put back, where this one holds what that replaced.
    pub replaced_by: Option<String>,
}

/// One backup of the manifest.
#[derive(Debug, Serialize)]
pub struct ManifestBackupLine {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// When it was made, which is when the change after it was written.
    pub made_at: Option<String>,
    /// How many bytes the file has; `null` if it cannot be looked at.
    pub size: Option<u64>,
    /// Who made that change; `null` where it was none of a release.
    pub changed_by: Option<String>,
    /// What that change did to releases.
    pub changes: Vec<BackupChange>,
    /// Why the backup, or what came after it, cannot be read.
    pub error: Option<String>,
}

/// What one service was and became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupChange {
    /// The manifest service.
    pub service: String,
    /// The tag before; `null` where nothing was recorded.
    pub from: Option<String>,
    /// The tag after; `null` where nothing is recorded any more.
    pub to: Option<String>,
}

impl std::fmt::Display for BackupChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tag = |tag: &Option<String>| tag.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "{} {} → {}", self.service, tag(&self.from), tag(&self.to))
    }
}
