//! Digests in Compose files: what each `image:` says, what it should say, and the text with nothing
//! else changed. Pure.
//!
//! An image is edited where its text stands: for an alias, an anchor or a merged mapping that is
//! the definition, which is right for everyone who shares it as long as they all need the same
//! digest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::model::reference::{Digest, Reference, Repository, Tag};
use crate::model::yaml::{Document, Kind, Node, Position, Style, YamlError};

/// A text behind `image:`, and who uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The Compose services that get this image, in the file's order.
    pub compose_services: Vec<String>,
    /// Where the text stands.
    pub position: Position,
    /// The text, variables and all.
    pub image: String,
    /// Whether one of the services builds the image.
    pub has_build: bool,
    /// The bytes of the text, without quotes.
    span: Range<usize>,
    /// Whether the text is a block of lines, which is no place for a name.
    is_block: bool,
}

/// The images of a Compose file, in the order of their text.
#[must_use]
pub fn sites(document: &Document) -> Vec<Site> {
    let mut sites: BTreeMap<usize, Site> = BTreeMap::new();
    let services = document.root().get("services").map(Node::entries).into_iter().flatten();
    for (name, service) in services {
        let (Some(name), Some(image)) = (name.as_text(), service.get("image")) else { continue };
        let image = image.target();
        let (Kind::Scalar, Some(text)) = (image.kind(), image.as_text()) else { continue };
        let span = image.span();
        let quote = usize::from(matches!(image.style(), Some(Style::Single | Style::Double)));
        let site = sites.entry(span.start).or_insert_with(|| Site {
            compose_services: Vec::new(),
            position: image.position(),
            image: text.to_owned(),
            has_build: false,
            span: span.start + quote..span.end - quote,
            is_block: matches!(image.style(), Some(Style::Literal | Style::Folded)),
        });
        site.compose_services.push(name.to_owned());
        site.has_build |= service.get("build").is_some_and(|build| !build.is_null());
    }
    sites.into_values().collect()
}

/// What a YAML file is, as far as `pin` cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A Compose file.
    Compose,
    /// A Compose file of the first format, which has the services at the top.
    FirstFormat,
    /// A manifest of a deployment.
    Manifest,
    /// Anything else.
    Other,
}

/// What only services of Compose files have.
const SERVICE_KEYS: [&str; 16] = [
    "image",
    "build",
    "extends",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "ports",
    "volumes",
    "networks",
    "depends_on",
    "restart",
    "profiles",
    "labels",
    "healthcheck",
    "deploy",
];

/// What kind of file `document` is.
#[must_use]
pub fn kind_of(document: &Document) -> FileKind {
    let root = document.root();
    let looks_like_a_service = |node: Node<'_>| {
        node.entries().next().is_some() && SERVICE_KEYS.iter().any(|key| node.get(key).is_some())
    };
    let is_recorded =
        |node: Node<'_>| node.get("current_tag").is_some() || node.get("image_digest").is_some();
    let Some(services) = root.get("services") else {
        if root.get("include").is_some() {
            return FileKind::Compose;
        }
        let has_image = |node: Node<'_>| node.get("image").is_some() || node.get("build").is_some();
        let mut entries = root.entries().peekable();
        let is_first =
            entries.peek().is_some() && entries.all(|(_, node)| looks_like_a_service(node));
        let is_first = is_first && root.entries().any(|(_, node)| has_image(node));
        return if is_first { FileKind::FirstFormat } else { FileKind::Other };
    };
    if root.get("schema_version").is_some() || services.entries().any(|(_, node)| is_recorded(node))
    {
        return FileKind::Manifest;
    }
    let is_empty = services.entries().next().is_none()
        && (services.is_null() || services.kind() == Kind::Mapping);
    let is_compose = services.entries().any(|(_, node)| looks_like_a_service(node));
    if is_empty || is_compose { FileKind::Compose } else { FileKind::Other }
}

/// The other Compose files that a file names, by `include:` and `extends: {file: …}`, relative to
/// its own directory. Names with variables and URLs are Compose's to resolve, and left out.
#[must_use]
pub fn named_files(document: &Document) -> Vec<String> {
    let included =
        document.root().get("include").map(Node::items).into_iter().flatten().flat_map(|entry| {
            let paths = entry.get("path").unwrap_or(entry);
            // One text or several.
            std::iter::once(paths).chain(paths.items()).collect::<Vec<_>>()
        });
    let services = document.root().get("services").map(Node::entries).into_iter().flatten();
    let extended = services.filter_map(|(_, service)| service.get("extends")?.get("file"));
    let mut names: Vec<String> = Vec::new();
    for name in included.chain(extended).filter_map(Node::as_text) {
        if !name.contains('$') && !name.contains("://") && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

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

/// The text of `document` with `changes` made: each a site and its new image. Verified: read again,
/// it has the new images, and every byte outside of them is the old one.
///
/// # Errors
/// The result would not read as intended; the position is that of the first such image.
pub fn rewrite(document: &Document, changes: &[(&Site, &str)]) -> Result<String, YamlError> {
    let source = document.source();
    let mut text = String::with_capacity(source.len() + changes.len() * 80);
    let mut intended: BTreeMap<usize, &str> = BTreeMap::new();
    let mut sorted = changes.to_vec();
    sorted.sort_by_key(|(site, _)| site.span.start);
    let mut end = 0;
    for (site, image) in sorted {
        text.push_str(&source[end..site.span.start]);
        text.push_str(image);
        end = site.span.end;
        intended.insert(site.span.start, image);
    }
    text.push_str(&source[end..]);
    let before = sites(document);
    let after = sites(&Document::parse(&text)?);
    let images = before
        .iter()
        .map(|site| (site, *intended.get(&site.span.start).unwrap_or(&site.image.as_str())));
    let wrong = images.zip(after.iter().map(Some).chain(std::iter::repeat(None))).find(
        |((site, image), found)| {
            found.is_none_or(|found| {
                found.image != *image || found.compose_services != site.compose_services
            })
        },
    );
    match wrong {
        Some(((site, _), _)) => {
            let Position { line, column } = site.position;
            Err(YamlError { message: "the image cannot be replaced here".to_owned(), line, column })
        }
        None => Ok(text),
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
