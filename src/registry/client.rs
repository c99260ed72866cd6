//! The operations: what dkv asks registries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Method, StatusCode, header};

use super::credentials::{Credentials, Found};
use super::error::{Result, printable};
use super::host::Host;
use super::manifest::{self, Described, Manifest, ManifestKind, ManifestName};
use super::mirrors::{FindMirrors, Mirrors};
use super::session::Query;
use super::tags::Room;
use super::transport::{Answer, Settings, Transport};
use crate::model::reference::{Digest, Platform, Repository};

/// The most bytes of a manifest or a configuration blob: what registries accept.
const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;

/// What manifests and configurations that are kept may take, in bytes: some hundreds of the usual
/// size.
const KEPT: usize = 2 * 1024 * 1024;

/// A client of any number of registries. Clones share connections, tokens and what is known about
/// each host. Making one costs nothing: no file is read and no TLS is set up before it is needed.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) transport: Transport,
    pub(super) hosts: Mutex<HashMap<String, Arc<Host>>>,
    /// The bytes of the manifests and configurations that came in this run, as far as there is room.
    came: Mutex<HashMap<Digest, Vec<u8>>>,
    pub(super) room: Room,
    pub(super) mirrors: Mirrors,
}

impl Client {
    /// A client with `settings`, for tests that need no daemon.
    #[cfg(test)]
    pub(crate) fn new(settings: Settings) -> Self {
        Self::having(settings, Mirrors::default())
    }

    /// A client with `settings`, on a host whose daemon may have mirrors of Docker Hub.
    #[must_use]
    pub fn with_mirrors(settings: Settings, find: FindMirrors) -> Self {
        Self::having(settings, Mirrors::new(find))
    }

    fn having(settings: Settings, mirrors: Mirrors) -> Self {
        let transport = Transport::new(settings);
        Self {
            inner: Arc::new(Inner {
                transport,
                hosts: Mutex::default(),
                came: Mutex::default(),
                room: Room::of_run(),
                mirrors,
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

    /// How much of this run one registry may take.
    pub(super) fn time_allowed(&self) -> Duration {
        self.inner.transport.settings.total_timeout
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
        query.check_digest(&answer, name, &digest)?;
        let size = answer.header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        Ok(Described { digest, media_type, size, is_index, fetched: None })
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
            digest: manifest.digest.clone(),
            media_type: manifest.media_type.clone(),
            fetched: Some(manifest),
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
        query.check_digest(&answer, name, &digest)?;
        if let Some(announced) = content_digest(&answer) {
            query.check_digest(&answer, &ManifestName::Digest(announced), &digest)?;
        }
        let manifest = manifest::parse(digest, &media_type, answer.body)
            .map_err(|detail| query.malformed(&detail))?;
        self.keep(&manifest.digest, &manifest.bytes);
        Ok(manifest)
    }

    /// The bytes of a manifest or a configuration that came in this run and was kept, so that nobody
    /// asks for them twice.
    #[must_use]
    pub fn seen(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.came().get(digest).cloned()
    }

    /// Keeps what came, if there is room.
    fn keep(&self, digest: &Digest, bytes: &[u8]) {
        let mut came = self.came();
        if came.values().map(Vec::len).sum::<usize>() + bytes.len() <= KEPT {
            came.insert(digest.clone(), bytes.to_vec());
        }
    }

    fn came(&self) -> MutexGuard<'_, HashMap<Digest, Vec<u8>>> {
        self.inner.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The platform that the configuration `digest` of an image names, if it names one.
    ///
    /// # Errors
    /// As for [`Self::manifest`].
    pub async fn platform(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Platform>> {
        let query = Query {
            repository,
            method: Method::GET,
            target: format!("/v2/{}/blobs/{digest}", repository.path()),
            accept: "*/*",
            limit: MANIFEST_LIMIT,
            subject: format!("configuration {} of {repository}", digest.short()),
            scheme: None,
        };
        let answer = query.good(self.ask(&query).await?)?;
        query.check_digest(
            &answer,
            &ManifestName::Digest(digest.clone()),
            &Digest::of(&answer.body),
        )?;
        let platform = manifest::platform_in(&answer.body);
        self.keep(digest, &answer.body);
        platform.map_err(|detail| query.malformed(&detail))
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
            scheme: None,
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
