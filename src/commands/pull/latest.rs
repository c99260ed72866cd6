//! What `pull-latest` does to each service, found out from registries and the daemon.

use anyhow::Result;
use futures_util::StreamExt as _;

use crate::app::App;
use crate::commands::pull_latest::LatestOptions;
use crate::deployment::Deployment;
use crate::images::{Early, Wanted};
use crate::lookup::{self, Latest, Lookup};
use crate::model::history::Release;
use crate::model::manifest::{Rejected, Service, Source};
use crate::plan::{self, Found, Intent, Step};
use crate::report::{Changes, ServiceChange};

/// What becomes of the services that follow their tags.
pub(in crate::commands) struct Planned {
    /// The services that can be recorded, in the manifest's order.
    pub steps: Vec<Step>,
    /// What went wrong with others.
    pub failures: Vec<anyhow::Error>,
    /// Their images that are on their way already, unless nothing is to be pulled.
    pub early: Option<Early>,
}

/// Resolves every followed service at once, and plans what becomes of it. As soon as a registry has
/// said which bytes a tag names, the daemon gets them, while their version is still being looked
/// up: that decides how they are called, not whether they are taken.
pub(in crate::commands) async fn plan_latest(
    app: &App,
    deployment: &Deployment,
    followed: &[&Service],
    options: LatestOptions,
    report: &mut Changes,
) -> Result<Planned> {
    let pulls = !options.no_pull && !options.dry_run;
    let early = if pulls { Some(Early::new(app.fetcher().await?, followed.len())) } else { None };
    let platform =
        if options.no_pull { None } else { Some(app.docker().await?.platform().await?.clone()) };
    let lookup = app.lookup(deployment, platform);
    lookup.expect(followed).await;
    let resolutions = followed.iter().map(|service| {
        let on_found = |found: &Found| {
            let wish = early_wish(service, found, &deployment.hash)
                .filter(|_| rejection(service, found, options).is_none());
            if let (Some(early), Some(wish)) = (&early, wish) {
                early.begin(wish);
            }
        };
        latest_of(app, &lookup, service, options.no_pull, on_found)
    });
    // Registries answer HEAD requests of one connection pool faster than they send images.
    let resolved: Vec<Result<Option<Latest>>> = futures_util::stream::iter(resolutions)
        .buffered(app.settings.jobs.get().max(16))
        .collect()
        .await;
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
        if let Some(rejected) = rejection(service, &found, options) {
            let tag = rejected.tag.as_ref().unwrap_or(&found.asked);
            let why =
                rejected.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
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
    Ok(Planned { steps, failures, early })
}

/// Why a safe update found bad what was found now, unless that is to be taken all the same.
fn rejection<'a>(
    service: &'a Service,
    found: &Found,
    options: LatestOptions,
) -> Option<&'a Rejected> {
    found.digest.as_ref().and_then(|digest| service.rejection(digest)).filter(|_| !options.retry)
}

/// The bytes that a tag names, whatever they will be called.
fn early_wish(service: &Service, found: &Found, deployment: &str) -> Option<Wanted> {
    let release = Release::new(found.asked.clone(), Some(found.digest.clone()?));
    Wanted::release(service, &release, deployment)
}

/// The service with the digest of its current release, where only the daemon knows it, or may know
/// better: what dkv has not seen may be an image ID.
pub(in crate::commands) async fn known_service(
    app: &App,
    service: &Service,
    no_daemon: bool,
) -> Result<Service> {
    let is_unseen = |current: &Release| current.digest.is_none() || current.image_id.is_none();
    if no_daemon || service.source != Source::Registry || !service.current().is_some_and(is_unseen)
    {
        return Ok(service.clone());
    }
    lookup::with_known_digest(app.docker().await?, service).await
}

/// What a service's tracked tag names now; for a local build, the image that has the tag here.
async fn latest_of(
    app: &App,
    lookup: &Lookup,
    service: &Service,
    no_daemon: bool,
    on_found: impl FnOnce(&Found),
) -> Result<Option<Latest>> {
    if service.source == Source::Registry {
        return lookup.latest_telling(service, on_found).await.map(Some);
    }
    if no_daemon {
        return Ok(None);
    }
    let found = lookup::local(app.docker().await?, service, &lookup::track(service)?).await?;
    Ok(Some(Latest { found, resolution: None }))
}
