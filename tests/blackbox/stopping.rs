//! Asked to stop while containers are being stopped and started: what was begun comes to its end.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Deployment, Health, Image, Registry, Running};

/// A deployment whose `web` and database `db` run, each of which takes its time to stop.
fn running_product(topic: &str, registry: &Registry) -> Deployment {
    registry.push(
        Image::new("web")
            .tag("1")
            .tag("latest")
            .script("while :; do sleep 3600 & wait $!; done")
            .health(Health::Passing),
    );
    let deployment = Deployment::new(topic);
    deployment.write_product(&[("web", registry.repository("web"))]);
    let image =
        format!("${{DK_WEB_IMAGE:-{}}}:${{DK_WEB_TAG:-latest}}", registry.repository("web"));
    for (file, name) in [("docker-compose.yml", "web"), ("db-docker-compose.yml", "db")] {
        let service = format!("{{image: '{image}', stop_grace_period: 2s}}");
        deployment.write(file, &format!("services:\n  {name}: {service}\n"));
    }
    let manifest = deployment
        .manifest()
        .replace("services:", "compose: {db_files: [db-docker-compose.yml]}\nservices:");
    deployment.write("version-manifest.yaml", &manifest);
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["start"]).exit(0);
    deployment
}

/// Whether a container of the service runs.
fn runs(deployment: &Deployment, service: &str) -> bool {
    let engine = deployment.engine();
    let names = engine.containers(deployment.project(), service);
    names.iter().any(|name| engine.container(name).is_some_and(|it| it["State"]["Running"] == true))
}

fn run(deployment: &Deployment, command: &str, said: &str) -> Running {
    let mut running = deployment.dkv([command]).spawn();
    running.wait_for_output(said);
    running
}

#[test]
fn what_was_begun_comes_to_its_end_when_dkv_is_asked_to_stop() {
    let registry = Registry::start();
    let deployment = running_product("asked", &registry);
    for (command, said, signal, runs_after) in [
        ("restart", "Stopping", Signal::INT, true),
        ("restart", "Creating", Signal::HUP, true),
        ("down", "Stopping", Signal::TERM, false),
    ] {
        let running = run(&deployment, command, said);
        // To the whole group, as a terminal does.
        running.signal_group(signal);
        let what = format!("{command}, {said}, {signal:?}");
        match signal {
            Signal::HUP => drop(running.exit(0)),
            _ => {
                let outcome = running.exit(130);
                outcome.stderr_contains("comes to its end first; once more stops at once");
                let end =
                    if runs_after { "everything is started" } else { "everything is stopped" };
                outcome.stderr_contains(end);
            }
        }
        for service in ["web", "db"] {
            assert_eq!(runs(&deployment, service), runs_after, "{what}: {service}");
        }
    }
}

#[test]
fn a_second_request_stops_at_once_and_says_what_is_left() {
    let registry = Registry::start();
    let deployment = running_product("twice", &registry);
    let mut running = run(&deployment, "restart", "Stopping");
    let asked = Instant::now();
    running.signal_group(Signal::INT);
    running.wait_for_output("once more stops at once");
    running.signal_group(Signal::INT);
    let outcome = running.exit(130);
    outcome.stderr_contains("interrupted in down, updb and up is left to do");
    outcome.stderr_contains("dkv status");
    assert!(asked.elapsed() < Duration::from_secs(5), "{outcome}");
    // Compose has ended too, so that the lock is free.
    deployment.dkv(["restart", "--lock-timeout", "0"]).exit(0);
    assert!(runs(&deployment, "web") && runs(&deployment, "db"));
}

/// What only pulls or builds leaves nothing half done, and is given up at once.
#[test]
fn what_touches_no_container_is_given_up_at_once() {
    let deployment = Deployment::new("given-up");
    deployment.write_build_context("app", "one");
    let dockerfile = deployment.read("app/Dockerfile");
    deployment.write("app/Dockerfile", &format!("{dockerfile}RUN [\"/bin/sleep\", \"60\"]\n"));
    deployment.write("docker-compose.yml", "services:\n  bot: {build: app}\n");
    for signal in [Signal::INT, Signal::TERM] {
        let running = run(&deployment, "build", "sleep");
        let asked = Instant::now();
        running.signal_group(signal);
        running.exit(130).stderr_contains("interrupted");
        assert!(asked.elapsed() < Duration::from_secs(15));
        deployment.dkv(["down", "--lock-timeout", "0"]).exit(0);
    }
}
