//! The only door to the terminal: text, tables, progress, prompts.
//!
//! Results go to standard output, talk to standard error. Whatever comes from outside is sanitised
//! on its way. A reader that went away is no failure and changes nothing that is done; any other
//! failed write is remembered, and [`Ui::finish`] tells.

mod diagnostics;
pub mod format;
mod progress;
mod sanitize;
mod table;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::MultiProgress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

pub use progress::{ItemProgress, Progress};
pub use sanitize::{hide_passwords, sanitize, sanitize_line};
pub use table::{Cell, Style, Table};

use crate::error::{self, Error, Kind};
use crate::interruption::Interruption;

/// How often a question that is open looks whether Ctrl-C has answered it.
const INTERRUPTION_CHECK: Duration = Duration::from_millis(20);

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless the environment says otherwise
    #[default]
    Auto,
    /// Always, in pipes too
    Always,
    /// Never
    Never,
}

/// Which standard streams are terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terminals {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Terminals {
    /// Asks the system.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
        }
    }
}

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UiSettings {
    /// Say nothing but results, warnings and errors.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// When to colour.
    pub color: ColorChoice,
    /// Whether the environment asks for no colour; an explicit `--color always` overrules it.
    pub no_color: bool,
    /// Whether the terminal cannot move its cursor.
    pub dumb: bool,
    /// Which standard streams are terminals.
    pub terminals: Terminals,
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// Results.
    Stdout,
    /// Everything else.
    Stderr,
}

/// The terminal. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Ui {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: UiSettings,
    /// What is drawn in place, once something is.
    bars: OnceLock<MultiProgress>,
    /// The first write that failed.
    failure: Mutex<Option<io::Error>>,
    /// Whether whoever read the results has gone away.
    is_unread: AtomicBool,
    /// Whether the one JSON document of a command is printed.
    is_documented: AtomicBool,
    /// What was warned of, for the reports that programs read.
    warnings: Mutex<Vec<String>>,
    interruption: Interruption,
}

impl Ui {
    /// A terminal that talks as `settings` say.
    #[must_use]
    pub fn new(settings: UiSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                bars: OnceLock::new(),
                failure: Mutex::new(None),
                is_unread: AtomicBool::new(false),
                is_documented: AtomicBool::new(false),
                warnings: Mutex::default(),
                interruption: Interruption::default(),
            }),
        }
    }

    /// Ctrl-C and SIGTERM, for everyone who waits; it also ends a question.
    #[must_use]
    pub fn interruption(&self) -> &Interruption {
        &self.shared.interruption
    }

    /// Whether whoever read standard output has gone away, so that further results are for nobody.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.shared.is_unread.load(Ordering::Relaxed) || has_lost_reader(io::stdout())
    }

    /// Lets everything that is said from now on go into `file`, also by the programs that are
    /// started: the terminal is gone. Where nothing is said to a terminal, nothing changes.
    ///
    /// # Errors
    ///
    /// The system has no more handles.
    pub fn move_into(&self, file: &File) -> io::Result<()> {
        let Terminals { stdout, stderr, .. } = self.shared.settings.terminals;
        if stdout {
            rustix::stdio::dup2_stdout(file)?;
        }
        if stderr {
            rustix::stdio::dup2_stderr(file)?;
        }
        Ok(())
    }

    /// Whether anything is said to a terminal.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        let Terminals { stdout, stderr, .. } = self.shared.settings.terminals;
        stdout || stderr
    }

    /// Which standard streams are terminals.
    #[must_use]
    pub fn terminals(&self) -> Terminals {
        self.shared.settings.terminals
    }

    /// Says what is going on; `-q` hides it.
    pub fn status(&self, message: impl AsRef<str>) {
        if !self.shared.settings.quiet {
            self.talk(&indented(message.as_ref()));
        }
    }

    /// Says that a step was taken: a verb that stands out, and its object. `-q` hides it.
    pub fn step(&self, verb: &str, message: impl AsRef<str>) {
        if !self.shared.settings.quiet {
            self.act(verb, Style::Green, message.as_ref());
        }
    }

    /// Says something that is good to know; `-q` hides it.
    pub fn note(&self, message: impl AsRef<str>) {
        if !self.shared.settings.quiet {
            self.say("note", Style::Cyan, message.as_ref(), ": ");
        }
    }

    /// Says what to do next; `-q` hides it.
    pub fn hint(&self, message: impl AsRef<str>) {
        if !self.shared.settings.quiet {
            self.say("hint", Style::Cyan, message.as_ref(), ": ");
        }
    }

    /// Warns, also with `-q`.
    pub fn warn(&self, message: impl AsRef<str>) {
        let message = message.as_ref();
        self.say("warning", Style::Yellow, message, ": ");
        let mut warnings = self.shared.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(hide_passwords(&sanitize(message)).into_owned());
    }

    /// What was warned of so far.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.shared.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports a failure: what failed, the causes that add something, and what to do next.
    pub fn error(&self, error: &anyhow::Error) {
        let mut causes = distinct_causes(error).into_iter();
        self.say("error", Style::Red, &causes.next().unwrap_or_default(), ": ");
        for cause in causes {
            self.talk(&format!("  caused by: {}", indented(&cause)));
        }
        if let Some(hint) = error::find(error).and_then(error::Error::hint) {
            self.say("hint", Style::Cyan, hint, ": ");
        }
    }

    /// Prints a result; the line break at its end is added if it is missing.
    pub fn data(&self, text: impl AsRef<str>) {
        let mut text = hide_passwords(&sanitize(text.as_ref())).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.write(Stream::Stdout, &text);
    }

    /// Prints one line of a result, made of pieces.
    pub fn data_line(&self, pieces: &[Cell]) {
        let color = self.colored(Stream::Stdout);
        let line: String = pieces.iter().map(|piece| piece.render(color)).collect();
        self.write(Stream::Stdout, &(line + "\n"));
    }

    /// Prints a value as one line of JSON, for results that come one by one.
    ///
    /// # Errors
    ///
    /// When the value has no JSON form.
    pub fn json_line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value)?;
        self.write(Stream::Stdout, &(escape_unsafe(&text) + "\n"));
        Ok(())
    }

    /// Prints a table as a result.
    pub fn table(&self, table: &Table) {
        let color = self.colored(Stream::Stdout);
        let text: String = table.lines(color).into_iter().map(|line| line + "\n").collect();
        self.write(Stream::Stdout, &hide_passwords(&text));
    }

    /// Prints a result as JSON.
    ///
    /// # Errors
    ///
    /// When the value has no JSON form.
    pub fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = escape_unsafe(&serde_json::to_string_pretty(value)?);
        self.write(Stream::Stdout, &(hide_passwords(&text) + "\n"));
        self.shared.is_documented.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`Self::json`] has printed a document: a command prints one, also when it fails.
    #[must_use]
    pub fn is_documented(&self) -> bool {
        self.shared.is_documented.load(Ordering::Relaxed)
    }

    /// Whether there is a terminal to ask on.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        let Terminals { stdin, stderr, .. } = self.shared.settings.terminals;
        stdin && stderr
    }

    /// Asks before something is changed. No terminal to ask on is a usage error that names
    /// `command`.
    ///
    /// # Errors
    ///
    /// When there is no terminal, or it cannot be read.
    pub fn confirm(&self, question: &str, assume_yes: bool, command: &str) -> anyhow::Result<bool> {
        if assume_yes {
            return Ok(true);
        }
        let answer = self.prompt(&format!("{question} [y/N] "), command)?;
        Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for a value; Enter takes the default, and so does `assume_yes`.
    ///
    /// # Errors
    ///
    /// When there is no terminal, or it cannot be read.
    pub fn ask(
        &self,
        question: &str,
        default: &str,
        assume_yes: bool,
        command: &str,
    ) -> anyhow::Result<String> {
        if assume_yes {
            return Ok(default.to_owned());
        }
        let answer = self.prompt(&format!("{question} [{default}] "), command)?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    /// Shows a question and reads the line that answers it.
    fn prompt(&self, question: &str, command: &str) -> anyhow::Result<String> {
        if !self.can_ask() {
            let message = format!(
                "`dkv {command}` asks before it changes anything, and there is no terminal to ask \
                    on"
            );
            return Err(error::usage(message)
                .with_hint("pass --yes to go ahead without being asked")
                .into());
        }
        self.suspended(|| {
            self.write_now(Stream::Stderr, &hide_passwords(&sanitize(question)));
            let answer = self.read_answer();
            if !matches!(&answer, Ok(answer) if answer.ends_with('\n')) {
                // What ends a question without a line leaves the cursor behind it.
                self.write_now(Stream::Stderr, "\n");
            }
            Ok(answer?.trim().to_owned())
        })
    }

    /// Reads a line, unless Ctrl-C comes first: once a program listens for signals itself, they no
    /// longer end it while it waits here.
    fn read_answer(&self) -> anyhow::Result<String> {
        let (sender, answer) = mpsc::channel();
        // A thread of its own, which ends with the process if nobody answers.
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = io::stdin().read_line(&mut line);
            let _ = sender.send(read.map(|_| line));
        });
        loop {
            match answer.recv_timeout(INTERRUPTION_CHECK) {
                Ok(answer) => return Ok(answer?),
                Err(RecvTimeoutError::Disconnected) => return Ok(String::new()),
                Err(RecvTimeoutError::Timeout) if self.shared.interruption.is_raised() => {
                    return Err(
                        Error::new(Kind::Interrupted, "interrupted; nothing was changed").into()
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Tells whether everything could be printed.
    ///
    /// # Errors
    ///
    /// The first write that failed, unless its reader had just gone away.
    pub fn finish(&self) -> io::Result<()> {
        self.shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map_or(Ok(()), Err)
    }

    /// Whether to colour what goes to `stream`.
    fn colored(&self, stream: Stream) -> bool {
        let UiSettings { color, no_color, terminals, .. } = self.shared.settings;
        match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                !no_color
                    && if stream == Stream::Stdout { terminals.stdout } else { terminals.stderr }
            }
        }
    }

    /// Whether lines on standard error can be drawn again in place.
    fn redraws(&self) -> bool {
        let UiSettings { dumb, terminals, .. } = self.shared.settings;
        terminals.stderr && !dumb
    }

    /// A verb and its object. Verbs line up where people watch; elsewhere they are plain, for those
    /// who search.
    fn act(&self, verb: &str, style: Style, object: &str) {
        let verb = if self.shared.settings.terminals.stderr {
            format!("{verb:>10}")
        } else {
            verb.to_owned()
        };
        self.say(&verb, style, object, " ");
    }

    /// A message behind a label.
    fn say(&self, label: &str, style: Style, message: &str, separator: &str) {
        let label = style.paint(&sanitize_line(label), self.colored(Stream::Stderr));
        self.talk(&format!("{label}{separator}{}", indented(message)));
    }

    /// Writes a line to standard error.
    fn talk(&self, line: &str) {
        self.write(Stream::Stderr, &format!("{line}\n"));
    }

    /// Writes text that is sanitised already, around what is drawn in place.
    fn write(&self, stream: Stream, text: &str) {
        self.suspended(|| self.write_now(stream, text));
    }

    /// Runs `work` while nothing is drawn in place.
    fn suspended<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.shared.bars.get() {
            Some(bars) => bars.suspend(work),
            None => work(),
        }
    }

    fn write_now(&self, stream: Stream, text: &str) {
        #[cfg(test)]
        if crate::simulation::say(text) {
            return;
        }
        let result = match stream {
            Stream::Stdout => write_all(io::stdout().lock(), text),
            Stream::Stderr => write_all(io::stderr().lock(), text),
        };
        let Err(error) = result else { return };
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.shared.is_unread.fetch_or(stream == Stream::Stdout, Ordering::Relaxed);
        } else {
            self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// Whether a pipe's reading end is closed, as poll(2) reports it to the writing end.
fn has_lost_reader(stream: impl AsFd) -> bool {
    let mut streams = [PollFd::new(&stream, PollFlags::empty())];
    poll(&mut streams, Some(&Timespec::default())).is_ok()
        && streams[0].revents().contains(PollFlags::ERR)
}

fn write_all(mut stream: impl io::Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// The message for a terminal, without passwords; lines behind its first are indented, so that none can pass for a message
/// of its own.
fn indented(message: &str) -> String {
    hide_passwords(&sanitize(message.trim_end())).replace('\n', "\n  ")
}

/// The messages of a chain, without those that the one before has spelled out already.
fn distinct_causes(error: &anyhow::Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !causes.last().is_some_and(|last| last.contains(&cause)) {
            causes.push(cause);
        }
    }
    causes
}

/// JSON text with every character that a terminal might act on as `\u` escape; they can only stand
/// in strings.
fn escape_unsafe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if sanitize::is_unsafe(character) {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// A number of bytes as people read it: `12.34 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn without_a_terminal_nothing_is_asked() {
        let ui = Ui::new(UiSettings::default());
        assert!(ui.confirm("Roll back?", true, "rollback").unwrap());
        assert_eq!(ui.ask("Tag?", "1.42", true, "migrate-versions").unwrap(), "1.42");
        for error in [
            ui.confirm("Roll back?", false, "rollback").unwrap_err(),
            ui.ask("Tag?", "1.42", false, "rollback").unwrap_err(),
        ] {
            assert_eq!(error::kind(&error), error::Kind::Usage);
            assert!(error.to_string().starts_with("`dkv rollback` asks"), "{error}");
            assert!(error::find(&error).unwrap().hint().unwrap().contains("--yes"));
        }
        for terminals in [
            Terminals { stdin: true, ..Terminals::default() },
            Terminals { stderr: true, ..Terminals::default() },
        ] {
            let ui = Ui::new(UiSettings { terminals, ..UiSettings::default() });
            assert!(ui.confirm("Roll back?", false, "rollback").is_err());
        }
    }

    #[test]
    fn colour_follows_flag_environment_and_terminal() {
        use ColorChoice::{Always, Auto, Never};
        let terminal = Terminals { stdout: true, ..Terminals::default() };
        for (color, no_color, terminals, expected) in [
            (Auto, false, terminal, true),
            (Auto, true, terminal, false),
            (Auto, false, Terminals::default(), false),
            (Always, true, Terminals::default(), true),
            (Never, false, terminal, false),
        ] {
            let ui = Ui::new(UiSettings { color, no_color, terminals, ..UiSettings::default() });
            assert_eq!(ui.colored(Stream::Stdout), expected, "{color:?} {no_color} {terminals:?}");
            assert_eq!(ui.colored(Stream::Stderr), color == Always);
        }
    }

    #[test]
    fn causes_are_told_once() {
        let chain = |result: anyhow::Result<()>| distinct_causes(&result.unwrap_err());
        let error = anyhow::anyhow!("no such file")
            .context("cannot read `m.yaml`: no such file")
            .context("cannot pull");
        assert_eq!(chain(Err(error)), ["cannot pull", "cannot read `m.yaml`: no such file"]);
        let error = Err(anyhow::anyhow!("refused")).context("cannot connect");
        assert_eq!(chain(error), ["cannot connect", "refused"]);
    }

    #[test]
    fn further_lines_of_a_message_cannot_pass_for_others() {
        assert_eq!(
            indented("pull failed\nwarning: \u{1b}[31mforged\n"),
            "pull failed\n  warning: forged"
        );
    }

    #[test]
    fn json_stays_the_same_value_and_loses_its_teeth() {
        let value = serde_json::json!({"text": "\u{1b}[31m \u{9b}2J \u{202e} é ✓"});
        let text = escape_unsafe(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.contains(sanitize::is_unsafe), "{text:?}");
        assert!(text.contains("é ✓"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_closed_pipe_is_noticed_before_it_is_written_to() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!has_lost_reader(&writer));
        drop(reader);
        assert!(has_lost_reader(&writer));
        assert!(!has_lost_reader(tempfile::tempfile().unwrap()));
    }

    #[test]
    fn a_ui_can_be_shared_between_threads() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Ui>();
    }
}
