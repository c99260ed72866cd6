//! `operations`: what was done.

use anyhow::Result;
use clap::Args;

use super::Run;
use super::version::to_seconds;
use crate::app::{App, Exit};
use crate::change;
use crate::deployment::Deployment;
use crate::model::operation::{Ending, Kind, Moved, Named, What};
use crate::report::{OperationView, short_digest};
use crate::ui::{Cell, Style};

/// How many operations are shown unless all are wanted.
const SHOWN: usize = 20;

/// What is shown fits a terminal of so many columns.
const COLUMNS: usize = 80;

/// Show what was done: which services changed together, who did it, and what failed
///
/// An edit of the manifest counts as an operation too. `dkv undo` takes back the newest, or
/// everything from one on.
#[derive(Debug, Args)]
pub struct Operations {
    /// Show all that are remembered, not only the newest 20; --json always does
    #[arg(long)]
    all: bool,
}

impl Run for Operations {
    const NEEDS_RUNTIME: bool = false;

    /// # Errors
    ///
    /// The log cannot be read (exit 3).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open_leniently(app);
        let recorded = change::recorded(app, deployment.recorded())?;
        let report = crate::report::Operations::of(&recorded.log, recorded.edited_from.is_some());
        app.show(&report, |report| {
            let shown = if self.all { usize::MAX } else { SHOWN };
            for view in report.operations.iter().take(shown) {
                lines(view).iter().for_each(|line| app.ui.data_line(line));
            }
            if report.operations.is_empty() {
                app.ui.status("Nothing was recorded yet");
            }
            if let Some(more) = report.operations.len().checked_sub(shown).filter(|more| *more > 0)
            {
                app.ui.note(format!("{more} older ones: `dkv operations --all`"));
            }
        })?;
        Ok(Exit::Done)
    }
}

/// What is shown of one operation: when, who and what, then each service, then why it failed.
fn lines(view: &OperationView) -> Vec<Vec<Cell>> {
    let operation = &view.operation;
    let mut marks = Vec::new();
    match operation.result {
        Ending::Done => {}
        Ending::Partial => marks.push(("[partly done]".to_owned(), Style::Yellow)),
        Ending::Failed => {
            marks.push((format!("[failed: exit {}]", operation.exit_code), Style::Red));
        }
    }
    if view.undone {
        marks.push(("[undone]".to_owned(), Style::Yellow));
    }
    if !operation.takes.is_empty() {
        let taken: Vec<String> = operation.takes.iter().map(ToString::to_string).collect();
        let verb = if operation.kind == Kind::Redo { "redoes" } else { "undoes" };
        marks.push((format!("[{verb} {}]", taken.join(", ")), Style::Cyan));
    }
    let who = operation.by.as_deref().unwrap_or("-");
    let head = format!("{:>4}  {}  {who}  ", operation.id, to_seconds(&operation.at));
    let taken = marks.iter().map(|(mark, _)| mark.chars().count() + 1).sum::<usize>();
    let command = match operation.kind {
        Kind::Edit if view.recorded => "edited by hand".to_owned(),
        Kind::Edit => "edited by hand since".to_owned(),
        _ => operation.command.join(" "),
    };
    let room = COLUMNS.saturating_sub(head.chars().count() + taken).max(20);
    let mut first = vec![Cell::new(head, Style::Dim), Cell::new(cut(&command, room), Style::Bold)];
    for (mark, style) in marks {
        first.push(Cell::plain(" "));
        first.push(Cell::new(mark, style));
    }
    let mut lines = vec![first];
    lines.extend(operation.services.iter().map(|moved| vec![Cell::plain(service_line(moved))]));
    if operation.services.is_empty() && operation.changes() {
        lines.push(vec![Cell::plain("      what the manifest says beside its services")]);
    }
    if let Some(reason) = &operation.reason {
        let reason = reason.lines().next().unwrap_or_default();
        let reason = cut(&format!("      {reason}"), COLUMNS);
        lines.push(vec![Cell::new(reason, Style::Yellow)]);
    }
    if let Some(backup) = &operation.data_backup {
        lines.push(vec![Cell::new(format!("      data saved: {backup}"), Style::Dim)]);
    }
    lines
}

fn service_line(moved: &Moved) -> String {
    let Moved { name, from, to, what } = moved;
    let named = |one: &Option<Named>| match one {
        None => "nothing".to_owned(),
        Some(Named { tag, digest: None }) => tag.clone(),
        Some(Named { tag, digest: Some(digest) }) => {
            format!("{tag} ({})", short_digest(digest.as_str()))
        }
    };
    match what {
        What::Version | What::Renamed => format!("      {name}: {} → {}", named(from), named(to)),
        What::Added => format!("      {name}: {} (added)", named(to)),
        What::Removed => format!("      {name}: {} (removed)", named(from)),
        what => format!("      {name}: {} ({})", named(to), what.words()),
    }
}

/// The beginning of `text` that fits `room` columns.
fn cut(text: &str, room: usize) -> String {
    match text.chars().count() > room {
        true => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
