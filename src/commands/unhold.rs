//! `unhold`: a held service follows its tag again.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::change::Change;
use crate::deployment::Deployment;
use crate::model::reference::ServiceName;
use crate::plan::Step;

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

    /// # Errors
    ///
    /// No manifest (exit 3), an unknown service (exit 2).
    async fn run(self, app: &App) -> Result<Exit> {
        let dry_run = self.dry_run;
        let mut deployment = Deployment::open_recorded(app)?;
        let mut step = Step::unchanged(deployment.find(&self.service)?);
        step.after.held = false;
        let was_held = step.is_change();
        let (name, track) = (step.after.name.clone(), step.after.track_name().to_owned());
        let mut change = Change::of(vec![step]);
        let report = match dry_run {
            true => change.preview(deployment.record()?),
            false => change.commit(&mut deployment)?,
        };
        app.show(&report, |_| {
            app.ui.status(match (was_held, dry_run) {
                (false, _) => format!("{name} was not held"),
                (true, true) => format!("would let {name} follow `{track}` again"),
                (true, false) => format!("{name} follows `{track}` again"),
            });
        })?;
        Ok(Exit::Done)
    }
}
