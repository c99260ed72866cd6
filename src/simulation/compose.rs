//! Compose 2 as far as dkv calls it: the same steps at the same engine, in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Container, Engine, Status, Wanted};
use super::scenario::{self, ENGINES, PROJECT, Scenario, Service, Waits};
use super::world::{Refusal, World};
use crate::model::reference::Digest;

/// A Compose process to be.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) arguments: Vec<String>,
    /// What its environment has besides the shell's.
    pub(crate) variables: BTreeMap<String, String>,
    /// The directory that it runs in.
    pub(crate) directory: String,
}

/// How it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The pause between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(500);

struct Process {
    world: Arc<World>,
    engine: String,
    project: String,
    variables: BTreeMap<String, String>,
    directory: String,
}

/// What the words behind the global options ask for.
#[derive(Default)]
struct Asked {
    command: String,
    services: Vec<String>,
    scale: BTreeMap<String, usize>,
    recreates_all: bool,
}

/// Starts Compose; it goes on if nobody waits for it any more.
pub(super) fn start(world: &Arc<World>, call: Call) -> tokio::task::JoinHandle<Ended> {
    let mut variables = world.state().shell.clone();
    variables.extend(call.variables);
    let host = variables.get("DOCKER_HOST").map(|host| host.trim_start_matches("unix://"));
    let engine = host.unwrap_or(ENGINES[1]).to_owned();
    let mut project = variables.get("COMPOSE_PROJECT_NAME").cloned();
    let mut asked = Asked::default();
    let mut words = call.arguments.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-p" => project = words.next(),
            "-f" | "--project-directory" | "--profile" => drop(words.next()),
            _ => {
                asked.command = word;
                break;
            }
        }
    }
    while let Some(word) = words.next() {
        match word.as_str() {
            "--scale" => {
                let value = words.next().unwrap_or_default();
                let (name, count) = value.split_once('=').unwrap_or_default();
                asked.scale.insert(name.to_owned(), count.parse().unwrap_or(1));
            }
            "--pull" | "--format" | "--hash" => drop(words.next()),
            "--force-recreate" => asked.recreates_all = true,
            word if word.starts_with('-') => {}
            _ => asked.services.push(word),
        }
    }
    let process = Process {
        world: Arc::clone(world),
        engine,
        project: project.unwrap_or_else(|| PROJECT.to_owned()),
        variables,
        directory: call.directory,
    };
    let task = tokio::spawn(process.run(asked));
    world.state().composes.push(task.abort_handle());
    task
}

impl Process {
    async fn run(self, asked: Asked) -> Ended {
        self.world.note(format!("compose {} {}", asked.command, asked.services.join(" ")));
        tokio::time::sleep(Duration::from_millis(50)).await;
        if asked.command == "config" {
            let config =
                self.world.scenario.config(&self.project, &self.directory, &self.variables);
            return Ended { stdout: config.to_string(), ..Ended::default() };
        }
        let scenario = &self.world.scenario;
        let is_meant = |service: &&Service| {
            asked.services.is_empty() || asked.services.contains(&service.name)
        };
        let services: Vec<Service> = ordered(scenario).filter(is_meant).cloned().collect();
        let outcome = match asked.command.as_str() {
            "up" => self.up(&services, &asked).await,
            "start" => self.start_all(&services).await,
            "stop" => self.stop(&services, false).await,
            "rm" => self.stop(&services, true).await,
            other => Err(format!("unknown command: {other}")),
        };
        match outcome {
            Ok(()) => Ended::default(),
            Err(message) => {
                self.world.note(format!("compose {} failed: {message}", asked.command));
                Ended { code: 1, stderr: format!("{message}\n"), ..Ended::default() }
            }
        }
    }

    async fn call<T>(
        &self,
        what: String,
        changes: bool,
        act: impl FnOnce(&mut Engine, &World) -> Result<T, Refusal>,
    ) -> Result<T, String> {
        let done = self.world.call(&self.engine, &format!("compose: {what}"), changes, act).await;
        done.map_err(|refusal| match refusal {
            Refusal::Answer(_, message) => format!("Error response from daemon: {message}"),
            Refusal::Broken => format!(
                "Cannot connect to the Docker daemon at unix://{}. Is the docker daemon running?",
                self.engine
            ),
        })
    }

    /// The containers of a service, by their numbers.
    async fn containers(&self, service: &str) -> Result<Vec<Container>, String> {
        let mut found = self
            .call(format!("list {service}"), false, |engine, _| {
                let mine = engine
                    .containers
                    .iter()
                    .filter(|one| one.label("project") == self.project && one.service() == service);
                Ok(mine.cloned().collect::<Vec<_>>())
            })
            .await?;
        found.sort_by_key(number);
        Ok(found)
    }

    async fn up(&self, services: &[Service], asked: &Asked) -> Result<(), String> {
        for service in services {
            self.converge(service, asked).await?;
        }
        self.start_all(services).await
    }

    /// As many containers as there shall be, made from what the files say now.
    async fn converge(&self, service: &Service, asked: &Asked) -> Result<(), String> {
        let config = self.world.scenario.config(&self.project, &self.directory, &self.variables);
        let hash =
            Digest::of(config["services"][&service.name].to_string().as_bytes()).hex().to_owned();
        let reference = scenario::image(service, &self.variables);
        let found = self.containers(&service.name).await?;
        let image = self
            .call(format!("inspect {reference}"), false, |engine, _| {
                let missing = || Refusal::Answer(404, format!("No such image: {reference}"));
                engine.image(&reference).map(|image| image.id.clone()).ok_or_else(missing)
            })
            .await?;
        let count = asked.scale.get(&service.name).copied().unwrap_or(1);
        let differs = |one: &Container| one.label("config-hash") != hash || one.image != image;
        // What is out of date goes first where there are too many, then the highest numbers.
        let mut found = found;
        found.sort_by_key(|one| (differs(one), number(one)));
        for extra in found.iter().skip(count) {
            self.end(extra).await?;
            self.remove(extra).await?;
        }
        for old in found.iter().take(count) {
            if differs(old) || asked.recreates_all {
                let name = name(&self.project, service, number(old));
                let short = &old.id[..12];
                let temporary = format!("{short}_{name}");
                let new = self.create(service, &reference, &hash, number(old), temporary).await?;
                self.end(old).await?;
                self.remove(old).await?;
                self.call(format!("rename {name}"), true, |engine, _| engine.rename(&new, &name))
                    .await?;
            }
        }
        let taken: Vec<usize> = found.iter().map(number).collect();
        let free = (1..).filter(|number| !taken.contains(number));
        for number in free.take(count.saturating_sub(found.len())) {
            let name = name(&self.project, service, number);
            self.create(service, &reference, &hash, number, name).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        service: &Service,
        reference: &str,
        hash: &str,
        number: usize,
        name: String,
    ) -> Result<String, String> {
        let labels = [
            ("project", self.project.as_str()),
            ("service", &service.name),
            ("oneoff", "False"),
            ("container-number", &number.to_string()),
            ("config-hash", hash),
            ("version", "2.40.3"),
            ("project.working_dir", &self.directory),
        ];
        let labels =
            labels.map(|(key, value)| (format!("com.docker.compose.{key}"), value.to_owned()));
        let wanted = Wanted {
            name,
            reference: reference.to_owned(),
            labels: labels.into(),
            policy: service.policy.to_owned(),
            check: service.check,
        };
        self.call(format!("create {}", wanted.name), true, |engine, world| {
            engine.create(wanted, world)
        })
        .await
    }

    async fn end(&self, container: &Container) -> Result<(), String> {
        let id = &container.id;
        self.call(format!("stop {}", container.name), true, |engine, world| {
            engine.stop(id, world.now())
        })
        .await?;
        if container.is_running() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    async fn remove(&self, container: &Container) -> Result<(), String> {
        let id = &container.id;
        self.call(format!("remove {}", container.name), true, |engine, world| {
            engine.remove(id, true, world.now())
        })
        .await
    }

    async fn stop(&self, services: &[Service], removes: bool) -> Result<(), String> {
        for service in services.iter().rev() {
            for container in self.containers(&service.name).await? {
                self.end(&container).await?;
                if removes {
                    self.remove(&container).await?;
                }
            }
        }
        Ok(())
    }

    /// Starts what is there, each when what it waits for is as far as it must be. What is not among
    /// `services` is not waited for.
    async fn start_all(&self, services: &[Service]) -> Result<(), String> {
        for service in services {
            for (other, how) in &service.waits {
                if services.iter().any(|one| one.name == *other) {
                    self.wait_for(other, *how).await?;
                }
            }
            for container in self.containers(&service.name).await? {
                if !container.is_running() {
                    let id = &container.id;
                    let world = Arc::clone(&self.world);
                    self.call(format!("start {}", container.name), true, |engine, _| {
                        engine.start(id, &world)
                    })
                    .await?;
                }
            }
        }
        Ok(())
    }

    async fn wait_for(&self, service: &str, how: Waits) -> Result<(), String> {
        loop {
            let found = self.containers(service).await?;
            let failed = |container: &Container, why: &str| {
                Err(format!("dependency failed to start: container {} {why}", container.name))
            };
            let mut is_there = true;
            for container in &found {
                let has_ended = container.status == Status::Exited;
                match how {
                    Waits::Started => {}
                    Waits::Healthy => match container.health {
                        _ if has_ended => return failed(container, "exited"),
                        Some((_, "unhealthy")) => return failed(container, "is unhealthy"),
                        Some((_, "healthy")) => {}
                        _ => is_there = false,
                    },
                    Waits::Completed if has_ended && container.exit_code == 0 => {}
                    Waits::Completed if has_ended => {
                        return Err(format!(
                            "service \"{service}\" didn't complete successfully: exit {}",
                            container.exit_code
                        ));
                    }
                    Waits::Completed => is_there = false,
                }
            }
            if is_there {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn number(container: &Container) -> usize {
    container.label("container-number").parse().unwrap_or(1)
}

fn name(project: &str, service: &Service, number: usize) -> String {
    format!("{project}-{}-{number}", service.name)
}

/// The services, each after what it waits for: so they are described.
fn ordered(scenario: &Scenario) -> impl Iterator<Item = &Service> {
    scenario.services.iter()
}
