//! Keep-tags: what is recorded is kept before it is written, what no history remembers is let go
//! after it.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context as _, Result};

use crate::deployment::{Deployment, Record};
use crate::docker::{Docker, Untagged};
use crate::error;
use crate::model::history::Release;
use crate::model::manifest::Service;
use crate::model::reference::{Reference, Repository, Tag};
use crate::observe::LocalImages;
use crate::plan::{self, Step};
use crate::store::{Lock, Store};

/// Makes sure that what `steps` record is kept. It was when it was fetched; since then another dkv
/// may have let go of the same image, because no history remembered it yet.
///
/// # Errors
///
/// The image is gone, or the daemon does not answer (exit 6).
pub(super) async fn ensure(docker: &Docker, steps: &[Step], hash: &str) -> Result<()> {
    let changed: Vec<&Step> = steps.iter().filter(|step| step.is_change()).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let list = docker.image_list().await?;
    for step in changed {
        let (Some(repository), Some(current)) = (&step.after.image, step.after.current()) else {
            continue;
        };
        let (Some(tag), Some(id)) = (plan::keep_tag(current, hash), &current.bytes.image_id) else {
            continue;
        };
        // A build that was loaded again has another ID here than where it was recorded.
        let kept = list.by_tag(repository, &tag);
        if kept.is_some_and(|image| image.id == *id || list.by_id(id).is_none()) {
            continue;
        }
        docker.tag(id.as_str(), repository, &tag).await.with_context(|| {
            error::docker(format!(
                "{}: the image of {} has vanished since it was fetched; nothing was recorded",
                step.after.name, current.tag
            ))
            .with_hint("run the command again")
        })?;
    }
    Ok(())
}

/// Gives every remembered release that is among `images` its keep-tag; how many these are, and of how
/// many.
///
/// # Errors
///
/// The daemon does not answer (exit 6).
pub(super) async fn again(
    docker: &Docker,
    record: &Record,
    images: &LocalImages,
) -> Result<(usize, usize)> {
    let (mut here, mut all) = (0, 0);
    for (service, release, repository, tag) in remembered(record) {
        all += 1;
        let Some(image) = images.find(service, release) else { continue };
        here += 1;
        if images.by_tag(repository, &tag).is_none() {
            docker.tag(image.id.as_str(), repository, &tag).await?;
        }
    }
    Ok((here, all))
}

/// The releases in the histories of `record`, with the keep-tags that they have.
fn remembered(record: &Record) -> impl Iterator<Item = (&Service, &Release, &Repository, Tag)> {
    record.services().flat_map(move |service| {
        service.history.entries().iter().filter_map(move |release| {
            let tag = plan::keep_tag(release, &record.hash)?;
            Some((service, release, service.image.as_ref()?, tag))
        })
    })
}

/// What the histories of `record` remember. The history of a service that is not listed any more
/// counts too, by the digits in its text.
pub struct Remembered<'r> {
    /// Whatever repository a service has now, what it had had before is kept under these too.
    tags: HashSet<Tag>,
    unlisted: Vec<&'r str>,
    prefix: String,
}

impl<'r> Remembered<'r> {
    /// What `record` remembers.
    #[must_use]
    pub fn of(record: &'r Record) -> Self {
        let releases = record.services().flat_map(|service| service.history.entries());
        Self {
            tags: releases.filter_map(|release| plan::keep_tag(release, &record.hash)).collect(),
            unlisted: record.manifest.unlisted_histories().collect(),
            prefix: format!("{}{}-", plan::KEEP_TAG_PREFIX, record.hash),
        }
    }

    /// Whether `tag` is a keep-tag of this deployment that no history remembers.
    #[must_use]
    pub fn has_forgotten(&self, tag: &Tag) -> bool {
        let digits = tag.as_str().strip_prefix(&self.prefix);
        digits.is_some_and(|digits| !self.unlisted.iter().any(|text| text.contains(digits)))
            && !self.tags.contains(tag)
    }
}

/// Removes the keep-tags that a container still used when their releases fell out of a history, and
/// that no container uses now; where another dkv has changed the manifest since it was read, the
/// next command does.
///
/// # Errors
///
/// Another dkv holds the lock (exit 4); the manifest cannot be read (exit 3).
pub(super) async fn sweep(deployment: &Deployment<'_>) -> Result<()> {
    let app = deployment.app();
    let Some(record) = deployment.recorded() else { return Ok(()) };
    if app.store.tags_in_use().is_empty() {
        return Ok(());
    }
    let lock = app.lock_state()?;
    if app.store.read_manifest()?.is_some_and(|now| now == record.snapshot) {
        forget(app.docker().await?, &[], record, &app.store, &lock).await;
    }
    Ok(())
}

/// Removes the keep-tags of the releases that fell out of a history, unless another history of the
/// deployment, which may share the repository, remembers them. What a container still uses stays,
/// for the next one who comes here to remove.
pub(super) async fn forget(
    docker: &Docker,
    steps: &[Step],
    record: &Record,
    store: &Store,
    lock: &Lock,
) {
    let remembered = Remembered::of(record);
    let before = store.tags_in_use();
    let mut gone: BTreeSet<(Repository, Tag)> = before
        .iter()
        .filter_map(|name| name.parse::<Reference>().ok())
        .filter_map(|name| Some((name.repository, name.tag?)))
        .collect();
    for step in steps {
        let Some(repository) = &step.after.image else { continue };
        let evicted = step.evicted.iter();
        let tags = evicted.filter_map(|release: &Release| plan::keep_tag(release, &record.hash));
        gone.extend(tags.map(|tag| (repository.clone(), tag)));
    }
    gone.retain(|(_, tag)| remembered.has_forgotten(tag));
    let mut in_use = BTreeSet::new();
    for (repository, tag) in gone {
        let name = repository.with_tag(&tag);
        match docker.untag(&repository, &tag).await {
            Ok(Untagged::Removed | Untagged::Absent) => {}
            Ok(Untagged::InUse) => {
                tracing::info!("{name} is still in use and stays");
                in_use.insert(name);
            }
            Err(error) => tracing::warn!("{name} cannot be removed: {error:#}"),
        }
    }
    if in_use != before
        && let Err(error) = store.note_tags_in_use(lock, &in_use)
    {
        tracing::warn!("{error:#}");
    }
}
