//! `pin`: digests in Compose files, from the manifest or from registries.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::deployment::Compose;
use crate::support::{Deployment, Image, Registry, Run};

/// Where no daemon is, as in CI.
fn without_daemon(run: Run) -> Run {
    run.env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
}

fn dkv(deployment: &Deployment, line: &str) -> Run {
    without_daemon(deployment.dkv(line.split(' ')))
}

/// PrivexBot's two files, pinned to `digest`.
fn privexbot(
    deployment: &Deployment,
    repository: &str,
    digest: &str,
) -> [(&'static str, String); 2] {
    let files = [
        (
            "docker-compose.yml",
            format!(
                "# The backend; see deploy.md.\nservices:\n  backend:\n    image: \
                    {repository}@{digest}   # copied by hand\n    \
                 depends_on:\n      postgres: {{condition: service_started}}\n  postgres:\n    \
                 image: postgres:16-alpine\n"
            ),
        ),
        (
            "docker-compose.secretvm.yml",
            format!(
                "services:\r\n  backend: {{image: \"{repository}@{digest}\", restart: always}}\r\n"
            ),
        ),
    ];
    for (name, text) in &files {
        deployment.write(name, text);
    }
    files
}

#[test]
fn in_ci_one_command_pins_both_files_and_another_guards_them() {
    let registry = Registry::start();
    let deployment = Deployment::new("privexbot");
    let old = registry.push(Image::new("backend").tag("1.0").tag("latest"));
    let files = privexbot(&deployment, &old.repository, &old.digest);
    deployment.write_product(&[("backend", old.repository.clone())]);
    deployment.write(files[0].0, &files[0].1);
    dkv(&deployment, "pull-latest --no-pull").exit(0);
    let both = "docker-compose.yml docker-compose.secretvm.yml";
    dkv(&deployment, &format!("pin --check {both}"))
        .exit(0)
        .stderr_contains("up to date")
        .stderr_lacks("as it should be")
        .stderr_lacks("@sha256");
    // A machine without a daemon cannot vouch for what runs elsewhere, and says so.
    dkv(&deployment, "verify").exit(6).stderr_contains("not compared");
    deployment.dkv(["verify"]).exit(10).stdout_contains("is not on this host");

    let new = registry.push(Image::new("backend").tag("1.1").tag("latest"));
    dkv(&deployment, "pull-latest --no-pull").exit(0);
    let check = dkv(&deployment, &format!("pin --check {both}")).exit(10);
    check
        .stdout_contains("docker-compose.yml:4: stale")
        .stdout_contains("docker-compose.secretvm.yml:2: stale");
    let drift = dkv(&deployment, "verify").exit(10);
    drift.stdout_contains("docker-compose.yml:4 pins").stdout_contains("`dkv pin`");
    dkv(&deployment, "verify")
        .compose(Compose::Neither)
        .exit(10)
        .stderr_contains("what Compose itself makes of its files");
    for (name, text) in &files {
        assert_eq!(&deployment.read(name), text);
    }

    // Without names, the file that lies beside is another deployment's.
    let own = dkv(&deployment, "pin --check").exit(10);
    own.stdout_lacks("secretvm").stderr_contains("`dkv pin docker-compose.secretvm.yml` pins it");
    let pinned = dkv(&deployment, &format!("pin {both}")).exit(0);
    pinned.stderr_contains("postgres:16-alpine is left alone: the manifest does not know it");
    for (name, text) in &files {
        assert_eq!(deployment.read(name), text.replace(&old.digest, &new.digest), "{name}");
        let backups = deployment.list(".version-backups");
        let backup = backups
            .iter()
            .find(|backup| backup.starts_with(&format!("{name}.")))
            .expect("a backup");
        assert_eq!(&deployment.read(&format!(".version-backups/{backup}")), text);
    }
    dkv(&deployment, "pin --check").exit(0);
    dkv(&deployment, "verify").exit(6).stdout_lacks("pins");
    dkv(&deployment, "pin").exit(0).stderr_contains("Nothing to change");

    deployment.write(files[1].0, &files[1].1);
    let check = dkv(&deployment, &format!("pin --check {both}")).exit(10);
    check.stdout_contains("pinned to different digests");
    // What no command of this deployment reads is no drift of it.
    dkv(&deployment, "verify").exit(6).stdout_lacks("pins");
}

#[test]
fn latest_resolves_records_and_writes_at_once() {
    let registry = Registry::start();
    let deployment = Deployment::new("latest");
    let old = registry.push(Image::new("backend").tag("latest").version("1"));
    deployment.write_product(&[("backend", old.repository.clone())]);
    let files = privexbot(&deployment, &old.repository, &old.digest);
    dkv(&deployment, "pull-latest --no-pull").exit(0);
    let new = registry.push(Image::new("backend").tag("latest").version("2"));
    let before = deployment.manifest();

    let both = "docker-compose.yml docker-compose.secretvm.yml";
    let plan = dkv(&deployment, &format!("pin --latest --dry-run {both}")).exit(0);
    plan.stdout_contains("--- a/docker-compose.yml")
        .stdout_contains(&format!("+    image: {}@{}", new.repository, new.digest));
    assert_eq!((deployment.manifest(), deployment.read(files[0].0)), (before, files[0].1.clone()));

    let report = dkv(&deployment, &format!("--json pin --latest {both}")).exit(0).json();
    assert_eq!(report["services"][0]["to"]["digest"], new.digest.as_str());
    assert_eq!(report["files"][0]["written"], true);
    assert_eq!(report["files"][0]["images"][0]["state"], "stale");
    assert!(
        deployment.manifest().contains(&new.digest)
            && deployment.versions_env().contains(&new.digest)
    );
    for (name, text) in files {
        assert_eq!(deployment.read(name), text.replace(&old.digest, &new.digest), "{name}");
    }
}

#[test]
fn without_a_manifest_the_registry_is_the_source() {
    let registry = Registry::start();
    let deployment = Deployment::new("plain");
    let web = registry.push(Image::new("web").tag("1.2").tag("latest"));
    let text = format!(
        "x-web: &web\n  image: '{0}:1.2' # ours\nservices:\n  one: {{<<: *web}}\n  two:\n    <<: \
            *web\n  three:\n    \
         image: ${{IMAGE:-{0}}}:${{TAG:-latest}}\n  four:\n    build: .\n    image: four:1\n",
        web.repository
    );
    deployment.write("compose/app.yaml", &text);
    deployment.write("compose/shared.yaml", "services: {}\n");
    fs::set_permissions(deployment.path("compose/shared.yaml"), fs::Permissions::from_mode(0o640))
        .unwrap();
    symlink("app.yaml", deployment.path("compose/link.yaml")).unwrap();
    let pinned = text.replace(":1.2'", &format!(":1.2@{}'", web.digest));

    dkv(&deployment, "pin --check compose/app.yaml")
        .exit(10)
        .stdout_contains("compose/app.yaml:2: not pinned");
    let run =
        dkv(&deployment, "pin compose/link.yaml compose/shared.yaml compose/app.yaml").exit(0);
    run.stderr_contains("it has variables").stderr_contains("it is built here");
    assert_eq!(deployment.read("compose/app.yaml"), pinned);
    assert!(deployment.path("compose/link.yaml").is_symlink());
    dkv(&deployment, "pin --check compose/app.yaml").exit(0);
    dkv(&deployment, "pin --unpin --dry-run compose/app.yaml")
        .exit(0)
        .stdout_contains(&format!("+  image: '{}:1.2' # ours", web.repository));
    dkv(&deployment, "pin --unpin compose/app.yaml").exit(0);
    assert_eq!(deployment.read("compose/app.yaml"), text);

    registry.delete_tag("web", "1.2");
    dkv(&deployment, "pin compose/app.yaml").exit(5).stderr_contains("no file was changed");
    dkv(&deployment, "pin compose/gone.yaml").exit(3).stderr_contains("does not exist");
    assert_eq!(deployment.read("compose/app.yaml"), text);
}

#[test]
fn files_that_are_included_or_extended_are_pinned_too() {
    let registry = Registry::start();
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let deployment = Deployment::new("included");
    let repository = web.repository.clone();
    deployment.write_product(&[("web", repository.clone())]);
    let literal = |name: &str| format!("services:\n  {name}:\n    image: {repository}:latest\n");
    deployment.write("parts/web.yaml", &(literal("web") + "include: [more/worker.yaml]\n"));
    deployment.write("parts/more/worker.yaml", &literal("worker"));
    deployment.write("parts/base.yaml", &literal("base"));
    let outside = "services:\n  outside:\n    image: nginx:1\n";
    deployment.write("../outside.yaml", outside);
    let compose = "include:\n- ./parts/web.yaml\n- path: [../outside.yaml]\nservices:\n  \
                   api:\n    extends: {file: parts/base.yaml, service: base}\n";
    deployment.write("docker-compose.yml", compose);
    dkv(&deployment, "pull-latest --no-pull").exit(0);

    let loose = dkv(&deployment, "pin --check").exit(10);
    loose
        .stdout_contains("parts/web.yaml:3: not pinned")
        .stdout_contains("parts/more/worker.yaml:3: not pinned");
    let pinned = dkv(&deployment, "pin").exit(0);
    pinned.stderr_contains("parts/web.yaml is taken as well: docker-compose.yml names it");
    pinned.stderr_contains("parts/more/worker.yaml is taken as well: parts/web.yaml names it");
    pinned.stderr_contains("outside.yaml, which docker-compose.yml names, is left alone");
    for name in ["web", "more/worker", "base"] {
        let text = deployment.read(&format!("parts/{name}.yaml"));
        assert!(text.contains(&format!("{repository}:latest@{}", web.digest)), "{text}");
    }
    assert_eq!(deployment.read("../outside.yaml"), outside);
    assert_eq!(deployment.read("docker-compose.yml"), compose);
    dkv(&deployment, "pin --check").exit(0);
    dkv(&deployment, "verify").exit(6).stdout_lacks("pins");

    // A file by name is that file alone; one that is named and does not exist is an error.
    deployment.write("parts/web.yaml", &literal("web"));
    dkv(&deployment, "pin --check docker-compose.yml").exit(0);
    fs::remove_file(deployment.path("parts/web.yaml")).unwrap();
    dkv(&deployment, "pin")
        .exit(3)
        .stderr_contains("which docker-compose.yml names, does not exist");
}

#[test]
fn what_cannot_be_edited_is_refused_with_its_position() {
    let deployment = Deployment::new("refused");
    deployment.write_product(&[("web", "r.example/web".to_owned())]);
    let manifest = deployment
        .manifest()
        .replace("image_digest: ''", &format!("image_digest: sha256:{}", "1".repeat(64)));
    deployment.write("version-manifest.yaml", &manifest);
    deployment.write("docker-compose.yml", "services: [\n");
    dkv(&deployment, "pin").exit(3).stderr_contains("docker-compose.yml, line");
    assert!(
        deployment.list(".version-backups").iter().all(|name| !name.starts_with("docker-compose"))
    );
}

#[test]
fn only_compose_files_are_edited() {
    let deployment = Deployment::new("shapes");
    deployment.write_product(&[("web", "r.example/web".to_owned())]);
    let manifest = deployment.manifest();
    let refused = dkv(&deployment, "pin docker-compose.yml version-manifest.yaml").exit(2);
    refused.stderr_contains("the deployment's manifest").stderr_contains("name Compose files only");
    assert_eq!(deployment.manifest(), manifest);
    for (name, text, why) in [
        ("values.yaml", "image: {repository: r.example/web}\n", "no `services`"),
        ("old.yml", "web:\n  image: r.example/web:1\n", "first file format"),
        ("other-manifest.yaml", manifest.as_str(), "it is a version manifest"),
    ] {
        deployment.write(name, text);
        dkv(&deployment, &format!("pin {name}"))
            .exit(3)
            .stderr_contains(why)
            .stderr_contains("no file was changed");
        assert_eq!(deployment.read(name), text);
    }
    dkv(&deployment, "pin nope.yml")
        .exit(3)
        .stderr_contains("does not exist")
        .stderr_contains("none for those of the deployment");
}

/// A service that is recorded as the old tool did, by whatever stands for a digest, and a Compose file
/// that follows no variable.
fn recorded_by_hand(registry: &str, digest: &str) -> Deployment {
    let deployment = Deployment::new("unseen");
    let web = format!("{registry}/web");
    deployment.write_product(&[("web", web.clone())]);
    let manifest = deployment
        .manifest()
        .replace("image_digest: ''", &format!("image_digest: {digest}"))
        .replace("current_tag: latest", "current_tag: '1.0'");
    deployment.write("version-manifest.yaml", &manifest);
    deployment
        .write("docker-compose.yml", &format!("services:\n  web:\n    image: {web}:latest\n"));
    deployment
}

#[test]
fn what_nobody_has_seen_is_asked_about_before_it_is_pinned() {
    let registry = Registry::alone();
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let prefix = web.repository.strip_suffix("/web").expect("a repository").to_owned();
    let asked = |digest: &str| {
        let log = registry.access_log();
        log.lines().filter(|line| line.contains(&format!("manifests/{digest}"))).count()
    };

    // An image's ID is none that the registry has; what is told mends it.
    let deployment = recorded_by_hand(&prefix, web.image_id());
    let before = deployment.read("docker-compose.yml");
    for check in [false, true] {
        let run = dkv(&deployment, if check { "pin --check" } else { "pin" });
        run.exit(if check { 10 } else { 9 })
            .stdout_contains("docker-compose.yml:3")
            .stdout_contains(
                "an image's configuration; `dkv version-pull web 1.0` records the right",
            )
            .stderr_lacks("brings the files up to date");
    }
    assert_eq!(deployment.read("docker-compose.yml"), before);
    dkv(&deployment, "version-pull web 1.0 --no-pull").exit(0);
    let history = deployment.manifest_data()["history"]["web"].clone();
    assert_eq!(history.as_array().map(Vec::len), Some(1), "{history}");
    dkv(&deployment, "pin").exit(0);
    assert!(deployment.read("docker-compose.yml").contains(&format!(":latest@{}", web.digest)));

    // What was looked at to be recorded is known by the manifest alone, and nobody is asked.
    let clone = recorded_by_hand(&prefix, "''");
    clone.write("version-manifest.yaml", &deployment.manifest());
    let before = asked(&web.digest);
    dkv(&clone, "pin").exit(0);
    assert!(clone.read("docker-compose.yml").contains(&web.digest));
    assert_eq!(asked(&web.digest), before);

    // A digest that others wrote is one once its registry says so; once.
    let clone = recorded_by_hand(&prefix, &web.digest);
    dkv(&clone, "pin").exit(0);
    assert!(clone.read("docker-compose.yml").contains(&web.digest));
    assert!(asked(&web.digest) > before);

    let clone = recorded_by_hand(&prefix, &format!("sha256:{}", "1".repeat(64)));
    dkv(&clone, "pin").exit(9).stdout_contains("does not have it; `dkv version-pull web 1.0`");

    // Where nobody answers, the record is believed, and that is said.
    let alone = recorded_by_hand("127.0.0.1:9/acme", &web.digest);
    dkv(&alone, "pin").exit(0).stderr_contains("nobody can be asked whether it is one");
    assert!(alone.read("docker-compose.yml").contains(&web.digest));
    dkv(&alone, "pin --check").exit(0);
}

#[test]
fn the_daemon_knows_an_image_id_when_it_sees_one() {
    let registry = Registry::start();
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let prefix = web.repository.strip_suffix("/web").expect("a repository").to_owned();
    let deployment = recorded_by_hand(&prefix, web.config_digest());
    deployment.engine().docker(&["pull", "-q", &format!("{}:latest", web.repository)]);
    let before = deployment.read("docker-compose.yml");
    deployment.dkv(["pin"]).exit(9).stdout_contains("is none: ");
    assert_eq!(deployment.read("docker-compose.yml"), before);
    // Its mend, with the daemon.
    deployment.dkv(["version-pull", "web", "1.0"]).exit(0);
    deployment.dkv(["pin"]).exit(0);
    assert!(deployment.read("docker-compose.yml").contains(&web.digest));
    // The ID of a release that the history has is no riddle, to nobody.
    let by_id = deployment.manifest().replace(
        &format!("image_digest: {}", web.digest),
        &format!("image_digest: {}", web.config_digest()),
    );
    deployment.write("version-manifest.yaml", &by_id);
    dkv(&deployment, "generate-env").exit(0);
    let env = deployment.versions_env();
    assert!(env.contains(&format!("1.0@{}", web.digest)), "{env}\n{by_id}");
}

#[test]
fn what_nobody_can_be_asked_about_is_put_off_in_plans_and_by_pin_too() {
    let registry = Registry::start();
    let web = registry.push(Image::new("web").tag("1.0").tag("latest"));
    let deployment = Deployment::new("put-off");
    let lost = ("lost", "127.0.0.1:9/acme/lost".to_owned());
    deployment.write_product(&[("web", web.repository.clone()), lost.clone()]);
    let before = deployment.manifest();
    let plan = deployment.dkv(["pull-latest", "--dry-run"]).exit(9);
    plan.stdout_contains("web: latest → 1.0").stderr_contains("127.0.0.1:9");
    let plan = deployment.dkv(["update-safe", "--dry-run"]).exit(9);
    plan.stdout_contains("web: latest → 1.0").stdout_lacks("lost: ").stderr_contains("127.0.0.1:9");
    assert_eq!(deployment.manifest(), before);
    deployment.dkv(["pin", "--latest", "--dry-run"]).exit(9).stderr_contains("127.0.0.1:9");
    deployment.dkv(["pin", "--latest"]).exit(9).stderr_contains("127.0.0.1:9");
    assert!(deployment.manifest().contains(&web.digest));
    let updated = deployment.dkv(["update-safe", "--no-data-backup"]).exit(9);
    updated.stderr_contains("127.0.0.1:9").stdout_contains("web");

    // Alone it is nothing to go on with.
    let alone = Deployment::new("put-off");
    alone.write_product(&[lost]);
    for command in [
        &["pull-latest"][..],
        &["pull-latest", "--dry-run"],
        &["update-safe"],
        &["update-safe", "--dry-run"],
        &["pin", "--latest"],
        &["pin", "--latest", "--dry-run"],
    ] {
        alone.dkv(command.iter().copied()).exit(5).stderr_contains("127.0.0.1:9");
    }
    alone.write("docker-compose.yml", "services:\n  lost:\n    image: 127.0.0.1:9/acme/lost:1\n");
    // A check and the command that it names say the same.
    let hint = "`dkv pull-latest lost` records one";
    let check = alone.dkv(["pin", "--check"]).exit(10);
    check.stdout_contains(hint).stderr_lacks("brings the files up to date");
    alone.dkv(["pin"]).exit(9).stdout_contains(hint).stderr_contains("has no digest");
}

#[test]
fn a_pin_that_ends_between_two_files_says_what_does_the_rest() {
    let registry = Registry::start();
    let web = registry.push(Image::new("web").tag("1").tag("latest"));
    let deployment = Deployment::new("between");
    let text = format!("services:\n  web:\n    image: {}:1\n", web.repository);
    let mut between = 0;
    for number in 1..8 {
        for file in ["one.yml", "two.yml"] {
            deployment.write(file, &text);
        }
        let inject = format!("inject=rename,renameat,renameat2:error=EIO:when={number}");
        let outcome = dkv(&deployment, "pin one.yml two.yml")
            .under_strace(["-f", "-e", "trace=rename,renameat,renameat2", "-e", &inject])
            .finish();
        if outcome.stderr.contains("is committed") {
            between += 1;
            outcome.stderr_contains("`dkv pin` again").stderr_lacks("generate-env");
        }
        dkv(&deployment, "pin one.yml two.yml").exit(0);
        for file in ["one.yml", "two.yml"] {
            assert!(deployment.read(file).contains(&web.digest), "{number} {file}");
        }
    }
    assert!(between > 0);
}
