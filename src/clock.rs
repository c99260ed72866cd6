//! What time it is, for whatever waits and watches.

use chrono::{DateTime, Utc};

/// The present moment.
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
