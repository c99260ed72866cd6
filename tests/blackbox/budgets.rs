//! What a command costs, by exact counts of system calls: how often each file of the deployment is
//! opened, how often Compose is started, how many connections the daemon gets.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Deployment, Image, Outcome, Registry};

/// What one run of dkv did, without what the programs did that it started.
#[derive(Debug, Default)]
struct Cost {
    /// How often each file of the deployment was opened that was there.
    opens: BTreeMap<String, usize>,
    /// How often Compose was asked what it makes of its files.
    questions: usize,
    /// How often any program of Compose's was started.
    composes: usize,
    /// How many connections the daemon got.
    connections: usize,
}

/// Runs dkv under strace.
#[track_caller]
fn cost(deployment: &Deployment, code: i32, arguments: &[&str]) -> (Cost, Outcome) {
    let calls = "trace=openat,execve,connect,clone,clone3,fork,vfork";
    let outcome = deployment
        .dkv(arguments.iter().copied())
        .under_strace(["-f", "-qq", "-s", "4096", "-e", calls])
        .exit(code);
    (read(deployment, &outcome.strace), outcome)
}

fn read(deployment: &Deployment, strace: &str) -> Cost {
    let mut cost = Cost::default();
    let mut is_first = true;
    // What a process begins to run, until the system has said whether it does.
    let mut beginning: BTreeMap<String, String> = BTreeMap::new();
    // The processes that run another program, and theirs.
    let mut foreign: BTreeSet<String> = BTreeSet::new();
    let directory = deployment.directory().display().to_string();
    let lines = || strace.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let starts = ["clone", "fork", "vfork", "<... clone", "<... fork", "<... vfork"];
    let is_start = |call: &str| starts.iter().any(|start| call.trim_start().starts_with(start));
    // A process may be at work before whoever started it is told its number.
    let parents: BTreeMap<&str, &str> = lines()
        .filter(|(_, call)| is_start(call))
        .filter_map(|(pid, call)| Some((call.rsplit_once(" = ")?.1, pid)))
        .collect();
    for (pid, call) in lines() {
        let call = call.trim_start();
        let result = call.rsplit_once(" = ").map_or("", |(_, result)| result);
        let is_done = !result.is_empty() && !result.starts_with('-');
        if parents.get(pid).is_some_and(|parent| foreign.contains(*parent)) {
            foreign.insert(pid.to_owned());
        }
        if is_start(call) || foreign.contains(pid) {
            continue;
        }
        if call.starts_with("execve(") {
            beginning.insert(pid.to_owned(), call.to_owned());
        }
        if call.starts_with("execve(") || call.starts_with("<... execve") {
            // The first is dkv itself.
            if is_done && !std::mem::take(&mut is_first) {
                foreign.insert(pid.to_owned());
                let call = beginning.remove(pid).unwrap_or_default();
                // By the names that dkv calls; what `docker` starts has a path for a name.
                let calls = ["[\"docker\", \"compose\"", "[\"docker-compose\""];
                let is_compose = calls.iter().any(|start| call.contains(start));
                cost.composes += usize::from(is_compose);
                cost.questions += usize::from(is_compose && call.contains("\"config\""));
            }
        } else if call.starts_with("openat(") && is_done {
            let path = call.split('"').nth(1).unwrap_or_default();
            // dkv runs in the deployment's directory.
            let name = path.strip_prefix(&directory).unwrap_or(path).trim_start_matches(['.', '/']);
            if !path.starts_with('/') || path.starts_with(&directory) {
                *cost.opens.entry(name.to_owned()).or_default() += 1;
            }
        } else if call.starts_with("connect(") && call.contains("docker.sock") {
            cost.connections += 1;
        }
    }
    cost
}

impl Cost {
    fn opened(&self, name: &str) -> usize {
        self.opens.get(name).copied().unwrap_or_default()
    }
}

/// The files that are the deployment's own, without the dot of `.env`.
const FILES: [&str; 4] = ["version-manifest.yaml", "versions.env", "docker-compose.yml", "env"];

/// A product of two services with two releases each, recorded and running the newer.
fn deployment(registry: &Registry) -> Deployment {
    let deployment = Deployment::new("budgets");
    let services = ["web", "api"];
    let named: Vec<(&str, String)> =
        services.iter().map(|name| (*name, registry.repository(name))).collect();
    deployment.write_product(&named);
    deployment.write(".env", "SOMETHING=else\n");
    for version in ["1.0", "1.1"] {
        for name in services {
            registry.push(Image::new(name).tag(version).tag("latest"));
        }
        deployment.dkv(["pull-latest"]).exit(0);
    }
    deployment.dkv(["up"]).exit(0);
    deployment
}

#[test]
fn every_file_is_opened_once_and_once_more_to_commit() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    // What only looks opens nothing twice, and asks Compose at most once.
    for (command, asks) in [
        (&["version"][..], 0),
        (&["version-history"], 0),
        (&["generate-env"], 0),
        (&["check-updates"], 0),
        (&["pull"], 0),
        (&["pin", "--check"], 0),
        (&["pull-latest", "--dry-run"], 0),
        (&["rollback", "--dry-run"], 0),
        (&["status"], 1),
        (&["info"], 1),
        (&["health"], 1),
        (&["verify"], 1),
        (&["logs", "--no-follow"], 1),
        (&["update-safe", "--dry-run"], 1),
        (&["up", "--dry-run"], 1),
    ] {
        let (cost, outcome) = cost(&deployment, 0, command);
        for name in FILES {
            assert!(cost.opened(name) <= 1, "{command:?} {name}: {cost:?}\n{outcome}");
        }
        assert_eq!(cost.opened("version-manifest.yaml"), 1, "{command:?}: {cost:?}");
        assert!(cost.questions <= asks, "{command:?}: {cost:?}\n{}", outcome.strace);
        assert!(cost.connections <= 4, "{command:?}: {cost:?}");
    }
    // What starts containers, too: nothing is recorded.
    for command in [&["up"][..], &["restart"], &["start"], &["down"], &["start"]] {
        let (cost, outcome) = cost(&deployment, 0, command);
        for name in FILES {
            assert!(cost.opened(name) <= 1, "{command:?} {name}: {cost:?}\n{outcome}");
        }
        assert_eq!(cost.questions, 1, "{command:?}: {cost:?}");
    }
    // What records opens the manifest again under the lock.
    for name in ["web", "api"] {
        registry.push(Image::new(name).tag("1.2").tag("latest"));
    }
    for command in [
        &["pull-latest"][..],
        &["rollback", "-y"],
        &["rollback-to", "-y", "web", "1.2"],
        &["version-pull", "api", "1.2"],
        &["unhold", "api"],
        &["version-set", "api", "1.1"],
        &["resolve-tags"],
    ] {
        let (cost, outcome) = cost(&deployment, 0, command);
        for name in FILES {
            let most = if name == "version-manifest.yaml" { 2 } else { 1 };
            assert!(cost.opened(name) <= most, "{command:?} {name}: {cost:?}\n{outcome}");
        }
        assert_eq!(cost.composes, 0, "{command:?}: {cost:?}");
    }
}

#[test]
fn an_update_reads_the_deployment_once_and_asks_compose_once() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    for name in ["web", "api"] {
        registry.push(Image::new(name).tag("1.2").tag("latest"));
    }
    let (cost, outcome) = cost(&deployment, 0, &["update-safe"]);
    outcome.stdout_contains("1.2");
    for name in FILES {
        let most = if name == "version-manifest.yaml" { 2 } else { 1 };
        assert!(cost.opened(name) <= most, "{name}: {cost:?}\n{outcome}");
    }
    assert_eq!(cost.questions, 1, "{cost:?}");
    // Which Compose there is, what it makes of its files, and the one start.
    assert!(cost.composes <= 3, "{cost:?}");
    assert!(cost.connections <= 12, "{cost:?}");
}
