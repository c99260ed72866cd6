//! A power cut at any moment: the trace of a run is replayed on a model of a disk that keeps no more
//! than it was asked to keep; from each state in which such a disk can come back, the next run
//! carries on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::crash::Change;

/// A file's content: as it is read, and as it is for certain after a power cut.
#[derive(Debug, Clone, Default)]
struct Content {
    written: Vec<u8>,
    synced: Vec<u8>,
}

/// What happened to a name.
#[derive(Debug, Clone)]
enum Naming {
    Made(PathBuf, usize),
    Moved(PathBuf, PathBuf, usize),
    Removed(PathBuf),
}

impl Naming {
    fn directory(&self) -> &Path {
        match self {
            Self::Made(path, _) | Self::Moved(_, path, _) | Self::Removed(path) => {
                path.parent().unwrap()
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made(path, content) => {
                names.insert(path.clone(), *content);
            }
            Self::Moved(from, to, content) => {
                names.remove(from);
                names.insert(to.clone(), *content);
            }
            Self::Removed(path) => {
                names.remove(path);
            }
        }
    }
}

/// A disk: its contents, its names, those of them that are safe, and what is not safe yet.
#[derive(Debug, Default)]
struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    safe: BTreeMap<PathBuf, usize>,
    pending: Vec<Naming>,
}

/// The files that there are.
type State = BTreeMap<PathBuf, Vec<u8>>;

impl Disk {
    fn of(directory: &Path) -> Self {
        let mut disk = Self::default();
        for (path, bytes) in files_below(directory) {
            disk.names.insert(path, disk.contents.len());
            disk.contents.push(Content { written: bytes.clone(), synced: bytes });
        }
        disk.safe = disk.names.clone();
        disk
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending.push(naming);
    }

    fn open(&mut self, path: &Path, is_made: bool) -> Option<usize> {
        if let Some(content) = self.names.get(path) {
            return Some(*content);
        }
        is_made.then(|| {
            self.contents.push(Content::default());
            let content = self.contents.len() - 1;
            self.name(Naming::Made(path.to_owned(), content));
            content
        })
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let content = *self.names.get(from).unwrap_or_else(|| panic!("{} is not", from.display()));
        self.name(Naming::Moved(from.to_owned(), to.to_owned(), content));
    }

    fn sync_directory(&mut self, path: &Path) {
        let (safe, pending): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|naming| naming.directory() == path);
        self.pending = pending;
        for naming in safe {
            naming.apply(&mut self.safe);
        }
    }

    /// The states in which this disk can come back: of what is pending, any beginning has happened;
    /// of a content that was not synced, all is there or nothing new.
    fn after_power_cut(&self) -> BTreeSet<State> {
        let mut states = BTreeSet::new();
        for happened in 0..=self.pending.len() {
            let mut names = self.safe.clone();
            for naming in &self.pending[..happened] {
                naming.apply(&mut names);
            }
            for is_lucky in [false, true] {
                let bytes = |content: &Content| match is_lucky {
                    true => content.written.clone(),
                    false => content.synced.clone(),
                };
                let file =
                    |(path, at): (&PathBuf, &usize)| (path.clone(), bytes(&self.contents[*at]));
                states.insert(names.iter().map(file).collect());
            }
        }
        states
    }
}

fn files_below(directory: &Path) -> State {
    let mut files = State::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    files
}

/// All states in which the disk can come back during the run that `trace` is of.
fn states(directory: &Path, disk: &mut Disk, trace: &str) -> BTreeSet<State> {
    let mut states = disk.after_power_cut();
    // What each handle is open for; directories have no content.
    let mut handles: HashMap<String, (PathBuf, Option<usize>)> = HashMap::new();
    let below = |word: &str| directory.join(word.strip_prefix("./").unwrap_or(word));
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let Some((arguments, outcome)) = rest.rsplit_once(" = ") else { continue };
        if outcome.starts_with('-') {
            continue;
        }
        let call = call.rsplit(' ').next().unwrap();
        let words = strings(arguments);
        let handle = arguments.split([',', ')']).next().unwrap().to_owned();
        match call {
            "openat" => {
                let Some(path) = words.first().map(|word| below(text(word))) else { continue };
                if !path.starts_with(directory) {
                    continue;
                }
                let content = disk.open(&path, arguments.contains("O_CREAT"));
                handles.insert(outcome.trim().to_owned(), (path, content));
            }
            "write" => {
                let Some((_, Some(content))) = handles.get(&handle) else { continue };
                let length: usize = outcome.trim().parse().unwrap();
                disk.contents[*content].written.extend(&words[0][..length]);
            }
            "ftruncate" => {
                let Some((_, Some(content))) = handles.get(&handle) else { continue };
                disk.contents[*content].written.clear();
            }
            "fsync" | "fdatasync" => match handles.get(&handle) {
                Some((_, Some(content))) => {
                    let content = &mut disk.contents[*content];
                    content.synced = content.written.clone();
                }
                Some((path, None)) => disk.sync_directory(&path.clone()),
                None => continue,
            },
            "rename" => disk.rename(&below(text(&words[0])), &below(text(&words[1]))),
            "unlink" if disk.names.contains_key(&below(text(&words[0]))) => {
                disk.name(Naming::Removed(below(text(&words[0]))));
            }
            "close" => {
                handles.remove(&handle);
            }
            _ => continue,
        }
        states.extend(disk.after_power_cut());
    }
    states
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The quoted strings of a call, as `strace -xx` shows them: each byte as `\x2e`.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    let byte = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
    quoted.map(|word| word.split("\\x").skip(1).map(byte).collect()).collect()
}

fn every_state_is_whole(change: &Change) {
    change.reset();
    let directory = change.deployment.directory();
    let mut disk = Disk::of(&directory);
    let calls = "trace=openat,write,ftruncate,fsync,fdatasync,rename,unlink,close";
    let outcome = change.run().under_strace(["-f", "-xx", "-s", "1000000", "-e", calls]).exit(0);
    let states = states(&directory, &mut disk, &outcome.strace);
    // The model has followed the run to its end.
    let end =
        disk.names.iter().map(|(path, at)| (path.clone(), disk.contents[*at].written.clone()));
    assert_eq!(end.collect::<State>(), files_below(&directory));
    // What was called done stays done.
    for state in disk.after_power_cut() {
        assert!(change.is_after(&state), "done, and undone by a power cut");
    }
    eprintln!("{change}: {} states", states.len());
    assert!(states.len() >= 6, "only {} states", states.len());
    for (number, state) in states.iter().enumerate() {
        for path in files_below(&directory).keys() {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in state {
            fs::write(path, bytes).unwrap();
        }
        change.check(&format!("{change}, state {number} after a power cut"));
    }
}

#[test]
fn after_a_power_cut_the_state_is_old_or_new_and_the_next_run_carries_on() {
    every_state_is_whole(&Change::unhold());
    every_state_is_whole(&Change::pin());
}
