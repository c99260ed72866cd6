//! What belongs to what: manifest services, Compose services and containers of one deployment.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::compose::Project;
use crate::docker::{Docker, ImageList};
use crate::model::history::Release;
use crate::model::manifest::{Manifest, Service};
use crate::model::reference::{Digest, Reference, Repository};

/// The repository that a Compose service runs, if its `image` is a proper reference.
#[must_use]
pub fn repository(project: &Project, compose_service: &str) -> Option<Repository> {
    let image = project.service(compose_service)?.image.as_ref()?;
    image.parse::<Reference>().ok().map(|reference| reference.repository)
}

/// The manifest service that a Compose service runs: the one whose `compose_services` lists it,
/// else the one with its image, else the one of its name (`_` and `-` alike).
#[must_use]
pub fn service_of<'a>(
    manifest: &'a Manifest,
    compose_service: &str,
    image: Option<&Repository>,
) -> Option<&'a Service> {
    let plain = |name: &str| name.replace('-', "_");
    let services = || manifest.services.values();
    let by_list = services()
        .find(|service| service.compose_services.iter().any(|listed| listed == compose_service));
    let has_image = |service: &&Service| image.is_some() && service.image.as_ref() == image;
    let is_namesake = |service: &&Service| plain(service.name.as_str()) == plain(compose_service);
    let mut by_image = services().filter(has_image);
    // Two manifest services may share a repository: then the name decides between them.
    let first = by_image.next();
    let by_image = match by_image.next() {
        Some(_) => services().filter(has_image).find(is_namesake).or(first),
        None => first,
    };
    // By name only where Compose says nothing about the image that could contradict it.
    by_list.or(by_image).or_else(|| services().find(is_namesake).filter(|_| image.is_none()))
}

/// Which manifest service each Compose service of `project` runs, as [`service_of`] finds it.
/// Untracked ones are left out.
#[must_use]
pub fn tracked<'a>(manifest: &'a Manifest, project: &Project) -> BTreeMap<String, &'a Service> {
    let find = |name: &str| service_of(manifest, name, repository(project, name).as_ref());
    project
        .services
        .iter()
        .filter_map(|service| Some((service.name.clone(), find(&service.name)?)))
        .collect()
}

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
            let digests = release.digest.iter().chain(&release.platform_digest);
            digests
                .filter_map(|digest| self.0.by_digest(repository, digest))
                .map(|image| image.id.clone())
                .next()
        });
        pinned.or_else(|| release.image_id.clone())
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
