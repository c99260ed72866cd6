//! `backups`: what can be put back, and which change it comes from.

use std::path::Path;

use anyhow::Result;
use chrono::{Local, NaiveDateTime, SecondsFormat, TimeZone as _, Utc};
use clap::Args;

use super::Run;
use crate::app::{App, Exit};
use crate::backup::{self, MadeFor};
use crate::model::manifest::Manifest;
use crate::model::operation::{Moved, Named};
use crate::report::{BackupChange, Backups as Report, DataBackupLine, ManifestBackupLine};
use crate::store;
use crate::ui::{self, Cell, Style, Table};

/// Show the backups of data and of the manifest, and what each was made for
#[derive(Debug, Args)]
pub struct Backups {}

impl Run for Backups {
    const NEEDS_RUNTIME: bool = false;

    /// # Errors
    ///
    /// The directories of the backups cannot be listed (exit 3); a backup that cannot be read is shown
    /// as such.
    async fn run(self, app: &App) -> Result<Exit> {
        let report = Report { data: data(app)?, manifests: manifests(app)? };
        app.show(&report, |report| show(app, report))?;
        Ok(Exit::Done)
    }
}

fn show(app: &App, report: &Report) {
    if report.data.is_empty() && report.manifests.is_empty() {
        app.ui.status(
            "There are no backups yet: each change of the manifest and each `update-safe` \
            makes one",
        );
        return;
    }
    let mut table = Table::new(&["DATA", "SIZE", "FROM BEFORE"]);
    for one in &report.data {
        let what = match &one.replaced_by {
            Some(backup) => format!("restore-data {backup}"),
            None => told(&one.changes),
        };
        let name = one.name.strip_suffix(".tar.zst").unwrap_or(&one.name);
        table.row([Cell::new(name, Style::Bold), size_cell(one.size), Cell::plain(what)]);
        table.row([
            Cell::plain(""),
            Cell::plain(""),
            Cell::new(one.sources.join(", "), Style::Dim),
        ]);
    }
    if !report.data.is_empty() {
        app.ui.table(&table);
        app.ui.hint("`dkv restore-data NAME` puts data back; a beginning of the name is enough");
    }
    let mut table = Table::new(&["MANIFEST", "SIZE", "FROM BEFORE"]);
    for one in &report.manifests {
        let what = match (&one.error, &one.changed_by) {
            (Some(error), _) => error.clone(),
            (None, Some(by)) => format!("{} ({by})", told(&one.changes)),
            (None, None) => told(&one.changes),
        };
        table.row([
            Cell::new(one.name.rsplit('.').next().unwrap_or_default(), Style::Bold),
            size_cell(one.size),
            Cell::plain(what),
        ]);
    }
    if !report.manifests.is_empty() {
        app.ui.table(&table);
    }
}

/// Numbers stand under each other by their ends.
fn size_cell(size: Option<u64>) -> Cell {
    Cell::plain(format!("{:>10}", size.map_or_else(|| "-".to_owned(), ui::bytes)))
}

fn told(changes: &[BackupChange]) -> String {
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    if changes.is_empty() { "no release changed".to_owned() } else { changes.join(", ") }
}

/// When a backup was made, by the local time in its name, `YYYYMMDDHHMMSS[-N]`.
fn made_at(stamp: &str) -> Option<String> {
    let time = NaiveDateTime::parse_from_str(stamp.split(['-', '.']).next()?, "%Y%m%d%H%M%S");
    let local = Local.from_local_datetime(&time.ok()?).earliest()?;
    Some(local.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn data(app: &App) -> Result<Vec<DataBackupLine>> {
    let directory = app.store.data_directory();
    let mut known = backup::about(&directory);
    let line = |path: &std::path::PathBuf| {
        let name = store::file_name(path);
        let about = known.remove(&name);
        let stamp = name.strip_prefix("data-").unwrap_or(&name);
        let mut line = DataBackupLine {
            file: path.display().to_string(),
            made_at: made_at(stamp),
            made_by: None,
            size: backup::size(path),
            bytes: None,
            dump: backup::is_dump(path),
            sources: Vec::new(),
            update_started_at: None,
            changes: Vec::new(),
            replaced_by: None,
            name,
        };
        let Some(about) = about else { return line };
        line.made_at = Some(about.made_at);
        line.made_by = Some(about.made_by);
        (line.bytes, line.sources) = (about.bytes, about.sources);
        match about.made_for {
            MadeFor::Restore { backup } => line.replaced_by = Some(backup),
            MadeFor::Update { started_at, changes } => {
                line.update_started_at = Some(started_at);
                let changes = changes.into_iter().map(|(service, from, to)| BackupChange {
                    service,
                    from: Some(from).filter(|from| !from.is_empty()),
                    to: Some(to),
                });
                line.changes = changes.collect();
            }
        }
        line
    };
    Ok(backup::list(&directory)?.iter().map(line).collect())
}

/// Each backup against what came after it.
fn manifests(app: &App) -> Result<Vec<ManifestBackupLine>> {
    let mut after = read(app.store.manifest_path());
    let mut lines = Vec::new();
    for path in app.store.backups()? {
        let before = read(&path);
        let name = store::file_name(&path);
        let mut line = ManifestBackupLine {
            made_at: name.rsplit('.').next().and_then(made_at),
            file: path.display().to_string(),
            size: backup::size(&path),
            changed_by: None,
            changes: Vec::new(),
            error: None,
            name,
        };
        match (&before, &after) {
            (Ok(before), Ok(after)) => (line.changes, line.changed_by) = changes(before, after),
            (Err(error), _) | (_, Err(error)) => line.error = Some(error.clone()),
        }
        lines.push(line);
        after = before;
    }
    Ok(lines)
}

fn read(path: &Path) -> Result<Manifest, String> {
    match store::read(path) {
        Ok(Some(found)) => Manifest::read(&found.bytes).map_err(|error| error.to_string()),
        Ok(None) => Err("the manifest is gone".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// What became of releases from one manifest to the next, and by whom.
fn changes(before: &Manifest, after: &Manifest) -> (Vec<BackupChange>, Option<String>) {
    let mut moved = Moved::all_between(before, after);
    moved.retain(|one| one.from != one.to);
    let by = moved.iter().find_map(|one| after.services.get(&one.name)?.deployed_by.clone());
    let tag = |named: Option<Named>| named.map(|named| named.tag);
    let changes = moved.into_iter().map(|one| BackupChange {
        service: one.name.to_string(),
        from: tag(one.from),
        to: tag(one.to),
    });
    (changes.collect(), by)
}
