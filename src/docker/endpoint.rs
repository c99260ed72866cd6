//! Which daemon, chosen as the `docker` command chooses it, so that dkv and Compose always talk to
//! the same one.
//!
//! The files of a context are laid out as docker/cli's `cli/context/store` documents: metadata
//! under `contexts/meta/<id>/meta.json`, TLS material under `contexts/tls/<id>/docker/`, where the
//! id is the SHA-256 of the context's name.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::failure::display_safe;
use crate::error;
use crate::model::reference::Digest;
use crate::store::{self, Kind, look};

/// Where the daemon listens when nobody says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// What the environment says about the daemon. An empty text counts as absent, as it does for
/// `docker`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `DOCKER_HOST`: an address; beats every context.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`: a context's name; beats the configuration's current context.
    pub context: Option<String>,
    /// `DOCKER_TLS_VERIFY`: anything at all turns TLS on for `DOCKER_HOST`.
    pub tls_verify: Option<String>,
    /// `DOCKER_CERT_PATH`: where `ca.pem`, `cert.pem` and `key.pem` are, if not in the
    /// configuration directory.
    pub cert_path: Option<PathBuf>,
    /// `DOCKER_API_VERSION`: speaks this version instead of agreeing on one.
    pub api_version: Option<String>,
    /// The Docker configuration directory: `DOCKER_CONFIG`, else `~/.docker`.
    pub config_dir: PathBuf,
}

/// How the user chose the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChosenBy {
    /// Not at all.
    Default,
    /// With `DOCKER_HOST`.
    HostVariable,
    /// With `DOCKER_CONTEXT`; the context's name.
    ContextVariable(String),
    /// With `docker context use`; the context's name.
    CurrentContext(String),
}

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) target: Address,
    pub(super) source: ChosenBy,
    pub(super) api_version: Option<ApiVersion>,
}

/// How a daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host and port, with TLS if there are certificates for it.
    Tcp { host: String, port: u16, tls: Option<TlsFiles> },
    /// A daemon at the other end of `ssh`; the socket there, if it is not the default one.
    Ssh { user: Option<String>, host: String, port: Option<u16>, socket: Option<String> },
}

/// Where the TLS material is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) ca: PathBuf,
    /// Certificate and key by which the daemon knows its user, if it wants that.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// A version of the Engine API, such as 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion {
    pub(super) major: u16,
    pub(super) minor: u16,
}

/// The oldest version that says everything that is asked here: Docker 19.03's.
pub(super) const OLDEST: ApiVersion = ApiVersion { major: 1, minor: 40 };

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl ApiVersion {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port, .. } => write!(f, "tcp://{}", authority(host, *port)),
            Address::Ssh { user, host, port, socket } => {
                f.write_str("ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                f.write_str(host)?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Host and port as they stand in an address and in a `Host` header.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::HostVariable => f.write_str("DOCKER_HOST"),
            Self::ContextVariable(name) => {
                write!(f, "the Docker context `{name}` (DOCKER_CONTEXT)")
            }
            Self::CurrentContext(name) => {
                write!(f, "the Docker context `{name}` (`docker context use`)")
            }
        }
    }
}

impl Endpoint {
    /// Whether the daemon runs on this machine, so that its paths are ours.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.target, Address::Unix(_))
    }

    /// The daemon that the `docker` command would talk to: `DOCKER_HOST`, else `DOCKER_CONTEXT`,
    /// else the current context, else the default socket.
    ///
    /// # Errors
    /// Kind Docker: a malformed or unsupported address, an unknown context, a bad API version; each
    /// names the variable or context.
    pub fn resolve(settings: &Settings) -> Result<Self> {
        let api_version = present(settings.api_version.as_ref()).map(fixed_version).transpose()?;
        if let Some(address) = present(settings.host.as_ref()) {
            let source = ChosenBy::HostVariable;
            let tls = present(settings.tls_verify.as_ref()).map(|_| {
                let directory =
                    settings.cert_path.as_deref().filter(|path| !path.as_os_str().is_empty());
                TlsFiles::in_directory(directory.unwrap_or(&settings.config_dir))
            });
            let tls = tls.transpose()?;
            return Ok(Self { target: parse_address(address, tls, &source)?, source, api_version });
        }
        let source = match present(settings.context.as_ref()) {
            Some(name) => ChosenBy::ContextVariable(name.to_owned()),
            None => match current_context(&settings.config_dir) {
                Some(name) => ChosenBy::CurrentContext(name),
                None => ChosenBy::Default,
            },
        };
        let target = match &source {
            ChosenBy::ContextVariable(name) | ChosenBy::CurrentContext(name)
                if name != "default" =>
            {
                context_target(&settings.config_dir, name, &source)?
            }
            _ => {
                return Ok(Self {
                    target: Address::Unix(DEFAULT_SOCKET.into()),
                    source: ChosenBy::Default,
                    api_version,
                });
            }
        };
        Ok(Self { target, source, api_version })
    }
}

impl TlsFiles {
    /// The files under the names that `docker` gives them. A client certificate is optional.
    fn in_directory(directory: &Path) -> Result<Self> {
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let is_there = look(&certificate)?.is_some() || look(&key)?.is_some();
        let client = is_there.then_some((certificate, key));
        let ca = directory.join("ca.pem");
        for file in client.iter().flat_map(|(one, other)| [one, other]).chain([&ca]) {
            store::check(file)?;
        }
        Ok(Self { ca, client })
    }
}

/// The variable's text, if it has any.
fn present(variable: Option<&String>) -> Option<&str> {
    variable.map(String::as_str).filter(|text| !text.is_empty())
}

fn fixed_version(text: &str) -> Result<ApiVersion> {
    let version = ApiVersion::parse(text.trim_start_matches('v'));
    let why = match version {
        Some(version) if version >= OLDEST => return Ok(version),
        Some(_) => format!("older than {OLDEST}, the oldest that dkv can work with"),
        None => "no API version".to_owned(),
    };
    let message = format!("DOCKER_API_VERSION is `{}`, which is {why}", display_safe(text));
    Err(error::docker(message).with_hint("unset it, or write a version such as 1.41").into())
}

/// The context that `docker context use` chose. A configuration that cannot be read chooses none,
/// as for `docker`, with a warning.
fn current_context(config_dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default, rename = "currentContext")]
        current_context: String,
    }
    let path = config_dir.join("config.json");
    let parsed = match store::read(&path) {
        Ok(Some(found)) => serde_json::from_slice::<Config>(&found.bytes).map_err(Into::into),
        Ok(None) => return None,
        Err(error) => Err(error),
    };
    match parsed {
        Ok(config) => Some(config.current_context).filter(|name| !name.is_empty()),
        Err(error) => {
            tracing::warn!(
                "{} is ignored when choosing the Docker daemon: {error}",
                path.display()
            );
            None
        }
    }
}

/// Where a context points.
fn context_target(config_dir: &Path, name: &str, source: &ChosenBy) -> Result<Address> {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(rename = "Endpoints")]
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: DockerEndpoint,
    }
    #[derive(Deserialize)]
    struct DockerEndpoint {
        #[serde(rename = "Host")]
        host: String,
        #[serde(default, rename = "SkipTLSVerify")]
        skip_tls_verify: bool,
    }

    let id = Digest::of(name.as_bytes());
    let path = config_dir.join("contexts/meta").join(id.hex()).join("meta.json");
    let failed = |why: String| {
        error::docker(format!("{source} {why}")).with_hint(
            "list the contexts with `docker context ls`, choose one with `docker context use`",
        )
    };
    let found = store::read(&path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let found = found.ok_or_else(|| failed("does not exist".to_owned()))?;
    let metadata: Metadata = serde_json::from_slice(&found.bytes)
        .map_err(|error| failed(format!("cannot be read: {}: {error}", path.display())))?;
    let DockerEndpoint { host, skip_tls_verify } = metadata.endpoints.docker;
    if skip_tls_verify {
        let message = "skips the verification of certificates, which dkv does not";
        return Err(error::docker(format!("{source} {message}"))
            .with_hint(
                "give the context a certificate authority: `docker context update --docker \
                host=…,ca=…`",
            )
            .into());
    }
    let directory = config_dir.join("contexts/tls").join(id.hex()).join("docker");
    let tls = match look(&directory)? {
        Some(Kind::Directory) => Some(TlsFiles::in_directory(&directory)?),
        _ => None,
    };
    parse_address(&host, tls, source)
}

/// An address in the forms that `docker` reads: `unix://path`, `tcp://host:port` (the scheme may be
/// left out), `ssh://user@host:port`.
fn parse_address(address: &str, tls: Option<TlsFiles>, source: &ChosenBy) -> Result<Address> {
    target_of(address, tls).map_err(|why| {
        let address = display_safe(address);
        error::docker(format!("{source} names the Docker daemon `{address}`: {why}"))
            .with_hint(format!(
                "correct {source}: it takes unix:///path/to/docker.sock, tcp://host:port or \
                ssh://user@host"
            ))
            .into()
    })
}

/// As [`parse_address`]; the error is what is wrong with it.
fn target_of(address: &str, tls: Option<TlsFiles>) -> Result<Address, &'static str> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
    match scheme {
        "unix" if rest.is_empty() => Err("the socket's path is missing"),
        "unix" => Ok(Address::Unix(rest.into())),
        "tcp" | "ssh" => {
            let (authority, path) = match rest.split_once('/') {
                Some((authority, path)) if !path.is_empty() => {
                    (authority, Some(format!("/{path}")))
                }
                Some((authority, _)) => (authority, None),
                None => (rest, None),
            };
            let (user, place) = match authority.rsplit_once('@') {
                Some((user, place)) => (Some(user.to_owned()), place),
                None => (None, authority),
            };
            let (host, port) = host_and_port(place).ok_or("it has no proper host and port")?;
            if scheme == "ssh" {
                return Ok(Address::Ssh { user, host, port, socket: path });
            }
            if user.is_some() || path.is_some() {
                return Err("only a host and a port may follow tcp://");
            }
            let port = port.unwrap_or(if tls.is_some() { 2376 } else { 2375 });
            Ok(Address::Tcp { host, port, tls })
        }
        "npipe" => Err("named pipes exist on Windows only"),
        _ => Err("this kind of address is not supported"),
    }
}

/// A host, without the brackets of an IPv6 address, and a port. Nothing that a command line could
/// take for an option.
fn host_and_port(place: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, rest)) => (address, Some(rest.strip_prefix(':')?)),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let proper = !host.is_empty()
        && !host.starts_with('-')
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'));
    let port = port.map(str::parse).transpose().ok()?;
    proper.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path) -> Settings {
        Settings { config_dir: directory.to_owned(), ..Settings::default() }
    }

    /// Writes a context as `docker context create` lays it out.
    fn add_context(directory: &Path, name: &str, metadata: &str) -> PathBuf {
        let id = Digest::of(name.as_bytes());
        let meta = directory.join("contexts/meta").join(id.hex());
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(meta.join("meta.json"), metadata).unwrap();
        directory.join("contexts/tls").join(id.hex()).join("docker")
    }

    fn unix_context(name: &str) -> String {
        format!(
            r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"unix:///run/{name}.sock","SkipTLSVerify":false}}}}}}"#
        )
    }

    fn chosen(settings: &Settings) -> (String, ChosenBy) {
        let endpoint = Endpoint::resolve(settings).unwrap();
        (endpoint.to_string(), endpoint.source)
    }

    fn refused(settings: &Settings) -> String {
        let error = Endpoint::resolve(settings).unwrap_err();
        assert_eq!(error::kind(&error), error::Kind::Docker);
        assert!(error::find(&error).unwrap().hint().is_some(), "{error}");
        error.to_string()
    }

    #[test]
    fn the_variable_beats_contexts_and_contexts_beat_the_default() {
        let home = tempfile::tempdir().unwrap();
        let mut settings = settings(home.path());
        assert_eq!(
            chosen(&settings),
            ("unix:///var/run/docker.sock".to_owned(), ChosenBy::Default)
        );

        add_context(home.path(), "first", &unix_context("first"));
        add_context(home.path(), "second", &unix_context("second"));
        std::fs::write(home.path().join("config.json"), r#"{"auths":{},"currentContext":"first"}"#)
            .unwrap();
        assert_eq!(
            chosen(&settings),
            ("unix:///run/first.sock".to_owned(), ChosenBy::CurrentContext("first".to_owned()))
        );

        settings.context = Some("second".to_owned());
        assert_eq!(
            chosen(&settings),
            ("unix:///run/second.sock".to_owned(), ChosenBy::ContextVariable("second".to_owned()))
        );

        settings.context = Some("default".to_owned());
        assert_eq!(chosen(&settings).0, "unix:///var/run/docker.sock");

        settings.context = Some("second".to_owned());
        settings.host = Some("tcp://10.0.0.1".to_owned());
        assert_eq!(chosen(&settings), ("tcp://10.0.0.1:2375".to_owned(), ChosenBy::HostVariable));

        settings.host = Some(String::new());
        assert_eq!(chosen(&settings).0, "unix:///run/second.sock");
    }

    #[test]
    fn contexts_that_cannot_be_used_are_named() {
        let home = tempfile::tempdir().unwrap();
        let context =
            |name: &str| Settings { context: Some(name.to_owned()), ..settings(home.path()) };
        assert!(refused(&context("nowhere")).contains("`nowhere` (DOCKER_CONTEXT) does not exist"));

        add_context(home.path(), "broken", "{");
        assert!(refused(&context("broken")).contains("`broken`"));

        add_context(
            home.path(),
            "lax",
            r#"{"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":true}}}"#,
        );
        assert!(refused(&context("lax")).contains("skips the verification"));

        std::fs::write(home.path().join("config.json"), r#"{"currentContext":"gone"}"#).unwrap();
        assert!(
            refused(&settings(home.path()))
                .contains("`gone` (`docker context use`) does not exist")
        );

        std::fs::write(home.path().join("config.json"), "{").unwrap();
        assert_eq!(chosen(&settings(home.path())).1, ChosenBy::Default, "as docker does");
    }

    #[test]
    fn tls_is_used_where_it_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let tls = add_context(
            home.path(),
            "remote",
            r#"{"Endpoints":{"docker":{"Host":"tcp://remote:2376"}}}"#,
        );
        std::fs::create_dir_all(&tls).unwrap();
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(tls.join(file), "").unwrap();
        }
        let remote = Endpoint::resolve(&Settings {
            context: Some("remote".to_owned()),
            ..settings(home.path())
        })
        .unwrap();
        let expected = TlsFiles {
            ca: tls.join("ca.pem"),
            client: Some((tls.join("cert.pem"), tls.join("key.pem"))),
        };
        assert_eq!(
            remote.target,
            Address::Tcp { host: "remote".to_owned(), port: 2376, tls: Some(expected) }
        );

        let variable = Settings {
            host: Some("tcp://h".to_owned()),
            tls_verify: Some("1".to_owned()),
            cert_path: Some("/certs".into()),
            ..settings(home.path())
        };
        let tls = Some(TlsFiles { ca: "/certs/ca.pem".into(), client: None });
        assert_eq!(
            Endpoint::resolve(&variable).unwrap().target,
            Address::Tcp { host: "h".to_owned(), port: 2376, tls }
        );
    }

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let read = |address: &str| {
            let settings = Settings { host: Some(address.to_owned()), ..Settings::default() };
            Endpoint::resolve(&settings).map(|endpoint| endpoint.to_string())
        };
        for (address, meaning) in [
            ("unix:///run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock"),
            ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://[::1]:99/", "tcp://[::1]:99"),
            ("ssh://ada@host:22/run/docker.sock", "ssh://ada@host:22/run/docker.sock"),
            ("ssh://host", "ssh://host"),
        ] {
            assert_eq!(read(address).unwrap(), meaning);
        }
        for bad in [
            "unix://",
            "tcp://",
            "tcp://h:x",
            "tcp://h:70000",
            "tcp://h/p",
            "tcp://u@h",
            "npipe:////./pipe/x",
            "fd://",
            "gopher://h",
            "ssh://-oProxyCommand=x",
            "ssh://h h",
        ] {
            let settings = Settings { host: Some(bad.to_owned()), ..Settings::default() };
            let message = refused(&settings);
            assert!(message.contains("DOCKER_HOST") && message.contains(bad), "{message}");
        }
    }

    #[test]
    fn a_fixed_api_version_must_be_one() {
        let fixed =
            |text: &str| Settings { api_version: Some(text.to_owned()), ..Settings::default() };
        for text in ["1.41", "v1.41"] {
            assert_eq!(
                Endpoint::resolve(&fixed(text)).unwrap().api_version,
                Some(ApiVersion { major: 1, minor: 41 })
            );
        }
        for text in ["latest", "1.39", "0.99"] {
            assert!(refused(&fixed(text)).contains("DOCKER_API_VERSION"), "{text}");
        }
    }
}
