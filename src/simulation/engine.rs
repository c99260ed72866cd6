//! An engine: images, containers, and what becomes of them in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scenario::{Check, Conduct};
use super::world::{Refusal, World};
use crate::model::reference::Digest;

const PREFIX: &str = "com.docker.compose.";

pub(super) struct Engine {
    pub(super) name: String,
    pub(super) containers: Vec<Container>,
    pub(super) images: Vec<Image>,
    pub(super) events: Vec<Event>,
    pub(super) away_until: Option<Instant>,
    made: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) tags: BTreeSet<String>,
    pub(super) digests: BTreeSet<String>,
    pub(super) repository: String,
    pub(super) version: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) at: DateTime<Utc>,
    pub(super) action: String,
    pub(super) container: String,
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Restarting,
    Exited,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) image: String,
    pub(super) reference: String,
    pub(super) version: u32,
    pub(super) status: Status,
    pub(super) exit_code: i64,
    pub(super) error: String,
    pub(super) created: DateTime<Utc>,
    pub(super) started: Option<DateTime<Utc>>,
    pub(super) finished: Option<DateTime<Utc>>,
    pub(super) restarts: i64,
    pub(super) policy: String,
    pub(super) check: Option<Check>,
    /// Failures in a row, and whether a check has passed; none before it was started.
    pub(super) health: Option<(u32, &'static str)>,
    pub(super) probed: Option<DateTime<Utc>>,
    pub(super) log: Vec<(DateTime<Utc>, String)>,
    conduct: Conduct,
    /// Counts starts and ends, so that what was planned for an earlier run does not happen.
    life: u64,
}

impl Container {
    pub(super) fn service(&self) -> &str {
        self.label("service")
    }

    pub(super) fn label(&self, key: &str) -> &str {
        self.labels.get(&format!("{PREFIX}{key}")).map_or("", String::as_str)
    }

    pub(super) fn is_running(&self) -> bool {
        self.status == Status::Running
    }

    /// Whether it is as it should be.
    pub(super) fn is_good(&self) -> bool {
        match self.conduct {
            Conduct::Completes { .. } => self.status == Status::Exited && self.exit_code == 0,
            _ => {
                self.is_running()
                    && (self.check.is_none()
                        || self.health.is_some_and(|(_, word)| word == "healthy"))
            }
        }
    }

    pub(super) fn inspected(&self) -> Value {
        let time = |time: Option<DateTime<Utc>>| {
            time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), stamp)
        };
        let mut state = json!({
            "Status": self.status.word(),
            "Running": matches!(self.status, Status::Running | Status::Restarting),
            "Restarting": self.status == Status::Restarting,
            "ExitCode": self.exit_code,
            "Error": self.error,
            "OOMKilled": false,
            "StartedAt": time(self.started),
            "FinishedAt": time(self.finished),
        });
        if let Some((streak, word)) = self.health {
            let log = self.probed.map(|at| {
                json!({"Start": stamp(at), "End": stamp(at), "ExitCode": i32::from(streak > 0), "Output": ""})
            });
            state["Health"] =
                json!({"Status": word, "FailingStreak": streak, "Log": Vec::from_iter(log)});
        }
        let mut config =
            json!({"Image": self.reference, "Labels": self.labels, "Hostname": &self.id[..12]});
        if let Some(check) = self.check {
            config["Healthcheck"] = json!({
                "Test": ["CMD", "true"],
                "Interval": nanoseconds(check.interval),
                "Timeout": nanoseconds(Duration::from_secs(1)),
                "Retries": check.retries,
                "StartPeriod": nanoseconds(check.start_period),
            });
        }
        json!({
            "Id": self.id,
            "Name": format!("/{}", self.name),
            "Created": stamp(self.created),
            "Image": self.image,
            "RestartCount": self.restarts,
            "State": state,
            "Config": config,
            "HostConfig": {"RestartPolicy": {"Name": self.policy}, "NetworkMode": self.network()},
            "NetworkSettings": {"Networks": {self.network(): {}}},
            "Mounts": [],
        })
    }

    fn network(&self) -> String {
        format!("{}_default", self.label("project"))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

pub(super) fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// What a container is made from.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) policy: String,
    pub(super) check: Option<Check>,
}

fn missing(what: &str) -> Refusal {
    Refusal::Answer(404, format!("No such {what}"))
}

impl Engine {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            containers: Vec::new(),
            images: Vec::new(),
            events: Vec::new(),
            away_until: None,
            made: 0,
        }
    }

    /// The image that a name means.
    pub(super) fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|image| {
            let by_digest = name.split_once('@').is_some_and(|(front, digest)| {
                let repository = match front.rsplit_once(':') {
                    Some((repository, tag)) if !tag.contains('/') => repository,
                    _ => front,
                };
                image.digests.contains(&format!("{repository}@{digest}"))
            });
            image.id == name || image.tags.contains(name) || by_digest
        })
    }

    pub(super) fn container(&self, key: &str) -> Option<&Container> {
        self.containers.iter().find(|one| one.id == key || one.name == key)
    }

    fn container_mut(&mut self, key: &str) -> Result<&mut Container, Refusal> {
        let found = self.containers.iter_mut().find(|one| one.id == key || one.name == key);
        found.ok_or_else(|| missing(&format!("container: {key}")))
    }

    fn tell(&mut self, action: &str, id: &str, now: DateTime<Utc>, more: &[(&str, &str)]) {
        let Some(container) = self.container(id) else { return };
        let mut attributes = container.labels.clone();
        attributes.insert("name".to_owned(), container.name.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let container = container.id.clone();
        self.events.push(Event { at: now, action: action.to_owned(), container, attributes });
    }

    pub(super) fn create(&mut self, wanted: Wanted, world: &World) -> Result<String, Refusal> {
        if self.container(&wanted.name).is_some() {
            let message =
                format!("Conflict. The container name \"/{}\" is already in use", wanted.name);
            return Err(Refusal::Answer(409, message));
        }
        let Some(image) = self.image(&wanted.reference) else {
            return Err(missing(&format!("image: {}", wanted.reference)));
        };
        let (image, version) = (image.id.clone(), image.version);
        self.made += 1;
        let id = Digest::of(format!("{} {}", self.name, self.made).as_bytes()).hex().to_owned();
        let service = wanted.labels.get(&format!("{PREFIX}service")).cloned().unwrap_or_default();
        let conduct = world.scenario.service(&service).map(|service| service.conduct(version));
        let now = world.now();
        self.containers.push(Container {
            id: id.clone(),
            name: wanted.name,
            labels: wanted.labels,
            image,
            reference: wanted.reference,
            version,
            status: Status::Created,
            exit_code: 0,
            error: String::new(),
            created: now,
            started: None,
            finished: None,
            restarts: 0,
            policy: wanted.policy,
            check: wanted.check,
            health: None,
            probed: None,
            log: Vec::new(),
            conduct: conduct.unwrap_or(Conduct::Serves { ready: Duration::ZERO }),
            life: 0,
        });
        self.tell("create", &id, now, &[]);
        Ok(id)
    }

    pub(super) fn start(&mut self, key: &str, world: &Arc<World>) -> Result<(), Refusal> {
        let now = world.now();
        let container = self.container_mut(key)?;
        if container.is_running() {
            return Ok(());
        }
        if container.conduct == Conduct::CannotStart {
            container.error = "driver failed programming external connectivity: Bind for \
                0.0.0.0:80 failed: port is already allocated"
                .to_owned();
            container.exit_code = 128;
            return Err(Refusal::Answer(500, container.error.clone()));
        }
        container.restarts = 0;
        let id = container.id.clone();
        self.run(&id, now, world);
        Ok(())
    }

    fn run(&mut self, id: &str, now: DateTime<Utc>, world: &Arc<World>) {
        let engine = self.name.clone();
        let Ok(container) = self.container_mut(id) else { return };
        container.life += 1;
        container.status = Status::Running;
        container.started = Some(now);
        container.exit_code = 0;
        container.error.clear();
        container.health = container.check.map(|_| (0, "starting"));
        container.probed = None;
        container.log.push((now, "begins".to_owned()));
        let (life, conduct, check) = (container.life, container.conduct, container.check);
        self.tell("start", id, now, &[]);
        let ends = match conduct {
            Conduct::Completes { after } => Some((after, 0)),
            Conduct::Crashes { code, after } => Some((after, code)),
            _ => None,
        };
        let (world, id) = (Arc::clone(world), id.to_owned());
        if let Some((after, code)) = ends {
            let (world, engine, id) = (Arc::clone(&world), engine.clone(), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let now = world.now();
                if let Some(engine) = world.state().engines.get_mut(&engine) {
                    engine.ends(&id, life, code, now, &world);
                }
                world.change();
            });
        }
        if let Some(check) = check {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(check.interval).await;
                    let now = world.now();
                    let mut state = world.state();
                    let Some(engine) = state.engines.get_mut(&engine) else { return };
                    if !engine.probe(&id, life, now) {
                        return;
                    }
                    drop(state);
                    world.change();
                }
            });
        }
    }

    /// The health check runs once; whether it will again.
    fn probe(&mut self, id: &str, life: u64, now: DateTime<Utc>) -> bool {
        let Ok(container) = self.container_mut(id) else { return false };
        let (Some(check), Some((streak, before))) = (container.check, container.health) else {
            return false;
        };
        if container.life != life || !container.is_running() {
            return false;
        }
        let age = (now - container.started.unwrap_or(now)).to_std().unwrap_or_default();
        let passes = match container.conduct {
            Conduct::Serves { ready } => age >= ready,
            Conduct::NeverHealthy => false,
            _ => true,
        };
        container.probed = Some(now);
        let health = match passes {
            true => (0, "healthy"),
            false if before == "starting" && age < check.start_period => (0, before),
            false if streak + 1 >= check.retries => (streak + 1, "unhealthy"),
            false => (streak + 1, before),
        };
        container.health = Some(health);
        if health.1 != before {
            self.tell(&format!("health_status: {}", health.1), id, now, &[]);
        }
        true
    }

    /// The process of a container ends by itself, if it still lives that life.
    fn ends(&mut self, id: &str, life: u64, code: i64, now: DateTime<Utc>, world: &Arc<World>) {
        let Ok(container) = self.container_mut(id) else { return };
        if container.life != life || !container.is_running() {
            return;
        }
        container.log.push((now, format!("ends with {code}")));
        self.end(id, code, now);
        let name = self.name.clone();
        let Ok(container) = self.container_mut(id) else { return };
        let comes_back = match container.policy.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => code != 0,
            _ => false,
        };
        if !comes_back {
            return;
        }
        container.status = Status::Restarting;
        let (life, restarts) = (container.life, container.restarts);
        let pause = Duration::from_millis(100 << restarts.min(9));
        let (world, id) = (Arc::clone(world), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let now = world.now();
            let mut state = world.state();
            let Some(engine) = state.engines.get_mut(&name) else { return };
            let Ok(container) = engine.container_mut(&id) else { return };
            if container.life != life || container.status != Status::Restarting {
                return;
            }
            container.restarts += 1;
            engine.run(&id, now, &world);
            drop(state);
            world.change();
        });
    }

    fn end(&mut self, id: &str, code: i64, now: DateTime<Utc>) {
        let Ok(container) = self.container_mut(id) else { return };
        container.life += 1;
        container.status = Status::Exited;
        container.exit_code = code;
        container.finished = Some(now);
        container.health = container.health.map(|(streak, _)| (streak, "unhealthy"));
        self.tell("die", id, now, &[("exitCode", &code.to_string())]);
    }

    /// Somebody stops a container.
    pub(super) fn stop(&mut self, key: &str, now: DateTime<Utc>) -> Result<(), Refusal> {
        let container = self.container_mut(key)?;
        let id = container.id.clone();
        if matches!(container.status, Status::Running) {
            self.tell("kill", &id, now, &[("signal", "15")]);
            self.end(&id, 143, now);
            self.tell("stop", &id, now, &[]);
        } else if container.status == Status::Restarting {
            container.status = Status::Exited;
            self.tell("stop", &id, now, &[]);
        }
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        key: &str,
        force: bool,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let container = self.container_mut(key)?;
        let id = container.id.clone();
        if container.is_running() {
            if !force {
                return Err(Refusal::Answer(
                    409,
                    "You cannot remove a running container".to_owned(),
                ));
            }
            self.tell("kill", &id, now, &[("signal", "9")]);
            self.end(&id, 137, now);
        }
        self.tell("destroy", &id, now, &[]);
        self.containers.retain(|one| one.id != id);
        Ok(())
    }

    pub(super) fn rename(&mut self, key: &str, name: &str) -> Result<(), Refusal> {
        if self.container(name).is_some_and(|other| other.id != key && other.name != key) {
            return Err(Refusal::Answer(409, format!("the name \"/{name}\" is already in use")));
        }
        name.clone_into(&mut self.container_mut(key)?.name);
        Ok(())
    }

    /// Gives an image a tag, taking it from another.
    pub(super) fn tag(&mut self, source: &str, name: &str) -> Result<(), Refusal> {
        let id = self.image(source).map(|image| image.id.clone());
        let id = id.ok_or_else(|| missing(&format!("image: {source}")))?;
        for image in &mut self.images {
            image.tags.remove(name);
            if image.id == id {
                image.tags.insert(name.to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn untag(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(image) = self.images.iter_mut().find(|image| image.tags.contains(name)) else {
            return Err(missing(&format!("image: {name}")));
        };
        let is_last = image.tags.len() == 1;
        let is_used = self.containers.iter().any(|one| one.image == image.id);
        if is_last && is_used {
            return Err(Refusal::Answer(409, "image is being used".to_owned()));
        }
        image.tags.remove(name);
        if is_last {
            let id = image.id.clone();
            self.images.retain(|image| image.id != id);
        }
        Ok(())
    }

    /// The engine ends, and its containers with it; those that come back with it.
    pub(super) fn shut_down(&mut self, now: DateTime<Utc>) -> Vec<String> {
        let mut come_back = Vec::new();
        for container in &mut self.containers {
            let was_up = matches!(container.status, Status::Running | Status::Restarting);
            if container.is_running() {
                container.life += 1;
                container.status = Status::Exited;
                container.exit_code = 143;
                container.finished = Some(now);
            }
            if was_up && matches!(container.policy.as_str(), "always" | "unless-stopped") {
                come_back.push(container.id.clone());
            }
        }
        come_back
    }
}
