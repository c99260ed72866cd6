//! `pin`: digests into Compose files, in place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt as _;

use super::pull_latest::LatestOptions;
use super::{Effect, Run, pull};
use crate::app::{App, Exit};
use crate::compose::{ComposeFiles, ComposeText, FileKind, Problem, ProblemKind, Site};
use crate::deployment::{Deployment, Record};
use crate::error::{self, Error};
use crate::members::Use;
use crate::model::manifest::{DEFAULT_TRACK, Service, Source};
use crate::model::reference::{Digest, Reference, Repository, Tag};
use crate::pin::{self, Answer, Known, Mode, Verdict};
use crate::plan::Outcome;
use crate::registry::ManifestName;
use crate::report::pin::{PinDisagreement, PinnedFile, PinnedImage, Pins};
use crate::report::{self, Changes, ReleaseView};
use crate::store::{self, Replacement, Store};

/// Write digests into Compose files, in place
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  dkv pin --dry-run          show the differences
  dkv pin --check            exit 10 when a file is stale (CI)
  dkv pin --latest           resolve and record first, then write")]
pub struct Pin {
    /// The Compose files [default: all of the directory, and those that they include or extend
    /// inside of it]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Change nothing; exit 10 when a file is stale
    #[arg(long, conflicts_with_all = ["unpin", "latest"])]
    check: bool,
    /// Go back to tags
    #[arg(long, conflicts_with = "latest")]
    unpin: bool,
    /// Resolve and record the tracked tags first
    #[arg(long)]
    latest: bool,
    /// Show the differences, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Pin {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run || self.check)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Self { files, check, unpin, latest, dry_run } = self;
        let mode = if unpin { Mode::Unpin } else { Mode::Pin };
        pin(app, &files, Options { mode, check, latest, dry_run }).await
    }
}

/// What `dkv pin` was asked for.
#[derive(Clone, Copy)]
struct Options {
    mode: Mode,
    /// Only tell, by the exit code.
    check: bool,
    /// Resolve and record the tracked tags first.
    latest: bool,
    /// Show the differences only.
    dry_run: bool,
}

/// A Compose file to pin.
struct Target<'f> {
    text: &'f ComposeText,
    /// Whether the manifest speaks for it.
    is_ours: bool,
}

/// Whether a file stands in the deployment's directory.
fn stands_here(app: &App, text: &ComposeText) -> bool {
    text.snapshot.path.starts_with(Store::resolve(app.store.directory()))
}

/// The digests that registries gave, by repository and tag.
type Resolved = BTreeMap<(Repository, Tag), Digest>;

/// `dkv pin [FILE…]`.
///
/// # Errors
///
/// A file cannot be read, edited or written (exit 3); a registry that has to be asked fails (exit
/// 5).
async fn pin(app: &App, files: &[PathBuf], options: Options) -> Result<Exit> {
    let mut deployment = Deployment::open(app)?;
    let mut report = Pins { dry_run: options.dry_run || options.check, ..Pins::default() };
    if options.latest && deployment.recorded().is_some() {
        record_latest(&mut deployment, options.dry_run, &mut report).await?;
    }
    let named = ComposeFiles::named(app.store.directory(), files);
    let read = if files.is_empty() {
        deployment.read_beside()?;
        deployment.texts()?
    } else {
        &named
    };
    let texts: Vec<Target<'_>> = wanted(app, read, files)?
        .into_iter()
        .map(|text| Target { text, is_ours: files.is_empty() || stands_here(app, text) })
        .collect();
    for Target { text, .. } in &texts {
        if let Some(by) = &text.named_by {
            let by = by.display();
            app.ui.status(format!("{} is taken as well: {by} names it", text.name()));
        }
    }
    let record = deployment.recorded();
    let resolved = resolve(app, &texts, record, options.mode).await?;
    let verdicts: Vec<Vec<Verdict>> =
        texts.iter().map(|text| judge(text, options.mode, record, &resolved)).collect();
    report.disagreements =
        disagreements(&texts.iter().map(|target| target.text).collect::<Vec<_>>());
    let is_wrong = |verdicts: &Vec<Verdict>| verdicts.iter().any(Verdict::is_wrong);
    report.current = report.disagreements.is_empty() && !verdicts.iter().any(is_wrong);
    if !options.check {
        refuse(&texts, &verdicts)?;
    }
    let mut changes = Vec::new();
    for (Target { text, .. }, verdicts) in texts.iter().zip(&verdicts) {
        let wanted = text
            .sites
            .iter()
            .zip(verdicts)
            .filter_map(|(site, verdict)| Some((site.as_ref(), verdict.wanted()?)));
        let new = pin::rewrite(text, &wanted.collect::<Vec<_>>())
            .map_err(|error| unreadable(&text.name(), &error.to_string()))?;
        let mut file = file_report(text, verdicts);
        file.diff = (options.dry_run && new != text.document.source())
            .then(|| difference(&text.name(), text.document.source(), &new));
        report.files.push(file);
        changes.push(new);
    }
    if !report.dry_run {
        write(app, &texts, changes, &mut report)?;
    }
    app.show(&report, |report| tell(app, report, options))?;
    Ok(if options.check && !report.current { Exit::Different } else { Exit::Done })
}

/// Records what the tracked tags name now; with `dry_run`, only in memory.
async fn record_latest(
    deployment: &mut Deployment<'_>,
    dry_run: bool,
    report: &mut Pins,
) -> Result<()> {
    let record = deployment.record()?;
    if !dry_run {
        record.check_writable(&deployment.app().store)?;
    }
    let services: Vec<&Service> = record.services().collect();
    let options = LatestOptions { no_pull: true, dry_run, ..LatestOptions::default() };
    let mut change = pull::plan_latest(deployment, &services, options).await?;
    if change.has_failed() {
        change.check(false, "nothing was recorded and no file was changed")?;
    }
    let Changes { services, files, .. } = match dry_run {
        true => change.preview(deployment.record()?),
        false => change.commit(deployment)?,
    };
    (report.services, report.recorded) = (services, files);
    deployment.assume(change.steps.into_iter().map(|step| step.after));
    Ok(())
}

/// Which of `files` are Compose files to look at: those named, or all inside of the directory.
///
/// # Errors
///
/// A file does not exist, cannot be read or is no YAML (exit 3). A file that is only named like a
/// Compose file is left alone with a warning.
pub(super) fn wanted<'f>(
    app: &App,
    files: &'f ComposeFiles,
    named: &[PathBuf],
) -> Result<Vec<&'f ComposeText>> {
    let directory = app.store.directory();
    let home = Store::resolve(directory);
    let manifest = Store::resolve(app.store.manifest_path());
    let is_outside = |path: &Path, by: Option<&PathBuf>| by.is_some() && !path.starts_with(&home);
    let leave = |file: &Path, by: Option<&PathBuf>| {
        let by = by.map_or_else(String::new, |by| format!(", which {} names,", by.display()));
        app.ui.note(format!(
            "{}{by} is left alone: it is outside of the deployment's directory",
            file.display()
        ));
    };
    for problem in files.problems() {
        let by = problem.named_by.as_ref();
        match problem.kind {
            ProblemKind::Missing => {
                let error = missing(problem, directory);
                if problem.is_certain {
                    return Err(error.into());
                }
                tracing::warn!("{error}");
            }
            ProblemKind::Unreadable => return Err(problem.error().into()),
            ProblemKind::Invalid => {
                let path = Store::resolve(&problem.path);
                if path == manifest && named.is_empty() {
                    continue;
                }
                if is_outside(&path, by) {
                    leave(&problem.file, by);
                } else if problem.is_certain {
                    return Err(
                        unreadable(&problem.file.display().to_string(), &problem.why).into()
                    );
                } else {
                    tracing::warn!("{} is left alone: {}", problem.file.display(), problem.why);
                }
            }
            _ => {}
        }
    }
    let mut wanted: Vec<&ComposeText> = Vec::new();
    let mut left: BTreeSet<&Path> = BTreeSet::new();
    for text in files.texts() {
        let (name, path) = (text.name(), &text.snapshot.path);
        let by = text.named_by.as_ref();
        if *path == manifest {
            if named.is_empty() {
                continue;
            }
            return Err(error::usage(format!(
                "{name} is the deployment's manifest, not a Compose file; no file was changed"
            ))
            .with_hint("name Compose files only, or none for all of the directory")
            .into());
        }
        if is_outside(path, by) || by.is_some_and(|by| left.contains(by.as_path())) {
            left.insert(&text.file);
            leave(&text.file, by);
            continue;
        }
        match text.kind {
            FileKind::Compose => {}
            kind if !named.is_empty() => return Err(no_compose_file(&name, kind).into()),
            FileKind::FirstFormat => {
                app.ui.warn(format!("{name} is left alone: {FIRST_FORMAT}"));
                continue;
            }
            FileKind::Manifest => continue,
            FileKind::Other => {}
        }
        wanted.push(text);
    }
    if wanted.is_empty() {
        return Err(error::state(format!("no Compose file in {}", directory.display()))
            .with_hint("name the files, or the deployment's directory with -C")
            .into());
    }
    Ok(wanted)
}

/// What is said of a file that is not there.
fn missing(problem: &Problem, directory: &Path) -> Error {
    let path = problem.path.display();
    let Some(by) = problem.named_by.as_ref().map(|by| by.display()) else {
        return error::state(format!("the Compose file {path} does not exist")).with_hint(format!(
            "name files that exist, or none for all Compose files of {}",
            directory.display()
        ));
    };
    error::state(format!("the Compose file {path}, which {by} names, does not exist"))
        .with_hint(format!("mend {by}, or name the files to pin: `dkv pin FILE…`"))
}

const FIRST_FORMAT: &str =
    "it is in Compose's first file format, without `services:`, which only Compose v1 reads";

/// What is said of a file that `pin` was asked to edit and does not.
fn no_compose_file(name: &str, kind: FileKind) -> Error {
    let (why, hint) = match kind {
        FileKind::FirstFormat => (
            FIRST_FORMAT,
            "put everything below a line `services:`, two columns to the right; both Composes \
                read that",
        ),
        FileKind::Manifest => (
            "it is a version manifest",
            "name Compose files only, or none for all of the directory",
        ),
        FileKind::Compose | FileKind::Other => (
            "it has no `services` with an `image` or a `build`",
            "name Compose files only, or none for all of the directory",
        ),
    };
    error::state(format!(
        "{name} is no Compose file that can be pinned: {why}; no file was changed"
    ))
    .with_hint(hint)
}

fn unreadable(file: &str, why: &str) -> Error {
    error::state(format!("{file}, {why}")).with_hint("no file was changed; mend that line")
}

/// Asks the registries for what the manifest does not answer: all images of files that belong to
/// none.
async fn resolve(
    app: &App,
    texts: &[Target<'_>],
    record: Option<&Record>,
    mode: Mode,
) -> Result<Resolved> {
    if mode == Mode::Unpin {
        return Ok(Resolved::new());
    }
    let mut wanted = BTreeSet::new();
    for Target { text, .. } in texts.iter().filter(|one| record.is_none() || !one.is_ours) {
        for site in text.sites.iter().filter(|site| !site.has_build && !site.image.contains('$')) {
            let Ok(reference) = site.image.parse::<Reference>() else { continue };
            wanted.insert(named(&reference)?);
        }
    }
    app.registry().expect(wanted.iter().map(|(repository, _)| repository));
    let requests = wanted.iter().map(|(repository, tag)| async move {
        let described = app.registry().head(repository, &ManifestName::Tag(tag.clone())).await;
        described.map_err(|error| anyhow::Error::from(Error::from(error)))
    });
    let answers: Vec<Result<_>> = futures_util::stream::iter(requests)
        .buffered(app.settings.jobs.get().max(8))
        .collect()
        .await;
    let mut resolved = Resolved::new();
    let mut failures = Vec::new();
    for (name, answer) in wanted.iter().cloned().zip(answers) {
        match answer {
            Ok(described) => {
                resolved.insert(name, described.digest);
            }
            Err(error) => failures.push(error),
        }
    }
    let total = wanted.len();
    error::together(failures, total, "no file was changed")?;
    Ok(resolved)
}

/// What to ask a registry for: the tag that is written, else the one that none means.
fn named(reference: &Reference) -> Result<(Repository, Tag)> {
    let tag = match &reference.tag {
        Some(tag) => tag.clone(),
        None => DEFAULT_TRACK.parse()?,
    };
    Ok((reference.repository.clone(), tag))
}

fn judge(
    Target { text, is_ours }: &Target<'_>,
    mode: Mode,
    record: Option<&Record>,
    resolved: &Resolved,
) -> Vec<Verdict> {
    let ask = |compose_service: &str, reference: &Reference| match record.filter(|_| *is_ours) {
        Some(record) => recorded(record, compose_service, reference),
        None => named(reference).map_or(Answer::Untracked, |name| {
            let digest = resolved.get(&name).cloned();
            Answer::Known(Known { tag: name.1, digest, keeps_tag: true })
        }),
    };
    text.sites.iter().map(|site| pin::judge(site, mode, ask)).collect()
}

/// The verdicts of the manifest on the images of a file.
pub(super) fn judge_recorded(text: &ComposeText, record: &Record) -> Vec<Verdict> {
    let target = Target { text, is_ours: true };
    judge(&target, Mode::Pin, Some(record), &Resolved::new())
}

/// What the manifest says that `compose_service` should run, if that is what the file names.
fn recorded(record: &Record, compose_service: &str, reference: &Reference) -> Answer {
    let member = record.members().find(&Use {
        image: Some(reference),
        platform: record.platform(compose_service),
        ..Use::named(compose_service)
    });
    let service = member.service().and_then(|name| record.service(name));
    let Some(service) =
        service.filter(|service| service.image.as_ref() == Some(&reference.repository))
    else {
        return Answer::Untracked;
    };
    if service.source == Source::Local {
        return Answer::Local;
    }
    let current = service.current();
    let of_digest =
        || {
            service.history.entries().iter().find(|entry| {
                entry.bytes.digest.is_some() && entry.bytes.digest == reference.digest
            })
        };
    let written =
        reference.digest.as_ref().and_then(|_| of_digest()).filter(|_| reference.tag.is_none());
    let Some(tag) = written
        .or(current)
        .map(|release| release.tag.clone())
        .or_else(|| service.track_name().parse().ok())
    else {
        return Answer::Untracked;
    };
    let keeps_tag = reference.tag.as_ref().is_some_and(|tag| service.is_moving(tag));
    Answer::Known(Known {
        tag,
        digest: current.and_then(|current| current.bytes.digest.clone()),
        keeps_tag,
    })
}

/// Ends with the first image that must be rewritten and cannot be.
fn refuse(texts: &[Target<'_>], verdicts: &[Vec<Verdict>]) -> Result<()> {
    let all = texts.iter().zip(verdicts).flat_map(|(Target { text, .. }, verdicts)| {
        text.sites.iter().zip(verdicts).map(move |pair| (text, pair))
    });
    for (text, (site, verdict)) in all {
        if let Verdict::Refused(why) = verdict {
            let message = format!(
                "{}, {}: `{}` cannot be pinned: {why}",
                text.name(),
                site.position,
                site.image
            );
            return Err(error::state(message).with_hint("no file was changed").into());
        }
    }
    Ok(())
}

/// The images to which `texts` give different digests.
pub(super) fn disagreements(texts: &[&ComposeText]) -> Vec<PinDisagreement> {
    let places = texts
        .iter()
        .flat_map(|text| text.sites.iter().map(|site| (site.place(), site.image.as_str())));
    let found = pin::disagreements(places).into_iter().map(|one| PinDisagreement {
        image: one.image,
        digests: one
            .digests
            .into_iter()
            .map(|(digest, places)| (digest.to_string(), places))
            .collect(),
    });
    found.collect()
}

fn file_report(text: &ComposeText, verdicts: &[Verdict]) -> PinnedFile {
    let image = |(site, verdict): (&Arc<Site>, &Verdict)| PinnedImage {
        line: site.position.line,
        compose_services: site.compose_services.clone(),
        image: site.image.clone(),
        wanted: verdict.wanted().map(str::to_owned),
        state: verdict.word(),
    };
    let images = text.sites.iter().zip(verdicts).map(image).collect();
    PinnedFile { file: text.name(), written: false, backup: None, diff: None, images }
}

fn difference(name: &str, old: &str, new: &str) -> String {
    let (before, after) = (format!("a/{name}"), format!("b/{name}"));
    similar::TextDiff::from_lines(old, new).unified_diff().header(&before, &after).to_string()
}

/// Backs the changed files up and replaces them; those of one directory all or none.
fn write(app: &App, texts: &[Target<'_>], new: Vec<String>, report: &mut Pins) -> Result<()> {
    let changed: Vec<(usize, String)> = new
        .into_iter()
        .enumerate()
        .filter(|(index, new)| new != texts[*index].text.document.source())
        .collect();
    // A file from elsewhere has its backups beside it.
    let mut groups: BTreeMap<PathBuf, Vec<(usize, String)>> = BTreeMap::new();
    for (index, text) in changed {
        let beside = texts[index].text.snapshot.path.parent().unwrap_or(Path::new("."));
        let directory = if texts[index].is_ours { app.store.directory() } else { beside };
        groups.entry(directory.to_owned()).or_default().push((index, text));
    }
    for (directory, group) in groups {
        let store = Store::new(directory.clone(), app.store.manifest_path().to_owned());
        {
            let lock = app.lock_state_of(&store)?;
            let stamp = app.backup_stamp();
            let mut replacements = Vec::new();
            for (index, text) in group {
                let old = &texts[index].text.snapshot;
                if store::read(&old.path)?.as_ref() != Some(old) {
                    let message = format!(
                        "{} was changed while this command ran; it was not written",
                        texts[index].text.name()
                    );
                    return Err(error::state(message).with_hint("run the command again").into());
                }
                let name = old
                    .path
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                let backup = store.back_up(&lock, &name, &old.bytes, &stamp)?;
                report.files[index].backup = Some(backup.display().to_string());
                report.files[index].written = true;
                replacements.push(Replacement {
                    path: old.path.clone(),
                    bytes: text.into_bytes(),
                    before: Some(old.clone()),
                    owner_like: directory.clone(),
                });
            }
            store::replace_all(&replacements)?;
        }
    }
    Ok(())
}

/// The report for people: what changes, then what is left alone and why.
fn tell(app: &App, report: &Pins, options: Options) {
    for change in report
        .services
        .iter()
        .filter(|change| matches!(change.outcome, Outcome::Updated | Outcome::Relabelled))
    {
        let release = |view: &Option<ReleaseView>| {
            view.as_ref().map_or_else(|| "nothing".to_owned(), ReleaseView::short)
        };
        app.ui.status(format!(
            "{}: {} → {}",
            change.name,
            release(&change.from),
            release(&change.to)
        ));
    }
    for file in &report.files {
        for image in &file.images {
            let place = format!("{}:{}", file.file, image.line);
            let line = match (image.state, &image.wanted) {
                ("stale", Some(wanted)) if options.check => {
                    format!("{place}: stale: {} should be {wanted}", image.image)
                }
                ("loose", Some(wanted)) if options.check => {
                    format!("{place}: not pinned: {} should be {wanted}", image.image)
                }
                (_, Some(_)) if options.dry_run => continue,
                (_, Some(wanted)) => format!("{place}: {} → {wanted}", image.image),
                ("unrecorded", _) => format!(
                    "{place}: no digest is recorded for {}; `dkv pull-latest` records one",
                    image.image
                ),
                ("refused", _) => {
                    format!("{place}: {} cannot be pinned where it stands", image.image)
                }
                ("current", _) => continue,
                (state, _) => {
                    app.ui.note(format!(
                        "{place}: {} is left alone{}",
                        image.image,
                        why_alone(state)
                    ));
                    continue;
                }
            };
            app.ui.data(line);
        }
        if let Some(diff) = &file.diff {
            app.ui.data(diff.trim_end_matches('\n'));
        }
    }
    for disagreement in &report.disagreements {
        let sides = disagreement.digests.iter().map(|(digest, places)| {
            format!("{} in {}", report::short_digest(digest), places.join(", "))
        });
        let line = format!(
            "{} is pinned to different digests: {}",
            disagreement.image,
            sides.collect::<Vec<_>>().join("; ")
        );
        if options.check { app.ui.data(line) } else { app.ui.note(line) }
    }
    let changed = report
        .files
        .iter()
        .filter(|file| file.images.iter().any(|image| image.wanted.is_some()))
        .count();
    app.ui.status(match (changed, options.check, options.dry_run) {
        (_, true, _) if report.current => "Every Compose file is up to date".to_owned(),
        (_, true, _) => "`dkv pin` brings the files up to date".to_owned(),
        (0, ..) => "Nothing to change".to_owned(),
        (count, _, true) => format!("would write {count} {}", files(count)),
        (count, ..) => format!("Wrote {count} {}", files(count)),
    });
}

fn files(count: usize) -> &'static str {
    if count == 1 { "file" } else { "files" }
}

fn why_alone(state: &str) -> &'static str {
    match state {
        "interpolated" => ": it has variables, which `versions.env` sets",
        "built" => ": it is built here",
        "local" => ": it is a local build",
        "untracked" => ": the manifest does not know it",
        "invalid" => ": it is not an image name",
        _ => "",
    }
}
