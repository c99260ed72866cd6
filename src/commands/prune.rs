//! `prune`: removes the keep-tags of releases that no history remembers any more.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{App, Exit};
use crate::docker::Untagged;
use crate::model::reference::{Repository, Tag};
use crate::model::yaml::Document;
use crate::plan;
use crate::report::Pruned;

/// `dkv prune`: takes this deployment's keep-tags from images that no history names; an image that
/// nothing else names or uses goes with its tag.
///
/// # Errors
///
/// No manifest (exit 3), no daemon (exit 6), nobody said yes (exit 2).
pub async fn prune(app: &App, yes: bool, dry_run: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let docker = app.docker().await?;
    let list = docker.image_list().await?;
    let remembered: BTreeSet<(&Repository, Tag)> = deployment
        .manifest
        .services
        .values()
        .filter_map(|service| Some((service.image.as_ref()?, service)))
        .flat_map(|(image, service)| service.history.entries().iter().map(move |entry| (image, entry)))
        .filter_map(|(image, entry)| Some((image, plan::keep_tag(entry, &deployment.hash)?)))
        .collect();
    // The history of a service that is not listed any more is kept, and so are its images.
    let history = Document::parse(deployment.manifest.source())?;
    let history = history.root().get("history").map_or("", |node| &history.source()[node.target().span()]);
    let prefix = format!("{}{}-", plan::KEEP_TAG_PREFIX, deployment.hash);
    let is_forgotten = |(repository, tag): &&(Repository, Tag)| {
        let digest = tag.as_str().strip_prefix(&prefix);
        digest.is_some_and(|digest| !history.contains(digest)) && !remembered.contains(&(repository, tag.clone()))
    };
    let mut forgotten: Vec<&(Repository, Tag)> =
        list.images().iter().flat_map(|image| &image.tags).filter(is_forgotten).collect();
    forgotten.sort();
    let name = |(repository, tag): &(Repository, Tag)| repository.with_tag(tag);
    let mut report = Pruned { dry_run, removed: Vec::new(), in_use: Vec::new() };
    if dry_run {
        report.removed = forgotten.into_iter().map(name).collect();
    } else if !forgotten.is_empty() {
        if !yes {
            forgotten.iter().for_each(|one| app.ui.status(name(one)));
        }
        let question = format!("Remove {} keep-tags that no history remembers?", forgotten.len());
        if !app.ui.confirm(&question, yes, &app.command)? {
            app.ui.status("Nothing was removed");
            return Ok(Exit::Done);
        }
        for one in forgotten {
            match docker.untag(&one.0, &one.1).await? {
                Untagged::Removed => report.removed.push(name(one)),
                Untagged::InUse => report.in_use.push(name(one)),
                Untagged::Absent => {}
            }
        }
    }
    app.show(&report, |report| {
        let verb = if dry_run { "would remove" } else { "removed" };
        report.removed.iter().for_each(|name| app.ui.data(format!("{verb} {name}")));
        report.in_use.iter().for_each(|name| app.ui.note(format!("{name} is in use and stays")));
        if report.removed.is_empty() && report.in_use.is_empty() {
            app.ui.status("Nothing to remove: every keep-tag of this deployment is in a history");
        }
    })?;
    Ok(Exit::Done)
}
