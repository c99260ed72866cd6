//! Texts about the command line itself: help, completions, the manual page.

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

pub(super) const AFTER_HELP: &str = "\
Run `dkv help COMMAND` for one command, `dkv help-version` for the version commands with examples.";

pub(super) const AFTER_LONG_HELP: &str = "\
Run `dkv help COMMAND` for one command, `dkv help-version` for the version commands with examples.

Exit codes:
  0    done
  1    unexpected failure
  2    usage: flags, an unknown service, a malformed tag, an unanswered question
  3    state: the manifest, versions.env, the disk, an unfinished update
  4    another dkv holds the lock
  5    registry: unreachable, refused, no such tag
  6    Docker or Compose
  7    the update failed; the previous versions are restored and healthy
  8    the update failed, and so did the restore
  9    partly done: some services failed or are unknown
  10   updates are available (`--exit-code`), or there is drift
  130  interrupted";

/// The completion script of `shell`.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dkv", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page, dkv(1), as roff. Every command has its section, because pages of their own
/// would have to be installed one by one.
///
/// # Errors
///
/// None that can happen: the page is written to memory.
pub fn manual() -> std::io::Result<String> {
    let command = Cli::command();
    let mut page = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(".SH COMMANDS\n");
    for subcommand in command.get_subcommands() {
        page.push_str(&section(subcommand)?);
    }
    let mut end = Vec::new();
    whole.render_extra_section(&mut end)?;
    whole.render_version_section(&mut end)?;
    Ok(page + &String::from_utf8_lossy(&end).replacen(".SH EXTRA", ".SH NOTES", 1))
}

/// One command's part of the manual page: a heading of the second level, without headings of its
/// own.
fn section(subcommand: &clap::Command) -> std::io::Result<String> {
    let name = subcommand.get_name();
    let man = Man::new(subcommand.clone().bin_name(format!("dkv {name}")).disable_help_flag(true));
    let mut roff = Vec::new();
    man.render_synopsis_section(&mut roff)?;
    man.render_description_section(&mut roff)?;
    if subcommand.get_arguments().next().is_some() {
        man.render_options_section(&mut roff)?;
    }
    if subcommand.get_after_long_help().is_some() {
        man.render_extra_section(&mut roff)?;
    }
    let mut text = String::new();
    for line in String::from_utf8_lossy(&roff).lines() {
        match line.strip_prefix(".SH ") {
            Some("SYNOPSIS") => text.push_str(&format!(".SS {}", name.replace('-', "\\-"))),
            Some(_) => text.push_str(".PP"),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    for alias in subcommand.get_visible_aliases() {
        text.push_str(&format!(".PP\nAlias: \\fB{}\\fR\n", alias.replace('-', "\\-")));
    }
    Ok(text)
}
