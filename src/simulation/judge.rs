//! What must be true when a command has ended, whatever went wrong: from the contract alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::engine::{Container, Status};
use super::history::{End, manifest};
use super::registry::Release;
use super::scenario::{Command, Conduct, Service, short};
use super::world::World;
use crate::model::manifest::Manifest;

/// What ran before the first command.
pub(super) struct Before {
    counts: BTreeMap<String, usize>,
    ids: BTreeSet<String>,
}

impl Before {
    pub(super) fn of(world: &World) -> Self {
        let mut counts = BTreeMap::new();
        for container in containers(world) {
            *counts.entry(container.service().to_owned()).or_default() += 1;
        }
        Self { counts, ids: ids(world) }
    }

    /// What is wrong with the history itself.
    pub(super) fn problems(&self, world: &World) -> Vec<String> {
        let services = world.scenario.services.iter();
        let bad = services
            .filter_map(|service| Some(format!("at first: {}", is_old(world, self, service)?)));
        bad.collect()
    }
}

/// The containers of the deployment's own project and engine.
fn containers(world: &World) -> Vec<Container> {
    let home = world.home();
    let state = world.state();
    let all = state.engines[&home].containers.iter();
    all.filter(|one| one.label("project") == world.scenario.project).cloned().collect()
}

fn ids(world: &World) -> BTreeSet<String> {
    containers(world).into_iter().map(|container| container.id).collect()
}

/// What is not as it was before with a service.
fn is_old(world: &World, before: &Before, service: &Service) -> Option<String> {
    runs(world, before, service, 1)
}

/// What is not as it should be with a service that should run `version`.
fn runs(world: &World, before: &Before, service: &Service, version: u32) -> Option<String> {
    let mut mine = containers(world);
    mine.retain(|one| one.service() == service.name);
    let name = &service.name;
    let count = before.counts.get(name).copied().unwrap_or_default();
    if mine.len() != count {
        return Some(format!("{name} has {} containers, not {count}", mine.len()));
    }
    mine.iter().find_map(|one| {
        if service.is_stopped {
            let is_stopped = one.status == Status::Exited && one.version == 1;
            return (!is_stopped)
                .then(|| format!("{name} was stopped and is {}", one.status.word()));
        }
        if one.version != version {
            return Some(format!("{} runs version {}, not {version}", one.name, one.version));
        }
        (!one.is_good()).then(|| {
            format!("{} is {} ({}) {:?}", one.name, one.status.word(), one.exit_code, one.health)
        })
    })
}

/// What is wrong after `command` has ended so.
pub(super) fn judge(
    world: &World,
    before: &Before,
    directory: &Path,
    command: &Command,
    end: End,
    has_journal: bool,
) -> Vec<String> {
    let scenario = &world.scenario;
    let mut problems = strangers(world);
    let code = match end {
        End::Code(code) => code,
        End::Killed => return problems,
        End::Hangs => return vec!["it does not end".to_owned()],
    };
    let text = std::fs::read(manifest(directory)).unwrap();
    let record = match Manifest::read(&text) {
        Ok(record) => record,
        Err(error) => return vec![format!("the manifest cannot be read: {error}")],
    };

    let newest = |service: &Service| match service.is_tracked {
        true => scenario.latest(&service.repository),
        false => 1,
    };
    let old: Vec<String> =
        scenario.services.iter().filter_map(|one| is_old(world, before, one)).collect();
    let new: Vec<String> =
        scenario.services.iter().filter_map(|one| runs(world, before, one, newest(one))).collect();
    let is_update = !command.words.contains(&"--abort");
    match code {
        0 if is_update && !new.is_empty() => {
            problems.push(format!("exit 0, and {}", new.join("; ")))
        }
        0 if !is_update && !new.is_empty() && !old.is_empty() => {
            problems.push(format!(
                "exit 0, and neither old ({}) nor new ({})",
                old.join("; "),
                new.join("; ")
            ));
        }
        7 if !old.is_empty() => problems.push(format!("exit 7, and {}", old.join("; "))),
        9 => problems.extend(mixed(world, before)),
        8 => problems.push("exit 8".to_owned()),
        1 => problems.push("exit 1".to_owned()),
        0 | 7 => {}
        _ if !has_journal && !old.is_empty() => {
            problems.push(format!("exit {code} without a journal, and {}", old.join("; ")));
        }
        _ => {}
    }
    if code == 130 && has_journal && command.faults.signals.len() < 2 {
        problems.push("one request to stop, and it is unfinished".to_owned());
    }
    if matches!(code, 0 | 7 | 9) && has_journal {
        problems.push(format!("exit {code}, and the journal is there"));
    }
    if !has_journal {
        problems.extend(misrecorded(world, &record));
    }
    problems.extend(wronged(world, &record));
    // One moment of the engine's or the registry's may end an update that has replaced nothing; one
    // that has comes out as always.
    let is_given_up = matches!(code, 5 | 6) && before.ids == ids(world);
    let is_as_always = command.faults.is_none() || (command.faults.is_a_moment() && !is_given_up);
    if is_as_always && command.words[..] == ["update-safe"] {
        problems.extend(unexpected(world, code, &record, command.faults.breaks_off()));
    }
    if command.faults.is_none() && command.in_own_shell && has_journal {
        problems.push(format!("exit {code} where nothing went wrong, and the journal is there"));
    }
    problems
}

/// Containers that belong to no deployment.
fn strangers(world: &World) -> Vec<String> {
    let home = world.home();
    let state = world.state();
    let mut problems = Vec::new();
    for (name, engine) in &state.engines {
        for one in &engine.containers {
            if *name != home || one.label("project") != world.scenario.project {
                problems.push(format!(
                    "a second deployment: {} of project {} at {name}",
                    one.name,
                    one.label("project")
                ));
            }
        }
    }
    problems
}

/// After `--keep-going` each service of the manifest is old or new as a whole.
fn mixed(world: &World, before: &Before) -> Vec<String> {
    let scenario = &world.scenario;
    let mut problems = Vec::new();
    for service in scenario.services.iter().filter(|service| service.is_tracked) {
        let of_one: Vec<&Service> = scenario
            .services
            .iter()
            .filter(|other| other.repository == service.repository)
            .collect();
        let found = |version| -> Vec<String> {
            of_one.iter().filter_map(|one| runs(world, before, one, version)).collect()
        };
        let (old, new) = (found(1), found(scenario.latest(&service.repository)));
        if !old.is_empty() && !new.is_empty() {
            problems.push(format!(
                "exit 9, and neither old ({}) nor new ({})",
                old.join("; "),
                new.join("; ")
            ));
        }
    }
    problems
}

/// The manifest says what runs.
fn misrecorded(world: &World, record: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    let all = containers(world);
    for service in world.scenario.services.iter().filter(|one| one.is_tracked && !one.is_stopped) {
        let name = short(&service.repository);
        let current = record.services.values().find(|one| one.name.as_str() == name);
        let current = current.and_then(|one| one.current()?.bytes.digest.clone());
        for one in all.iter().filter(|one| one.service() == service.name) {
            let runs = Release::of(&service.repository, one.version).digest;
            if current.as_ref().map(|digest| digest.as_str()) != Some(&runs) {
                problems.push(format!("the manifest does not record what {} runs", one.name));
            }
        }
    }
    problems
}

/// Nothing is rejected that did not fail by itself.
fn wronged(world: &World, record: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    for service in record.services.values() {
        for rejected in &service.rejected {
            let of_it =
                world.scenario.services.iter().filter(|one| {
                    one.is_tracked && short(&one.repository) == service.name.as_str()
                });
            let is_bad = of_it.clone().any(|one| {
                one.new.is_bad_by_itself()
                    && Release::of(&one.repository, 2).digest == rejected.digest.as_str()
            });
            if !is_bad {
                problems.push(format!(
                    "{} is rejected, and did not fail: {}",
                    service.name,
                    rejected.reason.as_deref().unwrap_or_default()
                ));
            }
        }
    }
    problems
}

/// The services that get another release.
fn tried(world: &World) -> impl Iterator<Item = &Service> + Clone {
    let services = world.scenario.services.iter();
    services.filter(|one| {
        one.is_tracked && !one.is_stopped && world.scenario.latest(&one.repository) == 2
    })
}

/// Whether all new releases are good.
fn tried_is_good(world: &World) -> bool {
    tried(world).all(|one| one.new.is_good())
}

/// Where nothing else goes wrong than releases, the end is known. Of what failed while the engine
/// was away nobody can say why.
fn unexpected(world: &World, code: u8, record: &Manifest, breaks_off: bool) -> Vec<String> {
    let is_good = tried_is_good(world);
    let mut problems = Vec::new();
    if (code == 0) != is_good || !matches!(code, 0 | 7) {
        problems.push(format!("exit {code} where nothing else went wrong"));
    }
    let cannot_start = tried(world).any(|one| one.new == Conduct::CannotStart);
    let has_rejected = record.services.values().any(|one| !one.rejected.is_empty());
    if !is_good && !cannot_start && !has_rejected && !breaks_off {
        problems.push("a bad release is not rejected".to_owned());
    }
    problems
}
