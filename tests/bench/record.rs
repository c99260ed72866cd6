//! How long reading and recording take as a manifest grows: `tests/bench/run.sh record`.
//!
//! Prints the median of several runs for each size, and what a service costs at the largest size as
//! a ratio to the smallest: about 1 if the work is linear.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use dkv::fuzzing::{Bytes, Digest, Listing, Manifest, Release, Service};

const RUNS: usize = 9;
const SIZES: [usize; 4] = [250, 500, 1_000, 2_000];

pub fn run() {
    println!("{:>8} {:>10} {:>10} {:>14}", "services", "KiB", "read ms", "record all ms");
    let mut costs = Vec::new();
    for size in SIZES {
        let text = manifest(size);
        let read = median(|| drop(Manifest::read(text.as_bytes()).expect("a manifest of our own")));
        let parsed = Manifest::read(text.as_bytes()).expect("a manifest of our own");
        let changed: Vec<Service> = parsed.services.values().map(advanced).collect();
        let record = median(|| {
            let written = parsed.with(&changed, &Listing::default()).expect("an edit of our own");
            assert_eq!(written.matches("# kept").count(), size, "comments are kept");
        });
        println!(
            "{size:>8} {:>10} {:>10.1} {:>14.1}",
            text.len() / 1024,
            millis(read),
            millis(record)
        );
        costs.push(millis(record) / f64::from(u32::try_from(size).expect("a small number")));
    }
    if let [first, .., last] = costs.as_slice() {
        println!(
            "a service at {} services costs {:.2} times what it costs at {}",
            SIZES[3],
            last / first,
            SIZES[0]
        );
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

/// A manifest of `size` services, each with a comment and five releases.
fn manifest(size: usize) -> String {
    let mut text = String::from("schema_version: '1.1'\ndeployment_id: bench\nservices:\n");
    let digest =
        |service: usize, release: usize| Digest::of(format!("{service}/{release}").as_bytes());
    for service in 0..size {
        let _ = write!(
            text,
            "  service_{service}: # kept\n    image: \
                registry.example/bench/service_{service}\n    current_tag: '1.5'\n    \
             image_digest: {}\n    deployed_at: '2026-01-12T12:29:08Z'\n    deployed_by: alice\n",
            digest(service, 5)
        );
    }
    text.push_str("history:\n");
    for service in 0..size {
        let _ = writeln!(text, "  service_{service}:");
        for release in (1..=5).rev() {
            let status = if release == 5 { "current" } else { "archived" };
            let _ = writeln!(
                text,
                "  - {{tag: '1.{release}', digest: '{}', deployed_at: '2026-01-12T12:29:08Z', \
                    deployed_by: alice, status: {status}}}",
                digest(service, release)
            );
        }
    }
    text
}

/// The service with a new release in front.
fn advanced(service: &Service) -> Service {
    let mut after = service.clone();
    let digest = Digest::of(service.name.as_str().as_bytes());
    let mut release = Release::new("1.6".parse().expect("a tag"), Bytes::of(Some(digest)));
    release.deployed_at = Some("2026-02-01T00:00:00Z".to_owned());
    release.deployed_by = Some("bob".to_owned());
    after.history.advance(release, |_| false);
    after
}
