//! What every command works with: the deployment's files, the daemon, the registries, the terminal.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::cli::{Environment, Settings};
use crate::compose::{self, Compose, Files, Generation};
use crate::deployment::{self, Deployment, ImageText, Moment};
use crate::docker::{self, Docker};
use crate::error;
use crate::images::Fetcher;
use crate::interruption::Interruption;
use crate::lookup::Lookup;
use crate::model::manifest::Service;
use crate::model::reference::{Platform, ServiceName};
use crate::plan::{self, Stamp, Step};
use crate::registry;
use crate::report;
use crate::secrets::{self, Secrets};
use crate::store::{LockWait, Store};
use crate::ui::Ui;

/// The manifest's name where `--manifest` gives no other.
const MANIFEST_NAME: &str = "version-manifest.yaml";

/// How a command ended when it did not fail: the exit code says more than "done" where that was
/// asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything is done.
    Done,
    /// There are updates, or there is drift, and the exit code was to tell.
    Different,
    /// Some services are done, others failed or are unknown.
    Partial,
    /// Nothing could be found out, as the report says.
    Unknown,
    /// Ctrl-C ended what goes on until then.
    Interrupted,
}

impl Exit {
    /// The process exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Different => error::Kind::Different.exit_code(),
            Self::Partial => error::Kind::Partial.exit_code(),
            Self::Unknown => error::Kind::Registry.exit_code(),
            Self::Interrupted => error::Kind::Interrupted.exit_code(),
        }
    }
}

/// What every command works with. Connections are made when the first command needs them.
pub struct App {
    /// Flags and defaults, as values.
    pub settings: Settings,
    /// The environment, read once.
    pub environment: Environment,
    /// The terminal.
    pub ui: Ui,
    /// The deployment's files.
    pub store: Store,
    /// The moment at which this run began.
    pub now: DateTime<Utc>,
    /// The command's name, for locks and JSON.
    pub command: String,
    docker: OnceCell<Docker>,
    registry: std::sync::OnceLock<registry::Client>,
    secrets: OnceCell<Secrets>,
    has_recorded: AtomicBool,
    has_touched_containers: AtomicBool,
}

impl App {
    /// An app for one run of `command`.
    #[must_use]
    pub fn new(
        settings: Settings,
        environment: Environment,
        ui: Ui,
        now: DateTime<Utc>,
        command: String,
    ) -> Self {
        let manifest =
            settings.manifest.clone().unwrap_or_else(|| settings.directory.join(MANIFEST_NAME));
        let store = Store::new(settings.directory.clone(), manifest);
        Self {
            settings,
            environment,
            ui,
            store,
            now,
            command,
            docker: OnceCell::new(),
            registry: std::sync::OnceLock::new(),
            secrets: OnceCell::new(),
            has_recorded: AtomicBool::new(false),
            has_touched_containers: AtomicBool::new(false),
        }
    }

    /// Whether Ctrl-C or SIGTERM asked this run to stop. Most commands are simply given up then;
    /// those with safe points of their own ask here.
    #[must_use]
    pub fn interruption(&self) -> &Interruption {
        self.ui.interruption()
    }

    /// The failure of a command that was given up, with the state that it left.
    #[must_use]
    pub fn interrupted(&self) -> error::Error {
        let recorded = match self.has_recorded.load(Ordering::SeqCst) {
            true => "what was done is recorded",
            false => "nothing was recorded",
        };
        if self.has_touched_containers.load(Ordering::SeqCst) {
            return error::Error::new(
                error::Kind::Interrupted,
                format!("interrupted; {recorded}; containers stay as they are now"),
            )
            .with_hint("`dkv status` shows what runs");
        }
        error::Error::new(error::Kind::Interrupted, format!("interrupted; {recorded}"))
    }

    /// Notes that containers are about to be started or stopped, for [`Self::interrupted`].
    pub fn touch_containers(&self) {
        self.has_touched_containers.store(true, Ordering::SeqCst);
    }

    /// When and by whom changes are recorded.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            at: self.now.to_rfc3339_opts(SecondsFormat::Secs, true),
            by: self.settings.user.clone().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// The daemon, connected once.
    ///
    /// # Errors
    ///
    /// There is none, or this user may not talk to it (exit 6).
    pub async fn docker(&self) -> Result<&Docker> {
        self.docker
            .get_or_try_init(|| async {
                let environment = &self.environment;
                let endpoint = docker::Endpoint::resolve(&docker::Settings {
                    host: environment.docker_host(),
                    context: environment.docker_context(),
                    tls_verify: environment.text("DOCKER_TLS_VERIFY"),
                    cert_path: environment.docker_cert_path(),
                    api_version: environment.docker_api_version(),
                    config_dir: environment.docker_config().unwrap_or_default(),
                })?;
                Docker::connect(endpoint, docker::Deadlines::default()).await
            })
            .await
    }

    /// The registries.
    #[must_use]
    pub fn registry(&self) -> &registry::Client {
        self.registry.get_or_init(|| {
            registry::Client::new(registry::Settings {
                docker_config: self.environment.docker_config(),
                home: self.environment.home(),
                search_path: self.environment.value("PATH").map(ToOwned::to_owned),
                ca_file: self.environment.ssl_cert_file(),
                ..registry::Settings::default()
            })
        })
    }

    /// Who asks registries about the services of `deployment`.
    #[must_use]
    pub fn lookup(&self, deployment: &Deployment, platform: Option<Platform>) -> Lookup {
        let ecr = deployment.manifest.ecr.clone();
        Lookup::new(self.registry().clone(), ecr, self.environment.has_aws_credentials(), platform)
    }

    /// What fetching images takes.
    ///
    /// # Errors
    ///
    /// As for [`Self::docker`].
    pub async fn fetcher(&self) -> Result<Fetcher> {
        Ok(Fetcher {
            docker: self.docker().await?.clone(),
            registry: self.registry().clone(),
            ui: self.ui.clone(),
            jobs: self.settings.jobs.get(),
        })
    }

    /// The deployment, if it has a manifest.
    ///
    /// # Errors
    ///
    /// The manifest cannot be read or is not valid (exit 3).
    pub fn load(&self) -> Result<Option<Deployment>> {
        Deployment::load(&self.store, || self.image_texts())
    }

    /// The deployment's manifest.
    ///
    /// # Errors
    ///
    /// There is none, or it is not valid (exit 3).
    pub fn require_manifest(&self) -> Result<Deployment> {
        let missing = || {
            let path = self.store.manifest_path().display();
            error::state(format!("there is no manifest `{path}`")).with_hint(
                "`dkv migrate-versions` makes one from what runs and what the Compose files say; \
                    -C names another directory",
            )
        };
        Ok(self.load()?.ok_or_else(missing)?)
    }

    /// The services named, or all, as [`plan::select`] finds them.
    ///
    /// # Errors
    ///
    /// A name that the manifest does not have (exit 2); if it is a Compose service's, with the
    /// service that was meant.
    pub fn select<'a>(
        &self,
        deployment: &'a Deployment,
        names: &[ServiceName],
    ) -> Result<Vec<&'a Service>, error::Error> {
        plan::select(&deployment.manifest, names)
            .map_err(|error| self.name_compose_service(deployment, names, error))
    }

    /// The service called `name`, as [`plan::find`] finds it.
    ///
    /// # Errors
    ///
    /// As for [`Self::select`].
    pub fn find<'a>(
        &self,
        deployment: &'a Deployment,
        name: &ServiceName,
    ) -> Result<&'a Service, error::Error> {
        let names = std::slice::from_ref(name);
        plan::find(&deployment.manifest, name)
            .map_err(|error| self.name_compose_service(deployment, names, error))
    }

    /// Whoever types a Compose service's name is told which service of the manifest its image is.
    fn name_compose_service(
        &self,
        deployment: &Deployment,
        names: &[ServiceName],
        error: error::Error,
    ) -> error::Error {
        let Some(unknown) = names.iter().find(|name| deployment.manifest.find(name).is_none())
        else {
            return error;
        };
        match deployment.service_behind(unknown.as_str(), &self.image_texts()) {
            Some(service) => error.with_hint(format!(
                "`{unknown}` is a Compose service; in the manifest its image is `{}`",
                service.name
            )),
            None => error,
        }
    }

    /// Decrypts the deployment's environment if it is there only encrypted; once, however often it
    /// is called. What starts or builds does so before anything stops.
    ///
    /// # Errors
    ///
    /// It cannot be decrypted (exit 3).
    pub async fn decrypt(&self) -> Result<()> {
        let decrypt = || async {
            let directory = self.store.directory();
            if !secrets::is_encrypted(directory) {
                return Ok(Secrets::default());
            }
            secrets::decrypt(directory, &|name| self.environment.text(name)).await
        };
        self.secrets.get_or_try_init(decrypt).await.map(drop)
    }

    /// What Compose's environment has before any version: what was decrypted, if anything was.
    #[must_use]
    pub fn compose_environment(&self) -> compose::Environment {
        let secrets = self.secrets.get().into_iter().flat_map(Secrets::iter);
        compose::Environment::default().with_secrets(secrets)
    }

    /// The Compose files, as the manifest or Compose's convention has them.
    ///
    /// # Errors
    ///
    /// A configured file does not exist (exit 3).
    pub fn compose_files(&self, deployment: Option<&Deployment>) -> Result<Files> {
        let configured = deployment.map(|deployment| &deployment.manifest.compose);
        let paths = |list: &Vec<String>| {
            (!list.is_empty()).then(|| list.iter().map(PathBuf::from).collect())
        };
        let configured = compose::files::Configured {
            files: configured.and_then(|compose| paths(&compose.files)),
            db_files: configured.and_then(|compose| paths(&compose.db_files)),
        };
        let secret = |name: &str| self.secrets.get()?.get(name).map(ToOwned::to_owned);
        Files::discover(self.store.directory(), &configured, &|name| {
            self.environment.text(name).or_else(|| secret(name))
        })
    }

    /// Compose for this deployment.
    ///
    /// # Errors
    ///
    /// As for [`Self::compose_files`].
    pub fn compose(&self, deployment: Option<&Deployment>) -> Result<Compose> {
        let output = if self.settings.ui.quiet {
            compose::Output::Capture
        } else {
            compose::Output::Inherit
        };
        Ok(Compose::new(self.compose_files(deployment)?, output))
    }

    /// The image lines of the Compose files; empty if there are none or they cannot be read, which
    /// whoever needs Compose itself will say better.
    #[must_use]
    pub fn image_texts(&self) -> Vec<ImageText> {
        self.image_texts_of(None)
    }

    fn image_texts_of(&self, deployment: Option<&Deployment>) -> Vec<ImageText> {
        let Ok(files) = self.compose_files(deployment) else { return Vec::new() };
        let lines =
            compose::lines::read(files.directory(), &files.all(Generation::V2)).unwrap_or_default();
        lines
            .into_iter()
            .filter_map(|line| Some(ImageText { service: line.service, image: line.image? }))
            .collect()
    }

    /// What makes a new record of the services called `names` run, for the end of a command's
    /// report. Compose services whose files give them an image of their own would go on with that.
    #[must_use]
    pub fn how_to_start<'n>(
        &self,
        deployment: &Deployment,
        names: impl Iterator<Item = &'n str>,
    ) -> String {
        let names: Vec<&str> = names.collect();
        let deaf = deployment.deaf(&names, &self.image_texts_of(Some(deployment)));
        if deaf.is_empty() {
            return "`dkv restart` puts it into effect".to_owned();
        }
        format!(
            "`dkv pin` and then `dkv restart` put it into effect: the Compose files give {} an \
                image that does not follow \
             versions.env (`dkv migrate-versions --write` makes it follow)",
            deaf.join(", ")
        )
    }

    /// Runs `action` with what a commit needs to know.
    ///
    /// # Errors
    ///
    /// Those of `action`.
    pub fn with_moment<T>(&self, action: impl FnOnce(&Moment<'_>) -> Result<T>) -> Result<T> {
        let purpose = format!("dkv {}", self.command);
        let on_wait = |holder: &str| {
            self.ui.status(format!("Waiting for {holder} to let go of this deployment"))
        };
        let moment = Moment {
            now: self.now.with_timezone(&Local),
            wait: LockWait {
                timeout: self.settings.lock_timeout,
                purpose: &purpose,
                on_wait: &on_wait,
                is_interrupted: &|| self.interruption().is_raised(),
            },
        };
        action(&moment)
    }

    /// Records `steps`, or only refreshes `versions.env` if none of them is a change.
    ///
    /// # Errors
    ///
    /// As for [`deployment::commit`].
    pub fn commit(&self, planned: &Deployment, steps: &[Step]) -> Result<report::Files> {
        let files = self.with_moment(|moment| {
            deployment::commit(&self.store, planned, steps, moment, || self.image_texts())
        })?;
        self.has_recorded.fetch_or(files.manifest_written, Ordering::SeqCst);
        self.tell_about_env(&files);
        Ok(files)
    }

    /// Brings `versions.env` to what the manifest says.
    ///
    /// # Errors
    ///
    /// As for [`deployment::refresh_env`].
    pub fn refresh_env(&self) -> Result<report::Files> {
        let files = self.with_moment(|moment| {
            deployment::refresh_env(&self.store, moment, || self.image_texts())
        })?;
        self.tell_about_env(&files);
        Ok(files)
    }

    /// Says where the old content of an edited `versions.env` is.
    pub fn tell_about_env(&self, files: &report::Files) {
        if let Some(saved) = &files.env_backup {
            self.ui.warn(format!(
                "versions.env had been edited by hand or by another tool; its \
                old content is in {saved}"
            ));
        }
    }

    /// Takes the lock for what starts and stops containers.
    ///
    /// # Errors
    ///
    /// Another dkv holds it (exit 4).
    pub fn lock_operation(&self) -> Result<crate::store::Lock> {
        self.with_moment(|moment| self.store.lock_operation(&moment.wait))
    }

    /// Prints a report: as JSON, or as `text` says.
    ///
    /// # Errors
    ///
    /// The report has no JSON form.
    pub fn show<T: Serialize>(&self, report: &T, text: impl FnOnce(&T)) -> Result<()> {
        if self.settings.json {
            return self.ui.json(&report::Document::new(&self.command, report));
        }
        text(report);
        Ok(())
    }
}
