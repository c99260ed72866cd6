//! What is said when things are missing, refuse or break, and with which exit code.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::support::deployment::Compose;
use crate::support::{
    Daemon, Deployment, Fault, Gate, Image, On, Proxy, Registry, program, wait_for,
};

const SENTINEL: &str = "s3cr3t-s3ntinel";

fn product(topic: &str, registry: &Registry) -> Deployment {
    let deployment = Deployment::new(topic);
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment
}

/// Lets a user without any rights work in the deployment and with the built dkv.
fn open_to_others(deployment: &Deployment) {
    let mut directory = deployment.directory();
    chown(&directory, Some(65534), Some(65534)).unwrap();
    for place in [".", ".version-backups"] {
        for name in deployment.list(place) {
            chown(deployment.path(place).join(name), Some(65534), Some(65534)).unwrap();
        }
    }
    while directory != std::env::temp_dir() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        directory = directory.parent().unwrap().to_owned();
    }
}

#[test]
fn no_daemon_no_permission_and_a_wrong_host_give_three_hints() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let deployment = product("daemon", &registry);
    let before = deployment.manifest();
    let commands = ["pull", "pull-latest", "up", "restart"];

    for command in commands {
        let outcome = deployment.dkv([command]).env("DOCKER_HOST", "tcp://127.0.0.1:1").exit(6);
        outcome
            .stderr_contains("DOCKER_HOST")
            .stderr_contains("127.0.0.1:1")
            .stderr_lacks("systemctl");
        let outcome =
            deployment.dkv([command]).env("DOCKER_HOST", "unix:///nonexistent.sock").exit(6);
        outcome.stderr_contains("DOCKER_HOST").stderr_contains("/nonexistent.sock");
    }
    deployment
        .dkv(["pull"])
        .env("DOCKER_HOST", "nonsense://x")
        .exit(6)
        .stderr_contains("DOCKER_HOST");

    // Without the machine's /run there is no daemon.
    let hide = format!(
        "mount -t tmpfs none /run && mount --bind /run /var/run; exec {} \"$@\"",
        env!("CARGO_BIN_EXE_dkv")
    );
    for command in commands {
        let path = std::env::var("PATH").unwrap();
        let run = deployment
            .command(&program("unshare"), ["--mount", "/bin/sh", "-c", &hide, "sh", command])
            .env("PATH", path);
        let outcome = run.exit(6);
        outcome.stderr_contains("systemctl start docker").stderr_contains("docker.sock");
    }

    open_to_others(&deployment);
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_dkv")];
    for command in commands {
        let outcome =
            deployment.command(&program("setpriv"), nobody.into_iter().chain([command])).exit(6);
        outcome.stderr_contains("group").stderr_contains("docker.sock");
    }
    assert_eq!(deployment.manifest(), before);
    deployment
        .command(&program("setpriv"), nobody.into_iter().chain(["pull-latest", "--no-pull"]))
        .exit(0);
}

#[test]
fn contexts_and_docker_host_are_honoured() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("latest"));
    let deployment = product("context", &registry);
    let context = |name: &str, host: &str| {
        let id = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let directory =
            deployment.docker_config_file().parent().unwrap().join("contexts/meta").join(id);
        fs::create_dir_all(&directory).unwrap();
        let meta = serde_json::json!({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}}});
        fs::write(directory.join("meta.json"), meta.to_string()).unwrap();
    };
    let socket = deployment.home().join("docker.sock");
    symlink("/var/run/docker.sock", &socket).unwrap();
    context("works", &format!("unix://{}", socket.display()));
    context("broken", "unix:///nonexistent.sock");

    deployment.docker_config(&serde_json::json!({"currentContext": "broken"}));
    let outcome = deployment.dkv(["pull-latest"]).exit(6);
    outcome
        .stderr_contains("/nonexistent.sock")
        .stderr_contains("context")
        .stderr_contains("broken");
    deployment.dkv(["pull-latest"]).env("DOCKER_CONTEXT", "works").exit(0);
    assert!(deployment.engine().image_id(&pushed.pin()).is_some());
    deployment.dkv(["pull"]).env("DOCKER_HOST", format!("unix://{}", socket.display())).exit(0);
    deployment.dkv(["up"]).env("DOCKER_CONTEXT", "works").exit(0);
    deployment.dkv(["down"]).env("DOCKER_CONTEXT", "works").exit(0);
    deployment.dkv(["pull"]).env("DOCKER_CONTEXT", "unknown").exit(6).stderr_contains("unknown");
}

#[test]
fn no_compose_at_all_is_said() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let deployment = product("neither", &registry);
    for command in ["up", "down", "restart"] {
        let outcome = deployment.dkv([command]).compose(Compose::Neither).exit(6);
        outcome.stderr_contains("docker compose").stderr_contains("docker-compose");
    }
}

#[test]
fn a_reader_that_went_away_or_a_full_disk_does_not_go_unnoticed() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let deployment = product("stdout", &registry);
    let dkv = env!("CARGO_BIN_EXE_dkv");
    let path = std::env::var("PATH").unwrap();
    let run = |script: &str| {
        deployment.command(&program("bash"), ["-c", script]).env("PATH", path.clone()).finish()
    };
    for command in [
        "version",
        "version --json",
        "history",
        "help-version",
        "man",
        "--help",
        "completions bash",
    ] {
        let full = run(&format!("{dkv} {command} >/dev/full"));
        assert_eq!(full.code(), Some(1), "{command}: {full}");
        let closed =
            run(&format!("set -o pipefail; {dkv} {command} | head -0; exit ${{PIPESTATUS[0]}}"));
        assert!(matches!(closed.code(), Some(0 | 1)), "{command}: {closed}");
        closed.stderr_lacks("panicked");
    }
    run(&format!("{dkv} pull-latest --no-pull | head -0"));
    assert!(
        deployment.manifest_data()["services"]["web"]["image_digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let closed = run(&format!("{dkv} version >&-"));
    closed.stderr_lacks("panicked");
    let closed = run(&format!("{dkv} version 2>&-"));
    assert_eq!(closed.code(), Some(0), "{closed}");
}

#[test]
fn secrets_are_nowhere() {
    let registry = Registry::builder().htpasswd("alice", SENTINEL).start();
    let pushed = registry.push(Image::new("web").tag("latest"));
    let deployment = product("secret", &registry);
    let login = |password: &str| {
        let auth = base64(&format!("alice:{password}"));
        deployment.docker_config(
            &serde_json::json!({"auths": {registry.address().to_string(): {"auth": auth}}}),
        );
        auth
    };
    let auth = login(SENTINEL);
    let wrong = format!("{SENTINEL}-wrong");
    for (password, code) in [(wrong.as_str(), 5), (SENTINEL, 0)] {
        login(password);
        for args in [
            &["pull-latest", "-vv"][..],
            &["pull-latest", "--json", "-vv"],
            &["version-pull", "web", "latest", "-vv"],
        ] {
            let outcome = deployment.dkv(args.iter().copied()).exit(code);
            for secret in [SENTINEL, auth.as_str()] {
                outcome.stdout_lacks(secret).stderr_lacks(secret);
            }
        }
    }
    deployment.dkv(["pull-latest"]).exit(0);
    assert!(deployment.engine().image_id(&pushed.pin()).is_some());
    let mut files = vec!["version-manifest.yaml".to_owned(), "versions.env".to_owned()];
    files.extend(deployment.files_below(".version-backups"));
    for name in files {
        let text = deployment.read(&name);
        assert!(!text.contains(SENTINEL) && !text.contains(&auth), "{name}");
    }
}

fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            encoded.push(if place <= chunk.len() {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    encoded
}

#[test]
fn what_a_registry_refuses_is_named_and_has_its_exit_code() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("refused");
    deployment.write_product(&[("web", proxy.repository("web"))]);
    let before = deployment.manifest();
    for (fault, text) in [
        (Fault::status(401), "web"),
        (Fault::status(403), "web"),
        (Fault::status(404), "latest"),
        (Fault::status(500), "500"),
        (Fault::RedirectLoop, "redirect"),
        (Fault::Reset, &proxy.address().to_string()),
    ] {
        proxy.reset();
        let what = format!("{fault:?}");
        proxy.fault(On::target("/manifests/"), fault);
        let outcome = deployment.dkv(["pull-latest"]).finish();
        assert_eq!(outcome.code(), Some(5), "{what}: {outcome}");
        assert!(outcome.stderr.contains(text), "{what}: {outcome}");
        assert!(outcome.stderr.contains("hint:"), "{what}: {outcome}");
        assert_eq!(deployment.manifest(), before, "{what}");
    }
}

#[test]
fn failures_are_json_too_and_controls_of_a_registrys_text_are_not_obeyed() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("json");
    deployment.write_product(&[("web", proxy.repository("web"))]);
    for (args, code) in [
        (&["version", "nope", "--json"][..], 2),
        (&["rollback", "--json"], 3),
        (&["version-pull", "web", "9.9", "--json"], 5),
        (&["-C", "/nonexistent", "version", "--json"], 2),
        (&["rollback-service", "--json"], 2),
        (&["pull-latst", "--json"], 2),
        (&["--json", "pull", "--jobs", "0"], 2),
    ] {
        let outcome = deployment.dkv(args.iter().copied()).exit(code);
        let json = outcome.json();
        assert_eq!(
            (json["schema"].as_u64(), json["error"]["exit_code"].as_i64()),
            (Some(1), Some(i64::from(code))),
            "{args:?}"
        );
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
        outcome.stderr_contains("error: ");
    }
    let body =
        "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"\\u001b[2J\\u001b]0;owned\\u0007 no\"}]}";
    let response = crate::support::http::Response::new(403, "application/json", body);
    proxy.fault(On::target("/manifests/"), Fault::Respond(response));
    let outcome = deployment.dkv(["pull-latest"]).tty().finish();
    assert!(
        !outcome.stdout.contains("\u{1b}[2J") && !outcome.stdout.contains("\u{1b}]0;"),
        "{outcome}"
    );
}

#[test]
fn a_daemon_that_dies_during_a_pull_changes_nothing() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("latest"));
    let proxy = Proxy::to(&registry);
    proxy.fault(On::target("/blobs/"), Fault::Hold(Gate::default()));
    let mut daemon = Daemon::private();
    let deployment = Deployment::on(daemon.engine(), "dies");
    deployment.write_product(&[("web", proxy.repository("web"))]);
    let before = deployment.manifest();
    let running = deployment.dkv(["pull-latest"]).spawn();
    wait_for("the pull", Duration::from_secs(60), || {
        (proxy.count("GET", "/blobs/") > 0).then_some(())
    });
    daemon.kill();
    let outcome = running.exit(6);
    outcome.stderr_contains("hint:");
    assert_eq!(deployment.manifest(), before);
    assert!(!deployment.exists("versions.env"));
    daemon.start();
    proxy.reset();
    deployment.dkv(["pull-latest"]).exit(0);
    assert_eq!(
        daemon
            .engine()
            .image_id(&format!("{}@{}", proxy.repository("web"), pushed.digest))
            .as_deref(),
        Some(pushed.config_digest())
    );
}
