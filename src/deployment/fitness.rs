//! Whether the Compose program that is here can work on the containers that are here.

use anyhow::Result;

use super::Deployment;
use crate::compose::{Environment, Generation, Standing};
use crate::docker::{Container, ContainerDetail, ContainerFilter};
use crate::error;

/// From this Engine on, images do not tell any more what Compose v1 asks of them when it takes the
/// volumes of a container over to the one that replaces it: it fails when the old one is away
/// already.
const FIRST_THAT_TELLS_TOO_LITTLE: u32 = 28;

impl Deployment<'_> {
    /// Makes sure, before anything stops, that Compose can replace the deployment's containers. The
    /// plugin of v2 can be out of sight, below a home that this user or service does not see; what
    /// runs instead of it then would rename and replace everything.
    ///
    /// # Errors
    ///
    /// Compose v1 is all that runs here, and a newer Compose has made the containers, or they have
    /// volumes without a name that Compose v1 cannot take over on this Engine (exit 6).
    pub async fn check_compose(&self, environment: &Environment) -> Result<()> {
        let compose = self.compose()?;
        let tool = compose.tool(environment).await?;
        if tool.generation == Generation::V2 {
            return Ok(());
        }
        let docker = self.app.docker().await?;
        let project = &self.project().await?.name;
        let filter = ContainerFilter::project(project);
        let containers = docker.containers(&filter).await?;
        let newer = containers.iter().find_map(newer_compose);
        if let Some(newer) = newer {
            let message = format!(
                "the containers of {project} were made by Compose {newer}, but only \
                `docker-compose` {} runs here, which would rename and replace all of them; nothing \
                was stopped or started",
                tool.version
            );
            let hint = "see why `docker compose version` fails for this user: the plugin may be \
                below a HOME that is unset or out of sight (a systemd unit with ProtectHome=); \
                install it for all users, in /usr/libexec/docker/cli-plugins";
            return Err(error::docker(message).with_hint(hint).into());
        }
        let engine = docker.host().await?.major_version;
        if engine.is_none_or(|major| major < FIRST_THAT_TELLS_TOO_LITTLE) {
            return Ok(());
        }
        let mut standing = Standing::new();
        for container in &containers {
            if let (Some(name), Some(hash)) =
                (container.labels.service(), container.labels.config_hash())
            {
                standing.entry(name.to_owned()).or_default().push(hash.to_owned());
            }
        }
        compose.make_way(standing);
        let details = docker.container_details(&filter).await?;
        match details.iter().find(|container| has_unnamed_volume(container)) {
            None => Ok(()),
            Some(container) => {
                let message = format!(
                    "the container {} has a volume without a name, which `docker-compose` {} \
                    cannot take over to a new container on this Engine; nothing was stopped or \
                    started",
                    container.name, tool.version
                );
                let hint = "install Compose v2 (package docker-compose-plugin or \
                    docker-compose-v2), or give the volume a name in the Compose file";
                Err(error::docker(message).with_hint(hint).into())
            }
        }
    }
}

/// The version of the Compose that made a container, if that is not v1.
fn newer_compose(container: &Container) -> Option<&str> {
    container.labels.compose_version().filter(|version| !version.starts_with("1."))
}

/// Whether a container has a volume that the daemon named.
fn has_unnamed_volume(container: &ContainerDetail) -> bool {
    container.mounts.iter().any(|mount| mount.unnamed_volume().is_some())
}
