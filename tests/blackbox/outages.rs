//! An engine that fails at any call of an update: refused, done without an answer, hanging, gone.
//! Whatever it is, the exit code is true, the old version or the new one runs, and nothing is
//! rejected that has not failed by itself.
//!
//! A clean update is counted, then calls are failed one by one: some here, and all of them with
//! `DKV_TEST_OUTAGES=1` (every second one with `2`, and so on), which takes hours:
//! `DKV_TEST_OUTAGES=1 tests/run.sh outages:: -- --nocapture`.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::deployment::Compose;
use crate::support::{Daemon, Deployment, Door, Health, Outage, Registry};
use crate::update_safe::{Product, with_database};

/// How many calls of an update fail in turn, where not all do.
const SAMPLES: usize = 4;

/// How long an engine is away that comes back.
const AWAY: Duration = Duration::from_secs(3);

/// A new release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Good,
    /// It ends as soon as it is started.
    Bad,
}

/// A product whose updates go through the door.
struct Bench {
    product: Product,
    door: Door,
    /// The last version of `web` that was published.
    published: u32,
}

/// What must not change but by an update.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    version: String,
    recorded: String,
    others: [String; 2],
}

impl Bench {
    fn new(topic: &str) -> Self {
        let product = Product::with(topic, Compose::V2, with_database);
        Self { product, door: Door::open(), published: 1 }
    }

    fn standing(&self) -> Standing {
        Standing {
            version: self.product.version("web"),
            recorded: self.product.current_tag("web"),
            others: ["side", "db"].map(|name| self.product.container(name)),
        }
    }

    /// One update; what is wrong with its end, and how it ended.
    fn update(
        &mut self,
        release: Release,
        planned: Option<(usize, Outage)>,
    ) -> (Result<(), String>, String) {
        self.published += 1;
        let new = self.published.to_string();
        let old = self.standing();
        self.product.publish("web", &new, |image| match release {
            Release::Good => image.health(Health::Passing),
            Release::Bad => image.crashing(3),
        });
        self.door.fail(planned);
        let update = self.product.dkv(["update-safe", "--timeout", "20s"]);
        let outcome = update.env("DOCKER_HOST", self.door.host()).finish();
        let code = outcome.code().unwrap_or(-1);
        let rejected = self.product.deployment.manifest_data()["rejected"].clone();
        let is_rejected = rejected["web"][0]["tag"].as_str() == Some(&new);
        let is_other_rejected = !rejected["side"].is_null() || !rejected["db"].is_null();
        let (engine, project) =
            (self.product.deployment.engine(), self.product.deployment.project());
        // One of each, under its own name, and not down.
        let is_unwell = |name: &&str| {
            engine.containers(project, name) != [format!("{project}-{name}-1")]
                || self.product.health(name) == "unhealthy"
                || self.product.inspected(name)["State"]["Running"] != true
        };
        let unwell: Vec<&str> = ["web", "side", "db"].into_iter().filter(is_unwell).collect();
        let verdict = if !unwell.is_empty() {
            Err(format!("{} not well", unwell.join(", ")))
        } else if is_other_rejected || is_rejected && release == Release::Good {
            Err(format!("rejected: {rejected}"))
        } else if let Some(state) = self.product.journal_state() {
            Err(format!("the journal stays, at {state}"))
        } else {
            let now = self.standing();
            let updated =
                Standing { version: new.clone(), recorded: new, others: old.others.clone() };
            match code {
                0 if now == updated && release == Release::Good => Ok(()),
                // Said before anything was stopped, or after what ran is back.
                5..=7 if now == old => Ok(()),
                _ => Err(format!("was {old:?}, is {now:?}")),
            }
        };
        let hit = self.door.hit().unwrap_or_else(|| "nothing".to_owned());
        let told = format!("{planned:?} {hit}: exit {code} after {:?}", outcome.elapsed);
        (verdict.map_err(|wrong| format!("{told}: {wrong}\n{outcome}")), told)
    }
}

/// Fails the calls of updates with `release` one after the other.
fn fail_everywhere(topic: &str, release: Release, outage: Outage) {
    let mut bench = Bench::new(topic);
    let (clean, told) = bench.update(release, None);
    assert_eq!(clean, Ok(()), "{told}");
    let calls = bench.door.calls();
    let step = std::env::var("DKV_TEST_OUTAGES").ok().map(|step| step.parse().unwrap());
    let positions: Vec<usize> = match step {
        Some(step) => (1..=calls).step_by(step).collect(),
        None => (0..SAMPLES).map(|number| 1 + (2 * number + 1) * calls / (2 * SAMPLES)).collect(),
    };
    let mut wrong = Vec::new();
    for position in positions {
        let (verdict, told) = bench.update(release, Some((position, outage)));
        eprintln!("{release:?} {told}{}", if verdict.is_ok() { "" } else { " WRONG" });
        if let Err(why) = verdict {
            wrong.push(why);
            bench.mend();
        }
    }
    assert!(wrong.is_empty(), "{} of {calls} calls:\n{}", wrong.len(), wrong.join("\n"));
}

impl Bench {
    /// A whole state to go on from.
    fn mend(&self) {
        self.product.dkv(["update-safe", "--abort"]).finish();
        self.product.dkv(["restart"]).exit(0);
    }
}

#[test]
fn an_engine_that_refuses_any_call_leaves_a_whole_state() {
    fail_everywhere("refused", Release::Good, Outage::Refused);
}

#[test]
fn an_engine_that_refuses_any_call_of_a_bad_update_leaves_a_whole_state() {
    fail_everywhere("refused-bad", Release::Bad, Outage::Refused);
}

#[test]
fn an_engine_that_answers_any_call_by_silence_after_it_leaves_a_whole_state() {
    fail_everywhere("unanswered", Release::Good, Outage::Unanswered);
}

#[test]
fn an_engine_that_answers_any_call_of_a_bad_update_by_silence_leaves_a_whole_state() {
    fail_everywhere("unanswered-bad", Release::Bad, Outage::Unanswered);
}

#[test]
fn an_engine_that_goes_at_any_call_leaves_a_whole_state() {
    fail_everywhere("gone", Release::Good, Outage::Gone(AWAY));
}

#[test]
fn an_engine_that_goes_at_any_call_of_a_bad_update_leaves_a_whole_state() {
    fail_everywhere("gone-bad", Release::Bad, Outage::Gone(AWAY));
}

#[test]
fn logs_that_cannot_be_had_hold_up_neither_an_update_nor_a_restore() {
    let bench = Bench::new("no-logs");
    bench.door.silence("/logs");
    bench.product.publish("web", "2", |image| image.crashing(3));
    let update = bench.product.dkv(["update-safe", "--timeout", "20s"]);
    let failed = update.env("DOCKER_HOST", bench.door.host()).exit(7);
    failed.stderr_contains("the logs of containers that go are not saved completely");
    bench.product.assert_runs("1");
    let restored = failed.stderr.split("Restoring what ran before").nth(1).expect("a restore");
    assert!(!restored.contains("the logs of containers"), "{failed}");
    assert!(failed.elapsed < Duration::from_secs(100), "{failed}");
}

#[test]
fn one_refused_call_of_composes_does_not_undo_an_update() {
    let bench = Bench::new("once");
    for (part, version) in [("/containers/create", "2"), ("/rename", "3"), ("/start", "4")] {
        bench.product.publish("web", version, |image| image.health(Health::Passing));
        bench.door.refuse_once(part);
        let update = bench.product.dkv(["update-safe", "--no-data-backup", "--timeout", "20s"]);
        let done = update.env("DOCKER_HOST", bench.door.host()).exit(0);
        assert!(bench.door.hit().is_some(), "{part}: {done}");
        done.stderr_contains("trying again");
        bench.product.assert_runs(version);
        let project = bench.product.deployment.project();
        let names = bench.product.deployment.engine().containers(project, "web");
        assert_eq!(names, [format!("{project}-web-1")], "{part}: {done}");
    }
}

/// Whether everything is tried that takes hours.
fn is_by_hand() -> bool {
    std::env::var_os("DKV_TEST_OUTAGES").is_some()
}

/// A call that is never answered costs the minute after which it is given up, so that this is only
/// tried by hand.
#[test]
fn an_engine_that_never_answers_a_call_leaves_a_whole_state() {
    if is_by_hand() {
        fail_everywhere("hanging", Release::Good, Outage::Hanging);
    }
}

#[test]
fn an_engine_that_never_answers_a_call_of_a_bad_update_leaves_a_whole_state() {
    if is_by_hand() {
        fail_everywhere("hanging-bad", Release::Bad, Outage::Hanging);
    }
}

/// Restarts a daemon in each of these states of an update; `policy` is the services' restart
/// policy.
fn restarted(policy: &str, states: &[&str]) {
    disturbed(&format!("restarted-{policy}"), policy, states, Daemon::restart);
}

/// Does something to a daemon in each of these states of an update; `policy` is the services'
/// restart policy.
fn disturbed(topic: &str, policy: &str, states: &[&str], mut disturb: impl FnMut(&mut Daemon)) {
    let mut daemon = Daemon::private();
    let deployment = Deployment::on(daemon.engine(), topic);
    let product = Product::on(deployment, Registry::start(), Compose::V2).start(|product| {
        if states.contains(&"saving") {
            with_database(product);
        }
        let file = product.deployment.read("docker-compose.yml");
        let restart = format!("    stop_grace_period: 1s\n    restart: '{policy}'\n");
        let file = file.replace("  side:", &format!("{restart}  side:")).trim_end().to_owned();
        product.deployment.write("docker-compose.yml", &(file + "\n" + &restart));
    });
    for (state, version) in states.iter().zip(2_u32..) {
        let old = product.version("web");
        let new = version.to_string();
        product.publish("web", &new, |image| match *state {
            "restoring" => image.health(Health::Failing),
            _ => image.health(Health::FromProbe(3)),
        });
        let mut update = product.dkv(["update-safe", "--timeout", "30s"]);
        if *state == "recording" {
            // It is over in a moment otherwise.
            let slow = "inject=rename:delay_enter=1000000";
            let new = product.deployment.path(".version-manifest.yaml.dkv-new");
            let new = new.display().to_string();
            update =
                update.under_strace(["-f", "-qq", "-P", &new, "-e", "trace=rename", "-e", slow]);
        }
        let running = product.stop_in(state, update, Signal::CONT);
        disturb(&mut daemon);
        let outcome = running.finish();
        let code = outcome.code();
        // Before anything is stopped an engine that is away is an engine that is away.
        let is_early = matches!(*state, "preparing" | "saving");
        let is_true = matches!(code, Some(0 | 7)) || is_early && code == Some(6);
        assert!(is_true, "{policy} {state}: {outcome}");
        let expected = if code == Some(0) { &new } else { &old };
        product.assert_runs(expected);
        assert_eq!(product.current_tag("web"), *expected, "{policy} {state}: {outcome}");
        let side = &product.inspected("side")["State"]["Running"];
        assert_eq!(*side, true, "{policy} {state}: {outcome}");
        let rejected = product.deployment.manifest_data()["rejected"]["web"].clone();
        let is_bad = *state == "restoring";
        assert!(rejected.is_null() || is_bad, "{policy} {state}: {rejected}\n{outcome}");
    }
}

#[test]
fn a_daemon_that_is_restarted_leaves_what_has_a_restart_policy_whole() {
    restarted("unless-stopped", &["replacing", "judging", "restoring"]);
}

#[test]
fn a_daemon_that_is_restarted_leaves_what_has_no_restart_policy_whole() {
    restarted("no", &["judging", "replacing", "restoring"]);
}

#[test]
fn a_daemon_that_is_restarted_early_or_late_leaves_a_whole_state() {
    let states: &[&str] =
        if is_by_hand() { &["preparing", "saving", "recording"] } else { &["saving"] };
    restarted("always", states);
}

#[test]
fn a_daemon_that_is_frozen_for_seconds_holds_an_update_up_and_no_more() {
    let frozen = |daemon: &mut Daemon| {
        daemon.signal(Signal::STOP);
        thread::sleep(AWAY);
        daemon.signal(Signal::CONT);
    };
    disturbed("frozen", "no", &["preparing", "saving", "recording"], frozen);
}
