//! The commit: manifest and `versions.env` under the state lock, both or neither.

use anyhow::Result;

use crate::deployment::{Deployment, EnvFile, EnvState, Record};
use crate::error;
use crate::model::env_file;
use crate::model::manifest::{Listing, Service};
use crate::model::yaml::YamlError;
use crate::report::Files;
use crate::store::{self, Lock, Replacement, Snapshot, Store};

/// The manifest as it stands under the state lock, and the text that it shall have.
#[must_use = "a draft that is not written is lost"]
pub(super) struct Draft {
    lock: Lock,
    now: Now,
    /// None where the manifest stays as it is, and only `versions.env` may be wrong.
    text: Option<String>,
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
        self.text = Some(edited.map_err(|error| not_editable(&deployment.app().store, &error))?);
        Ok(self)
    }

    /// Writes what differs: a backup first, then manifest and `versions.env` together. The lock is
    /// handed back, for what has to be done under it.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or was changed by somebody who takes no lock, such as an editor
    /// (exit 3).
    pub(super) fn write(self, deployment: &mut Deployment<'_>) -> Result<(Files, Lock)> {
        let Self { lock, now, text } = self;
        let app = deployment.app();
        let store = &app.store;
        let before = match &now {
            Now::Nothing => None,
            Now::Same(snapshot) => Some(snapshot),
            Now::Other(record) => Some(&record.snapshot),
        };
        let bytes = text.map(String::into_bytes);
        let bytes = bytes.filter(|bytes| before.is_none_or(|before| before.bytes != *bytes));
        let after = match &bytes {
            Some(bytes) => {
                let path = before.map_or_else(
                    || Store::resolve(store.manifest_path()),
                    |before| before.path.clone(),
                );
                let written = Snapshot::planned(path, bytes.clone());
                Some(deployment.interpret_written(written).map_err(|error| {
                    error.context("the manifest would not read as intended; nothing was written")
                })?)
            }
            None => None,
        };
        let record = match (&after, &now) {
            (Some(record), _) => record,
            (None, Now::Other(record)) => record,
            (None, Now::Nothing | Now::Same(_)) => deployment.record()?,
        };
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
                path: Store::resolve(&env.path),
                bytes: env.expected.clone().into_bytes(),
                before: env.found.clone(),
                owner_like: record.snapshot.path.clone(),
            });
        }
        store::replace_all(&replacements)?;
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
    let draft = Draft { lock, now: Now::Nothing, text: Some(text) };
    draft.write(deployment).map(|(files, _)| files)
}

/// Brings `versions.env` to what the manifest says, if it says something else.
///
/// # Errors
///
/// As for a commit.
pub fn refresh_env(deployment: &mut Deployment<'_>) -> Result<Files> {
    match Draft::of_env(deployment)? {
        Some(draft) => draft.write(deployment).map(|(files, _)| files),
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
