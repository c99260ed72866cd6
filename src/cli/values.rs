//! Values of the command line that are more than text: parsed at the edge, so that nothing
//! malformed gets further.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _, Utc};

use crate::model::duration;
use crate::model::reference::{Digest, InvalidName, Platform, ServiceName, Tag};

/// A release as a user names it: by its tag or by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagOrDigest {
    /// A tag, `1.42`.
    Tag(Tag),
    /// A full digest, `sha256:…`.
    Digest(Digest),
    /// The beginning of a digest, with at least twelve of its digits.
    Beginning(String),
}

/// How many digits of a digest tables show, and so the fewest that name one.
const SHORTEST_BEGINNING: usize = 12;

impl FromStr for TagOrDigest {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // A colon can stand in a digest only.
        if !text.contains(':') {
            return text.parse().map(Self::Tag);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        match text.parse() {
            Ok(digest) => Ok(Self::Digest(digest)),
            Err(_)
                if (SHORTEST_BEGINNING..64).contains(&digits.len())
                    && digits.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                Ok(Self::Beginning(text.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
            Self::Beginning(text) => text.fmt(f),
        }
    }
}

/// A service where none may be named: `make version-history` without `SERVICE=` passes an empty
/// word.
pub fn service_or_nothing(text: &str) -> Result<Option<ServiceName>, InvalidName> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// The operating systems and the architectures that images are made for, as Go has names for them.
const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

/// A platform. Names that nobody uses are refused here: where nothing new is fetched, no registry
/// would find out.
pub fn platform(text: &str) -> Result<Platform, String> {
    let platform: Platform = text.parse().map_err(|error: InvalidName| error.to_string())?;
    let is_known = SYSTEMS.contains(&platform.os.as_str())
        && ARCHITECTURES.contains(&platform.architecture.as_str());
    match is_known {
        true => Ok(platform),
        false => Err(format!(
            "there is no such platform: it is an operating system ({}) and an architecture ({}), \
             as in `linux/arm64` or `linux/arm/v7`",
            SYSTEMS.join(", "),
            ARCHITECTURES.join(", ")
        )),
    }
}

/// A length of time.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| {
        "a duration is seconds (`10`) or numbers with units (`500ms`, `10s`, `1m30s`, `2h`, `7d`)"
            .to_owned()
    })
}

/// A length of time in which something can be done.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time.is_zero() {
        true => Err("nothing can be asked in no time".to_owned()),
        false => Ok(time),
    }
}

/// How many images are worked on at once.
pub fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it is a whole number, 1 or more".to_owned())
}

/// A point in time as a user writes it: a moment, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This long before now.
    Ago(Duration),
    /// Exactly then.
    At(DateTime<Utc>),
}

impl Moment {
    /// The point in time, seen from `now`. Durations that reach beyond the calendar end at its
    /// beginning.
    #[must_use]
    pub fn seen_from(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(moment) => moment,
            Self::Ago(duration) => chrono::TimeDelta::from_std(duration)
                .ok()
                .and_then(|delta| now.checked_sub_signed(delta))
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    /// Reads `10m` (ago), RFC 3339, and dates or times without a zone, which are local.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(duration) = duration(text) {
            return Ok(Self::Ago(duration));
        }
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(moment.to_utc()));
        }
        let local = NaiveDateTime::parse_from_str(&text.replace(' ', "T"), "%Y-%m-%dT%H:%M:%S")
            .or_else(|_| {
                NaiveDate::parse_from_str(text, "%Y-%m-%d")
                    .map(|date| date.and_time(NaiveTime::MIN))
            })
            .map_err(|_| {
                "a time is `10m` (ago), `2026-01-12`, `2026-01-12T12:29:08` or one with a zone"
                    .to_owned()
            })?;
        // The earlier of two in the hour that is repeated when summer time ends.
        Local
            .from_local_datetime(&local)
            .earliest()
            .map(|moment| Self::At(moment.to_utc()))
            .ok_or_else(|| format!("{local} does not exist in this time zone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ages_or_times() {
        let now: DateTime<Utc> = "2026-01-12T12:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Moment>().unwrap().seen_from(now).to_rfc3339();
        assert_eq!(at("10m"), "2026-01-12T11:50:00+00:00");
        assert_eq!(at("2026-01-01T01:00:00+01:00"), "2026-01-01T00:00:00+00:00");
        assert!("2026-01-12".parse::<Moment>().is_ok());
        assert!("2026-01-12 08:00:00".parse::<Moment>().is_ok());
        assert_eq!(at("2026-01-12T08:00:00"), at("2026-01-12 08:00:00"));
        assert!("yesterday".parse::<Moment>().is_err());
        assert!("4294967295d".parse::<Moment>().unwrap().seen_from(now) < now);
    }

    #[test]
    fn platforms_are_those_that_there_are() {
        for (text, read) in [
            ("linux/arm64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(text).unwrap().to_string(), read);
        }
        for text in ["nonsense", "linux/nonsense", "nonsense/amd64", "linux/", "a/b/c/d"] {
            assert!(platform(text).is_err(), "{text}");
        }
    }

    #[test]
    fn releases_are_named_by_tag_or_digest() {
        assert!(matches!("1.42".parse(), Ok(TagOrDigest::Tag(_))));
        assert!(matches!(Digest::of(b"").as_str().parse(), Ok(TagOrDigest::Digest(_))));
        assert!(matches!("sha256:0123456789ab".parse(), Ok(TagOrDigest::Beginning(_))));
        for bad in ["", "sha256:00", "sha256:0123456789abx", "a:b", "$(x)"] {
            assert!(bad.parse::<TagOrDigest>().is_err(), "{bad}");
        }
    }
}
