//! Durable, atomic replacement of files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Snapshot;
use crate::error;

/// A file and what it shall hold.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The file, links resolved.
    pub path: PathBuf,
    /// Its new content.
    pub bytes: Vec<u8>,
    /// What was read of it, where the new content was made from that: somebody who takes no lock,
    /// such as an editor, must not lose what was written since. Nothing is written over a file that
    /// has its bytes already.
    pub before: Option<Snapshot>,
    /// Whose owner a file that does not exist yet gets, where that is possible.
    pub owner_like: PathBuf,
}

/// Replaces all files, in their order, or none: every neighbour is written and synced before the
/// first rename. Files that hold their bytes already are left untouched.
///
/// # Errors
///
/// Before the first rename: nothing has changed (exit 3). After it: the message says which files
/// hold the new content.
pub fn replace_all(replacements: &[Replacement]) -> anyhow::Result<()> {
    let changed: Vec<&Replacement> = replacements
        .iter()
        .filter(|wanted| wanted.before.as_ref().is_none_or(|before| before.bytes != wanted.bytes))
        .collect();
    let mut written = Vec::with_capacity(changed.len());
    for wanted in &changed {
        let result = write_neighbour(wanted);
        written.push(super::neighbour(&wanted.path));
        if let Err(source) = result {
            for path in &written {
                let _ = std::fs::remove_file(path);
            }
            return Err(super::cannot_write(&wanted.path, &source).into());
        }
    }
    let touched = changed
        .iter()
        .find(|wanted| wanted.before.as_ref().is_some_and(|before| !before.is_untouched()));
    if let Some(touched) = touched {
        for path in &written {
            let _ = std::fs::remove_file(path);
        }
        return Err(error::state(format!(
            "`{}` was changed while this command ran; nothing was written",
            touched.path.display()
        ))
        .with_hint("run the command again")
        .into());
    }
    for (done, wanted) in changed.iter().enumerate() {
        if let Err(source) = rename(&super::neighbour(&wanted.path), &wanted.path) {
            for left in &changed[done..] {
                let _ = std::fs::remove_file(super::neighbour(&left.path));
            }
            let Some(committed) = done.checked_sub(1).and_then(|last| changed.get(last)) else {
                return Err(super::cannot_write(&wanted.path, &source).into());
            };
            let message = format!(
                "`{}` is committed, but `{}` cannot be replaced: {source}",
                committed.path.display(),
                wanted.path.display()
            );
            return Err(error::state(message)
                .with_hint(
                    "the next dkv command that writes or starts anything repairs it; `dkv \
                    generate-env` does just that",
                )
                .into());
        }
    }
    let mut directories: Vec<&Path> =
        changed.iter().filter_map(|wanted| wanted.path.parent()).collect();
    directories.dedup();
    for directory in directories {
        sync_directory(directory).map_err(|source| {
            error::state(format!(
                "the new files are in place, but `{}` cannot be synced: {source}",
                directory.display()
            ))
            .with_hint("check the disk; a power cut now could bring the old files back")
        })?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    crate::simulation::write("rename to", to)?;
    std::fs::rename(from, to)
}

/// Writes and syncs the neighbour of one file, with the mode and the owner of the file it replaces.
fn write_neighbour(wanted: &Replacement) -> io::Result<()> {
    let path = super::neighbour(&wanted.path);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(source),
        _ => {}
    }
    let mut file = create_exclusive(&path)?;
    file.write_all(&wanted.bytes)?;
    match std::fs::metadata(&wanted.path) {
        Ok(old) => {
            keep_owner(&file, &old)?;
            file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))?;
        }
        Err(_) => give_to_owner_of(&path, &wanted.owner_like)?,
    }
    file.sync_all()
}

/// Makes a file that must not exist, readable by all, writable by its owner, whatever the umask
/// adds.
fn create_exclusive(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    crate::simulation::write("make", path)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Makes `path` with `bytes`, synced, owned like the file or directory `like`.
pub(super) fn create_new(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let mut file = create_exclusive(path)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| give_to_owner_of(path, like))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Keeps the owner of a replaced file; without the right to do so, the file belongs to this user,
/// as it would with any editor.
fn keep_owner(file: &File, old: &std::fs::Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    match std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid())) {
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

/// Under sudo, a new file belongs to the owner of its deployment, not to root.
pub(super) fn give_to_owner_of(path: &Path, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Ok(owner) = std::fs::metadata(like) else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// As [`give_to_owner_of`], for the state directory, which others may not write whatever the umask.
pub(super) fn adopt_owner(path: &Path, like: &Path) -> anyhow::Result<()> {
    give_to_owner_of(path, like)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot set the owner of `{}`", path.display()))
}

/// Removes `path` for good, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    crate::simulation::write("remove", path)?;
    match std::fs::remove_file(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome?,
    }
    path.parent().map_or(Ok(()), sync_directory)
}

/// Tries to make a file in `directory`, as a replacement will have to.
pub(super) fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".dkv-probe-{}", std::process::id()));
    create_exclusive(&path)?;
    std::fs::remove_file(path)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    crate::simulation::write("sync", directory)?;
    File::open(directory)?.sync_all()
}
