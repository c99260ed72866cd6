//! `verify`: what is written, what would start, what is local and what runs, side by side.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt as _;

use super::run::hanging;
use super::{Run, pin};
use crate::app::{App, Exit};
use crate::compose::{self, ComposeFiles, Generation, Line, Project, dotenv};
use crate::deployment::{Deployment, EnvState, Record, Spoiling};
use crate::docker::ContainerFilter;
use crate::drift::{
    self, DaemonView, EnvView, FileImage, OtherUse, RemoteView, ServiceStart, Views,
};
use crate::error::{self, Error, Kind};
use crate::followers;
use crate::model::env_file::State;
use crate::model::image_line;
use crate::model::manifest::{Rank, Source};
use crate::model::reference::Tag;
use crate::registry::{self, ManifestName};
use crate::report::drift::{Finding, FindingKind, Restorable, ServiceViews, Verification};
use crate::report::{ReleaseView, short_digest};
use crate::store;
use crate::ui::{Cell, Style, Table};

/// How long Compose may read its files.
const COMPOSE_PATIENCE: Duration = Duration::from_secs(15);

/// Compare manifest, versions.env, Compose files, images and containers
///
/// Exits 10 when any of them disagree.
#[derive(Debug, Args)]
pub struct Verify {
    /// Look into the registries too
    #[arg(long)]
    remote: bool,
}

impl Run for Verify {
    /// # Errors
    ///
    /// No manifest, or a file cannot be read (exit 3); with `remote`, a registry fails (exit 5).
    async fn run(self, app: &App) -> Result<Exit> {
        let mut deployment = Deployment::open_recorded(app)?;
        deployment.read_beside()?;
        let record = deployment.record()?;
        let mut not_compared = Vec::new();
        let env = env_view(&deployment)?;
        let (files, disagreements) = file_images(&deployment, &mut not_compared)?;
        let (starts, project, has_followers) = starts(&deployment, &env, &mut not_compared).await?;
        let daemon = match daemon_view(&deployment, project, has_followers).await {
            Ok(view) => Some(view),
            Err(error) => {
                not_compared.push(format!("what is local and what runs: {error:#}"));
                None
            }
        };
        let remote = if self.remote { Some(remote_view(app, record).await?) } else { None };
        let others = others(&deployment, &env)?;
        let views = Views {
            manifest: &record.manifest,
            members: record.members(),
            deployment: &record.hash,
            only_by_keep_tag: &record.only_by_keep_tag,
            env,
            starts,
            files,
            others,
            incomparable: deployment.texts()?.not_compared(),
            disagreements,
            daemon,
            remote,
        };
        let mut report = drift::compare(&views);
        report.clean &= not_compared.is_empty();
        report.not_compared = not_compared;
        app.show(&report, |report| tell(app, report))?;
        Ok(match (report.drift.is_empty(), report.not_compared.is_empty()) {
            (false, _) => Exit::Different,
            (true, false) => Exit::Unseen,
            (true, true) => Exit::Done,
        })
    }
}

fn env_view(deployment: &Deployment<'_>) -> Result<EnvView> {
    let env = deployment.env()?;
    let wrong = match env.state {
        EnvState::Missing => Some(FindingKind::EnvMissing),
        EnvState::Found(State::Stale) => Some(FindingKind::EnvStale),
        EnvState::Found(State::Edited) => Some(FindingKind::EnvEdited),
        EnvState::Found(State::Current | State::OldHeader) => None,
    };
    let app = deployment.app();
    let values = dotenv::parse(&env.text(), &|name| app.environment.text(name));
    let values = values.unwrap_or_else(|error| {
        app.ui.warn(format!("{}, {error}", env.path.display()));
        BTreeMap::new()
    });
    Ok(EnvView { file: deployment.record()?.manifest.env.file.clone(), wrong, values })
}

type FileViews = (Vec<FileImage>, Vec<crate::report::pin::PinDisagreement>);

/// The images in all Compose files of the directory, against the manifest.
fn file_images(deployment: &Deployment<'_>, not_compared: &mut Vec<String>) -> Result<FileViews> {
    let read = deployment.texts()?;
    let texts = match pin::wanted(deployment.app(), read, &[]) {
        Ok(texts) => texts,
        Err(error)
            if deployment.files().is_ok_and(|files| files.all(Generation::V2).is_empty()) =>
        {
            not_compared.push(format!("Compose files: {error:#}"));
            return Ok(FileViews::default());
        }
        Err(error) => return Err(error),
    };
    let mut images = Vec::new();
    for text in &texts {
        for (site, verdict) in text.sites.iter().zip(pin::judge_recorded(deployment, text)?) {
            let spoiling = deployment.recorded().into_iter().flat_map(|record| &record.spoiling);
            let variables = image_line::variables_in(&site.image);
            let mut unset = spoiling.filter(|one| variables.contains(&one.variable));
            images.push(FileImage {
                unset: unset.next().map(Spoiling::in_words),
                place: site.place(),
                compose_services: site.compose_services.clone(),
                image: site.image.clone(),
                verdict,
                template: read.template_of(&text.file).map(str::to_owned),
            });
        }
    }
    Ok((images, pin::disagreements(&texts)))
}

/// The images that services use beside their own, as Compose would make them of the variables.
fn others(deployment: &Deployment<'_>, env: &EnvView) -> Result<Vec<OtherUse>> {
    let others = deployment.texts()?.other_images().iter();
    let used = others.filter_map(|other| {
        Some(OtherUse {
            place: other.site.place(),
            used_by: format!("the {} of {}", other.key, other.service),
            image: deployment.evaluate(other.site.template.as_ref()?, &env.values)?,
        })
    });
    Ok(used.collect())
}

/// What Compose would start for somebody who has sourced `versions.env`, the project's name, and
/// whether services of it have something of others' containers.
/// Where Compose cannot say, the files are read without it, and nobody knows the name.
async fn starts(
    deployment: &Deployment<'_>,
    env: &EnvView,
    not_compared: &mut Vec<String>,
) -> Result<(Vec<ServiceStart>, Option<String>, bool)> {
    let files = deployment.files()?;
    if files.all(Generation::V2).is_empty() {
        return Ok((Vec::new(), Some(files.project_name_v1()), false));
    }
    let environment = deployment.app().compose_environment().with(env.values.clone());
    let project = match deployment.ask(&environment, Some(COMPOSE_PATIENCE)).await {
        Ok(project) => Some(project),
        Err(error) if error::kind(&error) == Kind::Interrupted => return Err(error),
        Err(error) => {
            not_compared.push(format!("what Compose itself makes of its files: {error:#}"));
            not_compared.push(
                "containers that run beside the deployment: which ones belong to it only \
                    Compose could say"
                    .to_owned(),
            );
            None
        }
    };
    let written = deployment.texts()?;
    let name = project.as_ref().map(|project| project.name.clone());
    let has_followers = project.as_ref().is_some_and(followers::exist);
    Ok((merge(deployment, env, written.require()?, project.as_ref()), name, has_followers))
}

/// Compose's answer, with the texts behind it; services that it leaves out are read from the files.
fn merge(
    deployment: &Deployment<'_>,
    env: &EnvView,
    written: &ComposeFiles,
    project: Option<&Project>,
) -> Vec<ServiceStart> {
    let mut starts: Vec<ServiceStart> = Vec::new();
    for service in project.into_iter().flat_map(|project| &project.services) {
        let awaited = service.depends_on.iter().filter(|(_, dependency)| {
            dependency.condition == compose::config::Condition::CompletedSuccessfully
        });
        let line = written.service(&service.name);
        starts.push(ServiceStart {
            compose_service: service.name.clone(),
            image: service.image.clone(),
            text: line.and_then(Line::image_text).map(str::to_owned),
            template: line.and_then(|line| written.template_of(&line.file)).map(str::to_owned),
            platform: deployment.platform(&service.name),
            has_build: service.has_build,
            waits_for_end_of: awaited.map(|(name, _)| name.clone()).collect(),
            is_one_shot: service.restart.as_deref() == Some("no"),
            is_active: true,
        });
    }
    let known: HashSet<String> = starts.iter().map(|start| start.compose_service.clone()).collect();
    for line in written.services() {
        if !known.contains(line.service.as_str()) {
            let template = line.template();
            starts.push(ServiceStart {
                compose_service: line.service.clone(),
                image: template.and_then(|image| deployment.evaluate(image, &env.values)),
                text: line.image_text().map(str::to_owned),
                platform: deployment.platform(&line.service),
                has_build: line.has_build,
                waits_for_end_of: Vec::new(),
                is_one_shot: false,
                is_active: project.is_none(),
                template: written.template_of(&line.file).map(str::to_owned),
            });
        }
    }
    starts
}

async fn daemon_view(
    deployment: &Deployment<'_>,
    project: Option<String>,
    has_followers: bool,
) -> Result<DaemonView> {
    let app = deployment.app();
    let docker = app.docker().await?;
    let (images, containers) = tokio::try_join!(deployment.local_images(), async {
        docker.containers(&ContainerFilter::default()).await
    })?;
    let directory = app.store.directory();
    let directory = store::resolve(directory)?;
    let directory = directory.display().to_string();
    let hanging = match project.as_ref().filter(|_| has_followers) {
        Some(project) => {
            let mine = docker.container_details(&ContainerFilter::project(project)).await?;
            hanging(docker, &mine.iter().collect::<Vec<_>>()).await?
        }
        None => Vec::new(),
    };
    Ok(DaemonView { project, directory, images, containers, hanging })
}

/// Asks the registries for every remembered digest, and for what the tracked tags name.
async fn remote_view(app: &App, record: &Record) -> Result<RemoteView> {
    let mut questions = Vec::new();
    for service in record.services().filter(|service| service.source == Source::Registry) {
        let Some(image) = &service.image else { continue };
        let digests =
            service.history.entries().iter().filter_map(|entry| entry.bytes.digest.clone());
        questions.extend(digests.map(|digest| (service, image, ManifestName::Digest(digest))));
        let tracked = service.track_name().parse::<Tag>().ok();
        questions.extend(tracked.map(|tag| (service, image, ManifestName::Tag(tag))));
    }
    app.registry().expect(questions.iter().map(|(_, image, _)| *image));
    let ask = questions.iter().map(|(service, image, name)| async move {
        if let (ManifestName::Tag(_), Some(platform)) = (name, &service.platform)
            && let Ok(manifest) = app.registry().manifest(image, name).await
        {
            let current = service.current().and_then(|current| current.bytes.digest.as_ref());
            let is_recorded = current == Some(&manifest.digest);
            let own = manifest.platform_entry(platform).filter(|_| !is_recorded);
            return Ok(Some(own.unwrap_or(manifest.digest)));
        }
        match app.registry().head(image, name).await {
            Ok(described) => Ok(Some(described.digest)),
            Err(registry::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(anyhow::Error::from(Error::from(error))
                .context(format!("service `{}`", service.name))),
        }
    });
    let answers: Vec<Result<_>> =
        futures_util::stream::iter(ask).buffered(app.settings.jobs.get().max(8)).collect().await;
    let mut view = RemoteView::default();
    let mut failures = indexmap::IndexMap::new();
    for ((service, image, name), answer) in questions.iter().zip(answers) {
        match (answer, name) {
            (Ok(found), ManifestName::Digest(digest)) => {
                view.has.insert(((*image).clone(), digest.clone()), found.is_some());
            }
            (Ok(found), ManifestName::Tag(_)) => {
                view.tracked.insert(service.name.clone(), found);
            }
            (Err(error), _) => {
                failures.entry(&service.name).or_insert(error);
            }
        }
    }
    let total = record.manifest.services.len();
    error::together(
        failures.into_values().collect(),
        total,
        "`dkv verify` without --remote compares the rest",
    )?;
    Ok(view)
}

/// The report for people: the views, the releases that cannot be had here, then a line for each
/// finding.
fn tell(app: &App, report: &Verification) {
    let has_remote = report.services.iter().any(|service| service.remote.is_some());
    let mut header = vec!["SERVICE", "MANIFEST", "VERSIONS.ENV", "COMPOSE", "LOCAL", "RUNNING"];
    if has_remote {
        header.push("REGISTRY");
    }
    let mut table = Table::new(&header);
    for service in &report.services {
        table.row(row(service));
    }
    if !table.is_empty() {
        app.ui.table(&table);
    }
    for service in &report.services {
        for state in service.releases.iter().filter(|state| state.status != Rank::Current) {
            let name = state.release.short();
            match state.restorable {
                Restorable::Registry => app
                    .ui
                    .note(format!("{}: {name} can be restored from the registry", service.name)),
                Restorable::Lost => {
                    app.ui.note(format!("{}: {name} is lost: it cannot be restored", service.name))
                }
                Restorable::Unknown if service.local.is_some() => {
                    app.ui.note(format!(
                        "{}: {name} is not on this host; --remote asks the registry for it",
                        service.name
                    ));
                }
                Restorable::Unknown | Restorable::Here => {}
            }
        }
    }
    report.notes.iter().for_each(|finding| app.ui.note(line(finding)));
    report.not_compared.iter().for_each(|what| app.ui.warn(format!("not compared: {what}")));
    report.drift.iter().for_each(|finding| app.ui.data(line(finding)));
    app.ui.status(match report.drift.len() {
        0 if !report.not_compared.is_empty() => {
            "What could be compared agrees, but not everything could".to_owned()
        }
        0 => "No drift".to_owned(),
        1 => "1 disagreement".to_owned(),
        count => format!("{count} disagreements"),
    });
}

/// What is wrong with which service, and what mends it.
fn line(finding: &Finding) -> String {
    let service =
        finding.service.as_ref().map_or_else(String::new, |service| format!("{service}: "));
    let mend = finding.mend.as_ref().map_or_else(String::new, |mend| format!(" → {mend}"));
    format!("{service}{}{mend}", finding.message)
}

fn row(service: &ServiceViews) -> Vec<Cell> {
    let recorded = service.manifest.as_ref();
    let env = match &service.env {
        None => none(),
        Some(_) if service.env_as_recorded => same(),
        Some(value) => Cell::new(brief(value), Style::Red),
    };
    let differing = service.compose.iter().find(|view| !view.as_recorded);
    let compose = match (differing, service.compose.is_empty()) {
        (_, true) => none(),
        (Some(view), _) => {
            Cell::new(brief(view.image.rsplit('/').next().unwrap_or_default()), Style::Red)
        }
        (None, _) => same(),
    };
    let local = match service.local {
        None => none(),
        Some(true) => Cell::new("yes", Style::Green),
        Some(false) => Cell::new("gone", Style::Red),
    };
    let differing = service.running.iter().find(|view| view.as_recorded == Some(false));
    let running = match (differing, service.running.is_empty()) {
        (_, true) => none(),
        (Some(view), _) => {
            let id = view.image_id.as_deref().map_or("?", short_digest);
            Cell::new(view.tag.as_deref().unwrap_or(id), Style::Red)
        }
        (None, _) if service.running.iter().all(|view| view.as_recorded.is_none()) => {
            Cell::new("?", Style::Dim)
        }
        (None, _) => same(),
    };
    let mut cells = vec![
        Cell::new(&service.name, Style::Bold),
        Cell::plain(recorded.map_or_else(|| "-".to_owned(), ReleaseView::short)),
        env,
        compose,
        local,
        running,
    ];
    if let Some(remote) = &service.remote {
        let is_same = recorded.is_some_and(|release| release.digest.as_ref() == Some(remote));
        cells.push(if is_same { same() } else { Cell::new(short_digest(remote), Style::Yellow) });
    }
    cells
}

fn same() -> Cell {
    Cell::new("same", Style::Green)
}

fn none() -> Cell {
    Cell::new("-", Style::Dim)
}

/// A tag or an image with its digest cut to what people read.
fn brief(text: &str) -> String {
    match text.split_once("@sha256:") {
        Some((name, hex)) => format!("{name} ({})", short_digest(hex)),
        None => text.to_owned(),
    }
}
