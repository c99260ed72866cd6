//! Image lines of Compose files, replaced in place: every other byte stays as it is.
//!
//! A line that several services share through an anchor, an alias or a merge key is changed where
//! it stands if all of them want the same; else those that want another one get a line of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;

use super::text::services;
use crate::model::image_line::Entry;
use crate::model::yaml::{Document, Edit, Node, Style, YamlError};

/// A Compose file with other images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The text.
    pub text: String,
    /// The services whose image stays what it was, and why.
    pub refused: BTreeMap<Entry, String>,
}

/// Keys of a service behind which a new image line reads well.
const BEFORE_IMAGE: [&str; 3] = ["build", "extends", "<<"];

/// The text of a Compose file with the images of these services replaced, or added where a service
/// has none. All others keep theirs.
///
/// # Errors
/// The file cannot be read.
pub fn set_images(source: &str, images: &BTreeMap<Entry, String>) -> Result<Rewritten> {
    let document = parsed(source)?;
    let mut wanted = images.clone();
    let mut refused = BTreeMap::new();
    loop {
        match (Attempt::new(&document, &wanted).run(), wanted.len()) {
            (Ok(text), _) => return Ok(Rewritten { text, refused }),
            (Err(_), 0) => return Ok(Rewritten { text: source.to_owned(), refused }),
            (Err(Refusal { entry, why }), _) => {
                // Whoever is to blame is one of those that are left.
                let blamed = entry.filter(|entry| wanted.contains_key(entry));
                if let Some(entry) = blamed.or_else(|| wanted.keys().next().cloned()) {
                    wanted.remove(&entry);
                    refused.insert(entry, why);
                }
            }
        }
    }
}

/// Why the image of a service cannot be changed.
struct Refusal {
    entry: Option<Entry>,
    why: String,
}

/// One try to change a set of images together.
struct Attempt<'d> {
    document: &'d Document,
    wanted: &'d BTreeMap<Entry, String>,
    /// Every service of the file, with the image that it shall have.
    expected: Vec<(Entry, Option<&'d str>)>,
    /// The texts to replace, by where they begin.
    replaced: BTreeMap<usize, (Range<usize>, &'d str, Option<Style>)>,
    /// The services that get a line of their own.
    added: BTreeMap<Entry, &'d str>,
}

impl<'d> Attempt<'d> {
    fn new(document: &'d Document, wanted: &'d BTreeMap<Entry, String>) -> Self {
        let expected = services(document).map(|service| {
            let entry = Entry { document: service.document, service: service.name.to_owned() };
            let old = service.node.get("image").and_then(Node::as_text);
            let image = wanted.get(&entry).map(String::as_str).or(old);
            (entry, image)
        });
        let expected = expected.collect();
        Self { document, wanted, expected, replaced: BTreeMap::new(), added: BTreeMap::new() }
    }

    fn run(mut self) -> Result<String, Refusal> {
        for (entry, image) in self.wanted {
            self.place(entry, image)?;
        }
        loop {
            let text = self.text()?;
            let after = parsed(&text).map_err(|error| self.refusal(None, error))?;
            let wrong: Vec<_> = self
                .expected
                .iter()
                .filter(|(entry, image)| image_of(&after, entry) != *image)
                .cloned()
                .collect();
            if wrong.is_empty() {
                return Ok(text);
            }
            // They share what was changed: what they shall have is written out for them.
            for (entry, image) in wrong {
                let shared = || self.refusal(Some(&entry), shared_with(&entry.service));
                let is_placed = self.added.contains_key(&entry);
                let image = image.filter(|_| !is_placed).ok_or_else(shared)?;
                match self.own_line(&entry) {
                    Some(line) if line.is_alias() => self.replace(line, image),
                    Some(_) => return Err(shared()),
                    None => drop(self.added.insert(entry, image)),
                }
            }
        }
    }

    /// Decides where the image of a service is written.
    fn place(&mut self, entry: &Entry, image: &'d str) -> Result<(), Refusal> {
        let there = service_of(self.document, entry);
        let Some(there) = there else {
            let why = format!("there is no service `{}` in the file", entry.service);
            return Err(Refusal { entry: Some(entry.clone()), why });
        };
        let own = self.own_line(entry);
        let Some(line) = own.or_else(|| there.get("image")) else {
            self.added.insert(entry.clone(), image);
            return Ok(());
        };
        let place = line.span().start;
        let others = self.expected.iter().filter(|(other, _)| {
            let line = service_of(self.document, other).and_then(|other| other.get("image"));
            line.is_some_and(|line| line.span().start == place)
        });
        let agree = others.clone().all(|(_, other)| *other == Some(image));
        if own.is_none() && !agree {
            self.added.insert(entry.clone(), image);
            return Ok(());
        }
        if !line.is_alias() {
            self.refuse_used_elsewhere(entry, line)?;
        }
        self.replace(line, image);
        Ok(())
    }

    /// Makes sure that nothing but images of services repeats the text of a line.
    fn refuse_used_elsewhere(&self, entry: &Entry, line: Node<'_>) -> Result<(), Refusal> {
        let images: BTreeSet<(usize, usize)> = self
            .expected
            .iter()
            .filter_map(|(name, _)| self.own_line(name))
            .map(|line| (line.position().line, line.position().column))
            .collect();
        let elsewhere =
            line.aliases().find(|position| !images.contains(&(position.line, position.column)));
        match elsewhere {
            Some(position) => Err(Refusal {
                entry: Some(entry.clone()),
                why: format!(
                    "its text is repeated at {position} by an alias, where it is something else \
                    than an image; write it out there"
                ),
            }),
            None => Ok(()),
        }
    }

    fn replace(&mut self, line: Node<'_>, image: &'d str) {
        let style = if line.is_alias() { None } else { line.style() };
        self.replaced.insert(line.span().start, (line.span(), image, style));
    }

    /// The image line that the service has itself, and not from what it merges.
    fn own_line(&self, entry: &Entry) -> Option<Node<'d>> {
        service_of(self.document, entry)?.own_value("image")
    }

    /// The file as far as it is decided.
    fn text(&self) -> Result<String, Refusal> {
        let mut edits = Vec::new();
        for (entry, image) in &self.added {
            let node = service_of(self.document, entry);
            let has = |key: &&&str| node.is_some_and(|node| node.own_value(key).is_some());
            let after = BEFORE_IMAGE.iter().find(has).copied().unwrap_or_default();
            let edit = Edit::set_own(["services", entry.service.as_str(), "image"], *image, after);
            edits.push(edit.in_document(entry.document));
        }
        let mut text = self.document.source().to_owned();
        for (span, image, style) in self.replaced.values().rev() {
            let candidates = match style {
                Some(Style::Single) => vec![format!("'{image}'")],
                Some(Style::Double) => vec![format!("\"{image}\"")],
                // Inside brackets the braces of a variable need quotes.
                _ => vec![(*image).to_owned(), format!("\"{image}\"")],
            };
            let changed = candidates.iter().find_map(|candidate| {
                let mut changed = text.clone();
                changed.replace_range(span.clone(), candidate);
                let document = parsed(&changed).ok()?;
                let mut services = self.expected.iter().filter(|(service, _)| {
                    self.own_line(service)
                        .or_else(|| service_of(self.document, service)?.get("image"))
                        .is_some_and(|line| line.span().start == span.start)
                });
                services
                    .all(|(service, _)| image_of(&document, service) == Some(*image))
                    .then_some(changed)
            });
            text = changed.ok_or_else(|| {
                let why = format!("`{image}` cannot be written there");
                self.refusal(self.user_of(span.start).as_ref(), why)
            })?;
        }
        if edits.is_empty() {
            return Ok(text);
        }
        let document = parsed(&text).map_err(|error| self.refusal(None, error))?;
        document.apply(&edits).map_err(|error| {
            let mut each = edits.iter().zip(self.added.keys());
            let at_fault =
                each.find(|(edit, _)| document.apply(std::slice::from_ref(*edit)).is_err());
            self.refusal(at_fault.map(|(_, entry)| entry), error)
        })
    }

    /// A service whose image stands at `start`.
    fn user_of(&self, start: usize) -> Option<Entry> {
        let uses = |entry: &&Entry| {
            let line = service_of(self.document, entry).and_then(|one| one.get("image"));
            line.is_some_and(|line| line.span().start == start)
        };
        self.expected.iter().map(|(entry, _)| entry).find(uses).cloned()
    }

    /// Blames `entry`, or whoever shares its line and was to be changed.
    fn refusal(&self, entry: Option<&Entry>, why: impl ToString) -> Refusal {
        let line = |entry: &Entry| service_of(self.document, entry)?.get("image");
        let target = |entry: &Entry| line(entry).map(|line| line.target().span().start);
        let blamed = entry.filter(|entry| self.wanted.contains_key(*entry)).or_else(|| {
            let place = target(entry?)?;
            self.wanted.keys().find(|other| target(other) == Some(place))
        });
        Refusal { entry: blamed.cloned(), why: why.to_string() }
    }
}

fn shared_with(service: &str) -> String {
    format!("its text is shared with `{service}` in a way that cannot be changed for one of them")
}

/// Compose v2 takes files of several documents, and so they are edited.
fn parsed(source: &str) -> Result<Document, YamlError> {
    Document::parse_all(source.as_bytes())
}

fn service_of<'a>(document: &'a Document, entry: &Entry) -> Option<Node<'a>> {
    document.roots().nth(entry.document)?.get("services")?.get(&entry.service)
}

fn image_of<'a>(document: &'a Document, entry: &Entry) -> Option<&'a str> {
    service_of(document, entry)?.get("image")?.as_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(service: &str) -> Entry {
        Entry { document: 0, service: service.to_owned() }
    }

    fn rewritten(source: &str, images: &[(&str, &str)]) -> Rewritten {
        let images =
            images.iter().map(|(service, image)| (first(service), (*image).to_owned())).collect();
        set_images(source, &images).unwrap()
    }

    fn set(source: &str, images: &[(&str, &str)]) -> String {
        let done = rewritten(source, images);
        assert_eq!(done.refused, BTreeMap::new(), "{source}");
        done.text
    }

    const NEW: &str = "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-1}";

    #[test]
    fn only_the_image_changes() {
        let source = "# top\r\nservices:\r\n  a: # the one\r\n    image:   r/a:1   # pinned by \
            hand\r\n    ports: ['80:80']\r\n  b:\r\n    image: \"r/b:1\"\r\n";
        let text = set(source, &[("a", NEW)]);
        assert_eq!(text, source.replace("r/a:1 ", &format!("{NEW} ")));
        let text = set(source, &[("b", NEW)]);
        assert_eq!(text, source.replace("r/b:1", NEW));
    }

    #[test]
    fn brackets_get_quotes() {
        let text = set("services: {a: {image: r/a:1, restart: always}}\n", &[("a", NEW)]);
        assert_eq!(text, format!("services: {{a: {{image: \"{NEW}\", restart: always}}}}\n"));
    }

    #[test]
    fn shared_lines_change_once() {
        let merged = "x-bot: &bot\n  image: r/a:1 # one for all\nservices:\n  a:\n    <<: *bot\n  \
            b:\n    <<: *bot\n    restart: always\n";
        let text = set(merged, &[("a", NEW), ("b", NEW)]);
        assert_eq!(text, merged.replace("r/a:1", NEW));
        // One that stays what it was leaves the line to the others, who get their own.
        let text = set(merged, &[("a", NEW)]);
        let own = format!("  a:\n    <<: *bot\n    image: {NEW}\n");
        assert_eq!(text, merged.replace("  a:\n    <<: *bot\n", &own));
        let anchored =
            "x-image: &image r/a:1\nservices:\n  a:\n    image: *image\n  b:\n    image: *image\n";
        let text = set(anchored, &[("a", NEW)]);
        assert_eq!(text, anchored.replacen("*image", NEW, 1));
    }

    #[test]
    fn a_built_service_gets_an_image_line() {
        let source = "services:\n  app:\n    build: .\n    # comment\n    ports: ['80:80']\n";
        let text = set(source, &[("app", NEW)]);
        assert_eq!(
            text,
            format!(
                "services:\n  app:\n    build: .\n    image: {NEW}\n    # comment\n    ports: \
                    ['80:80']\n"
            )
        );
    }

    #[test]
    fn anchors_within_anchors_are_followed_to_whoever_shares_them() {
        let nested = "x-one: &one\n  image: r/a:1\nx-two: &two\n  <<: *one\n  restart: \
            always\nservices:\n  web: &web\n    <<: *two\n    command: [a]\n  worker:\n    <<: \
            *web\n    command: [b]\n  other:\n    <<: [*one]\n";
        let text = set(nested, &[("web", NEW), ("worker", NEW), ("other", NEW)]);
        assert_eq!(text, nested.replace("r/a:1", NEW));
        // `worker` gets it from `web`; `other` keeps its own.
        let text = set(nested, &[("web", NEW), ("worker", NEW)]);
        let images = |text: &str| {
            let document = Document::parse(text).unwrap();
            ["web", "worker", "other"]
                .map(|name| image_of(&document, &first(name)).map(str::to_owned))
        };
        let [new, old] = [NEW, "r/a:1"].map(|image| Some(image.to_owned()));
        assert_eq!(images(&text), [new.clone(), new.clone(), old.clone()], "{text}");
        let text = set(nested, &[("web", NEW)]);
        assert_eq!(images(&text), [new.clone(), old.clone(), old.clone()], "{text}");
        let text = set(nested, &[("worker", NEW), ("other", "r/b:2")]);
        assert_eq!(images(&text), [old, new, Some("r/b:2".to_owned())], "{text}");
    }

    #[test]
    fn a_text_that_is_more_than_an_image_stays() {
        let source = "services:\n  a:\n    image: &image r/a:1\n    environment: {IMAGE: \
            *image}\n  b:\n    image: r/a:1\n";
        let done = rewritten(source, &[("a", NEW), ("b", NEW)]);
        assert!(done.refused[&first("a")].contains("line 4, column 26"), "{done:?}");
        assert_eq!(
            done.text,
            source.replace("b:\n    image: r/a:1", &format!("b:\n    image: {NEW}"))
        );
        let shared = "services:\n  a: {image: &image r/a:1}\n  b: {image: *image}\n";
        assert_eq!(
            set(shared, &[("a", NEW)]),
            format!("services:\n  a: {{image: &image \"{NEW}\"}}\n  b: {{image: r/a:1}}\n")
        );
        let done = rewritten("services:\n  a: &a {image: r/a:1}\n  b: *a\n", &[("b", NEW)]);
        assert!(done.refused[&first("b")].contains("shared with `a`"), "{done:?}");
    }

    #[test]
    fn a_block_of_lines_becomes_one_line() {
        let source =
            "services:\n  a:\n    image: >-   # folded\n      r/a:1\n    restart: always\n";
        let text = set(source, &[("a", NEW)]);
        assert_eq!(text, format!("services:\n  a:\n    image: {NEW}\n    restart: always\n"));
    }
}
