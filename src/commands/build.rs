//! `build`: images that Compose builds on this host.

use anyhow::Result;
use clap::Args;

use super::run::{Launch, StartOptions};
use super::{Effect, Run, changes, pull};
use crate::app::{App, Exit};
use crate::compose::{Action, Project};
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

    async fn run(self, app: &App) -> Result<Exit> {
        build(app, self.dry_run).await
    }
}

/// `dkv build`: builds what has a build section under the tracked tags, and records local builds.
///
/// # Errors
///
/// Compose or the daemon fails (exit 6), another dkv is at it (exit 4).
async fn build(app: &App, dry_run: bool) -> Result<Exit> {
    let _lock = if dry_run { None } else { Some(app.lock_operation()?) };
    let mut launch =
        Launch::prepare(app, StartOptions { dry_run, ..StartOptions::default() }).await?;
    let mut report = Started { dry_run, ..Started::default() };
    let built = build_images(&launch, &mut report).await?;
    if dry_run || built.is_empty() {
        app.show(&report, |report| {
            if dry_run {
                app.ui.data(format!("would do: {}", report.steps.join(", ")));
            }
        })?;
        return Ok(Exit::Done);
    }
    let changes = pull::record_builds(&mut launch.deployment, &built).await?;
    app.show(&changes, |changes| changes::summarise(&launch.deployment, changes))?;
    Ok(Exit::Done)
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
        launch
            .app()
            .ui
            .status("The Compose files have no service with a build section; nothing to build");
        return Ok(Vec::new());
    }
    report.steps.push("build".to_owned());
    if launch.options.dry_run {
        return Ok(Vec::new());
    }
    // A digest in the name of what is built is refused, and a keep-tag would be moved to the new
    // build.
    let mut environment = launch.environment.clone();
    if let Some(record) = launch.deployment.recorded() {
        let is_built = |service: &Service| built.iter().any(|one| one.name == service.name);
        let tracked =
            |service: &Service| Some((service.image.clone()?, service.track_name().to_owned()));
        environment = environment.with(
            record.assignments_with(|service| tracked(service).filter(|_| is_built(service)))?,
        );
    }
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

/// The manifest services whose Compose services have a build section, each once.
fn built_services<'s>(launch: &'s Launch<'_>, project: &Project) -> Vec<&'s Service> {
    let tracked = launch.tracked(project);
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
