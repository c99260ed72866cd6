//! Logs of real containers of the machine's daemon.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::docker::{ContainerFilter, Deadlines, Docker, Endpoint, Settings};
use crate::model::manifest::LogSettings;

/// A Compose project of nothing but labels, with an image of nothing but busybox; removed with it.
struct TestProject(String);

impl TestProject {
    fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let time =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let name = format!(
            "dkv-logs-{what}-{}-{time}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let busybox =
            std::env::var("DKV_TEST_BUSYBOX").expect("tests/run.sh says where busybox is");
        let mut archive = tar::Builder::new(Vec::new());
        for applet in ["sh", "sleep"] {
            archive.append_path_with_name(&busybox, format!("bin/{applet}")).unwrap();
        }
        let import = Command::new("docker")
            .args(["import", "-", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut import = import.unwrap();
        import.stdin.take().unwrap().write_all(&archive.into_inner().unwrap()).unwrap();
        assert!(import.wait().unwrap().success());
        Self(name)
    }

    async fn docker(&self, arguments: &[&str]) {
        let output = tokio::process::Command::new("docker").args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn run(&self, service: &str, script: &str) -> String {
        let container = format!("{}-{service}", self.0);
        let project = format!("com.docker.compose.project={}", self.0);
        let label = format!("com.docker.compose.service={service}");
        let options = [
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            &container,
            "--label",
            &project,
            "--label",
            &label,
        ];
        self.docker(&[&options[..], &[&self.0, "sh", "-c", script]].concat()).await;
        container
    }

    async fn lines(&self, docker: &Docker, selection: &Selection) -> Vec<String> {
        let mut lines = Vec::new();
        let mut sink = |line: Line| {
            lines.push(format!("{}:{}", line.label, line.text));
            Ok(())
        };
        show(docker, &self.0, selection, Utc::now(), &mut sink).await.unwrap();
        lines
    }
}

impl Drop for TestProject {
    fn drop(&mut self) {
        let filter = format!("label=com.docker.compose.project={}", self.0);
        let list =
            Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        for container in String::from_utf8_lossy(&list.stdout).split_whitespace() {
            let _ = Command::new("docker").args(["rm", "-f", "-v", container]).output();
        }
        let _ = Command::new("docker").args(["image", "rm", &self.0]).output();
    }
}

async fn machine() -> Docker {
    Docker::connect(Endpoint::resolve(&Settings::default()).unwrap(), Deadlines::default())
        .await
        .unwrap()
}

fn of(services: &[&str]) -> Selection {
    Selection {
        services: services.iter().map(|service| (*service).to_owned()).collect(),
        ..Selection::default()
    }
}

/// Waits until as many lines are there, and not for ever.
async fn until(lines: &Mutex<Vec<String>>, count: usize) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(30);
    while lines.lock().unwrap().len() < count {
        assert!(tokio::time::Instant::now() < patience, "{:?}", lines.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn several_logs_are_one_in_order_of_time() {
    let project = TestProject::new("merge");
    let docker = machine().await;
    let until = |file: &str| format!("until [ -e /{file} ]; do sleep 0.05; done");
    let web = project.run("web", &format!("echo one; {}; echo error three >&2", until("go"))).await;
    let db =
        project.run("db", &format!("{}; echo two; {}; echo four", until("go"), until("on"))).await;
    project.run("other", "echo nothing").await;
    for (said, container, file) in [(1, &db, "go"), (2, &web, "go"), (3, &db, "on")] {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        while project.lines(&docker, &of(&["web", "db"])).await.len() < said {
            assert!(tokio::time::Instant::now() < patience, "less than {said} lines");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        project.docker(&["exec", container, "sh", "-c", &format!(": >/{file}")]).await;
    }
    project.docker(&["wait", &web, &db]).await;
    assert_eq!(
        project.lines(&docker, &of(&["web", "db"])).await,
        ["web:one", "db:two", "web:error three", "db:four"]
    );
    let last = Selection { tail: Some(1), ..of(&["web", "db"]) };
    assert_eq!(project.lines(&docker, &last).await, ["web:error three", "db:four"]);
    let matching = Selection {
        tail: Some(1),
        matcher: Matcher::new(false, Some("o")).unwrap(),
        ..of(&["db", "web"])
    };
    assert_eq!(project.lines(&docker, &matching).await, ["web:error three", "db:four"]);
    let trouble = Selection { matcher: Matcher::new(true, None).unwrap(), ..of(&["web", "db"]) };
    assert_eq!(project.lines(&docker, &trouble).await, ["web:error three"]);
}

#[tokio::test]
async fn following_survives_restarts_and_replacements_without_gaps_or_repetitions() {
    let project = TestProject::new("follow");
    let docker = machine().await;
    let web = project.run("web", "echo first $((i+1)); sleep 600").await;
    let lines = Mutex::new(Vec::new());
    let mut sink = |line: Line| {
        lines.lock().unwrap().push(format!("{}:{}", line.label, line.text));
        Ok(())
    };
    let selection = Selection { follow: true, ..of(&["web", "late"]) };
    let act = async {
        until(&lines, 1).await;
        project.docker(&["restart", "-t", "0", &web]).await;
        until(&lines, 2).await;
        project.docker(&["rm", "-f", &web]).await;
        project.run("web", "echo second; sleep 600").await;
        until(&lines, 3).await;
        project.run("late", "echo late").await;
        until(&lines, 4).await;
        // Nothing else comes: every line was shown once.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    tokio::select! {
        result = show(&docker, &project.0, &selection, Utc::now(), &mut sink) => panic!("{result:?}"),
        () = act => {}
    }
    assert_eq!(*lines.lock().unwrap(), ["web:first 1", "web:first 1", "web:second", "late:late"]);
}

#[tokio::test]
async fn a_silent_container_is_followed_for_longer_than_any_deadline() {
    let project = TestProject::new("silent");
    let deadlines = Deadlines {
        connect: Duration::from_millis(500),
        idle: Duration::from_millis(500),
        ..Deadlines::default()
    };
    let docker =
        Docker::connect(Endpoint::resolve(&Settings::default()).unwrap(), deadlines).await.unwrap();
    project.run("web", "sleep 3; echo at last; sleep 600").await;
    let selection = Selection { follow: true, ..of(&["web"]) };
    let mut sink = |line: Line| anyhow::bail!(line.text);
    let shown = tokio::time::timeout(
        Duration::from_secs(30),
        show(&docker, &project.0, &selection, Utc::now(), &mut sink),
    )
    .await;
    assert_eq!(shown.unwrap().unwrap_err().to_string(), "at last");
}

#[tokio::test]
async fn an_error_of_the_sink_ends_the_view() {
    let project = TestProject::new("sink");
    let docker = machine().await;
    project.run("web", "while true; do echo x; sleep 0.1; done").await;
    let selection = Selection { follow: true, ..of(&["web"]) };
    let mut sink = |_: Line| anyhow::bail!("closed");
    let shown = tokio::time::timeout(
        Duration::from_secs(30),
        show(&docker, &project.0, &selection, Utc::now(), &mut sink),
    )
    .await;
    assert_eq!(shown.unwrap().unwrap_err().to_string(), "closed");
}

#[tokio::test]
async fn what_is_saved_of_a_container_is_shown_after_it_is_gone_and_only_once() {
    let project = TestProject::new("archive");
    let docker = machine().await;
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new(directory.path().join("logs"), LogSettings::default());
    let web = project.run("web", "echo one; echo two; sleep 0.2").await;
    project.docker(&["wait", &web]).await;
    let now = Utc::now();
    let containers = docker.containers(&ContainerFilter::project(&project.0)).await.unwrap();
    archive.save(&docker, &containers, &now).await;
    archive.save(&docker, &containers, &now).await;
    project.docker(&["start", &web]).await;
    project.docker(&["wait", &web]).await;
    archive.save(&docker, &containers, &now).await;
    let count = |name: &str| {
        std::fs::read_to_string(directory.path().join("logs").join(name))
            .map_or(0, |text| text.lines().count())
    };
    let files = [now.date_naive(), Utc::now().date_naive()].map(|day| format!("dkv-{day}.log"));
    let total: usize = std::collections::BTreeSet::from(files).iter().map(|name| count(name)).sum();
    assert_eq!(total, 4);

    let since = Some(now - chrono::Duration::hours(1));
    let selection = Selection { since, archives: vec![archive], ..of(&["web"]) };
    let expected = ["web:one", "web:two", "web:one", "web:two"];
    assert_eq!(project.lines(&docker, &selection).await, expected, "while the container is there");
    project.docker(&["rm", "-f", &web]).await;
    assert_eq!(project.lines(&docker, &selection).await, expected, "when it is gone");
    let tail = Selection { tail: Some(3), ..selection.clone() };
    assert_eq!(project.lines(&docker, &tail).await, expected[1..]);
    let other = Selection { services: vec!["db".to_owned()], ..selection };
    assert!(project.lines(&docker, &other).await.is_empty());
}

#[tokio::test]
async fn of_more_than_can_be_saved_soon_the_end_is_saved() {
    let project = TestProject::new("much");
    let docker = machine().await;
    let directory = tempfile::tempdir().unwrap();
    let script = "i=0; while test $i -lt 20000; do echo line $i; i=$((i + 1)); done";
    let web = project.run("web", script).await;
    project.docker(&["wait", &web]).await;
    let containers = docker.containers(&ContainerFilter::project(&project.0)).await.unwrap();
    let minute = Duration::from_secs(60);
    for (name, bounds, expected) in [
        ("bytes", archive::Bounds { lines: 20_000, bytes: 1000, within: minute }, 100),
        ("time", archive::Bounds { lines: 20_000, bytes: 1 << 20, within: Duration::ZERO }, 0),
        ("lines", archive::Bounds { lines: 50, bytes: 1 << 20, within: minute }, 50),
    ] {
        let place = directory.path().join(name);
        let archive = Archive::new(place.clone(), LogSettings::default()).within(bounds);
        archive.save(&docker, &containers, &Utc::now()).await;
        let days = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
        let days = days.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let text: String = days.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert!(text.ends_with("| line 19999\n"), "{name}: {}", &text[text.len() - 100..]);
        // What goes before the end comes to these and no more, and each only once.
        let count = text.lines().count();
        let end = if name == "lines" { 0 } else { 5000 };
        assert!((expected / 2 + end..=expected * 2 + end).contains(&count), "{name}: {count}");
    }
}

#[tokio::test]
async fn an_archive_that_cannot_be_written_stops_nothing() {
    let project = TestProject::new("full");
    let docker = machine().await;
    project.run("web", "echo one").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("logs");
    std::fs::write(&file, "in the way").unwrap();
    let containers = docker.containers(&ContainerFilter::project(&project.0)).await.unwrap();
    Archive::new(file.clone(), LogSettings::default())
        .save(&docker, &containers, &Utc::now())
        .await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), "in the way");
}
