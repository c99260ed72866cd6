//! Killed before every system call that touches the deployment, and every such call failing in
//! every way that a disk can: the manifest is always whole, old or new, and the next run carries
//! on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Deployment, Image, Outcome, Registry, Run, wait_for};

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

/// The time of every run, so that a command writes the same each time.
const NOW: &str = "2026-01-12T12:29:08Z";

/// A command that writes, and the files that it writes.
pub(crate) struct Change {
    pub(crate) deployment: Deployment,
    arguments: Vec<String>,
    before: Files,
    after: Files,
    /// Both manifests, and what `versions.env` says of each.
    envs: BTreeMap<String, String>,
    /// Whether it does no more when it has been done.
    is_repeatable: bool,
    /// Whether it starts other programs, which are not to be hurt.
    has_children: bool,
    /// Where its images are.
    _registry: Option<Registry>,
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
        arguments: &[&str],
        files: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let names: Vec<&str> = files.into_iter().collect();
        let read = |deployment: &Deployment| -> Files {
            names.iter().map(|name| (*name, deployment.read(name))).collect()
        };
        let mut change = Self {
            before: read(&deployment),
            after: Files::new(),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            envs: BTreeMap::new(),
            is_repeatable: true,
            has_children: false,
            _registry: None,
            deployment,
        };
        change.run().exit(0);
        change.after = read(&change.deployment);
        assert_ne!(change.before, change.after);
        for _ in 0..2 {
            change.dkv(&["generate-env"]).exit(0);
            let deployment = &change.deployment;
            change.envs.insert(deployment.manifest(), deployment.versions_env());
            change.reset();
        }
        change
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

    /// Two services that have gone from 1.0 to 1.1, and a registry that has 1.2 too.
    fn followed(topic: &str) -> (Deployment, Registry) {
        let registry = Registry::start();
        let deployment = Deployment::new(topic);
        let services = ["api", "web"].map(|name| (name, registry.repository(name)));
        deployment.write_product(&services);
        for version in ["1.0", "1.1", "1.2"] {
            for name in ["api", "web"] {
                registry.push(Image::new(name).tag(version).tag("latest"));
            }
            if version != "1.2" {
                deployment.dkv(["pull-latest"]).exit(0);
            }
        }
        let manifest = deployment.manifest();
        deployment.write("version-manifest.yaml", &format!("# ours\n{manifest}"));
        deployment.dkv(["generate-env"]).exit(0);
        (deployment, registry)
    }

    /// A change of a record that has a history, by these words.
    fn recorded(topic: &str, arguments: &[&str]) -> Self {
        let (deployment, registry) = Self::followed(topic);
        let change = Self::of(deployment, arguments, ["version-manifest.yaml", "versions.env"]);
        Self { _registry: Some(registry), ..change }
    }

    fn rollback() -> Self {
        Self { is_repeatable: false, ..Self::recorded("crash-rollback", &["rollback", "-y"]) }
    }

    fn rollback_to() -> Self {
        Self::recorded("crash-to", &["rollback-to", "web", "1.0", "-y"])
    }

    fn pull_latest() -> Self {
        Self::recorded("crash-latest", &["pull-latest"])
    }

    fn version_set() -> Self {
        let words = ["version-set", "web", "1.2", "--reason", "a patch", "--hold", "--no-pull"];
        Self::recorded("crash-set", &words)
    }

    /// `versions.env` is of another manifest.
    fn generate_env() -> Self {
        let deployment = Deployment::new("crash-env");
        deployment.write("version-manifest.yaml", &BEFORE.replace("'1.0'", "'1.0.0'"));
        deployment.dkv(["generate-env"]).exit(0);
        deployment.write("version-manifest.yaml", BEFORE);
        Self::of(deployment, &["generate-env"], ["versions.env"])
    }

    /// Variables into Compose files, with the manifest that they follow.
    fn migrate() -> Self {
        let (deployment, registry) = Self::followed("crash-migrate");
        let line = |name: &str| {
            format!("services:\n  {name}:\n    image: {}:1.1 # ours\n", registry.repository(name))
        };
        deployment.write("docker-compose.yml", &line("api"));
        deployment.write("db-docker-compose.yml", &line("web"));
        let files = ["docker-compose.yml", "db-docker-compose.yml"];
        let change = Self::of(deployment, &["migrate-versions", "--write", "-y"], files);
        Self { has_children: true, _registry: Some(registry), ..change }
    }

    fn dkv(&self, words: &[&str]) -> Run {
        self.deployment.dkv(words.iter().copied()).env("DKV_NOW", NOW)
    }

    pub(crate) fn run(&self) -> Run {
        self.dkv(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
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
        self.dkv(&["version"]).exit(0);
        self.dkv(&["generate-env"]).exit(0);
        let (manifest, env) = (self.deployment.manifest(), self.deployment.versions_env());
        let is_done = self.after.iter().all(|(name, text)| self.deployment.read(name) == *text);
        match self.envs.get(&manifest) {
            Some(wanted) => assert_eq!(env, *wanted, "{what}: versions.env"),
            None => panic!("{what}: the manifest is neither old nor new:\n{manifest}"),
        }
        if self.is_repeatable || !is_done {
            self.run().exit(0);
        }
        for (name, after) in &self.after {
            assert_eq!(self.deployment.read(name), *after, "{what}: the next run, {name}");
        }
        let left: Vec<String> =
            self.deployment.list(".").into_iter().filter(|name| name.contains("dkv-")).collect();
        assert!(left.is_empty(), "{what}: left behind: {left:?}");
    }

    /// Tries the first, the `every`th after it and so on of each call.
    fn killed_anywhere(&self, every: usize) -> usize {
        let mut killed = 0;
        for (at, call) in CHANGES.into_iter().chain(LOOKS).enumerate() {
            for number in (1 + at % every..).step_by(every) {
                self.reset();
                let only_here = LOOKS.contains(&call) || self.has_children;
                let outcome = self.inject(call, "signal=KILL", number, only_here);
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

    fn failing_anywhere(&self, every: usize) -> usize {
        let mut failed = 0;
        let calls = ["openat", "write", "fsync", "rename", "fchmod", "mkdir", "ftruncate", "statx"];
        for (at, call) in calls.into_iter().enumerate() {
            for (kind, error) in ["ENOSPC", "EIO", "EROFS", "EACCES"].into_iter().enumerate() {
                for number in (1 + (at + kind) % every..).step_by(every) {
                    self.reset();
                    let outcome = self.inject(call, &format!("error={error}"), number, true);
                    let what = format!("{self}: {call} {number} fails with {error}");
                    if !outcome.strace.contains("INJECTED") {
                        assert_eq!(outcome.code(), Some(0), "{what}: {outcome}");
                        break;
                    }
                    if outcome.code() == Some(0) {
                        for (name, after) in &self.after {
                            let done = self.deployment.read(name);
                            assert_eq!(done, *after, "{what}: done, it said of {name}");
                        }
                    } else {
                        let is_told = match outcome.code() {
                            // Compose cannot read then.
                            Some(6) => self.has_children,
                            code => code == Some(3),
                        };
                        assert!(is_told, "{what}: {outcome}");
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

/// How many calls of those that a table of commands has are left out after each that is tried:
/// `DKV_CRASH_EVERY=1` tries all, which takes half an hour.
fn every() -> usize {
    std::env::var("DKV_CRASH_EVERY").ok().and_then(|every| every.parse().ok()).unwrap_or(15)
}

/// What records, besides those that have a test of their own below.
const RECORDING: [fn() -> Change; 6] = [
    Change::rollback,
    Change::rollback_to,
    Change::pull_latest,
    Change::version_set,
    Change::generate_env,
    Change::migrate,
];

#[test]
fn every_command_that_writes_may_be_killed_anywhere() {
    let killed: usize = RECORDING.iter().map(|make| make().killed_anywhere(every())).sum();
    assert!(killed >= 20, "only {killed} places were tried");
}

#[test]
fn no_command_that_writes_calls_a_failing_disk_done() {
    let failed: usize = RECORDING.iter().map(|make| make().failing_anywhere(every())).sum();
    assert!(failed >= 10, "only {failed} failures were tried");
}

#[test]
fn killed_before_every_call_the_state_is_old_or_new_and_the_next_run_carries_on() {
    let killed = Change::unhold().killed_anywhere(1);
    assert!(killed >= 30, "only {killed} places were tried");
}

#[test]
fn killed_before_every_call_pin_leaves_whole_files_and_the_next_run_carries_on() {
    let killed = Change::pin().killed_anywhere(1);
    assert!(killed >= 30, "only {killed} places were tried");
}

#[test]
fn a_failing_disk_is_never_called_done() {
    let failed = Change::unhold().failing_anywhere(1);
    assert!(failed >= 30, "only {failed} failures were tried");
}

#[test]
fn a_disk_that_fails_is_never_called_done_by_pin() {
    let failed = Change::pin().failing_anywhere(1);
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
