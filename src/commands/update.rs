//! `update`: everything pulled, built and stopped, for a start with the new images.

use anyhow::Result;
use clap::Args;

use super::build::build_images;
use super::run::{Launch, StartOptions, ended, show_steps};
use super::{Effect, Run, pull};
use crate::app::{App, Exit};

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

    /// # Errors
    ///
    /// Compose or the daemon fails (exit 6), another dkv is at it (exit 4); an image can be had
    /// nowhere (exit 5): then nothing was stopped.
    async fn run(self, app: &App) -> Result<Exit> {
        let dry_run = self.dry_run;
        let options = StartOptions { dry_run, ..StartOptions::default() };
        let (_lock, mut launch, mut report) = Launch::begin(app, options, &["down"]).await?;
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
                show_steps(app, report);
            } else {
                app.ui.note("everything is stopped and up to date: now `dkv updb`, `dkv up`");
            }
        })?;
        ended(app)
    }
}
