//! One operation on a repository: first contact, authorisation, and what to do about refusals.

use std::sync::Arc;

use base64::Engine as _;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::time::Instant;

use super::auth::{Challenge, token_in};
use super::client::Client;
use super::credentials::{self, Credentials, Found, Login};
use super::error::{Error, Result, message_in, printable};
use super::host::{Host, Scheme, SingleFlight, Slot, Token};
use super::manifest::ManifestName;
use super::retry::lock;
use super::transport::{Answer, Cause, Request, authority};
use crate::model::reference::{Digest, Repository};

/// The most bytes of a token server's answer.
const TOKEN_LIMIT: usize = 64 * 1024;

/// One operation on a repository.
pub(super) struct Query<'a> {
    pub(super) repository: &'a Repository,
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) accept: &'static str,
    /// The most bytes of a good answer.
    pub(super) limit: usize,
    /// What is asked for, as messages name it.
    pub(super) subject: String,
    /// How the host is spoken to, if that need not be found out.
    pub(super) scheme: Option<Scheme>,
}

/// What a request is authorised with.
struct Grant {
    /// Whether nothing was known about what the registry wants.
    is_blind: bool,
    header: Option<HeaderValue>,
    /// Whether the user's login is behind it.
    has_login: bool,
    token: Option<(Arc<SingleFlight<Token>>, Token)>,
}

impl Grant {
    fn none(is_blind: bool) -> Self {
        Self { is_blind, header: None, has_login: false, token: None }
    }
}

/// Why an operation goes on without the user's login.
enum Refused {
    /// The login itself is not accepted.
    Login(String),
    /// The login is accepted but does not open this repository.
    Access(String),
}

impl Client {
    /// What is known about the repository's registry.
    pub(super) fn host(&self, repository: &Repository) -> Arc<Host> {
        Arc::clone(lock(&self.inner.hosts).entry(repository.api_host().to_owned()).or_default())
    }

    /// When the repository's registry has taken all the time that it may.
    fn deadline(&self, repository: &Repository) -> Instant {
        self.host(repository).patience.deadline(self.time_allowed())
    }

    /// The user's login for the registry, looked up once.
    pub(super) async fn login<'a>(&self, host: &'a Host, repository: &Repository) -> &'a Found {
        host.login
            .get_or_init(|| credentials::find(&self.inner.transport.settings, repository.host()))
            .await
    }

    /// Asks the mirrors of the registry, if there are any, and then the registry itself. What a
    /// mirror does not have, or cannot give, is none of its business.
    pub(super) async fn ask(&self, query: &Query<'_>) -> Result<Answer> {
        for mirror in self.inner.mirrors.of(query.repository).await {
            let repository = query.repository.through(&mirror.host);
            let scheme = Some(mirror.scheme);
            let through = Query {
                repository: &repository,
                scheme,
                method: query.method.clone(),
                target: query.target.clone(),
                subject: query.subject.clone(),
                ..*query
            };
            match self.ask_host(&through).await {
                Ok(answer) if answer.status == StatusCode::OK => return Ok(answer),
                Ok(answer) => tracing::debug!("mirror {}: {}", mirror.host, answer.status),
                Err(error) => {
                    tracing::info!("the mirror of Docker Hub is of no use: {error}");
                    if error.is_of_host() {
                        mirror.leave_out();
                    }
                }
            }
        }
        self.ask_host(query).await
    }

    /// Asks with whatever authorisation the registry wants, and returns its answer unless it is a
    /// refusal.
    ///
    /// In order: nothing, if nothing is known about the registry yet; the user's login or an
    /// anonymous token; once a fresh token; and without the login, if there was one.
    async fn ask_host(&self, query: &Query<'_>) -> Result<Answer> {
        let host = self.host(query.repository);
        let _wait = host.patience.wait();
        let path = query.repository.path();
        let mut contact = None;
        let scheme = match query.scheme {
            Some(scheme) => scheme,
            None => host.contact.get(|_| true, self.first_contact(query, &mut contact)).await?,
        };
        let mut first_answer = contact.transpose()?;
        let mut refused: Option<Refused> = None;
        let mut is_renewed = false;
        loop {
            let (grant, answer) = match first_answer.take() {
                Some(answer) => (Grant::none(true), answer),
                None => self.send_authorized(&host, query, scheme, &mut refused).await?,
            };
            if !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                if let Some(refused) = refused {
                    note_refusal(&host, query.repository, &refused);
                }
                return Ok(answer);
            }
            let detail = refusal_in(&answer);
            if grant.is_blind
                && answer.status == StatusCode::UNAUTHORIZED
                && answer.url.origin() == query.url(scheme)?.origin()
            {
                let values = answer.headers(header::WWW_AUTHENTICATE);
                let challenge = Challenge::parse(values, query.repository.api_host())
                    .map_err(|detail| query.unauthorized(detail))?;
                host.learn(challenge);
            } else if let Some((slot, token)) = grant.token.filter(|_| !is_renewed) {
                is_renewed = true;
                host.go_single(path, !grant.has_login);
                slot.discard(&token).await;
            } else if grant.has_login {
                let is_basic = matches!(host.challenge().as_deref(), Some(Challenge::Basic));
                let is_bad_login = is_basic && answer.status == StatusCode::UNAUTHORIZED;
                refused = Some(if is_bad_login {
                    Refused::Login(detail)
                } else {
                    Refused::Access(detail)
                });
            } else {
                return Err(query.explain(query.unauthorized(detail), refused.as_ref(), &host));
            }
        }
    }

    /// Sends the query with what the registry wants. A login that the token server refuses is noted
    /// in `refused` and left out.
    async fn send_authorized(
        &self,
        host: &Host,
        query: &Query<'_>,
        scheme: Scheme,
        refused: &mut Option<Refused>,
    ) -> Result<(Grant, Answer)> {
        // No login goes over the network in the clear.
        let is_safe = scheme == Scheme::Https || query.repository.is_loopback();
        let with_login =
            is_safe && refused.is_none() && !host.is_anonymous(query.repository.path());
        let grant = match self.authorize(host, query, with_login).await {
            Err(Error::Unauthorized { detail, .. })
                if with_login && self.login(host, query.repository).await.credentials.is_some() =>
            {
                *refused = Some(Refused::Login(detail));
                self.authorize(host, query, false).await
            }
            other => other,
        };
        let grant = grant.map_err(|error| query.explain(error, refused.as_ref(), host))?;
        let request = query.request(scheme, grant.header.clone())?;
        let answer = self
            .inner
            .transport
            .exchange(&request, self.deadline(query.repository))
            .await
            .map_err(|failure| failure.error)?;
        Ok((grant, answer))
    }

    /// The first request to a host: it goes alone and without a login, and finds out what the host
    /// speaks. Its answer, or the host's refusal to give one, goes to `outcome`; only a host that
    /// cannot be reached is an error for all who wait.
    async fn first_contact(
        &self,
        query: &Query<'_>,
        outcome: &mut Option<Result<Answer>>,
    ) -> Result<Scheme> {
        let transport = &self.inner.transport;
        let registry = query.repository.api_host();
        let is_plain_possible =
            query.repository.is_loopback() && !transport.has_certificates(registry);
        let mut scheme = if is_plain_possible { Scheme::Http } else { Scheme::Https };
        let deadline = self.deadline(query.repository);
        let mut result = transport.exchange(&query.request(scheme, None)?, deadline).await;
        // A server that wants TLS answers plain HTTP with 400, or with something that is no HTTP.
        let may_want_tls = match &result {
            Ok(answer) => answer.status == StatusCode::BAD_REQUEST,
            Err(failure) => failure.cause == Cause::NotHttp,
        };
        if scheme == Scheme::Http && may_want_tls {
            let tls = transport.attempt(&query.request(Scheme::Https, None)?, deadline).await;
            let is_tls = match &tls {
                Ok(_) => true,
                Err(failure) => {
                    failure.cause == Cause::Final && matches!(failure.error, Error::Tls { .. })
                }
            };
            if is_tls {
                (scheme, result) = (Scheme::Https, tls);
            }
        }
        match result.map_err(|failure| failure.error) {
            Err(error) if error.is_of_host() => Err(error),
            other => {
                *outcome = Some(other);
                Ok(scheme)
            }
        }
    }

    /// What to send with a request, by what the registry asked for last.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] if the token server refuses; others if it cannot be reached.
    async fn authorize(&self, host: &Host, query: &Query<'_>, with_login: bool) -> Result<Grant> {
        let Some(challenge) = host.challenge() else { return Ok(Grant::none(true)) };
        let login = match with_login {
            true => self.login(host, query.repository).await.credentials.as_ref(),
            false => None,
        };
        if let Challenge::Bearer { .. } = *challenge {
            let (slot, token) = self.token(host, query, &challenge, login).await?;
            let header = secret_header(&format!("Bearer {}", token.text.expose()));
            return Ok(Grant {
                is_blind: false,
                header,
                has_login: login.is_some(),
                token: Some((slot, token)),
            });
        }
        let Some(Login::Password { username, password }) =
            login.map(|credentials| &credentials.login)
        else {
            return Ok(Grant::none(false));
        };
        let header = basic_header(username, password.expose());
        Ok(Grant { is_blind: false, has_login: header.is_some(), header, token: None })
    }

    /// A token for the repository: the one for all announced repositories if the token server gives
    /// that, else one of its own.
    async fn token(
        &self,
        host: &Host,
        query: &Query<'_>,
        challenge: &Challenge,
        login: Option<&Credentials>,
    ) -> Result<(Arc<SingleFlight<Token>>, Token)> {
        let path = query.repository.path();
        let scope = challenge.scope_for(path);
        let is_anonymous = login.is_none();
        if let Some(scopes) = host.shared_scopes(challenge, path, is_anonymous) {
            let slot = host.slot(Slot { is_anonymous, scope: None });
            match slot.token(&scope, self.fetch_token(query, challenge, scopes, login)).await {
                Ok(token) => return Ok((slot, token)),
                Err(Error::Unauthorized { .. }) => host.go_single(path, is_anonymous),
                Err(other) => return Err(other),
            }
        }
        let slot = host.slot(Slot { is_anonymous, scope: Some(scope.clone()) });
        let token = slot
            .token(&scope, self.fetch_token(query, challenge, vec![scope.clone()], login))
            .await?;
        Ok((slot, token))
    }

    /// Asks the token server, as the distribution project's token specification says: GET with the
    /// login as Basic authorisation, or POST with a refresh token.
    async fn fetch_token(
        &self,
        query: &Query<'_>,
        challenge: &Challenge,
        scopes: Vec<String>,
        login: Option<&Credentials>,
    ) -> Result<Token> {
        let Challenge::Bearer { realm, service, .. } = challenge else {
            return Err(query.malformed("it wants no token"));
        };
        let mut url = realm.clone();
        let mut request = Request {
            registry: query.repository.api_host(),
            subject: "a token",
            method: Method::GET,
            url: realm.clone(),
            accept: "application/json",
            authorization: None,
            form: None,
            limit: TOKEN_LIMIT,
        };
        let service = service.as_deref().map(|service| ("service", service));
        match login.map(|credentials| &credentials.login) {
            Some(Login::IdentityToken(token)) => {
                let joined = scopes.join(" ");
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "dkv"),
                    ("scope", &joined),
                    ("refresh_token", token.expose()),
                ];
                // Encoded as a query, which has the form's encoding.
                url.set_query(None);
                url.query_pairs_mut().extend_pairs(fields.iter().copied().chain(service));
                request.method = Method::POST;
                request.form = url.query().map(str::to_owned);
            }
            password => {
                url.query_pairs_mut()
                    .extend_pairs(service)
                    .extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
                if let Some(Login::Password { username, password }) = password {
                    url.query_pairs_mut().append_pair("account", username);
                    request.authorization = basic_header(username, password.expose());
                }
                request.url = url;
            }
        }
        let start = Instant::now();
        let answer = self
            .inner
            .transport
            .exchange(&request, self.deadline(query.repository))
            .await
            .map_err(|failure| failure.error)?;
        if answer.status.is_client_error() {
            let said = message_in(&answer.body);
            let said = login.map_or(said.clone(), |login| login.redact(&said));
            let status = answer.status.as_u16();
            return Err(query.unauthorized(match said.as_str() {
                "" => format!("its token server answers {status}"),
                said => format!("its token server answers {status}: {said}"),
            }));
        }
        if !answer.status.is_success() {
            return Err(answer.into_error(request.subject));
        }
        let (text, lifetime) =
            token_in(&answer.body, answer.date()).map_err(|detail| query.malformed(detail))?;
        Ok(Token::new(text, start, lifetime, scopes))
    }
}

impl Query<'_> {
    fn url(&self, scheme: Scheme) -> Result<Url> {
        let text = format!("{}://{}{}", scheme.as_str(), self.repository.api_host(), self.target);
        Url::parse(&text).map_err(|_| self.malformed("its name makes no address"))
    }

    fn request(&self, scheme: Scheme, authorization: Option<HeaderValue>) -> Result<Request<'_>> {
        Ok(Request {
            registry: self.repository.api_host(),
            subject: &self.subject,
            method: self.method.clone(),
            url: self.url(scheme)?,
            accept: self.accept,
            authorization,
            form: None,
            limit: self.limit,
        })
    }

    /// The answer if it is a success.
    pub(super) fn good(&self, answer: Answer) -> Result<Answer> {
        match answer.status {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(Error::NotFound {
                host: self.repository.host().to_owned(),
                reference: self.subject.clone(),
            }),
            _ => Err(answer.into_error(&self.subject)),
        }
    }

    /// An error if content was asked for by digest and has another.
    pub(super) fn check_digest(
        &self,
        answer: &Answer,
        asked: &ManifestName,
        actual: &Digest,
    ) -> Result<()> {
        match asked {
            ManifestName::Digest(expected) if expected != actual => Err(Error::WrongDigest {
                host: match authority(&answer.url) {
                    host if host == self.repository.api_host() => self.repository.host().to_owned(),
                    mirror => mirror,
                },
                reference: self.subject.clone(),
                expected: expected.clone(),
                actual: actual.clone(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn malformed(&self, detail: &str) -> Error {
        Error::Malformed {
            host: self.repository.host().to_owned(),
            reference: self.subject.clone(),
            detail: printable(detail),
        }
    }

    fn unauthorized(&self, detail: String) -> Error {
        Error::Unauthorized {
            host: self.repository.host().to_owned(),
            repository: self.repository.to_string(),
            detail,
        }
    }

    /// The refusal of anonymous access, if that is what `error` is, with why no login was of use.
    fn explain(&self, error: Error, refused: Option<&Refused>, host: &Host) -> Error {
        let Error::Unauthorized { detail, .. } = error else { return error };
        let problem = host.login.get().and_then(|found| found.problem.as_ref());
        self.unauthorized(match (refused, problem) {
            (Some(Refused::Login(why)), _) => {
                format!("the login was refused ({why}), and so was anonymous access ({detail})")
            }
            (Some(Refused::Access(why)), _) => {
                format!("the login does not open it ({why}), nor does anonymous access ({detail})")
            }
            (None, Some(problem)) => format!("{detail}, and there is no login: {problem}"),
            (None, None) => detail,
        })
    }
}

/// Remembers that anonymous access works where the login does not, and says so once per host.
fn note_refusal(host: &Host, repository: &Repository, refused: &Refused) {
    let registry = repository.host();
    match refused {
        Refused::Login(why) => {
            host.go_anonymous();
            if host.may_warn() {
                tracing::warn!(
                    "{registry} refuses the login in the Docker configuration ({why}); going on \
                        without it"
                );
            }
        }
        Refused::Access(why) => {
            host.go_anonymous_for(repository.path());
            if host.may_warn() {
                tracing::warn!(
                    "{registry} refuses the login for {repository} ({why}); going on without it"
                );
            }
        }
    }
}

/// What a 401 or 403 says; the answer to a HEAD has no text.
fn refusal_in(answer: &Answer) -> String {
    let said = message_in(&answer.body);
    match answer.status {
        _ if !said.is_empty() => said,
        StatusCode::UNAUTHORIZED => "it wants a login".to_owned(),
        _ => "access is denied".to_owned(),
    }
}

fn basic_header(username: &str, password: &str) -> Option<HeaderValue> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {pair}"))
}

/// A header value that the HTTP library does not print either.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
