//! Pulls that begin before the plan they belong to is whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use super::{Fetcher, Wanted};
use crate::docker::ImageList;
use crate::ui::Progress;

/// Images that are on their way to the daemon. Dropped, they are given up; what has arrived stays
/// there.
#[must_use = "dropped, these pulls are given up"]
pub struct Early {
    fetcher: Fetcher,
    progress: Arc<Progress>,
    slots: Arc<Semaphore>,
    list: Arc<OnceCell<ImageList>>,
    pulls: Mutex<JoinSet<(String, Result<()>)>>,
}

impl Early {
    /// Nothing is on its way yet, `at_most` so many images will be.
    pub fn new(fetcher: Fetcher, at_most: usize) -> Self {
        let progress = Arc::new(fetcher.ui.growing_progress("Pulling", "Pulled", at_most));
        let slots = Arc::new(Semaphore::new(fetcher.jobs.max(1)));
        Self { fetcher, progress, slots, list: Arc::default(), pulls: Mutex::default() }
    }

    /// Makes an image local, if it is not, as soon as fewer than the allowed number are on their
    /// way.
    pub fn begin(&self, wanted: Wanted) {
        let (fetcher, progress, slots, list) = (
            self.fetcher.clone(),
            Arc::clone(&self.progress),
            Arc::clone(&self.slots),
            Arc::clone(&self.list),
        );
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            // Nobody closes it.
            let _slot = slots.acquire().await;
            let outcome = fetcher.bring(&wanted, &list, &progress).await;
            (wanted.name, outcome)
        });
    }

    /// Waits until all have ended, and returns what went wrong, by the names of the wishes.
    pub(super) async fn failures(self) -> BTreeMap<String, anyhow::Error> {
        let mut pulls =
            std::mem::take(&mut *self.pulls.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failures = BTreeMap::new();
        while let Some(ended) = pulls.join_next().await {
            // A task that did not come to its end leaves its image to whoever looks for it next.
            if let Ok((name, Err(error))) = ended {
                failures.insert(name, error);
            }
        }
        failures
    }
}

impl Drop for Early {
    /// What is given up ends in its own time; until then it must not be drawn under the error.
    fn drop(&mut self) {
        self.progress.clear();
    }
}
