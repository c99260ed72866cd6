//! What a manifest records: the services as they were read, what Compose is told of them, and by
//! which local tags their images are kept. Pure, but for the bytes it was read from.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Result;

use crate::compose::{ComposeFiles, Line};
use crate::error::{self, Error};
use crate::members::{self, Members, Use, plain, variables_of};
use crate::model::env_file::{self, Assignments};
use crate::model::image_line;
use crate::model::interpolation::Template;
use crate::model::manifest::{Ecr, Manifest, Service};
use crate::model::reference::{Digest, Platform, Reference, Repository, ServiceName, Tag};
use crate::plan;
use crate::store::{Snapshot, Store};

/// A variable that a service names for its tag, and that an image line has as a part of another: with
/// a digest in it, that line would be no image name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoiling {
    /// The variable.
    pub variable: String,
    /// The Compose service whose line it is a part of.
    pub compose_service: String,
    /// The file and the line.
    pub place: String,
    /// What the line would say.
    pub image: String,
}

impl Spoiling {
    /// What is wrong, as a clause.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "{} is only a part of the tag of {} ({})",
            self.variable, self.compose_service, self.place
        )
    }
}

/// A manifest as it was read, its images settled.
#[derive(Debug)]
pub struct Record {
    /// What the manifest says.
    pub manifest: Manifest,
    /// The bytes it was read from.
    pub snapshot: Snapshot,
    /// What tells this deployment's keep-tags from its neighbours'.
    pub hash: String,
    /// The digests that this host's daemon cannot find images by, although it has them.
    pub only_by_keep_tag: BTreeSet<Digest>,
    /// The variables that services name for their tags and that would spoil another line.
    pub spoiling: Vec<Spoiling>,
    /// Why some of the Compose files, by which it was read, could not be seen.
    pub(super) unseen: Option<Error>,
    members: OnceLock<Members>,
}

impl Record {
    /// The record of `manifest`, which was read from `snapshot`. Where a service's image is left to
    /// the Compose files, it is found in `lines`.
    ///
    /// # Errors
    ///
    /// A service's name and the `ecr` section make no repository (exit 3).
    pub fn new(
        mut manifest: Manifest,
        snapshot: Snapshot,
        hash: String,
        lines: &[Line],
    ) -> Result<Self> {
        let prefix = manifest.env.prefix.clone();
        manifest.settle(|service| image_in_lines(service, &prefix, lines)).map_err(|error| {
            error::state(error.to_string()).with_hint("give the service an `image` in the manifest")
        })?;
        Ok(Self {
            manifest,
            snapshot,
            hash,
            only_by_keep_tag: BTreeSet::new(),
            spoiling: Vec::new(),
            unseen: None,
            members: OnceLock::new(),
        })
    }

    /// Gives services that name no platform the one that the Compose files have for those that run
    /// them, as `platform` says by their names.
    pub(super) fn settle_platforms(
        &mut self,
        files: Option<&ComposeFiles>,
        platform: impl Fn(&str) -> Option<Platform>,
    ) {
        let lines = files.into_iter().flat_map(ComposeFiles::services);
        let lines: Vec<_> = lines.map(|line| (line, platform(&line.service))).collect();
        let uses = lines.iter().map(|(line, platform)| Use {
            line: line.template(),
            platform: platform.as_ref(),
            ..Use::named(&line.service)
        });
        members::settle_platforms(&mut self.manifest, &uses.collect::<Vec<_>>());
    }

    /// Finds the variables that would spoil a line: nobody is given them. `variable` gives what the
    /// lines find beside `versions.env`.
    pub(super) fn settle_spoiling(
        &mut self,
        files: Option<&ComposeFiles>,
        variable: impl Fn(&str) -> Option<String>,
    ) {
        let named: BTreeSet<&str> =
            self.services().filter_map(|service| service.env_tag.as_deref()).collect();
        let Some(files) = files.filter(|_| !named.is_empty()) else { return };
        // Whoever needs them will hear what is wrong with them.
        let Ok(assignments) = self.assignments() else { return };
        let given: HashMap<&str, &str> =
            assignments.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let lookup =
            |name: &str| given.get(name).map(|one| (*one).to_owned()).or_else(|| variable(name));
        let spoiling = files.services().filter_map(|line| {
            let (site, template) = (line.image.as_ref()?, line.template()?);
            let mut variables = template.variables().into_iter();
            let fed = variables.find(|name| {
                named.contains(name) && given.get(name).is_some_and(|value| value.contains('@'))
            })?;
            let image = template.evaluate(&lookup).ok()?;
            image.parse::<Reference>().is_err().then(|| Spoiling {
                variable: fed.to_owned(),
                compose_service: line.service.clone(),
                place: site.place(),
                image,
            })
        });
        self.spoiling = spoiling.collect();
    }

    /// The line that `variable` would spoil.
    #[must_use]
    pub fn spoilt_by(&self, variable: &str) -> Option<&Spoiling> {
        self.spoiling.iter().find(|one| one.variable == variable)
    }

    /// What Compose gets as the tag of a service.
    #[must_use]
    pub fn compose_tag(&self, service: &Service) -> String {
        plan::compose_tag(service, self.manifest.env.pin, &self.hash, &self.only_by_keep_tag)
    }

    /// Which Compose services run which of the services.
    pub fn members(&self) -> &Members {
        self.members.get_or_init(|| Members::of(&self.manifest))
    }

    /// Whether an image line takes its version from the variables of `service`.
    #[must_use]
    pub fn is_followed_by(&self, service: &Service, line: &Template) -> bool {
        let mut own: Vec<(String, bool)> =
            variables_of(&self.manifest.env.prefix, service).collect();
        own.retain(|(name, _)| self.spoilt_by(name).is_none());
        let of = |is_image| {
            let mine = own.iter().filter(move |(_, image)| *image == is_image);
            mine.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        image_line::follows(line, &of(true), &of(false))
    }

    /// The services, in the manifest's order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.manifest.services.values()
    }

    /// The service called `name`.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.manifest.services.get(name)
    }

    /// The assignments that Compose gets.
    ///
    /// # Errors
    ///
    /// Two services set one variable to different values (exit 3).
    pub fn assignments(&self) -> Result<Assignments> {
        self.assignments_with(|_| None)
    }

    /// As [`Self::assignments`], with another repository and tag for the services that `choose` has
    /// them for.
    ///
    /// # Errors
    ///
    /// As for [`Self::assignments`].
    pub fn assignments_with(
        &self,
        choose: impl Fn(&Service) -> Option<(Repository, String)>,
    ) -> Result<Assignments> {
        let Manifest { env, ecr, services, .. } = &self.manifest;
        let mut lines = Vec::with_capacity(services.len());
        for service in services.values() {
            let Some((image, tag)) = choose(service)
                .or_else(|| Some((service.image.clone()?, self.compose_tag(service))))
            else {
                continue;
            };
            lines.push(env_file::Line {
                service: service.name.clone(),
                image,
                tag,
                also_image: service.env_image.clone(),
                also_tag: service.env_tag.clone(),
            });
        }
        let registry = ecr.as_ref().map(Ecr::prefix);
        let all = env_file::assignments(&env.prefix, registry.as_deref(), &lines);
        let mut all = all.map_err(|collision| {
            error::state(collision.to_string()).with_hint(
                "rename the service, or give it another `env_tag` or `env_image`, or the manifest \
                another `env` `prefix`",
            )
        })?;
        all.retain(|(name, _)| self.spoilt_by(name).is_none());
        Ok(all)
    }

    /// The text that `versions.env` should have.
    ///
    /// # Errors
    ///
    /// As for [`Self::assignments`].
    pub fn env_text(&self, store: &Store) -> Result<String> {
        let digest = Digest::of(&self.snapshot.bytes);
        let notes = self.services().filter_map(|service| {
            let digest = service.current()?.bytes.digest.as_ref()?;
            self.only_by_keep_tag.contains(digest).then(|| {
                format!(
                    "{}: this host has {digest} under its keep-tag only, not from its registry",
                    service.name
                )
            })
        });
        let spoiling = self.spoiling.iter().map(|one| format!("not set: {}", one.in_words()));
        let notes: Vec<String> = notes.chain(spoiling).collect();
        Ok(env_file::render(&store.manifest_name(), &digest, &notes, &self.assignments()?))
    }

    /// Where `versions.env` is.
    #[must_use]
    pub fn env_path(&self, store: &Store) -> PathBuf {
        store.directory().join(&self.manifest.env.file)
    }

    /// Refuses to write what was read without seeing all of the files that it depends on.
    ///
    /// # Errors
    ///
    /// A Compose file or `.env` is there and could not be read (exit 3).
    pub fn check_seen(&self) -> Result<()> {
        self.unseen.clone().map_or(Ok(()), |unseen| Err(unseen.into()))
    }

    /// Makes sure, before anything expensive happens, that a change can be recorded.
    ///
    /// # Errors
    ///
    /// As for [`Self::check_seen`] and [`Store::check_writable`].
    pub fn check_writable(&self, store: &Store) -> Result<()> {
        self.check_seen()?;
        store.check_writable(Some(&self.env_path(store)))
    }

    /// The services named, or all; each once, in the manifest's order.
    ///
    /// # Errors
    ///
    /// As for [`plan::select`].
    pub fn select(&self, names: &[ServiceName]) -> Result<Vec<&Service>, Error> {
        plan::select(&self.manifest, names)
    }
}

/// The repository and the default tag that the Compose files give a service: the line that uses its
/// variables has them, else the line of the Compose service of its name.
fn image_in_lines(
    service: &Service,
    prefix: &str,
    lines: &[Line],
) -> Option<(Repository, Option<Tag>)> {
    let own: Vec<String> = variables_of(prefix, service).map(|(name, _)| name).collect();
    let mut templates = lines.iter().filter_map(Line::template);
    let image = templates
        .find(|image| image.variables().iter().any(|name| own.iter().any(|own| own == name)))
        .or_else(|| {
            let mut with_image = lines.iter().filter(|line| line.template().is_some());
            let name = plain(service.name.as_str());
            with_image.find(|line| plain(&line.service) == name)?.template()
        })?;
    let reference: Reference = image.default_value()?.parse().ok()?;
    Some((reference.repository, reference.tag))
}
