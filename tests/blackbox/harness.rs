//! The bench proven on itself, and an example of its use.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::support::deployment::Compose;
use crate::support::ecr::{EcrPublicStub, Moto};
use crate::support::token::TokenServer;
use crate::support::{
    Daemon, Deployment, Engine, Fault, Health, Image, On, Proxy, Registry, http, wait_for,
};

#[test]
fn an_image_is_pushed_pulled_by_digest_and_run() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let engine = Engine::machine();

    engine.docker(&["pull", "-q", &pushed.pin()]);

    assert_eq!(engine.image_id(&pushed.pin()).as_deref(), Some(pushed.image_id()));
    assert_eq!(
        engine.docker(&["run", "--rm", "--network", "none", &pushed.pin(), "cat", "/version"]),
        "1.42"
    );
    assert_eq!(registry.digest_of("web", "latest"), Some(pushed.digest));
    assert!(registry.access_log().contains("/manifests/sha256:"), "{}", registry.access_log());
}

#[test]
fn a_tag_moves_and_goes() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let new = registry.push(Image::new("web").tag("1.43"));
    assert_ne!(old.digest, new.digest);

    registry.move_tag("web", "latest", &new.digest);
    assert_eq!(registry.digest_of("web", "latest"), Some(new.digest.clone()));

    registry.delete_tag("web", "latest");
    assert_eq!(registry.digest_of("web", "latest"), None);
    registry.delete("web", &new.digest);
    assert_eq!(registry.digest_of("web", "1.43"), None);
    assert_eq!(registry.digest_of("web", "1.42"), Some(old.digest));
}

#[test]
fn pushes_are_reproducible_and_thousands_of_tags_are_quick() {
    let registry = Registry::start();
    let once = registry.push(Image::new("web").tag("1.0"));
    let again = registry.push(Image::new("web").tag("1.0"));
    assert_eq!(once.digest, again.digest);

    registry.add_tags("web", (0..2_000).map(|number| format!("0.{number}")), &once.digest);
    let proxy = Proxy::to(&registry).tag_pages(1_000);
    let get = |target: &str| http::request(proxy.address(), "GET", target, &[], &[]).unwrap();
    let target = format!("/v2/{}/web/tags/list", registry.namespace());
    let first = get(&format!("{target}?n=1000"));
    assert!(first.header("Link").is_some_and(|link| link.contains("last=0.")), "{first:?}");
    let last = get(&format!("{target}?last=0.999&n=1000"));
    assert_eq!((last.text().contains("1.0"), last.header("Link")), (true, None));
    assert_eq!(get(&format!("{target}?n=1001")).status, 405);
    assert_eq!(registry.digest_of("web", "0.1999"), Some(once.digest));
}

#[test]
fn an_index_gives_this_platform_and_can_lack_it() {
    let registry = Registry::start();
    let both = registry.push(Image::new("web").tag("1.0").platforms(&["amd64", "arm64"]).oci());
    let again = registry.push(
        Image::new("web")
            .version("1.0")
            .tag("again")
            .platforms(&["amd64", "arm64"])
            .oci()
            .index_annotation("a", "b"),
    );
    let arm = registry.push(Image::new("arm").tag("1.0").platforms(&["arm64"]));
    let engine = Engine::machine();

    assert_ne!(both.digest, again.digest);
    assert_eq!(both.platform_digest("amd64"), again.platform_digest("amd64"));
    engine.docker(&["pull", "-q", &both.pin()]);
    assert_eq!(engine.image_id(&both.pin()).as_deref(), Some(both.image_id()));
    assert!(!engine.try_docker(&["pull", &arm.pin()]).status.success());
}

#[test]
fn health_checks_pass_fail_come_late_and_flap() {
    let registry = Registry::start();
    let deployment = Deployment::new("health");
    let mut compose = "services:\n".to_owned();
    for (name, health) in [
        ("passing", Health::Passing),
        ("failing", Health::Failing),
        ("late", Health::FromProbe(3)),
        ("flapping", Health::Flapping(2)),
    ] {
        let pushed =
            registry.push(Image::new(name).tag("1").health(health).health_interval_ms(200));
        compose += &format!("  {name}: {{image: '{}'}}\n", pushed.pin());
    }
    let crashing = registry.push(Image::new("crashing").tag("1").crashing(3));
    let one_shot = registry.push(Image::new("one-shot").tag("1").one_shot());
    compose += &format!(
        "  crashing: {{image: '{}'}}\n  migrate: {{image: '{}'}}\n",
        crashing.pin(),
        one_shot.pin()
    );
    deployment.write("docker-compose.yml", &compose);
    deployment.compose_v2(["up", "-d"]).exit(0);

    let engine = deployment.engine();
    let reaches = |service: &str, field: &str, expected: &str| {
        let name = &engine.containers(deployment.project(), service)[0];
        let format = format!("{{{{.State.{field}}}}}");
        wait_for(&format!("{service}: {field} is {expected}"), Duration::from_secs(60), || {
            (engine.docker(&["inspect", "--format", &format, name]) == expected).then_some(())
        });
    };
    reaches("passing", "Health.Status", "healthy");
    reaches("failing", "Health.Status", "unhealthy");
    reaches("late", "Health.Status", "healthy");
    reaches("flapping", "Health.Status", "unhealthy");
    reaches("flapping", "Health.Status", "healthy");
    reaches("crashing", "ExitCode", "3");
    reaches("migrate", "Status", "exited");
    reaches("migrate", "ExitCode", "0");
}

#[test]
fn both_composes_run_the_pinned_bytes_and_stop_quickly() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42"));
    registry.push(Image::new("web").version("moved").tag("1.42"));
    for compose in [Compose::V2, Compose::V1] {
        let deployment = Deployment::new("compose");
        deployment.write_product(&[("web", registry.repository("web"))]);
        let run = |args| match compose {
            Compose::V1 => deployment.compose_v1(args),
            _ => deployment.compose_v2(args),
        };

        run(["up", "-d"]).env("DK_WEB_TAG", format!("1.42@{}", pushed.digest)).exit(0);
        assert_eq!(deployment.engine().version(deployment.project(), "web"), "1.42");
        assert_eq!(
            deployment.engine().running_image(deployment.project(), "web"),
            pushed.image_id()
        );

        let started = Instant::now();
        run(["down", "-t60"]).exit(0);
        assert!(started.elapsed() < Duration::from_secs(60), "the container ignores SIGTERM");
    }
}

#[test]
fn basic_authentication_tls_and_tokens_are_enforced() {
    let engine = Engine::machine();
    let basic = Registry::builder().htpasswd("alice", "p>>>???~~~").start();
    let pushed = basic.push(Image::new("web").tag("1"));
    assert_eq!(http::request(basic.address(), "GET", "/v2/", &[], &[]).unwrap().status, 401);
    assert!(!engine.try_docker(&["pull", &pushed.pin()]).status.success());
    let login = http::request(
        basic.address(),
        "GET",
        "/v2/",
        &[("Authorization", "Basic YWxpY2U6cD4+Pj8/P35+fg==")],
        &[],
    )
    .unwrap();
    assert_eq!(login.status, 200);

    let tls = Registry::builder().tls().start();
    let pushed = tls.push(Image::new("web").tag("1"));
    engine.docker(&["pull", "-q", &pushed.pin()]);
    let deployment = Deployment::new("tls");
    let address = format!("https://{}/v2/", tls.address());
    let ca = tls.ca_file().display().to_string();
    let curl = crate::support::program("curl");
    deployment.command(&curl, ["-sf", address.as_str()]).exit(60);
    deployment.command(&curl, ["-sf", "--cacert", ca.as_str(), address.as_str()]).exit(0);

    let tokens = Registry::builder().token_auth(TokenServer::anonymous()).start();
    let pushed = tokens.push(Image::new("web").tag("1"));
    assert_eq!(http::request(tokens.address(), "GET", "/v2/", &[], &[]).unwrap().status, 401);
    engine.docker(&["pull", "-q", &pushed.pin()]);
    assert!(!tokens.token_server().unwrap().requests().is_empty());

    let proxy = Proxy::to(&tokens);
    engine.docker(&["pull", "-q", &format!("{}@{}", proxy.repository("web"), pushed.digest)]);
    assert!(
        proxy.count("GET", "/token") >= 1,
        "the realm points past the proxy: {:?}",
        proxy.requests()
    );
}

#[test]
fn a_stopped_registry_refuses_keeps_its_content_and_comes_back() {
    let mut registry = Registry::alone();
    let pushed = registry.push(Image::new("web").tag("1"));
    registry.stop();
    assert!(http::request(registry.address(), "GET", "/v2/", &[], &[]).is_err());
    assert_eq!(
        registry.digest_of("web", "1"),
        Some(pushed.digest.clone()),
        "through the back door"
    );
    registry.restart();
    assert_eq!(http::request(registry.address(), "GET", "/v2/", &[], &[]).unwrap().status, 200);
}

#[test]
fn the_proxy_counts_delays_and_breaks() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1"));
    let proxy = Proxy::to(&registry);
    let target = format!("/v2/{}/web/manifests/1", registry.namespace());
    let accept = [("Accept", "application/vnd.docker.distribution.manifest.v2+json")];
    let get = || http::request(proxy.address(), "GET", &target, &accept, &[]);

    let plain = get().unwrap();
    assert_eq!(
        (plain.status, plain.header("Docker-Content-Digest")),
        (200, Some(pushed.digest.as_str()))
    );
    assert_eq!(proxy.count("GET", "/manifests/1"), 1);
    assert_eq!(proxy.requests()[0].status, Some(200));
    let head = http::request(proxy.address(), "HEAD", &target, &accept, &[]).unwrap();
    assert_eq!(head.header("Content-Length"), Some(plain.body.len().to_string().as_str()));

    proxy.fault(On::target("manifests").first(2), Fault::retry_after(1));
    assert_eq!(get().unwrap().header("Retry-After"), Some("1"));
    assert_eq!(get().unwrap().status, 429);
    assert_eq!(get().unwrap().status, 200);

    let broken = |fault| {
        proxy.reset();
        proxy.fault(On::target("manifests").method("GET").nth(1), fault);
        get()
    };
    assert!(broken(Fault::Reset).is_err());
    assert!(broken(Fault::Truncate(10)).is_err());
    assert_eq!(broken(Fault::NoDigestHeader).unwrap().header("Docker-Content-Digest"), None);
    assert_ne!(
        broken(Fault::WrongDigestHeader).unwrap().header("Docker-Content-Digest"),
        Some(pushed.digest.as_str())
    );
    assert_ne!(broken(Fault::WrongBody).unwrap().body, plain.body);
    assert!(
        broken(Fault::RedirectLoop)
            .unwrap()
            .header("Location")
            .is_some_and(|place| place.ends_with(&target))
    );
    assert_eq!(broken(Fault::Drip(Duration::from_micros(10))).unwrap().body, plain.body);
    assert_eq!(broken(Fault::status(503)).unwrap().status, 503);

    let slow = Proxy::to(&registry).latency(Duration::from_millis(50));
    let started = Instant::now();
    http::request(slow.address(), "GET", &target, &accept, &[]).unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(100),
        "connection and request are two round trips"
    );
}

#[test]
fn the_daemon_pulls_through_the_proxy_and_keeps_to_it() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1").payload(100_000));
    let proxy = Proxy::to(&registry);
    let pin = format!("{}@{}", proxy.repository("web"), pushed.digest);
    proxy.fault(On::target("/manifests/").first(1), Fault::status(404));
    assert!(!Engine::machine().try_docker(&["pull", &pin]).status.success());
    Engine::machine().docker(&["pull", "-q", &pin]);
    assert!(proxy.count("GET", "/blobs/") >= 1);
}

#[test]
fn a_private_daemon_can_be_killed_and_started_again() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1"));
    // A second daemon may take the machine's bridge away.
    let bridge = || Path::new("/sys/class/net/docker0").exists();
    let before = bridge();
    let mut daemon = Daemon::private();
    daemon.engine().docker(&["pull", "-q", &pushed.pin()]);
    daemon.engine().docker(&["run", "-d", "--name", "web", &pushed.pin()]);
    assert_eq!(daemon.engine().docker(&["exec", "web", "cat", "/version"]), "1");
    assert_eq!(Engine::machine().image_id(&pushed.pin()), None, "not the machine's daemon");

    daemon.signal(Signal::STOP);
    daemon.signal(Signal::CONT);
    daemon.kill();
    assert!(!daemon.engine().try_docker(&["version"]).status.success());
    daemon.start();
    assert_eq!(daemon.engine().image_id(&pushed.pin()).as_deref(), Some(pushed.config_digest()));
    drop(daemon);
    assert_eq!(bridge(), before);
}

#[test]
fn programs_run_in_an_environment_of_their_own() {
    let deployment = Deployment::new("environment");
    let shell = crate::support::program("sh");
    let environment =
        deployment.command(&shell, ["-c", "env; cat"]).env("ONE", "1").stdin("typed").exit(0);
    environment.stdout_contains("ONE=1").stdout_contains("typed").stdout_lacks("CARGO");
    let terminal = deployment
        .command(&shell, ["-c", "test -t 1 && test -t 2 && read -r line && echo \"got $line\""])
        .tty()
        .stdin("it's\n");
    terminal.exit(0).stdout_contains("got it's");

    let traced = deployment
        .command(&shell, ["-c", "exit 7"])
        .under_strace(["-f", "-e", "trace=execve"])
        .exit(7);
    assert!(traced.strace.contains("execve("), "{}", traced.strace);

    let mut running = deployment.command(&shell, ["-c", "echo started; sleep 60"]).spawn();
    running.wait_for_output("started");
    running.signal_group(Signal::INT);
    assert_eq!(running.finish().code(), None);

    let which = |compose| {
        let script = "command -v docker-compose >/dev/null && echo v1; docker compose version \
            >/dev/null 2>&1 && echo v2; true";
        deployment.command(&shell, ["-c", script]).compose(compose).exit(0).stdout
    };
    assert_eq!(which(Compose::V1), "v1\n");
    assert_eq!(which(Compose::V2), "v2\n");
    assert_eq!(which(Compose::Both), "v1\nv2\n");
    assert_eq!(which(Compose::Neither), "");
}

#[test]
fn local_images_are_loaded_and_built_and_their_events_seen() {
    let deployment = Deployment::new("local");
    let repository = format!("{}-bot", deployment.project());
    let since = SystemTime::now();
    let loaded = deployment.load(&repository, Image::new("bot").tag("latest").version("first"));
    assert_eq!(
        deployment.engine().docker(&[
            "run",
            "--rm",
            "--network",
            "none",
            &loaded,
            "cat",
            "/version"
        ]),
        "first"
    );

    deployment.write_build_context("bot", "second");
    deployment.write(
        "docker-compose.yml",
        &format!("services:\n  bot: {{image: '{repository}:latest', build: bot}}\n"),
    );
    deployment.compose_v2(["build"]).exit(0);
    deployment.compose_v1(["up", "-d"]).exit(0);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "second");
    let events = deployment.engine().events_since(since);
    let ours = |action: &str| {
        events
            .iter()
            .any(|event| event["Action"] == action && event.to_string().contains(&repository))
    };
    assert!(ours("create") && !ours("pull"), "{events:?}");
}

#[test]
fn disks_fill_up_and_clocks_go_wrong() {
    let deployment = Deployment::new("machine");
    let small = deployment.mount_tmpfs("64k");
    let shell = crate::support::program("sh");
    deployment
        .command(&shell, ["-c", "cat /dev/zero >zeros"])
        .exit(1)
        .stderr_contains("No space left");
    small.read_only(true);
    deployment.command(&shell, ["-c", ": >more"]).exit(2).stderr_contains("Read-only");
    let date = crate::support::program("date");
    deployment
        .command(&date, ["+%F"])
        .faketime("@2020-02-02 12:00:00")
        .exit(0)
        .stdout_contains("2020-02-02");
}

#[tokio::test]
async fn the_sdk_understands_the_stub_of_ecr_public() {
    use aws_sdk_ecrpublic::config::{BehaviorVersion, Credentials, Region};
    let stub = EcrPublicStub::start(2);
    for number in 0..5 {
        stub.image("web", &format!("sha256:{number:064}"), &[&format!("1.{number}")]);
    }
    let config = aws_sdk_ecrpublic::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "tests"))
        .endpoint_url(stub.endpoint())
        .build();
    let client = aws_sdk_ecrpublic::Client::from_conf(config);
    let describe = |repository| client.describe_images().repository_name(repository);

    let pages = describe("web")
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .unwrap();
    assert_eq!(
        pages.iter().flat_map(|image| image.image_tags()).collect::<Vec<_>>(),
        ["1.0", "1.1", "1.2", "1.3", "1.4"]
    );
    assert_eq!(stub.requests().len(), 3);

    let missing = describe("api").send().await.unwrap_err().into_service_error();
    assert!(missing.is_repository_not_found_exception(), "{missing:?}");
    stub.refuse("AccessDeniedException", "not yours", 1);
    let denied = describe("web").send().await.unwrap_err().into_service_error();
    assert_eq!(denied.meta().code(), Some("AccessDeniedException"));
}

#[test]
fn moto_lists_what_was_put() {
    let moto = Moto::start();
    moto.create_repository("web");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": format!("sha256:{:064}", 0)},
        "layers": [],
    });
    let digest = moto.put_image("web", "1.42", &manifest.to_string());
    let listed = moto.call("DescribeImages", &serde_json::json!({"repositoryName": "web"}));
    assert_eq!(listed["imageDetails"][0]["imageDigest"], digest.as_str());
    assert_eq!(listed["imageDetails"][0]["imageTags"][0], "1.42");
}
