//! The deployment: everything that belongs to one directory, read once.
//!
//! The manifest comes first, because it may say which Compose files count; then those files; then,
//! when somebody first asks, what costs a process or a call to the daemon: what Compose makes of
//! its files, and what runs. Commands ask here and nowhere else, so that they all see one picture.

mod env;
mod fitness;
mod labels;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use crate::app::App;
use crate::compose::config::ServiceConfig;
use crate::compose::{self, Awake, Compose, ComposeFiles, Files, Generation, Project, Set};
use crate::docker::{Container, ContainerFilter, ContainerState};
use crate::error::{self, Kind};
use crate::lookup::Lookup;
use crate::members::{Member, Membership, Use};
use crate::model::image_line;
use crate::model::interpolation::Template;
use crate::model::manifest::{Manifest, Service};
use crate::model::reference::{Digest, Platform, Reference, ServiceName};
use crate::observe::LocalImages;
use crate::store::{self, Lock, Snapshot};
pub use env::{EnvFile, EnvState};
pub use record::{Record, Spoiling};

/// How long Compose may read its files for a command that only looks.
const COMPOSE_PATIENCE: Duration = Duration::from_secs(15);

/// An image line that does not follow what is recorded of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The Compose service.
    pub compose_service: String,
    /// The file and the line.
    pub place: String,
    /// Why it does not follow.
    pub why: String,
    /// What makes it.
    pub cure: Cure,
}

/// What makes an image line follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// `migrate-versions --write`.
    Write,
    /// No text does with this Compose; `pin` writes each digest.
    Pin,
    /// The file is made from this one.
    Template(String),
}

impl Stray {
    /// The lines and the reasons, as one clause.
    #[must_use]
    pub fn told(strays: &[Self]) -> String {
        let each = strays.iter().map(|Self { place, compose_service, why, .. }| {
            format!("{place}, {compose_service}: {why}")
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// What to do about all of them.
    #[must_use]
    pub fn mend(strays: &[Self]) -> String {
        let template = strays.iter().find_map(|stray| match &stray.cure {
            Cure::Template(template) => Some(template),
            Cure::Write | Cure::Pin => None,
        });
        match template {
            Some(template) => format!(
                "let the lines follow versions.env in {template}, as `dkv migrate-versions` shows, \
                and make the file again"
            ),
            None if strays.iter().any(|stray| stray.cure == Cure::Pin) => {
                "Compose v1 lets no text there follow: after `dkv pull-latest`, `dkv pin` writes the \
                digest into the file, and `dkv restart` runs it"
                    .to_owned()
            }
            None => "`dkv migrate-versions --write` makes the file follow".to_owned(),
        }
    }
}

/// A deployment, as one command sees it.
pub struct Deployment<'a> {
    app: &'a App,
    record: Option<Record>,
    env: OnceLock<EnvFile>,
    files: OnceLock<Files>,
    texts: OnceLock<Arc<ComposeFiles>>,
    databases: OnceLock<BTreeSet<String>>,
    compose: OnceLock<Compose>,
    project: OnceCell<Project>,
    /// Services that ran by a profile when an unfinished update began.
    woken: BTreeSet<String>,
    view: OnceCell<DeploymentView>,
    /// Whether it was told that images are in another store than before.
    store_told: OnceLock<()>,
}

/// What a deployment consists of, for commands that only look.
#[derive(Debug)]
pub struct DeploymentView {
    /// What Compose would start; without Compose, what containers say of themselves.
    pub project: Project,
    /// Whether Compose itself described the project.
    pub is_complete: bool,
}

impl<'a> Deployment<'a> {
    /// Reads the deployment's manifest, if it has one.
    ///
    /// # Errors
    ///
    /// The manifest cannot be read or is not valid (exit 3); the message names the newest backup
    /// that is.
    pub fn open(app: &'a App) -> Result<Self> {
        let mut deployment = Self::without_manifest(app);
        if let Some(snapshot) = app.store.read_manifest()? {
            deployment.record = Some(deployment.interpret(snapshot, None)?);
        }
        Ok(deployment)
    }

    /// As [`Self::open`], for what needs no versions: without the manifest if that is not valid.
    pub fn open_leniently(app: &'a App) -> Self {
        Self::open(app).unwrap_or_else(|error| {
            app.ui.warn(format!("going on without the manifest: {error:#}"));
            Self::without_manifest(app)
        })
    }

    /// As [`Self::open`], for what is about versions.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`]; also if there is no manifest (exit 3).
    pub fn open_recorded(app: &'a App) -> Result<Self> {
        let deployment = Self::open(app)?;
        deployment.record()?;
        Ok(deployment)
    }

    fn without_manifest(app: &'a App) -> Self {
        Self {
            app,
            record: None,
            env: OnceLock::new(),
            files: OnceLock::new(),
            texts: OnceLock::new(),
            databases: OnceLock::new(),
            compose: OnceLock::new(),
            project: OnceCell::new(),
            woken: BTreeSet::new(),
            view: OnceCell::new(),
            store_told: OnceLock::new(),
        }
    }

    /// What the bytes of a manifest record. `before` has read Compose files already.
    fn interpret(&self, snapshot: Snapshot, before: Option<&Self>) -> Result<Record> {
        let store = &self.app.store;
        let name = store.manifest_path().display();
        let manifest = Manifest::read(&snapshot.bytes)
            .map_err(|error| error::state(format!("`{name}`, {error}")).with_hint(self.advice()))?;
        manifest.check_patterns().map_err(|error| {
            error::state(format!("`{name}`, {error}"))
                .with_hint("`*` stands for any characters, `?` for one: `1.4?`, `v2.*`")
        })?;
        for warning in &manifest.warnings {
            self.app.ui.warn(warning);
        }
        for warning in manifest.misspelled_keys() {
            self.app.ui.warn(format!("`{name}`, {warning}"));
        }
        self.record_of(manifest, snapshot, before)
    }

    /// The record of a manifest, with the Compose files that it names itself. What `before` has read
    /// of the same files is not read again.
    fn record_of(
        &self,
        manifest: Manifest,
        snapshot: Snapshot,
        before: Option<&Self>,
    ) -> Result<Record> {
        let same = before.filter(|before| {
            before.record.as_ref().is_some_and(|record| record.manifest.compose == manifest.compose)
        });
        let mut failed = None;
        if let Some((before, files)) = same.and_then(|before| Some((before, before.files.get()?))) {
            let _ = self.files.set(files.clone());
            if let Some(texts) = before.texts.get() {
                let _ = self.texts.set(Arc::clone(texts));
            }
        } else {
            match self.discover(Some(&manifest)) {
                Ok(files) => drop(self.files.set(files)),
                // What is wrong with the files whoever needs Compose itself will say better.
                Err(error) => failed = Some(error),
            }
        }
        let texts = if failed.is_none() { self.texts().ok() } else { None };
        let lines = texts.map_or(&[][..], |texts| texts.lines());
        let store = &self.app.store;
        let mut record = Record::new(manifest, snapshot, store.deployment_hash()?, lines)?;
        record.settle_platforms(texts.map(Arc::as_ref), |name| self.platform(name));
        record.only_by_keep_tag = store.only_by_keep_tag();
        record.settle_spoiling(texts.map(Arc::as_ref), |name| self.variable(name));
        record.unseen = match &failed {
            Some(error) if error::is_missing(error) => None,
            Some(error) => error::find(error).cloned(),
            None => texts.and_then(|texts| texts.unreadable()),
        };
        Ok(record)
    }

    /// The hint for a manifest that cannot be read.
    fn advice(&self) -> String {
        let store = &self.app.store;
        let backups = store.backups().unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            Vec::new()
        });
        match backups.into_iter().find(|path| has_services(path)) {
            Some(path) => format!(
                "mend that line; or go back to the newest readable backup, which is from before \
                the last change: cp {} {}, then `dkv generate-env`",
                path.display(),
                store.manifest_path().display()
            ),
            None => "mend that line; there is no readable backup in .version-backups".to_owned(),
        }
    }

    /// What everything works with.
    #[must_use]
    pub fn app(&self) -> &'a App {
        self.app
    }

    /// What the manifest records.
    ///
    /// # Errors
    ///
    /// There is no manifest (exit 3).
    pub fn record(&self) -> Result<&Record> {
        self.record.as_ref().ok_or_else(|| {
            let path = self.app.store.manifest_path().display();
            error::state(format!("there is no manifest `{path}`"))
                .with_hint(
                    "`dkv migrate-versions` makes one from what runs and what the Compose files \
                    say; -C names another directory",
                )
                .into()
        })
    }

    /// What the manifest records, if there is one.
    #[must_use]
    pub fn recorded(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Says, before something is pulled or started without a manifest, what that means.
    pub fn warn_of_no_manifest(&self) {
        if self.record.is_none() {
            self.app.ui.warn(format!(
                "without {} nothing is recorded, and this cannot be taken back; \
                `dkv migrate-versions` makes one",
                self.app.store.manifest_name()
            ));
        }
    }

    /// Goes on with what has been written.
    pub(crate) fn replace_record(&mut self, record: Record) {
        self.record = Some(record);
        self.env = OnceLock::new();
    }

    /// Goes on as if `services` were recorded, for a plan that is only shown.
    pub fn assume(&mut self, services: impl Iterator<Item = Service>) {
        if let Some(record) = &mut self.record {
            record.manifest.services.extend(services.map(|after| (after.name.clone(), after)));
        }
    }

    /// Goes on with these digests as those that this host's daemon knows no images by.
    pub(crate) fn name_by_keep_tag(&mut self, digests: BTreeSet<Digest>) {
        if let Some(record) = &mut self.record {
            record.only_by_keep_tag = digests;
        }
        self.env = OnceLock::new();
    }

    /// Goes on with `versions.env` as it has been written.
    pub(crate) fn forget_env(&mut self) {
        self.env = OnceLock::new();
    }

    /// What other bytes of the manifest record, which somebody has written since this was read.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`].
    pub(crate) fn interpret_again(&self, snapshot: Snapshot) -> Result<Record> {
        Self::without_manifest(self.app).interpret(snapshot, Some(self))
    }

    /// What a text that dkv itself has made records.
    ///
    /// # Errors
    ///
    /// It does not read as a manifest (exit 3).
    pub(crate) fn interpret_written(&self, snapshot: Snapshot) -> Result<Record> {
        let manifest = Manifest::read(&snapshot.bytes).map_err(|error| {
            let name = self.app.store.manifest_path().display();
            error::state(format!("`{name}`, {error}"))
        })?;
        Self::without_manifest(self.app).record_of(manifest, snapshot, Some(self))
    }

    /// The services of the manifest that are named, or all.
    ///
    /// # Errors
    ///
    /// There is no manifest (exit 3); a name that it does not have (exit 2): if it is a Compose
    /// service's, with the service that was meant.
    pub fn select(&self, names: &[ServiceName]) -> Result<Vec<&Service>> {
        let record = self.record()?;
        record.select(names).map_err(|error| {
            let unknown = names.iter().find(|name| record.manifest.find(name).is_none());
            match unknown.and_then(|name| Some((name, self.meant_by(name.as_str())?))) {
                Some((name, service)) => error
                    .with_hint(format!(
                        "`{name}` is a Compose service; in the manifest its image is `{service}`"
                    ))
                    .into(),
                None => error.into(),
            }
        })
    }

    /// The service of the manifest that a Compose service of this name speaks for.
    fn meant_by(&self, name: &str) -> Option<&ServiceName> {
        self.member(name)
            .service()
            .or_else(|| self.record.as_ref()?.members().owner(self.template(name)?))
    }

    /// The service of the manifest called `name`.
    ///
    /// # Errors
    ///
    /// As for [`Self::select`].
    pub fn find(&self, name: &ServiceName) -> Result<&Service> {
        let found = self.select(std::slice::from_ref(name))?;
        Ok(found.into_iter().next().ok_or_else(|| error::usage(format!("no service `{name}`")))?)
    }

    fn discover(&self, manifest: Option<&Manifest>) -> Result<Files> {
        let configured = compose::files::Configured {
            files: manifest.and_then(|manifest| paths(&manifest.compose.files)),
            db_files: manifest.and_then(|manifest| paths(&manifest.compose.db_files)),
            project: manifest.and_then(|manifest| manifest.compose.project.clone()),
        };
        Files::discover(self.app.store.directory(), &configured, &|name| self.app.variable(name))
    }

    /// The Compose files, as the manifest or Compose's convention has them.
    ///
    /// # Errors
    ///
    /// A configured file does not exist (exit 3).
    pub fn files(&self) -> Result<&Files> {
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        let files = self.discover(self.record.as_ref().map(|record| &record.manifest))?;
        Ok(self.files.get_or_init(|| files))
    }

    /// Goes on with these files, which the manifest to be will name.
    ///
    /// # Errors
    ///
    /// One of them does not exist (exit 3).
    pub fn use_files(&mut self, files: Vec<PathBuf>, databases: Vec<PathBuf>) -> Result<()> {
        let configured = compose::files::Configured {
            files: Some(files),
            db_files: Some(databases),
            project: None,
        };
        let directory = self.app.store.directory();
        let files = Files::discover(directory, &configured, &|name| self.app.variable(name))?;
        *self = Self { files: OnceLock::from(files), ..Self::without_manifest(self.app) };
        Ok(())
    }

    /// What the Compose files say, read without Compose. What cannot be read is among its problems.
    ///
    /// # Errors
    ///
    /// As for [`Self::files`].
    pub fn texts(&self) -> Result<&Arc<ComposeFiles>> {
        let files = self.files()?;
        Ok(self.texts.get_or_init(|| Arc::new(ComposeFiles::read(files, Generation::V2))))
    }

    /// Reads as well what looks like a Compose file beside those of the deployment.
    ///
    /// # Errors
    ///
    /// As for [`Self::files`]; the directory cannot be listed.
    pub fn read_beside(&mut self) -> Result<()> {
        self.texts()?;
        let mut texts = match self.texts.take().map(Arc::try_unwrap) {
            Some(Ok(texts)) => texts,
            _ => ComposeFiles::read(self.files()?, Generation::V2),
        };
        texts.read_beside(self.files()?)?;
        self.texts = OnceLock::from(Arc::new(texts));
        Ok(())
    }

    /// The image of a Compose service before interpolation, as far as its file can be read.
    #[must_use]
    pub fn template(&self, compose_service: &str) -> Option<&Template> {
        self.texts().ok()?.service(compose_service)?.template()
    }

    /// The Compose services that only the database files describe.
    pub fn databases(&self) -> &BTreeSet<String> {
        self.databases.get_or_init(|| {
            let Ok(files) = self.files() else { return BTreeSet::new() };
            let application = self.services_in(files.application(Generation::V2));
            self.database_services().difference(&application).cloned().collect()
        })
    }

    /// The Compose services that the database files describe, whatever others say of them.
    #[must_use]
    pub fn database_services(&self) -> BTreeSet<String> {
        self.files().map(|files| self.services_in(files.databases())).unwrap_or_default()
    }

    /// The Compose services that some of the files describe, as far as they can be read.
    fn services_in(&self, files: &[PathBuf]) -> BTreeSet<String> {
        let Ok(texts) = self.texts() else { return BTreeSet::new() };
        texts.services_of(files).into_iter().map(str::to_owned).collect()
    }

    /// Whether the deployment has database files.
    #[must_use]
    pub fn has_databases(&self) -> bool {
        self.files().is_ok_and(|files| !files.databases().is_empty())
    }

    /// All Compose services that the files describe, whether Compose would start them or not.
    pub fn described(&self) -> BTreeSet<&str> {
        let Ok(texts) = self.texts() else { return BTreeSet::new() };
        texts.services().map(|line| line.service.as_str()).collect()
    }

    /// What the daemon has of what is recorded. Tells of a store that holds none of it any more.
    ///
    /// # Errors
    ///
    /// The daemon does not answer (exit 6).
    pub async fn local_images(&self) -> Result<LocalImages> {
        let docker = self.app.docker().await?;
        if let (Some(before), Some(_)) = (self.app.store.image_store(), &self.record)
            && docker.host().await?.image_store != before
            && self.store_told.set(()).is_ok()
        {
            self.app.ui.warn(format!(
                "{}: what is not here any more is pulled by digest when it is wanted, what is \
                current by `dkv pull`",
                before.was_left()
            ));
        }
        LocalImages::look(docker, self.record.as_ref(), &self.app.store).await
    }

    /// All files: application and databases.
    #[must_use]
    pub fn all(&self) -> Set {
        if self.has_databases() { Set::All } else { Set::Application }
    }

    /// Compose for this deployment.
    ///
    /// # Errors
    ///
    /// As for [`Self::files`].
    pub fn compose(&self) -> Result<&Compose> {
        if let Some(compose) = self.compose.get() {
            return Ok(compose);
        }
        let compose = self.new_compose()?;
        Ok(self.compose.get_or_init(|| compose))
    }

    /// Lets Compose calls that change something hold `lock` for as long as they run.
    ///
    /// # Errors
    ///
    /// As for [`Self::files`]; the lock cannot be shared.
    pub fn hold(&mut self, lock: &Lock) -> Result<()> {
        self.compose = OnceLock::from(self.new_compose()?.holding(lock.share()?));
        Ok(())
    }

    fn new_compose(&self) -> Result<Compose> {
        let compose = Compose::new(self.files()?.clone(), self.app.compose_output());
        Ok(compose.knowing(Arc::clone(self.texts()?)).obeying(self.app.interruption()))
    }

    /// The one environment of every Compose call: what was decrypted, if anything was, and the
    /// recorded versions.
    ///
    /// # Errors
    ///
    /// As for [`Record::assignments`].
    pub fn environment(&self) -> Result<compose::Environment> {
        let environment = self.app.compose_environment();
        Ok(match &self.record {
            Some(record) => environment.with(record.assignments()?),
            None => environment,
        })
    }

    /// What Compose would start, application and databases. It is asked once.
    ///
    /// # Errors
    ///
    /// Compose fails (exit 6), or its files do (exit 3).
    pub async fn project(&self) -> Result<&Project> {
        self.project_within(None).await
    }

    async fn project_within(&self, patience: Option<Duration>) -> Result<&Project> {
        self.project.get_or_try_init(async || self.ask(&self.environment()?, patience).await).await
    }

    /// What Compose would start with this environment. What runs by a profile belongs to it,
    /// whether or not that profile is switched on now.
    ///
    /// # Errors
    ///
    /// As for [`Self::project`].
    pub async fn ask(
        &self,
        environment: &compose::Environment,
        patience: Option<Duration>,
    ) -> Result<Project> {
        let compose = self.compose()?;
        let project = compose.config(self.all(), environment, patience).await?;
        if compose.awake().is_some() {
            return Ok(project);
        }
        // Whoever needs the daemon will hear from it by itself.
        let Ok(docker) = self.app.docker().await else { return Ok(project) };
        let filter = ContainerFilter::project(&project.name);
        let Ok(containers) = docker.containers(&filter).await else { return Ok(project) };
        let described = self.described();
        let mut present = self.woken.clone();
        let mut services = self.woken.clone();
        for container in containers.iter().filter(|one| !one.labels.is_one_off()) {
            let Some(name) = container.labels.service() else { continue };
            let is_asleep = project.dormant.iter().any(|one| one.name == name);
            if project.service(name).is_some() || !(is_asleep || described.contains(name)) {
                continue;
            }
            present.insert(name.to_owned());
            if matches!(
                container.state,
                ContainerState::Running | ContainerState::Restarting | ContainerState::Paused
            ) {
                services.insert(name.to_owned());
            }
        }
        if present.is_empty() {
            compose.wake(Awake::default());
            return Ok(project);
        }
        let all = match project.dormant.is_empty() {
            false => project,
            true => match compose.config_of_all_profiles(self.all(), environment, patience).await {
                Ok(all) => all,
                Err(error) if error::kind(&error) == Kind::Interrupted => return Err(error),
                Err(error) => {
                    let names: Vec<&str> = present.iter().map(String::as_str).collect();
                    self.app.ui.warn(format!(
                        "{} left alone: the profiles cannot be read: {error:#}",
                        names.join(", ")
                    ));
                    compose.wake(Awake::default());
                    return Ok(project);
                }
            },
        };
        let awake = Awake {
            profiles: all.profiles_of(&services),
            present: all.profiles_of(&present),
            services,
        };
        let is_awake = |service: &ServiceConfig| awake.services.contains(&service.name);
        let woken = all.woken(is_awake);
        compose.wake(awake);
        Ok(woken)
    }

    /// The services that run by profiles that are not switched on.
    #[must_use]
    pub fn awake(&self) -> BTreeSet<String> {
        let awake = self.compose.get().and_then(Compose::awake);
        awake.map(|awake| awake.services.clone()).unwrap_or_default()
    }

    /// Goes on as if `services`, which run by a profile, still ran. To be said before Compose is
    /// asked.
    pub fn keep_awake(&mut self, services: &BTreeSet<String>) {
        self.woken.extend(services.iter().cloned());
    }

    /// When one of the files that make up the deployment was changed last.
    #[must_use]
    pub fn changed_at(&self) -> Option<DateTime<Utc>> {
        let texts = self.texts().ok()?;
        let files = texts.texts().filter(|text| texts.is_deployed(text));
        files.filter_map(|text| text.snapshot.changed_at()).max()
    }

    /// What Compose would start with other `variables`. Where dkv can show that it reads the image
    /// lines as Compose does, it need not ask again.
    ///
    /// # Errors
    ///
    /// As for [`Self::project`].
    pub async fn project_with(&self, variables: &BTreeMap<String, String>) -> Result<Project> {
        let project = self.project().await?;
        let known = self.record.as_ref().map(Record::assignments).transpose()?.unwrap_or_default();
        let known: BTreeMap<String, String> = known.into_iter().collect();
        let mut changed = project.clone();
        for service in &mut changed.services {
            let Some(template) = self.template(&service.name) else {
                if service.image.is_some() && !service.has_build {
                    return self.ask_with(variables).await;
                }
                continue;
            };
            if self.evaluate(template, &known) != service.image {
                return self.ask_with(variables).await;
            }
            service.image = self.evaluate(template, variables);
        }
        Ok(changed)
    }

    /// An image line as Compose would make it of `variables` and of what it finds beside them.
    #[must_use]
    pub fn evaluate(
        &self,
        line: &Template,
        variables: &BTreeMap<String, String>,
    ) -> Option<String> {
        line.evaluate(&|name| variables.get(name).cloned().or_else(|| self.variable(name))).ok()
    }

    async fn ask_with(&self, variables: &BTreeMap<String, String>) -> Result<Project> {
        let environment = self.app.compose_environment().with(variables.clone());
        self.ask(&environment, None).await
    }

    /// A variable as Compose finds it where no version sets it: in the environment, in what was
    /// decrypted, or in `.env`.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        self.app.variable(name).or_else(|| self.files().ok()?.dot_env(name))
    }

    /// What the Compose service `name` is to the manifest.
    #[must_use]
    pub fn member(&self, name: &str) -> Membership<'_> {
        let project = self.project.get().or_else(|| self.view.get().map(|view| &view.project));
        let image = project.and_then(|project| project.service(name)?.image.clone());
        let image = image.or_else(|| self.evaluate(self.template(name)?, &BTreeMap::new()));
        let image = image.and_then(|image| image.parse().ok());
        self.member_with(name, image.as_ref())
    }

    /// As [`Self::member`], where Compose makes `image` of the service's line.
    #[must_use]
    pub fn member_with(&self, name: &str, image: Option<&Reference>) -> Membership<'_> {
        let Some(record) = &self.record else { return Membership::Untracked };
        let platform = self.platform(name);
        record.members().find(&Use {
            name,
            line: self.template(name),
            image,
            platform: platform.as_ref(),
        })
    }

    /// The platform that a Compose service shall run on: what the files say, else what Compose
    /// takes where they say nothing.
    #[must_use]
    pub fn platform(&self, compose_service: &str) -> Option<Platform> {
        let line = self.texts().ok()?.service(compose_service)?;
        let written = line.platform.clone();
        let written = written.or_else(|| self.variable("DOCKER_DEFAULT_PLATFORM"))?;
        platform_of(&written, &|name| self.variable(name))
    }

    /// Which service of the manifest each Compose service of `project` runs; untracked ones are
    /// left out.
    #[must_use]
    pub fn tracked(&self, project: &Project) -> BTreeMap<String, &Service> {
        let Some(record) = &self.record else { return BTreeMap::new() };
        let services = project.services.iter().filter_map(|one| {
            let image = one.image.as_deref().and_then(|image| image.parse().ok());
            let service = self.member_with(&one.name, image.as_ref()).service()?;
            Some((one.name.clone(), record.service(service)?))
        });
        services.collect()
    }

    /// The Compose services that run one of the services called `names`.
    fn members_of(&self, names: &[&str]) -> Vec<&str> {
        let mut members = Vec::from_iter(self.described());
        members.retain(|name| {
            let service = self.member(name).service();
            service.is_some_and(|service| names.contains(&service.as_str()))
        });
        members
    }

    /// Whether the image line of a member takes its version from none of the service's variables.
    fn is_astray(&self, compose_service: &str, member: &Member<'_>) -> bool {
        let Some(record) = &self.record else { return false };
        match (self.template(compose_service), record.service(member.service)) {
            (Some(line), Some(service)) => !record.is_followed_by(service, line),
            _ => member.is_literal,
        }
    }

    /// Whether the image line of a member has the digest that is recorded written out.
    fn says_record(&self, compose_service: &str, member: &Member<'_>) -> bool {
        let image = self.template(compose_service).and_then(|line| {
            let image = self.evaluate(line, &BTreeMap::new())?;
            image.parse::<Reference>().ok()?.digest
        });
        let service = self.record.as_ref().and_then(|record| record.service(member.service));
        let current = service.and_then(Service::current);
        current.zip(image).is_some_and(|(current, digest)| current.bytes.has_digest(&digest))
    }

    /// Who asks registries about the services of the manifest.
    #[must_use]
    pub fn lookup(&self, platform: Option<Platform>) -> Lookup {
        let ecr = self.record.as_ref().and_then(|record| record.manifest.ecr.clone());
        let has_aws_credentials = self.app.environment.has_aws_credentials();
        Lookup::new(self.app.registry().clone(), ecr, has_aws_credentials, platform)
    }

    /// Why the image line of a Compose service does not follow what is recorded, and what makes it.
    #[must_use]
    pub fn stray(&self, compose_service: &str) -> Option<Stray> {
        let (record, texts) = (self.record.as_ref()?, self.texts().ok()?);
        let service = record.service(self.member(compose_service).service()?)?;
        let site = texts.service(compose_service)?.image.as_ref()?;
        let variables = image_line::variables_in(&site.image);
        let is_led = site.template.as_ref().is_some_and(|one| record.is_followed_by(service, one));
        let own = image_line::own(&record.manifest.env.prefix, &service.name);
        let others: Vec<&str> = variables
            .iter()
            .map(String::as_str)
            .filter(|name| !own.iter().any(|own| own == name))
            .collect();
        let why = if is_led {
            match others.is_empty() {
                true => "Compose makes something else of it".to_owned(),
                false => format!("{} decides over versions.env", others.join(", ")),
            }
        } else if others.is_empty() {
            "its version is written out".to_owned()
        } else {
            let spoiling = others.iter().find_map(|name| record.spoilt_by(name));
            let spoiling = spoiling.filter(|one| one.compose_service != compose_service);
            let why = spoiling.map_or_else(String::new, |one| format!(": {}", one.in_words()));
            format!("its image has {}, which versions.env does not set{why}", others.join(", "))
        };
        let v1_cannot = || {
            let generation = self.compose.get().and_then(Compose::known_generation);
            let now = self.evaluate(site.template.as_ref()?, &BTreeMap::new())?.parse().ok()?;
            let new = image_line::following(Some(&site.image), &now, &own, false);
            Some(generation == Some(Generation::V1) && new.is_err())
        };
        let cure = match texts.template_of(&site.file) {
            Some(template) => Cure::Template(template.to_owned()),
            None if v1_cannot().unwrap_or(false) => Cure::Pin,
            None => Cure::Write,
        };
        let compose_service = compose_service.to_owned();
        Some(Stray { compose_service, place: site.place(), why, cure })
    }

    /// The strays among Compose services.
    #[must_use]
    pub fn strays(&self, names: &[&str]) -> Vec<Stray> {
        names.iter().filter_map(|name| self.stray(name)).collect()
    }

    /// What makes a new record of the services called `names` run, for the end of a command's
    /// report. Compose services whose files give them an image of their own would go on with that.
    #[must_use]
    pub fn how_to_start<'n>(&self, names: impl Iterator<Item = &'n str>) -> String {
        let members = self.members_of(&names.collect::<Vec<_>>());
        self.how_to_lead(&members).unwrap_or_else(|| "`dkv restart` puts it into effect".to_owned())
    }

    /// What makes the record run where the image lines of the Compose services called `names` do not
    /// follow it; none where they do.
    #[must_use]
    pub fn how_to_lead(&self, names: &[&str]) -> Option<String> {
        let is_literal = |name: &&str| match self.member(name) {
            Membership::Of(member) => {
                self.is_astray(name, &member) && !self.says_record(name, &member)
            }
            Membership::Ambiguous(_) | Membership::Other(_) | Membership::Untracked => false,
        };
        let literal: Vec<&str> = names.iter().copied().filter(is_literal).collect();
        if literal.is_empty() {
            return None;
        }
        let strays = self.strays(&literal);
        let lines = match strays.is_empty() {
            true => String::new(),
            false => format!(": {}", Stray::told(&strays)),
        };
        let follow = match strays.iter().all(|stray| stray.cure == Cure::Write) {
            true => " (`dkv migrate-versions --write` makes it follow)",
            false => "",
        };
        Some(format!(
            "`dkv pin` and then `dkv restart` put it into effect: the Compose files give {} an \
            image that does not follow versions.env{follow}{lines}",
            literal.join(", ")
        ))
    }

    /// What belongs to the deployment, for commands that only look. Where Compose is not installed
    /// or refuses its files, the labels of containers tell most of it.
    ///
    /// # Errors
    ///
    /// There is neither a Compose file nor a container (exit 3); the daemon does not answer (exit
    /// 6).
    pub async fn view(&self) -> Result<&DeploymentView> {
        self.view.get_or_try_init(|| self.new_view()).await
    }

    async fn new_view(&self) -> Result<DeploymentView> {
        let files = self.files()?;
        // Both are asked at once: the daemon's refusal matters more than what Compose makes of it.
        let (described, docker) =
            tokio::join!(self.project_within(Some(COMPOSE_PATIENCE)), self.app.docker());
        let docker = docker?;
        let error = match described {
            Ok(project) => {
                return Ok(DeploymentView { project: project.clone(), is_complete: true });
            }
            Err(error) if error::kind(&error) == Kind::Interrupted => return Err(error),
            Err(error) => error,
        };
        let project = labels::project(docker, self.app.store.directory(), files).await?;
        if project.services.is_empty() && files.all(Generation::V2).is_empty() {
            return Err(error);
        }
        self.app.ui.warn(format!(
            "showing what containers say about themselves, because Compose cannot be asked: \
            {error:#}"
        ));
        Ok(DeploymentView { project, is_complete: false })
    }

    /// The name of the project that the containers of this directory have, if any of `containers`
    /// is one: what Compose called it when it made them.
    ///
    /// # Errors
    ///
    /// As for [`Self::files`].
    pub fn project_of_containers(&self, containers: &[Container]) -> Result<Option<String>> {
        Ok(labels::project_name(containers, self.app.store.directory(), self.files()?))
    }

    /// `versions.env` as it is, against what it should be. Read once.
    ///
    /// # Errors
    ///
    /// There is no manifest, or the file cannot be read (exit 3).
    pub fn env(&self) -> Result<&EnvFile> {
        if let Some(env) = self.env.get() {
            return Ok(env);
        }
        let env = EnvFile::read(self.record()?, &self.app.store)?;
        Ok(self.env.get_or_init(|| env))
    }
}

impl DeploymentView {
    /// The project's containers.
    #[must_use]
    pub fn filter(&self) -> ContainerFilter {
        ContainerFilter::project(&self.project.name)
    }
}

/// The platform that a Compose file means by `written`; none where it says none, or no proper one,
/// which Compose will refuse itself.
fn platform_of(written: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Option<Platform> {
    Template::parse(written).ok()?.evaluate(lookup).ok()?.parse().ok()
}

/// Whether a backup can be read as a manifest that says something.
fn has_services(backup: &Path) -> bool {
    let found = store::read(backup).ok().flatten();
    let manifest = found.and_then(|found| Manifest::read(&found.bytes).ok());
    manifest.is_some_and(|manifest| !manifest.services.is_empty())
}

/// The files that a list of the manifest names; none where it names none.
fn paths(list: &[String]) -> Option<Vec<PathBuf>> {
    (!list.is_empty()).then(|| list.iter().map(Into::into).collect())
}
