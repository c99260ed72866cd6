//! Which lines: patterns and moments as users write them.

use std::sync::LazyLock;

use chrono::{DateTime, Days, Duration, NaiveDate, NaiveDateTime, TimeZone, Utc};
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
        let pattern = pattern.map(|pattern| {
            Regex::new(pattern).map_err(|error| {
                error::usage(format!("`{pattern}` is no regular expression: {error}")).with_hint(
                    "put a backslash before characters that are meant literally, such as \
                    ( [ { * + ? . |",
                )
            })
        });
        Ok(Self { only_trouble, pattern: pattern.transpose()? })
    }

    /// Whether every line matches.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.only_trouble && self.pattern.is_none()
    }

    /// Whether this line is shown.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        (!self.only_trouble || TROUBLE.as_ref().is_none_or(|words| words.is_match(text)))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }
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

/// The day `days` before that of `now`.
pub(super) fn days_ago<Zone: TimeZone>(now: &DateTime<Zone>, days: u32) -> NaiveDate {
    now.date_naive().checked_sub_days(Days::new(days.into())).unwrap_or(NaiveDate::MIN)
}
