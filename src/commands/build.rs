//! `build`: images that Compose builds on this host.

use anyhow::Result;
use clap::Args;

use super::run::{Launch, StartOptions, show_steps};
use super::{Effect, Run, changes, pull};
use crate::app::{App, Exit};
use crate::compose::{self, Action, Project};
use crate::model::manifest::{Service, Source};
use crate::model::reference::ServiceName;
use crate::report::Started;

/// Build the images that Compose builds here, and record them
#[derive(Debug, Args)]
pub struct Build {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Build {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    /// # Errors
    ///
    /// Compose or the daemon fails (exit 6), another dkv is at it (exit 4).
    async fn run(self, app: &App) -> Result<Exit> {
        let dry_run = self.dry_run;
        let options = StartOptions { dry_run, ..StartOptions::default() };
        let (_lock, mut launch, mut report) = Launch::begin(app, options, &[]).await?;
        let built = build_images(&launch, &mut report).await?;
        if dry_run || built.is_empty() {
            app.show(&report, |report| {
                if dry_run {
                    show_steps(app, report);
                }
            })?;
            return Ok(Exit::Done);
        }
        let changes = pull::record_builds(&mut launch.deployment, &built).await?;
        app.show(&changes, |changes| changes::summarise(&launch.deployment, changes))?;
        Ok(Exit::Done)
    }
}

/// Builds, and returns the services of the manifest whose images were built.
pub(super) async fn build_images(
    launch: &Launch<'_>,
    report: &mut Started,
) -> Result<Vec<ServiceName>> {
    let app = launch.app();
    let project = launch.deployment.project().await?;
    let built = built_services(launch, project);
    if !project.services.iter().any(|service| service.has_build) {
        app.ui.status("The Compose files have no service with a build section; nothing to build");
        return Ok(Vec::new());
    }
    report.steps.push("build".to_owned());
    if launch.options.dry_run {
        return Ok(Vec::new());
    }
    let environment = environment_to_build(launch, &built)?;
    let action = Action::Build { services: Vec::new() };
    let compose = launch.deployment.compose()?;
    compose.run(launch.deployment.all(), &action, &environment).await?;
    for service in built.iter().filter(|service| service.source == Source::Registry) {
        let name = &service.name;
        app.ui.warn(format!(
            "{name} was built, but dkv goes on running the image of its registry; `source: local` \
                in the manifest changes that"
        ));
    }
    Ok(built
        .into_iter()
        .filter(|service| service.source == Source::Local)
        .map(|service| service.name.clone())
        .collect())
}

/// The environment for building: a digest in the name of what is built is refused, and a keep-tag
/// would be moved to the new build.
///
/// # Errors
///
/// As for [`Record::assignments`](crate::deployment::Record::assignments).
pub(super) fn environment_to_build(
    launch: &Launch<'_>,
    built: &[&Service],
) -> Result<compose::Environment> {
    let environment = launch.environment.clone();
    let Some(record) = launch.deployment.recorded() else { return Ok(environment) };
    Ok(environment.with(record.assignments_with(|service| {
        let built = built.iter().find(|one| one.name == service.name)?;
        Some((built.image.clone()?, built.track_name().to_owned()))
    })?))
}

/// The manifest services whose Compose services have a build section, each once.
pub(super) fn built_services<'s>(launch: &'s Launch<'_>, project: &Project) -> Vec<&'s Service> {
    let tracked = launch.deployment.tracked(project);
    let mut built: Vec<&Service> = Vec::new();
    for service in project.services.iter().filter(|service| service.has_build) {
        if let Some(one) = tracked.get(&service.name)
            && !built.iter().any(|other| other.name == one.name)
        {
            built.push(one);
        }
    }
    built
}
