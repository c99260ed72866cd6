//! Which files of a directory dkv itself made, and in which order: the clock, by which they are
//! named, may have been wrong.

use std::path::{Path, PathBuf};

use super::{AGAIN, Replacement, file_name, read, replace_all};

/// The ledger's name in each directory that has one.
const NAME: &str = ".dkv-backups";

/// The ledger of one directory.
#[derive(Debug)]
pub struct Ledger {
    directory: PathBuf,
    names: Vec<String>,
}

impl Ledger {
    /// The ledger of `directory`; an empty one if there is none. Lines that are no file names, as a
    /// broken disk or editor leaves them, are left out and told about.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read (exit 3).
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let found = read(&directory.join(NAME))?;
        let bytes = found.map(|found| found.bytes).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let (names, damaged): (Vec<_>, Vec<_>) =
            lines.map(name_in).partition(|name| name.is_some());
        if !damaged.is_empty() {
            tracing::warn!(
                "{} of the lines of `{}` are damaged and left out",
                damaged.len(),
                directory.join(NAME).display()
            );
        }
        Ok(Self { directory: directory.to_owned(), names: names.into_iter().flatten().collect() })
    }

    /// The names, oldest first.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether dkv made the file at `path`.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        path.parent() == Some(&self.directory) && self.names.contains(&file_name(path))
    }

    /// Adds a file that was made just now, and forgets those that `keep` does not want; a file that
    /// does not exist yet belongs to the owner of `owner_like`.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn add(
        &mut self,
        name: String,
        keep: impl Fn(&str) -> bool,
        owner_like: &Path,
    ) -> anyhow::Result<()> {
        self.names.retain(|known| *known != name && keep(known));
        self.names.push(name);
        replace_all(
            &[Replacement {
                path: self.directory.join(NAME),
                bytes: (self.names.join("\n") + "\n").into_bytes(),
                before: None,
                owner_like: owner_like.to_owned(),
            }],
            AGAIN,
        )
    }

    /// Files of the directory, newest first: those of the ledger by its order, then the others as
    /// they are.
    pub fn sort(&self, files: &mut [PathBuf]) {
        files.sort_by_key(|file| {
            let name = file_name(file);
            let place = self.names.iter().rposition(|known| *known == name);
            std::cmp::Reverse(place.map_or(0, |place| place + 1))
        });
    }
}

/// The file name that a line is.
fn name_in(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let is_name = !line.contains(['/', '\0']) && !line.chars().any(char::is_control);
    (is_name && line != "." && line != "..").then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_ledgers_and_a_damaged_line_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path();
        let add = |name: &str| {
            let mut ledger = Ledger::read(directory).unwrap();
            ledger.add(name.to_owned(), |known| known != "gone", directory).unwrap();
        };
        for name in ["gone", "data-2027", "data-2026"] {
            add(name);
        }
        let path = directory.join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"\xff\xfe\n../up\n\0\n");
        std::fs::write(&path, bytes).unwrap();
        add("data-2025");
        let ledger = Ledger::read(directory).unwrap();
        assert_eq!(ledger.names(), ["data-2027", "data-2026", "data-2025"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data-2027\ndata-2026\ndata-2025\n");
        let mut files =
            ["strange-2", "data-2027", "strange-1", "data-2025"].map(|name| directory.join(name));
        ledger.sort(&mut files);
        let names = files.each_ref().map(|file| file_name(file));
        assert_eq!(names, ["data-2025", "data-2027", "strange-2", "strange-1"]);
        assert!(ledger.has(&directory.join("data-2026")));
        assert!(!ledger.has(Path::new("/elsewhere/data-2026")) && !ledger.has(&files[2]));
    }
}
