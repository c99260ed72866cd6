//! A registry: two releases of every repository, one of which the moving tag names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::engine::Image;
use super::scenario::{RegistryFault, Scenario};
use super::world::World;
use crate::model::reference::Digest;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A release: what the registry keeps of it.
#[derive(Debug, Clone)]
pub(super) struct Release {
    pub(super) manifest: Vec<u8>,
    pub(super) digest: String,
    pub(super) image: String,
    config: Vec<u8>,
}

impl Release {
    pub(super) fn of(repository: &str, version: u32) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"of": repository, "version": version.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(format!("{repository} {version}").as_bytes()).as_str()]},
        });
        let config = config.to_string().into_bytes();
        let image = Digest::of(&config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": image.as_str()},
            "layers": [],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest).as_str().to_owned();
        Self { manifest, digest, image: image.as_str().to_owned(), config }
    }

    /// The image that an engine has after it was pulled by digest.
    pub(super) fn image(&self, repository: &str, version: u32) -> Image {
        Image {
            id: self.image.clone(),
            tags: [].into(),
            digests: [format!("{repository}@{}", self.digest)].into(),
            repository: repository.to_owned(),
            version,
        }
    }
}

pub(super) struct Registry {
    releases: BTreeMap<(String, u32), Release>,
    latest: BTreeMap<String, u32>,
}

impl Registry {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let mut releases = BTreeMap::new();
        let mut latest = BTreeMap::new();
        for service in scenario.services.iter().filter(|service| service.is_tracked) {
            let repository = &service.repository;
            latest.insert(repository.clone(), scenario.latest(repository));
            for version in [1, 2] {
                releases.insert((repository.clone(), version), Release::of(repository, version));
            }
        }
        Self { releases, latest }
    }

    /// The release that a tag or digest names.
    pub(super) fn find(&self, repository: &str, name: &str) -> Option<(u32, &Release)> {
        let latest = self.latest.get(repository)?;
        let found = self.releases.iter().find(|((of, version), release)| {
            of == repository
                && version <= latest
                && (release.digest == name
                    || format!("1.{}", version - 1) == name
                    || (name == "latest" && version == latest))
        });
        found.map(|((_, version), release)| (*version, release))
    }
}

/// An answer: status, headers, body.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// What the registry says; the text of a failure without an answer.
pub(super) async fn answer(world: &Arc<World>, method: &str, path: &str) -> Result<Answer, String> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    let fault = world.registry_fault();
    if let Some(fault) = fault {
        world.note(format!("registry: {fault:?} at {method} {path}"));
    }
    match fault {
        Some(RegistryFault::Unreachable) => return Err("connection refused".to_owned()),
        Some(RegistryFault::Status(status)) => return Ok((status, Vec::new(), Vec::new())),
        Some(RegistryFault::Slow(time)) => tokio::time::sleep(time).await,
        None => {}
    }
    let state = world.state();
    let registry = &state.registry;
    let not_found = (404, Vec::new(), Vec::new());
    let Some(rest) = path.strip_prefix("/v2/") else { return Ok(not_found) };
    if let Some(name) = rest.strip_suffix("/tags/list") {
        let repository = format!("r.example/{name}");
        let tags: &[&str] = match registry.latest.get(&repository) {
            Some(2) => &["1.0", "1.1", "latest"],
            Some(_) => &["1.0", "latest"],
            None => return Ok(not_found),
        };
        let headers = vec![("content-type", "application/json".to_owned())];
        return Ok((200, headers, json!({"name": name, "tags": tags}).to_string().into_bytes()));
    }
    if let Some((_, digest)) = rest.split_once("/blobs/") {
        let found = registry.releases.values().find(|release| release.image == digest);
        return Ok(found.map_or(not_found, |release| (200, Vec::new(), release.config.clone())));
    }
    let Some((name, reference)) = rest.split_once("/manifests/") else { return Ok(not_found) };
    let Some((_, release)) = registry.find(&format!("r.example/{name}"), reference) else {
        return Ok(not_found);
    };
    let headers = vec![
        ("content-type", MANIFEST.to_owned()),
        ("docker-content-digest", release.digest.clone()),
        ("content-length", release.manifest.len().to_string()),
    ];
    let body = if method == "HEAD" { Vec::new() } else { release.manifest.clone() };
    Ok((200, headers, body))
}
