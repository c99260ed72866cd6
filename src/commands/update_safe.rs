//! `update-safe`: after it the new versions run and are healthy, or the old ones do, and it says
//! why.
//!
//! [`crate::update`] has the rules: the states, what leads from one to the next, what is replaced.
//! Here is the work of each state. It can be done again from its beginning, so that an update that
//! was killed goes on where its journal says it was.

pub(super) mod data;
mod downtime;
mod half_made;
mod prepare;
mod report;
mod restore;
mod retreat;
mod witness;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::Instant;

use super::arguments::Services;
use super::changes::Manner;
use super::logs::{self, Keeping};
use super::run::{Launch, StartOptions};
use super::unfinished::unfinished;
use super::version_pull::plan_version;
use super::{Effect, Run, undo};
use crate::app::{App, Exit};
use crate::change::{About, Change, Remembered};
use crate::cli;
use crate::clock;
use crate::compose::{self, Action, Project, Pull, Recreate, Up};
use crate::deployment::{Deployment, Record};
use crate::docker::{Blueprint, Docker};
use crate::error::{self, Error, Kind};
use crate::health::{self, Cause, Verdict};
use crate::model::history::Release;
use crate::model::reference::{Digest, ServiceName, Tag};
use crate::plan::{self, Found, Intent, Step};
use crate::report::{ReplacedService, ServiceChange};
use crate::store::Lock;
use crate::update::{Goal, Journal, Next, Options, Outcome, State, Trial, blame};
use downtime::Downtime;
use witness::Witness;

/// How much longer than containers may take to stop and to become healthy Compose may take for
/// both.
const COMPOSE_RESERVE: Duration = Duration::from_secs(30);

/// How often new containers are tried to be made, and to be recorded.
const ATTEMPTS: u32 = 2;
/// What took longer to fail is not tried again: the application may be down meanwhile.
const SOON: Duration = Duration::from_secs(30);
/// The pause before something is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Update to the latest versions, and restore what ran if they do not become healthy
#[derive(Debug, Args)]
pub struct UpdateSafe {
    #[command(flatten)]
    services: Services,
    /// Update the service to this version, not to what its tag names
    #[arg(long, value_name = "TAG", requires = "services", conflicts_with = "retry")]
    to: Option<Tag>,
    /// Finish an update that was interrupted
    #[arg(
        long,
        conflicts_with_all = ["abort", "dry_run", "retry", "no_data_backup", "services"]
    )]
    resume: bool,
    /// Restore what ran before an update that was interrupted
    #[arg(long, conflicts_with_all = ["dry_run", "retry", "no_data_backup", "services"])]
    abort: bool,
    /// Take versions too that an earlier update found bad, or that were rolled back by hand
    #[arg(long)]
    retry: bool,
    /// Leave out the data backup, this once
    #[arg(long)]
    no_data_backup: bool,
    /// Restore only the services whose new version fails, and keep the others' (exit 9)
    #[arg(long, conflicts_with_all = ["resume", "abort"])]
    keep_going: bool,
    /// Wait this long for the containers to become healthy, or longer where their own health checks
    /// allow more [default: the manifest's, else 120s]
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    timeout: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for UpdateSafe {
    fn has_safe_points(&self) -> bool {
        true
    }

    fn effect(&self) -> Effect {
        // Finishes or undoes an unfinished update, or refuses by itself.
        if self.dry_run { Effect::Plans } else { Effect::None }
    }

    /// # Errors
    ///
    /// Nothing was stopped: the manifest, the disk or an unfinished update (exit 3), another dkv
    /// (4), a registry (5), Docker (6). The update failed: what ran is back and healthy (7), or not
    /// (8). Interrupted (130): what ran is back; after a second request the journal tells the next run.
    async fn run(self, app: &App) -> Result<Exit> {
        let Self { resume, abort, retry, no_data_backup, keep_going, timeout, dry_run, .. } = self;
        let options = Options { retry, no_data_backup, keep_going, timeout };
        if resume || abort {
            let lock = begin(app)?;
            return match app.journal()? {
                Some(journal) => self.take_up(app, &lock, journal).await,
                None => Err(error::state("there is no unfinished update-safe")
                    .with_hint("nothing is to be done")
                    .into()),
            };
        }
        let names = self.services.names();
        let Some(tag) = &self.to else {
            let goal = Goal::Latest(names);
            return carry_out(app, Order { options, goal, change: None }, dry_run).await;
        };
        let [name] = names.as_slice() else {
            return Err(error::usage("--to names the version of one service")
                .with_hint(format!(
                    "`dkv update-safe {} --to {tag}`",
                    names.first().map_or("SERVICE", ServiceName::as_str)
                ))
                .into());
        };
        let deployment = Deployment::open_recorded(app)?;
        let service = deployment.find(name)?;
        let manner = Manner { dry_run, pulls: true, keep_going: false };
        let step = plan_version(&deployment, service, tag, None, &Intent::Version, manner).await?;
        let change = Some(Change::of(vec![step]));
        let goal = Goal::Version(Some(tag.clone()));
        carry_out(app, Order { options, goal, change }, dry_run).await
    }
}

/// What is to run, and how to get there.
pub(super) struct Order {
    /// How it goes about it.
    pub options: Options,
    /// What is to run.
    pub goal: Goal,
    /// What becomes of the record, where that is known already.
    pub change: Option<Change>,
}

/// Makes the deployment run what `order` says: after it that runs and is healthy and recorded, or
/// what ran before does.
///
/// # Errors
///
/// As for [`UpdateSafe`].
pub(super) async fn carry_out(app: &App, order: Order, dry_run: bool) -> Result<Exit> {
    if dry_run {
        return prepare::show_plan(app, order).await;
    }
    let lock = begin(app)?;
    match app.journal()? {
        Some(journal) if journal.state.is_unfinished() => Err(unfinished(&journal).into()),
        _ => RunningUpdate::note(app, &lock, order).await?.run().await,
    }
}

/// Takes the operation lock for what replaces containers.
fn begin(app: &App) -> Result<Lock> {
    let lock = app.begin_operation()?;
    app.store.check_writable(None)?;
    Ok(lock)
}

impl UpdateSafe {
    /// Finishes or undoes an update that was interrupted.
    async fn take_up(&self, app: &App, lock: &Lock, journal: Journal) -> Result<Exit> {
        let state = if self.abort { journal.state.aborted() } else { journal.state.resumed() };
        let goes_on = state.is_some() || self.resume;
        if goes_on {
            app.decrypt().await?;
        }
        let deployment = Deployment::open(app)?;
        if goes_on {
            let option = if self.abort { "--abort" } else { "--resume" };
            prepare::check_setting(&deployment, &journal, option).await?;
        }
        let Some(state) = state else {
            forget_kept(app, deployment.recorded(), &journal).await;
            app.store.remove_journal(lock)?;
            if self.abort {
                app.ui.status("Nothing had been stopped or replaced; what ran before runs");
                return report::show_restored(app);
            }
            let Goal::Latest(_) = &journal.goal else {
                return Err(error::state("nothing had been stopped or replaced, or is now")
                    .with_hint("run the command again that was interrupted")
                    .into());
            };
            app.ui.status("Nothing had been stopped or replaced; beginning anew");
            let order = Order { options: journal.options, goal: journal.goal, change: None };
            return RunningUpdate::note(app, lock, order).await?.run().await;
        };
        if self.abort && state == State::Recording {
            app.ui.warn(
                "the new versions are healthy and partly recorded already: finishing; `dkv \
                rollback` goes back",
            );
        }
        let mut update = RunningUpdate::continue_from(app, lock, journal).await?;
        update.is_abort = self.abort;
        if let Some(timeout) = self.timeout {
            update.launch.options.timeout = Some(timeout);
        }
        update.enter(state)?;
        update.run().await
    }
}

/// An update at work.
struct RunningUpdate<'a> {
    app: &'a App,
    /// The operation lock; none while a plan is only shown.
    lock: Option<&'a Lock>,
    launch: Launch<'a>,
    docker: Docker,
    project: Project,
    journal: Journal,
    /// What is recorded in the end; of an update that was taken up again, it is in the journal.
    change: Option<Change>,
    /// What is told of services that are left alone.
    others: Vec<ServiceChange>,
    /// What Compose may still pull.
    pull: Pull,
    report: crate::report::SafeUpdate,
    judged: Option<health::Judgement>,
    downtime: Downtime,
    /// How the containers were made that give way.
    blueprints: Vec<Blueprint>,
    /// What is done to the new containers from outside.
    witness: Option<Witness>,
    /// The services of which nothing new is recorded, because it runs already and is not good.
    unproven: Vec<ServiceName>,
    /// Why services are left alone that nobody could be asked about.
    put_off: Vec<anyhow::Error>,
    /// What was stopped only for the data backup.
    paused: Vec<ReplacedService>,
    is_abort: bool,
    /// The first failure.
    failure: Option<anyhow::Error>,
    /// What kept the restore from succeeding.
    restore_problems: Vec<String>,
}

impl<'a> RunningUpdate<'a> {
    /// Takes up the update of `journal`.
    async fn continue_from(app: &'a App, lock: &'a Lock, journal: Journal) -> Result<Self> {
        app.decrypt().await?;
        let options = StartOptions { timeout: journal.options.timeout, ..StartOptions::default() };
        let mut launch = Launch::assemble(app, options)?;
        launch.deployment.record()?;
        launch.deployment.hold(lock)?;
        launch.deployment.keep_awake(&journal.awake);
        launch.environment = launch.environment.with(journal.plan.variables_after.clone());
        let project = launch.deployment.project_with(&journal.plan.variables_after).await?;
        Ok(Self::new(app, Some(lock), launch, app.docker().await?.clone(), project, journal))
    }

    fn new(
        app: &'a App,
        lock: Option<&'a Lock>,
        launch: Launch<'a>,
        docker: Docker,
        project: Project,
        journal: Journal,
    ) -> Self {
        Self {
            app,
            lock,
            launch,
            docker,
            project,
            journal,
            change: None,
            others: Vec::new(),
            pull: Pull::Never,
            report: crate::report::SafeUpdate::default(),
            judged: None,
            downtime: Downtime::default(),
            blueprints: Vec::new(),
            witness: None,
            unproven: Vec::new(),
            put_off: Vec::new(),
            paused: Vec::new(),
            is_abort: false,
            failure: None,
            restore_problems: Vec::new(),
        }
    }

    fn record(&self) -> Result<&Record> {
        self.launch.deployment.record()
    }

    /// The manifest service of each Compose service.
    fn tracked_names(&self) -> BTreeMap<String, ServiceName> {
        self.launch
            .deployment
            .tracked(&self.project)
            .into_iter()
            .map(|(name, service)| (name, service.name.clone()))
            .collect()
    }

    /// Goes from state to state until the update has ended.
    async fn run(mut self) -> Result<Exit> {
        loop {
            let worked = match self.app.interruption().is_raised() {
                true => Err(interrupted()),
                false => self.work().await,
            };
            let mut outcome = match worked {
                Ok(outcome) => outcome,
                Err(error) if error::kind(&error) == Kind::Interrupted => {
                    match self.turn_back(error) {
                        Some(outcome) => outcome,
                        None => return Err(self.interrupted()),
                    }
                }
                Err(error) => {
                    let failed = self.fail(error);
                    if self.retreat()? { Outcome::Retreat } else { failed }
                }
            };
            loop {
                match self.journal.state.after(outcome) {
                    Next::Go(next) => match self.enter(next) {
                        Ok(()) => break,
                        Err(error) => outcome = self.fail(error),
                    },
                    Next::End => return self.end().await,
                    Next::Stay => return Err(self.stuck()),
                }
            }
        }
    }

    /// What the first request to stop means: back to what ran, where containers are saved, replaced or
    /// judged; where nothing was stopped yet, the end. `None`: to stop at once, because the request is
    /// repeated.
    fn turn_back(&mut self, error: anyhow::Error) -> Option<Outcome> {
        if self.app.interruption().is_repeated() {
            return None;
        }
        match self.journal.state {
            State::Saving | State::Replacing | State::Judging => {
                self.app.interruption().tolerate_first();
                self.app
                    .ui
                    .warn("interrupted: what ran before comes back; once more stops at once");
                Some(self.fail(error))
            }
            State::Preparing => {
                let message = format!("interrupted: {}", self.journal.state.leaves());
                let error = Error::new(Kind::Interrupted, message)
                    .with_hint("`dkv update-safe` begins anew");
                Some(self.fail(error.into()))
            }
            State::Recording | State::Restoring | State::RestoreFailed => None,
        }
    }

    /// Whether somebody's request to stop is why the update goes back.
    fn was_interrupted(&self) -> bool {
        self.failure.as_ref().is_some_and(|error| error::kind(error) == Kind::Interrupted)
    }

    /// The work of the present state.
    async fn work(&mut self) -> Result<Outcome> {
        match self.journal.state {
            State::Preparing => {
                let interruption = self.app.interruption().clone();
                let prepared = tokio::select! {
                    prepared = self.prepare() => prepared,
                    () = interruption.raised() => Err(interrupted()),
                };
                prepared.map(|()| {
                    if self.journal.plan.changed.is_empty() {
                        Outcome::Nothing
                    } else {
                        Outcome::Done
                    }
                })
            }
            State::Saving => self.save_data().await.map(|()| Outcome::Done),
            State::Replacing => self.replace().await.map(|()| Outcome::Done),
            State::Judging => self.judge_new().await.map(|()| Outcome::Done),
            State::Recording => self.commit().await.map(|()| Outcome::Done),
            State::Restoring => self
                .restore_persistently()
                .await
                .map(|is_good| if is_good { Outcome::Done } else { Outcome::Failed }),
            State::RestoreFailed => Ok(Outcome::Failed),
        }
    }

    /// Writes down that the work of `next` begins.
    ///
    /// Once containers are being replaced, an older state on the disk is no danger: its work can be
    /// done again. So a journal that cannot be written stops only what has not begun.
    fn enter(&mut self, next: State) -> Result<()> {
        if matches!(next, State::Recording | State::Restoring) {
            // What comes now ends whole, and soon.
            self.app.interruption().tolerate_first();
        }
        let (before, was_replacing) = (self.journal.state, self.journal.is_replacing);
        self.journal.state = next;
        self.journal.is_replacing |= next == State::Replacing;
        let written = self.write_journal();
        if written.is_err()
            && !was_replacing
            && next != State::Restoring
            && next != State::RestoreFailed
        {
            (self.journal.state, self.journal.is_replacing) = (before, was_replacing);
            return written;
        }
        if let Err(error) = written {
            self.app.ui.warn(format!("{error:#}"));
        }
        Ok(())
    }

    fn write_journal(&self) -> Result<()> {
        self.lock.map_or(Ok(()), |lock| self.app.store.write_journal(lock, self.journal.text()?))
    }

    fn remove_journal(&self) -> Result<()> {
        self.lock.map_or(Ok(()), |lock| self.app.store.remove_journal(lock))
    }

    /// Keeps a failure for the one who reads of it in the end. The first is the cause of the
    /// others.
    fn fail(&mut self, error: anyhow::Error) -> Outcome {
        if self.journal.failure.reason.is_empty() {
            self.journal.failure.reason = format!("{error:#}").lines().map(str::to_owned).collect();
        }
        self.failure.get_or_insert(error);
        Outcome::Failed
    }

    /// The old containers give way to the new ones.
    async fn replace(&mut self) -> Result<()> {
        self.app.ui.step("Replacing", self.journal.replaced().join(", "));
        self.downtime.watch(&self.docker, &self.journal.project);
        self.begin_trial();
        self.take_blueprints().await;
        let environment =
            self.launch.environment.clone().with(self.journal.plan.variables_after.clone());
        let mut attempts = 1..=ATTEMPTS;
        let (judged, error) = loop {
            let begun = Instant::now();
            let Err(error) = self.up(self.journal.replaced(), &environment).await else {
                return Ok(());
            };
            if error::kind(&error) == Kind::Interrupted {
                return Err(error);
            }
            // Compose says only that something failed; the containers say what.
            let judged = self.snapshot().await?;
            // A moment's trouble of the engine's shows in none of them.
            let is_explained = judged.failures().any(|one| match &one.verdict {
                Verdict::Failed(Cause::NeverStarted(_) | Cause::Missing) => false,
                _ => !self.journal.knew(one.container.as_ref()),
            });
            let is_last = attempts.next() == Some(ATTEMPTS);
            if is_explained
                || is_last
                || begun.elapsed() > SOON
                || self.app.interruption().is_raised()
            {
                break (judged, error);
            }
            self.app.ui.warn(format!("{error:#}; trying again"));
            tokio::time::sleep(PAUSE).await;
        };
        // What Compose has stopped to make way is no cause.
        let new = judged.failures().filter(|one| !self.journal.knew(one.container.as_ref()));
        let mut reason: Vec<String> = new.flat_map(health::explain).collect();
        reason.extend(format!("{error:#}").lines().map(str::to_owned));
        self.blame(&judged).await;
        self.journal.failure.reason = reason;
        Err(error)
    }

    /// One call for all of `services`, so that order and conditions among them hold.
    async fn up(&self, services: Vec<String>, environment: &compose::Environment) -> Result<()> {
        self.settle_half_made(&services).await?;
        let kept = self.keep_logs(&services).await;
        let counts = self.journal.counts.iter().filter(|(name, _)| services.contains(name));
        let counts = counts.map(|(name, count)| (name.clone(), *count)).collect();
        let recreate = match self.journal.plan.followers.is_empty() {
            true => Recreate::Changed,
            false => Recreate::Dependents,
        };
        let up = Up { services, no_deps: true, pull: self.pull, recreate, counts };
        let run = async |up| self.compose(&Action::Up(up), environment).await;
        let started = match run(up.clone()).await {
            Ok(()) => self.launch.rejoin(&self.project, &up, run).await,
            Err(error) => Err(error),
        };
        kept.finish(self.app).await;
        started
    }

    /// Archives what the containers of `services` have said, and listens to their last words. What
    /// goes so that what ran comes back keeps nobody waiting.
    async fn keep_logs(&self, services: &[String]) -> logs::Listening {
        let keeping = match self.journal.state {
            State::Restoring => Keeping::Heard,
            _ => Keeping::Saved,
        };
        logs::keep(&self.launch.deployment, &self.project.name, keeping, |name| {
            services.iter().any(|service| service == name)
        })
        .await
    }

    /// Runs Compose, but no longer than containers may take to stop and to become healthy: what
    /// hangs must not keep the old versions from coming back.
    async fn compose(&self, action: &Action, environment: &compose::Environment) -> Result<()> {
        let expectations = self.launch.expectations(&self.project);
        let own = expectations.iter().filter_map(|(_, expectation)| expectation.timeout).max();
        let own = own.unwrap_or_default().max(self.checks_allow().await);
        let healthy = self.launch.limits().timeout.max(own);
        // Compose waits for one after the other.
        let healthy = healthy.saturating_mul(expectations.longest_wait().max(1));
        let stopped = self
            .project
            .services
            .iter()
            .map(|service| service.stop_grace_period)
            .max()
            .unwrap_or_default();
        let limit = healthy.saturating_add(stopped).saturating_add(COMPOSE_RESERVE);
        self.app.touch_containers();
        let deployment = &self.launch.deployment;
        deployment.compose()?.run_within(limit, deployment.all(), action, environment).await
    }

    /// How long the health checks of what ran and of what shall run let a container take.
    async fn checks_allow(&self) -> Duration {
        let ran = self.journal.ran.iter().map(|ran| ran.patience);
        let services = self.project.services.iter();
        let services = services.filter(|service| self.journal.is_changed(&service.name));
        let checks = services.map(|service| async {
            let image = match &service.image {
                // The time of a check that cannot be asked for is the default's.
                Some(image) => self.docker.image_health_check(image).await.ok().flatten(),
                None => None,
            };
            health::check_in_force(&service.healthcheck, image).map(|check| check.patience())
        });
        let checks = futures_util::future::join_all(checks).await;
        ran.chain(checks.into_iter().flatten()).max().unwrap_or_default()
    }

    /// What of the new state must be good: what was replaced, and what was good before.
    fn counts(&self, compose_service: &str) -> bool {
        self.is_new(compose_service)
            || self.journal.was_good(compose_service)
            || self.journal.is_follower(compose_service)
    }

    /// Whether a Compose service runs a new release.
    fn is_new(&self, compose_service: &str) -> bool {
        self.journal.is_changed(compose_service)
            && self
                .tracked_names()
                .get(compose_service)
                .is_none_or(|service| !self.journal.is_given_up(service))
    }

    async fn snapshot(&self) -> Result<health::Judgement> {
        let expectations = self.expectations(|name| self.counts(name));
        let (docker, project) = (&self.docker, &self.journal.project);
        let limits = self.launch.limits();
        health::patiently(async || {
            health::snapshot(docker, project, &expectations, limits, clock::now()).await
        })
        .await
    }

    /// What is asked of the services: what ran before the update must not end now, and what had done
    /// its work before must do it again.
    fn expectations(&self, counts: impl Fn(&str) -> bool) -> health::Expectations {
        let asked = self.launch.expectations(&self.project).counting(counts);
        let asked = asked.staying(|name| self.journal.was_serving(name));
        asked.completing(|name| {
            self.journal.is_replaced(name) && self.journal.completed.contains(name)
        })
    }

    /// Waits until all that counts is good, or something has failed.
    async fn await_health(&self, expectations: health::Expectations) -> Result<health::Judgement> {
        self.launch
            .wait(&self.journal.project, &expectations, |seen| self.downtime.note_good(seen))
            .await
    }

    async fn judge_new(&mut self) -> Result<()> {
        self.app.ui.step("Checking", "that the new containers are healthy");
        self.begin_trial();
        let expectations =
            self.expectations(|name| self.counts(name)).on_trial(|name| self.is_new(name));
        let judged = self.await_health(expectations).await?;
        let too_few = judged.too_few(self.wanted());
        if judged.failures().next().is_none() && too_few.is_empty() {
            self.judged = Some(judged);
            return Ok(());
        }
        let mut reason: Vec<String> = judged.failures().flat_map(health::explain).collect();
        reason.extend(too_few);
        self.blame(&judged).await;
        Err(error::docker(reason.join("\n")).into())
    }

    /// How many containers what is replaced shall have.
    fn wanted(&self) -> impl Iterator<Item = (String, i64)> {
        self.journal.replaced().into_iter().map(|name| {
            let kept = self.journal.counts.get(&name).map(|count| i64::from(*count));
            let written = || self.project.service(&name).map_or(1, |service| service.scale);
            let count = kept.unwrap_or_else(written);
            (name, count)
        })
    }

    /// From now on what happens to containers bears on whose fault a failure is.
    fn begin_trial(&mut self) {
        let (docker, project) = (&self.docker, &self.journal.project);
        self.witness.get_or_insert_with(|| Witness::begin(docker, project));
    }

    /// Remembers whose new release is at fault, and whose is not.
    async fn blame(&mut self, judged: &health::Judgement) {
        let seen = match &self.witness {
            Some(witness) => witness.report(&self.docker).await,
            None => witness::Seen::default(),
        };
        let trial = Trial {
            ran: &self.journal.ran,
            changed: &self.journal.plan.changed,
            tracked: &self.tracked_names(),
            targets: &self.journal.plan.targets,
            expectations: &self.launch.expectations(&self.project),
            signalled: &seen.signalled,
            away: seen.away,
        };
        self.journal.failure.blame = blame(judged, &trial);
    }

    /// Writes manifest and `versions.env`.
    async fn commit(&mut self) -> Result<()> {
        let mut change = match self.change.take() {
            Some(change) => change,
            None => self.planned_change()?,
        };
        change.about.data_backup.clone_from(&self.journal.saving.data_backup);
        if change.is_change() {
            let mut attempts = 1..=ATTEMPTS;
            // Until something is written, it can be tried again.
            let committed = loop {
                match change.commit_kept(&mut self.launch.deployment).await {
                    Err(error)
                        if error::kind(&error) == Kind::Docker
                            && attempts.next() != Some(ATTEMPTS) =>
                    {
                        self.app.ui.warn(format!("{error:#}; trying again"));
                        tokio::time::sleep(PAUSE).await;
                        self.await_engine().await?;
                    }
                    committed => break committed?,
                }
            };
            self.report.files = committed.files;
        }
        self.change = Some(change);
        Ok(())
    }

    /// What an update that was taken up again records. What is recorded already becomes no change.
    fn planned_change(&self) -> Result<Change> {
        let record = self.record()?;
        let stamp = self.app.stamp();
        if let Goal::Record { text, kind, takes } = &self.journal.goal {
            if Digest::of(&record.snapshot.bytes) == *text {
                return Ok(Change::default());
            }
            let about = About { kind: *kind, takes: takes.clone(), ..About::default() };
            return undo::back_to(&self.launch.deployment, text, about);
        }
        let steps = self.journal.plan.targets.iter().filter_map(|target| {
            let service = record.service(&target.service)?;
            let is_it = |release: &Release| release.bytes.name() == target.bytes.name();
            if self.journal.goal.is_return() && service.current().is_some_and(is_it) {
                return Some(Step::unchanged(service));
            }
            let mut step = match &self.journal.goal {
                Goal::Previous => plan::rollback(service, &stamp)?,
                Goal::Release => {
                    let place = service.history.entries().iter().position(is_it)?;
                    plan::move_to(service, place, &stamp)
                }
                Goal::Latest(_) | Goal::Version(_) | Goal::Record { .. } => {
                    let found = Found {
                        asked: target.tag.clone(),
                        version: Some(target.tag.clone()),
                        bytes: target.bytes.clone(),
                    };
                    let intent = match &self.journal.goal {
                        Goal::Version(_) => Intent::Version,
                        _ => Intent::Latest,
                    };
                    plan::advance(service, found, &intent, &stamp)
                }
            };
            if let Goal::Version(Some(asked)) = &self.journal.goal {
                plan::follow(&mut step, asked);
            }
            step.after
                .rejected
                .retain(|rejected| Some(&rejected.digest) != target.bytes.digest.as_ref());
            Some(step)
        });
        Ok(Change::of(steps.collect()))
    }

    /// The update is over.
    async fn end(mut self) -> Result<Exit> {
        match self.journal.state {
            State::Recording => {
                if let Err(error) = self.remove_journal() {
                    if self.app.store.read_journal()?.is_some() {
                        let message = format!(
                            "the new versions run and are recorded, but the journal of this update \
                            stays: {error:#}"
                        );
                        return Err(error::state(message)
                            .with_hint("`dkv update-safe --resume` removes it")
                            .into());
                    }
                    self.app.ui.warn(format!("{error:#}"));
                }
                forget_kept(self.app, self.launch.deployment.recorded(), &self.journal).await;
                let change = self.change.take().unwrap_or_default();
                self.show_updated(&change.steps)
            }
            State::Preparing => {
                forget_kept(self.app, self.launch.deployment.recorded(), &self.journal).await;
                self.remove_journal()?;
                Err(self.failure.take().unwrap_or_else(interrupted))
            }
            _ => self.end_restored().await,
        }
    }

    fn interrupted(&self) -> anyhow::Error {
        Error::new(Kind::Interrupted, format!("interrupted: {}", self.journal.state.leaves()))
            .with_hint(
                "`dkv update-safe --resume` finishes the update, `dkv update-safe --abort` \
                restores what ran before",
            )
            .into()
    }

    /// The update can neither go on nor back by itself.
    fn stuck(&mut self) -> anyhow::Error {
        if self.journal.state == State::RestoreFailed {
            let error = self.restore_failed();
            self.note_attempt(Some(&error));
            return error;
        }
        let error = self.failure.as_ref();
        let kind = error.map_or(Kind::State, error::kind);
        let message = format!(
            "the new versions run and are healthy, but are not recorded: {}",
            self.journal.failure.reason.join("\n")
        );
        let hint = error
            .and_then(error::find)
            .and_then(Error::hint)
            .map_or_else(String::new, |hint| format!("{hint}; then "));
        Error::new(kind, message)
            .with_hint(format!("{hint}`dkv update-safe --resume` records them"))
            .into()
    }
}

/// What stops the work of a state where it can be stopped.
fn interrupted() -> anyhow::Error {
    Error::new(Kind::Interrupted, "interrupted").into()
}

/// Removes the tags that kept what ran and what was found bad, unless they are in a service's
/// history or a container needs them: then they stay.
async fn forget_kept(app: &App, record: Option<&Record>, journal: &Journal) {
    let (Ok(docker), Some(record)) = (app.docker().await, record) else { return };
    let ran = journal.kept.iter().filter(|kept| kept.tag != kept.keep_tag.as_str());
    let ran = ran.map(|kept| (kept.repository.clone(), kept.keep_tag.clone()));
    let rejected = journal.failure.blame.rejected.iter().filter_map(|finding| {
        let release = journal.plan.target(&finding.service)?.release();
        let repository = record.service(&finding.service)?.image.clone()?;
        Some((repository, plan::keep_tag(&release, &record.hash)?))
    });
    let remembered = Remembered::of(record);
    let gone = ran.chain(rejected).filter(|(_, tag)| remembered.has_forgotten(tag));
    let removals = gone.map(|(repository, tag)| async move {
        if let Err(error) = docker.untag(&repository, &tag).await {
            tracing::info!("{} stays: {error:#}", repository.with_tag(&tag));
        }
    });
    futures_util::future::join_all(removals).await;
}
