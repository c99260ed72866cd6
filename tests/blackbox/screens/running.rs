//! What runs: starting, stopping, building, looking.

use std::time::Duration;

use crate::screens::story::Story;
use crate::support::deployment::compose_file;
use crate::support::{Health, wait_for};

#[test]
fn running() {
    let mut story = Story::new("running");
    story.publish_healthy("web", "1.0");
    story.publish_healthy("db", "15");
    story.product(&["web", "db"]);
    let repositories = ["web", "db"].map(|name| (name, story.registry.repository(name)));
    story.deployment.write("docker-compose.yml", &compose_file(&repositories[..1]));
    story.deployment.write("db-docker-compose.yml", &compose_file(&repositories[1..]));
    story.quietly("pull-latest");

    story.remark("nothing runs");
    story.both("status");
    story.terminal("status");
    story.dkv("info");
    story.dkv("logs");
    story.dkv("verify");
    for line in ["up", "updb", "down", "restart", "start", "stop"] {
        story.dkv(&format!("{line} --dry-run"));
    }
    story.json("up --dry-run");
    story.both("down");
    story.dkv("up");
    story.both("up");
    story.terminal("up");
    story.dkv("updb");
    story.both("status");
    story.terminal("status");
    story.both("info");
    story.both("health");
    story.terminal("health");
    story.both("verify");
    story.terminal("verify");
    story.dkv("verify --remote");
    story.dkv("--color always status");
    for line in [
        "logs",
        "logs web",
        "logs -n 1 --json",
        "logs --grep nothing",
        "logs-today",
        "logs-errors",
        "dblogs",
        "dblogs-today",
        "dblogs-errors",
        "logs nothing",
        "logs --grep (",
    ] {
        story.today(line);
    }
    story.terminal("logs --no-follow");
    story.interrupted("logs -f", "serving web");
    story.interrupted("status --watch", "web: running");

    story.remark("a new version");
    story.publish_healthy("web", "1.1");
    story.quietly("pull-latest");
    story.dkv("rollback --dry-run");
    story.both("status");
    story.terminal("status");
    story.both("verify");
    story.terminal("verify");
    story.dkv("restart");
    story.dialogue("rollback web", &[("[y/N]", "y")]);
    story.dkv("stop");
    story.json("start");
    story.terminal("down");
    story.ends();
}

#[test]
fn ailing() {
    let mut story = Story::new("ailing");
    story.publish_healthy("web", "1.0");
    story.push("job", "1.0", |image| {
        image.tag("1.0").tag("latest").script("echo 'error: no configuration' >&2; exit 3")
    });
    story.push("bad", "1.0", |image| {
        image.tag("1.0").tag("latest").health(Health::Failing).health_interval_ms(300)
    });
    // Not probed before the test is over.
    story.push("slow", "1.0", |image| {
        image.tag("1.0").tag("latest").health(Health::Failing).health_interval_ms(600_000)
    });
    let services =
        ["job", "web", "bad", "slow"].map(|name| (name, story.registry.repository(name)));
    story.deployment.write_product(&services);
    story.quietly("pull-latest");
    story.deployment.write("docker-compose.yml", &compose_file(&services[1..2]));
    story.quietly("up");

    story.remark("job crashes");
    story.deployment.write("docker-compose.yml", &compose_file(&services[..2]));
    story.dkv("up");
    story.both("status");
    story.terminal("status");
    story.dkv("verify");
    for line in ["logs-errors", "logs --errors --json", "logs job", "logs -n 1 --no-follow job"] {
        story.today(line);
    }

    story.remark("bad is unhealthy, and slow not known to be healthy");
    story.deployment.write("docker-compose.yml", &compose_file(&services[1..]));
    // A failure only if it is unhealthy already.
    let _ = story.run("up --no-wait").finish();
    let engine = story.deployment.engine();
    let container = &engine.containers(story.deployment.project(), "bad")[0];
    wait_for("an unhealthy container", Duration::from_secs(60), || {
        let state = engine.docker(&["inspect", "-f", "{{.State.Health.Status}}", container]);
        (state == "unhealthy").then_some(())
    });
    story.both("up --timeout 1s");
    story.terminal("up --timeout 1s");
    story.dkv("up --no-wait");
    story.dkv("health");
    story.terminal("status");
    story.ends();
}

#[test]
fn building() {
    let mut story = Story::new("building");
    let repository = format!("{}-bot", story.deployment.project());
    story.deployment.write_build_context("bot", "1");
    story.deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  bot:\n    build: bot\n    image: {repository}:${{VERSION:-latest}}\n"
        ),
    );
    story.deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  bot: {{image: {repository}, source: local, \
             env_tag: VERSION}}\n"
        ),
    );
    story.both("check-updates");
    story.both("build --dry-run");
    story.both("update --dry-run");
    story.dkv("pull-latest");
    story.dkv("build");
    story.json("build");
    story.both("version");
    story.dkv("check-updates");
    story.deployment.write_build_context("bot", "2");
    story.dkv("update");
    story.both("version-history");
    story.dkv("pull");
    story.dkv("verify");
    story.dkv("rollback -y");
    story.deployment.write("bot/Dockerfile", "FROM scratch\nCOPY nothing /\n");
    story.dkv("build");
    story.json("update");
    story.ends();
}
