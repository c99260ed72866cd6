//! `migrate-versions`: what is tracked and what is not, where images come from, and deployments that
//! run under another name.

use crate::support::deployment::compose_file;
use crate::support::{Deployment, Image, Registry};

#[test]
fn both_lists_are_shown_with_reasons_answered_and_remembered() {
    let registry = Registry::start();
    let image = |name: &str| registry.push(Image::new(name).tag("1").tag("latest")).repository;
    let [web, job, db] = ["web", "job", "postgres"].map(image);
    let deployment = Deployment::new("adopting");
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  web:\n    image: {web}:1\n  job:\n    image: {job}:1\n  db:\n    \
             image: {db}:${{POSTGRES:-1}}\n"
        ),
    );
    // Shown before it is asked, and answered by a name.
    let asked = deployment.dkv(["migrate-versions"]).tty().stdin("\n\njob\n\n").exit(0);
    asked.stdout_contains("an application").stdout_contains("a database, which holds data");
    let manifest = deployment.manifest_data();
    assert_eq!(manifest["untracked"], serde_json::json!(["job"]), "{manifest:#}");
    assert!(manifest["services"].get("job").is_none() && manifest["services"].get("web").is_some());
    assert!(manifest["services"].get("postgres").is_none(), "{manifest:#}");
    deployment.dkv(["migrate-versions", "-y"]).exit(0).stderr_contains("nothing to add");

    let report = deployment.dkv(["migrate-versions", "-y", "--json", "--track", "job"]).exit(0);
    assert_eq!(report.json()["services"][0]["reason"], "asked for", "{report}");
    assert!(deployment.manifest_data().get("untracked").is_none());
    let removed = deployment.dkv(["migrate-versions", "-y", "--untrack", "web"]).exit(0);
    removed.stderr_contains("took web out of");
    let manifest = deployment.manifest_data();
    assert_eq!(manifest["untracked"], serde_json::json!(["web"]), "{manifest:#}");
    assert!(manifest["services"].get("web").is_none() && manifest["history"].get("web").is_none());
    assert!(!deployment.versions_env().contains("DK_WEB_TAG"));
    deployment.dkv(["verify"]).finish().stderr_lacks("--track web");
    deployment.dkv(["migrate-versions", "-y", "--untrack", "nobody"]).exit(2);
}

#[test]
fn what_runs_under_another_projects_name_is_the_deployment() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1").tag("latest"));
    let deployment = Deployment::new("adopting");
    deployment.write("docker-compose.yml", &compose_file(&[("web", registry.repository("web"))]));
    let other = format!("{}other", deployment.project());
    deployment.compose_v2(["-p", &other, "up", "-d"]).exit(0);
    // A manifest from before: what to do about it takes nothing away.
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  web: {{image: {}}}\n",
            registry.repository("web")
        ),
    );
    deployment
        .dkv(["verify"])
        .exit(10)
        .stdout_contains("`dkv migrate-versions` records that this deployment runs as")
        .stdout_lacks("docker rm");
    std::fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();

    let report = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0).json();
    assert_eq!(report["services"][0]["found"], "running", "{report:#}");
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
    assert_eq!(deployment.manifest_data()["compose"]["project"], other.as_str());
    deployment.dkv(["verify"]).exit(0);
    deployment.dkv(["status"]).exit(0).stdout_contains("running");
    let names = |project: &str| {
        let filter = format!("label=com.docker.compose.project={project}");
        deployment.engine().docker(&["ps", "-a", "-q", "--filter", &filter])
    };
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(names(deployment.project()), "", "no second one is started");
    assert_ne!(names(&other), "");
    deployment.dkv(["down"]).exit(0);
    assert_eq!(names(&other), "");
}

#[test]
fn an_image_with_a_build_section_is_followed_where_it_comes_from() {
    let registry = Registry::start();
    let pulled = registry.push(Image::new("web").tag("1").tag("latest"));
    let fresh = registry.push(Image::new("api").tag("1").tag("latest"));
    let deployment = Deployment::new("adopting");
    let bot = format!("{}-bot", deployment.project());
    deployment.write_build_context("here", "first");
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  web:\n    image: {}:1\n    build: here\n  api:\n    image: {}:1\n    \
             build: here\n  bot:\n    image: {bot}:1\n    build: here\n",
            pulled.repository, fresh.repository
        ),
    );
    let engine = deployment.engine();
    engine.docker(&["pull", "-q", &format!("{}:1", pulled.repository)]);
    deployment.compose_v2(["build", "bot"]).exit(0);
    let report = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0).json();
    let source = |index: usize| report["services"][index]["source"].as_str().unwrap();
    let digest = |index: usize| report["services"][index]["digest"].as_str();
    assert_eq!([source(0), source(1), source(2)], ["registry", "registry", "local"], "{report:#}");
    assert_eq!(
        [digest(0), digest(1), digest(2)],
        [Some(pulled.digest.as_str()), Some(fresh.digest.as_str()), None]
    );
    engine.docker(&["rmi", &format!("{bot}:1")]);
}

#[test]
fn what_was_loaded_from_an_archive_is_what_the_registry_has() {
    let registry = Registry::start();
    let pushed =
        registry.push(Image::new("web").tag("1").tag("latest").platforms(&["amd64", "arm64"]));
    let deployment = Deployment::new("adopting");
    deployment.write("docker-compose.yml", &compose_file(&[("web", registry.repository("web"))]));
    let engine = deployment.engine();
    let name = format!("{}:latest", pushed.repository);
    engine.docker(&["pull", "-q", &name]);
    let archive = deployment.path("web.tar").display().to_string();
    engine.docker(&["save", "-o", &archive, &name]);
    engine.docker(&["rmi", &name]);
    engine.docker(&["load", "-q", "-i", &archive]);
    deployment.compose_v2(["up", "-d"]).exit(0);
    let outcome = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0);
    let report = outcome.json();
    assert_eq!(report["services"][0]["source"], "registry", "{report:#}");
    assert_eq!(report["services"][0]["digest"], pushed.digest.as_str(), "{report:#}");
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
}

#[test]
fn an_image_that_nobody_can_be_asked_about_stops_no_other() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("1").tag("latest"));
    let deployment = Deployment::new("adopting");
    // Nobody listens there.
    deployment.write(
        "docker-compose.yml",
        &compose_file(&[
            ("web", registry.repository("web")),
            ("lost", "127.0.0.1:9/acme/lost".to_owned()),
        ]),
    );
    deployment.dkv(["migrate-versions", "-y"]).exit(0).stderr_contains("lost: no digest yet");
    let digest = || deployment.manifest_data()["services"]["web"]["image_digest"].clone();
    assert_eq!(digest(), old.digest.as_str());
    let new = registry.push(Image::new("web").tag("2"));
    registry.move_tag("web", "latest", &new.digest);
    deployment.dkv(["pull-latest"]).exit(9).stderr_contains("lost").stdout_contains("web: ");
    assert_eq!(digest(), new.digest.as_str());
}

#[test]
fn who_extends_a_build_has_an_image_of_its_own() {
    let deployment = Deployment::new("adopting");
    deployment.write_build_context("here", "first");
    deployment.write(
        "docker-compose.yml",
        "services:\n  base:\n    build: here\n  worker:\n    extends: base\n    command: [sleep, \
         '1']\n",
    );
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    let names = deployment.compose_v2(["config", "--images"]).exit(0);
    for service in ["base", "worker"] {
        names.stdout_contains(&format!("{}-{service}", deployment.project()));
    }
}

/// The manifest calls a service by its image, Compose by its key: either name is the service's.
#[test]
fn a_service_is_left_out_and_taken_back_by_either_name() {
    let registry = Registry::start();
    let image = |name: &str| registry.push(Image::new(name).tag("1").tag("latest")).repository;
    let [router, api] = ["req_router", "api"].map(image);
    let deployment = Deployment::new("adopting");
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  front:\n    image: {router}:1\n  front-job:\n    image: {router}:1\n  \
             api:\n    image: {api}:1\n"
        ),
    );
    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    for name in ["req_router", "req-router", "front"] {
        deployment.dkv(["migrate-versions", "-y", "--untrack", "req_router"]).exit(0);
        assert!(deployment.manifest_data()["services"].get("req_router").is_none());
        deployment.dkv(["migrate-versions", "-y", "--track", name]).exit(0);
        let manifest = deployment.manifest_data();
        assert!(manifest["services"].get("req_router").is_some(), "{name}: {manifest:#}");
    }
    // What is there is there.
    deployment
        .dkv(["migrate-versions", "-y", "--track", "req_router"])
        .exit(0)
        .stderr_contains("nothing to add");
    deployment.dkv(["migrate-versions", "-y", "--track", "router"]).exit(2);
}

#[test]
fn what_is_built_here_keeps_its_name_when_it_is_left_out_and_tracked_again() {
    let deployment = Deployment::new("built");
    deployment.write_build_context("here", "first");
    deployment.write("docker-compose.yml", "services:\n  my-job:\n    build: here\n");
    deployment.compose_v2(["build", "-q"]).exit(0);
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    assert!(deployment.manifest_data()["services"].get("my-job").is_some());
    let left = deployment.dkv(["migrate-versions", "-y", "--untrack", "my-job"]).exit(0);
    left.stderr_contains(&format!("not tracked: {}-my-job:latest", deployment.project()));
    deployment.dkv(["migrate-versions", "-y", "--track", "my-job"]).exit(0);
    let manifest = deployment.manifest_data();
    assert!(manifest["services"].get("my-job").is_some(), "{manifest:#}");
}
