//! A proxy in front of a registry that counts, delays and breaks requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::http::{self, Listener, Request, Response};
use super::{Registry, image};

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer instead of the registry's; see also [`Fault::status`].
    Respond(Response),
    /// The connection is reset before any byte of an answer.
    Reset,
    /// The connection is closed after this many bytes of the answer's body.
    Truncate(usize),
    /// Nothing is ever answered; the connection stays open.
    Stall,
    /// The answer comes after this time.
    Delay(Duration),
    /// The answer comes when this is opened.
    Hold(Gate),
    /// The answer's body comes one byte at a time with this pause between two.
    Drip(Duration),
    /// The `Docker-Content-Digest` header names other bytes.
    WrongDigestHeader,
    /// The body has one byte changed; its length and headers stay.
    WrongBody,
    /// The `Docker-Content-Digest` header is missing.
    NoDigestHeader,
    /// A redirect to the same place, without end.
    RedirectLoop,
    /// A body that never ends, with this status.
    EndlessBody(u16),
    /// A header of the answer is set.
    Header(String, String),
}

impl Fault {
    /// An error of the distribution API with this status.
    pub fn status(status: u16) -> Self {
        let code = match status {
            401 => "UNAUTHORIZED",
            403 => "DENIED",
            404 => "MANIFEST_UNKNOWN",
            429 => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        let body = serde_json::json!({"errors": [{"code": code, "message": format!("{code} says \
            the proxy")}]});
        Self::Respond(Response::json(status, &body))
    }

    /// 429 with `Retry-After` in seconds.
    pub fn retry_after(seconds: u64) -> Self {
        match Self::status(429) {
            Self::Respond(response) => {
                Self::Respond(response.with_header("Retry-After", &seconds.to_string()))
            }
            other => other,
        }
    }
}

/// What answers wait behind, so that a test can do something meanwhile; closed until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets all pass that wait and all that will.
    pub fn open(&self) {
        let (is_open, changed) = &*self.0;
        *is_open.lock().expect("no test panicked here") = true;
        changed.notify_all();
    }

    fn wait(&self) {
        let (is_open, changed) = &*self.0;
        let is_open = is_open.lock().expect("no test panicked here");
        // Not for ever: a test that failed opens nothing any more.
        drop(changed.wait_timeout_while(is_open, Duration::from_secs(120), |is_open| !*is_open));
    }
}

/// Which requests a fault is for: by method, by a part of the target and by number.
#[derive(Clone, Debug)]
pub struct On {
    method: Option<&'static str>,
    part: String,
    numbers: std::ops::RangeInclusive<usize>,
}

impl On {
    /// Every request whose path or query contains `part`.
    pub fn target(part: &str) -> Self {
        Self { method: None, part: part.into(), numbers: 1..=usize::MAX }
    }

    /// Every request.
    pub fn all() -> Self {
        Self::target("")
    }

    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Only the n-th of the matching requests, counted from 1.
    pub fn nth(mut self, number: usize) -> Self {
        self.numbers = number..=number;
        self
    }

    /// Only the first `count` matching requests.
    pub fn first(mut self, count: usize) -> Self {
        self.numbers = 1..=count;
        self
    }

    fn matches(&self, request: &Request) -> bool {
        self.method.is_none_or(|method| method == request.method)
            && request.target.contains(&self.part)
    }
}

/// A request that came by.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub request: Request,
    /// Status of the answer; `None` when a fault kept it back.
    pub status: Option<u16>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

impl Seen {
    pub fn method(&self) -> &str {
        &self.request.method
    }

    pub fn target(&self) -> &str {
        &self.request.target
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.header(name)
    }
}

struct Rule {
    on: On,
    fault: Fault,
    matched: usize,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    round_trip: Mutex<Duration>,
    tag_page: Mutex<Option<usize>>,
}

/// A running proxy. The first rule added that matches a request decides.
pub struct Proxy {
    listener: Listener,
    state: Arc<State>,
    namespace: String,
    /// What leads on to a server that has no address.
    bridge: Option<Listener>,
}

impl Proxy {
    /// In front of a plain registry; its token server, if it has one, is reached through the proxy
    /// too.
    pub fn to(registry: &Registry) -> Self {
        let token = registry.token_server().map(super::token::TokenServer::address);
        Self::between(registry.address(), token, registry.namespace())
    }

    /// In front of any plain HTTP server.
    pub fn to_address(upstream: SocketAddr) -> Self {
        Self::between(upstream, None, "")
    }

    /// In front of the machine's Docker daemon. What goes on without end, such as events, never
    /// arrives.
    pub fn to_engine() -> Self {
        let bridge = Listener::start(|client| {
            let Ok(daemon) = UnixStream::connect(super::engine::machine_socket()) else { return };
            let (Ok(mut from), Ok(mut to)) = (client.try_clone(), daemon.try_clone()) else {
                return;
            };
            let forth = thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            let (mut from, mut to) = (daemon, client);
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = forth.join();
        });
        let mut proxy = Self::between(bridge.address(), None, "");
        proxy.bridge = Some(bridge);
        proxy
    }

    fn between(upstream: SocketAddr, token: Option<SocketAddr>, namespace: &str) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        // An error ends one connection, as it would on a network.
        let listener = Listener::start(move |stream| drop(relay(stream, upstream, token, &shared)));
        Self { listener, state, namespace: namespace.into(), bridge: None }
    }

    /// Adds this time to each round trip; opening a connection is one, too.
    pub fn latency(self, round_trip: Duration) -> Self {
        *self.state.round_trip.lock().expect("no test panicked here") = round_trip;
        self
    }

    /// Serves `tags/list` sorted, in pages of at most this many tags with a `Link` to the next one,
    /// and refuses a larger `n` as ECR does; docker-registry 2.8 knows no pages.
    pub fn tag_pages(self, size: usize) -> Self {
        *self.state.tag_page.lock().expect("no test panicked here") = Some(size);
        self
    }

    /// Adds a rule from now on.
    pub fn fault(&self, on: On, fault: Fault) -> &Self {
        self.state.rules.lock().expect("no test panicked here").push(Rule {
            on,
            fault,
            matched: 0,
        });
        self
    }

    /// Forgets all rules and all requests so far.
    pub fn reset(&self) {
        self.state.rules.lock().expect("no test panicked here").clear();
        self.state.seen.lock().expect("no test panicked here").clear();
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// `host:port/namespace/name` by way of the proxy.
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.address(), self.namespace)
    }

    /// All requests so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no test panicked here").clone()
    }

    /// How many requests so far have this method and contain `part` in their target.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|seen| seen.method() == method && seen.target().contains(part))
            .count()
    }
}

fn relay(
    client: TcpStream,
    upstream: SocketAddr,
    token: Option<SocketAddr>,
    state: &State,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let own = client.local_addr()?;
    let mut writer = client.try_clone()?;
    let mut reader = BufReader::new(client);
    // The daemon tries TLS first; a plain server does not understand that and hangs up.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return writer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    }
    let connection = {
        let mut connections = state.connections.lock().expect("no test panicked here");
        *connections += 1;
        *connections - 1
    };
    let round_trip = *state.round_trip.lock().expect("no test panicked here");
    thread::sleep(round_trip);
    let mut servers = [Upstream::to(upstream), Upstream::to(token.unwrap_or(upstream))];
    while let Some(request) = http::read_request(&mut reader)? {
        let number = {
            let mut seen = state.seen.lock().expect("no test panicked here");
            seen.push(Seen {
                at: Instant::now(),
                request: request.clone(),
                status: None,
                connection,
            });
            seen.len() - 1
        };
        let answered = |status| {
            if let Some(seen) = state.seen.lock().expect("no test panicked here").get_mut(number) {
                seen.status = Some(status);
            }
        };
        let fault = fault_for(state, &request);
        thread::sleep(round_trip);
        match fault {
            Some(Fault::Stall) => {
                // Until the client gives up.
                io::copy(&mut reader, &mut io::sink())?;
                return Ok(());
            }
            Some(Fault::Reset) => {
                set_socket_linger(&writer, Some(Duration::ZERO))?;
                return Ok(());
            }
            Some(Fault::EndlessBody(status)) => {
                answered(status);
                write!(
                    writer,
                    "HTTP/1.1 {status} Endless\r\nContent-Type: \
                        application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )?;
                loop {
                    writer.write_all(format!("4000\r\n{}\r\n", " ".repeat(0x4000)).as_bytes())?;
                }
            }
            fault => {
                let server = usize::from(token.is_some() && request.target.starts_with("/token"));
                let response = match &fault {
                    Some(Fault::Respond(response)) => response.clone(),
                    Some(Fault::RedirectLoop) => Response::new(307, "text/plain", "")
                        .with_header("Location", &format!("http://{own}{}", request.target)),
                    _ => {
                        let response = servers[server].ask(&request)?;
                        match *state.tag_page.lock().expect("no test panicked here") {
                            Some(size)
                                if response.status == 200
                                    && request.target.contains("/tags/list") =>
                            {
                                page(&request, &response, size)
                            }
                            _ => response,
                        }
                    }
                };
                answered(response.status);
                let response = through_proxy(response, token, own);
                let head_only = request.method == "HEAD";
                if !deliver(&mut writer, response, fault.as_ref(), head_only)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn fault_for(state: &State, request: &Request) -> Option<Fault> {
    let mut rules = state.rules.lock().expect("no test panicked here");
    let mut fault = None;
    for rule in rules.iter_mut().filter(|rule| rule.on.matches(request)) {
        rule.matched += 1;
        if fault.is_none() && rule.on.numbers.contains(&rule.matched) {
            fault = Some(rule.fault.clone());
        }
    }
    fault
}

/// The part of a tag list that a request asks for.
fn page(request: &Request, whole: &Response, size: usize) -> Response {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let wanted = parameter("n").map_or(size, |n| n.parse().unwrap_or(0));
    if !(1..=size).contains(&wanted) {
        let message = format!("Invalid parameter at 'maxResults': must be between 1 and {size}");
        return Response::json(
            405,
            &serde_json::json!({"errors": [{"code": "UNSUPPORTED", "message": message}]}),
        );
    }
    let list: serde_json::Value = serde_json::from_slice(&whole.body).expect("a tag list");
    let mut tags: Vec<&str> = list["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .collect();
    tags.sort_unstable();
    let rest = parameter("last").map_or(0, |last| tags.partition_point(|tag| *tag <= last));
    let part = &tags[rest..tags.len().min(rest + wanted)];
    let response = Response::json(200, &serde_json::json!({"name": list["name"], "tags": part}));
    match part.last() {
        Some(last) if rest + wanted < tags.len() => {
            response.with_header("Link", &format!("<{path}?last={last}&n={wanted}>; rel=\"next\""))
        }
        _ => response,
    }
}

/// Points the realm of a challenge at the proxy.
fn through_proxy(mut response: Response, token: Option<SocketAddr>, own: SocketAddr) -> Response {
    if let Some(token) = token {
        for (name, value) in &mut response.headers {
            if name.eq_ignore_ascii_case("www-authenticate") {
                *value = value.replace(&token.to_string(), &own.to_string());
            }
        }
    }
    response
}

/// Writes the answer as the fault wants it; `false` when the connection is to be closed.
fn deliver(
    writer: &mut TcpStream,
    mut response: Response,
    fault: Option<&Fault>,
    head_only: bool,
) -> io::Result<bool> {
    let digest_header =
        |(name, _): &(String, String)| name.eq_ignore_ascii_case("docker-content-digest");
    match fault {
        Some(Fault::Delay(time)) => thread::sleep(*time),
        Some(Fault::Hold(gate)) => gate.wait(),
        Some(Fault::WrongDigestHeader) => {
            response.headers.retain(|header| !digest_header(header));
            response =
                response.with_header("Docker-Content-Digest", &image::digest(b"other bytes"));
        }
        Some(Fault::NoDigestHeader) => response.headers.retain(|header| !digest_header(header)),
        Some(Fault::Header(name, value)) => {
            response.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            response = response.with_header(name, value);
        }
        Some(Fault::WrongBody) => {
            if let Some(byte) = response.body.last_mut() {
                *byte ^= 1;
            }
        }
        Some(Fault::Truncate(kept)) => {
            writer.write_all(http::response_head(&response, head_only).as_bytes())?;
            writer.write_all(&response.body[..response.body.len().min(*kept)])?;
            return Ok(false);
        }
        Some(Fault::Drip(pause)) => {
            writer.write_all(http::response_head(&response, head_only).as_bytes())?;
            for byte in &response.body {
                writer.write_all(&[*byte])?;
                thread::sleep(*pause);
            }
            return Ok(true);
        }
        _ => {}
    }
    http::write_response(writer, &response, head_only)?;
    Ok(true)
}

/// The connection to the server behind the proxy, opened when first needed and again when it broke.
struct Upstream {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Upstream {
    fn to(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    fn ask(&mut self, request: &Request) -> io::Result<Response> {
        if let Some(stream) = &mut self.stream
            && let Ok(response) = exchange(stream, request)
        {
            return Ok(response);
        }
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let response = exchange(&mut stream, request)?;
        self.stream = Some(stream);
        Ok(response)
    }
}

fn exchange(stream: &mut BufReader<TcpStream>, request: &Request) -> io::Result<Response> {
    http::write_request(stream.get_mut(), request)?;
    http::read_response(stream.by_ref(), request.method == "HEAD")
}
