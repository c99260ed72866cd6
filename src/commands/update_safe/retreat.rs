//! `--keep-going`: the old versions of what failed come back beside the new versions of the rest.

use anyhow::Result;

use super::RunningUpdate;
use crate::members::variables_of;
use crate::model::reference::ServiceName;
use crate::update::{GivenUp, State};

impl RunningUpdate<'_> {
    /// Gives up the new releases that failed, if that was asked for and leaves others to go on
    /// with. What Compose is told next brings the old ones back.
    pub(super) fn retreat(&mut self) -> Result<bool> {
        let has_failed = matches!(self.journal.state, State::Replacing | State::Judging);
        let culprits = self.failed_services();
        if !self.journal.options.keep_going || !has_failed || !self.can_spare(&culprits)? {
            return Ok(false);
        }
        self.app.ui.step("Restoring", list(&culprits) + " only, and going on with the others");
        self.record_rejected();
        let blame = std::mem::take(&mut self.journal.failure.blame);
        self.journal.failure.reason.clear();
        self.failure = None;
        for variable in self.variables(&culprits)? {
            match self.journal.plan.variables_before.get(&variable) {
                Some(value) => self.journal.plan.variables_after.insert(variable, value.clone()),
                None => self.journal.plan.variables_after.remove(&variable),
            };
        }
        self.journal.plan.targets.retain(|target| !culprits.contains(&target.service));
        if let Some(change) = &mut self.change {
            change.steps.retain(|step| !culprits.contains(&step.before.name));
        }
        let given_up = blame.given_up().into_iter().map(|finding| GivenUp {
            service: finding.service.clone(),
            reason: finding.reason.clone(),
            is_rejected: blame.rejected.contains(finding),
        });
        self.journal.given_up.extend(given_up);
        Ok(true)
    }

    /// The services whose new release was tried and does not run.
    fn failed_services(&self) -> Vec<ServiceName> {
        let given_up = self.journal.failure.blame.given_up();
        given_up.into_iter().map(|finding| finding.service.clone()).collect()
    }

    /// Whether the old versions of `culprits` can run beside the new versions of others: there are
    /// others, every culprit ran before, and no variable serves both sides.
    fn can_spare(&self, culprits: &[ServiceName]) -> Result<bool> {
        let tracked = self.tracked_names();
        let changed = self.journal.plan.changed.iter().filter_map(|name| tracked.get(name));
        let others: Vec<ServiceName> =
            changed.filter(|service| !culprits.contains(service)).cloned().collect();
        let ran: Vec<&ServiceName> = self.journal.kept.iter().map(|kept| &kept.service).collect();
        if culprits.is_empty()
            || others.is_empty()
            || !culprits.iter().all(|culprit| ran.contains(&culprit))
        {
            return Ok(false);
        }
        let variables = self.variables(culprits)?;
        Ok(!self.variables(&others)?.iter().any(|variable| variables.contains(variable)))
    }

    fn variables(&self, services: &[ServiceName]) -> Result<Vec<String>> {
        let record = self.record()?;
        let prefix = &record.manifest.env.prefix;
        let known = services.iter().filter_map(|name| record.service(name));
        Ok(known.flat_map(|service| variables_of(prefix, service)).map(|(name, _)| name).collect())
    }
}

fn list(services: &[ServiceName]) -> String {
    let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
    names.join(", ")
}
