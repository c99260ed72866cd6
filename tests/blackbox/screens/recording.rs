//! What is recorded, and how it changes: registries and the manifest.

use std::fs::File;
use std::io::Write as _;

use crate::screens::story::Story;
use crate::support::Registry;
use crate::support::deployment::Compose;
use crate::support::ecr::CREDENTIALS;
use crate::support::http::{self, Response};
use crate::support::registry::free_address;

#[test]
fn recording() {
    let mut story = Story::new("recording");
    story.publish("web", "1.0");
    story.push("api", "2.0", |image| image.tag("2.0").tag("2.0.0").tag("latest"));
    story.product(&["web", "api"]);

    story.remark("nothing is recorded yet");
    story.both("version");
    story.both("version-history");
    story.both("check-updates");
    story.both("generate-env --dry-run");
    story.dkv("generate-env");
    story.both("resolve-tags");
    story.both("rollback --dry-run");
    story.both("pull --dry-run");
    story.dkv("pull web");

    story.remark("the first record");
    story.both("pull-latest --dry-run");
    story.dkv("pull-latest");
    story.file("version-manifest.yaml");
    story.file("versions.env");
    story.both("pull-latest");
    story.terminal("pull-latest");
    story.both("pull");
    story.both("check-updates --exit-code");
    story.dkv("resolve-tags");

    story.at("2026-01-13T09:30:00Z");
    story.publish("web", "1.1");
    story.both("check-updates --exit-code");
    story.terminal("check-updates");
    story.both("pull-latest --no-pull --dry-run");
    story.json("pull-latest");
    story.both("version");
    story.terminal("version");
    story.both("version-history");
    story.terminal("version-history");
    story.dkv("version-history api");
    story.dkv("--color always version-history");
    story.dkv("-q pull-latest");
    story.dkv("-v pull-latest");

    story.remark("one service, by hand");
    story.at("2026-01-14T10:00:00Z");
    story.push("web", "1.0.1", |image| image.tag("1.0.1"));
    story.both("version-pull web 1.0.1 --dry-run");
    story.dkv("version-pull web 1.0.1");
    story.both("version-pull web 1.0.1");
    story.push("api", "2.0-x", |image| image.tag("2.0-x"));
    story.both("version-set api 2.0-x --reason urgent --hold --dry-run");
    story.dkv("version-set api 2.0-x --reason urgent --hold");
    story.dkv("version-set api 2.0-x --reason urgent --hold");
    story.both("version");
    story.terminal("version");
    story.dkv("version-history");
    story.publish("api", "2.1");
    story.both("check-updates");
    story.terminal("check-updates");
    story.dkv("pull-latest --no-pull");
    story.json("pull-latest");
    story.both("unhold api --dry-run");
    story.dkv("unhold api");
    story.both("unhold api");
    story.terminal("pull-latest");

    story.remark("versions.env");
    story.both("generate-env");
    story.deployment.write("versions.env", "DK_WEB_TAG=mine\n");
    story.both("generate-env --dry-run");
    story.dkv("generate-env");

    story.remark("an edit by hand: a tag that nobody knows");
    let manifest = story.deployment.manifest();
    let edited = manifest.replacen("tag: '2.1'", "tag: '9.9'", 1);
    story.deployment.write("version-manifest.yaml", &edited);
    story.both("version api");
    story.dkv("generate-env --dry-run");
    story.dkv("check-updates api");
    story.dkv("pull-latest --dry-run");

    story.remark("an edit by hand: a moving tag");
    let edited = manifest.replacen("tag: '2.1'", "tag: latest", 2);
    story.deployment.write("version-manifest.yaml", &edited);
    story.both("resolve-tags --dry-run");
    story.dkv("resolve-tags");

    story.remark("what does not exist");
    for line in [
        "version wbe",
        "pull nginx",
        "version-pull wbe 1.0",
        "version-pull web 9.9",
        "version-set web 9.9 --no-pull",
        "rollback-to web 9.9 -y",
        "rollback wbe -y",
    ] {
        story.dkv(line);
    }
    story.json("version wbe");
    story.json("version-pull web 9.9");
    story.ends();
}

#[test]
fn going_back() {
    let mut story = Story::with("going_back", Registry::alone());
    story.product(&["web", "api"]);
    story.publish("api", "1.0");
    let mut digests = Vec::new();
    for (version, day) in [("1.0", "12"), ("1.1", "13"), ("1.2", "14")] {
        story.at(&format!("2026-01-{day}T12:00:00Z"));
        digests.push(story.publish("web", version).digest);
        story.dkv("pull-latest");
    }
    story.both("rollback");
    story.both("rollback --dry-run");
    story.both("rollback web --dry-run");
    story.dkv("rollback-service web --dry-run");
    story.dialogue("rollback", &[("[y/N]", "n")]);
    story.dialogue("rollback", &[("[y/N]", "y")]);
    story.both("version-history web");
    story.terminal("version-history");
    story.both("check-updates");
    story.dkv("pull-latest --dry-run");
    story.json("rollback-service web -y");
    story.both("rollback web -y");
    story.both("rollback-to web 1.2 --dry-run");
    story.dialogue("rollback-to web 1.2", &[("[y/N]", "y")]);
    story.both("rollback-to web 1.2 -y");
    story.push("web", "0.9", |image| image.tag("0.9"));
    story.both("rollback-to web 0.9 --dry-run");
    story.dkv("rollback-to web 0.9 -y");
    story.dkv(&format!("rollback-to web {} --dry-run", digests[1]));
    story.json("rollback-to web 1.1 -y");
    story.dkv("pull-latest");
    story.dkv("rollback -y");

    story.remark("what was done, and back through it");
    story.dkv("operations");
    story.terminal("operations");
    story.both("undo --dry-run");
    story.dialogue("undo", &[("[y/N]", "n")]);
    story.dialogue("undo", &[("[y/N]", "y")]);
    story.both("undo 6 -y");
    story.both("redo -y");
    story.dkv("undo 99 -y");
    story.dkv("undo 8 -y");
    story.dkv("operations");
    story.dkv("redo -y");
    story.dkv("redo -y");

    story.remark("without the registry");
    story.registry.stop();
    story.dkv("rollback web -y");
    story.json("rollback-to web 1.0 -y");
    story.file("version-manifest.yaml");

    story.both("prune --dry-run");
    let web = story.registry.repository("web");
    let engine = story.deployment.engine().clone();
    let tags = engine.docker(&["images", "--format", "{{.Tag}}", &web]);
    let keep = tags.lines().find(|tag| tag.starts_with("dkv-")).expect("a keep-tag").to_owned();
    let (hash, _) = keep.rsplit_once('-').expect("a keep-tag");
    let old = format!("{web}:{hash}-000000000000");
    engine.docker(&["tag", &format!("{web}:{keep}"), &old]);
    story.remark("a keep-tag of a release that no history has");
    story.both("prune --dry-run");
    story.dkv("prune");
    story.dialogue("prune", &[("[y/N]", "n")]);
    story.dkv("prune -y");
    story.both("prune -y");
    story.ends();
}

#[test]
fn failing() {
    let mut story = Story::with("failing", Registry::alone());
    story.publish("web", "1.0");
    story.product(&["web", "api"]);
    story.remark("the registry has no api");
    story.both("check-updates");
    story.both("pull-latest --no-pull");
    story.dkv("pull-latest --keep-going");
    story.json("pull-latest --keep-going");
    story.both("pull-latest");
    story.terminal("pull-latest");
    story.dkv("pull-latest api --keep-going");
    story.dkv("pull --keep-going");
    story.dkv("health");
    story.remark("api is for another platform");
    story.push("api", "1.0", |image| image.tag("1.0").tag("latest").platforms(&["arm64"]));
    story.both("pull-latest");

    story.remark("another dkv is at work");
    let holder = format!("process {}", std::process::id());
    story.hide(holder.clone(), "process [pid]");
    for (name, line) in [
        (".state.lock", "version-set web 1.0 --hold --no-pull --lock-timeout 0"),
        (".operation.lock", "restart --lock-timeout 0"),
    ] {
        let path = story.deployment.path(".version-backups").join(name);
        let mut lock =
            File::options().write(true).create(true).truncate(true).open(path).expect("a file");
        lock.lock().expect("a lock");
        writeln!(lock, "dkv rollback ({holder})").expect("a file");
        story.both(line);
    }

    story.remark("the registry does not answer");
    story.registry.stop();
    for line in ["check-updates", "pull-latest", "version-pull web 2"] {
        story.both(line);
    }
    story.terminal("check-updates");
    story.dkv("resolve-tags");
    story.dkv("pull web");
    story.dkv("verify --remote");
    story.dkv("pull-latest web --no-pull -v");

    for (remark, compose, host) in [
        ("Docker does not answer", Compose::V2, Some("unix:///nonexistent/docker.sock")),
        ("there is no Compose", Compose::Neither, None),
    ] {
        story.remark(remark);
        for line in [
            "pull web",
            "status",
            "status --json",
            "up",
            "logs",
            "verify",
            "update-safe",
            "prune -y",
        ] {
            let run = story.run(line).compose(compose);
            let run = host.into_iter().fold(run, |run, host| run.env("DOCKER_HOST", host));
            story.seen(line, &run.finish());
        }
    }
    log_in(&mut story);
    story.ends();
}

/// What the two AWS registries need.
fn log_in(story: &mut Story) {
    story.remark("public ECR");
    let public = "schema_version: '1.1'\nservices: {web: {image: public.ecr.aws/a/web}}\n";
    story.deployment.write("version-manifest.yaml", public);
    story.both("ecr-login");
    let account = "123456789012";
    let private = format!("{account}.dkr.ecr.us-east-1.amazonaws.com");
    story.hide(account, "[account]");
    story.deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\necr: {{registry: public.ecr.aws, repository_alias: a, \
             use_private: true, private_registry: {private}, private_region: us-east-1}}\n\
             services: {{web: {{current_tag: '1.42'}}}}\n"
        ),
    );
    let answer = serde_json::json!({"authorizationData": [{
        "authorizationToken": "QVdTOnNlY3JldA==", // AWS:secret
        "expiresAt": 1_768_262_400,
        "proxyEndpoint": format!("https://{private}"),
    }]});
    let server = http::serve(move |_| Response::json(200, &answer));
    story.deployment.install("docker", "#!/bin/sh\ncat >/dev/null\n");
    for (address, lines) in [
        (server.address(), ["ecr-login", "ecr-login --docker", "ecr-login --json"].as_slice()),
        (free_address(), &["ecr-login", "ecr-login --json"]),
    ] {
        story.remark(if address == server.address() { "private ECR" } else { "nobody answers" });
        for line in lines {
            let run = CREDENTIALS
                .iter()
                .fold(story.run(line), |run, (name, value)| run.env(name, *value))
                .compose(Compose::Neither)
                .env("AWS_ENDPOINT_URL_ECR", format!("http://{address}"));
            story.seen(line, &run.finish());
        }
    }
}
