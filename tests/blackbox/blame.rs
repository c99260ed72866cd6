//! Whose fault a failed update is: a release is rejected only if its own container failed by
//! itself; what the host or somebody else does to it is not held against it.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::deployment::Compose;
use crate::support::{Fault, Health, Image, On, Proxy, wait_for};
use crate::update_safe::Product;

/// The tags of a service that are rejected, with the reason.
fn rejected(product: &Product, service: &str) -> Vec<(String, String)> {
    let manifest = product.deployment.manifest_data();
    let list = manifest["rejected"][service].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list.iter().map(|one| (text(&one["tag"]), text(&one["reason"]))).collect()
}

#[test]
fn two_bad_releases_of_one_update_are_both_rejected_each_with_its_own_evidence() {
    let product = Product::new("both-bad");
    product.publish("web", "2", |image| image.crashing(3));
    product.publish("side", "2", |image| image.health(Health::Failing));
    let failed = product.dkv(["--json", "update-safe"]).exit(7);
    let report = failed.json();
    assert_eq!(report["result"].as_str(), Some("restored"));
    for (index, (service, why)) in [("side", "no database"), ("web", "code 3")].iter().enumerate() {
        let [(tag, reason)] = rejected(&product, service).try_into().expect("one rejection");
        assert!(tag == "2" && reason.contains(why), "{tag} {reason}");
        let told = &report["rejected"][index];
        assert_eq!((told["service"].as_str(), told["tag"].as_str()), (Some(*service), Some("2")));
        assert!(told["reason"].as_str().unwrap().contains(why), "{report}");
    }
    product.assert_runs("1");
    product.dkv(["update-safe"]).exit(0).stdout_contains("--retry");
}

#[test]
fn a_good_release_that_goes_back_with_a_bad_one_is_taken_next_time() {
    let product = Product::new("one-bad");
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.publish("side", "2", |image| image.crashing(3));
    let failed = product.dkv(["--json", "update-safe"]).exit(7).json();
    assert_eq!(failed["spared"][0]["service"].as_str(), Some("web"));
    assert!(rejected(&product, "web").is_empty() && rejected(&product, "side").len() == 1);
    product.dkv(["update-safe"]).exit(0);
    product.assert_runs("2");
}

/// An update that the host's state makes impossible, until `mend` is called.
fn host_fails(
    compose: Compose,
    topic: &str,
    section: &str,
    words: &str,
    remedy: &str,
    mend: impl FnOnce(&Product),
) {
    let product = Product::with(topic, compose, |_| {});
    let file = product.deployment.read("docker-compose.yml");
    product
        .deployment
        .write("docker-compose.yml", &file.replace("  side:", &format!("{section}  side:")));
    product.publish("web", "2", |image| image.health(Health::Passing));
    let failed = product.dkv(["update-safe"]).exit(7);
    failed.stderr_contains(words).stderr_contains(remedy).stderr_contains("not rejected: web");
    assert!(rejected(&product, "web").is_empty(), "{failed}");
    product.assert_runs("1");

    mend(&product);
    product.dkv(["update-safe"]).exit(0);
    product.assert_runs("2");
}

const MISSING: &str = "    volumes: [{type: bind, source: ./data, target: /data, bind: \
                       {create_host_path: false}}]\n";

#[test]
fn a_missing_bind_source_is_the_hosts_fault_v2() {
    host_fails(Compose::V2, "bind", MISSING, "does not exist", "make the directory", |product| {
        product.deployment.write("data/file", "");
    });
}

#[test]
fn a_missing_bind_source_is_the_hosts_fault_v1() {
    let missing = "    volumes: [{type: bind, source: ./data, target: /data}]\n";
    host_fails(Compose::V1, "bind1", missing, "does not exist", "make the directory", |product| {
        product.deployment.write("data/file", "");
    });
}

#[test]
fn a_port_in_use_is_the_hosts_fault() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!("    ports: ['127.0.0.1:{port}:80']\n");
    host_fails(Compose::V2, "port", &ports, "address already in use", "free the port", |_| {
        drop(taken);
    });
}

#[test]
fn a_name_in_use_is_the_hosts_fault() {
    let name = crate::support::unique("taken");
    let engine = crate::support::Engine::machine();
    let section = format!("    container_name: {name}\n");
    let other = Product::new("owner");
    let holder = other.container("side");
    engine.docker(&["rename", &holder, &name]);
    host_fails(Compose::V2, "name", &section, "already in use", "docker rename", |_| {
        engine.docker(&["rename", &holder, &format!("{name}-other")]);
    });
}

#[test]
fn a_container_that_somebody_kills_is_not_held_against_its_release() {
    let product = Product::new("killed");
    let old = product.container("web");
    product.publish("web", "2", |image| image.health(Health::FromProbe(20)));
    let running = product.stop_in("judging", product.dkv(["update-safe"]), Signal::CONT);
    let engine = product.deployment.engine();
    wait_for("the new container", Duration::from_secs(30), || {
        let new = product.container("web");
        (new != old).then(|| engine.docker(&["kill", &new]))
    });
    let failed = running.exit(7);
    failed.stderr_contains("somebody stopped or killed it").stderr_contains("then tries again");
    assert!(rejected(&product, "web").is_empty(), "{failed}");
    product.assert_runs("1");
}

#[test]
fn a_release_has_the_time_that_its_own_health_check_allows() {
    let product = Product::new("start-period");
    // Passes after some 6 s.
    let slow = |image: Image| image.health(Health::FromProbe(8)).start_period_s(30);
    product.publish("web", "2", slow);
    let done = product.dkv(["update-safe", "--timeout", "2s"]).exit(0);
    done.stderr_contains("Still waiting for web");
    product.assert_runs("2");
}

#[test]
fn a_release_that_stays_unhealthy_is_not_waited_for_to_the_deadline() {
    let product = Product::new("unhealthy");
    product.publish("web", "2", |image| image.health(Health::Failing));
    let failed = product.dkv(["update-safe"]).exit(7);
    failed.stderr_contains("past its start period and retries");
    assert!(failed.elapsed < Duration::from_secs(60), "{failed}");
    product.assert_runs("1");
}

/// A product whose `side` is a job that nobody waits for.
fn with_job(topic: &str) -> Product {
    Product::with(topic, Compose::V2, |product| {
        product.publish("side", "1", |image| image.script("exit 0"));
    })
}

#[test]
fn a_job_that_had_completed_must_complete_again() {
    let product = with_job("job");
    // Longer than a server must run to be good.
    product.publish("side", "2", |image| image.script("sleep 7; exit 4"));
    let failed = product.dkv(["update-safe"]).exit(7);
    failed.stderr_contains("code 4").stderr_contains("side will do its work once more");
    assert_eq!(rejected(&product, "side").len(), 1);
    product.assert_runs("1");

    product.publish("side", "3", |image| image.script("sleep 7"));
    product.dkv(["update-safe"]).exit(0).stdout_contains("3");
    let state = &product.inspected("side")["State"];
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(0)));
}

#[test]
fn a_start_asks_of_a_job_that_had_completed_that_it_completes_again() {
    let product = with_job("again");
    product.publish("side", "2", |image| image.script("sleep 7; exit 4"));
    product.dkv(["pull-latest"]).exit(0);
    for command in ["up", "restart"] {
        // Longer than a server must run to be good.
        product.dkv([command]).exit(6).stderr_contains("code 4");
        product.dkv(["rollback-to", "side", "1", "-y"]).exit(0);
        product.dkv([command]).exit(0);
        product.dkv(["rollback-to", "side", "2", "-y"]).exit(0);
    }
    product.publish("side", "3", |image| image.script("sleep 7"));
    product.dkv(["pull-latest"]).exit(0);
    product.dkv(["rollback-to", "side", "1", "-y"]).exit(0);
    product.dkv(["up"]).exit(0);
    product.dkv(["rollback-to", "side", "3", "-y"]).exit(0);
    product.dkv(["up"]).exit(0);
    let state = &product.inspected("side")["State"];
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(0)));
}

#[test]
fn a_job_that_cannot_be_repeated_does_not_keep_the_others_from_coming_back() {
    let product = Product::with("once", Compose::V2, |product| {
        let compose = product.deployment.read("docker-compose.yml");
        let state = "    volumes: ['./state:/state']\n";
        let waits = "    depends_on: {side: {condition: service_completed_successfully}}\n";
        product.deployment.write(
            "docker-compose.yml",
            &(compose.replace("  side:", &format!("{waits}  side:")) + state),
        );
        let job = "test ! -e /state/done && echo > /state/done";
        product.publish("side", "1", |image| image.script(job));
    });
    product.publish("side", "2", |image| image.script("exit 0"));
    product.publish("web", "2", |image| image.crashing(3));
    product.dkv(["update-safe"]).exit(7).stderr_contains("trying again");
    product.assert_runs("1");
}

#[test]
fn an_engine_that_fails_for_a_moment_while_it_is_judged_changes_nothing() {
    let product = Product::new("moment");
    let proxy = Proxy::to_engine();
    let update = |words: &[&str]| {
        let host = format!("tcp://{}", proxy.address());
        product.dkv(words.iter().copied()).env("DOCKER_HOST", host)
    };
    product.publish("web", "2", |image| image.health(Health::FromProbe(4)));
    let running = product.stop_in("judging", update(&["update-safe"]), Signal::CONT);
    let looks = || On::target("/containers/").method("GET");
    proxy.fault(looks().first(3), Fault::status(500));
    proxy.fault(looks().first(6), Fault::Reset);
    running.exit(0).stderr_contains("asking again");
    product.assert_runs("2");

    product.publish("web", "3", |image| image.crashing(3));
    let running = product.stop_in("restoring", update(&["update-safe"]), Signal::CONT);
    proxy.reset();
    proxy.fault(On::all().first(4), Fault::Reset);
    proxy.fault(On::target("/containers/create").nth(1), Fault::status(500));
    running.exit(7);
    product.assert_runs("2");
}
