//! Putting an archive back.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Cancelled, Contents, LIST, Source, check, checksum, checksum_file};
use crate::error::{self, Error};

/// Where an archive is unpacked before anything is replaced, on the disk of what it replaces.
const STAGING: &str = ".dkv-restore";
/// Where the contents that are replaced wait for their removal.
const REPLACED: &str = ".dkv-replaced";

/// Compares `archive` with its checksum.
///
/// # Errors
///
/// It has none, or is another (exit 3), or cannot be read.
pub fn verify(archive: &Path, cancelled: &Cancelled) -> Result<()> {
    let sums = checksum_file(archive);
    let expected = match std::fs::read_to_string(&sums) {
        Ok(text) => text.split_whitespace().next().unwrap_or_default().to_owned(),
        Err(source) => {
            return Err(
                damaged(archive, &format!("its checksum `{}`: {source}", sums.display())).into()
            );
        }
    };
    if checksum(archive, cancelled)? == expected {
        return Ok(());
    }
    Err(damaged(archive, "its checksum is another").into())
}

const NOT_OURS: &str = "it was not made by dkv";

fn damaged(archive: &Path, why: &str) -> Error {
    error::state(format!("the data backup `{}` cannot be used: {why}", archive.display()))
        .with_hint("nothing was changed; another backup may be in the same directory")
}

/// What `archive` says it holds.
///
/// # Errors
///
/// It is no data backup (exit 3), or cannot be read.
pub fn contents(archive: &Path) -> Result<Contents> {
    let mut tar = open(archive)?;
    let Some(Ok(mut entry)) = tar.entries()?.next() else {
        return Err(damaged(archive, NOT_OURS).into());
    };
    if entry.path()?.as_os_str() != OsStr::new(LIST) {
        return Err(damaged(archive, NOT_OURS).into());
    }
    let mut bytes = Vec::new();
    entry.by_ref().take(1024 * 1024).read_to_end(&mut bytes)?;
    let contents: Contents =
        serde_json::from_slice(&bytes).map_err(|_| damaged(archive, NOT_OURS))?;
    if contents.format != 1 {
        return Err(damaged(archive, "it was made by a newer dkv").into());
    }
    Ok(contents)
}

fn open(archive: &Path) -> Result<tar::Archive<zstd::Decoder<'static, io::BufReader<File>>>> {
    let file =
        File::open(archive).with_context(|| format!("cannot open `{}`", archive.display()))?;
    let mut tar = tar::Archive::new(zstd::Decoder::new(file)?);
    tar.set_preserve_permissions(true);
    tar.set_preserve_mtime(true);
    tar.set_preserve_ownerships(rustix::process::geteuid().is_root());
    Ok(tar)
}

/// Replaces the contents of `targets`, the places of the archive's sources in their order, by what
/// `archive` holds. Everything is unpacked before anything is replaced.
///
/// # Errors
///
/// Something cannot be read or written, or `cancelled` was set before the first replacement: then
/// nothing has changed.
pub fn restore(archive: &Path, targets: &[Source], cancelled: &Cancelled) -> Result<()> {
    let stagings: Vec<PathBuf> = targets.iter().map(|target| staging(&target.path)).collect();
    stagings
        .iter()
        .try_for_each(|path| remove_tree(path))
        .context("cannot remove what an earlier restore left")?;
    if let Err(error) = unpack(archive, &stagings, cancelled) {
        let _ = stagings.iter().try_for_each(|path| remove_tree(path));
        return Err(
            error.context(format!("cannot unpack `{}`; nothing was replaced", archive.display()))
        );
    }
    for (number, (target, staging)) in targets.iter().zip(&stagings).enumerate() {
        swap(&target.path, staging, &staging.join(number.to_string())).with_context(|| {
            format!("cannot replace the data of {target}; run the command again")
        })?;
    }
    Ok(())
}

/// Beside a file, inside a directory: a directory that is a mount point has no neighbours on its
/// disk.
fn staging(target: &Path) -> PathBuf {
    let directory = if target.is_file() { target.parent().unwrap_or(target) } else { target };
    directory.join(STAGING)
}

/// Unpacks source `n` as `n` in the n-th staging directory.
fn unpack(archive: &Path, stagings: &[PathBuf], cancelled: &Cancelled) -> Result<()> {
    for staging in stagings {
        std::fs::create_dir_all(staging)?;
    }
    let mut tar = open(archive)?;
    // A directory's own mode could keep its contents out, and they change its time.
    let mut directories = Vec::new();
    for entry in tar.entries()? {
        check(cancelled)?;
        let mut entry = entry?;
        let top = entry
            .path()?
            .components()
            .next()
            .map(|first| first.as_os_str().to_owned())
            .unwrap_or_default();
        let staging = top.to_str().and_then(|top| stagings.get(top.parse::<usize>().ok()?));
        let Some(staging) = staging else { continue };
        if entry.header().entry_type().is_dir() {
            std::fs::create_dir_all(staging.join(&top))?;
            directories.push((staging, entry));
        } else {
            entry.unpack_in(staging)?;
        }
    }
    for (staging, mut directory) in directories.into_iter().rev() {
        directory.unpack_in(staging)?;
    }
    Ok(())
}

/// Puts `new`, inside `staging`, in the place of `target`.
fn swap(target: &Path, staging: &Path, new: &Path) -> io::Result<()> {
    if !new.is_dir() {
        std::fs::rename(new, target)?;
        return remove_tree(staging);
    }
    let replaced = target.join(REPLACED);
    std::fs::create_dir_all(&replaced)?;
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        if ![STAGING, REPLACED].map(OsStr::new).contains(&entry.file_name().as_os_str()) {
            std::fs::rename(entry.path(), replaced.join(entry.file_name()))?;
        }
    }
    for entry in std::fs::read_dir(new)? {
        let entry = entry?;
        std::fs::rename(entry.path(), target.join(entry.file_name()))?;
    }
    let metadata = std::fs::metadata(new)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    std::fs::set_permissions(target, Permissions::from_mode(metadata.mode() & 0o7777))?;
    rustix::fs::syncfs(File::open(target)?)?;
    remove_tree(&replaced)?;
    remove_tree(staging)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
