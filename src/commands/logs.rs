//! `logs` and its kin: what the containers say, those that are gone included; and the archive that
//! keeps what they said.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use chrono::{Local, SecondsFormat, Utc};
use clap::Args;

use super::arguments::Services;
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::cli::Moment;
use crate::clock;
use crate::deployment::{Deployment, DeploymentView};
use crate::docker::ContainerFilter;
use crate::error::{self, Error};
use crate::logs::{self, Archive, LastWords, Line, Matcher, Selection};
use crate::report::{Document, LogLine};
use crate::ui::{Cell, Style};

/// The directory for logs of the application's containers.
const ARCHIVE: &str = "logs";
/// The directory for logs of the databases' containers.
const DATABASE_ARCHIVE: &str = "dblogs";
/// How often to look whether anybody still reads what is followed.
const UNREAD_CHECK: Duration = Duration::from_millis(250);
/// How long a start or stop may be held up by keeping logs, in any case.
const KEEP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a restore may be held up by beginning to listen.
const LISTEN_PATIENCE: Duration = Duration::from_secs(2);
/// The colours of prefixes, service after service.
const COLOURS: [Style; 5] = [Style::Cyan, Style::Yellow, Style::Green, Style::Magenta, Style::Blue];

/// The arguments of `logs` and its five narrower names.
#[derive(Debug, Args)]
#[command(
    after_long_help = "A service is Compose's name, or the manifest's, which stands for all \
        Compose services of its \
image. What containers said that are gone is shown from --since or --today on. Ctrl-C ends it \
    with exit code 130.

Examples:
  dkv logs web -n 100          the newest 100 lines, then what follows
  dkv logs --since 2h --errors errors of the last two hours, also of replaced containers"
)]
struct LogsArguments {
    #[command(flatten)]
    services: Services,
    /// Keep showing new lines [default: on a terminal, unless the end is given]
    #[arg(short, long, overrides_with = "no_follow")]
    follow: bool,
    /// Stop at the newest line
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// Show this many of the newest lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Show lines from this time on: 10m (ago), 2026-01-12, 2026-01-12T12:29:08Z
    #[arg(long, value_name = "TIME", conflicts_with = "today")]
    since: Option<Moment>,
    /// Show lines before this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<Moment>,
    /// Show today's lines
    #[arg(long)]
    today: bool,
    /// Show lines that tell of errors
    #[arg(long)]
    errors: bool,
    /// Show lines that match
    #[arg(long, value_name = "PATTERN")]
    grep: Option<String>,
    /// Show the databases only
    #[arg(long)]
    db: bool,
}

impl LogsArguments {
    /// Whether to go on with new lines; `None` leaves it to the terminal.
    fn follows(&self) -> Option<bool> {
        (self.follow || self.no_follow).then_some(self.follow)
    }
}

/// Makes the commands: `logs`, and its narrower names with what each of them asks for.
macro_rules! commands {
    ($($(#[$help:meta])* $name:ident { $($argument:ident),* })*) => {$(
        $(#[$help])*
        #[derive(Debug, Args)]
        pub struct $name {
            #[command(flatten)]
            arguments: LogsArguments,
        }

        impl Run for $name {
            fn effect(&self) -> Effect {
                Effect::Looks
            }

            fn shows_until_interrupted(&self) -> bool {
                true
            }

            async fn run(self, app: &App) -> Result<Exit> {
                logs(app, LogsArguments { $($argument: true,)* ..self.arguments }).await
            }
        }
    )*};
}

commands! {
    /// Show the logs of all containers, databases included
    Logs {}
    /// Show today's logs, also of containers that are gone
    LogsToday { today }
    /// Show errors in the logs
    LogsErrors { errors }
    /// Show the logs of the databases
    Dblogs { db }
    /// Show today's logs of the databases, also of containers that are gone
    DblogsToday { db, today }
    /// Show errors in the logs of the databases
    DblogsErrors { db, errors }
}

/// `dkv logs` and the shorter names for its variants. Ends with the newest line, or follows until
/// Ctrl-C or until nobody reads any more.
///
/// # Errors
///
/// An unknown service or a malformed pattern (exit 2); the daemon does not answer (exit 6).
async fn logs(app: &App, arguments: LogsArguments) -> Result<Exit> {
    // First, because it is the quickest to refuse.
    let matcher = Matcher::new(arguments.errors, arguments.grep.as_deref())?;
    let deployment = Deployment::open_leniently(app);
    let view = deployment.view().await?;
    let docker = app.docker().await?;
    let containers = docker.containers(&view.filter()).await?;
    let running = containers
        .iter()
        .filter(|one| !one.labels.is_one_off())
        .filter_map(|one| one.labels.service());
    let services = choose(&deployment, view, running, &arguments)?;
    if services.is_empty() {
        let nothing = if arguments.db { "no database services" } else { "no services" };
        app.ui.status(format!("This deployment has {nothing}"));
        return Ok(Exit::Done);
    }
    let now = app.now;
    let since = match arguments.since {
        Some(moment) => Some(moment.seen_from(now)),
        None => arguments.today.then(|| logs::start_of_day(&now.with_timezone(&Local))),
    };
    let until = arguments.until.map(|moment| moment.seen_from(now));
    let follow = arguments.follows().unwrap_or(app.ui.terminals().stdout) && until.is_none();
    let is_here = containers
        .iter()
        .filter_map(|one| one.labels.service())
        .any(|service| services.iter().any(|one| one == service));
    if since.is_none() && !is_here {
        app.ui.note(
            "there are no containers; `dkv logs --since 7d` shows what was kept of those \
            that are gone",
        );
    }
    let width = services.iter().map(String::len).max().unwrap_or_default();
    let [application, databases] = archives(&deployment);
    let selection = Selection {
        services,
        since,
        until,
        tail: arguments.tail.map(|count| count as u64),
        follow,
        matcher,
        archives: vec![application, databases],
    };
    let show = async {
        logs::show(docker, &view.project.name, &selection, Utc::now(), &mut |line| {
            print(app, width, &line)?;
            if app.ui.is_unread() { Err(Unread.into()) } else { Ok(()) }
        })
        .await
    };
    tokio::select! {
        shown = show => match shown {
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
        return app.ui.json_line(&Document::line(&app.command, &line));
    }
    let prefix =
        Cell::new(format!("{:width$} | ", line.label), COLOURS[line.colour % COLOURS.len()]);
    app.ui.data_line(&[prefix, Cell::plain(&line.text)]);
    Ok(())
}

/// The Compose services to show: those that are named, by Compose's name or by the manifest's,
/// which stands for all Compose services of its image; else all of them.
fn choose<'a>(
    deployment: &'a Deployment<'_>,
    view: &'a DeploymentView,
    running: impl Iterator<Item = &'a str>,
    arguments: &LogsArguments,
) -> Result<Vec<String>, Error> {
    let databases = deployment.databases();
    let mut known: Vec<&str> =
        view.project.services.iter().map(|service| service.name.as_str()).collect();
    let others: BTreeSet<&str> =
        running.chain(deployment.described()).filter(|name| !known.contains(name)).collect();
    known.extend(others);
    known.retain(|name| !arguments.db || databases.contains(*name));
    let named = arguments.services.names();
    if named.is_empty() {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    let tracked = deployment.tracked(&view.project);
    let mut chosen = Vec::new();
    for wanted in &named {
        let mut found: Vec<&str> = known.clone();
        found.retain(|name| *name == wanted.as_str());
        if found.is_empty()
            && let Some(service) = deployment.recorded().and_then(|one| one.manifest.find(wanted))
        {
            found.clone_from(&known);
            found.retain(|name| tracked.get(*name).is_some_and(|one| one.name == service.name));
        }
        if found.is_empty() {
            let kind = if arguments.db { "database service" } else { "service" };
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
fn archives(deployment: &Deployment<'_>) -> [Archive; 2] {
    let settings = deployment.recorded().map(|record| record.manifest.logs).unwrap_or_default();
    let directory = deployment.app().store.directory();
    [ARCHIVE, DATABASE_ARCHIVE].map(|name| Archive::new(directory.join(name), settings))
}

/// What is heard of containers that are about to go, until [`Listening::finish`].
#[must_use = "the last words are lost unless it is finished"]
pub(super) struct Listening(Vec<LastWords>);

/// What may be done for the logs of containers that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// They are saved, as far as that can be done soon.
    Saved,
    /// They are only listened to while they go: nothing may wait for them.
    Heard,
}

/// Keeps what containers have said that are about to be removed or replaced: those of the Compose
/// services that `goes` chooses; and listens to their last words. A failure is a warning, because
/// it must not keep anybody from stopping them.
pub(super) async fn keep(
    deployment: &Deployment<'_>,
    project: &str,
    keeping: Keeping,
    goes: impl Fn(&str) -> bool,
) -> Listening {
    let kept = async {
        let databases = deployment.databases();
        let docker = deployment.app().docker().await?;
        let mut containers = docker.containers(&ContainerFilter::project(project)).await?;
        containers.retain(|one| one.labels.service().is_some_and(&goes));
        let (of_databases, of_application): (Vec<_>, Vec<_>) =
            containers.into_iter().partition(|one| {
                one.labels.service().is_some_and(|service| databases.contains(service))
            });
        let now = clock::now().with_timezone(&Local);
        let [application, databases] = archives(deployment);
        let mut listening = Vec::new();
        for (archive, containers) in [(application, of_application), (databases, of_databases)] {
            if !containers.is_empty() {
                if keeping == Keeping::Saved {
                    archive.save(docker, &containers, &now).await;
                }
                listening.push(LastWords::listen(archive, docker, &containers));
            }
        }
        anyhow::Ok(listening)
    };
    let patience = match keeping {
        Keeping::Saved => KEEP_PATIENCE,
        Keeping::Heard => LISTEN_PATIENCE,
    };
    match tokio::time::timeout(patience, kept).await {
        Ok(Ok(listening)) => Listening(listening),
        Ok(Err(error)) => {
            tracing::warn!("the logs of containers that go are not kept: {error:#}");
            Listening(Vec::new())
        }
        Err(_) => {
            tracing::warn!(
                "the logs of containers that go are not kept completely: it took over {} s",
                patience.as_secs()
            );
            Listening(Vec::new())
        }
    }
}

impl Listening {
    /// Keeps the last words too. To be called when Compose has done what it was called for.
    pub(super) async fn finish(self, app: &App) {
        let Ok(docker) = app.docker().await else { return };
        let now = clock::now().with_timezone(&Local);
        for words in self.0 {
            words.save(docker, &now).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: LogsArguments,
    }

    #[test]
    fn the_last_of_follow_and_no_follow_counts() {
        for (words, expected) in [
            (&[][..], None),
            (&["-f", "--no-follow"], Some(false)),
            (&["--no-follow", "-f"], Some(true)),
        ] {
            let line = Line::parse_from(["logs"].iter().chain(words));
            assert_eq!(line.arguments.follows(), expected, "{words:?}");
        }
    }
}
