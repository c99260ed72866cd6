//! A request to stop that reaches every part of a run.

use tokio::sync::watch;

/// Whether somebody (Ctrl-C, SIGTERM) asked this run to stop. All clones are one; once raised it
/// stays so.
#[derive(Debug, Clone)]
pub struct Interruption(watch::Sender<bool>);

impl Default for Interruption {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Interruption {
    /// Asks the run to stop.
    pub fn raise(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked to stop, for work that blocks its thread.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked to stop.
    pub async fn raised(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
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
}
