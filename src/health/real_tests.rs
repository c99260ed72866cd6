//! Waiting for real containers of the machine's daemon.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use futures_util::StreamExt as _;

use super::wait::Awaited;
use super::*;
use crate::docker::{Deadlines, Docker, Endpoint, Settings};

/// A Compose project of nothing but labels, with an image of nothing but busybox; removed with it.
struct TestProject {
    name: String,
    containers: Vec<String>,
}

impl TestProject {
    fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let time =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let name = format!(
            "dkv-health-{what}-{}-{time}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let busybox =
            std::env::var("DKV_TEST_BUSYBOX").expect("tests/run.sh says where busybox is");
        let mut archive = tar::Builder::new(Vec::new());
        for applet in ["sh", "sleep", "cat", "touch", "rm", "test", "head", "tail"] {
            archive.append_path_with_name(&busybox, format!("bin/{applet}")).unwrap();
        }
        let mut child = Command::new("docker")
            .args(["import", "-", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive.into_inner().unwrap()).unwrap();
        assert!(child.wait().unwrap().success());
        Self { name, containers: Vec::new() }
    }

    /// Makes a container of the service `service`, and starts it if the command is `run -d`.
    fn add(&mut self, command: &[&str], service: &str, options: &[&str], script: &str) {
        let container = format!("{}-{service}", self.name);
        let output = Command::new("docker")
            .args(command)
            .args(["--network", "none", "--name", &container])
            .args(["--label", &format!("com.docker.compose.project={}", self.name)])
            .args(["--label", &format!("com.docker.compose.service={service}")])
            .args(options)
            .args([&self.name, "sh", "-c", script])
            .output()
            .unwrap();
        self.containers.push(container);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&mut self, service: &str, options: &[&str], script: &str) {
        self.add(&["run", "-d"], service, options, script);
    }

    /// Runs a container whose health check, every 100 ms, is `check`.
    fn run_checked(&mut self, service: &str, check: &str, script: &str) {
        let often = ["--health-interval", "100ms", "--health-retries", "1"];
        // Nothing is given up before the time that its check allows, which is half a minute else.
        let options = [&["--health-cmd", check, "--health-timeout", "5s"], &often[..]].concat();
        self.run(service, &options, script);
    }

    async fn wait(&self, services: &str, limits: Limits) -> Awaited {
        let text = format!("services: {services}");
        let config = crate::compose::config::parse_v1(&text, self.name.clone()).unwrap();
        let expectations = Expectations::of(&config);
        wait(&machine().await, &self.name, &expectations, limits, Utc::now(), &|_| ())
            .await
            .unwrap()
    }
}

impl Drop for TestProject {
    fn drop(&mut self) {
        for container in &self.containers {
            let _ = Command::new("docker").args(["rm", "-f", "-v", container]).output();
        }
        let _ = Command::new("docker").args(["image", "rm", &self.name]).output();
    }
}

async fn machine() -> Docker {
    Docker::connect(Endpoint::resolve(&Settings::default()).unwrap(), Deadlines::default())
        .await
        .unwrap()
}

fn seconds(timeout: u64, stability: u64) -> Limits {
    Limits {
        timeout: Duration::from_secs(timeout),
        stability: Duration::from_secs(stability),
        ..Limits::default()
    }
}

fn verdict<'a>(outcome: &'a Awaited, service: &str) -> &'a Verdict {
    &outcome.judgement.containers.iter().find(|judged| judged.service == service).unwrap().verdict
}

fn failure<'a>(outcome: &'a Awaited, service: &str) -> &'a Judged {
    outcome
        .judgement
        .failures()
        .find(|judged| judged.service == service)
        .unwrap_or_else(|| panic!("{outcome:?}"))
}

#[tokio::test]
async fn good_containers_of_every_kind_are_waited_for() {
    let mut project = TestProject::new("good");
    project.run_checked("checked", "true", "sleep 600");
    project.run("unchecked", &[], "sleep 600");
    project.run("migrate", &[], "sleep 1");
    let begun = Instant::now();
    let outcome = project
        .wait(
            "{checked: {}, unchecked: {}, migrate: {}, web: {depends_on: {migrate: {condition: \
            service_completed_successfully}}}}",
            seconds(60, 2),
        )
        .await;
    // Nobody starts web, which is the only thing wrong here.
    assert_eq!(verdict(&outcome, "checked"), &Verdict::Healthy);
    assert_eq!(verdict(&outcome, "unchecked"), &Verdict::Unchecked);
    assert_eq!(verdict(&outcome, "migrate"), &Verdict::Completed);
    assert_eq!(verdict(&outcome, "web"), &Verdict::Failed(Cause::Missing));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_wait_returns_right_after_the_last_check_passes() {
    let mut project = TestProject::new("late");
    let options =
        ["--health-cmd", "test -e /ready", "--health-interval", "100ms", "--health-retries", "100"];
    project.run("late", &options, "sleep 2; touch /ready; sleep 600");
    let docker = machine().await;
    let begun = Utc::now();
    let outcome = project.wait("{late: {}}", seconds(60, 5)).await;
    let returned = Utc::now();
    assert!(outcome.judgement.is_good(), "{outcome:?}");
    let filter = crate::docker::ContainerFilter::project(&project.name);
    let mut events = Box::pin(docker.events(&filter, Some(begun)));
    let passed = loop {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if event.action == crate::docker::Action::HealthStatus {
            break event.time.unwrap();
        }
    };
    assert!(passed - begun > TimeDelta::milliseconds(500), "it was not late");
    assert!(returned - passed < TimeDelta::milliseconds(300), "{returned} {passed}");
}

#[tokio::test]
async fn an_unhealthy_container_may_recover_and_otherwise_fails_long_before_the_deadline() {
    let mut project = TestProject::new("recovers");
    project.run_checked("recovers", "test -e /ready", "sleep 1; touch /ready; sleep 600");
    let outcome = project.wait("{recovers: {}}", seconds(60, 4)).await;
    assert!(outcome.judgement.is_good(), "{outcome:?}");

    let mut project = TestProject::new("never");
    project.run_checked("never", "echo no route to the moon; exit 7", "echo I am up; sleep 600");
    let outcome = project.wait("{never: {}}", seconds(60, 1)).await;
    assert!(outcome.waited < Duration::from_secs(20), "{outcome:?}");
    let lines = explain(failure(&outcome, "never"));
    assert!(
        lines[0].ends_with("unhealthy: its health check exits with 7: no route to the moon"),
        "{lines:?}"
    );
    assert_eq!(lines.last().unwrap(), "  I am up");
}

#[tokio::test]
async fn a_container_that_flaps_is_not_good() {
    let mut project = TestProject::new("flaps");
    project.run_checked(
        "flaps",
        "test -e /ready",
        "while true; do touch /ready; sleep 1; rm /ready; sleep 1; done",
    );
    // Something else keeps the wait going while the check passes for the first time.
    project.run("calm", &[], "sleep 600");
    let outcome = project.wait("{flaps: {}, calm: {}}", seconds(8, 3)).await;
    let verdict = &failure(&outcome, "flaps").verdict;
    assert!(
        matches!(verdict, Verdict::Failed(Cause::Flapping { .. } | Cause::Unhealthy(_))),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn a_crash_fails_at_once_with_its_code_and_last_lines() {
    let mut project = TestProject::new("crash");
    project.run("crash", &[], "sleep 1; echo cannot open the ledger; exit 3");
    project.run("calm", &[], "sleep 600");
    let outcome = project.wait("{crash: {}, calm: {}}", seconds(60, 5)).await;
    assert!(outcome.waited < Duration::from_secs(4), "{outcome:?}");
    let lines = explain(failure(&outcome, "crash"));
    assert!(lines[0].ends_with(": exited with code 3"), "{lines:?}");
    assert_eq!(lines[1..], ["last log lines:", "  cannot open the ledger"]);
}

#[tokio::test]
async fn a_restart_loop_fails_early() {
    let mut project = TestProject::new("loop");
    project.run("loop", &["--restart", "always"], "echo no config; exit 1");
    let outcome = project.wait("{loop: {}}", seconds(60, 5)).await;
    assert!(outcome.waited < Duration::from_secs(15), "{outcome:?}");
    let verdict = &failure(&outcome, "loop").verdict;
    assert!(
        matches!(
            verdict,
            Verdict::Failed(Cause::RestartLoop {
                restarts: RESTARTS_OF_A_LOOP..,
                code: Some(1) | None
            })
        ),
        "{verdict:?}"
    );
    assert_eq!(failure(&outcome, "loop").log.last().unwrap(), "no config");
}

#[tokio::test]
async fn a_kill_for_memory_is_named() {
    let mut project = TestProject::new("oom");
    let options = ["--memory", "8m", "--memory-swap", "8m"];
    // The daemon begins to listen for the reason only when the container has started.
    project.run("hungry", &options, "sleep 1; exec tail /dev/zero");
    let outcome = project.wait("{hungry: {}}", seconds(60, 5)).await;
    assert_eq!(
        failure(&outcome, "hungry").verdict,
        Verdict::Failed(Cause::OutOfMemory { restarts: 0 })
    );
}

#[tokio::test]
async fn what_a_failed_dependency_blocks_is_named_by_labels_alone() {
    let mut project = TestProject::new("chain");
    let depends = |on: &str| format!("com.docker.compose.depends_on={on}:service_healthy:false");
    project.run_checked("db", "echo no space left; exit 1", "sleep 600");
    project.add(&["create"], "api", &["--label", &depends("db")], "sleep 600");
    project.add(&["create"], "web", &["--label", &depends("api")], "sleep 600");
    let docker = machine().await;
    let containers = docker
        .container_details(&crate::docker::ContainerFilter::project(&project.name))
        .await
        .unwrap();
    let expectations = Expectations::from_containers(&containers);
    let limits = seconds(2, 1);
    let outcome =
        wait(&docker, &project.name, &expectations, limits, Utc::now(), &|_| ()).await.unwrap();
    let services: Vec<_> =
        outcome.judgement.failures().map(|judged| judged.service.as_str()).collect();
    assert_eq!(services, ["db", "api", "web"]);
    let headline = explain(failure(&outcome, "web")).remove(0);
    let expected = "never started: web waits for api (healthy), api waits for db (healthy), \
                    db is unhealthy: its health check exits with 1: no space left";
    assert!(headline.ends_with(expected), "{headline}");

    // Asked without patience, the same stands there already.
    let deployment =
        snapshot(&docker, &project.name, &expectations, limits, Utc::now()).await.unwrap();
    assert_eq!(deployment.failing_services().collect::<Vec<_>>(), ["db", "api", "web"]);
}

#[tokio::test]
async fn a_container_that_the_daemon_cannot_start_fails_with_its_words() {
    let mut project = TestProject::new("cannot");
    project.add(&["create", "--entrypoint", "/no/such/program"], "broken", &[], "");
    let _ = Command::new("docker").args(["start", &project.containers[0]]).output();
    let outcome = project.wait("{broken: {}}", seconds(60, 5)).await;
    let lines = explain(failure(&outcome, "broken"));
    assert!(
        lines[0].contains("could not be started") && lines[0].contains("/no/such/program"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_container_made_during_the_wait_replaces_the_old_one() {
    let mut project = TestProject::new("replaced");
    project.run_checked("web", "false", "sleep 600");
    let name = project.name.clone();
    let replace = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let old = project.containers[0].clone();
        tokio::task::spawn_blocking(move || {
            assert!(
                Command::new("docker").args(["rm", "-f", &old]).output().unwrap().status.success()
            );
        })
        .await
        .unwrap();
        project.run_checked("web", "true", "sleep 600");
    };
    let docker = machine().await;
    let expectations = Expectations::of(
        &crate::compose::config::parse_v1("services: {web: {}}", name.clone()).unwrap(),
    );
    let looks = Mutex::new(0);
    let count = |_: &Judgement| *looks.lock().unwrap() += 1;
    let (outcome, ()) = tokio::join!(
        wait(&docker, &name, &expectations, seconds(30, 5), Utc::now(), &count),
        replace
    );
    assert!(outcome.unwrap().judgement.is_good());
    assert!(*looks.lock().unwrap() > 1);
}

/// A socket in front of the daemon's that passes everything on, except events if it is told so.
struct Relay {
    directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    fn start(passes_events: bool) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let directory = tempfile::tempdir().unwrap();
        let listener =
            tokio::net::UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut far =
                        tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let mut head = vec![0; 16 * 1024];
                    let length = near.read(&mut head).await.unwrap();
                    if passes_events
                        || !String::from_utf8_lossy(&head[..length]).contains("/events")
                    {
                        far.write_all(&head[..length]).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { directory, task }
    }

    async fn docker(&self) -> Docker {
        let host = format!("unix://{}", self.directory.path().join("docker.sock").display());
        let settings = Settings { host: Some(host), ..Settings::default() };
        Docker::connect(Endpoint::resolve(&settings).unwrap(), Deadlines::default()).await.unwrap()
    }
}

#[tokio::test]
async fn without_events_looking_now_and_then_is_enough() {
    let mut project = TestProject::new("deaf");
    // Within its start period it is not called unhealthy, however slow the machine is.
    let checked = ["--health-cmd", "test -e /ready", "--health-interval", "100ms"];
    let options = [&checked[..], &["--health-start-period", "60s"]].concat();
    project.run("late", &options, "sleep 1; touch /ready; sleep 600");
    let relay = Relay::start(false);
    let expectations = Expectations::of(
        &crate::compose::config::parse_v1("services: {late: {}}", project.name.clone()).unwrap(),
    );
    let docker = relay.docker().await;
    let outcome = wait(&docker, &project.name, &expectations, seconds(60, 1), Utc::now(), &|_| ())
        .await
        .unwrap();
    assert!(outcome.judgement.is_good(), "{outcome:?}");
}

#[tokio::test]
async fn a_daemon_that_goes_away_ends_the_wait() {
    let mut project = TestProject::new("gone");
    project.run_checked("never", "false", "sleep 600");
    let relay = Relay::start(true);
    let expectations = Expectations::of(
        &crate::compose::config::parse_v1("services: {never: {}}", project.name.clone()).unwrap(),
    );
    let docker = relay.docker().await;
    let kill = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        relay.task.abort();
        // It is asked again for a while; nothing else is going on here.
        tokio::time::pause();
    };
    let (outcome, ()) = tokio::join!(
        wait(&docker, &project.name, &expectations, seconds(60, 1), Utc::now(), &|_| ()),
        kill
    );
    assert_eq!(crate::error::kind(&outcome.unwrap_err()), crate::error::Kind::Docker);
}
