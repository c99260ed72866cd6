//! Just enough HTTP/1.1 without TLS to push images, to ask a daemon, to stub services and to stand
//! between dkv and a registry.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Longest wait for a byte from a peer that should answer.
const IDLE: Duration = Duration::from_secs(60);

/// A request as read from the wire; header names keep their spelling.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path with query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// A response as read from or written to the wire.
#[derive(Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = self.text().chars().take(500).collect();
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &text)
            .finish()
    }
}

impl Response {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), content_type.into())],
            body: body.into(),
        }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Sends one request on a connection of its own and reads the whole answer.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let stream = TcpStream::connect_timeout(&address, IDLE)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    exchange(stream, &address.to_string(), method, target, headers, body)
}

/// Sends the last request on a connection and reads the whole answer.
pub fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let request = Request {
        method: method.into(),
        target: target.into(),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .chain([("Host".into(), host.to_owned()), ("Connection".into(), "close".into())])
            .collect(),
        body: body.to_vec(),
    };
    write_request(&mut stream, &request)?;
    read_response(&mut BufReader::new(stream), method == "HEAD")
}

/// Writes a request with a `Content-Length` that fits its body.
pub fn write_request(to: &mut impl Write, request: &Request) -> io::Result<()> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    push_headers(&mut head, &request.headers);
    if !request.body.is_empty() || !matches!(request.method.as_str(), "GET" | "HEAD") {
        head += &format!("Content-Length: {}\r\n", request.body.len());
    }
    head += "\r\n";
    to.write_all(&[head.as_bytes(), &request.body].concat())?;
    to.flush()
}

/// Writes a response; the answer to a HEAD keeps the `Content-Length` it came with and has no body.
pub fn write_response(to: &mut impl Write, response: &Response, head_only: bool) -> io::Result<()> {
    let mut bytes = response_head(response, head_only).into_bytes();
    if !head_only {
        bytes.extend_from_slice(&response.body);
    }
    to.write_all(&bytes)?;
    to.flush()
}

/// The status line and headers of a response, with the empty line that ends them.
pub fn response_head(response: &Response, head_only: bool) -> String {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    push_headers(&mut head, &response.headers);
    let length = match response.header("Content-Length") {
        Some(original) if head_only => original.to_owned(),
        _ => response.body.len().to_string(),
    };
    if response.status != 204 && response.status != 304 {
        head += &format!("Content-Length: {length}\r\n");
    }
    head + "\r\n"
}

/// All headers but those that describe the body's framing.
fn push_headers(head: &mut String, headers: &[(String, String)]) {
    for (name, value) in headers {
        if !name.eq_ignore_ascii_case("content-length")
            && !name.eq_ignore_ascii_case("transfer-encoding")
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// Reads one request; `None` when the peer closed the connection before the next one.
pub fn read_request(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some((first, headers)) = read_head(from)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid("not an HTTP request"));
    };
    let mut request =
        Request { method: method.into(), target: target.into(), headers, body: Vec::new() };
    request.body = read_body(from, &request.headers, false)?;
    Ok(Some(request))
}

/// Reads one response with its whole body.
pub fn read_response(from: &mut impl BufRead, head_only: bool) -> io::Result<Response> {
    loop {
        let (first, headers) = read_head(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| invalid("no status"))?;
        if status == 100 {
            continue;
        }
        let empty = head_only || status == 204 || status == 304;
        let body = if empty { Vec::new() } else { read_body(from, &headers, true)? };
        return Ok(Response { status, headers, body });
    }
}

/// The first line and the headers.
type Head = (String, Vec<(String, String)>);

fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if from.by_ref().take(64 * 1024).read_until(b'\n', &mut line)? == 0 {
            return if lines.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let line = String::from_utf8(line).map_err(|_| invalid("not text"))?.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let first = lines.next().ok_or_else(|| invalid("no first line"))?;
    let headers = lines
        .filter_map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        })
        .collect();
    Ok(Some((first, headers)))
}

fn read_body(
    from: &mut impl BufRead,
    headers: &[(String, String)],
    until_close: bool,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if find(headers, "Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or(""), 16)
                .map_err(|_| invalid("bad chunk"))?;
            let start = body.len();
            body.resize(start + size, 0);
            from.read_exact(&mut body[start..])?;
            line.clear();
            from.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match find(headers, "Content-Length") {
        Some(length) => {
            body.resize(length.parse().map_err(|_| invalid("bad length"))?, 0);
            from.read_exact(&mut body)?;
        }
        None if until_close => {
            from.read_to_end(&mut body)?;
        }
        None => {}
    }
    Ok(body)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Accepts connections on a loopback port until dropped; every connection gets a thread.
pub struct Listener {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Listener {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("the port just bound");
        let stopping = Arc::new(AtomicBool::new(false));
        let (serve, stop) = (Arc::new(serve), Arc::clone(&stopping));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, stopping }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that the port is free again.
        let _ = TcpStream::connect(self.address);
    }
}

/// A server whose answers are a function of the request.
pub fn serve(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Listener {
    Listener::start(move |stream| {
        let mut writer = stream.try_clone().expect("a second handle");
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = read_request(&mut reader) {
            if write_response(&mut writer, &answer(&request), request.method == "HEAD").is_err() {
                return;
            }
        }
    })
}
