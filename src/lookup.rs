//! What registries and the daemon say about a service: which bytes its tag names, and which version
//! that is.

use anyhow::Result;

use crate::docker::{Docker, Image};
use crate::error::{self, Error};
use crate::images;
use crate::model::history::Bytes;
use crate::model::image_store::ImageStore;
use crate::model::manifest::{Ecr, Service, Source};
use crate::model::reference::{Digest, Platform, Repository, Tag};
use crate::model::version;
use crate::plan::Found;
use crate::registry::ecr_private::PrivateRegistry;
use crate::registry::resolve::{DEFAULT_CAP, EcrHint, Question, Resolution, Resolver};
use crate::registry::{self, ManifestKind, ManifestName, Unfit};
use crate::store::Store;

/// How many requests go to one registry at once; HEAD requests cost it little.
const REQUESTS_AT_ONCE: usize = 16;

/// Asks about services; one serves a whole run.
pub struct Lookup {
    registry: registry::Client,
    resolver: Resolver,
    ecr: Option<Ecr>,
    has_aws_credentials: bool,
    platform: Option<Platform>,
    /// Whether nobody else looks at what is new.
    is_close: bool,
}

impl Lookup {
    /// A lookup through `registry`. With the daemon's `platform`, new multi-platform images must
    /// have something for it; without, the platform of this program is what digests are compared
    /// for.
    #[must_use]
    pub fn new(
        registry: registry::Client,
        ecr: Option<Ecr>,
        has_aws_credentials: bool,
        platform: Option<Platform>,
    ) -> Self {
        Self {
            resolver: Resolver::new(registry.clone()),
            registry,
            ecr,
            has_aws_credentials,
            platform,
            is_close: false,
        }
    }

    /// The platform that images must have something for.
    #[must_use]
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// Says which services will be asked about, so that one token serves all of a registry's, and
    /// logs in to private ECR where the user has AWS credentials.
    pub async fn expect(&self, services: &[&Service]) {
        let repositories: Vec<&Repository> = services
            .iter()
            .filter(|service| service.source == Source::Registry)
            .filter_map(|service| service.image.as_ref())
            .collect();
        let mut hosts: Vec<PrivateRegistry> =
            repositories.iter().filter_map(|repository| self.private(repository)).collect();
        hosts.dedup_by(|one, other| one.host == other.host);
        for private in hosts.into_iter().filter(|_| self.has_aws_credentials) {
            match private.login().await {
                Ok(granted) => {
                    for repository in
                        repositories.iter().filter(|repository| repository.host() == private.host)
                    {
                        self.registry.supply_credentials(repository, granted.credentials.clone());
                    }
                }
                // The Docker configuration may have a login as well.
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
        self.registry.expect(repositories);
    }

    fn private(&self, repository: &Repository) -> Option<PrivateRegistry> {
        let configured = self.ecr.as_ref().filter(|ecr| ecr.is_private());
        let host = configured.map(|ecr| ecr.private_registry.split('/').next().unwrap_or_default());
        match configured {
            Some(ecr) if host == Some(repository.host()) => {
                Some(PrivateRegistry::new(repository.host(), &ecr.private_region))
            }
            _ => PrivateRegistry::of_host(repository.host()),
        }
    }

    /// From now on looks at what is new itself, because no daemon will before it is recorded.
    #[must_use]
    pub fn closely(self) -> Self {
        Self { is_close: true, ..self }
    }

    /// What `name` names in the service's repository: one HEAD request. What the history does not
    /// have is fetched too, one GET: an index, to make sure that it has something for this host,
    /// and anything that no daemon will look at.
    ///
    /// # Errors
    ///
    /// The registry fails or has no such tag, or what it has is no image for this host (exit 5).
    pub async fn named(
        &self,
        service: &Service,
        name: &ManifestName,
        asked: &Tag,
    ) -> Result<Named> {
        let repository = images::image_of(service)?;
        let described =
            self.registry.head(repository, name).await.map_err(|error| explain(service, error))?;
        let mut found = Found {
            asked: asked.clone(),
            version: None,
            bytes: Bytes::of(Some(described.digest.clone())),
        };
        let is_index = described.is_index;
        let mut entries = service.history.entries().iter();
        let known = entries.find(|entry| entry.bytes.digest.as_ref() == Some(&described.digest));
        let is_known = known.is_some();
        let recorded = known.and_then(|entry| entry.bytes.platform_digest.clone());
        // A service with a platform of its own is recorded by the digest of that platform's image:
        // no daemon before the containerd store has one index for two platforms, and Compose would
        // be given the host's. What was recorded for it by the index stays so.
        let has_own = service.platform.is_some() && is_index;
        // What an update found bad was an image, and will hardly be taken.
        let is_rejected = service.rejection(&described.digest).is_some();
        let is_looked_at = has_own || (!is_known && (is_index || (self.is_close && !is_rejected)));
        let host = self.platform.as_ref();
        let own = service.platform.as_ref().filter(|_| has_own || host.is_some());
        let platform = own.or(host);
        if let Some(platform) = platform.filter(|_| is_looked_at) {
            let image = repository.with_tag(asked);
            let entry = self.look(service, &image, described, platform).await?;
            if has_own && recorded != entry {
                found.bytes = Bytes::of(entry);
                return Ok(Named { found, is_index: false });
            }
            // What was looked at is known to be seen, also where only the manifest comes.
            let own = found.bytes.digest.clone().filter(|_| self.is_close);
            found.bytes.platform_digest = entry.or(own);
        }
        Ok(Named { found, is_index })
    }

    /// Makes sure that the bytes of `described` are there, and an image that runs on `platform`;
    /// the entry of an index for it. Where no daemon will, looks at the image itself too, which
    /// leaves its bytes to be kept.
    async fn look(
        &self,
        service: &Service,
        image: &str,
        described: registry::Described,
        platform: &Platform,
    ) -> Result<Option<Digest>> {
        let manifest = match described.fetched {
            Some(manifest) => manifest,
            None => self.promised(service, image, described.digest).await?,
        };
        let entry = manifest.entry_for(platform);
        let entry = entry.map_err(|unfit| self.refuse(service, image, unfit, platform))?;
        if self.is_close {
            let own = match &entry {
                Some(entry) => self.promised(service, image, entry.clone()).await?,
                None => manifest,
            };
            self.check_image(service, image, &own, platform).await?;
        }
        Ok(entry)
    }

    /// The manifest that a registry has just said `image` to be.
    async fn promised(
        &self,
        service: &Service,
        image: &str,
        digest: Digest,
    ) -> Result<registry::Manifest> {
        let repository = images::image_of(service)?;
        self.registry.manifest(repository, &digest.clone().into()).await.map_err(|error| {
            let registry::Error::NotFound { host, .. } = &error else {
                return explain(service, error);
            };
            let message = format!(
                "{}: {host} says that {image} is {digest}, and does not have that",
                service.name
            );
            error::registry(message)
                .with_hint("a cache on the way may be out of date; try again later")
                .into()
        })
    }

    /// Refuses what is no image for a `platform` host, whatever an index says of it.
    async fn check_image(
        &self,
        service: &Service,
        image: &str,
        manifest: &registry::Manifest,
        platform: &Platform,
    ) -> Result<()> {
        let unfit = match (&manifest.artifact, &manifest.kind) {
            (Some(artifact), _) => Unfit::NoImage(artifact.clone()),
            (None, ManifestKind::Index(_)) => Unfit::NoImage("an index in an index".to_owned()),
            (None, ManifestKind::Image { config, .. }) => {
                let repository = images::image_of(service)?;
                let found = self.registry.platform(repository, &config.digest).await;
                let found = found.map_err(|error| explain(service, error))?;
                match found.filter(|found| !registry::runs(platform, found)) {
                    Some(other) => Unfit::OtherPlatforms(vec![other.to_string()]),
                    None => return Ok(()),
                }
            }
        };
        Err(self.refuse(service, image, unfit, platform))
    }

    /// The error for what a host of `platform` cannot run.
    fn refuse(
        &self,
        service: &Service,
        image: &str,
        unfit: Unfit,
        platform: &Platform,
    ) -> anyhow::Error {
        let name = &service.name;
        match unfit {
            Unfit::NoImage(what) => {
                error::registry(format!("{name}: {image} is {what}, no image to run"))
                    .with_hint("check the image's name and the tag that it follows")
            }
            Unfit::OtherPlatforms(offered) => {
                let hint = format!("it has {}", offered.join(", "));
                let hint = match self.is_close {
                    true => format!(
                        "{hint}; `--platform` says for which machine it is recorded, this one is \
                            {}",
                        Platform::of_this_program()
                    ),
                    false => hint,
                };
                error::registry(format!("{name}: {image} has no image for {platform}"))
                    .with_hint(hint)
            }
        }
        .into()
    }

    /// Whether `digest`, which the manifest has for `service` and nobody here has seen, is one. The
    /// daemon is asked first, if there is one, then the registry: one HEAD request.
    pub async fn prove(
        &self,
        service: &Service,
        digest: &Digest,
        docker: Option<&Docker>,
    ) -> Proof {
        let repository = match images::image_of(service) {
            Ok(repository) => repository,
            Err(error) => return Proof::Unanswered(error),
        };
        if let Some(docker) = docker
            && let Some(proof) = prove_here(docker, repository, digest).await
        {
            return proof;
        }
        let name = ManifestName::Digest(digest.clone());
        match self.registry.head(repository, &name).await {
            Ok(_) => Proof::IsDigest,
            // Some registries stumble over what they have and is no manifest.
            Err(registry::Error::NotFound { host, .. } | registry::Error::Status { host, .. })
                if matches!(self.registry.platform(repository, digest).await, Ok(Some(_))) =>
            {
                Proof::IsImageId(format!("{host} has it as an image's configuration"))
            }
            Err(registry::Error::NotFound { host, .. }) => {
                Proof::IsNowhere(format!("{host} does not have it"))
            }
            Err(error) => Proof::Unanswered(explain(service, error)),
        }
    }

    /// The service without what its current release has for a digest, if nobody has seen it and its
    /// registry says that it is none.
    async fn without_false_digest(&self, service: &Service) -> Service {
        let mut known = service.clone();
        if let Some(current) = known.history.current_mut()
            && let Some(digest) = current.bytes.digest.clone()
            && matches!(self.prove(service, &digest, None).await, Proof::IsImageId(_))
        {
            current.unverified_digest = current.bytes.digest.take();
        }
        known
    }

    /// The service with the digest of its current release, where only the daemon knows it, or may
    /// know better: what dkv has not seen may be an image ID. Without `docker` the registry is asked,
    /// unless that has just named it: `found`.
    ///
    /// # Errors
    ///
    /// The daemon does not answer (exit 6).
    pub async fn known(
        &self,
        service: &Service,
        found: &Found,
        docker: Option<&Docker>,
    ) -> Result<Service> {
        let is_seen = service
            .current()
            .is_none_or(|current| current.bytes.digest.is_some() && current.bytes.are_seen());
        let has_found =
            service.current().is_some_and(|current| current.bytes.digest == found.bytes.digest);
        match docker {
            _ if service.source != Source::Registry || is_seen => Ok(service.clone()),
            None if has_found => Ok(service.clone()),
            None => Ok(self.without_false_digest(service).await),
            Some(docker) => with_known_digest(docker, service).await,
        }
    }

    /// Makes sure that a service's registry has `digest`, that its bytes are what that says, and
    /// that they are an image.
    ///
    /// # Errors
    ///
    /// It has not, or they are not (exit 5).
    pub async fn confirm(&self, service: &Service, digest: &Digest) -> Result<()> {
        let repository = images::image_of(service)?;
        let manifest = self.registry.manifest(repository, &digest.clone().into()).await;
        match manifest.map_err(|error| explain(service, error))?.artifact {
            None => Ok(()),
            Some(what) => Err(error::registry(format!(
                "{}: {} is {what}, no image to run",
                service.name,
                repository.with_digest(digest)
            ))
            .into()),
        }
    }

    /// What the tracked tag names now, with its version if the history does not know one for it.
    ///
    /// # Errors
    ///
    /// As for [`Self::named`].
    pub async fn latest(&self, service: &Service) -> Result<Latest> {
        self.latest_telling(service, |_| ()).await
    }

    /// As [`Self::latest`]; tells `on_found` which bytes the tag names before it looks up their
    /// version.
    ///
    /// # Errors
    ///
    /// As for [`Self::named`].
    pub async fn latest_telling(
        &self,
        service: &Service,
        on_found: impl FnOnce(&Found),
    ) -> Result<Latest> {
        let tag = track(service)?;
        let Named { mut found, is_index } =
            self.named(service, &ManifestName::Tag(tag.clone()), &tag).await?;
        on_found(&found);
        if service.history.entries().iter().any(|entry| {
            entry.bytes.digest.is_some()
                && entry.bytes.digest == found.bytes.digest
                && !service.is_moving(&entry.tag)
        }) {
            return Ok(Latest { found, resolution: None });
        }
        let resolution = self.version_of(service, &found, Some(is_index)).await;
        found.version = resolution
            .as_ref()
            .and_then(|resolution| resolution.version.clone())
            .map(|(tag, _)| tag);
        Ok(Latest { found, resolution })
    }

    /// The newest version in the service's repository, if its tags can be listed; with what may be
    /// missing of them.
    pub async fn newest(&self, service: &Service) -> Option<(Tag, Option<String>)> {
        let current = service.current().map(|current| &current.tag);
        let pattern = service.version_pattern.as_deref();
        self.resolver.newest(service.image.as_ref()?, &track(service).ok()?, pattern, current).await
    }

    /// Which version the bytes of `found` are; `None` if they have no digest to compare.
    pub async fn version_of(
        &self,
        service: &Service,
        found: &Found,
        is_index: Option<bool>,
    ) -> Option<Resolution> {
        let repository = service.image.clone()?;
        let question = Question {
            ecr: EcrHint { registry_id: None, private: self.private(&repository) },
            repository,
            tracked: track(service).ok()?,
            digest: found.bytes.digest.clone()?,
            is_index,
            platform: service
                .platform
                .clone()
                .or_else(|| self.platform.clone())
                .or_else(|| Some(Platform::of_this_program())),
            pattern: service.version_pattern.clone(),
            has_aws_credentials: self.has_aws_credentials,
            wants_newest: false,
            cap: DEFAULT_CAP,
            jobs: REQUESTS_AT_ONCE,
        };
        let resolution = self.resolver.version_of(&question).await;
        if let Some(why) = &resolution.why_unresolved {
            tracing::info!(
                "{}: {}:{} is unresolved: {why}",
                service.name,
                question.repository,
                question.tracked
            );
        }
        Some(resolution)
    }
}

/// What became of the question whether something is a digest.
#[derive(Debug)]
pub enum Proof {
    /// It is.
    IsDigest,
    /// It is an image's ID; how that shows.
    IsImageId(String),
    /// Its registry does not have it, or not any more; in words.
    IsNowhere(String),
    /// Nobody could say.
    Unanswered(anyhow::Error),
}

/// What this host's daemon can say to that. Where it calls images by the digests of their manifests,
/// an ID shows nothing.
async fn prove_here(docker: &Docker, repository: &Repository, digest: &Digest) -> Option<Proof> {
    if docker.image(&repository.with_digest(digest)).await.ok()?.is_some() {
        return Some(Proof::IsDigest);
    }
    let is_classic = docker.host().await.ok()?.image_store == ImageStore::Classic;
    let is_id = is_classic && docker.image(digest.as_str()).await.ok()?.is_some();
    is_id.then(|| Proof::IsImageId("it is what the daemon calls an image here".to_owned()))
}

/// What a name names.
#[derive(Debug)]
pub struct Named {
    /// The bytes.
    pub found: Found,
    /// Whether it is a multi-platform index.
    pub is_index: bool,
}

/// What a tracked tag names, and how its version was found out.
#[derive(Debug)]
pub struct Latest {
    /// The bytes, and their version if there is one.
    pub found: Found,
    /// How the version was looked for; `None` if the history knew it.
    pub resolution: Option<Resolution>,
}

/// What a local build's tracked tag names on this host, and the version that another tag of the
/// same image says.
///
/// A build that changed nothing is what it was: some stores give it another ID for the time at which
/// it was built.
///
/// # Errors
///
/// The daemon has no such image, or does not answer (exit 6).
pub async fn local(docker: &Docker, store: &Store, service: &Service, tag: &Tag) -> Result<Found> {
    let repository = images::image_of(service)?;
    let reference = repository.with_tag(tag);
    let image = docker.image(&reference).await?.ok_or_else(|| {
        error::docker(format!("service `{}`: there is no local image {reference}", service.name))
            .with_hint("`dkv build` builds it; local images are never pulled")
    })?;
    let names: Vec<Tag> = image
        .tags
        .iter()
        .filter(|(known, _)| known == repository)
        .map(|(_, tag)| tag.clone())
        .collect();
    let tracked = track(service)?;
    let version = if *tag == tracked {
        version::choose(&names, &tracked, service.version_pattern.as_deref())
    } else {
        None
    };
    let recorded = recorded_build(docker, store, service, &image).await?;
    let bytes = recorded.unwrap_or_else(|| Bytes::of_image(image.id));
    Ok(Found { asked: tag.clone(), version, bytes })
}

/// The bytes of the release that `image` is, as they were recorded.
async fn recorded_build(
    docker: &Docker,
    store: &Store,
    service: &Service,
    image: &Image,
) -> Result<Option<Bytes>> {
    let releases = service.current().into_iter().chain(service.history.entries());
    for bytes in releases.map(|release| &release.bytes) {
        let Some(id) = &bytes.image_id else { continue };
        let is_same = images::identity_of(bytes, store).is(image)
            || match docker.image(id.as_str()).await? {
                Some(recorded) => recorded.fingerprint == image.fingerprint,
                None => false,
            };
        if is_same {
            return Ok(Some(bytes.clone()));
        }
    }
    Ok(None)
}

/// The service with what the daemon can add to a current release that has no digest: the wizard
/// wrote image IDs, and an old `latest` is still what the daemon calls so.
///
/// # Errors
///
/// The daemon does not answer (exit 6).
pub async fn with_known_digest(docker: &Docker, service: &Service) -> Result<Service> {
    let mut known = service.clone();
    let (Some(repository), Source::Registry) = (&service.image, service.source) else {
        return Ok(known);
    };
    let Some(current) = known.history.current_mut() else { return Ok(known) };
    if let Some(digest) = current.bytes.digest.take() {
        // What dkv recorded it has seen; what others wrote may be an image ID.
        let is_id =
            current.bytes.image_id.is_none() && is_image_id(docker, repository, &digest).await?;
        if !is_id {
            current.bytes.digest = Some(digest);
            return Ok(known);
        }
        current.unverified_digest = Some(digest);
    }
    let image = match &current.unverified_digest {
        Some(id) => match docker.image(id.as_str()).await? {
            Some(image) => Some(image),
            None => docker.image(&repository.with_digest(id)).await?,
        },
        None => docker.image(&repository.with_tag(&current.tag)).await?,
    };
    if let Some(image) = image
        && let Some(digest) = image.digests_of(repository).next()
    {
        current.bytes.digest = Some(digest.clone());
        current.bytes.image_id = Some(image.id.clone());
        current.unverified_digest = None;
    }
    Ok(known)
}

/// Whether the daemon knows `digest` as an image's ID, and not as a digest in `repository`.
async fn is_image_id(docker: &Docker, repository: &Repository, digest: &Digest) -> Result<bool> {
    let image = docker.image(digest.as_str()).await?;
    Ok(image.is_some_and(|image| {
        image.id == *digest && !image.digests_of(repository).any(|known| known == digest)
    }))
}

/// The tag that a service follows.
///
/// # Errors
///
/// It is no tag (exit 3).
pub fn track(service: &Service) -> Result<Tag> {
    let track = service.track_name().parse();
    Ok(track.map_err(|why| error::state(format!("service `{}`: {why}", service.name)))?)
}

/// A registry's failure, with the service it was asked for.
fn explain(service: &Service, error: registry::Error) -> anyhow::Error {
    anyhow::Error::from(Error::from(error)).context(format!("service `{}`", service.name))
}
