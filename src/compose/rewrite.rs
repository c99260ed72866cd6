//! Image lines of Compose files, replaced in place: every other byte stays as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};

use crate::model::yaml::{Document, Edit, Node, Style, YamlError};

/// The text of a Compose file with the images of these services replaced, or added where a service
/// has none.
///
/// # Errors
/// A service that is not there, services that share a line and want different images, or a result
/// that does not say what was intended.
pub fn set_images(source: &str, images: &BTreeMap<String, String>) -> Result<String> {
    let document = Document::parse(source)?;
    let mut spans: BTreeMap<usize, (Range<usize>, &str, Option<Style>)> = BTreeMap::new();
    let mut missing = Vec::new();
    for (service, image) in images {
        let node = service_of(&document, service)
            .with_context(|| format!("there is no service `{service}`"))?;
        let Some(line) = node.get("image") else {
            missing.push(Edit::set_after(
                ["services", service.as_str(), "image"],
                image.as_str(),
                "build",
            ));
            continue;
        };
        let old = spans.insert(line.span().start, (line.span(), image, line.style()));
        if old.is_some_and(|(_, other, _)| other != image) {
            return Err(line.error("services that share this line want different images").into());
        }
    }
    let mut text = source.to_owned();
    for (span, image, style) in spans.into_values().rev() {
        let candidates = match style {
            Some(Style::Single) => vec![format!("'{image}'")],
            Some(Style::Double) => vec![format!("\"{image}\"")],
            // Inside brackets the braces of a variable need quotes.
            _ => vec![image.to_owned(), format!("\"{image}\"")],
        };
        let changed = candidates.iter().find_map(|candidate| {
            let mut changed = text.clone();
            changed.replace_range(span.clone(), candidate);
            let document = Document::parse(&changed).ok()?;
            let says_so = |service: &str| {
                image_of(&document, service) == images.get(service).map(String::as_str)
            };
            let is_here = |service: &&String| {
                let node = service_of(&document, service).and_then(|node| node.get("image"));
                node.is_some_and(|node| node.span().start == span.start)
            };
            images.keys().filter(is_here).all(|service| says_so(service)).then_some(changed)
        });
        text = changed.with_context(|| format!("cannot write `{image}` there"))?;
    }
    let text = if missing.is_empty() { text } else { Document::parse(&text)?.apply(&missing)? };
    verify(source, &text, images)?;
    Ok(text)
}

fn service_of<'a>(document: &'a Document, service: &str) -> Option<Node<'a>> {
    document.root().get("services")?.get(service)
}

fn image_of<'a>(document: &'a Document, service: &str) -> Option<&'a str> {
    service_of(document, service)?.get("image")?.as_text()
}

/// Whether every service has the image it should have, and all others the one they had.
fn verify(before: &str, after: &str, images: &BTreeMap<String, String>) -> Result<()> {
    let (before, after) = (Document::parse(before)?, Document::parse(after)?);
    let services = |document: &Document| -> Vec<String> {
        let services = document.root().get("services");
        services
            .iter()
            .flat_map(|services| services.entries())
            .filter_map(|(key, _)| Some(key.as_text()?.to_owned()))
            .collect()
    };
    for service in services(&before) {
        let expected =
            images.get(&service).map(String::as_str).or_else(|| image_of(&before, &service));
        if image_of(&after, &service) != expected {
            let position = service_of(&before, &service).map(Node::position);
            let (line, column) =
                position.map_or((1, 1), |position| (position.line, position.column));
            let message = format!(
                "the image of `{service}` is shared with others in a way that cannot be changed \
                    for some of them"
            );
            return Err(YamlError { message, line, column }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(source: &str, images: &[(&str, &str)]) -> Result<String> {
        let images = images
            .iter()
            .map(|(service, image)| ((*service).to_owned(), (*image).to_owned()))
            .collect();
        set_images(source, &images)
    }

    const NEW: &str = "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-1}";

    #[test]
    fn only_the_image_changes() {
        let source = "# top\r\nservices:\r\n  a: # the one\r\n    image:   r/a:1   # pinned by \
            hand\r\n    ports: ['80:80']\r\n  b:\r\n    image: \"r/b:1\"\r\n";
        let text = set(source, &[("a", NEW)]).unwrap();
        assert_eq!(text, source.replace("r/a:1 ", &format!("{NEW} ")));
        let text = set(source, &[("b", NEW)]).unwrap();
        assert_eq!(text, source.replace("r/b:1", NEW));
    }

    #[test]
    fn brackets_get_quotes() {
        let text = set("services: {a: {image: r/a:1, restart: always}}\n", &[("a", NEW)]).unwrap();
        assert_eq!(text, format!("services: {{a: {{image: \"{NEW}\", restart: always}}}}\n"));
    }

    #[test]
    fn shared_lines_change_once() {
        let merged = "x-bot: &bot\n  image: r/a:1 # one for all\nservices:\n  a:\n    <<: *bot\n  \
            b:\n    <<: *bot\n    restart: always\n";
        let text = set(merged, &[("a", NEW), ("b", NEW)]).unwrap();
        assert_eq!(text, merged.replace("r/a:1", NEW));
        let error = set(merged, &[("a", NEW)]).unwrap_err();
        assert!(error.to_string().contains("`b` is shared"), "{error}");
        let anchored =
            "x-image: &image r/a:1\nservices:\n  a:\n    image: *image\n  b:\n    image: *image\n";
        let text = set(anchored, &[("a", NEW)]).unwrap();
        assert_eq!(text, anchored.replacen("*image", NEW, 1));
    }

    #[test]
    fn a_built_service_gets_an_image_line() {
        let source = "services:\n  app:\n    build: .\n    # comment\n    ports: ['80:80']\n";
        let text = set(source, &[("app", NEW)]).unwrap();
        assert_eq!(
            text,
            format!(
                "services:\n  app:\n    build: .\n    image: {NEW}\n    # comment\n    ports: \
                    ['80:80']\n"
            )
        );
    }
}
