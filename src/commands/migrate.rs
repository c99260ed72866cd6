//! `migrate-versions`: a manifest from what runs and what the Compose files say; with a manifest,
//! what it lacks.

mod others;
mod scene;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chrono::Local;
use clap::Args;

use super::Effect;
use crate::app::{App, Exit};
use crate::change::{self, Change};
use crate::compose::{self, rewrite};
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::error;
use crate::lookup::Lookup;
use crate::model::manifest::{Ecr, Manifest, Service, Source};
use crate::model::reference::{Reference, Repository};
use crate::model::yaml::{self, Value};
use crate::plan::migrate::{self as plan_migrate, Proposals, Rival};
use crate::plan::{self, Step};
use crate::report::ReleaseView;
use crate::report::migrate::{
    ComposeChange, Difference, MigratedService, Migration, OtherVersion, UntrackedImage,
};
use crate::store::{self, Replacement, Store};
use crate::ui::{Cell, Style, Table};
use scene::Scene;
use settle::Settled;

/// What variable names begin with where no manifest says otherwise.
const PREFIX: &str = "DK_";

/// The daemon of a machine where nothing says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Make a manifest from what runs and what the Compose files say
///
/// With a manifest, adds the services that it lacks. Starts and stops nothing. Exits 10 when
/// Compose services of one image run different versions, so that not all of them would start as
/// they run.
#[derive(Debug, Args)]
pub struct MigrateVersions {
    /// Make the Compose files follow versions.env, keeping comments and layout
    #[arg(long)]
    write: bool,
    /// Track the image of this Compose service, too, although it does not look like the product's
    #[arg(long, value_name = "COMPOSE_SERVICE")]
    track: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl super::Run for MigrateVersions {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        migrate(app, self).await
    }
}

/// `dkv migrate-versions`.
///
/// # Errors
///
/// No Compose files (exit 3), Compose or the daemon fails (exit 6), a question that nobody answers
/// (exit 2).
async fn migrate(app: &App, options: MigrateVersions) -> Result<Exit> {
    let deployment = Deployment::open(app)?;
    if !options.dry_run {
        let env = deployment.recorded().map(|record| record.env_path(&app.store));
        app.store.check_writable(env.as_deref())?;
    }
    if let Err(error) = app.decrypt().await {
        // Few image lines need a secret; if one does, Compose will say so.
        app.ui.warn(format!("going on without the encrypted environment: {error:#}"));
    }
    let docker = daemon(app, &options).await?;
    let scene = Scene::look(&deployment, docker).await?;
    let mut migration = Run { app, options, deployment, docker, scene };
    migration.run().await
}

/// The daemon; none where there is none at all and the operator goes on without. One that is there
/// and does not answer could run other versions than registries name, so that is an error.
async fn daemon<'a>(app: &'a App, options: &MigrateVersions) -> Result<Option<&'a Docker>> {
    let error = match app.docker().await {
        Ok(docker) => return Ok(Some(docker)),
        Err(error) if has_socket(app) => return Err(error),
        Err(error) => error,
    };
    app.ui.warn(format!("what runs cannot be seen: {error:#}"));
    let question = "Go on with what the Compose files and registries say?";
    if app.ui.confirm(question, options.yes || options.dry_run, &app.command)? {
        Ok(None)
    } else {
        Err(error)
    }
}

/// Whether the daemon that is meant has a socket, or is not reached by one.
fn has_socket(app: &App) -> bool {
    let host = app.environment.docker_host().unwrap_or_else(|| DEFAULT_HOST.to_owned());
    app.environment.docker_context().is_some()
        || host.strip_prefix("unix://").is_none_or(|path| Path::new(path).exists())
}

/// One migration.
struct Run<'a> {
    app: &'a App,
    options: MigrateVersions,
    deployment: Deployment<'a>,
    docker: Option<&'a Docker>,
    scene: Scene,
}

/// What a new manifest says beside its services.
struct Header {
    deployment_id: String,
    customer_id: String,
    ecr: Option<Ecr>,
}

impl Run<'_> {
    async fn run(&mut self) -> Result<Exit> {
        self.check_tracked()?;
        let mut proposals = self.propose(&self.options.track);
        let others = self.other_versions(&proposals, &[]);
        let mut report = Migration {
            dry_run: self.options.dry_run,
            manifest: self.app.store.manifest_path().display().to_string(),
            created: self.deployment.recorded().is_none(),
            compose_changes: self.compose_changes(&proposals, &others)?,
            other_versions: others,
            other_tools: others::find(self.app.store.directory()),
            notes: self.scene.notes.clone(),
            ..Migration::default()
        };
        let is_complete = self.deployment.recorded().is_some() && proposals.services.is_empty();
        let rewrites = |report: &Migration| {
            self.options.write && report.compose_changes.iter().any(ComposeChange::is_writable)
        };
        if is_complete && !rewrites(&report) {
            report.untracked = untracked(&proposals);
            self.app.show(&report, |report| {
                self.app.ui.status("The manifest has every service already; nothing to add");
                self.tell(report);
            })?;
            return Ok(if report.other_versions.is_empty() { Exit::Done } else { Exit::Different });
        }
        let header = if self.deployment.recorded().is_none() {
            Some(self.ask_header(&proposals)?)
        } else {
            None
        };
        let wanted = self.ask_untracked(&proposals)?;
        if !wanted.is_empty() {
            let all: Vec<String> = self.options.track.iter().cloned().chain(wanted).collect();
            proposals = self.propose(&all);
        }
        report.untracked = untracked(&proposals);
        let settled = self.settle(&proposals, header.as_ref()).await?;
        report.services = settled.iter().map(migrated).collect();
        report.other_versions = self.other_versions(&proposals, &settled);
        report.compose_changes = self.compose_changes(&proposals, &report.other_versions)?;
        let rewrites = rewrites(&report);
        report.notes.extend(self.used_elsewhere(&settled));
        report.notes.extend(self.other_files(&settled));
        let services: Vec<Service> = settled.into_iter().map(|settled| settled.service).collect();
        let text = self.manifest_text(header.as_ref(), &services)?;
        if self.options.dry_run {
            self.app.show(&report, |report| {
                self.show_services(report);
                self.tell(report);
                for file in
                    files_of(&report.compose_changes, |change| rewrites && change.is_writable())
                {
                    self.app.ui.status(format!("would write {file}, after a backup"));
                }
                self.app.ui.status(format!("would write {}:", report.manifest));
                self.app.ui.data(&text);
            })?;
            return Ok(if report.other_versions.is_empty() { Exit::Done } else { Exit::Different });
        }
        if !self.options.yes && !self.app.settings.json {
            self.show_services(&report);
        }
        self.confirm(rewrites)?;
        self.keep(&services).await?;
        report.files = self.write(text, &services)?;
        if rewrites {
            self.rewrite(&mut report.compose_changes)?;
        }
        report.differences = self.differences(&report.compose_changes).await?;
        let is_off = !report.other_versions.is_empty()
            || report.differences.iter().any(|difference| !difference.line_does_not_follow);
        self.app.show(&report, |report| {
            if self.options.yes {
                self.show_services(report);
            }
            self.tell(report);
            self.conclude(report);
        })?;
        Ok(if is_off { Exit::Different } else { Exit::Done })
    }

    fn prefix(&self) -> &str {
        self.deployment.recorded().map_or(PREFIX, |before| before.manifest.env.prefix.as_str())
    }

    fn propose(&self, wanted: &[String]) -> Proposals {
        let known = self.deployment.recorded().map(|before| &before.manifest);
        plan_migrate::propose(&self.scene.lines, known, self.prefix(), wanted)
    }

    /// Makes sure that everything to track is there.
    fn check_tracked(&self) -> Result<()> {
        let known: Vec<&str> =
            self.scene.lines.iter().map(|line| line.compose_service.as_str()).collect();
        match self.options.track.iter().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(error::usage(format!(
                "the Compose files have no service `{unknown}` with an image"
            ))
            .with_hint(format!("they have {}", known.join(", ")))
            .into()),
            None => Ok(()),
        }
    }

    /// The Compose services that have other versions than are recorded, or are about to be.
    fn other_versions(&self, proposals: &Proposals, settled: &[Settled]) -> Vec<OtherVersion> {
        let known = self.deployment.recorded().map(|before| &before.manifest);
        let of = |service: &Service, rival: &Rival| OtherVersion {
            service: service.name.to_string(),
            compose_service: rival.compose_service.clone(),
            image: rival.image.to_string(),
            runs: rival.runs.as_ref().map(ToString::to_string),
            recorded: service.current().map_or_else(
                || service.track_name().to_owned(),
                |current| ReleaseView::from(current).short(),
            ),
            will_change: rival.follows,
        };
        let recorded = proposals
            .rivals
            .iter()
            .filter_map(|(name, rival)| Some(of(known?.services.get(name)?, rival)));
        let new = settled
            .iter()
            .flat_map(|settled| settled.rivals.iter().map(|rival| of(&settled.service, rival)));
        recorded.chain(new).collect()
    }

    fn takes_defaults(&self) -> bool {
        self.options.yes || self.options.dry_run
    }

    fn ask(&self, question: &str, default: &str) -> Result<String> {
        self.app.ui.ask(question, default, self.takes_defaults(), &self.app.command)
    }

    fn ask_header(&self, proposals: &Proposals) -> Result<Header> {
        let directory = std::path::absolute(self.app.store.directory())
            .context("cannot find the current directory")?;
        let name = directory
            .file_name()
            .map_or_else(|| "deployment".into(), std::ffi::OsStr::to_string_lossy);
        let day = self.app.now.with_timezone(&Local).format("%Y%m%d");
        let deployment_id = self.ask("Deployment", &format!("{name}-{day}"))?;
        let customer_id = self.ask("Customer (may stay empty)", "")?;
        let images: Vec<&Repository> =
            proposals.services.iter().map(|service| &service.image).collect();
        Ok(Header { deployment_id, customer_id, ecr: plan_migrate::ecr_of(images.into_iter()) })
    }

    /// The Compose services whose images shall be tracked although they do not look like the
    /// product's.
    fn ask_untracked(&self, proposals: &Proposals) -> Result<Vec<String>> {
        if proposals.untracked.is_empty() {
            return Ok(Vec::new());
        }
        let known: Vec<&String> =
            proposals.untracked.iter().flat_map(|image| &image.compose_services).collect();
        let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
        let question = format!(
            "Not part of the product, it seems: {}. Track any of them (names)?",
            names.join(", ")
        );
        let answer = self.ask(&question, "none")?;
        let wanted: Vec<String> = answer
            .split([' ', ','])
            .filter(|word| !word.is_empty() && *word != "none")
            .map(str::to_owned)
            .collect();
        match wanted.iter().find(|name| !known.contains(name)) {
            Some(unknown) => {
                Err(error::usage(format!("`{unknown}` is none of {}", names.join(", "))).into())
            }
            None => Ok(wanted),
        }
    }

    fn confirm(&self, rewrites: bool) -> Result<()> {
        let env = self
            .deployment
            .recorded()
            .map_or("versions.env", |before| before.manifest.env.file.as_str());
        let files = if rewrites { ", and the Compose files" } else { "" };
        let question = format!("Write {} and {env}{files}?", self.app.store.manifest_name());
        let answer = self.ask(&question, "yes")?;
        if matches!(answer.to_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(error::usage("not confirmed; nothing was written").into())
    }

    async fn settle(&self, proposals: &Proposals, header: Option<&Header>) -> Result<Vec<Settled>> {
        let platform = match self.docker {
            Some(docker) => Some(docker.platform().await?.clone()),
            None => None,
        };
        let ecr = match (self.deployment.recorded(), header) {
            (Some(before), _) => before.manifest.ecr.clone(),
            (None, header) => header.and_then(|header| header.ecr.clone()),
        };
        let lookup = Lookup::new(
            self.app.registry().clone(),
            ecr,
            self.app.environment.has_aws_credentials(),
            platform,
        );
        let asked: Vec<Service> = proposals
            .services
            .iter()
            .filter(|proposal| !proposal.is_built)
            .map(|proposal| Service::new(proposal.name.clone(), Some(proposal.image.clone())))
            .collect();
        lookup.expect(&asked.iter().collect::<Vec<_>>()).await;
        let work = proposals
            .services
            .iter()
            .map(|proposal| settle::settle(self.app, &lookup, proposal.clone()));
        futures_util::future::try_join_all(work).await
    }

    /// The manifest as it shall be.
    fn manifest_text(&self, header: Option<&Header>, services: &[Service]) -> Result<String> {
        let skeleton;
        let manifest = match (self.deployment.recorded(), header) {
            (Some(before), _) => &before.manifest,
            (None, header) => {
                skeleton = Manifest::read(self.skeleton(header).as_bytes())?;
                &skeleton
            }
        };
        Ok(manifest.with_services(services)?)
    }

    /// A manifest without services.
    fn skeleton(&self, header: Option<&Header>) -> String {
        let mut entries = vec![("schema_version", Value::text("1.1"))];
        if let Some(header) = header {
            entries.push(("deployment_id", Value::text(&header.deployment_id)));
            entries.push(("customer_id", Value::text(&header.customer_id)));
            entries.extend(header.ecr.as_ref().map(|ecr| ("ecr", ecr_value(ecr))));
        }
        if let Some([files, databases]) = &self.scene.configured {
            let list = |names: &[String]| Value::Sequence(names.iter().map(Value::text).collect());
            let mut compose = vec![("files", list(files))];
            if !databases.is_empty() {
                compose.push(("db_files", list(databases)));
            }
            entries.push(("compose", Value::mapping(compose)));
        }
        yaml::emit(&Value::mapping(entries))
    }

    /// Gives what is local its keep-tags, so that nothing takes it away any more.
    async fn keep(&self, services: &[Service]) -> Result<()> {
        let Some(docker) = self.docker else { return Ok(()) };
        let hash = self.app.store.deployment_hash()?;
        for service in services {
            let Some(current) = service.current() else { continue };
            if let (Some(image), Some(id), Some(keep)) =
                (&service.image, &current.bytes.image_id, plan::keep_tag(current, &hash))
            {
                docker.tag(id.as_str(), image, &keep).await?;
            }
        }
        Ok(())
    }

    fn write(&mut self, text: String, services: &[Service]) -> Result<crate::report::Files> {
        if self.deployment.recorded().is_none() {
            return change::create(&mut self.deployment, text);
        }
        let steps = services.iter().map(|service| Step {
            before: Service::new(service.name.clone(), None),
            ..Step::unchanged(service)
        });
        Ok(Change::of(steps.collect()).commit(&mut self.deployment)?.files)
    }

    /// The image lines that do not follow `versions.env`, where they stand. Those of `others` are
    /// left alone, with whatever shares their line: written, they would start another version.
    fn compose_changes(
        &self,
        proposals: &Proposals,
        others: &[OtherVersion],
    ) -> Result<Vec<ComposeChange>> {
        let mut changes: Vec<ComposeChange> = Vec::new();
        for change in &proposals.changes {
            let Some(line) = self.scene.written.service(&change.compose_service) else { continue };
            let place = line.place.as_ref();
            let file = place.map_or(&line.file, |place| &place.file);
            changes.push(ComposeChange {
                compose_service: change.compose_service.clone(),
                service_there: place
                    .map_or_else(|| change.compose_service.clone(), |place| place.service.clone()),
                file: file.display().to_string(),
                line: place.map(|place| place.line),
                from: change.from.clone(),
                to: change.to.as_ref().ok().cloned(),
                written: false,
                template: self.scene.written.template_of(file).map(str::to_owned),
                left: change.to.as_ref().err().cloned(),
            });
        }
        for other in others {
            let place =
                changes.iter().find(|change| change.compose_service == other.compose_service);
            let Some(place) = place.map(|change| (change.file.clone(), change.line)) else {
                continue;
            };
            for change in changes
                .iter_mut()
                .filter(|change| (&change.file, change.line) == (&place.0, place.1))
            {
                let why = if change.compose_service == other.compose_service {
                    format!("it is another version than the recorded {}", other.recorded)
                } else {
                    format!("{}, which shares the line, has another version", other.compose_service)
                };
                change.left.get_or_insert(why);
            }
        }
        Ok(changes)
    }

    /// Changes the image lines of files that no template makes, each file backed up first.
    fn rewrite(&self, changes: &mut [ComposeChange]) -> Result<()> {
        let store = &self.app.store;
        let mut files: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for change in changes.iter().filter(|change| change.is_writable()) {
            let Some(to) = &change.to else { continue };
            files
                .entry(change.file.clone())
                .or_default()
                .insert(change.service_there.clone(), to.clone());
        }
        {
            let lock = self.app.lock_state()?;
            let stamp = self.app.backup_stamp();
            let mut replacements = Vec::new();
            let mut old = Vec::new();
            for (file, images) in &files {
                let path = store.directory().join(file);
                let found = store::read(&path)?
                    .with_context(|| format!("`{file}` vanished while this command ran"))?;
                let source = String::from_utf8(found.bytes.clone())
                    .with_context(|| format!("`{file}` is not UTF-8"))?;
                let text = rewrite::set_images(&source, images).map_err(|error| {
                    error::state(format!("`{file}` cannot be changed: {error:#}")).with_hint(
                        "make the changes shown by hand; the manifest and versions.env are written",
                    )
                })?;
                replacements.push(Replacement {
                    path: Store::resolve(&path),
                    bytes: text.into_bytes(),
                    before: Some(found.clone()),
                    owner_like: path.clone(),
                });
                old.push((path, found.bytes));
            }
            for (path, bytes) in &old {
                let name = path
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                store.back_up(&lock, &name, bytes, &stamp)?;
            }
            store::replace_all(&replacements)?;
        }
        for change in changes.iter_mut().filter(|change| change.is_writable()) {
            change.written = true;
        }
        Ok(())
    }

    /// Where Compose, with the new `versions.env`, would start another image than runs now.
    async fn differences(&self, changes: &[ComposeChange]) -> Result<Vec<Difference>> {
        let Some(docker) = self.docker else { return Ok(Vec::new()) };
        let deployment = Deployment::open_recorded(self.app)?;
        let project = deployment.project().await?;
        let tracked = deployment.tracked(project);
        let mut differences = Vec::new();
        for line in &self.scene.lines {
            let Some(runs) = line.present.as_ref().filter(|present| present.is_running) else {
                continue;
            };
            let Some(image) =
                project.service(&line.compose_service).and_then(|service| service.image.clone())
            else {
                continue;
            };
            if !tracked.contains_key(&line.compose_service) {
                continue;
            }
            let same_digest = image
                .parse::<Reference>()
                .ok()
                .and_then(|reference| reference.digest)
                .is_some_and(|digest| runs.digests.iter().any(|(_, known)| *known == digest));
            let would_start = docker.image(&image).await?;
            if same_digest || would_start.is_some_and(|would_start| would_start.id == runs.image_id)
            {
                continue;
            }
            let line_does_not_follow = changes
                .iter()
                .any(|change| change.compose_service == line.compose_service && !change.written);
            differences.push(Difference {
                compose_service: line.compose_service.clone(),
                runs: runs.image_id.to_string(),
                would_start: image,
                line_does_not_follow,
            });
        }
        Ok(differences)
    }

    /// Variables that will carry `tag@digest` and that the Compose files use for something else,
    /// too.
    fn used_elsewhere(&self, settled: &[Settled]) -> Vec<String> {
        let directory = self.app.store.directory();
        let mut files: Vec<&Path> =
            self.scene.written.services().map(|line| line.file.as_path()).collect();
        files.dedup();
        let mut notes = Vec::new();
        for variable in settled.iter().filter_map(|settled| settled.service.env_tag.as_deref()) {
            for file in &files {
                let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
                let uses = |line: &str| {
                    line.contains(&format!("${variable}"))
                        || line.contains(&format!("${{{variable}"))
                };
                let elsewhere =
                    text.lines().position(|line| uses(line) && !line.contains("image:"));
                notes.extend(elsewhere.map(|index| {
                    format!(
                        "{}, line {}: {variable} is used outside of an image line; it will carry \
                            the digest there as well",
                        file.display(),
                        index + 1
                    )
                }));
            }
        }
        notes
    }

    /// Compose files beside the deployment's that name its images.
    fn other_files(&self, settled: &[Settled]) -> Vec<String> {
        let directory = self.app.store.directory();
        let ours: Vec<PathBuf> = self.scene.compose.files().all(compose::Generation::V2);
        let others = scene::other_compose_files(directory).into_iter().filter(|file| {
            !ours.contains(file) && !self.scene.written.services().any(|line| line.file == *file)
        });
        let names_ours = |file: &PathBuf| {
            let lines =
                compose::lines::read(directory, std::slice::from_ref(file)).unwrap_or_default();
            lines.iter().filter_map(|line| line.image.as_deref()).any(|image| {
                let image = image.parse::<Reference>().ok().map(|reference| reference.repository);
                image.is_some() && settled.iter().any(|settled| settled.service.image == image)
            })
        };
        others
            .filter(names_ours)
            .map(|file| {
                let file = file.display();
                format!(
                    "{file} names images of this deployment but is no part of it; `dkv pin \
                    {file}` keeps its digests current"
                )
            })
            .collect()
    }

    fn show_services(&self, report: &Migration) {
        let mut table =
            Table::new(&["SERVICE", "IMAGE", "VERSION", "DIGEST", "FROM", "COMPOSE SERVICES"]);
        for service in &report.services {
            let digest = service
                .digest
                .as_deref()
                .or(service.image_id.as_deref())
                .map_or("-", crate::report::short_digest);
            let from = if service.source == "local" { "local build" } else { service.found };
            table.row([
                Cell::new(&service.name, Style::Bold),
                Cell::plain(&service.image),
                Cell::plain(&service.tag),
                Cell::new(digest, Style::Dim),
                Cell::plain(from),
                Cell::plain(service.compose_services.join(", ")),
            ]);
        }
        if !report.services.is_empty() {
            self.app.ui.table(&table);
        }
    }

    /// What the operator should know besides the services.
    fn tell(&self, report: &Migration) {
        let ui = &self.app.ui;
        for service in &report.services {
            for note in &service.notes {
                ui.note(format!("{}: {note}", service.name));
            }
            if let Some(variable) = &service.env_tag {
                ui.note(format!(
                    "{}: the Compose files take its tag from {variable}, which versions.env sets",
                    service.name
                ));
            }
        }
        for note in &report.notes {
            ui.note(note);
        }
        for image in &report.untracked {
            let (names, first) = (image.compose_services.join(", "), &image.compose_services[0]);
            ui.note(format!(
                "not tracked: {} ({names}); `dkv migrate-versions --track {first}` adds it",
                image.image
            ));
        }
        let mut told = BTreeSet::new();
        // Services that share a line through an anchor or `extends` need it changed once.
        for change in
            report.compose_changes.iter().filter(|change| told.insert((&change.file, change.line)))
        {
            let line = change.line.map_or_else(String::new, |line| format!(":{line}"));
            let place = format!("{}{line}, {}", change.file, change.compose_service);
            let old = change
                .from
                .as_deref()
                .map_or_else(String::new, |from| format!("\n- image: {from}"));
            let what = match (&change.template, change.written) {
                (Some(template), _) => format!(
                    "is made from {template}; change it there to \
                    follow versions.env"
                ),
                (None, true) => "follows versions.env now".to_owned(),
                (None, false) if change.left.is_some() => {
                    let why = change.left.as_deref().unwrap_or_default();
                    format!(
                        "does not follow versions.env and is left as it is, with --write too: \
                        {why}"
                    )
                }
                (None, false) if self.options.write && self.options.dry_run => {
                    format!(
                        "would follow versions.env: {} would be written, after a \
                        backup",
                        change.file
                    )
                }
                (None, false)
                    if change.from.as_deref().is_some_and(|from| from.contains("@sha256:")) =>
                {
                    "does not follow versions.env; keep its digest current with `dkv pin`, or \
                        make it follow (--write)"
                        .to_owned()
                }
                (None, false) => "does not follow versions.env; with this one line it does \
                    (--write makes it)"
                    .to_owned(),
            };
            let new = match (&change.to, &change.left) {
                (Some(to), None) => format!("\n+ image: {to}"),
                _ => String::new(),
            };
            ui.note(format!("{place} {what}:{old}{new}"));
        }
        for other in &report.other_versions {
            let runs = other.runs.as_deref().map_or_else(String::new, |id| {
                format!(" (it runs {})", crate::report::short_digest(id))
            });
            let has = format!("{} has {}{runs}", other.compose_service, other.image);
            let recorded = format!("of {} {} is recorded", other.service, other.recorded);
            ui.warn(if other.will_change {
                format!("{has}, but {recorded}: the next start changes its version")
            } else {
                let line = report
                    .compose_changes
                    .iter()
                    .find(|change| change.compose_service == other.compose_service);
                let has_variables = line
                    .and_then(|change| change.from.as_ref())
                    .is_some_and(|from| from.contains('$'));
                let mend = match line.and_then(|change| change.template.as_ref()) {
                    Some(template) => format!(
                        "To change it, write the recorded version into \
                        {template}"
                    ),
                    None if has_variables => "To change it, write the recorded version \
                        there"
                        .to_owned(),
                    None => "`dkv pin` writes the recorded version there".to_owned(),
                };
                let name = env_name(&other.compose_service);
                let prefix = self.prefix();
                format!(
                    "{has}, but {recorded}: its line stays as it is. {mend}; variables of \
                     its own, {prefix}{name}_IMAGE and {prefix}{name}_TAG, make it a service of \
                     its own"
                )
            });
        }
        for tool in &report.other_tools {
            ui.warn(format!(
                "{}:{}: {}\ninstead: {}",
                tool.file, tool.line, tool.text, tool.instead
            ));
        }
    }

    fn conclude(&self, report: &Migration) {
        let ui = &self.app.ui;
        for difference in &report.differences {
            let why = if difference.line_does_not_follow {
                ", because its image line does not follow versions.env"
            } else {
                ""
            };
            ui.warn(format!(
                "{}: Compose would start {} now, not what runs ({}){why}",
                difference.compose_service,
                difference.would_start,
                crate::report::short_digest(&difference.runs)
            ));
        }
        let verb = if report.created { "wrote" } else { "added to" };
        let services: Vec<&str> =
            report.services.iter().map(|service| service.name.as_str()).collect();
        if !services.is_empty() {
            ui.status(format!("{verb} {}: {}", report.manifest, services.join(", ")));
        }
        let runs = self
            .scene
            .lines
            .iter()
            .any(|line| line.present.as_ref().is_some_and(|present| present.is_running));
        let is_literal =
            |change: &ComposeChange| change.from.as_deref().is_some_and(|from| !from.contains('$'));
        let lines = files_of(&report.compose_changes, |change| {
            !change.written
                && change.template.is_none()
                && (change.left.is_none() || is_literal(change))
        });
        if !lines.is_empty() {
            ui.status(format!(
                "Image lines in {} do not follow the manifest: until `dkv migrate-versions \
                    --write` or `dkv pin` changes them, \
                 Compose starts what they say, whatever is recorded",
                lines.into_iter().collect::<Vec<_>>().join(", ")
            ));
        }
        if runs && report.differences.is_empty() && report.other_versions.is_empty() {
            ui.status(
                "With versions.env, Compose starts exactly what runs now; nothing was \
                started or stopped",
            );
        } else if !runs {
            ui.status(
                "Nothing of this deployment runs, so there was nothing to compare; nothing \
                was started",
            );
        }
        ui.hint(
            "`dkv restart` starts everything from the manifest; `dkv pull-latest` looks for \
            updates",
        );
    }
}

/// The files with image lines that are `wanted`, each once.
fn files_of(changes: &[ComposeChange], wanted: impl Fn(&ComposeChange) -> bool) -> BTreeSet<&str> {
    changes.iter().filter(|change| wanted(change)).map(|change| change.file.as_str()).collect()
}

/// A Compose service's name as part of a variable's.
fn env_name(compose_service: &str) -> String {
    compose_service
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect()
}

fn untracked(proposals: &Proposals) -> Vec<UntrackedImage> {
    let image = |one: &plan_migrate::Untracked| UntrackedImage {
        image: one.image.clone(),
        compose_services: one.compose_services.clone(),
    };
    proposals.untracked.iter().map(image).collect()
}

fn migrated(settled: &Settled) -> MigratedService {
    let service = &settled.service;
    let current = service.current();
    MigratedService {
        name: service.name.to_string(),
        image: service.image.as_ref().map_or_else(String::new, ToString::to_string),
        tag: current
            .map_or_else(|| service.track_name().to_owned(), |current| current.tag.to_string()),
        digest: current.and_then(|current| current.bytes.digest.as_ref()).map(ToString::to_string),
        image_id: current
            .and_then(|current| current.bytes.image_id.as_ref())
            .map(ToString::to_string),
        source: if service.source == Source::Local { "local" } else { "registry" },
        found: settled.found,
        track: service.track_name().to_owned(),
        compose_services: service.compose_services.clone(),
        env_tag: service.env_tag.clone(),
        env_image: service.env_image.clone(),
        notes: settled.notes.clone(),
    }
}

fn ecr_value(ecr: &Ecr) -> Value {
    Value::mapping([
        ("registry", Value::text(&ecr.registry)),
        ("repository_alias", Value::text(&ecr.repository_alias)),
        ("use_private", Value::Bool(ecr.use_private)),
        ("private_registry", Value::text(&ecr.private_registry)),
        ("private_region", Value::text(&ecr.private_region)),
    ])
}
