//! How requests reach the daemon: connections of our own under bollard's API.
//!
//! bollard's own connectors know neither a connect deadline nor a private authority for TLS, and
//! its URIs lose the API version on the way. Here a request takes a connection that an earlier one
//! has finished with, or else a new one, and gets the version prefix and a mended
//! `X-Registry-Auth`.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::BollardRequest;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use super::Deadlines;
use super::endpoint::{Address, ApiVersion, Endpoint, TlsFiles, authority};
use super::failure::Unreachable;
use crate::error::{self, Error};

/// The newest API version whose answers this build can read: bollard's.
pub(super) const NEWEST: ApiVersion = ApiVersion {
    major: bollard::API_DEFAULT_VERSION.major_version as u16,
    minor: bollard::API_DEFAULT_VERSION.minor_version as u16,
};

/// How long a daemon is left alone that accepts no more connections at the moment.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// bollard on top of our connections, and what both sides will be found to speak. Nothing is
/// connected yet.
///
/// # Errors
/// Kind Docker: TLS files that cannot be read or used.
pub(super) fn client(
    endpoint: &Endpoint,
    deadlines: Deadlines,
) -> Result<(bollard::Docker, Arc<OnceLock<ApiVersion>>)> {
    let tls = match &endpoint.target {
        Address::Tcp { host, tls: Some(files), .. } => Some(tls(host, files)?),
        _ => None,
    };
    let api_version = Arc::new(endpoint.api_version.map_or_else(OnceLock::new, OnceLock::from));
    let spoken = Arc::clone(&api_version);
    let connector = Arc::new(Connector {
        target: endpoint.target.clone(),
        tls,
        deadline: deadlines.connect,
        api_version,
        idle: Mutex::default(),
    });
    // Until the head of an answer; bollard counts whole seconds.
    let patience = (deadlines.connect + deadlines.idle).as_secs() + 1;
    let client = bollard::Docker::connect_with_custom_transport(
        move |request: BollardRequest| {
            let connector = connector.clone();
            async move { Ok(connector.send(request).await?) }
        },
        Some("http://docker"),
        patience,
        bollard::API_DEFAULT_VERSION,
    )
    .with_context(|| format!("cannot talk to the Docker daemon at {endpoint}"))?;
    Ok((client, spoken))
}

/// The body of bollard's requests, for which it has no public name.
type Body = <BollardRequest as Message>::Body;

/// Names the body of a request.
trait Message {
    type Body;
}

impl<Body> Message for Request<Body> {
    type Body = Body;
}

/// Makes the connections, and keeps those that can serve again.
struct Connector {
    target: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    deadline: Duration,
    /// What both sides speak; known from the daemon's first answer on, unless the user fixed it.
    api_version: Arc<OnceLock<ApiVersion>>,
    /// Connections on which nothing is under way.
    idle: Mutex<Vec<SendRequest<Body>>>,
}

/// Why a request got no answer, in the two shapes that bollard can carry.
enum SendError {
    Connect(io::Error),
    Http(hyper::Error),
}

impl From<SendError> for bollard::errors::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect(error) => {
                Self::IOError { err: io::Error::new(error.kind(), Unreachable(error)) }
            }
            SendError::Http(err) => Self::HyperResponseError { err },
        }
    }
}

impl Connector {
    async fn send(
        self: Arc<Self>,
        request: BollardRequest,
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = self.finish(request);
        while let Some(mut sender) = self.take_idle() {
            let again = repeatable(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answered(sender, response)),
                // The daemon closed the connection before it read the request, or, having been
                // restarted, before it answered: what changes nothing can be asked again.
                Err(mut failed) => match failed.take_message().or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Http(failed.into_error())),
                },
            }
        }
        let mut sender = self.connection().await?;
        let response = sender.send_request(request).await.map_err(SendError::Http)?;
        Ok(self.answered(sender, response))
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Learns from an answer, and lets its connection serve again once the body has been read. A
    /// body that is given up closes the connection.
    fn answered(
        self: Arc<Self>,
        mut sender: SendRequest<Body>,
        response: Response<Incoming>,
    ) -> Response<Incoming> {
        if let Some(theirs) = response
            .headers()
            .get("api-version")
            .and_then(|value| ApiVersion::parse(value.to_str().ok()?))
        {
            self.api_version.get_or_init(|| theirs.min(NEWEST));
        }
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
            }
        });
        response
    }

    async fn connection(&self) -> Result<SendRequest<Body>, SendError> {
        let connection =
            tokio::time::timeout(self.deadline, self.connect()).await.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {} s", self.deadline.as_secs_f64()),
                ))
            });
        let (stream, child) = connection.map_err(SendError::Connect)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(SendError::Http)?;
        tokio::spawn(async move {
            // A failure here also fails the request or the body that it cuts short.
            let _ = connection.await;
            drop(child);
        });
        Ok(sender)
    }

    /// A byte stream to the daemon, and the process that carries it if there is one.
    async fn connect(&self) -> io::Result<(Box<dyn Duplex>, Option<Child>)> {
        match &self.target {
            Address::Unix(path) => {
                #[cfg(test)]
                if let Some(stream) = crate::simulation::connect(path) {
                    return Ok((Box::new(stream?), None));
                }
                Ok((Box::new(unix(path).await?), None))
            }
            Address::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match &self.tls {
                    Some((connector, name)) => {
                        Ok((Box::new(connector.connect(name.clone(), stream).await?), None))
                    }
                    None => Ok((Box::new(stream), None)),
                }
            }
            Address::Ssh { .. } => {
                // Its standard error stays the user's: what ssh has to say is said by nobody else.
                let mut child = Command::new("ssh")
                    .args(ssh_arguments(&self.target))
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(|error| {
                        io::Error::new(error.kind(), format!("cannot run ssh: {error}"))
                    })?;
                let (Some(output), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
                    return Err(io::Error::other("ssh has no standard streams"));
                };
                Ok((Box::new(tokio::io::join(output, input)), Some(child)))
            }
        }
    }

    /// The request as it goes over the wire.
    fn finish(&self, mut request: BollardRequest) -> BollardRequest {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let versioned = match self.api_version.get() {
            Some(version) => format!("/v{version}{path}"),
            None => path.to_owned(),
        };
        if let Ok(uri) = versioned.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        let host = match &self.target {
            Address::Tcp { host, port, .. } => HeaderValue::from_str(&authority(host, *port)).ok(),
            Address::Unix(_) | Address::Ssh { .. } => None,
        };
        request.headers_mut().insert(HOST, host.unwrap_or(HeaderValue::from_static("docker")));
        if let Some(value) = request.headers_mut().get_mut("x-registry-auth") {
            mend_registry_auth(value);
        }
        request
    }
}

/// A connection to a socket; one whose daemon cannot keep up with accepting is tried again until the
/// caller's patience ends.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// The same request once more, if asking twice is as good as asking once and nothing of it is spent
/// by sending it.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let empty = http_body_util::Either::Left(http_body_util::Full::default());
    let mut again = Request::new(empty);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// From the standard base64 alphabet, which bollard uses, to the URL-safe one, which the daemon
/// reads; what it cannot read it silently takes for "anonymous".
fn mend_registry_auth(value: &mut HeaderValue) {
    let url_safe: Vec<u8> = value
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    if let Ok(mut mended) = HeaderValue::from_bytes(&url_safe) {
        mended.set_sensitive(true);
        *value = mended;
    }
}

/// How `ssh` reaches a daemon: the remote `docker` command hands its standard streams to its
/// socket. Never asks for a password, because there may be several connections at once.
fn ssh_arguments(target: &Address) -> Vec<String> {
    let Address::Ssh { user, host, port, socket } = target else { return Vec::new() };
    let mut arguments = vec!["-T".to_owned(), "-o".to_owned(), "BatchMode=yes".to_owned()];
    if let Some(user) = user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["--".to_owned(), host.clone(), "docker".to_owned()]);
    if let Some(socket) = socket {
        arguments.extend(["--host".to_owned(), format!("unix://{socket}")]);
    }
    arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    arguments
}

/// TLS that trusts the endpoint's own authority and no other.
fn tls(host: &str, files: &TlsFiles) -> Result<(TlsConnector, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| unusable(&files.ca, &error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .with_root_certificates(roots);
    let config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .map_err(|error| unusable(key, &error))?
        }
    };
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("`{host}` cannot have a certificate"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, why: &dyn Display) -> Error {
    error::docker(format!("cannot use {} for the Docker daemon: {why}", path.display())).with_hint(
        "DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and Docker contexts decide which certificates are \
        used",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_reaches_the_socket_that_the_address_names() {
        let target = |user: Option<&str>, port, socket: Option<&str>| Address::Ssh {
            user: user.map(str::to_owned),
            host: "host".to_owned(),
            port,
            socket: socket.map(str::to_owned),
        };
        assert_eq!(
            ssh_arguments(&target(None, None, None)).join(" "),
            "-T -o BatchMode=yes -- host docker system dial-stdio"
        );
        assert_eq!(
            ssh_arguments(&target(Some("ada"), Some(2222), Some("/run/d.sock"))).join(" "),
            "-T -o BatchMode=yes -l ada -p 2222 -- host docker --host unix:///run/d.sock system \
                dial-stdio"
        );
    }
}
