//! A real `docker-registry` on a loopback port: a namespace of the one that all tests share, or one
//! of the test's own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{self, Response};
use super::image::{self, Blob, Image, Pushed, digest};
use super::token::TokenServer;
use super::{Engine, TEST_LABEL, program, unique, wait_for};

const READY: Duration = Duration::from_secs(120);

/// How the registry is reached and who may use it; plain and open by default.
#[derive(Default)]
pub struct Builder {
    tls: bool,
    htpasswd: Option<(String, String)>,
    token: Option<TokenServer>,
}

impl Builder {
    /// HTTPS with a certificate of a private authority, see [`Registry::ca_file`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Basic authentication with this one user.
    pub fn htpasswd(mut self, user: &str, password: &str) -> Self {
        self.htpasswd = Some((user.into(), password.into()));
        self
    }

    /// Bearer tokens from this server.
    pub fn token_auth(mut self, server: TokenServer) -> Self {
        self.token = Some(server);
        self
    }

    pub fn start(self) -> Registry {
        let directory = super::temporary("registry");
        let path = directory.path();
        let open = json!({
            "version": "0.1",
            "log": {"accesslog": {"disabled": false}},
            "storage": {"filesystem": {"rootdirectory": path.join("data")}, "delete": {"enabled": true}, "maintenance": {"uploadpurging": {"enabled": false}}},
        });
        let mut config = open.clone();
        if let Some((user, password)) = &self.htpasswd {
            let hash = bcrypt::hash(password, 4).expect("a hash").replacen("$2b$", "$2y$", 1);
            fs::write(path.join("htpasswd"), format!("{user}:{hash}\n")).expect("a temporary file");
            config["auth"] =
                json!({"htpasswd": {"realm": "dkv tests", "path": path.join("htpasswd")}});
        }
        if let Some(token) = &self.token {
            config["auth"] = json!({"token": token.registry_settings()});
        }
        if self.tls {
            make_certificates(path);
            config["http"]["tls"] =
                json!({"certificate": path.join("server.pem"), "key": path.join("server.key")});
        }
        let front = Server::start(path, "front", config);
        // Pushes and deletions need neither login nor TLS, nor that the front is up.
        let guarded = self.tls || self.htpasswd.is_some() || self.token.is_some();
        let back = OnceLock::new();
        if guarded {
            let _ = back.set(Server::start(path, "back", open.clone()));
        }
        Registry {
            namespace: unique("registry"),
            place: Arc::new(Place {
                front,
                back,
                open,
                tls: self.tls,
                token: self.token,
                base: OnceLock::new(),
                directory,
            }),
        }
    }
}

/// A registry as a test sees it; dropping it removes the images that the daemon got from it, and
/// ends the process when no other test uses it.
pub struct Registry {
    namespace: String,
    place: Arc<Place>,
}

/// The processes behind a registry and what they store.
struct Place {
    front: Server,
    back: OnceLock<Server>,
    open: Value,
    tls: bool,
    token: Option<TokenServer>,
    /// A repository that has the layer with busybox.
    base: OnceLock<String>,
    directory: TempDir,
}

impl Registry {
    /// A namespace of the plain, open registry that all tests share. It cannot be stopped.
    pub fn start() -> Self {
        static SHARED: OnceLock<(Arc<Place>, Child)> = OnceLock::new();
        let (place, _) = SHARED.get_or_init(share);
        Self { namespace: unique("registry"), place: Arc::clone(place) }
    }

    /// A plain, open registry of the test's own.
    pub fn alone() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn address(&self) -> SocketAddr {
        self.place.front.address
    }

    /// The first component of all repositories here, unique to this value.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `host:port/namespace/name`, without tag.
    pub fn repository(&self, name: &str) -> String {
        self.repository_at(self.address(), name)
    }

    /// [`Registry::repository`] as reached through `address`, a proxy's for example.
    pub fn repository_at(&self, address: SocketAddr, name: &str) -> String {
        format!("{address}/{}/{name}", self.namespace)
    }

    /// The certificate authority of a TLS registry, for `SSL_CERT_FILE`.
    pub fn ca_file(&self) -> PathBuf {
        assert!(self.place.tls, "not a TLS registry");
        self.place.directory.path().join("ca.pem")
    }

    pub fn token_server(&self) -> Option<&TokenServer> {
        self.place.token.as_ref()
    }

    /// Pushes the image, its index and all its tags.
    pub fn push(&self, image: Image) -> Pushed {
        self.push_of(&self.namespace, image)
    }

    /// Pushes an image that goes with `owner`: the same bytes in every registry.
    pub fn push_of(&self, owner: &str, image: Image) -> Pushed {
        let built = image.build(owner);
        let repository = format!("{}/{}", self.namespace, image.repository);
        for blob in &built.blobs {
            self.push_blob(&repository, blob);
        }
        let mut platforms = Vec::new();
        for platform in &built.images {
            let manifest_digest = digest(&platform.manifest);
            self.put_manifest(
                &repository,
                &manifest_digest,
                built.manifest_type,
                &platform.manifest,
            );
            platforms.push((
                platform.architecture.clone(),
                manifest_digest,
                platform.image_id.clone(),
            ));
        }
        let (top, top_type) = match &built.index {
            Some(index) => (index, built.index_type),
            None => (&built.images[0].manifest, built.manifest_type),
        };
        self.put_manifest(&repository, &digest(top), top_type, top);
        for tag in &image.tags {
            self.put_manifest(&repository, tag, top_type, top);
        }
        Pushed { repository: self.repository(&image.repository), digest: digest(top), platforms }
    }

    /// Makes `tag` name what `digest` (or another tag) names.
    pub fn move_tag(&self, name: &str, tag: &str, digest: &str) {
        let repository = format!("{}/{name}", self.namespace);
        let manifest =
            self.manifest(name, digest).unwrap_or_else(|| panic!("{name} has no {digest}"));
        let media_type = manifest.header("Content-Type").expect("a media type").to_owned();
        self.put_manifest(&repository, tag, &media_type, &manifest.body);
    }

    /// Gives `digest` many tags at once, by writing them where the registry stores them.
    pub fn add_tags(&self, name: &str, tags: impl IntoIterator<Item = String>, digest: &str) {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let directory = self.tags_directory(name);
        for tag in tags {
            let tag = directory.join(tag);
            for link in [tag.join("current"), tag.join("index/sha256").join(hex)] {
                fs::create_dir_all(&link).expect("the registry's directory");
                fs::write(link.join("link"), digest).expect("the registry's directory");
            }
        }
    }

    /// What a tag or digest names now: the digest.
    pub fn digest_of(&self, name: &str, reference: &str) -> Option<String> {
        self.manifest(name, reference).map(|manifest| digest(&manifest.body))
    }

    /// The manifest of a tag or digest.
    pub fn manifest(&self, name: &str, reference: &str) -> Option<Response> {
        let accept = "application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.oci.image.index.v1+json";
        let target = format!("/v2/{}/{name}/manifests/{reference}", self.namespace);
        let response = self.send("GET", &target, &[("Accept", accept)], &[]);
        (response.status == 200).then_some(response)
    }

    /// Deletes a manifest with all tags that name it.
    pub fn delete(&self, name: &str, digest: &str) {
        let response = self.send(
            "DELETE",
            &format!("/v2/{}/{name}/manifests/{digest}", self.namespace),
            &[],
            &[],
        );
        assert_eq!(response.status, 202, "cannot delete {name}@{digest}: {}", response.text());
    }

    /// Removes one tag; what it names stays.
    pub fn delete_tag(&self, name: &str, tag: &str) {
        fs::remove_dir_all(self.tags_directory(name).join(tag)).expect("the tag");
    }

    fn tags_directory(&self, name: &str) -> PathBuf {
        let repositories = self.place.directory.path().join("data/docker/registry/v2/repositories");
        repositories.join(&self.namespace).join(name).join("_manifests/tags")
    }

    /// Ends the process; connections to the port are refused from now on.
    pub fn stop(&mut self) {
        self.front().stop();
    }

    /// Starts again on the same port with the same content.
    pub fn restart(&mut self) {
        self.front().stop();
        self.front().run();
    }

    fn front(&mut self) -> &mut Server {
        &mut Arc::get_mut(&mut self.place).expect("a registry of the test's own").front
    }

    /// What the front's log says about this namespace so far: one line per request among others.
    pub fn access_log(&self) -> String {
        let log = fs::read_to_string(&self.place.front.log).unwrap_or_default();
        log.lines().filter(|line| line.contains(&self.namespace)).collect::<Vec<_>>().join("\n")
    }

    /// Stores bytes that a manifest may refer to, and returns their digest.
    pub fn put_blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let blob = Blob { digest: digest.clone(), bytes: bytes.to_vec() };
        self.push_blob(&format!("{}/{name}", self.namespace), &blob);
        digest
    }

    fn push_blob(&self, repository: &str, Blob { digest, bytes }: &Blob) {
        if self.send("HEAD", &format!("/v2/{repository}/blobs/{digest}"), &[], &[]).status == 200 {
            return;
        }
        // What another repository has needs not be sent again.
        let mount = match self.place.base.get() {
            Some(base) => format!("?mount={digest}&from={base}"),
            None => String::new(),
        };
        let target = format!("/v2/{repository}/blobs/uploads/{mount}");
        let opened = self.send("POST", &target, &[], &[]);
        if opened.status == 201 {
            return;
        }
        let location = opened
            .header("Location")
            .unwrap_or_else(|| panic!("no upload: {} {}", opened.status, opened.text()));
        let path = location.splitn(4, '/').nth(3).expect("an absolute address");
        let stored = self.send(
            "PUT",
            &format!("/{path}&digest={digest}"),
            &[("Content-Type", "application/octet-stream")],
            bytes,
        );
        assert_eq!(stored.status, 201, "cannot push {digest}: {}", stored.text());
    }

    /// Stores a manifest as it is under a tag or its digest; `repository` includes the namespace.
    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
    ) {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let response = self.send("PUT", &target, &[("Content-Type", media_type)], manifest);
        assert_eq!(
            response.status,
            201,
            "cannot push {repository}:{reference}: {}",
            response.text()
        );
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let Place { front, back, open, directory, .. } = &*self.place;
        let server = if back.get().is_none() && front.child.is_some() {
            front
        } else {
            back.get_or_init(|| Server::start(directory.path(), "back", open.clone()))
        };
        http::request(server.address, method, target, headers, body).expect("the registry's answer")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        Engine::machine().remove_images_of(&self.namespace);
    }
}

/// Starts the registry that all tests share and gives the machine's daemon the layers that most
/// images are made of, so that it neither downloads nor unpacks them for each.
///
/// The child returned ends the registry and removes these images when this process has ended.
fn share() -> (Arc<Place>, Child) {
    let first = Registry::alone();
    for version in image::USUAL {
        first.push(Image::new("base").tag(version));
    }
    // Podman cannot, and does without.
    let _ = Engine::machine().try_docker(&["pull", "-q", "-a", &first.repository("base")]);
    let place = Arc::clone(&first.place);
    let _ = place.base.set(format!("{}/base", first.namespace));
    let server = place.front.child.as_ref().expect("a running registry").id();
    let script = "cat; grep -qF \"$2\" \"/proc/$1/cmdline\" && kill -KILL \"$1\"; \
        rm -rf -- \"$2\"; docker images -q --filter \"label=$3\" | xargs -r docker rmi -f";
    // In a process group of its own, where no Ctrl-C reaches it.
    let heir = Command::new("sh")
        .process_group(0)
        .args(["-c", script, "sh", &server.to_string()])
        .arg(place.directory.path())
        .arg(format!("{TEST_LABEL}={}", first.namespace))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts");
    // The image stays.
    std::mem::forget(first);
    (place, heir)
}

/// One registry process.
struct Server {
    address: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn start(directory: &Path, name: &str, config: Value) -> Self {
        let path = directory.join(format!("{name}.yml"));
        loop {
            let address = free_address();
            let mut config = config.clone();
            config["http"]["addr"] = json!(address.to_string());
            fs::write(&path, config.to_string()).expect("a temporary file");
            let mut server = Self {
                address,
                config: path.clone(),
                log: directory.join(format!("{name}.log")),
                child: None,
            };
            if server.try_run() {
                return server;
            }
            let log = fs::read_to_string(&server.log).unwrap_or_default();
            assert!(
                log.contains("address already in use"),
                "docker-registry does not start:\n{log}"
            );
        }
    }

    fn run(&mut self) {
        wait_for("the registry's port is free again", READY, || self.try_run().then_some(()));
    }

    /// Whether the process answers; `false` when it ended instead.
    fn try_run(&mut self) -> bool {
        let earlier = fs::metadata(&self.log).map_or(0, |log| log.len() as usize);
        let log =
            File::options().create(true).append(true).open(&self.log).expect("a temporary file");
        let mut child = Command::new(program("docker-registry"))
            .arg("serve")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let listening = format!("listening on {}", self.address);
        let ready = wait_for("the registry answers", READY, || {
            if child.try_wait().expect("the state of a child").is_some() {
                return Some(false);
            }
            // Whoever else owned the port would accept connections as well.
            let ours =
                fs::read_to_string(&self.log).is_ok_and(|log| log[earlier..].contains(&listening));
            (ours && TcpStream::connect(self.address).is_ok()).then_some(true)
        });
        self.child = ready.then_some(child);
        ready
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A loopback address that nobody listens on, outside the range from which outgoing connections
/// take theirs, so that a stopped server's port is not taken.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = (std::process::id() % 1000) as u16 * 11 + NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + offset % 12_000));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// `ca.pem` and, signed by it for 127.0.0.1 and localhost, `server.pem` with `server.key`.
fn make_certificates(directory: &Path) {
    let config = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=dkv tests\n\
                  [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash\n\
                  [leaf]\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost,DNS:public.ecr.aws,DNS:123456789012.dkr.ecr.us-east-1.amazonaws.com\n";
    fs::write(directory.join("openssl.cnf"), config).expect("a temporary file");
    let common = "req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
        -nodes -days 2";
    openssl(directory, &format!("{common} -extensions ca -keyout ca.key -out ca.pem"));
    openssl(
        directory,
        &format!(
            "{common} -extensions leaf -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem"
        ),
    );
}

/// Runs openssl with these words in a directory.
pub(super) fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl")
        .args(words.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
