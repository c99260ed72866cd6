//! Starting and stopping: the recorded bytes run, under either Compose, and what does not run is
//! named.

use std::fs;
use std::time::Duration;

use crate::support::deployment::Compose;
use crate::support::{Deployment, Engine, Health, Image, Pushed, Registry};

/// Pushes `name` under `latest`; another version is another digest.
fn publish(registry: &Registry, name: &str, version: &str) -> Pushed {
    registry.push(Image::new(name).tag("latest").version(version))
}

/// A deployment of `web` with a database file for `db`, both recorded.
fn with_database(topic: &str, registry: &Registry) -> Deployment {
    let deployment = Deployment::new(topic);
    deployment
        .write_product(&[("web", registry.repository("web")), ("db", registry.repository("db"))]);
    deployment.write(
        "docker-compose.yml",
        &crate::support::deployment::compose_file(&[("web", registry.repository("web"))]),
    );
    deployment.write(
        "db-docker-compose.yml",
        &crate::support::deployment::compose_file(&[("db", registry.repository("db"))]),
    );
    deployment.dkv(["pull-latest"]).exit(0);
    deployment
}

fn container(deployment: &Deployment, service: &str) -> String {
    let names = deployment.engine().containers(deployment.project(), service);
    assert_eq!(names.len(), 1, "{service}: {names:?}");
    let container = deployment.engine().container(&names[0]).unwrap();
    format!("{} {}", container["Id"], container["State"]["Status"])
}

fn runs(deployment: &Deployment, service: &str) -> bool {
    let engine = deployment.engine();
    let names = engine.containers(deployment.project(), service);
    names.iter().any(|name| engine.container(name).unwrap()["State"]["Running"] == true)
}

fn update_and_go_back_with(compose: Compose) {
    let mut registry = Registry::alone();
    let one = publish(&registry, "web", "one");
    registry.push(Image::new("db").tag("latest").version("db").health(Health::Passing));
    let deployment = with_database("both", &registry);
    let dkv = |args: &[&'static str], code: i32| {
        deployment.dkv(args.iter().copied()).compose(compose).exit(code)
    };
    let outcome = dkv(&["up"], 0);
    outcome
        .stderr_contains("databases first")
        .stdout_contains("web")
        .stdout_contains("db")
        .stdout_contains(&one.digest[7..19]);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "one");
    let before = (container(&deployment, "web"), container(&deployment, "db"));
    let again = dkv(&["up"], 0);
    again.stderr_lacks("orphan").stderr_lacks("databases first");
    assert_eq!(
        (container(&deployment, "web"), container(&deployment, "db")),
        before,
        "what runs stays"
    );

    let two = publish(&registry, "web", "two");
    dkv(&["pull-latest"], 0);
    dkv(&["restart"], 0);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "two");
    assert_eq!(deployment.engine().running_image(deployment.project(), "web"), two.image_id());
    registry.stop();
    dkv(&["rollback", "-y", "web"], 0);
    let json = dkv(&["restart", "--json"], 0).json();
    let web = json["containers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["compose_service"] == "web")
        .unwrap()
        .clone();
    assert_eq!(
        (web["digest"].as_str(), web["as_recorded"].as_bool()),
        (Some(one.digest.as_str()), Some(true)),
        "{web}"
    );
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "one");
    assert_eq!(deployment.engine().running_image(deployment.project(), "web"), one.image_id());
    dkv(&["stop"], 0);
    for service in ["web", "db"] {
        assert!(deployment.engine().containers(deployment.project(), service).is_empty());
    }
    dkv(&["start"], 0);
    assert!(runs(&deployment, "web") && runs(&deployment, "db"));
    // The operator's own Compose, with the file that dkv wrote, finds nothing to do.
    let running = container(&deployment, "web");
    let script = "set -a; . ./versions.env; set +a; docker-compose up -d";
    let own = deployment.command(&crate::support::program("sh"), ["-c", script]);
    if compose == Compose::V1 {
        own.compose(Compose::V1).exit(0);
        assert_eq!(container(&deployment, "web"), running);
    } else if !Engine::has_containerd_store() {
        // On an Engine of today it fails over containers that v2 made.
        own.compose(Compose::V1).exit(0);
    }
    dkv(&["down"], 0);
    dkv(&["down"], 0);
    assert!(deployment.engine().containers(deployment.project(), "web").is_empty());
}

#[test]
fn an_update_and_the_way_back_run_the_recorded_bytes_with_compose_v2() {
    update_and_go_back_with(Compose::V2);
}

#[test]
fn an_update_and_the_way_back_run_the_recorded_bytes_with_compose_v1() {
    update_and_go_back_with(Compose::V1);
}

#[test]
fn an_update_and_the_way_back_run_the_recorded_bytes_with_both_composes() {
    update_and_go_back_with(Compose::Both);
}

#[test]
fn updb_starts_the_databases_alone_and_without_any_does_nothing() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    registry.push(Image::new("db").tag("latest").version("db").health(Health::FromProbe(3)));
    let deployment = with_database("updb", &registry);
    deployment.dkv(["updb"]).exit(0).stdout_contains("db").stdout_contains("healthy");
    assert!(runs(&deployment, "db") && !runs(&deployment, "web"));
    deployment.dkv(["up"]).exit(0).stderr_lacks("databases first");
    deployment.dkv(["updb"]).exit(0);
    assert!(runs(&deployment, "web"));

    fs::remove_file(deployment.path("db-docker-compose.yml")).unwrap();
    deployment.dkv(["updb"]).exit(0).stderr_contains("no database files");
    deployment.dkv(["updb", "--json"]).exit(0).json();
}

#[test]
fn an_unhealthy_database_keeps_the_application_from_starting_and_is_explained() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    registry.push(Image::new("db").tag("latest").version("db").health(Health::Failing));
    let deployment = with_database("sick", &registry);
    for command in ["up", "start", "updb"] {
        let outcome = deployment.dkv([command, "--timeout", "5s"]).exit(6);
        outcome.stderr_contains("db").stderr_contains("no database");
        assert!(!runs(&deployment, "web"), "{command}");
    }
}

#[test]
fn a_restart_stops_nothing_before_every_image_is_here() {
    let mut registry = Registry::alone();
    publish(&registry, "web", "one");
    let api = publish(&registry, "api", "first");
    let other = registry.push(Image::new("untracked").tag("1"));
    let deployment = Deployment::new("before-down");
    let services = [("web", registry.repository("web")), ("api", registry.repository("api"))];
    deployment.write_product(&services);
    let compose = crate::support::deployment::compose_file(&services)
        + &format!("  untracked:\n    image: {}:1\n", other.repository);
    deployment.write("docker-compose.yml", &compose);
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    let running = container(&deployment, "web");
    publish(&registry, "api", "second");
    deployment.dkv(["pull-latest"]).exit(0);
    let second =
        deployment.manifest_data()["services"]["api"]["image_digest"].as_str().unwrap().to_owned();
    let id = deployment.engine().image_id(&format!("{}@{second}", api.repository)).unwrap();
    deployment.engine().docker(&["rmi", "-f", &id]);
    registry.stop();
    let outcome = deployment.dkv(["restart"]).exit(5);
    outcome.stderr_contains("api").stderr_contains("nothing was stopped");
    assert_eq!(container(&deployment, "web"), running);
    assert!(runs(&deployment, "api") && runs(&deployment, "untracked"));
    // And with the registry back it is pulled by its digest first.
    registry.restart();
    publish(&registry, "api", "third");
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "api"), "second");
}

#[test]
fn versions_env_is_brought_up_to_date_and_what_was_wrong_is_said() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let deployment = Deployment::new("stale");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    let good = deployment.versions_env();
    fs::remove_file(deployment.path("versions.env")).unwrap();
    deployment.dkv(["up"]).exit(0).stderr_contains("missing");
    assert_eq!(deployment.versions_env(), good);
    let edited = good.replace("DK_WEB_TAG=", "DK_WEB_TAG=hotfix #");
    deployment.write("versions.env", &edited);
    deployment
        .dkv(["up"])
        .exit(0)
        .stderr_contains("edited by hand")
        .stderr_contains(".version-backups/versions.env.");
    assert_eq!(deployment.versions_env(), good);
    deployment.dkv(["up"]).exit(0).stderr_lacks("versions.env");
}

#[test]
fn the_manifest_counts_whatever_the_environment_or_the_dotenv_file_say() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    registry.push(Image::new("web").tag("wrong"));
    for compose in [Compose::V2, Compose::V1] {
        let deployment = Deployment::new("inherited");
        deployment.write_product(&[("web", registry.repository("web"))]);
        deployment.dkv(["pull-latest"]).exit(0);
        deployment.write(".env", "DK_WEB_TAG=wrong\n");
        deployment
            .dkv(["up"])
            .compose(compose)
            .env("DK_WEB_TAG", "wrong")
            .env("DK_WEB_IMAGE", "localhost/wrong")
            .exit(0);
        assert_eq!(deployment.engine().version(deployment.project(), "web"), "one");
    }
}

#[test]
fn override_files_and_compose_file_are_honoured() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    for compose in [Compose::V2, Compose::V1] {
        let deployment = Deployment::new("override");
        deployment.write_product(&[("web", registry.repository("web"))]);
        deployment.dkv(["pull-latest"]).exit(0);
        let image = "${DK_WEB_IMAGE:-x}:${DK_WEB_TAG:-latest}";
        deployment.write(
            "docker-compose.override.yml",
            &format!("services:\n  extra: {{image: '{image}'}}\n"),
        );
        deployment.dkv(["up"]).compose(compose).exit(0);
        assert!(runs(&deployment, "extra") && runs(&deployment, "web"));
        deployment.dkv(["down"]).compose(compose).exit(0);
        assert!(deployment.engine().containers(deployment.project(), "extra").is_empty());

        deployment.write("other.yml", &format!("services:\n  other: {{image: '{image}'}}\n"));
        deployment.dkv(["up"]).compose(compose).env("COMPOSE_FILE", "other.yml").exit(0);
        assert!(runs(&deployment, "other") && !runs(&deployment, "web"));
        deployment.dkv(["down"]).compose(compose).env("COMPOSE_FILE", "other.yml").exit(0);
        assert!(!runs(&deployment, "other"));
        // The manifest's own list comes before the convention.
        let text = deployment
            .manifest()
            .replace("services:\n", "compose: {files: [other.yml]}\nservices:\n");
        deployment.write("version-manifest.yaml", &text);
        deployment.dkv(["up"]).compose(compose).exit(0);
        assert!(runs(&deployment, "other") && !runs(&deployment, "web"));
        deployment.dkv(["down"]).compose(compose).exit(0);
    }
}

#[test]
fn a_container_that_crashes_is_exit_6_with_its_cause() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let bad = registry.push(Image::new("api").tag("latest").crashing(3));
    let deployment = Deployment::new("crash");
    deployment
        .write_product(&[("web", registry.repository("web")), ("api", registry.repository("api"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    for command in ["up", "restart"] {
        let outcome = deployment.dkv([command]).exit(6);
        outcome
            .stderr_contains("api")
            .stderr_contains("cannot start: no configuration")
            .stderr_contains("3");
        outcome.stdout_contains("web").stdout_contains(&bad.digest[7..19]);
        assert!(outcome.elapsed < Duration::from_secs(100), "{outcome}");
    }
    assert!(runs(&deployment, "web"));
    let outcome = deployment.dkv(["up", "--json"]).exit(6);
    let documents: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&outcome.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}: {outcome}"));
    assert_eq!(documents.len(), 1, "one document a command: {outcome}");
}

#[test]
fn no_wait_returns_as_soon_as_the_containers_are_started() {
    let registry = Registry::start();
    registry
        .push(Image::new("web").tag("latest").health(Health::Failing).health_interval_ms(30_000));
    let deployment = Deployment::new("no-wait");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    let outcome = deployment.dkv(["up", "--no-wait"]).exit(0);
    assert!(outcome.elapsed < Duration::from_secs(100), "{outcome}");
    assert!(runs(&deployment, "web"));
    let outcome = deployment.dkv(["up", "--timeout", "1s"]).exit(6);
    outcome.stderr_contains("web");
}

#[test]
fn a_migration_that_ends_well_is_a_success_and_one_image_serves_several_compose_services() {
    let registry = Registry::start();
    let image = publish(&registry, "req_router", "one");
    for compose in [Compose::V2, Compose::V1] {
        let deployment = Deployment::new("migrate");
        deployment.write_product(&[("req_router", registry.repository("req_router"))]);
        let reference = "${DK_REQ_ROUTER_IMAGE:-x}:${DK_REQ_ROUTER_TAG:-latest}";
        deployment.write(
            "docker-compose.yml",
            &format!(
                "services:\n  db-migrate:\n    image: {reference}\n    restart: \"no\"\n    \
                    command: [echo, migrated]\n  req-router:\n    image: {reference}\n    \
                    depends_on: {{db-migrate: {{condition: service_completed_successfully}}}}\n"
            ),
        );
        deployment.dkv(["pull-latest"]).exit(0);
        let json = deployment.dkv(["up", "--json"]).compose(compose).exit(0).json();
        for line in json["containers"].as_array().unwrap() {
            assert_eq!(
                (line["service"].as_str(), line["digest"].as_str()),
                (Some("req_router"), Some(image.digest.as_str())),
                "{line}"
            );
        }
        assert_eq!(json["containers"].as_array().unwrap().len(), 2);
        deployment.dkv(["down"]).compose(compose).exit(0);
    }
}

#[test]
fn what_is_scaled_to_none_is_not_missing() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    publish(&registry, "db", "one");
    for compose in [Compose::V2, Compose::V1] {
        let deployment = with_database("scaled", &registry);
        let image = "${DK_WEB_IMAGE:-x}:${DK_WEB_TAG:-latest}";
        let worker = format!(
            "  worker: {{image: '{image}', deploy: {{replicas: 0}}}}\n  cron: {{image: '{image}', \
                scale: 0}}\n"
        );
        deployment.write("docker-compose.yml", &(deployment.read("docker-compose.yml") + &worker));
        deployment.write(
            "db-docker-compose.yml",
            &(deployment.read("db-docker-compose.yml") + "    scale: 0\n"),
        );
        let dkv =
            |args: &[&'static str]| deployment.dkv(args.iter().copied()).compose(compose).exit(0);
        let up = dkv(&["up", "--json"]);
        up.stderr_lacks("databases first");
        let status = dkv(&["status", "--json"]).json();
        for lines in [&up.json()["containers"], &status["containers"]] {
            let names: Vec<_> = lines
                .as_array()
                .unwrap()
                .iter()
                .map(|line| line["compose_service"].as_str().unwrap())
                .collect();
            assert_eq!(names, ["web"], "{compose:?}");
        }
        assert_eq!(status["healthy"], true, "{compose:?}: {status:#}");
        dkv(&["verify"]);
        dkv(&["restart"]);

        publish(&registry, "web", &format!("two for {compose:?}"));
        let updated = dkv(&["update-safe", "--json", "--no-data-backup"]).json();
        let replaced: Vec<_> = updated["replaced"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["compose_service"].as_str().unwrap())
            .collect();
        assert_eq!(replaced, ["web"], "{compose:?}");
        assert!(runs(&deployment, "web"));
    }
}

#[test]
fn files_with_images_of_their_own_are_named_where_they_keep_a_record_from_running() {
    let registry = Registry::start();
    let deployment = Deployment::new("pinned");
    registry.push(Image::new("web").tag("1").tag("latest"));
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0).stderr_contains("`dkv restart` puts it into effect");
    deployment.write(
        "docker-compose.yml",
        &format!("services: {{web: {{image: '{}:1'}}}}\n", registry.repository("web")),
    );
    deployment.dkv(["pin"]).exit(0);
    deployment.dkv(["up"]).exit(0).stderr_lacks("dkv pin");
    registry.push(Image::new("web").tag("2").tag("latest"));
    deployment
        .dkv(["pull-latest"])
        .exit(0)
        .stderr_contains("`dkv pin` and then `dkv restart`")
        .stderr_contains("web");
    deployment
        .dkv(["restart"])
        .exit(0)
        .stderr_contains("not what the manifest records: web")
        .stderr_contains("dkv pin");
    deployment.dkv(["pin"]).exit(0);
    deployment.dkv(["restart"]).exit(0).stderr_lacks("not what the manifest records");
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "2");
    deployment.dkv(["rollback", "-y"]).exit(0).stderr_contains("`dkv pin` and then `dkv restart`");
}

#[test]
fn without_a_manifest_compose_runs_as_it_is() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let deployment = Deployment::new("plain");
    deployment.write(
        "docker-compose.yml",
        &crate::support::deployment::compose_file(&[("web", registry.repository("web"))]),
    );
    for compose in [Compose::V2, Compose::V1] {
        let warned = |outcome: &crate::support::Outcome, times| {
            let found = outcome.stderr.matches("this cannot be taken back").count();
            assert_eq!(found, times, "{outcome}");
        };
        let up = deployment.dkv(["up"]).compose(compose).exit(0);
        warned(up.stdout_contains("web"), 1);
        assert_eq!(deployment.engine().version(deployment.project(), "web"), "one");
        warned(&deployment.dkv(["restart"]).compose(compose).exit(0), 1);
        warned(&deployment.dkv(["update"]).compose(compose).exit(0), 1);
        warned(&deployment.dkv(["down"]).compose(compose).exit(0), 0);
        assert!(!runs(&deployment, "web"));
    }
    assert!(!deployment.exists("versions.env") && !deployment.exists("version-manifest.yaml"));
    fs::remove_file(deployment.path("docker-compose.yml")).unwrap();
    let outcome = deployment.dkv(["up"]).finish();
    assert!(matches!(outcome.code(), Some(3 | 6)), "{outcome}");
    outcome.stderr_contains("docker-compose.yml").stderr_contains("hint:");
}

#[test]
fn a_project_name_of_the_operators_own_is_kept() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let deployment = Deployment::new("project");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    let directory = deployment.directory();
    let outside = deployment.dkv(["-C", directory.to_str().unwrap(), "up"]).current_dir("/");
    outside.exit(0);
    assert!(runs(&deployment, "web"), "the directory names the project wherever dkv was called");
    deployment.dkv(["down"]).exit(0);
    let own = format!("{}x", deployment.project());
    deployment.dkv(["up"]).env("COMPOSE_PROJECT_NAME", &own).exit(0).stdout_contains("web");
    assert_eq!(deployment.engine().containers(&own, "web").len(), 1);
    deployment.dkv(["down"]).env("COMPOSE_PROJECT_NAME", &own).exit(0);
    assert!(deployment.engine().containers(&own, "web").is_empty());
}

#[test]
fn tables_go_to_standard_output_and_composes_own_words_do_not() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let deployment = Deployment::new("streams");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest", "-q"]).exit(0);
    for args in [
        &["up", "--json"][..],
        &["restart", "--json"],
        &["down", "--json"],
        &["start", "--json"],
        &["stop", "--json"],
        &["updb", "--json"],
    ] {
        let json = deployment.dkv(args.iter().copied()).exit(0).json();
        assert_eq!((json["schema"].as_u64(), json["command"].as_str()), (Some(1), Some(args[0])));
    }
    let quiet = deployment.dkv(["up", "-q"]).exit(0);
    assert!(quiet.stderr.is_empty(), "{quiet}");
    deployment.dkv(["down", "-q"]).exit(0);
}

#[test]
fn pinned_by_tag_the_recorded_bytes_run_as_well_also_back_and_offline() {
    let mut registry = Registry::alone();
    publish(&registry, "web", "one");
    let deployment = Deployment::new("by-tag");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.write(
        "version-manifest.yaml",
        &deployment.manifest().replace("services:\n", "env: {pin: tag}\nservices:\n"),
    );
    deployment.dkv(["pull-latest"]).exit(0);
    publish(&registry, "web", "two");
    deployment.dkv(["up"]).exit(0);
    assert_eq!(
        deployment.engine().version(deployment.project(), "web"),
        "one",
        "the tag has moved since"
    );
    deployment.dkv(["pull-latest"]).exit(0);
    registry.stop();
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "two");
    deployment.dkv(["rollback", "-y"]).exit(0);
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "one");
}
