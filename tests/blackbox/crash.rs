//! Killed before every system call that touches the deployment, and every such call failing in
//! every way that a disk can: the manifest is always whole, old or new, and the next run carries
//! on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Deployment, Outcome, Run, wait_for};

/// What changes the disk, wherever that is.
const CHANGES: [&str; 9] =
    ["write", "fsync", "rename", "unlink", "fchmod", "fchown", "mkdir", "flock", "ftruncate"];

/// What looks at the deployment; elsewhere it is the loader's business.
const LOOKS: [&str; 5] = ["openat", "read", "statx", "close", "getdents64"];

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

/// A command that writes, and the files that it writes.
pub(crate) struct Change {
    pub(crate) deployment: Deployment,
    arguments: Vec<&'static str>,
    before: Files,
    after: Files,
}

type Files = BTreeMap<&'static str, String>;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dkv {}", self.arguments.join(" "))
    }
}

impl Change {
    /// `files` are what the command writes, as they are now.
    fn of(
        deployment: Deployment,
        arguments: &[&'static str],
        files: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let names: Vec<&str> = files.into_iter().collect();
        let read = |deployment: &Deployment| -> Files {
            names.iter().map(|name| (*name, deployment.read(name))).collect()
        };
        let before = read(&deployment);
        deployment.dkv(arguments.iter().copied()).exit(0);
        let after = read(&deployment);
        assert_ne!(before, after);
        Self { deployment, arguments: arguments.to_vec(), before, after }
    }

    /// A change of the manifest that takes no network and no daemon.
    pub(crate) fn unhold() -> Self {
        let deployment = Deployment::new("crash");
        deployment.write("version-manifest.yaml", BEFORE);
        deployment.dkv(["generate-env"]).exit(0);
        Self::of(deployment, &["unhold", "api"], ["version-manifest.yaml", "versions.env"])
    }

    /// A change of two Compose files and of what is remembered of them.
    pub(crate) fn pin() -> Self {
        let deployment = Deployment::new("crash-pin");
        deployment.write("version-manifest.yaml", BEFORE);
        let line = |name: &str, tag: &str| {
            format!("services:\n  {name}:\n    image: registry.example/{name}:{tag} # ours\n")
        };
        deployment.write("docker-compose.yml", &line("api", "1.0"));
        deployment.write("db-docker-compose.yml", &line("web", "2.0"));
        deployment.dkv(["pin"]).exit(0);
        deployment.dkv(["pin", "--unpin"]).exit(0);
        let files = ["docker-compose.yml", "db-docker-compose.yml"];
        Self::of(deployment, &["pin"], files)
    }

    pub(crate) fn run(&self) -> Run {
        self.deployment.dkv(self.arguments.iter().copied())
    }

    pub(crate) fn reset(&self) {
        for (name, text) in &self.before {
            self.deployment.write(name, text);
        }
    }

    /// Whether these files are those that the command makes.
    pub(crate) fn is_after(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
        self.after.iter().all(|(name, text)| {
            files.get(&self.deployment.path(name)).is_some_and(|bytes| bytes == text.as_bytes())
        })
    }

    /// Runs it with `injection` on the `number`th `call`, wherever that is; or only where it touches
    /// the deployment, because elsewhere it is no matter of the state.
    fn inject(&self, call: &str, injection: &str, number: usize, only_here: bool) -> Outcome {
        let mut arguments =
            vec!["-f".to_owned(), "-qq".to_owned(), "-e".to_owned(), format!("trace={call}")];
        arguments.extend(["-e".to_owned(), format!("inject={call}:{injection}:when={number}")]);
        if only_here {
            let state = [".", ".version-backups", ".version-backups/.state.lock"];
            let files = ["version-manifest.yaml", "versions.env"];
            let own = [
                ".version-backups/.dkv-backups",
                ".version-backups/operations.jsonl",
                ".version-backups/pins.json",
            ];
            let files = files.into_iter().chain(own).chain(self.before.keys().copied());
            for path in state.into_iter().chain(files.clone()) {
                arguments
                    .extend(["-P".to_owned(), self.deployment.path(path).display().to_string()]);
            }
            for file in files {
                let path = self.deployment.path(file);
                let name = format!(".{}.dkv-new", path.file_name().unwrap().to_str().unwrap());
                let path = path.with_file_name(name);
                arguments.extend(["-P".to_owned(), path.display().to_string()]);
            }
        }
        self.run().under_strace(arguments.iter().map(String::as_str)).finish()
    }

    /// Every file is whole, and the next run brings everything in order.
    pub(crate) fn check(&self, what: &str) {
        for (name, before) in &self.before {
            let text = self.deployment.read(name);
            assert!(
                text == *before || text == self.after[name],
                "{what}: {name} is neither old nor new:\n{text}"
            );
        }
        self.deployment.dkv(["version"]).exit(0);
        self.deployment.dkv(["generate-env"]).exit(0);
        let env = self.deployment.versions_env();
        assert!(
            env.contains("DK_API_TAG=1.0@sha256:1111")
                && env.contains("DK_WEB_TAG=2.0@sha256:2222"),
            "{what}: {env}"
        );
        self.run().exit(0);
        for (name, after) in &self.after {
            assert_eq!(self.deployment.read(name), *after, "{what}: the next run, {name}");
        }
        let left: Vec<String> =
            self.deployment.list(".").into_iter().filter(|name| name.contains("dkv-")).collect();
        assert!(left.is_empty(), "{what}: left behind: {left:?}");
    }

    fn killed_anywhere(&self) -> usize {
        let mut killed = 0;
        for call in CHANGES.into_iter().chain(LOOKS) {
            for number in 1.. {
                self.reset();
                let outcome = self.inject(call, "signal=KILL", number, LOOKS.contains(&call));
                if outcome.code() == Some(0) {
                    break;
                }
                assert!(
                    !outcome.strace.contains("exited with"),
                    "{call} {number}: not killed\n{}",
                    outcome.strace
                );
                killed += 1;
                self.check(&format!("{self} killed at {call} {number}"));
            }
        }
        eprintln!("{self}: killed at {killed} places");
        killed
    }

    fn failing_anywhere(&self) -> usize {
        let mut failed = 0;
        for call in ["openat", "write", "fsync", "rename", "fchmod", "mkdir", "ftruncate", "statx"]
        {
            for error in ["ENOSPC", "EIO", "EROFS", "EACCES"] {
                for number in 1.. {
                    self.reset();
                    let outcome = self.inject(call, &format!("error={error}"), number, true);
                    let what = format!("{self}: {call} {number} fails with {error}");
                    if !outcome.strace.contains("INJECTED") {
                        assert_eq!(outcome.code(), Some(0), "{what}: {}", outcome.strace);
                        break;
                    }
                    if outcome.code() == Some(0) {
                        for (name, after) in &self.after {
                            let done = self.deployment.read(name);
                            assert_eq!(done, *after, "{what}: done, it said of {name}");
                        }
                    } else {
                        assert_eq!(outcome.code(), Some(3), "{what}: {outcome}");
                        failed += 1;
                    }
                    self.check(&what);
                }
            }
        }
        eprintln!("{self}: failed in {failed} ways");
        failed
    }
}

#[test]
fn killed_before_every_call_the_state_is_old_or_new_and_the_next_run_carries_on() {
    let killed = Change::unhold().killed_anywhere();
    assert!(killed >= 30, "only {killed} places were tried");
}

#[test]
fn killed_before_every_call_pin_leaves_whole_files_and_the_next_run_carries_on() {
    let killed = Change::pin().killed_anywhere();
    assert!(killed >= 30, "only {killed} places were tried");
}

#[test]
fn a_failing_disk_is_never_called_done() {
    let failed = Change::unhold().failing_anywhere();
    assert!(failed >= 30, "only {failed} failures were tried");
}

#[test]
fn a_disk_that_fails_is_never_called_done_by_pin() {
    let failed = Change::pin().failing_anywhere();
    assert!(failed >= 30, "only {failed} failures were tried");
}

#[test]
fn an_interrupted_call_changes_nothing() {
    let change = Change::unhold();
    for call in ["openat", "read", "write", "flock"] {
        for number in 1..=4 {
            change.reset();
            let outcome = change.inject(call, "error=EINTR", number, true);
            assert!(matches!(outcome.code(), Some(0 | 3)), "{call} {number}: {:?}", outcome.code());
            change.check(&format!("{call} {number} is interrupted"));
        }
    }
}

#[test]
fn an_edit_in_the_last_moment_is_kept() {
    let change = Change::unhold();
    change.reset();
    let slow = ["-f", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=500000"];
    let running = change.run().under_strace(slow).spawn();
    wait_for("the new manifest beside the old one", Duration::from_secs(60), || {
        change.deployment.exists(".version-manifest.yaml.dkv-new").then_some(())
    });
    let edited = BEFORE.replace("# ours", "# edited by hand");
    change.deployment.write("version-manifest.yaml", &edited);
    running.exit(3).stderr_contains("was changed while this command ran");
    assert_eq!(change.deployment.manifest(), edited);
    assert!(!change.deployment.exists(".version-manifest.yaml.dkv-new"));
}
