//! Which service of the manifest each Compose service runs: one rule, and what it goes by. Pure.
#![deny(clippy::disallowed_methods)]

use std::collections::{HashMap, HashSet};

use crate::model::env_file;
use crate::model::interpolation::Template;
use crate::model::manifest::{Fit, Manifest, Service};
use crate::model::reference::{Platform, Reference, Repository, ServiceName};

/// A Compose service, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image before interpolation.
    pub line: Option<&'a Template>,
    /// What Compose makes of that.
    pub image: Option<&'a Reference>,
    /// The platform that it shall run on, where that is said.
    pub platform: Option<&'a Platform>,
}

impl<'a> Use<'a> {
    /// A Compose service of which nothing but its name is known.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self { name, line: None, image: None, platform: None }
    }
}

/// What shows that a Compose service runs a service of the manifest, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnownBy {
    /// The manifest lists it under `compose_services`.
    Listed,
    /// Its image line has the service's variables.
    Variable,
    /// It has the service's repository.
    Repository,
    /// It has the service's name, and nobody knows its image.
    Name,
}

/// A Compose service that runs a service of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'m> {
    /// The service of the manifest.
    pub service: &'m ServiceName,
    /// What shows it.
    pub known_by: KnownBy,
    /// Whether its image line has none of the service's variables: whatever is recorded, Compose
    /// gives it what the line says.
    pub is_literal: bool,
}

/// A Compose service that runs something else from a service's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stranger<'m> {
    /// The service of the manifest.
    pub service: &'m ServiceName,
    /// What differs.
    pub differs: Differs,
}

/// What tells a Compose service from a service of the manifest that has its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differs {
    /// Its tag is neither what the service follows nor a version of that.
    Tag,
    /// It runs on another platform.
    Platform,
}

/// What a Compose service is to the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership<'m> {
    /// It runs one service.
    Of(Member<'m>),
    /// Several services have its image, and nothing tells them apart.
    Ambiguous(Vec<&'m ServiceName>),
    /// It has the repository of a service, and runs something else from it: to give it what is
    /// recorded of that service would start another program.
    Other(Stranger<'m>),
    /// It runs none.
    Untracked,
}

impl<'m> Membership<'m> {
    /// The service that it runs, if that is certain.
    #[must_use]
    pub fn service(&self) -> Option<&'m ServiceName> {
        match self {
            Self::Of(member) => Some(member.service),
            Self::Ambiguous(_) | Self::Other(_) | Self::Untracked => None,
        }
    }
}

/// Whose a variable is.
#[derive(Debug, Clone, Copy)]
struct Owner {
    service: usize,
    /// Whether it gives the repository, and so decides over what stands beside it.
    is_image: bool,
}

/// The services of one manifest, by all that Compose services can be known by.
#[derive(Debug)]
pub struct Members {
    services: Vec<Service>,
    listed: HashMap<String, Vec<usize>>,
    variables: HashMap<String, Vec<Owner>>,
    repositories: HashMap<Repository, Vec<usize>>,
    names: HashMap<String, Vec<usize>>,
    left_out: HashSet<String>,
}

impl Members {
    /// The services of `manifest`, whose images are settled.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let mut members = Self {
            services: manifest.services.values().cloned().collect(),
            listed: HashMap::new(),
            variables: HashMap::new(),
            repositories: HashMap::new(),
            names: HashMap::new(),
            left_out: manifest.untracked.iter().cloned().collect(),
        };
        for (index, service) in manifest.services.values().enumerate() {
            for name in &service.compose_services {
                members.listed.entry(name.clone()).or_default().push(index);
            }
            for (name, is_image) in variables_of(&manifest.env.prefix, service) {
                members.variables.entry(name).or_default().push(Owner { service: index, is_image });
            }
            if let Some(image) = &service.image {
                members.repositories.entry(image.clone()).or_default().push(index);
            }
            members.names.entry(plain(service.name.as_str())).or_default().push(index);
        }
        members
    }

    /// What a Compose service is to the manifest.
    ///
    /// A list decides over everything. Variables decide over the repository, so that two services
    /// in one repository can be told apart; but a variable such as `VERSION` also stands in lines
    /// of other products, so it must not contradict the repository. A name alone counts only where
    /// nothing is known of the image. Among the services of one repository, and also where it has
    /// one only, the tag and the platform decide: `acme/tool:web` and `acme/tool:worker` may be two
    /// programs.
    #[must_use]
    pub fn find(&self, asked: &Use<'_>) -> Membership<'_> {
        let written = asked.line.and_then(|line| line.default_value()?.parse::<Reference>().ok());
        let image = asked.image.or(written.as_ref());
        let (candidates, known_by) = self.candidates(asked, image.map(|image| &image.repository));
        let member = |index: usize| {
            Membership::Of(Member {
                service: &self.services[index].name,
                known_by,
                is_literal: asked
                    .line
                    .is_some_and(|line| !self.owners(line).any(|owner| owner.service == index)),
            })
        };
        let fits: Vec<(usize, Result<Fit, Differs>)> =
            candidates.iter().map(|index| (*index, self.fit(*index, asked, image))).collect();
        let closest = fits.iter().filter_map(|(_, fit)| fit.ok()).min();
        let fitting = fits.iter().filter(|(_, fit)| fit.ok() == closest).map(|(index, _)| *index);
        match (closest, fits.first()) {
            (None, Some((index, Err(differs)))) => Membership::Other(Stranger {
                service: &self.services[*index].name,
                differs: *differs,
            }),
            (None, _) => Membership::Untracked,
            (Some(_), _) => {
                let fitting: Vec<usize> = fitting.collect();
                self.choose(&fitting, asked.name).map_or_else(
                    || {
                        let names = fitting.iter().map(|index| &self.services[*index].name);
                        Membership::Ambiguous(names.collect())
                    },
                    member,
                )
            }
        }
    }

    /// How close what a Compose service runs is to what the service at `index` follows.
    fn fit(
        &self,
        index: usize,
        asked: &Use<'_>,
        image: Option<&Reference>,
    ) -> Result<Fit, Differs> {
        let service = &self.services[index];
        // Where nobody could say how the Compose service is run, its platform is not known either.
        if (asked.line.is_some() || asked.image.is_some())
            && service.platform.as_ref() != asked.platform
        {
            return Err(Differs::Platform);
        }
        let gives_tag = |line: &Template| {
            self.owners(line).any(|owner| owner.service == index && !owner.is_image)
        };
        if asked.line.is_some_and(gives_tag) {
            return Ok(Fit::Track);
        }
        match image.filter(|image| service.image.as_ref() == Some(&image.repository)) {
            // What a list claims of another repository is told elsewhere.
            None => Ok(Fit::Version),
            Some(image) => match service.fit(image) {
                Fit::Other => Err(Differs::Tag),
                fit => Ok(fit),
            },
        }
    }

    /// The services that the strongest evidence speaks for.
    fn candidates(&self, asked: &Use<'_>, image: Option<&Repository>) -> (Vec<usize>, KnownBy) {
        let Use { name, line, .. } = *asked;
        if let Some(listed) = self.listed.get(name) {
            return (listed.clone(), KnownBy::Listed);
        }
        if self.left_out.contains(name) {
            return (Vec::new(), KnownBy::Name);
        }
        let of_image: &[usize] =
            image.and_then(|image| self.repositories.get(image)).map_or(&[], Vec::as_slice);
        let mut by_variable: Vec<usize> = line
            .into_iter()
            .flat_map(|line| self.owners(line))
            .filter(|owner| image.is_none() || owner.is_image || of_image.contains(&owner.service))
            .map(|owner| owner.service)
            .collect();
        by_variable.sort_unstable();
        by_variable.dedup();
        if by_variable.len() > 1 && by_variable.iter().any(|index| of_image.contains(index)) {
            by_variable.retain(|index| of_image.contains(index));
        }
        if !by_variable.is_empty() {
            (by_variable, KnownBy::Variable)
        } else if image.is_some() {
            (of_image.to_vec(), KnownBy::Repository)
        } else {
            (self.names.get(&plain(name)).cloned().unwrap_or_default(), KnownBy::Name)
        }
    }

    /// The one service whose variables an image line has, whatever repository stands beside them.
    #[must_use]
    pub fn owner(&self, line: &Template) -> Option<&ServiceName> {
        let mut owners = self.owners(line).map(|owner| owner.service);
        let first = owners.next()?;
        owners.all(|other| other == first).then(|| &self.services[first].name)
    }

    /// Who has a variable of an image line.
    fn owners<'a>(&'a self, line: &'a Template) -> impl Iterator<Item = Owner> + 'a {
        let variables = line.variables().into_iter();
        variables.filter_map(|name| self.variables.get(name)).flatten().copied()
    }

    /// The one candidate, or the one of several that has the Compose service's name.
    fn choose(&self, candidates: &[usize], name: &str) -> Option<usize> {
        if let [one] = candidates {
            return Some(*one);
        }
        let mut namesakes = candidates
            .iter()
            .filter(|index| plain(self.services[**index].name.as_str()) == plain(name));
        namesakes.next().copied().filter(|_| namesakes.next().is_none())
    }
}

/// Gives services that name no platform the one that the Compose files have for all that run them.
/// `uses` are those of the files.
pub fn settle_platforms(manifest: &mut Manifest, uses: &[Use<'_>]) {
    if uses.iter().all(|one| one.platform.is_none()) {
        return;
    }
    let members = Members::of(manifest);
    let mut found: HashMap<ServiceName, Option<&Platform>> = HashMap::new();
    for one in uses {
        if members.find(one).service().is_some_and(|name| {
            manifest.services.get(name).is_some_and(|service| service.platform.is_some())
        }) {
            continue;
        }
        let Some(name) = members.find(&Use { platform: None, ..*one }).service() else { continue };
        let platform = found.entry(name.clone()).or_insert(one.platform);
        *platform = platform.filter(|platform| one.platform == Some(platform));
    }
    for (name, platform) in found {
        if let Some(service) = manifest.services.get_mut(&name) {
            service.platform = platform.cloned();
        }
    }
}

/// The variables that tell Compose which image of `service` to run, and whether each gives the
/// repository.
pub fn variables_of(prefix: &str, service: &Service) -> impl Iterator<Item = (String, bool)> {
    let own = [("IMAGE", true), ("TAG", false)]
        .map(|(suffix, is_image)| (env_file::variable(prefix, &service.name, suffix), is_image));
    own.into_iter()
        .chain(service.env_image.clone().map(|name| (name, true)))
        .chain(service.env_tag.clone().map(|name| (name, false)))
}

/// The repository of an image, if that is a proper reference.
#[must_use]
pub fn repository_of(image: &str) -> Option<Repository> {
    Some(image.parse::<Reference>().ok()?.repository)
}

/// A name with `-` and `_` alike.
#[must_use]
pub fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
schema_version: '1.1'
services:
  req_router: {image: r.example/req_router}
  red: {image: r.example/lamp, env_tag: RED_VERSION}
  blue: {image: r.example/lamp}
  bot: {image: r.example/bot, env_tag: VERSION, compose_services: [db-migrate]}
  ui: {image: r.example/ui, env_tag: VERSION}
  vault: {image: hashicorp/vault, env_image: VAULT_IMAGE}
";

    /// Compose service, its line, what Compose makes of it, and what that is to the manifest.
    const CASES: &[(&str, &str, &str, &str)] = &[
        ("req-router", "${DK_REQ_ROUTER_IMAGE:-x}:${DK_REQ_ROUTER_TAG:-1}", "", "req_router V"),
        ("anything", "r.example/req_router:${DK_REQ_ROUTER_TAG:-1}", "", "req_router V"),
        ("anything", "r.example/req_router:1", "", "req_router R literal"),
        ("anything", "r.example/req_router:${OTHER:-1}", "", "req_router R literal"),
        ("anything", "", "r.example/req_router", "req_router R"),
        // Told apart by their variables, by their names, or not at all.
        ("one", "r.example/lamp:${DK_RED_TAG:-1}", "r.example/lamp", "red V"),
        ("two", "r.example/lamp:${DK_BLUE_TAG:-1}", "r.example/lamp", "blue V"),
        ("three", "r.example/lamp:${RED_VERSION:-1}", "r.example/lamp", "red V"),
        ("blue", "r.example/lamp:1", "", "blue R literal"),
        ("green", "r.example/lamp:1", "", "ambiguous red blue"),
        // One variable for several products: the repository tells which, or that it is none.
        ("a", "r.example/bot:${VERSION:-1}", "", "bot V"),
        ("b", "r.example/ui:${VERSION:-1}", "", "ui V"),
        ("c", "nginx:${VERSION:-1}", "", "untracked"),
        ("d", "${VERSION}", "", "ambiguous bot ui"),
        // An image variable gives the repository, whatever stands beside it as a default.
        ("e", "${VAULT_IMAGE:-mirror.example/vault}:1", "", "vault V"),
        ("f", "${VAULT_IMAGE:-mirror.example/vault}:1", "mirror.example/vault", "vault V"),
        // The list decides, and says nothing about the line.
        ("db-migrate", "r.example/published:1", "", "bot L literal"),
        ("db-migrate", "", "", "bot L"),
        // The name counts where the image is unknown, and only there.
        ("req-router", "", "", "req_router N"),
        ("req-router", "", "r.example/other", "untracked"),
        ("postgres", "postgres:16", "", "untracked"),
    ];

    #[test]
    fn one_rule_tells_what_a_compose_service_runs() {
        let manifest = Manifest::read(MANIFEST.as_bytes()).unwrap();
        let members = Members::of(&manifest);
        for (name, line, image, expected) in CASES {
            assert_eq!(told(&members, (name, line, image, "")), *expected, "{name} {line} {image}");
        }
    }

    fn told(members: &Members, (name, line, image, platform): (&str, &str, &str, &str)) -> String {
        let line = (!line.is_empty()).then(|| Template::parse(line).unwrap());
        let image = (!image.is_empty()).then(|| image.parse().unwrap());
        let platform = platform.parse().ok();
        let (line, image, platform) = (line.as_ref(), image.as_ref(), platform.as_ref());
        match members.find(&Use { name, line, image, platform }) {
            Membership::Of(member) => {
                let known_by = format!("{:?}", member.known_by);
                let literal = if member.is_literal { " literal" } else { "" };
                format!("{} {}{literal}", member.service, &known_by[..1])
            }
            Membership::Ambiguous(several) => {
                let names: Vec<&str> = several.into_iter().map(ServiceName::as_str).collect();
                format!("ambiguous {}", names.join(" "))
            }
            Membership::Other(Stranger { service, differs }) => {
                format!("not {service}: {differs:?}")
            }
            Membership::Untracked => "untracked".to_owned(),
        }
    }

    /// Compose service, its line, its platform, and what that is to the manifest below.
    const PROGRAMS: &[(&str, &str, &str, &str)] = &[
        // Two programs from one repository, each an entry.
        ("web", "acme/tool:web-server", "", "tool R literal"),
        ("signal", "acme/tool:signaling-server", "", "signaling R literal"),
        ("turn", "acme/tool:turn-server", "", "not tool: Tag"),
        ("signal", "acme/tool:${TAG:-signaling-server}", "", "signaling R literal"),
        ("web", "${DK_TOOL_IMAGE:-acme/tool}:${DK_TOOL_TAG:-web-server}", "", "tool V"),
        // A variable for the repository says nothing about the tag.
        ("turn", "${DK_TOOL_IMAGE:-acme/tool}:turn-server", "", "not tool: Tag"),
        // Two lines of versions, by tag, by what they remember, by digest.
        ("one", "acme/llm:latest", "", "llm R literal"),
        ("one", "acme/llm", "", "llm R literal"),
        ("one", "acme/llm:1.3", "", "llm R literal"),
        ("two", "acme/llm:rocm", "", "rocm R literal"),
        ("two", "acme/llm:1.3-rocm", "", "rocm R literal"),
        ("two", "acme/llm:cuda", "", "not llm: Tag"),
        ("two", "acme/llm:cuda@DIGEST1", "", "llm R literal"),
        ("two", "acme/llm:rocm@DIGEST1", "", "rocm R literal"),
        ("two", "acme/llm@DIGEST2", "", "rocm R literal"),
        ("two", "acme/llm@DIGEST3", "", "ambiguous llm rocm"),
        // One entry that owns several lines of one program goes on, other programs do not.
        ("app", "acme/app:2.1", "", "app R literal"),
        ("migrate", "acme/app:2.0", "", "app R literal"),
        ("sidecar", "acme/app:2.1-sidecar", "", "not app: Tag"),
        ("sidecar", "acme/app:sidecar", "", "not app: Tag"),
        ("worker", "acme/app:2.1-worker", "", "worker R literal"),
        ("listed", "acme/app:worker", "", "not app: Tag"),
        ("listed", "acme/app:2.1", "", "app L literal"),
        ("both", "acme/app:worker", "", "worker L literal"),
        ("elsewhere", "other/app:worker", "", "app L literal"),
        // Lines of databases.
        ("db", "postgres:16", "", "postgres R literal"),
        ("db", "postgres:16.4", "", "postgres R literal"),
        ("db", "postgres:17", "", "not postgres: Tag"),
        ("db", "postgres:16-alpine", "", "not postgres: Tag"),
        // Platforms.
        ("x", "acme/multi:1", "", "multi R literal"),
        ("x", "acme/multi:1", "linux/arm64/v8", "multi-arm R literal"),
        ("x", "acme/multi:1", "linux/arm/v7", "not multi: Platform"),
        ("x", "acme/multi:${DK_MULTI_TAG:-1}", "linux/arm64", "not multi: Platform"),
        ("x", "acme/app:2.1", "linux/arm64", "not app: Platform"),
    ];

    #[test]
    fn one_repository_may_have_several_programs() {
        let digest = |number: u8| crate::model::reference::Digest::of(&[number]).to_string();
        let text = format!(
            "
schema_version: '1.1'
services:
  tool: {{image: acme/tool, track: web-server}}
  signaling: {{image: acme/tool, track: signaling-server}}
  llm: {{image: acme/llm, current_tag: '1.4', image_digest: '{}'}}
  rocm: {{image: acme/llm, track: rocm, current_tag: 1.4-rocm, image_digest: '{}'}}
  app: {{image: acme/app, current_tag: '2.1', compose_services: [listed, both, elsewhere]}}
  worker: {{image: acme/app, track: worker, compose_services: [both]}}
  postgres: {{image: postgres, track: '16'}}
  multi: {{image: acme/multi, track: '1'}}
  multi-arm: {{image: acme/multi, track: '1', platform: linux/arm64}}
",
            digest(1),
            digest(2)
        );
        let manifest = Manifest::read(text.as_bytes()).unwrap();
        let members = Members::of(&manifest);
        for (name, line, platform, expected) in PROGRAMS {
            let line = (1..=3).fold((*line).to_owned(), |line, number| {
                line.replace(&format!("DIGEST{number}"), &digest(number))
            });
            let found = told(&members, (name, &line, "", platform));
            assert_eq!(found, *expected, "{name} {line} {platform}");
        }
    }

    #[test]
    fn a_platform_that_all_users_have_is_the_services() {
        let text = "schema_version: '1.1'\nservices:\n  a: {image: r/a}\n  b: {image: r/b}\n  c: \
            {image: r/c}\n  c-arm: {image: r/c, platform: linux/arm64}\n  d: {image: r/d}\n";
        let mut manifest = Manifest::read(text.as_bytes()).unwrap();
        let arm: Platform = "linux/arm64".parse().unwrap();
        let lines = [
            ("a1", "r/a:1", true),
            ("a2", "r/a:${DK_A_TAG:-1}", true),
            ("b1", "r/b:1", true),
            ("b2", "r/b:1", false),
            ("c", "r/c:1", true),
            ("d", "r/d:1", false),
        ]
        .map(|(name, line, is_arm)| (name, Template::parse(line).unwrap(), is_arm));
        let uses: Vec<Use<'_>> = lines
            .iter()
            .map(|(name, line, is_arm)| Use {
                line: Some(line),
                platform: is_arm.then_some(&arm),
                ..Use::named(name)
            })
            .collect();
        settle_platforms(&mut manifest, &uses);
        let settled = manifest.services.values().filter(|one| one.platform.is_some());
        let settled: Vec<&str> = settled.map(|service| service.name.as_str()).collect();
        assert_eq!(settled, ["a", "c-arm"]);
    }
}
