//! `up`, `updb`, `down`, `restart`, `start`, `stop`: Compose, with the recorded versions in its
//! environment.

mod ready;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;

use super::logs::{self, Keeping};
use super::{Effect, Run, generate_env};
use crate::app::{App, Exit};
use crate::change;
use crate::cli;
use crate::clock;
use crate::compose::{self, Action, Project, Set};
use crate::deployment::{Deployment, Stray};
use crate::docker::{ContainerDetail, ContainerFilter, ContainerState, HealthStatus};
use crate::error::{self, Error, Kind};
use crate::health::{self, Expectations, Judged, Limits};
use crate::model::manifest::Service;
use crate::model::reference::Reference;
use crate::observe::LocalImages;
use crate::report::{ContainerLine, Failure, Standing, Started};
use crate::store::Lock;
use crate::ui::{Cell, Style, Table};
use ready::{After, Ready};
pub(super) use ready::{hanging, stopped};

/// How a start goes about it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct StartOptions {
    /// Return as soon as the containers are started
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Wait this long for the containers to become healthy, or longer where their own health checks
    /// allow more [default: the manifest's, else 120s]
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    pub timeout: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What a start or stop works with.
pub(super) struct Launch<'a> {
    pub(super) deployment: Deployment<'a>,
    pub(super) environment: compose::Environment,
    pub(super) options: StartOptions,
    /// The steps of the command that stop or start something, in their order.
    pub(super) plan: &'static [&'static str],
}

/// The steps that stop and start.
const DOWN: &str = "down";
const UPDB: &str = "updb";
const UP: &str = "up";

/// Start the application, with the recorded versions
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    options: StartOptions,
}

impl Run for Up {
    fn effect(&self) -> Effect {
        Effect::unless(self.options.dry_run)
    }

    /// # Errors
    ///
    /// Compose or the daemon fails, or a container that should run does not (exit 6); an image can
    /// be had nowhere (exit 5); another dkv is at it (exit 4).
    async fn run(self, app: &App) -> Result<Exit> {
        let (_lock, mut launch, mut report) = Launch::begin(app, self.options, &[UP]).await?;
        let project = &launch.deployment.project().await?.clone();
        let ready = launch.make_ready(project, After::AsItStands, &mut report).await?;
        launch.start_stopped_databases(project, &ready, &mut report).await?;
        launch.start(Set::Application, project, &ready, &mut report).await?;
        finish(&launch.deployment, &report)
    }
}

/// Start the databases, and wait until they are healthy
#[derive(Debug, Args)]
pub struct Updb {
    /// Wait this long for the databases to become healthy, or longer where their own health checks
    /// allow more [default: the manifest's, else 120s]
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    timeout: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Updb {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    /// # Errors
    ///
    /// As for [`Up`].
    async fn run(self, app: &App) -> Result<Exit> {
        let Self { timeout, dry_run } = self;
        let options = StartOptions { timeout, dry_run, ..StartOptions::default() };
        let (_lock, mut launch, mut report) = Launch::begin(app, options, &[UPDB]).await?;
        if !launch.deployment.has_databases() {
            app.show(&report, |_| {
                app.ui.status("This deployment has no database files; nothing to start")
            })?;
            return Ok(Exit::Done);
        }
        // The application's files may well be in no state to be asked about.
        let compose = launch.deployment.compose()?;
        let project = compose.config(Set::Databases, &launch.environment, None).await?;
        let ready = launch.make_ready(&project, After::AsItStands, &mut report).await?;
        launch.start(Set::Databases, &project, &ready, &mut report).await?;
        finish(&launch.deployment, &report)
    }
}

/// Stop and remove all containers, databases included
#[derive(Debug, Args)]
pub struct Down {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Down {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        down(app, self.dry_run).await
    }
}

/// Stop everything and start it again: down, updb, up
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    options: StartOptions,
}

impl Run for Restart {
    fn effect(&self) -> Effect {
        Effect::unless(self.options.dry_run)
    }

    /// # Errors
    ///
    /// As for [`Up`]; if an image cannot be had, nothing was stopped.
    async fn run(self, app: &App) -> Result<Exit> {
        let plan = &[DOWN, UPDB, UP];
        let (_lock, mut launch, mut report) = Launch::begin(app, self.options, plan).await?;
        let project = &launch.deployment.project().await?.clone();
        let ready = launch.make_ready(project, After::Down, &mut report).await?;
        launch.stop(Some(project), &mut report).await?;
        launch.start_all(project, &ready, &mut report).await?;
        finish(&launch.deployment, &report)
    }
}

/// Start everything: updb, up
#[derive(Debug, Args)]
pub struct Start {
    #[command(flatten)]
    options: StartOptions,
}

impl Run for Start {
    fn effect(&self) -> Effect {
        Effect::unless(self.options.dry_run)
    }

    /// # Errors
    ///
    /// As for [`Up`].
    async fn run(self, app: &App) -> Result<Exit> {
        let (_lock, mut launch, mut report) = Launch::begin(app, self.options, &[UPDB, UP]).await?;
        let project = &launch.deployment.project().await?.clone();
        let ready = launch.make_ready(project, After::AsItStands, &mut report).await?;
        launch.start_all(project, &ready, &mut report).await?;
        finish(&launch.deployment, &report)
    }
}

/// Stop everything; the same as `down`
#[derive(Debug, Args)]
pub struct Stop {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Stop {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        down(app, self.dry_run).await
    }
}

/// `dkv down` and `dkv stop`: all containers, databases included.
///
/// # Errors
///
/// Compose fails (exit 6), or another dkv is at it (exit 4).
async fn down(app: &App, dry_run: bool) -> Result<Exit> {
    let options = StartOptions { dry_run, ..StartOptions::default() };
    let _lock = lock(app, options)?;
    let launch = Launch::prepare_to_stop(app, options, &[DOWN])?;
    let mut report = Started { dry_run, ..Started::default() };
    // Without a project there is nothing to keep; what is wrong with the files `down` itself will
    // say.
    let project = if dry_run { None } else { launch.deployment.project().await.ok() };
    launch.stop(project, &mut report).await?;
    app.show(&report, |_| {
        if dry_run {
            show_steps(app, &report)
        }
    })?;
    ended(app)
}

/// How a command ends that has come to its end: interrupted, if somebody asked it to stop meanwhile.
///
/// # Errors
///
/// As said (exit 130).
pub(super) fn ended(app: &App) -> Result<Exit> {
    if app.interruption().is_asked() { Err(app.interrupted().into()) } else { Ok(Exit::Done) }
}

fn lock(app: &App, options: StartOptions) -> Result<Option<Lock>> {
    if options.dry_run { Ok(None) } else { app.begin_operation().map(Some) }
}

impl<'a> Launch<'a> {
    /// What starts or builds begins so: with the lock, with [`Self::prepare_to_stop`] and the
    /// environment decrypted if it is there only encrypted, and with nothing done yet.
    pub(super) async fn begin(
        app: &'a App,
        options: StartOptions,
        plan: &'static [&'static str],
    ) -> Result<(Option<Lock>, Self, Started)> {
        let lock = lock(app, options)?;
        app.decrypt().await?;
        let launch = Self::prepare_to_stop(app, options, plan)?;
        launch.deployment.check_compose(&launch.environment).await?;
        generate_env::warn_of_unrecorded(&launch.deployment);
        generate_env::warn_of_spoiling(&launch.deployment);
        Ok((lock, launch, Started { dry_run: options.dry_run, ..Started::default() }))
    }

    /// Reads what is there, and brings `versions.env` to what the manifest says. Stopping asks
    /// nobody for a passphrase.
    fn prepare_to_stop(
        app: &'a App,
        options: StartOptions,
        plan: &'static [&'static str],
    ) -> Result<Self> {
        let mut launch = Self { plan, ..Self::assemble(app, options)? };
        if launch.deployment.recorded().is_some() && !options.dry_run {
            refresh_env(&mut launch.deployment)?;
        }
        Ok(launch)
    }

    /// Reads what is there; writes nothing.
    pub(super) fn assemble(app: &'a App, options: StartOptions) -> Result<Self> {
        let deployment = Deployment::open(app)?;
        let environment = deployment.environment()?;
        Ok(Self { deployment, environment, options, plan: &[] })
    }

    pub(super) fn app(&self) -> &'a App {
        self.deployment.app()
    }

    /// The part of `project` that the database files describe.
    pub(super) async fn databases(&self, project: &Project) -> Result<Project> {
        let names = self.deployment.database_services();
        if names.is_empty() {
            // Compose can read what dkv cannot.
            let compose = self.deployment.compose()?;
            return compose.config(Set::Databases, &self.environment, None).await;
        }
        let mut databases = project.clone();
        databases.services.retain(|service| names.contains(&service.name));
        Ok(databases)
    }

    /// Begins a step, and returns whether it is the last one.
    fn enter(&self, step: &'static str) -> bool {
        let at = self.plan.iter().position(|one| *one == step);
        let mut left = self.plan[at.map_or(0, |at| at + 1)..].to_vec();
        left.retain(|one| *one != UPDB || self.deployment.has_databases());
        let is_last = left.is_empty();
        self.app().begin_step(step, left);
        is_last
    }

    pub(super) async fn stop(&self, project: Option<&Project>, report: &mut Started) -> Result<()> {
        report.steps.push(DOWN.to_owned());
        if self.options.dry_run {
            return Ok(());
        }
        let mut kept = None;
        if let Some(project) = project {
            let saved = Keeping::Saved;
            kept = Some(logs::keep(&self.deployment, &project.name, saved, |_| true).await);
        }
        let is_last = self.enter(DOWN);
        let compose = self.deployment.compose()?;
        let stopped = compose.run(self.deployment.all(), &Action::Down, &self.environment).await;
        if let Some(kept) = kept {
            kept.finish(self.app()).await;
        }
        if is_last && stopped.is_ok() {
            self.app().end_steps("everything is stopped");
        }
        self.or_interrupted(stopped)
    }

    /// A step that was ended because somebody asked for it fails with what is left to do.
    fn or_interrupted(&self, outcome: Result<()>) -> Result<()> {
        outcome.map_err(|error| match error::kind(&error) {
            Kind::Interrupted => self.app().interrupted().into(),
            _ => error,
        })
    }

    async fn start_all(
        &self,
        project: &Project,
        ready: &Ready,
        report: &mut Started,
    ) -> Result<()> {
        if self.deployment.has_databases() {
            let databases = self.databases(project).await?;
            self.start(Set::Databases, &databases, ready, report).await?;
        }
        self.start(Set::Application, project, ready, report).await
    }

    /// Starts the databases if one of them does not run.
    async fn start_stopped_databases(
        &self,
        project: &Project,
        ready: &Ready,
        report: &mut Started,
    ) -> Result<()> {
        if !self.deployment.has_databases() {
            return Ok(());
        }
        let databases = self.databases(project).await?;
        let containers =
            self.app().docker().await?.containers(&ContainerFilter::project(&project.name)).await?;
        let running = containers.iter().filter(|one| one.state == ContainerState::Running);
        let running: Vec<&str> = running.filter_map(|one| one.labels.service()).collect();
        let wanted = databases.services.iter().filter(|service| service.is_wanted());
        let mut stopped: Vec<&str> = wanted.map(|service| service.name.as_str()).collect();
        stopped.retain(|name| !running.contains(name));
        if stopped.is_empty() {
            return Ok(());
        }
        let begins = match self.options.dry_run {
            true => "would start",
            false => "Starting",
        };
        self.app()
            .ui
            .status(format!("{begins} the databases first: {} not running", stopped.join(", ")));
        self.start(Set::Databases, &databases, ready, report).await
    }

    /// Starts the services of `set`, waits for their health, and adds a line for each to the
    /// report.
    async fn start(
        &self,
        set: Set,
        project: &Project,
        ready: &Ready,
        report: &mut Started,
    ) -> Result<()> {
        let step = if set == Set::Databases { UPDB } else { UP };
        report.steps.push(step.to_owned());
        if self.options.dry_run {
            return Ok(());
        }
        // Which containers Compose will replace only Compose knows.
        let databases = self.deployment.databases();
        let kept = logs::keep(&self.deployment, &project.name, Keeping::Saved, |service| {
            databases.contains(service) == (set == Set::Databases)
        })
        .await;
        let described = self.deployment.database_services();
        let is_meant = |name: &str| match set {
            Set::Databases => described.contains(name) || described.is_empty(),
            Set::Application => !databases.contains(name),
            Set::All => true,
        };
        let up = ready.up(is_meant);
        let is_last = self.enter(step);
        let compose = self.deployment.compose()?;
        let run = async |up| compose.run(set, &Action::Up(up), &self.environment).await;
        let started = match run(up.clone()).await {
            Ok(()) => self.rejoin(project, &up, run).await,
            Err(error) => Err(error),
        };
        kept.finish(self.app()).await;
        if let Err(error) = &started
            && error::kind(error) == Kind::Interrupted
        {
            return self.or_interrupted(started);
        }
        if is_last && started.is_ok() {
            self.app().end_steps("everything is started; containers stay as they are now");
        }
        let health = self.health(project, ready, started.is_err());
        let health = tokio::select! {
            health = health => health?,
            // What was begun is done: nobody has to wait any longer.
            () = self.app().interruption().asked(), if is_last => {
                return Err(self.app().interrupted().into());
            }
        };
        // Without the list, the record and the containers' own words still say most.
        let images = self.deployment.local_images().await.unwrap_or_default();
        let tracked = self.deployment.tracked(project);
        let lines = health
            .containers
            .iter()
            .map(|judged| container_line(tracked.get(&judged.service).copied(), judged, &images));
        let lines: Vec<ContainerLine> = lines.collect();
        report.containers.retain(|line| {
            !lines.iter().any(|other| other.compose_service == line.compose_service)
        });
        report.containers.extend(lines);
        let mut problems: Vec<String> = health.failures().flat_map(health::explain).collect();
        let wanted = ready.wanted(project).into_iter().filter(|(name, _)| is_meant(name));
        problems.extend(health.too_few(wanted.filter(|_| started.is_ok())));
        if started.is_ok() && problems.is_empty() {
            return Ok(());
        }
        let count = health.failures().count();
        let mut message = match count {
            0 => String::new(),
            1 => "1 container does not run as it should".to_owned(),
            count => format!("{count} containers do not run as they should"),
        };
        for line in &problems {
            message.push_str("\n  ");
            message.push_str(line);
        }
        if let Err(error) = started {
            message = if message.is_empty() {
                format!("{error:#}")
            } else {
                format!("{message}\n{error:#}")
            };
        }
        let hint = "`dkv logs` shows more; `dkv rollback SERVICE` takes a service back a version";
        let error = anyhow::Error::from(Error::new(Kind::Docker, message).with_hint(hint));
        report.error = Some(Failure::new(&error).error);
        // The table first: what does run is worth knowing too.
        self.app().show(&*report, |report| show_containers(self.app(), report))?;
        Err(error)
    }

    /// Judges the containers of `project`: at once, or when they are all good or one has failed.
    async fn health(
        &self,
        project: &Project,
        ready: &Ready,
        at_once: bool,
    ) -> Result<health::Judgement> {
        let expectations = self.expectations(project);
        let expectations = expectations.completing(|name| ready.completed.contains(name));
        let name = &project.name;
        if self.options.no_wait || at_once {
            let docker = self.app().docker().await?;
            return health::snapshot(docker, name, &expectations, self.limits(), clock::now())
                .await;
        }
        self.wait(name, &expectations, |_| ()).await
    }

    /// Waits until all that counts is good, or something has failed, and shows how it goes. Each
    /// time that the containers were looked at, `look` sees them too.
    pub(super) async fn wait(
        &self,
        project: &str,
        expectations: &Expectations,
        look: impl Fn(&health::Judgement) + Sync,
    ) -> Result<health::Judgement> {
        let app = self.app();
        let live = app.ui.live();
        let docker = app.docker().await?;
        let is_told = AtomicBool::new(false);
        let wait = async {
            let (limits, now) = (self.limits(), clock::now());
            health::wait(docker, project, expectations, limits, now, &|deployment| {
                look(deployment);
                let waited = (clock::now() - now).to_std().unwrap_or_default();
                if let Some((service, longest)) =
                    longer_than_asked(deployment, expectations, limits, waited)
                    && !is_told.swap(true, Ordering::Relaxed)
                {
                    app.ui.status(format!(
                        "Still waiting for {service}: its own health check allows {} s from its \
                            start on",
                        longest.as_secs()
                    ));
                }
                live.show(&waiting_table(deployment));
            })
            .await
        };
        tokio::select! {
            outcome = wait => Ok(outcome?.judgement),
            () = app.interruption().raised() => Err(app.interrupted().into()),
        }
    }

    /// What is asked of the containers, with the manifest's own deadlines unless one was given.
    pub(super) fn expectations(&self, project: &Project) -> Expectations {
        let mut expectations = Expectations::of(project);
        if self.options.timeout.is_none() {
            for (compose_service, service) in self.deployment.tracked(project) {
                if let Some(timeout) = service.health_timeout {
                    expectations = expectations.with_timeout(&compose_service, timeout);
                }
            }
        }
        expectations
    }

    /// How patient a wait for health is.
    pub(super) fn limits(&self) -> Limits {
        let limits = Limits::default();
        Limits { timeout: self.options.timeout.unwrap_or(limits.timeout), ..limits }
    }
}

/// The service that is still waited for only because its health check allows more time than was
/// asked for.
fn longer_than_asked<'a>(
    deployment: &'a health::Judgement,
    expectations: &Expectations,
    limits: Limits,
    waited: Duration,
) -> Option<(&'a str, Duration)> {
    let waited_for = deployment.containers.iter().filter(|judged| judged.counts);
    let checks = waited_for.filter_map(|judged| {
        let own = expectations.get(&judged.service).and_then(|asked| asked.timeout);
        let container = judged.container.as_ref()?;
        let is_late = waited > own.unwrap_or(limits.timeout)
            && container.has_health_check
            && judged.verdict.standing() == Standing::Pending;
        is_late.then_some((judged.service.as_str(), container.health_check.patience()))
    });
    checks.max_by_key(|(_, patience)| *patience)
}

/// What the table and `--json` say of one container.
pub(super) fn container_line(
    service: Option<&Service>,
    judged: &Judged,
    images: &LocalImages,
) -> ContainerLine {
    let container = judged.container.as_ref();
    let runs = container.and_then(|container| container.image_id.clone());
    // The record's release that has the bytes that run.
    let release =
        service.zip(runs.as_ref()).and_then(|(service, runs)| images.release(service, runs));
    let named: Option<Reference> = container.and_then(|container| container.image.parse().ok());
    let is_good = judged.verdict.is_good();
    ContainerLine {
        compose_service: judged.service.clone(),
        service: service.map(|service| service.name.to_string()),
        container: container.map(|container| container.name.clone()),
        tag: release.map(|release| release.tag.to_string()).or_else(|| {
            named.as_ref().and_then(|named| named.tag.as_ref()).map(ToString::to_string)
        }),
        digest: release
            .and_then(|release| release.bytes.digest.clone())
            .or_else(|| named.as_ref().and_then(|named| named.digest.clone()))
            .or_else(|| images.digest(&named.as_ref()?.repository, runs.as_ref()?))
            .map(|digest| digest.to_string()),
        image_id: runs.as_ref().map(ToString::to_string),
        state: container
            .map_or_else(|| "missing".to_owned(), |container| container.state.to_string()),
        health: container
            .and_then(|container| container.health.as_ref())
            .map(|health| health_word(health.status)),
        verdict: judged.verdict.standing(),
        details: health::describe(&judged.verdict),
        started_at: container.and_then(|container| container.started_at).map(to_seconds),
        since: container.and_then(since).map(to_seconds),
        exit_code: container
            .filter(|container| has_exited(container.state))
            .map(|container| container.exit_code),
        restarts: container.map_or(0, |container| container.restart_count),
        as_recorded: service
            .and_then(|service| Some(runs? == images.id(service, service.current()?)?)),
        problem: if is_good { Vec::new() } else { health::explain(judged) },
    }
}

/// When the container came into the state that it is in.
fn since(container: &ContainerDetail) -> Option<DateTime<Utc>> {
    match container.state {
        ContainerState::Running | ContainerState::Paused => container.started_at,
        ContainerState::Created => container.created_at,
        _ => container.finished_at.or(container.created_at),
    }
}

fn has_exited(state: ContainerState) -> bool {
    matches!(state, ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting)
}

fn health_word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

fn to_seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The colour of a judgement.
pub(super) fn style_of(standing: Standing) -> Style {
    match standing {
        Standing::Failed => Style::Red,
        Standing::Pending => Style::Yellow,
        Standing::Healthy | Standing::Unchecked | Standing::Completed => Style::Green,
    }
}

/// The table that is redrawn while containers come up.
fn waiting_table(deployment: &health::Judgement) -> Table {
    let mut table = Table::default();
    for judged in deployment.containers.iter().filter(|judged| judged.counts) {
        let style = style_of(judged.verdict.standing());
        table.row([
            Cell::new(&judged.service, Style::Bold),
            Cell::new(health::describe(&judged.verdict), style),
        ]);
    }
    table
}

/// The last word of a start: a line for each container.
fn finish(deployment: &Deployment<'_>, report: &Started) -> Result<Exit> {
    let app = deployment.app();
    app.show(report, |report| {
        if report.dry_run { show_steps(app, report) } else { show_containers(app, report) }
    })?;
    warn_of_others(deployment, report);
    ended(app)
}

/// Compose files that give a service an image of their own make Compose run that, whatever is
/// recorded.
fn warn_of_others(deployment: &Deployment<'_>, report: &Started) {
    let app = deployment.app();
    let others = report.containers.iter().filter(|line| line.as_recorded == Some(false));
    let names: Vec<&str> = others.map(|line| line.compose_service.as_str()).collect();
    if !names.is_empty() {
        app.ui.warn(format!("not what the manifest records: {}", names.join(", ")));
        let strays = deployment.strays(&names);
        for stray in &strays {
            app.ui.note(format!(
                "{}, {} does not follow versions.env: {}",
                stray.place, stray.compose_service, stray.why
            ));
        }
        app.ui.hint(format!(
            "{}; `dkv pin` writes the recorded digests into the file; then `dkv restart`",
            Stray::mend(&strays)
        ));
    }
}

pub(super) fn show_steps(app: &App, report: &Started) {
    // That there is nothing to do was said with the reason.
    if report.steps.is_empty() {
        return;
    }
    app.ui.data(format!("would do: {}", report.steps.join(", ")));
}

/// A line for each container: service, tag, digest, state.
pub(super) fn show_containers(app: &App, report: &Started) {
    let mut table = Table::new(&["SERVICE", "VERSION", "DIGEST", "STATE"]);
    for line in &report.containers {
        let style = style_of(line.verdict);
        table.row([
            Cell::new(&line.compose_service, Style::Bold),
            Cell::plain(line.tag.as_deref().unwrap_or("-")),
            Cell::new(line.shown_digest(), Style::Dim),
            Cell::new(&line.details, style),
        ]);
    }
    if !table.is_empty() {
        app.ui.table(&table);
    }
}

/// Writes `versions.env` if it is not what the manifest says, and says what was wrong with it.
fn refresh_env(deployment: &mut Deployment<'_>) -> Result<()> {
    let env = deployment.env()?;
    if env.state.is_wrong() {
        deployment.app().ui.status(format!(
            "{} was {}; writing it from the manifest",
            env.path.display(),
            env.state.in_words()
        ));
    }
    change::refresh_env(deployment).map(drop)
}
