//! Manifests and indexes: just as much of them as versions and platforms need.

use serde::Deserialize;

use crate::model::reference::{Digest, Platform, Tag};

/// The media types that a request for a manifest accepts, in one list: the registry answers with
/// the index where there is one, so that every host sees the same digest.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How a manifest is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ManifestName {
    /// By tag: whatever it names at the moment.
    Tag(Tag),
    /// By digest: exactly these bytes.
    Digest(Digest),
}

impl ManifestName {
    /// The tag or digest as the registry's API takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl From<Tag> for ManifestName {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for ManifestName {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

/// What a registry says about a manifest without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The digest of the manifest's bytes.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes, if the registry said.
    pub size: Option<u64>,
    /// Whether it is an index (a manifest list) of platforms.
    pub is_index: bool,
    /// The manifest itself, where the registry could not say as much without sending it.
    pub fetched: Option<Manifest>,
}

/// A manifest whose bytes were checked against its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The media type.
    pub media_type: String,
    /// The manifest as the registry stores it.
    pub bytes: Vec<u8>,
    /// What it describes.
    pub kind: ManifestKind,
    /// What it is, if it is no image nor an index of images: "a Helm chart".
    pub artifact: Option<String>,
}

/// Why a host cannot run what a manifest describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It is no image but this.
    NoImage(String),
    /// It is an image for these platforms.
    OtherPlatforms(Vec<String>),
}

/// What a manifest describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image per platform.
    Index(Vec<IndexEntry>),
    /// One image.
    Image {
        /// The configuration blob, which names the platform and the labels. Its digest is the image
        /// ID.
        config: Content,
        /// The layers, lowest first.
        layers: Vec<Content>,
    },
}

/// A blob that a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its digest.
    pub digest: Digest,
    /// Its (compressed) size in bytes.
    pub size: u64,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The digest of the entry's own manifest.
    pub digest: Digest,
    /// The platform, if the entry names one.
    pub platform: Option<Platform>,
    /// Whether the entry can be run: attestations, signatures and other artifacts cannot.
    pub is_image: bool,
}

impl Manifest {
    /// The digest of the index's entry that the daemon of a `wanted` host would run; `None` if
    /// there is none, or if this is no index.
    #[must_use]
    pub fn platform_entry(&self, wanted: &Platform) -> Option<Digest> {
        match &self.kind {
            ManifestKind::Index(entries) => platform_entry(entries, wanted),
            ManifestKind::Image { .. } => None,
        }
    }

    /// As [`Self::platform_entry`]; `None` for one image, of which only its configuration says what
    /// it is for.
    ///
    /// # Errors
    ///
    /// Why a `wanted` host has nothing to run here.
    pub fn entry_for(&self, wanted: &Platform) -> std::result::Result<Option<Digest>, Unfit> {
        if let Some(artifact) = &self.artifact {
            return Err(Unfit::NoImage(artifact.clone()));
        }
        let ManifestKind::Index(entries) = &self.kind else { return Ok(None) };
        let entry = platform_entry(entries, wanted);
        entry.map(Some).ok_or_else(|| {
            let images = entries.iter().filter(|entry| entry.is_image);
            let named = images.map(|entry| {
                let platform = entry.platform.as_ref().map(ToString::to_string);
                platform.unwrap_or_else(|| "an image that names no platform".to_owned())
            });
            Unfit::OtherPlatforms(named.collect())
        })
    }
}

/// Whether a `host` runs images for `platform`, as the daemon sees it.
#[must_use]
pub fn runs(host: &Platform, platform: &Platform) -> bool {
    let (host, platform) = (host.normalized(), platform.normalized());
    let accepted = acceptable(&host);
    host.os == platform.os
        && (host.architecture == platform.architecture
            || accepted.contains(&(platform.architecture, platform.variant)))
}

/// The digest of the entry of an index, given by its bytes, that a `wanted` host would run.
#[must_use]
pub fn entry_for(index: &[u8], wanted: &Platform) -> Option<Digest> {
    // Kept bytes say themselves what they are.
    parse(Digest::of(index), "", index.to_vec()).ok()?.platform_entry(wanted)
}

/// Chooses as containerd's `platforms.Only` does, which is what the daemon uses: the first
/// acceptable platform in order of preference; among equals, the first entry.
fn platform_entry(entries: &[IndexEntry], wanted: &Platform) -> Option<Digest> {
    let wanted = wanted.normalized();
    let candidates: Vec<(&IndexEntry, Platform)> = entries
        .iter()
        .filter(|entry| entry.is_image)
        .filter_map(|entry| Some((entry, entry.platform.as_ref()?.normalized())))
        .filter(|(_, platform)| platform.os == wanted.os)
        .collect();
    let preferred = acceptable(&wanted)
        .into_iter()
        .find_map(|(architecture, variant)| {
            candidates.iter().find(|(_, platform)| {
                platform.architecture == architecture && platform.variant == variant
            })
        })
        // Daemons older than variants matched by architecture alone, and still do as a last resort.
        .or_else(|| {
            candidates.iter().find(|(_, platform)| platform.architecture == wanted.architecture)
        });
    preferred.map(|(entry, _)| entry.digest.clone())
}

/// The architectures and variants that a host runs, best first.
fn acceptable(host: &Platform) -> Vec<(String, Option<String>)> {
    let variant = host.variant.as_deref().unwrap_or_default();
    let digits = variant.trim_start_matches('v').split('.').next();
    let number: Option<u32> = digits.and_then(|digits| digits.parse().ok());
    let own = (host.architecture.clone(), host.variant.clone());
    match host.architecture.as_str() {
        "amd64" => {
            // Level 1 is the architecture itself, written without a variant.
            std::iter::once(own)
                .chain(down("amd64", 2..number.unwrap_or(1)))
                .chain([("amd64".to_owned(), None), ("386".to_owned(), None)])
                .collect()
        }
        "arm64" => std::iter::once(own)
            .chain([("arm64".to_owned(), None)])
            .chain(down("arm", 5..=8))
            .collect(),
        "arm" => std::iter::once(own).chain(down("arm", 5..=number.unwrap_or(7))).collect(),
        _ => vec![own],
    }
}

/// The variants of an architecture, the highest first.
fn down(
    architecture: &str,
    versions: impl DoubleEndedIterator<Item = u32>,
) -> impl Iterator<Item = (String, Option<String>)> {
    versions.rev().map(move |version| (architecture.to_owned(), Some(format!("v{version}"))))
}

/// Whether a media type means an index.
pub(super) fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// Whether a media type means an image.
pub(super) fn is_image(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
    )
}

/// Whether a media type means the format from before content digests.
pub(super) fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

/// Why images of [`is_schema_1`] are refused.
pub(super) const SCHEMA_1: &str = "it is in Docker's old format (schema 1), which has no usable \
    digest; push it again with a current Docker";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: Digest,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    platform: Option<DocumentPlatform>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct DocumentPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// The types of an image's configuration; those that are none come from old registries and tools,
/// and the daemon takes them too.
const CONFIGURATIONS: [&str; 6] = [
    "",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
];

impl Document {
    /// What it is instead of one image.
    fn artifact(&self) -> Option<String> {
        let configuration = self.config.as_ref()?.media_type.as_deref().unwrap_or_default();
        let layers = self.layers.iter().flatten();
        let mut types = layers.filter_map(|layer| layer.media_type.as_deref());
        // Signatures have the configuration of an image, but no archives.
        let other = types.find(|kind| !kind.contains("tar") && *kind != "application/octet-stream");
        let kind = match other {
            None if CONFIGURATIONS.contains(&configuration) => return None,
            Some(layer) if CONFIGURATIONS.contains(&configuration) => layer,
            _ => configuration,
        };
        let kind = match (kind, self.artifact_type.as_deref()) {
            ("application/vnd.oci.empty.v1+json", Some(kind)) => kind,
            _ => kind,
        };
        Some(match kind {
            kind if kind.contains(".helm.") => "a Helm chart".to_owned(),
            kind if kind.contains(".cosign.") => "a signature".to_owned(),
            kind if kind.contains("in-toto") => "an attestation".to_owned(),
            kind => format!("an artifact ({})", super::error::printable(kind)),
        })
    }
}

impl Descriptor {
    fn content(self) -> Content {
        Content { digest: self.digest, size: self.size }
    }

    fn entry(self) -> IndexEntry {
        let is_attestation =
            self.annotations.is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
        let is_unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        let is_manifest = self.media_type.as_deref().is_none_or(is_image);
        IndexEntry {
            digest: self.digest,
            is_image: is_manifest && self.artifact_type.is_none() && !is_attestation && !is_unknown,
            platform: self.platform.map(|platform| Platform {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant,
            }),
        }
    }
}

/// Reads a manifest whose digest is already checked. `media_type` is the `Content-Type` it came
/// with.
///
/// # Errors
/// The reason why it is no manifest that dkv can use.
pub(super) fn parse(
    digest: Digest,
    media_type: &str,
    bytes: Vec<u8>,
) -> std::result::Result<Manifest, String> {
    if is_schema_1(media_type) {
        return Err(SCHEMA_1.to_owned());
    }
    let document: Document =
        serde_json::from_slice(&bytes).map_err(|error| format!("it is no manifest ({error})"))?;
    if document.schema_version == 1 {
        return Err(SCHEMA_1.to_owned());
    }
    let is_known = is_index(media_type) || is_image(media_type);
    let media_type = match document.media_type.as_deref() {
        // One manifest must not be read in two ways.
        Some(inside) if is_known && inside != media_type => {
            return Err(format!(
                "it is served as {media_type} but calls itself {}",
                super::error::printable(inside)
            ));
        }
        Some(inside) => inside.to_owned(),
        None => media_type.to_owned(),
    };
    let artifact = document.artifact();
    let kind = match (document.manifests, document.config, document.layers) {
        (Some(manifests), None, None) if !is_image(&media_type) => {
            ManifestKind::Index(manifests.into_iter().map(Descriptor::entry).collect())
        }
        (None, Some(config), layers) if !is_index(&media_type) => ManifestKind::Image {
            config: config.content(),
            layers: layers.unwrap_or_default().into_iter().map(Descriptor::content).collect(),
        },
        _ => return Err("it is neither an image nor an index of images".to_owned()),
    };
    let artifact = match &kind {
        ManifestKind::Index(entries) if !entries.iter().any(|entry| entry.is_image) => Some(
            match entries.is_empty() {
                true => "an empty index",
                false => "an index without any image",
            }
            .to_owned(),
        ),
        ManifestKind::Index(_) => None,
        ManifestKind::Image { .. } => artifact,
    };
    Ok(Manifest { digest, media_type, bytes, kind, artifact })
}

/// The platform that an image's configuration names, if it names one.
///
/// # Errors
/// The reason why it is no configuration.
pub(super) fn platform_in(bytes: &[u8]) -> std::result::Result<Option<Platform>, String> {
    let named: DocumentPlatform =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no image ({error})"))?;
    let DocumentPlatform { os, architecture, variant } = named;
    Ok((!architecture.is_empty()).then(|| Platform {
        os: if os.is_empty() { "linux".to_owned() } else { os },
        architecture,
        variant,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    fn choose(offered: &[&str], host: &str) -> Option<String> {
        let entries: Vec<IndexEntry> = offered
            .iter()
            .map(|text| IndexEntry {
                digest: Digest::of(text.as_bytes()),
                platform: Some(platform(text)),
                is_image: true,
            })
            .collect();
        let chosen = platform_entry(&entries, &platform(host))?;
        offered.iter().find(|text| Digest::of(text.as_bytes()) == chosen).map(ToString::to_string)
    }

    #[test]
    fn the_entry_that_the_daemon_would_run_is_chosen() {
        let all = [
            "linux/arm/v6",
            "linux/386",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/amd64",
            "windows/amd64",
        ];
        for (host, chosen) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("linux/aarch64", Some("linux/arm64/v8")),
            ("linux/arm64/v8", Some("linux/arm64/v8")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/armv6l", Some("linux/arm/v6")),
            ("linux/s390x", None),
            ("windows/amd64", Some("windows/amd64")),
        ] {
            assert_eq!(choose(&all, host).as_deref(), chosen, "{host}");
        }
        assert_eq!(choose(&["linux/arm/v7"], "linux/arm64").as_deref(), Some("linux/arm/v7"));
        assert_eq!(choose(&["linux/386"], "linux/amd64").as_deref(), Some("linux/386"));
        assert_eq!(
            choose(&["linux/amd64/v3", "linux/amd64/v2"], "linux/amd64/v3").as_deref(),
            Some("linux/amd64/v3")
        );
        assert_eq!(
            choose(&["linux/amd64/v2", "linux/amd64"], "linux/amd64").as_deref(),
            Some("linux/amd64")
        );
        assert_eq!(choose(&["linux/arm64"], "linux/amd64"), None);
    }

    #[test]
    fn attestations_are_not_images() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"digest":"{a}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}},
            {{"digest":"{b}","size":1,"mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        let digest = Digest::of(text.as_bytes());
        let manifest =
            parse(digest, "application/vnd.oci.image.index.v1+json", text.into_bytes()).unwrap();
        assert_eq!(manifest.platform_entry(&platform("linux/amd64")), Some(b));
        assert_eq!(manifest.platform_entry(&platform("unknown/unknown")), None);
    }

    #[test]
    fn ambiguous_and_old_manifests_are_refused() {
        let refuse = |media_type: &str, text: &str| {
            parse(Digest::of(b""), media_type, text.as_bytes().to_vec()).unwrap_err()
        };
        let image = "application/vnd.oci.image.manifest.v1+json";
        let digest = Digest::of(b"");
        assert!(
            refuse("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}")
                .contains("schema 1")
        );
        assert!(refuse("application/json", r#"{"schemaVersion":1}"#).contains("schema 1"));
        assert!(refuse(image, "<html>").contains("no manifest"));
        assert!(refuse(image, r#"{"schemaVersion":2,"manifests":[]}"#).contains("neither"));
        assert!(
            refuse("", &format!(r#"{{"schemaVersion":2,"manifests":[],"config":{{"digest":"{digest}"}},"layers":[]}}"#))
                .contains("neither")
        );
        assert!(
            refuse(image, r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#)
                .contains("calls itself")
        );
        assert!(
            refuse(image, r#"{"schemaVersion":2,"config":{"digest":"sha256:zz"}}"#)
                .contains("no manifest")
        );
    }
}
