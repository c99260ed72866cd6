//! What the daemon calls the releases of a deployment.

use anyhow::Result;

use crate::docker::{Docker, ImageList};
use crate::model::history::Release;
use crate::model::manifest::Service;
use crate::model::reference::{Digest, Repository};

/// What the daemon calls the releases of a manifest. Without the daemon's list (the default), what
/// the record says.
#[derive(Debug, Clone, Default)]
pub struct LocalImages(ImageList);

impl LocalImages {
    /// Asks the daemon for all its images at once.
    ///
    /// # Errors
    ///
    /// The daemon does not answer (exit 6).
    pub async fn list(docker: &Docker) -> Result<Self> {
        Ok(Self(docker.image_list().await?))
    }

    /// The image ID of a release on this host: what the daemon has by its pin, else what was
    /// recorded, which may have been on a host of another platform.
    #[must_use]
    pub fn id(&self, service: &Service, release: &Release) -> Option<Digest> {
        let pinned = service.image.as_ref().and_then(|repository| {
            let digests = release.bytes.digest.iter().chain(&release.bytes.platform_digest);
            digests
                .filter_map(|digest| self.0.by_digest(repository, digest))
                .map(|image| image.id.clone())
                .next()
        });
        pinned.or_else(|| release.bytes.image_id.clone())
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
        let image = self.0.by_id(id)?;
        image
            .digests
            .iter()
            .find(|(known, _)| known == repository)
            .map(|(_, digest)| digest.clone())
    }
}
