//! Advisory locks that end with the process that holds them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind};

/// How long to wait for another holder, and what to say meanwhile.
pub struct LockWait<'a> {
    /// How long to wait.
    pub timeout: Duration,
    /// What this process is doing, for those who wait for it: `dkv pull-latest`.
    pub purpose: &'a str,
    /// Called once, with the holder's description, when waiting begins.
    pub on_wait: &'a dyn Fn(&str),
    /// Whether the user no longer wants to wait.
    pub is_interrupted: &'a dyn Fn() -> bool,
}

/// A held lock; dropping it lets it go, and so does the end of the process, however it ends.
#[derive(Debug)]
#[must_use = "a lock that is dropped at once protects nothing"]
pub struct Lock {
    file: File,
}

/// What the lock is called that children share.
pub(super) const OPERATION: &str = "operation";

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(15);

impl Lock {
    /// Takes the lock on `path`, making the file if needed; one made under sudo belongs to the
    /// owner of the deployment, who could not lock it otherwise. The file is never removed: a
    /// waiter could hold the removed one.
    pub(super) fn acquire(path: &Path, what: &str, wait: &LockWait<'_>) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .and_then(|file| {
                super::replace::give_to_owner_of(&file, path.parent().unwrap_or(path))
                    .map(|()| file)
            })
            .map_err(|source| super::cannot_write(path, &source))?;
        let deadline = Instant::now() + wait.timeout;
        let mut announced = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => {
                    return Err(super::cannot_write(path, &source).into());
                }
            }
            let holder = describe(&mut file, what == OPERATION);
            if Instant::now() >= deadline {
                let message = format!("the {what} lock of this deployment is held by {holder}");
                let waited = wait.timeout.as_secs();
                return Err(Error::new(Kind::Locked, message)
                    .with_hint(format!(
                        "waited {waited} s; wait for it to finish, or wait longer \
                        with --lock-timeout"
                    ))
                    .into());
            }
            if !announced {
                (wait.on_wait)(&holder);
                announced = true;
            }
            if (wait.is_interrupted)() {
                let message =
                    format!("interrupted while waiting for {holder}; nothing was changed");
                return Err(Error::new(Kind::Interrupted, message).into());
            }
            std::thread::sleep(RETRY.min(deadline.saturating_duration_since(Instant::now())));
        }
        let note = format!("{} (process {})\n", wait.purpose, std::process::id());
        // The note only helps those who wait; a full disk must not keep anybody from locking.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()));
        Ok(Self { file })
    }
}

impl Lock {
    /// A handle for a child: the lock is held until the child has ended too, even if this process
    /// is killed.
    ///
    /// # Errors
    ///
    /// The system has no more handles.
    pub fn share(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// Who holds the lock on `path`, in its own words; `None` if nobody does.
    pub(super) fn holder(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(describe(&mut file, true)),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }
}

/// What the holder wrote about itself. One that was killed may have left Compose behind, which
/// holds the operation lock for as long as it runs.
fn describe(file: &mut File, is_operation: bool) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), note) if is_operation && has_ended(note) => {
            format!("Compose, which was started by `{}`, which has ended,", note.escape_debug())
        }
        (Ok(_), note) if !note.is_empty() => format!("`{}`", note.escape_debug()),
        _ => "another dkv".to_owned(),
    }
}

/// Whether the process that a holder's note names is gone.
fn has_ended(note: &str) -> bool {
    let id =
        note.rsplit_once("(process ").and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok());
    id.is_some_and(|id| !is_running(id))
}

/// Whether there is a process with this number.
pub(super) fn is_running(id: i32) -> bool {
    let Some(id) = rustix::process::Pid::from_raw(id) else { return false };
    rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH)
}
