//! Going back: exactly, offline, never forward, all or nothing.

use crate::support::{Deployment, Image, Proxy, Pushed, Registry};

/// Pushes `name` under `latest`; another version is another digest.
fn publish(registry: &Registry, name: &str, version: &str) -> Pushed {
    registry.push(Image::new(name).tag("latest").version(version))
}

/// A deployment of `web` that has followed `latest` through these versions; their images, oldest
/// first.
fn followed(topic: &str, registry: &Registry, versions: &[&str]) -> (Deployment, Vec<Pushed>) {
    let deployment = Deployment::new(topic);
    deployment.write_product(&[("web", registry.repository("web"))]);
    let mut pushed = Vec::new();
    for version in versions {
        pushed.push(publish(registry, "web", version));
        deployment.dkv(["pull-latest"]).exit(0);
    }
    (deployment, pushed)
}

fn current(deployment: &Deployment) -> String {
    deployment.manifest_data()["services"]["web"]["image_digest"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The statuses of those releases of `web` whose digest is known, newest first.
fn statuses(deployment: &Deployment) -> Vec<String> {
    let data = deployment.manifest_data();
    let known = data["history"]["web"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["digest"].is_string());
    known.map(|entry| entry["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_moved_latest_is_undone_with_the_registry_stopped_and_never_forward() {
    let mut registry = Registry::alone();
    let (deployment, pushed) = followed("offline", &registry, &["one", "two", "three"]);
    deployment.dkv(["up"]).exit(0);
    registry.stop();
    deployment.dkv(["rollback", "-y"]).exit(0).stderr_contains("dkv restart");
    assert_eq!(current(&deployment), pushed[1].digest);
    assert!(deployment.versions_env().contains(&format!("@{}\n", pushed[1].digest)));
    deployment.dkv(["restart"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "two");
    assert_eq!(
        deployment.engine().running_image(deployment.project(), "web"),
        pushed[1].image_id()
    );

    deployment.dkv(["downgrade", "-y"]).exit(0);
    assert_eq!(current(&deployment), pushed[0].digest);
    assert_eq!(statuses(&deployment), ["rolled-back", "rolled-back", "current"]);
    let before = deployment.manifest();
    deployment.dkv(["rollback", "-y"]).exit(3).stderr_contains("no earlier release");
    deployment.dkv(["rollback-service", "web", "-y"]).exit(3).stderr_contains("web");
    deployment.dkv(["rollback-service", "-y"]).exit(2);
    assert_eq!(deployment.manifest(), before);

    // Forward only by name.
    deployment.dkv(["rollback-to", "web", &pushed[2].digest, "-y"]).exit(0);
    assert_eq!(current(&deployment), pushed[2].digest);
    assert_eq!(
        statuses(&deployment),
        ["current", "rolled-back", "previous"],
        "the release just left is where a rollback goes"
    );
    deployment.dkv(["rollback", "-y"]).exit(0);
    assert_eq!(current(&deployment), pushed[0].digest);
}

#[test]
fn a_target_is_named_by_tag_by_digest_or_by_the_beginning_of_one() {
    let registry = Registry::start();
    let deployment = Deployment::new("named");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let pushed: Vec<Pushed> =
        ["1.0", "1.1", "1.2"].iter().map(|tag| registry.push(Image::new("web").tag(tag))).collect();
    for tag in ["1.0", "1.1", "1.2"] {
        deployment.dkv(["version-pull", "web", tag]).exit(0);
    }
    deployment.dkv(["rollback-to", "web", "1.0", "-y"]).exit(0);
    assert_eq!(current(&deployment), pushed[0].digest);
    assert_eq!(
        statuses(&deployment),
        ["rolled-back", "rolled-back", "current"],
        "what it leaves and what it passes"
    );
    deployment.dkv(["rollback-to", "web", &pushed[1].digest[7..19], "-y"]).exit(0);
    assert_eq!(current(&deployment), pushed[1].digest);
    deployment.dkv(["rollback-to", "web", &pushed[2].digest[..19], "-y"]).exit(0);
    assert_eq!(current(&deployment), pushed[2].digest);
    deployment.dkv(["rollback-to", "web", "1.2", "-y"]).exit(0).stdout_contains("already");

    // What the history does not have comes from the registry, by tag or digest.
    let other = registry.push(Image::new("web").tag("0.9"));
    deployment.dkv(["rollback-to", "web", "0.9", "-y"]).exit(0);
    assert_eq!(current(&deployment), other.digest);
    let nameless = registry.push(Image::new("web").tag("x").version("nameless"));
    deployment.dkv(["rollback-to", "web", &nameless.digest, "-y"]).exit(0);
    assert_eq!(current(&deployment), nameless.digest);
    let before = deployment.manifest();
    deployment.dkv(["rollback-to", "web", "9.9", "-y"]).exit(5).stderr_contains("9.9");
    deployment.dkv(["rollback-to", "web", &format!("sha256:{}", "0".repeat(64)), "-y"]).exit(5);
    deployment.dkv(["rollback-to", "web", "sha256:00", "-y"]).exit(2);
    deployment
        .dkv(["rollback-to", "web", "sha256:0123456789ab", "-y"])
        .exit(2)
        .stderr_contains("0123456789ab");
    deployment.dkv(["rollback-to", "wbe", "1.0", "-y"]).exit(2).stderr_contains("web");
    assert_eq!(deployment.manifest(), before);
}

#[test]
fn after_version_set_the_environment_drops_the_hotfix() {
    let registry = Registry::start();
    let (deployment, pushed) = followed("hotfix", &registry, &["one"]);
    registry.push(Image::new("web").tag("1.35-hotfix"));
    deployment.dkv(["version-set", "web", "1.35-hotfix", "--reason", "patch"]).exit(0);
    assert!(deployment.versions_env().contains("DK_WEB_TAG=1.35-hotfix@"));
    deployment.dkv(["rollback", "-y"]).exit(0);
    assert!(!deployment.versions_env().contains("hotfix"), "{}", deployment.versions_env());
    assert!(deployment.versions_env().contains(&pushed[0].digest));
    let overrides = deployment.manifest_data()["custom_overrides"]["web"].clone();
    assert!(overrides.is_null(), "{overrides}");
    deployment.dkv(["version"]).exit(0).stdout_lacks("[custom]");
}

#[test]
fn nobody_is_asked_without_a_terminal_and_a_terminals_answer_counts() {
    let registry = Registry::start();
    let (deployment, pushed) = followed("asked", &registry, &["one", "two"]);
    let before = deployment.manifest();
    deployment.dkv(["rollback"]).exit(2).stderr_contains("--yes");
    deployment.dkv(["rollback"]).stdin("y\n").exit(2).stderr_contains("--yes");
    deployment.dkv(["rollback-to", "web", &pushed[0].digest]).exit(2).stderr_contains("--yes");
    for no in ["n\n", "\n", "\u{4}"] {
        let outcome = deployment.dkv(["rollback"]).tty().stdin(no).exit(2);
        outcome.stdout_contains("web").stdout_contains(&pushed[0].digest[7..19]);
    }
    assert_eq!(deployment.manifest(), before);
    deployment.dkv(["rollback", "--dry-run"]).exit(0).stdout_contains(&pushed[0].digest[7..19]);
    assert_eq!(deployment.manifest(), before);
    deployment.dkv(["rollback"]).tty().stdin("y\n").exit(0);
    assert_eq!(current(&deployment), pushed[0].digest);
}

#[test]
fn only_services_with_an_earlier_release_move_and_the_others_are_named() {
    let registry = Registry::start();
    for name in ["web", "api"] {
        publish(&registry, name, "one");
    }
    let deployment = Deployment::new("some");
    deployment
        .write_product(&[("web", registry.repository("web")), ("api", registry.repository("api"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["rollback", "-y"]).exit(3);
    publish(&registry, "web", "two");
    deployment.dkv(["pull-latest"]).exit(0);
    let outcome = deployment.dkv(["rollback", "-y"]).exit(0);
    outcome.stdout_contains("api: unchanged");
    let json = deployment.dkv(["rollback-to", "web", "two", "--dry-run", "--json"]).finish();
    assert_eq!(json.code(), Some(5), "{json}");
}

/// An advance after a rollback evicts what the rollback left, although that is what still runs.
#[test]
fn what_runs_can_be_gone_back_to_although_the_history_has_lost_it() {
    let mut registry = Registry::alone();
    let deployment = Deployment::new("evicted");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let mut running = String::new();
    for version in ["1.0", "2.0", "3.0", "4.0", "5.0"] {
        running = registry.push(Image::new("web").tag(version)).digest;
        deployment.dkv(["version-pull", "web", version]).exit(0);
    }
    registry.push(Image::new("web").tag("1.3"));
    deployment.dkv(["up", "--no-wait"]).exit(0);
    deployment.dkv(["rollback", "web", "-y"]).exit(0);
    deployment.dkv(["version-pull", "web", "1.3"]).exit(0);
    let history = deployment.manifest_data()["history"]["web"].clone();
    assert!(history.as_array().unwrap().iter().all(|entry| entry["tag"] != "5.0"), "{history}");

    registry.stop();
    for target in ["5.0", &running[7..19]] {
        let plan =
            deployment.dkv(["rollback-to", "web", target, "--dry-run", "--json"]).exit(0).json();
        assert_eq!(
            (&plan["services"][0]["to"]["tag"], &plan["services"][0]["to"]["digest"]),
            (&"5.0".into(), &running.as_str().into())
        );
    }
    deployment
        .dkv(["rollback-to", "web", "5.0", "-y"])
        .exit(0)
        .stderr_contains("nothing needs restarting");
    deployment.dkv(["rollback-to", "web", "6.0", "-y"]).exit(5);
}

#[test]
fn what_was_pruned_is_pulled_by_its_digest_and_what_is_gone_everywhere_stops_everything() {
    let mut registry = Registry::alone();
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("pruned");
    deployment.write_product(&[("web", proxy.repository("web")), ("api", proxy.repository("api"))]);
    let one = publish(&registry, "web", "one");
    let api = publish(&registry, "api", "first");
    deployment.dkv(["pull-latest"]).exit(0);
    publish(&registry, "web", "two");
    publish(&registry, "api", "second");
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.engine().docker(&["rmi", "-f", one.image_id()]);
    proxy.reset();
    deployment.dkv(["rollback", "web", "-y"]).exit(0);
    assert_eq!(
        deployment
            .engine()
            .image_id(&format!("{}@{}", proxy.repository("web"), one.digest))
            .as_deref(),
        Some(one.image_id())
    );
    assert_eq!(
        proxy.count("HEAD", "/manifests/latest") + proxy.count("GET", "/manifests/latest"),
        0
    );

    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    deployment.engine().docker(&["rmi", "-f", one.image_id()]);
    registry.stop();
    let before = (deployment.manifest(), deployment.versions_env());
    let outcome = deployment.dkv(["rollback", "-y"]).exit(5);
    outcome.stderr_contains("web").stderr_contains("no service was rolled back");
    assert_eq!(
        (deployment.manifest(), deployment.versions_env()),
        before,
        "api, whose image is here, stays as well"
    );
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "two");
    assert!(
        deployment
            .engine()
            .image_id(&format!("{}@{}", proxy.repository("api"), api.digest))
            .is_some()
    );
}

#[test]
fn legacy_entries_fall_back_to_a_fixed_tag_only_and_say_so() {
    let registry = Registry::start();
    let fixed = registry.push(Image::new("web").tag("1.41"));
    let new = publish(&registry, "web", "new");
    let deployment = Deployment::new("legacy");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.0'\nservices:\n  web:\n    image: {}\n    current_tag: \
                latest\n    image_digest: '[{}]'\n    deployed_at: \
                '2026-01-12T12:29:08.123456'\nhistory:\n  web:\n  - {{tag: latest, status: \
                current}}\n  - {{tag: latest, status: previous}}\n  - {{tag: '1.41', status: \
                archived}}\n",
            registry.repository("web"),
            new.pin()
        ),
    );
    deployment.dkv(["history"]).exit(0).stdout_contains("[lost]");
    let outcome = deployment.dkv(["rollback", "-y"]).exit(0);
    outcome.stderr_contains("warning").stderr_contains("1.41");
    assert_eq!(current(&deployment), fixed.digest, "what was found is recorded");
    assert!(deployment.versions_env().contains(&format!("DK_WEB_TAG=1.41@{}\n", fixed.digest)));
    let outcome = deployment.dkv(["rollback-to", "web", &new.digest, "-y"]).exit(0);
    outcome.stdout_contains("latest");
}

#[test]
fn a_lost_release_is_no_target() {
    let registry = Registry::start();
    let deployment = Deployment::new("lost");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let text = deployment.manifest()
        + "history:\n  web:\n  - {tag: latest, status: current}\n  - {tag: latest, status: \
            previous}\n";
    deployment.write("version-manifest.yaml", &text);
    deployment.dkv(["rollback", "-y"]).exit(3).stderr_contains("no earlier release");
    deployment
        .dkv(["rollback-to", "web", "latest", "-y"])
        .exit(3)
        .stderr_contains("without a digest");
    assert_eq!(deployment.manifest(), text);
}

#[test]
fn keep_tags_survive_the_removal_of_other_tags_and_go_when_their_release_is_forgotten() {
    let mut registry = Registry::alone();
    let (deployment, pushed) =
        followed("keep", &registry, &["one", "two", "three", "four", "five"]);
    let engine = deployment.engine();
    let keep = |pushed: &Pushed| {
        let tags = engine.docker(&["image", "ls", "--format", "{{.Tag}}", &pushed.repository]);

        tags.lines()
            .find(|tag| tag.starts_with("dkv-") && tag.ends_with(&pushed.digest[7..19]))
            .map(str::to_owned)
    };
    assert!(pushed.iter().all(|pushed| keep(pushed).is_some()));
    // Somebody cleans up the tags of the vendor.
    let tags = engine.docker(&["image", "ls", "--format", "{{.Tag}}", &pushed[0].repository]);
    for tag in tags.lines().filter(|tag| !tag.starts_with("dkv-") && *tag != "<none>") {
        engine.docker(&["image", "rm", &format!("{}:{tag}", pushed[0].repository)]);
    }
    let six = publish(&registry, "web", "six");
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(keep(&pushed[0]), None, "evicted");
    assert!(keep(&six).is_some());
    assert_eq!(statuses(&deployment).len(), 5);
    registry.stop();
    deployment.dkv(["rollback-to", "web", &pushed[1].digest, "-y"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    assert_eq!(engine.version(deployment.project(), "web"), "two");
}

#[test]
fn when_the_target_runs_already_nothing_needs_restarting() {
    let registry = Registry::start();
    let (deployment, _) = followed("runs", &registry, &["one"]);
    deployment.dkv(["up"]).exit(0);
    publish(&registry, "web", "two");
    deployment.dkv(["pull-latest"]).exit(0);
    deployment
        .dkv(["rollback", "-y"])
        .exit(0)
        .stderr_contains("nothing needs restarting")
        .stderr_lacks("`dkv restart`");
}

#[test]
fn two_deployments_of_one_product_do_not_take_each_others_images() {
    let mut registry = Registry::alone();
    let (first, pushed) = followed("first", &registry, &["one", "two"]);
    let second = Deployment::new("second");
    second.write_product(&[("web", registry.repository("web"))]);
    second.dkv(["pull-latest"]).exit(0);
    for version in ["three", "four", "five", "six", "seven", "eight"] {
        publish(&registry, "web", version);
        second.dkv(["pull-latest"]).exit(0);
    }
    registry.stop();
    first.dkv(["rollback", "-y"]).exit(0);
    assert_eq!(current(&first), pushed[0].digest);
    first.dkv(["up"]).exit(0);
    assert_eq!(first.engine().version(first.project(), "web"), "one");
}

#[test]
fn without_names_the_last_operations_services_are_offered_and_all() {
    let registry = Registry::start();
    let deployment = Deployment::new("which");
    let services = ["web", "api"].map(|name| (name, registry.repository(name)));
    deployment.write_product(&services);
    for (version, names) in [("1", &["web", "api"][..]), ("2", &["web", "api"]), ("3", &["web"])] {
        for name in names {
            registry.push(Image::new(name).tag(version).tag("latest"));
        }
        deployment.dkv(["pull-latest"]).exit(0);
    }
    let tags = || {
        let data = deployment.manifest_data();
        ["web", "api"]
            .map(|name| data["services"][name]["current_tag"].as_str().unwrap().to_owned())
    };
    let before = deployment.manifest();
    let refused = deployment.dkv(["rollback"]).exit(2);
    refused.stderr_contains("`dkv rollback web --yes`").stderr_contains("rollback --all --yes");
    for answer in ["\n", "what\n"] {
        deployment.dkv(["rollback"]).tty().stdin(answer).exit(2);
    }
    assert_eq!(deployment.manifest(), before);
    deployment.dkv(["rollback"]).tty().stdin("last\ny\n").exit(0);
    assert_eq!(tags(), ["2", "2"]);
    deployment.dkv(["undo", "-y"]).exit(0);
    deployment.dkv(["rollback"]).tty().stdin("all\ny\n").exit(0);
    assert_eq!(tags(), ["2", "1"]);
    deployment.dkv(["undo", "-y"]).exit(0);
    // The guide's meaning.
    deployment.dkv(["rollback", "-y"]).exit(0);
    assert_eq!(tags(), ["2", "1"]);
    deployment.dkv(["undo", "-y"]).exit(0);
    deployment.dkv(["rollback", "--all", "-y"]).exit(0);
    assert_eq!(tags(), ["2", "1"]);
    deployment.dkv(["rollback", "--all", "web", "-y"]).exit(2);
}
