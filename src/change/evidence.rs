//! What is kept of releases so that their images can be known later by content: the bytes of their
//! manifests and configurations, what their images are made of, and which of them this host has only by keep-tag.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::Result;
use futures_util::StreamExt as _;

use super::keep;
use crate::app::App;
use crate::deployment::{Deployment, Record};
use crate::identity;
use crate::images::Arrived;
use crate::model::history::Release;
use crate::model::image_store::ImageStore;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Digest, Platform, Repository};
use crate::observe::LocalImages;
use crate::registry::ManifestName;
use crate::store::{self, Lock};

/// How many manifests are asked for at once.
const REQUESTS_AT_ONCE: usize = 16;

/// What was found out about some releases and is to be kept.
#[derive(Debug, Default)]
pub struct Evidence {
    objects: BTreeMap<Digest, Vec<u8>>,
    fingerprints: BTreeMap<Digest, Digest>,
    /// Whether the daemon finds the image of a release by its digest.
    named: BTreeMap<Digest, bool>,
    /// In which store the daemon has them, where that is not noted.
    image_store: Option<ImageStore>,
    /// Whether the deployment is not, or not known to be, where its images were kept last.
    is_elsewhere: bool,
}

/// A release whose image is local now.
pub struct Seen<'s> {
    /// Its service.
    pub service: &'s Service,
    /// The release.
    pub release: &'s Release,
    /// Its image.
    pub arrived: &'s Arrived,
    /// Whether its registry has just been asked about it, and may be again.
    pub may_ask: bool,
}

impl Evidence {
    /// What is not kept yet of these releases. What a registry does not give is done without: it
    /// is wanted by a host that has lost its names, and that is rare.
    pub async fn gather(app: &App, seen: &[Seen<'_>]) -> Self {
        let mut evidence = Self::default();
        if let Ok(docker) = app.docker().await {
            let now = docker.host().await.ok().map(|host| host.image_store);
            evidence.image_store = now.filter(|now| app.store.image_store() != Some(*now));
        }
        evidence.is_elsewhere = app.store.places().is_ok_and(|places| {
            let now = store::resolve(app.store.directory());
            now.is_ok_and(|now| places.last() != Some(&now))
        });
        for Seen { service, release, arrived, .. } in seen {
            let Arrived { image, is_named, .. } = arrived;
            let recorded = release.bytes.image_id.iter().filter(|id| **id != image.id);
            for id in recorded.chain([&image.id]) {
                if app.store.fingerprint(id).as_ref() != Some(&image.fingerprint) {
                    evidence.fingerprints.insert(id.clone(), image.fingerprint.clone());
                }
            }
            if let (Some(digest), Source::Registry) = (&release.bytes.digest, service.source) {
                evidence.named.insert(digest.clone(), *is_named);
            }
        }
        let registered = seen.iter().filter_map(|one| {
            let digest = one.release.bytes.digest.as_ref()?;
            let wanted = Manifest {
                repository: one.service.image.as_ref()?,
                platform: &one.arrived.image.platform,
                may_ask: one.may_ask,
            };
            (one.service.source == Source::Registry).then_some((digest, wanted))
        });
        let mut done = HashSet::new();
        let wanted: Vec<_> = registered.filter(|(digest, _)| done.insert(*digest)).collect();
        let found = wanted.iter().map(|(digest, manifest)| manifest.with_entry(app, digest));
        let found: Vec<_> =
            futures_util::stream::iter(found).buffered(REQUESTS_AT_ONCE).collect().await;
        evidence.objects.extend(found.into_iter().flatten());
        evidence
    }

    /// What came by way of the releases that `services` have now, where nothing was made local.
    #[must_use]
    pub fn of_manifests<'s>(app: &App, services: impl Iterator<Item = &'s Service>) -> Self {
        let bytes = services.filter_map(Service::current).map(|current| &current.bytes);
        let digests = bytes.flat_map(|bytes| bytes.digest.iter().chain(&bytes.platform_digest));
        Self {
            objects: all_from(digests.cloned(), |one| app.registry().seen(one))
                .into_iter()
                .filter_map(|(digest, bytes)| Some((digest, bytes?)))
                .collect(),
            ..Self::default()
        }
    }

    /// Goes on with what the daemon finds by digest and what it does not; what Compose is told
    /// depends on that. Says whether anything has changed.
    pub fn rename(&self, deployment: &mut Deployment<'_>) -> bool {
        let Some(record) = deployment.recorded() else { return false };
        let names = self.names_after(record.only_by_keep_tag.clone());
        let has_changed = names != record.only_by_keep_tag;
        if has_changed {
            deployment.name_by_keep_tag(names);
        }
        has_changed
    }

    /// Notes for the next commands which digests the daemon does not find.
    ///
    /// # Errors
    ///
    /// Another dkv holds the lock (exit 4), or it cannot be noted (exit 3).
    pub fn note_names(&self, deployment: &mut Deployment<'_>) -> Result<()> {
        let app = deployment.app();
        let lock = app.lock_state()?;
        // Another dkv may have noted something since this one began.
        let names = self.names_after(app.store.only_by_keep_tag());
        app.store.note_only_by_keep_tag(&lock, &names)?;
        deployment.name_by_keep_tag(names);
        Ok(())
    }

    /// Which digests the daemon cannot find images by, where `before` were known to be such.
    fn names_after(&self, before: BTreeSet<Digest>) -> BTreeSet<Digest> {
        let mut names = before;
        for (digest, is_named) in &self.named {
            if *is_named {
                names.remove(digest);
            } else {
                names.insert(digest.clone());
            }
        }
        names
    }

    /// Tells of a host whose images are in another store than before, and of a deployment that is
    /// in another place, and keeps there what is remembered and here.
    ///
    /// # Errors
    ///
    /// The daemon does not answer (exit 6); it cannot be read where the deployment was (exit 3).
    pub async fn settle_store(&self, deployment: &Deployment<'_>) -> Result<()> {
        let app = deployment.app();
        let Some(record) = deployment.recorded() else { return Ok(()) };
        let mut changes = Vec::new();
        if let (Some(now), Some(before)) = (self.image_store, app.store.image_store()) {
            changes.extend((before != now).then(|| before.was_left().to_owned()));
        }
        if let Some(before) = app.store.places()?.last().filter(|_| self.is_elsewhere) {
            changes.push(match store::look(before) {
                Ok(None) => format!(
                    "the deployment was moved here from {}, whose keep-tags `dkv prune` removes",
                    before.display()
                ),
                Ok(Some(_)) => format!("this is a copy of the deployment in {}", before.display()),
                // That nobody may look there is no reason not to go on here.
                Err(_) => {
                    format!("the deployment was moved or copied here from {}", before.display())
                }
            });
        }
        if changes.is_empty() && !self.is_elsewhere {
            return Ok(());
        }
        let docker = app.docker().await?;
        let images = LocalImages::look(docker, Some(record), &app.store).await?;
        let (here, all) = keep::again(docker, record, &images).await?;
        for change in changes {
            app.ui.warn(format!(
                "{change}: {here} of {all} remembered releases are here, known by content, and \
                have their keep-tags again; others are pulled by digest when they are wanted"
            ));
        }
        Ok(())
    }

    /// Keeps what was found out, under the state lock.
    pub fn keep(&self, app: &App, lock: &Lock) {
        if let Some(store) = self.image_store
            && let Err(error) = app.store.note_image_store(lock, store)
        {
            tracing::warn!("{error:#}");
        }
        if self.is_elsewhere
            && let Err(error) = app.store.note_place(lock)
        {
            tracing::warn!("{error:#}");
        }
        let objects = self.objects.iter();
        let objects = objects.map(|(digest, bytes)| app.store.keep_object(lock, digest, bytes));
        let fingerprints = self.fingerprints.iter();
        let fingerprints =
            fingerprints.map(|(id, print)| app.store.keep_fingerprint(lock, id, print));
        for error in objects.chain(fingerprints).filter_map(Result::err) {
            tracing::warn!("{error:#}");
        }
    }

    /// As [`Self::keep`], for who does not hold the lock.
    ///
    /// # Errors
    ///
    /// Another dkv holds it (exit 4).
    pub fn keep_alone(&self, app: &App) -> Result<()> {
        let is_new = !self.objects.is_empty() || !self.fingerprints.is_empty();
        if is_new || self.image_store.is_some() || self.is_elsewhere {
            self.keep(app, &app.lock_state()?);
        }
        Ok(())
    }
}

/// A manifest whose bytes are to be kept.
struct Manifest<'s> {
    repository: &'s Repository,
    platform: &'s Platform,
    may_ask: bool,
}

impl Manifest<'_> {
    /// The bytes with this digest and, if they are an index, of its entry for the platform; without
    /// those that are kept already.
    async fn with_entry(&self, app: &App, digest: &Digest) -> Vec<(Digest, Vec<u8>)> {
        let mut found = Vec::new();
        let Some(bytes) = self.bytes(app, digest, &mut found).await else { return found };
        if let Some(entry) = crate::registry::entry_for(&bytes, self.platform) {
            self.bytes(app, &entry, &mut found).await;
        }
        found
    }

    /// The bytes with this digest; added to `found` if they are not kept yet.
    async fn bytes(
        &self,
        app: &App,
        digest: &Digest,
        found: &mut Vec<(Digest, Vec<u8>)>,
    ) -> Option<Vec<u8>> {
        if let Some(kept) = app.store.object(digest) {
            return Some(kept);
        }
        let came = app.registry().seen(digest);
        let bytes = match came {
            Some(bytes) => bytes,
            None if !self.may_ask => return None,
            None => {
                let name = ManifestName::Digest(digest.clone());
                match app.registry().manifest(self.repository, &name).await {
                    Ok(manifest) => manifest.bytes,
                    Err(error) => {
                        tracing::info!("the manifest {digest} is not kept: {error}");
                        return None;
                    }
                }
            }
        };
        found.push((digest.clone(), bytes.clone()));
        Some(bytes)
    }
}

/// Removes what is kept of releases that neither the manifest of `record` names, in a history, as
/// rejected or otherwise, nor an unfinished update.
pub(super) fn sweep(app: &App, record: &Record, lock: &Lock) {
    let Ok(journal) = app.store.read_journal() else { return };
    let journal = journal.map(|journal| journal.bytes).unwrap_or_default();
    let named = Digest::all_in(&record.snapshot.bytes).chain(Digest::all_in(&journal));
    let named = named.chain([Digest::of(&record.snapshot.bytes)]);
    let known = all_from(named, |digest| app.store.object(digest)).into_keys().collect();
    app.store.sweep_objects(lock, &known);
}

/// `digests` and everything that these lead on to, with their bytes as far as `object` has them.
fn all_from(
    digests: impl Iterator<Item = Digest>,
    object: impl Fn(&Digest) -> Option<Vec<u8>>,
) -> BTreeMap<Digest, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open: Vec<Digest> = digests.collect();
    while let Some(digest) = open.pop() {
        if found.contains_key(&digest) {
            continue;
        }
        let bytes = object(&digest);
        open.extend(bytes.iter().flat_map(|bytes| identity::parts(bytes)));
        found.insert(digest, bytes);
    }
    found
}
