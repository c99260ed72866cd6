//! The one judgement of a container's and a deployment's health.
//!
//! The rules are pure: [`judge`] looks at one container, [`Watch`] at a deployment over time. What
//! feeds them with the daemon's answers is in [`wait`](fn@wait) and [`snapshot`].
//!
//! A container that has a health check is good as soon as the check passes, and one without after
//! it has run for the stability window; one that was seen failing or restarting during the wait
//! must afterwards stay good for that window. A new release that `update-safe` tries must in any
//! case pass all checks that fall into its first window. A one-shot is good when it has exited with
//! 0. An exit that nothing will follow, and a restart loop, fail at once. A container that the daemon
//! calls unhealthy may still recover: it has until one more check. Everything else has until its
//! deadline, which is never before the container's own health check has had all of its start period
//! and retries.
#![deny(clippy::disallowed_methods)]

mod chain;
mod explain;
mod wait;
mod watch;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use indexmap::IndexMap;

use crate::compose::config::{Condition, Healthcheck, Mode, Project, Test};
use crate::docker::{
    ContainerDetail, ContainerState, HealthCheck, HealthProbe, HealthStatus, RestartPolicy,
};
use crate::report::Standing;

pub use chain::Chain;
pub use explain::{describe, explain};
pub use wait::{patiently, snapshot, wait};
pub use watch::{Memory, Observed, Watch};

/// So many restarts, with nothing else still coming up that it may have been waiting for, are a
/// loop. The daemon's growing pauses between them make that a third of a second for what crashes at
/// once.
const RESTARTS_OF_A_LOOP: i64 = 3;

/// How patient a wait is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a service may take, unless its expectation says otherwise or its own health check
    /// allows more.
    pub timeout: Duration,
    /// How long a container without a health check must have run, and how long one that was seen
    /// failing must have been good again.
    pub stability: Duration,
    /// So many of the last log lines of a failed container are reported.
    pub log_lines: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), stability: Duration::from_secs(5), log_lines: 10 }
    }
}

/// What the Compose files ask of one Compose service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The services that it waits for before it starts.
    pub waits_for: Vec<(String, Condition)>,
    /// Whether it is a job that must finish: another service waits for that, its mode says so, or it
    /// did so before.
    pub must_complete: bool,
    /// Whether another service waits for it to be healthy.
    pub must_be_healthy: bool,
    /// Whether it ran without end before, so that an exit with 0 is none of a one-shot.
    pub must_stay: bool,
    /// Whether it is on trial: passing its health check once is not enough if the check comes again
    /// within the stability window after its start.
    pub is_on_trial: bool,
    /// Whether it must have a container.
    pub is_required: bool,
    /// Whether its health decides about the deployment's.
    pub counts: bool,
    /// How long it may take, if not as long as the others.
    pub timeout: Option<Duration>,
}

/// What the Compose files ask of all services. Services that are not in it do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectations(IndexMap<String, Expectation>);

impl Expectations {
    /// What the Compose files say: every service must have a container, unless it is scaled to
    /// none, and counts.
    #[must_use]
    pub fn of(project: &Project) -> Self {
        let dependencies = project.services.iter().map(|service| {
            let waits_for = service
                .depends_on
                .iter()
                .map(|(name, dependency)| (name.clone(), dependency.condition))
                .collect();
            (service.name.clone(), waits_for)
        });
        let mut expectations = Self::from_dependencies(dependencies);
        for service in &project.services {
            if let Some(expectation) = expectations.0.get_mut(&service.name) {
                expectation.is_required = service.is_wanted();
                expectation.must_complete |= service.mode == Mode::Job;
            }
        }
        expectations
    }

    /// What the labels of running containers say, for when the Compose files cannot be asked.
    /// Nothing is required; Compose v1 leaves no dependencies in labels.
    #[must_use]
    pub fn from_containers(containers: &[ContainerDetail]) -> Self {
        Self::from_dependencies(containers.iter().filter_map(|container| {
            let waits_for = container.labels.depends_on().into_iter().map(|(name, word)| {
                let condition = match word {
                    "service_healthy" => Condition::Healthy,
                    "service_completed_successfully" => Condition::CompletedSuccessfully,
                    _ => Condition::Started,
                };
                (name.to_owned(), condition)
            });
            Some((container.labels.service()?.to_owned(), waits_for.collect()))
        }))
    }

    fn from_dependencies(
        dependencies: impl Iterator<Item = (String, Vec<(String, Condition)>)>,
    ) -> Self {
        let mut all: IndexMap<String, Expectation> = dependencies
            .map(|(name, waits_for)| {
                (name, Expectation { waits_for, counts: true, ..Expectation::default() })
            })
            .collect();
        let conditions: Vec<_> =
            all.values().flat_map(|expectation| expectation.waits_for.clone()).collect();
        for (name, condition) in conditions {
            if let Some(expectation) = all.get_mut(&name) {
                expectation.must_complete |= condition == Condition::CompletedSuccessfully;
                expectation.must_be_healthy |= condition == Condition::Healthy;
            }
        }
        Self(all)
    }

    /// Lets only services count that `counts` chooses; the others are still looked at, because they
    /// may be what blocks one that counts.
    #[must_use]
    pub fn counting(mut self, counts: impl Fn(&str) -> bool) -> Self {
        for (name, expectation) in &mut self.0 {
            expectation.counts &= counts(name);
        }
        self
    }

    /// Lets services that `stay` chooses not end, whatever their exit code.
    #[must_use]
    pub fn staying(mut self, stay: impl Fn(&str) -> bool) -> Self {
        for (name, expectation) in &mut self.0 {
            expectation.must_stay |= stay(name);
        }
        self
    }

    /// Lets services that `complete` chooses end with 0: jobs.
    #[must_use]
    pub fn completing(mut self, complete: impl Fn(&str) -> bool) -> Self {
        for (name, expectation) in &mut self.0 {
            expectation.must_complete |= complete(name);
        }
        self
    }

    /// Lets services that `is_new` chooses prove themselves for the stability window.
    #[must_use]
    pub fn on_trial(mut self, is_new: impl Fn(&str) -> bool) -> Self {
        for (name, expectation) in &mut self.0 {
            expectation.is_on_trial |= is_new(name);
        }
        self
    }

    /// Gives one service its own deadline.
    #[must_use]
    pub fn with_timeout(mut self, service: &str, timeout: Duration) -> Self {
        if let Some(expectation) = self.0.get_mut(service) {
            expectation.timeout = Some(timeout);
        }
        self
    }

    /// How many services wait one after the other, each for the one before to be healthy or done:
    /// as many times one may take as long as Compose may have to wait for all.
    #[must_use]
    pub fn longest_wait(&self) -> u32 {
        let holds_up = |condition| condition != Condition::Started;
        let mut known = HashMap::new();
        self.0.keys().map(|name| self.depth(name, holds_up, &mut known)).max().unwrap_or(0)
    }

    /// How many services stand below `name` in the longest line of the dependencies that `matter`.
    /// `known` has what was found already, and 0 for those on the way: a circle has no length.
    fn depth<'a>(
        &'a self,
        name: &'a str,
        matter: fn(Condition) -> bool,
        known: &mut HashMap<&'a str, u32>,
    ) -> u32 {
        if let Some(depth) = known.get(name) {
            return *depth;
        }
        known.insert(name, 0);
        let below = self.get(name).into_iter().flat_map(|asked| &asked.waits_for);
        let below = below.filter(|(_, condition)| matter(*condition));
        let depth = below.map(|(other, _)| 1 + self.depth(other, matter, known)).max().unwrap_or(0);
        known.insert(name, depth);
        depth
    }

    /// What is asked of one service.
    #[must_use]
    pub fn get(&self, service: &str) -> Option<&Expectation> {
        self.0.get(service)
    }

    /// All services with what is asked of them, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Expectation)> {
        self.0.iter().map(|(name, expectation)| (name.as_str(), expectation))
    }
}

/// The judgement of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its health check passes.
    Healthy,
    /// It has no health check, and has been running for the stability window.
    Unchecked,
    /// It has exited with 0, and nothing says that it should still run.
    Completed,
    /// It may still become good.
    Pending(Waiting),
    /// It is not good, and waiting longer would be no use.
    Failed(Cause),
}

impl Verdict {
    /// Whether the container is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Healthy | Self::Unchecked | Self::Completed)
    }

    /// What it comes to, for reports.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::Healthy => Standing::Healthy,
            Self::Unchecked => Standing::Unchecked,
            Self::Completed => Standing::Completed,
            Self::Pending(_) => Standing::Pending,
            Self::Failed(_) => Standing::Failed,
        }
    }
}

/// What a container that is not good yet is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// That its health check passes for the first time.
    Starting(Option<HealthProbe>),
    /// That its health check passes again.
    Unhealthy(Option<HealthProbe>),
    /// That it has run for the stability window.
    Stabilising {
        /// When that is the case.
        until: DateTime<Utc>,
    },
    /// That it stays good, after it was seen failing.
    Flapping {
        /// How often it stopped being good.
        setbacks: u32,
        /// When it has been good for long enough.
        until: DateTime<Utc>,
    },
    /// That it finishes.
    Completing,
    /// That the daemon starts it again.
    Restarting {
        /// How often it has done so.
        restarts: i64,
        /// What the last run exited with; `None` if it has begun to run again.
        code: Option<i64>,
    },
    /// That it is started.
    NotStarted,
    /// That what it depends on is ready.
    Blocked(Chain),
    /// That this state ends: paused, removing, or one that dkv does not know.
    State(ContainerState),
    /// That it is made.
    Missing,
}

/// Why a container is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It exited, and nothing will start it again.
    Exited {
        /// What with.
        code: i64,
    },
    /// It exits again and again.
    RestartLoop {
        /// How often the daemon has started it again.
        restarts: i64,
        /// What the last run exited with; `None` if it has begun to run again.
        code: Option<i64>,
    },
    /// The kernel killed it for its memory use.
    OutOfMemory {
        /// How often the daemon has started it again.
        restarts: i64,
    },
    /// The daemon could not start it, and says why.
    CannotStart {
        /// The daemon's words.
        error: String,
    },
    /// Its health check failed and did not recover.
    Unhealthy(Option<HealthProbe>),
    /// Its health check has never passed.
    NeverHealthy(Option<HealthProbe>),
    /// It was good and failed again, in turns.
    Flapping {
        /// How often it stopped being good.
        setbacks: u32,
    },
    /// A one-shot that still runs.
    NotCompleted,
    /// It was made and never started, perhaps because of another.
    NeverStarted(Chain),
    /// It is stuck in this state.
    Stuck(ContainerState),
    /// There is no container for a service that should have one.
    Missing,
}

/// A container with its judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The Compose service.
    pub service: String,
    /// The container; `None` for a service that lacks one.
    pub container: Option<ContainerDetail>,
    /// The judgement.
    pub verdict: Verdict,
    /// Whether it decides about the deployment's health.
    pub counts: bool,
    /// The last lines of its log, if it failed; safe to show.
    pub log: Vec<String>,
}

/// All containers of a deployment: failures first, what failed before what it blocks, then those
/// that are waited for, then the good ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The containers, and the services that lack one.
    pub containers: Vec<Judged>,
}

impl Judgement {
    /// Whether everything that counts is good.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.containers.iter().all(|judged| !judged.counts || judged.verdict.is_good())
    }

    /// The failures that count, what failed before what it blocks.
    pub fn failures(&self) -> impl Iterator<Item = &Judged> {
        self.containers
            .iter()
            .filter(|judged| judged.counts && matches!(judged.verdict, Verdict::Failed(_)))
    }

    /// The failures that do not count, to be reported only.
    pub fn other_failures(&self) -> impl Iterator<Item = &Judged> {
        self.containers
            .iter()
            .filter(|judged| !judged.counts && matches!(judged.verdict, Verdict::Failed(_)))
    }

    /// The services that have fewer containers than `wanted` has for them, in words; those without
    /// any are judged as missing.
    pub fn too_few(&self, wanted: impl Iterator<Item = (String, i64)>) -> Vec<String> {
        let words = wanted.filter_map(|(service, wanted)| {
            let mine = self.containers.iter().filter(|judged| judged.service == service);
            let count = mine.filter(|judged| judged.container.is_some()).count();
            let is_short = i64::try_from(count).is_ok_and(|count| 0 < count && count < wanted);
            is_short.then(|| format!("{service} has {count} of {wanted} containers"))
        });
        words.collect()
    }

    /// The services with a failure, whether it counts or not: before a change, this is what must
    /// not be held against it.
    pub fn failing_services(&self) -> impl Iterator<Item = &str> {
        let failed =
            self.containers.iter().filter(|judged| matches!(judged.verdict, Verdict::Failed(_)));
        failed.map(|judged| judged.service.as_str())
    }
}

/// How a service's health check goes about it: the files' words over those of its image. `None`: it
/// has no check.
#[must_use]
pub fn check_in_force(files: &Healthcheck, image: Option<HealthCheck>) -> Option<HealthCheck> {
    let base = match (files.test, image) {
        (Test::Disabled, _) | (Test::Image, None) => return None,
        (_, image) => image.unwrap_or_default(),
    };
    Some(HealthCheck {
        interval: files.interval.unwrap_or(base.interval),
        timeout: files.timeout.unwrap_or(base.timeout),
        start_period: files.start_period.unwrap_or(base.start_period),
        retries: files.retries.unwrap_or(base.retries),
    })
}

/// Judges one container by itself, without what it depends on. Without a `memory`, as it stands
/// now; with one, by what a wait has seen of it before.
#[must_use]
pub fn judge(
    container: &ContainerDetail,
    expectation: &Expectation,
    memory: Option<&Memory>,
    stability: Duration,
    now: DateTime<Utc>,
) -> Verdict {
    let code = container.exit_code;
    match container.state {
        ContainerState::Created => match &container.error {
            Some(error) => Verdict::Failed(Cause::CannotStart { error: error.clone() }),
            None => Verdict::Pending(Waiting::NotStarted),
        },
        ContainerState::Running => running(container, expectation, memory, stability, now),
        ContainerState::Exited if code == 0 && !should_run(container, expectation) => {
            Verdict::Completed
        }
        ContainerState::Exited => Verdict::Failed(ended(container)),
        ContainerState::Restarting => {
            let restarts = container.restart_count;
            if restarts - memory.map_or(0, Memory::forgiven_restarts) < RESTARTS_OF_A_LOOP {
                Verdict::Pending(Waiting::Restarting { restarts, code: Some(code) })
            } else {
                Verdict::Failed(looping(container))
            }
        }
        ContainerState::Dead => Verdict::Failed(Cause::Stuck(ContainerState::Dead)),
        state @ (ContainerState::Paused | ContainerState::Removing | ContainerState::Unknown) => {
            Verdict::Pending(Waiting::State(state))
        }
    }
}

fn running(
    container: &ContainerDetail,
    expectation: &Expectation,
    memory: Option<&Memory>,
    stability: Duration,
    now: DateTime<Utc>,
) -> Verdict {
    // Checked first: a one-shot often inherits the health check of the image that it shares with
    // the application.
    if expectation.must_complete {
        return Verdict::Pending(Waiting::Completing);
    }
    let window = TimeDelta::from_std(stability).unwrap_or(TimeDelta::MAX);
    let restarts = container.restart_count;
    if memory.is_none()
        && restarts >= RESTARTS_OF_A_LOOP
        && container.started_at.is_some_and(|started| now < started + window)
    {
        // Caught in the moment in which it runs.
        return Verdict::Pending(Waiting::Restarting { restarts, code: None });
    }
    if let Some(memory) = memory
        && memory.setbacks() > 0
        && let Some(since) = memory.good_since()
        && now < since + window
    {
        return Verdict::Pending(Waiting::Flapping {
            setbacks: memory.setbacks(),
            until: since + window,
        });
    }
    if container.has_health_check {
        let last = container.health.as_ref().and_then(|health| health.last.clone());
        return match container.health.as_ref().map(|health| health.status) {
            Some(HealthStatus::Healthy)
                if memory.is_none_or(|memory| memory.good_since().is_some()) =>
            {
                match trial(container, expectation, memory, window, now) {
                    Some(until) => Verdict::Pending(Waiting::Stabilising { until }),
                    None => Verdict::Healthy,
                }
            }
            Some(HealthStatus::Healthy | HealthStatus::Unhealthy) => {
                Verdict::Pending(Waiting::Unhealthy(last))
            }
            Some(HealthStatus::Starting) | None => Verdict::Pending(Waiting::Starting(last)),
        };
    }
    let until = started(container, memory, now) + window;
    if now < until { Verdict::Pending(Waiting::Stabilising { until }) } else { Verdict::Unchecked }
}

/// Until when a container on trial must go on passing its health check; `None` if it has nothing
/// left to prove, also because the check does not come again within the window.
fn trial(
    container: &ContainerDetail,
    expectation: &Expectation,
    memory: Option<&Memory>,
    window: TimeDelta,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let until = started(container, memory, now) + window;
    if !expectation.is_on_trial || now >= until {
        return None;
    }
    let last = container.health.as_ref()?.last.as_ref()?.ended_at?;
    let pause =
        TimeDelta::from_std(container.health_check.interval).unwrap_or(TimeDelta::MAX).min(window);
    (last + pause < until).then_some(until)
}

/// When the container started. A start in the future is a clock that disagrees with ours: what the
/// wait itself has seen holds.
fn started(
    container: &ContainerDetail,
    memory: Option<&Memory>,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    container.started_at.unwrap_or(now).min(memory.and_then(Memory::good_since).unwrap_or(now))
}

/// Whether anything says that a container which has exited with 0 should still run.
fn should_run(container: &ContainerDetail, expectation: &Expectation) -> bool {
    if expectation.must_complete {
        return false;
    }
    let stays =
        matches!(container.restart_policy, RestartPolicy::Always | RestartPolicy::UnlessStopped);
    stays || container.has_health_check || expectation.must_be_healthy || expectation.must_stay
}

fn ended(container: &ContainerDetail) -> Cause {
    if container.oom_killed {
        return Cause::OutOfMemory { restarts: container.restart_count };
    }
    match &container.error {
        Some(error) => Cause::CannotStart { error: error.clone() },
        None => Cause::Exited { code: container.exit_code },
    }
}

fn looping(container: &ContainerDetail) -> Cause {
    if container.oom_killed {
        return Cause::OutOfMemory { restarts: container.restart_count };
    }
    let is_over = container.state != ContainerState::Running;
    Cause::RestartLoop {
        restarts: container.restart_count,
        code: is_over.then_some(container.exit_code),
    }
}

impl Waiting {
    /// Whether this is the normal course of a start, so that a look without patience finds nothing
    /// wrong with it.
    fn is_progress(&self) -> bool {
        match self {
            Self::Starting(_)
            | Self::Stabilising { .. }
            | Self::Completing
            | Self::State(ContainerState::Removing) => true,
            Self::Blocked(chain) => {
                matches!(chain.culprit.as_deref(), Some(Verdict::Pending(waiting)) if waiting.is_progress())
            }
            _ => false,
        }
    }

    /// What it means when the time is over. `None`: it is still given the rest of its stability
    /// window.
    fn expired(self, container: Option<&ContainerDetail>) -> Option<Cause> {
        Some(match self {
            Self::Starting(probe) => Cause::NeverHealthy(probe),
            Self::Unhealthy(probe) => Cause::Unhealthy(probe),
            Self::Stabilising { .. } => return None,
            Self::Flapping { setbacks, .. } => Cause::Flapping { setbacks },
            Self::Completing => Cause::NotCompleted,
            Self::Restarting { restarts, code } => {
                container.map_or(Cause::RestartLoop { restarts, code }, looping)
            }
            Self::NotStarted => Cause::NeverStarted(Chain::default()),
            Self::Blocked(chain) => Cause::NeverStarted(chain),
            Self::State(state) => Cause::Stuck(state),
            Self::Missing => Cause::Missing,
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "they run containers")]
mod real_tests;
#[cfg(test)]
mod rules_tests;
