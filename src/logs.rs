//! What containers say: merged and filtered for the screen, and kept when a container goes.

mod archive;
mod filter;
mod last_words;
mod merge;
mod view;

use chrono::{DateTime, Utc};

use crate::ui;

pub use archive::Archive;
pub use filter::{Matcher, start_of_day};
pub use last_words::LastWords;
pub use view::{Selection, show};

/// A line of a deployment's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The Compose service; with `-2`, `-3`, … for further containers of the same service.
    pub label: String,
    /// The place of the service among those shown, from which its colour follows.
    pub colour: usize,
    /// When the daemon received it.
    pub time: DateTime<Utc>,
    /// The text, safe to show.
    pub text: String,
}

/// A line of a log as text that a terminal does not obey.
#[must_use]
pub fn display_safe(line: &[u8]) -> String {
    ui::sanitize(&String::from_utf8_lossy(line)).replace('\n', " ")
}

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;
