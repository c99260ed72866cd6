//! The commands: each a sequence of effects on what the rules have planned.

pub mod build;
pub mod generate_env;
pub mod logs;
pub mod migrate;
pub mod pin;
pub mod prune;
pub mod pull;
pub mod restore_data;
pub mod rollback;
pub mod run;
pub mod status;
mod survey;
mod unfinished;
pub mod update_safe;
pub mod updates;
pub mod verify;
pub mod version;
