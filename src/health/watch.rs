//! A deployment over time: what was seen of each container before, deadlines, and what follows.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Cause, Chain, Expectation, Expectations, Judged, Judgement, Limits, Verdict, Waiting, chain,
    judge,
};
use crate::docker::{ContainerDetail, ContainerState, HealthStatus};

/// A container of a Compose service, as the daemon described it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The Compose service.
    pub service: String,
    /// The container's number within the service.
    pub number: u32,
    /// The container.
    pub container: ContainerDetail,
}

impl Observed {
    /// The container, unless it is none of a Compose service's normal state.
    #[must_use]
    pub fn new(container: ContainerDetail) -> Option<Self> {
        let service =
            container.labels.service().filter(|_| !container.labels.is_one_off())?.to_owned();
        Some(Self { service, number: container.labels.number().unwrap_or(1), container })
    }
}

/// What a wait remembers of a container from one look to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    run: Option<DateTime<Utc>>,
    good_since: Option<DateTime<Utc>>,
    setbacks: u32,
    forgiven_restarts: i64,
}

impl Memory {
    /// After the first look.
    #[must_use]
    pub fn new(container: &ContainerDetail, stability: Duration, now: DateTime<Utc>) -> Self {
        let started = container.started_at.unwrap_or(now).min(now);
        let is_good = looks_good(container);
        // Restarts of long ago say nothing about this wait.
        let is_stable = is_good && now - started >= window(stability);
        Self {
            run: container.started_at,
            good_since: is_good.then_some(started),
            setbacks: u32::from(is_unhealthy(container)),
            forgiven_restarts: if is_stable { container.restart_count } else { 0 },
        }
    }

    /// After another look.
    pub fn update(&mut self, container: &ContainerDetail, now: DateTime<Utc>) {
        let is_good = looks_good(container);
        let was_replaced = self.run.is_some() && container.started_at != self.run;
        let starts_badly = self.setbacks == 0 && is_unhealthy(container);
        if was_replaced || starts_badly || (self.good_since.is_some() && !is_good) {
            self.setbacks += 1;
            self.good_since = None;
        }
        self.run = container.started_at;
        self.good_since = is_good.then(|| self.good_since.unwrap_or(now));
    }

    /// Since when the container has been good without interruption; `None` while it is not.
    #[must_use]
    pub fn good_since(&self) -> Option<DateTime<Utc>> {
        self.good_since
    }

    /// How often it was seen to stop being good, or to be unhealthy in the first place.
    #[must_use]
    pub fn setbacks(&self) -> u32 {
        self.setbacks
    }

    /// How many of its restarts are not held against it.
    #[must_use]
    pub fn forgiven_restarts(&self) -> i64 {
        self.forgiven_restarts
    }
}

/// Whether it looks good right now: running, and the last check did not fail.
fn looks_good(container: &ContainerDetail) -> bool {
    container.state == ContainerState::Running
        && (!container.has_health_check
            || container.health.as_ref().is_some_and(|health| {
                health.status == HealthStatus::Healthy && health.failing_streak == 0
            }))
}

fn is_unhealthy(container: &ContainerDetail) -> bool {
    container.health.as_ref().is_some_and(|health| health.status == HealthStatus::Unhealthy)
}

/// A wait for a deployment to become healthy, as a pure function of what is seen when.
#[derive(Debug)]
pub struct Watch<'a> {
    expectations: &'a Expectations,
    limits: Limits,
    begun: DateTime<Utc>,
    memories: HashMap<String, Memory>,
    /// Since when nothing has been in the way of a service that is nevertheless not started.
    startable_since: HashMap<String, DateTime<Utc>>,
    wake: Option<DateTime<Utc>>,
}

impl<'a> Watch<'a> {
    /// A wait that begins now.
    #[must_use]
    pub fn new(expectations: &'a Expectations, limits: Limits, now: DateTime<Utc>) -> Self {
        let (memories, startable_since) = (HashMap::new(), HashMap::new());
        Self { expectations, limits, begun: now, memories, startable_since, wake: None }
    }

    /// Judges what is seen now, in the light of what was seen before.
    pub fn look(&mut self, observed: Vec<Observed>, now: DateTime<Utc>) -> Judgement {
        let observed = newest(observed);
        let stability = self.limits.stability;
        for Observed { container, .. } in &observed {
            self.memories
                .entry(container.id.clone())
                .and_modify(|memory| memory.update(container, now))
                .or_insert_with(|| Memory::new(container, stability, now));
        }
        self.forgive_restarts(&observed, now);

        let mut judged = individually(observed, self.expectations, |container, expectation| {
            judge(container, expectation, self.memories.get(&container.id), stability, now)
        });
        for one in &mut judged {
            if !is_unstarted(&one.verdict) {
                self.apply_deadline(one, now);
            }
        }
        resolve_chains(&mut judged, self.expectations);
        for one in &mut judged {
            self.apply_start_grace(one, now);
            self.apply_deadline(one, now);
        }
        self.wake =
            judged.iter().filter_map(|one| self.next_change(one)).filter(|time| *time > now).min();
        sort(&mut judged, self.expectations);
        Judgement { containers: judged }
    }

    /// When, after the last look, a judgement changes although nothing else does.
    #[must_use]
    pub fn wake(&self) -> Option<DateTime<Utc>> {
        self.wake
    }

    /// A container often exits until something else, such as its database, has come up. As long as
    /// anything is on its way up without trouble, restarts of others do not count.
    fn forgive_restarts(&mut self, observed: &[Observed], now: DateTime<Utc>) {
        if !observed.iter().any(|seen| self.is_coming_up(seen, now)) {
            return;
        }
        for Observed { container, .. } in observed {
            if let Some(memory) = self.memories.get_mut(&container.id)
                && container.state == ContainerState::Restarting
            {
                memory.forgiven_restarts = container.restart_count;
            }
        }
    }

    /// Whether it runs without trouble so far and is not done with starting.
    fn is_coming_up(&self, seen: &Observed, now: DateTime<Utc>) -> bool {
        let container = &seen.container;
        let is_untroubled = container.state == ContainerState::Running
            && self.memories.get(&container.id).is_none_or(|memory| {
                memory.setbacks == 0 && memory.forgiven_restarts == container.restart_count
            });
        let stability = window(self.limits.stability);
        let is_new = container.started_at.is_none_or(|started| now < started + stability);
        let is_starting =
            container.health.as_ref().is_some_and(|health| health.status == HealthStatus::Starting);
        let expectation = self.expectations.get(&seen.service);
        let must_complete = expectation.is_some_and(|expectation| expectation.must_complete);
        is_untroubled && (is_starting || must_complete || (!container.has_health_check && is_new))
    }

    /// Nothing blocks it, and still nobody starts it: whoever should have is no longer at it.
    fn apply_start_grace(&mut self, judged: &mut Judged, now: DateTime<Utc>) {
        if !is_unstarted(&judged.verdict) {
            self.startable_since.remove(&judged.service);
            return;
        }
        let since = *self.startable_since.entry(judged.service.clone()).or_insert(now);
        if now >= since + window(self.limits.stability) {
            judged.verdict = Verdict::Failed(match judged.container {
                Some(_) => Cause::NeverStarted(Chain::default()),
                None => Cause::Missing,
            });
        }
    }

    fn apply_deadline(&self, judged: &mut Judged, now: DateTime<Utc>) {
        if now >= self.deadline(&judged.service) {
            expire(judged);
        }
    }

    fn deadline(&self, service: &str) -> DateTime<Utc> {
        let own = self.expectations.get(service).and_then(|expectation| expectation.timeout);
        self.begun + window(own.unwrap_or(self.limits.timeout))
    }

    fn next_change(&self, judged: &Judged) -> Option<DateTime<Utc>> {
        let Verdict::Pending(waiting) = &judged.verdict else { return None };
        let own = match waiting {
            Waiting::Stabilising { until } => return Some(*until),
            Waiting::Flapping { until, .. } => Some(*until),
            Waiting::NotStarted | Waiting::Missing => self
                .startable_since
                .get(&judged.service)
                .map(|since| *since + window(self.limits.stability)),
            _ => None,
        };
        own.into_iter().chain([self.deadline(&judged.service)]).min()
    }
}

impl Judgement {
    /// Judges a deployment as it stands, without waiting: a start that takes its normal course is
    /// pending, everything else that is not good has failed.
    #[must_use]
    pub fn as_it_stands(
        observed: Vec<Observed>,
        expectations: &Expectations,
        stability: Duration,
        now: DateTime<Utc>,
    ) -> Self {
        let mut judged = individually(newest(observed), expectations, |container, expectation| {
            judge(container, expectation, None, stability, now)
        });
        judged
            .iter_mut()
            .filter(|one| !is_unstarted(&one.verdict))
            .for_each(expire_unless_progress);
        resolve_chains(&mut judged, expectations);
        judged.iter_mut().for_each(expire_unless_progress);
        sort(&mut judged, expectations);
        Self { containers: judged }
    }
}

fn window(duration: Duration) -> TimeDelta {
    // A century is as good as for ever, and cannot overflow a date.
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX).min(TimeDelta::days(36_500))
}

fn is_unstarted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Pending(Waiting::NotStarted | Waiting::Missing))
}

fn expire_unless_progress(judged: &mut Judged) {
    if !matches!(&judged.verdict, Verdict::Pending(waiting) if waiting.is_progress()) {
        expire(judged);
    }
}

fn expire(judged: &mut Judged) {
    if let Verdict::Pending(waiting) = &judged.verdict
        && let Some(cause) = waiting.clone().expired(judged.container.as_ref())
    {
        judged.verdict = Verdict::Failed(cause);
    }
}

/// While Compose replaces a container, the old and the new one have the same number.
fn newest(mut observed: Vec<Observed>) -> Vec<Observed> {
    observed.sort_by(|a, b| {
        let order = (&a.service, a.number).cmp(&(&b.service, b.number));
        order.then_with(|| b.container.created_at.cmp(&a.container.created_at))
    });
    observed.dedup_by(|later, kept| (&later.service, later.number) == (&kept.service, kept.number));
    observed
}

/// Every container by itself, and every required service that has none.
fn individually(
    observed: Vec<Observed>,
    expectations: &Expectations,
    judge: impl Fn(&ContainerDetail, &Expectation) -> Verdict,
) -> Vec<Judged> {
    let unknown = Expectation::default();
    let required = expectations.iter().filter(|(_, expectation)| expectation.is_required);
    let missing: Vec<Judged> = required
        .filter(|(service, _)| observed.iter().all(|seen| seen.service != *service))
        .map(|(service, expectation)| Judged {
            service: service.to_owned(),
            container: None,
            verdict: Verdict::Pending(Waiting::Missing),
            counts: expectation.counts,
            log: Vec::new(),
        })
        .collect();
    let present = observed.into_iter().map(|Observed { service, container, .. }| {
        let expectation = expectations.get(&service).unwrap_or(&unknown);
        Judged {
            verdict: judge(&container, expectation),
            counts: expectation.counts,
            container: Some(container),
            service,
            log: Vec::new(),
        }
    });
    present.chain(missing).collect()
}

/// Gives what was never started its reason.
fn resolve_chains(judged: &mut [Judged], expectations: &Expectations) {
    let chains: Vec<Option<Chain>> = judged
        .iter()
        .map(|one| {
            is_unstarted(&one.verdict)
                .then(|| chain::blocking(&one.service, judged, expectations))
                .flatten()
        })
        .collect();
    for (one, chain) in judged.iter_mut().zip(chains) {
        let Some(chain) = chain else { continue };
        let is_final = matches!(chain.culprit.as_deref(), Some(Verdict::Failed(_)) | None);
        one.verdict = if is_final {
            Verdict::Failed(Cause::NeverStarted(chain))
        } else {
            Verdict::Pending(Waiting::Blocked(chain))
        };
    }
}

/// What must be looked at first comes first.
fn sort(judged: &mut [Judged], expectations: &Expectations) {
    judged.sort_by_cached_key(|one| {
        let rank = match &one.verdict {
            Verdict::Failed(Cause::NeverStarted(_)) => 1,
            Verdict::Failed(_) => 0,
            Verdict::Pending(_) => 2,
            Verdict::Healthy | Verdict::Unchecked | Verdict::Completed => 3,
        };
        let is_over = rank > 1;
        let place = if is_over { 0 } else { depth(&one.service, expectations, &mut Vec::new()) };
        (is_over, !one.counts, rank, place, one.service.clone())
    });
}

/// How many services stand below this one in the longest line of dependencies.
fn depth<'a>(service: &'a str, expectations: &'a Expectations, path: &mut Vec<&'a str>) -> usize {
    if path.contains(&service) {
        return 0;
    }
    path.push(service);
    let below =
        expectations.get(service).into_iter().flat_map(|expectation| &expectation.waits_for);
    let depth = below.map(|(name, _)| 1 + depth(name, expectations, path)).max().unwrap_or(0);
    path.pop();
    depth
}
