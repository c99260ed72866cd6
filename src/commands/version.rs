//! `version`, `version-history`: what is recorded.

use anyhow::Result;

use crate::app::{App, Exit};
use crate::model::reference::ServiceName;
use crate::report::{Histories, Versions, short_digest};
use crate::ui::{Cell, Style, Table};

/// `dkv version [SERVICE…]`.
///
/// # Errors
///
/// No manifest (exit 3), an unknown service (exit 2).
pub fn version(app: &App, names: &[ServiceName]) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let report = Versions::of(&app.select(&deployment, names)?);
    app.show(&report, |report| show_versions(app, report))?;
    Ok(Exit::Done)
}

/// A line for each service: what is recorded as current.
pub(super) fn show_versions(app: &App, report: &Versions) {
    if report.services.is_empty() {
        app.ui.note("the manifest has no services yet; `dkv migrate-versions` finds them");
        return;
    }
    let mut table = Table::new(&["SERVICE", "VERSION", "DIGEST", "DEPLOYED", "BY", ""]);
    for service in &report.services {
        let digest =
            service.digest.as_deref().or(service.image_id.as_deref()).map_or("-", short_digest);
        let mut marks = Vec::new();
        if service.custom {
            marks.push(match &service.custom_reason {
                Some(reason) => format!("[custom] {reason}"),
                None => "[custom]".to_owned(),
            });
        }
        if service.held {
            marks.push("[held]".to_owned());
        }
        if service.source == "local" {
            marks.push("[local]".to_owned());
        }
        table.row([
            Cell::new(&service.name, Style::Bold),
            Cell::plain(service.tag.as_deref().unwrap_or("(nothing recorded)")),
            Cell::new(digest, Style::Dim),
            Cell::plain(service.deployed_at.as_deref().map_or("-", to_seconds)),
            Cell::plain(service.deployed_by.as_deref().unwrap_or("-")),
            Cell::new(marks.join(" "), Style::Yellow),
        ]);
    }
    app.ui.table(&table);
}

/// `dkv version-history [SERVICE…]`.
///
/// # Errors
///
/// As for [`version`].
pub fn history(app: &App, names: &[ServiceName]) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let report = Histories::of(&app.select(&deployment, names)?);
    app.show(&report, |report| {
        let mut table = Table::new(&["SERVICE", "VERSION", "DIGEST", "DEPLOYED", "BY", ""]);
        for service in &report.services {
            for (index, entry) in service.releases.iter().enumerate() {
                let (mut mark, style) = match entry.status {
                    "current" => ("[current]".to_owned(), Style::Green),
                    "previous" => ("[previous] ← rollback goes here".to_owned(), Style::Cyan),
                    "rolled-back" => ("[rolled-back]".to_owned(), Style::Yellow),
                    _ => (String::new(), Style::Dim),
                };
                if entry.custom {
                    mark.push_str(" [custom]");
                }
                if entry.status == "current" && service.held {
                    mark.push_str(" [held]");
                }
                if entry.lost && entry.status != "current" {
                    mark = "[lost] nobody recorded which bytes this was".to_owned();
                }
                let digest = entry
                    .release
                    .digest
                    .as_deref()
                    .or(entry.release.image_id.as_deref())
                    .map_or("-", short_digest);
                table.row([
                    Cell::new(if index == 0 { &service.name } else { "" }, Style::Bold),
                    Cell::plain(&entry.release.tag),
                    Cell::new(digest, Style::Dim),
                    Cell::plain(entry.release.deployed_at.as_deref().map_or("-", to_seconds)),
                    Cell::plain(entry.release.deployed_by.as_deref().unwrap_or("-")),
                    Cell::new(mark.trim(), style),
                ]);
            }
            if service.releases.is_empty() {
                table.row([
                    Cell::new(&service.name, Style::Bold),
                    Cell::plain("(nothing recorded)"),
                ]);
            }
        }
        app.ui.table(&table);
    })?;
    Ok(Exit::Done)
}

/// A time without the fractions of a second that the old tool wrote.
fn to_seconds(time: &str) -> &str {
    time.split_once('.').map_or(time, |(seconds, _)| seconds)
}
