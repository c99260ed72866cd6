//! `pull-latest`: what the tracked tags name now, pulled and recorded.

use anyhow::Result;
use clap::Args;

use super::arguments::{Elsewhere, Services};
use super::changes::{self, Manner};
use super::pull::{plan_latest, pull_unrecorded};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::deployment::Deployment;

/// Pull what the tracked tags name now, and record it
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  dkv pull-latest && dkv restart     update everything
  dkv pull-latest settings           update one service
  dkv pull-latest --no-pull          record only, without a Docker daemon (CI)")]
pub struct PullLatest {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    options: LatestOptions,
}

/// How `pull-latest` goes about it.
#[derive(Debug, Clone, Default, Args)]
pub struct LatestOptions {
    #[command(flatten)]
    pub elsewhere: Elsewhere,
    /// Take versions too that `update-safe` found bad
    #[arg(long)]
    pub retry: bool,
    /// Record the services that succeed when others fail, and exit 9
    #[arg(long)]
    pub keep_going: bool,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Whether what somebody rolled back by hand is left alone.
    #[arg(skip)]
    pub heeds_rollbacks: bool,
}

impl LatestOptions {
    /// How far what comes of it goes.
    #[must_use]
    pub(super) fn manner(&self) -> Manner {
        let Self { dry_run, keep_going, .. } = *self;
        Manner { dry_run, pulls: !self.elsewhere.no_pull, keep_going }
    }
}

impl Run for PullLatest {
    fn effect(&self) -> Effect {
        Effect::unless(self.options.dry_run)
    }

    /// # Errors
    ///
    /// A registry or the daemon fails for some service (exit 5 or 6): then nothing is recorded,
    /// unless `keep_going` (exit 9).
    async fn run(self, app: &App) -> Result<Exit> {
        let (names, options) = (self.services.names(), self.options);
        let mut deployment = Deployment::open(app)?;
        if deployment.recorded().is_none() && !options.elsewhere.no_pull {
            return pull_unrecorded(&deployment, &names, options.keep_going, options.dry_run).await;
        }
        if !options.dry_run {
            deployment.record()?.check_writable(&app.store)?;
        }
        let change = plan_latest(&deployment, &deployment.select(&names)?, &options).await?;
        changes::carry_out(&mut deployment, change, options.manner()).await
    }
}
