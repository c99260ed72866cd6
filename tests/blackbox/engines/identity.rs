//! Content is the identity: of builds, of what was loaded from a file, of what came from elsewhere.

use crate::support::http::Response;
use crate::support::{Deployment, Engine, Fault, Health, Image, On, Proxy, Registry};

/// The releases of a service, newest first.
fn history(deployment: &Deployment, service: &str) -> Vec<serde_json::Value> {
    deployment.manifest_data()["history"][service].as_array().cloned().unwrap_or_default()
}

/// The keep-tags of a deployment's releases in `repository`, as names.
fn kept(engine: &Engine, repository: &str) -> Vec<String> {
    let names = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", repository]);
    names.lines().filter(|name| name.contains(":dkv-")).map(str::to_owned).collect()
}

/// Writes images to a file, as one who carries them across.
fn save(engine: &Engine, deployment: &Deployment, names: &[String]) -> String {
    let file = deployment.home().join("images.tar").display().to_string();
    let names = names.iter().map(String::as_str);
    engine.docker(&["save", "-o", &file].into_iter().chain(names).collect::<Vec<_>>());
    file
}

/// Takes every image of a repository away.
fn forget(engine: &Engine, repository: &str) {
    let ids = engine.docker(&["images", "-q", "--no-trunc", repository]);
    for id in ids.lines() {
        let _ = engine.try_docker(&["rmi", "-f", id]);
    }
    let left = engine.docker(&["images", "-q", repository]);
    assert_eq!(left, "", "images of {repository}");
}

/// A Compose file whose service is built from `app`, recorded as a local image.
fn built(deployment: &Deployment) -> String {
    let repository = format!("{}-bot", deployment.project());
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  bot:\n    build: app\n    image: \
                ${{DK_BOT_IMAGE:-{repository}}}:${{DK_BOT_TAG:-latest}}\n"
        ),
    );
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  bot: {{image: {repository}, source: local, \
                current_tag: latest, image_digest: ''}}\n"
        ),
    );
    repository
}

#[test]
fn a_build_that_changes_nothing_is_no_release() {
    let deployment = Deployment::new("noop");
    built(&deployment);
    deployment.write_build_context("app", "one");
    deployment.dkv(["build"]).exit(0);
    for _ in 0..3 {
        deployment.dkv(["build"]).exit(0).stdout_contains("up to date");
    }
    assert_eq!(history(&deployment, "bot").len(), 1, "{}", deployment.manifest());
    deployment.write_build_context("app", "two");
    deployment.dkv(["build"]).exit(0);
    deployment.dkv(["build"]).exit(0);
    assert_eq!(history(&deployment, "bot").len(), 2, "{}", deployment.manifest());
    deployment.dkv(["up"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
    deployment.dkv(["rollback", "-y"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "one");
}

#[test]
fn what_was_loaded_from_a_file_is_what_was_recorded() {
    let mut registry = Registry::alone();
    let deployment = Deployment::new("loaded");
    let engine = deployment.engine().clone();
    let repository = registry.repository("web");
    deployment.write_product(&[("web", repository.clone())]);
    for version in ["1.0", "1.1"] {
        registry.push(Image::new("web").tag(version).tag("latest").platforms(&["amd64", "arm64"]));
        deployment.dkv(["pull-latest"]).exit(0);
    }
    let digests: Vec<String> = history(&deployment, "web")
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned())
        .collect();
    for digest in &digests {
        let bytes = deployment.read(&format!(".version-backups/objects/sha256/{digest}"));
        assert!(bytes.contains("arm64"), "{bytes}");
    }
    let names = kept(&engine, &repository);
    assert_eq!(names.len(), 2, "{names:?}");
    let file = save(&engine, &deployment, &names);
    forget(&engine, &repository);
    registry.stop();

    // Another image under the names of these is not taken for them.
    let tags: Vec<&str> = names.iter().map(|name| name.rsplit(':').next().unwrap()).collect();
    let tampered = tags.iter().fold(Image::new("web").version("evil"), |image, tag| image.tag(tag));
    deployment.load(&repository, tampered.tag("1.1"));
    deployment.dkv(["pull"]).exit(5);
    deployment.dkv(["up"]).exit(5);
    forget(&engine, &repository);

    engine.docker(&["load", "-i", &file]);
    deployment.dkv(["pull"]).exit(0).stderr_contains("local already");
    deployment.dkv(["up"]).exit(0);
    assert_eq!(engine.version(deployment.project(), "web"), "1.1");
    deployment.dkv(["verify"]).exit(0);
    deployment.dkv(["status"]).exit(0).stdout_contains("1.1");
    if !Engine::has_containerd_store() {
        let text = deployment.versions_env();
        assert!(text.contains("web: this host has sha256:"), "{text}");
        assert!(text.contains(&format!("DK_WEB_TAG={}\n", keep_of(&names, &digests[0]))), "{text}");
    }
    deployment.dkv(["rollback", "-y"]).exit(0).stdout_contains("1.0");
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(engine.version(deployment.project(), "web"), "1.0");
    deployment.dkv(["verify"]).exit(0);
    // What somebody sources says the same.
    let run = deployment.compose_v2(["--env-file", "versions.env", "up", "-d", "--pull", "never"]);
    run.exit(0).stderr_contains("Running");
}

/// The keep-tag that carries the beginning of a digest.
fn keep_of(names: &[String], digest: &str) -> String {
    let name = names.iter().find(|name| name.ends_with(&digest[..12])).expect("a keep-tag");
    name.rsplit(':').next().unwrap().to_owned()
}

#[test]
fn the_same_bytes_from_a_mirror_are_the_release() {
    let (mut registry, mirror) = (Registry::alone(), Registry::start());
    let deployment = Deployment::new("mirrored");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let image = |registry: &Registry| {
        let labelled = Image::new("web").tag("1.0").tag("latest").label("same", "yes");
        registry.push_of(deployment.project(), labelled)
    };
    let (pushed, mirrored) = (image(&registry), image(&mirror));
    assert_eq!(pushed.digest, mirrored.digest);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.stop();
    let engine = deployment.engine();
    engine.docker(&["pull", "-q", &mirrored.pin()]);
    deployment.dkv(["pull"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
    assert_eq!(engine.version(deployment.project(), "web"), "1.0");
}

#[test]
fn what_was_recorded_without_a_daemon_is_known_when_it_is_loaded() {
    let mut registry = Registry::alone();
    let deployment = Deployment::new("carried");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let image = Image::new("web").tag("1.0").tag("latest").health(Health::Passing);
    let image = image.label("what", "settings count");
    let pushed =
        registry.push_of(deployment.project(), image.clone().platforms(&["amd64", "arm64"]));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.stop();
    let others = Image::new("web").tag("1.0").label("what", "other settings");
    let repository = registry.repository("web");
    deployment.load(&repository, others);
    deployment.dkv(["pull"]).exit(5);
    // As the index has it for this platform.
    deployment.load(&repository, image.label("dkv.test.architecture", "amd64"));
    deployment.dkv(["pull"]).exit(0).stderr_contains("local already");
    deployment.dkv(["up"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "1.0");
    deployment.dkv(["verify"]).exit(0);
    assert!(deployment.manifest().contains(&pushed.digest), "{}", deployment.manifest());
}

#[test]
fn what_is_kept_goes_with_the_last_that_names_it() {
    let registry = Registry::start();
    let deployment = Deployment::new("swept");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let directory = ".version-backups/objects/sha256";
    let unknown = "0".repeat(64);
    let mut pushed = Vec::new();
    for number in 1..=7 {
        let image = Image::new("web").tag(&format!("1.{number}")).tag("latest");
        pushed.push(registry.push(image.platforms(&["amd64", "arm64"])));
        // By turns: what a daemon gets, and what none is asked about.
        let no_pull = if number % 2 == 0 { &["--no-pull"][..] } else { &[] };
        deployment.dkv(["pull-latest"].iter().chain(no_pull).copied()).exit(0);
        deployment.write(&format!("{directory}/{unknown}"), "left over");
    }
    deployment.dkv(["rollback", "-y"]).exit(0);
    let kept = deployment.list(directory);
    assert!(!kept.contains(&unknown), "{kept:?}");
    for (place, image) in pushed.iter().enumerate() {
        for digest in [&image.digest, image.platform_digest("amd64")] {
            let is_kept = kept.iter().any(|name| digest.ends_with(name.as_str()));
            assert_eq!(is_kept, place >= 2, "{digest} of 1.{}: {kept:?}", place + 1);
        }
    }
}

#[test]
fn a_host_whose_store_changes_keeps_its_releases() {
    let Some(old) = Engine::other() else {
        eprintln!("skipped: DKV_TEST_ENGINE=containerd tests/run.sh runs it");
        return;
    };
    let mut registry = Registry::alone();
    let deployment = Deployment::on(old.clone(), "moved");
    let bot = built(&deployment);
    let web = registry.repository("web");
    let compose = deployment.read("docker-compose.yml");
    deployment.write(
        "docker-compose.yml",
        &format!("{compose}  web:\n    image: ${{DK_WEB_IMAGE:-{web}}}:${{DK_WEB_TAG:-latest}}\n"),
    );
    let manifest = deployment.manifest();
    deployment.write(
        "version-manifest.yaml",
        &format!("{manifest}  web: {{image: {web}, current_tag: latest, image_digest: ''}}\n"),
    );
    for version in ["1.0", "1.1"] {
        deployment.write_build_context("app", version);
        deployment.dkv(["build"]).exit(0);
        registry.push(Image::new("web").tag(version).tag("latest"));
        deployment.dkv(["pull-latest", "web"]).exit(0);
    }
    let names = [kept(&old, &bot), kept(&old, &web)].concat();
    assert_eq!(names.len(), 4, "{names:?}");
    let file = save(&old, &deployment, &names);
    registry.stop();

    let new = Engine::machine();
    new.docker(&["load", "-i", &file]);
    let dkv = |arguments: &[&str]| {
        let run = deployment.dkv(arguments.iter().copied());
        run.env("DOCKER_HOST", "unix:///var/run/docker.sock")
    };
    dkv(&["pull"]).exit(0).stderr_contains("local already");
    dkv(&["verify"]).exit(0);
    dkv(&["up"]).exit(0);
    for service in ["bot", "web"] {
        assert_eq!(new.version(deployment.project(), service), "1.1", "{service}");
    }
    dkv(&["verify"]).exit(0);
    dkv(&["rollback", "-y"]).exit(0);
    dkv(&["restart"]).exit(0);
    for service in ["bot", "web"] {
        assert_eq!(new.version(deployment.project(), service), "1.0", "{service}");
    }
    dkv(&["verify"]).exit(0);
    new.remove_project(deployment.project());
    forget(&new, &bot);
    forget(&new, &web);
}

#[test]
fn what_the_engine_remembers_of_a_pull_counts_where_its_registry_is_silent() {
    if !Engine::has_containerd_store() {
        eprintln!("skipped: DKV_TEST_ENGINE=containerd tests/run.sh runs it");
        return;
    }
    let mut registry = Registry::alone();
    let deployment = Deployment::new("remembered");
    let repository = registry.repository("web");
    let web = registry.push(Image::new("web").tag("1.0"));
    let compose = format!("services:\n  web:\n    image: {repository}:1.0\n");
    deployment.write("docker-compose.yml", &compose);
    deployment.compose_v2(["up", "-d"]).exit(0);
    registry.stop();
    let image = Engine::machine().image(&format!("{repository}:1.0")).unwrap();
    let id = image["Id"].as_str().unwrap();
    // Engine 29 adds it; what it says of this host's engine is as Engine 29 says it.
    let proxy = Proxy::to_engine();
    for (from, is_known) in [(repository.as_str(), true), ("r.example/base", false)] {
        let mut answer = image.clone();
        answer["Identity"] = serde_json::json!({"Pull": [{"Repository": from}]});
        proxy.reset();
        proxy.fault(On::target(id), Fault::Respond(Response::json(200, &answer)));
        let run = deployment.dkv(["migrate-versions", "-y"]);
        let told = run.env("DOCKER_HOST", format!("tcp://{}", proxy.address())).exit(0);
        assert!(proxy.count("GET", id) > 0);
        let digest = deployment.manifest_data()["services"]["web"]["image_digest"].clone();
        assert_eq!(digest == web.digest.as_str(), is_known, "{from}: {digest}");
        if !is_known {
            told.stderr_contains("the registry could not be asked");
        }
        std::fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();
    }
}

#[test]
fn a_changed_store_is_told_once_and_what_was_left_is_had_by_digest() {
    let Some(old) = Engine::other().filter(|_| Engine::has_containerd_store()) else {
        eprintln!("skipped: DKV_TEST_ENGINE=containerd tests/run.sh runs it");
        return;
    };
    let registry = Registry::start();
    let deployment = Deployment::on(old.clone(), "store");
    let repository = registry.repository("web");
    deployment.write_product(&[("web", repository.clone())]);
    for version in ["1.0", "1.1"] {
        registry.push(Image::new("web").tag(version).tag("latest").platforms(&["amd64", "arm64"]));
        deployment.dkv(["pull-latest"]).exit(0);
    }
    deployment.dkv(["verify", "--json"]).finish().stderr_lacks("image store");
    let new = Engine::machine();
    let dkv = |arguments: &[&str]| {
        let run = deployment.dkv(arguments.iter().copied());
        run.env("DOCKER_HOST", "unix:///var/run/docker.sock")
    };
    let told = "image store has changed, from Docker's classic one to containerd's";
    // Who only looks tells of it as long as nobody has done anything about it.
    for _ in 0..2 {
        dkv(&["verify"]).exit(10).stderr_contains(told).stderr_contains("`dkv pull`");
    }
    let pull = dkv(&["pull"]).exit(0);
    pull.stderr_contains(told).stderr_contains("1 of 2 remembered releases are here");
    for arguments in [&["pull"][..], &["up"], &["status"]] {
        dkv(arguments).exit(0).stderr_lacks("image store");
    }
    assert_eq!(kept(&new, &repository).len(), 1);
    assert_eq!(new.version(deployment.project(), "web"), "1.1");
    dkv(&["rollback", "-y"]).exit(0).stdout_contains("1.0");
    dkv(&["restart"]).exit(0);
    assert_eq!(new.version(deployment.project(), "web"), "1.0");
    assert_eq!(kept(&new, &repository).len(), 2);
    dkv(&["verify"]).exit(0).stderr_lacks("image store");
    new.remove_project(deployment.project());
    forget(&new, &repository);
}
