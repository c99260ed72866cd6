//! Who hangs on to whose container: what goes along when a container is replaced, and what hangs in
//! the namespaces of one that is gone. Pure.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use crate::compose::Project;
use crate::compose::config::{Peer, ServiceConfig, Shared};
use crate::docker::{ContainerDetail, ContainerState};

/// The Compose services that go along when `replaced` get new containers, in Compose's order: those
/// that have namespaces or volumes of one that goes, however far away, and those that Compose
/// restarts after one that is replaced. `owner` knows the service of a container by its name.
#[must_use]
pub fn followers(
    project: &Project,
    replaced: &[String],
    owner: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut renewed: BTreeSet<&str> = replaced.iter().map(String::as_str).collect();
    let mut restarted: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = renewed.len() + restarted.len();
        for service in &project.services {
            let name = service.name.as_str();
            let hangs = peers(project, service, owner).any(|(what, peer)| {
                // A container that is only restarted keeps its volumes, and nothing else.
                renewed.contains(peer.as_str())
                    || (what != Shared::Volumes && restarted.contains(peer.as_str()))
            });
            if hangs {
                renewed.insert(name);
            }
            let mut depends_on = service.depends_on.iter();
            if depends_on.any(|(on, how)| how.restart && renewed.contains(on.as_str())) {
                restarted.insert(name);
            }
        }
        if before == renewed.len() + restarted.len() {
            break;
        }
    }
    let follows = |name: &str| {
        (renewed.contains(name) || restarted.contains(name))
            && !replaced.iter().any(|replaced| replaced == name)
    };
    let services = project.services.iter().map(|service| &service.name);
    services.filter(|name| follows(name)).cloned().collect()
}

/// Whether any service of `project` has something of another's container.
#[must_use]
pub fn exist(project: &Project) -> bool {
    project.services.iter().any(|service| !service.shares.is_empty())
}

/// The services whose containers a service has something of.
fn peers<'a>(
    project: &'a Project,
    service: &'a ServiceConfig,
    owner: &'a dyn Fn(&str) -> Option<String>,
) -> impl Iterator<Item = (Shared, String)> + 'a {
    service.shares.iter().filter_map(|share| {
        let peer = match &share.of {
            Peer::Service(name) => name.clone(),
            Peer::Container(name) => {
                let of_name = |one: &&ServiceConfig| one.container_name.as_ref() == Some(name);
                let named = project.services.iter().find(of_name).map(|one| one.name.clone());
                named.or_else(|| owner(name))?
            }
        };
        Some((share.what, peer))
    })
}

/// A container that hangs on to what is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hanging {
    /// Its Compose service.
    pub service: String,
    /// Its name.
    pub container: String,
    /// What it has of another.
    pub what: Shared,
    /// What became of the other.
    pub why: Why,
}

/// What became of the container whose namespaces or volumes another has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It does not exist any more.
    Gone,
    /// It has been started again since, with new namespaces. Its name.
    Restarted(String),
    /// Another container stands in its place. Its Compose service.
    Replaced(String),
}

impl Hanging {
    /// What is wrong, without the service.
    #[must_use]
    pub fn in_words(&self) -> String {
        let what = match self.what {
            Shared::Network => "in the network",
            Shared::Ipc => "in the IPC namespace",
            Shared::Pid => "in the PID namespace",
            Shared::Volumes => "on the volumes",
        };
        match &self.why {
            Why::Gone => format!("hangs {what} of a container that is gone"),
            Why::Replaced(service) => {
                format!("hangs {what} of an older container of {service}")
            }
            Why::Restarted(name) => {
                format!("hangs {what} that {name} had before it was started again")
            }
        }
    }
}

/// The names and IDs that running `containers` hang on to and that none of them has.
#[must_use]
pub fn strangers(containers: &[&ContainerDetail]) -> Vec<String> {
    let all = containers.iter().filter(|one| one.state == ContainerState::Running);
    let mut strangers: Vec<String> = all
        .flat_map(|one| &one.shares)
        .map(|(_, of)| of.clone())
        .filter(|of| !containers.iter().any(|one| is(one, of)))
        .collect();
    strangers.sort();
    strangers.dedup();
    strangers
}

/// The running ones of `containers` that hang on to what is gone; `others` are those of their
/// [`strangers`] that exist.
#[must_use]
pub fn hanging(containers: &[&ContainerDetail], others: &[ContainerDetail]) -> Vec<Hanging> {
    let mut found = Vec::new();
    for one in containers.iter().filter(|one| one.state == ContainerState::Running) {
        let why = |(what, of): &(Shared, String)| {
            let peer = containers.iter().copied().chain(others).find(|peer| is(peer, of));
            Some((*what, cut_off(one, *what, peer, containers)?))
        };
        if let Some((what, why)) = one.shares.iter().find_map(why)
            && let Some(service) = one.labels.service()
        {
            let (service, container) = (service.to_owned(), one.name.clone());
            found.push(Hanging { service, container, what, why });
        }
    }
    found
}

/// Why `one` no longer has what it has of `peer`, if so.
fn cut_off(
    one: &ContainerDetail,
    what: Shared,
    peer: Option<&ContainerDetail>,
    containers: &[&ContainerDetail],
) -> Option<Why> {
    let Some(peer) = peer else { return Some(Why::Gone) };
    if peer.state != ContainerState::Running {
        let service = peer.labels.service()?;
        let mut successors = containers.iter().filter(|other| {
            other.labels.service() == Some(service)
                && other.labels.number() == peer.labels.number()
                && other.id != peer.id
                && other.state == ContainerState::Running
        });
        return successors.next().map(|_| Why::Replaced(service.to_owned()));
    }
    let is_older = one.started_at.zip(peer.started_at).is_some_and(|(one, peer)| one < peer);
    (is_older && what != Shared::Volumes).then(|| Why::Restarted(peer.name.clone()))
}

fn is(container: &ContainerDetail, name: &str) -> bool {
    container.id == name
        || container.name == name
        || (name.len() >= 12 && container.id.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::config;

    /// Services, what is replaced, and who goes along.
    const CASES: &[(&str, &str, &str)] = &[
        ("{web: {}, side: {network_mode: 'service:web'}}", "web", "side"),
        ("{web: {}, side: {network_mode: 'service:web'}}", "side", ""),
        ("{web: {}, side: {ipc: 'service:web'}}", "web", "side"),
        ("{web: {}, side: {pid: 'service:web'}}", "web", "side"),
        ("{web: {}, side: {volumes_from: ['web:ro']}}", "web", "side"),
        ("{web: {}, side: {network_mode: host, ipc: shareable}}", "web", ""),
        // However far away, in whatever order.
        (
            "{far: {pid: 'service:side'}, side: {network_mode: 'service:web'}, web: {}}",
            "web",
            "far side",
        ),
        // By a container's name: its own, or the one that the daemon has.
        ("{web: {container_name: shop}, side: {network_mode: 'container:shop'}}", "web", "side"),
        ("{web: {}, side: {network_mode: 'container:shop-web-1'}}", "web", "side"),
        ("{web: {}, side: {network_mode: 'container:foreign'}}", "web", ""),
        // Restarted, but not what is only restarted with it.
        (
            "{web: {}, api: {depends_on: {web: {restart: true}}}, \
                far: {depends_on: {api: {restart: true}}}}",
            "web",
            "api",
        ),
        ("{web: {}, api: {depends_on: {web: {restart: false}}}}", "web", ""),
        // A restarted one takes its namespaces along, and keeps its volumes.
        (
            "{web: {}, api: {depends_on: {web: {restart: true}}}, \
                side: {network_mode: 'service:api'}, vols: {volumes_from: [api]}}",
            "web",
            "api side",
        ),
        // A circle ends.
        ("{a: {volumes_from: [b]}, b: {volumes_from: [a]}}", "a", "b"),
    ];

    #[test]
    fn who_hangs_on_to_what_is_replaced_goes_along() {
        for (services, replaced, expected) in CASES {
            let text = format!("name: shop\nservices: {services}");
            let json: serde_json::Value = serde_yaml::from_str(&text).unwrap();
            let project = config::parse_v2(&json.to_string()).unwrap();
            let replaced: Vec<String> = replaced.split(' ').map(str::to_owned).collect();
            let owner = |name: &str| (name == "shop-web-1").then(|| "web".to_owned());
            let found = followers(&project, &replaced, &owner).join(" ");
            assert_eq!(found, *expected, "{services}");
        }
    }

    fn container(name: &str, second: u32, of: &str) -> ContainerDetail {
        ContainerDetail {
            id: format!("{name}-id"),
            name: format!("shop-{name}-1"),
            labels: [("com.docker.compose.service".to_owned(), name.to_owned())]
                .into_iter()
                .collect(),
            started_at: format!("2026-01-01T00:00:{second:02}Z").parse().ok(),
            shares: match of {
                "" => Vec::new(),
                of => vec![(Shared::Network, of.to_owned())],
            },
            ..ContainerDetail::of_test(ContainerState::Running)
        }
    }

    #[test]
    fn what_hangs_on_to_what_is_gone_is_found() {
        let words = |containers: &[ContainerDetail], others: &[ContainerDetail]| {
            let containers: Vec<&ContainerDetail> = containers.iter().collect();
            let found = hanging(&containers, others);
            let words: Vec<String> =
                found.iter().map(|one| format!("{} {}", one.service, one.in_words())).collect();
            words.join("; ")
        };
        let web = container("web", 1, "");
        let side = container("side", 2, "web-id");
        assert_eq!(words(&[web.clone(), side.clone()], &[]), "");
        assert_eq!(
            words(std::slice::from_ref(&side), &[]),
            "side hangs in the network of a container that is gone"
        );
        // Somebody else's container is none that is gone.
        assert_eq!(words(std::slice::from_ref(&side), std::slice::from_ref(&web)), "");
        assert_eq!(strangers(&[&side]), ["web-id"]);
        assert!(strangers(&[&side, &web]).is_empty());
        assert_eq!(
            words(&[container("web", 3, ""), side.clone()], &[]),
            "side hangs in the network that shop-web-1 had before it was started again"
        );
        let mut volumes = side.clone();
        volumes.shares = vec![(Shared::Volumes, "web-id".to_owned())];
        assert_eq!(words(&[container("web", 3, ""), volumes], &[]), "");
        // The old one is still there, stopped, and another runs in its place.
        let mut old = web.clone();
        old.state = ContainerState::Exited;
        let mut new = web.clone();
        new.id = "new-id".to_owned();
        assert_eq!(
            words(&[old.clone(), new, side.clone()], &[]),
            "side hangs in the network of an older container of web"
        );
        assert_eq!(words(&[old, side.clone()], &[]), "");
        let mut ended = side;
        ended.state = ContainerState::Exited;
        assert_eq!(words(&[ended], &[]), "");
    }
}
