//! The one look at what stands at a path. A look that fails is never the same as nothing there: what
//! is not seen would be left out, and the command would say that it is done.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::error::{self, Error};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A socket, a pipe or a device.
    Other,
}

/// What was found; `None` if there is nothing.
///
/// # Errors
///
/// It could not be looked for.
pub(super) fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// What stands at `path`, links followed; `None` if there is nothing.
///
/// # Errors
///
/// It cannot be looked at (exit 3).
pub fn look(path: &Path) -> anyhow::Result<Option<Kind>> {
    let found = if_there(std::fs::metadata(path)).map_err(|source| cannot_look(path, &source))?;
    Ok(found.map(|found| match found {
        file if file.is_file() => Kind::File,
        directory if directory.is_dir() => Kind::Directory,
        _ => Kind::Other,
    }))
}

/// Whether anything stands at `path` itself, be it a link that leads nowhere.
///
/// # Errors
///
/// It cannot be looked at.
pub fn is_taken(path: &Path) -> io::Result<bool> {
    Ok(if_there(std::fs::symlink_metadata(path))?.is_some())
}

/// Whether this user can run the file at `path`. One that cannot be looked at cannot be run either.
#[must_use]
pub fn is_program(path: &Path) -> bool {
    matches!(look(path), Ok(Some(Kind::File))) && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// `path` with links resolved, so that a linked file stays a link; as it is if there is nothing.
///
/// # Errors
///
/// It cannot be looked at (exit 3).
pub fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let found = if_there(path.canonicalize()).map_err(|source| cannot_look(path, &source))?;
    Ok(found.unwrap_or_else(|| path.to_owned()))
}

/// The names in `directory`, in order; none if there is no such directory. What is no text is no
/// name of anything that dkv looks for.
///
/// # Errors
///
/// It cannot be listed (exit 3).
pub fn list(directory: &Path) -> anyhow::Result<Vec<String>> {
    let failed = |source: io::Error| {
        let hint = hint_for(&source);
        error::state(format!("cannot list `{}`: {source}", directory.display())).with_hint(hint)
    };
    let Some(entries) = if_there(std::fs::read_dir(directory)).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// A failed look as the operator should read it.
pub(super) fn cannot_look(path: &Path, source: &io::Error) -> Error {
    error::state(format!("cannot look at `{}`: {source}", path.display()))
        .with_hint(hint_for(source))
}

/// What to do about a file that can be neither looked at nor read.
pub(super) fn hint_for(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "run dkv as a user who may read it",
        _ => "check the file and the disk it is on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("none", at("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        assert_eq!(look(directory.path()).unwrap(), Some(Kind::Directory));
        assert_eq!(look(&at("link")).unwrap(), Some(Kind::File));
        assert_eq!(look(Path::new("/dev/null")).unwrap(), Some(Kind::Other));
        assert_eq!(look(&at("none")).unwrap(), None);
        assert_eq!(look(&at("dangling")).unwrap(), None);
        assert!(is_taken(&at("dangling")).unwrap() && !is_taken(&at("none")).unwrap());
        assert_eq!(resolve(&at("link")).unwrap(), resolve(&at("file")).unwrap());
        assert_eq!(resolve(&at("none")).unwrap(), at("none"));
        assert_eq!(list(directory.path()).unwrap(), ["dangling", "file", "link", "loop"]);
        assert_eq!(list(&at("none")).unwrap(), Vec::<String>::new());
        for path in [at("loop"), at("file").join("below")] {
            let errors =
                [look(&path).unwrap_err(), resolve(&path).unwrap_err(), list(&path).unwrap_err()];
            for error in errors {
                assert_eq!(error::kind(&error), error::Kind::State);
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            }
        }
    }
}
