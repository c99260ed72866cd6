//! What ran comes back.

use anyhow::Result;

use super::{RunningUpdate, forget_kept, interrupted, report};
use crate::app::Exit;
use crate::change::Change;
use crate::compose::Action;
use crate::error::{self, Kind};
use crate::health;
use crate::plan::Step;
use crate::update::reject;

impl RunningUpdate<'_> {
    /// Brings back the images that ran and starts what was stopped; whether all that was good is
    /// good again.
    pub(super) async fn restore(&mut self) -> Result<bool> {
        if !self.journal.is_replacing && self.journal.saving.stopped.is_empty() {
            return Ok(true);
        }
        self.app.ui.step("Restoring", "what ran before");
        let replaced = self.journal.is_replacing;
        let stopped: Vec<String> = self
            .journal
            .saving
            .stopped
            .iter()
            .filter(|name| !(replaced && self.journal.is_replaced(name)))
            .cloned()
            .collect();
        let mut problems = Vec::new();
        if let Err(error) = self.start_again(&stopped).await {
            problems.push(not_interrupted(error)?);
        }
        if replaced && let Err(error) = self.bring_back().await {
            problems.push(not_interrupted(error)?);
        }
        let judged =
            self.await_health(self.expectations(|name| self.journal.was_good(name))).await?;
        problems.extend(judged.failures().flat_map(health::explain));
        let ran = self.journal.replaced().into_iter();
        let ran = ran.map(|name| (self.journal.containers_of(&name), name));
        let too_few = judged.too_few(ran.map(|(count, name)| (name, count)));
        let is_good = judged.failures().next().is_none() && too_few.is_empty();
        problems.extend(too_few);
        self.restore_problems = problems;
        if self.journal.is_replacing {
            self.record_rejected();
        }
        Ok(is_good)
    }

    /// Replaces the new containers by old ones; a service that had none has none again.
    async fn bring_back(&self) -> Result<()> {
        let (had, lacked): (Vec<String>, Vec<String>) =
            self.journal.replaced().into_iter().partition(|name| self.journal.had_container(name));
        let environment =
            self.launch.environment.clone().with(self.journal.plan.variables_before.clone());
        if !lacked.is_empty() {
            let kept = self.keep_logs(&lacked).await;
            let removed = self.compose(&Action::Remove { services: lacked }, &environment).await;
            kept.finish(self.app).await;
            removed?;
        }
        if had.is_empty() { Ok(()) } else { self.up(had, &environment).await }
    }

    /// Starts the containers of `services` and waits until those are good that were.
    pub(super) async fn start_again(&self, services: &[String]) -> Result<()> {
        if services.is_empty() {
            return Ok(());
        }
        let start = Action::Start { services: services.to_vec() };
        self.compose(&start, &self.launch.environment).await?;
        let expectations = self.expectations(|name| {
            services.iter().any(|service| service == name) && self.journal.was_good(name)
        });
        let judged = self.await_health(expectations).await?;
        let problems: Vec<String> = judged.failures().flat_map(health::explain).collect();
        if problems.is_empty() { Ok(()) } else { Err(error::docker(problems.join("\n")).into()) }
    }

    /// Remembers the digests that failed. That they cannot be written down must not hide that the
    /// old versions are back.
    pub(super) fn record_rejected(&mut self) {
        let recorded = self.rejections().and_then(|steps| {
            if steps.is_empty() {
                return Ok(());
            }
            Change::of(steps).commit(&mut self.launch.deployment).map(drop)
        });
        if let Err(error) = recorded {
            self.app.ui.warn(format!("what failed cannot be recorded as rejected: {error:#}"));
        }
    }

    fn rejections(&self) -> Result<Vec<Step>> {
        let record = self.record()?;
        let at = self.app.stamp().at;
        let steps = self.journal.failure.blame.rejected.iter().filter_map(|finding| {
            let service = record.service(&finding.service)?;
            let target = self
                .journal
                .plan
                .targets
                .iter()
                .find(|target| target.service == finding.service)?;
            let reason = finding.headline();
            let mut step = Step::unchanged(service);
            reject(&mut step.after, target.bytes.digest.as_ref()?, &target.tag, reason, &at);
            Some(step)
        });
        Ok(steps.collect())
    }

    /// The end of an update that was undone or has failed.
    pub(super) async fn end_restored(mut self) -> Result<Exit> {
        self.remove_journal()?;
        forget_kept(self.app, self.launch.deployment.recorded(), &self.journal).await;
        if self.is_abort {
            return report::show_restored(self.app);
        }
        if self.journal.is_replacing {
            return Err(self.restored());
        }
        Err(self
            .failure
            .take()
            .unwrap_or_else(|| error::state(self.journal.failure.reason.join("\n")).into()))
    }
}

/// The failure's words, unless it is an interruption, which ends the work.
fn not_interrupted(error: anyhow::Error) -> Result<String> {
    if error::kind(&error) == Kind::Interrupted {
        Err(interrupted())
    } else {
        Ok(format!("{error:#}"))
    }
}
