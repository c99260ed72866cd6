//! What containers say while they are stopped: listened to until they are gone.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::Archive;
use super::archive::origin;
use super::merge::RawLine;
use crate::docker::{Container, ContainerFilter, ContainerState, Docker, LogOptions};

/// The most lines that are held of one container; of more the newest.
const LINES: u64 = 10_000;
/// How long the end of a log may be waited for after its container has gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens to containers that are about to go, from where their logs were saved up to.
#[must_use = "what was heard is lost unless it is saved"]
pub struct LastWords {
    archive: Archive,
    heard: Vec<Heard>,
}

/// One container and what it has said.
struct Heard {
    container: String,
    lines: Arc<Mutex<VecDeque<RawLine>>>,
    listener: JoinHandle<()>,
}

impl LastWords {
    /// Begins to listen to those of `containers` that run, from what [`Archive::save`] has left.
    pub fn listen(archive: Archive, docker: &Docker, containers: &[Container]) -> Self {
        let saved: BTreeMap<String, DateTime<Utc>> = archive.read_progress();
        let speaking = containers
            .iter()
            .filter(|one| matches!(one.state, ContainerState::Running | ContainerState::Paused));
        let heard = speaking.map(|container| {
            let last = saved.get(&container.id).copied().unwrap_or_default();
            let (since, tail) = (Some(last), Some(LINES));
            let options = LogOptions { since, tail, follow: true, ..LogOptions::default() };
            let (origin, mut log) =
                (origin(container), Box::pin(docker.logs(&container.id, &options)));
            let lines = Arc::new(Mutex::new(VecDeque::new()));
            let kept = Arc::clone(&lines);
            let listener = tokio::spawn(async move {
                while let Some(Ok(line)) = log.next().await {
                    let Some(time) = line.time.filter(|time| *time > last) else { continue };
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.push_back(RawLine { origin: origin.clone(), time, bytes: line.bytes });
                    if kept.len() as u64 > LINES {
                        kept.pop_front();
                    }
                }
            });
            Heard { container: container.id.clone(), lines, listener }
        });
        Self { heard: heard.collect(), archive }
    }

    /// Saves what those have said that are gone by now. The others can still be asked later. A
    /// failure is a warning.
    pub async fn save<Zone: TimeZone + Sync>(mut self, docker: &Docker, now: &DateTime<Zone>)
    where
        Zone::Offset: Send + Sync,
    {
        let Ok(existing) = docker.containers(&ContainerFilter::default()).await else { return };
        let existing: HashSet<&str> =
            existing.iter().map(|container| container.id.as_str()).collect();
        let mut lines: Vec<RawLine> = Vec::new();
        for heard in
            self.heard.iter_mut().filter(|heard| !existing.contains(heard.container.as_str()))
        {
            let _ = tokio::time::timeout(PATIENCE, &mut heard.listener).await;
            lines.extend(heard.lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
        }
        lines.sort_by_key(|line| line.time);
        if let Err(error) = self.archive.add(&lines, now) {
            tracing::warn!("the last words of containers that are gone are not saved: {error:#}");
        }
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        for heard in &self.heard {
            heard.listener.abort();
        }
    }
}
