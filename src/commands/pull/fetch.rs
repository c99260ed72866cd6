//! Making images local for a command that goes on with them, and letting go of those that nothing
//! names.

use std::collections::BTreeSet;

use anyhow::Result;

use super::report::fail_together;
use super::{compose_images, tracked};
use crate::app::App;
use crate::deployment::Deployment;
use crate::docker::{Image, Untagged};
use crate::error;
use crate::images::{self, Early, Wanted};
use crate::model::history::Release;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Platform, Tag};
use crate::plan::{self, Step};
use crate::report::{Changes, ServiceChange};

/// Makes local what is recorded, or without a manifest, what the Compose files name.
pub(in crate::commands) async fn fetch_recorded(
    app: &App,
    deployment: Option<&Deployment>,
) -> Result<()> {
    let wanted: Vec<Wanted> = match deployment {
        None => compose_images(app, &[]).await?,
        Some(deployment) => {
            let services = deployment
                .manifest
                .services
                .values()
                .filter(|service| service.source == Source::Registry);
            let recorded =
                |service: &Service| Wanted::release(service, service.current()?, &deployment.hash);
            services.filter_map(|service| recorded(service).or_else(|| tracked(service))).collect()
        }
    };
    let fetcher = app.fetcher().await?;
    let results = if deployment.is_some() {
        fetcher.fetch(&wanted).await
    } else {
        fetcher.fetch_anew(&wanted).await
    };
    let failures = results.into_iter().zip(&wanted).filter_map(|(result, wanted)| {
        result.err().map(|error| error.context(format!("service `{}`", wanted.name)))
    });
    fail_together(failures.collect(), wanted.len(), "nothing was built or stopped")
}

/// Makes the images of all steps local, or waits until they are, where that began early; those that
/// fail are taken out of the result.
pub(in crate::commands) async fn fetch_steps(
    app: &App,
    deployment: &Deployment,
    (steps, early): (Vec<Step>, Option<Early>),
    failures: &mut Vec<anyhow::Error>,
    report: &mut Changes,
) -> Result<Vec<Step>> {
    let fetcher = app.fetcher().await?;
    let mut wanted = Vec::new();
    for step in &steps {
        images::image_of(&step.after)?;
        wanted.extend(
            step.after
                .current()
                .and_then(|current| Wanted::release(&step.after, current, &deployment.hash)),
        );
    }
    let platform = fetcher.docker.platform().await?.clone();
    let mut kept = Vec::new();
    for (mut step, arrived) in steps.into_iter().zip(fetcher.fetch_rest(&wanted, early).await) {
        let name = step.before.name.clone();
        match arrived
            .and_then(|arrived| check_platform(&step, &arrived.image, &platform).map(|()| arrived))
        {
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
pub(in crate::commands) fn check_platform(
    step: &Step,
    image: &Image,
    host: &Platform,
) -> Result<()> {
    let found = &image.platform;
    let recorded = |release: &Release| {
        step.before.history.entries().iter().any(|entry| entry.digest == release.digest)
    };
    let fits = (found.os == host.os && found.architecture == host.architecture)
        || found.architecture.is_empty();
    if fits || step.after.current().is_some_and(recorded) {
        return Ok(());
    }
    let message = format!("{}: the image is for {found}, this host is {host}", step.before.name);
    Err(error::registry(message)
        .with_hint("ask the publisher for an image for this platform")
        .into())
}

/// Takes the daemon's name for an image into the record of the current release.
pub(in crate::commands) fn learn(service: &mut Service, image: &Image) {
    let repository = service.image.clone();
    let is_local = service.source == Source::Local;
    if let Some(current) = service.history.current_mut() {
        current.image_id = Some(image.id.clone());
        if current.digest.is_none()
            && !is_local
            && let Some(digest) =
                repository.as_ref().and_then(|repository| image.digests_of(repository).next())
        {
            current.digest = Some(digest.clone());
            current.unverified_digest = None;
        }
    }
}

/// Removes the keep-tags of releases that fell out of the history. What a container still uses
/// stays until the next time.
pub(in crate::commands) async fn forget_evicted(
    app: &App,
    deployment: &Deployment,
    steps: &[Step],
) {
    let Ok(docker) = app.docker().await else { return };
    for step in steps {
        let Some(repository) = &step.after.image else { continue };
        let remembered: BTreeSet<Tag> = step
            .after
            .history
            .entries()
            .iter()
            .filter_map(|entry| plan::keep_tag(entry, &deployment.hash))
            .collect();
        let gone = step
            .evicted
            .iter()
            .filter_map(|release: &Release| plan::keep_tag(release, &deployment.hash));
        for tag in gone.filter(|tag| !remembered.contains(tag)) {
            match docker.untag(repository, &tag).await {
                Ok(Untagged::Removed | Untagged::Absent) => {}
                Ok(Untagged::InUse) => {
                    tracing::info!("{} is still in use and stays", repository.with_tag(&tag))
                }
                Err(error) => {
                    tracing::warn!("{} cannot be removed: {error:#}", repository.with_tag(&tag))
                }
            }
        }
    }
}
