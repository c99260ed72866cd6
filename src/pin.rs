//! Digests in Compose files: what each `image:` says, what it should say, and the text with nothing
//! else changed. Pure.
//!
//! An image is edited where its text stands: for an alias, an anchor or a merged mapping that is
//! the definition, which is right for everyone who shares it as long as they all need the same
//! digest.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compose::{self, ComposeText, Site};
use crate::model::image_line::variables_in;
use crate::model::interpolation::Template;
use crate::model::reference::{Digest, Reference, Repository, Tag};
use crate::model::yaml::{Document, Position, YamlError};

/// What the manifest or the registry knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The release that the file should name.
    Known(Known),
    /// Its line takes its version from the variables of a service, and so from `versions.env`.
    Follows,
    /// It is tracked, but the tag that is written names another line of versions than the one that
    /// is followed, which this is.
    OtherTrack(String),
    /// It is built on this host, and so has no digest.
    Local,
    /// It is tracked, but no digest of it is recorded; what records one.
    Unrecorded(String),
    /// It is tracked, but what is recorded as its digest nobody has seen; why, and what to do.
    Unseen(String),
    /// Nothing tracks it.
    Untracked,
}

/// The release that a file should name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its tag.
    pub tag: Tag,
    /// Its digest.
    pub digest: Digest,
    /// Whether the tag in the file says nothing about the bytes, and so may stay beside any digest.
    pub keeps_tag: bool,
}

/// What is to be said of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It says what it should.
    Current,
    /// It names another digest than it should.
    Stale(String),
    /// It names a tag only; to unpin, a digest.
    Loose(String),
    /// It has variables, and follows `versions.env`.
    Interpolated,
    /// It has variables, and with the values that they have it is no image name.
    Unset(Vec<String>),
    /// The tag that is written names another line of versions than this one, which is followed.
    OtherTrack(String),
    /// It has a digest that `pin` did not write.
    Kept,
    /// Its service builds it here.
    Built,
    /// It was built on this host.
    Local,
    /// Nothing tracks it.
    Untracked,
    /// It is tracked, but no digest is recorded; what records one.
    Unrecorded(String),
    /// It is tracked, but what is recorded as its digest nobody has seen; why, and what to do.
    Unseen(String),
    /// It is no image name.
    Invalid,
    /// It cannot be rewritten where it stands.
    Refused(&'static str),
}

impl Verdict {
    /// The word for it in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Stale(_) => "stale",
            Self::Loose(_) => "loose",
            Self::Interpolated => "interpolated",
            Self::Unset(_) => "unset",
            Self::OtherTrack(_) => "other-track",
            Self::Kept => "kept",
            Self::Built => "built",
            Self::Local => "local",
            Self::Untracked => "untracked",
            Self::Unrecorded(_) => "unrecorded",
            Self::Unseen(_) => "unseen",
            Self::Invalid => "invalid",
            Self::Refused(_) => "refused",
        }
    }

    /// The text that should stand there instead.
    #[must_use]
    pub fn wanted(&self) -> Option<&str> {
        match self {
            Self::Stale(wanted) | Self::Loose(wanted) => Some(wanted),
            _ => None,
        }
    }

    /// Whether the file is not as it should be.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.wanted().is_some()
            || self.lacks_digest()
            || matches!(self, Self::Invalid | Self::Refused(_))
    }

    /// Whether there is no digest to be written, although it is tracked.
    #[must_use]
    pub fn lacks_digest(&self) -> bool {
        matches!(self, Self::Unrecorded(_) | Self::Unseen(_))
    }

    /// Why the line is left alone, as the end of a sentence.
    #[must_use]
    pub fn why_alone(&self) -> String {
        match self {
            Self::Interpolated => "it has variables, which `versions.env` sets".to_owned(),
            Self::Unset(names) => {
                format!("with what {} says here it is no image name", names.join(", "))
            }
            Self::OtherTrack(track) => {
                format!("its tag is another line of versions than {track}, which is followed")
            }
            Self::Kept => "`dkv pin` did not write its digest".to_owned(),
            Self::Built => "it is built here".to_owned(),
            Self::Local => "it is a local build".to_owned(),
            Self::Untracked => "the manifest does not know it".to_owned(),
            Self::Invalid => "it is not an image name".to_owned(),
            Self::Refused(why) => (*why).to_owned(),
            Self::Unrecorded(mend) => format!("no digest of it is recorded; {mend} records one"),
            Self::Unseen(why) => why.clone(),
            Self::Current | Self::Stale(_) | Self::Loose(_) => String::new(),
        }
    }
}

/// The text of an image with the values that its variables have.
pub fn evaluated(site: &Site, lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    match &site.template {
        Some(template) => template.evaluate(lookup).ok(),
        None => Some(site.image.clone()),
    }
}

/// Judges one image, which the Compose services `names` have. `ask` says what each of them should
/// run; `lookup` gives the variables that have values without `versions.env`.
pub fn judge(
    site: &Site,
    names: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
    ask: impl Fn(&str, &Reference) -> Answer,
) -> Verdict {
    let variables = variables_in(&site.image);
    let text = evaluated(site, lookup);
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Verdict::Unset(variables) };
    let reference = match text.parse::<Reference>() {
        Ok(reference) => reference,
        // What stands behind the `@` is no digest.
        Err(_) => match text.split_once('@').map(|(name, _)| name.parse::<Reference>()) {
            Some(Ok(reference)) if variables.is_empty() => reference,
            _ if variables.is_empty() => return Verdict::Invalid,
            _ => return Verdict::Unset(variables),
        },
    };
    if site.has_build {
        return Verdict::Built;
    }
    let answers: BTreeSet<Wanted> = names
        .iter()
        .map(|name| wanted(&site.image, &text, &reference, ask(name, &reference)))
        .collect();
    let mut answers = answers.into_iter();
    let has_digest = text.contains('@');
    match (answers.next(), answers.next()) {
        (Some(_), Some(_)) => Verdict::Refused(
            "the services that share it need different digests; give each its own `image`",
        ),
        (Some(Wanted::Text(text)), None) if text == site.image => Verdict::Current,
        (Some(Wanted::Text(text)), None) if has_digest => Verdict::Stale(text),
        (Some(Wanted::Text(text)), None) => Verdict::Loose(text),
        (Some(Wanted::Unrecorded(mend)), None) => Verdict::Unrecorded(mend),
        (Some(Wanted::Unseen(why)), None) => Verdict::Unseen(why),
        (Some(Wanted::Follows), None) => Verdict::Interpolated,
        (Some(Wanted::OtherTrack(track)), None) => Verdict::OtherTrack(track),
        (Some(Wanted::Local), None) => Verdict::Local,
        (Some(Wanted::Untracked) | None, None) | (None, Some(_))
            if text.parse::<Reference>().is_err() =>
        {
            Verdict::Invalid
        }
        (Some(Wanted::Untracked) | None, None) | (None, Some(_)) => Verdict::Untracked,
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Text(String),
    Unrecorded(String),
    Unseen(String),
    Follows,
    OtherTrack(String),
    Local,
    Untracked,
}

/// What should stand where `written` does, which is `now` with the values that its variables have.
fn wanted(written: &str, now: &str, reference: &Reference, answer: Answer) -> Wanted {
    let known = match answer {
        Answer::Known(known) => known,
        Answer::Follows => return Wanted::Follows,
        Answer::OtherTrack(track) => return Wanted::OtherTrack(track),
        Answer::Local => return Wanted::Local,
        Answer::Unrecorded(mend) => return Wanted::Unrecorded(mend),
        Answer::Unseen(why) => return Wanted::Unseen(why),
        Answer::Untracked => return Wanted::Untracked,
    };
    let digest = known.digest;
    if reference.digest.as_ref() == Some(&digest) {
        return Wanted::Text(written.to_owned());
    }
    // A bare digest stays bare; a version beside another version's digest would be a lie.
    let keeps_form = match &reference.tag {
        Some(tag) => known.keeps_tag || *tag == known.tag,
        None => now.contains('@'),
    };
    if written.contains('$') && (keeps_form || reference.tag.is_none()) {
        // What is written stays, variables and all; the digest decides.
        let (name, old) =
            written.split_once('@').map_or((written, None), |(name, old)| (name, Some(old)));
        let is_literal = old.is_none_or(|old| !old.contains('$'));
        let text = format!("{name}@{digest}");
        if is_literal && (old.is_some() || !now.contains('@')) && Template::parse(&text).is_ok() {
            return Wanted::Text(text);
        }
    }
    let mut reference = reference.clone();
    if !keeps_form {
        reference.tag = Some(known.tag);
    }
    reference.digest = Some(digest);
    Wanted::Text(reference.to_string())
}

/// Judges one image that is to be as it was before it was pinned. `before` is what is remembered of
/// it, `tag_of` the tag that a digest is recorded under; `is_known` says whether the file was ever
/// pinned here.
pub fn judge_unpin(
    site: &Site,
    before: Option<&str>,
    is_known: bool,
    tag_of: impl Fn(&Reference) -> Option<Tag>,
) -> Verdict {
    if let Some(before) = before {
        return match before == site.image {
            true => Verdict::Current,
            false => Verdict::Loose(before.to_owned()),
        };
    }
    let Some((name, digest)) = site.image.split_once('@') else { return Verdict::Current };
    if is_known {
        return Verdict::Kept;
    }
    if site.image.contains('$') {
        // Only what `pin` puts behind the variables is taken away.
        let is_pin = digest.parse::<Digest>().is_ok() && Template::parse(name).is_ok();
        return if is_pin { Verdict::Loose(name.to_owned()) } else { Verdict::Interpolated };
    }
    let Ok(reference) = site.image.parse::<Reference>() else { return Verdict::Invalid };
    match reference.tag.clone().or_else(|| tag_of(&reference)) {
        Some(tag) => Verdict::Loose(reference.repository.with_tag(&tag)),
        None => Verdict::Untracked,
    }
}

/// The source of `text` with `changes` made: each a site and its new image. Verified: read again, it
/// has the new images, and every byte outside of them is the old one.
///
/// # Errors
/// The result would not read as intended; the position is that of the first such image.
pub fn rewrite(text: &ComposeText, changes: &[(&Site, &str)]) -> Result<String, YamlError> {
    let source = text.document.source();
    let mut new = String::with_capacity(source.len() + changes.len() * 80);
    let mut intended: BTreeMap<usize, &str> = BTreeMap::new();
    let mut sorted = changes.to_vec();
    sorted.sort_by_key(|(site, _)| site.span.start);
    let mut end = 0;
    for (site, image) in sorted {
        new.push_str(&source[end..site.span.start]);
        new.push_str(image);
        end = site.span.end;
        intended.insert(site.span.start, image);
    }
    new.push_str(&source[end..]);
    let after = compose::sites(&text.file, &Document::parse_all(new.as_bytes())?);
    let images = text
        .sites
        .iter()
        .map(|site| (site, *intended.get(&site.span.start).unwrap_or(&site.image.as_str())));
    let wrong = images
        .zip(after.iter().map(|site| Some(Arc::as_ref(site))).chain(std::iter::repeat(None)))
        .find(|((site, image), found)| {
            found.is_none_or(|found| {
                // A block of lines is given back as it was written.
                let is_block = image.starts_with(['>', '|']) && found.is_block;
                (found.image != *image && !is_block)
                    || found.compose_services != site.compose_services
            })
        });
    match wrong {
        Some(((site, _), _)) => {
            let Position { line, column } = site.position;
            Err(YamlError { message: "the image cannot be replaced here".to_owned(), line, column })
        }
        None => Ok(new),
    }
}

/// One image name with different digests in several places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The image, without its digest.
    pub image: String,
    /// The digests, each with the places that name it.
    pub digests: BTreeMap<Digest, Vec<String>>,
}

/// The images to which `places` (a name for each, such as `file:line`) give different digests.
pub fn disagreements<'a>(places: impl IntoIterator<Item = (String, &'a str)>) -> Vec<Disagreement> {
    let mut found: BTreeMap<(Repository, Option<Tag>), BTreeMap<Digest, Vec<String>>> =
        BTreeMap::new();
    for (place, image) in places {
        let Ok(Reference { repository, tag, digest: Some(digest) }) = image.parse() else {
            continue;
        };
        found.entry((repository, tag)).or_default().entry(digest).or_default().push(place);
    }
    let name = |(repository, tag): (Repository, Option<Tag>)| match tag {
        Some(tag) => repository.with_tag(&tag),
        None => repository.to_string(),
    };
    let several = found.into_iter().filter(|(_, digests)| digests.len() > 1);
    several.map(|(image, digests)| Disagreement { image: name(image), digests }).collect()
}

pub mod memory;

#[cfg(test)]
mod tests;
