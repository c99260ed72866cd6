//! Black-box tests: the built binary against a real daemon, real registries and both Composes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests stop at the first surprise"
)]

mod adopting;
mod artifacts;
mod blame;
mod budgets;
#[path = "../campaign/mod.rs"]
mod campaign;
mod crash;
mod credentials;
mod data;
mod ecr;
mod engines;
mod env;
mod errors;
mod examples;
mod files;
mod harness;
mod keeping;
mod launching;
mod limits;
mod lines;
mod locks;
mod looking;
mod manifest;
mod migrate;
mod network;
mod oneness;
mod operations;
mod outages;
mod passing;
mod pin;
mod power;
mod pull;
mod resolution;
mod restoring;
mod rollback;
mod running;
mod screens;
mod seeing;
mod stopping;
mod support;
mod tracks;
mod update_safe;
mod updates;
mod verify;
