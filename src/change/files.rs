//! The commit: manifest and `versions.env` under the state lock, both or neither.

use std::path::Path;

use anyhow::Result;

use super::operation::{self, About};
use crate::deployment::{Deployment, EnvFile, EnvState, Record};
use crate::error;
use crate::model::env_file;
use crate::model::manifest::{Listing, Service};
use crate::model::reference::Digest;
use crate::model::yaml::YamlError;
use crate::report::Files;
use crate::store::{self, Lock, Replacement, Snapshot, Store};

/// The manifest as it stands under the state lock, and the text that it shall have.
#[must_use = "a draft that is not written is lost"]
pub(super) struct Draft {
    lock: Lock,
    now: Now,
    /// None where the manifest stays as it is, and only `versions.env` may be wrong.
    text: Option<Vec<u8>>,
}

/// What stands on the disk.
enum Now {
    /// No manifest.
    Nothing,
    /// The bytes that the deployment was read from.
    Same(Snapshot),
    /// What somebody else has written since.
    Other(Box<Record>),
}

impl Draft {
    /// Takes the lock and looks at what stands there.
    ///
    /// # Errors
    ///
    /// Another dkv holds the lock (exit 4); the manifest is gone, or not valid any more (exit 3).
    pub(super) fn begin(deployment: &Deployment<'_>) -> Result<Self> {
        let app = deployment.app();
        let lock = app.lock_state()?;
        let snapshot = app.store.read_manifest()?.ok_or_else(|| vanished(&app.store))?;
        let now = if snapshot.bytes == deployment.record()?.snapshot.bytes {
            Now::Same(snapshot)
        } else {
            Now::Other(Box::new(deployment.interpret_again(snapshot)?))
        };
        Ok(Self { lock, now, text: None })
    }

    /// As [`Draft::begin`], for `versions.env` alone; none if it is as it should be.
    pub(super) fn of_env(deployment: &Deployment<'_>) -> Result<Option<Self>> {
        let is_current = deployment.env()?.state.is_current();
        if is_current { Ok(None) } else { Self::begin(deployment).map(Some) }
    }

    /// What the manifest says under the lock.
    pub(super) fn record<'r>(&'r self, deployment: &'r Deployment<'_>) -> Result<&'r Record> {
        match &self.now {
            Now::Other(record) => Ok(record),
            Now::Nothing | Now::Same(_) => deployment.record(),
        }
    }

    /// The draft that gives `services` what they say, and lists what `listing` does.
    ///
    /// # Errors
    ///
    /// The manifest cannot be edited there (exit 3).
    pub(super) fn with(
        mut self,
        deployment: &Deployment<'_>,
        services: &[Service],
        listing: &Listing,
    ) -> Result<Self> {
        let edited = self.record(deployment)?.manifest.with(services, listing);
        let edited = edited.map_err(|error| not_editable(&deployment.app().store, &error))?;
        self.text = Some(edited.into_bytes());
        Ok(self)
    }

    /// The draft that brings back `text`.
    pub(super) fn with_text(mut self, text: Vec<u8>) -> Self {
        self.text = Some(text);
        self
    }

    /// Writes what differs: a backup first, then what is done in the log of operations, then
    /// manifest and `versions.env` together. The lock is handed back, for what has to be done under
    /// it.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or was changed by somebody who takes no lock, such as an editor
    /// (exit 3).
    pub(super) fn write(
        self,
        deployment: &mut Deployment<'_>,
        about: &About,
    ) -> Result<(Files, Lock)> {
        let Self { lock, now, text } = self;
        let app = deployment.app();
        let store = &app.store;
        let before = match &now {
            Now::Nothing => None,
            Now::Same(snapshot) => Some(snapshot),
            Now::Other(record) => Some(&record.snapshot),
        };
        let bytes = text.filter(|bytes| before.is_none_or(|before| before.bytes != *bytes));
        let after = match &bytes {
            Some(bytes) => {
                let path = match before {
                    Some(before) => before.path.clone(),
                    None => store::resolve(store.manifest_path())?,
                };
                let written = Snapshot::planned(path, bytes.clone());
                Some(deployment.interpret_written(written).map_err(|error| {
                    error.context("the manifest would not read as intended; nothing was written")
                })?)
            }
            None => None,
        };
        let old = match &now {
            Now::Nothing => None,
            Now::Same(_) => Some(deployment.record()?),
            Now::Other(record) => Some(record.as_ref()),
        };
        let Some(record) = after.as_ref().or(old) else { return Err(vanished(store).into()) };
        record.check_seen()?;
        let log = operation::recorded(app, old)?;
        let env = EnvFile::read(record, store)?;
        let mut files = Files {
            manifest_written: bytes.is_some(),
            env_written: !env.state.is_current(),
            ..Files::default()
        };
        let stamp = app.backup_stamp();
        if let (EnvState::Found(env_file::State::Edited), Some(found)) = (env.state, &env.found) {
            let name = store::file_name(&env.path);
            let saved = store.back_up(&lock, &name, found, &stamp)?;
            files.env_backup = Some(saved.display().to_string());
        }
        let mut replacements = Vec::new();
        if let Some(bytes) = bytes {
            if let Some(before) = before {
                let name = store.manifest_name();
                let saved = store.back_up(&lock, &name, before, &stamp)?;
                files.backup = Some(saved.display().to_string());
            }
            replacements.push(Replacement {
                path: record.snapshot.path.clone(),
                bytes,
                before: before.cloned(),
                owner_like: store.directory().to_owned(),
            });
        }
        if files.env_written {
            replacements.push(Replacement {
                path: store::resolve(&env.path)?,
                bytes: env.expected.clone().into_bytes(),
                before: env.found.clone(),
                owner_like: record.snapshot.path.clone(),
            });
        }
        let backup = files.backup.as_deref().map(|path| store::file_name(Path::new(path)));
        let id = log.log.next_id();
        let announcement = log.announce(app, &lock, (old, after.as_ref()), backup, about)?;
        if let Some(after) = &after {
            // Kept from when it was written before, it would show that it came again.
            store.forget_object(&lock, &Digest::of(&after.snapshot.bytes))?;
        }
        let repair = "the next dkv command that writes or starts anything repairs it; `dkv \
            generate-env` does just that";
        store::replace_announced(announcement.as_ref(), &replacements, repair)?;
        if after.is_some() || about.attempt.is_some() {
            app.note_operation(id);
        }
        // Shows from now on that the manifest came, and what an edit has changed.
        let text = &record.snapshot.bytes;
        if let Err(error) = store.keep_object(&lock, &Digest::of(text), text) {
            tracing::warn!("{error:#}");
        }
        app.note_recorded(&files);
        match (after, now) {
            (Some(record), _) => deployment.replace_record(record),
            (None, Now::Other(record)) => deployment.replace_record(*record),
            (None, Now::Nothing | Now::Same(_)) => deployment.forget_env(),
        }
        Ok((files, lock))
    }
}

/// Writes a deployment's first manifest, and `versions.env` with it.
///
/// # Errors
///
/// As for a commit; also if there is a manifest by now.
pub fn create(deployment: &mut Deployment<'_>, text: String) -> Result<Files> {
    let app = deployment.app();
    let lock = app.lock_state()?;
    if app.store.read_manifest()?.is_some() {
        return Err(changed_meanwhile().into());
    }
    let draft = Draft { lock, now: Now::Nothing, text: Some(text.into_bytes()) };
    draft.write(deployment, &About::default()).map(|(files, _)| files)
}

/// Brings `versions.env` to what the manifest says, if it says something else.
///
/// # Errors
///
/// As for a commit.
pub fn refresh_env(deployment: &mut Deployment<'_>) -> Result<Files> {
    match Draft::of_env(deployment)? {
        Some(draft) => draft.write(deployment, &About::default()).map(|(files, _)| files),
        None => Ok(Files::default()),
    }
}

/// Takes the state lock, and sees to it that `deployment` has what the manifest says under it.
///
/// # Errors
///
/// Another dkv holds the lock (exit 4); the manifest is gone, or not valid any more (exit 3).
pub fn hold(deployment: &mut Deployment<'_>) -> Result<Lock> {
    let Draft { lock, now, .. } = Draft::begin(deployment)?;
    if let Now::Other(record) = now {
        deployment.replace_record(*record);
    }
    Ok(lock)
}

/// Writes down what was tried in vain and has changed nothing that is recorded.
///
/// # Errors
///
/// As for a commit.
pub fn note_attempt(deployment: &mut Deployment<'_>, about: &About) -> Result<()> {
    Draft::begin(deployment)?.write(deployment, about).map(drop)
}

fn changed_meanwhile() -> error::Error {
    error::state("the manifest was changed while this command ran; nothing was written")
        .with_hint("run the command again")
}

fn vanished(store: &Store) -> error::Error {
    error::state(format!(
        "`{}` vanished while this command ran; nothing was written",
        store.manifest_path().display()
    ))
    .with_hint("put it back, then run the command again")
}

fn not_editable(store: &Store, error: &YamlError) -> error::Error {
    error::state(format!("`{}`, {error}", store.manifest_path().display())).with_hint(
        "nothing was written; spell that part of the manifest out, without anchors and aliases",
    )
}
