//! The typed answer of `compose config`: what Compose would start, with everything interpolated.
//!
//! v2 prints JSON, v1 YAML; both are read by the same types, generous to keys that dkv does not
//! need. Environments of services are not read: they hold secrets.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indexmap::IndexMap;
use serde::Deserialize;

pub use crate::docker::Shared;
use crate::model::duration;

/// The daemon's, where the files name none.
const DEFAULT_STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// A Compose project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's name, which the daemon's labels and the default network carry.
    pub name: String,
    /// The Compose services in Compose's order: those that a start without names would start, and
    /// those that run by a profile that is not switched on otherwise.
    pub services: Vec<ServiceConfig>,
    /// The services whose profiles are not active, as far as they are known.
    pub dormant: Vec<ServiceConfig>,
    /// The named volumes by their key in the files.
    pub volumes: IndexMap<String, Volume>,
}

impl Project {
    /// The Compose service called `name`.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceConfig> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Puts the services aside that `is_active` does not choose; what depends on one of them, and
    /// could be without, no longer does.
    #[must_use]
    pub fn with_active(mut self, is_active: impl Fn(&ServiceConfig) -> bool) -> Self {
        let all = std::mem::take(&mut self.services).into_iter();
        let (active, dormant) = all.partition::<Vec<_>, _>(is_active);
        (self.services, self.dormant) = (active, dormant);
        for service in &mut self.services {
            let dormant = &self.dormant;
            service
                .depends_on
                .retain(|on, how| how.is_required || !dormant.iter().any(|one| one.name == *on));
        }
        self
    }

    /// Takes those of the dormant services back that `is_awake` chooses.
    #[must_use]
    pub fn woken(mut self, is_awake: impl Fn(&ServiceConfig) -> bool) -> Self {
        let all = std::mem::take(&mut self.dormant).into_iter();
        let (awake, dormant) = all.partition::<Vec<_>, _>(is_awake);
        self.services.extend(awake);
        self.dormant = dormant;
        self
    }

    /// The profiles that the dormant services called `names` need, each chosen so that it starts as
    /// little else as possible.
    #[must_use]
    pub fn profiles_of(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let others = |profile: &String| {
            let having = self.dormant.iter().filter(|one| one.profiles.contains(profile));
            having.filter(|one| !names.contains(&one.name)).count()
        };
        let sleepers = self.dormant.iter().filter(|one| names.contains(&one.name));
        sleepers
            .filter_map(|one| one.profiles.iter().min_by_key(|profile| others(profile)))
            .cloned()
            .collect()
    }
}

/// What runs by profiles that nothing but a command line of the operator's has switched on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Awake {
    /// The services that run so.
    pub services: BTreeSet<String>,
    /// The profiles that they need.
    pub profiles: BTreeSet<String>,
    /// The profiles of all such services that have a container, running or not.
    pub present: BTreeSet<String>,
}

/// A Compose service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its key under `services:`.
    pub name: String,
    /// Its image with all variables replaced; absent when it is only built.
    pub image: Option<String>,
    /// Whether it has a build section.
    pub has_build: bool,
    /// When its image is pulled or built by itself; absent leaves that to Compose's default.
    pub pull_policy: Option<PullPolicy>,
    /// The platform whose image it runs, as written: `linux/arm64`. Absent means the host's.
    pub platform: Option<String>,
    /// What it depends on, and how. Compose 2 adds to what the files say: who uses a namespace,
    /// the volumes or the name (`links`) of another service depends on that.
    pub depends_on: IndexMap<String, Dependency>,
    /// The namespaces and volumes that it has from other containers.
    pub shares: Vec<Share>,
    /// The restart policy as written; absent means `no`.
    pub restart: Option<String>,
    /// What `deploy` says its containers are.
    pub mode: Mode,
    /// What the files say about its health check.
    pub healthcheck: Healthcheck,
    /// The container's fixed name, if the files give one.
    pub container_name: Option<String>,
    /// The profiles it belongs to; none means always.
    pub profiles: Vec<String>,
    /// The bind mounts and volumes.
    pub mounts: Vec<Mount>,
    /// How long it may take to stop before it is killed.
    pub stop_grace_period: Duration,
    /// How many containers it shall have.
    pub scale: i64,
}

impl ServiceConfig {
    /// A service of which nothing but its name is known, and perhaps its image.
    #[must_use]
    pub fn named(name: String, image: Option<String>) -> Self {
        Self {
            name,
            image,
            has_build: false,
            pull_policy: None,
            platform: None,
            depends_on: IndexMap::new(),
            shares: Vec::new(),
            restart: None,
            mode: Mode::Replicated,
            healthcheck: Healthcheck::default(),
            container_name: None,
            profiles: Vec::new(),
            mounts: Vec::new(),
            stop_grace_period: DEFAULT_STOP_GRACE_PERIOD,
            scale: 1,
        }
    }

    /// Whether it shall have a container at all; the files may scale it to none.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.scale > 0
    }
}

/// When Compose 2 pulls or builds the image of a service; Compose 1 reads no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// At a start when the last time was long enough ago: `daily`, `weekly`, `every_12h`.
    Refresh,
    /// When it is not here.
    Missing,
    /// Never; an image that is not here is an error.
    Never,
    /// Never; it is built at every start.
    Build,
}

impl PullPolicy {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "always" => Self::Always,
            "missing" | "if_not_present" => Self::Missing,
            "never" => Self::Never,
            "build" => Self::Build,
            "daily" | "weekly" => Self::Refresh,
            word if word.starts_with("every_") => Self::Refresh,
            _ => return None,
        })
    }
}

/// What a service has from another container: when that is replaced, it hangs on to what is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What it is.
    pub what: Shared,
    /// Whose it is.
    pub of: Peer,
}

/// Another container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The first one of a Compose service.
    Service(String),
    /// The one of this name or ID, whoever made it.
    Container(String),
}

/// How a service depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    /// What it waits for.
    pub condition: Condition,
    /// Whether Compose restarts it after it has replaced the other.
    pub restart: bool,
    /// Whether it cannot be without the other.
    pub is_required: bool,
}

impl Dependency {
    /// What a dependency is where only its condition is known.
    #[must_use]
    pub fn on(condition: Condition) -> Self {
        Self { condition, restart: false, is_required: true }
    }
}

/// What a dependent service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Condition {
    /// The container was started.
    #[default]
    #[serde(rename = "service_started")]
    Started,
    /// Its health check passed.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// It exited with 0.
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

/// What the containers of a service are, by `deploy.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// So many as `replicas` says; also where nothing is said.
    Replicated,
    /// One on each host.
    Global,
    /// They do their work and end.
    Job,
}

/// What the Compose files say about a health check; what they do not say is as the image has it,
/// else as the daemon does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// Whose command is run.
    pub test: Test,
    /// The pause between two runs.
    pub interval: Option<Duration>,
    /// How long one run may take.
    pub timeout: Option<Duration>,
    /// So many failures in a row make it unhealthy.
    pub retries: Option<u32>,
    /// How long failures do not count at first.
    pub start_period: Option<Duration>,
}

/// Whose command a health check runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Test {
    /// The files define one.
    Defined,
    /// The files switch the image's off.
    Disabled,
    /// The files say nothing: the image decides.
    #[default]
    Image,
}

/// A bind mount or volume of a service; other kinds of mounts are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where the data comes from.
    pub source: Source,
    /// The path inside the container.
    pub target: String,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// Where a mount's data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the host.
    Bind(String),
    /// A named volume, by the daemon's name for it.
    Volume(String),
    /// A volume without a name, made anew for each container.
    Anonymous,
}

/// A named volume of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The daemon's name for it.
    pub name: String,
    /// Whether somebody else made it.
    pub is_external: bool,
}

/// Reads what v2's `config --format json` prints.
///
/// # Errors
/// The text is something else.
pub fn parse_v2(text: &str) -> Result<Project> {
    let mut raw: RawProject =
        serde_json::from_str(text).context("cannot read what `docker compose config` printed")?;
    let name = raw.name.take().context("`docker compose config` printed no project name")?;
    // v1 does not read it.
    for service in raw.services.values_mut() {
        let policy = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
        let condition = policy.and_then(|policy| policy.condition.as_deref());
        if let Some(condition) = condition {
            let policy = if condition == "none" { "no" } else { condition };
            service.restart = Some(if policy == "any" { "always" } else { policy }.to_owned());
        }
    }
    Ok(raw.into_project(name))
}

/// Reads what v1's `config` prints. It has neither the project's `name`, nor does it leave out the
/// services whose profiles are not active, as v2 does.
///
/// # Errors
/// The text is something else.
pub fn parse_v1(text: &str, name: String) -> Result<Project> {
    let mut raw: RawProject =
        serde_yaml::from_str(text).context("cannot read what `docker-compose config` printed")?;
    // v2 takes the replicas of every mode, v1 those of this one only.
    for deploy in raw.services.values_mut().filter_map(|service| service.deploy.as_mut()) {
        deploy.replicas = deploy
            .replicas
            .filter(|_| deploy.mode.as_deref().is_none_or(|mode| mode == "replicated"));
    }
    Ok(raw.into_project(name))
}

impl RawProject {
    fn into_project(self, name: String) -> Project {
        let volumes: IndexMap<String, Volume> = self
            .volumes
            .into_iter()
            .map(|(key, volume)| volume_of(key, volume.unwrap_or_default(), &name))
            .collect();
        let services = self
            .services
            .into_iter()
            .map(|(key, service)| service.into_config(key, &volumes))
            .collect();
        Project { name, services, dormant: Vec::new(), volumes }
    }
}

#[derive(Deserialize)]
struct RawProject {
    name: Option<String>,
    #[serde(default)]
    services: IndexMap<String, RawService>,
    #[serde(default)]
    volumes: IndexMap<String, Option<RawVolume>>,
}

#[derive(Deserialize)]
struct RawService {
    image: Option<String>,
    build: Option<serde::de::IgnoredAny>,
    pull_policy: Option<String>,
    platform: Option<String>,
    #[serde(default)]
    depends_on: RawDependencies,
    network_mode: Option<String>,
    ipc: Option<String>,
    pid: Option<String>,
    #[serde(default)]
    volumes_from: Vec<String>,
    restart: Option<String>,
    healthcheck: Option<RawHealthcheck>,
    container_name: Option<String>,
    #[serde(default)]
    profiles: Vec<String>,
    #[serde(default)]
    volumes: Vec<RawMount>,
    stop_grace_period: Option<String>,
    scale: Option<i64>,
    deploy: Option<RawDeploy>,
}

#[derive(Deserialize)]
struct RawDeploy {
    mode: Option<String>,
    replicas: Option<i64>,
    restart_policy: Option<RawRestartPolicy>,
}

#[derive(Deserialize)]
struct RawRestartPolicy {
    condition: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawDependencies {
    List(Vec<String>),
    Map(IndexMap<String, RawDependency>),
}

impl Default for RawDependencies {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Deserialize)]
struct RawDependency {
    #[serde(default)]
    condition: Condition,
    #[serde(default)]
    restart: bool,
    #[serde(default = "yes")]
    required: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct RawHealthcheck {
    #[serde(default)]
    disable: bool,
    test: Option<RawTest>,
    interval: Option<String>,
    timeout: Option<String>,
    retries: Option<u32>,
    start_period: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTest {
    Words(Vec<String>),
    Shell(#[expect(dead_code, reason = "the shape is what counts")] String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawMount {
    Short(String),
    Long {
        #[serde(rename = "type")]
        kind: String,
        source: Option<String>,
        target: String,
        #[serde(default)]
        read_only: bool,
    },
}

#[derive(Deserialize, Default)]
struct RawVolume {
    name: Option<String>,
    #[serde(default)]
    external: RawExternal,
}

/// `external: true`, or the older `external: {name: …}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawExternal {
    Flag(bool),
    Named { name: Option<String> },
}

impl Default for RawExternal {
    fn default() -> Self {
        Self::Flag(false)
    }
}

fn volume_of(key: String, raw: RawVolume, project: &str) -> (String, Volume) {
    let (is_external, external_name) = match raw.external {
        RawExternal::Flag(flag) => (flag, None),
        RawExternal::Named { name } => (true, name),
    };
    let implied = || if is_external { key.clone() } else { format!("{project}_{key}") };
    let name = raw.name.or(external_name).unwrap_or_else(implied);
    (key, Volume { name, is_external })
}

impl RawService {
    fn into_config(self, name: String, volumes: &IndexMap<String, Volume>) -> ServiceConfig {
        let depends_on = match self.depends_on {
            RawDependencies::List(names) => {
                names.into_iter().map(|name| (name, Dependency::on(Condition::Started))).collect()
            }
            RawDependencies::Map(map) => {
                map.into_iter().map(|(name, dependency)| (name, dependency.into())).collect()
            }
        };
        let namespaces = [
            (Shared::Network, &self.network_mode),
            (Shared::Ipc, &self.ipc),
            (Shared::Pid, &self.pid),
        ];
        let namespaces = namespaces
            .into_iter()
            .filter_map(|(what, mode)| Some(Share { what, of: peer(mode.as_deref()?, false)? }));
        let borrowed = self
            .volumes_from
            .iter()
            .filter_map(|from| Some(Share { what: Shared::Volumes, of: peer(from, true)? }));
        let shares = namespaces.chain(borrowed).collect();
        ServiceConfig {
            name,
            image: self.image.map(|image| undouble(&image)),
            has_build: self.build.is_some(),
            pull_policy: self.pull_policy.as_deref().and_then(PullPolicy::of),
            platform: self.platform,
            depends_on,
            shares,
            restart: self.restart,
            mode: self.deploy.as_ref().and_then(|deploy| deploy.mode.as_deref()).map_or(
                Mode::Replicated,
                |mode| match mode {
                    "global" => Mode::Global,
                    "replicated-job" | "global-job" => Mode::Job,
                    _ => Mode::Replicated,
                },
            ),
            healthcheck: self.healthcheck.map(Healthcheck::from).unwrap_or_default(),
            container_name: self.container_name,
            profiles: self.profiles,
            mounts: self
                .volumes
                .into_iter()
                .filter_map(|mount| mount.into_mount(volumes))
                .collect(),
            stop_grace_period: self
                .stop_grace_period
                .as_deref()
                .and_then(duration::parse_exact)
                .unwrap_or(DEFAULT_STOP_GRACE_PERIOD),
            scale: self.scale.or(self.deploy.and_then(|deploy| deploy.replicas)).unwrap_or(1),
        }
    }
}

impl From<RawDependency> for Dependency {
    fn from(raw: RawDependency) -> Self {
        let RawDependency { condition, restart, required } = raw;
        Self { condition, restart, is_required: required }
    }
}

/// Whom `service:NAME` or `container:NAME` means. In `volumes_from` access modes may follow, and
/// Compose 2 leaves `service:` out.
fn peer(text: &str, is_volumes: bool) -> Option<Peer> {
    let name = |rest: &str| undouble(rest.split(':').next().unwrap_or(rest));
    if let Some(rest) = text.strip_prefix("service:") {
        return Some(Peer::Service(name(rest)));
    }
    if let Some(rest) = text.strip_prefix("container:") {
        return Some(Peer::Container(name(rest)));
    }
    is_volumes.then(|| Peer::Service(name(text)))
}

impl From<RawHealthcheck> for Healthcheck {
    fn from(raw: RawHealthcheck) -> Self {
        let test = match &raw.test {
            _ if raw.disable => Test::Disabled,
            Some(RawTest::Words(words)) if words.first().is_some_and(|word| word == "NONE") => {
                Test::Disabled
            }
            Some(RawTest::Shell(_) | RawTest::Words(_)) => Test::Defined,
            None => Test::Image,
        };
        let length = |text: Option<String>| text.as_deref().and_then(duration::parse_exact);
        Self {
            test,
            interval: length(raw.interval),
            timeout: length(raw.timeout),
            retries: raw.retries,
            start_period: length(raw.start_period),
        }
    }
}

impl RawMount {
    fn into_mount(self, volumes: &IndexMap<String, Volume>) -> Option<Mount> {
        let (is_bind, source, target, read_only) = match self {
            Self::Short(text) => {
                let mut parts =
                    undouble(&text).split(':').map(str::to_owned).collect::<Vec<_>>().into_iter();
                let first = parts.next()?;
                match parts.next() {
                    None => (false, None, first, false),
                    Some(target) => {
                        let read_only = parts
                            .next()
                            .is_some_and(|mode| mode.split(',').any(|flag| flag == "ro"));
                        (first.starts_with('/'), Some(first), target, read_only)
                    }
                }
            }
            Self::Long { kind, source, target, read_only } => {
                let is_bind = match kind.as_str() {
                    "bind" => true,
                    "volume" => false,
                    _ => return None,
                };
                (is_bind, source.map(|source| undouble(&source)), undouble(&target), read_only)
            }
        };
        let source = match source {
            Some(path) if is_bind => Source::Bind(path),
            Some(key) => {
                Source::Volume(volumes.get(&key).map_or(key, |volume| volume.name.clone()))
            }
            None => Source::Anonymous,
        };
        Some(Mount { source, target, read_only })
    }
}

/// Undoes the doubling of dollars, by which `config` keeps its output a valid Compose file.
fn undouble(text: &str) -> String {
    text.replace("$$", "$")
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = r#"
services:
  app:
    build: {context: /srv/shop}
    depends_on:
      migrate: {condition: service_completed_successfully}
      db: {condition: service_healthy}
    healthcheck: {interval: 5s}
    image: shop:1.40
    restart: unless-stopped
    volumes:
    - /srv/$$x:/x:rw
    - data:/data:ro
    - /anonymous
  db:
    depends_on: [cache]
    healthcheck: {disable: true}
    image: postgres:13
    volumes:
    - {type: bind, source: /srv/db, target: /db, read_only: true}
    - {type: tmpfs, target: /tmp}
  debug:
    image: shop:1.40
    profiles: [debug]
  migrate:
    image: shop:1.40
    healthcheck: {test: [NONE]}
    restart: 'no'
version: '3.8'
volumes:
  data: {}
  shared: {external: {name: theirs}}
  other: {external: true}
"#;

    const V2: &str = r#"{
      "name": "shop", "x-extra": 1,
      "services": {
        "app": {
          "command": null, "build": {"context": "/srv/shop", "dockerfile": "Dockerfile"},
          "depends_on": {"migrate": {"condition": "service_completed_successfully", "required": true}},
          "healthcheck": {"test": ["CMD", "true"]},
          "image": "shop:1.40",
          "environment": {"SECRET": "hush"},
          "volumes": [
            {"type": "bind", "source": "/srv/$$x", "target": "/x", "bind": {"create_host_path": true}},
            {"type": "volume", "source": "data", "target": "/data", "read_only": true, "volume": {}},
            {"type": "volume", "target": "/anonymous", "volume": {}}
          ]
        },
        "migrate": {"image": "shop:1.40", "restart": "no"}
      },
      "volumes": {"data": {"name": "elsewhere"}, "empty": null}
    }"#;

    fn mount(source: Source, target: &str, read_only: bool) -> Mount {
        Mount { source, target: target.to_owned(), read_only }
    }

    fn expected_mounts(volume: &str) -> [Mount; 3] {
        [
            mount(Source::Bind("/srv/$x".into()), "/x", false),
            mount(Source::Volume(volume.into()), "/data", true),
            mount(Source::Anonymous, "/anonymous", false),
        ]
    }

    #[test]
    fn v1_yaml_is_read() {
        let project = parse_v1(V1, "shop".to_owned())
            .unwrap()
            .with_active(|service| service.profiles.is_empty());
        assert_eq!(project.name, "shop");
        assert_eq!(
            project.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(),
            ["app", "db", "migrate"]
        );
        let app = project.service("app").unwrap();
        assert_eq!(app.image.as_deref(), Some("shop:1.40"));
        assert!(app.has_build);
        assert_eq!(app.depends_on["db"], Dependency::on(Condition::Healthy));
        assert_eq!(app.healthcheck.test, Test::Image);
        assert_eq!(app.healthcheck.interval, Some(Duration::from_secs(5)));
        assert_eq!(app.mounts, expected_mounts("shop_data"));
        let db = project.service("db").unwrap();
        assert_eq!(db.depends_on["cache"], Dependency::on(Condition::Started));
        assert_eq!(db.healthcheck.test, Test::Disabled);
        assert_eq!(db.mounts, [mount(Source::Bind("/srv/db".into()), "/db", true)]);
        let migrate = project.service("migrate").unwrap();
        assert_eq!(
            (migrate.restart.as_deref(), migrate.healthcheck.test),
            (Some("no"), Test::Disabled)
        );
        assert_eq!(app.depends_on["migrate"], Dependency::on(Condition::CompletedSuccessfully));
        assert_eq!(project.volumes["shared"], Volume { name: "theirs".into(), is_external: true });
        assert_eq!(project.volumes["other"], Volume { name: "other".into(), is_external: true });
    }

    #[test]
    fn v1_profiles_are_applied_here() {
        let project = parse_v1(V1, "shop".to_owned()).unwrap();
        assert_eq!(project.service("debug").unwrap().profiles, ["debug"]);
        let project = project.with_active(|service| service.profiles.is_empty());
        assert!(project.service("debug").is_none());
        assert_eq!(project.dormant[0].name, "debug");
    }

    #[test]
    fn profiles_are_chosen_that_start_little_else() {
        let text = r#"{"name": "shop", "services": {
            "a": {"profiles": ["all", "one"], "depends_on": {"c": {"required": false}, "b": {}}},
            "b": {"profiles": ["all"]}, "c": {"profiles": ["other", "all"]}, "d": {}}}"#;
        let asleep = || parse_v2(text).unwrap().with_active(|service| service.profiles.is_empty());
        let chosen = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            asleep().profiles_of(&names).into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chosen(&["a"]), "one");
        assert_eq!(chosen(&["b"]), "all");
        assert_eq!(chosen(&["a", "b", "c"]), "all other");
        assert_eq!(chosen(&["d"]), "");
        // What can be without what sleeps does not wait for it.
        let project = parse_v2(text).unwrap().with_active(|service| service.name != "c");
        assert_eq!(project.service("a").unwrap().depends_on.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn v2_json_is_read() {
        let project = parse_v2(V2).unwrap();
        assert_eq!(project.name, "shop");
        let app = project.service("app").unwrap();
        assert!(app.has_build);
        assert_eq!(app.healthcheck.test, Test::Defined);
        assert_eq!(app.mounts, expected_mounts("elsewhere"));
        assert_eq!(app.depends_on["migrate"], Dependency::on(Condition::CompletedSuccessfully));
        assert_eq!(project.volumes["empty"].name, "shop_empty");
        assert!(!format!("{project:?}").contains("hush"));
    }

    #[test]
    fn both_composes_say_how_many_containers_there_shall_be() {
        let services = [
            ("replicas", "deploy: {replicas: 0}", 0),
            ("scale", "scale: 0", 0),
            ("two", "deploy: {replicas: 2, resources: {}}", 2),
            ("limited", "deploy: {resources: {limits: {memory: 10M}}}", 1),
            ("one", "image: a", 1),
        ];
        let text: String =
            services.iter().map(|(name, text, _)| format!("  {name}: {{{text}}}\n")).collect();
        let text = format!("name: shop\nservices:\n{text}");
        let json: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        for project in
            [parse_v1(&text, "shop".to_owned()).unwrap(), parse_v2(&json.to_string()).unwrap()]
        {
            for (name, _, scale) in services {
                let service = project.service(name).unwrap();
                assert_eq!((service.scale, service.is_wanted()), (scale, scale > 0), "{name}");
            }
        }
        let global = "{\"name\": \"shop\", \"services\": {\"a\": {\"deploy\": \
            {\"mode\": \"global\", \"replicas\": 0}}}}";
        let v1 = parse_v1(global, "shop".to_owned()).unwrap();
        assert_eq!((v1.services[0].scale, parse_v2(global).unwrap().services[0].scale), (1, 0));
    }

    /// A service as each generation prints it. Both from the same file, but for what v1 refuses.
    const FOLLOWER: [&str; 2] = [
        r#"
services:
  web:
    depends_on: {db: {condition: service_healthy}}
    healthcheck: {interval: 90s, retries: 3, start_period: 200s, timeout: 1500ms}
    image: a:1
    platform: linux/amd64
    pull_policy: always
    deploy: {mode: replicated-job, replicas: 2, restart_policy: {condition: none}}
  side:
    image: b:1
    ipc: service:web
    network_mode: service:web
    pid: container:foo
    volumes_from: [service:web:ro, container:bar:rw, other]
  apart: {image: b:1, network_mode: host, ipc: shareable, pid: host, pull_policy: build}
"#,
        r#"{"name": "shop", "services": {
            "web": {
                "depends_on": {"db": {"condition": "service_healthy", "restart": true, "required": false}},
                "healthcheck": {"timeout": "1.5s", "interval": "1m30s", "retries": 3, "start_period": "3m20s"},
                "image": "a:1", "platform": "linux/amd64", "pull_policy": "always",
                "deploy": {"mode": "replicated-job", "replicas": 2, "restart_policy": {"condition": "none"}}},
            "side": {
                "image": "b:1", "ipc": "service:web", "network_mode": "service:web",
                "pid": "container:foo", "volumes_from": ["web:ro", "container:bar:rw", "other"]},
            "apart": {"image": "b:1", "network_mode": "host", "ipc": "shareable", "pid": "host",
                "pull_policy": "build"}}}"#,
    ];

    #[test]
    fn both_composes_say_who_follows_whom_and_when_images_are_pulled() {
        let [v1, v2] = FOLLOWER;
        let v1 = parse_v1(v1, "shop".to_owned()).unwrap();
        let v2 = parse_v2(v2).unwrap();
        let share = |what, of: &str| Share { what, of: Peer::Service(of.to_owned()) };
        let expected = [
            share(Shared::Network, "web"),
            share(Shared::Ipc, "web"),
            Share { what: Shared::Pid, of: Peer::Container("foo".to_owned()) },
            share(Shared::Volumes, "web"),
            Share { what: Shared::Volumes, of: Peer::Container("bar".to_owned()) },
            share(Shared::Volumes, "other"),
        ];
        for project in [&v1, &v2] {
            let (side, apart) =
                (project.service("side").unwrap(), project.service("apart").unwrap());
            assert_eq!((side.shares.as_slice(), apart.shares.as_slice()), (&expected[..], &[][..]));
            assert_eq!(apart.pull_policy, Some(PullPolicy::Build));
            let web = project.service("web").unwrap();
            assert_eq!(web.pull_policy, Some(PullPolicy::Always));
            assert_eq!((web.platform.as_deref(), web.mode), (Some("linux/amd64"), Mode::Job));
            let check = Healthcheck {
                test: Test::Image,
                interval: Some(Duration::from_secs(90)),
                timeout: Some(Duration::from_millis(1500)),
                retries: Some(3),
                start_period: Some(Duration::from_secs(200)),
            };
            assert_eq!(web.healthcheck, check);
        }
        let dependency = |project: &Project| project.service("web").unwrap().depends_on["db"];
        assert_eq!(dependency(&v1), Dependency::on(Condition::Healthy));
        let optional =
            Dependency { condition: Condition::Healthy, restart: true, is_required: false };
        assert_eq!(dependency(&v2), optional);
        let restart = |project: &Project| project.service("web").unwrap().restart.clone();
        assert_eq!((restart(&v1), restart(&v2).as_deref()), (None, Some("no")));
    }

    #[test]
    fn pull_policies_are_those_of_the_specification() {
        for (word, policy) in [
            ("always", Some(PullPolicy::Always)),
            ("missing", Some(PullPolicy::Missing)),
            ("if_not_present", Some(PullPolicy::Missing)),
            ("never", Some(PullPolicy::Never)),
            ("build", Some(PullPolicy::Build)),
            ("daily", Some(PullPolicy::Refresh)),
            ("weekly", Some(PullPolicy::Refresh)),
            ("every_12h30m", Some(PullPolicy::Refresh)),
            ("sometimes", None),
        ] {
            assert_eq!(PullPolicy::of(word), policy, "{word}");
        }
    }

    #[test]
    fn something_else_is_refused() {
        assert!(parse_v2("name: shop").is_err());
        assert!(parse_v1("[1]", String::new()).is_err());
    }
}
