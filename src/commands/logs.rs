//! `logs` and its kin: what the containers say, those that are gone included; and the archive that
//! keeps what they said.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use chrono::{Local, SecondsFormat, Utc};

use super::survey::Survey;
use crate::app::{App, Exit};
use crate::cli;
use crate::deployment::Deployment;
use crate::docker::{Container, ContainerFilter};
use crate::error::{self, Error};
use crate::logs::{self, Archive, LastWords, Line, Matcher, Selection};
use crate::model::reference::ServiceName;
use crate::report::{Document, LogLine};
use crate::ui::{Cell, Style};

/// The directory for logs of the application's containers.
const ARCHIVE: &str = "logs";
/// The directory for logs of the databases' containers.
const DATABASE_ARCHIVE: &str = "dblogs";
/// How often to look whether anybody still reads what is followed.
const UNREAD_CHECK: Duration = Duration::from_millis(250);
/// How long a start or stop may be held up by keeping logs.
const KEEP_PATIENCE: Duration = Duration::from_secs(120);
/// The colours of prefixes, service after service.
const COLOURS: [Style; 5] = [Style::Cyan, Style::Yellow, Style::Green, Style::Magenta, Style::Blue];

/// Which lines are shown.
#[derive(Debug, Default)]
pub struct LogsOptions {
    /// The services: Compose's names or the manifest's. None means all.
    pub services: Vec<ServiceName>,
    /// Whether to go on with new lines; `None` leaves it to the terminal.
    pub follow: Option<bool>,
    /// So many of the newest lines.
    pub tail: Option<u64>,
    /// From then on.
    pub since: Option<cli::Moment>,
    /// Up to then.
    pub until: Option<cli::Moment>,
    /// Only today's.
    pub today: bool,
    /// Only those that tell of errors.
    pub errors: bool,
    /// Only those that match.
    pub pattern: Option<String>,
    /// Only the databases'.
    pub databases: bool,
}

impl From<cli::Logs> for LogsOptions {
    fn from(arguments: cli::Logs) -> Self {
        Self {
            services: arguments.services.names(),
            follow: (arguments.follow || arguments.no_follow).then_some(arguments.follow),
            tail: arguments.tail.map(|count| count as u64),
            since: arguments.since,
            until: arguments.until,
            today: arguments.today,
            errors: arguments.errors,
            pattern: arguments.grep,
            databases: arguments.db,
        }
    }
}

/// `dkv logs` and the shorter names for its variants. Ends with the newest line, or follows until
/// Ctrl-C or until nobody reads any more.
///
/// # Errors
///
/// An unknown service or a malformed pattern (exit 2); the daemon does not answer (exit 6).
pub async fn logs(app: &App, options: LogsOptions) -> Result<Exit> {
    // First, because it is the quickest to refuse.
    let matcher = Matcher::new(options.errors, options.pattern.as_deref())?;
    let survey = Survey::of_containers(app).await?;
    let docker = app.docker().await?;
    let containers = docker.containers(&survey.filter()).await?;
    let running = containers
        .iter()
        .filter(|one| !one.labels.is_one_off())
        .filter_map(|one| one.labels.service());
    let services = choose(&survey, running, &options)?;
    if services.is_empty() {
        let nothing = if options.databases { "no database services" } else { "no services" };
        app.ui.status(format!("This deployment has {nothing}"));
        return Ok(Exit::Done);
    }
    let now = app.now;
    let since = match options.since {
        Some(moment) => Some(moment.seen_from(now)),
        None => options.today.then(|| logs::start_of_day(&now.with_timezone(&Local))),
    };
    let until = options.until.map(|moment| moment.seen_from(now));
    let follow = options.follow.unwrap_or(app.ui.terminals().stdout) && until.is_none();
    let is_gone =
        |service: &String| !containers.iter().any(|one| one.labels.service() == Some(service));
    if since.is_none() && services.iter().all(is_gone) {
        app.ui.note(
            "there are no containers; `dkv logs --since 7d` shows what was kept of those \
            that are gone",
        );
    }
    let width = services.iter().map(String::len).max().unwrap_or_default();
    let [application, databases] = archives(app, survey.deployment.as_ref());
    let selection = Selection {
        services,
        since,
        until,
        tail: options.tail,
        follow,
        matcher,
        archives: vec![application, databases],
    };
    let mut sink = |line: Line| {
        print(app, width, &line)?;
        if app.ui.is_unread() { Err(Unread.into()) } else { Ok(()) }
    };
    tokio::select! {
        shown = logs::show(docker, &survey.project.name, &selection, Utc::now(), &mut sink) => match shown {
            Err(error) if error.is::<Unread>() => Ok(Exit::Done),
            shown => shown.map(|()| Exit::Done),
        },
        () = unread(app) => Ok(Exit::Done),
    }
}

/// Waits until nobody reads standard output any more, which no write would tell while nothing is
/// written.
async fn unread(app: &App) {
    while !app.ui.is_unread() {
        tokio::time::sleep(UNREAD_CHECK).await;
    }
}

/// Ends the view: nobody reads it any more.
#[derive(Debug)]
struct Unread;

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the logs any more")
    }
}

impl std::error::Error for Unread {}

fn print(app: &App, width: usize, line: &Line) -> Result<()> {
    if app.settings.json {
        let time = line.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let line = LogLine { service: line.label.clone(), time, text: line.text.clone() };
        return app.ui.json_line(&Document::new(&app.command, &line));
    }
    let prefix =
        Cell::new(format!("{:width$} | ", line.label), COLOURS[line.colour % COLOURS.len()]);
    app.ui.data_line(&[prefix, Cell::plain(&line.text)]);
    Ok(())
}

/// The Compose services to show: those that are named, by Compose's name or by the manifest's,
/// which stands for all Compose services of its image; else all of them.
fn choose<'a>(
    survey: &'a Survey,
    running: impl Iterator<Item = &'a str>,
    options: &LogsOptions,
) -> Result<Vec<String>, Error> {
    let mut known: Vec<&str> =
        survey.project.services.iter().map(|service| service.name.as_str()).collect();
    let others: BTreeSet<&str> =
        running.chain(survey.described()).filter(|name| !known.contains(name)).collect();
    known.extend(others);
    known.retain(|name| !options.databases || survey.databases.contains(*name));
    if options.services.is_empty() {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    let tracked = survey.tracked();
    let mut chosen = Vec::new();
    for wanted in &options.services {
        let is_wanted = |name: &&str| *name == wanted.as_str();
        let service =
            survey.deployment.as_ref().and_then(|deployment| deployment.manifest.find(wanted));
        let is_tracked = |name: &&str| {
            service.is_some()
                && tracked.get(*name).map(|one| &one.name) == service.map(|one| &one.name)
        };
        let mut found: Vec<&str> = known.iter().copied().filter(is_wanted).collect();
        if found.is_empty() {
            found = known.iter().copied().filter(is_tracked).collect();
        }
        if found.is_empty() {
            let kind = if options.databases { "database service" } else { "service" };
            let hint = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(error::usage(format!("there is no {kind} `{wanted}`")).with_hint(hint));
        }
        chosen.extend(found);
    }
    known.retain(|name| chosen.contains(name));
    Ok(known.into_iter().map(str::to_owned).collect())
}

/// The archives of the application's and of the databases' logs.
fn archives(app: &App, deployment: Option<&Deployment>) -> [Archive; 2] {
    let settings = deployment.map(|deployment| deployment.manifest.logs).unwrap_or_default();
    [ARCHIVE, DATABASE_ARCHIVE].map(|name| Archive::new(app.store.directory().join(name), settings))
}

/// What is heard of containers that are about to go, until [`Kept::finish`].
#[must_use = "the last words are lost unless it is finished"]
pub(super) struct Kept(Vec<LastWords>);

/// Keeps what containers have said that are about to be removed or replaced: those of the Compose
/// services that `goes` chooses; and listens to their last words. A failure is a warning, because
/// it must not keep anybody from stopping them.
pub(super) async fn keep(
    app: &App,
    deployment: Option<&Deployment>,
    project: &str,
    databases: &BTreeSet<String>,
    goes: impl Fn(&str) -> bool,
) -> Kept {
    let kept = async {
        let docker = app.docker().await?;
        let mut containers = docker.containers(&ContainerFilter::project(project)).await?;
        containers.retain(|one| one.labels.service().is_some_and(&goes));
        let is_database = |one: &Container| {
            one.labels.service().is_some_and(|service| databases.contains(service))
        };
        let (of_databases, of_application): (Vec<_>, Vec<_>) =
            containers.into_iter().partition(is_database);
        let now = Utc::now().with_timezone(&Local);
        let [application, databases] = archives(app, deployment);
        let mut listening = Vec::new();
        for (archive, containers) in [(application, of_application), (databases, of_databases)] {
            if !containers.is_empty() {
                archive.save(docker, &containers, &now).await;
                listening.push(LastWords::listen(archive, docker, &containers));
            }
        }
        anyhow::Ok(listening)
    };
    match tokio::time::timeout(KEEP_PATIENCE, kept).await {
        Ok(Ok(listening)) => Kept(listening),
        Ok(Err(error)) => {
            tracing::warn!("the logs of containers that go are not kept: {error:#}");
            Kept(Vec::new())
        }
        Err(_) => {
            tracing::warn!(
                "the logs of containers that go are not kept completely: it took over {} s",
                KEEP_PATIENCE.as_secs()
            );
            Kept(Vec::new())
        }
    }
}

impl Kept {
    /// Keeps the last words too. To be called when Compose has done what it was called for.
    pub(super) async fn finish(self, app: &App) {
        let Ok(docker) = app.docker().await else { return };
        let now = Utc::now().with_timezone(&Local);
        for words in self.0 {
            words.save(docker, &now).await;
        }
    }
}
