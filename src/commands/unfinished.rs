//! What other commands do when an `update-safe` or a `restore-data` has not ended.

use anyhow::Result;

use super::Effect;
use crate::app::App;
use crate::backup::{Phase, Restore};
use crate::error::{self, Error};
use crate::store::{Lock, Snapshot, Store};
use crate::update::{Journal, State};

impl App {
    /// Keeps a command that changes something, or shows what it would change, away from a deployment
    /// with an unfinished update or half restored data; one that only looks says so in a line.
    ///
    /// # Errors
    ///
    /// The command changes something, and one of them is unfinished (exit 3) or under way (exit 4).
    pub fn check_unfinished(&self, effect: Effect) -> Result<()> {
        self.check_restore(effect)?;
        self.check_update(effect)
    }

    /// As [`Self::check_unfinished`], for updates only.
    ///
    /// # Errors
    ///
    /// As for [`Self::check_unfinished`].
    pub(super) fn check_update(&self, effect: Effect) -> Result<()> {
        let Some(bytes) = self.unfinished_bytes(effect, Store::read_journal)? else {
            return Ok(());
        };
        let Some(journal) = self.or_warn(effect, parse(&bytes).map(Some))? else { return Ok(()) };
        if effect != Effect::Looks && journal.state.is_unfinished() {
            return Err(unfinished(&journal).into());
        }
        self.ui.warn(describe(&journal));
        Ok(())
    }

    /// As [`Self::check_unfinished`], for restores of data only.
    ///
    /// # Errors
    ///
    /// As for [`Self::check_unfinished`].
    pub(super) fn check_restore(&self, effect: Effect) -> Result<()> {
        let Some(bytes) = self.unfinished_bytes(effect, Store::read_restore)? else {
            return Ok(());
        };
        let found = parse_restore(&bytes).and_then(|journal| {
            if journal.phase.is_between() {
                return Err(unfinished_restore(&journal).into());
            }
            // What changes something may still not be what starts on it; that tells it then.
            if effect != Effect::Changes {
                self.ui.warn(nothing_restored(&journal));
            }
            Ok(())
        });
        self.or_warn(effect, found)
    }

    /// Those who only look do not fail because of what others left.
    fn or_warn<T: Default>(&self, effect: Effect, found: Result<T>) -> Result<T> {
        match found {
            Err(error) if effect == Effect::Looks => {
                self.ui.warn(format!("{error:#}"));
                Ok(T::default())
            }
            found => found,
        }
    }

    /// What `read` finds of a journal that nobody is at work on.
    fn unfinished_bytes(
        &self,
        effect: Effect,
        read: impl Fn(&Store) -> Result<Option<Snapshot>>,
    ) -> Result<Option<Vec<u8>>> {
        let bytes =
            || self.or_warn(effect, read(&self.store).map(|found| found.map(|found| found.bytes)));
        if effect == Effect::None {
            return Ok(None);
        }
        let found = bytes()?;
        if found.is_none() {
            return Ok(None);
        }
        let Some(holder) = self.store.operation_holder() else { return Ok(found) };
        if effect != Effect::Changes {
            self.ui.note(format!("{holder} is at work on this deployment"));
            return Ok(None);
        }
        // It may end well while this waits for it.
        drop(self.lock_operation()?);
        bytes()
    }

    /// Begins what starts or stops containers: with the operation lock, and not on half restored
    /// data. What a restore left that had replaced nothing goes.
    ///
    /// # Errors
    ///
    /// Another dkv is at it (exit 4), or a restore is unfinished (exit 3).
    pub(super) fn begin_operation(&self) -> Result<Lock> {
        let lock = self.lock_operation()?;
        self.store.remove_lost_output(&lock)?;
        if let Some(journal) = self.restore()? {
            if journal.phase.is_between() {
                return Err(unfinished_restore(&journal).into());
            }
            self.ui.warn(nothing_restored(&journal));
            match journal.tidy() {
                Ok(()) => self.store.remove_restore(&lock)?,
                Err(source) => self.ui.warn(format!(
                    "what an interrupted restore-data left cannot be removed: {source}"
                )),
            }
        }
        Ok(lock)
    }

    /// The journal of a `restore-data` that has not ended, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be read (exit 3).
    pub(super) fn restore(&self) -> Result<Option<Restore>> {
        self.store.read_restore()?.map(|found| parse_restore(&found.bytes)).transpose()
    }

    /// The journal of an update that has not ended, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be read (exit 3).
    pub(super) fn journal(&self) -> Result<Option<Journal>> {
        self.store.read_journal()?.map(|found| parse(&found.bytes)).transpose()
    }
}

fn parse(bytes: &[u8]) -> Result<Journal> {
    Journal::parse(bytes).map_err(|error| {
        let otherwise = "look what runs (`docker ps`), remove the file, and run `dkv restart`";
        unreadable("update-safe, .version-backups/update-journal.json", &error, otherwise).into()
    })
}

fn parse_restore(bytes: &[u8]) -> Result<Restore> {
    Restore::parse(bytes).map_err(|error| {
        let otherwise = "look at the data, where `.dkv-replaced-*` holds what was there before, \
            and remove the file";
        unreadable("restore-data, .version-backups/restore-journal.json", &error, otherwise).into()
    })
}

/// A journal that says nothing to this dkv. `whose` is its command and its file.
fn unreadable(whose: &str, error: &anyhow::Error, otherwise: &str) -> Error {
    error::state(format!("the journal of an unfinished {whose}, cannot be read: {error:#}"))
        .with_hint(format!("use the dkv that wrote it; or {otherwise}"))
}

/// The refusal to start anything on data that may be half replaced.
pub(super) fn unfinished_restore(journal: &Restore) -> Error {
    let backup = crate::store::file_name(&journal.backup);
    error::state(format!(
        "a restore-data of {backup} was interrupted while it replaced data: there may be half of \
        both"
    ))
    .with_hint(match journal.phase {
        Phase::GoingBack => {
            "`dkv restore-data --abort` puts back what was there before".to_owned()
        }
        _ => format!(
            "`dkv restore-data {backup}` finishes it, `dkv restore-data --abort` puts back what was \
            there before"
        ),
    })
}

/// One line about a restore that ended before it had begun to replace anything, or right after.
fn nothing_restored(journal: &Restore) -> String {
    let backup = crate::store::file_name(&journal.backup);
    match journal.phase {
        Phase::InPlace => format!(
            "a restore-data of {backup} was interrupted after it had replaced the data; `dkv up` \
            starts what it had stopped"
        ),
        _ => format!(
            "a restore-data of {backup} was interrupted before it replaced anything; the data is as \
            it was"
        ),
    }
}

/// One line about an update that has not ended.
fn describe(journal: &Journal) -> String {
    match journal.state {
        State::RestoreFailed => format!(
            "the update-safe of {} failed, and so did its restore; `dkv update-safe --abort` \
                tries to restore again",
            journal.started_at
        ),
        state => format!(
            "an update-safe of {} was interrupted ({}); finish it with `dkv update-safe --resume` \
                or undo it with \
             `dkv update-safe --abort`",
            journal.started_at,
            state.leaves()
        ),
    }
}

/// The refusal of a command that would change something.
pub(super) fn unfinished(journal: &Journal) -> Error {
    error::state(format!(
        "an update-safe of {} was interrupted: \
        {}",
        journal.started_at,
        journal.state.leaves()
    ))
    .with_hint(
        "`dkv update-safe --resume` finishes it, `dkv update-safe --abort` restores \
            what ran before",
    )
}
