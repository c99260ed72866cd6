//! `verify`: each kind of drift made once, on a real engine, and `prune`.

use crate::support::{Deployment, Image, Outcome, Registry};

fn dkv(deployment: &Deployment, line: &str, code: i32) -> Outcome {
    deployment.dkv(line.split(' ')).exit(code)
}

#[test]
fn what_runs_is_compared_with_what_is_written() {
    let registry = Registry::start();
    let deployment = Deployment::new("drift");
    let engine = deployment.engine().clone();
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    registry.push(Image::new("worker").tag("1.0").tag("latest"));
    deployment.write_product(&[
        ("web", registry.repository("web")),
        ("worker", registry.repository("worker")),
    ]);
    let compose = deployment.read("docker-compose.yml");
    dkv(&deployment, "pull-latest", 0);
    dkv(&deployment, "up", 0);
    dkv(&deployment, "verify", 0).stderr_contains("No drift");

    deployment
        .write("versions.env", &deployment.versions_env().replace("DK_WEB_TAG=", "DK_WEB_TAG=0."));
    dkv(&deployment, "verify", 10)
        .stdout_contains("versions.env was edited")
        .stdout_contains("`dkv generate-env`");
    std::fs::remove_file(deployment.path("versions.env")).unwrap();
    dkv(&deployment, "verify", 10).stdout_contains("versions.env does not exist");
    dkv(&deployment, "generate-env", 0);
    dkv(&deployment, "verify", 0);

    deployment.write(
        "docker-compose.yml",
        &format!("{compose}  other:\n    image: {}:1.0\n", registry.repository("other")),
    );
    dkv(&deployment, "verify", 0).stderr_contains("nothing tracks the Compose service other");
    deployment.write(
        "docker-compose.yml",
        &compose
            .replace("${DK_WEB_TAG:-latest}", "1.0")
            .replace("${DK_WEB_IMAGE:-", "")
            .replace("web}", "web"),
    );
    let literal = dkv(&deployment, "verify", 10);
    literal
        .stdout_contains("docker-compose.yml:3 says")
        .stdout_contains("`dkv migrate-versions --write`");
    deployment.write("docker-compose.yml", &compose);

    registry.push(Image::new("web").tag("1.1").tag("latest"));
    dkv(&deployment, "pull-latest", 0);
    let older = dkv(&deployment, "verify", 10);
    older
        .stdout_contains("web was started from an older manifest")
        .stdout_contains("`dkv restart`")
        .stdout_lacks("worker was");
    dkv(&deployment, "restart", 0);
    dkv(&deployment, "verify", 0);

    let other = registry.push(Image::new("web").version("stray").tag("stray"));
    engine.docker(&["pull", "-q", &other.pin()]);
    deployment
        .compose_v2(["up", "-d", "web"])
        .env("DK_WEB_TAG", format!("stray@{}", other.digest))
        .exit(0);
    dkv(&deployment, "verify", 10).stdout_contains("web runs").stdout_contains("`dkv restart`");
    dkv(&deployment, "restart", 0);

    let outside = format!("{}-outside", deployment.project());
    engine.docker(&["run", "-d", "--name", &outside, "--network", "none", &web.pin()]);
    let found = dkv(&deployment, "--json verify", 10).json();
    engine.docker(&["rm", "-f", &outside]);
    assert_eq!(found["drift"][0]["kind"], "started-outside");
    assert_eq!(found["drift"][0]["mend"], format!("`docker rm -f {outside}`"));
    assert_eq!(found["services"][0]["releases"][1]["restorable"], "here");
    dkv(&deployment, "verify", 0);
}

#[test]
fn images_that_are_gone_are_named_with_where_they_can_be_had() {
    let registry = Registry::start();
    let deployment = Deployment::new("gone");
    let engine = deployment.engine().clone();
    let old = registry.push(Image::new("web").tag("1.0").tag("latest"));
    deployment.write_product(&[("web", old.repository.clone())]);
    dkv(&deployment, "pull-latest", 0);
    let new = registry.push(Image::new("web").tag("1.1").tag("latest"));
    dkv(&deployment, "pull-latest", 0);
    dkv(&deployment, "verify --remote", 0).stdout_contains("REGISTRY");

    engine.docker(&["rmi", "-f", new.image_id(), old.image_id()]);
    let gone = dkv(&deployment, "verify", 10);
    gone.stdout_contains("is not on this host").stdout_contains("`dkv pull`");
    let remote = dkv(&deployment, "--json verify --remote", 10).json();
    assert_eq!(remote["services"][0]["releases"][1]["restorable"], "registry");
    dkv(&deployment, "pull", 0);
    // A monitor asks whether a rollback would succeed without a registry.
    dkv(&deployment, "verify", 10)
        .stdout_contains("without a registry no rollback reaches it")
        .stdout_contains("`dkv pull --history`");
    dkv(&deployment, "pull --history", 0).stderr_contains("Pulled 1 image; 1 was local already");
    dkv(&deployment, "verify", 0);

    engine.docker(&["rmi", "-f", old.image_id()]);
    registry.delete("web", &old.digest);
    let lost = dkv(&deployment, "verify --remote", 10);
    lost.stdout_contains("a rollback to").stdout_contains("is not possible any more");
    dkv(&deployment, "verify", 10);
}

#[test]
fn what_could_not_be_compared_is_not_clean() {
    let registry = Registry::start();
    let deployment = Deployment::new("unasked");
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    deployment.write_product(&[("web", web.repository.clone())]);
    let compose = deployment.read("docker-compose.yml");
    dkv(&deployment, "pull-latest", 0);
    dkv(&deployment, "verify", 0);
    let silent = deployment
        .dkv(["--json", "verify"])
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .exit(6)
        .json();
    assert_eq!((&silent["clean"], silent["drift"].as_array().unwrap().len()), (&false.into(), 0));
    assert!(!silent["not_compared"].as_array().unwrap().is_empty(), "{silent:#}");
    deployment.write("docker-compose.yml", &(compose.clone() + "    ports: 7\n"));
    dkv(&deployment, "verify", 6).stderr_contains("not compared").stderr_lacks("No drift");
    // What is known to be wrong is said in any case.
    deployment.write("versions.env", "DK_WEB_TAG=0.9\n");
    dkv(&deployment, "verify", 10);

    // An image that is mounted is compared as well; what can be compared with nothing is named.
    dkv(&deployment, "generate-env", 0);
    let mounted = |tag: &str| {
        format!(
            "{compose}    volumes: [{{type: image, source: '{}:{tag}', target: /assets}}]\nmodels: \
            {{llm: {{model: ai/small}}}}\n",
            web.repository
        )
    };
    deployment.write("docker-compose.yml", &mounted("0.9"));
    dkv(&deployment, "verify", 10).stdout_contains("the volumes of web use");
    deployment.write("docker-compose.yml", &mounted(&format!("1.0@{}", web.digest)));
    dkv(&deployment, "verify", 0).stderr_contains("the model `llm`");
}

#[test]
fn a_product_of_local_and_published_images_is_found() {
    let registry = Registry::start();
    let deployment = Deployment::new("whisperengine");
    let local = format!("{}/bot", deployment.project());
    deployment.load(&local, Image::new("bot").tag("latest").version("dev"));
    let published = registry.push(Image::new("bot").tag("latest").one_shot()).repository;
    let compose = |migrate: &str| {
        format!(
            "x-bot: &bot\n  image: {local}:${{VERSION:-latest}}\n  depends_on:\n    db-migrate: \
                {{condition: service_completed_successfully}}\n\
             services:\n  db-migrate:\n    image: {migrate}:${{VERSION:-latest}}\n  elena: {{<<: \
             *bot}}\n  marcus: {{<<: *bot}}\n"
        )
    };
    deployment.write("docker-compose.yml", &compose(&published));
    let manifest = format!(
        "schema_version: '1.1'\nservices:\n  bot:\n    image: {local}\n    source: local\n    \
            env_tag: VERSION\n    current_tag: latest\n    \
         image_digest: ''\n"
    );
    deployment.write("version-manifest.yaml", &manifest);
    dkv(&deployment, "pull-latest", 0);

    let fault = dkv(&deployment, "verify", 10);
    fault
        .stdout_contains("db-migrate of the same product would start the published")
        .stdout_contains("give db-migrate the image of");
    deployment.write("docker-compose.yml", &compose(&local));
    dkv(&deployment, "verify", 0);
}

#[test]
fn prune_removes_the_keep_tags_that_no_history_names() {
    let registry = Registry::start();
    let deployment = Deployment::new("prune");
    let engine = deployment.engine().clone();
    let web = registry.push(Image::new("web").tag("latest"));
    deployment.write_product(&[("web", web.repository.clone())]);
    dkv(&deployment, "pull-latest", 0);
    let tags = || engine.docker(&["images", "--format", "{{.Tag}}", &web.repository]);
    let keep = tags().lines().find(|tag| tag.starts_with("dkv-")).expect("a keep-tag").to_owned();
    let (hash, _) = keep.rsplit_once('-').unwrap();
    let forgotten = format!("{hash}-000000000000");
    let foreign = "dkv-00000000-000000000000";
    for tag in [forgotten.as_str(), foreign] {
        engine.docker(&["tag", &web.pin(), &format!("{}:{tag}", web.repository)]);
    }

    dkv(&deployment, "prune --dry-run", 0).stdout_contains(&forgotten);
    dkv(&deployment, "prune", 2).stderr_contains("--yes");
    assert!(tags().contains(&forgotten));
    dkv(&deployment, "prune -y", 0).stdout_contains(&forgotten);
    let left = tags();
    assert!(left.contains(&keep) && left.contains(foreign) && !left.contains(&forgotten), "{left}");
    dkv(&deployment, "prune -y", 0).stderr_contains("Nothing to remove");
}

#[test]
fn where_compose_fails_nothing_is_called_a_stranger() {
    let registry = Registry::start();
    let deployment = Deployment::new("unread");
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let line = format!("image: ${{DK_WEB_IMAGE:-{}}}:${{DK_WEB_TAG:-latest}}\n", web.repository);
    let outer = format!("include: [\"${{PARTS:-parts}}/cron.yml\"]\nservices:\n  web:\n    {line}");
    deployment.write("parts/cron.yml", &format!("services:\n  cron:\n    {line}"));
    deployment.write("docker-compose.yml", &outer);
    dkv(&deployment, "migrate-versions -y", 0);
    dkv(&deployment, "up", 0);
    dkv(&deployment, "verify", 0);
    let broken = deployment.read("docker-compose.yml") + "    ports: 7\n";
    deployment.write("docker-compose.yml", &broken);
    let found = dkv(&deployment, "verify", 6);
    found.stdout_lacks("docker rm").stderr_contains("only Compose could say");
}

#[test]
fn the_template_of_a_generated_file_is_what_is_mended() {
    let registry = Registry::start();
    let deployment = Deployment::new("made");
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let line = format!("services:\n  web:\n    image: {}:latest\n", web.repository);
    deployment.write("docker-compose.yml", &line);
    deployment.write("docker-compose.yml.j2", &line);
    dkv(&deployment, "migrate-versions -y", 0);
    let found = dkv(&deployment, "verify", 10);
    found.stdout_contains("in docker-compose.yml.j2").stdout_lacks("--write");
}

#[test]
fn bytes_under_another_name_are_the_recorded_image() {
    let mut registry = Registry::alone();
    let deployment = Deployment::new("renamed");
    let engine = deployment.engine().clone();
    let old = registry.push(Image::new("web").tag("1.0").tag("latest"));
    deployment.write_product(&[("web", old.repository.clone())]);
    dkv(&deployment, "pull-latest", 0);
    let new = registry.push(Image::new("web").tag("1.1").tag("latest"));
    dkv(&deployment, "pull-latest", 0);
    let other = format!("{}-other:1", registry.repository("web"));
    engine.docker(&["tag", &old.pin(), &other]);
    for name in
        engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", &old.repository]).lines()
    {
        if engine.image_id(name).as_deref() == Some(old.image_id()) {
            engine.docker(&["rmi", name]);
        }
    }
    engine.try_docker(&["rmi", &old.pin()]);
    assert!(
        engine.image_id(&other).is_some()
            && engine.image_id(&old.pin()).is_none()
            && engine.image_id(&new.pin()).is_some()
    );
    registry.stop();
    let found = dkv(&deployment, "--json verify", 0).json();
    assert_eq!(found["services"][0]["releases"][1]["restorable"], "here", "{found:#}");
    dkv(&deployment, "rollback -y", 0);
    dkv(&deployment, "verify", 0);
    dkv(&deployment, "up", 0);
    assert_eq!(engine.running_image(deployment.project(), "web"), old.image_id());
}

/// What a container still needs stays, and the dry run says so before.
#[test]
fn prune_tells_the_same_whether_it_acts_or_not() {
    let registry = Registry::start();
    let deployment = Deployment::new("prune");
    for number in 0..7 {
        registry.push(Image::new("web").version(&number.to_string()).tag("latest"));
        deployment.write_product(&[("web", registry.repository("web"))]);
        if number == 0 {
            dkv(&deployment, "pull-latest", 0);
            dkv(&deployment, "up --no-wait", 0);
            // As if its history had been lost.
            std::fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();
        }
    }
    deployment.write_product(&[("web", registry.repository("web"))]);
    dkv(&deployment, "pull-latest", 0);
    let answer = |line: &str| {
        let json = dkv(&deployment, line, 0).json();
        (json["removed"].clone(), json["in_use"].clone())
    };
    let planned = answer("prune --dry-run --json");
    assert_eq!(
        (planned.0.as_array().unwrap().len(), planned.1.as_array().unwrap().len()),
        (0, 1),
        "{planned:?}"
    );
    assert_eq!(answer("prune -y --json"), planned);
    dkv(&deployment, "down", 0);
    let planned = answer("prune --dry-run --json");
    assert_eq!(planned.0.as_array().unwrap().len(), 1, "{planned:?}");
    assert_eq!(answer("prune -y --json"), planned);
}
