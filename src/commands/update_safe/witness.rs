//! What is done to the new containers from outside, which no look at them shows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use crate::clock;
use crate::docker::{Action, ContainerFilter, Docker, Event};

/// How long to wait before an engine that is away is asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the engine may take to tell of the events up to now.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The containers that somebody has sent a signal through the engine.
    pub(super) signalled: BTreeSet<String>,
    /// When the engine was away last.
    pub(super) away: Option<DateTime<Utc>>,
}

/// Watches from the moment on in which containers are replaced.
pub(super) struct Witness {
    seen: Arc<Mutex<Seen>>,
    begun: DateTime<Utc>,
    filter: ContainerFilter,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    pub(super) fn begin(docker: &Docker, project: &str) -> Self {
        let (seen, begun) = (Arc::<Mutex<Seen>>::default(), clock::now());
        let filter = ContainerFilter::project(project);
        let task = {
            let (docker, filter, seen) = (docker.clone(), filter.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut since = begun;
                loop {
                    let mut events = Box::pin(docker.events(&filter, Some(since)));
                    while let Some(Ok(event)) = events.next().await {
                        since = event.time.unwrap_or(since);
                        note(&seen, &event);
                    }
                    seen.lock().unwrap_or_else(PoisonError::into_inner).away = Some(clock::now());
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        Self { seen, begun, filter, task }
    }

    /// When the engine was away last, if it was.
    pub(super) fn away(&self) -> Option<DateTime<Utc>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).away
    }

    /// What was seen until now. What the watch has not heard yet is asked for.
    pub(super) async fn report(&self, docker: &Docker) -> Seen {
        let catch_up = async {
            let (since, until) = (Some(self.begun), Some(clock::now()));
            let mut events = Box::pin(docker.events_between(&self.filter, since, until));
            while let Some(Ok(event)) = events.next().await {
                note(&self.seen, &event);
            }
        };
        if tokio::time::timeout(LAST_EVENTS, catch_up).await.is_err() {
            tracing::debug!("the daemon does not tell of its events");
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(seen: &Mutex<Seen>, event: &Event) {
    if event.action == Action::Kill {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.signalled.insert(event.container.clone());
    }
}
