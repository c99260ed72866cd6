//! Tracks: which tags name one release, and which tags lie on the line that another names.

use super::reference::Tag;
use super::version::{MOVING, Version};

/// Words that name a channel. Beside [`MOVING`] they say nothing about the variant that a tag moves
/// along; where they stand in front of versions, these are a family of their own.
const CHANNELS: [&str; 10] = [
    "prod",
    "release",
    "edge",
    "dev",
    "develop",
    "development",
    "nightly",
    "beta",
    "next",
    "canary",
];

/// Whether `tag` names one release, which stays what it is until somebody asks for another: `16.4`,
/// `v1.2.3`, `2026.8.0`, `sha-1a2b3c4`. Everything else moves: `latest`, `16`, `8-bookworm`.
#[must_use]
pub fn is_release(tag: &Tag) -> bool {
    let text = tag.as_str();
    if let Some(version) = Version::parse(text) {
        return version.is_release();
    }
    let parts = || text.split(['-', '_']);
    // Said to move, whatever stands beside it: `22.04-latest`.
    let is_moving = parts().any(|part| part.eq_ignore_ascii_case("latest"));
    !is_moving
        && parts().any(|part| {
            is_hash(part) || Version::parse(part).is_some_and(|version| version.is_release())
        })
}

/// Whether `tag` is a version of what `track` moves along, of which `current` is one. A variant is
/// another line: `1.4-worker` is no version of `latest`, nor `15.2` of `16`.
#[must_use]
pub fn is_of_line(tag: &str, track: &str, current: Option<&Tag>) -> bool {
    let (prefix, Some(version)) = split(tag) else { return false };
    let line = split(track).1;
    if line.as_ref().is_some_and(|line| !version.continues(line)) {
        return false;
    }
    let own = words(&prefix, Some(&version));
    let (track, line) = (split(track).0, line.as_ref());
    let is_said =
        |word: &&String| ![&MOVING, &CHANNELS].iter().any(|words| words.contains(&word.as_str()));
    let variant: Vec<String> = track.iter().filter(is_said).cloned().collect();
    // `develop` may move along `4.0.17` or along `develop-4.0.17`.
    if own == words(&variant, line) || own == words(&track, line) {
        return true;
    }
    current.is_some_and(|current| {
        let (prefix, version) = split(current.as_str());
        version.is_some_and(|version| own == words(&prefix, Some(&version)))
    })
}

/// What a line of releases is probably called that `release` is one of: `16-alpine` for
/// `16.4-alpine`, `v1` for `v1.2.3`; `latest` where numbers say nothing.
#[must_use]
pub fn line_of(release: &Tag) -> String {
    let text = release.as_str();
    let first = text.find(|c: char| c.is_ascii_digit());
    let is_version = |start| text[..start].is_empty() || text[..start].eq_ignore_ascii_case("v");
    let line = first.filter(|start| is_version(*start)).and_then(|start| {
        let length = text[start..].find(|c: char| !c.is_ascii_digit())?;
        let (number, rest) = text[start..].split_at(length);
        let behind = rest.find(['-', '_']).map_or("", |at| &rest[at..]);
        let says_variant = behind.chars().skip(1).all(|c| c.is_ascii_alphabetic());
        // Years are no lines of releases that anybody follows.
        let is_line = rest.starts_with('.') && number.len() < 4 && says_variant;
        is_line.then(|| format!("{}{number}{behind}", &text[..start]))
    });
    line.unwrap_or_else(|| "latest".to_owned())
}

/// What stands before the version in a tag, and the version if there is one.
fn split(tag: &str) -> (Vec<String>, Option<Version>) {
    let mut prefix = Vec::new();
    let mut rest = tag;
    loop {
        if let Some(version) = Version::parse(rest) {
            return (prefix, Some(version));
        }
        match rest.split_once(['-', '_']) {
            Some((word, behind)) => {
                prefix.push(word.to_ascii_lowercase());
                rest = behind;
            }
            None => {
                prefix.push(rest.to_ascii_lowercase());
                return (prefix, None);
            }
        }
    }
}

/// The words that tell a line from others.
fn words(prefix: &[String], version: Option<&Version>) -> Vec<String> {
    let variant = version.into_iter().flat_map(Version::variant_words).map(str::to_owned);
    prefix.iter().cloned().chain(variant).collect()
}

/// Whether a part of a tag looks like a commit.
fn is_hash(part: &str) -> bool {
    let is_hexadecimal = part.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal && part.len() >= 7 && part.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_version_is_a_release_and_everything_else_moves() {
        for tag in [
            "16.4",
            "v1.2.3",
            "2026.8.0",
            "1.20.3",
            "16.4-alpine",
            "4.0.16.2944-ls299",
            "1.4-rc1",
            "20260112",
            "2026-01-12",
            "RELEASE.2026-01-12T10-00-00Z",
            "sha-1a2b3c4",
            "1a2b3c4d",
            "amd64-4.0.16.2944-ls299",
            "main-1a2b3c4",
            "noble-20260801",
            "version-1.2",
        ] {
            assert!(is_release(&tag.parse().unwrap()), "{tag}");
        }
        for tag in [
            "latest",
            "16",
            "v2",
            "8-bookworm",
            "17-alpine",
            "17-alpine3.20",
            "release",
            "stable",
            "lts",
            "web-server",
            "rocm",
            "pr-12",
            "22.04-latest",
            "1.x",
            "amd64-latest",
            "alpine",
            "alpine3.20",
            "nightly",
        ] {
            assert!(!is_release(&tag.parse().unwrap()), "{tag}");
        }
    }

    #[test]
    fn a_release_belongs_to_a_line() {
        for (release, line) in [
            ("16.4", "16"),
            ("v1.2.3", "v1"),
            ("16.4-alpine", "16-alpine"),
            ("2026.8.0", "latest"),
            ("1.4-rc1", "latest"),
            ("sha-1a2b3c4", "latest"),
            ("20260112", "latest"),
        ] {
            assert_eq!(line_of(&release.parse().unwrap()), line, "{release}");
        }
    }

    #[test]
    fn a_version_lies_on_a_line_that_has_its_variant_and_its_first_numbers() {
        for (tag, track, current, expected) in [
            ("1.4", "latest", None, true),
            ("v1.4", "release", None, true),
            ("2026.8.0", "stable", None, true),
            ("1.35-hotfix-customer123", "latest", None, true),
            ("16.3", "16", None, true),
            ("16.3-bookworm", "16", None, false),
            ("15.3", "16", None, false),
            ("15", "16", None, false),
            ("17.2-alpine", "17-alpine", None, true),
            ("17.2-alpine3.20", "17-alpine", None, true),
            ("17.2", "17-alpine", None, false),
            ("1.4-worker", "latest", None, false),
            ("1.4-worker", "worker", None, true),
            ("1.4", "worker", None, false),
            ("amd64-4.0.1", "amd64-latest", None, true),
            ("arm64-4.0.1", "amd64-latest", None, false),
            ("develop-4.0.1", "develop", None, true),
            ("develop-4.0.1", "latest", None, false),
            ("4.0.1", "develop", None, true),
            ("web-server", "signaling-server", None, false),
            ("rocm", "latest", None, false),
            ("stable", "latest", None, false),
            ("16.5", "16.4", None, false),
            ("16.4.1", "16.4", None, true),
            // What is recorded shows how the versions of the line are called.
            ("1.3-ubuntu", "latest", Some("1.4-ubuntu"), true),
            ("1.3-worker", "latest", Some("1.4-ubuntu"), false),
        ] {
            let current: Option<Tag> = current.map(|tag| tag.parse().unwrap());
            assert_eq!(is_of_line(tag, track, current.as_ref()), expected, "{tag} {track}");
        }
    }
}
