//! Names of the image world: repositories, tags, digests, references and platforms.
//!
//! The grammar is that of the distribution project's `reference` package, written by hand because
//! the crates that know it compile large regular expressions on first use or accept non-ASCII tags.
//! A value of one of these types is well-formed by construction: nothing that a shell, a YAML
//! document or a header could misread ever gets into one.

use std::fmt;
use std::str::FromStr;

/// The registry host that an image name without a host means.
pub const DOCKER_HUB: &str = "docker.io";

/// Why a text is not the name it was taken for. Displays as a sentence fragment without the text's
/// position; callers add file, line or service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a valid {what}: {why}", printable(.text))]
pub struct InvalidName {
    what: &'static str,
    text: String,
    why: &'static str,
}

/// The text with control characters escaped and cut to a length that fits a message.
fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 {
        shown.push('…');
    }
    shown
}

fn invalid(what: &'static str, text: &str, why: &'static str) -> InvalidName {
    InvalidName { what, text: text.to_owned(), why }
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}` (OCI distribution specification 1.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let Some(first) = text.bytes().next() else {
            return Err(invalid("tag", text, "it is empty"));
        };
        if text.len() > 128 {
            return Err(invalid("tag", text, "it is longer than 128 characters"));
        }
        if !(first.is_ascii_alphanumeric() || first == b'_') {
            return Err(invalid("tag", text, "it must begin with a letter, a digit or `_`"));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            return Err(invalid(
                "tag",
                text,
                "only letters, digits, `_`, `.` and `-` may stand in a tag",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A content digest: `sha256:` and 64 lower-case hexadecimal digits. Also the form of an image ID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The digest with its algorithm, `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 hexadecimal digits: what people read and keep-tags carry.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        use std::fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in sha2::Sha256::digest(bytes) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// Everything in a text that could be a digest, with or without its algorithm.
    pub fn all_in(text: &[u8]) -> impl Iterator<Item = Self> {
        let words = text.split(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let digits = words.filter(|word| word.len() == 64).map(String::from_utf8_lossy);
        digits.map(|digits| Self(format!("sha256:{digits}")))
    }
}

impl FromStr for Digest {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(invalid("digest", text, "it must begin with `sha256:`"));
        };
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid(
                "digest",
                text,
                "`sha256:` must be followed by 64 lower-case hexadecimal digits",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An image repository: registry host and path.
///
/// Two repositories are equal if they are the same place, however they were written: `nginx`,
/// `library/nginx` and `docker.io/library/nginx` are one.
#[derive(Debug, Clone)]
pub struct Repository {
    host: String,
    path: String,
    written: String,
}

impl Repository {
    /// The canonical host, with its port if it has one: `docker.io`, `public.ecr.aws`,
    /// `127.0.0.1:5000`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path inside the registry: `library/nginx`, `n5k3t9x2/req_router`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name as the user wrote it, which is also what Compose files and the daemon show.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// The last part of the path: `req_router` of `n5k3t9x2/req_router`.
    #[must_use]
    pub fn base_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// `repository:tag` in the user's spelling.
    #[must_use]
    pub fn with_tag(&self, tag: &Tag) -> String {
        format!("{}:{tag}", self.written)
    }

    /// `repository@digest` in the user's spelling.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.written)
    }

    /// The host that registry requests go to; Docker Hub's API does not live at its name.
    #[must_use]
    pub fn api_host(&self) -> &str {
        if self.host == DOCKER_HUB { "registry-1.docker.io" } else { &self.host }
    }

    /// The same repository as a mirror at `host` has it, in the same spelling.
    #[must_use]
    pub fn through(&self, host: &str) -> Self {
        Self { host: host.to_owned(), path: self.path.clone(), written: self.written.clone() }
    }

    /// Whether it is on Docker Hub.
    #[must_use]
    pub fn is_docker_hub(&self) -> bool {
        self.host == DOCKER_HUB
    }

    /// Whether the host is a loopback address, the only place where plain HTTP is acceptable.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }
}

/// Whether `host` (with or without a port) is `localhost`, in `127.0.0.0/8`, or `::1`.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    bare == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl PartialEq for Repository {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path
    }
}
impl Eq for Repository {}
impl std::hash::Hash for Repository {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.path.hash(state);
    }
}
impl PartialOrd for Repository {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Repository {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.host, &self.path).cmp(&(&other.host, &other.path))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.written)
    }
}

impl FromStr for Repository {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const WHAT: &str = "image name";
        if text.is_empty() {
            return Err(invalid(WHAT, text, "it is empty"));
        }
        if text.len() > 255 {
            return Err(invalid(WHAT, text, "it is longer than 255 characters"));
        }
        // The first part is a host if it could not be a path component: it has a dot or a port, is
        // `localhost`, or has upper case (distribution's `splitDockerDomain`).
        let (host, path) = match text.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, rest.to_owned())
            }
            Some(_) => (DOCKER_HUB, text.to_owned()),
            None => (DOCKER_HUB, format!("library/{text}")),
        };
        if !is_host(host) {
            return Err(invalid(
                WHAT,
                text,
                "the part before the first `/` is not a registry host",
            ));
        }
        let host = match host {
            "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB,
            other => other,
        };
        let path = if host == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if !path.split('/').all(is_path_component) {
            return Err(invalid(
                WHAT,
                text,
                "each part must be lower-case letters and digits, separated by single `.`, `_`, \
                    `__` or dashes",
            ));
        }
        Ok(Self { host: host.to_owned(), path, written: text.to_owned() })
    }
}

/// A registry host: dot-separated labels or a bracketed IPv6 address, and an optional port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("ipv6", rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
        }
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let port_is_fine = port
        .is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()));
    let name_is_fine = name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    port_is_fine && name_is_fine
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    fn is_word(byte: &u8) -> bool {
        byte.is_ascii_lowercase() || byte.is_ascii_digit()
    }
    if !bytes.first().is_some_and(is_word) || !bytes.last().is_some_and(is_word) {
        return false;
    }
    bytes.split(is_word).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

/// A repository with a tag, a digest, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the image lives.
    pub repository: Repository,
    /// The tag, if one is written.
    pub tag: Option<Tag>,
    /// The digest, if one is written.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon behind the last slash separates the tag; one before it belongs to the host's
        // port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag.parse()?)),
            None => (rest, None),
        };
        Ok(Self { repository: name.parse()?, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository.as_written())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The key of a service in the manifest: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`, so that it can stand
/// in a variable name, a table and a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

impl ServiceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.parse::<Tag>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(InvalidName {
                what: "service name",
                text: text.to_owned(),
                why: match error.why {
                    "only letters, digits, `_`, `.` and `-` may stand in a tag" => {
                        "only letters, digits, `_`, `.` and `-` may stand in a service name"
                    }
                    other => other,
                },
            }),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an image runs on, as image indexes name it: `linux`, `arm64`, `v8`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v7`, `v8`, …, where the architecture has variants.
    pub variant: Option<String>,
}

impl Platform {
    /// The Linux platform that this program was built for: the host's, as far as can be told
    /// without asking a daemon.
    #[must_use]
    pub fn of_this_program() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// The platform by the names that containerd has for it: `aarch64` is `arm64`, as is its `v8`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let variant = self
            .variant
            .as_deref()
            .map(str::to_ascii_lowercase)
            .filter(|variant| !variant.is_empty());
        let architecture = self.architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", other) => ("amd64", other),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", other) => ("arm64", other),
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386", None),
            ("armhf" | "armv7l" | "armv7", _) | ("arm", None | Some("" | "7")) => {
                ("arm", Some("v7"))
            }
            ("armel" | "armv6l", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (other, variant) => (other, variant),
        };
        Self {
            os: self.os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

/// Reads what Compose files say under `platform`, as containerd does: an operating system or an
/// architecture alone means the host's other half, which is Linux and this program's.
impl FromStr for Platform {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bad = |why| invalid("platform", text, why);
        let is_word = |part: &str| {
            let mut bytes = part.bytes();
            bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        let host = Self::of_this_program();
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || !is_word(part)) {
            return Err(bad("it is written `os/architecture` or `os/architecture/variant`"));
        }
        let platform = |os: &str, architecture: &str, variant: Option<&str>| Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        };
        let read = match parts.as_slice() {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                platform(os, &host.architecture, None)
            }
            [architecture] => platform(&host.os, architecture, None),
            [os, architecture] => platform(os, architecture, None),
            [os, architecture, variant] => platform(os, architecture, Some(variant)),
            _ => return Err(bad("it has more than three parts")),
        };
        Ok(read.normalized())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

/// Serde support for the names that are their own text: serialised as strings, checked when read.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Tag, Digest, Repository, Reference, ServiceName, Platform);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_in_any_text() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let text = format!("a: {one}\nb: '[r/x@{other}]' # {}0, {}", one.hex(), &one.hex()[1..]);
        assert_eq!(Vec::from_iter(Digest::all_in(text.as_bytes())), [one, other]);
    }

    #[test]
    fn platforms_are_read_as_containerd_reads_them() {
        let host = Platform::of_this_program().architecture;
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("Linux/X86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux", &format!("linux/{host}")),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "/", "linux/", "linux/arm/v7/x", "linux/a b", "${P}"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn tags_follow_the_specification() {
        for good in ["latest", "1.40", "_x", "1.35-hotfix-customer123", "A", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", "é", ".1", "-1", "a b", "a\n", "$(x)", "a/b", "a:b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn short_names_mean_docker_hub() {
        let long: Repository = "docker.io/library/nginx".parse().unwrap();
        for short in ["nginx", "library/nginx", "docker.io/nginx", "index.docker.io/library/nginx"]
        {
            let repository: Repository = short.parse().unwrap();
            assert_eq!(repository, long, "{short}");
            assert_eq!(repository.as_written(), short);
            assert_eq!(repository.api_host(), "registry-1.docker.io");
        }
        let vault: Repository = "hashicorp/vault".parse().unwrap();
        assert_eq!(
            (vault.host(), vault.path(), vault.base_name()),
            ("docker.io", "hashicorp/vault", "vault")
        );
    }

    #[test]
    fn references_split_host_port_tag_and_digest() {
        let digest = Digest::of(b"x");
        let text = format!("127.0.0.1:5000/a/b__c:1.2@{digest}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.repository.host(), "127.0.0.1:5000");
        assert_eq!(reference.repository.path(), "a/b__c");
        assert_eq!(reference.tag.as_ref().unwrap().as_str(), "1.2");
        assert_eq!(reference.digest.as_ref(), Some(&digest));
        assert_eq!(reference.to_string(), text);
        assert!(reference.repository.is_loopback());
        for bad in [
            "",
            "a//b",
            "A/b c",
            "a/B",
            "x:",
            "x@sha256:00",
            "-a",
            "a_",
            "a___b",
            "a..b",
            "h:99999/x",
            "[::1/x",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        for good in ["[::1]:5000/x", "a-b--c/d.e:1", "localhost/x", "Host/x"] {
            assert!(good.parse::<Reference>().is_ok(), "{good}");
        }
    }

    #[test]
    fn loopback_is_recognised_by_address_not_by_prefix() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000"] {
            assert!(is_loopback_host(yes), "{yes}");
        }
        for no in ["127.evil.example", "localhost.example", "10.0.0.1:5000", "[::2]:5000"] {
            assert!(!is_loopback_host(no), "{no}");
        }
    }

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(
            Digest::of(b"").as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
