//! How a change of the record is carried through and told, for the commands that make one.

use anyhow::Result;

use crate::app::{App, Exit};
use crate::change::Change;
use crate::deployment::Deployment;
use crate::model::manifest::Service;
use crate::model::track;
use crate::plan::Outcome;
use crate::report::{Changes, ReleaseView, ServiceChange};

/// How far a change goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Show the plan only.
    pub dry_run: bool,
    /// Whether images are made local before they are recorded.
    pub pulls: bool,
    /// Record the services that succeeded.
    pub keep_going: bool,
}

/// What a failure means where it means that nothing happened.
pub(super) const NOTHING_RECORDED: &str = "nothing was recorded";

/// Makes the images of `change` local, records it, and tells what became of it.
pub(super) async fn carry_out(
    deployment: &mut Deployment<'_>,
    mut change: Change,
    manner: Manner,
) -> Result<Exit> {
    let app = deployment.app();
    change.check(manner.keep_going, NOTHING_RECORDED)?;
    let report = match manner.dry_run {
        true => change.preview(deployment.record()?),
        false => record(deployment, &mut change, manner).await?,
    };
    app.show(&report, |report| summarise(deployment, report))?;
    Ok(end(app, change.take_failures()))
}

/// Makes the images of `change` local and records it.
pub(super) async fn record(
    deployment: &mut Deployment<'_>,
    change: &mut Change,
    manner: Manner,
) -> Result<Changes> {
    change.check(manner.keep_going, NOTHING_RECORDED)?;
    if !manner.pulls {
        return change.commit(deployment);
    }
    change.fetch(deployment.app(), deployment.record()?).await?;
    change.check(manner.keep_going, NOTHING_RECORDED)?;
    change.commit_kept(deployment).await
}

/// Tells what failed beside what is done.
pub(super) fn end(app: &App, failures: Vec<anyhow::Error>) -> Exit {
    for failure in &failures {
        app.ui.error(failure);
    }
    if failures.is_empty() { Exit::Done } else { Exit::Partial }
}

/// The result for people: what changed, what did not and why, and what to do next.
pub(super) fn summarise(deployment: &Deployment<'_>, report: &Changes) {
    let app = deployment.app();
    show_lines(app, &report.services);
    let unchanged = report.services.iter().filter(|one| one.outcome == Outcome::Unchanged);
    let names = unchanged.filter_map(|one| one.name.parse().ok());
    let unchanged: Vec<&Service> =
        names.filter_map(|name| deployment.recorded()?.service(&name)).collect();
    let changed = report.services.iter().filter(|change| is_change(change));
    let mut changed = changed.map(|change| change.name.as_str()).peekable();
    match (changed.peek(), report.dry_run) {
        (None, _) => return app.ui.status(nothing_new(&unchanged)),
        (Some(_), true) => app.ui.status("nothing was changed (--dry-run)"),
        (Some(_), false) => app.ui.note(deployment.how_to_start(changed)),
    }
    how_to_follow_a_line(&unchanged).into_iter().for_each(|note| app.ui.note(note));
}

/// What is said where nothing of `services` changes, in one sentence: of what follows one release,
/// nothing new can be expected.
pub(super) fn nothing_new(services: &[&Service]) -> String {
    match how_to_follow_a_line(services) {
        None => "Nothing new".to_owned(),
        Some(stay) if services.iter().all(|service| service.follows_release()) => {
            format!("Nothing new can come: {stay}")
        }
        Some(stay) => format!("Nothing new, and of some nothing can come: {stay}"),
    }
}

/// A line for each service; what failed is told in the end.
pub(super) fn show_lines(app: &App, services: &[ServiceChange]) {
    for change in services.iter().filter(|change| change.outcome != Outcome::Failed) {
        app.ui.data(line(change));
    }
}

/// What became of one service.
fn line(change: &ServiceChange) -> String {
    let (name, notes) = (&change.name, notes(change));
    match change.outcome {
        _ if is_change(change) => format!("{name}: {}{notes}", from_to(change)),
        Outcome::Skipped => format!("{name}: skipped{notes}"),
        _ => format!("{name}: {} is up to date{notes}", named(change.to.as_ref())),
    }
}

fn is_change(change: &ServiceChange) -> bool {
    use Outcome::{Moved, Relabelled, RolledBack, Updated};
    matches!(change.outcome, Updated | Relabelled | RolledBack | Moved)
}

/// From which release to which.
pub(super) fn from_to(change: &ServiceChange) -> String {
    format!("{} → {}", named(change.from.as_ref()), named(change.to.as_ref()))
}

/// A release in a few words.
fn named(release: Option<&ReleaseView>) -> String {
    release.map_or_else(|| "nothing".to_owned(), ReleaseView::short)
}

/// What the operator should know beside that, in brackets.
pub(super) fn notes(change: &ServiceChange) -> String {
    match change.notes.as_slice() {
        [] => String::new(),
        notes => format!(" ({})", notes.join("; ")),
    }
}

/// What is said once of those of `services` that follow one release each.
pub(super) fn how_to_follow_a_line(services: &[&Service]) -> Option<String> {
    let stay = services.iter().filter(|service| service.follows_release() && !service.held);
    let stay: Vec<&&Service> = stay.collect();
    let first = stay.first()?;
    let line = first.track.as_ref().map(track::line_of).unwrap_or_default();
    let each = stay.iter().map(|service| format!("{} `{}`", service.name, service.track_name()));
    let each = each.collect::<Vec<_>>().join(", ");
    let follow = match stay.len() {
        1 => "follows a version that does not move",
        _ => "follow versions that do not move",
    };
    Some(format!(
        "{each} {follow}, until told; `dkv version-pull {} TAG` takes another and follows that, \
        also a tag that moves, such as `{line}`",
        first.name
    ))
}
