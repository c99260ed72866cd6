//! A command line that cannot be read, for programs: what clap says as text, as the document of a
//! failure.

use std::ffi::OsString;

use clap::{Arg, ArgAction, CommandFactory as _};

use super::Cli;
use crate::error::{self, Error};
use crate::ui;

/// How paragraphs begin in which clap only says where to read more.
const ADVICE: [&str; 2] = ["Usage:", "For more information"];

/// A command line that cannot be read.
#[derive(Debug)]
pub struct FailedParse {
    /// The command's full name; empty if the line names none.
    pub command: String,
    /// What is wrong with it.
    pub error: Error,
}

/// What to print as JSON about a command line (without the program's name) that clap refused;
/// `None` if it does not ask for JSON, or if it only asked for help.
#[must_use]
pub fn failed_parse(
    error: &clap::Error,
    args: impl IntoIterator<Item = OsString>,
) -> Option<FailedParse> {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .take_while(|arg| arg != "--")
        .collect();
    if !error.use_stderr() || !args.iter().any(|arg| arg == "--json") {
        return None;
    }
    let command = command(&args);
    let text = error.render().to_string();
    let paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    let mut message = String::new();
    let mut tip = None;
    for paragraph in paragraphs {
        match paragraph.strip_prefix("tip: ") {
            Some(text) => tip = tip.or_else(|| Some(text.to_owned())),
            None if ADVICE.iter().any(|start| paragraph.starts_with(start)) => {}
            None => message = format!("{message} {paragraph}").trim().to_owned(),
        }
    }
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let help = if command.is_empty() {
        "`dkv help` lists the commands".to_owned()
    } else {
        format!("see `dkv help {command}`")
    };
    Some(FailedParse { error: error::usage(message).with_hint(tip.unwrap_or(help)), command })
}

/// The words of a command line, the program's name first, as clap is to read them: its `help` takes
/// `--help` for the name of a command.
#[must_use]
pub fn readable(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let is_help = |word: &OsString| word == "--help" || word == "-h";
    if args.iter().any(|word| word == "help") && args.iter().any(is_help) {
        let words = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
        if command(&words.collect::<Vec<_>>()) == "help" {
            args.retain(|word| !is_help(word));
        }
    }
    args
}

/// The most characters of a word of the command line that are said back.
const WORD_CHARACTERS: usize = 200;

/// The words of a command line that clap refused, as they can be said back: clap quotes them.
#[must_use]
pub fn speakable(args: Vec<OsString>) -> Vec<OsString> {
    args.iter().map(|word| one_line(&word.to_string_lossy(), WORD_CHARACTERS).into()).collect()
}

/// `text` as one line without control characters, cut to so many characters.
#[must_use]
pub(super) fn one_line(text: &str, characters: usize) -> String {
    let line = ui::sanitize_line(text);
    let mut cut: String = line.trim().chars().take(characters).collect();
    if cut.len() < line.trim().len() {
        cut.push('…');
    }
    cut
}

/// The full name of the command that the line names: its first word that is neither an option nor
/// the value of one.
fn command(args: &[String]) -> String {
    let mut known = Cli::command();
    known.build();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if known.get_arguments().any(|option| is_before_value(word, option)) {
            words.next();
        } else if !word.starts_with('-') {
            return known
                .find_subcommand(word)
                .map(|command| command.get_name().to_owned())
                .unwrap_or_default();
        }
    }
    String::new()
}

/// Whether `word` is this option, and the next word its value.
fn is_before_value(word: &str, option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set)
        && match word.strip_prefix("--") {
            Some(long) => option.get_long() == Some(long),
            None => option.get_short().is_some_and(|short| word.chars().eq(['-', short])),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Command, message and hint of the document for a line that cannot be read.
    fn failed(line: &str) -> Option<(String, String, String)> {
        let args = || line.split_whitespace().map(OsString::from);
        let error = clap::Parser::try_parse_from(std::iter::once("dkv".into()).chain(args()))
            .map(|_: Cli| ())
            .unwrap_err();
        let failed = failed_parse(&error, args())?;
        assert_eq!(failed.error.kind(), error::Kind::Usage);
        Some((
            failed.command,
            failed.error.to_string(),
            failed.error.hint().unwrap_or_default().to_owned(),
        ))
    }

    #[test]
    fn a_line_that_asks_for_json_fails_with_a_document() {
        for (line, command, message, hint) in [
            (
                "--json rollback-service",
                "rollback-service",
                "<SERVICE>",
                "dkv help rollback-service",
            ),
            (
                "rollback-to a --json",
                "rollback-to",
                "required arguments were not provided",
                "dkv help",
            ),
            ("pull-latst --json", "", "'pull-latst'", "'pull-latest'"),
            ("-C --x pull --json", "pull", "'--x'", "dkv help"),
            ("-C pull history a!b --json", "version-history", "a!b", "dkv help version-history"),
            ("pull --jobs 0 --json", "pull", "'0'", "dkv help pull"),
            ("up --dryrun --json", "up", "'--dryrun'", "'--dry-run'"),
            ("--json", "", "subcommand", "dkv help"),
        ] {
            let Some(found) = failed(line) else { panic!("{line}") };
            assert_eq!(found.0, command, "{line}");
            assert!(found.1.contains(message) && found.2.contains(hint), "{line}: {found:?}");
            assert!(
                !found.1.contains("error:")
                    && !found.1.contains("Usage:")
                    && !found.1.contains('\n'),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn help_explains_itself() {
        for (line, read) in [
            ("dkv help --help", "dkv help"),
            ("dkv -C x help pull -h", "dkv -C x help pull"),
            ("dkv pull --help", "dkv pull --help"),
            ("dkv -C help pull --help", "dkv -C help pull --help"),
            ("dkv --help", "dkv --help"),
        ] {
            let found = readable(line.split_whitespace().map(OsString::from));
            assert_eq!(found.join(" ".as_ref()), OsString::from(read), "{line}");
        }
    }

    #[test]
    fn other_lines_fail_as_text_and_help_is_no_failure() {
        for line in [
            "rollback-service",
            "pull-latst",
            "logs --grepp x -- --json",
            "pull --help --json",
            "--version --json",
        ] {
            assert_eq!(failed(line), None, "{line}");
        }
    }
}
