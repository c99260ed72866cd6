//! Lengths of time as people and Compose write them.

use std::time::Duration;

/// Reads seconds (`10`), or numbers with the units `ms`, `s`, `m`, `h`, `d` (`90s`, `1m30s`);
/// `None` if `text` is neither.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let milliseconds_each = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let number = number.parse::<u32>().ok()?;
        total += Duration::from_millis(u64::from(number) * milliseconds_each);
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// As [`parse`], also with the fractions and the smaller units that Compose prints (`1.5s`,
/// `1m0.25s`, `250us`).
#[must_use]
pub fn parse_exact(text: &str) -> Option<Duration> {
    if let Some(length) = parse(text) {
        return Some(length);
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let seconds_each = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds_each).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compose_prints_is_read_exactly() {
        for (text, microseconds) in [
            ("90s", 90_000_000),
            ("1m30s", 90_000_000),
            ("1.5s", 1_500_000),
            ("1m0.25s", 60_250_000),
            ("250us", 250),
            ("250µs", 250),
            ("0s", 0),
            ("1h0m0s", 3_600_000_000),
        ] {
            assert_eq!(parse_exact(text), Some(Duration::from_micros(microseconds)), "{text}");
        }
        for text in ["", "s", "1x", "1.2.3s", "-1s", "99999999999999999999h", "1.5"] {
            assert_eq!(parse_exact(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_and_units_are_read_and_nothing_else() {
        for (text, milliseconds) in [
            ("10", 10_000),
            ("0", 0),
            ("500ms", 500),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "1x",
            "1m30",
            "-1",
            "1.5s",
            "4294967296",
            "99999999999d",
            "1 s",
            "5m 3s",
            "1w",
            "ten",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
