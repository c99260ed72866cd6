//! Reading the files of a deployment: first every file that one names, then what they say together.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use indexmap::IndexMap;

use super::{ComposeFiles, Line, Place, Problem, ProblemKind, Reading, Removed};
use crate::compose::argv::Generation;
use crate::compose::files::{Files, parent};
use crate::compose::text::{
    ComposeText, Extends, OVERRIDE, OtherImage, RESET, Service, extends, has_build,
};
use crate::error::{self, Error};
use crate::model::image_line::Entry;
use crate::model::yaml::{Document, Kind, Node, YamlError};
use crate::store;

/// A file to read.
struct Wish {
    file: PathBuf,
    /// What paths in it are relative to.
    base: PathBuf,
    named_by: Option<PathBuf>,
    is_certain: bool,
}

impl ComposeFiles {
    /// Reads the files of a deployment, those that they name included.
    #[must_use]
    pub fn read(files: &Files, generation: Generation) -> Self {
        let mut read = Self::empty(files.directory());
        let base = files.project_directory();
        read.follow(
            files
                .all(generation)
                .into_iter()
                .map(|file| Wish { base: base.to_owned(), ..Wish::asked(file, true) }),
        );
        read.collect();
        read
    }

    /// Reads some files, relative to `directory`, each as the first of a project.
    #[cfg(test)]
    pub fn of(directory: &Path, files: &[PathBuf]) -> Self {
        let mut read = Self::empty(directory);
        read.follow(files.iter().map(|file| Wish::asked(file.clone(), true)));
        read.collect();
        read
    }

    /// Reads the files of a command line, which may also be meant from where dkv was started, and
    /// none that they name.
    #[must_use]
    pub fn named(directory: &Path, files: &[PathBuf]) -> Self {
        let mut read = Self::empty(directory);
        for file in files {
            read.take(&Wish::asked(file.clone(), true), true);
        }
        read
    }

    fn empty(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            texts: Vec::new(),
            known: HashMap::new(),
            asked: Vec::new(),
            lines: Vec::new(),
            merged: IndexMap::new(),
            other_images: Vec::new(),
            deployed: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Reads what else looks like a Compose file in the directory, and what the other generation of
    /// Compose would take. Its services are none of the deployment's.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn read_beside(&mut self, files: &Files) -> Result<()> {
        let all = [Generation::V2, Generation::V1].into_iter().flat_map(|one| files.all(one));
        let mut wishes: Vec<Wish> = all.map(|file| Wish::asked(file, true)).collect();
        let alike = compose_like(&self.directory)?;
        wishes.extend(alike.into_iter().map(|file| Wish::asked(file, false)));
        self.follow(wishes);
        Ok(())
    }

    /// Reads what is wished for, and then what that names.
    fn follow(&mut self, wishes: impl IntoIterator<Item = Wish>) {
        let mut left: VecDeque<Wish> = wishes.into_iter().collect();
        while let Some(wish) = left.pop_front() {
            if let Some(index) = self.take(&wish, false) {
                left.extend(self.texts[index].wishes(&wish));
            }
        }
    }

    /// Reads a file; the index of its text if that is new. With `from_here` it may also be meant
    /// from where dkv was started.
    fn take(&mut self, wish: &Wish, from_here: bool) -> Option<usize> {
        if wish.named_by.is_none() {
            self.asked.push(wish.file.clone());
        }
        let path = self.directory.join(&wish.file);
        let path = match from_here && matches!(store::look(&path), Ok(None)) {
            true => wish.file.clone(),
            false => path,
        };
        if let Some(reading) = self.known(&wish.file, &path) {
            self.known.insert(wish.file.clone(), reading);
            if let (Reading::Text(index), None) = (reading, &wish.named_by) {
                self.texts[index].named_by = None;
            }
            return None;
        }
        let (reading, index) = match open(wish, path) {
            Ok(text) => {
                self.texts.push(text);
                (Reading::Text(self.texts.len() - 1), Some(self.texts.len() - 1))
            }
            Err(problem) => {
                self.problems.push(*problem);
                (Reading::Problem(self.problems.len() - 1), None)
            }
        };
        self.known.insert(wish.file.clone(), reading);
        index
    }

    /// What became of a file that was read already, under this name or another.
    fn known(&self, file: &Path, path: &Path) -> Option<Reading> {
        if let Some(reading) = self.known.get(file) {
            return Some(*reading);
        }
        let real = store::resolve(path).ok()?;
        self.texts.iter().position(|text| text.snapshot.path == real).map(Reading::Text)
    }

    /// Collects what the files that were asked for say of the deployment's services.
    fn collect(&mut self) {
        let mut collected = Collected::default();
        for file in &self.asked {
            self.walk(file, file, &mut Vec::new(), &mut collected);
        }
        for index in collected.needed {
            self.problems[index].is_needed = true;
        }
        self.problems.extend(collected.problems);
        self.lines = collected.lines;
        self.merged = merge(&self.lines);
        self.lines.retain(|line| !line.removed.service);
        let merged = &self.merged;
        collected.other_images.retain(|image| merged.contains_key(&image.service));
        self.other_images = collected.other_images;
        self.deployed = collected.deployed;
    }

    /// Collects what `file` says, after what it includes. `open` are those that lead to it.
    fn walk(&self, file: &Path, top: &Path, open: &mut Vec<usize>, collected: &mut Collected) {
        let index = match self.known.get(file) {
            Some(Reading::Text(index)) => *index,
            Some(Reading::Problem(problem)) => return collected.needed.push(*problem),
            None => return,
        };
        let text = &self.texts[index];
        if open.contains(&index) {
            let why = "it includes itself".to_owned();
            collected.problems.push(Problem::of(text, None, ProblemKind::Circle, why));
            return;
        }
        if !collected.deployed.insert(index) {
            return;
        }
        // What includes a file is not taken away by it.
        let before = if open.is_empty() { 0 } else { collected.lines.len() };
        for (document, root) in text.document.roots().enumerate() {
            open.push(index);
            self.walk_includes(index, document, top, open, collected);
            open.pop();
            let tag = root.get("services").and_then(Node::tag);
            if tag.is_some_and(|tag| [RESET, OVERRIDE].contains(&tag)) {
                collected.lines.truncate(before);
            }
            for service in text.services().filter(|service| service.document == document) {
                self.describe(index, top, &service, collected);
            }
        }
    }

    /// Collects what the files say that a document of the text `index` includes.
    fn walk_includes(
        &self,
        index: usize,
        document: usize,
        top: &Path,
        open: &mut Vec<usize>,
        collected: &mut Collected,
    ) {
        let text = &self.texts[index];
        for include in text.includes.iter().filter(|include| include.document == document) {
            for path in &include.paths {
                match foreign(path) {
                    Some((kind, why)) => {
                        let why = format!("it includes {path}, {why}");
                        collected.problems.push(Problem::of(text, Some(include.line), kind, why));
                    }
                    None => self.walk(&beside(&text.base, path), top, open, collected),
                }
            }
        }
    }

    /// Collects what one document says of one service, with what that extends.
    fn describe(&self, index: usize, top: &Path, service: &Service<'_>, collected: &mut Collected) {
        let Service { document, name, key, node } = *service;
        let removed = Removed {
            service: node.tag() == Some(RESET),
            all: node.tag() == Some(OVERRIDE),
            image: is_reset(node, "image"),
            build: is_reset(node, "build"),
        };
        if node.kind() != Kind::Mapping && !removed.service {
            return;
        }
        let mut line = Line {
            service: name.to_owned(),
            file: self.texts[index].file.clone(),
            document,
            top: top.to_owned(),
            line: key.position().line,
            image: None,
            has_build: false,
            place: None,
            provider: None,
            platform: None,
            removed,
        };
        let mut others = Vec::new();
        let mut seen = HashSet::new();
        // Each service that extends a build makes an image of its own, and has its own line for it.
        let own = Place {
            file: self.texts[index].file.clone(),
            entry: Entry { document, service: name.to_owned() },
            line: node.position().line,
        };
        let mut at = Some(Described {
            index,
            name: name.to_owned(),
            document: self.texts[index].second_document().map(|_| document),
            parts: vec![(document, node)],
        });
        // The images and build sections behind a `!reset` are none of the line's.
        let (mut takes_image, mut takes_build) = (true, true);
        while let Some(Described { index, name, document, parts }) = at.take() {
            let text = &self.texts[index];
            for &(document, node) in &parts {
                takes_image &= !is_reset(node, "image");
                takes_build &= !is_reset(node, "build");
                if line.image.is_none()
                    && takes_image
                    && let (Some(site), Some(image)) = (text.site_of(node), node.get("image"))
                {
                    line.image = Some(Arc::clone(site));
                    line.place = Some(Place {
                        file: text.file.clone(),
                        entry: Entry { document, service: name.clone() },
                        line: image.position().line,
                    });
                }
                if has_build(node) && takes_build {
                    line.has_build = true;
                    if line.image.is_none() {
                        line.place = Some(own.clone());
                    }
                }
                line.provider = line.provider.or_else(|| provider(node));
                line.platform = line.platform.or_else(|| platform(node));
                let ours =
                    |image: &&OtherImage| image.service == name && image.site.document == document;
                others.extend(text.other_images.iter().rev().filter(ours));
            }
            seen.insert((index, document, name));
            if let Some(extends) = parts.iter().find_map(|(_, node)| extends(*node)) {
                at = self.extended(index, document, &extends, &seen, collected);
            }
        }
        for image in others.into_iter().rev() {
            let image = OtherImage { service: line.service.clone(), ..image.clone() };
            collected.other_images.retain(|other| !image.replaces(other));
            collected.other_images.push(image);
        }
        collected.lines.push(line);
    }

    /// The service that one of the file `index` extends: of the same `document` where that is the
    /// whole of what is known there, else of all documents of a file together.
    fn extended(
        &self,
        index: usize,
        document: Option<usize>,
        extends: &Extends,
        seen: &HashSet<(usize, Option<usize>, String)>,
        collected: &mut Collected,
    ) -> Option<Described<'_>> {
        let text = &self.texts[index];
        let mut give_up = |kind, why| {
            collected.problems.push(Problem::of(text, Some(extends.line), kind, why));
            None
        };
        let (index, document) = match &extends.file {
            None => (index, document),
            Some(file) => {
                if let Some((kind, why)) = foreign(file) {
                    return give_up(kind, format!("it extends a service of {file}, {why}"));
                }
                match self.known.get(&beside(&text.base, file))? {
                    Reading::Text(index) => (*index, None),
                    Reading::Problem(problem) => {
                        collected.needed.push(*problem);
                        return None;
                    }
                }
            }
        };
        let name = &extends.service;
        if seen.contains(&(index, document, name.clone())) {
            return give_up(ProblemKind::Circle, format!("`{name}` extends itself in a circle"));
        }
        collected.deployed.insert(index);
        let is_meant = |number: usize| document.is_none_or(|document| document == number);
        let parts = self.texts[index].service(name);
        let parts: Vec<_> = parts.filter(|(number, _)| is_meant(*number)).collect();
        if parts.is_empty() {
            let file = self.texts[index].name();
            let lacking = match document {
                Some(_) => format!("the same document of {file}"),
                None => file,
            };
            let why = format!("it extends `{name}`, which {lacking} lacks");
            return give_up(ProblemKind::NoService, why);
        }
        Some(Described { index, name: name.clone(), document, parts })
    }
}

/// A service as one document of a file describes it, or as all do together.
struct Described<'f> {
    /// Which text.
    index: usize,
    name: String,
    /// Which document; none for all.
    document: Option<usize>,
    /// What they say, the last first.
    parts: Vec<(usize, Node<'f>)>,
}

/// What the files of a deployment come to, while they are walked through.
#[derive(Default)]
struct Collected {
    lines: Vec<Line>,
    other_images: Vec<OtherImage>,
    problems: Vec<Problem>,
    /// The problems with files that turned out to be needed.
    needed: Vec<usize>,
    deployed: BTreeSet<usize>,
}

impl Wish {
    fn asked(file: PathBuf, is_certain: bool) -> Self {
        let base = parent(&file).to_owned();
        Self { file, base, named_by: None, is_certain }
    }
}

impl ComposeText {
    /// The files that this one names.
    fn wishes(&self, own: &Wish) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut add = |path: &str, base: Option<PathBuf>| {
            if foreign(path).is_none() {
                let file = beside(&self.base, path);
                wishes.push(Wish {
                    base: base.unwrap_or_else(|| parent(&file).to_owned()),
                    file,
                    named_by: Some(self.file.clone()),
                    is_certain: own.is_certain,
                });
            }
        };
        for include in &self.includes {
            let home = match (&include.project_directory, include.paths.first()) {
                (Some(directory), _) => Some(beside(&self.base, directory)),
                (None, Some(first)) => Some(parent(&beside(&self.base, first)).to_owned()),
                (None, None) => None,
            };
            include.paths.iter().for_each(|path| add(path, home.clone()));
        }
        for service in self.services() {
            if let Some(file) = extends(service.node).and_then(|extends| extends.file) {
                add(&file, None);
            }
        }
        wishes
    }
}

/// Opens and parses a file.
fn open(wish: &Wish, path: PathBuf) -> Result<ComposeText, Box<Problem>> {
    let problem = |line, kind, why| Problem {
        file: wish.file.clone(),
        path: path.clone(),
        line,
        kind,
        why,
        named_by: wish.named_by.clone(),
        is_certain: wish.is_certain,
        hint: None,
        is_needed: false,
    };
    let snapshot = match store::read(&path) {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => {
            let why = "there is no such file".to_owned();
            return Err(problem(None, ProblemKind::Missing, why).into());
        }
        Err(error) => {
            let hint = error::find(&error).and_then(Error::hint).map(str::to_owned);
            let problem = problem(None, ProblemKind::Unreadable, format!("{error:#}"));
            return Err(Problem { hint, ..problem }.into());
        }
    };
    let document = parse(&snapshot.bytes)
        .map_err(|error| problem(Some(error.line), ProblemKind::Invalid, error.to_string()))?;
    Ok(ComposeText {
        named_by: wish.named_by.clone(),
        base: wish.base.clone(),
        ..ComposeText::new(wish.file.clone(), snapshot, document)
    })
}

fn parse(bytes: &[u8]) -> Result<Document, YamlError> {
    let document = Document::parse_all(bytes)?;
    document.check_merges()?;
    let is_alone = document.roots().len() == 1;
    for root in document.roots() {
        match root.kind() {
            Kind::Mapping => {}
            Kind::Null if is_alone => {}
            Kind::Null => {
                return Err(root.error(
                    "one of its documents is empty, which Compose refuses: take away the `---` that \
                    nothing stands behind",
                ));
            }
            _ => return Err(root.error("it is not a mapping")),
        }
    }
    Ok(document)
}

/// What the files say together: the last that gives a service an image decides, as when Compose
/// merges them.
fn merge(lines: &[Line]) -> IndexMap<String, Line> {
    let mut merged: IndexMap<String, Line> = IndexMap::new();
    for line in lines {
        if line.removed.service {
            merged.shift_remove(&line.service);
            continue;
        }
        let Some(before) = merged.get_mut(&line.service) else {
            merged.insert(line.service.clone(), line.clone());
            continue;
        };
        if line.removed.all {
            *before = line.clone();
            continue;
        }
        let has_build = line.has_build || (before.has_build && !line.removed.build);
        let provider = line.provider.clone().or_else(|| before.provider.take());
        let platform = line.platform.clone().or_else(|| before.platform.take());
        if line.image.is_some() || line.removed.image {
            *before = line.clone();
        } else if before.place.is_none() {
            before.place.clone_from(&line.place);
        }
        before.has_build = has_build;
        before.provider = provider;
        before.platform = platform;
    }
    merged
}

/// Whether `!reset` stands before what a service says of `key`.
fn is_reset(service: Node<'_>, key: &str) -> bool {
    service.get(key).is_some_and(|value| value.tag() == Some(RESET))
}

/// The platform of a service, as it is written.
fn platform(service: Node<'_>) -> Option<String> {
    service.get("platform")?.target().as_text().map(str::to_owned)
}

/// The program that provides a service.
fn provider(service: Node<'_>) -> Option<String> {
    let kind = service.get("provider")?.get("type")?;
    kind.as_text().map(str::to_owned)
}

/// Why only Compose can follow a path, if that is so.
fn foreign(path: &str) -> Option<(ProblemKind, &'static str)> {
    if path.contains("://") || path.starts_with("git@") {
        return Some((ProblemKind::Remote, "which only Compose fetches"));
    }
    path.contains('$').then_some((ProblemKind::Variable, "whose variables only Compose fills in"))
}

/// A path that is relative to `base`.
fn beside(base: &Path, path: &str) -> PathBuf {
    base.join(path.strip_prefix("./").unwrap_or(path))
}

/// The files of a directory that are named like Compose files, such as
/// `docker-compose.secretvm.yml`.
///
/// # Errors
/// The directory cannot be listed.
pub fn compose_like(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut alike = Vec::new();
    for name in store::list(directory)? {
        let is_yaml = [".yml", ".yaml"].iter().any(|ending| name.ends_with(ending));
        if !is_yaml || !name.contains("compose") || name.starts_with('.') {
            continue;
        }
        // One that cannot be looked at is read, to say why.
        if matches!(store::look(&directory.join(&name)), Ok(Some(store::Kind::File)) | Err(_)) {
            alike.push(PathBuf::from(name));
        }
    }
    Ok(alike)
}
