//! What shows that an image is a release: content, never a name.
//!
//! A daemon's ID is the digest of the configuration on one image store, of the manifest or the
//! index on another; what it lists as digests it may have made up itself. So the recorded digest
//! leads to the bytes that were kept, those to the configuration, and any of these is the image;
//! what was loaded where all of that is made anew is still made of the same things. Pure.
#![deny(clippy::disallowed_methods)]

use serde::Deserialize;

use crate::docker::Image;
use crate::model::history::Bytes;
use crate::model::reference::Digest;

/// By what an image shows that it is one release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// What daemons may call it.
    ids: Vec<Digest>,
    /// What it is made of.
    fingerprints: Vec<Digest>,
}

/// As much of a manifest or an index as leads on.
#[derive(Deserialize)]
struct Content {
    config: Option<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

impl Identity {
    /// By what an image shows that it has these bytes. `object` gives the bytes of a manifest and
    /// `fingerprint` what the image of an ID is made of, as far as they were kept.
    #[must_use]
    pub fn of(
        bytes: &Bytes,
        object: impl Fn(&Digest) -> Option<Vec<u8>>,
        fingerprint: impl Fn(&Digest) -> Option<Digest>,
    ) -> Self {
        let names = [&bytes.digest, &bytes.platform_digest, &bytes.image_id];
        let mut identity = Self::default();
        names.into_iter().flatten().for_each(|digest| identity.add(digest));
        // An index has the entries of several platforms; the recorded one is meant.
        let start = bytes.platform_digest.as_ref().or(bytes.digest.as_ref());
        for config in start.map(|digest| configs(digest, object)).unwrap_or_default() {
            identity.add(&config);
        }
        identity.fingerprints = identity.ids.iter().filter_map(fingerprint).collect();
        identity
    }

    fn add(&mut self, id: &Digest) {
        if !self.ids.contains(id) {
            self.ids.push(id.clone());
        }
    }

    /// What daemons may call an image of this release.
    #[must_use]
    pub fn ids(&self) -> &[Digest] {
        &self.ids
    }

    /// Whether an image can be known by what it is made of.
    #[must_use]
    pub fn has_fingerprint(&self) -> bool {
        !self.fingerprints.is_empty()
    }

    /// Whether `image` is the release.
    #[must_use]
    pub fn is(&self, image: &Image) -> bool {
        self.ids.contains(&image.id)
            || image.digests.iter().any(|(_, digest)| self.ids.contains(digest))
            || self.fingerprints.contains(&image.fingerprint)
    }
}

/// The configurations that a manifest, or the kept entries of an index, lead to.
fn configs(digest: &Digest, object: impl Fn(&Digest) -> Option<Vec<u8>>) -> Vec<Digest> {
    let content = |digest: &Digest| serde_json::from_slice::<Content>(&object(digest)?).ok();
    let Some(first) = content(digest) else { return Vec::new() };
    let entries = first.manifests.iter().filter_map(|entry| content(&entry.digest.parse().ok()?));
    let entries: Vec<Content> = entries.collect();
    let configs = std::iter::once(&first).chain(&entries).filter_map(|one| one.config.as_ref());
    configs.filter_map(|config| config.digest.parse().ok()).collect()
}

/// What the bytes of an index or a manifest lead on to: manifests, a configuration.
#[must_use]
pub fn parts(bytes: &[u8]) -> Vec<Digest> {
    let Ok(content) = serde_json::from_slice::<Content>(bytes) else { return Vec::new() };
    let parts = content.manifests.iter().chain(&content.config);
    parts.filter_map(|part| part.digest.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::model::reference::Platform;

    #[derive(Default)]
    struct Kept {
        objects: HashMap<Digest, Vec<u8>>,
        fingerprints: HashMap<Digest, Digest>,
    }

    impl Kept {
        fn keep(&mut self, text: String) -> Digest {
            let digest = Digest::of(text.as_bytes());
            self.objects.insert(digest.clone(), text.into_bytes());
            digest
        }
    }

    fn identity(bytes: &Bytes, kept: &Kept) -> Identity {
        let fingerprint = |id: &Digest| kept.fingerprints.get(id).cloned();
        Identity::of(bytes, |digest| kept.objects.get(digest).cloned(), fingerprint)
    }

    fn image(id: &Digest, pulled_by: Option<&Digest>, content: &[u8]) -> Image {
        let repository = "mirror.example/web".parse().unwrap();
        Image {
            id: id.clone(),
            tags: Vec::new(),
            digests: pulled_by.map(|digest| (repository, digest.clone())).into_iter().collect(),
            platform: Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                variant: None,
            },
            created_at: None,
            fingerprint: Digest::of(content),
            pulled_from: Vec::new(),
        }
    }

    #[test]
    fn content_shows_what_an_image_is_whatever_it_is_called() {
        let mut kept = Kept::default();
        let (config, other_config) = (Digest::of(b"config"), Digest::of(b"other config"));
        let manifest = kept.keep(format!(r#"{{"config":{{"digest":"{config}"}}}}"#));
        let other = kept.keep(format!(r#"{{"config":{{"digest":"{other_config}"}}}}"#));
        let index = kept
            .keep(format!(r#"{{"manifests":[{{"digest":"{manifest}"}},{{"digest":"{other}"}}]}}"#));
        let unknown = Digest::of(b"unknown");
        let with = |digest: &Digest, platform: Option<&Digest>| {
            let bytes =
                Bytes { platform_digest: platform.cloned(), ..Bytes::of(Some(digest.clone())) };
            identity(&bytes, &kept)
        };
        let single = with(&manifest, None);
        assert!(single.is(&image(&config, None, b"1")), "loaded on the classic store");
        assert!(single.is(&image(&manifest, None, b"1")), "on the containerd store");
        assert!(single.is(&image(&unknown, Some(&manifest), b"1")), "from a mirror");
        assert!(!single.is(&image(&unknown, Some(&other), b"1")), "tampered with");
        let multiple = with(&index, Some(&manifest));
        assert!(
            multiple.is(&image(&index, None, b"1")) && multiple.is(&image(&config, None, b"1"))
        );
        assert!(!multiple.is(&image(&other_config, None, b"1")), "another platform's");
        assert!(with(&index, None).is(&image(&other_config, None, b"1")));
        assert!(!with(&unknown, None).is(&image(&config, None, b"1")));
    }

    #[test]
    fn what_a_build_is_made_of_outlasts_its_id() {
        let mut kept = Kept::default();
        let (built, loaded) = (Digest::of(b"built"), Digest::of(b"loaded"));
        kept.fingerprints.insert(built.clone(), Digest::of(b"content"));
        let recorded = identity(&Bytes::of_image(built.clone()), &kept);
        assert!(recorded.is(&image(&loaded, Some(&loaded), b"content")));
        assert!(!recorded.is(&image(&loaded, Some(&loaded), b"other content")));
        let unseen = identity(&Bytes::of_image(built.clone()), &Kept::default());
        assert!(unseen.is(&image(&built, None, b"content")));
        assert!(!unseen.is(&image(&loaded, None, b"content")) && !unseen.has_fingerprint());
    }
}
