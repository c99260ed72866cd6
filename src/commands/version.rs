//! `version`: what is recorded as current.

use anyhow::Result;
use clap::Args;

use super::Run;
use super::arguments::Services;
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::model::manifest::Source;
use crate::report::{Versions, short_digest};
use crate::ui::{Cell, Style, Table};

/// Show the recorded versions
#[derive(Debug, Args)]
pub struct Version {
    #[command(flatten)]
    services: Services,
}

impl Run for Version {
    const NEEDS_RUNTIME: bool = false;

    /// # Errors
    ///
    /// No manifest (exit 3), an unknown service (exit 2).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open_recorded(app)?;
        let report = Versions::of(&deployment.select(&self.services.names())?);
        app.show(&report, |report| show_versions(app, report))?;
        Ok(Exit::Done)
    }
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
        if service.source == Source::Local {
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

/// A time without the fractions of a second that the old tool wrote.
pub(super) fn to_seconds(time: &str) -> &str {
    time.split_once('.').map_or(time, |(seconds, _)| seconds)
}
