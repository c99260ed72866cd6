//! The one place that starts Compose.
//!
//! # One project
//! Compose takes the project's name from `COMPOSE_PROJECT_NAME`, else from a top-level `name:` (v2
//! only; v1 refuses such a file), else from the directory. A `name:` that only the application file
//! has would not be seen by a call about the database files, which would start them in a project
//! and network of their own. So when a file has a `name:` and the call names files, the name that
//! the application has for Compose is passed with `-p`. Database files that name another project
//! are refused: either choice would start second databases beside the running ones, with empty
//! volumes.
//!
//! # Signals
//! Compose has a process group of its own, which neither Ctrl-C nor the end of a terminal reaches:
//! whether it may be stopped is for the command to say. Once the command has been asked to stop for
//! good it is ended, and the call ends as [`Kind::Interrupted`]; a call that [`is_running`] is waited
//! for. With [`Compose::run_within`] only a second request counts, whatever the command tolerates.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Signal as EndSignal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::argv::{self, Action, Generation, Selection, Set, Up};
use super::config::{self, Awake, Project};
use super::files::Files;
use super::passed::Passed;
use super::texts::ComposeFiles;
use crate::error::{self, Error, Kind};
use crate::interruption::Interruption;
use crate::process::Group;

/// How long a call that took too long may take to end when it is asked to.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How long Compose may take to say which version it is.
const DETECTION_LIMIT: Duration = Duration::from_secs(30);

/// How long Compose may take to read its files, which may include some from elsewhere.
const CONFIG_LIMIT: Duration = Duration::from_secs(120);

/// How many bytes of a failed call's messages go into the error.
const TAIL: usize = 2048;

/// How many calls that change something are under way.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Whether Compose is changing something: whoever gives such a call up leaves it to run unseen.
#[must_use]
pub fn is_running() -> bool {
    RUNNING.load(Ordering::SeqCst) > 0
}

/// A call that changes something, from before it begins until it has ended.
struct Running;

impl Running {
    fn begin() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where Compose's own output goes; never to dkv's stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// To dkv's stderr, which keeps Compose's live display on a terminal.
    Inherit,
    /// Nowhere, unless the call fails: then its last lines are in the error.
    Capture,
}

/// What Compose's environment has that dkv's own does not, and the other way round.
#[derive(Clone, Default)]
pub struct Environment {
    set: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl Environment {
    /// The environment with `variables` set; they override inherited ones, `.env` and secrets.
    #[must_use]
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.set.extend(variables);
        self
    }

    /// The environment with `variables` that no message may show, such as those of a decrypted
    /// `.env`. Over such a file an inherited variable of the same name would win: leave it out
    /// here.
    #[must_use]
    pub fn with_secrets(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.secrets.extend(variables);
        self
    }

    /// What is set, apart from secrets.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.set
    }

    /// Gives it to a child.
    pub fn apply(&self, command: &mut Command) {
        command.envs(&self.secrets).envs(&self.set);
        // The two sets of files are one project: each would report the other's containers as
        // orphans.
        command.env("COMPOSE_IGNORE_ORPHANS", "1");
    }

    /// The text without secret values. Very short ones are not looked for: they would blank out
    /// words.
    fn redact(&self, text: String) -> String {
        let secrets = self.secrets.values().filter(|secret| secret.len() >= 4);
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), "***"))
    }
}

/// Shows names only.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("set", &self.set.keys())
            .field("secrets", &self.secrets.keys())
            .finish()
    }
}

/// A Compose program that was found to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    program: &'static [&'static str],
    /// Which of the two it is.
    pub generation: Generation,
    /// Its version, such as `2.40.3`.
    pub version: String,
}

impl Tool {
    /// Whether its `up` can be told what to pull: Compose 2.6 and newer.
    fn can_choose_pull(&self) -> bool {
        let mut parts = self.version.split(['.', '-']).map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next().flatten(), parts.next().flatten());
        self.generation == Generation::V2
            && (major.is_some_and(|major| major > 2) || minor.is_some_and(|minor| minor >= 6))
    }

    /// Finds Compose: the plugin of the docker command, else `docker-compose` of either generation.
    ///
    /// # Errors
    /// Neither runs (exit 6).
    pub async fn detect(environment: &Environment) -> Result<Self> {
        #[cfg(test)]
        if crate::simulation::is_under_way() {
            let version = "2.40.3".to_owned();
            return Ok(Self {
                program: &["docker", "compose"],
                generation: Generation::V2,
                version,
            });
        }
        const PROGRAMS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        for program in PROGRAMS {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]).arg("version").stdin(Stdio::null()).kill_on_drop(true);
            environment.apply(&mut command);
            let Ok(output) = tokio::time::timeout(DETECTION_LIMIT, command.output()).await else {
                let message = format!(
                    "`{} version` gives no answer within {} s",
                    program.join(" "),
                    DETECTION_LIMIT.as_secs()
                );
                return Err(error::docker(message)
                    .with_hint("run it by hand to see what it waits for")
                    .into());
            };
            let output = match output {
                Ok(output) => output,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::PermissionDenied
                    ) =>
                {
                    continue;
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot run `{}`", program.join(" ")));
                }
            };
            let text = String::from_utf8_lossy(&output.stdout);
            if let Some((generation, version)) =
                parse_version(&text).filter(|_| output.status.success())
            {
                tracing::debug!("using `{}` {version}", program.join(" "));
                return Ok(Self { program, generation, version });
            }
        }
        Err(error::docker(
            "Docker Compose is not installed: neither `docker compose` nor \
            `docker-compose` runs",
        )
        .with_hint(
            "install the Compose plugin (package docker-compose-plugin or \
                docker-compose-v2), or docker-compose",
        )
        .into())
    }
}

/// The generation and version in what `version` prints: `Docker Compose version v2.40.3`, or
/// `docker-compose version 1.29.2, build unknown` and further lines.
fn parse_version(text: &str) -> Option<(Generation, String)> {
    let line = text.lines().next()?;
    let (name, version) = line.split_once(" version ")?;
    if !matches!(name, "Docker Compose" | "docker-compose") {
        return None;
    }
    let version = version.split([',', ' ']).next()?;
    let version = version.strip_prefix('v').unwrap_or(version);
    let generation = if version.starts_with("1.") { Generation::V1 } else { Generation::V2 };
    Some((generation, version.to_owned()))
}

/// What the containers of each Compose service were made from, as Compose labels them.
pub type Standing = BTreeMap<String, Vec<String>>;

/// Compose, for one deployment.
#[derive(Debug)]
pub struct Compose {
    files: Files,
    output: Output,
    tool: OnceCell<Tool>,
    /// What the files say, for what Compose does not tell.
    texts: OnceLock<Arc<ComposeFiles>>,
    /// What runs by profiles, once that is known.
    awake: OnceLock<Awake>,
    /// A lock that calls which change something keep for as long as they run.
    held: Option<File>,
    /// Who asks to stop.
    interruption: Interruption,
    /// The containers that have to give way before what replaces them is made, if they have to.
    standing: OnceLock<Mutex<Standing>>,
}

impl Compose {
    /// Compose for the deployment of `files`. Starts nothing; the program is looked for at the
    /// first call.
    #[must_use]
    pub fn new(files: Files, output: Output) -> Self {
        Self {
            files,
            output,
            tool: OnceCell::new(),
            texts: OnceLock::new(),
            awake: OnceLock::new(),
            held: None,
            interruption: Interruption::default(),
            standing: OnceLock::new(),
        }
    }

    /// The same that ends its calls when `interruption` asks for it.
    #[must_use]
    pub fn obeying(mut self, interruption: &Interruption) -> Self {
        self.interruption = interruption.clone();
        self
    }

    /// The same with `texts`, what the files of Compose v2 say, so that they need not be read again.
    #[must_use]
    pub fn knowing(mut self, texts: Arc<ComposeFiles>) -> Self {
        self.texts = OnceLock::from(texts);
        self
    }

    /// Lets calls that change something hold the lock that `handle` belongs to: if dkv is killed,
    /// the next one then waits until Compose has ended too.
    #[must_use]
    pub fn holding(mut self, handle: File) -> Self {
        self.held = Some(handle);
        self
    }

    /// What runs by profiles, if that is known yet.
    #[must_use]
    pub fn awake(&self) -> Option<&Awake> {
        self.awake.get()
    }

    /// From now on the services of `awake` count as if their profiles were switched on, for every
    /// call. Said once.
    pub fn wake(&self, awake: Awake) {
        let _ = self.awake.set(awake);
    }

    /// Lets containers give way before what replaces them is made, for a Compose that cannot do
    /// that by itself. `standing` are the containers that there are. Said once.
    pub fn make_way(&self, standing: Standing) {
        let _ = self.standing.set(Mutex::new(standing));
    }

    /// The Compose program, looked for once.
    ///
    /// # Errors
    /// There is none (exit 6).
    pub async fn tool(&self, environment: &Environment) -> Result<&Tool> {
        self.tool.get_or_try_init(|| Tool::detect(environment)).await
    }

    /// Runs `action` on the files of `set` and waits for its end.
    ///
    /// # Errors
    /// There is no Compose, or it failed (exit 6); there are no such files (exit 3); interrupted
    /// (130).
    pub async fn run(&self, set: Set, action: &Action, environment: &Environment) -> Result<()> {
        let selection = self.prepared(set, action, environment).await?;
        let call = self.call(&selection, action, environment).await?;
        self.run_call(call).await
    }

    /// As [`Compose::run`], but ends Compose when it takes longer than `limit`, and lets it come to
    /// its end when dkv is asked to stop for the first time.
    ///
    /// # Errors
    /// As [`Compose::run`], and when the limit passes (exit 6).
    pub async fn run_within(
        &self,
        limit: Duration,
        set: Set,
        action: &Action,
        environment: &Environment,
    ) -> Result<()> {
        let selection = self.prepared(set, action, environment).await?;
        let mut call = self.call(&selection, action, environment).await?;
        call.limit = Some(limit);
        call.is_patient = true;
        self.run_call(call).await
    }

    /// How a call that does something names files and profiles, after what it would replace has
    /// given way, if that has to.
    async fn prepared(
        &self,
        set: Set,
        action: &Action,
        environment: &Environment,
    ) -> Result<Selection> {
        let mut selection = self.selection(set, environment).await?;
        selection.profiles = self.profiles(action);
        if let (Action::Up(up), Some(standing)) = (action, self.standing.get()) {
            let services = self.outdated(up, standing, &selection, environment).await?;
            if !services.is_empty() {
                let remove = Action::Remove { services };
                self.run_call(self.call(&selection, &remove, environment).await?).await?;
            }
        }
        Ok(selection)
    }

    /// Becomes Compose, which is given `arguments` as they stand: from then on terminal, signals and
    /// exit code are its own. `keep` is a lock that it holds for as long as it runs. Returns only
    /// where that fails.
    ///
    /// # Errors
    /// There is no Compose, or it cannot be started (exit 6); there are no files (exit 3).
    pub async fn become_it(
        &self,
        set: Set,
        arguments: Vec<OsString>,
        environment: &Environment,
        keep: Option<File>,
    ) -> Result<Infallible> {
        let passed = Passed::read(&arguments);
        let mut selection = match passed.names_files || passed.is_about_compose() {
            // A line that names its files is about those alone, some are about none.
            true => Selection {
                project_name: self.files.project_name().map(ToOwned::to_owned),
                ..Selection::default()
            },
            false => self.selection(set, environment).await?,
        };
        if passed.names_project {
            selection.project_name = None;
        }
        if passed.names_directory {
            selection.project_directory = None;
        }
        let call = self.call(&selection, &Action::Pass(arguments), environment).await?;
        let mut command = call.command()?.into_std();
        // The operator may want to be rid of orphans, and all files are named.
        command.env_remove("COMPOSE_IGNORE_ORPHANS");
        if let Some(keep) = &keep {
            let flags = fcntl_getfd(keep).context("cannot share the lock")?;
            fcntl_setfd(keep, flags - FdFlags::CLOEXEC).context("cannot share the lock")?;
        }
        let source = command.exec();
        Err(error::docker(format!("cannot run `{call}`: {source}")).into())
    }

    async fn run_call(&self, call: Call<'_>) -> Result<()> {
        let _running = (!call.is_read_only).then(Running::begin);
        let captured = match self.output {
            Output::Inherit => call.inherit().await?,
            Output::Capture => call.capture().await?,
        };
        call.check(&captured, self.beyond_v1())
    }

    /// What Compose would start of `set`, interpolated and merged; given up after `deadline`, or
    /// after two minutes.
    ///
    /// # Errors
    /// As [`Compose::run`], and when the deadline passes (exit 6).
    pub async fn config(
        &self,
        set: Set,
        environment: &Environment,
        deadline: Option<Duration>,
    ) -> Result<Project> {
        self.ask(set, environment, deadline, self.profiles(&Action::Config)).await
    }

    /// As [`Compose::config`], with the services of all profiles among the dormant ones.
    ///
    /// # Errors
    /// As for [`Compose::config`]; also where a service whose profile is off is not as it should be.
    pub async fn config_of_all_profiles(
        &self,
        set: Set,
        environment: &Environment,
        deadline: Option<Duration>,
    ) -> Result<Project> {
        self.ask(set, environment, deadline, vec!["*".to_owned()]).await
    }

    async fn ask(
        &self,
        set: Set,
        environment: &Environment,
        deadline: Option<Duration>,
        profiles: Vec<String>,
    ) -> Result<Project> {
        let read = async {
            let mut selection = self.selection(set, environment).await?;
            selection.profiles = profiles;
            self.config_of(&selection, environment).await
        };
        let deadline = deadline.unwrap_or(CONFIG_LIMIT);
        tokio::time::timeout(deadline, read).await.unwrap_or_else(|_| {
            let message =
                format!("Compose did not read its files within {} s", deadline.as_secs_f64());
            Err(error::docker(message)
                .with_hint("run `docker compose config` by hand to see what it waits for")
                .into())
        })
    }

    /// The services with containers that `up` would replace: Compose says what it would make now.
    async fn outdated(
        &self,
        up: &Up,
        standing: &Mutex<Standing>,
        selection: &Selection,
        environment: &Environment,
    ) -> Result<Vec<String>> {
        let call = self.call(selection, &Action::Hashes, environment).await?;
        let captured = call.capture().await?;
        call.check(&captured, self.beyond_v1())?;
        let text = String::from_utf8_lossy(&captured.stdout);
        let now = text.lines().filter_map(|line| line.trim().split_once(' '));
        let mut standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outdated = Vec::new();
        for (name, hash) in now {
            if !up.services.is_empty() && !up.services.iter().any(|one| one == name) {
                continue;
            }
            // What is left, and what will be made, is of this.
            let made = standing.insert(name.to_owned(), vec![hash.to_owned()]);
            let gives_way = made.is_some_and(|made| {
                up.recreate != argv::Recreate::Changed || made.iter().any(|old| old != hash)
            });
            outdated.extend(gives_way.then(|| name.to_owned()));
        }
        Ok(outdated)
    }

    async fn config_of(&self, selection: &Selection, environment: &Environment) -> Result<Project> {
        let call = self.call(selection, &Action::Config, environment).await?;
        let captured = call.capture().await?;
        call.check(&captured, self.beyond_v1())?;
        let generation = self.tool(environment).await?.generation;
        let text = String::from_utf8(captured.stdout)
            .context("`compose config` printed something that is not UTF-8")?;
        let project = match generation {
            Generation::V1 => config::parse_v1(&text, self.files.project_name_v1())?,
            // It has left out by itself what no profile of the environment's switches on.
            Generation::V2 if selection.profiles.is_empty() => return config::parse_v2(&text),
            Generation::V2 => config::parse_v2(&text)?,
        };
        let switched_on = self.files.profiles();
        let is_on = |profile: &String| {
            switched_on.contains(profile)
                || (generation == Generation::V2 && switched_on.iter().any(|one| one == "*"))
        };
        let awake = self.awake.get();
        Ok(project.with_active(|service| {
            service.profiles.is_empty()
                || service.profiles.iter().any(is_on)
                || awake.is_some_and(|awake| awake.services.contains(&service.name))
        }))
    }

    /// The profiles that a call names, which replace those of the environment for Compose: none
    /// where those are enough.
    fn profiles(&self, action: &Action) -> Vec<String> {
        let own = self.awake.get().map(|awake| match action {
            Action::Down => &awake.present,
            _ => &awake.profiles,
        });
        let Some(own) = own.filter(|own| !own.is_empty()) else { return Vec::new() };
        let mut all = self.files.profiles().to_vec();
        all.extend(own.iter().filter(|one| !self.files.profiles().contains(one)).cloned());
        all
    }

    /// How a call about `set` names files, directory and project.
    async fn selection(&self, set: Set, environment: &Environment) -> Result<Selection> {
        let generation = self.tool(environment).await?.generation;
        let mut selection = self.files.selection(set, generation)?;
        let is_split = set != Set::Application && !self.files.databases().is_empty();
        let is_named =
            self.files.project_name_variable().is_some() || selection.project_name.is_some();
        if is_split && generation == Generation::V2 && !is_named {
            selection.project_name = self.shared_name(environment).await?;
        }
        Ok(selection)
    }

    /// The name that both sets must use, unless all files leave it to the directory.
    async fn shared_name(&self, environment: &Environment) -> Result<Option<String>> {
        let texts = self.texts();
        let databases_are_named = texts.names_project(self.files.databases());
        let application = self.files.application(Generation::V2);
        if application.is_empty() || !(databases_are_named || texts.names_project(application)) {
            return Ok(None);
        }
        let plain = self.files.selection(Set::Application, Generation::V2)?;
        let name = self.config_of(&plain, environment).await?.name;
        if databases_are_named {
            let plain = self.files.selection(Set::Databases, Generation::V2)?;
            let other = self.config_of(&plain, environment).await?.name;
            if other != name {
                return Err(error::state(format!(
                    "the application's Compose files make the project `{name}`, the database \
                        files `{other}`"
                ))
                .with_hint(
                    "dkv runs both as one project: give the files the same top-level \
                    `name:`",
                )
                .into());
            }
        }
        Ok(Some(name))
    }

    /// The generation of Compose, if it was looked for already.
    #[must_use]
    pub fn known_generation(&self) -> Option<Generation> {
        self.tool.get().map(|tool| tool.generation)
    }

    fn texts(&self) -> &ComposeFiles {
        self.texts.get_or_init(|| Arc::new(ComposeFiles::read(&self.files, Generation::V2)))
    }

    /// What explains a failure of v1, with its mend: what of the files only v2 understands.
    fn beyond_v1(&self) -> Option<String> {
        if self.known_generation() != Some(Generation::V1) {
            return None;
        }
        let files = self.files.all(Generation::V1);
        let own;
        let texts = if files == self.files.all(Generation::V2) {
            self.texts()
        } else {
            own = ComposeFiles::read(&self.files, Generation::V1);
            &own
        };
        if let Some(place) = texts.second_document(&files) {
            return Some(format!(
                "Compose 1 reads no file with several documents, and {place} is in a second \
                one: install Compose 2, or give each document a file of its own and name the \
                files in COMPOSE_FILE"
            ));
        }
        let hint = "Compose 1 does not know the top-level `name:`: install Compose 2, or use \
            COMPOSE_PROJECT_NAME";
        texts.names_project(&files).then(|| hint.to_owned())
    }

    async fn call<'a>(
        &'a self,
        selection: &Selection,
        action: &Action,
        environment: &'a Environment,
    ) -> Result<Call<'a>> {
        let tool = self.tool(environment).await?;
        // Compose would wait for a FIFO and read on and on of anything else.
        for file in self.files.all(tool.generation) {
            crate::store::check(&self.files.directory().join(file))?;
        }
        let texts = self.texts();
        texts.unreadable().map_or(Ok(()), Err)?;
        texts.env_files().iter().try_for_each(|file| crate::store::check(file))?;
        let arguments = argv::arguments(tool.generation, tool.can_choose_pull(), selection, action);
        let is_read_only = matches!(action, Action::Config | Action::Hashes);
        Ok(Call {
            program: tool.program,
            arguments,
            directory: self.files.directory(),
            environment,
            is_read_only,
            limit: None,
            interruption: &self.interruption,
            is_patient: false,
            held: self.held.as_ref(),
        })
    }
}

/// One Compose process to be.
struct Call<'a> {
    program: &'static [&'static str],
    arguments: Vec<OsString>,
    directory: &'a Path,
    environment: &'a Environment,
    /// Whether it may be killed when nobody waits for it any more.
    is_read_only: bool,
    /// How long it may take before it is ended.
    limit: Option<Duration>,
    /// Who asks to stop.
    interruption: &'a Interruption,
    /// Whether only a second request counts, whatever else is tolerated.
    is_patient: bool,
    /// A lock to keep while it runs.
    held: Option<&'a File>,
}

/// How a call ended and what was kept of its output.
struct Captured {
    status: ExitStatus,
    end: End,
    stdout: Vec<u8>,
    messages: Option<String>,
    /// What Compose complained of, of messages that were passed on as they came.
    complaint: Option<String>,
}

impl Call<'_> {
    fn command(&self) -> Result<Command> {
        tracing::debug!("running `{self}` in {}", self.directory.display());
        let mut command = Command::new(self.program[0]);
        command.args(&self.program[1..]).args(&self.arguments).current_dir(self.directory);
        command.kill_on_drop(self.is_read_only);
        self.environment.apply(&mut command);
        if self.directory != Path::new(".") {
            // v2 names a project after the directory as the shell knows it, symbolic links and all.
            let absolute =
                std::path::absolute(self.directory).context("cannot find the current directory")?;
            command.env("PWD", absolute);
        }
        Ok(command)
    }

    fn spawn(&self, command: &mut Command) -> Result<Child> {
        let failed = |source| {
            error::docker(format!("cannot run `{self}` in {}: {source}", self.directory.display()))
        };
        Ok(command.process_group(0).spawn().map_err(failed)?)
    }

    /// The lock as standard input, the one handle that every program passes on to the one it runs.
    fn input(&self) -> Result<Option<Stdio>> {
        let Some(held) = self.held.filter(|_| !self.is_read_only) else { return Ok(None) };
        Ok(Some(held.try_clone().context("cannot share the lock")?.into()))
    }

    /// Waits for the end of `child`, no longer than the limit, and tells who asked for it.
    async fn wait(&self, child: &mut Child) -> Result<(ExitStatus, End)> {
        // What only reads goes with all that it has started, when nobody waits for it any more.
        let group = self.is_read_only.then(|| Group::of(child));
        let mut end = End::Itself;
        let mut patience = self.limit.unwrap_or(Duration::MAX);
        loop {
            let too_long = tokio::time::sleep(patience);
            let asked = async {
                match (end, self.is_patient) {
                    (End::Interrupted, _) => std::future::pending().await,
                    (_, true) => self.interruption.repeated().await,
                    (_, false) => self.interruption.raised().await,
                }
            };
            tokio::select! {
                biased;
                () = asked => {
                    end_group(child, EndSignal::TERM);
                    end = End::Interrupted;
                    patience = LAST_PATIENCE;
                }
                status = child.wait() => {
                    let status = status.context("cannot wait for Compose")?;
                    if let Some(group) = group {
                        group.has_ended();
                    }
                    let is_interrupted = end == End::Itself && ended_by_interrupt(status);
                    return Ok((status, if is_interrupted { End::Interrupted } else { end }));
                }
                () = too_long => {
                    if end == End::Itself {
                        end_group(child, EndSignal::TERM);
                        end = End::TooLong;
                    } else {
                        end_group(child, EndSignal::KILL);
                    }
                    patience = LAST_PATIENCE;
                }
            }
        }
    }

    async fn inherit(&self) -> Result<Captured> {
        #[cfg(test)]
        if let Some(captured) = self.simulated().await {
            return Ok(captured);
        }
        let mut command = self.command()?;
        if let Some(input) = self.input()? {
            command.stdin(input);
        }
        let own = || std::io::stderr().as_fd().try_clone_to_owned().context("cannot use stderr");
        let mut relay = None;
        if std::io::stderr().is_terminal() {
            command.stdout(own()?).stderr(own()?);
        } else {
            let (output, input) = std::io::pipe().context("cannot make a pipe")?;
            command.stdout(input.try_clone().context("cannot share a pipe")?).stderr(input);
            let (ended, end) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let said = pass_on(output);
                // Nobody may wait for it any more.
                let _ = ended.send(said);
            });
            relay = Some(end);
        }
        let mut child = self.spawn(&mut command)?;
        // The pipe ends when nobody has it any more.
        drop(command);
        let (status, end) = self.wait(&mut child).await?;
        let mut said = Vec::new();
        if let Some(relay) = relay {
            // What Compose has started may live on and keep the pipe open.
            let relayed = tokio::time::timeout(LAST_PATIENCE, relay).await;
            said = relayed.ok().and_then(Result::ok).unwrap_or_default();
        }
        let complaint = complaint(&tail(&said)).map(|words| self.environment.redact(words));
        Ok(Captured { status, end, stdout: Vec::new(), messages: None, complaint })
    }

    async fn capture(&self) -> Result<Captured> {
        #[cfg(test)]
        if let Some(captured) = self.simulated().await {
            return Ok(captured);
        }
        let mut command = self.command()?;
        let input = self.input()?.unwrap_or_else(Stdio::null);
        let mut child =
            self.spawn(command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = pin!(async { tokio::try_join!(drain(stdout), drain(stderr)) });
        let mut wait = pin!(self.wait(&mut child));
        let mut collected = None;
        let (status, end) = loop {
            tokio::select! {
                ended = &mut wait => break ended?,
                all = &mut output, if collected.is_none() => collected = Some(all?),
            }
        };
        let (stdout, stderr) = match collected {
            Some(collected) => collected,
            None if end == End::Itself => output.await?,
            // What it has started may live on and keep the pipes open.
            None => tokio::time::timeout(LAST_PATIENCE, output)
                .await
                .unwrap_or_else(|_| Ok(Default::default()))?,
        };
        let messages = Some(self.environment.redact(tail(&stderr)));
        Ok(Captured { status, end, stdout, messages, complaint: None })
    }

    /// How a simulated Compose ends; `None` where nothing is simulated. A signal reaches it as it
    /// would reach a process that is, or is not, in this one's group.
    #[cfg(test)]
    async fn simulated(&self) -> Option<Captured> {
        let call = crate::simulation::Call {
            arguments: self.arguments.iter().map(|one| one.to_str().unwrap().to_owned()).collect(),
            variables: self.environment.set.clone(),
            directory: std::path::absolute(self.directory).unwrap().to_str().unwrap().to_owned(),
        };
        let mut task = crate::simulation::start_compose(call)?;
        let patience = self.is_patient.then(|| self.interruption.clone());
        let interrupted = crate::simulation::interrupted(patience);
        let too_long = tokio::time::sleep(self.limit.unwrap_or(Duration::MAX));
        let (end, ended) = tokio::select! {
            biased;
            () = interrupted => (End::Interrupted, None),
            ended = &mut task => (End::Itself, ended.ok()),
            () = too_long => (End::TooLong, None),
        };
        task.abort();
        let ended = ended.unwrap_or_default();
        Some(Captured {
            status: ExitStatus::from_raw(ended.code << 8),
            end,
            stdout: ended.stdout.into_bytes(),
            messages: Some(ended.stderr),
            complaint: None,
        })
    }

    fn check(&self, captured: &Captured, beyond_v1: Option<String>) -> Result<()> {
        match captured.end {
            End::Itself => {}
            End::Interrupted => {
                return Err(
                    Error::new(Kind::Interrupted, format!("`{self}` was interrupted")).into()
                );
            }
            End::TooLong => {
                let limit = self.limit.unwrap_or_default().as_secs();
                return Err(error::docker(format!(
                    "`{self}` had not ended after {limit} s and was ended"
                ))
                .into());
            }
        }
        if captured.status.success() {
            return Ok(());
        }
        let how = match captured.status.code() {
            Some(code) => format!("exit code {code}"),
            None => captured.status.to_string(),
        };
        let mut message = format!("`{self}` failed with {how}");
        if let Some(messages) = captured.messages.as_deref().filter(|messages| !messages.is_empty())
        {
            message.push_str(":\n");
            message.push_str(messages);
        } else if let Some(complaint) = &captured.complaint {
            message.push_str(": ");
            message.push_str(complaint);
        }
        let error = error::docker(message);
        Err(if let Some(hint) = beyond_v1 {
            error.with_hint(hint)
        } else if captured.messages.is_none() {
            error.with_hint("Compose says why in its messages above")
        } else {
            error
        }
        .into())
    }
}

/// Shows the command line; values of variables are not part of it.
impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program.join(" "))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", argument.display()))
    }
}

/// Who made a call end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody.
    Itself,
    /// A signal.
    Interrupted,
    /// Its limit.
    TooLong,
}

/// Whether a process says that SIGINT has ended it.
fn ended_by_interrupt(status: ExitStatus) -> bool {
    let interrupt = EndSignal::INT.as_raw();
    status.signal() == Some(interrupt) || status.code() == Some(128 + interrupt)
}

/// Asks `child` to end, with all that it has started; it may have done so by itself in the meantime.
fn end_group(child: &Child, signal: EndSignal) {
    let process = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(process) = process {
        let _ = kill_process_group(process, signal);
    }
}

/// Hands on what Compose says, and returns the end of it. Compose itself would die of an output that
/// nobody reads any more, in the middle of its work.
fn pass_on(mut output: impl std::io::Read) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let mut said = Vec::new();
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return said,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return said,
            Ok(count) => {
                let _ = std::io::stderr().write_all(&buffer[..count]);
                said.extend_from_slice(&buffer[..count]);
                said.drain(..said.len().saturating_sub(2 * TAIL));
            }
        }
    }
}

/// The last line of Compose's messages that says what it failed at.
fn complaint(messages: &str) -> Option<String> {
    const SIGNS: [&str; 5] = ["error", "failed", "dependency failed", "cannot", "no such"];
    let lines = messages.lines().map(str::trim).rev();
    let mut complaints = lines.filter(|line| {
        let line = line.to_lowercase();
        SIGNS.iter().any(|sign| line.starts_with(sign))
            && !line.contains("encountered errors while")
    });
    complaints.next().map(str::to_owned)
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await.context("cannot read Compose's output")?;
    }
    Ok(bytes)
}

/// The last lines of `output` without control characters.
fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(TAIL);
    let text = String::from_utf8_lossy(&output[start..]);
    let text = if start == 0 {
        text.as_ref()
    } else {
        text.split_once('\n').map_or(text.as_ref(), |(_, whole)| whole)
    };
    text.trim().chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::files::Configured;

    #[test]
    fn of_all_that_compose_says_the_complaint_is_kept() {
        let v2 = " Container web  Creating\n Container web  Error\nError response from daemon: \
            bind source path does not exist: /srv/x\n";
        let v1 = "Creating web ... \nERROR: for web  Cannot create container for service web: \
            no\nERROR: Encountered errors while bringing up the project.\n";
        for (said, expected) in [
            (v2, Some("Error response from daemon: bind source path does not exist: /srv/x")),
            (v1, Some("ERROR: for web  Cannot create container for service web: no")),
            (" Container web  Started\n", None),
        ] {
            assert_eq!(complaint(said).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn both_generations_are_told_apart() {
        let v1 = "docker-compose version 1.29.2, build unknown\ndocker-py version: 5.0.3\n";
        assert_eq!(parse_version(v1), Some((Generation::V1, "1.29.2".to_owned())));
        assert_eq!(
            parse_version("Docker Compose version v2.40.3\n"),
            Some((Generation::V2, "2.40.3".to_owned()))
        );
        assert_eq!(
            parse_version("Docker Compose version 5.0.0-desktop.1"),
            Some((Generation::V2, "5.0.0-desktop.1".to_owned()))
        );
        for other in ["", "podman-compose version 1.0", "Docker version 28.2.2, build e6534b4"] {
            assert_eq!(parse_version(other), None, "{other}");
        }
    }

    #[test]
    fn only_newer_composes_can_be_told_what_to_pull() {
        for (version, can) in [
            ("1.29.2", false),
            ("2.0.1", false),
            ("2.5.1", false),
            ("2.6.0", true),
            ("2.40.3", true),
            ("5.0.0-desktop.1", true),
        ] {
            let (generation, version) =
                parse_version(&format!("Docker Compose version v{version}")).unwrap();
            let tool = Tool { program: &["docker", "compose"], generation, version };
            assert_eq!(tool.can_choose_pull(), can, "{tool:?}");
        }
    }

    #[test]
    fn secrets_are_neither_shown_nor_kept() {
        let environment = Environment::default()
            .with([("DK_A_TAG".to_owned(), "1.64".to_owned())])
            .with_secrets([("PASSWORD".to_owned(), "hunter2!".to_owned())]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("PASSWORD") && !shown.contains("hunter2!"), "{shown}");
        assert_eq!(
            environment.redact("near \"PASSWORD=hunter2!\"".to_owned()),
            "near \"PASSWORD=***\""
        );
    }

    #[test]
    fn only_whole_last_lines_are_kept() {
        assert_eq!(tail(b"one\n\x1b[31mtwo\x1b[0m\r\n"), "one\n[31mtwo[0m");
        let long = format!("{}\nlast line\n", "x".repeat(TAIL));
        assert_eq!(tail(long.as_bytes()), "last line");
    }

    /// A directory with files and an empty directory of programs to be found first.
    struct Deployment(tempfile::TempDir);

    impl Deployment {
        fn new(files: &[(&str, &str)]) -> Self {
            let deployment = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(deployment.0.path().join("bin")).unwrap();
            for (name, text) in files {
                std::fs::write(deployment.0.path().join(name), text).unwrap();
            }
            deployment
        }

        /// A `docker-compose` made of shell lines that answers as version 2 does.
        fn fake(&self, script: &str) -> Environment {
            let version =
                "if [ \"$*\" = version ]; then echo Docker Compose version v2.0.0; exit; fi";
            self.program("docker-compose", &format!("{version}\n{script}"))
        }

        /// A program made of shell lines; the environment in which only such programs are found.
        fn program(&self, name: &str, script: &str) -> Environment {
            let source = self.0.path().join("script");
            std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
            // Another process writes it: a copy of our open file in a neighbour's fork would make
            // it "busy".
            let program = self.0.path().join("bin").join(name);
            let status = std::process::Command::new("install")
                .arg("-m755")
                .args([&source, &program])
                .status()
                .unwrap();
            assert!(status.success());
            self.only_own_programs()
        }

        fn only_own_programs(&self) -> Environment {
            let path = self.0.path().join("bin").to_str().unwrap().to_owned();
            Environment::default().with([("PATH".to_owned(), path)])
        }

        fn compose(&self) -> Compose {
            let files = Files::discover(self.0.path(), &Configured::default(), &|_| None).unwrap();
            Compose::new(files, Output::Capture)
        }
    }

    fn up() -> Action {
        Action::Up(argv::Up::default())
    }

    #[tokio::test]
    async fn without_compose_the_hint_says_what_to_install() {
        let deployment = Deployment::new(&[("compose.yaml", "")]);
        let error = deployment
            .compose()
            .run(Set::Application, &up(), &deployment.only_own_programs())
            .await
            .unwrap_err();
        let error = error::find(&error).unwrap();
        assert_eq!(error.kind(), Kind::Docker);
        assert!(error.hint().unwrap().contains("install"));
    }

    #[tokio::test]
    async fn the_plugin_is_preferred_and_the_standalone_program_is_the_fallback() {
        let deployment = Deployment::new(&[("compose.yaml", "")]);
        let environment = deployment
            .program("docker-compose", "echo docker-compose version 1.29.2, build unknown");
        deployment.program("docker", "echo \"docker: '$1' is not a docker command.\" >&2; exit 1");
        let tool = Tool::detect(&environment).await.unwrap();
        assert_eq!((tool.generation, tool.version.as_str()), (Generation::V1, "1.29.2"));

        deployment.program(
            "docker",
            "[ \"$*\" = 'compose version' ] && echo Docker Compose version v2.40.3",
        );
        let tool = Tool::detect(&environment).await.unwrap();
        assert_eq!((tool.program, tool.version.as_str()), (&["docker", "compose"][..], "2.40.3"));
    }

    #[tokio::test]
    async fn a_failure_names_the_call_and_its_last_words() {
        let deployment = Deployment::new(&[("compose.yaml", "")]);
        let environment = deployment.fake("echo \"no such image, key $KEY\" >&2; exit 17");
        let environment = environment.with_secrets([("KEY".to_owned(), "s3cr3t".to_owned())]);
        let error =
            deployment.compose().run(Set::Application, &up(), &environment).await.unwrap_err();
        assert_eq!(error::kind(&error), Kind::Docker);
        assert_eq!(
            error.to_string(),
            "`docker-compose up -d` failed with exit code 17:\nno such image, key ***"
        );
    }

    #[tokio::test]
    async fn the_child_sees_our_variables() {
        let deployment = Deployment::new(&[("compose.yaml", ""), ("db-docker-compose.yml", "")]);
        let environment =
            deployment.fake("echo \"$DK_A_TAG,$COMPOSE_IGNORE_ORPHANS,$PWD,$*\" >seen");
        let environment = environment.with([("DK_A_TAG".to_owned(), "1.64".to_owned())]);
        let link = deployment.0.path().join("link");
        std::os::unix::fs::symlink(deployment.0.path(), &link).unwrap();
        let files = Files::discover(&link, &Configured::default(), &|_| None).unwrap();
        Compose::new(files, Output::Capture)
            .run(Set::All, &Action::Down, &environment)
            .await
            .unwrap();
        let seen = std::fs::read_to_string(deployment.0.path().join("seen")).unwrap();
        assert_eq!(
            seen,
            format!("1.64,1,{},-f compose.yaml -f db-docker-compose.yml down\n", link.display())
        );
    }

    #[tokio::test]
    async fn config_is_given_up_at_its_deadline() {
        let deployment = Deployment::new(&[("compose.yaml", "")]);
        let environment = deployment.fake("exec /bin/sleep 60");
        let deadline = Some(Duration::from_millis(50));
        let error = deployment
            .compose()
            .config(Set::Application, &environment, deadline)
            .await
            .unwrap_err();
        assert_eq!(error::kind(&error), Kind::Docker);
    }
}
