//! `version-pull`: one version of one service; and what `version-set` shares with it.

use anyhow::Result;
use clap::Args;

use super::arguments::Elsewhere;
use super::changes::{self, Manner};
use super::pull::lookup_for;
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::change::Change;
use crate::deployment::Deployment;
use crate::lookup;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Platform, ServiceName, Tag};
use crate::model::track;
use crate::plan::{self, Intent, Step};
use crate::registry::ManifestName;
use crate::registry::resolve::Resolution;

/// Pull one version of one service, and record it
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  dkv version-pull taskservice 1.42 && dkv restart")]
pub struct VersionPull {
    /// The service
    service: ServiceName,
    /// The version, as the registry's tag
    tag: Tag,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for VersionPull {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Elsewhere { no_pull, platform } = &self.elsewhere;
        let manner = Manner { dry_run: self.dry_run, pulls: !no_pull, keep_going: false };
        let platform = platform.as_ref();
        version_pull(app, &self.service, &self.tag, platform, Intent::Version, manner).await
    }
}

/// `dkv version-pull` and `dkv version-set`: one version of one service.
///
/// # Errors
///
/// The registry has no such version (exit 5), the daemon fails (exit 6), no manifest (exit 3).
pub(super) async fn version_pull(
    app: &App,
    name: &ServiceName,
    tag: &Tag,
    platform: Option<&Platform>,
    intent: Intent,
    manner: Manner,
) -> Result<Exit> {
    let mut deployment = Deployment::open_recorded(app)?;
    let service = deployment.find(name)?;
    if !manner.dry_run {
        deployment.record()?.check_writable(&app.store)?;
    }
    let step = plan_version(&deployment, service, tag, platform, &intent, manner).await?;
    changes::carry_out(&mut deployment, Change::of(vec![step]), manner).await
}

/// What becomes of `service` with the version called `tag`.
pub(super) async fn plan_version(
    deployment: &Deployment<'_>,
    service: &Service,
    tag: &Tag,
    platform: Option<&Platform>,
    intent: &Intent,
    manner: Manner,
) -> Result<Step> {
    let app = deployment.app();
    let mut remark = None;
    let lookup = lookup_for(deployment, manner, platform).await?;
    let found = if service.source == Source::Local {
        lookup::local(app.docker().await?, &app.store, service, tag).await?
    } else {
        lookup.expect(&[service]).await;
        let named = lookup.named(service, &ManifestName::Tag(tag.clone()), tag).await?;
        let mut found = named.found;
        let is_moving = service.is_moving(tag);
        // A line that was asked for by name says as little about the bytes as the tracked tag.
        if is_moving || (*intent == Intent::Version && !track::is_release(tag)) {
            let asked = Service { track: Some(tag.clone()), ..service.clone() };
            let asked = if is_moving { service } else { &asked };
            let resolution = lookup.version_of(asked, &found, Some(named.is_index)).await;
            remark = resolution.as_ref().filter(|_| is_moving).and_then(Resolution::remark);
            found.version =
                resolution.and_then(|resolution| resolution.version).map(|(tag, _)| tag);
        }
        found
    };
    let docker = if manner.pulls { Some(app.docker().await?) } else { None };
    let known = lookup.known(service, &found, docker).await?;
    let mut step = plan::advance_known(service, &known, found, intent, &app.stamp());
    step.notes.extend(remark);
    if *intent == Intent::Version {
        plan::follow(&mut step, tag);
    }
    Ok(step)
}
