//! What a deployment consists of, for commands that only look. Where Compose is not installed or
//! refuses its files, the files' own lines and the labels of containers tell most of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::app::App;
use crate::compose::config::ServiceConfig;
use crate::compose::{self, Files, Generation, Project, Set};
use crate::deployment::Deployment;
use crate::docker::{Container, ContainerFilter, Docker};
use crate::error::{self, Kind};
use crate::model::manifest::Service;
use crate::observe;

/// How long Compose may read its files.
const COMPOSE_PATIENCE: Duration = Duration::from_secs(15);
/// The label that every container of Compose carries.
const PROJECT_LABEL: &str = "com.docker.compose.project";

/// What belongs to a deployment.
pub(super) struct Survey {
    /// The manifest, if there is one.
    pub(super) deployment: Option<Deployment>,
    /// What Compose would start; without Compose, what is known of it.
    pub(super) project: Project,
    /// The Compose services of the application files, as far as dkv can read them itself.
    application: BTreeSet<String>,
    /// The Compose services of the database files.
    pub(super) databases: BTreeSet<String>,
    /// Whether Compose itself described the project.
    pub(super) is_complete: bool,
}

impl Survey {
    /// Reads manifest and Compose files.
    ///
    /// # Errors
    ///
    /// The manifest is not valid, or there is neither a Compose file nor a container (exit 3); the
    /// daemon does not answer (exit 6).
    pub(super) async fn of(app: &App) -> Result<Self> {
        Self::with(app, app.load()?).await
    }

    /// As [`Self::of`], for what needs no versions: without the manifest if that is not valid.
    ///
    /// # Errors
    ///
    /// As for [`Self::of`], but for the manifest.
    pub(super) async fn of_containers(app: &App) -> Result<Self> {
        let deployment = app.load().unwrap_or_else(|error| {
            app.ui.warn(format!("going on without the manifest: {error:#}"));
            None
        });
        Self::with(app, deployment).await
    }

    async fn with(app: &App, deployment: Option<Deployment>) -> Result<Self> {
        let compose = app.compose(deployment.as_ref())?;
        let files = compose.files();
        let application = service_names(files, files.application(Generation::V2));
        let databases = databases(files);
        let described = async {
            let environment = match &deployment {
                Some(deployment) => compose::Environment::default().with(deployment.assignments()?),
                None => compose::Environment::default(),
            };
            let set = if files.databases().is_empty() { Set::Application } else { Set::All };
            compose.config(set, &environment, Some(COMPOSE_PATIENCE)).await
        };
        // Both are asked at once: the daemon's refusal matters more than what Compose makes of it.
        let (described, docker) = tokio::join!(described, app.docker());
        let docker = docker?;
        let (project, is_complete) = match described {
            Ok(project) => (project, true),
            Err(error) if error::kind(&error) == Kind::Interrupted => return Err(error),
            Err(error) => {
                let project = from_labels(docker, app.store.directory(), files).await?;
                if project.services.is_empty() && files.all(Generation::V2).is_empty() {
                    return Err(error);
                }
                app.ui.warn(format!(
                    "showing what containers say about themselves, because \
                    Compose cannot be asked: {error:#}"
                ));
                (project, false)
            }
        };
        Ok(Self { deployment, project, application, databases, is_complete })
    }

    /// The manifest service of each Compose service.
    pub(super) fn tracked(&self) -> BTreeMap<String, &Service> {
        self.deployment
            .as_ref()
            .map(|deployment| observe::tracked(&deployment.manifest, &self.project))
            .unwrap_or_default()
    }

    /// The services that the files describe, whether Compose would start them or not.
    pub(super) fn described(&self) -> impl Iterator<Item = &str> {
        self.application.iter().chain(&self.databases).map(String::as_str)
    }

    /// The project's containers.
    pub(super) fn filter(&self) -> ContainerFilter {
        ContainerFilter::project(&self.project.name)
    }
}

/// The services that only the database files describe.
pub(super) fn databases(files: &Files) -> BTreeSet<String> {
    let application = service_names(files, files.application(Generation::V2));
    service_names(files, files.databases()).difference(&application).cloned().collect()
}

/// The services of some of the files; those that cannot be read have none.
fn service_names(files: &Files, some: &[PathBuf]) -> BTreeSet<String> {
    let lines = compose::lines::read(files.directory(), some).unwrap_or_default();
    lines.into_iter().map(|line| line.service).collect()
}

/// The project as the labels of its containers have it.
async fn from_labels(docker: &Docker, directory: &Path, files: &Files) -> Result<Project> {
    let all =
        docker.containers(&ContainerFilter { labels: vec![PROJECT_LABEL.to_owned()] }).await?;
    let paths: Vec<PathBuf> = files
        .all(Generation::V2)
        .iter()
        .filter_map(|file| directory.join(file).canonicalize().ok())
        .collect();
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let is_here = |container: &&Container| {
        let Some(home) = container.labels.working_dir().map(Path::new) else { return false };
        let is_ours =
            |file: &str| home.join(file).canonicalize().is_ok_and(|file| paths.contains(&file));
        container.labels.config_files().into_iter().any(is_ours)
            || home.canonicalize().is_ok_and(|home| home == directory)
    };
    let here = || all.iter().filter(is_here).filter_map(|container| container.labels.project());
    // The same files may have been started under several names: then Compose's own choice decides.
    let default = files.project_name_v1();
    let name = match files.project_name_variable() {
        Some(_) => default,
        None => {
            here().find(|name| *name == default).or(here().next()).map_or(default, str::to_owned)
        }
    };
    let images: BTreeMap<String, String> = all
        .iter()
        .filter(|container| container.labels.project() == Some(name.as_str()))
        .filter_map(|container| {
            Some((container.labels.service()?.to_owned(), container.image.clone()))
        })
        .collect();
    let services = images
        .into_iter()
        .map(|(service, image)| ServiceConfig::named(service, Some(image)))
        .collect();
    Ok(Project { name, services, volumes: Default::default() })
}
