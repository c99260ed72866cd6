//! Data backups: directories and files as one compressed archive with a checksum.
//!
//! An archive `data-YYYYMMDDHHMMSS.tar.zst` begins with a list of what it holds; the contents of
//! the first source are under `0/`, those of the second under `1/`. Beside it stands its SHA-256 in
//! the form that `sha256sum -c` reads; an archive without one is not complete.

mod about;
mod archive;
mod dump;
mod journal;
mod restore;
mod swap;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{self, Error};
use crate::store::{self, Ledger};

pub use about::{About, MadeFor, about};
pub use archive::create;
pub use dump::{Dump, is_dump};
pub use journal::{Phase, Restore};
pub use restore::{Inspected, check_places, inspect, unpack, verify};
pub use swap::Place;

/// How many backups are kept.
const KEPT: usize = 3;

/// What comes on top of the data: headers, and room for the journal and the manifest.
const RESERVE_BYTES: u64 = 16 * MEBIBYTE;

const MEBIBYTE: u64 = 1024 * 1024;

/// What archive names end with.
const SUFFIX: &str = ".tar.zst";

/// The archive's first entry.
const LIST: &str = "dkv-backup.json";

/// A directory or file that is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where it is on this host.
    pub path: PathBuf,
    /// The volume whose directory that is; `None` for a path of the host.
    pub volume: Option<String>,
    /// Whose volume that is, if it has no name that outlives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnamed: Option<Unnamed>,
}

/// A volume that a container has without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unnamed {
    /// The container's Compose service.
    pub service: String,
    /// Its number in that.
    pub number: u32,
    /// The path inside it.
    pub target: String,
}

impl Source {
    /// A directory or file of the host.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, volume: None, unnamed: None }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.unnamed, &self.volume) {
            (Some(unnamed), _) => write!(f, "the unnamed volume at {}", unnamed.target),
            (None, Some(volume)) => write!(f, "volume {volume}"),
            (None, None) => write!(f, "{}", self.path.display()),
        }
    }
}

/// What an archive says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The version of the archive's shape.
    format: u32,
    /// When it was made; RFC 3339, UTC.
    pub made_at: String,
    /// What it holds.
    pub sources: Vec<Source>,
}

/// A backup that is to be made.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where backups are kept.
    pub directory: PathBuf,
    /// The local time as `YYYYMMDDHHMMSS`.
    pub stamp: String,
    /// What will be known of it.
    pub about: About,
    /// A backup that must not be removed for it.
    pub spared: Option<PathBuf>,
}

/// A request to stop, for work that blocks its thread.
pub type Cancelled = AtomicBool;

fn check(cancelled: &Cancelled) -> io::Result<()> {
    if cancelled.load(Ordering::Relaxed) { Err(io::Error::other("interrupted")) } else { Ok(()) }
}

/// How many bytes `sources` take on their disks, after making sure that this user can read them
/// all. It ends when `cancelled` is set.
///
/// # Errors
///
/// Something cannot be read (exit 3), or `cancelled` was set.
pub fn measure(sources: &[Source], cancelled: &Cancelled) -> Result<u64> {
    let mut total = 0;
    for source in sources {
        archive::walk(&source.path, &mut |path, metadata| {
            check(cancelled)?;
            if metadata.is_file() {
                rustix::fs::access(path, rustix::fs::Access::READ_OK)?;
                total += metadata.len().min(metadata.blocks() * 512);
            }
            Ok(())
        })
        .map_err(|failed| unreadable(source, &failed))?;
    }
    Ok(total)
}

fn unreadable(source: &Source, failed: &archive::Failed) -> Error {
    error::state(format!(
        "the data of {source} cannot be saved: `{}`: {}",
        failed.path.display(),
        failed.source
    ))
    .with_hint(
        "run dkv as a user who may read it, or give the manifest a `data_backup` with a `command` \
        that makes a dump, or leave it out with --no-data-backup; nothing was stopped",
    )
}

/// Makes sure that a backup of `bytes` fits into `directory` even if nothing can be compressed.
/// `otherwise` is what to do where there is no more space.
///
/// # Errors
///
/// The disk is too small (exit 3), or cannot be asked.
pub fn check_space(directory: &Path, bytes: u64, otherwise: &str) -> Result<()> {
    let needed = bytes.saturating_add(RESERVE_BYTES);
    // Where there is none yet, it will be made on the disk of what is above it.
    let Some(free) = too_small(nearest_directory(directory)?, needed)? else { return Ok(()) };
    let message = format!(
        "the disk of {} has {} MiB free, the data backup may take {} MiB; nothing was stopped",
        directory.display(),
        free.div_ceil(MEBIBYTE),
        needed.div_ceil(MEBIBYTE)
    );
    Err(error::state(message).with_hint(format!("free some space, or {otherwise}")).into())
}

/// The nearest directory at or above `path`: what is there, or will be made, is on its disk.
fn nearest_directory(path: &Path) -> Result<&Path> {
    for above in path.ancestors() {
        if store::look(above)? == Some(store::Kind::Directory) {
            return Ok(above);
        }
    }
    Ok(Path::new("."))
}

/// Makes sure that `bytes` of restored data fit beside what they replace in `directory`.
fn check_room(directory: &Path, bytes: u64) -> Result<()> {
    let needed = bytes.saturating_add(RESERVE_BYTES);
    let Some(free) = too_small(directory, needed)? else { return Ok(()) };
    let message = format!(
        "the disk of {} has {} MiB free, the restored data takes {} MiB beside what is there",
        directory.display(),
        free.div_ceil(MEBIBYTE),
        needed.div_ceil(MEBIBYTE)
    );
    Err(error::state(message)
        .with_hint("free some space, and run the command again; nothing was changed")
        .into())
}

/// How many bytes the disk of `directory` has free, if that is fewer than `needed`.
fn too_small(directory: &Path, needed: u64) -> Result<Option<u64>> {
    let disk = rustix::fs::statvfs(directory)
        .with_context(|| format!("cannot look at the disk of {}", directory.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok((free < needed).then_some(free))
}

/// Makes the directory for backups, which only its owner can read: it holds what databases hold.
fn prepare(directory: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| store::cannot_write(directory, &source).into())
}

/// The backups in `directory`, newest first.
///
/// # Errors
///
/// It cannot be listed (exit 3).
pub fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    store::newest_first(directory, |name| {
        let stamp = name.strip_prefix("data-")?;
        stamp.strip_suffix(SUFFIX).or_else(|| stamp.strip_suffix(dump::SUFFIX))
    })
}

/// How many bytes the file of a backup has; `None` if it cannot be looked at.
#[must_use]
pub fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|found| found.len())
}

/// The backups in `directory` that `name` names, or is the beginning of, with `data-` or without.
///
/// # Errors
///
/// The directory cannot be read (exit 3).
pub fn named(directory: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = list(directory)?;
    found.retain(|path| {
        let known = store::file_name(path);
        let stamp = known.strip_prefix("data-").unwrap_or(&known);
        !name.is_empty() && (known.starts_with(name) || stamp.starts_with(name))
    });
    // `dkv backups` shows archives without what they end in.
    let is_it = |path: &&PathBuf| {
        let known = store::file_name(path);
        known == name || known.strip_suffix(SUFFIX) == Some(name)
    };
    Ok(match found.iter().find(is_it) {
        Some(exact) => vec![exact.clone()],
        None => found,
    })
}

/// Whether `archive` is a backup that dkv made in its own `directory`.
///
/// # Errors
///
/// The ledger cannot be read (exit 3).
pub fn is_own(directory: &Path, archive: &Path) -> Result<bool> {
    Ok(Ledger::read(&store::resolve(directory)?)?.has(&store::resolve(archive)?))
}

/// Writes down that `made` was made, and removes the oldest.
fn remember(order: &Order, made: &Path) -> Result<()> {
    let Order { directory, about, spared, .. } = order;
    // What cannot be looked at may be there.
    let is_there = |name: &str| store::is_taken(&directory.join(name)).unwrap_or(true);
    Ledger::read(directory)?.add(store::file_name(made), is_there, directory)?;
    let spared: Vec<&Path> = std::iter::once(made).chain(spared.as_deref()).collect();
    remove_old(directory, &spared)?;
    if let Err(error) = about::note(directory, made, about) {
        tracing::warn!("what the data backup was made for cannot be noted: {error:#}");
    }
    Ok(())
}

/// Removes all but the newest three, never one of `spared`.
fn remove_old(directory: &Path, spared: &[&Path]) -> Result<()> {
    let old = list(directory)?;
    let old = old.iter().filter(|path| !spared.contains(&path.as_path()));
    for old in old.skip(KEPT.saturating_sub(spared.len())) {
        for path in [checksum_file(old), old.clone()] {
            if let Err(source) = std::fs::remove_file(&path)
                && source.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(
                    "the old data backup {} cannot be removed: {source}",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// The SHA-256 of a file, in hexadecimal.
fn checksum(path: &Path, cancelled: &Cancelled) -> Result<String> {
    let mut file = store::open_present(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        check(cancelled)?;
        match file.read(&mut buffer).with_context(|| format!("cannot read `{}`", path.display()))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Where the checksum of `archive` stands.
fn checksum_file(archive: &Path) -> PathBuf {
    let mut name = archive.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
