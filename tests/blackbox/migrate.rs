//! `migrate-versions`: from what runs, or from Compose files alone, to a manifest.

use std::time::SystemTime;

use crate::support::deployment::{Compose, compose_file};
use crate::support::{Deployment, Engine, Image, Registry};

/// Starts a product of two services at `latest`, which is 1.64, moves `latest` on to 1.65, and lets
/// the daemon know of that, too.
fn running_product(registry: &Registry, compose: Compose) -> (Deployment, String) {
    let deployment = Deployment::new("migrate");
    let old = registry.push(Image::new("req_router").tag("1.64").tag("latest"));
    registry.push(Image::new("settings").tag("1.40").tag("latest"));
    let services = [
        ("req-router", registry.repository("req_router")),
        ("settings", registry.repository("settings")),
    ];
    deployment.write("docker-compose.yml", &compose_file(&services));
    let third_party = registry.push(Image::new("postgres").tag("13"));
    deployment.write(
        "db-docker-compose.yml",
        &format!("services:\n  postgres:\n    image: {}:13\n", third_party.repository),
    );
    let files = ["-f", "docker-compose.yml", "-f", "db-docker-compose.yml", "up", "-d"];
    match compose {
        Compose::V1 => deployment.compose_v1(files).exit(0),
        _ => deployment.compose_v2(files).exit(0),
    };
    let new = registry.push(Image::new("req_router").tag("1.65"));
    registry.move_tag("req_router", "latest", &new.digest);
    deployment.engine().docker(&[
        "pull",
        "-q",
        &format!("{}:latest", registry.repository("req_router")),
    ]);
    (deployment, old.digest)
}

fn what_runs_is_recorded_with(compose: Compose) {
    let registry = Registry::start();
    let (deployment, old) = running_product(&registry, compose);
    let engine = deployment.engine();
    let containers = || {
        engine.docker(&[
            "ps",
            "-q",
            "--no-trunc",
            "--filter",
            &format!("label=com.docker.compose.project={}", deployment.project()),
        ])
    };
    let before = containers();

    let outcome = deployment.dkv(["migrate-versions", "-y", "--json"]).compose(compose).exit(0);
    let report = outcome.json();
    assert_eq!(report["differences"], serde_json::json!([]), "{outcome}");
    let manifest = deployment.manifest_data();
    let router = &manifest["services"]["req_router"];
    assert_eq!(
        (&router["current_tag"], &router["image_digest"]),
        (&"1.64".into(), &old.as_str().into()),
        "{manifest:#}"
    );
    assert_eq!(router["compose_services"], serde_json::json!(["req-router"]));
    assert_eq!(manifest["services"]["settings"]["current_tag"], "1.40");
    assert_eq!(
        manifest["history"]["req_router"][0]["image_id"],
        engine.running_image(deployment.project(), "req-router")
    );
    assert!(manifest["services"].get("postgres").is_none(), "{manifest:#}");
    assert!(report["untracked"].to_string().contains("postgres"), "{report:#}");
    assert!(
        deployment.versions_env().contains(&format!("DK_REQ_ROUTER_TAG=1.64@{old}\n")),
        "{}",
        deployment.versions_env()
    );
    assert_eq!(containers(), before, "nothing may be started or stopped");

    deployment.dkv(["verify"]).compose(compose).exit(0);

    deployment.dkv(["restart"]).compose(compose).exit(0);
    assert_eq!(engine.version(deployment.project(), "req-router"), "1.64");
    let again = deployment.dkv(["init"]).compose(compose).exit(0);
    again.stderr_contains("nothing to add");
    assert_eq!(
        deployment
            .list(".version-backups")
            .iter()
            .filter(|name| name.starts_with("version-manifest"))
            .count(),
        0
    );
}

#[test]
fn what_runs_is_recorded_although_its_tag_moved_on_v2() {
    what_runs_is_recorded_with(Compose::V2);
}

#[test]
fn what_runs_is_recorded_although_its_tag_moved_on_v1() {
    what_runs_is_recorded_with(Compose::V1);
}

#[test]
fn compose_files_alone_are_enough() {
    let registry = Registry::start();
    let pushed =
        registry.push(Image::new("web").tag("2.1").tag("latest").platforms(&["amd64", "arm64"]));
    let deployment = Deployment::new("migrate");
    deployment.write("docker-compose.yml", &compose_file(&[("web", registry.repository("web"))]));

    let silent = deployment.dkv(["migrate-versions"]).exit(2);
    silent.stderr_contains("--yes");
    assert!(!deployment.exists("version-manifest.yaml") && !deployment.exists("versions.env"));
    let dry = deployment.dkv(["migrate-versions", "--dry-run"]).exit(0);
    dry.stdout_contains(&pushed.digest);
    assert!(!deployment.exists("version-manifest.yaml") && !deployment.exists("versions.env"));

    // Enter takes every default.
    let asked = deployment
        .dkv(["migrate-versions"])
        .env("DKV_NOW", "2026-01-12T12:00:00Z")
        .tty()
        .stdin("\n\n\n\n")
        .exit(0);
    asked.stdout_contains("Deployment");
    let manifest = deployment.manifest_data();
    assert_eq!(manifest["deployment_id"], format!("{}-20260112", deployment.project()));
    let web = &manifest["services"]["web"];
    assert_eq!(
        (&web["current_tag"], &web["image_digest"]),
        (&"2.1".into(), &pushed.digest.as_str().into())
    );
    assert_eq!(manifest["history"]["web"][0]["platform_digest"], pushed.platform_digest("amd64"));
    assert!(
        deployment.manifest().contains("\n  web:\n    image: "),
        "block style:\n{}",
        deployment.manifest()
    );
}

#[test]
fn a_manifest_gets_what_it_lacks_and_keeps_the_rest() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1").tag("latest"));
    let server = registry.push(Image::new("mcp_server").tag("0.3").tag("latest"));
    let deployment = Deployment::new("migrate");
    let services =
        [("web", registry.repository("web")), ("mcp-server", registry.repository("mcp_server"))];
    deployment.write("docker-compose.yml", &compose_file(&services));
    let web = format!(
        "  web: # ours\n    image: {}\n    held: true\n    current_tag: '0.9'   # from the old \
            days\n    image_digest: ''\n",
        registry.repository("web")
    );
    let history =
        "history:\n  web:\n  - {tag: '0.9', status: current}\n  - {tag: '0.8', status: previous}\n";
    deployment.write(
        "version-manifest.yaml",
        &format!("# hand-written\nschema_version: '1.1'\nowner: me\nservices:\n{web}{history}"),
    );

    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    let text = deployment.manifest();
    assert!(
        text.starts_with("# hand-written\n") && text.contains("owner: me\n") && text.contains(&web),
        "{text}"
    );
    assert!(
        text.contains("  - {tag: '0.9', status: current}\n  - {tag: '0.8', status: previous}\n"),
        "{text}"
    );
    let manifest = deployment.manifest_data();
    assert_eq!(manifest["services"]["mcp_server"]["image_digest"], server.digest);
    assert_eq!(manifest["services"]["mcp_server"]["current_tag"], "0.3");
    let written = deployment.manifest();
    deployment.dkv(["migrate-versions"]).exit(0).stderr_contains("nothing to add");
    assert_eq!(deployment.manifest(), written);
}

#[test]
fn local_builds_are_recorded_by_image_id_and_never_pulled() {
    let deployment = Deployment::new("migrate");
    let repository = format!("{}-bot", deployment.project());
    deployment.write_build_context("bot", "first");
    let compose = format!(
        "services:\n  db-migrate:\n    image: {repository}:${{VERSION:-latest}}\n    build: \
            bot\n    command: [cat, /version]\n  \
         elena-bot:\n    image: {repository}:${{VERSION:-latest}}\n    depends_on:\n      \
         db-migrate: {{condition: service_completed_successfully}}\n"
    );
    deployment.write("docker-compose.yml", &compose);
    deployment.compose_v2(["build"]).exit(0);
    deployment.compose_v2(["up", "-d"]).exit(0);
    let first = deployment.engine().running_image(deployment.project(), "elena-bot");
    deployment.write_build_context("bot", "second");
    deployment.compose_v2(["build"]).exit(0);
    let since = SystemTime::now();

    if Engine::has_containerd_store() {
        // There, an image without a name is gone, whoever runs it.
        let migrated = deployment.dkv(["migrate-versions", "-y"]).exit(10);
        migrated.stderr_contains("is not on this host any more");
        return;
    }
    let report = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0).json();
    let service = &report["services"][0];
    assert_eq!(report["services"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!(
        (&service["source"], &service["image_id"]),
        (&"local".into(), &first.as_str().into()),
        "{report:#}"
    );
    assert_eq!(
        (&service["env_tag"], &report["differences"]),
        (&"VERSION".into(), &serde_json::json!([])),
        "{report:#}"
    );
    assert_eq!(service["compose_services"], serde_json::json!(["db-migrate", "elena-bot"]));
    assert!(deployment.versions_env().contains("\nVERSION=dkv-"), "{}", deployment.versions_env());

    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "elena-bot"), "first");
    let events = deployment.engine().events_since(since);
    assert!(
        !events
            .iter()
            .any(|event| event["Action"] == "pull" && event.to_string().contains(&repository)),
        "{events:?}"
    );
}

#[test]
fn literal_lines_are_shown_and_written_on_request() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("backend").tag("1.0").tag("latest"));
    let ui = registry.push(Image::new("frontend").tag("1.0"));
    let deployment = Deployment::new("migrate");
    let compose = format!(
        "# pinned after each build\nservices:\n  backend:\n    image: {}   # copied by hand\n    \
            restart: unless-stopped\n  frontend:\n    image: \"{}:1.0\"\n",
        pushed.pin(),
        ui.repository
    );
    deployment.write("docker-compose.yml", &compose);
    deployment.write(
        "docker-compose.secretvm.yml",
        &format!("services:\n  backend:\n    image: {}\n", pushed.pin()),
    );
    deployment.compose_v2(["up", "-d"]).exit(0);

    let outcome = deployment.dkv(["migrate-versions", "-y"]).exit(0);
    outcome.stderr_contains("docker-compose.yml:4, backend does not follow versions.env");
    outcome.stderr_contains(&format!(
        "+ image: ${{DK_FRONTEND_IMAGE:-{}}}:${{DK_FRONTEND_TAG:-1.0}}",
        ui.repository
    ));
    outcome.stderr_contains("dkv pin docker-compose.secretvm.yml");
    assert_eq!(deployment.read("docker-compose.yml"), compose);
    assert_eq!(deployment.manifest_data()["services"]["backend"]["image_digest"], pushed.digest);
    assert_eq!(deployment.manifest_data()["services"]["backend"]["current_tag"], "1.0");

    let manifest = deployment.manifest();
    deployment
        .dkv(["migrate-versions", "-y", "--write"])
        .exit(0)
        .stderr_contains("follows versions.env now");
    let line = |name: &str, repository: &str, tag: &str| {
        let upper = name.to_uppercase();
        format!("${{DK_{upper}_IMAGE:-{repository}}}:${{DK_{upper}_TAG:-{tag}}}")
    };
    let expected = compose
        .replace(
            &pushed.pin(),
            &line("backend", &pushed.repository, &format!("latest@{}", pushed.digest)),
        )
        .replace(&format!("{}:1.0", ui.repository), &line("frontend", &ui.repository, "1.0"));
    assert_eq!(deployment.read("docker-compose.yml"), expected);
    assert_eq!(deployment.manifest(), manifest);
    assert!(
        deployment
            .list(".version-backups")
            .iter()
            .any(|name| name.starts_with("docker-compose.yml."))
    );
    let backend = deployment.engine().containers(deployment.project(), "backend");
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "backend"), "1.0");
    assert_eq!(deployment.engine().containers(deployment.project(), "backend"), backend);
}

#[test]
fn a_generated_file_is_left_to_its_template_and_other_tools_are_named() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("app").tag("1.0").tag("latest"));
    let deployment = Deployment::new("migrate");
    let compose = format!("services:\n  app:\n    image: {}:latest\n", pushed.repository);
    deployment.write("docker-compose.yml", &compose);
    deployment.write("docker-compose.template.yml", &compose);
    deployment.write(
        "dkapp-startup.sh",
        "#!/bin/sh\npython3 version-manager.py generate-env\ndocker-compose up -d\n",
    );
    deployment.write(
        "dkapp.service",
        &format!(
            "[Service]\nWorkingDirectory={}\nExecStart=/usr/bin/make up\n",
            deployment.directory().display()
        ),
    );

    let outcome = deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    outcome.stderr_contains("made from docker-compose.template.yml");
    outcome.stderr_contains("dkapp-startup.sh:2: python3 version-manager.py generate-env");
    outcome.stderr_contains("dkapp-startup.sh:3: docker-compose up -d");
    outcome.stderr_contains("dkapp.service:3: ExecStart=/usr/bin/make up");
    assert_eq!(deployment.read("docker-compose.yml"), compose);
}

#[test]
fn files_that_the_containers_were_started_with_are_remembered() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("app").tag("1.0").tag("latest"));
    let deployment = Deployment::new("migrate");
    deployment
        .write("docker-compose.prod.yml", &compose_file(&[("app", pushed.repository.clone())]));
    deployment.write("docker-compose.dev.yml", "services:\n  app:\n    build: .\n");
    deployment.dkv(["migrate-versions", "-y"]).exit(3).stderr_contains("several Compose files");
    let said = deployment
        .dkv(["migrate-versions", "-y", "--dry-run"])
        .env("COMPOSE_FILE", "docker-compose.prod.yml")
        .exit(0);
    said.stdout_contains("- docker-compose.prod.yml");
    deployment.compose_v2(["-f", "docker-compose.prod.yml", "up", "-d"]).exit(0);

    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    assert_eq!(
        deployment.manifest_data()["compose"]["files"],
        serde_json::json!(["docker-compose.prod.yml"])
    );
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "app"), "1.0");
}

#[test]
fn without_any_daemon_files_and_registries_are_asked_but_a_silent_one_is_an_error() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let deployment = Deployment::new("migrate");
    deployment.write("docker-compose.yml", &compose_file(&[("web", pushed.repository.clone())]));
    let socket = deployment.path("no-daemon.sock");
    let host = format!("unix://{}", socket.display());

    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(listener);
    deployment.dkv(["migrate-versions", "-y"]).env("DOCKER_HOST", host.as_str()).exit(6);
    std::fs::remove_file(&socket).unwrap();
    deployment.dkv(["migrate-versions"]).env("DOCKER_HOST", host.as_str()).exit(2);
    assert!(!deployment.exists("version-manifest.yaml"));
    deployment
        .dkv(["migrate-versions", "-y"])
        .env("DOCKER_HOST", host.as_str())
        .exit(0)
        .stderr_contains("what runs cannot be seen");
    assert_eq!(deployment.manifest_data()["services"]["web"]["image_digest"], pushed.digest);
}

#[test]
fn registries_may_be_mixed_and_the_project_named_by_a_variable() {
    let (product, hub) = (Registry::start(), Registry::start());
    let outpost = product.push(Image::new("outpost").tag("1.12").tag("latest"));
    let vault = hub.push(Image::new("vault").tag("1.20.3"));
    let deployment = Deployment::new("migrate");
    let compose = format!(
        "name: ${{PROXY_ALIAS}}\nservices:\n  outpost:\n    image: \
            ${{DK_OUTPOST_IMAGE:-{}}}:${{DK_OUTPOST_TAG:-latest}}\n  \
         vault:\n    image: ${{DK_VAULT_IMAGE:-{}}}:${{DK_VAULT_TAG:-1.20.3}}\n",
        outpost.repository, vault.repository
    );
    deployment.write("docker-compose.yml", &compose);
    deployment.write(".env", &format!("PROXY_ALIAS={}\n", deployment.project()));
    deployment.compose_v2(["up", "-d"]).exit(0);

    let report = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0).json();
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
    let services = &deployment.manifest_data()["services"];
    assert_eq!(
        (&services["outpost"]["current_tag"], &services["outpost"]["image_digest"]),
        (&"1.12".into(), &outpost.digest.into())
    );
    assert_eq!(
        (&services["vault"]["track"], &services["vault"]["image_digest"]),
        (&"1.20.3".into(), &vault.digest.into())
    );
    assert_eq!(services["vault"]["image"], vault.repository);
}

#[test]
fn a_variable_that_two_images_share_is_replaced_on_request() {
    let registry = Registry::start();
    let application =
        registry.push(Image::new("whisperengine").tag("v1.0.2").platforms(&["amd64", "arm64"]));
    let ui =
        registry.push(Image::new("whisperengine-ui").tag("v1.0.2").platforms(&["amd64", "arm64"]));
    let deployment = Deployment::new("migrate");
    deployment.write(
        "base.yml",
        &format!(
            "services:\n  assistant:\n    image: {}:${{VERSION:-v1.0.2}}\n",
            application.repository
        ),
    );
    let compose = format!(
        "services:\n  db-migrate:\n    image: {}:${{VERSION:-v1.0.2}}\n    command: [cat, \
            /version]\n    restart: \"no\"\n  \
         assistant:\n    extends: {{file: base.yml, service: assistant}}\n    depends_on:\n      \
         db-migrate: {{condition: service_completed_successfully}}\n  ui:\n    image: \
         {}:${{VERSION:-v1.0.2}}\n",
        application.repository, ui.repository
    );
    deployment.write("docker-compose.yml", &compose);
    deployment.compose_v2(["up", "-d"]).exit(0);

    let outcome = deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    outcome.stderr_contains("one variable cannot carry two digests");
    for (file, name, repository) in [
        ("docker-compose.yml", "WHISPERENGINE", &application.repository),
        ("base.yml", "WHISPERENGINE", &application.repository),
        ("docker-compose.yml", "WHISPERENGINE_UI", &ui.repository),
    ] {
        // The vendor's variable stays inside the default.
        let line = format!(
            "    image: ${{DK_{name}_IMAGE:-{repository}}}:${{DK_{name}_TAG:-${{VERSION:-v1.0.2}}}}\n"
        );
        assert!(
            deployment.read(file).contains(&line),
            "no {line} in {file}:\n{}",
            deployment.read(file)
        );
    }
    let services = &deployment.manifest_data()["services"];
    assert_eq!(
        services["whisperengine"]["image_digest"], application.digest,
        "the index's, the same on every host"
    );
    assert_eq!(
        services["whisperengine"]["compose_services"],
        serde_json::json!(["db-migrate", "assistant"])
    );
    let config =
        deployment.compose_v2(["--env-file", "versions.env", "config", "--images"]).exit(0);
    config.stdout_contains(&format!("{}:v1.0.2@{}", application.repository, application.digest));
    config.stdout_contains(&format!("{}:v1.0.2@{}", ui.repository, ui.digest));
}

#[test]
fn compose_services_of_one_image_that_run_different_versions_are_named() {
    let registry = Registry::start();
    let repository = registry.push(Image::new("app").tag("1.0")).repository;
    registry.push(Image::new("app").tag("1.1"));
    let deployment = Deployment::new("migrate");
    let line = format!("image: ${{DK_APP_IMAGE:-{repository}}}:${{DK_APP_TAG:-latest}}");
    deployment.write(
        "docker-compose.yml",
        &format!("services:\n  web:\n    {line}\n  worker:\n    {line}\n"),
    );
    deployment.compose_v2(["up", "-d", "web"]).env("DK_APP_TAG", "1.0").exit(0);
    deployment.compose_v2(["up", "-d", "--no-deps", "worker"]).env("DK_APP_TAG", "1.1").exit(0);

    let outcome = deployment.dkv(["migrate-versions", "-y"]).exit(10);
    outcome.stderr_contains("its Compose services run different images now");
    outcome.stderr_contains("worker: Compose would start");
    assert_eq!(deployment.manifest_data()["services"]["app"]["current_tag"], "1.0");
}

/// A deployment of Compose services `a`, `b`, … with these images, literal.
fn literal(images: &[String]) -> (Deployment, String) {
    let deployment = Deployment::new("migrate");
    let lines = ["a", "b", "c", "d"]
        .iter()
        .zip(images)
        .map(|(name, image)| format!("  {name}:\n    image: {image}\n"));
    let compose = format!("services:\n{}", lines.collect::<String>());
    deployment.write("docker-compose.yml", &compose);
    (deployment, compose)
}

#[test]
fn of_several_digests_in_the_files_one_is_recorded_whole_and_the_other_lines_stay() {
    let registry = Registry::start();
    let old = registry.push(Image::new("svc").tag("1.0"));
    let one = registry.push(Image::new("svc").tag("1.1"));
    let repository = &one.repository;
    let images = [format!("{repository}:1.1"), format!("{repository}:1.1@{}", old.digest)];
    let (deployment, compose) = literal(&images);
    deployment.dkv(["migrate-versions", "-y", "--dry-run"]).exit(10);
    let written = deployment.dkv(["migrate-versions", "-y", "--write"]).exit(10);
    written
        .stderr_contains(&format!("b has {}, but of svc 1.1", images[1]))
        .stderr_contains("its line stays as it is");
    let svc = deployment.manifest_data()["services"]["svc"].clone();
    assert_eq!(svc["image_digest"].as_str().unwrap(), one.digest);
    let line = format!("image: ${{DK_SVC_IMAGE:-{repository}}}:${{DK_SVC_TAG:-1.1}}");
    let expected = compose.replacen(&format!("image: {repository}:1.1"), &line, 1);
    assert_eq!(deployment.read("docker-compose.yml"), expected);
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(10).stderr_contains("b has");
    assert_eq!(deployment.read("docker-compose.yml"), expected);

    // What verify says of it works.
    deployment.dkv(["verify"]).exit(10).stdout_contains("`dkv pin`");
    deployment.dkv(["pin"]).exit(0);
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    deployment.dkv(["pull"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
}

#[test]
fn a_version_beside_another_ones_digest_is_not_believed() {
    let registry = Registry::start();
    let old = registry.push(Image::new("svc").tag("1.0"));
    registry.push(Image::new("svc").tag("1.2").tag("latest"));
    let (deployment, _) = literal(&[format!("{}:1.2@{}", old.repository, old.digest)]);
    deployment
        .dkv(["migrate-versions", "-y"])
        .exit(0)
        .stderr_contains("the registry has another image called 1.2");
    let svc = &deployment.manifest_data()["services"]["svc"];
    assert_eq!(
        (&svc["current_tag"], &svc["image_digest"]),
        (&"1.0".into(), &old.digest.as_str().into())
    );
}

#[test]
fn different_images_that_run_are_never_called_the_same() {
    let registry = Registry::start();
    let repository = registry.push(Image::new("svc").tag("1.1").tag("stable")).repository;
    let (deployment, _) =
        literal(&[format!("{repository}:stable"), format!("{repository}:stable")]);
    deployment.compose_v2(["up", "-d", "a"]).exit(0);
    registry.push(Image::new("svc").tag("1.2").tag("stable"));
    deployment.compose_v2(["pull", "b"]).exit(0);
    deployment.compose_v2(["up", "-d", "--no-deps", "b"]).exit(0);
    let outcome = deployment.dkv(["migrate-versions", "-y"]).exit(10);
    outcome.stderr_contains("its Compose services run different images now");
    outcome.stderr_lacks("exactly what runs now");
}

#[test]
fn what_plain_compose_v1_starts_is_the_same_after_writing() {
    let registry = Registry::start();
    for name in ["svc", "app", "lite", "both", "other"] {
        registry.push(Image::new(name).tag("1.1").tag("latest"));
    }
    let deployment = Deployment::new("migrate");
    let host = registry.address().to_string();
    let namespace = registry.namespace();
    deployment.write(".env", &format!("REG={host}\nLITE_TAG=1.1\nVERSION=1.1\n"));
    let reg = format!("${{REG:-foo}}/{namespace}");
    let compose = format!(
        "services:\n  svc: # ours\n    image: {reg}/svc:1.1\n  app:\n    image: \
            {host}/{namespace}/app:${{APP_TAG:-1.1}}\n  \
         app-lite:\n    image: {host}/{namespace}/app:${{LITE_TAG:?must be set}}\n  lite:\n    \
         image: {reg}/lite:${{LITE_TAG:?must be set}}\n  \
         both:\n    image: {host}/{namespace}/both:${{VERSION:-1.0}}\n  other:\n    image: \
         {host}/{namespace}/other:${{VERSION:-1.0}}\n"
    );
    deployment.write("docker-compose.yml", &compose);
    let plain = |deployment: &Deployment| {
        let two = deployment.compose_v2(["config", "--images"]).exit(0).stdout;
        let mut two: Vec<String> = two.lines().map(str::to_owned).collect();
        two.sort();
        let one = deployment.compose_v1(["config"]).exit(0).stdout;
        let one: Vec<String> =
            one.lines().filter(|line| line.contains("image:")).map(str::to_owned).collect();
        (two, one)
    };
    let before = plain(&deployment);
    let write = ["migrate-versions", "-y", "--write"];
    let outcome = deployment.dkv(write).compose(Compose::V1).exit(0);
    std::fs::rename(deployment.path("versions.env"), deployment.path("kept.env")).unwrap();
    assert_eq!(plain(&deployment), before, "{}", deployment.read("docker-compose.yml"));
    assert_eq!(
        deployment.read("docker-compose.yml"),
        compose.replace(&format!("{reg}/svc:1.1"), &format!("{reg}/svc:${{DK_SVC_TAG:-1.1}}"))
    );
    outcome.stderr_contains("is left as it is, with --write too: its tag comes from LITE_TAG");
    outcome.stderr_contains("is left as it is, with --write too: its tag comes from VERSION");
    deployment.write(".env", &format!("REG={host}\n"));
    let required = deployment.compose_v2(["config"]).finish();
    assert_ne!(required.code(), Some(0));
    required.stderr_contains("must be set");
}

#[test]
fn what_a_silent_registry_would_know_is_not_made_up() {
    let mut registry = Registry::alone();
    let repository = registry.repository("svc");
    let deployment = Deployment::new("migrate");
    let id = deployment.load(&repository, Image::new("svc").tag("1.0").version("loaded"));
    deployment
        .write("docker-compose.yml", &format!("services:\n  svc:\n    image: {repository}:1.0\n"));
    registry.stop();
    let report = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0).json();
    let svc = &report["services"][0];
    assert_eq!(
        (&svc["source"], &svc["digest"], &svc["image_id"]),
        (&"registry".into(), &serde_json::Value::Null, &id.into())
    );
    assert!(svc["notes"].to_string().contains("could not be asked"), "{report:#}");

    // One that answers and does not have it says so.
    registry.restart();
    std::fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();
    let report = deployment.dkv(["migrate-versions", "-y", "--json"]).exit(0).json();
    assert_eq!(report["services"][0]["source"], "local", "{report:#}");
    deployment.engine().docker(&["rmi", &format!("{repository}:1.0")]);
}

#[test]
fn what_is_not_tracked_is_added_by_name() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1").tag("latest"));
    let database = registry.push(Image::new("postgres").tag("13"));
    let deployment = Deployment::new("migrate");
    let compose = format!(
        "{}  db:\n    image: {}:13\n",
        compose_file(&[("web", registry.repository("web"))]),
        database.repository
    );
    deployment.write("docker-compose.yml", &compose);
    deployment
        .dkv(["migrate-versions", "-y"])
        .exit(0)
        .stderr_contains("`dkv migrate-versions --track db` adds it");
    deployment
        .dkv(["verify"])
        .exit(10)
        .stderr_contains("`dkv migrate-versions --track db` adds it");
    deployment
        .dkv(["migrate-versions", "-y", "--track", "cache"])
        .exit(2)
        .stderr_contains("web, db");
    deployment.dkv(["migrate-versions", "-y", "--track", "db"]).exit(0);
    assert_eq!(deployment.manifest_data()["services"]["postgres"]["image_digest"], database.digest);
    deployment.dkv(["verify"]).finish().stderr_lacks("nothing tracks");
}

#[test]
fn a_dry_run_names_the_files_that_would_be_written_and_the_end_says_what_has_no_effect() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("svc").tag("1.0").tag("latest"));
    let (deployment, compose) = literal(&[format!("{}:1.0", pushed.repository)]);
    let dry = deployment.dkv(["migrate-versions", "--write", "--dry-run"]).exit(0);
    dry.stderr_contains("would write docker-compose.yml, after a backup")
        .stderr_lacks("--write makes it");
    assert_eq!(deployment.read("docker-compose.yml"), compose);
    let plain = deployment.dkv(["migrate-versions", "-y"]).exit(0);
    plain.stderr_contains("Image lines in docker-compose.yml do not follow the manifest");
    let written = deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    written.stderr_lacks("do not follow the manifest");
}

#[test]
fn what_was_never_built_leaves_no_release_behind() {
    let deployment = Deployment::new("migrate");
    let repository = format!("{}-bot", deployment.project());
    deployment.write_build_context("bot", "first");
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  bot:\n    image: \
            ${{DK_BOT_IMAGE:-{repository}}}:${{DK_BOT_TAG:-latest}}\n    build: bot\n"
        ),
    );
    deployment.dkv(["init", "-y"]).exit(0).stderr_contains("it was never built here");
    let before = deployment.dkv(["verify"]).finish();
    before.stderr_contains("`dkv build`").stderr_lacks("pull-latest");
    deployment.dkv(["build"]).exit(0);
    let after = deployment.dkv(["verify"]).exit(0);
    after.stderr_lacks("lost");
    assert_eq!(deployment.manifest_data()["history"]["bot"].as_array().unwrap().len(), 1);

    // The keep-tag is what Compose is given.
    let keep = deployment
        .versions_env()
        .lines()
        .find_map(|line| line.strip_prefix("DK_BOT_TAG=").map(str::to_owned))
        .unwrap();
    assert!(keep.starts_with("dkv-"), "{keep}");
    deployment.engine().docker(&["rmi", &format!("{repository}:{keep}")]);
    deployment
        .dkv(["verify"])
        .exit(10)
        .stdout_contains("is gone from this host")
        .stdout_contains("`dkv pull` puts it back");
    deployment.dkv(["pull"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
    deployment.engine().docker(&["rmi", &format!("{repository}:{keep}")]);
    deployment.dkv(["up"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
}
