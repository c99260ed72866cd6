//! The client against servers on loopback, well-behaved and otherwise.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::test_server::{Reply, Seen, Server};
use super::{Client, Credentials, Error, Login, ManifestKind, ManifestName, Secret, Settings};
use crate::model::reference::{Digest, Repository, Tag};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const PASSWORD: &str = "p>>>???~~~";

fn manifest() -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"digest":"{}","size":2}},"layers":[]}}"#,
        Digest::of(b"{}")
    )
}

/// A good answer to any request for a manifest.
fn good() -> Reply {
    let body = manifest();
    Reply::Full(
        200,
        vec![
            ("content-type", IMAGE.to_owned()),
            ("docker-content-digest", Digest::of(body.as_bytes()).to_string()),
        ],
        body.into_bytes(),
    )
}

fn repository(server: &Server, path: &str) -> Repository {
    format!("{}/{path}", server.address).parse().unwrap()
}

fn latest() -> ManifestName {
    ManifestName::Tag("latest".parse().unwrap())
}

/// Settings that see nothing of the machine and give up soon.
fn settings() -> Settings {
    Settings {
        registry_certificates: "/nonexistent".into(),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(2),
        total_timeout: Duration::from_secs(20),
        ..Settings::default()
    }
}

fn client() -> Client {
    Client::new(settings())
}

/// A client whose user is logged in to `server`.
fn client_with_login(directory: &Path, server: &Server, password: &str) -> Client {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"{pair}"}}}}}}"#, server.address);
    std::fs::write(directory.join("config.json"), config).unwrap();
    Client::new(Settings { docker_config: Some(directory.to_owned()), ..settings() })
}

fn challenge(realm: &Server, scope: &str) -> Reply {
    Reply::status(401).with(
        "www-authenticate",
        format!(r#"Bearer realm="http://{}/token",service="s",scope="{scope}""#, realm.address),
    )
}

/// A registry that wants a token from `tokens` for each repository, and takes any.
async fn guarded(delay: Duration, tokens: Arc<Server>) -> Server {
    Server::start_with_delay(delay, move |seen, _| match seen.authorization.as_deref() {
        Some(bearer) if bearer.starts_with("Bearer good") => good(),
        _ => challenge(
            &tokens,
            &format!("repository:{}:pull", seen.target.split('/').nth(2).unwrap()),
        ),
    })
    .await
}

#[tokio::test]
async fn a_head_is_one_request_with_one_accept_list() {
    let server = Server::start(|_, _| good()).await;
    let described = client().head(&repository(&server, "a/b"), &latest()).await.unwrap();
    assert_eq!(described.digest, Digest::of(manifest().as_bytes()));
    assert_eq!((described.media_type.as_str(), described.is_index), (IMAGE, false));
    assert_eq!(described.size, Some(manifest().len() as u64));
    let seen = server.seen();
    assert_eq!(server.lines(), ["HEAD /v2/a/b/manifests/latest"]);
    assert_eq!(seen[0].accept.matches("application/").count(), 4);
    assert_eq!(seen[0].authorization, None);
}

#[tokio::test]
async fn eight_services_cost_one_head_each_one_token_and_three_round_trips() {
    let delay = Duration::from_millis(300);
    let tokens =
        Arc::new(Server::start_with_delay(delay, |_, _| Reply::json(r#"{"token":"good"}"#)).await);
    let registry = guarded(delay, Arc::clone(&tokens)).await;
    let repositories: Vec<Repository> =
        (0..8).map(|n| repository(&registry, &format!("r{n}"))).collect();
    let client = client();
    client.expect(&repositories);
    let start = Instant::now();
    let name = latest();
    for result in
        join_all(repositories.iter().map(|repository| client.head(repository, &name))).await
    {
        result.unwrap();
    }
    let took = start.elapsed();
    assert_eq!(registry.seen().len(), 9, "the first request, refused, and one each");
    assert_eq!(tokens.seen().len(), 1);
    assert_eq!(tokens.lines()[0].matches("scope=repository").count(), 8);
    assert!(took < delay * 4, "{took:?}");

    // Later requests know all that.
    client.head(&repositories[3], &name).await.unwrap();
    assert_eq!((registry.seen().len(), tokens.seen().len()), (10, 1));
}

#[tokio::test]
async fn an_open_registry_costs_one_head_each_and_two_round_trips() {
    let delay = Duration::from_millis(300);
    let registry = Server::start_with_delay(delay, |_, _| good()).await;
    let repositories: Vec<Repository> =
        (0..8).map(|n| repository(&registry, &format!("r{n}"))).collect();
    let (client, name, start) = (client(), latest(), Instant::now());
    for result in
        join_all(repositories.iter().map(|repository| client.head(repository, &name))).await
    {
        result.unwrap();
    }
    assert!(start.elapsed() < delay * 3, "{:?}", start.elapsed());
    assert_eq!(registry.seen().len(), 8);
}

#[tokio::test]
async fn a_token_server_that_wants_one_scope_at_a_time_gets_that() {
    let tokens = Server::start(|seen, _| match seen.target.matches("scope=").count() {
        1 => Reply::json(r#"{"access_token":"good"}"#),
        _ => Reply::status(400),
    });
    let tokens = Arc::new(tokens.await);
    let registry = guarded(Duration::ZERO, Arc::clone(&tokens)).await;
    let repositories: Vec<Repository> =
        (0..3).map(|n| repository(&registry, &format!("r{n}"))).collect();
    let client = client();
    client.expect(&repositories);
    for repository in &repositories {
        client.head(repository, &latest()).await.unwrap();
    }
    // One refused in common, then one each; the later repositories wait for no second refusal.
    let lines = tokens.lines();
    assert_eq!(
        lines.iter().filter(|line| line.matches("scope=").count() == 1).count(),
        3,
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_shared_token_that_does_not_open_a_repository_is_followed_by_its_own() {
    let tokens = Server::start(|seen, _| match seen.target.matches("scope=").count() {
        1 => Reply::json(r#"{"token":"good"}"#),
        _ => Reply::json(r#"{"token":"weak"}"#),
    });
    let tokens = Arc::new(tokens.await);
    let registry = guarded(Duration::ZERO, Arc::clone(&tokens)).await;
    let repositories = [repository(&registry, "a"), repository(&registry, "b")];
    let client = client();
    client.expect(&repositories);
    client.head(&repositories[0], &latest()).await.unwrap();
    assert_eq!((registry.seen().len(), tokens.seen().len()), (3, 2));
}

#[tokio::test]
async fn a_refusal_costs_one_new_token_and_then_is_an_error() {
    for status in [401, 403] {
        let tokens = Arc::new(Server::start(|_, _| Reply::json(r#"{"token":"bad"}"#)).await);
        let realm = Arc::clone(&tokens);
        let registry = Server::start(move |seen, _| match seen.authorization {
            None => challenge(&realm, "repository:a:pull"),
            Some(_) => Reply::status(status),
        })
        .await;
        let error = client().head(&repository(&registry, "a"), &latest()).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        assert_eq!((registry.seen().len(), tokens.seen().len()), (3, 2));
    }
}

#[tokio::test]
async fn tokens_are_renewed_before_they_expire() {
    let token = |number| Reply::json(format!(r#"{{"token":"good{number}","expires_in":2}}"#));
    let tokens = Arc::new(Server::start(move |_, number| token(number)).await);
    let registry = guarded(Duration::ZERO, Arc::clone(&tokens)).await;
    let (client, repository) = (client(), repository(&registry, "a"));
    let mut requests = 1;
    while tokens.seen().len() < 2 {
        client.head(&repository, &latest()).await.unwrap();
        requests += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let at: Vec<Instant> = tokens.seen().iter().map(|seen| seen.at).collect();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(2)).contains(&(at[1] - at[0])),
        "{:?}",
        at[1] - at[0]
    );
    assert_eq!(registry.seen().len(), requests, "no request was refused but the first");
    assert_eq!(registry.seen().last().unwrap().authorization.as_deref(), Some("Bearer good1"));
}

#[tokio::test]
async fn a_stale_login_falls_back_to_anonymous_and_stays_there() {
    let tokens = Server::start(|seen, _| match seen.authorization {
        None => Reply::json(r#"{"token":"good"}"#),
        Some(_) => Reply::Full(403, vec![], b"Your authorization token has expired".to_vec()),
    });
    let tokens = Arc::new(tokens.await);
    let registry = guarded(Duration::ZERO, Arc::clone(&tokens)).await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with_login(directory.path(), &registry, PASSWORD);
    let before = std::fs::read(directory.path().join("config.json")).unwrap();
    let one = repository(&registry, "a");
    assert!(client.credentials(&one).await.is_some());
    client.head(&one, &latest()).await.unwrap();
    client.head(&repository(&registry, "b"), &latest()).await.unwrap();
    let logins: Vec<bool> = tokens.seen().iter().map(|seen| seen.authorization.is_some()).collect();
    assert_eq!(logins, [true, false, false]);
    assert_eq!(client.credentials(&one).await, None);
    assert_eq!(std::fs::read(directory.path().join("config.json")).unwrap(), before);
}

#[tokio::test]
async fn a_login_that_opens_less_than_none_is_left_out_for_that_repository() {
    let tokens = Server::start(|seen, _| match seen.authorization {
        None => Reply::json(r#"{"token":"good"}"#),
        Some(_) => Reply::json(r#"{"token":"other"}"#),
    });
    let registry = guarded(Duration::ZERO, Arc::new(tokens.await)).await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with_login(directory.path(), &registry, PASSWORD);
    let one = repository(&registry, "a");
    client.head(&one, &latest()).await.unwrap();
    assert_eq!(client.credentials(&one).await, None);
    assert!(client.credentials(&repository(&registry, "b")).await.is_some());
}

#[tokio::test]
async fn a_refused_login_for_a_private_image_says_so_without_the_secret() {
    let tokens = Server::start(|seen, _| {
        // A server that repeats what it was sent.
        let secret = if seen.authorization.is_some() { PASSWORD } else { "login" };
        Reply::Full(401, vec![], format!("{{\"details\":\"no {secret}\\u001b[31m\"}}").into_bytes())
    });
    let registry = guarded(Duration::ZERO, Arc::new(tokens.await)).await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with_login(directory.path(), &registry, PASSWORD);
    let error = client.head(&repository(&registry, "a"), &latest()).await.unwrap_err();
    let text = format!("{error} {error:?} {}", error.hint());
    assert!(text.contains("the login was refused") && text.contains("anonymous"), "{text}");
    assert!(
        text.contains("docker login") && text.contains(&registry.address.to_string()),
        "{text}"
    );
    assert!(
        text.contains("no ***") && !text.contains(PASSWORD) && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[tokio::test]
async fn a_broken_helper_matters_only_for_private_images() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"credsStore":"nope"}"#).unwrap();
    for (status, is_public) in [(200, true), (403, false)] {
        let tokens =
            Server::start(move |_, _| Reply::Full(status, vec![], br#"{"token":"good"}"#.to_vec()));
        let registry = guarded(Duration::ZERO, Arc::new(tokens.await)).await;
        let client = Client::new(Settings {
            docker_config: Some(directory.path().to_owned()),
            ..settings()
        });
        let result = client.head(&repository(&registry, "a"), &latest()).await;
        assert_eq!(result.is_ok(), is_public);
        if let Err(error) = result {
            assert!(
                error.to_string().contains("docker-credential-nope is not installed"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn basic_logins_arrive_intact_and_only_when_asked_for() {
    for password in [PASSWORD, "with:colon", "é\"'$(x)\\ ", "="] {
        let expected = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
        let registry = Server::start(move |seen, _| match seen.authorization.as_deref() {
            Some(value) if value == format!("Basic {expected}") => good(),
            _ => Reply::status(401).with("www-authenticate", "Basic realm=\"r\""),
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let client = client_with_login(directory.path(), &registry, password);
        client.head(&repository(&registry, "a"), &latest()).await.unwrap();
        client.head(&repository(&registry, "b"), &latest()).await.unwrap();
        let logins: Vec<bool> =
            registry.seen().iter().map(|seen| seen.authorization.is_some()).collect();
        assert_eq!(logins, [false, true, true], "{password}");
    }
}

/// A place that collects what a subscriber writes.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn diagnostics_tell_limits_and_refusals_once_and_no_secret_ever() {
    let collected = Collected::default();
    let writer = collected.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let tokens = Server::start(|seen, _| match seen.authorization {
        None => Reply::json(r#"{"token":"good-t0k3n"}"#),
        Some(_) => Reply::status(401),
    });
    let tokens = Arc::new(tokens.await);
    let registry = Server::start(move |seen, _| match seen.authorization {
        None => challenge(&tokens, "repository:a:pull"),
        Some(_) => {
            good().with("ratelimit-limit", "100;w=21600").with("ratelimit-remaining", "76;w=21600")
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let client = client_with_login(directory.path(), &registry, PASSWORD);
    for path in ["a", "b"] {
        client.head(&repository(&registry, path), &latest()).await.unwrap();
    }
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("me:{PASSWORD}"));
    let text = String::from_utf8(collected.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("refuses the login").count(), 1, "{text}");
    assert_eq!(text.matches("76;w=21600 of 100;w=21600 left").count(), 1, "{text}");
    for secret in [PASSWORD, "t0k3n", pair.as_str()] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn identity_tokens_are_posted() {
    let tokens = Arc::new(Server::start(|_, _| Reply::json(r#"{"access_token":"good"}"#)).await);
    let registry = guarded(Duration::ZERO, Arc::clone(&tokens)).await;
    let client = client();
    let one = repository(&registry, "a");
    let login = Login::IdentityToken(Secret::from("re+fresh&1".to_owned()));
    client.supply_credentials(&one, Credentials { server: registry.address.to_string(), login });
    client.head(&one, &latest()).await.unwrap();
    let seen = &tokens.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/token"));
    assert!(
        seen.body.contains("grant_type=refresh_token")
            && seen.body.contains("refresh_token=re%2Bfresh%261"),
        "{}",
        seen.body
    );
    assert!(
        seen.body.contains("scope=repository%3Aa%3Apull") && seen.body.contains("service=s"),
        "{}",
        seen.body
    );
}

#[tokio::test]
async fn a_missing_tag_is_not_found_in_one_request() {
    let server = Server::start(|_, _| Reply::status(404)).await;
    let error = client().head(&repository(&server, "a"), &latest()).await.unwrap_err();
    assert!(
        matches!(error, Error::NotFound { .. }) && error.to_string().contains("a:latest"),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_registry_without_head_or_digests_is_asked_by_get() {
    let without_head =
        Server::start(|seen, _| if seen.method == "HEAD" { Reply::status(405) } else { good() })
            .await;
    let without_digest = Server::start(|_, _| {
        Reply::Full(200, vec![("content-type", IMAGE.to_owned())], manifest().into_bytes())
    })
    .await;
    let without_type = Server::start(|_, _| {
        Reply::Full(
            200,
            vec![("docker-content-digest", Digest::of(manifest().as_bytes()).to_string())],
            manifest().into_bytes(),
        )
    })
    .await;
    for server in [without_head, without_digest, without_type] {
        let described = client().head(&repository(&server, "a"), &latest()).await.unwrap();
        assert_eq!(described.digest, Digest::of(manifest().as_bytes()));
        assert_eq!(server.lines(), ["HEAD /v2/a/manifests/latest", "GET /v2/a/manifests/latest"]);
    }
}

#[tokio::test]
async fn a_registry_that_lies_about_a_digest_is_an_error() {
    let lie = Digest::of(b"something else");
    let announced = lie.clone();
    let server = Server::start(move |_, _| {
        Reply::Full(
            200,
            vec![
                ("content-type", IMAGE.to_owned()),
                ("docker-content-digest", announced.to_string()),
            ],
            manifest().into_bytes(),
        )
    })
    .await;
    let (client, one) = (client(), repository(&server, "a"));
    let good = Digest::of(manifest().as_bytes());
    for error in [
        client.manifest(&one, &latest()).await.unwrap_err(),
        client.manifest(&one, &lie.clone().into()).await.unwrap_err(),
        client.manifest(&one, &good.clone().into()).await.unwrap_err(),
        client.head(&one, &good.into()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
    }
    assert_eq!(server.seen().len(), 4, "nothing is tried again");

    // One that says nothing of digests is not believed either.
    let silent = Server::start(|_, _| {
        Reply::Full(200, vec![("content-type", IMAGE.to_owned())], manifest().into_bytes())
    })
    .await;
    let error = client.manifest(&repository(&silent, "a"), &lie.into()).await.unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
}

/// How many requests one operation makes of a server that answers like this, and what comes of it.
async fn requests_of(handler: impl Fn(usize) -> Reply + Send + Sync + 'static) -> (usize, bool) {
    let server = Server::start(move |_, number| handler(number)).await;
    let result = client().manifest(&repository(&server, "a"), &latest()).await;
    (server.seen().len(), result.is_ok())
}

#[tokio::test]
async fn what_is_transient_is_tried_three_times_and_nothing_else_is() {
    let recovering = [408, 500, 502, 503, 504].map(|status| {
        requests_of(move |number| if number < 2 { Reply::status(status) } else { good() })
    });
    assert_eq!(join_all(recovering).await, [(3, true); 5]);
    let failing = [(|| Reply::status(503)) as fn() -> Reply, || Reply::Close, || Reply::Truncated]
        .map(|make| requests_of(move |_| make()));
    assert_eq!(join_all(failing).await, [(3, false); 3]);
    let final_failures =
        [400, 404, 409, 418, 501].map(|status| requests_of(move |_| Reply::status(status)));
    assert_eq!(join_all(final_failures).await, [(1, false); 5]);
}

#[tokio::test]
async fn nothing_comes_before_retry_after_and_the_host_is_paced() {
    let server = Server::start(|_, number| match number {
        0 => Reply::status(429).with("retry-after", "2"),
        _ => good(),
    })
    .await;
    let (client, one) = (client(), repository(&server, "a"));
    for _ in 0..3 {
        client.head(&one, &latest()).await.unwrap();
    }
    let at: Vec<Instant> = server.seen().iter().map(|seen| seen.at).collect();
    assert_eq!(at.len(), 4);
    assert!(at[1] - at[0] >= Duration::from_secs(2));
    for pair in at[1..].windows(2) {
        // The server notes the arrival, which is a little later than the start.
        assert!(pair[1] - pair[0] >= Duration::from_millis(900), "{:?}", pair[1] - pair[0]);
    }
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_fails_at_once() {
    let server = Server::start(|_, _| Reply::status(429).with("retry-after", "3600")).await;
    let (client, start) = (client(), Instant::now());
    let one = repository(&server, "a");
    let error = client.head(&one, &latest()).await.unwrap_err();
    assert_eq!(
        error,
        Error::RateLimited {
            host: server.address.to_string(),
            retry_after: Some(Duration::from_secs(3600))
        }
    );
    assert!(error.hint().contains("3600 s"), "{}", error.hint());
    client.head(&one, &latest()).await.unwrap_err();
    assert_eq!(server.seen().len(), 1, "the second operation knows that it is too early");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn stalled_endless_and_dripping_answers_end() {
    let impatient = Settings {
        idle_timeout: Duration::from_millis(300),
        total_timeout: Duration::from_secs(1),
        ..settings()
    };
    for (make, what) in [
        ((|| Reply::Silence) as fn() -> Reply, "silent"),
        (|| Reply::Drip, "has taken its 1 s"),
        (|| Reply::Endless, "more than"),
    ] {
        let server = Server::start(move |_, _| make()).await;
        let start = Instant::now();
        let error = Client::new(impatient.clone())
            .manifest(&repository(&server, "a"), &latest())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert!(start.elapsed() < Duration::from_secs(3), "{what}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_unreachable_registry_is_tried_once_for_all_who_wait() {
    let server = Server::start(|_, _| Reply::Close).await;
    let client = client();
    let repositories: Vec<Repository> =
        (0..8).map(|n| repository(&server, &format!("r{n}"))).collect();
    let name = latest();
    let results =
        join_all(repositories.iter().map(|repository| client.head(repository, &name))).await;
    assert!(
        results.iter().all(|result| matches!(result, Err(Error::Unreachable { .. }))),
        "{results:?}"
    );
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn redirects_are_followed_without_the_login_and_not_forever() {
    let elsewhere = Arc::new(Server::start(|_, _| good()).await);
    let target = Arc::clone(&elsewhere);
    let tokens = Arc::new(Server::start(|_, _| Reply::json(r#"{"token":"good"}"#)).await);
    let registry = Server::start(move |seen, _| match &seen.authorization {
        None => challenge(&tokens, "repository:a:pull"),
        Some(_) if seen.target.ends_with("away") => {
            Reply::status(307).with("location", format!("http://{}/x", target.address))
        }
        Some(_) if seen.target == "/there" => good(),
        Some(_) if seen.target.ends_with("latest") => Reply::status(302).with("location", "/there"),
        Some(_) => Reply::status(302).with("location", seen.target.clone()),
    })
    .await;
    let (client, one) = (client(), repository(&registry, "a"));
    client.head(&one, &ManifestName::Tag("away".parse().unwrap())).await.unwrap();
    assert_eq!(elsewhere.seen()[0].authorization, None);
    client.head(&one, &latest()).await.unwrap();
    let there = registry.seen().into_iter().find(|seen| seen.target == "/there").unwrap();
    assert_eq!(there.authorization.as_deref(), Some("Bearer good"), "the same host keeps it");

    let before = registry.seen().len();
    let error =
        client.manifest(&one, &ManifestName::Tag("loop".parse().unwrap())).await.unwrap_err();
    assert!(error.to_string().contains("10 times"), "{error}");
    assert_eq!(registry.seen().len() - before, 11);
}

#[tokio::test]
async fn redirects_and_challenges_to_unsafe_places_are_refused() {
    for location in ["http://example.com/x", "ftp://127.0.0.1/x", "http://["] {
        let registry =
            Server::start(move |_, _| Reply::status(302).with("location", location)).await;
        let error = client().head(&repository(&registry, "a"), &latest()).await.unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{location}: {error:?}");
    }
    let registry = Server::start(|_, _| {
        Reply::status(401).with("www-authenticate", r#"Bearer realm="http://example.com/token""#)
    })
    .await;
    let error = client().head(&repository(&registry, "a"), &latest()).await.unwrap_err();
    assert!(error.to_string().contains("no TLS"), "{error}");
}

/// A list of `total` tags in pages of 1,000 that `link` leads to.
fn paged(total: usize) -> impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static {
    move |seen, _| {
        let start: usize =
            seen.target.split("last=").nth(1).map_or(0, |text| text.parse().unwrap());
        let end = (start + 1000).min(total);
        let names: Vec<String> = (start..end).map(|n| format!("\"1.{n}\"")).collect();
        let reply = Reply::json(format!(r#"{{"name":"a","tags":[{}]}}"#, names.join(",")));
        if end == total {
            reply
        } else {
            reply.with("link", format!("</v2/a/tags/list?n=1000&last={end}>; rel=\"next\""))
        }
    }
}

#[tokio::test]
async fn ten_thousand_tags_are_ten_pages() {
    let server = Server::start(paged(10_000)).await;
    let tags = client().tags(&repository(&server, "a")).await.unwrap().tags;
    assert_eq!((tags.len(), tags[9_999].as_str()), (10_000, "1.9999"));
    assert_eq!(server.seen().len(), 10);
    assert_eq!(server.lines()[0], "GET /v2/a/tags/list?n=1000");
}

#[tokio::test]
async fn odd_tag_lists_are_handled() {
    let list = async |body: &'static str| {
        let server = Server::start(move |_, _| Reply::json(body)).await;
        client().tags(&repository(&server, "a")).await.map(|list| list.tags)
    };
    assert_eq!(list(r#"{"name":"a","tags":null}"#).await, Ok(vec![]));
    assert_eq!(list(r#"{"name":"a"}"#).await, Ok(vec![]));
    assert_eq!(
        list(r#"{"tags":["ok","$(x)","",".hidden","ok"]}"#).await,
        Ok(vec!["ok".parse::<Tag>().unwrap()])
    );
    for none in ["<html>", "[]", r#"{"tags":{}}"#, r#"{"tags":[1]}"#, r#"{"tags":["a"]}x"#] {
        assert!(matches!(list(none).await, Err(Error::Malformed { .. })), "{none}");
    }
    let missing = Server::start(|_, _| Reply::status(404)).await;
    assert!(matches!(client().tags(&repository(&missing, "a")).await, Err(Error::NotFound { .. })));
}

/// The tags that came before the pages went wrong, why there are no more, and how many requests
/// that took.
async fn broken_off(
    reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> (String, String, usize) {
    let server = Server::start(reply).await;
    let list = client().tags(&repository(&server, "a")).await.unwrap();
    let tags: Vec<&str> = list.tags.iter().map(Tag::as_str).collect();
    let why = list.remark().unwrap_or_default().replace(&server.address.to_string(), "HOST");
    (tags.join(" "), why, server.seen().len())
}

#[tokio::test]
async fn what_came_before_the_pages_went_wrong_is_used() {
    const PAGE: &str = r#"{"tags":["a","b"]}"#;
    for (link, why, requests) in [
        ("</v2/a/tags/list?n=1000>; rel=next", "its pages go in circles", 1),
        ("</v2/a/tags/list>; rel=next", "its pages go in circles", 1),
        ("<?last=b>; rel=next", "its pages go in circles", 2),
        ("<http://example.com/v2/a/tags/list>; rel=next", "its next page is on another host", 1),
    ] {
        let found = broken_off(move |_, _| Reply::json(PAGE).with("link", link)).await;
        let said = format!("the registry's list of tags is incomplete: {why}");
        assert_eq!(found, ("a b".to_owned(), said, requests), "{link}");
    }
    for (reply, why) in [
        (400, "HOST answers 400 Bad Request for page 2 of the tags of HOST/a"),
        (404, "HOST has no page 2 of the tags of HOST/a"),
    ] {
        let found = broken_off(move |seen, _| match seen.target.contains("last") {
            false => Reply::json(PAGE).with("link", "</v2/a/tags/list?last=b>; rel=\"next\""),
            true => Reply::status(reply),
        });
        let said = format!("the registry's list of tags is incomplete: {why}");
        assert_eq!(found.await, ("a b".to_owned(), said, 2));
    }
    let counter = AtomicUsize::new(0);
    let (_, why, requests) = broken_off(move |_, _| {
        let next = counter.fetch_add(1, Ordering::Relaxed);
        Reply::json(r#"{"tags":[]}"#).with("link", format!("<?last={next}>; rel=next"))
    })
    .await;
    assert!(why.contains("circles") && requests < 10, "{why}");
    let counter = AtomicUsize::new(0);
    let (_, why, _) = broken_off(move |_, _| {
        let next = counter.fetch_add(1, Ordering::Relaxed);
        Reply::json(format!(r#"{{"tags":["{next}"]}}"#))
            .with("link", format!("<?last={next}>; rel=next"))
    })
    .await;
    assert!(!why.is_empty(), "endless pages end");
}

/// Behind a proxy a registry names itself otherwise; and not all say that there is more.
#[tokio::test]
async fn pages_are_asked_for_where_the_list_came_from() {
    for link in [
        "<http://internal:8081/v2/a/tags/list?last=b>; rel=\"next\"",
        "<https://127.0.0.1/other/v2/a/tags/list?last=b>;rel=next",
        "<tags/list?last=b>; rel=next",
    ] {
        let found = broken_off(move |seen, _| match seen.target.as_str() {
            "/v2/a/tags/list?last=b" => Reply::json(r#"{"tags":["c"]}"#),
            _ => Reply::json(r#"{"tags":["a","b"]}"#).with("link", link),
        });
        assert_eq!(found.await, ("a b c".to_owned(), String::new(), 2), "{link}");
    }
    let thousand: Vec<String> = (0..1000).map(|n| format!("\"1.{n}\"")).collect();
    let page = format!(r#"{{"tags":[{}]}}"#, thousand.join(","));
    for (rest, last, link, requests) in [
        (Reply::json as fn(&'static str) -> Reply, "2.0", "", 2),
        (|_| Reply::status(404), "1.999", "", 2),
        // A link that leads back promises nothing.
        (|_| Reply::status(404), "1.999", "<?n=1000>; rel=\"first\"", 2),
    ] {
        let page = page.clone();
        let (tags, why, asked) = broken_off(move |seen, _| match seen.target.as_str() {
            "/v2/a/tags/list?n=1000&last=1.999" => rest(r#"{"tags":["2.0"]}"#),
            _ => Reply::json(page.clone()).with("link", link),
        })
        .await;
        assert_eq!((tags.split(' ').next_back(), why.as_str(), asked), (Some(last), "", requests));
    }
    // One that knows no pages sends the same again.
    let (tags, why, asked) = broken_off(move |_, _| Reply::json(page.clone())).await;
    assert_eq!((tags.split(' ').count(), why.as_str(), asked), (1000, "", 2));
}

#[tokio::test]
async fn manifests_are_read() {
    let server = Server::start(|_, _| good()).await;
    let manifest = client().manifest(&repository(&server, "a"), &latest()).await.unwrap();
    let ManifestKind::Image { config, layers } = manifest.kind else { panic!() };
    assert_eq!((config.digest, layers.len()), (Digest::of(b"{}"), 0));
}
