//! What a migration sees: the Compose files, what Compose makes of them, and what this host has.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::app::App;
use crate::compose::files::Configured;
use crate::compose::template::is_template;
use crate::compose::{self, Compose, ComposeFiles, Files, Generation, Project, Set};
use crate::deployment::Deployment;
use crate::docker::{Container, ContainerFilter, ContainerState, Docker};
use crate::error;
use crate::model::reference::Reference;
use crate::plan::migrate::{Line, Present};

/// The label that every container of Compose carries.
const PROJECT: &str = "com.docker.compose.project";

/// What was seen.
pub struct Scene {
    /// Compose, with the files that belong to the deployment.
    pub compose: Compose,
    /// Application and database files, where the manifest has to name them.
    pub configured: Option<[Vec<String>; 2]>,
    /// The image lines as they are written.
    pub written: ComposeFiles,
    /// The Compose services.
    pub lines: Vec<Line>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl Scene {
    /// Looks at files, Compose and, where there is a daemon, containers and images.
    ///
    /// # Errors
    ///
    /// There are no Compose files (exit 3); Compose refuses them or the daemon breaks off (exit 6).
    pub async fn look(deployment: &Deployment<'_>, docker: Option<&Docker>) -> Result<Self> {
        let app = deployment.app();
        let directory = app.store.directory();
        let mut notes = Vec::new();
        let containers = match docker {
            Some(docker) => {
                docker.containers(&ContainerFilter { labels: vec![PROJECT.to_owned()] }).await?
            }
            None => Vec::new(),
        };
        let containers: Vec<Container> =
            containers.into_iter().filter(|container| !container.labels.is_one_off()).collect();
        let (files, configured) = match deployment.recorded() {
            Some(_) => (deployment.files()?.clone(), None),
            None => find_files(deployment, &containers)?,
        };
        let compose = Compose::new(files, compose::Output::Capture);
        let environment = deployment.environment()?;
        let set = if compose.files().databases().is_empty() { Set::Application } else { Set::All };
        let project = compose.config(set, &environment, None).await?;
        let generation = compose.tool(&environment).await?.generation;
        let ours = |container: &&Container| {
            let place = container.labels.working_dir();
            let is_here = place.is_some_and(|place| is_same(Path::new(place), directory));
            let moved = place.is_none_or(|place| !Path::new(place).exists());
            is_here || (container.labels.project() == Some(&project.name) && moved)
        };
        let containers: Vec<&Container> = containers.iter().filter(ours).collect();
        if let Some(other) = containers
            .iter()
            .filter_map(|one| one.labels.project())
            .find(|name| *name != project.name)
        {
            notes.push(format!(
                "containers of this directory run as the project `{other}`, but Compose would \
                    start `{}` now: \
                 put COMPOSE_PROJECT_NAME={other} into .env",
                project.name
            ));
        }
        let written = ComposeFiles::read(compose.files(), generation);
        written.require()?;
        let mut lines = read_lines(app, &compose, &project, &written, generation)?;
        if let Some(docker) = docker {
            find_images(docker, &containers, &mut lines).await?;
        }
        Ok(Self { compose, configured, written, lines, notes })
    }
}

/// The files that the containers of this directory were started with, else those that Compose takes
/// by itself, else the only one that looks like it. Those that Compose would not take next time as
/// well, with nothing said, have to be named in the manifest.
fn find_files(
    deployment: &Deployment<'_>,
    containers: &[Container],
) -> Result<(Files, Option<[Vec<String>; 2]>)> {
    let app = deployment.app();
    let directory = app.store.directory();
    let conventional = deployment.files()?;
    let by_convention = [Generation::V1, Generation::V2]
        .map(|generation| conventional.application(generation).to_vec());
    let named = if app.environment.text("COMPOSE_FILE").is_some() {
        // This process's environment will be forgotten.
        by_convention[1].clone()
    } else {
        match used_files(directory, conventional, containers) {
            Some(used) if !by_convention.contains(&used) => used,
            Some(_) => return Ok((conventional.clone(), None)),
            None if !by_convention[1].is_empty() => return Ok((conventional.clone(), None)),
            None => match only_candidate(directory, conventional)? {
                Some(file) => vec![file],
                None => return Ok((conventional.clone(), None)),
            },
        }
    };
    let databases = conventional.databases().to_vec();
    let configured = Configured { files: Some(named.clone()), db_files: Some(databases.clone()) };
    let files = Files::discover(directory, &configured, &|name| app.environment.text(name))?;
    let texts = |files: Vec<PathBuf>| files.iter().map(|file| file.display().to_string()).collect();
    Ok((files, Some([texts(named), texts(databases)])))
}

/// The application files that the containers of this directory were started with, if they agree.
fn used_files(
    directory: &Path,
    conventional: &Files,
    containers: &[Container],
) -> Option<Vec<PathBuf>> {
    let real = directory.canonicalize().ok()?;
    let here = containers.iter().filter(|one| {
        one.labels.working_dir().is_some_and(|place| is_same(Path::new(place), directory))
    });
    let lists = here.map(|container| -> Vec<PathBuf> {
        let files = container.labels.config_files().into_iter().map(|file| {
            let path = real.join(file);
            let path = path.canonicalize().unwrap_or(path);
            path.strip_prefix(&real).map_or_else(|_| path.clone(), Path::to_owned)
        });
        files.filter(|file| !conventional.databases().contains(file)).collect()
    });
    let mut lists: Vec<Vec<PathBuf>> = lists.filter(|list| !list.is_empty()).collect();
    lists.dedup();
    let only = lists.pop()?;
    (lists.is_empty() && only.iter().all(|file| real.join(file).is_file())).then_some(only)
}

/// The one file that looks like a Compose file without having a name that Compose looks for.
fn only_candidate(directory: &Path, conventional: &Files) -> Result<Option<PathBuf>> {
    let mut names = other_compose_files(directory);
    names.retain(|name| !conventional.databases().contains(name));
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

/// Every file of the directory that is called like a Compose file.
pub fn other_compose_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<PathBuf> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let is_yaml = [".yml", ".yaml"].iter().any(|ending| name.ends_with(ending));
            is_yaml && name.contains("compose") && !is_template(name)
        })
        .map(PathBuf::from)
        .collect();
    names.sort();
    names
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// The Compose services with what files and Compose say about them; those of inactive profiles too.
fn read_lines(
    app: &App,
    compose: &Compose,
    project: &Project,
    written: &ComposeFiles,
    generation: Generation,
) -> Result<Vec<Line>> {
    let files = compose.files();
    let lookup = |name: &str| app.environment.text(name).or_else(|| files.dot_env(name));
    let separator = if generation == Generation::V1 { '_' } else { '-' };
    let mut lines = Vec::new();
    for one in written.services() {
        let config = project.service(&one.service);
        let has_build = one.has_build || config.is_some_and(|config| config.has_build);
        let evaluated = || one.template()?.evaluate(&lookup).ok();
        let built = || has_build.then(|| format!("{}{separator}{}", project.name, one.service));
        let Some(image) =
            config.and_then(|config| config.image.clone()).or_else(evaluated).or_else(built)
        else {
            continue;
        };
        let image: Reference = image.parse().map_err(|error| {
            error::state(format!(
                "{}, Compose service `{}`: {error}",
                one.file.display(),
                one.service
            ))
        })?;
        lines.push(Line {
            compose_service: one.service.clone(),
            text: one.image_text().map(str::to_owned),
            image,
            has_build,
            is_database: compose.files().databases().contains(&one.file),
            present: None,
        });
    }
    Ok(lines)
}

/// Finds what each service runs, or else which local image has its name.
async fn find_images(docker: &Docker, containers: &[&Container], lines: &mut [Line]) -> Result<()> {
    for line in lines {
        let own =
            containers.iter().filter(|one| one.labels.service() == Some(&line.compose_service));
        let runs = |one: &Container| {
            matches!(
                one.state,
                ContainerState::Running | ContainerState::Paused | ContainerState::Restarting
            )
        };
        // One that has ended still says what the deployment ran last.
        let container = own.min_by_key(|one| !runs(one));
        let is_running = container.is_some_and(|one| runs(one));
        let detail = match container {
            Some(container) => docker.inspect_container(&container.id).await?,
            None => None,
        };
        line.present = match detail.and_then(|detail| Some((detail.image_id?, detail.image))) {
            Some((image_id, named)) => {
                let image = docker.image(image_id.as_str()).await?;
                let (digests, tags) =
                    image.map(|image| (image.digests, image.tags)).unwrap_or_default();
                Some(Present { is_running, named: named.parse().ok(), image_id, digests, tags })
            }
            None => {
                let image = docker
                    .image(&line.image.to_string())
                    .await
                    .context("cannot look for local images")?;
                let named = Some(line.image.clone());
                image.map(|image| Present {
                    is_running: false,
                    named,
                    image_id: image.id,
                    digests: image.digests,
                    tags: image.tags,
                })
            }
        };
    }
    Ok(())
}
