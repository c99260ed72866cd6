//! Which service of the manifest each Compose service runs: one rule, and what it goes by. Pure.
#![deny(clippy::disallowed_methods)]

use std::collections::HashMap;

use crate::model::env_file;
use crate::model::interpolation::Template;
use crate::model::manifest::{Manifest, Service};
use crate::model::reference::{Reference, Repository, ServiceName};

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

/// What a Compose service is to the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership<'m> {
    /// It runs one service.
    Of(Member<'m>),
    /// Several services have its image, and nothing tells them apart.
    Ambiguous(Vec<&'m ServiceName>),
    /// It runs none.
    Untracked,
}

impl<'m> Membership<'m> {
    /// The service that it runs, if that is certain.
    #[must_use]
    pub fn service(&self) -> Option<&'m ServiceName> {
        match self {
            Self::Of(member) => Some(member.service),
            Self::Ambiguous(_) | Self::Untracked => None,
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
    services: Vec<ServiceName>,
    listed: HashMap<String, usize>,
    variables: HashMap<String, Vec<Owner>>,
    repositories: HashMap<Repository, Vec<usize>>,
    names: HashMap<String, Vec<usize>>,
}

impl Members {
    /// The services of `manifest`, whose images are settled.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let mut members = Self {
            services: manifest.services.keys().cloned().collect(),
            listed: HashMap::new(),
            variables: HashMap::new(),
            repositories: HashMap::new(),
            names: HashMap::new(),
        };
        for (index, service) in manifest.services.values().enumerate() {
            for name in &service.compose_services {
                members.listed.entry(name.clone()).or_insert(index);
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

    /// What the Compose service `name` is to the manifest. `line` is its image before
    /// interpolation, `image` the repository that Compose makes of it; both where they are known.
    ///
    /// A list decides over everything. Variables decide over the repository, so that two services
    /// in one repository can be told apart; but a variable such as `VERSION` also stands in lines
    /// of other products, so it must not contradict the repository. A name alone counts only where
    /// nothing is known of the image.
    #[must_use]
    pub fn find(
        &self,
        name: &str,
        line: Option<&Template>,
        image: Option<&Repository>,
    ) -> Membership<'_> {
        let (candidates, known_by) = self.candidates(name, line, image);
        match self.choose(&candidates, name) {
            Some(index) => Membership::Of(Member {
                service: &self.services[index],
                known_by,
                is_literal: line
                    .is_some_and(|line| !self.owners(line).any(|owner| owner.service == index)),
            }),
            None if candidates.is_empty() => Membership::Untracked,
            None => Membership::Ambiguous(
                candidates.into_iter().map(|index| &self.services[index]).collect(),
            ),
        }
    }

    /// The services that the strongest evidence speaks for.
    fn candidates(
        &self,
        name: &str,
        line: Option<&Template>,
        image: Option<&Repository>,
    ) -> (Vec<usize>, KnownBy) {
        if let Some(&index) = self.listed.get(name) {
            return (vec![index], KnownBy::Listed);
        }
        let written = line.and_then(default_repository);
        let image = image.or(written.as_ref());
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
        owners.all(|other| other == first).then(|| &self.services[first])
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
        let mut namesakes =
            candidates.iter().filter(|index| plain(self.services[**index].as_str()) == plain(name));
        namesakes.next().copied().filter(|_| namesakes.next().is_none())
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

/// The repository that an image line has where no variable is set.
fn default_repository(line: &Template) -> Option<Repository> {
    repository_of(&line.default_value()?)
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
            let line = (!line.is_empty()).then(|| Template::parse(line).unwrap());
            let image = (!image.is_empty()).then(|| image.parse().unwrap());
            let found = match members.find(name, line.as_ref(), image.as_ref()) {
                Membership::Of(member) => {
                    let known_by = format!("{:?}", member.known_by);
                    let literal = if member.is_literal { " literal" } else { "" };
                    format!("{} {}{literal}", member.service, &known_by[..1])
                }
                Membership::Ambiguous(several) => {
                    let names: Vec<&str> = several.into_iter().map(ServiceName::as_str).collect();
                    format!("ambiguous {}", names.join(" "))
                }
                Membership::Untracked => "untracked".to_owned(),
            };
            assert_eq!(found, *expected, "{name} {line:?} {image:?}");
        }
    }
}
