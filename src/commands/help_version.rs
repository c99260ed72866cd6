//! `help-version`: the version commands, grouped, with examples.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::report::Help;

/// Show the version commands, grouped, with examples
#[derive(Debug, Args)]
pub struct HelpVersion;

impl Run for HelpVersion {
    const NEEDS_RUNTIME: bool = false;

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn run(self, app: &App) -> Result<Exit> {
        app.show(&Help { text: TEXT }, |help| app.ui.data(help.text))?;
        Ok(Exit::Done)
    }
}

const TEXT: &str = "\
Version commands of dkv

Update
  dkv pull-latest [SERVICE…]             pull what the tracked tags name now, and record it
  dkv pull [SERVICE…]                    pull the recorded versions
  dkv update-safe [SERVICE…]             update, check health, restore on failure
  dkv check-updates [SERVICE…]           show what `pull-latest` would change
  dkv resolve-tags [SERVICE…]            turn `latest` in the manifest into versions

One service
  dkv version-pull SERVICE TAG           pull this version, and record it
  dkv version-set SERVICE TAG [--hold]   the same, as a custom version (a hotfix)
  dkv unhold SERVICE                     let `pull-latest` update it again

Go back
  dkv rollback [SERVICE…]                to the previous version of all services, or of some
  dkv rollback-service SERVICE           to the previous version of one service
  dkv rollback-to SERVICE TAG|DIGEST     to a certain version
  dkv undo [ID], dkv redo                to the record before an operation, and forward again

Look
  dkv version [SERVICE…]                 show the recorded versions
  dkv version-history [SERVICE…]         show the history, and where a rollback goes
  dkv operations                         show what was done, and what changed together
  dkv status                             show what runs
  dkv verify                             show where records, files and containers disagree

Files
  dkv migrate-versions                   make a manifest from a running deployment
  dkv generate-env                       write versions.env from the manifest
  dkv pin [FILE…]                        write digests into Compose files

These record versions; containers follow at the next `dkv restart`. With update-safe, and with \
    --apply
of those that go back, they follow at once, and what fails is restored.

Examples
  Update everything:                     dkv pull-latest && dkv restart
  Undo that, for what it changed:        dkv undo && dkv restart
  Try a version of one service:          dkv version-pull taskservice 1.42 && dkv restart
  Undo that:                             dkv rollback-service taskservice && dkv restart
  Use a hotfix, and keep it:             dkv version-set req_router 1.35-hotfix-customer123 --hold
  Go to a version from the history:      dkv rollback-to taskservice 1.41 && dkv restart

`dkv rollback` without names asks, on a terminal, whether it is meant for every service or for what
the last operation changed; with -y or --all it takes every service back a version, also those that
the last update left alone.
";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn what_help_version_names_exists() {
        let known = Cli::command();
        let mut named = 0;
        for line in TEXT.lines().filter_map(|line| line.strip_prefix("  dkv ")) {
            let name = line.split_whitespace().next().unwrap();
            assert!(known.find_subcommand(name).is_some(), "{name}");
            named += 1;
        }
        assert!(named > 10);
    }
}
