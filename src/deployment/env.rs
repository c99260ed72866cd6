//! `versions.env`: how it stands against what the manifest says.

use std::path::PathBuf;

use anyhow::Result;

use super::Record;
use crate::model::env_file;
use crate::store::{self, Snapshot, Store};

/// How `versions.env` stands against what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvState {
    /// There is none.
    Missing,
    /// It is there.
    Found(env_file::State),
}

impl EnvState {
    /// The word for it in messages and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Found(env_file::State::Current) => "current",
            Self::Found(env_file::State::OldHeader) => "old-header",
            Self::Found(env_file::State::Stale) => "stale",
            Self::Found(env_file::State::Edited) => "edited",
        }
    }

    /// The state in words for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Found(env_file::State::OldHeader) => {
                "written from an older manifest with the same versions"
            }
            Self::Found(env_file::State::Edited) => "edited by hand or by another tool",
            other => other.word(),
        }
    }

    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_current(self) -> bool {
        self == Self::Found(env_file::State::Current)
    }

    /// Whether other assignments stand there than should.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        matches!(
            self,
            Self::Missing | Self::Found(env_file::State::Stale | env_file::State::Edited)
        )
    }
}

/// `versions.env` as it was read.
#[derive(Debug)]
pub struct EnvFile {
    /// Where it is.
    pub path: PathBuf,
    /// The text that it should have.
    pub expected: String,
    /// How it stands against that.
    pub state: EnvState,
    /// What was read.
    pub found: Option<Snapshot>,
}

impl EnvFile {
    /// Reads the file and compares it with what `record` says.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the manifest makes no valid one (exit 3).
    pub fn read(record: &Record, store: &Store) -> Result<Self> {
        let path = record.env_path(store);
        let expected = record.env_text(store)?;
        let found = store::read(&path)?;
        let state = match &found {
            None => EnvState::Missing,
            Some(found) => EnvState::Found(env_file::compare(
                &String::from_utf8_lossy(&found.bytes),
                &expected,
            )),
        };
        Ok(Self { path, expected, state, found })
    }

    /// What was read, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = self.found.as_ref().map_or(&[][..], |found| &found.bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }
}
