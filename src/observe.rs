//! What the daemon has of the releases of a deployment.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use anyhow::Result;

use crate::deployment::Record;
use crate::docker::{Docker, ImageList, ListedImage};
use crate::images::{Wanted, search};
use crate::model::history::Release;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Digest, Repository};
use crate::store::Store;

/// The daemon's images, and which of them are releases of a manifest. Without the daemon's list
/// (the default), what the record says.
#[derive(Debug, Clone, Default)]
pub struct LocalImages {
    list: ImageList,
    /// The images that only their content shows to be releases, by what names these.
    by_content: HashMap<Digest, Digest>,
    /// The digests of those that the daemon does not find by digest.
    unnamed: HashSet<Digest>,
}

impl From<ImageList> for LocalImages {
    fn from(list: ImageList) -> Self {
        Self { list, ..Self::default() }
    }
}

impl Deref for LocalImages {
    type Target = ImageList;

    fn deref(&self) -> &ImageList {
        &self.list
    }
}

impl LocalImages {
    /// Asks the daemon for all its images at once, and for more only where the list does not show
    /// by name which image a remembered release is.
    ///
    /// # Errors
    ///
    /// The daemon does not answer (exit 6).
    pub async fn look(docker: &Docker, record: Option<&Record>, store: &Store) -> Result<Self> {
        let mut images = Self::from(docker.image_list().await?);
        let mut names = Vec::new();
        for service in record.iter().flat_map(|record| record.services()) {
            let deployment = record.map_or("", |record| &record.hash);
            for release in service.history.entries() {
                let Some(name) = release.bytes.name() else { continue };
                if images.find(service, release).is_some() {
                    continue;
                }
                let Some(wanted) = Wanted::release(service, release, deployment) else { continue };
                let Some(id) = search(docker, &images, &wanted, store).await? else { continue };
                images.by_content.insert(name.clone(), id);
                names.extend(service.image.as_ref().zip(release.bytes.digest.as_ref()));
            }
        }
        let references: Vec<String> =
            names.iter().map(|(repository, digest)| repository.with_digest(digest)).collect();
        let found = docker.images(&references).await?;
        let unnamed = names.into_iter().zip(found).filter(|(_, found)| found.is_none());
        images.unnamed = unnamed.map(|((_, digest), _)| digest.clone()).collect();
        Ok(images)
    }

    /// The image of a release, if this host has it.
    #[must_use]
    pub fn find(&self, service: &Service, release: &Release) -> Option<&ListedImage> {
        let repository = service.image.as_ref()?;
        let bytes = &release.bytes;
        let by_name = match (&bytes.image_id, &bytes.digest) {
            (Some(id), _) if service.source == Source::Local => self.list.by_id(id),
            (_, Some(digest)) => [Some(digest), bytes.platform_digest.as_ref()]
                .into_iter()
                .flatten()
                .find_map(|digest| self.list.by_digest(repository, digest)),
            (id, None) => {
                let image = self.list.by_tag(repository, &release.tag)?;
                id.as_ref().is_none_or(|id| *id == image.id).then_some(image)
            }
        };
        by_name.or_else(|| self.list.by_id(self.by_content.get(bytes.name()?)?))
    }

    /// With releases that the daemon has without finding them by digest.
    #[cfg(test)]
    pub fn known_by_content(mut self, ids: impl IntoIterator<Item = (Digest, Digest)>) -> Self {
        self.by_content.extend(ids);
        self.unnamed.extend(self.by_content.keys().cloned());
        self
    }

    /// Whether the daemon has the image of a release, but does not find it by its digest.
    #[must_use]
    pub fn is_unnamed(&self, release: &Release) -> bool {
        release.bytes.digest.as_ref().is_some_and(|digest| self.unnamed.contains(digest))
    }

    /// The image ID of a release on this host: what the daemon has of it, else what was recorded,
    /// which may have been on a host of another platform.
    #[must_use]
    pub fn id(&self, service: &Service, release: &Release) -> Option<Digest> {
        let found = self.find(service, release).filter(|_| release.bytes.is_known());
        found.map(|image| image.id.clone()).or_else(|| release.bytes.image_id.clone())
    }

    /// The release of a service's history that has the image ID; the current one is the likeliest.
    #[must_use]
    pub fn release<'s>(&self, service: &'s Service, id: &Digest) -> Option<&'s Release> {
        let releases = service.current().into_iter().chain(service.history.entries());
        releases.into_iter().find(|release| self.id(service, release).as_ref() == Some(id))
    }

    /// The digest by which the daemon got an image from a repository.
    #[must_use]
    pub fn digest(&self, repository: &Repository, id: &Digest) -> Option<Digest> {
        let image = self.list.by_id(id)?;
        image
            .digests
            .iter()
            .find(|(known, _)| known == repository)
            .map(|(_, digest)| digest.clone())
    }
}
