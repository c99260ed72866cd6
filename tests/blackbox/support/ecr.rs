//! The APIs of the two AWS container registries: a stub of ECR Public's in the SDK's wire format
//! (JSON 1.1), and moto's fake of private ECR. Both serve as the SDK's endpoint
//! (`AWS_ENDPOINT_URL_ECR_PUBLIC`, `AWS_ENDPOINT_URL_ECR`).

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http::{self, Listener, Request, Response};
use super::registry::free_address;
use super::{tools, wait_for};

const JSON: &str = "application/x-amz-json-1.1";

/// Variables that give the SDK credentials and keep it from looking for others.
pub const CREDENTIALS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
    ("AWS_SECRET_ACCESS_KEY", "dkv-test-secret"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// An image as DescribeImages lists it.
#[derive(Clone, Debug)]
struct Listed {
    repository: String,
    digest: String,
    tags: Vec<String>,
}

#[derive(Default)]
struct Content {
    images: Vec<Listed>,
    refusal: Option<(String, String)>,
    refusals_left: usize,
    requests: Vec<Request>,
}

/// The ECR Public API: DescribeImages, in pages, and GetAuthorizationToken.
pub struct EcrPublicStub {
    listener: Listener,
    content: Arc<Mutex<Content>>,
}

impl EcrPublicStub {
    /// At most `page_size` images in an answer, however many are asked for.
    pub fn start(page_size: usize) -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let shared = Arc::clone(&content);
        let listener = http::serve(move |request| {
            let mut content = shared.lock().expect("no test panicked here");
            content.requests.push(request.clone());
            content.answer(request, page_size)
        });
        Self { listener, content }
    }

    /// Lists an image. `repository` is the name without registry and alias.
    pub fn image(&self, repository: &str, digest: &str, tags: &[&str]) -> &Self {
        let tags = tags.iter().map(|tag| (*tag).into()).collect();
        self.lock().images.push(Listed {
            repository: repository.into(),
            digest: digest.into(),
            tags,
        });
        self
    }

    /// Refuses the next `count` requests with this error, `ThrottlingException` or
    /// `AccessDeniedException` for example.
    pub fn refuse(&self, error: &str, message: &str, count: usize) -> &Self {
        let mut content = self.lock();
        content.refusal = Some((error.into(), message.into()));
        content.refusals_left = count;
        drop(content);
        self
    }

    /// For `AWS_ENDPOINT_URL_ECR_PUBLIC`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().expect("no test panicked here")
    }
}

impl Content {
    fn answer(&mut self, request: &Request, page_size: usize) -> Response {
        if let (Some((error, message)), true) = (&self.refusal, self.refusals_left > 0) {
            self.refusals_left -= 1;
            return failure(error, message);
        }
        if !request
            .header("Authorization")
            .is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 "))
        {
            return failure("MissingAuthenticationTokenException", "Missing Authentication Token");
        }
        let input: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match request.header("X-Amz-Target") {
            Some("SpencerFrontendService.DescribeImages") => {
                self.describe_images(&input, page_size)
            }
            Some("SpencerFrontendService.GetAuthorizationToken") => {
                let token = STANDARD.encode("AWS:public-password");
                success(
                    &json!({"authorizationData": {"authorizationToken": token, "expiresAt": 4_102_444_800.0}}),
                )
            }
            other => failure("UnknownOperationException", &format!("{other:?}")),
        }
    }

    fn describe_images(&self, input: &Value, page_size: usize) -> Response {
        let repository = input["repositoryName"].as_str().unwrap_or_default();
        if !self.images.iter().any(|image| image.repository == repository) {
            return failure(
                "RepositoryNotFoundException",
                &format!("The repository with name '{repository}' does not exist"),
            );
        }
        let wanted = input["imageIds"].as_array().cloned().unwrap_or_default();
        let is_wanted = |image: &&Listed| {
            let names = |id: &Value| {
                id["imageDigest"].as_str().is_none_or(|digest| digest == image.digest)
                    && id["imageTag"]
                        .as_str()
                        .is_none_or(|tag| image.tags.iter().any(|known| known == tag))
            };
            image.repository == repository && (wanted.is_empty() || wanted.iter().any(names))
        };
        let images: Vec<&Listed> = self.images.iter().filter(is_wanted).collect();
        if images.is_empty() {
            return failure("ImageNotFoundException", "The image requested does not exist");
        }
        let start = input["nextToken"].as_str().map_or(0, |token| token.parse().unwrap_or(0));
        let size = input["maxResults"]
            .as_u64()
            .map_or(page_size, |most| page_size.min(usize::try_from(most).unwrap_or(page_size)));
        let page = images.iter().skip(start).take(size).map(|image| {
            json!({
                "registryId": "123456789012", "repositoryName": repository, "imageDigest": image.digest,
                "imageTags": image.tags, "imageSizeInBytes": 1_000_000, "imagePushedAt": 1_767_225_600.0,
            })
        });
        let mut output = json!({"imageDetails": page.collect::<Vec<_>>()});
        if start + size < images.len() {
            output["nextToken"] = json!((start + size).to_string());
        }
        success(&output)
    }
}

fn success(output: &Value) -> Response {
    Response::new(200, JSON, output.to_string())
}

fn failure(error: &str, message: &str) -> Response {
    Response::new(400, JSON, json!({"__type": error, "message": message}).to_string())
}

/// moto's server as private ECR.
pub struct Moto {
    address: SocketAddr,
    child: Child,
}

impl Moto {
    pub fn start() -> Self {
        let program = tools().join("moto/bin/moto_server");
        assert!(program.is_file(), "no {}: run tests/setup.sh moto first", program.display());
        let address = free_address();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let mut moto = Self { address, child };
        wait_for("moto answers", Duration::from_secs(180), || {
            assert!(moto.child.try_wait().expect("the state of a child").is_none(), "moto ended");
            TcpStream::connect(address).ok()
        });
        moto
    }

    /// For `AWS_ENDPOINT_URL_ECR`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn create_repository(&self, name: &str) {
        self.call("CreateRepository", &json!({"repositoryName": name}));
    }

    /// Stores a manifest under a tag and returns the digest that ECR gives it.
    pub fn put_image(&self, repository: &str, tag: &str, manifest: &str) -> String {
        let input =
            json!({"repositoryName": repository, "imageTag": tag, "imageManifest": manifest});
        let output = self.call("PutImage", &input);
        output["image"]["imageId"]["imageDigest"].as_str().expect("a digest").to_owned()
    }

    /// Calls an operation of the ECR API.
    pub fn call(&self, operation: &str, input: &Value) -> Value {
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        let authorization = "AWS4-HMAC-SHA256 \
            Credential=AKIDTEST/20260101/us-east-1/ecr/aws4_request, SignedHeaders=host, \
            Signature=0";
        let headers = [
            ("X-Amz-Target", target.as_str()),
            ("Content-Type", JSON),
            ("Authorization", authorization),
        ];
        let response =
            http::request(self.address, "POST", "/", &headers, input.to_string().as_bytes())
                .expect("moto's answer");
        assert_eq!(response.status, 200, "{operation}: {}", response.text());
        serde_json::from_slice(&response.body).expect("JSON from moto")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
