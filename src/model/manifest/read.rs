//! Reading a manifest: strict about what would be dangerous, generous about what deployments hold.

use std::time::Duration;

use indexmap::IndexMap;

use super::{
    ComposeSettings, Custom, DataBackup, Ecr, EnvSettings, LogSettings, Manifest, Rejected,
    Service, Source,
};
use crate::model::duration;
use crate::model::env_file::{self, Pin};
use crate::model::history::{Bytes, History, Release};
use crate::model::reference::{Digest, Repository, ServiceName, Tag};
use crate::model::yaml::{Document, Kind, Node, YamlError};

/// Who the old migration wizard says has deployed a version; it wrote image IDs where digests
/// belong.
const OLD_WIZARD: &str = "migration";

/// How long the operator's own backup command may take, unless the manifest says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60 * 60);

impl Manifest {
    /// Reads a manifest from the bytes of its file.
    ///
    /// # Errors
    ///
    /// What is not UTF-8 or not YAML, is a duplicate, has the wrong type, is no valid name, tag or
    /// digest, or belongs to a newer schema; always with line and column.
    pub fn read(bytes: &[u8]) -> Result<Self, YamlError> {
        let document = Document::parse_bytes(bytes)?;
        let root = document.root();
        if root.is_null() {
            return Err(root.error("the manifest is empty"));
        }
        let mut warnings = Vec::new();
        let is_legacy = is_legacy(root)?;
        let ecr = optional(root, "ecr").map(read_ecr).transpose()?;
        let histories = optional(root, "history");
        let overrides = optional(root, "custom_overrides");
        let rejections = optional(root, "rejected");
        let mut services = IndexMap::new();
        if let Some(section) = optional(root, "services") {
            for (key, node) in section.mapping()? {
                let name: ServiceName = parsed(key)?;
                let parts = Parts {
                    history: histories
                        .map(|section| child(section, name.as_str()))
                        .transpose()?
                        .flatten(),
                    custom: overrides
                        .map(|section| child(section, name.as_str()))
                        .transpose()?
                        .flatten(),
                    rejected: rejections
                        .map(|section| child(section, name.as_str()))
                        .transpose()?
                        .flatten(),
                    ecr: ecr.as_ref(),
                    is_legacy,
                };
                let service = read_service(name.clone(), node, &parts, &mut warnings)?;
                services.insert(name, service);
            }
        }
        // Nothing here depends on them, but other readers of the file may take them for text.
        for key in ["deployment_id", "customer_id"] {
            text_or_empty(root, key)?;
        }
        let manifest = Self {
            is_legacy,
            ecr,
            compose: read_compose(root)?,
            env: read_env(root)?,
            data_backup: read_data_backup(root)?,
            logs: read_logs(root)?,
            services,
            untracked: texts(root, "untracked")?,
            warnings,
            document,
        };
        Ok(manifest)
    }
}

/// Whether the schema is the old tool's; refuses what this dkv does not know.
fn is_legacy(root: Node<'_>) -> Result<bool, YamlError> {
    root.mapping()?;
    let Some(node) = root.get("schema_version") else { return Ok(true) };
    let text = node.text()?;
    let major = text.split('.').next().unwrap_or(text);
    match major.parse::<u32>() {
        Ok(1) => Ok(text == "1" || text == "1.0"),
        Ok(newer)
            if newer > 1 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') =>
        {
            Err(node.error(format!(
                "schema version {text} is newer than this dkv understands (1.1); update dkv"
            )))
        }
        _ => Err(node.error("`schema_version` must be 1.0 or 1.1")),
    }
}

/// The value of `key`, unless it is missing, null or an empty node.
fn optional<'a>(mapping: Node<'a>, key: &str) -> Option<Node<'a>> {
    mapping.get(key).filter(|node| !node.is_null())
}

/// As [`optional`], where `section` must be a mapping.
fn child<'a>(section: Node<'a>, key: &str) -> Result<Option<Node<'a>>, YamlError> {
    section.mapping()?;
    Ok(optional(section, key))
}

fn text_or_empty(mapping: Node<'_>, key: &str) -> Result<String, YamlError> {
    optional(mapping, key).map_or(Ok(String::new()), |node| node.text().map(str::to_owned))
}

fn optional_text(mapping: Node<'_>, key: &str) -> Result<Option<String>, YamlError> {
    let found = mapping.get(key).map(Node::text).transpose()?;
    Ok(found.filter(|text| !text.is_empty()).map(str::to_owned))
}

/// Parses a text node as a name of the image world; the error stands at the node.
fn parsed<T>(node: Node<'_>) -> Result<T, YamlError>
where
    T: std::str::FromStr<Err = crate::model::reference::InvalidName>,
{
    node.text()?.parse().map_err(|error| node.error(format!("{error}")))
}

/// As [`parsed`], for a key whose value may be missing or empty.
fn optional_parsed<T>(mapping: Node<'_>, key: &str) -> Result<Option<T>, YamlError>
where
    T: std::str::FromStr<Err = crate::model::reference::InvalidName>,
{
    match mapping.get(key) {
        Some(node) if !node.text()?.is_empty() => parsed(node).map(Some),
        _ => Ok(None),
    }
}

fn texts(mapping: Node<'_>, key: &str) -> Result<Vec<String>, YamlError> {
    let Some(node) = optional(mapping, key) else { return Ok(Vec::new()) };
    if let Ok(single) = node.text() {
        return Ok(vec![single.to_owned()]);
    }
    node.sequence()?.map(|item| item.text().map(str::to_owned)).collect()
}

fn flag(mapping: Node<'_>, key: &str) -> Result<bool, YamlError> {
    optional(mapping, key).map_or(Ok(false), Node::boolean)
}

fn read_ecr(node: Node<'_>) -> Result<Ecr, YamlError> {
    node.mapping()?;
    let ecr = Ecr {
        registry: optional_text(node, "registry")?
            .unwrap_or_else(|| super::DEFAULT_ECR_REGISTRY.to_owned()),
        repository_alias: text_or_empty(node, "repository_alias")?,
        use_private: flag(node, "use_private")?,
        private_registry: text_or_empty(node, "private_registry")?,
        private_region: optional_text(node, "private_region")?
            .unwrap_or_else(|| "us-east-1".to_owned()),
    };
    // The prefix goes into versions.env: it must be made of what image names are made of.
    if let Err(error) = format!("{}/name", ecr.prefix()).parse::<Repository>() {
        return Err(
            node.error(format!("the registry of this section makes no image name: {error}"))
        );
    }
    Ok(ecr)
}

fn read_compose(root: Node<'_>) -> Result<ComposeSettings, YamlError> {
    let Some(node) = optional(root, "compose") else { return Ok(ComposeSettings::default()) };
    node.mapping()?;
    let project = optional_text(node, "project")?;
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    };
    if let (Some(name), Some(node)) = (&project, node.get("project"))
        && !is_name(name)
    {
        return Err(node.error(
            "`project` may hold lower-case letters, digits, `-` and `_`, and must begin with a \
            letter or a digit",
        ));
    }
    Ok(ComposeSettings {
        files: texts(node, "files")?,
        db_files: texts(node, "db_files")?,
        project,
    })
}

fn read_env(root: Node<'_>) -> Result<EnvSettings, YamlError> {
    let mut settings = EnvSettings::default();
    let Some(node) = optional(root, "env") else { return Ok(settings) };
    node.mapping()?;
    if let Some(file) = node.get("file") {
        let name = file.text()?;
        if name.is_empty() || name.ends_with('/') || name.chars().any(char::is_control) {
            return Err(file.error("`file` must name a file"));
        }
        name.clone_into(&mut settings.file);
    }
    if let Some(prefix) = node.get("prefix") {
        let text = prefix.text()?;
        if !text.is_empty() && !env_file::is_variable(text) {
            return Err(prefix.error(
                "`prefix` may hold letters, digits and `_`, and must not begin with a digit",
            ));
        }
        text.clone_into(&mut settings.prefix);
    }
    if let Some(pin) = node.get("pin") {
        settings.pin = match pin.text()? {
            "digest" => Pin::Digest,
            "tag" => Pin::Tag,
            _ => return Err(pin.error("`pin` must be `digest` or `tag`")),
        };
    }
    Ok(settings)
}

fn read_data_backup(root: Node<'_>) -> Result<DataBackup, YamlError> {
    let Some(node) = optional(root, "data_backup") else { return Ok(DataBackup::default()) };
    if let Ok(word) = node.text() {
        return match word {
            "none" => Ok(DataBackup::None),
            "databases" => Ok(DataBackup::default()),
            _ => Err(node.error(
                "`data_backup` must be `none`, `databases`, or a mapping with `services`, `paths` \
                or `command`",
            )),
        };
    }
    if node.kind() == Kind::Sequence {
        let paths: Result<_, _> =
            node.sequence()?.map(|item| item.text().map(str::to_owned)).collect();
        return paths.map(DataBackup::Paths);
    }
    node.mapping()?;
    let (paths, command) = (texts(node, "paths")?, optional(node, "command"));
    if let Some(services) = optional(node, "services") {
        if !paths.is_empty() || command.is_some() {
            return Err(node.error("`data_backup` takes one of `services`, `paths` and `command`"));
        }
        let asked =
            services.mapping()?.map(|(name, yes)| Ok((name.text()?.to_owned(), yes.boolean()?)));
        return asked.collect::<Result<_, _>>().map(DataBackup::Databases);
    }
    let timeout = read_duration(node, "timeout")?.unwrap_or(COMMAND_TIMEOUT);
    match command {
        Some(_) if !paths.is_empty() => {
            Err(node.error("`data_backup` takes `paths` or `command`, not both"))
        }
        Some(command) if command.kind() == Kind::Sequence => {
            Ok(DataBackup::Command { words: texts(node, "command")?, timeout })
        }
        // A text is what the operator would type: a shell runs it.
        Some(command) => Ok(DataBackup::Command {
            words: vec!["sh".to_owned(), "-c".to_owned(), command.text()?.to_owned()],
            timeout,
        }),
        None if paths.is_empty() => {
            Err(node.error("`data_backup` needs `services`, `paths` or `command`"))
        }
        None => Ok(DataBackup::Paths(paths)),
    }
}

fn read_logs(root: Node<'_>) -> Result<LogSettings, YamlError> {
    let mut settings = LogSettings::default();
    let Some(node) = optional(root, "logs") else { return Ok(settings) };
    node.mapping()?;
    for (key, days) in [
        ("compress_after_days", &mut settings.compress_after_days),
        ("delete_after_days", &mut settings.delete_after_days),
    ] {
        if let Some(value) = optional(node, key) {
            *days = value
                .text()?
                .parse()
                .map_err(|_| value.error(format!("`{key}` must be a number of days")))?;
        }
    }
    Ok(settings)
}

/// What other sections say about a service.
struct Parts<'a> {
    history: Option<Node<'a>>,
    custom: Option<Node<'a>>,
    rejected: Option<Node<'a>>,
    ecr: Option<&'a Ecr>,
    is_legacy: bool,
}

fn read_service(
    name: ServiceName,
    node: Node<'_>,
    parts: &Parts<'_>,
    warnings: &mut Vec<String>,
) -> Result<Service, YamlError> {
    if !node.is_null() {
        node.mapping()?;
    }
    let mut service = Service::new(name, None);
    if let Some(image) = optional(node, "image") {
        let repository: Repository = parsed(image)?;
        service.follows_ecr =
            parts.ecr.is_some_and(|ecr| spells_out_default(ecr, &repository, &service.name));
        service.image = (!service.follows_ecr).then_some(repository);
    }
    service.track = optional_parsed(node, "track")?;
    service.platform = optional_parsed(node, "platform")?;
    if let Some(source) = optional(node, "source") {
        service.source = match source.text()? {
            "registry" => Source::Registry,
            "local" => Source::Local,
            _ => return Err(source.error("`source` must be `registry` or `local`")),
        };
    }
    service.held = flag(node, "held")?;
    service.compose_services = texts(node, "compose_services")?;
    service.env_tag = read_variable(node, "env_tag")?;
    service.env_image = read_variable(node, "env_image")?;
    service.version_pattern = optional_text(node, "version_pattern")?;
    service.health_timeout = read_duration(node, "health_timeout")?;
    service.deployed_at = optional_text(node, "deployed_at")?;
    service.deployed_by = optional_text(node, "deployed_by")?;
    if let Some(custom) = parts.custom {
        service.custom = read_custom(custom)?;
    }
    if let Some(rejected) = parts.rejected {
        service.rejected = rejected.sequence()?.map(read_rejected).collect::<Result<_, _>>()?;
    }
    let images = Images::of(&service, parts.ecr);
    let mut recorded = read_recorded(node, &service, &images, warnings)?;
    let entries = match parts.history {
        Some(history) => read_entries(history, &images)?,
        None => Vec::new(),
    };
    if let Some(recorded) = &mut recorded {
        settle_unverified(recorded, &entries);
        settle_image_id(recorded, &entries);
    }
    let marked = entries.iter().find(|entry| entry.is_current).map(|entry| entry.release.clone());
    service.history = settle_history(&service, recorded, entries, warnings);
    bind_custom(&mut service);
    settle_deployed(&mut service, marked.as_ref());
    if let (Some(custom), Some(current)) = (&service.custom, service.current())
        && custom.tag != current.tag
        && parts.is_legacy
    {
        warnings.push(format!(
            "{}: custom_overrides names {}, but {} is current; the override is not in force",
            service.name, custom.tag, current.tag
        ));
    }
    Ok(service)
}

/// Whether `image` is what one of the `ecr` defaults would give, and so should follow the section
/// when it is switched.
fn spells_out_default(ecr: &Ecr, image: &Repository, service: &ServiceName) -> bool {
    ecr.prefixes()
        .iter()
        .any(|prefix| !prefix.is_empty() && image.as_written() == format!("{prefix}/{service}"))
}

fn read_variable(node: Node<'_>, key: &str) -> Result<Option<String>, YamlError> {
    let Some(name) = optional_text(node, key)? else { return Ok(None) };
    if env_file::is_variable(&name) && !env_file::is_taken(&name) {
        return Ok(Some(name));
    }
    let position = node.get(key).unwrap_or(node);
    Err(position.error(format!(
        "`{key}` must be a variable name (letters, digits and `_`) that no program acts upon"
    )))
}

fn read_duration(node: Node<'_>, key: &str) -> Result<Option<Duration>, YamlError> {
    let Some(value) = optional(node, key) else { return Ok(None) };
    let length = duration::parse(value.text()?);
    length.map(Some).ok_or_else(|| {
        value.error(format!(
            "`{key}` must be a number of seconds, or a time such as `90s`, `2m` or `1h`"
        ))
    })
}

/// An override of which only the tag was written holds for what is recorded under that tag now.
fn bind_custom(service: &mut Service) {
    let entries = service.current().into_iter().chain(service.history.entries());
    let Some(custom) = service.custom.as_ref().filter(|custom| custom.digest.is_none()) else {
        return;
    };
    let mut entries = entries.filter(|entry| entry.tag == custom.tag);
    let digest = entries.next().and_then(|entry| entry.bytes.digest.clone());
    if let Some(custom) = &mut service.custom {
        custom.digest = custom.digest.take().or(digest);
    }
}

fn read_custom(node: Node<'_>) -> Result<Option<Custom>, YamlError> {
    node.mapping()?;
    let Some(tag) = optional_parsed(node, "tag")? else { return Ok(None) };
    Ok(Some(Custom {
        tag,
        digest: optional_parsed(node, "digest")?,
        reason: optional_text(node, "reason")?,
        applied_at: optional_text(node, "applied_at")?,
        applied_by: optional_text(node, "applied_by")?,
    }))
}

fn read_rejected(node: Node<'_>) -> Result<Rejected, YamlError> {
    node.mapping()?;
    let Some(digest) = optional_parsed(node, "digest")? else {
        return Err(node.error("a rejected release needs its `digest`"));
    };
    Ok(Rejected {
        digest,
        tag: optional_parsed(node, "tag")?,
        reason: optional_text(node, "reason")?,
        at: optional_text(node, "at")?,
    })
}

/// The repositories that a service's image may be in.
struct Images {
    /// As far as the manifest says.
    known: Vec<Repository>,
    /// Whether the Compose files may name another.
    may_differ: bool,
}

impl Images {
    fn of(service: &Service, ecr: Option<&Ecr>) -> Self {
        let prefixes =
            ecr.filter(|_| service.image.is_none()).map(Ecr::prefixes).unwrap_or_default();
        let defaults =
            prefixes.iter().filter_map(|prefix| format!("{prefix}/{}", service.name).parse().ok());
        let known = service.image.iter().cloned().chain(defaults).collect();
        Self { known, may_differ: service.image.is_none() && !service.follows_ecr }
    }
}

/// The old wizard's marks outlast its schema. But dkv writes the image's ID only with a digest that
/// it has seen.
fn settle_unverified(recorded: &mut Release, entries: &[Entry]) {
    let has_seen = entries
        .iter()
        .map(|entry| &entry.release.bytes)
        .any(|bytes| bytes.are_seen() && bytes.digest == recorded.unverified_digest);
    if recorded.unverified_digest.is_some() && has_seen {
        recorded.bytes.digest = recorded.unverified_digest.take();
    }
}

/// Where an image's ID stands for its digest, the release of that image is meant, if the history has
/// it.
fn settle_image_id(recorded: &mut Release, entries: &[Entry]) {
    let Some(written) = &recorded.bytes.digest else { return };
    let mut all = entries.iter().map(|entry| &entry.release.bytes);
    if all.clone().any(|bytes| bytes.has_digest(written)) {
        return;
    }
    let meant = all.find(|bytes| bytes.image_id.as_ref() == Some(written));
    if let Some(digest) = meant.and_then(|bytes| bytes.digest.clone()) {
        recorded.bytes.digest = Some(digest);
    }
}

/// What `services.<name>` itself says about the current release.
fn read_recorded(
    node: Node<'_>,
    service: &Service,
    images: &Images,
    warnings: &mut Vec<String>,
) -> Result<Option<Release>, YamlError> {
    let tag: Tag = match node.get("current_tag") {
        Some(tag) => parsed(tag)?,
        None if service.track.is_none() && node.get("image_digest").is_none() => return Ok(None),
        None => service.track_name().parse().map_err(|error| node.error(format!("{error}")))?,
    };
    let mut release = Release::new(tag, Bytes::default());
    if let Some(digest) = node.get("image_digest") {
        match read_digest(digest, images)? {
            Some(Written::Bare(digest)) if service.deployed_by.as_deref() == Some(OLD_WIZARD) => {
                release.unverified_digest = Some(digest);
            }
            Some(Written::Bare(digest) | Written::Printed(digest)) => {
                release.bytes.digest = Some(digest)
            }
            Some(Written::Elsewhere) => warnings.push(format!(
                "{0}: image_digest names other repositories only, so the digest of {1} is not \
                known; `dkv pull-latest {0}` or `dkv version-pull {0} {1}` records it",
                service.name, release.tag
            )),
            None => {}
        }
    }
    release.deployed_at = service.deployed_at.clone();
    release.deployed_by = service.deployed_by.clone();
    Ok(Some(release))
}

/// A digest in one of the forms that the old tool left.
enum Written {
    /// `sha256:…`
    Bare(Digest),
    /// `[repository@sha256:…]`, a Go slice as text.
    Printed(Digest),
    /// Such a slice of other repositories, where the same image may have another digest.
    Elsewhere,
}

/// Reads a digest field; empty texts and empty slices are none. Of several the one in the service's
/// own repository counts.
fn read_digest(node: Node<'_>, images: &Images) -> Result<Option<Written>, YamlError> {
    let text = node.text()?.trim();
    let slice = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let Some(inner) = slice.or_else(|| text.contains('@').then_some(text)) else {
        return match text {
            "" => Ok(None),
            text => text
                .parse()
                .map(|digest| Some(Written::Bare(digest)))
                .map_err(|error| node.error(format!("{error}"))),
        };
    };
    let mut digests = Vec::new();
    for part in inner.split_whitespace() {
        let (repository, digest) = part.split_once('@').unwrap_or(("", part));
        let digest: Digest = digest.parse().map_err(|error| node.error(format!("{error}")))?;
        digests.push((repository.parse::<Repository>().ok(), digest));
    }
    // The daemon lists one digest per repository that it knows the image by; ours is the one meant.
    let ours = digests.iter().find(|(repository, _)| {
        repository.as_ref().is_some_and(|repository| images.known.contains(repository))
    });
    let only = digests.first().filter(|(_, first)| {
        images.may_differ && digests.iter().all(|(_, digest)| digest == first)
    });
    Ok(match ours.or(only) {
        Some((_, digest)) => Some(Written::Printed(digest.clone())),
        None if digests.is_empty() => None,
        None => Some(Written::Elsewhere),
    })
}

/// A history entry and whether the file calls it current.
struct Entry {
    release: Release,
    is_current: bool,
}

fn read_entries(history: Node<'_>, images: &Images) -> Result<Vec<Entry>, YamlError> {
    let items = history.sequence()?;
    let mut entries = Vec::with_capacity(items.len());
    for (index, node) in items.enumerate() {
        node.mapping()?;
        let Some(tag) = node.get("tag") else {
            return Err(node.error("a history entry needs its `tag`"));
        };
        let mut release = Release::new(parsed(tag)?, Bytes::default());
        for key in ["digest", "image_digest"] {
            if let Some(digest) = node.get(key)
                && let Some(Written::Bare(digest) | Written::Printed(digest)) =
                    read_digest(digest, images)?
            {
                release.bytes.digest = Some(digest);
            }
        }
        release.bytes.platform_digest = optional_parsed(node, "platform_digest")?;
        release.bytes.image_id = optional_parsed(node, "image_id")?;
        release.deployed_at = optional_text(node, "deployed_at")?;
        release.deployed_by = optional_text(node, "deployed_by")?;
        release.origin = Some(index);
        let status = node.get("status").map(Node::text).transpose()?;
        release.rolled_back = status == Some("rolled-back");
        entries.push(Entry { release, is_current: status == Some("current") });
    }
    Ok(entries)
}

/// Brings together what the service's own fields and its history say about the current release.
fn settle_history(
    service: &Service,
    recorded: Option<Release>,
    entries: Vec<Entry>,
    warnings: &mut Vec<String>,
) -> History {
    let name = &service.name;
    if entries.iter().filter(|entry| entry.is_current).count() > 1 {
        warnings
            .push(format!("{name}: more than one history entry is `current`; the newest counts"));
    }
    let marked = entries.iter().position(|entry| entry.is_current);
    let mut releases: Vec<Release> = entries.into_iter().map(|entry| entry.release).collect();
    let Some(recorded) = recorded else {
        let current = marked.unwrap_or(0);
        return without_repeats(service, releases, current);
    };
    let is_meant = |release: &Release| may_be_one(release, &recorded);
    // Whoever changes the tag by hand leaves the digest of the release before it.
    let digest = recorded.bytes.digest.as_ref();
    let left =
        releases.iter().position(|one| digest.is_some() && one.bytes.digest.as_ref() == digest);
    let by_tag = || releases.iter().position(|one| left.is_some() && one.tag == recorded.tag);
    let current = marked
        .filter(|index| is_meant(&releases[*index]))
        .or_else(|| releases.iter().position(is_meant))
        .or_else(by_tag);
    if current != marked && current.is_some() && marked.is_some() {
        warnings.push(format!(
            "{name}: current_tag says {}, but the history calls another entry current; current_tag \
            counts",
            recorded.tag
        ));
    }
    if let Some(index) = current {
        // What was left there is another release's.
        let digest = recorded.bytes.digest.filter(|_| left.is_none_or(|left| left == index));
        let entry = &mut releases[index];
        entry.bytes.digest = entry.bytes.digest.take().or(digest);
        entry.unverified_digest =
            if entry.bytes.digest.is_none() { recorded.unverified_digest } else { None };
        entry.deployed_by = entry.deployed_by.take().or(recorded.deployed_by);
        return without_repeats(service, releases, index);
    }
    if let Some(index) = left {
        let entry = &mut releases[index];
        let was = std::mem::replace(&mut entry.tag, recorded.tag);
        warnings.push(format!(
            "{name}: current_tag was changed by hand from {was} to {0}, image_digest was not: the \
            release is called {0} now; `dkv version-pull {name} {0}` gets what the registry calls so",
            entry.tag
        ));
        return without_repeats(service, releases, index);
    }
    if digest.is_none() && recorded.unverified_digest.is_none() && !releases.is_empty() {
        warnings.push(format!(
            "{name}: current_tag was changed by hand to {0}, whose digest is not known; `dkv \
            version-pull {name} {0}` records it",
            recorded.tag
        ));
    }
    releases.insert(0, recorded);
    without_repeats(service, releases, 0)
}

/// Whoever moves the cursor by hand leaves the time at which the release that was current before
/// became so. That of the other is known from its own entry alone.
fn settle_deployed(service: &mut Service, marked: Option<&Release>) {
    let Some(marked) = marked else { return };
    let is_marked = |current: &Release| current.origin == marked.origin;
    if service.current().is_none_or(is_marked) {
        return;
    }
    let is_left = service.deployed_at == marked.deployed_at;
    let Some(current) = service.history.current_mut() else { return };
    if current.origin.is_none() {
        if !is_left {
            return;
        }
        (current.deployed_at, current.deployed_by) = (None, None);
    }
    service.deployed_at = current.deployed_at.clone();
    service.deployed_by = current.deployed_by.clone();
}

/// Whether nothing tells the two releases apart.
fn may_be_one(one: &Release, other: &Release) -> bool {
    let digests = [&one.bytes.digest, &other.bytes.digest];
    one.tag == other.tag && (digests.contains(&&None) || digests[0] == digests[1])
}

/// The old tool pushed an entry for every command; of several for one release the one that is
/// current counts, else the newest.
fn without_repeats(service: &Service, releases: Vec<Release>, current: usize) -> History {
    let mut kept: Vec<Release> = Vec::with_capacity(releases.len());
    let mut cursor = 0;
    let current_release = releases.get(current).cloned();
    for (index, release) in releases.into_iter().enumerate() {
        if index == current {
            cursor = kept.len();
        } else if current_release
            .iter()
            .chain(&kept)
            .any(|other| other.is_same(&release, |tag| service.is_moving(tag)))
        {
            continue;
        }
        kept.push(release);
    }
    History::from_entries(kept, cursor).unwrap_or_default()
}
