//! What the daemon tells as it happens: container logs and container events.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use bollard::container::LogOutput;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use chrono::{DateTime, TimeZone as _, Utc};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};

use super::{ContainerFilter, Docker, Labels, failure};

/// Which lines of a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only lines written at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// Only lines written before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Only the last so many; all if absent.
    pub tail: Option<u64>,
    /// Go on with new lines until the container ends.
    pub follow: bool,
}

/// Where a container wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output; also everything that a container with a terminal writes.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written.
    pub stream: LogStream,
    /// When the daemon received it.
    pub time: Option<DateTime<Utc>>,
    /// The line as written, without its end. Neither valid UTF-8 nor free of control characters.
    pub bytes: Vec<u8>,
    /// Whether the line goes on in the stream's next piece: the daemon cuts lines after 16 KiB.
    pub is_cut: bool,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It was made.
    Create,
    /// It was started.
    Start,
    /// It was sent a signal through the daemon, as `docker stop` and `docker kill` do.
    Kill,
    /// Its process ended.
    Die,
    /// The kernel killed a process of it for its memory use.
    OutOfMemory,
    /// Its health check changed its mind.
    HealthStatus,
    /// It was removed.
    Destroy,
}

/// A container event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub time: Option<DateTime<Utc>>,
    /// What happened.
    pub action: Action,
    /// The container's full ID.
    pub container: String,
    /// The container's labels, with the daemon's own attributes: `name`, `image`, `exitCode`.
    pub labels: Labels,
}

impl Docker {
    /// The lines of a container's log, oldest first.
    pub fn logs(
        &self,
        container: &str,
        options: &LogOptions,
    ) -> impl Stream<Item = Result<LogLine>> + Send + use<> {
        let query = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(options.follow)
            .since(options.since.map_or(0, |time| seconds(time.timestamp())))
            // A second more, because the daemon takes whole ones only; the rest is cut off below.
            .until(options.until.map_or(0, |time| seconds(time.timestamp() + 1)))
            .tail(&options.tail.map_or_else(|| "all".to_owned(), |count| count.to_string()))
            .build();
        let endpoint = self.endpoint.clone();
        let what = format!("show the log of {container}");
        let patience = self.deadlines.idle;
        let (since, until) = (options.since, options.until);
        self.client.logs(container, Some(query)).filter_map(move |output| {
            let line = match output {
                Ok(output) => Some(Ok(line(output)))
                    .filter(|line| matches!(line, Ok(line) if within(line.time, since, until))),
                Err(error) => {
                    Some(Err(failure::explain(&endpoint, &what, &error, patience).into()))
                }
            };
            std::future::ready(line)
        })
    }

    /// What happens to matching containers from `since` (or now) on, until the stream is dropped.
    /// Only what [`Action`] names. A reason to look again, not a record: an event may come late, so
    /// whoever waits for something looks at the containers from time to time as well.
    pub fn events(
        &self,
        filter: &ContainerFilter,
        since: Option<DateTime<Utc>>,
    ) -> impl Stream<Item = Result<Event>> + Send + use<> {
        self.events_between(filter, since, None)
    }

    /// As [`Docker::events`], but only until a moment: then the stream ends.
    pub fn events_between(
        &self,
        filter: &ContainerFilter,
        since: Option<DateTime<Utc>>,
        until: Option<DateTime<Utc>>,
    ) -> impl Stream<Item = Result<Event>> + Send + use<> {
        let mut filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        filters.insert(
            "event".to_owned(),
            EVENTS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        );
        if !filter.labels.is_empty() {
            filters.insert("label".to_owned(), filter.labels.clone());
        }
        let mut query = EventsOptionsBuilder::new().filters(&filters);
        let moment = |time: DateTime<Utc>| {
            format!("{}.{:09}", time.timestamp(), time.timestamp_subsec_nanos())
        };
        if let Some(since) = since {
            query = query.since(&moment(since));
        }
        if let Some(until) = until {
            query = query.until(&moment(until));
        }
        let endpoint = self.endpoint.clone();
        let patience = self.deadlines.idle;
        self.client.events(Some(query.build())).filter_map(move |message| {
            std::future::ready(match message {
                Ok(message) => event(message).map(Ok),
                Err(error) => {
                    Some(Err(failure::explain(&endpoint, "report events", &error, patience).into()))
                }
            })
        })
    }
}

impl Docker {
    /// The matching containers that have ended since then, by their IDs, and whether somebody had told
    /// them to: by a stop, or by a signal that ends. The daemon remembers its last events only, so
    /// others may have ended too.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn ends(
        &self,
        filter: &ContainerFilter,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<BTreeMap<String, bool>> {
        let actions = ["stop", "kill", "die"].map(str::to_owned);
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), actions.to_vec()),
            ("label".to_owned(), filter.labels.clone()),
        ]);
        let (since, until) = (since.timestamp().to_string(), until.timestamp().to_string());
        let query =
            EventsOptionsBuilder::new().filters(&filters).since(&since).until(&until).build();
        let request = self.client.events(Some(query)).try_collect::<Vec<_>>();
        let events = self.answer("report events", request).await?;
        let mut ends = BTreeMap::new();
        for event in events {
            let action = event.action.unwrap_or_default();
            let Some(actor) = event.actor else { continue };
            let signal = actor.attributes.as_ref().and_then(|all| all.get("signal"));
            let is_end =
                signal.is_some_and(|signal| ["2", "3", "9", "15"].contains(&signal.as_str()));
            let was_told = action == "stop" || is_end;
            if let Some(id) = actor.id.filter(|_| was_told || action == "die") {
                *ends.entry(id).or_default() |= was_told;
            }
        }
        Ok(ends)
    }
}

/// The daemon's names for what happens to containers.
const EVENTS: [(&str, Action); 7] = [
    ("create", Action::Create),
    ("start", Action::Start),
    ("kill", Action::Kill),
    ("die", Action::Die),
    ("oom", Action::OutOfMemory),
    ("health_status", Action::HealthStatus),
    ("destroy", Action::Destroy),
];

/// bollard carries moments in 32 bits; one beyond them asks for the last that fits.
fn seconds(time: i64) -> i32 {
    i32::try_from(time).unwrap_or(i32::MAX)
}

/// Whether a line's time is within the bounds; without a time, the daemon's choice stands.
fn within(
    time: Option<DateTime<Utc>>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> bool {
    let Some(time) = time else { return true };
    since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
}

/// The daemon's line, `2026-01-02T03:04:05.678901234Z text`, taken apart.
fn line(output: LogOutput) -> LogLine {
    let stream = match output {
        LogOutput::StdErr { .. } => LogStream::Stderr,
        LogOutput::StdOut { .. } | LogOutput::StdIn { .. } | LogOutput::Console { .. } => {
            LogStream::Stdout
        }
    };
    let message = output.into_bytes();
    let is_cut = !message.ends_with(b"\n");
    let end =
        message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    let message = &message[..end];
    let (stamp, text) = match message.iter().position(|byte| *byte == b' ') {
        Some(space) => (&message[..space], &message[space + 1..]),
        None => (message, &b""[..]),
    };
    let time = std::str::from_utf8(stamp).ok().and_then(super::container::moment);
    LogLine { stream, time, bytes: if time.is_some() { text } else { message }.to_vec(), is_cut }
}

/// The event, if it is one of those that were asked for.
fn event(message: EventMessage) -> Option<Event> {
    let action = message.action?;
    // `health_status: healthy` carries the new status.
    let name = action.split(':').next().unwrap_or_default();
    let (_, action) = EVENTS.iter().find(|(known, _)| *known == name)?;
    let actor = message.actor.unwrap_or_default();
    Some(Event {
        time: message.time_nano.map(|time| Utc.timestamp_nanos(time)),
        action: *action,
        container: actor.id.unwrap_or_default(),
        labels: actor.attributes.unwrap_or_default().into_iter().collect(),
    })
}
