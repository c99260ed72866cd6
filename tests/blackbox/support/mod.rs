//! The bench: real registries, the machine's Docker daemon and the built binary, driven only with
//! names of a test's own. `harness.rs` holds the tests of the bench itself and shows how it is
//! used.
#![allow(dead_code, unused_imports, reason = "a toolbox: no test needs all of it")]

pub mod daemon;
pub mod deployment;
pub mod ecr;
pub mod engine;
pub mod http;
pub mod image;
pub mod outage;
pub mod proxy;
pub mod registry;
pub mod token;

use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

pub use daemon::Daemon;
pub use deployment::{Deployment, Outcome, Run, Running};
pub use engine::Engine;
pub use image::{Health, Image, Pushed};
pub use outage::{Door, Outage};
pub use proxy::{Fault, Gate, On, Proxy};
pub use registry::Registry;

/// Label on every image (and so on every container) that a test makes: its [`unique`] name.
pub const TEST_LABEL: &str = "dkv.test";

/// How long a [`unique`] name is without its topic: more than a run, a process and a count need.
const UNIQUE_LENGTH: usize = 27;

/// A name that no other test has, safe as a Compose project, an image repository and a directory.
///
/// `tests/run.sh` gives all tests of one run a common prefix, so that it can sweep what a killed
/// one left. Names of one topic are equally long, so that what is aligned to them is the same in
/// every run.
pub fn unique(topic: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let run = run();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_nanos()
        % 0xff_ffff;
    let own = format!("{:x}{clock:x}{:x}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let width = UNIQUE_LENGTH.saturating_sub(run.len());
    format!("{run}-{own:0>width$}-{topic}")
}

/// What the names of everything that this run of the tests makes begin with.
fn run() -> String {
    std::env::var("DKV_TEST_RUN").unwrap_or_else(|_| "dkvt".into())
}

/// A temporary directory, removed when dropped; those of one purpose have paths of one length.
pub fn temporary(purpose: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{:-<12}{purpose}-", run()))
        .tempdir()
        .expect("a temporary directory")
}

/// Where `tests/setup.sh` puts what it downloads.
pub fn tools() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    target.parent().expect("a target directory").join("tools")
}

/// The path of a program: the one of `tests/setup.sh`, else the machine's.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(tools())
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .map(|place| place.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name}: run tests/setup.sh first"))
}

/// Polls until `ready` gives a value; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let asked = Instant::now();
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        // What costs something to ask is asked less often, for the sake of the tests beside this.
        thread::sleep(asked.elapsed().max(Duration::from_millis(5)));
    }
}
