//! A deployment's manifest with everything that belongs to it, and the one way in which a change of
//! it reaches the disk.

use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::{DateTime, Local};

use crate::error;
use crate::model::env_file::{self, Assignments};
use crate::model::interpolation::Template;
use crate::model::manifest::{Manifest, Service};
use crate::model::reference::{Digest, Reference, Repository, Tag};
use crate::plan::{self, Step};
use crate::report::Files;
use crate::store::{self, Lock, LockWait, Replacement, Snapshot, Store};

/// A manifest as it was read, its images settled.
#[derive(Debug)]
pub struct Deployment {
    /// What the manifest says.
    pub manifest: Manifest,
    /// The bytes it was read from.
    pub snapshot: Snapshot,
    /// What tells this deployment's keep-tags from its neighbours'.
    pub hash: String,
}

/// An image line of a Compose file: where it stands, and its text before interpolation.
#[derive(Debug, Clone)]
pub struct ImageText {
    /// The Compose service.
    pub service: String,
    /// The text behind `image:`.
    pub image: String,
}

impl Deployment {
    /// Reads the deployment's manifest; `None` if it has none. `image_texts` reads the Compose
    /// files and is only called if the manifest leaves an image to them.
    ///
    /// # Errors
    ///
    /// The manifest cannot be read or is not valid (exit 3); the message names the newest backup
    /// that is.
    pub fn load(
        store: &Store,
        image_texts: impl FnOnce() -> Vec<ImageText>,
    ) -> Result<Option<Self>> {
        let Some(snapshot) = store.read_manifest()? else { return Ok(None) };
        let manifest = Manifest::read(&snapshot.bytes).map_err(|error| {
            let name = store.manifest_path().display();
            error::state(format!("`{name}`, {error}")).with_hint(advice(store))
        })?;
        manifest.check_patterns().map_err(|error| {
            let name = store.manifest_path().display();
            error::state(format!("`{name}`, {error}"))
                .with_hint("`*` stands for any characters, `?` for one: `1.4?`, `v2.*`")
        })?;
        for warning in &manifest.warnings {
            tracing::warn!("{warning}");
        }
        for warning in manifest.misspelled_keys() {
            tracing::warn!("`{}`, {warning}", store.manifest_path().display());
        }
        let mut deployment = Self { manifest, snapshot, hash: store.deployment_hash()? };
        deployment.settle(image_texts)?;
        Ok(Some(deployment))
    }

    fn settle(&mut self, image_texts: impl FnOnce() -> Vec<ImageText>) -> Result<()> {
        let texts = if self.manifest.needs_compose() { image_texts() } else { Vec::new() };
        let prefix = self.manifest.env.prefix.clone();
        self.manifest.settle(|service| image_from_compose(service, &prefix, &texts)).map_err(
            |error| {
                error::state(error.to_string())
                    .with_hint("give the service an `image` in the manifest")
                    .into()
            },
        )
    }

    /// The assignments that Compose gets.
    ///
    /// # Errors
    ///
    /// Two services set one variable to different values (exit 3).
    pub fn assignments(&self) -> Result<Assignments> {
        self.assignments_with(|_| None)
    }

    /// As [`Self::assignments`], with another repository and tag for the services that `choose` has
    /// them for.
    ///
    /// # Errors
    ///
    /// As for [`Self::assignments`].
    pub fn assignments_with(
        &self,
        choose: impl Fn(&Service) -> Option<(Repository, String)>,
    ) -> Result<Assignments> {
        assignments(&self.manifest, &self.hash, choose)
    }

    /// The variables that tell Compose which image of `service` to run.
    #[must_use]
    pub fn variables_of(&self, service: &Service) -> Vec<String> {
        let own = ["IMAGE", "TAG"]
            .map(|suffix| env_file::variable(&self.manifest.env.prefix, &service.name, suffix));
        own.into_iter().chain(service.env_image.clone()).chain(service.env_tag.clone()).collect()
    }

    /// The service that the Compose service `name` runs: the one that lists it, else the one whose
    /// variables or repository its image line in `texts` has.
    #[must_use]
    pub fn service_behind(&self, name: &str, texts: &[ImageText]) -> Option<&Service> {
        let services = || self.manifest.services.values();
        if let Some(listing) =
            services().find(|service| service.compose_services.iter().any(|listed| listed == name))
        {
            return Some(listing);
        }
        let template = texts
            .iter()
            .find(|text| text.service == name)
            .and_then(|text| Template::parse(&text.image).ok())?;
        services().find(|service| self.follows(&template, service)).or_else(|| {
            let repository = repository_of(&template)?;
            services().find(|service| service.image.as_ref() == Some(&repository))
        })
    }

    /// The Compose services that have the image of one of the services called `names`, but not by
    /// its variables: whatever is recorded, Compose gives them what their lines in `texts` say.
    #[must_use]
    pub fn deaf(&self, names: &[&str], texts: &[ImageText]) -> Vec<String> {
        let is_deaf = |text: &&ImageText| {
            let Ok(template) = Template::parse(&text.image) else { return false };
            let Some(repository) = repository_of(&template) else { return false };
            let mut meant = self
                .manifest
                .services
                .values()
                .filter(|service| names.contains(&service.name.as_str()));
            meant
                .find(|service| service.image.as_ref() == Some(&repository))
                .is_some_and(|service| !self.follows(&template, service))
        };
        texts.iter().filter(is_deaf).map(|text| text.service.clone()).collect()
    }

    /// Whether an image line has one of the variables of `service`.
    fn follows(&self, template: &Template, service: &Service) -> bool {
        let variables = template.variables();
        self.variables_of(service).iter().any(|own| variables.iter().any(|name| name == own))
    }

    /// The text that `versions.env` should have.
    ///
    /// # Errors
    ///
    /// As for [`Self::assignments`].
    pub fn env_text(&self, store: &Store) -> Result<String> {
        let digest = Digest::of(&self.snapshot.bytes);
        Ok(env_file::render(&store.manifest_name(), &digest, &self.assignments()?))
    }

    /// Makes sure, before anything expensive happens, that a change can be recorded.
    ///
    /// # Errors
    ///
    /// As for [`Store::check_writable`].
    pub fn check_writable(&self, store: &Store) -> Result<()> {
        store.check_writable(Some(&self.env_path(store)))
    }

    /// Where `versions.env` is.
    #[must_use]
    pub fn env_path(&self, store: &Store) -> PathBuf {
        store.directory().join(&self.manifest.env.file)
    }
}

/// The repository that an image line has where no variable is set.
fn repository_of(template: &Template) -> Option<Repository> {
    Some(template.default_value()?.parse::<Reference>().ok()?.repository)
}

/// The hint for a manifest that cannot be read.
fn advice(store: &Store) -> String {
    let readable = store.backups().into_iter().find(|path| {
        std::fs::read(path).is_ok_and(|bytes| {
            Manifest::read(&bytes).is_ok_and(|manifest| !manifest.services.is_empty())
        })
    });
    match readable {
        Some(path) => format!(
            "mend that line; or go back to the newest readable backup, which is from before the \
                last change: cp {} {}, then \
             `dkv generate-env`",
            path.display(),
            store.manifest_path().display()
        ),
        None => "mend that line; there is no readable backup in .version-backups".to_owned(),
    }
}

/// The assignments that Compose gets from `manifest`.
fn assignments(
    manifest: &Manifest,
    hash: &str,
    choose: impl Fn(&Service) -> Option<(Repository, String)>,
) -> Result<Assignments> {
    let mut lines = Vec::with_capacity(manifest.services.len());
    for service in manifest.services.values() {
        let recorded =
            || Some((service.image.clone()?, plan::compose_tag(service, manifest.env.pin, hash)));
        let Some((image, tag)) = choose(service).or_else(recorded) else { continue };
        lines.push(env_file::Line {
            service: service.name.clone(),
            image,
            tag,
            also_image: service.env_image.clone(),
            also_tag: service.env_tag.clone(),
        });
    }
    let registry = manifest.ecr.as_ref().map(crate::model::manifest::Ecr::prefix);
    env_file::assignments(&manifest.env.prefix, registry.as_deref(), &lines).map_err(|collision| {
        error::state(collision.to_string())
            .with_hint(
                "rename the service, or give it another `env_tag` or `env_image`, or the \
                manifest another `env` `prefix`",
            )
            .into()
    })
}

/// The repository and the default tag that a Compose file gives a service, in the line that uses
/// the service's variables, else in the line of the Compose service of its name.
fn image_from_compose(
    service: &Service,
    prefix: &str,
    texts: &[ImageText],
) -> Option<(Repository, Option<Tag>)> {
    let variables = [
        env_file::variable(prefix, &service.name, "IMAGE"),
        env_file::variable(prefix, &service.name, "TAG"),
    ];
    let uses_variables = |text: &&ImageText| {
        Template::parse(&text.image).is_ok_and(|template| {
            template.variables().iter().any(|name| {
                variables.iter().any(|own| own == name)
                    || service.env_tag.as_deref() == Some(name)
                    || service.env_image.as_deref() == Some(name)
            })
        })
    };
    let plain = |name: &str| name.replace('-', "_");
    let is_namesake = |text: &&ImageText| plain(&text.service) == plain(service.name.as_str());
    let text = texts.iter().find(uses_variables).or_else(|| texts.iter().find(is_namesake))?;
    let reference: Reference = Template::parse(&text.image).ok()?.default_value()?.parse().ok()?;
    Some((reference.repository, reference.tag))
}

/// What a commit needs to know about the moment and the user.
pub struct Moment<'a> {
    /// The clock, for names of backups.
    pub now: DateTime<Local>,
    /// How to wait for the lock.
    pub wait: LockWait<'a>,
}

/// Records `steps`: backs the manifest up and replaces it and `versions.env`, or neither.
///
/// The manifest is read again under the lock. If one of the planned services changed meanwhile,
/// nothing is written; changes of others are kept.
///
/// # Errors
///
/// Another dkv holds the lock (exit 4); a planned service changed, or a file cannot be written
/// (exit 3).
pub fn commit(
    store: &Store,
    planned: &Deployment,
    steps: &[Step],
    moment: &Moment<'_>,
    image_texts: impl Fn() -> Vec<ImageText>,
) -> Result<Files> {
    let lock = store.lock_state(&moment.wait)?;
    let now = Deployment::load(store, &image_texts)?.ok_or_else(|| vanished(store))?;
    let changed: Vec<&Step> = steps.iter().filter(|step| step.is_change()).collect();
    for step in &changed {
        let name = &step.before.name;
        if planned.manifest.services.get(name) != now.manifest.services.get(name) {
            let message = format!(
                "service `{name}` was changed in the manifest while this command ran; nothing was \
                    written"
            );
            return Err(error::state(message).with_hint("run the command again").into());
        }
    }
    let after: Vec<Service> = changed.iter().map(|step| step.after.clone()).collect();
    let text = now.manifest.with_services(&after).map_err(|error| not_editable(store, &error))?;
    write(store, Some(&now.snapshot), text, &lock, moment, &image_texts)
}

/// Writes a deployment's first manifest, and `versions.env` with it.
///
/// # Errors
///
/// As for [`commit`]; also if there is a manifest by now.
pub fn create(
    store: &Store,
    text: String,
    moment: &Moment<'_>,
    image_texts: impl Fn() -> Vec<ImageText>,
) -> Result<Files> {
    let lock = store.lock_state(&moment.wait)?;
    write(store, None, text, &lock, moment, &image_texts)
}

/// Replaces the manifest's text as a whole, as [`commit`] does: with a backup, and with
/// `versions.env`.
///
/// # Errors
///
/// As for [`commit`]; also if the manifest is not the one that `planned` was read from.
pub fn commit_text(
    store: &Store,
    planned: &Deployment,
    text: String,
    moment: &Moment<'_>,
    image_texts: impl Fn() -> Vec<ImageText>,
) -> Result<Files> {
    let lock = store.lock_state(&moment.wait)?;
    let now = Deployment::load(store, &image_texts)?.ok_or_else(|| vanished(store))?;
    if now.snapshot.bytes != planned.snapshot.bytes {
        return Err(error::state(
            "the manifest was changed while this command ran; nothing was written",
        )
        .with_hint("run the command again")
        .into());
    }
    write(store, Some(&now.snapshot), text, &lock, moment, &image_texts)
}

/// Brings `versions.env` to what the manifest says, if it says something else.
///
/// # Errors
///
/// As for [`commit`].
pub fn refresh_env(
    store: &Store,
    moment: &Moment<'_>,
    image_texts: impl Fn() -> Vec<ImageText>,
) -> Result<Files> {
    let lock = store.lock_state(&moment.wait)?;
    let now = Deployment::load(store, &image_texts)?.ok_or_else(|| vanished(store))?;
    let text = now.manifest.source().to_owned();
    write(store, Some(&now.snapshot), text, &lock, moment, &image_texts)
}

/// How `versions.env` stands against what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvState {
    /// There is none.
    Missing,
    /// It is there.
    Found(env_file::State),
}

impl EnvState {
    /// The word for it in messages and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Found(env_file::State::Current) => "current",
            Self::Found(env_file::State::OldHeader) => "old-header",
            Self::Found(env_file::State::Stale) => "stale",
            Self::Found(env_file::State::Edited) => "edited",
        }
    }

    /// Whether other assignments stand there than should.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        matches!(
            self,
            Self::Missing | Self::Found(env_file::State::Stale | env_file::State::Edited)
        )
    }
}

/// Compares the file at `path` with `expected`.
///
/// # Errors
///
/// The file cannot be read (exit 3).
pub fn env_state(path: &Path, expected: &str) -> Result<(EnvState, Option<Snapshot>)> {
    let Some(found) = store::read(path)? else { return Ok((EnvState::Missing, None)) };
    let state = env_file::compare(&String::from_utf8_lossy(&found.bytes), expected);
    Ok((EnvState::Found(state), Some(found)))
}

fn vanished(store: &Store) -> error::Error {
    error::state(format!(
        "`{}` vanished while this command ran; nothing was written",
        store.manifest_path().display()
    ))
    .with_hint("put it back, then run the command again")
}

fn not_editable(store: &Store, error: &crate::model::yaml::YamlError) -> error::Error {
    error::state(format!("`{}`, {error}", store.manifest_path().display())).with_hint(
        "nothing was written; spell that part of the manifest out, without anchors and aliases",
    )
}

/// Writes what differs: a backup first, then manifest and `versions.env` together.
fn write(
    store: &Store,
    before: Option<&Snapshot>,
    text: String,
    lock: &Lock,
    moment: &Moment<'_>,
    image_texts: &impl Fn() -> Vec<ImageText>,
) -> Result<Files> {
    let stamp = moment.now.format("%Y%m%d%H%M%S").to_string();
    let bytes = text.into_bytes();
    let path =
        before.map_or_else(|| store.manifest_path().to_owned(), |before| before.path.clone());
    let manifest_written = before.is_none_or(|before| before.bytes != bytes);
    let mut files = Files { manifest_written, ..Files::default() };
    let mut after = Deployment {
        manifest: Manifest::read(&bytes).map_err(|error| not_editable(store, &error))?,
        snapshot: Snapshot { path, bytes },
        hash: store.deployment_hash()?,
    };
    after.settle(image_texts)?;
    let expected = after.env_text(store)?;
    let env_path = after.env_path(store);
    let (state, found) = env_state(&env_path, &expected)?;
    if let (EnvState::Found(env_file::State::Edited), Some(found)) = (state, &found) {
        let saved = store.back_up(lock, &file_name(&env_path), &found.bytes, &stamp)?;
        files.env_backup = Some(saved.display().to_string());
    }
    files.env_written = state != EnvState::Found(env_file::State::Current);
    if files.manifest_written {
        if let Some(before) = before {
            let saved = store.back_up(lock, &store.manifest_name(), &before.bytes, &stamp)?;
            files.backup = Some(saved.display().to_string());
        }
        // An editor takes no lock: what it saved since this manifest was read must not be lost.
        if store.read_manifest()?.as_ref() != before {
            return Err(error::state(
                "the manifest was changed while this command ran; nothing was written",
            )
            .with_hint("run the command again")
            .into());
        }
    }
    store::replace_all(&[
        Replacement {
            path: after.snapshot.path.clone(),
            bytes: after.snapshot.bytes.clone(),
            owner_like: store.directory().to_owned(),
        },
        Replacement {
            path: Store::resolve(&env_path),
            bytes: expected.into_bytes(),
            owner_like: after.snapshot.path.clone(),
        },
    ])?;
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
