//! A token server: issues the signed tokens that a `docker-registry` with token authentication
//! accepts.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{self, Listener, Request, Response};
use super::registry::openssl;

const SERVICE: &str = "dkv-tests";
const ISSUER: &str = "dkv-tests-issuer";

/// What the server grants.
#[derive(Clone, Debug)]
struct Policy {
    /// User and password that are asked for; anonymous pulls are allowed when `None`.
    login: Option<(String, String)>,
    lifetime: Duration,
    latency: Duration,
    /// Adds claims as large as this to each token.
    padding: usize,
}

/// A running token server. Its `/token` grants pull on whatever scope is asked for.
pub struct TokenServer {
    listener: Listener,
    directory: Arc<TempDir>,
    policy: Arc<Mutex<Policy>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl TokenServer {
    /// Grants tokens to anybody.
    pub fn anonymous() -> Self {
        let directory = Arc::new(super::temporary("token"));
        openssl(
            directory.path(),
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=dkv-tests -keyout token.key -out \
                token.pem",
        );
        let policy = Policy {
            login: None,
            lifetime: Duration::from_secs(300),
            latency: Duration::ZERO,
            padding: 0,
        };
        let (policy, requests) = (Arc::new(Mutex::new(policy)), Arc::new(Mutex::new(Vec::new())));
        let listener = http::serve({
            let (directory, policy, requests) =
                (Arc::clone(&directory), Arc::clone(&policy), Arc::clone(&requests));
            move |request| {
                requests.lock().expect("no test panicked here").push(request.clone());
                let policy = policy.lock().expect("no test panicked here").clone();
                thread::sleep(policy.latency);
                answer(request, &policy, &directory)
            }
        });
        Self { listener, directory, policy, requests }
    }

    /// Grants tokens to this user only; everybody else gets 401.
    pub fn login(self, user: &str, password: &str) -> Self {
        self.change(|policy| policy.login = Some((user.into(), password.into())));
        self
    }

    /// How long a token is valid; the registry refuses it afterwards.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        self.change(|policy| policy.lifetime = lifetime);
        self
    }

    /// Time added to each answer.
    pub fn latency(self, latency: Duration) -> Self {
        self.change(|policy| policy.latency = latency);
        self
    }

    /// Makes every token longer by this many bytes.
    pub fn padding(self, bytes: usize) -> Self {
        self.change(|policy| policy.padding = bytes);
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// All requests so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test panicked here").clone()
    }

    /// The `auth.token` section of the registry's configuration.
    pub(super) fn registry_settings(&self) -> Value {
        json!({
            "realm": format!("http://{}/token", self.address()),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.directory.path().join("token.pem"),
        })
    }

    fn change(&self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy.lock().expect("no test panicked here"));
    }
}

fn answer(request: &Request, policy: &Policy, directory: &TempDir) -> Response {
    if let Some((user, password)) = &policy.login {
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        if request.header("Authorization") != Some(expected.as_str()) {
            return Response::json(
                401,
                &json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}),
            )
            .with_header("WWW-Authenticate", "Basic realm=\"dkv tests\"");
        }
    }
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let scopes: Vec<String> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="))
        .map(percent_decode)
        .collect();
    let access: Vec<Value> = scopes
        .iter()
        .flat_map(|scope| scope.split(' '))
        .filter_map(|scope| {
            let (head, _actions) = scope.rsplit_once(':')?;
            let (kind, name) = head.split_once(':')?;
            Some(json!({"type": kind, "name": name, "actions": ["pull"]}))
        })
        .collect();
    let token = sign(directory, policy, &access);
    Response::json(
        200,
        &json!({"token": token, "access_token": token, "expires_in": policy.lifetime.as_secs()}),
    )
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                u8::from_str_radix(&String::from_utf8_lossy(&hex), 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A JSON web token, RS256, with the certificate in its header.
fn sign(directory: &TempDir, policy: &Policy, access: &[Value]) -> String {
    let pem = fs::read_to_string(directory.path().join("token.pem")).expect("the certificate");
    let certificate: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = json!({
        "iss": ISSUER, "sub": "", "aud": SERVICE, "jti": format!("{}", now.as_nanos()),
        "iat": now.as_secs(), "nbf": now.as_secs() - 5, "exp": (now + policy.lifetime).as_secs(),
        "access": access, "padding": "x".repeat(policy.padding),
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(directory.path().join("token.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), signed.as_bytes())
        .expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl cannot sign");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
}
