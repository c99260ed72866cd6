//! `rollback`, `rollback-service`, `rollback-to`: back to a remembered release, exactly.

use anyhow::Result;
use clap::Args;

use super::arguments::{Confirmed, Services};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::cli::TagOrDigest;
use crate::deployment::Deployment;
use crate::docker::{ContainerFilter, Docker};
use crate::error;
use crate::images::Wanted;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Reference, ServiceName};
use crate::plan::{self, Found, Intent, Outcome, Step, Target};
use crate::registry::ManifestName;
use crate::report::{Changes, ReleaseView, ServiceChange};

/// Go back to the previous version of all services, or of those named
///
/// Moves the record only; `dkv restart` applies it. Twice goes back two versions. Without
/// names, every service goes back one, whether the last update changed it or not.
#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for Rollback {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Confirmed { yes, dry_run } = self.confirmed;
        rollback(app, &self.services.names(), yes, dry_run).await
    }
}

/// Go back to the previous version of one service
#[derive(Debug, Args)]
pub struct RollbackService {
    /// The service
    service: ServiceName,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for RollbackService {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Confirmed { yes, dry_run } = self.confirmed;
        rollback(app, &[self.service], yes, dry_run).await
    }
}

/// Go to a version of the history, or to any that the registry has
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  dkv rollback-to taskservice 1.41 && dkv restart")]
pub struct RollbackTo {
    /// The service
    service: ServiceName,
    /// The version: a tag, or a digest (sha256:…)
    #[arg(value_name = "TAG|DIGEST")]
    target: TagOrDigest,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for RollbackTo {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Confirmed { yes, dry_run } = self.confirmed;
        rollback_to(app, &self.service, &self.target.to_string(), yes, dry_run).await
    }
}

/// `dkv rollback [SERVICE…]`: every service that has an earlier release goes to it.
///
/// # Errors
///
/// None has one (exit 3), an image can be had nowhere (exit 5 or 6), nobody said yes (exit 2); in
/// all of these nothing has changed.
async fn rollback(app: &App, names: &[ServiceName], yes: bool, dry_run: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let selected = app.select(&deployment, names)?;
    let mut steps = Vec::new();
    let mut unchanged = Vec::new();
    for service in &selected {
        match plan::rollback(service, &app.stamp()) {
            Some(step) => steps.push(step),
            None => {
                unchanged.push(ServiceChange::skipped(service, "no earlier release".to_owned()))
            }
        }
    }
    if steps.is_empty() {
        let names: Vec<&str> = selected.iter().map(|service| service.name.as_str()).collect();
        let message = match names.as_slice() {
            [] => "the manifest has no services".to_owned(),
            [one] => format!("{one} has no earlier release to roll back to"),
            _ => "no service has an earlier release to roll back to".to_owned(),
        };
        return Err(error::state(message)
            .with_hint(
                "`dkv version-history` shows what is remembered; `dkv version-pull SERVICE \
                TAG` takes any version",
            )
            .into());
    }
    go(app, &deployment, steps, unchanged, Options { yes, dry_run }).await
}

/// `dkv rollback-to SERVICE TAG|DIGEST`.
///
/// # Errors
///
/// As for [`rollback`]; also if neither history nor registry has the target.
async fn rollback_to(
    app: &App,
    name: &ServiceName,
    target: &str,
    yes: bool,
    dry_run: bool,
) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let service = app.find(&deployment, name)?;
    let options = Options { yes, dry_run };
    let (asked, manifest_name) = match plan::find_target(service, target)? {
        Target::Release(index) => {
            let step = plan::move_to(service, index, &app.stamp());
            if !step.is_change() {
                let change = ServiceChange::of(&step);
                let report = Changes { dry_run, services: vec![change], ..Changes::default() };
                app.show(&report, |_| {
                    app.ui.data(format!("{} is at {target} already; nothing to do", service.name))
                })?;
                return Ok(Exit::Done);
            }
            return go(app, &deployment, vec![step], Vec::new(), options).await;
        }
        _ if service.source == Source::Local => {
            let message = format!("{}: no build called `{target}` is remembered", service.name);
            return Err(error::state(message)
                .with_hint(format!("`dkv version-history {}` shows those that are", service.name))
                .into());
        }
        Target::Tag(tag) => (tag.clone(), ManifestName::Tag(tag)),
        Target::Digest(digest) => (service.track_name().parse()?, ManifestName::Digest(digest)),
    };
    if let Some(found) = running(app.docker().await?, service, target).await? {
        app.ui.status(format!(
            "{target} is not in the history of {}, but a container here was made from it",
            service.name
        ));
        let step = plan::advance(service, found, &Intent::Version, &app.stamp());
        return go(app, &deployment, vec![step], Vec::new(), options).await;
    }
    app.ui
        .status(format!("{target} is not in the history of {}; asking the registry", service.name));
    let platform = app.docker().await?.platform().await?.clone();
    let lookup = app.lookup(&deployment, Some(platform));
    lookup.expect(&[service]).await;
    let named = lookup.named(service, &manifest_name, &asked).await?;
    let mut found = named.found;
    if service.is_moving(&asked) {
        let resolution = lookup.version_of(service, &found, Some(named.is_index)).await;
        found.version = resolution.and_then(|resolution| resolution.version).map(|(tag, _)| tag);
    }
    let step = plan::advance(service, found, &Intent::Version, &app.stamp());
    go(app, &deployment, vec![step], Vec::new(), options).await
}

/// The release that `target` (a tag or a digest) names, if a container was made from it under its
/// name. What runs may have left the history before its time, after a rollback and an advance
/// without a restart.
async fn running(docker: &Docker, service: &Service, target: &str) -> Result<Option<Found>> {
    let Some(repository) = &service.image else { return Ok(None) };
    let hex = target.strip_prefix("sha256:").unwrap_or(target);
    let is_digest = hex.len() >= 12 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    for container in docker.containers(&ContainerFilter::default()).await? {
        let Ok(Reference { repository: runs, tag: Some(tag), digest: Some(digest) }) =
            container.image.parse()
        else {
            continue;
        };
        let is_meant = tag.as_str() == target || (is_digest && digest.hex().starts_with(hex));
        // A moving tag says nothing about which bytes are wanted.
        if runs != *repository || !is_meant || service.is_moving(&tag) {
            continue;
        }
        if docker.image(&repository.with_digest(&digest)).await?.is_some() {
            let found = Found {
                asked: tag,
                version: None,
                digest: Some(digest),
                platform_digest: None,
                image_id: None,
            };
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[derive(Clone, Copy)]
struct Options {
    yes: bool,
    dry_run: bool,
}

/// Shows the plan, asks, makes the images local, records.
async fn go(
    app: &App,
    deployment: &Deployment,
    steps: Vec<Step>,
    unchanged: Vec<ServiceChange>,
    options: Options,
) -> Result<Exit> {
    let mut report = Changes { dry_run: options.dry_run, ..Changes::default() };
    if options.dry_run {
        report.services = steps.iter().map(ServiceChange::of).chain(unchanged).collect();
        app.show(&report, |report| {
            show_moves(report, |line| app.ui.data(line));
            app.ui.note("nothing was changed (--dry-run)");
        })?;
        return Ok(Exit::Done);
    }
    deployment.check_writable(&app.store)?;
    report.services = steps.iter().map(ServiceChange::of).chain(unchanged).collect();
    if !options.yes {
        show_moves(&report, |line| app.ui.status(line));
    }
    if !app.ui.confirm("Go back to these releases?", options.yes, &app.command)? {
        return Err(error::usage("not confirmed; nothing was changed").into());
    }
    let mut steps = steps;
    let fetcher = app.fetcher().await?;
    let wanted: Vec<Wanted> =
        steps.iter().filter_map(|step| wanted(&step.after, &deployment.hash)).collect();
    for wanted in wanted.iter().filter(|wanted| {
        matches!(wanted.target, crate::docker::PullTarget::Tag(_)) && wanted.image_id.is_none()
    }) {
        let tag = wanted.tag.as_ref().map(ToString::to_string).unwrap_or_default();
        app.ui.warn(format!(
            "{}: no digest was recorded for {tag}; taking what the tag names today",
            wanted.name
        ));
    }
    let platform = fetcher.docker.platform().await?.clone();
    let mut failures = Vec::new();
    for ((wanted, arrived), step) in wanted.iter().zip(fetcher.fetch(&wanted).await).zip(&mut steps)
    {
        match arrived.and_then(|arrived| {
            super::pull::check_platform(step, &arrived.image, &platform).map(|()| arrived)
        }) {
            Ok(arrived) => super::pull::learn(&mut step.after, &arrived.image),
            Err(error) => failures.push(error.context(format!("service `{}`", wanted.name))),
        }
    }
    super::pull::fail_together(
        failures,
        steps.len(),
        "nothing was changed: no service was rolled back",
    )?;
    report.files = app.commit(deployment, &steps)?;
    super::pull::forget_evicted(app, deployment, &steps).await;
    let unchanged = report.services.split_off(steps.len());
    report.services = steps.iter().map(ServiceChange::of).chain(unchanged).collect();
    let running = super::run::runs_already(app, deployment, &steps).await;
    app.show(&report, |report| {
        show_moves(report, |line| app.ui.data(line));
        if running {
            app.ui.note("what runs is already that release: nothing needs restarting");
        } else {
            let moved = report.services.iter().filter(|change| change.outcome != Outcome::Skipped);
            app.ui.note(app.how_to_start(deployment, moved.map(|change| change.name.as_str())));
        }
        if let [step] = steps.as_slice()
            && let Some(current) = step.after.current()
            && !step.after.held
            && step.after.source == Source::Registry
        {
            let (name, tag) = (&step.after.name, &current.tag);
            app.ui.note(format!(
                "`dkv pull-latest` follows the tag again; `dkv version-set {name} \
                {tag} --hold` stays here"
            ));
        }
    })?;
    Ok(Exit::Done)
}

/// The image of a service's current release: by digest, by image ID for a local build, else by tag.
fn wanted(service: &Service, hash: &str) -> Option<Wanted> {
    let current = service.current()?;
    Wanted::release(service, current, hash)
}

/// A line a service: from what to what, and why not.
fn show_moves(report: &Changes, line: impl Fn(String)) {
    let release = |view: &Option<ReleaseView>| {
        view.as_ref().map_or_else(|| "nothing".to_owned(), ReleaseView::short)
    };
    for change in &report.services {
        let notes = if change.notes.is_empty() {
            String::new()
        } else {
            format!(" ({})", change.notes.join("; "))
        };
        match change.outcome {
            Outcome::Skipped => line(format!("{}: unchanged{notes}", change.name)),
            _ => line(format!(
                "{}: {} → {}{notes}",
                change.name,
                release(&change.from),
                release(&change.to)
            )),
        }
    }
}
