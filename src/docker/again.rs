//! Containers made again as they were, for when the Compose files do not lead back to them.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, NetworkConnectRequest, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, RenameContainerOptions, StartContainerOptions,
};

use super::{Docker, is_not_found};

/// All that makes a container again as it was. Holds its environment, and with it secrets: it is
/// never written down or shown.
#[derive(Clone)]
pub struct Blueprint {
    /// The daemon's full container ID.
    pub id: String,
    /// The name, without the daemon's leading slash.
    pub name: String,
    body: ContainerCreateBody,
    networks: Vec<(String, EndpointSettings)>,
}

impl Docker {
    /// How a container is made; `None` if there is none of that ID.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer or its answer is no container.
    pub async fn blueprint(&self, id: &str) -> Result<Option<Blueprint>> {
        let Some(container) = self.inspected(id).await? else { return Ok(None) };
        // The configuration of a container is what one is made from, except for these two.
        let config = serde_json::to_value(container.config.unwrap_or_default());
        let mut body: ContainerCreateBody =
            config.and_then(serde_json::from_value).context("the daemon's container is none")?;
        let id = container.id.unwrap_or_default();
        // The daemon's default for a host name; that of the new container will be another.
        body.hostname = body.hostname.filter(|name| !id.starts_with(name.as_str()));
        let mut host = container.host_config.unwrap_or_default();
        keep_volumes(&mut host, container.mounts.unwrap_or_default());
        let main = host.network_mode.clone().unwrap_or_default();
        body.host_config = Some(host);
        let networks = container.network_settings.and_then(|settings| settings.networks);
        let mut networks: Vec<(String, EndpointSettings)> =
            networks.unwrap_or_default().into_iter().collect();
        for (_, endpoint) in &mut networks {
            endpoint
                .aliases
                .iter_mut()
                .for_each(|names| names.retain(|name| !id.starts_with(name)));
            *endpoint = EndpointSettings {
                aliases: endpoint.aliases.take(),
                ipam_config: endpoint.ipam_config.take(),
                links: endpoint.links.take(),
                driver_opts: endpoint.driver_opts.take(),
                ..EndpointSettings::default()
            };
        }
        // Older daemons take only one network when a container is made: the one of its mode.
        networks.sort_by_key(|(name, _)| *name != main);
        let name = container.name.unwrap_or_default().trim_start_matches('/').to_owned();
        Ok(Some(Blueprint { id, name, body, networks }))
    }

    /// Makes a container as it was, under its name, and starts it.
    ///
    /// # Errors
    /// Kind Docker: the daemon cannot make or start it.
    pub async fn make_again(&self, blueprint: &Blueprint) -> Result<()> {
        let Blueprint { name, .. } = blueprint;
        let mut body = blueprint.body.clone();
        let mut networks = blueprint.networks.iter().cloned();
        body.networking_config = networks
            .next()
            .map(|first| NetworkingConfig { endpoints_config: Some(HashMap::from([first])) });
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            ..CreateContainerOptions::default()
        };
        let made = self.client.create_container(Some(options), body);
        let id = self.answer(&format!("make the container {name} again"), made).await?.id;
        for (network, endpoint) in networks {
            let request =
                NetworkConnectRequest { container: id.clone(), endpoint_config: Some(endpoint) };
            let connected = self.client.connect_network(&network, request);
            self.answer(&format!("connect {name} to the network {network}"), connected).await?;
        }
        self.start_container(&id).await
    }

    /// Starts a container; one that runs is left alone.
    ///
    /// # Errors
    /// Kind Docker: there is none, or the daemon cannot start it.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let started = self.client.start_container(id, None::<StartContainerOptions>);
        self.answer(&format!("start the container {id}"), started).await
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// Kind Docker: there is none, or the name is taken.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let options = RenameContainerOptions { name: name.to_owned() };
        let renamed = self.client.rename_container(id, options);
        self.answer(&format!("name the container {id} {name}"), renamed).await
    }

    /// Ends and removes a container; its volumes stay.
    ///
    /// # Errors
    /// Kind Docker: the daemon cannot.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = async {
            let options =
                RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
            match self.client.remove_container(id, Some(options)).await {
                Err(error) if is_not_found(&error) => Ok(()),
                other => other,
            }
        };
        self.answer(&format!("remove the container {id}"), request).await
    }

    /// Whether the daemon answers at all.
    ///
    /// # Errors
    /// Kind Docker: it does not.
    pub async fn greet(&self) -> Result<()> {
        self.answer("greet the daemon", self.client.ping()).await.map(drop)
    }
}

/// Volumes without a name were made for the container: they are named from now on.
fn keep_volumes(host: &mut bollard::models::HostConfig, mounts: Vec<bollard::models::MountPoint>) {
    let mut binds = host.binds.take().unwrap_or_default();
    let named = host.mounts.iter().flatten().filter_map(|mount| mount.target.clone());
    let named: Vec<String> = named.collect();
    for mount in mounts {
        let (Some(volume), Some(place)) = (mount.name, mount.destination) else { continue };
        let is_known = named.contains(&place)
            || binds.iter().any(|bind| bind.split(':').nth(1) == Some(place.as_str()));
        if !is_known && !volume.is_empty() {
            let mode = if mount.rw == Some(false) { ":ro" } else { "" };
            binds.push(format!("{volume}:{place}{mode}"));
        }
    }
    host.binds = Some(binds).filter(|binds| !binds.is_empty());
}
