//! Containers made again as they were, for when the Compose files do not lead back to them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, MountPoint, NetworkConnectRequest,
    NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, RenameContainerOptions,
    RestartContainerOptions, StartContainerOptions,
};

use super::{Docker, Shared, container, is_not_found};

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

impl Blueprint {
    /// The names or IDs of the containers that this one has namespaces or volumes of.
    pub fn peers(&self) -> impl Iterator<Item = String> {
        let host = self.body.host_config.as_ref();
        host.map(container::shares).into_iter().flatten().map(|(_, of)| of)
    }

    fn is(&self, peer: &str) -> bool {
        self.id == peer || self.name == peer
    }

    /// The same, so that who has namespaces or volumes of another comes after that one.
    #[must_use]
    pub fn peers_first(blueprints: Vec<Self>) -> Vec<Self> {
        let (mut ordered, mut rest): (Vec<Self>, Vec<Self>) = (Vec::new(), blueprints);
        while !rest.is_empty() {
            let waits = |one: &Self| one.peers().any(|peer| rest.iter().any(|two| two.is(&peer)));
            let (waiting, ready): (Vec<Self>, Vec<Self>) = rest.iter().cloned().partition(waits);
            if ready.is_empty() {
                // A circle has no order; the daemon says what is wrong with it.
                ordered.extend(rest);
                break;
            }
            ordered.extend(ready);
            rest = waiting;
        }
        ordered
    }
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
        if container::shares(&host).iter().any(|(what, _)| *what == Shared::Network) {
            // The other container's, which the daemon takes from nobody else.
            (body.hostname, body.domainname, body.exposed_ports) = (None, None, None);
        }
        if host.uts_mode.as_deref() == Some("host") {
            body.hostname = None;
        }
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

    /// Makes a container as it was, under its name, and starts it; returns its ID. `renewed` are the
    /// IDs, now, of the containers by their IDs before.
    ///
    /// # Errors
    /// Kind Docker: the daemon cannot make or start it.
    pub async fn make_again(
        &self,
        blueprint: &Blueprint,
        renewed: &BTreeMap<String, String>,
    ) -> Result<String> {
        let Blueprint { name, .. } = blueprint;
        let mut body = blueprint.body.clone();
        if let Some(host) = &mut body.host_config {
            join_again(host, renewed);
        }
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
        self.start_container(&id).await?;
        Ok(id)
    }

    /// Ends a container, if it runs, and starts it: in the namespaces that are there then.
    ///
    /// # Errors
    /// Kind Docker: there is none, or the daemon cannot.
    pub async fn restart_container(&self, id: &str) -> Result<()> {
        let restarted = self.client.restart_container(id, None::<RestartContainerOptions>);
        self.answer(&format!("start the container {id} again"), restarted).await
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
}

/// Lets a container have what it had of others of those that they are now.
fn join_again(host: &mut HostConfig, renewed: &BTreeMap<String, String>) {
    let now = |id: &str| renewed.get(id).map(String::as_str);
    let modes = [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode];
    for mode in modes.into_iter().flatten() {
        if let Some(id) = mode.strip_prefix("container:").and_then(now) {
            *mode = format!("container:{id}");
        }
    }
    for from in host.volumes_from.iter_mut().flatten() {
        let (id, mode) =
            from.split_once(':').map_or((from.as_str(), None), |(id, mode)| (id, Some(mode)));
        if let Some(id) = now(id) {
            *from = mode.map_or_else(|| id.to_owned(), |mode| format!("{id}:{mode}"));
        }
    }
}

/// Volumes without a name were made for the container: they are named from now on.
fn keep_volumes(host: &mut HostConfig, mounts: Vec<MountPoint>) {
    let mut binds = host.binds.take().unwrap_or_default();
    for mount in mounts {
        let (Some(volume), Some(place)) = (mount.name, mount.destination) else { continue };
        let mut asked = host.mounts.iter_mut().flatten();
        if let Some(asked) = asked.find(|asked| asked.target.as_ref() == Some(&place)) {
            asked.source = asked.source.take().filter(|name| !name.is_empty()).or(Some(volume));
        } else if !volume.is_empty()
            && !binds.iter().any(|bind| bind.split(':').nth(1) == Some(place.as_str()))
        {
            let mode = if mount.rw == Some(false) { ":ro" } else { "" };
            binds.push(format!("{volume}:{place}{mode}"));
        }
    }
    host.binds = Some(binds).filter(|binds| !binds.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blueprint(name: &str, mode: &str) -> Blueprint {
        let host = HostConfig { network_mode: Some(mode.to_owned()), ..HostConfig::default() };
        let body =
            ContainerCreateBody { host_config: Some(host), ..ContainerCreateBody::default() };
        Blueprint { id: format!("{name}-id"), name: name.to_owned(), body, networks: Vec::new() }
    }

    #[test]
    fn who_has_something_of_another_is_made_after_it() {
        let order = |list: &[(&str, &str)]| {
            let all = list.iter().map(|(name, mode)| blueprint(name, mode)).collect();
            let ordered = Blueprint::peers_first(all);
            ordered.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" ")
        };
        let (web, side) = (("web", "shop_default"), ("side", "container:web-id"));
        assert_eq!(order(&[side, web]), "web side");
        assert_eq!(order(&[("far", "container:side-id"), side, web]), "web side far");
        assert_eq!(order(&[("side", "container:web"), web]), "web side");
        assert_eq!(order(&[side]), "side");
        assert_eq!(order(&[("a", "container:b"), ("b", "container:a"), web]), "web a b");
    }

    #[test]
    fn a_container_joins_those_that_stand_in_for_its_peers() {
        let mut host = HostConfig {
            network_mode: Some("container:old".to_owned()),
            ipc_mode: Some("private".to_owned()),
            pid_mode: Some("container:other".to_owned()),
            volumes_from: Some(vec!["old:ro".to_owned(), "old".to_owned(), "other:rw".to_owned()]),
            ..HostConfig::default()
        };
        join_again(&mut host, &[("old".to_owned(), "new".to_owned())].into());
        assert_eq!(host.network_mode.as_deref(), Some("container:new"));
        assert_eq!(host.ipc_mode.as_deref(), Some("private"));
        assert_eq!(host.pid_mode.as_deref(), Some("container:other"));
        assert_eq!(host.volumes_from.unwrap(), ["new:ro", "new", "other:rw"]);
    }
}
