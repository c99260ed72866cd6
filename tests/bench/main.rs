//! The benchmarks that `tests/bench/run.sh` runs; all, or those that the arguments name.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a benchmark prints its figures and stops at the first surprise"
)]

mod network;
mod record;
#[path = "../blackbox/support/mod.rs"]
mod support;
mod updates;

fn main() {
    // Cargo adds an argument of its own.
    let named: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, run) in
        [("record", record::run as fn()), ("network", network::run), ("updates", updates::run)]
    {
        if named.is_empty() || named.iter().any(|one| one == name) {
            run();
        }
    }
}
