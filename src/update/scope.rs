//! What an update is about: which containers give way, and what is kept of them.

use std::collections::BTreeMap;

use super::journal::Ran;
use crate::compose::Project;
use crate::model::manifest::{REJECTED_LIMIT, Rejected, Service};
use crate::model::reference::{Digest, ServiceName, Tag};

/// The Compose services whose containers run another image than `wanted` has for their manifest
/// service, in Compose's order.
///
/// A service without a container takes part if its manifest service has others that do, or if
/// nothing of the deployment has a container; then everything does. Services for which `wanted` has
/// nothing, those that the files scale to none, and those of profiles that are off are left alone.
#[must_use]
pub fn to_replace(
    project: &Project,
    tracked: &BTreeMap<String, ServiceName>,
    ran: &[Ran],
    wanted: &BTreeMap<ServiceName, Digest>,
) -> Vec<String> {
    let changed = ran.iter().filter(|one| {
        let wanted = one.service.as_ref().and_then(|service| wanted.get(service));
        wanted.is_some_and(|wanted| one.image_id.as_ref() != Some(wanted))
    });
    let changed: Vec<&Ran> = changed.collect();
    let services = project.services.iter().filter(|service| {
        let name = &service.name;
        let takes_part = if has(ran, name) {
            changed.iter().any(|one| one.compose_service == *name)
        } else {
            let tracked = tracked.get(name);
            ran.is_empty()
                || changed.iter().any(|one| tracked.is_some() && one.service.as_ref() == tracked)
        };
        service.is_wanted() && takes_part
    });
    services.map(|service| service.name.clone()).collect()
}

fn has(ran: &[Ran], compose_service: &str) -> bool {
    ran.iter().any(|one| one.compose_service == compose_service)
}

/// The container that says what a manifest service ran: one that runs before one that has ended, as
/// a one-shot may be left from an older release.
#[must_use]
pub fn main_container<'a>(ran: &'a [Ran], service: &ServiceName) -> Option<&'a Ran> {
    let mut mine =
        ran.iter().filter(|one| one.service.as_ref() == Some(service) && one.image_id.is_some());
    let first = mine.clone().next();
    mine.find(|one| one.is_running).or(first)
}

/// Remembers in `service` that `digest` was found bad, at the head of at most five.
pub fn reject(service: &mut Service, digest: &Digest, tag: &Tag, reason: &str, at: &str) {
    service.rejected.retain(|rejected| rejected.digest != *digest);
    let rejected = Rejected {
        digest: digest.clone(),
        tag: Some(tag.clone()),
        reason: Some(reason.to_owned()),
        at: Some(at.to_owned()),
    };
    service.rejected.insert(0, rejected);
    service.rejected.truncate(REJECTED_LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::config;

    fn project() -> Project {
        config::parse_v2(
            r#"{"name": "shop", "services": {
                "migrate": {"image": "r.example/app:1"}, "app": {"image": "r.example/app:1"}, "ui": {"image": "r.example/ui:1"},
                "nginx": {"image": "nginx:latest"}, "debug": {"image": "r.example/app:1", "profiles": ["debug"]}}}"#,
        )
        .unwrap()
        .with_active(|service| service.profiles.is_empty())
    }

    fn tracked() -> BTreeMap<String, ServiceName> {
        [("migrate", "app"), ("app", "app"), ("ui", "ui"), ("debug", "app")]
            .map(|(name, service)| (name.to_owned(), service.parse().unwrap()))
            .into()
    }

    fn ran(name: &str, bytes: &[u8], is_running: bool) -> Ran {
        Ran {
            service: tracked().get(name).cloned(),
            container: name.to_owned(),
            name: name.to_owned(),
            image_id: Some(Digest::of(bytes)),
            is_running,
            ..Ran::of_test(name)
        }
    }

    fn wanted(list: &[(&str, &[u8])]) -> BTreeMap<ServiceName, Digest> {
        list.iter().map(|(name, bytes)| (name.parse().unwrap(), Digest::of(bytes))).collect()
    }

    #[test]
    fn only_other_bytes_are_replaced() {
        let running = [ran("app", b"1", true), ran("ui", b"1", true), ran("nginx", b"1", true)];
        let replaced = |wanted| to_replace(&project(), &tracked(), &running, &wanted);
        assert!(replaced(wanted(&[("app", b"1"), ("ui", b"1")])).is_empty());
        assert_eq!(replaced(wanted(&[("app", b"1"), ("ui", b"2")])), ["ui"]);
        assert!(replaced(wanted(&[])).is_empty());
    }

    #[test]
    fn the_migration_of_a_changed_image_runs_though_its_container_is_gone() {
        let running = [ran("app", b"1", true), ran("ui", b"1", true)];
        let wanted = wanted(&[("app", b"2"), ("ui", b"1")]);
        assert_eq!(to_replace(&project(), &tracked(), &running, &wanted), ["migrate", "app"]);
    }

    #[test]
    fn where_nothing_runs_everything_is_started_that_no_profile_guards() {
        let wanted = wanted(&[("app", b"2"), ("ui", b"1")]);
        assert_eq!(
            to_replace(&project(), &tracked(), &[], &wanted),
            ["migrate", "app", "ui", "nginx"]
        );
    }

    #[test]
    fn what_is_scaled_to_none_takes_no_part() {
        let mut project = project();
        project
            .services
            .iter_mut()
            .filter(|service| service.name == "migrate")
            .for_each(|service| service.scale = 0);
        let wanted = wanted(&[("app", b"2"), ("ui", b"1")]);
        assert_eq!(to_replace(&project, &tracked(), &[], &wanted), ["app", "ui", "nginx"]);
        assert_eq!(to_replace(&project, &tracked(), &[ran("app", b"1", true)], &wanted), ["app"]);
    }

    #[test]
    fn a_running_container_says_what_ran() {
        let containers = [ran("migrate", b"0", false), ran("app", b"1", true)];
        let main = main_container(&containers, &"app".parse().unwrap()).unwrap();
        assert_eq!(main.compose_service, "app");
        let main = main_container(&containers[..1], &"app".parse().unwrap()).unwrap();
        assert_eq!(main.compose_service, "migrate");
        assert!(main_container(&containers, &"ui".parse().unwrap()).is_none());
    }

    #[test]
    fn five_rejections_are_remembered_each_once() {
        let mut service = Service::new("web".parse().unwrap(), None);
        for number in [1, 2, 3, 4, 5, 6, 4] {
            reject(&mut service, &Digest::of(&[number]), &"latest".parse().unwrap(), "bad", "now");
        }
        let left: Vec<u8> =
            (1..=6).filter(|number| service.rejection(&Digest::of(&[*number])).is_some()).collect();
        assert_eq!((left, service.rejected.len()), (vec![2, 3, 4, 5, 6], REJECTED_LIMIT));
        assert_eq!(service.rejected[0].digest, Digest::of(&[4]));
    }
}
