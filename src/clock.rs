//! What time it is, for whatever waits and watches.

use chrono::{DateTime, Utc};

/// The present moment.
#[must_use]
pub fn now() -> DateTime<Utc> {
    #[cfg(test)]
    if let Some(now) = crate::simulation::now() {
        return now;
    }
    Utc::now()
}
