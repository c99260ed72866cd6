//! What the operator's own backup command prints: kept as it is, with a checksum.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::archive::{open, publish};
use super::{Cancelled, Order, checksum, prepare, remember};

/// What the names of dumps end with.
pub(super) const SUFFIX: &str = ".dump";

/// A dump that is being made; nothing is left of one that is not kept.
#[derive(Debug)]
pub struct Dump {
    order: Order,
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl Dump {
    /// Begins a dump.
    ///
    /// # Errors
    ///
    /// It cannot be written there (exit 3).
    pub fn begin(order: Order) -> Result<Self> {
        prepare(&order.directory)?;
        let (path, partial, file) = open(&order.directory, &order.stamp, SUFFIX)?;
        Ok(Self { order, path, partial, file })
    }

    /// The standard output of the command that makes it.
    ///
    /// # Errors
    ///
    /// The system has no handle left.
    pub fn output(&self) -> Result<Stdio> {
        Ok(self.file.try_clone().context("cannot share the file of the dump")?.into())
    }

    /// Keeps what was written and removes the oldest backup; `None` if nothing was.
    ///
    /// # Errors
    ///
    /// It cannot be read back or published, or `cancelled` was set.
    pub fn keep(self, cancelled: &Cancelled) -> Result<Option<PathBuf>> {
        if self.file.metadata()?.len() == 0 {
            return Ok(None);
        }
        self.file.sync_all()?;
        publish(&self.path, &self.partial, &checksum(&self.partial, cancelled)?)?;
        remember(&self.order, &self.path)?;
        Ok(Some(self.path.clone()))
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Whether a backup is such a dump, which dkv cannot put back.
#[must_use]
pub fn is_dump(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(SUFFIX))
}
