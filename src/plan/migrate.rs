//! Migration: from Compose services and what runs of them to services of a manifest. What the files
//! and the daemon say comes in as data; what only a registry can tell is left open for the caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::env_file;
use crate::model::interpolation::Template;
use crate::model::manifest::{DEFAULT_TRACK, Ecr, Manifest, Service};
use crate::model::reference::{Digest, Reference, Repository, ServiceName, Tag};

use super::KEEP_TAG_PREFIX;

/// A digest that no image has, to find out where a variable's value goes.
const PROBE: &str =
    "dkvprobe@sha256:0000000000000000000000000000000000000000000000000000000000000000";
const PROBE_TAG: &str = "dkvprobe";
const PROBE_REPOSITORY: &str = "probe.example/dkv/probe";

/// The host of ECR Public.
const ECR_PUBLIC: &str = "public.ecr.aws";

/// How the base names of common infrastructure begin: images that are no release of the product,
/// and that nobody wants to see restarted by an update of it.
const INFRASTRUCTURE: [&str; 20] = [
    "postgres",
    "pgvector",
    "timescale",
    "mysql",
    "mariadb",
    "mongo",
    "redis",
    "valkey",
    "memcached",
    "elasticsearch",
    "opensearch",
    "qdrant",
    "influxdb",
    "rabbitmq",
    "nginx",
    "traefik",
    "caddy",
    "haproxy",
    "grafana",
    "prometheus",
];

/// A Compose service, as the files and the daemon describe it.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name.
    pub compose_service: String,
    /// Its `image:` as written; `None` if it is only built.
    pub text: Option<String>,
    /// Its image with all variables replaced; for one that is only built, the name Compose gives
    /// it.
    pub image: Reference,
    /// Whether it has a build section.
    pub has_build: bool,
    /// Whether it stands in the database files.
    pub is_database: bool,
    /// The image that its container runs or ran, else the local one of its name.
    pub present: Option<Present>,
}

/// An image on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Whether a container runs it now.
    pub is_running: bool,
    /// The name that the container was started by, or that was looked for.
    pub named: Option<Reference>,
    /// The daemon's name for it.
    pub image_id: Digest,
    /// The digests by which it came from registries.
    pub digests: Vec<(Repository, Digest)>,
    /// The tags that name it on this host now.
    pub tags: Vec<(Repository, Tag)>,
}

/// A Compose service of a tracked image that names or runs another version than is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The Compose service.
    pub compose_service: String,
    /// The image that its line names.
    pub image: Reference,
    /// What its container runs, by the daemon's name, if it runs.
    pub runs: Option<Digest>,
    /// Whether its line follows the variables of `versions.env` already.
    pub follows: bool,
    /// Whether the versions are known to differ; else only a registry can tell.
    pub is_certain: bool,
}

/// A service that the manifest lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its name.
    pub name: ServiceName,
    /// Its repository.
    pub image: Repository,
    /// The tag to follow, if it is not `latest`.
    pub track: Option<Tag>,
    /// Whether it is built on this host.
    pub is_built: bool,
    /// The Compose services that run it.
    pub compose_services: Vec<String>,
    /// The variable that existing Compose files use for the tag.
    pub env_tag: Option<String>,
    /// The variable that existing Compose files use for the image.
    pub env_image: Option<String>,
    /// The tag that runs, else the Compose file's; `None` where only a digest says what it is.
    pub tag: Option<Tag>,
    /// The digests that what runs goes by in its repository, else the Compose file's.
    pub digests: Vec<Digest>,
    /// Whether the daemon says that the tag names these digests; a Compose file can claim that of
    /// any.
    pub is_confirmed: bool,
    /// The Compose services that may name other versions of the image.
    pub rivals: Vec<Rival>,
    /// What runs, by the daemon's name, else the local image of that tag.
    pub image_id: Option<Digest>,
    /// Whether that is what a container runs.
    pub is_running: bool,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// A change that makes an image line follow `versions.env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The manifest service.
    pub service: ServiceName,
    /// The Compose service.
    pub compose_service: String,
    /// The line as it is; `None` if there is none.
    pub from: Option<String>,
    /// The line as it should be; or why no line follows and starts the same without `versions.env`.
    pub to: Result<String, String>,
}

/// An image that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untracked {
    /// The Compose services that run it.
    pub compose_services: Vec<String>,
    /// The image.
    pub image: String,
}

/// What a migration comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proposals {
    /// The services to add.
    pub services: Vec<Proposal>,
    /// The images that nothing will track.
    pub untracked: Vec<Untracked>,
    /// The image lines of tracked services, new or not, that do not follow `versions.env`.
    pub changes: Vec<Change>,
    /// The Compose services that name or run other versions than the manifest has recorded already.
    pub rivals: Vec<(ServiceName, Rival)>,
}

/// Groups `lines` into services and leaves out those that `known` has. `wanted` names Compose
/// services that shall be tracked although they do not look like the product's.
#[must_use]
pub fn propose(
    lines: &[Line],
    known: Option<&Manifest>,
    prefix: &str,
    wanted: &[String],
) -> Proposals {
    let groups = group(lines, prefix);
    let product = product_of(&groups, wanted);
    let mut names = Names::new(known, prefix);
    let mut proposals = Proposals::default();
    let mut new = Vec::new();
    for group in groups {
        if let Some(service) = known.and_then(|known| covering(known, &group, prefix)) {
            proposals.changes.extend(group.changes(
                &service.name,
                service.env_tag.as_deref(),
                prefix,
            ));
            let rivals = group.rivals_of_record(service, prefix);
            proposals.rivals.extend(rivals.into_iter().map(|rival| (service.name.clone(), rival)));
            continue;
        }
        let name = if product.contains(&group.repository) { names.take(&group) } else { None };
        match name {
            Some(name) => new.push((name, group)),
            None => proposals.untracked.push(Untracked {
                compose_services: group.compose_services(),
                image: group.readings[0].line.image.to_string(),
            }),
        }
    }
    let shared = shared_variables(&new, known, prefix);
    for (name, group) in new {
        let env_tag = group.env_tag(&name, prefix, &shared);
        proposals.changes.extend(group.changes(&name, env_tag.as_deref(), prefix));
        proposals.services.push(group.into_proposal(name, env_tag, prefix, &shared));
    }
    proposals
}

/// The `ecr` section for images in ECR: the public alias that most of them have, else the private
/// registry.
#[must_use]
pub fn ecr_of<'a>(images: impl Iterator<Item = &'a Repository> + Clone) -> Option<Ecr> {
    let none = Ecr {
        registry: ECR_PUBLIC.to_owned(),
        repository_alias: String::new(),
        use_private: false,
        private_registry: String::new(),
        private_region: "us-east-1".to_owned(),
    };
    let mut aliases: BTreeMap<&str, usize> = BTreeMap::new();
    for image in images.clone().filter(|image| image.host() == ECR_PUBLIC) {
        if let Some((alias, _)) = image.path().split_once('/') {
            *aliases.entry(alias).or_default() += 1;
        }
    }
    if let Some((alias, _)) = aliases.into_iter().max_by_key(|(_, count)| *count) {
        return Some(Ecr { repository_alias: alias.to_owned(), ..none });
    }
    images.into_iter().find_map(|image| {
        let region = image.host().split_once(".dkr.ecr.")?.1.split('.').next()?;
        Some(Ecr {
            use_private: true,
            private_registry: image.host().to_owned(),
            private_region: region.to_owned(),
            ..none.clone()
        })
    })
}

/// An image line and what its variables do.
struct Reading<'a> {
    line: &'a Line,
    /// The name in `DK_<NAME>_TAG` or `DK_<NAME>_IMAGE`, in lower case.
    own_name: Option<String>,
    /// The variables that can give it `tag@digest`, outermost first.
    tag_variables: Vec<String>,
    /// The variables that can give it the repository.
    image_variables: Vec<String>,
    has_variables: bool,
    /// The image when no variable is set.
    default: Option<Reference>,
}

impl<'a> Reading<'a> {
    fn of(line: &'a Line, prefix: &str) -> Self {
        let template = line.text.as_deref().and_then(|text| Template::parse(text).ok());
        let variables: Vec<String> =
            template.iter().flat_map(Template::variables).map(str::to_owned).collect();
        let gives = |value: &str, fits: &dyn Fn(&Reference) -> bool| -> Vec<String> {
            let leads_there = |name: &&String| {
                template.as_ref().is_some_and(|template| {
                    probe(template, name, value).is_some_and(|found| fits(&found))
                })
            };
            variables.iter().filter(leads_there).cloned().collect()
        };
        let tag_variables =
            gives(PROBE, &|found| found.tag.as_ref().is_some_and(|tag| tag.as_str() == PROBE_TAG));
        // A variable that holds the tag as well cannot be fed with a repository.
        let keeps_tag = |found: &Reference| {
            found.tag.is_some() == line.image.tag.is_some()
                && found.digest.is_some() == line.image.digest.is_some()
        };
        let image_variables = gives(PROBE_REPOSITORY, &|found| {
            found.repository.as_written() == PROBE_REPOSITORY && keeps_tag(found)
        });
        let middle = |name: &String, suffix: &str| {
            let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            (!middle.is_empty()).then(|| middle.to_lowercase())
        };
        let own_name = tag_variables
            .iter()
            .find_map(|name| middle(name, "_TAG"))
            .or_else(|| image_variables.iter().find_map(|name| middle(name, "_IMAGE")));
        let default =
            template.as_ref().and_then(Template::default_value).and_then(|text| text.parse().ok());
        Self {
            line,
            own_name,
            tag_variables,
            image_variables,
            has_variables: !variables.is_empty(),
            default,
        }
    }

    fn is_literal_pin(&self) -> bool {
        !self.has_variables && self.line.image.digest.is_some()
    }

    /// Whether the line takes its tag from the service's own variable, or from `env_tag`.
    fn follows(&self, own_tag: &str, env_tag: Option<&str>) -> bool {
        self.tag_variables
            .iter()
            .any(|variable| variable == own_tag || Some(variable.as_str()) == env_tag)
    }

    /// What its container runs, if it runs.
    fn running(&self) -> Option<&Digest> {
        self.line
            .present
            .as_ref()
            .filter(|present| present.is_running)
            .map(|present| &present.image_id)
    }

    /// Whether both have the same version; `None` if only a registry can tell.
    fn is_version_of(&self, other: &Self) -> Option<bool> {
        if let (Some(mine), Some(theirs)) = (self.running(), other.running()) {
            return Some(mine == theirs);
        }
        let name =
            |reading: &Self| (tag_named(&reading.line.image), reading.line.image.digest.clone());
        if name(self) == name(other) {
            return Some(true);
        }
        let here = self.line.present.as_ref().zip(other.line.present.as_ref());
        here.map(|(mine, theirs)| mine.image_id == theirs.image_id)
    }

    fn rival(&self, follows: bool, is_certain: bool) -> Rival {
        Rival {
            compose_service: self.line.compose_service.clone(),
            image: self.line.image.clone(),
            runs: self.running().cloned(),
            follows,
            is_certain,
        }
    }

    /// The line with `own_tag`, and where its image is literal `own_image`, in it, and otherwise as
    /// it is written: without `versions.env` it starts what it started.
    fn following(&self, own_image: &str, own_tag: &str) -> Result<String, String> {
        let Some(text) = self.line.text.as_deref() else {
            return Ok(format!(
                "${{{own_image}:-{}}}:${{{own_tag}:-{}}}",
                self.line.image.repository,
                tag_named(&self.line.image)
            ));
        };
        let (image, tail) = split(text);
        let has_tail = !tail.is_empty();
        let names_version =
            |reference: &Reference| reference.tag.is_some() || reference.digest.is_some();
        if !has_tail
            && (names_version(&self.line.image) || self.default.as_ref().is_some_and(names_version))
        {
            return Err(format!(
                "{} gives the image and its tag in one; write them as two, \
                    `${{…_IMAGE}}:${{…_TAG}}`",
                variables_in(image)
            ));
        }
        let tag = if tail.contains('$') {
            // Compose v1 does not know `${A:-${B}}`; what a variable gives now is not for the file
            // to keep.
            let version = |reference: &Reference| (reference.tag.clone(), reference.digest.clone());
            let same = self
                .default
                .as_ref()
                .filter(|default| version(default) == version(&self.line.image));
            let Some(default) = same else {
                return Err(format!(
                    "its tag comes from {}, which has no default or says something else than it, \
                        and Compose v1 knows no                      default inside a default",
                    variables_in(tail)
                ));
            };
            format!("{}{}", tag_named(default), pin_of(default))
        } else {
            format!("{}{}", tag_named(&self.line.image), pin_of(&self.line.image))
        };
        let image = if image.contains('$') {
            image.to_owned()
        } else {
            format!("${{{own_image}:-{image}}}")
        };
        Ok(format!("{image}:${{{own_tag}:-{tag}}}"))
    }

    /// The tag to follow, if it is not `latest`. Beside a digest, a version only says what the
    /// digest was; a moving tag is still followed.
    fn track(&self) -> Option<Tag> {
        let tag = self.default_tag()?;
        let says_version =
            tag.as_str().trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        let is_record = self.is_literal_pin() && says_version;
        (!is_record && tag.as_str() != DEFAULT_TRACK).then(|| tag.clone())
    }

    /// The tag that the file names when nobody sets a variable.
    fn default_tag(&self) -> Option<&Tag> {
        let default = self.default.as_ref().unwrap_or(&self.line.image);
        default.tag.as_ref()
    }
}

/// The tag that a reference names, said or not.
fn tag_named(reference: &Reference) -> &str {
    reference.tag.as_ref().map_or(DEFAULT_TRACK, Tag::as_str)
}

/// A pin stays one for whoever starts Compose without `versions.env`.
fn pin_of(reference: &Reference) -> String {
    reference.digest.as_ref().map_or_else(String::new, |digest| format!("@{digest}"))
}

/// The text of an image line in two: the repository, and the tag and digest with what stands before
/// them. Colons of ports and inside of braces are part of the repository.
fn split(text: &str) -> (&str, &str) {
    let mut depth = 0_usize;
    let mut at = None;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '/' if depth == 0 => at = None,
            ':' | '@' if depth == 0 => at = at.or(Some(index)),
            _ => {}
        }
    }
    text.split_at(at.unwrap_or(text.len()))
}

/// The variables of a text, for messages.
fn variables_in(text: &str) -> String {
    let template = Template::parse(text);
    template.iter().flat_map(Template::variables).collect::<Vec<_>>().join(", ")
}

/// What the line comes to if `variable` has `value` and all others have none, or where that is no
/// image name, something.
fn probe(template: &Template, variable: &str, value: &str) -> Option<Reference> {
    [None, Some("x")].into_iter().find_map(|others| {
        let lookup = |name: &str| {
            if name == variable { Some(value.to_owned()) } else { others.map(str::to_owned) }
        };
        template.evaluate(&lookup).ok()?.parse().ok()
    })
}

/// Compose services that run one image.
struct Group<'a> {
    repository: Repository,
    own_name: Option<String>,
    readings: Vec<Reading<'a>>,
}

/// One group for each name in variables and, without such, for each repository; in the order of the
/// files.
fn group<'a>(lines: &'a [Line], prefix: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let (named, plain): (Vec<_>, Vec<_>) = lines
        .iter()
        .map(|line| Reading::of(line, prefix))
        .partition(|reading| reading.own_name.is_some());
    for reading in named.into_iter().chain(plain) {
        let repository = reading.line.image.repository.clone();
        let fits = |group: &&mut Group<'_>| {
            group.repository == repository
                && (reading.own_name.is_none() || group.own_name == reading.own_name)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.readings.push(reading),
            None => groups.push(Group {
                repository,
                own_name: reading.own_name.clone(),
                readings: vec![reading],
            }),
        }
    }
    let place = |group: &Group<'_>| {
        let first = lines
            .iter()
            .position(|line| group.readings.iter().any(|reading| std::ptr::eq(reading.line, line)));
        first.unwrap_or(usize::MAX)
    };
    for group in &mut groups {
        group
            .readings
            .sort_by_key(|reading| lines.iter().position(|line| std::ptr::eq(reading.line, line)));
    }
    groups.sort_by_key(place);
    groups
}

/// The repositories of the product: those that are built here, that variables name, or that live
/// beside such; where no line has a variable, whatever is neither an official image nor
/// infrastructure.
fn product_of(groups: &[Group<'_>], wanted: &[String]) -> BTreeSet<Repository> {
    let is_marked = |group: &&Group<'_>| {
        group.readings.iter().any(|reading| {
            reading.has_variables
                || reading.line.has_build
                || wanted.contains(&reading.line.compose_service)
        })
    };
    let homes: BTreeSet<(String, String)> =
        groups.iter().filter(is_marked).filter_map(|group| home(&group.repository)).collect();
    let has_variables =
        groups.iter().flat_map(|group| &group.readings).any(|reading| reading.has_variables);
    let belongs = |group: &&Group<'_>| {
        let is_application = group.readings.iter().any(|reading| !reading.line.is_database);
        is_marked(group)
            || (is_application
                && !is_infrastructure(&group.repository)
                && home(&group.repository)
                    .is_some_and(|home| homes.contains(&home) || !has_variables))
    };
    let product: BTreeSet<Repository> =
        groups.iter().filter(belongs).map(|group| group.repository.clone()).collect();
    if !product.is_empty() {
        return product;
    }
    // Nothing looks like a product: then what is no infrastructure is it.
    groups
        .iter()
        .filter(|group| !is_infrastructure(&group.repository))
        .map(|group| group.repository.clone())
        .collect()
}

/// The publisher's part of a repository: its host and the path but for the name. Official images
/// have none.
fn home(repository: &Repository) -> Option<(String, String)> {
    let (publisher, _) = repository.path().rsplit_once('/').unwrap_or(("", repository.path()));
    (publisher != "library").then(|| (repository.host().to_owned(), publisher.to_owned()))
}

fn is_infrastructure(repository: &Repository) -> bool {
    INFRASTRUCTURE.iter().any(|name| repository.base_name().starts_with(name))
}

/// The service that the manifest has already: by the name in its variables, else by its repository.
fn covering<'a>(known: &'a Manifest, group: &Group<'_>, prefix: &str) -> Option<&'a Service> {
    let services = || known.services.values();
    if let Some(own_name) = &group.own_name {
        let variable = env_file::variable(prefix, &own_name.parse().ok()?, "TAG");
        return services()
            .find(|service| env_file::variable(prefix, &service.name, "TAG") == variable);
    }
    let runs_all = |service: &&Service| {
        group.compose_services().iter().all(|name| service.compose_services.contains(name))
    };
    services()
        .find(|service| service.image.as_ref() == Some(&group.repository))
        .or_else(|| services().find(runs_all))
}

/// Gives every service a name whose variables no other has.
struct Names<'a> {
    prefix: &'a str,
    taken: BTreeSet<String>,
}

impl<'a> Names<'a> {
    fn new(known: Option<&Manifest>, prefix: &'a str) -> Self {
        let taken = known
            .iter()
            .flat_map(|known| known.services.keys())
            .map(|name| env_file::variable(prefix, name, "TAG"));
        Self { prefix, taken: taken.collect() }
    }

    fn take(&mut self, group: &Group<'_>) -> Option<ServiceName> {
        let base = group.repository.base_name();
        let first = &group.readings[0];
        let publisher = group
            .repository
            .path()
            .rsplit('/')
            .nth(1)
            .map(|publisher| format!("{publisher}-{base}"));
        // An image that is only built is named after its project, which says little.
        let built = first.line.text.is_none().then(|| first.line.compose_service.clone());
        let candidates = [
            group.own_name.clone(),
            built,
            Some(base.to_owned()),
            publisher,
            Some(first.line.compose_service.clone()),
        ];
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = candidates
            .into_iter()
            .flatten()
            .chain(numbered)
            .filter_map(|name| name.parse::<ServiceName>().ok());
        names.find(|name| self.taken.insert(env_file::variable(self.prefix, name, "TAG")))
    }
}

/// The variables that more than one service would set: fed with `tag@digest`, they cannot be right
/// for both.
fn shared_variables(
    new: &[(ServiceName, Group<'_>)],
    known: Option<&Manifest>,
    prefix: &str,
) -> BTreeSet<String> {
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for (name, group) in new {
        let mut used: BTreeSet<String> =
            ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, name, suffix)).into();
        for reading in &group.readings {
            used.extend(reading.tag_variables.iter().chain(&reading.image_variables).cloned());
        }
        for variable in used {
            *users.entry(variable).or_default() += 1;
        }
    }
    for service in known.iter().flat_map(|known| known.services.values()) {
        let own = ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, &service.name, suffix));
        for variable in
            own.into_iter().chain(service.env_tag.clone()).chain(service.env_image.clone())
        {
            *users.entry(variable).or_default() += 1;
        }
    }
    users.into_iter().filter(|(_, count)| *count > 1).map(|(variable, _)| variable).collect()
}

impl Group<'_> {
    fn compose_services(&self) -> Vec<String> {
        self.readings.iter().map(|reading| reading.line.compose_service.clone()).collect()
    }

    /// The Compose service whose version is recorded: rather one that runs, rather one whose image
    /// has this repository's name, rather one whose line follows `versions.env` in any case; among
    /// these the version that most have, and of several the one that the files name first.
    fn lead(&self, own_tag: &str, env_tag: Option<&str>) -> &Reading<'_> {
        let version = |reading: &Reading<'_>| match reading.running() {
            Some(id) => id.to_string(),
            None => format!("{}{}", tag_named(&reading.line.image), pin_of(&reading.line.image)),
        };
        let alike = |reading: &Reading<'_>| {
            let mine = version(reading);
            self.readings.iter().filter(|other| version(other) == mine).count()
        };
        let is_foreign = |reading: &Reading<'_>| {
            let named = reading.line.present.as_ref().map(|present| present.named.as_ref());
            named.is_some_and(|named| named.is_none_or(|named| named.repository != self.repository))
        };
        let rank = |reading: &&Reading<'_>| {
            (
                reading.running().is_none(),
                is_foreign(reading),
                !reading.follows(own_tag, env_tag),
                std::cmp::Reverse(alike(reading)),
                reading.line.present.is_none(),
            )
        };
        self.readings.iter().min_by_key(rank).unwrap_or(&self.readings[0])
    }

    /// The Compose services that have, or may have, another version than `lead`.
    fn rivals(&self, lead: &Reading<'_>, own_tag: &str, env_tag: Option<&str>) -> Vec<Rival> {
        let others = self.readings.iter().filter(|reading| !std::ptr::eq(reading.line, lead.line));
        let rivals = others.filter_map(|reading| {
            let same = reading.is_version_of(lead);
            (same != Some(true))
                .then(|| reading.rival(reading.follows(own_tag, env_tag), same.is_some()))
        });
        rivals.collect()
    }

    /// The Compose services whose lines name another version than `service` has recorded. A line
    /// that names the tracked tag is behind or ahead of the record, but means the same; one with
    /// variables of its own follows the record.
    fn rivals_of_record(&self, service: &Service, prefix: &str) -> Vec<Rival> {
        let own_tag = env_file::variable(prefix, &service.name, "TAG");
        let Some(current) = service.current() else { return Vec::new() };
        let is_recorded = |digest: &Digest| current.bytes.has_digest(digest);
        let agrees = |reading: &Reading<'_>| {
            let (line, present) = (&reading.line.image, reading.line.present.as_ref());
            let names_it = match &line.digest {
                Some(digest) => is_recorded(digest),
                None => {
                    tag_named(line) == service.track_name()
                        || tag_named(line) == current.tag.as_str()
                }
            };
            names_it
                || present.is_some_and(|present| {
                    current.bytes.image_id.as_ref() == Some(&present.image_id)
                        || present.digests.iter().any(|(repository, digest)| {
                            *repository == self.repository && is_recorded(digest)
                        })
                })
        };
        let others = self
            .readings
            .iter()
            .filter(|reading| !reading.follows(&own_tag, service.env_tag.as_deref()));
        others
            .filter(|reading| !reading.line.has_build && !agrees(reading))
            .map(|reading| reading.rival(false, true))
            .collect()
    }

    /// The first of these variables that may be fed, unless the service's own is among them.
    fn usable(variables: &[String], own: &str, shared: &BTreeSet<String>) -> Option<String> {
        let is_own = variables.iter().any(|variable| variable == own);
        variables.iter().find(|variable| !is_own && !shared.contains(*variable)).cloned()
    }

    fn env_tag(
        &self,
        name: &ServiceName,
        prefix: &str,
        shared: &BTreeSet<String>,
    ) -> Option<String> {
        let own = env_file::variable(prefix, name, "TAG");
        self.readings.iter().find_map(|reading| Self::usable(&reading.tag_variables, &own, shared))
    }

    fn changes(&self, name: &ServiceName, env_tag: Option<&str>, prefix: &str) -> Vec<Change> {
        let [image, tag] = ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, name, suffix));
        let readings = self.readings.iter().filter(|reading| !reading.follows(&tag, env_tag));
        let change = |reading: &Reading<'_>| Change {
            service: name.clone(),
            compose_service: reading.line.compose_service.clone(),
            from: reading.line.text.clone(),
            to: reading.following(&image, &tag),
        };
        readings.map(change).collect()
    }

    fn into_proposal(
        self,
        name: ServiceName,
        env_tag: Option<String>,
        prefix: &str,
        shared: &BTreeSet<String>,
    ) -> Proposal {
        let own_image = env_file::variable(prefix, &name, "IMAGE");
        let env_image = self
            .readings
            .iter()
            .find_map(|reading| Self::usable(&reading.image_variables, &own_image, shared));
        let mut notes = Vec::new();
        for reading in &self.readings {
            if let Some(variable) =
                reading.tag_variables.iter().find(|variable| shared.contains(*variable))
            {
                notes.push(format!(
                    "{} gets its tag from {variable}, which other images use as well; one \
                        variable cannot carry two digests",
                    reading.line.compose_service
                ));
            }
        }
        let own_tag = env_file::variable(prefix, &name, "TAG");
        let lead = self.lead(&own_tag, env_tag.as_deref());
        let present = lead.line.present.as_ref();
        notes.extend(self.disagreement());
        let named = present
            .and_then(|present| present.named.as_ref())
            .filter(|named| named.repository == self.repository);
        if let (Some(present), None) = (present.filter(|present| present.is_running), named)
            && let Some(other) = &present.named
        {
            notes.push(format!("what runs was started as {other}, not as {}", self.repository));
        }
        let track = lead.track();
        let is_keep_tag = |tag: &&Tag| tag.as_str().starts_with(KEEP_TAG_PREFIX);
        let started_by = named.and_then(|named| named.tag.as_ref()).filter(|tag| !is_keep_tag(tag));
        let written = lead.line.image.tag.as_ref().filter(|tag| !is_keep_tag(tag));
        let tag = started_by.or(written).cloned().or_else(|| track.clone());
        let digests = match present {
            Some(present) => self.digests_of(present),
            None => lead.line.image.digest.clone().into_iter().collect(),
        };
        // A name with a digest says nothing about its tag: the daemon looks at the digest alone.
        let was_meant = started_by.is_some() && named.is_some_and(|named| named.digest.is_none());
        let is_named = |tag: &Tag| {
            present.is_some_and(|present| {
                present
                    .tags
                    .iter()
                    .any(|(repository, one)| *repository == self.repository && one == tag)
            })
        };
        Proposal {
            is_confirmed: was_meant || tag.as_ref().is_some_and(is_named),
            rivals: self.rivals(lead, &own_tag, env_tag.as_deref()),
            track,
            is_built: self.readings.iter().any(|reading| reading.line.has_build),
            compose_services: self.compose_services(),
            env_image,
            tag,
            digests,
            image_id: present.map(|present| present.image_id.clone()),
            is_running: present.is_some_and(|present| present.is_running),
            notes,
            env_tag,
            name,
            image: self.repository,
        }
    }

    /// The digests of what is present in this repository, the one that was asked for first.
    fn digests_of(&self, present: &Present) -> Vec<Digest> {
        let asked = present.named.as_ref().and_then(|named| named.digest.as_ref());
        let mut digests: Vec<Digest> = present
            .digests
            .iter()
            .filter(|(repository, _)| *repository == self.repository)
            .map(|(_, digest)| digest.clone())
            .collect();
        digests.sort_by_key(|digest| Some(digest) != asked);
        digests
    }

    /// Compose services of one image that run different ones.
    fn disagreement(&self) -> Option<String> {
        let mut images: BTreeMap<&Digest, Vec<&str>> = BTreeMap::new();
        for reading in &self.readings {
            if let Some(present) =
                reading.line.present.as_ref().filter(|present| present.is_running)
            {
                images.entry(&present.image_id).or_default().push(&reading.line.compose_service);
            }
        }
        if images.len() < 2 {
            return None;
        }
        let each: Vec<String> = images
            .iter()
            .map(|(id, services)| format!("{} ({})", services.join(", "), id.short()))
            .collect();
        Some(format!("its Compose services run different images now: {}", each.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(service: &str, text: &str) -> Line {
        let image = Template::parse(text).unwrap().default_value().unwrap().parse().unwrap();
        Line {
            compose_service: service.to_owned(),
            text: Some(text.to_owned()),
            image,
            has_build: false,
            is_database: false,
            present: None,
        }
    }

    fn digest(seed: u8) -> Digest {
        Digest::of(&[seed])
    }

    fn running(line: Line, named: &str, id: u8, digests: &[(&str, u8)]) -> Line {
        let digests = digests
            .iter()
            .map(|(repository, seed)| (repository.parse().unwrap(), digest(*seed)))
            .collect();
        let present = Present {
            is_running: true,
            named: named.parse().ok(),
            image_id: digest(id),
            digests,
            tags: Vec::new(),
        };
        Line { present: Some(present), ..line }
    }

    fn proposed(lines: &[Line]) -> Proposals {
        propose(lines, None, "DK_", &[])
    }

    fn names(proposals: &Proposals) -> Vec<&str> {
        proposals.services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn services_are_named_as_their_variables_say_and_lines_that_follow_stay() {
        let all = proposed(&[
            line(
                "req-router",
                "${DK_REQ_ROUTER_IMAGE:-public.ecr.aws/n5k3t9x2/req_router}:${DK_REQ_ROUTER_TAG:-latest}",
            ),
            line("vault", "${DK_VAULT_IMAGE:-hashicorp/vault}:${DK_VAULT_TAG:-1.20.3}"),
            line("nginx", "nginx:latest"),
            line("cache", "public.ecr.aws/n5k3t9x2/redis:7"),
            line("beside", "public.ecr.aws/n5k3t9x2/beside:latest"),
        ]);
        assert_eq!(names(&all), ["req_router", "vault", "beside"]);
        assert_eq!(all.services[0].track, None);
        assert_eq!(all.services[1].track.as_ref().map(Tag::as_str), Some("1.20.3"));
        assert_eq!(
            all.untracked.iter().map(|one| one.image.as_str()).collect::<Vec<_>>(),
            ["nginx:latest", "public.ecr.aws/n5k3t9x2/redis:7"]
        );
        let changes: Vec<&str> =
            all.changes.iter().map(|change| change.compose_service.as_str()).collect();
        assert_eq!(changes, ["beside"]);
        assert_eq!(
            all.changes[0].to,
            Ok("${DK_BESIDE_IMAGE:-public.ecr.aws/n5k3t9x2/beside}:${DK_BESIDE_TAG:-latest}"
                .to_owned())
        );
        let ecr = ecr_of(all.services.iter().map(|service| &service.image)).unwrap();
        assert_eq!(
            (ecr.registry.as_str(), ecr.repository_alias.as_str()),
            ("public.ecr.aws", "n5k3t9x2")
        );
    }

    #[test]
    fn what_runs_decides_over_what_the_file_says() {
        let text = "${DK_WEB_IMAGE:-r.example/web}:${DK_WEB_TAG:-latest}";
        let all = proposed(&[running(
            line("web", text),
            "r.example/web:1.64",
            1,
            &[("r.example/web", 7), ("r.example/other", 8)],
        )]);
        let web = &all.services[0];
        assert_eq!(
            (web.tag.as_ref().map(Tag::as_str), web.digests.as_slice()),
            (Some("1.64"), &[digest(7)][..])
        );
        assert_eq!((web.image_id.clone(), web.is_running), (Some(digest(1)), true));
        assert!(
            web.digests.iter().all(|digest| Some(digest) != web.image_id.as_ref()),
            "an image ID is no digest"
        );
    }

    #[test]
    fn one_image_with_many_compose_services_is_one_service_fed_by_its_own_variable() {
        let build = |service: &str| Line {
            has_build: true,
            ..line(service, "whisperengine-bot:${VERSION:-latest}")
        };
        let bot = |service: &str, id| running(build(service), "whisperengine-bot:latest", id, &[]);
        let all = proposed(&[
            bot("db-migrate", 1),
            bot("elena-bot", 1),
            build("marcus-bot"),
            line("postgres", "postgres:16.4-alpine"),
        ]);
        assert_eq!(names(&all), ["whisperengine-bot"]);
        let bot_service = &all.services[0];
        assert_eq!(bot_service.compose_services, ["db-migrate", "elena-bot", "marcus-bot"]);
        assert_eq!((bot_service.env_tag.as_deref(), bot_service.is_built), (Some("VERSION"), true));
        assert!(all.changes.is_empty() && bot_service.notes.is_empty(), "{all:?}");

        let torn = proposed(&[bot("db-migrate", 2), bot("elena-bot", 1)]);
        assert!(torn.services[0].notes[0].contains("different images"), "{torn:?}");
    }

    #[test]
    fn one_variable_cannot_feed_two_images() {
        let all = proposed(&[
            line("db-migrate", "whisperengine/whisperengine:${VERSION:-v1.0.2}"),
            line("assistant", "whisperengine/whisperengine:${VERSION:-v1.0.2}"),
            line("ui", "whisperengine/whisperengine-ui:${VERSION:-v1.0.2}"),
        ]);
        assert_eq!(names(&all), ["whisperengine", "whisperengine-ui"]);
        assert!(all.services.iter().all(|service| service.env_tag.is_none()));
        assert!(all.services[1].notes[0].contains("VERSION"), "{all:?}");
        assert_eq!(all.changes.len(), 3);
        assert_eq!(
            all.changes[2].to.as_deref(),
            Ok(
                "${DK_WHISPERENGINE_UI_IMAGE:-whisperengine/whisperengine-ui}:${DK_WHISPERENGINE_UI_TAG:-v1.0.2}"
            )
        );
        assert_eq!(all.services[0].track.as_ref().map(Tag::as_str), Some("v1.0.2"));
    }

    #[test]
    fn files_without_variables_have_their_application_images_tracked() {
        let pin = format!("harystyles/privexbot-backend@{}", digest(9));
        let database = Line { is_database: true, ..line("pg", "someone/else:1") };
        let all = proposed(&[
            line("backend", &pin),
            line("postgres", "postgres:16-alpine"),
            line("v", "agnohq/pgvector:16"),
            database,
        ]);
        assert_eq!(names(&all), ["privexbot-backend"]);
        let backend = &all.services[0];
        assert_eq!(
            (backend.digests.as_slice(), &backend.tag, &backend.track),
            (&[digest(9)][..], &None, &None)
        );
        assert_eq!(
            all.changes[0].to,
            Ok(format!(
                "${{DK_PRIVEXBOT_BACKEND_IMAGE:-harystyles/privexbot-backend}}:${{DK_PRIVEXBOT_BACKEND_TAG:-latest@{}}}",
                digest(9)
            ))
        );
        let with_tag = proposed(&[
            line("backend", &format!("a/b:1.42@{}", digest(9))),
            line("c", "a/c:stable"),
        ]);
        assert_eq!(
            with_tag.services[0].track, None,
            "a version beside a digest is a record, not a tag to follow"
        );
        assert_eq!(with_tag.services[1].track.as_ref().map(Tag::as_str), Some("stable"));
    }

    #[test]
    fn a_tag_with_something_around_the_variable_does_not_follow() {
        let all = proposed(&[
            line("a", "r.example/a:${V:-1}-alpine"),
            line("b", "${REGISTRY:-r.example}/b:${B_VERSION:-2}"),
        ]);
        assert_eq!(
            (all.services[0].env_tag.as_deref(), all.services[1].env_tag.as_deref()),
            (None, Some("B_VERSION"))
        );
        let changes: Vec<&str> =
            all.changes.iter().map(|change| change.to.as_deref().unwrap()).collect();
        assert_eq!(changes, ["${DK_A_IMAGE:-r.example/a}:${DK_A_TAG:-1-alpine}"]);
    }

    #[test]
    fn images_may_share_a_base_name_or_a_repository() {
        let all = proposed(&[
            line("one", "r.example/a/web:1"),
            line("two", "r.example/b/web:1"),
            line("red", "${DK_RED_IMAGE:-r.example/c/app}:${DK_RED_TAG:-1}"),
            line("blue", "${DK_BLUE_IMAGE:-r.example/c/app}:${DK_BLUE_TAG:-2}"),
            line("grey", "r.example/c/app:1"),
        ]);
        // Beside lines with variables, literal images of other publishers are not the product's.
        assert_eq!(names(&all), ["red", "blue"]);
        assert_eq!(all.services[0].compose_services, ["red", "grey"]);
        let all = proposed(&[line("one", "r.example/a/web:1"), line("two", "r.example/b/web:1")]);
        assert_eq!(names(&all), ["web", "b-web"]);
        let all = propose(
            &[line("two", "nginx:1"), line("x", "${DK_X_TAG:-r/x}")],
            None,
            "DK_",
            &["two".to_owned()],
        );
        assert_eq!(all.services[0].name.as_str(), "nginx");
    }

    #[test]
    fn a_manifest_gets_what_it_lacks_only() {
        let manifest = Manifest::read(
            b"schema_version: '1.1'\nservices:\n  req_router:\n    image: r.example/req_router\n  \
                bot:\n    image: r.example/bot\n    env_tag: VERSION\n",
        )
        .unwrap();
        let lines = [
            line(
                "req-router",
                "${DK_REQ_ROUTER_IMAGE:-r.example/req_router}:${DK_REQ_ROUTER_TAG:-latest}",
            ),
            line(
                "mcp-server",
                "${DK_MCP_SERVER_IMAGE:-r.example/mcp_server}:${DK_MCP_SERVER_TAG:-latest}",
            ),
            line("elena", "r.example/bot:${VERSION:-latest}"),
            line("odd", "r.example/bot:latest"),
        ];
        let all = propose(&lines, Some(&manifest), "DK_", &[]);
        assert_eq!(names(&all), ["mcp_server"]);
        assert_eq!(
            all.changes.iter().map(|change| change.compose_service.as_str()).collect::<Vec<_>>(),
            ["odd"]
        );
    }

    #[test]
    fn a_keep_tag_is_no_version() {
        let kept = running(
            line("a", "r.example/a:${V:-latest}"),
            "r.example/a:dkv-0123abcd-0123456789ab",
            1,
            &[],
        );
        assert_eq!(proposed(&[kept]).services[0].tag.as_ref().map(Tag::as_str), Some("latest"));
    }

    /// A line whose variables have values now, as `.env` gives them.
    fn evaluated(service: &str, text: &str, image: &str) -> Line {
        Line { text: Some(text.to_owned()), image: image.parse().unwrap(), ..line(service, "x") }
    }

    #[test]
    fn one_version_is_recorded_whole_and_the_others_are_rivals() {
        let pinned = format!("r.example/o/svc@{}", digest(1));
        for (texts, tag, digests, rivals) in [
            (
                ["r.example/o/svc:1.1", "r.example/o/svc:1.2", "r.example/o/svc:1.2"],
                Some("1.2"),
                vec![],
                vec!["a"],
            ),
            (
                ["r.example/o/svc:1.1", "r.example/o/svc:1.2", "r.example/o/svc"],
                Some("1.1"),
                vec![],
                vec!["b", "c"],
            ),
            (
                [pinned.as_str(), "r.example/o/svc:1.2", "r.example/o/svc:1.1"],
                None,
                vec![digest(1)],
                vec!["b", "c"],
            ),
            (
                ["r.example/o/svc", "r.example/o/svc:latest", "r.example/o/svc:1.1"],
                None,
                vec![],
                vec!["c"],
            ),
        ] {
            let lines: Vec<Line> =
                ["a", "b", "c"].iter().zip(texts).map(|(name, text)| line(name, text)).collect();
            let all = proposed(&lines);
            assert_eq!(all.services.len(), 1, "{texts:?}");
            let svc = &all.services[0];
            assert_eq!(
                (svc.tag.as_ref().map(Tag::as_str), &svc.digests),
                (tag, &digests),
                "{texts:?}"
            );
            let found: Vec<&str> =
                svc.rivals.iter().map(|rival| rival.compose_service.as_str()).collect();
            assert_eq!(found, rivals, "{texts:?}");
            assert!(
                svc.rivals.iter().all(|rival| !rival.is_certain && !rival.follows),
                "only the registry knows: {svc:?}"
            );
        }
    }

    #[test]
    fn a_line_that_follows_decides_over_literal_ones_and_what_runs_over_both() {
        let texts = [
            "r.example/svc:1.2",
            "r.example/svc:1.2",
            "${DK_SVC_IMAGE:-r.example/svc}:${DK_SVC_TAG:-1.1}",
        ];
        let lines = || {
            ["a", "b", "c"]
                .iter()
                .zip(texts)
                .map(|(name, text)| line(name, text))
                .collect::<Vec<_>>()
        };
        let all = proposed(&lines());
        assert_eq!(all.services[0].tag.as_ref().map(Tag::as_str), Some("1.1"));
        let mut lines = lines();
        lines[1] = running(lines[1].clone(), "r.example/svc:1.2", 2, &[("r.example/svc", 2)]);
        lines[2] = running(lines[2].clone(), "r.example/svc:1.1", 1, &[("r.example/svc", 1)]);
        let svc = &proposed(&lines).services[0];
        assert_eq!(
            (svc.tag.as_ref().map(Tag::as_str), &svc.digests),
            (Some("1.1"), &vec![digest(1)])
        );
        assert_eq!(
            svc.rivals.iter().map(|rival| rival.is_certain).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(svc.is_confirmed);
    }

    #[test]
    fn what_a_file_claims_of_a_digest_is_not_confirmed() {
        let claimed = format!("r.example/o/a:1.2@{}", digest(1));
        assert!(!proposed(&[line("a", &claimed)]).services[0].is_confirmed);
        let mut running = running(line("a", &claimed), &claimed, 1, &[("r.example/o/a", 1)]);
        assert!(
            !proposed(&[running.clone()]).services[0].is_confirmed,
            "the daemon looks at the digest only"
        );
        let tags = vec![("r.example/o/a".parse().unwrap(), "1.2".parse().unwrap())];
        running.present.as_mut().unwrap().tags = tags;
        assert!(proposed(&[running]).services[0].is_confirmed);
    }

    #[test]
    fn without_versions_env_a_line_starts_what_it_started() {
        let to = |line: Line| proposed(&[line]).changes[0].to.clone();
        for (text, image, expected) in [
            (
                "${REG:-foo}/cold/svc:1.1",
                "127.0.0.1:5000/cold/svc:1.1",
                "${REG:-foo}/cold/svc:${DK_SVC_TAG:-1.1}",
            ),
            ("${REG:?set it}/svc", "r.example/svc", "${REG:?set it}/svc:${DK_SVC_TAG:-latest}"),
            ("$REG/svc:1", "r.example:5000/svc:1", "$REG/svc:${DK_SVC_TAG:-1}"),
            (
                "r.example:5000/o/svc",
                "r.example:5000/o/svc",
                "${DK_SVC_IMAGE:-r.example:5000/o/svc}:${DK_SVC_TAG:-latest}",
            ),
            (
                "r.example/svc:${V:-1}-alpine",
                "r.example/svc:1-alpine",
                "${DK_SVC_IMAGE:-r.example/svc}:${DK_SVC_TAG:-1-alpine}",
            ),
        ] {
            assert_eq!(to(evaluated("svc", text, image)).as_deref(), Ok(expected), "{text}");
        }
        for (text, image, why) in [
            ("r.example/svc:${V:-1}-alpine", "r.example/svc:2-alpine", "its tag comes from V"),
            (
                "r.example/svc:${V:?must be set}-alpine",
                "r.example/svc:2-alpine",
                "its tag comes from V",
            ),
            (
                "${IMAGE:-r.example/svc:1}",
                "r.example/svc:1",
                "IMAGE gives the image and its tag in one",
            ),
            ("${IMAGE}", "r.example/svc:1", "IMAGE gives the image and its tag in one"),
        ] {
            assert!(to(evaluated("svc", text, image)).unwrap_err().contains(why), "{text}");
        }
        let whole = proposed(&[evaluated("svc", "${IMAGE:-r.example/svc:1}", "r.example/svc:1")]);
        assert_eq!(
            (&whole.services[0].env_tag, &whole.services[0].env_image),
            (&None, &None),
            "nothing that breaks it is fed"
        );
        // The variable of one line can be fed; the other's cannot be kept as a default.
        let all = proposed(&[
            evaluated("a", "r.example/svc:${APP_TAG:-1}", "r.example/svc:1"),
            evaluated("lite", "r.example/svc:${LITE_TAG:?must be set}", "r.example/svc:1"),
        ]);
        assert_eq!(all.services[0].env_tag.as_deref(), Some("APP_TAG"));
        assert_eq!(all.changes.len(), 1);
        assert!(all.changes[0].to.as_ref().unwrap_err().contains("LITE_TAG"), "{all:?}");
    }

    #[test]
    fn lines_that_name_another_version_than_the_manifest_are_rivals_of_the_record() {
        let text = format!(
            "schema_version: '1.1'\nservices:\n  svc: {{image: r.example/svc, current_tag: '1.1', \
                image_digest: '{}'}}\n",
            digest(1)
        );
        let manifest = Manifest::read(text.as_bytes()).unwrap();
        let lines = [
            line("a", "r.example/svc:1.1"),
            line("b", "r.example/svc:latest"),
            line("c", "r.example/svc:1.2"),
            line("d", &format!("r.example/svc@{}", digest(1))),
            line("e", &format!("r.example/svc:1.1@{}", digest(2))),
            line("f", "${DK_SVC_IMAGE:-r.example/svc}:${DK_SVC_TAG:-0.9}"),
        ];
        let all = propose(&lines, Some(&manifest), "DK_", &[]);
        let found: Vec<&str> =
            all.rivals.iter().map(|(_, rival)| rival.compose_service.as_str()).collect();
        assert_eq!(found, ["c", "e"]);
    }
}
