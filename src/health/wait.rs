//! Waiting for a deployment: the daemon's events say when to look again, a look now and then makes
//! sure that none was missed.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use super::{Expectations, Judged, Judgement, Limits, Observed, Verdict, Watch};
use crate::docker::{ContainerFilter, Docker, Event, LogOptions};
use crate::error::{self, Kind};
use crate::logs;

/// The longest time between two looks: how late a change is noticed if its event is lost, or is
/// none that the daemon reports, such as a single failed health check.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the log lines of one failed container may take.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How long an engine that fails is asked again.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);
/// How soon it is asked again at first.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The judgement: either everything that counts is good, or there are failures.
    pub judgement: Judgement,
    /// How long it took.
    pub waited: Duration,
}

/// Waits until every container that counts is good, or one has failed for good; others on trial
/// then have a moment to show what they are. `on_progress`
/// gets every look at the containers, at least once a second.
///
/// # Errors
/// Kind Docker, when the daemon does not answer.
pub async fn wait(
    docker: &Docker,
    project: &str,
    expectations: &Expectations,
    limits: Limits,
    now: DateTime<Utc>,
    on_progress: &(dyn Fn(&Judgement) + Sync),
) -> Result<Awaited> {
    let begun = Instant::now();
    let filter = ContainerFilter::project(project);
    let mut watch = Watch::new(expectations, limits, now);
    let mut events = subscribe(docker, &filter, now);
    loop {
        let seen = patiently(async || observe(docker, &filter).await).await?;
        let time = now + begun.elapsed();
        let mut judgement = watch.look(seen, time);
        on_progress(&judgement);
        if watch.is_over(&mut judgement, time) {
            add_logs(docker, &mut judgement, limits.log_lines).await;
            return Ok(Awaited { judgement, waited: begun.elapsed() });
        }
        let until_change = watch.wake().and_then(|wake| (wake - time).to_std().ok());
        let pause = until_change.map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE));
        match tokio::time::timeout(pause, next(&mut events)).await {
            Ok(Some(())) | Err(_) => {}
            Ok(None) => {
                // The stream broke. The next look tells whether the daemon is gone; the pause keeps
                // a daemon that ends every stream at once from being asked without end.
                tokio::time::sleep(pause.min(LONGEST_PAUSE / 4)).await;
                events = subscribe(docker, &filter, now + begun.elapsed());
            }
        }
    }
}

/// Asks an engine again that fails or is away, for a while: a moment's trouble of its own says
/// nothing about containers.
///
/// # Errors
/// As `ask`, when it has failed for all that time, or the failure is not the engine's.
pub async fn patiently<T>(ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match ask().await {
            Err(failure) if error::kind(&failure) == Kind::Docker => failure,
            other => return other,
        };
        if begun.elapsed() + pause > ENGINE_PATIENCE {
            return Err(failure);
        }
        if pause == FIRST_PAUSE {
            tracing::warn!("{failure:#}; asking again for up to {} s", ENGINE_PATIENCE.as_secs());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Judges a deployment as it stands, with the last log lines of what has failed.
///
/// # Errors
/// Kind Docker, when the daemon does not answer.
pub async fn snapshot(
    docker: &Docker,
    project: &str,
    expectations: &Expectations,
    limits: Limits,
    now: DateTime<Utc>,
) -> Result<Judgement> {
    let seen = observe(docker, &ContainerFilter::project(project)).await?;
    let mut judgement = Judgement::as_it_stands(seen, expectations, limits.stability, now);
    add_logs(docker, &mut judgement, limits.log_lines).await;
    Ok(judgement)
}

async fn observe(docker: &Docker, filter: &ContainerFilter) -> Result<Vec<Observed>> {
    let details = docker.container_details(filter).await?;
    Ok(details.into_iter().filter_map(Observed::new).collect())
}

type Events = Pin<Box<dyn Stream<Item = Result<Event>> + Send>>;

fn subscribe(docker: &Docker, filter: &ContainerFilter, since: DateTime<Utc>) -> Events {
    Box::pin(docker.events(filter, Some(since)))
}

/// The next event; `None` when there will be none.
async fn next(events: &mut Events) -> Option<()> {
    match events.next().await? {
        Ok(_) => Some(()),
        Err(error) => {
            tracing::debug!("lost the daemon's events: {error:#}");
            None
        }
    }
}

/// Adds the last log lines to every failure that has a log.
async fn add_logs(docker: &Docker, judgement: &mut Judgement, lines: u64) {
    let failed = judgement
        .containers
        .iter_mut()
        .filter(|judged| matches!(judged.verdict, Verdict::Failed(_)));
    futures_util::future::join_all(failed.map(|judged| add_log(docker, judged, lines))).await;
}

async fn add_log(docker: &Docker, judged: &mut Judged, lines: u64) {
    let Some(container) =
        judged.container.as_ref().filter(|container| container.started_at.is_some())
    else {
        return;
    };
    let options = LogOptions { tail: Some(lines), ..LogOptions::default() };
    let log = docker
        .logs(&container.id, &options)
        .map_ok(|line| logs::display_safe(&line.bytes))
        .try_collect();
    match tokio::time::timeout(LOG_PATIENCE, log).await {
        Ok(Ok(log)) => judged.log = log,
        Ok(Err(error)) => tracing::debug!("no log of {}: {error:#}", container.name),
        Err(_) => {
            tracing::debug!("no log of {} within {} s", container.name, LOG_PATIENCE.as_secs())
        }
    }
}
