//! Images that the daemon has: looking them up by name or digest, giving and taking tags.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Result;
use bollard::errors::Error;
use bollard::models::{ImageConfig, ImageInspect, ImageInspectRootFs, ImageSummary};
use bollard::query_parameters::{
    ListImagesOptions, ListImagesOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::container::moment;
use super::{Docker, PARALLEL_REQUESTS, is_not_found, status};
use crate::model::reference::{Digest, Platform, Reference, Repository, Tag};

/// How often the list of images is asked for before its failure counts, and the time between.
const LIST_TRIES: usize = 4;
const LIST_PAUSE: Duration = Duration::from_millis(250);

/// An image of the daemon, inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The daemon's own name for it.
    pub id: Digest,
    /// Its tags. Names that no reference grammar allows are left out.
    pub tags: Vec<(Repository, Tag)>,
    /// The manifest or index digests that it was pulled or pushed by.
    pub digests: Vec<(Repository, Digest)>,
    /// What it runs on.
    pub platform: Platform,
    /// When it was built, as its configuration claims.
    pub created_at: Option<DateTime<Utc>>,
    /// What it is made of, in one word that every store gives it: its layers, its settings, its
    /// platform and when it was built. The ID is that of the configuration on one store, and of a
    /// manifest or an index, which may change while the image stays the same, on another.
    pub fingerprint: Digest,
    /// The repositories that the daemon itself says it pulled the image from, or pushed it to, as
    /// engines do from API 1.53 on. Other names that it was given since are not among them.
    pub pulled_from: Vec<Repository>,
}

impl Image {
    /// The digests by which the daemon got it from `repository`.
    pub fn digests_of<'a>(
        &'a self,
        repository: &'a Repository,
    ) -> impl Iterator<Item = &'a Digest> {
        self.digests.iter().filter(move |(known, _)| known == repository).map(|(_, digest)| digest)
    }
}

/// An image as the list shows it: one request for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// The daemon's own name for it.
    pub id: Digest,
    /// Its tags.
    pub tags: Vec<(Repository, Tag)>,
    /// The manifest or index digests that it was pulled or pushed by.
    pub digests: Vec<(Repository, Digest)>,
}

/// One snapshot of the daemon's images, with what they are looked up by.
#[derive(Debug, Clone, Default)]
pub struct ImageList {
    images: Vec<ListedImage>,
    by_id: HashMap<Digest, usize>,
    by_tag: HashMap<(Repository, Tag), usize>,
    by_digest: HashMap<(Repository, Digest), usize>,
    by_any_digest: HashMap<Digest, usize>,
}

impl ImageList {
    /// All images.
    #[must_use]
    pub fn images(&self) -> &[ListedImage] {
        &self.images
    }

    /// The image that the daemon has by `repository@digest`.
    #[must_use]
    pub fn by_digest(&self, repository: &Repository, digest: &Digest) -> Option<&ListedImage> {
        let key = (repository.clone(), digest.clone());
        self.by_digest.get(&key).map(|index| &self.images[*index])
    }

    /// The image that carries `repository:tag` now.
    #[must_use]
    pub fn by_tag(&self, repository: &Repository, tag: &Tag) -> Option<&ListedImage> {
        let key = (repository.clone(), tag.clone());
        self.by_tag.get(&key).map(|index| &self.images[*index])
    }

    /// The image that goes by this digest, as its ID or in whatever repository.
    #[must_use]
    pub fn by_any_name(&self, digest: &Digest) -> Option<&ListedImage> {
        let index = self.by_id.get(digest).or_else(|| self.by_any_digest.get(digest))?;
        Some(&self.images[*index])
    }

    /// The image with this ID.
    #[must_use]
    pub fn by_id(&self, id: &Digest) -> Option<&ListedImage> {
        self.by_id.get(id).map(|index| &self.images[*index])
    }
}

impl FromIterator<ListedImage> for ImageList {
    fn from_iter<T: IntoIterator<Item = ListedImage>>(images: T) -> Self {
        let mut list = Self { images: images.into_iter().collect(), ..Self::default() };
        for (index, image) in list.images.iter().enumerate() {
            list.by_id.entry(image.id.clone()).or_insert(index);
            for name in &image.tags {
                list.by_tag.entry(name.clone()).or_insert(index);
            }
            for name in &image.digests {
                list.by_any_digest.entry(name.1.clone()).or_insert(index);
                list.by_digest.entry(name.clone()).or_insert(index);
            }
        }
        list
    }
}

/// What became of a tag that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untagged {
    /// It is gone now.
    Removed,
    /// It was not there.
    Absent,
    /// A container still needs it; another sweep may find it free.
    InUse,
}

impl Docker {
    /// The image that `name` (`repository:tag`, `repository@digest` or an image ID) means to the
    /// daemon; `None` if it has none.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer; kind Registry, when it describes no image.
    pub async fn image(&self, name: &str) -> Result<Option<Image>> {
        let request = async {
            match self.client.inspect_image(name).await {
                Ok(image) => Ok(Some(Some(image))),
                Err(error) if is_not_found(&error) => Ok(None),
                // The containerd store also has what is no image, and describes it halfway.
                Err(Error::JsonDataError { .. } | Error::JsonSerdeError { .. }) => Ok(Some(None)),
                Err(error) => Err(error),
            }
        };
        let found = self.answer(&format!("inspect the image {name}"), request).await?;
        let described = found.map(|image| {
            let image = image.ok_or_else(|| {
                crate::error::registry(format!("{name} is no image to run"))
                    .with_hint("check the image's name and the tag that it follows")
            })?;
            inspected(name, image)
        });
        described.transpose()
    }

    /// The images of many names, in their order, asked for in parallel.
    ///
    /// # Errors
    /// As [`Docker::image`]; the first failure ends it.
    pub async fn images(&self, names: &[String]) -> Result<Vec<Option<Image>>> {
        let requests: Vec<_> = names.iter().map(|name| self.image(name)).collect();
        futures_util::stream::iter(requests).buffered(PARALLEL_REQUESTS).try_collect().await
    }

    /// All images with their tags and digests, in one request. Every engine lists the digests by
    /// itself; told to, Podman lists nothing at all.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn image_list(&self) -> Result<ImageList> {
        // An image that goes while the list is made fails the whole list on the containerd store.
        let mut tries = 1..LIST_TRIES;
        let list = loop {
            let request = self.client.list_images(None::<ListImagesOptions>);
            let request = async {
                match request.await {
                    Err(error) if status(&error).is_some() && tries.next().is_some() => Ok(None),
                    answer => answer.map(Some),
                }
            };
            if let Some(list) = self.answer("list the images", request).await? {
                break list;
            }
            tokio::time::sleep(LIST_PAUSE).await;
        };
        Ok(list.into_iter().filter_map(listed).collect())
    }

    /// The platforms for which the daemon has images under `name`, a reference, where it can have
    /// several under one: in containerd's store, as engines say from API 1.47 on.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn platforms_of(&self, name: &str) -> Result<Vec<Platform>> {
        let filters = HashMap::from([("reference", vec![name])]);
        let options = ListImagesOptionsBuilder::new().manifests(true).filters(&filters).build();
        let request = self.client.list_images(Some(options));
        let found = self.answer(&format!("list the platforms of {name}"), request).await?;
        let manifests = found.into_iter().flat_map(|image| image.manifests.unwrap_or_default());
        let available = manifests.filter(|manifest| manifest.available);
        let platforms = available.filter_map(|manifest| Some(manifest.image_data?.platform));
        Ok(platforms
            .map(|platform| Platform {
                os: platform.os.unwrap_or_default(),
                architecture: platform.architecture.unwrap_or_default(),
                variant: platform.variant.filter(|variant| !variant.is_empty()),
            })
            .collect())
    }

    /// Gives `source` (a reference or an image ID) the tag `repository:tag`, taking it from
    /// whatever had it.
    ///
    /// # Errors
    /// Kind Docker, when there is no such image or the daemon does not answer.
    pub async fn tag(&self, source: &str, repository: &Repository, tag: &Tag) -> Result<()> {
        let options =
            TagImageOptionsBuilder::new().repo(repository.as_written()).tag(tag.as_str()).build();
        let what = format!("tag {source} as {}", repository.with_tag(tag));
        self.answer(&what, self.client.tag_image(source, Some(options))).await
    }

    /// Takes the tag `repository:tag` away, and the image with it if nothing else names or uses it.
    /// Never forced, and a tag only, never an image ID.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn untag(&self, repository: &Repository, tag: &Tag) -> Result<Untagged> {
        let name = repository.with_tag(tag);
        let request = async {
            match self.client.remove_image(&name, None::<RemoveImageOptions>, None).await {
                Ok(_) => Ok(Untagged::Removed),
                Err(error) => match status(&error) {
                    Some(404) => Ok(Untagged::Absent),
                    Some(409) => Ok(Untagged::InUse),
                    _ => Err(error),
                },
            }
        };
        self.answer(&format!("remove the tag {name}"), request).await
    }
}

fn inspected(name: &str, image: ImageInspect) -> Result<Image> {
    let fingerprint = fingerprint(&image);
    let id = image.id.unwrap_or_default();
    Ok(Image {
        id: id.parse().map_err(|error| {
            crate::error::docker(format!("the daemon's ID for the image {name}: {error}"))
        })?,
        tags: tags(&image.repo_tags.unwrap_or_default()),
        digests: digests(&image.repo_digests.unwrap_or_default()),
        platform: Platform {
            os: image.os.unwrap_or_default(),
            architecture: image.architecture.unwrap_or_default(),
            variant: image.variant.filter(|variant| !variant.is_empty()),
        },
        created_at: image.created.as_deref().and_then(moment),
        fingerprint,
        pulled_from: image
            .identity
            .and_then(|identity| identity.pull)
            .into_iter()
            .flatten()
            .filter_map(|pull| pull.repository?.parse().ok())
            .map(|reference: Reference| reference.repository)
            .collect(),
    })
}

/// What an image is made of. Engines differ in which empty settings they leave out.
fn fingerprint(image: &ImageInspect) -> Digest {
    let filled = |text: &Option<String>| text.clone().unwrap_or_default();
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort_unstable();
        list
    };
    let config = image.config.clone().unwrap_or_default();
    let labels: BTreeMap<String, String> = config.labels.unwrap_or_default().into_iter().collect();
    let layers = image.root_fs.as_ref().and_then(|root| root.layers.clone()).unwrap_or_default();
    let commands = [config.entrypoint, config.cmd, config.shell, config.on_build];
    let health = config.healthcheck.unwrap_or_default();
    let times = [health.interval, health.timeout, health.start_period, health.retries];
    let content = serde_json::json!([
        [filled(&image.os), filled(&image.architecture), filled(&image.variant)],
        image.created.as_deref().and_then(moment).map(|time| time.timestamp_micros()),
        layers,
        commands.map(Option::unwrap_or_default),
        config.env.unwrap_or_default(),
        [filled(&config.user), filled(&config.stop_signal)],
        filled(&config.working_dir).trim_end_matches('/'),
        labels,
        [sorted(&config.exposed_ports), sorted(&config.volumes)],
        health.test.unwrap_or_default(),
        times.map(Option::unwrap_or_default),
    ]);
    Digest::of(content.to_string().as_bytes())
}

/// What an image with this configuration is made of, in the word that a daemon which has it leads
/// to; `None` if it is no configuration.
#[must_use]
pub fn fingerprint_of_configuration(bytes: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Configuration {
        os: Option<String>,
        architecture: Option<String>,
        variant: Option<String>,
        created: Option<String>,
        config: Option<ImageConfig>,
        rootfs: Layers,
    }
    #[derive(Deserialize)]
    struct Layers {
        diff_ids: Vec<String>,
    }
    let Configuration { os, architecture, variant, created, config, rootfs } =
        serde_json::from_slice(bytes).ok()?;
    let root_fs = ImageInspectRootFs { layers: Some(rootfs.diff_ids), ..Default::default() };
    let root_fs = Some(root_fs);
    let image =
        ImageInspect { os, architecture, variant, created, config, root_fs, ..Default::default() };
    Some(fingerprint(&image))
}

fn listed(image: ImageSummary) -> Option<ListedImage> {
    Some(ListedImage {
        id: image.id.parse().ok()?,
        tags: tags(&image.repo_tags),
        digests: digests(&image.repo_digests),
    })
}

/// The proper ones of the daemon's tags; an image without any is listed as `<none>:<none>`.
fn tags(texts: &[String]) -> Vec<(Repository, Tag)> {
    let references = texts.iter().filter_map(|text| text.parse::<Reference>().ok());
    references.filter_map(|reference| Some((reference.repository, reference.tag?))).collect()
}

/// The proper ones of the daemon's digests; an image without any is listed as `<none>@<none>`.
fn digests(texts: &[String]) -> Vec<(Repository, Digest)> {
    let references = texts.iter().filter_map(|text| text.parse::<Reference>().ok());
    references.filter_map(|reference| Some((reference.repository, reference.digest?))).collect()
}
