//! Versions: which tags are one, how they order, and which of them is asked about first.
//!
//! **What is a version.** A tag that begins with a digit, after `v`, `release-` or `version-` at
//! most: numbers separated by dots, then modifiers (`-rc1`, `-2`, `-hotfix-customer123`) and a
//! variant (`-alpine3.20`). Not versions: words (`latest`, `main`, `pr-12`, `sha-…`), commit hashes
//! and other long hexadecimal names, and numbers that still move (`1.x`, `22-latest`).
//!
//! **How they order** ([`Ord`]): by numbers, where a missing number counts as zero; then
//! pre-releases (`dev` < `alpha` < `beta` < `pre` < `rc`), the release, and what was made from it
//! afterwards (`-1`, `-p1`, `-hotfix-…`: unlike SemVer, because that is how people tag images);
//! then `1.42` before `1.42.0`. Ties end in the text itself, so that the order is total.
//!
//! **Which one is the version** of a digest that several name: the first of [`candidates`]. They
//! stand in the order of preference, and a more exact name (`1.42.3`) always stands before a less
//! exact one (`1.42`, `1`). So whoever asks a registry about them in this order may stop at the
//! first that has the digest: everything that would be preferred has been asked already.
//!
//! 1. versions with several numbers, the highest first; of the same numbers a numbered revision
//!    (`1.42-2`) is the most exact, then the plain one, then other additions, then pre-releases;
//! 2. single numbers: `1` is usually the name of a line, `4711` a build;
//! 3. dates and calendar versions (`20260112`, `2026-01-12`, `2026.1`), which name a version only
//!    if nothing else does;
//! 4. variants that the tracked tag does not ask for (`1.42-alpine` for `latest`).
//!
//! Long lists are an exception, so that a limited number of questions finds what is likely: only
//! the first 40 plain versions and 10 others stand before the dates, the rest of them behind. A
//! thousand nightly builds do not hide the release, nor old versions a calendar.
//!
//! **Families.** A tracked tag with a variant (`alpine`, `1-bookworm`) resolves within it; a
//! tracked tag with numbers (`1.42`) resolves to more exact names of that line. A word that is no
//! tag's variant (`production`) is just the name of a channel. A pattern (`version_pattern`)
//! replaces all of these rules but one: the tracked tag itself never is its own version.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::reference::Tag;

/// Words before the numbers that do not matter.
const PREFIXES: [&str; 5] = ["version", "release", "build", "ver", "rel"];

/// Words for what comes before a release, and in which order.
const BEFORE: [(&str, u8); 27] = [
    ("dev", 0),
    ("devel", 0),
    ("develop", 0),
    ("snapshot", 0),
    ("nightly", 0),
    ("canary", 0),
    ("edge", 0),
    ("unstable", 0),
    ("experimental", 0),
    ("insiders", 0),
    ("alpha", 1),
    ("a", 1),
    ("beta", 2),
    ("b", 2),
    ("pre", 3),
    ("preview", 3),
    ("prerelease", 3),
    ("milestone", 3),
    ("m", 3),
    ("ea", 3),
    ("next", 3),
    ("test", 3),
    ("testing", 3),
    ("rc", 4),
    ("cr", 4),
    ("c", 4),
    ("candidate", 4),
];

/// Words for what is made from a release afterwards and counted: with a number they are a revision.
const REVISION: [&str; 9] =
    ["patch", "pl", "rev", "revision", "build", "update", "sp", "post", "ls"];

/// Words for other things that are made from a release afterwards.
const AFTER: [&str; 7] = ["hotfix", "fix", "bugfix", "security", "final", "ga", "release"];

/// Words in a tracked tag that say that it moves, and nothing about the variant.
const MOVING: [&str; 10] = [
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

/// How many plain versions are asked about before dates are.
const PLAIN_FIRST: usize = 40;

/// How many pre-releases, revisions and other additions are asked about in their turn.
const OTHERS_FIRST: usize = 10;

/// A number of any length: its digits without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Number(String);

impl Number {
    fn new(digits: &str) -> Self {
        Self(digits.trim_start_matches('0').to_owned())
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it can be a year that people tag images in.
    fn is_year(&self) -> bool {
        self.0.len() == 4 && self.0.as_str() >= "1990" && self.0.as_str() <= "2099"
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A run of digits or of lower-case letters. Numbers sort before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Number(Number),
    Word(String),
}

/// Where a version stands relative to the release of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Before it, by the rank in [`BEFORE`].
    Before(u8),
    /// The release itself.
    Release,
    /// Made from it afterwards.
    After,
}

/// A tag read as a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    numbers: Vec<Number>,
    stage: Stage,
    /// What follows the numbers, apart from the variant.
    modifiers: Vec<Token>,
    /// Whether the modifiers count revisions of the same numbers.
    is_revision: bool,
    variant: Vec<Token>,
    is_calendar: bool,
    has_prefix: bool,
    text: String,
}

impl Version {
    /// The version that `tag` is, or `None` if it is none.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Self> {
        let rest = without_prefix(tag);
        if !begins_with_digit(rest) {
            return None;
        }
        if rest.split(['-', '_', '.']).next().is_some_and(is_hash) {
            return None;
        }
        let (numbers, is_calendar, suffix) = split_date(rest).map_or_else(
            || {
                let (numbers, suffix) = split_numbers(rest);
                let is_calendar = is_calendar(&numbers);
                (numbers, is_calendar, suffix)
            },
            |(numbers, suffix)| (numbers, true, suffix),
        );
        let suffix = Suffix::parse(suffix)?;
        Some(Self {
            numbers,
            stage: match suffix.before {
                Some(rank) => Stage::Before(rank),
                None if suffix.modifiers.is_empty() => Stage::Release,
                None => Stage::After,
            },
            is_revision: suffix.is_revision(),
            modifiers: suffix.modifiers,
            variant: suffix.variant,
            is_calendar,
            has_prefix: rest.len() < tag.len(),
            text: tag.to_owned(),
        })
    }

    /// Whether it names one release, and not a line of them as `16` and `8-bookworm` do.
    #[must_use]
    pub fn is_release(&self) -> bool {
        let is_long = |number: &Number| number.0.len() >= 6;
        self.numbers.len() > 1 || self.numbers.iter().any(is_long)
    }

    /// Whether it lies on the line that `line` names by its numbers: `16.4` on `16`.
    #[must_use]
    pub fn continues(&self, line: &Self) -> bool {
        self.numbers.starts_with(&line.numbers)
    }

    /// The words of its variant: `alpine` of `1.27.3-alpine3.20`.
    pub fn variant_words(&self) -> impl Iterator<Item = &str> {
        self.variant.iter().filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            Token::Number(_) => None,
        })
    }

    /// A tag that only a pattern makes a version: read behind the pattern's literal beginning, else
    /// ordered by its words and numbers below everything else.
    fn by_pattern(tag: &str, pattern: &str) -> Self {
        let literal = pattern.split(['*', '?']).next().unwrap_or_default();
        let start = literal.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        let read = Self::parse(tag).or_else(|| Self::parse(tag.get(start..)?));
        let mut version = read.unwrap_or_else(|| Self {
            numbers: Vec::new(),
            stage: Stage::Release,
            modifiers: tokens(tag),
            is_revision: false,
            variant: Vec::new(),
            is_calendar: false,
            has_prefix: false,
            text: String::new(),
        });
        tag.clone_into(&mut version.text);
        version
    }

    /// The numbers that decide: `1.42` and `1.42.0` are the same release.
    fn significant(&self) -> &[Number] {
        let end =
            self.numbers.iter().rposition(|number| !number.is_zero()).map_or(0, |last| last + 1);
        &self.numbers[..end]
    }

    /// What decides between releases: `1.42` and `1.42.0`, or two variants of one version, are the
    /// same one.
    fn release(&self) -> (&[Number], Stage, &[Token]) {
        (self.significant(), self.stage, &self.modifiers)
    }

    /// Whether this is a more exact name than the line `line`.
    fn is_within(&self, line: &Self) -> bool {
        if line.modifiers.is_empty() {
            let is_longer = self.numbers.len() > line.numbers.len() || !self.modifiers.is_empty();
            return is_longer && self.numbers.starts_with(&line.numbers);
        }
        self.numbers == line.numbers
            && self.modifiers.len() > line.modifiers.len()
            && self.modifiers.starts_with(&line.modifiers)
    }

    /// The place among names with the same numbers: the most exact first.
    fn exactness(&self) -> Exactness {
        match self.stage {
            Stage::After if self.is_revision => Exactness::Revision,
            Stage::After => Exactness::Addition,
            Stage::Release => Exactness::Plain,
            Stage::Before(_) => Exactness::PreRelease,
        }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.release().cmp(&other.release()))
            .then_with(|| self.variant.cmp(&other.variant))
            .then(self.numbers.len().cmp(&other.numbers.len()))
            .then(other.has_prefix.cmp(&self.has_prefix))
            .then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether `new` is a lower version than `old`. Tags that are no versions, and dates against
/// numbers, are not comparable.
#[must_use]
pub fn is_older(new: &Tag, old: &Tag) -> bool {
    let (Some(new), Some(old)) = (Version::parse(new.as_str()), Version::parse(old.as_str()))
    else {
        return false;
    };
    new.is_calendar == old.is_calendar && new.release() < old.release()
}

/// See [`Version::exactness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exactness {
    Revision,
    Plain,
    Addition,
    PreRelease,
}

/// What stands behind the numbers.
#[derive(Default)]
struct Suffix {
    before: Option<u8>,
    modifiers: Vec<Token>,
    variant: Vec<Token>,
    has_hash: bool,
}

impl Suffix {
    /// Reads the suffix part by part; `None` if it says that the tag moves.
    fn parse(text: &str) -> Option<Self> {
        #[derive(PartialEq)]
        enum Last {
            Nothing,
            Before,
            /// Names whatever follows: `hotfix-customer123`.
            After,
            Variant,
        }
        let mut suffix = Self::default();
        let mut last = Last::Nothing;
        let is_attached = text.starts_with(|first: char| first.is_ascii_alphabetic());
        let parts = text
            .split(['-', '_'])
            .map(|part| part.trim_matches('.'))
            .filter(|part| !part.is_empty());
        for (position, part) in parts.enumerate() {
            let mut part_tokens = tokens(part);
            if matches!(part_tokens.as_slice(), [Token::Word(word)] if word == "latest" || word == "x")
            {
                return None;
            }
            let (target, next) = if is_hash(part.strip_prefix('g').unwrap_or(part)) {
                suffix.has_hash = true;
                part_tokens = vec![Token::Word(part.to_ascii_lowercase())];
                (&mut suffix.modifiers, last)
            } else if last == Last::After {
                (&mut suffix.modifiers, last)
            } else if let Some(rank) = rank_before(&part_tokens) {
                suffix.before = Some(suffix.before.map_or(rank, |earlier| earlier.min(rank)));
                (&mut suffix.modifiers, Last::Before)
            } else if is_after(&part_tokens, is_attached && position == 0) {
                (&mut suffix.modifiers, Last::After)
            } else if matches!(part_tokens.first(), Some(Token::Number(_))) && last != Last::Variant
            {
                (&mut suffix.modifiers, last)
            } else {
                (&mut suffix.variant, Last::Variant)
            };
            target.append(&mut part_tokens);
            last = next;
        }
        Some(suffix)
    }

    fn is_revision(&self) -> bool {
        let is_counted = match self.modifiers.as_slice() {
            [Token::Number(_), ..] => true,
            [Token::Word(word), Token::Number(_), ..] => {
                word.len() == 1 || REVISION.contains(&word.as_str())
            }
            _ => false,
        };
        is_counted && self.before.is_none() && !self.has_hash
    }
}

/// The rank of a part that begins with a word of [`BEFORE`]; single letters need a number (`b2`).
fn rank_before(part: &[Token]) -> Option<u8> {
    let Some(Token::Word(first)) = part.first() else { return None };
    let rank = BEFORE.iter().find(|(word, _)| word == first).map(|(_, rank)| *rank)?;
    (first.len() > 1 || matches!(part.get(1), Some(Token::Number(_)))).then_some(rank)
}

/// Whether a part says that something was made from the release: a word, or one of the usual
/// letters with a number (`p1`), or any letter right behind the numbers (`1.1.1w`, `8u352`).
fn is_after(part: &[Token], is_attached: bool) -> bool {
    match part {
        [Token::Word(word), rest @ ..] if word.len() == 1 => {
            is_attached
                || (matches!(word.as_str(), "p" | "r" | "u" | "t")
                    && matches!(rest, [Token::Number(_), ..]))
        }
        [Token::Word(word), ..] => {
            REVISION.contains(&word.as_str()) || AFTER.contains(&word.as_str())
        }
        _ => false,
    }
}

/// The text behind `v`, `release-` and the like, if a digit follows; else the text itself.
fn without_prefix(tag: &str) -> &str {
    let after_word = PREFIXES.iter().find_map(|word| {
        let (head, rest) = tag.split_at_checked(word.len())?;
        head.eq_ignore_ascii_case(word).then(|| rest.trim_start_matches(['-', '_', '.']))
    });
    let rest = after_word.unwrap_or(tag);
    let without_v = rest.strip_prefix(['v', 'V']).unwrap_or(rest);
    [without_v, rest].into_iter().find(|rest| begins_with_digit(rest)).unwrap_or(tag)
}

fn begins_with_digit(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

/// Whether `text` looks like a commit hash or another digest: 7 hexadecimal digits or more with a
/// letter among them, or at least 40 of any kind.
fn is_hash(text: &str) -> bool {
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal
        && (text.len() >= 40
            || (text.len() >= 7 && text.bytes().any(|byte| byte.is_ascii_alphabetic())))
}

/// `2026-01-12` or `2026_01` in front: its numbers, and what follows.
fn split_date(text: &str) -> Option<(Vec<Number>, &str)> {
    let year = digits(text, 4).filter(Number::is_year)?;
    let rest = text[4..].strip_prefix(['-', '_'])?;
    let month = digits(rest, 2).filter(is_month)?;
    let rest = &rest[2..];
    let day = rest.strip_prefix(['-', '_']);
    match day.and_then(|day| Some((digits(day, 2).filter(is_day)?, &day[2..]))) {
        Some((day, rest)) => Some((vec![year, month, day], rest)),
        None => Some((vec![year, month], rest)),
    }
}

/// The number of exactly `length` digits in front.
fn digits(text: &str, length: usize) -> Option<Number> {
    let (head, rest) = text.split_at_checked(length)?;
    let is_number = head.bytes().all(|byte| byte.is_ascii_digit()) && !begins_with_digit(rest);
    is_number.then(|| Number::new(head))
}

fn is_month(number: &Number) -> bool {
    number.0.parse::<u8>().is_ok_and(|month| month <= 12)
}

fn is_day(number: &Number) -> bool {
    number.0.parse::<u8>().is_ok_and(|day| day <= 31)
}

/// The dotted numbers in front, and what follows.
fn split_numbers(text: &str) -> (Vec<Number>, &str) {
    let mut numbers = Vec::new();
    let mut rest = text;
    loop {
        let (digits, behind) = split_run(rest, char::is_ascii_digit);
        numbers.push(Number::new(digits));
        rest = behind;
        match rest.strip_prefix('.') {
            Some(next) if begins_with_digit(next) => rest = next,
            _ => return (numbers, rest),
        }
    }
}

/// Whether the numbers are a date: `20260112` (with a time at most), or a year and a month.
fn is_calendar(numbers: &[Number]) -> bool {
    match numbers {
        [Number(date), ..] if matches!(date.len(), 8 | 12 | 14) => {
            Number::new(&date[..4]).is_year()
                && is_month(&Number::new(&date[4..6]))
                && is_day(&Number::new(&date[6..8]))
        }
        [year, month, ..] => year.is_year() && is_month(month),
        _ => false,
    }
}

/// Runs of digits and of letters, in lower case; everything else separates.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run;
        if first.is_ascii_digit() {
            (run, rest) = split_run(rest, char::is_ascii_digit);
            found.push(Token::Number(Number::new(run)));
        } else if first.is_ascii_alphabetic() {
            (run, rest) = split_run(rest, char::is_ascii_alphabetic);
            found.push(Token::Word(run.to_ascii_lowercase()));
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// The characters of one class in front, and what follows.
fn split_run(text: &str, is_of_class: fn(&char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c: char| !is_of_class(&c)).unwrap_or(text.len()))
}

/// Whether the whole `text` matches `pattern`: `*` stands for any characters, `?` for one.
fn matches_pattern(pattern: &str, text: &str) -> bool {
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
            let versions: Vec<(Version, &Tag)> =
                tags.iter().filter_map(|tag| Some((Version::parse(tag.as_str())?, tag))).collect();
            let family = family(tracked, &versions);
            // `2026` is the line of `2026.01.12`; without such a neighbour it is a number like
            // others.
            let years: HashSet<Number> = versions
                .iter()
                .filter(|(version, _)| version.is_calendar && version.numbers.len() > 1)
                .filter_map(|(version, _)| version.numbers.first().cloned())
                .collect();
            let matching = versions
                .into_iter()
                .filter(|(version, _)| version.variant.starts_with(&family) && is_in_line(version));
            let candidates = matching.map(|(version, tag)| {
                let class = match version.numbers.as_slice() {
                    _ if version.variant != family => Class::OtherVariant,
                    _ if version.is_calendar => Class::Calendar,
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

/// The variant that `tracked` asks for: what is left of it without numbers and moving words, if any
/// version has that variant.
fn family(tracked: &Tag, versions: &[(Version, &Tag)]) -> Vec<Token> {
    let wanted = Version::parse(tracked.as_str()).map_or_else(
        || {
            let parts = tracked.as_str().split(['-', '_']);
            parts
                .filter(|part| !MOVING.contains(&part.to_ascii_lowercase().as_str()))
                .flat_map(tokens)
                .collect()
        },
        |version| version.variant,
    );
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
    let line = Version::parse(tracked.as_str());
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
    let is_moving = Version::parse(tracked.as_str()).is_none();
    let mut found = ranked(tags, tracked, pattern, |_| true);
    found.retain(|candidate| !is_moving || candidate.tag != tracked);
    if found
        .iter()
        .any(|candidate| candidate.class == Class::Calendar && Some(candidate.tag) == current)
    {
        found.retain(|candidate| candidate.class == Class::Calendar);
    }
    let takes_all =
        tracked.as_str().split(['-', '_']).any(|part| rank_before(&tokens(part)).is_some());
    let mut releases = found
        .iter()
        .filter(|candidate| takes_all || candidate.version.exactness() <= Exactness::Plain);
    Some(releases.next().or(found.first())?.tag.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(text: &str) -> Vec<Tag> {
        text.split_whitespace().map(|tag| tag.parse().unwrap()).collect()
    }

    fn texts(tags: &[Tag]) -> String {
        tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Each line ascends.
    const ASCENDING: [&str; 17] = [
        "0.9 1 1.1 1.2 1.9 1.10 1.42 1.100 2 2.0.1 10",
        "1.42 1.42.0 1.42.0.0 1.42.0.1 1.42.3 1.42.3.1 1.42.3.10 1.43",
        "v1.2 1.2 v1.3 1.3",
        "V1.2 release-1.2 v1.2 1.2",
        "1.0-dev 1.0-alpha 1.0-alpha.1 1.0-beta 1.0-beta2 1.0-beta.11 1.0-rc 1.0-rc.1 1.0-rc2 \
            1.0-rc10 1.0",
        "1.0a1 1.0b1 1.0b2 1.0rc1 1.0 1.0p1",
        "1.0-SNAPSHOT 1.0-M1 1.0-M2 1.0-RC1 1.0",
        "1.35 1.35-1 1.35-2 1.35-10 1.35-hotfix-customer9 1.35-hotfix-customer123 1.36",
        "1.35-rc1 1.35 1.35-hotfix 1.35-hotfix2 1.35-p1 1.35-p2 1.35-patch 1.35.1",
        "1.1.1a1 1.1.1 1.1.1w 1.1.2",
        "1.27.3-rc1-alpine 1.27.3 1.27.3-alpine 1.27.3-alpine3.9 1.27.3-alpine3.20 1.27.4",
        "2025.12.31 2026.1.2 2026.01.12 2026.1.13 2026.02.01",
        "2025-12-31 2026-01 2026-01-02 2026-01-12 2026-01-12-1 2026-02",
        "20251231 20260112 20260112.1 20260112.2 20260113",
        "RELEASE.2025-12-31T23-59-59Z RELEASE.2026-01-12T00-00-00Z RELEASE.2026-01-12T10-00-00Z",
        "7 99999999999999999999998 99999999999999999999999 100000000000000000000000",
        "1.42.0-rc1 1.42 1.42.0 1.42.1-rc1 1.42.1",
    ];

    #[test]
    fn versions_ascend() {
        for line in ASCENDING {
            let versions: Vec<Version> = line
                .split_whitespace()
                .map(|text| Version::parse(text).unwrap_or_else(|| panic!("{text}")))
                .collect();
            for (low, a) in versions.iter().enumerate() {
                for (high, b) in versions.iter().enumerate() {
                    assert_eq!(a.cmp(b), low.cmp(&high), "{} and {} in {line}", a.text, b.text);
                }
            }
        }
    }

    #[test]
    fn words_hashes_and_signatures_are_no_versions() {
        let hash = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
        let long_number = "1".repeat(40);
        for text in [
            "latest",
            "main",
            "stable",
            "edge",
            "nightly",
            "dev",
            "alpine",
            "pr-12",
            "v",
            "vault",
            "release",
            "version-x",
            "_1",
            "1.x",
            "1.42.x",
            "22-latest",
            "abc1234",
            "1a2b3c4",
            "1e10000",
            "1234567890abcdef1234567890abcdef12345678",
            "123e4567-e89b-12d3-a456-426614174000",
            "1a2b3c4-dirty",
            "sha-1a2b3c4",
            "sha256-1a2b3c4.sig",
            "sha256-1a2b3c4.att",
            "dkv-1a2b3c4d-0123456789ab",
            "customer-1.2",
            hash,
            &long_number,
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        for text in [
            "1",
            "v1",
            "1234567",
            "20260112",
            "1.2-abc1234",
            "1.42-5-g1a2b3c4",
            "3.14-ubi9-minimal",
            "8u352-b08",
        ] {
            assert!(Version::parse(text).is_some(), "{text}");
        }
    }

    /// Tags of the repository, tracked tag, pattern; the candidates in order.
    const CANDIDATES: [(&str, &str, Option<&str>, &str); 57] = [
        // The tracked tag and words never count.
        ("latest", "latest", None, ""),
        ("latest main edge", "latest", None, ""),
        ("latest 1.64 1.63 main", "latest", None, "1.64 1.63"),
        ("1.9 1.10 1.8", "latest", None, "1.10 1.9 1.8"),
        ("1.35 main 1.34", "latest", None, "1.35 1.34"),
        ("1.2 1.2 1.1 1.2", "latest", None, "1.2 1.1"),
        ("sha256-1a2b3c4.sig 1.2 abc1234 dkv-1234567-0123 pr-12", "latest", None, "1.2"),
        // The most exact name first.
        ("1 1.42 1.42.3", "latest", None, "1.42.3 1.42 1"),
        ("1.42.3.1 1.42.3 1.42", "latest", None, "1.42.3.1 1.42.3 1.42"),
        ("1.42 1.42.0", "latest", None, "1.42.0 1.42"),
        ("2 1.42.3 1.42 1", "latest", None, "1.42.3 1.42 2 1"),
        ("2.0 1.42.3 1", "latest", None, "2.0 1.42.3 1"),
        ("v1 v1.2 v1.2.3 1.2", "latest", None, "v1.2.3 1.2 v1.2 v1"),
        ("v1.2 1.2", "latest", None, "1.2 v1.2"),
        ("v1.2.0 1.2", "latest", None, "v1.2.0 1.2"),
        // Pre-releases, revisions and what is made for a customer.
        ("1.43 1.43-rc1 1.43-rc2 1.42", "latest", None, "1.43 1.43-rc2 1.43-rc1 1.42"),
        ("1.43-rc1 1.42", "latest", None, "1.43-rc1 1.42"),
        ("1.43 1.43.0-rc1", "latest", None, "1.43 1.43.0-rc1"),
        ("1.35 1.35-hotfix-customer123 1.34", "latest", None, "1.35 1.35-hotfix-customer123 1.34"),
        ("1.35 1.35-1 1.35-2", "latest", None, "1.35-2 1.35-1 1.35"),
        (
            "1.35 1.35-p1 1.35-patch 1.35-patch2",
            "latest",
            None,
            "1.35-patch2 1.35-p1 1.35 1.35-patch",
        ),
        ("1.35 1.35-abc1234", "latest", None, "1.35 1.35-abc1234"),
        ("1.35 1.35-5-gabc1234", "latest", None, "1.35 1.35-5-gabc1234"),
        // Single numbers, then dates and calendar versions.
        ("1.2 4711 4712", "latest", None, "1.2 4712 4711"),
        ("999 1000 1001", "latest", None, "1001 1000 999"),
        ("1.2 build-99 build-100", "latest", None, "1.2 build-100 build-99"),
        ("20260112 1.64", "latest", None, "1.64 20260112"),
        ("20260112 1", "latest", None, "1 20260112"),
        ("2026-01-12 1.64 2026.01.12", "latest", None, "1.64 2026.01.12 2026-01-12"),
        ("20260112 20260113 latest", "latest", None, "20260113 20260112"),
        ("2026 2026.1 2026.1.12 2025.12", "latest", None, "2026.1.12 2026.1 2026 2025.12"),
        ("1989 2050 2049", "latest", None, "2050 2049 1989"),
        ("2026.13 2026.12", "latest", None, "2026.13 2026.12"),
        (
            "RELEASE.2026-01-12T00-00-00Z RELEASE.2025-12-31T00-00-00Z",
            "latest",
            None,
            "RELEASE.2026-01-12T00-00-00Z RELEASE.2025-12-31T00-00-00Z",
        ),
        // Variants: preferred without one, within the one that is asked for.
        (
            "1.27.3-alpine 1.27.2 1.27.3-alpine-slim",
            "latest",
            None,
            "1.27.2 1.27.3-alpine 1.27.3-alpine-slim",
        ),
        ("1.27.3-alpine 1.27.3", "stable", None, "1.27.3 1.27.3-alpine"),
        ("1.27.3-alpine 1.27.3 1.27-alpine alpine", "alpine", None, "1.27.3-alpine 1.27-alpine"),
        (
            "1.27.3-alpine 1.27.3-alpine3.20 1.27.2-alpine",
            "alpine",
            None,
            "1.27.3-alpine 1.27.2-alpine 1.27.3-alpine3.20",
        ),
        (
            "1.27.3-alpine3.20 1.27.3-alpine 1.27.3-bookworm",
            "alpine3.20",
            None,
            "1.27.3-alpine3.20",
        ),
        ("1.27.3-alpine 1.27.3", "stable-alpine", None, "1.27.3-alpine"),
        (
            "1.27.0-rc1-alpine 1.26.0-alpine 1.26.0",
            "alpine",
            None,
            "1.27.0-rc1-alpine 1.26.0-alpine",
        ),
        (
            "1-bookworm 1.27-bookworm 1.27.3-bookworm 2.0-bookworm 1.27.3",
            "1-bookworm",
            None,
            "1.27.3-bookworm 1.27-bookworm",
        ),
        (
            "1.2.3-alpine3.20 1.2.4-alpine3.19 1.2.4 1.2-alpine3.20",
            "1.2-alpine3.20",
            None,
            "1.2.3-alpine3.20",
        ),
        ("16.0.0-ee.0 15.9.2-ee.0", "latest", None, "16.0.0-ee.0 15.9.2-ee.0"),
        ("1.42 1.42-amd64 1.42-arm64", "latest", None, "1.42 1.42-arm64 1.42-amd64"),
        ("1.42 1.42-x86_64 1.42-arm64v8", "latest", None, "1.42 1.42-x86_64 1.42-arm64v8"),
        (
            "1.42.3-debian-12-r5 1.42.3-debian-12-r10 1.42.3",
            "latest",
            None,
            "1.42.3 1.42.3-debian-12-r10 1.42.3-debian-12-r5",
        ),
        // A word that is nobody's variant is a channel.
        ("1.42 1.41 production", "production", None, "1.42 1.41"),
        ("1.43-beta1 1.42 beta", "beta", None, "1.43-beta1 1.42"),
        // A tracked line.
        ("1.42 1.42.3 1.42.2 1.43.0 1.4 1.420.1", "1.42", None, "1.42.3 1.42.2"),
        ("1.42.3 v1.42.4 v1.42", "1.42", None, "v1.42.4 1.42.3"),
        ("1.20.3 1.20.4 1.21 1.20.3-1", "1.20.3", None, "1.20.3-1"),
        ("1.20.3 1.20.4", "1.20.3", None, ""),
        // A pattern decides alone.
        ("1.64 1.64.1 20260112 latest", "latest", Some("2026*"), "20260112"),
        ("sha-abc1234 sha-def5678 1.64", "latest", Some("sha-*"), "sha-def5678 sha-abc1234"),
        ("job-9 job-10 latest", "latest", Some("*"), "job-10 job-9"),
        (
            "app-1.9 app-1.10 app-1.10-rc1 web-2",
            "latest",
            Some("app-?.*"),
            "app-1.10 app-1.10-rc1 app-1.9",
        ),
    ];

    #[test]
    fn candidates_stand_in_the_order_of_preference() {
        for (all, tracked, pattern, expected) in CANDIDATES {
            let tracked: Tag = tracked.parse().unwrap();
            let mut all = tags(all);
            assert_eq!(
                texts(&candidates(&all, &tracked, pattern)),
                expected,
                "{} for {tracked}",
                texts(&all)
            );
            all.reverse();
            assert_eq!(
                texts(&candidates(&all, &tracked, pattern)),
                expected,
                "{} for {tracked}, reversed",
                texts(&all)
            );
        }
    }

    #[test]
    fn the_most_specific_name_of_a_digest_is_its_version() {
        for (names, tracked, expected) in [
            ("latest 1 1.42 1.42.3", "latest", Some("1.42.3")),
            ("latest 1.42 v1.42", "latest", Some("1.42")),
            ("latest 20260112 1.42", "latest", Some("1.42")),
            ("latest 20260112 abc1234", "latest", Some("20260112")),
            ("latest abc1234 main", "latest", None),
            ("latest", "latest", None),
            ("1.20.3 1.20 1 latest", "1.20.3", None),
            ("1.20.3 1.20 1 latest", "1.20", Some("1.20.3")),
            ("1.35-hotfix-customer123 latest", "latest", Some("1.35-hotfix-customer123")),
        ] {
            let chosen = choose(&tags(names), &tracked.parse().unwrap(), None);
            assert_eq!(chosen.as_ref().map(Tag::as_str), expected, "{names}");
        }
    }

    #[test]
    fn the_newest_version_is_a_release_of_the_same_variant() {
        for (all, tracked, pattern, expected) in [
            ("latest 1.42 1.43 1.44-rc1", "latest", None, Some("1.43")),
            ("latest 1.43 1.43-hotfix-customer123", "latest", None, Some("1.43")),
            ("latest 1.43 1.43-2", "latest", None, Some("1.43-2")),
            ("latest 1.44-rc1", "latest", None, Some("1.44-rc1")),
            ("beta 1.43 1.44-beta1", "beta", None, Some("1.44-beta1")),
            ("1.42 1.42.1 1.43.0", "1.42", None, Some("1.43.0")),
            ("1.20.3 1.20.2", "1.20.3", None, Some("1.20.3")),
            ("alpine 1.42-alpine 1.43", "alpine", None, Some("1.42-alpine")),
            ("latest 1.43 20260112", "latest", None, Some("1.43")),
            ("latest 1.43 20260112", "latest", Some("20*"), Some("20260112")),
            ("latest main", "latest", None, None),
        ] {
            let found = newest(&tags(all), &tracked.parse().unwrap(), pattern, None);
            assert_eq!(found.as_ref().map(Tag::as_str), expected, "{all} for {tracked}");
        }
        let all = tags("stable 2026.1.2 2026.1.1 2026.2.0b1 0.118.5");
        for (current, expected) in
            [("2026.1.1", "2026.1.2"), ("0.118.5", "0.118.5"), ("gone", "0.118.5")]
        {
            let found =
                newest(&all, &"stable".parse().unwrap(), None, Some(&current.parse().unwrap()));
            assert_eq!(found.as_ref().map(Tag::as_str), Some(expected), "{current}");
        }
    }

    #[test]
    fn what_is_likely_has_its_turn_in_long_lists() {
        let old = (0..100).map(|n| format!("0.{n}.0"));
        let calendar = (1..100).map(|n| format!("2026.1.{n}"));
        let nightly = (0..500).map(|n| format!("2026.2.0.dev{n}"));
        let builds = (0..500).map(|n| format!("0.100.0-rc{n}"));
        let all: Vec<Tag> = old
            .chain(calendar)
            .chain(nightly)
            .chain(builds)
            .map(|text| text.parse().unwrap())
            .collect();
        let order = candidates(&all, &"latest".parse().unwrap(), None);
        let place =
            |tag: &str| order.iter().position(|candidate| candidate.as_str() == tag).unwrap();
        assert_eq!(order.len(), all.len());
        assert_eq!((place("0.100.0-rc499"), place("0.99.0"), place("0.60.0")), (0, 10, 49));
        assert_eq!((place("2026.1.99"), place("2026.1.1")), (50, 148));
        assert!(place("0.59.0") > place("2026.1.1") && place("2026.2.0.dev1") > place("2026.1.1"));
    }

    #[test]
    fn patterns_match_whole_tags() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "1.2", true),
            ("1.?", "1.2", true),
            ("1.?", "1.22", false),
            ("1.*", "1.", true),
            ("*-alpine", "1.2-alpine", true),
            ("*-alpine", "1.2-alpine3", false),
            ("*a*b*", "xaxxb", true),
            ("*ab", "aab", true),
            ("a", "A", false),
            ("", "1", false),
            ("?", "", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// Tags made of the pieces that versions are made of, and any tag at all.
    fn any_tag() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("1"),
            Just("01"),
            Just("0"),
            Just("42"),
            Just("2026"),
            Just("12"),
            Just("20260112"),
            Just("rc"),
            Just("hotfix"),
            Just("p"),
            Just("b"),
            Just("alpine"),
            Just("abc1234"),
            Just("99999999999999999999999"),
            Just("x"),
            Just("T")
        ];
        let separator = prop_oneof![Just(""), Just("."), Just("-"), Just("_"), Just("..")];
        let built = (
            prop_oneof![Just(""), Just("v"), Just("release-")],
            prop::collection::vec((piece, separator), 1..6),
        )
            .prop_map(|(prefix, parts)| {
                parts
                    .into_iter()
                    .fold(prefix.to_owned(), |text, (piece, separator)| text + piece + separator)
            });
        let any = prop::collection::vec(prop::sample::select(b"abcvx019._-ABZ_".to_vec()), 1..12)
            .prop_map(|bytes| String::from_utf8(bytes).unwrap());
        prop_oneof![built, any].prop_filter("a tag", |text| text.parse::<Tag>().is_ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_order_is_total(a in any_tag(), b in any_tag(), c in any_tag()) {
            if let (Some(x), Some(y), Some(z)) = (Version::parse(&a), Version::parse(&b), Version::parse(&c)) {
                prop_assert_eq!(x.cmp(&y), y.cmp(&x).reverse());
                prop_assert_eq!(x.cmp(&y) == Ordering::Equal, a == b);
                if x <= y && y <= z {
                    prop_assert!(x <= z);
                }
            }
        }

        #[test]
        fn a_more_exact_name_is_asked_about_first(all in prop::collection::vec(prop::collection::vec(0..3u8, 1..5), 2..20)) {
            let texts: Vec<String> = all.iter().map(|numbers| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(".")).collect();
            let order = candidates(&tags(&texts.join(" ")), &"latest".parse().unwrap(), None);
            for (place, earlier) in order.iter().enumerate() {
                for later in &order[place + 1..] {
                    prop_assert!(!later.as_str().starts_with(&format!("{earlier}.")), "{earlier} \
                        before {later}");
                }
            }
        }

        #[test]
        fn preference_depends_on_nothing_but_the_set(all in prop::collection::vec(any_tag(), 0..12), tracked in any_tag(), pattern in prop::option::of(prop_oneof![Just("*"), Just("1*"), Just("*-*"), Just("v?.*")])) {
            let all = tags(&all.join(" "));
            let tracked: Tag = tracked.parse().unwrap();
            let order = candidates(&all, &tracked, pattern);
            let mut shuffled = all.clone();
            shuffled.sort();
            prop_assert_eq!(&order, &candidates(&shuffled, &tracked, pattern));
            prop_assert!(!order.contains(&tracked));
            // Without the first, the others keep their order: the choice among some names agrees
            // with it.
            if pattern.is_some() && let Some((first, others)) = order.split_first() {
                prop_assert_eq!(choose(&order, &tracked, pattern), Some(first.clone()));
                prop_assert_eq!(candidates(others, &tracked, pattern), others);
            }
            let _ = newest(&all, &tracked, pattern, order.first());
        }
    }

    #[test]
    fn older_is_said_only_of_what_compares() {
        let is_older =
            |new: &str, old: &str| super::is_older(&new.parse().unwrap(), &old.parse().unwrap());
        for (new, old) in [
            ("1.41", "1.42"),
            ("1.42-rc1", "1.42"),
            ("v1.9", "1.10"),
            ("1.42", "1.42-hotfix1"),
            ("2026.01", "2026.02"),
        ] {
            assert!(is_older(new, old) && !is_older(old, new), "{new} {old}");
        }
        for (new, old) in [
            ("1.42", "1.42.0"),
            ("v1.42", "1.42"),
            ("1.42-alpine", "1.42"),
            ("1.42", "2026.01.12"),
            ("latest", "1.42"),
            ("1", "main"),
        ] {
            assert!(!is_older(new, old) && !is_older(old, new), "{new} {old}");
        }
    }
}
