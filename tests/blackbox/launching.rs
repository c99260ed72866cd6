//! What runs is what was meant: Compose does not decide again what dkv has decided, and what the
//! operator did at run time stays.

use crate::support::deployment::Compose;
use crate::support::{Deployment, Image, Registry};

/// Pushes `name` under `latest`; another version is another digest. The image's ID.
fn publish(registry: &Registry, name: &str, version: &str) -> String {
    registry.push(Image::new(name).tag("latest").version(version)).image_id().to_owned()
}

/// What the containers of a Compose service run, each once.
fn images(deployment: &Deployment, service: &str) -> Vec<String> {
    let engine = deployment.engine();
    let names = engine.containers(deployment.project(), service).into_iter();
    let images =
        names.map(|name| engine.container(&name).unwrap()["Image"].as_str().unwrap().to_owned());
    let mut images: Vec<String> = images.collect();
    images.dedup();
    images
}

/// Some services in Compose's words after the field's own image line, which is `@NAME` here.
fn compose_text(registry: &Registry, text: &str) -> String {
    let mut written = text.to_owned();
    for name in ["web", "api"] {
        let variable = name.to_uppercase();
        let line = format!(
            "image: '${{DK_{variable}_IMAGE:-{}}}:${{DK_{variable}_TAG:-latest}}'",
            registry.repository(name)
        );
        written = written.replace(&format!("@{name}"), &line);
    }
    written
}

/// A recorded product of `web` and `api` whose Compose file says this.
fn product(topic: &str, registry: &Registry, text: &str) -> Deployment {
    let deployment = Deployment::new(topic);
    deployment
        .write_product(&[("web", registry.repository("web")), ("api", registry.repository("api"))]);
    deployment.write("docker-compose.yml", &compose_text(registry, text));
    for name in ["web", "api"] {
        publish(registry, name, "one");
    }
    deployment.dkv(["pull-latest"]).exit(0);
    deployment
}

/// The containers of a Compose service that run.
fn running(deployment: &Deployment, service: &str) -> usize {
    let engine = deployment.engine();
    let names = engine.containers(deployment.project(), service);
    names.iter().filter(|name| engine.container(name).unwrap()["State"]["Running"] == true).count()
}

#[test]
fn nothing_is_pulled_or_built_behind_the_back_of_a_start() {
    for compose in [Compose::V2, Compose::V1] {
        let mut registry = Registry::alone();
        let other = registry.push(Image::new("other").tag("1"));
        let rebuilt = match compose {
            Compose::V1 => "always",
            _ => "daily",
        };
        let deployment = product(
            "pulling",
            &registry,
            &format!(
                "services:\n  web: {{@web, pull_policy: always}}\n  api: {{@api, pull_policy: \
                    {rebuilt}}}\n  other: {{image: '{}:1', pull_policy: always}}\n  made: {{build: \
                    made, pull_policy: build}}\n",
                other.repository
            ),
        );
        deployment.write_build_context("made", "first");
        deployment.dkv(["up"]).compose(compose).exit(0).stderr_contains("Building");
        let made = deployment.engine().running_image(deployment.project(), "made");
        deployment.write_build_context("made", "second");
        registry.stop();
        for command in ["up", "restart", "start"] {
            let outcome = deployment.dkv([command]).compose(compose).exit(0);
            outcome.stderr_lacks("Building");
            for service in ["web", "api", "other", "made"] {
                assert_eq!(running(&deployment, service), 1, "{compose:?} {command} {service}");
            }
        }
        assert_eq!(deployment.engine().running_image(deployment.project(), "made"), made);
        deployment.dkv(["down"]).compose(compose).exit(0);
    }
}

#[test]
fn what_cannot_be_had_stops_nothing() {
    let mut registry = Registry::alone();
    let deployment = product("unhad", &registry, "services:\n  web: {@web}\n");
    deployment.dkv(["up"]).exit(0);
    // A line that follows no record, and an image that is mounted.
    for line in [
        format!("  other: {{image: '{}:1'}}\n", registry.repository("other")),
        format!(
            "  other:\n    @web\n    volumes: [{{type: image, source: '{}:1', target: /m}}]\n",
            registry.repository("mounted")
        ),
        "  other: {build: nowhere}\n".to_owned(),
    ] {
        registry.stop();
        let text = compose_text(&registry, &format!("services:\n  web: {{@web}}\n{line}"));
        deployment.write("docker-compose.yml", &text);
        for command in ["restart", "up"] {
            let outcome = deployment.dkv([command]).finish();
            assert!(matches!(outcome.code(), Some(5 | 6)), "{outcome}");
            assert_eq!(running(&deployment, "web"), 1, "{line}");
        }
    }
}

#[test]
fn a_dry_run_meets_what_the_start_would_meet() {
    let registry = Registry::start();
    let deployment = product("foreseen", &registry, "services:\n  web: {@web}\n");
    let other = registry.push(Image::new("other").tag("1"));
    let text = |line: &str| {
        let text = format!("services:\n  web: {{@web}}\n{line}");
        deployment.write("docker-compose.yml", &compose_text(&registry, &text));
    };
    // What is pulled and built is told, and nothing is.
    text(&format!("  other: {{image: '{}:1'}}\n  made: {{build: made}}\n", other.repository));
    deployment.write_build_context("made", "first");
    let plan = deployment.dkv(["up", "--dry-run"]).exit(0);
    plan.stdout_contains("would do: pull, build, up");
    plan.stderr_contains("would pull other 1").stderr_contains("would build made");
    plan.stderr_lacks("would pull web");
    assert_eq!(deployment.engine().image_id(&format!("{}:1", other.repository)), None);
    let steps = |arguments: &[&str]| {
        let outcome = deployment.dkv(arguments.iter().copied().chain(["--json"])).exit(0);
        outcome.json()["steps"].clone()
    };
    let planned = steps(&["up", "--dry-run"]);
    assert_eq!(
        (planned.clone(), planned),
        (steps(&["up"]), serde_json::json!(["pull", "build", "up"]))
    );
    deployment.dkv(["restart", "--dry-run"]).exit(0).stdout_contains("would do: down, up");
    // What is refused is refused, with the same words.
    let name = format!("{}-only", deployment.project());
    text(&format!(
        "  api: {{@api, container_name: {name}}}\n  with: {{@web, network_mode: \
            'container:{name}'}}\n"
    ));
    for command in ["up", "restart", "start"] {
        let last = |arguments: &[&str]| {
            let outcome = deployment.dkv(arguments.iter().copied()).finish();
            let error = outcome.stderr.lines().find(|line| line.starts_with("error:"));
            (outcome.code(), error.map(str::to_owned))
        };
        let (code, error) = last(&[command]);
        assert_eq!(code, Some(3), "{error:?}");
        assert_eq!(last(&[command, "--dry-run"]), (code, error), "{command}");
    }
    assert_eq!(running(&deployment, "web"), 1);
}

/// Runs Compose as an operator does who has sourced `versions.env`.
pub(crate) fn by_hand(deployment: &Deployment, compose: Compose, arguments: &str) {
    let program = if compose == Compose::V1 { "docker-compose" } else { "docker compose" };
    let script = format!("set -a; . ./versions.env; set +a; {program} {arguments}");
    deployment.command(&crate::support::program("sh"), ["-c", &script]).compose(compose).exit(0);
}

fn id(deployment: &Deployment, service: &str) -> String {
    let names = deployment.engine().containers(deployment.project(), service);
    assert_eq!(names.len(), 1, "{service}: {names:?}");
    deployment.engine().container(&names[0]).unwrap()["Id"].as_str().unwrap().to_owned()
}

/// Whether a service's container is in the network of another's, as that runs now.
#[track_caller]
fn assert_joined(deployment: &Deployment, service: &str, of: &str) {
    let engine = deployment.engine();
    let names = engine.containers(deployment.project(), service);
    let container = engine.container(&names[0]).unwrap();
    let mode = container["HostConfig"]["NetworkMode"].as_str().unwrap();
    assert_eq!(mode, format!("container:{}", id(deployment, of)), "{service} of {of}");
    assert_eq!(container["State"]["Running"], true, "{service}");
}

#[test]
fn what_hangs_on_to_a_replaced_container_goes_along() {
    for compose in [Compose::V2, Compose::V1] {
        let registry = Registry::start();
        let with_restart = match compose {
            Compose::V1 => "",
            _ => ", depends_on: {web: {condition: service_started, restart: true}}",
        };
        let text = format!(
            "services:\n  web: {{@web, stop_grace_period: 1s}}\n  side: {{@api, network_mode: \
                'service:web', stop_grace_period: 1s}}\n  far: {{@api, network_mode: \
                'service:side', stop_grace_period: 1s}}\n  vols: {{@api, volumes_from: [web], \
                stop_grace_period: 1s}}\n  api: {{@api, stop_grace_period: 1s{with_restart}}}\n  \
                apart: {{@api, stop_grace_period: 1s}}\n"
        );
        let deployment = product("following", &registry, &text);
        let dkv = |args: &[&'static str], code: i32| {
            deployment.dkv(args.iter().copied()).compose(compose).exit(code)
        };
        dkv(&["up"], 0);
        let start_of = |service: &str| {
            let names = deployment.engine().containers(deployment.project(), service);
            deployment.engine().container(&names[0]).unwrap()["State"]["StartedAt"].to_string()
        };
        let joined = || {
            assert_joined(&deployment, "side", "web");
            assert_joined(&deployment, "far", "side");
            dkv(&["verify"], 0);
        };
        joined();
        for (release, code) in [("two", 0), ("bad", 7)] {
            match code {
                0 => drop(publish(&registry, "web", release)),
                _ => drop(registry.push(Image::new("web").tag("latest").crashing(3))),
            }
            let (apart, api) = (start_of("apart"), start_of("api"));
            let web = id(&deployment, "web");
            dkv(&["update-safe", "--no-data-backup"], code);
            assert_ne!(id(&deployment, "web"), web);
            assert_eq!(deployment.engine().version(deployment.project(), "web"), "two");
            joined();
            assert_eq!(start_of("apart"), apart, "{compose:?} {release}");
            if compose == Compose::V2 {
                assert_ne!(start_of("api"), api, "{compose:?} {release}");
            }
        }
        // Somebody restarts the container by hand: it gets a new network.
        let web = deployment.engine().containers(deployment.project(), "web").remove(0);
        deployment.engine().docker(&["restart", "-t", "1", &web]);
        let status = dkv(&["status", "--json"], 0).json();
        assert_eq!(status["healthy"], false, "{status:#}");
        dkv(&["status"], 0).stdout_contains("side hangs in the network");
        dkv(&["verify"], 10).stdout_contains("hangs in the network").stdout_contains("`dkv up`");
        dkv(&["up"], 0).stderr_contains("Making anew");
        joined();
    }
}

#[test]
fn a_follower_by_a_containers_name_goes_along() {
    let registry = Registry::start();
    let deployment = product("by-name", &registry, "services: {web: {@web}}\n");
    let name = format!("{}-web", deployment.project());
    let text = format!(
        "services:\n  web: {{@web, container_name: {name}}}\n  side: {{@api, network_mode: \
            'container:{name}', depends_on: [web], stop_grace_period: 1s}}\n"
    );
    deployment.write("docker-compose.yml", &compose_text(&registry, &text));
    deployment.dkv(["up"]).exit(0);
    assert_joined(&deployment, "side", "web");
    publish(&registry, "web", "two");
    deployment.dkv(["update-safe", "--no-data-backup"]).exit(0);
    assert_joined(&deployment, "side", "web");
    deployment.dkv(["restart"]).exit(0);
    assert_joined(&deployment, "side", "web");
}

#[test]
fn what_the_operator_scaled_or_stopped_stays() {
    for compose in [Compose::V2, Compose::V1] {
        let registry = Registry::start();
        let text = "services:\n  web: {@web, stop_grace_period: 1s}\n  api: {@api, restart: \
            unless-stopped, stop_grace_period: 1s}\n";
        let deployment = product("as-it-was", &registry, text);
        let dkv = |args: &[&'static str], code: i32| {
            deployment.dkv(args.iter().copied()).compose(compose).exit(code)
        };
        dkv(&["up"], 0);
        by_hand(&deployment, compose, "up -d --scale web=3");
        by_hand(&deployment, compose, "stop api");
        publish(&registry, "api", "two");
        let two = publish(&registry, "web", "two");
        let recorded =
            |name: &str| deployment.manifest_data()["services"][name]["image_digest"].to_string();
        let api = recorded("api");
        let outcome = dkv(&["update-safe", "--no-data-backup", "--json"], 0);
        outcome.stderr_contains("Left as it was stopped: api").stderr_contains("3 containers");
        assert_eq!(outcome.json()["stopped"], serde_json::json!(["api"]));
        assert_eq!((running(&deployment, "web"), running(&deployment, "api")), (3, 0));
        assert_eq!(images(&deployment, "web"), [two.as_str()]);
        assert_eq!(recorded("api"), api, "what was not tried is not recorded");

        registry.push(Image::new("web").tag("latest").crashing(3));
        dkv(&["update-safe", "--no-data-backup"], 7);
        assert_eq!((running(&deployment, "web"), running(&deployment, "api")), (3, 0));
        assert_eq!(images(&deployment, "web"), [two.as_str()]);

        dkv(&["up"], 0).stderr_contains("Starting too what was stopped: api");
        assert_eq!((running(&deployment, "web"), running(&deployment, "api")), (3, 1));
        dkv(&["restart"], 0).stderr_contains("3 containers");
        assert_eq!((running(&deployment, "web"), running(&deployment, "api")), (3, 1));
        // After a stop the files count again, and so they do when they ask for more.
        dkv(&["down"], 0);
        dkv(&["up"], 0);
        assert_eq!(running(&deployment, "web"), 1);
        deployment.write(
            "docker-compose.yml",
            &compose_text(&registry, &text.replace("{@web,", "{@web, scale: 2,")),
        );
        dkv(&["up"], 0);
        assert_eq!(running(&deployment, "web"), 2, "{compose:?}");
    }
}

#[test]
fn what_runs_by_a_profile_belongs_to_the_deployment() {
    for compose in [Compose::V2, Compose::V1] {
        let registry = Registry::start();
        let text = "services:\n  web: {@web, stop_grace_period: 1s}\n  tool: {@api, profiles: \
            [more, tools], stop_grace_period: 1s}\n  job: {@api, profiles: [tools], command: \
            [sleep, '0']}\n  other: {@api, profiles: [others]}\n";
        let deployment = product("profiles", &registry, text);
        let dkv = |args: &[&'static str], code: i32| {
            deployment.dkv(args.iter().copied()).compose(compose).exit(code)
        };
        dkv(&["up"], 0);
        assert_eq!(running(&deployment, "tool"), 0);
        by_hand(&deployment, compose, "--profile more up -d");
        dkv(&["verify"], 0);
        publish(&registry, "api", "two");
        let outcome = dkv(&["update-safe", "--no-data-backup", "--json"], 0).json();
        assert_eq!(outcome["replaced"][0]["compose_service"], "tool", "{outcome:#}");
        assert_eq!(deployment.engine().version(deployment.project(), "tool"), "two");
        registry.push(Image::new("api").tag("latest").crashing(3));
        dkv(&["update-safe", "--no-data-backup"], 7);
        assert_eq!(deployment.engine().version(deployment.project(), "tool"), "two");
        for command in ["up", "restart"] {
            dkv(&[command], 0);
            assert_eq!(running(&deployment, "tool"), 1, "{compose:?} {command}");
        }
        let status = dkv(&["status", "--json"], 0).json();
        assert_eq!(status["containers"].as_array().unwrap().len(), 2, "{status:#}");
        dkv(&["verify"], 0);
        for service in ["job", "other"] {
            assert!(deployment.engine().containers(deployment.project(), service).is_empty());
        }
        dkv(&["down"], 0);
        for service in ["web", "tool"] {
            assert!(deployment.engine().containers(deployment.project(), service).is_empty());
        }
        // The variable in `.env` does the same, and starts it too.
        deployment.write(".env", "COMPOSE_PROFILES=more\n");
        dkv(&["up"], 0);
        by_hand(&deployment, compose, "--profile others up -d other");
        dkv(&["restart"], 0);
        for service in ["web", "tool", "other"] {
            assert_eq!(running(&deployment, service), 1, "{compose:?} {service}");
        }
        dkv(&["down"], 0);
        for service in ["web", "tool", "other"] {
            assert!(deployment.engine().containers(deployment.project(), service).is_empty());
        }
    }
}

#[test]
fn what_a_start_cannot_keep_is_refused_with_its_line() {
    let registry = Registry::start();
    for compose in [Compose::V2, Compose::V1] {
        let deployment = product("refused", &registry, "services:\n  web: {@web}\n  api: {@api}\n");
        let dkv = |args: &[&'static str], code: i32| {
            deployment.dkv(args.iter().copied()).compose(compose).exit(code)
        };
        dkv(&["up"], 0);
        let name = format!("{}-fixed", deployment.project());
        for (text, place) in [
            (
                format!(
                    "services:\n  web:\n    @web\n    scale: 2\n    container_name: {name}\n  \
                        api: {{@api}}\n"
                ),
                "docker-compose.yml:5: the container_name of web",
            ),
            (
                format!(
                    "services:\n  web: {{@web, container_name: {name}}}\n  api:\n    @api\n    \
                        network_mode: container:{name}\n"
                ),
                "docker-compose.yml:5: the network_mode of api",
            ),
        ] {
            deployment.write("docker-compose.yml", &compose_text(&registry, &text));
            // Compose 2 refuses such a scale itself when it is asked what it makes of its files.
            let is_composes = compose == Compose::V2 && place.contains("container_name");
            let outcome = dkv(&["restart"], if is_composes { 6 } else { 3 });
            if !is_composes {
                outcome.stderr_contains(place).stderr_contains("nothing was stopped");
            }
            assert_eq!((running(&deployment, "web"), running(&deployment, "api")), (1, 1));
        }
    }
}
