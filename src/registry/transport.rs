//! One HTTP exchange, made safe: TLS, redirects, caps, deadlines, retries and pacing.

use std::collections::HashMap;
use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::{Error, message_in, printable};
use super::retry::{self, Pace, lock};
use super::tls::{self, Trust};
use crate::model::reference::is_loopback_host;

/// What a [`super::Client`] needs to know about the machine and the user. Proxies are the one thing
/// that the HTTP library reads from the environment itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of Docker's `config.json` (`DOCKER_CONFIG`); `.docker` in `home` by default.
    pub docker_config: Option<PathBuf>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// Where credential helpers are looked for (`PATH`).
    pub search_path: Option<OsString>,
    /// More trusted CA certificates in PEM form (`SSL_CERT_FILE`), beside the system's own.
    pub ca_file: Option<PathBuf>,
    /// Docker's directory of CA certificates per registry.
    pub registry_certificates: PathBuf,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The longest wait for a connection, name lookup and TLS included.
    pub connect_timeout: Duration,
    /// The longest silence within an answer.
    pub idle_timeout: Duration,
    /// The longest time for all that one registry is asked, with all retries and waits.
    pub total_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            docker_config: None,
            home: None,
            search_path: None,
            ca_file: None,
            registry_certificates: PathBuf::from("/etc/docker/certs.d"),
            user_agent: concat!("dkv/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(60),
        }
    }
}

/// The most redirects of one request.
const REDIRECTS: usize = 10;

/// From how many bytes on a body is large: most are much smaller.
const LARGE: usize = 256 * 1024;

/// How many large bodies there may be at once, so that many requests at once do not add up.
const LARGE_AT_ONCE: usize = 2;

/// The most bytes that are read of a failed answer, whose text goes into a message.
const ERROR_BODY: usize = 64 * 1024;

/// One request.
pub(super) struct Request<'a> {
    /// The registry on whose behalf it is made; decides about trust, loopback and certificates.
    pub(super) registry: &'a str,
    /// What is asked for, as messages name it.
    pub(super) subject: &'a str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: &'static str,
    pub(super) authorization: Option<HeaderValue>,
    /// An `application/x-www-form-urlencoded` body.
    pub(super) form: Option<String>,
    /// The most bytes of a good answer.
    pub(super) limit: usize,
}

/// A complete answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    /// The place that a large body has until it is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All values of a header as text.
    pub(super) fn headers(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// The moment that the server gave its answer, by its own clock.
    pub(super) fn date(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc2822(self.header(header::DATE)?)
            .ok()
            .map(|date| date.with_timezone(&Utc))
    }

    /// How long the server asks to wait; a date is measured by the server's own clock if it tells
    /// that.
    fn retry_after(&self) -> Option<Duration> {
        retry::retry_after(self.header(header::RETRY_AFTER)?, self.date().unwrap_or_else(Utc::now))
    }

    /// The error that a failed answer means for `subject`.
    pub(super) fn into_error(self, subject: &str) -> Error {
        let host = authority(&self.url);
        let retry_after = self.retry_after();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            return Error::RateLimited { host, retry_after };
        }
        let detail = message_in(&self.body);
        Error::Status {
            host,
            reference: subject.to_owned(),
            status: self.status,
            detail,
            retry_after,
        }
    }
}

/// A failure without an answer.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) cause: Cause,
}

/// What kind of failure it was, as far as it decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It may pass by itself.
    Transient,
    /// The server does not speak HTTP here.
    NotHttp,
    /// The server does not speak TLS here.
    NotTls,
    /// Anything else.
    Final,
}

/// The connections to all hosts.
pub(super) struct Transport {
    pub(super) settings: Settings,
    trust: Mutex<Option<Trust>>,
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
    paces: Mutex<HashMap<String, Arc<Pace>>>,
    limits_told: Mutex<Vec<String>>,
    /// The places for large bodies.
    large: Arc<Semaphore>,
}

/// What requests must have in common to share a connection pool.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    /// The registry, if it has CA certificates of its own.
    certified: Option<String>,
    is_loopback: bool,
    is_tls: bool,
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            trust: Mutex::default(),
            clients: Mutex::default(),
            paces: Mutex::default(),
            limits_told: Mutex::default(),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
        }
    }

    /// Sends the request until there is an answer that trying again would not better.
    ///
    /// # Errors
    /// If there is no answer, and with the last answer if it is a transient failure.
    pub(super) async fn exchange(
        &self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (failure, retry_after) = match self.attempt(request, deadline).await {
                Ok(answer) if !retry::is_transient(answer.status) => return Ok(answer),
                Ok(answer) => {
                    let retry_after = answer.retry_after();
                    (
                        Failure {
                            error: answer.into_error(request.subject),
                            cause: Cause::Transient,
                        },
                        retry_after,
                    )
                }
                Err(failure) if failure.cause == Cause::Transient => (failure, None),
                Err(failure) => return Err(failure),
            };
            let Some(pause) = retry::pause(tries, retry_after, retry::random()) else {
                return Err(failure);
            };
            let resume = Instant::now() + pause;
            if resume >= deadline {
                return Err(failure);
            }
            tracing::debug!("{}; trying again in {} ms", failure.error, pause.as_millis());
            tokio::time::sleep_until(resume).await;
        }
    }

    /// Sends the request once, at the host's pace.
    pub(super) async fn attempt(
        &self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let host = authority(&request.url);
        let pace = Arc::clone(lock(&self.paces).entry(host.clone()).or_default());
        let seconds = self.settings.total_timeout.as_secs();
        let late = Error::OutOfTime { host: host.clone(), seconds };
        let now = Instant::now();
        let start = pace.reserve(now);
        if start >= deadline {
            let error = match start > now {
                true => Error::RateLimited { host, retry_after: Some(start - now) },
                false => late,
            };
            return Err(Failure { error, cause: Cause::Final });
        }
        tokio::time::sleep_until(start).await;
        let Ok(result) = tokio::time::timeout_at(deadline, self.follow(request)).await else {
            return Err(Failure { error: late, cause: Cause::Final });
        };
        if let Ok(answer) = &result {
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                pace.slow_down(Instant::now(), answer.retry_after());
            }
            self.tell_limits(&host, answer);
        }
        result
    }

    /// Says once per host what it says about its rate limit.
    fn tell_limits(&self, host: &str, answer: &Answer) {
        let Some(remaining) = answer.header("ratelimit-remaining") else { return };
        let mut told = lock(&self.limits_told);
        if !told.iter().any(|known| known == host) {
            told.push(host.to_owned());
            let limit = answer.header("ratelimit-limit").unwrap_or("an unknown number");
            tracing::info!(
                "{host} limits requests: {} of {} left",
                printable(remaining),
                printable(limit)
            );
        }
    }

    /// Sends the request and follows redirects. A login stays with the host that it was meant for,
    /// and a form, which may hold one, is sent nowhere else.
    async fn follow(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        #[cfg(test)]
        if let Some(answer) = simulated(request).await {
            return answer;
        }
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.send(request, &url).await?;
            let location =
                response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
                && request.form.is_none();
            let Some(location) = location.filter(|_| is_redirect) else {
                return self.read(request, url, response).await;
            };
            url = redirect_target(request.registry, &url, location)
                .map_err(|detail| malformed(request, detail))?;
        }
        Err(malformed(request, "it redirects more than 10 times"))
    }

    /// Sends the request to `url`, which is its own or a redirect's.
    async fn send(&self, request: &Request<'_>, url: &Url) -> Result<Response, Failure> {
        let client = self.client(request.registry, url)?;
        let mut builder = client.request(request.method.clone(), url.clone());
        if !request.accept.is_empty() {
            builder = builder.header(header::ACCEPT, request.accept);
        }
        if let Some(authorization) =
            request.authorization.as_ref().filter(|_| url.origin() == request.url.origin())
        {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        if let Some(form) = &request.form {
            builder = builder
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        tracing::debug!("{} {}{}", request.method, authority(url), url.path());
        builder.send().await.map_err(|error| self.failure(url, &error))
    }

    /// Reads the body up to the cap: of a good answer, more is an error; of a bad one, the rest is
    /// not needed.
    async fn read(
        &self,
        request: &Request<'_>,
        url: Url,
        mut response: Response,
    ) -> Result<Answer, Failure> {
        let status = response.status();
        let limit = if status.is_success() { request.limit } else { ERROR_BODY };
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        let mut place = None;
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.failure(&url, &error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > limit {
                if status.is_success() {
                    let reference = request.subject.to_owned();
                    return Err(Failure {
                        error: Error::TooLarge { host: authority(&url), reference, limit },
                        cause: Cause::Final,
                    });
                }
                break;
            }
            if body.len() > LARGE && place.is_none() {
                place = Arc::clone(&self.large).acquire_owned().await.ok();
            }
        }
        Ok(Answer { status, headers, body, url, _place: place })
    }

    /// What a failure of the HTTP library means.
    fn failure(&self, url: &Url, error: &reqwest::Error) -> Failure {
        let host = authority(url);
        if let Some(failure) = find_source::<rustls::Error>(error) {
            let cause = match failure {
                rustls::Error::InvalidMessage(_) => Cause::NotTls,
                _ => Cause::Final,
            };
            return Failure { error: Error::Tls { host, detail: tls::detail(failure) }, cause };
        }
        let (detail, cause) = if error.is_timeout() && error.is_connect() {
            (
                format!("no connection within {} s", self.settings.connect_timeout.as_secs()),
                Cause::Transient,
            )
        } else if error.is_timeout() {
            (format!("silent for {} s", self.settings.idle_timeout.as_secs()), Cause::Final)
        } else if error.is_builder() {
            (deepest_source(error), Cause::Final)
        } else if find_source::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
            ("it does not speak HTTP".to_owned(), Cause::NotHttp)
        } else {
            (deepest_source(error), Cause::Transient)
        };
        Failure { error: Error::Unreachable { host, detail: printable(&detail) }, cause }
    }

    /// The connection pool for requests to `url` on behalf of `registry`.
    fn client(&self, registry: &str, url: &Url) -> Result<reqwest::Client, Failure> {
        let key = ClientKey {
            certified: self.has_certificates(registry).then(|| registry.to_owned()),
            is_loopback: url.host_str().is_some_and(is_loopback_host),
            is_tls: url.scheme() == "https",
        };
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let failed = |detail: String| Failure {
            error: Error::Tls { host: authority(url), detail },
            cause: Cause::Final,
        };
        let trust =
            if key.is_tls { self.trust(registry).map_err(failed)? } else { Trust::nobody() };
        let tls = trust.client_config().map_err(failed)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(&self.settings.user_agent)
            .connect_timeout(self.settings.connect_timeout)
            .read_timeout(self.settings.idle_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        if key.is_loopback {
            // What is on this host is not reached through a proxy, whatever the environment says.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| failed(deepest_source(&error)))?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// Whether Docker is configured with CA certificates for this registry, which also says that it
    /// speaks TLS.
    pub(super) fn has_certificates(&self, registry: &str) -> bool {
        let files = tls::certificate_files(&self.settings.registry_certificates.join(registry));
        files.is_ok_and(|files| !files.is_empty())
    }

    /// What the registry is verified with. The common part is read once.
    fn trust(&self, registry: &str) -> Result<Trust, String> {
        let mut common = lock(&self.trust);
        let common = match common.as_ref() {
            Some(trust) => trust.clone(),
            None => common.insert(Trust::load(self.settings.ca_file.as_deref())?).clone(),
        };
        let files = tls::certificate_files(&self.settings.registry_certificates.join(registry));
        // Most registries need none of them; for one that does, this says why it is not trusted.
        let files = files.unwrap_or_else(|why| {
            tracing::warn!("{why}");
            Vec::new()
        });
        files.iter().try_fold(common, |trust, file| trust.with_file(file))
    }
}

/// What a simulated registry answers; `None` where nothing is simulated.
#[cfg(test)]
async fn simulated(request: &Request<'_>) -> Option<Result<Answer, Failure>> {
    let answer = crate::simulation::ask(request.method.as_str(), request.url.path()).await?;
    let answer = answer.map_err(|detail| Failure {
        error: Error::Unreachable { host: authority(&request.url), detail },
        cause: Cause::Transient,
    });
    Some(answer.map(|(status, headers, body)| {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
                .collect(),
            body,
            url: request.url.clone(),
            _place: None,
        }
    }))
}

/// Where a redirect leads, if that is safe ground: TLS stays TLS, and nothing from outside leads to
/// loopback.
fn redirect_target(registry: &str, from: &Url, location: &str) -> Result<Url, &'static str> {
    let next = from.join(location).map_err(|_| "it redirects to an invalid address")?;
    let is_near = next.host_str().is_some_and(is_loopback_host);
    if is_near && !is_loopback_host(registry) {
        return Err("it redirects to loopback");
    }
    match next.scheme() {
        "https" => Ok(next),
        "http" if is_near => Ok(next),
        _ => Err("it redirects to an address without TLS"),
    }
}

fn malformed(request: &Request<'_>, detail: &str) -> Failure {
    let error = Error::Malformed {
        host: authority(&request.url),
        reference: request.subject.to_owned(),
        detail: detail.to_owned(),
    };
    Failure { error, cause: Cause::Final }
}

/// The host of `url` with its port, as people write it.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The first error of type `T` among the causes of `error`. An I/O error hides what it wraps from
/// [`std::error::Error::source`], so that is looked into as well.
fn find_source<T: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = wrapped.map_or_else(
            || cause.source(),
            |inner| Some(inner as &(dyn std::error::Error + 'static)),
        );
    }
    None
}

/// The text of the innermost cause: the outer ones say little more than that a request failed, and
/// name its address with the query.
fn deepest_source(error: &reqwest::Error) -> String {
    let mut source = error.source();
    let mut text = "the request failed".to_owned();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}
