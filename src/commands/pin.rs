//! `pin`: digests into Compose files, in place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt as _;

use super::arguments::Elsewhere;
use super::pull_latest::LatestOptions;
use super::{Effect, Run, changes, pull};
use crate::app::{App, Exit};
use crate::cli::platform;
use crate::compose::{ComposeFiles, ComposeText, FileKind, Problem, ProblemKind, Site};
use crate::deployment::{Deployment, Record};
use crate::error::{self, Error};
use crate::lookup::Proof;
use crate::members::{Differs, Membership, Use};
use crate::model::manifest::{DEFAULT_TRACK, Service, Source};
use crate::model::reference::{Digest, Platform, Reference, Repository, ServiceName, Tag};
use crate::pin::memory::Memory;
use crate::pin::{self, Answer, Known, Verdict};
use crate::plan::Outcome;
use crate::registry::ManifestName;
use crate::report::pin::{PinDisagreement, PinnedFile, PinnedImage, Pins};
use crate::report::{self, Changes, ReleaseView};
use crate::store::{self, Replacement, Snapshot, Store};

/// Write digests into Compose files, in place
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  dkv pin --dry-run          show the differences
  dkv pin --check            exit 10 when a file is stale (CI)
  dkv pin --latest           resolve and record first, then write
  dkv pin --unpin            give back what stood there before")]
pub struct Pin {
    /// The Compose files [default: those of the deployment, and those that they include or extend
    /// inside of its directory]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Change nothing; exit 10 when a file is stale
    #[arg(long, conflicts_with_all = ["unpin", "latest"])]
    check: bool,
    /// Give back what stood there before `pin`; where that is not known, the tag
    #[arg(long, conflicts_with = "latest")]
    unpin: bool,
    /// Resolve and record the tracked tags first
    #[arg(long)]
    latest: bool,
    /// With --latest, the platform of the machine that will run it, such as linux/arm64
    /// [default: this one's]
    #[arg(long, value_name = "PLATFORM", value_parser = platform, requires = "latest")]
    platform: Option<Platform>,
    /// Show the differences, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run for Pin {
    fn effect(&self) -> Effect {
        if self.check { Effect::Looks } else { Effect::unless(self.dry_run) }
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Self { files, check, unpin, latest, platform, dry_run } = self;
        pin(app, &files, Options { unpin, check, latest, platform: platform.as_ref(), dry_run })
            .await
    }
}

/// What `dkv pin` was asked for.
#[derive(Clone, Copy)]
struct Options<'a> {
    /// Give back what stood there before.
    unpin: bool,
    /// Only tell, by the exit code.
    check: bool,
    /// Resolve and record the tracked tags first.
    latest: bool,
    /// For which machine.
    platform: Option<&'a Platform>,
    /// Show the differences only.
    dry_run: bool,
}

/// What a file is to the deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// One of its files.
    Deployed,
    /// Another one in its directory: perhaps of another deployment of the same images.
    Beside,
    /// It stands elsewhere.
    Elsewhere,
}

/// A Compose file to pin.
struct Target<'f> {
    text: &'f ComposeText,
    standing: Standing,
    /// The Compose services of each of its sites.
    users: Vec<Vec<String>>,
    /// The file as its directory remembers it.
    key: String,
}

impl<'f> Target<'f> {
    /// What `text` is to the deployment in `home`, links resolved, whose files are `deployed`.
    fn of(home: &Path, text: &'f ComposeText, deployed: Option<&ComposeFiles>) -> Self {
        let twin = deployed.and_then(|read| {
            let mut texts = read.texts().filter(|one| read.is_deployed(one));
            Some((read, texts.find(|one| one.snapshot.path == text.snapshot.path)?))
        });
        let standing = match twin {
            Some(_) => Standing::Deployed,
            None if text.snapshot.path.starts_with(home) => Standing::Beside,
            None => Standing::Elsewhere,
        };
        let users = |site: &Arc<Site>| {
            let twin = twin.and_then(|(read, twin)| {
                let same = twin.sites.iter().find(|one| one.span == site.span)?;
                Some(read.users(same))
            });
            twin.unwrap_or_else(|| site.compose_services.clone())
        };
        let path = &text.snapshot.path;
        let beside = if standing == Standing::Elsewhere { path.parent() } else { Some(home) };
        let inside = beside.and_then(|beside| path.strip_prefix(beside).ok()).unwrap_or(path);
        let key = inside.display().to_string();
        Self { text, standing, users: text.sites.iter().map(users).collect(), key }
    }

    /// The directory that has the file's backups: of a file from elsewhere its own.
    fn home(&self, app: &'f App) -> PathBuf {
        match (self.standing, self.text.snapshot.path.parent()) {
            (Standing::Elsewhere, Some(beside)) => beside.to_owned(),
            _ => app.store.directory().to_owned(),
        }
    }
}

/// The digests that registries gave, by repository and tag.
type Resolved = BTreeMap<(Repository, Tag), Digest>;

/// `dkv pin [FILE…]`.
///
/// # Errors
///
/// A file cannot be read, edited or written (exit 3); a registry that has to be asked fails (exit
/// 5).
async fn pin(app: &App, files: &[PathBuf], options: Options<'_>) -> Result<Exit> {
    let mut deployment = Deployment::open(app)?;
    let mut report = Pins { dry_run: options.dry_run || options.check, ..Pins::default() };
    let mut put_off = Vec::new();
    if options.latest && deployment.recorded().is_some() {
        put_off = record_latest(&mut deployment, options, &mut report).await?;
    }
    let named = ComposeFiles::named(app.store.directory(), files);
    if files.is_empty() {
        deployment.read_beside()?;
    }
    let deployed = match deployment.texts() {
        Ok(texts) => Some(texts.as_ref()),
        Err(error) if error::is_missing(&error) => None,
        Err(error) => return Err(error),
    };
    let read = match deployed {
        Some(deployed) if files.is_empty() => deployed,
        _ => &named,
    };
    let texts = wanted(app, read, files)?;
    let home = store::resolve(app.store.directory())?;
    let texts: Vec<Target<'_>> =
        texts.into_iter().map(|text| Target::of(&home, text, deployed)).collect();
    for Target { text, .. } in &texts {
        if let Some(by) = &text.named_by {
            let by = by.display();
            app.ui.status(format!("{} is taken as well: {by} names it", text.name()));
        }
    }
    let record = deployment.recorded();
    let (built, unseen) = (built(&texts), BTreeMap::new());
    let mut judge = Judge { deployment: &deployment, record, built, unseen };
    let memories = if options.check { Memories::default() } else { Memories::read(app, &texts)? };
    let verdicts: Vec<Vec<Verdict>> = if options.unpin {
        texts.iter().map(|text| judge.unpin(app, text, &memories)).collect()
    } else {
        let resolved = judge.resolve(app, &texts).await?;
        judge.unseen = judge.prove(app, &texts).await;
        texts.iter().map(|text| judge.pin(text, &resolved)).collect()
    };
    if files.is_empty() {
        report.beside = beside(read, record);
    }
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
        write(app, &texts, changes, memories, options, &mut report)?;
    }
    app.show(&report, |report| tell(app, report, options))?;
    Ok(match changes::end(app, put_off) {
        _ if options.check && !report.current => Exit::Different,
        // What `--check` would find right afterwards is not done.
        Exit::Done if lacks_digests(&report) => Exit::Partial,
        exit => exit,
    })
}

/// Records what the tracked tags name now; with `dry_run`, only in memory. Returns what was put off.
async fn record_latest(
    deployment: &mut Deployment<'_>,
    options: Options<'_>,
    report: &mut Pins,
) -> Result<Vec<anyhow::Error>> {
    let (record, dry_run) = (deployment.record()?, options.dry_run);
    if !dry_run {
        record.check_writable(&deployment.app().store)?;
    }
    let services: Vec<&Service> = record.services().collect();
    let elsewhere = Elsewhere { no_pull: true, platform: options.platform.cloned() };
    let options = LatestOptions { elsewhere, dry_run, ..LatestOptions::default() };
    let mut change = pull::plan_latest(deployment, &services, &options).await?;
    change.check(false, "nothing was recorded and no file was changed")?;
    let put_off = change.take_failures();
    let Changes { services, files, .. } = match dry_run {
        true => change.preview(deployment.record()?),
        false => change.commit(deployment)?,
    };
    (report.services, report.recorded) = (services, files);
    deployment.assume(change.steps.into_iter().map(|step| step.after));
    Ok(put_off)
}

/// Which of `files` are Compose files to look at: those named, or the deployment's inside of its
/// directory.
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
    let home = store::resolve(directory)?;
    let manifest = store::resolve(app.store.manifest_path())?;
    let is_outside = |path: &Path, by: Option<&PathBuf>| by.is_some() && !path.starts_with(&home);
    let leave = |file: &Path, by: Option<&PathBuf>| {
        let by = by.map_or_else(String::new, |by| format!(", which {} names,", by.display()));
        app.ui.note(format!(
            "{}{by} is left alone: it is outside of the deployment's directory",
            file.display()
        ));
    };
    let needed = files.problems().iter().filter(|one| !named.is_empty() || one.is_needed());
    for problem in needed {
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
                let path = store::resolve(&problem.path)?;
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
        if named.is_empty() && !files.is_deployed(text) {
            continue;
        }
        if *path == manifest {
            if named.is_empty() {
                continue;
            }
            return Err(error::usage(format!(
                "{name} is the deployment's manifest, not a Compose file; no file was changed"
            ))
            .with_hint("name Compose files only, or none for those of the deployment")
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
        let others =
            files.texts().filter(|text| text.kind == FileKind::Compose && named.is_empty());
        let others: Vec<String> = others.map(ComposeText::name).collect();
        let hint = match others.is_empty() {
            true => "name the files, or the deployment's directory with -C".to_owned(),
            false => {
                format!("Compose takes none by itself; name it: `dkv pin {}`", others.join(" "))
            }
        };
        let error = error::state(format!("no Compose file in {}", directory.display()));
        return Err(error.with_hint(hint).into());
    }
    Ok(wanted)
}

/// What is said of a file that is not there.
fn missing(problem: &Problem, directory: &Path) -> Error {
    let path = problem.path.display();
    let Some(by) = problem.named_by.as_ref().map(|by| by.display()) else {
        return error::state(format!("the Compose file {path} does not exist")).with_hint(format!(
            "name files that exist, or none for those of the deployment in {}",
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
            "name Compose files only, or none for those of the deployment",
        ),
        FileKind::Compose | FileKind::Other => (
            "it has no `services` with an `image` or a `build`",
            "name Compose files only, or none for those of the deployment",
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

/// The images that services of these files build, by repository and tag.
fn built(texts: &[Target<'_>]) -> BTreeSet<(Repository, Tag)> {
    let sites = texts.iter().flat_map(|target| &target.text.sites).filter(|site| site.has_build);
    let images = sites.filter_map(|site| named(&site.image.parse().ok()?).ok());
    images.collect()
}

/// The Compose files beside the deployment's that name its images, with what pins them.
fn beside(read: &ComposeFiles, record: Option<&Record>) -> Vec<String> {
    let Some(record) = record else { return Vec::new() };
    let is_tracked = |site: &Arc<Site>| {
        let image = site.image.parse::<Reference>().ok().map(|image| image.repository);
        image.is_some() && record.services().any(|service| service.image == image)
    };
    let others = read.texts().filter(|text| !read.is_deployed(text) && text.named_by.is_none());
    let naming = others.filter(|text| text.sites.iter().any(is_tracked));
    naming.map(ComposeText::name).collect()
}

/// The memories of the directories that have the files.
#[derive(Default)]
struct Memories(BTreeMap<PathBuf, (Memory, Option<Snapshot>)>);

impl Memories {
    fn read(app: &App, texts: &[Target<'_>]) -> Result<Self> {
        let mut memories = BTreeMap::new();
        for home in texts.iter().map(|text| text.home(app)) {
            if memories.contains_key(&home) {
                continue;
            }
            let store = Store::new(home.clone(), app.store.manifest_path().to_owned());
            let found = store.read_pins()?;
            let memory = match &found {
                Some(found) => Memory::parse(&found.bytes).map_err(|error| {
                    let path = found.path.display();
                    error::state(format!("`{path}`: {error:#}"))
                        .with_hint(format!("move {path} away; `--unpin` then goes back to tags"))
                })?,
                None => Memory::default(),
            };
            memories.insert(home, (memory, found));
        }
        Ok(Self(memories))
    }
}

/// Who says what the images of files should be.
pub(super) struct Judge<'d, 'a> {
    deployment: &'d Deployment<'a>,
    record: Option<&'d Record>,
    built: BTreeSet<(Repository, Tag)>,
    /// The services whose digest in the manifest shows by nothing to be one, and what came of the
    /// question.
    unseen: BTreeMap<ServiceName, Proof>,
}

impl Judge<'_, '_> {
    /// Finds out whether what the manifest has as digests for these files, and nobody has seen, are
    /// digests. Where all have been seen, nobody is asked.
    async fn prove(&self, app: &App, texts: &[Target<'_>]) -> BTreeMap<ServiceName, Proof> {
        let Some(record) = self.record else { return BTreeMap::new() };
        let mut unseen: BTreeMap<&ServiceName, (&Service, &Digest)> = BTreeMap::new();
        for target in texts.iter().filter(|target| target.standing != Standing::Elsewhere) {
            let sites = target.text.sites.iter().zip(&target.users);
            for (site, users) in sites.filter(|(site, _)| !site.has_build) {
                let Some(reference) = self.reference(site) else { continue };
                let found = users.iter().map(|user| self.tracked(record, user, site, &reference));
                let services = found.filter_map(Result::ok);
                unseen.extend(services.filter_map(|service| {
                    let bytes = &service.current()?.bytes;
                    let digest = bytes
                        .digest
                        .as_ref()
                        .filter(|digest| !bytes.are_seen() && app.store.object(digest).is_none())?;
                    Some((&service.name, (service, digest)))
                }));
            }
        }
        if unseen.is_empty() {
            return BTreeMap::new();
        }
        let docker = app.docker().await.ok();
        let lookup = self.deployment.lookup(None);
        lookup.expect(&Vec::from_iter(unseen.values().map(|(service, _)| *service))).await;
        let proofs = unseen.into_values().map(|(service, digest)| {
            let lookup = &lookup;
            async move { (service.name.clone(), lookup.prove(service, digest, docker).await) }
        });
        let jobs = app.settings.jobs.get().max(8);
        let proofs: BTreeMap<_, _> =
            futures_util::stream::iter(proofs).buffered(jobs).collect().await;
        for (name, proof) in &proofs {
            if let Proof::Unanswered(error) = proof {
                app.ui.warn(format!(
                    "{name}: dkv has not seen what is recorded as its digest, and nobody can be \
                    asked whether it is one: {error:#}"
                ));
            }
        }
        proofs
    }

    /// Asks the registries for what the manifest does not answer: all images of files that belong to
    /// no deployment, and those of files beside it that have a tag of their own.
    async fn resolve(&self, app: &App, texts: &[Target<'_>]) -> Result<Resolved> {
        let mut wanted = BTreeSet::new();
        for target in texts {
            let sites = target.text.sites.iter().zip(&target.users);
            for (site, users) in sites.filter(|(site, _)| !site.has_build) {
                if self.has_variables(target, site) {
                    continue;
                }
                let Some(reference) = self.reference(site) else { continue };
                let is_asked = users
                    .iter()
                    .any(|user| self.recorded(target, user, site, &reference).is_none());
                if is_asked && !self.built.contains(&named(&reference)?) {
                    wanted.insert(named(&reference)?);
                }
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

    /// The image of a site with the values that its variables have without `versions.env`.
    fn reference(&self, site: &Site) -> Option<Reference> {
        pin::evaluated(site, &|name| self.deployment.variable(name))?.parse().ok()
    }

    /// Whether only the manifest can say what becomes of the variables of a line.
    fn has_variables(&self, target: &Target<'_>, site: &Site) -> bool {
        let is_foreign = self.record.is_none() || target.standing == Standing::Elsewhere;
        is_foreign && site.image.contains('$')
    }

    /// What the manifest says that `compose_service` should run; `None` if it leaves that to the
    /// registry.
    fn recorded(
        &self,
        target: &Target<'_>,
        compose_service: &str,
        site: &Site,
        reference: &Reference,
    ) -> Option<Answer> {
        let record = self.record.filter(|_| target.standing != Standing::Elsewhere)?;
        match self.answer(record, compose_service, site, reference) {
            Answer::OtherTrack(_) if target.standing == Standing::Beside => None,
            // A version that is not the recorded one may be what another deployment runs.
            Answer::Known(known)
                if target.standing == Standing::Beside
                    && reference.tag.as_ref().is_some_and(|tag| {
                        !known.keeps_tag && !is_remembered(record, reference, tag)
                    }) =>
            {
                None
            }
            answer => Some(answer),
        }
    }

    /// What `record` says that `compose_service` should run, if that is what the file names.
    fn answer(
        &self,
        record: &Record,
        compose_service: &str,
        site: &Site,
        reference: &Reference,
    ) -> Answer {
        match self.tracked(record, compose_service, site, reference) {
            Ok(service) => self.known(service, reference),
            Err(answer) => answer,
        }
    }

    /// The service of `record` whose digest the line of `compose_service` should have.
    ///
    /// # Errors
    ///
    /// Why it should have none.
    fn tracked<'r>(
        &self,
        record: &'r Record,
        compose_service: &str,
        site: &Site,
        reference: &Reference,
    ) -> Result<&'r Service, Answer> {
        let platform = self.deployment.platform(compose_service);
        let line = site.template.as_ref();
        let member = record.members().find(&Use {
            line,
            image: Some(reference),
            platform: platform.as_ref(),
            ..Use::named(compose_service)
        });
        let service = match member {
            Membership::Of(member) => record.service(member.service),
            Membership::Other(stranger) if stranger.differs == Differs::Tag => {
                let followed = record.service(stranger.service).map(Service::track_name);
                return Err(Answer::OtherTrack(followed.unwrap_or_default().to_owned()));
            }
            Membership::Other(_) | Membership::Ambiguous(_) | Membership::Untracked => None,
        };
        let Some(service) =
            service.filter(|service| service.image.as_ref() == Some(&reference.repository))
        else {
            return Err(Answer::Untracked);
        };
        if line.is_some_and(|line| record.is_followed_by(service, line)) {
            return Err(Answer::Follows);
        }
        match service.source {
            Source::Local => Err(Answer::Local),
            Source::Registry => Ok(service),
        }
    }

    /// The release of `service` that a line which names `reference` should name.
    fn known(&self, service: &Service, reference: &Reference) -> Answer {
        let current = service.current();
        let entries = || service.history.entries().iter();
        let of_digest = || {
            entries().find(|entry| {
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
        let Some(digest) = current.and_then(|current| current.bytes.digest.clone()) else {
            return Answer::Unrecorded(service.what_records());
        };
        let why = match self.unseen.get(&service.name) {
            // Where nobody answers, what is recorded is believed, and that was said.
            None | Some(Proof::IsDigest | Proof::Unanswered(_)) => None,
            Some(Proof::IsImageId(how) | Proof::IsNowhere(how)) => Some(format!(
                "what is recorded as its digest, {}, is none: {how}; {} records the right one",
                digest.short(),
                service.what_records()
            )),
        };
        match why {
            None => Answer::Known(Known { tag, digest, keeps_tag }),
            Some(why) => Answer::Unseen(why),
        }
    }

    fn pin(&self, target: &Target<'_>, resolved: &Resolved) -> Vec<Verdict> {
        let ask = |site: &Site, compose_service: &str, reference: &Reference| {
            if let Some(answer) = self.recorded(target, compose_service, site, reference) {
                return answer;
            }
            if self.has_variables(target, site) {
                return Answer::Follows;
            }
            named(reference).map_or(Answer::Untracked, |name| {
                if self.built.contains(&name) {
                    return Answer::Local;
                }
                match resolved.get(&name).cloned() {
                    Some(digest) => Answer::Known(Known { tag: name.1, digest, keeps_tag: true }),
                    None => Answer::Untracked,
                }
            })
        };
        let lookup = |name: &str| self.deployment.variable(name);
        let sites = target.text.sites.iter().zip(&target.users);
        sites
            .map(|(site, users)| {
                pin::judge(site, users, &lookup, |name, image| ask(site, name, image))
            })
            .collect()
    }

    fn unpin(&self, app: &App, target: &Target<'_>, memories: &Memories) -> Vec<Verdict> {
        let home = target.home(app);
        let memory = memories.0.get(&home).map(|(memory, _)| memory);
        let key = &target.key;
        let is_known = memory.is_some_and(|memory| memory.knows(key));
        let tag_of = |site: &Site, reference: &Reference| {
            let record = self.record?;
            let name = site.compose_services.first()?;
            match self.answer(record, name, site, reference) {
                Answer::Known(known) => Some(known.tag),
                _ => None,
            }
        };
        let sites = target.text.sites.iter();
        sites
            .map(|site| {
                let before = memory.and_then(|memory| memory.before(key, site));
                pin::judge_unpin(site, before, is_known, |reference| tag_of(site, reference))
            })
            .collect()
    }
}

/// What to ask a registry for: the tag that is written, else the one that none means.
fn named(reference: &Reference) -> Result<(Repository, Tag)> {
    let tag = match &reference.tag {
        Some(tag) => tag.clone(),
        None => DEFAULT_TRACK.parse()?,
    };
    Ok((reference.repository.clone(), tag))
}

/// The verdicts of the manifest on the images of a file of the deployment.
///
/// # Errors
///
/// The deployment's directory cannot be looked at (exit 3).
pub(super) fn judge_recorded(
    deployment: &Deployment<'_>,
    text: &ComposeText,
) -> Result<Vec<Verdict>> {
    let read = deployment.texts().ok().map(Arc::as_ref);
    let home = store::resolve(deployment.app().store.directory())?;
    let target = Target::of(&home, text, read);
    let record = deployment.recorded();
    let judge = Judge { deployment, record, built: BTreeSet::new(), unseen: BTreeMap::new() };
    Ok(judge.pin(&target, &Resolved::new()))
}

/// Whether a service of this repository has, or had, this tag.
fn is_remembered(record: &Record, reference: &Reference, tag: &Tag) -> bool {
    let mut services =
        record.services().filter(|one| one.image.as_ref() == Some(&reference.repository));
    services.any(|service| {
        tag.as_str() == service.track_name()
            || service.history.entries().iter().any(|entry| entry.tag == *tag)
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
        why: Some(verdict.why_alone()).filter(|why| !why.is_empty()),
    };
    let images = text.sites.iter().zip(verdicts).map(image).collect();
    PinnedFile { file: text.name(), written: false, backup: None, diff: None, images }
}

fn difference(name: &str, old: &str, new: &str) -> String {
    let (before, after) = (format!("a/{name}"), format!("b/{name}"));
    similar::TextDiff::from_lines(old, new).unified_diff().header(&before, &after).to_string()
}

/// Backs the changed files up and replaces them, and what is remembered of them with them; those of
/// one directory all or none.
fn write(
    app: &App,
    texts: &[Target<'_>],
    new: Vec<String>,
    memories: Memories,
    options: Options<'_>,
    report: &mut Pins,
) -> Result<()> {
    for (directory, (memory, found)) in memories.0 {
        let mut after = memory.clone();
        let group = texts.iter().enumerate().filter(|(_, text)| text.home(app) == directory);
        let mut changed = Vec::new();
        for (index, target) in group {
            let key = &target.key;
            if options.unpin {
                after.forget(key);
            } else {
                let images = target.text.sites.iter().zip(&report.files[index].images);
                after.remember(
                    key,
                    images.map(|(site, image)| {
                        let old = &target.text.document.source()[site.span.clone()];
                        (site.as_ref(), old, image.wanted.as_deref().unwrap_or(old))
                    }),
                );
            }
            if new[index] != target.text.document.source() {
                changed.push(index);
            }
        }
        if changed.is_empty() && after == memory {
            continue;
        }
        let store = Store::new(directory.clone(), app.store.manifest_path().to_owned());
        let lock = app.lock_state_of(&store)?;
        let stamp = app.backup_stamp();
        let mut replacements = Vec::new();
        if after != memory {
            replacements.push(store.pins(after.text(), found));
        }
        for index in changed {
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
            let backup = store.back_up(&lock, &name, old, &stamp)?;
            report.files[index].backup = Some(backup.display().to_string());
            report.files[index].written = true;
            replacements.push(Replacement {
                path: old.path.clone(),
                bytes: new[index].clone().into_bytes(),
                before: Some(old.clone()),
                owner_like: directory.clone(),
            });
        }
        let again = if options.unpin { "`dkv pin --unpin`" } else { "`dkv pin`" };
        store::replace_all(
            &replacements,
            &format!("{again} again does the rest, with the same files"),
        )?;
    }
    Ok(())
}

/// The report for people: what changes, then what is left alone and why.
fn tell(app: &App, report: &Pins, options: Options<'_>) {
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
                ("unrecorded" | "unseen", _) => {
                    let why = image.why.as_deref().unwrap_or_default();
                    format!("{place}: {} cannot be pinned: {why}", image.image)
                }
                ("refused", _) => {
                    format!("{place}: {} cannot be pinned where it stands", image.image)
                }
                ("current", _) => continue,
                ("invalid", _) if options.check => {
                    format!("{place}: {} is not an image name", image.image)
                }
                _ => {
                    let why = image.why.iter().map(|why| format!(": {why}")).collect::<String>();
                    app.ui.note(format!("{place}: {} is left alone{why}", image.image));
                    continue;
                }
            };
            app.ui.data(line);
        }
        if let Some(diff) = &file.diff {
            app.ui.data(diff.trim_end_matches('\n'));
        }
    }
    for file in &report.beside {
        app.ui.note(format!(
            "{file} names images of this deployment but is no part of it, and stays as it is; \
            `dkv pin {file}` pins it"
        ));
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
    let rest = match lacks_digests(report) {
        true => ", but for what has no digest",
        false => "",
    };
    app.ui.status(match (changed, options.check, options.dry_run) {
        (_, true, _) if report.current => "Every Compose file is up to date".to_owned(),
        (0, true, _) if !rest.is_empty() => {
            "What is said of the lines comes first, then `dkv pin`".to_owned()
        }
        (_, true, _) => format!("`dkv pin` brings the files up to date{rest}"),
        (0, ..) => format!("Nothing to change{rest}"),
        (count, _, true) => format!("would write {count} {}", files(count)),
        (count, ..) => format!("Wrote {count} {}", files(count)),
    });
}

/// Whether a line stays as it is because there is no digest for it.
fn lacks_digests(report: &Pins) -> bool {
    let mut images = report.files.iter().flat_map(|file| &file.images);
    images.any(|image| matches!(image.state, "unrecorded" | "unseen"))
}

fn files(count: usize) -> &'static str {
    if count == 1 { "file" } else { "files" }
}
