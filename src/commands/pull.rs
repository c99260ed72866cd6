//! `pull`: the recorded images, from their registries; and what the commands share that record what
//! they pull.

mod latest;

use anyhow::Result;
use clap::Args;

use super::arguments::Services;
use super::changes::{self, Manner};
use super::pull_latest::LatestOptions;
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::change::{self, Evidence, Seen};
use crate::deployment::Deployment;
use crate::docker::PullTarget;
use crate::error;
use crate::images::{Arrived, Wanted, each_once};
use crate::model::history::{Bytes, Release};
use crate::model::manifest::{Service, Source};
use crate::model::reference::{ServiceName, Tag};
use crate::plan::{Outcome, Step};
use crate::report::{Changes, ReleaseView, ServiceChange};
pub(super) use latest::{lookup_for, plan_latest};

/// Pull the images of the manifest, by digest
#[derive(Debug, Args)]
pub struct Pull {
    #[command(flatten)]
    services: Services,
    /// Pull every remembered release, so that a rollback needs no registry
    #[arg(long)]
    history: bool,
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

    /// # Errors
    ///
    /// An image can be had nowhere (exit 5 or 6); with `--keep-going`, exit 9 if others could.
    async fn run(self, app: &App) -> Result<Exit> {
        let Self { services, history, keep_going, dry_run } = self;
        let names = &services.names();
        let mut deployment = Deployment::open(app)?;
        if deployment.recorded().is_none() {
            return pull_unrecorded(&deployment, names, keep_going, dry_run).await;
        }
        let hash = &deployment.record()?.hash;
        let mut report = Changes { dry_run, ..Changes::default() };
        let mut wanted = Vec::new();
        let mut services = Vec::new();
        for service in deployment.select(names)? {
            let recorded = service.current().and_then(|now| Wanted::release(service, now, hash));
            match recorded.or_else(|| by_track(service)) {
                Some(one) => {
                    wanted.push(one);
                    services.push((service, service.current()));
                }
                None => report
                    .services
                    .push(ServiceChange::skipped(service, "nothing is recorded yet".to_owned())),
            }
            for release in remembered(service).filter(|_| history) {
                if let Some(one) = Wanted::release(service, release, hash) {
                    wanted.push(one);
                    services.push((service, Some(release)));
                }
            }
        }
        warn_about_tags(app, &wanted);
        if dry_run {
            let local = app.fetcher().await?.are_local(&wanted).await?;
            for ((service, release), is_local) in services.into_iter().zip(local) {
                let outcome = if is_local { Outcome::Present } else { Outcome::Pulled };
                report.services.push(with_outcome(service, release, outcome));
            }
            app.show(&report, |report| summarise_pull(app, report))?;
            return Ok(Exit::Done);
        }
        let mut failures = Vec::new();
        let mut arrivals = Vec::new();
        let results = app.fetcher().await?.fetch(&wanted).await;
        for ((service, release), arrived) in services.into_iter().zip(results) {
            match arrived {
                Ok(arrived) => {
                    let outcome = if arrived.pulled { Outcome::Pulled } else { Outcome::Present };
                    report.services.push(with_outcome(service, release, outcome));
                    arrivals.push(Some(arrived));
                }
                Err(error) => {
                    report.services.push(ServiceChange::failed(service, &error));
                    failures.push(error.context(format!("service `{}`", service.name)));
                    arrivals.push(None);
                }
            }
        }
        let evidence = evidence_of(&deployment, &wanted, &arrivals).await;
        change::settle(&mut deployment, &evidence).await?;
        if failures.is_empty() {
            app.show(&report, |report| summarise_pull(app, report))?;
            return Ok(Exit::Done);
        }
        if !keep_going || failures.len() == wanted.len() {
            let consequence = consequence(failures.len(), wanted.len());
            error::together(failures, wanted.len(), consequence)?;
            return Ok(Exit::Done);
        }
        app.show(&report, |report| changes::summarise(&deployment, report))?;
        Ok(changes::end(app, failures))
    }
}

fn with_outcome(service: &Service, release: Option<&Release>, outcome: Outcome) -> ServiceChange {
    let to = release.map(ReleaseView::from);
    ServiceChange { outcome, to, ..ServiceChange::of(&Step::unchanged(service)) }
}

/// The releases of a service beside the current one that anybody could go back to.
fn remembered(service: &Service) -> impl Iterator<Item = &Release> {
    let current = service.history.current_index();
    let entries = service.history.entries().iter().enumerate();
    let others = entries.filter(move |(index, _)| Some(*index) != current);
    others
        .map(|(_, release)| release)
        .filter(|release| !release.is_lost(|tag| service.is_moving(tag)))
}

/// What failures mean for the other images.
fn consequence(failed: usize, total: usize) -> &'static str {
    if failed == total { "nothing was pulled" } else { "the others are local" }
}

/// How many images were pulled, would be, or are here.
fn summarise_pull(app: &App, report: &Changes) {
    let present = with(report, Outcome::Present).count();
    let pulled = with(report, Outcome::Pulled).count();
    for change in with(report, Outcome::Skipped) {
        app.ui.status(format!("{}: {}", change.name, change.notes.join(", ")));
    }
    for change in with(report, Outcome::Pulled).filter(|_| report.dry_run) {
        let release = change.to.as_ref().map_or_else(String::new, ReleaseView::short);
        app.ui.status(format!("would pull {} {release}", change.name));
    }
    let verb = if report.dry_run { "Would pull" } else { "Pulled" };
    let images = format!("{pulled} image{}", if pulled == 1 { "" } else { "s" });
    app.ui.status(match (pulled, present) {
        (0, 0) => "There is nothing to pull".to_owned(),
        (0, 1) => "The image is local already".to_owned(),
        (0, present) => format!("All {present} images are local already"),
        (_, 0) => format!("{verb} {images}"),
        (_, 1) => format!("{verb} {images}; 1 was local already"),
        (_, present) => format!("{verb} {images}; {present} were local already"),
    });
}

/// The services with this outcome.
fn with(report: &Changes, outcome: Outcome) -> impl Iterator<Item = &ServiceChange> {
    report.services.iter().filter(move |change| change.outcome == outcome)
}

/// A service for which nothing is recorded: the image that its tracked tag names.
fn by_track(service: &Service) -> Option<Wanted> {
    let tag: Tag = service.track_name().parse().ok()?;
    Some(Wanted {
        name: service.name.to_string(),
        repository: service.image.clone()?,
        target: PullTarget::Tag(tag.clone()),
        tag: Some(tag),
        keep: None,
        bytes: Bytes::default(),
        platform: service.platform.clone(),
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
pub(super) async fn pull_unrecorded(
    deployment: &Deployment<'_>,
    names: &[ServiceName],
    keep_going: bool,
    dry_run: bool,
) -> Result<Exit> {
    let app = deployment.app();
    let wanted = compose_images(deployment, names).await?;
    deployment.warn_of_no_manifest();
    let mut report = PlainPull { dry_run, images: Vec::new() };
    if dry_run {
        report.images = wanted.iter().map(|one| PlainImage::of(one, Outcome::Pulled)).collect();
        app.show(&report, |report| {
            report.images.iter().for_each(|one| app.ui.data(format!("would pull {}", one.image)));
        })?;
        return Ok(Exit::Done);
    }
    // Whether a tag moved only the registry knows: the daemon asks it, as `docker pull` does.
    let results = app.fetcher().await?.fetch_anew(&wanted).await;
    let mut failures = Vec::new();
    for (one, arrived) in wanted.iter().zip(results) {
        let outcome = if arrived.is_ok() { Outcome::Pulled } else { Outcome::Failed };
        let mut image = PlainImage::of(one, outcome);
        if let Err(error) = arrived {
            image.error = Some(format!("{error:#}"));
            failures.push(error.context(format!("service `{}`", one.name)));
        }
        report.images.push(image);
    }
    let (failed, total) = (failures.len(), wanted.len());
    if failed > 0 && (!keep_going || failed == total) {
        error::together(failures, total, consequence(failed, total))?;
        return Ok(Exit::Partial);
    }
    app.show(&report, |_| app.ui.status(format!("Pulled {} images", total - failed)))?;
    Ok(changes::end(app, failures))
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

impl PlainImage {
    fn of(wanted: &Wanted, outcome: Outcome) -> Self {
        Self { image: wanted.reference(), outcome, error: None }
    }
}

/// The images that the Compose files name, interpolated by Compose, without what it builds here.
async fn compose_images(deployment: &Deployment<'_>, names: &[ServiceName]) -> Result<Vec<Wanted>> {
    let project = deployment.project().await?;
    let mut wanted = Vec::new();
    for service in &project.services {
        let is_named = names.is_empty() || names.iter().any(|name| name.as_str() == service.name);
        let Some(image) = service.image.as_ref().filter(|_| is_named && !service.has_build) else {
            continue;
        };
        let platform = deployment.platform(&service.name);
        let one = Wanted::named(&service.name, image, platform).ok_or_else(|| {
            error::state(format!(
                "Compose service `{}`: `{image}` is not an image name",
                service.name
            ))
        })?;
        wanted.push(one);
    }
    let wanted = each_once(wanted);
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

/// Makes local what is recorded, or without a manifest, what the Compose files name.
///
/// # Errors
///
/// An image can be had nowhere (exit 5 or 6).
pub(super) async fn fetch_recorded(deployment: &Deployment<'_>) -> Result<()> {
    let fetcher = deployment.app().fetcher().await?;
    let (wanted, results) = match deployment.recorded() {
        None => {
            let wanted = compose_images(deployment, &[]).await?;
            deployment.warn_of_no_manifest();
            let results = fetcher.fetch_anew(&wanted).await;
            (wanted, results)
        }
        Some(record) => {
            let services = record.services().filter(|service| service.source == Source::Registry);
            let wanted: Vec<Wanted> = services
                .filter_map(|service| {
                    let now = service.current();
                    now.and_then(|now| Wanted::release(service, now, &record.hash))
                        .or_else(|| by_track(service))
                })
                .collect();
            let results = fetcher.fetch(&wanted).await;
            (wanted, results)
        }
    };
    let failures = results.into_iter().zip(&wanted).filter_map(|(result, wanted)| {
        result.err().map(|error| error.context(format!("service `{}`", wanted.name)))
    });
    error::together(failures.collect(), wanted.len(), "nothing was built or stopped")
}

/// What is to be kept of recorded releases that were made local now.
pub(super) async fn evidence_of(
    deployment: &Deployment<'_>,
    wanted: &[Wanted],
    arrivals: &[Option<Arrived>],
) -> Evidence {
    let Some(record) = deployment.recorded() else { return Evidence::default() };
    let seen = wanted.iter().zip(arrivals).filter_map(|(wanted, arrived)| {
        let arrived = arrived.as_ref()?;
        let service = record.service(&wanted.name.parse().ok()?)?;
        let entries = service.history.entries();
        let release = entries.iter().find(|release| release.bytes == wanted.bytes)?;
        Some(Seen { service, release, arrived, may_ask: arrived.pulled })
    });
    Evidence::gather(deployment.app(), &seen.collect::<Vec<_>>()).await
}

/// Records what the tracked tags of local builds name now.
///
/// # Errors
///
/// As for `pull-latest`.
pub(super) async fn record_builds(
    deployment: &mut Deployment<'_>,
    names: &[ServiceName],
) -> Result<Changes> {
    let services = deployment.select(names)?;
    let mut change = plan_latest(deployment, &services, &LatestOptions::default()).await?;
    let manner = Manner { dry_run: false, pulls: true, keep_going: false };
    changes::record(deployment, &mut change, manner).await
}
