//! `prune`: removes the keep-tags of releases that no history remembers any more.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use clap::Args;

use super::arguments::Confirmed;
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::change::{self, Remembered};
use crate::deployment::{Deployment, Record};
use crate::docker::{ContainerFilter, Docker, ImageList, Untagged};
use crate::model::reference::{Digest, Repository, Tag};
use crate::plan::KEEP_TAG_PREFIX;
use crate::report::Pruned;
use crate::store::{self, Store};

/// Remove the local tags that kept releases which no history remembers any more
///
/// Those of a deployment that was moved here, or copied and then removed, go as well.
#[derive(Debug, Args)]
pub struct Prune {
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Run for Prune {
    fn effect(&self) -> Effect {
        Effect::unless(self.confirmed.dry_run)
    }

    /// # Errors
    ///
    /// No manifest (exit 3), no daemon (exit 6), nobody said yes (exit 2).
    async fn run(self, app: &App) -> Result<Exit> {
        let Confirmed { yes, dry_run } = self.confirmed;
        let mut deployment = Deployment::open_recorded(app)?;
        let docker = app.docker().await?;
        let (list, used) = tokio::try_join!(docker.image_list(), used_images(docker))?;
        let gone = Gone::of(&app.store)?;
        let forgotten = forgotten(deployment.record()?, &gone, &list);
        let (free, in_use) = divide(&list, forgotten, &used);
        let mut report =
            Pruned { dry_run, removed: Vec::new(), in_use: in_use.into_iter().map(name).collect() };
        if dry_run {
            report.removed = free.into_iter().map(name).collect();
        } else if !free.is_empty() {
            if !yes {
                free.iter().for_each(|one| app.ui.status(name(one)));
            }
            let question = match free.len() {
                1 => "Remove 1 keep-tag that no history remembers?".to_owned(),
                many => format!("Remove {many} keep-tags that no history remembers?"),
            };
            if !app.ui.confirm(&question, yes, &app.command)? {
                app.ui.status("Nothing was removed");
                return Ok(Exit::Done);
            }
            // Whoever was asked took their time: what counts is what the histories say now, and
            // that they stay as they are until all is removed.
            let _lock = change::hold(&mut deployment)?;
            let remembered = Remembered::of(deployment.record()?);
            for one in free {
                if !remembered.has_forgotten(&one.1) && !gone.has(&one.1) {
                    continue;
                }
                match docker.untag(&one.0, &one.1).await? {
                    Untagged::Removed => report.removed.push(name(one)),
                    // A container that came meanwhile.
                    Untagged::InUse => report.in_use.push(name(one)),
                    Untagged::Absent => {}
                }
            }
        }
        app.show(&report, |report| {
            let verb = if dry_run { "would remove" } else { "removed" };
            report.removed.iter().for_each(|name| app.ui.data(format!("{verb} {name}")));
            report
                .in_use
                .iter()
                .for_each(|name| app.ui.note(format!("{name} is in use and stays")));
            if report.removed.is_empty() && report.in_use.is_empty() {
                app.ui
                    .status("Nothing to remove: every keep-tag of this deployment is in a history");
            }
        })?;
        Ok(Exit::Done)
    }
}

/// The images that containers were made from, running or not.
async fn used_images(docker: &Docker) -> Result<BTreeSet<Digest>> {
    let containers = docker.containers(&ContainerFilter::default()).await?;
    Ok(containers.into_iter().filter_map(|container| container.image_id).collect())
}

/// The places where this deployment, or what it is a copy of, was and where nothing is any more.
struct Gone {
    prefixes: Vec<String>,
}

impl Gone {
    /// Those that `store` knows.
    ///
    /// # Errors
    ///
    /// One of them cannot be looked at (exit 3): something may be there.
    fn of(store: &Store) -> Result<Self> {
        let here = store::resolve(store.directory())?;
        let mut prefixes = Vec::new();
        for place in store.places()? {
            // A link that was left there leads here.
            let is_gone = store::look(&place)?.is_none() || store::resolve(&place)? == here;
            if is_gone && place != here {
                prefixes.push(format!("{KEEP_TAG_PREFIX}{}-", store::hash_of_place(&place)));
            }
        }
        Ok(Self { prefixes })
    }

    /// Whether `tag` is a keep-tag of a deployment there.
    fn has(&self, tag: &Tag) -> bool {
        self.prefixes.iter().any(|prefix| tag.as_str().starts_with(prefix))
    }
}

/// The keep-tags of this deployment that no history remembers, and those of `gone` ones, in order.
fn forgotten<'l>(record: &Record, gone: &Gone, list: &'l ImageList) -> Vec<&'l Name> {
    let remembered = Remembered::of(record);
    let tags = list.images().iter().flat_map(|image| &image.tags);
    let is_forgotten = |(_, tag): &&Name| remembered.has_forgotten(tag) || gone.has(tag);
    let mut forgotten: Vec<&Name> = tags.filter(is_forgotten).collect();
    forgotten.sort();
    forgotten
}

fn name((repository, tag): &Name) -> String {
    repository.with_tag(tag)
}

/// A tag as the daemon lists it.
type Name = (Repository, Tag);

/// What still names an image: tags, and repositories of digests.
struct NamesLeft<'a> {
    tags: Vec<&'a Name>,
    digests: Vec<&'a Repository>,
}

/// Divides keep-tags into those that can go, one after the other, and those that are the last name
/// of an image that a container, running or not, was made from: the daemon would refuse to take
/// these.
fn divide<'a>(
    list: &ImageList,
    forgotten: Vec<&'a Name>,
    used: &BTreeSet<Digest>,
) -> (Vec<&'a Name>, Vec<&'a Name>) {
    let mut left: BTreeMap<&Digest, NamesLeft<'_>> = BTreeMap::new();
    forgotten.into_iter().partition(|one| {
        let Some(image) = list.by_tag(&one.0, &one.1).filter(|image| used.contains(&image.id))
        else {
            return true;
        };
        let NamesLeft { tags, digests } = left.entry(&image.id).or_insert_with(|| NamesLeft {
            tags: image.tags.iter().collect(),
            digests: image.digests.iter().map(|(repository, _)| repository).collect(),
        });
        let is_last = tags.len() <= 1 && digests.iter().all(|repository| **repository == one.0);
        if !is_last {
            tags.retain(|tag| tag != one);
            // The daemon forgets the digests of a repository with its last tag.
            if !tags.iter().any(|(repository, _)| *repository == one.0) {
                digests.retain(|repository| **repository != one.0);
            }
        }
        !is_last
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::ListedImage;

    #[test]
    fn the_last_name_of_an_image_in_use_stays() {
        let tag = |text: &str| -> (Repository, Tag) {
            let (repository, tag) = text.split_once(':').unwrap();
            (format!("r.example/{repository}").parse().unwrap(), tag.parse().unwrap())
        };
        let divided = |tags: &[&str], digests: &[&str], forgotten: &[&str], is_used: bool| {
            let id = Digest::of(b"image");
            let digests = digests
                .iter()
                .map(|name| (format!("r.example/{name}").parse().unwrap(), Digest::of(b"x")))
                .collect();
            let image = ListedImage {
                id: id.clone(),
                tags: tags.iter().map(|text| tag(text)).collect(),
                digests,
            };
            let forgotten: Vec<(Repository, Tag)> =
                forgotten.iter().map(|text| tag(text)).collect();
            let used = if is_used { BTreeSet::from([id]) } else { BTreeSet::new() };
            let list: ImageList = std::iter::once(image).collect();
            let (free, in_use) = divide(&list, forgotten.iter().collect(), &used);
            (free.len(), in_use.len())
        };
        assert_eq!(divided(&["a:k1"], &["a"], &["a:k1"], true), (0, 1));
        assert_eq!(divided(&["a:k1"], &["a"], &["a:k1"], false), (1, 0));
        assert_eq!(
            divided(&["a:k1", "a:1.0"], &["a"], &["a:k1"], true),
            (1, 0),
            "it has another tag"
        );
        assert_eq!(
            divided(&["a:k1"], &["a", "b"], &["a:k1"], true),
            (1, 0),
            "it has another repository's digest"
        );
        assert_eq!(
            divided(&["a:k1", "b:k2"], &["a", "b"], &["a:k1", "b:k2"], true),
            (1, 1),
            "the first is not the last"
        );
    }
}
