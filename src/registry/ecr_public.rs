//! The ECR Public API: all images of a repository with their tags, for users with AWS credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_sdk_ecrpublic::Client;
use tokio::sync::OnceCell;

use super::aws::{self, Purpose};
use super::manifest;
use super::retry::lock;
use crate::model::reference::{Digest, Repository, Tag};

/// The registry whose API this is.
const HOST: &str = "public.ecr.aws";

/// The only region that the API has.
const REGION: &str = "us-east-1";

/// Images asked for per page: the API's own maximum.
const PAGE: i32 = 1000;

/// The most pages: more than the 10,000 images that a repository may hold by default.
const PAGES: usize = 100;

/// A digest and the tags that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaggedImage {
    pub(super) digest: Digest,
    pub(super) is_index: bool,
    pub(super) tags: Vec<Tag>,
}

/// Asks the API for one run. An alias for which it refused once is not asked about again.
#[derive(Default)]
pub(super) struct EcrPublic {
    client: OnceCell<Client>,
    aliases: Mutex<HashMap<String, Arc<Alias>>>,
}

/// What is known about an alias (the first part of a repository's path).
#[derive(Default)]
struct Alias {
    /// Held by the first to ask, so that the others profit from a refusal.
    first: tokio::sync::Mutex<()>,
    is_refused: Mutex<Option<bool>>,
}

impl EcrPublic {
    /// The images of `repository`; `None` if it is elsewhere or if the API does not tell.
    pub(super) async fn images(
        &self,
        repository: &Repository,
        registry_id: Option<&str>,
    ) -> Option<Vec<TaggedImage>> {
        let (alias_name, name) =
            repository.path().split_once('/').filter(|_| repository.host() == HOST)?;
        let alias = Arc::clone(lock(&self.aliases).entry(alias_name.to_owned()).or_default());
        let mut turn = Some(alias.first.lock().await);
        match *lock(&alias.is_refused) {
            Some(true) => {
                tracing::debug!(
                    "not asking the ECR Public API about {repository}: it refused {alias_name} \
                        before"
                );
                return None;
            }
            Some(false) => turn = None,
            None => {}
        }
        let client = self
            .client
            .get_or_init(async || Client::new(&aws::config(REGION, Purpose::Shortcut).await));
        let outcome = all_images(client.await, name, registry_id).await;
        *lock(&alias.is_refused) = Some(outcome.is_err());
        drop(turn);
        outcome
            .inspect_err(|why| {
                tracing::info!(
                    "the ECR Public API tells nothing about {repository} ({why}); \
                    asking the registry itself"
                );
            })
            .ok()
    }
}

#[cfg(test)]
impl EcrPublic {
    /// The API as a server on loopback speaks it.
    pub(super) fn on_loopback(address: std::net::SocketAddr) -> Self {
        let client = Client::new(&aws::loopback_config(address));
        Self { client: OnceCell::new_with(Some(client)), aliases: Mutex::default() }
    }
}

/// All images of the repository `name` with their tags.
///
/// # Errors
/// Why there is no complete answer.
async fn all_images(
    client: &Client,
    name: &str,
    registry_id: Option<&str>,
) -> Result<Vec<TaggedImage>, String> {
    let request = client
        .describe_images()
        .repository_name(name)
        .set_registry_id(registry_id.map(str::to_owned));
    let mut pages = request.into_paginator().page_size(PAGE).send();
    let mut images = Vec::new();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { return Ok(images) };
        let page = page.map_err(|error| aws::describe(&error))?;
        images.extend(page.image_details().iter().filter_map(|image| {
            Some(TaggedImage {
                digest: image.image_digest()?.parse().ok()?,
                is_index: image.image_manifest_media_type().is_some_and(manifest::is_index),
                tags: image.image_tags().iter().filter_map(|tag| tag.parse().ok()).collect(),
            })
        }));
    }
    Err(format!("it has more than {PAGES} pages"))
}

#[cfg(test)]
mod tests {
    use aws_config::profile::ProfileFileCredentialsProvider;
    use aws_sdk_ecrpublic::config::SharedCredentialsProvider;

    use super::super::test_server::{Reply, Server};
    use super::*;

    fn api(server: &Server) -> EcrPublic {
        EcrPublic::on_loopback(server.address)
    }

    fn repository(text: &str) -> Repository {
        text.parse().unwrap()
    }

    fn refusal(code: &str, message: &str) -> Reply {
        let body = format!(r#"{{"__type":"{code}","message":"{message}"}}"#);
        Reply::Full(
            400,
            vec![("content-type", "application/x-amz-json-1.1".to_owned())],
            body.into_bytes(),
        )
    }

    #[tokio::test]
    async fn all_pages_are_read() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let bodies = [
            format!(
                r#"{{"imageDetails":[{{"registryId":"123456789012","repositoryName":"web","imageDigest":"{one}","imageTags":["1.42","latest"],
                "imageManifestMediaType":"application/vnd.oci.image.index.v1+json"}}],"nextToken":"more"}}"#
            ),
            format!(
                r#"{{"imageDetails":[{{"imageDigest":"{two}","imageTags":["1.41"]}},{{"imageDigest":"{one}"}},{{}}]}}"#
            ),
        ];
        let server = Server::start(move |_, number| Reply::json(bodies[number].clone())).await;
        let images = api(&server)
            .images(&repository("public.ecr.aws/n5k3t9x2/web"), Some("123456789012"))
            .await
            .unwrap();
        let tags =
            |text: &str| text.split(' ').map(|tag| tag.parse().unwrap()).collect::<Vec<Tag>>();
        assert_eq!(
            images,
            [
                TaggedImage { digest: one.clone(), is_index: true, tags: tags("1.42 latest") },
                TaggedImage { digest: two, is_index: false, tags: tags("1.41") },
                TaggedImage { digest: one, is_index: false, tags: Vec::new() },
            ]
        );
        let seen = server.seen();
        let bodies: Vec<serde_json::Value> =
            seen.iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
        assert_eq!(
            bodies,
            [
                serde_json::json!({"registryId": "123456789012", "repositoryName": "web", "maxResults": 1000}),
                serde_json::json!({"registryId": "123456789012", "repositoryName": "web", "maxResults": 1000, "nextToken": "more"}),
            ]
        );
        let authorization = seen[0].authorization.as_deref().unwrap();
        assert!(authorization.contains("/us-east-1/ecr-public/aws4_request"), "{authorization}");
    }

    #[tokio::test]
    async fn one_refusal_ends_it_for_the_alias() {
        for (code, message) in [
            ("AccessDeniedException", "not authorized"),
            ("ThrottlingException", "Rate exceeded"),
            ("RepositoryNotFoundException", "no such repository"),
            ("UnrecognizedClientException", "The security token is invalid."),
        ] {
            let server = Server::start(move |_, _| refusal(code, message)).await;
            let api = api(&server);
            let names =
                ["public.ecr.aws/alias/a", "public.ecr.aws/alias/b", "public.ecr.aws/alias/c"]
                    .map(repository);
            let answers =
                futures_util::future::join_all(names.iter().map(|name| api.images(name, None)))
                    .await;
            assert!(answers.iter().all(Option::is_none));
            assert_eq!(server.seen().len(), 1, "{code}");
            assert_eq!(api.images(&repository("public.ecr.aws/other/a"), None).await, None);
            assert_eq!(server.seen().len(), 2, "{code}");
        }
    }

    #[tokio::test]
    async fn what_works_once_is_asked_again() {
        let server = Server::start(|_, _| Reply::json(r#"{"imageDetails":[]}"#)).await;
        let api = api(&server);
        for name in ["public.ecr.aws/alias/a", "public.ecr.aws/alias/b/c"] {
            assert_eq!(api.images(&repository(name), None).await, Some(Vec::new()));
        }
        assert_eq!(
            server
                .seen()
                .iter()
                .filter(|seen| seen.body.contains(r#""repositoryName":"b/c""#))
                .count(),
            1
        );
    }

    #[tokio::test]
    async fn other_registries_and_bad_answers_give_nothing() {
        let server = Server::start(|_, _| Reply::Full(200, Vec::new(), b"<html>".to_vec())).await;
        let api = api(&server);
        assert_eq!(api.images(&repository("127.0.0.1:5000/alias/a"), None).await, None);
        assert_eq!(api.images(&repository("nginx"), None).await, None);
        assert_eq!(server.seen().len(), 0);
        assert_eq!(api.images(&repository("public.ecr.aws/alias/a"), None).await, None);
        assert_eq!(server.seen().len(), 1);
    }

    #[tokio::test]
    async fn errors_read_as_one_plain_line() {
        let server = Server::start(|_, number| match number {
            0 => refusal("AccessDeniedException", "no\\u001b[0m"),
            _ => Reply::status(500),
        })
        .await;
        let client = Client::new(&aws::loopback_config(server.address));
        assert_eq!(
            all_images(&client, "a", None).await.unwrap_err(),
            "AccessDeniedException: no [0m"
        );
        assert_eq!(
            all_images(&client, "a", None).await.unwrap_err(),
            "AWS gives an unusable answer"
        );
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&aws::loopback_config(nobody));
        assert_eq!(all_images(&client, "a", None).await.unwrap_err(), "AWS cannot be reached");
        let profile = ProfileFileCredentialsProvider::builder()
            .profile_name("dkv-test-that-is-not-there")
            .build();
        let config = aws::loopback_config(server.address).into_builder();
        let config = config.credentials_provider(SharedCredentialsProvider::new(profile)).build();
        let why = all_images(&Client::new(&config), "a", None).await.unwrap_err();
        assert_eq!(why, "there are no usable AWS credentials");
    }
}
