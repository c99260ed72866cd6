//! What `check-updates` says about each service, and what it costs to ask.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::resolution::manifest;
use crate::support::token::TokenServer;
use crate::support::{Daemon, Deployment, Image, Outcome, Proxy, Pushed, Registry};

fn deployment(repository: &str, more: &[&str]) -> Deployment {
    let deployment = Deployment::new("updates");
    deployment.write("version-manifest.yaml", &manifest(repository, more));
    deployment
}

/// The lines of a service that runs `tag`, which is what was pushed.
fn running(tag: &str, pushed: &Pushed) -> [String; 2] {
    [format!("current_tag: '{tag}'"), format!("image_digest: {}", pushed.digest)]
}

/// The entry of one service in the JSON of `check-updates`.
#[track_caller]
fn entry(outcome: &Outcome, name: &str) -> Value {
    let json = outcome.json();
    let services = json["services"].as_array().cloned().unwrap_or_default();
    services
        .into_iter()
        .find(|one| one["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {outcome}"))
}

#[test]
fn up_to_date_then_an_update_then_rebuilt() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(&registry.repository("web"), &[]);
    let check = |code| deployment.dkv(["check-updates", "--exit-code", "--json"]).exit(code);
    let first = entry(&check(10), "web");
    assert_eq!((&first["state"], &first["would_change"]), (&"update".into(), &true.into()));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);

    let same = entry(&check(0), "web");
    assert_eq!((&same["state"], &same["tag"]), (&"up-to-date".into(), &"1.42".into()));
    // A higher version may well be there: nobody has looked.
    assert_eq!(same["newest"], Value::Null);
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("up to date");

    let new = registry.push(Image::new("web").tag("1.43").tag("latest"));
    let update = entry(&check(10), "web");
    assert_eq!(
        (&update["state"], &update["available_version"]),
        (&"update".into(), &"1.43".into())
    );
    assert_eq!(update["available_digest"], new.digest);
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("1.42 → 1.43");
    let before = deployment.manifest();
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0).stdout_contains("1.43");
    assert_ne!(deployment.manifest(), before);

    registry.push(Image::new("web").version("1.43 again").tag("1.43").tag("latest"));
    let rebuilt = entry(&check(10), "web");
    assert_eq!(
        (&rebuilt["state"], &rebuilt["available_version"]),
        (&"rebuilt".into(), &"1.43".into())
    );
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("rebuilt");
}

/// A tag that no version names is rebuilt too when its bytes change.
#[test]
fn the_same_moving_tag_with_other_bytes_is_rebuilt() {
    let registry = Registry::start();
    registry.push(Image::new("web").version("one").tag("latest"));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.push(Image::new("web").version("two").tag("latest"));
    let rebuilt =
        entry(&deployment.dkv(["check-updates", "--exit-code", "--json"]).exit(10), "web");
    assert_eq!(rebuilt["state"], "rebuilt", "{rebuilt}");
}

#[test]
fn the_newest_version_is_told_whatever_the_tag_names() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("stable"));
    registry.push(Image::new("web").tag("2.0").tag("2.1-rc1"));
    let deployment = deployment(&registry.repository("web"), &["track: stable"]);
    let one = entry(&deployment.dkv(["check-updates", "--json"]).exit(0), "web");
    assert_eq!((&one["available_version"], &one["newest"]), (&"1.42".into(), &"2.0".into()));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    let one = entry(&deployment.dkv(["check-updates", "--json"]).exit(0), "web");
    assert_eq!((&one["state"], &one["newest"]), (&"up-to-date".into(), &"2.0".into()));
}

#[test]
fn held_local_and_rejected_are_no_offers() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("1.41"));
    let new = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let repository = registry.repository("web");
    let [tag, digest] = running("1.41", &old);
    let check = |deployment: &Deployment, code| {
        let outcome = deployment.dkv(["check-updates", "--exit-code", "--json"]).exit(code);
        (entry(&outcome, "web"), deployment.dkv(["check-updates"]).exit(0).stdout)
    };

    let held = deployment(&repository, &["held: true", &tag, &digest]);
    let (one, text) = check(&held, 0);
    assert_eq!((&one["state"], &one["would_change"]), (&"held".into(), &false.into()));
    assert!(text.contains("held") && text.contains("1.42"), "{text}");

    let local = deployment("bot", &["source: local", "current_tag: latest"]);
    let none = ["check-updates", "--exit-code", "--json"];
    let one = entry(&local.dkv(none).env("DOCKER_HOST", "unix:///nonexistent.sock").exit(0), "web");
    assert_eq!((&one["state"], &one["would_change"]), (&"local".into(), &false.into()));
    assert!(
        one["details"].as_str().unwrap().contains("could not be found out: cannot reach"),
        "{one}"
    );

    let rejected = deployment(&repository, &[&tag, &digest]);
    let record = format!(
        "rejected:\n  web: [{{digest: '{}', tag: '1.42', reason: 'settings never became healthy', \
            at: '2026-01-12T12:29:08Z'}}]\n",
        new.digest
    );
    rejected.write("version-manifest.yaml", &(rejected.manifest() + &record));
    let (one, text) = check(&rejected, 0);
    assert_eq!(one["state"], "rejected");
    assert!(text.contains("settings never became healthy"), "{text}");
    rejected
        .dkv(["pull-latest", "--no-pull"])
        .exit(0)
        .stdout_contains("rejected")
        .stdout_contains("--retry");
    assert_eq!(rejected.manifest_data()["services"]["web"]["current_tag"], "1.41");

    registry.push(Image::new("web").tag("1.43").tag("latest"));
    assert_eq!(check(&rejected, 10).0["state"], "update", "a newer digest is offered again");
}

#[test]
fn a_rollback_by_hand_is_behind_by_choice() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("1.41"));
    let new = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(
        &registry.repository("web"),
        &running("1.41", &old).each_ref().map(String::as_str),
    );
    let history = format!(
        "    deployed_at: '2026-02-03T04:05:06Z'\nhistory:\n  web:\n  - {{tag: '1.42', digest: \
            '{}', status: rolled-back}}\n  - {{tag: '1.41', digest: '{}', status: current}}\n",
        new.digest, old.digest
    );
    deployment.write("version-manifest.yaml", &(deployment.manifest() + &history));
    let one = entry(&deployment.dkv(["check-updates", "--json"]).exit(0), "web");
    assert_eq!((&one["state"], &one["available_version"]), (&"behind".into(), &"1.42".into()));
    deployment.dkv(["check-updates"]).exit(0).stdout_contains("behind by choice").stdout_contains(
        "1.42 was left by a rollback; 1.41 is in force since 2026-02-03T04:05:06Z",
    );
}

/// Several rollbacks leave one time behind, that of the last: it is not called that of the first.
#[test]
fn what_two_rollbacks_left_is_not_given_the_time_of_the_second() {
    let registry = Registry::start();
    for version in ["1.40", "1.41", "1.42"] {
        registry.push(Image::new("web").tag(version).tag("latest"));
    }
    let deployment = deployment(&registry.repository("web"), &[]);
    for version in ["1.40", "1.41"] {
        deployment.dkv(["version-pull", "web", version]).exit(0);
    }
    deployment.dkv(["pull-latest"]).exit(0);
    for time in ["2026-02-03T04:05:06Z", "2026-03-04T05:06:07Z"] {
        deployment.dkv(["rollback", "-y"]).env("DKV_NOW", time).exit(0);
    }
    let one = entry(&deployment.dkv(["check-updates", "--json"]).exit(0), "web");
    assert_eq!(
        one["details"],
        "1.42 was left by a rollback; 1.40 is in force since 2026-03-04T05:06:07Z; `pull-latest` \
            takes 1.42 again, `update-safe` does not"
    );
}

/// `pull-latest` records what the tag of a local build names; so there is something to tell.
#[test]
fn a_local_build_that_pull_latest_would_record_is_told() {
    let deployment = Deployment::new("local");
    let repository = format!("{}-bot", deployment.project());
    deployment.write("version-manifest.yaml", &manifest(&repository, &["source: local"]));
    let check =
        |code| entry(&deployment.dkv(["check-updates", "--exit-code", "--json"]).exit(code), "web");
    let missing = check(0);
    assert!(missing["details"].as_str().unwrap().contains("there is no local image"), "{missing}");

    for (version, details) in [
        ("one", "nothing is recorded yet"),
        ("two", "names another build than the recorded latest"),
    ] {
        deployment.load(&repository, Image::new("bot").tag("latest").version(version));
        let before = deployment.manifest();
        let new = check(10);
        assert_eq!((&new["state"], &new["would_change"]), (&"local".into(), &true.into()), "{new}");
        assert!(new["details"].as_str().unwrap().contains(details), "{new}");
        deployment.dkv(["pull-latest"]).exit(0);
        assert_ne!(deployment.manifest(), before);
        let same = check(0);
        assert_eq!(
            (&same["details"], &same["would_change"]),
            (&"built on this host".into(), &false.into())
        );
    }
    deployment.dkv(["rollback", "-y"]).exit(0);
    let left = check(10);
    assert!(left["details"].as_str().unwrap().contains("was left by a rollback"), "{left}");
}

/// The version's own tag is as it was; it is `latest` that names another index of the same image.
#[test]
fn another_index_of_the_same_image_is_not_said_to_be_other_bytes() {
    let registry = Registry::start();
    let both = |image: Image| image.version("1.0").platforms(&["amd64", "arm64"]).oci();
    registry.push(both(Image::new("web").tag("1.0").tag("latest")));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.push(both(Image::new("web").tag("latest")).index_annotation("built", "again"));
    let one = entry(&deployment.dkv(["check-updates", "--exit-code", "--json"]).exit(10), "web");
    assert_eq!(
        (&one["state"], &one["evidence"]),
        (&"rebuilt".into(), &"same-platform-digest".into())
    );
    assert_eq!(
        one["details"],
        "`latest` names another index than the recorded one, with the image that 1.0 has for this \
            platform"
    );
}

#[test]
fn one_dead_registry_does_not_spoil_the_others() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let nobody = crate::support::registry::free_address();
    let deployment = Deployment::new("updates");
    let both = format!(
        "{}  gone:\n    image: {nobody}/a/gone\n",
        manifest(&registry.repository("web"), &[])
    );
    deployment.write("version-manifest.yaml", &both);

    let outcome = deployment.dkv(["check-updates", "--exit-code", "--json"]).exit(9);
    assert_eq!(
        (&entry(&outcome, "web")["state"], &entry(&outcome, "gone")["state"]),
        (&"update".into(), &"unknown".into())
    );
    assert!(entry(&outcome, "gone")["details"].as_str().unwrap().contains(&nobody.to_string()));
    deployment.dkv(["check-updates"]).exit(9).stdout_contains("unknown");
    let all = deployment.dkv(["check-updates", "gone", "--exit-code"]).exit(5);
    all.stdout_contains(&nobody.to_string()).stderr_contains("error: ");
    assert_eq!(
        entry(&deployment.dkv(["check-updates", "gone", "--json"]).exit(5), "gone")["state"],
        "unknown"
    );
    deployment.dkv(["check-updates", "nothing"]).exit(2).stderr_contains("nothing");
}

/// Eight services in one registry, all up to date.
fn eight(repository: impl Fn(&str) -> String, registry: &Registry) -> Deployment {
    let deployment = Deployment::new("eight");
    let mut text = "schema_version: '1.1'\nservices:\n".to_owned();
    for number in 1..=8 {
        let name = format!("s{number}");
        let pushed = registry.push(Image::new(&name).tag("1.42").tag("latest"));
        text += &format!(
            "  {name}:\n    image: {}\n    current_tag: '1.42'\n    image_digest: {}\n",
            repository(&name),
            pushed.digest
        );
    }
    deployment.write("version-manifest.yaml", &text);
    deployment
}

#[test]
fn nothing_new_in_eight_services_costs_one_head_each() {
    let registry = Registry::start();
    let proxy = Proxy::to(&registry);
    let deployment = eight(|name| proxy.repository(name), &registry);
    let outcome = deployment.dkv(["check-updates", "--exit-code"]).exit(0);
    outcome.stdout_contains("up to date");
    let asked: Vec<String> = proxy
        .requests()
        .iter()
        .map(|seen| format!("{} {}", seen.method(), seen.target()))
        .collect();
    assert_eq!((asked.len(), proxy.count("HEAD", "/manifests/latest")), (8, 8), "{asked:?}");
}

#[test]
fn nothing_new_behind_tokens_costs_one_refusal_and_one_token_more() {
    let registry = Registry::builder().token_auth(TokenServer::anonymous()).start();
    let proxy = Proxy::to(&registry);
    let deployment = eight(|name| proxy.repository(name), &registry);
    deployment.dkv(["check-updates", "--exit-code"]).exit(0);
    assert_eq!(
        (
            proxy.count("GET", "/token"),
            proxy.count("HEAD", "/manifests/latest"),
            proxy.requests().len()
        ),
        (1, 9, 10)
    );
}

/// How many times an answer was waited for before something was asked; a request belongs to the
/// same round as those that were sent before any of them was answered.
fn rounds(proxy: &Proxy, round_trip: Duration) -> usize {
    let mut starts: Vec<Instant> = Vec::new();
    for seen in proxy.requests() {
        if starts.last().is_none_or(|start| seen.at - *start >= round_trip) {
            starts.push(seen.at);
        }
    }
    starts.len()
}

#[test]
fn nothing_new_takes_few_rounds_of_questions() {
    let round_trip = Duration::from_secs(1);
    for (registry, most) in [
        (Registry::start(), 3),
        (Registry::builder().token_auth(TokenServer::anonymous()).start(), 4),
    ] {
        let proxy = Proxy::to(&registry).latency(round_trip);
        let deployment = eight(|name| proxy.repository(name), &registry);
        deployment.dkv(["check-updates"]).exit(0);
        let rounds = rounds(&proxy, round_trip);
        assert!(rounds <= most, "{rounds}: {:?}", proxy.requests());
    }
}

#[test]
fn pull_latest_with_nothing_new_pulls_nothing_and_is_quick() {
    let registry = Registry::start();
    let round_trip = Duration::from_secs(1);
    let proxy = Proxy::to(&registry).latency(round_trip);
    let daemon = Daemon::private();
    let deployment = Deployment::on(daemon.engine().clone(), "nothing-new");
    let mut text = "schema_version: '1.1'\nservices:\n".to_owned();
    for name in ["a", "b", "c", "d"] {
        registry.push(Image::new(name).tag("1.42").tag("latest"));
        text += &format!("  {name}:\n    image: {}\n", proxy.repository(name));
    }
    deployment.write("version-manifest.yaml", &text);
    deployment.dkv(["pull-latest"]).exit(0);
    proxy.reset();
    let before =
        (deployment.manifest(), deployment.versions_env(), deployment.list(".version-backups"));

    let outcome = deployment.dkv(["pull-latest"]).exit(0);
    outcome.stderr_contains("Nothing new");
    assert!(rounds(&proxy, round_trip) <= 3, "{:?}", proxy.requests());
    assert_eq!(
        (proxy.requests().len(), proxy.count("HEAD", "/manifests/latest")),
        (4, 4),
        "the daemon pulled: {:?}",
        proxy.requests()
    );
    assert_eq!(
        before,
        (deployment.manifest(), deployment.versions_env(), deployment.list(".version-backups"))
    );
}
