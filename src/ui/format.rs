//! Quantities as people read them.

use chrono::{DateTime, Utc};

/// A size in decimal units, as Docker shows sizes: `999 B`, `12.3 MB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    // In integers: a float would show the largest sizes wrongly. 999,950 rounds up to the next
    // unit.
    let mut unit = 0;
    let mut divisor: u128 = 1000;
    while unit + 1 < UNITS.len() && tenths(count, divisor) >= 10_000 {
        unit += 1;
        divisor *= 1000;
    }
    let tenths = tenths(count, divisor);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `count / divisor` in tenths, rounded half up.
fn tenths(count: u64, divisor: u128) -> u128 {
    (u128::from(count) * 10 + divisor / 2) / divisor
}

/// How long before `now` something was: `just now`, `12 seconds ago`, `3 days ago`; `in 2 hours`
/// when the clock that wrote it was ahead.
#[must_use]
pub fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = now.signed_duration_since(then).num_seconds();
    let (count, unit) = match seconds.unsigned_abs() {
        0..10 => return "just now".to_owned(),
        past @ 10..60 => (past, "second"),
        past @ 60..3600 => (past / 60, "minute"),
        past @ 3600..86_400 => (past / 3600, "hour"),
        past @ 86_400..2_592_000 => (past / 86_400, "day"),
        past @ 2_592_000..31_536_000 => (past / 2_592_000, "month"),
        past => (past / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if seconds < 0 {
        format!("in {count} {unit}{plural}")
    } else {
        format!("{count} {unit}{plural} ago")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (12_345_678, "12.3 MB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (4_500_000_000, "4.5 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn ages_are_seen_from_now() {
        let now: DateTime<Utc> = "2026-01-12T12:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2026-01-12T11:59:51Z", "just now"),
            ("2026-01-12T12:00:09Z", "just now"),
            ("2026-01-12T11:59:30Z", "30 seconds ago"),
            ("2026-01-12T12:00:30Z", "in 30 seconds"),
            ("2026-01-12T11:59:00Z", "1 minute ago"),
            ("2026-01-12T10:00:00Z", "2 hours ago"),
            ("2026-01-09T12:00:00Z", "3 days ago"),
            ("2025-11-01T12:00:00Z", "2 months ago"),
            ("2020-01-01T00:00:00Z", "6 years ago"),
            ("2026-01-12T14:00:00Z", "in 2 hours"),
        ] {
            assert_eq!(age(then.parse().unwrap(), now), text);
        }
    }
}
