//! dkv keeps the image versions of a Docker Compose deployment: recorded by digest, updated safely,
//! rolled back exactly.
//!
//! This page is for those who carry it on: what is on each floor, and the walks through them.
//! The library exists so that rules can be tested and fuzzed in place; its only function is
//! `main`.
//!
//! # The floors
//!
//! Arrows run downwards only; `tests/house.rs` and the compiler hold that. That rules (pure) reach
//! for no clock, file or process is clippy's to hold, see `.clippy.toml`.
//!
//! ```text
//! entry        the command line to a command, its outcome to an exit code; signals
//! commands/    one file a command: arguments, help, effect, run; one list of them (mod.rs)
//! update/      update-safe: states and journal (pure)      drift, plan/migrate, pin: rules (pure)
//! change       THE ONLY WRITER of a record: plan, fetch, commit, report
//! deployment   THE ONLY READER: manifest, Compose files, Compose's project, what runs
//! members      which service of the manifest a Compose service runs: one rule (pure)
//! identity     which image is which release, by content: one rule (pure)
//! followers    who hangs on to whose container, and goes along when that is replaced (pure)
//! data         which data is whose, and what of it is saved (pure)
//! runtime      what the operator did at run time and keeps: counts, what was stopped (pure)
//! images lookup health logs backup      making local; asking registries; judging; keeping
//! clock        what time it is
//! app          what every command works with: settings, store, daemon, registries, terminal
//! plan report  a step of a service and what it becomes; what commands return (pure)
//! compose/     Compose files as they are written (texts); the Compose program (run)
//! docker/      the only user of bollard      registry/   the only HTTP to registries
//! store/       the only writer of deployment files: locks, reading, atomic replacement
//! ui/          the only door to the terminal
//! model/       references, versions, manifest, history, YAML: no I/O, no clock (pure)
//! ```
//!
//! Three values carry a command. `deployment::Deployment` is opened once; each file is read once,
//! and what costs a process or a call to the daemon is had once, when somebody first asks.
//! `change::Change` is what a command makes of the record: it is planned by pure functions, can be
//! shown, makes its images local, and is committed under the state lock against what stands on the
//! disk then. `members::Members` answers who is who.
//!
//! # The walks
//!
//! ```text
//! pull-latest   Deployment::open ─ manifest
//!               pull::plan_latest ─ Lookup (HEAD per service, tags where needed) ─ plan::advance
//!                                   images begin to arrive (Early) as soon as bytes are known
//!               Change::fetch ─ pull by digest, keep-tags, platform, image IDs
//!               Change::commit_kept ─ state lock ─ manifest again ─ backup ─ operations.jsonl
//!                                     ─ manifest, versions.env ─ the text is kept
//!                                     ─ keep-tags of evicted releases go, still under the lock
//!
//! rollback      Deployment::open ─ plan::rollback per service ─ the question
//!               Change::fetch (local: no network) ─ Change::commit_kept
//!               one list of containers says whether what runs is that release already
//!
//! undo          Deployment::open ─ operations.jsonl, an edit since included ─ what can be undone
//!               the text from before, by its digest ─ plan::go_to ─ the question ─ as rollback
//!
//! update-safe   operation lock ─ Deployment::open ─ Compose's project ─ what runs (journal)
//!               Preparing: plan_latest, fetch, what is replaced ─ Saving: data ─ Replacing: one `up`
//!               Judging: health ─ Recording: Change::commit_kept
//!               a failure on the way: Restoring ─ what ran is back ─ rejected digests recorded
//!
//! verify        Deployment::open, files beside it, versions.env, Compose with that environment
//!               one list of images, one of containers ─ drift::compare ─ findings with their mends
//! ```
//!
//! # Where to put a thing
//!
//! A rule goes where nothing is done: `model`, `plan`, `members`, `drift`, `update`, `health`'s
//! rules. What touches the world has one owner, named above. A command only puts them in order. A
//! new command is a file in `commands/` and a line in its list.

mod app;
mod backup;
mod change;
mod cli;
mod clock;
mod commands;
mod compose;
mod data;
mod deployment;
mod docker;
mod drift;
mod entry;
mod error;
mod followers;
mod health;
mod identity;
mod images;
mod interruption;
mod logs;
mod lookup;
mod members;
mod model;
mod observe;
mod pin;
mod plan;
mod process;
mod registry;
mod report;
mod runtime;
mod secrets;
#[cfg(test)]
mod simulation;
mod store;
mod ui;
mod update;

pub use entry::main;

/// What the fuzz targets and the benchmarks reach.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use crate::model::history::{Bytes, Release};
    pub use crate::model::manifest::{Listing, Manifest, Service};
    pub use crate::model::reference::{Digest, Platform, Reference, Tag};
    pub use crate::registry::auth::Challenge;
    pub use crate::registry::{DockerConfig, link};
}
