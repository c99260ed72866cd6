//! What ran comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{PAUSE, RunningUpdate, forget_kept, interrupted, report};
use crate::app::Exit;
use crate::change::{self, About, Attempt, Change};
use crate::clock;
use crate::compose::Action;
use crate::docker::{Blueprint, ContainerFilter, ContainerState};
use crate::error::{self, Kind};
use crate::health;
use crate::model::operation::{Moved, Named, What};
use crate::model::reference::ServiceName;
use crate::plan::Step;
use crate::update::{State, Target, lacking, reject};

/// How long an engine that is away is waited for before what ran is given up.
const ENGINE_PATIENCE: Duration = Duration::from_secs(300);
/// How often it is tried to bring back what ran, where the engine goes away in the middle of it.
const RESTORES: u32 = 3;

impl RunningUpdate<'_> {
    /// Brings back what ran, and once more where the engine has failed at it: giving up is the last
    /// resort.
    pub(super) async fn restore_persistently(&mut self) -> Result<bool> {
        self.begin_trial();
        for number in 1..=RESTORES {
            let begun = clock::now();
            let failure = match self.restore().await {
                Ok(true) => return Ok(true),
                Ok(false) if self.was_away_since(begun) => {
                    "the Docker engine was away meanwhile".to_owned()
                }
                Ok(false) => return Ok(false),
                Err(error) => {
                    let failure = not_interrupted(error)?;
                    self.restore_problems = vec![failure.clone()];
                    failure
                }
            };
            if number < RESTORES {
                self.app.ui.warn(format!("{failure}; restoring again"));
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(false)
    }

    fn was_away_since(&self, begun: DateTime<Utc>) -> bool {
        self.witness.as_ref().is_some_and(|witness| witness.away() >= Some(begun))
    }

    /// Brings back the images that ran and starts what was stopped; whether all that was good is
    /// good again.
    async fn restore(&mut self) -> Result<bool> {
        if !self.journal.is_replacing && self.journal.saving.stopped.is_empty() {
            return Ok(true);
        }
        self.app.ui.step("Restoring", "what ran before");
        let replaced = self.journal.is_replacing;
        let mut problems = Vec::new();
        self.await_engine().await?;
        let mut stopped = self.ended().await?;
        stopped.extend(self.journal.saving.stopped.iter().cloned());
        stopped.retain(|name| !(replaced && self.journal.is_replaced(name)));
        stopped.sort();
        stopped.dedup();
        if let Err(error) = self.start_again(&stopped).await {
            problems.push(not_interrupted(error)?);
        }
        let mut jobs_left_out = Vec::new();
        if replaced {
            match self.bring_back_patiently().await {
                Ok(left_out) => jobs_left_out = left_out,
                Err(error) => problems.push(not_interrupted(error)?),
            }
        }
        let expectations = self.expectations(|name| {
            self.journal.was_good(name) && !jobs_left_out.iter().any(|job| job == name)
        });
        let judged = self.await_health(expectations).await?;
        problems.extend(judged.failures().flat_map(health::explain));
        let ran = self.journal.replaced().into_iter();
        let ran = ran.map(|name| (self.journal.containers_of(&name), name));
        let mut short = judged.too_few(ran.map(|(count, name)| (name, count)));
        if short.is_empty() {
            short = lacking(&self.journal.ran, &judged);
        }
        let is_good = judged.failures().next().is_none() && short.is_empty();
        problems.extend(short);
        self.restore_problems = problems;
        if self.journal.is_replacing {
            self.record_rejected();
        }
        Ok(is_good)
    }

    /// The services that ran and were good, and have no container that runs now: an engine that was
    /// started again brings back only what has a restart policy.
    async fn ended(&self) -> Result<Vec<String>> {
        let filter = ContainerFilter::project(&self.journal.project);
        let present = health::patiently(async || self.docker.containers(&filter).await).await?;
        let ended = present.iter().filter_map(|one| one.labels.service()).filter(|name| {
            let mut mine = present.iter().filter(|one| one.labels.service() == Some(name));
            self.journal.was_serving(name)
                && mine.all(|one| {
                    matches!(one.state, ContainerState::Exited | ContainerState::Created)
                })
        });
        Ok(ended.map(str::to_owned).collect())
    }

    /// Waits until the engine answers: without it nothing can be brought back or recorded.
    pub(super) async fn await_engine(&self) -> Result<()> {
        let begun = Instant::now();
        let mut is_told = false;
        while let Err(error) = self.docker.greet().await {
            if begun.elapsed() > ENGINE_PATIENCE {
                return Err(error);
            }
            if !is_told {
                is_told = true;
                self.app.ui.warn(format!(
                    "{error:#}; waiting up to {} s for it",
                    ENGINE_PATIENCE.as_secs()
                ));
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.app.interruption().raised() => return Err(interrupted()),
            }
        }
        Ok(())
    }

    /// Brings back what ran, by Compose if that can be; returns the jobs that could not do their
    /// work again.
    ///
    /// A failure may be the engine's, which is waited for and asked again, or that of a job from
    /// before, without which the others are started; or it is the host's or the Compose files'.
    /// Then the containers from before are started or made again as they were.
    async fn bring_back_patiently(&self) -> Result<Vec<String>> {
        let jobs = self.old_jobs();
        if !jobs.is_empty() {
            self.app.ui.status(format!(
                "{} will do its work once more, as it was before the update",
                jobs.join(", ")
            ));
        }
        let Err(first) = self.bring_back(&[]).await else { return Ok(Vec::new()) };
        let mut failure = anyhow::anyhow!(not_interrupted(first)?);
        for left_out in [Vec::new(), jobs.clone()] {
            self.app.ui.warn(format!("{failure:#}; trying again"));
            tokio::time::sleep(PAUSE).await;
            self.await_engine().await?;
            match self.bring_back(&left_out).await {
                Ok(()) => return Ok(left_out),
                Err(error) => failure = anyhow::anyhow!(not_interrupted(error)?),
            }
        }
        self.await_engine().await?;
        match self.make_again().await {
            Ok(()) => Ok(jobs),
            Err(error) => Err(failure.context(format!("{error:#}"))),
        }
    }

    /// The jobs among what is brought back: to start them is to run them.
    fn old_jobs(&self) -> Vec<String> {
        let replaced = self.journal.replaced().into_iter();
        replaced.filter(|name| self.journal.completed.contains(name)).collect()
    }

    /// Notes how the containers are made that are about to give way.
    pub(super) async fn take_blueprints(&mut self) {
        let serving = self
            .journal
            .ran
            .iter()
            .filter(|ran| ran.is_running && self.journal.is_replaced(&ran.compose_service));
        let asked = serving.map(|ran| self.docker.blueprint(&ran.container));
        for blueprint in futures_util::future::join_all(asked).await {
            match blueprint {
                Ok(blueprint) => self.blueprints.extend(blueprint),
                Err(error) => tracing::info!("what is replaced could not be made again: {error:#}"),
            }
        }
        self.blueprints = Blueprint::peers_first(std::mem::take(&mut self.blueprints));
    }

    /// Starts the containers that ran, or makes them again as they were, without Compose.
    async fn make_again(&self) -> Result<()> {
        self.app.ui.step("Restoring", "the very containers that ran, without Compose");
        let present =
            self.docker.container_details(&ContainerFilter::project(&self.journal.project)).await?;
        let new = present.iter().filter(|container| {
            let service = container.labels.service().filter(|_| !container.labels.is_one_off());
            service.is_some_and(|service| self.journal.is_replaced(service))
                && !self.journal.knew(Some(container))
        });
        for container in new {
            self.docker.remove_container(&container.id).await?;
        }
        // What a container has of another is lost when that is made or started again.
        let (mut renewed, mut started) = (BTreeMap::new(), BTreeSet::new());
        for blueprint in &self.blueprints {
            let Blueprint { id, name, .. } = blueprint;
            let old = present.iter().find(|container| container.id == *id);
            let has_lost_peer = blueprint.peers().any(|peer| renewed.contains_key(&peer));
            let old = match old.filter(|_| has_lost_peer) {
                None => old,
                Some(old) => {
                    self.docker.remove_container(&old.id).await?;
                    None
                }
            };
            match old {
                None => {
                    let new = self.docker.make_again(blueprint, &renewed).await?;
                    started.extend([new.clone(), name.clone()]);
                    renewed.insert(id.clone(), new);
                }
                Some(old) => {
                    if old.name != *name {
                        self.docker.rename_container(id, name).await?;
                    }
                    let is_cut_off = blueprint.peers().any(|peer| started.contains(&peer));
                    match is_cut_off {
                        true => self.docker.restart_container(id).await?,
                        false => self.docker.start_container(id).await?,
                    }
                    if is_cut_off || old.state != ContainerState::Running {
                        started.extend([id.clone(), name.clone()]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Replaces the new containers by old ones, except of the services `left_out`; a service that
    /// had none has none again.
    async fn bring_back(&self, left_out: &[String]) -> Result<()> {
        let wanted = self.journal.replaced().into_iter().filter(|name| !left_out.contains(name));
        let (had, lacked): (Vec<String>, Vec<String>) =
            wanted.partition(|name| self.journal.had_container(name));
        let environment =
            self.launch.environment.clone().with(self.journal.plan.variables_before.clone());
        if !lacked.is_empty() {
            let kept = self.keep_logs(&lacked).await;
            let removed = self.compose(&Action::Remove { services: lacked }, &environment).await;
            kept.finish(self.app).await;
            removed?;
        }
        if had.is_empty() { Ok(()) } else { self.up(had, &environment).await }
    }

    /// Starts the containers of `services` and waits until those are good that were.
    pub(super) async fn start_again(&self, services: &[String]) -> Result<()> {
        if services.is_empty() {
            return Ok(());
        }
        let start = Action::Start { services: services.to_vec() };
        self.compose(&start, &self.launch.environment).await?;
        let expectations = self.expectations(|name| {
            services.iter().any(|service| service == name) && self.journal.was_good(name)
        });
        let judged = self.await_health(expectations).await?;
        let problems: Vec<String> = judged.failures().flat_map(health::explain).collect();
        if problems.is_empty() { Ok(()) } else { Err(error::docker(problems.join("\n")).into()) }
    }

    /// Remembers the digests that failed. That they cannot be written down must not hide that the
    /// old versions are back.
    pub(super) fn record_rejected(&mut self) {
        let recorded = self.rejections().and_then(|steps| {
            if steps.is_empty() {
                return Ok(());
            }
            let mut change = Change::of(steps);
            let exit_code = match self.journal.state {
                State::Restoring => Kind::Restored.exit_code(),
                _ => Kind::Partial.exit_code(),
            };
            let reason = self.journal.failure.reason.join("\n");
            change.about = self.about_attempt(reason, exit_code);
            change.commit(&mut self.launch.deployment).map(drop)
        });
        if let Err(error) = recorded {
            self.app.ui.warn(format!("what failed cannot be recorded as rejected: {error:#}"));
        }
    }

    fn rejections(&self) -> Result<Vec<Step>> {
        let record = self.record()?;
        let at = self.app.stamp().at;
        let steps = self.journal.failure.blame.rejected.iter().filter_map(|finding| {
            let service = record.service(&finding.service)?;
            let target = self.journal.plan.target(&finding.service)?;
            let reason = finding.headline();
            let mut step = Step::unchanged(service);
            reject(&mut step.after, target.bytes.digest.as_ref()?, &target.tag, reason, &at);
            Some(step)
        });
        Ok(steps.collect())
    }

    /// The end of an update that was undone or has failed.
    pub(super) async fn end_restored(mut self) -> Result<Exit> {
        self.remove_journal()?;
        forget_kept(self.app, self.launch.deployment.recorded(), &self.journal).await;
        if self.is_abort {
            self.note_attempt(None);
            return report::show_restored(self.app);
        }
        let error = match self.journal.is_replacing || self.was_interrupted() {
            true => self.restored(),
            false => self
                .failure
                .take()
                .unwrap_or_else(|| error::state(self.journal.failure.reason.join("\n")).into()),
        };
        self.note_attempt(Some(&error));
        Err(error)
    }

    /// Writes down that the update was tried in vain, unless the rejection of what failed has said
    /// so; without a failure, that it was undone as it was asked for.
    pub(super) fn note_attempt(&mut self, failure: Option<&anyhow::Error>) {
        if self.app.operation().is_some() {
            return;
        }
        let about = match failure {
            Some(failure) => {
                self.about_attempt(format!("{failure:#}"), error::kind(failure).exit_code())
            }
            None => {
                let begun = &self.journal.started_at;
                let mut about = self.about_attempt(format!("the update of {begun} was undone"), 0);
                about.attempt.iter_mut().for_each(|attempt| attempt.services.clear());
                about
            }
        };
        if let Err(error) = change::note_attempt(&mut self.launch.deployment, &about) {
            self.app.ui.warn(format!("this is not in the log of operations: {error:#}"));
        }
    }

    /// What is written down of an update that failed.
    fn about_attempt(&self, reason: String, exit_code: u8) -> About {
        let tracked = self.tracked_names();
        let tried: BTreeSet<&ServiceName> =
            self.journal.plan.changed.iter().filter_map(|name| tracked.get(name)).collect();
        let targets = self.journal.plan.targets.iter();
        let targets = targets.filter(|target| tried.contains(&target.service));
        let services = targets.map(|target| self.moved(target));
        let attempt = Some(Attempt { services: services.collect(), reason, exit_code });
        let data_backup = self.journal.saving.data_backup.clone();
        About { attempt, data_backup, ..About::default() }
    }

    /// What a target's service is by the record, and is to become.
    pub(super) fn moved(&self, target: &Target) -> Moved {
        let recorded = self.launch.deployment.recorded();
        let from = recorded.and_then(|record| record.service(&target.service)?.current());
        Moved {
            name: target.service.clone(),
            from: from.map(Named::from),
            to: Some(Named { tag: target.tag.to_string(), digest: target.bytes.name().cloned() }),
            what: What::Version,
        }
    }
}

/// The failure's words, unless it is an interruption, which ends the work.
fn not_interrupted(error: anyhow::Error) -> Result<String> {
    if error::kind(&error) == Kind::Interrupted {
        Err(interrupted())
    } else {
        Ok(format!("{error:#}"))
    }
}
