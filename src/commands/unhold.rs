//! `unhold`: a held service follows its tag again.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::model::reference::ServiceName;
use crate::plan::Step;
use crate::report::{Changes, ServiceChange};

/// Let `pull-latest` update a held service again
#[derive(Debug, Args)]
pub struct Unhold {
    /// The service
    service: ServiceName,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Unhold {
    const NEEDS_RUNTIME: bool = false;

    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        unhold(app, &self.service, self.dry_run)
    }
}

/// `dkv unhold SERVICE`: lets `pull-latest` follow the tag again.
///
/// # Errors
///
/// No manifest (exit 3), an unknown service (exit 2).
fn unhold(app: &App, name: &ServiceName, dry_run: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let service = app.find(&deployment, name)?;
    let mut step = Step::unchanged(service);
    step.after.held = false;
    let mut report = Changes { dry_run, ..Changes::default() };
    let was_held = step.is_change();
    if was_held && !dry_run {
        report.files = app.commit(&deployment, std::slice::from_ref(&step))?;
    }
    report.services.push(ServiceChange::of(&step));
    app.show(&report, |_| {
        app.ui.status(match (was_held, dry_run) {
            (false, _) => format!("{} was not held", service.name),
            (true, true) => {
                format!("would let {} follow `{}` again", service.name, service.track_name())
            }
            (true, false) => format!("{} follows `{}` again", service.name, service.track_name()),
        });
    })?;
    Ok(Exit::Done)
}
