//! The fuzz targets on their corpus and on some thousand mutations of it, the same ones each time.
//! `tests/fuzz/run.sh` is the long run, guided by coverage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

mod targets;

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use targets::Target;

/// How long one input may take. They take microseconds, but the machine may be busy.
const TIME_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn manifests() {
    check("manifest", 600);
}

#[test]
fn references() {
    check("reference", 5_000);
}

#[test]
fn links() {
    check("link", 5_000);
}

#[test]
fn challenges() {
    check("challenge", 5_000);
}

#[test]
fn docker_configs() {
    check("docker-config", 5_000);
}

#[test]
fn every_target_has_a_test_and_a_corpus() {
    let directories: Vec<String> = entries(&home().join("corpus"));
    let mut names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(directories, names);
    let source = fs::read_to_string(home().join("main.rs")).unwrap();
    assert!(names.iter().all(|name| source.contains(&format!("check({name:?}, "))), "{names:?}");
}

#[test]
fn memory_is_bounded() {
    assert!(Vec::<u8>::new().try_reserve_exact(targets::MEMORY_LIMIT + 1).is_err());
}

/// Runs a target on its corpus and on so many mutations.
fn check(name: &str, mutations: usize) {
    let target: &'static Target =
        targets::ALL.iter().find(|target| target.name == name).expect("a target");
    let directory = home().join("corpus").join(name);
    let corpus: Vec<Vec<u8>> =
        entries(&directory).iter().map(|file| fs::read(directory.join(file)).unwrap()).collect();
    let mut mutator = Mutator::new(corpus.clone());
    let mutants = std::iter::repeat_with(move || mutator.next()).take(mutations);
    let (begin, begun) = mpsc::channel();
    let worker = thread::spawn(move || {
        for input in corpus.into_iter().chain(mutants) {
            begin.send(input.clone()).expect("the test waits");
            (target.run)(&input);
        }
    });
    let mut last = Vec::new();
    loop {
        match begun.recv_timeout(TIME_LIMIT) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{name} takes longer than {TIME_LIMIT:?} for b\"{}\"", last.escape_ascii())
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    assert!(worker.join().is_ok(), "{name} fails for b\"{}\"", last.escape_ascii());
}

/// Inputs made from others: bytes changed, parts removed, repeated and exchanged, words put in.
struct Mutator {
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    state: u64,
}

impl Mutator {
    fn new(corpus: Vec<Vec<u8>>) -> Self {
        let words = fs::read_to_string(home().join("words.txt")).unwrap();
        let quoted = words.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
        let words = quoted.map(|word| {
            word.replace("\\\"", "\"").replace("\\x0A", "\n").replace("\\\\", "\\").into_bytes()
        });
        Self { corpus, words: words.collect(), state: 0x9e37_79b9_7f4a_7c15 }
    }

    /// A number below `bound` (xorshift64), or 0.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) as usize % bound.max(1)
    }

    fn next(&mut self) -> Vec<u8> {
        let index = self.below(self.corpus.len());
        let mut bytes = self.corpus[index].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 => drop(bytes.drain(at..end.max(at))),
                2 => {
                    let part = bytes[at..end.max(at)].repeat(1 + self.below(40));
                    bytes.splice(at..at, part);
                }
                3 => {
                    let other = self.below(self.corpus.len());
                    let from = self.below(self.corpus[other].len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&self.corpus[other][from..]);
                }
                _ => {
                    let word = self.below(self.words.len());
                    bytes.splice(at..at, self.words[word].iter().copied());
                }
            }
        }
        bytes
    }
}

fn home() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz"))
}

/// The sorted names in a directory.
fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
