//! Requests and times against a real registry behind a proxy that adds 50 ms to every round trip,
//! and against Compose doing the same in the same run: `tests/bench/run.sh network`.
//!
//! Counts are exact. Times are printed as ratios and in round trips; nothing is asserted about
//! them.

use std::time::Duration;

use crate::support::{Deployment, Image, Proxy, Registry};

const ROUND_TRIP: Duration = Duration::from_millis(50);
const NAMES: [&str; 8] = [
    "apigateway",
    "conv_mgr",
    "jobsched",
    "req_router",
    "settings",
    "taskservice",
    "vault",
    "wsfe",
];

pub fn run() {
    let registry = Registry::start();
    for name in NAMES {
        registry.push(Image::new(name).tag("1.0").tag("latest").payload(2_000_000));
    }
    let proxy = Proxy::to(&registry).latency(ROUND_TRIP);
    cold_pull(&registry, &proxy);
    warm(&registry, &proxy);
    fifth_newest(&registry);
}

fn product(topic: &str, proxy: &Proxy) -> Deployment {
    let deployment = Deployment::new(topic);
    let services: Vec<(&str, String)> =
        NAMES.iter().map(|name| (*name, proxy.repository(name))).collect();
    deployment.write_product(&services);
    deployment
}

/// Everything is fetched for the first time, by dkv and by Compose v2.
fn cold_pull(registry: &Registry, proxy: &Proxy) {
    let ours = {
        let deployment = product("bench-cold", proxy);
        proxy.reset();
        let outcome = deployment.dkv(["pull-latest", "-q"]).exit(0);
        println!(
            "cold pull-latest of 8 services: {:.2} s, {} requests",
            outcome.elapsed.as_secs_f64(),
            proxy.requests().len()
        );
        outcome.elapsed
    };
    for name in NAMES {
        // The daemon has no layer of the second round either.
        registry
            .push(Image::new(name).tag("1.0").tag("latest").version("again").payload(2_000_000));
    }
    let deployment = product("bench-cold-compose", proxy);
    proxy.reset();
    let theirs = deployment.compose_v2(["pull", "-q"]).exit(0).elapsed;
    println!(
        "cold `docker compose pull` of the same: {:.2} s, {} requests",
        theirs.as_secs_f64(),
        proxy.requests().len()
    );
    println!("dkv takes {:.2} times as long as Compose", ours.as_secs_f64() / theirs.as_secs_f64());
}

/// Nothing is new.
fn warm(_registry: &Registry, proxy: &Proxy) {
    let deployment = product("bench-warm", proxy);
    deployment.dkv(["pull-latest", "-q"]).exit(0);
    let round_trips = |elapsed: Duration| elapsed.as_secs_f64() / ROUND_TRIP.as_secs_f64();
    for (what, arguments) in [
        ("pull, everything local", vec!["pull", "-q"]),
        ("pull-latest, nothing new", vec!["pull-latest", "-q"]),
        ("check-updates, nothing new", vec!["check-updates", "-q"]),
    ] {
        let mut times = Vec::new();
        let mut requests = 0;
        for _ in 0..5 {
            proxy.reset();
            times.push(deployment.dkv(arguments.iter().copied()).exit(0).elapsed);
            requests = proxy.requests().len();
        }
        times.sort();
        println!(
            "{what}: {requests} requests, {:.1} ms, {:.1} round trips",
            times[2].as_secs_f64() * 1_000.0,
            round_trips(times[2])
        );
    }
    proxy.reset();
    let theirs = deployment.compose_v2(["pull", "-q"]).exit(0).elapsed;
    println!(
        "`docker compose pull`, nothing new: {} requests, {:.1} round trips",
        proxy.requests().len(),
        round_trips(theirs)
    );
}

/// `latest` is the fifth newest of 10,000 versions.
fn fifth_newest(registry: &Registry) {
    let old = registry.push(Image::new("many").tag("1.9995").tag("latest").version("fifth"));
    let new = registry.push(Image::new("many").tag("1.9999").version("newest"));
    registry.add_tags("many", (0..9_995).map(|number| format!("1.{number}")), &new.digest);
    registry.add_tags("many", (9_996..9_999).map(|number| format!("1.{number}")), &new.digest);
    let proxy = Proxy::to(registry).latency(ROUND_TRIP).tag_pages(1_000);
    let deployment = Deployment::new("bench-many");
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  many:\n    image: {}\n    current_tag: \
                latest\n    image_digest: {}\n",
            proxy.repository("many"),
            old.digest
        ),
    );
    let outcome = deployment.dkv(["resolve-tags"]).exit(0);
    outcome.stdout_contains("1.9995");
    println!(
        "resolve-tags, fifth newest of 10,000: {} pages + {} HEAD requests, {:.1} round trips",
        proxy.count("GET", "/tags/list"),
        proxy.count("HEAD", "/manifests/"),
        outcome.elapsed.as_secs_f64() / ROUND_TRIP.as_secs_f64()
    );
}
