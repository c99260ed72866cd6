//! What runs is noted, what shall run is found and pulled; nothing is stopped yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::{Order, RunningUpdate, forget_kept};
use crate::app::{App, Exit};
use crate::change::Change;
use crate::clock;
use crate::commands::generate_env;
use crate::commands::pull;
use crate::commands::pull_latest::LatestOptions;
use crate::commands::run::{Launch, StartOptions, stopped};
use crate::compose::{Generation, Project};
use crate::deployment::{Deployment, Record, Stray};
use crate::docker::{ContainerDetail, ContainerState, Docker};
use crate::error;
use crate::followers::followers;
use crate::health;
use crate::images::Wanted;
use crate::model::env_file::Pin;
use crate::model::history::{Bytes, Release};
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Digest, Reference, Repository, ServiceName, Tag};
use crate::plan::{self, KEEP_TAG_PREFIX, Step};
use crate::report::ServiceChange;
use crate::runtime::{self, Fewer};
use crate::store::Lock;
use crate::update::{Goal, Journal, Kept, Ran, Setting, Target, main_container, to_replace};

impl<'a> RunningUpdate<'a> {
    /// Notes what runs, on the disk too, and keeps its images from being pruned.
    pub(super) async fn note(app: &'a App, lock: &'a Lock, order: Order) -> Result<Self> {
        let mut update = Self::observe(app, Some(lock), order).await?;
        let record = update.record()?;
        record.check_writable(&app.store)?;
        let mut kept = Vec::new();
        for service in record.services() {
            if let Some(ran) = main_container(&update.journal.ran, &service.name) {
                kept.extend(keep(&update.docker, service, ran, record).await?);
            }
        }
        update.journal.kept = kept;
        update.write_journal()?;
        match update.keep_images().await {
            Ok(()) => Ok(update),
            Err(error) => {
                // Nothing was stopped: there is nothing to take up.
                forget_kept(app, update.launch.deployment.recorded(), &update.journal).await;
                update.remove_journal()?;
                Err(error)
            }
        }
    }

    /// Gives what runs the tags that keep it.
    async fn keep_images(&self) -> Result<()> {
        for kept in &self.journal.kept {
            self.docker.tag(kept.image_id.as_str(), &kept.repository, &kept.keep_tag).await?;
        }
        Ok(())
    }

    /// Looks at what runs; changes nothing.
    async fn observe(app: &'a App, lock: Option<&'a Lock>, order: Order) -> Result<Self> {
        let Order { options, goal, change } = order;
        app.decrypt().await?;
        let mut launch = Launch::assemble(
            app,
            StartOptions { timeout: options.timeout, ..StartOptions::default() },
        )?;
        launch.deployment.record()?;
        if let Some(lock) = lock {
            launch.deployment.hold(lock)?;
        }
        if let Some(change) = &change {
            change.check_still(launch.deployment.record()?)?;
        }
        let docker = app.docker().await?.clone();
        let project = launch.deployment.project().await?.clone();
        launch.deployment.check_compose(&launch.environment).await?;
        let expectations = launch.expectations(&project);
        let found =
            health::snapshot(&docker, &project.name, &expectations, launch.limits(), clock::now())
                .await?;
        let tracked = launch.deployment.tracked(&project);
        generate_env::warn_of_strangers(&launch.deployment, &project);
        let ran = found.containers.iter().filter_map(|judged| {
            let container = judged.container.as_ref()?;
            Some(Ran {
                compose_service: judged.service.clone(),
                service: tracked.get(&judged.service).map(|service| service.name.clone()),
                container: container.id.clone(),
                name: container.name.clone(),
                image_id: container.image_id.clone(),
                image: container.image.clone(),
                is_running: matches!(
                    container.state,
                    ContainerState::Running | ContainerState::Restarting
                ),
                is_good: judged.verdict.is_good(),
                patience: match container.has_health_check {
                    true => container.health_check.patience(),
                    false => Duration::ZERO,
                },
                networks: container.networks.clone(),
            })
        });
        let stamp = app.stamp();
        let mut journal = Journal::new(&project.name, stamp.at, stamp.by, options);
        journal.goal = goal;
        journal.setting = Some(setting(&launch.deployment, &project.name).await?);
        journal.ran = ran.collect();
        let containers = found.containers.iter().filter_map(|judged| judged.container.as_ref());
        let containers: Vec<&ContainerDetail> = containers.collect();
        journal.counts = runtime::counts(&project, &containers, Fewer::Kept);
        journal.left_stopped = stopped(app, &project, &containers).await?;
        journal.completed = runtime::completed(&project, &containers, &journal.left_stopped);
        journal.awake = launch.deployment.awake();
        let failing = found.failing_services().filter(|name| !journal.left_stopped.contains(*name));
        journal.failing = failing.map(str::to_owned).collect();
        for failing in &journal.failing {
            app.ui.warn(format!("{failing} is not as it should be already before the update"));
        }
        let update = Self::new(app, lock, launch, docker, project, journal);
        Ok(Self { change, ..update })
    }

    /// What becomes of the record: what was planned already, else what the tracked tags name.
    async fn plan(&mut self, dry_run: bool) -> Result<Change> {
        let mut change = match self.change.take() {
            Some(change) => change,
            None => plan(&self.launch.deployment, &self.journal, dry_run).await?,
        };
        if !self.journal.goal.is_whole() {
            self.leave_stopped(&mut change);
        }
        Ok(change)
    }

    /// The services that are to run what `change` records. Of what comes back beside a release that
    /// stays, nothing is started.
    fn targets<'c>(&self, change: &'c Change) -> Vec<&'c Service> {
        let is_whole = self.journal.goal.is_whole();
        let steps = change.steps.iter().filter(|step| !is_whole || step.has_other_bytes());
        let mut targets: Vec<&Service> = steps.map(|step| &step.after).collect();
        targets.retain(|service| {
            service.current().is_some() && !(is_whole && self.journal.is_stopped(&service.name))
        });
        targets
    }

    /// Finds what the tracked tags name, pulls it, and decides what is replaced.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        let mut change = self.plan(false).await?;
        self.others = change.others().to_vec();
        change.fetch(self.app, self.record()?).await?;
        if change.has_failed() {
            change.check(false, NOTHING_STOPPED)?;
        }
        let wanted = image_ids(&self.targets(&change));
        self.decide(&wanted, &mut change);
        self.leave_unproven(&mut change);
        let targets = self.targets(&change);
        self.journal.plan.targets = targets
            .iter()
            .filter_map(|service| Some(Target::new(&service.name, service.current()?)))
            .collect();
        let replaced = self.settle_variables(&targets).await?;
        self.change = Some(change);
        self.pull = self.launch.ensure_names(&replaced, &mut Vec::new()).await?;
        self.launch.tell_of_counts(&replaced, &self.journal.counts);
        Ok(())
    }

    /// Settles what Compose is told before and after, and returns what is replaced.
    ///
    /// # Errors
    ///
    /// What is replaced would not run what it is told, or Compose would fail at it (exit 3).
    async fn settle_variables(&mut self, targets: &[&Service]) -> Result<Project> {
        let tags = self.tags(targets).await?;
        let record = self.record()?;
        let before = record.assignments_with(|service| self.kept(service))?;
        let after = record.assignments_with(|service| {
            tags.get(&service.name).cloned().or_else(|| self.kept(service))
        })?;
        self.journal.plan.variables_before = before.into_iter().collect();
        self.journal.plan.variables_after = after.into_iter().collect();
        self.check_effect(&tags).await?;
        let mut replaced = self.project.clone();
        replaced.services.retain(|service| self.journal.is_replaced(&service.name));
        self.launch.refuse(&replaced, &|_| true).await?;
        Ok(replaced)
    }

    /// Leaves services alone that were stopped on purpose: what cannot be tried is not recorded.
    fn leave_stopped(&self, change: &mut Change) {
        change.steps.retain(|step| !self.journal.is_stopped(&step.before.name));
        if !self.journal.left_stopped.is_empty() {
            let names: Vec<&str> = self.journal.left_stopped.iter().map(String::as_str).collect();
            self.app.ui.status(format!(
                "Left as it was stopped: {}; `dkv up` starts it",
                names.join(", ")
            ));
        }
    }

    /// Leaves services alone of which the new release runs already and is not as it should be: what
    /// nobody has seen to be good is not recorded.
    fn leave_unproven(&mut self, change: &mut Change) {
        if self.journal.goal.is_whole() {
            return;
        }
        let (journal, tracked) = (&self.journal, self.tracked_names());
        let steps = std::mem::take(&mut change.steps).into_iter();
        let (unproven, steps): (Vec<Step>, Vec<Step>) =
            steps.partition(|step| step.is_change() && journal.is_unproven(&step.before.name));
        change.steps = steps;
        self.unproven = unproven.iter().map(|step| step.before.name.clone()).collect();
        self.others.extend(unproven.iter().map(|step| {
            let why = "what its tag names runs already, and is not as it should be".to_owned();
            ServiceChange::skipped(&step.before, why)
        }));
        for step in &mut change.steps {
            let name = &step.before.name;
            let has_ran = journal.ran.iter().any(|ran| ran.service.as_ref() == Some(name));
            let is_started = journal.plan.changed.iter().any(|one| tracked.get(one) == Some(name));
            if step.is_change() && !has_ran && !is_started {
                step.notes.push("not tried, as nothing of it runs".to_owned());
            }
        }
    }

    /// Decides which Compose services are replaced, so that the services of the manifest run the
    /// images that are `wanted`. What `change` goes on without stays as it is.
    fn decide(&mut self, wanted: &BTreeMap<ServiceName, Digest>, change: &mut Change) {
        let (journal, tracked) = (&self.journal, self.tracked_names());
        let mut changed = to_replace(&self.project, &tracked, &journal.ran, wanted);
        changed.retain(|name| {
            let is_put_off = tracked.get(name).is_some_and(|service| change.goes_without(service));
            !journal.left_stopped.contains(name) && !is_put_off
        });
        self.put_off = change.take_failures();
        let owner = |name: &str| journal.owner(name).map(str::to_owned);
        let mut followers = followers(&self.project, &changed, &owner);
        // What does not run hangs on to nothing.
        followers.retain(|name| {
            journal.ran.iter().any(|ran| ran.compose_service == *name && ran.is_running)
        });
        (self.journal.plan.changed, self.journal.plan.followers) = (changed, followers);
    }

    /// What Compose gets as repository and tag of the new releases.
    async fn tags(
        &self,
        targets: &[&Service],
    ) -> Result<BTreeMap<ServiceName, (Repository, String)>> {
        let record = self.record()?;
        let mut tags = BTreeMap::new();
        for service in targets {
            let (Some(repository), Some(current)) = (&service.image, service.current()) else {
                continue;
            };
            let keep = plan::keep_tag(current, &record.hash);
            let image_id = current.bytes.image_id.as_ref();
            let tag = tag_for_compose(
                &self.docker,
                service,
                record.manifest.env.pin,
                repository,
                current,
                image_id,
                keep,
            );
            tags.insert(service.name.clone(), (repository.clone(), tag.await?));
        }
        Ok(tags)
    }

    /// What brings back the image that a service ran; services that are left alone keep it.
    fn kept(&self, service: &Service) -> Option<(Repository, String)> {
        let kept = self.journal.kept.iter().find(|kept| kept.service == service.name)?;
        Some((kept.repository.clone(), kept.tag.clone()))
    }

    /// Makes sure that the Compose files follow the variables: else the new images would never run.
    async fn check_effect(
        &mut self,
        tags: &BTreeMap<ServiceName, (Repository, String)>,
    ) -> Result<()> {
        if self.journal.plan.changed.is_empty() {
            return Ok(());
        }
        let project =
            self.launch.deployment.project_with(&self.journal.plan.variables_after).await?;
        let tracked = self.tracked_names();
        let literal = self.journal.plan.changed.iter().filter(|name| {
            let Some((_, tag)) = tracked.get(*name).and_then(|service| tags.get(service)) else {
                return false;
            };
            let image = project.service(name).and_then(|service| service.image.as_deref());
            !image.is_some_and(|image| image.ends_with(&format!(":{tag}")))
        });
        let literal: Vec<&str> = literal.map(String::as_str).collect();
        if !literal.is_empty() {
            let strays = self.launch.deployment.strays(&literal);
            let lines = match strays.is_empty() {
                true => String::new(),
                false => format!(": {}", Stray::told(&strays)),
            };
            let message = format!(
                "the Compose files give {} an image that does not follow versions.env{lines}",
                literal.join(", ")
            );
            let mend = Stray::mend(&strays);
            return Err(error::state(message)
                .with_hint(format!("{mend}; nothing was stopped or changed"))
                .into());
        }
        self.project = project;
        Ok(())
    }
}

/// Where an update is begun.
async fn setting(deployment: &Deployment<'_>, project: &str) -> Result<Setting> {
    let app = deployment.app();
    let docker = app.docker().await?;
    let environment = deployment.environment()?;
    let tool = deployment.compose()?.tool(&environment).await?;
    let files = deployment.files()?;
    let names = |files: &[PathBuf]| files.iter().map(|file| file.display().to_string()).collect();
    let mut profiles = files.profiles().to_vec();
    profiles.sort();
    let mut variables = deployment.texts()?.variables();
    variables.retain(|name| {
        app.environment.text(name).is_some() && !environment.variables().contains_key(name)
    });
    Ok(Setting {
        endpoint: docker.endpoint().to_string(),
        engine: docker.host().await?.identity.clone(),
        project: project.to_owned(),
        compose: match tool.generation {
            Generation::V1 => "Compose 1 (docker-compose)".to_owned(),
            Generation::V2 => "Compose 2 (docker compose)".to_owned(),
        },
        files: names(files.application(tool.generation)),
        db_files: names(files.databases()),
        profiles,
        env_files: app.variable("COMPOSE_ENV_FILES"),
        variables,
    })
}

/// Makes sure that an update is taken up where it was begun: elsewhere the same words would start
/// something beside it.
///
/// # Errors
///
/// Something was otherwise (exit 3), which is named with what makes it as it was.
pub(super) async fn check_setting(
    deployment: &Deployment<'_>,
    journal: &Journal,
    option: &str,
) -> Result<()> {
    let project = &deployment.project().await?.name;
    let now = setting(deployment, project).await?;
    let before = journal
        .setting
        .clone()
        .unwrap_or_else(|| Setting { project: journal.project.clone(), ..now.clone() });
    let differences = before.differences(&now);
    if differences.is_empty() {
        return Ok(());
    }
    let told: Vec<&str> = differences.iter().map(|one| one.what.as_str()).collect();
    let message = format!(
        "the update-safe of {} was begun elsewhere: {}; nothing was done",
        journal.started_at,
        told.join("; ")
    );
    let mut words: Vec<String> = Vec::new();
    let mut assignments = String::new();
    for one in differences {
        match one.mend {
            Ok(assignment) => assignments += &format!("{assignment} "),
            Err(mend) => words.push(mend),
        }
    }
    words.push(format!("`{assignments}dkv update-safe {option}`"));
    Err(error::state(message).with_hint(words.join("; then ")).into())
}

/// What brings back the image that `ran` runs.
async fn keep(
    docker: &Docker,
    service: &Service,
    ran: &Ran,
    record: &Record,
) -> Result<Option<Kept>> {
    let Some(image_id) = &ran.image_id else { return Ok(None) };
    let named: Option<Reference> = ran.image.parse().ok();
    let repository =
        named.as_ref().map(|named| named.repository.clone()).or_else(|| service.image.clone());
    let Some(repository) = repository else { return Ok(None) };
    let image = docker.image(image_id.as_str()).await?.ok_or_else(|| {
        error::docker(format!(
            "the image {} that {} runs is not on this host any \
            more",
            image_id.short(),
            ran.compose_service
        ))
        .with_hint(
            "it could not be restored; `dkv pull-latest` and `dkv restart` update \
                without that safety",
        )
    })?;
    let known: Vec<&Digest> = image.digests_of(&repository).collect();
    let entry = service.current().into_iter().chain(service.history.entries()).find(|entry| {
        entry.bytes.image_id.as_ref() == Some(image_id)
            || entry.bytes.digest.as_ref().is_some_and(|digest| known.contains(&digest))
    });
    let named_tag = named
        .as_ref()
        .and_then(|named| named.tag.clone())
        .filter(|tag| !tag.as_str().starts_with(KEEP_TAG_PREFIX));
    let tag = entry.map(|entry| entry.tag.clone()).or(named_tag);
    let tag: Tag = tag.map_or_else(|| service.track_name().parse(), Ok)?;
    let digest =
        entry.and_then(|entry| entry.bytes.digest.as_ref()).filter(|digest| known.contains(digest));
    let digest = digest.or_else(|| known.first().copied()).cloned();
    let mut release = Release::new(tag, Bytes::of_image(image_id.clone()));
    let Some(keep_tag) = plan::keep_tag(&release, &record.hash) else { return Ok(None) };
    release.bytes.digest = digest;
    let pin = record.manifest.env.pin;
    let tag = tag_for_compose(
        docker,
        service,
        pin,
        &repository,
        &release,
        Some(image_id),
        Some(keep_tag.clone()),
    )
    .await?;
    Ok(Some(Kept {
        service: service.name.clone(),
        repository,
        image_id: image_id.clone(),
        keep_tag,
        tag,
    }))
}

/// What Compose gets as the tag of a release, so that exactly the image `image_id` runs: as the
/// manifest pins where that names it, else the keep-tag.
async fn tag_for_compose(
    docker: &Docker,
    service: &Service,
    pin: Pin,
    repository: &Repository,
    release: &Release,
    image_id: Option<&Digest>,
    keep: Option<Tag>,
) -> Result<String> {
    if service.source == Source::Registry {
        if pin == Pin::Tag && names(docker, repository.with_tag(&release.tag), image_id).await? {
            return Ok(release.tag.to_string());
        }
        if let Some(digest) = &release.bytes.digest
            && names(docker, repository.with_digest(digest), image_id).await?
        {
            return Ok(format!("{}@{digest}", release.tag));
        }
    }
    Ok(keep.map_or_else(|| release.tag.to_string(), |keep| keep.to_string()))
}

/// Whether `name` names the image with this ID here.
async fn names(docker: &Docker, name: String, id: Option<&Digest>) -> Result<bool> {
    Ok(docker.image(&name).await?.is_some_and(|image| Some(&image.id) == id))
}

/// The image that each service shall run, where it is known.
fn image_ids(services: &[&Service]) -> BTreeMap<ServiceName, Digest> {
    let ids = services.iter().filter_map(|service| {
        Some((service.name.clone(), service.current()?.bytes.image_id.clone()?))
    });
    ids.collect()
}

/// What a failure means before anything was stopped.
const NOTHING_STOPPED: &str = "nothing was stopped or changed";

/// What becomes of every service: what its tracked tag names; what is recorded where it is held, or
/// where that was rejected; nothing where what is recorded was rejected too. New images are on
/// their way already, unless this is a dry run.
async fn plan(deployment: &Deployment<'_>, journal: &Journal, dry_run: bool) -> Result<Change> {
    let options = journal.options;
    let services = match &journal.goal {
        Goal::Latest(names) => deployment.select(names)?,
        _ => Vec::new(),
    };
    let latest = LatestOptions {
        retry: options.retry,
        dry_run,
        heeds_rollbacks: true,
        ..LatestOptions::default()
    };
    let mut change = pull::plan_latest(deployment, &services, &latest).await?;
    if change.has_failed() {
        change.check(false, NOTHING_STOPPED)?;
    }
    let planned: BTreeSet<ServiceName> =
        change.steps.iter().map(|step| step.before.name.clone()).collect();
    for service in services {
        let digest = service.current().and_then(|current| current.bytes.digest.as_ref());
        let rejection = digest.and_then(|digest| service.rejection(digest));
        let is_left = planned.contains(&service.name) || change.goes_without(&service.name);
        if !is_left && (options.retry || rejection.is_none()) {
            change.add(Step::unchanged(service));
        }
    }
    change.check(false, NOTHING_STOPPED)?;
    Ok(change)
}

/// `--dry-run`: what would be updated and replaced. Pulls nothing, so a new image is taken for
/// another than the one that runs unless it is local already.
pub(super) async fn show_plan(app: &App, order: Order) -> Result<Exit> {
    let mut update = RunningUpdate::observe(app, None, order).await?;
    let mut change = update.plan(true).await?;
    update.others = change.others().to_vec();
    let mut wanted = BTreeMap::new();
    for service in update.targets(&change) {
        let (Some(repository), Some(current)) = (&service.image, service.current()) else {
            continue;
        };
        let local = match &current.bytes.digest {
            Some(digest) => {
                update.docker.image(&repository.with_digest(digest)).await?.map(|image| image.id)
            }
            None => current.bytes.image_id.clone(),
        };
        wanted.extend(
            local.or_else(|| current.bytes.digest.clone()).map(|id| (service.name.clone(), id)),
        );
    }
    update.decide(&wanted, &mut change);
    update.leave_unproven(&mut change);
    let targets = update.targets(&change);
    let replaced = update.settle_variables(&targets).await?;
    let hash = update.record()?.hash.clone();
    let releases =
        targets.iter().filter_map(|service| Wanted::release(service, service.current()?, &hash));
    let releases = releases.collect();
    update.launch.foresee(&replaced, releases, &mut Vec::new()).await?;
    if !update.journal.plan.changed.is_empty() {
        let mut paused = update.foresee_data().await?;
        paused.retain(|name| !update.journal.is_replaced(name));
        update.report.paused = update.replaced(&paused);
    }
    update.show_plan(&change.steps)
}
