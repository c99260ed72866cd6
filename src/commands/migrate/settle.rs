//! From a proposal to a service: what only registries can tell, and which source it comes from.

use anyhow::Result;

use crate::app::App;
use crate::error;
use crate::lookup::Lookup;
use crate::model::history::Bytes;
use crate::model::manifest::{DEFAULT_TRACK, Service, Source};
use crate::model::reference::{DOCKER_HUB, Digest, Tag};
use crate::plan::migrate::{Proposal, Rival};
use crate::plan::{self, Found, Intent};
use crate::registry::{self, ManifestKind, ManifestName};

/// A service to be recorded.
pub struct Settled {
    /// The service with its first release.
    pub service: Service,
    /// Where the version was found: `running`, `local-image`, `registry` or `compose-file`.
    pub found: &'static str,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The Compose services that name or run other versions.
    pub rivals: Vec<Rival>,
}

/// What is to be recorded, before it has a version.
struct Choice {
    source: Source,
    digest: Option<Digest>,
    platform_digest: Option<Digest>,
    is_index: Option<bool>,
    found: &'static str,
}

impl Choice {
    fn local(found: &'static str) -> Self {
        Self { source: Source::Local, digest: None, platform_digest: None, is_index: None, found }
    }

    fn registry(digest: Option<Digest>, found: &'static str) -> Self {
        Self { source: Source::Registry, digest, ..Self::local(found) }
    }
}

/// Settles one proposal. Registries that fail leave the record as far as it is known, with a note.
///
/// # Errors
///
/// The tag to follow is not one.
pub async fn settle(app: &App, lookup: &Lookup, proposal: Proposal) -> Result<Settled> {
    let mut notes = proposal.notes.clone();
    let default = || DEFAULT_TRACK.parse::<Tag>().map_err(|error| error::state(error.to_string()));
    let mut tag = proposal.tag.clone().map_or_else(default, Ok)?;
    let mut service = Service::new(proposal.name.clone(), Some(proposal.image.clone()));
    service.track.clone_from(&proposal.track);
    service.compose_services.clone_from(&proposal.compose_services);
    service.env_tag.clone_from(&proposal.env_tag);
    service.env_image.clone_from(&proposal.env_image);
    let choice = choose(app, lookup, &service, &proposal, &tag, &mut notes).await;
    service.source = choice.source;
    if let Some(digest) =
        choice.digest.as_ref().filter(|_| !proposal.is_confirmed && !service.is_moving(&tag))
        && let Some(warning) = contradiction(lookup, &service, &tag, digest).await
    {
        // Under the default tag the digest is looked for among all versions.
        notes.push(warning);
        tag = default()?;
    }
    let rivals = rivals(lookup, &service, &proposal, &choice).await;
    let mut found = Found {
        asked: tag.clone(),
        version: None,
        bytes: Bytes {
            digest: choice.digest,
            platform_digest: choice.platform_digest,
            image_id: proposal.image_id.clone(),
        },
    };
    if service.source == Source::Registry && service.is_moving(&tag) {
        let resolution = lookup.version_of(&service, &found, choice.is_index).await;
        if let Some(why) =
            resolution.as_ref().and_then(|resolution| resolution.why_unresolved.clone())
        {
            notes.push(format!("{tag} stays unresolved: {why}"));
        }
        found.version =
            resolution.and_then(|resolution| resolution.version).map(|(version, _)| version);
    }
    let after = plan::advance(&service, found, &Intent::Version, &app.stamp()).after;
    // A moving tag without bytes is no release: it would stay in the history as one that is lost.
    let is_nothing =
        after.current().is_some_and(|current| current.is_lost(|tag| service.is_moving(tag)));
    let service = if is_nothing { service } else { after };
    Ok(Settled { service, found: choice.found, notes, rivals })
}

/// What to say if the registry has other bytes under `tag` than `digest`. One that cannot be asked
/// leaves the Compose file its word.
async fn contradiction(
    lookup: &Lookup,
    service: &Service,
    tag: &Tag,
    digest: &Digest,
) -> Option<String> {
    match named(lookup, service, tag).await {
        Ok(named) if named.contains(digest) => None,
        Ok(_) => Some(format!(
            "the registry has another image called {tag} than {}, which is recorded without it",
            digest.short()
        )),
        Err(error) => {
            tracing::warn!(
                "{}: whether {tag} names {} could not be asked: {error:#}",
                service.name,
                digest.short()
            );
            None
        }
    }
}

/// The digests that the registry has for `tag`: of the index, and of its entry for this host.
async fn named(lookup: &Lookup, service: &Service, tag: &Tag) -> Result<Vec<Digest>> {
    let found = lookup.named(service, &ManifestName::Tag(tag.clone()), tag).await?.found;
    Ok(found.bytes.digest.into_iter().chain(found.bytes.platform_digest).collect())
}

/// The Compose services of the proposal that have another version than `choice`, as far as that can
/// be told: two names may mean the same bytes.
async fn rivals(
    lookup: &Lookup,
    service: &Service,
    proposal: &Proposal,
    choice: &Choice,
) -> Vec<Rival> {
    let recorded: Vec<&Digest> =
        choice.digest.iter().chain(&choice.platform_digest).chain(&proposal.digests).collect();
    let mut rivals = Vec::new();
    for rival in &proposal.rivals {
        let is_same = if rival.is_certain || service.source == Source::Local {
            false
        } else if let Some(digest) = &rival.image.digest {
            recorded.contains(&digest)
        } else {
            let tag = rival.image.tag.clone().or_else(|| DEFAULT_TRACK.parse().ok());
            let names = match tag {
                Some(tag) => named(lookup, service, &tag).await.unwrap_or_default(),
                None => Vec::new(),
            };
            names.iter().any(|name| recorded.contains(&name))
        };
        if !is_same {
            rivals.push(rival.clone());
        }
    }
    rivals
}

/// Where the image comes from, and by which digest it goes there.
async fn choose(
    app: &App,
    lookup: &Lookup,
    service: &Service,
    proposal: &Proposal,
    tag: &Tag,
    notes: &mut Vec<String>,
) -> Choice {
    let here = if proposal.is_running { "running" } else { "local-image" };
    if proposal.is_built {
        if proposal.image_id.is_some() {
            return Choice::local(here);
        }
        notes.push("it was never built here; `dkv build` builds and records it".to_owned());
        return Choice::local("compose-file");
    }
    if !proposal.digests.is_empty() {
        let found = if proposal.image_id.is_some() { here } else { "compose-file" };
        let (digest, is_index) = index_of(app, proposal).await;
        return Choice { is_index, ..Choice::registry(digest, found) };
    }
    let name = ManifestName::Tag(tag.clone());
    let Some(image_id) = &proposal.image_id else {
        return match lookup.named(service, &name, tag).await {
            Ok(named) => Choice {
                platform_digest: named.found.bytes.platform_digest,
                is_index: Some(named.is_index),
                ..Choice::registry(named.found.bytes.digest, "registry")
            },
            Err(error) => {
                let why = error.root_cause();
                notes.push(format!(
                    "no digest yet: {why}; `dkv pull-latest {}` records one",
                    service.name
                ));
                Choice::registry(None, "compose-file")
            }
        };
    };
    // It came from no registry. Perhaps it was built here and pushed: then the configuration is the
    // same.
    match app.registry().manifest(&proposal.image, &name).await {
        Ok(manifest) => match &manifest.kind {
            ManifestKind::Image { config, .. } if config.digest == *image_id => {
                Choice::registry(Some(manifest.digest), here)
            }
            _ => {
                notes.push(format!(
                    "the registry has another image called {tag}; what is here was never pulled, \
                        so it counts as local"
                ));
                Choice::local(here)
            }
        },
        Err(error) if says_no(&error, proposal) => {
            notes.push(format!(
                "it was never pulled and no registry has it, so it counts as local ({error})"
            ));
            Choice::local(here)
        }
        Err(error) => {
            notes.push(format!(
                "no digest yet, because the registry could not be asked: {error}; `dkv \
                    pull-latest {0}` records one, or \
                 `source: local` in the manifest if {0} is built on this host",
                service.name
            ));
            Choice::registry(None, here)
        }
    }
}

/// Whether a registry's failure means that it does not have the image. Docker Hub refuses what does
/// not exist as it refuses what is private, but among its official images nothing is private.
fn says_no(error: &registry::Error, proposal: &Proposal) -> bool {
    let is_official =
        proposal.image.host() == DOCKER_HUB && proposal.image.path().starts_with("library/");
    match error {
        registry::Error::NotFound { .. } => true,
        registry::Error::Unauthorized { .. } => is_official,
        _ => false,
    }
}

/// The digest to record of several by which one image came: the index's, which is the same on every
/// host.
async fn index_of(app: &App, proposal: &Proposal) -> (Option<Digest>, Option<bool>) {
    let first = proposal.digests.first().cloned();
    if proposal.digests.len() > 1 {
        for digest in &proposal.digests {
            let described =
                app.registry().head(&proposal.image, &ManifestName::Digest(digest.clone())).await;
            if described.is_ok_and(|described| described.is_index) {
                return (Some(digest.clone()), Some(true));
            }
        }
    }
    (first, None)
}
