//! Before anything is stopped: everything that Compose will start is here, and what it has to be
//! told so that what the operator did at run time stays. After a start: nothing hangs on to a
//! container that is gone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::TimeDelta;

use super::Launch;
use crate::app::App;
use crate::change;
use crate::clock;
use crate::commands::{generate_env, pull};
use crate::compose::{Action, Project, Pull, Recreate, Up, keys};
use crate::deployment::Stray;
use crate::docker::{ContainerDetail, ContainerFilter, Docker, Image, PullTarget};
use crate::error;
use crate::followers::{self, Hanging};
use crate::health;
use crate::images::{self, Arrived, Wanted, each_once, serves};
use crate::model::env_file::Pin;
use crate::model::image_store::ImageStore;
use crate::model::reference::{Platform, Reference};
use crate::report::Started;
use crate::runtime::{self, Ends, Fewer};

/// What a start begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum After {
    /// What is there.
    AsItStands,
    /// Nothing: everything is stopped and removed first.
    Down,
}

/// What was made ready for a start.
#[derive(Debug, Clone, Default)]
pub(in crate::commands) struct Ready {
    /// What Compose may still pull.
    pull: Pull,
    /// How many containers services keep that have another number than their files say.
    counts: BTreeMap<String, u32>,
    /// The jobs that had done their work, and do it again.
    pub(super) completed: BTreeSet<String>,
    /// The services to name; none where a start without names starts the same.
    names: Vec<String>,
}

impl Ready {
    /// The start of the services that `is_meant` chooses.
    pub(super) fn up(&self, is_meant: impl Fn(&str) -> bool) -> Up {
        let counts = self.counts.iter().filter(|(name, _)| is_meant(name));
        Up {
            services: self.names.iter().filter(|name| is_meant(name)).cloned().collect(),
            pull: self.pull,
            counts: counts.map(|(name, count)| (name.clone(), *count)).collect(),
            ..Up::default()
        }
    }

    /// How many containers the services of `project` shall have.
    pub(super) fn wanted(&self, project: &Project) -> BTreeMap<String, i64> {
        let count = |name: &String| self.counts.get(name).map(|count| i64::from(*count));
        let services = project.services.iter();
        services.map(|one| (one.name.clone(), count(&one.name).unwrap_or(one.scale))).collect()
    }
}

impl Launch<'_> {
    /// Makes everything local that Compose would start of `project`, and says what Compose has to
    /// be told for it. Nothing is stopped or started.
    ///
    /// # Errors
    ///
    /// The files ask for what a start cannot keep (exit 3); an image can be had nowhere (exit 5), or
    /// cannot be built (exit 6).
    pub(in crate::commands) async fn make_ready(
        &mut self,
        project: &Project,
        after: After,
        report: &mut Started,
    ) -> Result<Ready> {
        self.deployment.warn_of_no_manifest();
        generate_env::warn_of_strangers(&self.deployment, project);
        let docker = self.app().docker().await?.clone();
        let containers = docker.container_details(&ContainerFilter::project(&project.name)).await?;
        let containers: Vec<&ContainerDetail> = containers.iter().collect();
        let fewer = Fewer::KeptSince(self.deployment.changed_at());
        let counts = runtime::counts(project, &containers, fewer);
        let is_there = |name: &str| {
            after == After::AsItStands && containers.iter().any(|one| one.name == name)
        };
        self.refuse(project, &is_there).await?;
        let pull = match self.options.dry_run {
            true => self.foresee(project, self.releases(project), &mut report.steps).await?,
            false => self.ensure(project, &mut report.steps).await?,
        };
        self.tell_of_counts(project, &counts);
        let stopped = stopped(self.app(), project, &containers).await?;
        if !stopped.is_empty() {
            let names: Vec<&str> = stopped.iter().map(String::as_str).collect();
            let begins = if self.options.dry_run { "would start" } else { "Starting" };
            self.app().ui.status(format!("{begins} too what was stopped: {}", names.join(", ")));
        }
        let names = match self.deployment.awake().is_empty() {
            true => Vec::new(),
            false => project.services.iter().map(|service| service.name.clone()).collect(),
        };
        let completed = runtime::completed(project, &containers, &stopped);
        Ok(Ready { pull, counts, completed, names })
    }

    /// Refuses what Compose would fail at when it has begun already.
    ///
    /// # Errors
    ///
    /// The files ask for such (exit 3).
    pub(in crate::commands) async fn refuse(
        &self,
        project: &Project,
        is_there: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        self.refuse_spoilt_lines(project)?;
        let generation = self.deployment.compose()?.tool(&self.environment).await?.generation;
        let refusals = keys::refusals(project, generation, is_there);
        let Some(refusal) = refusals.first() else { return Ok(()) };
        let place = self.deployment.texts()?.place_of(&refusal.service, refusal.key);
        let place = place.map_or_else(String::new, |place| format!("{place}: "));
        let keys::Refusal { service, key, why, hint } = refusal;
        Err(error::state(format!("{place}the {key} of {service}: it {why}"))
            .with_hint(format!("{hint}; nothing was stopped or started"))
            .into())
    }

    /// Refuses lines that a digest of versions.env makes wrong, as it does `${VERSION}-worker`.
    fn refuse_spoilt_lines(&self, project: &Project) -> Result<()> {
        let fed = |name: &&str| {
            let value = self.environment.variables().get(*name);
            value.is_some_and(|value| value.contains('@'))
        };
        let spoilt = project.services.iter().find_map(|service| {
            let image = service.image.as_ref().filter(|_| service.is_wanted())?;
            let line = self.deployment.template(&service.name)?;
            let variable = line.variables().into_iter().find(fed)?;
            image.parse::<Reference>().is_err().then_some((&service.name, variable, image))
        });
        let Some((service, variable, image)) = spoilt else { return Ok(()) };
        let place = self.deployment.texts()?.place_of(service, "image");
        let place = place.map_or_else(String::new, |place| format!("{place}, "));
        let message = format!(
            "{place}{service}: {variable}, to which versions.env gives a digest, is only a part of \
            the tag there, and `{image}` is no image name"
        );
        let mend = match self.deployment.strays(&[service]) {
            strays if strays.is_empty() => format!(
                "take `env_tag: {variable}` out of the manifest; `dkv migrate-versions --write` then \
                gives the line that it was for a variable of its own"
            ),
            strays => Stray::mend(&strays),
        };
        Err(error::state(message)
            .with_hint(format!("{mend}; nothing was stopped or started"))
            .into())
    }

    /// Says what stays as it was scaled, as nothing else shows it.
    pub(in crate::commands) fn tell_of_counts(
        &self,
        project: &Project,
        counts: &BTreeMap<String, u32>,
    ) {
        for (name, count) in counts {
            let files = project.service(name).map_or(1, |service| service.scale);
            self.app().ui.status(format!(
                "{name} keeps the {count} containers that it was scaled to (the files say {files})"
            ));
        }
    }

    /// Makes anew what hangs on to a container that is gone, until nothing does. `run` starts the
    /// services of an `up` that it is given.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or `run` fails; something hangs all the same (exit 6).
    pub(in crate::commands) async fn rejoin(
        &self,
        project: &Project,
        up: &Up,
        run: impl AsyncFn(Up) -> Result<()>,
    ) -> Result<()> {
        if !followers::exist(project) {
            return Ok(());
        }
        let docker = self.app().docker().await?;
        // What hangs on to what hangs takes another round.
        for _ in 0..=project.services.len() {
            let hanging = self.hanging(docker, project).await?;
            let Some(first) = hanging.first() else { return Ok(()) };
            let services: BTreeSet<String> =
                hanging.iter().map(|one| one.service.clone()).collect();
            self.app().ui.status(format!(
                "Making anew {}: {} {}",
                Vec::from_iter(services.iter().cloned()).join(", "),
                first.service,
                first.in_words()
            ));
            let counts = up.counts.iter().filter(|(name, _)| services.contains(*name));
            let counts = counts.map(|(name, count)| (name.clone(), *count)).collect();
            let services = services.into_iter().collect();
            run(Up { services, no_deps: true, pull: up.pull, recreate: Recreate::All, counts })
                .await?;
        }
        let hanging = self.hanging(docker, project).await?;
        let words = hanging.iter().map(|one| format!("{} {}", one.service, one.in_words()));
        match Vec::from_iter(words) {
            words if words.is_empty() => Ok(()),
            words => Err(error::docker(words.join("\n")).into()),
        }
    }

    async fn hanging(&self, docker: &Docker, project: &Project) -> Result<Vec<Hanging>> {
        let filter = ContainerFilter::project(&project.name);
        let mut found = health::patiently(async || {
            let all = docker.container_details(&filter).await?;
            hanging(docker, &Vec::from_iter(&all)).await
        })
        .await?;
        found.retain(|one| project.service(&one.service).is_some());
        Ok(found)
    }

    /// Makes everything local, the recorded releases by digest. Where nothing is missing, nothing
    /// goes over the network.
    async fn ensure(&mut self, project: &Project, steps: &mut Vec<String>) -> Result<Pull> {
        let wanted = self.releases(project);
        let arrivals = self.fetch(&wanted, steps).await?;
        if !self.settle(&wanted, &arrivals).await? {
            return self.ensure_names(project, steps).await;
        }
        // What showed thereby has given images other names.
        let mut renamed = self.deployment.project_with(self.environment.variables()).await?;
        renamed.services.retain(|service| project.service(&service.name).is_some());
        self.ensure_names(&renamed, steps).await
    }

    /// The recorded releases that the services of `project` run.
    fn releases(&self, project: &Project) -> Vec<Wanted> {
        let tracked = self.deployment.tracked(project);
        let hash = self.deployment.recorded().map_or("", |record| record.hash.as_str());
        let services = project.services.iter().filter_map(|one| tracked.get(&one.name));
        each_once(services.filter_map(|service| Wanted::release(service, service.current()?, hash)))
    }

    /// Tells what of `releases` and of what Compose names would be made local, and does nothing.
    ///
    /// # Errors
    ///
    /// Those that can be known without doing it: a build is gone (exit 6), names clash (exit 3).
    pub(in crate::commands) async fn foresee(
        &self,
        project: &Project,
        releases: Vec<Wanted>,
        steps: &mut Vec<String>,
    ) -> Result<Pull> {
        let local = self.app().fetcher().await?.are_local(&releases).await?;
        let is_had = |one: &Wanted| releases.iter().any(|release| release.is_named_by(one));
        let Missing { wanted, built, pull } = self.missing(project).await?;
        let others = wanted.into_iter().filter(|one| !is_had(one));
        let absent = releases.iter().zip(local).filter(|(_, is_local)| !is_local);
        let pulled = absent.map(|(one, _)| one.clone()).chain(others);
        for one in each_once(pulled) {
            if one.is_local {
                return Err(images::gone(&one).context(format!("service `{}`", one.name)));
            }
            self.app().ui.status(format!("would pull {}", one.in_words()));
            note(steps, "pull");
        }
        for name in built {
            self.app().ui.status(format!("would build {name}"));
            note(steps, "build");
        }
        Ok(pull)
    }

    /// Goes on with what showed when images were made local: which of them only a keep-tag names,
    /// and by what their content will be known.
    async fn settle(&mut self, wanted: &[Wanted], arrivals: &[Option<Arrived>]) -> Result<bool> {
        let evidence = pull::evidence_of(&self.deployment, wanted, arrivals).await;
        let has_changed = change::settle(&mut self.deployment, &evidence).await?;
        if has_changed {
            self.environment = self.deployment.environment()?;
        }
        Ok(has_changed)
    }

    /// Makes local what Compose names and is still not here, so that it has nothing to pull: the
    /// images of what no manifest knows and of lines that follow no record, and those that services
    /// use beside their own. What is only built here is built.
    pub(in crate::commands) async fn ensure_names(
        &self,
        project: &Project,
        steps: &mut Vec<String>,
    ) -> Result<Pull> {
        let Missing { wanted, built, pull } = self.missing(project).await?;
        if !wanted.is_empty() {
            self.fetch(&each_once(wanted), steps).await?;
        }
        if !built.is_empty() {
            let services: Vec<String> = built.into_iter().collect();
            self.app().ui.step("Building", services.join(", "));
            note(steps, "build");
            let compose = self.deployment.compose()?;
            let action = Action::Build { services };
            compose.run(self.deployment.all(), &action, &self.environment).await?;
        }
        Ok(pull)
    }

    /// What Compose names and is not here, for the platform that it shall run on.
    async fn missing(&self, project: &Project) -> Result<Missing> {
        let docker = self.app().docker().await?;
        let names = self.image_names(project).await?;
        let texts: Vec<String> = names.iter().map(|name| name.image.clone()).collect();
        let local = docker.images(&texts).await?;
        if let Some((one, other)) = clash(&names)
            && docker.host().await?.image_store == ImageStore::Classic
        {
            return Err(refuse_clash(one, other).into());
        }
        let mut found = Missing::default();
        for (name, image) in names.into_iter().zip(local) {
            if let Some(image) = image
                && serves(docker, &name.image, &image, name.platform.as_ref()).await?
            {
                continue;
            }
            match Wanted::named(&name.service, &name.image, name.platform) {
                _ if name.is_built => {
                    found.built.insert(name.service);
                }
                Some(one) => found.wanted.push(one),
                // Compose may know more of such names.
                None => found.pull = Pull::Missing,
            }
        }
        Ok(found)
    }

    async fn fetch(
        &self,
        wanted: &[Wanted],
        steps: &mut Vec<String>,
    ) -> Result<Vec<Option<Arrived>>> {
        let results = self.app().fetcher().await?.fetch(wanted).await;
        let mut failures = Vec::new();
        let mut arrivals = Vec::new();
        for (result, wanted) in results.into_iter().zip(wanted) {
            let (named, arrived) = match result {
                Ok(arrived) => (self.give_tag(wanted, &arrived.image).await, Some(arrived)),
                Err(error) => (Err(error), None),
            };
            arrivals.push(arrived);
            failures.extend(
                named.err().map(|error| error.context(format!("service `{}`", wanted.name))),
            );
        }
        error::together(failures, wanted.len(), "nothing was stopped or started")?;
        if arrivals.iter().flatten().any(|arrived| arrived.pulled) {
            note(steps, "pull");
        }
        Ok(arrivals)
    }

    /// Makes the recorded tag name the recorded bytes here, where that is all that Compose is told.
    async fn give_tag(&self, wanted: &Wanted, image: &Image) -> Result<()> {
        let by_tag =
            self.deployment.recorded().is_some_and(|record| record.manifest.env.pin == Pin::Tag);
        match (&wanted.target, &wanted.tag) {
            (PullTarget::Digest(_), Some(tag)) if by_tag && wanted.keep.is_some() => {
                self.app().docker().await?.tag(image.id.as_str(), &wanted.repository, tag).await
            }
            _ => Ok(()),
        }
    }

    /// Every image that Compose would look for.
    async fn image_names(&self, project: &Project) -> Result<Vec<ImageName>> {
        let generation = self.deployment.compose()?.tool(&self.environment).await?.generation;
        let mut names = Vec::new();
        for service in project.services.iter().filter(|service| service.is_wanted()) {
            let image = match &service.image {
                Some(image) => image.clone(),
                None if service.has_build => generation.built_image(&project.name, &service.name),
                None => continue,
            };
            names.push(ImageName {
                service: service.name.clone(),
                image,
                platform: self.deployment.platform(&service.name),
                is_built: service.has_build,
            });
        }
        let variables = self.environment.variables();
        for other in self.deployment.texts()?.other_images() {
            let is_wanted = project.service(&other.service).is_some_and(|one| one.is_wanted());
            let template = other.site.template.as_ref().filter(|_| is_wanted);
            if let Some(image) = template.and_then(|line| self.deployment.evaluate(line, variables))
            {
                let service = other.service.clone();
                names.push(ImageName { service, image, platform: None, is_built: false });
            }
        }
        Ok(names)
    }
}

/// Two services that want one name for the images of two platforms.
fn clash(names: &[ImageName]) -> Option<(&ImageName, &ImageName)> {
    let stated: Vec<(&ImageName, Platform)> = names
        .iter()
        .filter_map(|name| Some((name, name.platform.as_ref()?.normalized())))
        .collect();
    stated.iter().enumerate().find_map(|(index, (one, platform))| {
        let clashes =
            |(other, its): &&(&ImageName, Platform)| one.image == other.image && platform != its;
        Some((*one, stated[index..].iter().find(clashes)?.0))
    })
}

/// The error for an engine that has one image under a name.
fn refuse_clash(one: &ImageName, other: &ImageName) -> error::Error {
    let platform = |name: &ImageName| name.platform.as_ref().map(ToString::to_string);
    error::state(format!(
        "{} wants {} for {} and {} for {}, and this engine has the image of one platform under a \
        name",
        one.service,
        one.image,
        platform(one).unwrap_or_default(),
        other.service,
        platform(other).unwrap_or_default(),
    ))
    .with_hint(
        "`dkv migrate-versions --write` tracks both and gives each its own digest; nothing was \
        stopped or started",
    )
}

/// What of `containers`, all of a project's, hangs on to what is gone.
///
/// # Errors
///
/// The daemon does not answer (exit 6).
pub(in crate::commands) async fn hanging(
    docker: &Docker,
    containers: &[&ContainerDetail],
) -> Result<Vec<Hanging>> {
    let mut others = Vec::new();
    for name in followers::strangers(containers) {
        others.extend(docker.inspect_container(&name).await?);
    }
    Ok(followers::hanging(containers, &others))
}

/// The services of `project` that were stopped on purpose, or may have been.
///
/// # Errors
///
/// The daemon does not answer (exit 6).
pub(in crate::commands) async fn stopped(
    app: &App,
    project: &Project,
    containers: &[&ContainerDetail],
) -> Result<BTreeSet<String>> {
    let mut ends = Ends::new();
    if let Some(since) = runtime::doubtful(project, containers) {
        let filter = ContainerFilter::project(&project.name);
        let since = since - TimeDelta::seconds(GRACE_OF_A_STOP);
        ends = app.docker().await?.ends(&filter, since, clock::now()).await?;
    }
    let guessed = Vec::from_iter(runtime::guessed(project, containers, &ends));
    if !guessed.is_empty() {
        app.ui.note(format!(
            "{}: the engine has forgotten how that ended; it has served, and is taken for stopped on \
            purpose",
            guessed.join(", ")
        ));
    }
    Ok(runtime::stopped(project, containers, &ends))
}

/// So many seconds before its end a container may have been told to end.
const GRACE_OF_A_STOP: i64 = 15;

/// Adds a step of a start, once.
fn note(steps: &mut Vec<String>, step: &str) {
    if !steps.iter().any(|other| other == step) {
        steps.push(step.to_owned());
    }
}

/// What Compose names and is not here.
#[derive(Default)]
struct Missing {
    wanted: Vec<Wanted>,
    /// The services whose images are only built here.
    built: BTreeSet<String>,
    /// What Compose itself may have to pull.
    pull: Pull,
}

/// An image that Compose would look for.
struct ImageName {
    /// The Compose service that uses it.
    service: String,
    image: String,
    /// The platform that the service shall run on, where that is said.
    platform: Option<Platform>,
    /// Whether it can be built here.
    is_built: bool,
}
