//! Which version is it? What a moving tag names, by the registry's own word.
//!
//! In order: the ECR APIs, where the image is theirs and the user has AWS credentials; else the
//! registry: its list of tags, then a HEAD for each candidate in the order of
//! [`version::candidates`], until one has the digest. The first is asked alone, because it usually
//! is the one: that is one request for the list (one per thousand tags) and one for the candidate.
//! Then come batches of 4, 16, … up to the allowed number at once; so the fifth newest costs five
//! HEADs in two round trips. None of them could be spared: a registry does not say which tags a
//! digest has, the list comes in no useful order, and any of the newer versions might have been the
//! one.
//!
//! If no candidate has the digest, the platform digests of the first few are compared.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::sync::OnceCell;

use super::ecr_private::{EcrPrivate, PrivateRegistry};
use super::ecr_public::{EcrPublic, TaggedImage};
use super::retry::lock;
use super::{Client, Error, ManifestKind, TagList};
use crate::model::reference::{Digest, Platform, Repository, Tag};
use crate::model::version;

/// How many candidates are asked about at most when a question does not say.
pub const DEFAULT_CAP: usize = 200;

/// How many indexes are fetched at most to compare platform digests, beside the tracked tag's own.
const INDEXES: usize = 5;

/// How many candidates may fail for other reasons than not being there before the scan is given up.
const FAILURES: usize = 5;

/// What is to be resolved.
#[derive(Debug, Clone)]
pub struct Question {
    /// The image.
    pub repository: Repository,
    /// The moving tag that is followed; never a version of itself.
    pub tracked: Tag,
    /// What the tag names.
    pub digest: Digest,
    /// Whether the digest is that of an index, if the registry said.
    pub is_index: Option<bool>,
    /// The platform of the host; without one, platform digests are not compared.
    pub platform: Option<Platform>,
    /// The service's `version_pattern`.
    pub pattern: Option<String>,
    /// What the manifest says about ECR.
    pub ecr: EcrHint,
    /// Whether the user has AWS credentials in the environment or in files; without, no AWS API is
    /// asked.
    pub has_aws_credentials: bool,
    /// Whether [`Resolution::newest`] is worth a tag list that the version itself does not need.
    pub wants_newest: bool,
    /// The most candidates to ask about, [`DEFAULT_CAP`] by default.
    pub cap: usize,
    /// The most requests at once.
    pub jobs: usize,
}

/// What is known about an image in ECR beyond its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EcrHint {
    /// The AWS account of a public alias.
    pub registry_id: Option<String>,
    /// The private registry, if the image is in one.
    pub private: Option<PrivateRegistry>,
}

/// How it is known that a tag is the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The registry gives the same digest for both tags.
    SameDigest,
    /// Two indexes differ, but their image for this host's platform is the same.
    SamePlatformDigest,
    /// The ECR Public API lists both tags for the digest.
    EcrPublicApi,
    /// The private ECR API lists both tags for the digest.
    EcrPrivateApi,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The version and how it is known.
    pub version: Option<(Tag, Evidence)>,
    /// The newest version in the repository, whatever the tracked tag names, if a tag list was
    /// read.
    pub newest: Option<Tag>,
    /// How many candidates were asked about.
    pub checked: usize,
    /// How many candidates there are.
    pub of: usize,
    /// Why there is no version. Without a version and without a reason, the tracked tag is a
    /// version itself and no tag says it more exactly.
    pub why_unresolved: Option<String>,
    /// What may be missing of the list of tags that was read.
    pub incomplete: Option<String>,
    /// Whether there is no version because the registry could not be asked.
    pub is_failure: bool,
}

/// Resolves tags. One serves a whole run: lists are read once per repository, and an ECR alias
/// whose API refused is not asked about again.
pub struct Resolver {
    client: Client,
    ecr_public: EcrPublic,
    ecr_private: EcrPrivate,
    ecr_images: Memory<Repository, Option<Arc<Vec<TaggedImage>>>>,
    tags: Memory<Repository, Result<Arc<TagList>, Error>>,
}

/// What was found out in this run. Those who ask for the same wait for one answer.
pub(super) struct Memory<K, T>(Mutex<HashMap<K, Arc<OnceCell<T>>>>);

impl<K: Clone + Eq + Hash, T: Clone> Memory<K, T> {
    /// What is known about `key`, finding it out first if nothing is.
    pub(super) async fn get(&self, key: &K, find_out: impl Future<Output = T>) -> T {
        let cell = Arc::clone(lock(&self.0).entry(key.clone()).or_default());
        cell.get_or_init(|| find_out).await.clone()
    }
}

impl<K, T> Default for Memory<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What a candidate names.
struct Named {
    tag: Tag,
    digest: Digest,
    is_index: bool,
}

/// What asking about candidates brought.
#[derive(Default)]
struct Scan {
    found: Option<Tag>,
    /// All that answered, in the order of preference.
    named: Vec<Named>,
    checked: usize,
    failed: usize,
    /// The last failure, if it ended the scan.
    ended_by: Option<Error>,
}

impl Resolver {
    /// A resolver that asks through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            ecr_public: EcrPublic::default(),
            ecr_private: EcrPrivate::default(),
            ecr_images: Memory::default(),
            tags: Memory::default(),
        }
    }

    /// The version that names the question's digest. Never fails: what cannot be found out is the
    /// answer's `why_unresolved`.
    pub async fn version_of(&self, question: &Question) -> Resolution {
        if question.has_aws_credentials {
            if let Some(resolution) = self.by_ecr_public(question).await {
                return resolution;
            }
            if let Some(resolution) = self.by_ecr_private(question).await {
                return resolution;
            }
        }
        self.by_registry(question).await
    }

    /// The newest version in the repository, whatever the tracked tag names, if its tags can be
    /// listed; with what may be missing of them.
    pub async fn newest(
        &self,
        repository: &Repository,
        tracked: &Tag,
        pattern: Option<&str>,
        current: Option<&Tag>,
    ) -> Option<(Tag, Option<String>)> {
        let list = self.tags(repository).await.ok()?;
        Some((version::newest(&list.tags, tracked, pattern, current)?, list.remark()))
    }

    /// The answer of the ECR Public API, if it has one that can be relied on.
    async fn by_ecr_public(&self, question: &Question) -> Option<Resolution> {
        let repository = &question.repository;
        let registry_id = question.ecr.registry_id.as_deref();
        // The SDK's futures are too large to be moved about.
        let images = Box::pin(self.ecr_public.images(repository, registry_id));
        let ask = async {
            let images = tokio::time::timeout(self.client.time_allowed(), images).await;
            images.ok().flatten().map(Arc::new)
        };
        let images = self.ecr_images.get(repository, ask).await?;
        let Some(own) = images.iter().find(|image| image.digest == question.digest) else {
            tracing::info!(
                "the ECR Public API does not list {}; asking the registry itself",
                question.shown()
            );
            return None;
        };
        let all: Vec<Tag> = images.iter().flat_map(|image| image.tags.iter().cloned()).collect();
        let candidates = question.candidates(&all);
        let names: HashSet<&Tag> = own.tags.iter().collect();
        let mut version = candidates
            .iter()
            .find(|tag| names.contains(tag))
            .cloned()
            .map(|tag| (tag, Evidence::EcrPublicApi));
        if registry_id.is_none() {
            // Without its account, the API describes the user's own repository of that name.
            let (tag, _) = version.as_ref()?;
            if !self.names_digest(repository, tag, &question.digest).await {
                tracing::info!(
                    "the ECR Public API describes another {repository}; asking the registry itself"
                );
                return None;
            }
        }
        if version.is_none() {
            let digests: HashMap<&Tag, &TaggedImage> = images
                .iter()
                .flat_map(|image| image.tags.iter().map(move |tag| (tag, image)))
                .collect();
            let named = candidates.iter().filter_map(|tag| {
                let image = digests.get(tag)?;
                Some(Named {
                    tag: tag.clone(),
                    digest: image.digest.clone(),
                    is_index: image.is_index,
                })
            });
            let same = self.same_platform(question, &named.collect::<Vec<_>>()).await;
            version = same.map(|tag| (tag, Evidence::SamePlatformDigest));
        }
        let why = "the ECR Public API lists no version for this digest";
        Some(
            question
                .resolution(&all, version, candidates.len(), candidates.len(), || why.to_owned()),
        )
    }

    /// The answer of the private ECR API, if it knows a version.
    async fn by_ecr_private(&self, question: &Question) -> Option<Resolution> {
        let repository = &question.repository;
        let registry =
            question.ecr.private.as_ref().filter(|registry| registry.host == repository.host())?;
        let names = self.ecr_private.tags_of(registry, repository, &question.digest).await?;
        let version = question.candidates(&names).into_iter().next()?;
        let newest = match question.wants_newest {
            true => self
                .tags(repository)
                .await
                .ok()
                .and_then(|tags| question.newest(&tags.tags, Some(&version))),
            false => None,
        };
        Some(Resolution {
            version: Some((version, Evidence::EcrPrivateApi)),
            newest,
            checked: 1,
            of: 1,
            why_unresolved: None,
            incomplete: None,
            is_failure: false,
        })
    }

    /// The answer of the registry itself.
    async fn by_registry(&self, question: &Question) -> Resolution {
        let list = match self.tags(&question.repository).await {
            Ok(list) => list,
            Err(error) => return Resolution::without_tags(&error),
        };
        let candidates = question.candidates(&list.tags);
        let scan = self.scan(question, &candidates[..candidates.len().min(question.cap)]).await;
        let mut version = scan.found.clone().map(|tag| (tag, Evidence::SameDigest));
        if version.is_none() && scan.ended_by.is_none() {
            let same = self.same_platform(question, &scan.named).await;
            version = same.map(|tag| (tag, Evidence::SamePlatformDigest));
        }
        let is_failure = version.is_none() && scan.ended_by.is_some();
        let resolution =
            question.resolution(&list.tags, version, scan.checked, candidates.len(), || {
                scan.summary(candidates.len())
            });
        let incomplete = list.remark();
        let mut why_unresolved = resolution.why_unresolved;
        if let (Some(why), Some(remark)) = (&mut why_unresolved, &incomplete) {
            *why = format!("{why}; {remark}");
        }
        Resolution { is_failure, why_unresolved, incomplete, ..resolution }
    }

    /// Asks about the candidates in their order until one has the digest.
    async fn scan(&self, question: &Question, candidates: &[Tag]) -> Scan {
        let mut scan = Scan::default();
        let mut rest = candidates;
        let mut size = 1;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let answers = batch
                .iter()
                .map(async |tag| self.client.head(&question.repository, &tag.clone().into()).await);
            let answers = join_all(answers).await;
            scan.checked += batch.len();
            for (tag, answer) in batch.iter().zip(answers) {
                scan.take(tag, answer, &question.digest);
            }
            if scan.found.is_some() || scan.ended_by.is_some() {
                return scan;
            }
            rest = later;
            size = (size * 4).min(question.jobs.max(1));
        }
        scan
    }

    /// The first of the candidates whose image for the host's platform is that of the question's
    /// digest, though the digests differ: two indexes with one image in common, or an index and its
    /// image.
    async fn same_platform(&self, question: &Question, named: &[Named]) -> Option<Tag> {
        let platform = question.platform.as_ref()?;
        let own = match question.is_index {
            Some(false) => question.digest.clone(),
            _ if named.is_empty() => return None,
            _ => self.platform_digest(question, &question.digest, platform).await?,
        };
        let mut fetched = 0;
        for candidate in named {
            if candidate.digest == own {
                return Some(candidate.tag.clone());
            }
            if candidate.is_index && fetched < INDEXES {
                fetched += 1;
                if self.platform_digest(question, &candidate.digest, platform).await.as_ref()
                    == Some(&own)
                {
                    return Some(candidate.tag.clone());
                }
            }
        }
        None
    }

    /// The digest of the image that `platform` gets by `digest`.
    async fn platform_digest(
        &self,
        question: &Question,
        digest: &Digest,
        platform: &Platform,
    ) -> Option<Digest> {
        let manifest = self.client.manifest(&question.repository, &digest.clone().into()).await;
        let manifest = manifest
            .inspect_err(|error| tracing::info!("cannot compare platforms: {error}"))
            .ok()?;
        match manifest.kind {
            ManifestKind::Image { .. } => Some(manifest.digest),
            ManifestKind::Index(_) => manifest.platform_entry(platform),
        }
    }

    /// Whether the registry says that `tag` names `digest`.
    async fn names_digest(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> bool {
        let answer = self.client.head(repository, &tag.clone().into()).await;
        answer.is_ok_and(|described| described.digest == *digest)
    }

    async fn tags(&self, repository: &Repository) -> Result<Arc<TagList>, Error> {
        self.tags.get(repository, async { self.client.tags(repository).await.map(Arc::new) }).await
    }
}

impl Scan {
    /// Takes one candidate's answer.
    fn take(&mut self, tag: &Tag, answer: Result<super::Described, Error>, wanted: &Digest) {
        match answer {
            Ok(described) => {
                if self.found.is_none() && described.digest == *wanted {
                    self.found = Some(tag.clone());
                }
                self.named.push(Named {
                    tag: tag.clone(),
                    digest: described.digest,
                    is_index: described.is_index,
                });
            }
            // Deleted since the list was made.
            Err(Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::info!("skipping a candidate: {error}");
                self.failed += 1;
                let is_hopeless = error.is_of_host() || matches!(error, Error::RateLimited { .. });
                if is_hopeless || self.failed >= FAILURES {
                    self.ended_by = Some(error);
                }
            }
        }
    }

    /// Why no version was found among the `of` candidates.
    fn summary(&self, of: usize) -> String {
        let checked = format!("checked {} of {} version tags", grouped(self.checked), grouped(of));
        match &self.ended_by {
            Some(error) => format!("{checked}, then gave up: {error}"),
            None if self.failed > 0 => format!(
                "{checked}: none is known to name this digest, {} gave no answer",
                self.failed
            ),
            None => format!("{checked}: none names this digest"),
        }
    }
}

impl Question {
    fn candidates(&self, tags: &[Tag]) -> Vec<Tag> {
        version::candidates(tags, &self.tracked, self.pattern.as_deref())
    }

    fn newest(&self, tags: &[Tag], current: Option<&Tag>) -> Option<Tag> {
        version::newest(tags, &self.tracked, self.pattern.as_deref(), current)
    }

    /// The digest as messages name it.
    fn shown(&self) -> String {
        format!("{} ({})", self.repository.with_tag(&self.tracked), self.digest.short())
    }

    /// The answer after all of `of` candidates among `tags` that had to be checked were checked.
    fn resolution(
        &self,
        tags: &[Tag],
        version: Option<(Tag, Evidence)>,
        checked: usize,
        of: usize,
        why: impl FnOnce() -> String,
    ) -> Resolution {
        let why_unresolved = match &version {
            Some(_) => None,
            None if of > 0 => Some(why()),
            None if self.pattern.is_some() => Some("no tag matches the version pattern".to_owned()),
            None if version::Version::parse(self.tracked.as_str()).is_some() => None,
            None => Some(format!("none of the {} tags is a version", grouped(tags.len()))),
        };
        let newest = self.newest(tags, version.as_ref().map(|(tag, _)| tag));
        Resolution {
            version,
            newest,
            checked,
            of,
            why_unresolved,
            incomplete: None,
            is_failure: false,
        }
    }
}

impl Resolution {
    /// How the version is known, or why there is none.
    #[must_use]
    pub fn in_words(&self) -> String {
        match (&self.version, &self.why_unresolved) {
            (Some((_, Evidence::SameDigest)), _) => {
                "the registry has the same digest for both".to_owned()
            }
            (Some((_, Evidence::SamePlatformDigest)), _) => {
                "another index, with the same image for this platform".to_owned()
            }
            (Some((_, Evidence::EcrPublicApi)), _) => "as the ECR Public API says".to_owned(),
            (Some((_, Evidence::EcrPrivateApi)), _) => "as the ECR API says".to_owned(),
            (None, Some(why)) => format!("unresolved: {why}"),
            (None, None) => "the tag is a version, and no other says it more exactly".to_owned(),
        }
    }

    /// [`Self::in_words`], where it is not simply that the registry has one digest for both, and what
    /// may be missing.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let is_plain = match &self.version {
            Some((_, evidence)) => *evidence == Evidence::SameDigest,
            None => self.why_unresolved.is_none(),
        };
        let words = (!is_plain).then(|| self.in_words());
        let incomplete = self.incomplete.clone().filter(|_| self.version.is_some());
        let parts: Vec<String> = words.into_iter().chain(incomplete).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Some registries have no lists of tags; that is no failure.
    fn without_tags(error: &Error) -> Self {
        let has_none = matches!(error, Error::NotFound { .. })
            || matches!(error, Error::Status { status, .. } if status.is_client_error());
        let why = format!("the registry gives no list of tags: {error}");
        Self {
            version: None,
            newest: None,
            checked: 0,
            of: 0,
            why_unresolved: Some(why),
            incomplete: None,
            is_failure: !has_none,
        }
    }
}

/// The number with a comma before each group of three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::test_server::{Reply, Seen, Server};
    use super::*;

    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    /// A manifest as a registry keeps it.
    #[derive(Clone)]
    struct Stored {
        media_type: &'static str,
        text: String,
    }

    impl Stored {
        fn digest(&self) -> Digest {
            Digest::of(self.text.as_bytes())
        }
    }

    fn image(content: &str) -> Stored {
        let config = Digest::of(content.as_bytes());
        Stored {
            media_type: IMAGE,
            text: format!(
                r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"digest":"{config}","size":2}},"layers":[]}}"#
            ),
        }
    }

    /// An index of images for amd64 and arm64; `note` makes it differ from others of the same
    /// images.
    fn index(amd64: &Stored, arm64: &Stored, note: &str) -> Stored {
        let entry = |image: &Stored, architecture: &str| {
            format!(
                r#"{{"mediaType":"{IMAGE}","digest":"{}","size":1,"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                image.digest()
            )
        };
        Stored {
            media_type: INDEX,
            text: format!(
                r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{},{}],"annotations":{{"note":"{note}"}}}}"#,
                entry(amd64, "amd64"),
                entry(arm64, "arm64")
            ),
        }
    }

    /// A registry with one repository, `a/b`. `special` may answer before it does.
    async fn registry(
        tags: Vec<(String, Stored)>,
        special: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Server {
        Server::start(move |seen, _| {
            if let Some(reply) = special(seen) {
                return reply;
            }
            if let Some(query) = seen.target.strip_prefix("/v2/a/b/tags/list?") {
                let value = |key: &str| {
                    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
                };
                let size: usize = value("n").unwrap().parse().unwrap();
                let start: usize = value("from").map_or(0, |from| from.parse().unwrap());
                let page: Vec<String> = tags
                    .iter()
                    .skip(start)
                    .take(size)
                    .map(|(tag, _)| format!("\"{tag}\""))
                    .collect();
                let reply = Reply::json(format!(r#"{{"name":"a/b","tags":[{}]}}"#, page.join(",")));
                return match start + size < tags.len() {
                    true => reply.with(
                        "link",
                        format!("</v2/a/b/tags/list?n={size}&from={}>; rel=\"next\"", start + size),
                    ),
                    false => reply,
                };
            }
            let name = seen.target.strip_prefix("/v2/a/b/manifests/").unwrap_or_default();
            let is_digest = name.starts_with("sha256:");
            let found = tags.iter().find(|(tag, stored)| {
                tag == name || (is_digest && stored.digest().as_str() == name)
            });
            match found {
                Some((_, stored)) => Reply::Full(
                    200,
                    vec![
                        ("content-type", stored.media_type.to_owned()),
                        ("docker-content-digest", stored.digest().to_string()),
                        ("content-length", stored.text.len().to_string()),
                    ],
                    stored.text.clone().into_bytes(),
                ),
                None => Reply::status(404),
            }
        })
        .await
    }

    fn same(tags: &[(&str, &Stored)]) -> Vec<(String, Stored)> {
        tags.iter().map(|(tag, stored)| ((*tag).to_owned(), (*stored).clone())).collect()
    }

    fn resolver() -> Resolver {
        Resolver::new(Client::new(Settings {
            registry_certificates: "/nonexistent".into(),
            ..Settings::default()
        }))
    }

    fn question(server: &Server, digest: &Digest) -> Question {
        Question {
            repository: format!("{}/a/b", server.address).parse().unwrap(),
            tracked: "latest".parse().unwrap(),
            digest: digest.clone(),
            is_index: Some(false),
            platform: Some(Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                variant: None,
            }),
            pattern: None,
            ecr: EcrHint::default(),
            has_aws_credentials: false,
            wants_newest: true,
            cap: DEFAULT_CAP,
            jobs: 8,
        }
    }

    fn version(resolution: &Resolution) -> Option<(&str, Evidence)> {
        resolution.version.as_ref().map(|(tag, evidence)| (tag.as_str(), *evidence))
    }

    fn count(server: &Server, prefix: &str) -> usize {
        server.lines().iter().filter(|line| line.starts_with(prefix)).count()
    }

    /// The tags `1.1` … `1.<count>`, all different, and `latest`, which is the same as `1.<named>`.
    fn many(count: usize, named: usize) -> (Vec<(String, Stored)>, Digest) {
        let mut tags: Vec<(String, Stored)> =
            (1..=count).map(|n| (format!("1.{n}"), image(&n.to_string()))).collect();
        let latest = image(&named.to_string());
        let digest = latest.digest();
        tags.push(("latest".to_owned(), latest));
        (tags, digest)
    }

    #[tokio::test]
    async fn usually_it_takes_one_list_and_one_head() {
        let (tags, digest) = many(20, 20);
        let server = registry(tags, |_| None).await;
        let resolver = resolver();
        let resolution = resolver.version_of(&question(&server, &digest)).await;
        assert_eq!(version(&resolution), Some(("1.20", Evidence::SameDigest)));
        assert_eq!(resolution.newest.as_ref().map(Tag::as_str), Some("1.20"));
        assert_eq!((resolution.checked, resolution.of), (1, 20));
        assert_eq!(server.lines(), ["GET /v2/a/b/tags/list?n=1000", "HEAD /v2/a/b/manifests/1.20"]);
        // Another service with the same image reads no second list.
        resolver.version_of(&question(&server, &digest)).await;
        assert_eq!(count(&server, "GET"), 1);
    }

    #[tokio::test]
    async fn the_fifth_newest_of_ten_thousand_takes_ten_pages_and_five_heads() {
        let (tags, digest) = many(10_000, 9_996);
        let server = registry(tags, |_| None).await;
        let resolution = resolver().version_of(&question(&server, &digest)).await;
        assert_eq!(version(&resolution), Some(("1.9996", Evidence::SameDigest)));
        assert_eq!(resolution.newest.as_ref().map(Tag::as_str), Some("1.10000"));
        assert_eq!((count(&server, "GET"), count(&server, "HEAD")), (11, 5));
        assert_eq!((resolution.checked, resolution.of), (5, 10_000));
    }

    #[tokio::test]
    async fn the_scan_ends_at_the_cap_and_says_so() {
        let (tags, digest) = many(10_000, 0);
        let server = registry(tags, |_| None).await;
        let resolution = resolver().version_of(&question(&server, &digest)).await;
        assert_eq!(version(&resolution), None);
        assert_eq!(count(&server, "HEAD"), 200);
        let why = resolution.why_unresolved.unwrap();
        assert_eq!(why, "checked 200 of 10,000 version tags: none names this digest");
    }

    #[tokio::test]
    async fn a_batch_prefers_the_most_exact_name() {
        let (wanted, other) = (image("wanted"), image("other"));
        let tags = same(&[
            ("latest", &wanted),
            ("1", &wanted),
            ("1.42", &wanted),
            ("1.42.3", &wanted),
            ("2.0.0-rc1", &other),
            ("1.42.3-alpine", &wanted),
        ]);
        let server = registry(tags, |_| None).await;
        let resolution = resolver().version_of(&question(&server, &wanted.digest())).await;
        assert_eq!(version(&resolution), Some(("1.42.3", Evidence::SameDigest)));
        assert_eq!(resolution.checked, 5);
    }

    #[tokio::test]
    async fn a_tracked_suffix_resolves_within_it() {
        let (wanted, other) = (image("wanted"), image("other"));
        let tags = same(&[
            ("alpine", &wanted),
            ("1.27.3", &wanted),
            ("1.27.3-alpine", &wanted),
            ("1.28.0-bookworm", &other),
        ]);
        let server = registry(tags, |_| None).await;
        let mut question = question(&server, &wanted.digest());
        question.tracked = "alpine".parse().unwrap();
        let resolution = resolver().version_of(&question).await;
        assert_eq!(version(&resolution), Some(("1.27.3-alpine", Evidence::SameDigest)));
        assert_eq!(count(&server, "HEAD"), 1);
    }

    #[tokio::test]
    async fn indexes_with_the_same_image_for_this_host_are_the_same_version() {
        let (amd64, arm64, other) = (image("amd64"), image("arm64"), image("other"));
        let (latest, release) = (index(&amd64, &arm64, "rebuilt"), index(&amd64, &other, "first"));
        let newer = index(&other, &arm64, "newer");
        let tags = same(&[("latest", &latest), ("1.42", &release), ("1.43", &newer)]);
        let server = registry(tags, |_| None).await;
        let mut question = question(&server, &latest.digest());
        question.is_index = Some(true);
        let resolution = resolver().version_of(&question).await;
        assert_eq!(version(&resolution), Some(("1.42", Evidence::SamePlatformDigest)));
        // One GET for the tracked index, one for each candidate until it fits.
        assert_eq!((count(&server, "HEAD"), count(&server, "GET /v2/a/b/manifests/")), (2, 3));
        question.platform = Some(Platform {
            os: "linux".to_owned(),
            architecture: "s390x".to_owned(),
            variant: None,
        });
        assert_eq!(version(&resolver().version_of(&question).await), None);
        question.platform = None;
        assert_eq!(version(&resolver().version_of(&question).await), None);
    }

    #[tokio::test]
    async fn an_index_and_its_image_for_this_host_are_the_same_version_both_ways() {
        let (amd64, arm64) = (image("amd64"), image("arm64"));
        let both = index(&amd64, &arm64, "");
        // `latest` is an index, the version is only there as an image per platform.
        let tags = same(&[("latest", &both), ("1.42-amd64", &amd64), ("1.42-arm64", &arm64)]);
        let server = registry(tags, |_| None).await;
        let mut asked = question(&server, &both.digest());
        asked.is_index = Some(true);
        let resolution = resolver().version_of(&asked).await;
        assert_eq!(version(&resolution), Some(("1.42-amd64", Evidence::SamePlatformDigest)));
        assert_eq!(count(&server, "GET /v2/a/b/manifests/"), 1);
        // `latest` is an image, the version an index.
        let tags = same(&[("latest", &amd64), ("1.42", &both), ("1.41", &arm64)]);
        let server = registry(tags, |_| None).await;
        let resolution = resolver().version_of(&question(&server, &amd64.digest())).await;
        assert_eq!(version(&resolution), Some(("1.42", Evidence::SamePlatformDigest)));
    }

    #[tokio::test]
    async fn no_more_than_five_indexes_are_fetched() {
        let arm64 = image("arm64");
        let own = image("own");
        let latest = index(&own, &arm64, "latest");
        let mut tags: Vec<(String, Stored)> = (1..=9)
            .map(|n| (format!("1.{n}"), index(&image(&n.to_string()), &arm64, "")))
            .collect();
        tags.push(("latest".to_owned(), latest.clone()));
        let server = registry(tags, |_| None).await;
        let mut question = question(&server, &latest.digest());
        question.is_index = None;
        let resolution = resolver().version_of(&question).await;
        assert_eq!(version(&resolution), None);
        assert_eq!((count(&server, "HEAD"), count(&server, "GET /v2/a/b/manifests/")), (9, 6));
    }

    #[tokio::test]
    async fn a_candidate_that_is_gone_or_refused_is_skipped() {
        let (tags, digest) = many(4, 2);
        let server = registry(tags, |seen| match seen.target.as_str() {
            "/v2/a/b/manifests/1.4" => Some(Reply::status(404)),
            "/v2/a/b/manifests/1.3" => Some(Reply::status(403)),
            _ => None,
        })
        .await;
        let resolution = resolver().version_of(&question(&server, &digest)).await;
        assert_eq!(version(&resolution), Some(("1.2", Evidence::SameDigest)));
    }

    #[tokio::test]
    async fn a_refused_scan_is_given_up() {
        let (tags, digest) = many(50, 0);
        let server =
            registry(tags, |seen| seen.target.contains("/manifests/").then(|| Reply::status(403)))
                .await;
        let resolution = resolver().version_of(&question(&server, &digest)).await;
        let why = resolution.why_unresolved.unwrap();
        assert!(why.starts_with("checked 5 of 50 version tags, then gave up: "), "{why}");
        assert_eq!(count(&server, "HEAD"), 5);
    }

    #[tokio::test]
    async fn without_a_tag_list_the_tag_stays_unresolved() {
        for status in [401, 403, 404, 405] {
            let digest = image("x").digest();
            let server = registry(Vec::new(), move |_| Some(Reply::status(status))).await;
            let resolution = resolver().version_of(&question(&server, &digest)).await;
            assert_eq!(version(&resolution), None);
            let why = resolution.why_unresolved.unwrap();
            assert!(why.starts_with("the registry gives no list of tags: "), "{why}");
        }
    }

    #[tokio::test]
    async fn a_tag_without_better_names_is_no_failure_if_it_is_a_version() {
        let only = image("x");
        let server =
            registry(same(&[("1.20.3", &only), ("latest", &only), ("main", &only)]), |_| None)
                .await;
        let mut question = question(&server, &only.digest());
        question.tracked = "1.20.3".parse().unwrap();
        let resolution = resolver().version_of(&question).await;
        assert_eq!((version(&resolution), &resolution.why_unresolved), (None, &None));
        assert_eq!(resolution.newest.as_ref().map(Tag::as_str), Some("1.20.3"));
        question.pattern = Some("v*".to_owned());
        let why = resolver().version_of(&question).await.why_unresolved;
        assert_eq!(why.as_deref(), Some("no tag matches the version pattern"));
        question.pattern = Some("m*".to_owned());
        assert_eq!(
            version(&resolver().version_of(&question).await),
            Some(("main", Evidence::SameDigest))
        );
    }

    #[tokio::test]
    async fn the_ecr_public_api_answers_alone_if_it_knows_the_digest() {
        let (own, other) = (image("own").digest(), image("other").digest());
        let body = format!(
            r#"{{"imageDetails":[{{"imageDigest":"{own}","imageTags":["latest","1.42","20260112"]}},
            {{"imageDigest":"{other}","imageTags":["1.43","1.43.0"]}}]}}"#
        );
        let server = Server::start(move |_, _| Reply::json(body.clone())).await;
        let resolver =
            Resolver { ecr_public: EcrPublic::on_loopback(server.address), ..resolver() };
        let mut question = question(&server, &own);
        question.repository = "public.ecr.aws/alias/web".parse().unwrap();
        question.has_aws_credentials = true;
        question.platform = None;
        question.ecr.registry_id = Some("123456789012".to_owned());
        let resolution = resolver.version_of(&question).await;
        assert_eq!(version(&resolution), Some(("1.42", Evidence::EcrPublicApi)));
        assert_eq!(resolution.newest.as_ref().map(Tag::as_str), Some("1.43.0"));
        // Another service with the same image.
        question.tracked = "1.43".parse().unwrap();
        question.digest = other;
        assert_eq!(
            version(&resolver.version_of(&question).await),
            Some(("1.43.0", Evidence::EcrPublicApi))
        );
        // Listed, but nothing names it but words.
        question.pattern = Some("9*".to_owned());
        let resolution = resolver.version_of(&question).await;
        assert_eq!(
            resolution.why_unresolved.as_deref(),
            Some("no tag matches the version pattern")
        );
        // Not listed: the registry has to say.
        question.digest = image("third").digest();
        assert_eq!(resolver.by_ecr_public(&question).await, None);
        assert_eq!(server.seen().len(), 1);
    }

    #[tokio::test]
    async fn the_registry_confirms_what_comes_from_an_unknown_account() {
        let wanted = image("wanted");
        let server = registry(same(&[("1.42", &wanted)]), |_| None).await;
        let asked = question(&server, &wanted.digest());
        for (tag, digest, expected) in [
            ("1.42", wanted.digest(), true),
            ("1.42", image("other").digest(), false),
            ("1.41", wanted.digest(), false),
        ] {
            assert_eq!(
                resolver().names_digest(&asked.repository, &tag.parse().unwrap(), &digest).await,
                expected
            );
        }
    }

    #[tokio::test]
    async fn private_ecr_answers_by_digest_or_else_the_registry_does() {
        let (tags, digest) = many(4, 3);
        let server = registry(tags, |_| None).await;
        let body = format!(
            r#"{{"imageDetails":[{{"imageDigest":"{digest}","imageTags":["latest","1.3"]}}]}}"#
        );
        let api = Server::start(move |_, number| match number {
            0 | 1 => Reply::json(body.clone()),
            _ => Reply::Full(
                400,
                Vec::new(),
                br#"{"__type":"AccessDeniedException","message":"no"}"#.to_vec(),
            ),
        })
        .await;
        let private = PrivateRegistry::new(&server.address.to_string(), "eu-west-1");
        let resolver = Resolver {
            ecr_private: EcrPrivate::on_loopback(&private.region, api.address).await,
            ..resolver()
        };
        let mut question = question(&server, &digest);
        question.ecr.private = Some(private);
        question.has_aws_credentials = true;
        question.wants_newest = false;
        let resolution = resolver.version_of(&question).await;
        assert_eq!(
            (version(&resolution), &resolution.newest),
            (Some(("1.3", Evidence::EcrPrivateApi)), &None)
        );
        assert_eq!((server.seen().len(), api.seen().len()), (0, 1));
        question.wants_newest = true;
        let resolution = resolver.version_of(&question).await;
        assert_eq!(version(&resolution), Some(("1.3", Evidence::EcrPrivateApi)));
        assert_eq!(resolution.newest.as_ref().map(Tag::as_str), Some("1.4"));
        let resolution = resolver.version_of(&question).await;
        assert_eq!(version(&resolution), Some(("1.3", Evidence::SameDigest)));
        // Without AWS credentials, AWS is left alone.
        question.has_aws_credentials = false;
        resolver.version_of(&question).await;
        assert_eq!(api.seen().len(), 3);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in
            [(0, "0"), (200, "200"), (1000, "1,000"), (10_000, "10,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
