//! A random campaign against a model that is written from the contract.
//!
//! One seed is one history of a deployment: releases appear, move and go, the registry is away or
//! lies, somebody edits by hand, and dkv's commands are run, killed, and run two at once. After each
//! step the model says what the manifest, `versions.env`, the keep-tags and the containers must be
//! and with which exit code the command may have ended. The first step that went otherwise ends the
//! history, and all steps are told.
//!
//! `DKV_CAMPAIGN_SEED=N` replays one history; `DKV_CAMPAIGN_HISTORIES=N` runs so many, from
//! `DKV_CAMPAIGN_FROM` on, of `DKV_CAMPAIGN_STEPS` steps each.

mod bench;
mod history;
mod model;
#[path = "../../src/simulation/random.rs"]
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use history::History;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lives through the history of `seed`; what went wrong, after all that had been done.
fn live(seed: u64, steps: u64) -> Result<(), String> {
    let mut tale = Vec::new();
    let lived = catch_unwind(AssertUnwindSafe(|| History::new(seed, &mut tale).live(steps)));
    let problem = match lived {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(problem)) => problem,
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(_) => "it panicked".to_owned(),
        },
    };
    Err(format!("DKV_CAMPAIGN_SEED={seed}:\n  {}\n! {problem}", tale.join("\n  ")))
}

#[test]
fn whatever_is_done_the_record_is_what_the_contract_says() {
    let replayed = number("DKV_CAMPAIGN_SEED");
    let from = replayed.or_else(|| number("DKV_CAMPAIGN_FROM")).unwrap_or(0);
    let count = replayed.map_or_else(|| number("DKV_CAMPAIGN_HISTORIES").unwrap_or(4), |_| 1);
    let steps = number("DKV_CAMPAIGN_STEPS").unwrap_or(25);
    let enough = number("DKV_CAMPAIGN_FAILURES").unwrap_or(1);
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    let begun = Instant::now();
    let live_on = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count || failed.load(Ordering::Relaxed) >= enough {
                return;
            }
            if let Err(problem) = live(seed, steps) {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("{problem}");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(live_on);
        }
    });
    let lived = next.into_inner().min(from + count) - from;
    eprintln!("{lived} histories of {steps} steps in {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(failed.into_inner(), 0, "the variable replays a history");
}
