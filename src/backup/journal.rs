//! What a restore writes down about itself, so that one that was killed can be finished or undone.

use std::io;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Place, Source};

/// The version of the journal's shape.
const FORMAT: u32 = 1;

/// A restore under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    format: u32,
    /// The archive.
    pub backup: PathBuf,
    /// As of when its data is; RFC 3339, UTC.
    pub made_at: String,
    /// Where the archive's sources are now.
    pub sources: Vec<Source>,
    /// Of each source, whether it is a single file.
    files: Vec<bool>,
    /// The Compose services that were stopped for it.
    pub stopped: Vec<String>,
    /// How far it has come.
    pub phase: Phase,
}

/// What a restore is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing was replaced yet.
    Unpacking,
    /// The new data takes the place of what was there.
    Replacing,
    /// What was there comes back.
    GoingBack,
    /// The new data is in place; what was there goes.
    InPlace,
}

impl Phase {
    /// Whether there may be half of the old data and half of the new.
    #[must_use]
    pub fn is_between(self) -> bool {
        matches!(self, Self::Replacing | Self::GoingBack)
    }
}

impl Restore {
    /// A restore that begins.
    #[must_use]
    pub fn begin(backup: PathBuf, made_at: String, sources: Vec<Source>, files: Vec<bool>) -> Self {
        let (stopped, phase) = (Vec::new(), Phase::Unpacking);
        Self { format: FORMAT, backup, made_at, sources, files, stopped, phase }
    }

    /// The places of the sources.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let sources = self.sources.iter().zip(&self.files).enumerate();
        sources
            .map(|(number, (source, is_file))| Place::new(number, &source.path, *is_file))
            .collect()
    }

    /// Removes what a restore leaves that is not between old and new data.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn tidy(&self) -> io::Result<()> {
        self.places().iter().try_for_each(|place| match self.phase {
            Phase::Unpacking => place.clear(),
            Phase::InPlace => place.discard(),
            Phase::Replacing | Phase::GoingBack => Ok(()),
        })
    }

    /// The journal's text.
    ///
    /// # Errors
    ///
    /// A path is no text.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Reads a journal's text.
    ///
    /// # Errors
    ///
    /// It is none, or of a newer dkv.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let journal: Self = serde_json::from_slice(bytes)?;
        anyhow::ensure!(journal.format == FORMAT, "it was written by a newer dkv");
        anyhow::ensure!(journal.files.len() == journal.sources.len(), "it is damaged");
        Ok(journal)
    }
}
