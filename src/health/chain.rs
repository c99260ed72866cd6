//! Which container blocks which: from one that was never started to the one that keeps it waiting.

use super::{Expectations, Judged, Verdict};
use crate::compose::config::Condition;
use crate::docker::{ContainerState, HealthStatus};

/// One service waiting for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The Compose service that is not started.
    pub service: String,
    /// The Compose service that it depends on.
    pub waits_for: String,
    /// What it waits for.
    pub condition: Condition,
}

/// Why a service is not started: each link waits for the next, the last one for the culprit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// From the blocked service to the culprit; empty if nothing is known to block it.
    pub links: Vec<Link>,
    /// The judgement of the culprit; `None` if there is no culprit or the services wait for each
    /// other.
    pub culprit: Option<Box<Verdict>>,
}

impl Chain {
    /// The Compose service at the end of the chain.
    #[must_use]
    pub fn culprit_service(&self) -> Option<&str> {
        self.links.last().map(|link| link.waits_for.as_str())
    }
}

/// What keeps `service` from being started, as far as the `judged` containers show; `None` if all
/// that it waits for is there.
pub(super) fn blocking(
    service: &str,
    judged: &[Judged],
    expectations: &Expectations,
) -> Option<Chain> {
    let mut chain = Chain::default();
    let mut current = service.to_owned();
    while chain.links.iter().all(|link| link.service != current) {
        let Some((name, condition)) = unmet(&current, judged, expectations) else { break };
        chain.links.push(Link { service: current, waits_for: name.clone(), condition });
        current = name;
    }
    if chain.links.is_empty() {
        return None;
    }
    let goes_round = chain.links.iter().any(|link| link.service == current);
    let culprit = judged
        .iter()
        .filter(|other| !goes_round && other.service == current)
        .min_by_key(|other| concern(&other.verdict));
    chain.culprit = culprit.map(|other| Box::new(other.verdict.clone()));
    Some(chain)
}

/// What `service` still waits for; if several, the one that looks worst.
fn unmet(
    service: &str,
    judged: &[Judged],
    expectations: &Expectations,
) -> Option<(String, Condition)> {
    let waits_for = &expectations.get(service)?.waits_for;
    let open = waits_for.iter().filter(|(name, _)| expectations.get(name).is_some());
    let open = open.filter(|(name, condition)| {
        !judged.iter().any(|other| other.service == *name && meets(other, *condition))
    });
    let worst = open.min_by_key(|(name, _)| {
        judged
            .iter()
            .filter(|other| other.service == *name)
            .map(|other| concern(&other.verdict))
            .min()
    });
    worst.cloned()
}

fn meets(judged: &Judged, condition: Condition) -> bool {
    let Some(container) = &judged.container else { return false };
    match condition {
        Condition::Started => {
            container.started_at.is_some() && container.state != ContainerState::Created
        }
        Condition::Healthy => {
            let health = container.health.as_ref().map(|health| health.status);
            container.state == ContainerState::Running && health == Some(HealthStatus::Healthy)
        }
        Condition::CompletedSuccessfully => {
            container.state == ContainerState::Exited && container.exit_code == 0
        }
    }
}

/// Failed before pending before good.
fn concern(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Failed(_) => 0,
        Verdict::Pending(_) => 1,
        Verdict::Healthy | Verdict::Unchecked | Verdict::Completed => 2,
    }
}
