//! The data backup before anything is replaced.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{RunningUpdate, interrupted};
use crate::app::App;
use crate::backup::{self, Cancelled, Source};
use crate::compose::config::Source as MountSource;
use crate::compose::{Action, Project};
use crate::deployment::Record;
use crate::error;
use crate::model::manifest::DataBackup;
use crate::process::Group;
use crate::store::{self, Kind};

impl RunningUpdate<'_> {
    /// Saves the data as the manifest asks; containers that use it are stopped for the copy.
    pub(super) async fn save_data(&mut self) -> Result<()> {
        let sources = match self.saved_data().await? {
            Some(Saved::By { words, timeout }) => return self.run_command(&words, timeout).await,
            Some(Saved::Copied(sources)) => sources,
            None => return Ok(()),
        };
        if sources.is_empty() {
            self.app.ui.status(
                "No data to save: the services of the database files keep none on this host",
            );
            return Ok(());
        }
        let directory = self.app.store.data_directory();
        refuse_itself(&sources, &directory)?;
        let measured = {
            let (sources, directory) = (sources.clone(), directory.clone());
            blocking(
                move |_| backup::check_space(&directory, backup::measure(&sources)?, LEAVE_OUT),
                self.app,
            )
            .await
        };
        measured?;
        self.journal.saving.stopped = self.running_users_of(&sources);
        self.write_journal()?;
        self.downtime.watch(&self.docker, &self.journal.project);
        let saved = self.stop_and_copy(sources, directory).await;
        let waiting: Vec<String> = self
            .journal
            .saving
            .stopped
            .iter()
            .filter(|name| !self.journal.is_replaced(name))
            .cloned()
            .collect();
        let again =
            if saved.is_ok() { waiting.clone() } else { self.journal.saving.stopped.clone() };
        // After an interruption too: this is the safe point.
        let started = self.start_again(&again).await;
        let path = saved?;
        started
            .context("the containers that were stopped for the data backup do not come up again")?;
        self.paused = self.replaced(&waiting);
        for paused in &mut self.paused {
            paused.downtime_seconds = self.downtime.seconds(&paused.compose_service);
        }
        self.journal.saving.data_backup = name_of(&path);
        Ok(())
    }

    /// What would be saved how; `None` if nothing shall be.
    async fn saved_data(&self) -> Result<Option<Saved>> {
        if self.journal.options.no_data_backup {
            return Ok(None);
        }
        Ok(match self.record()?.manifest.data_backup.clone() {
            DataBackup::None => None,
            DataBackup::Databases if !self.launch.deployment.has_databases() => None,
            DataBackup::Command { words, timeout } => Some(Saved::By { words, timeout }),
            DataBackup::Paths(_) => Some(Saved::Copied(configured(self.app, self.record()?)?)),
            DataBackup::Databases => {
                let databases = self.launch.databases(&self.project).await?;
                Some(Saved::Copied(sources_of(self.app, &databases).await?))
            }
        })
    }

    /// The services that would be stopped while data is saved.
    pub(super) async fn would_pause(&self) -> Result<Vec<String>> {
        Ok(match self.saved_data().await? {
            Some(Saved::Copied(sources)) => self.running_users_of(&sources),
            Some(Saved::By { .. }) | None => Vec::new(),
        })
    }

    fn running_users_of(&self, sources: &[Source]) -> Vec<String> {
        users_of(&self.project, sources).into_iter().filter(|name| self.was_running(name)).collect()
    }

    fn was_running(&self, compose_service: &str) -> bool {
        self.journal.ran.iter().any(|ran| ran.compose_service == compose_service && ran.is_running)
    }

    async fn stop_and_copy(&self, sources: Vec<Source>, directory: PathBuf) -> Result<PathBuf> {
        let names: Vec<String> = sources.iter().map(ToString::to_string).collect();
        self.app.ui.step("Saving", names.join(", "));
        if !self.journal.saving.stopped.is_empty() {
            let stop = Action::Stop { services: self.journal.saving.stopped.clone() };
            self.compose(&stop, &self.launch.environment).await?;
        }
        let (stamp, made_at) = (self.app.backup_stamp(), self.app.stamp().at);
        blocking(
            move |cancelled| {
                backup::create(&directory, &sources, &stamp, &made_at, None, cancelled)
            },
            self.app,
        )
        .await
    }

    /// The operator's own command, a dump for example; nothing is stopped for it. What it prints is
    /// kept.
    async fn run_command(&mut self, command: &[String], limit: Duration) -> Result<()> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let shown = match command {
            [shell, option, script] if shell == "sh" && option == "-c" => script.clone(),
            words => words.join(" "),
        };
        self.app.ui.step("Saving", format!("data with `{shown}`"));
        let dump = backup::Dump::begin(&self.app.store.data_directory(), &self.app.backup_stamp())?;
        let mut child = tokio::process::Command::new(program);
        child.args(arguments).current_dir(self.app.store.directory());
        child.stdin(Stdio::null()).stdout(dump.output()?).process_group(0);
        self.launch.environment.apply(&mut child);
        let mut child =
            child.spawn().map_err(|source| failed(&shown, format!("cannot be run: {source}")))?;
        let group = Group::of(&child);
        let status = tokio::select! {
            ended = child.wait() => ended.context("cannot wait for the data backup")?,
            () = self.app.interruption().raised() => return Err(interrupted()),
            () = tokio::time::sleep(limit) => {
                let how = format!("had not ended after {} s and was ended; `timeout` beside it \
                    allows more", limit.as_secs());
                return Err(failed(&shown, how).into());
            }
        };
        group.has_ended();
        if !status.success() {
            return Err(failed(&shown, format!("ended with {status}")).into());
        }
        let kept = blocking(move |cancelled| dump.keep(cancelled), self.app).await?;
        self.journal.saving.data_backup = kept.as_deref().and_then(name_of);
        Ok(())
    }
}

/// How the data backup of an update is done without.
const LEAVE_OUT: &str = "set `data_backup` in the manifest, or leave it out with --no-data-backup";

/// The places that the manifest's `data_backup` names, without those inside others.
///
/// # Errors
///
/// There is no current directory.
pub(crate) fn configured(app: &App, record: &Record) -> Result<Vec<Source>> {
    let DataBackup::Paths(paths) = &record.manifest.data_backup else { return Ok(Vec::new()) };
    // Compose names mounts by their absolute paths.
    let directory =
        std::path::absolute(app.store.directory()).context("cannot find the current directory")?;
    let mut sources = Vec::new();
    for path in paths {
        add(&mut sources, Source { path: clean(&directory.join(path)), volume: None });
    }
    Ok(sources)
}

/// Adds a place, unless it is inside one that is there; what is inside it goes.
fn add(sources: &mut Vec<Source>, source: Source) {
    if !sources.iter().any(|other| source.path.starts_with(&other.path)) {
        sources.retain(|other| !other.path.starts_with(&source.path));
        sources.push(source);
    }
}

/// The failure of the operator's own command.
fn failed(command: &str, how: String) -> error::Error {
    error::state(format!("the data backup failed: `{command}` {how}")).with_hint(
        "nothing was stopped; mend `data_backup` in the manifest, or leave it out with \
        --no-data-backup",
    )
}

/// How data is saved.
enum Saved {
    /// By a copy of these.
    Copied(Vec<Source>),
    /// By a program of the operator's.
    By {
        /// The program and its arguments.
        words: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// The path without `.` in it.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != std::path::Component::CurDir).collect()
}

/// Does blocking work, and tells it when it shall stop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Cancelled) -> Result<T> + Send + 'static,
    app: &App,
) -> Result<T> {
    let cancelled = Arc::new(Cancelled::new(false));
    let flag = Arc::clone(&cancelled);
    let mut task = tokio::task::spawn_blocking(move || work(&flag));
    tokio::select! {
        ended = &mut task => return ended.context("the work ended unexpectedly")?,
        () = app.interruption().raised() => cancelled.store(true, Ordering::Relaxed),
    }
    // What is done already is not thrown away; anything else was interrupted.
    task.await.context("the work ended unexpectedly")?.map_err(|_| interrupted())
}

/// The writable directories and volumes of the services of `databases`.
///
/// # Errors
///
/// The data is not on this machine, or not where it can be read as files (exit 3).
async fn sources_of(app: &App, databases: &Project) -> Result<Vec<Source>> {
    let docker = app.docker().await?;
    let mut sources: Vec<Source> = Vec::new();
    let mounts = databases
        .services
        .iter()
        .flat_map(|service| &service.mounts)
        .filter(|mount| !mount.read_only);
    for mount in mounts {
        let source = match &mount.source {
            MountSource::Bind(path) => Source { path: path.into(), volume: None },
            MountSource::Volume(name) => {
                let Some(volume) = docker.volume(name).await? else { continue };
                if volume.driver != "local" {
                    return Err(elsewhere(format!(
                        "volume {name} is kept by the driver {}",
                        volume.driver
                    ))
                    .into());
                }
                Source { path: volume.path, volume: Some(name.clone()) }
            }
            MountSource::Anonymous => continue,
        };
        if !docker.endpoint().is_local() {
            return Err(elsewhere("the Docker daemon is on another machine".to_owned()).into());
        }
        // Sockets and devices hold no data; what does not exist yet, neither.
        let holds_data = source.volume.is_some()
            || matches!(store::look(&source.path)?, Some(Kind::File | Kind::Directory));
        if holds_data {
            add(&mut sources, source);
        }
    }
    Ok(sources)
}

fn elsewhere(why: String) -> error::Error {
    error::state(format!("the data of the databases cannot be copied: {why}")).with_hint(
        "give the manifest a `data_backup` with a `command` that makes a dump, or leave it out \
            with --no-data-backup; \
         nothing was stopped",
    )
}

/// A backup that holds the backups would grow with each.
fn refuse_itself(sources: &[Source], directory: &Path) -> Result<()> {
    let directory = absolute(directory);
    match sources.iter().find(|source| directory.starts_with(absolute(&source.path))) {
        None => Ok(()),
        Some(source) => Err(error::state(format!(
            "`data_backup` names {source}, which holds the backups themselves"
        ))
        .with_hint("name the directories inside it instead")
        .into()),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The Compose services that have one of `sources` mounted, or something in it or around it.
pub(crate) fn users_of(project: &Project, sources: &[Source]) -> Vec<String> {
    let users = project.services.iter().filter(|service| {
        let mut mounts = service.mounts.iter().map(|mount| &mount.source);
        mounts.any(|mount| sources.iter().any(|source| uses(mount, source)))
    });
    users.map(|service| service.name.clone()).collect()
}

fn uses(mount: &MountSource, source: &Source) -> bool {
    match (mount, &source.volume) {
        (MountSource::Volume(name), Some(volume)) => name == volume,
        (MountSource::Bind(path), None) => {
            source.path.starts_with(path) || Path::new(path).starts_with(&source.path)
        }
        _ => false,
    }
}
