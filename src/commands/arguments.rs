//! Arguments that several commands have in common.

use std::time::Duration;

use clap::Args;

use crate::cli::{duration, platform, service_or_nothing};
use crate::model::reference::{Platform, ServiceName};
use crate::update::Options;

/// Services that may be named; none means all of them.
#[derive(Debug, Args)]
pub struct Services {
    /// The services [default: all]
    #[arg(value_name = "SERVICE", value_parser = service_or_nothing)]
    services: Vec<Option<ServiceName>>,
}

impl Services {
    /// The services as named, each once, in the order of the command line; empty for all.
    #[must_use]
    pub fn names(&self) -> Vec<ServiceName> {
        let mut names = Vec::new();
        for name in self.services.iter().flatten() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

/// The switches of commands that change something and ask first.
#[derive(Debug, Clone, Copy, Args)]
pub struct Confirmed {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The switches of what may also be put into effect, as safely as `update-safe` does it.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Applied {
    /// Also make it run, as `update-safe` does: data saved, what changes replaced, health waited
    /// for; what ran comes back, and nothing is recorded, if it does not become healthy
    #[arg(long)]
    pub apply: bool,
    /// With --apply, leave out the data backup
    #[arg(long, requires = "apply")]
    no_data_backup: bool,
    /// With --apply, wait this long for the containers to become healthy
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "apply")]
    timeout: Option<Duration>,
}

impl Applied {
    /// How an update goes about it.
    #[must_use]
    pub fn options(self) -> Options {
        let Self { no_data_backup, timeout, .. } = self;
        Options { no_data_backup, timeout, ..Options::default() }
    }
}

/// The switches of what records without making anything local.
#[derive(Debug, Clone, Default, Args)]
pub struct Elsewhere {
    /// Resolve and record only; needs no Docker daemon
    #[arg(long)]
    pub no_pull: bool,
    /// With --no-pull, the platform of the machine that will run it, such as linux/arm64
    /// [default: this one's]
    #[arg(long, value_name = "PLATFORM", value_parser = platform, requires = "no_pull")]
    pub platform: Option<Platform>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        services: Services,
    }

    #[test]
    fn empty_words_name_no_service_and_repeated_ones_name_one() {
        for (words, expected) in [(&[""][..], vec![]), (&["b", "", "a", "b"], vec!["b", "a"])] {
            let line = Line::parse_from(["dkv"].iter().chain(words));
            let names = line.services.names();
            assert_eq!(names.iter().map(ServiceName::as_str).collect::<Vec<_>>(), expected);
        }
    }
}
