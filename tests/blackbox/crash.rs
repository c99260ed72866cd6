//! Killed before every system call that touches the deployment, and every such call failing in
//! every way that a disk can: the manifest is always whole, old or new, and the next run carries
//! on.

use crate::support::{Deployment, Outcome};

/// What a write of the state goes through.
const CALLS: [&str; 14] = [
    "openat",
    "read",
    "write",
    "fsync",
    "rename",
    "unlink",
    "fchmod",
    "fchown",
    "mkdir",
    "flock",
    "ftruncate",
    "statx",
    "close",
    "getdents64",
];

/// A comment, an unknown key and two services: all must be there afterwards, whatever happens.
const BEFORE: &str = "# ours
schema_version: '1.1'
site: 'Zürich' # unknown to dkv
services:
  api:
    image: registry.example/api
    held: true
    current_tag: '1.0'
    image_digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
  web:
    image: registry.example/web
    current_tag: '2.0'
    image_digest: sha256:2222222222222222222222222222222222222222222222222222222222222222
history:
  api:
  - {tag: '1.0', digest: \
  'sha256:1111111111111111111111111111111111111111111111111111111111111111', status: current}
  - {tag: '0.9', digest: \
  'sha256:3333333333333333333333333333333333333333333333333333333333333333', status: previous}
  web:
  - {tag: '2.0', digest: \
  'sha256:2222222222222222222222222222222222222222222222222222222222222222', status: current}
";

fn after() -> String {
    BEFORE.replace("    held: true\n", "")
}

/// A deployment whose one change is `dkv unhold api`, which takes no network and no daemon.
fn deployment() -> Deployment {
    let deployment = Deployment::new("crash");
    deployment.write("version-manifest.yaml", BEFORE);
    deployment.dkv(["generate-env"]).exit(0);
    deployment
}

fn reset(deployment: &Deployment) {
    deployment.write("version-manifest.yaml", BEFORE);
}

/// Runs the change with `injection` on the `number`th `call` that touches the deployment.
fn inject(deployment: &Deployment, call: &str, injection: &str, number: usize) -> Outcome {
    let paths = [".", "version-manifest.yaml", "versions.env", ".version-backups"];
    let mut arguments =
        vec!["-f".to_owned(), "-qq".to_owned(), "-e".to_owned(), format!("trace={call}")];
    arguments.extend(["-e".to_owned(), format!("inject={call}:{injection}:when={number}")]);
    for path in paths {
        arguments.extend(["-P".to_owned(), deployment.path(path).display().to_string()]);
    }
    for temporary in
        [".version-manifest.yaml.dkv-new", ".versions.env.dkv-new", ".version-backups/.state.lock"]
    {
        arguments.extend(["-P".to_owned(), deployment.path(temporary).display().to_string()]);
    }
    deployment.dkv(["unhold", "api"]).under_strace(arguments.iter().map(String::as_str)).finish()
}

/// The state is whole, and the next run brings everything in order.
fn check(deployment: &Deployment, what: &str) {
    let manifest = deployment.manifest();
    assert!(manifest == BEFORE || manifest == after(), "{what}: neither old nor new:\n{manifest}");
    deployment.dkv(["version"]).exit(0);
    deployment.dkv(["generate-env"]).exit(0);
    let env = deployment.versions_env();
    assert!(
        env.contains("DK_API_TAG=1.0@sha256:1111") && env.contains("DK_WEB_TAG=2.0@sha256:2222"),
        "{what}: {env}"
    );
    deployment.dkv(["unhold", "api"]).exit(0);
    assert_eq!(deployment.manifest(), after(), "{what}: the next run");
    let left: Vec<String> =
        deployment.list(".").into_iter().filter(|name| name.contains("dkv-")).collect();
    assert!(left.is_empty(), "{what}: left behind: {left:?}");
}

#[test]
fn killed_before_every_call_the_state_is_old_or_new_and_the_next_run_carries_on() {
    let deployment = deployment();
    let mut killed = 0;
    for call in CALLS {
        for number in 1.. {
            reset(&deployment);
            let outcome = inject(&deployment, call, "signal=KILL", number);
            if outcome.code() == Some(0) {
                break;
            }
            assert!(
                !outcome.strace.contains("exited with"),
                "{call} {number}: not killed\n{}",
                outcome.strace
            );
            killed += 1;
            check(&deployment, &format!("killed at {call} {number}"));
        }
    }
    println!("killed at {killed} places");
    assert!(killed >= 30, "only {killed} places were tried");
}

#[test]
fn a_failing_disk_is_never_called_done() {
    let deployment = deployment();
    let mut failed = 0;
    for call in ["openat", "write", "fsync", "rename", "fchmod", "mkdir", "ftruncate"] {
        for error in ["ENOSPC", "EIO", "EROFS", "EACCES"] {
            for number in 1.. {
                reset(&deployment);
                let outcome = inject(&deployment, call, &format!("error={error}"), number);
                if !outcome.strace.contains("INJECTED") {
                    assert_eq!(
                        outcome.code(),
                        Some(0),
                        "{call} {error} {number}: {}",
                        outcome.strace
                    );
                    break;
                }
                let what = format!("{call} {number} fails with {error}");
                if outcome.code() == Some(0) {
                    assert_eq!(deployment.manifest(), after(), "{what}: done, it said");
                } else {
                    assert_eq!(outcome.code(), Some(3), "{what}");
                    failed += 1;
                }
                check(&deployment, &what);
            }
        }
    }
    println!("failed in {failed} ways");
    assert!(failed >= 30, "only {failed} failures were tried");
}

#[test]
fn an_interrupted_call_changes_nothing() {
    let deployment = deployment();
    for call in ["openat", "read", "write", "flock"] {
        for number in 1..=4 {
            reset(&deployment);
            let outcome = inject(&deployment, call, "error=EINTR", number);
            assert!(matches!(outcome.code(), Some(0 | 3)), "{call} {number}: {:?}", outcome.code());
            check(&deployment, &format!("{call} {number} is interrupted"));
        }
    }
}
