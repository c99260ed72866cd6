//! `restore-data`: a data backup of `update-safe` put back.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::arguments::Confirmed;
use super::run::{Launch, StartOptions};
use super::update_safe::data::{blocking, users_of};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::backup::{self, Source};
use crate::compose::{Action, Project};
use crate::docker::{ContainerFilter, ContainerState};
use crate::error::{self, Error, Kind};
use crate::health;
use crate::report::RestoredData;

/// Put a data backup of `update-safe` back
#[derive(Debug, Args)]
pub struct RestoreData {
    /// The backup: its name or its file in .version-backups/data/
    #[arg(value_hint = clap::ValueHint::FilePath)]
    backup: PathBuf,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for RestoreData {
    const HAS_SAFE_POINTS: bool = true;

    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    /// # Errors
    ///
    /// The backup is missing or damaged (exit 3), nobody said yes (exit 2), Compose or the daemon
    /// fails, or what was started again is not healthy (exit 6).
    async fn run(self, app: &App) -> Result<Exit> {
        let Confirmed { yes, dry_run } = self.confirmed;
        let _lock = if dry_run { None } else { Some(app.lock_operation()?) };
        let archive = find(app, &self.backup)?;
        let verified = archive.clone();
        blocking(move |cancelled| backup::verify(&verified, cancelled), app).await?;
        let contents = backup::contents(&archive)?;
        let targets = targets(app, &contents.sources).await?;
        app.decrypt().await?;
        let launch = Launch::assemble(app, StartOptions::default())?;
        let (set, compose) = (launch.deployment.all(), launch.deployment.compose()?);
        let project = launch.deployment.project().await?;
        let stopped = running_users(app, project, &targets).await?;
        let report = RestoredData {
            dry_run,
            backup: archive.display().to_string(),
            made_at: contents.made_at.clone(),
            sources: targets.iter().map(ToString::to_string).collect(),
            stopped: stopped.clone(),
        };
        if dry_run {
            app.show(&report, |report| {
                app.ui.data(format!(
                    "would put back {} as of {}",
                    report.sources.join(", "),
                    report.made_at
                ));
            })?;
            return Ok(Exit::Done);
        }
        let question = format!(
            "Replace {} by the data of {}? What is there now is lost.",
            report.sources.join(", "),
            report.made_at
        );
        if !app.ui.confirm(&question, yes, &app.command)? {
            return Err(error::usage("not confirmed; nothing was changed").into());
        }
        app.touch_containers();
        if !stopped.is_empty() {
            compose
                .run(set, &Action::Stop { services: stopped.clone() }, &launch.environment)
                .await?;
        }
        app.ui.step("Restoring", report.sources.join(", "));
        let restored =
            blocking(move |cancelled| backup::restore(&archive, &targets, cancelled), app).await;
        if !stopped.is_empty() {
            compose
                .run(set, &Action::Start { services: stopped.clone() }, &launch.environment)
                .await?;
        }
        restored?;
        check_started(&launch, project, &stopped).await?;
        app.show(&report, |report| {
            app.ui.status(format!("The data is as it was at {}", report.made_at))
        })?;
        Ok(Exit::Done)
    }
}

/// The backup by its path, or by its name among the backups.
fn find(app: &App, backup: &Path) -> Result<PathBuf> {
    let directory = app.store.data_directory();
    let candidates =
        [directory.join(backup), app.store.directory().join(backup), backup.to_owned()];
    if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
        if backup::is_dump(&found) {
            let message = format!(
                "{} is what the command of `data_backup` printed; dkv does not know what reads it",
                found.display()
            );
            return Err(error::state(message)
                .with_hint("give it to the program that restores such dumps")
                .into());
        }
        return Ok(found);
    }
    let known: Vec<String> = backup::list(&directory)
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let hint = match known.as_slice() {
        [] => "`update-safe` has not made any yet".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    Err(error::state(format!("there is no data backup `{}`", backup.display()))
        .with_hint(hint)
        .into())
}

/// Where the backup's sources are now: volumes may have been made anew.
async fn targets(app: &App, sources: &[Source]) -> Result<Vec<Source>> {
    let mut targets = Vec::with_capacity(sources.len());
    for source in sources {
        let path = match &source.volume {
            None => source.path.clone(),
            Some(name) => {
                let volume = app.docker().await?.volume(name).await?.ok_or_else(|| {
                    error::state(format!("the volume {name} does not exist any more")).with_hint(
                        "start the databases once, which makes it, then run the command again",
                    )
                })?;
                volume.path
            }
        };
        let source = Source { path, volume: source.volume.clone() };
        // A directory that was removed comes back.
        if source.path.parent().is_none_or(|parent| !parent.is_dir()) {
            let message =
                format!("the place of {source} is not there, or this user may not look at it");
            return Err(error::state(message)
                .with_hint("run dkv as the user who made the backup")
                .into());
        }
        targets.push(source);
    }
    Ok(targets)
}

async fn running_users(app: &App, project: &Project, sources: &[Source]) -> Result<Vec<String>> {
    let mut containers =
        app.docker().await?.containers(&ContainerFilter::project(&project.name)).await?;
    containers
        .retain(|one| matches!(one.state, ContainerState::Running | ContainerState::Restarting));
    let mut users = users_of(project, sources);
    users.retain(|name| containers.iter().any(|one| one.labels.service() == Some(name)));
    Ok(users)
}

/// Waits until what was started again is healthy.
async fn check_started(launch: &Launch<'_>, project: &Project, started: &[String]) -> Result<()> {
    if started.is_empty() {
        return Ok(());
    }
    let expectations =
        launch.expectations(project).counting(|name| started.iter().any(|one| one == name));
    let judged = launch.wait(&project.name, &expectations, |_| ()).await?;
    let problems: Vec<String> = judged.failures().flat_map(health::explain).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the data is back, but not everything that uses it is healthy:\n{}",
        problems.join("\n")
    );
    Err(Error::new(Kind::Docker, message).with_hint("`dkv logs --db` shows more").into())
}
