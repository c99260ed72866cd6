//! `pull`, `pull-latest`, `version-pull`, `version-set`, `unhold`: images from registries, and the
//! record of what they are.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::StreamExt as _;

use super::{App, Exit};
use crate::compose;
use crate::deployment::Deployment;
use crate::docker::{Image, PullTarget, Untagged};
use crate::error::{self, Error};
use crate::images::{self, Wanted};
use crate::lookup::{self, Latest, Lookup};
use crate::model::history::Release;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Platform, ServiceName, Tag};
use crate::plan::{self, Intent, Outcome, Step};
use crate::registry::ManifestName;
use crate::registry::resolve::Resolution;
use crate::report::{Changes, ReleaseView, ServiceChange};

/// `dkv pull [SERVICE…]`: makes the recorded images local; writes no file.
///
/// # Errors
///
/// An image can be had nowhere (exit 5 or 6); with `keep_going`, exit 9 if others could.
pub async fn pull(app: &App, names: &[ServiceName], keep_going: bool, dry_run: bool) -> Result<Exit> {
    let Some(deployment) = app.load()? else { return pull_without_manifest(app, names, keep_going, dry_run).await };
    let selected = plan::select(&deployment.manifest, names)?;
    let mut report = Changes { dry_run, ..Changes::default() };
    let mut wanted = Vec::new();
    let mut services = Vec::new();
    for service in selected {
        match service.current().and_then(|current| Wanted::release(service, current, &deployment.hash)) {
            Some(one) => {
                wanted.push(one);
                services.push(service);
            }
            None => match tracked(service) {
                Some(one) => {
                    wanted.push(one);
                    services.push(service);
                }
                None => report.services.push(ServiceChange::skipped(service, "nothing is recorded yet".to_owned())),
            },
        }
    }
    warn_about_tags(app, &wanted);
    if dry_run {
        let local = app.docker().await?.images(&wanted.iter().map(Wanted::reference).collect::<Vec<_>>()).await?;
        for (service, image) in services.into_iter().zip(local) {
            let mut change = ServiceChange::of(&Step::unchanged(service));
            change.outcome = if image.is_some() { Outcome::Present } else { Outcome::Pulled };
            report.services.push(change);
        }
    } else {
        let results = app.fetcher().await?.fetch(&wanted).await;
        let mut failures = Vec::new();
        for (service, arrived) in services.into_iter().zip(results) {
            match arrived {
                Ok(arrived) => {
                    let mut change = ServiceChange::of(&Step::unchanged(service));
                    change.outcome = if arrived.pulled { Outcome::Pulled } else { Outcome::Present };
                    report.services.push(change);
                }
                Err(error) => {
                    report.services.push(ServiceChange::failed(service, &error));
                    failures.push(error.context(format!("service `{}`", service.name)));
                }
            }
        }
        if !failures.is_empty() {
            let total = wanted.len();
            return settle_failures(app, &report, failures, total, keep_going, "the others are local");
        }
    }
    app.show(&report, |report| summarise_pull(app, report))?;
    Ok(Exit::Done)
}

fn summarise_pull(app: &App, report: &Changes) {
    let count = |outcome: Outcome| report.services.iter().filter(|change| change.outcome == outcome).count();
    let (pulled, present) = (count(Outcome::Pulled), count(Outcome::Present));
    for change in report.services.iter().filter(|change| change.outcome == Outcome::Skipped) {
        app.ui.status(format!("{}: {}", change.name, change.notes.join(", ")));
    }
    if report.dry_run {
        for change in report.services.iter().filter(|change| change.outcome == Outcome::Pulled) {
            let release = change.to.as_ref().map_or_else(String::new, ReleaseView::short);
            app.ui.status(format!("would pull {} {release}", change.name));
        }
    }
    match (pulled, present) {
        (0, present) => app.ui.status(format!("All {present} images are local already")),
        (pulled, 0) => app.ui.status(format!("{} {pulled} images", if report.dry_run { "Would pull" } else { "Pulled" })),
        (pulled, present) => app.ui.status(format!(
            "{} {pulled} images; {present} were local already",
            if report.dry_run { "Would pull" } else { "Pulled" }
        )),
    }
}

/// A service for which nothing is recorded: the image that its tracked tag names.
fn tracked(service: &Service) -> Option<Wanted> {
    let tag: Tag = service.track_name().parse().ok()?;
    Some(Wanted {
        name: service.name.to_string(),
        repository: service.image.clone()?,
        target: PullTarget::Tag(tag.clone()),
        tag: Some(tag),
        keep: None,
        image_id: None,
        is_local: service.source == Source::Local,
    })
}

fn warn_about_tags(app: &App, wanted: &[Wanted]) {
    for one in wanted.iter().filter(|one| !one.is_local && matches!(one.target, PullTarget::Tag(_))) {
        let tag = one.tag.as_ref().map(ToString::to_string).unwrap_or_default();
        app.ui.warn(format!("{}: no digest is recorded for {tag}; taking what the tag names today", one.name));
    }
}

/// Without a manifest: every image that the Compose files name, as the old `make pull` did.
async fn pull_without_manifest(app: &App, names: &[ServiceName], keep_going: bool, dry_run: bool) -> Result<Exit> {
    let wanted = compose_images(app, names).await?;
    let mut report = PlainPull { dry_run, images: Vec::new() };
    if dry_run {
        report.images =
            wanted.iter().map(|one| PlainImage { image: one.reference(), outcome: Outcome::Pulled, error: None }).collect();
        app.show(&report, |report| report.images.iter().for_each(|one| app.ui.data(format!("would pull {}", one.image))))?;
        return Ok(Exit::Done);
    }
    // Whether a tag moved only the registry knows: the daemon asks it, as `docker pull` does.
    let results = app.fetcher().await?.fetch_anew(&wanted).await;
    let mut failures = Vec::new();
    for (one, arrived) in wanted.iter().zip(results) {
        let error = arrived.as_ref().err().map(|error| format!("{error:#}"));
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Pulled };
        report.images.push(PlainImage { image: one.reference(), outcome, error });
        failures.extend(arrived.err().map(|error| error.context(format!("service `{}`", one.name))));
    }
    let (failed, total) = (failures.len(), wanted.len());
    if failed > 0 && (!keep_going || failed == total) {
        return fail_together(failures, total, "the others are local").map(|()| Exit::Partial);
    }
    app.show(&report, |_| app.ui.status(format!("Pulled {} images", total - failed)))?;
    for failure in &failures {
        app.ui.error(failure);
    }
    Ok(if failed > 0 { Exit::Partial } else { Exit::Done })
}

/// `pull` without a manifest.
#[derive(Debug, serde::Serialize)]
struct PlainPull {
    dry_run: bool,
    images: Vec<PlainImage>,
}

#[derive(Debug, serde::Serialize)]
struct PlainImage {
    image: String,
    outcome: Outcome,
    error: Option<String>,
}

/// The images that the Compose files name, interpolated by Compose, without what it builds here.
async fn compose_images(app: &App, names: &[ServiceName]) -> Result<Vec<Wanted>> {
    let compose = app.compose(None)?;
    let set = if compose.files().databases().is_empty() { compose::Set::Application } else { compose::Set::All };
    let project = compose.config(set, &compose::Environment::default(), None).await?;
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for service in &project.services {
        let is_named = names.is_empty() || names.iter().any(|name| name.as_str() == service.name);
        let Some(image) = service.image.as_ref().filter(|_| is_named && !service.has_build) else { continue };
        let one = Wanted::named(&service.name, image)
            .ok_or_else(|| error::state(format!("Compose service `{}`: `{image}` is not an image name", service.name)))?;
        if seen.insert(one.reference()) {
            wanted.push(one);
        }
    }
    for name in names {
        if !project.services.iter().any(|service| service.name == name.as_str()) {
            let known: Vec<&str> = project.services.iter().map(|service| service.name.as_str()).collect();
            let hint = format!("the Compose files have {}", known.join(", "));
            return Err(error::usage(format!("unknown service `{name}`")).with_hint(hint).into());
        }
    }
    Ok(wanted)
}

/// How `pull-latest` goes about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct LatestOptions {
    /// Resolve and record only; no daemon.
    pub no_pull: bool,
    /// Record the services that succeeded.
    pub keep_going: bool,
    /// Take what a safe update has rejected.
    pub retry: bool,
    /// Show the plan only.
    pub dry_run: bool,
}

/// `dkv pull-latest [SERVICE…]`: what the tracked tags name now, pulled and recorded.
///
/// # Errors
///
/// A registry or the daemon fails for some service (exit 5 or 6): then nothing is recorded, unless
/// `keep_going` (exit 9).
pub async fn pull_latest(app: &App, names: &[ServiceName], options: LatestOptions) -> Result<Exit> {
    let Some(deployment) = app.load()? else {
        if options.no_pull {
            app.require_manifest()?;
        }
        return pull_without_manifest(app, names, options.keep_going, options.dry_run).await;
    };
    if !options.dry_run {
        deployment.check_writable(&app.store)?;
    }
    let mut report = Changes { dry_run: options.dry_run, ..Changes::default() };
    let mut followed = Vec::new();
    for service in plan::select(&deployment.manifest, names)? {
        if service.held {
            report.services.push(ServiceChange::skipped(service, "held; `dkv unhold` lets it follow its tag again".to_owned()));
        } else {
            followed.push(service);
        }
    }
    let (steps, mut failures) = plan_latest(app, &deployment, &followed, options, &mut report).await?;
    if !failures.is_empty() && !options.keep_going {
        return fail_together(failures, followed.len(), "nothing was recorded").map(|()| Exit::Done);
    }
    finish(app, &deployment, steps, &mut failures, report, options).await
}

/// Resolves every followed service at once, and plans what becomes of it. Failures of single services
/// come back beside the steps.
pub(super) async fn plan_latest(
    app: &App,
    deployment: &Deployment,
    followed: &[&Service],
    options: LatestOptions,
    report: &mut Changes,
) -> Result<(Vec<Step>, Vec<anyhow::Error>)> {
    let platform = if options.no_pull { None } else { Some(app.docker().await?.platform().await?.clone()) };
    let lookup = app.lookup(deployment, platform);
    lookup.expect(followed).await;
    let resolutions = followed.iter().map(|service| latest_of(app, &lookup, service, options.no_pull));
    // Registries answer HEAD requests of one connection pool faster than they send images.
    let resolved: Vec<Result<Option<Latest>>> =
        futures_util::stream::iter(resolutions).buffered(app.settings.jobs.get().max(16)).collect().await;
    let mut steps = Vec::new();
    let mut failures = Vec::new();
    for (service, latest) in followed.iter().zip(resolved) {
        let Latest { found, resolution } = match latest {
            Ok(Some(latest)) => latest,
            Ok(None) => {
                let why = "a local build; only a machine that has it can record it".to_owned();
                report.services.push(ServiceChange::skipped(service, why));
                continue;
            }
            Err(error) => {
                report.services.push(ServiceChange::failed(service, &error));
                failures.push(error);
                continue;
            }
        };
        if let Some(rejected) = found.digest.as_ref().and_then(|digest| service.rejection(digest)).filter(|_| !options.retry) {
            let tag = rejected.tag.as_ref().unwrap_or(&found.asked);
            let why = rejected.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
            report.services.push(ServiceChange::skipped(
                service,
                format!("{tag} was rejected by an update{why}; `--retry` takes it all the same"),
            ));
            continue;
        }
        let known = known_service(app, service, options.no_pull).await?;
        let mut step = plan::advance(&known, found, &Intent::Latest, &app.stamp());
        step.before = (*service).clone();
        step.notes.extend(resolution.and_then(|resolution| resolution.remark()));
        if let Some(warning) = step.downgrade() {
            app.ui.warn(format!("{}: {warning}", service.name));
            step.notes.push(warning);
        }
        if options.retry
            && let Some(digest) = step.after.current().and_then(|current| current.digest.clone())
        {
            step.after.rejected.retain(|rejected| rejected.digest != digest);
        }
        steps.push(step);
    }
    Ok((steps, failures))
}

/// The service with the digest of its current release, where only the daemon knows it.
async fn known_service(app: &App, service: &Service, no_daemon: bool) -> Result<Service> {
    let lacks_digest = service.source == Source::Registry && service.current().is_some_and(|current| current.digest.is_none());
    if no_daemon || !lacks_digest {
        return Ok(service.clone());
    }
    lookup::with_known_digest(app.docker().await?, service).await
}

/// What a service's tracked tag names now; for a local build, the image that has the tag here.
async fn latest_of(app: &App, lookup: &Lookup, service: &Service, no_daemon: bool) -> Result<Option<Latest>> {
    if service.source == Source::Registry {
        return lookup.latest(service).await.map(Some);
    }
    if no_daemon {
        return Ok(None);
    }
    let found = lookup::local(app.docker().await?, service, &lookup::track(service)?).await?;
    Ok(Some(Latest { found, resolution: None }))
}

/// Records what the tracked tags of local builds name now.
pub(super) async fn record_builds(app: &App, names: &[ServiceName]) -> Result<Changes> {
    let deployment = app.require_manifest()?;
    let mut report = Changes::default();
    let services = plan::select(&deployment.manifest, names)?;
    let (steps, mut failures) = plan_latest(app, &deployment, &services, LatestOptions::default(), &mut report).await?;
    let total = steps.len() + failures.len();
    let steps = fetch_steps(app, &deployment, steps, &mut failures, &mut report).await?;
    fail_together(failures, total, "nothing was recorded")?;
    report.files = app.commit(&deployment, &steps)?;
    forget_evicted(app, &deployment, &steps).await;
    report.services.extend(steps.iter().map(ServiceChange::of));
    Ok(report)
}

/// Makes local what is recorded, or without a manifest, what the Compose files name.
pub(super) async fn fetch_recorded(app: &App, deployment: Option<&Deployment>) -> Result<()> {
    let wanted: Vec<Wanted> = match deployment {
        None => compose_images(app, &[]).await?,
        Some(deployment) => {
            let services = deployment.manifest.services.values().filter(|service| service.source == Source::Registry);
            let recorded = |service: &Service| Wanted::release(service, service.current()?, &deployment.hash);
            services.filter_map(|service| recorded(service).or_else(|| tracked(service))).collect()
        }
    };
    let fetcher = app.fetcher().await?;
    let results = if deployment.is_some() { fetcher.fetch(&wanted).await } else { fetcher.fetch_anew(&wanted).await };
    let failures = results
        .into_iter()
        .zip(&wanted)
        .filter_map(|(result, wanted)| result.err().map(|error| error.context(format!("service `{}`", wanted.name))));
    fail_together(failures.collect(), wanted.len(), "nothing was built or stopped")
}

/// Makes the images of `steps` local, records the steps, and reports.
async fn finish(
    app: &App,
    deployment: &Deployment,
    mut steps: Vec<Step>,
    failures: &mut Vec<anyhow::Error>,
    mut report: Changes,
    options: LatestOptions,
) -> Result<Exit> {
    let total = steps.len() + failures.len();
    if options.dry_run {
        report.services.extend(steps.iter().map(ServiceChange::of));
        in_manifest_order(deployment, &mut report);
        app.show(&report, |report| summarise(app, report))?;
        return Ok(Exit::Done);
    }
    if !options.no_pull {
        steps = fetch_steps(app, deployment, steps, failures, &mut report).await?;
    }
    if !failures.is_empty() && (!options.keep_going || steps.is_empty()) {
        fail_together(std::mem::take(failures), total, "nothing was recorded")?;
    }
    report.files = app.commit(deployment, &steps)?;
    if !options.no_pull {
        forget_evicted(app, deployment, &steps).await;
    }
    report.services.extend(steps.iter().map(ServiceChange::of));
    in_manifest_order(deployment, &mut report);
    if failures.is_empty() {
        app.show(&report, |report| summarise(app, report))?;
        return Ok(Exit::Done);
    }
    settle_failures(app, &report, std::mem::take(failures), total, true, "the others are recorded")
}

/// Makes the images of all steps local; those that fail are taken out of the result.
pub(super) async fn fetch_steps(
    app: &App,
    deployment: &Deployment,
    steps: Vec<Step>,
    failures: &mut Vec<anyhow::Error>,
    report: &mut Changes,
) -> Result<Vec<Step>> {
    let fetcher = app.fetcher().await?;
    let mut wanted = Vec::new();
    for step in &steps {
        images::image_of(&step.after)?;
        wanted.extend(step.after.current().and_then(|current| Wanted::release(&step.after, current, &deployment.hash)));
    }
    let platform = fetcher.docker.platform().await?.clone();
    let mut kept = Vec::new();
    for (mut step, arrived) in steps.into_iter().zip(fetcher.fetch(&wanted).await) {
        let name = step.before.name.clone();
        match arrived.and_then(|arrived| check_platform(&step, &arrived.image, &platform).map(|()| arrived)) {
            Ok(arrived) => {
                learn(&mut step.after, &arrived.image);
                kept.push(step);
            }
            Err(error) => {
                report.services.push(ServiceChange::failed(&step.before, &error));
                failures.push(error.context(format!("service `{name}`")));
            }
        }
    }
    Ok(kept)
}

/// Refuses a release that is made for another kind of machine, unless it was recorded before.
pub(super) fn check_platform(step: &Step, image: &Image, host: &Platform) -> Result<()> {
    let found = &image.platform;
    let recorded = |release: &Release| step.before.history.entries().iter().any(|entry| entry.digest == release.digest);
    let fits = (found.os == host.os && found.architecture == host.architecture) || found.architecture.is_empty();
    if fits || step.after.current().is_some_and(recorded) {
        return Ok(());
    }
    let message = format!("{}: the image is for {found}, this host is {host}", step.before.name);
    Err(error::registry(message).with_hint("ask the publisher for an image for this platform").into())
}

/// Takes the daemon's name for an image into the record of the current release.
pub(super) fn learn(service: &mut Service, image: &Image) {
    let repository = service.image.clone();
    let is_local = service.source == Source::Local;
    if let Some(current) = service.history.current_mut() {
        current.image_id = Some(image.id.clone());
        if current.digest.is_none()
            && !is_local
            && let Some(digest) = repository.as_ref().and_then(|repository| image.digests_of(repository).next())
        {
            current.digest = Some(digest.clone());
            current.unverified_digest = None;
        }
    }
}

/// Removes the keep-tags of releases that fell out of the history. What a container still uses stays
/// until the next time.
pub(super) async fn forget_evicted(app: &App, deployment: &Deployment, steps: &[Step]) {
    let Ok(docker) = app.docker().await else { return };
    for step in steps {
        let Some(repository) = &step.after.image else { continue };
        let remembered: BTreeSet<Tag> =
            step.after.history.entries().iter().filter_map(|entry| plan::keep_tag(entry, &deployment.hash)).collect();
        let gone = step.evicted.iter().filter_map(|release: &Release| plan::keep_tag(release, &deployment.hash));
        for tag in gone.filter(|tag| !remembered.contains(tag)) {
            match docker.untag(repository, &tag).await {
                Ok(Untagged::Removed | Untagged::Absent) => {}
                Ok(Untagged::InUse) => tracing::info!("{} is still in use and stays", repository.with_tag(&tag)),
                Err(error) => tracing::warn!("{} cannot be removed: {error:#}", repository.with_tag(&tag)),
            }
        }
    }
}

/// `dkv version-pull` and `dkv version-set`: one version of one service.
///
/// # Errors
///
/// The registry has no such version (exit 5), the daemon fails (exit 6), no manifest (exit 3).
pub async fn version_pull(app: &App, name: &ServiceName, tag: &Tag, intent: Intent, options: LatestOptions) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let service = plan::find(&deployment.manifest, name)?;
    if !options.dry_run {
        deployment.check_writable(&app.store)?;
    }
    let mut remark = None;
    let found = if service.source == Source::Local {
        lookup::local(app.docker().await?, service, tag).await?
    } else {
        let platform = if options.no_pull { None } else { Some(app.docker().await?.platform().await?.clone()) };
        let lookup = app.lookup(&deployment, platform);
        lookup.expect(&[service]).await;
        let named = lookup.named(service, &ManifestName::Tag(tag.clone()), tag).await?;
        let mut found = named.found;
        if service.is_moving(tag) {
            let resolution = lookup.version_of(service, &found, Some(named.is_index)).await;
            remark = resolution.as_ref().and_then(Resolution::remark);
            found.version = resolution.and_then(|resolution| resolution.version).map(|(tag, _)| tag);
        }
        found
    };
    let known = known_service(app, service, options.no_pull).await?;
    let mut step = plan::advance(&known, found, &intent, &app.stamp());
    step.before = service.clone();
    step.notes.extend(remark);
    let report = Changes { dry_run: options.dry_run, ..Changes::default() };
    finish(app, &deployment, vec![step], &mut Vec::new(), report, options).await
}

/// `dkv unhold SERVICE`: lets `pull-latest` follow the tag again.
///
/// # Errors
///
/// No manifest (exit 3), an unknown service (exit 2).
pub fn unhold(app: &App, name: &ServiceName, dry_run: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let service = plan::find(&deployment.manifest, name)?;
    let mut step = Step::unchanged(service);
    step.after.held = false;
    let mut report = Changes { dry_run, ..Changes::default() };
    let was_held = step.is_change();
    if was_held && !dry_run {
        report.files = app.commit(&deployment, std::slice::from_ref(&step))?;
    }
    report.services.push(ServiceChange::of(&step));
    app.show(&report, |_| {
        app.ui.status(match (was_held, dry_run) {
            (false, _) => format!("{} was not held", service.name),
            (true, true) => format!("would let {} follow `{}` again", service.name, service.track_name()),
            (true, false) => format!("{} follows `{}` again", service.name, service.track_name()),
        });
    })?;
    Ok(Exit::Done)
}

fn in_manifest_order(deployment: &Deployment, report: &mut Changes) {
    let place = |name: &str| deployment.manifest.services.keys().position(|key| key.as_str() == name);
    report.services.sort_by_key(|change| place(&change.name));
}

/// The result for people: what changed, what did not and why, and what to do next.
pub(super) fn summarise(app: &App, report: &Changes) {
    let mut changed = 0;
    for change in &report.services {
        let release = |view: &Option<ReleaseView>| view.as_ref().map_or_else(|| "nothing".to_owned(), ReleaseView::short);
        let notes = if change.notes.is_empty() { String::new() } else { format!(" ({})", change.notes.join("; ")) };
        match change.outcome {
            Outcome::Updated | Outcome::Relabelled => {
                changed += 1;
                app.ui.data(format!("{}: {} → {}{notes}", change.name, release(&change.from), release(&change.to)));
            }
            Outcome::Skipped => app.ui.data(format!("{}: skipped{notes}", change.name)),
            Outcome::Failed => {}
            _ => app.ui.data(format!("{}: {} is up to date{notes}", change.name, release(&change.to))),
        }
    }
    match (changed, report.dry_run) {
        (0, _) => app.ui.status("Nothing new"),
        (_, true) => app.ui.status("nothing was changed (--dry-run)"),
        (_, false) => app.ui.note("`dkv restart` puts it into effect"),
    }
}

/// One error that tells of all `failures`, with the kind of the first; none if there are none.
pub(super) fn fail_together(mut failures: Vec<anyhow::Error>, total: usize, consequence: &str) -> Result<()> {
    if failures.len() <= 1 {
        let Some(only) = failures.pop() else { return Ok(()) };
        let kind = error::kind(&only);
        let hint = error::find(&only).and_then(Error::hint).unwrap_or_default();
        let whole = Error::new(kind, format!("{only:#}"));
        let hint = if hint.is_empty() { consequence.to_owned() } else { format!("{hint}; {consequence}") };
        return Err(whole.with_hint(hint).into());
    }
    let kind = error::kind(&failures[0]);
    let lines: Vec<String> = failures.iter().map(|failure| format!("\n  {failure:#}")).collect();
    let mut hints: Vec<&str> = failures.iter().filter_map(|failure| error::find(failure)?.hint()).collect();
    hints.sort_unstable();
    hints.dedup();
    hints.push(consequence);
    let message = format!("{} of {total} services failed:{}", failures.len(), lines.concat());
    Err(Error::new(kind, message).with_hint(hints.join("; ")).into())
}

/// With `keep_going`: shows the report, tells the failures, and ends as partly done.
fn settle_failures(
    app: &App,
    report: &Changes,
    failures: Vec<anyhow::Error>,
    total: usize,
    keep_going: bool,
    consequence: &str,
) -> Result<Exit> {
    if !keep_going || failures.len() == total {
        return fail_together(failures, total, consequence).map(|()| Exit::Done);
    }
    app.show(report, |report| summarise(app, report))?;
    for failure in &failures {
        app.ui.error(failure);
    }
    Ok(Exit::Partial)
}
