//! `rollback`, `rollback-service`, `rollback-to`: back to a remembered release, exactly.

use anyhow::Result;
use clap::Args;

use super::arguments::{Applied, Confirmed, Services};
use super::update_safe::{self, Order};
use super::{Effect, Run, changes};
use crate::app::{App, Exit};
use crate::change::{self, Change};
use crate::cli::TagOrDigest;
use crate::deployment::Deployment;
use crate::docker::{Container, ContainerFilter, Docker, PullTarget};
use crate::error;
use crate::images::Wanted;
use crate::members::repository_of;
use crate::model::history::Bytes;
use crate::model::manifest::{Service, Source};
use crate::model::operation::{Ending, What};
use crate::model::reference::{Reference, ServiceName};
use crate::plan::{self, Found, Intent, Outcome, Step, Target};
use crate::registry::ManifestName;
use crate::report::{Changes, ServiceChange};
use crate::update::Goal;

/// Go back to the previous version of all services, or of those named
///
/// Moves the record only; `dkv restart` applies it. Twice goes back two versions. Without names it
/// asks, on a terminal, whether every service is meant or what the last operation changed; with -y
/// or --all every service goes back one, whether the last update changed it or not.
#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    services: Services,
    /// Every service, not only what the last operation changed
    #[arg(long, conflicts_with = "services")]
    all: bool,
    #[command(flatten)]
    applied: Applied,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for Rollback {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    fn has_safe_points(&self) -> bool {
        self.applied.apply
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Self { services, all, applied, confirmed } = self;
        let deployment = Deployment::open_recorded(app)?;
        let names = match services.names() {
            names if names.is_empty() && !all && !confirmed.yes && !confirmed.dry_run => {
                meant(&deployment)?
            }
            names => names,
        };
        rollback(deployment, &names, applied, confirmed).await
    }
}

/// Which services somebody means who has named none: those that the last operation changed, or all,
/// for which it is empty. Where that is the same, nobody is asked.
fn meant(deployment: &Deployment<'_>) -> Result<Vec<ServiceName>> {
    let app = deployment.app();
    let record = deployment.record()?;
    let log = change::recorded(app, Some(record))?.log;
    let moves = |service: &Service| plan::rollback(service, &app.stamp());
    let all: Vec<Step> = record.services().filter_map(moves).collect();
    let last = log.to_undo(None).and_then(|takes| log.operation(*takes.last()?));
    // What only failed has moved nothing.
    let last = last.filter(|last| last.result != Ending::Failed);
    let Some(last) = last else { return Ok(Vec::new()) };
    let is_moved = |step: &&Step| {
        let mut moved = last.services.iter().filter(|one| one.what == What::Version);
        moved.any(|one| one.name == step.before.name)
    };
    let changed: Vec<&Step> = all.iter().filter(is_moved).collect();
    if changed.is_empty() || changed.len() == all.len() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = changed.iter().map(|step| step.before.name.as_str()).collect();
    let names = names.join(" ");
    if !app.ui.can_ask() {
        let message = "`dkv rollback` asks which services are meant, and there is no terminal to ask \
            on";
        return Err(error::usage(message)
            .with_hint(format!(
                "`dkv rollback {names} --yes` takes back what the last operation changed, `dkv \
                rollback --all --yes` every service by one version"
            ))
            .into());
    }
    let line = |step: &Step| {
        let change = ServiceChange::of(step);
        format!("  {}: {}", change.name, changes::from_to(&change))
    };
    app.ui.status(format!("The last operation, {}, changed:", last.id));
    changed.iter().for_each(|step| app.ui.status(line(step)));
    app.ui.status("Every service would go back as well:");
    let others = all.iter().filter(|step| !is_moved(step));
    others.for_each(|step| app.ui.status(line(step)));
    let question = "Go back with the `last` operation's, or with `all`?";
    let answer = app.ui.ask(question, "neither", false, &app.command)?;
    match answer.to_lowercase().as_str() {
        "last" | "l" => Ok(changed.iter().map(|step| step.before.name.clone()).collect()),
        "all" | "a" => Ok(Vec::new()),
        _ => Err(error::usage("neither was chosen; nothing was changed").into()),
    }
}

/// Go back to the previous version of one service
#[derive(Debug, Args)]
pub struct RollbackService {
    /// The service
    service: ServiceName,
    #[command(flatten)]
    applied: Applied,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for RollbackService {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    fn has_safe_points(&self) -> bool {
        self.applied.apply
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open_recorded(app)?;
        rollback(deployment, &[self.service], self.applied, self.confirmed).await
    }
}

/// Go to a version of the history, or to any that the registry has
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  dkv rollback-to taskservice 1.41 && dkv restart")]
pub struct RollbackTo {
    /// The service
    service: ServiceName,
    /// The version: a tag, or a digest (sha256:…)
    #[arg(value_name = "TAG|DIGEST")]
    target: TagOrDigest,
    #[command(flatten)]
    applied: Applied,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for RollbackTo {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    fn has_safe_points(&self) -> bool {
        self.applied.apply
    }

    /// # Errors
    ///
    /// As for [`Rollback`]; also if neither history nor registry has the target.
    async fn run(self, app: &App) -> Result<Exit> {
        let target = &self.target.to_string();
        let mut deployment = Deployment::open_recorded(app)?;
        let service = deployment.find(&self.service)?;
        let step = step_to(&deployment, service, target).await?;
        let is_there = !step.is_change();
        let name = service.name.clone();
        let goal = match step.outcome {
            Outcome::Moved | Outcome::Unchanged => Goal::Release,
            _ => Goal::Version(None),
        };
        let mut change = Change::of(vec![step]);
        if !is_there || self.applied.apply {
            return go(&mut deployment, change, goal, self.applied, self.confirmed).await;
        }
        // The record may be right and versions.env not: whoever was killed between the two says the
        // same again.
        let report = match self.confirmed.dry_run {
            true => change.preview(deployment.record()?),
            false => change.commit(&mut deployment)?,
        };
        app.show(&report, |_| {
            app.ui.data(format!("{name} is at {target} already; nothing to do"));
        })?;
        Ok(Exit::Done)
    }
}

/// `dkv rollback [SERVICE…]`: every service that has an earlier release goes to it.
///
/// # Errors
///
/// None has one (exit 3), an image can be had nowhere (exit 5 or 6), nobody said yes (exit 2); in
/// all of these nothing has changed.
async fn rollback(
    mut deployment: Deployment<'_>,
    names: &[ServiceName],
    applied: Applied,
    confirmed: Confirmed,
) -> Result<Exit> {
    let app = deployment.app();
    let selected = deployment.select(names)?;
    let mut change = Change::default();
    for service in &selected {
        match plan::rollback(service, &app.stamp()) {
            Some(step) => change.add(step),
            None => change.skip(service, "no earlier release"),
        }
    }
    if change.steps.is_empty() {
        let message = match selected.as_slice() {
            [] => "the manifest has no services".to_owned(),
            [one] => format!("{} has no earlier release to roll back to", one.name),
            _ => "no service has an earlier release to roll back to".to_owned(),
        };
        return Err(error::state(message)
            .with_hint(
                "`dkv version-history` shows what is remembered; `dkv version-pull SERVICE TAG` \
                takes any version",
            )
            .into());
    }
    go(&mut deployment, change, Goal::Previous, applied, confirmed).await
}

/// What takes `service` to the release that `target` names: one of its history, one that still
/// runs, or one of the registry.
async fn step_to(deployment: &Deployment<'_>, service: &Service, target: &str) -> Result<Step> {
    let app = deployment.app();
    let (asked, manifest_name) = match plan::find_target(service, target)? {
        Target::Release(index) => return Ok(plan::move_to(service, index, &app.stamp())),
        _ if service.source == Source::Local => {
            let message = format!("{}: no build called `{target}` is remembered", service.name);
            return Err(error::state(message)
                .with_hint(format!("`dkv version-history {}` shows those that are", service.name))
                .into());
        }
        Target::Tag(tag) => (tag.clone(), ManifestName::Tag(tag)),
        Target::Digest(digest) => (service.track_name().parse()?, ManifestName::Digest(digest)),
    };
    let found = match running(app.docker().await?, service, target).await? {
        Some(found) => {
            app.ui.status(format!(
                "{target} is not in the history of {}, but a container here was made from it",
                service.name
            ));
            found
        }
        None => {
            app.ui.status(format!(
                "{target} is not in the history of {}; asking the registry",
                service.name
            ));
            let platform = app.docker().await?.platform().await?.clone();
            let lookup = deployment.lookup(Some(platform));
            lookup.expect(&[service]).await;
            let named = lookup.named(service, &manifest_name, &asked).await?;
            let mut found = named.found;
            if service.is_moving(&asked) {
                let resolution = lookup.version_of(service, &found, Some(named.is_index)).await;
                found.version = resolution.and_then(|one| one.version).map(|(tag, _)| tag);
            }
            found
        }
    };
    Ok(plan::advance(service, found, &Intent::Version, &app.stamp()))
}

/// The release that `target` (a tag or a digest) names, if a container was made from it under its
/// name. What runs may have left the history before its time, after a rollback and an advance
/// without a restart.
async fn running(docker: &Docker, service: &Service, target: &str) -> Result<Option<Found>> {
    let Some(repository) = &service.image else { return Ok(None) };
    let hex = target.strip_prefix("sha256:").unwrap_or(target);
    let is_digest = hex.len() >= 12 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    for container in docker.containers(&ContainerFilter::default()).await? {
        let Ok(Reference { repository: runs, tag: Some(tag), digest: Some(digest) }) =
            container.image.parse()
        else {
            continue;
        };
        let is_meant = tag.as_str() == target || (is_digest && digest.hex().starts_with(hex));
        // A moving tag says nothing about which bytes are wanted.
        if runs != *repository || !is_meant || service.is_moving(&tag) {
            continue;
        }
        if docker.image(&repository.with_digest(&digest)).await?.is_some() {
            return Ok(Some(Found { asked: tag, version: None, bytes: Bytes::of(Some(digest)) }));
        }
    }
    Ok(None)
}

/// Shows the plan, asks, makes the images local, records; or makes it run first, and records it if
/// it is healthy.
async fn go(
    deployment: &mut Deployment<'_>,
    mut change: Change,
    goal: Goal,
    applied: Applied,
    Confirmed { yes, dry_run }: Confirmed,
) -> Result<Exit> {
    let app = deployment.app();
    let record = deployment.record()?;
    let plan = change.preview(record);
    if dry_run && applied.apply {
        let order = Order { options: applied.options(), goal, change: Some(change) };
        return update_safe::carry_out(app, order, dry_run).await;
    }
    if dry_run {
        app.show(&plan, |plan| {
            show_moves(plan, |line| app.ui.data(line));
            app.ui.note("nothing was changed (--dry-run)");
        })?;
        return Ok(Exit::Done);
    }
    record.check_writable(&app.store)?;
    if !yes {
        show_moves(&plan, |line| app.ui.status(line));
    }
    if !app.ui.confirm("Go back to these releases?", yes, &app.command)? {
        return Err(error::usage("not confirmed; nothing was changed").into());
    }
    let releases = change.steps.iter().map(|step| &step.after);
    for wanted in
        releases.filter_map(|after| Wanted::release(after, after.current()?, &record.hash))
    {
        if matches!(wanted.target, PullTarget::Tag(_)) && wanted.bytes.image_id.is_none() {
            let tag = wanted.tag.as_ref().map(ToString::to_string).unwrap_or_default();
            app.ui.warn(format!(
                "{}: no digest was recorded for {tag}; taking what the tag names today",
                wanted.name
            ));
        }
    }
    if applied.apply {
        let order = Order { options: applied.options(), goal, change: Some(change) };
        return update_safe::carry_out(app, order, dry_run).await;
    }
    change.fetch(app, record).await?;
    if change.has_failed() {
        change.check(false, "nothing was changed: no service was rolled back")?;
    }
    let report = change.commit_kept(deployment).await?;
    let runs = runs_already(deployment, &change.steps).await;
    app.show(&report, |report| {
        show_moves(report, |line| app.ui.data(line));
        if runs {
            app.ui.note("what runs is already that release: nothing needs restarting");
        } else {
            let moved = report.services.iter().filter(|change| change.outcome != Outcome::Skipped);
            app.ui.note(deployment.how_to_start(moved.map(|change| change.name.as_str())));
        }
        if let [step] = change.steps.as_slice()
            && let Some(current) = step.after.current()
            && !step.after.held
            && step.after.source == Source::Registry
        {
            let (name, tag) = (&step.after.name, &current.tag);
            app.ui.note(format!(
                "`dkv pull-latest` follows the tag again; `dkv version-set {name} {tag} --hold` \
                stays here"
            ));
        }
    })?;
    Ok(Exit::Done)
}

/// Whether what `steps` record runs already. The containers of this directory say so themselves;
/// Compose is asked only where they do not, and something that is recorded runs somewhere.
pub(super) async fn runs_already(deployment: &Deployment<'_>, steps: &[Step]) -> bool {
    let look = async {
        let docker = deployment.app().docker().await?;
        let containers = docker.containers(&ContainerFilter::default()).await?;
        let project = match deployment.project_of_containers(&containers)? {
            Some(project) => project,
            None if !containers.iter().any(|container| runs_one_of(container, steps)) => {
                return Ok(false);
            }
            None => deployment.project().await?.name.clone(),
        };
        let ours: Vec<&Container> = containers
            .iter()
            .filter(|container| container.labels.project() == Some(project.as_str()))
            .collect();
        anyhow::Ok(steps.iter().all(|step| runs(deployment, step, &ours)))
    };
    look.await.unwrap_or(false)
}

/// Whether a container was made from an image of one of the services.
fn runs_one_of(container: &Container, steps: &[Step]) -> bool {
    let repository = repository_of(&container.image);
    repository.is_some()
        && steps
            .iter()
            .any(|step| step.before.image == repository || step.after.image == repository)
}

/// Whether every container of a service runs what `step` records, and there is one.
fn runs(deployment: &Deployment<'_>, step: &Step, containers: &[&Container]) -> bool {
    let recorded = step.after.current().and_then(|current| current.bytes.image_id.as_ref());
    let members = containers.iter().filter(|container| {
        container.labels.service().is_some_and(|name| {
            let image = container.image.parse().ok();
            deployment.member_with(name, image.as_ref()).service() == Some(&step.after.name)
        })
    });
    let mut members = members.peekable();
    members.peek().is_some()
        && members.all(|container| recorded.is_some() && container.image_id.as_ref() == recorded)
}

/// A line a service: from what to what, and why not.
fn show_moves(report: &Changes, line: impl Fn(String)) {
    for change in &report.services {
        let notes = changes::notes(change);
        match change.outcome {
            Outcome::Skipped => line(format!("{}: unchanged{notes}", change.name)),
            _ => line(format!("{}: {}{notes}", change.name, changes::from_to(change))),
        }
    }
}
