//! `migrate-versions`: a manifest from what runs and what the Compose files say; with a manifest,
//! what it lacks.
//!
//! The evidence is gathered once, a pure plan proposes services, registries settle their versions,
//! and what comes of it is asked about, written and told.

mod evidence;
mod settle;
mod tell;
mod tools;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use chrono::Local;
use clap::Args;

use self::evidence::Evidence;
use self::settle::Settled;
use super::{Effect, changes};
use crate::app::{App, Exit};
use crate::change::{self, Change, Seen};
use crate::compose::ComposeFiles;
use crate::compose::rewrite::{self, Rewritten};
use crate::compose::template::is_template;
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::error;
use crate::images::Arrived;
use crate::lookup::Lookup;
use crate::members::{Use, plain};
use crate::model::image_line::Entry;
use crate::model::interpolation::Template;
use crate::model::manifest::{Ecr, Listing, Manifest, Service};
use crate::model::reference::{Platform, Reference};
use crate::model::yaml::{self, Value};
use crate::plan::migrate::{self as plan, Build, Choice, Line, Proposal};
use crate::plan::{Step, keep_tag};
use crate::report::migrate::{ComposeChange, Difference, MigratedService, Migration, OtherTool};
use crate::store::{self, Replacement, Snapshot};

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
    /// Track the image of this service, too, although it holds data, is plumbing or was left out
    #[arg(long, value_name = "SERVICE")]
    track: Vec<String>,
    /// Leave this service out, now and later; with a manifest, takes it out with its history
    #[arg(long, value_name = "SERVICE")]
    untrack: Vec<String>,
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
        let deployment = Deployment::open(app)?;
        if !self.dry_run {
            let env = deployment.recorded().map(|record| record.env_path(&app.store));
            app.store.check_writable(env.as_deref())?;
        }
        if let Err(error) = app.decrypt().await {
            // Few image lines need a secret; if one does, Compose will say so.
            app.ui.warn(format!("going on without the encrypted environment: {error:#}"));
        }
        let prefix = deployment.recorded().map(|record| record.manifest.env.prefix.clone());
        let prefix = prefix.unwrap_or_else(|| PREFIX.to_owned());
        let tools = tools::find(app.store.directory());
        Migrating { app, options: self, deployment, prefix, tools }.run().await
    }
}

/// One migration.
struct Migrating<'a> {
    app: &'a App,
    options: MigrateVersions,
    deployment: Deployment<'a>,
    /// What variable names begin with.
    prefix: String,
    tools: Vec<OtherTool>,
}

impl<'a> Migrating<'a> {
    async fn run(mut self) -> Result<Exit> {
        let (app, docker) = (self.app, self.daemon().await?);
        let evidence = evidence::gather(&mut self.deployment, docker).await?;
        let mut choice = self.choice(&evidence)?;
        let mut proposal = self.propose(&evidence, &choice);
        let report = self.report(&evidence, &proposal, &[]);
        let is_new = self.deployment.recorded().is_none();
        let listing = self.listing(&evidence, &proposal);
        if !is_new
            && proposal.services.is_empty()
            && proposal.narrowed.is_empty()
            && listing.is_empty()
            && !self.rewrites(&report)
        {
            app.show(&report, |report| {
                app.ui.status("The manifest has every service already; nothing to add");
                self.tell(report);
            })?;
            return Ok(exit(!report.other_versions.is_empty()));
        }
        if !self.takes_defaults() && !app.settings.json {
            self.show_lists(&proposal);
        }
        let manifest = if is_new { Some(self.ask_header(&evidence, &proposal)?) } else { None };
        if self.ask_lists(&proposal, &mut choice)? {
            proposal = self.propose(&evidence, &choice);
        }
        let listing = self.listing(&evidence, &proposal);
        let settled = self.settle(docker, &proposal, manifest.as_ref()).await?;
        let mut report = self.report(&evidence, &proposal, &settled);
        report.notes.extend(self.files_beside(&settled)?);
        let services: Vec<Service> = settled.into_iter().map(|one| one.service).collect();
        let text = {
            let changed = [services.as_slice(), &proposal.narrowed].concat();
            match &manifest {
                Some(manifest) => manifest.with(&changed, &listing)?,
                None => self.deployment.record()?.manifest.with(&changed, &listing)?,
            }
        };
        // What cannot be written is known before anything is, and before anything is shown.
        let files = if self.rewrites(&report) { self.rewritten(&mut report)? } else { Vec::new() };
        if self.options.dry_run {
            app.show(&report, |report| self.tell_dry_run(report, &text))?;
            return Ok(exit(!report.other_versions.is_empty()));
        }
        if !self.options.yes && !app.settings.json {
            self.show_services(&report);
        }
        self.confirm(!files.is_empty())?;
        if let Some(docker) = docker {
            keep(app, docker, &services, &app.store.deployment_hash()?).await?;
        }
        for change in report.compose_changes.iter_mut().filter(|one| one.is_writable()) {
            change.written = !files.is_empty();
        }
        if let Some(docker) = docker {
            let changes = &report.compose_changes;
            report.differences = self.differences(docker, &evidence, &text, changes).await?;
        }
        let narrowed = std::mem::take(&mut proposal.narrowed);
        report.files = self.write(text, services, narrowed, listing)?;
        self.replace(&files)?;
        let is_off = !report.other_versions.is_empty()
            || report.differences.iter().any(|difference| !difference.line_does_not_follow);
        app.show(&report, |report| {
            if self.options.yes {
                self.show_services(report);
            }
            self.tell(report);
            self.conclude(report, evidence.lines.iter().any(|line| line.running().is_some()));
        })?;
        Ok(exit(is_off))
    }

    /// The daemon; none where there is none at all and the operator goes on without. One that is
    /// there and does not answer could run other versions than registries name, so that is an error.
    async fn daemon(&self) -> Result<Option<&'a Docker>> {
        let app = self.app;
        let error = match app.docker().await {
            Ok(docker) => return Ok(Some(docker)),
            Err(error) => error,
        };
        let host = app.environment.docker_host().unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let has_socket = app.environment.docker_context().is_some()
            || match host.strip_prefix("unix://") {
                Some(path) => store::look(Path::new(path))?.is_some(),
                None => true,
            };
        if has_socket {
            return Err(error);
        }
        app.ui.warn(format!("what runs cannot be seen: {error:#}"));
        let question = "Go on with what the Compose files and registries say?";
        match app.ui.confirm(question, self.takes_defaults(), &app.command)? {
            true => Ok(None),
            false => Err(error),
        }
    }

    fn propose<'l>(&self, evidence: &'l Evidence, choice: &Choice) -> Proposal<'l> {
        let known = self.deployment.recorded().map(|record| (&record.manifest, record.members()));
        plan::propose(&evidence.lines, known, &self.prefix, choice)
    }

    /// What the command line says of what is tracked, and that it says it of what is there.
    fn choice(&self, evidence: &Evidence) -> Result<Choice> {
        let MigrateVersions { track, untrack, .. } = &self.options;
        let mut choice = Choice::default();
        let known: Vec<&str> = evidence.lines.iter().map(Line::name).collect();
        for name in track {
            let Some(uses) = self.uses_of(name, evidence, &known) else {
                return Err(error::usage(format!(
                    "neither the manifest nor the Compose files have a service `{name}` with an \
                     image"
                ))
                .with_hint(format!("the Compose files have {}", known.join(", ")))
                .into());
            };
            choice.track.extend(uses);
        }
        let proposal = self.propose(evidence, &choice);
        for name in untrack {
            if !self.leave_out(name, &proposal, &known, &mut choice) {
                return Err(error::usage(format!(
                    "neither the manifest nor the Compose files have a service `{name}`"
                ))
                .with_hint(format!("the Compose files have {}", known.join(", ")))
                .into());
            }
        }
        match choice.track.intersection(&choice.untrack).next() {
            None => Ok(choice),
            Some(both) => {
                Err(error::usage(format!("`{both}` cannot be both tracked and left out")).into())
            }
        }
    }

    /// The Compose services of what `name` is: one of them, or the service that the manifest calls
    /// so, or would call so if everything were tracked. Those that it has are tracked already.
    fn uses_of(&self, name: &str, evidence: &Evidence, known: &[&str]) -> Option<Vec<String>> {
        if known.contains(&name) {
            return Some(vec![name.to_owned()]);
        }
        let record = self.deployment.recorded();
        if record.is_some_and(|record| {
            name.parse().is_ok_and(|name| record.manifest.find(&name).is_some())
        }) {
            return Some(Vec::new());
        }
        let track = known.iter().map(|name| (*name).to_owned()).collect();
        let whole = self.propose(evidence, &Choice { track, ..Choice::default() });
        let names = whole.services.into_iter().map(|new| new.service);
        let mut alike = names.filter(|service| plain(service.name.as_str()) == plain(name));
        Some(alike.next()?.compose_services)
    }

    /// Leaves out what `name` is: a service of the manifest, one to be added, or a Compose service.
    fn leave_out(
        &self,
        name: &str,
        proposal: &Proposal<'_>,
        known: &[&str],
        choice: &mut Choice,
    ) -> bool {
        let record = self.deployment.recorded();
        let recorded = record.and_then(|record| record.manifest.find(&name.parse().ok()?));
        let new = proposal.services.iter().find(|new| new.service.name.as_str() == name);
        if let Some(service) = recorded {
            choice.remove.insert(service.name.clone());
        } else if let Some(new) = new {
            choice.untrack.extend(new.service.compose_services.iter().cloned());
        } else if known.contains(&name) {
            choice.untrack.insert(name.to_owned());
        } else {
            return false;
        }
        true
    }

    /// What the manifest shall list besides new services.
    fn listing(&self, evidence: &Evidence, proposal: &Proposal<'_>) -> Listing {
        let record = self.deployment.recorded();
        let before = record.map(|record| record.manifest.untracked.as_slice()).unwrap_or_default();
        let untracked = Some(proposal.left_out.clone()).filter(|after| after != before);
        let project = evidence.project.clone();
        Listing { removed: proposal.removed.clone(), untracked, project }
    }

    /// What is known before anything is written.
    fn report(
        &self,
        evidence: &Evidence,
        proposal: &Proposal<'_>,
        settled: &[Settled],
    ) -> Migration {
        let new = settled.iter().flat_map(|settled| settled.others.clone());
        let other_versions: Vec<_> = proposal.others.iter().cloned().chain(new).collect();
        let mut compose_changes = proposal.changes.clone();
        plan::leave_alone(&mut compose_changes, &other_versions);
        let mut notes = [evidence.notes.as_slice(), &proposal.notes].concat();
        notes.extend(self.used_elsewhere(settled));
        let services = settled
            .iter()
            .map(|one| MigratedService::of(&one.service, one.found, &one.reason, &one.notes))
            .collect();
        let settled: Vec<&Service> = settled.iter().map(|one| &one.service).collect();
        Migration {
            stay: changes::how_to_follow_a_line(&settled),
            dry_run: self.options.dry_run,
            manifest: self.app.store.manifest_path().display().to_string(),
            created: self.deployment.recorded().is_none(),
            services,
            removed: proposal.removed.clone(),
            untracked: proposal.untracked.clone(),
            compose_changes,
            other_versions,
            other_tools: self.tools.clone(),
            notes,
            ..Migration::default()
        }
    }

    /// Whether Compose files are to be written.
    fn rewrites(&self, report: &Migration) -> bool {
        self.options.write && report.compose_changes.iter().any(ComposeChange::is_writable)
    }

    fn takes_defaults(&self) -> bool {
        self.options.yes || self.options.dry_run
    }

    fn ask(&self, question: &str, default: &str) -> Result<String> {
        self.app.ui.ask(question, default, self.takes_defaults(), &self.app.command)
    }

    /// A manifest without services.
    fn ask_header(&self, evidence: &Evidence, proposal: &Proposal<'_>) -> Result<Manifest> {
        let directory = std::path::absolute(self.app.store.directory())
            .context("cannot find the current directory")?;
        let name = directory.file_name().unwrap_or("deployment".as_ref()).to_string_lossy();
        let day = self.app.now.with_timezone(&Local).format("%Y%m%d");
        let deployment = self.ask("Deployment", &format!("{name}-{day}"))?;
        let customer = self.ask("Customer (may stay empty)", "")?;
        let mut entries = vec![
            ("schema_version", Value::text("1.1")),
            ("deployment_id", Value::text(deployment)),
            ("customer_id", Value::text(customer)),
        ];
        let images = proposal.services.iter().filter_map(|new| new.service.image.as_ref());
        entries.extend(plan::ecr_of(images).map(|ecr| ("ecr", ecr_value(&ecr))));
        if let Some([files, databases]) = &evidence.configured {
            let mut compose = vec![("files", list(files))];
            if !databases.is_empty() {
                compose.push(("db_files", list(databases)));
            }
            entries.push(("compose", Value::mapping(compose)));
        }
        Ok(Manifest::read(yaml::emit(&Value::mapping(entries)).as_bytes())?)
    }

    /// Lets the operator move services from one list to the other, unless the command line did;
    /// whether anything was moved.
    fn ask_lists(&self, proposal: &Proposal<'_>, choice: &mut Choice) -> Result<bool> {
        let has_answer = !self.options.track.is_empty() || !self.options.untrack.is_empty();
        let left = proposal.untracked.iter().flat_map(|image| &image.compose_services);
        let left: Vec<&str> = left.map(String::as_str).collect();
        if has_answer || left.len() + proposal.services.len() < 2 {
            return Ok(false);
        }
        let question = match left.as_slice() {
            [] => "Leave any of these out (names)?".to_owned(),
            left => format!(
                "Not tracked: {}. Track any of these, or leave any of the others out (names)?",
                left.join(", ")
            ),
        };
        let answer = self.ask(&question, "none")?;
        let words = answer.split([' ', ',']).filter(|word| !word.is_empty() && *word != "none");
        let of_new = proposal.services.iter().flat_map(|new| &new.service.compose_services);
        let new: Vec<&str> = of_new.map(String::as_str).collect();
        let mut has_moved = false;
        for name in words {
            has_moved = true;
            if left.contains(&name) {
                choice.track.insert(name.to_owned());
            } else if !self.leave_out(name, proposal, &new, choice) {
                let all = [new, left].concat().join(", ");
                return Err(error::usage(format!("`{name}` is none of {all}")).into());
            }
        }
        Ok(has_moved)
    }

    fn confirm(&self, rewrites: bool) -> Result<()> {
        let record = self.deployment.recorded();
        let env = record.map_or("versions.env", |record| record.manifest.env.file.as_str());
        let files = if rewrites { ", and the Compose files" } else { "" };
        let question = format!("Write {} and {env}{files}?", self.app.store.manifest_name());
        match self.ask(&question, "yes")?.to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(error::usage("not confirmed; nothing was written").into()),
        }
    }

    async fn settle(
        &self,
        docker: Option<&Docker>,
        proposal: &Proposal<'_>,
        manifest: Option<&Manifest>,
    ) -> Result<Vec<Settled>> {
        let platform = match docker {
            Some(docker) => Some(docker.platform().await?.clone()),
            None => None,
        };
        let known = self.deployment.recorded().map(|record| &record.manifest);
        let ecr = known.or(manifest).and_then(|manifest| manifest.ecr.clone());
        let has_credentials = self.app.environment.has_aws_credentials();
        let platform = platform.unwrap_or_else(Platform::of_this_program);
        let lookup = Lookup::new(self.app.registry().clone(), ecr, has_credentials, Some(platform));
        let lookup = lookup.closely();
        let asked = proposal.services.iter().filter(|new| new.build != Build::Only);
        lookup.expect(&asked.map(|new| &new.service).collect::<Vec<_>>()).await;
        let services = proposal.services.iter();
        let work = services.map(|new| settle::settle(self.app, &lookup, new, &self.prefix));
        futures_util::future::try_join_all(work).await
    }

    /// Variables that will carry `tag@digest` and that the Compose files use for something else,
    /// too.
    fn used_elsewhere(&self, settled: &[Settled]) -> Vec<String> {
        let Ok(texts) = self.deployment.texts() else { return Vec::new() };
        let mut notes = Vec::new();
        for variable in settled.iter().filter_map(|settled| settled.service.env_tag.as_deref()) {
            let spellings = [format!("${variable}"), format!("${{{variable}")];
            for text in texts.texts().filter(|text| texts.is_deployed(text)) {
                let elsewhere = text.document.source().lines().position(|line| {
                    !line.contains("image:") && spellings.iter().any(|one| line.contains(one))
                });
                notes.extend(elsewhere.map(|index| {
                    format!(
                        "{}, line {}: {variable} is used outside of an image line; it will carry \
                        the digest there as well",
                        text.name(),
                        index + 1
                    )
                }));
            }
        }
        notes
    }

    /// Compose files beside the deployment's that name its images.
    fn files_beside(&mut self, settled: &[Settled]) -> Result<Vec<String>> {
        self.deployment.read_beside()?;
        let texts = self.deployment.texts()?;
        let is_ours = |image: &str| {
            let image = image.parse::<Reference>().ok().map(|reference| reference.repository);
            image.is_some() && settled.iter().any(|settled| settled.service.image == image)
        };
        let others = texts.texts().filter(|text| {
            text.named_by.is_none() && !texts.is_deployed(text) && !is_template(&text.name())
        });
        let naming = others.filter(|text| text.sites.iter().any(|site| is_ours(&site.image)));
        Ok(naming
            .map(|text| {
                let file = text.name();
                format!(
                    "{file} names images of this deployment but is no part of it; `dkv pin {file}` \
                    keeps its digests current"
                )
            })
            .collect())
    }

    /// The Compose files as they were read, and with the image lines changed that no template makes.
    /// A line that cannot be changed is left, with the reason.
    fn rewritten(&self, report: &mut Migration) -> Result<Vec<(Snapshot, String)>> {
        let texts = self.deployment.texts()?;
        let targets = targets(texts, &report.compose_changes);
        let mut files: BTreeMap<&str, BTreeMap<Entry, String>> = BTreeMap::new();
        for target in &targets {
            let images = files.entry(&target.file).or_default();
            images.insert(target.entry.clone(), target.image.clone());
        }
        let mut new = Vec::new();
        for (file, images) in files {
            let text =
                texts.text(Path::new(file)).with_context(|| format!("`{file}` was not read"))?;
            let source = text.document.source();
            let Rewritten { text: rewritten, refused } = rewrite::set_images(source, &images)
                .map_err(|error| {
                    error::state(format!("`{file}` cannot be changed: {error:#}"))
                        .with_hint("nothing was written; mend that line")
                })?;
            for (target, why) in targets
                .iter()
                .filter(|target| target.file == file)
                .filter_map(|target| Some((target, refused.get(&target.entry)?)))
            {
                for change in report
                    .compose_changes
                    .iter_mut()
                    .filter(|change| target.users.contains(&change.compose_service))
                {
                    change.left.get_or_insert_with(|| why.clone());
                }
            }
            if rewritten != source {
                new.push((text.snapshot.clone(), rewritten));
            }
        }
        Ok(new)
    }

    /// Replaces Compose files, each backed up first.
    fn replace(&self, files: &[(Snapshot, String)]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let (lock, stamp) = (self.app.lock_state()?, self.app.backup_stamp());
        let mut replacements = Vec::new();
        for (old, new) in files {
            let name = old.path.file_name().unwrap_or_default().to_string_lossy();
            self.app.store.back_up(&lock, &name, old, &stamp)?;
            replacements.push(Replacement {
                path: old.path.clone(),
                bytes: new.clone().into_bytes(),
                before: Some(old.clone()),
                owner_like: old.path.clone(),
            });
        }
        store::replace_all(&replacements, "`dkv migrate-versions --write` again does the rest")
    }

    fn write(
        &mut self,
        text: String,
        services: Vec<Service>,
        narrowed: Vec<Service>,
        listing: Listing,
    ) -> Result<crate::report::Files> {
        if self.deployment.recorded().is_none() {
            return change::create(&mut self.deployment, text);
        }
        let steps = services.into_iter().map(|service| Step {
            before: Service::new(service.name.clone(), None),
            ..Step::unchanged(&service)
        });
        let mut steps: Vec<Step> = steps.collect();
        let record = self.deployment.record()?;
        steps.extend(narrowed.into_iter().filter_map(|after| {
            let before = record.service(&after.name)?.clone();
            Some(Step { before, ..Step::unchanged(&after) })
        }));
        let mut change = Change::of(steps);
        change.listing = listing;
        Ok(change.commit(&mut self.deployment)?.files)
    }

    /// Where Compose, with the new `versions.env`, would start another image than runs now.
    async fn differences(
        &self,
        docker: &Docker,
        evidence: &Evidence,
        text: &str,
        changes: &[ComposeChange],
    ) -> Result<Vec<Difference>> {
        let path = store::resolve(self.app.store.manifest_path())?;
        let planned = Snapshot::planned(path, text.as_bytes().to_vec());
        let record = self.deployment.interpret_written(planned)?;
        let variables: BTreeMap<String, String> = record.assignments()?.into_iter().collect();
        let project = self.deployment.project_with(&variables).await?;
        let lookup =
            |name: &str| variables.get(name).cloned().or_else(|| self.deployment.variable(name));
        let mut differences = Vec::new();
        for line in &evidence.lines {
            let (name, Some(runs)) = (line.name(), line.running()) else { continue };
            let change = changes.iter().find(|change| change.compose_service == *name);
            let new = change.filter(|change| change.written).and_then(|change| change.to.as_ref());
            let new = new.and_then(|new| Template::parse(new).ok());
            let template = new.as_ref().or_else(|| self.deployment.template(name));
            let image = match &new {
                Some(new) => new.evaluate(&lookup).ok(),
                None => project.service(name).and_then(|service| service.image.clone()),
            };
            let Some(image) = image else { continue };
            let reference = image.parse::<Reference>().ok();
            let platform = line.platform.as_ref();
            let found = Use { name, line: template, image: reference.as_ref(), platform };
            let members = record.members();
            let Some(service) =
                members.find(&found).service().and_then(|name| record.service(name))
            else {
                continue;
            };
            let digest = reference.as_ref().and_then(|reference| reference.digest.as_ref());
            // What a registry has under the digest may be here without it, loaded from an archive.
            let current = service.current().map(|current| &current.bytes);
            let is_recorded = current.is_some_and(|bytes| {
                bytes.image_id.as_ref() == Some(&runs.image_id)
                    && digest.is_some_and(|digest| bytes.has_digest(digest))
            });
            let is_same =
                digest.is_some_and(|digest| runs.digests.iter().any(|(_, known)| known == digest));
            if is_same
                || is_recorded
                || docker.image(&image).await?.is_some_and(|one| one.id == runs.image_id)
            {
                continue;
            }
            differences.push(Difference {
                compose_service: name.to_owned(),
                runs: runs.image_id.to_string(),
                would_start: image,
                line_does_not_follow: change.is_some_and(|change| !change.written),
            });
        }
        Ok(differences)
    }
}

/// An image line to write.
struct Target {
    file: String,
    /// The service of the file.
    entry: Entry,
    image: String,
    /// The Compose services for which it is written.
    users: Vec<String>,
}

/// Where lines are changed: where they stand if all Compose services that extend the one there shall
/// have the same, else each service gets its own.
fn targets(texts: &ComposeFiles, changes: &[ComposeChange]) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut add = |file: &str, entry: &Entry, image: &str, user: &str| match targets
        .iter_mut()
        .find(|one| one.file == file && one.entry == *entry)
    {
        Some(target) => target.users.push(user.to_owned()),
        None => targets.push(Target {
            file: file.to_owned(),
            entry: entry.clone(),
            image: image.to_owned(),
            users: vec![user.to_owned()],
        }),
    };
    let wanted = |service: &str| {
        let is_it = |one: &&ComposeChange| one.is_writable() && one.compose_service == service;
        changes.iter().find(is_it).and_then(|change| change.to.as_deref())
    };
    for change in changes.iter().filter(|change| change.is_writable()) {
        let Some(to) = change.to.as_deref() else { continue };
        let users = || {
            texts.services().filter(|line| {
                line.place.as_ref().is_some_and(|place| {
                    place.entry == change.there && place.file.as_os_str() == change.file.as_str()
                })
            })
        };
        let is_own = change.own == change.there && change.file == change.own_file;
        if is_own || users().all(|user| wanted(&user.service) == Some(to)) {
            add(&change.file, &change.there, to, &change.compose_service);
        } else {
            add(&change.own_file, &change.own, to, &change.compose_service);
        }
        // Who extends it and shall stay what it is keeps its text.
        let extending = users().filter(|user| is_own && user.service != change.compose_service);
        for (user, text) in extending
            .filter(|user| wanted(&user.service).is_none())
            .filter_map(|user| Some((user, user.image_text()?)))
        {
            let file = user.file.display().to_string();
            let own = Entry { document: user.document, service: user.service.clone() };
            add(&file, &own, text, &change.compose_service);
        }
    }
    targets
}

fn exit(is_off: bool) -> Exit {
    if is_off { Exit::Different } else { Exit::Done }
}

/// Gives what is local its keep-tags, so that nothing takes it away any more.
async fn keep(app: &App, docker: &Docker, services: &[Service], hash: &str) -> Result<()> {
    let mut here = Vec::new();
    for service in services {
        let Some(current) = service.current() else { continue };
        let id = current.bytes.image_id.as_ref();
        if let (Some(image), Some(id), Some(keep)) = (&service.image, id, keep_tag(current, hash)) {
            let Some(found) = docker.image(id.as_str()).await? else {
                app.ui.warn(format!(
                    "{}: the image that runs ({}) is not on this host any more, because a later \
                    build or pull took its name: once its container is gone, nothing can start it \
                    again",
                    service.name,
                    id.short()
                ));
                continue;
            };
            docker.tag(id.as_str(), image, &keep).await?;
            here.push((service, current, Arrived { image: found, pulled: false, is_named: true }));
        }
    }
    let seen = here.iter().map(|(service, release, arrived)| Seen {
        service,
        release,
        arrived,
        may_ask: false,
    });
    change::Evidence::gather(app, &seen.collect::<Vec<_>>()).await.keep_alone(app)
}

fn list(names: &[String]) -> Value {
    Value::Sequence(names.iter().map(Value::text).collect())
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
