//! The logs of a deployment as one: what was written, in order of time, then what is being written.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::archive::{SavedLine, as_lines, short};
use super::merge::{Lines, RawLine, merge};
use super::{Archive, Line, Matcher, display_safe};
use crate::docker::{
    Action, Container, ContainerFilter, ContainerState, Docker, Event, Labels, LogOptions,
};

/// How long to wait before the daemon is asked again after its events broke off.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// Which lines of which services.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The Compose services, in the order that gives them their colours. Other containers of the
    /// project are not shown.
    pub services: Vec<String>,
    /// Only lines written at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// Only lines written before this moment; then nothing is followed.
    pub until: Option<DateTime<Utc>>,
    /// Only the last so many matching lines of each container.
    pub tail: Option<u64>,
    /// Goes on with new lines, also of containers that are made later.
    pub follow: bool,
    /// Which texts.
    pub matcher: Matcher,
    /// Where the logs of containers are that are gone; looked at if `since` is given.
    pub archives: Vec<Archive>,
}

/// Who gets the lines. An error ends the view.
pub type Sink<'a> = &'a mut (dyn FnMut(Line) -> Result<()> + Send);

/// Shows the logs of a project's containers. `now` is when that begins. With `follow` it ends only
/// with an error, so drop it to end it: there is nothing to clean up.
///
/// # Errors
/// Kind Docker, when the daemon does not answer; an archive that cannot be read; the sink's errors.
/// A single log that cannot be read is a warning.
pub async fn show(
    docker: &Docker,
    project: &str,
    selection: &Selection,
    now: DateTime<Utc>,
    sink: Sink<'_>,
) -> Result<()> {
    let clock = Clock { now, instant: Instant::now() };
    let filter = ContainerFilter::project(project);
    let containers = docker.containers(&filter).await?;
    let view = Viewer { docker, filter, selection, clock };
    let sources = view.history(&containers, sink).await?;
    if selection.follow && selection.until.is_none() {
        view.follow(sources, sink).await?;
    }
    Ok(())
}

/// How a container is called in a log: its service, and its number if it is not the first.
pub(super) fn label(service: &str, number: Option<u32>) -> String {
    match number {
        Some(number) if number > 1 => format!("{service}-{number}"),
        _ => service.to_owned(),
    }
}

/// The place of a label's service among `services`.
fn place(services: &[String], label: &str) -> Option<usize> {
    services.iter().position(|service| service == label).or_else(|| {
        let (name, number) = label.rsplit_once('-')?;
        number.parse::<u32>().ok()?;
        services.iter().position(|service| service == name)
    })
}

/// A container whose log is shown.
#[derive(Debug, Clone)]
struct Source {
    id: String,
    label: Arc<str>,
    /// The time of the last line that was read, shown or not.
    last: Option<DateTime<Utc>>,
    is_attached: bool,
    /// It was started again before its log was read to the end.
    is_restarted: bool,
}

/// What there is to read while following.
enum News {
    Line(String, RawLine),
    /// The log of a container is at its end, or could not be read.
    End(String, Option<anyhow::Error>),
    Event(Event),
    EventsLost,
}

/// All that is followed at once.
type Followed = SelectAll<BoxStream<'static, News>>;

struct Viewer<'a> {
    docker: &'a Docker,
    filter: ContainerFilter,
    selection: &'a Selection,
    clock: Clock,
}

/// The time, counted on from a moment that was given.
struct Clock {
    now: DateTime<Utc>,
    instant: Instant,
}

impl Clock {
    fn now(&self) -> DateTime<Utc> {
        self.now + self.instant.elapsed()
    }
}

impl Viewer<'_> {
    /// The container as a source, if it is one of those that are shown.
    fn source(&self, container: &str, labels: &Labels) -> Option<Source> {
        let service = labels.service().filter(|service| {
            !labels.is_one_off() && self.selection.services.iter().any(|chosen| chosen == service)
        })?;
        Some(Source {
            id: container.to_owned(),
            label: label(service, labels.number()).into(),
            last: None,
            is_attached: false,
            is_restarted: false,
        })
    }

    /// Shows what was written, and gives the containers with how far they have been read.
    async fn history(
        &self,
        containers: &[Container],
        sink: Sink<'_>,
    ) -> Result<HashMap<String, Source>> {
        let mut sources: Vec<Source> =
            containers.iter().filter_map(|one| self.source(&one.id, &one.labels)).collect();
        let mut logs: Vec<Lines> = sources.iter().map(|source| self.written(source)).collect();
        // The log of a container that still exists holds what was saved of it.
        let live = containers.iter().map(|container| short(&container.id).to_owned()).collect();
        logs.extend(self.saved(&live)?);
        let mut lines = Box::pin(merge(logs));
        while let Some((index, line)) = lines.next().await {
            match (line, sources.get_mut(index)) {
                (Ok(line), source) => {
                    if let Some(source) = source {
                        source.last = Some(line.time);
                    }
                    self.show(&line, sink)?;
                }
                (Err(error), Some(source)) => self.complain(source, error).await?,
                (Err(error), None) => return Err(error),
            }
        }
        Ok(sources.into_iter().map(|source| (source.id.clone(), source)).collect())
    }

    /// What a container has written so far.
    fn written(&self, source: &Source) -> Lines {
        let Selection { since, until, tail, matcher, .. } = self.selection;
        // The daemon counts lines whether they match or not.
        let daemon_tail = tail.filter(|_| matcher.is_open());
        let lines = self.read(
            source,
            LogOptions { since: *since, until: *until, tail: daemon_tail, follow: false },
        );
        match tail {
            Some(count) if !matcher.is_open() => {
                let (matcher, count) = (matcher.clone(), *count);
                let last = async move {
                    let mut kept = VecDeque::new();
                    let mut lines = lines;
                    while let Some(line) = lines.try_next().await? {
                        if matcher.matches(&display_safe(&line.bytes)) {
                            keep_last(&mut kept, line, count);
                        }
                    }
                    Ok::<_, anyhow::Error>(stream::iter(kept.into_iter().map(Ok)))
                };
                Box::pin(stream::once(last).try_flatten())
            }
            _ => lines,
        }
    }

    fn read(&self, source: &Source, options: LogOptions) -> Lines {
        let origin = source.label.clone();
        let lines = self.docker.logs(&source.id, &options).try_filter_map(move |line| {
            let line =
                line.time.map(|time| RawLine { origin: origin.clone(), time, bytes: line.bytes });
            std::future::ready(Ok(line))
        });
        Box::pin(lines)
    }

    /// What containers that are gone have written, as logs that are each in order.
    fn saved(&self, live: &HashSet<String>) -> Result<Vec<Lines>> {
        let Selection { services, since: Some(since), until, tail, matcher, archives, .. } =
            self.selection
        else {
            return Ok(Vec::new());
        };
        let (since, until) = (*since, *until);
        let mut logs = Vec::new();
        let mut kept: BTreeMap<String, VecDeque<RawLine>> = BTreeMap::new();
        for archive in archives {
            for run in archive.runs(since, until)? {
                let (live, services) = (live.clone(), services.clone());
                let lines = run.lines().filter(move |line| {
                    let Ok(SavedLine { container, line }) = line else { return true };
                    line.time >= since
                        && until.is_none_or(|until| line.time < until)
                        && !live.contains(container)
                        && place(&services, &line.origin).is_some()
                });
                let Some(count) = tail else {
                    logs.push(as_lines(lines.map(|line| line.map(|saved| saved.line))));
                    continue;
                };
                for saved in lines {
                    let SavedLine { container, line } = saved.context("cannot read a saved log")?;
                    if matcher.matches(&display_safe(&line.bytes)) {
                        keep_last(kept.entry(container).or_default(), line, *count);
                    }
                }
            }
        }
        logs.extend(kept.into_values().map(|lines| as_lines(lines.into_iter().map(Ok))));
        Ok(logs)
    }

    /// Shows what is being written, for as long as the sink takes it.
    async fn follow(&self, mut sources: HashMap<String, Source>, sink: Sink<'_>) -> Result<()> {
        // What has begun by now is in the history or read from here on.
        let mut followed = Followed::new();
        self.reconnect(&mut sources, &mut followed, true).await?;
        while let Some(news) = followed.next().await {
            match news {
                News::Line(id, line) => {
                    if let Some(source) = sources.get_mut(&id) {
                        source.last = Some(line.time);
                    }
                    self.show(&line, sink)?;
                }
                News::End(id, error) => {
                    let Some(source) = sources.get_mut(&id) else { continue };
                    source.is_attached = false;
                    if let Some(error) = error {
                        self.complain(source, error).await?;
                    } else if std::mem::take(&mut source.is_restarted) {
                        self.attach(source, &mut followed, false);
                    }
                }
                News::Event(event) => self.heed(&event, &mut sources, &mut followed),
                News::EventsLost => {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    self.reconnect(&mut sources, &mut followed, false).await?;
                }
            }
        }
        Ok(())
    }

    /// Listens to the daemon's events, and attaches to what runs already.
    async fn reconnect(
        &self,
        sources: &mut HashMap<String, Source>,
        followed: &mut Followed,
        is_first: bool,
    ) -> Result<()> {
        // Since now, because the request goes out only after the list was read.
        let events = self.docker.events(&self.filter, Some(self.clock.now()));
        let events = events.map(|event| event.map_or(News::EventsLost, News::Event));
        followed.push(Box::pin(until_lost(events.boxed())));
        for container in self.docker.containers(&self.filter).await? {
            let Some(new) = self.source(&container.id, &container.labels) else { continue };
            let is_new = !sources.contains_key(&new.id);
            let source = sources.entry(new.id.clone()).or_insert(new);
            // One that has ended since the history was read may have said something in between.
            if (is_first || container.state == ContainerState::Running) && !source.is_attached {
                self.attach(source, followed, is_first && !is_new);
            }
        }
        Ok(())
    }

    /// What an event means for what is followed.
    fn heed(&self, event: &Event, sources: &mut HashMap<String, Source>, followed: &mut Followed) {
        match event.action {
            Action::Start => {}
            Action::Destroy => {
                // Its log may not be at its end yet, and may still be shown.
                sources.retain(|id, source| *id != event.container || source.is_attached);
                return;
            }
            _ => return,
        }
        let Some(new) = self.source(&event.container, &event.labels) else { return };
        let source = sources.entry(event.container.clone()).or_insert(new);
        if source.is_attached {
            source.is_restarted = true;
        } else {
            self.attach(source, followed, false);
        }
    }

    /// Follows a container from where it was read to.
    fn attach(&self, source: &mut Source, followed: &mut Followed, skip_history: bool) {
        source.is_attached = true;
        let last = source.last;
        // Nothing was read of it: either there was nothing, or nothing was asked for.
        let tail = (skip_history && last.is_none() && self.selection.tail == Some(0)).then_some(0);
        let since = last.or(self.selection.since);
        let lines = self.read(source, LogOptions { since, until: None, tail, follow: true });
        let fresh = lines
            .try_filter(move |line| std::future::ready(last.is_none_or(|last| line.time > last)));
        let (id, at_end) = (source.id.clone(), source.id.clone());
        let news = fresh.map(move |line| match line {
            Ok(line) => News::Line(id.clone(), line),
            Err(error) => News::End(id.clone(), Some(error)),
        });
        followed.push(Box::pin(news.chain(stream::once(async { News::End(at_end, None) }))));
    }

    fn show(&self, line: &RawLine, sink: Sink<'_>) -> Result<()> {
        let text = display_safe(&line.bytes);
        if !self.selection.matcher.matches(&text) {
            return Ok(());
        }
        let colour = place(&self.selection.services, &line.origin).unwrap_or_default();
        sink(Line { label: line.origin.to_string(), colour, time: line.time, text })
    }

    /// Warns of a log that cannot be read, unless the container is gone by now.
    ///
    /// # Errors
    /// The daemon is gone.
    async fn complain(&self, source: &Source, error: anyhow::Error) -> Result<()> {
        if self.docker.inspect_container(&source.id).await?.is_some() {
            tracing::warn!("the log of {} cannot be read: {error:#}", source.label);
        }
        Ok(())
    }
}

/// The stream up to its first loss, which is also its natural end.
fn until_lost(events: BoxStream<'static, News>) -> impl Stream<Item = News> {
    let lost = stream::once(async { News::EventsLost });
    events.take_while(|news| std::future::ready(!matches!(news, News::EventsLost))).chain(lost)
}

fn keep_last(kept: &mut VecDeque<RawLine>, line: RawLine, count: u64) {
    kept.push_back(line);
    if kept.len() as u64 > count {
        kept.pop_front();
    }
}
