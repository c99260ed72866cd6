//! `update`: everything pulled, built and stopped, for a start with the new images.

use anyhow::Result;
use clap::Args;

use super::build::build_images;
use super::run::{Launch, StartOptions};
use super::{Effect, Run, pull};
use crate::app::{App, Exit};
use crate::report::Started;

/// Pull, build, and stop; then run `dkv updb` and `dkv up`
#[derive(Debug, Args)]
pub struct Update {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Update {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        update(app, self.dry_run).await
    }
}

/// `dkv update`: pulls what is recorded, builds, and stops everything, databases included.
///
/// # Errors
///
/// Compose or the daemon fails (exit 6), another dkv is at it (exit 4); an image can be had nowhere
/// (exit 5): then nothing was stopped.
async fn update(app: &App, dry_run: bool) -> Result<Exit> {
    let _lock = if dry_run { None } else { Some(app.lock_operation()?) };
    let mut launch =
        Launch::prepare(app, StartOptions { dry_run, ..StartOptions::default() }).await?;
    let mut report = Started { dry_run, ..Started::default() };
    report.steps.push("pull".to_owned());
    if !dry_run {
        pull::fetch_recorded(&launch.deployment).await?;
    }
    let built = build_images(&launch, &mut report).await?;
    if !dry_run && !built.is_empty() {
        pull::record_builds(&mut launch.deployment, &built).await?;
        launch.environment = launch.deployment.environment()?;
    }
    let project = if dry_run { None } else { Some(launch.deployment.project().await?) };
    launch.stop(project, &mut report).await?;
    app.show(&report, |report| {
        if report.dry_run {
            app.ui.data(format!("would do: {}", report.steps.join(", ")));
        } else {
            app.ui.note("everything is stopped and up to date: now `dkv updb`, `dkv up`");
        }
    })?;
    Ok(Exit::Done)
}
