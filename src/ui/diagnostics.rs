//! What `tracing` events of this crate look like to the user. Written out here because all that is
//! wanted is a line per event; other crates' events may hold secrets and are shown at no level.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{Style, Ui};

impl Ui {
    /// Shows this crate's `tracing` events from now on: warnings always, information with `-v`,
    /// details with `-vv`. Does nothing when something else shows them already.
    pub fn install_tracing(&self) {
        let level = level(self.shared.settings.verbosity);
        let subscriber = Diagnostics { ui: self.clone(), level };
        // The only error is that there is a subscriber.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
}

fn level(verbosity: u8) -> LevelFilter {
    match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

struct Diagnostics {
    ui: Ui,
    level: LevelFilter,
}

impl Subscriber for Diagnostics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level && is_ours(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let message = line.message + &line.fields;
        match *event.metadata().level() {
            Level::ERROR | Level::WARN => self.ui.warn(message),
            Level::INFO => self.ui.say("info", Style::Dim, &message, ": "),
            Level::DEBUG | Level::TRACE => self.ui.say("debug", Style::Dim, &message, ": "),
        }
    }

    // Spans are never enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Whether events of `target` are this crate's.
fn is_ours(target: &str) -> bool {
    target == "dkv" || target.starts_with("dkv::")
}

/// An event as text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_crate_is_heard() {
        for ours in ["dkv", "dkv::registry", "dkv::docker::pull"] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in ["hyper", "dkvx", "aws_config::dkv", ""] {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn verbosity_opens_one_level_at_a_time() {
        assert_eq!(
            [0, 1, 2, 9].map(level),
            [LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE]
        );
    }
}
