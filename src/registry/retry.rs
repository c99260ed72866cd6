//! When to try again: a pure schedule, `Retry-After`, and the pace of hosts that ask for less.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use tokio::time::Instant;

/// The most tries of one request.
pub(super) const TRIES: u32 = 3;

/// The longest pause before the second try; it doubles with every try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The least time between the starts of requests to a host that answered 429.
const PACE: Duration = Duration::from_secs(1);

/// Whether a failure with this status may pass by itself.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The pause after the failed try number `tries` (from 1), or `None` if that was the last.
///
/// Half of the pause is fixed and half is random, so that many clients do not return at the same
/// time. The pause is never shorter than what the server asks for.
pub(super) fn pause(tries: u32, retry_after: Option<Duration>, random: u64) -> Option<Duration> {
    if tries >= TRIES {
        return None;
    }
    let longest = FIRST_PAUSE * 2u32.pow(tries.saturating_sub(1));
    let half = longest / 2;
    let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    let pause = half + Duration::from_millis(random % spread);
    Some(pause.max(retry_after.unwrap_or_default()))
}

/// A random number: the standard library seeds every hasher afresh, and jitter needs no more than
/// that.
pub(super) fn random() -> u64 {
    #[cfg(test)]
    if let Some(number) = crate::simulation::random() {
        return number;
    }
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// The wait that a `Retry-After` header asks for: seconds or an HTTP date (RFC 9110, section
/// 10.2.3).
pub(super) fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|b| b.is_ascii_digit()) {
        // 32 bits of seconds are more than any deadline and still safe to add to a moment.
        return value.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    }
    let at = DateTime::parse_from_rfc2822(value).ok()?;
    // The date has whole seconds; rounding up keeps the promise never to come early.
    let wait = (at.with_timezone(&Utc) - now).to_std().unwrap_or_default();
    Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

/// The pace of one host: unlimited until it answers 429, then one request a second for the rest of
/// the run.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// When the next request may start; reserves that moment.
    pub(super) fn reserve(&self, now: Instant) -> Instant {
        let mut next = lock(&self.next);
        match *next {
            None => now,
            Some(free) => {
                let start = free.max(now);
                *next = Some(start + PACE);
                start
            }
        }
    }

    /// The host answered 429: no request before `wait` is over, and from then on one a second.
    pub(super) fn slow_down(&self, now: Instant, wait: Option<Duration>) {
        let mut next = lock(&self.next);
        let earliest = now + wait.unwrap_or_default().max(PACE);
        *next = Some(next.map_or(earliest, |free| free.max(earliest)));
    }
}

/// Locks a mutex of plain data, which a panicking holder cannot have left half-written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_after_three_tries() {
        for random in [0, 1, 12345, u64::MAX] {
            let first = pause(1, None, random).unwrap();
            let second = pause(2, None, random).unwrap();
            assert!(
                (Duration::from_millis(250)..Duration::from_millis(500)).contains(&first),
                "{first:?}"
            );
            assert!(
                (Duration::from_millis(500)..Duration::from_millis(1000)).contains(&second),
                "{second:?}"
            );
        }
        assert_eq!(pause(3, Some(Duration::from_secs(1)), 7), None);
        assert_eq!(pause(1, Some(Duration::from_secs(9)), 7), Some(Duration::from_secs(9)));
        assert!(pause(2, Some(Duration::from_millis(1)), 7).unwrap() >= Duration::from_millis(500));
    }

    #[test]
    fn retry_after_comes_as_seconds_or_as_a_date() {
        let now =
            DateTime::parse_from_rfc3339("2026-01-12T12:00:00.5Z").unwrap().with_timezone(&Utc);
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(retry_after("Mon, 12 Jan 2026 12:00:03 GMT", now), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Mon, 12 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        for nonsense in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_answered_429_is_paced() {
        let pace = Pace::default();
        let start = Instant::now();
        assert_eq!(pace.reserve(start), start);
        assert_eq!(pace.reserve(start), start);
        pace.slow_down(start, Some(Duration::from_secs(3)));
        let starts: Vec<u64> = (0..3).map(|_| (pace.reserve(start) - start).as_secs()).collect();
        assert_eq!(starts, [3, 4, 5]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pace.reserve(Instant::now()), start + Duration::from_secs(60));
        assert_eq!(pace.reserve(Instant::now()), start + Duration::from_secs(61));
    }
}
