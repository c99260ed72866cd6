//! The words of the domain and their rules: no I/O, no clock, no runtime.
#![deny(clippy::disallowed_methods)]

pub mod duration;
pub mod env_file;
pub mod history;
pub mod image_line;
pub mod image_store;
pub mod interpolation;
pub mod manifest;
pub mod operation;
pub mod purpose;
pub mod reference;
pub mod track;
pub mod version;
pub mod yaml;
