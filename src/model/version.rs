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
//! **Families.** A tracked tag with a variant (`alpine`, `1-bookworm`) resolves within it, and so
//! does one whose word stands in front (`amd64-latest` is `amd64-4.0.16-ls299`, `develop` is
//! `develop-4.0.17`); a tracked tag with numbers (`1.42`) resolves to more exact names of that
//! line. A word that is neither (`production`) is just the name of a channel. A pattern
//! (`version_pattern`) replaces all of these rules but one: the tracked tag itself never is its own
//! version.
//!
//! **What compares.** Older ([`is_older`]) and newest ([`newest`]) are said only of versions of one
//! scheme: the same words in front, numbers of about the same length, dates with dates. `5.14` and
//! `4.0.16.2944`, two commits of one day, or a calendar version and a release number are two
//! histories, of which nobody but the publisher knows which is ahead.

mod choosing;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::reference::Tag;
pub(super) use choosing::MOVING;
pub use choosing::{candidates, choose, newest};

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

/// What the numbers of a version count. Two schemes have no common order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// Releases.
    Numbers,
    /// Years, and releases in them: `2026.1.3`.
    CalendarVersion,
    /// Days: `20260112`, `2026-01-12`, `12-01-2026`.
    Date,
    /// Days behind their months, where the day is too high for a month: `01-25-2026`.
    MonthFirst,
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
    scheme: Scheme,
    /// Whether a commit is named in it.
    has_hash: bool,
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
        let (numbers, scheme, suffix) = split_date(rest).unwrap_or_else(|| {
            let (numbers, suffix) = split_numbers(rest);
            let scheme = match numbers.as_slice() {
                [year, month, ..] if year.is_year() && is_month(month) => Scheme::CalendarVersion,
                _ => Scheme::Numbers,
            };
            (numbers, scheme, suffix)
        });
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
            scheme,
            has_hash: suffix.has_hash,
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

    /// The version that `tag` is in the family whose tags begin with `front`.
    fn parse_in(tag: &str, front: &str) -> Option<Self> {
        let rest = tag.strip_prefix(front)?;
        Some(Self { text: tag.to_owned(), ..Self::parse(rest)? })
    }

    /// The version that `tag` is, and the words in front that make it one of a family.
    fn parse_fronted(tag: &str) -> Option<(&str, Self)> {
        if let Some(version) = Self::parse(tag) {
            return Some(("", version));
        }
        let ends = tag.match_indices(['-', '_']).map(|(at, _)| at + 1);
        ends.filter_map(|end| tag.split_at_checked(end))
            .find_map(|(front, _)| Some((front, Self::parse_in(tag, front)?)))
            .filter(|(front, _)| !NO_FAMILY.contains(&front.trim_end_matches(['-', '_'])))
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
            scheme: Scheme::Numbers,
            has_hash: false,
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

    fn is_calendar(&self) -> bool {
        self.scheme != Scheme::Numbers
    }

    /// Whether both count the same, so that one can be ahead of the other.
    fn is_of_scheme(&self, other: &Self) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        let (mine, others) = (self.numbers.len(), other.numbers.len());
        let is_build = |version: &Self| matches!(version.numbers.as_slice(), [Number(only)] if only.len() >= BUILD_DIGITS);
        match self.scheme {
            Scheme::Date | Scheme::MonthFirst => true,
            Scheme::Numbers if mine != others && (is_build(self) || is_build(other)) => false,
            Scheme::Numbers | Scheme::CalendarVersion => mine.abs_diff(others) <= 1,
        }
    }

    /// Whether this may be what came after `other`; a more exact name may be.
    fn can_follow(&self, other: &Self) -> bool {
        let is_exacter = other.numbers.len() > 1 && self.numbers.len() > other.numbers.len();
        self.is_of_scheme(other) || (self.scheme == other.scheme && is_exacter)
    }

    /// How this stands to `other` in the publisher's own order, if that can be told.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        if !self.is_of_scheme(other) {
            return None;
        }
        let numbers = self.significant().cmp(other.significant());
        if numbers != Ordering::Equal {
            return Some(numbers);
        }
        // A commit says nothing about when it was made.
        if self.stage != other.stage {
            return (!self.has_hash && !other.has_hash).then(|| self.stage.cmp(&other.stage));
        }
        for (mine, others) in self.modifiers.iter().zip(&other.modifiers) {
            match (mine, others) {
                (Token::Number(mine), Token::Number(others)) if mine != others => {
                    return Some(mine.cmp(others));
                }
                (mine, others) if mine != others => return None,
                _ => {}
            }
        }
        let lengths = self.modifiers.len().cmp(&other.modifiers.len());
        (lengths == Ordering::Equal || !(self.has_hash || other.has_hash)).then_some(lengths)
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

/// Words in front that are no family: what follows is the number of something else.
const NO_FAMILY: [&str; 12] =
    ["pr", "PR", "mr", "pull", "merge", "sha", "sha256", "commit", "git", "dkv", "issue", "run"];

/// A single number of so many digits counts builds, not releases.
const BUILD_DIGITS: usize = 4;

/// Whether `new` is a lower version than `old`. Tags that are no versions, and versions of two
/// schemes or families, are not comparable.
#[must_use]
pub fn is_older(new: &Tag, old: &Tag) -> bool {
    let read = |tag| Version::parse_fronted(Tag::as_str(tag));
    let (Some((new_front, new)), Some((old_front, old))) = (read(new), read(old)) else {
        return false;
    };
    new_front == old_front && new.compare(&old) == Some(Ordering::Less)
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
    // `b4567`, the number of a build.
    let build = tag
        .strip_prefix('b')
        .filter(|rest| rest.len() < 6 && rest.bytes().all(|b| b.is_ascii_digit()));
    let versions = [without_v, rest].into_iter().chain(build);
    versions.into_iter().find(|rest| begins_with_digit(rest)).unwrap_or(tag)
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

/// A day in front, with a time at most: its numbers with the year first, and what follows.
fn split_date(text: &str) -> Option<(Vec<Number>, Scheme, &str)> {
    let (mut numbers, scheme, rest) = split_compact_date(text)
        .or_else(|| split_year_first(text))
        .or_else(|| split_year_last(text))?;
    match split_time(rest) {
        Some((time, rest)) => {
            numbers.extend(time);
            Some((numbers, scheme, rest))
        }
        None => Some((numbers, scheme, rest)),
    }
}

/// `20260112`, and `202601121030` or `20260112103059`; numbers may follow.
fn split_compact_date(text: &str) -> Option<(Vec<Number>, Scheme, &str)> {
    let (run, rest) = split_run(text, char::is_ascii_digit);
    if !matches!(run.len(), 8 | 12 | 14) {
        return None;
    }
    let year = digits(&run[..4], 4).filter(Number::is_year)?;
    let month = digits(&run[4..6], 2).filter(is_month)?;
    let day = digits(&run[6..8], 2).filter(is_day)?;
    let mut numbers = vec![year, month, day];
    numbers.extend((8..run.len()).step_by(2).map(|at| Number::new(&run[at..at + 2])));
    let more = rest.strip_prefix('.').filter(|rest| begins_with_digit(rest)).map(split_numbers);
    match more {
        Some((more, rest)) => {
            numbers.extend(more);
            Some((numbers, Scheme::Date, rest))
        }
        None => Some((numbers, Scheme::Date, rest)),
    }
}

/// `2026-01-12` or `2026_01`.
fn split_year_first(text: &str) -> Option<(Vec<Number>, Scheme, &str)> {
    let year = digits(text, 4).filter(Number::is_year)?;
    let rest = text[4..].strip_prefix(['-', '_'])?;
    let month = digits(rest, 2).filter(is_month)?;
    let rest = &rest[2..];
    let day = rest.strip_prefix(['-', '_']);
    match day.and_then(|day| Some((digits(day, 2).filter(is_day)?, &day[2..]))) {
        Some((day, rest)) => Some((vec![year, month, day], Scheme::Date, rest)),
        None => Some((vec![year, month], Scheme::Date, rest)),
    }
}

/// `12-01-2026`, `12.01.2026`: the day first, unless it can only be the second number.
fn split_year_last(text: &str) -> Option<(Vec<Number>, Scheme, &str)> {
    let first = digits(text, 2)?;
    let separator = text[2..].chars().next().filter(|c| matches!(c, '-' | '_' | '.'))?;
    let rest = &text[3..];
    let second = digits(rest, 2)?;
    let rest = rest[2..].strip_prefix(separator)?;
    let year = digits(rest, 4).filter(Number::is_year)?;
    let rest = &rest[4..];
    if first.is_zero() || second.is_zero() {
        return None;
    }
    if is_day(&first) && is_month(&second) {
        Some((vec![year, second, first], Scheme::Date, rest))
    } else if is_month(&first) && is_day(&second) {
        Some((vec![year, first, second], Scheme::MonthFirst, rest))
    } else {
        None
    }
}

/// `T10-30-59Z` behind a day: its numbers, and what follows.
fn split_time(text: &str) -> Option<(Vec<Number>, &str)> {
    let mut rest = text.strip_prefix(['T', 't'])?;
    let mut numbers = Vec::new();
    let (run, behind) = split_run(rest, char::is_ascii_digit);
    if matches!(run.len(), 4 | 6) {
        numbers.extend((0..run.len()).step_by(2).map(|at| Number::new(&run[at..at + 2])));
        rest = behind;
    } else {
        while let Some(number) = digits(rest, 2) {
            numbers.push(number);
            rest = &rest[2..];
            match rest.strip_prefix(['-', '_', '.']).filter(|next| digits(next, 2).is_some()) {
                Some(next) if numbers.len() < 3 => rest = next,
                _ => break,
            }
        }
    }
    let rest = rest.strip_prefix(['Z', 'z']).unwrap_or(rest);
    (!numbers.is_empty()).then_some((numbers, rest))
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
