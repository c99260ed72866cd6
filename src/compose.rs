//! Compose files and the Compose command line.
//!
//! [`files`] knows which files make up a deployment, [`argv`] turns what is to be done into a
//! command line (pure), [`run`] is the one place that starts Compose, [`config`] is the typed
//! answer of `compose config`, [`lines`] reads image lines without Compose, [`rewrite`] changes
//! them in place, and [`template`] knows which files are made from others.

pub mod argv;
pub mod config;
pub mod dotenv;
pub mod files;
pub mod lines;
#[cfg(test)]
mod real;
pub mod rewrite;
pub mod run;
pub mod template;

pub use argv::{Action, Generation, Set};
pub use config::Project;
pub use files::Files;
pub use run::{Compose, Environment, Output, Tool, is_running};
