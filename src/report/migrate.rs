//! `migrate-versions`: what was added to a manifest, and what else the operator should do.

use serde::Serialize;

use super::Files;
use crate::model::image_line::Entry;
use crate::model::manifest::{Service, Source};
use crate::model::reference::{Digest, Platform, Repository, ServiceName};

/// `migrate-versions`.
#[derive(Debug, Default, Serialize)]
pub struct Migration {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The manifest's path.
    pub manifest: String,
    /// Whether there was none before.
    pub created: bool,
    /// The services added.
    pub services: Vec<MigratedService>,
    /// The services taken out of the manifest.
    pub removed: Vec<ServiceName>,
    /// The images that nothing tracks.
    pub untracked: Vec<UntrackedImage>,
    /// The image lines that do not follow `versions.env`, or did not until now.
    pub compose_changes: Vec<ComposeChange>,
    /// The Compose services that name or run another version than is recorded for their image.
    pub other_versions: Vec<OtherVersion>,
    /// Other tools that write `versions.env` or start the deployment.
    pub other_tools: Vec<OtherTool>,
    /// Where Compose would start another image than runs now.
    pub differences: Vec<Difference>,
    /// What the operator should know beyond that.
    pub notes: Vec<String>,
    /// Which services follow a version that does not move, and how to follow another tag.
    #[serde(skip)]
    pub stay: Option<String>,
    /// What became of the deployment's files.
    pub files: Files,
}

/// Where the version of a service was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A container runs it.
    Running,
    /// The daemon has it under the name of the Compose file.
    LocalImage,
    /// A registry has it.
    Registry,
    /// The Compose file names it.
    ComposeFile,
}

impl Origin {
    /// The word for it in tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::LocalImage => "local-image",
            Self::Registry => "registry",
            Self::ComposeFile => "compose-file",
        }
    }
}

/// A service that was added.
#[derive(Debug, Serialize)]
pub struct MigratedService {
    /// Its name in the manifest.
    pub name: ServiceName,
    /// Its repository.
    pub image: Option<Repository>,
    /// The recorded tag.
    pub tag: String,
    /// The recorded digest; `null` for local builds and where no registry could be asked.
    pub digest: Option<Digest>,
    /// The image ID on this host.
    pub image_id: Option<Digest>,
    /// Where its images come from.
    pub source: Source,
    /// Where the version was found.
    pub found: Origin,
    /// The tag that `pull-latest` follows.
    pub track: String,
    /// Whether that tag names one release, so that the service stays what it is until told.
    pub stays: bool,
    /// Whether `pull-latest` leaves it alone all the same.
    pub held: bool,
    /// The platform whose image it runs; `null` for the host's.
    pub platform: Option<Platform>,
    /// The Compose services that run it.
    pub compose_services: Vec<String>,
    /// The variable that existing Compose files use for the tag.
    pub env_tag: Option<String>,
    /// The variable that existing Compose files use for the image.
    pub env_image: Option<String>,
    /// Why it is tracked.
    pub reason: String,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl MigratedService {
    /// What is told of `service`.
    #[must_use]
    pub fn of(service: &Service, found: Origin, reason: &str, notes: &[String]) -> Self {
        let current = service.current();
        let track = service.track_name().to_owned();
        Self {
            name: service.name.clone(),
            image: service.image.clone(),
            tag: current.map_or_else(|| track.clone(), |current| current.tag.to_string()),
            digest: current.and_then(|current| current.bytes.digest.clone()),
            image_id: current.and_then(|current| current.bytes.image_id.clone()),
            source: service.source,
            found,
            track,
            stays: service.follows_release(),
            held: service.held,
            platform: service.platform.clone(),
            compose_services: service.compose_services.clone(),
            env_tag: service.env_tag.clone(),
            env_image: service.env_image.clone(),
            reason: reason.to_owned(),
            notes: notes.to_vec(),
        }
    }
}

/// An image that nothing tracks.
#[derive(Debug, Clone, Serialize)]
pub struct UntrackedImage {
    /// The image.
    pub image: String,
    /// The Compose services that run it.
    pub compose_services: Vec<String>,
    /// Why.
    pub reason: String,
}

/// An image line and what makes it follow `versions.env`.
#[derive(Debug, Clone, Serialize)]
pub struct ComposeChange {
    /// The Compose service.
    pub compose_service: String,
    /// The service in that file: the one that it extends, if that has the line.
    #[serde(skip)]
    pub there: Entry,
    /// The file, relative to the deployment.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The image as it is written; `null` if only a build section says what it is.
    pub from: Option<String>,
    /// The image as it should be written; `null` if no text follows and starts the same without
    /// `versions.env`.
    pub to: Option<String>,
    /// Whether it was written.
    pub written: bool,
    /// The template that the file is made from, which is what has to be changed.
    pub template: Option<String>,
    /// Why the line is left as it is, even where lines are written.
    pub left: Option<String>,
    /// The variables of the old text that have no effect in the new one.
    pub cut: Vec<String>,
    /// The file that describes the Compose service itself, where it can get a line of its own.
    #[serde(skip)]
    pub own_file: String,
    /// What that file has of it.
    #[serde(skip)]
    pub own: Entry,
}

impl ComposeChange {
    /// Whether the line is one to write.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.to.is_some() && self.left.is_none() && self.template.is_none()
    }
}

/// A Compose service that has another version of a tracked image than is recorded.
#[derive(Debug, Clone, Serialize)]
pub struct OtherVersion {
    /// The manifest service.
    pub service: String,
    /// The Compose service.
    pub compose_service: String,
    /// The image that its line names.
    pub image: String,
    /// The image ID that it runs, if it runs.
    pub runs: Option<String>,
    /// What is recorded.
    pub recorded: String,
    /// Whether its line follows `versions.env`, so that the next start gives it what is recorded.
    pub will_change: bool,
}

/// A line of another tool.
#[derive(Debug, Clone, Serialize)]
pub struct OtherTool {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// What to put instead.
    pub instead: String,
}

/// A Compose service that would start another image than it runs.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The Compose service.
    pub compose_service: String,
    /// The image ID that runs.
    pub runs: String,
    /// What Compose would start.
    pub would_start: String,
    /// Whether that is because its image line does not follow `versions.env`.
    pub line_does_not_follow: bool,
}
