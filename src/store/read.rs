//! The one reader of deployment files: no more than fits, and nothing that is no file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::look::{cannot_look, hint_for, if_there, is_taken, resolve};
use crate::error::{self, Error};

/// The largest deployment file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A file's bytes as they were read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where it stands, links resolved.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Which file it was; none for one that is yet to be written.
    identity: Option<Identity>,
}

/// What changes with a file's content, as far as the system tells without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&std::fs::Metadata> for Identity {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Snapshot {
    /// The bytes that a file at `path`, links resolved, is to have.
    #[must_use]
    pub fn planned(path: PathBuf, bytes: Vec<u8>) -> Self {
        Self { path, bytes, identity: None }
    }

    /// Whether nobody has written or replaced the file since it was read.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub fn is_untouched(&self) -> io::Result<bool> {
        let now = if_there(std::fs::metadata(&self.path))?;
        Ok(now.as_ref().map(Identity::from) == self.identity)
    }

    /// When the file had been changed last; `None` for one that is yet to be written.
    #[must_use]
    pub fn changed_at(&self) -> Option<DateTime<Utc>> {
        let (seconds, nanoseconds) = self.identity?.modified;
        DateTime::from_timestamp(seconds, u32::try_from(nanoseconds).ok()?)
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.bytes == other.bytes
    }
}

/// Reads `path` with links resolved; `None` if there is no such file.
///
/// # Errors
///
/// The file cannot be read, is not a regular file, or is larger than 16 MiB (exit 3).
pub fn read(path: &Path) -> anyhow::Result<Option<Snapshot>> {
    let Some((mut file, metadata)) = open(path)? else { return Ok(None) };
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_long(path, metadata.len()).into());
    }
    let mut bytes = Vec::new();
    // It may have grown since, and some file systems know no lengths.
    let limited = file.by_ref().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    limited.map_err(|source| cannot_read(path, &source))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_long(path, bytes.len() as u64).into());
    }
    let identity = Some(Identity::from(&metadata));
    Ok(Some(Snapshot { path: resolve(path)?, bytes, identity }))
}

/// Opens the regular file at `path`, links followed, for whoever reads it piece by piece; `None` if
/// there is no such file.
///
/// # Errors
///
/// The file cannot be opened, or is not a regular file (exit 3).
pub fn open(path: &Path) -> anyhow::Result<Option<(File, std::fs::Metadata)>> {
    // A FIFO that nobody writes to would be waited for, without a word and for ever.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            // A link that points nowhere is not the same as no file: writing would follow it.
            if is_taken(path).map_err(|source| cannot_look(path, &source))? {
                return Err(error::state(format!(
                    "`{}` is a link to a file that does not exist",
                    path.display()
                ))
                .with_hint("restore its target, or remove the link")
                .into());
            }
            return Ok(None);
        }
        Err(source) if Errno::from_io_error(&source) == Some(Errno::NXIO) => {
            return Err(no_file(path, false).into());
        }
        Err(source) => return Err(cannot_read(path, &source).into()),
    };
    let metadata = file.metadata().map_err(|source| cannot_read(path, &source))?;
    if !metadata.is_file() {
        return Err(no_file(path, metadata.is_dir()).into());
    }
    Ok(Some((file, metadata)))
}

/// As [`open`], for a file that has to be there.
///
/// # Errors
///
/// As for [`open`], and where there is no such file (exit 3).
pub fn open_present(path: &Path) -> anyhow::Result<File> {
    let (file, _) = open(path)?
        .ok_or_else(|| error::state(format!("`{}` is not there any more", path.display())))?;
    Ok(file)
}

/// Makes sure that a program that is to read `path` finds a file there that is not too large, if it
/// finds anything.
///
/// # Errors
///
/// As for [`read`] (exit 3).
pub fn check(path: &Path) -> anyhow::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(no_file(path, found.is_dir()).into()),
        Ok(found) if found.len() > MAX_FILE_BYTES => Err(too_long(path, found.len()).into()),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(cannot_look(path, &source).into())
        }
        _ => Ok(()),
    }
}

fn cannot_read(path: &Path, source: &io::Error) -> Error {
    error::state(format!("cannot read `{}`: {source}", path.display())).with_hint(hint_for(source))
}

fn no_file(path: &Path, is_directory: bool) -> Error {
    let (what, hint) = match is_directory {
        true => ("a directory, not a file", "give the file in it; -C takes directories"),
        false => ("not a file", "move it away, or name another file"),
    };
    error::state(format!("`{}` is {what}", path.display())).with_hint(hint)
}

fn too_long(path: &Path, bytes: u64) -> Error {
    let size = bytes.div_ceil(1024 * 1024);
    error::state(format!("`{}` is {size} MiB long; dkv reads 16 MiB at most", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        let found = read(&at("link")).unwrap().unwrap();
        assert_eq!(
            (found.bytes.as_slice(), found.path),
            (&b"text"[..], resolve(&at("file")).unwrap())
        );
        assert_eq!(read(&at("none")).unwrap(), None);

        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("none", at("dangling")).unwrap();
        let full = std::fs::File::create(at("full")).unwrap();
        full.set_len(MAX_FILE_BYTES + 1).unwrap();
        for (path, why) in [
            (at("fifo"), "is not a file"),
            (at("socket"), "is not a file"),
            (PathBuf::from("/dev/zero"), "is not a file"),
            (directory.path().to_owned(), "is a directory"),
            (at("dangling"), "does not exist"),
            (at("full"), "is 17 MiB long"),
            (at("file").join("below"), "Not a directory"),
        ] {
            let error = read(&path).unwrap_err();
            assert_eq!(error::kind(&error), error::Kind::State);
            let text = error.to_string();
            assert!(text.contains(why) && text.contains(path.to_str().unwrap()), "{text}");
        }
    }
}
