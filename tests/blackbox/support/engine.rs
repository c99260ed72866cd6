//! A Docker daemon: what a test asserts about containers and images. What every test asks goes to
//! its socket, because each `docker` costs as much as what it asks for.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::TEST_LABEL;
use super::http::{self, Response};
use super::image::ARCHITECTURE_LABEL;

/// Longest wait for an answer of the daemon, which may be killing a container meanwhile.
const ANSWER: Duration = Duration::from_secs(120);

/// The machine's daemon, or a private one by its socket.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: Option<PathBuf>,
}

impl Engine {
    pub fn machine() -> Self {
        Self { socket: None }
    }

    /// The machine's own, where the tests run on another one.
    pub fn other() -> Option<Self> {
        std::env::var_os("DKV_TEST_OTHER_ENGINE").map(Self::at)
    }

    /// Whether the tests run on an engine of this kind (`containerd`, `classic`, `podman`) instead
    /// of the machine's; tells why the test is skipped if they do not.
    pub fn is(kind: &str) -> bool {
        let found = std::env::var("DKV_TEST_ENGINE").unwrap_or_default();
        if found != kind {
            eprintln!("skipped: DKV_TEST_ENGINE={kind} tests/run.sh runs it");
        }
        found == kind
    }

    /// Whether the IDs of images are digests of what registries have.
    pub fn has_containerd_store() -> bool {
        std::env::var("DKV_TEST_ENGINE").is_ok_and(|kind| kind == "containerd")
    }

    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: Some(socket.into()) }
    }

    /// `DOCKER_HOST` of this daemon, when it is not the machine's.
    pub fn host(&self) -> Option<String> {
        self.socket.as_ref().map(|socket| format!("unix://{}", socket.display()))
    }

    /// Runs `docker` with these arguments, whatever its outcome.
    pub fn try_docker(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("docker runs")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        if let Some(host) = self.host() {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Standard output of a `docker` command that must succeed, without the last line break.
    pub fn docker(&self, args: &[&str]) -> String {
        let output = self.try_docker(args);
        assert!(
            output.status.success(),
            "docker {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Events since a moment, as `docker events` prints them in JSON; other tests' are among them.
    pub fn events_since(&self, since: SystemTime) -> Vec<Value> {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH).expect("a clock past 1970").as_secs_f64().to_string()
        };
        let (since, until) = (seconds(since), seconds(SystemTime::now()));
        let lines = self.docker(&[
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--format",
            "{{json .}}",
        ]);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON from docker events"))
            .collect()
    }

    /// Loads an image archive into the daemon.
    pub(super) fn load(&self, archive: &[u8]) {
        let response = self.ask("POST", "/images/load?quiet=1", archive);
        assert_eq!(response.status, 200, "docker cannot load the image: {}", response.text());
        assert!(!response.text().contains("errorDetail"), "{}", response.text());
    }

    /// The oldest and the newest version of the API that the daemon speaks: `41` for 1.41.
    pub fn api_versions(&self) -> (u32, u32) {
        let version = self.inspect("/version").expect("the daemon's version");
        let minor = |name: &str| {
            let text = version[name].as_str().and_then(|text| text.strip_prefix("1."));
            text.and_then(|minor| minor.parse().ok()).expect("an API version")
        };
        (minor("MinAPIVersion"), minor("ApiVersion"))
    }

    /// What `docker inspect` says about an image, or `None` when there is no such image.
    pub fn image(&self, reference: &str) -> Option<Value> {
        self.inspect(&format!("/images/{reference}/json"))
    }

    /// The ID of an image, or `None` when there is no such image.
    pub fn image_id(&self, reference: &str) -> Option<String> {
        Some(self.image(reference)?["Id"].as_str()?.to_owned())
    }

    /// What `docker inspect` says about a container.
    pub fn container(&self, container: &str) -> Option<Value> {
        self.inspect(&format!("/containers/{container}/json"))
    }

    /// Names of a Compose service's containers, stopped ones too.
    pub fn containers(&self, project: &str, service: &str) -> Vec<String> {
        let labels = [
            format!("com.docker.compose.project={project}"),
            format!("com.docker.compose.service={service}"),
        ];
        let found = self.list("/containers/json", &labels).expect("the daemon's answer");
        let name = |container: &Value| {
            container["Names"][0].as_str().expect("a name").trim_start_matches('/').to_owned()
        };
        found.iter().map(name).collect()
    }

    /// The contents of `/version` in the one running container of a Compose service.
    pub fn version(&self, project: &str, service: &str) -> String {
        let containers = self.containers(project, service);
        assert_eq!(containers.len(), 1, "containers of {project}/{service}: {containers:?}");
        self.docker(&["exec", &containers[0], "cat", "/version"])
    }

    /// The image ID that the one container of a Compose service was made from.
    pub fn running_image(&self, project: &str, service: &str) -> String {
        let containers = self.containers(project, service);
        assert_eq!(containers.len(), 1, "containers of {project}/{service}: {containers:?}");
        let container = self.container(&containers[0]).expect("the container just listed");
        container["Image"].as_str().expect("an image").to_owned()
    }

    /// For which architecture the image of several platforms is that the one container of a Compose
    /// service was made from; its ID says nothing of it on containerd's store.
    pub fn running_architecture(&self, project: &str, service: &str) -> String {
        let containers = self.containers(project, service);
        assert_eq!(containers.len(), 1, "containers of {project}/{service}: {containers:?}");
        let container = self.container(&containers[0]).expect("the container just listed");
        let label = &container["Config"]["Labels"][ARCHITECTURE_LABEL];
        label.as_str().expect("an image of several platforms").to_owned()
    }

    /// The keep-tags of images that came from one registry: the repository's last part, and the
    /// digits that name the release.
    pub fn keep_tags(&self, namespace: &str) -> BTreeSet<(String, String)> {
        let label = format!("{TEST_LABEL}={namespace}");
        let images = self.list("/images/json", &[label]).expect("the daemon's answer");
        let names = images.iter().flat_map(|image| image["RepoTags"].as_array());
        let kept = names.flatten().filter_map(|name| {
            let (repository, tag) = name.as_str()?.rsplit_once(':')?;
            let digits = tag.strip_prefix("dkv-")?.rsplit_once('-')?.1;
            Some((repository.rsplit_once('/')?.1.to_owned(), digits.to_owned()))
        });
        kept.collect()
    }

    /// Removes containers, networks and volumes of one Compose project.
    pub fn remove_project(&self, project: &str) {
        let label = format!("com.docker.compose.project={project}");
        self.remove_containers(&label);
        for network in self.list("/networks", std::slice::from_ref(&label)).unwrap_or_default() {
            self.remove(&format!("/networks/{}", network["Id"].as_str().unwrap_or_default()));
        }
        for volume in self.list("/volumes", &[label]).unwrap_or_default() {
            let name = volume["Name"].as_str().unwrap_or_default();
            self.remove(&format!("/volumes/{name}?force=1"));
        }
    }

    /// Removes all images that a test's registry made, under whatever tags, and their containers.
    pub fn remove_images_of(&self, namespace: &str) {
        let label = format!("{TEST_LABEL}={namespace}");
        let images = self.list("/images/json", std::slice::from_ref(&label)).unwrap_or_default();
        if images.is_empty() {
            return;
        }
        self.remove_containers(&label);
        for image in images {
            self.remove(&format!("/images/{}?force=1", image["Id"].as_str().unwrap_or_default()));
        }
    }

    /// Removes the containers with a label, all at once: the daemon waits for the end of each.
    fn remove_containers(&self, label: &str) {
        let containers = self.list("/containers/json", &[label.to_owned()]).unwrap_or_default();
        thread::scope(|scope| {
            for container in containers {
                scope.spawn(move || {
                    let id = container["Id"].as_str().unwrap_or_default();
                    self.remove(&format!("/containers/{id}?force=1&v=1"));
                });
            }
        });
    }

    /// What is gone already needs no removal, and a daemon that a test broke is not asked again.
    fn remove(&self, target: &str) {
        let _ = self.try_ask("DELETE", target, &[]);
    }

    /// Everything of one kind, stopped or unnamed too, that has all of these labels.
    fn list(&self, target: &str, labels: &[String]) -> std::io::Result<Vec<Value>> {
        let filters = json!({"label": labels}).to_string();
        let encoded: String = filters.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let response = self.try_ask("GET", &format!("{target}?all=1&filters={encoded}"), &[])?;
        let found: Value = serde_json::from_slice(&response.body)?;
        let found = if target == "/volumes" { &found["Volumes"] } else { &found };
        Ok(found.as_array().cloned().unwrap_or_default())
    }

    fn inspect(&self, target: &str) -> Option<Value> {
        let response = self.ask("GET", target, &[]);
        if response.status == 404 {
            return None;
        }
        assert_eq!(response.status, 200, "GET {target}: {}", response.text());
        Some(serde_json::from_slice(&response.body).expect("JSON from the daemon"))
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Response {
        self.try_ask(method, target, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    fn try_ask(&self, method: &str, target: &str, body: &[u8]) -> std::io::Result<Response> {
        let socket = self.socket.clone().unwrap_or_else(machine_socket);
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        http::exchange(stream, "docker", method, target, &[], body)
    }
}

/// Where the machine's daemon listens.
pub(super) fn machine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
}
