//! Durable, atomic replacement of files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Snapshot;
use super::look::if_there;
use crate::error::{self, Error};

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
/// hold the new content, and its hint what finishes the rest, `repair`.
pub fn replace_all(replacements: &[Replacement], repair: &str) -> anyhow::Result<()> {
    replace_announced(None, replacements, repair)
}

/// As [`replace_all`], where an `announcement` of the others is safe on the disk before the first of
/// them is replaced. It may stay alone: whoever reads it looks whether they came.
///
/// # Errors
///
/// As for [`replace_all`].
pub fn replace_announced(
    announcement: Option<&Replacement>,
    replacements: &[Replacement],
    repair: &str,
) -> anyhow::Result<()> {
    let announced = usize::from(announcement.is_some());
    let changed: Vec<&Replacement> = replacements
        .iter()
        .filter(|wanted| wanted.before.as_ref().is_none_or(|before| before.bytes != wanted.bytes))
        .collect();
    let changed: Vec<&Replacement> = announcement.into_iter().chain(changed).collect();
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
    if let Err(error) = changed.iter().try_for_each(|wanted| refuse_touched(wanted)) {
        for path in &written {
            let _ = std::fs::remove_file(path);
        }
        return Err(error.into());
    }
    for (done, wanted) in changed.iter().enumerate() {
        let mut outcome = rename(&super::neighbour(&wanted.path), &wanted.path);
        if outcome.is_ok() && done < announced {
            outcome = wanted.path.parent().map_or(Ok(()), sync_directory);
        }
        if let Err(source) = outcome {
            for left in &changed[done..] {
                let _ = std::fs::remove_file(super::neighbour(&left.path));
            }
            let last = done.checked_sub(1).filter(|last| *last >= announced);
            let Some(committed) = last.and_then(|last| changed.get(last)) else {
                return Err(super::cannot_write(&wanted.path, &source).into());
            };
            let message = format!(
                "`{}` is committed, but `{}` cannot be replaced: {source}",
                committed.path.display(),
                wanted.path.display()
            );
            return Err(error::state(message).with_hint(repair).into());
        }
    }
    let mut directories: Vec<&Path> =
        changed[announced..].iter().filter_map(|wanted| wanted.path.parent()).collect();
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

/// Refuses to write over what somebody else has written since it was read.
fn refuse_touched(wanted: &Replacement) -> Result<(), Error> {
    let Some(before) = &wanted.before else { return Ok(()) };
    match before.is_untouched().map_err(|source| super::cannot_write(&wanted.path, &source))? {
        true => Ok(()),
        false => Err(error::state(format!(
            "`{}` was changed while this command ran; nothing was written",
            wanted.path.display()
        ))
        .with_hint("run the command again")),
    }
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
    let old = if_there(std::fs::metadata(&wanted.path))?;
    let mut file = create_exclusive(&path, if old.is_some() { PRIVATE } else { PUBLIC })?;
    file.write_all(&wanted.bytes)?;
    match old {
        Some(old) => keep_owner_and_mode(&file, &old)?,
        None => give_to_owner_of(&file, &wanted.owner_like)?,
    }
    file.sync_all()
}

/// The mode of a file that nothing is known about.
const PUBLIC: u32 = 0o644;

/// The mode of a file that may be secret, until it is known whether it is.
const PRIVATE: u32 = 0o600;

/// Makes a file that must not exist, with `mode` less what the umask takes away.
fn create_exclusive(path: &Path, mode: u32) -> io::Result<File> {
    #[cfg(test)]
    crate::simulation::write("make", path)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Makes `path` a copy of what was read of `original`, synced: with its bytes, and no wider than it
/// is. It is owned like the directory `like`.
pub(super) fn copy(path: &Path, original: &Snapshot, like: &Path) -> io::Result<()> {
    let mode = match std::fs::metadata(&original.path) {
        Ok(metadata) => metadata.mode() & 0o777,
        Err(_) => PRIVATE,
    };
    let mut file = create_exclusive(path, PRIVATE)?;
    let written = file
        .write_all(&original.bytes)
        .and_then(|()| give_to_owner_of(&file, like))
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Writes a file that is not there yet, of the owner of `like` and readable for nobody else.
pub(super) fn write_new(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let mut file = create_exclusive(path, PRIVATE)?;
    file.write_all(bytes)?;
    give_to_owner_of(&file, like)
}

/// Keeps the owner and the mode of a replaced file; without the right to keep the owner, the file
/// belongs to this user, as it would with any editor.
fn keep_owner_and_mode(file: &File, old: &std::fs::Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        match std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid())) {
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
    }
    file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))
}

/// Under sudo, a new file belongs to the owner of its deployment, not to root. By the open file: by
/// its path it could be another one by now.
pub(super) fn give_to_owner_of(file: &File, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(owner) = if_there(std::fs::metadata(like))? else { return Ok(()) };
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// The directory at `path` itself, not what a link there leads to.
pub(super) fn open_directory(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
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
    let path = directory.join(format!("{PROBE}{}", std::process::id()));
    create_exclusive(&path, PRIVATE)?;
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
        _ => Ok(()),
    }
}

/// How the names of probes begin.
const PROBE: &str = ".dkv-probe-";

/// How the names of temporary neighbours end.
pub(super) const NEW: &str = ".dkv-new";

/// Removes what dkvs that were killed have left in `directory`, but for the neighbours of `spared`,
/// which others than this one may be writing. What cannot be removed stays.
pub(super) fn sweep(directory: &Path, spared: &[&str]) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { continue };
        let is_left = match (name.strip_prefix(PROBE), name[1..].strip_suffix(NEW)) {
            (Some(process), _) => process.parse().is_ok_and(|id| !super::lock::is_running(id)),
            (None, Some(of)) => !spared.contains(&of),
            (None, None) => false,
        };
        if is_left && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    crate::simulation::write("sync", directory)?;
    File::open(directory)?.sync_all()
}
