//! `resolve-tags`: moving tags in the manifest become the versions that they name.

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt as _;

use super::arguments::Services;
use super::check_updates::{SERVICES_AT_ONCE, nothing_known};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::change::Change;
use crate::deployment::Deployment;
use crate::lookup;
use crate::model::manifest::{Service, Source};
use crate::model::reference::Tag;
use crate::plan::{self, Found, Outcome, Step};
use crate::report::{ReleaseView, ServiceChange};

/// Replace moving tags in the manifest with the versions they name
#[derive(Debug, Args)]
pub struct ResolveTags {
    #[command(flatten)]
    services: Services,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for ResolveTags {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    /// # Errors
    ///
    /// No manifest (exit 3), or the record cannot be written (exit 3 or 4). Registries that cannot
    /// be asked make it exit 9, or 5 if nothing at all could be found out.
    async fn run(self, app: &App) -> Result<Exit> {
        let dry_run = self.dry_run;
        let mut deployment = Deployment::open_recorded(app)?;
        let services = deployment.select(&self.services.names())?;
        if !dry_run {
            deployment.record()?.check_writable(&app.store)?;
        }
        let moving: Vec<&Service> = services
            .iter()
            .copied()
            .filter(|service| {
                service.current().is_some_and(|current| is_followed(service, &current.tag))
            })
            .collect();
        let asked = moving.len();
        let lookup = deployment.lookup(None);
        lookup.expect(&moving).await;
        let resolutions = moving.iter().map(|service| resolve_one(app, &lookup, service));
        let resolved: Vec<ResolvedTag> =
            futures_util::stream::iter(resolutions).buffered(SERVICES_AT_ONCE).collect().await;
        let mut change = Change::default();
        for service in
            services.iter().filter(|service| !moving.iter().any(|one| one.name == service.name))
        {
            let mut told = ServiceChange::of(&Step::unchanged(service));
            told.notes.push("a version already".to_owned());
            change.tell(service, told);
        }
        let mut failures = 0;
        for (service, mut one) in moving.iter().zip(resolved) {
            one.step.notes.push(one.note.clone());
            if one.is_failure {
                failures += 1;
                let mut told = ServiceChange::of(&one.step);
                told.outcome = Outcome::Failed;
                told.error = Some(one.note);
                change.tell(service, told);
            } else {
                change.add(one.step);
            }
        }
        let report = match dry_run {
            true => change.preview(deployment.record()?),
            false => change.commit(&mut deployment)?,
        };
        app.show(&report, |report| {
            for change in &report.services {
                let (name, notes) = (&change.name, change.notes.join("; "));
                let to = tag(change.to.as_ref());
                match change.outcome {
                    Outcome::Relabelled => {
                        let from = tag(change.from.as_ref());
                        app.ui.data(format!("{name}: {from} → {to} ({notes})"));
                    }
                    _ => app.ui.data(format!("{name}: {to} ({notes})")),
                }
            }
            let renamed =
                report.services.iter().filter(|change| change.outcome == Outcome::Relabelled);
            let renamed: Vec<&str> = renamed.map(|change| change.name.as_str()).collect();
            if !renamed.is_empty() {
                // Compose compares the whole image text, tag included.
                app.ui.note(format!(
                    "the next `dkv up` makes new containers of {}, from the same bytes",
                    renamed.join(", ")
                ));
            }
        })?;
        match failures {
            0 => Ok(Exit::Done),
            _ if failures < asked => Ok(Exit::Partial),
            _ => {
                app.ui.error(&nothing_known().into());
                Ok(Exit::Unknown)
            }
        }
    }
}

fn tag(release: Option<&ReleaseView>) -> &str {
    release.map_or("nothing", |release| &release.tag)
}

/// Whether `tag` is what the service follows: a word that moves, or a line such as `1-bookworm`.
fn is_followed(service: &Service, tag: &Tag) -> bool {
    service.is_moving(tag) || tag.as_str() == service.track_name()
}

/// What became of one moving tag.
struct ResolvedTag {
    step: Step,
    note: String,
    /// Whether the registry could not be asked.
    is_failure: bool,
}

async fn resolve_one(app: &App, lookup: &lookup::Lookup, service: &Service) -> ResolvedTag {
    resolve(app, lookup, service).await.unwrap_or_else(|why| ResolvedTag {
        step: Step::unchanged(service),
        note: format!("unresolved: {why}"),
        is_failure: false,
    })
}

async fn resolve(
    app: &App,
    lookup: &lookup::Lookup,
    service: &Service,
) -> Result<ResolvedTag, String> {
    let known = known_release(app, service).await?;
    let current = known.current().ok_or("nothing is recorded")?;
    let asked = current.tag.clone();
    let mut found = Found { asked, version: None, bytes: current.bytes.clone() };
    let note = if service.source == Source::Local {
        let local =
            async { lookup::local(app.docker().await?, &app.store, service, &found.asked).await };
        let local = local.await.map_err(|error| format!("{error:#}"))?;
        if local.bytes.image_id != found.bytes.image_id {
            return Err("the tag names another build now".to_owned());
        }
        found.version = local.version;
        "the same build".to_owned()
    } else {
        let resolution = lookup.version_of(service, &found, None).await;
        let resolution = resolution.ok_or("no digest is recorded, so nothing can be compared")?;
        let note = resolution.in_words();
        let Some((version, _)) = resolution.version else {
            let is_failure = resolution.is_failure;
            return Ok(ResolvedTag { step: Step::unchanged(service), note, is_failure });
        };
        // What dkv or the daemon has had in its hands is known; what somebody wrote is not.
        if let Some(digest) = &found.bytes.digest
            && !found.bytes.are_seen()
            && let Err(error) = lookup.confirm(service, digest).await
        {
            let (step, note) = (Step::unchanged(service), format!("unresolved: {error:#}"));
            return Ok(ResolvedTag { step, note, is_failure: true });
        }
        found.version = Some(version);
        note
    };
    if found.version.is_none() {
        return Err("no version tag names this build".to_owned());
    }
    let mut step = plan::advance_known(service, &known, found, &plan::Intent::Latest, &app.stamp());
    // The same bytes under their proper name: whoever set a version by hand still did.
    step.after.custom.clone_from(&service.custom);
    Ok(ResolvedTag { step, note, is_failure: false })
}

/// The service with a digest for its current release, if the daemon can tell it.
async fn known_release(app: &App, service: &Service) -> Result<Service, String> {
    let lacks_digest = service.current().is_none_or(|current| current.bytes.digest.is_none());
    if service.source == Source::Local || !lacks_digest {
        return Ok(service.clone());
    }
    let learned = async { lookup::with_known_digest(app.docker().await?, service).await };
    learned
        .await
        .map_err(|error| format!("no digest is recorded, and the daemon cannot tell it: {error:#}"))
}
