//! What the operator did at run time, beside the files: how many containers a service has, and
//! which services were stopped on purpose. Pure.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::compose::Project;
use crate::docker::{ContainerDetail, ContainerState, RestartPolicy};
use crate::health::Expectations;

/// Whether counts that are lower than what the files say are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fewer {
    /// They are: an update changes versions and nothing else.
    Kept,
    /// They are, unless the files have been changed since the containers were made.
    KeptSince(Option<DateTime<Utc>>),
}

/// How many containers the services of `project` have that have another number than their files
/// say; services without any are left to the files.
#[must_use]
pub fn counts(
    project: &Project,
    containers: &[&ContainerDetail],
    fewer: Fewer,
) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for service in project.services.iter().filter(|service| service.container_name.is_none()) {
        let mine: Vec<&ContainerDetail> = of_service(containers, &service.name)
            .filter(|one| !matches!(one.state, ContainerState::Removing | ContainerState::Dead))
            .collect();
        let Ok(count) = u32::try_from(mine.len()) else { continue };
        let is_kept = i64::from(count) > service.scale
            || match fewer {
                Fewer::Kept => true,
                Fewer::KeptSince(changed) => {
                    let made = mine.iter().filter_map(|one| one.created_at).max();
                    changed.zip(made).is_none_or(|(changed, made)| changed <= made)
                }
            };
        if count > 0 && service.is_wanted() && i64::from(count) != service.scale && is_kept {
            counts.insert(service.name.clone(), count);
        }
    }
    counts
}

/// The containers whose end the daemon remembers, by their IDs, and whether somebody had told them
/// to end.
pub type Ends = BTreeMap<String, bool>;

/// The services of `project` that have containers, all of which were stopped on purpose.
///
/// The daemon keeps no record of a stop: what its restart policy would have started again was
/// stopped, and what ended by a signal as well. A job that has ended was not. Whether a server without
/// a restart policy, which ends with 0 when it is told to, was stopped only `ends` can tell, and so
/// only as long as the daemon remembers; see [`guessed`].
#[must_use]
pub fn stopped(
    project: &Project,
    containers: &[&ContainerDetail],
    ends: &Ends,
) -> BTreeSet<String> {
    all_of(project, containers, |one, is_job| was_stopped(one, is_job, ends.get(&one.id).copied()))
}

/// Those of [`stopped`] that are taken for such only because nobody remembers how they ended and they
/// look like servers. To leave one down that was stopped is safe; to start it is not.
#[must_use]
pub fn guessed(
    project: &Project,
    containers: &[&ContainerDetail],
    ends: &Ends,
) -> BTreeSet<String> {
    let known: Ends =
        containers.iter().map(|one| (one.id.clone(), ends.get(&one.id) == Some(&true))).collect();
    let mut guessed = stopped(project, containers, ends);
    let certain = stopped(project, containers, &known);
    guessed.retain(|name| !certain.contains(name));
    guessed
}

/// The services of `project` that have containers, all of which are as `are` asks of a container and
/// whether its service is a job.
fn all_of(
    project: &Project,
    containers: &[&ContainerDetail],
    are: impl Fn(&ContainerDetail, bool) -> bool,
) -> BTreeSet<String> {
    let expectations = Expectations::of(project);
    let services = project.services.iter().filter(|service| {
        let mut mine = of_service(containers, &service.name).peekable();
        let is_job = is_job(&expectations, &service.name);
        mine.peek().is_some() && mine.all(|one| are(one, is_job))
    });
    services.map(|service| service.name.clone()).collect()
}

/// When the first of the containers ended about which only the daemon's events can tell.
#[must_use]
pub fn doubtful(project: &Project, containers: &[&ContainerDetail]) -> Option<DateTime<Utc>> {
    let expectations = Expectations::of(project);
    let doubtful = containers.iter().filter(|one| {
        let service = one.labels.service();
        service.is_some_and(|service| {
            project.service(service).is_some() && !is_job(&expectations, service)
        }) && has_ended(one)
            && !was_stopped(one, false, Some(false))
    });
    doubtful.filter_map(|one| one.finished_at).min()
}

/// How long the work of a job may take of which nothing but its end shows that it is one.
const LONGEST_JOB: TimeDelta = TimeDelta::minutes(10);

/// The services of `project` that are jobs and have done their work: they do it again when they are
/// started again. `stopped` were stopped on purpose.
///
/// A server that ends with 0 when it is told to looks the same where the daemon has forgotten who
/// told it, which it does after 256 events of whatever kind: who ran for long is held to be one.
#[must_use]
pub fn completed(
    project: &Project,
    containers: &[&ContainerDetail],
    stopped: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut completed = all_of(project, containers, has_completed);
    completed.retain(|name| !stopped.contains(name));
    completed
}

fn has_completed(container: &ContainerDetail, is_job: bool) -> bool {
    let is_short = time_run(container).is_some_and(|time| time <= LONGEST_JOB);
    let may_end = matches!(container.restart_policy, RestartPolicy::No | RestartPolicy::OnFailure);
    has_ended(container)
        && container.exit_code == 0
        && (is_job || (is_short && may_end && !container.has_health_check))
}

fn time_run(container: &ContainerDetail) -> Option<TimeDelta> {
    Some(container.finished_at? - container.started_at?)
}

/// Whether a container that has ended well has served rather than done some work.
fn has_served(container: &ContainerDetail) -> bool {
    container.exit_code == 0
        && (container.has_health_check
            || time_run(container).is_some_and(|time| time > LONGEST_JOB))
}

fn is_job(expectations: &Expectations, name: &str) -> bool {
    expectations.get(name).is_some_and(|asked| asked.must_complete)
}

fn has_ended(container: &ContainerDetail) -> bool {
    container.state == ContainerState::Exited && container.error.is_none() && !container.oom_killed
}

/// `was_told` is whether somebody had told it to end, where that is known.
fn was_stopped(container: &ContainerDetail, is_job: bool, was_told: Option<bool>) -> bool {
    // SIGTERM, and the SIGKILL that follows it.
    let by_signal = matches!(container.exit_code, 143 | 137);
    has_ended(container)
        && !is_job
        && (was_told == Some(true)
            || match container.restart_policy {
                RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
                RestartPolicy::OnFailure | RestartPolicy::No => {
                    by_signal || (was_told.is_none() && has_served(container))
                }
            })
}

fn of_service<'a>(
    containers: &'a [&'a ContainerDetail],
    service: &'a str,
) -> impl Iterator<Item = &'a ContainerDetail> {
    containers
        .iter()
        .copied()
        .filter(move |one| one.labels.service() == Some(service) && !one.labels.is_one_off())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::config;

    fn project() -> Project {
        config::parse_v2(
            r#"{"name": "shop", "services": {
                "web": {"image": "a"}, "api": {"image": "a", "scale": 3},
                "job": {"image": "a"}, "none": {"image": "a", "scale": 0},
                "fixed": {"image": "a", "container_name": "fixed"},
                "app": {"image": "a", "depends_on": {"job": {"condition": "service_completed_successfully"}}}}}"#,
        )
        .unwrap()
    }

    fn container(service: &str, number: u32) -> ContainerDetail {
        let labels = [
            ("com.docker.compose.service".to_owned(), service.to_owned()),
            ("com.docker.compose.container-number".to_owned(), number.to_string()),
        ];
        ContainerDetail {
            id: format!("{service}{number}"),
            labels: labels.into_iter().collect(),
            created_at: "2026-01-01T00:00:10Z".parse().ok(),
            ..ContainerDetail::of_test(ContainerState::Running)
        }
    }

    #[test]
    fn a_number_that_is_not_the_files_is_kept() {
        let count = |services: &[&str], fewer| {
            let containers: Vec<ContainerDetail> =
                services.iter().zip(1..).map(|(name, number)| container(name, number)).collect();
            let found = counts(&project(), &containers.iter().collect::<Vec<_>>(), fewer);
            let words: Vec<String> =
                found.iter().map(|(name, count)| format!("{name}={count}")).collect();
            words.join(" ")
        };
        let (before, after) =
            ("2026-01-01T00:00:09Z".parse().ok(), "2026-01-01T00:00:11Z".parse().ok());
        assert_eq!(count(&["web", "api", "api", "api"], Fewer::Kept), "");
        assert_eq!(count(&["web", "web", "web"], Fewer::Kept), "web=3");
        assert_eq!(count(&["web", "web", "web"], Fewer::KeptSince(after)), "web=3");
        assert_eq!(count(&["web", "api"], Fewer::Kept), "api=1");
        assert_eq!(count(&["web", "api"], Fewer::KeptSince(before)), "api=1");
        assert_eq!(count(&["web", "api"], Fewer::KeptSince(None)), "api=1");
        assert_eq!(count(&["web", "api"], Fewer::KeptSince(after)), "");
        assert_eq!(count(&["none", "fixed", "fixed", "unknown", "unknown"], Fewer::Kept), "");
    }

    #[test]
    fn only_what_was_told_to_end_is_stopped_on_purpose() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (service, policy, code, told, expected) in [
            ("web", Always, 0, false, true),
            ("web", UnlessStopped, 137, false, true),
            ("web", UnlessStopped, 1, false, true),
            ("web", OnFailure, 1, false, false),
            ("web", OnFailure, 137, false, true),
            ("web", OnFailure, 0, false, false),
            ("web", OnFailure, 0, true, true),
            ("web", No, 137, false, true),
            ("web", No, 143, false, true),
            ("web", No, 1, false, false),
            ("web", No, 0, false, false),
            ("web", No, 0, true, true),
            ("job", No, 143, true, false),
        ] {
            let mut one = container(service, 1);
            (one.state, one.exit_code, one.restart_policy) = (ContainerState::Exited, code, policy);
            one.finished_at = one.created_at;
            let told = Ends::from([(one.id.clone(), told)]);
            let found = stopped(&project(), &[&one], &told);
            assert_eq!(found.contains(service), expected, "{service} {policy:?} {code}");
            let is_doubtful = doubtful(&project(), &[&one]).is_some();
            let is_clear =
                service == "job" || stopped(&project(), &[&one], &Ends::new()).len() == 1;
            assert_eq!(is_doubtful, !is_clear, "{service} {policy:?} {code}");
            // One that runs makes it a service that runs.
            assert!(stopped(&project(), &[&one, &container(service, 2)], &told).is_empty());
            (one.oom_killed, one.error) = (code == 137, Some("cannot start".to_owned()));
            assert!(stopped(&project(), &[&one], &told).is_empty());
        }
        assert!(stopped(&project(), &[], &Ends::new()).is_empty());
    }

    #[test]
    fn what_nobody_remembers_is_taken_for_stopped_if_it_has_served() {
        for (minutes, has_check, code, known, expected) in [
            (60, false, 0, None, true),
            (1, true, 0, None, true),
            (1, false, 0, None, false),
            (60, false, 1, None, false),
            (60, true, 0, Some(false), false),
        ] {
            let mut one = container("web", 1);
            (one.state, one.exit_code) = (ContainerState::Exited, code);
            one.restart_policy = RestartPolicy::No;
            one.started_at = one.created_at;
            one.finished_at = one.created_at.map(|time| time + TimeDelta::minutes(minutes));
            one.has_health_check = has_check;
            let ends: Ends = known.map(|known| (one.id.clone(), known)).into_iter().collect();
            let found = [stopped(&project(), &[&one], &ends), guessed(&project(), &[&one], &ends)];
            let found = found.map(|names| names.contains("web"));
            assert_eq!(found, [expected, expected], "{minutes} {has_check} {code} {known:?}");
            // What is known to have been told is no guess.
            let told = Ends::from([(one.id.clone(), true)]);
            assert!(guessed(&project(), &[&one], &told).is_empty());
        }
    }

    #[test]
    fn a_job_has_completed_and_a_server_that_was_stopped_has_not() {
        use RestartPolicy::{Always, No, OnFailure};
        let none = BTreeSet::new();
        for (service, policy, code, minutes, expected) in [
            ("web", No, 0, 1, true),
            ("web", OnFailure, 0, 1, true),
            ("web", No, 0, 60, false),
            ("web", Always, 0, 1, false),
            ("web", No, 143, 1, false),
            ("web", No, 1, 1, false),
            ("job", No, 0, 60, true),
            ("job", No, 1, 1, false),
        ] {
            let mut one = container(service, 1);
            (one.state, one.exit_code, one.restart_policy) = (ContainerState::Exited, code, policy);
            one.started_at = one.created_at;
            one.finished_at = one.created_at.map(|time| time + TimeDelta::minutes(minutes));
            let found = completed(&project(), &[&one], &none);
            assert_eq!(found.contains(service), expected, "{service} {policy:?} {code} {minutes}");
            assert!(completed(&project(), &[&one, &container(service, 2)], &none).is_empty());
            let stopped = [service.to_owned()].into();
            assert!(completed(&project(), &[&one], &stopped).is_empty());
            one.has_health_check = true;
            let found = completed(&project(), &[&one], &none);
            assert_eq!(found.contains(service), expected && service == "job");
        }
    }
}
