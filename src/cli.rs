//! The command line: clap types, and the one place where flags, environment and defaults become
//! settings.

mod effect;
mod environment;
mod help;
mod parse;
mod values;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

pub use effect::Effect;
pub use environment::Environment;
pub use help::{completions, manual, version_help};
pub use parse::{FailedParse, failed_parse};
pub use values::{Moment, TagOrDigest};
use values::{duration, service_or_nothing};

use crate::error;
use crate::model::reference::{ServiceName, Tag};
use crate::ui::{ColorChoice, Terminals, UiSettings};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "dkv",
    version,
    propagate_version = true,
    about = "Keep the image versions of a Docker Compose deployment",
    long_about = "Keep the image versions of a Docker Compose deployment: recorded by digest, \
        updated safely, \
                  rolled back exactly.\n\nA deployment is a directory with Compose files and, \
                  once `dkv \
                  migrate-versions` has run, a version-manifest.yaml.",
    after_help = help::AFTER_HELP,
    after_long_help = help::AFTER_LONG_HELP,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The command's own name, whatever alias it was called by.
    #[arg(skip)]
    pub name: String,
}

/// The options that every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Work in this directory instead of the current one
    #[arg(short = 'C', long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,

    /// Use this manifest [default: version-manifest.yaml]
    ///
    /// A relative path starts at the directory of -C. Without -C, the manifest's own directory is
    /// the deployment.
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    manifest: Option<PathBuf>,

    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing but results, warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// Say more about what happens; twice for details
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    color: ColorChoice,

    /// Work on at most this many images at once
    #[arg(long, global = true, value_name = "N", default_value = "8")]
    jobs: NonZeroUsize,

    /// Wait this long for another dkv to finish
    ///
    /// Seconds, or a number with a unit: 10, 10s, 1m.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = duration, default_value = "10")]
    lock_timeout: Duration,
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pull the images of the manifest, by digest
    Pull(Pull),
    /// Pull what the tracked tags name now, and record it
    #[command(after_long_help = "Examples:
  dkv pull-latest && dkv restart     update everything
  dkv pull-latest settings           update one service
  dkv pull-latest --no-pull          record only, without a Docker daemon (CI)")]
    PullLatest(PullLatest),
    /// Pull one version of one service, and record it
    #[command(after_long_help = "Example:\n  dkv version-pull taskservice 1.42 && dkv restart")]
    VersionPull(VersionPull),
    /// Set a custom version of one service, such as a hotfix
    #[command(after_long_help = "Example:
  dkv version-set req_router 1.35-hotfix-customer123 --reason 'customer patch' --hold")]
    VersionSet(VersionSet),
    /// Let `pull-latest` update a held service again
    Unhold(Unhold),
    /// Go back to the previous version of all services, or of those named
    ///
    /// Moves the record only; `dkv restart` applies it. Twice goes back two versions. Without
    /// names, every service goes back one, whether the last update changed it or not.
    #[command(visible_alias = "downgrade")]
    Rollback(Rollback),
    /// Go back to the previous version of one service
    RollbackService(RollbackService),
    /// Go to a version of the history, or to any that the registry has
    #[command(after_long_help = "Example:\n  dkv rollback-to taskservice 1.41 && dkv restart")]
    RollbackTo(RollbackTo),
    /// Replace moving tags in the manifest with the versions they name
    ResolveTags(Change),
    /// Write versions.env from the manifest
    GenerateEnv(DryRun),

    /// Show the recorded versions
    #[command(visible_alias = "whatversion")]
    Version(Services),
    /// Show the recorded history, and where a rollback goes
    #[command(visible_alias = "history")]
    VersionHistory(Services),
    /// Show what `pull-latest` would change, without pulling
    ///
    /// Exits 9 when some services are unknown, 5 when all are.
    CheckUpdates(CheckUpdates),
    /// Show the version commands, grouped, with examples
    HelpVersion,

    /// Start the application, with the recorded versions
    Up(Start),
    /// Start the databases, and wait until they are healthy
    Updb(StartDatabases),
    /// Stop and remove all containers, databases included
    Down(DryRun),
    /// Stop everything and start it again: down, updb, up
    Restart(Start),
    /// Start everything: updb, up
    Start(Start),
    /// Stop everything; the same as `down`
    Stop(DryRun),

    /// Build the images that Compose builds here, and record them
    Build(DryRun),
    /// Pull, build, and stop; then run `dkv updb` and `dkv up`
    #[command(visible_alias = "update-build")]
    Update(DryRun),
    /// Update to the latest versions, and restore what ran if they do not become healthy
    #[command(visible_alias = "upgrade")]
    UpdateSafe(UpdateSafe),
    /// Put a data backup of `update-safe` back
    RestoreData(RestoreData),

    /// Show every container: its state, health and version
    Status(Status),
    /// Show containers and recorded versions
    Info,
    /// Show containers and available updates
    Health,
    /// Show the logs of all containers, databases included
    Logs(Logs),
    /// Show today's logs, also of containers that are gone
    LogsToday(Logs),
    /// Show errors in the logs
    LogsErrors(Logs),
    /// Show the logs of the databases
    Dblogs(Logs),
    /// Show today's logs of the databases, also of containers that are gone
    DblogsToday(Logs),
    /// Show errors in the logs of the databases
    DblogsErrors(Logs),

    /// Compare manifest, versions.env, Compose files, images and containers
    ///
    /// Exits 10 when any of them disagree.
    Verify(Verify),
    /// Write digests into Compose files, in place
    Pin(Pin),
    /// Make a manifest from what runs and what the Compose files say
    ///
    /// With a manifest, adds the services that it lacks. Starts and stops nothing. Exits 10 when
    /// Compose services of one image run different versions, so that not all of them would start as
    /// they run.
    #[command(visible_alias = "init")]
    MigrateVersions(MigrateVersions),
    /// Remove the local tags that kept releases which no history remembers any more
    Prune(Confirmed),
    /// Check that login to ECR works, and until when
    EcrLogin(EcrLogin),
    /// Print the completion script of a shell
    #[command(after_long_help = "Example:\n  dkv completions bash > /etc/bash_completion.d/dkv")]
    Completions(Completions),
    /// Print the manual page
    #[command(after_long_help = "Example:\n  dkv man | man -l -")]
    Man,
}

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

/// The switch of commands that change something.
#[derive(Debug, Args)]
pub struct DryRun {
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The switches of commands that change something and ask first.
#[derive(Debug, Args)]
pub struct Confirmed {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A change to all services or those named.
#[derive(Debug, Args)]
pub struct Change {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// Go on when a service fails, and exit 9 in the end
    #[arg(long)]
    pub keep_going: bool,
    /// Show what would be pulled, and pull nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `pull-latest`.
#[derive(Debug, Args)]
pub struct PullLatest {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// Resolve and record only; needs no Docker daemon
    #[arg(long)]
    pub no_pull: bool,
    /// Take versions too that `update-safe` found bad
    #[arg(long)]
    pub retry: bool,
    /// Record the services that succeed when others fail, and exit 9
    #[arg(long)]
    pub keep_going: bool,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `version-pull`.
#[derive(Debug, Args)]
pub struct VersionPull {
    /// The service
    pub service: ServiceName,
    /// The version, as the registry's tag
    pub tag: Tag,
    /// Resolve and record only; needs no Docker daemon
    #[arg(long)]
    pub no_pull: bool,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `version-set`.
#[derive(Debug, Args)]
pub struct VersionSet {
    /// The service
    pub service: ServiceName,
    /// The version, as the registry's tag
    pub tag: Tag,
    /// Why, for those who read the manifest later
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Keep `pull-latest` from replacing it, until `dkv unhold`
    #[arg(long)]
    pub hold: bool,
    /// Resolve and record only; needs no Docker daemon
    #[arg(long)]
    pub no_pull: bool,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl VersionSet {
    /// The reason, if one was given that is not blank.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty())
    }
}

/// `unhold`.
#[derive(Debug, Args)]
pub struct Unhold {
    /// The service
    pub service: ServiceName,
    /// Show what would be recorded, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// Whether to ask, and whether to act.
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `rollback-service`.
#[derive(Debug, Args)]
pub struct RollbackService {
    /// The service
    pub service: ServiceName,
    /// Whether to ask, and whether to act.
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `rollback-to`.
#[derive(Debug, Args)]
pub struct RollbackTo {
    /// The service
    pub service: ServiceName,
    /// The version: a tag, or a digest (sha256:…)
    #[arg(value_name = "TAG|DIGEST")]
    pub target: TagOrDigest,
    /// Whether to ask, and whether to act.
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `check-updates`.
#[derive(Debug, Args)]
pub struct CheckUpdates {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// Exit 10 when `pull-latest` would change something
    #[arg(long)]
    pub exit_code: bool,
}

/// `up`, `restart` and `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Return as soon as the containers are started
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Wait this long for the containers to become healthy [default: the manifest's, else 120s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `updb`.
#[derive(Debug, Args)]
pub struct StartDatabases {
    /// Wait this long for the databases to become healthy [default: the manifest's, else 120s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `update-safe`.
#[derive(Debug, Args)]
pub struct UpdateSafe {
    /// Finish an update that was interrupted
    #[arg(long, conflicts_with_all = ["abort", "dry_run", "retry", "no_data_backup"])]
    pub resume: bool,
    /// Restore what ran before an update that was interrupted
    #[arg(long, conflicts_with_all = ["dry_run", "retry", "no_data_backup"])]
    pub abort: bool,
    /// Take versions too that an earlier update found bad
    #[arg(long)]
    pub retry: bool,
    /// Leave out the data backup, this once
    #[arg(long)]
    pub no_data_backup: bool,
    /// Restore only the services whose new version fails, and keep the others' (exit 9)
    #[arg(long, conflicts_with_all = ["resume", "abort"])]
    pub keep_going: bool,
    /// Wait this long for the containers to become healthy [default: the manifest's, else 120s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `restore-data`.
#[derive(Debug, Args)]
pub struct RestoreData {
    /// The backup: its name or its file in .version-backups/data/
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub backup: PathBuf,
    /// Whether to ask, and whether to act.
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Keep showing it, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// `logs` and its five narrower names.
#[derive(Debug, Args)]
#[command(
    after_long_help = "A service is Compose's name, or the manifest's, which stands for all \
        Compose services of its \
image. What containers said that are gone is shown from --since or --today on. Ctrl-C ends it \
    with exit code 130.

Examples:
  dkv logs web -n 100          the newest 100 lines, then what follows
  dkv logs --since 2h --errors errors of the last two hours, also of replaced containers"
)]
pub struct Logs {
    /// Which services.
    #[command(flatten)]
    pub services: Services,
    /// Keep showing new lines [default: on a terminal, unless the end is given]
    #[arg(short, long, overrides_with = "no_follow")]
    pub follow: bool,
    /// Stop at the newest line
    #[arg(long, overrides_with = "follow")]
    pub no_follow: bool,
    /// Show this many of the newest lines
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Show lines from this time on: 10m (ago), 2026-01-12, 2026-01-12T12:29:08Z
    #[arg(long, value_name = "TIME", conflicts_with = "today")]
    pub since: Option<Moment>,
    /// Show lines before this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub until: Option<Moment>,
    /// Show today's lines
    #[arg(long)]
    pub today: bool,
    /// Show lines that tell of errors
    #[arg(long)]
    pub errors: bool,
    /// Show lines that match
    #[arg(long, value_name = "PATTERN")]
    pub grep: Option<String>,
    /// Show the databases only
    #[arg(long)]
    pub db: bool,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Look into the registries too
    #[arg(long)]
    pub remote: bool,
}

/// `pin`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  dkv pin --dry-run          show the differences
  dkv pin --check            exit 10 when a file is stale (CI)
  dkv pin --latest           resolve and record first, then write")]
pub struct Pin {
    /// The Compose files [default: all of the directory, and those that they include or extend
    /// inside of it]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Change nothing; exit 10 when a file is stale
    #[arg(long, conflicts_with_all = ["unpin", "latest"])]
    pub check: bool,
    /// Go back to tags
    #[arg(long, conflicts_with = "latest")]
    pub unpin: bool,
    /// Resolve and record the tracked tags first
    #[arg(long)]
    pub latest: bool,
    /// Show the differences, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `migrate-versions`.
#[derive(Debug, Args)]
pub struct MigrateVersions {
    /// Make the Compose files follow versions.env, keeping comments and layout
    #[arg(long)]
    pub write: bool,
    /// Track the image of this Compose service, too, although it does not look like the product's
    #[arg(long, value_name = "COMPOSE_SERVICE")]
    pub track: Vec<String>,
    /// Whether to ask, and whether to act.
    #[command(flatten)]
    pub confirmed: Confirmed,
}

/// `ecr-login`.
#[derive(Debug, Args)]
pub struct EcrLogin {
    /// Log the Docker command line in as well, for other tools
    #[arg(long)]
    pub docker: bool,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// What flags and environment come to; nothing is left to decide again.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The deployment: `-C`, else the directory of `--manifest`, else the current one.
    pub directory: PathBuf,
    /// The manifest of `--manifest`, found from where dkv was started.
    pub manifest: Option<PathBuf>,
    /// Whether results are printed as JSON.
    pub json: bool,
    /// How many images are worked on at once.
    pub jobs: NonZeroUsize,
    /// How long to wait for another dkv.
    pub lock_timeout: Duration,
    /// Who is at work, as far as the environment tells.
    pub user: Option<String>,
    /// What stands in for the clock, in tests.
    pub now: Option<DateTime<Utc>>,
    /// How to talk.
    pub ui: UiSettings,
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    ///
    /// Clap's own, which are also how it answers `--help` and `--version`; each knows where to
    /// print itself and its exit code.
    pub fn read() -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.name = matches.subcommand_name().unwrap_or_default().to_owned();
        Ok(cli)
    }

    /// Whether results are wanted as JSON; known before the settings are, for the failures of
    /// making them.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.global.json
    }

    /// Merges flags and environment.
    ///
    /// # Errors
    ///
    /// When `-C` names no directory, or `DKV_NOW` no time.
    pub fn settings(
        &self,
        environment: &Environment,
        terminals: Terminals,
    ) -> anyhow::Result<Settings> {
        let global = &self.global;
        let now = environment.now().map(|text| parse_now(&text)).transpose()?;
        if let Some(directory) = &global.directory
            && !directory.is_dir()
        {
            return Err(error::usage(format!("there is no directory `{}`", directory.display()))
                .with_hint("-C takes the directory of the deployment")
                .into());
        }
        let manifest = global.manifest.as_ref().map(|manifest| match &global.directory {
            Some(directory) => directory.join(manifest),
            None => manifest.clone(),
        });
        let directory =
            global.directory.clone().or_else(|| Some(manifest.as_ref()?.parent()?.to_path_buf()));
        Ok(Settings {
            directory: directory
                .filter(|path| !path.as_os_str().is_empty())
                .unwrap_or_else(|| PathBuf::from(".")),
            manifest,
            json: global.json,
            jobs: global.jobs,
            lock_timeout: global.lock_timeout,
            user: environment.user(),
            now,
            ui: UiSettings {
                quiet: global.quiet,
                verbosity: global.verbose,
                color: global.color,
                no_color: environment.no_color(),
                dumb: environment.terminal_is_dumb(),
                terminals,
            },
        })
    }
}

fn parse_now(text: &str) -> Result<DateTime<Utc>, error::Error> {
    DateTime::parse_from_rfc3339(text)
        .map(|now| now.to_utc())
        .map_err(|error| error::usage(format!("DKV_NOW is not an RFC 3339 time: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("dkv").chain(line.iter().copied()))
    }

    fn command(line: &str) -> Command {
        match parse(&line.split_whitespace().collect::<Vec<_>>()) {
            Ok(cli) => cli.command,
            Err(error) => panic!("{line}: {error}"),
        }
    }

    fn settings(line: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let environment: Environment =
            variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        parse(line).unwrap().settings(&environment, Terminals::default())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_command_parses() {
        for line in "
            pull; pull a b; pull --keep-going; pull --dry-run a
            pull-latest; pull-latest a b; pull-latest --no-pull; pull-latest --retry --keep-going \
            --dry-run
            version-pull a 1.42; version-pull a 1.42 --no-pull; version-pull a 1.42 --dry-run
            version-set a 1.35-hotfix-customer123; version-set a 1 --reason why --hold --no-pull \
            --dry-run
            unhold a; unhold a --dry-run
            rollback; rollback -y; rollback a b --yes; rollback --dry-run; downgrade; downgrade a -y
            rollback-service a; rollback-service a -y --dry-run; rollback-to a 1.41 -y; \
            rollback-to a 1.41 --dry-run
            resolve-tags; resolve-tags a --dry-run; generate-env; generate-env --dry-run
            version; version a; whatversion; version-history; version-history a; history; history \
            a b
            check-updates; check-updates --exit-code; check-updates a
            up; up --no-wait; up --timeout 60; updb; updb --timeout 1m; down; restart; restart \
            --no-wait; start; stop
            up --dry-run; updb --dry-run; down --dry-run; restart --dry-run; start --dry-run; \
            stop --dry-run
            build; build --dry-run; update; update-build; update --dry-run
            update-safe; upgrade; update-safe --dry-run; update-safe --resume; update-safe --abort
            update-safe --no-data-backup --retry --timeout 120s; restore-data x.tar.zst; \
            restore-data x -y --dry-run
            status; status --watch; info; health
            logs; logs a b; logs -f; logs --follow; logs --no-follow; logs -n 100; logs --tail 5; \
            logs -fn5
            logs --since 10m --until 2026-01-12; logs --today; logs --errors; logs --grep x; logs \
            --db
            logs-today; logs-errors; dblogs; dblogs-today; dblogs-errors; dblogs-errors db -n 5
            verify; verify --remote; pin; pin a.yml b.yml; pin --check; pin --unpin; pin \
            --latest; pin --dry-run
            migrate-versions; migrate-versions --write -y --dry-run; migrate-versions --track db; \
            init; init --yes; prune; prune -y --dry-run
            ecr-login; ecr-login --docker; completions bash; completions zsh; completions fish; \
            man; help-version
        "
        .split([';', '\n'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        {
            let _ = command(line);
        }
    }

    #[test]
    fn usage_errors_are_found_before_anything_happens() {
        for (line, kind) in [
            (&["rollback-service"][..], ErrorKind::MissingRequiredArgument),
            (&["rollback-service", ""], ErrorKind::ValueValidation),
            (&["rollback-to", "a"], ErrorKind::MissingRequiredArgument),
            (&["version-pull", "", "1.42"], ErrorKind::ValueValidation),
            (&["version-pull", "a", ""], ErrorKind::ValueValidation),
            (&["version-pull", "a", "$(touch f)"], ErrorKind::ValueValidation),
            (&["version-history", "a b"], ErrorKind::ValueValidation),
            (&["--jobs", "0", "pull"], ErrorKind::ValueValidation),
            (&["--lock-timeout", "soon", "pull"], ErrorKind::ValueValidation),
            (&["--color", "pink", "pull"], ErrorKind::InvalidValue),
            (&["--manifest", "", "pull"], ErrorKind::InvalidValue),
            (&["pin", "--check", "--unpin"], ErrorKind::ArgumentConflict),
            (&["update-safe", "--resume", "--abort"], ErrorKind::ArgumentConflict),
            (&["up", "--no-wait", "--timeout", "5"], ErrorKind::ArgumentConflict),
            (&["pull-latst"], ErrorKind::InvalidSubcommand),
            (&["pull", "--dryrun"], ErrorKind::UnknownArgument),
            (&[], ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            (&["-q"], ErrorKind::MissingSubcommand),
        ] {
            let error = parse(line).expect_err(&format!("{line:?}"));
            assert_eq!(error.kind(), kind, "{line:?}: {error}");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in [
            &["help"][..],
            &["help", "pull"],
            &["-h"],
            &["pull", "--help"],
            &["-V"],
            &["pull", "-V"],
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line:?}");
        }
    }

    #[test]
    fn typing_errors_are_answered_with_a_suggestion() {
        assert!(parse(&["pull-latst"]).unwrap_err().to_string().contains("pull-latest"));
        assert!(parse(&["pull", "--dryrun"]).unwrap_err().to_string().contains("--dry-run"));
    }

    #[test]
    fn empty_words_name_no_service_and_repeated_ones_name_one() {
        for (line, expected) in
            [(&["version", ""][..], vec![]), (&["version", "b", "", "a", "b"], vec!["b", "a"])]
        {
            let Command::Version(services) = parse(line).unwrap().command else {
                panic!("{line:?}")
            };
            assert_eq!(
                services.names().iter().map(ServiceName::as_str).collect::<Vec<_>>(),
                expected
            );
        }
    }

    #[test]
    fn a_blank_reason_is_none() {
        let reason =
            |text: &str| match parse(&["version-set", "a", "1", "--reason", text]).unwrap().command
            {
                Command::VersionSet(set) => set.reason().map(str::to_owned),
                other => panic!("{other:?}"),
            };
        assert_eq!(reason(""), None);
        assert_eq!(reason(" patch "), Some("patch".to_owned()));
    }

    #[test]
    fn the_last_of_follow_and_no_follow_counts() {
        let Command::Logs(logs) = command("logs -f --no-follow") else { panic!() };
        assert!(logs.no_follow && !logs.follow);
        let Command::Logs(logs) = command("logs --no-follow -f") else { panic!() };
        assert!(logs.follow && !logs.no_follow);
    }

    #[test]
    fn global_options_work_on_both_sides_of_the_command() {
        for line in [
            &[
                "--json",
                "-q",
                "-vv",
                "--color",
                "never",
                "--jobs",
                "3",
                "--lock-timeout",
                "1m",
                "-C",
                "/",
                "--manifest",
                "m",
                "pull",
            ][..],
            &[
                "pull",
                "--json",
                "-q",
                "-vv",
                "--color",
                "never",
                "--jobs",
                "3",
                "--lock-timeout",
                "1m",
                "-C",
                "/",
                "--manifest",
                "m",
            ],
        ] {
            let settings = settings(line, &[]).unwrap();
            assert!(settings.json && settings.ui.quiet, "{line:?}");
            assert_eq!(
                (settings.ui.verbosity, settings.ui.color),
                (2, ColorChoice::Never),
                "{line:?}"
            );
            assert_eq!(
                (settings.jobs.get(), settings.lock_timeout),
                (3, Duration::from_secs(60)),
                "{line:?}"
            );
            assert_eq!(settings.directory, PathBuf::from("/"), "{line:?}");
            assert_eq!(settings.manifest, Some(PathBuf::from("/m")), "{line:?}");
        }
    }

    #[test]
    fn defaults_are_sensible() {
        let settings = settings(&["pull"], &[("SUDO_USER", "alice"), ("NO_COLOR", "1")]).unwrap();
        assert_eq!((settings.jobs.get(), settings.lock_timeout), (8, Duration::from_secs(10)));
        assert_eq!((settings.directory, settings.manifest), (PathBuf::from("."), None));
        assert_eq!((settings.user.as_deref(), settings.now), (Some("alice"), None));
        assert!(settings.ui.no_color && !settings.json);
    }

    #[test]
    fn a_manifest_elsewhere_is_a_deployment_elsewhere() {
        for (manifest, directory) in
            [("m.yaml", "."), ("prod/m.yaml", "prod"), ("/srv/m.yaml", "/srv")]
        {
            let settings = settings(&["--manifest", manifest, "pull"], &[]).unwrap();
            assert_eq!(
                (settings.directory, settings.manifest),
                (directory.into(), Some(manifest.into()))
            );
        }
    }

    #[test]
    fn wrong_directories_and_times_are_usage_errors() {
        let kind = |result: anyhow::Result<Settings>| error::kind(&result.unwrap_err());
        assert_eq!(kind(settings(&["-C", "/nonexistent", "pull"], &[])), error::Kind::Usage);
        assert_eq!(kind(settings(&["pull"], &[("DKV_NOW", "today")])), error::Kind::Usage);
        let now = settings(&["pull"], &[("DKV_NOW", "2026-01-12T13:00:00+01:00")]).unwrap().now;
        assert_eq!(now, Some("2026-01-12T12:00:00Z".parse().unwrap()));
    }

    #[test]
    fn help_lists_every_exit_code() {
        use error::Kind::*;
        for kind in [
            Unexpected,
            Usage,
            State,
            Locked,
            Registry,
            Docker,
            Restored,
            RestoreFailed,
            Partial,
            Different,
            Interrupted,
        ] {
            let start = format!("  {:<4} ", kind.exit_code());
            assert!(help::AFTER_LONG_HELP.lines().any(|line| line.starts_with(&start)), "{kind:?}");
        }
    }

    #[test]
    fn the_readme_describes_the_json_of_every_command() {
        let readme = include_str!("../README.md");
        let (_, section) = readme.split_once("\n### JSON\n").unwrap();
        let rows = section
            .lines()
            .take_while(|line| !line.starts_with('#'))
            .filter(|line| line.starts_with("| `"));
        let first_cells = rows.map(|line| line.split('|').nth(1).unwrap());
        let described: Vec<&str> =
            first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        for command in Cli::command().get_subcommands().map(clap::Command::get_name) {
            let times = described.iter().filter(|name| **name == command).count();
            assert_eq!(times, usize::from(!matches!(command, "completions" | "man")), "{command}");
        }
        assert!(described.len() > 35, "{described:?}");
    }

    #[test]
    fn what_help_version_names_exists() {
        let known = Cli::command();
        let mut named = 0;
        for line in version_help().lines().filter_map(|line| line.strip_prefix("  dkv ")) {
            let name = line.split_whitespace().next().unwrap();
            assert!(known.find_subcommand(name).is_some(), "{name}");
            named += 1;
        }
        assert!(named > 10);
    }

    #[test]
    fn completions_and_manual_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(completions(shell).contains("pull-latest"), "{shell}");
        }
        let page = manual().unwrap();
        assert!(page.starts_with(".ie") || page.contains(".TH dkv 1"));
        assert!(page.contains("Keep `pull\\-latest` from replacing it"), "sections of commands");
    }
}
