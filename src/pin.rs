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
use crate::model::reference::{Digest, Reference, Repository, Tag};
use crate::model::yaml::{Document, Position, YamlError};

/// What the manifest or the registry knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The release that the file should name.
    Known(Known),
    /// It is built on this host, and so has no digest.
    Local,
    /// Nothing tracks it.
    Untracked,
}

/// The release that a file should name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its tag.
    pub tag: Tag,
    /// Its digest; none if nothing has recorded one.
    pub digest: Option<Digest>,
    /// Whether the tag in the file says nothing about the bytes, and so may stay beside any digest.
    pub keeps_tag: bool,
}

/// Which way a file is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Digests in.
    Pin,
    /// Digests out.
    Unpin,
}

/// What is to be said of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It says what it should.
    Current,
    /// It names another digest than it should.
    Stale(String),
    /// It names a tag only; with [`Mode::Unpin`], a digest.
    Loose(String),
    /// It has variables.
    Interpolated,
    /// Its service builds it here.
    Built,
    /// It was built on this host.
    Local,
    /// Nothing tracks it.
    Untracked,
    /// It is tracked, but no digest is recorded.
    Unrecorded,
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
            Self::Built => "built",
            Self::Local => "local",
            Self::Untracked => "untracked",
            Self::Unrecorded => "unrecorded",
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
        matches!(self, Self::Stale(_) | Self::Loose(_) | Self::Unrecorded | Self::Refused(_))
    }
}

/// Judges one image; `ask` says what each of its Compose services should run.
pub fn judge(site: &Site, mode: Mode, ask: impl Fn(&str, &Reference) -> Answer) -> Verdict {
    if site.image.contains('$') {
        return Verdict::Interpolated;
    }
    let Ok(reference) = site.image.parse::<Reference>() else { return Verdict::Invalid };
    if site.has_build {
        return Verdict::Built;
    }
    let answers: BTreeSet<Wanted> = site
        .compose_services
        .iter()
        .map(|name| wanted(&reference, mode, ask(name, &reference)))
        .collect();
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(_), Some(_)) => Verdict::Refused(
            "the services that share it need different digests; give each its own `image`",
        ),
        (Some(Wanted::Text(text)), None) if text == site.image => Verdict::Current,
        (Some(Wanted::Text(_)), None) if site.is_block => {
            Verdict::Refused("it is a block of lines; write it on the line of its key")
        }
        (Some(Wanted::Text(text)), None) if mode == Mode::Pin && reference.digest.is_some() => {
            Verdict::Stale(text)
        }
        (Some(Wanted::Text(text)), None) => Verdict::Loose(text),
        (Some(Wanted::Unrecorded), None) => Verdict::Unrecorded,
        (Some(Wanted::Local), None) => Verdict::Local,
        (Some(Wanted::Untracked) | None, None) | (None, Some(_)) => Verdict::Untracked,
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Text(String),
    Unrecorded,
    Local,
    Untracked,
}

fn wanted(written: &Reference, mode: Mode, answer: Answer) -> Wanted {
    let known = match answer {
        Answer::Known(known) => known,
        Answer::Local => return Wanted::Local,
        Answer::Untracked => return Wanted::Untracked,
    };
    let mut reference = written.clone();
    match (mode, &written.digest, known.digest) {
        (Mode::Unpin, None, _) => {}
        (Mode::Unpin, Some(_), _) => {
            reference.digest = None;
            reference.tag.get_or_insert(known.tag);
        }
        (Mode::Pin, _, None) => return Wanted::Unrecorded,
        (Mode::Pin, Some(there), Some(digest)) if *there == digest => {}
        (Mode::Pin, there, Some(digest)) => {
            // A bare digest stays bare; a version beside another version's digest would be a lie.
            let keeps_form = if written.tag.is_some() { known.keeps_tag } else { there.is_some() };
            if !keeps_form {
                reference.tag = Some(known.tag);
            }
            reference.digest = Some(digest);
        }
    }
    Wanted::Text(reference.to_string())
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
    let after = compose::sites(&text.file, &Document::parse(&new)?);
    let images = text
        .sites
        .iter()
        .map(|site| (site, *intended.get(&site.span.start).unwrap_or(&site.image.as_str())));
    let wrong = images
        .zip(after.iter().map(|site| Some(Arc::as_ref(site))).chain(std::iter::repeat(None)))
        .find(|((site, image), found)| {
            found.is_none_or(|found| {
                found.image != *image || found.compose_services != site.compose_services
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

#[cfg(test)]
mod tests;
