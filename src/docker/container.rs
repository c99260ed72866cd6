//! Containers as the daemon describes them: what `status` shows and what health is judged by.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Result;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, HealthStatusEnum, HostConfig, MountPoint,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{Docker, PARALLEL_REQUESTS, display_safe, is_not_found};
use crate::model::reference::Digest;

/// Which containers to look at. An empty filter means all of the daemon's, running or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Labels that a container must carry: `key` or `key=value`.
    pub labels: Vec<String>,
}

impl ContainerFilter {
    /// The containers of one Compose project.
    #[must_use]
    pub fn project(name: &str) -> Self {
        Self { labels: vec![format!("{PROJECT}={name}")] }
    }
}

/// The daemon's, where neither image nor Compose file names one.
const DEFAULT_HEALTH_CHECK_PAUSE: Duration = Duration::from_secs(30);
/// The daemon's, where neither image nor Compose file says it.
const DEFAULT_HEALTH_CHECK_RETRIES: u32 = 3;

const PROJECT: &str = "com.docker.compose.project";

/// A container's labels, with names for those that Compose (v1 and v2) sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The value of any label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The Compose project.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.get(PROJECT)
    }

    /// The Compose service.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.get("com.docker.compose.service")
    }

    /// Whether `compose run` made it: no part of the deployment's normal state.
    #[must_use]
    pub fn is_one_off(&self) -> bool {
        self.get("com.docker.compose.oneoff")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The container's number within its service, from 1.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.get("com.docker.compose.container-number")?.parse().ok()
    }

    /// What the service waits for (v2 only), each with its condition: `service_started`,
    /// `service_healthy`, `service_completed_successfully`.
    #[must_use]
    pub fn depends_on(&self) -> Vec<(&str, &str)> {
        let list = self.get("com.docker.compose.depends_on").unwrap_or_default();
        list.split(',')
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let mut parts = entry.splitn(3, ':');
                (parts.next().unwrap_or_default(), parts.next().unwrap_or("service_started"))
            })
            .collect()
    }

    /// What Compose made the container from, in one word.
    #[must_use]
    pub fn config_hash(&self) -> Option<&str> {
        self.get("com.docker.compose.config-hash")
    }

    /// The version of the Compose that made the container.
    #[must_use]
    pub fn compose_version(&self) -> Option<&str> {
        self.get("com.docker.compose.version")
    }

    /// The directory that the project was started from.
    #[must_use]
    pub fn working_dir(&self) -> Option<&str> {
        self.get("com.docker.compose.project.working_dir")
    }

    /// The Compose files that the project was started with.
    #[must_use]
    pub fn config_files(&self) -> Vec<&str> {
        let list = self.get("com.docker.compose.project.config_files").unwrap_or_default();
        list.split(',').filter(|file| !file.is_empty()).collect()
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(labels: T) -> Self {
        Self(labels.into_iter().collect())
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Made but never started.
    Created,
    /// Running.
    Running,
    /// Frozen by `docker pause`.
    Paused,
    /// Between an exit and the restart that its policy asks for.
    Restarting,
    /// On its way out.
    Removing,
    /// Stopped, by itself or by somebody.
    Exited,
    /// The daemon failed to remove it.
    Dead,
    /// Something that this version does not know.
    Unknown,
}

impl std::fmt::Display for ContainerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        })
    }
}

/// A container as the list shows it: one request for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The daemon's full container ID.
    pub id: String,
    /// The name, without the daemon's leading slash.
    pub name: String,
    /// The image that it was made from.
    pub image_id: Option<Digest>,
    /// The image reference that it was made with, or an image ID when that name has moved on.
    pub image: String,
    /// Its labels.
    pub labels: Labels,
    /// What it is doing.
    pub state: ContainerState,
}

/// What the health check last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Within the start period or before the first result.
    Starting,
    /// The last check passed.
    Healthy,
    /// As many checks failed in a row as the container allows.
    Unhealthy,
}

/// One run of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthProbe {
    /// The command's exit code; 0 is success.
    pub exit_code: i64,
    /// What it printed, without control characters, cut to a length that fits a message.
    pub output: String,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// A health check's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The daemon's verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The latest run.
    pub last: Option<HealthProbe>,
}

/// How often and how patiently the daemon runs a health check; image and Compose file have a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// The pause between two runs.
    pub interval: Duration,
    /// How long a run may take.
    pub timeout: Duration,
    /// How long failures do not count after a start.
    pub start_period: Duration,
    /// So many failures in a row are one too many.
    pub retries: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: DEFAULT_HEALTH_CHECK_PAUSE,
            timeout: DEFAULT_HEALTH_CHECK_PAUSE,
            start_period: Duration::ZERO,
            retries: DEFAULT_HEALTH_CHECK_RETRIES,
        }
    }
}

impl HealthCheck {
    /// How long after its start a container may still become healthy by its own check.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let round = self.interval.saturating_add(self.timeout);
        self.start_period.saturating_add(round.saturating_mul(self.retries))
    }
}

/// When the daemon starts a container again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never: a one-shot, or something that must not come back.
    No,
    /// After every exit.
    Always,
    /// After every exit that nobody asked for.
    UnlessStopped,
    /// After an exit code other than 0.
    OnFailure,
}

/// What one container can have of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// `network_mode`.
    Network,
    /// `ipc`.
    Ipc,
    /// `pid`.
    Pid,
    /// `volumes_from`.
    Volumes,
}

/// What stands behind a directory of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume that the daemon keeps.
    Volume,
    /// Anything else: tmpfs, named pipe, image, cluster volume.
    Other,
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What stands behind it.
    pub kind: MountKind,
    /// The volume's name.
    pub volume: Option<String>,
    /// The path on the daemon's host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// Whether the container may write to it.
    pub writable: bool,
}

impl Mount {
    /// The name of the volume behind it, where the daemon made that name up.
    #[must_use]
    pub fn unnamed_volume(&self) -> Option<&str> {
        let name = self.volume.as_deref().filter(|_| self.kind == MountKind::Volume)?;
        let is_made_up = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_made_up.then_some(name)
    }
}

/// Everything that is known of one container, apart from its environment, which holds secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDetail {
    /// The daemon's full container ID.
    pub id: String,
    /// The name, without the daemon's leading slash.
    pub name: String,
    /// The image that it was made from; equals the ID that inspecting the right pin gives.
    pub image_id: Option<Digest>,
    /// The image reference that it was made with.
    pub image: String,
    /// Its labels.
    pub labels: Labels,
    /// What it is doing.
    pub state: ContainerState,
    /// The exit code of the last run; 0 while it runs for the first time.
    pub exit_code: i64,
    /// Whether the kernel killed it for its memory use.
    pub oom_killed: bool,
    /// Whether it has a memory limit of its own, so that only it can have used too much.
    pub has_memory_limit: bool,
    /// Whether its ports are the host's.
    pub shares_host_network: bool,
    /// The networks that it is attached to, sorted.
    pub networks: Vec<String>,
    /// The daemon's own complaint, when it could not start it.
    pub error: Option<String>,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When it last started, if ever.
    pub started_at: Option<DateTime<Utc>>,
    /// When it last ended, if ever.
    pub finished_at: Option<DateTime<Utc>>,
    /// How often the daemon has restarted it by its policy.
    pub restart_count: i64,
    /// When the daemon restarts it.
    pub restart_policy: RestartPolicy,
    /// Whether the image or the Compose file gives it a health check.
    pub has_health_check: bool,
    /// How its health check goes about it, if it has one.
    pub health_check: HealthCheck,
    /// The health check's state; absent until the container has started.
    pub health: Option<Health>,
    /// Its mounts.
    pub mounts: Vec<Mount>,
    /// What it has of other containers, each by ID or name.
    pub shares: Vec<(Shared, String)>,
}

#[cfg(test)]
impl ContainerDetail {
    /// A container in this state of which nothing else is known.
    pub fn of_test(state: ContainerState) -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            image_id: None,
            image: String::new(),
            labels: Labels::default(),
            state,
            exit_code: 0,
            oom_killed: false,
            has_memory_limit: false,
            shares_host_network: false,
            networks: Vec::new(),
            error: None,
            created_at: None,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            restart_policy: RestartPolicy::No,
            has_health_check: false,
            health_check: HealthCheck::default(),
            health: None,
            mounts: Vec::new(),
            shares: Vec::new(),
        }
    }
}

impl Docker {
    /// The containers that match, running or not, in one request.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>> {
        let mut filters = HashMap::new();
        if !filter.labels.is_empty() {
            filters.insert("label".to_owned(), filter.labels.clone());
        }
        self.list_containers(filters).await
    }

    /// The containers, whoever made them, that have the volume called `name`.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn containers_with_volume(&self, name: &str) -> Result<Vec<Container>> {
        self.list_containers(HashMap::from([("volume".to_owned(), vec![name.to_owned()])])).await
    }

    async fn list_containers(
        &self,
        filters: HashMap<String, Vec<String>>,
    ) -> Result<Vec<Container>> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list =
            self.answer("list the containers", self.client.list_containers(Some(options))).await?;
        Ok(list.into_iter().map(Container::from).collect())
    }

    /// One container; `None` if there is none of that ID or name.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn inspect_container(&self, id: &str) -> Result<Option<ContainerDetail>> {
        Ok(self.inspected(id).await?.map(ContainerDetail::from))
    }

    /// All that the daemon says of one container; `None` if there is none of that ID or name.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub(super) async fn inspected(&self, id: &str) -> Result<Option<ContainerInspectResponse>> {
        let request = async {
            match self.client.inspect_container(id, None::<InspectContainerOptions>).await {
                Ok(container) => Ok(Some(container)),
                Err(error) if is_not_found(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.answer(&format!("inspect the container {id}"), request).await
    }

    /// How the health check of an image goes about it; `None` if it has none, or is not here.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn image_health_check(&self, name: &str) -> Result<Option<HealthCheck>> {
        let request = async {
            match self.client.inspect_image(name).await {
                Ok(image) => Ok(image.config.and_then(|config| config.healthcheck)),
                Err(error) if is_not_found(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let check = self.answer(&format!("inspect the image {name}"), request).await?;
        Ok(check.filter(is_check).map(|check| health_check(&check)))
    }

    /// The matching containers in full: one list, then every container inspected in parallel.
    /// Those that vanish in between are left out. The order is that of the list.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn container_details(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<ContainerDetail>> {
        let found = self.containers(filter).await?;
        let requests: Vec<_> =
            found.iter().map(|container| self.inspect_container(&container.id)).collect();
        let details: Vec<_> =
            futures_util::stream::iter(requests).buffered(PARALLEL_REQUESTS).try_collect().await?;
        Ok(details.into_iter().flatten().collect())
    }
}

impl From<ContainerSummary> for Container {
    fn from(summary: ContainerSummary) -> Self {
        use ContainerSummaryStateEnum as State;
        // A legacy link gives a container a second name, `/other/alias`; its own has one slash.
        let names = summary.names.unwrap_or_default();
        let own =
            names.iter().find(|name| !name.trim_start_matches('/').contains('/')).or(names.first());
        Self {
            name: own.map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default(),
            id: summary.id.unwrap_or_default(),
            image_id: summary.image_id.and_then(|id| id.parse().ok()),
            image: summary.image.unwrap_or_default(),
            labels: labels(summary.labels),
            state: match summary.state {
                Some(State::CREATED) => ContainerState::Created,
                Some(State::RUNNING) => ContainerState::Running,
                Some(State::PAUSED) => ContainerState::Paused,
                Some(State::RESTARTING) => ContainerState::Restarting,
                Some(State::REMOVING) => ContainerState::Removing,
                Some(State::EXITED) => ContainerState::Exited,
                Some(State::DEAD) => ContainerState::Dead,
                _ => ContainerState::Unknown,
            },
        }
    }
}

impl From<ContainerInspectResponse> for ContainerDetail {
    fn from(answer: ContainerInspectResponse) -> Self {
        use ContainerStateStatusEnum as State;
        let state = answer.state.unwrap_or_default();
        let config = answer.config.unwrap_or_default();
        let host = answer.host_config.unwrap_or_default();
        let shares = shares(&host);
        let policy = host.restart_policy.and_then(|policy| policy.name);
        let check = config.healthcheck.unwrap_or_default();
        let networks = answer.network_settings.and_then(|settings| settings.networks);
        let mut networks: Vec<String> = networks.unwrap_or_default().into_keys().collect();
        networks.sort();
        Self {
            id: answer.id.unwrap_or_default(),
            name: answer
                .name
                .map(|name| name.trim_start_matches('/').to_owned())
                .unwrap_or_default(),
            image_id: answer.image.and_then(|id| id.parse().ok()),
            image: config.image.unwrap_or_default(),
            labels: labels(config.labels),
            state: match state.status {
                Some(State::CREATED) => ContainerState::Created,
                Some(State::RUNNING) => ContainerState::Running,
                Some(State::PAUSED) => ContainerState::Paused,
                Some(State::RESTARTING) => ContainerState::Restarting,
                Some(State::REMOVING) => ContainerState::Removing,
                Some(State::EXITED) => ContainerState::Exited,
                Some(State::DEAD) => ContainerState::Dead,
                _ => ContainerState::Unknown,
            },
            exit_code: state.exit_code.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            has_memory_limit: host.memory.is_some_and(|limit| limit > 0),
            shares_host_network: host.network_mode.as_deref() == Some("host"),
            networks,
            error: state.error.filter(|text| !text.is_empty()).map(|text| display_safe(&text)),
            created_at: answer.created.as_deref().and_then(moment),
            started_at: state.started_at.as_deref().and_then(moment),
            finished_at: state.finished_at.as_deref().and_then(moment),
            restart_count: answer.restart_count.unwrap_or_default(),
            restart_policy: restart_policy(policy),
            health_check: health_check(&check),
            has_health_check: is_check(&check),
            health: state.health.and_then(health),
            mounts: answer.mounts.unwrap_or_default().into_iter().map(Mount::from).collect(),
            shares,
        }
    }
}

impl From<MountPoint> for Mount {
    fn from(point: MountPoint) -> Self {
        Self {
            kind: match point.typ.as_deref() {
                Some("bind") => MountKind::Bind,
                Some("volume") => MountKind::Volume,
                _ => MountKind::Other,
            },
            volume: point.name.filter(|name| !name.is_empty()),
            source: point.source.unwrap_or_default(),
            destination: point.destination.unwrap_or_default(),
            writable: point.rw.unwrap_or_default(),
        }
    }
}

/// What a container has of others: `container:NAME`, or for volumes `NAME:MODE`.
pub(super) fn shares(host: &HostConfig) -> Vec<(Shared, String)> {
    let modes = [
        (Shared::Network, &host.network_mode),
        (Shared::Ipc, &host.ipc_mode),
        (Shared::Pid, &host.pid_mode),
    ];
    let namespaces = modes.into_iter().filter_map(|(what, mode)| {
        Some((what, mode.as_deref()?.strip_prefix("container:")?.to_owned()))
    });
    let volumes = host
        .volumes_from
        .iter()
        .flatten()
        .filter_map(|from| Some((Shared::Volumes, from.split(':').next()?.to_owned())));
    namespaces.chain(volumes).collect()
}

fn labels(labels: Option<HashMap<String, String>>) -> Labels {
    Labels(labels.unwrap_or_default().into_iter().collect())
}

fn restart_policy(name: Option<bollard::models::RestartPolicyNameEnum>) -> RestartPolicy {
    use bollard::models::RestartPolicyNameEnum as Name;
    match name {
        Some(Name::ALWAYS) => RestartPolicy::Always,
        Some(Name::UNLESS_STOPPED) => RestartPolicy::UnlessStopped,
        Some(Name::ON_FAILURE) => RestartPolicy::OnFailure,
        Some(Name::EMPTY | Name::NO) | None => RestartPolicy::No,
    }
}

/// Whether a health check is more than the word that there is none.
fn is_check(check: &bollard::models::HealthConfig) -> bool {
    check.test.as_ref().and_then(|words| words.first()).is_some_and(|kind| kind != "NONE")
}

/// What the container's configuration says; zero means the daemon's default there.
fn health_check(check: &bollard::models::HealthConfig) -> HealthCheck {
    let positive = |nanoseconds: Option<i64>| {
        let time = nanoseconds.and_then(|time| u64::try_from(time).ok()).filter(|time| *time > 0);
        time.map(Duration::from_nanos)
    };
    let default = HealthCheck::default();
    let retries = check.retries.and_then(|count| u32::try_from(count).ok());
    HealthCheck {
        interval: positive(check.interval).unwrap_or(default.interval),
        timeout: positive(check.timeout).unwrap_or(default.timeout),
        start_period: positive(check.start_period).unwrap_or(default.start_period),
        retries: retries.filter(|count| *count > 0).unwrap_or(default.retries),
    }
}

fn health(health: bollard::models::Health) -> Option<Health> {
    let status = match health.status? {
        HealthStatusEnum::STARTING => HealthStatus::Starting,
        HealthStatusEnum::HEALTHY => HealthStatus::Healthy,
        HealthStatusEnum::UNHEALTHY => HealthStatus::Unhealthy,
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => return None,
    };
    let last = health.log.unwrap_or_default().pop().map(|probe| HealthProbe {
        exit_code: probe.exit_code.unwrap_or_default(),
        output: display_safe(probe.output.unwrap_or_default().trim()),
        ended_at: probe.end.as_deref().and_then(moment),
    });
    Some(Health { status, failing_streak: health.failing_streak.unwrap_or_default(), last })
}

/// The daemon's time stamp; its zero value, `0001-01-01T00:00:00Z`, means never.
pub(super) fn moment(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    (time.timestamp() > 0).then_some(time)
}
