//! Which data a deployment holds, and which of it is saved before an update. Pure.
//!
//! A database is known by what it is, wherever it stands: by its image, by standing in the database
//! files, or because the manifest says so. Its data is what it writes to volumes and to directories
//! of the host, without what holds none: sockets and other places of a running system, and
//! configuration.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use crate::compose::Project;
use crate::compose::config::{Mount, ServiceConfig, Source};
use crate::model::purpose::{self, Purpose};
use crate::model::reference::Reference;

/// Where data is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A named volume, by the daemon's name for it.
    Volume(String),
    /// A directory or file of the host.
    Path(String),
    /// The volume without a name at this path of a service's containers.
    Unnamed {
        /// The Compose service.
        service: String,
        /// The path inside its containers.
        target: String,
    },
}

/// A place of data, with the services that write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The place.
    pub place: Place,
    /// The Compose services that write it.
    pub services: Vec<String>,
}

/// What there is to save.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What is saved.
    pub saved: Vec<Holding>,
    /// What services write that nobody knows to be databases, or that the manifest leaves out.
    pub left: Vec<Holding>,
    /// The databases that write to no place outside their containers.
    pub without_place: Vec<String>,
}

/// What is known beside the Compose files.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// The services that stand in the database files.
    pub database_files: &'a BTreeSet<String>,
    /// The services whose data the manifest wants saved or not, whatever they are.
    pub asked: &'a BTreeMap<String, bool>,
    /// Of each service, the paths in its containers behind which unnamed volumes are.
    pub unnamed: &'a BTreeMap<String, BTreeSet<String>>,
}

/// What the services of `project` keep, and what of it is saved.
#[must_use]
pub fn survey(project: &Project, known: &Knowledge<'_>) -> Survey {
    let mut found = Survey::default();
    for service in &project.services {
        let asked = known.asked.get(&service.name).copied();
        let is_saved = asked.unwrap_or_else(|| is_database(service, known.database_files));
        let mut places = places_of(service, asked == Some(true));
        if is_saved {
            let unnamed = known.unnamed.get(&service.name).into_iter().flatten();
            places.extend(unnamed.map(|target| Place::Unnamed {
                service: service.name.clone(),
                target: target.clone(),
            }));
            if places.is_empty() {
                found.without_place.push(service.name.clone());
            }
        }
        let holdings = if is_saved { &mut found.saved } else { &mut found.left };
        for place in places {
            match holdings.iter_mut().find(|one| one.place == place) {
                Some(one) if one.services.contains(&service.name) => {}
                Some(one) => one.services.push(service.name.clone()),
                None => holdings.push(Holding { place, services: vec![service.name.clone()] }),
            }
        }
    }
    // Who else writes what is saved is no reason to call it left out.
    let Survey { saved, left, .. } = &mut found;
    left.retain(|one| !saved.iter().any(|saved| saved.place == one.place));
    found
}

/// Whether a service is a database: it stands in the database files, its image holds data that
/// releases of the application write, or it writes where databases do.
#[must_use]
pub fn is_database(service: &ServiceConfig, database_files: &BTreeSet<String>) -> bool {
    let image = service.image.as_deref().and_then(|image| image.parse::<Reference>().ok());
    let purpose = image.map(|image| purpose::of(&image.repository));
    database_files.contains(&service.name)
        || matches!(purpose, Some(Purpose::Data(kind)) if !purpose::watches(kind))
        || service.mounts.iter().any(|mount| {
            !mount.read_only && DIRECTORIES.iter().any(|top| is_in(&mount.target, top))
        })
}

/// Where databases keep their data in their images: what writes there is one, whatever its image is
/// called.
const DIRECTORIES: &[&str] = &[
    "/bitnami/mariadb",
    "/bitnami/mongodb",
    "/bitnami/mysql",
    "/bitnami/postgresql",
    "/bitnami/redis",
    "/data/db",
    "/usr/share/elasticsearch/data",
    "/usr/share/opensearch/data",
    "/var/lib/cassandra",
    "/var/lib/clickhouse",
    "/var/lib/mariadb",
    "/var/lib/mongodb",
    "/var/lib/mysql",
    "/var/lib/neo4j",
    "/var/lib/postgresql",
    "/var/lib/rabbitmq",
    "/var/lib/redis",
];

/// The volumes and paths that a service writes, without those that hold no data. What was `asked`
/// for by name is not taken for configuration.
fn places_of(service: &ServiceConfig, asked: bool) -> Vec<Place> {
    let writes = service.mounts.iter().filter(|mount| !mount.read_only);
    let holding = writes.filter(|mount| !is_of_the_system(mount) && (asked || !configures(mount)));
    let places = holding.filter_map(|mount| match &mount.source {
        Source::Volume(name) => Some(Place::Volume(name.clone())),
        Source::Bind(path) => Some(Place::Path(path.clone())),
        // The daemon knows its name, and of such that the image declares too.
        Source::Anonymous => None,
    });
    places.collect()
}

/// Directories of a running system: what is in them is made anew at every start.
const RUNNING: &[&str] = &["/run", "/var/run", "/dev", "/proc", "/sys", "/tmp"];

/// Directories of the host that are no deployment's data as a whole.
const HOSTS: &[&str] = &[
    "/",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/srv",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/docker",
    "/var/lib/docker/containers",
    "/var/lib/docker/volumes",
    "/var/log",
    "/etc/localtime",
    "/etc/timezone",
    "/lib/modules",
];

/// Whether a mount leads to the host's own or to what only lives while something runs.
fn is_of_the_system(mount: &Mount) -> bool {
    let is_running = |path: &str| RUNNING.iter().any(|top| is_in(path, top));
    match &mount.source {
        Source::Bind(path) => {
            is_running(&mount.target)
                || (is_running(path) && !is_in(path, "/tmp"))
                || HOSTS.contains(&path.trim_end_matches('/'))
                || path == "/"
                || path.ends_with(".sock")
        }
        Source::Volume(_) | Source::Anonymous => is_running(&mount.target),
    }
}

/// Directories in containers that hold what an operator writes, not the program.
const CONFIGURATION: &[&str] =
    &["/etc", "/usr/local/etc", "/docker-entrypoint-initdb.d", "/docker-entrypoint.d"];

/// What the names of such files end with.
const CONFIGURATION_FILES: &[&str] = &[
    ".acl",
    ".cfg",
    ".cnf",
    ".conf",
    ".config",
    ".crt",
    ".env",
    ".hcl",
    ".ini",
    ".json",
    ".key",
    ".pem",
    ".properties",
    ".sh",
    ".sql",
    ".toml",
    ".xml",
    ".yaml",
    ".yml",
];

/// Whether a path of the host holds configuration for a container. A volume that somebody made for
/// it has no other copy.
fn configures(mount: &Mount) -> bool {
    let target = mount.target.trim_end_matches('/');
    matches!(mount.source, Source::Bind(_))
        && (CONFIGURATION.iter().any(|top| is_in(target, top))
            || CONFIGURATION_FILES.iter().any(|end| target.ends_with(end)))
}

fn is_in(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Mount {
        let (text, read_only) = match text.strip_suffix(":ro") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (source, target) = text.split_once(':').unwrap_or(("", text));
        let source = match source {
            "" => Source::Anonymous,
            path if path.starts_with('/') => Source::Bind(path.to_owned()),
            name => Source::Volume(name.to_owned()),
        };
        Mount { source, target: target.to_owned(), read_only }
    }

    fn service(name: &str, image: &str, mounts: &[&str]) -> ServiceConfig {
        let mounts = mounts.iter().map(|text| mount(text)).collect();
        ServiceConfig { mounts, ..ServiceConfig::named(name.to_owned(), Some(image.to_owned())) }
    }

    fn project(services: Vec<ServiceConfig>) -> Project {
        Project {
            name: "product".to_owned(),
            services,
            dormant: Vec::new(),
            volumes: indexmap::IndexMap::new(),
        }
    }

    /// `saved | left | without a place`, each place with its services.
    fn told(found: &Survey) -> String {
        let list = |holdings: &[Holding]| {
            let list = holdings.iter().map(|one| {
                let place = match &one.place {
                    Place::Volume(name) => name.clone(),
                    Place::Path(path) => path.clone(),
                    Place::Unnamed { service, target } => format!("{service}:{target}"),
                };
                format!("{place} ({})", one.services.join(" "))
            });
            list.collect::<Vec<_>>().join(", ")
        };
        let without = found.without_place.join(" ");
        format!("{} | {} | {without}", list(&found.saved), list(&found.left))
    }

    #[test]
    fn databases_are_known_by_what_they_are_and_by_what_the_manifest_says() {
        let project = project(vec![
            service("web", "acme/web:1", &["uploads:/uploads", "pg:/backup:ro", "shared:/s"]),
            service("db", "postgres:16", &["pg:/var/lib/postgresql/data"]),
            service("cache", "redis:7", &[]),
            service("worker", "acme/worker:1", &["pg:/inspect"]),
            service("metrics", "prom/prometheus", &["prometheus:/prometheus"]),
            service("own", "acme/own-store:1", &["/srv/own:/data", "shared:/s"]),
            service("built", "product_built", &["built:/var/lib/mysql"]),
        ]);
        let found = |databases: &[&str], asked: &[(&str, bool)], unnamed: &[(&str, &str)]| {
            let named = |name: &&str| (*name).to_owned();
            let unnamed = unnamed.iter().map(|(service, target)| {
                ((*service).to_owned(), BTreeSet::from([(*target).to_owned()]))
            });
            told(&survey(
                &project,
                &Knowledge {
                    database_files: &databases.iter().map(named).collect(),
                    asked: &asked.iter().map(|(name, yes)| ((*name).to_owned(), *yes)).collect(),
                    unnamed: &unnamed.collect(),
                },
            ))
        };
        assert_eq!(
            found(&[], &[], &[]),
            "pg (db), built (built) | uploads (web), shared (web own), prometheus (metrics), /srv/own (own) | cache"
        );
        assert_eq!(
            found(&["own"], &[], &[("cache", "/data"), ("web", "/cache")]),
            "pg (db), cache:/data (cache), /srv/own (own), shared (own), built (built) | uploads \
             (web), prometheus (metrics) | "
        );
        assert_eq!(
            found(&["own"], &[("own", false), ("db", false), ("web", true)], &[]),
            "uploads (web), shared (web), built (built) | pg (db worker), prometheus (metrics), \
             /srv/own (own) | cache"
        );
    }

    #[test]
    fn what_holds_no_data_is_not_saved() {
        for (mounts, saved) in [
            ("pg:/var/lib/postgresql/data", "pg"),
            ("/srv/pg:/var/lib/postgresql/data", "/srv/pg"),
            ("/srv/pg:/var/lib/postgresql/data:ro pg:/x:ro", ""),
            ("/var/run/docker.sock:/var/run/docker.sock /run/x/my.sock:/my.sock", ""),
            ("/srv/p/run:/var/run/postgresql sockets:/run/mysqld shm:/dev/shm", ""),
            ("/srv/p/my.cnf:/etc/mysql/my.cnf /srv/p/init:/docker-entrypoint-initdb.d", ""),
            ("/srv/p/kafka.properties:/opt/kafka/server.properties", ""),
            ("/:/host /etc/localtime:/etc/localtime /var/lib/docker:/docker /sys:/sys", ""),
            ("rabbit:/etc/rabbitmq", "rabbit"),
            ("/tmp/trial/pgdata:/var/lib/postgresql/data", "/tmp/trial/pgdata"),
            ("/srv/app.db:/data/app.db", "/srv/app.db"),
            ("/data", ""),
        ] {
            let mounts: Vec<&str> = mounts.split(' ').collect();
            let found = places_of(&service("db", "postgres", &mounts), false);
            let found: Vec<&str> = found
                .iter()
                .map(|place| match place {
                    Place::Volume(name) => name.as_str(),
                    Place::Path(path) => path.as_str(),
                    Place::Unnamed { .. } => unreachable!(),
                })
                .collect();
            assert_eq!(found.join(" "), saved, "{mounts:?}");
        }
        let asked = service("own", "acme/own", &["/srv/own.json:/data.json", "/run/x:/x"]);
        assert_eq!(places_of(&asked, true), [Place::Path("/srv/own.json".to_owned())]);
    }
}
