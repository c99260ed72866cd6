//! What Compose files say about images, read without Compose and before interpolation.
//!
//! This serves where Compose may be absent, and where the text itself matters: which variables give
//! a service's image, and what they default to. What would really start is [`super::config`]'s.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_yaml::{Mapping, Value};

use crate::error;

/// How many files and services may extend or include one another before it is taken for a circle.
const MAX_DEPTH: usize = 16;

/// A service of one Compose file and the image that the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLine {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The Compose service.
    pub service: String,
    /// The `image:` as written, variables and all; [`crate::model::interpolation::Template`] reads
    /// it.
    pub image: Option<String>,
    /// Whether the service has a build section.
    pub has_build: bool,
}

/// A parsed Compose file.
#[derive(Debug, Clone)]
pub struct Document {
    root: Mapping,
}

impl Document {
    /// Parses a Compose file; anchors and merge keys are resolved.
    ///
    /// # Errors
    /// The text is not a YAML mapping.
    pub fn parse(text: &str) -> Result<Self> {
        let mut value: Value = serde_yaml::from_str(text)?;
        value.apply_merge()?;
        match untagged(value) {
            Value::Mapping(root) => Ok(Self { root }),
            Value::Null => Ok(Self { root: Mapping::new() }),
            _ => anyhow::bail!("it is not a mapping"),
        }
    }

    /// Reads and parses a Compose file.
    ///
    /// # Errors
    /// The file cannot be read or parsed (exit 3).
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            error::state(format!("cannot read the Compose file {}: {source}", path.display()))
        })?;
        let unreadable = |reason: anyhow::Error| {
            error::state(format!("cannot read the Compose file {}: {reason}", path.display()))
        };
        Ok(Self::parse(&text).map_err(unreadable)?)
    }

    /// Whether the file names its project, which only v2 understands.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.root.get("name").is_some_and(|name| !name.is_null())
    }

    fn services(&self) -> impl Iterator<Item = (&str, &Mapping)> {
        let services = self.root.get("services").and_then(mapping);
        services
            .into_iter()
            .flatten()
            .filter_map(|(name, service)| Some((name.as_str()?, mapping(service)?)))
    }

    fn service(&self, name: &str) -> Option<&Mapping> {
        self.services().find(|(key, _)| *key == name).map(|(_, service)| service)
    }

    /// The files that `include:` names.
    fn included(&self) -> Vec<String> {
        let entries = self.root.get("include").and_then(Value::as_sequence);
        let paths = entries.into_iter().flatten().flat_map(|entry| match mapping(entry) {
            Some(long) => strings(long.get("path")),
            None => strings(Some(entry)),
        });
        paths.collect()
    }
}

/// The image lines of `files` (relative to `directory`), in order; included files come first.
///
/// # Errors
/// A file that cannot be read or parsed (exit 3).
pub fn read(directory: &Path, files: &[PathBuf]) -> Result<Vec<ImageLine>> {
    let mut lines = Vec::new();
    for file in files {
        read_file(directory, file, 0, &mut lines)?;
    }
    Ok(lines)
}

/// One line per service: the last file that gives it an image decides, as when Compose merges them.
#[must_use]
pub fn merge(lines: Vec<ImageLine>) -> Vec<ImageLine> {
    let mut merged: indexmap::IndexMap<String, ImageLine> = indexmap::IndexMap::new();
    for line in lines {
        match merged.entry(line.service.clone()) {
            indexmap::map::Entry::Vacant(vacant) => {
                vacant.insert(line);
            }
            indexmap::map::Entry::Occupied(mut occupied) => {
                let has_build = line.has_build || occupied.get().has_build;
                if line.image.is_some() {
                    *occupied.get_mut() = line;
                }
                occupied.get_mut().has_build = has_build;
            }
        }
    }
    merged.into_values().collect()
}

fn read_file(
    directory: &Path,
    file: &Path,
    depth: usize,
    lines: &mut Vec<ImageLine>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(
            error::state(format!("the Compose file {} includes itself", file.display())).into()
        );
    }
    let document = Document::read(&directory.join(file))?;
    let base = file.parent().unwrap_or(Path::new(""));
    for path in document.included() {
        // Variables and URLs in include paths are Compose's to resolve.
        if !path.contains('$') && !path.contains("://") {
            read_file(directory, &base.join(path), depth + 1, lines)?;
        }
    }
    for (name, service) in document.services() {
        let own = Inherited {
            image: text(service.get("image")),
            has_build: service.contains_key("build"),
        };
        let inherited = own.or_from(directory, file, &document, service, 0)?;
        let (image, has_build) = (inherited.image, inherited.has_build);
        lines.push(ImageLine { file: file.to_owned(), service: name.to_owned(), image, has_build });
    }
    Ok(())
}

/// What a service takes from those it extends.
struct Inherited {
    image: Option<String>,
    has_build: bool,
}

impl Inherited {
    fn or_from(
        mut self,
        directory: &Path,
        file: &Path,
        document: &Document,
        service: &Mapping,
        depth: usize,
    ) -> Result<Self> {
        let Some(extends) = service.get("extends") else { return Ok(self) };
        if self.image.is_some() && self.has_build {
            return Ok(self);
        }
        if depth > MAX_DEPTH {
            return Err(error::state(format!(
                "services of the Compose file {} extend one another in a circle",
                file.display()
            ))
            .into());
        }
        let (name, other_file) = match mapping(extends) {
            Some(long) => (text(long.get("service")), text(long.get("file"))),
            None => (text(Some(extends)), None),
        };
        let Some(name) = name else { return Ok(self) };
        let other_path = other_file.map(|other| file.parent().unwrap_or(Path::new("")).join(other));
        let other_document = match &other_path {
            Some(path) => Some(
                Document::read(&directory.join(path))
                    .with_context(|| format!("{} extends it", file.display()))?,
            ),
            None => None,
        };
        let (file, document) =
            (other_path.as_deref().unwrap_or(file), other_document.as_ref().unwrap_or(document));
        let Some(base) = document.service(&name) else { return Ok(self) };
        self.image = self.image.or_else(|| text(base.get("image")));
        self.has_build |= base.contains_key("build");
        self.or_from(directory, file, document, base, depth + 1)
    }
}

fn untagged(value: Value) -> Value {
    match value {
        Value::Tagged(tagged) => tagged.value,
        other => other,
    }
}

/// The mapping of a value, with or without a tag such as `!override`.
fn mapping(value: &Value) -> Option<&Mapping> {
    match value {
        Value::Mapping(mapping) => Some(mapping),
        Value::Tagged(tagged) => mapping(&tagged.value),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Tagged(tagged) if tagged.tag != "reset" => text(Some(&tagged.value)),
        _ => None,
    }
}

/// A string, or the strings of a list.
fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Sequence(list)) => list.iter().filter_map(|entry| text(Some(entry))).collect(),
        other => text(other).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::interpolation::Template;

    fn fixture(name: &str, files: &[&str]) -> Vec<ImageLine> {
        let directory =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose").join(name);
        read(&directory, &files.iter().map(PathBuf::from).collect::<Vec<_>>()).unwrap()
    }

    fn image<'a>(lines: &'a [ImageLine], service: &str) -> Option<&'a str> {
        lines.iter().find(|line| line.service == service).unwrap().image.as_deref()
    }

    fn written(files: &[(&str, &str)], first: &str) -> Result<Vec<ImageLine>> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        read(directory.path(), &[first.into()])
    }

    #[test]
    fn image_lines_keep_their_variables() {
        let lines = fixture("dkproxy", &["docker-compose.yml"]);
        let vault = Template::parse(image(&lines, "vault").unwrap()).unwrap();
        assert_eq!(vault.variables(), ["DK_VAULT_IMAGE", "DK_VAULT_TAG"]);
        assert_eq!(vault.default_value().as_deref(), Some("hashicorp/vault:1.20.3"));
    }

    #[test]
    fn merge_keys_and_extended_services_give_their_image() {
        let lines = fixture("whisperengine-dev", &["docker-compose.yml"]);
        assert_eq!(image(&lines, "marcus-bot"), Some("whisperengine-bot:${VERSION:-latest}"));
        let lines = fixture("whisperengine-prod", &["docker-compose.yml"]);
        assert_eq!(
            image(&lines, "assistant"),
            Some("whisperengine/whisperengine:${VERSION:-v1.0.2}")
        );
        assert_eq!(image(&fixture("hive", &["docker-compose.yml"]), "app"), None);
    }

    #[test]
    fn the_last_file_with_an_image_decides() {
        let files = ["docker-compose.yml", "docker-compose.secretvm.yml"];
        let lines = fixture("privexbot", &files);
        assert_eq!(lines.iter().filter(|line| line.service == "backend").count(), 2);
        let merged = merge(lines);
        assert_eq!(
            merged.iter().map(|line| line.service.as_str()).collect::<Vec<_>>(),
            ["backend", "postgres"]
        );
        assert_eq!(merged[0].file, Path::new(files[1]));
    }

    #[test]
    fn an_override_without_image_keeps_the_image_and_adds_the_build() {
        let line = |image: Option<&str>, has_build| ImageLine {
            file: "f".into(),
            service: "a".into(),
            image: image.map(str::to_owned),
            has_build,
        };
        assert_eq!(merge(vec![line(Some("x"), false), line(None, true)]), [line(Some("x"), true)]);
        assert_eq!(merge(vec![line(None, true), line(Some("x"), false)]), [line(Some("x"), true)]);
    }

    #[test]
    fn includes_are_followed_from_their_file() {
        let lines = written(
            &[
                (
                    "compose.yaml",
                    "include: [sub/a.yaml, {path: [sub/b.yaml]}, \
                        '${ELSEWHERE}/c.yaml']\nservices: {web: {image: w}}",
                ),
                ("sub/a.yaml", "include: [b.yaml]\nservices: {a: {image: !override x}}"),
                ("sub/b.yaml", "services: {b: {image: y}, c: {image: !reset null, build: .}}"),
            ],
            "compose.yaml",
        )
        .unwrap();
        assert_eq!(
            (image(&lines, "a"), image(&lines, "b"), image(&lines, "c")),
            (Some("x"), Some("y"), None)
        );
        assert_eq!(lines.last().unwrap().service, "web");
    }

    #[test]
    fn circles_end() {
        assert!(written(&[("a.yml", "include: [a.yml]")], "a.yml").is_err());
        assert!(
            written(
                &[("a.yml", "services: {a: {extends: b}, b: {extends: {service: a}}}")],
                "a.yml"
            )
            .is_err()
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for files in [&[("a.yml", "services: [")][..], &[("a.yml", "- list")], &[]] {
            let error = written(files, "a.yml").unwrap_err();
            assert_eq!(error::kind(&error), error::Kind::State);
            assert!(error.to_string().contains("a.yml"), "{error}");
        }
        assert!(written(&[("a.yml", "# nothing yet\n")], "a.yml").unwrap().is_empty());
    }

    #[test]
    fn a_project_name_is_noticed() {
        assert!(Document::parse("name: ${PROXY_ALIAS}").unwrap().is_named());
        assert!(!Document::parse("services: {name: {image: a}}").unwrap().is_named());
    }
}
