//! The commands: each a sequence of effects on what the rules have planned.
//!
//! A command is a file: its arguments with their help, what it does to a deployment, its run.
//! Besides that it stands in the list below, and nowhere else.

mod arguments;
mod backups;
mod build;
mod changes;
mod check_updates;
mod completions;
mod compose;
mod ecr_login;
mod generate_env;
mod health;
mod help_version;
mod info;
mod logs;
mod man;
mod migrate;
mod operations;
mod pin;
mod prune;
mod pull;
mod pull_latest;
mod resolve_tags;
mod restore_data;
mod rollback;
mod run;
mod status;
mod undo;
mod unfinished;
mod unhold;
mod update;
mod update_safe;
mod verify;
mod version;
mod version_history;
mod version_pull;
mod version_set;

use anyhow::Result;

use crate::app::{App, Exit};

/// How a command treats a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Not at all, or it looks after itself.
    None,
    /// It only looks.
    Looks,
    /// It only shows what it would do, and ends as doing it would.
    Plans,
    /// It changes something.
    Changes,
}

impl Effect {
    /// That of a command that changes something unless it is only to show what it would do.
    #[must_use]
    pub fn unless(dry_run: bool) -> Self {
        if dry_run { Self::Plans } else { Self::Changes }
    }
}

/// What a command does, given its arguments.
pub(crate) trait Run {
    /// Whether it talks to anything or waits for anything. What only looks at files starts faster
    /// without a runtime.
    const NEEDS_RUNTIME: bool = true;

    /// Whether it ends at safe points of its own when a signal asks it to. Others are given up
    /// where they stand.
    fn has_safe_points(&self) -> bool {
        false
    }

    /// Whether a lost terminal is no reason for it to end.
    fn outlives_terminal(&self) -> bool {
        self.has_safe_points() || self.effect() == Effect::Changes
    }

    /// What it does to a deployment, for when an update is unfinished; what only looks need not
    /// say so.
    fn effect(&self) -> Effect {
        Effect::Looks
    }

    /// Whether Ctrl-C is how it normally ends, and so no failure.
    fn shows_until_interrupted(&self) -> bool {
        false
    }

    /// Does it.
    async fn run(self, app: &App) -> Result<Exit>;
}

/// Makes of the list of commands what the command line and the main function need to know of them.
macro_rules! commands {
    ($($(#[$attribute:meta])* $file:ident::$name:ident,)*) => {
        /// A command with its arguments.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $($(#[$attribute])* $name($file::$name),)*
        }

        impl Command {
            /// What this command does to a deployment.
            #[must_use]
            pub fn effect(&self) -> Effect {
                match self {
                    $(Self::$name(command) => command.effect(),)*
                }
            }

            /// Whether this command talks to anything or waits for anything.
            #[must_use]
            pub fn needs_runtime(&self) -> bool {
                match self {
                    $(Self::$name(_) => <$file::$name as Run>::NEEDS_RUNTIME,)*
                }
            }

            /// Whether this command ends at safe points of its own when a signal asks it to.
            #[must_use]
            pub fn has_safe_points(&self) -> bool {
                match self {
                    $(Self::$name(command) => Run::has_safe_points(command),)*
                }
            }

            /// Whether a lost terminal is no reason for this command to end.
            #[must_use]
            pub fn outlives_terminal(&self) -> bool {
                match self {
                    $(Self::$name(command) => Run::outlives_terminal(command),)*
                }
            }

            /// Whether Ctrl-C is how this command normally ends, and so no failure.
            #[must_use]
            pub fn shows_until_interrupted(&self) -> bool {
                match self {
                    $(Self::$name(command) => command.shows_until_interrupted(),)*
                }
            }

            /// Runs this command.
            ///
            /// # Errors
            ///
            /// Those of the command.
            pub async fn run(self, app: &App) -> Result<Exit> {
                match self {
                    $(Self::$name(command) => command.run(app).await,)*
                }
            }
        }
    };
}

// In the order in which help lists them.
commands! {
    pull::Pull,
    pull_latest::PullLatest,
    version_pull::VersionPull,
    version_set::VersionSet,
    unhold::Unhold,
    #[command(visible_alias = "downgrade")]
    rollback::Rollback,
    rollback::RollbackService,
    rollback::RollbackTo,
    undo::Undo,
    undo::Redo,
    resolve_tags::ResolveTags,
    generate_env::GenerateEnv,

    #[command(visible_alias = "whatversion")]
    version::Version,
    #[command(visible_alias = "history")]
    version_history::VersionHistory,
    operations::Operations,
    check_updates::CheckUpdates,
    help_version::HelpVersion,

    run::Up,
    run::Updb,
    run::Down,
    run::Restart,
    run::Start,
    run::Stop,
    compose::Compose,

    build::Build,
    #[command(visible_alias = "update-build")]
    update::Update,
    #[command(visible_alias = "upgrade")]
    update_safe::UpdateSafe,
    restore_data::RestoreData,
    backups::Backups,

    status::Status,
    info::Info,
    health::Health,
    logs::Logs,
    logs::LogsToday,
    logs::LogsErrors,
    logs::Dblogs,
    logs::DblogsToday,
    logs::DblogsErrors,

    verify::Verify,
    pin::Pin,
    #[command(visible_alias = "init")]
    migrate::MigrateVersions,
    prune::Prune,
    ecr_login::EcrLogin,
    completions::Completions,
    man::Man,
}
