//! What `pull-latest` does to each service, found out from registries and the daemon.

use anyhow::Result;
use futures_util::StreamExt as _;

use crate::app::App;
use crate::change::Change;
use crate::commands::changes::Manner;
use crate::commands::pull_latest::LatestOptions;
use crate::deployment::Deployment;
use crate::error;
use crate::images::{Early, Wanted};
use crate::lookup::{self, Latest, Lookup};
use crate::model::history::{Bytes, Release};
use crate::model::manifest::{Service, Source};
use crate::model::reference::Platform;
use crate::plan::{self, Found, Intent};

/// The change that following their tags makes of `services`. Those that are held are left alone.
///
/// All are resolved at once. As soon as a registry has said which bytes a tag names, the daemon
/// gets them, while their version is still being looked up: that decides how they are called, not
/// whether they are taken.
///
/// # Errors
///
/// The daemon is needed and does not answer (exit 6). What fails for one service is in the change.
pub(in crate::commands) async fn plan_latest(
    deployment: &Deployment<'_>,
    services: &[&Service],
    options: &LatestOptions,
) -> Result<Change> {
    let app = deployment.app();
    let hash = &deployment.record()?.hash;
    let mut change = Change::default();
    let (held, followed): (Vec<&Service>, Vec<&Service>) =
        services.iter().copied().partition(|service| service.held);
    for service in held {
        change.skip(service, "held; `dkv unhold` lets it follow its tag again");
    }
    let manner = options.manner();
    let is_fetched = manner.pulls && !manner.dry_run;
    let early =
        if is_fetched { Some(Early::new(app.fetcher().await?, followed.len())) } else { None };
    let lookup = lookup_for(deployment, manner, options.elsewhere.platform.as_ref()).await?;
    lookup.expect(&followed).await;
    let resolutions = followed.iter().map(|service| {
        latest_of(app, &lookup, service, !manner.pulls, |found| {
            let wish = early_wish(service, found, hash)
                .filter(|_| judged(service, found, options).is_none());
            if let (Some(early), Some(wish)) = (&early, wish) {
                early.begin(wish);
            }
        })
    });
    // Registries answer HEAD requests of one connection pool faster than they send images.
    let resolved: Vec<Result<Option<Latest>>> = futures_util::stream::iter(resolutions)
        .buffered(app.settings.jobs.get().max(16))
        .collect()
        .await;
    for (service, latest) in followed.iter().zip(resolved) {
        match latest {
            Ok(Some(latest)) => {
                follow(app, &lookup, &mut change, service, latest, options).await?;
            }
            Ok(None) => {
                change.skip(service, "a local build; only a machine that has it can record it");
            }
            Err(error) if is_unknown(service) && error::is_unanswered(&error) => {
                change.put_off(service, error);
            }
            Err(error) => change.fail(service, error),
        }
    }
    change.expect(early);
    Ok(change)
}

/// The look-ups of a command that records what registries have. For what no daemon will pull, the
/// machine that will run it has the given `platform`, else this one's.
///
/// # Errors
///
/// The daemon is needed and does not answer (exit 6).
pub(in crate::commands) async fn lookup_for(
    deployment: &Deployment<'_>,
    manner: Manner,
    platform: Option<&Platform>,
) -> Result<Lookup> {
    let platform = match manner.pulls {
        true => deployment.app().docker().await?.platform().await?.clone(),
        false => platform.cloned().unwrap_or_else(Platform::of_this_program),
    };
    let lookup = deployment.lookup(Some(platform));
    Ok(if manner.pulls && !manner.dry_run { lookup } else { lookup.closely() })
}

/// Adds what becomes of one service whose tag names `latest` now.
async fn follow(
    app: &App,
    lookup: &Lookup,
    change: &mut Change,
    service: &Service,
    latest: Latest,
    options: &LatestOptions,
) -> Result<()> {
    let Latest { found, resolution } = latest;
    if let Some(why) = judged(service, &found, options) {
        change.skip(service, why);
        return Ok(());
    }
    let docker = if options.elsewhere.no_pull { None } else { Some(app.docker().await?) };
    let known = lookup.known(service, &found, docker).await?;
    let mut step = plan::advance_known(service, &known, found, &Intent::Latest, &app.stamp());
    step.notes.extend(resolution.and_then(|resolution| resolution.remark()));
    if let Some(warning) = step.downgrade() {
        app.ui.warn(format!("{}: {warning}", service.name));
        step.notes.push(warning);
    }
    if options.retry
        && let Some(digest) = step.after.current().and_then(|current| current.bytes.digest.clone())
    {
        step.after.rejected.retain(|rejected| rejected.digest != digest);
    }
    change.add(step);
    Ok(())
}

/// Whether nothing is recorded of a service but, perhaps, a tag.
fn is_unknown(service: &Service) -> bool {
    service.current().is_none_or(|current| current.bytes == Bytes::default())
}

/// Why what was found now is left alone, unless it is to be taken all the same: a safe update found
/// it bad, or somebody went back from it, where that counts.
fn judged(service: &Service, found: &Found, options: &LatestOptions) -> Option<String> {
    if options.retry {
        return None;
    }
    let rejected = found.bytes.digest.as_ref().and_then(|digest| service.rejection(digest));
    if let Some(rejected) = rejected {
        let tag = rejected.tag.as_ref().unwrap_or(&found.asked);
        let why = rejected.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        return Some(format!(
            "{tag} was rejected by an update{why}; `--retry` takes it all the same"
        ));
    }
    let left = service.left_by_rollback(&found.bytes).filter(|_| options.heeds_rollbacks)?;
    Some(format!(
        "{} was rolled back by hand; `--retry` takes it all the same, and so does `dkv pull-latest`",
        left.tag
    ))
}

/// The bytes that a tag names, whatever they will be called.
fn early_wish(service: &Service, found: &Found, deployment: &str) -> Option<Wanted> {
    let release = Release::new(found.asked.clone(), Bytes::of(Some(found.bytes.digest.clone()?)));
    Wanted::release(service, &release, deployment)
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
    let found =
        lookup::local(app.docker().await?, &app.store, service, &lookup::track(service)?).await?;
    Ok(Some(Latest { found, resolution: None }))
}
