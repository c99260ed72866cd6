//! Migration: from Compose services and what runs of them to services of a manifest. What the files
//! and the daemon say comes in as data; what only a registry can tell is left open for the caller.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::KEEP_TAG_PREFIX;
use crate::members::{self, KnownBy, Members, Membership, Use};
use crate::model::history::Bytes;
use crate::model::image_line::{self, own, version_named};
use crate::model::interpolation::Template;
use crate::model::manifest::{DEFAULT_TRACK, Ecr, Manifest, Service};
use crate::model::purpose::{self, Purpose};
use crate::model::reference::{Digest, Platform, Reference, Repository, ServiceName, Tag};
use crate::model::track;
use crate::report::ReleaseView;
use crate::report::migrate::{ComposeChange, OtherVersion, UntrackedImage};

/// What no image is called, to find out where a variable's value goes.
const PROBE: &str =
    "dkvprobe@sha256:0000000000000000000000000000000000000000000000000000000000000000";
const PROBE_TAG: &str = "dkvprobe";
const PROBE_REPOSITORY: &str = "probe.example/dkv/probe";

/// The host of ECR Public.
const ECR_PUBLIC: &str = "public.ecr.aws";

/// A Compose service, as the files and the daemon describe it.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its image line and where that is, without what makes it follow.
    pub written: ComposeChange,
    /// Its image with all variables replaced; for one that is only built, the name Compose gives
    /// it.
    pub image: Reference,
    /// The platform that it shall run on, where the files say one.
    pub platform: Option<Platform>,
    /// Whether variables of its image have their values from the environment, as from a
    /// `versions.env` that was sourced.
    pub is_sourced: bool,
    /// Whether it has a build section.
    pub has_build: bool,
    /// Whether Compose never pulls its image.
    pub is_never_pulled: bool,
    /// Whether it stands in the database files.
    pub is_database: bool,
    /// Whether Compose fills in a default inside a default there.
    pub nests_defaults: bool,
    /// The image that its container runs or ran, else the local one of its name.
    pub present: Option<Present>,
}

impl Line {
    /// The Compose service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.written.compose_service
    }

    /// The image that its container runs, if it runs.
    #[must_use]
    pub fn running(&self) -> Option<&Present> {
        self.present.as_ref().filter(|present| present.is_running)
    }
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

impl Present {
    /// The digests by which it came from `repository`.
    fn digests_in<'p>(&'p self, repository: &'p Repository) -> impl Iterator<Item = &'p Digest> {
        self.digests.iter().filter(move |(from, _)| from == repository).map(|(_, digest)| digest)
    }
}

/// What Compose files say of how an image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// It is pulled.
    None,
    /// It is built, or pulled by its name: Compose itself tries a registry first.
    OrPulled,
    /// It is built, and has no name by which a registry could have it.
    Only,
}

impl Build {
    fn of(readings: &[Reading<'_>]) -> Self {
        let mut built = readings.iter().map(|reading| reading.line).filter(|line| line.has_build);
        match built.next() {
            None => Self::None,
            Some(line) if line.is_never_pulled => Self::Only,
            Some(_) if readings.iter().all(|one| one.line.written.from.is_none()) => Self::Only,
            Some(_) => Self::OrPulled,
        }
    }
}

/// A service that the manifest lacks.
pub struct NewService<'l> {
    /// The service, without a release.
    pub service: Service,
    /// Why it is tracked.
    pub reason: String,
    /// What the Compose files say of how its image is made.
    pub build: Build,
    /// The tag that runs, else the Compose file's; `None` where only a digest says what it is.
    pub tag: Option<Tag>,
    /// The digests that what runs goes by in its repository, else the Compose file's.
    pub digests: Vec<Digest>,
    /// Whether its line names a tag to follow; one with a digest alone does not.
    pub has_track: bool,
    /// Whether the daemon says that the tag names these digests; a Compose file can claim that of
    /// any.
    pub is_confirmed: bool,
    /// What runs, else the local image of that tag.
    pub present: Option<&'l Present>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The Compose services that run it; the version of the one at `lead` is recorded.
    readings: Vec<Reading<'l>>,
    lead: usize,
}

/// What a migration comes to.
#[derive(Default)]
pub struct Proposal<'l> {
    /// The services to add.
    pub services: Vec<NewService<'l>>,
    /// The images that nothing will track.
    pub untracked: Vec<UntrackedImage>,
    /// The services that the manifest shall not have any more.
    pub removed: Vec<ServiceName>,
    /// The services that stay, without some of their Compose services.
    pub narrowed: Vec<Service>,
    /// The Compose services that the manifest shall leave out from now on.
    pub left_out: Vec<String>,
    /// The image lines of tracked services, new or not, that do not follow `versions.env`.
    pub changes: Vec<ComposeChange>,
    /// The Compose services that name or run other versions than the manifest has recorded already.
    pub others: Vec<OtherVersion>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What the operator said of what is to be tracked, as names of Compose services.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Tracked, whatever they look like.
    pub track: BTreeSet<String>,
    /// Left out, now and later.
    pub untrack: BTreeSet<String>,
    /// Services of the manifest that go, with all their Compose services.
    pub remove: BTreeSet<ServiceName>,
}

/// Groups `lines` into services and leaves out those that `known` has.
#[must_use]
pub fn propose<'l>(
    lines: &'l [Line],
    known: Option<(&Manifest, &Members)>,
    prefix: &str,
    choice: &Choice,
) -> Proposal<'l> {
    let readings: Vec<Reading<'_>> = lines.iter().map(|line| Reading::of(line, prefix)).collect();
    let product = Product::of(&readings, known.map(|(manifest, _)| manifest));
    let mut proposal = Proposal::default();
    proposal.leave_out(&readings, known, choice);
    let remembered = known.map(|(manifest, _)| manifest.untracked.as_slice()).unwrap_or_default();
    let mut unknown = Vec::new();
    // What is fed to a variable reaches the lines of what nothing tracks as well.
    let mut used_by_others = BTreeSet::new();
    let used = known.map(|(_, members)| used(&readings, members)).unwrap_or_default();
    for reading in readings {
        if let Some(why) = left_out(reading.line.name(), &proposal.left_out, remembered) {
            used_by_others.extend(reading.variables());
            proposal.untracked.push(UntrackedImage {
                image: reading.image(),
                compose_services: vec![reading.line.name().to_owned()],
                reason: why.to_owned(),
            });
            continue;
        }
        match known.map(|(manifest, members)| (manifest, reading.membership(members))) {
            Some((manifest, Membership::Of(member))) => {
                let service = &manifest.services[member.service];
                proposal.changes.extend(reading.change(service, prefix));
                // A line with the service's variables follows the record, whatever it names.
                let is_own = reading.line.has_build || reading.follows(service, prefix);
                if !is_own && reading.agrees(service, service.track_name()) != Some(true) {
                    proposal.others.push(reading.other_version(service, prefix));
                }
            }
            Some((_, Membership::Ambiguous(names))) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                proposal.notes.push(format!(
                    "{}: {} have its image; list it under `compose_services` of the one it runs",
                    reading.line.name(),
                    names.join(" and ")
                ));
            }
            // The only one of its service: its line was changed, and it is no service of its own.
            Some((manifest, Membership::Other(other))) if !used.contains(other.service) => {
                let service = &manifest.services[other.service];
                proposal.others.push(reading.other_version(service, prefix));
            }
            Some((_, Membership::Other(_) | Membership::Untracked)) | None => unknown.push(reading),
        }
    }
    let known_manifest = known.map(|(manifest, _)| manifest);
    let known = || known_manifest.into_iter().flat_map(|manifest| manifest.services.values());
    let mut taken = known().map(|service| own(prefix, &service.name)).collect();
    let mut new = Vec::new();
    let groups = group(unknown, lines);
    let known_images = known().filter_map(|service| service.image.clone());
    let mut images: Vec<Repository> = known_images.collect();
    images.extend(groups.iter().map(|group| group[0].line.image.repository.clone()));
    for group in groups {
        let image = &group[0].line.image.repository;
        let is_alone = images.iter().filter(|one| *one == image).count() == 1;
        let verdict = product.verdict(&group, choice);
        let name = verdict.is_ok().then(|| name_of(&group, is_alone, prefix, &mut taken)).flatten();
        let is_wanted = || group.iter().any(|one| choice.track.contains(one.line.name()));
        let was_taken_out = |name: &ServiceName| {
            known_manifest.is_some_and(|manifest| manifest.lost_entry(name)) && !is_wanted()
        };
        let verdict = match &name {
            Some(name) if was_taken_out(name) => {
                Err(format!("somebody took {name} out of the manifest, but for its history"))
            }
            _ => verdict,
        };
        match (verdict, name) {
            (Ok(reason), Some(name)) => new.push((name, reason, group)),
            (Ok(reason) | Err(reason), _) => {
                used_by_others.extend(group.iter().flat_map(Reading::variables));
                proposal.untracked.push(UntrackedImage {
                    image: group[0].image(),
                    compose_services: names_in(&group),
                    reason,
                });
            }
        }
    }
    // Nor can it be right where it is a part only: `${VERSION}-worker`.
    let readings = new.iter().flat_map(|(_, _, group)| group);
    used_by_others.extend(readings.flat_map(Reading::partial_variables));
    let mut seen: BTreeSet<String> = used_by_others;
    let of_new = new.iter().map(|(name, _, group)| {
        let read =
            group.iter().flat_map(|one| one.tag_variables.iter().chain(&one.image_variables));
        read.cloned().chain(own(prefix, name)).collect::<BTreeSet<_>>()
    });
    let of_known = known().map(|service| {
        members::variables_of(prefix, service).map(|(name, _)| name).collect::<BTreeSet<_>>()
    });
    // Fed with `tag@digest`, a variable cannot be right for two services.
    let all = of_new.chain(of_known).flatten();
    let shared = all.filter(|name| !seen.insert(name.clone())).collect();
    proposal.notes.extend(several_tags(&new));
    for (name, reason, group) in new {
        let new = NewService::of((name, reason), group, prefix, &shared);
        let changes = new.readings.iter().filter_map(|one| one.change(&new.service, prefix));
        proposal.changes.extend(changes);
        proposal.services.push(new);
    }
    proposal
}

impl Proposal<'_> {
    /// Takes out of the manifest what the operator wants left out, and remembers it there.
    fn leave_out(
        &mut self,
        readings: &[Reading<'_>],
        known: Option<(&Manifest, &Members)>,
        choice: &Choice,
    ) {
        let before = known.map(|(manifest, _)| manifest.untracked.as_slice()).unwrap_or_default();
        let before = before.iter().filter(|name| !choice.track.contains(*name)).cloned();
        self.left_out = before.collect();
        let mut uses: BTreeMap<&ServiceName, Vec<&str>> =
            choice.remove.iter().map(|name| (name, Vec::new())).collect();
        for (reading, (_, members)) in readings.iter().zip(known.into_iter().cycle()) {
            if let Some(name) = reading.membership(members).service() {
                uses.entry(name).or_default().push(reading.line.name());
            }
        }
        let is_left_out = |name: &str| choice.untrack.contains(name);
        let mut names: Vec<&str> = choice.untrack.iter().map(String::as_str).collect();
        for (name, by) in uses {
            let goes = choice.remove.contains(name) || by.iter().all(|one| is_left_out(one));
            if goes {
                self.removed.push(name.clone());
                names.extend(by);
            } else if let Some((manifest, _)) = known
                && let Some(service) = manifest.services.get(name)
            {
                let mut narrowed = service.clone();
                narrowed.compose_services.retain(|one| !is_left_out(one));
                self.narrowed.extend(Some(narrowed).filter(|narrowed| narrowed != service));
            }
        }
        for name in names {
            if !self.left_out.iter().any(|one| one == name) {
                self.left_out.push(name.to_owned());
            }
        }
    }
}

/// Leaves the lines of `others` alone: written, they would start another version. Whoever shares one
/// gets a line of its own.
pub fn leave_alone(changes: &mut [ComposeChange], others: &[OtherVersion]) {
    for other in others {
        let own = changes.iter_mut().find(|one| one.compose_service == other.compose_service);
        if let Some(own) = own {
            let why = format!("it is another version than the recorded {}", other.recorded);
            own.left.get_or_insert(why);
        }
    }
}

/// The `ecr` section for images in ECR: the public alias that most of them have, else the private
/// registry.
#[must_use]
pub fn ecr_of<'a>(images: impl Iterator<Item = &'a Repository> + Clone) -> Option<Ecr> {
    let public = images.clone().filter(|image| image.host() == ECR_PUBLIC);
    let mut aliases: BTreeMap<&str, usize> = BTreeMap::new();
    for (alias, _) in public.filter_map(|image| image.path().split_once('/')) {
        *aliases.entry(alias).or_default() += 1;
    }
    let alias = aliases.into_iter().max_by_key(|(_, count)| *count).map(|(alias, _)| alias);
    let private = images.into_iter().find_map(|image| {
        let region = image.host().split_once(".dkr.ecr.")?.1.split('.').next()?;
        Some((image.host(), region))
    });
    let (private_registry, private_region) = match (alias, private) {
        (None, None) => return None,
        (None, Some(private)) => private,
        (Some(_), _) => ("", "us-east-1"),
    };
    Some(Ecr {
        registry: ECR_PUBLIC.to_owned(),
        repository_alias: alias.unwrap_or_default().to_owned(),
        use_private: alias.is_none(),
        private_registry: private_registry.to_owned(),
        private_region: private_region.to_owned(),
    })
}

/// The services of the manifest that Compose services run.
fn used<'m>(readings: &[Reading<'_>], members: &'m Members) -> BTreeSet<&'m ServiceName> {
    readings.iter().filter_map(|reading| reading.membership(members).service()).collect()
}

/// An image line and what its variables do.
struct Reading<'l> {
    line: &'l Line,
    template: Option<Template>,
    /// The name in `DK_<NAME>_TAG` or `DK_<NAME>_IMAGE`, in lower case.
    own_name: Option<String>,
    /// The variables that can give it `tag@digest`, outermost first.
    tag_variables: Vec<String>,
    /// The variables that can give it the repository.
    image_variables: Vec<String>,
    /// The image when no variable is set.
    default: Option<Reference>,
}

impl<'l> Reading<'l> {
    fn of(line: &'l Line, prefix: &str) -> Self {
        let template = line.written.from.as_deref().and_then(|text| Template::parse(text).ok());
        let tag_variables = leading_to(template.as_ref(), PROBE, |found| {
            found.tag.as_ref().is_some_and(|tag| tag.as_str() == PROBE_TAG)
        });
        // A variable that holds the tag as well cannot be fed with a repository.
        let image_variables = leading_to(template.as_ref(), PROBE_REPOSITORY, |found| {
            found.repository.as_written() == PROBE_REPOSITORY
                && found.tag.is_some() == line.image.tag.is_some()
                && found.digest.is_some() == line.image.digest.is_some()
        });
        let default = template.as_ref().and_then(Template::default_value);
        Self {
            line,
            own_name: name_within(&tag_variables, prefix, "_TAG")
                .or_else(|| name_within(&image_variables, prefix, "_IMAGE")),
            tag_variables,
            image_variables,
            default: default.and_then(|text| text.parse().ok()),
            template,
        }
    }

    /// Its image for people: a keep-tag, which the record of a build puts there, is none of theirs.
    fn image(&self) -> String {
        let is_kept = |image: &Reference| tag_named(image).starts_with(KEEP_TAG_PREFIX);
        let image = Some(&self.line.image).filter(|image| !is_kept(image));
        image.or(self.default.as_ref()).unwrap_or(&self.line.image).to_string()
    }

    /// The variables of its line.
    fn variables(&self) -> Vec<String> {
        let template = self.template.iter();
        template.flat_map(Template::variables).map(str::to_owned).collect()
    }

    /// The variables of its line that give it neither a whole tag nor a whole repository.
    fn partial_variables(&self) -> Vec<String> {
        let mut variables = self.variables();
        variables.retain(|name| {
            !self.tag_variables.contains(name) && !self.image_variables.contains(name)
        });
        variables
    }

    /// What it is to the manifest. A name of its own in the variables is not that of a service that
    /// only has the same repository.
    fn membership<'m>(&self, members: &'m Members) -> Membership<'m> {
        let found = members.find(&Use {
            name: self.line.name(),
            line: self.template.as_ref(),
            image: Some(&self.line.image),
            platform: self.line.platform.as_ref(),
        });
        let is_by_repository = match &found {
            Membership::Of(member) => member.known_by == KnownBy::Repository,
            Membership::Ambiguous(_) | Membership::Other(_) | Membership::Untracked => true,
        };
        if is_by_repository && self.own_name.is_some() { Membership::Untracked } else { found }
    }

    /// Whether the line takes its tag from a variable that the service is given.
    fn follows(&self, service: &Service, prefix: &str) -> bool {
        let [_, own] = own(prefix, &service.name);
        self.tag_variables.iter().any(|name| *name == own || Some(name) == service.env_tag.as_ref())
    }

    /// Whether both run the same image, where both run.
    fn runs_as(&self, other: &Self) -> Option<bool> {
        let both = self.line.running().zip(other.line.running());
        both.map(|(mine, others)| mine.image_id == others.image_id)
    }

    /// Whether it has the version that is recorded of `service`, which the tag `meant` stands for as
    /// well: to be behind or ahead of the record is not to contradict it. `None` if only a registry
    /// can tell.
    fn agrees(&self, service: &Service, meant: &str) -> Option<bool> {
        let (image, here) = (&self.line.image, self.line.present.as_ref());
        let (nothing, current) = (Bytes::default(), service.current());
        let bytes = current.map_or(&nothing, |current| &current.bytes);
        let names_it = match (&image.digest, tag_named(image)) {
            (Some(digest), _) => bytes.has_digest(digest),
            (None, tag) => tag == meant || current.is_some_and(|one| one.tag.as_str() == tag),
        };
        let has_it = here.is_some_and(|present| {
            bytes.image_id.as_ref() == Some(&present.image_id)
                || present.digests_in(&image.repository).any(|digest| bytes.has_digest(digest))
        });
        let is_known = image.digest.is_some() || (here.is_some() && bytes.image_id.is_some());
        if names_it || has_it { Some(true) } else { is_known.then_some(false) }
    }

    fn other_version(&self, recorded: &Service, prefix: &str) -> OtherVersion {
        let current = recorded.current().map(|current| ReleaseView::from(current).short());
        OtherVersion {
            service: recorded.name.to_string(),
            compose_service: self.line.name().to_owned(),
            image: self.image(),
            runs: self.line.running().map(|present| present.image_id.to_string()),
            recorded: current.unwrap_or_else(|| recorded.track_name().to_owned()),
            will_change: self.follows(recorded, prefix),
        }
    }

    /// What makes the line follow, if it does not.
    fn change(&self, service: &Service, prefix: &str) -> Option<ComposeChange> {
        if self.follows(service, prefix) {
            return None;
        }
        let written = self.line.written.clone();
        let (text, own) = (written.from.as_deref(), own(prefix, &service.name));
        let now = &self.line.image;
        Some(match image_line::following(text, now, &own, self.line.nests_defaults) {
            Ok(new) => ComposeChange { to: Some(new.text), cut: new.cut, ..written },
            Err(why) => ComposeChange { left: Some(why), ..written },
        })
    }

    /// The tag to follow: the one that is written, as Compose fills it in. `None` where only a
    /// digest says what it is.
    ///
    /// A variable of dkv's own that the environment sets is a record of what is current, and says
    /// nothing about the tag that led there: the default does.
    fn track(&self) -> Option<Tag> {
        let is_record = self.own_name.is_some() && self.line.is_sourced;
        let default = self.default.as_ref().filter(|_| is_record);
        let reference = default.unwrap_or(&self.line.image);
        let latest = || DEFAULT_TRACK.parse().ok().filter(|_| reference.digest.is_none());
        reference.tag.clone().or_else(latest)
    }

    /// Whether both are one service: they take their tag from one variable, or it is the same tag.
    fn belongs_to(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.line, other.line);
        if mine.image.repository != theirs.image.repository || mine.platform != theirs.platform {
            return false;
        }
        match (&self.own_name, &other.own_name) {
            (Some(mine), Some(theirs)) => return mine == theirs,
            _ if self.tag_variables.iter().any(|name| other.tag_variables.contains(name)) => {
                return true;
            }
            _ => {}
        }
        match (self.track(), other.track()) {
            (None, None) => mine.image.digest == theirs.image.digest,
            (mine, theirs) => mine == theirs,
        }
    }
}

/// The tag that a reference names, said or not.
fn tag_named(reference: &Reference) -> &str {
    reference.tag.as_ref().map_or(DEFAULT_TRACK, Tag::as_str)
}

/// The tag that a reference names, or that it names none.
fn version_told(reference: &Reference) -> &str {
    match reference {
        Reference { tag: None, digest: Some(_), .. } => "a digest",
        other => tag_named(other),
    }
}

/// The name that one of `variables` has between prefix and suffix.
fn name_within(variables: &[String], prefix: &str, suffix: &str) -> Option<String> {
    let middle =
        |name: &String| Some(name.strip_prefix(prefix)?.strip_suffix(suffix)?.to_lowercase());
    variables.iter().filter_map(middle).find(|middle| !middle.is_empty())
}

/// The variables that lead to what fits if they have `value` and all others have none, or where that
/// is no image name, something.
fn leading_to(
    template: Option<&Template>,
    value: &str,
    fits: impl Fn(&Reference) -> bool,
) -> Vec<String> {
    let Some(template) = template else { return Vec::new() };
    let leads = |variable: &&str| {
        let found = [None, Some("x")].into_iter().find_map(|others| {
            let lookup =
                |name: &str| Some(if name == *variable { value } else { others? }.to_owned());
            template.evaluate(&lookup).ok()?.parse().ok()
        });
        found.is_some_and(|found| fits(&found))
    };
    template.variables().into_iter().filter(leads).map(str::to_owned).collect()
}

/// What tells the product's images from those that it stands on.
struct Product<'l> {
    /// The publishers of applications, with one of these each.
    homes: BTreeMap<(&'l str, &'l str), &'l Repository>,
    /// Whether there is an application at all, or something that is tracked already.
    has_application: bool,
}

impl<'l> Product<'l> {
    fn of(readings: &[Reading<'l>], known: Option<&Manifest>) -> Self {
        let images = readings.iter().filter(|reading| !reading.line.is_database);
        let images = images.map(|reading| &reading.line.image.repository);
        let applications: Vec<_> =
            images.filter(|image| purpose::of(image) == Purpose::Application).collect();
        let homes = applications.iter().rev();
        Self {
            homes: homes.filter_map(|image| Some((purpose::home(image)?, *image))).collect(),
            has_application: !applications.is_empty()
                || readings.iter().any(|reading| reading.line.has_build)
                || known.is_some_and(|manifest| !manifest.services.is_empty()),
        }
    }

    /// Why a group is tracked, or else is not: all are but those that hold data or are plumbing,
    /// whatever variables say. An own plumbing is the product's; own data are data.
    fn verdict(&self, group: &[Reading<'_>], choice: &Choice) -> Result<String, String> {
        let image = &group[0].line.image.repository;
        if group.iter().any(|reading| choice.track.contains(reading.line.name())) {
            return Ok("asked for".to_owned());
        }
        if group.iter().any(|reading| reading.line.has_build) {
            return Ok("has a build section".to_owned());
        }
        if group.iter().all(|reading| reading.line.is_database) {
            return Err("stands in the database files".to_owned());
        }
        match purpose::of(image) {
            Purpose::Application => Ok("an application".to_owned()),
            Purpose::Data(kind) => Err(format!("{kind}, which holds data")),
            Purpose::Plumbing(kind) => {
                let own = purpose::home(image).and_then(|home| self.homes.get(&home));
                match own {
                    Some(beside) => Ok(format!("{kind}, the publisher's of {beside}")),
                    None if !self.has_application => {
                        Ok(format!("{kind}, and nothing else is here"))
                    }
                    None => Err(kind.to_owned()),
                }
            }
        }
    }
}

/// Why a Compose service is left out by its name.
fn left_out(name: &str, names: &[String], before: &[String]) -> Option<&'static str> {
    match names.iter().any(|one| one == name) {
        true if before.iter().any(|one| one == name) => Some("`untracked` in the manifest says so"),
        true => Some("left out"),
        false => None,
    }
}

/// One group for each name in variables and, without such, for each tag of a repository; in the
/// order of the files.
fn group<'l>(readings: Vec<Reading<'l>>, lines: &[Line]) -> Vec<Vec<Reading<'l>>> {
    let place =
        |reading: &Reading<'_>| lines.iter().position(|one| std::ptr::eq(one, reading.line));
    let mut groups: Vec<Vec<Reading<'l>>> = Vec::new();
    let (named, plain): (Vec<_>, Vec<_>) =
        readings.into_iter().partition(|reading| reading.own_name.is_some());
    for reading in named.into_iter().chain(plain) {
        // Those with names come first, so the first of a group has its name.
        let fits = |group: &&mut Vec<Reading<'l>>| group.iter().any(|one| reading.belongs_to(one));
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(reading),
            None => groups.push(vec![reading]),
        }
    }
    groups.iter_mut().for_each(|group| group.sort_by_key(place));
    groups.sort_by_key(|group| place(&group[0]));
    groups
}

fn names_in(group: &[Reading<'_>]) -> Vec<String> {
    group.iter().map(|reading| reading.line.name().to_owned()).collect()
}

/// The repositories of which several services are new: two programs, or one in two versions by
/// mistake.
fn several_tags(new: &[(ServiceName, String, Vec<Reading<'_>>)]) -> Vec<String> {
    let mut of_image: IndexMap<&Repository, Vec<String>> = IndexMap::new();
    for (name, _, group) in new {
        // What has variables of its own is meant to be told apart.
        if group.iter().any(|reading| reading.own_name.is_some()) {
            continue;
        }
        let line = group[0].line;
        let platform = line.platform.as_ref().map(|platform| format!(", {platform}"));
        let version = version_told(&line.image);
        let told = format!("{name} ({version}{})", platform.unwrap_or_default());
        of_image.entry(&line.image.repository).or_default().push(told);
    }
    let several = of_image.into_iter().filter(|(_, services)| services.len() > 1);
    let told = several.map(|(image, services)| {
        let what = if services.iter().any(|one| one.contains('/')) { "platforms" } else { "tags" };
        format!(
            "{image} has several {what} here, each a service of its own: {}",
            services.join(", ")
        )
    });
    told.collect()
}

/// A name whose variables no other service has. Where the repository has other services too, that
/// of the Compose service says most.
fn name_of(
    group: &[Reading<'_>],
    is_alone: bool,
    prefix: &str,
    taken: &mut BTreeSet<[String; 2]>,
) -> Option<ServiceName> {
    let first = group[0].line;
    let base = first.image.repository.base_name();
    let publisher = first.image.repository.path().rsplit('/').nth(1);
    // An image that is only built is named after its project, which says little.
    let is_only_built = first.written.from.is_none();
    // What a variable's name cannot spell is spelled as it was before there was a variable.
    let spelled = |named: String| {
        let variables = own(prefix, &named.parse().ok()?);
        let mut written = [base, first.name()].into_iter();
        let same =
            written.find(|name| name.parse().is_ok_and(|name| own(prefix, &name) == variables));
        Some(same.map_or(named, str::to_owned))
    };
    let candidates = [
        group.iter().find_map(|reading| reading.own_name.clone()).and_then(spelled),
        (is_only_built || !is_alone).then(|| first.name().to_owned()),
        Some(base.to_owned()),
        publisher.map(|publisher| format!("{publisher}-{base}")),
        Some(first.name().to_owned()),
    ];
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let names = candidates.into_iter().flatten().chain(numbered);
    names.filter_map(|name| name.parse().ok()).find(|name| taken.insert(own(prefix, name)))
}

/// The place of the Compose service whose version is recorded: rather one that runs, rather one
/// whose image has this repository's name, rather one whose line follows `versions.env` in any case;
/// among these the version that most have, and of several the one that the files name first.
fn lead_of(group: &[Reading<'_>], service: &Service, prefix: &str) -> usize {
    let version = |reading: &Reading<'_>| match reading.line.running() {
        Some(present) => present.image_id.to_string(),
        None => version_named(&reading.line.image),
    };
    let alike = |mine: &str| group.iter().filter(|other| version(other) == mine).count();
    let is_foreign = |present: &Present| {
        let named = present.named.as_ref();
        named.is_none_or(|named| Some(&named.repository) != service.image.as_ref())
    };
    let rank = |index: &usize| {
        let reading = &group[*index];
        (
            reading.line.running().is_none(),
            reading.line.present.as_ref().is_some_and(is_foreign),
            !reading.follows(service, prefix),
            Reverse(alike(&version(reading))),
            reading.line.present.is_none(),
        )
    };
    (0..group.len()).min_by_key(rank).unwrap_or_default()
}

/// The first variable of a kind that may be fed, of a line that does not have the service's own.
fn usable<'r>(
    kind: impl Iterator<Item = &'r Vec<String>>,
    own: &String,
    shared: &BTreeSet<String>,
) -> Option<String> {
    let foreign = kind.filter(|variables| !variables.contains(own));
    foreign.flatten().find(|variable| !shared.contains(*variable)).cloned()
}

impl<'l> NewService<'l> {
    fn of(
        (name, reason): (ServiceName, String),
        readings: Vec<Reading<'l>>,
        prefix: &str,
        shared: &BTreeSet<String>,
    ) -> Self {
        let repository = &readings[0].line.image.repository;
        let [image, tag] = own(prefix, &name);
        let mut service = Service::new(name, Some(repository.clone()));
        service.env_image = usable(readings.iter().map(|one| &one.image_variables), &image, shared);
        service.env_tag = usable(readings.iter().map(|one| &one.tag_variables), &tag, shared);
        service.compose_services = names_in(&readings);
        let lead_at = lead_of(&readings, &service, prefix);
        let lead = readings[lead_at].line;
        service.platform = lead.platform.clone();

        let present = lead.present.as_ref();
        let started_as = present.and_then(|present| present.named.as_ref());
        let named = started_as.filter(|named| named.repository == *repository);
        let is_version = |tag: &&Tag| !tag.as_str().starts_with(KEEP_TAG_PREFIX);
        let started_by = named.and_then(|named| named.tag.as_ref()).filter(is_version);
        let written = lead.image.tag.as_ref().filter(is_version);
        // What runs is the later word on what stays until told.
        let later = started_by.filter(|tag| track::is_release(tag));
        let track = readings[lead_at].track().filter(|tag| is_version(&tag));
        service.track = match (track, later) {
            (Some(track), Some(later)) if track::is_release(&track) => Some(later.clone()),
            (track, _) => track,
        };
        let has_track = service.track.is_some();
        service.track.take_if(|track| track.as_str() == DEFAULT_TRACK);
        let tag = started_by.or(written).or(service.track.as_ref()).cloned();
        // A name with a digest says nothing about its tag: the daemon looks at the digest alone.
        let was_meant = started_by.is_some() && named.is_some_and(|named| named.digest.is_none());
        let has_tag = present.is_some_and(|present| {
            let mut tags = present.tags.iter();
            tags.any(|(name, one)| name == repository && Some(one) == tag.as_ref())
        });
        let asked = started_as.and_then(|named| named.digest.as_ref());
        let mut digests: Vec<Digest> = match present {
            Some(present) => present.digests_in(repository).cloned().collect(),
            None => lead.image.digest.clone().into_iter().collect(),
        };
        digests.sort_by_key(|digest| Some(digest) != asked);

        let mut notes = Vec::new();
        for reading in &readings {
            // Inside the default of its own variable another one does no harm.
            let is_open = !reading.follows(&service, prefix);
            let mut variables = reading.tag_variables.iter().filter(|_| is_open);
            let shared = variables.find(|name| shared.contains(*name));
            notes.extend(shared.map(|shared| {
                format!(
                    "{} gets its tag from {shared}, which other images use as well; one variable \
                    cannot carry two digests",
                    reading.line.name()
                )
            }));
        }
        notes.extend(disagreement(&readings));
        if let (Some(_), None, Some(other)) = (lead.running(), named, started_as) {
            notes.push(format!("what runs was started as {other}, not as {repository}"));
        }
        Self {
            reason,
            build: Build::of(&readings),
            has_track,
            is_confirmed: was_meant || has_tag,
            lead: lead_at,
            service,
            tag,
            digests,
            present,
            notes,
            readings,
        }
    }

    /// The Compose services that have another version than `recorded`, which is this service with
    /// its release, and the image by which a registry may know better: two names may mean the same
    /// bytes.
    pub fn others(
        &self,
        recorded: &Service,
        prefix: &str,
    ) -> impl Iterator<Item = (OtherVersion, Option<&Reference>)> {
        let lead = &self.readings[self.lead];
        let is_pinned = lead.line.image.digest.is_some();
        let meant = if is_pinned { "" } else { tag_named(&lead.line.image) };
        let others = self.readings.iter().filter(|one| !std::ptr::eq(*one, lead));
        others.filter_map(move |one| {
            let agrees = one.runs_as(lead).or_else(|| one.agrees(recorded, meant));
            let other = one.other_version(recorded, prefix);
            (agrees != Some(true)).then(|| (other, agrees.is_none().then_some(&one.line.image)))
        })
    }
}

/// Compose services of one image that run different ones.
fn disagreement(group: &[Reading<'_>]) -> Option<String> {
    let mut images: BTreeMap<&Digest, Vec<&str>> = BTreeMap::new();
    for line in group.iter().map(|reading| reading.line) {
        if let Some(present) = line.running() {
            images.entry(&present.image_id).or_default().push(line.name());
        }
    }
    let each = images.iter().map(|(id, names)| format!("{} ({})", names.join(", "), id.short()));
    let each: Vec<String> = each.collect();
    (each.len() > 1)
        .then(|| format!("its Compose services run different images now: {}", each.join(", ")))
}

#[cfg(test)]
mod tests;
