//! `update-safe` and `restore-data`.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::screens::story::Story;
use crate::support::{Health, wait_for};

#[test]
fn updating() {
    let mut story = Story::new("updating");
    story.publish_healthy("web", "1");
    story.publish_healthy("api", "1");
    story.product(&["web", "api"]);
    story.quietly("pull-latest");
    story.quietly("start");

    story.remark("nothing new");
    story.dkv("update-safe --dry-run");
    story.both("update-safe");
    story.dkv("update-safe --resume");
    story.both("update-safe --abort");

    story.remark("good releases");
    story.at("2026-01-13T12:00:00Z");
    story.publish_healthy("web", "2");
    story.both("update-safe --dry-run");
    story.dkv("update-safe --timeout 20s");
    story.publish_healthy("web", "3");
    story.terminal("update-safe --timeout 20s");

    story.remark("a bad release");
    story.push("web", "4", |image| image.tag("4").tag("latest").crashing(3));
    story.dkv("update-safe --timeout 20s");
    story.both("check-updates");
    story.dkv("pull-latest");
    story.dkv("update-safe");
    story.json("update-safe --timeout 20s --retry");
    story.publish_healthy("api", "2");
    story.json("update-safe --timeout 20s --retry --keep-going");
    story.file("version-manifest.yaml");
    story.ends();
}

/// The state that the journal of an update is in.
fn journal_state(story: &Story) -> Option<String> {
    let path = story.deployment.path(".version-backups/update-journal.json");
    let journal: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    Some(journal["state"].as_str()?.to_owned())
}

#[test]
fn saving() {
    let mut story = Story::new("saving");
    story.push("web", "1", |image| {
        let serve = "test -e /state/ok || exit 1; trap 'exit 0' TERM; \
                     while :; do sleep 3600 & wait $!; done";
        let image = image.tag("1").tag("latest").script(serve);
        image.health(Health::Passing).health_interval_ms(300)
    });
    story.publish_healthy("db", "15");
    story.product(&["web"]);
    let compose = story.deployment.read("docker-compose.yml");
    story
        .deployment
        .write("docker-compose.yml", &format!("{compose}    volumes: ['./state:/state']\n"));
    story.deployment.write("state/ok", "");
    let image = story.registry.repository("db");
    story.deployment.write(
        "db-docker-compose.yml",
        &format!(
            "services:\n  db:\n    image: {image}:15\n    volumes: ['./pgdata:/pgdata', \
             'files:/files']\nvolumes: {{files: {{}}}}\n"
        ),
    );
    story.deployment.write("pgdata/table", "rows");
    story.quietly("pull-latest");
    story.quietly("start");
    story.both("restore-data data-20260112120000.tar.zst");

    story.remark("an update that is killed");
    story.push("web", "2", |image| {
        // Not probed before it is killed.
        image.tag("2").tag("latest").health(Health::Passing).health_interval_ms(600_000)
    });
    story.both("update-safe --dry-run");
    let mut running = story.run("update-safe --timeout 20s").spawn();
    wait_for("the containers are judged", Duration::from_secs(60), || {
        assert!(running.is_running(), "it ended before:\n{}", running.output());
        (journal_state(&story).as_deref() == Some("judging")).then_some(())
    });
    running.signal(Signal::KILL);
    drop(running.finish());
    story.both("version");
    story.dkv("status");
    story.both("pull-latest");
    story.dkv("up");
    story.dkv("update-safe");
    story.dkv("update-safe --abort --lock-timeout 60");
    story.dkv("version");

    story.remark("a restore that fails");
    story.push("web", "3", |image| image.tag("3").tag("latest").script("rm -f /state/ok; exit 5"));
    story.dkv("update-safe --timeout 20s");
    story.dkv("version");
    story.deployment.write("state/ok", "");
    story.json("update-safe --abort");

    story.remark("the data of the first update");
    let backups = story.deployment.list(".version-backups/data");
    let backup = backups.iter().find(|name| name.ends_with(".tar.zst")).expect("a backup").clone();
    story.both("backups");
    story.both("restore-data data.tar.zst -y");
    story.both(&format!("restore-data {backup} --dry-run"));
    story.dkv(&format!("restore-data {backup}"));
    story.dialogue(&format!("restore-data {backup}"), &[("[y/N]", "n")]);
    story.dialogue(&format!("restore-data {backup}"), &[("[y/N]", "y")]);
    story.json(&format!("restore-data {backup} -y"));
    story.ends();
}
