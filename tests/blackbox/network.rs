//! Manners on the network, and what a registry may do to dkv: rows 25 to 42 of the fault matrix.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::resolution::manifest;
use crate::support::http::Response;
use crate::support::token::TokenServer;
use crate::support::{Daemon, Deployment, Fault, Image, On, Proxy, Registry};

/// A registry with `web` 1.42 as `latest`, a proxy before it, and a deployment that uses the proxy.
fn bench() -> (Registry, Proxy, Deployment) {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("network");
    deployment.write("version-manifest.yaml", &manifest(&proxy.repository("web"), &[]));
    (registry, proxy, deployment)
}

const LATEST: &str = "/manifests/latest";

#[test]
fn what_is_transient_is_tried_three_times_and_nothing_else_is() {
    let (_registry, proxy, deployment) = bench();
    for fault in [408, 429, 500, 502, 503, 504].map(Fault::status).into_iter().chain([Fault::Reset])
    {
        proxy.reset();
        proxy.fault(On::target(LATEST).first(1), fault.clone());
        deployment.dkv(["check-updates"]).exit(0).stdout_contains("1.42");
        assert_eq!(proxy.count("HEAD", LATEST), 2, "{fault:?}");
    }
    for fault in [Fault::status(503), Fault::Reset] {
        proxy.reset();
        proxy.fault(On::target(LATEST), fault.clone());
        deployment
            .dkv(["pull-latest", "--no-pull"])
            .exit(5)
            .stderr_contains(&proxy.address().to_string());
        assert_eq!(proxy.count("HEAD", LATEST), 3, "{fault:?}");
    }
    for status in [400, 404, 501] {
        proxy.reset();
        proxy.fault(On::target("/manifests/"), Fault::status(status));
        deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
        assert!(proxy.count("HEAD", LATEST) <= 1, "{status}");
        assert!(proxy.requests().len() <= 2, "{status}: {:?}", proxy.requests());
    }
}

#[test]
fn nothing_is_asked_before_retry_after_is_over() {
    let (_registry, proxy, deployment) = bench();
    proxy.fault(On::target(LATEST).first(1), Fault::retry_after(2));
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("1.42");
    let seen = proxy.requests();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(2));
    assert!(
        seen[3].at - seen[2].at >= Duration::from_millis(900),
        "one request a second from then on"
    );

    proxy.reset();
    proxy.fault(On::target(LATEST), Fault::retry_after(100_000));
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
    outcome.stderr_contains("limits the rate of requests").stderr_contains("100000 s");
    assert!(outcome.elapsed < Duration::from_secs(60));
    assert_eq!(proxy.requests().len(), 1);
}

#[test]
fn a_head_that_says_too_little_is_asked_again_as_get() {
    let (registry, proxy, deployment) = bench();
    let digest = registry.digest_of("web", "latest").unwrap();
    for fault in [Fault::status(405), Fault::NoDigestHeader] {
        proxy.reset();
        proxy.fault(On::target("/manifests/").method("HEAD"), fault);
        deployment.write("version-manifest.yaml", &manifest(&proxy.repository("web"), &[]));
        deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
        let web = deployment.manifest_data()["services"]["web"].clone();
        assert_eq!(
            (&web["current_tag"], &web["image_digest"]),
            (&"1.42".into(), &digest.clone().into())
        );
    }
}

#[test]
fn a_registry_that_lies_about_a_digest_is_an_error() {
    let (_registry, proxy, deployment) = bench();
    let before = deployment.manifest();
    for (lie, method) in [(Fault::WrongBody, "GET"), (Fault::WrongDigestHeader, "GET")] {
        proxy.reset();
        proxy.fault(On::target(LATEST).method("HEAD"), Fault::status(405));
        proxy.fault(On::target(LATEST).method(method), lie);
        deployment.dkv(["pull-latest", "--no-pull"]).exit(5).stderr_contains("wrong content");
        assert_eq!(deployment.manifest(), before);
    }
}

#[test]
fn redirects_end_and_stay_on_safe_ground() {
    let (_registry, proxy, deployment) = bench();
    proxy.fault(On::target(LATEST), Fault::RedirectLoop);
    deployment
        .dkv(["pull-latest", "--no-pull"])
        .exit(5)
        .stderr_contains("redirects more than 10 times");
    assert!(proxy.requests().len() <= 11, "{}", proxy.requests().len());

    proxy.reset();
    let away = Response::new(307, "text/plain", "").with_header("Location", "http://192.0.2.1/v2/");
    proxy.fault(On::target(LATEST), Fault::Respond(away));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(5).stderr_contains("without TLS");
}

#[test]
fn pages_end_and_stay_on_their_host() {
    let (_registry, proxy, deployment) = bench();
    let own = format!(
        "</v2/{}/tags/list?n=1000>; rel=\"next\"",
        proxy.repository("web").split_once('/').unwrap().1
    );
    for (link, why) in [
        (own.as_str(), "in circles"),
        ("<http://127.0.0.1:9/v2/a/tags/list>; rel=\"next\"", "another host"),
    ] {
        proxy.reset();
        proxy.fault(On::target("/tags/list"), Fault::Header("Link".into(), link.into()));
        deployment
            .dkv(["pull-latest", "--no-pull", "--dry-run"])
            .exit(0)
            .stdout_contains("→ 1.42")
            .stdout_contains("the registry's list of tags is incomplete: its ")
            .stdout_contains(why);
        assert_eq!(proxy.count("GET", "/tags/list"), 1);
    }
    // What has come is used though the next page cannot be had.
    for status in [400, 404] {
        proxy.reset();
        let more = "</v2/x/tags/list?n=1000&last=1.42>; rel=\"next\"";
        proxy.fault(On::target("last="), Fault::status(status));
        proxy.fault(On::target("/tags/list"), Fault::Header("Link".into(), more.into()));
        let outcome = deployment.dkv(["check-updates"]).exit(0);
        outcome.stdout_contains("1.42").stdout_contains("page 2 of the tags of");
        assert_eq!(proxy.count("GET", "/tags/list"), 2);
    }
}

#[test]
fn truncated_answers_are_asked_for_again() {
    let (_registry, proxy, deployment) = bench();
    proxy.fault(On::target("/tags/list").first(1), Fault::Truncate(10));
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("1.42");
    assert_eq!(proxy.count("GET", "/tags/list"), 2);

    proxy.reset();
    proxy.fault(On::target(LATEST).method("HEAD"), Fault::status(405));
    proxy.fault(On::target(LATEST).method("GET"), Fault::Truncate(10));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
    assert_eq!(proxy.count("GET", LATEST), 3);
}

#[test]
fn tls_is_verified_and_never_left_out() {
    let registry = Registry::builder().tls().start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = Deployment::new("tls");
    deployment.write("version-manifest.yaml", &manifest(&registry.repository("web"), &[]));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(5).stderr_contains("SSL_CERT_FILE");
    assert!(!registry.access_log().contains("/manifests/"), "{}", registry.access_log());
    let trusting = deployment
        .dkv(["pull-latest", "--no-pull"])
        .env("SSL_CERT_FILE", registry.ca_file().display().to_string());
    trusting.exit(0).stdout_contains("1.42");
}

#[test]
fn a_refused_token_is_renewed_once() {
    let registry = Registry::builder().token_auth(TokenServer::anonymous()).start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("network");
    deployment.write("version-manifest.yaml", &manifest(&proxy.repository("web"), &[]));
    proxy.fault(On::target(LATEST).nth(2), Fault::status(401));
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("1.42");
    assert_eq!(proxy.count("GET", "/token"), 2);

    proxy.reset();
    proxy.fault(On::target("/manifests/"), Fault::status(403));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(5).stderr_contains("refuses access");
    assert!(proxy.requests().len() <= 4, "{:?}", proxy.requests());
}

#[test]
fn rate_limits_and_hostile_texts_are_shown_safely() {
    let (_registry, proxy, deployment) = bench();
    proxy.fault(
        On::target(LATEST),
        Fault::Header("RateLimit-Remaining".into(), "98;w=21600".into()),
    );
    deployment.dkv(["check-updates", "-v"]).exit(0).stderr_contains("98;w=21600");
    deployment.dkv(["check-updates"]).exit(0).stderr_lacks("98;w=21600");

    proxy.reset();
    let body = serde_json::json!({"errors": [{"code": "DENIED", "message": "\u{1b}[31mred\u{1b}]0;title\u{7}\r\nerror: fake\u{202e}"}]});
    proxy.fault(On::target(LATEST), Fault::Respond(Response::json(400, &body)));
    proxy.fault(On::target(LATEST), Fault::Respond(Response::json(400, &body)));
    for args in [
        &["check-updates", "-vv"][..],
        &["pull-latest", "--no-pull", "-vv"],
        &["check-updates", "--json"],
    ] {
        let outcome = deployment.dkv(args.iter().copied()).exit(5);
        let all = outcome.stdout.clone() + &outcome.stderr;
        assert!(!all.contains(['\u{1b}', '\u{7}', '\u{202e}', '\r']), "{outcome}");
        assert!(!all.lines().any(|line| line.starts_with("error: fake")), "{outcome}");
    }

    proxy.reset();
    let tags = serde_json::json!({"name": "web", "tags": ["1.43\u{1b}[31m", "$(touch x)", "1.42"]});
    proxy.fault(On::target("/tags/list"), Fault::Respond(Response::json(200, &tags)));
    let outcome = deployment.dkv(["check-updates", "-vv"]).exit(0);
    assert!(!(outcome.stdout.clone() + &outcome.stderr).contains('\u{1b}'), "{outcome}");
}

#[test]
fn an_image_for_other_platforms_only_is_refused_before_anything_is_pulled() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("latest").platforms(&["arm64"]));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("network");
    deployment.write("version-manifest.yaml", &manifest(&proxy.repository("web"), &[]));
    deployment.dkv(["pull-latest"]).exit(5).stderr_contains("linux/arm64");
    assert_eq!(proxy.count("GET", "/blobs/"), 0);
    assert!(!deployment.exists("versions.env"));
}

/// Everything that a registry can do wrong, with a name.
fn modes() -> Vec<(&'static str, Fault)> {
    let text = |status, body: &str| Fault::Respond(Response::new(status, "text/plain", body));
    let busy = Response::json(503, &serde_json::json!({})).with_header("Retry-After", "1");
    let packed = "\u{1f}\u{8b}no gzip";
    vec![
        ("500", Fault::status(500)),
        ("503, later", Fault::Respond(busy)),
        ("429, later", Fault::retry_after(1)),
        ("401", Fault::status(401)),
        ("403", Fault::status(403)),
        ("404", Fault::status(404)),
        ("405", Fault::status(405)),
        ("reset", Fault::Reset),
        ("silence", Fault::Stall),
        ("half a body", Fault::Truncate(20)),
        ("drip", Fault::Drip(Duration::from_millis(20))),
        ("a loop", Fault::RedirectLoop),
        ("no end", Fault::EndlessBody(200)),
        ("a wrong digest", Fault::WrongDigestHeader),
        ("no digest", Fault::NoDigestHeader),
        ("a wrong body", Fault::WrongBody),
        ("a wrong type", Fault::Header("Content-Type".into(), "text/html".into())),
        ("a page of words", text(200, "<html>Please log in</html>")),
        ("nothing", text(200, "")),
        ("what says it is packed", Fault::Header("Content-Encoding".into(), "gzip".into())),
        ("garbage", text(200, packed)),
    ]
}

/// What is tried of all modes at all requests: `DKV_NETWORK_EVERY=1` tries all of them.
fn every() -> usize {
    std::env::var("DKV_NETWORK_EVERY").ok().and_then(|every| every.parse().ok()).unwrap_or(16)
}

/// Each mode once, at each request of each command that asks: old or new, a documented exit code,
/// and nothing recorded that was not proven.
#[test]
fn whatever_goes_wrong_at_one_request_nothing_is_recorded_that_was_not_proven() {
    let registry = Registry::start();
    let [old, new] = ["1.42", "1.43"].map(|version| {
        ["web", "api"].map(|name| {
            registry.push(Image::new(name).tag(version).tag("main").tag("latest")).digest
        })
    });
    let lines = |digests: &[String; 2], proxy: &Proxy, tag: &str| {
        let service = |(name, digest): (&str, &String)| {
            let image = proxy.repository(name);
            format!(
                "  {name}:\n    image: {image}\n    current_tag: '{tag}'\n    image_digest: {digest}\n"
            )
        };
        let services: String = ["web", "api"].into_iter().zip(digests).map(service).collect();
        format!("schema_version: '1.1'\nservices:\n{services}")
    };
    let commands: [(&[&str], &[String; 2], &str); 3] = [
        (&["pull-latest", "--no-pull"], &old, "1.42"),
        (&["resolve-tags"], &new, "latest"),
        (&["check-updates", "--exit-code"], &old, "1.42"),
    ];
    let tried = AtomicUsize::new(0);
    let modes: Vec<(usize, (&str, Fault))> = modes().into_iter().enumerate().collect();
    let in_turn = |modes: &[(usize, (&str, Fault))]| {
        let proxy = Proxy::to(&registry);
        let deployment = Deployment::new("modes");
        for (words, digests, tag) in &commands {
            let run = |fault: Option<(usize, &Fault)>| {
                proxy.reset();
                if let Some((number, fault)) = fault {
                    proxy.fault(On::all().nth(number), fault.clone());
                }
                deployment.write("version-manifest.yaml", &lines(digests, &proxy, tag));
                let options = ["--registry-timeout", "5s", "--jobs", "1"];
                deployment.dkv(words.iter().copied().chain(options)).finish()
            };
            assert!(matches!(run(None).code(), Some(0 | 10)));
            let count = proxy.requests().len();
            for (at, (name, fault)) in modes {
                for number in (1..=count).filter(|number| (number + at).is_multiple_of(every())) {
                    let outcome = run(Some((number, fault)));
                    let what = format!("{words:?}, request {number} of {count}: {name}\n{outcome}");
                    tried.fetch_add(1, Ordering::Relaxed);
                    assert!(matches!(outcome.code(), Some(0 | 5 | 9 | 10)), "{what}");
                    assert!(outcome.elapsed < Duration::from_secs(60), "{what}");
                    let data = deployment.manifest_data();
                    for (at, service) in ["web", "api"].into_iter().enumerate() {
                        let found = &data["services"][service];
                        let version = match found["image_digest"].as_str() {
                            Some(digest) if digest == old[at] => "1.42",
                            Some(digest) if digest == new[at] => "1.43",
                            _ => panic!("recorded, and not proven: {found}: {what}"),
                        };
                        let tag = &found["current_tag"];
                        assert!(*tag == version || *tag == "latest", "{tag}: {what}");
                    }
                }
            }
        }
    };
    thread::scope(|scope| {
        for some in modes.chunks(6) {
            scope.spawn(|| in_turn(some));
        }
    });
    let tried = tried.into_inner();
    eprintln!("{tried} requests went wrong");
    assert!(tried >= 15, "only {tried} were tried");
}

/// All services share the one wait for a registry that says nothing.
#[test]
fn silence_is_waited_for_once() {
    let registry = Registry::start();
    let proxy = Proxy::to(&registry);
    proxy.fault(On::all(), Fault::Stall);
    let deployment = Deployment::new("network");
    let service = |name: &str| format!("  {name}:\n    image: {}\n", proxy.repository(name));
    let services: String = ["a", "b", "c"].map(service).concat();
    deployment
        .write("version-manifest.yaml", &format!("schema_version: '1.1'\nservices:\n{services}"));
    let outcome = deployment.dkv(["check-updates"]).exit(5);
    outcome.stdout_contains("silent for 30 s");
    assert!(outcome.elapsed < Duration::from_secs(60), "{outcome}");
}

/// The digest that a tag is said to name is not there: the daemon finds out, and nothing is
/// recorded.
#[test]
fn a_tag_with_a_digest_that_is_not_there_is_no_release() {
    let (registry, proxy, _) = bench();
    let daemon = Daemon::private();
    let deployment = Deployment::on(daemon.engine().clone(), "network");
    deployment.write("version-manifest.yaml", &manifest(&proxy.repository("web"), &[]));
    proxy.fault(On::target(LATEST).method("HEAD"), Fault::WrongDigestHeader);
    let before = deployment.manifest();
    deployment.dkv(["pull-latest"]).exit(5).stderr_contains("web");
    assert_eq!(deployment.manifest(), before);
    drop(registry);
}

/// The daemon asks its mirrors first for what is on Docker Hub, and dkv asks likewise.
#[test]
fn names_on_docker_hub_are_asked_of_the_daemons_mirror_first() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    let mirrors = serde_json::json!({"registry-mirrors": [format!("http://{}", proxy.address())]});
    let daemon = Daemon::configured(&mirrors.to_string());
    let deployment = Deployment::on(daemon.engine().clone(), "mirror");
    let image = format!("{}/web", registry.namespace());
    let fresh = manifest(&image, &[]);
    for command in [&["pull-latest", "--no-pull"][..], &["pull-latest"]] {
        proxy.reset();
        deployment.write("version-manifest.yaml", &fresh);
        deployment.dkv(command.iter().copied()).exit(0).stdout_contains("1.42");
        let web = deployment.manifest_data()["services"]["web"].clone();
        assert_eq!(web["image_digest"], pushed.digest.as_str());
        assert!(proxy.count("HEAD", LATEST) >= 1);
    }
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("1.42");

    deployment.write("version-manifest.yaml", &fresh);
    proxy.reset();
    proxy.fault(On::target("/manifests/sha256").method("GET"), Fault::WrongBody);
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
    outcome.stderr_contains("wrong content").stderr_contains(&proxy.address().to_string());
    // What the mirror cannot give is Docker Hub's to give, which does not have it.
    for status in [404, 503] {
        proxy.reset();
        proxy.fault(On::all(), Fault::status(status));
        let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
        outcome.stderr_contains("docker.io");
    }
    assert_eq!(deployment.manifest(), fresh);
}
