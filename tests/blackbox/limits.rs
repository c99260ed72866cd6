//! What a registry can cost at most: a minute, or what is given it, and 64 MB.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::support::http::{self, Listener, Request, Response};
use crate::support::token::TokenServer;
use crate::support::{Deployment, Fault, Image, On, Outcome, Proxy, Registry};

/// What dkv may hold at any moment, in kB.
const MEMORY: u64 = 64 * 1024;

/// A deployment of these services, whose images `registry` has under their names.
fn deployment(registry: &str, services: &[&str]) -> Deployment {
    let deployment = Deployment::new("limits");
    let service = |name: &&str| format!("  {name}:\n    image: {registry}/{name}\n");
    let services: String = services.iter().map(service).collect();
    deployment
        .write("version-manifest.yaml", &format!("schema_version: '1.1'\nservices:\n{services}"));
    deployment
}

/// Runs dkv; how it ended, and the most memory that it held, in kB.
#[track_caller]
fn peak(deployment: &Deployment, code: i32, arguments: &[&str]) -> (Outcome, u64) {
    let mut running = deployment.dkv(arguments.iter().copied()).spawn();
    let status = format!("/proc/{}/status", running.pid());
    let mut peak = 0;
    while running.is_running() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak = line.trim().trim_end_matches(" kB").parse().unwrap_or(peak);
        thread::sleep(Duration::from_millis(2));
    }
    assert!(peak > 0, "no sign of it");
    (running.exit(code), peak)
}

/// A registry whose repositories all have one image, as any tag, and the pages of tags that `page`
/// makes of their numbers: the tags as JSON, and whether there are more.
fn registry(page: impl Fn(usize) -> (String, bool) + Send + Sync + 'static) -> Listener {
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    http::serve(move |request: &Request| {
        if !request.target.contains("/tags/list") {
            let config = request.target.contains("/blobs/");
            let body = if config { "{}" } else { manifest };
            return Response::new(200, "application/vnd.oci.image.manifest.v1+json", body);
        }
        let number = request.target.split("last=").nth(1).map_or(0, |last| last.parse().unwrap());
        let (tags, has_more) = page(number);
        let response = Response::new(200, "application/json", format!(r#"{{"tags":[{tags}]}}"#));
        let next = format!("<?n=1000&last={}>; rel=next", number + 1);
        if has_more { response.with_header("Link", &next) } else { response }
    })
}

/// However a registry drags it out, the command ends in the time that it gives one registry, and
/// says which it was.
#[test]
fn a_registry_has_one_budget_for_all_that_it_is_asked() {
    let real = Registry::start();
    for name in ["a", "b", "c"] {
        real.push(Image::new(name).tag("1.0").tag("latest"));
    }
    let proxy = Proxy::to(&real);
    let prefix = proxy.repository("x").trim_end_matches("/x").to_owned();
    let deployment = deployment(&prefix, &["a", "b", "c"]);
    let drip = || Fault::Drip(Duration::from_millis(200));
    let command = ["pull-latest", "--no-pull", "--registry-timeout", "3s", "--jobs", "1"];
    let host = proxy.address().to_string();
    for slow in ["/manifests/", "/blobs/"] {
        proxy.reset();
        proxy.fault(On::target("/manifests/").method("HEAD"), Fault::status(405));
        proxy.fault(On::target(slow).method("GET"), drip());
        let before = deployment.manifest();
        let outcome = deployment.dkv(command).exit(5);
        outcome.stderr_contains(&format!("{host} has taken its 3 s"));
        outcome.stderr_contains("--registry-timeout");
        assert!(outcome.elapsed < Duration::from_secs(9), "{slow}: {outcome}");
        assert_eq!(deployment.manifest(), before);
    }
    // A list of tags that does not come costs the version's name, as any that cannot be had.
    proxy.reset();
    proxy.fault(On::target("/tags/list").method("GET"), drip());
    let outcome = deployment.dkv(command).exit(0);
    outcome.stdout_contains("unresolved").stdout_contains(&format!("{host} has taken its 3 s"));
    assert!(outcome.elapsed < Duration::from_secs(9), "{outcome}");
    // As many pages as it likes, each of them soon.
    let endless = registry(|number| {
        thread::sleep(Duration::from_millis(50));
        (format!("\"t{number}\""), true)
    });
    let deployment = self::deployment(&endless.address().to_string(), &["a", "b"]);
    let outcome = deployment.dkv(command).exit(0);
    let said = format!("incomplete: {} has taken its 3 s", endless.address());
    outcome.stdout_contains(&said);
    assert!(outcome.elapsed < Duration::from_secs(9), "{outcome}");
}

#[test]
fn a_slow_token_server_is_on_the_same_budget() {
    let tokens = TokenServer::anonymous().latency(Duration::from_secs(20));
    let registry = Registry::builder().token_auth(tokens).start();
    let deployment = deployment(&registry.repository("x").replace("/x", ""), &["a", "b"]);
    let command = ["pull-latest", "--no-pull", "--registry-timeout", "2s"];
    let outcome = deployment.dkv(command).exit(5);
    outcome.stderr_contains("has taken its 2 s");
    assert!(outcome.elapsed < Duration::from_secs(8), "{outcome}");
}

#[test]
fn no_list_of_tags_costs_much_memory() {
    let empty = registry(|_| (vec!["\"\""; 1_390_000].join(","), false));
    let all = registry(|_| (vec!["\"\""; 5_000_000].join(","), false));
    let long = registry(|number| {
        let tag = |one: usize| format!("\"1.{number}.{one}-{}\"", "x".repeat(110));
        ((0..1000).map(tag).collect::<Vec<_>>().join(","), true)
    });
    let short = registry(|number| {
        let tag = |one: usize| format!("\"1.{number}.{one}\"");
        ((0..1000).map(tag).collect::<Vec<_>>().join(","), true)
    });
    let four = &["a", "b", "c", "d"][..];
    for (name, listener, services) in [
        ("empty tags", &empty, four),
        ("more than a page", &all, four),
        ("long tags", &long, four),
        ("long tags of one", &long, &["a"]),
        ("short tags", &short, four),
        ("short tags of one", &short, &["a"]),
    ] {
        let deployment = deployment(&listener.address().to_string(), services);
        let (outcome, peak) = peak(&deployment, 0, &["pull-latest", "--no-pull", "--dry-run"]);
        assert!(peak < MEMORY, "{name}: {peak} kB\n{outcome}");
    }
}

#[test]
fn no_manifest_costs_much_memory() {
    let body = |request: &Request| {
        let repository = request.target.split('/').nth(2).unwrap_or_default();
        let padding = format!("\"{repository}{}\"", "x".repeat(4_000_000));
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"a":{padding}}}}}"#
        )
    };
    let large = http::serve(move |request: &Request| match request.method.as_str() {
        "HEAD" => Response::new(405, "text/plain", ""),
        _ => Response::new(200, "application/vnd.oci.image.index.v1+json", body(request)),
    });
    let names: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let deployment = deployment(&large.address().to_string(), &names);
    let (outcome, peak) = peak(&deployment, 5, &["pull-latest", "--no-pull"]);
    outcome.stderr_contains("an empty index");
    assert!(peak < MEMORY, "{peak} kB\n{outcome}");
}

/// A body that never ends is left where it is too long.
#[test]
fn an_endless_answer_costs_little_memory() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    let prefix = proxy.repository("x").trim_end_matches("/x").to_owned();
    let deployment = deployment(&prefix, &["web"]);
    for (on, code) in [("/tags/list", 0), ("/manifests/", 5)] {
        proxy.reset();
        if code == 5 {
            proxy.fault(On::target("/manifests/").method("HEAD").first(1), Fault::status(405));
        }
        proxy.fault(On::target(on).method("GET"), Fault::EndlessBody(200));
        let (outcome, peak) = peak(&deployment, code, &["pull-latest", "--no-pull", "--dry-run"]);
        assert!(format!("{outcome}").contains("more than"), "{outcome}");
        assert!(peak < MEMORY, "{peak} kB");
    }
}
