//! Files of the deployment: a manifest from Compose files, digests in Compose files, and what
//! `verify` finds.

use std::fs;

use crate::screens::story::Story;
use crate::support::deployment::compose_file;

#[test]
fn migrating() {
    let mut story = Story::new("migrating");
    for name in ["web", "app", "svc", "job"] {
        story.publish(name, "1.0");
        story.publish(name, "1.1");
    }
    story.push("postgres", "13", |image| image.tag("13"));
    let repository = |name: &str| story.registry.repository(name);
    let [web, app, svc, job, db] = ["web", "app", "svc", "job", "postgres"].map(repository);
    story.deployment.write("docker-compose.yml", &compose_file(&[("web", web.clone())]));
    story
        .deployment
        .write("db-docker-compose.yml", &format!("services:\n  db:\n    image: {db}:13\n"));
    let both_files = ["-f", "docker-compose.yml", "-f", "db-docker-compose.yml", "up", "-d"];
    story.deployment.compose_v2(both_files).env("DK_WEB_TAG", "1.0").exit(0);

    story.remark("web 1.0 runs, and `latest` is 1.1");
    story.both("migrate-versions --dry-run");
    story.dkv("migrate-versions");
    story.dialogue(
        "migrate-versions",
        &[("Deployment", ""), ("Customer", "acme"), ("Track any", "none"), ("versions.env?", "no")],
    );
    story.dialogue(
        "migrate-versions",
        &[("Deployment", ""), ("Customer", "acme"), ("Track any", "none"), ("versions.env?", "")],
    );
    story.file("version-manifest.yaml");
    story.both("migrate-versions -y");
    story.dkv("migrate-versions -y --track cache");
    story.json("migrate-versions -y --track db");

    story.remark("literal lines, two versions of one image, one variable for two images");
    story.deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  web:\n    image: {web}:1.0 # ours\n  app:\n    image: {app}:1.0\n  \
             worker:\n    image: {app}:1.1\n  svc:\n    image: {svc}:${{VERSION:-1.0}}\n  \
             job:\n    image: {job}:${{VERSION:-1.0}}\n"
        ),
    );
    story.deployment.write(".env", "VERSION=1.1\n");
    fs::remove_file(story.deployment.path("version-manifest.yaml")).expect("a manifest");
    story.dkv("migrate-versions -y --write --dry-run");
    story.dkv("migrate-versions -y");
    story.terminal("migrate-versions -y --write");
    story.json("migrate-versions -y --write");
    story.file("docker-compose.yml");

    story.remark("other tools");
    story.deployment.write("start.sh", "#!/bin/sh\npython3 version-manager.py generate-env\n");
    story.dkv("migrate-versions -y");
    story.ends();
}

#[test]
fn pinning() {
    let mut story = Story::new("pinning");
    let old = story.publish("web", "1.0");
    story.publish("api", "1.0");
    story.product(&["web", "api"]);
    story.dkv("pull-latest --no-pull");
    let (web, api) = (old.repository.clone(), story.registry.repository("api"));
    story.deployment.write(
        "docker-compose.yml",
        &format!(
            "# ours\nservices:\n  web:\n    image: {web}:1.0   # by hand\n  api:\n    image: \
             ${{DK_API_IMAGE:-{api}}}:${{DK_API_TAG:-latest}}\n  cache:\n    image: redis:7\n"
        ),
    );
    story.deployment.write(
        "docker-compose.prod.yml",
        &format!("services:\n  web: {{image: \"{web}@{}\"}}\n", old.digest),
    );
    story.both("pin --check");
    story.both("pin --dry-run");
    story.dkv("pin");
    story.both("pin");
    story.both("pin --check");
    story.terminal("pin --check");
    story.file("docker-compose.yml");

    story.remark("a new version");
    story.publish("web", "1.1");
    story.dkv("pin --latest --dry-run");
    story.json("pin --latest");
    story.deployment.write(
        "docker-compose.prod.yml",
        &format!("services:\n  web: {{image: \"{web}@{}\"}}\n", old.digest),
    );
    story.dkv("pin --check");
    story.terminal("pin --check");
    story.json("pin --check");
    story.dkv("pin --unpin --dry-run");
    story.dkv("pin --unpin");
    story.json("pin --unpin");
    story.dkv("pin nothing.yml");
    story.deployment.write("broken.yml", "services: {web: {image: [\n");
    story.both("pin broken.yml");
    story.ends();
}

#[test]
fn verifying() {
    let mut story = Story::new("verifying");
    let old = story.publish("web", "1.0");
    story.publish("api", "1.0");
    story.product(&["web", "api"]);
    story.quietly("pull-latest");
    let compose = story.deployment.read("docker-compose.yml");
    story.at("2026-01-13T12:00:00Z");
    let new = story.publish("web", "1.1");
    story.quietly("pull-latest");
    story.dkv("verify --remote");

    story.remark("versions.env, edited and gone");
    let env = story.deployment.versions_env();
    story.deployment.write("versions.env", &env.replace("DK_WEB_TAG=", "DK_WEB_TAG=0."));
    story.both("verify");
    fs::remove_file(story.deployment.path("versions.env")).expect("a file");
    story.dkv("verify");
    story.quietly("generate-env");

    story.remark("literal lines and an image that nothing tracks");
    let literal =
        compose.replace("${DK_WEB_IMAGE:-", "").replace("/web}:${DK_WEB_TAG:-latest}", "/web:1.0");
    let other = format!("{literal}  other:\n    image: {}:1\n", story.registry.repository("other"));
    story.deployment.write("docker-compose.yml", &other);
    story.both("verify");
    story.terminal("verify");
    let web = story.registry.repository("web");
    let pinned = literal.replace(&format!("{web}:1.0"), &format!("{web}@{}", old.digest));
    story.deployment.write("docker-compose.yml", &pinned);
    story.dkv("verify");
    story.deployment.write("docker-compose.yml", &format!("{compose}    ports: 7\n"));
    story.both("verify");
    story.dkv("up --dry-run");
    story.deployment.write("docker-compose.yml", &compose);

    story.remark("a container outside of the deployment");
    let engine = story.deployment.engine().clone();
    let outside = format!("{}-outside", story.deployment.project());
    engine.docker(&["run", "-d", "--name", &outside, "--network", "none", &old.pin()]);
    story.dkv("verify");
    engine.docker(&["rm", "-f", &outside]);

    story.remark("images that are gone");
    engine.docker(&["rmi", "-f", new.image_id(), old.image_id()]);
    story.both("verify");
    story.terminal("verify");
    story.registry.delete("web", &old.digest);
    story.both("verify --remote");
    story.dkv("pull");
    story.dkv("rollback web -y");
    story.ends();
}
