//! The deployment and the registry of one history: what is done to them, and what is seen of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::model::{Record, Service};
use super::random::Random;
use crate::support::deployment::Compose;
use crate::support::{Deployment, Engine, Fault, Image, On, Outcome, Proxy, Registry, Run};

/// Where no daemon is.
const NOWHERE: &str = "unix:///nonexistent/docker.sock";

/// How the Compose files of a deployment are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    OneFile,
    /// `api` is in the database file.
    TwoFiles,
    /// `web` backs two Compose services.
    Shared,
}

/// Tag and digest by variable prefix, as `versions.env` says it.
pub type Env = BTreeMap<String, (String, String)>;

pub struct Bench {
    registry: Registry,
    proxy: Proxy,
    deployment: Deployment,
    layout: Layout,
    compose: Compose,
    has_daemon: bool,
    pushed: u64,
    /// Image IDs by digest.
    ids: BTreeMap<String, String>,
}

impl Bench {
    pub fn new(random: &mut Random, has_daemon: bool, record: &Record) -> Self {
        let registry = Registry::start();
        let proxy = Proxy::to(&registry);
        let layouts = [Layout::OneFile, Layout::TwoFiles, Layout::Shared];
        // Compose v1 knows no containerd store.
        let may_be_v1 = has_daemon && !Engine::has_containerd_store() && random.percent(25);
        let bench = Self {
            deployment: Deployment::new("campaign"),
            layout: random.pick(&layouts),
            compose: if may_be_v1 { Compose::V1 } else { Compose::V2 },
            has_daemon,
            pushed: 0,
            ids: BTreeMap::new(),
            registry,
            proxy,
        };
        bench.write_files(record);
        bench
    }

    pub fn tell(&self) -> String {
        format!("{:?}, Compose {:?}, daemon: {}", self.layout, self.compose, self.has_daemon)
    }

    fn write_files(&self, record: &Record) {
        let mut manifest = "# kept\nschema_version: '1.1'\nsite: Zürich\nservices:\n".to_owned();
        let (mut files, mut database) = ("services:\n".to_owned(), "services:\n".to_owned());
        for (name, Service { repository, track, .. }) in record {
            let image = self.proxy.repository(repository);
            manifest += &format!("  {name}:\n    image: {image}\n    track: {track}\n");
            let mut compose = vec![(*name).to_owned()];
            if self.layout == Layout::Shared && *name == "web" {
                compose.push("web-worker".to_owned());
            }
            manifest += &format!("    compose_services: [{}]\n", compose.join(", "));
            manifest += &format!("    current_tag: {track}\n    image_digest: ''\n");
            let variable = name.to_uppercase();
            for one in compose {
                let line = format!(
                    "  {one}:\n    image: ${{DK_{variable}_IMAGE:-{image}}}:${{DK_{variable}_TAG:-{track}}}\n"
                );
                match self.layout == Layout::TwoFiles && one == "api" {
                    true => database += &line,
                    false => files += &line,
                }
            }
        }
        self.deployment.write("version-manifest.yaml", &manifest);
        self.deployment.write("docker-compose.yml", &files);
        if self.layout == Layout::TwoFiles {
            self.deployment.write("db-docker-compose.yml", &database);
        }
    }

    /// A new release under these tags.
    pub fn publish(&mut self, repository: &str, tags: &[String]) -> String {
        self.push(Image::new(repository), tags)
    }

    /// A release whose container ends by itself.
    pub fn publish_bad(&mut self, repository: &str, tag: &str) -> String {
        self.push(Image::new(repository).crashing(3), &[tag.to_owned()])
    }

    fn push(&mut self, image: Image, tags: &[String]) -> String {
        self.pushed += 1;
        let version = ["one", "two", "1", "2", "3"][usize::try_from(self.pushed % 5).unwrap()];
        let image = image.version(version).label("release", &self.pushed.to_string());
        let pushed = self.registry.push(tags.iter().fold(image, |image, tag| image.tag(tag)));
        self.ids.insert(pushed.digest.clone(), pushed.image_id().to_owned());
        pushed.digest
    }

    pub fn move_tag(&self, repository: &str, tag: &str, digest: &str) {
        self.registry.move_tag(repository, tag, digest);
    }

    pub fn delete_tag(&self, repository: &str, tag: &str) {
        self.registry.delete_tag(repository, tag);
    }

    pub fn delete(&self, repository: &str, digest: &str) {
        self.registry.delete(repository, digest);
    }

    /// What the registry does from now on to every request that this is for.
    pub fn fault(&self, fault: Option<(On, Fault)>) {
        self.proxy.reset();
        if let Some((on, fault)) = fault {
            self.proxy.fault(on, fault);
        }
    }

    pub fn dkv(&self, words: &[String]) -> Run {
        let run = self.deployment.dkv(words.iter().map(String::as_str)).compose(self.compose);
        let run = run.timeout(Duration::from_secs(120));
        if self.has_daemon { run } else { run.env("DOCKER_HOST", NOWHERE) }
    }

    /// Writes tag and digest of a service by hand.
    pub fn edit(&self, service: &str, tag: &str, digest: &str) {
        let mut is_here = false;
        let text = self.deployment.manifest();
        let edited = text.lines().map(|line| {
            if !line.starts_with("    ") {
                is_here = line == format!("  {service}:");
            }
            match line.trim().split_once(": ").filter(|_| is_here) {
                Some(("current_tag", _)) => format!("    current_tag: '{tag}'\n"),
                Some(("image_digest", _)) => format!("    image_digest: '{digest}'\n"),
                _ => format!("{line}\n"),
            }
        });
        let edited: String = edited.collect();
        self.deployment.write("version-manifest.yaml", &edited);
    }

    /// Writes something else into `versions.env`.
    pub fn spoil_env(&self) {
        let text = self.deployment.versions_env();
        self.deployment.write("versions.env", &text.replacen("_TAG=", "_TAG=0", 1));
    }

    /// How the manifest differs from `record`; of the services in `edited` only dkv can tell what
    /// was meant.
    pub fn differs(&self, record: &Record, edited: &BTreeSet<&'static str>) -> Option<String> {
        let text = std::fs::read_to_string(self.deployment.path("version-manifest.yaml"));
        let Ok(text) = text else { return Some("the manifest is gone".to_owned()) };
        let Ok(data) = serde_yaml::from_str::<Value>(&text) else {
            return Some(format!("the manifest is torn:\n{text}"));
        };
        if !text.starts_with("# kept\n") || data["site"] != "Zürich" {
            return Some(format!("what is not dkv's has gone:\n{text}"));
        }
        for (name, service) in record.iter().filter(|(name, _)| !edited.contains(*name)) {
            let found = Found::in_manifest(&data, name);
            let wanted = Found::of(service);
            if found != wanted {
                return Some(format!("{name} in the manifest: {found:?}\n    not {wanted:?}"));
            }
        }
        None
    }

    /// How what dkv says of the record differs from it.
    pub fn said_otherwise(&self, record: &Record) -> Option<String> {
        let words = ["version-history", "--json"].map(str::to_owned);
        let outcome = self.dkv(&words).finish();
        if outcome.code() != Some(0) {
            return Some(format!("version-history fails:\n{outcome}"));
        }
        let said = outcome.json();
        for service in said["services"].as_array().into_iter().flatten() {
            let name = service["name"].as_str().unwrap_or_default();
            let wanted = Found::of(&record[name]);
            let releases = service["releases"].as_array().cloned().unwrap_or_default();
            let found: Vec<[String; 3]> = releases
                .iter()
                .filter(|release| release["digest"].is_string())
                .map(|release| ["tag", "digest", "status"].map(|key| text(&release[key])))
                .collect();
            if found != wanted.releases {
                return Some(format!(
                    "dkv says of {name}: {found:?}\n    not {:?}",
                    wanted.releases
                ));
            }
        }
        None
    }

    /// What `versions.env` says; none where there is no such file.
    pub fn env(&self) -> Result<Option<Env>, String> {
        if !self.deployment.exists("versions.env") {
            return Ok(None);
        }
        let text = self.deployment.versions_env();
        let mut env = Env::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let plain = |one: char| one.is_ascii_alphanumeric() || "_=./:@-".contains(one);
            let Some((name, value)) = line.split_once('=').filter(|_| line.chars().all(plain))
            else {
                return Err(format!("versions.env cannot be sourced: {line}"));
            };
            if let Some(name) = name.strip_suffix("_TAG") {
                let (tag, digest) = value.split_once('@').unwrap_or((value, ""));
                env.insert(name.to_owned(), (tag.to_owned(), digest.to_owned()));
            }
        }
        Ok(Some(env))
    }

    /// The keep-tags that the daemon has, by repository.
    pub fn keep_tags(&self) -> BTreeSet<(String, String)> {
        self.deployment.engine().keep_tags(self.registry.namespace())
    }

    /// Which digest the containers of each service run; one word where they disagree.
    pub fn running(&self, record: &Record) -> BTreeMap<&'static str, String> {
        let (engine, project) = (self.deployment.engine(), self.deployment.project());
        let mut running = BTreeMap::new();
        for name in record.keys() {
            let mut services = vec![*name];
            if self.layout == Layout::Shared && *name == "web" {
                services.push("web-worker");
            }
            for service in services {
                for container in engine.containers(project, service) {
                    let state = engine.container(&container).unwrap_or_default();
                    let id = text(&state["Image"]);
                    let known = self.ids.iter().find(|(_, known)| **known == id);
                    let digest = match (known, state["State"]["Running"].as_bool()) {
                        (Some((digest, _)), Some(true)) => digest.clone(),
                        _ => format!("{container} of {id}: {}", state["State"]),
                    };
                    let before = running.insert(*name, digest.clone());
                    if before.is_some_and(|before| before != digest) {
                        running.insert(*name, "two releases".to_owned());
                    }
                }
            }
        }
        running
    }

    /// What dkv leaves while it works, and must not leave for ever.
    pub fn left_over(&self) -> Vec<String> {
        let places = [".", ".version-backups"];
        let names = places.iter().flat_map(|place| self.deployment.list(place));
        names.filter(|name| name.contains(".dkv-new") || name.contains(".dkv-probe")).collect()
    }

    pub fn is_unfinished(&self) -> bool {
        self.deployment.exists(".version-backups/update-journal.json")
    }
}

/// What is found of a service, in words.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    current: [String; 2],
    is_held: bool,
    custom: Option<String>,
    /// Tag, digest and status, newest first.
    releases: Vec<[String; 3]>,
    rejected: BTreeSet<String>,
}

impl Found {
    fn of(service: &Service) -> Self {
        let now = service.now().cloned();
        let releases = service.history.iter().zip(service.statuses());
        Self {
            current: now.clone().map_or_else(
                || [service.track.clone(), String::new()],
                |now| [now.tag, now.digest],
            ),
            is_held: service.is_held,
            custom: now.as_ref().and_then(|now| {
                let is_now = service.custom.as_ref() == Some(&now.digest);
                is_now.then(|| now.tag.clone())
            }),
            releases: releases
                .map(|(one, status)| [one.tag.clone(), one.digest.clone(), status.to_owned()])
                .collect(),
            rejected: service.rejected.clone(),
        }
    }

    fn in_manifest(data: &Value, name: &str) -> Self {
        let service = &data["services"][name];
        let list = |section: &str| data[section][name].as_array().cloned().unwrap_or_default();
        let history = list("history");
        // One that is not in force is nothing.
        let custom = &data["custom_overrides"][name]["tag"];
        Self {
            current: ["current_tag", "image_digest"].map(|key| text(&service[key])),
            is_held: service["held"] == true,
            custom: custom
                .as_str()
                .filter(|_| *custom == service["current_tag"])
                .map(str::to_owned),
            releases: history
                .iter()
                .map(|one| ["tag", "digest", "status"].map(|key| text(&one[key])))
                .collect(),
            rejected: list("rejected").iter().map(|one| text(&one["digest"])).collect(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What `versions.env` must say.
pub fn env_of(record: &Record) -> Env {
    let line = |(name, service): (&&'static str, &Service)| {
        let now = service.now().cloned();
        let value =
            now.map_or_else(|| (service.track.clone(), String::new()), |now| (now.tag, now.digest));
        (format!("DK_{}", name.to_uppercase()), value)
    };
    record.iter().map(line).collect()
}

/// How a command ended, for the tale.
pub fn told(outcome: &Outcome) -> String {
    match outcome.code() {
        Some(code) => format!("exit {code} after {} ms", outcome.elapsed.as_millis()),
        None => format!("killed after {} ms", outcome.elapsed.as_millis()),
    }
}
