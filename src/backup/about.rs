//! What each data backup was made for, in one file beside them: dumps have no list of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::store::{Replacement, file_name, is_taken, read, replace_all};

/// The file's name.
const NAME: &str = ".dkv-about.json";

/// What is known of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// When it was made; RFC 3339, UTC.
    pub made_at: String,
    /// By whom.
    pub made_by: String,
    /// What it holds.
    pub sources: Vec<String>,
    /// How many bytes that took where it was.
    pub bytes: Option<u64>,
    /// Why it was made.
    pub made_for: MadeFor,
}

/// Why a data backup was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum MadeFor {
    /// For an `update-safe`.
    Update {
        /// When that began; RFC 3339, UTC.
        started_at: String,
        /// What it was to change: a service, what it ran, and what it was to run.
        changes: Vec<(String, String, String)>,
    },
    /// For a `restore-data`: it holds what that replaced.
    Restore {
        /// The backup that was put back.
        backup: String,
    },
}

/// What is known of the backups in `directory`, by their names. What cannot be read is not known.
#[must_use]
pub fn about(directory: &Path) -> BTreeMap<String, About> {
    let found = read(&directory.join(NAME)).ok().flatten();
    found.and_then(|found| serde_json::from_slice(&found.bytes).ok()).unwrap_or_default()
}

/// Adds what is known of `made`, and forgets backups that are gone.
pub(super) fn note(directory: &Path, made: &Path, known: &About) -> Result<()> {
    let mut all = about(directory);
    // What cannot be looked at may be there.
    all.retain(|name, _| is_taken(&directory.join(name)).unwrap_or(true));
    all.insert(file_name(made), known.clone());
    let index = Replacement {
        path: PathBuf::from(directory).join(NAME),
        bytes: serde_json::to_vec_pretty(&all)?,
        before: None,
        owner_like: directory.to_owned(),
    };
    replace_all(&[index], "the next data backup writes it again")
}
