//! Compose files and the Compose command line.
//!
//! [`files`] knows which files make up a deployment, [`texts`] reads them without Compose, [`text`]
//! is what one of them says, [`rewrite`] changes images in place, and [`template`] knows which files
//! are made from others. [`argv`] turns what is to be done into a command line (pure), [`run`] is
//! the one place that starts Compose, and [`config`] is the typed answer of `compose config`.
//! [`keys`] says of every key who decides on it, [`passed`] reads what an operator asks of Compose.

pub mod argv;
pub mod config;
pub mod dotenv;
pub mod files;
pub mod keys;
pub mod passed;
#[cfg(test)]
mod real;
pub mod rewrite;
pub mod run;
pub mod template;
pub mod text;
pub mod texts;

pub use argv::{Action, Generation, Pull, Recreate, Set, Up};
pub use config::{Awake, Project};
pub use files::Files;
pub use passed::{Passed, Passing};
pub use run::{Compose, Environment, Output, Standing, is_running};
pub use text::{ComposeText, FileKind, Site, sites};
pub use texts::{ComposeFiles, Line, Problem, ProblemKind, compose_like};
