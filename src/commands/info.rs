//! `info`: what runs, and what is recorded.

use anyhow::Result;
use chrono::Utc;
use clap::Args;

use super::status::{NO_MANIFEST, show, what_runs};
use super::{Run, version};
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::report::{self, Versions};

/// Show containers and recorded versions
#[derive(Debug, Args)]
pub struct Info;

impl Run for Info {
    /// # Errors
    ///
    /// The daemon does not answer (exit 6); the manifest is not valid, or there is no deployment
    /// (exit 3).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open(app)?;
        let status = what_runs(&deployment, Utc::now()).await?;
        let services = deployment.recorded().map(|record| report::all_services(&record.manifest));
        let info = report::Info { status, versions: Versions::of(&services.unwrap_or_default()) };
        app.show(&info, |info| {
            show(&deployment, &info.status);
            app.ui.data("");
            match deployment.recorded() {
                Some(_) => version::show_versions(app, &info.versions),
                None => app.ui.note(NO_MANIFEST),
            }
        })?;
        Ok(Exit::Done)
    }
}
