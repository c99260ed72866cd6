//! `check-updates`: what registries say about the recorded versions.

use anyhow::Result;
use clap::Args;
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

use super::arguments::Services;
use super::{Run, changes};
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::error;
use crate::lookup::{self, Latest};
use crate::model::history::Release;
use crate::model::manifest::{DEFAULT_TRACK, Service, Source};
use crate::model::version;
use crate::plan::{self, Found, Outcome};
use crate::registry::resolve::{Evidence, Resolution};
use crate::report::{ReleaseView, ServiceUpdate, UpdateState, Updates, short_digest};
use crate::ui::{Cell, Style, Table};

/// What is said of a service whose tag names one release: that nothing is new there is no news.
const STAYS: &str = "a version that does not move";

/// How many services are looked up at once.
pub(super) const SERVICES_AT_ONCE: usize = 16;

/// Show what `pull-latest` would change, without pulling
///
/// Exits 9 when some services are unknown, 5 when all are.
#[derive(Debug, Args)]
pub struct CheckUpdates {
    #[command(flatten)]
    services: Services,
    /// Exit 10 when `pull-latest` would change something
    #[arg(long)]
    exit_code: bool,
}

impl Run for CheckUpdates {
    /// # Errors
    ///
    /// No manifest (exit 3), an unknown service (exit 2).
    async fn run(self, app: &App) -> Result<Exit> {
        let deployment = Deployment::open_recorded(app)?;
        let services = deployment.select(&self.services.names())?;
        let report = look_up(&deployment, &services).await;
        let unknown =
            report.services.iter().filter(|one| one.state == UpdateState::Unknown).count();
        app.show(&report, |report| {
            show(app, report);
            changes::how_to_follow_a_line(&services).into_iter().for_each(|note| app.ui.note(note));
        })?;
        if unknown > 0 && unknown == report.services.len() {
            app.ui.error(&nothing_known().into());
            return Ok(Exit::Unknown);
        }
        if unknown > 0 {
            return Ok(Exit::Partial);
        }
        let available = report.services.iter().any(|one| one.would_change);
        Ok(if self.exit_code && available { Exit::Different } else { Exit::Done })
    }
}

pub(super) fn nothing_known() -> error::Error {
    error::registry("nothing could be found out about any service")
        .with_hint("the report says why; check the network and `docker login`")
}

/// What `pull-latest` would change of `services`; those that cannot be looked up are unknown.
pub(super) async fn look_up(deployment: &Deployment<'_>, services: &[&Service]) -> Updates {
    let app = deployment.app();
    let lookup = deployment.lookup(None);
    lookup.expect(services).await;
    // Asked for only if there is a local build, and once: a daemon that hangs does so for long.
    let daemon = OnceCell::new();
    let checks = services.iter().map(|service| async {
        if service.source == Source::Local {
            let docker = daemon
                .get_or_init(|| async { app.docker().await.map_err(|error| format!("{error:#}")) })
                .await;
            return local_update(app, service, docker).await;
        }
        match lookup.latest(service).await {
            Ok(latest) => {
                let mut update = compare(service, &latest);
                // For `latest` itself, which hardly ever lags behind, a list of tags is not worth
                // asking for.
                if update.newest.is_none()
                    && service.track_name() != DEFAULT_TRACK
                    && let Some((tag, remark)) = lookup.newest(service).await
                {
                    update.newest = Some(tag.to_string());
                    let details = [&update.details].into_iter().chain(&remark);
                    let details = details.filter(|text| !text.is_empty()).cloned();
                    update.details = details.collect::<Vec<_>>().join("; ");
                }
                update
            }
            Err(error) => {
                ServiceUpdate::of(service, UpdateState::Unknown, None, format!("{error:#}"))
            }
        }
    });
    Updates {
        services: futures_util::stream::iter(checks).buffered(SERVICES_AT_ONCE).collect().await,
    }
}

/// What `pull-latest` would make of a local build, as far as the daemon can be asked.
async fn local_update(
    app: &App,
    service: &Service,
    docker: &Result<&Docker, String>,
) -> ServiceUpdate {
    let details = if service.held {
        "built on this host; held".to_owned()
    } else {
        match built_now(app, service, docker).await {
            Ok(found) => return compare_local(service, found, &app.stamp()),
            Err(error) => format!(
                "built on this host; what its tag names now could not be found out: {error:#}"
            ),
        }
    };
    ServiceUpdate::of(service, UpdateState::Local, None, details)
}

async fn built_now(
    app: &App,
    service: &Service,
    docker: &Result<&Docker, String>,
) -> Result<Found> {
    let docker = docker.as_ref().map_err(|why| anyhow::Error::msg(why.clone()))?;
    lookup::local(docker, &app.store, service, &lookup::track(service)?).await
}

/// What the image that a local build's tag names now means for its record.
fn compare_local(service: &Service, found: Found, stamp: &plan::Stamp) -> ServiceUpdate {
    let step = plan::advance(service, found.clone(), &plan::Intent::Latest, stamp);
    let left = service.left_by_rollback(&found.bytes);
    let named = found.version.as_ref().unwrap_or(&found.asked);
    let change = match step.outcome {
        Outcome::Updated => match (left, service.current()) {
            (Some(left), _) => left_by_rollback(service, left),
            (None, None) => format!("nothing is recorded yet; `{}` is there", found.asked),
            (None, Some(current)) => {
                format!("`{}` names another build than the recorded {}", found.asked, current.tag)
            }
        },
        Outcome::Relabelled => format!("`{}` is {named}", found.asked),
        _ => String::new(),
    };
    let details = if change.is_empty() {
        "built on this host".to_owned()
    } else {
        format!("built on this host; {change}")
    };
    let mut update = ServiceUpdate::of(service, UpdateState::Local, Some(&found), details);
    update.available_version = found.version.as_ref().map(ToString::to_string);
    update.would_change = step.is_change();
    update
}

/// What is known of a release that a rollback left. Several rollbacks in a row leave one time
/// behind, that of the last.
fn left_by_rollback(service: &Service, left: &Release) -> String {
    let current = service.current();
    let has_same_tag = current.is_some_and(|current| current.tag == left.tag);
    let name = told_apart(left, has_same_tag);
    let since = current.zip(service.deployed_at.as_deref());
    let since = since.map_or_else(String::new, |(current, when)| {
        format!("; {} is in force since {when}", told_apart(current, has_same_tag))
    });
    format!(
        "{name} was left by a rollback{since}; `pull-latest` takes {name} again, `update-safe` does \
        not"
    )
}

/// The tag of a release; with its digest too where another has the same tag.
fn told_apart(release: &Release, has_same_tag: bool) -> String {
    if has_same_tag { ReleaseView::from(release).short() } else { release.tag.to_string() }
}

/// What `latest` means for a service.
fn compare(service: &Service, latest: &Latest) -> ServiceUpdate {
    let found = &latest.found;
    let resolution = latest.resolution.as_ref();
    let current = service.current();
    let known = service
        .history
        .entries()
        .iter()
        .find(|entry| entry.bytes.digest.is_some() && entry.bytes.digest == found.bytes.digest);
    let offered = found
        .version
        .as_ref()
        .or_else(|| known.map(|entry| &entry.tag).filter(|tag| !service.is_moving(tag)))
        .unwrap_or(&found.asked);
    let current_tag =
        current.map_or_else(|| "nothing".to_owned(), |current| current.tag.to_string());
    let is_same = current.is_some_and(|current| {
        current.bytes.digest.is_some() && current.bytes.digest == found.bytes.digest
    });
    let rejection = found.bytes.digest.as_ref().and_then(|digest| service.rejection(digest));
    let (state, details) = if service.held {
        let names = if is_same {
            "which is what is recorded".to_owned()
        } else {
            format!("`{}` names {offered}", found.asked)
        };
        (UpdateState::Held, format!("held; {names}"))
    } else if is_same {
        let becomes = found
            .version
            .as_ref()
            .filter(|version| current.is_some_and(|current| current.tag != **version));
        (
            UpdateState::UpToDate,
            match becomes {
                Some(version) => format!("`{}` is {version}", found.asked),
                None if service.follows_release() => STAYS.to_owned(),
                None => String::new(),
            },
        )
    } else if let Some(rejected) = rejection {
        let why = rejected.reason.as_deref().unwrap_or("an update found it bad");
        (
            UpdateState::Rejected,
            format!("{offered} was rejected: {why}; `--retry` takes it all the same"),
        )
    } else if let Some(left) = known.filter(|entry| entry.rolled_back) {
        (UpdateState::Behind, left_by_rollback(service, left))
    } else if current
        .is_some_and(|current| current.tag == *offered && current.bytes.digest.is_some())
    {
        let details = if names_another_index(resolution) {
            // The tag of the version may well be as it was; it is the tracked tag that moved.
            let other = format!("`{}` names another index than the recorded one", found.asked);
            format!("{other}, with the image that {offered} has for this platform")
        } else {
            format!("{offered} has other bytes now")
        };
        (UpdateState::Rebuilt, details)
    } else {
        let is_older = current.is_some_and(|current| version::is_older(offered, &current.tag));
        let older = if is_older {
            format!(": `{}` moved back to an older version", found.asked)
        } else {
            String::new()
        };
        (UpdateState::Update, format!("{current_tag} → {offered}{older}"))
    };
    let relabels = state == UpdateState::UpToDate
        && found
            .version
            .as_ref()
            .is_some_and(|version| current.is_some_and(|current| current.tag != *version));
    let is_told = state == UpdateState::Rebuilt && names_another_index(resolution);
    let remark = resolution.filter(|resolution| resolution.version.is_some() && !is_told);
    let details = match remark.and_then(Resolution::remark) {
        Some(remark) if details.is_empty() => remark,
        Some(remark) => format!("{details} ({remark})"),
        None => details,
    };
    let mut update = ServiceUpdate::of(service, state, Some(found), details);
    update.available_version = (!service.is_moving(offered)).then(|| offered.to_string());
    update.newest =
        resolution.and_then(|resolution| resolution.newest.as_ref()).map(ToString::to_string);
    update.unresolved = resolution.and_then(|resolution| resolution.why_unresolved.clone());
    update.evidence = resolution
        .and_then(|resolution| resolution.version.as_ref())
        .map(|(_, evidence)| word(*evidence));
    update.would_change = relabels
        || matches!(state, UpdateState::Update | UpdateState::Rebuilt | UpdateState::Behind);
    update
}

/// Whether the version is known only because two indexes have one image in common.
fn names_another_index(resolution: Option<&Resolution>) -> bool {
    let version = resolution.and_then(|resolution| resolution.version.as_ref());
    version.is_some_and(|(_, evidence)| *evidence == Evidence::SamePlatformDigest)
}

/// A line for each service: what is recorded, and what there is.
pub(super) fn show(app: &App, report: &Updates) {
    let mut table =
        Table::new(&["SERVICE", "VERSION", "DIGEST", "AVAILABLE", "DIGEST", "NEWEST", "STATE", ""]);
    for one in &report.services {
        let style = match one.state {
            UpdateState::Local if one.would_change => Style::Yellow,
            UpdateState::UpToDate | UpdateState::Local => Style::Green,
            UpdateState::Unknown => Style::Red,
            _ => Style::Yellow,
        };
        table.row([
            Cell::new(&one.name, Style::Bold),
            Cell::plain(one.tag.as_deref().unwrap_or("-")),
            Cell::new(one.digest.as_deref().map_or("-", short_digest), Style::Dim),
            Cell::plain(
                one.available_version.as_deref().or(one.available_tag.as_deref()).unwrap_or("-"),
            ),
            Cell::new(one.available_digest.as_deref().map_or("-", short_digest), Style::Dim),
            Cell::plain(one.newest.as_deref().unwrap_or("-")),
            Cell::new(one.state.word(), style),
            Cell::plain(&one.details),
        ]);
    }
    app.ui.table(&table);
    for one in &report.services {
        if let Some(why) = &one.unresolved {
            app.ui.note(format!("{}: `{}` is unresolved: {why}", one.name, one.track));
        }
    }
}

/// The evidence in the words of `--json`.
fn word(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::SameDigest => "same-digest",
        Evidence::SamePlatformDigest => "same-platform-digest",
        Evidence::EcrPublicApi => "ecr-public-api",
        Evidence::EcrPrivateApi => "ecr-private-api",
    }
}
