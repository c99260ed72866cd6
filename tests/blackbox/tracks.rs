//! Which tag a service follows, and which Compose services one repository has.

use super::support::{Deployment, Engine, Image, Pushed, Registry};

/// A deployment of these Compose services with literal images.
fn literal(services: &[(&str, String)]) -> Deployment {
    let deployment = Deployment::new("tracks");
    let lines = services.iter().map(|(name, image)| format!("  {name}:\n    image: {image}\n"));
    let compose = format!("services:\n{}", lines.collect::<String>());
    deployment.write("docker-compose.yml", &compose);
    deployment
}

fn service(deployment: &Deployment, name: &str) -> serde_json::Value {
    deployment.manifest_data()["services"][name].clone()
}

#[test]
fn a_written_version_is_followed_until_another_is_asked_for() {
    let registry = Registry::start();
    let old = registry.push(Image::new("db").tag("16.4").tag("16").tag("latest"));
    let deployment = literal(&[("db", format!("{}:16.4@{}", old.repository, old.digest))]);
    let report = deployment.dkv(["migrate-versions", "-y"]).exit(0);
    report.stderr_contains("16.4").stderr_contains("`dkv version-pull db TAG`");
    assert_eq!(service(&deployment, "db")["track"], "16.4");
    registry.push(Image::new("db").tag("16.5").tag("16"));
    let new = registry.push(Image::new("db").tag("17.0").tag("17").tag("latest"));

    // The next release is not taken, and nobody says that there was none to be seen.
    let outcome = deployment.dkv(["pull-latest"]).exit(0);
    outcome.stderr_contains("Nothing new can come: db `16.4` follows a version that does not move");
    assert_eq!(service(&deployment, "db")["image_digest"], old.digest.as_str());
    let report = deployment.dkv(["check-updates", "--json"]).exit(0).json();
    let db = &report["services"][0];
    assert_eq!((&db["stays"], &db["newest"]), (&true.into(), &"17.0".into()));
    deployment.dkv(["pin", "--latest"]).exit(0);
    assert!(deployment.read("docker-compose.yml").contains(":16.4@"));

    // The same version built again is that version.
    let rebuilt = registry.push(Image::new("db").tag("16.4").version("16.4 again"));
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(service(&deployment, "db")["image_digest"], rebuilt.digest.as_str());

    // A line, by the command that was named.
    deployment
        .dkv(["version-pull", "db", "16"])
        .exit(0)
        .stdout_contains("follows `16` from now on");
    assert_eq!(
        (&service(&deployment, "db")["track"], &service(&deployment, "db")["current_tag"]),
        (&"16".into(), &"16.5".into())
    );
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(service(&deployment, "db")["current_tag"], "16.5");
    // Another version of what does not move stays, too.
    deployment.dkv(["version-pull", "db", "17.0"]).exit(0);
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(service(&deployment, "db")["image_digest"], new.digest.as_str());
}

#[test]
fn what_compose_fills_in_is_followed_and_a_digest_alone_is_not_taken_for_latest() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("2026.8.0"));
    let new = registry.push(Image::new("web").tag("2026.9.0"));
    let lost = registry.push(Image::new("api").tag("gone"));
    registry.delete_tag("api", "gone");
    registry.push(Image::new("api").tag("latest"));
    let known = registry.push(Image::new("ui").tag("1.0"));
    registry.push(Image::new("ui").tag("1.1").tag("latest"));
    let followed = registry.push(Image::new("job").tag("2.0").tag("latest"));
    let deployment = literal(&[
        ("web", format!("{}:${{WEB_TAG:-2026.8.0}}", old.repository)),
        ("api", lost.pin()),
        ("ui", known.pin()),
        ("job", followed.pin()),
    ]);
    deployment.write(".env", "WEB_TAG=2026.9.0\n");
    let names = ["web", "api", "ui", "job"].map(|name| ["--track", name]).concat();
    let report = deployment.dkv([&["migrate-versions", "-y"][..], &names].concat()).exit(0);
    report
        .stderr_contains("ui: its line has a digest and no tag: follows `1.0`")
        .stderr_contains("job: its line has a digest and no tag: follows `latest`")
        .stderr_contains("api: its line has a digest and no tag, and no tag is known to name that");
    assert_eq!(service(&deployment, "web")["track"], "2026.9.0");
    deployment.dkv(["pull-latest"]).exit(0).stdout_contains("api: skipped (held");
    for (name, expected) in [("web", &new), ("api", &lost), ("ui", &known), ("job", &followed)] {
        assert_eq!(service(&deployment, name)["image_digest"], expected.digest.as_str(), "{name}");
    }
}

#[test]
fn two_programs_of_one_repository_are_two_services() {
    let registry = Registry::start();
    let web = registry.push(Image::new("tool").tag("web-server"));
    let repository = &web.repository;
    let signaling = registry.push(Image::new("tool").tag("signaling-server"));
    let images = ["web-server", "signaling-server"].map(|tag| format!("{repository}:{tag}"));
    let deployment = literal(&[
        ("web", images[0].clone()),
        ("migrate", images[0].clone()),
        ("signaling", images[1].clone()),
    ]);
    let compose = deployment.read("docker-compose.yml");
    deployment.compose_v2(["up", "-d"]).exit(0);
    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    let names = |name: &str| service(&deployment, name)["compose_services"].clone();
    assert_eq!(names("web"), serde_json::json!(["web", "migrate"]));
    assert_eq!(names("signaling"), serde_json::json!(["signaling"]));

    // Each moves for itself, and keeps its program: pinned, started and updated.
    let next = registry.push(Image::new("tool").tag("signaling-server").version("signaling 2"));
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["pin"]).exit(0);
    let pinned = compose
        .replace(&images[0], &format!("{}@{}", images[0], web.digest))
        .replace(&images[1], &format!("{}@{}", images[1], next.digest));
    assert_eq!(deployment.read("docker-compose.yml"), pinned);
    deployment.dkv(["restart"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
    let runs = |name: &str| deployment.engine().running_image(deployment.project(), name);
    assert_eq!((runs("web"), runs("signaling")), (web.image_id().into(), next.image_id().into()));
    deployment.dkv(["rollback", "-y", "signaling"]).exit(0);
    deployment.dkv(["pin"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    assert_eq!(runs("signaling"), signaling.image_id());
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    // What was rolled back by hand comes again only when that is asked for.
    deployment.dkv(["update-safe", "--no-data-backup"]).exit(0);
    assert_eq!(runs("signaling"), signaling.image_id());
    deployment.dkv(["update-safe", "--no-data-backup", "--retry"]).exit(0);
    assert_eq!((runs("web"), runs("signaling")), (web.image_id().into(), next.image_id().into()));
    deployment.dkv(["verify"]).exit(0);
}

#[test]
fn a_manifest_that_has_two_programs_in_one_entry_serves_only_its_own() {
    let registry = Registry::start();
    let web = registry.push(Image::new("tool").tag("latest"));
    let repository = &web.repository;
    let worker = registry.push(Image::new("tool").tag("worker"));
    let deployment =
        literal(&[("web", repository.clone()), ("worker", format!("{repository}:worker"))]);
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  tool:\n    image: {repository}\n    \
             compose_services: [web, worker]\n    current_tag: latest\n    image_digest: {}\n",
            web.digest
        ),
    );
    let compose = deployment.read("docker-compose.yml");
    deployment.dkv(["pin"]).exit(0);
    let pinned = compose
        .replace(&format!("{repository}\n"), &format!("{repository}:latest@{}\n", web.digest));
    assert_eq!(deployment.read("docker-compose.yml"), pinned);
    let up = deployment.dkv(["up"]).exit(0);
    let told = format!("worker runs {repository}:worker, which is nothing that tool follows");
    up.stderr_contains(&told);
    let runs = |name: &str| deployment.engine().running_image(deployment.project(), name);
    assert_eq!((runs("web"), runs("worker")), (web.image_id().into(), worker.image_id().into()));
    deployment.dkv(["verify"]).exit(10).stdout_contains(&told);
    // What is advised works.
    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    assert_eq!(service(&deployment, "worker")["track"], "worker");
    deployment.dkv(["pin"]).exit(0);
    deployment.dkv(["restart"]).exit(0);
    deployment.dkv(["verify"]).exit(0);
    assert_eq!((runs("web"), runs("worker")), (web.image_id().into(), worker.image_id().into()));
}

#[test]
fn one_image_on_two_platforms_is_two_services() {
    let registry = Registry::start();
    let push = |version: &str| {
        let image = Image::new("multi").tag("latest").tag(version).version(version);
        registry.push(image.platforms(&["amd64", "arm64"]))
    };
    let old = push("1.0");
    let image = format!("{}:latest", old.repository);
    let deployment = literal(&[("here", image.clone()), ("arm", image.clone())]);
    let compose = format!("{}    platform: linux/arm64\n", deployment.read("docker-compose.yml"));
    deployment.write("docker-compose.yml", &compose);
    let migrated = deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    migrated.stderr_contains("has several platforms here");
    assert_eq!(service(&deployment, "arm")["platform"], "linux/arm64");
    assert_eq!(service(&deployment, "here")["image_digest"], old.digest.as_str());
    assert_eq!(service(&deployment, "arm")["image_digest"], old.platform_digest("arm64"));
    let runs = |name: &str| deployment.engine().running_image(deployment.project(), name);
    let ids = |pushed: &Pushed| {
        let id = |architecture: &str| {
            let found = pushed.platforms.iter().find(|(name, ..)| name == architecture);
            found.unwrap().2.clone()
        };
        match Engine::has_containerd_store() {
            true => (pushed.digest.clone(), pushed.platform_digest("arm64").to_owned()),
            false => (id("amd64"), id("arm64")),
        }
    };
    deployment.dkv(["up"]).exit(0);
    assert_eq!((runs("here"), runs("arm")), ids(&old));
    deployment.dkv(["verify"]).exit(0);

    // Updated, rolled back and compared for their own platforms; plain Compose agrees.
    let new = push("1.1");
    deployment.dkv(["update-safe", "--no-data-backup"]).exit(0);
    assert_eq!((runs("here"), runs("arm")), ids(&new));
    assert_eq!(service(&deployment, "arm")["current_tag"], "1.1");
    deployment.dkv(["verify", "--remote"]).exit(0);
    deployment.dkv(["rollback", "-y", "arm"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    assert_eq!((runs("here"), runs("arm")), (ids(&new).0, ids(&old).1));
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.compose_v2(["--env-file", "versions.env", "up", "-d"]).exit(0);
    assert_eq!((runs("here"), runs("arm")), ids(&new));
}

#[test]
fn a_platform_that_compose_has_is_enough() {
    let registry = Registry::start();
    let old = registry.push(Image::new("multi").tag("latest").platforms(&["amd64", "arm64"]));
    let deployment = literal(&[("arm", old.repository.clone())]);
    let compose = deployment.read("docker-compose.yml");
    deployment.write("docker-compose.yml", &format!("{compose}    platform: linux/arm64\n"));
    deployment.write(
        "version-manifest.yaml",
        &format!("schema_version: '1.1'\nservices:\n  multi: {{image: {}}}\n", old.repository),
    );
    deployment.dkv(["pull-latest"]).exit(0);
    let arm = old.platform_digest("arm64");
    assert_eq!(service(&deployment, "multi")["image_digest"], arm);
    // `DOCKER_DEFAULT_PLATFORM` counts where Compose counts it.
    deployment.write("docker-compose.yml", &compose);
    deployment.write(".env", "DOCKER_DEFAULT_PLATFORM=linux/arm64\n");
    deployment.dkv(["pull-latest"]).exit(0).stdout_contains("is up to date");
}

/// A step back on a tag that moves lasts until the next update: that is said, and how to stay.
#[test]
fn a_version_off_the_track_says_what_comes_next() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.0"));
    registry.push(Image::new("web").tag("1.1").tag("latest"));
    let deployment = literal(&[("web", format!("{}:latest", registry.repository("web")))]);
    deployment.dkv(["migrate-versions", "-y"]).exit(0);
    let tag = || service(&deployment, "web")["current_tag"].clone();
    for (hold, next) in [(false, "1.1"), (true, "1.0")] {
        deployment
            .dkv(["version-pull", "web", "1.0", "--no-pull"])
            .exit(0)
            .stdout_contains("still follows `latest`, which the next `dkv pull-latest` takes")
            .stdout_contains("`dkv version-set web 1.0 --hold` stays");
        if hold {
            deployment.dkv(["version-set", "web", "1.0", "--hold", "--no-pull"]).exit(0);
        }
        deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
        assert_eq!(tag(), next, "held: {hold}");
    }
    // Names that say no platform are refused, also where nothing new is to be looked at.
    for platform in ["nonsense", "linux/nonsense"] {
        deployment.dkv(["pull-latest", "--no-pull", "--platform", platform]).exit(2);
        deployment.dkv(["version-pull", "web", "1.0", "--no-pull", "--platform", platform]).exit(2);
    }
}

/// Where lines do not follow, no hint leads in a circle: each is tested by doing what it says.
#[test]
fn what_makes_literal_lines_run_the_record_is_said() {
    for mend in ["pin", "write"] {
        let registry = Registry::start();
        let old = registry.push(Image::new("web").tag("latest").tag("1.0"));
        let deployment = literal(&[("web", format!("{}:latest", old.repository))]);
        let runs = || deployment.engine().running_image(deployment.project(), "web");
        deployment.dkv(["up"]).exit(0);
        let migrated = deployment.dkv(["migrate-versions", "-y"]).exit(0);
        migrated.stderr_lacks("With versions.env, Compose starts");
        migrated.stderr_contains("`dkv migrate-versions --write` makes those lines follow, and");
        let new = registry.push(Image::new("web").tag("latest").tag("1.1").version("1.1"));
        deployment.dkv(["pull-latest"]).exit(0);
        let status = deployment.dkv(["status"]).exit(0);
        status.stderr_contains("`dkv pin` and then `dkv restart`").stderr_contains("--write");
        let verified = deployment.dkv(["verify", "--json"]).exit(10).json();
        let mends = verified["drift"].as_array().unwrap().iter();
        let mends: Vec<&str> = mends.map(|one| one["mend"].as_str().unwrap()).collect();
        assert!(!mends.contains(&"`dkv restart`"), "{mends:?}");
        match mend {
            "pin" => deployment.dkv(["pin"]).exit(0),
            // What runs is still another.
            _ => deployment.dkv(["migrate-versions", "-y", "--write"]).exit(10),
        };
        // Now it follows, and restarting is all.
        deployment.dkv(["status"]).exit(0).stderr_contains("`dkv up` or `dkv restart`");
        deployment.dkv(["restart"]).exit(0);
        assert_eq!(runs(), new.image_id());
        deployment.dkv(["verify"]).exit(0);
    }
}

#[test]
fn what_no_manifest_knows_is_had_for_its_platform() {
    let mut registry = Registry::alone();
    let tool = registry.push(Image::new("tool").tag("1").platforms(&["amd64", "arm64"]));
    let image = format!("{}:1", tool.repository);
    for by in ["file", "variable"] {
        let deployment = literal(&[("tool", image.clone())]);
        let engine = deployment.engine();
        let here = || engine.running_architecture(deployment.project(), "tool");
        engine.docker(&["pull", &image]);
        deployment.dkv(["up"]).exit(0);
        assert_eq!(here(), "amd64");
        match by {
            "file" => {
                let text = deployment.read("docker-compose.yml") + "    platform: linux/arm64\n";
                deployment.write("docker-compose.yml", &text);
            }
            _ => {
                deployment.write(".env", "DOCKER_DEFAULT_PLATFORM=linux/arm64\n");
                if Engine::has_containerd_store() {
                    // The service and the index are the same, and so Compose replaces nothing.
                    deployment.dkv(["down"]).exit(0);
                }
            }
        }
        // The name is here, for another platform.
        deployment.dkv(["up"]).exit(0);
        assert_eq!(here(), "arm64", "{by}");
        registry.stop();
        deployment.dkv(["restart"]).exit(0);
        assert_eq!(here(), "arm64", "{by}");
        registry.restart();
        // Without a manifest `pull` and a new start mean it as well.
        deployment.dkv(["down"]).exit(0);
        engine.docker(&["rmi", &image]);
        deployment.dkv(["pull"]).exit(0);
        assert_eq!(engine.image(&image).unwrap()["Architecture"], "arm64", "{by}");
        engine.docker(&["rmi", &image]);
        deployment.dkv(["up"]).exit(0);
        assert_eq!(here(), "arm64", "{by}");
    }
}

#[test]
fn one_name_for_two_platforms_is_refused_where_the_engine_has_one() {
    let registry = Registry::start();
    let tool = registry.push(Image::new("tool").tag("latest").platforms(&["amd64", "arm64"]));
    let deployment = Deployment::new("tracks");
    let line = |name: &str, platform: &str| {
        format!("  {name}: {{image: {}, platform: {platform}}}\n", tool.repository)
    };
    let lines = line("here", "linux/amd64") + &line("arm", "linux/arm64");
    deployment.write("docker-compose.yml", &format!("services:\n{lines}"));
    if Engine::has_containerd_store() {
        // It has both under one name.
        deployment.dkv(["up"]).exit(0);
        for (name, architecture) in [("here", "amd64"), ("arm", "arm64")] {
            let runs = deployment.engine().running_architecture(deployment.project(), name);
            assert_eq!(runs, architecture, "{name}");
        }
        deployment.dkv(["up", "--dry-run"]).exit(0).stderr_lacks("Pulling");
        return;
    }
    for arguments in [vec!["up"], vec!["up", "--dry-run"]] {
        let refused = deployment.dkv(arguments).exit(3);
        refused.stderr_contains("arm wants").stderr_contains("here for linux/amd64");
    }
    assert!(deployment.engine().containers(deployment.project(), "here").is_empty());
    // The mend does it.
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    for (name, architecture) in [("here", "amd64"), ("arm", "arm64")] {
        let found = deployment.engine().running_image(deployment.project(), name);
        let mut platforms = tool.platforms.iter();
        let own = platforms.find(|(known, ..)| known == architecture).unwrap();
        assert_eq!(found, own.2, "{name}");
    }
}
