//! Several writers: other dkvs, editors, and processes that die.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::deployment::compose_file;
use crate::support::{Deployment, Fault, Gate, Health, Image, On, Proxy, Registry, wait_for};

fn digest_of(deployment: &Deployment, service: &str) -> String {
    deployment.manifest_data()["services"][service]["image_digest"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A deployment with these services, and one image that they all have under `1.0` and `latest`.
fn product(topic: &str, names: &[String], repository: impl Fn(&str) -> String) -> Deployment {
    let deployment = Deployment::new(topic);
    let services: Vec<(&str, String)> =
        names.iter().map(|name| (name.as_str(), repository(name))).collect();
    deployment.write_product(&services);
    deployment
}

#[test]
fn a_second_start_waits_then_names_the_first_and_is_free_when_that_dies() {
    let registry = Registry::start();
    registry
        .push(Image::new("web").tag("latest").health(Health::Failing).health_interval_ms(60_000));
    let deployment = product("second", &["web".to_owned()], |name| registry.repository(name));
    deployment.dkv(["pull-latest"]).exit(0);
    let mut first = deployment.dkv(["up"]).spawn();
    // Compose has ended by then, which would go on holding the lock when dkv is killed.
    first.wait_for_output("web  starting");
    let outcome = deployment.dkv(["restart", "--lock-timeout", "0"]).exit(4);
    outcome.stderr_contains("dkv up").stderr_contains(&format!("process {}", first.pid()));
    let outcome = deployment.dkv(["down", "--lock-timeout", "300ms", "--json"]).exit(4);
    outcome.stderr_contains("dkv up");
    assert!(outcome.elapsed >= Duration::from_millis(300));
    // Looking and recording go on meanwhile.
    deployment.dkv(["version"]).exit(0);
    deployment.dkv(["generate-env"]).exit(0);
    deployment.dkv(["pull-latest"]).exit(0);

    first.signal(Signal::KILL);
    first.finish();
    deployment.dkv(["down", "--lock-timeout", "30"]).exit(0);
}

#[test]
fn the_state_lock_is_waited_for_and_readers_take_none() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let deployment = product("state", &["web".to_owned()], |name| registry.repository(name));
    deployment.dkv(["generate-env"]).exit(0);
    let mut lock = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(deployment.path(".version-backups/.state.lock"))
        .unwrap();
    lock.lock().unwrap();
    writeln!(lock, "dkv rollback (process 4711)").unwrap();
    let before = deployment.manifest();
    let outcome = deployment.dkv(["pull-latest", "--no-pull", "--lock-timeout", "0"]).exit(4);
    outcome.stderr_contains("dkv rollback (process 4711)");
    assert_eq!(deployment.manifest(), before);
    deployment.dkv(["version"]).exit(0);
    deployment.dkv(["version-history"]).exit(0);
    deployment.dkv(["pull-latest", "--dry-run"]).exit(0);
    let mut waiting = deployment.dkv(["pull-latest", "--no-pull"]).spawn();
    waiting.wait_for_output("4711");
    lock.unlock().unwrap();
    waiting.exit(0);
}

#[test]
fn images_are_made_local_also_where_nothing_can_be_noted() {
    let registry = Registry::start();
    let names = ["web".to_owned(), "gone".to_owned()];
    let pushed =
        |name: &str, version| registry.push(Image::new(name).tag("latest").version(version));
    let (web, _) = (pushed("web", "1"), pushed("gone", "1"));
    let deployment = product("local", &names, |name| registry.repository(name));
    let engine = deployment.engine();
    // What is recorded elsewhere is pulled here where nobody may write.
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    let texts = ["version-manifest.yaml", "versions.env", "docker-compose.yml"]
        .map(|name| (name, deployment.read(name)));
    let disk = deployment.mount_tmpfs("1m");
    texts.iter().for_each(|(name, text)| deployment.write(name, text));
    disk.read_only(true);
    deployment.dkv(["pull"]).exit(0).stderr_contains("warning:");
    assert!(engine.image_id(&web.pin()).is_some());
    disk.read_only(false);
    // Or while another dkv is at the record; what cannot be had is told all the same. It is new,
    // because the daemon goes on having for a while what it had.
    let (web, gone) = (pushed("web", "2"), pushed("gone", "3"));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    let lock = File::create(deployment.path(".version-backups/.state.lock")).unwrap();
    lock.lock().unwrap();
    writeln!(&lock, "dkv rollback (process 4711)").unwrap();
    registry.delete("gone", &gone.digest);
    let outcome = deployment.dkv(["pull", "--lock-timeout", "0"]).exit(5);
    outcome.stderr_contains("service `gone`").stderr_contains("process 4711");
    assert!(engine.image_id(&web.pin()).is_some());
    deployment.write("docker-compose.yml", &compose_file(&[("web", web.repository.clone())]));
    engine.docker(&["rmi", &web.pin()]);
    deployment.dkv(["up", "--no-wait", "--lock-timeout", "0"]).exit(0);
}

/// A dkv that is killed leaves Compose behind, which holds the lock until it has done its work.
#[test]
fn a_killed_holder_is_not_said_to_be_at_work() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let deployment = product("orphan", &["web".to_owned()], |name| registry.repository(name));
    deployment.dkv(["generate-env"]).exit(0);
    let path = deployment.path(".version-backups/.operation.lock");
    let mut lock = File::options().write(true).create(true).truncate(true).open(path).unwrap();
    lock.lock().unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    writeln!(lock, "dkv update-safe (process {})", gone.id()).unwrap();
    deployment.dkv(["down", "--lock-timeout", "0"]).exit(4).stderr_contains(&format!(
        "is held by Compose, which was started by `dkv update-safe (process {})`, which has ended",
        gone.id()
    ));
    lock.set_len(0).unwrap();
    lock.rewind().unwrap();
    writeln!(lock, "dkv update-safe (process {})", std::process::id()).unwrap();
    deployment
        .dkv(["down", "--lock-timeout", "0"])
        .exit(4)
        .stderr_contains("is held by `dkv update-safe");
}

#[test]
fn twenty_writers_at_once_lose_nothing() {
    let registry = Registry::start();
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    for name in &names {
        registry.push(Image::new(name).tag("1.0"));
    }
    let deployment = product("many", &names, |name| registry.repository(name));
    let running: Vec<_> = names
        .iter()
        .map(|name| {
            deployment
                .dkv([
                    "version-set",
                    name,
                    "1.0",
                    "--no-pull",
                    "--reason",
                    name,
                    "--lock-timeout",
                    "60",
                ])
                .spawn()
        })
        .collect();
    for one in running {
        one.exit(0);
    }
    let data = deployment.manifest_data();
    for name in &names {
        assert_eq!(data["services"][name]["current_tag"], "1.0", "{name}");
        assert_eq!(data["custom_overrides"][name]["reason"], name.as_str());
        assert!(
            deployment.versions_env().contains(&format!("DK_{}_TAG=1.0@", name.to_uppercase()))
        );
    }
    let backups = deployment
        .list(".version-backups")
        .into_iter()
        .filter(|name| name.starts_with("version-manifest.yaml.2"))
        .count();
    assert_eq!(backups, 20, "one a change, none overwritten");
    deployment.dkv(["generate-env"]).exit(0).stderr_contains("up to date");
}

#[test]
fn an_edit_during_a_pull_is_kept() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let proxy = Proxy::to(&registry);
    let names = ["web".to_owned(), "api".to_owned()];
    let deployment = product("edit", &names, |name| proxy.repository(name));
    let original = deployment.manifest();
    let during_a_pull = |edited: &str| {
        proxy.reset();
        let gate = Gate::default();
        proxy.fault(On::target("/manifests/latest"), Fault::Hold(gate.clone()));
        let running = deployment.dkv(["pull-latest", "web"]).spawn();
        wait_for("the request", Duration::from_secs(60), || {
            (!proxy.requests().is_empty()).then_some(())
        });
        deployment.write("version-manifest.yaml", edited);
        gate.open();
        running.finish()
    };
    // The same service: the edit wins.
    let edited = original.replacen("current_tag: latest", "current_tag: '0.9'", 1);
    let outcome = during_a_pull(&edited);
    assert_eq!(outcome.code(), Some(3), "{outcome}");
    outcome
        .stderr_contains("web")
        .stderr_contains("nothing was written")
        .stderr_contains("run the command again");
    assert_eq!(deployment.manifest(), edited);
    assert!(!deployment.exists("versions.env"));

    // Another service, and a comment: both are kept.
    deployment.write("version-manifest.yaml", &original);
    let edited = format!("# by hand\n{}", original.replace("  api:\n", "  api:\n    held: true\n"));
    let outcome = during_a_pull(&edited);
    assert_eq!(outcome.code(), Some(0), "{outcome}");
    assert!(deployment.manifest().starts_with("# by hand\n"), "{}", deployment.manifest());
    assert_eq!(deployment.manifest_data()["services"]["api"]["held"], true);
    assert!(digest_of(&deployment, "web").starts_with("sha256:"));

    // Broken by the edit: nothing is written over it.
    deployment.write("version-manifest.yaml", &original);
    let outcome = during_a_pull("services: [\n");
    assert_eq!(outcome.code(), Some(3), "{outcome}");
    assert_eq!(deployment.manifest(), "services: [\n");

    // Removed by the edit, the whole file or the service.
    deployment.write("version-manifest.yaml", &original);
    let gone = original.replace("  web:\n", "  other:\n");
    let outcome = during_a_pull(&gone);
    assert_eq!(outcome.code(), Some(3), "{outcome}");
    assert_eq!(deployment.manifest(), gone);
    deployment.write("version-manifest.yaml", &original);
    proxy.reset();
    let gate = Gate::default();
    proxy.fault(On::target("/manifests/latest"), Fault::Hold(gate.clone()));
    let running = deployment.dkv(["pull-latest", "web"]).spawn();
    wait_for("the request", Duration::from_secs(60), || {
        (!proxy.requests().is_empty()).then_some(())
    });
    fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();
    gate.open();
    running.exit(3).stderr_contains("vanished");
    assert!(!deployment.exists("version-manifest.yaml"));
}

#[test]
fn a_kill_at_any_rename_leaves_old_or_new_and_the_next_command_recovers() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("latest"));
    // The ledger of backups, the manifest, versions.env: in this order.
    for rename in 1..=3 {
        let deployment = product("kill", &["web".to_owned()], |name| registry.repository(name));
        deployment.dkv(["generate-env"]).exit(0);
        let before = (deployment.manifest(), deployment.versions_env());
        let inject = format!("inject=rename,renameat,renameat2:signal=KILL:when={rename}");
        let outcome = deployment
            .dkv(["pull-latest", "--no-pull"])
            .under_strace(["-f", "-e", "trace=rename,renameat,renameat2", "-e", &inject])
            .finish();
        assert_ne!(outcome.code(), Some(0), "{outcome}");
        let recorded = digest_of(&deployment, "web") == pushed.digest;
        assert!(
            recorded || deployment.manifest() == before.0,
            "rename {rename}:\n{}",
            deployment.manifest()
        );
        assert!(
            deployment.versions_env() == before.1
                || deployment.versions_env().contains(&pushed.digest)
        );
        deployment.dkv(["version"]).exit(0);
        deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
        assert_eq!(digest_of(&deployment, "web"), pushed.digest);
        assert!(deployment.versions_env().contains(&pushed.digest), "repaired");
        let left: Vec<_> =
            deployment.list(".").into_iter().filter(|name| name.ends_with(".dkv-new")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn kills_at_random_moments_lose_no_history() {
    let registry = Registry::start();
    let mut deployment = None;
    let deployment = deployment.get_or_insert_with(|| {
        product("random", &["web".to_owned()], |name| registry.repository(name))
    });
    for round in 0..30_u64 {
        registry.push(Image::new("web").tag("latest").version(&round.to_string()));
        let running = deployment.dkv(["pull-latest", "--no-pull"]).spawn();
        thread::sleep(Duration::from_millis(round * 2 + 2));
        running.signal(Signal::KILL);
        running.finish();
        let data = deployment.manifest_data();
        assert_eq!(
            data["services"]["web"]["image"],
            registry.repository("web").as_str(),
            "round {round}"
        );
        if deployment.exists("versions.env") {
            assert!(deployment.versions_env().contains("DK_WEB_TAG="), "round {round}");
        }
    }
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    let history = deployment.manifest_data()["history"]["web"].as_array().unwrap().len();
    assert!((1..=5).contains(&history), "{history}");
}
