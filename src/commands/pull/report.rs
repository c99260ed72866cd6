//! What was pulled and recorded, and what was not, for people.

use anyhow::Result;

use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::error::{self, Error};
use crate::plan::Outcome;
use crate::report::{Changes, ReleaseView};

pub(super) fn summarise_pull(app: &App, report: &Changes) {
    let count = |outcome: Outcome| {
        report.services.iter().filter(|change| change.outcome == outcome).count()
    };
    let (pulled, present) = (count(Outcome::Pulled), count(Outcome::Present));
    for change in report.services.iter().filter(|change| change.outcome == Outcome::Skipped) {
        app.ui.status(format!("{}: {}", change.name, change.notes.join(", ")));
    }
    if report.dry_run {
        for change in report.services.iter().filter(|change| change.outcome == Outcome::Pulled) {
            let release = change.to.as_ref().map_or_else(String::new, ReleaseView::short);
            app.ui.status(format!("would pull {} {release}", change.name));
        }
    }
    match (pulled, present) {
        (0, present) => app.ui.status(format!("All {present} images are local already")),
        (pulled, 0) => app.ui.status(format!(
            "{} {}",
            if report.dry_run { "Would pull" } else { "Pulled" },
            images(pulled)
        )),
        (pulled, present) => app.ui.status(format!(
            "{} {}; {present} were local already",
            if report.dry_run { "Would pull" } else { "Pulled" },
            images(pulled)
        )),
    }
}

fn images(count: usize) -> String {
    format!("{count} image{}", if count == 1 { "" } else { "s" })
}

pub(super) fn in_manifest_order(deployment: &Deployment, report: &mut Changes) {
    let place =
        |name: &str| deployment.manifest.services.keys().position(|key| key.as_str() == name);
    report.services.sort_by_key(|change| place(&change.name));
}

/// The result for people: what changed, what did not and why, and what to do next.
pub(in crate::commands) fn summarise(app: &App, deployment: &Deployment, report: &Changes) {
    let mut changed = Vec::new();
    for change in &report.services {
        let release = |view: &Option<ReleaseView>| {
            view.as_ref().map_or_else(|| "nothing".to_owned(), ReleaseView::short)
        };
        let notes = if change.notes.is_empty() {
            String::new()
        } else {
            format!(" ({})", change.notes.join("; "))
        };
        match change.outcome {
            Outcome::Updated | Outcome::Relabelled => {
                changed.push(change.name.as_str());
                app.ui.data(format!(
                    "{}: {} → {}{notes}",
                    change.name,
                    release(&change.from),
                    release(&change.to)
                ));
            }
            Outcome::Skipped => app.ui.data(format!("{}: skipped{notes}", change.name)),
            Outcome::Failed => {}
            _ => app.ui.data(format!(
                "{}: {} is up to date{notes}",
                change.name,
                release(&change.to)
            )),
        }
    }
    match (changed.is_empty(), report.dry_run) {
        (true, _) => app.ui.status("Nothing new"),
        (false, true) => app.ui.status("nothing was changed (--dry-run)"),
        (false, false) => app.ui.note(app.how_to_start(deployment, changed.into_iter())),
    }
}

/// One error that tells of all `failures`, with the kind of the first; none if there are none.
pub(in crate::commands) fn fail_together(
    mut failures: Vec<anyhow::Error>,
    total: usize,
    consequence: &str,
) -> Result<()> {
    if failures.len() <= 1 {
        let Some(only) = failures.pop() else { return Ok(()) };
        let kind = error::kind(&only);
        let hint = error::find(&only).and_then(Error::hint).unwrap_or_default();
        let whole = Error::new(kind, format!("{only:#}"));
        let hint =
            if hint.is_empty() { consequence.to_owned() } else { format!("{hint}; {consequence}") };
        return Err(whole.with_hint(hint).into());
    }
    let kind = error::kind(&failures[0]);
    let lines: Vec<String> = failures.iter().map(|failure| format!("\n  {failure:#}")).collect();
    let mut hints: Vec<&str> =
        failures.iter().filter_map(|failure| error::find(failure)?.hint()).collect();
    hints.sort_unstable();
    hints.dedup();
    hints.push(consequence);
    let message = format!("{} of {total} services failed:{}", failures.len(), lines.concat());
    Err(Error::new(kind, message).with_hint(hints.join("; ")).into())
}

/// With `keep_going`: shows the report, tells the failures, and ends as partly done.
pub(super) fn settle_failures(
    app: &App,
    deployment: &Deployment,
    report: &Changes,
    failures: Vec<anyhow::Error>,
    total: usize,
    keep_going: bool,
    consequence: &str,
) -> Result<Exit> {
    if !keep_going || failures.len() == total {
        return fail_together(failures, total, consequence).map(|()| Exit::Done);
    }
    app.show(report, |report| summarise(app, deployment, report))?;
    for failure in &failures {
        app.ui.error(failure);
    }
    Ok(Exit::Partial)
}
