//! One history from its beginning to its end.

use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::compose::Call;
use super::engine::Image;
use super::judge::{Before, judge};
use super::registry::Release;
use super::scenario::{Command, Scenario, Service, short};
use super::world::{Killed, World};
use crate::app::App;
use crate::cli::{Cli, Environment};
use crate::error;
use crate::ui::{Terminals, Ui};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Code(u8),
    Killed,
    /// It does not end.
    Hangs,
}

/// What is to be told of a history.
pub(super) struct Told {
    pub(super) problems: Vec<String>,
    pub(super) trace: Vec<String>,
}

/// No command may take longer.
const LONGEST: Duration = Duration::from_secs(3 * 60 * 60);

/// Lives through the history of `seed`.
pub(super) fn live(seed: u64) -> Told {
    let shared = Path::new("/dev/shm");
    let directory = match shared.is_dir() {
        true => tempfile::tempdir_in(shared),
        false => tempfile::tempdir(),
    };
    let directory = directory.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let told = runtime.block_on(async {
        let world = World::new(seed, Scenario::of(seed));
        super::WORLD.set(Some(Arc::clone(&world)));
        let problems = through(&world, &directory.path().join("shop")).await;
        let trace = std::mem::take(&mut world.state().trace);
        Told { problems, trace }
    });
    drop(runtime);
    super::WORLD.set(None);
    told
}

async fn through(world: &Arc<World>, directory: &Path) -> Vec<String> {
    prepare(world, directory).await;
    let before = Before::of(world);
    let mut problems = before.problems(world);
    let mut is_first = true;
    let journal = directory.join(".version-backups/update-journal.json");
    let scenario = &world.scenario;
    for command in std::iter::once(&scenario.first).chain(&scenario.then) {
        if !is_first && !journal.exists() {
            break;
        }
        let end = run(world, directory, command).await;
        let counted = world.state().counted;
        world.note(format!("{:?} ends: {end:?} after {counted:?}", command.words));
        is_first = false;
        world.calm();
        quiet(world).await;
        let found = judge(world, &before, directory, command, end, journal.exists());
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("after {:?} ({end:?}): {problem}", command.words)),
        );
        if end == End::Hangs {
            break;
        }
    }
    if journal.exists() {
        problems.push("the journal is still there in the end".to_owned());
    }
    problems
}

/// Waits until no Compose is under way, the engine is there, and containers have shown what they are.
async fn quiet(world: &World) {
    let home = world.home();
    let is_busy =
        || world.is_away(&home) || world.state().composes.iter().any(|one| !one.is_finished());
    while is_busy() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
}

/// The deployment as it is before the first command.
async fn prepare(world: &Arc<World>, directory: &Path) {
    let scenario = &world.scenario;
    fs::create_dir_all(directory.join("data")).unwrap();
    fs::write(directory.join("data/rows"), "1 2 3\n").unwrap();
    fs::write(directory.join("docker-compose.yml"), scenario.compose_file(false)).unwrap();
    if scenario.services.iter().any(|service| service.is_database) {
        fs::write(directory.join("db-docker-compose.yml"), scenario.compose_file(true)).unwrap();
    }
    let digest = |repository: &str, version| Release::of(repository, version).digest;
    fs::write(directory.join("version-manifest.yaml"), scenario.manifest(digest)).unwrap();
    let home = world.home();
    let mut variables = BTreeMap::new();
    {
        let mut state = world.state();
        let engine = state.engines.get_mut(&home).unwrap();
        for service in &scenario.services {
            let image = match service.is_tracked {
                true => Release::of(&service.repository, 1).image(&service.repository, 1),
                false => Image {
                    tags: [format!("{}:7", service.repository)].into(),
                    ..Release::of(&service.repository, 1).image(&service.repository, 1)
                },
            };
            if engine.images.iter().all(|other| other.id != image.id) {
                engine.images.push(image);
            }
        }
    }
    for service in scenario.services.iter().filter(|service| service.is_tracked) {
        let prefix = format!("DK_{}", short(&service.repository).to_uppercase());
        variables.insert(format!("{prefix}_IMAGE"), service.repository.clone());
        let digest = digest(&service.repository, 1);
        variables.insert(format!("{prefix}_TAG"), format!("1.0@{digest}"));
    }
    let compose = |words: Vec<String>| Call {
        arguments: words,
        variables: variables.clone(),
        directory: directory.to_str().unwrap().to_owned(),
    };
    let mut up = vec!["up".to_owned(), "-d".to_owned()];
    for service in scenario.services.iter().filter(|service| service.count != 1) {
        up.extend(["--scale".to_owned(), format!("{}={}", service.name, service.count)]);
    }
    super::compose::start(world, compose(up)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let stopped = scenario.services.iter().filter(|service| service.is_stopped);
    let mut stop: Vec<String> = vec!["stop".to_owned()];
    stop.extend(stopped.map(|service: &Service| service.name.clone()));
    if stop.len() > 1 {
        super::compose::start(world, compose(stop)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
}

async fn run(world: &Arc<World>, directory: &Path, command: &Command) -> End {
    let words = ["dkv", "-q", "-C", directory.to_str().unwrap()];
    let words = words.iter().chain(&command.words);
    let cli = <Cli as clap::Parser>::try_parse_from(words).unwrap();
    let shell = match command.in_own_shell {
        true => world.scenario.shell.clone(),
        false => BTreeMap::new(),
    };
    let environment: Environment =
        shell.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let settings = cli.settings(&environment, Terminals::default()).unwrap();
    let ui = Ui::new(settings.ui);
    world.begin(shell, command.faults.clone(), ui.interruption().clone());
    world.note(format!("{command:?}"));
    let app = App::new(settings, environment, ui, world.now(), "update-safe".to_owned());
    let work = async {
        app.check_unfinished(cli.command.effect())?;
        cli.command.run(&app).await
    };
    let work = tokio::time::timeout(LONGEST, AssertUnwindSafe(work).catch_unwind());
    let outcome = tokio::select! {
        biased;
        () = world.killed() => return End::Killed,
        outcome = work => outcome,
    };
    match outcome {
        Err(_) => End::Hangs,
        Ok(Err(payload)) if payload.is::<Killed>() => End::Killed,
        Ok(Err(payload)) => std::panic::resume_unwind(payload),
        Ok(Ok(Ok(exit))) => End::Code(exit.code()),
        Ok(Ok(Err(error))) => {
            app.ui.error(&error);
            End::Code(error::kind(&error).exit_code())
        }
    }
}

/// The file of the manifest.
pub(super) fn manifest(directory: &Path) -> PathBuf {
    directory.join("version-manifest.yaml")
}
