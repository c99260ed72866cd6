//! How long each service was away, by the daemon's clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use crate::clock;
use crate::docker::{Action, ContainerFilter, Docker};
use crate::health::{self, Judged, Verdict};

/// When something happened to each Compose service first.
type Moments = Mutex<BTreeMap<String, DateTime<Utc>>>;

/// Watches old containers end and new ones become good.
#[derive(Default)]
pub(super) struct Downtime {
    ends: Arc<Moments>,
    good: Moments,
    watcher: Option<tokio::task::JoinHandle<()>>,
}

impl Downtime {
    /// Begins to watch for containers that end; what was good before does not count.
    pub(super) fn watch(&mut self, docker: &Docker, project: &str) {
        self.good = Moments::default();
        let mut events =
            Box::pin(docker.events(&ContainerFilter::project(project), Some(clock::now())));
        let ends = Arc::clone(&self.ends);
        self.watcher = Some(tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                let service = event.labels.service().map(str::to_owned);
                if let (Action::Die, Some(service), Some(time)) =
                    (event.action, service, event.time)
                {
                    note(&ends, service, time);
                }
            }
        }));
    }

    /// Notes which containers are good now.
    pub(super) fn note_good(&self, deployment: &health::Judgement) {
        for judged in &deployment.containers {
            if let Some(since) = good_since(judged) {
                note(&self.good, judged.service.clone(), since);
            }
        }
    }

    /// How many seconds a replaced service was away, if both ends were seen.
    pub(super) fn seconds(&self, compose_service: &str) -> Option<f64> {
        let away = noted(&self.good, compose_service)? - noted(&self.ends, compose_service)?;
        Some(away.to_std().ok()?.as_secs_f64())
    }
}

impl Drop for Downtime {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

fn noted(moments: &Moments, service: &str) -> Option<DateTime<Utc>> {
    moments.lock().unwrap_or_else(PoisonError::into_inner).get(service).copied()
}

fn note(moments: &Moments, service: String, time: DateTime<Utc>) {
    moments.lock().unwrap_or_else(PoisonError::into_inner).entry(service).or_insert(time);
}

/// Since when a container does its work: its health check passes, it runs, or it has done it.
fn good_since(judged: &Judged) -> Option<DateTime<Utc>> {
    let container = judged.container.as_ref()?;
    match judged.verdict {
        Verdict::Healthy => container.health.as_ref()?.last.as_ref()?.ended_at,
        Verdict::Unchecked => container.started_at,
        Verdict::Completed => container.finished_at,
        _ => None,
    }
}
