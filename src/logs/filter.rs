//! Which lines: patterns and moments as users write them.

use std::sync::LazyLock;

use chrono::{DateTime, Days, Duration, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use regex_lite::Regex;

use crate::error::{self, Error};

/// What lines say when something went wrong, in the words of common log formats, languages and the
/// kernel. Words, not parts of them, apart from names such as `ValueError`.
static TROUBLE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let words = "errors?|fatal|panic|panicked|exceptions?|traceback|critical|crit|emerg|severe|fail|failed|failures?|\
                 oom|oomkilled|out of memory|killed|segfault|segmentation fault|core \
                 dumped|unhandled|uncaught";
    Regex::new(&format!(r"(?i:\b(?:{words})\b)|\bERR\b|[A-Za-z](?:Error|Exception)\b")).ok()
});

/// Which lines of text are shown.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    only_trouble: bool,
    pattern: Option<Regex>,
}

impl Matcher {
    /// Lines that speak of trouble, if `only_trouble`, and that match the regular expression, if
    /// there is one (case-sensitive; `(?i)` in front makes it ignore case).
    ///
    /// # Errors
    /// Kind Usage, for a pattern that is no regular expression.
    pub fn new(only_trouble: bool, pattern: Option<&str>) -> Result<Self, Error> {
        let compile = |pattern: &str| {
            Regex::new(pattern).map_err(|error| {
                error::usage(format!("`{pattern}` is no regular expression: {error}")).with_hint(
                    "put a backslash before characters that are meant literally, such \
                        as ( [ { * + ? . |",
                )
            })
        };
        Ok(Self { only_trouble, pattern: pattern.map(compile).transpose()? })
    }

    /// Whether every line matches.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.only_trouble && self.pattern.is_none()
    }

    /// Whether this line is shown.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let speaks_of_trouble = || TROUBLE.as_ref().is_none_or(|words| words.is_match(text));
        (!self.only_trouble || speaks_of_trouble())
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }
}

/// Reads a moment: so long ago (`90`, `45s`, `10m`, `2h`, `1h30m`, `3d`, `1w`), a date or a date
/// with a time (RFC 3339; without an offset in the zone of `now`), or a time of today (`14:30`).
///
/// # Errors
/// Kind Usage, for anything else.
pub fn moment<Zone: TimeZone>(text: &str, now: &DateTime<Zone>) -> Result<DateTime<Utc>, Error> {
    let text = text.trim();
    let local = |time: NaiveDateTime| first_moment(&now.timezone(), time);
    let parsed = ago(text).and_then(|ago| now.to_utc().checked_sub_signed(ago));
    let parsed =
        parsed.or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()));
    let parsed = parsed
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| local(day.into())));
    let parsed = parsed.or_else(|| {
        let formats =
            ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
        formats
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .map(local)
    });
    let parsed = parsed.or_else(|| {
        let time = ["%H:%M:%S", "%H:%M"]
            .iter()
            .find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
        Some(local(now.date_naive().and_time(time)))
    });
    parsed.ok_or_else(|| {
        error::usage(format!("`{text}` is no moment")).with_hint(
            "write how long ago (10m, 2h, 3d), a date (2026-01-31), or a date and time \
                (2026-01-31T14:30:00Z)",
        )
    })
}

/// The beginning of the day of `now`, in its own zone.
pub fn start_of_day<Zone: TimeZone>(now: &DateTime<Zone>) -> DateTime<Utc> {
    first_moment(&now.timezone(), now.date_naive().into())
}

/// The moment at which a clock in `zone` shows `time`, or after it, where clocks skip it.
fn first_moment<Zone: TimeZone>(zone: &Zone, time: NaiveDateTime) -> DateTime<Utc> {
    // Clocks skip at most a day (at a move across the date line), and mostly an hour.
    let later = [
        Duration::zero(),
        Duration::minutes(30),
        Duration::hours(1),
        Duration::hours(2),
        Duration::days(1),
    ];
    let found = later.iter().find_map(|skip| zone.from_local_datetime(&(time + *skip)).earliest());
    found.map_or_else(|| time.and_utc(), |found| found.to_utc())
}

/// `1h30m` and the like; a bare number counts seconds.
fn ago(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.is_ascii() {
        return None;
    }
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::seconds(seconds.into()));
    }
    let mut total = Duration::zero();
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u32 = rest[..unit].parse().ok()?;
        let seconds = match rest.as_bytes()[unit] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total += Duration::seconds(i64::from(count) * seconds);
        rest = &rest[unit + 1..];
    }
    Some(total)
}

/// The day `days` before that of `now`.
pub(super) fn days_ago<Zone: TimeZone>(now: &DateTime<Zone>, days: u32) -> NaiveDate {
    now.date_naive().checked_sub_days(Days::new(days.into())).unwrap_or(NaiveDate::MIN)
}
