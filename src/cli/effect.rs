//! What a command does to a deployment, for when an update is unfinished.

use super::Command;

/// How a command treats a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Not at all, or it looks after itself.
    None,
    /// It only looks.
    Looks,
    /// It changes something.
    Changes,
}

impl Command {
    /// What this command does to a deployment.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let changes = |dry_run: bool| if dry_run { Effect::Looks } else { Effect::Changes };
        match self {
            Self::HelpVersion | Self::Completions(_) | Self::Man | Self::EcrLogin(_) => {
                Effect::None
            }
            // Finishes or undoes an unfinished update, or refuses by itself.
            Self::UpdateSafe(arguments) if !arguments.dry_run => Effect::None,
            Self::UpdateSafe(_)
            | Self::Version(_)
            | Self::VersionHistory(_)
            | Self::CheckUpdates(_)
            | Self::Status(_)
            | Self::Info
            | Self::Health
            | Self::Logs(_)
            | Self::LogsToday(_)
            | Self::LogsErrors(_)
            | Self::Dblogs(_)
            | Self::DblogsToday(_)
            | Self::DblogsErrors(_)
            | Self::Verify(_) => Effect::Looks,
            Self::Pull(arguments) => changes(arguments.dry_run),
            Self::PullLatest(arguments) => changes(arguments.dry_run),
            Self::VersionPull(arguments) => changes(arguments.dry_run),
            Self::VersionSet(arguments) => changes(arguments.dry_run),
            Self::Unhold(arguments) => changes(arguments.dry_run),
            Self::Rollback(arguments) => changes(arguments.confirmed.dry_run),
            Self::RollbackService(arguments) => changes(arguments.confirmed.dry_run),
            Self::RollbackTo(arguments) => changes(arguments.confirmed.dry_run),
            Self::ResolveTags(arguments) => changes(arguments.dry_run),
            Self::GenerateEnv(arguments)
            | Self::Down(arguments)
            | Self::Stop(arguments)
            | Self::Build(arguments)
            | Self::Update(arguments) => changes(arguments.dry_run),
            Self::Up(arguments) | Self::Restart(arguments) | Self::Start(arguments) => {
                changes(arguments.dry_run)
            }
            Self::Updb(arguments) => changes(arguments.dry_run),
            Self::RestoreData(arguments) => changes(arguments.confirmed.dry_run),
            Self::Pin(arguments) => changes(arguments.dry_run || arguments.check),
            Self::MigrateVersions(arguments) => changes(arguments.confirmed.dry_run),
            Self::Prune(arguments) => changes(arguments.dry_run),
        }
    }
}
