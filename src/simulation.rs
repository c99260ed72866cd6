//! A deterministic simulator of `update-safe`: the real command, in a world of its own.
//!
//! One seed is one history: a deployment, what its new releases do, and what goes wrong at the
//! engine, the registry, the disk and by signals while the command runs, is killed, and is taken up
//! again. Engine and registry are asked over the program's own connections; Compose is replaced by
//! its own steps at that engine; files are real. Time is virtual: it passes where everybody waits.
//! What must be true afterwards is in [`judge`].
//!
//! `DKV_SIMULATION_SEED=N` replays one history and tells it; `DKV_SIMULATION_HISTORIES=N` runs so
//! many, from `DKV_SIMULATION_FROM` on.

#[cfg(test)]
mod api;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod history;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod random;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::io::DuplexStream;

pub(crate) use compose::{Call, Ended};
pub(crate) use registry::Answer;

use crate::interruption::Interruption;
use world::World;

thread_local! {
    /// The world that this thread's program is in; none where everything is real.
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

fn world() -> Option<Arc<World>> {
    WORLD.with_borrow(Clone::clone)
}

/// Whether this thread is in a simulated world.
pub(crate) fn is_under_way() -> bool {
    world().is_some()
}

/// The time in it.
pub(crate) fn now() -> Option<DateTime<Utc>> {
    world().map(|world| world.now())
}

/// A random number of it.
pub(crate) fn random() -> Option<u64> {
    world().map(|world| world.state().random.next())
}

/// Takes what is said to the terminal.
pub(crate) fn say(text: &str) -> bool {
    let Some(world) = world() else { return false };
    for line in text.lines() {
        world.note(format!("dkv: {line}"));
    }
    world.state().said.push_str(text);
    true
}

/// Before anything of a deployment's files changes.
pub(crate) fn write(what: &str, path: &Path) -> io::Result<()> {
    let Some(world) = world() else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    world.write(&format!("{what} {name}"))
}

/// A connection to the engine at `path`.
pub(crate) fn connect(path: &Path) -> Option<io::Result<DuplexStream>> {
    let world = world()?;
    let engine = path.to_str()?.to_owned();
    if world.is_away(&engine) || !world.state().engines.contains_key(&engine) {
        return Some(Err(io::Error::from(io::ErrorKind::ConnectionRefused)));
    }
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(wire::serve(world, engine, theirs));
    Some(Ok(ours))
}

/// What the registry answers.
pub(crate) async fn ask(method: &str, path: &str) -> Option<Result<Answer, String>> {
    let world = world()?;
    Some(registry::answer(&world, method, path).await)
}

/// Starts Compose.
pub(crate) fn start_compose(call: Call) -> Option<tokio::task::JoinHandle<Ended>> {
    Some(compose::start(&world()?, call))
}

/// Waits for the signal that reaches Compose: any, or only a second one where it is `shielded`.
pub(crate) async fn interrupted(shielded: Option<Interruption>) {
    match (shielded, world()) {
        (Some(interruption), _) => interruption.repeated().await,
        (None, Some(world)) => world.signalled().await,
        (None, None) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::history::{Told, live};

    /// What the futures of a whole command take without optimisation.
    const STACK: usize = 64 * 1024 * 1024;

    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    /// The history of `seed`; what panics is a problem too.
    fn told(seed: u64) -> Told {
        std::panic::catch_unwind(|| live(seed)).unwrap_or_else(|_| Told {
            problems: vec!["it panicked".to_owned()],
            trace: Vec::new(),
        })
    }

    #[test]
    fn whatever_goes_wrong_old_or_new_runs_and_the_exit_code_says_which() {
        let replayed = number("DKV_SIMULATION_SEED");
        let count =
            replayed.map_or_else(|| number("DKV_SIMULATION_HISTORIES").unwrap_or(1000), |_| 1);
        let from = replayed.or_else(|| number("DKV_SIMULATION_FROM")).unwrap_or(0);
        let enough = number("DKV_SIMULATION_FAILURES").unwrap_or(10);
        let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
        let live_on = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + count || failed.load(Ordering::Relaxed) >= enough {
                    return;
                }
                let told = told(seed);
                if replayed.is_some() {
                    println!("{}", told.trace.join("\n"));
                }
                if !told.problems.is_empty() {
                    failed.fetch_add(1, Ordering::Relaxed);
                    println!("DKV_SIMULATION_SEED={seed}: {}", told.problems.join("\n    "));
                }
            }
        };
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                thread::Builder::new().stack_size(STACK).spawn_scoped(scope, live_on).unwrap();
            }
        });
        let lived = next.into_inner().min(from + count) - from;
        let seconds = begun.elapsed().as_secs_f64();
        println!("{lived} histories in {seconds:.1} s");
        assert_eq!(failed.into_inner(), 0, "the variable replays a history, and tells it");
    }
}
