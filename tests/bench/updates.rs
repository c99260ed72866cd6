//! Deliberately bad updates, one after the other: every one must end with the old version running and
//! healthy. `tests/bench/run.sh updates` prints how many did, and the median and the worst time.
//!
//! `DKV_BAD_UPDATES` says how many (20 by default; a release takes 200).

use std::time::Duration;

use crate::support::{Deployment, Health, Image, Registry};

pub fn run() {
    let count = std::env::var("DKV_BAD_UPDATES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_u32);
    let registry = Registry::start();
    let good = || Image::new("web").health(Health::Passing).health_interval_ms(200);
    registry.push(good().tag("1.0").tag("latest"));
    let deployment = Deployment::new("bench-bad");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest", "-q"]).exit(0);
    deployment.dkv(["up", "-q"]).exit(0);
    let mut times: Vec<Duration> = Vec::new();
    let mut restored = 0;
    for number in 0..count {
        let bad = Image::new("web").version(&format!("bad {number}")).tag("latest");
        registry.push(match number % 3 {
            0 => bad.crashing(3),
            1 => bad.health(Health::Failing).health_interval_ms(200),
            _ => bad.script("sleep 1; echo lost the database >&2; exit 1"),
        });
        let outcome = deployment.dkv(["update-safe", "--timeout", "3s", "-q"]).finish();
        let runs = deployment.engine().version(deployment.project(), "web");
        if outcome.code() == Some(7) && runs == "1.0" {
            restored += 1;
        } else {
            println!("update {number}: exit {:?}, {runs} runs\n{}", outcome.code(), outcome.stderr);
        }
        times.push(outcome.elapsed);
    }
    times.sort();
    let seconds = |index: usize| times.get(index).map_or(0.0, Duration::as_secs_f64);
    println!(
        "{count} bad updates: {restored} restored; whole command median {:.1} s, worst {:.1} s",
        seconds(times.len() / 2),
        seconds(times.len() - 1)
    );
}
