//! `pin`: what the Compose files say and what was written into them.

use serde::Serialize;

use super::{Files, ServiceChange};

/// `pin`, `pin --unpin`, `pin --check`.
#[derive(Debug, Default, Serialize)]
pub struct Pins {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Whether every file says what it should, and no two disagree, as they were found.
    pub current: bool,
    /// The files, in the order in which they were looked at.
    pub files: Vec<PinnedFile>,
    /// Images to which several places give different digests.
    pub disagreements: Vec<PinDisagreement>,
    /// The files that name images of the deployment and are no part of it; they stay as they are.
    pub beside: Vec<String>,
    /// With `--latest`: what became of each service before the files were written.
    pub services: Vec<ServiceChange>,
    /// With `--latest`: what became of the manifest and of `versions.env`.
    pub recorded: Files,
}

/// One Compose file.
#[derive(Debug, Serialize)]
pub struct PinnedFile {
    /// The file, as it was named or found.
    pub file: String,
    /// Whether it was written.
    pub written: bool,
    /// Where its old content is.
    pub backup: Option<String>,
    /// The difference, with `--dry-run`.
    pub diff: Option<String>,
    /// Its images, in the order of their text.
    pub images: Vec<PinnedImage>,
}

/// One `image:` of a Compose file.
#[derive(Debug, Serialize)]
pub struct PinnedImage {
    /// The line, from 1.
    pub line: usize,
    /// The Compose services that run it.
    pub compose_services: Vec<String>,
    /// What stood there.
    pub image: String,
    /// What should stand there instead; `null` if nothing else.
    pub wanted: Option<String>,
    /// `current`, `stale` (another digest), `loose` (no digest; with `--unpin`, one),
    /// `interpolated`, `unset` (no image name with the values that its variables have),
    /// `other-track` (its tag is another line of versions than is followed), `kept` (with `--unpin`:
    /// a digest that `pin` did not write), `built`, `local`, `untracked`, `unrecorded`, `unseen`
    /// (dkv has not seen what is recorded as its digest), `invalid` or `refused`.
    pub state: &'static str,
    /// Why the line is left alone; `null` if it is as it should be, or is written.
    pub why: Option<String>,
}

/// One image with different digests.
#[derive(Debug, Serialize)]
pub struct PinDisagreement {
    /// The image, without its digest.
    pub image: String,
    /// Each digest, and the places, as `file:line`, that name it.
    pub digests: std::collections::BTreeMap<String, Vec<String>>,
}
