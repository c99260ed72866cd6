//! `pull-latest`: what the tracked tags name now, pulled and recorded.

use anyhow::Result;
use clap::Args;

use super::arguments::Services;
use super::pull::{Planned, fail_together, finish, plan_latest, pull_without_manifest};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::model::reference::ServiceName;
use crate::report::{Changes, ServiceChange};

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
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LatestOptions {
    /// Resolve and record only; needs no Docker daemon
    #[arg(long)]
    pub no_pull: bool,
    /// Take versions too that `update-safe` found bad
    #[arg(long)]
    pub retry: bool,
    /// Record the services that succeed when others fail, and exit 9
    #[arg(long)]
    pub keep_going: bool,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Run for PullLatest {
    fn effect(&self) -> Effect {
        Effect::unless(self.options.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        pull_latest(app, &self.services.names(), self.options).await
    }
}

/// `dkv pull-latest [SERVICE…]`: what the tracked tags name now, pulled and recorded.
///
/// # Errors
///
/// A registry or the daemon fails for some service (exit 5 or 6): then nothing is recorded, unless
/// `keep_going` (exit 9).
async fn pull_latest(app: &App, names: &[ServiceName], options: LatestOptions) -> Result<Exit> {
    let Some(deployment) = app.load()? else {
        if options.no_pull {
            app.require_manifest()?;
        }
        return pull_without_manifest(app, names, options.keep_going, options.dry_run).await;
    };
    if !options.dry_run {
        deployment.check_writable(&app.store)?;
    }
    let mut report = Changes { dry_run: options.dry_run, ..Changes::default() };
    let mut followed = Vec::new();
    for service in app.select(&deployment, names)? {
        if service.held {
            report.services.push(ServiceChange::skipped(
                service,
                "held; `dkv unhold` lets it follow its tag again".to_owned(),
            ));
        } else {
            followed.push(service);
        }
    }
    let Planned { steps, mut failures, early } =
        plan_latest(app, &deployment, &followed, options, &mut report).await?;
    if !failures.is_empty() && !options.keep_going {
        return fail_together(failures, followed.len(), "nothing was recorded")
            .map(|()| Exit::Done);
    }
    finish(app, &deployment, (steps, early), &mut failures, report, options).await
}
