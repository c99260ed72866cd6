//! The Docker daemon: the only module that knows bollard.
//!
//! [`Endpoint`] says which daemon and how the user chose it, [`Docker`] talks to it. Every request
//! has a deadline for silence; every failure says which daemon it was and what to do about it. What
//! a pull's HTTP status says is not trusted: only the stream to its end, then an inspection.

mod again;
mod container;
mod endpoint;
mod failure;
mod image;
mod pull;
mod stream;
mod transport;
mod volume;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

pub use again::Blueprint;
#[cfg(test)]
pub use container::Health;
pub use container::{
    Container, ContainerDetail, ContainerFilter, ContainerState, HealthCheck, HealthProbe,
    HealthStatus, Labels, RestartPolicy, Shared,
};
pub use endpoint::{Endpoint, Settings};
pub use image::{Image, ImageList, ListedImage, Untagged, fingerprint_of_configuration};
pub use pull::{
    Credentials, LayerState, PullEvent, PullFailure, PullRequest, PullTarget, pull_failure,
};
pub use stream::{Action, Event, LogOptions};
pub use volume::Kept;

use crate::model::image_store::ImageStore;
use crate::model::reference::Platform;
use failure::{display_safe, is_not_found, status};

/// How many requests to the daemon are under way at once where many are needed.
pub const PARALLEL_REQUESTS: usize = 8;

/// What a daemon calls the driver of its images where containerd has them.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

/// How long the daemon may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until a request is answered.
    pub idle: Duration,
    /// Between two signs of progress of the pulls under way. Longer, because the daemon waits by
    /// itself before it asks a failing registry again.
    pub pull_idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            pull_idle: Duration::from_secs(120),
        }
    }
}

/// What a daemon says about itself and its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What tells it from others, however it is reached: its own ID, its machine's name, and where
    /// it keeps what it has.
    pub identity: Option<String>,
    /// What its images run on, in the words of image indexes.
    pub platform: Platform,
    /// Where it keeps images and volumes, on its own machine.
    pub root_dir: PathBuf,
    /// Where it asks first for what is on Docker Hub: addresses.
    pub mirrors: Vec<String>,
    /// The first number of its version.
    pub major_version: Option<u32>,
    /// Where its images are.
    pub image_store: ImageStore,
}

/// A connection to a Docker daemon; cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    client: bollard::Docker,
    endpoint: Arc<Endpoint>,
    deadlines: Deadlines,
    host: Arc<OnceCell<Host>>,
    /// When a pull over this connection last made progress.
    pull_progress: watch::Sender<Instant>,
}

impl Docker {
    /// Connects, makes sure that a daemon answers, and agrees on the API version: the daemon's own
    /// newest, as far as this build knows it, unless the user has fixed one.
    ///
    /// # Errors
    /// Kind Docker, with a hint that fits: the daemon is absent, the user may not use its socket,
    /// the variable or context that names it is wrong, or both sides have no API version in common.
    pub async fn connect(endpoint: Endpoint, deadlines: Deadlines) -> Result<Self> {
        let (client, spoken) = transport::client(&endpoint, deadlines)?;
        let pull_progress = watch::Sender::new(Instant::now());
        let docker = Self {
            client,
            endpoint: Arc::new(endpoint),
            deadlines,
            host: Arc::default(),
            pull_progress,
        };
        docker.greet().await?;
        match spoken.get() {
            Some(theirs) if *theirs < endpoint::OLDEST => {
                Err(failure::too_old(&docker.endpoint, *theirs).into())
            }
            _ => Ok(docker),
        }
    }

    /// Whether the daemon answers at all.
    ///
    /// # Errors
    /// Kind Docker: it does not.
    pub async fn greet(&self) -> Result<()> {
        self.answer("greet the daemon", self.client.ping()).await.map(drop)
    }

    /// The daemon that this is connected to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the daemon says about itself; asked once, then remembered.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn host(&self) -> Result<&Host> {
        self.host
            .get_or_try_init(|| async {
                let info = self.answer("describe itself", self.client.info()).await?;
                let version = info.server_version.unwrap_or_default();
                let store = info.driver_status.unwrap_or_default();
                // All daemons of a machine have one ID, and a copied machine has a copied one.
                let place = info.name.zip(info.docker_root_dir.as_ref());
                let identity = info.id.zip(place);
                let identity = identity.map(|(id, (name, root))| format!("{id} {name} {root}"));
                Ok(Host {
                    identity,
                    major_version: version.split('.').next().and_then(|major| major.parse().ok()),
                    image_store: match store.iter().flatten().any(|word| word == SNAPSHOTTER) {
                        true => ImageStore::Containerd,
                        false => ImageStore::Classic,
                    },
                    platform: platform(info.os_type.as_deref(), info.architecture.as_deref()),
                    root_dir: info.docker_root_dir.unwrap_or_default().into(),
                    mirrors: info
                        .registry_config
                        .and_then(|registries| registries.mirrors)
                        .unwrap_or_default(),
                })
            })
            .await
    }

    /// What the daemon's images run on.
    ///
    /// # Errors
    /// As [`Docker::host`].
    pub async fn platform(&self) -> Result<&Platform> {
        Ok(&self.host().await?.platform)
    }

    /// Where the daemon keeps images and volumes, on its own machine.
    ///
    /// # Errors
    /// As [`Docker::host`].
    pub async fn root_dir(&self) -> Result<&Path> {
        Ok(&self.host().await?.root_dir)
    }

    /// Waits for one whole answer, no longer than the idle deadline. `what` completes "the daemon
    /// could not …".
    async fn answer<T>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.deadlines.idle, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(failure::explain(&self.endpoint, what, &error, self.deadlines.idle).into())
            }
            Err(_) => Err(failure::silent(&self.endpoint, self.deadlines.idle).into()),
        }
    }
}

/// How long a daemon on this host may take to say which mirrors it has.
const MIRRORS_WITHIN: Duration = Duration::from_secs(2);

/// The daemon that `settings` mean, connected when somebody first asks.
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    docker: OnceCell<Docker>,
}

impl Connection {
    /// Not connected yet.
    #[must_use]
    pub fn to(settings: Settings) -> Self {
        Self { settings, docker: OnceCell::new() }
    }

    /// The daemon.
    ///
    /// # Errors
    /// As [`Docker::connect`].
    pub async fn docker(&self) -> Result<&Docker> {
        let connect = async || {
            Docker::connect(Endpoint::resolve(&self.settings)?, Deadlines::default()).await
        };
        self.docker.get_or_try_init(connect).await
    }

    /// The mirrors of Docker Hub that the daemon of this host uses; none where there is no daemon,
    /// where it does not answer soon, or where it is on another host, whose mirrors may not be
    /// reached from here.
    pub async fn mirrors(&self) -> Vec<String> {
        let found = async {
            if !Endpoint::resolve(&self.settings)?.is_local() {
                return Ok(Vec::new());
            }
            Ok::<_, anyhow::Error>(self.docker().await?.host().await?.mirrors.clone())
        };
        match tokio::time::timeout(MIRRORS_WITHIN, found).await {
            Ok(Ok(mirrors)) => mirrors,
            Ok(Err(error)) => {
                tracing::debug!("mirrors of Docker Hub are not known: {error:#}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

/// The platform in the words of image indexes, from the words of `uname`.
fn platform(os: Option<&str>, machine: Option<&str>) -> Platform {
    let (architecture, variant) = match machine.unwrap_or_default() {
        "x86_64" => ("amd64", None),
        "i386" | "i486" | "i586" | "i686" => ("386", None),
        "aarch64" => ("arm64", None),
        "armv5l" | "armv5tel" => ("arm", Some("v5")),
        "armv6l" => ("arm", Some("v6")),
        "armv7l" | "armv8l" => ("arm", Some("v7")),
        other => (other, None),
    };
    Platform {
        os: os.unwrap_or("linux").to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
    }
}

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;
