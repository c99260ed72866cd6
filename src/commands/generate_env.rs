//! `generate-env`: `versions.env` from the manifest, without daemon and network.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::deployment::{self, Deployment};
use crate::report::EnvReport;

/// Write versions.env from the manifest
#[derive(Debug, Args)]
pub struct GenerateEnv {
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for GenerateEnv {
    const NEEDS_RUNTIME: bool = false;

    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        generate_env(app, self.dry_run)
    }
}

/// `dkv generate-env`.
///
/// # Errors
///
/// No manifest, or it makes no valid file (exit 3).
fn generate_env(app: &App, dry_run: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let path = deployment.env_path(&app.store);
    let expected = deployment.env_text(&app.store)?;
    let (state, _) = deployment::env_state(&path, &expected)?;
    let mut report = EnvReport {
        dry_run,
        file: path.display().to_string(),
        found: state.word(),
        written: false,
        backup: None,
        variables: deployment.assignments()?.into_iter().collect(),
    };
    warn_of_unrecorded(app, &deployment);
    let is_current = state.word() == "current";
    if !dry_run && !is_current {
        let files = app.refresh_env()?;
        report.written = files.env_written;
        report.backup = files.env_backup;
    }
    app.show(&report, |report| {
        let file = &report.file;
        match (report.found, dry_run) {
            ("current", _) => app.ui.status(format!("{file} is up to date")),
            (found, true) => {
                app.ui.status(format!("would write {file} (now: {found})"));
                app.ui.data(&expected);
            }
            ("missing", false) => app.ui.status(format!("wrote {file}")),
            (found, false) => app.ui.status(format!("wrote {file} (it was {})", describe(found))),
        }
    })?;
    Ok(Exit::Done)
}

/// A service of which nothing is recorded yet gets its moving tag, and so whatever that names.
pub(super) fn warn_of_unrecorded(app: &App, deployment: &Deployment) {
    let services =
        deployment.manifest.services.values().filter(|service| service.current().is_none());
    for service in services {
        let (name, track) = (&service.name, service.track_name());
        app.ui.warn(format!(
            "{name}: no version is recorded, Compose gets `{track}`; `dkv \
            pull-latest {name}` records one"
        ));
    }
}

/// The state of a file in words for people.
pub fn describe(found: &str) -> &str {
    match found {
        "old-header" => "written from an older manifest with the same versions",
        "stale" => "stale",
        "edited" => "edited by hand or by another tool",
        other => other,
    }
}
