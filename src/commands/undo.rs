//! `undo`, `redo`: the record as it was before operations, and after them again.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::arguments::{Applied, Confirmed};
use super::changes;
use super::rollback::runs_already;
use super::update_safe::{self, Order};
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::backup;
use crate::change::{self, About, Change};
use crate::deployment::{Deployment, Record};
use crate::error::{self, Error};
use crate::model::operation::{Kind, Log, Operation};
use crate::model::reference::Digest;
use crate::plan::{self, Outcome};
use crate::report::{ServiceChange, Undone};
use crate::store::{self, Snapshot};
use crate::update::Goal;

/// Take back the last operation, or everything from one on
///
/// The manifest gets the very text that it had before, and versions.env follows; data stays as it
/// is. Again, it goes further back; `dkv redo` goes forward. `dkv operations` shows what was done.
/// On a terminal it asks first.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  dkv operations && dkv undo && dkv up")]
pub struct Undo {
    /// The operation, by its number: it and all that came after it [default: the last]
    #[arg(value_name = "ID")]
    operation: Option<u64>,
    #[command(flatten)]
    applied: Applied,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for Undo {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    fn has_safe_points(&self) -> bool {
        self.applied.apply
    }

    /// # Errors
    ///
    /// There is no such operation, or somebody said no (exit 2); it cannot be undone, or what the
    /// manifest was before is lost (exit 3); an image can be had nowhere (exit 5 or 6). In all of
    /// these nothing has changed.
    async fn run(self, app: &App) -> Result<Exit> {
        let mut deployment = Deployment::open_recorded(app)?;
        let log = log(&deployment)?;
        let takes = log.to_undo(self.operation).ok_or_else(|| cannot_undo(&log, self.operation))?;
        let first = takes.last().and_then(|id| log.operation(*id));
        let wanted = first.and_then(|first| Some((first, first.before.clone()?)));
        let (first, text) = wanted.ok_or_else(nothing_to_undo)?;
        let bytes = app
            .store
            .manifest_text(&text, first.backup.as_deref())
            .ok_or_else(|| is_lost(app, first, "before"))?;
        let way = Way { kind: Kind::Undo, takes, applied: self.applied };
        go(&mut deployment, &log, way, bytes, self.confirmed).await
    }
}

/// Do again what was undone last
#[derive(Debug, Args)]
pub struct Redo {
    #[command(flatten)]
    applied: Applied,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for Redo {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    fn has_safe_points(&self) -> bool {
        self.applied.apply
    }

    /// # Errors
    ///
    /// As for [`Undo`].
    async fn run(self, app: &App) -> Result<Exit> {
        let mut deployment = Deployment::open_recorded(app)?;
        let log = log(&deployment)?;
        let stacks = log.stacks();
        let undone = stacks.undone.last().and_then(|id| log.operation(*id));
        let undone = undone.ok_or_else(|| {
            error::state("nothing is undone that could be done again")
                .with_hint("`dkv operations` shows what was done")
        })?;
        let bytes = app
            .store
            .manifest_text(&undone.after, None)
            .ok_or_else(|| is_lost(app, undone, "after"))?;
        let way = Way { kind: Kind::Redo, takes: vec![undone.id], applied: self.applied };
        go(&mut deployment, &log, way, bytes, self.confirmed).await
    }
}

/// What was done, an edit included that nobody has recorded yet.
fn log(deployment: &Deployment<'_>) -> Result<Log> {
    Ok(change::recorded(deployment.app(), Some(deployment.record()?))?.log)
}

fn nothing_to_undo() -> Error {
    error::state("there is no operation that could be undone")
        .with_hint("`dkv operations` shows what is remembered; `dkv version-history` the releases")
}

/// Why an operation cannot be undone.
fn cannot_undo(log: &Log, id: Option<u64>) -> Error {
    let Some(id) = id else { return nothing_to_undo() };
    let (message, hint) = match log.operation(id) {
        None => {
            return error::usage(format!("there is no operation {id}"))
                .with_hint("`dkv operations` shows them with their numbers");
        }
        Some(_) if log.stacks().undone.contains(&id) => {
            (format!("operation {id} is undone already"), "`dkv redo` does it again")
        }
        Some(Operation { kind: Kind::Undo, .. }) => {
            (format!("operation {id} is itself an undo"), "`dkv redo` goes forward again")
        }
        Some(operation) if !operation.changes() => (
            format!("operation {id} changed nothing that is recorded"),
            "`dkv operations` shows those that did",
        ),
        Some(Operation { kind: Kind::Redo, .. }) => (
            format!("operation {id} is a redo"),
            "`dkv undo` with the number of what it did again takes that back",
        ),
        Some(Operation { before: None, .. }) => (
            format!("operation {id} made the manifest: there was none before"),
            "`dkv operations` shows what came after it",
        ),
        Some(_) => (
            format!(
                "operation {id} cannot be undone: what came after it is not known to the end, or \
                was undone and replaced"
            ),
            "`dkv rollback-to` takes a service to any release that is remembered",
        ),
    };
    error::state(message).with_hint(hint)
}

/// A text of the manifest that nobody has any more.
fn is_lost(app: &App, operation: &Operation, when: &str) -> Error {
    let id = operation.id;
    let state = app.store.state_directory();
    let named = operation.backup.as_ref().filter(|_| when == "before");
    let why = match named.map(|name| state.join(name)) {
        Some(path) if !matches!(store::look(&path), Ok(None)) => {
            format!("the backup `{}` is damaged", path.display())
        }
        Some(path) => format!("the backup `{}` is gone", path.display()),
        None => "no backup has it".to_owned(),
    };
    error::state(format!(
        "the manifest from {when} operation {id} cannot be brought back: {why}; nothing was changed"
    ))
    .with_hint("`dkv rollback-to` takes a service to any release that is remembered")
}

/// Which way it goes.
struct Way {
    kind: Kind,
    takes: Vec<u64>,
    applied: Applied,
}

/// The change that brings back the manifest's text with this digest, after an update that was
/// killed before it could record that.
///
/// # Errors
///
/// No backup has the text any more (exit 3).
pub(super) fn back_to(deployment: &Deployment<'_>, text: &Digest, about: About) -> Result<Change> {
    let (app, record) = (deployment.app(), deployment.record()?);
    let bytes = app.store.manifest_text(text, None).ok_or_else(|| {
        error::state("the manifest that was to come back is in no backup any more")
            .with_hint("`dkv update-safe --abort` restores what ran before")
    })?;
    let target = Snapshot::planned(record.snapshot.path.clone(), bytes);
    let target = deployment.interpret_written(target)?;
    let steps = plan::go_to(&record.manifest, &target.manifest);
    Ok(Change::back_to(target, steps, about))
}

/// Shows what comes back, asks, makes its images local, records it; or makes it run first.
async fn go(
    deployment: &mut Deployment<'_>,
    log: &Log,
    Way { kind, takes, applied }: Way,
    text: Vec<u8>,
    Confirmed { yes, dry_run }: Confirmed,
) -> Result<Exit> {
    let app = deployment.app();
    let record = deployment.record()?;
    let goal = Goal::Record { text: Digest::of(&text), kind, takes: takes.clone() };
    let target = Snapshot::planned(record.snapshot.path.clone(), text);
    let target = deployment.interpret_written(target)?;
    refuse_lost(&target, record)?;
    let about = About { kind, takes, id: Some(log.next_id()), ..About::default() };
    let taken: Vec<&Operation> = about.takes.iter().filter_map(|id| log.operation(*id)).collect();
    let data_backups = match kind {
        Kind::Undo => taken.iter().filter_map(|one| one.data_backup.clone()).collect(),
        _ => Vec::new(),
    };
    let mut report = Undone {
        operation: log.next_id(),
        takes: about.takes.clone(),
        data_backups,
        changes: crate::report::Changes::default(),
    };
    let verb = if kind == Kind::Redo { "redo" } else { "undo" };
    let heading: Vec<String> = taken.iter().map(|one| told(verb, one)).collect();
    let steps = plan::go_to(&record.manifest, &target.manifest);
    let mut change = Change::back_to(target, steps, about);
    report.changes = change.preview(record);
    if dry_run && applied.apply {
        heading.iter().for_each(|line| app.ui.status(line));
        let order = Order { options: applied.options(), goal, change: Some(change) };
        return update_safe::carry_out(app, order, dry_run).await;
    }
    if dry_run {
        app.show(&report, |report| {
            heading.iter().for_each(|line| app.ui.status(line));
            show(report, |line| app.ui.data(line));
            tell_of_data(app, report);
            app.ui.note("nothing was changed (--dry-run)");
        })?;
        return Ok(Exit::Done);
    }
    record.check_writable(&app.store)?;
    heading.iter().for_each(|line| app.ui.status(line));
    if !yes {
        show(&report, |line| app.ui.status(line));
    }
    let question = match taken.len() {
        1 => format!("{} this?", capital(verb)),
        several => format!("{} these {several} operations?", capital(verb)),
    };
    // Without anybody to ask it goes ahead: each of the two takes back the other.
    if app.ui.can_ask() && !app.ui.confirm(&question, yes, &app.command)? {
        return Err(error::usage("not confirmed; nothing was changed").into());
    }
    if applied.apply {
        tell_of_data(app, &report);
        let order = Order { options: applied.options(), goal, change: Some(change) };
        return update_safe::carry_out(app, order, dry_run).await;
    }
    report.changes = if change.steps.iter().any(plan::Step::has_other_images) {
        change.fetch(app, record).await?;
        if change.has_failed() {
            change.check(false, &format!("nothing was changed: no operation was {verb}ne"))?;
        }
        change.commit_kept(deployment).await?
    } else {
        change.commit(deployment)?
    };
    let moved: Vec<&str> = change
        .steps
        .iter()
        .filter(|step| step.has_other_bytes() && step.after.current().is_some())
        .map(|step| step.after.name.as_str())
        .collect();
    let runs = moved.is_empty() || runs_already(deployment, &change.steps).await;
    app.show(&report, |report| {
        show(report, |line| app.ui.data(line));
        if !runs {
            app.ui.note(deployment.how_to_start(moved.iter().copied()));
        } else {
            app.ui.note("what runs is already that: nothing needs restarting");
        }
        tell_of_data(app, report);
    })?;
    Ok(Exit::Done)
}

/// Refuses a record of which a current release is lost: nobody knows which bytes it had.
fn refuse_lost(target: &Record, now: &Record) -> Result<()> {
    let lost = target.services().filter(|service| {
        let is_same =
            now.service(&service.name).is_some_and(|one| one.current() == service.current());
        !is_same
            && service
                .current()
                .is_some_and(|current| current.is_lost(|tag| service.is_moving(tag)))
    });
    let names: Vec<&str> = lost.map(|service| service.name.as_str()).collect();
    match names.as_slice() {
        [] => Ok(()),
        names => Err(error::state(format!(
            "nobody recorded which bytes {} ran then, only a tag that moves; nothing was changed",
            names.join(", ")
        ))
        .with_hint("`dkv version-pull` takes any version of a service")
        .into()),
    }
}

/// What is taken back, or done again.
fn told(verb: &str, operation: &Operation) -> String {
    let what = match operation.kind {
        Kind::Edit => "an edit of the manifest by hand".to_owned(),
        _ => format!("`dkv {}`", operation.command.join(" ")),
    };
    let who = operation.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    format!("{verb} {}: {what}{who}, {}", operation.id, operation.at)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A line a service.
fn show(report: &Undone, line: impl Fn(String)) {
    for change in &report.changes.services {
        line(service_line(change));
    }
    if report.changes.services.is_empty() {
        line("no service changes, only what the manifest says beside them".to_owned());
    }
}

fn service_line(change: &ServiceChange) -> String {
    let notes = changes::notes(change);
    match change.outcome {
        Outcome::Unchanged => {
            let tag = change.to.as_ref().map_or("nothing", |release| release.tag.as_str());
            format!("{}: {tag}{notes}", change.name)
        }
        _ => format!("{}: {}{notes}", change.name, changes::from_to(change)),
    }
}

/// Names the data that was saved before what is undone: that stays as it is.
fn tell_of_data(app: &App, report: &Undone) {
    for backup in &report.data_backups {
        app.ui.note(match backup::is_dump(Path::new(backup)) {
            true => format!(
                "data is not undone; .version-backups/data/{backup} is the dump from before it"
            ),
            false => format!(
                "data is not undone; `dkv restore-data {backup}` puts back what was saved before it"
            ),
        });
    }
}
