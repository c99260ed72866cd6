//! A change of the record: planned, fetched, committed, told. The only way in which a manifest that
//! exists is written.
//!
//! What the plan was made from is part of it: when the change is committed, every service that was
//! looked at must still stand in the manifest as it was read, also those that the plan leaves
//! alone. Otherwise two commands at once could leave a mixture that neither of them meant.

mod evidence;
mod files;
mod keep;
mod operation;

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;

use crate::app::App;
use crate::deployment::{Deployment, Record};
use crate::docker::Image;
use crate::error::{self, Kind};
use crate::images::{self, Arrived, Early, Wanted};
use crate::model::manifest::{Listing, Service, Source};
use crate::model::reference::{Platform, ServiceName};
use crate::observe::LocalImages;
use crate::plan::{Outcome, Step};
use crate::report::{Changes, Files, ServiceChange};
pub use evidence::{Evidence, Seen};
use files::Draft;
pub use files::{create, hold, note_attempt, refresh_env};
pub use keep::Remembered;
pub use operation::{About, Attempt, note_end, recorded};

/// What a command makes of the record, from the plan to the commit.
#[derive(Default)]
pub struct Change {
    /// What becomes of each service.
    pub steps: Vec<Step>,
    /// What is told of services that the change leaves alone, or that failed.
    others: Vec<ServiceChange>,
    /// The services that were looked at and are left alone.
    looked_at: Vec<ServiceName>,
    failures: Vec<anyhow::Error>,
    /// What failed without stopping the others.
    put_off: Vec<(ServiceName, anyhow::Error)>,
    /// Images that are on their way already.
    early: Option<Early>,
    /// How many services were to be changed, those that failed included.
    total: usize,
    /// What later shows which images these releases are.
    evidence: Evidence,
    /// What is tracked from now on, and what is not.
    pub listing: Listing,
    /// What is written down about it beyond that.
    pub about: About,
    /// The record whose very text comes back, where that is what the change is.
    restored: Option<Box<Record>>,
}

impl Change {
    /// The change that `steps` make together.
    #[must_use]
    pub fn of(steps: Vec<Step>) -> Self {
        let total = steps.len();
        Self { steps, total, ..Self::default() }
    }

    /// The change that brings back the very text that `target` was read from. `steps` are what
    /// becomes of all services that it is about.
    #[must_use]
    pub fn back_to(target: Record, steps: Vec<Step>, about: About) -> Self {
        let restored = Some(Box::new(target));
        Self { restored, about, ..Self::of(steps) }
    }

    /// Adds what becomes of one service.
    pub fn add(&mut self, step: Step) {
        self.total += 1;
        self.steps.push(step);
    }

    /// Adds a service that is looked at and left alone, and why.
    pub fn skip(&mut self, service: &Service, why: impl Into<String>) {
        self.looked_at.push(service.name.clone());
        self.others.push(ServiceChange::skipped(service, why.into()));
    }

    /// Adds what is told of a service that is looked at and stays as it is.
    pub fn tell(&mut self, service: &Service, change: ServiceChange) {
        self.looked_at.push(service.name.clone());
        self.others.push(change);
    }

    /// Adds a service that failed. `error` names it.
    pub fn fail(&mut self, service: &Service, error: anyhow::Error) {
        self.total += 1;
        self.looked_at.push(service.name.clone());
        self.others.push(ServiceChange::failed(service, &error));
        self.failures.push(error);
    }

    /// Adds a service of which nothing is known that could be given up, and that nobody could be
    /// asked about: the others go on without it, and whoever carries the change out, or shows what
    /// would come of it, ends with [`Self::take_failures`].
    pub fn put_off(&mut self, service: &Service, error: anyhow::Error) {
        self.total += 1;
        self.looked_at.push(service.name.clone());
        self.others.push(ServiceChange::failed(service, &error));
        self.put_off.push((service.name.clone(), error));
    }

    /// Whether the others go on without the service called `name`.
    #[must_use]
    pub fn goes_without(&self, name: &ServiceName) -> bool {
        self.put_off.iter().any(|(one, _)| one == name)
    }

    /// Takes over pulls that began before the change was whole.
    pub fn expect(&mut self, early: Option<Early>) {
        self.early = early;
    }

    /// Whether anything is to be recorded.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.restored.is_some() || self.steps.iter().any(Step::is_change)
    }

    /// What is told of the services that are left alone.
    #[must_use]
    pub fn others(&self) -> &[ServiceChange] {
        &self.others
    }

    /// Whether some services failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// What failed, for the end of a report that tells of the others.
    pub fn take_failures(&mut self) -> Vec<anyhow::Error> {
        let mut failures = std::mem::take(&mut self.failures);
        failures.extend(std::mem::take(&mut self.put_off).into_iter().map(|(_, error)| error));
        failures
    }

    /// All or nothing: the failures as one, unless there are none, or `keep_going` and there is
    /// something to go on with. What is put off alone is nothing to go on with. `consequence` is what
    /// that means for the others. Every plan comes by here, also one that is only shown.
    ///
    /// # Errors
    ///
    /// As said, with the kind of the first failure.
    pub fn check(&mut self, keep_going: bool, consequence: &str) -> Result<()> {
        let can_go_on = keep_going || self.failures.is_empty();
        if can_go_on && !self.steps.is_empty() {
            return Ok(());
        }
        error::together(self.take_failures(), self.total, consequence)
    }

    /// What would be done, and nothing is.
    #[must_use]
    pub fn preview(&self, record: &Record) -> Changes {
        Changes { dry_run: true, ..self.told(record, Files::default()) }
    }

    /// What became of every service, in the manifest's order.
    fn told(&self, record: &Record, files: Files) -> Changes {
        let place: HashMap<&str, usize> =
            record.services().enumerate().map(|(at, one)| (one.name.as_str(), at)).collect();
        let steps = self.steps.iter().map(ServiceChange::of);
        let mut services: Vec<ServiceChange> = steps.chain(self.others.iter().cloned()).collect();
        services.sort_by_key(|change| place.get(change.name.as_str()).copied());
        Changes { services, files, ..Changes::default() }
    }

    /// Makes all images local, or waits until they are where that began early, and takes what the
    /// daemon calls them into the record. Services that fail are taken out of the steps.
    ///
    /// # Errors
    ///
    /// The daemon cannot be reached (exit 6), or a service has no image (exit 3).
    pub async fn fetch(&mut self, app: &App, record: &Record) -> Result<()> {
        let fetcher = app.fetcher().await?;
        // A service of which nothing is recorded has nothing to fetch, and what comes back beside a
        // release that stays is no reason to.
        let is_fetched = |step: &Step| {
            step.after.current().is_some() && (self.restored.is_none() || step.has_other_bytes())
        };
        let (steps, idle): (Vec<Step>, Vec<Step>) =
            std::mem::take(&mut self.steps).into_iter().partition(is_fetched);
        let mut wanted = Vec::new();
        for step in &steps {
            images::image_of(&step.after)?;
            let release = step.after.current();
            wanted.extend(
                release.and_then(|release| Wanted::release(&step.after, release, &record.hash)),
            );
        }
        let platform = fetcher.docker.platform().await?.clone();
        let arrived = fetcher.fetch_rest(&wanted, self.early.take()).await;
        self.evidence = evidence_of(app, &steps, &arrived).await;
        for (mut step, arrived) in steps.into_iter().zip(arrived) {
            let checked = arrived.and_then(|arrived| {
                let platform = step.after.platform.as_ref().unwrap_or(&platform);
                check_platform(&step, &arrived.image, platform).map(|()| arrived)
            });
            match checked {
                Ok(arrived) => {
                    learn(&mut step.after, &arrived.image);
                    self.steps.push(step);
                }
                Err(error) => {
                    self.looked_at.push(step.before.name.clone());
                    self.others.push(ServiceChange::failed(&step.before, &error));
                    self.failures.push(error.context(format!("service `{}`", step.before.name)));
                }
            }
        }
        self.steps.extend(idle);
        Ok(())
    }

    /// Writes the record, without the daemon: a backup first, then manifest and `versions.env`
    /// together. Where nothing changes, only a `versions.env` that is not as it should be is
    /// written.
    ///
    /// # Errors
    ///
    /// Another dkv holds the lock (exit 4); a service that was looked at has changed, or a file
    /// cannot be written (exit 3).
    pub fn commit(&mut self, deployment: &mut Deployment<'_>) -> Result<Changes> {
        let after = self.steps.iter().map(|step| &step.after);
        let evidence = Evidence::of_manifests(deployment.app(), after);
        let files = match self.draft(deployment)? {
            Some(draft) => {
                let (files, lock) = draft.write(deployment, &self.about)?;
                evidence.keep(deployment.app(), &lock);
                evidence::sweep(deployment.app(), deployment.record()?, &lock);
                files
            }
            None => Files::default(),
        };
        Ok(self.told(deployment.record()?, files))
    }

    /// As [`Self::commit`], for images that were fetched: what is recorded is made sure to be kept
    /// before it is written, and what no history remembers any more is let go after it, both under
    /// the lock.
    ///
    /// # Errors
    ///
    /// As for [`Self::commit`]; an image has vanished since it was fetched (exit 6).
    pub async fn commit_kept(&mut self, deployment: &mut Deployment<'_>) -> Result<Changes> {
        let app = deployment.app();
        self.evidence.settle_store(deployment).await?;
        if self.evidence.rename(deployment) {
            self.evidence.note_names(deployment)?;
        }
        let Some(draft) = self.draft(deployment)? else {
            self.evidence.keep_alone(app)?;
            keep::sweep(deployment).await?;
            return Ok(self.told(deployment.record()?, Files::default()));
        };
        let docker = deployment.app().docker().await?;
        keep::ensure(docker, &self.steps, &deployment.record()?.hash).await?;
        if let Some(target) = &self.restored {
            let images = LocalImages::look(docker, Some(target), &app.store).await?;
            keep::again(docker, target, &images).await?;
        }
        let (files, lock) = draft.write(deployment, &self.about)?;
        let record = deployment.record()?;
        self.evidence.keep(app, &lock);
        keep::forget(docker, &self.steps, record, &app.store, &lock).await;
        evidence::sweep(app, record, &lock);
        Ok(self.told(record, files))
    }

    /// The new text of the manifest, made from what stands there under the lock; none if nothing is
    /// to be written.
    fn draft(&self, deployment: &Deployment<'_>) -> Result<Option<Draft>> {
        if let Some(target) = &self.restored {
            let draft = Draft::begin(deployment)?;
            self.check_unchanged(deployment.record()?, draft.record(deployment)?)?;
            return Ok(Some(draft.with_text(target.snapshot.bytes.clone())));
        }
        let changed: Vec<Service> = self
            .steps
            .iter()
            .filter(|step| step.is_change())
            .map(|step| step.after.clone())
            .collect();
        if changed.is_empty() && self.listing.is_empty() {
            return Draft::of_env(deployment);
        }
        let draft = Draft::begin(deployment)?;
        self.check_unchanged(deployment.record()?, draft.record(deployment)?)?;
        draft.with(deployment, &changed, &self.listing).map(Some)
    }

    /// Refuses what was planned from another record than `now`.
    ///
    /// # Errors
    ///
    /// A service that the change is about was changed since (exit 3).
    pub fn check_still(&self, now: &Record) -> Result<()> {
        let is_same = |step: &&Step| match now.service(&step.before.name) {
            Some(service) => *service == step.before,
            None => step.before.current().is_none(),
        };
        match self.steps.iter().find(|step| !is_same(step)) {
            None => Ok(()),
            Some(step) => Err(error::state(format!(
                "service `{}` was changed in the manifest while this command ran; nothing was done",
                step.before.name
            ))
            .with_hint("run the command again")
            .into()),
        }
    }

    /// Refuses to write over what somebody else has written since the plan was made.
    fn check_unchanged(&self, planned: &Record, now: &Record) -> Result<()> {
        let stepped = self.steps.iter().map(|step| &step.before.name);
        let others = self.looked_at.iter().chain(&self.listing.removed);
        let looked_at: BTreeSet<&ServiceName> = stepped.chain(others).collect();
        match looked_at.into_iter().find(|name| planned.service(name) != now.service(name)) {
            None => Ok(()),
            Some(name) => Err(error::state(format!(
                "service `{name}` was changed in the manifest while this command ran; nothing was \
                written"
            ))
            .with_hint("run the command again")
            .into()),
        }
    }
}

/// What is to be kept of the releases that `steps` record.
async fn evidence_of(app: &App, steps: &[Step], arrived: &[Result<Arrived>]) -> Evidence {
    let seen = steps.iter().zip(arrived).filter_map(|(step, arrived)| {
        use Outcome::{Relabelled, Unchanged, Updated};
        let arrived = arrived.as_ref().ok()?;
        // These were found by asking the registry.
        let may_ask = arrived.pulled || matches!(step.outcome, Updated | Unchanged | Relabelled);
        Some(Seen { service: &step.after, release: step.after.current()?, arrived, may_ask })
    });
    Evidence::gather(app, &seen.collect::<Vec<_>>()).await
}

/// Keeps what showed when recorded images were made local, and goes on with what Compose is to be
/// told from now on; whether that is anything else than before. The images are local: that this
/// cannot be written down is told, and is no failure.
///
/// # Errors
///
/// Somebody asked to stop (exit 130); the daemon does not answer (exit 6).
pub async fn settle(deployment: &mut Deployment<'_>, evidence: &Evidence) -> Result<bool> {
    evidence.settle_store(deployment).await?;
    let swept = keep::sweep(deployment).await;
    let has_changed = evidence.rename(deployment);
    let kept = evidence.keep_alone(deployment.app()).and_then(|()| match has_changed {
        true => {
            evidence.note_names(deployment)?;
            files::refresh_env(deployment).map(drop)
        }
        false => Ok(()),
    });
    match kept.and(swept) {
        Err(error) if error::kind(&error) == Kind::Interrupted => return Err(error),
        Err(error) => deployment.app().ui.warn(format!(
            "the images are local, but not all could be written down about them: {error:#}"
        )),
        Ok(()) => {}
    }
    Ok(has_changed)
}

/// Refuses a release that is made for another kind of machine, unless it was recorded before.
fn check_platform(step: &Step, image: &Image, host: &Platform) -> Result<()> {
    let found = &image.platform;
    let was_recorded = step.after.current().is_some_and(|current| {
        let entries = step.before.history.entries();
        entries.iter().any(|entry| entry.bytes.digest == current.bytes.digest)
    });
    if images::fits(image, Some(host)) || was_recorded {
        return Ok(());
    }
    let message = format!("{}: the image is for {found}, this host is {host}", step.before.name);
    let hint = "ask the publisher for an image for this platform";
    Err(error::registry(message).with_hint(hint).into())
}

/// Takes the daemon's name for an image into the record of the current release.
fn learn(service: &mut Service, image: &Image) {
    let repository = service.image.clone();
    let is_local = service.source == Source::Local;
    let Some(current) = service.history.current_mut() else { return };
    // A build goes by the ID that it got first: its keep-tag is made of it.
    if !is_local || current.bytes.image_id.is_none() {
        current.bytes.image_id = Some(image.id.clone());
    }
    if current.bytes.digest.is_none()
        && !is_local
        && let Some(digest) =
            repository.as_ref().and_then(|repository| image.digests_of(repository).next())
    {
        current.bytes.digest = Some(digest.clone());
        current.unverified_digest = None;
    }
}
