//! Data in the place of other data, in steps that can be done again from their beginning, whatever
//! they were killed in.
//!
//! A directory keeps its place, because it may be a mount point: its entries make way and new ones
//! come. On its own disk, inside it (or beside a file), stand meanwhile
//!
//! ```text
//! .dkv-restore-N/N          what is to come
//!               /moved      all that was there has made way; from now on new entries come
//!               /given-up   what comes is what was there before: the new data makes way again
//! .dkv-replaced-N           what was there
//! .dkv-undo-N               the `.dkv-restore-N` of a way back, until it is complete
//! .dkv-finished-N           what is of no use any more
//! ```

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error;
use crate::store::{self, cannot_write, is_taken};

/// Where an archive is unpacked before anything is replaced.
const COMING: &str = ".dkv-restore-";
/// Where what is replaced waits until all is in place.
const REPLACED: &str = ".dkv-replaced-";
const UNDO: &str = ".dkv-undo-";
const FINISHED: &str = ".dkv-finished-";

/// In [`COMING`]: everything has made way.
const MOVED: &str = "moved";
/// In [`COMING`]: where new data goes when the old comes back.
const GIVEN_UP: &str = "given-up";

/// A place of data, and the number of its source in the archive.
#[derive(Debug, Clone)]
pub struct Place {
    target: PathBuf,
    number: usize,
    is_file: bool,
}

impl Place {
    /// The place of the source `number`, which is a file or a directory.
    #[must_use]
    pub fn new(number: usize, target: &Path, is_file: bool) -> Self {
        // The target may be a link to the data.
        let target = store::resolve(target).unwrap_or_else(|_| target.to_owned());
        Self { target, number, is_file }
    }

    fn directory(&self) -> &Path {
        match self.is_file {
            true => self.target.parent().unwrap_or(Path::new("/")),
            false => &self.target,
        }
    }

    fn beside(&self, prefix: &str) -> PathBuf {
        self.directory().join(format!("{prefix}{}", self.number))
    }

    /// Where the new data is unpacked, below its number.
    pub(super) fn coming(&self) -> PathBuf {
        self.beside(COMING)
    }

    /// Where what was there is kept until everything is in place.
    #[must_use]
    pub fn replaced(&self) -> PathBuf {
        self.beside(REPLACED)
    }

    /// Makes sure that `bytes` can be unpacked here and be swapped.
    ///
    /// # Errors
    ///
    /// The disk is too small, a file stands in the place of a directory or the other way round, or
    /// data that an earlier restore replaced is still there (exit 3).
    pub(super) fn check(&self, bytes: u64) -> anyhow::Result<()> {
        let target = self.target.display();
        match std::fs::metadata(&self.target) {
            Ok(there) if there.is_dir() == self.is_file => {
                let (is, was) = match self.is_file {
                    true => ("a directory", "a file"),
                    false => ("a file", "a directory"),
                };
                return Err(error::state(format!("`{target}` is {is} and was {was}"))
                    .with_hint("move it away, and run the command again; nothing was changed")
                    .into());
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(error::state(format!("cannot look at `{target}`: {source}"))
                    .with_hint("run dkv as a user who may; nothing was changed")
                    .into());
            }
            _ => {}
        }
        if let Some(kept) =
            self.left_behind().map_err(|source| cannot_write(&self.target, &source))?
        {
            return Err(error::state(format!(
                "`{}` holds data that an earlier restore replaced",
                kept.display()
            ))
            .with_hint("move it away, and run the command again; nothing was changed")
            .into());
        }
        // A directory that was removed comes back; its disk is that of what is above it.
        super::check_room(super::nearest_directory(self.directory())?, bytes)
    }

    /// All that was done here is there after a power cut too.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync(self.directory())
    }

    /// What an earlier restore replaced, if it is still there.
    fn left_behind(&self) -> io::Result<Option<PathBuf>> {
        for kept in [self.replaced(), self.beside(UNDO)] {
            if is_taken(&kept)? {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    /// Removes what an earlier restore left that had replaced nothing yet.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        remove_tree(&self.coming())?;
        remove_tree(&self.beside(FINISHED))
    }

    /// Puts the new data in its place; what was there is kept in [`Self::replaced`].
    ///
    /// # Errors
    ///
    /// Something cannot be moved. Doing it again goes on where it stopped.
    pub fn swap(&self) -> io::Result<()> {
        let coming = self.coming();
        if !is_taken(&coming)? {
            return self.finish();
        }
        let new = coming.join(self.number.to_string());
        if self.is_file {
            if is_taken(&new)? {
                let replaced = self.replaced();
                if is_taken(&self.target)? && !is_taken(&replaced)? {
                    std::fs::rename(&self.target, replaced)?;
                }
                std::fs::rename(&new, &self.target)?;
            }
        } else {
            if !is_taken(&coming.join(MOVED))? {
                let given_up = coming.join(GIVEN_UP);
                let aside = if is_taken(&given_up)? { given_up } else { self.replaced() };
                std::fs::create_dir_all(&aside)?;
                copy_attributes(&self.target, &aside)?;
                move_entries(&self.target, &aside)?;
                sync(&self.target)?;
                File::create(coming.join(MOVED))?.sync_all()?;
                sync(&self.target)?;
            }
            move_entries(&new, &self.target)?;
            copy_attributes(&new, &self.target)?;
        }
        sync(self.directory())?;
        self.finish()
    }

    /// Puts what was there back. Does nothing where nothing was replaced.
    ///
    /// # Errors
    ///
    /// As for [`Self::swap`].
    pub fn swap_back(&self) -> io::Result<()> {
        let (coming, replaced, undo) = (self.coming(), self.replaced(), self.beside(UNDO));
        if self.is_file {
            if is_taken(&replaced)? {
                std::fs::rename(&replaced, &self.target)?;
                sync(self.directory())?;
            }
            return self.finish();
        }
        if !is_taken(&undo.join(self.number.to_string()))? {
            if is_taken(&coming.join(GIVEN_UP))? {
                return self.swap();
            }
            if is_taken(&coming)? && !is_taken(&coming.join(MOVED))? {
                // The old entries had only begun to make way.
                if is_taken(&replaced)? {
                    move_entries(&replaced, &self.target)?;
                    sync(&self.target)?;
                    std::fs::remove_dir(&replaced)?;
                }
                return self.finish();
            }
            if !is_taken(&replaced)? {
                return self.finish();
            }
            std::fs::create_dir_all(undo.join(GIVEN_UP))?;
            std::fs::rename(&replaced, undo.join(self.number.to_string()))?;
            sync(&self.target)?;
        }
        self.finish()?;
        std::fs::rename(&undo, &coming)?;
        self.swap()
    }

    /// Takes what came, and what is left of its way, off the disk.
    fn finish(&self) -> io::Result<()> {
        let finished = self.beside(FINISHED);
        remove_tree(&finished)?;
        if is_taken(&self.coming())? {
            std::fs::rename(self.coming(), &finished)?;
        }
        remove_tree(&finished)
    }

    /// Removes what was replaced.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn discard(&self) -> io::Result<()> {
        let replaced = self.replaced();
        match std::fs::symlink_metadata(&replaced) {
            Ok(metadata) if metadata.is_dir() => remove_tree(&replaced),
            Ok(_) => std::fs::remove_file(&replaced),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(source),
        }
    }
}

/// Moves what is in `from` into `to`, without what a restore itself keeps there.
fn move_entries(from: &Path, to: &Path) -> io::Result<()> {
    // Collected first: a directory that changes while it is read may name an entry twice or not.
    let entries = std::fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    for entry in entries.iter().filter(|entry| !is_ours(&entry.file_name())) {
        std::fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn is_ours(name: &OsStr) -> bool {
    let prefixes = [COMING, REPLACED, UNDO, FINISHED];
    let number = name.to_str().and_then(|name| prefixes.iter().find_map(|p| name.strip_prefix(p)));
    number.is_some_and(|number| number.parse::<usize>().is_ok())
}

/// Owner and mode of a directory for another.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(from)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    std::fs::set_permissions(to, Permissions::from_mode(metadata.mode() & 0o7777))
}

/// All that was done on the disk of `directory` is there after a power cut too.
fn sync(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
