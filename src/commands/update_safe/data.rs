//! The data backup before anything is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{RunningUpdate, interrupted};
use crate::app::App;
use crate::backup::{self, About, Cancelled, MadeFor, Order, Source, Unnamed};
use crate::compose::config::Source as MountSource;
use crate::compose::{Action, Project};
use crate::data::{self, Holding, Knowledge, Place};
use crate::deployment::Record;
use crate::docker::{ContainerDetail, ContainerFilter, ContainerState, Kept};
use crate::error;
use crate::followers::followers;
use crate::model::manifest::DataBackup;
use crate::model::operation::Named;
use crate::process::Group;
use crate::report::{DataReport, DataSource};
use crate::store::{self, Kind};
use crate::ui;

/// How long `--dry-run` counts how much there is to save.
const COUNTING: Duration = Duration::from_secs(10);
/// What takes longer than this to be counted is told.
const SILENCE: Duration = Duration::from_secs(3);

/// What of a deployment's data is saved, and how.
struct Plan {
    how: How,
    /// What is left out without anybody having said so.
    left: Vec<DataSource>,
}

/// How data is saved.
enum How {
    /// By a copy of these.
    Copied(Vec<Written>),
    /// By a program of the operator's.
    By {
        /// The program and its arguments.
        words: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Not at all.
    Not {
        /// Why.
        why: String,
        /// Whether somebody should know of it.
        is_worth_a_warning: bool,
    },
}

/// A place that is copied, and the Compose services that write it.
#[derive(Debug, Clone)]
struct Written {
    source: Source,
    services: Vec<String>,
}

impl Written {
    fn told(&self, app: &App) -> DataSource {
        let source = match (&self.source.volume, self.source.path.to_str()) {
            (None, Some(path)) => in_short(app, path),
            _ => self.source.to_string(),
        };
        DataSource { source, services: self.services.clone() }
    }
}

impl RunningUpdate<'_> {
    /// Saves the data as the manifest asks; containers that use it are stopped for the copy.
    pub(super) async fn save_data(&mut self) -> Result<()> {
        let Plan { how, left } = self.data_plan().await?;
        let mut report = DataReport { left_out: left, ..DataReport::default() };
        match how {
            How::Not { why, is_worth_a_warning } => {
                match is_worth_a_warning {
                    true => self.app.ui.warn(format!("no data is saved: {why}")),
                    false => self.app.ui.status(format!("No data is saved: {why}")),
                }
                report.reason = Some(why);
            }
            How::By { words, timeout } => self.run_command(&words, timeout, &mut report).await?,
            How::Copied(written) => {
                self.copy(written, &mut report).await?;
                tell_of_left(self.app, &report.left_out);
            }
        }
        self.journal.saving.data = Some(report);
        Ok(())
    }

    /// What would be saved, for a plan that is only shown, and what would be stopped meanwhile.
    pub(super) async fn foresee_data(&mut self) -> Result<Vec<String>> {
        let Plan { how, left } = self.data_plan().await?;
        let mut report = DataReport { left_out: left, ..DataReport::default() };
        let directory = self.app.store.data_directory();
        let mut paused = Vec::new();
        match how {
            How::Not { why, is_worth_a_warning } => {
                if is_worth_a_warning {
                    self.app.ui.warn(format!("no data would be saved: {why}"));
                }
                report.reason = Some(why);
            }
            How::By { words, .. } => report.command = Some(shown(&words)),
            How::Copied(written) => {
                let sources = sources_of(&written);
                refuse_itself(&sources, &directory)?;
                paused = self.running_users_of(&sources);
                let counted = sources.clone();
                let count = move |cancelled: &_| backup::measure(&counted, cancelled);
                report.bytes = blocking_for(count, self.app, Some(COUNTING)).await?;
                if let Some(bytes) = report.bytes {
                    backup::check_space(&directory, bytes, LEAVE_OUT)?;
                }
                report.sources = written.iter().map(|one| one.told(self.app)).collect();
            }
        }
        self.report.data = Some(report);
        Ok(paused)
    }

    /// What is saved how.
    async fn data_plan(&self) -> Result<Plan> {
        let not = |why: &str| How::Not { why: why.to_owned(), is_worth_a_warning: false };
        let setting = &self.record()?.manifest.data_backup;
        let how = match setting {
            _ if self.journal.options.no_data_backup => not("--no-data-backup"),
            DataBackup::None => not("the manifest says `data_backup: none`"),
            DataBackup::Command { words, timeout } => {
                How::By { words: words.clone(), timeout: *timeout }
            }
            DataBackup::Paths(_) => {
                let sources = configured(self.app, self.record()?)?;
                let written = sources.into_iter().map(|source| {
                    let services = users_of(&self.project, std::slice::from_ref(&source));
                    Written { source, services }
                });
                How::Copied(written.collect())
            }
            DataBackup::Databases(asked) => return self.databases_plan(asked).await,
        };
        Ok(Plan { how, left: Vec::new() })
    }

    async fn databases_plan(&self, asked: &BTreeMap<String, bool>) -> Result<Plan> {
        self.check_asked(asked)?;
        let database_files = match self.launch.deployment.has_databases() {
            true => self.launch.databases(&self.project).await?.services,
            false => Vec::new(),
        };
        let filter = ContainerFilter::project(&self.project.name);
        let containers = self.docker.container_details(&filter).await?;
        let unnamed = unnamed_volumes(&containers);
        let survey = data::survey(
            &self.project,
            &Knowledge {
                database_files: &database_files.into_iter().map(|one| one.name).collect(),
                asked,
                unnamed: &targets_of(&unnamed),
            },
        );
        let written = written(self.app, &survey.saved, &unnamed).await?;
        let mut left: Vec<DataSource> = survey.left.iter().map(|one| told(self.app, one)).collect();
        left.retain(|one| !one.services.iter().all(|name| asked.get(name) == Some(&false)));
        if !written.is_empty() {
            return Ok(Plan { how: How::Copied(written), left });
        }
        let first = left.iter().find_map(|one| one.services.first());
        let how = match (survey.without_place.as_slice(), first) {
            ([], None) => How::Not {
                why: "no service here keeps any outside its container".to_owned(),
                is_worth_a_warning: false,
            },
            (_, Some(first)) => How::Not {
                why: format!(
                    "no database is known here that writes any, only {}; in the manifest, \
                    `data_backup: {{services: {{{first}: true}}}}` saves it, and \
                    `data_backup: none` ends this warning",
                    list(&left)
                ),
                is_worth_a_warning: true,
            },
            (names, None) => How::Not {
                why: format!(
                    "what {} keep is inside their containers; in the manifest, `data_backup: \
                    {{command: …}}` makes a dump, and `data_backup: none` ends this warning",
                    names.join(", ")
                ),
                is_worth_a_warning: true,
            },
        };
        Ok(Plan { how, left })
    }

    /// Whoever names a service wants to be told of a misspelling, not of lost data.
    fn check_asked(&self, asked: &BTreeMap<String, bool>) -> Result<()> {
        let described = self.launch.deployment.described();
        let known = |name: &str| self.project.service(name).is_some() || described.contains(name);
        match asked.keys().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => Err(error::state(format!(
                "`data_backup` in the manifest names `{name}`, and no Compose file has such a \
                service; nothing was stopped"
            ))
            .with_hint(format!("the Compose files have {}", self.names().join(", ")))
            .into()),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.project.services.iter().map(|one| one.name.as_str()).collect()
    }

    /// Copies what is `written` while nothing writes.
    async fn copy(&mut self, written: Vec<Written>, report: &mut DataReport) -> Result<()> {
        let sources = sources_of(&written);
        let directory = self.app.store.data_directory();
        refuse_itself(&sources, &directory)?;
        let bytes = self.count(&sources).await?;
        backup::check_space(&directory, bytes, LEAVE_OUT)?;
        report.sources = written.iter().map(|one| one.told(self.app)).collect();
        self.app.ui.step("Saving", format!("{}, {}", list(&report.sources), ui::bytes(bytes)));
        self.warn_of_others(&sources).await?;
        self.journal.saving.stopped = self.running_users_of(&sources);
        self.write_journal()?;
        self.downtime.watch(&self.docker, &self.journal.project);
        let order = self.order(names_of(&report.sources), Some(bytes));
        let saved = self.stop_and_copy(sources, order).await;
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
        self.journal.saving.data_backup = Some(store::file_name(&path));
        report.bytes = Some(bytes);
        self.tell_of_backup(&path, report);
        Ok(())
    }

    /// How much there is to save; told where that takes a while.
    async fn count(&self, sources: &[Source]) -> Result<u64> {
        let sources = sources.to_vec();
        let counted = blocking(move |cancelled| backup::measure(&sources, cancelled), self.app);
        tokio::pin!(counted);
        match tokio::time::timeout(SILENCE, &mut counted).await {
            Ok(counted) => counted,
            Err(_) => {
                self.app.ui.status("Counting how much data there is; everything runs meanwhile");
                counted.await
            }
        }
    }

    fn tell_of_backup(&self, path: &Path, report: &mut DataReport) {
        report.file = Some(path.display().to_string());
        report.stored_bytes = backup::size(path);
        let stored = report.stored_bytes.map(ui::bytes).unwrap_or_default();
        self.app.ui.step("Saved", format!("the data as {} ({stored})", path.display()));
    }

    /// Who else writes the volumes is not stopped: the copy may hold half a change of theirs.
    async fn warn_of_others(&self, sources: &[Source]) -> Result<()> {
        for name in sources.iter().filter_map(|source| source.volume.as_ref()) {
            let mut others = self.docker.containers_with_volume(name).await?;
            others.retain(|one| {
                let is_ours = one.labels.project() == Some(&self.project.name);
                let service = one.labels.service().filter(|_| is_ours && !one.labels.is_one_off());
                one.state == ContainerState::Running
                    && service.is_none_or(|service| self.project.service(service).is_none())
            });
            for other in others {
                self.app.ui.warn(format!(
                    "{} uses volume {name} too, belongs to no service of this deployment and is \
                    not stopped: the copy may hold half of what it writes",
                    other.name
                ));
            }
        }
        Ok(())
    }

    fn running_users_of(&self, sources: &[Source]) -> Vec<String> {
        users_of(&self.project, sources).into_iter().filter(|name| self.was_running(name)).collect()
    }

    fn was_running(&self, compose_service: &str) -> bool {
        self.journal.ran.iter().any(|ran| ran.compose_service == compose_service && ran.is_running)
    }

    /// What is known of the backup that this update makes.
    fn order(&self, sources: Vec<String>, bytes: Option<u64>) -> Order {
        let moved = self.journal.plan.targets.iter().map(|target| self.moved(target));
        let tag = |named: Option<Named>| named.map(|named| named.tag).unwrap_or_default();
        let changes = moved
            .filter(|one| one.from != one.to)
            .map(|one| (one.name.to_string(), tag(one.from), tag(one.to)));
        let stamp = self.app.stamp();
        Order {
            directory: self.app.store.data_directory(),
            stamp: self.app.backup_stamp(),
            about: About {
                made_at: stamp.at,
                made_by: stamp.by,
                sources,
                bytes,
                made_for: MadeFor::Update {
                    started_at: self.journal.started_at.clone(),
                    changes: changes.collect(),
                },
            },
            spared: None,
        }
    }

    async fn stop_and_copy(&self, sources: Vec<Source>, order: Order) -> Result<PathBuf> {
        if !self.journal.saving.stopped.is_empty() {
            let stop = Action::Stop { services: self.journal.saving.stopped.clone() };
            self.compose(&stop, &self.launch.environment).await?;
        }
        blocking(move |cancelled| backup::create(&order, &sources, cancelled), self.app).await
    }

    /// The operator's own command, a dump for example; nothing is stopped for it. What it prints is
    /// kept.
    async fn run_command(
        &mut self,
        command: &[String],
        limit: Duration,
        report: &mut DataReport,
    ) -> Result<()> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let shown = shown(command);
        report.command = Some(shown.clone());
        self.app.ui.step("Saving", format!("data with `{shown}`"));
        let dump = backup::Dump::begin(self.order(vec![format!("`{shown}`")], None))?;
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
        self.journal.saving.data_backup = kept.as_deref().map(store::file_name);
        match kept {
            Some(path) => self.tell_of_backup(&path, report),
            None => {
                let why = format!("`{shown}` printed nothing; what it saved is its own");
                self.app.ui.status(format!("Nothing is kept here: {why}"));
                report.reason = Some(why);
            }
        }
        Ok(())
    }
}

/// What `--dry-run` says of the data.
pub(super) fn show_plan(app: &App, data: &DataReport) {
    let size = match data.bytes {
        Some(bytes) => ui::bytes(bytes),
        None => "more than can be counted soon".to_owned(),
    };
    match data {
        DataReport { command: Some(command), .. } => {
            app.ui.data(format!("would save data with `{command}`"));
        }
        DataReport { sources, .. } if !sources.is_empty() => {
            app.ui.data(format!("would save: {}, {size}", list(sources)));
            tell_of_left(app, &data.left_out);
        }
        DataReport { reason, .. } => {
            let why = reason.as_deref().unwrap_or_default();
            app.ui.data(format!("would save no data: {why}"));
        }
    }
}

fn tell_of_left(app: &App, left: &[DataSource]) {
    let Some(first) = left.iter().find_map(|one| one.services.first()) else { return };
    app.ui.note(format!(
        "not saved: {}; `data_backup: {{services: {{{first}: true}}}}` in the manifest saves it, \
        `false` ends this note",
        list(left)
    ));
}

/// The operator's command as it was written.
fn shown(command: &[String]) -> String {
    match command {
        [shell, option, script] if shell == "sh" && option == "-c" => script.clone(),
        words => words.join(" "),
    }
}

fn list(sources: &[DataSource]) -> String {
    names_of(sources).join(", ")
}

/// A path in the deployment's directory as its Compose file has it.
fn in_short(app: &App, path: &str) -> String {
    let inside = Path::new(path).strip_prefix(absolute(app.store.directory())).ok();
    let inside = inside.filter(|inside| !inside.as_os_str().is_empty());
    inside.map_or_else(|| path.to_owned(), |inside| format!("./{}", inside.display()))
}

fn names_of(sources: &[DataSource]) -> Vec<String> {
    sources.iter().map(ToString::to_string).collect()
}

fn sources_of(written: &[Written]) -> Vec<Source> {
    written.iter().map(|one| one.source.clone()).collect()
}

fn told(app: &App, holding: &Holding) -> DataSource {
    let source = match &holding.place {
        Place::Volume(name) => format!("volume {name}"),
        Place::Path(path) => in_short(app, path),
        Place::Unnamed { target, .. } => format!("the unnamed volume at {target}"),
    };
    DataSource { source, services: holding.services.clone() }
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
        let source = Source::at(clean(&directory.join(path)));
        add(&mut sources, Written { source, services: Vec::new() });
    }
    Ok(sources_of(&sources))
}

/// Adds a place, unless it is inside one that is there; what is inside it goes.
fn add(all: &mut Vec<Written>, mut one: Written) {
    let around = all.iter_mut().find(|other| one.source.path.starts_with(&other.source.path));
    if let Some(around) = around {
        merge(&mut around.services, one.services);
        return;
    }
    for inside in all.extract_if(.., |other| other.source.path.starts_with(&one.source.path)) {
        merge(&mut one.services, inside.services);
    }
    all.push(one);
}

fn merge(names: &mut Vec<String>, more: Vec<String>) {
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

/// The failure of the operator's own command.
fn failed(command: &str, how: String) -> error::Error {
    error::state(format!("the data backup failed: `{command}` {how}")).with_hint(
        "nothing was stopped; mend `data_backup` in the manifest, or leave it out with \
        --no-data-backup",
    )
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
    blocking_for(work, app, None).await?.ok_or_else(interrupted)
}

/// As [`blocking`]; `None` for what takes longer than `limit`.
async fn blocking_for<T: Send + 'static>(
    work: impl FnOnce(&Cancelled) -> Result<T> + Send + 'static,
    app: &App,
    limit: Option<Duration>,
) -> Result<Option<T>> {
    let cancelled = Arc::new(Cancelled::new(false));
    let flag = Arc::clone(&cancelled);
    let mut task = tokio::task::spawn_blocking(move || work(&flag));
    let too_long = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let is_interrupted = tokio::select! {
        ended = &mut task => return ended.context("the work ended unexpectedly")?.map(Some),
        () = app.interruption().raised() => true,
        () = too_long => false,
    };
    cancelled.store(true, Ordering::Relaxed);
    // What is done already is not thrown away; anything else was interrupted.
    match task.await.context("the work ended unexpectedly")? {
        Ok(done) => Ok(Some(done)),
        Err(_) if is_interrupted => Err(interrupted()),
        Err(_) => Ok(None),
    }
}

/// Where what is held can be read.
///
/// # Errors
///
/// The data is not on this machine, or not where it can be read as files (exit 3).
async fn written(
    app: &App,
    holdings: &[Holding],
    unnamed: &[(Unnamed, String)],
) -> Result<Vec<Written>> {
    if !holdings.is_empty() && !app.docker().await?.endpoint().is_local() {
        return Err(elsewhere("the Docker daemon is on another machine".to_owned()).into());
    }
    let mut all = Vec::new();
    for Holding { place, services } in holdings {
        let mut sources = Vec::new();
        match place {
            // Sockets and devices hold no data; what does not exist yet, neither.
            Place::Path(path) => sources.push(Source::at(path.into())),
            Place::Volume(name) => sources.extend(volume(app, name, None).await?),
            Place::Unnamed { service, target } => {
                let own = |one: &Unnamed| one.service == *service && one.target == *target;
                for (one, name) in unnamed.iter().filter(|(one, _)| own(one)) {
                    sources.extend(volume(app, name, Some(one.clone())).await?);
                }
            }
        }
        for source in sources {
            let holds_data = source.volume.is_some()
                || matches!(store::look(&source.path)?, Some(Kind::File | Kind::Directory));
            if holds_data {
                add(&mut all, Written { source, services: services.clone() });
            }
        }
    }
    Ok(all)
}

/// The directory of a volume; `None` if there is none of that name, or it is kept in memory.
///
/// # Errors
///
/// It cannot be read as files (exit 3).
pub(crate) async fn volume(
    app: &App,
    name: &str,
    unnamed: Option<Unnamed>,
) -> Result<Option<Source>> {
    let Some(volume) = app.docker().await?.volume(name).await? else { return Ok(None) };
    match volume.kept {
        Kept::Directory(path) => Ok(Some(Source { path, volume: Some(volume.name), unnamed })),
        Kept::Memory => Ok(None),
        Kept::Elsewhere(by) => Err(elsewhere(format!("volume {name} is kept by {by}")).into()),
    }
}

/// The volumes without a name that the containers of services have, with the daemon's names for
/// them.
pub(crate) fn unnamed_volumes(containers: &[ContainerDetail]) -> Vec<(Unnamed, String)> {
    let containers = containers.iter().filter(|one| !one.labels.is_one_off());
    let found = containers.flat_map(|container| {
        let service = container.labels.service().map(str::to_owned);
        let number = container.labels.number().unwrap_or(1);
        container.mounts.iter().filter_map(move |mount| {
            let name = mount.unnamed_volume().filter(|_| mount.writable)?.to_owned();
            let target = mount.destination.clone();
            Some((Unnamed { service: service.clone()?, number, target }, name))
        })
    });
    found.collect()
}

fn targets_of(unnamed: &[(Unnamed, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let mut targets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (one, _) in unnamed {
        targets.entry(one.service.clone()).or_default().insert(one.target.clone());
    }
    targets
}

fn elsewhere(why: String) -> error::Error {
    error::state(format!("the data of the databases cannot be copied: {why}")).with_hint(
        "give the manifest a `data_backup` with a `command` that makes a dump, or leave that \
        service out (`data_backup: {services: {NAME: false}}`), or everything with \
        --no-data-backup; nothing was stopped",
    )
}

/// A backup that holds the backups would grow with each.
fn refuse_itself(sources: &[Source], directory: &Path) -> Result<()> {
    let directory = absolute(directory);
    match sources.iter().find(|source| directory.starts_with(absolute(&source.path))) {
        None => Ok(()),
        Some(source) => Err(error::state(format!(
            "the data to save is in {source}, which holds the backups themselves; nothing was \
            stopped"
        ))
        .with_hint("name the directories inside it: `data_backup: [./data]` in the manifest")
        .into()),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The Compose services that have one of `sources` mounted, or something in it or around it, and
/// those that hang on to their containers, in Compose's order.
pub(crate) fn users_of(project: &Project, sources: &[Source]) -> Vec<String> {
    let users = project.services.iter().filter(|service| {
        let is_own = |source: &Source| {
            source.unnamed.as_ref().is_some_and(|unnamed| unnamed.service == service.name)
        };
        let mut mounts = service.mounts.iter().map(|mount| &mount.source);
        sources.iter().any(is_own)
            || mounts.any(|mount| sources.iter().any(|source| uses(mount, source)))
    });
    let mut users: Vec<String> = users.map(|service| service.name.clone()).collect();
    users.extend(followers(project, &users, &|_| None));
    let place = |name: &String| project.services.iter().position(|one| one.name == *name);
    users.sort_by_key(place);
    users
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
