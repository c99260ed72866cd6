//! Whether what ran before an update is back as it was: success is said only after a look.

use std::collections::BTreeMap;

use super::journal::Ran;
use crate::docker::{ContainerDetail, ContainerState};
use crate::health::Judgement;
use crate::report::Standing;

/// What of the containers in `ran` that did their work is not as it was, service by service: how
/// many there are, which image they run, which networks they are attached to.
#[must_use]
pub fn lacking(ran: &[Ran], judged: &Judgement) -> Vec<String> {
    let mut before: BTreeMap<&str, Vec<&Ran>> = BTreeMap::new();
    for one in ran.iter().filter(|one| one.is_running && one.is_good) {
        before.entry(&one.compose_service).or_default().push(one);
    }
    let services = before.into_iter().filter_map(|(service, before)| {
        let now: Vec<&ContainerDetail> = judged
            .containers
            .iter()
            // What was not wholly good before is not waited for: it may still be on its way.
            .filter(|one| one.service == service && one.verdict.standing() != Standing::Failed)
            .filter_map(|one| one.container.as_ref())
            .filter(|container| container.state == ContainerState::Running)
            .collect();
        shortfall(&before, &now).map(|what| format!("{service}: {what}"))
    });
    services.collect()
}

fn shortfall(before: &[&Ran], now: &[&ContainerDetail]) -> Option<String> {
    if now.len() < before.len() {
        return Some(format!("{} of {} containers run", now.len(), before.len()));
    }
    let images: Vec<_> = before.iter().filter_map(|ran| ran.image_id.as_ref()).collect();
    let other = now.iter().find(|container| {
        let image = container.image_id.as_ref();
        image.is_some_and(|image| !images.is_empty() && !images.contains(&image))
    });
    if let Some(other) = other {
        return Some(format!("{} does not run the image that ran before", other.name));
    }
    let networks = before.iter().map(|ran| &ran.networks);
    let common = networks.min_by_key(|networks| networks.len())?;
    now.iter().find_map(|container| {
        let lost = common.iter().find(|network| !container.networks.contains(network))?;
        Some(format!("{} is not attached to the network {lost} any more", container.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Cause, Judged, Verdict, Waiting};
    use crate::model::reference::Digest;

    fn ran(number: u8) -> Ran {
        Ran {
            container: number.to_string(),
            name: format!("shop_web_{number}"),
            image_id: Some(Digest::of(b"1")),
            networks: vec!["front".to_owned()],
            ..Ran::of_test("web")
        }
    }

    fn judged(change: impl FnOnce(&mut ContainerDetail)) -> Judged {
        let mut container = crate::update::blame::tests::container("web");
        container.state = ContainerState::Running;
        container.image_id = Some(Digest::of(b"1"));
        container.networks = vec!["back".to_owned(), "front".to_owned()];
        change(&mut container);
        Judged {
            service: "web".to_owned(),
            container: Some(container),
            verdict: Verdict::Unchecked,
            counts: true,
            log: Vec::new(),
        }
    }

    #[test]
    fn what_is_back_has_all_containers_images_and_networks() {
        let said = |ran: &[Ran], containers| lacking(ran, &Judgement { containers }).join("; ");
        let three = [ran(1), ran(2), ran(3)];
        assert_eq!(said(&three[..1], vec![judged(|_| ())]), "");
        assert_eq!(said(&three, vec![judged(|_| ())]), "web: 1 of 3 containers run");
        assert_eq!(said(&three[..1], Vec::new()), "web: 0 of 1 containers run");
        let other = judged(|one| one.image_id = Some(Digest::of(b"2")));
        assert!(said(&three[..1], vec![other]).contains("does not run the image"));
        let detached = judged(|one| one.networks.clear());
        assert!(said(&three[..1], vec![detached]).contains("the network front"));
        let verdict = |verdict| vec![Judged { verdict, ..judged(|_| ()) }];
        assert_eq!(said(&three[..1], verdict(Verdict::Pending(Waiting::Starting(None)))), "");
        let failed = verdict(Verdict::Failed(Cause::Unhealthy(None)));
        assert_eq!(said(&three[..1], failed), "web: 0 of 1 containers run");
        // What had ended, or was bad already, is not asked for.
        let ended = [Ran { is_running: false, ..ran(1) }, Ran { is_good: false, ..ran(2) }];
        assert_eq!(said(&ended, Vec::new()), "");
    }
}
