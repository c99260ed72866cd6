//! `generate-env`: `versions.env` from the manifest, without daemon and network.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::change;
use crate::compose::Project;
use crate::deployment::{Deployment, EnvState, Record};
use crate::drift;
use crate::members::Membership;
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

    /// # Errors
    ///
    /// No manifest, or it makes no valid file (exit 3).
    async fn run(self, app: &App) -> Result<Exit> {
        let dry_run = self.dry_run;
        let mut deployment = Deployment::open_recorded(app)?;
        let env = deployment.env()?;
        let (state, expected) = (env.state, env.expected.clone());
        let mut report = EnvReport {
            dry_run,
            file: env.path.display().to_string(),
            found: state.word(),
            written: false,
            backup: None,
            variables: deployment.record()?.assignments()?.into_iter().collect(),
        };
        warn_of_unrecorded(&deployment);
        warn_of_spoiling(&deployment);
        if !dry_run {
            let files = change::refresh_env(&mut deployment)?;
            report.written = files.env_written;
            report.backup = files.env_backup;
        }
        app.show(&report, |report| {
            let file = &report.file;
            match (state, dry_run) {
                (state, _) if state.is_current() => app.ui.status(format!("{file} is up to date")),
                (state, true) => {
                    app.ui.status(format!("would write {file} (now: {})", state.word()));
                    app.ui.data(&expected);
                }
                (EnvState::Missing, false) => app.ui.status(format!("wrote {file}")),
                (state, false) => {
                    app.ui.status(format!("wrote {file} (it was {})", state.in_words()));
                }
            }
        })?;
        Ok(Exit::Done)
    }
}

/// A service of which nothing is recorded yet gets its moving tag, and so whatever that names.
pub(super) fn warn_of_unrecorded(deployment: &Deployment<'_>) {
    let services = deployment.recorded().into_iter().flat_map(Record::services);
    for service in services.filter(|service| service.current().is_none()) {
        let (name, track) = (&service.name, service.track_name());
        deployment.app().ui.warn(format!(
            "{name}: no version is recorded, Compose gets `{track}`; `dkv pull-latest {name}` \
            records one"
        ));
    }
}

/// A variable that the manifest names for a tag and that no line gets, because one has it as a part of
/// another tag.
pub(super) fn warn_of_spoiling(deployment: &Deployment<'_>) {
    for spoiling in deployment.recorded().into_iter().flat_map(|record| &record.spoiling) {
        deployment.app().ui.warn(format!(
            "{} is not set: {}, and `{}` would be no image name; `dkv migrate-versions --write` gives \
            that line a variable of its own where Compose allows it",
            spoiling.variable,
            spoiling.in_words(),
            spoiling.image
        ));
    }
}

/// What runs something else from the repository of a service is left alone: said before it starts.
pub(super) fn warn_of_strangers(deployment: &Deployment<'_>, project: &Project) {
    let Some(record) = deployment.recorded() else { return };
    let tracked = deployment.tracked(project);
    for one in &project.services {
        let (name, image) = (one.name.as_str(), one.image.as_deref().unwrap_or_default());
        let found = deployment.member_with(name, image.parse().ok().as_ref());
        let Membership::Other(stranger) = found else { continue };
        let Some(service) = record.service(stranger.service) else { continue };
        let is_only = !tracked.values().any(|one| one.name == service.name);
        let platform = deployment.platform(name);
        let run = (name, image, platform.as_ref());
        let (what, mend) = drift::about_stranger(run, service, stranger.differs, is_only);
        deployment.app().ui.warn(format!("{what}; it is left as it is: {mend}"));
    }
}
