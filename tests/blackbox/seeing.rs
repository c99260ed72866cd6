//! `status`, `info`, `logs` and their kin on real containers, and how commands end when they are
//! interrupted.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::deployment::Compose;
use crate::support::{Deployment, Engine, Fault, Health, Image, On, Proxy, Registry, wait_for};

/// A service that lives until it is stopped.
const SERVE: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done";

/// A deployment with one image, `web:1` in a manifest as well as in the daemon, for services of any
/// command.
struct Bench {
    registry: Registry,
    deployment: Deployment,
    image: String,
}

impl Bench {
    fn new(topic: &str) -> Self {
        let registry = Registry::start();
        let pushed = registry.push(Image::new("web").tag("1"));
        let deployment = Deployment::new(topic);
        deployment.engine().docker(&["pull", "-q", &pushed.pin()]);
        let image = registry.repository("web");
        deployment.write(
            "version-manifest.yaml",
            &format!(
                "schema_version: '1.1'\nservices:\n  web:\n    image: {image}\n    current_tag: \
                    '1'\n    image_digest: {}\n",
                pushed.digest
            ),
        );
        Self { registry, deployment, image: pushed.pin() }
    }

    /// Writes a Compose file of services given as name, shell script and further YAML in braces.
    fn compose(&self, file: &str, services: &[(&str, &str, &str)]) {
        let mut text = "services:\n".to_owned();
        for (name, script, more) in services {
            let command = json!(["/bin/sh", "-c", script.replace('$', "$$")]);
            text += &format!("  {name}: {{image: '{}', command: {command}{more}}}\n", self.image);
        }
        self.deployment.write(file, &text);
    }

    fn container(&self, service: &str) -> String {
        self.deployment.engine().containers(self.deployment.project(), service).swap_remove(0)
    }
}

fn line<'a>(status: &'a Value, service: &str) -> &'a Value {
    let lines = status["containers"].as_array().unwrap();
    lines
        .iter()
        .find(|line| line["compose_service"] == service)
        .unwrap_or_else(|| panic!("no {service} in {status:#}"))
}

#[test]
fn status_shows_problems_first_with_their_causes() {
    let bench = Bench::new("status");
    let other = bench.registry.push(Image::new("nginx").tag("stable"));
    let check = |command: &str| {
        format!(", healthcheck: {{test: [CMD, {command}], interval: 200ms, retries: 1}}")
    };
    let (failing, passing) = (check("'false'"), check("'true'"));
    bench.compose(
        "docker-compose.yml",
        &[
            ("settings", SERVE, &failing),
            ("router", SERVE, ", depends_on: {settings: {condition: service_healthy}}"),
            ("looper", "echo no configuration; exit 3", ", restart: always"),
            ("migrate", "echo migrated", ", restart: 'no'"),
            ("app", SERVE, ", depends_on: {migrate: {condition: service_completed_successfully}}"),
            ("gone", SERVE, ""),
        ],
    );
    bench.compose("db-docker-compose.yml", &[("postgres", SERVE, &passing)]);
    let compose = bench.deployment.read("docker-compose.yml");
    bench.deployment.write(
        "docker-compose.yml",
        &format!(
            "{compose}  nginx: {{image: '{}'}}\n",
            bench.registry.repository("nginx") + ":stable"
        ),
    );
    let files = ["-f", "docker-compose.yml", "-f", "db-docker-compose.yml", "up", "-d"];
    bench.deployment.compose_v2(files).exit(1);
    // Compose gave up when the settings failed, perhaps before it had started these.
    bench
        .deployment
        .compose_v2(files.into_iter().chain(["app", "nginx", "looper", "postgres"]))
        .exit(0);
    bench.deployment.engine().docker(&["rm", "-f", &bench.container("gone")]);
    let restarts = |service: &str| {
        bench.deployment.engine().docker(&[
            "inspect",
            "-f",
            "{{.RestartCount}}",
            &bench.container(service),
        ])
    };
    wait_for("a restart loop", Duration::from_secs(20), || {
        (restarts("looper").parse::<u32>().unwrap() >= 3).then_some(())
    });
    wait_for("a healthy database", Duration::from_secs(20), || {
        let format = "{{.State.Health.Status}}";
        (bench.deployment.engine().docker(&["inspect", "-f", format, &bench.container("postgres")])
            == "healthy")
            .then_some(())
    });
    // Without a health check, containers must have run for five seconds.
    let status = wait_for("stable containers", Duration::from_secs(30), || {
        let status = bench.deployment.dkv(["status", "--json"]).exit(0).json();
        let is_stable = |service: &str| line(&status, service)["verdict"] == "unchecked";
        (is_stable("app") && is_stable("nginx")).then_some(status)
    });
    assert_eq!(
        (&status["schema"], &status["command"], &status["healthy"]),
        (&json!(1), &json!("status"), &json!(false))
    );
    assert_eq!(
        (&status["project"], &status["complete"]),
        (&json!(bench.deployment.project()), &json!(true))
    );
    for (service, state, health, verdict, tracked, database) in [
        ("settings", "running", json!("unhealthy"), "failed", true, false),
        ("router", "created", json!(null), "failed", true, false),
        ("gone", "missing", json!(null), "failed", true, false),
        ("migrate", "exited", json!(null), "completed", true, false),
        ("app", "running", json!(null), "unchecked", true, false),
        ("nginx", "running", json!(null), "unchecked", false, false),
        ("postgres", "running", json!("healthy"), "healthy", true, true),
    ] {
        let line = line(&status, service);
        let seen = (&line["health"], &line["verdict"], &line["tracked"], &line["database"]);
        assert_eq!(
            seen,
            (&health, &json!(verdict), &json!(tracked), &json!(database)),
            "{service}: {line:#}"
        );
        assert_eq!(line["state"], state, "{service}: {line:#}");
    }
    assert_eq!(
        (&line(&status, "app")["as_recorded"], &line(&status, "app")["tag"]),
        (&json!(true), &json!("1"))
    );
    assert_eq!(
        (&line(&status, "nginx")["as_recorded"], &line(&status, "nginx")["tag"]),
        (&json!(null), &json!("stable"))
    );
    assert_eq!(line(&status, "nginx")["digest"], json!(other.digest));
    // Caught between two restarts or in the moment in which it runs.
    let looper = line(&status, "looper");
    assert!(
        looper["restarts"].as_i64().unwrap() >= 3
            && looper["problem"].to_string().contains("keeps restarting"),
        "{looper:#}"
    );
    assert_eq!(looper["verdict"], "failed");
    assert_eq!(line(&status, "migrate")["exit_code"], 0);
    let is_problem = |line: &Value| !line["problem"].as_array().unwrap().is_empty();
    let places: Vec<bool> =
        status["containers"].as_array().unwrap().iter().map(is_problem).collect();
    assert!(places.is_sorted_by(|a, b| a >= b), "problems first: {places:?}");
    let problem = line(&status, "router")["problem"].to_string();
    assert!(problem.contains("router waits for settings (healthy)"), "{problem}");

    let text = bench.deployment.dkv(["status"]).exit(0);
    text.stdout_contains("router waits for settings (healthy)")
        .stdout_contains("no configuration")
        .stdout_contains("untracked");
    text.stdout_contains("keeps restarting")
        .stdout_contains("gone: has no container")
        .stdout_contains("SERVICE");
    let first = text.stdout.lines().next().unwrap();
    assert!(["settings", "looper", "gone"].iter().any(|name| first.starts_with(name)), "{text}");
}

#[test]
fn status_tells_what_runs_from_what_is_recorded() {
    let mut registry = Registry::alone();
    let old = registry.push(Image::new("web").tag("1"));
    let new = registry.push(Image::new("web").tag("2").tag("latest"));
    let deployment = Deployment::new("drift");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["version-pull", "web", "1"]).exit(0);
    deployment.dkv(["up", "--no-wait"]).exit(0);
    let matching = deployment.dkv(["status", "--json"]).exit(0).json();
    let web = line(&matching, "web");
    assert_eq!(
        (&web["as_recorded"], &web["tag"], &web["digest"]),
        (&json!(true), &json!("1"), &json!(old.digest))
    );

    deployment.dkv(["version-pull", "web", "2"]).exit(0);
    // A record from a host of another platform has another ID for the same digest.
    let strange = old.image_id().replace("sha256:", "").chars().rev().collect::<String>();
    let [own, other] =
        [new.image_id(), &format!("sha256:{strange}")].map(|id| format!("image_id: {id}"));
    let manifest = deployment.manifest().replace(&own, &other);
    deployment.write("version-manifest.yaml", &manifest);
    let outcome = deployment.dkv(["status"]).exit(0);
    outcome.stdout_contains("the manifest says 2").stderr_contains("dkv up");
    let drifted = deployment.dkv(["info", "--json"]).exit(0).json();
    let web = line(&drifted, "web");
    assert_eq!(
        (&web["as_recorded"], &web["tag"], &web["digest"]),
        (&json!(false), &json!("1"), &json!(old.digest))
    );
    assert_eq!(
        (&web["recorded"]["tag"], &drifted["services"][0]["tag"]),
        (&json!("2"), &json!("2"))
    );
    deployment.dkv(["up", "--no-wait"]).exit(0);
    assert_eq!(
        line(&deployment.dkv(["status", "--json"]).exit(0).json(), "web")["as_recorded"],
        true
    );

    let health = deployment.dkv(["health", "--json"]).exit(0).json();
    assert_eq!(
        (&line(&health, "web")["tag"], &health["services"][0]["state"]),
        (&json!("2"), &json!("up-to-date"))
    );
    registry.stop();
    deployment.dkv(["health"]).exit(9).stdout_contains("running").stdout_contains("unknown");
}

#[test]
fn logs_need_no_valid_manifest() {
    let bench = Bench::new("unreadable");
    bench.compose("docker-compose.yml", &[("web", "echo still here; exec sleep 3600", "")]);
    bench.deployment.compose_v2(["up", "-d"]).exit(0);
    bench.deployment.write("version-manifest.yaml", "services: [");
    wait_for("its line", Duration::from_secs(20), || {
        let logs = bench.deployment.dkv(["logs"]).exit(0);
        logs.stderr_contains("going on without the manifest").stderr_contains("line 2");
        logs.stdout.contains("still here").then_some(())
    });
    bench.deployment.dkv(["status"]).exit(3);
}

#[test]
fn status_needs_neither_compose_nor_manifest() {
    let bench = Bench::new("labels");
    bench.compose("docker-compose.yml", &[("web", SERVE, "")]);
    std::fs::remove_file(bench.deployment.path("version-manifest.yaml")).unwrap();
    bench
        .deployment
        .compose_v2(["-p", &format!("{}-named", bench.deployment.project()), "up", "-d"])
        .exit(0);
    let by_label = bench.deployment.dkv(["status", "--json"]).compose(Compose::Neither).exit(0);
    by_label.stderr_contains("not installed");
    let project = format!("{}-named", bench.deployment.project());
    assert_eq!(
        (&by_label.json()["project"], &by_label.json()["complete"]),
        (&json!(project), &json!(false))
    );
    assert_eq!(line(&by_label.json(), "web")["tracked"], false);
    bench
        .deployment
        .dkv(["info"])
        .env("COMPOSE_PROJECT_NAME", &project)
        .exit(0)
        .stderr_contains("no manifest");
    bench.deployment.dkv(["status"]).exit(0).stdout_contains("web: has no container");
    bench.deployment.engine().remove_project(&project);

    let empty = Deployment::new("empty");
    empty.dkv(["status"]).exit(3).stderr_contains("no Compose file");
    empty.dkv(["status"]).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").exit(6);
}

#[test]
fn a_watched_status_tells_of_changes_until_it_is_interrupted() {
    let bench = Bench::new("watch");
    bench.compose("docker-compose.yml", &[("web", SERVE, "")]);
    bench.deployment.compose_v2(["up", "-d"]).exit(0);
    let mut watch = bench.deployment.dkv(["status", "--watch"]).spawn();
    watch.wait_for_output("web: running");
    bench.deployment.engine().docker(&["kill", &bench.container("web")]);
    watch.wait_for_output("web: exited failed");
    watch.signal(Signal::INT);
    watch.exit(130).stderr_lacks("error");
}

#[test]
fn logs_of_both_files_are_merged_filtered_and_end_in_a_pipe() {
    let bench = Bench::new("logs");
    let say = |number: u32| {
        format!(
            "sleep 0.{number}; echo line {number}; sleep 0.5; echo ERROR {number} failed; {SERVE}"
        )
    };
    bench.compose("docker-compose.yml", &[("web", &say(1), ""), ("api", &say(3), "")]);
    bench.compose("db-docker-compose.yml", &[("postgres", &say(2), "")]);
    for file in ["db-docker-compose.yml", "docker-compose.yml"] {
        bench.deployment.compose_v2(["-f", file, "create"]).exit(0);
    }
    // All at one moment, so that their lines alternate.
    let containers = ["web", "api", "postgres"].map(|service| bench.container(service));
    bench
        .deployment
        .engine()
        .docker(&[&["start"], &containers.each_ref().map(String::as_str)[..]].concat());
    wait_for("all lines", Duration::from_secs(60), || {
        (bench.deployment.dkv(["logs"]).exit(0).stdout.lines().count() == 6).then_some(())
    });

    let documents: Vec<Value> = bench
        .deployment
        .dkv(["logs", "--json"])
        .exit(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document on each line"))
        .collect();
    let times: Vec<&str> = documents.iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        documents
            .iter()
            .filter(|line| line["service"] == "postgres" && line["command"] == "logs")
            .count(),
        2
    );

    let count =
        |args: &[&str]| bench.deployment.dkv(args.iter().copied()).exit(0).stdout.lines().count();
    for (args, expected) in [
        (&["logs", "web"][..], 2),
        (&["logs", "web", "api"], 4),
        (&["logs", "-n", "1"], 3),
        (&["logs", "-n", "1", "--grep", "line"], 3),
        (&["logs", "--errors"], 3),
        (&["logs", "--errors", "--grep", "1|2"], 2),
        (&["logs", "--db"], 2),
        (&["logs", "--since", "1h"], 6),
        (&["logs", "--until", "1h"], 0),
        (&["logs-errors", "web"], 1),
        (&["dblogs"], 2),
        (&["dblogs-errors"], 1),
        (&["dblogs-today", "postgres"], 2),
    ] {
        assert_eq!(count(args), expected, "{args:?}");
    }
    let first = bench.deployment.dkv(["logs", "web", "-n1"]).exit(0);
    assert_eq!(first.stdout, "web | ERROR 1 failed\n");
    let coloured = bench.deployment.dkv(["logs", "--color", "always"]).exit(0);
    coloured
        .stdout_contains("\u{1b}[36mapi      | \u{1b}[0mline 3")
        .stdout_contains("mpostgres | ");
    bench
        .deployment
        .dkv(["logs", "wbe"])
        .exit(2)
        .stderr_contains("no service `wbe`")
        .stderr_contains("web");
    bench.deployment.dkv(["dblogs", "api"]).exit(2).stderr_contains("no database service `api`");
    bench.deployment.dkv(["logs", "--grep", "("]).exit(2);
    // No further line would tell that the reader is gone.
    let head = format!("'{}' logs -f web -n1 | head -1", env!("CARGO_BIN_EXE_dkv"));
    let piped = bench.deployment.command(
        &crate::support::program("bash"),
        ["-c", &format!("{head}; exit ${{PIPESTATUS[0]}}")],
    );
    let piped = piped.env("PATH", std::env::var("PATH").unwrap()).exit(0);
    assert_eq!((piped.stdout.lines().count(), piped.stderr.as_str()), (1, ""));
}

#[test]
fn a_manifest_name_stands_for_all_compose_services_of_its_image() {
    let bench = Bench::new("names");
    let say = |text: &str| format!("echo {text}; {SERVE}");
    bench.compose(
        "docker-compose.yml",
        &[("bot-one", &say("one"), ""), ("bot-two", &say("two"), "")],
    );
    bench.deployment.compose_v2(["up", "-d"]).exit(0);
    wait_for("both lines", Duration::from_secs(60), || {
        (bench.deployment.dkv(["logs", "web"]).exit(0).stdout.lines().count() == 2).then_some(())
    });
    bench.deployment.dkv(["logs", "bot-one"]).exit(0).stdout_contains("one").stdout_lacks("two");
    bench
        .deployment
        .dkv(["logs", "web"])
        .compose(Compose::Neither)
        .exit(0)
        .stdout_contains("bot-one | one");
}

#[test]
fn a_followed_log_survives_restarts_and_ends_with_ctrl_c() {
    let bench = Bench::new("follow");
    bench.compose(
        "docker-compose.yml",
        &[("web", &format!("echo started $(hostname) at $(date +%s%N); {SERVE}"), "")],
    );
    bench.deployment.compose_v2(["up", "-d"]).exit(0);
    let mut following = bench.deployment.dkv(["logs", "-f"]).spawn();
    following.wait_for_output("web | started");
    for _ in 0..2 {
        let before = following.output().lines().count();
        bench.deployment.engine().docker(&["restart", "-t1", &bench.container("web")]);
        wait_for("the line of another start", Duration::from_secs(60), || {
            (following.output().lines().count() > before).then_some(())
        });
    }
    bench.deployment.compose_v2(["up", "-d", "--force-recreate", "-t1"]).exit(0);
    wait_for("the line of another container", Duration::from_secs(60), || {
        (following.output().lines().count() == 4).then_some(())
    });
    following.signal(Signal::INT);
    let outcome = following.exit(130);
    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.as_str()), (4, ""));

    let mut terminal = bench.deployment.dkv(["logs"]).tty().spawn();
    terminal.wait_for_output("web | started");
    // A terminal is followed.
    bench.deployment.engine().docker(&["restart", "-t1", &bench.container("web")]);
    wait_for("the line of another start", Duration::from_secs(60), || {
        (terminal.output().matches("web | started").count() > 1).then_some(())
    });
    bench.deployment.dkv(["logs", "--no-follow"]).tty().exit(0);
}

#[test]
fn what_goes_is_kept_in_the_archives() {
    let bench = Bench::new("archive");
    let say = |text: &str| format!("echo {text}; {SERVE}");
    let last = "trap 'echo its last words; exit 0' TERM; echo of the application; while :; do \
        sleep 3600 & wait $!; done";
    bench.compose("docker-compose.yml", &[("web", last, "")]);
    bench.compose("db-docker-compose.yml", &[("postgres", &say("of the database"), "")]);
    bench.deployment.dkv(["start", "--no-wait"]).exit(0);
    assert_eq!(bench.deployment.list("logs"), Vec::<String>::new());
    bench.deployment.dkv(["restart", "--no-wait"]).exit(0);
    let files = |directory: &str| {
        let names = bench.deployment.list(directory);
        names
            .iter()
            .filter(|name| name.ends_with(".log"))
            .map(|name| bench.deployment.read(&format!("{directory}/{name}")))
            .collect::<String>()
    };
    assert_eq!(files("logs").matches("of the application").count(), 1);
    assert_eq!(files("logs").matches("its last words").count(), 1);
    assert_eq!(files("dblogs").matches("of the database").count(), 1);
    assert!(!files("logs").contains("database"));
    let today = bench.deployment.dkv(["logs-today"]).exit(0);
    assert_eq!(today.stdout.matches("of the application").count(), 2, "archived and live\n{today}");

    // The application alone is replaced.
    bench.compose("docker-compose.yml", &[("web", &say("of another application"), "")]);
    bench.deployment.dkv(["up", "--no-wait"]).exit(0);
    assert_eq!(files("logs").matches("of the application").count(), 2);
    assert_eq!(files("logs").matches("its last words").count(), 2);
    bench.deployment.dkv(["down"]).exit(0);
    assert_eq!(files("dblogs").matches("of the database").count(), 2);
    assert_eq!(files("logs").matches("of another application").count(), 1);
    let after = bench.deployment.dkv(["logs-today"]).exit(0);
    assert_eq!(
        (
            after.stdout.matches("application").count(),
            after.stdout.matches("of the database").count()
        ),
        (3, 2),
        "{after}"
    );
    bench.deployment.dkv(["logs"]).exit(0).stderr_contains("--since 7d");
    bench
        .deployment
        .dkv(["dblogs-today"])
        .compose(Compose::Neither)
        .exit(0)
        .stdout_contains("postgres | of the database");

    bench.deployment.dkv(["up", "--no-wait"]).exit(0);
    std::fs::remove_dir_all(bench.deployment.path("logs")).unwrap();
    bench.deployment.write("logs", "no directory");
    bench.deployment.dkv(["down"]).exit(0).stderr_contains("warning").stderr_contains("not saved");
}

#[test]
fn what_an_update_replaces_is_kept() {
    let registry = Registry::start();
    let old = registry.push(
        Image::new("web").tag("1").tag("latest").health(Health::Passing).health_interval_ms(200),
    );
    let deployment = Deployment::new("replaced");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    let new = registry.push(
        Image::new("web").tag("2").tag("latest").health(Health::Passing).health_interval_ms(200),
    );
    assert_ne!(old.digest, new.digest);
    deployment.dkv(["update-safe", "--no-data-backup"]).exit(0);
    let shown = deployment.dkv(["logs-today"]).exit(0);
    shown.stdout_contains("web | serving 1").stdout_contains("web | serving 2");
}

/// How soon an interrupted command ends, with room for a busy machine; what it waits for takes
/// longer.
const PROMPT: Duration = Duration::from_secs(10);

#[test]
fn an_interrupted_pull_leaves_everything_as_it_was() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("stalled");
    deployment.write_product(&[("web", proxy.repository("web"))]);
    let before = deployment.manifest();
    // The configuration, which no other test has: the daemon fetches a layer once for all who want
    // it.
    let blob = format!("/blobs/{}", pushed.config_digest());
    proxy.fault(On::target(&blob), Fault::Stall);
    for (signal, requests) in [(Signal::INT, 1), (Signal::TERM, 2)] {
        let pulling = deployment.dkv(["pull-latest"]).spawn();
        wait_for("a request", Duration::from_secs(60), || {
            (proxy.count("GET", &blob) == requests).then_some(())
        });
        let asked = Instant::now();
        pulling.signal(signal);
        pulling.exit(130).stderr_contains("interrupted; nothing was recorded");
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        assert_eq!(deployment.manifest(), before);
        assert!(!deployment.exists("versions.env"));
    }
    proxy.reset();
    deployment.dkv(["version-pull", "web", "1", "--no-pull", "--lock-timeout", "1"]).exit(0);
}

#[test]
fn an_interrupted_start_says_what_it_left() {
    let bench = Bench::new("waiting");
    let check = ", healthcheck: {test: [CMD, 'false'], interval: 200ms, start_period: 60s}";
    bench.compose("docker-compose.yml", &[("web", SERVE, check)]);
    let mut starting = bench.deployment.dkv(["up"]).spawn();
    starting.wait_for_output("web  starting");
    let asked = Instant::now();
    starting.signal(Signal::INT);
    let outcome = starting.exit(130);
    outcome.stderr_contains("containers stay as they are now").stderr_contains("dkv status");
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    assert_eq!(bench.deployment.engine().containers(bench.deployment.project(), "web").len(), 1);
    bench.deployment.dkv(["down", "--lock-timeout", "1"]).exit(0);
}

#[test]
fn compose_ends_before_dkv_when_interrupted() {
    let bench = Bench::new("compose");
    // Compose itself waits here, for the health of another service.
    let check = ", healthcheck: {test: [CMD, 'false'], interval: 200ms, start_period: 60s}";
    bench.compose(
        "docker-compose.yml",
        &[
            ("web", SERVE, check),
            ("api", SERVE, ", depends_on: {web: {condition: service_healthy}}"),
        ],
    );
    let mut starting = bench.deployment.dkv(["up"]).spawn();
    // It has started the one and waits before it starts the other.
    wait_for("a running container", Duration::from_secs(60), || {
        let name = bench.deployment.engine().containers(bench.deployment.project(), "web").pop()?;
        (bench.deployment.engine().container(&name)?["State"]["Running"] == true).then_some(())
    });
    // To the whole group, as Ctrl-C on a terminal: Compose does not hear of the first.
    starting.signal_group(Signal::INT);
    starting.wait_for_output("once more stops at once");
    starting.signal_group(Signal::INT);
    starting.exit(130).stderr_contains("interrupted in up");
}

/// All processes below one.
fn descendants(pid: u32) -> Vec<i32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse::<i32>().unwrap());
    children
        .flat_map(|child| std::iter::once(child).chain(descendants(child.cast_unsigned())))
        .collect()
}

fn is_running(pid: i32, program: &str) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path == std::path::Path::new(program))
}

#[test]
fn waiting_for_a_lock_and_for_an_answer_can_be_interrupted() {
    let bench = Bench::new("lock");
    let check = ", healthcheck: {test: [CMD, 'false'], interval: 200ms, start_period: 60s}";
    bench.compose("docker-compose.yml", &[("web", SERVE, check)]);
    let mut holder = bench.deployment.dkv(["up"]).spawn();
    holder.wait_for_output("web  starting");
    let mut waiting = bench.deployment.dkv(["down", "--lock-timeout", "60"]).spawn();
    waiting.wait_for_output("Waiting for");
    waiting.signal(Signal::INT);
    waiting.exit(130).stderr_contains("interrupted while waiting for").stderr_contains("dkv up");
    holder.signal(Signal::INT);
    holder.exit(130);

    let registry = Registry::start();
    registry.push(Image::new("web").tag("1"));
    registry.push(Image::new("web").tag("2"));
    let deployment = Deployment::new("question");
    deployment.write_product(&[("web", registry.repository("web"))]);
    for tag in ["1", "2"] {
        deployment.dkv(["version-pull", "web", tag, "--no-pull"]).exit(0);
    }
    let before = deployment.manifest();
    // A terminal on which nobody types: a pipe that is open for writing, too, has no end.
    let pipe = deployment.home().join("typed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let script = crate::support::program("script").display().to_string();
    let line = format!(
        "exec {script} -qec '{} rollback' /dev/null <>'{}'",
        env!("CARGO_BIN_EXE_dkv"),
        pipe.display()
    );
    let mut asking = deployment.command(&crate::support::program("sh"), ["-c", &line]).spawn();
    asking.wait_for_output("[y/N]");
    let asker = descendants(asking.pid())
        .into_iter()
        .find(|pid| is_running(*pid, env!("CARGO_BIN_EXE_dkv")))
        .unwrap();
    kill_process(Pid::from_raw(asker).unwrap(), Signal::INT).unwrap();
    asking.exit(130).stdout_contains("interrupted; nothing was changed");
    assert_eq!(deployment.manifest(), before);
}

/// An image's ID is no digest, and looks like one in a table.
#[test]
fn tables_show_only_digests_as_digests() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.0"));
    let deployment = Deployment::new("digest");
    let local = format!("{}-local", deployment.project());
    let id = deployment.load(&local, Image::new("local").tag("1.0"));
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  web: {{image: '{}:1.0'}}\n  local: {{image: '{local}:1.0'}}\n",
            registry.repository("web")
        ),
    );
    for command in [&["up"][..], &["status"], &["restart"]] {
        let text = deployment.dkv(command.iter().copied()).exit(0);
        text.stdout_contains(&pushed.digest[7..19]);
        // On the other store an ID is a digest.
        if !Engine::has_containerd_store() {
            text.stdout_lacks(&pushed.image_id()[7..19]).stdout_lacks(&id[7..19]);
        }
    }
    deployment.dkv(["down"]).exit(0);
    deployment.dkv(["status"]).exit(0).stderr_contains("`dkv start`");
}
