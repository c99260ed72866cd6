//! The examples: read, run and tried with values that nobody should give them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Deployment, program};

/// Writes down each argument of a call on a line of its own, then a blank line.
const RECORDER: &str =
    "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done >>calls\necho >>calls\n";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn read(name: &str) -> String {
    fs::read_to_string(examples().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A copy of an example's directory.
fn copy_of(name: &str) -> Deployment {
    let deployment = Deployment::new("example");
    for entry in fs::read_dir(examples().join(name)).unwrap() {
        let entry = entry.unwrap();
        deployment
            .write(entry.file_name().to_str().unwrap(), &fs::read_to_string(entry.path()).unwrap());
    }
    deployment
}

fn deployments() -> Vec<String> {
    let entries = fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap());
    let with_manifest =
        entries.filter(|entry| entry.path().join("version-manifest.yaml").is_file());
    with_manifest.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn every_example_manifest_is_read_and_makes_an_env() {
    let names = deployments();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        let deployment = copy_of(&name);
        deployment.dkv(["version"]).exit(0);
        deployment.dkv(["generate-env"]).exit(0);
    }
    let full = Deployment::new("example");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("version-manifest.example.yaml");
    full.write("version-manifest.yaml", &fs::read_to_string(manifest).unwrap());
    full.dkv(["version"]).exit(0).stdout_contains("req_router");
}

#[test]
fn both_composes_take_every_example_file() {
    for name in deployments() {
        let deployment = copy_of(&name);
        let files =
            deployment.list(".").into_iter().filter(|file| file.starts_with("docker-compose"));
        for file in files {
            deployment.compose_v2(["-f", file.as_str(), "config", "-q"]).exit(0);
            // The old Compose knows no `name:`.
            if !deployment.read(&file).contains("\nname:") {
                deployment.compose_v1(["-f", file.as_str(), "config", "-q"]).exit(0);
            }
        }
    }
}

/// A directory with the example's Makefile and a dkv that writes down how it is called.
fn makefile() -> Deployment {
    let deployment = Deployment::new("makefile");
    deployment.write("Makefile", &read("Makefile"));
    deployment.install("dkv", RECORDER);
    deployment
}

/// The calls that `make` with these arguments makes, as lists of words.
fn calls(deployment: &Deployment, args: &[&str]) -> Vec<Vec<String>> {
    let _ = fs::remove_file(deployment.path("calls"));
    deployment.command(&program("make"), ["-s"].into_iter().chain(args.iter().copied())).exit(0);
    let text = deployment.read("calls");
    text.trim_end_matches("\n\n")
        .split("\n\n")
        .map(|call| call.split('\n').map(str::to_owned).collect())
        .collect()
}

#[test]
fn every_target_of_the_guide_is_one_dkv_command() {
    let deployment = makefile();
    for (args, expected) in [
        ("pull", "pull -- "),
        ("pull-latest", "pull-latest -- "),
        ("pull-latest SERVICE=settings", "pull-latest -- settings"),
        ("up", "up"),
        ("updb", "updb"),
        ("down", "down"),
        ("restart", "restart"),
        ("start", "start"),
        ("stop", "stop"),
        ("build", "build"),
        ("update", "update"),
        ("update-safe", "update-safe"),
        ("resolve-tags", "resolve-tags -- "),
        ("generate-env", "generate-env"),
        ("migrate-versions", "migrate-versions"),
        ("migrate-versions YES=1", "migrate-versions --yes"),
        ("status", "status"),
        ("logs", "logs -- "),
        ("logs-today", "logs-today -- "),
        ("dblogs-today", "dblogs-today -- "),
        ("dblogs-errors", "dblogs-errors -- "),
        ("version", "version -- "),
        ("version-history", "version-history -- "),
        ("version-history SERVICE=req_router", "version-history -- req_router"),
        ("check-updates", "check-updates -- "),
        ("help-version", "help-version"),
        ("rollback", "rollback -- "),
        ("rollback YES=1", "rollback --yes -- "),
        ("rollback SERVICE=taskservice YES=1", "rollback --yes -- taskservice"),
        ("rollback YES=yes", "rollback --yes -- "),
        ("rollback YES=0", "rollback -- "),
        ("rollback YES=no", "rollback -- "),
        ("rollback-service SERVICE=taskservice YES=false", "rollback-service -- taskservice"),
        ("resolve-tags SERVICE=taskservice", "resolve-tags -- taskservice"),
        ("rollback-service SERVICE=taskservice", "rollback-service -- taskservice"),
        ("rollback-to SERVICE=taskservice TAG=1.41", "rollback-to -- taskservice 1.41"),
        ("version-pull SERVICE=taskservice TAG=1.42", "version-pull -- taskservice 1.42"),
        (
            "version-set SERVICE=req_router TAG=1.35-hotfix-customer123",
            "version-set -- req_router 1.35-hotfix-customer123",
        ),
        ("verify", "verify"),
        ("pin-check", "pin --check"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let made = calls(&deployment, &args);
        let expected: Vec<&str> = expected.split(' ').collect();
        assert_eq!(made, [expected], "make {args:?}");
    }
}

#[test]
fn whatever_is_given_for_service_and_tag_reaches_dkv_as_it_is() {
    let deployment = makefile();
    // The shell's own means, because `PATH` holds next to nothing here.
    for nasty in [
        "$(: >canary)",
        "$(shell : >canary)",
        "${shell : >canary}",
        "$$(: >canary)",
        "`: >canary`",
        ";: >canary",
        "x;: >canary;",
        "\"; : >canary; \"",
        "'; : >canary; '",
        "a b",
        "$HOME",
        "$$HOME",
        "--help",
        "*",
        "# no comment",
        "\\",
    ] {
        let args = [format!("SERVICE={nasty}"), format!("TAG={nasty}"), format!("REASON={nasty}")];
        let made = calls(&deployment, &["version-set", &args[0], &args[1], &args[2]]);
        assert_eq!(
            made,
            [["version-set", &format!("--reason={nasty}"), "--", nasty, nasty]],
            "{nasty}"
        );
        for target in ["rollback", "rollback-service"] {
            let made = calls(&deployment, &[target, &args[0], &args[1], &format!("YES={nasty}")]);
            assert_eq!(made, [[target, "--", nasty]], "{nasty} is no yes");
        }
        // What is about everything is not done for somebody who named one service.
        for target in ["down", "restart", "migrate-versions"] {
            let _ = fs::remove_file(deployment.path("calls"));
            deployment
                .command(&program("make"), ["-s", target, &args[0]])
                .exit(2)
                .stderr_contains("takes no SERVICE");
            assert!(!deployment.exists("calls"), "{target} {nasty}");
        }
        assert!(!deployment.exists("canary"), "{nasty}");
    }
    // A script's empty variable does not come to mean every service.
    for given in ["SERVICE=", "SERVICE= "] {
        let _ = fs::remove_file(deployment.path("calls"));
        deployment
            .command(&program("make"), ["-s", "rollback", "YES=1", given])
            .exit(2)
            .stderr_contains("SERVICE is empty");
        assert!(!deployment.exists("calls"), "{given:?}");
    }
    // The real dkv refuses what is no tag.
    let refused = deployment.dkv(["version-pull", "--", "web", "$(: >canary)"]).exit(2);
    refused.stderr_contains("is not a valid tag");
}

/// Every `dkv …` in the text, up to the end of its command.
fn dkv_commands(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let calls = lines.filter_map(|line| {
        let (before, call) = line.split_once("dkv ")?;
        let is_a_call = before.is_empty() || before.ends_with('/') || before.ends_with("run: ");
        let words = call.split([' ', '>', '|']).take_while(|word| !word.is_empty());
        is_a_call.then(|| words.map(str::to_owned).collect())
    });
    calls.collect()
}

#[test]
fn the_unit_and_the_workflow_call_commands_that_there_are() {
    let deployment = Deployment::new("example");
    for (file, count) in [("systemd/dkv-deployment.service", 3), ("ci/versions.yml", 5)] {
        let commands = dkv_commands(&read(file));
        assert_eq!(commands.len(), count, "{file}: {commands:?}");
        for command in commands {
            let words = command.iter().map(String::as_str).chain(["--help"]);
            deployment.dkv(words).exit(0);
        }
    }
}

#[test]
fn the_workflow_has_no_more_rights_than_it_needs() {
    let workflow: serde_json::Value = serde_yaml::from_str(&read("ci/versions.yml")).unwrap();
    assert_eq!(workflow["permissions"], serde_json::json!({}));
    assert_eq!(workflow["jobs"]["check"]["permissions"], serde_json::json!({"contents": "read"}));
    let shell = program("sh");
    for job in workflow["jobs"].as_object().unwrap().values() {
        for step in job["steps"].as_array().unwrap() {
            if let Some(action) = step["uses"].as_str() {
                let (_, commit) = action.split_once('@').unwrap();
                assert!(
                    commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()),
                    "{action} is not pinned"
                );
            }
            if let Some(script) = step["run"].as_str() {
                assert!(!script.contains("${{"), "an expression in a script: {script}");
                Deployment::new("example").command(&shell, ["-n", "-c", script]).exit(0);
            }
        }
    }
}
