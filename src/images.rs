//! Making images local and keeping them: resolve a tag once, pull exactly what it named, check that
//! the daemon has it, and give it a tag of our own that no clean-up takes away.

mod early;

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;

use crate::docker::LayerState::{self, Complete, Downloaded, Downloading, Exists, Extracting};
use crate::docker::{self, Docker, Image, ImageList, PullRequest, PullTarget};
use crate::error::{self, Error};
use crate::identity::Identity;
use crate::model::history::{Bytes, Release};
use crate::model::image_store::ImageStore;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Digest, Platform, Repository, Tag};
use crate::plan;
use crate::registry::{self, Login};
use crate::store::Store;
use crate::ui::{ItemProgress, Progress, Ui};
pub use early::Early;

/// An image that shall be local.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For messages: the service, or the Compose service where there is no manifest.
    pub name: String,
    /// Where it lives.
    pub repository: Repository,
    /// Which bytes, or which tag where the bytes are not known.
    pub target: PullTarget,
    /// The tag to show; none for bytes that only a digest names.
    pub tag: Option<Tag>,
    /// The keep-tag to give it.
    pub keep: Option<Tag>,
    /// Everything that the record knows of the bytes.
    pub bytes: Bytes,
    /// The platform that it is for, if that is not the host's.
    pub platform: Option<Platform>,
    /// Whether it was built on this host, and so can only be here.
    pub is_local: bool,
}

impl Wanted {
    /// The image of `release`, a release of `service`.
    #[must_use]
    pub fn release(service: &Service, release: &Release, deployment: &str) -> Option<Self> {
        let target = match &release.bytes.digest {
            Some(digest) => PullTarget::Digest(digest.clone()),
            None => PullTarget::Tag(release.tag.clone()),
        };
        Some(Self {
            name: service.name.to_string(),
            repository: service.image.clone()?,
            target,
            tag: Some(release.tag.clone()),
            keep: plan::keep_tag(release, deployment),
            bytes: release.bytes.clone(),
            platform: service.platform.clone(),
            is_local: service.source == Source::Local,
        })
    }

    /// The image of a Compose service that no manifest knows, for the platform that it shall run on
    /// where that is said; `None` if its name is no reference.
    #[must_use]
    pub fn named(compose_service: &str, image: &str, platform: Option<Platform>) -> Option<Self> {
        let reference: crate::model::reference::Reference = image.parse().ok()?;
        let tag = match reference.tag {
            Some(tag) => tag,
            None => crate::model::manifest::DEFAULT_TRACK.parse().ok()?,
        };
        Some(Self {
            name: compose_service.to_owned(),
            repository: reference.repository,
            bytes: Bytes::of(reference.digest.clone()),
            target: reference
                .digest
                .map_or_else(|| PullTarget::Tag(tag.clone()), PullTarget::Digest),
            tag: Some(tag),
            keep: None,
            platform,
            is_local: false,
        })
    }

    /// Whether the name that `other` is wanted by is one that this image will have once it is here.
    #[must_use]
    pub fn is_named_by(&self, other: &Self) -> bool {
        let is_tag = |tag: &Option<Tag>| tag.is_some() && *tag == other.tag;
        self.repository == other.repository
            && match &other.target {
                PullTarget::Digest(_) => self.target == other.target,
                PullTarget::Tag(_) => is_tag(&self.tag) || is_tag(&self.keep),
            }
    }

    /// The service and what it shall run, for people.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!("{} {}", self.name, self.label())
    }

    /// What it shall run, for people.
    fn label(&self) -> String {
        self.tag.as_ref().map_or_else(|| self.reference(), ToString::to_string)
    }

    /// What the daemon is asked for.
    #[must_use]
    pub fn reference(&self) -> String {
        match (&self.target, &self.bytes.image_id) {
            (_, Some(id)) if self.is_local => id.to_string(),
            (PullTarget::Digest(digest), _) => self.repository.with_digest(digest),
            (PullTarget::Tag(tag), _) => self.repository.with_tag(tag),
        }
    }
}

/// An image that is local now.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// What the daemon says about it.
    pub image: Image,
    /// Whether it came over the network just now.
    pub pulled: bool,
    /// Whether the daemon finds it by the digest that was asked for. What was loaded from a file,
    /// or came from a mirror, it has only under other names.
    pub is_named: bool,
}

/// The parts that fetching needs.
#[derive(Clone)]
pub struct Fetcher {
    /// The daemon.
    pub docker: Docker,
    /// The registries, for logins.
    pub registry: registry::Client,
    /// The terminal.
    pub ui: Ui,
    /// How many images are pulled at once.
    pub jobs: usize,
    /// What was kept of the bytes of releases.
    pub store: Store,
}

/// An image that the daemon has, and whether it finds it by the name that it is asked for.
struct Local {
    image: Image,
    is_named: bool,
}

impl Fetcher {
    /// Makes all of `wanted` local, several at once; each result stands at the place of its wish.
    pub async fn fetch(&self, wanted: &[Wanted]) -> Vec<Result<Arrived>> {
        match self.look(wanted).await {
            Ok(local) => self.complete(wanted, local).await,
            Err(error) => repeated(&error, wanted.len()),
        }
    }

    /// Whether each of `wanted` is local, under whatever name.
    ///
    /// # Errors
    ///
    /// The daemon does not answer (exit 6).
    pub async fn are_local(&self, wanted: &[Wanted]) -> Result<Vec<bool>> {
        Ok(self.look(wanted).await?.iter().map(Option::is_some).collect())
    }

    /// What the daemon has of `wanted`.
    async fn look(&self, wanted: &[Wanted]) -> Result<Vec<Option<Local>>> {
        let list = OnceCell::new();
        let looks: Vec<_> = wanted.iter().map(|one| self.local(one, &list)).collect();
        futures_util::stream::iter(looks).buffered(docker::PARALLEL_REQUESTS).try_collect().await
    }

    /// As [`Self::fetch`], after what began early has ended; what failed then has failed.
    pub async fn fetch_rest(
        &self,
        wanted: &[Wanted],
        early: Option<Early>,
    ) -> Vec<Result<Arrived>> {
        let mut failed = match early {
            Some(early) => early.failures().await,
            None => std::collections::BTreeMap::new(),
        };
        let rest: Vec<Wanted> =
            wanted.iter().filter(|one| !failed.contains_key(&one.name)).cloned().collect();
        let mut results: Vec<Result<Arrived>> = self.fetch(&rest).await;
        for (place, one) in wanted.iter().enumerate() {
            if let Some(error) = failed.remove(&one.name) {
                results.insert(place, Err(error));
            }
        }
        results
    }

    /// As [`Self::fetch`], but asks the registry what the tags name now, whatever is local.
    pub async fn fetch_anew(&self, wanted: &[Wanted]) -> Vec<Result<Arrived>> {
        match self.look(wanted).await {
            Ok(mut local) => {
                for (one, local) in wanted.iter().zip(&mut local) {
                    local.take_if(|_| matches!(one.target, PullTarget::Tag(_)));
                }
                self.complete(wanted, local).await
            }
            Err(error) => repeated(&error, wanted.len()),
        }
    }

    /// Pulls what is not in `local`, checks everything, and gives it its keep-tags.
    async fn complete(&self, wanted: &[Wanted], local: Vec<Option<Local>>) -> Vec<Result<Arrived>> {
        let missing = local.iter().filter(|image| image.is_none()).count();
        let progress = Arc::new(self.ui.progress("Pulling", "Pulled", missing));
        let work = wanted.iter().zip(local).map(|(wanted, local)| {
            let progress = Arc::clone(&progress);
            async move {
                let mut arrived = match local {
                    Some(Local { image, is_named: false }) if is_foreign(wanted, &image) => {
                        self.name(wanted, image).await
                    }
                    Some(Local { image, is_named }) => Arrived { image, pulled: false, is_named },
                    None if wanted.is_local => return Err(gone(wanted)),
                    None => self.pull(wanted, &progress).await?,
                };
                if let Some(platform) = self.misses(wanted, &arrived.image).await? {
                    let right = Wanted { platform: Some(platform), ..wanted.clone() };
                    arrived = self.pull(&right, &progress).await?;
                }
                self.check(wanted, &arrived.image)?;
                if let Some(keep) = &wanted.keep
                    && !arrived.image.tags.contains(&(wanted.repository.clone(), keep.clone()))
                {
                    self.docker.tag(arrived.image.id.as_str(), &wanted.repository, keep).await?;
                }
                // On some stores a name in the repository is all that the digest lacked.
                if !arrived.is_named && !wanted.is_local {
                    arrived.is_named = self.docker.image(&wanted.reference()).await?.is_some();
                }
                Ok(arrived)
            }
        });
        futures_util::stream::iter(work).buffered(self.jobs.max(1)).collect().await
    }

    /// An image that is here under another repository's name alone. Its registry, if it can be
    /// reached, gives it its own at no cost; what is here serves without.
    async fn name(&self, wanted: &Wanted, image: Image) -> Arrived {
        match self.docker.pull(&self.request(wanted).await, &|_| ()).await {
            Ok(()) => Arrived { image, pulled: true, is_named: true },
            Err(error) => {
                tracing::info!("{}: known by content alone: {error:#}", wanted.name);
                Arrived { image, pulled: false, is_named: false }
            }
        }
    }

    /// The platform of which the release has an image, where what is here is another's: pulled by
    /// somebody for that one, by the same name.
    async fn misses(&self, wanted: &Wanted, image: &Image) -> Result<Option<Platform>> {
        let platform = match &wanted.platform {
            Some(platform) => platform,
            None => self.docker.platform().await?,
        };
        let Some(digest) = wanted.bytes.digest.as_ref().filter(|_| !wanted.is_local) else {
            return Ok(None);
        };
        if fits(image, Some(platform)) {
            return Ok(None);
        }
        let index = self.store.object(digest).or_else(|| self.registry.seen(digest));
        let entry = index.and_then(|bytes| registry::entry_for(&bytes, platform));
        Ok(entry.map(|_| platform.clone()))
    }

    /// What came of pulling an image for a platform. A daemon that has another platform's under the
    /// same name may keep that.
    async fn of_platform(&self, wanted: &Wanted, arrived: Result<Arrived>) -> Result<Arrived> {
        let Some(platform) = &wanted.platform else { return arrived };
        let reference = wanted.reference();
        let here = match &arrived {
            Ok(arrived) => Some(arrived.image.clone()),
            Err(_) => self.docker.image(&reference).await.ok().flatten(),
        };
        let Some(image) = here else { return arrived };
        if serves(&self.docker, &reference, &image, Some(platform)).await? {
            return arrived;
        }
        let mut message =
            format!("{reference} is here for {} only, and {platform} is needed", image.platform);
        let mut kind = error::Kind::Docker;
        if let Err(error) = &arrived {
            message = format!("{message}; it could not be pulled for that: {error:#}");
            if error::is_unanswered(error) {
                kind = error::kind(error);
            }
        }
        let hint = format!("`docker rmi {reference}` lets go of it; then run the command again");
        Err(Error::new(kind, message).with_hint(hint).into())
    }

    /// Pulls one image, unless the daemon has it.
    async fn bring(
        &self,
        wanted: &Wanted,
        list: &OnceCell<ImageList>,
        progress: &Progress,
    ) -> Result<()> {
        match self.local(wanted, list).await? {
            Some(_) => Ok(()),
            None => self.pull(wanted, progress).await.map(drop),
        }
    }

    /// What the daemon has of one image: by the name that it is asked for, else by its content.
    /// `list` is asked for when the first image needs it.
    async fn local(&self, wanted: &Wanted, list: &OnceCell<ImageList>) -> Result<Option<Local>> {
        let named = match self.docker.image(&wanted.reference()).await {
            // What is no image is refused where its service is the only one that fails.
            Err(error) if error::kind(&error) == error::Kind::Registry => return Ok(None),
            answer => answer?,
        };
        if let Some(image) = named {
            let (reference, platform) = (wanted.reference(), wanted.platform.as_ref());
            if wanted.is_local || serves(&self.docker, &reference, &image, platform).await? {
                return Ok(Some(Local { image, is_named: true }));
            }
        }
        if !wanted.bytes.is_known() {
            return Ok(None);
        }
        let list = list.get_or_try_init(|| self.docker.image_list()).await?;
        let Some(id) = search(&self.docker, list, wanted, &self.store).await? else {
            return Ok(None);
        };
        let found = self.docker.image(id.as_str()).await?;
        Ok(found.map(|image| Local { image, is_named: false }))
    }

    /// What the daemon is asked to pull, with the login for its registry.
    async fn request(&self, wanted: &Wanted) -> PullRequest {
        PullRequest {
            repository: wanted.repository.clone(),
            target: wanted.target.clone(),
            platform: wanted.platform.clone(),
            credentials: self.registry.credentials(&wanted.repository).await.map(for_daemon),
        }
    }

    /// Pulls one image, once more without a login if the registry refused it.
    async fn pull(&self, wanted: &Wanted, progress: &Progress) -> Result<Arrived> {
        let label = wanted.label();
        let item = progress.item(&wanted.name, &label);
        let sums = std::sync::Mutex::new(LayerSums::default());
        let on_event = |event| {
            if let docker::PullEvent::Layer { id, state } = event
                && let Ok(mut sums) = sums.lock()
            {
                sums.note(id, state);
                item.update(sums.progress());
            }
        };
        let mut request = self.request(wanted).await;
        let mut outcome = self.docker.pull(&request, &on_event).await;
        if request.credentials.is_some()
            && outcome.as_ref().err().and_then(docker::pull_failure)
                == Some(docker::PullFailure::Denied)
        {
            self.registry.use_anonymous(&wanted.repository);
            request.credentials = None;
            let anonymous = self.docker.pull(&request, &on_event).await;
            if anonymous.is_ok() {
                tracing::warn!(
                    "the login for {} was refused; pulled without it",
                    wanted.repository.host()
                );
                outcome = anonymous;
            }
        }
        let checked = match outcome {
            Ok(()) => self.docker.image(&wanted.reference()).await.context(label),
            Err(error) => Err(error),
        };
        let arrived = checked.and_then(|image| {
            let image = image.with_context(|| {
                let message = format!(
                    "the daemon says it pulled {}, but does not have it",
                    wanted.reference()
                );
                error::docker(message)
                    .with_hint("look at the daemon's log, then run the command again")
            })?;
            Ok(Arrived { image, pulled: true, is_named: true })
        });
        let arrived = self.of_platform(wanted, arrived).await;
        match &arrived {
            Ok(_) => item.done(""),
            Err(error) => item.failed(&format!("{error:#}")),
        }
        arrived
    }

    /// Whether the local image is the recorded one.
    fn check(&self, wanted: &Wanted, image: &Image) -> Result<()> {
        // A digest names bytes by itself; an image ID only guards what nothing but a tag names.
        if let (PullTarget::Tag(tag), Some(recorded)) = (&wanted.target, &wanted.bytes.image_id)
            && image.id != *recorded
            && !wanted.is_local
        {
            let message = format!(
                "{}: {} is another image now ({}) than the recorded one ({})",
                wanted.name,
                wanted.repository.with_tag(tag),
                image.id.short(),
                recorded.short()
            );
            return Err(error::docker(message)
                .with_hint("`dkv version-history` shows what else can be rolled back to")
                .into());
        }
        Ok(())
    }
}

/// Whether an image that the daemon has by a name is for the platform that a service has, if it has
/// one. Compose runs no other under that name.
#[must_use]
pub fn fits(image: &Image, platform: Option<&Platform>) -> bool {
    let found = &image.platform;
    found.architecture.is_empty() || platform.is_none_or(|wanted| registry::runs(wanted, found))
}

/// Whether the daemon has an image for this platform by `name`. Where it has several by one name,
/// `image`, which it describes, is the host's.
///
/// # Errors
/// The daemon does not answer.
pub async fn serves(
    docker: &Docker,
    name: &str,
    image: &Image,
    platform: Option<&Platform>,
) -> Result<bool> {
    let Some(platform) = platform.filter(|platform| !fits(image, Some(platform))) else {
        return Ok(true);
    };
    if docker.host().await?.image_store == ImageStore::Classic {
        return Ok(false);
    }
    let here = docker.platforms_of(name).await?;
    Ok(here.iter().any(|found| registry::runs(platform, found)))
}

/// The images of `wanted`, each once; those of two platforms are two.
pub fn each_once(wanted: impl IntoIterator<Item = Wanted>) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    wanted.into_iter().filter(|one| seen.insert((one.reference(), one.platform.clone()))).collect()
}

/// The ID of the image among those of `list` that is the one that is wanted, whatever it is called:
/// what shows that it is the one is its content. The daemon is asked only where the list does not
/// show it.
///
/// # Errors
///
/// The daemon does not answer (exit 6).
pub async fn search(
    docker: &Docker,
    list: &ImageList,
    wanted: &Wanted,
    store: &Store,
) -> Result<Option<Digest>> {
    let identity = identity_of(&wanted.bytes, store);
    if let Some(listed) = identity.ids().iter().find_map(|id| list.by_any_name(id)) {
        return Ok(Some(listed.id.clone()));
    }
    // What was made anew elsewhere may go by one of our own names here.
    for tag in wanted.keep.iter().chain(&wanted.tag).filter(|_| identity.has_fingerprint()) {
        let Some(listed) = list.by_tag(&wanted.repository, tag) else { continue };
        if let Some(image) = docker.image(listed.id.as_str()).await?
            && identity.is(&image)
        {
            tracing::info!("{}: {} is the recorded image", wanted.name, image.id);
            return Ok(Some(image.id));
        }
    }
    Ok(None)
}

/// Whether none of an image's names is in the repository that it is wanted from.
fn is_foreign(wanted: &Wanted, image: &Image) -> bool {
    !wanted.is_local
        && !image.tags.iter().any(|(repository, _)| *repository == wanted.repository)
        && image.digests_of(&wanted.repository).next().is_none()
}

/// By what an image shows that it has these bytes, with what was kept of them.
#[must_use]
pub fn identity_of(bytes: &Bytes, store: &Store) -> Identity {
    let object = |digest: &Digest| store.object(digest);
    let fingerprint = |id: &Digest| {
        let seen = store.fingerprint(id);
        seen.or_else(|| docker::fingerprint_of_configuration(&store.object(id)?))
    };
    Identity::of(bytes, object, fingerprint)
}

/// A build that this host no longer has.
#[must_use]
pub fn gone(wanted: &Wanted) -> anyhow::Error {
    let name = wanted
        .tag
        .as_ref()
        .map_or_else(|| wanted.reference(), |tag| wanted.repository.with_tag(tag));
    let message = format!(
        "{}: the build {name} is not on this host any more, and local images are never pulled",
        wanted.name
    );
    error::docker(message)
        .with_hint(
            "`dkv build` makes a new one; `dkv version-history` shows the builds that are \
            remembered",
        )
        .into()
}

/// One failure for every wish, because none could be tried.
fn repeated(error: &anyhow::Error, times: usize) -> Vec<Result<Arrived>> {
    let (kind, hint) =
        (error::kind(error), error::find(error).and_then(Error::hint).map(str::to_owned));
    let again = (0..times).map(|_| {
        let again = Error::new(kind, format!("{error:#}"));
        Err(match &hint {
            Some(hint) => again.with_hint(hint.clone()),
            None => again,
        }
        .into())
    });
    again.collect()
}

/// The login in the daemon's form.
fn for_daemon(credentials: registry::Credentials) -> docker::Credentials {
    let server_address = credentials.server;
    match credentials.login {
        Login::Password { username, password } => docker::Credentials {
            username,
            password: password.expose().to_owned(),
            identity_token: None,
            server_address,
        },
        Login::IdentityToken(token) => docker::Credentials {
            identity_token: Some(token.expose().to_owned()),
            server_address,
            ..docker::Credentials::default()
        },
    }
}

/// The progress of an image as the sum of its layers'.
#[derive(Default)]
struct LayerSums {
    layers: std::collections::BTreeMap<String, (LayerState, u64, u64)>,
}

impl LayerSums {
    fn note(&mut self, id: String, state: LayerState) {
        let (last, current, total) = self.layers.entry(id).or_insert((state, 0, 0));
        *last = state;
        match state {
            Downloading { current: bytes, total: all } => {
                *current = bytes;
                *total = all.unwrap_or(*total).max(bytes);
            }
            Downloaded | Extracting { .. } | Complete => *current = *total,
            _ => {}
        }
    }

    fn progress(&self) -> ItemProgress<'static> {
        let mut states = self.layers.values().map(|(state, ..)| state);
        let done = states.clone().filter(|state| matches!(state, Complete | Exists)).count();
        let extracting = states.clone().any(|state| matches!(state, Extracting { .. }));
        let downloading = states.any(|state| matches!(state, Downloading { .. }));
        ItemProgress {
            current_bytes: self.layers.values().map(|(_, current, _)| current).sum(),
            total_bytes: self.layers.values().map(|(.., total)| total).sum(),
            layers_done: done,
            layers_total: self.layers.len(),
            phase: if extracting && !downloading { "extracting" } else { "downloading" },
        }
    }
}

/// The repository of a service whose images are settled.
///
/// # Errors
///
/// They are not (exit 3).
pub fn image_of(service: &Service) -> Result<&Repository> {
    Ok(service.image.as_ref().ok_or_else(|| {
        error::state(format!("service `{}` has no `image` in the manifest", service.name))
    })?)
}
