//! Drift: where manifest, `versions.env`, Compose files, local images, containers and registry
//! disagree about a deployment. Pure; [`Views`] holds what was found.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::docker::{Container, ContainerState, ListedImage};
use crate::followers::Hanging;
use crate::members::{Differs, Members, Membership, Stranger, Use, repository_of};
use crate::model::env_file;
use crate::model::history::Release;
use crate::model::interpolation::Template;
use crate::model::manifest::{DEFAULT_TRACK, Manifest, Rank, Service, Source};
use crate::model::reference::{Digest, Platform, Reference, Repository, ServiceName};
use crate::observe::LocalImages;
use crate::pin::Verdict;
use crate::plan;
use crate::report::ReleaseView;
use crate::report::drift::{
    ComposeView, Finding, FindingKind, ReleaseState, Restorable, RunningView, ServiceViews,
    Verification,
};
use crate::report::pin::PinDisagreement;

/// Everything that is compared.
pub struct Views<'a> {
    /// What is recorded.
    pub manifest: &'a Manifest,
    /// Which Compose services run which of its services.
    pub members: &'a Members,
    /// What tells this deployment's keep-tags from others'.
    pub deployment: &'a str,
    /// The digests that this host's daemon cannot find images by, although it has them.
    pub only_by_keep_tag: &'a BTreeSet<Digest>,
    /// What `versions.env` says.
    pub env: EnvView,
    /// What Compose would start, for somebody who has sourced `versions.env`.
    pub starts: Vec<ServiceStart>,
    /// The images in the Compose files of the directory, as they are written.
    pub files: Vec<FileImage>,
    /// The images that Compose services use beside their own.
    pub others: Vec<OtherUse>,
    /// What of the Compose files is an image and can be compared with nothing.
    pub incomparable: Vec<String>,
    /// The images to which Compose files give different digests.
    pub disagreements: Vec<PinDisagreement>,
    /// What is local and what runs; none without a daemon.
    pub daemon: Option<DaemonView>,
    /// What the registries have; none unless they were asked.
    pub remote: Option<RemoteView>,
}

/// `versions.env`.
#[derive(Debug, Default)]
pub struct EnvView {
    /// The file, as messages name it.
    pub file: String,
    /// What is wrong with it, if anything.
    pub wrong: Option<FindingKind>,
    /// Its assignments.
    pub values: BTreeMap<String, String>,
}

/// What Compose would start for one Compose service.
#[derive(Debug, Clone, Default)]
pub struct ServiceStart {
    /// The Compose service.
    pub compose_service: String,
    /// Its image with all variables replaced.
    pub image: Option<String>,
    /// Its image as the file has it.
    pub text: Option<String>,
    /// The platform that it shall run on, where that is said.
    pub platform: Option<Platform>,
    /// Whether Compose builds it.
    pub has_build: bool,
    /// The Compose services that must have completed before it starts.
    pub waits_for_end_of: Vec<String>,
    /// Whether its files say that it is never restarted.
    pub is_one_shot: bool,
    /// Whether it belongs to what a plain start would start; others have a profile that is off.
    pub is_active: bool,
    /// The template that its file is made from, if it is.
    pub template: Option<String>,
}

/// One image of a Compose file.
#[derive(Debug, Clone)]
pub struct FileImage {
    /// The file and the line, as messages name them.
    pub place: String,
    /// The Compose services that run it.
    pub compose_services: Vec<String>,
    /// The image as written.
    pub image: String,
    /// Whether it says what the manifest says.
    pub verdict: Verdict,
    /// The template that the file is made from, if it is.
    pub template: Option<String>,
    /// Why nobody gives it the variable that it has, if that is so.
    pub unset: Option<String>,
}

/// An image that a Compose service uses beside its own: mounted, or before or after it.
#[derive(Debug, Clone)]
pub struct OtherUse {
    /// The file and the line, as messages name them.
    pub place: String,
    /// The Compose service, and the key of it that names the image.
    pub used_by: String,
    /// The image, with all variables replaced.
    pub image: String,
}

/// What the daemon has.
#[derive(Debug)]
pub struct DaemonView {
    /// The Compose project; `None` if Compose could not say, and so not which services it has
    /// either.
    pub project: Option<String>,
    /// The deployment directory, as Compose labels containers with it.
    pub directory: String,
    /// All images.
    pub images: LocalImages,
    /// All containers, other projects' too.
    pub containers: Vec<Container>,
    /// The deployment's containers that hang on to what is gone.
    pub hanging: Vec<Hanging>,
}

/// What the registries have.
#[derive(Debug, Default)]
pub struct RemoteView {
    /// Whether a digest is still there.
    pub has: BTreeMap<(Repository, Digest), bool>,
    /// What the tracked tags name.
    pub tracked: BTreeMap<ServiceName, Option<Digest>>,
}

/// Compares the views.
#[must_use]
pub fn compare(views: &Views<'_>) -> Verification {
    let mut found = DriftSearch::of(views);
    found.env();
    found.files();
    found.others();
    found.products();
    let services = views.manifest.services.values().map(|service| found.service(service)).collect();
    found.outsiders();
    found.hanging();
    found.untracked();
    let DriftSearch { drift, notes, .. } = found;
    Verification { clean: drift.is_empty(), not_compared: Vec::new(), drift, notes, services }
}

struct DriftSearch<'v, 'a> {
    views: &'v Views<'a>,
    drift: Vec<Finding>,
    notes: Vec<Finding>,
    /// The Compose services whose wrong image has been told of already.
    explained: BTreeSet<String>,
    /// The manifest service of each Compose service that runs one.
    tracked: HashMap<&'v str, &'a Service>,
    /// What Compose would start for each service of the manifest.
    starts: HashMap<&'a ServiceName, Vec<&'v ServiceStart>>,
    /// The deployment's containers that say what runs, by their Compose service.
    containers: HashMap<&'v str, Vec<&'v Container>>,
    /// The Compose services that end when their work is done.
    one_shots: BTreeSet<&'v str>,
    /// All that Compose would start, by name.
    by_name: HashMap<&'v str, &'v ServiceStart>,
    /// The services whose tag a variable gives.
    given_by: HashMap<String, BTreeSet<&'a ServiceName>>,
}

impl<'v, 'a> DriftSearch<'v, 'a> {
    /// Nothing compared yet, everything put where it is looked for.
    fn of(views: &'v Views<'a>) -> Self {
        let mut found = Self {
            views,
            drift: Vec::new(),
            notes: Vec::new(),
            explained: BTreeSet::new(),
            tracked: HashMap::new(),
            starts: HashMap::new(),
            containers: HashMap::new(),
            one_shots: BTreeSet::new(),
            by_name: HashMap::new(),
            given_by: HashMap::new(),
        };
        for start in &views.starts {
            let name = start.compose_service.as_str();
            found.by_name.entry(name).or_insert(start);
            if let Some(service) = found.service_of(start) {
                found.tracked.insert(name, service);
                found.starts.entry(&service.name).or_default().push(start);
                for variable in tag_variables(start) {
                    found.given_by.entry(variable).or_default().insert(&service.name);
                }
            }
            if start.is_one_shot {
                found.one_shots.insert(name);
            }
            found.one_shots.extend(start.waits_for_end_of.iter().map(String::as_str));
        }
        for container in views.daemon.iter().flat_map(|daemon| &daemon.containers) {
            if let Some(name) = container.labels.service()
                && found.counts(container)
            {
                found.containers.entry(name).or_default().push(container);
            }
        }
        found
    }

    /// The manifest service that a Compose service runs.
    fn service_of(&self, start: &ServiceStart) -> Option<&'a Service> {
        self.views.manifest.services.get(self.found(start).service()?)
    }

    fn found(&self, start: &ServiceStart) -> Membership<'a> {
        let image = start.image.as_ref().and_then(|image| image.parse().ok());
        self.membership(start, start.text.as_deref(), image.as_ref())
    }

    /// What a Compose service with this image line is to the manifest.
    fn membership(
        &self,
        start: &ServiceStart,
        text: Option<&str>,
        image: Option<&Reference>,
    ) -> Membership<'a> {
        let line = text.and_then(|text| Template::parse(text).ok());
        let (name, platform) = (start.compose_service.as_str(), start.platform.as_ref());
        self.views.members.find(&Use { name, line: line.as_ref(), image, platform })
    }

    /// What Compose would start for a service of the manifest.
    fn starts_of(&self, service: &Service) -> Vec<&'v ServiceStart> {
        self.starts.get(&service.name).cloned().unwrap_or_default()
    }

    fn differs(
        &mut self,
        kind: FindingKind,
        service: Option<&Service>,
        message: String,
        mend: impl Into<String>,
    ) {
        let service = service.map(|service| service.name.to_string());
        self.drift.push(Finding { kind, service, message, mend: Some(mend.into()) });
    }

    fn note(
        &mut self,
        kind: FindingKind,
        service: Option<&Service>,
        message: String,
        mend: Option<&str>,
    ) {
        let service = service.map(|service| service.name.to_string());
        self.notes.push(Finding { kind, service, message, mend: mend.map(str::to_owned) });
    }

    /// The manifest service that a Compose service runs.
    fn tracked(&self, start: &ServiceStart) -> Option<&'a Service> {
        self.tracked.get(start.compose_service.as_str()).copied()
    }

    fn env(&mut self) {
        let Some(kind) = self.views.env.wrong else { return };
        let file = &self.views.env.file;
        let followers = self.followers();
        // A file that nobody reads may be missing.
        let message = match kind {
            FindingKind::EnvMissing if followers.is_empty() => return,
            FindingKind::EnvMissing => format!(
                "{file} does not exist: Compose started by hand runs the defaults of its files"
            ),
            FindingKind::EnvStale => {
                format!("{file} is stale: it was written from an older manifest")
            }
            _ => format!("{file} was edited by hand or by another tool"),
        };
        self.explained.extend(followers);
        self.differs(kind, None, message, "`dkv generate-env`");
    }

    /// The tracked Compose services whose image has variables.
    fn followers(&self) -> BTreeSet<String> {
        let starts = self
            .views
            .starts
            .iter()
            .filter(|start| start.text.as_ref().is_some_and(|text| text.contains('$')));
        starts
            .filter(|start| self.tracked(start).is_some())
            .map(|start| start.compose_service.clone())
            .collect()
    }

    /// Containers that run in namespaces of one that is gone.
    fn hanging(&mut self) {
        for one in self.views.daemon.iter().flat_map(|daemon| &daemon.hanging) {
            let service = self.tracked.get(one.service.as_str()).copied();
            let message = format!("{} {}", one.container, one.in_words());
            self.differs(FindingKind::CutOff, service, message, "`dkv up`");
        }
    }

    /// What is written in Compose files, whether or not Compose would read them now.
    fn files(&mut self) {
        for image in &self.views.files {
            let FileImage { place, compose_services, image, verdict, template, unset } = image;
            let reference = image.parse().ok();
            let service = compose_services.first().and_then(|name| {
                let known = self.by_name.get(name.as_str()).copied();
                let unknown = ServiceStart { compose_service: name.clone(), ..Default::default() };
                let start = known.unwrap_or(&unknown);
                let found = self.membership(start, Some(image), reference.as_ref());
                self.views.manifest.services.get(found.service()?)
            });
            match verdict {
                Verdict::Stale(wanted) => {
                    let message = format!(
                        "{place} pins {}, recorded is {}",
                        shortened(image),
                        shortened(wanted)
                    );
                    let mend = match template {
                        Some(template) => {
                            format!("change it in {template}, and make the file again")
                        }
                        None => "`dkv pin`".to_owned(),
                    };
                    self.differs(FindingKind::OtherDigestPinned, service, message, mend);
                }
                Verdict::Loose(_) => {
                    let message = match unset {
                        Some(why) => format!("{place} says {image}, and is given no value: {why}"),
                        None => format!(
                            "{place} says {image}, whatever versions.env and the manifest say"
                        ),
                    };
                    let mend = match template {
                        Some(template) => follow_in(template),
                        None if says_record(service, image) => {
                            "`dkv migrate-versions --write`, or `dkv pin` to keep it literal"
                                .to_owned()
                        }
                        // Another version is not changed in passing.
                        None => "`dkv pin` writes the recorded version there".to_owned(),
                    };
                    self.differs(FindingKind::LiteralTag, service, message, mend);
                }
                Verdict::Refused(why) => {
                    let message = format!("{place} says {image}: {why}");
                    self.differs(
                        FindingKind::LiteralTag,
                        service,
                        message,
                        format!("edit {place}"),
                    );
                }
                Verdict::Invalid => {
                    let message = format!("{place} says {image}, which is not an image name");
                    self.differs(
                        FindingKind::LiteralTag,
                        service,
                        message,
                        format!("edit {place}"),
                    );
                }
                _ => continue,
            }
            self.explained.extend(compose_services.iter().cloned());
        }
        for disagreement in &self.views.disagreements {
            let sides = disagreement.digests.iter();
            let sides: Vec<String> = sides
                .map(|(digest, places)| {
                    format!("{} in {}", crate::report::short_digest(digest), places.join(", "))
                })
                .collect();
            let message = format!(
                "{} is pinned to different digests: {}",
                disagreement.image,
                sides.join("; ")
            );
            let repository = repository_of(&disagreement.image);
            let service = self
                .views
                .manifest
                .services
                .values()
                .find(|service| service.image.is_some() && service.image == repository);
            let places: Vec<&String> = disagreement.digests.values().flatten().collect();
            let files = self.views.files.iter().filter(|image| places.contains(&&image.place));
            let template = files.filter_map(|image| image.template.as_ref()).next();
            let mend = match (service, template) {
                (_, Some(template)) => {
                    format!("give all of them the same digest, and change it in {template}")
                }
                (Some(_), None) => "`dkv pin`".to_owned(),
                (None, None) => "give all of them the same digest".to_owned(),
            };
            self.differs(FindingKind::FilesDisagree, service, message, mend);
        }
    }

    /// What services use beside their own image, where that is a tracked one.
    fn others(&mut self) {
        for other in &self.views.others {
            let Ok(reference) = other.image.parse::<Reference>() else { continue };
            let mut services = self
                .views
                .manifest
                .services
                .values()
                .filter(|service| service.image.as_ref() == Some(&reference.repository))
                .peekable();
            let Some(&service) = services.peek() else { continue };
            if services.any(|service| self.is_recorded(service, &reference)) {
                continue;
            }
            let OtherUse { place, used_by, image } = other;
            let recorded = self.compose_tag(service);
            let message = format!(
                "{place}: {used_by} use {}, recorded is {}",
                shortened(image),
                shortened(&recorded)
            );
            let mend = format!("let it follow the variables of {} there", service.name);
            self.differs(FindingKind::OtherImageDiffers, Some(service), message, mend);
        }
        for what in &self.views.incomparable {
            self.note(FindingKind::NotCompared, None, format!("not compared: {what}"), None);
        }
    }

    /// Compose services that belong together and do not have the same image.
    fn products(&mut self) {
        for service in self.views.manifest.services.values() {
            let mine = self.starts_of(service);
            let (own, foreign): (Vec<&ServiceStart>, Vec<&ServiceStart>) =
                mine.into_iter().partition(|start| {
                    repository(start).is_none_or(|repository| Some(repository) == service.image)
                });
            for start in foreign {
                let (name, image) =
                    (&start.compose_service, start.image.as_deref().unwrap_or_default());
                let message =
                    format!("{name} belongs to {}, but would start {image}", service.name);
                let expected =
                    service.image.as_ref().map_or("the others' image", Repository::as_written);
                self.differs(
                    FindingKind::ImagesDiffer,
                    Some(service),
                    message,
                    format!("give {name} {expected} in its Compose file"),
                );
                self.explained.insert(name.clone());
            }
            let mut images: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for start in &own {
                if let Some(image) = &start.image {
                    images.entry(image).or_default().push(&start.compose_service);
                }
            }
            if images.len() > 1 {
                let sides: Vec<String> = images
                    .iter()
                    .map(|(image, names)| {
                        format!("{} would start {}", names.join(", "), shortened(image))
                    })
                    .collect();
                let message = format!(
                    "the Compose services of {} have different images: {}",
                    service.name,
                    sides.join("; ")
                );
                let apart = own.iter().filter(|start| !self.starts_record(service, start));
                let mends: BTreeSet<String> =
                    apart.map(|start| self.mend_of_line(service, start)).collect();
                let mend = mends.into_iter().collect::<Vec<_>>().join("; ");
                self.differs(FindingKind::ImagesDiffer, Some(service), message, mend);
                self.explained.extend(images.into_values().flatten().map(str::to_owned));
            }
        }
        for (local, published) in mixed(&self.views.starts, |start| self.is_local(start)) {
            let message = format!(
                "{} runs the local build {}, but {} of the same product would start the published \
                    {}",
                local.compose_service,
                local.image.as_deref().unwrap_or_default(),
                published.compose_service,
                published.image.as_deref().unwrap_or_default(),
            );
            let mend = format!(
                "give {} the image of {} in its Compose file",
                published.compose_service, local.compose_service
            );
            self.differs(FindingKind::SourcesMixed, self.tracked(local), message, mend);
            self.explained.insert(published.compose_service.clone());
        }
    }

    /// Whether a Compose service would start what is recorded.
    fn starts_record(&self, service: &Service, start: &ServiceStart) -> bool {
        let reference = start.image.as_ref().and_then(|image| image.parse().ok());
        reference.is_some_and(|reference| self.is_recorded(service, &reference))
    }

    /// What makes the image line of `start` give what `service` has recorded.
    fn mend_of_line(&self, service: &Service, start: &ServiceStart) -> String {
        if let Some(template) = &start.template {
            return follow_in(template);
        }
        let says_record = says_record(Some(service), start.image.as_deref().unwrap_or_default());
        if start.text.as_ref().is_some_and(|text| !text.contains('$')) {
            return if says_record {
                "`dkv migrate-versions --write`"
            } else {
                "`dkv pin` writes the recorded version there"
            }
            .to_owned();
        }
        let variables = tag_variables(start);
        match variables.iter().find(|variable| !self.is_shared(variable, service)) {
            Some(variable) => format!(
                "`env_tag: {variable}` for the service in the manifest, then `dkv generate-env`"
            ),
            None if says_record => {
                "`dkv migrate-versions --write` makes the line follow; `dkv pin` writes the digest \
                into it"
                    .to_owned()
            }
            None => "`dkv pin` writes the recorded version there".to_owned(),
        }
    }

    /// Whether `variable` gives the tag of other services than `service` too.
    fn is_shared(&self, variable: &str, service: &Service) -> bool {
        let given = self.given_by.get(variable);
        given.is_some_and(|given| given.iter().any(|other| **other != service.name))
    }

    /// Whether a Compose service runs something that was built on this host.
    fn is_local(&self, start: &ServiceStart) -> bool {
        let is_recorded = self.tracked(start).is_some_and(|service| {
            service.source == Source::Local && service.image == repository(start)
        });
        start.has_build || is_recorded || self.was_never_pulled(start).unwrap_or(false)
    }

    /// Whether no registry has given a name to the image of a Compose service, if it is here.
    fn was_never_pulled(&self, start: &ServiceStart) -> Option<bool> {
        let reference: Reference = start.image.as_ref()?.parse().ok()?;
        let images = &self.views.daemon.as_ref()?.images;
        let image = images.by_tag(&reference.repository, reference.tag.as_ref()?)?;
        Some(image.digests.is_empty())
    }

    /// Compares the views of one service.
    fn service(&mut self, service: &'a Service) -> ServiceViews {
        let tag_variable =
            env_file::variable(&self.views.manifest.env.prefix, &service.name, "TAG");
        let compose = self.compose(service);
        let releases = self.releases(service);
        let running = self.running(service);
        let current = service.current();
        if current.is_none_or(|current| !current.bytes.is_known()) {
            let message =
                "no digest is recorded, so nobody knows which bytes should run".to_owned();
            let (message, mend) = match service.source {
                Source::Registry => (message, "`dkv pull-latest`"),
                Source::Local => ("no build of it is recorded yet".to_owned(), "`dkv build`"),
            };
            match current.filter(|_| service.is_named_by_hand()) {
                Some(Release { tag, .. }) => self.differs(
                    FindingKind::Unrecorded,
                    Some(service),
                    format!("{tag} was written by hand, and its digest is not known"),
                    format!("`dkv version-pull {} {tag}`", service.name),
                ),
                None => self.note(FindingKind::Unrecorded, Some(service), message, Some(mend)),
            }
        }
        let env = self.views.env.values.get(&tag_variable);
        ServiceViews {
            name: service.name.to_string(),
            manifest: current.map(ReleaseView::from),
            env_as_recorded: env.is_some_and(|tag| *tag == self.compose_tag(service)),
            env: env.cloned(),
            compose,
            local: self
                .views
                .daemon
                .as_ref()
                .zip(current)
                .map(|(_, current)| self.local(service, current).is_some()),
            running,
            remote: self
                .views
                .remote
                .as_ref()
                .and_then(|remote| remote.tracked.get(&service.name)?.as_ref())
                .map(ToString::to_string),
            releases,
        }
    }

    /// What Compose would start, against the record.
    fn compose(&mut self, service: &'a Service) -> Vec<ComposeView> {
        let mut views = Vec::new();
        for start in self.starts_of(service) {
            let Some(image) = &start.image else { continue };
            let as_recorded =
                image.parse().is_ok_and(|reference| self.is_recorded(service, &reference));
            if !as_recorded && !self.explained.contains(&start.compose_service) {
                let name = &start.compose_service;
                let recorded = self.compose_tag(service);
                let message = format!(
                    "Compose would start {} for {name}, recorded is {}",
                    shortened(image),
                    shortened(&recorded)
                );
                let has_variables = start.text.as_ref().is_some_and(|text| text.contains('$'));
                let kind = if has_variables {
                    FindingKind::ComposeDiffers
                } else {
                    FindingKind::LiteralTag
                };
                let mend = self.mend_of_line(service, start);
                self.differs(kind, Some(service), message, mend);
            }
            views.push(ComposeView {
                compose_service: start.compose_service.clone(),
                image: image.clone(),
                as_recorded,
            });
        }
        views
    }

    /// The tag that Compose should get.
    fn compose_tag(&self, service: &Service) -> String {
        let pin = self.views.manifest.env.pin;
        plan::compose_tag(service, pin, self.views.deployment, self.views.only_by_keep_tag)
    }

    /// Whether `reference` gives Compose what is recorded.
    fn is_recorded(&self, service: &Service, reference: &Reference) -> bool {
        if service.image.as_ref() != Some(&reference.repository) {
            return false;
        }
        let tag = reference.tag.as_ref();
        let Some(current) = service.current() else {
            return tag.is_none_or(|tag| tag.as_str() == service.track_name());
        };
        if let Some(digest) = &reference.digest {
            return current.bytes.has_digest(digest);
        }
        let expected = self.compose_tag(service);
        if tag.is_some_and(|tag| tag.as_str() == expected) {
            return true;
        }
        // A build may go by any tag, as long as the tag names that build.
        let named = tag
            .and_then(|tag| self.views.daemon.as_ref()?.images.by_tag(&reference.repository, tag));
        match (service.source, &self.views.daemon) {
            (Source::Local, Some(_)) => {
                let built = self.local(service, current);
                named.zip(built).is_some_and(|(named, built)| named.id == built.id)
            }
            (Source::Local, None) => true,
            (Source::Registry, _) => false,
        }
    }

    /// The local image of a release, if this host has it, under whatever name.
    fn local(&self, service: &Service, release: &Release) -> Option<&ListedImage> {
        self.views.daemon.as_ref()?.images.find(service, release)
    }

    /// Whether Compose is told to start a release by its keep-tag.
    fn is_by_keep_tag(&self, service: &Service, release: &Release) -> bool {
        let digest = release.bytes.digest.as_ref();
        match service.source {
            Source::Local => release.bytes.image_id.is_some(),
            Source::Registry => {
                digest.is_some_and(|digest| self.views.only_by_keep_tag.contains(digest))
            }
        }
    }

    /// Whether nothing tells which bytes a release had.
    fn is_lost(service: &Service, release: &Release) -> bool {
        release.is_lost(|tag| service.is_moving(tag))
    }

    /// Where each remembered release can be had.
    fn releases(&mut self, service: &'a Service) -> Vec<ReleaseState> {
        let mut states = Vec::new();
        for (index, release) in service.history.entries().iter().enumerate() {
            let status = service.status(index);
            let restorable = self.restorable(service, release);
            self.judge_release(service, release, status, restorable);
            states.push(ReleaseState { release: release.into(), status, restorable });
        }
        states
    }

    fn restorable(&self, service: &Service, release: &Release) -> Restorable {
        if Self::is_lost(service, release) {
            return Restorable::Lost;
        }
        if self.local(service, release).is_some() {
            return Restorable::Here;
        }
        // The daemon would have to have it; without one, nobody was asked.
        if service.source == Source::Local && self.views.daemon.is_some() {
            return Restorable::Lost;
        }
        match self.in_registry(service, release) {
            Some(true) => Restorable::Registry,
            // Where no daemon was asked, this host may still have it.
            Some(false) if self.views.daemon.is_some() => Restorable::Lost,
            _ => Restorable::Unknown,
        }
    }

    fn in_registry(&self, service: &Service, release: &Release) -> Option<bool> {
        let key = (service.image.clone()?, release.bytes.digest.clone()?);
        self.views.remote.as_ref()?.has.get(&key).copied()
    }

    fn judge_release(
        &mut self,
        service: &'a Service,
        release: &Release,
        status: Rank,
        restorable: Restorable,
    ) {
        let name = described(release);
        let is_named = release.bytes.is_known();
        match (status, restorable) {
            (Rank::Current, Restorable::Registry | Restorable::Unknown)
                if self.views.daemon.is_some() && is_named =>
            {
                let message =
                    format!("the image of the recorded release {name} is not on this host");
                // What only `--no-pull` has recorded was never here.
                let kind = if release.bytes.image_id.is_some() || self.runs_here() {
                    FindingKind::ImageGone
                } else {
                    FindingKind::NotPulled
                };
                self.differs(kind, Some(service), message, "`dkv pull`");
            }
            (Rank::Previous | Rank::Archived, Restorable::Registry | Restorable::Unknown)
                if self.views.daemon.is_some() && is_named =>
            {
                let message = format!(
                    "the image of {name} is not on this host: without a registry no rollback \
                    reaches it"
                );
                let mend = "`dkv pull --history`";
                self.differs(FindingKind::ReleaseNotHere, Some(service), message, mend);
            }
            (Rank::Current, Restorable::Lost) if is_named => {
                let message = format!(
                    "the image of the recorded release {name} is neither on this host nor in a \
                        registry"
                );
                let mend = if service.source == Source::Local {
                    "`dkv build`"
                } else {
                    "`dkv rollback`, or `dkv pull-latest`"
                };
                self.differs(FindingKind::ReleaseLost, Some(service), message, mend);
            }
            (Rank::Previous | Rank::Archived, Restorable::Lost) if is_named => {
                let message = format!(
                    "a rollback to {name} is not possible any more: it is neither on this host \
                        nor in a registry"
                );
                let mend = format!("`dkv version-pull {} TAG` takes another version", service.name);
                self.differs(FindingKind::ReleaseLost, Some(service), message, mend);
            }
            (Rank::Current, Restorable::Here)
                if self.is_unnamed(release) && !self.is_by_keep_tag(service, release) =>
            {
                let message = format!(
                    "the image of the recorded release {name} is on this host, but not by the \
                    digest by which Compose would start it"
                );
                self.differs(FindingKind::ImageGone, Some(service), message, "`dkv pull`");
            }
            (_, Restorable::Here) => {
                self.judge_kept(service, release, &name, status == Rank::Current)
            }
            _ => {}
        }
    }

    /// Whether this host has the image of a release, but does not find it by its digest.
    fn is_unnamed(&self, release: &Release) -> bool {
        self.views.daemon.as_ref().is_some_and(|daemon| daemon.images.is_unnamed(release))
    }

    /// Whether this host has containers of the deployment.
    fn runs_here(&self) -> bool {
        let daemon = self.views.daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.containers.iter().any(|one| is_ours(daemon, one)))
    }

    fn image(&self, id: &Digest) -> Option<&ListedImage> {
        self.views.daemon.as_ref()?.images.by_id(id)
    }

    /// Whether a local release will stay local.
    fn judge_kept(
        &mut self,
        service: &'a Service,
        release: &Release,
        name: &str,
        is_current: bool,
    ) {
        let Some(id) = self.local(service, release).map(|image| image.id.clone()) else { return };
        let kept = plan::keep_tag(release, self.views.deployment)
            .zip(service.image.as_ref())
            .zip(self.views.daemon.as_ref())
            .map(|((tag, image), daemon)| {
                (
                    image.with_tag(&tag),
                    daemon.images.by_tag(image, &tag).map(|image| image.id.clone()),
                )
            });
        match kept {
            Some((tag, Some(kept))) if kept != id => {
                let message = format!("{tag} should keep {name}, but names another image");
                self.differs(FindingKind::KeepTagMoved, Some(service), message, "`dkv pull`");
            }
            // Compose is given the keep-tag, and would look for it in a registry.
            Some((tag, None)) if is_current && self.is_by_keep_tag(service, release) => {
                let what = if service.source == Source::Local { "the build " } else { "" };
                let message =
                    format!("{tag}, by which Compose starts {what}{name}, is gone from this host");
                self.differs(
                    FindingKind::KeepTagGone,
                    Some(service),
                    message,
                    "`dkv pull` puts it back",
                );
            }
            Some((_, None)) => {
                let message =
                    format!("nothing keeps the image of {name} from `docker image prune -a`");
                let mend = is_current.then_some("`dkv pull` keeps the current release");
                self.note(FindingKind::NotKept, Some(service), message, mend);
            }
            _ => {}
        }
        if self.in_registry(service, release) == Some(false) {
            let message =
                format!("the registry does not have {name} any more; only this host does");
            self.note(FindingKind::OnlyHere, Some(service), message, None);
        }
    }

    /// What the daemon calls a release, where that is known.
    fn id_of(&self, service: &Service, release: &Release) -> Option<Digest> {
        let local = self.local(service, release).filter(|_| !Self::is_lost(service, release));
        local.map(|image| image.id.clone()).or_else(|| release.bytes.image_id.clone())
    }

    /// What runs, against the record.
    fn running(&mut self, service: &'a Service) -> Vec<RunningView> {
        let mut views = Vec::new();
        let recorded = service.current().and_then(|current| self.id_of(service, current));
        let known: Vec<(Digest, &Release)> = service
            .history
            .entries()
            .iter()
            .filter_map(|release| Some((self.id_of(service, release)?, release)))
            .collect();
        let mut told = BTreeSet::new();
        let starts = self.starts_of(service);
        let containers = starts.into_iter().flat_map(|start| {
            let mine = self.containers.get(start.compose_service.as_str());
            mine.into_iter().flatten().map(move |container| (start, *container))
        });
        for (start, container) in containers.collect::<Vec<_>>() {
            let runs = container.image_id.clone();
            let release =
                known.iter().find(|(id, _)| Some(id) == runs.as_ref()).map(|(_, release)| *release);
            let as_recorded =
                recorded.as_ref().zip(runs.as_ref()).map(|(recorded, runs)| recorded == runs);
            if as_recorded == Some(false)
                && told.insert((start.compose_service.clone(), runs.clone()))
            {
                let expected = service.current().map_or_else(String::new, described);
                let name = &start.compose_service;
                let (kind, message) = match release {
                    Some(release) => (
                        FindingKind::RunsOlder,
                        format!(
                            "{name} was started from an older manifest: it runs {}, recorded is \
                                {expected}",
                            described(release)
                        ),
                    ),
                    None => {
                        let id = runs.as_ref().map_or("?", Digest::short);
                        (
                            FindingKind::RunsOther,
                            format!(
                                "{name} runs {} (image {id}), recorded is {expected}",
                                shortened(&container.image)
                            ),
                        )
                    }
                };
                // A line that says something else goes on doing so, unless versions.env led it there.
                let has_variables = start.text.as_ref().is_some_and(|text| text.contains('$'));
                let is_led = (has_variables && self.views.env.wrong.is_some())
                    || start.image.as_ref().is_none_or(|image| {
                        image.parse().is_ok_and(|image| self.is_recorded(service, &image))
                    });
                let mend = match is_led {
                    true => "`dkv restart`".to_owned(),
                    false => format!("{}; then `dkv restart`", self.mend_of_line(service, start)),
                };
                self.differs(kind, Some(service), message, mend);
            }
            views.push(RunningView {
                container: container.name.clone(),
                image_id: runs.map(|id| id.to_string()),
                tag: release.map(|release| release.tag.to_string()),
                as_recorded,
            });
        }
        views
    }

    /// Whether a container of this deployment says what runs: it does run, or it is a one-shot that
    /// has.
    fn counts(&self, container: &Container) -> bool {
        let is_ours = self.views.daemon.as_ref().is_some_and(|daemon| is_ours(daemon, container));
        if !is_ours || container.labels.is_one_off() {
            return false;
        }
        match container.state {
            ContainerState::Running | ContainerState::Restarting | ContainerState::Paused => true,
            ContainerState::Exited => {
                container.labels.service().is_some_and(|name| self.one_shots.contains(name))
            }
            _ => false,
        }
    }

    /// Containers that run tracked images beside the deployment: without Compose, under another
    /// project's name from the same directory, or for a Compose service that is gone. Another
    /// directory's project is another deployment. Where Compose could not say which services the
    /// project has, nothing is called an outsider: it may be what production runs.
    fn outsiders(&mut self) {
        let Some(daemon) = &self.views.daemon else { return };
        let Some(own) = &daemon.project else { return };
        let runs_as_itself = daemon
            .containers
            .iter()
            .any(|container| container.labels.project() == Some(own.as_str()));
        for container in
            daemon.containers.iter().filter(|container| container.state == ContainerState::Running)
        {
            let labels = &container.labels;
            let mut mend = format!("`docker rm -f {}`", container.name);
            let how = match (labels.project(), labels.service()) {
                (None, _) => "without Compose".to_owned(),
                (Some(project), _) if project != own => {
                    if labels.working_dir() != Some(daemon.directory.as_str()) {
                        continue;
                    }
                    mend = if runs_as_itself {
                        format!("`docker compose -p {project} down`, if nobody needs that project")
                    } else {
                        format!(
                            "`dkv migrate-versions` records that this deployment runs as {project}"
                        )
                    };
                    format!("as the project {project}")
                }
                (Some(_), Some(name)) if labels.is_one_off() => format!("as a one-off of {name}"),
                (Some(_), Some(name)) if !self.by_name.contains_key(name) => {
                    format!("for the Compose service {name}, which the files do not have")
                }
                _ => continue,
            };
            let Some(service) = self.service_of_container(container) else { continue };
            let message = format!(
                "the container {} runs {} {how}",
                container.name,
                shortened(&container.image)
            );
            self.differs(FindingKind::StartedOutside, Some(service), message, mend);
        }
    }

    /// The manifest service whose image a container runs, whatever started it.
    fn service_of_container(&self, container: &Container) -> Option<&'a Service> {
        let named = repository_of(&container.image);
        let image = container.image_id.as_ref().and_then(|id| self.image(id));
        let tags = image.into_iter().flat_map(|image| &image.tags).map(|(name, _)| name);
        let digests = image.into_iter().flat_map(|image| &image.digests).map(|(name, _)| name);
        let repositories: Vec<&Repository> = named.iter().chain(tags).chain(digests).collect();
        self.views
            .manifest
            .services
            .values()
            .find(|service| repositories.iter().any(|one| service.image.as_ref() == Some(*one)))
    }

    /// A Compose service that runs something else from a tracked repository.
    fn stranger(&mut self, start: &ServiceStart, Stranger { service, differs }: Stranger<'a>) {
        let Some(service) = self.views.manifest.services.get(service) else { return };
        let is_only = !self.starts.contains_key(&service.name);
        let image = start.image.as_deref().unwrap_or("what it builds");
        let run = (start.compose_service.as_str(), image, start.platform.as_ref());
        let (message, mend) = about_stranger(run, service, differs, is_only);
        // What the manifest claims to be its own, it is wrong about.
        if is_only || service.compose_services.contains(&start.compose_service) {
            self.differs(FindingKind::OtherTrack, Some(service), message, mend);
        } else {
            self.note(FindingKind::OtherTrack, Some(service), message, Some(&mend));
        }
    }

    fn untracked(&mut self) {
        for start in self.views.starts.iter().filter(|start| start.is_active) {
            let is_left_out = self.views.manifest.untracked.contains(&start.compose_service);
            if let Membership::Other(stranger) = self.found(start) {
                if !is_left_out {
                    self.stranger(start, stranger);
                }
            } else if !is_left_out && self.tracked(start).is_none() {
                let image = start.image.as_deref().unwrap_or("what it builds");
                let message = format!(
                    "nothing tracks the Compose service {} ({})",
                    start.compose_service,
                    shortened(image)
                );
                let mend =
                    format!("`dkv migrate-versions --track {}` adds it", start.compose_service);
                self.note(FindingKind::Untracked, None, message, Some(&mend));
            }
        }
    }
}

/// What a Compose service is that runs something else from the repository of a service, and what to
/// do about it. `is_only` says that no other Compose service runs that service.
#[must_use]
pub fn about_stranger(
    (compose_service, image, platform): (&str, &str, Option<&Platform>),
    service: &Service,
    differs: Differs,
    is_only: bool,
) -> (String, String) {
    let what = match (differs, platform) {
        (Differs::Tag, _) => {
            format!("which is nothing that {} follows (`{}`)", service.name, service.track_name())
        }
        (Differs::Platform, Some(platform)) => {
            format!("for {platform}, and {} is for another platform", service.name)
        }
        (Differs::Platform, None) => {
            let platform = service.platform.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("for this host's platform, and {} is for {platform}", service.name)
        }
    };
    let tag = image.parse::<Reference>().ok().and_then(|reference| reference.tag);
    let mend = match (differs, is_only, tag) {
        (Differs::Tag, true, Some(tag)) => format!("`dkv version-pull {} {tag}`", service.name),
        (Differs::Platform, true, _) => format!("give {} that `platform`", service.name),
        _ => "`dkv migrate-versions` records it as a service of its own".to_owned(),
    };
    (format!("{compose_service} runs {}, {what}", shortened(image)), mend)
}

/// Whether a container belongs to the deployment: by its project, or where that is not known by its
/// directory.
fn is_ours(daemon: &DaemonView, container: &Container) -> bool {
    match &daemon.project {
        Some(project) => container.labels.project() == Some(project.as_str()),
        None => container.labels.working_dir() == Some(daemon.directory.as_str()),
    }
}

/// Whether a literal image names what `service` has recorded, or the tag that it follows.
fn says_record(service: Option<&Service>, image: &str) -> bool {
    let Some((service, current)) = service.and_then(|service| Some((service, service.current()?)))
    else {
        return true;
    };
    let Ok(reference) = image.parse::<Reference>() else { return true };
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => current.bytes.has_digest(digest),
        (None, Some(tag)) => *tag == current.tag || tag.as_str() == service.track_name(),
        (None, None) => service.track_name() == DEFAULT_TRACK,
    }
}

/// What to do about an image line in a file that is made from `template`.
fn follow_in(template: &str) -> String {
    format!(
        "let it follow versions.env in {template}, as `dkv migrate-versions` shows, and make the \
            file again"
    )
}

fn repository(start: &ServiceStart) -> Option<Repository> {
    repository_of(start.image.as_ref()?)
}

/// Pairs of Compose services of one product of which one runs a local build and the other a
/// published image. One product they are if one variable gives both their tags, if their
/// repositories have the same last name, or if one extends the other's name and one is a step of
/// the other, as migrations are of an application.
fn mixed<'s>(
    starts: &'s [ServiceStart],
    is_local: impl Fn(&ServiceStart) -> bool,
) -> Vec<(&'s ServiceStart, &'s ServiceStart)> {
    let (local, published): (Vec<&'s ServiceStart>, Vec<&'s ServiceStart>) =
        starts.iter().filter(|start| start.image.is_some()).partition(|start| is_local(start));
    let read = |starts: Vec<&'s ServiceStart>| -> Vec<Product<'s>> {
        starts.into_iter().filter_map(Product::of).collect()
    };
    let local = read(local);
    // One line for each published service: all local ones would say the same.
    let pairs = read(published).into_iter().filter_map(|published| {
        let local = local.iter().find(|local| belong_together(local, &published))?;
        Some((local.start, published.start))
    });
    pairs.collect()
}

/// A Compose service with what says which product it is of, read once.
struct Product<'s> {
    start: &'s ServiceStart,
    repository: Repository,
    variables: BTreeSet<String>,
}

impl<'s> Product<'s> {
    fn of(start: &'s ServiceStart) -> Option<Self> {
        Some(Self { start, repository: repository(start)?, variables: tag_variables(start) })
    }
}

fn belong_together(here: &Product<'_>, there: &Product<'_>) -> bool {
    let (one, other) = (here.start, there.start);
    let shares_variable = !here.variables.is_disjoint(&there.variables);
    let (here, there) = (here.repository.base_name(), there.repository.base_name());
    let is_step = one.waits_for_end_of.contains(&other.compose_service)
        || other.waits_for_end_of.contains(&one.compose_service)
        || one.is_one_shot != other.is_one_shot;
    here == there || shares_variable || (is_step && (extends(here, there) || extends(there, here)))
}

fn extends(long: &str, short: &str) -> bool {
    long.strip_prefix(short).is_some_and(|rest| rest.starts_with(['-', '_']))
}

/// The variables that give the tag of a Compose service's image.
fn tag_variables(start: &ServiceStart) -> BTreeSet<String> {
    let text = start.text.as_deref().unwrap_or_default();
    let mut depth = 0_usize;
    let mut colon = None;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => colon = Some(index),
            '/' if depth == 0 => colon = None,
            _ => {}
        }
    }
    let tail = colon.map_or("", |index| &text[index + 1..]);
    let template = Template::parse(tail);
    template.iter().flat_map(Template::variables).map(str::to_owned).collect()
}

/// A release as messages name it: the tag and the beginning of what names its bytes.
fn described(release: &Release) -> String {
    ReleaseView::from(release).short()
}

/// An image with its digest cut to what people read.
fn shortened(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((name, hex)) => format!("{name}@sha256:{}…", hex.get(..12).unwrap_or(hex)),
        None => image.to_owned(),
    }
}

#[cfg(test)]
mod tests;
