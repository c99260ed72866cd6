//! `version-set`: a custom version of one service.

use anyhow::Result;
use clap::Args;

use super::arguments::Elsewhere;
use super::changes::Manner;
use super::version_pull::version_pull;
use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::model::reference::{ServiceName, Tag};
use crate::plan::Intent;

/// Set a custom version of one service, such as a hotfix
#[derive(Debug, Args)]
#[command(after_long_help = "Example:
  dkv version-set req_router 1.35-hotfix-customer123 --reason 'customer patch' --hold")]
pub struct VersionSet {
    /// The service
    service: ServiceName,
    /// The version, as the registry's tag
    tag: Tag,
    /// Why, for those who read the manifest later
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Keep `pull-latest` from replacing it, until `dkv unhold`
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl VersionSet {
    /// The reason, if one was given that is not blank.
    fn reason(&self) -> Option<&str> {
        self.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty())
    }
}

impl Run for VersionSet {
    fn effect(&self) -> Effect {
        Effect::unless(self.dry_run)
    }

    async fn run(self, app: &App) -> Result<Exit> {
        let Elsewhere { no_pull, platform } = &self.elsewhere;
        let manner = Manner { dry_run: self.dry_run, pulls: !no_pull, keep_going: false };
        let intent = Intent::Custom { reason: self.reason().map(str::to_owned), hold: self.hold };
        version_pull(app, &self.service, &self.tag, platform.as_ref(), intent, manner).await
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: VersionSet,
    }

    #[test]
    fn a_blank_reason_is_none() {
        for (text, expected) in [("", None), (" patch ", Some("patch"))] {
            let line = Line::parse_from(["version-set", "a", "1", "--reason", text]);
            assert_eq!(line.arguments.reason(), expected, "{text:?}");
        }
    }
}
