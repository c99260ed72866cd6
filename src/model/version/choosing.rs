//! Which of a repository's tags can be the version behind a tracked one, in which order they are
//! asked about, and which is the newest.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use super::{Exactness, Number, Tag, Token, Version, rank_before, tokens};

/// Words in a tracked tag that say that it moves, and nothing about the variant.
pub(in crate::model) const MOVING: [&str; 10] = [
    "latest",
    "stable",
    "mainline",
    "main",
    "master",
    "current",
    "lts",
    "rolling",
    "production",
    "staging",
];

/// Those of them that name no channel of its own: they are in front of versions for lack of plain
/// ones only.
const DEFAULTS: [&str; 4] = ["latest", "stable", "current", "lts"];

/// How many plain versions are asked about before dates are.
const PLAIN_FIRST: usize = 40;

/// How many pre-releases, revisions and other additions are asked about in their turn.
const OTHERS_FIRST: usize = 10;

/// Whether the whole `text` matches `pattern`: `*` stands for any characters, `?` for one.
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut position) = (0, 0);
    // Where to go on when a literal does not fit: behind the last star, one character further on.
    let mut retry: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, position));
                at += 1;
            }
            Some(expected) if *expected == b'?' || *expected == text[position] => {
                at += 1;
                position += 1;
            }
            _ => match retry {
                Some((behind_star, from)) => {
                    retry = Some((behind_star, from + 1));
                    (at, position) = (behind_star, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

/// A tag that may be the version, with its class in the order of preference.
struct Candidate<'a> {
    class: Class,
    version: Version,
    tag: &'a Tag,
}

/// See the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Numbered,
    SingleNumber,
    Calendar,
    OtherVariant,
}

impl Candidate<'_> {
    /// The order of preference, and of asking.
    fn preference(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.version, &other.version);
        (self.class.cmp(&other.class))
            .then_with(|| b.significant().cmp(a.significant()))
            .then_with(|| a.exactness().cmp(&b.exactness()))
            .then_with(|| a.variant.len().cmp(&b.variant.len()))
            .then_with(|| b.cmp(a))
    }
}

/// The tags that count as versions beside `tracked`, in the order of preference.
fn ranked<'a>(
    tags: &'a [Tag],
    tracked: &Tag,
    pattern: Option<&str>,
    is_in_line: impl Fn(&Version) -> bool,
) -> Vec<Candidate<'a>> {
    let mut found: Vec<Candidate<'a>> = match pattern {
        Some(pattern) => {
            let matching = tags.iter().filter(|tag| matches_pattern(pattern, tag.as_str()));
            let candidates = matching.map(|tag| {
                let version = Version::by_pattern(tag.as_str(), pattern);
                Candidate { class: Class::Numbered, version, tag }
            });
            candidates.collect()
        }
        None => {
            let front = front(tracked, tags);
            let versions: Vec<(Version, &Tag)> = tags
                .iter()
                .filter_map(|tag| Some((Version::parse_in(tag.as_str(), front)?, tag)))
                .collect();
            let family = family(
                tracked.as_str().strip_prefix(front).unwrap_or_default(),
                tracked,
                &versions,
            );
            // `2026` is the line of `2026.01.12`; without such a neighbour it is a number like
            // others.
            let years: HashSet<Number> = versions
                .iter()
                .filter(|(version, _)| version.is_calendar() && version.numbers.len() > 1)
                .filter_map(|(version, _)| version.numbers.first().cloned())
                .collect();
            let matching = versions
                .into_iter()
                .filter(|(version, _)| version.variant.starts_with(&family) && is_in_line(version));
            let candidates = matching.map(|(version, tag)| {
                let class = match version.numbers.as_slice() {
                    _ if version.variant != family => Class::OtherVariant,
                    _ if version.is_calendar() => Class::Calendar,
                    [only] if years.contains(only) => Class::Calendar,
                    [_] => Class::SingleNumber,
                    _ => Class::Numbered,
                };
                Candidate { class, version, tag }
            });
            candidates.collect()
        }
    };
    found.sort_by(Candidate::preference);
    found.dedup_by(|a, b| a.tag == b.tag);
    found
}

/// What the tags of the family begin with that `tracked` asks for by a word in front; empty where
/// there is none.
///
/// `amd64-latest` and `amd64-4.0` ask for `amd64-`, and `develop` for `develop-`, if any tag is a
/// version behind that; but a word that stands behind versions (`1.42-alpine`) is their variant.
fn front<'t>(tracked: &'t Tag, tags: &'t [Tag]) -> &'t str {
    if let Some((front, _)) = Version::parse_fronted(tracked.as_str()) {
        return front;
    }
    let word = tracked.as_str();
    let words: Vec<&str> = word.split(['-', '_']).collect();
    let is_moving = |word: &str| MOVING.contains(&word.to_ascii_lowercase().as_str());
    let is_default = |word: &str| DEFAULTS.contains(&word.to_ascii_lowercase().as_str());
    let leading = match words.as_slice() {
        [_, .., last] if is_moving(last) => word.get(..word.len() - last.len() - 1),
        _ => None,
    };
    let others = || tags.iter().filter(|tag| *tag != tracked).map(Tag::as_str);
    let behind = |front: &str| {
        others().find_map(|tag| {
            let rest = tag.strip_prefix(front)?;
            let front = &tag[..=front.len()];
            let is_apart = rest.starts_with(['-', '_']);
            (is_apart && Version::parse_in(tag, front).is_some()).then_some(front)
        })
    };
    if let Some(found) = leading.and_then(behind) {
        return found;
    }
    let wanted = variant_words(word);
    let is_variant = !wanted.is_empty()
        && others().filter_map(Version::parse).any(|version| version.variant.starts_with(&wanted));
    let has_plain = is_default(word) && others().any(|tag| Version::parse(tag).is_some());
    if is_variant || has_plain { "" } else { behind(word).unwrap_or_default() }
}

/// What is left of a tag that is no version without moving words.
fn variant_words(tag: &str) -> Vec<Token> {
    let parts = tag.split(['-', '_']);
    parts
        .filter(|part| !MOVING.contains(&part.to_ascii_lowercase().as_str()))
        .flat_map(tokens)
        .collect()
}

/// The variant that `tracked`, of which `rest` stands behind the family's front, asks for: what is
/// left of it without numbers and moving words, if any version has that variant.
fn family(rest: &str, tracked: &Tag, versions: &[(Version, &Tag)]) -> Vec<Token> {
    let wanted =
        Version::parse(rest).map_or_else(|| variant_words(rest), |version| version.variant);
    let is_known = versions
        .iter()
        .any(|(version, tag)| *tag != tracked && version.variant.starts_with(&wanted));
    if is_known { wanted } else { Vec::new() }
}

/// The tags among `tags` that can be the version behind `tracked`, in the order in which they
/// should be asked about: the first that names the same digest is the version. `tags` is the whole
/// repository's list in any order; `pattern` is the service's `version_pattern`, in which `*`
/// stands for any characters and `?` for one.
#[must_use]
pub fn candidates(tags: &[Tag], tracked: &Tag, pattern: Option<&str>) -> Vec<Tag> {
    let line = Version::parse_fronted(tracked.as_str()).map(|(_, line)| line);
    let mut found = ranked(tags, tracked, pattern, |version| {
        line.as_ref().is_none_or(|line| version.is_within(line))
    });
    found.retain(|candidate| candidate.tag != tracked);
    let (mut plain, mut others) = (0, 0);
    let mut in_turn: Vec<(Turn, &Tag)> = found
        .iter()
        .map(|candidate| {
            let is_late = match (candidate.version.exactness(), candidate.class) {
                (Exactness::Plain, Class::Calendar) => false,
                (Exactness::Plain, _) => {
                    plain += 1;
                    plain > PLAIN_FIRST
                }
                _ => {
                    others += 1;
                    others > OTHERS_FIRST
                }
            };
            let turn = match candidate.class {
                Class::OtherVariant => Turn::OtherVariants,
                _ if is_late => Turn::Rest,
                Class::Calendar => Turn::Dates,
                _ => Turn::First,
            };
            (turn, candidate.tag)
        })
        .collect();
    in_turn.sort_by_key(|(turn, _)| *turn);
    in_turn.into_iter().map(|(_, tag)| tag.clone()).collect()
}

/// When a candidate is asked about, before all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    First,
    Dates,
    Rest,
    OtherVariants,
}

/// The version among `names`, all of which name the same digest.
#[must_use]
pub fn choose(names: &[Tag], tracked: &Tag, pattern: Option<&str>) -> Option<Tag> {
    candidates(names, tracked, pattern).into_iter().next()
}

/// The newest version in the repository, of the variant that `tracked` asks for but of any line: a
/// release or a numbered revision of one if there is any. A tracked pre-release channel (`beta`,
/// `1.43-rc`) takes pre-releases too. `current` is the version that runs; if it is a calendar
/// version, so is the newest.
#[must_use]
pub fn newest(
    tags: &[Tag],
    tracked: &Tag,
    pattern: Option<&str>,
    current: Option<&Tag>,
) -> Option<Tag> {
    let is_moving = Version::parse_fronted(tracked.as_str()).is_none();
    let mut found = ranked(tags, tracked, pattern, |_| true);
    found.retain(|candidate| !is_moving || candidate.tag != tracked);
    let current = current.and_then(|current| {
        let listed = found.iter().find(|candidate| candidate.tag == current);
        listed.map(|candidate| candidate.version.clone())
    });
    let scheme = match pattern {
        Some(_) => None,
        None => current.or_else(|| usual(&found)),
    };
    if let Some(scheme) = scheme
        && found.iter().any(|candidate| candidate.version.can_follow(&scheme))
    {
        found.retain(|candidate| candidate.version.can_follow(&scheme));
    }
    let takes_all =
        tracked.as_str().split(['-', '_']).any(|part| rank_before(&tokens(part)).is_some());
    let mut releases = found
        .iter()
        .filter(|candidate| takes_all || candidate.version.exactness() <= Exactness::Plain);
    Some(releases.next().or(found.first())?.tag.clone())
}

/// A version of the scheme that most of the numbered ones are of, if there is such a one.
fn usual(found: &[Candidate<'_>]) -> Option<Version> {
    let numbered = found.iter().filter(|candidate| candidate.class == Class::Numbered);
    let mut lengths: BTreeMap<usize, (usize, &Version)> = BTreeMap::new();
    for candidate in numbered.clone() {
        let length = candidate.version.numbers.len();
        lengths.entry(length).or_insert((0, &candidate.version)).0 += 1;
    }
    let (count, version) = lengths.into_values().max_by_key(|(count, _)| *count)?;
    (count * 2 > numbered.count()).then(|| version.clone())
}
