//! The AWS registries: ECR Public by its API or without, and private ECR.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use serde_json::json;

use crate::support::ecr::{CREDENTIALS, EcrPublicStub, Moto};
use crate::support::http::Listener;
use crate::support::registry::free_address;
use crate::support::{Deployment, Image, Registry, Run};

/// An HTTPS proxy that leads every connection to one server, whatever host was asked for.
fn leading_to(server: SocketAddr) -> Listener {
    Listener::start(move |client| drop(tunnel(client, server)))
}

fn tunnel(client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let server = TcpStream::connect(server)?;
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut to_client, mut from_server) = (client, server.try_clone()?);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        to_client.shutdown(Shutdown::Both)
    });
    let _ = io::copy(&mut reader, &mut (&server));
    server.shutdown(Shutdown::Both)?;
    drop(back.join());
    Ok(())
}

/// A registry that answers as `public.ecr.aws`, with the proxy that leads there.
struct Public {
    registry: Registry,
    proxy: Listener,
}

impl Public {
    fn start() -> Self {
        let registry = Registry::builder().tls().start();
        let proxy = leading_to(registry.address());
        Self { registry, proxy }
    }

    fn deployment(&self, names: &[&str]) -> Deployment {
        let deployment = Deployment::new("ecr");
        let mut text = "schema_version: '1.1'\nservices:\n".to_owned();
        for name in names {
            text += &format!(
                "  {name}:\n    image: public.ecr.aws/{}/{name}\n",
                self.registry.namespace()
            );
        }
        deployment.write("version-manifest.yaml", &text);
        deployment
    }

    fn reached(&self, run: Run) -> Run {
        run.env("HTTPS_PROXY", format!("http://{}", self.proxy.address()))
            .env("SSL_CERT_FILE", self.registry.ca_file().display().to_string())
    }
}

fn with_aws(run: Run, stub: &EcrPublicStub) -> Run {
    CREDENTIALS
        .iter()
        .fold(run, |run, (name, value)| run.env(name, *value))
        .env("AWS_ENDPOINT_URL_ECR_PUBLIC", stub.endpoint())
}

#[test]
fn the_ecr_public_api_spares_the_list_of_tags() {
    let public = Public::start();
    let pushed = public.registry.push(Image::new("web").tag("1.42.3").tag("1.42").tag("latest"));
    let stub = EcrPublicStub::start(2);
    for number in 0..5 {
        stub.image("web", &format!("sha256:{number:064}"), &[&format!("1.{number}")]);
    }
    stub.image("web", &pushed.digest, &["latest", "1.42", "1.42.3"]);
    let deployment = public.deployment(&["web"]);
    let json =
        with_aws(public.reached(deployment.dkv(["check-updates", "--json"])), &stub).exit(0).json();
    assert_eq!(json["services"][0]["available_version"], "1.42.3");
    assert_eq!(json["services"][0]["evidence"], "ecr-public-api");
    assert_eq!(stub.requests().len(), 3, "all pages");
    assert!(!public.registry.access_log().contains("/tags/list"));
}

#[test]
fn a_refusal_of_the_api_falls_through_once_for_the_alias() {
    let public = Public::start();
    public.registry.push(Image::new("web").tag("1.42").tag("latest"));
    public.registry.push(Image::new("bot").tag("2.0").tag("latest"));
    for (code, message) in [
        ("AccessDeniedException", "not authorized"),
        ("ThrottlingException", "Rate exceeded"),
        ("RepositoryNotFoundException", "none"),
    ] {
        let stub = EcrPublicStub::start(10);
        stub.refuse(code, message, 100);
        let deployment = public.deployment(&["web", "bot"]);
        let outcome =
            with_aws(public.reached(deployment.dkv(["pull-latest", "--no-pull", "-v"])), &stub)
                .exit(0);
        outcome.stdout_contains("1.42").stdout_contains("2.0");
        outcome
            .stderr_contains(code)
            .stderr_contains("asking the registry itself")
            .stderr_lacks("dkv-test-secret");
        assert_eq!(stub.requests().len(), 1, "{code}");
        let quiet = public.deployment(&["web"]);
        let outcome =
            with_aws(public.reached(quiet.dkv(["pull-latest", "--no-pull"])), &stub).exit(0);
        outcome.stderr_lacks(code);
    }
}

#[test]
fn an_answer_without_our_digest_falls_through() {
    let public = Public::start();
    public.registry.push(Image::new("web").tag("1.42").tag("latest"));
    let stub = EcrPublicStub::start(10);
    stub.image("web", &format!("sha256:{:064}", 1), &["latest", "9.9"]);
    let deployment = public.deployment(&["web"]);
    let outcome =
        with_aws(public.reached(deployment.dkv(["pull-latest", "--no-pull", "-v"])), &stub).exit(0);
    outcome
        .stdout_contains("1.42")
        .stdout_lacks("9.9")
        .stderr_contains("asking the registry itself");
}

#[test]
fn without_aws_credentials_no_aws_address_is_ever_asked() {
    let public = Public::start();
    public.registry.push(Image::new("web").tag("1.42").tag("latest"));
    let stub = EcrPublicStub::start(10);
    let deployment = public.deployment(&["web"]);
    let run = public.reached(deployment.dkv(["pull-latest", "--no-pull", "-v"]));
    let run = run.env("AWS_ENDPOINT_URL_ECR_PUBLIC", stub.endpoint());
    let outcome = run.under_strace(["-f", "-e", "trace=connect,sendto"]).exit(0);
    outcome.stdout_contains("1.42");
    assert!(outcome.strace.contains("127.0.0.1"), "{}", outcome.strace);
    assert!(!outcome.strace.contains("169.254."), "{}", outcome.strace);
    assert!(stub.requests().is_empty());

    // Nor when the registry cannot be reached.
    let nobody = format!("http://{}", free_address());
    let run = deployment.dkv(["check-updates"]).env("HTTPS_PROXY", nobody).under_strace([
        "-f",
        "-e",
        "trace=connect,sendto",
    ]);
    assert!(!run.exit(5).strace.contains("169.254."));
}

const PRIVATE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";

fn private_deployment() -> Deployment {
    let deployment = Deployment::new("ecr");
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\necr: {{registry: public.ecr.aws, repository_alias: a, \
            use_private: true, private_registry: {PRIVATE}, private_region: \
            us-east-1}}\nservices:\n  web:\n    current_tag: '1.42'\n"
        ),
    );
    deployment
}

#[test]
fn ecr_login_says_until_when_and_hands_docker_the_password_through_stdin() {
    let moto = Moto::start();
    let deployment = private_deployment();
    let aws = |run: Run| {
        CREDENTIALS
            .iter()
            .fold(run, |run, (name, value)| run.env(name, *value))
            .env("AWS_ENDPOINT_URL_ECR", moto.endpoint())
    };
    let json = aws(deployment.dkv(["ecr-login", "--json"])).exit(0).json();
    assert_eq!(json["registry"], PRIVATE);
    assert!(json["expires_at"].as_str().is_some_and(|end| end.ends_with('Z')), "{json}");
    aws(deployment.dkv(["ecr-login"]))
        .exit(0)
        .stdout_contains(&format!("Login to {PRIVATE} works, until "));

    let seen = deployment.path("seen");
    let script = format!("#!/bin/sh\necho \"$@\" >'{0}'\ncat >>'{0}'\n", seen.display());
    deployment.install("docker", &script);
    let outcome = aws(deployment.dkv(["ecr-login", "--docker", "-vv"])).exit(0);
    let text = deployment.read("seen");
    let (arguments, password) = text.split_once('\n').unwrap();
    assert_eq!(arguments, format!("login --username AWS --password-stdin {PRIVATE}"));
    assert!(!password.is_empty());
    outcome.stdout_lacks(password).stderr_lacks(password);
    assert!(!deployment.docker_config_file().exists());
    deployment.install("docker", "#!/bin/sh\ncat >/dev/null\necho 'cannot save' >&2\nexit 1\n");
    aws(deployment.dkv(["ecr-login", "--docker"])).exit(6).stderr_contains("cannot save");
}

#[test]
fn ecr_login_without_anything_to_log_in_to_says_so() {
    let deployment = Deployment::new("ecr");
    deployment
        .write("version-manifest.yaml", &crate::resolution::manifest("public.ecr.aws/a/web", &[]));
    deployment.dkv(["ecr-login"]).exit(0).stdout_contains("needs no login");

    let refused = private_deployment();
    let nobody = format!("http://{}", free_address());
    let run = CREDENTIALS
        .iter()
        .fold(refused.dkv(["ecr-login"]), |run, (name, value)| run.env(name, *value));
    run.env("AWS_ENDPOINT_URL_ECR", nobody)
        .exit(5)
        .stderr_contains(PRIVATE)
        .stderr_lacks("dkv-test-secret");
}

/// moto's login for the registry, which takes no other; and its list of the tags of a digest.
#[test]
fn private_ecr_is_logged_in_to_and_asked_for_the_version() {
    let moto = Moto::start();
    let registry = Registry::builder().tls().htpasswd("AWS", "123456789012-auth-token").start();
    let pushed = registry.push(Image::new("web").tag("1.42.3").tag("latest"));
    let repository = format!("{}/web", registry.namespace());
    moto.create_repository(&repository);
    let manifest = registry.manifest("web", "latest").unwrap().text();
    for tag in ["latest", "1.42.3"] {
        let input = json!({"repositoryName": repository, "imageTag": tag, "imageManifest": manifest, "imageDigest": pushed.digest});
        let output = moto.call("PutImage", &input);
        assert_eq!(output["image"]["imageId"]["imageDigest"], pushed.digest);
    }
    let proxy = leading_to(registry.address());
    let deployment = private_deployment();
    let text = deployment.manifest().replace(
        "web:\n",
        &format!("web:\n    image: {PRIVATE}/{repository}\n    version_pattern: '1.*'\n"),
    );
    deployment.write("version-manifest.yaml", &text);
    let run = CREDENTIALS
        .iter()
        .fold(deployment.dkv(["check-updates", "--json", "-vv"]), |run, (name, value)| {
            run.env(name, *value)
        });
    let outcome = run
        .env("AWS_ENDPOINT_URL_ECR", moto.endpoint())
        .env("HTTPS_PROXY", format!("http://{}", proxy.address()))
        .env("SSL_CERT_FILE", registry.ca_file().display().to_string())
        .exit(0);
    let one = outcome.json()["services"][0].clone();
    assert_eq!(
        (&one["available_version"], &one["evidence"]),
        (&"1.42.3".into(), &"ecr-private-api".into()),
        "{outcome}"
    );
    outcome.stdout_lacks("auth-token").stderr_lacks("auth-token").stderr_lacks("dkv-test-secret");
}
