//! What every command works with: the deployment's files, the daemon, the registries, the terminal.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use chrono::{DateTime, Local, SecondsFormat, Utc};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::cli::{Environment, Settings};
use crate::compose;
use crate::docker::{self, Connection, Docker};
use crate::error;
use crate::images::Fetcher;
use crate::interruption::Interruption;
use crate::plan::Stamp;
use crate::registry;
use crate::report;
use crate::secrets::{self, Secrets};
use crate::store::{Lock, LockWait, Store};
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
    /// Nothing is known to be wrong, but the daemon or Compose could not be asked about all of it.
    Unseen,
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
            Self::Unseen => error::Kind::Docker.exit_code(),
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
    docker: Arc<Connection>,
    registry: std::sync::OnceLock<registry::Client>,
    secrets: OnceCell<Secrets>,
    has_recorded: AtomicBool,
    /// The number of the last operation that this run has recorded; 0 before that.
    operation: AtomicU64,
    progress: Mutex<Progress>,
}

/// How far a command has come with containers.
#[derive(Debug, Clone, Default)]
enum Progress {
    /// It has touched none.
    #[default]
    None,
    /// It has touched some.
    Touched,
    /// It is at a step, and these are left.
    Step(&'static str, Vec<&'static str>),
    /// It is through, which is so much.
    Through(&'static str),
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
            docker: Arc::new(Connection::to(docker_settings(&environment))),
            settings,
            environment,
            ui,
            store,
            now,
            command,
            registry: std::sync::OnceLock::new(),
            secrets: OnceCell::new(),
            has_recorded: AtomicBool::new(false),
            operation: AtomicU64::new(0),
            progress: Mutex::default(),
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
        let interrupted = |message: String| error::Error::new(error::Kind::Interrupted, message);
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        const STAY: &str = "containers stay as they are now";
        match progress {
            Progress::None => return interrupted(format!("interrupted; {recorded}")),
            Progress::Touched => interrupted(format!("interrupted; {recorded}; {STAY}")),
            Progress::Step(name, left) => {
                let left = match left.as_slice() {
                    [] => String::new(),
                    left => format!(", {} is left to do", left.join(" and ")),
                };
                interrupted(format!("interrupted in {name}{left}; {recorded}; {STAY}"))
            }
            Progress::Through(what) => interrupted(format!("interrupted; {recorded}; {what}")),
        }
        .with_hint("`dkv status` shows what runs")
    }

    /// Notes that containers are about to be started or stopped, for [`Self::interrupted`].
    pub fn touch_containers(&self) {
        self.progress_to(Progress::Touched);
    }

    /// Notes that a step begins which has to come to its end, and all that are `left` after it: from
    /// now on only a second request to stop counts. Half of them would leave half a deployment.
    pub fn begin_step(&self, name: &'static str, left: Vec<&'static str>) {
        self.progress_to(Progress::Step(name, left));
        self.interruption().tolerate_first();
    }

    /// Notes that all steps are done, and what that makes.
    pub fn end_steps(&self, what: &'static str) {
        self.progress_to(Progress::Through(what));
    }

    fn progress_to(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
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
        self.docker.docker().await
    }

    /// The registries. For names on Docker Hub a daemon on this host is asked for its mirrors.
    #[must_use]
    pub fn registry(&self) -> &registry::Client {
        self.registry.get_or_init(|| {
            let settings = registry::Settings {
                docker_config: self.environment.docker_config(),
                home: self.environment.home(),
                search_path: self.environment.value("PATH").map(ToOwned::to_owned),
                ca_file: self.environment.ssl_cert_file(),
                total_timeout: self.settings.registry_timeout,
                ..registry::Settings::default()
            };
            let daemon = Arc::clone(&self.docker);
            let find = move || {
                let daemon = Arc::clone(&daemon);
                async move { daemon.mirrors().await }.boxed()
            };
            registry::Client::with_mirrors(settings, Box::new(find))
        })
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
            store: self.store.clone(),
        })
    }

    /// Decrypts the deployment's environment if it is there only encrypted; once, however often it
    /// is called. What starts or builds does so before anything stops.
    ///
    /// # Errors
    ///
    /// It cannot be decrypted (exit 3).
    pub async fn decrypt(&self) -> Result<()> {
        self.secrets.get_or_try_init(|| self.decrypted()).await.map(drop)
    }

    async fn decrypted(&self) -> Result<Secrets> {
        let directory = self.store.directory();
        if !secrets::is_encrypted(directory)? {
            return Ok(Secrets::default());
        }
        secrets::decrypt(directory, &|name| self.environment.text(name)).await
    }

    /// What Compose's environment has before any version: what was decrypted, if anything was.
    #[must_use]
    pub fn compose_environment(&self) -> compose::Environment {
        let secrets = self.secrets.get().into_iter().flat_map(Secrets::iter);
        compose::Environment::default().with_secrets(secrets)
    }

    /// A variable of the environment, or of what was decrypted.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        self.environment.text(name).or_else(|| self.secrets.get()?.get(name).map(ToOwned::to_owned))
    }

    /// Where the output of Compose goes.
    #[must_use]
    pub fn compose_output(&self) -> compose::Output {
        if self.settings.ui.quiet { compose::Output::Capture } else { compose::Output::Inherit }
    }

    /// Takes the lock for what reads the record and writes it.
    ///
    /// # Errors
    ///
    /// Another dkv holds it (exit 4).
    pub fn lock_state(&self) -> Result<Lock> {
        self.lock_state_of(&self.store)
    }

    /// As [`Self::lock_state`], for the files of another directory.
    ///
    /// # Errors
    ///
    /// As for [`Self::lock_state`].
    pub fn lock_state_of(&self, store: &Store) -> Result<Lock> {
        self.waiting(|wait| store.lock_state(wait))
    }

    /// Takes the lock for what starts and stops containers.
    ///
    /// # Errors
    ///
    /// Another dkv holds it (exit 4).
    pub fn lock_operation(&self) -> Result<Lock> {
        self.waiting(|wait| self.store.lock_operation(wait))
    }

    /// Runs `lock` with what waiting for another dkv takes.
    fn waiting(&self, lock: impl FnOnce(&LockWait<'_>) -> Result<Lock>) -> Result<Lock> {
        let purpose = format!("dkv {}", self.command);
        lock(&LockWait {
            timeout: self.settings.lock_timeout,
            purpose: &purpose,
            on_wait: &|holder| {
                self.ui.status(format!("Waiting for {holder} to let go of this deployment"));
            },
            is_interrupted: &|| self.interruption().is_raised(),
        })
    }

    /// What names of backups end with: the local time.
    #[must_use]
    pub fn backup_stamp(&self) -> String {
        self.now.with_timezone(&Local).format("%Y%m%d%H%M%S").to_string()
    }

    /// Notes what has been written, for [`Self::interrupted`] and for the user.
    pub fn note_recorded(&self, files: &report::Files) {
        self.has_recorded.fetch_or(files.manifest_written, Ordering::SeqCst);
        if let Some(saved) = &files.env_backup {
            self.ui.warn(format!(
                "versions.env had been edited by hand or by another tool; its old content is in \
                {saved}"
            ));
        }
    }

    /// Notes the number of an operation that this run records.
    pub fn note_operation(&self, id: u64) {
        self.operation.store(id, Ordering::SeqCst);
    }

    /// The number of the operation that this run has recorded last, if it has recorded any.
    #[must_use]
    pub fn operation(&self) -> Option<u64> {
        Some(self.operation.load(Ordering::SeqCst)).filter(|id| *id > 0)
    }

    /// Prints a report: as JSON, or as `text` says.
    ///
    /// # Errors
    ///
    /// The report has no JSON form.
    pub fn show<T: Serialize>(&self, report: &T, text: impl FnOnce(&T)) -> Result<()> {
        if self.settings.json {
            return self.ui.json(&self.document(report));
        }
        text(report);
        Ok(())
    }

    /// The JSON document of a report.
    pub fn document<'r, T>(&'r self, report: &'r T) -> report::Document<'r, T> {
        report::Document::new(&self.command, report, self.ui.warnings())
    }
}

/// Which daemon the user means.
fn docker_settings(environment: &Environment) -> docker::Settings {
    docker::Settings {
        host: environment.docker_host(),
        context: environment.docker_context(),
        tls_verify: environment.text("DOCKER_TLS_VERIFY"),
        cert_path: environment.docker_cert_path(),
        api_version: environment.docker_api_version(),
        config_dir: environment.docker_config().unwrap_or_default(),
    }
}
