//! Pulling and recording: resolve once, pull exactly that, all or nothing.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Deployment, Fault, Gate, Image, On, Proxy, Pushed, Registry, wait_for};
use rustix::process::Signal;

/// Pushes `name` under `latest`; another version is another digest.
fn publish(registry: &Registry, name: &str, version: &str) -> Pushed {
    registry.push(Image::new(name).tag("latest").version(version))
}

/// A deployment of these services in the registry as `address` reaches it.
fn product(topic: &str, names: &[&'static str], repository: impl Fn(&str) -> String) -> Deployment {
    let deployment = Deployment::new(topic);
    let services: Vec<(&str, String)> =
        names.iter().map(|name| (*name, repository(name))).collect();
    deployment.write_product(&services);
    deployment
}

fn current_digest(deployment: &Deployment, service: &str) -> String {
    deployment.manifest_data()["services"][service]["image_digest"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Manifest, `versions.env` and what is in the state directory beside what it is made with.
fn files(deployment: &Deployment) -> (String, Option<String>, Vec<String>) {
    let env = deployment.exists("versions.env").then(|| deployment.versions_env());
    let state = deployment
        .list(".version-backups")
        .into_iter()
        .filter(|name| !name.starts_with(".state") && name != ".gitignore")
        .collect();
    (deployment.manifest(), env, state)
}

#[test]
fn a_tag_is_resolved_once_and_its_bytes_are_pulled_kept_and_recorded() {
    let registry = Registry::start();
    let pushed = publish(&registry, "web", "one");
    let proxy = Proxy::to(&registry);
    let deployment = product("latest", &["web"], |name| proxy.repository(name));
    let outcome = deployment.dkv(["pull-latest"]).exit(0);
    outcome
        .stdout_contains("web")
        .stdout_contains(&pushed.digest[7..19])
        .stderr_contains("dkv restart");
    assert_eq!(proxy.count("HEAD", "/manifests/latest"), 1, "{:?}", proxy.requests());
    assert_eq!(proxy.count("GET", "/manifests/latest"), 0, "the daemon is told the digest");

    let data = deployment.manifest_data();
    assert_eq!(current_digest(&deployment, "web"), pushed.digest);
    let entry = &data["history"]["web"][0];
    assert_eq!(
        (entry["digest"].as_str(), entry["status"].as_str()),
        (Some(pushed.digest.as_str()), Some("current"))
    );
    assert_eq!(entry["image_id"], pushed.image_id());
    assert_eq!(
        (entry["deployed_by"].as_str(), data["services"]["web"]["deployed_by"].as_str()),
        (Some("tester"), Some("tester"))
    );
    assert!(data["services"]["web"]["deployed_at"].as_str().unwrap().ends_with('Z'));
    assert!(deployment.versions_env().contains(&format!("@{}\n", pushed.digest)));
    assert!(
        deployment.versions_env().contains(&format!("DK_WEB_IMAGE={}\n", proxy.repository("web")))
    );

    let engine = deployment.engine();
    let tags = engine.image(&format!("{}@{}", proxy.repository("web"), pushed.digest)).unwrap()["RepoTags"].to_string();
    assert!(
        tags.contains(&"web:dkv-".to_string()) && tags.contains(&pushed.digest[7..19]),
        "{tags}"
    );
}

#[test]
fn pull_of_what_is_local_asks_no_registry_and_writes_nothing() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    publish(&registry, "api", "one");
    let proxy = Proxy::to(&registry);
    let deployment = product("local", &["web", "api"], |name| proxy.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    let before = files(&deployment);
    publish(&registry, "web", "two");
    proxy.reset();
    let outcome = deployment.dkv(["pull", "--json"]).exit(0);
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
    assert_eq!(files(&deployment), before);
    let outcomes: Vec<Value> = outcome.json()["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["present", "present"]);

    // Pruned, the recorded bytes come back, not what the tag names now.
    let recorded = current_digest(&deployment, "web");
    let pin = format!("{}@{recorded}", proxy.repository("web"));
    let image = deployment.engine().image_id(&pin).unwrap();
    deployment.engine().docker(&["rmi", "-f", &image]);
    deployment.dkv(["pull"]).exit(0).stderr_contains("Pulled");
    assert_eq!(deployment.engine().image_id(&pin), Some(image));
    assert_eq!(
        proxy.count("HEAD", "/manifests/latest") + proxy.count("GET", "/manifests/latest"),
        0,
        "{:?}",
        proxy.requests()
    );
    assert_eq!(files(&deployment), before);
    let tags = deployment.engine().image(&pin).unwrap()["RepoTags"].to_string();
    assert!(tags.contains("web:dkv-"), "the keep-tag is back: {tags}");
}

#[test]
fn an_entry_without_a_digest_is_pulled_by_its_tag_with_a_warning() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.0"));
    let deployment = product("by-tag", &["web"], |name| registry.repository(name));
    deployment.write(
        "version-manifest.yaml",
        &deployment.manifest().replace("current_tag: latest", "current_tag: '1.0'"),
    );
    let before = deployment.manifest();
    deployment.dkv(["pull"]).exit(0).stderr_contains("warning").stderr_contains("1.0");
    assert!(deployment.engine().image_id(&format!("{}:1.0", registry.repository("web"))).is_some());
    assert_eq!(deployment.manifest(), before);
}

#[test]
fn a_tag_that_moves_between_resolving_and_pulling_does_not_matter() {
    let registry = Registry::start();
    let old = publish(&registry, "web", "old");
    let proxy = Proxy::to(&registry);
    let gate = Gate::default();
    proxy.fault(On::target("/manifests/sha256:"), Fault::Hold(gate.clone()));
    let deployment = product("moving", &["web"], |name| proxy.repository(name));
    let running = deployment.dkv(["pull-latest"]).spawn();
    wait_for("the tag is resolved", Duration::from_secs(60), || {
        proxy
            .requests()
            .iter()
            .any(|seen| seen.target().contains("latest") && seen.status == Some(200))
            .then_some(())
    });
    let new = publish(&registry, "web", "new");
    gate.open();
    running.exit(0);
    assert_ne!(old.digest, new.digest);
    assert_eq!(current_digest(&deployment, "web"), old.digest);
    deployment.dkv(["up"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "old");
}

#[test]
fn images_come_while_their_versions_are_still_looked_up() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let proxy = Proxy::to(&registry);
    proxy.fault(On::target("/tags/list"), Fault::Stall);
    let deployment = product("early", &["web"], |name| proxy.repository(name));
    let before = files(&deployment);
    let running = deployment.dkv(["pull-latest"]).spawn();
    let pin = format!("{}@{}", proxy.repository("web"), pushed.digest);
    wait_for("the image, though its version is not known", Duration::from_secs(20), || {
        deployment.engine().image_id(&pin)
    });
    assert!(
        proxy
            .requests()
            .iter()
            .all(|seen| !seen.target().contains("/tags/list") || seen.status.is_none())
    );
    running.signal(Signal::INT);
    running.exit(130);
    assert_eq!(
        (files(&deployment).0, files(&deployment).1),
        (before.0, before.1),
        "nothing is recorded before all is known"
    );

    registry.push(Image::new("web").tag("2.0").tag("latest").version("two"));
    let proxy = Proxy::to(&registry);
    proxy.fault(On::target("/tags/list"), Fault::Delay(Duration::from_millis(500)));
    let deployment = product("early-record", &["web"], |name| proxy.repository(name));
    deployment.dkv(["pull-latest"]).exit(0).stdout_contains("2.0");
    assert_eq!(deployment.manifest_data()["services"]["web"]["current_tag"], "2.0");
    // Once by the daemon, once by dkv for its own keeping.
    assert_eq!(proxy.count("GET", "/manifests/sha256:"), 2, "pulled once: {:?}", proxy.requests());
}

#[test]
fn a_service_that_cannot_be_resolved_ends_the_pulls_that_have_begun() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let proxy = Proxy::to(&registry);
    proxy.fault(On::target("/blobs/"), Fault::Stall);
    // The registry says that there is no such tag, but not before the other image is on its way.
    proxy.fault(On::target("api/manifests/latest"), Fault::Delay(Duration::from_millis(1_500)));
    let deployment = product("unresolved", &["web", "api"], |name| proxy.repository(name));
    let before = files(&deployment);
    let outcome = deployment.dkv(["pull-latest"]).exit(5);
    outcome.stderr_contains("`api`").stderr_lacks("`web`").stderr_contains("nothing was recorded");
    assert!(proxy.count("GET", "/blobs/") > 0, "{:?}", proxy.requests());
    assert_eq!((files(&deployment).0, files(&deployment).1), (before.0, before.1));
}

#[test]
fn what_will_not_be_recorded_is_not_pulled() {
    let registry = Registry::start();
    publish(&registry, "held", "one");
    let bad = publish(&registry, "bad", "one");
    publish(&registry, "known", "one");
    let proxy = Proxy::to(&registry);
    let deployment = product("no-early", &["held", "bad", "known"], |name| proxy.repository(name));
    let text =
        deployment.manifest().replacen("    current_tag", "    held: true\n    current_tag", 1);
    let rejected = format!(
        "{text}rejected:\n  bad: [{{digest: '{}', tag: '1.65', reason: 'never healthy'}}]\n",
        bad.digest
    );
    deployment.write("version-manifest.yaml", &rejected);
    deployment.dkv(["pull-latest", "--dry-run"]).exit(0).stdout_contains("known");
    assert_eq!(proxy.count("GET", "/bad/manifests/"), 0, "{:?}", proxy.requests());
    assert_eq!(proxy.count("GET", "/held/manifests/"), 0, "{:?}", proxy.requests());

    deployment.dkv(["pull-latest"]).exit(0);
    let pulled: Vec<String> = proxy
        .requests()
        .iter()
        .filter(|seen| seen.method() == "GET")
        .map(|seen| seen.target().into())
        .collect();
    let of_known = |target: &&String| {
        target.contains("known/") || !(target.contains("/manifests/") || target.contains("/blobs/"))
    };
    assert_eq!(pulled.iter().filter(|target| !of_known(target)).count(), 0, "{pulled:?}");
    proxy.reset();
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(
        proxy.count("GET", "/manifests/"),
        0,
        "what is recorded and local: {:?}",
        proxy.requests()
    );
}

#[test]
fn one_failing_service_of_eight_changes_nothing_and_all_failures_are_named() {
    let names = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"];
    let registry = Registry::start();
    for name in names {
        publish(&registry, name, "one");
    }
    let proxy = Proxy::to(&registry);
    let deployment = product("eight", &names, |name| proxy.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    for name in names {
        publish(&registry, name, "two");
    }
    registry.delete_tag("s3", "latest");
    registry.delete_tag("s6", "latest");
    let before = files(&deployment);
    let outcome = deployment.dkv(["pull-latest"]).exit(5);
    for text in ["s3", "s6", "latest", "nothing was recorded"] {
        outcome.stderr_contains(text);
    }
    outcome.stderr_lacks("`s1`");
    assert_eq!(files(&deployment), before);
    let json = deployment.dkv(["pull-latest", "--json"]).exit(5).json();
    assert_eq!(
        (json["error"]["exit_code"].as_u64(), json["error"]["kind"].as_str()),
        (Some(5), Some("registry"))
    );

    // The registry names the bytes but does not give them.
    registry.move_tag("s3", "latest", &before_digest(&before.0, "s3"));
    let third = publish(&registry, "s6", "three");
    let config = third.image_id().trim_start_matches("sha256:").to_owned();
    proxy.fault(On::target(&config), Fault::status(404));
    let outcome = deployment.dkv(["pull-latest"]).exit(5);
    outcome.stderr_contains("s6").stderr_contains("nothing was recorded");
    assert_eq!(files(&deployment), before);

    let outcome = deployment.dkv(["pull-latest", "--keep-going", "--json"]).exit(9);
    let json = outcome.json();
    let of = |name: &str| {
        json["services"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["outcome"].clone()
    };
    assert_eq!(
        (of("s1"), of("s3"), of("s6")),
        ("updated".into(), "unchanged".into(), "failed".into())
    );
    outcome.stderr_contains("s6");
    let after = deployment.manifest_data();
    assert_ne!(
        after["services"]["s1"]["image_digest"].as_str(),
        Some(before_digest(&before.0, "s1").as_str())
    );
    assert_eq!(
        after["services"]["s6"]["image_digest"].as_str(),
        Some(before_digest(&before.0, "s6").as_str())
    );
    assert!(
        deployment
            .versions_env()
            .contains(after["services"]["s1"]["image_digest"].as_str().unwrap())
    );
}

fn before_digest(manifest: &str, service: &str) -> String {
    let data: Value = serde_yaml::from_str(manifest).unwrap();
    data["services"][service]["image_digest"].as_str().unwrap().to_owned()
}

#[test]
fn with_keep_going_and_nothing_that_succeeds_it_is_a_failure() {
    let mut registry = Registry::alone();
    publish(&registry, "web", "one");
    let deployment = product("all-fail", &["web", "api"], |name| registry.repository(name));
    registry.stop();
    let before = files(&deployment);
    for args in [
        &["pull-latest", "--keep-going"][..],
        &["pull-latest"],
        &["pull", "--keep-going"],
        &["version-pull", "web", "1"],
    ] {
        let outcome = deployment.dkv(args.iter().copied()).exit(5);
        outcome.stderr_contains(&registry.address().to_string());
        assert_eq!(files(&deployment).0, before.0);
    }
}

#[test]
fn held_and_rejected_services_are_skipped_and_said() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let bad = publish(&registry, "api", "bad");
    let deployment = product("skip", &["web", "api"], |name| registry.repository(name));
    let text =
        deployment.manifest().replacen("    current_tag", "    held: true\n    current_tag", 1);
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "{text}rejected:\n  api: [{{digest: '{}', tag: '1.65', reason: 'never healthy'}}]\n",
            bad.digest
        ),
    );
    let before = deployment.manifest();
    let outcome = deployment.dkv(["pull-latest"]).exit(0);
    outcome
        .stdout_contains("held")
        .stdout_contains("dkv unhold")
        .stdout_contains("never healthy")
        .stdout_contains("--retry");
    assert_eq!(deployment.manifest(), before);
    deployment.dkv(["pull-latest", "--retry"]).exit(0);
    assert_eq!(current_digest(&deployment, "api"), bad.digest);
    assert_eq!(current_digest(&deployment, "web"), "");
    // Taken all the same, it is not bad any more.
    let rejected = deployment.manifest_data()["rejected"]["api"].clone();
    assert!(rejected.is_null() || rejected.as_array().is_some_and(Vec::is_empty), "{rejected}");
    deployment.dkv(["version-pull", "web", "latest"]).exit(0).stdout_contains("no longer held");
    assert!(!deployment.manifest_data()["services"]["web"]["held"].as_bool().unwrap_or(false));
}

#[test]
fn a_custom_version_is_marked_held_when_asked_and_its_replacement_said() {
    let registry = Registry::start();
    let latest = publish(&registry, "web", "one");
    let fix = registry.push(Image::new("web").tag("1.35-hotfix"));
    let deployment = product("custom", &["web"], |name| registry.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    deployment
        .dkv(["version-set", "web", "1.35-hotfix", "--reason", "it's \"urgent\": #1"])
        .exit(0);
    let data = deployment.manifest_data();
    let custom = &data["custom_overrides"]["web"];
    assert_eq!(custom["reason"], "it's \"urgent\": #1");
    assert_eq!(custom["digest"], fix.digest.as_str());
    assert_eq!(
        (data["services"]["web"]["current_tag"].as_str(), current_digest(&deployment, "web")),
        (Some("1.35-hotfix"), fix.digest.clone())
    );
    deployment
        .dkv(["version"])
        .exit(0)
        .stdout_contains("[custom]")
        .stdout_contains("it's \"urgent\": #1");
    deployment.dkv(["history"]).exit(0).stdout_contains("[custom]");
    deployment
        .dkv(["pull-latest"])
        .exit(0)
        .stdout_contains("replaces the custom version 1.35-hotfix");
    assert_eq!(current_digest(&deployment, "web"), latest.digest);
    deployment.dkv(["version"]).exit(0).stdout_lacks("[custom]");

    deployment.dkv(["version-set", "web", "1.35-hotfix", "--hold"]).exit(0);
    deployment.dkv(["version"]).exit(0).stdout_contains("[custom]").stdout_contains("[held]");
    deployment.dkv(["pull-latest"]).exit(0).stdout_contains("skipped");
    assert_eq!(current_digest(&deployment, "web"), fix.digest);
    deployment.dkv(["unhold", "web"]).exit(0);
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(current_digest(&deployment, "web"), latest.digest);

    // The vendor publishes its own under the tag of the patch.
    deployment.dkv(["version-set", "web", "1.35-hotfix"]).exit(0);
    let vendors = Image::new("web").version("vendor's").tag("1.35-hotfix").tag("latest");
    let vendors = registry.push(vendors).digest;
    let done = deployment.dkv(["pull-latest"]).exit(0);
    done.stdout_contains("replaces the custom version 1.35-hotfix");
    assert_eq!(current_digest(&deployment, "web"), vendors);
    deployment.dkv(["version"]).exit(0).stdout_contains("1.35-hotfix").stdout_lacks("[custom]");
}

#[test]
fn recording_without_pulling_needs_no_daemon() {
    let registry = Registry::start();
    let latest = publish(&registry, "web", "one");
    let fixed = registry.push(Image::new("web").tag("1.5").platforms(&["amd64", "arm64"]));
    let deployment = product("no-pull", &["web"], |name| registry.repository(name));
    let dkv = |args: &[&'static str]| {
        deployment.dkv(args.iter().copied()).env("DOCKER_HOST", "unix:///nonexistent").exit(0)
    };
    dkv(&["pull-latest", "--no-pull"]);
    assert_eq!(current_digest(&deployment, "web"), latest.digest);
    dkv(&["version-pull", "web", "1.5", "--no-pull"]);
    assert_eq!(current_digest(&deployment, "web"), fixed.digest);
    dkv(&["version-set", "web", "latest", "--no-pull", "--reason", "because"]);
    assert!(deployment.versions_env().contains(&latest.digest));
    assert!(deployment.engine().image_id(&latest.pin()).is_none(), "nothing was pulled");
    // Another machine pulls what was recorded.
    deployment.dkv(["pull"]).exit(0);
    assert_eq!(deployment.engine().image_id(&latest.pin()).as_deref(), Some(latest.image_id()));
}

#[test]
fn nothing_new_records_nothing_and_rollback_still_works() {
    let registry = Registry::start();
    let one = publish(&registry, "web", "one");
    let deployment = product("no-op", &["web"], |name| registry.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    publish(&registry, "web", "two");
    deployment.dkv(["pull-latest"]).exit(0);
    let before = files(&deployment);
    for _ in 0..5 {
        deployment.dkv(["pull-latest"]).exit(0).stdout_contains("up to date");
        assert_eq!(files(&deployment), before);
    }
    deployment.dkv(["rollback", "-y"]).exit(0);
    assert_eq!(current_digest(&deployment, "web"), one.digest);
}

#[test]
fn what_nobody_has_is_a_usage_error_or_a_registrys() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.0"));
    let deployment = product("unknown", &["web", "taskservice"], |name| registry.repository(name));
    for command in ["pull", "pull-latest", "rollback", "version", "version-history"] {
        deployment
            .dkv([command, "taskservce"])
            .exit(2)
            .stderr_contains("taskservce")
            .stderr_contains("did you mean `taskservice`?");
    }
    deployment
        .dkv(["version-pull", "nothing-like-it", "1"])
        .exit(2)
        .stderr_contains("web, taskservice");
    for bad in ["1 2", "$(x)", ":1", "", ".x", "é", &"a".repeat(129), "1@sha256:00"] {
        deployment.dkv(["version-pull", "web", bad]).exit(2);
        deployment.dkv(["version-set", "web", bad]).exit(2);
    }
    let outcome = deployment.dkv(["version-pull", "web", "9.9"]).exit(5);
    outcome.stderr_contains("9.9").stderr_contains("web");
    let outcome = deployment.dkv(["version-pull", "taskservice", "1.0"]).exit(5);
    outcome.stderr_contains("taskservice");
    assert!(!deployment.exists("versions.env"));
}

#[test]
fn an_image_for_other_machines_only_is_refused_every_time() {
    let registry = Registry::start();
    publish(&registry, "index", "one");
    publish(&registry, "plain", "one");
    let deployment = product("platform", &["index", "plain"], |name| registry.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    let before = files(&deployment);
    registry.push(Image::new("index").tag("latest").version("arm").platforms(&["arm64"]));
    let outcome = deployment.dkv(["pull-latest"]).exit(5);
    outcome.stderr_contains("index").stderr_contains("arm64").stderr_contains("amd64");
    assert_eq!(files(&deployment), before);

    publish(&registry, "index", "one");
    let arm = registry.push(Image::new("plain").tag("other").version("arm").platforms(&["arm64"]));
    let manifest =
        arm.platforms.iter().find(|(architecture, ..)| architecture == "arm64").unwrap().1.clone();
    registry.move_tag("plain", "latest", &manifest);
    for attempt in 1..3 {
        let outcome = deployment.dkv(["pull-latest"]).finish();
        assert_eq!(outcome.code(), Some(5), "attempt {attempt}: {outcome}");
        outcome.stderr_contains("plain").stderr_contains("arm64");
        assert_eq!(files(&deployment), before, "attempt {attempt}");
    }
}

#[test]
fn of_a_multi_platform_image_the_index_is_recorded_and_the_hosts_entry_beside_it() {
    let registry = Registry::start();
    let pushed =
        registry.push(Image::new("web").tag("latest").platforms(&["amd64", "arm64"]).oci());
    let deployment = product("index", &["web"], |name| registry.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    let entry = deployment.manifest_data()["history"]["web"][0].clone();
    let amd64 = pushed.platforms.iter().find(|(architecture, ..)| architecture == "amd64").unwrap();
    assert_eq!(entry["digest"], pushed.digest.as_str());
    assert_eq!(entry["platform_digest"], amd64.1.as_str());
    assert_eq!(entry["image_id"], pushed.image_id());
    deployment.dkv(["up"]).exit(0);
    let running = deployment.engine().running_image(deployment.project(), "web");
    assert_eq!(running, pushed.image_id());
    // Only the index changes: the same platform's bytes are another index, and a new release.
    let annotated = registry.push(
        Image::new("web")
            .tag("latest")
            .platforms(&["amd64", "arm64"])
            .oci()
            .index_annotation("a", "b"),
    );
    assert_ne!(annotated.digest, pushed.digest);
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(current_digest(&deployment, "web"), annotated.digest);
}

#[test]
fn a_dry_run_shows_and_changes_nothing() {
    let registry = Registry::start();
    let pushed = publish(&registry, "web", "one");
    let deployment = product("dry", &["web"], |name| registry.repository(name));
    let before = files(&deployment);
    for args in [
        &["pull-latest", "--dry-run"][..],
        &["pull", "--dry-run"],
        &["version-pull", "web", "latest", "--dry-run"],
        &["version-set", "web", "latest", "--dry-run"],
        &["generate-env", "--dry-run"],
        &["up", "--dry-run"],
        &["restart", "--dry-run"],
        &["down", "--dry-run"],
    ] {
        deployment.dkv(args.iter().copied()).exit(0);
        assert_eq!(files(&deployment), before, "{args:?}");
        assert!(!deployment.exists(".version-backups"), "{args:?}");
        assert!(deployment.engine().image_id(&pushed.pin()).is_none(), "{args:?}");
        assert!(deployment.engine().containers(deployment.project(), "web").is_empty(), "{args:?}");
    }
    deployment.dkv(["pull-latest", "--dry-run"]).exit(0).stdout_contains(&pushed.digest[7..19]);
}

#[test]
fn without_a_manifest_the_images_of_the_compose_files_are_pulled() {
    let registry = Registry::start();
    let web = publish(&registry, "web", "one");
    let db = registry.push(Image::new("db").tag("16"));
    let deployment = Deployment::new("plain");
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  web: {{image: '{}:${{TAG:-latest}}'}}\n  built: {{build: .}}\n",
            registry.repository("web")
        ),
    );
    deployment.write(
        "db-docker-compose.yml",
        &format!("services:\n  db: {{image: '{}:16'}}\n", registry.repository("db")),
    );
    for command in ["pull", "pull-latest"] {
        let pulled = deployment.dkv([command]).exit(0);
        pulled.stderr_contains("this cannot be taken back");
        pulled.stderr_contains("dkv migrate-versions");
        assert_eq!(
            deployment
                .engine()
                .image_id(&format!("{}:latest", registry.repository("web")))
                .as_deref(),
            Some(web.image_id())
        );
        assert_eq!(
            deployment.engine().image_id(&format!("{}:16", registry.repository("db"))).as_deref(),
            Some(db.image_id())
        );
    }
    assert!(!deployment.exists("version-manifest.yaml") && !deployment.exists("versions.env"));
    // Pulling means the newest: a tag that moved is followed although an older image has it here.
    let two = publish(&registry, "web", "two");
    deployment.dkv(["pull", "web"]).exit(0);
    assert_eq!(
        deployment.engine().image_id(&format!("{}:latest", registry.repository("web"))).as_deref(),
        Some(two.image_id())
    );
    deployment.dkv(["pull", "wbe"]).exit(2).stderr_contains("web");
    deployment.dkv(["pull-latest", "--no-pull"]).exit(3);
    registry.delete_tag("web", "latest");
    deployment.dkv(["pull"]).exit(5).stderr_contains("web");
    deployment.dkv(["pull", "--keep-going"]).exit(9).stderr_contains("web");
}

#[test]
fn what_was_pulled_but_not_recorded_serves_the_next_try_or_is_pruned() {
    let registry = Registry::start();
    publish(&registry, "web", "one");
    let proxy = Proxy::to(&registry);
    let deployment = product("unrecorded", &["web", "api"], |name| proxy.repository(name));
    let keep_tags = || {
        let tags = deployment.engine().docker(&[
            "images",
            "--format",
            "{{.Tag}}",
            &proxy.repository("web"),
        ]);
        tags.lines().filter(|tag| tag.starts_with("dkv-")).count()
    };
    // Bytes of its own: what the daemon has seen in any repository it does not ask for again.
    let api = publish(&registry, "api", &format!("one of {}", deployment.project()));
    proxy.fault(
        On::target(&format!("api/manifests/{}", api.digest)).method("GET"),
        Fault::status(404),
    );
    let outcome = deployment.dkv(["pull-latest"]).exit(5);
    outcome.stderr_contains("api").stderr_contains("nothing was recorded");
    assert_eq!((current_digest(&deployment, "web").as_str(), keep_tags()), ("", 1));
    proxy.reset();
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(proxy.count("GET", "web/blobs/"), 0, "{:?}", proxy.requests());

    publish(&registry, "web", "two");
    let manifest = deployment.manifest();
    let gate = Gate::default();
    proxy.fault(On::target("web/manifests/latest"), Fault::Hold(gate.clone()));
    let running = deployment.dkv(["pull-latest", "web"]).spawn();
    wait_for("the request", Duration::from_secs(60), || {
        (proxy.count("HEAD", "web/manifests/latest") == 2).then_some(())
    });
    deployment.write(
        "version-manifest.yaml",
        &manifest.replacen("  web:\n", "  web:\n    held: true\n", 1),
    );
    gate.open();
    running.exit(3).stderr_contains("nothing was written");
    assert_eq!(keep_tags(), 2);
    deployment.dkv(["prune", "-y"]).exit(0).stdout_contains("removed");
    assert_eq!(keep_tags(), 1);
}

#[test]
fn an_image_id_in_place_of_a_digest_is_told_by_the_daemon() {
    let registry = Registry::start();
    let deployment = product("imageid", &["web"], |name| registry.repository(name));
    let old = publish(&registry, "web", &format!("one of {}", deployment.project()));
    deployment.engine().docker(&["pull", "-q", &old.pin()]);
    let service = format!(
        "{{image: {}, current_tag: '1.0', image_digest: '{}', deployed_by: alice}}",
        old.repository,
        old.image_id()
    );
    deployment.write(
        "version-manifest.yaml",
        &format!("schema_version: '1.0'\nservices:\n  web: {service}\n"),
    );
    publish(&registry, "web", &format!("two of {}", deployment.project()));
    deployment.dkv(["pull-latest"]).exit(0);
    let history = deployment.manifest_data()["history"]["web"].clone();
    assert_eq!(
        (history[1]["tag"].as_str(), history[1]["digest"].as_str()),
        (Some("1.0"), Some(old.digest.as_str())),
        "{history:#}"
    );
}

#[test]
fn a_local_image_is_never_pulled() {
    let deployment = Deployment::new("own");
    let repository = format!("{}-bot", deployment.project());
    let first = deployment.load(&repository, Image::new("bot").tag("latest").version("first"));
    deployment.write_product(&[("bot", repository.clone())]);
    deployment.write(
        "version-manifest.yaml",
        &deployment.manifest().replace("    current_tag", "    source: local\n    current_tag"),
    );
    deployment.dkv(["pull-latest"]).exit(0);
    let second = deployment.load(&repository, Image::new("bot").tag("latest").version("second"));
    deployment.dkv(["pull-latest"]).exit(0);
    let history = deployment.manifest_data()["history"]["bot"].clone();
    assert_eq!(
        (history[0]["image_id"].as_str(), history[1]["image_id"].as_str()),
        (Some(second.as_str()), Some(first.as_str()))
    );
    deployment.dkv(["rollback", "-y"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "first");
    deployment.dkv(["pull"]).exit(0);
    deployment.engine().docker(&[
        "rm",
        "-f",
        &deployment.engine().containers(deployment.project(), "bot")[0],
    ]);
    deployment.engine().docker(&["rmi", "-f", &first]);
    deployment.dkv(["pull"]).exit(6).stderr_contains("never pulled");
    let running = deployment.dkv(["up"]).finish();
    assert_eq!(running.code(), Some(6), "{running}");
}

#[test]
fn following_the_tag_to_what_was_rolled_back_says_so_and_others_stay() {
    let registry = Registry::start();
    for name in ["web", "api"] {
        publish(&registry, name, "one");
    }
    let deployment = product("again", &["web", "api"], |name| registry.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    let two = publish(&registry, "web", "two");
    publish(&registry, "api", "two");
    let api = current_digest(&deployment, "api");
    deployment.dkv(["pull-latest", "web"]).exit(0);
    assert_eq!(current_digest(&deployment, "api"), api);
    deployment.dkv(["rollback", "-y"]).exit(0);
    deployment.dkv(["pull-latest", "web"]).exit(0).stdout_contains("rolled back by hand");
    assert_eq!(current_digest(&deployment, "web"), two.digest);
    let statuses: Vec<Value> = deployment.manifest_data()["history"]["web"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["status"].clone())
        .collect();
    assert_eq!(statuses[..2], ["current", "previous"]);
}

#[test]
fn a_registry_that_lies_is_not_believed_and_one_that_stumbles_is_asked_again() {
    let registry = Registry::start();
    let pushed = publish(&registry, "web", "one");
    let proxy = Proxy::to(&registry);
    let deployment = product("lies", &["web"], |name| proxy.repository(name));
    let before = files(&deployment);
    let bytes = pushed.platforms[0].1.clone();
    for (on, fault) in [
        (On::target("/manifests/"), Fault::WrongDigestHeader),
        (On::target(&bytes), Fault::WrongBody),
        (On::target("/manifests/"), Fault::NoDigestHeader),
    ] {
        proxy.reset();
        let what = format!("{fault:?}");
        proxy.fault(on, fault);
        let outcome = deployment.dkv(["pull-latest"]).finish();
        match what.as_str() {
            "NoDigestHeader" => assert_eq!(outcome.code(), Some(0), "{what}: {outcome}"),
            _ => {
                assert_eq!(outcome.code(), Some(5), "{what}: {outcome}");
                assert_eq!(files(&deployment), before, "{what}");
            }
        }
    }
    assert_eq!(current_digest(&deployment, "web"), pushed.digest);
    let two = publish(&registry, "web", "two");
    for fault in [Fault::status(503), Fault::retry_after(1), Fault::Reset] {
        proxy.reset();
        proxy.fault(On::target("/manifests/latest").first(1), fault);
        deployment.dkv(["pull-latest"]).exit(0);
    }
    assert_eq!(current_digest(&deployment, "web"), two.digest);
    proxy.reset();
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(proxy.count("GET", "/blobs/"), 0, "{:?}", proxy.requests());
}
