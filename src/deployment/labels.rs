//! What the labels of containers say about a deployment, for where Compose cannot be asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::compose::config::ServiceConfig;
use crate::compose::{Files, Generation, Project};
use crate::docker::{Container, ContainerFilter, Docker};
use crate::store;

/// The label that every container of Compose carries.
const PROJECT_LABEL: &str = "com.docker.compose.project";

/// The project as the labels of its containers have it.
pub(super) async fn project(docker: &Docker, directory: &Path, files: &Files) -> Result<Project> {
    let filter = ContainerFilter { labels: vec![PROJECT_LABEL.to_owned()] };
    let all = docker.containers(&filter).await?;
    let name = project_name(&all, directory, files).unwrap_or_else(|| files.project_name_v1());
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
    Ok(Project { name, services, dormant: Vec::new(), volumes: Default::default() })
}

/// The name under which the containers of `directory` or of its `files` were made. The same files
/// may have been started under several names: then Compose's own choice decides.
pub(super) fn project_name(
    containers: &[Container],
    directory: &Path,
    files: &Files,
) -> Option<String> {
    let paths: Vec<PathBuf> = files
        .all(Generation::V2)
        .iter()
        .filter_map(|file| store::resolve(&directory.join(file)).ok())
        .collect();
    let directory = store::resolve(directory).unwrap_or_else(|_| directory.to_owned());
    let default = files.project_name_v1();
    let ours = containers.iter().filter(|one| is_of(one, &directory, &paths));
    let names: Vec<&str> = ours.filter_map(|one| one.labels.project()).collect();
    let is_named = files.project_name_variable().or(files.project_name()).is_some();
    if is_named || names.contains(&default.as_str()) {
        return names.contains(&default.as_str()).then_some(default);
    }
    names.first().map(|name| (*name).to_owned())
}

/// Whether a container was made in `directory`, or of one of the Compose files at `paths`.
fn is_of(container: &Container, directory: &Path, paths: &[PathBuf]) -> bool {
    let Some(home) = container.labels.working_dir().map(Path::new) else { return false };
    let files = container.labels.config_files().into_iter();
    // A place that this user may not look at is not this deployment's.
    files.filter_map(|file| store::resolve(&home.join(file)).ok()).any(|file| paths.contains(&file))
        || store::resolve(home).is_ok_and(|home| home == directory)
}
