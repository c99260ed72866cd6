//! A deployment over time: what was seen of each container before, deadlines, and what follows.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Cause, Chain, Expectation, Expectations, Judged, Judgement, Limits, Verdict, Waiting, chain,
    judge,
};
use crate::docker::{ContainerDetail, ContainerState, HealthStatus};

/// How long a container stays unhealthy before it is given up, at most, besides the stability window.
const LONGEST_GRACE: Duration = Duration::from_secs(60);
/// How much later than a health check allows its last result may be known.
const PATIENCE_RESERVE: Duration = Duration::from_secs(2);

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
    /// The start of the first run that was seen.
    first_run: DateTime<Utc>,
    /// Since when the daemon has called it unhealthy with nothing else in the way.
    unhealthy_since: Option<DateTime<Utc>>,
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
            first_run: started,
            unhealthy_since: is_unhealthy(container).then_some(now),
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
        if self.run.is_none() {
            self.first_run = container.started_at.unwrap_or(now).min(now);
        }
        self.run = container.started_at;
        self.unhealthy_since = is_unhealthy(container).then(|| self.unhealthy_since.unwrap_or(now));
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
    /// When the first failure that counts was seen.
    failed_since: Option<DateTime<Utc>>,
}

impl<'a> Watch<'a> {
    /// A wait that begins now.
    #[must_use]
    pub fn new(expectations: &'a Expectations, limits: Limits, now: DateTime<Utc>) -> Self {
        let (memories, startable_since) = (HashMap::new(), HashMap::new());
        Self {
            expectations,
            limits,
            begun: now,
            memories,
            startable_since,
            wake: None,
            failed_since: None,
        }
    }

    /// Whether the last look has decided, so that waiting longer tells nothing more.
    ///
    /// Where one of several releases on trial has failed, the others get one stability window to
    /// show what they are: two bad ones shall be found by one trial. Those that the daemon calls
    /// unhealthy at its end have failed too.
    pub fn is_over(&mut self, judgement: &mut Judgement, now: DateTime<Utc>) -> bool {
        if judgement.is_good() {
            return true;
        }
        if judgement.failures().next().is_none() {
            return false;
        }
        let since = *self.failed_since.get_or_insert(now);
        let undecided = |one: &Judged| {
            let is_on_trial =
                self.expectations.get(&one.service).is_some_and(|asked| asked.is_on_trial);
            let is_open = match &one.verdict {
                Verdict::Pending(waiting) => {
                    !matches!(waiting, Waiting::Blocked(_) | Waiting::NotStarted | Waiting::Missing)
                }
                _ => false,
            };
            one.counts && is_on_trial && is_open
        };
        if now < since + window(self.limits.stability) {
            return !judgement.containers.iter().any(undecided);
        }
        for one in judgement.containers.iter_mut().filter(|one| undecided(one)) {
            if matches!(one.verdict, Verdict::Pending(Waiting::Unhealthy(_))) {
                expire(one);
            }
        }
        sort(&mut judgement.containers, self.expectations);
        true
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
        self.forgive(&observed, now);

        let mut judged = individually(observed, self.expectations, |container, expectation| {
            judge(container, expectation, self.memories.get(&container.id), stability, now)
        });
        for one in &mut judged {
            if !is_unstarted(&one.verdict) {
                self.apply_patience(one, now);
                self.apply_deadline(one, None, now);
            }
        }
        resolve_chains(&mut judged, self.expectations);
        let deadlines: Vec<(String, DateTime<Utc>)> =
            judged.iter().map(|one| (one.service.clone(), self.deadline(one))).collect();
        for one in &mut judged {
            self.apply_start_grace(one, now);
            // What waits for another cannot be in more of a hurry.
            let blocking = match &one.verdict {
                Verdict::Pending(Waiting::Blocked(chain)) => chain.culprit_service(),
                _ => None,
            };
            let others = deadlines.iter().filter(|(name, _)| Some(name.as_str()) == blocking);
            let longest = others.map(|(_, deadline)| *deadline).max();
            self.apply_deadline(one, longest, now);
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
    /// anything is on its way up without trouble, restarts of others do not count, nor does the time
    /// for which others are unhealthy.
    fn forgive(&mut self, observed: &[Observed], now: DateTime<Utc>) {
        if !observed.iter().any(|seen| self.is_coming_up(seen, now)) {
            return;
        }
        for Observed { container, .. } in observed {
            let Some(memory) = self.memories.get_mut(&container.id) else { continue };
            if container.state == ContainerState::Restarting {
                memory.forgiven_restarts = container.restart_count;
            }
            memory.unhealthy_since = memory.unhealthy_since.map(|_| now);
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

    /// A container that stays unhealthy has used up what its own health check allows: it is waited
    /// for until one more check, not to the deadline.
    fn apply_patience(&self, judged: &mut Judged, now: DateTime<Utc>) {
        if self.given_up_at(judged).is_some_and(|time| now >= time) {
            expire(judged);
        }
    }

    /// When an unhealthy container has failed for good.
    fn given_up_at(&self, judged: &Judged) -> Option<DateTime<Utc>> {
        if !matches!(judged.verdict, Verdict::Pending(Waiting::Unhealthy(_))) {
            return None;
        }
        let container = judged.container.as_ref()?;
        let memory = self.memories.get(&container.id)?;
        let check = container.health_check;
        let grace = window(check.interval.min(LONGEST_GRACE) + self.limits.stability);
        // What was healthy within its start period may be called unhealthy there.
        let started = memory.first_run + window(check.start_period);
        Some((memory.unhealthy_since? + grace).max(started))
    }

    fn apply_deadline(
        &self,
        judged: &mut Judged,
        longer: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) {
        if now >= longer.map_or(self.deadline(judged), |longer| longer.max(self.deadline(judged))) {
            expire(judged);
        }
    }

    /// Until when it is waited for: as long as was asked for, and never less than the container's
    /// own health check allows from its start on.
    fn deadline(&self, judged: &Judged) -> DateTime<Utc> {
        let expectation = self.expectations.get(&judged.service);
        let own = expectation.and_then(|expectation| expectation.timeout);
        let asked = self.begun + window(own.unwrap_or(self.limits.timeout));
        let is_job = expectation.is_some_and(|expectation| expectation.must_complete);
        let container = judged.container.as_ref();
        let checked = container.filter(|container| container.has_health_check && !is_job);
        let allowed = checked.and_then(|container| {
            let memory = self.memories.get(&container.id)?;
            Some(memory.first_run + window(container.health_check.patience() + PATIENCE_RESERVE))
        });
        allowed.map_or(asked, |allowed| allowed.max(asked))
    }

    fn next_change(&self, judged: &Judged) -> Option<DateTime<Utc>> {
        let Verdict::Pending(waiting) = &judged.verdict else { return None };
        let own = match waiting {
            Waiting::Stabilising { until } => return Some(*until),
            Waiting::Flapping { until, .. } => Some(*until),
            Waiting::Unhealthy(_) => self.given_up_at(judged),
            Waiting::NotStarted | Waiting::Missing => self
                .startable_since
                .get(&judged.service)
                .map(|since| *since + window(self.limits.stability)),
            _ => None,
        };
        own.into_iter().chain([self.deadline(judged)]).min()
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
    let mut known = HashMap::new();
    judged.sort_by_cached_key(|one| {
        let rank = match &one.verdict {
            Verdict::Failed(Cause::NeverStarted(_)) => 1,
            Verdict::Failed(_) => 0,
            Verdict::Pending(_) => 2,
            Verdict::Healthy | Verdict::Unchecked | Verdict::Completed => 3,
        };
        let is_over = rank > 1;
        let place = match expectations.0.get_key_value(&one.service) {
            Some((name, _)) if !is_over => expectations.depth(name, |_| true, &mut known),
            _ => 0,
        };
        (is_over, !one.counts, rank, place, one.service.clone())
    });
}
