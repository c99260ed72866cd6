//! `health`: what runs, and which updates there are.

use anyhow::Result;
use chrono::Utc;
use clap::Args;

use super::status::{NO_MANIFEST, show, what_runs};
use super::{Run, check_updates};
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::report::{self, UpdateState, Updates};

/// Show containers and available updates
#[derive(Debug, Args)]
pub struct Health;

impl Run for Health {
    /// # Errors
    ///
    /// The daemon does not answer (exit 6); the manifest is not valid, or there is no deployment
    /// (exit 3).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open(app)?;
        deployment.view().await?;
        let looked_up = async {
            match deployment.recorded() {
                Some(record) => {
                    check_updates::look_up(&deployment, &report::all_services(&record.manifest))
                        .await
                }
                None => Updates { services: Vec::new() },
            }
        };
        let (status, updates) = tokio::join!(what_runs(&deployment, Utc::now()), looked_up);
        let health = report::Health { status: status?, updates };
        app.show(&health, |health| {
            show(&deployment, &health.status);
            app.ui.data("");
            match deployment.recorded() {
                Some(_) => check_updates::show(app, &health.updates),
                None => app.ui.note(NO_MANIFEST),
            }
        })?;
        let mut updates = health.updates.services.iter();
        let has_unknown = updates.any(|one| one.state == UpdateState::Unknown);
        Ok(if has_unknown { Exit::Partial } else { Exit::Done })
    }
}
