//! `verify`: the views of every service side by side, and where they disagree.

use serde::Serialize;

use super::ReleaseView;
use crate::model::manifest::Rank;

/// `verify`.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// Whether nothing disagrees.
    pub clean: bool,
    /// The views that could not be had, each with the reason.
    pub not_compared: Vec<String>,
    /// What disagrees.
    pub drift: Vec<Finding>,
    /// What is worth knowing, but no drift.
    pub notes: Vec<Finding>,
    /// One entry a service, in the manifest's order.
    pub services: Vec<ServiceViews>,
}

/// One disagreement, or one thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind it is.
    pub kind: FindingKind,
    /// The manifest service, if it is about one.
    pub service: Option<String>,
    /// What disagrees with what.
    pub message: String,
    /// What mends it, usually a command; `null` if nothing has to be done.
    pub mend: Option<String>,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// `versions.env` does not exist, and Compose files use it.
    EnvMissing,
    /// `versions.env` was written from an older manifest.
    EnvStale,
    /// `versions.env` was edited by hand or by another tool.
    EnvEdited,
    /// A Compose file names a tag of its own, whatever `versions.env` says.
    LiteralTag,
    /// A Compose file pins another digest than is recorded.
    OtherDigestPinned,
    /// Two places pin one image to different digests.
    FilesDisagree,
    /// Compose would start something else, though the files follow variables.
    ComposeDiffers,
    /// A tracked image that a service mounts, or runs beside its own, is at another version.
    OtherImageDiffers,
    /// Something of a Compose file that has an image, or is one, and can be compared with nothing.
    NotCompared,
    /// A Compose service runs something else from a tracked repository: another track or platform.
    OtherTrack,
    /// Compose services of one product have different images.
    ImagesDiffer,
    /// Compose services of one product have a local build and a published image.
    SourcesMixed,
    /// A container runs another release of the history.
    RunsOlder,
    /// A container runs bytes that the history does not know.
    RunsOther,
    /// A container runs in namespaces of one that is gone.
    CutOff,
    /// A container of a tracked image that does not belong to the deployment.
    StartedOutside,
    /// The image of the current release is not on this host any more.
    ImageGone,
    /// The image of the current release was recorded, but never pulled here.
    NotPulled,
    /// The keep-tag of a release names another image.
    KeepTagMoved,
    /// The keep-tag by which Compose starts a local build is gone.
    KeepTagGone,
    /// A release that a rollback may need is not on this host; the registry may have it.
    ReleaseNotHere,
    /// A release that a rollback may need is neither here nor in the registry.
    ReleaseLost,
    /// A Compose service that nothing tracks.
    Untracked,
    /// A service without a recorded digest or image ID.
    Unrecorded,
    /// A release whose image a prune could take, for want of a keep-tag.
    NotKept,
    /// A release that only this host has.
    OnlyHere,
}

/// The views of one service.
#[derive(Debug, Serialize)]
pub struct ServiceViews {
    /// The service.
    pub name: String,
    /// What the manifest records.
    pub manifest: Option<ReleaseView>,
    /// What `versions.env` gives as the tag; `null` if it has none.
    pub env: Option<String>,
    /// Whether that is what the manifest gives.
    pub env_as_recorded: bool,
    /// What Compose would start, by Compose service.
    pub compose: Vec<ComposeView>,
    /// Whether the recorded image is local; `null` without a daemon.
    pub local: Option<bool>,
    /// What runs.
    pub running: Vec<RunningView>,
    /// With `--remote`: the digest that the tracked tag names in the registry.
    pub remote: Option<String>,
    /// The remembered releases, newest first.
    pub releases: Vec<ReleaseState>,
}

/// What Compose would start.
#[derive(Debug, Serialize)]
pub struct ComposeView {
    /// The Compose service.
    pub compose_service: String,
    /// Its image.
    pub image: String,
    /// Whether that is what the manifest records.
    pub as_recorded: bool,
}

/// What a container runs.
#[derive(Debug, Serialize)]
pub struct RunningView {
    /// The container's name.
    pub container: String,
    /// The image ID that it was made from.
    pub image_id: Option<String>,
    /// The tag that the history has for these bytes.
    pub tag: Option<String>,
    /// Whether that is what the manifest records; `null` if it cannot be told.
    pub as_recorded: Option<bool>,
}

/// One release and where it can be had.
#[derive(Debug, Serialize)]
pub struct ReleaseState {
    /// The release.
    #[serde(flatten)]
    pub release: ReleaseView,
    /// What it is to the others.
    pub status: Rank,
    /// Where it can be had.
    pub restorable: Restorable,
}

/// Where a release can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restorable {
    /// This host has the image.
    Here,
    /// The registry has it.
    Registry,
    /// Nobody has it, or nobody knows which bytes it was.
    Lost,
    /// It is not known to be here; `--remote` asks the registry.
    Unknown,
}
