//! Fake daemons on Unix sockets for everything that a healthy daemon will not do on demand.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::endpoint::ChosenBy;
use super::stream::{LogLine, LogStream};
use super::*;
use crate::error::{self, Kind};
use crate::model::reference::Repository;

/// What a fake daemon does with a request, given its head.
enum Reply {
    /// A whole answer.
    Status(u16, &'static str, String),
    /// The lines of a stream in chunks, then its proper end.
    Stream(Vec<String>),
    /// The lines of a stream, then the connection breaks.
    Broken(Vec<String>),
    /// The lines of a stream, then nothing.
    Stuck(Vec<String>),
    /// So many lines, one every 200 ms, then their proper end.
    Drip(u32, String),
    /// Nothing at all.
    Silence,
    /// That this is the newest API version.
    Old(&'static str),
}

struct Fake {
    directory: tempfile::TempDir,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// A daemon that greets properly and answers everything else with `reply`.
    fn new(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, reply) = (heads.clone(), Arc::new(reply));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (seen, reply) = (seen.clone(), reply.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(head).unwrap();
                    seen.lock().unwrap().push(head.clone());
                    let reply = match head.starts_with("GET /_ping") || head.contains("/_ping HTTP")
                    {
                        true => match reply(&head) {
                            silence @ Reply::Silence => silence,
                            old @ Reply::Old(_) => old,
                            _ => Reply::Status(200, "", "OK".to_owned()),
                        },
                        false => reply(&head),
                    };
                    answer(&mut stream, reply).await;
                });
            }
        });
        Self { directory, heads }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    async fn docker(&self) -> Docker {
        self.docker_within(Deadlines::default()).await
    }

    async fn docker_within(&self, deadlines: Deadlines) -> Docker {
        Docker::connect(endpoint(&self.socket()), deadlines).await.unwrap()
    }
}

async fn answer(stream: &mut tokio::net::UnixStream, reply: Reply) {
    const HEAD: &str = "Api-Version: 1.41\r\nContent-Type: application/json\r\n";
    let (lines, end) = match reply {
        Reply::Silence => return std::future::pending().await,
        Reply::Old(version) => {
            let head = format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\n");
            let text = format!("{head}Content-Length: 2\r\n\r\nOK");
            return stream.write_all(text.as_bytes()).await.unwrap();
        }
        Reply::Status(status, extra, body) => {
            let text = format!(
                "HTTP/1.1 {status} X\r\n{HEAD}{extra}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            return stream.write_all(text.as_bytes()).await.unwrap();
        }
        Reply::Drip(count, line) => {
            stream
                .write_all(
                    format!("HTTP/1.1 200 OK\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n")
                        .as_bytes(),
                )
                .await
                .unwrap();
            for _ in 0..count {
                stream
                    .write_all(format!("{:x}\r\n{line}\r\n\r\n", line.len() + 2).as_bytes())
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            return stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        Reply::Stream(lines) => (lines, Some("0\r\n\r\n")),
        Reply::Broken(lines) => (lines, Some("")),
        Reply::Stuck(lines) => (lines, None),
    };
    let mut text = format!("HTTP/1.1 200 OK\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for line in lines {
        text += &format!("{:x}\r\n{line}\r\n\r\n", line.len() + 2);
    }
    stream.write_all(text.as_bytes()).await.unwrap();
    match end {
        Some(end) => stream.write_all(end.as_bytes()).await.unwrap(),
        None => std::future::pending().await,
    }
}

fn endpoint(socket: &Path) -> Endpoint {
    let settings =
        Settings { host: Some(format!("unix://{}", socket.display())), ..Settings::default() };
    Endpoint::resolve(&settings).unwrap()
}

const SHORT: Duration = Duration::from_millis(300);

/// For tests that wait for an answer in vain.
const QUICK_ANSWERS: Deadlines =
    Deadlines { connect: Duration::from_secs(10), idle: SHORT, pull_idle: Duration::from_secs(10) };

/// For tests that wait for a pull's progress in vain.
const QUICK_PULLS: Deadlines =
    Deadlines { connect: Duration::from_secs(2), idle: Duration::from_secs(10), pull_idle: SHORT };

fn request(credentials: Option<Credentials>) -> PullRequest {
    PullRequest {
        repository: "127.0.0.1:5000/acme/timeout-service".parse().unwrap(),
        target: PullTarget::Tag("1.2".parse().unwrap()),
        platform: None,
        credentials,
    }
}

fn kind_and_hint(error: &anyhow::Error) -> (Kind, String) {
    let known = error::find(error).unwrap();
    (known.kind(), known.hint().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn absent_refused_and_forbidden_sockets_get_hints_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");

    let mut default = endpoint(&socket);
    default.source = ChosenBy::Default;
    let absent = Docker::connect(default.clone(), Deadlines::default()).await.unwrap_err();
    let (kind, hint) = kind_and_hint(&absent);
    assert_eq!(kind, Kind::Docker);
    assert!(hint.contains("systemctl start docker"), "{hint}");
    assert!(absent.to_string().contains("No such file"), "{absent}");

    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let refused = Docker::connect(default, Deadlines::default()).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(kind_and_hint(&refused).1.contains("systemctl start docker"));

    let named = Docker::connect(endpoint(&socket), Deadlines::default()).await.unwrap_err();
    let hint = kind_and_hint(&named).1;
    assert!(hint.contains("DOCKER_HOST") && hint.contains(socket.to_str().unwrap()), "{hint}");

    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let error = bollard::errors::Error::IOError {
        err: std::io::Error::new(denied.kind(), failure::Unreachable(denied)),
    };
    let hint = failure::explain(&endpoint(&socket), "greet", &error, Duration::ZERO)
        .hint()
        .unwrap()
        .to_owned();
    assert!(hint.contains("usermod -aG docker") && !hint.contains("chmod"), "{hint}");
}

#[test]
fn an_answer_without_a_reason_and_a_broken_ssh_have_a_next_step() {
    let at = |address: &str| {
        let settings = Settings { host: Some(address.to_owned()), ..Settings::default() };
        Endpoint::resolve(&settings).unwrap()
    };
    let empty = bollard::errors::Error::DockerResponseServerError {
        status_code: 502,
        message: " \n".to_owned(),
    };
    let error =
        failure::explain(&at("tcp://10.0.0.1:2375"), "greet the daemon", &empty, Duration::ZERO);
    assert!(error.to_string().ends_with("HTTP status 502, without a reason"), "{error}");
    assert!(
        error.hint().unwrap().contains("DOCKER_HOST is set to tcp://10.0.0.1:2375"),
        "{error:?}"
    );

    let broken = || bollard::errors::Error::IOError { err: std::io::Error::other("closed") };
    for (address, command) in [
        ("ssh://ada@host", "`ssh ada@host docker version`"),
        ("ssh://ada@host:2222", "`ssh -p 2222 ada@host docker version`"),
        ("ssh://host", "`ssh host docker version`"),
    ] {
        let error = failure::explain(&at(address), "greet the daemon", &broken(), Duration::ZERO);
        assert!(error.hint().unwrap().contains(command), "{error:?}");
    }
    let error = failure::explain(&at("tcp://h:1"), "greet the daemon", &broken(), Duration::ZERO);
    assert!(error.hint().unwrap().contains("DOCKER_HOST"), "{error:?}");
}

#[tokio::test]
async fn a_forbidden_socket_is_told_from_an_absent_daemon() {
    if rustix::process::geteuid().is_root() {
        return; // may use any socket
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).unwrap();
    let error = Docker::connect(endpoint(&socket), QUICK_ANSWERS).await.unwrap_err();
    assert!(kind_and_hint(&error).1.contains("usermod -aG docker"), "{error}");
}

#[tokio::test]
async fn a_silent_daemon_is_given_up_on() {
    let fake = Fake::new(|_| Reply::Silence);
    let error = Docker::connect(endpoint(&fake.socket()), QUICK_ANSWERS).await.unwrap_err();
    assert_eq!(error::kind(&error), Kind::Docker);
    assert!(error.to_string().contains("has not answered"), "{error}");
}

#[tokio::test]
async fn an_answer_that_stops_halfway_is_given_up_on() {
    let fake = Fake::new(|_| Reply::Stuck(vec!["[".to_owned()]));
    let error = fake.docker_within(QUICK_ANSWERS).await.image_list().await.unwrap_err();
    assert!(error.to_string().contains("has not answered"), "{error}");
}

#[tokio::test]
async fn requests_carry_the_version_that_both_sides_speak() {
    let fake = Fake::new(|_| Reply::Status(200, "", "[]".to_owned()));
    fake.docker().await.image_list().await.unwrap();
    let heads = fake.heads.lock().unwrap().clone();
    assert!(heads[0].starts_with("GET /_ping HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[1].starts_with("GET /v1.41/images/json HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[1].contains("host: docker\r\n"), "{heads:?}");
}

#[tokio::test]
async fn what_the_engine_remembers_of_pulls_is_read_by_repository() {
    let id = format!("sha256:{}", "a".repeat(64));
    for (identity, expected) in [
        (serde_json::json!({"Pull": [{"Repository": "docker.io/library/web"}]}), vec!["web"]),
        (
            serde_json::json!({"Pull": [{"Repository": "r.example:5000/web"}, {}], "Build": [{}]}),
            vec!["r.example:5000/web"],
        ),
        (serde_json::json!({"Build": [{"Ref": "x", "CreatedAt": "2026-01-01T00:00:00Z"}]}), vec![]),
        (serde_json::json!(null), vec![]),
    ] {
        let image = serde_json::json!({"Id": id, "Identity": identity}).to_string();
        let fake = Fake::new(move |_| Reply::Status(200, "", image.clone()));
        let image = fake.docker().await.image("web").await.unwrap().unwrap();
        let expected: Vec<Repository> = expected.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(image.pulled_from, expected);
    }
}

#[tokio::test]
async fn versions_that_do_not_meet_are_explained() {
    for (fixed, said, hint) in [
        (Some("1.99"), "1.99 is too new. Maximum supported API version is 1.41", "lower it"),
        (Some("1.40"), "1.40 is too old. Minimum supported API version is 1.44", "raise it"),
        (None, "1.53 is too old. Minimum supported API version is 1.60", "a newer dkv"),
    ] {
        let message = format!(r#"{{"message":"client version {said}"}}"#);
        let fake = Fake::new(move |_| Reply::Status(400, "", message.clone()));
        let mut endpoint = endpoint(&fake.socket());
        endpoint.api_version = fixed.and_then(endpoint::ApiVersion::parse);
        let docker = Docker::connect(endpoint, Deadlines::default()).await.unwrap();
        let error = docker.image_list().await.unwrap_err();
        if let Some(fixed) = fixed {
            let first = fake.heads.lock().unwrap()[0].clone();
            assert!(first.starts_with(&format!("GET /v{fixed}/_ping ")), "{first}");
        }
        assert_eq!(error::kind(&error), Kind::Docker);
        let (_, found) = kind_and_hint(&error);
        assert!(found.contains(hint), "{said}: {found}");
        assert_eq!(found.contains("DOCKER_API_VERSION"), fixed.is_some(), "{found}");
    }
    for (newest, is_enough) in [("1.39", false), ("1.40", true), ("2.0", true)] {
        let fake = Fake::new(|_| Reply::Old(newest));
        match Docker::connect(endpoint(&fake.socket()), Deadlines::default()).await {
            Ok(_) => assert!(is_enough, "{newest}"),
            Err(error) => {
                assert!(!is_enough && error.to_string().contains("needs 1.40"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn credentials_reach_the_daemon_in_the_alphabet_that_it_reads() {
    use base64::Engine as _;
    let fake = Fake::new(|_| Reply::Stream(vec![]));
    let credentials = Credentials {
        username: "ada".to_owned(),
        password: "p>>>???~~~".to_owned(),
        identity_token: None,
        server_address: "127.0.0.1:5000".to_owned(),
    };
    assert!(!format!("{credentials:?}").contains("p>>>"));
    fake.docker().await.pull(&request(Some(credentials)), &|_| ()).await.unwrap();
    let heads = fake.heads.lock().unwrap().clone();
    let header = heads[1].lines().find_map(|line| line.strip_prefix("x-registry-auth: ")).unwrap();
    assert!(header.contains(['-', '_']), "the password was chosen to need these: {header}");
    let decoded = base64::engine::general_purpose::URL_SAFE.decode(header).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&decoded).unwrap();
    assert_eq!((&json["username"], &json["password"]), (&"ada".into(), &"p>>>???~~~".into()));
    assert_eq!(json["serveraddress"], "127.0.0.1:5000");
}

#[tokio::test]
async fn a_pull_tells_of_every_layer() {
    let lines = [
        r#"{"status":"Pulling from acme/timeout-service","id":"1.2"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":5,"total":9},"progress":"[=> ]","id":"aaa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":7},"id":"aaa"}"#,
        r#"{"status":"Retrying in 3 seconds","progressDetail":{},"id":"aaa"}"#,
        r#"{"status":"Verifying Checksum","progressDetail":{},"id":"aaa"}"#,
        r#"{"status":"Download complete","progressDetail":{},"id":"aaa"}"#,
        r#"{"status":"Extracting","progressDetail":{"current":9,"total":9},"id":"aaa"}"#,
        r#"{"status":"Pull complete","progressDetail":{},"id":"aaa"}"#,
        r#"{"status":"Already exists","progressDetail":{},"id":"bbb"}"#,
        r#"{"status":"Digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
        r#"{"status":"Status: \u001b[31mDone"}"#,
    ];
    let fake = Fake::new(move |_| Reply::Stream(lines.map(str::to_owned).to_vec()));
    let events = Mutex::new(Vec::new());
    fake.docker()
        .await
        .pull(&request(None), &|event| events.lock().unwrap().push(event))
        .await
        .unwrap();
    let layer = |id: &str, state| PullEvent::Layer { id: id.to_owned(), state };
    let expected = vec![
        PullEvent::Message("Pulling from acme/timeout-service".to_owned()),
        layer("aaa", LayerState::Waiting),
        layer("aaa", LayerState::Downloading { current: 5, total: Some(9) }),
        layer("aaa", LayerState::Downloading { current: 7, total: None }),
        layer("aaa", LayerState::Retrying),
        layer("aaa", LayerState::Verifying),
        layer("aaa", LayerState::Downloaded),
        layer("aaa", LayerState::Extracting { current: 9, total: Some(9) }),
        layer("aaa", LayerState::Complete),
        layer("bbb", LayerState::Exists),
        PullEvent::Digest(crate::model::reference::Digest::of(b"")),
        PullEvent::Message("Status: [31mDone".to_owned()),
    ];
    assert_eq!(events.into_inner().unwrap(), expected);
    let heads = fake.heads.lock().unwrap().clone();
    let query = "POST /v1.41/images/create?fromImage=127.0.0.1%3A5000%2Facme%2Ftimeout-service&";
    assert!(heads[1].starts_with(query) && heads[1].contains("tag=1.2"), "{heads:?}");
}

async fn failed_pull(
    deadlines: Deadlines,
    reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (PullFailure, Kind, String) {
    let fake = Fake::new(reply);
    let error =
        fake.docker_within(deadlines).await.pull(&request(None), &|_| ()).await.unwrap_err();
    (pull_failure(&error).unwrap(), error::kind(&error), format!("{error:#}"))
}

#[tokio::test]
async fn an_error_inside_a_successful_stream_is_an_error() {
    let message = "filesystem layer verification failed for digest sha256:00";
    let (failure, kind, text) = failed_pull(Deadlines::default(), move |_| {
        let line = format!(r#"{{"errorDetail":{{"message":"{message}"}},"error":"{message}"}}"#);
        Reply::Stream(vec![r#"{"status":"Pull complete","id":"aaa"}"#.to_owned(), line])
    })
    .await;
    assert_eq!((failure, kind), (PullFailure::Corrupt, Kind::Registry));
    assert!(
        text.contains("cannot pull 127.0.0.1:5000/acme/timeout-service:1.2: ")
            && text.contains(message),
        "{text}"
    );
}

#[tokio::test]
async fn a_daemon_that_dies_in_the_middle_is_an_error() {
    let line = r#"{"status":"Downloading","progressDetail":{"current":5,"total":9},"id":"aaa"}"#;
    let (failure, kind, text) =
        failed_pull(Deadlines::default(), move |_| Reply::Broken(vec![line.to_owned()])).await;
    assert_eq!((failure, kind), (PullFailure::Daemon, Kind::Docker), "{text}");
}

#[tokio::test]
async fn a_rate_limit_is_seen_behind_the_daemons_500() {
    let body = r#"{"message":"toomanyrequests: Rate exceeded"}"#;
    let (failure, kind, text) =
        failed_pull(Deadlines::default(), move |_| Reply::Status(500, "", body.to_owned())).await;
    assert_eq!((failure, kind), (PullFailure::RateLimited, Kind::Registry), "{text}");
}

#[tokio::test]
async fn a_pull_that_stands_still_is_blamed_on_whoever_does_not_answer() {
    let stuck = || Reply::Stuck(vec![r#"{"status":"Waiting","id":"aaa"}"#.to_owned()]);
    let (failure, kind, text) = failed_pull(QUICK_PULLS, move |_| stuck()).await;
    assert_eq!((failure, kind), (PullFailure::Stalled, Kind::Registry), "{text}");

    let greeted = std::sync::atomic::AtomicBool::new(false);
    let (failure, kind, text) =
        failed_pull(QUICK_PULLS, move |head| match head.contains("/_ping") {
            true if greeted.swap(true, std::sync::atomic::Ordering::Relaxed) => Reply::Silence,
            _ => stuck(),
        })
        .await;
    assert_eq!((failure, kind), (PullFailure::Daemon, Kind::Docker), "{text}");
}

#[tokio::test]
async fn a_pull_that_waits_for_its_turn_is_not_given_up_on() {
    let fake = Fake::new(|head| {
        let line = |status: &str| format!(r#"{{"status":"{status}","id":"aaa"}}"#);
        if head.contains("tag=busy") {
            Reply::Drip(8, line("Downloading"))
        } else {
            Reply::Stuck(vec![line("Waiting")])
        }
    });
    let deadlines = Deadlines { pull_idle: Duration::from_millis(900), ..QUICK_PULLS };
    let docker = fake.docker_within(deadlines).await;
    let busy = PullRequest { target: PullTarget::Tag("busy".parse().unwrap()), ..request(None) };
    let waiting = request(None);
    let started = Instant::now();
    let (waited, pulled) =
        tokio::join!(docker.pull(&waiting, &|_| ()), docker.pull(&busy, &|_| ()));
    pulled.unwrap();
    assert_eq!(pull_failure(&waited.unwrap_err()), Some(PullFailure::Stalled));
    assert!(started.elapsed() > Duration::from_millis(7 * 200 + 900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_dropped_stream_closes_its_connection() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (told, closed) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut greeting, _) = listener.accept().await.unwrap();
        answer(&mut greeting, Reply::Status(200, "", "OK".to_owned())).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let event = r#"{"Type":"container","Action":"die","Actor":{"ID":"abc"}}"#;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream
            .write_all(format!("{head}{:x}\r\n{event}\n\r\n", event.len() + 1).as_bytes())
            .await
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        told.send(()).unwrap();
    });
    let docker = Docker::connect(endpoint(&socket), Deadlines::default()).await.unwrap();
    let mut events = Box::pin(docker.events(&ContainerFilter::default(), None));
    let event = events.try_next().await.unwrap().unwrap();
    assert_eq!((event.action, event.container.as_str()), (Action::Die, "abc"));
    drop(events);
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap().unwrap();
}

#[tokio::test]
async fn images_with_odd_names_do_not_spoil_the_list() {
    let body = r#"[{"Id":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","ParentId":"","RepoTags":null,
        "RepoDigests":["<none>@<none>","a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        "Created":1,"Size":1,"SharedSize":-1,"VirtualSize":1,"Labels":null,"Containers":-1}]"#;
    let fake = Fake::new(|_| Reply::Status(200, "", body.to_owned()));
    let list = fake.docker().await.image_list().await.unwrap();
    let digest = crate::model::reference::Digest::of(b"");
    assert_eq!(
        list.by_digest(&"docker.io/library/a".parse().unwrap(), &digest).unwrap().id,
        digest
    );
    assert_eq!(list.by_id(&digest).unwrap().digests.len(), 1);
}

#[tokio::test]
async fn untagging_tolerates_what_is_gone_or_in_use() {
    for (status, expected) in
        [(404, Some(Untagged::Absent)), (409, Some(Untagged::InUse)), (500, None)]
    {
        let fake = Fake::new(move |_| Reply::Status(status, "", r#"{"message":"no"}"#.to_owned()));
        let result =
            fake.docker().await.untag(&"h:5/a".parse().unwrap(), &"dkv-x".parse().unwrap()).await;
        assert_eq!(result.ok(), expected);
        let heads = fake.heads.lock().unwrap().clone();
        assert!(
            heads[1].starts_with("DELETE /v1.41/images/h:5/a:dkv-x HTTP"),
            "never forced: {heads:?}"
        );
    }
}

#[tokio::test]
async fn log_lines_are_cut_to_the_asked_moments() {
    let frame = |stream: u8, text: &str| {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        String::from_utf8(bytes).unwrap() + text
    };
    let body = frame(1, "2026-01-02T03:04:05.100000000Z early\n")
        + &frame(2, "2026-01-02T03:04:05.500000000Z  kept \n")
        + &frame(1, "2026-01-02T03:04:05.900000000Z late\n");
    let fake = Fake::new(move |_| Reply::Status(200, "", body.clone()));
    let at = |text: &str| Some(container::moment(text).unwrap());
    let options = LogOptions {
        since: at("2026-01-02T03:04:05.5Z"),
        until: at("2026-01-02T03:04:05.9Z"),
        tail: Some(7),
        follow: false,
    };
    let lines: Vec<LogLine> =
        fake.docker().await.logs("abc", &options).try_collect().await.unwrap();
    let expected = LogLine {
        stream: LogStream::Stderr,
        time: options.since,
        bytes: b" kept ".to_vec(),
        is_cut: false,
    };
    assert_eq!(lines, [expected]);
    let heads = fake.heads.lock().unwrap().clone();
    assert!(
        heads[1].contains("since=1767323045") && heads[1].contains("until=1767323046"),
        "{heads:?}"
    );
}

#[test]
fn foreign_text_cannot_steer_a_terminal() {
    assert_eq!(failure::display_safe("a\u{1b}[31mb\nc\u{202e}d"), "a[31mb cd");
    assert_eq!(failure::display_safe(&"x".repeat(9_000)).chars().count(), 501);
}

#[test]
fn machines_have_the_names_of_image_indexes() {
    let name = |machine| platform(Some("linux"), Some(machine)).to_string();
    let names = ["x86_64", "aarch64", "armv7l", "riscv64"].map(name);
    assert_eq!(names, ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64"]);
}

/// An authority in `directory` (`ca.pem`) and one certificate for 127.0.0.1 that serves both sides.
fn make_certificates(directory: &Path) {
    const NEW_KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    std::fs::write(
        directory.join("extensions"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .unwrap();
    let steps: [(&[&str], &str); 3] = [
        (NEW_KEY, "req -x509 -days 2 -subj /CN=dkv-test-authority -keyout ca-key.pem -out ca.pem"),
        (NEW_KEY, "req -subj /CN=dkv-test -keyout key.pem -out request.pem"),
        (
            &[],
            "x509 -req -days 2 -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial \
                -extfile extensions -out cert.pem",
        ),
    ];
    for (extra, arguments) in steps {
        let mut command = std::process::Command::new("openssl");
        let output =
            command.current_dir(directory).args(arguments.split(' ')).args(extra).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A TLS door in front of a Unix socket, open to clients that the authority knows; its port.
async fn tls_door(certificates: &Path, socket: PathBuf) -> u16 {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{
        RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.join("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(certificates.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut outside) = acceptor.accept(stream).await else { continue };
            let mut inside = tokio::net::UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_remote_daemon_is_reached_by_tls_with_the_right_authority_only() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(ours.path());
    make_certificates(theirs.path());
    let fake = Fake::new(|_| Reply::Status(200, "", "[]".to_owned()));
    let port = tls_door(ours.path(), fake.socket()).await;
    let connect = async |certificates: &Path| {
        let settings = Settings {
            host: Some(format!("tcp://127.0.0.1:{port}")),
            tls_verify: Some("1".to_owned()),
            cert_path: Some(certificates.to_owned()),
            ..Settings::default()
        };
        Docker::connect(Endpoint::resolve(&settings).unwrap(), Deadlines::default()).await
    };

    let docker = connect(ours.path()).await.unwrap();
    assert_eq!(docker.image_list().await.unwrap().images(), []);

    let (kind, hint) = kind_and_hint(&connect(theirs.path()).await.unwrap_err());
    assert!(kind == Kind::Docker && hint.contains("DOCKER_HOST"), "{hint}");

    std::fs::remove_file(ours.path().join("cert.pem")).unwrap();
    std::fs::remove_file(ours.path().join("key.pem")).unwrap();
    assert_eq!(
        error::kind(&connect(ours.path()).await.unwrap_err()),
        Kind::Docker,
        "the daemon wants to know its user"
    );

    std::fs::remove_file(ours.path().join("ca.pem")).unwrap();
    let error = connect(ours.path()).await.unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
}

/// Compiles only if commands may run requests on other threads.
#[test]
fn requests_can_be_spawned() {
    fn assert_send(_: impl Send) {}
    let connect = Docker::connect(endpoint(Path::new("/nowhere")), QUICK_ANSWERS);
    assert_send(async move {
        let docker = connect.await?;
        docker.pull(&request(None), &|_| ()).await?;
        docker.container_details(&ContainerFilter::default()).await?;
        docker.images(&[]).await
    });
}
