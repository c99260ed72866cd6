//! Updates: how long a changed service is away, against Compose doing the same by hand, and whether
//! deliberately bad updates, one after the other, all end with the old version running and healthy.
//!
//! `DKV_BAD_UPDATES` says how many bad ones (20 by default; a release takes 200),
//! `DKV_GOOD_UPDATES` how many good ones of each kind (10).

use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::{self, Deployment, Health, Image, Registry};

const INTERVAL_MS: u64 = 200;
/// The first probe that passes after the window in which a release is on trial.
const LATE: u32 = 28;

pub fn run() {
    returning(count("DKV_GOOD_UPDATES", 10));
    downtime(count("DKV_GOOD_UPDATES", 10));
    bad_updates(count("DKV_BAD_UPDATES", 20));
}

fn count(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn good() -> Image {
    Image::new("web").tag("latest").health(Health::Passing).health_interval_ms(INTERVAL_MS)
}

/// A deployment of one service, `web`, that runs a good release.
fn running(registry: &Registry, topic: &str) -> Deployment {
    registry.push(good().version("good 0").tag("1.0"));
    let deployment = Deployment::new(topic);
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest", "-q"]).exit(0);
    deployment.dkv(["up", "-q"]).exit(0);
    deployment
}

/// From the daemon's word that the last container is healthy, which it is only after its trial, to
/// the end of `update-safe`.
fn returning(count: u32) {
    let registry = Registry::start();
    let deployment = running(&registry, "bench-return");
    let mut times = Vec::new();
    for number in 1..=count {
        let late = Image::new("web")
            .tag("latest")
            .health(Health::FromProbe(LATE))
            .health_interval_ms(INTERVAL_MS);
        registry.push(late.version(&format!("late {number}")));
        let since = SystemTime::now();
        deployment.dkv(["update-safe", "-q"]).exit(0);
        let ended = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("a clock past 1970")
            .as_secs_f64();
        let healthy = moments(&deployment, since, "health_status: healthy")
            .into_iter()
            .fold(f64::NEG_INFINITY, f64::max);
        times.push(ended - healthy);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!(
        "{count} updates: from the last container's health to the end {:.0} ms, worst {:.0} ms",
        median(times) * 1e3,
        worst * 1e3
    );
}

/// The same good releases, put in place by `update-safe` and by `docker compose pull` and `up -d`,
/// in turns.
fn downtime(count: u32) {
    let registry = Registry::start();
    let safe = running(&registry, "bench-safe");
    let by_hand = Deployment::new("bench-hand");
    by_hand.write(
        "docker-compose.yml",
        &format!("services: {{web: {{image: '{}:latest'}}}}\n", registry.repository("web")),
    );
    by_hand.compose_v2(["up", "-d"]).exit(0);
    let (mut with_dkv, mut with_compose) = (Vec::new(), Vec::new());
    for number in 1..=count {
        registry.push(good().version(&format!("good {number}")));
        let since = SystemTime::now();
        safe.dkv(["update-safe", "-q"]).exit(0);
        with_dkv.push(away(&safe, since));

        let since = SystemTime::now();
        by_hand.compose_v2(["pull", "-q"]).exit(0);
        by_hand.compose_v2(["up", "-d"]).exit(0);
        support::wait_for("a healthy container", Duration::from_secs(30), || {
            is_healthy(&by_hand).then_some(())
        });
        with_compose.push(away(&by_hand, since));
    }
    for (what, of) in [
        ("until it runs again", Away::running as fn(&Away) -> f64),
        ("until it is healthy", Away::healthy),
    ] {
        let median = |times: &[Away]| median(times.iter().map(of).collect());
        let (dkv, compose) = (median(&with_dkv), median(&with_compose));
        println!(
            "{count} good updates, {what}: update-safe {dkv:.2} s, docker compose up -d \
                {compose:.2} s: {:.2} times",
            dkv / compose
        );
    }
}

/// How long `web` was away, in seconds since its old container ended, by the daemon's clock.
struct Away {
    running: f64,
    healthy: f64,
}

impl Away {
    fn running(&self) -> f64 {
        self.running
    }

    fn healthy(&self) -> f64 {
        self.healthy
    }
}

fn away(deployment: &Deployment, since: SystemTime) -> Away {
    let times = |action: &str| moments(deployment, since, action);
    let ended = times("die").into_iter().fold(f64::NEG_INFINITY, f64::max);
    let first = |action: &str| {
        times(action).into_iter().filter(|time| *time > ended).fold(f64::INFINITY, f64::min)
    };
    Away { running: first("start") - ended, healthy: first("health_status: healthy") - ended }
}

/// When `action` happened to the deployment's containers, in seconds since 1970.
fn moments(deployment: &Deployment, since: SystemTime, action: &str) -> Vec<f64> {
    let events = deployment.engine().events_since(since);
    let is_mine = |event: &&Value| {
        event["Actor"]["Attributes"]["com.docker.compose.project"] == deployment.project()
    };
    let matching = events
        .iter()
        .filter(is_mine)
        .filter(|event| event["Action"].as_str().is_some_and(|word| word.starts_with(action)));
    let time = |event: &Value| {
        Duration::from_nanos(event["timeNano"].as_i64().unwrap_or_default().unsigned_abs())
    };
    matching.map(|event| time(event).as_secs_f64()).collect()
}

fn is_healthy(deployment: &Deployment) -> bool {
    let containers = deployment.engine().containers(deployment.project(), "web");
    let states = deployment.engine().docker(&[
        "inspect",
        "--format",
        "{{.State.Health.Status}}",
        &containers[0],
    ]);
    states == "healthy"
}

fn bad_updates(count: u32) {
    let registry = Registry::start();
    let deployment = running(&registry, "bench-bad");
    let (mut whole, mut restore) = (Vec::new(), Vec::new());
    let mut restored = 0;
    for number in 0..count {
        let bad = Image::new("web")
            .version(&format!("bad {number}"))
            .tag("latest")
            .health_interval_ms(INTERVAL_MS);
        registry.push(match number % 5 {
            0 => bad.crashing(3),
            1 => bad.health(Health::Failing),
            2 => bad.script("sleep 1; echo lost the database >&2; exit 1"),
            3 => bad.health(Health::Flapping(2)),
            _ => bad.script("echo nothing to serve"),
        });
        let started = Instant::now();
        let mut update = deployment.dkv(["update-safe", "--timeout", "3s"]).spawn();
        let mut begun = None;
        while update.is_running() {
            if begun.is_none() && update.output().contains("Restoring") {
                begun = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let ended = Instant::now();
        let outcome = update.finish();
        let runs = deployment.engine().version(deployment.project(), "web");
        if outcome.code() == Some(7) && runs == "good 0" && is_healthy(&deployment) {
            restored += 1;
        } else {
            println!("update {number}: exit {:?}, {runs} runs\n{}", outcome.code(), outcome.stderr);
        }
        whole.push((ended - started).as_secs_f64());
        restore.extend(begun.map(|begun| (ended - begun).as_secs_f64()));
    }
    for (what, times) in [("whole command", whole), ("from the decision to go back", restore)] {
        let worst = times.iter().copied().fold(0.0, f64::max);
        println!(
            "{count} bad updates, {restored} restored; {what}: median {:.1} s, worst {worst:.1} s",
            median(times)
        );
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
