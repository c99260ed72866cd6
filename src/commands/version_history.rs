//! `version-history`: what is remembered.

use anyhow::Result;
use clap::Args;

use super::Run;
use super::arguments::Services;
use super::version::to_seconds;
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::model::manifest::Rank;
use crate::report::{Histories, short_digest};
use crate::ui::{Cell, Style, Table};

/// Show the recorded history, and where a rollback goes
#[derive(Debug, Args)]
pub struct VersionHistory {
    #[command(flatten)]
    services: Services,
}

impl Run for VersionHistory {
    const NEEDS_RUNTIME: bool = false;

    /// # Errors
    ///
    /// No manifest (exit 3), an unknown service (exit 2).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open_recorded(app)?;
        let report = Histories::of(&deployment.select(&self.services.names())?);
        app.show(&report, |report| {
            let mut table = Table::new(&["SERVICE", "VERSION", "DIGEST", "DEPLOYED", "BY", ""]);
            for service in &report.services {
                for (index, entry) in service.releases.iter().enumerate() {
                    let (mut mark, style) = match entry.status {
                        Rank::Current => ("[current]".to_owned(), Style::Green),
                        Rank::Previous => {
                            ("[previous] ← rollback goes here".to_owned(), Style::Cyan)
                        }
                        Rank::RolledBack => ("[rolled-back]".to_owned(), Style::Yellow),
                        Rank::Archived => (String::new(), Style::Dim),
                    };
                    if entry.custom {
                        mark.push_str(" [custom]");
                    }
                    if entry.status == Rank::Current && service.held {
                        mark.push_str(" [held]");
                    }
                    if entry.lost && entry.status != Rank::Current {
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
}
