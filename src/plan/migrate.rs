//! Migration: from Compose services and what runs of them to services of a manifest. What the files
//! and the daemon say comes in as data; what only a registry can tell is left open for the caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::env_file;
use crate::model::interpolation::Template;
use crate::model::manifest::{DEFAULT_TRACK, Ecr, Manifest, Service};
use crate::model::reference::{Digest, Reference, Repository, ServiceName, Tag};

use super::KEEP_TAG_PREFIX;

/// A digest that no image has, to find out where a variable's value goes.
const PROBE: &str = "dkvprobe@sha256:0000000000000000000000000000000000000000000000000000000000000000";
const PROBE_REPOSITORY: &str = "probe.example/dkv/probe";

/// The host of ECR Public.
const ECR_PUBLIC: &str = "public.ecr.aws";

/// How the base names of common infrastructure begin: images that are no release of the product, and
/// that nobody wants to see restarted by an update of it.
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
    /// Its image with all variables replaced; for one that is only built, the name Compose gives it.
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
    /// The line as it should be.
    pub to: String,
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
}

/// Groups `lines` into services and leaves out those that `known` has. `wanted` names Compose services
/// that shall be tracked although they do not look like the product's.
#[must_use]
pub fn propose(lines: &[Line], known: Option<&Manifest>, prefix: &str, wanted: &[String]) -> Proposals {
    let groups = group(lines, prefix);
    let product = product_of(&groups, wanted);
    let mut names = Names::new(known, prefix);
    let mut proposals = Proposals::default();
    let mut new = Vec::new();
    for group in groups {
        if let Some(service) = known.and_then(|known| covering(known, &group, prefix)) {
            proposals.changes.extend(group.changes(&service.name, service.env_tag.as_deref(), prefix));
            continue;
        }
        let name = if product.contains(&group.repository) { names.take(&group) } else { None };
        match name {
            Some(name) => new.push((name, group)),
            None => proposals
                .untracked
                .push(Untracked { compose_services: group.compose_services(), image: group.readings[0].line.image.to_string() }),
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

/// The `ecr` section for images in ECR: the public alias that most of them have, else the private registry.
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
        let variables: Vec<String> = template.iter().flat_map(Template::variables).map(str::to_owned).collect();
        let gives = |value: &str, fits: &dyn Fn(&Reference) -> bool| -> Vec<String> {
            let leads_there = |name: &&String| {
                template.as_ref().is_some_and(|template| probe(template, name, value).is_some_and(|found| fits(&found)))
            };
            variables.iter().filter(leads_there).cloned().collect()
        };
        let tag_variables = gives(PROBE, &|found| found.digest.is_some());
        let image_variables = gives(PROBE_REPOSITORY, &|found| found.repository.as_written() == PROBE_REPOSITORY);
        let middle = |name: &String, suffix: &str| {
            let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
            (!middle.is_empty()).then(|| middle.to_lowercase())
        };
        let own_name = tag_variables
            .iter()
            .find_map(|name| middle(name, "_TAG"))
            .or_else(|| image_variables.iter().find_map(|name| middle(name, "_IMAGE")));
        let default = template.as_ref().and_then(Template::default_value).and_then(|text| text.parse().ok());
        Self { line, own_name, tag_variables, image_variables, has_variables: !variables.is_empty(), default }
    }

    fn is_literal_pin(&self) -> bool {
        !self.has_variables && self.line.image.digest.is_some()
    }

    /// The tag that the file names when nobody sets a variable.
    fn default_tag(&self) -> Option<&Tag> {
        let default = self.default.as_ref().unwrap_or(&self.line.image);
        default.tag.as_ref()
    }
}

/// What the line comes to if `variable` has `value` and all others have none, or where that is no
/// image name, something.
fn probe(template: &Template, variable: &str, value: &str) -> Option<Reference> {
    [None, Some("x")].into_iter().find_map(|others| {
        let lookup = |name: &str| if name == variable { Some(value.to_owned()) } else { others.map(str::to_owned) };
        template.evaluate(&lookup).ok()?.parse().ok()
    })
}

/// Compose services that run one image.
struct Group<'a> {
    repository: Repository,
    own_name: Option<String>,
    readings: Vec<Reading<'a>>,
}

/// One group for each name in variables and, without such, for each repository; in the order of the files.
fn group<'a>(lines: &'a [Line], prefix: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let (named, plain): (Vec<_>, Vec<_>) =
        lines.iter().map(|line| Reading::of(line, prefix)).partition(|reading| reading.own_name.is_some());
    for reading in named.into_iter().chain(plain) {
        let repository = reading.line.image.repository.clone();
        let fits = |group: &&mut Group<'_>| {
            group.repository == repository && (reading.own_name.is_none() || group.own_name == reading.own_name)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.readings.push(reading),
            None => groups.push(Group { repository, own_name: reading.own_name.clone(), readings: vec![reading] }),
        }
    }
    let place = |group: &Group<'_>| {
        let first = lines.iter().position(|line| group.readings.iter().any(|reading| std::ptr::eq(reading.line, line)));
        first.unwrap_or(usize::MAX)
    };
    for group in &mut groups {
        group.readings.sort_by_key(|reading| lines.iter().position(|line| std::ptr::eq(reading.line, line)));
    }
    groups.sort_by_key(place);
    groups
}

/// The repositories of the product: those that are built here, that variables name, or that live beside
/// such; where no line has a variable, whatever is neither an official image nor infrastructure.
fn product_of(groups: &[Group<'_>], wanted: &[String]) -> BTreeSet<Repository> {
    let is_marked = |group: &&Group<'_>| {
        group
            .readings
            .iter()
            .any(|reading| reading.has_variables || reading.line.has_build || wanted.contains(&reading.line.compose_service))
    };
    let homes: BTreeSet<(String, String)> = groups.iter().filter(is_marked).filter_map(|group| home(&group.repository)).collect();
    let has_variables = groups.iter().flat_map(|group| &group.readings).any(|reading| reading.has_variables);
    let belongs = |group: &&Group<'_>| {
        let is_application = group.readings.iter().any(|reading| !reading.line.is_database);
        is_marked(group)
            || (is_application
                && !is_infrastructure(&group.repository)
                && home(&group.repository).is_some_and(|home| homes.contains(&home) || !has_variables))
    };
    let product: BTreeSet<Repository> = groups.iter().filter(belongs).map(|group| group.repository.clone()).collect();
    if !product.is_empty() {
        return product;
    }
    // Nothing looks like a product: then what is no infrastructure is it.
    groups.iter().filter(|group| !is_infrastructure(&group.repository)).map(|group| group.repository.clone()).collect()
}

/// The publisher's part of a repository: its host and the path but for the name. Official images and
/// names without a publisher have none.
fn home(repository: &Repository) -> Option<(String, String)> {
    let (publisher, _) = repository.path().rsplit_once('/')?;
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
        return services().find(|service| env_file::variable(prefix, &service.name, "TAG") == variable);
    }
    let runs_all = |service: &&Service| group.compose_services().iter().all(|name| service.compose_services.contains(name));
    services().find(|service| service.image.as_ref() == Some(&group.repository)).or_else(|| services().find(runs_all))
}

/// Gives every service a name whose variables no other has.
struct Names<'a> {
    prefix: &'a str,
    taken: BTreeSet<String>,
}

impl<'a> Names<'a> {
    fn new(known: Option<&Manifest>, prefix: &'a str) -> Self {
        let taken = known.iter().flat_map(|known| known.services.keys()).map(|name| env_file::variable(prefix, name, "TAG"));
        Self { prefix, taken: taken.collect() }
    }

    fn take(&mut self, group: &Group<'_>) -> Option<ServiceName> {
        let base = group.repository.base_name();
        let first = &group.readings[0];
        let publisher = group.repository.path().rsplit('/').nth(1).map(|publisher| format!("{publisher}-{base}"));
        // An image that is only built is named after its project, which says little.
        let built = first.line.text.is_none().then(|| first.line.compose_service.clone());
        let candidates =
            [group.own_name.clone(), built, Some(base.to_owned()), publisher, Some(first.line.compose_service.clone())];
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = candidates.into_iter().flatten().chain(numbered).filter_map(|name| name.parse::<ServiceName>().ok());
        names.find(|name| self.taken.insert(env_file::variable(self.prefix, name, "TAG")))
    }
}

/// The variables that more than one service would set: fed with `tag@digest`, they cannot be right for both.
fn shared_variables(new: &[(ServiceName, Group<'_>)], known: Option<&Manifest>, prefix: &str) -> BTreeSet<String> {
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for (name, group) in new {
        let mut used: BTreeSet<String> = ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, name, suffix)).into();
        for reading in &group.readings {
            used.extend(reading.tag_variables.iter().chain(&reading.image_variables).cloned());
        }
        for variable in used {
            *users.entry(variable).or_default() += 1;
        }
    }
    for service in known.iter().flat_map(|known| known.services.values()) {
        let own = ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, &service.name, suffix));
        for variable in own.into_iter().chain(service.env_tag.clone()).chain(service.env_image.clone()) {
            *users.entry(variable).or_default() += 1;
        }
    }
    users.into_iter().filter(|(_, count)| *count > 1).map(|(variable, _)| variable).collect()
}

impl Group<'_> {
    fn compose_services(&self) -> Vec<String> {
        self.readings.iter().map(|reading| reading.line.compose_service.clone()).collect()
    }

    /// What is on this host of it: rather what runs than what is only local, rather under this
    /// repository's name than under another.
    fn present(&self) -> Option<&Present> {
        let present = self.readings.iter().filter_map(|reading| reading.line.present.as_ref());
        present.min_by_key(|present| {
            let is_ours = present.named.as_ref().is_some_and(|named| named.repository == self.repository);
            (!present.is_running, !is_ours)
        })
    }

    fn track(&self) -> Option<Tag> {
        let mut readings = self.readings.iter();
        let tag = readings.find_map(|reading| {
            let tag = reading.default_tag()?;
            // Beside a digest, a version only says what the digest was; a moving tag is still followed.
            let says_version = tag.as_str().trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
            (!(reading.is_literal_pin() && says_version)).then(|| tag.clone())
        });
        tag.filter(|tag| tag.as_str() != DEFAULT_TRACK)
    }

    /// The first of these variables that may be fed, unless the service's own is among them.
    fn usable(variables: &[String], own: &str, shared: &BTreeSet<String>) -> Option<String> {
        let is_own = variables.iter().any(|variable| variable == own);
        variables.iter().find(|variable| !is_own && !shared.contains(*variable)).cloned()
    }

    fn env_tag(&self, name: &ServiceName, prefix: &str, shared: &BTreeSet<String>) -> Option<String> {
        let own = env_file::variable(prefix, name, "TAG");
        self.readings.iter().find_map(|reading| Self::usable(&reading.tag_variables, &own, shared))
    }

    fn changes(&self, name: &ServiceName, env_tag: Option<&str>, prefix: &str) -> Vec<Change> {
        let [image, tag] = ["IMAGE", "TAG"].map(|suffix| env_file::variable(prefix, name, suffix));
        let follows = |reading: &&Reading<'_>| {
            reading.tag_variables.iter().any(|variable| *variable == tag || Some(variable.as_str()) == env_tag)
        };
        self.readings.iter().filter(|reading| !follows(reading)).map(|reading| self.change(name, reading, &image, &tag)).collect()
    }

    fn into_proposal(self, name: ServiceName, env_tag: Option<String>, prefix: &str, shared: &BTreeSet<String>) -> Proposal {
        let own_image = env_file::variable(prefix, &name, "IMAGE");
        let env_image = self.readings.iter().find_map(|reading| Self::usable(&reading.image_variables, &own_image, shared));
        let mut notes = Vec::new();
        for reading in &self.readings {
            if let Some(variable) = reading.tag_variables.iter().find(|variable| shared.contains(*variable)) {
                notes.push(format!(
                    "{} gets its tag from {variable}, which other images use as well; one variable cannot carry two digests",
                    reading.line.compose_service
                ));
            }
        }
        let present = self.present();
        notes.extend(self.disagreement());
        let named = present.and_then(|present| present.named.as_ref()).filter(|named| named.repository == self.repository);
        if let (Some(present), None) = (present.filter(|present| present.is_running), named)
            && let Some(other) = &present.named
        {
            notes.push(format!("what runs was started as {other}, not as {}", self.repository));
        }
        let track = self.track();
        let is_keep_tag = |tag: &&Tag| tag.as_str().starts_with(KEEP_TAG_PREFIX);
        let tag = named
            .and_then(|named| named.tag.as_ref())
            .filter(|tag| !is_keep_tag(tag))
            .or_else(|| self.readings.iter().find_map(|reading| reading.line.image.tag.as_ref()).filter(|tag| !is_keep_tag(tag)))
            .cloned()
            .or_else(|| track.clone());
        let digests = match present {
            Some(present) => self.digests_of(present),
            None => self.readings.iter().find_map(|reading| reading.line.image.digest.clone()).into_iter().collect(),
        };
        Proposal {
            track,
            is_built: self.readings.iter().any(|reading| reading.line.has_build),
            compose_services: self.compose_services(),
            env_tag,
            env_image,
            tag,
            digests,
            image_id: present.map(|present| present.image_id.clone()),
            is_running: present.is_some_and(|present| present.is_running),
            notes,
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
            if let Some(present) = reading.line.present.as_ref().filter(|present| present.is_running) {
                images.entry(&present.image_id).or_default().push(&reading.line.compose_service);
            }
        }
        if images.len() < 2 {
            return None;
        }
        let each: Vec<String> = images.iter().map(|(id, services)| format!("{} ({})", services.join(", "), id.short())).collect();
        Some(format!(
            "its Compose services run different images now: {}; one version serves all of them from the next start on",
            each.join(", ")
        ))
    }

    fn change(&self, name: &ServiceName, reading: &Reading<'_>, own_image: &str, own_tag: &str) -> Change {
        let repository = reading.default.as_ref().map_or(&self.repository, |default| &default.repository);
        let default = reading.default.as_ref().unwrap_or(&reading.line.image);
        let tag = default.tag.as_ref().map_or(DEFAULT_TRACK, Tag::as_str);
        // A pin stays one for whoever starts Compose without versions.env.
        let digest = default.digest.as_ref().map_or_else(String::new, |digest| format!("@{digest}"));
        Change {
            service: name.clone(),
            compose_service: reading.line.compose_service.clone(),
            from: reading.line.text.clone(),
            to: format!("${{{own_image}:-{repository}}}:${{{own_tag}:-{tag}{digest}}}"),
        }
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
        let digests = digests.iter().map(|(repository, seed)| (repository.parse().unwrap(), digest(*seed))).collect();
        let present = Present { is_running: true, named: named.parse().ok(), image_id: digest(id), digests };
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
            line("req-router", "${DK_REQ_ROUTER_IMAGE:-public.ecr.aws/n5k3t9x2/req_router}:${DK_REQ_ROUTER_TAG:-latest}"),
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
        let changes: Vec<&str> = all.changes.iter().map(|change| change.compose_service.as_str()).collect();
        assert_eq!(changes, ["beside"]);
        assert_eq!(all.changes[0].to, "${DK_BESIDE_IMAGE:-public.ecr.aws/n5k3t9x2/beside}:${DK_BESIDE_TAG:-latest}");
        let ecr = ecr_of(all.services.iter().map(|service| &service.image)).unwrap();
        assert_eq!((ecr.registry.as_str(), ecr.repository_alias.as_str()), ("public.ecr.aws", "n5k3t9x2"));
    }

    #[test]
    fn what_runs_decides_over_what_the_file_says() {
        let text = "${DK_WEB_IMAGE:-r.example/web}:${DK_WEB_TAG:-latest}";
        let all =
            proposed(&[running(line("web", text), "r.example/web:1.64", 1, &[("r.example/web", 7), ("r.example/other", 8)])]);
        let web = &all.services[0];
        assert_eq!((web.tag.as_ref().map(Tag::as_str), web.digests.as_slice()), (Some("1.64"), &[digest(7)][..]));
        assert_eq!((web.image_id.clone(), web.is_running), (Some(digest(1)), true));
        assert!(web.digests.iter().all(|digest| Some(digest) != web.image_id.as_ref()), "an image ID is no digest");
    }

    #[test]
    fn one_image_with_many_compose_services_is_one_service_fed_by_its_own_variable() {
        let build = |service: &str| Line { has_build: true, ..line(service, "whisperengine-bot:${VERSION:-latest}") };
        let bot = |service: &str, id| running(build(service), "whisperengine-bot:latest", id, &[]);
        let all =
            proposed(&[bot("db-migrate", 1), bot("elena-bot", 1), build("marcus-bot"), line("postgres", "postgres:16.4-alpine")]);
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
            all.changes[2].to,
            "${DK_WHISPERENGINE_UI_IMAGE:-whisperengine/whisperengine-ui}:${DK_WHISPERENGINE_UI_TAG:-v1.0.2}"
        );
        assert_eq!(all.services[0].track.as_ref().map(Tag::as_str), Some("v1.0.2"));
    }

    #[test]
    fn files_without_variables_have_their_application_images_tracked() {
        let pin = format!("harystyles/privexbot-backend@{}", digest(9));
        let database = Line { is_database: true, ..line("pg", "someone/else:1") };
        let all =
            proposed(&[line("backend", &pin), line("postgres", "postgres:16-alpine"), line("v", "agnohq/pgvector:16"), database]);
        assert_eq!(names(&all), ["privexbot-backend"]);
        let backend = &all.services[0];
        assert_eq!((backend.digests.as_slice(), &backend.tag, &backend.track), (&[digest(9)][..], &None, &None));
        assert_eq!(
            all.changes[0].to,
            format!(
                "${{DK_PRIVEXBOT_BACKEND_IMAGE:-harystyles/privexbot-backend}}:${{DK_PRIVEXBOT_BACKEND_TAG:-latest@{}}}",
                digest(9)
            )
        );
        let with_tag = proposed(&[line("backend", &format!("a/b:1.42@{}", digest(9))), line("c", "a/c:stable")]);
        assert_eq!(with_tag.services[0].track, None, "a version beside a digest is a record, not a tag to follow");
        assert_eq!(with_tag.services[1].track.as_ref().map(Tag::as_str), Some("stable"));
    }

    #[test]
    fn a_tag_with_something_around_the_variable_does_not_follow() {
        let all = proposed(&[line("a", "r.example/a:${V:-1}-alpine"), line("b", "${REGISTRY:-r.example}/b:${B_VERSION:-2}")]);
        assert_eq!((all.services[0].env_tag.as_deref(), all.services[1].env_tag.as_deref()), (None, Some("B_VERSION")));
        let changes: Vec<&str> = all.changes.iter().map(|change| change.to.as_str()).collect();
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
        let all = propose(&[line("two", "nginx:1"), line("x", "${DK_X_TAG:-r/x}")], None, "DK_", &["two".to_owned()]);
        assert_eq!(all.services[0].name.as_str(), "nginx");
    }

    #[test]
    fn a_manifest_gets_what_it_lacks_only() {
        let manifest = Manifest::read(
            b"schema_version: '1.1'\nservices:\n  req_router:\n    image: r.example/req_router\n  bot:\n    image: r.example/bot\n    env_tag: VERSION\n",
        )
        .unwrap();
        let lines = [
            line("req-router", "${DK_REQ_ROUTER_IMAGE:-r.example/req_router}:${DK_REQ_ROUTER_TAG:-latest}"),
            line("mcp-server", "${DK_MCP_SERVER_IMAGE:-r.example/mcp_server}:${DK_MCP_SERVER_TAG:-latest}"),
            line("elena", "r.example/bot:${VERSION:-latest}"),
            line("odd", "r.example/bot:latest"),
        ];
        let all = propose(&lines, Some(&manifest), "DK_", &[]);
        assert_eq!(names(&all), ["mcp_server"]);
        assert_eq!(all.changes.iter().map(|change| change.compose_service.as_str()).collect::<Vec<_>>(), ["odd"]);
    }

    #[test]
    fn a_keep_tag_is_no_version() {
        let kept = running(line("a", "r.example/a:${V:-latest}"), "r.example/a:dkv-0123abcd-0123456789ab", 1, &[]);
        assert_eq!(proposed(&[kept]).services[0].tag.as_ref().map(Tag::as_str), Some("latest"));
    }
}
