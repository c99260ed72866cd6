//! The only writer of deployment files: locks, reading, backups, and the atomic commit of a set of
//! files.
//!
//! A file is replaced by writing a neighbour, syncing it and renaming it over the old one, so that
//! at every moment, also after a power cut, the old or the new content is there in full. Readers
//! take no lock because of that. Writers take the state lock around "read again, compare, write",
//! never across the network.

mod ledger;
mod lock;
mod look;
mod objects;
mod read;
mod replace;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use crate::error::{self, Error};
use crate::model::reference::Digest;
pub use ledger::Ledger;
pub use lock::{Lock, LockWait};
pub use look::{Kind, is_program, is_taken, list, look, resolve};
pub use read::{MAX_FILE_BYTES, Snapshot, check, open, open_present, read};
pub use replace::{Replacement, replace_all, replace_announced};

/// The directory for backups, locks and journals, inside a deployment.
pub const STATE_DIRECTORY: &str = ".version-backups";

/// How many of dkv's own manifest backups are kept.
const BACKUPS_KEPT: usize = 50;

/// The lock of whoever starts and stops containers.
const OPERATION_LOCK: &str = ".operation.lock";

/// What stood in Compose files before they were pinned.
const PINS: &str = "pins.json";

/// What an update under way has written down about itself.
const JOURNAL: &str = "update-journal.json";

/// What a `restore-data` under way has written down about itself.
const RESTORE: &str = "restore-journal.json";

/// What was done, operation by operation.
const OPERATIONS: &str = "operations.jsonl";

/// What a command says that goes on without its terminal.
const LOST_OUTPUT: &str = "output.log";

/// The files of one deployment directory.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    manifest: PathBuf,
}

impl Store {
    /// The store of the deployment in `directory` whose manifest is the file `manifest`.
    #[must_use]
    pub fn new(directory: PathBuf, manifest: PathBuf) -> Self {
        Self { directory, manifest }
    }

    /// The deployment directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The manifest's path as the user knows it.
    #[must_use]
    pub fn manifest_path(&self) -> &Path {
        &self.manifest
    }

    /// The manifest's file name.
    #[must_use]
    pub fn manifest_name(&self) -> String {
        self.manifest
            .file_name()
            .unwrap_or_else(|| OsStr::new("version-manifest.yaml"))
            .to_string_lossy()
            .into_owned()
    }

    /// The directory for backups, locks and journals.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join(STATE_DIRECTORY)
    }

    /// What tells this deployment's images from those of its neighbours on the same host: eight
    /// hexadecimal digits made from the directory's real path.
    ///
    /// # Errors
    ///
    /// The directory cannot be resolved.
    pub fn deployment_hash(&self) -> anyhow::Result<String> {
        Ok(hash_of_place(&resolve(&self.directory)?))
    }

    /// Reads the manifest; `None` if there is none.
    ///
    /// # Errors
    ///
    /// See [`read`].
    pub fn read_manifest(&self) -> anyhow::Result<Option<Snapshot>> {
        read(&self.manifest)
    }

    /// Takes the state lock, for planning and committing.
    ///
    /// # Errors
    ///
    /// Another dkv holds it for longer than `wait` allows (exit 4), or the state directory cannot
    /// be used (exit 3).
    pub fn lock_state(&self, wait: &LockWait<'_>) -> anyhow::Result<Lock> {
        let directory = self.prepare_state_directory()?;
        let lock = Lock::acquire(&directory.join(".state.lock"), "state", wait)?;
        replace::sweep(&self.directory, &[]);
        // These are written under the operation lock.
        replace::sweep(&directory, &[JOURNAL, RESTORE]);
        Ok(lock)
    }

    /// Takes the operation lock, for what starts and stops containers.
    ///
    /// # Errors
    ///
    /// As for [`Self::lock_state`].
    pub fn lock_operation(&self, wait: &LockWait<'_>) -> anyhow::Result<Lock> {
        Lock::acquire(&self.prepare_state_directory()?.join(OPERATION_LOCK), lock::OPERATION, wait)
    }

    /// Who holds the operation lock, in its own words; `None` if nobody does. Changes nothing.
    #[must_use]
    pub fn operation_holder(&self) -> Option<String> {
        Lock::holder(&self.state_directory().join(OPERATION_LOCK))
    }

    /// Makes sure, before anything expensive happens, that the manifest and the environment file
    /// `env`, if that is known, can be replaced.
    ///
    /// # Errors
    ///
    /// The directory, or the one that one of these files really lives in, is missing, read-only or
    /// full (exit 3).
    pub fn check_writable(&self, env: Option<&Path>) -> anyhow::Result<()> {
        self.prepare_state_directory()?;
        let mut directories = vec![resolve(&self.directory)?];
        for file in [Some(self.manifest.as_path()), env].into_iter().flatten() {
            directories.extend(resolve(file)?.parent().map(Path::to_owned));
        }
        directories.sort();
        directories.dedup();
        for directory in directories {
            replace::probe(&directory).map_err(|source| cannot_write(&directory, &source))?;
        }
        Ok(())
    }

    /// Makes the state directory, and refuses it where others could tamper with it or with what dkv
    /// would do, which is done as root in the end: whoever talks to the daemon is root.
    fn prepare_state_directory(&self) -> anyhow::Result<PathBuf> {
        let path = self.state_directory();
        let deployment = std::fs::metadata(&self.directory)
            .map_err(|source| cannot_write(&self.directory, &source))?;
        refuse_writable_by_all(&resolve(&self.directory)?, &deployment)?;
        let is_new = match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => true,
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => false,
            Err(source) => return Err(cannot_write(&self.directory, &source).into()),
        };
        let directory = replace::open_directory(&path).map_err(|source| {
            match std::fs::symlink_metadata(&path) {
                Ok(found) if !found.is_dir() => {
                    let what = if found.is_symlink() { "a link" } else { "not a directory" };
                    error::state(format!("`{}` is {what}", path.display()))
                        .with_hint("move it away; dkv keeps backups and locks there")
                }
                _ => cannot_write(&path, &source),
            }
        })?;
        let failed = |source: io::Error| cannot_write(&path, &source);
        if is_new {
            replace::give_to_owner_of(&directory, &self.directory).map_err(failed)?;
            keep_out_of_git(&path, &self.directory);
        }
        let metadata = directory.metadata().map_err(failed)?;
        refuse_writable_by_all(&path, &metadata)?;
        let own = rustix::process::geteuid().as_raw();
        if ![0, own, deployment.uid()].contains(&metadata.uid()) {
            return Err(error::state(format!(
                "`{}` belongs to another user ({}) than the deployment ({})",
                path.display(),
                metadata.uid(),
                deployment.uid()
            ))
            .with_hint(format!(
                "look at what is in it; `chown -R {} {}` makes it the deployment's",
                deployment.uid(),
                path.display()
            ))
            .into());
        }
        // What is in it may be as secret as what it was made from.
        if metadata.mode() & 0o077 != 0 && (own == 0 || own == metadata.uid()) {
            directory.set_permissions(std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(path)
    }

    /// Copies what was read of a file into the backups, under `file_name` and never over an existing
    /// one, and removes dkv's own oldest of that name beyond 50. `stamp` is the local time as
    /// `YYYYMMDDHHMMSS`.
    ///
    /// # Errors
    ///
    /// The backup cannot be written (exit 3); nothing else has happened then.
    pub fn back_up(
        &self,
        _lock: &Lock,
        file_name: &str,
        original: &Snapshot,
        stamp: &str,
    ) -> anyhow::Result<PathBuf> {
        let directory = self.prepare_state_directory()?;
        let mut number = 0;
        let mut name = format!("{file_name}.{stamp}");
        loop {
            let path = directory.join(&name);
            if !is_taken(&path).map_err(|source| cannot_write(&path, &source))? {
                break;
            }
            number += 1;
            name = format!("{file_name}.{stamp}-{number}");
        }
        let path = directory.join(&name);
        // Known before it is there: what is there and not known would stay for ever.
        self.remember_backup(&directory, &name)?;
        replace::copy(&path, original, &self.directory)
            .map_err(|source| cannot_write(&path, &source))?;
        Ok(path)
    }

    /// Adds a backup to the ledger, after the oldest of its kind was removed.
    fn remember_backup(&self, directory: &Path, name: &str) -> anyhow::Result<()> {
        let mut ledger = Ledger::read(directory)?;
        let kind = kind_of_backup(name);
        let known = ledger.names().iter();
        let ours: Vec<&String> = known.filter(|other| kind_of_backup(other) == kind).collect();
        let gone = &ours[..(ours.len() + 1).saturating_sub(BACKUPS_KEPT)];
        let gone: Vec<String> = gone.iter().map(|name| (*name).clone()).collect();
        for old in &gone {
            if let Err(source) = replace::remove(&directory.join(old)) {
                tracing::warn!("the old backup {old} cannot be removed: {source}");
            }
        }
        ledger.add(name.to_owned(), |known| !gone.iter().any(|old| old == known), &self.directory)
    }

    /// The backups of the manifest, newest first, whoever made them.
    ///
    /// # Errors
    ///
    /// Their directory cannot be listed (exit 3).
    pub fn backups(&self) -> anyhow::Result<Vec<PathBuf>> {
        let prefix = format!("{}.", self.manifest_name());
        newest_first(&self.state_directory(), |name| {
            let stamp = name.strip_prefix(&prefix)?;
            let time = stamp.split('-').next()?;
            (time.len() == 14 && time.bytes().all(|b| b.is_ascii_digit())).then_some(stamp)
        })
    }

    /// The journal of an update that has not ended; `None` if there is none.
    ///
    /// # Errors
    ///
    /// See [`read`].
    pub fn read_journal(&self) -> anyhow::Result<Option<Snapshot>> {
        read(&self.state_directory().join(JOURNAL))
    }

    /// Replaces the journal; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3); the one before is still there then.
    pub fn write_journal(&self, _operation: &Lock, text: String) -> anyhow::Result<()> {
        self.write_state(JOURNAL, text)
    }

    /// Removes the journal, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be removed (exit 3).
    pub fn remove_journal(&self, _operation: &Lock) -> anyhow::Result<()> {
        self.remove_state(JOURNAL)
    }

    /// The journal of a `restore-data` that has not ended; `None` if there is none.
    ///
    /// # Errors
    ///
    /// See [`read`].
    pub fn read_restore(&self) -> anyhow::Result<Option<Snapshot>> {
        read(&self.state_directory().join(RESTORE))
    }

    /// As [`Self::write_journal`], for `restore-data`.
    ///
    /// # Errors
    ///
    /// As for [`Self::write_journal`].
    pub fn write_restore(&self, _operation: &Lock, text: String) -> anyhow::Result<()> {
        self.write_state(RESTORE, text)
    }

    /// As [`Self::remove_journal`], for `restore-data`.
    ///
    /// # Errors
    ///
    /// It cannot be removed (exit 3).
    pub fn remove_restore(&self, _operation: &Lock) -> anyhow::Result<()> {
        self.remove_state(RESTORE)
    }

    fn write_state(&self, name: &str, text: String) -> anyhow::Result<()> {
        self.prepare_state_directory()?;
        replace_all(&[self.own(name, text, None)], AGAIN)
    }

    fn remove_state(&self, name: &str) -> anyhow::Result<()> {
        let path = self.state_directory().join(name);
        replace::remove(&path).map_err(|source| cannot_write(&path, &source).into())
    }

    /// What is remembered of pinned files; `None` if none was pinned.
    ///
    /// # Errors
    ///
    /// See [`read`].
    pub fn read_pins(&self) -> anyhow::Result<Option<Snapshot>> {
        read(&self.state_directory().join(PINS))
    }

    /// The replacement of what is remembered of pinned files.
    #[must_use]
    pub fn pins(&self, text: String, before: Option<Snapshot>) -> Replacement {
        self.own(PINS, text, before)
    }

    /// The replacement of a file of the state directory.
    fn own(&self, name: &str, text: String, before: Option<Snapshot>) -> Replacement {
        Replacement {
            path: self.state_directory().join(name),
            bytes: text.into_bytes(),
            before,
            owner_like: self.directory.clone(),
        }
    }

    /// The log of operations; `None` if there is none.
    ///
    /// # Errors
    ///
    /// See [`read`].
    pub fn read_operations(&self) -> anyhow::Result<Option<Snapshot>> {
        read(&self.state_directory().join(OPERATIONS))
    }

    /// The replacement of the log of operations.
    #[must_use]
    pub fn operations(&self, text: String, before: Option<Snapshot>) -> Replacement {
        self.own(OPERATIONS, text, before)
    }

    /// The text of the manifest with this digest, if it is among the backups, or is what dkv wrote
    /// last. `backup` is the name of the one that should have it.
    #[must_use]
    pub fn manifest_text(&self, digest: &Digest, backup: Option<&str>) -> Option<Vec<u8>> {
        let named = backup.map(|name| self.state_directory().join(name));
        // Who does not find it is told which backup should have it.
        let backups = self.backups().unwrap_or_default();
        let files = named.into_iter().chain(backups);
        let mut texts = files.filter_map(|path| Some(read(&path).ok()??.bytes));
        self.object(digest).or_else(|| texts.find(|text| Digest::of(text) == *digest))
    }

    /// Where a command says what it has to say once its terminal is gone.
    #[must_use]
    pub fn lost_output(&self) -> PathBuf {
        self.state_directory().join(LOST_OUTPUT)
    }

    /// Opens [`Store::lost_output`] for its owner alone; what is in it stays.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn open_lost_output(&self) -> anyhow::Result<File> {
        let path = self.prepare_state_directory()?.join(LOST_OUTPUT);
        let flags = rustix::fs::OFlags::NOFOLLOW.bits();
        let flags = i32::try_from(flags).unwrap_or_default();
        let opened =
            File::options().create(true).append(true).mode(0o600).custom_flags(flags).open(&path);
        opened.map_err(|source| cannot_write(&path, &source).into())
    }

    /// Removes [`Store::lost_output`], if there is any.
    ///
    /// # Errors
    ///
    /// It cannot be removed (exit 3).
    pub fn remove_lost_output(&self, _operation: &Lock) -> anyhow::Result<()> {
        self.remove_state(LOST_OUTPUT)
    }

    /// Where `update-safe` keeps its data backups.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.state_directory().join("data")
    }
}

/// What tells the images of a deployment in `place`, links resolved, from those of others.
#[must_use]
pub fn hash_of_place(place: &Path) -> String {
    Digest::of(place.as_os_str().as_bytes()).hex()[..8].to_owned()
}

/// Lets git leave out what is in `directory`, which was made just now. Whoever wants it in git all
/// the same removes the file: it is not made again. Nothing depends on it.
pub(crate) fn keep_out_of_git(directory: &Path, like: &Path) {
    let path = directory.join(".gitignore");
    if let Err(source) = replace::write_new(&path, b"*\n", like) {
        tracing::debug!("`{}` cannot be written: {source}", path.display());
    }
}

/// Refuses a directory that every user of the machine can write to, also where they can only add
/// files to it: a Compose file that is added counts.
fn refuse_writable_by_all(path: &Path, metadata: &std::fs::Metadata) -> anyhow::Result<()> {
    if metadata.mode() & 0o002 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(error::state(format!("`{path}` can be written by every user of this machine"))
        .with_hint(format!("take that right away: chmod o-w {path}"))
        .into())
}

/// What finishes the replacement of a file of dkv's own.
pub const AGAIN: &str = "run the command again";

/// A failed write as the operator should read it.
pub(crate) fn cannot_write(path: &Path, source: &io::Error) -> Error {
    let hint = match source.kind() {
        io::ErrorKind::PermissionDenied => "run dkv as a user who may write there",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on that disk and run the command again"
        }
        io::ErrorKind::NotFound => "check that the directory exists",
        _ => "nothing was changed; check the disk and run the command again",
    };
    error::state(format!("cannot write `{}`: {source}", path.display())).with_hint(hint)
}

/// The name of the file at `path`.
#[must_use]
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_else(|| OsStr::new("file")).to_string_lossy().into_owned()
}

/// The files of `directory` that are named after a time, newest first: by its ledger, because the
/// clock may have been wrong, then by the time in their names. `stamp` takes that out of a name,
/// with the number that tells files of one second apart.
///
/// # Errors
///
/// The directory cannot be listed (exit 3).
pub(crate) fn newest_first(
    directory: &Path,
    stamp: impl Fn(&str) -> Option<&str>,
) -> anyhow::Result<Vec<PathBuf>> {
    let names = list(directory)?;
    let found = names.iter().filter_map(|name| {
        let stamp = stamp(name)?;
        let (time, number) = stamp.split_once('-').unwrap_or((stamp, "0"));
        Some((time.to_owned(), number.parse::<u64>().ok()?, directory.join(name)))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by(|a, b| (&b.0, b.1).cmp(&(&a.0, a.1)));
    let mut found: Vec<PathBuf> = found.into_iter().map(|(.., path)| path).collect();
    match Ledger::read(directory) {
        Ok(ledger) => ledger.sort(&mut found),
        Err(error) => tracing::warn!("{error:#}"),
    }
    Ok(found)
}

/// The name of a backup without its time.
fn kind_of_backup(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(kind, _)| kind)
}

/// The name of the temporary neighbour of `path`. It is the same every time: writers hold the state
/// lock, so a neighbour that is there already was left by one that was killed.
fn neighbour(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_else(|| OsStr::new("file")));
    name.push(replace::NEW);
    path.with_file_name(name)
}
