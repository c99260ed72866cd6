//! What the contract says that must be: written from it, not from the program.

use std::collections::{BTreeMap, BTreeSet};

/// How many releases a service remembers.
const LIMIT: usize = 5;

/// One release, by its digest; no digest where nothing is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub tag: String,
    pub digest: String,
    /// A rollback has left it.
    pub is_left: bool,
}

/// What is recorded of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub repository: &'static str,
    pub track: String,
    pub is_held: bool,
    /// Digest of the custom version, where one is in force.
    pub custom: Option<String>,
    /// Newest first.
    pub history: Vec<Release>,
    pub current: usize,
    pub rejected: BTreeSet<String>,
}

impl Service {
    pub fn new(repository: &'static str, track: &str) -> Self {
        Self {
            repository,
            track: track.to_owned(),
            is_held: false,
            custom: None,
            history: Vec::new(),
            current: 0,
            rejected: BTreeSet::new(),
        }
    }

    pub fn now(&self) -> Option<&Release> {
        self.history.get(self.current)
    }

    fn previous(&self) -> Option<usize> {
        (self.current + 1..self.history.len()).find(|index| !self.history[*index].is_left)
    }

    /// The statuses that the manifest must show, newest first.
    pub fn statuses(&self) -> Vec<&'static str> {
        let previous = self.previous();
        let status = |index: usize| match index {
            _ if index == self.current => "current",
            _ if self.history[index].is_left => "rolled-back",
            _ if previous == Some(index) => "previous",
            _ => "archived",
        };
        (0..self.history.len()).map(status).collect()
    }

    pub fn has(&self, digest: &str) -> Option<usize> {
        self.history.iter().position(|release| release.digest == digest)
    }

    /// Rule 5: nothing new adds nothing; what is held moves to the front; a sixth evicts the oldest
    /// that was left, else the oldest, never the one just left.
    pub fn advance(&mut self, tag: &str, digest: &str) {
        let release = Release { tag: tag.to_owned(), digest: digest.to_owned(), is_left: false };
        let Some(now) = self.now().cloned() else {
            *self = Self { history: vec![release], current: 0, ..self.clone() };
            return;
        };
        if now.digest == digest {
            self.history[self.current].tag = release.tag;
            return;
        }
        self.history.retain(|other| other.digest != digest);
        self.history.insert(0, release);
        self.current = 0;
        while self.history.len() > LIMIT {
            let mut oldest = (1..self.history.len())
                .rev()
                .filter(|index| self.history[*index].digest != now.digest);
            let left = oldest.clone().find(|index| self.history[*index].is_left);
            let index = left.or_else(|| oldest.next()).expect("one beside the new and the left");
            self.history.remove(index);
        }
        self.forget_custom();
    }

    /// What tag and digest in the service's own lines mean, when they were written by hand: the
    /// entry that has the tag, else the one that has the digest, which is called so now, else a new
    /// release. None where that cannot be told.
    pub fn meant(&self, tag: &str, digest: &str) -> Option<Self> {
        let mut meant = self.clone();
        let named: Vec<usize> =
            (0..self.history.len()).filter(|index| self.history[*index].tag == tag).collect();
        match (named.as_slice(), self.has(digest)) {
            ([index], by_digest) if digest.is_empty() || by_digest.is_some() => {
                meant.set_cursor(*index);
            }
            ([], Some(index)) => {
                meant.set_cursor(index);
                meant.history[index].tag = tag.to_owned();
            }
            ([], None) if !digest.is_empty() && self.history.len() < LIMIT => {
                let (tag, digest) = (tag.to_owned(), digest.to_owned());
                meant.history.insert(0, Release { tag, digest, is_left: false });
                meant.current = 0;
            }
            _ => return None,
        }
        Some(meant)
    }

    /// An override holds for a digest.
    fn forget_custom(&mut self) {
        let now = self.now().map(|release| release.digest.clone());
        self.custom = self.custom.take().filter(|custom| now.as_ref() == Some(custom));
    }

    /// Rule 6: the cursor goes to the nearest older release that was not left.
    fn roll_back(&mut self) -> bool {
        let Some(target) = self.previous() else { return false };
        self.history[self.current].is_left = true;
        self.current = target;
        self.forget_custom();
        true
    }

    /// Rule 6: to an older one, leaving what it passes; to a newer one, which counts again.
    fn go_to(&mut self, target: usize) {
        self.set_cursor(target);
        self.forget_custom();
    }

    fn set_cursor(&mut self, target: usize) {
        for passed in self.current..target {
            self.history[passed].is_left = true;
        }
        self.history[target].is_left = false;
        self.current = target;
    }
}

/// What the manifest says: services by their names.
pub type Record = BTreeMap<&'static str, Service>;

/// What a registry has in one repository.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub tags: BTreeMap<String, String>,
    pub digests: BTreeSet<String>,
}

impl Repository {
    /// The version that names `digest`: the highest, and of its forms the most specific.
    fn version_of(&self, digest: &str) -> Option<String> {
        let named = self.tags.iter().filter(|(_, named)| *named == digest).map(|(tag, _)| tag);
        named.filter(|tag| is_version(tag)).max_by_key(|tag| order(tag)).cloned()
    }
}

pub fn is_version(tag: &str) -> bool {
    tag.starts_with(|first: char| first.is_ascii_digit())
}

fn order(tag: &str) -> (Vec<u64>, usize) {
    let mut numbers: Vec<u64> =
        tag.split('.').map(|part| part.parse().expect("a version of ours")).collect();
    let specific = numbers.len();
    numbers.resize(3, 0);
    (numbers, specific)
}

/// The registry as it is, and what stands between it and dkv.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub repositories: BTreeMap<&'static str, Repository>,
    pub is_away: bool,
    /// Lies in a way that may or may not matter to a command.
    pub is_lying: bool,
}

/// Everything that a command is judged by.
#[derive(Clone, Debug)]
pub struct World {
    pub registry: Registry,
    /// Whether dkv can reach a daemon.
    pub has_daemon: bool,
    /// Digests by repository whose images the daemon has for certain.
    pub local: BTreeSet<(&'static str, String)>,
}

/// A command of dkv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    PullLatest {
        services: Vec<&'static str>,
        retry: bool,
        keep_going: bool,
    },
    VersionPull {
        service: &'static str,
        tag: String,
    },
    VersionSet {
        service: &'static str,
        tag: String,
        hold: bool,
    },
    Unhold {
        service: &'static str,
    },
    Rollback {
        services: Vec<&'static str>,
    },
    RollbackTo {
        service: &'static str,
        target: String,
    },
    ResolveTags,
    GenerateEnv,
    Pull {
        history: bool,
    },
    Look(&'static [&'static str]),
    CheckUpdates,
    /// `up`, `restart`, `start`: what is recorded runs then.
    Start(&'static str),
    Down,
    Prune,
}

impl Command {
    /// Its words; without a daemon it is told so where it can be.
    pub fn words(&self, has_daemon: bool) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut say = |part: &[&str]| words.extend(part.iter().map(|word| (*word).to_owned()));
        let mut pulls = false;
        match self {
            Self::PullLatest { services, retry, keep_going } => {
                say(&["pull-latest"]);
                say(services);
                say(if *retry { &["--retry"] } else { &[] });
                say(if *keep_going { &["--keep-going"] } else { &[] });
                pulls = true;
            }
            Self::VersionPull { service, tag } => {
                say(&["version-pull", service, tag]);
                pulls = true;
            }
            Self::VersionSet { service, tag, hold } => {
                say(&["version-set", service, tag, "--reason", "a patch"]);
                say(if *hold { &["--hold"] } else { &[] });
                pulls = true;
            }
            Self::Unhold { service } => say(&["unhold", service]),
            Self::Rollback { services } => {
                say(&["rollback", "-y"]);
                say(services);
            }
            Self::RollbackTo { service, target } => say(&["rollback-to", service, target, "-y"]),
            Self::ResolveTags => say(&["resolve-tags"]),
            Self::GenerateEnv => say(&["generate-env"]),
            Self::Pull { history } => {
                say(if *history { &["pull", "--history"] } else { &["pull"] })
            }
            Self::Look(words) => say(words),
            Self::CheckUpdates => say(&["check-updates", "--exit-code"]),
            Self::Start("up") => say(&["up", "--no-wait"]),
            Self::Start(word) => say(&[word, "--no-wait"]),
            Self::Down => say(&["down"]),
            Self::Prune => say(&["prune", "-y"]),
        }
        if pulls && !has_daemon {
            words.push("--no-pull".to_owned());
        }
        words
    }

    /// Whether it may change the record.
    pub fn records(&self) -> bool {
        !matches!(
            self,
            Self::GenerateEnv
                | Self::Pull { .. }
                | Self::Look(_)
                | Self::CheckUpdates
                | Self::Start(_)
                | Self::Down
                | Self::Prune
        )
    }

    /// Whether `versions.env` is the record's copy when it has succeeded.
    pub fn writes_env(&self) -> bool {
        self.records() || matches!(self, Self::GenerateEnv)
    }
}

/// One way in which a command may end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub record: Record,
    pub codes: Vec<i32>,
    /// What it made local, and so keeps.
    pub kept: Vec<(&'static str, String)>,
}

impl End {
    fn of(record: &Record, codes: &[i32]) -> Self {
        Self { record: record.clone(), codes: codes.to_vec(), kept: Vec::new() }
    }
}

/// The ways in which `command` may end, the usual one first.
pub fn ends(command: &Command, record: &Record, world: &World) -> Vec<End> {
    let honest = end(command, record, world);
    if !world.registry.is_lying || honest.codes == [5] {
        return vec![honest];
    }
    if *command == Command::CheckUpdates {
        return vec![End::of(record, &[0, 5, 9, 10])];
    }
    // A lie that is noticed changes nothing; one that concerns nothing new is not looked at.
    let mut all = vec![honest.clone(), End::of(record, &[5, 9])];
    if let Command::PullLatest { keep_going: true, .. } = command {
        let changed: Vec<&'static str> =
            record.keys().copied().filter(|name| honest.record[name] != record[name]).collect();
        for some in 0..1_usize << changed.len() {
            let mut partly = End { codes: vec![9], ..honest.clone() };
            let failed = changed.iter().enumerate().filter(|(at, _)| some >> at & 1 == 1);
            for (_, name) in failed {
                partly.record.insert(name, record[name].clone());
            }
            all.push(partly);
        }
    }
    all
}

fn end(command: &Command, record: &Record, world: &World) -> End {
    let mut new = record.clone();
    let done =
        |new: Record, kept: Vec<(&'static str, String)>| End { record: new, codes: vec![0], kept };
    let failed = |code: i32| End::of(record, &[code]);
    // The daemon is what makes images local, tells and starts.
    let needs_daemon = matches!(
        command,
        Command::Rollback { .. }
            | Command::RollbackTo { .. }
            | Command::Pull { .. }
            | Command::Start(_)
            | Command::Down
            | Command::Prune
    );
    match command {
        Command::PullLatest { services, retry, keep_going } => {
            let chosen: Vec<&'static str> = match services.is_empty() {
                true => record.keys().copied().collect(),
                false => services.clone(),
            };
            let (mut kept, mut failures, mut tried) = (Vec::new(), 0, 0);
            for name in chosen {
                let service = new.get_mut(name).expect("a service of the record");
                if service.is_held {
                    continue;
                }
                tried += 1;
                match latest(service, world) {
                    None => failures += 1,
                    Some((_, digest)) if service.rejected.contains(&digest) && !retry => {}
                    Some((tag, digest)) => {
                        service.advance(&tag, &digest);
                        service.rejected.remove(&digest);
                        kept.push((service.repository, digest));
                    }
                }
            }
            match failures {
                0 => done(new, kept),
                _ if *keep_going && failures < tried => End { record: new, codes: vec![9], kept },
                _ => failed(5),
            }
        }
        Command::VersionPull { service, tag } | Command::VersionSet { service, tag, .. } => {
            let service = new.get_mut(service).expect("a service of the record");
            let Some(digest) = asked(service.repository, tag, world) else { return failed(5) };
            service.advance(tag, &digest);
            match command {
                Command::VersionSet { hold, .. } => {
                    service.custom = Some(digest.clone());
                    service.is_held |= hold;
                }
                _ => service.is_held = false,
            }
            let kept = vec![(service.repository, digest)];
            done(new, kept)
        }
        Command::Unhold { service } => {
            new.get_mut(service).expect("a service of the record").is_held = false;
            done(new, Vec::new())
        }
        Command::Rollback { services } => {
            let chosen: Vec<&'static str> = match services.is_empty() {
                true => record.keys().copied().collect(),
                false => services.clone(),
            };
            let moved: Vec<&str> = chosen
                .into_iter()
                .filter(|name| new.get_mut(name).expect("a service").roll_back())
                .collect();
            if moved.is_empty() {
                return failed(3);
            }
            if !world.has_daemon {
                return failed(6);
            }
            fetched(&moved, record, new, world)
        }
        Command::RollbackTo { service: name, target } => {
            let service = new.get_mut(name).expect("a service of the record");
            let known = service
                .history
                .iter()
                .position(|release| release.tag == *target || release.digest == *target);
            if let Some(index) = known {
                if index == service.current {
                    return done(new, Vec::new());
                }
                service.go_to(index);
            } else if !world.has_daemon {
                return End::of(record, &[5, 6]);
            } else {
                let Some(digest) = asked(service.repository, target, world) else {
                    return failed(5);
                };
                // Under another name it is a release of the history.
                match service.has(&digest) {
                    Some(index) => {
                        service.go_to(index);
                        service.history[index].tag = target.clone();
                    }
                    None => service.advance(target, &digest),
                }
            }
            if !world.has_daemon {
                return failed(6);
            }
            fetched(&[name], record, new, world)
        }
        Command::ResolveTags => {
            let mut is_asked = false;
            for service in new.values_mut() {
                let (current, track) = (service.current, service.track.clone());
                let repository = &world.registry.repositories[service.repository];
                let Some(release) = service.history.get_mut(current) else { continue };
                // A version that is followed as such is asked about, and stays.
                is_asked |= release.tag == track || !is_version(&release.tag);
                if is_version(&release.tag) {
                    continue;
                }
                if let Some(version) = repository.version_of(&release.digest) {
                    release.tag = version;
                }
            }
            if is_asked && world.registry.is_away { failed(5) } else { done(new, Vec::new()) }
        }
        Command::CheckUpdates if world.registry.is_away => failed(5),
        Command::CheckUpdates => {
            let states = record.values().filter(|service| !service.is_held).map(|service| {
                let (_, digest) = latest(service, world)?;
                let now = service.now().map(|now| &now.digest);
                Some(now != Some(&digest) && !service.rejected.contains(&digest))
            });
            let states: Vec<Option<bool>> = states.collect();
            let unknown = states.iter().filter(|state| state.is_none()).count();
            match unknown {
                _ if states.contains(&Some(true)) && unknown == 0 => failed(10),
                0 => failed(0),
                _ if unknown == record.len() => failed(5),
                _ => End::of(record, &[5, 9, 10]),
            }
        }
        _ if needs_daemon && !world.has_daemon => failed(6),
        Command::Pull { .. } | Command::Start(_) => {
            let all = matches!(command, Command::Pull { history: true });
            let wanted = record.values().flat_map(|service| {
                let releases = service.history.iter().enumerate();
                let releases = releases.filter(move |(index, _)| all || *index == service.current);
                releases.map(|(_, release)| (service.repository, release.digest.clone()))
            });
            let wanted: Vec<(&'static str, String)> = wanted.collect();
            match wanted.iter().all(|one| can_be_had(one, world)) {
                true => done(new, wanted),
                // Others may be here, or have come.
                false => failed(5),
            }
        }
        // Where Compose takes too long, not everything is compared.
        Command::Look(["verify"]) => End::of(record, &[0, 6, 10]),
        Command::Look(_) => End::of(record, &[0]),
        Command::GenerateEnv | Command::Down | Command::Prune => done(new, Vec::new()),
    }
}

/// Everything that `moved` services go to is made local first, or nothing is recorded.
fn fetched(moved: &[&str], old: &Record, new: Record, world: &World) -> End {
    let targets = moved.iter().filter_map(|name| {
        let service = &new[name];
        Some((service.repository, service.now()?.digest.clone()))
    });
    let targets: Vec<(&'static str, String)> = targets.collect();
    match targets.iter().all(|one| can_be_had(one, world)) {
        true => End { record: new, codes: vec![0], kept: targets },
        false => End::of(old, &[5]),
    }
}

fn can_be_had(one: &(&'static str, String), world: &World) -> bool {
    let there =
        !world.registry.is_away && world.registry.repositories[one.0].digests.contains(&one.1);
    there || world.local.contains(one)
}

/// What a tag names now, if the registry says so.
fn asked(repository: &str, tag: &str, world: &World) -> Option<String> {
    let found = world.registry.repositories[repository].tags.get(tag).cloned();
    found.filter(|_| !world.registry.is_away)
}

/// The tag and the digest that following its tag gives a service.
fn latest(service: &Service, world: &World) -> Option<(String, String)> {
    let digest = asked(service.repository, &service.track, world)?;
    let repository = &world.registry.repositories[service.repository];
    let known = service.has(&digest).map(|index| service.history[index].tag.clone());
    // What is known by a version goes on being called so.
    if let Some(version) = known.clone().filter(|tag| is_version(tag)) {
        return Some((version, digest));
    }
    let version = repository.version_of(&digest).filter(|_| !is_version(&service.track));
    Some((version.or(known).unwrap_or_else(|| service.track.clone()), digest))
}
