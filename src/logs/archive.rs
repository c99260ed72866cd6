//! The logs of containers that are gone: one file a day, compressed after some days, then removed.
//!
//! A file holds `TIME LABEL CONTAINER | TEXT` lines. Each time that logs are saved, their lines go
//! in by time; so a file is a row of runs that are each in order.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use chrono::{DateTime, Days, NaiveDate, SecondsFormat, TimeZone, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::filter::days_ago;
use super::merge::{Lines, RawLine, merge};
use super::view::label;
use crate::docker::{Container, ContainerFilter, Docker, LogOptions};
use crate::model::manifest::LogSettings;
use crate::store;

/// What the names of this archive's files begin with: others keep logs by day too, and theirs stay.
const PREFIX: &str = "dkv-";
/// What the files are called that shall take the place of others.
const TEMPORARY: &str = ".saving-";
/// How far the log of each container has been saved.
const PROGRESS: &str = ".saved.json";
/// Logs may hold secrets.
const FILE_MODE: u32 = 0o640;

/// How much is saved at once: somebody waits for the containers to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The last so many lines of each container.
    pub(super) lines: u64,
    /// So many bytes of all containers.
    pub(super) bytes: usize,
    /// How long it may take.
    pub(super) within: Duration,
}

/// What is saved in the ordinary course: all of it, unless that is very much.
const ALL: Bounds = Bounds { lines: 1_000_000, bytes: 64 << 20, within: Duration::from_secs(10) };
/// What is saved of the end where that was too much.
const END: Bounds = Bounds { lines: 5_000, bytes: 8 << 20, within: Duration::from_secs(3) };

/// A directory with the logs of containers that are gone: `logs/`, or `dblogs/` for databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    directory: PathBuf,
    settings: LogSettings,
    bounds: Bounds,
}

impl Archive {
    /// The archive in `directory`, which is made when there is something to save.
    #[must_use]
    pub fn new(directory: PathBuf, settings: LogSettings) -> Self {
        Self { directory, settings, bounds: ALL }
    }

    /// The same that saves less at once.
    #[cfg(test)]
    pub(super) fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Saves what `containers`, which are about to go, have written since it was last saved, and
    /// tidies up: all, or so much as can be had soon, and the end in any case. A failure is a
    /// warning: it must not keep anything from being stopped or replaced.
    ///
    /// Days are those of the zone of `now`.
    pub async fn save<Zone: TimeZone + Sync>(
        &self,
        docker: &Docker,
        containers: &[Container],
        now: &DateTime<Zone>,
    ) where
        Zone::Offset: Send + Sync,
    {
        if let Err(error) = self.append(docker, containers, now).await {
            tracing::warn!(
                "the logs of containers that go are not saved completely in {}: {error:#}",
                self.directory.display()
            );
        }
        if let Err(error) = self.tidy(now) {
            tracing::warn!("{error:#}");
        }
    }

    async fn append<Zone: TimeZone + Sync>(
        &self,
        docker: &Docker,
        containers: &[Container],
        now: &DateTime<Zone>,
    ) -> Result<()> {
        let containers: Vec<&Container> =
            containers.iter().filter(|container| container.labels.service().is_some()).collect();
        if containers.is_empty() {
            return Ok(());
        }
        let is_new = store::look(&self.directory)?.is_none();
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        if is_new {
            let above = self.directory.parent().unwrap_or(Path::new("."));
            crate::store::keep_out_of_git(&self.directory, above);
        }
        let mut progress = self.read_progress();
        let mut copied = self.copy(docker, &containers, &mut progress, self.bounds, now).await?;
        if !copied.is_complete {
            tracing::warn!(
                "the logs of containers that go are more than can be saved soon: only their end is"
            );
            let end = self.copy(docker, &containers, &mut progress, END, now).await?;
            copied.failure = copied.failure.or(end.failure);
            if !end.is_complete {
                copied.failure.get_or_insert_with(|| anyhow!("the daemon is too slow with them"));
            }
        }
        if let Ok(existing) = docker.containers(&ContainerFilter::default()).await {
            let existing: HashSet<String> =
                existing.into_iter().map(|container| container.id).collect();
            progress.retain(|id, _| existing.contains(id));
        }
        self.write_progress(&progress)?;
        copied.failure.map_or(Ok(()), Err)
    }

    /// Copies what `containers` have written since `progress`, in order of time.
    async fn copy<Zone: TimeZone + Sync>(
        &self,
        docker: &Docker,
        containers: &[&Container],
        progress: &mut BTreeMap<String, DateTime<Utc>>,
        bounds: Bounds,
        now: &DateTime<Zone>,
    ) -> Result<Copied> {
        // What is older would be removed at once.
        let oldest = days_ago(now, self.settings.delete_after_days);
        let oldest = oldest.and_time(chrono::NaiveTime::MIN).and_utc();
        let logs = containers.iter().map(|container| {
            let last = progress.get(&container.id).copied();
            let since = Some(last.unwrap_or_default().max(oldest));
            let options = LogOptions { since, tail: Some(bounds.lines), ..LogOptions::default() };
            let origin = origin(container);
            let log = docker.logs(&container.id, &options).try_filter_map(move |line| {
                let time = line.time.filter(|time| last.is_none_or(|last| *time > last));
                std::future::ready(Ok(time.map(|time| RawLine {
                    origin: origin.clone(),
                    time,
                    bytes: line.bytes,
                })))
            });
            Box::pin(log) as Lines
        });
        let mut lines = Box::pin(merge(logs.collect()));
        let mut writer = DayWriter::default();
        let mut copied = Copied { is_complete: true, failure: None };
        let mut bytes = 0;
        let deadline = Instant::now() + bounds.within;
        loop {
            let next = tokio::time::timeout_at(deadline, lines.next()).await;
            copied.is_complete = next.is_ok() && bytes < bounds.bytes;
            let Some((index, line)) = next.ok().flatten().filter(|_| copied.is_complete) else {
                break;
            };
            match line {
                Ok(line) => {
                    let day = line.time.with_timezone(&now.timezone()).date_naive();
                    let written = self.write(&mut writer, day, &line);
                    written
                        .with_context(|| format!("cannot write to {}", self.directory.display()))?;
                    bytes += line.bytes.len();
                    progress.insert(containers[index].id.clone(), line.time);
                }
                Err(error) => {
                    let what = format!("cannot read the log of {}", containers[index].name);
                    copied.failure = Some(error.context(what));
                }
            }
        }
        writer.finish().with_context(|| format!("cannot write to {}", self.directory.display()))?;
        Ok(copied)
    }

    /// Adds lines that are in order, of containers that are gone.
    pub(super) fn add<Zone: TimeZone>(
        &self,
        lines: &[RawLine],
        now: &DateTime<Zone>,
    ) -> Result<()> {
        let mut writer = DayWriter::default();
        for line in lines {
            let day = line.time.with_timezone(&now.timezone()).date_naive();
            self.write(&mut writer, day, line)
                .with_context(|| format!("cannot write to {}", self.directory.display()))?;
        }
        writer.finish().with_context(|| format!("cannot write to {}", self.directory.display()))
    }

    fn write(&self, writer: &mut DayWriter, day: NaiveDate, line: &RawLine) -> io::Result<()> {
        let file = writer.open(&self.directory, day)?;
        write!(
            file,
            "{} {} | ",
            line.time.to_rfc3339_opts(SecondsFormat::Nanos, true),
            line.origin
        )?;
        file.write_all(&line.bytes)?;
        file.write_all(b"\n")
    }

    /// A missing or damaged file only means that lines may be saved twice.
    pub(super) fn read_progress(&self) -> BTreeMap<String, DateTime<Utc>> {
        let found = store::read(&self.directory.join(PROGRESS)).ok().flatten();
        let text = found.map(|found| found.bytes).unwrap_or_default();
        let saved: BTreeMap<String, String> = serde_json::from_slice(&text).unwrap_or_default();
        let times = saved.into_iter().filter_map(|(id, time)| {
            Some((id, DateTime::parse_from_rfc3339(&time).ok()?.to_utc()))
        });
        times.collect()
    }

    fn write_progress(&self, progress: &BTreeMap<String, DateTime<Utc>>) -> Result<()> {
        let saved: BTreeMap<&String, String> = progress
            .iter()
            .map(|(id, time)| (id, time.to_rfc3339_opts(SecondsFormat::Nanos, true)))
            .collect();
        let path = self.directory.join(PROGRESS);
        let text = serde_json::to_vec(&saved).context("cannot write down what was saved")?;
        replace(&path, |file| file.write_all(&text))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Compresses and removes files by the day in their names; touches no others.
    pub(super) fn tidy<Zone: TimeZone>(&self, now: &DateTime<Zone>) -> Result<()> {
        let compress = days_ago(now, self.settings.compress_after_days);
        let delete = days_ago(now, self.settings.delete_after_days);
        for DayFile { day, path, is_compressed } in self.files()? {
            if day < delete {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            } else if day < compress && !is_compressed {
                compress_file(&path)
                    .with_context(|| format!("cannot compress {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The files of this archive, oldest day first.
    fn files(&self) -> Result<Vec<DayFile>> {
        let read = fs::read_dir(&self.directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.with_context(|| format!("cannot read {}", self.directory.display()))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            files.extend(DayFile::new(entry.path()).filter(|_| is_file));
        }
        files.sort();
        Ok(files)
    }

    /// The saved lines from `since` to `until`, as logs that are each in order.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn runs(
        &self,
        since: DateTime<Utc>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<Run>> {
        // A day more on both sides, because the days of the files are those of some zone.
        let first = since.date_naive().checked_sub_days(Days::new(1)).unwrap_or(NaiveDate::MIN);
        let last = until
            .and_then(|until| until.date_naive().checked_add_days(Days::new(1)))
            .unwrap_or(NaiveDate::MAX);
        let mut runs = Vec::new();
        for file in self.files()?.into_iter().filter(|file| (first..=last).contains(&file.day)) {
            runs.extend(
                file.runs().with_context(|| format!("cannot read {}", file.path.display()))?,
            );
        }
        Ok(runs)
    }
}

/// How copying logs ended.
struct Copied {
    /// Whether nothing was left out because of the bounds.
    is_complete: bool,
    /// What of it could not be read.
    failure: Option<anyhow::Error>,
}

/// Who wrote a line: `LABEL CONTAINER`.
pub(super) fn origin(container: &Container) -> Arc<str> {
    let label = label(container.labels.service().unwrap_or_default(), container.labels.number());
    format!("{label} {}", short(&container.id)).into()
}

/// The runs of one file of an archive.
#[cfg(test)]
pub(super) fn runs_of(path: &Path) -> Result<Vec<Run>> {
    DayFile::new(path.to_owned()).map_or(Ok(Vec::new()), |file| file.runs())
}

/// The part of a container ID that people use.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A file of one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DayFile {
    day: NaiveDate,
    path: PathBuf,
    is_compressed: bool,
}

impl DayFile {
    /// `None` for a name that this archive does not give.
    fn new(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        let (stem, is_compressed) = match name.strip_suffix(".log.zst") {
            Some(stem) => (stem, true),
            None => (name.strip_suffix(".log")?, false),
        };
        let day = NaiveDate::parse_from_str(stem, "%Y-%m-%d").ok()?;
        (day.to_string() == stem).then_some(Self { day, path, is_compressed })
    }

    fn runs(&self) -> Result<Vec<Run>> {
        let mut file = store::open_present(&self.path)?;
        if self.is_compressed {
            let mut plain = tempfile::tempfile()?;
            zstd::stream::copy_decode(file, &mut plain)?;
            file = plain;
        }
        Ok(Run::all(file)?)
    }
}

/// A stretch of a file whose lines are in order.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    start: u64,
    length: u64,
}

/// A line of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedLine {
    /// The short ID.
    pub(super) container: String,
    /// With the label as its origin.
    pub(super) line: RawLine,
}

impl SavedLine {
    /// `None` for a line that this archive did not write.
    fn parse(line: &[u8]) -> Option<Self> {
        let end = line.windows(3).position(|part| part == b" | ")?;
        let mut head = std::str::from_utf8(&line[..end]).ok()?.split(' ');
        let (time, label, container) = (head.next()?, head.next()?, head.next()?);
        let time = DateTime::parse_from_rfc3339(time).ok()?.to_utc();
        let line = RawLine { origin: label.into(), time, bytes: line[end + 3..].to_vec() };
        Some(Self { container: container.to_owned(), line })
    }
}

impl Run {
    /// Reads the file once to find where its runs begin.
    fn all(file: File) -> io::Result<Vec<Self>> {
        let mut runs: Vec<Self> = Vec::new();
        let mut latest = None;
        let mut reader = BufReader::new(file.try_clone()?);
        reader.seek(SeekFrom::Start(0))?;
        let mut line = Vec::new();
        let mut offset = 0;
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                return Ok(runs);
            }
            let time = SavedLine::parse(&line).map(|saved| saved.line.time);
            match runs.last_mut().filter(|_| time.is_none() || time >= latest) {
                Some(run) => run.length += length,
                None => runs.push(Self { file: file.try_clone()?, start: offset, length }),
            }
            latest = time.or(latest);
            offset += length;
        }
    }

    /// The lines, oldest first. What the archive did not write is left out.
    pub(super) fn lines(self) -> impl Iterator<Item = io::Result<SavedLine>> + Send {
        let Self { file, start, length } = self;
        // The runs of a file share its position, so each buffer asks for its own place.
        let mut reader = BufReader::new(At { file, offset: start }.take(length));
        std::iter::from_fn(move || {
            loop {
                let mut line = Vec::new();
                match reader.read_until(b'\n', &mut line) {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) => return Some(Err(error)),
                }
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                if let Some(saved) = SavedLine::parse(line) {
                    return Some(Ok(saved));
                }
            }
        })
    }
}

/// A reader with a position of its own.
struct At {
    file: File,
    offset: u64,
}

impl io::Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Appends to the file of one day at a time.
#[derive(Default)]
struct DayWriter(Option<(NaiveDate, BufWriter<File>)>);

impl DayWriter {
    fn open(&mut self, directory: &Path, day: NaiveDate) -> io::Result<&mut BufWriter<File>> {
        if self.0.as_ref().is_some_and(|(open, _)| *open != day) {
            self.finish()?;
        }
        let (_, file) = match self.0.take() {
            Some(open) => self.0.insert(open),
            None => {
                let path = directory.join(format!("{PREFIX}{day}.log"));
                // A pipe that nobody reads from would be waited for.
                let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
                let mut options = OpenOptions::new();
                options.create(true).append(true).mode(FILE_MODE).custom_flags(flags);
                let file = options.open(&path)?;
                if !file.metadata()?.is_file() {
                    return Err(io::Error::other(format!("{} is not a file", path.display())));
                }
                self.0.insert((day, BufWriter::new(file)))
            }
        };
        Ok(file)
    }

    /// The lines are on the disk before the containers that wrote them go.
    fn finish(&mut self) -> io::Result<()> {
        match self.0.take() {
            Some((_, mut file)) => {
                file.flush()?;
                file.get_ref().sync_all()
            }
            None => Ok(()),
        }
    }
}

/// `dkv-DAY.log` to `dkv-DAY.log.zst`; after what is already there, as zstd streams may follow each other.
pub(super) fn compress_file(path: &Path) -> Result<()> {
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".zst");
    let compressed = PathBuf::from(compressed);
    let (before, added) = (store::open(&compressed)?, store::open_present(path)?);
    replace(&compressed, |file| {
        if let Some((mut before, _)) = before {
            io::copy(&mut before, file)?;
        }
        zstd::stream::copy_encode(added, file, zstd::DEFAULT_COMPRESSION_LEVEL)
    })?;
    Ok(fs::remove_file(path)?)
}

/// Puts a complete file in the place of another.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(FILE_MODE))
        .tempfile_in(directory)?;
    write(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}

/// A run as a log, for [`merge`].
pub(super) fn as_lines(lines: impl Iterator<Item = io::Result<RawLine>> + Send + 'static) -> Lines {
    Box::pin(stream::iter(lines.map(|line| line.context("cannot read a saved log"))))
}
