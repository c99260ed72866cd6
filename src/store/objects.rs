//! What shows later, and without a registry, that an image is a remembered release: the bytes of
//! its manifests by their digests, and what the daemon found it to be made of.
//!
//! Nothing here is the truth about anything: bytes are only taken for what their digest says, and
//! what is lost costs a question to a registry. So nothing is synced.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Lock, Store, cannot_write, neighbour, read, replace, resolve};
use crate::model::image_store::ImageStore;
use crate::model::reference::Digest;

/// Where they are, inside the state directory.
const DIRECTORY: &str = "objects";

/// The bytes of manifests, by the digits of their digests.
const BYTES: &str = "sha256";

/// Fingerprints, by the digits of the image IDs that were recorded.
const IMAGES: &str = "images";

/// The digests of releases whose images the daemon has, but not by digest.
const UNNAMED: &str = "by-keep-tag";

/// Which kind of store the daemon's images were in.
const IMAGE_STORE: &str = "image-store";

/// Where the deployment was when its images were kept, a path a line, the latest last.
const PLACES: &str = "places";

/// How many of them are known.
const PLACES_KEPT: usize = 20;

/// The keep-tags that no history remembers and that a container still used.
const IN_USE: &str = "in-use";

impl Store {
    /// In which kind of store this host's images were when one of them was looked at last.
    #[must_use]
    pub fn image_store(&self) -> Option<ImageStore> {
        let found = read(&self.objects().join(IMAGE_STORE)).ok()??;
        let is_named = |store: &ImageStore| found.bytes.trim_ascii() == store.word().as_bytes();
        ImageStore::ALL.into_iter().find(is_named)
    }

    /// Notes in which kind of store this host's images are.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn note_image_store(&self, _lock: &Lock, store: ImageStore) -> anyhow::Result<()> {
        self.keep_file("", IMAGE_STORE, format!("{}\n", store.word()).as_bytes())
    }

    /// The bytes of the manifest with this digest, if they were kept.
    #[must_use]
    pub fn object(&self, digest: &Digest) -> Option<Vec<u8>> {
        let found = read(&self.objects().join(BYTES).join(digest.hex())).ok()??;
        (Digest::of(&found.bytes) == *digest).then_some(found.bytes)
    }

    /// What the image that was recorded under this ID is made of.
    #[must_use]
    pub fn fingerprint(&self, image_id: &Digest) -> Option<Digest> {
        let found = read(&self.objects().join(IMAGES).join(image_id.hex())).ok()??;
        String::from_utf8(found.bytes).ok()?.trim().parse().ok()
    }

    /// The digests that this host's daemon cannot find images by, although it has them: they were
    /// loaded from a file, or came under another name. Their keep-tags name them.
    #[must_use]
    pub fn only_by_keep_tag(&self) -> BTreeSet<Digest> {
        let Ok(Some(found)) = read(&self.objects().join(UNNAMED)) else { return BTreeSet::new() };
        let text = String::from_utf8_lossy(&found.bytes);
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The keep-tags that were to be removed when a container still used them, as `repository:tag`.
    #[must_use]
    pub fn tags_in_use(&self) -> BTreeSet<String> {
        let Ok(Some(found)) = read(&self.objects().join(IN_USE)) else { return BTreeSet::new() };
        String::from_utf8_lossy(&found.bytes).lines().map(str::to_owned).collect()
    }

    /// Notes which keep-tags have to be removed once nothing uses them.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn note_tags_in_use(&self, _lock: &Lock, tags: &BTreeSet<String>) -> anyhow::Result<()> {
        let lines: String = tags.iter().map(|tag| format!("{tag}\n")).collect();
        self.keep_file("", IN_USE, lines.as_bytes())
    }

    /// Where the deployment was when its images were kept, the latest last; none before they are kept
    /// for the first time.
    ///
    /// # Errors
    ///
    /// It is written down and cannot be read (exit 3).
    pub fn places(&self) -> anyhow::Result<Vec<PathBuf>> {
        let found = read(&self.objects().join(PLACES))?;
        let bytes = found.map(|found| found.bytes).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect())
    }

    /// Notes that the deployment's images are kept where it is now.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn note_place(&self, _lock: &Lock) -> anyhow::Result<()> {
        let now = resolve(self.directory())?;
        let mut places = self.places()?;
        places.retain(|place| *place != now);
        places.drain(..places.len().saturating_sub(PLACES_KEPT - 1));
        places.push(now);
        let lines: Vec<&[u8]> = places.iter().map(|place| place.as_os_str().as_bytes()).collect();
        self.keep_file("", PLACES, &[&lines.join(&b'\n'), &b"\n"[..]].concat())
    }

    /// Keeps the bytes of a manifest.
    ///
    /// # Errors
    ///
    /// They cannot be written (exit 3).
    pub fn keep_object(&self, _lock: &Lock, digest: &Digest, bytes: &[u8]) -> anyhow::Result<()> {
        self.keep_file(BYTES, digest.hex(), bytes)
    }

    /// Forgets the bytes with this digest, if they are kept.
    ///
    /// # Errors
    ///
    /// They cannot be removed (exit 3).
    pub fn forget_object(&self, _lock: &Lock, digest: &Digest) -> anyhow::Result<()> {
        // What this user cannot read is nothing to them.
        if self.object(digest).is_none() {
            return Ok(());
        }
        let path = self.objects().join(BYTES).join(digest.hex());
        Ok(fs::remove_file(&path).map_err(|source| cannot_write(&path, &source))?)
    }

    /// Keeps what the image that is recorded under `image_id` is made of.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn keep_fingerprint(
        &self,
        _lock: &Lock,
        image_id: &Digest,
        fingerprint: &Digest,
    ) -> anyhow::Result<()> {
        self.keep_file(IMAGES, image_id.hex(), format!("{fingerprint}\n").as_bytes())
    }

    /// Notes which digests this host's daemon cannot find images by.
    ///
    /// # Errors
    ///
    /// It cannot be written (exit 3).
    pub fn note_only_by_keep_tag(
        &self,
        _lock: &Lock,
        digests: &BTreeSet<Digest>,
    ) -> anyhow::Result<()> {
        let lines: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        self.keep_file("", UNNAMED, lines.as_bytes())
    }

    /// Removes what is kept of digests that are not `known`. What cannot be removed stays.
    pub fn sweep_objects(&self, lock: &Lock, known: &HashSet<Digest>) {
        let digits: HashSet<&str> = known.iter().map(Digest::hex).collect();
        for kind in [BYTES, IMAGES] {
            let Ok(entries) = fs::read_dir(self.objects().join(kind)) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_str().is_none_or(|name| !digits.contains(name)) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        let noted = self.only_by_keep_tag();
        let left: BTreeSet<Digest> =
            noted.iter().filter(|digest| known.contains(*digest)).cloned().collect();
        if left != noted {
            let _ = self.note_only_by_keep_tag(lock, &left);
        }
    }

    fn objects(&self) -> PathBuf {
        self.state_directory().join(DIRECTORY)
    }

    fn keep_file(&self, kind: &str, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let directory = self.objects().join(kind);
        let path = directory.join(name);
        if read(&path).is_ok_and(|found| found.is_some_and(|found| found.bytes == bytes)) {
            return Ok(());
        }
        self.prepare_state_directory()?;
        let write = || {
            for directory in [&self.objects(), &directory] {
                make_directory(directory, self.directory())?;
            }
            write_private(&path, bytes, self.directory())
        };
        Ok(write().map_err(|source| cannot_write(&path, &source))?)
    }
}

fn make_directory(path: &Path, like: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => replace::give_to_owner_of(&replace::open_directory(path)?, like),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(source),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let new = neighbour(path);
    // Left by one that was killed.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    replace::give_to_owner_of(&file, like)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::super::LockWait;
    use super::*;

    #[test]
    fn bytes_are_what_their_digest_says_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store =
            Store::new(directory.path().to_owned(), directory.path().join("version-manifest.yaml"));
        let wait = LockWait {
            timeout: Duration::ZERO,
            purpose: "test",
            on_wait: &|_| {},
            is_interrupted: &|| false,
        };
        let lock = store.lock_state(&wait).unwrap();
        let (digest, other) = (Digest::of(b"manifest"), Digest::of(b"other"));
        assert_eq!(store.object(&digest), None);
        store.keep_object(&lock, &digest, b"manifest").unwrap();
        store.keep_object(&lock, &other, b"not that").unwrap();
        store.keep_fingerprint(&lock, &digest, &other).unwrap();
        assert_eq!(store.object(&digest).as_deref(), Some(&b"manifest"[..]));
        assert_eq!(store.object(&other), None);
        assert_eq!(store.fingerprint(&digest), Some(other.clone()));
        let mode = |path: &str| {
            let path = directory.path().join(".version-backups/objects").join(path);
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("sha256"), mode(&format!("sha256/{}", digest.hex()))), (0o700, 0o600));

        let noted = BTreeSet::from([digest.clone(), other]);
        store.note_only_by_keep_tag(&lock, &noted).unwrap();
        assert_eq!(store.only_by_keep_tag(), noted);

        store.sweep_objects(&lock, &HashSet::from([digest.clone()]));
        assert!(store.object(&digest).is_some());
        assert_eq!(store.only_by_keep_tag(), BTreeSet::from([digest.clone()]));
        store.forget_object(&lock, &digest).unwrap();
        store.forget_object(&lock, &digest).unwrap();
        assert_eq!(store.object(&digest), None);
        store.keep_object(&lock, &digest, b"manifest").unwrap();
        store.sweep_objects(&lock, &HashSet::new());
        assert_eq!((store.object(&digest), store.fingerprint(&digest)), (None, None));
    }
}
