//! Against the machine's daemon and a registry of the test's own.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::stream::{LogLine, LogStream};
use super::*;
use crate::error::{self, Kind};
use crate::model::reference::{Digest, Repository, Tag};

const PASSWORD: &str = "p>>>???~~~";
/// `ada` with [`PASSWORD`], bcrypt with the lowest cost.
const HTPASSWD: &str = "ada:$2b$04$abcdefghijklmnopqrstuuVdo3h//XNUzG5Zypf1nUXCsUySef7e2\n";

async fn machine() -> Docker {
    Docker::connect(Endpoint::resolve(&Settings::default()).unwrap(), Deadlines::default())
        .await
        .unwrap()
}

/// A name that no other test or run uses.
fn unique(what: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("dkv-test-{what}-{}-{}", std::process::id(), time.as_nanos())
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An image of nothing but busybox, different for every `marker`; removed with the guard.
struct TestImage(String);

impl TestImage {
    fn import(name: String, marker: &str, changes: &[&str]) -> Self {
        let busybox =
            std::env::var("DKV_TEST_BUSYBOX").expect("tests/run.sh says where busybox is");
        let mut archive = tar::Builder::new(Vec::new());
        for applet in ["bin/sh", "bin/sleep"] {
            archive.append_path_with_name(&busybox, applet).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(marker.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "marker", marker.as_bytes()).unwrap();
        let mut command = Command::new("docker");
        command.arg("import");
        for change in changes {
            command.args(["--change", change]);
        }
        let mut child =
            command.args(["-", &name]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&archive.into_inner().unwrap()).unwrap();
        assert!(child.wait().unwrap().success());
        Self(name)
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", &self.0]).output();
    }
}

struct TestContainer(String);

impl Drop for TestContainer {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", "-v", &self.0]).output();
    }
}

/// A registry that wants a password, on a port of its own.
struct Registry {
    process: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \
                '{}'}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n\
             auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n",
            path("data").display(),
            path("htpasswd").display()
        );
        std::fs::write(path("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .args([Path::new("serve"), &path("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < patience, "the registry does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, port, directory }
    }

    /// Pushes a local image and gives its digest in this registry.
    fn push(&self, name: &str) -> Digest {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("ada:{PASSWORD}"));
        let config = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"{auth}"}}}}}}"#, self.port);
        std::fs::write(self.directory.path().join("config.json"), config).unwrap();
        let output = docker(&["--config", self.directory.path().to_str().unwrap(), "push", name]);
        let digest = output.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
        digest.parse().unwrap()
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            username: "ada".to_owned(),
            password: PASSWORD.to_owned(),
            identity_token: None,
            server_address: format!("127.0.0.1:{}", self.port),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_digest_tagged_and_released() {
    let docker = machine().await;
    let registry = Registry::start();
    let name = unique("pull");
    let repository: Repository = format!("127.0.0.1:{}/{name}", registry.port).parse().unwrap();
    let tag: Tag = "1.0".parse().unwrap();
    let digest = {
        let image = TestImage::import(repository.with_tag(&tag), &name, &[]);
        registry.push(&image.0)
    };
    let pin = repository.with_digest(&digest);
    assert_eq!(docker.image(&pin).await.unwrap(), None, "the push leaves nothing behind");
    let keep: Tag = "dkv-keep".parse().unwrap();
    let _cleanup = [TestImage(repository.with_tag(&keep)), TestImage(pin.clone())];

    let request = PullRequest {
        repository: repository.clone(),
        target: PullTarget::Tag(tag.clone()),
        platform: None,
        credentials: None,
    };
    let anonymous = docker.pull(&request, &|_| ()).await.unwrap_err();
    assert_eq!(
        (pull_failure(&anonymous), error::kind(&anonymous)),
        (Some(PullFailure::Denied), Kind::Registry),
        "{anonymous:#}"
    );

    let missing = PullRequest {
        target: PullTarget::Tag("2.0".parse().unwrap()),
        credentials: Some(registry.credentials()),
        ..request.clone()
    };
    let error = docker.pull(&missing, &|_| ()).await.unwrap_err();
    assert_eq!(pull_failure(&error), Some(PullFailure::NotFound), "{error:#}");

    let events = Mutex::new(Vec::new());
    let by_digest = PullRequest {
        target: PullTarget::Digest(digest.clone()),
        credentials: Some(registry.credentials()),
        ..request.clone()
    };
    docker.pull(&by_digest, &|event| events.lock().unwrap().push(event)).await.unwrap();
    let image = docker.image(&by_digest.reference()).await.unwrap().unwrap();
    assert!(image.digests_of(&repository).any(|one| *one == digest));
    assert_eq!(image.platform, *docker.platform().await.unwrap());
    let events = events.into_inner().unwrap();
    assert!(events.contains(&PullEvent::Digest(digest.clone())), "{events:?}");
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PullEvent::Layer { state: LayerState::Complete, .. })),
        "{events:?}"
    );

    docker.tag(&pin, &repository, &keep).await.unwrap();
    let list = docker.image_list().await.unwrap();
    assert_eq!(list.by_tag(&repository, &keep).unwrap().id, image.id);
    assert_eq!(list.by_digest(&repository, &digest).unwrap().id, image.id);
    let both = docker.images(&[pin.clone(), repository.with_tag(&tag)]).await.unwrap();
    assert_eq!(both.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);

    assert_eq!(docker.untag(&repository, &keep).await.unwrap(), Untagged::Removed);
    assert_eq!(docker.untag(&repository, &keep).await.unwrap(), Untagged::Absent);
    assert_eq!(docker.image(&pin).await.unwrap(), None, "its last tag takes the image along");

    drop(registry);
    let error = docker.pull(&request, &|_| ()).await.unwrap_err();
    assert_eq!(
        (pull_failure(&error), error::kind(&error)),
        (Some(PullFailure::Unreachable), Kind::Registry),
        "{error:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_seen_with_its_health_its_log_and_its_end() {
    let docker_api = machine().await;
    let name = unique("container");
    let image =
        TestImage::import(format!("{name}:1"), &name, &["ENTRYPOINT [\"/bin/sh\", \"-c\"]"]);
    let project = format!("com.docker.compose.project={name}");
    let filter = ContainerFilter::project(&name);
    let container = TestContainer(name.clone());
    docker(&[
        "create",
        "--name",
        &name,
        "--label",
        &project,
        "--label",
        "com.docker.compose.service=web",
        "--restart",
        "on-failure:1",
        "--label",
        "com.docker.compose.depends_on=db:service_healthy:false,cache:service_started:true",
        "--health-cmd",
        "echo fine",
        "--health-interval",
        "1s",
        "--network",
        "none",
        "--stop-timeout",
        "0",
        &image.0,
        "echo out; echo err >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done",
    ]);

    let created = docker_api.container_details(&filter).await.unwrap().remove(0);
    assert_eq!(
        (created.state, created.health.clone(), created.has_health_check),
        (ContainerState::Created, None, true)
    );
    assert_eq!((created.started_at, created.restart_policy), (None, RestartPolicy::OnFailure));
    assert_eq!(
        created.labels.depends_on(),
        [("db", "service_healthy"), ("cache", "service_started")]
    );

    let mut events = Box::pin(docker_api.events(&filter, created.created_at));
    docker(&["start", &container.0]);
    let wait = async {
        while let Some(event) = events.try_next().await.unwrap() {
            if event.action == Action::HealthStatus {
                return event;
            }
        }
        unreachable!("events do not end")
    };
    let event = tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    assert_eq!(
        (event.container.as_str(), event.labels.get("name").unwrap()),
        (created.id.as_str(), name.as_str())
    );

    let running = docker_api.inspect_container(&name).await.unwrap().unwrap();
    let health = running.health.unwrap();
    assert_eq!(
        (running.state, health.status, health.failing_streak),
        (ContainerState::Running, HealthStatus::Healthy, 0)
    );
    assert_eq!(
        health.last.map(|probe| (probe.exit_code, probe.output)),
        Some((0, "fine".to_owned()))
    );
    assert_eq!(running.image_id, docker_api.image(&image.0).await.unwrap().map(|image| image.id));
    assert_eq!((running.image.as_str(), running.labels.service()), (image.0.as_str(), Some("web")));
    let listed = docker_api.containers(&filter).await.unwrap().remove(0);
    assert_eq!(
        (listed.name.as_str(), listed.state, listed.id),
        (name.as_str(), ContainerState::Running, running.id)
    );

    let mut lines: Vec<LogLine> =
        docker_api.logs(&name, &LogOptions::default()).try_collect().await.unwrap();
    lines.sort_by_key(|line| line.bytes.clone());
    let text: Vec<_> = lines.iter().map(|line| (line.stream, line.bytes.as_slice())).collect();
    assert_eq!(text, [(LogStream::Stderr, &b"err"[..]), (LogStream::Stdout, b"out")]);

    let followed = LogOptions { follow: true, ..LogOptions::default() };
    let mut follow = Box::pin(docker_api.logs(&name, &followed));
    assert!(follow.next().await.is_some());
    drop(container);
    let end = tokio::time::timeout(Duration::from_secs(30), follow.try_collect::<Vec<_>>()).await;
    assert!(end.is_ok(), "following ends with the container");
    assert_eq!(docker_api.inspect_container(&name).await.unwrap(), None);
    assert_eq!(docker_api.containers(&filter).await.unwrap(), []);
}
