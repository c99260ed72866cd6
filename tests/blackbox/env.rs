//! `versions.env`: the bytes, who can read them, and what is said about a file that is not as it
//! should be.

use std::fs;
use std::path::Path;

use crate::support::{Deployment, program};

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn manifest() -> String {
    format!(
        "schema_version: '1.1'\nservices:\n  req_router:\n    image: localhost/req_router\n    \
            held: true\n    current_tag: '1.64'\n    image_digest: {}\n  conv-mgr: {{image: \
            'localhost:5000/conv_mgr', current_tag: latest}}\n",
        digest('a')
    )
}

fn deployment(text: &str) -> Deployment {
    let deployment = Deployment::new("env");
    deployment.write("version-manifest.yaml", text);
    deployment
}

#[test]
fn one_manifest_gives_the_same_bytes_anywhere_and_needs_neither_daemon_nor_network() {
    let first = deployment(&manifest());
    first.dkv(["generate-env"]).env("DOCKER_HOST", "unix:///nonexistent").exit(0);
    let text = first.versions_env();
    let second = deployment(&manifest());
    let unshare = program("unshare");
    second
        .command(&unshare, ["--net", env!("CARGO_BIN_EXE_dkv"), "generate-env"])
        .faketime("@2031-01-01 00:00:00")
        .exit(0);
    assert_eq!(second.versions_env(), text);
    let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(header.iter().any(|line| line.contains("version-manifest.yaml")), "{text}");
    assert!(
        !text.contains('\r') && !text.starts_with('\u{feff}') && text.ends_with('\n'),
        "{text:?}"
    );
    let assignments: Vec<&str> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(
        assignments,
        [
            "DK_REQ_ROUTER_IMAGE=localhost/req_router",
            &format!("DK_REQ_ROUTER_TAG=1.64@{}", digest('a')),
            "DK_CONV_MGR_IMAGE=localhost:5000/conv_mgr",
            "DK_CONV_MGR_TAG=latest",
        ]
    );
    let before = fs::metadata(first.path("versions.env")).unwrap().modified().unwrap();
    first.dkv(["generate-env"]).exit(0).stderr_contains("up to date");
    assert_eq!(
        fs::metadata(first.path("versions.env")).unwrap().modified().unwrap(),
        before,
        "unchanged means untouched"
    );
}

#[test]
fn dash_and_bash_source_it_and_a_crlf_manifest_does_not_matter() {
    let deployment = deployment(&format!("\u{feff}{}", manifest().replace('\n', "\r\n")));
    deployment.dkv(["generate-env"]).exit(0);
    for shell in ["/bin/dash", "/bin/bash"] {
        let script = "set -eu; set -a; . ./versions.env; set +a; env | grep ^DK_ | sort";
        let path = std::env::var("PATH").unwrap();
        let outcome =
            deployment.command(Path::new(shell), ["-c", script]).env("PATH", path).exit(0);
        let expected = format!(
            "DK_CONV_MGR_IMAGE=localhost:5000/conv_mgr\nDK_CONV_MGR_TAG=latest\nDK_REQ_ROUTER_IMAGE=localhost/req_router\nDK_REQ_ROUTER_TAG=1.64@{}\n",
            digest('a')
        );
        assert_eq!(outcome.stdout, expected, "{shell}");
    }
}

#[test]
fn nothing_that_a_shell_would_obey_gets_in() {
    let deployment = deployment("");
    let bad = [
        "$(touch canary)",
        "`touch canary`",
        "1;touch canary",
        "1\\ntouch canary",
        "a b",
        "'",
        "..",
        "-x",
        "1&",
        "é",
        "1\\u2028",
    ];
    for value in bad {
        for text in [
            format!("services:\n  web:\n    image: localhost/web\n    current_tag: \"{value}\"\n"),
            format!("services:\n  web:\n    image: \"localhost/{value}\"\n    current_tag: '1'\n"),
            format!("services:\n  \"{value}\":\n    image: localhost/web\n    current_tag: '1'\n"),
            format!(
                "ecr: {{registry: \"{value}\", repository_alias: x}}\nservices:\n  web:\n    \
                    current_tag: '1'\n"
            ),
            format!(
                "ecr: {{repository_alias: \"{value}\"}}\nservices:\n  web:\n    current_tag: '1'\n"
            ),
            format!("env: {{prefix: \"{value}\"}}\nservices:\n  web:\n    current_tag: '1'\n"),
            format!("services:\n  web:\n    env_tag: \"{value}\"\n    current_tag: '1'\n"),
        ] {
            deployment.write("version-manifest.yaml", &text);
            let outcome = deployment.dkv(["generate-env"]).finish();
            if outcome.code() == Some(0) {
                let path = std::env::var("PATH").unwrap();
                let sourced = deployment
                    .command(Path::new("/bin/dash"), ["-c", "set -eu; . ./versions.env"])
                    .env("PATH", path)
                    .finish();
                assert!(
                    sourced.code() == Some(0) && !deployment.exists("canary"),
                    "{text}\n{}",
                    deployment.versions_env()
                );
                fs::remove_file(deployment.path("versions.env")).unwrap();
            } else {
                assert_eq!(outcome.code(), Some(3), "{text}: {outcome}");
                assert!(!deployment.exists("versions.env"), "{text}");
            }
        }
    }
    assert!(!deployment.exists("canary"));
}

#[test]
fn a_file_is_missing_stale_or_edited_and_an_edited_one_is_saved_first() {
    let deployment = deployment(&manifest());
    deployment.dkv(["generate-env"]).exit(0).stderr_contains("wrote");
    let current = deployment.versions_env();

    // Another manifest, the same versions: refreshed silently.
    deployment.write("version-manifest.yaml", &format!("# a comment\n{}", manifest()));
    let quiet = deployment.dkv(["generate-env", "--json"]).exit(0).json();
    assert_eq!(
        (quiet["found"].as_str(), quiet["written"].as_bool(), quiet["backup"].is_null()),
        (Some("old-header"), Some(true), true)
    );
    assert_ne!(deployment.versions_env(), current);

    deployment.write("version-manifest.yaml", &manifest().replace("'1.64'", "'1.65'"));
    let stale = deployment.dkv(["generate-env"]).exit(0);
    stale.stderr_contains("stale");
    assert!(
        !deployment.list(".version-backups").iter().any(|name| name.starts_with("versions.env."))
    );

    let edited = deployment.versions_env().replace("1.65", "1.66");
    deployment.write("versions.env", &edited);
    let outcome = deployment.dkv(["generate-env"]).exit(0);
    outcome.stderr_contains("edited by hand").stderr_contains(".version-backups/versions.env.");
    let saved = deployment
        .list(".version-backups")
        .into_iter()
        .find(|name| name.starts_with("versions.env."))
        .unwrap();
    assert_eq!(deployment.read(&format!(".version-backups/{saved}")), edited);
    assert!(deployment.versions_env().contains("1.65@"));

    // The old tool's file is another tool's, and so are bytes that are no text.
    for foreign in [&b"# Auto-generated\nexport DK_REQ_ROUTER_TAG=latest\n"[..], b"\xff\xfe"] {
        fs::write(deployment.path("versions.env"), foreign).unwrap();
        deployment.dkv(["generate-env"]).exit(0).stderr_contains(".version-backups/versions.env.");
    }
    let dry = deployment.dkv(["generate-env", "--dry-run"]).exit(0);
    dry.stdout_lacks("would");
    fs::remove_file(deployment.path("versions.env")).unwrap();
    let dry = deployment.dkv(["generate-env", "--dry-run"]).exit(0);
    dry.stdout_contains("DK_REQ_ROUTER_TAG=").stderr_contains("missing");
    assert!(!deployment.exists("versions.env"));
}

#[test]
fn settings_of_the_section_and_of_the_service_are_followed() {
    let text = manifest()
        .replace("services:", "env: {file: .versions, prefix: APP_, pin: tag}\nservices:")
        .replace("    held: true\n", "    env_tag: VERSION\n    env_image: ROUTER\n");
    let deployment = deployment(&text);
    deployment.dkv(["generate-env"]).exit(0);
    let env = deployment.read(".versions");
    for line in ["APP_REQ_ROUTER_TAG=1.64\n", "VERSION=1.64\n", "ROUTER=localhost/req_router\n"] {
        assert!(env.contains(line), "{env}");
    }
    assert!(!deployment.exists("versions.env"));
}

#[test]
fn a_collision_of_variables_names_both_services() {
    let text = "services:\n  a-b: {image: localhost/a, current_tag: '1'}\n  a_b: {image: \
        localhost/b, current_tag: '2'}\n";
    let deployment = deployment(text);
    deployment
        .dkv(["generate-env"])
        .exit(3)
        .stderr_contains("a-b")
        .stderr_contains("a_b")
        .stderr_contains("DK_A_B_");
    assert!(!deployment.exists("versions.env"));
}

#[test]
fn a_local_build_is_named_by_its_keep_tag() {
    let text = format!(
        "services:\n  bot:\n    image: whisperengine-bot\n    source: local\n    current_tag: \
            latest\nhistory:\n  bot:\n  - {{tag: latest, image_id: '{}', status: current}}\n",
        digest('b')
    );
    let deployment = deployment(&text);
    deployment.dkv(["generate-env"]).exit(0);
    let env = deployment.versions_env();
    let tag = env
        .lines()
        .find_map(|line| line.strip_prefix("DK_BOT_TAG=dkv-"))
        .unwrap_or_else(|| panic!("{env}"));
    assert!(tag.ends_with(&"b".repeat(12)), "{env}");
}

#[test]
fn a_file_that_is_a_link_stays_one() {
    let deployment = deployment(&manifest());
    deployment.write("real/versions.env", "");
    std::os::unix::fs::symlink("real/versions.env", deployment.path("versions.env")).unwrap();
    deployment.dkv(["generate-env"]).exit(0);
    assert!(deployment.path("versions.env").is_symlink());
    assert!(deployment.read("real/versions.env").contains("DK_REQ_ROUTER_TAG"));
}
