//! Private ECR: its login, and the tags of a digest.

use aws_sdk_ecr::Client;
use aws_sdk_ecr::types::ImageIdentifier;
use base64::Engine as _;
use chrono::{DateTime, Utc};

use super::aws::{self, Purpose};
use super::resolve::Memory;
use super::{Credentials, Login, Secret};
use crate::error;
use crate::model::reference::{Digest, Repository, Tag};

/// A private ECR registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateRegistry {
    /// The registry's host.
    pub host: String,
    /// The AWS account that owns it; the caller's own if not known.
    pub account: Option<String>,
    /// The AWS region.
    pub region: String,
}

/// A login that AWS gave.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The login, for [`super::Client::supply_credentials`] and for the Docker daemon.
    pub credentials: Credentials,
    /// When it ends, if AWS said.
    pub expires_at: Option<DateTime<Utc>>,
}

impl PrivateRegistry {
    /// The registry at `host`: account and region are those in
    /// `<account>.dkr.ecr.<region>.amazonaws.com` (or `.com.cn`); for another host, `region` is as
    /// configured.
    #[must_use]
    pub fn new(host: &str, region: &str) -> Self {
        let (account, region) = match parse_host(host) {
            Some((account, region)) => (Some(account.to_owned()), region),
            None => (None, region),
        };
        Self { host: host.to_owned(), account, region: region.to_owned() }
    }

    /// The registry that `host` names by itself, if it is one of ECR's.
    #[must_use]
    pub fn of_host(host: &str) -> Option<Self> {
        parse_host(host).map(|(_, region)| Self::new(host, region))
    }

    /// Asks AWS for a login, with the credentials of the environment, the AWS configuration files
    /// or the instance.
    ///
    /// # Errors
    /// [`error::Kind::Registry`] if there are no AWS credentials, or if AWS cannot be reached or
    /// refuses.
    pub async fn login(&self) -> anyhow::Result<Granted> {
        self.login_through(&connect(&self.region, Purpose::Necessity).await).await
    }

    async fn login_through(&self, client: &Client) -> anyhow::Result<Granted> {
        let answer = client.get_authorization_token().send().await;
        let answer = answer.map_err(|error| self.refused(&aws::describe(&error)))?;
        let data = answer
            .authorization_data()
            .first()
            .ok_or_else(|| self.refused("its answer holds no login"))?;
        let login = data.authorization_token().and_then(parse_token);
        let login = login.ok_or_else(|| self.refused("its answer holds no usable login"))?;
        let expires_at = data
            .expires_at()
            .and_then(|end| DateTime::from_timestamp(end.secs(), end.subsec_nanos()));
        Ok(Granted { credentials: Credentials { server: self.host.clone(), login }, expires_at })
    }

    fn refused(&self, why: &str) -> error::Error {
        error::registry(format!("no login for {} from AWS: {why}", self.host)).with_hint(format!(
            "check the AWS credentials (`aws sts get-caller-identity`), the region {} and the \
                permission ecr:GetAuthorizationToken",
            self.region
        ))
    }
}

async fn connect(region: &str, purpose: Purpose) -> Client {
    Client::new(&aws::config(region, purpose).await)
}

/// Asks the API about images, one client for each region.
#[derive(Default)]
pub(super) struct EcrPrivate {
    clients: Memory<String, Client>,
}

impl EcrPrivate {
    /// The tags that name `digest` in `repository`; `None` if AWS does not tell.
    pub(super) async fn tags_of(
        &self,
        registry: &PrivateRegistry,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<Vec<Tag>> {
        let client =
            self.clients.get(&registry.region, connect(&registry.region, Purpose::Shortcut)).await;
        let answer = client
            .describe_images()
            .set_registry_id(registry.account.clone())
            .repository_name(repository.path())
            .image_ids(ImageIdentifier::builder().image_digest(digest.as_str()).build())
            .send()
            .await;
        let answer = answer
            .inspect_err(|error| {
                let why = aws::describe(error);
                tracing::info!(
                    "the ECR API tells nothing about {repository} ({why}); asking the \
                    registry itself"
                );
            })
            .ok()?;
        let image = answer
            .image_details()
            .iter()
            .find(|image| image.image_digest() == Some(digest.as_str()))?;
        Some(image.image_tags().iter().filter_map(|tag| tag.parse().ok()).collect())
    }
}

#[cfg(test)]
impl EcrPrivate {
    /// The API of `region` as a server on loopback speaks it.
    pub(super) async fn on_loopback(region: &str, address: std::net::SocketAddr) -> Self {
        let api = Self::default();
        api.clients
            .get(&region.to_owned(), async { Client::new(&aws::loopback_config(address)) })
            .await;
        api
    }
}

/// Account and region of `<account>.dkr.ecr.<region>.amazonaws.com[.cn]`.
fn parse_host(host: &str) -> Option<(&str, &str)> {
    let name =
        host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let (account, region) =
        name.split_once(".dkr.ecr.").or_else(|| name.split_once(".dkr.ecr-fips."))?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let is_region = !region.is_empty()
        && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_account && is_region).then_some((account, region))
}

/// ECR's token is the Base64 form of `AWS:<password>`.
fn parse_token(token: &str) -> Option<Login> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Login::Password {
        username: username.to_owned(),
        password: Secret::from(password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{Reply, Server};
    use super::*;

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn client(server: &Server) -> Client {
        Client::new(&aws::loopback_config(server.address))
    }

    #[test]
    fn hosts_name_account_and_region() {
        let registry = PrivateRegistry::new(HOST, "us-east-1");
        assert_eq!(
            (registry.account.as_deref(), registry.region.as_str()),
            (Some("123456789012"), "eu-west-1")
        );
        let china =
            PrivateRegistry::of_host("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn").unwrap();
        assert_eq!(china.region, "cn-north-1");
        let other = PrivateRegistry::new("127.0.0.1:5000", "us-east-1");
        assert_eq!((other.account, other.region.as_str()), (None, "us-east-1"));
        for no in [
            "public.ecr.aws",
            "x.dkr.ecr.a.amazonaws.com",
            "123456789012.dkr.ecr.a.b.amazonaws.com",
            "amazonaws.com",
        ] {
            assert_eq!(PrivateRegistry::of_host(no), None, "{no}");
        }
    }

    #[tokio::test]
    async fn a_login_has_its_password_intact_and_its_end() {
        let token = base64::engine::general_purpose::STANDARD.encode("AWS:p>>>???~~~:x");
        let body = format!(
            r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":1.79E9,"proxyEndpoint":"https://{HOST}"}}]}}"#
        );
        let server = Server::start(move |_, _| Reply::json(body.clone())).await;
        let granted =
            PrivateRegistry::new(HOST, "x").login_through(&client(&server)).await.unwrap();
        assert_eq!(granted.expires_at.unwrap().timestamp(), 1_790_000_000);
        assert_eq!(granted.credentials.server, HOST);
        let Login::Password { username, password } = &granted.credentials.login else {
            panic!("no password")
        };
        assert_eq!((username.as_str(), password.expose()), ("AWS", "p>>>???~~~:x"));
        assert!(!format!("{granted:?}").contains("p>>>"));
    }

    #[tokio::test]
    async fn a_refused_login_says_why_and_what_to_do() {
        let refusal = br#"{"__type":"UnrecognizedClientException","message":"The security token is invalid."}"#;
        for (status, body) in [
            (400, refusal.to_vec()),
            (200, b"{}".to_vec()),
            (200, br#"{"authorizationData":[{"authorizationToken":"%"}]}"#.to_vec()),
        ] {
            let server =
                Server::start(move |_, _| Reply::Full(status, Vec::new(), body.clone())).await;
            let chain =
                PrivateRegistry::new(HOST, "x").login_through(&client(&server)).await.unwrap_err();
            assert_eq!(error::kind(&chain), error::Kind::Registry);
            let found = error::find(&chain).unwrap();
            assert!(
                found.to_string().starts_with(&format!("no login for {HOST} from AWS: ")),
                "{found}"
            );
            assert!(found.hint().unwrap().contains("eu-west-1"));
            assert!(!format!("{chain:?}").contains("AWSSECRET"));
        }
    }

    #[tokio::test]
    async fn the_tags_of_a_digest_take_one_request() {
        let digest = Digest::of(b"x");
        let body = format!(
            r#"{{"imageDetails":[{{"imageDigest":"{digest}","imageTags":["latest","1.42"]}}]}}"#
        );
        let server = Server::start(move |_, number| match number {
            0 => Reply::json(body.clone()),
            1 => Reply::Full(
                400,
                Vec::new(),
                br#"{"__type":"ImageNotFoundException","message":"none"}"#.to_vec(),
            ),
            _ => Reply::json("{}"),
        })
        .await;
        let registry = PrivateRegistry::new(HOST, "");
        let api = EcrPrivate::on_loopback(&registry.region, server.address).await;
        let repository: Repository = format!("{HOST}/team/web").parse().unwrap();
        let tags = api.tags_of(&registry, &repository, &digest).await.unwrap();
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["latest", "1.42"]);
        let asked: serde_json::Value = serde_json::from_str(&server.seen()[0].body).unwrap();
        assert_eq!(
            asked,
            serde_json::json!({"registryId": "123456789012", "repositoryName": "team/web", "imageIds": [{"imageDigest": digest.as_str()}]})
        );
        assert_eq!(api.tags_of(&registry, &repository, &digest).await, None);
        assert_eq!(api.tags_of(&registry, &repository, &digest).await, None);
        assert_eq!(server.seen().len(), 3);
    }
}
