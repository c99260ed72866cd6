//! How image lines of every form come to follow what is recorded, and come back.

use crate::support::deployment::Compose;
use crate::support::{Deployment, Image, Registry};

/// What Compose makes of the image lines, sorted; with `versions.env` in its environment or without.
fn images(deployment: &Deployment, env: bool) -> Vec<String> {
    let mut run = deployment.compose_v2(["config", "--images"]);
    if env {
        for line in deployment.versions_env().lines() {
            if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                run = run.env(name, value);
            }
        }
    }
    let mut images: Vec<String> = run.exit(0).stdout.lines().map(str::to_owned).collect();
    images.sort();
    images
}

#[test]
fn no_tracked_line_is_left_behind_where_compose_v2_runs_it() {
    let registry = Registry::start();
    let names = ["server", "ml", "whole", "mirrored", "own", "shared", "block", "base"];
    let push = |version: &str| -> Vec<String> {
        let push = |name: &&str| {
            registry.push(Image::new(name).tag(version).tag("release").tag("stable")).digest
        };
        names.iter().map(push).collect()
    };
    let old = push("1.0");
    let of = |name: &str| registry.repository(name);
    let deployment = Deployment::new("follow");
    let (host, path) =
        of("mirrored").split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    deployment.write(".env", &format!("WHOLE={}:release\nOWN_VERSION=stable\n", of("whole")));
    deployment
        .write("base.yml", &format!("services:\n  base:\n    image: {}:release\n", of("base")));
    let compose = format!(
        "x-shared: &shared\n  image: {}:${{VERSION:-release}} # one for two\nx-more: &more\n  !!merge \
            <<: *shared\n  restart: 'no'\nservices:\n  server:\n    image: \
            {}:${{VERSION:-release}}\n  ml:\n    image: \"{}:${{VERSION-release}}\"\n  whole:\n    \
            image: ${{WHOLE}}\n  mirrored: {{image: '${{MIRROR:-{host}}}/{path}:release'}}\n  own:\n    \
            image: {}:${{OWN_VERSION:-release}}\n  one:\n    <<: *more\n  two:\n    <<: [*more]\n    \
            labels: {{a: b}}\n  block:\n    image: >-\n      {}:release\n  extending:\n    extends: \
            {{file: base.yml, service: base}}\n",
        of("shared"),
        of("server"),
        of("ml"),
        of("own"),
        of("block"),
    );
    deployment.write("compose.yaml", &compose);
    let before = images(&deployment, false);
    deployment.compose_v2(["up", "-d"]).exit(0);

    let dry = deployment.dkv(["migrate-versions", "--write", "--dry-run", "--json"]).exit(0).json();
    assert_eq!(deployment.read("compose.yaml"), compose);
    let report = deployment.dkv(["migrate-versions", "-y", "--write", "--json"]).exit(0).json();
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
    for (wrote, would) in report["compose_changes"]
        .as_array()
        .unwrap()
        .iter()
        .zip(dry["compose_changes"].as_array().unwrap())
    {
        assert_eq!((&wrote["to"], &wrote["left"]), (&would["to"], &would["left"]));
        assert_eq!((&wrote["left"], &wrote["written"]), (&serde_json::Value::Null, &true.into()));
    }
    let text = deployment.read("compose.yaml");
    assert!(text.contains("_TAG:-${VERSION:-release}} # one for two"), "{text}");
    assert_eq!(images(&deployment, false), before, "{text}");
    let recorded = images(&deployment, true);
    for digest in &old {
        assert!(
            recorded.iter().any(|image| image.ends_with(digest)),
            "{digest}: {recorded:?}\n{text}"
        );
    }
    assert!(recorded.iter().all(|image| image.contains("@sha256:")), "{recorded:?}");
    deployment.dkv(["verify"]).exit(0);

    let new = push("1.1");
    deployment.dkv(["update-safe"]).exit(0);
    let recorded = images(&deployment, true);
    for digest in &new {
        assert!(recorded.iter().any(|image| image.ends_with(digest)), "{recorded:?}");
    }
    for service in ["server", "ml", "whole", "mirrored", "own", "one", "two", "block", "extending"]
    {
        assert_eq!(deployment.engine().version(deployment.project(), service), "1.1", "{service}");
    }
}

#[test]
fn the_documents_of_a_file_are_recorded_pinned_given_back_and_written() {
    let registry = Registry::start();
    let push = |name: &str| {
        registry.push(Image::new(name).tag("1.0").version(name).tag("latest").tag("stable")).digest
    };
    let digests = ["web", "late", "base"].map(push);
    let of = |name: &str| registry.repository(name);
    let deployment = Deployment::new("documents");
    let [web, late, base] = ["web", "late", "base"].map(of);
    deployment.write(
        "base.yml",
        &format!(
            "services:\n  base: {{build: .}}\n---\nservices:\n  base: {{image: '{base}:latest'}}\n"
        ),
    );
    let compose = format!(
        "# Two in one.\nservices:\n  web:\n    image: {web}:latest   # overridden below\n    restart: always\n  \
            same: {{extends: web}}\n---\nname: documents\nservices:\n  late:\n    image: '{late}:stable'\r\n  \
            web:\n    image: {web}:stable # what runs\n...\n---\ninclude: [part.yml]\nservices:\n  \
            more: {{extends: {{file: base.yml, service: base}}, build: !reset null}}\n  gone: !reset null\n",
    );
    deployment.write("part.yml", "services: {part: {image: !reset null, build: .}}\n");
    deployment.write("compose.yaml", &compose);
    let before = images(&deployment, false);
    assert_eq!(before.len(), 5, "{before:?}");
    let dkv = |line: &str| {
        deployment.dkv(line.split(' ')).env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    };

    dkv("migrate-versions -y").exit(0);
    dkv("pin").exit(0);
    let pinned = deployment.read("compose.yaml");
    assert_eq!(pinned.matches("@sha256:").count(), 3, "{pinned}");
    assert!(
        pinned.contains(&format!("image: {web}:latest@{}   # overridden", digests[0])),
        "{pinned}"
    );
    assert!(deployment.read("base.yml").contains(&format!("{base}:latest@{}", digests[2])));
    dkv("pin --check").exit(0);
    dkv("pin --unpin").exit(0);
    assert_eq!(deployment.read("compose.yaml"), compose);

    dkv("migrate-versions -y --write").exit(0);
    let written = deployment.read("compose.yaml");
    assert_eq!(images(&deployment, false), before, "{written}");
    let recorded = images(&deployment, true);
    for (image, digest) in [(&web, &digests[0]), (&late, &digests[1]), (&base, &digests[2])] {
        let is_it =
            |one: &&String| one.starts_with(image.as_str()) && one.ends_with(digest.as_str());
        assert!(recorded.iter().any(|one| is_it(&one)), "{digest}: {recorded:?}\n{written}");
    }
    dkv("migrate-versions -y --write").exit(0).stderr_lacks("documents:");
    assert_eq!(deployment.read("compose.yaml"), written);

    // One that nothing stands behind is refused, as Compose does, and Compose 1 takes one alone.
    deployment.write("compose.yaml", &(compose.clone() + "---\n"));
    dkv("pin --check").exit(3).stderr_contains("compose.yaml").stderr_contains("`---`");
    deployment.write("compose.yaml", &compose);
    let refused = dkv("migrate-versions --dry-run").compose(Compose::V1).exit(6);
    refused.stderr_contains("several documents").stderr_contains("compose.yaml:8");
}

#[test]
fn with_compose_v1_alone_every_hint_leads_to_the_recorded_bytes() {
    let registry = Registry::start();
    let push = |version: &str| {
        for name in ["server", "ml", "whole"] {
            registry.push(Image::new(name).tag(version).tag("release").tag("old"));
        }
    };
    push("1.0");
    let of = |name: &str| registry.repository(name);
    let deployment = Deployment::new("follow");
    deployment.write(".env", "VERSION=release\n");
    let compose = format!(
        "version: '3'\nservices:\n  server:\n    image: {}:${{VERSION:-old}}\n  ml:\n    image: \
            {}:${{VERSION:-old}} # same\n  whole:\n    image: ${{APP:-{}:release}}\n",
        of("server"),
        of("ml"),
        of("whole"),
    );
    deployment.write("docker-compose.yml", &compose);
    deployment.compose_v1(["up", "-d"]).exit(0);
    let dkv = |words: &[&str]| deployment.dkv(words.iter().copied()).compose(Compose::V1);
    dkv(&["migrate-versions", "-y", "--write"])
        .exit(0)
        .stderr_contains("Compose v1 knows no default inside a default")
        .stderr_contains("`dkv pin`");
    assert_eq!(deployment.read("docker-compose.yml"), compose);
    push("1.1");
    let refused = dkv(&["update-safe"]).exit(3);
    refused
        .stderr_contains("docker-compose.yml:4, server: its image has VERSION, which versions.env")
        .stderr_contains("`dkv pull-latest`, `dkv pin`");
    dkv(&["pull-latest"]).exit(0).stderr_contains("`dkv pin` and then `dkv restart`");
    // The record is not what runs, and `restart` alone does not change that, as it says.
    dkv(&["restart"])
        .exit(0)
        .stderr_contains("docker-compose.yml:8, whole does not follow versions.env")
        .stderr_contains("`dkv pin`");
    assert_eq!(deployment.engine().version(deployment.project(), "ml"), "1.0");
    dkv(&["pin"]).exit(0);
    let pinned = deployment.read("docker-compose.yml");
    assert_eq!(pinned.matches("@sha256:").count(), 3, "{pinned}");
    assert!(pinned.contains("${APP:-") && pinned.contains(":release}@sha256:"), "{pinned}");
    dkv(&["restart"]).exit(0).stderr_lacks("not what the manifest records");
    for service in ["server", "ml", "whole"] {
        assert_eq!(deployment.engine().version(deployment.project(), service), "1.1", "{service}");
    }
    dkv(&["pin", "--check"]).exit(0);
    dkv(&["verify"]).exit(0);
    dkv(&["pin", "--unpin"]).exit(0);
    assert_eq!(deployment.read("docker-compose.yml"), compose);
}

#[test]
fn pin_changes_no_other_deployment_and_no_other_line_of_versions() {
    let registry = Registry::start();
    let llm = registry.push(Image::new("llm").tag("latest").tag("1.5"));
    let rocm = registry.push(Image::new("llm").tag("rocm").version("rocm"));
    let old = registry.push(Image::new("easy").tag("14").version("14"));
    let easy = registry.push(Image::new("easy").tag("15"));
    let deployment = Deployment::new("tracks");
    let line = |image: &str, tag: &str| format!("    image: {image}:{tag}\n");
    let compose = format!(
        "services:\n  llm:\n{}  easy:\n{}  late:\n    image: {}:${{NOT_SET}}\n  made:\n    build: .\n    \
            image: made:1\n  made-too:\n    image: made:1\n",
        line(&llm.repository, "latest"),
        line(&easy.repository, "15"),
        easy.repository,
    );
    deployment.write("docker-compose.yml", &compose);
    let other = format!(
        "services:\n  easy:\n{}  llm:\n{}",
        line(&easy.repository, "14"),
        line(&llm.repository, "rocm")
    );
    deployment.write("docker-compose-v14.yml", &other);
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  llm: {{image: '{}'}}\n  easy: {{image: '{}', track: \
                '15'}}\n",
            llm.repository, easy.repository
        ),
    );
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    let pinned = deployment.dkv(["pin"]).exit(0);
    pinned
        .stderr_contains("docker-compose-v14.yml names images of this deployment")
        .stderr_contains("with what NOT_SET says here it is no image name");
    let expected = compose
        .replace(":latest\n", &format!(":latest@{}\n", llm.digest))
        .replace(":15\n", &format!(":15@{}\n", easy.digest));
    assert_eq!(deployment.read("docker-compose.yml"), expected);
    assert_eq!(deployment.read("docker-compose-v14.yml"), other);

    // By name it is pinned to what its own tags mean.
    deployment.dkv(["pin", "docker-compose-v14.yml"]).exit(0);
    let own = other
        .replace(":14\n", &format!(":14@{}\n", old.digest))
        .replace(":rocm\n", &format!(":rocm@{}\n", rocm.digest));
    assert_eq!(deployment.read("docker-compose-v14.yml"), own);
    deployment.dkv(["pin", "--unpin", "docker-compose-v14.yml"]).exit(0);
    assert_eq!(deployment.read("docker-compose-v14.yml"), other);

    // Another word, or another variant, in a file of the deployment is left alone as well.
    let changed = compose.replace(":latest\n", ":rocm\n");
    deployment.write("docker-compose.yml", &changed);
    let left = deployment.dkv(["pin"]).exit(0);
    left.stderr_contains("its tag is another line of versions than latest");
    assert!(deployment.read("docker-compose.yml").contains(":rocm\n"));
    deployment.dkv(["pin", "--unpin"]).exit(0);
    assert_eq!(deployment.read("docker-compose.yml"), changed);

    // What is no digest is none for `--check` either.
    let twice = compose.replace(":15\n", &format!(":15@sha256:{}\n", easy.digest));
    deployment.write("docker-compose.yml", &twice);
    deployment.dkv(["pin", "--check"]).exit(10);
    deployment.dkv(["verify"]).exit(10).stdout_contains("sha256:sha256:");

    // Without a manifest a registry is not asked about what a neighbour builds.
    std::fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();
    deployment.write("docker-compose.yml", &compose);
    deployment.dkv(["pin"]).exit(0);
}

#[test]
fn a_line_that_says_nothing_here_leaves_the_others_adopted() {
    let registry = Registry::start();
    let web = registry.push(Image::new("web").tag("1.2").tag("latest"));
    let deployment = Deployment::new("unset");
    let repository = &web.repository;
    deployment.write(
        "compose.yaml",
        &format!(
            "services:\n  web:\n    image: {repository}:latest\n  late:\n    image: \
                {repository}:${{NOT_SET}}\n"
        ),
    );
    let told = deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    told.stderr_contains("compose.yaml:5, late is not tracked")
        .stderr_contains("NOT_SET has no value; give it one, as NOT_SET=… in .env");
    deployment.write(".env", "NOT_SET=latest\n");
    deployment.dkv(["migrate-versions", "-y", "--write"]).exit(0);
    let images = images(&deployment, true);
    assert!(images.iter().all(|image| image.ends_with(&web.digest)), "{images:?}");
}

#[test]
fn a_variable_that_is_a_part_of_another_tag_makes_no_line_wrong() {
    let registry = Registry::start();
    let web = registry.push(Image::new("web").tag("1.0"));
    let worker = registry.push(Image::new("worker").tag("1.0-worker").version("worker"));
    for compose in [Compose::V2, Compose::V1] {
        let deployment = Deployment::new("part");
        let dkv = |words: &[&str]| deployment.dkv(words.iter().copied()).compose(compose);
        let text = format!(
            "version: '3'\nservices:\n  web:\n    image: {}:${{VERSION}}\n  worker:\n    image: \
                {}:${{VERSION}}-worker\n",
            web.repository, worker.repository
        );
        deployment.write("docker-compose.yml", &text);
        deployment.write(".env", "VERSION=1.0\n");
        let runs = |name: &str| deployment.engine().running_image(deployment.project(), name);
        let assert_runs = || {
            let images = (runs("web"), runs("worker"));
            assert_eq!((images.0.as_str(), images.1.as_str()), (web.image_id(), worker.image_id()));
        };
        // Adopted, both start as before.
        dkv(&["migrate-versions", "-y"]).exit(0);
        dkv(&["up", "--no-wait"]).exit(0);
        assert_runs();
        // Where a manifest says otherwise, nobody is given the variable, and the line is named.
        let manifest = deployment.manifest().replacen(
            "\n    current_tag",
            "\n    env_tag: VERSION\n    current_tag",
            1,
        );
        deployment.write("version-manifest.yaml", &manifest);
        let told = "VERSION is only a part of the tag of worker (docker-compose.yml:6)";
        dkv(&["generate-env"]).exit(0).stderr_contains(told);
        let env = deployment.versions_env();
        assert!(!env.contains("\nVERSION=") && env.contains(told), "{env}");
        let verified = dkv(&["verify"]).exit(10);
        verified.stdout_contains(&format!("${{VERSION}}, and is given no value: {told}"));
        for command in [&["up", "--dry-run"][..], &["up", "--no-wait"], &["restart", "--no-wait"]] {
            dkv(command).exit(0).stderr_contains(told);
        }
        assert_runs();
        // What is advised mends it.
        dkv(&["migrate-versions", "-y", "--write"]).exit(0);
        if compose == Compose::V1 {
            assert_eq!(deployment.read("docker-compose.yml"), text);
            verified.stdout_contains("`dkv pin`");
            dkv(&["pin"]).exit(0);
        }
        dkv(&["up", "--no-wait"]).exit(0);
        assert_runs();
        dkv(&["verify"]).exit(0);
    }
}
