//! Registries: the only HTTP in the crate.
//!
//! [`Client`] is a small client of the OCI distribution API (specification 1.1) for what versions
//! need: what a tag names ([`Client::head`]), manifests and small blobs checked against their
//! digests ([`Client::manifest`], [`Client::blob`]), and the list of tags ([`Client::tags`]).
//!
//! How it behaves on the network:
//! - The first request to a host goes alone and without a login; what it learns (plain HTTP or TLS
//!   on loopback, the authentication challenge) serves all later ones. Without authentication a run
//!   of `n` requests is `n` requests; with tokens it is one refused request and one token more.
//! - Tokens are fetched once for all repositories that were announced with [`Client::expect`],
//!   shared by all tasks, and renewed before they expire.
//! - A refused login falls back to anonymous access once, with a warning; the user's
//!   `config.json` is only read.
//! - TLS is verified always; plain HTTP is for loopback only. Redirects, `Link` pages and token
//!   servers that would leave safe ground are errors, and no login follows a redirect to another
//!   host.
//! - Names on Docker Hub are asked of the daemon's mirrors first, as the daemon does.
//! - Every body is capped, all that one registry is asked has one deadline, and only what is transient
//!   is tried again. What is kept of tags and manifests has its limits, whatever comes.

pub mod auth;
mod aws;
mod client;
mod credentials;
pub mod ecr_private;
mod ecr_public;
mod error;
mod host;
pub mod link;
mod manifest;
mod mirrors;
#[cfg(test)]
mod real_registry_tests;
pub mod resolve;
mod retry;
mod session;
mod tags;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use client::Client;
#[cfg(feature = "fuzzing")]
pub use credentials::DockerConfig;
pub use credentials::{Credentials, Login, Secret};
pub use error::Error;
pub use manifest::{Described, Manifest, ManifestKind, ManifestName, Unfit, entry_for, runs};
pub use tags::TagList;
pub use transport::Settings;
