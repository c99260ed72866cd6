//! Arguments that several commands have in common.

use clap::Args;

use crate::cli::service_or_nothing;
use crate::model::reference::ServiceName;

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
