//! What was done is remembered, whoever did it and however it ended; it can be undone, to the very
//! bytes, and done again.

use std::fs;

use serde_json::Value;

use crate::support::{Deployment, Health, Image, Registry};

/// A deployment of services that have followed `latest` through these versions together.
fn followed(topic: &str, registry: &Registry, names: &[&str], versions: &[&str]) -> Deployment {
    let deployment = Deployment::new(topic);
    let services: Vec<(&str, String)> =
        names.iter().map(|name| (*name, registry.repository(name))).collect();
    deployment.write_product(&services);
    for version in versions {
        publish(registry, names, version);
        deployment.dkv(["pull-latest"]).exit(0);
    }
    deployment
}

fn publish(registry: &Registry, names: &[&str], version: &str) {
    for name in names {
        registry.push(Image::new(name).tag(version).tag("latest"));
    }
}

/// The operations, newest first.
fn operations(deployment: &Deployment) -> Vec<Value> {
    let document = deployment.dkv(["operations", "--json"]).exit(0).json();
    document["operations"].as_array().unwrap().clone()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// `1: web 1.0 1.1` of an operation.
fn told(operation: &Value) -> String {
    let tag = |release: &Value| release["tag"].as_str().unwrap_or("-").to_owned();
    let services = operation["services"].as_array().unwrap().iter();
    let services = services
        .map(|one| format!(" {} {} {}", text(one, "name"), tag(&one["from"]), tag(&one["to"])));
    format!("{}:{}", operation["id"], services.collect::<String>())
}

const LOG: &str = ".version-backups/operations.jsonl";

#[test]
fn what_is_undone_comes_back_to_the_byte_and_can_be_done_again() {
    let registry = Registry::start();
    let deployment = followed("undo", &registry, &["web", "api"], &["1.0"]);
    let mut texts = vec![deployment.manifest()];
    publish(&registry, &["web"], "1.1");
    deployment.dkv(["pull-latest"]).exit(0);
    texts.push(deployment.manifest());
    deployment.dkv(["version-set", "api", "1.0", "--hold", "--reason", "why not"]).exit(0);
    texts.push(deployment.manifest());
    publish(&registry, &["web"], "1.2");
    deployment.dkv(["pull-latest", "web"]).exit(0);
    texts.push(deployment.manifest());

    let done = operations(&deployment);
    let last = &done[0];
    assert_eq!(told(last), "4: web 1.1 1.2");
    assert_eq!(last["command"], serde_json::json!(["pull-latest", "web"]));
    assert_eq!((text(last, "result"), &last["exit_code"]), ("done", &0.into()));
    assert!(!text(last, "host").is_empty() && !text(last, "by").is_empty());
    assert_eq!(told(&done[2]), "2: web 1.0 1.1", "what did not change is not told");

    // Looking changes nothing, and nobody is asked without a terminal.
    let log = deployment.read(LOG);
    deployment.dkv(["undo", "--dry-run"]).exit(0).stdout_contains("1.2").stdout_contains("1.1");
    deployment.dkv(["undo"]).tty().stdin("n\n").exit(2);
    assert_eq!((deployment.manifest(), deployment.read(LOG)), (texts[3].clone(), log));

    // One by one, then forward again.
    for (state, env) in [(2, "DK_WEB_TAG=1.1@"), (1, "DK_WEB_TAG=1.1@"), (0, "DK_WEB_TAG=1.0@")] {
        // Where nobody can be asked it goes ahead.
        deployment.dkv(["undo"]).exit(0);
        assert_eq!(deployment.manifest(), texts[state]);
        assert!(deployment.versions_env().contains(env), "{}", deployment.versions_env());
    }
    for state in [1, 2, 3] {
        deployment.dkv(["redo", "-y"]).exit(0);
        assert_eq!(deployment.manifest(), texts[state]);
    }
    deployment.dkv(["redo", "-y"]).exit(3).stderr_contains("nothing is undone");

    // Several at once, which come again one by one; then something else ends that.
    let outcome = deployment.dkv(["undo", "2", "--json", "-y"]).exit(0).json();
    assert_eq!(outcome["takes"], serde_json::json!([4, 3, 2]));
    assert_eq!(deployment.manifest(), texts[0]);
    deployment.dkv(["undo", "2", "-y"]).exit(3).stderr_contains("undone already");
    deployment.dkv(["undo", "99", "-y"]).exit(2).stderr_contains("no operation 99");
    deployment.dkv(["redo", "-y"]).exit(0);
    assert_eq!(deployment.manifest(), texts[1]);
    deployment.dkv(["rollback", "web", "-y"]).exit(0);
    deployment.dkv(["redo", "-y"]).exit(3);
    let state = |id: u64| {
        let all = operations(&deployment);
        all.iter().find(|one| one["id"] == id).unwrap()["undoable"].as_bool().unwrap()
    };
    assert!(state(2) && !state(3) && !state(4));
}

#[test]
fn a_hand_edit_is_an_operation_of_its_own_and_can_be_undone() {
    let registry = Registry::start();
    let deployment = followed("edited", &registry, &["web"], &["1.0", "1.1"]);
    let before = deployment.manifest();
    let edited = before.replacen("current_tag:", "# mine\n    held: true\n    current_tag:", 1);
    deployment.write("version-manifest.yaml", &edited);
    // Told before anything is recorded, recorded before the next command's own doing.
    let seen = operations(&deployment);
    assert_eq!((text(&seen[0], "kind"), &seen[0]["recorded"]), ("edit", &false.into()));
    assert_eq!(seen[0]["services"][0]["what"], "held");
    assert_eq!(deployment.read(LOG).lines().count(), 2);
    deployment.dkv(["unhold", "web"]).exit(0);
    let seen = operations(&deployment);
    assert_eq!((text(&seen[1], "kind"), &seen[1]["recorded"]), ("edit", &true.into()));
    assert!(seen[1]["by"].is_null());
    assert_eq!(text(&seen[0], "kind"), "command");
    deployment.dkv(["undo", "-y"]).exit(0);
    assert_eq!(deployment.manifest(), edited);
    deployment.dkv(["undo", "-y"]).exit(0).stderr_contains("by hand");
    assert_eq!(deployment.manifest(), before);

    // An edit that no command has seen yet is what an undo takes back first.
    deployment.write("version-manifest.yaml", &edited);
    deployment.dkv(["undo", "-y"]).exit(0).stderr_contains("by hand");
    assert_eq!(deployment.manifest(), before);
    // A backup that somebody copied back is an edit too, not an operation that never was.
    let backup = text(&operations(&deployment)[0], "backup").to_owned();
    let saved = deployment.read(&format!(".version-backups/{backup}"));
    assert_eq!(saved, edited);
    deployment.write("version-manifest.yaml", &saved);
    assert_eq!(text(&operations(&deployment)[0], "kind"), "edit");
}

#[test]
fn killed_before_the_manifest_came_it_is_no_operation() {
    let deployment = Deployment::new("killed-between");
    let manifest = "schema_version: '1.1'\nservices:\n  web: {image: r.example/web, held: true, \
        current_tag: '1.0'}\n  api: {image: r.example/api, held: true, current_tag: '1.0'}\n";
    deployment.write("version-manifest.yaml", manifest);
    deployment.dkv(["unhold", "api"]).exit(0);
    let before = deployment.manifest();
    let manifest = deployment.path("version-manifest.yaml").display().to_string();
    let new = deployment.path(".version-manifest.yaml.dkv-new").display().to_string();
    let kill = || {
        let calls = ["-f", "-qq", "-P", &manifest, "-P", &new, "-e", "trace=rename"];
        calls.into_iter().chain(["-e", "inject=rename:signal=KILL:when=1"])
    };
    deployment.dkv(["unhold", "web"]).under_strace(kill()).finish();
    assert_eq!(deployment.manifest(), before, "killed between the log and the manifest");
    assert_eq!(deployment.read(LOG).lines().count(), 2, "the log was ahead");
    let seen = operations(&deployment);
    assert_eq!(seen.len(), 1, "{seen:?}");
    deployment.dkv(["unhold", "web"]).exit(0);
    let seen = operations(&deployment);
    let kinds: Vec<&str> = seen.iter().map(|one| text(one, "kind")).collect();
    assert_eq!(kinds, ["command", "command"], "nobody has edited anything");
    assert_eq!(seen[0]["id"], 2);

    // The same of an undo of an edit, whose text was written before.
    let after = deployment.manifest();
    let edited = after.replace("services:", "# mine\nservices:");
    deployment.write("version-manifest.yaml", &edited);
    deployment.dkv(["undo", "-y"]).under_strace(kill()).finish();
    assert_eq!(deployment.manifest(), edited, "killed between the log and the manifest");
    let seen = operations(&deployment);
    let kinds: Vec<&str> = seen.iter().map(|one| text(one, "kind")).collect();
    assert_eq!(kinds, ["edit", "command", "command"]);
    deployment.dkv(["undo", "-y"]).exit(0);
    assert_eq!(deployment.manifest(), after);
}

#[test]
fn what_cannot_come_back_is_refused_before_anything_is_touched() {
    let mut registry = Registry::alone();
    let deployment = followed("refused", &registry, &["web"], &["1.0", "1.1"]);
    let first = text(&operations(&deployment)[1], "after").to_owned();
    let keep = |deployment: &Deployment| {
        let engine = deployment.engine();
        let tags = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let ours = tags.lines().filter(|tag| tag.starts_with(&registry.repository("web")));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    // The image is gone from this host: it comes again by digest, or it is refused.
    let remove = || {
        for tag in keep(&deployment) {
            deployment.engine().docker(&["rmi", "--force", &tag]);
        }
        let digests = deployment.engine().docker(&[
            "images",
            "--digests",
            "--format",
            "{{.Repository}}@{{.Digest}}",
        ]);
        for name in digests.lines().filter(|name| name.starts_with(&registry.repository("web"))) {
            deployment.engine().docker(&["rmi", "--force", name]);
        }
    };
    remove();
    registry.stop();
    let before = deployment.manifest();
    let log = deployment.read(LOG);
    let failed = deployment.dkv(["undo", "-y"]).finish();
    assert!(matches!(failed.code(), Some(5 | 6)), "{failed}");
    failed.stderr_contains("web").stderr_contains("nothing was changed");
    assert_eq!((deployment.manifest(), deployment.read(LOG)), (before.clone(), log));

    // The backup is damaged, then gone.
    let backup = text(&operations(&deployment)[0], "backup").to_owned();
    let path = deployment.path(&format!(".version-backups/{backup}"));
    let saved = fs::read(&path).unwrap();
    assert_eq!(format!("sha256:{}", sha256(&saved)), first);
    fs::write(&path, "damaged").unwrap();
    deployment.dkv(["undo", "-y"]).exit(3).stderr_contains("is damaged").stderr_contains(&backup);
    fs::remove_file(&path).unwrap();
    deployment.dkv(["undo", "-y"]).exit(3).stderr_contains("is gone");
    assert_eq!(deployment.manifest(), before);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_failed_update_is_remembered_and_why() {
    let registry = Registry::start();
    let deployment = Deployment::new("failed-operation");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let push = |version: &str, health| {
        let image = Image::new("web").tag(version).tag("latest");
        registry.push(image.health(health).health_interval_ms(300));
    };
    push("1.0", Health::Passing);
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    push("1.1", Health::Failing);
    deployment.dkv(["update-safe"]).exit(7);
    let seen = operations(&deployment);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(told(&seen[0]), "2: web 1.0 1.1");
    assert_eq!((text(&seen[0], "result"), &seen[0]["exit_code"]), ("failed", &7.into()));
    assert!(text(&seen[0], "reason").contains("web"), "{}", seen[0]);
    let shown = deployment.dkv(["operations"]).exit(0);
    shown.stdout_contains("[failed: exit 7]");
    assert!(shown.stdout.lines().all(|line| line.chars().count() <= 80), "{shown}");
}

#[test]
fn a_damaged_line_is_left_out_and_the_rest_goes_on() {
    let deployment = Deployment::new("damaged-log");
    let manifest = "schema_version: '1.1'\nservices:\n  web: {image: r.example/web, held: true, \
        current_tag: '1.0'}\n";
    deployment.write("version-manifest.yaml", manifest);
    deployment.dkv(["unhold", "web"]).exit(0);
    let after = deployment.manifest();
    let whole = deployment.read(LOG);
    deployment.write(LOG, &format!("{{\"id\": tor\n{whole}\u{0}\u{0}"));
    deployment.dkv(["operations"]).exit(0).stderr_contains("damaged");
    deployment.dkv(["undo", "-y"]).exit(0).stderr_contains("damaged");
    assert_eq!(deployment.manifest(), manifest);
    assert!(deployment.read(LOG).starts_with(&whole));
    deployment.dkv(["redo", "-y"]).exit(0).stderr_lacks("damaged");
    assert_eq!(deployment.manifest(), after);
}
