//! The way back of an update: followers, counts and profiles as they were, whoever takes it up.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use crate::launching::by_hand;
use crate::support::deployment::Compose;
use crate::support::{Daemon, Engine, Health, Image, Outcome, wait_for};
use crate::update_safe::Product;

/// The network or PID namespace that a service's container has of another.
fn joined(product: &Product, service: &str, what: &str) -> String {
    let container = product.inspected(service);
    assert_eq!(container["State"]["Running"], true, "{service}");
    let mode = container["HostConfig"][what].as_str().unwrap_or_default();
    mode.strip_prefix("container:").unwrap_or_default().to_owned()
}

#[test]
fn what_is_made_again_without_compose_joins_its_peers_as_they_are_now() {
    for compose in [Compose::V2, Compose::V1] {
        // The old Compose is refused where a new engine has a volume without a name.
        if compose == Compose::V1 && Engine::has_containerd_store() {
            continue;
        }
        let product = Product::with("again", compose, |product| {
            let file = product.deployment.read("docker-compose.yml");
            let far = format!("{}:1", product.registry.repository("side"));
            let follows = format!(
                "    network_mode: service:web\n  far:\n    image: {far}\n    network_mode: \
                    service:side\n    volumes_from: [web]\n"
            );
            let web = "    volumes: ['/kept']\n  side:";
            let file = file.replace("  side:", web).trim_end().to_owned() + "\n" + &follows;
            product.deployment.write("docker-compose.yml", &file);
        });
        let volume = |service: &str| product.inspected(service)["Mounts"][0]["Name"].to_string();
        let before = (volume("web"), product.container("web"));
        // From now on no `up` of these files can start web: not its new version, and not the old.
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let file = product.deployment.read("docker-compose.yml");
        let ports = format!("    volumes: ['/kept']\n    ports: ['127.0.0.1:{port}:80']\n");
        product
            .deployment
            .write("docker-compose.yml", &file.replace("    volumes: ['/kept']\n", &ports));
        product.publish("web", "2", |image: Image| image.health(Health::Passing));
        let failed = product.dkv(["update-safe"]).exit(7);
        failed.stderr_contains("the very containers that ran, without Compose");
        product.assert_runs("1");
        // Compose v1 leaves the old one until the new one runs.
        assert_eq!(product.container("web") == before.1, compose == Compose::V1);
        assert_eq!(volume("web"), before.0, "{compose:?}");
        assert_eq!(volume("far"), before.0, "{compose:?}");
        assert_eq!(joined(&product, "side", "NetworkMode"), product.container("web"));
        assert_eq!(joined(&product, "far", "NetworkMode"), product.container("side"));
        drop(taken);
    }
}

/// Removes what a project of another name has, also when the test fails.
struct OtherProject(Engine, String);

impl Drop for OtherProject {
    fn drop(&mut self) {
        self.0.remove_project(&self.1);
    }
}

impl OtherProject {
    fn of(product: &Product) -> Self {
        let name = format!("{}-other", product.deployment.project());
        Self(product.deployment.engine().clone(), name)
    }

    fn containers(&self) -> String {
        let project = format!("label=com.docker.compose.project={}", self.1);
        self.0.docker(&["ps", "-a", "--format", "{{.Names}} {{.Image}}", "--filter", &project])
    }
}

/// Kills an update while the new release is judged.
fn killed_while_judging(product: &Product, version: &str, variables: &[(&str, &str)]) {
    product.publish("web", version, |image| image.health(Health::FromProbe(6)));
    let update = product.dkv(["update-safe", "--timeout", "20s"]);
    let update = variables.iter().fold(update, |update, (name, value)| update.env(name, *value));
    product.stop_in("judging", update, Signal::KILL).finish();
}

/// The assignments of the command that a hint gives.
fn advised(refusal: &Outcome) -> Vec<(String, String)> {
    let words = refusal.stderr.split('`').find(|words| words.contains("dkv update-safe --"));
    let words = words.unwrap_or_else(|| panic!("no command in the hint:\n{refusal}"));
    let assignments = words.split(' ').take_while(|word| *word != "dkv");
    let pairs = assignments.map(|word| word.split_once('=').expect("an assignment"));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

#[test]
fn an_update_is_taken_up_only_where_it_was_begun() {
    let product = Product::with("elsewhere", Compose::V2, |product| {
        let file = product.deployment.read("docker-compose.yml");
        product.deployment.write("other.yml", &file);
        let key = "    environment: {KEY: '${KEY:-none}'}\n  side:";
        product.deployment.write("docker-compose.yml", &file.replace("  side:", key));
    });
    let other = OtherProject::of(&product);
    let daemon = Daemon::private();
    let host = daemon.engine().host().unwrap();
    killed_while_judging(&product, "2", &[("KEY", "secret-value")]);
    assert!(!product.deployment.read(".version-backups/update-journal.json").contains("secret"));
    for (name, value, words) in [
        ("COMPOSE_PROJECT_NAME", other.1.as_str(), "the Compose project was"),
        ("DOCKER_HOST", host.as_str(), "the Docker daemon was"),
        ("COMPOSE_FILE", "other.yml", "the Compose files were docker-compose.yml, now other.yml"),
        ("COMPOSE_PROFILES", "debug", "the profiles were none, now debug"),
        ("COMPOSE_ENV_FILES", "other.env", "COMPOSE_ENV_FILES was none, now other.env"),
        ("KEY", "", "set KEY as it was"),
    ] {
        product.deployment.write("other.env", "");
        for option in ["--abort", "--resume"] {
            let elsewhere = || {
                let run = product.dkv(["update-safe", option, "--lock-timeout", "60"]);
                run.env("KEY", "secret-value").env(name, value)
            };
            elsewhere().exit(3).stderr_contains(words).stderr_contains("nothing was done");
            assert_eq!(product.journal_state().as_deref(), Some("judging"), "{name}");
        }
    }
    assert_eq!(other.containers(), "");
    assert_eq!(daemon.engine().docker(&["ps", "-a", "-q"]), "");
    // What the hint says does it.
    let abort = || product.dkv(["update-safe", "--abort"]).env("KEY", "secret-value");
    let elsewhere = abort().env("COMPOSE_FILE", "other.yml").env("COMPOSE_PROFILES", "debug");
    let advice = advised(&elsewhere.exit(3));
    let advice = advice.iter().fold(abort(), |run, (name, value)| run.env(name, value));
    advice.exit(0);
    product.assert_runs("1");

    // Begun with a name of the operator's own, in a shell that is gone.
    product.dkv(["down"]).exit(0);
    let own = [("COMPOSE_PROJECT_NAME", other.1.as_str())];
    product.dkv(["up"]).env(own[0].0, own[0].1).exit(0);
    killed_while_judging(&product, "3", &own);
    for option in ["--abort", "--resume"] {
        let refusal = product.dkv(["update-safe", option, "--lock-timeout", "60"]).exit(3);
        assert_eq!(advised(&refusal), [(own[0].0.to_owned(), other.1.clone())]);
    }
    let engine = product.deployment.engine();
    assert!(engine.containers(product.deployment.project(), "web").is_empty());
    product.dkv(["update-safe", "--abort"]).env(own[0].0, own[0].1).exit(0);
    assert_eq!(engine.version(&other.1, "web"), "1");
    product.dkv(["down"]).env(own[0].0, own[0].1).exit(0);
}

/// How many containers of a service run, and which versions.
fn running(product: &Product, service: &str) -> (usize, Vec<String>) {
    let engine = product.deployment.engine();
    let names = engine.containers(product.deployment.project(), service);
    let all: Vec<_> = names.iter().filter_map(|name| engine.container(name)).collect();
    let mut images: Vec<String> = all.iter().map(|one| one["Image"].to_string()).collect();
    images.sort();
    images.dedup();
    (all.iter().filter(|one| one["State"]["Running"] == true).count(), images)
}

#[test]
fn counts_profiles_and_followers_are_as_they_were_after_abort_and_resume() {
    let product = Product::with("taken-up", Compose::V2, |product| {
        let side = "    image: ${DK_SIDE_IMAGE}:${DK_SIDE_TAG:-latest}\n";
        let more = format!(
            "  far:\n{side}    network_mode: service:side\n  tool:\n{side}    profiles: [more]\n"
        );
        let file = product.deployment.read("docker-compose.yml").trim_end().to_owned();
        product.deployment.write("docker-compose.yml", &(file + "\n" + &more));
    });
    by_hand(&product.deployment, Compose::V2, "--profile more up -d --scale web=3");
    for (state, option, version) in
        [("judging", "--abort", "2"), ("replacing", "--resume", "3"), ("replacing", "--abort", "4")]
    {
        let before = ["web", "side", "tool"].map(|name| running(&product, name));
        product.publish("side", version, |image| image.health(Health::FromProbe(4)));
        product.publish("web", version, |image| image.health(Health::FromProbe(4)));
        let update = product.dkv(["update-safe", "--timeout", "20s"]);
        product.stop_in(state, update, Signal::KILL).finish();
        let taken_up = ["update-safe", option, "--timeout", "30s", "--lock-timeout", "60"];
        product.dkv(taken_up).exit(0);
        let after = ["web", "side", "tool"].map(|name| running(&product, name));
        assert_eq!(after.each_ref().map(|one| one.0), [3, 1, 1], "{state} {option}");
        if option == "--abort" {
            assert_eq!(after, before, "{state}");
        } else {
            assert!(after.iter().zip(&before).all(|(now, then)| now.1 != then.1), "{after:?}");
        }
        assert_eq!(joined(&product, "far", "NetworkMode"), product.container("side"));
        assert_eq!(product.journal_state(), None);
    }
}

#[test]
fn fewer_containers_than_before_are_no_restore() {
    // Where `full` is, only one of them can be started.
    let script = "test ! -e /state/full || mkdir /state/one || exit 1; trap 'exit 0' TERM; while \
        :; do sleep 3600 & wait $!; done";
    let product = Product::with("fewer", Compose::V2, |product| {
        product.publish("web", "1", |image| image.script(script));
        let compose = product.deployment.read("docker-compose.yml");
        let compose = compose.replace("  side:", "    volumes: ['./state:/state']\n  side:");
        product.deployment.write("docker-compose.yml", &compose);
        product.deployment.write("state/file", "");
    });
    by_hand(&product.deployment, Compose::V2, "up -d --scale web=3");
    wait_for("three that have run for long enough", Duration::from_secs(60), || {
        let status = product.dkv(["status", "--json"]).exit(0).json();
        let lines = status["containers"].as_array().cloned().unwrap_or_default();
        (lines.iter().filter(|line| line["verdict"] == "unchecked").count() == 3).then_some(())
    });
    let before = running(&product, "web");
    product.publish("web", "2", |image| image.script("touch /state/full; exit 5"));
    let failed = product.update().exit(8);
    failed.stderr_contains("is not back as it was").stderr_contains("--abort");
    assert_eq!(product.journal_state().as_deref(), Some("restore-failed"));
    assert_eq!(running(&product, "web").0, 1);

    std::fs::remove_file(product.deployment.path("state/full")).unwrap();
    product.dkv(["update-safe", "--abort"]).exit(0);
    assert_eq!(running(&product, "web"), before);
}
