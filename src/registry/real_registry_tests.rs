//! The client against real `docker-registry` servers, plain and with TLS.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Client, Error, ManifestKind, ManifestName, Settings};
use crate::model::reference::{Digest, Repository};

/// A running registry with a directory of its own; both end with the value.
struct Registry {
    process: Child,
    directory: tempfile::TempDir,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// A registry; with TLS if `certificate` says how to make a certificate and key in a directory.
    fn start(certificate: Option<fn(&Path)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let root = directory.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: \
                {}}}}}\nhttp:\n  addr: {host}\n",
            root.display()
        );
        if let Some(make) = certificate {
            make(directory.path());
            let path = |name: &str| directory.path().join(name).display().to_string();
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                path("server.crt"),
                path("server.key")
            ));
        }
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let registry = Self {
            process: command.spawn().expect("docker-registry must be installed"),
            directory,
            host,
        };
        for _ in 0..500 {
            if std::net::TcpStream::connect(&registry.host).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the registry does not start");
    }

    fn repository(&self) -> Repository {
        format!("{}/team/app", self.host).parse().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Pushes a manifest under `tags`, and the blob that it refers to.
    async fn push(&self, blob: &'static [u8], manifest: &str, media_type: &str, tags: &[&str]) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let base = format!("http://{}/v2/team/app", self.host);
        let upload = http.post(format!("{base}/blobs/uploads/")).send().await.unwrap();
        let location = upload.headers()["location"].to_str().unwrap().to_owned();
        let put = http
            .put(format!("{location}&digest={}", Digest::of(blob)))
            .body(blob)
            .send()
            .await
            .unwrap();
        assert_eq!(put.status(), 201);
        for tag in tags {
            let put = http
                .put(format!("{base}/manifests/{tag}"))
                .header("content-type", media_type)
                .body(manifest.to_owned());
            let answer = put.send().await.unwrap();
            assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        }
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A CA of its own (`ca.crt`) and a server certificate signed by it.
fn private_ca(directory: &Path) {
    std::fs::write(
        directory.join("extensions"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    openssl(
        directory,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
            -days 2 -subj /CN=dkv-test-ca",
    );
    openssl(
        directory,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out \
            server.csr -subj /CN=registry",
    );
    openssl(
        directory,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days \
            2 -extfile extensions",
    );
}

/// One certificate that is its own CA, as Docker's documentation has it.
fn self_signed(directory: &Path) {
    openssl(
        directory,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out \
            server.crt -days 2 -subj /CN=registry -addext subjectAltName=IP:127.0.0.1",
    );
    std::fs::copy(directory.join("server.crt"), directory.join("ca.crt")).unwrap();
}

/// The same for another name.
fn self_signed_for_another(directory: &Path) {
    openssl(
        directory,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out \
            server.crt -days 2 -subj /CN=registry -addext subjectAltName=IP:127.0.0.2",
    );
    std::fs::copy(directory.join("server.crt"), directory.join("ca.crt")).unwrap();
}

/// A self-signed certificate of years ago.
fn expired(directory: &Path) {
    let config = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nnew_certs_dir=.\nserial=serial\npolicy=any\ndefault_md=sha256\n\
        x509_extensions=more\n[any]\ncommonName=supplied\n[more]\nbasicConstraints=CA:TRUE\nsubjectAltName=IP:127.0.0.1\n";
    std::fs::write(directory.join("config"), config).unwrap();
    std::fs::write(directory.join("index"), "").unwrap();
    std::fs::write(directory.join("serial"), "01").unwrap();
    openssl(
        directory,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out \
            server.csr -subj /CN=registry",
    );
    openssl(
        directory,
        "ca -config config -batch -selfsign -in server.csr -keyfile server.key -out server.crt \
            -startdate 20200101000000Z -enddate 20200102000000Z",
    );
    std::fs::copy(directory.join("server.crt"), directory.join("ca.crt")).unwrap();
}

fn settings() -> Settings {
    Settings { registry_certificates: "/nonexistent".into(), ..Settings::default() }
}

fn tag(text: &str) -> ManifestName {
    ManifestName::Tag(text.parse().unwrap())
}

#[tokio::test]
async fn a_real_registry_is_understood() {
    let registry = Registry::start(None);
    let repository = registry.repository();
    let client = Client::new(settings());
    assert!(matches!(client.head(&repository, &tag("latest")).await, Err(Error::NotFound { .. })));
    assert!(matches!(client.tags(&repository).await, Err(Error::NotFound { .. })));

    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},"layers":[]}}"#,
        config.len(),
        Digest::of(config)
    );
    registry.push(config, &manifest, media_type, &["latest", "1.42", "1.41"]).await;

    let digest = Digest::of(manifest.as_bytes());
    let described = client.head(&repository, &tag("latest")).await.unwrap();
    assert_eq!((&described.digest, described.media_type.as_str()), (&digest, media_type));
    assert_eq!(described.size, Some(manifest.len() as u64));
    assert_eq!(client.head(&repository, &digest.clone().into()).await.unwrap().digest, digest);
    let fetched = client.manifest(&repository, &tag("1.42")).await.unwrap();
    assert_eq!((fetched.bytes.as_slice(), &fetched.digest), (manifest.as_bytes(), &digest));
    assert!(matches!(fetched.kind, ManifestKind::Image { .. }));
    let mut tags: Vec<String> =
        client.tags(&repository).await.unwrap().tags.iter().map(ToString::to_string).collect();
    tags.sort();
    assert_eq!(tags, ["1.41", "1.42", "latest"]);
}

#[tokio::test]
async fn a_registry_with_tls_on_loopback_is_recognised_and_verified() {
    for make in [private_ca as fn(&Path), self_signed] {
        let registry = Registry::start(Some(make));
        let repository = registry.repository();

        let error = Client::new(settings()).head(&repository, &tag("latest")).await.unwrap_err();
        assert!(
            matches!(error, Error::Tls { .. }) && error.hint().contains("SSL_CERT_FILE"),
            "{error:?}"
        );

        let with_file =
            Client::new(Settings { ca_file: Some(registry.path("ca.crt")), ..settings() });
        let error = with_file.head(&repository, &tag("latest")).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");

        let own = registry.path("certs.d").join(&registry.host);
        std::fs::create_dir_all(&own).unwrap();
        std::fs::copy(registry.path("ca.crt"), own.join("ca.crt")).unwrap();
        let with_directory =
            Client::new(Settings { registry_certificates: registry.path("certs.d"), ..settings() });
        let error = with_directory.head(&repository, &tag("latest")).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_named_certificate_is_no_pass_for_another_name_or_time() {
    for (make, what) in
        [(self_signed_for_another as fn(&Path), "another name"), (expired, "expired")]
    {
        let registry = Registry::start(Some(make));
        let client = Client::new(Settings { ca_file: Some(registry.path("ca.crt")), ..settings() });
        let error = client.head(&registry.repository(), &tag("latest")).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error:?}");
    }
}

#[tokio::test]
async fn another_certificate_is_no_pass_for_a_self_signed_one() {
    let (registry, other) =
        (Registry::start(Some(self_signed)), Registry::start(Some(self_signed)));
    let client = Client::new(Settings { ca_file: Some(other.path("ca.crt")), ..settings() });
    let error = client.head(&registry.repository(), &tag("latest")).await.unwrap_err();
    assert!(
        matches!(error, Error::Tls { .. }) && error.to_string().contains("does not trust"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_unusable_ca_file_is_named() {
    let registry = Registry::start(Some(private_ca));
    for (file, what) in [("extensions", "holds no CA certificate"), ("missing", "cannot read")] {
        let client = Client::new(Settings { ca_file: Some(registry.path(file)), ..settings() });
        let error = client.head(&registry.repository(), &tag("latest")).await.unwrap_err();
        assert!(error.to_string().contains(what) && error.to_string().contains(file), "{error:?}");
    }
}
