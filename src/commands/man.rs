//! `man`: the manual page.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::cli;

/// Print the manual page
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  dkv man | man -l -")]
pub struct Man;

impl Run for Man {
    const NEEDS_RUNTIME: bool = false;

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn run(self, app: &App) -> Result<Exit> {
        app.ui.data(cli::manual()?);
        Ok(Exit::Done)
    }
}
