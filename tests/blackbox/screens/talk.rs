//! What was said, so that it is the same in every run.

use std::num::NonZero;
use std::sync::LazyLock;

use regex_lite::Regex;

/// How wide terminals are here.
pub const COLUMNS: NonZero<u16> = NonZero::new(80).unwrap();

/// More lines than any command prints, so that none leaves the screen.
const ROWS: NonZero<u16> = NonZero::new(1_000).unwrap();

/// The table of containers that become healthy, as it is told in a pipe: those on their way up are
/// only there if somebody looked at the right moment.
static WAITING: LazyLock<Regex> =
    LazyLock::new(|| pattern("^\\S+ {2,}(starting: |unhealthy|running, not yet )"));

/// The beginning of a colour, and its end.
static COLOUR: LazyLock<Regex> = LazyLock::new(|| pattern("\u{1b}\\[([0-9;]*)m"));

/// What others than dkv say, and dkv of what others do.
#[derive(Clone, Copy, PartialEq)]
enum Chatter {
    /// Compose of one of its objects, in whatever order they come.
    Objects,
    /// The table of containers that become healthy, in whatever order they do.
    Containers,
    /// A build.
    Build,
}

static CHATTER: LazyLock<[(Chatter, Regex); 3]> = LazyLock::new(|| {
    [
        (Chatter::Objects, pattern("^ (. )?(Container|Network|Volume|Image) +\\S+")),
        (Chatter::Containers, pattern("^\\S+ {2,}.*")),
        (
            Chatter::Build,
            pattern("^#\\d+ .*|^time=.*|^-{6}$|^ > \\[.*|^failed to solve.*|^ \\S+  Built"),
        ),
    ]
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// Standard error in an order that does not depend on who was faster.
pub fn steady(stderr: &str) -> Vec<String> {
    let lines = stderr.lines().filter(|line| !WAITING.is_match(line));
    ordered(lines, |_| true)
}

/// What a terminal shows in the end, without the borders at which it breaks lines, and ordered as
/// well. Tables look like those of containers, and stay as they are.
pub fn screen(output: &str) -> Vec<String> {
    let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
    terminal.process(output.as_bytes());
    let screen = terminal.screen();
    let mut text = String::new();
    for (number, row) in (0..).zip(screen.rows(0, COLUMNS.get())) {
        text.push_str(&row);
        if !screen.row_wrapped(number) {
            text.push('\n');
        }
    }
    ordered(text.trim_end_matches('\n').lines(), |chatter| chatter != Chatter::Containers)
}

/// Lines, with those of each block of chatter sorted and told once, and builds left out.
fn ordered<'a>(
    lines: impl Iterator<Item = &'a str>,
    is_expected: impl Fn(Chatter) -> bool,
) -> Vec<String> {
    let mut ordered = Vec::new();
    let mut block: Vec<(&str, &str)> = Vec::new();
    let mut before = None;
    for line in lines {
        let (chatter, about) = match chatter(line).filter(|(chatter, _)| is_expected(*chatter)) {
            // Builds have empty lines in between.
            None if line.is_empty() && before == Some(Chatter::Build) => (before, line),
            None => (None, line),
            Some((chatter, about)) => (Some(chatter), about),
        };
        if chatter != before {
            settle(&mut block, &mut ordered);
        }
        match chatter {
            None => ordered.push(line.to_owned()),
            Some(Chatter::Build) if before == chatter => {}
            Some(Chatter::Build) => ordered.push("[what a build says]".to_owned()),
            Some(_) => block.push((about, line)),
        }
        before = chatter;
    }
    settle(&mut block, &mut ordered);
    ordered
}

/// Which chatter a line is of, if any, and what it is about.
fn chatter(line: &str) -> Option<(Chatter, &str)> {
    CHATTER.iter().find_map(|(chatter, pattern)| Some((*chatter, pattern.find(line)?.as_str())))
}

fn settle(block: &mut Vec<(&str, &str)>, ordered: &mut Vec<String>) {
    block.sort_by_key(|(about, _)| *about);
    block.dedup();
    ordered.extend(block.drain(..).map(|(_, line)| line.to_owned()));
}

/// A line with blanks at its end, colours and control characters for all to see.
pub fn visible(line: &str) -> String {
    let line = COLOUR.replace_all(line, "«$1»");
    let end = if line.ends_with(char::is_whitespace) { "¶" } else { "" };
    line.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .chain([end.to_owned()])
        .collect()
}
