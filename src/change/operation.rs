//! What a change writes down about itself, before it is made.

use anyhow::{Context as _, Result};

use crate::app::App;
use crate::deployment::Record;
use crate::error;
use crate::model::manifest::Manifest;
use crate::model::operation::{Ending, Kind, Log, Moved, Operation, Standing};
use crate::model::reference::Digest;
use crate::store::{self, Lock, Replacement, Snapshot};
use crate::ui::hide_passwords;

/// What an operation is, beyond what it changes.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Whether it goes back or forth among others.
    pub kind: Kind,
    /// The operations that it undoes or redoes.
    pub takes: Vec<u64>,
    /// The number that it must get, because it was planned so; none if that does not matter.
    pub id: Option<u64>,
    /// What was tried in vain, where nothing else is recorded.
    pub attempt: Option<Attempt>,
    /// The data that was saved on the way.
    pub data_backup: Option<String>,
}

/// What was tried in vain.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The services, with the releases that they were to get.
    pub services: Vec<Moved>,
    /// Why it failed.
    pub reason: String,
    /// The exit code that this has.
    pub exit_code: u8,
}

/// The log as it stands, and how the manifest stands to it.
pub struct Recorded {
    /// The operations. An edit that nobody has recorded yet is the last.
    pub log: Log,
    /// The digest of the text before an edit that nobody has recorded yet.
    pub edited_from: Option<Digest>,
    found: Option<Snapshot>,
}

/// Reads the log, for the manifest `now`. An edit since the last operation is added to it.
///
/// # Errors
///
/// The log cannot be read (exit 3).
pub fn recorded(app: &App, now: Option<&Record>) -> Result<Recorded> {
    let found = app.store.read_operations()?;
    let bytes = found.as_ref().map_or(&[][..], |found| &found.bytes);
    let mut log = Log::parse(bytes, &app.store.manifest_name());
    if log.damaged() > 0 {
        tracing::warn!(
            "{} of the lines of the log of operations are damaged and left out",
            log.damaged()
        );
    }
    let mut edited_from = None;
    let digest = now.map(digest_of);
    let is_kept = |text: &Digest| app.store.object(text).is_some();
    let standing = log.settle(digest.as_ref(), is_kept);
    if let (Standing::Edited(before), Some(digest), Some(now)) = (standing, digest, now) {
        let text = app.store.manifest_text(&before, None);
        let old = text.and_then(|text| Manifest::read(&text).ok());
        let services = old.map(|old| Moved::all_between(&old, &now.manifest)).unwrap_or_default();
        log.add(Operation {
            kind: Kind::Edit,
            services,
            by: None,
            host: None,
            ..operation(app, log.next_id(), Some(before.clone()), digest)
        })?;
        edited_from = Some(before);
    }
    Ok(Recorded { log, edited_from, found })
}

/// An operation of this run of which nothing is known but the texts.
fn operation(app: &App, id: u64, before: Option<Digest>, after: Digest) -> Operation {
    let stamp = app.stamp();
    Operation {
        id,
        at: stamp.at,
        by: Some(stamp.by),
        host: Some(app.settings.host.clone()),
        kind: Kind::Command,
        command: Vec::new(),
        manifest: app.store.manifest_name(),
        before,
        after,
        backup: None,
        services: Vec::new(),
        result: Ending::Done,
        exit_code: 0,
        reason: None,
        data_backup: None,
        takes: Vec::new(),
    }
}

fn digest_of(record: &Record) -> Digest {
    Digest::of(&record.snapshot.bytes)
}

impl Recorded {
    /// Adds what this run does, and returns what of the log has to be written before it is done;
    /// nothing if it does nothing and nobody has edited the manifest.
    ///
    /// # Errors
    ///
    /// The backup of an edited manifest cannot be written; the operations are not those that were
    /// planned with (exit 3).
    pub(super) fn announce(
        mut self,
        app: &App,
        lock: &Lock,
        (before, after): (Option<&Record>, Option<&Record>),
        backup: Option<String>,
        about: &About,
    ) -> Result<Option<Replacement>> {
        self.keep_edited(app, lock, before)?;
        let next = self.log.next_id();
        if about.id.is_some_and(|planned| planned != next) {
            return Err(error::state(
                "another operation was recorded while this command ran; nothing was written",
            )
            .with_hint("run the command again")
            .into());
        }
        let (old, attempt) = (before.map(digest_of), &about.attempt);
        let new = after.map(digest_of).or_else(|| attempt.as_ref().and(old.clone()));
        let Some(new) = new else { return Ok(self.replacement(app)) };
        let mut services = match (before, after) {
            (Some(before), Some(after)) => Moved::all_between(&before.manifest, &after.manifest),
            (None, Some(after)) => {
                let added = after.manifest.services.values();
                added.filter_map(|service| Moved::between(None, Some(service))).collect()
            }
            (_, None) => Vec::new(),
        };
        let mut operation = operation(app, next, old, new);
        if let Some(attempt) = attempt {
            services.retain(|one| attempt.services.iter().all(|tried| tried.name != one.name));
            services.splice(0..0, attempt.services.iter().cloned());
            operation.reason = Some(hide_passwords(&attempt.reason).into_owned());
            operation.exit_code = attempt.exit_code;
            operation.result = Ending::of(attempt.exit_code);
        }
        self.log.add(Operation {
            kind: about.kind,
            command: app.settings.arguments.clone(),
            backup,
            services,
            data_backup: about.data_backup.clone(),
            takes: about.takes.clone(),
            ..operation
        })?;
        Ok(self.replacement(app))
    }

    /// Makes the text before an edit a backup, so that the edit can be undone.
    fn keep_edited(&mut self, app: &App, lock: &Lock, now: Option<&Record>) -> Result<()> {
        let (Some(before), Some(now)) = (self.edited_from.clone(), now) else { return Ok(()) };
        let edit = self.log.next_id() - 1;
        let Some(bytes) = app.store.manifest_text(&before, None) else { return Ok(()) };
        let text = Snapshot::planned(now.snapshot.path.clone(), bytes);
        let name = app.store.manifest_name();
        let saved = app.store.back_up(lock, &name, &text, &app.backup_stamp())?;
        self.log.amend(edit, |edit| edit.backup = Some(store::file_name(&saved)))?;
        Ok(())
    }

    /// What the log's file shall be, if that is anything else than it is.
    fn replacement(self, app: &App) -> Option<Replacement> {
        let text = self.log.text();
        let is_there = self.found.as_ref().is_some_and(|found| found.bytes == text.as_bytes());
        let is_empty = self.found.is_none() && text.is_empty();
        (!is_there && !is_empty).then(|| app.store.operations(text, self.found))
    }
}

/// Writes down how a command ended that has recorded an operation, where that is not as it was
/// meant. Nothing depends on it.
pub fn note_end(app: &App, exit_code: u8, failure: Option<&anyhow::Error>) {
    let Some(id) = app.operation().filter(|_| exit_code != 0) else { return };
    let amended = app.lock_state().and_then(|_lock| {
        let found = app.store.read_operations()?;
        let bytes = found.as_ref().map_or(&[][..], |found| &found.bytes);
        let mut log = Log::parse(bytes, &app.store.manifest_name());
        let has_changed = log.amend(id, |operation| {
            operation.exit_code = exit_code;
            // What it recorded is done, however it ended after that.
            operation.result = match (operation.result, Ending::of(exit_code)) {
                (Ending::Done, Ending::Failed) => Ending::Partial,
                (_, ended) => ended,
            };
            if operation.reason.is_none() {
                operation.reason =
                    failure.map(|failure| hide_passwords(&format!("{failure:#}")).into_owned());
            }
        })?;
        match has_changed {
            true => store::replace_all(&[app.store.operations(log.text(), found)], store::AGAIN),
            false => Ok(()),
        }
    });
    if let Err(error) = amended.context("how this ended is not in the log of operations") {
        tracing::warn!("{error:#}");
    }
}
