//! One picture of a deployment, one writer: what several pictures and writers got wrong.

use std::fs::{self, File};

use crate::support::{Deployment, Engine, Fault, Gate, Image, On, Proxy, Registry};

fn hold(deployment: &Deployment, lock: &str) -> File {
    fs::create_dir_all(deployment.path(".version-backups")).unwrap();
    let path = deployment.path(&format!(".version-backups/{lock}"));
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.lock().unwrap();
    file
}

/// The manifest's own Compose files give a service its image, not others that lie beside them.
#[test]
fn configured_compose_files_decide_over_the_conventional_ones() {
    let deployment = Deployment::new("configured");
    deployment.write("docker-compose.yml", "services: {web: {image: 'r.example/trial:1.0'}}\n");
    deployment
        .write("prod.yml", "services: {web: {image: 'r.example/product:${DK_WEB_TAG:-2.0}'}}\n");
    deployment.write(
        "version-manifest.yaml",
        "schema_version: '1.1'\ncompose: {files: [prod.yml]}\nservices:\n  web: {current_tag: \
        '2.0'}\n",
    );
    deployment.dkv(["generate-env"]).exit(0);
    let env = deployment.versions_env();
    assert!(env.contains("DK_WEB_IMAGE=r.example/product\n"), "{env}");
}

/// Two services in one repository are told apart by the variables of their lines.
#[test]
fn two_services_of_one_repository_are_no_drift() {
    let registry = Registry::start();
    let deployment = Deployment::new("lamps");
    let image = registry.repository("lamp");
    registry.push(Image::new("lamp").tag("1.0"));
    registry.push(Image::new("lamp").tag("2.0"));
    deployment.write(
        "docker-compose.yml",
        &format!(
            "services:\n  front: {{image: '{image}:${{DK_RED_TAG:-1.0}}'}}\n  back: {{image: \
            '{image}:${{DK_BLUE_TAG:-2.0}}'}}\n"
        ),
    );
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  red: {{image: '{image}'}}\n  blue: {{image: \
            '{image}'}}\n"
        ),
    );
    deployment.dkv(["version-pull", "red", "1.0"]).exit(0);
    deployment.dkv(["version-pull", "blue", "2.0"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    let engine = deployment.engine();
    assert_eq!(engine.version(deployment.project(), "front"), "1.0");
    assert_eq!(engine.version(deployment.project(), "back"), "2.0");
    deployment.dkv(["verify"]).exit(0).stderr_contains("No drift");
    // And rolling one of them back knows which containers are meant.
    deployment.dkv(["version-pull", "red", "2.0"]).exit(0);
    deployment
        .dkv(["rollback", "red", "-y"])
        .exit(0)
        .stderr_contains("what runs is already that release");
}

/// What starts, stops or builds reads and writes nothing before it has the operation lock; what
/// removes keep-tags holds the state lock, so that no history changes under it.
#[test]
fn nothing_is_read_or_written_before_the_lock() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.0").tag("latest"));
    let deployment = Deployment::new("locked");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    fs::remove_file(deployment.path("versions.env")).unwrap();
    let lock = hold(&deployment, ".operation.lock");
    for command in ["build", "update", "up", "restart", "down"] {
        deployment.dkv([command, "--lock-timeout", "0"]).exit(4);
        assert!(!deployment.exists("versions.env"), "{command} wrote before it had the lock");
    }
    drop(lock);

    let engine = deployment.engine();
    let kept = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let keep = kept.lines().find(|name| name.starts_with(&registry.repository("web"))).unwrap();
    let hash = keep.split(":dkv-").nth(1).unwrap().split('-').next().unwrap();
    let stray = format!("{}:dkv-{hash}-0123456789ab", registry.repository("web"));
    engine.docker(&["tag", keep, &stray]);
    let lock = hold(&deployment, ".state.lock");
    deployment.dkv(["prune", "-y", "--lock-timeout", "0"]).exit(4);
    assert!(engine.image(&stray).is_some());
    drop(lock);
    deployment.dkv(["prune", "-y"]).exit(0).stdout_contains("0123456789ab");
    assert!(engine.image(&stray).is_none());
}

/// What two commands note at once about images that only their keep-tags name is all kept.
#[test]
fn nothing_that_another_notes_meanwhile_is_lost() {
    if Engine::has_containerd_store() {
        eprintln!("skipped: on this store every image has a digest");
        return;
    }
    let mut registry = Registry::alone();
    let deployment = Deployment::new("notes");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let image = Image::new("web").tag("1.0").tag("latest");
    let pushed = registry.push_of(deployment.project(), image.clone());
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.stop();
    deployment.load(&registry.repository("web"), image);
    let lock = hold(&deployment, ".state.lock");
    let mut running = deployment.dkv(["up", "--lock-timeout", "60"]).spawn();
    running.wait_for_output("Waiting for");
    let other = format!("sha256:{}", "7".repeat(64));
    deployment.write(".version-backups/objects/by-keep-tag", &format!("{other}\n"));
    drop(lock);
    running.exit(0);
    let noted = deployment.read(".version-backups/objects/by-keep-tag");
    for digest in [&other, &pushed.digest] {
        assert!(noted.contains(digest.as_str()), "{noted}");
    }
}

/// A command that finds nothing to do still leaves `versions.env` as the manifest has it: whoever
/// was killed between the two renames says the same again.
#[test]
fn nothing_to_do_repairs_versions_env_all_the_same() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.0").tag("latest"));
    let deployment = Deployment::new("repair");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest"]).exit(0);
    let right = deployment.versions_env();
    for command in [
        &["rollback-to", "web", "1.0", "-y"][..],
        &["unhold", "web"],
        &["pull-latest"],
        &["pull-latest", "--no-pull"],
        &["version-pull", "web", "1.0"],
        &["resolve-tags"],
    ] {
        for wrong in [Some("DK_WEB_TAG=0.9\n"), None] {
            match wrong {
                Some(text) => deployment.write("versions.env", text),
                None => fs::remove_file(deployment.path("versions.env")).unwrap(),
            }
            deployment.dkv(command.iter().copied()).exit(0);
            assert_eq!(deployment.versions_env(), right, "{command:?}");
        }
    }
}

/// Services that share a repository share keep-tags too: what one forgets another may remember.
#[test]
fn evicting_from_one_history_leaves_what_another_remembers() {
    let registry = Registry::start();
    let deployment = Deployment::new("shared");
    let image = registry.repository("app");
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  one: {{image: '{image}'}}\n  two: {{image: \
            '{image}'}}\n"
        ),
    );
    let first = registry.push(Image::new("app").tag("1.0").tag("latest"));
    deployment.dkv(["pull-latest"]).exit(0);
    for version in ["1.1", "1.2", "1.3", "1.4", "1.5"] {
        registry.push(Image::new("app").tag(version).tag("latest"));
        deployment.dkv(["pull-latest", "one"]).exit(0);
    }
    let engine = deployment.engine();
    let tags = engine.docker(&["image", "inspect", "--format", "{{json .RepoTags}}", &first.pin()]);
    assert!(tags.contains(":dkv-"), "{tags}");
    registry.push(Image::new("app").tag("1.6").tag("latest"));
    deployment.dkv(["pull-latest", "two"]).exit(0);
    engine.docker(&["image", "prune", "-f", "--filter", "until=1s"]);
    deployment.dkv(["rollback", "two", "-y"]).exit(0).stdout_contains("1.0");
    assert_eq!(engine.image_id(&first.pin()).as_deref(), Some(first.image_id()));
}

/// A command for all services that finds one unchanged has read it all the same: if somebody
/// changes that meanwhile, recording the others would leave a mixture that nobody meant.
#[test]
fn services_found_unchanged_are_part_of_what_was_read() {
    let registry = Registry::start();
    for name in ["api", "web"] {
        registry.push(Image::new(name).tag("1.0").tag("latest"));
    }
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("mixture");
    deployment.write_product(&[("api", proxy.repository("api")), ("web", proxy.repository("web"))]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.push(Image::new("web").tag("1.1").tag("latest"));
    registry.push(Image::new("api").tag("0.9"));

    let gate = Gate::default();
    proxy.fault(On::target("/web/manifests/latest").first(1), Fault::Hold(gate.clone()));
    let whole = deployment.dkv(["pull-latest", "--no-pull"]).spawn();
    crate::support::wait_for("the question about web", std::time::Duration::from_secs(30), || {
        (proxy.count("HEAD", "/web/manifests/latest") > 1).then_some(())
    });
    deployment.dkv(["version-pull", "api", "0.9", "--no-pull"]).exit(0);
    let between = deployment.manifest();
    gate.open();
    whole
        .exit(3)
        .stderr_contains("service `api` was changed")
        .stderr_contains("nothing was written");
    assert_eq!(deployment.manifest(), between);
}
