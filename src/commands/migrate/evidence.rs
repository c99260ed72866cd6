//! What a migration goes by, gathered once: the Compose files, what Compose makes of them, and what
//! this host has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::compose::config::PullPolicy;
use crate::compose::{self, Generation, template::is_template};
use crate::deployment::Deployment;
use crate::docker::{Container, ContainerFilter, ContainerState, Docker, ImageList};
use crate::error;
use crate::model::image_line::{self, Entry};
use crate::model::reference::Reference;
use crate::plan::migrate::{Line, Present};
use crate::report::migrate::ComposeChange;
use crate::store::{self, Kind};

/// The label that every container of Compose carries.
const PROJECT: &str = "com.docker.compose.project";

/// What was found.
pub(super) struct Evidence {
    /// The Compose services, those of inactive profiles too.
    pub lines: Vec<Line>,
    /// Application and database files, where the manifest has to name them.
    pub configured: Option<[Vec<String>; 2]>,
    /// The project as which everything runs, where Compose would call it something else.
    pub project: Option<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Looks at files, Compose and, where there is a daemon, containers and images.
///
/// # Errors
///
/// There are no Compose files (exit 3); Compose refuses them or the daemon breaks off (exit 6).
pub(super) async fn gather(
    deployment: &mut Deployment<'_>,
    docker: Option<&Docker>,
) -> Result<Evidence> {
    let directory = deployment.app().store.directory();
    let filter = ContainerFilter { labels: vec![PROJECT.to_owned()] };
    let (mut containers, images) = match docker {
        Some(docker) => tokio::try_join!(docker.containers(&filter), docker.image_list())?,
        None => Default::default(),
    };
    containers.retain(|container| !container.labels.is_one_off());
    let configured = match deployment.recorded() {
        Some(_) => None,
        None => choose_files(deployment, &containers)?,
    };
    let project = deployment.project().await?;
    containers.retain(|container| {
        let place = container.labels.working_dir().map(Path::new);
        // A place that this user may not look at is somebody else's.
        let moved = place.is_none_or(|place| matches!(store::look(place), Ok(None)));
        place.is_some_and(|place| is_same(place, directory))
            || (moved && container.labels.project() == Some(&project.name))
    });
    let mut notes = Vec::new();
    let other = other_project(deployment, &containers, &project.name, &mut notes)?;
    let project_name = other.clone().unwrap_or_else(|| project.name.clone());
    containers.retain(|container| container.labels.project() == Some(&project_name));
    let generation = deployment.compose()?.tool(&deployment.environment()?).await?.generation;
    let texts = deployment.texts()?.require()?;
    let mut lines = Vec::new();
    for written in texts.services() {
        let service = &written.service;
        let config = project.service(service);
        let has_build = written.has_build || config.is_some_and(|config| config.has_build);
        let evaluated = || written.template()?.evaluate(&|name| deployment.variable(name)).ok();
        let built = || has_build.then(|| generation.built_image(&project_name, service));
        let named = config.and_then(|config| config.image.clone());
        let Some(image) = named.or_else(evaluated).or_else(built) else { continue };
        let place = written.place.as_ref();
        // What versions.env says may be what makes no name of it.
        let plain = || evaluated().and_then(|image| image.parse::<Reference>().ok());
        let image: Reference = match image.parse().or_else(|error| plain().ok_or(error)) {
            Ok(image) => image,
            // One line that says nothing here is no reason to leave the others out.
            Err(error) => {
                notes.push(no_image(written, &error.to_string(), &|name| {
                    deployment.variable(name).is_some_and(|value| !value.is_empty())
                }));
                continue;
            }
        };
        let file = place.map_or(&written.file, |place| &place.file);
        let own = Entry { document: written.document, service: service.clone() };
        lines.push(Line {
            written: ComposeChange {
                compose_service: service.clone(),
                there: place.map_or(&own, |place| &place.entry).clone(),
                file: file.display().to_string(),
                line: place.map(|place| place.line),
                from: written.image_text().map(str::to_owned),
                to: None,
                written: false,
                template: texts.template_of(file).map(str::to_owned),
                left: None,
                cut: Vec::new(),
                own_file: written.file.display().to_string(),
                own,
            },
            platform: deployment.platform(service),
            is_sourced: written.template().is_some_and(|template| {
                let mut variables = template.variables().into_iter();
                variables.any(|name| deployment.app().variable(name).is_some())
            }),
            nests_defaults: generation == Generation::V2,
            has_build,
            is_never_pulled: config
                .and_then(|config| config.pull_policy)
                .is_some_and(|policy| matches!(policy, PullPolicy::Never | PullPolicy::Build)),
            is_database: deployment.files()?.databases().contains(&written.top),
            present: match docker {
                Some(docker) => present(docker, &images, &containers, service, &image).await?,
                None => None,
            },
            image,
        });
    }
    Ok(Evidence { lines, configured, project: other, notes })
}

/// The project as which the containers of this directory were started, if all of them were, and by
/// another name than `own`. Who sets the variable for it has said which one is meant.
fn other_project(
    deployment: &Deployment<'_>,
    containers: &[Container],
    own: &str,
    notes: &mut Vec<String>,
) -> Result<Option<String>> {
    let files = deployment.files()?;
    let directory = deployment.app().store.directory();
    let all = files.all(Generation::V2);
    let known = all.iter().map(|file| store::resolve(&directory.join(file)));
    let known = known.collect::<Result<Vec<_>>>()?;
    let is_of_files = |container: &&Container| {
        let home = Path::new(container.labels.working_dir().unwrap_or_default());
        let mut named = container.labels.config_files().into_iter().peekable();
        let has_none = named.peek().is_none();
        has_none
            || named.any(|file| {
                store::resolve(&home.join(file)).is_ok_and(|file| known.contains(&file))
            })
    };
    let ours = containers.iter().filter(is_of_files);
    let names: BTreeSet<&str> = ours.filter_map(|one| one.labels.project()).collect();
    let others: Vec<&str> = names.iter().copied().filter(|name| *name != own).collect();
    match others.as_slice() {
        [] => Ok(None),
        [one] if !names.contains(own) && files.project_name_variable().is_none() => {
            notes.push(format!(
                "containers of this directory run as the project `{one}`, which Compose would call \
                `{own}`; the manifest says so to dkv, and COMPOSE_PROJECT_NAME={one} in .env says \
                it to Compose"
            ));
            Ok(Some((*one).to_owned()))
        }
        several => {
            notes.push(format!(
                "containers of this directory also run as {}, and only `{own}` was looked at; \
                COMPOSE_PROJECT_NAME says which one is meant",
                several.join(", ")
            ));
            Ok(None)
        }
    }
}

/// What is said of a service whose line is no image name with the values that its variables have.
fn no_image(written: &compose::Line, why: &str, has_value: &dyn Fn(&str) -> bool) -> String {
    let place = written.place.as_ref().map_or_else(
        || format!("{}:{}", written.file.display(), written.line),
        |place| format!("{}:{}", place.file.display(), place.line),
    );
    let text = written.image_text().unwrap_or_default();
    let variables = image_line::variables_in(text);
    let unset: Vec<&str> =
        variables.iter().map(String::as_str).filter(|name| !has_value(name)).collect();
    let mend = match unset.first() {
        Some(first) => {
            format!("{} has no value; give it one, as {first}=… in .env", unset.join(", "))
        }
        None => why.to_owned(),
    };
    format!(
        "{place}, {} is not tracked: `{text}` is no image name here: {mend}, and run this again",
        written.service
    )
}

/// Settles on the files that the containers of this directory were started with, else on those that
/// Compose takes by itself, else on the only one that looks like it. Those that Compose would not
/// take next time as well, with nothing said, have to be named in the manifest.
fn choose_files(
    deployment: &mut Deployment<'_>,
    containers: &[Container],
) -> Result<Option<[Vec<String>; 2]>> {
    let app = deployment.app();
    let directory = app.store.directory();
    let files = deployment.files()?;
    let databases = files.databases().to_vec();
    let [v1, v2] = [Generation::V1, Generation::V2].map(|one| files.application(one).to_vec());
    let named = if app.environment.text("COMPOSE_FILE").is_some() {
        // This process's environment will be forgotten.
        v2
    } else {
        match used_files(directory, &databases, containers)? {
            Some(used) if used == v1 || used == v2 => return Ok(None),
            Some(used) => used,
            None if !v2.is_empty() => return Ok(None),
            None => match only_candidate(directory, &databases)? {
                Some(file) => vec![file],
                None => return Ok(None),
            },
        }
    };
    let names = [&named, &databases]
        .map(|list| list.iter().map(|file| file.display().to_string()).collect());
    deployment.use_files(named, databases)?;
    Ok(Some(names))
}

/// The application files that the containers of this directory were started with, if they agree.
fn used_files(
    directory: &Path,
    databases: &[PathBuf],
    containers: &[Container],
) -> Result<Option<Vec<PathBuf>>> {
    let real = store::resolve(directory)?;
    let relative = |file: &str| {
        let path = real.join(file);
        let path = store::resolve(&path).unwrap_or(path);
        path.strip_prefix(&real).map_or_else(|_| path.clone(), Path::to_owned)
    };
    let mut lists = Vec::new();
    for labels in containers.iter().map(|container| &container.labels) {
        if labels.working_dir().is_some_and(|place| is_same(Path::new(place), directory)) {
            let mut files: Vec<PathBuf> = labels.config_files().into_iter().map(relative).collect();
            files.retain(|file| !databases.contains(file));
            lists.extend(Some(files).filter(|files| !files.is_empty()));
        }
    }
    lists.dedup();
    let Some(only) = lists.pop().filter(|_| lists.is_empty()) else { return Ok(None) };
    for file in &only {
        if store::look(&real.join(file))? != Some(Kind::File) {
            return Ok(None);
        }
    }
    Ok(Some(only))
}

/// The one file that looks like a Compose file without having a name that Compose looks for.
fn only_candidate(directory: &Path, databases: &[PathBuf]) -> Result<Option<PathBuf>> {
    let mut names = compose::compose_like(directory)?;
    names.retain(|name| !databases.contains(name) && !is_template(&name.to_string_lossy()));
    if names.len() > 1 {
        let all: Vec<String> = names.iter().map(|file| file.display().to_string()).collect();
        let message = format!(
            "several Compose files, none of which Compose takes by itself: {}",
            all.join(", ")
        );
        let hint = format!("say which: COMPOSE_FILE={} dkv migrate-versions", all[0]);
        return Err(error::state(message).with_hint(hint).into());
    }
    Ok(names.pop())
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || store::resolve(one)
            .is_ok_and(|one| store::resolve(other).is_ok_and(|other| one == other))
}

/// What a service runs or ran, or else the local image of its name.
async fn present(
    docker: &Docker,
    images: &ImageList,
    containers: &[Container],
    service: &str,
    image: &Reference,
) -> Result<Option<Present>> {
    let runs = |one: &Container| {
        use ContainerState::{Paused, Restarting, Running};
        matches!(one.state, Running | Paused | Restarting)
    };
    let own = containers.iter().filter(|one| one.labels.service() == Some(service));
    // One that has ended still says what the deployment ran last.
    let container = own.min_by_key(|one| !runs(one));
    let detail = match container {
        Some(container) => docker.inspect_container(&container.id).await?,
        None => None,
    };
    if let Some((image_id, named)) =
        detail.and_then(|detail| Some((detail.image_id?, detail.image)))
    {
        let known = images.by_id(&image_id);
        return Ok(Some(Present {
            is_running: container.is_some_and(runs),
            named: named.parse().ok(),
            digests: known.map(|known| known.digests.clone()).unwrap_or_default(),
            tags: known.map(|known| known.tags.clone()).unwrap_or_default(),
            image_id,
        }));
    }
    let known = docker.image(&image.to_string()).await?;
    Ok(known.map(|known| Present {
        is_running: false,
        named: Some(image.clone()),
        image_id: known.id,
        digests: known.digests,
        tags: known.tags,
    }))
}
