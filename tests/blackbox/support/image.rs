//! Images built without a base image: busybox in one layer, a file `/version` in another.

use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Engine, TEST_LABEL, program};

/// The label of an image of several platforms that says for which one it is.
pub(super) const ARCHITECTURE_LABEL: &str = "dkv.test.architecture";

/// Runs until SIGTERM and then stops at once, with exit code 0.
pub(super) const SERVE: &str =
    "trap 'exit 0' TERM INT; echo serving $(cat /version); while :; do sleep 3600 & wait $!; done";

/// Applets that scripts in the images use.
const APPLETS: [&str; 20] = [
    "sh", "cat", "echo", "sleep", "true", "false", "test", "date", "kill", "ls", "env", "id",
    "touch", "rm", "mkdir", "httpd", "wget", "tar", "head", "seq",
];

/// Versions whose layers the machine's daemon has before the first test, as it has busybox: it
/// starts a process to unpack a layer. What makes their images differ is their configuration.
pub(super) const USUAL: [&str; 8] = ["1", "2", "3", "one", "two", "1.0", "1.42", "db"];

/// What an image's health check does. Probes start one interval after the container.
#[derive(Clone, Copy, Debug)]
pub enum Health {
    Passing,
    /// Never passes; says `no database`.
    Failing,
    /// Passes from this probe on (counted from 1); the failures before are inside the start period.
    FromProbe(u32),
    /// Passes for this many probes, then fails for as many, and so on; one failure is unhealthy.
    Flapping(u32),
}

/// An image to push: by default a Docker schema 2 manifest for amd64 whose container runs until it
/// is stopped.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) repository: String,
    pub(super) tags: Vec<String>,
    version: Option<String>,
    command: Vec<String>,
    health: Option<Health>,
    volume: Option<String>,
    health_interval_ms: u64,
    start_period_s: Option<u64>,
    labels: Vec<(String, String)>,
    platforms: Option<Vec<String>>,
    annotations: Vec<(String, String)>,
    payload: usize,
    last_layer: Option<Vec<u8>>,
    oci: bool,
}

impl Image {
    /// `repository` is relative to the registry's namespace.
    pub fn new(repository: &str) -> Self {
        Self {
            repository: repository.into(),
            tags: Vec::new(),
            version: None,
            command: vec!["/bin/sh".into(), "-c".into(), SERVE.into()],
            health: None,
            volume: None,
            health_interval_ms: 800,
            start_period_s: None,
            labels: Vec::new(),
            platforms: None,
            annotations: Vec::new(),
            payload: 0,
            last_layer: None,
            oci: false,
        }
    }

    /// Adds a tag; the first one is also what `/version` says, unless [`Image::version`] does.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Text of `/version` in the image. Another version is another digest under the same tag.
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Runs `script` with `/bin/sh -c` instead of serving.
    pub fn script(mut self, script: &str) -> Self {
        self.command = vec!["/bin/sh".into(), "-c".into(), script.into()];
        self
    }

    /// Exits with `code` after printing a line to standard error.
    pub fn crashing(self, code: u8) -> Self {
        self.script(&format!("echo 'cannot start: no configuration' >&2; exit {code}"))
    }

    /// Exits with 0 at once, as a migration does.
    pub fn one_shot(self) -> Self {
        self.script("echo migrated to $(cat /version)")
    }

    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// Declares a volume at this path, as databases' images do.
    pub fn volume(mut self, path: &str) -> Self {
        self.volume = Some(path.into());
        self
    }

    /// Time between two health probes; each costs the daemon some 50 ms. Default 800 ms.
    pub fn health_interval_ms(mut self, interval: u64) -> Self {
        self.health_interval_ms = interval;
        self
    }

    /// How long failures do not count after a start.
    pub fn start_period_s(mut self, seconds: u64) -> Self {
        self.start_period_s = Some(seconds);
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Makes it an index with one image for each of these architectures (`amd64`, `arm64`).
    pub fn platforms(mut self, architectures: &[&str]) -> Self {
        self.platforms = Some(architectures.iter().map(|name| (*name).into()).collect());
        self
    }

    /// An annotation on the index: another index digest, the same platform digests.
    pub fn index_annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.into(), value.into()));
        self
    }

    /// Adds incompressible bytes, so that a pull takes time.
    pub fn payload(mut self, bytes: usize) -> Self {
        self.payload = bytes;
        self
    }

    /// Adds a last layer of these bytes, whatever they are; their digest is announced as it is.
    pub fn last_layer(mut self, bytes: &[u8]) -> Self {
        self.last_layer = Some(bytes.to_vec());
        self
    }

    /// OCI media types instead of Docker's.
    pub fn oci(mut self) -> Self {
        self.oci = true;
        self
    }

    /// Everything the registry must hold. The same image in the same namespace always has the same
    /// digests.
    pub(super) fn build(&self, namespace: &str) -> Built {
        let version =
            self.version.as_ref().or(self.tags.first()).map_or("unversioned", String::as_str);
        let mut layers = vec![base_layer().clone(), version_layer(namespace, version)];
        if self.payload > 0 {
            layers.push(payload_layer(
                self.payload,
                &format!("{namespace}/{}/{version}", self.repository),
            ));
        }
        if let Some(bytes) = &self.last_layer {
            let compressed = Blob::new(bytes.clone());
            layers.push(Layer { diff_id: compressed.digest.clone(), compressed });
        }
        let mut blobs: Vec<Blob> = layers.iter().map(|layer| layer.compressed.clone()).collect();
        let architectures = self.platforms.clone().unwrap_or_else(|| vec!["amd64".into()]);
        let mut images = Vec::new();
        for architecture in &architectures {
            let config = self.config(namespace, architecture, &layers).to_string().into_bytes();
            let config = Blob::new(config);
            let manifest = self.manifest(&config, &layers).to_string().into_bytes();
            images.push(PlatformImage {
                architecture: architecture.clone(),
                image_id: config.digest.clone(),
                manifest,
            });
            blobs.push(config);
        }
        let index = self.platforms.as_ref().map(|_| self.index(&images).to_string().into_bytes());
        Built {
            blobs,
            images,
            index,
            manifest_type: self.media_type("manifest"),
            index_type: self.media_type("index"),
        }
    }

    /// An archive for `docker load` that holds the amd64 image under `repository` with all tags.
    pub(super) fn archive(&self, namespace: &str, repository: &str) -> Vec<u8> {
        let built = self.build(namespace);
        let config = built.blobs.last().expect("a configuration");
        let layers = &built.blobs[..built.blobs.len() - built.images.len()];
        let names: Vec<String> =
            (0..layers.len()).map(|number| format!("{number}.tar.gz")).collect();
        let tags: Vec<String> = self.tags.iter().map(|tag| format!("{repository}:{tag}")).collect();
        let manifest =
            json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]).to_string();
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "manifest.json", manifest.as_bytes(), 0o644);
        append(&mut tar, "config.json", &config.bytes, 0o644);
        for (name, layer) in names.iter().zip(layers) {
            append(&mut tar, name, &layer.bytes, 0o644);
        }
        tar.into_inner().expect("writing to memory")
    }

    fn media_type(&self, what: &str) -> &'static str {
        match (self.oci, what) {
            (false, "manifest") => "application/vnd.docker.distribution.manifest.v2+json",
            (false, "index") => "application/vnd.docker.distribution.manifest.list.v2+json",
            (false, "config") => "application/vnd.docker.container.image.v1+json",
            (false, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (true, "manifest") => "application/vnd.oci.image.manifest.v1+json",
            (true, "index") => "application/vnd.oci.image.index.v1+json",
            (true, "config") => "application/vnd.oci.image.config.v1+json",
            (true, _) => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    fn config(&self, namespace: &str, architecture: &str, layers: &[Layer]) -> Value {
        let mut labels = serde_json::Map::from_iter([(TEST_LABEL.to_owned(), json!(namespace))]);
        if self.platforms.is_some() {
            labels.insert(ARCHITECTURE_LABEL.to_owned(), json!(architecture));
        }
        labels.extend(self.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
        let mut run = json!({"Cmd": self.command, "Env": ["PATH=/bin"], "Labels": labels});
        if let Some(health) = self.health {
            run["Healthcheck"] = self.health_check(health);
        }
        if let Some(path) = &self.volume {
            run["Volumes"] = json!({path: {}});
        }
        json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>()},
            "history": layers.iter().map(|_| json!({"created": "2026-01-01T00:00:00Z", "created_by": "dkv tests"})).collect::<Vec<_>>(),
        })
    }

    fn health_check(&self, health: Health) -> Value {
        let count = "n=$(cat /probes 2>/dev/null || echo 0); n=$((n + 1)); echo $n >/probes";
        let (script, retries, start_period_s) = match health {
            // After the first it takes its time, because it is how often they begin that costs.
            Health::Passing => ("test -e /probed && sleep 3; touch /probed; true".to_owned(), 2, 0),
            Health::Failing => ("echo no database; exit 1".to_owned(), 2, 0),
            Health::FromProbe(first) => {
                (format!("{count}; echo probe $n; test $n -ge {first}"), 1, 3600)
            }
            Health::Flapping(length) => {
                (format!("{count}; echo probe $n; test $(((n - 1) / {length} % 2)) -eq 0"), 1, 0)
            }
        };
        json!({
            "Test": ["CMD-SHELL", script],
            "Interval": self.health_interval_ms * 1_000_000,
            "Timeout": 10_000_000_000_u64,
            "StartPeriod": self.start_period_s.unwrap_or(start_period_s) * 1_000_000_000_u64,
            "Retries": retries,
        })
    }

    fn manifest(&self, config: &Blob, layers: &[Layer]) -> Value {
        let descriptor = |media_type: &str, blob: &Blob| json!({"mediaType": media_type, "size": blob.bytes.len(), "digest": blob.digest});
        json!({
            "schemaVersion": 2,
            "mediaType": self.media_type("manifest"),
            "config": descriptor(self.media_type("config"), config),
            "layers": layers.iter().map(|layer| descriptor(self.media_type("layer"), &layer.compressed)).collect::<Vec<_>>(),
        })
    }

    fn index(&self, images: &[PlatformImage]) -> Value {
        let mut index = json!({
            "schemaVersion": 2,
            "mediaType": self.media_type("index"),
            "manifests": images.iter().map(|image| json!({
                "mediaType": self.media_type("manifest"),
                "size": image.manifest.len(),
                "digest": digest(&image.manifest),
                "platform": {"architecture": image.architecture, "os": "linux"},
            })).collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            index["annotations"] =
                self.annotations.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        }
        index
    }
}

/// The bytes of one image or index.
pub(super) struct Built {
    pub blobs: Vec<Blob>,
    pub images: Vec<PlatformImage>,
    pub index: Option<Vec<u8>>,
    pub manifest_type: &'static str,
    pub index_type: &'static str,
}

/// Bytes and their name.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes }
    }
}

pub(super) struct PlatformImage {
    pub architecture: String,
    pub image_id: String,
    pub manifest: Vec<u8>,
}

/// What a push made.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// `host:port/namespace/name`, without tag.
    pub repository: String,
    /// Digest of what the tag names: of the index when there is one.
    pub digest: String,
    /// Architecture, manifest digest and image ID for each platform.
    pub platforms: Vec<(String, String, String)>,
}

impl Pushed {
    /// `repository@digest`.
    pub fn pin(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }

    /// The manifest digest for one architecture; equals `digest` without an index.
    pub fn platform_digest(&self, architecture: &str) -> &str {
        &self.platform(architecture).1
    }

    /// The ID that the daemon of the tests has for the amd64 image: the configuration's digest, on
    /// the containerd store that of what the tag names.
    pub fn image_id(&self) -> &str {
        if Engine::has_containerd_store() { &self.digest } else { self.config_digest() }
    }

    /// The digest of the amd64 image's configuration, its ID on every classic store.
    pub fn config_digest(&self) -> &str {
        &self.platform("amd64").2
    }

    fn platform(&self, architecture: &str) -> &(String, String, String) {
        self.platforms
            .iter()
            .find(|(name, ..)| name == architecture)
            .unwrap_or_else(|| panic!("no {architecture} image in {self:?}"))
    }
}

#[derive(Clone, Debug)]
struct Layer {
    diff_id: String,
    compressed: Blob,
}

impl Layer {
    fn new(tar: Vec<u8>, compression: Compression) -> Self {
        Self { diff_id: digest(&tar), compressed: Blob::new(gzip(&tar, compression)) }
    }
}

/// The layer with busybox and its applets, the same in all images.
fn base_layer() -> &'static Layer {
    static LAYER: OnceLock<Layer> = OnceLock::new();
    LAYER.get_or_init(|| {
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "bin/busybox", &busybox_binary(), 0o755);
        for applet in APPLETS {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
                .expect("writing to memory");
        }
        let mut tmp = tar::Header::new_ustar();
        tmp.set_entry_type(tar::EntryType::Directory);
        tmp.set_size(0);
        tmp.set_mode(0o1777);
        tar.append_data(&mut tmp, "tmp/", std::io::empty()).expect("writing to memory");
        Layer::new(tar.into_inner().expect("writing to memory"), Compression::fast())
    })
}

/// The layer with `/version`. For what is not [`USUAL`] each namespace has its own: a layer that
/// many wait for the daemon downloads once, so one test's stalled registry would hold up others.
fn version_layer(namespace: &str, version: &str) -> Layer {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "version", format!("{version}\n").as_bytes(), 0o644);
    if !USUAL.contains(&version) {
        append(&mut tar, "namespace", namespace.as_bytes(), 0o644);
    }
    Layer::new(tar.into_inner().expect("writing to memory"), Compression::fast())
}

fn gzip(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), compression);
    std::io::Write::write_all(&mut encoder, bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn payload_layer(bytes: usize, seed: &str) -> Layer {
    let seed = Sha256::digest(seed);
    let mut state = u64::from_le_bytes(seed[..8].try_into().expect("eight bytes")) | 1;
    let mut payload = Vec::with_capacity(bytes + 8);
    while payload.len() < bytes {
        // xorshift64: does not compress, and is the same for the same seed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        payload.extend_from_slice(&state.to_le_bytes());
    }
    payload.truncate(bytes);
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "payload", &payload, 0o644);
    Layer::new(tar.into_inner().expect("writing to memory"), Compression::none())
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes).expect("writing to memory");
}

/// The one binary of all images here.
pub(super) fn busybox_binary() -> Vec<u8> {
    std::fs::read(program("busybox")).expect("a readable busybox")
}

/// `sha256:` and the hash of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hex = sha2::Sha256::digest(bytes).into_iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}
