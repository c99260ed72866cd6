//! A Docker daemon, asked through the `docker` command: what a test asserts about containers and
//! images.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::TEST_LABEL;

/// The machine's daemon, or a private one by its socket.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: Option<PathBuf>,
}

impl Engine {
    pub fn machine() -> Self {
        Self { socket: None }
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
        let mut child = self
            .command()
            .args(["load", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("docker runs");
        child.stdin.take().expect("a pipe").write_all(archive).expect("docker reads");
        assert!(child.wait().expect("docker ends").success(), "docker cannot load the image");
    }

    /// What `docker inspect` says about an image, or `None` when there is no such image.
    pub fn image(&self, reference: &str) -> Option<Value> {
        self.inspect(&["image", "inspect", reference])
    }

    /// The ID of an image, or `None` when there is no such image.
    pub fn image_id(&self, reference: &str) -> Option<String> {
        Some(self.image(reference)?["Id"].as_str()?.to_owned())
    }

    /// What `docker inspect` says about a container.
    pub fn container(&self, container: &str) -> Option<Value> {
        self.inspect(&["container", "inspect", container])
    }

    /// Names of a Compose service's containers, stopped ones too.
    pub fn containers(&self, project: &str, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={project}");
        let service = format!("label=com.docker.compose.service={service}");
        let names = self.docker(&[
            "ps",
            "-a",
            "--format",
            "{{.Names}}",
            "--filter",
            &project,
            "--filter",
            &service,
        ]);
        names.lines().map(str::to_owned).collect()
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
        self.docker(&["inspect", "--format", "{{.Image}}", &containers[0]])
    }

    /// Removes containers, networks and volumes of one Compose project.
    pub fn remove_project(&self, project: &str) {
        let label = format!("label=com.docker.compose.project={project}");
        self.remove(&["ps", "-aq"], &label, &["rm", "-f", "-v"]);
        self.remove(&["network", "ls", "-q"], &label, &["network", "rm"]);
        self.remove(&["volume", "ls", "-q"], &label, &["volume", "rm", "-f"]);
    }

    /// Removes all images that a test's registry made, under whatever tags, and their containers.
    pub fn remove_images_of(&self, namespace: &str) {
        let label = format!("label={TEST_LABEL}={namespace}");
        self.remove(&["ps", "-aq"], &label, &["rm", "-f", "-v"]);
        self.remove(&["images", "-aq"], &label, &["rmi", "-f"]);
    }

    fn remove(&self, list: &[&str], filter: &str, remove: &[&str]) {
        let output = self.try_docker(&[list, &["--filter", filter]].concat());
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut ids: Vec<&str> = found.split_whitespace().collect();
        ids.dedup();
        if !ids.is_empty() {
            self.try_docker(&[remove, &ids].concat());
        }
    }

    fn inspect(&self, args: &[&str]) -> Option<Value> {
        let output = self.try_docker(args);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.to_lowercase().contains("no such"), "docker {args:?}: {error}");
            return None;
        }
        let found: Value =
            serde_json::from_slice(&output.stdout).expect("JSON from docker inspect");
        found.get(0).cloned()
    }
}
