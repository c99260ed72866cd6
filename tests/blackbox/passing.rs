//! `dkv compose`: whatever Compose can do, with the recorded versions, and nothing of Compose's own
//! ways lost.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::deployment::{Compose, compose_file};
use crate::support::{Deployment, Image, Registry, wait_for};

/// `web` and the database `db`, recorded as `one`, while `latest` is `two` here by now.
fn moved_on(topic: &str, registry: &Registry) -> Deployment {
    let deployment = Deployment::new(topic);
    for name in ["web", "db"] {
        registry.push(Image::new(name).tag("latest").version("one"));
    }
    let service = |name: &'static str| [(name, registry.repository(name))];
    let [web, db] = [service("web"), service("db")];
    deployment.write_product(&[web[0].clone(), db[0].clone()]);
    deployment.write("docker-compose.yml", &compose_file(&web));
    deployment.write("db-docker-compose.yml", &compose_file(&db));
    deployment.dkv(["pull-latest"]).exit(0);
    for name in ["web", "db"] {
        let two = registry.push(Image::new(name).tag("latest").version("two"));
        let repository = registry.repository(name);
        deployment.engine().docker(&["pull", "-q", &two.pin()]);
        deployment.engine().docker(&["tag", &two.pin(), &format!("{repository}:latest")]);
    }
    deployment
}

fn passes_everything_with(compose: Compose) {
    let registry = Registry::start();
    let deployment = moved_on("pass", &registry);
    let dkv = |args: &[&'static str]| deployment.dkv(args.iter().copied()).compose(compose);
    let project = deployment.project();
    let running = |service| deployment.engine().containers(project, service).len();

    dkv(&["compose", "up", "-d", "web"]).exit(0);
    assert_eq!(deployment.engine().version(project, "web"), "one", "what is recorded");
    assert_eq!(running("db"), 0, "only what was named");
    dkv(&["compose", "exec", "-T", "web", "cat", "/version"]).exit(0).stdout_contains("one");
    // A command's own exit code, also one that means something else here.
    for code in ["10", "37"] {
        let script = format!("exit {code}");
        deployment
            .dkv(["compose", "exec", "-T", "web", "sh", "-c", &script])
            .compose(compose)
            .exit(code.parse().unwrap());
    }
    // All files of the deployment are meant, as they are one project.
    dkv(&["compose", "config", "--services"]).exit(0).stdout_contains("db").stdout_contains("web");
    dkv(&["compose", "-f", "db-docker-compose.yml", "config", "--services"])
        .exit(0)
        .stdout_lacks("web");
    // What it reads, and where it writes.
    dkv(&["compose", "exec", "-T", "web", "cat"])
        .stdin("through")
        .exit(0)
        .stdout_contains("through");
    assert_eq!(dkv(&["compose", "ps", "-q"]).exit(0).stderr, "", "nothing of dkv's own");
    let version = || deployment.engine().version(project, "web");
    if compose == Compose::V2 {
        // The lasting way that the README names.
        let plain = || deployment.compose_v2(["up", "-d", "web"]);
        plain().env("COMPOSE_ENV_FILES", "versions.env").exit(0);
        assert_eq!(version(), "one");
        plain().exit(0);
        assert_eq!(version(), "two", "past the record");
        deployment.dkv(["status"]).exit(0).stdout_contains("not");
        deployment.dkv(["verify"]).exit(10).stdout_contains("web");
        dkv(&["compose", "up", "-d", "web"]).exit(0);
        assert_eq!(version(), "one");
    }
    let help = dkv(&["compose", "--help"]).exit(0);
    help.stdout_contains("COMMAND").stdout_lacks("dkv");
    dkv(&["help", "compose"]).exit(0).stdout_contains("dkv compose exec web sh");
    dkv(&["compose", "down"]).exit(0);
    assert_eq!(running("web"), 0);
}

#[test]
fn everything_is_passed_on_with_the_recorded_versions_v2() {
    passes_everything_with(Compose::V2);
}

#[test]
fn everything_is_passed_on_with_the_recorded_versions_v1() {
    passes_everything_with(Compose::V1);
}

#[test]
fn what_compose_says_of_itself_takes_no_deployment() {
    let empty = Deployment::new("itself");
    empty.dkv(["compose", "version"]).exit(0).stdout_contains("Compose version");
    empty.dkv(["compose", "--help"]).exit(0).stdout_lacks("dkv");
    empty.dkv(["compose", "ps"]).exit(3).stderr_contains("no Compose file");
}

#[test]
fn terminal_and_signals_are_composes_own() {
    let registry = Registry::start();
    let deployment = moved_on("own", &registry);
    deployment.dkv(["compose", "up", "-d", "web"]).exit(0);
    deployment
        .dkv(["compose", "exec", "web", "sh", "-c", "test -t 0 && echo a terminal"])
        .tty()
        .exit(0)
        .stdout_contains("a terminal");
    // The process is Compose by then, and ends as that does.
    let attended = deployment.dkv(["compose", "logs", "-f", "web"]).spawn();
    let name = format!("/proc/{}/comm", attended.pid());
    wait_for("Compose in dkv's place", Duration::from_secs(60), || {
        fs::read_to_string(&name).ok().filter(|comm| comm.trim() != "dkv")
    });
    attended.signal(Signal::TERM);
    let outcome = attended.finish();
    assert_ne!(outcome.code(), Some(0), "{outcome}");
    outcome.stderr_lacks("nothing was recorded");
}

#[test]
fn what_changes_containers_takes_its_turn_and_what_looks_does_not_wait() {
    let registry = Registry::start();
    let stubborn = "trap '' TERM; while :; do sleep 1; done";
    registry.push(Image::new("web").tag("latest").version("one").script(stubborn));
    let deployment = Deployment::new("turn");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["compose", "up", "-d", "web"]).exit(0);
    // Held by Compose itself, which dkv has become.
    let mut slow = deployment.dkv(["compose", "stop", "-t", "8", "web"]).spawn();
    let name = format!("/proc/{}/comm", slow.pid());
    wait_for("Compose in dkv's place", Duration::from_secs(60), || {
        fs::read_to_string(&name).ok().filter(|comm| comm.trim() != "dkv")
    });
    deployment
        .dkv(["--lock-timeout", "0", "compose", "restart", "web"])
        .exit(4)
        .stderr_contains("dkv compose");
    deployment.dkv(["--lock-timeout", "0", "compose", "ps", "-q"]).exit(0);
    assert!(slow.is_running(), "what changes nothing does not wait");
    slow.exit(0);
    deployment.dkv(["--lock-timeout", "0", "compose", "start", "web"]).exit(0);
}

#[test]
fn a_build_does_not_take_the_place_of_the_recorded_one() {
    let deployment = Deployment::new("rebuild");
    deployment.write_build_context("app", "one");
    let name = format!("dkv-tests/{}", deployment.project());
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  app:\n    build: app\n    image: \
            ${{DK_APP_IMAGE:-{name}}}:${{DK_APP_TAG:-latest}}\n"
        ),
    );
    deployment.dkv(["compose", "build"]).exit(0);
    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    deployment.write_build_context("app", "two");
    let refused = deployment.dkv(["compose", "up", "-d", "--build"]).exit(2);
    refused.stderr_contains("app").stderr_contains("`dkv build`");
    assert_eq!(deployment.engine().version(deployment.project(), "app"), "one");
    // Built, and said not to be recorded: what is recorded starts.
    deployment.dkv(["compose", "build"]).exit(0).stderr_contains("not recorded");
    deployment.dkv(["compose", "up", "-d"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "app"), "one");
    deployment.dkv(["build"]).exit(0);
    deployment.dkv(["compose", "up", "-d"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "app"), "two");
}

#[test]
fn a_line_that_does_not_follow_the_record_is_told_before_it_starts() {
    let registry = Registry::start();
    let deployment = moved_on("literal", &registry);
    let repository = registry.repository("web");
    deployment
        .write("docker-compose.yml", &format!("services:\n  web:\n    image: {repository}\n"));
    deployment
        .dkv(["compose", "up", "-d", "web"])
        .exit(0)
        .stderr_contains("not all that starts is what is recorded")
        .stderr_contains("docker-compose.yml:3");
    deployment.dkv(["compose", "ps"]).exit(0).stderr_lacks("recorded");
}
