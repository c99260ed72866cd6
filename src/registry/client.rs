//! The operations: what dkv asks registries.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Method, StatusCode, header};

use super::credentials::{Credentials, Found};
use super::error::{Result, printable};
use super::host::Host;
use super::link;
use super::manifest::{self, Described, Manifest, ManifestKind, ManifestName};
use super::session::Query;
use super::transport::{Answer, Settings, Transport};
use crate::model::reference::{Digest, Repository, Tag};

/// The most bytes of a manifest or a configuration blob: what registries accept.
const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;

/// Tags asked for per page; ECR refuses more.
const TAGS_PER_PAGE: usize = 1000;

/// The most bytes of one page of tags. Some registries ignore the page size and send all at once.
const TAG_PAGE_LIMIT: usize = 16 * 1024 * 1024;

/// The most pages of tags.
const TAG_PAGES: usize = 1000;

/// The most tags of a repository.
const TAGS: usize = 200_000;

/// A client of any number of registries. Clones share connections, tokens and what is known about
/// each host. Making one costs nothing: no file is read and no TLS is set up before it is needed.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) transport: Transport,
    pub(super) hosts: Mutex<HashMap<String, Arc<Host>>>,
    /// The bytes of the manifests that came in this run.
    manifests: Mutex<HashMap<Digest, Vec<u8>>>,
}

impl Client {
    /// A client with `settings`.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport: Transport::new(settings),
                hosts: Mutex::default(),
                manifests: Mutex::default(),
            }),
        }
    }

    /// Announces the repositories of this run, so that one token can serve all of a host's.
    /// Optional.
    pub fn expect<'a>(&self, repositories: impl IntoIterator<Item = &'a Repository>) {
        for repository in repositories {
            self.host(repository).expect(repository.path());
        }
    }

    /// What `name` names in `repository`, without fetching it: one HEAD request, and a GET only if
    /// the registry's answer to that says too little.
    ///
    /// # Errors
    /// [`super::Error::NotFound`] if the registry has no such manifest; others as they are named.
    pub async fn head(&self, repository: &Repository, name: &ManifestName) -> Result<Described> {
        let query = self.manifest_query(Method::HEAD, repository, name);
        let answer = self.ask(&query).await?;
        if matches!(answer.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            return self.describe_by_content(repository, name).await;
        }
        let answer = query.good(answer)?;
        let media_type = media_type(&answer);
        if manifest::is_schema_1(&media_type) {
            return Err(query.malformed(manifest::SCHEMA_1));
        }
        let is_index = manifest::is_index(&media_type);
        let digest =
            content_digest(&answer).filter(|_| is_index || manifest::is_image(&media_type));
        let Some(digest) = digest else {
            return self.describe_by_content(repository, name).await;
        };
        query.check_digest(name, &digest)?;
        let size = answer.header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        Ok(Described { digest, media_type, size, is_index })
    }

    /// What `name` names, by fetching it.
    async fn describe_by_content(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Described> {
        let manifest = self.manifest(repository, name).await?;
        Ok(Described {
            is_index: matches!(manifest.kind, ManifestKind::Index(_)),
            size: u64::try_from(manifest.bytes.len()).ok(),
            digest: manifest.digest,
            media_type: manifest.media_type,
        })
    }

    /// The manifest, checked against its digest: the one asked for, or the one that the registry
    /// announces.
    ///
    /// # Errors
    /// [`super::Error::NotFound`], [`super::Error::WrongDigest`]; others as they are named.
    pub async fn manifest(&self, repository: &Repository, name: &ManifestName) -> Result<Manifest> {
        let query = self.manifest_query(Method::GET, repository, name);
        let answer = query.good(self.ask(&query).await?)?;
        let media_type = media_type(&answer);
        if manifest::is_schema_1(&media_type) {
            return Err(query.malformed(manifest::SCHEMA_1));
        }
        let digest = Digest::of(&answer.body);
        query.check_digest(name, &digest)?;
        if let Some(announced) = content_digest(&answer) {
            query.check_digest(&ManifestName::Digest(announced), &digest)?;
        }
        let manifest = manifest::parse(digest, &media_type, answer.body)
            .map_err(|detail| query.malformed(&detail))?;
        let mut manifests = self.inner.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.insert(manifest.digest.clone(), manifest.bytes.clone());
        Ok(manifest)
    }

    /// The bytes of a manifest that came in this run, so that nobody asks for it twice.
    #[must_use]
    pub fn seen(&self, digest: &Digest) -> Option<Vec<u8>> {
        let manifests = self.inner.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.get(digest).cloned()
    }

    /// All tags of the repository, in the registry's order: at most 200,000 on at most 1,000 pages.
    ///
    /// # Errors
    /// [`super::Error::NotFound`] if there is no such repository; [`super::Error::Malformed`] if
    /// the pages go in circles, lead to another host or do not end; others as they are named.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        let mut query = Query {
            repository,
            method: Method::GET,
            target: format!("/v2/{}/tags/list?n={TAGS_PER_PAGE}", repository.path()),
            accept: "application/json",
            limit: TAG_PAGE_LIMIT,
            subject: format!("the tags of {repository}"),
            deadline: self.inner.transport.deadline(),
        };
        let mut tags = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..TAG_PAGES {
            seen.insert(query.target.clone());
            let answer = query.good(self.ask(&query).await?)?;
            tags.extend(
                tags_in(&answer.body).ok_or_else(|| query.malformed("it is no list of tags"))?,
            );
            if tags.len() > TAGS {
                return Err(query.malformed(&format!("it has more than {TAGS} tags")));
            }
            let Some(next) = link::next(answer.headers(header::LINK)) else { return Ok(tags) };
            let next =
                link::resolve(&answer.url, next).map_err(|detail| query.malformed(detail))?;
            query.target = next
                .query()
                .map_or_else(|| next.path().to_owned(), |rest| format!("{}?{rest}", next.path()));
            if seen.contains(&query.target) {
                return Err(query.malformed("its pages go in circles"));
            }
        }
        Err(query.malformed(&format!("it has more than {TAG_PAGES} pages")))
    }

    /// The login for the repository's registry, for handing to the daemon; `None` if there is none
    /// or if it was found to be refused where anonymous access works.
    pub async fn credentials(&self, repository: &Repository) -> Option<Credentials> {
        let host = self.host(repository);
        if host.is_anonymous(repository.path()) {
            return None;
        }
        self.login(&host, repository).await.credentials.clone()
    }

    /// Stops using the login of the repository's registry, which the daemon found to be refused.
    pub fn use_anonymous(&self, repository: &Repository) {
        self.host(repository).go_anonymous();
    }

    /// Uses `credentials` for the repository's registry instead of what `config.json` says. To be
    /// called before the first request to that registry; later, what is known already stays in use.
    pub fn supply_credentials(&self, repository: &Repository, credentials: Credentials) {
        let found = Found { credentials: Some(credentials), problem: None };
        if self.host(repository).login.set(found).is_err() {
            tracing::debug!("{} has a login already", repository.host());
        }
    }

    fn manifest_query<'a>(
        &self,
        method: Method,
        repository: &'a Repository,
        name: &ManifestName,
    ) -> Query<'a> {
        Query {
            repository,
            method,
            target: format!("/v2/{}/manifests/{}", repository.path(), name.as_str()),
            accept: manifest::ACCEPT,
            limit: MANIFEST_LIMIT,
            subject: match name {
                ManifestName::Tag(tag) => repository.with_tag(tag),
                ManifestName::Digest(digest) => repository.with_digest(digest),
            },
            deadline: self.inner.transport.deadline(),
        }
    }
}

/// The media type without its parameters.
fn media_type(answer: &Answer) -> String {
    let value = answer.header(header::CONTENT_TYPE).unwrap_or_default();
    printable(value.split(';').next().unwrap_or_default()).to_ascii_lowercase()
}

/// The digest that the registry announces. One of another algorithm counts as none.
fn content_digest(answer: &Answer) -> Option<Digest> {
    answer.header("docker-content-digest")?.trim().parse().ok()
}

/// The well-formed tags of one page; `null` means none.
fn tags_in(body: &[u8]) -> Option<Vec<Tag>> {
    #[derive(serde::Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let page: Page = serde_json::from_slice(body).ok()?;
    let parsed = page.tags.unwrap_or_default().into_iter().filter_map(|text| match text.parse() {
        Ok(tag) => Some(tag),
        Err(error) => {
            tracing::debug!("skipping a tag: {error}");
            None
        }
    });
    Some(parsed.collect())
}
