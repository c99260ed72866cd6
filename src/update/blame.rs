//! Whose fault a failed update is: a release's, or the host's on which it was tried.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::journal::{Ran, Target};
use crate::docker::ContainerDetail;
use crate::health::{self, Cause, Chain, Expectations, Judged, Judgement, Verdict};
use crate::model::reference::{Digest, ServiceName};

/// How much later than the engine's return the end of a container may be dated that its absence has
/// brought about.
const AFTER_RETURN: TimeDelta = TimeDelta::seconds(5);

/// What is known of a trial of new releases besides what the containers show.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The containers from before it.
    pub ran: &'a [Ran],
    /// The Compose services that were to be replaced.
    pub changed: &'a [String],
    /// The manifest service of each Compose service.
    pub tracked: &'a BTreeMap<String, ServiceName>,
    /// The releases on trial.
    pub targets: &'a [Target],
    /// What the Compose services wait for.
    pub expectations: &'a Expectations,
    /// The containers that somebody has sent a signal through the daemon.
    pub signalled: &'a BTreeSet<String>,
    /// When the engine was away last, if it was.
    pub away: Option<DateTime<Utc>>,
}

/// What a failed trial says about a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The manifest service.
    pub service: ServiceName,
    /// Why its release is rejected or is not, line by line; the first says it all.
    pub reason: Vec<String>,
    /// Whether a container of its did not run as it should, whoever's fault that is.
    #[serde(default)]
    pub has_failed: bool,
}

impl Finding {
    /// The reason in one line.
    #[must_use]
    pub fn headline(&self) -> &str {
        self.reason.first().map_or("", String::as_str)
    }
}

/// Which releases of a failed trial are bad, and why the others are not held to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// Those whose own container was started by this update and failed by itself.
    #[serde(default)]
    pub rejected: Vec<Finding>,
    /// All others that were tried.
    #[serde(default)]
    pub spared: Vec<Finding>,
}

impl Blame {
    /// The services whose old release is to come back where the others' new ones stay: those that
    /// are rejected; if none is, those that cannot run here for another reason.
    #[must_use]
    pub fn given_up(&self) -> Vec<&Finding> {
        if self.rejected.is_empty() {
            self.spared.iter().filter(|finding| finding.has_failed).collect()
        } else {
            self.rejected.iter().collect()
        }
    }
}

/// Who is to blame for what `judged` shows.
#[must_use]
pub fn blame(judged: &Judgement, trial: &Trial<'_>) -> Blame {
    let mut blame = Blame::default();
    let tried: BTreeSet<&ServiceName> =
        trial.changed.iter().filter_map(|name| trial.tracked.get(name)).collect();
    for service in tried {
        let failed = judged
            .failures()
            .filter(|one| trial.tracked.get(&one.service) == Some(service))
            .filter(|one| trial.changed.contains(&one.service));
        let mut excuse = None;
        let mut evidence = None;
        for one in failed {
            match trial.excuse(one, judged) {
                None => evidence = evidence.or_else(|| Some(health::explain(one))),
                Some(why) => {
                    excuse = excuse.or_else(|| Some(format!("{}: {why}", one.service)));
                }
            }
        }
        let service = service.clone();
        match evidence {
            Some(reason) => {
                blame.rejected.push(Finding { service, reason, has_failed: true });
            }
            None => {
                let has_failed = excuse.is_some();
                let reason = excuse.unwrap_or_else(|| "it did not fail".to_owned());
                blame.spared.push(Finding { service, reason: vec![reason], has_failed });
            }
        }
    }
    blame
}

impl Trial<'_> {
    /// Why a failure says nothing about the release on trial; `None`: it does.
    fn excuse(&self, one: &Judged, judged: &Judgement) -> Option<String> {
        let Verdict::Failed(cause) = &one.verdict else { return Some("it did not fail".into()) };
        let Some(container) = &one.container else {
            return Some("it was never started".to_owned());
        };
        if !self.is_new(container, self.tracked.get(&one.service)) {
            return Some("what failed is its container from before the update".to_owned());
        }
        self.not_its_own(cause, container)
            .or_else(|| hindered(container, &one.log))
            .or_else(|| self.needs_failed(&one.service, judged))
    }

    /// Whether a container was made by this update, from the release on trial.
    fn is_new(&self, container: &ContainerDetail, service: Option<&ServiceName>) -> bool {
        if self.ran.iter().any(|ran| ran.container == container.id) {
            return false;
        }
        let target = self.targets.iter().find(|target| Some(&target.service) == service);
        let wanted = target.and_then(|target| target.bytes.image_id.as_ref());
        let ran_before = |image: &Digest| {
            self.ran
                .iter()
                .any(|ran| ran.service.as_ref() == service && ran.image_id.as_ref() == Some(image))
        };
        container
            .image_id
            .as_ref()
            .is_none_or(|image| wanted.is_none_or(|wanted| wanted == image) && !ran_before(image))
    }

    /// Why a container has not failed by itself, as far as it shows.
    fn not_its_own(&self, cause: &Cause, container: &ContainerDetail) -> Option<String> {
        match cause {
            Cause::NeverStarted(chain) => Some(waited(chain)),
            Cause::Missing => Some("it was never made".to_owned()),
            Cause::CannotStart { error } => Some(format!("this host could not start it: {error}")),
            Cause::Stuck(state) => {
                Some(format!("it is {state}, which no release brings about by itself"))
            }
            Cause::OutOfMemory { .. } if !container.has_memory_limit => Some(
                "the host's memory was used up; the container has no limit of its own".to_owned(),
            ),
            Cause::Exited { code } | Cause::RestartLoop { code: Some(code), .. } => {
                self.ended_from_outside(*code, container)
            }
            Cause::OutOfMemory { .. }
            | Cause::RestartLoop { code: None, .. }
            | Cause::Unhealthy(_)
            | Cause::NeverHealthy(_)
            | Cause::Flapping { .. }
            | Cause::NotCompleted => None,
        }
    }

    fn ended_from_outside(&self, code: i64, container: &ContainerDetail) -> Option<String> {
        if self.signalled.contains(&container.id) {
            return Some("somebody stopped or killed it during the update".to_owned());
        }
        let was_away = self.away.is_some_and(|away| {
            let begun = container.started_at.is_none_or(|started| started <= away);
            let ended = container.finished_at.is_none_or(|ended| ended <= away + AFTER_RETURN);
            begun && ended
        });
        if was_away {
            return Some("it ended while the Docker engine was away".to_owned());
        }
        // A process cannot kill the first one of its container so; the kernel and an administrator
        // can.
        (code == 137 && !container.oom_killed).then(|| {
            "it was killed from outside, by the kernel for the host's memory or by somebody"
                .to_owned()
        })
    }

    /// What a service needs may have taken it down with it.
    fn needs_failed(&self, service: &str, judged: &Judgement) -> Option<String> {
        let mut needed: Vec<&str> = vec![service];
        let mut next = 0;
        while let Some(name) = needed.get(next).copied() {
            next += 1;
            let waits_for = self.expectations.get(name).map(|asked| &asked.waits_for);
            for (other, _) in waits_for.into_iter().flatten() {
                if !needed.contains(&other.as_str()) {
                    needed.push(other);
                }
            }
        }
        let mut failed =
            judged.failures().filter(|other| needed[1..].contains(&other.service.as_str()));
        failed.next().map(|other| format!("{}, which it depends on, failed too", other.service))
    }
}

fn waited(chain: &Chain) -> String {
    match chain.culprit_service() {
        Some(culprit) => format!("it was never started, because it waits for {culprit}"),
        None => "it was never started".to_owned(),
    }
}

/// What of the host keeps any release from running, by a container's own last words.
fn hindered(container: &ContainerDetail, log: &[String]) -> Option<String> {
    let says = |words: &str| log.iter().any(|line| line.to_lowercase().contains(words));
    if says("exec format error") {
        return Some("it holds programs for another kind of processor than this host's".to_owned());
    }
    if says("no space left on device") || says("disk quota exceeded") {
        return Some("the host's disk is full".to_owned());
    }
    (container.shares_host_network && says("address already in use"))
        .then(|| "a port of the host that it needs is in use".to_owned())
}

/// What an operator can do about the host, by the words of the daemon, Compose or a container.
#[must_use]
pub fn remedy(words: &str) -> Option<&'static str> {
    const REMEDIES: [(&[&str], &str); 10] = [
        (
            &["port is already allocated", "address already in use", "a port of the host"],
            "free the port (`docker ps` and `ss -ltnp` show who has it), or choose another in the \
             Compose files",
        ),
        (
            &["bind source path does not exist", "bind mount source path"],
            "make the directory or file that the Compose files mount, or correct its path there",
        ),
        (
            &["no space left on device", "disk quota exceeded", "disk is full"],
            "make room on the disk: `docker system df` shows what Docker keeps, `dkv prune` removes \
             old releases",
        ),
        (
            &["is already in use by container", "conflict. the container name"],
            "remove or rename the container that has the name (`docker rm`, `docker rename`)",
        ),
        (
            &["exec format error", "another kind of processor"],
            "ask the publisher for an image for this host's processor, or install its emulation \
             (binfmt)",
        ),
        (
            &["executable file not found", "no such file or directory: unknown", "exec: \""],
            "see whether `command` and `entrypoint` in the Compose files fit the new release",
        ),
        (
            &["memory was used up", "the host's memory", "cannot allocate memory"],
            "give the host more memory, or its containers limits",
        ),
        (
            &["could not find an available", "pool overlaps", "all predefined address pools"],
            "remove networks that nobody uses (`docker network ls`), or choose another subnet",
        ),
        (
            &["somebody stopped or killed it"],
            "nothing is to be mended, unless whoever it was has a reason",
        ),
        (
            &[
                "engine was away",
                "cannot connect to the docker daemon",
                "cannot reach the docker daemon",
                "error during connect",
                "has not answered",
                "internal server error",
            ],
            "see what the engine logged: `systemctl status docker`, `journalctl -u docker`",
        ),
    ];
    let words = words.to_lowercase();
    let known = REMEDIES.iter().find(|(signs, _)| signs.iter().any(|sign| words.contains(sign)));
    known.map(|(_, remedy)| *remedy)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::docker::ContainerState;
    use crate::model::history::Bytes;
    use chrono::TimeZone as _;

    fn at(seconds: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(1_700_000_000 + seconds, 0).unwrap()
    }

    /// A new container of release 2 that has ended.
    pub(in crate::update) fn container(service: &str) -> ContainerDetail {
        ContainerDetail {
            id: format!("new-{service}"),
            name: format!("shop_{service}_1"),
            image_id: Some(image(service, "2")),
            image: service.to_owned(),
            exit_code: 3,
            created_at: Some(at(0)),
            started_at: Some(at(1)),
            finished_at: Some(at(2)),
            ..ContainerDetail::of_test(ContainerState::Exited)
        }
    }

    fn image(service: &str, version: &str) -> Digest {
        Digest::of(format!("{service} {version}").as_bytes())
    }

    fn failed(service: &str, cause: Cause) -> Judged {
        Judged {
            service: service.to_owned(),
            container: Some(container(service)),
            verdict: Verdict::Failed(cause),
            counts: true,
            log: Vec::new(),
        }
    }

    fn crashed(service: &str) -> Judged {
        failed(service, Cause::Exited { code: 3 })
    }

    /// What is said of an update of `web` and `api`: who is rejected, and why who is not.
    fn blamed(judged: Vec<Judged>, change: impl FnOnce(&mut Trial<'_>)) -> (Vec<String>, String) {
        let tracked: BTreeMap<String, ServiceName> =
            ["web", "api"].map(|name| (name.to_owned(), name.parse().unwrap())).into();
        let ran: Vec<Ran> = ["web", "api"].map(old).into();
        let changed = ["web".to_owned(), "api".to_owned()];
        let targets: Vec<Target> = ["web", "api"]
            .map(|name| Target {
                service: name.parse().unwrap(),
                tag: "2".parse().unwrap(),
                bytes: Bytes::of_image(image(name, "2")),
            })
            .into();
        let project = crate::compose::config::parse_v1(
            "services: {web: {depends_on: [db]}, api: {}, db: {}}",
            "shop".to_owned(),
        );
        let expectations = Expectations::of(&project.unwrap());
        let signalled = BTreeSet::new();
        let mut trial = Trial {
            ran: &ran,
            changed: &changed,
            tracked: &tracked,
            targets: &targets,
            expectations: &expectations,
            signalled: &signalled,
            away: None,
        };
        change(&mut trial);
        let blame = blame(&Judgement { containers: judged }, &trial);
        let rejected = blame.rejected.iter().map(|one| one.service.to_string()).collect();
        let spared: Vec<String> = blame
            .spared
            .iter()
            .filter(|one| one.has_failed)
            .map(|one| one.headline().to_owned())
            .collect();
        (rejected, spared.join("; "))
    }

    fn old(name: &str) -> Ran {
        Ran {
            service: name.parse().ok(),
            container: format!("old-{name}"),
            name: format!("shop-{name}-1"),
            image_id: Some(image(name, "1")),
            ..Ran::of_test(name)
        }
    }

    #[test]
    fn what_failed_by_itself_is_rejected_and_nothing_else() {
        let with = |change: fn(&mut ContainerDetail), cause: Cause| {
            let mut judged = failed("web", cause);
            judged.container.iter_mut().for_each(change);
            judged
        };
        let saying = |line: &str| Judged { log: vec![line.to_owned()], ..crashed("web") };
        let killed = Cause::Exited { code: 137 };
        let memory = || Cause::OutOfMemory { restarts: 0 };
        let unstartable = || Cause::CannotStart { error: "port is already allocated".to_owned() };
        let cases = [
            (crashed("web"), true),
            (failed("web", Cause::RestartLoop { restarts: 3, code: Some(1) }), true),
            (failed("web", Cause::NeverHealthy(None)), true),
            (failed("web", Cause::Unhealthy(None)), true),
            (failed("web", Cause::Flapping { setbacks: 2 }), true),
            (failed("web", Cause::Exited { code: 0 }), true),
            (failed("web", Cause::NotCompleted), true),
            (with(|one| one.has_memory_limit = true, memory()), true),
            (with(|_| (), memory()), false),
            (with(|_| (), killed.clone()), false),
            (with(|one| one.oom_killed = true, killed), true),
            (with(|one| one.state = ContainerState::Created, unstartable()), false),
            (failed("web", Cause::Stuck(ContainerState::Paused)), false),
            (failed("web", Cause::NeverStarted(Chain::default())), false),
            (Judged { container: None, ..failed("web", Cause::Missing) }, false),
            // What ran before, and what runs the image from before, is no new release.
            (with(|one| one.id = "old-web".to_owned(), Cause::Exited { code: 1 }), false),
            (with(|one| one.image_id = Some(image("web", "1")), Cause::Exited { code: 1 }), false),
            (saying("exec /app: exec format error"), false),
            (saying("write /var/lib/x: No space left on device"), false),
            (saying("bind: Address already in use"), true),
            (
                Judged {
                    log: saying("bind: Address already in use").log,
                    ..with(|one| one.shares_host_network = true, Cause::Exited { code: 1 })
                },
                false,
            ),
        ];
        for (judged, is_rejected) in cases {
            let (rejected, spared) = blamed(vec![judged.clone()], |_| ());
            let expected: &[&str] = if is_rejected { &["web"] } else { &[] };
            assert_eq!(rejected, expected, "{judged:?}");
            assert_eq!(spared.is_empty(), is_rejected, "{spared} {judged:?}");
        }
    }

    #[test]
    fn every_bad_release_of_an_update_is_rejected() {
        assert_eq!(blamed(vec![crashed("web"), crashed("api")], |_| ()).0, ["api", "web"]);
        assert_eq!(blamed(vec![crashed("api")], |_| ()), (vec!["api".to_owned()], String::new()));
        assert_eq!(blamed(Vec::new(), |_| ()), (Vec::new(), String::new()));
    }

    #[test]
    fn what_goes_down_with_what_it_needs_is_spared() {
        let (rejected, why) = blamed(vec![crashed("db"), crashed("web"), crashed("api")], |_| ());
        assert_eq!((rejected, why.contains("db")), (vec!["api".to_owned()], true), "{why}");
    }

    #[test]
    fn what_somebody_kills_or_an_absent_engine_ends_is_spared() {
        let signalled = BTreeSet::from(["new-web".to_owned()]);
        let both = || vec![crashed("web"), crashed("api")];
        let tracked = BTreeMap::from([("web".to_owned(), "web".parse().unwrap())]);
        let mut judged = both();
        let expectations = Expectations::default();
        let trial = |away| Trial {
            ran: &[],
            changed: &[],
            tracked: &tracked,
            targets: &[],
            expectations: &expectations,
            signalled: &signalled,
            away,
        };
        let alone = Judgement { containers: Vec::new() };
        let excuse = |one: &Judged, away| trial(away).excuse(one, &alone);
        assert!(excuse(&judged[0], None).is_some() && excuse(&judged[1], None).is_none());
        assert!(excuse(&judged[1], Some(at(2))).is_some());
        assert!(excuse(&judged[1], Some(at(-60))).is_none(), "it had started only then");
        judged[1].verdict = Verdict::Failed(Cause::NeverHealthy(None));
        assert!(excuse(&judged[1], Some(at(2))).is_none());
    }

    #[test]
    fn the_host_is_mended_by_what_its_own_words_ask_for() {
        for (words, expected) in [
            ("Bind for 0.0.0.0:80 failed: port is already allocated", "free the port"),
            ("invalid mount config: bind source path does not exist: /x", "make the directory"),
            ("mkdir /x: no space left on device", "make room"),
            ("the container name \"/x\" is already in use by container", "docker rename"),
            ("standard_init_linux.go:228: exec format error", "binfmt"),
            ("Cannot connect to the Docker daemon at unix:///x", "journalctl -u docker"),
        ] {
            assert!(remedy(words).is_some_and(|remedy| remedy.contains(expected)), "{words}");
        }
        assert_eq!(remedy("web: exited with code 3"), None);
    }
}
