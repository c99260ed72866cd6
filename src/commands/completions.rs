//! `completions`: the completion script of a shell.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::cli;

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  dkv completions bash > /etc/bash_completion.d/dkv")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Run for Completions {
    const NEEDS_RUNTIME: bool = false;

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn run(self, app: &App) -> Result<Exit> {
        app.ui.data(cli::completions(self.shell));
        Ok(Exit::Done)
    }
}
