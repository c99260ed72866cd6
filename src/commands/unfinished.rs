//! What other commands do when an `update-safe` has not ended.

use anyhow::Result;

use super::Effect;
use crate::app::App;
use crate::error::{self, Error};
use crate::update::{Journal, State};

impl App {
    /// Keeps a command that changes something away from a deployment with an unfinished update; one
    /// that only looks says so in a line.
    ///
    /// # Errors
    ///
    /// The command changes something, and an update is unfinished (exit 3) or under way (exit 4).
    pub fn check_unfinished(&self, effect: Effect) -> Result<()> {
        if effect == Effect::None || self.journal_bytes(effect)?.is_none() {
            return Ok(());
        }
        if let Some(holder) = self.store.operation_holder() {
            if effect == Effect::Looks {
                self.ui.note(format!("{holder} is at work on this deployment"));
                return Ok(());
            }
            // It may end well while this waits for it.
            drop(self.lock_operation()?);
        }
        let Some(bytes) = self.journal_bytes(effect)? else { return Ok(()) };
        let journal = match parse(&bytes) {
            Err(error) if effect == Effect::Looks => {
                self.ui.warn(format!("{error:#}"));
                return Ok(());
            }
            journal => journal?,
        };
        if effect == Effect::Changes && journal.state.is_unfinished() {
            return Err(unfinished(&journal).into());
        }
        self.ui.warn(describe(&journal));
        Ok(())
    }

    /// The journal's bytes. Those who only look do not fail because of it.
    fn journal_bytes(&self, effect: Effect) -> Result<Option<Vec<u8>>> {
        match self.store.read_journal() {
            Err(error) if effect == Effect::Looks => {
                self.ui.warn(format!("{error:#}"));
                Ok(None)
            }
            found => Ok(found?.map(|found| found.bytes)),
        }
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
        let message = "the journal of an unfinished update-safe, \
            .version-backups/update-journal.json, cannot be read";
        error::state(format!("{message}: {error:#}"))
            .with_hint(
                "use the dkv that wrote it; or look what runs (`docker ps`), remove the \
                file, and run `dkv restart`",
            )
            .into()
    })
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
