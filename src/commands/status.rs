//! `status`: what runs, how it does, and whether it is what the manifest says.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use futures_util::StreamExt as _;

use super::Run;
use super::run::{container_line, hanging, style_of};
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::health::{self, Expectations, Limits};
use crate::model::manifest::Service;
use crate::report::{self, ContainerLine, ReleaseView, Standing, StatusLine};
use crate::store;
use crate::ui::{Cell, Style, Table, format};

/// What is said in the place of recorded versions.
pub(super) const NO_MANIFEST: &str =
    "there is no manifest; `dkv migrate-versions` makes one from what runs";
/// How often a watched deployment is looked at when nothing happens: ages and health checks change
/// without an event.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked at when very much happens.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// Show every container: its state, health and version
#[derive(Debug, Args)]
pub struct Status {
    /// Keep showing it, until interrupted
    #[arg(long)]
    watch: bool,
}

impl Run for Status {
    fn shows_until_interrupted(&self) -> bool {
        self.watch
    }

    /// # Errors
    ///
    /// The daemon does not answer (exit 6); the manifest is not valid, or there is no deployment
    /// (exit 3).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open(app)?;
        let lost = app.store.lost_output();
        if store::look(&lost)?.is_some() {
            app.ui.note(format!(
                "a command lost its terminal and went on; what it said is in {}",
                lost.display()
            ));
        }
        deployment.view().await?;
        if self.watch {
            return watch(&deployment).await;
        }
        let status = what_runs(&deployment, Utc::now()).await?;
        app.show(&status, |status| show(&deployment, status))?;
        Ok(Exit::Done)
    }
}

/// What runs now.
///
/// # Errors
///
/// The daemon does not answer (exit 6).
pub(super) async fn what_runs(
    deployment: &Deployment<'_>,
    now: DateTime<Utc>,
) -> Result<report::Status> {
    let docker = deployment.app().docker().await?;
    let view = deployment.view().await?;
    let expectations = match view.is_complete {
        true => Expectations::of(&view.project),
        false => Expectations::from_containers(&docker.container_details(&view.filter()).await?),
    };
    let health =
        health::snapshot(docker, &view.project.name, &expectations, Limits::default(), now);
    let (health, images) = tokio::try_join!(health, deployment.local_images())?;
    let tracked = deployment.tracked(&view.project);
    let databases = deployment.databases();
    let lines = health.containers.iter().map(|judged| {
        let service = tracked.get(&judged.service).copied();
        StatusLine {
            container: container_line(service, judged, &images),
            database: databases.contains(&judged.service),
            tracked: service.is_some(),
            recorded: service.and_then(Service::current).map(ReleaseView::from),
        }
    });
    let mut containers: Vec<StatusLine> = lines.collect();
    let details = health.containers.iter().filter_map(|judged| judged.container.as_ref());
    let hanging = hanging(docker, &details.collect::<Vec<_>>()).await?;
    for one in &hanging {
        let mine =
            |line: &&mut StatusLine| line.container.container.as_ref() == Some(&one.container);
        if let Some(line) = containers.iter_mut().find(mine) {
            let problem = format!("{} {}", one.service, one.in_words());
            line.container.verdict = Standing::Failed;
            line.container.details = one.in_words();
            line.container.problem.insert(0, problem);
        }
    }
    // Health has put its problems first; what runs another version than it should comes after them.
    containers.sort_by_key(|line| {
        (line.container.problem.is_empty(), line.container.as_recorded != Some(false))
    });
    Ok(report::Status {
        project: view.project.name.clone(),
        healthy: health.is_good() && hanging.is_empty(),
        complete: view.is_complete,
        containers,
    })
}

/// The problems with their causes, then all containers.
pub(super) fn show(deployment: &Deployment<'_>, status: &report::Status) {
    let app = deployment.app();
    if status.containers.is_empty() {
        app.ui.note(format!(
            "the project {} has no containers; `dkv start` starts it",
            status.project
        ));
        return;
    }
    let containers = status.containers.iter().map(|line| &line.container.container);
    let missing = containers.filter(|container| container.is_none()).count();
    for StatusLine { container, .. } in &status.containers {
        let Some((first, causes)) = container.problem.split_first() else { continue };
        app.ui.data_line(&[Cell::new(first, style_of(container.verdict))]);
        for cause in causes {
            app.ui.data_line(&[Cell::plain("  "), Cell::plain(cause)]);
        }
    }
    if status.containers.iter().any(|line| !line.container.problem.is_empty()) {
        app.ui.data("");
    }
    app.ui.table(&table(status, Utc::now(), false));
    let others = status.containers.iter().map(|line| &line.container);
    let others = others.filter(|container| container.as_recorded == Some(false));
    let others: Vec<&str> = others.map(|container| container.compose_service.as_str()).collect();
    if !others.is_empty() {
        app.ui.hint(match deployment.how_to_lead(&others) {
            Some(how) => how,
            None => "`dkv up` or `dkv restart` starts what the manifest says".to_owned(),
        });
    } else if status.containers.iter().any(|line| line.container.details.starts_with("hangs ")) {
        app.ui.hint("`dkv up` makes anew what hangs on to a container that is gone");
    } else if missing == status.containers.len() {
        app.ui.hint("nothing is started: `dkv start` starts everything, databases first");
    } else if missing > 0 {
        app.ui.hint("`dkv up` starts what has no container");
    }
}

/// A line for each container. Problems are described in their lines if `has_problems`.
fn table(status: &report::Status, now: DateTime<Utc>, has_problems: bool) -> Table {
    let mut table = Table::new(&[
        "SERVICE", "STATE", "HEALTH", "SINCE", "RESTARTS", "VERSION", "DIGEST", "NOTE",
    ]);
    for line in &status.containers {
        let container = &line.container;
        let state = match container.exit_code {
            Some(code) => format!("{} ({code})", container.state),
            None => container.state.clone(),
        };
        let since = container
            .since
            .as_deref()
            .and_then(|time| time.parse().ok())
            .map(|since| format::age(since, now));
        table.row([
            Cell::new(name(status, container), Style::Bold),
            Cell::new(state, style_of(container.verdict)),
            Cell::new(
                container.health.unwrap_or(container.verdict.word()),
                style_of(container.verdict),
            ),
            Cell::plain(since.as_deref().unwrap_or("-")),
            Cell::plain(container.restarts),
            Cell::plain(container.tag.as_deref().unwrap_or("-")),
            Cell::new(container.shown_digest(), Style::Dim),
            Cell::new(notes(line, has_problems), Style::Yellow),
        ]);
    }
    table
}

/// The service, or the container where the service has several.
fn name<'a>(status: &report::Status, container: &'a ContainerLine) -> &'a str {
    let others = status
        .containers
        .iter()
        .filter(|line| line.container.compose_service == container.compose_service);
    match &container.container {
        Some(name) if others.count() > 1 => name,
        _ => &container.compose_service,
    }
}

fn notes(line: &report::StatusLine, has_problems: bool) -> String {
    let mut notes = Vec::new();
    if has_problems && !line.container.problem.is_empty() {
        notes.push(line.container.details.clone());
    }
    if line.database {
        notes.push("database".to_owned());
    }
    match (line.tracked, line.container.as_recorded) {
        (false, _) => notes.push("untracked".to_owned()),
        (true, Some(false)) => {
            let recorded = line.recorded.as_ref().map(ReleaseView::short).unwrap_or_default();
            notes.push(format!("the manifest says {recorded}"));
        }
        (true, None) if line.container.container.is_some() => {
            notes.push("nothing recorded to compare with".to_owned())
        }
        (true, _) => {}
    }
    notes.join(", ")
}

/// Shows the deployment again whenever something happens, until Ctrl-C: on a terminal in place,
/// else a line for what changed, or a document with `--json`.
async fn watch(deployment: &Deployment<'_>) -> Result<Exit> {
    let app = deployment.app();
    let docker = app.docker().await?;
    let view = deployment.view().await?;
    let terminals = app.ui.terminals();
    let live = (terminals.stdout && terminals.stderr && !app.settings.json).then(|| app.ui.live());
    let mut told: Vec<String> = Vec::new();
    loop {
        // Listened to from before the look, so that nothing happens unseen in between.
        let mut events = pin!(docker.events(&view.filter(), Some(Utc::now())));
        let now = Utc::now();
        let status = what_runs(deployment, now).await?;
        let lines: Vec<String> =
            status.containers.iter().map(|line| summary(&status, line)).collect();
        let is_new = told != lines;
        match &live {
            Some(live) => live.show(&table(&status, now, true)),
            None if !is_new => {}
            None if app.settings.json => app.ui.json_line(&app.document(&status))?,
            None => {
                let time = now.with_timezone(&chrono::Local).format("%H:%M:%S");
                for line in lines.iter().filter(|line| !told.contains(line)) {
                    app.ui.data(format!("{time} {line}"));
                }
            }
        }
        if app.ui.is_unread() {
            return Ok(Exit::Done);
        }
        told = lines;
        tokio::time::sleep(SHORTEST_PAUSE).await;
        // A broken stream counts as an event: the next look tells whether the daemon is gone.
        let _ = tokio::time::timeout(LONGEST_PAUSE, events.next()).await;
    }
}

/// A container in one line that only changes when the container does.
fn summary(status: &report::Status, line: &report::StatusLine) -> String {
    let container = &line.container;
    let version = container.tag.as_deref().unwrap_or("-");
    let notes = notes(line, true);
    let health = container.health.unwrap_or(container.verdict.word());
    let name = name(status, container);
    format!("{name}: {} {health} {version} {notes}", container.state).trim_end().to_owned()
}
