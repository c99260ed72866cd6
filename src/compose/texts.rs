//! What the Compose files of a deployment say, read without Compose and before interpolation.
//!
//! This serves where Compose may be absent, and where the text itself matters: which variables give
//! a service's image, what they default to, and where that is written. What would really start is
//! [`super::config`]'s.
//!
//! Every file is opened and parsed once, those that others include or extend as well. Paths in them
//! are relative to what Compose takes them to be relative to: the project's directory, that of an
//! `include`, or for a file that is extended its own. Nothing that cannot be read ends the reading:
//! it is kept as a [`Problem`], and whoever cannot go on without it says [`ComposeFiles::require`].

mod reading;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use indexmap::IndexMap;

use super::keys::{self, Section};
use super::text::{self, ComposeText, FileKind, OtherImage, Service, Site};
use crate::error::{self, Error};
use crate::model::image_line::Entry;
use crate::model::interpolation::Template;
use crate::model::yaml::Node;

/// What the Compose files of one deployment say.
#[derive(Debug)]
pub struct ComposeFiles {
    directory: PathBuf,
    texts: Vec<ComposeText>,
    /// What became of each name of a file.
    known: HashMap<PathBuf, Reading>,
    /// The files that were asked for, in the order of asking.
    asked: Vec<PathBuf>,
    lines: Vec<Line>,
    merged: IndexMap<String, Line>,
    other_images: Vec<OtherImage>,
    /// The texts that the deployment is made of, those that are only extended as well.
    deployed: BTreeSet<usize>,
    problems: Vec<Problem>,
}

/// What became of a file.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// It is this one of the texts.
    Text(usize),
    /// It is this one of the problems.
    Problem(usize),
}

/// A Compose service as one file describes it, or as all do together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The Compose service.
    pub service: String,
    /// The file: of several, the last that gives the service an image.
    pub file: PathBuf,
    /// The number of the document in that file.
    pub document: usize,
    /// The file of the deployment that this is, or that includes it.
    pub top: PathBuf,
    /// The line of the service, from 1.
    pub line: usize,
    /// Its image as it is written, here or in a service that it extends.
    pub image: Option<Arc<Site>>,
    /// Whether the service has a build section.
    pub has_build: bool,
    /// Where its image is written; where it is built, if it has none.
    pub place: Option<Place>,
    /// The program that provides it in place of an image.
    pub provider: Option<String>,
    /// The platform that it shall run on, as it is written.
    pub platform: Option<String>,
    /// What the file takes away from those before it.
    removed: Removed,
}

impl Line {
    /// The text of its image, variables and all.
    #[must_use]
    pub fn image_text(&self) -> Option<&str> {
        self.image.as_ref().map(|site| site.image.as_str())
    }

    /// The text of its image as a template.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        self.image.as_ref()?.template.as_ref()
    }
}

/// What a file takes away from those before it, mostly with `!reset`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Removed {
    service: bool,
    /// All that they say of the service, which `!override` stands before.
    all: bool,
    image: bool,
    build: bool,
}

/// Where the image of a Compose service is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the deployment unless it was absolute.
    pub file: PathBuf,
    /// The service in that file: the one it extends, if that has the line.
    pub entry: Entry,
    /// The line, from 1; of the service where it has no image line.
    pub line: usize,
}

/// What could not be read or followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file that has it, as [`ComposeText::file`] would have it.
    pub file: PathBuf,
    /// Where the file is, or should be.
    pub path: PathBuf,
    /// The line, from 1, where there is one.
    pub line: Option<usize>,
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// What is wrong, as the end of a sentence that names the file.
    pub why: String,
    /// The file that names this one; none for one that was asked for.
    pub named_by: Option<PathBuf>,
    /// Whether the file is a Compose file for certain, and not only named like one.
    pub is_certain: bool,
    hint: Option<String>,
    /// Whether the deployment's services need it.
    is_needed: bool,
}

/// What kind of problem a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// There is no such file.
    Missing,
    /// It cannot be read, or is no file.
    Unreadable,
    /// It is not YAML, or not a mapping.
    Invalid,
    /// Files or services lead back to themselves.
    Circle,
    /// What it names is not on this host.
    Remote,
    /// What it names has variables, which are Compose's to fill in.
    Variable,
    /// The service that another extends is not there.
    NoService,
}

impl ProblemKind {
    /// Whether Compose, or whoever needs all files, cannot go on.
    fn is_fatal(self) -> bool {
        matches!(self, Self::Missing | Self::Unreadable | Self::Invalid | Self::Circle)
    }
}

impl Problem {
    /// A problem with what a file names.
    fn of(text: &ComposeText, line: Option<usize>, kind: ProblemKind, why: String) -> Self {
        Self {
            file: text.file.clone(),
            path: text.snapshot.path.clone(),
            line,
            kind,
            why,
            named_by: None,
            is_certain: true,
            hint: None,
            is_needed: true,
        }
    }

    /// The problem as a failure (exit 3).
    #[must_use]
    pub fn error(&self) -> Error {
        let path = self.path.display();
        let by = self.named_by.as_ref();
        let by = by.map_or_else(String::new, |by| format!(", which {} names", by.display()));
        let message = match (self.kind, self.line) {
            // It names the file itself.
            (ProblemKind::Unreadable, _) => self.why.clone(),
            (ProblemKind::Invalid | ProblemKind::Missing, _) => {
                format!("cannot read the Compose file {path}{by}: {}", self.why)
            }
            (_, Some(line)) => format!("the Compose file {path}, line {line}: {}", self.why),
            (_, None) => format!("the Compose file {path}: {}", self.why),
        };
        match &self.hint {
            Some(hint) => error::state(message).with_hint(hint),
            None => error::state(message),
        }
    }

    /// Whether the deployment needs the file.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.is_needed
    }

    fn place(&self) -> String {
        let line = self.line.map_or_else(String::new, |line| format!(":{line}"));
        format!("{}{line}", self.file.display())
    }
}

impl ComposeFiles {
    /// Makes sure that everything was read.
    ///
    /// # Errors
    /// A file of the deployment cannot be read or parsed, or files or services lead back to
    /// themselves (exit 3).
    pub fn require(&self) -> Result<&Self> {
        let is_fatal = |problem: &&Problem| problem.is_needed && problem.kind.is_fatal();
        match self.problems.iter().find(is_fatal) {
            Some(problem) => Err(problem.error().into()),
            None => Ok(self),
        }
    }

    /// All files that were read: those asked for in that order, then those that they name.
    pub fn texts(&self) -> impl Iterator<Item = &ComposeText> {
        let text = |file: &PathBuf| match self.known.get(file) {
            Some(Reading::Text(index)) => Some(*index),
            _ => None,
        };
        let mut order: Vec<usize> = self.asked.iter().filter_map(text).collect();
        order.extend((0..self.texts.len()).filter(|&index| self.texts[index].named_by.is_some()));
        let mut told = BTreeSet::new();
        order.retain(|index| told.insert(*index));
        order.into_iter().map(|index| &self.texts[index])
    }

    /// The file that was read under this name.
    #[must_use]
    pub fn text(&self, file: &Path) -> Option<&ComposeText> {
        match self.known.get(file)? {
            Reading::Text(index) => Some(&self.texts[*index]),
            Reading::Problem(_) => None,
        }
    }

    /// Whether a file gives the deployment services, or some that others extend.
    #[must_use]
    pub fn is_deployed(&self, text: &ComposeText) -> bool {
        self.deployed().any(|deployed| std::ptr::eq(deployed, text))
    }

    /// The Compose services of the deployment that get the image of a site, those that extend the
    /// one there as well; for a file that is no part of it, those of the file.
    #[must_use]
    pub fn users(&self, site: &Site) -> Vec<String> {
        let is_it = |line: &&Line| {
            line.image
                .as_ref()
                .is_some_and(|image| image.file == site.file && image.span.start == site.span.start)
        };
        let users = self.merged.values().filter(is_it).map(|line| line.service.clone());
        let users: Vec<String> = users.collect();
        if users.is_empty() { site.compose_services.clone() } else { users }
    }

    /// What could not be read or followed.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The files with variables for containers that the deployment's files name, as far as that can
    /// be told without Compose.
    #[must_use]
    pub fn env_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for text in self.deployed() {
            let base = self.directory.join(&text.base);
            let named = text::env_files(&text.document).into_iter();
            // The one device that ends at once, and that people name to have none.
            let named = named.filter(|name| !name.contains('$') && name != "/dev/null");
            files.extend(named.map(|name| base.join(name)));
        }
        files
    }

    /// Why a file of the deployment that is there could not be read, if one could not.
    #[must_use]
    pub fn unreadable(&self) -> Option<Error> {
        let mut problems = self.problems.iter();
        let is_unreadable =
            |problem: &&Problem| problem.kind == ProblemKind::Unreadable && problem.is_needed();
        problems.find(is_unreadable).map(Problem::error)
    }

    /// What each file says of its services, in the order in which Compose merges them; included
    /// files come before those that include them.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What the files say together: one line for each service.
    pub fn services(&self) -> impl Iterator<Item = &Line> {
        self.merged.values()
    }

    /// What the files say together of one service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Line> {
        self.merged.get(name)
    }

    /// The services that some files of the deployment describe, those that they include as well.
    #[must_use]
    pub fn services_of(&self, files: &[PathBuf]) -> BTreeSet<&str> {
        let lines = self.lines.iter().filter(|line| files.contains(&line.top));
        lines.map(|line| line.service.as_str()).collect()
    }

    /// The images that the deployment's services use beside their own.
    #[must_use]
    pub fn other_images(&self) -> &[OtherImage] {
        &self.other_images
    }

    /// The variables that the files use, as far as they show it line by line.
    #[must_use]
    pub fn variables(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for text in self.texts().filter(|text| self.is_deployed(text)) {
            let source = String::from_utf8_lossy(&text.snapshot.bytes);
            for line in source.lines().filter_map(|line| Template::parse(line).ok()) {
                names.extend(line.variables().into_iter().map(str::to_owned));
            }
        }
        names
    }

    /// Whether one of `files` names its project; what cannot be read Compose will refuse itself.
    #[must_use]
    pub fn names_project(&self, files: &[PathBuf]) -> bool {
        files.iter().filter_map(|file| self.text(file)).any(ComposeText::names_project)
    }

    /// The file and the line of the first of `files` that has a second document, which only Compose
    /// v2 reads.
    #[must_use]
    pub fn second_document(&self, files: &[PathBuf]) -> Option<String> {
        let mut texts = files.iter().filter_map(|file| self.text(file));
        texts.find_map(|text| Some(format!("{}:{}", text.name(), text.second_document()?)))
    }

    /// The template that a file is made from, if it is.
    #[must_use]
    pub fn template_of(&self, file: &Path) -> Option<&str> {
        self.text(file)?.template(&self.directory)
    }

    /// What of the deployment is an image and cannot be compared with anything, each as the file,
    /// the line, and what it is.
    #[must_use]
    pub fn not_compared(&self) -> Vec<String> {
        let problems = self.problems.iter().filter(|problem| problem.is_needed);
        let mut all: Vec<String> =
            problems.map(|problem| format!("{}: {}", problem.place(), problem.why)).collect();
        for text in self.deployed() {
            if text.kind == FileKind::FirstFormat {
                all.push(format!("{}:1: services in Compose's first file format", text.name()));
            }
            if text.kind == FileKind::Compose {
                all.extend(Self::unknown_keys(text));
            }
            let models = text.document.roots().filter_map(|root| root.get("models"));
            for (name, model) in models.flat_map(Node::entries) {
                let image = model.get("model").and_then(Node::as_text).unwrap_or("unnamed");
                let (file, line) = (text.name(), name.position().line);
                let name = name.as_text().unwrap_or_default();
                all.push(format!("{file}:{line}: the model `{name}`, {image}"));
            }
        }
        for line in self.merged.values().filter(|line| line.image.is_none() && !line.has_build) {
            let Line { service, file, line, provider, .. } = line;
            let what = match provider {
                Some(provider) => format!("`{service}`, which `{provider}` provides"),
                None => format!("`{service}`, which has neither an image nor a build section"),
            };
            all.push(format!("{}:{line}: the service {what}", file.display()));
        }
        all
    }

    /// The file and the line where the deployment's files give a service this key.
    #[must_use]
    pub fn place_of(&self, service: &str, key: &str) -> Option<String> {
        let places = self.deployed().filter_map(|text| {
            let value = text.service(service).find_map(|(_, service)| service.get(key))?;
            Some(format!("{}:{}", text.name(), value.position().line))
        });
        places.last()
    }

    /// The keys of a file that this dkv does not know, each as the file, the line, and what it is.
    fn unknown_keys(text: &ComposeText) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut look = |section, of: &str, node: Node<'_>| {
            for (key, _) in node.entries() {
                let Some(name) = key.as_text().filter(|name| !keys::is_known(section, name)) else {
                    continue;
                };
                let (file, line) = (text.name(), key.position().line);
                unknown
                    .push(format!("{file}:{line}: the key `{name}`{of}, which dkv does not know"));
            }
        };
        text.document.roots().for_each(|root| look(Section::Top, "", root));
        for Service { name, node: service, .. } in text.services() {
            look(Section::Service, &format!(" of `{name}`"), service);
            for (section, key) in
                [(Section::Deploy, "deploy"), (Section::Healthcheck, "healthcheck")]
            {
                if let Some(node) = service.get(key) {
                    look(section, &format!(" in the {key} of `{name}`"), node);
                }
            }
        }
        unknown
    }

    fn deployed(&self) -> impl Iterator<Item = &ComposeText> {
        self.deployed.iter().map(|index| &self.texts[*index])
    }
}

pub use reading::compose_like;

#[cfg(test)]
mod tests;
