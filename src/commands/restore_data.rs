//! `restore-data`: a data backup of `update-safe` put back.
//!
//! What it does is written down before it is done: one that was killed is finished by the same
//! command, or undone by `--abort`, and until then nothing else starts on half the data.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::arguments::Confirmed;
use super::run::{Launch, StartOptions};
use super::update_safe::data::{blocking, configured, unnamed_volumes, users_of, volume};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::backup::{self, About, Inspected, MadeFor, Order, Phase, Place, Restore, Source};
use crate::compose::config::Source as MountSource;
use crate::compose::{Action, Project};
use crate::docker::{ContainerFilter, ContainerState};
use crate::error::{self, Error, Kind};
use crate::health;
use crate::report::RestoredData;
use crate::store::{self, Lock};

/// Put a data backup of `update-safe` back
#[derive(Debug, Args)]
#[command(
    override_usage = "dkv restore-data [OPTIONS] <BACKUP>\n       dkv restore-data [OPTIONS] --abort"
)]
pub struct RestoreData {
    /// The backup: its name (`dkv backups`) or a beginning of that, or its file
    #[arg(value_hint = clap::ValueHint::FilePath, required_unless_present = "abort")]
    backup: Option<PathBuf>,
    /// Put back what was there before a restore that was interrupted
    #[arg(long, conflicts_with_all = ["backup", "anywhere", "no_copy"])]
    abort: bool,
    /// Also put data where no service of this deployment keeps any
    #[arg(long)]
    anywhere: bool,
    /// Do not save what is there now as a backup of its own
    #[arg(long)]
    no_copy: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for RestoreData {
    fn has_safe_points(&self) -> bool {
        true
    }

    fn effect(&self) -> Effect {
        // It finishes or undoes an unfinished restore, and looks for an unfinished update itself.
        Effect::None
    }

    /// # Errors
    ///
    /// The backup is missing, damaged or of another deployment, or an earlier restore is unfinished
    /// (exit 3), nobody said yes (exit 2), Compose or the daemon fails, or what was started again is
    /// not healthy (exit 6).
    async fn run(self, app: &App) -> Result<Exit> {
        let Confirmed { dry_run, .. } = self.confirmed;
        app.check_update(Effect::unless(dry_run))?;
        let lock = if dry_run { None } else { Some(app.lock_operation()?) };
        // What it makes of an unfinished restore is its own work.
        let unfinished = app.restore()?;
        match (&self.backup, unfinished) {
            (None, None) => Err(error::state("there is no unfinished restore-data")
                .with_hint("nothing is to be done")
                .into()),
            (None, Some(journal)) if journal.phase == Phase::InPlace => {
                Err(error::state("the restore-data had replaced everything; nothing can be undone")
                    .with_hint("`dkv up` starts what it had stopped")
                    .into())
            }
            (None, Some(journal)) => {
                let question = "Put back what was there before the interrupted restore?";
                if !dry_run && !self.agrees(app, question)? {
                    return Err(error::usage("not confirmed; nothing was changed").into());
                }
                Work::of(app, lock.as_ref(), journal).await?.go_back().await
            }
            (Some(backup), Some(journal)) if journal.phase.is_between() => {
                if journal.phase == Phase::GoingBack || !is_of(app, backup, &journal) {
                    return Err(super::unfinished::unfinished_restore(&journal).into());
                }
                Work::of(app, lock.as_ref(), journal).await?.go_on().await
            }
            (Some(backup), earlier) => {
                self.begin(app, lock.as_ref(), find(app, backup)?, earlier).await
            }
        }
    }
}

impl RestoreData {
    fn agrees(&self, app: &App, question: &str) -> Result<bool> {
        app.ui.confirm(question, self.confirmed.yes, &app.command)
    }

    /// Restores `archive`; an `earlier` restore had replaced nothing when it ended.
    async fn begin(
        &self,
        app: &App,
        lock: Option<&Lock>,
        archive: PathBuf,
        earlier: Option<Restore>,
    ) -> Result<Exit> {
        let is_own = backup::is_own(&app.store.data_directory(), &archive)?;
        let path = archive.clone();
        let look = move |cancelled: &_| {
            backup::verify(&path, cancelled)?;
            backup::inspect(&path, is_own, cancelled)
        };
        let inspected = blocking(look, app).await?;
        let made_at = inspected.contents.made_at.clone();
        let sources = inspected.contents.sources.clone();
        let journal = Restore::begin(archive, made_at, sources, inspected.files.clone());
        let mut work = Work::of(app, lock, journal).await?;
        work.journal.sources = targets(app, &work.project.name, &work.journal.sources).await?;
        let strange = strange(app, &work.launch, &work.project, &work.journal.sources)?;
        work.note_users().await?;
        if let (Some(earlier), Some(_)) = (&earlier, lock) {
            earlier.tidy()?;
        }
        work.also_stop(earlier.map(|earlier| earlier.stopped).unwrap_or_default());
        if lock.is_none() {
            self.refuse_strange(&strange)?;
            backup::check_places(&work.journal.places(), &inspected)?;
            work.would_save = names(&there(&work.journal, self.no_copy)?);
            work.show(true, false)?;
            return Ok(Exit::Done);
        }
        if self.confirmed.yes {
            self.refuse_strange(&strange)?;
        }
        let question = self.question(&work.journal, &strange);
        if !self.agrees(app, &question)? {
            return Err(error::usage("not confirmed; nothing was changed").into());
        }
        work.replace(&inspected, self.no_copy).await
    }

    fn question(&self, journal: &Restore, strange: &[String]) -> String {
        let kept = match self.no_copy {
            true => "What is there now is lost",
            false => "What is there now becomes a backup too",
        };
        let strange = match strange {
            [] => String::new(),
            places => format!(
                " No service of this deployment keeps data in {}; the backup may be another's.",
                places.join(", ")
            ),
        };
        let stopped = match journal.stopped.as_slice() {
            [] => String::new(),
            names => format!(" Stopped meanwhile: {}.", names.join(", ")),
        };
        let (places, made_at) = (names(&journal.sources).join(", "), &journal.made_at);
        format!("Replace {places} by the data of {made_at}? {kept}.{stopped}{strange}")
    }

    /// Nobody is asked: what an archive says about its place is not enough.
    fn refuse_strange(&self, strange: &[String]) -> Result<()> {
        if strange.is_empty() || self.anywhere {
            return Ok(());
        }
        let message = format!(
            "the backup belongs in {}, where no service of this deployment keeps data; nothing was \
            changed",
            strange.join(", ")
        );
        Err(error::state(message)
            .with_hint("if that is meant, run the command again with --anywhere")
            .into())
    }
}

/// A restore at work.
struct Work<'a> {
    app: &'a App,
    /// The operation lock; none where nothing is done.
    lock: Option<&'a Lock>,
    launch: Launch<'a>,
    project: Project,
    journal: Restore,
    /// The backup of what was there.
    copy: Option<PathBuf>,
    /// What would become one.
    would_save: Vec<String>,
}

impl<'a> Work<'a> {
    /// The work of a restore that begins, or was interrupted.
    async fn of(app: &'a App, lock: Option<&'a Lock>, journal: Restore) -> Result<Self> {
        app.decrypt().await?;
        let launch = Launch::assemble(app, StartOptions::default())?;
        let project = launch.deployment.project().await?.clone();
        Ok(Self { app, lock, launch, project, journal, copy: None, would_save: Vec::new() })
    }

    /// All of a restore that has been agreed to.
    async fn replace(mut self, inspected: &Inspected, no_copy: bool) -> Result<Exit> {
        let places = self.journal.places();
        backup::check_places(&places, inspected)?;
        let directory = self.app.store.data_directory();
        let there = there(&self.journal, no_copy)?;
        let mut bytes = 0;
        if !there.is_empty() {
            let there = there.clone();
            let measured = move |cancelled: &_| {
                let bytes = backup::measure(&there, cancelled)?;
                backup::check_space(&directory, bytes, "leave it out with --no-copy")?;
                Ok(bytes)
            };
            bytes = blocking(measured, self.app).await?;
        }
        self.enter(Phase::Unpacking)?;
        if let Err(error) = self.prepare(places, there, bytes).await {
            self.leave()?;
            self.start_again().await?;
            return Err(error);
        }
        self.swap().await
    }

    /// All that can be given up: nothing has been replaced when it ends.
    async fn prepare(&mut self, places: Vec<Place>, there: Vec<Source>, bytes: u64) -> Result<()> {
        self.stop().await?;
        let archive = self.journal.backup.clone();
        if !there.is_empty() {
            self.app.ui.step("Saving", names(&there).join(", "));
            let stamp = self.app.stamp();
            let order = Order {
                directory: self.app.store.data_directory(),
                stamp: self.app.backup_stamp(),
                about: About {
                    made_at: stamp.at,
                    made_by: stamp.by,
                    sources: names(&there),
                    bytes: Some(bytes),
                    made_for: MadeFor::Restore { backup: crate::store::file_name(&archive) },
                },
                spared: Some(archive.clone()),
            };
            let save = move |cancelled: &_| backup::create(&order, &there, cancelled);
            self.copy = Some(blocking(save, self.app).await?);
        }
        self.app.ui.step("Restoring", names(&self.journal.sources).join(", "));
        blocking(move |cancelled| backup::unpack(&archive, &places, cancelled), self.app).await
    }

    /// Finishes a restore that was interrupted while it replaced data.
    async fn go_on(mut self) -> Result<Exit> {
        if self.lock.is_none() {
            self.show(true, false)?;
            return Ok(Exit::Done);
        }
        self.stop_whoever_runs().await?;
        self.app.ui.step("Restoring", names(&self.journal.sources).join(", "));
        self.swap().await
    }

    /// The unpacked data takes its place, or what was there stays.
    async fn swap(mut self) -> Result<Exit> {
        // It ends whole, and soon.
        self.app.interruption().tolerate_first();
        self.enter(Phase::Replacing)?;
        let places = self.journal.places();
        let pairs = || places.iter().zip(&self.journal.sources);
        let swapped = pairs().try_for_each(|(place, source)| {
            place.swap().map_err(|failed| {
                error::state(format!("cannot replace the data of {source}: {failed}"))
            })
        });
        if let Err(error) = swapped {
            self.put_back(&places)?;
            self.start_again().await?;
            return Err(error
                .with_hint("what was there before is back; mend that, and run the command again")
                .into());
        }
        self.enter(Phase::InPlace)?;
        self.tidy();
        self.leave()?;
        self.start_again().await?;
        self.check_started().await?;
        self.show(false, false)?;
        Ok(Exit::Done)
    }

    /// Undoes a restore that was interrupted.
    async fn go_back(mut self) -> Result<Exit> {
        if self.lock.is_none() {
            self.show(true, true)?;
            return Ok(Exit::Done);
        }
        self.stop_whoever_runs().await?;
        if self.journal.phase.is_between() {
            self.put_back(&self.journal.places())?;
        } else {
            self.tidy();
            self.leave()?;
        }
        self.start_again().await?;
        self.check_started().await?;
        self.show(false, true)?;
        Ok(Exit::Done)
    }

    fn tidy(&self) {
        if let Err(source) = self.journal.tidy() {
            self.app
                .ui
                .warn(format!("what the restore made for itself cannot be removed: {source}"));
        }
    }

    /// Brings what was there back.
    fn put_back(&mut self, places: &[Place]) -> Result<()> {
        self.enter(Phase::GoingBack)?;
        for (place, source) in places.iter().zip(&self.journal.sources) {
            place.swap_back().map_err(|failed| {
                let message = format!(
                    "the data of {source} is half replaced, and what was there cannot be put \
                    back: {failed}"
                );
                error::state(message).with_hint(
                    "what uses it stays stopped; mend that, then `dkv restore-data --abort` puts \
                    back what was there",
                )
            })?;
        }
        self.leave()
    }

    /// Writes down what begins.
    fn enter(&mut self, phase: Phase) -> Result<()> {
        self.journal.phase = phase;
        let Some(lock) = self.lock else { return Ok(()) };
        self.app.store.write_restore(lock, self.journal.text()?)
    }

    /// Nothing is left to be finished or undone.
    fn leave(&self) -> Result<()> {
        self.lock.map_or(Ok(()), |lock| self.app.store.remove_restore(lock))
    }

    async fn stop_whoever_runs(&mut self) -> Result<()> {
        self.note_users().await?;
        self.stop().await
    }

    /// What runs and uses the data is to be stopped.
    async fn note_users(&mut self) -> Result<()> {
        let running = running_users(self.app, &self.project, &self.journal.sources).await?;
        self.also_stop(running);
        Ok(())
    }

    fn also_stop(&mut self, services: Vec<String>) {
        for name in services {
            if !self.journal.stopped.contains(&name) {
                self.journal.stopped.push(name);
            }
        }
    }

    async fn stop(&self) -> Result<()> {
        if !self.journal.stopped.is_empty() {
            self.app.ui.step("Stopping", self.journal.stopped.join(", "));
        }
        let services = self.journal.stopped.clone();
        self.compose(Action::Stop { services }).await
    }

    async fn start_again(&self) -> Result<()> {
        let services = self.journal.stopped.clone();
        self.compose(Action::Start { services }).await
    }

    async fn compose(&self, action: Action) -> Result<()> {
        if self.journal.stopped.is_empty() {
            return Ok(());
        }
        self.app.touch_containers();
        let (set, compose) = (self.launch.deployment.all(), self.launch.deployment.compose()?);
        compose.run(set, &action, &self.launch.environment).await
    }

    /// Waits until what was started again is healthy.
    async fn check_started(&self) -> Result<()> {
        let started = &self.journal.stopped;
        if started.is_empty() {
            return Ok(());
        }
        let expectations = self.launch.expectations(&self.project);
        let expectations = expectations.counting(|name| started.iter().any(|one| one == name));
        let judged = self.launch.wait(&self.project.name, &expectations, |_| ()).await?;
        let problems: Vec<String> = judged.failures().flat_map(health::explain).collect();
        if problems.is_empty() {
            return Ok(());
        }
        let kept = match self.copy_name() {
            Some(copy) => format!("; what was there before is the backup {copy}"),
            None => String::new(),
        };
        let message = format!(
            "the data is back, but not everything that uses it is healthy{kept}:\n{}",
            problems.join("\n")
        );
        Err(Error::new(Kind::Docker, message).with_hint("`dkv logs --db` shows more").into())
    }

    fn copy_name(&self) -> Option<String> {
        self.copy.as_deref().map(crate::store::file_name)
    }

    fn show(&self, dry_run: bool, is_undone: bool) -> Result<()> {
        let report = RestoredData {
            dry_run,
            undone: is_undone,
            backup: self.journal.backup.display().to_string(),
            made_at: self.journal.made_at.clone(),
            sources: names(&self.journal.sources),
            stopped: self.journal.stopped.clone(),
            copy: self.copy_name(),
            would_save: self.would_save.clone(),
        };
        let ui = &self.app.ui;
        self.app.show(&report, |report| {
            let sources = report.sources.join(", ");
            match (dry_run, is_undone) {
                (true, true) => ui.data(format!("would put back what was in {sources} before")),
                (true, false) => {
                    ui.data(format!("would put back {sources} as of {}", report.made_at));
                }
                (false, true) => ui.status("What was there before is back"),
                (false, false) => {
                    ui.status(format!("The data is as it was at {}", report.made_at));
                }
            }
            if !report.would_save.is_empty() {
                let saved = report.would_save.join(", ");
                ui.data(format!("would save first what is in {saved} now, as a backup of its own"));
            }
            match &report.copy {
                Some(copy) => ui.status(format!("What was there before is the backup {copy}")),
                None if dry_run && !report.stopped.is_empty() => {
                    ui.data(format!("would stop meanwhile: {}", report.stopped.join(", ")));
                }
                None => {}
            }
        })
    }
}

/// What is there now of what is replaced, and becomes a backup of its own.
fn there(journal: &Restore, no_copy: bool) -> Result<Vec<Source>> {
    let mut there = Vec::new();
    for source in journal.sources.iter().filter(|_| !no_copy) {
        there.extend(store::look(&source.path)?.map(|_| source.clone()));
    }
    Ok(there)
}

fn names(sources: &[Source]) -> Vec<String> {
    sources.iter().map(ToString::to_string).collect()
}

/// Those of `sources` that no service of this deployment writes to, and that `data_backup` does not
/// name: what an archive says of its place may be true on another host.
fn strange(
    app: &App,
    launch: &Launch<'_>,
    project: &Project,
    sources: &[Source],
) -> Result<Vec<String>> {
    let configured = launch.deployment.recorded().map(|record| configured(app, record));
    let configured = configured.transpose()?.unwrap_or_default();
    let services = project.services.iter().chain(&project.dormant);
    let mounts = services.flat_map(|service| &service.mounts);
    let mounts: Vec<&MountSource> =
        mounts.filter(|mount| !mount.read_only).map(|mount| &mount.source).collect();
    let is_known = |source: &&Source| {
        // An unnamed volume was found in a container of this deployment.
        source.unnamed.is_some()
            || configured.contains(source)
            || mounts.iter().any(|mount| match (mount, &source.volume) {
                (MountSource::Volume(name), Some(volume)) => name == volume,
                (MountSource::Bind(path), None) => source.path.starts_with(path),
                _ => false,
            })
    };
    Ok(sources.iter().filter(|source| !is_known(source)).map(ToString::to_string).collect())
}

/// Whether `backup` names what an unfinished restore puts back, in full or by its beginning. The
/// file need not be there any more.
fn is_of(app: &App, backup: &Path, journal: &Restore) -> bool {
    let name = store::file_name(&journal.backup);
    store::file_name(backup) == name
        || find(app, backup).is_ok_and(|found| store::file_name(&found) == name)
}

/// The backup by its path, or by the beginning of its name among the backups.
fn find(app: &App, backup: &Path) -> Result<PathBuf> {
    let directory = app.store.data_directory();
    let candidates =
        [directory.join(backup), app.store.directory().join(backup), backup.to_owned()];
    let mut file = None;
    for candidate in candidates {
        if store::look(&candidate)? == Some(store::Kind::File) {
            file = Some(candidate);
            break;
        }
    }
    let found = match (file, backup.to_str()) {
        (Some(file), _) => vec![file],
        (None, Some(name)) => backup::named(&directory, name)?,
        (None, None) => Vec::new(),
    };
    let list = |paths: &[PathBuf]| {
        let names: Vec<String> = paths.iter().map(|path| store::file_name(path)).collect();
        names.join(", ")
    };
    match found.as_slice() {
        [dump] if backup::is_dump(dump) => {
            let message = format!(
                "{} is what the command of `data_backup` printed; dkv does not know what reads it",
                dump.display()
            );
            Err(error::state(message)
                .with_hint("give it to the program that restores such dumps")
                .into())
        }
        [one] => Ok(one.clone()),
        [] => {
            let hint = match backup::list(&directory)?.as_slice() {
                [] => "`update-safe` has not made any yet".to_owned(),
                known => format!("there are {}; `dkv backups` says what they are", list(known)),
            };
            Err(error::state(format!("there is no data backup `{}`", backup.display()))
                .with_hint(hint)
                .into())
        }
        several => {
            let message = format!("`{}` begins several data backups", backup.display());
            Err(error::usage(message).with_hint(format!("name one of {}", list(several))).into())
        }
    }
}

/// Where the backup's sources are now: volumes may have been made anew, and those without a name are
/// those that the same containers have now.
async fn targets(app: &App, project: &str, sources: &[Source]) -> Result<Vec<Source>> {
    let docker = app.docker().await?;
    let mut unnamed = Vec::new();
    if sources.iter().any(|source| source.unnamed.is_some()) {
        let filter = ContainerFilter::project(project);
        unnamed = unnamed_volumes(&docker.container_details(&filter).await?);
    }
    let mut targets = Vec::with_capacity(sources.len());
    for source in sources {
        let target = match (&source.unnamed, &source.volume) {
            (Some(own), _) => match unnamed.iter().find(|(one, _)| one == own) {
                Some((_, name)) => volume(app, name, source.unnamed.clone()).await?,
                None => None,
            },
            (None, Some(name)) => volume(app, name, None).await?,
            (None, None) => Some(source.clone()),
        };
        let target = target.ok_or_else(|| {
            error::state(format!("{source} is not there any more"))
                .with_hint("`dkv start` makes it; then run the command again")
        })?;
        // A directory that was removed comes back.
        let parent = target.path.parent().map(store::look).transpose()?.flatten();
        if parent != Some(store::Kind::Directory) {
            return Err(error::state(format!("the place of {source} is not there"))
                .with_hint("run dkv on the host where the backup was made")
                .into());
        }
        targets.push(target);
    }
    Ok(targets)
}

/// The running services that have one of `sources` mounted.
async fn running_users(app: &App, project: &Project, sources: &[Source]) -> Result<Vec<String>> {
    let mut containers =
        app.docker().await?.containers(&ContainerFilter::project(&project.name)).await?;
    containers
        .retain(|one| matches!(one.state, ContainerState::Running | ContainerState::Restarting));
    let mut users = users_of(project, sources);
    users.retain(|name| containers.iter().any(|one| one.labels.service() == Some(name)));
    Ok(users)
}
