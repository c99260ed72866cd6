//! `compose`: whatever else Compose can do, with the recorded versions in its environment.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use super::build::{built_services, environment_to_build};
use super::run::{Launch, StartOptions};
use super::{Effect, Run, generate_env};
use crate::app::{App, Exit};
use crate::compose::{Passed, Passing};
use crate::deployment::Deployment;
use crate::error;
use crate::model::manifest::Source;
use crate::store::Lock;

/// Run Docker Compose on this deployment, with the recorded versions
///
/// Everything after `compose` goes to Compose as it stands: exec, ps, run, top, cp, up -d web…
/// Plain `docker compose` does not know what is recorded and would start what the tags name here.
/// Terminal, signals and exit code are Compose's own. What starts, stops or removes containers waits
/// for another dkv first. `dkv compose --help` is Compose's help.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    after_long_help = "Examples:\n  dkv compose exec web sh\n  dkv compose run --rm web ./migrate\n  \
        dkv compose up -d web"
)]
pub struct Compose {
    /// What Compose is asked to do
    #[arg(
        value_name = "COMPOSE-ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    arguments: Vec<OsString>,
}

impl Run for Compose {
    fn effect(&self) -> Effect {
        match Passed::read(&self.arguments).does() {
            Passing::Looks => Effect::Looks,
            Passing::Runs | Passing::Attends | Passing::Changes | Passing::Builds => {
                Effect::Changes
            }
        }
    }

    /// What is ignored (nohup) Compose is to ignore as well, and a handler would not reach it.
    fn outlives_terminal(&self) -> bool {
        false
    }

    /// # Errors
    ///
    /// There is no Compose (exit 6), another dkv is at it (exit 4), or it would build over what is
    /// recorded (exit 2). Otherwise this does not return: the exit code is Compose's.
    async fn run(self, app: &App) -> Result<Exit> {
        let passed = Passed::read(&self.arguments);
        let lock = lock(app, passed.does())?;
        app.decrypt().await?;
        let launch = Launch::assemble(app, StartOptions::default())?;
        let mut environment = launch.environment.clone();
        if passed.does() != Passing::Looks {
            launch.deployment.check_compose(&environment).await?;
        }
        if passed.does() == Passing::Builds {
            let project = launch.deployment.project().await?;
            let built = built_services(&launch, project);
            match built.iter().find(|service| service.source == Source::Local) {
                Some(service) if !passed.only_builds() => {
                    return Err(error::usage(format!(
                        "{}: a build that starts at once would not be recorded, and would take \
                        the place of the one that is",
                        service.name
                    ))
                    .with_hint("`dkv build` builds and records, and `dkv up` starts what it made")
                    .into());
                }
                Some(_) => {
                    app.ui.note("what this builds is not recorded; `dkv build` builds and records");
                }
                None => {}
            }
            environment = environment_to_build(&launch, &built)?;
        }
        if passed.starts() {
            generate_env::warn_of_unrecorded(&launch.deployment);
            warn_of_literal_lines(&launch.deployment);
        }
        let compose = launch.deployment.compose()?;
        let keep = lock.as_ref().map(Lock::share).transpose()?;
        let never = compose.become_it(launch.deployment.all(), self.arguments, &environment, keep);
        match never.await? {}
    }
}

/// Says before they start which services do not follow the record.
fn warn_of_literal_lines(deployment: &Deployment<'_>) {
    let described = Vec::from_iter(deployment.described());
    if let Some(how) = deployment.how_to_lead(&described) {
        deployment.app().ui.warn(format!("not all that starts is what is recorded: {how}"));
    }
}

/// Waits for another dkv, and keeps the next one waiting where the end of this is near.
fn lock(app: &App, does: Passing) -> Result<Option<Lock>> {
    match does {
        Passing::Looks | Passing::Runs => Ok(None),
        Passing::Attends => app.begin_operation().map(|_| None),
        Passing::Changes | Passing::Builds => app.begin_operation().map(Some),
    }
}
