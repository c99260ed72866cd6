//! dkv keeps the image versions of a Docker Compose deployment: recorded by digest, updated safely,
//! rolled back exactly. This library exists so that the rules can be tested and fuzzed in place;
//! its API follows the binary's needs and promises nothing else.

mod app;
mod backup;
mod change;
mod cli;
mod commands;
mod compose;
mod deployment;
mod docker;
mod drift;
mod entry;
mod error;
mod health;
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
mod secrets;
mod store;
mod ui;
mod update;

pub use entry::main;

/// What the fuzz targets and the benchmarks reach.
#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    pub use crate::model::history::Release;
    pub use crate::model::manifest::{Manifest, Service};
    pub use crate::model::reference::{Digest, Platform, Reference, Tag};
    pub use crate::registry::auth::Challenge;
    pub use crate::registry::{DockerConfig, link};
}
