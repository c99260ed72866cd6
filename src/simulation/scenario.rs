//! What one seed makes: a deployment, what its releases do, and what goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::random::Random;

/// The directory that stands for the deployment in what Compose calls a project without a name.
pub(super) const PROJECT: &str = "shop";

/// An engine somewhere, and the one that is asked where nobody says which.
pub(super) const ENGINES: [&str; 2] = ["/simulated/docker.sock", "/var/run/docker.sock"];

/// What the containers of a release do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// Runs; its health check passes after a time.
    Serves { ready: Duration },
    /// Does its work and ends.
    Completes { after: Duration },
    /// Ends by itself with this code.
    Crashes { code: i64, after: Duration },
    /// Runs; its health check never passes.
    NeverHealthy,
    /// The host cannot start it.
    CannotStart,
}

impl Conduct {
    /// Whether a container of it comes to be as it should.
    pub(super) fn is_good(self) -> bool {
        matches!(self, Self::Serves { .. } | Self::Completes { .. })
    }

    /// Whether a release can be blamed for it.
    pub(super) fn is_bad_by_itself(self) -> bool {
        matches!(self, Self::Crashes { .. } | Self::NeverHealthy)
    }
}

/// How health is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) interval: Duration,
    pub(super) retries: u32,
    pub(super) start_period: Duration,
}

/// What a Compose service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    Started,
    Healthy,
    Completed,
}

/// A Compose service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) name: String,
    /// The repository of its image.
    pub(super) repository: String,
    /// Whether the manifest knows the repository.
    pub(super) is_tracked: bool,
    pub(super) old: Conduct,
    pub(super) new: Conduct,
    pub(super) check: Option<Check>,
    pub(super) policy: &'static str,
    pub(super) waits: Vec<(String, Waits)>,
    /// How many containers there are; the files say one.
    pub(super) count: u32,
    /// Whether it was stopped on purpose.
    pub(super) is_stopped: bool,
    /// Whether the database file describes it, with data.
    pub(super) is_database: bool,
}

impl Service {
    pub(super) fn conduct(&self, version: u32) -> Conduct {
        if version == 1 { self.old } else { self.new }
    }

    pub(super) fn is_job(&self) -> bool {
        matches!(self.old, Conduct::Completes { .. })
    }
}

/// What goes wrong at an engine's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineFault {
    /// So many calls fail.
    Errors(u32),
    /// It is done, and the answer is lost.
    Lost,
    /// Nothing comes for a time.
    Hangs(Duration),
    /// It is away for a time.
    Away(Duration),
    /// It is started again: its containers end, and some come back with it.
    Restarts(Duration),
}

/// What goes wrong at a registry's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegistryFault {
    Status(u16),
    Unreachable,
    Slow(Duration),
}

/// How dkv is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kill {
    /// At which effect.
    pub(super) at: u64,
    /// Whether that effect is still had.
    pub(super) after: bool,
    /// Whether Compose dies too.
    pub(super) with_compose: bool,
}

/// What goes wrong while one command runs. Everything is counted from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// By the number of the engine's call.
    pub(super) engine: BTreeMap<u64, EngineFault>,
    /// By the number of the registry's.
    pub(super) registry: BTreeMap<u64, RegistryFault>,
    /// Writes that fail, by their number: how many from there on.
    pub(super) disk: BTreeMap<u64, u64>,
    /// Requests to stop: at which effect, and how long after it.
    pub(super) signals: Vec<(u64, Duration)>,
    pub(super) kill: Option<Kill>,
}

impl Faults {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that goes wrong is one moment of an engine's or a registry's, which nobody need
    /// notice.
    pub(super) fn is_a_moment(&self) -> bool {
        let mut others = self.clone();
        let engine = std::mem::take(&mut others.engine);
        let registry = std::mem::take(&mut others.registry);
        let is_short = |fault: &EngineFault| match fault {
            EngineFault::Errors(count) => *count == 1,
            EngineFault::Lost => true,
            EngineFault::Hangs(time) | EngineFault::Away(time) => *time <= MOMENT,
            EngineFault::Restarts(_) => false,
        };
        let is_transient = |fault: &RegistryFault| match fault {
            RegistryFault::Status(status) => matches!(status, 429 | 500 | 503),
            RegistryFault::Unreachable => true,
            RegistryFault::Slow(time) => *time <= MOMENT,
        };
        others.is_none()
            && engine.len() + registry.len() == 1
            && engine.values().all(is_short)
            && registry.values().all(is_transient)
    }

    /// Whether the engine goes away.
    pub(super) fn breaks_off(&self) -> bool {
        self.engine.values().any(|fault| {
            matches!(fault, EngineFault::Away(_) | EngineFault::Restarts(_) | EngineFault::Hangs(_))
        })
    }
}

/// The longest time that an engine may be away, or silent, without an update failing for it.
const MOMENT: Duration = Duration::from_secs(3);

/// A command, and the shell that it is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) words: Vec<&'static str>,
    /// Whether the shell has the variables that the deployment was started with.
    pub(super) in_own_shell: bool,
    pub(super) faults: Faults,
}

/// One history to be.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) services: Vec<Service>,
    /// The repositories that the registry has a newer release of.
    pub(super) renewed: Vec<String>,
    /// The variables of the deployment's own shell.
    pub(super) shell: BTreeMap<String, String>,
    /// The name of the project that runs.
    pub(super) project: String,
    /// What is run; what is taken up again is decided when it has ended.
    pub(super) first: Command,
    /// What follows as long as something is unfinished.
    pub(super) then: Vec<Command>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Scenario {
    pub(super) fn of(seed: u64) -> Self {
        let random = &mut Random::of(seed);
        let services = services(random);
        let mut renewed: Vec<String> = Vec::new();
        for service in services.iter().filter(|service| service.is_tracked) {
            if !renewed.contains(&service.repository) && random.percent(85) {
                renewed.push(service.repository.clone());
            }
        }
        let mut shell = BTreeMap::new();
        let mut project = PROJECT.to_owned();
        if random.percent(30) {
            project = "store".to_owned();
            shell.insert("COMPOSE_PROJECT_NAME".to_owned(), project.clone());
        }
        if random.percent(60) {
            shell.insert("DOCKER_HOST".to_owned(), format!("unix://{}", ENGINES[0]));
        }
        // What does not come back by itself is no matter of an update.
        let may_restart = services.iter().all(|one| one.policy == "always" || one.is_job());
        let mut words = vec!["update-safe"];
        if random.percent(15) {
            words.push("--keep-going");
        }
        let trouble = match random.below(10) {
            0..2 => Faults::default(),
            2..5 => moment(random),
            _ => faults(random, may_restart),
        };
        let first = Command { words, in_own_shell: true, faults: trouble };
        let mut then = Vec::new();
        for round in 0..4 {
            let option = random.pick(&["--resume", "--abort"]);
            let is_last = round == 3;
            let faults = match random.below(4) {
                0 if !is_last => faults(random, may_restart),
                _ => Faults::default(),
            };
            let in_own_shell = is_last || random.percent(70);
            let words = vec!["update-safe", option];
            then.push(Command { words, in_own_shell, faults });
        }
        Self { services, renewed, shell, project, first, then }
    }

    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The version that the registry's moving tag names.
    pub(super) fn latest(&self, repository: &str) -> u32 {
        if self.renewed.iter().any(|renewed| renewed == repository) { 2 } else { 1 }
    }

    /// The text of the Compose file for the database services, or for the others.
    pub(super) fn compose_file(&self, databases: bool) -> String {
        let mut text = String::from("services:\n");
        for service in self.services.iter().filter(|one| one.is_database == databases) {
            text += &format!("  {}:\n    image: {}\n", service.name, image_line(service));
            text += &format!("    restart: \"{}\"\n", service.policy);
            if let Some(check) = service.check {
                text += &format!(
                    "    healthcheck: {{test: [CMD, \"true\"], interval: {}s, timeout: 1s, \
                     retries: {}, start_period: {}s}}\n",
                    check.interval.as_secs(),
                    check.retries,
                    check.start_period.as_secs()
                );
            }
            if !service.waits.is_empty() {
                text += "    depends_on:\n";
                for (name, how) in &service.waits {
                    text += &format!("      {name}: {{condition: {}}}\n", condition(*how));
                }
            }
            if service.is_database {
                text += "    volumes: [\"./data:/data\"]\n";
            }
        }
        text
    }

    /// What `compose config` prints in `directory`, with `variables` in its environment.
    pub(super) fn config(
        &self,
        project: &str,
        directory: &str,
        variables: &BTreeMap<String, String>,
    ) -> Value {
        let services = self.services.iter().map(|service| {
            let mut config = json!({
                "image": image(service, variables),
                "restart": service.policy,
                "depends_on": service.waits.iter().map(|(name, how)| {
                    (name.clone(), json!({"condition": condition(*how), "required": true}))
                }).collect::<serde_json::Map<_, _>>(),
            });
            if let Some(check) = service.check {
                config["healthcheck"] = json!({
                    "test": ["CMD", "true"],
                    "interval": format!("{}s", check.interval.as_secs()),
                    "timeout": "1s",
                    "retries": check.retries,
                    "start_period": format!("{}s", check.start_period.as_secs()),
                });
            }
            if service.is_database {
                config["volumes"] = json!([{"type": "bind", "source": format!("{directory}/data"), "target": "/data"}]);
            }
            (service.name.clone(), config)
        });
        json!({"name": project, "services": services.collect::<serde_json::Map<_, _>>()})
    }

    pub(super) fn manifest(&self, digest: impl Fn(&str, u32) -> String) -> String {
        let mut tracked: Vec<&str> = Vec::new();
        for service in self.services.iter().filter(|service| service.is_tracked) {
            if !tracked.contains(&service.repository.as_str()) {
                tracked.push(&service.repository);
            }
        }
        let mut text = String::from("schema_version: '1.1'\ndeployment_id: shop\nservices:\n");
        for repository in &tracked {
            let name = short(repository);
            let digest = digest(repository, 1);
            text += &format!(
                "  {name}:\n    image: {repository}\n    current_tag: '1.0'\n    image_digest: {digest}\n    \
                 deployed_at: '2026-01-01T00:00:00Z'\n    deployed_by: ada\n"
            );
        }
        text += "history:\n";
        for repository in &tracked {
            let digest = digest(repository, 1);
            text += &format!(
                "  {}:\n  - {{tag: '1.0', digest: '{digest}', deployed_at: '2026-01-01T00:00:00Z', \
                 deployed_by: ada, status: current}}\n",
                short(repository)
            );
        }
        text
    }
}

/// The last part of a repository's name, by which the manifest calls it.
pub(super) fn short(repository: &str) -> &str {
    repository.rsplit('/').next().unwrap_or(repository)
}

fn condition(how: Waits) -> &'static str {
    match how {
        Waits::Started => "service_started",
        Waits::Healthy => "service_healthy",
        Waits::Completed => "service_completed_successfully",
    }
}

fn variable(service: &Service, what: &str) -> String {
    format!("DK_{}_{what}", short(&service.repository).to_uppercase())
}

fn image_line(service: &Service) -> String {
    let (repository, image, tag) =
        (&service.repository, variable(service, "IMAGE"), variable(service, "TAG"));
    match service.is_tracked {
        true => format!("${{{image}:-{repository}}}:${{{tag}:-latest}}"),
        false => format!("{repository}:7"),
    }
}

/// The image of a service, as Compose puts it together.
pub(super) fn image(service: &Service, variables: &BTreeMap<String, String>) -> String {
    if !service.is_tracked {
        return format!("{}:7", service.repository);
    }
    let get = |what, default: &str| {
        let value = variables.get(&variable(service, what)).filter(|value| !value.is_empty());
        value.cloned().unwrap_or_else(|| default.to_owned())
    };
    format!("{}:{}", get("IMAGE", &service.repository), get("TAG", "latest"))
}

fn services(random: &mut Random) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let policy = random.pick(&["always", "always", "unless-stopped", "on-failure", "no"]);
    if random.percent(40) {
        let is_database = random.percent(60);
        services.push(Service {
            name: "db".to_owned(),
            repository: "r.example/postgres".to_owned(),
            is_tracked: false,
            old: Conduct::Serves { ready: SECOND },
            new: Conduct::Serves { ready: SECOND },
            check: random.percent(50).then_some(CHECK),
            policy: "always",
            waits: Vec::new(),
            count: 1,
            is_stopped: false,
            is_database,
        });
    }
    let names = ["web", "api", "worker"];
    for name in &names[..usize::try_from(random.within(1, 3)).unwrap()] {
        let repository = format!("r.example/{name}");
        let mut waits = Vec::new();
        for other in &services {
            if other.is_stopped || other.is_job() || !random.percent(50) {
                continue;
            }
            let is_healthy = other.check.is_some() && random.percent(60);
            waits.push((
                other.name.clone(),
                if is_healthy { Waits::Healthy } else { Waits::Started },
            ));
        }
        if random.percent(20) {
            let job =
                Conduct::Completes { after: SECOND * u32::try_from(random.within(0, 3)).unwrap() };
            services.push(Service {
                name: format!("{name}-migrate"),
                repository: repository.clone(),
                is_tracked: true,
                old: job,
                new: if random.percent(20) {
                    Conduct::Crashes { code: 1, after: SECOND }
                } else {
                    job
                },
                check: None,
                policy: "no",
                waits: waits.clone(),
                count: 1,
                is_stopped: false,
                is_database: false,
            });
            waits.push((format!("{name}-migrate"), Waits::Completed));
        }
        let check = random.percent(60).then_some(Check {
            interval: SECOND * u32::try_from(random.within(1, 4)).unwrap(),
            retries: 3,
            start_period: SECOND * u32::try_from(random.pick(&[0, 0, 0, 5, 5, 30])).unwrap(),
        });
        let serves = |random: &mut Random| {
            let longest =
                check.map_or(1, |check| (check.start_period + check.interval * 2).as_secs() - 1);
            Conduct::Serves { ready: SECOND * u32::try_from(random.within(0, longest)).unwrap() }
        };
        let old = serves(random);
        let new = match random.below(100) {
            0..60 => serves(random),
            60..75 => Conduct::Crashes {
                code: random.pick(&[1, 3, 127]),
                after: Duration::from_millis(random.pick(&[50, 900, 3000])),
            },
            75..90 if check.is_some() => Conduct::NeverHealthy,
            _ => Conduct::CannotStart,
        };
        let is_stopped = random.percent(8);
        services.push(Service {
            name: (*name).to_owned(),
            repository,
            is_tracked: true,
            old,
            new,
            check,
            policy: if is_stopped { "always" } else { policy },
            waits,
            count: if random.percent(20) { 2 } else { 1 },
            is_stopped,
            is_database: false,
        });
    }
    services
}

const CHECK: Check =
    Check { interval: Duration::from_secs(2), retries: 3, start_period: Duration::from_secs(5) };

/// One thing goes wrong, and is over at once.
fn moment(random: &mut Random) -> Faults {
    let mut faults = Faults::default();
    if random.percent(10) {
        let fault = match random.below(3) {
            0 => RegistryFault::Unreachable,
            _ => RegistryFault::Status(random.pick(&[429, 500, 503])),
        };
        faults.registry.insert(random.below(8), fault);
        return faults;
    }
    let fault = match random.below(5) {
        0..3 => EngineFault::Errors(1),
        3 => EngineFault::Lost,
        _ => EngineFault::Away(Duration::from_millis(random.pick(&[300, 3000]))),
    };
    // Half of them early: an update in which little changes has few calls.
    let end = random.pick(&[60, 200]);
    faults.engine.insert(random.below(end), fault);
    faults
}

fn faults(random: &mut Random, may_restart: bool) -> Faults {
    let mut faults = Faults::default();
    for _ in 0..random.within(1, 2) {
        match random.below(100) {
            0..35 => {
                let away = Duration::from_millis(random.pick(&[300, 3000, 3000, 20_000, 90_000]));
                let fault = match random.below(10) {
                    0..3 => EngineFault::Errors(u32::try_from(random.within(1, 6)).unwrap()),
                    3..5 => EngineFault::Lost,
                    5..6 => EngineFault::Hangs(away),
                    6..8 if may_restart => EngineFault::Restarts(away),
                    _ => EngineFault::Away(away),
                };
                let end = random.pick(&[40, 150, 400]);
                faults.engine.insert(random.below(end), fault);
            }
            35..45 => {
                let fault = match random.below(4) {
                    0 => RegistryFault::Unreachable,
                    1 => RegistryFault::Slow(Duration::from_secs(random.within(1, 100))),
                    _ => RegistryFault::Status(random.pick(&[429, 500, 503, 404, 403])),
                };
                for number in 0..random.pick(&[1, 1, 10]) {
                    faults.registry.insert(random.below(8) + number, fault);
                }
            }
            45..60 => {
                let end = random.pick(&[12, 40]);
                faults.disk.insert(random.below(end), random.pick(&[1, 1, 3, 1000]));
            }
            60..85 => {
                let count = if random.percent(75) { 1 } else { 2 };
                for _ in 0..count {
                    let delay = Duration::from_millis(random.pick(&[0, 0, 10, 500, 2500, 7000]));
                    faults.signals.push((random.below(60), delay));
                }
            }
            _ => {
                faults.kill = Some(Kill {
                    at: random.below(60),
                    after: random.percent(50),
                    with_compose: random.percent(40),
                });
            }
        }
    }
    faults
}
