//! The manifest as it stands on disk: what is read, what is refused and where, what a write keeps.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use crate::support::{Deployment, Image, Proxy, Registry, program};

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn fixture(path: &str) -> String {
    let path = format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A deployment with this manifest and no Compose file.
fn with_manifest(topic: &str, text: &str) -> Deployment {
    let deployment = Deployment::new(topic);
    deployment.write("version-manifest.yaml", text);
    deployment
}

/// A manifest with one held service, which `unhold` can change without daemon and network.
fn held() -> String {
    format!(
        "schema_version: '1.1'\nservices:\n  web:\n    image: localhost/web\n    held: true\n    \
            current_tag: '1.0'\n    image_digest: {}\n",
        digest('a')
    )
}

#[test]
fn the_old_tools_manifests_are_read_with_all_their_quirks() {
    let deployment = with_manifest("legacy", &fixture("manifests/dkapp-pulled.yaml"));
    let versions = deployment.dkv(["version", "--json"]).exit(0).json();
    let service = |name: &str| {
        versions["services"]
            .as_array()
            .unwrap()
            .iter()
            .find(|service| service["name"] == name)
            .cloned()
            .unwrap()
    };
    assert_eq!(service("req_router")["digest"], digest('1'), "Go-printed");
    assert_eq!(service("taskservice")["digest"], serde_json::Value::Null, "empty");
    assert_eq!(
        (service("settings")["tag"].as_str(), service("settings")["digest"].as_str()),
        (Some("1.40"), Some(digest('2').as_str()))
    );
    assert_eq!(service("conv_mgr")["custom"], true);
    assert_eq!(
        service("taskservice")["previous"],
        "1.41",
        "an older `latest` without digest is lost"
    );
    assert_eq!(service("settings")["previous"], serde_json::Value::Null);

    let history = deployment.dkv(["version-history", "taskservice"]).exit(0);
    history.stdout_contains("[lost]").stdout_contains("[previous] ← rollback goes here");
    deployment.dkv(["generate-env"]).exit(0);
    let env = deployment.versions_env();
    assert!(env.contains("DK_ECR_REGISTRY=public.ecr.aws/n5k3t9x2\n"), "{env}");
    assert!(env.contains(&format!("DK_SETTINGS_TAG=1.40@{}\n", digest('2'))), "{env}");
    assert!(env.contains("DK_CONV_MGR_TAG=1.35-hotfix-customer123\n"), "{env}");
    assert_eq!(
        deployment.manifest(),
        fixture("manifests/dkapp-pulled.yaml"),
        "generate-env writes no manifest"
    );
}

#[test]
fn the_wizards_image_id_never_becomes_a_digest() {
    let deployment = with_manifest("wizard", &fixture("manifests/dkapp-wizard.yaml"));
    let versions = deployment.dkv(["version", "--json"]).exit(0).json();
    assert_eq!(versions["services"][0]["digest"], serde_json::Value::Null);
    deployment.dkv(["generate-env"]).exit(0);
    assert!(
        deployment.versions_env().contains("DK_WSFE_TAG=latest\n"),
        "{}",
        deployment.versions_env()
    );
}

#[test]
fn a_missing_image_comes_from_the_compose_file_with_its_default_tag_as_track() {
    let deployment = with_manifest("proxy", &fixture("manifests/dkproxy.yaml"));
    deployment.write("docker-compose.yml", &fixture("compose/dkproxy/docker-compose.yml"));
    let versions =
        deployment.dkv(["version", "--json"]).env("PROXY_ALIAS", "dkproxy").exit(0).json();
    let named = |index: usize| {
        let service = &versions["services"][index];
        (
            service["name"].as_str().unwrap().to_owned(),
            service["image"].as_str().unwrap().to_owned(),
            service["track"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        named(0),
        ("outpost".into(), "public.ecr.aws/n5k3t9x2/outpost".into(), "latest".into())
    );
    let (name, image, track) = named(2);
    assert_eq!((name.as_str(), track.as_str()), ("vault", "1.20.3"));
    assert!(image.ends_with("hashicorp/vault"), "{image}");
    deployment.dkv(["generate-env"]).env("PROXY_ALIAS", "dkproxy").exit(0);
    let env = deployment.versions_env();
    assert!(
        env.contains(&format!(
            "DK_VAULT_IMAGE=hashicorp/vault\nDK_VAULT_TAG=1.20.3@{}\n",
            digest('5')
        )),
        "{env}"
    );
}

#[test]
fn what_would_be_dangerous_is_refused_at_its_line_and_column_and_nothing_is_written() {
    let service = "services:\n  web:\n    image: localhost/web\n";
    let cases = [
        (
            "duplicate key",
            format!("{service}    current_tag: '1'\n    current_tag: '2'\n"),
            "line 5, column 5",
        ),
        (
            "duplicate service",
            format!("{service}    current_tag: '1'\n  web:\n    current_tag: '2'\n"),
            "line 5, column 3",
        ),
        ("bad tag", format!("{service}    current_tag: '1 2'\n"), "line 4, column 18"),
        (
            "tag with a shell in it",
            format!("{service}    current_tag: '$(touch x)'\n"),
            "line 4, column 18",
        ),
        ("empty tag", format!("{service}    current_tag: ''\n"), "line 4, column 18"),
        ("null tag", format!("{service}    current_tag: null\n"), "line 4, column 18"),
        (
            "bad digest",
            format!("{service}    current_tag: '1'\n    image_digest: sha256:12\n"),
            "line 5, column 19",
        ),
        (
            "bad image",
            "services:\n  web:\n    image: 'UPPER CASE'\n".to_owned(),
            "line 3, column 12",
        ),
        ("wrong type", "services: [web]\n".to_owned(), "line 1, column 11"),
        ("tag is a list", format!("{service}    current_tag: [1]\n"), "line 4, column 18"),
        (
            "history is no list",
            format!("{service}    current_tag: '1'\nhistory:\n  web: yes\n"),
            "line 6, column 8",
        ),
        (
            "bad tag in history",
            format!("{service}    current_tag: '1'\nhistory:\n  web:\n  - tag: 'a b'\n"),
            "line 7, column 10",
        ),
        ("newer schema", format!("schema_version: '2.0'\n{service}"), "line 1, column 17"),
        ("no YAML", "services: {web: \n".to_owned(), "line 2"),
        ("tab", "services:\n\tweb: {}\n".to_owned(), "line 2"),
        (
            "alias",
            "base: &base {image: localhost/web}\nservices:\n  web: *other\n".to_string(),
            "line 3",
        ),
    ];
    let deployment = Deployment::new("danger");
    for (what, text, position) in cases {
        deployment.write("version-manifest.yaml", &text);
        for command in
            [&["version"][..], &["generate-env"], &["pull-latest", "--no-pull"], &["unhold", "web"]]
        {
            let outcome = deployment.dkv(command.iter().copied()).finish();
            assert_eq!(outcome.code(), Some(3), "{what}: {outcome}");
            assert!(outcome.stderr.contains(position), "{what}: expected {position}: {outcome}");
            assert!(
                outcome.stderr.contains("version-manifest.yaml"),
                "{what}: the file is not named: {outcome}"
            );
        }
        assert_eq!(deployment.manifest(), text, "{what}");
        assert!(!deployment.exists("versions.env"), "{what}");
    }
}

#[test]
fn an_unreadable_manifest_names_the_newest_readable_backup() {
    let deployment = with_manifest("backup", "services: [\n");
    deployment.dkv(["version"]).exit(3).stderr_contains("no readable backup");
    deployment.write(".version-backups/version-manifest.yaml.20260101000000", &held());
    deployment.write(".version-backups/version-manifest.yaml.20260102000000", &held());
    deployment.write(".version-backups/version-manifest.yaml.20260102000000-2", &held());
    deployment.write(".version-backups/version-manifest.yaml.20260103000000", "services: [\n");
    deployment.write(".version-backups/version-manifest.yaml.20260104000000", "");
    deployment.write(".version-backups/version-manifest.yaml.99999999", &held());
    let outcome = deployment.dkv(["version"]).exit(3);
    outcome.stderr_contains("version-manifest.yaml.20260102000000-2");
    for bytes in [
        &b""[..],
        b"# only a comment\n",
        b"\xff\xfe\x00",
        b"services:\n  web: {image: \"a\x00b\"}\n",
    ] {
        fs::write(deployment.path("version-manifest.yaml"), bytes).unwrap();
        deployment.dkv(["version"]).exit(3).stderr_contains("20260102000000-2");
    }
}

#[test]
fn a_write_changes_nothing_but_what_it_must() {
    let shapes = [
        (
            "comments, unknown keys, odd quoting and order",
            "# top comment\nservices:\n  web:   # the web\n    held: true\n    \
                x-owner: \"alice\"   # keep me\n    image: localhost/web\n\n    current_tag: \
                1.40\n  # before other\n  'other': {image: localhost/other, current_tag: '1', x: \
                [1, 2]}\nx-unknown: {a: 1, b: [c, d]}\nschema_version: \"1.1\" # last\n",
        ),
        (
            "flow style",
            "{schema_version: '1.1', services: {web: {image: localhost/web, held: true, \
                current_tag: '1'}, other: {current_tag: '2'}}}\n",
        ),
        (
            "no line break at the end",
            "schema_version: '1.1'\nservices:\n  web:\n    image: localhost/web\n    current_tag: \
                '1'\n    held: true",
        ),
        (
            "document markers",
            "%YAML 1.2\n---\nschema_version: '1.1'\nservices:\n  web:\n    held: true\n    \
                current_tag: '1'\n...\n",
        ),
        (
            "deep indentation",
            "schema_version: '1.1'\nservices:\n        web:\n                held: \
                true\n                current_tag: '1'\n",
        ),
    ];
    for (what, text) in shapes {
        for text in [text.to_owned(), text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
            let deployment = with_manifest("shape", &text);
            deployment.dkv(["unhold", "web"]).exit(0);
            let after = deployment.manifest();
            assert_eq!(
                after.starts_with('\u{feff}'),
                text.starts_with('\u{feff}'),
                "{what}: {after:?}"
            );
            assert_eq!(after.contains('\r'), text.contains('\r'), "{what}: {after:?}");
            let lines = |text: &str| {
                text.split('\n')
                    .filter(|line| !line.contains("held"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            let (before_lines, after_lines) = (lines(&text), lines(&after));
            for line in before_lines.iter().filter(|line| !line.trim().is_empty()) {
                let may_change = line.contains("web") || line.contains("digest");
                assert!(
                    after_lines.contains(line) || may_change,
                    "{what}: lost {line:?} in\n{after}"
                );
            }
            let versions = deployment.dkv(["version", "--json"]).exit(0).json();
            assert_eq!(versions["services"][0]["held"], false, "{what}: {after}");
            assert_eq!(
                deployment
                    .list(".version-backups")
                    .iter()
                    .filter(|name| name.starts_with("version-manifest.yaml."))
                    .count(),
                1
            );
        }
    }
}

#[test]
fn a_new_release_of_one_service_changes_no_line_of_the_others() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("settings").tag("1.41"));
    let text = fixture("manifests/dkapp-pulled.yaml")
        .replace(
            "image: public.ecr.aws/n5k3t9x2/settings",
            &format!("image: {}  # moved", registry.repository("settings")),
        )
        .replace("services:\n", "services:\n  # nine of them\n");
    let deployment = with_manifest("lines", &text);
    deployment.dkv(["version-pull", "settings", "1.41", "--no-pull"]).exit(0);
    let after = deployment.manifest();
    let lines: Vec<&str> = after.lines().collect();
    for (number, line) in
        text.lines().enumerate().filter(|(_, line)| !line.contains("schema_version"))
    {
        let own = line.contains("1.40")
            || line.contains("2222")
            || line.contains("deployed")
            || line.contains("status");
        assert!(own || lines.contains(&line), "line {} {line:?} is gone:\n{after}", number + 1);
    }
    for name in ["req_router", "taskservice", "conv_mgr", "gone_service"] {
        let block = |text: &str| {
            let mut blocks = Vec::new();
            let mut inside = false;
            for line in text.lines() {
                let is_key =
                    line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -");
                if is_key || !line.starts_with(' ') {
                    inside = line.trim_end() == format!("  {name}:");
                }
                if inside {
                    blocks.push(line.to_owned());
                }
            }
            blocks
        };
        assert_eq!(block(&after), block(&text), "{name}");
        assert!(!block(&after).is_empty());
    }
    let data = deployment.manifest_data();
    assert_eq!(data["schema_version"], "1.1");
    assert_eq!(data["services"]["settings"]["current_tag"], "1.41");
    assert_eq!(data["services"]["settings"]["image_digest"], pushed.digest.as_str());
    assert_eq!(data["services"]["settings"]["deployed_by"], "tester");
    let history = &data["history"]["settings"];
    assert_eq!(
        (history[0]["tag"].as_str(), history[0]["status"].as_str()),
        (Some("1.41"), Some("current"))
    );
    assert_eq!(
        (history[1]["tag"].as_str(), history[1]["status"].as_str()),
        (Some("1.40"), Some("previous"))
    );
    assert_eq!(
        history[1]["digest"],
        digest('2').as_str(),
        "the current one took image_digest, and keeps it"
    );
}

#[test]
fn a_linked_manifest_stays_a_link_and_its_target_is_written() {
    let deployment = Deployment::new("link");
    deployment.write("config/real.yaml", &held());
    symlink("config/real.yaml", deployment.path("version-manifest.yaml")).unwrap();
    deployment.dkv(["unhold", "web"]).exit(0);
    assert!(deployment.path("version-manifest.yaml").is_symlink());
    assert!(!deployment.read("config/real.yaml").contains("held: true"));
    assert_eq!(deployment.list("config"), ["real.yaml"], "nothing is left beside it");
    assert!(
        deployment
            .list(".version-backups")
            .iter()
            .any(|name| name.starts_with("version-manifest.yaml.2"))
    );

    fs::remove_file(deployment.path("config/real.yaml")).unwrap();
    deployment.dkv(["version"]).exit(3).stderr_contains("link to a file that does not exist");
}

#[test]
fn mode_and_owner_are_kept_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let deployment = with_manifest("mode", &held());
        let manifest = deployment.path("version-manifest.yaml");
        fs::set_permissions(&manifest, fs::Permissions::from_mode(0o640)).unwrap();
        chown(&manifest, Some(1234), Some(4321)).unwrap();
        chown(deployment.directory(), Some(1234), Some(4321)).unwrap();
        let script = format!("umask {umask}; exec \"$0\" unhold web");
        deployment.command(&program("sh"), ["-c", &script, env!("CARGO_BIN_EXE_dkv")]).exit(0);
        let written = fs::metadata(&manifest).unwrap();
        assert_eq!(
            (written.mode() & 0o7777, written.uid(), written.gid()),
            (0o640, 1234, 4321),
            "umask {umask}"
        );
        let env = fs::metadata(deployment.path("versions.env")).unwrap();
        assert_eq!((env.uid(), env.gid()), (1234, 4321), "umask {umask}");
        assert_eq!(env.mode() & 0o022, 0, "umask {umask}: others must not write {:o}", env.mode());
        let state = fs::metadata(deployment.path(".version-backups")).unwrap();
        assert_eq!((state.mode() & 0o022, state.uid()), (0, 1234), "umask {umask}");
        for name in deployment.list(".version-backups") {
            let file = fs::metadata(deployment.path(&format!(".version-backups/{name}"))).unwrap();
            assert_eq!(file.mode() & 0o022, 0, "umask {umask}: {name}");
            assert_eq!(file.uid(), 1234, "umask {umask}: {name}");
        }
        let left: Vec<_> =
            deployment.list(".").into_iter().filter(|name| name.contains("dkv")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_read_only_directory_is_refused_before_anything_is_asked_of_a_registry() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("read-only");
    let disk = deployment.mount_tmpfs("1m");
    deployment.write_product(&[("web", proxy.repository("web"))]);
    disk.read_only(true);
    for command in [
        &["pull-latest"][..],
        &["pull-latest", "--no-pull"],
        &["version-set", "web", "latest"],
        &["generate-env"],
    ] {
        deployment.dkv(command.iter().copied()).exit(3).stderr_contains("read-only");
    }
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
    deployment.dkv(["version"]).exit(0);
    deployment.dkv(["pull-latest", "--no-pull", "--dry-run"]).exit(0);
}

#[test]
fn where_versions_env_goes_must_be_writable_before_anything_is_asked_of_a_registry() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("env-elsewhere");
    deployment.write_product(&[("web", proxy.repository("web"))]);
    // The environment's own directory is another deployment's, which only serves as a file system
    // to mount.
    let elsewhere = Deployment::new("elsewhere");
    let disk = elsewhere.mount_tmpfs("1m");
    let env = elsewhere.path("shared.env").display().to_string();
    let original = deployment.manifest();
    deployment.write(
        "version-manifest.yaml",
        &original.replace("services:\n", &format!("env: {{file: {env}}}\nservices:\n")),
    );
    let before = deployment.manifest();
    disk.read_only(true);
    let commands = [
        &["pull-latest"][..],
        &["pull-latest", "--no-pull"],
        &["version-set", "web", "latest"],
        &["resolve-tags"],
        &["update-safe"],
    ];
    for command in commands {
        let outcome = deployment.dkv(command.iter().copied()).exit(3);
        outcome
            .stderr_contains("read-only")
            .stderr_contains(&elsewhere.directory().display().to_string());
    }
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
    assert_eq!(deployment.manifest(), before);
    disk.read_only(false);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert!(elsewhere.read("shared.env").contains("DK_WEB_TAG="));

    // A link leads elsewhere just as well.
    disk.read_only(true);
    proxy.reset();
    deployment.write("version-manifest.yaml", &original);
    symlink(&env, deployment.path("versions.env")).unwrap();
    deployment.dkv(["pull-latest"]).exit(3).stderr_contains("read-only");
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
}

#[test]
fn a_full_disk_leaves_the_old_files() {
    let deployment = Deployment::new("full");
    let disk = deployment.mount_tmpfs("64k");
    deployment.write("version-manifest.yaml", &held());
    deployment.dkv(["generate-env"]).exit(0);
    let (manifest, env) = (deployment.manifest(), deployment.versions_env());
    let filled = deployment.command(&program("sh"), ["-c", "cat /dev/zero >zeros"]).finish();
    assert_ne!(filled.code(), Some(0));
    deployment.dkv(["unhold", "web"]).exit(3).stderr_contains("free some space");
    assert_eq!((deployment.manifest(), deployment.versions_env()), (manifest, env));
    fs::remove_file(deployment.path("zeros")).unwrap();
    let left: Vec<_> =
        deployment.list(".").into_iter().filter(|name| name.contains("dkv-")).collect();
    assert!(left.is_empty(), "{left:?}");
    deployment.dkv(["unhold", "web"]).exit(0);
    drop(disk);
}

#[test]
fn a_state_directory_that_everybody_may_write_is_refused() {
    let deployment = with_manifest("world", &held());
    deployment.write(".version-backups/x", "");
    fs::set_permissions(deployment.path(".version-backups"), fs::Permissions::from_mode(0o777))
        .unwrap();
    deployment
        .dkv(["unhold", "web"])
        .exit(3)
        .stderr_contains(".version-backups")
        .stderr_contains("chmod o-w");
    assert_eq!(deployment.manifest(), held());
}

#[test]
fn a_manifest_beyond_16_mib_or_64_levels_is_refused_quickly() {
    let deployment = Deployment::new("huge");
    let file = File::create(deployment.path("version-manifest.yaml")).unwrap();
    file.set_len(100 * 1024 * 1024).unwrap();
    let outcome = deployment.dkv(["version"]).exit(3);
    outcome.stderr_contains("16 MiB");
    deployment.write(
        "version-manifest.yaml",
        &format!("a: {}{}\n", "[".repeat(100_000), "]".repeat(100_000)),
    );
    let outcome = deployment.dkv(["version"]).exit(3);
    assert!(outcome.elapsed.as_secs() < 10, "{outcome}");
    let bomb: String = (1..9)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")))
        .collect();
    deployment.write("version-manifest.yaml", &format!("a0: &a0 x\n{bomb}services: {{}}\n"));
    let outcome = deployment.dkv(["version"]).finish();
    assert!(outcome.elapsed.as_secs() < 2, "{outcome}");
}

#[test]
fn the_deployment_is_where_c_or_manifest_say() {
    let deployment = Deployment::new("where");
    deployment.write("prod/version-manifest.yaml", &held());
    deployment.write("prod/other.yaml", &held().replace("'1.0'", "'2.0'"));
    deployment
        .dkv(["version"])
        .exit(3)
        .stderr_contains("version-manifest.yaml")
        .stderr_contains("migrate-versions");
    deployment.dkv(["-C", "prod", "version"]).exit(0).stdout_contains("1.0");
    deployment
        .dkv(["version", "-C", "prod", "--manifest", "other.yaml"])
        .exit(0)
        .stdout_contains("2.0");
    deployment.dkv(["--manifest", "prod/other.yaml", "generate-env"]).exit(0);
    assert!(deployment.read("prod/versions.env").contains("DK_WEB_TAG=2.0@"));
    assert!(
        deployment.read("prod/versions.env").contains("other.yaml"),
        "the header names the manifest"
    );
    deployment.dkv(["-C", "prod", "--manifest", "other.yaml", "unhold", "web"]).exit(0);
    assert!(
        deployment.list("prod/.version-backups").iter().any(|name| name.starts_with("other.yaml."))
    );
    assert_eq!(deployment.read("prod/version-manifest.yaml"), held());
    deployment.dkv(["-C", "nowhere", "version"]).exit(2).stderr_contains("nowhere");
}

#[test]
fn what_real_deployments_hold_is_tolerated() {
    let text = format!(
        "services:\n  web:\n    image: localhost/web\n    current_tag: '1.9'\n    image_digest: \
            {a}\nhistory:\n  web:\n  - {{tag: '1.9', status: current}}\n  - {{tag: '1.8', status: \
            current}}\n{older}  ghost: anything\n",
        a = digest('a'),
        older = (1..8)
            .rev()
            .map(|n| format!("  - {{tag: '1.{n}', status: archived}}\n"))
            .collect::<String>()
    );
    let deployment = with_manifest("tolerant", &text);
    let outcome = deployment.dkv(["version-history", "--json"]).exit(0);
    outcome.stderr_contains("more than one history entry is `current`");
    let releases = outcome.json()["services"][0]["releases"].clone();
    assert_eq!(releases[0]["status"], "current");
    assert_eq!(releases[1]["status"], "previous");
    assert_eq!(releases.as_array().unwrap().len(), 9, "a longer history is shown");
    for text in [
        "schema_version: '1.1'\nservices: {}\n",
        "services:\n",
        "schema_version: 1.1\nservices:\n  web:\n",
    ] {
        deployment.write("version-manifest.yaml", text);
        deployment.dkv(["version"]).exit(0);
        deployment.dkv(["generate-env"]).exit(0);
    }
}

#[test]
fn what_is_written_reads_back_as_the_same_text() {
    let registry = Registry::start();
    let tags = [
        "1.50",
        "1e3",
        "0x10",
        "null",
        "true",
        "no",
        "2024-01-01",
        "0o7",
        "1_000",
        "on",
        "NaN",
        "007",
    ];
    let mut image = Image::new("web").version("one");
    for tag in tags {
        image = image.tag(tag);
    }
    registry.push(image);
    let deployment = Deployment::new("texts");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let reasons = [
        "it's \"quoted\": #1",
        "two\nlines",
        " padded ",
        "- dash",
        "null",
        "yes",
        "@at",
        "tab\there",
        "é ☃",
        "{a: b}",
        "%x",
        "\u{1b}[31m",
    ];
    for (tag, reason) in tags.into_iter().zip(reasons) {
        let user = format!("{reason}$(x)");
        deployment
            .dkv(["version-set", "web", tag, &format!("--reason={reason}"), "--no-pull"])
            .env("USER", &user)
            .exit(0);
        let data = deployment.manifest_data();
        assert_eq!(data["services"]["web"]["current_tag"], tag, "{}", deployment.manifest());
        assert_eq!(data["history"]["web"][0]["tag"], tag, "{}", deployment.manifest());
        assert_eq!(
            data["custom_overrides"]["web"]["reason"],
            reason.trim(),
            "{}",
            deployment.manifest()
        );
        assert_eq!(deployment.dkv(["version", "--json"]).exit(0).json()["services"][0]["tag"], tag);
        assert!(deployment.versions_env().contains(&format!("DK_WEB_TAG={tag}@")));
    }
}

#[test]
fn an_edit_through_an_anchor_an_alias_or_a_merge_key_is_refused_at_its_place() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest"));
    let image = registry.repository("web");
    let texts = [
        format!(
            "x: &base {{image: {image}, held: true, current_tag: '1'}}\nservices:\n  web: *base\n"
        ),
        format!(
            "x: &base {{image: {image}, held: true}}\nservices:\n  web:\n    <<: *base\n    \
                current_tag: '1'\n"
        ),
        format!(
            "services:\n  web:\n    image: {image}\n    held: &yes true\n    x: *yes\n    \
                current_tag: '1'\n"
        ),
    ];
    for text in texts {
        let deployment = with_manifest("alias", &text);
        let outcome = deployment.dkv(["unhold", "web"]).finish();
        if outcome.code() == Some(0) {
            // Edited all the same, it must mean what was intended and nothing else.
            let after: serde_json::Value = deployment.dkv(["version", "--json"]).exit(0).json();
            assert_eq!(after["services"][0]["held"], false, "{text}\n{}", deployment.manifest());
        } else {
            assert_eq!(outcome.code(), Some(3), "{outcome}");
            outcome.stderr_contains("line ");
            assert_eq!(deployment.manifest(), text);
            assert!(!deployment.exists("versions.env"));
        }
    }
}

#[test]
fn what_stands_in_the_way_of_a_file_is_refused_before_anything_is_written() {
    let deployment = with_manifest("way", &held());
    fs::create_dir(deployment.path("versions.env")).unwrap();
    deployment.dkv(["unhold", "web"]).exit(3).stderr_contains("versions.env");
    assert_eq!(deployment.manifest(), held());
    fs::remove_dir(deployment.path("versions.env")).unwrap();
    fs::remove_dir_all(deployment.path(".version-backups")).unwrap();
    deployment.write(".version-backups", "a file");
    deployment.dkv(["unhold", "web"]).exit(3).stderr_contains(".version-backups");
    assert_eq!(deployment.manifest(), held());
    fs::remove_file(deployment.path(".version-backups")).unwrap();
    // What a killed run left is in nobody's way, and a link in its place is not followed.
    symlink("/etc/passwd", deployment.path(".version-manifest.yaml.dkv-new")).unwrap();
    deployment.dkv(["unhold", "web"]).exit(0);
    assert!(!deployment.manifest().contains("held: true"));
    assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root:"));
}

#[test]
fn of_our_own_backups_fifty_stay_and_others_are_left_alone() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1").version("one"));
    registry.push(Image::new("web").tag("2").version("two"));
    let deployment = Deployment::new("fifty");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.write(".version-backups/version-manifest.yaml.20200101000000", "the old tool's");
    for number in 0..53 {
        let tag = if number % 2 == 0 { "1" } else { "2" };
        deployment
            .dkv(["version-pull", "web", tag, "--no-pull"])
            .env("DKV_NOW", "2026-01-12T12:29:08Z")
            .exit(0);
    }
    let backups: Vec<String> = deployment
        .list(".version-backups")
        .into_iter()
        .filter(|name| name.starts_with("version-manifest.yaml."))
        .collect();
    assert_eq!(backups.len(), 51, "{backups:?}");
    assert_eq!(
        deployment.read(".version-backups/version-manifest.yaml.20200101000000"),
        "the old tool's"
    );
}

/// What is written by hand under a service means the release that it names; what names none is told
/// by everybody until a registry has been asked.
#[test]
fn edits_of_tag_and_digest_by_hand_mean_releases() {
    let registry = Registry::start();
    let deployment = Deployment::new("byhand");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let mut digests = Vec::new();
    for version in ["1.0", "1.1"] {
        digests.push(registry.push(Image::new("web").tag(version).tag("latest")).digest);
        deployment.dkv(["pull-latest"]).exit(0);
    }
    let (old, new) = (digests[0].as_str(), digests[1].as_str());
    let written = deployment.manifest();
    let edit = |tag: &str, digest: &str| {
        let lines = written.lines().map(|line| match line.trim().split_once(": ") {
            Some(("current_tag", _)) => format!("    current_tag: '{tag}'\n"),
            Some(("image_digest", _)) => format!("    image_digest: '{digest}'\n"),
            _ => format!("{line}\n"),
        });
        deployment.write("version-manifest.yaml", &lines.collect::<String>());
    };
    let engine = deployment.engine();
    for (tag, digest) in [("1.0", new), ("1.0", old), ("1.0", "")] {
        deployment.write("version-manifest.yaml", &written);
        deployment.dkv(["up", "--no-wait"]).exit(0);
        edit(tag, digest);
        deployment.dkv(["version", "web"]).exit(0).stdout_contains(&old[7..19]);
        deployment.dkv(["up", "--no-wait"]).exit(0);
        assert_eq!(engine.version(deployment.project(), "web"), "1.0", "{tag} {digest}");
    }
    // The bytes stay, under another name.
    edit("1.1-lts", new);
    deployment.dkv(["generate-env"]).exit(0).stderr_contains("is called 1.1-lts now");
    let env = deployment.versions_env();
    assert!(env.contains(&format!("DK_WEB_TAG=1.1-lts@{new}\n")), "{env}");

    let next = registry.push(Image::new("web").tag("1.2"));
    edit("1.2", "");
    let told = "whose digest is not known; `dkv version-pull web 1.2` records it";
    for command in [&["version"][..], &["check-updates"], &["verify"], &["generate-env"]] {
        deployment.dkv(command.iter().copied()).finish().stderr_contains(told);
    }
    deployment.dkv(["verify"]).exit(10);
    let hint = ["version-pull", "web", "1.2"];
    deployment.dkv(hint).exit(0).stdout_contains(&next.digest[7..19]);
    deployment.dkv(["generate-env"]).exit(0).stderr_lacks("not known");
    let web = deployment.manifest_data()["history"]["web"].clone();
    assert_eq!(web.as_array().unwrap().len(), 3, "{web}");
}
