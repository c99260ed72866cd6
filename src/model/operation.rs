//! What was done to the record, operation by operation: which services changed together, what can
//! be undone and redone, and what somebody changed without dkv.
//!
//! An operation is written down before the manifest is renamed. So one whose manifest never came is
//! known by that, and no command is ever taken for somebody's edit.

use serde::{Deserialize, Serialize};

use super::history::Release;
use super::manifest::{Manifest, Service};
use super::reference::{Digest, ServiceName};

/// How many operations are remembered.
pub const LIMIT: usize = 1000;

/// How many bytes these may take, so that a large deployment's log stays quick to write.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number; they only grow.
    pub id: u64,
    /// When it was recorded; RFC 3339, UTC.
    pub at: String,
    /// Who it was; nobody knows who edits a file.
    pub by: Option<String>,
    /// On which machine.
    pub host: Option<String>,
    /// What kind of operation it is.
    pub kind: Kind,
    /// The arguments of dkv, without secrets; empty for an edit.
    #[serde(default)]
    pub command: Vec<String>,
    /// The manifest's file name: several may share a directory.
    pub manifest: String,
    /// The digest of the manifest's text before; none if there was no manifest.
    pub before: Option<Digest>,
    /// The digest of the manifest's text after.
    pub after: Digest,
    /// The backup that has the manifest's text before.
    #[serde(default)]
    pub backup: Option<String>,
    /// The services that changed, or that were tried in vain.
    #[serde(default)]
    pub services: Vec<Moved>,
    /// How it ended.
    pub result: Ending,
    /// The exit code of the command.
    pub exit_code: u8,
    /// Why it failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// The data that was saved on the way.
    #[serde(default)]
    pub data_backup: Option<String>,
    /// The operations that this one undoes or redoes, in that order.
    #[serde(default)]
    pub takes: Vec<u64>,
}

/// What kind of operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A command that records something.
    #[default]
    Command,
    /// The manifest was edited without dkv.
    Edit,
    /// Back to before other operations.
    Undo,
    /// Again what was undone.
    Redo,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// As it was meant.
    Done,
    /// Some services are done, others are not.
    Partial,
    /// Not as it was meant.
    Failed,
}

impl Ending {
    /// How a command ended that has this exit code.
    #[must_use]
    pub fn of(exit_code: u8) -> Self {
        match exit_code {
            0 | 10 => Self::Done,
            9 => Self::Partial,
            _ => Self::Failed,
        }
    }
}

/// What an operation did to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The service.
    pub name: ServiceName,
    /// Its release before.
    pub from: Option<Named>,
    /// Its release after.
    pub to: Option<Named>,
    /// What that is, in a word.
    pub what: What,
}

/// A release by its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its tag.
    pub tag: String,
    /// Its digest; of a local build, the image ID.
    pub digest: Option<Digest>,
}

/// What became of a service, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It is listed since.
    Added,
    /// It is not listed any more.
    Removed,
    /// Another release.
    Version,
    /// The same release under another tag.
    Renamed,
    /// `pull-latest` leaves it alone since.
    Held,
    /// `pull-latest` follows its tag again.
    Unheld,
    /// A release was found bad.
    Rejected,
    /// It follows another tag.
    Track,
    /// Something else that is recorded of it.
    Details,
}

impl What {
    /// The words for it, beside the release that stays.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Version => "another version",
            Self::Renamed => "renamed",
            Self::Held => "held",
            Self::Unheld => "no longer held",
            Self::Rejected => "a version rejected",
            Self::Track => "follows another tag",
            Self::Details => "details",
        }
    }
}

impl From<&Release> for Named {
    fn from(release: &Release) -> Self {
        Self { tag: release.tag.to_string(), digest: release.bytes.name().cloned() }
    }
}

impl Moved {
    /// What lies between two states of one service; none if nothing does.
    #[must_use]
    pub fn between(before: Option<&Service>, after: Option<&Service>) -> Option<Self> {
        let named = |service: Option<&Service>| service?.current().map(Named::from);
        let (from, to) = (named(before), named(after));
        let (name, what) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => (&after.name, What::Added),
            (Some(before), None) => (&before.name, What::Removed),
            (Some(before), Some(after)) if is_same(before, after) => return None,
            (Some(before), Some(after)) => {
                let digest = |named: &Option<Named>| named.as_ref()?.digest.clone();
                let tag = |named: &Option<Named>| named.as_ref().map(|one| one.tag.clone());
                let rejected = |one: &Service| one.rejected.len();
                let what = if digest(&from) != digest(&to) || digest(&to).is_none() && from != to {
                    What::Version
                } else if tag(&from) != tag(&to) {
                    What::Renamed
                } else if before.held != after.held {
                    if after.held { What::Held } else { What::Unheld }
                } else if before.track_name() != after.track_name() {
                    What::Track
                } else if before.rejected != after.rejected && rejected(after) >= rejected(before) {
                    What::Rejected
                } else {
                    What::Details
                };
                (&after.name, what)
            }
        };
        Some(Self { name: name.clone(), from, to, what })
    }

    /// What lies between two manifests, in the order of the newer.
    #[must_use]
    pub fn all_between(before: &Manifest, after: &Manifest) -> Vec<Self> {
        let is_gone = |service: &&Service| !after.services.contains_key(&service.name);
        let gone = before.services.values().filter(is_gone);
        let gone = gone.filter_map(|service| Self::between(Some(service), None));
        let now = after.services.values();
        let now = now.filter_map(|one| Self::between(before.services.get(&one.name), Some(one)));
        now.chain(gone).collect()
    }
}

/// Whether nothing that is recorded differs: where an entry stood in its file is no part of that.
fn is_same(before: &Service, after: &Service) -> bool {
    let placeless = |service: &Service| {
        let mut entries = service.history.entries().to_vec();
        entries.iter_mut().for_each(|entry| entry.origin = None);
        (entries, service.history.current_index())
    };
    let mut after_there = after.clone();
    after_there.history = before.history.clone();
    // Images that the manifest leaves to the Compose files are settled in one and perhaps not in
    // the other.
    if before.image.is_none() || after.image.is_none() {
        after_there.image.clone_from(&before.image);
        after_there.track.clone_from(&before.track);
    }
    after_there == *before && placeless(before) == placeless(after)
}

/// How the manifest that is there stands to what was done last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is remembered, or there is no manifest: a log begins here.
    New,
    /// It is what the last operation made.
    AsLeft,
    /// Somebody has edited it since; this is the digest of what the last operation made.
    Edited(Digest),
}

/// The log, oldest first.
#[derive(Debug, Default)]
pub struct Log {
    lines: Vec<Line>,
    damaged: usize,
    manifest: String,
}

#[derive(Debug)]
struct Line {
    /// As it was read, with what a newer dkv may have added.
    text: String,
    operation: Operation,
}

impl Log {
    /// Reads a log, for the operations on the manifest of this name. Lines that are no operations,
    /// as a broken disk or editor leaves them, are left out and counted.
    #[must_use]
    pub fn parse(bytes: &[u8], manifest: &str) -> Self {
        let mut log = Self { manifest: manifest.to_owned(), ..Self::default() };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = std::str::from_utf8(line).ok();
            let parsed = text.and_then(|text| Some((text, serde_json::from_str(text).ok()?)));
            match parsed {
                Some((text, operation)) => {
                    log.lines.push(Line { text: text.to_owned(), operation });
                }
                None => log.damaged += 1,
            }
        }
        log
    }

    /// How many lines were damaged.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// The operations on this manifest, oldest first.
    pub fn operations(&self) -> impl DoubleEndedIterator<Item = &Operation> {
        let operations = self.lines.iter().map(|line| &line.operation);
        operations.filter(|operation| operation.manifest == self.manifest)
    }

    /// The operation with this number.
    #[must_use]
    pub fn operation(&self, id: u64) -> Option<&Operation> {
        self.operations().find(|operation| operation.id == id)
    }

    /// Takes out the last operation if its manifest never came, and says how the manifest with the
    /// digest `now`, if there is one, stands to what is left. `is_kept` knows the texts that were
    /// written to the end: a manifest that somebody put back is not one that never went.
    pub fn settle(&mut self, now: Option<&Digest>, is_kept: impl Fn(&Digest) -> bool) -> Standing {
        let mine = |line: &Line| line.operation.manifest == self.manifest;
        if let Some(at) = self.lines.iter().rposition(mine) {
            let last = &self.lines[at].operation;
            let never_came = last.changes() && last.before.as_ref() == now && !is_kept(&last.after);
            if never_came {
                self.lines.remove(at);
            }
        }
        match self.operations().next_back() {
            Some(last) if now == Some(&last.after) => Standing::AsLeft,
            Some(last) if now.is_some() => Standing::Edited(last.after.clone()),
            _ => Standing::New,
        }
    }

    /// The number of the next operation.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.lines.iter().map(|line| line.operation.id).max().unwrap_or_default() + 1
    }

    /// Adds an operation.
    ///
    /// # Errors
    ///
    /// It has no JSON form.
    pub fn add(&mut self, operation: Operation) -> Result<(), serde_json::Error> {
        let text = serde_json::to_string(&operation)?;
        self.lines.push(Line { text, operation });
        Ok(())
    }

    /// Changes the operation with this number, if it is there; whether it was and differs.
    ///
    /// # Errors
    ///
    /// It has no JSON form.
    pub fn amend(
        &mut self,
        id: u64,
        change: impl FnOnce(&mut Operation),
    ) -> Result<bool, serde_json::Error> {
        let Some(line) = self.lines.iter_mut().find(|line| line.operation.id == id) else {
            return Ok(false);
        };
        let before = line.operation.clone();
        change(&mut line.operation);
        line.text = serde_json::to_string(&line.operation)?;
        Ok(line.operation != before)
    }

    /// The log's text: the newest operations, as many as are remembered.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = 0;
        let newest = self.lines.iter().rev().take(LIMIT).take_while(|line| {
            bytes += line.text.len() + 1;
            bytes <= MOST_BYTES
        });
        let kept = newest.count().max(usize::from(!self.lines.is_empty()));
        let lines = self.lines[self.lines.len() - kept..].iter();
        lines.map(|line| format!("{}\n", line.text)).collect()
    }

    /// What can be undone and redone.
    #[must_use]
    pub fn stacks(&self) -> Stacks {
        Stacks::of(self.operations())
    }

    /// The operations that an undo takes back, newest first: `id`, else the last that did not fail,
    /// which is what somebody means who has just seen an update fail, and what came after it; none
    /// if that cannot be undone.
    #[must_use]
    pub fn to_undo(&self, id: Option<u64>) -> Option<Vec<u64>> {
        let done = self.stacks().done;
        let has_failed =
            |id: &u64| self.operation(*id).is_some_and(|one| one.result == Ending::Failed);
        let from = match id {
            Some(id) => done.iter().position(|one| *one == id)?,
            None => {
                done.iter().rposition(|id| !has_failed(id)).or_else(|| done.len().checked_sub(1))?
            }
        };
        Some(done[from..].iter().rev().copied().collect())
    }
}

impl Operation {
    /// Whether the manifest is another since.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.before.as_ref() != Some(&self.after)
    }
}

/// Which operations can be undone, and which redone; the next one last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    /// What is done.
    pub done: Vec<u64>,
    /// What is undone.
    pub undone: Vec<u64>,
}

impl Stacks {
    /// Where `operations`, oldest first, have led.
    pub fn of<'o>(operations: impl Iterator<Item = &'o Operation>) -> Self {
        let mut stacks = Self::default();
        let mut state = None;
        for operation in operations.filter(|operation| operation.changes()) {
            // Beyond a change that nobody remembers, nothing is known to have followed from what
            // was before.
            if state.is_some_and(|state: &Digest| operation.before.as_ref() != Some(state)) {
                stacks = Self::default();
            }
            state = Some(&operation.after);
            match operation.kind {
                Kind::Command | Kind::Edit => {
                    stacks.undone.clear();
                    if operation.before.is_some() {
                        stacks.done.push(operation.id);
                    } else {
                        stacks.done.clear();
                    }
                }
                Kind::Undo => take(&operation.takes, &mut stacks.done, &mut stacks.undone),
                Kind::Redo => take(&operation.takes, &mut stacks.undone, &mut stacks.done),
            }
        }
        stacks
    }
}

/// Moves what an operation takes from one stack to the other. Where the log does not add up, nothing
/// more is known to be possible.
fn take(taken: &[u64], from: &mut Vec<u64>, to: &mut Vec<u64>) {
    for id in taken {
        if from.pop() != Some(*id) {
            from.clear();
            to.clear();
            return;
        }
        to.push(*id);
    }
}

/// The arguments of a command line without the secrets that may be among them: a password within an
/// address, and what an option is given whose name says that it is one.
#[must_use]
pub fn without_secrets(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut hides_next = false;
    let told = arguments.map(|argument| {
        if std::mem::take(&mut hides_next) && !argument.starts_with('-') {
            return HIDDEN.to_owned();
        }
        match argument.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
            _ => {
                hides_next = argument.starts_with('-') && is_secret(&argument);
                without_password(&argument)
            }
        }
    });
    told.collect()
}

/// What stands where a secret was.
const HIDDEN: &str = "***";

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passphrase", "secret", "token"].iter().any(|word| name.contains(word))
}

/// `text` without what stands before the `@` of an address.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{HIDDEN}@{host}{path}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: u8) -> Digest {
        Digest::of(&[number])
    }

    fn operation(id: u64, kind: Kind, before: u8, after: u8, takes: &[u64]) -> Operation {
        Operation {
            id,
            at: "2026-01-12T12:00:00Z".to_owned(),
            by: Some("alice".to_owned()),
            host: None,
            kind,
            command: vec!["pull-latest".to_owned()],
            manifest: "m.yaml".to_owned(),
            before: Some(text(before)),
            after: text(after),
            backup: None,
            services: Vec::new(),
            result: Ending::Done,
            exit_code: 0,
            reason: None,
            data_backup: None,
            takes: takes.to_vec(),
        }
    }

    fn log(operations: Vec<Operation>) -> Log {
        let mut log = Log { manifest: "m.yaml".to_owned(), ..Log::default() };
        operations.into_iter().for_each(|operation| log.add(operation).unwrap());
        log
    }

    #[test]
    fn what_is_undone_can_be_redone_until_something_else_is_done() {
        use Kind::{Command, Edit, Redo, Undo};
        for (operations, done, undone) in [
            (vec![(Command, 0, 1, vec![]), (Command, 1, 2, vec![])], vec![1, 2], vec![]),
            // One after the other, and again.
            (
                vec![
                    (Command, 0, 1, vec![]),
                    (Edit, 1, 2, vec![]),
                    (Undo, 2, 1, vec![2]),
                    (Undo, 1, 0, vec![1]),
                    (Redo, 0, 1, vec![1]),
                ],
                vec![1],
                vec![2],
            ),
            // Several at once come again one by one.
            (
                vec![
                    (Command, 0, 1, vec![]),
                    (Command, 1, 2, vec![]),
                    (Command, 2, 3, vec![]),
                    (Undo, 3, 1, vec![3, 2]),
                    (Redo, 1, 2, vec![2]),
                ],
                vec![1, 2],
                vec![3],
            ),
            // A command ends what could be redone.
            (
                vec![(Command, 0, 1, vec![]), (Undo, 1, 0, vec![1]), (Command, 0, 3, vec![])],
                vec![3],
                vec![],
            ),
            // What changed nothing, such as a failed update, is in no stack and ends nothing.
            (
                vec![(Command, 0, 1, vec![]), (Undo, 1, 0, vec![1]), (Command, 0, 0, vec![])],
                vec![],
                vec![1],
            ),
            // A line is missing: nothing before it is known to lead here.
            (vec![(Command, 0, 1, vec![]), (Command, 4, 5, vec![])], vec![2], vec![]),
            // An undo of what is not there.
            (
                vec![(Command, 0, 1, vec![]), (Undo, 1, 0, vec![9]), (Command, 0, 1, vec![])],
                vec![3],
                vec![],
            ),
        ] {
            let numbered = operations.iter().zip(1..);
            let operations: Vec<Operation> = numbered
                .map(|((kind, before, after, takes), id)| {
                    operation(id, *kind, *before, *after, takes)
                })
                .collect();
            let stacks = Stacks::of(operations.iter());
            assert_eq!(stacks, Stacks { done, undone }, "{operations:?}");
        }
    }

    #[test]
    fn an_undo_takes_back_the_last_that_went_well_and_what_came_after_it() {
        let failed = |mut one: Operation| {
            one.result = Ending::Failed;
            one
        };
        let one = |id: u8| operation(u64::from(id), Kind::Command, id - 1, id, &[]);
        let all = log(vec![one(1), one(2), one(3)]);
        assert_eq!(all.to_undo(None), Some(vec![3]));
        assert_eq!(all.to_undo(Some(2)), Some(vec![3, 2]));
        assert_eq!(all.to_undo(Some(4)), None);
        assert_eq!(log(vec![one(1), one(2), failed(one(3))]).to_undo(None), Some(vec![3, 2]));
        assert_eq!(log(vec![failed(one(1))]).to_undo(None), Some(vec![1]));
        assert_eq!(log(vec![]).to_undo(None), None);
    }

    #[test]
    fn the_first_manifest_is_where_nothing_was_before() {
        let first = Operation { before: None, ..operation(1, Kind::Command, 0, 1, &[]) };
        let next = operation(2, Kind::Command, 1, 2, &[]);
        assert_eq!(Stacks::of([first, next].iter()).done, [2]);
    }

    #[test]
    fn a_manifest_that_never_came_is_no_operation_and_one_put_back_is_an_edit() {
        let both = || {
            log(vec![
                operation(1, Kind::Command, 0, 1, &[]),
                operation(2, Kind::Command, 1, 2, &[]),
            ])
        };
        let ids = |log: &Log| log.operations().map(|one| one.id).collect::<Vec<_>>();
        for (now, is_kept, standing, left) in [
            (2, true, Standing::AsLeft, vec![1, 2]),
            // Killed after the manifest came, before its text was kept.
            (2, false, Standing::AsLeft, vec![1, 2]),
            // Killed before it came.
            (1, false, Standing::AsLeft, vec![1]),
            // It came, and somebody has put the old one back.
            (1, true, Standing::Edited(text(2)), vec![1, 2]),
            (7, true, Standing::Edited(text(2)), vec![1, 2]),
            (0, false, Standing::Edited(text(2)), vec![1, 2]),
        ] {
            let mut log = both();
            assert_eq!(log.settle(Some(&text(now)), |_| is_kept), standing, "{now} {is_kept}");
            assert_eq!(ids(&log), left, "{now} {is_kept}");
        }
        assert_eq!(log(vec![]).settle(Some(&text(1)), |_| false), Standing::New);
        // The first manifest never came.
        let first = Operation { before: None, ..operation(1, Kind::Command, 0, 1, &[]) };
        let mut first = log(vec![first]);
        assert_eq!(first.settle(None, |_| false), Standing::New);
        assert_eq!(ids(&first), [0; 0]);
        // What failed and changed nothing stays.
        let mut failed = log(vec![operation(1, Kind::Command, 1, 1, &[])]);
        assert_eq!(failed.settle(Some(&text(1)), |_| false), Standing::AsLeft);
        assert_eq!(ids(&failed), [1]);
    }

    #[test]
    fn a_log_reads_back_without_its_damaged_lines_and_keeps_the_newest() {
        let mut written = log((1..=3).map(|id| operation(id, Kind::Command, 0, 1, &[])).collect());
        written
            .add(Operation { manifest: "other".to_owned(), ..operation(4, Kind::Edit, 5, 6, &[]) })
            .unwrap();
        let newer = written.text().replacen("{\"id\":1,", "{\"id\":1,\"mood\":\"fine\",", 1);
        let text = newer.clone() + "{\"id\":\n\0\0\n";
        let log = Log::parse(text.as_bytes(), "m.yaml");
        assert_eq!((log.damaged(), log.text()), (2, newer));
        assert_eq!(log.operations().map(|one| one.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(log.next_id(), 5);

        let mut many = Log::default();
        for id in 1..=LIMIT as u64 + 7 {
            many.add(operation(id, Kind::Command, 0, 1, &[])).unwrap();
        }
        let left = Log::parse(many.text().as_bytes(), "m.yaml");
        assert_eq!(left.lines.len(), LIMIT);
        assert_eq!(left.operations().next().unwrap().id, 8);
        let reason = Some("x".repeat(MOST_BYTES / 2));
        many.add(Operation { reason: reason.clone(), ..operation(2000, Kind::Command, 0, 1, &[]) })
            .unwrap();
        many.add(Operation { reason, ..operation(2001, Kind::Command, 0, 1, &[]) }).unwrap();
        assert_eq!(Log::parse(many.text().as_bytes(), "m.yaml").operations().count(), 1);
    }

    #[test]
    fn how_it_ended_is_amended() {
        let mut log = log(vec![operation(1, Kind::Command, 0, 1, &[])]);
        assert!(log.amend(1, |one| one.exit_code = 9).unwrap());
        assert!(!log.amend(1, |one| one.exit_code = 9).unwrap());
        assert!(!log.amend(2, |one| one.exit_code = 9).unwrap());
        assert!(log.text().contains("\"exit_code\":9"));
    }

    #[test]
    fn secrets_are_left_out_of_a_command() {
        for (line, told) in [
            (
                &["pull-latest", "-C", "/srv/shop", "web"][..],
                &["pull-latest", "-C", "/srv/shop", "web"][..],
            ),
            (&["x", "--password", "p", "y"], &["x", "--password", "***", "y"]),
            (&["x", "--token=t=u"], &["x", "--token=***"]),
            (&["x", "--secret", "--dry-run"], &["x", "--secret", "--dry-run"]),
            (&["x", "API_TOKEN=t"], &["x", "API_TOKEN=***"]),
            (
                &["x", "https://me:p@ss@r.example/web:1@sha256:0"],
                &["x", "https://***@r.example/web:1@sha256:0"],
            ),
            (&["x", "--reason", "a@b: c"], &["x", "--reason", "a@b: c"]),
        ] {
            let arguments = line.iter().map(ToString::to_string);
            assert_eq!(without_secrets(arguments), told, "{line:?}");
        }
    }

    #[test]
    fn what_became_of_a_service_is_said_by_what_matters_most() {
        use super::super::history::{Bytes, Release};
        let service = |tag: &str, bytes: u8| {
            let mut service =
                Service::new("web".parse().unwrap(), Some("r.example/web".parse().unwrap()));
            let release = Release::new(tag.parse().unwrap(), Bytes::of(Some(text(bytes))));
            service.history.advance(release, |_| false);
            service
        };
        let one = service("1.0", 1);
        let held = Service { held: true, ..one.clone() };
        let track = Service { track: Some("1".parse().unwrap()), ..one.clone() };
        let late = Service { deployed_by: Some("bob".to_owned()), ..held.clone() };
        for (before, after, what) in [
            (None, Some(&one), Some(What::Added)),
            (Some(&one), None, Some(What::Removed)),
            (Some(&one), Some(&one), None),
            (Some(&one), Some(&service("1.1", 2)), Some(What::Version)),
            (Some(&one), Some(&service("1.1", 1)), Some(What::Renamed)),
            (Some(&one), Some(&held), Some(What::Held)),
            (Some(&held), Some(&one), Some(What::Unheld)),
            (Some(&one), Some(&track), Some(What::Track)),
            (Some(&held), Some(&late), Some(What::Details)),
        ] {
            let moved = Moved::between(before, after);
            assert_eq!(moved.map(|moved| moved.what), what, "{before:?} {after:?}");
        }
    }
}
