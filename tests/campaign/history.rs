//! One history: what is done, step by step, and that it comes out as the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::bench::{Bench, Env, env_of, told};
use super::model::{Command, End, Record, Registry, Service, World, ends, is_version};
use super::random::Random;
use crate::support::{Fault, On, Outcome};

type Told = Result<(), String>;

/// A service whose tag and digest somebody has written by hand.
#[derive(Clone)]
struct Edited {
    /// What a command had written last.
    written: Service,
    tag: String,
    digest: String,
}

pub struct History<'t> {
    random: Random,
    tale: &'t mut Vec<String>,
    bench: Bench,
    record: Record,
    world: World,
    env: Option<Env>,
    /// Services that were edited by hand and that no command has written since.
    edited: BTreeMap<&'static str, Edited>,
    /// What must have its keep-tag as long as a history has it.
    kept: BTreeSet<(&'static str, String)>,
    /// Keep-tags that no history knows and that may be here: of what was running when it was
    /// evicted, until the next change, and of what was fetched and never recorded, until `prune`.
    evicted: BTreeSet<(String, String)>,
    unrecorded: BTreeSet<(String, String)>,
    /// Whether a command has failed or was killed since they were looked at.
    is_unswept: bool,
    /// Digests that containers run; none where that is not known.
    running: Option<BTreeMap<&'static str, String>>,
    versions: u64,
}

impl<'t> History<'t> {
    pub fn new(seed: u64, tale: &'t mut Vec<String>) -> Self {
        let mut random = Random::of(seed);
        let has_daemon = random.percent(70);
        let mut record = Record::from([
            ("api", Service::new("api", "latest")),
            ("web", Service::new("web", "latest")),
        ]);
        if random.percent(60) {
            record.insert("edge", Service::new("web", "edge"));
        }
        if random.percent(40) {
            record.insert("fixed", Service::new("api", "1.0.0"));
        }
        let bench = Bench::new(&mut random, has_daemon, &record);
        tale.push(bench.tell());
        let repositories = ["api", "web"].map(|name| (name, Default::default())).into();
        let registry = Registry { repositories, ..Registry::default() };
        let world = World { registry, has_daemon, local: BTreeSet::new() };
        Self {
            random,
            tale,
            bench,
            record,
            world,
            env: None,
            edited: BTreeMap::new(),
            kept: BTreeSet::new(),
            evicted: BTreeSet::new(),
            unrecorded: BTreeSet::new(),
            is_unswept: false,
            running: has_daemon.then(BTreeMap::new),
            versions: 0,
        }
    }

    pub fn live(mut self, steps: u64) -> Told {
        self.publish("web", &["1.0.0", "latest", "edge"].map(str::to_owned));
        self.publish("api", &["1.0.0", "latest"].map(str::to_owned));
        let first = Command::PullLatest { services: Vec::new(), retry: false, keep_going: false };
        self.run(&first)?;
        for _ in 0..steps {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Told {
        match self.random.below(100) {
            0..20 => self.happen(),
            20..28 => self.edit(),
            28..38 => {
                let command = self.command();
                self.kill(&command)
            }
            38..46 => {
                let (one, other) = (self.recording(), self.recording());
                self.both(&one, &other)
            }
            46..49 if self.may_update() => self.update(),
            _ => {
                let command = self.command();
                self.run(&command)
            }
        }
    }

    fn say(&mut self, what: impl Into<String>) {
        self.tale.push(what.into());
    }

    // What happens in the registry and elsewhere.

    fn publish(&mut self, repository: &'static str, tags: &[String]) -> String {
        let digest = self.bench.publish(repository, tags);
        self.say(format!("publish {repository} {} {}", tags.join(" "), short(&digest)));
        let known = self.world.registry.repositories.get_mut(repository).unwrap();
        known.digests.insert(digest.clone());
        known.tags.extend(tags.iter().map(|tag| (tag.clone(), digest.clone())));
        digest
    }

    fn happen(&mut self) -> Told {
        let repository = self.random.pick(&["api", "web"]);
        let known = self.world.registry.repositories[repository].clone();
        let tags: Vec<String> = known.tags.keys().cloned().collect();
        let digests: Vec<String> = known.digests.iter().cloned().collect();
        match self.random.below(100) {
            0..50 => self.publish_next(repository),
            50..58 => {
                // A version that is published again, with other bytes.
                let versions: Vec<String> =
                    tags.into_iter().filter(|tag| is_version(tag)).collect();
                if let Some(tag) = (!versions.is_empty()).then(|| self.random.pick(&versions)) {
                    self.publish(repository, &[tag]);
                }
            }
            58..66 if !digests.is_empty() => {
                let digest = self.random.pick(&digests);
                let tag = self.random.pick(&["latest", "edge"]).to_owned();
                self.say(format!("{repository} {tag} is now {}", short(&digest)));
                self.bench.move_tag(repository, &tag, &digest);
                let known = self.world.registry.repositories.get_mut(repository).unwrap();
                known.tags.insert(tag, digest);
            }
            66..72 if !tags.is_empty() => {
                let tag = self.random.pick(&tags);
                self.say(format!("delete tag {repository} {tag}"));
                self.bench.delete_tag(repository, &tag);
                let known = self.world.registry.repositories.get_mut(repository).unwrap();
                known.tags.remove(&tag);
            }
            72..78 if !digests.is_empty() => {
                let digest = self.random.pick(&digests);
                self.say(format!("delete release {repository} {}", short(&digest)));
                self.bench.delete(repository, &digest);
                let known = self.world.registry.repositories.get_mut(repository).unwrap();
                known.digests.remove(&digest);
                known.tags.retain(|_, named| *named != digest);
            }
            78..95 => self.break_registry(),
            _ if self.env.is_some() => {
                self.say("versions.env is edited by hand");
                self.bench.spoil_env();
                self.env = self.bench.env()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn publish_next(&mut self, repository: &'static str) {
        self.versions += 1;
        let version = format!("1.{}", self.versions);
        let mut tags = vec![self.random.pick(&["latest", "latest", "edge"]).to_owned()];
        match self.random.below(10) {
            // What no version names.
            0 => {}
            1 => tags.extend([format!("{version}.0"), version]),
            _ => tags.push(format!("{version}.0")),
        }
        self.publish(repository, &tags);
    }

    fn break_registry(&mut self) {
        let registry = &mut self.world.registry;
        if registry.is_away || registry.is_lying {
            (registry.is_away, registry.is_lying) = (false, false);
            self.bench.fault(None);
            return self.say("the registry is well again");
        }
        let get = || On::target("/manifests/").method("GET");
        let lies = [
            (On::target("/manifests/").method("HEAD"), Fault::WrongDigestHeader),
            (get(), Fault::WrongBody),
            (get(), Fault::WrongDigestHeader),
            (On::target("/blobs/"), Fault::WrongBody),
        ];
        let fault = match self.random.below(8) {
            lie @ 0..4 => {
                registry.is_lying = true;
                lies[usize::try_from(lie).unwrap()].clone()
            }
            _ => {
                registry.is_away = true;
                (On::all(), Fault::Reset)
            }
        };
        self.say(format!("the registry: {fault:?}"));
        self.bench.fault(Some(fault));
    }

    // What is written by hand.

    fn edit(&mut self) -> Told {
        let names: Vec<&'static str> = self.record.keys().copied().collect();
        let name = self.random.pick(&names);
        let service = &self.record[name];
        let Some(now) = service.now() else { return Ok(()) };
        let unedited = || Edited {
            written: service.clone(),
            tag: now.tag.clone(),
            digest: now.digest.clone(),
        };
        let mut edited = self.edited.get(name).cloned().unwrap_or_else(unedited);
        let entry = self.random.pick(&edited.written.history);
        self.versions += 1;
        match self.random.below(6) {
            0 => edited.tag = entry.tag,
            1 => (edited.tag, edited.digest) = (entry.tag, String::new()),
            2 => (edited.tag, edited.digest) = (entry.tag, entry.digest),
            3 => edited.digest = entry.digest,
            4 => edited.tag = format!("9.{}.0", self.versions),
            _ => {
                let known = &self.world.registry.repositories[edited.written.repository].digests;
                let Some(digest) = known.iter().find(|one| edited.written.has(one).is_none())
                else {
                    return Ok(());
                };
                edited.digest = digest.clone();
                edited.tag = format!("8.{}.0", self.versions);
            }
        }
        let Some(meant) = edited.written.meant(&edited.tag, &edited.digest) else { return Ok(()) };
        let Edited { tag, digest, .. } = &edited;
        self.tale.push(format!("edit {name}: {tag} {}", short(digest)));
        self.bench.edit(name, tag, digest);
        self.record.insert(name, meant);
        self.edited.insert(name, edited);
        self.check_views("the edit")
    }

    // What is run.

    fn services(&mut self) -> Vec<&'static str> {
        let names: Vec<&'static str> = self.record.keys().copied().collect();
        if self.random.percent(60) { Vec::new() } else { vec![self.random.pick(&names)] }
    }

    /// A command that records something.
    fn recording(&mut self) -> Command {
        let names: Vec<&'static str> = self.record.keys().copied().collect();
        let service = self.random.pick(&names);
        let chosen = self.record[service].clone();
        let known = &self.world.registry.repositories[chosen.repository];
        let mut versions: Vec<String> =
            known.tags.keys().filter(|tag| is_version(tag)).cloned().collect();
        versions.push("7.7.7".to_owned());
        let tag = self.random.pick(&versions);
        match self.random.below(20) {
            0..7 => Command::PullLatest {
                services: self.services(),
                retry: false,
                keep_going: self.random.percent(20),
            },
            // Which tag follows from it is a matter of its own.
            7..12 if service != "fixed" => match self.random.percent(60) {
                true => Command::VersionPull { service, tag },
                false => Command::VersionSet { service, tag, hold: self.random.percent(40) },
            },
            12..15 => Command::Rollback { services: self.services() },
            15..18 if !chosen.history.is_empty() => {
                let entry = self.random.pick(&chosen.history);
                let is_unique =
                    chosen.history.iter().filter(|one| one.tag == entry.tag).count() == 1;
                let by_tag = is_unique && self.random.percent(50);
                Command::RollbackTo {
                    service,
                    target: if by_tag { entry.tag } else { entry.digest },
                }
            }
            18 => Command::ResolveTags,
            _ => Command::Unhold { service },
        }
    }

    fn command(&mut self) -> Command {
        match self.random.below(100) {
            0..55 => self.recording(),
            55..62 => Command::GenerateEnv,
            62..68 => Command::Pull { history: self.random.percent(50) },
            68..76 => Command::CheckUpdates,
            76..86 if self.world.has_daemon => {
                Command::Start(self.random.pick(&["up", "restart", "start"]))
            }
            86..89 if self.world.has_daemon => Command::Down,
            89..93 if self.world.has_daemon => Command::Look(&["verify"]),
            93..96 => Command::Prune,
            _ => Command::Look(self.random.pick(&[
                &["version"][..],
                &["version-history"],
                &["pull-latest", "--no-pull", "--dry-run"],
                &["version", "--json"],
            ])),
        }
    }

    fn run(&mut self, command: &Command) -> Told {
        let words = command.words(self.world.has_daemon);
        let outcome = self.bench.dkv(&words).finish();
        self.say(format!("dkv {}: {}", words.join(" "), told(&outcome)));
        if let Command::Look(["pull-latest", ..]) = command
            && self.world.registry.is_away | self.world.registry.is_lying
        {
            let record = self.record.clone();
            return self.settle(std::slice::from_ref(&record), false, &outcome.to_string());
        }
        let mut possible = ends(command, &self.record, &self.world);
        let code = outcome.code().unwrap_or(-1);
        if let Command::Look(["pull-latest", ..]) = command {
            possible[0].codes.push(5);
        }
        let fit: Vec<End> =
            possible.iter().filter(|end| end.codes.contains(&code)).cloned().collect();
        if fit.is_empty() {
            return Err(format!("it may end with {:?}:\n{outcome}", possible[0].codes));
        }
        let has_written = command.writes_env() && matches!(code, 0 | 9);
        let records: Vec<Record> = fit.iter().map(|end| end.record.clone()).collect();
        let before = self.record.clone();
        self.settle(&records, has_written, &outcome.to_string())?;
        let is_changed = before != self.record;
        if is_changed && let left @ [_, ..] = self.bench.left_over().as_slice() {
            return Err(format!("left behind: {left:?}\n{outcome}"));
        }
        let end = fit.into_iter().find(|end| end.record == self.record).unwrap();
        if self.world.has_daemon && matches!(code, 0 | 9) {
            self.world.local.extend(end.kept.iter().cloned());
            self.kept.extend(end.kept);
            if is_changed {
                self.evicted.clear();
            }
            if *command == Command::Prune {
                self.evicted.clear();
                self.unrecorded.clear();
            }
        } else if code != 0 {
            self.is_unswept = true;
        }
        self.check_run(command, code, &outcome)?;
        self.check_keep_tags()
    }

    /// What a command that starts or stops has made of the containers.
    fn check_run(&mut self, command: &Command, code: i32, outcome: &Outcome) -> Told {
        if !self.world.has_daemon {
            return Ok(());
        }
        match command {
            Command::Start(_) if code == 0 => self.running = Some(self.recorded()),
            Command::Down if code == 0 => self.running = Some(BTreeMap::new()),
            Command::Start(_) | Command::Down => self.running = None,
            _ => {}
        }
        self.check_running(&outcome.to_string())
    }

    fn check_running(&mut self, told: &str) -> Told {
        let Some(wanted) = &self.running else { return Ok(()) };
        let found = self.bench.running(&self.record);
        match found == *wanted {
            true => Ok(()),
            false => Err(format!("what runs is {found:#?}\n    not {wanted:#?}\n{told}")),
        }
    }

    /// Takes whichever of `records` the manifest has now.
    fn settle(&mut self, records: &[Record], has_written: bool, told: &str) -> Told {
        let mut differs = None;
        for record in records {
            let mut edited = self.edited.clone();
            edited.retain(|name, _| record[name] == self.record[name]);
            let names = edited.keys().copied().collect();
            // What an edited line means is dkv's to say.
            let differs_in = || self.bench.differs(record, &names);
            match differs_in().or_else(|| self.bench.said_otherwise(record)) {
                Some(how) => differs = differs.or(Some(how)),
                None => {
                    let before = std::mem::replace(&mut self.record, record.clone());
                    self.edited = edited;
                    return self.check_env(&before, has_written, told);
                }
            }
        }
        Err(format!("{}\n{told}", differs.unwrap_or_default()))
    }

    fn check_env(&mut self, before: &Record, has_written: bool, told: &str) -> Told {
        let found = self.bench.env()?;
        let wanted = env_of(&self.record);
        let is_right = match has_written {
            true => found.as_ref() == Some(&wanted),
            false => {
                found == self.env
                    || found.as_ref() == Some(&wanted)
                    || found == Some(env_of(before))
            }
        };
        if !is_right {
            return Err(format!("versions.env says {found:#?}\n    not {wanted:#?}\n{told}"));
        }
        self.env = found;
        Ok(())
    }

    fn check_views(&self, told: &str) -> Told {
        match self.bench.said_otherwise(&self.record) {
            Some(how) => Err(format!("{how}\n{told}")),
            None => Ok(()),
        }
    }

    fn check_keep_tags(&mut self) -> Told {
        if !self.world.has_daemon {
            return Ok(());
        }
        let remembered: BTreeSet<(&'static str, String)> = self
            .record
            .values()
            .flat_map(|one| one.history.iter().map(|entry| (one.repository, entry.digest.clone())))
            .collect();
        self.kept.retain(|one| remembered.contains(one));
        let name = |one: &(&str, String)| (one.0.to_owned(), short(&one.1));
        let found = self.bench.keep_tags();
        if let Some(missing) = self.kept.iter().map(name).find(|one| !found.contains(one)) {
            return Err(format!("the keep-tag of {missing:?} is missing: {found:#?}"));
        }
        let may_be: BTreeSet<_> = remembered.iter().map(name).collect();
        let left: BTreeSet<_> = found.difference(&may_be).cloned().collect();
        if self.is_unswept {
            self.unrecorded.extend(left.iter().cloned());
            self.is_unswept = false;
        }
        // What runs cannot go; where that is not known, anything may run.
        let runs = |one: &&(String, String)| match &self.running {
            Some(running) => running.values().any(|digest| short(digest) == one.1),
            None => true,
        };
        self.evicted.extend(left.iter().filter(runs).cloned());
        let known =
            |one: &&(String, String)| self.evicted.contains(*one) || self.unrecorded.contains(*one);
        match left.iter().find(|one| !known(one)) {
            Some(left) => Err(format!("the keep-tag of {left:?} is left over: {may_be:#?}")),
            None => Ok(()),
        }
    }

    /// Kills a command somewhere: what it changes is old or new, and the next one carries on.
    fn kill(&mut self, command: &Command) -> Told {
        let words = command.words(self.world.has_daemon);
        let run = self.bench.dkv(&words);
        let outcome = if command.records() && self.random.percent(50) {
            let call =
                self.random.pick(&["rename", "write", "unlink", "fsync", "flock", "connect"]);
            let injected = format!("inject={call}:signal=KILL:when={}", self.random.within(1, 12));
            let traced = format!("trace={call}");
            run.under_strace(["-f", "-qq", "-e", &traced, "-e", &injected]).finish()
        } else {
            let longest = if command.records() { 300 } else { 1500 };
            let moment = Duration::from_millis(self.random.below(longest));
            let mut running = run.spawn();
            thread::sleep(moment);
            if running.is_running() {
                running.signal(Signal::KILL);
            }
            running.finish()
        };
        self.say(format!("kill dkv {}: {}", words.join(" "), told(&outcome)));
        let mut records = vec![self.record.clone()];
        records.extend(ends(command, &self.record, &self.world).into_iter().map(|end| end.record));
        self.is_unswept = true;
        if matches!(command, Command::Start(_) | Command::Down) {
            self.running = None;
        }
        self.settle(&records, false, &outcome.to_string())?;
        // What is evicted has lost its keep-tag or not; what came may have one.
        self.run(&Command::GenerateEnv)
    }

    /// Two at once: as if one had come after the other, or one is turned away.
    fn both(&mut self, one: &Command, other: &Command) -> Told {
        let words = [one, other].map(|command| command.words(self.world.has_daemon));
        let running = words.each_ref().map(|words| self.bench.dkv(words).spawn());
        let outcomes = running.map(|running| running.finish());
        let codes = outcomes.each_ref().map(|outcome| outcome.code().unwrap_or(-1));
        let said = [0, 1].map(|at| format!("{}: {}", words[at].join(" "), told(&outcomes[at])));
        self.say(format!("at once: dkv {}", said.join(" | dkv ")));
        let mut fit = Vec::new();
        for (first, second) in [(0, 1), (1, 0)] {
            let commands = [one, other];
            for earlier in ends(commands[first], &self.record, &self.world) {
                if !earlier.codes.contains(&codes[first]) {
                    continue;
                }
                // Somebody else's change of the same service is no reason to go on.
                if matches!(codes[second], 3 | 4) {
                    fit.push(earlier.clone());
                }
                let mut world = self.world.clone();
                world.local.extend(earlier.kept.iter().cloned());
                for later in ends(commands[second], &earlier.record, &world) {
                    if later.codes.contains(&codes[second]) {
                        let kept = earlier.kept.iter().chain(&later.kept).cloned().collect();
                        fit.push(End { kept, ..later });
                    }
                }
            }
        }
        let all = outcomes.each_ref().map(ToString::to_string).join("\n");
        if fit.is_empty() {
            return Err(format!("no order of the two gives these exit codes:\n{all}"));
        }
        let records: Vec<Record> = fit.iter().map(|end| end.record.clone()).collect();
        self.settle(&records, false, &all)?;
        self.is_unswept = true;
        let kept = fit.into_iter().find(|end| end.record == self.record).unwrap().kept;
        if self.world.has_daemon {
            self.world.local.extend(kept.iter().cloned());
            self.kept.extend(kept);
        }
        self.run(&Command::GenerateEnv)?;
        self.check_keep_tags()
    }

    /// Whether everything runs as it is recorded.
    fn may_update(&self) -> bool {
        let registry = &self.world.registry;
        !registry.is_away && !registry.is_lying && self.running == Some(self.recorded())
    }

    fn recorded(&self) -> BTreeMap<&'static str, String> {
        let now = |(name, service): (&&'static str, &Service)| {
            Some((*name, service.now()?.digest.clone()))
        };
        self.record.iter().filter_map(now).collect()
    }

    /// A safe update to a new release that may be a bad one, perhaps killed and taken up again.
    fn update(&mut self) -> Told {
        let repository = self.random.pick(&["api", "web"]);
        let bad = self.random.percent(30).then(|| {
            let digest = self.bench.publish_bad(repository, "latest");
            self.say(format!("publish {repository} latest, a bad one: {}", short(&digest)));
            let known = self.world.registry.repositories.get_mut(repository).unwrap();
            known.digests.insert(digest.clone());
            known.tags.insert("latest".to_owned(), digest.clone());
            digest
        });
        if bad.is_none() {
            self.publish_next(repository);
        }
        let all = Command::PullLatest { services: Vec::new(), retry: false, keep_going: false };
        let mut end = ends(&all, &self.record, &self.world).remove(0);
        let is_taken = |one: &Service| one.now().map(|now| &now.digest) == bad.as_ref();
        if bad.is_some() && end.record.values().any(is_taken) {
            // Everything is as before, and the bad one is remembered.
            let takers = end.record.iter().filter(|(_, one)| is_taken(one)).map(|(name, _)| *name);
            let mut record = self.record.clone();
            for name in takers.collect::<Vec<_>>() {
                record.get_mut(name).unwrap().rejected.extend(bad.clone());
            }
            // The others' new releases serve the next try.
            let others = end.kept.iter().filter(|(_, digest)| Some(digest) != bad.as_ref());
            self.unrecorded
                .extend(others.map(|(name, digest)| ((*name).to_owned(), short(digest))));
            end = End { record, codes: vec![7], kept: Vec::new() };
        }
        let words = ["update-safe", "--no-data-backup", "--lock-timeout", "60"];
        let mut running = self.bench.dkv(&words.map(str::to_owned)).spawn();
        let is_killed = self.random.percent(40);
        if is_killed {
            thread::sleep(Duration::from_millis(self.random.below(9000)));
            if running.is_running() {
                running.signal(Signal::KILL);
            }
        }
        let mut outcome = running.finish();
        self.say(format!("dkv {}: {}", words.join(" "), told(&outcome)));
        let mut possible = vec![end.clone()];
        if outcome.code().is_none() {
            possible.push(End { record: self.record.clone(), codes: vec![0], kept: Vec::new() });
            if self.bench.is_unfinished() {
                let how = self.random.pick(&["--resume", "--abort"]);
                let words = ["update-safe", how, "--lock-timeout", "60"];
                outcome = self.bench.dkv(&words.map(str::to_owned)).finish();
                self.say(format!("dkv {}: {}", words.join(" "), told(&outcome)));
                let code = outcome.code().unwrap_or(-1);
                possible.retain(|end| end.codes.contains(&code));
            }
            self.is_unswept = true;
        } else if !end.codes.contains(&outcome.code().unwrap_or(-1)) {
            possible.clear();
        }
        let Some(first) = possible.first() else {
            return Err(format!("it may end with {:?}:\n{outcome}", end.codes));
        };
        let has_written = outcome.code() == Some(0) && first.codes == [0] && !is_killed;
        let records: Vec<Record> = possible.iter().map(|end| end.record.clone()).collect();
        self.settle(&records, has_written, &outcome.to_string())?;
        if self.bench.is_unfinished() {
            return Err(format!("the journal is still there:\n{outcome}"));
        }
        if self.record == end.record {
            self.world.local.extend(end.kept.iter().cloned());
            self.kept.extend(end.kept);
        }
        self.running = Some(self.recorded());
        self.check_running(&outcome.to_string())?;
        self.check_keep_tags()?;
        match bad {
            Some(_) => {
                self.run(&all)?;
                self.publish_next(repository);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Twelve digits of a digest.
pub fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}
