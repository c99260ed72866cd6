//! The world of one history: engines, a registry, a disk, signals, and the time that passes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use super::engine::Engine;
use super::random::Random;
use super::registry::Registry;
use super::scenario::{ENGINES, EngineFault, Faults, Kill, RegistryFault, Scenario};
use crate::interruption::Interruption;

/// What ends a command without a word, as SIGKILL does.
pub(super) struct Killed;

/// Why an engine does not do what it is asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It says so.
    Answer(u16, String),
    /// It is away, or goes away in the middle.
    Broken,
}

pub(crate) struct World {
    pub(super) scenario: Scenario,
    /// When the history begins, by the clock of its world.
    base: DateTime<Utc>,
    begun: Instant,
    state: Mutex<State>,
    /// Changes whenever a container does.
    changed: watch::Sender<u64>,
    /// Whether the command was killed.
    killed: watch::Sender<bool>,
    /// How often connections to the engines were broken off.
    breaks: watch::Sender<u64>,
    /// How many signals were sent.
    signals: watch::Sender<u64>,
}

pub(super) struct State {
    pub(super) engines: BTreeMap<String, Engine>,
    pub(super) registry: Registry,
    pub(super) random: Random,
    /// The variables of the shell that the command was started from.
    pub(super) shell: BTreeMap<String, String>,
    pub(super) interruption: Option<Interruption>,
    /// What the command has said.
    pub(super) said: String,
    /// What happened, line by line.
    pub(super) trace: Vec<String>,
    /// How many Compose processes are under way.
    pub(super) composes: Vec<tokio::task::AbortHandle>,
    pub(super) counted: Counted,
    faults: Faults,
    errors_left: u32,
    writes_to_fail: u64,
}

/// How much a command has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    calls: u64,
    requests: u64,
    writes: u64,
    pub(super) effects: u64,
}

impl World {
    pub(super) fn new(seed: u64, scenario: Scenario) -> Arc<Self> {
        let registry = Registry::of(&scenario);
        let engines = ENGINES.map(|name| (name.to_owned(), Engine::new(name)));
        let state = State {
            engines: engines.into(),
            registry,
            random: Random::of(seed ^ 0xdead_beef),
            shell: scenario.shell.clone(),
            interruption: None,
            said: String::new(),
            trace: Vec::new(),
            composes: Vec::new(),
            counted: Counted::default(),
            faults: Faults::default(),
            errors_left: 0,
            writes_to_fail: 0,
        };
        Arc::new(Self {
            scenario,
            base: "2026-02-03T04:05:06Z".parse().unwrap(),
            begun: Instant::now(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            killed: watch::Sender::new(false),
            breaks: watch::Sender::new(0),
            signals: watch::Sender::new(0),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.base + TimeDelta::from_std(self.begun.elapsed()).unwrap()
    }

    pub(super) fn note(&self, what: impl AsRef<str>) {
        let line = format!("{:9.3} {}", self.begun.elapsed().as_secs_f64(), what.as_ref());
        self.state().trace.push(line);
    }

    /// The engine that the deployment runs on.
    pub(super) fn home(&self) -> String {
        let host = self.scenario.shell.get("DOCKER_HOST");
        host.map_or(ENGINES[1], |host| host.trim_start_matches("unix://")).to_owned()
    }

    /// A command begins in `shell`, with what goes wrong for it.
    pub(super) fn begin(
        &self,
        shell: BTreeMap<String, String>,
        faults: Faults,
        interruption: Interruption,
    ) {
        let mut state = self.state();
        state.shell = shell;
        state.faults = faults;
        state.counted = Counted::default();
        (state.errors_left, state.writes_to_fail) = (0, 0);
        state.interruption = Some(interruption);
        drop(state);
        self.killed.send_replace(false);
    }

    /// Nothing goes wrong any more; an engine that is away comes back in its time.
    pub(super) fn calm(&self) {
        let mut state = self.state();
        state.faults = Faults::default();
        (state.errors_left, state.writes_to_fail) = (0, 0);
    }

    /// Waits until the command is killed.
    pub(super) async fn killed(&self) {
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    pub(super) fn is_killed(&self) -> bool {
        *self.killed.borrow()
    }

    pub(super) fn change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits for the next signal.
    pub(super) async fn signalled(&self) {
        let mut signals = self.signals.subscribe();
        signals.mark_unchanged();
        let _ = signals.changed().await;
    }

    /// Waits until connections are broken off. All engines are one host.
    pub(super) async fn breaks_off(&self, _engine: &str) {
        let mut breaks = self.breaks.subscribe();
        breaks.mark_unchanged();
        let _ = breaks.changed().await;
    }

    /// Whether the engine accepts a connection.
    pub(super) fn is_away(&self, engine: &str) -> bool {
        let until = self.state().engines.get(engine).and_then(|engine| engine.away_until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// One call of an engine: `act`, unless something goes wrong.
    pub(super) async fn call<T>(
        self: &Arc<Self>,
        engine: &str,
        what: &str,
        changes: bool,
        act: impl FnOnce(&mut Engine, &Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let latency = Duration::from_millis(self.state().random.within(1, 5));
        tokio::time::sleep(latency).await;
        if self.is_away(engine) {
            return Err(Refusal::Broken);
        }
        let fault = {
            let mut state = self.state();
            let number = state.counted.calls;
            state.counted.calls += 1;
            let fault = state.faults.engine.remove(&number);
            if let Some(EngineFault::Errors(count)) = fault {
                state.errors_left = count;
            }
            if state.errors_left > 0 {
                state.errors_left -= 1;
                Some(EngineFault::Errors(1))
            } else {
                fault
            }
        };
        if let Some(fault) = fault {
            self.note(format!("engine: {fault:?} at {what}"));
        }
        match fault {
            Some(EngineFault::Errors(_)) => {
                return Err(Refusal::Answer(500, "the engine has a bad moment".to_owned()));
            }
            Some(EngineFault::Hangs(time)) => tokio::time::sleep(time).await,
            Some(EngineFault::Away(time)) => {
                self.go_away(engine, time, false);
                return Err(Refusal::Broken);
            }
            Some(EngineFault::Restarts(time)) => {
                self.go_away(engine, time, true);
                return Err(Refusal::Broken);
            }
            Some(EngineFault::Lost) | None => {}
        }
        if changes {
            self.note(format!("engine: {what}"));
            self.effect();
            if self.is_killed() {
                // A killed command's request may still be carried out; Compose's goes on.
                tokio::task::yield_now().await;
            }
        }
        let outcome = {
            let mut state = self.state();
            let engine = state.engines.get_mut(engine).ok_or(Refusal::Broken)?;
            act(engine, self)
        };
        if changes {
            self.change();
        }
        match fault {
            Some(EngineFault::Lost) => Err(Refusal::Broken),
            _ => outcome,
        }
    }

    fn go_away(self: &Arc<Self>, engine: &str, time: Duration, restarts: bool) {
        let until = Instant::now() + time;
        let mut state = self.state();
        let Some(found) = state.engines.get_mut(engine) else { return };
        found.away_until = Some(until);
        if restarts {
            let come_back = found.shut_down(self.now());
            let (world, name) = (Arc::clone(self), engine.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep_until(until).await;
                for id in come_back {
                    let mut state = world.state();
                    let Some(engine) = state.engines.get_mut(&name) else { continue };
                    let _ = engine.start(&id, &world);
                }
                world.change();
            });
        }
        drop(state);
        self.breaks.send_modify(|count| *count += 1);
        self.change();
    }

    /// Something is about to be done that stays. Signals come then, and so does the end.
    fn effect(self: &Arc<Self>) {
        let (number, signals, kill) = {
            let mut state = self.state();
            let number = state.counted.effects;
            state.counted.effects += 1;
            let due = state.faults.signals.iter().filter(|(at, _)| *at == number);
            let signals: Vec<Duration> = due.map(|(_, delay)| *delay).collect();
            let kill = state.faults.kill.filter(|kill| kill.at == number);
            (number, signals, kill)
        };
        for delay in signals {
            let interruption = self.state().interruption.clone();
            let world = Arc::clone(self);
            self.note(format!("a signal in {delay:?}, at effect {number}"));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                world.note("signal");
                world.signals.send_modify(|count| *count += 1);
                interruption.inspect(Interruption::raise);
            });
        }
        if let Some(kill) = kill {
            self.kill(kill);
        }
    }

    fn kill(&self, kill: Kill) {
        self.note(format!("killed: {kill:?}"));
        if kill.with_compose {
            let composes = std::mem::take(&mut self.state().composes);
            composes.iter().for_each(tokio::task::AbortHandle::abort);
        }
        self.killed.send_replace(true);
    }

    /// A write to the disk of the deployment.
    pub(super) fn write(self: &Arc<Self>, what: &str) -> io::Result<()> {
        let fails = {
            let mut state = self.state();
            let number = state.counted.writes;
            state.counted.writes += 1;
            if let Some(count) = state.faults.disk.remove(&number) {
                state.writes_to_fail = count;
            }
            let fails = state.writes_to_fail > 0;
            state.writes_to_fail = state.writes_to_fail.saturating_sub(1);
            fails
        };
        self.note(format!("disk: {what}{}", if fails { ": full" } else { "" }));
        if fails {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.effect();
        if self.is_killed() {
            std::panic::resume_unwind(Box::new(Killed));
        }
        Ok(())
    }

    /// What goes wrong at the registry's next answer.
    pub(super) fn registry_fault(&self) -> Option<RegistryFault> {
        let mut state = self.state();
        let number = state.counted.requests;
        state.counted.requests += 1;
        state.faults.registry.remove(&number)
    }
}
