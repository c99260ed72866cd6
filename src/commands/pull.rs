//! `pull`: the recorded images, from their registries; and what the commands share that record what
//! they pull.

mod fetch;
mod latest;
mod report;

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;

use super::arguments::Services;
use super::pull_latest::LatestOptions;
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::compose;
use crate::deployment::Deployment;
use crate::docker::PullTarget;
use crate::error;
use crate::images::{Early, Wanted};
use crate::model::manifest::{Service, Source};
use crate::model::reference::{ServiceName, Tag};
use crate::plan::{Outcome, Step};
use crate::report::{Changes, ServiceChange};
pub(super) use fetch::{check_platform, fetch_recorded, fetch_steps, forget_evicted, learn};
pub(super) use latest::{Planned, known_service, plan_latest};
pub(super) use report::{fail_together, summarise};
use report::{in_manifest_order, settle_failures, summarise_pull};

/// Pull the images of the manifest, by digest
#[derive(Debug, Args)]
pub struct Pull {
    #[command(flatten)]
    services: Services,
    /// Go on when a service fails, and exit 9 in the end
    #[arg(long)]
    keep_going: bool,
    /// Show what would be pulled, and pull nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Pull {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        pull(app, &self.services.names(), self.keep_going, self.dry_run).await
    }
}

/// `dkv pull [SERVICE…]`: makes the recorded images local; writes no file.
///
/// # Errors
///
/// An image can be had nowhere (exit 5 or 6); with `keep_going`, exit 9 if others could.
async fn pull(app: &App, names: &[ServiceName], keep_going: bool, dry_run: bool) -> Result<Exit> {
    let Some(deployment) = app.load()? else {
        return pull_without_manifest(app, names, keep_going, dry_run).await;
    };
    let selected = app.select(&deployment, names)?;
    let mut report = Changes { dry_run, ..Changes::default() };
    let mut wanted = Vec::new();
    let mut services = Vec::new();
    for service in selected {
        match service
            .current()
            .and_then(|current| Wanted::release(service, current, &deployment.hash))
        {
            Some(one) => {
                wanted.push(one);
                services.push(service);
            }
            None => match tracked(service) {
                Some(one) => {
                    wanted.push(one);
                    services.push(service);
                }
                None => report
                    .services
                    .push(ServiceChange::skipped(service, "nothing is recorded yet".to_owned())),
            },
        }
    }
    warn_about_tags(app, &wanted);
    if dry_run {
        let local = app
            .docker()
            .await?
            .images(&wanted.iter().map(Wanted::reference).collect::<Vec<_>>())
            .await?;
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
                    change.outcome =
                        if arrived.pulled { Outcome::Pulled } else { Outcome::Present };
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
            return settle_failures(
                app,
                &deployment,
                &report,
                failures,
                total,
                keep_going,
                "the others are local",
            );
        }
    }
    app.show(&report, |report| summarise_pull(app, report))?;
    Ok(Exit::Done)
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
    for one in wanted.iter().filter(|one| !one.is_local && matches!(one.target, PullTarget::Tag(_)))
    {
        let tag = one.tag.as_ref().map(ToString::to_string).unwrap_or_default();
        app.ui.warn(format!(
            "{}: no digest is recorded for {tag}; taking what the tag names today",
            one.name
        ));
    }
}

/// Without a manifest: every image that the Compose files name, as the old `make pull` did.
pub(super) async fn pull_without_manifest(
    app: &App,
    names: &[ServiceName],
    keep_going: bool,
    dry_run: bool,
) -> Result<Exit> {
    let wanted = compose_images(app, names).await?;
    let mut report = PlainPull { dry_run, images: Vec::new() };
    if dry_run {
        report.images = wanted
            .iter()
            .map(|one| PlainImage { image: one.reference(), outcome: Outcome::Pulled, error: None })
            .collect();
        app.show(&report, |report| {
            report.images.iter().for_each(|one| app.ui.data(format!("would pull {}", one.image)))
        })?;
        return Ok(Exit::Done);
    }
    // Whether a tag moved only the registry knows: the daemon asks it, as `docker pull` does.
    let results = app.fetcher().await?.fetch_anew(&wanted).await;
    let mut failures = Vec::new();
    for (one, arrived) in wanted.iter().zip(results) {
        let error = arrived.as_ref().err().map(|error| format!("{error:#}"));
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Pulled };
        report.images.push(PlainImage { image: one.reference(), outcome, error });
        failures
            .extend(arrived.err().map(|error| error.context(format!("service `{}`", one.name))));
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
    let set = if compose.files().databases().is_empty() {
        compose::Set::Application
    } else {
        compose::Set::All
    };
    let project = compose.config(set, &compose::Environment::default(), None).await?;
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for service in &project.services {
        let is_named = names.is_empty() || names.iter().any(|name| name.as_str() == service.name);
        let Some(image) = service.image.as_ref().filter(|_| is_named && !service.has_build) else {
            continue;
        };
        let one = Wanted::named(&service.name, image).ok_or_else(|| {
            error::state(format!(
                "Compose service `{}`: `{image}` is not an image name",
                service.name
            ))
        })?;
        if seen.insert(one.reference()) {
            wanted.push(one);
        }
    }
    for name in names {
        if !project.services.iter().any(|service| service.name == name.as_str()) {
            let known: Vec<&str> =
                project.services.iter().map(|service| service.name.as_str()).collect();
            let hint = format!("the Compose files have {}", known.join(", "));
            return Err(error::usage(format!("unknown service `{name}`")).with_hint(hint).into());
        }
    }
    Ok(wanted)
}

/// Records what the tracked tags of local builds name now.
pub(super) async fn record_builds(app: &App, names: &[ServiceName]) -> Result<Changes> {
    let deployment = app.require_manifest()?;
    let mut report = Changes::default();
    let services = app.select(&deployment, names)?;
    let options = LatestOptions::default();
    let Planned { steps, mut failures, early } =
        plan_latest(app, &deployment, &services, options, &mut report).await?;
    let total = steps.len() + failures.len();
    let steps = fetch_steps(app, &deployment, (steps, early), &mut failures, &mut report).await?;
    fail_together(failures, total, "nothing was recorded")?;
    report.files = app.commit(&deployment, &steps)?;
    forget_evicted(app, &deployment, &steps).await;
    report.services.extend(steps.iter().map(ServiceChange::of));
    Ok(report)
}

/// Makes the images of `steps` local, records the steps, and reports.
pub(super) async fn finish(
    app: &App,
    deployment: &Deployment,
    (mut steps, early): (Vec<Step>, Option<Early>),
    failures: &mut Vec<anyhow::Error>,
    mut report: Changes,
    options: LatestOptions,
) -> Result<Exit> {
    let total = steps.len() + failures.len();
    if options.dry_run {
        report.services.extend(steps.iter().map(ServiceChange::of));
        in_manifest_order(deployment, &mut report);
        app.show(&report, |report| summarise(app, deployment, report))?;
        return Ok(Exit::Done);
    }
    if !options.no_pull {
        steps = fetch_steps(app, deployment, (steps, early), failures, &mut report).await?;
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
        app.show(&report, |report| summarise(app, deployment, report))?;
        return Ok(Exit::Done);
    }
    settle_failures(
        app,
        deployment,
        &report,
        std::mem::take(failures),
        total,
        true,
        "the others are recorded",
    )
}
