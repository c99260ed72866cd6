//! From a proposed service to one with its release: what only registries can tell, and which source
//! it comes from.

use anyhow::Result;

use crate::app::App;
use crate::error;
use crate::lookup::Lookup;
use crate::model::history::Bytes;
use crate::model::image_store::ImageStore;
use crate::model::manifest::{DEFAULT_TRACK, Service, Source};
use crate::model::reference::{DOCKER_HUB, Digest, Reference, Repository, ServiceName, Tag};
use crate::model::track;
use crate::plan::migrate::{Build, NewService, Present};
use crate::plan::{self, Found, Intent};
use crate::registry::{self, ManifestKind, ManifestName};
use crate::report::migrate::{Origin, OtherVersion};

/// A service to be recorded.
pub(super) struct Settled {
    /// The service with its first release.
    pub service: Service,
    /// Where the version was found.
    pub found: Origin,
    /// Why it is tracked.
    pub reason: String,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The Compose services that have other versions.
    pub others: Vec<OtherVersion>,
}

/// What is to be recorded, before it has a version.
struct Choice {
    source: Source,
    bytes: Bytes,
    is_index: Option<bool>,
    found: Origin,
}

impl Choice {
    fn local(found: Origin) -> Self {
        Self { source: Source::Local, ..Self::registry(None, found) }
    }

    fn registry(digest: Option<Digest>, found: Origin) -> Self {
        Self { source: Source::Registry, bytes: Bytes::of(digest), is_index: None, found }
    }
}

/// Settles one proposal. Registries that fail leave the record as far as it is known, with a note.
///
/// # Errors
///
/// The tag to follow is not one.
pub(super) async fn settle(
    app: &App,
    lookup: &Lookup,
    new: &NewService<'_>,
    prefix: &str,
) -> Result<Settled> {
    let mut notes = new.notes.clone();
    let default = DEFAULT_TRACK.parse::<Tag>().map_err(|error| error::state(error.to_string()))?;
    let mut tag = new.tag.clone().unwrap_or_else(|| default.clone());
    let mut service = new.service.clone();
    let choice = choose(app, lookup, new, &tag, &mut notes).await;
    service.source = choice.source;
    let choice = for_platform(app, &service, choice).await;
    let digest = choice.bytes.digest.as_ref();
    if let Some(digest) = digest.filter(|_| !new.is_confirmed && !service.is_moving(&tag)) {
        match named(lookup, &service, &tag).await {
            Ok(bytes) if bytes.has_digest(digest) => {}
            Ok(_) => {
                notes.push(format!(
                    "the registry has another image called {tag} than {}, which is recorded \
                    without it",
                    digest.short()
                ));
                // Under the default tag the digest is looked for among all versions.
                tag = default;
            }
            // A registry that cannot be asked leaves the Compose file its word.
            Err(error) => tracing::warn!(
                "{}: whether {tag} names {} could not be asked: {error:#}",
                service.name,
                digest.short()
            ),
        }
    }
    let image_id = new.present.map(|present| present.image_id.clone());
    let bytes = Bytes { image_id, ..choice.bytes };
    let mut found = Found { asked: tag.clone(), version: None, bytes };
    // A line that the digest does not lie on says nothing about its version.
    let asked = match &service.track {
        Some(track) if *track != tag && service.is_moving(&tag) => {
            Service { track: None, ..service.clone() }
        }
        _ => service.clone(),
    };
    if service.source == Source::Registry
        && service.is_moving(&tag)
        && let Some(resolution) = lookup.version_of(&asked, &found, choice.is_index).await
    {
        let why = resolution.why_unresolved;
        notes.extend(why.map(|why| format!("{tag} stays unresolved: {why}")));
        found.version = resolution.version.map(|(version, _)| version);
    }
    if !new.has_track && service.source == Source::Registry {
        notes.push(follow_digest(lookup, new, &mut service, &found).await);
    }
    let mut after = plan::advance(&service, found, &Intent::Version, &app.stamp()).after;
    after.held = service.held;
    // A moving tag without bytes is no release: it would stay in the history as one that is lost.
    let is_lost = |tag: &Tag| service.is_moving(tag);
    let is_nothing = after.current().is_some_and(|current| current.is_lost(is_lost));
    let service = if is_nothing { service } else { after };
    let mut others = Vec::new();
    for (other, image) in new.others(&service, prefix) {
        let is_same = match image.filter(|_| service.source == Source::Registry) {
            Some(image) => names_recorded(lookup, &service, image).await,
            None => false,
        };
        others.extend(Some(other).filter(|_| !is_same));
    }
    Ok(Settled { service, found: choice.found, reason: new.reason.clone(), notes, others })
}

/// The choice by the digest of the service's own platform, where it has one.
async fn for_platform(app: &App, service: &Service, choice: Choice) -> Choice {
    let (Some(platform), Some(repository)) = (&service.platform, &service.image) else {
        return choice;
    };
    let Some(digest) = choice.bytes.digest.clone() else { return choice };
    let manifest = app.registry().manifest(repository, &ManifestName::Digest(digest)).await;
    match manifest.ok().and_then(|manifest| manifest.platform_entry(platform)) {
        Some(own) => Choice { bytes: Bytes::of(Some(own)), is_index: Some(false), ..choice },
        None => choice,
    }
}

/// What a service does whose line has a digest and no tag, and why: it follows the tag by which this
/// host knows the image, `latest` if that names the digest, else the version that does; it is held
/// where nothing says which.
async fn follow_digest(
    lookup: &Lookup,
    new: &NewService<'_>,
    service: &mut Service,
    found: &Found,
) -> String {
    let name = &service.name;
    let image = service.image.as_ref();
    let here = new.present.into_iter().flat_map(|present| &present.tags);
    let here = here.filter(|(repository, _)| Some(repository) == image).map(|(_, tag)| tag);
    let here = here.filter(|tag| !tag.as_str().starts_with(plan::KEEP_TAG_PREFIX));
    let mut here: Vec<&Tag> = here.collect();
    here.sort_by_key(|tag| track::is_release(tag));
    let is_latest = match (here.first(), DEFAULT_TRACK.parse().ok(), &found.bytes.digest) {
        (None, Some(latest), Some(digest)) => {
            let named = named(lookup, service, &latest).await;
            named.is_ok_and(|bytes| bytes.has_digest(digest))
        }
        _ => false,
    };
    let followed = here.first().copied().or(found.version.as_ref().filter(|_| !is_latest)).cloned();
    match followed.filter(|tag| tag.as_str() != DEFAULT_TRACK) {
        Some(track) => {
            let why = if here.is_empty() { "names it" } else { "names it on this host" };
            let told = format!("its line has a digest and no tag: follows `{track}`, which {why}");
            service.track = Some(track);
            told
        }
        None if is_latest || !here.is_empty() => {
            "its line has a digest and no tag: follows `latest`, which names it".to_owned()
        }
        None => {
            service.held = true;
            format!(
                "its line has a digest and no tag, and no tag is known to name that: held as it \
                is; `dkv version-pull {name} TAG` takes TAG, and `dkv unhold {name}` lets it \
                follow `latest`"
            )
        }
    }
}

/// What the registry has under `tag`: the index, and its entry for this host.
async fn named(lookup: &Lookup, service: &Service, tag: &Tag) -> Result<Bytes> {
    Ok(lookup.named(service, &ManifestName::Tag(tag.clone()), tag).await?.found.bytes)
}

/// Whether the registry has under the tag of `image` what is recorded of `service`.
async fn names_recorded(lookup: &Lookup, service: &Service, image: &Reference) -> bool {
    let Some(tag) = image.tag.clone().or_else(|| DEFAULT_TRACK.parse().ok()) else { return false };
    let Some(current) = service.current() else { return false };
    named(lookup, service, &tag).await.is_ok_and(|bytes| {
        let mut digests = bytes.digest.iter().chain(&bytes.platform_digest);
        digests.any(|digest| current.bytes.has_digest(digest))
    })
}

/// Where the image comes from, and by which digest it goes there.
async fn choose(
    app: &App,
    lookup: &Lookup,
    new: &NewService<'_>,
    tag: &Tag,
    notes: &mut Vec<String>,
) -> Choice {
    let name = &new.service.name;
    let here = match new.present {
        Some(present) if present.is_running => Origin::Running,
        Some(_) => Origin::LocalImage,
        None => Origin::ComposeFile,
    };
    if new.build == Build::Only {
        if new.present.is_none() {
            notes.push("it was never built here; `dkv build` builds and records it".to_owned());
        }
        return Choice::local(here);
    }
    let origin = origin(app, new).await;
    if let Origins::Registry { digest, is_index } = origin {
        return Choice { is_index, ..Choice::registry(Some(digest), here) };
    }
    if let (Origins::Unknown(error), Build::None) = (&origin, new.build) {
        notes.push(not_asked(name, error));
        return Choice::registry(None, here);
    }
    if !matches!(origin, Origins::None)
        && !new.digests.is_empty()
        && (new.build == Build::None || was_pulled(app, new, notes).await)
    {
        let (digest, is_index) = index_of(app, new).await;
        return Choice { is_index, ..Choice::registry(digest, here) };
    }
    let Some(present) = new.present else {
        let named = lookup.named(&new.service, &ManifestName::Tag(tag.clone()), tag).await;
        return match named {
            Ok(named) => {
                if new.build == Build::OrPulled {
                    notes.push(
                        "it has a build section, too; a registry has it, so it counts as pulled: \
                        `source: local` in the manifest if it is built on this host"
                            .to_owned(),
                    );
                }
                Choice {
                    bytes: named.found.bytes,
                    is_index: Some(named.is_index),
                    ..Choice::registry(None, Origin::Registry)
                }
            }
            Err(error) if new.build == Build::OrPulled => {
                notes.push(format!(
                    "it was never built here, and no registry says that it has it ({}), so it \
                    counts as built here; `dkv build` builds and records it",
                    error.root_cause()
                ));
                Choice::local(here)
            }
            Err(error) => {
                let why = error.root_cause();
                notes.push(format!("no digest yet: {why}; `dkv pull-latest {name}` records one"));
                Choice::registry(None, here)
            }
        };
    };
    let Some(repository) = &new.service.image else { return Choice::local(here) };
    if new.build == Build::OrPulled {
        return Choice::local(here);
    }
    // It came from no registry. Perhaps it was built here and pushed, or loaded from an archive:
    // then a registry has the same content.
    match same_content(app, lookup, repository, tag, present).await {
        Ok(Some(choice)) => return choice,
        Ok(None) => notes.push(format!(
            "the registry has another image called {tag}; what is here was never pulled, so it \
            counts as local"
        )),
        Err(error) if says_no(&error, new) => notes.push(format!(
            "it was never pulled and no registry has it, so it counts as local ({error})"
        )),
        Err(error) => {
            notes.push(not_asked(name, &error));
            return Choice::registry(None, here);
        }
    }
    Choice::local(here)
}

/// Whether what is here under the name of an image with a build section came from a registry: it
/// has the digest by which the daemon knows it.
async fn was_pulled(app: &App, new: &NewService<'_>, notes: &mut Vec<String>) -> bool {
    let Some(repository) = &new.service.image else { return false };
    let mut failure = None;
    for digest in &new.digests {
        match app.registry().head(repository, &ManifestName::Digest(digest.clone())).await {
            Ok(_) => return true,
            Err(error) if says_no(&error, new) => {}
            Err(error) => failure = Some(error),
        }
    }
    let Some(error) = failure else { return false };
    // With the containerd store a build has such a digest as well, which is its image ID.
    let is_proof = new.present.is_none_or(|present| !new.digests.contains(&present.image_id));
    notes.push(format!(
        "whether it was built here or pulled could not be asked: {error}; it counts as {}",
        if is_proof {
            "pulled, because the daemon knows its digest: `source: local` in the manifest if it is \
            built on this host"
        } else {
            "built here: without `source: local` in the manifest its tag is followed"
        }
    ));
    is_proof
}

/// The release that a registry has under `tag`, if that is the content which is here.
async fn same_content(
    app: &App,
    lookup: &Lookup,
    repository: &Repository,
    tag: &Tag,
    present: &Present,
) -> Result<Option<Choice>, registry::Error> {
    let here = if present.is_running { Origin::Running } else { Origin::LocalImage };
    let mut manifest = app.registry().manifest(repository, &ManifestName::Tag(tag.clone())).await?;
    let digest = manifest.digest.clone();
    let mut bytes = Bytes::of(Some(digest.clone()));
    let is_index = matches!(manifest.kind, ManifestKind::Index(_));
    if is_index {
        let platform_digest = match lookup.platform() {
            Some(platform) => manifest.platform_entry(platform),
            None => None,
        };
        let Some(entry) = platform_digest else { return Ok(None) };
        bytes.platform_digest = Some(entry.clone());
        manifest = app.registry().manifest(repository, &ManifestName::Digest(entry)).await?;
    }
    let id = &present.image_id;
    let is_same = digest == *id
        || bytes.platform_digest.as_ref() == Some(id)
        || matches!(&manifest.kind, ManifestKind::Image { config, .. } if config.digest == *id);
    Ok(is_same.then(|| Choice {
        bytes,
        is_index: Some(is_index),
        ..Choice::registry(Some(digest), here)
    }))
}

/// What the daemon's names for an image say of where it came from.
enum Origins {
    /// The digests that it lists, if any, are those by which it got or gave the image.
    Listed,
    /// A registry has it.
    Registry {
        /// By this digest.
        digest: Digest,
        /// Whether that is an index, where somebody said so.
        is_index: Option<bool>,
    },
    /// No registry has it by any digest that the daemon lists.
    None,
    /// The registry could not be asked.
    Unknown(registry::Error),
}

/// Where an image came from. A daemon with containerd's store lists a digest for every image, built
/// and loaded ones too, and none for one that has lost its tag: there the registry has the word, or
/// what the daemon remembers of a pull.
async fn origin(app: &App, new: &NewService<'_>) -> Origins {
    let (Some(present), Some(repository)) = (new.present, &new.service.image) else {
        return Origins::Listed;
    };
    // Whoever records without a daemon has no image present.
    let Ok(docker) = app.docker().await else { return Origins::Listed };
    if !docker.host().await.is_ok_and(|host| host.image_store == ImageStore::Containerd) {
        return Origins::Listed;
    }
    let mut failure = None;
    let own = new.digests.iter().filter(|digest| **digest != present.image_id);
    for digest in std::iter::once(&present.image_id).chain(own) {
        match app.registry().head(repository, &ManifestName::Digest(digest.clone())).await {
            Ok(described) => {
                let (digest, is_index) = (digest.clone(), Some(described.is_index));
                return Origins::Registry { digest, is_index };
            }
            Err(error) if says_no(&error, new) => {}
            Err(error) => failure = Some(error),
        }
    }
    let image = docker.image(present.image_id.as_str()).await.ok().flatten();
    if image.is_some_and(|image| image.pulled_from.contains(repository)) {
        return Origins::Registry { digest: present.image_id.clone(), is_index: None };
    }
    failure.map_or(Origins::None, Origins::Unknown)
}

/// The note on a service whose registry could not be asked.
fn not_asked(name: &ServiceName, error: &registry::Error) -> String {
    format!(
        "no digest yet, because the registry could not be asked: {error}; `dkv pull-latest {name}` \
        records one, or `source: local` in the manifest if {name} is built on this host"
    )
}

/// Whether a registry's failure means that it does not have the image. Docker Hub refuses what does
/// not exist as it refuses what is private, but among its official images nothing is private.
fn says_no(error: &registry::Error, new: &NewService<'_>) -> bool {
    let is_official =
        new.service.image.as_ref().is_some_and(|image| {
            image.host() == DOCKER_HUB && image.path().starts_with("library/")
        });
    match error {
        registry::Error::NotFound { .. } => true,
        registry::Error::Unauthorized { .. } => is_official,
        _ => false,
    }
}

/// The digest to record of several by which one image came: the index's, which is the same on every
/// host.
async fn index_of(app: &App, new: &NewService<'_>) -> (Option<Digest>, Option<bool>) {
    let digests = &new.digests;
    if let Some(repository) = new.service.image.as_ref().filter(|_| digests.len() > 1) {
        for digest in digests {
            let name = ManifestName::Digest(digest.clone());
            let described = app.registry().head(repository, &name).await;
            if described.is_ok_and(|described| described.is_index) {
                return (Some(digest.clone()), Some(true));
            }
        }
    }
    (digests.first().cloned(), None)
}
