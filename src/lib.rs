//! dkv keeps the image versions of a Docker Compose deployment: recorded by digest, updated safely,
//! rolled back exactly. This library exists so that the rules can be tested and fuzzed in place;
//! its API follows the binary's needs and promises nothing else.

pub mod app;
pub mod backup;
pub mod change;
pub mod cli;
pub mod commands;
pub mod compose;
pub mod deployment;
pub mod docker;
pub mod drift;
pub mod error;
pub mod health;
pub mod images;
pub mod interruption;
pub mod logs;
pub mod lookup;
pub mod members;
pub mod model;
pub mod observe;
pub mod pin;
pub mod plan;
pub mod process;
pub mod registry;
pub mod report;
pub mod secrets;
pub mod store;
pub mod ui;
pub mod update;
