//! The two kinds of store in which daemons have their images.

/// In what a daemon has its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStore {
    /// Docker's own, where an image's ID is the digest of its configuration.
    Classic,
    /// containerd's, where IDs are digests of manifests and indexes, and every image has a digest,
    /// also one that no registry has.
    Containerd,
}

impl ImageStore {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Containerd];

    /// Its name in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Containerd => "containerd",
        }
    }

    /// That a host has another one now, for messages.
    #[must_use]
    pub fn was_left(self) -> &'static str {
        match self {
            Self::Classic => {
                "this host's image store has changed, from Docker's classic one to containerd's"
            }
            Self::Containerd => {
                "this host's image store has changed, from containerd's to Docker's classic one"
            }
        }
    }
}
