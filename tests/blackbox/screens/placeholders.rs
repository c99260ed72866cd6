//! What differs from run to run, and what stands for it.

use std::cmp::Reverse;
use std::collections::HashMap;

use regex_lite::{Captures, Regex};

/// What is measured or counted by a clock, as patterns, and what stands for it. Columns keep their
/// places: what may be of another length takes the blanks behind it along.
const MEASURED: [(&str, &str); 11] = [
    // The column of ages in the table of `status`.
    (r"SINCE(\S*) +(\S*)RESTARTS", "SINCE$1  ${2}RESTARTS"),
    (r"(just now|\b\d+ (second|minute)s? ago) +", "[age]  "),
    // Compose, on a terminal.
    (r" +\d+\.\d+s ¶?$", "  [duration]"),
    (r"\baway for \d.*$", "away for [duration]"),
    (r#""downtime_seconds": \d[\d.]*"#, r#""downtime_seconds": [seconds]"#),
    (r"\bfailures in a row: \d+", "failures in a row: [count]"),
    (r"^\d\d:\d\d:\d\d ", "[time] "),
    // How large archives and backups are, with all the names in them.
    (r" +\d[\d.]* [KMGT]?i?B {2}", "      [size]  "),
    (r"\.(zst|dump) \(\d[\d.]* [KMGT]?i?B\)", ".$1 ([size])"),
    (r#""(size|stored_bytes)": \d+"#, r#""$1": [bytes]"#),
    // A keep-tag is named after the deployment's place.
    (r"\bdkv-[0-9a-f]{8}-", "dkv-[deployment]-"),
];

/// Times of a story begin with this; all others are the machine's.
const STORY: &str = "2026-01-";

/// Replaces what differs from run to run; everything else stays literally.
pub struct Placeholders {
    /// Texts and what stands for them.
    words: Vec<(String, String)>,
    /// The first twelve digits of a digest or an image ID, and its name.
    digests: HashMap<String, String>,
    /// How many digests were seen that nobody had named.
    unnamed: usize,
    measured: Vec<(Regex, &'static str)>,
    time: Regex,
    digest: Regex,
}

impl Placeholders {
    pub fn new() -> Self {
        let pattern = |text: &str| Regex::new(text).expect("a pattern");
        Self {
            words: Vec::new(),
            digests: HashMap::new(),
            unnamed: 0,
            measured: MEASURED.map(|(text, placeholder)| (pattern(text), placeholder)).into(),
            time: pattern(r"\b(\d{4}-\d\d-)\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
            digest: pattern(r"\b([0-9a-f]{12})([0-9a-f]{52})?\b"),
        }
    }

    /// Shows `placeholder` wherever `text` stands.
    pub fn word(&mut self, text: impl Into<String>, placeholder: impl Into<String>) {
        self.words.push((text.into(), placeholder.into()));
        // The more particular first: a directory before the one that it is in.
        self.words.sort_by_key(|(text, _)| Reverse(text.len()));
    }

    /// Calls a digest or an image ID by a name.
    pub fn digest(&mut self, digest: &str, name: &str) {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        self.digests.entry(hex[..12].to_owned()).or_insert_with(|| name.to_owned());
    }

    /// A line without what is measured, which may be of another length in each run.
    pub fn unmeasured(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (pattern, placeholder) in &self.measured {
            line = pattern.replace_all(&line, *placeholder).into_owned();
        }
        let time = |found: &Captures<'_>| match found[1].starts_with(STORY) {
            true => found[0].to_owned(),
            false => "[time]".to_owned(),
        };
        self.time.replace_all(&line, time).into_owned()
    }

    /// A line as it is in every run.
    pub fn apply(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        for (word, placeholder) in &self.words {
            line = line.replace(word.as_str(), placeholder);
        }
        let line = self.unmeasured(&line);
        let (digests, unnamed) = (&mut self.digests, &mut self.unnamed);
        let name = |found: &Captures<'_>| {
            let name = digests.entry(found[1].to_owned()).or_insert_with(|| {
                *unnamed += 1;
                format!("digest {unnamed}")
            });
            // As wide as the digits, for the sake of tables.
            if found.get(2).is_some() { format!("[{name}]") } else { format!("[{name:_<10}]") }
        };
        self.digest.replace_all(&line, name).into_owned()
    }
}
