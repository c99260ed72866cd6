//! The command line: clap types, and the one place where flags, environment and defaults become
//! settings.

mod environment;
mod help;
mod parse;
mod values;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser};

pub use environment::Environment;
pub use help::{completions, manual};
pub use parse::failed_parse;
pub use values::{Moment, TagOrDigest, duration, platform, service_or_nothing};
use values::{jobs, some_time};

use crate::commands::Command;
use crate::error;
use crate::model::operation;
use crate::store::{self, Kind};
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
    /// The arguments as they were given, without secrets.
    #[arg(skip)]
    arguments: Vec<String>,
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
    #[arg(long, global = true, value_name = "N", value_parser = jobs, default_value = "8")]
    jobs: NonZeroUsize,

    /// Wait this long for another dkv to finish
    ///
    /// Seconds, or a number with a unit: 10, 10s, 1m.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = duration, default_value = "10")]
    lock_timeout: Duration,

    /// Give one registry this much of a command's time, all its requests together
    ///
    /// Seconds, or a number with a unit: 60, 2m.
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        value_parser = some_time,
        default_value = "60"
    )]
    registry_timeout: Duration,
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
    /// How long one registry may take, all that it is asked together.
    pub registry_timeout: Duration,
    /// Who is at work, as far as the environment tells.
    pub user: Option<String>,
    /// The machine's name.
    pub host: String,
    /// The arguments of this run, without secrets, for those who read later what was done.
    pub arguments: Vec<String>,
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
        let args = parse::readable(std::env::args_os());
        let matches = Self::command().try_get_matches_from(&args).map_err(|error| {
            let speakable = Self::command().try_get_matches_from(parse::speakable(args));
            speakable.err().unwrap_or(error)
        })?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.name = matches.subcommand_name().unwrap_or_default().to_owned();
        let given = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        cli.arguments = operation::without_secrets(given);
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
        check_time_zone(environment)?;
        if let Some(directory) = &global.directory
            && store::look(directory)? != Some(Kind::Directory)
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
            registry_timeout: global.registry_timeout,
            user: environment.user(),
            host: Environment::host(),
            arguments: self.arguments.clone(),
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

/// Where time zones are looked for by their names.
const ZONES: [&str; 4] =
    ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo", "/usr/share/lib/zoneinfo"];

/// Refuses a `TZ` that names something that could be read for ever: whoever asks for the local time
/// opens what it names.
fn check_time_zone(environment: &Environment) -> Result<(), error::Error> {
    let Some(zone) = environment.path("TZ") else { return Ok(()) };
    let text = zone.to_string_lossy();
    let name = text.strip_prefix(':').unwrap_or(&text);
    let found = ZONES.iter().map(|place| PathBuf::from(place).join(name));
    let is_strange = |path: PathBuf| matches!(store::look(&path), Ok(Some(Kind::Other)));
    match found.into_iter().any(is_strange) {
        true => Err(error::usage(format!("TZ names no time zone: `{text}` is not a file"))
            .with_hint("name one, such as Europe/Berlin, or unset it")),
        false => Ok(()),
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

    use clap_complete::Shell;

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
            rollback --all; rollback a --apply -y --timeout 60s; rollback-service a --apply
            rollback-to a 1 --apply --no-data-backup; undo --apply; redo --apply --dry-run
            update-safe a b; update-safe a --to 1.42 --timeout 60s
            undo; undo 3 -y; undo --dry-run; redo; redo -y --dry-run; operations; operations --all
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
            (&["--registry-timeout", "0", "pull"], ErrorKind::ValueValidation),
            (&["--lock-timeout", "soon", "pull"], ErrorKind::ValueValidation),
            (&["--color", "pink", "pull"], ErrorKind::InvalidValue),
            (&["--manifest", "", "pull"], ErrorKind::InvalidValue),
            (&["pin", "--check", "--unpin"], ErrorKind::ArgumentConflict),
            (&["pin", "--latest", "--platform", "nonsense"], ErrorKind::ValueValidation),
            (&["pull-latest", "--no-pull", "--platform", "x/y"], ErrorKind::ValueValidation),
            (&["pull-latest", "--platform", "linux/arm64"], ErrorKind::MissingRequiredArgument),
            (&["update-safe", "--resume", "--abort"], ErrorKind::ArgumentConflict),
            (&["update-safe", "--to", "1"], ErrorKind::MissingRequiredArgument),
            (&["update-safe", "a", "--resume"], ErrorKind::ArgumentConflict),
            (&["rollback", "--timeout", "60s"], ErrorKind::MissingRequiredArgument),
            (&["rollback", "--all", "a"], ErrorKind::ArgumentConflict),
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
            assert_eq!(
                times,
                usize::from(!matches!(command, "completions" | "man" | "compose")),
                "{command}"
            );
        }
        assert!(described.len() > 35, "{described:?}");
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
