//! Image lines of Compose files as texts with variables: whether one takes its version from given
//! variables, and how one is written that does.
//!
//! A line that follows says, while the service's variables are set, exactly what they say, and
//! without them what it said before. Compose v2 fills in a default inside a default, so with it
//! every line can follow: the old text, variables and all, becomes the default. Compose v1 ends a
//! default at the first `}`, so there only a text without variables can be one.

use std::collections::BTreeMap;

use super::env_file;
use super::interpolation::Template;
use super::reference::{Reference, ServiceName};

/// What no image is called, to find out where a variable's value goes.
const PROBE_REPOSITORY: &str = "probe.example/dkv/probe";
const PROBE_TAG: &str =
    "dkvprobe@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The tag that a reference without one means.
const NO_TAG: &str = "latest";

/// The variables of its own that a service is given, for the image and for the tag.
#[must_use]
pub fn own(prefix: &str, name: &ServiceName) -> [String; 2] {
    ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, name, suffix))
}

/// A service as one document of a file has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The number of the document, from 0.
    pub document: usize,
    /// The service.
    pub service: String,
}

/// A line that follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// What to write.
    pub text: String,
    /// The variables of the old text that have no effect any more.
    pub cut: Vec<String>,
}

/// The text of an image line in two: the repository, and the tag and digest with what stands before
/// them. Colons of ports and inside of braces are part of the repository.
#[must_use]
pub fn split(text: &str) -> (&str, &str) {
    let mut depth = 0_usize;
    let mut at = None;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '/' if depth == 0 => at = None,
            ':' | '@' if depth == 0 => at = at.or(Some(index)),
            _ => {}
        }
    }
    text.split_at(at.unwrap_or(text.len()))
}

/// The variables of a text, for messages.
#[must_use]
pub fn variables_in(text: &str) -> Vec<String> {
    let template = Template::parse(text);
    template.iter().flat_map(Template::variables).map(str::to_owned).collect()
}

/// The tag, and the digest if there is one: a pin stays one for whoever starts Compose without
/// `versions.env`.
#[must_use]
pub fn version_named(reference: &Reference) -> String {
    let tag = reference.tag.as_ref().map_or(NO_TAG, |tag| tag.as_str());
    let digest = reference.digest.as_ref().map_or_else(String::new, |digest| format!("@{digest}"));
    format!("{tag}{digest}")
}

/// Whether `line` says what the variables `image` and `tag` say once they are set, whatever others
/// there are. One that has its repository for itself follows, too, if the tag leads to its version.
#[must_use]
pub fn follows(line: &Template, image: &[&str], tag: &[&str]) -> bool {
    let leads = |others: Option<&str>| {
        let lookup = |name: &str| {
            if tag.contains(&name) {
                Some(PROBE_TAG.to_owned())
            } else if image.contains(&name) {
                Some(PROBE_REPOSITORY.to_owned())
            } else {
                others.map(str::to_owned)
            }
        };
        let found: Reference = line.evaluate(&lookup).ok()?.parse().ok()?;
        Some(found.to_string().ends_with(&format!(":{PROBE_TAG}")))
    };
    // What another variable must be set for is no reference without it.
    leads(None).or_else(|| leads(Some("x"))).unwrap_or(false)
}

/// The line `text`, which is `now` with the values that its variables have, as it follows the
/// variables `own`, for the image and for the tag. With `nests` Compose fills in a default inside a
/// default. A service without a line gets one.
///
/// # Errors
/// Why no text follows and says the same without the variables.
pub fn following(
    text: Option<&str>,
    now: &Reference,
    own: &[String; 2],
    nests: bool,
) -> Result<Follower, String> {
    let [own_image, own_tag] = own;
    let Some(text) = text else {
        let tag = now.tag.as_ref().map_or(NO_TAG, |tag| tag.as_str());
        let text = format!("${{{own_image}:-{}}}:${{{own_tag}:-{tag}}}", now.repository);
        return Ok(Follower { text, cut: Vec::new() });
    };
    let Ok(template) = Template::parse(text) else {
        return Err("its text is none that Compose fills in".to_owned());
    };
    let (image, tail) = split(text);
    if nests {
        let wrapped = |part: &str| match part.starts_with(&format!("${{{own_image}:-")) {
            true => part.to_owned(),
            false => format!("${{{own_image}:-{part}}}"),
        };
        let version = match tail.strip_prefix(':').filter(|_| tail.contains('$')) {
            Some(version) => Some(version.to_owned()),
            None if tail.contains('$') || (tail.is_empty() && image.contains('$')) => None,
            None => Some(version_named(now)),
        };
        let apart = version.map(|version| format!("{}:${{{own_tag}:-{version}}}", wrapped(image)));
        // The tag is there or not with what the variables say.
        let whole = format!("{}${{{own_tag}:+:${{{own_tag}:-}}}}", wrapped(text));
        let good = apart.into_iter().chain([whole]).find(|new| is_true(&template, new, own));
        return match good {
            Some(text) => Ok(Follower { text, cut: Vec::new() }),
            None => Err("no text with its variables inside means the same".to_owned()),
        };
    }
    let default: Option<Reference> = template.default_value().and_then(|text| text.parse().ok());
    let names_version = |one: &Reference| one.tag.is_some() || one.digest.is_some();
    if tail.is_empty() && (names_version(now) || default.as_ref().is_some_and(names_version)) {
        return Err(format!(
            "{} gives the image and its tag in one, and Compose v1 knows no default inside a \
            default",
            variables_in(image).join(", ")
        ));
    }
    // What a variable gives now is not for the file to keep.
    let same = |default: &&Reference| default.tag == now.tag && default.digest == now.digest;
    let kept = if tail.contains('$') { default.as_ref().filter(same) } else { Some(now) };
    let Some(kept) = kept else {
        return Err(format!(
            "its tag comes from {}, which has no default or says something else than it, and \
            Compose v1 knows no default inside a default",
            variables_in(tail).join(", ")
        ));
    };
    let image = match image.contains('$') {
        true => image.to_owned(),
        false => format!("${{{own_image}:-{image}}}"),
    };
    let text = format!("{image}:${{{own_tag}:-{}}}", version_named(kept));
    Ok(Follower { text, cut: variables_in(tail) })
}

/// Whether `new` says what `own` say, and without them what `old` says: with no variable, with each
/// of the others alone, and with all of them.
fn is_true(old: &Template, new: &str, own: &[String; 2]) -> bool {
    let Ok(new) = Template::parse(new) else { return false };
    let [image, tag] = own;
    if !follows(&new, &[image], &[tag]) {
        return false;
    }
    let others = old.variables();
    let mut settings: Vec<BTreeMap<&str, &str>> =
        vec![BTreeMap::new(), others.iter().map(|name| (*name, "x")).collect()];
    settings.extend(others.iter().map(|name| BTreeMap::from([(*name, "x")])));
    settings.extend(others.iter().map(|name| BTreeMap::from([(*name, "")])));
    let own = [image.as_str(), tag.as_str()];
    settings.iter_mut().for_each(|setting| setting.retain(|name, _| !own.contains(name)));
    settings.iter().all(|setting| {
        let lookup = |name: &str| setting.get(name).map(|value| (*value).to_owned());
        let (before, after) = (old.evaluate(&lookup).ok(), new.evaluate(&lookup).ok());
        match (before, after) {
            (Some(before), Some(after)) => means(&before) == means(&after),
            (before, after) => before == after,
        }
    })
}

/// What an image name means, however it is written; of what is none, the text.
fn means(image: &str) -> (String, Option<String>) {
    let Ok(reference) = image.parse::<Reference>() else { return (image.to_owned(), None) };
    let version = match &reference.digest {
        Some(digest) => digest.to_string(),
        None => version_named(&reference),
    };
    (format!("{}/{}", reference.repository.host(), reference.repository.path()), Some(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

    fn own() -> [String; 2] {
        ["DK_A_IMAGE".to_owned(), "DK_A_TAG".to_owned()]
    }

    /// The line, what it is now, and what follows: with Compose v2, then with v1 (`!` where none).
    #[test]
    fn every_form_of_a_line_follows_with_compose_v2() {
        let pin = format!("r/a:1.2@{DIGEST}");
        let bare = format!("r/a@{DIGEST}");
        let pinned = format!("${{DK_A_IMAGE:-r/a}}:${{DK_A_TAG:-1.2@{DIGEST}}}");
        let latest = format!("${{DK_A_IMAGE:-r/a}}:${{DK_A_TAG:-latest@{DIGEST}}}");
        let literal = "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-1.2}";
        for (text, now, two, one) in [
            ("r/a:1.2", "r/a:1.2", literal, literal),
            (
                "r/a",
                "r/a",
                "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-latest}",
                "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-latest}",
            ),
            (pin.as_str(), pin.as_str(), pinned.as_str(), pinned.as_str()),
            (bare.as_str(), bare.as_str(), latest.as_str(), latest.as_str()),
            ("r/a:${V:-1.2}", "r/a:1.2", "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-${V:-1.2}}", literal),
            // `.env` says something else than the default.
            ("r/a:${V:-1.2}", "r/a:1.3", "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-${V:-1.2}}", "!"),
            ("r/a:$V", "r/a:1.3", "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-$V}", "!"),
            ("r/a:v${V:?say}-x", "r/a:v1-x", "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-v${V:?say}-x}", "!"),
            (
                "${M:-}ghcr.io/r/a:${V:-1.2}",
                "ghcr.io/r/a:1.2",
                "${DK_A_IMAGE:-${M:-}ghcr.io/r/a}:${DK_A_TAG:-${V:-1.2}}",
                "${M:-}ghcr.io/r/a:${DK_A_TAG:-1.2}",
            ),
            (
                "${M:-}ghcr.io/r/a",
                "ghcr.io/r/a",
                "${DK_A_IMAGE:-${M:-}ghcr.io/r/a}${DK_A_TAG:+:${DK_A_TAG:-}}",
                "${M:-}ghcr.io/r/a:${DK_A_TAG:-latest}",
            ),
            ("${I}", "r/a:1.2", "${DK_A_IMAGE:-${I}}${DK_A_TAG:+:${DK_A_TAG:-}}", "!"),
            (
                "${I:-r/a:1.2}",
                "r/a:1.2",
                "${DK_A_IMAGE:-${I:-r/a:1.2}}${DK_A_TAG:+:${DK_A_TAG:-}}",
                "!",
            ),
            (
                "${I:-r/a}:${V:-1.2}",
                "r/a:1.2",
                "${DK_A_IMAGE:-${I:-r/a}}:${DK_A_TAG:-${V:-1.2}}",
                "${I:-r/a}:${DK_A_TAG:-1.2}",
            ),
            (
                "r/a@${D:-none}",
                "r/a",
                "${DK_A_IMAGE:-r/a@${D:-none}}${DK_A_TAG:+:${DK_A_TAG:-}}",
                "!",
            ),
            (
                "r/a${V:+:$V}",
                "r/a",
                "${DK_A_IMAGE:-r/a${V:+:$V}}${DK_A_TAG:+:${DK_A_TAG:-}}",
                "r/a${V:+:$V}:${DK_A_TAG:-latest}",
            ),
            (
                "localhost:5000/a:${V-}",
                "localhost:5000/a:1",
                "${DK_A_IMAGE:-localhost:5000/a}:${DK_A_TAG:-${V-}}",
                "!",
            ),
            ("${DK_A_IMAGE:-r/a}:1.2", "r/a:1.2", literal, "${DK_A_IMAGE:-r/a}:${DK_A_TAG:-1.2}"),
        ] {
            let now: Reference = now.parse().unwrap();
            let said = |nests| match following(Some(text), &now, &own(), nests) {
                Ok(follower) => follower.text,
                Err(_) => "!".to_owned(),
            };
            assert_eq!(said(true), two, "{text}");
            assert_eq!(said(false), one, "{text}, with Compose v1");
        }
        let cut = following(Some("r/a:${V:-1.2}"), &"r/a:1.2".parse().unwrap(), &own(), false);
        assert_eq!(cut.unwrap().cut, ["V"]);
    }

    #[test]
    fn what_follows_is_known_by_what_it_says() {
        for (text, expected) in [
            ("${DK_A_IMAGE:-r/a}:${DK_A_TAG:-1}", true),
            ("r/a:${DK_A_TAG:-1}", true),
            ("r/a:$DK_A_TAG", true),
            ("r/a:${V:-${DK_A_TAG:-1}}", true),
            ("${DK_A_IMAGE:-${I:-r/a:1}}${DK_A_TAG:+:${DK_A_TAG:-}}", true),
            ("${M}/a:${DK_A_TAG:-1}", true),
            ("${DK_A_IMAGE:-r/a}:1", false),
            ("r/a:v${DK_A_TAG:-1}", false),
            ("r/a:${V:-1}", false),
            ("${I:-r/a:1}", false),
            ("r/a:1", false),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(follows(&template, &["DK_A_IMAGE"], &["DK_A_TAG"]), expected, "{text}");
        }
    }
}
