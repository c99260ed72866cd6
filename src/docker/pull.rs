//! Pulling images: the stream to its end, what went wrong by its words, and the proof afterwards.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as ClientError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::Docker;
use super::failure::{self, display_safe};
use crate::error::{self, Error};
use crate::model::reference::{Digest, Platform, Repository, Tag};

/// What to pull from a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullTarget {
    /// Exactly these bytes, of a manifest or an index.
    Digest(Digest),
    /// Whatever the tag names when the daemon asks.
    Tag(Tag),
}

/// Credentials for one registry, as the user's Docker configuration gives them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The account; empty with an identity token.
    pub username: String,
    /// Its password or token.
    pub password: String,
    /// An OAuth2 refresh token that stands in for both.
    pub identity_token: Option<String>,
    /// The registry as the configuration names it.
    pub server_address: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} at {}, ***)", self.username, self.server_address)
    }
}

/// One image to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Where from.
    pub repository: Repository,
    /// What.
    pub target: PullTarget,
    /// For which platform; the daemon's own if absent.
    pub platform: Option<Platform>,
    /// How to log in, if at all.
    pub credentials: Option<Credentials>,
}

impl PullRequest {
    /// The reference that is pulled: `repository@digest` or `repository:tag`.
    #[must_use]
    pub fn reference(&self) -> String {
        match &self.target {
            PullTarget::Digest(digest) => self.repository.with_digest(digest),
            PullTarget::Tag(tag) => self.repository.with_tag(tag),
        }
    }
}

/// Where a layer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// Known, not begun.
    Waiting,
    /// Coming over the network; bytes.
    Downloading {
        /// Arrived so far.
        current: u64,
        /// In all, when the registry said so.
        total: Option<u64>,
    },
    /// The registry failed; the daemon will ask it again by itself.
    Retrying,
    /// Being hashed.
    Verifying,
    /// Arrived.
    Downloaded,
    /// Being unpacked; compressed bytes.
    Extracting {
        /// Unpacked so far.
        current: u64,
        /// In all, when known.
        total: Option<u64>,
    },
    /// Unpacked.
    Complete,
    /// Local already.
    Exists,
}

/// A sign of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// A layer's news.
    Layer {
        /// The daemon's short ID of the layer.
        id: String,
        /// Where it is.
        state: LayerState,
    },
    /// The digest that the daemon resolved the target to.
    Digest(Digest),
    /// Anything else it says, fit for a terminal.
    Message(String),
}

/// Why a pull failed, for callers that try again or try differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullFailure {
    /// The registry has no such repository, tag or digest, or does not admit to it.
    NotFound,
    /// The registry refuses these credentials, or wants some.
    Denied,
    /// Too many requests.
    RateLimited,
    /// The image exists, but not for this platform.
    WrongPlatform,
    /// The bytes do not match their digest, or are no image.
    Corrupt,
    /// What the name names is no image: a chart, an artifact, an index of nothing.
    NoImage,
    /// The registry's certificate is not trusted.
    Untrusted,
    /// The registry could not be reached or broke off.
    Unreachable,
    /// The registry stopped sending.
    Stalled,
    /// The registry said something that fits none of these.
    Registry,
    /// The daemon's disk is full.
    DiskFull,
    /// The daemon failed, died or fell silent.
    Daemon,
}

/// A failed pull: the reference, with the cause as its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {reference}")]
pub struct PullError {
    reference: String,
    failure: PullFailure,
    source: Error,
}

/// Why a pull failed, if that is what `error` is about.
#[must_use]
pub fn pull_failure(error: &anyhow::Error) -> Option<PullFailure> {
    error.chain().find_map(|cause| cause.downcast_ref::<PullError>()).map(|error| error.failure)
}

impl Docker {
    /// Pulls an image, telling `on_event` of every step. Succeeds when the daemon's stream came to
    /// its proper end without an error; what is local then is for the caller to check.
    ///
    /// # Errors
    /// A [`PullError`] with a source of kind Registry or Docker, whoever failed.
    pub async fn pull(
        &self,
        request: &PullRequest,
        on_event: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<()> {
        self.stream_pull(request, on_event).await.map_err(|error| request.failed(error).into())
    }

    async fn stream_pull(
        &self,
        request: &PullRequest,
        on_event: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<(), (PullFailure, Error)> {
        let patience = self.deadlines.pull_idle;
        let what = match &request.target {
            PullTarget::Digest(digest) => digest.as_str(),
            PullTarget::Tag(tag) => tag.as_str(),
        };
        let mut options =
            CreateImageOptionsBuilder::new().from_image(request.repository.as_written()).tag(what);
        if let Some(platform) = &request.platform {
            options = options.platform(&platform.to_string());
        }
        let credentials = request.credentials.as_ref().map(Credentials::for_daemon);
        // The deadline below is the one that counts; bollard's own must not come before it.
        let client = self.client.clone().with_timeout(Duration::from_secs(24 * 60 * 60));
        let mut stream =
            std::pin::pin!(client.create_image(Some(options.build()), None, credentials));

        let started = Instant::now();
        let mut layers = Layers::default();
        let refusal = loop {
            // Progress of any pull counts for all: the daemon downloads a few layers at a time and
            // lets the others wait in silence.
            let deadline = started.max(*self.pull_progress.borrow()) + patience;
            let info = match tokio::time::timeout_at(deadline, stream.next()).await {
                Ok(Some(Ok(info))) if info.error_detail.is_none() => info,
                Ok(Some(Ok(_))) => {
                    break ClientError::DockerStreamError {
                        error: "the daemon gave no reason".to_owned(),
                    };
                }
                Ok(Some(Err(error))) => break error,
                Ok(None) => return Ok(()),
                Err(_) if started.max(*self.pull_progress.borrow()) + patience > deadline => {
                    continue;
                }
                Err(_) => return Err(self.stalled(request, patience).await),
            };
            let Some(event) = PullEvent::parse(info) else { continue };
            // The daemon counts down while it waits for a failing registry: a sign of life, not of
            // progress.
            if !matches!(event, PullEvent::Layer { state: LayerState::Retrying, .. }) {
                self.pull_progress.send_replace(Instant::now());
            }
            layers.note(&event);
            on_event(event);
        };
        let (failure, error) = self.pull_error(request, &refusal).await;
        // The daemon says which layer only where a digest is wrong.
        match layers.unfinished().filter(|_| failure == PullFailure::Corrupt) {
            Some(layer) if !error.to_string().contains(layer) => {
                let named = Error::new(error.kind(), format!("{error} (layer {layer})"));
                Err((failure, named.with_hint(failure.hint(request.repository.host()))))
            }
            _ => Err((failure, error)),
        }
    }

    /// Whose fault it is that nothing moves: the daemon's if it does not even greet back.
    async fn stalled(&self, request: &PullRequest, patience: Duration) -> (PullFailure, Error) {
        match tokio::time::timeout(self.deadlines.connect, self.client.ping()).await {
            Ok(Ok(_)) => {
                let host = request.repository.host();
                let message =
                    format!("nothing has come from {host} for {} s", patience.as_secs_f64().ceil());
                (
                    PullFailure::Stalled,
                    error::registry(message).with_hint(PullFailure::Stalled.hint(host)),
                )
            }
            Ok(Err(error)) => self.pull_error(request, &error).await,
            Err(_) => (PullFailure::Daemon, failure::silent(&self.endpoint, patience)),
        }
    }

    async fn pull_error(&self, request: &PullRequest, error: &ClientError) -> (PullFailure, Error) {
        let message = match error {
            ClientError::DockerResponseServerError { message, .. }
            | ClientError::DockerStreamError { error: message } => message,
            _ => {
                return (
                    PullFailure::Daemon,
                    failure::explain(&self.endpoint, "pull", error, self.deadlines.pull_idle),
                );
            }
        };
        let failure = PullFailure::of(message, &request.repository);
        let text = display_safe(message);
        let error = match failure {
            PullFailure::Daemon => {
                error::docker(format!("the daemon at {} failed: {text}", self.endpoint))
            }
            PullFailure::DiskFull => {
                let root = self
                    .root_dir()
                    .await
                    .map_or_else(|_| "its images".to_owned(), |path| path.display().to_string());
                error::docker(format!(
                    "the disk on which the daemon at {} keeps {root} is full: {text}",
                    self.endpoint
                ))
            }
            _ => error::registry(format!("{}: {text}", request.repository.host())),
        };
        (failure, error.with_hint(failure.hint(request.repository.host())))
    }
}

/// The layers of one pull, lowest first, and whether each has come to its end.
#[derive(Default)]
struct Layers(Vec<(String, bool)>);

impl Layers {
    fn note(&mut self, event: &PullEvent) {
        let PullEvent::Layer { id, state } = event else { return };
        let is_done = matches!(state, LayerState::Complete | LayerState::Exists);
        match self.0.iter_mut().find(|(known, _)| known == id) {
            Some((_, done)) => *done = is_done,
            None => self.0.push((id.clone(), is_done)),
        }
    }

    /// The lowest that is not unpacked: the daemon unpacks them in their order.
    fn unfinished(&self) -> Option<&str> {
        self.0.iter().find(|(_, is_done)| !is_done).map(|(id, _)| id.as_str())
    }
}

impl PullRequest {
    fn failed(&self, (failure, source): (PullFailure, Error)) -> PullError {
        PullError { reference: self.reference(), failure, source }
    }
}

impl Credentials {
    fn for_daemon(&self) -> DockerCredentials {
        DockerCredentials {
            username: unless_empty(&self.username),
            password: unless_empty(&self.password),
            identitytoken: self.identity_token.clone(),
            serveraddress: unless_empty(&self.server_address),
            ..DockerCredentials::default()
        }
    }
}

fn unless_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl PullFailure {
    /// What the operator can do about it.
    fn hint(self, host: &str) -> String {
        match self {
            Self::NotFound => format!("check the image's name and its tag or digest in {host}"),
            Self::Denied if host == "public.ecr.aws" || host.ends_with(".amazonaws.com") => {
                "check the image's name, and log in with `dkv ecr-login`".to_owned()
            }
            Self::Denied => {
                format!("check the image's name, and log in with `docker login {host}`")
            }
            Self::RateLimited => {
                format!("wait a little and try again, or log in to {host} for a higher limit")
            }
            Self::WrongPlatform => {
                "ask the vendor for an image for this machine's platform".to_owned()
            }
            Self::Corrupt => {
                "what arrived is not what was asked for; nothing of it is used. Try again; if it \
                    stays so, whoever published the image has to push it again"
                    .to_owned()
            }
            Self::NoImage => {
                "it may be a chart or another artifact: check the image's name and its tag"
                    .to_owned()
            }
            Self::Untrusted => {
                format!(
                    "give the daemon's machine the registry's certificate authority: \
                        /etc/docker/certs.d/{host}/ca.crt"
                )
            }
            Self::Unreachable => format!(
                "check that the daemon's machine reaches {host} (network, DNS, proxy), and try \
                    again"
            ),
            Self::Stalled => "the registry or the network is too slow: try again".to_owned(),
            Self::DiskFull => "make room; `docker system df` shows what is there".to_owned(),
            Self::Registry => {
                "try again; if it stays so, ask those who run the registry".to_owned()
            }
            Self::Daemon => "see what the daemon logged: `journalctl -u docker`".to_owned(),
        }
    }

    /// The meaning of the daemon's words. Its HTTP status is no help: a rate limit arrives as 500,
    /// an expired token as 404, a wrong digest as 200 with an error at the end of the stream.
    fn of(message: &str, repository: &Repository) -> Self {
        const MEANINGS: [(PullFailure, &[&str]); 12] = [
            (PullFailure::DiskFull, &["no space left on device", "disk quota exceeded"]),
            (
                PullFailure::Daemon,
                &["containerd.sock", "read-only file system", "input/output error"],
            ),
            (
                PullFailure::Corrupt,
                &[
                    "layers from manifest don't match",
                    "wrong diff id calculated",
                    "mismatched image rootfs",
                    "invalid rootfs in image config",
                ],
            ),
            (
                PullFailure::NoImage,
                &[
                    "when fetching 'image'",
                    "encountered remote \"",
                    "unsupported media type",
                    "unsupported manifest",
                    "invalid mediatype",
                    "unsupported mediatype",
                    "unsupported schema version",
                ],
            ),
            (
                PullFailure::RateLimited,
                &["toomanyrequests", "too many requests", "rate limit", "rate exceeded"],
            ),
            (
                PullFailure::WrongPlatform,
                &[
                    "no matching manifest for",
                    "no match for platform",
                    "does not match the specified platform",
                ],
            ),
            (
                PullFailure::Corrupt,
                &[
                    "verification failed",
                    "unexpected commit digest",
                    "digest mismatch",
                    "unexpected size",
                ],
            ),
            (
                PullFailure::Untrusted,
                &["x509:", "tls: ", "server gave http response to https client"],
            ),
            (
                PullFailure::Denied,
                &[
                    "pull access denied",
                    "access to the resource is denied",
                    "unauthorized",
                    "authentication required",
                    "authorization token has expired",
                    "no basic auth credentials",
                    "denied: ",
                    "forbidden",
                    "http status: 401",
                    "http status: 403",
                ],
            ),
            (
                PullFailure::NotFound,
                &["manifest unknown", "name unknown", "not found", "does not exist"],
            ),
            (
                PullFailure::Unreachable,
                &[
                    "connection refused",
                    "connection reset",
                    "no such host",
                    "timeout",
                    "deadline exceeded",
                    "unreachable",
                    "no route to host",
                    "server misbehaving",
                    "eof",
                    "received unexpected http status: 5",
                    "broken pipe",
                    "dial tcp",
                ],
            ),
            (PullFailure::Daemon, &["daemon is shutting down", "permission denied"]),
        ];
        // The image's own name may read like a cause: `acme/timeout-service`.
        let words = message.split_whitespace().filter(|word| !names_image(word, repository));
        let message = words.collect::<Vec<_>>().join(" ").to_lowercase();
        let says = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
        let meaning = MEANINGS.iter().find(|(_, signs)| says(signs));
        if says(&["failed to register layer", "failed to extract layer"]) {
            // Unpacking is the daemon's work, and a full disk its host's fault; but bytes that had
            // the right digest and are no archive came so from the registry.
            return match meaning {
                Some((failure @ (Self::DiskFull | Self::Daemon | Self::Corrupt), _)) => *failure,
                _ if says(NO_ARCHIVE) => Self::Corrupt,
                _ => Self::Daemon,
            };
        }
        meaning.map_or(Self::Registry, |(failure, _)| *failure)
    }
}

/// What the daemon says of a layer that is no archive, or not a whole one.
const NO_ARCHIVE: &[&str] = &[
    "archive/tar: ",
    "eof",
    "gzip: ",
    "flate: corrupt",
    "zstd: ",
    "magic number mismatch",
    "invalid header",
    "not a tar",
    "breakout",
    "invalid symlink",
    "invalid hardlink",
];

/// Whether a word of a message is the image's name or an address that contains it.
fn names_image(word: &str, repository: &Repository) -> bool {
    let bare =
        word.trim_start_matches(['"', '\'', '`']).split([':', '@', ',', '"', '\'', '`']).next();
    bare == Some(repository.base_name())
        || word.contains(repository.host())
        || (repository.path().contains('/') && word.contains(repository.path()))
}

impl PullEvent {
    /// The event in a line of the daemon's stream, if there is any news in it.
    fn parse(info: CreateImageInfo) -> Option<Self> {
        let status = info.status?;
        let progress = info.progress_detail.unwrap_or_default();
        let current =
            progress.current.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        let total =
            progress.total.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
        let state = match status.as_str() {
            "Pulling fs layer" | "Waiting" => LayerState::Waiting,
            "Downloading" => LayerState::Downloading { current, total },
            "Verifying Checksum" => LayerState::Verifying,
            "Download complete" => LayerState::Downloaded,
            "Extracting" => LayerState::Extracting { current, total },
            "Pull complete" => LayerState::Complete,
            "Already exists" => LayerState::Exists,
            retrying if retrying.starts_with("Retrying in ") => LayerState::Retrying,
            other => {
                return Some(
                    match other.strip_prefix("Digest: ").and_then(|digest| digest.parse().ok()) {
                        Some(digest) => Self::Digest(digest),
                        None => Self::Message(display_safe(other)),
                    },
                );
            }
        };
        Some(Self::Layer { id: display_safe(&info.id?), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Engine 20.10 says, word for word apart from the names.
    #[test]
    fn the_daemons_words_are_understood() {
        use PullFailure::*;
        for (repository, message, failure) in [
            (
                "a",
                "pull access denied for a, repository does not exist or may require 'docker \
                    login': denied: requested access",
                Denied,
            ),
            (
                "127.0.0.1:5000/a",
                "Head \"http://127.0.0.1:5000/v2/a/manifests/1\": no basic auth credentials",
                Denied,
            ),
            (
                "h:5/a",
                "denied: Your authorization token has expired. Reauthenticate and try again.",
                Denied,
            ),
            ("h:5/a", "unauthorized: authentication required", Denied),
            ("h:5/a", "received unexpected HTTP status: 403 Forbidden", Denied),
            (
                "denied",
                "manifest for denied:1 not found: manifest unknown: manifest unknown",
                NotFound,
            ),
            (
                "h:5/forbidden/x",
                "manifest for h:5/forbidden/x:1 not found: manifest unknown: manifest unknown",
                NotFound,
            ),
            ("h:5/a", "toomanyrequests: Rate exceeded", RateLimited),
            (
                "h:5/a",
                "no matching manifest for linux/amd64 in the manifest list entries",
                WrongPlatform,
            ),
            ("h:5/a", "filesystem layer verification failed for digest sha256:00", Corrupt),
            ("h:5/a", "manifest verification failed for digest sha256:00", Corrupt),
            (
                "h:5/a",
                "Get \"https://h:5/v2/\": x509: certificate signed by unknown authority",
                Untrusted,
            ),
            (
                "h:5/a",
                "Get \"https://h:5/v2/\": http: server gave HTTP response to HTTPS client",
                Untrusted,
            ),
            ("h:5/a", "Get \"https://h:5/v2/\": dial tcp: lookup h: no such host", Unreachable),
            ("h:5/a", "Get \"https://h:5/v2/\": net/http: TLS handshake timeout", Unreachable),
            ("h:5/a", "Get \"https://h:5/v2/\": EOF", Unreachable),
            ("h:5/a", "received unexpected HTTP status: 503 Service Unavailable", Unreachable),
            ("h:5/a", "something new", Registry),
            ("h:5/timeout", "something new about h:5/timeout", Registry),
            ("h:5/a", "write /var/lib/docker/tmp/GetImageBlob1: no space left on device", DiskFull),
            (
                "h:5/a",
                "failed to register layer: Error processing tar file(exit status 1): unexpected \
                    EOF",
                Corrupt,
            ),
            (
                "h:5/a",
                "failed to register layer: Error processing tar file(exit status 1): archive/tar: \
                    invalid tar header",
                Corrupt,
            ),
            (
                "h:5/a",
                "failed to register layer: Error processing tar file(exit status 1): operation not \
                    permitted",
                Daemon,
            ),
            (
                "h:5/a",
                "failed to register layer: Error processing tar file(exit status 1): write \
                    /bin/x: no space left on device",
                DiskFull,
            ),
            ("h:5/a", "failed to register layer: rename a b: input/output error", Daemon),
            ("h:5/a", "layers from manifest don't match image configuration", Corrupt),
            (
                "h:5/a",
                "Encountered remote \"application/vnd.cncf.helm.config.v1+json\"(unknown) when \
                    fetching",
                NoImage,
            ),
            (
                "h:5/a",
                "failed to extract layer sha256:00: archive/tar: invalid tar header: unknown",
                Corrupt,
            ),
            (
                "h:5/a",
                "failed commit on ref \"layer-sha256:00\": unexpected commit digest sha256:11, \
                    expected sha256:00: failed precondition",
                Corrupt,
            ),
        ] {
            let repository = repository.parse().unwrap();
            assert_eq!(PullFailure::of(message, &repository), failure, "{repository}: {message}");
        }
    }
}
