//! What an update has to say in the end.

use std::path::Path;

use anyhow::Result;

use super::{RunningUpdate, data};
use crate::app::{App, Exit};
use crate::backup;
use crate::commands::changes;
use crate::commands::run::{container_line, show_containers};
use crate::error::{Error, Kind};
use crate::model::manifest::Service;
use crate::model::reference::ServiceName;
use crate::observe::LocalImages;
use crate::plan::Step;
use crate::report::{
    self, Failure, GivenUpService, ReplacedService, SafeUpdate, ServiceChange, Started,
    UpdateResult,
};
use crate::update::{Finding, Goal, remedy};

impl RunningUpdate<'_> {
    /// `--dry-run`.
    pub(super) fn show_plan(mut self, steps: &[Step]) -> Result<Exit> {
        self.report.dry_run = true;
        self.report.result = UpdateResult::Planned;
        self.collect(steps);
        let app = self.app;
        app.show(&self.report, |report| {
            show_services(app, report);
            if report.replaced.is_empty() {
                app.ui.status("Nothing would be restarted");
            } else {
                app.ui.data(format!("would restart: {}", names(&report.replaced)));
            }
            if let Some(data) = &report.data {
                data::show_plan(app, data);
            }
            if !report.paused.is_empty() {
                let paused = names(&report.paused);
                app.ui.data(format!("would stop while their data is saved: {paused}"));
            }
            app.ui.note("nothing was changed (--dry-run)");
        })?;
        let exit = changes::end(app, self.put_off);
        Ok(if self.unproven.is_empty() { exit } else { Exit::Partial })
    }

    /// The end of an update that went well.
    pub(super) fn show_updated(mut self, steps: &[Step]) -> Result<Exit> {
        let is_change = !self.journal.plan.changed.is_empty() || steps.iter().any(Step::is_change);
        self.report.result = match is_change {
            _ if !self.journal.given_up.is_empty() || !self.unproven.is_empty() => {
                UpdateResult::PartlyUpdated
            }
            true if !self.put_off.is_empty() => UpdateResult::PartlyUpdated,
            true => UpdateResult::Updated,
            false => UpdateResult::Unchanged,
        };
        self.report.given_up = self
            .journal
            .given_up
            .iter()
            .map(|one| GivenUpService {
                service: one.service.to_string(),
                reason: one.reason.join("\n"),
                rejected: one.is_rejected,
            })
            .collect();
        self.report.data_backup.clone_from(&self.journal.saving.data_backup);
        self.report.data.clone_from(&self.journal.saving.data);
        self.report.paused = std::mem::take(&mut self.paused);
        self.collect(steps);
        let (app, downtime) = (self.app, &self.downtime);
        let mut others = Vec::new();
        if let Some(judged) = &self.judged {
            let tracked = self.tracked_names();
            // The record has the image IDs of what was started just now; the daemon need not be
            // asked.
            let images = LocalImages::default();
            let lines = judged.containers.iter().map(|judged| {
                let name = tracked.get(&judged.service);
                let service =
                    steps.iter().map(|step| &step.after).find(|after| Some(&after.name) == name);
                container_line(service, judged, &images)
            });
            self.report.containers = lines.collect();
            others = judged.other_failures().flat_map(crate::health::explain).collect();
        }
        for replaced in &mut self.report.replaced {
            replaced.downtime_seconds = downtime.seconds(&replaced.compose_service);
        }
        app.show(&self.report, |report| {
            show_services(app, report);
            if report.result == UpdateResult::Unchanged {
                let services: Vec<&Service> = steps.iter().map(|step| &step.after).collect();
                return app.ui.status(changes::nothing_new(&services));
            }
            let started = Started { containers: report.containers.clone(), ..Started::default() };
            show_containers(app, &started);
            for paused in &report.paused {
                if let Some(seconds) = paused.downtime_seconds {
                    app.ui.status(format!(
                        "{} was stopped for {seconds:.1} s while its data was saved",
                        paused.compose_service
                    ));
                }
            }
            for replaced in &report.replaced {
                if let Some(seconds) = replaced.downtime_seconds {
                    app.ui.status(format!(
                        "{} was away for {seconds:.1} s",
                        replaced.compose_service
                    ));
                }
            }
        })?;
        if !others.is_empty() {
            app.ui.warn(format!(
                "not part of the update, and not as it should be, as before:\n{}",
                others.join("\n")
            ));
        }
        for name in &self.unproven {
            let message = format!(
                "{name} was not updated: what its tag names runs already, and is not as it should \
                be"
            );
            let hint = "nothing new is recorded of it: `dkv logs` shows why it fails; `dkv up` \
                starts what is recorded, and `dkv update-safe` then tries the new one";
            app.ui.error(&Error::new(Kind::Docker, message).with_hint(hint).into());
        }
        let exit = changes::end(app, std::mem::take(&mut self.put_off));
        if self.journal.given_up.is_empty() && self.unproven.is_empty() {
            return Ok(exit);
        }
        for given_up in &self.journal.given_up {
            let message =
                format!("{} was not updated: {}", given_up.service, given_up.reason.join("\n"));
            let rejected = if given_up.is_rejected {
                "; its new release is rejected until a newer one appears, `dkv update-safe \
                    --retry` takes it all the same"
            } else {
                ""
            };
            let hint = format!("what it ran before runs{rejected}");
            let message = message + &self.about_data();
            app.ui.error(&Error::new(Kind::Docker, message).with_hint(hint).into());
        }
        Ok(Exit::Partial)
    }

    fn collect(&mut self, steps: &[Step]) {
        let services = std::mem::take(&mut self.others);
        let skipped: Vec<String> = services.iter().map(|change| change.name.clone()).collect();
        let planned = steps
            .iter()
            .filter(|step| !skipped.iter().any(|name| name == step.before.name.as_str()));
        self.report.services = planned.map(ServiceChange::of).chain(services).collect();
        if let Some(record) = self.launch.deployment.recorded() {
            let names = &record.manifest.services;
            self.report
                .services
                .sort_by_key(|change| names.keys().position(|name| name.as_str() == change.name));
        }
        self.report.replaced = self.replaced(&self.journal.replaced());
        self.report.stopped = self.journal.left_stopped.iter().cloned().collect();
        self.report.failing = self.journal.left_failing();
    }

    /// Entries for Compose services; how long each was away is still to be said.
    pub(super) fn replaced(&self, compose_services: &[String]) -> Vec<ReplacedService> {
        let tracked = self.tracked_names();
        let replaced = compose_services.iter().map(|name| ReplacedService {
            compose_service: name.clone(),
            service: tracked.get(name).map(ToString::to_string),
            downtime_seconds: None,
        });
        replaced.collect()
    }

    /// What a failed update says about saved data, which nothing puts back by itself: a line of its
    /// own, where a new release may have written.
    fn about_data(&self) -> String {
        if !self.journal.is_replacing {
            return String::new();
        }
        let saving = &self.journal.saving;
        let how = match (&saving.data_backup, &saving.data) {
            (Some(backup), _) if backup::is_dump(Path::new(backup)) => {
                format!(".version-backups/data/{backup} is the dump from before it")
            }
            (Some(backup), _) => {
                format!("`dkv restore-data {backup}` puts back what was saved before it")
            }
            (None, Some(data)) if !data.left_out.is_empty() || data.command.is_some() => {
                "dkv has saved none of it".to_owned()
            }
            (None, _) => return String::new(),
        };
        format!("\nif the new release has changed data: {how}")
    }

    /// Exit 7.
    pub(super) fn restored(&mut self) -> anyhow::Error {
        if self.was_interrupted() {
            let message = format!("interrupted, {}{}", self.what_is_back(), self.about_data());
            let error = Error::new(Kind::Interrupted, message)
                .with_hint(format!("{} begins anew", self.again()));
            return self.show_failed(UpdateResult::Restored, error.into());
        }
        let failure = &self.journal.failure;
        let what = if self.journal.goal.is_return() { "going back" } else { "the update" };
        let mut message =
            format!("{what} failed, {}: {}", self.what_is_back(), failure.reason.join("\n"));
        let named = |findings: &[Finding]| {
            let names: Vec<&str> = findings.iter().map(|one| one.service.as_str()).collect();
            names.join(", ")
        };
        let (rejected, spared) = (&failure.blame.rejected, &failure.blame.spared);
        if !spared.is_empty() {
            let spared = spared.iter().map(|one| format!("{} ({})", one.service, one.headline()));
            let spared: Vec<String> = spared.collect();
            message.push_str(&format!("\nnot rejected: {}", spared.join(", ")));
        }
        let mut hint = if rejected.is_empty() {
            match remedy(&message) {
                Some(remedy) => format!("{remedy}; {} then tries again", self.again()),
                None => format!("{} tries again", self.again()),
            }
        } else if !matches!(self.journal.goal, Goal::Latest(_)) {
            format!(
                "nothing but that is recorded: `dkv update-safe` leaves what was tried of {} alone, \
                `--retry` takes it all the same",
                named(rejected)
            )
        } else {
            format!(
                "the new release of {} is rejected until a newer one appears; `dkv update-safe \
                    --retry` takes it all the same",
                named(rejected)
            )
        };
        let recorded = self.recorded_culprits();
        if !recorded.is_empty() {
            hint.push_str(&format!(
                "; the manifest records it already: `dkv rollback {}` goes back",
                recorded.join(" ")
            ));
        }
        message.push_str(&self.about_data());
        let error = Error::new(Kind::Restored, message).with_hint(hint).into();
        self.show_failed(UpdateResult::Restored, error)
    }

    /// The document of an update that failed after containers were replaced; the error is for
    /// people too.
    fn show_failed(&mut self, result: UpdateResult, error: anyhow::Error) -> anyhow::Error {
        self.report.result = result;
        self.report.rejected = self.findings(&self.journal.failure.blame.rejected);
        self.report.spared = self.findings(&self.journal.failure.blame.spared);
        self.report.data_backup.clone_from(&self.journal.saving.data_backup);
        self.report.data.clone_from(&self.journal.saving.data);
        self.report.error = Some(Failure::new(&error).error);
        match self.app.show(&self.report, |_| ()) {
            Ok(()) => error,
            Err(unshown) => error.context(format!("{unshown:#}")),
        }
    }

    fn findings(&self, findings: &[Finding]) -> Vec<report::Finding> {
        let findings = findings.iter().map(|finding| {
            let target = self.journal.plan.target(&finding.service);
            report::Finding {
                service: finding.service.to_string(),
                tag: target.map(|target| target.tag.to_string()),
                digest: target
                    .and_then(|target| target.bytes.digest.as_ref())
                    .map(ToString::to_string),
                reason: finding.reason.join("\n"),
            }
        });
        findings.collect()
    }

    /// The command that tries the same again.
    fn again(&self) -> String {
        let arguments = &self.app.settings.arguments;
        match &self.journal.goal {
            Goal::Latest(names) if names.is_empty() => "`dkv update-safe`".to_owned(),
            Goal::Latest(names) => {
                let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
                format!("`dkv update-safe {}`", names.join(" "))
            }
            _ if self.is_abort || arguments.is_empty() => "the same command".to_owned(),
            _ => format!("`dkv {}`", arguments.join(" ")),
        }
    }

    /// What runs after a restore, to follow "the update failed".
    fn what_is_back(&self) -> String {
        let changed = &self.journal.plan.changed;
        let ailing: Vec<&str> = changed
            .iter()
            .filter(|name| self.journal.had_container(name) && !self.journal.was_good(name))
            .map(String::as_str)
            .collect();
        if !changed.iter().any(|name| self.journal.had_container(name)) {
            return "and as before it, nothing of what changed runs".to_owned();
        }
        match ailing.as_slice() {
            [] => "and what ran before is back and healthy".to_owned(),
            names => format!(
                "and what ran before is back ({} was not as it should be before either)",
                names.join(", ")
            ),
        }
    }

    /// The culprits whose bad release an earlier `pull-latest` has recorded.
    fn recorded_culprits(&self) -> Vec<&str> {
        let Some(record) = self.launch.deployment.recorded() else { return Vec::new() };
        let rejected = self.journal.failure.blame.rejected.iter().map(|finding| &finding.service);
        let culprits = rejected.filter(|name| {
            let target = self.journal.plan.target(name);
            let bad = target.and_then(|target| target.bytes.digest.as_ref());
            let recorded = record.service(name).and_then(Service::current);
            bad.is_some() && recorded.and_then(|release| release.bytes.digest.as_ref()) == bad
        });
        culprits.map(ServiceName::as_str).collect()
    }

    /// Exit 8.
    pub(super) fn restore_failed(&mut self) -> anyhow::Error {
        let problems = self.restore_problems.join("\n");
        let reason = match self.journal.failure.reason.as_slice() {
            [] => "the update was undone".to_owned(),
            lines => format!("the update failed: {}", lines.join("\n")),
        };
        let message = format!(
            "{reason}\nwhat ran before is not back as it was:\n{problems}{}",
            self.about_data()
        );
        let hint = "everything is kept: look into it with `dkv status` and `dkv logs`, mend the \
            cause, then `dkv update-safe --abort` restores again";
        let error = Error::new(Kind::RestoreFailed, message).with_hint(hint).into();
        self.show_failed(UpdateResult::RestoreFailed, error)
    }
}

/// `--abort`, when what ran runs.
pub(super) fn show_restored(app: &App) -> Result<Exit> {
    let report = SafeUpdate { result: UpdateResult::Restored, ..SafeUpdate::default() };
    app.show(&report, |_| app.ui.status("What ran before the update runs"))?;
    Ok(Exit::Done)
}

/// A line for each service that changes or is left alone for a reason.
fn show_services(app: &App, report: &SafeUpdate) {
    changes::show_lines(app, &report.services);
}

fn names(services: &[ReplacedService]) -> String {
    let names: Vec<&str> = services.iter().map(|one| one.compose_service.as_str()).collect();
    names.join(", ")
}
