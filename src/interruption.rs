//! A request to stop that reaches every part of a run.

use tokio::sync::watch;

/// Whether somebody (Ctrl-C, SIGTERM) asked this run to stop. All clones are one; once raised it
/// stays so.
///
/// Work that must first come to a whole state [tolerates](Self::tolerate_first) the first request;
/// it is raised again by the second.
#[derive(Debug, Clone)]
pub struct Interruption(watch::Sender<Asked>);

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    times: u32,
    tolerated: u32,
}

impl Asked {
    fn is_raised(self) -> bool {
        self.times > self.tolerated
    }
}

impl Default for Interruption {
    fn default() -> Self {
        Self(watch::Sender::new(Asked::default()))
    }
}

impl Interruption {
    /// Asks the run to stop.
    pub fn raise(&self) {
        self.0.send_modify(|asked| asked.times = asked.times.saturating_add(1));
    }

    /// Whether it was asked to stop, for work that blocks its thread.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.borrow().is_raised()
    }

    /// Waits until it is asked to stop.
    pub async fn raised(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|asked| asked.is_raised()).await;
    }

    /// From now on only a second request counts, whether the first has come or not.
    pub fn tolerate_first(&self) {
        self.0.send_modify(|asked| asked.tolerated = 1);
    }

    /// Whether one request has come and is tolerated.
    #[must_use]
    pub fn is_tolerated(&self) -> bool {
        let asked = *self.0.borrow();
        asked.times > 0 && !asked.is_raised()
    }

    /// Waits until it is asked to stop at all, whatever is tolerated.
    pub async fn asked(&self) {
        let _ = self.0.subscribe().wait_for(|asked| asked.times > 0).await;
    }

    /// Whether it was asked to stop at all, whatever is tolerated.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.borrow().times > 0
    }

    /// Waits until it is asked to stop for the second time.
    pub async fn repeated(&self) {
        let _ = self.0.subscribe().wait_for(|asked| asked.times > 1).await;
    }

    /// Whether it was asked to stop more than once.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.0.borrow().times > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_learn_of_it_early_or_late() {
        let interruption = Interruption::default();
        let early = interruption.clone();
        let waiting = tokio::spawn(async move { early.raised().await });
        assert!(!interruption.is_raised());
        interruption.raise();
        waiting.await.unwrap();
        interruption.clone().raised().await;
        assert!(interruption.is_raised());
    }

    #[tokio::test]
    async fn a_first_one_that_is_tolerated_is_followed_by_one_that_is_not() {
        let interruption = Interruption::default();
        interruption.raise();
        assert!(interruption.is_raised() && !interruption.is_repeated());
        interruption.tolerate_first();
        assert!(!interruption.is_raised() && interruption.is_tolerated());
        interruption.raise();
        interruption.raised().await;
        interruption.repeated().await;
        assert!(interruption.is_raised() && interruption.is_repeated());
    }
}
