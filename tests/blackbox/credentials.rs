//! Logins: where they are found, where they go, and that they show up nowhere.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::json;

use crate::resolution::manifest;
use crate::support::token::TokenServer;
use crate::support::{Daemon, Deployment, Image, Outcome, Proxy, Registry, wait_for};

const USER: &str = "alice";

/// Encodes to `+` and `/` in base64, also inside the JSON that the daemon gets.
const PASSWORD: &str = "p>>>???~~~";

/// A password that can be told from everything else.
const SENTINEL: &str = "SENTINEL-7f3a>>>???~~~";

fn basic(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn deployment(repository: &str) -> Deployment {
    let deployment = Deployment::new("login");
    deployment.write("version-manifest.yaml", &manifest(repository, &[]));
    deployment
}

/// Gives the deployment a login for `host` in the `auths` of `config.json`.
fn log_in(deployment: &Deployment, host: &str, password: &str) {
    deployment.docker_config(&json!({"auths": {host: {"auth": basic(USER, password)}}}));
}

fn guarded(password: &str) -> Registry {
    let registry = Registry::builder().htpasswd(USER, password).start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    registry
}

/// The secret and its encoded forms appear in none of the outputs.
#[track_caller]
fn shows_nothing(outcome: &Outcome, password: &str) {
    for secret in [password.to_owned(), basic(USER, password)] {
        outcome.stdout_lacks(&secret).stderr_lacks(&secret);
    }
}

#[test]
fn an_awkward_password_really_pulls_through_the_daemon() {
    let registry = guarded(PASSWORD);
    let daemon = Daemon::private();
    let deployment = Deployment::on(daemon.engine().clone(), "login");
    deployment.write("version-manifest.yaml", &manifest(&registry.repository("web"), &[]));
    deployment.dkv(["pull-latest"]).exit(5).stderr_contains("docker login");

    log_in(&deployment, &registry.address().to_string(), PASSWORD);
    let config = deployment.docker_config_file();
    let before = (fs::read(&config).unwrap(), fs::metadata(&config).unwrap().modified().unwrap());
    let outcome = deployment.dkv(["pull-latest", "-vv"]).exit(0);
    shows_nothing(&outcome, PASSWORD);
    assert!(
        deployment.versions_env().contains("DK_WEB_TAG=1.42@sha256:"),
        "{}",
        deployment.versions_env()
    );
    assert_eq!(
        before,
        (fs::read(&config).unwrap(), fs::metadata(&config).unwrap().modified().unwrap())
    );
}

#[test]
fn auths_stores_helpers_and_identity_tokens_are_found() {
    let registry = guarded(PASSWORD);
    let host = registry.address().to_string();
    let answer = format!(
        "cat >/dev/null\necho \
            '{{\"ServerURL\":\"{host}\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'"
    );
    for config in [
        json!({"auths": {host.clone(): {"auth": basic(USER, PASSWORD)}}}),
        json!({"auths": {format!("http://{host}/v2/"): {"username": USER, "password": PASSWORD}}}),
        json!({"auths": {host.clone(): {}}, "credsStore": "test"}),
        json!({"credHelpers": {host.clone(): "test"}, "credsStore": "missing"}),
    ] {
        let deployment = deployment(&registry.repository("web"));
        deployment.install("docker-credential-test", &format!("#!/bin/sh\n{answer}\n"));
        deployment.docker_config(&config);
        let outcome = deployment.dkv(["pull-latest", "--no-pull", "-vv"]).exit(0);
        shows_nothing(outcome.stdout_contains("1.42"), PASSWORD);
    }
}

/// An identity token goes to the token server in a form, and nowhere else.
#[test]
fn an_identity_token_goes_to_the_token_server_alone() {
    let registry = Registry::builder().token_auth(TokenServer::anonymous()).start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = deployment(&proxy.repository("web"));
    deployment.docker_config(
        &json!({"auths": {proxy.address().to_string(): {"identitytoken": SENTINEL}}}),
    );
    let outcome = deployment.dkv(["check-updates", "-vv"]).finish();
    shows_nothing(&outcome, SENTINEL);
    let requests = proxy.requests();
    let post = requests
        .iter()
        .find(|seen| seen.method() == "POST" && seen.target().starts_with("/token"))
        .unwrap();
    let form = String::from_utf8(post.request.body.clone()).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.contains("SENTINEL-7f3a"), "{form}");
    let others = requests.iter().filter(|seen| seen.method() != "POST");
    assert!(
        others.clone().all(|seen| !format!("{:?}", seen.request).contains("SENTINEL")),
        "{requests:?}"
    );
}

#[test]
fn a_login_goes_only_to_its_own_host() {
    let registry = guarded(PASSWORD);
    let mine = Proxy::to(&registry);
    let other = Registry::start();
    other.push(Image::new("web").tag("1.0").tag("latest"));
    let theirs = Proxy::to(&other);
    let deployment = Deployment::new("login");
    let both = format!(
        "{}  other:\n    image: {}\n",
        manifest(&mine.repository("web"), &[]),
        theirs.repository("web")
    );
    deployment.write("version-manifest.yaml", &both);
    log_in(&deployment, &mine.address().to_string(), PASSWORD);
    deployment.dkv(["check-updates"]).exit(0);
    assert!(mine.requests().iter().any(|seen| seen.header("Authorization").is_some()));
    assert!(theirs.requests().iter().all(|seen| seen.header("Authorization").is_none()));
}

#[test]
fn a_stale_login_falls_back_to_anonymous_and_leaves_the_file_alone() {
    let registry = Registry::builder().token_auth(TokenServer::anonymous()).start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    let deployment = deployment(&proxy.repository("web"));
    log_in(&deployment, &proxy.address().to_string(), SENTINEL);
    let expired = json!({"errors": [{"code": "DENIED", "message": "Your authorization token has \
        expired. Reauthenticate and try again."}]});
    proxy.fault(
        crate::support::On::target("account=alice"),
        crate::support::Fault::Respond(crate::support::http::Response::json(403, &expired)),
    );
    let config = deployment.docker_config_file();
    let before = (fs::read(&config).unwrap(), fs::metadata(&config).unwrap().modified().unwrap());
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    outcome
        .stdout_contains("1.42")
        .stderr_contains("warning: ")
        .stderr_contains("authorization token has expired");
    shows_nothing(&outcome, SENTINEL);
    assert_eq!(outcome.stderr.matches("warning: ").count(), 1, "{outcome}");
    assert_eq!(
        before,
        (fs::read(&config).unwrap(), fs::metadata(&config).unwrap().modified().unwrap())
    );
}

/// Basic authentication with a wrong password, and with none, on a registry that wants one.
#[test]
fn refusals_name_the_host_and_what_to_do() {
    let registry = guarded(PASSWORD);
    let host = registry.address().to_string();
    let deployment = deployment(&registry.repository("web"));
    let no_login = deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
    no_login.stderr_contains(&format!("docker login {host}")).stderr_contains("web");
    log_in(&deployment, &host, SENTINEL);
    let wrong = deployment.dkv(["pull-latest", "--no-pull", "-vv"]).exit(5);
    shows_nothing(wrong.stderr_contains("the login was refused"), SENTINEL);
}

#[test]
fn a_broken_helper_is_told_and_costs_a_public_registry_nothing() {
    let registry = Registry::builder().token_auth(TokenServer::anonymous()).start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(&registry.repository("web"));
    let garbage = format!("#!/bin/sh\necho 'not json {SENTINEL}'\n");
    let leaking = format!(
        "#!/bin/sh\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{SENTINEL}\"}}'\nexit 3\n"
    );
    for (script, why) in [
        (Some(garbage.as_str()), "gives an answer that is no login"),
        (Some(leaking.as_str()), "failed with exit status: 3"),
        (
            Some("#!/bin/sh\necho 'no credentials server URL'\nexit 1\n"),
            "no credentials server URL",
        ),
        (None, "is not installed"),
    ] {
        if let Some(script) = script {
            deployment.install("docker-credential-test", script);
        }
        let name = if script.is_some() { "test" } else { "missing" };
        deployment.docker_config(&json!({"credsStore": name}));
        let outcome = deployment.dkv(["check-updates", "-vv"]).exit(0);
        shows_nothing(outcome.stdout_contains("1.42").stderr_contains(why), SENTINEL);
    }
    let private = guarded(PASSWORD);
    deployment.write("version-manifest.yaml", &manifest(&private.repository("web"), &[]));
    deployment.dkv(["check-updates"]).exit(5).stdout_contains("is not installed");
    deployment.docker_config(&json!({"credsStore": "../../bin/evil"}));
    deployment.dkv(["check-updates"]).exit(5).stdout_contains("no name of a credential helper");
}

#[test]
fn a_hanging_helper_is_killed_with_its_children() {
    let registry = Registry::builder().token_auth(TokenServer::anonymous()).start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(&registry.repository("web"));
    let pids = deployment.path("pids");
    let script = format!("#!/bin/sh\nsleep 300 &\necho $$ $! >'{}'\nsleep 300\n", pids.display());
    deployment.install("docker-credential-test", &script);
    deployment.docker_config(&json!({"credsStore": "test"}));
    let started = Instant::now();
    deployment
        .dkv(["check-updates"])
        .exit(0)
        .stderr_contains("gives no answer within 10 s")
        .stdout_contains("1.42");
    assert!(started.elapsed() < Duration::from_secs(60));
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        let state = format!("/proc/{pid}/stat");
        wait_for("the helper is gone", Duration::from_secs(60), || {
            // A child that nobody has waited for yet is dead all the same.
            let text = fs::read_to_string(&state).unwrap_or_default();
            (!Path::new(&state).exists() || text.contains(") Z ")).then_some(())
        });
    }
}

/// The password is in no output, no file that is written, and no process's arguments.
#[test]
fn a_password_shows_up_nowhere() {
    let registry = guarded(SENTINEL);
    let deployment = deployment(&registry.repository("web"));
    log_in(&deployment, &registry.address().to_string(), SENTINEL);
    for args in [
        &["check-updates", "-vv", "--json"][..],
        &["pull-latest", "--no-pull", "-vv"],
        &["resolve-tags", "-vv", "--json"],
        &["version-pull", "web", "1.42", "--no-pull", "-vv", "--json"],
        &["version-pull", "web", "9.9", "--no-pull", "-vv", "--json"],
    ] {
        let outcome = deployment
            .dkv(args.iter().copied())
            .under_strace(["-f", "-s", "4096", "-e", "trace=execve"])
            .finish();
        shows_nothing(&outcome, SENTINEL);
        for secret in [SENTINEL.to_owned(), basic(USER, SENTINEL)] {
            assert!(!outcome.strace.contains(&secret), "{}", outcome.strace);
        }
    }
    let mut files = vec![deployment.manifest(), deployment.versions_env()];
    let kept = deployment.files_below(".version-backups");
    files.extend(kept.iter().map(|name| deployment.read(name)));
    assert!(
        files.len() > 2
            && files
                .iter()
                .all(|text| !text.contains("SENTINEL") && !text.contains(&basic(USER, SENTINEL)))
    );
}
