//! One Compose file as it is written, read without Compose and before interpolation: its images and
//! where their texts stand, and what else of it matters for images.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::template;
use crate::model::interpolation::Template;
use crate::model::yaml::{Document, Kind, Node, Position, Style};
use crate::store::Snapshot;

/// A text that names an image, and who uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The file, as [`ComposeText::file`] has it.
    pub file: PathBuf,
    /// The number of the document in the file.
    pub document: usize,
    /// The Compose services of the document that get this image, in the file's order.
    pub compose_services: Vec<String>,
    /// Where the text stands.
    pub position: Position,
    /// The text, variables and all.
    pub image: String,
    /// The text as a template; `None` if it is none.
    pub template: Option<Template>,
    /// Whether one of the services builds the image.
    pub has_build: bool,
    /// The bytes of the text, without quotes.
    pub span: Range<usize>,
    /// Whether the text is a block of lines, which is no place for a name.
    pub is_block: bool,
}

impl Site {
    /// The text that `image` or its alias stands for.
    fn of(file: &Path, document: usize, image: Node<'_>) -> Option<Self> {
        if image.tag() == Some(RESET) {
            return None;
        }
        let position = image.target().position();
        let image = image.target();
        let (Kind::Scalar, Some(text)) = (image.kind(), image.as_text()) else { return None };
        let span = image.span();
        let quote = usize::from(matches!(image.style(), Some(Style::Single | Style::Double)));
        Some(Self {
            file: file.to_owned(),
            document,
            compose_services: Vec::new(),
            position,
            image: text.to_owned(),
            template: Template::parse(text).ok(),
            has_build: false,
            span: span.start + quote..span.end - quote,
            is_block: matches!(image.style(), Some(Style::Literal | Style::Folded)),
        })
    }

    /// The file and the line, as messages name them.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.position.line)
    }
}

/// The tag of a value that takes away what other files say.
pub(super) const RESET: &str = "!reset";

/// The tag of a value that stands in the place of what other files say.
pub(super) const OVERRIDE: &str = "!override";

/// An image of a Compose service that is not the service's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherImage {
    /// The Compose service.
    pub service: String,
    /// The key of the service under which it stands: `volumes` for a mount of `type: image`, else
    /// that of the containers that run before or after the service's own.
    pub key: &'static str,
    /// Where it is written, and for which Compose service.
    pub site: Arc<Site>,
    /// Where it is mounted.
    pub(super) target: Option<String>,
}

impl OtherImage {
    /// Whether Compose, merging files, takes this one in place of `other`.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.target.is_some() && self.service == other.service && self.target == other.target
    }
}

/// The lists of containers that a service may bring with it.
pub(super) const HOOKS: [&str; 4] = ["pre_start", "post_start", "pre_stop", "post_stop"];

/// What a YAML file is, as far as Compose is concerned.
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

/// An entry of `include:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    /// The number of the document in the file.
    pub document: usize,
    /// The files, as written.
    pub paths: Vec<String>,
    /// What paths in the files are relative to, where that is said.
    pub project_directory: Option<String>,
    /// Where the variables of the files come from beside the environment, where that is said.
    pub env_files: Vec<String>,
    /// The line, from 1.
    pub line: usize,
}

/// What a service extends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extends {
    pub service: String,
    /// The file of that service; none for the same one.
    pub file: Option<String>,
    pub line: usize,
}

/// A Compose file that was read: one document or, for Compose v2, several, of which each is merged
/// into those before it as an override file is.
#[derive(Debug)]
pub struct ComposeText {
    /// The file, as it was named or found: relative to the deployment unless it was absolute.
    pub file: PathBuf,
    /// Its bytes, and where they really stand.
    pub snapshot: Snapshot,
    /// The parsed text.
    pub document: Document,
    /// What it is.
    pub kind: FileKind,
    /// The images of its services, in the order of their text.
    pub sites: Vec<Arc<Site>>,
    /// The images that its services use beside their own.
    pub other_images: Vec<OtherImage>,
    /// The files that it includes.
    pub includes: Vec<Include>,
    /// The file that includes it or has services that extend its own; none for one that was found
    /// or asked for.
    pub named_by: Option<PathBuf>,
    /// What paths in it are relative to.
    pub(super) base: PathBuf,
    pub(super) template: OnceLock<Option<String>>,
}

impl ComposeText {
    /// What `document` says.
    #[must_use]
    pub fn new(file: PathBuf, snapshot: Snapshot, document: Document) -> Self {
        Self {
            kind: kind_of(&document),
            sites: sites(&file, &document),
            other_images: other_images(&file, &document),
            includes: includes(&document),
            file,
            snapshot,
            document,
            named_by: None,
            base: PathBuf::new(),
            template: OnceLock::new(),
        }
    }

    /// A file of this text.
    #[cfg(test)]
    #[must_use]
    pub fn from_source(source: &str) -> Self {
        let snapshot = Snapshot::planned("compose.yaml".into(), source.into());
        let document = Document::parse_all(source.as_bytes()).unwrap();
        Self::new("compose.yaml".into(), snapshot, document)
    }

    /// The file as messages name it.
    #[must_use]
    pub fn name(&self) -> String {
        self.file.display().to_string()
    }

    /// Whether the file names its project, which only Compose v2 understands.
    #[must_use]
    pub fn names_project(&self) -> bool {
        let mut names = self.document.roots().filter_map(|root| root.get("name"));
        names.any(|name| !name.is_null())
    }

    /// The template that the file is made from, if one stands beside it in `directory`, or it says
    /// that it was generated.
    #[must_use]
    pub fn template(&self, directory: &Path) -> Option<&str> {
        self.template
            .get_or_init(|| template::template_of(directory, &self.file, self.document.source()))
            .as_deref()
    }

    /// The line on which its second document begins, if it has one.
    #[must_use]
    pub fn second_document(&self) -> Option<usize> {
        self.document.roots().nth(1).map(|root| root.position().line)
    }

    /// The services as written, with those that are merged into the mapping.
    pub(super) fn services(&self) -> impl Iterator<Item = Service<'_>> {
        services(&self.document)
    }

    /// A service as each document has it that does, the last first.
    pub(super) fn service(&self, name: &str) -> impl Iterator<Item = (usize, Node<'_>)> {
        let entries = self.document.roots().enumerate().rev();
        entries.filter_map(move |(document, root)| {
            let service = root.get("services")?.get(name)?;
            (service.kind() == Kind::Mapping).then_some((document, service))
        })
    }

    /// The site of the image of `service`, a service of this file.
    pub(super) fn site_of(&self, service: Node<'_>) -> Option<&Arc<Site>> {
        let image = service.get("image").filter(|image| image.tag() != Some(RESET))?.target();
        let start = image.span().start;
        let quote = usize::from(matches!(image.style(), Some(Style::Single | Style::Double)));
        self.sites.iter().find(|site| site.span.start == start + quote)
    }
}

/// A service as it stands in a file.
pub(super) struct Service<'a> {
    /// The number of its document.
    pub document: usize,
    pub name: &'a str,
    pub key: Node<'a>,
    pub node: Node<'a>,
}

/// The services of a file.
pub(super) fn services(document: &Document) -> impl Iterator<Item = Service<'_>> {
    document.roots().enumerate().flat_map(|(document, root)| {
        let entries = root.get("services").map(Node::merged_entries).unwrap_or_default();
        entries.into_iter().filter_map(move |(key, node)| {
            Some(Service { document, name: key.as_text()?, key, node })
        })
    })
}

/// Whether a service has a build section.
pub(super) fn has_build(service: Node<'_>) -> bool {
    let build = service.get("build");
    build.is_some_and(|build| !build.is_null() && build.tag() != Some(RESET))
}

/// What `service` extends.
pub(super) fn extends(service: Node<'_>) -> Option<Extends> {
    let extends = service.get("extends").filter(|extends| extends.tag() != Some(RESET))?;
    let text = |node: Node<'_>| node.as_text().map(str::to_owned);
    Some(Extends {
        service: extends.get("service").and_then(text).or_else(|| text(extends))?,
        file: extends.get("file").and_then(text),
        line: extends.position().line,
    })
}

/// The images of the services of `document`, in the order of their text.
#[must_use]
pub fn sites(file: &Path, document: &Document) -> Vec<Arc<Site>> {
    let mut sites: BTreeMap<usize, Site> = BTreeMap::new();
    for service in services(document) {
        let image = service.node.get("image");
        let Some(found) = image.and_then(|image| Site::of(file, service.document, image)) else {
            continue;
        };
        let site = sites.entry(found.span.start).or_insert(found);
        site.compose_services.push(service.name.to_owned());
        site.has_build |= has_build(service.node);
    }
    sites.into_values().map(Arc::new).collect()
}

fn other_images(file: &Path, document: &Document) -> Vec<OtherImage> {
    let mut found = Vec::new();
    for Service { document, name, node: service, .. } in services(document) {
        let mut keep = |key, image: Option<Node<'_>>, target: Option<Node<'_>>| {
            if let Some(site) = image.and_then(|image| Site::of(file, document, image)) {
                let site = Site { compose_services: vec![name.to_owned()], ..site };
                let target = target.and_then(Node::as_text).map(str::to_owned);
                found.push(OtherImage {
                    service: name.to_owned(),
                    key,
                    site: Arc::new(site),
                    target,
                });
            }
        };
        for volume in service.get("volumes").map(Node::items).into_iter().flatten() {
            if volume.get("type").and_then(Node::as_text) == Some("image") {
                keep("volumes", volume.get("source"), volume.get("target"));
            }
        }
        for key in HOOKS {
            for hook in service.get(key).map(Node::items).into_iter().flatten() {
                keep(key, hook.get("image"), None);
            }
        }
    }
    found
}

/// The files with variables for containers, as the services of `document` name them.
pub(super) fn env_files(document: &Document) -> Vec<String> {
    let mut files = Vec::new();
    for service in services(document) {
        let named = service.node.get("env_file");
        files.extend(texts(named));
        let entries = named.map(Node::items).into_iter().flatten();
        files.extend(entries.flat_map(|entry| texts(entry.get("path"))));
    }
    files
}

/// One text or the texts of a list.
fn texts(node: Option<Node<'_>>) -> Vec<String> {
    let nodes = node.into_iter().flat_map(|node| std::iter::once(node).chain(node.items()));
    nodes.filter_map(|node| node.as_text().map(str::to_owned)).collect()
}

fn includes(document: &Document) -> Vec<Include> {
    let entries = document.roots().enumerate().flat_map(|(document, root)| {
        let entries = root.get("include").map(Node::items).into_iter().flatten();
        entries.map(move |entry| (document, entry))
    });
    let include = |(document, entry): (usize, Node<'_>)| Include {
        document,
        paths: texts(Some(entry.get("path").unwrap_or(entry))),
        project_directory: entry
            .get("project_directory")
            .and_then(Node::as_text)
            .map(str::to_owned),
        env_files: texts(entry.get("env_file")),
        line: entry.position().line,
    };
    entries.map(include).collect()
}

/// What kind of file it is: what the first of its documents is that is anything.
fn kind_of(document: &Document) -> FileKind {
    let mut kinds = document.roots().map(kind_of_one);
    kinds.find(|kind| *kind != FileKind::Other).unwrap_or(FileKind::Other)
}

fn kind_of_one(root: Node<'_>) -> FileKind {
    let Some(services) = root.get("services") else {
        return match root.get("include") {
            Some(_) => FileKind::Compose,
            None if is_first_format(root) => FileKind::FirstFormat,
            None => FileKind::Other,
        };
    };
    if root.get("schema_version").is_some() || services.entries().any(|(_, node)| is_recorded(node))
    {
        return FileKind::Manifest;
    }
    let is_empty =
        services.entries().len() == 0 && (services.is_null() || services.kind() == Kind::Mapping);
    let is_compose = services.entries().any(|(_, node)| looks_like_a_service(node));
    if is_empty || is_compose { FileKind::Compose } else { FileKind::Other }
}

fn is_first_format(root: Node<'_>) -> bool {
    let has_image = |(_, node): (Node<'_>, Node<'_>)| {
        node.get("image").is_some() || node.get("build").is_some()
    };
    root.entries().all(|(_, node)| looks_like_a_service(node)) && root.entries().any(has_image)
}

fn looks_like_a_service(node: Node<'_>) -> bool {
    node.entries().len() > 0 && SERVICE_KEYS.iter().any(|key| node.get(key).is_some())
}

/// Whether a manifest describes the service.
fn is_recorded(node: Node<'_>) -> bool {
    node.get("current_tag").is_some() || node.get("image_digest").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_compose_file_is_known_by_its_shape() {
        for (text, expected) in [
            ("services: {web: {image: a}}", FileKind::Compose),
            ("services: {web: {build: .}}", FileKind::Compose),
            ("services: {web: {environment: {A: b}}}", FileKind::Compose),
            ("x-a: &a {image: a}\nservices: {web: {<<: *a}}", FileKind::Compose),
            ("services: {}", FileKind::Compose),
            ("services:", FileKind::Compose),
            ("include: [a.yml]", FileKind::Compose),
            ("web: {image: a}\ndb: {image: b, ports: ['1:1']}", FileKind::FirstFormat),
            ("schema_version: '1.1'\nservices: {web: {image: a}}", FileKind::Manifest),
            ("services: {web: {image: a, current_tag: '1'}}", FileKind::Manifest),
            ("services: [a, b]", FileKind::Other),
            ("services: {web: {class: A}}", FileKind::Other),
            ("image: {repository: a}\nreplicas: 2", FileKind::Other),
            ("apiVersion: v1\nspec: {image: a}", FileKind::Other),
            ("- a", FileKind::Other),
            ("", FileKind::Other),
        ] {
            assert_eq!(ComposeText::from_source(text).kind, expected, "{text}");
        }
    }
}
