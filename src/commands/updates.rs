//! `check-updates` and `resolve-tags`: what registries say about the recorded versions.

use anyhow::Result;
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::error;
use crate::lookup::{self, Latest};
use crate::model::history::Release;
use crate::model::manifest::{DEFAULT_TRACK, Service, Source};
use crate::model::reference::{ServiceName, Tag};
use crate::model::version;
use crate::plan::{self, Found, Outcome, Step};
use crate::registry::resolve::{Evidence, Resolution};
use crate::report::{
    Changes, ReleaseView, ServiceChange, ServiceUpdate, UpdateState, Updates, short_digest,
};
use crate::ui::{Cell, Style, Table};

/// How many services are looked up at once.
const SERVICES_AT_ONCE: usize = 16;

/// `dkv check-updates [SERVICE…]`: what `pull-latest` would change, without pulling. Exit 9 if some
/// services are unknown, 5 if all are; else 10 with `exit_code` if there is something to change.
///
/// # Errors
///
/// No manifest (exit 3), an unknown service (exit 2).
pub async fn check_updates(app: &App, names: &[ServiceName], exit_code: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let report = look_up(app, &deployment, &app.select(&deployment, names)?).await;
    let unknown = report.services.iter().filter(|one| one.state == UpdateState::Unknown).count();
    app.show(&report, |report| show(app, report))?;
    if unknown > 0 && unknown == report.services.len() {
        app.ui.error(&nothing_known().into());
        return Ok(Exit::Unknown);
    }
    if unknown > 0 {
        return Ok(Exit::Partial);
    }
    let available = report.services.iter().any(|one| one.would_change);
    Ok(if exit_code && available { Exit::Different } else { Exit::Done })
}

fn nothing_known() -> error::Error {
    error::registry("nothing could be found out about any service")
        .with_hint("the report says why; check the network and `docker login`")
}

/// What `pull-latest` would change of `services`; those that cannot be looked up are unknown.
pub(super) async fn look_up(app: &App, deployment: &Deployment, services: &[&Service]) -> Updates {
    let lookup = app.lookup(deployment, None);
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
                let mut update = judge(service, &latest);
                // For `latest` itself, which hardly ever lags behind, a list of tags is not worth
                // asking for.
                if update.newest.is_none() && service.track_name() != DEFAULT_TRACK {
                    update.newest = lookup.newest(service).await.map(|tag| tag.to_string());
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
    let local = |found: Option<&Found>, details: String| {
        ServiceUpdate::of(service, UpdateState::Local, found, details)
    };
    if service.held {
        return local(None, "built on this host; held".to_owned());
    }
    let found = match docker {
        Err(why) => Err(why.clone()),
        Ok(docker) => match lookup::track(service) {
            Ok(track) => {
                lookup::local(docker, service, &track).await.map_err(|error| format!("{error:#}"))
            }
            Err(error) => Err(format!("{error:#}")),
        },
    };
    match found {
        Ok(found) => judge_local(service, found, &app.stamp()),
        Err(why) => local(
            None,
            format!("built on this host; what its tag names now could not be found out: {why}"),
        ),
    }
}

/// What the image that a local build's tag names now means for its record.
fn judge_local(service: &Service, found: Found, stamp: &plan::Stamp) -> ServiceUpdate {
    let step = plan::advance(service, found.clone(), &plan::Intent::Latest, stamp);
    let left = service
        .history
        .entries()
        .iter()
        .find(|entry| entry.rolled_back && entry.image_id == found.image_id);
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
    let name = |release: &Release| match current.is_some_and(|current| current.tag == left.tag) {
        true => ReleaseView::from(release).short(),
        false => release.tag.to_string(),
    };
    let since = current.zip(service.deployed_at.as_deref());
    let since = since.map_or_else(String::new, |(current, when)| {
        format!("; {} is in force since {when}", name(current))
    });
    format!("{0} was left by a rollback{since}; `pull-latest` takes {0} again", name(left))
}

/// What `latest` means for a service.
fn judge(service: &Service, latest: &Latest) -> ServiceUpdate {
    let found = &latest.found;
    let resolution = latest.resolution.as_ref();
    let current = service.current();
    let known = service
        .history
        .entries()
        .iter()
        .find(|entry| entry.digest.is_some() && entry.digest == found.digest);
    let offered = found
        .version
        .as_ref()
        .or_else(|| known.map(|entry| &entry.tag).filter(|tag| !service.is_moving(tag)))
        .unwrap_or(&found.asked);
    let current_tag =
        current.map_or_else(|| "nothing".to_owned(), |current| current.tag.to_string());
    let is_same =
        current.is_some_and(|current| current.digest.is_some() && current.digest == found.digest);
    let rejection = found.digest.as_ref().and_then(|digest| service.rejection(digest));
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
            becomes.map_or_else(String::new, |version| format!("`{}` is {version}", found.asked)),
        )
    } else if let Some(rejected) = rejection {
        let why = rejected.reason.as_deref().unwrap_or("an update found it bad");
        (
            UpdateState::Rejected,
            format!("{offered} was rejected: {why}; `--retry` takes it all the same"),
        )
    } else if let Some(left) = known.filter(|entry| entry.rolled_back) {
        (UpdateState::Behind, left_by_rollback(service, left))
    } else if current.is_some_and(|current| current.tag == *offered && current.digest.is_some()) {
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
    let relabels = state == UpdateState::UpToDate && !details.is_empty();
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
        let digest =
            |digest: &Option<String>| digest.as_deref().map_or("-", short_digest).to_owned();
        table.row([
            Cell::new(&one.name, Style::Bold),
            Cell::plain(one.tag.as_deref().unwrap_or("-")),
            Cell::new(digest(&one.digest), Style::Dim),
            Cell::plain(
                one.available_version.as_deref().or(one.available_tag.as_deref()).unwrap_or("-"),
            ),
            Cell::new(digest(&one.available_digest), Style::Dim),
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

/// `dkv resolve-tags [SERVICE…]`: moving tags in the manifest become the versions that name the
/// same bytes; what no version names stays as it is.
///
/// # Errors
///
/// No manifest (exit 3), or the record cannot be written (exit 3 or 4). Registries that cannot be
/// asked make it exit 9, or 5 if nothing at all could be found out.
pub async fn resolve_tags(app: &App, names: &[ServiceName], dry_run: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let services = app.select(&deployment, names)?;
    if !dry_run {
        deployment.check_writable(&app.store)?;
    }
    let moving: Vec<&Service> = services
        .iter()
        .copied()
        .filter(|service| {
            service.current().is_some_and(|current| is_followed(service, &current.tag))
        })
        .collect();
    let lookup = app.lookup(&deployment, None);
    lookup.expect(&moving).await;
    let resolutions = moving.iter().map(|service| resolve_one(app, &lookup, service));
    let mut resolved: std::collections::BTreeMap<ServiceName, Resolved> =
        futures_util::stream::iter(resolutions)
            .buffered(SERVICES_AT_ONCE)
            .map(|one| (one.name.clone(), one))
            .collect()
            .await;
    let mut report = Changes { dry_run, ..Changes::default() };
    let mut steps = Vec::new();
    let mut failures = 0;
    for service in services {
        let Some(one) = resolved.remove(&service.name) else {
            let mut change = ServiceChange::of(&Step::unchanged(service));
            change.notes.push("a version already".to_owned());
            report.services.push(change);
            continue;
        };
        let mut change = ServiceChange::of(&one.step);
        if one.is_failure {
            failures += 1;
            change.outcome = Outcome::Failed;
            change.error = Some(one.note.clone());
        }
        change.notes.push(one.note);
        report.services.push(change);
        steps.push(one.step);
    }
    if !dry_run {
        report.files = app.commit(&deployment, &steps)?;
    }
    app.show(&report, |report| {
        for change in &report.services {
            let tag = |view: &Option<ReleaseView>| {
                view.as_ref().map_or("nothing", |view| view.tag.as_str()).to_owned()
            };
            match change.outcome {
                Outcome::Relabelled => {
                    app.ui.data(format!(
                        "{}: {} → {} ({})",
                        change.name,
                        tag(&change.from),
                        tag(&change.to),
                        change.notes.join("; ")
                    ));
                }
                _ => app.ui.data(format!(
                    "{}: {} ({})",
                    change.name,
                    tag(&change.to),
                    change.notes.join("; ")
                )),
            }
        }
        let renamed = report.services.iter().filter(|change| change.outcome == Outcome::Relabelled);
        let renamed: Vec<&str> = renamed.map(|change| change.name.as_str()).collect();
        if !renamed.is_empty() {
            // Compose compares the whole image text, tag included.
            app.ui.note(format!(
                "the next `dkv up` makes new containers of {}, from the same bytes",
                renamed.join(", ")
            ));
        }
    })?;
    match failures {
        0 => Ok(Exit::Done),
        _ if failures < moving.len() => Ok(Exit::Partial),
        _ => {
            app.ui.error(&nothing_known().into());
            Ok(Exit::Unknown)
        }
    }
}

/// Whether `tag` is what the service follows: a word that moves, or a line such as `1-bookworm`.
fn is_followed(service: &Service, tag: &Tag) -> bool {
    service.is_moving(tag) || tag.as_str() == service.track_name()
}

/// What became of one moving tag.
struct Resolved {
    name: ServiceName,
    step: Step,
    note: String,
    /// Whether the registry could not be asked.
    is_failure: bool,
}

async fn resolve_one(app: &App, lookup: &lookup::Lookup, service: &Service) -> Resolved {
    let unresolved = |why: String| Resolved {
        name: service.name.clone(),
        step: Step::unchanged(service),
        note: format!("unresolved: {why}"),
        is_failure: false,
    };
    let known = match known_release(app, service).await {
        Ok(known) => known,
        Err(why) => return unresolved(why),
    };
    let Some(current) = known.current() else {
        return unresolved("nothing is recorded".to_owned());
    };
    let asked = current.tag.clone();
    let mut found = Found {
        asked,
        version: None,
        digest: current.digest.clone(),
        platform_digest: current.platform_digest.clone(),
        image_id: current.image_id.clone(),
    };
    let note = if service.source == Source::Local {
        match app.docker().await {
            Ok(docker) => match lookup::local(docker, service, &found.asked).await {
                Ok(local) if local.image_id == found.image_id => found.version = local.version,
                Ok(_) => return unresolved("the tag names another build now".to_owned()),
                Err(error) => return unresolved(format!("{error:#}")),
            },
            Err(error) => return unresolved(format!("{error:#}")),
        }
        "the same build".to_owned()
    } else {
        let Some(resolution) = lookup.version_of(service, &found, None).await else {
            return unresolved("no digest is recorded, so nothing can be compared".to_owned());
        };
        let note = resolution.in_words();
        let Some((version, _)) = resolution.version else {
            let is_failure = resolution.is_failure;
            return Resolved {
                name: service.name.clone(),
                step: Step::unchanged(service),
                note,
                is_failure,
            };
        };
        found.version = Some(version);
        note
    };
    if found.version.is_none() {
        return unresolved("no version tag names this build".to_owned());
    }
    let mut step = plan::advance(&known, found, &plan::Intent::Latest, &app.stamp());
    step.before = service.clone();
    // The same bytes under their proper name: whoever set a version by hand still did.
    step.after.custom.clone_from(&service.custom);
    Resolved { name: service.name.clone(), step, note, is_failure: false }
}

/// The service with a digest for its current release, if the daemon can tell it.
async fn known_release(app: &App, service: &Service) -> Result<Service, String> {
    let lacks_digest = service.current().is_none_or(|current| current.digest.is_none());
    if service.source == Source::Local || !lacks_digest {
        return Ok(service.clone());
    }
    let learned = async { lookup::with_known_digest(app.docker().await?, service).await };
    learned
        .await
        .map_err(|error| format!("no digest is recorded, and the daemon cannot tell it: {error:#}"))
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

/// `dkv ecr-login`: checks that login to the private registry works, and until when.
///
/// # Errors
///
/// AWS refuses or cannot be reached (exit 5); `docker login` fails (exit 6).
pub async fn ecr_login(app: &App, docker: bool) -> Result<Exit> {
    let deployment = app.require_manifest()?;
    let ecr = deployment.manifest.ecr.as_ref().filter(|ecr| ecr.is_private());
    let Some(ecr) = ecr else {
        app.show(&crate::report::EcrLogin::default(), |_| {
            app.ui.data("The manifest uses public ECR, which needs no login");
        })?;
        return Ok(Exit::Done);
    };
    let host = ecr.private_registry.split('/').next().unwrap_or_default();
    let private = crate::registry::ecr_private::PrivateRegistry::new(host, &ecr.private_region);
    let granted = private.login().await?;
    if docker {
        docker_login(host, &granted.credentials).await?;
    }
    let expires_at =
        granted.expires_at.map(|end| end.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    let report = crate::report::EcrLogin { registry: Some(host.to_owned()), expires_at, docker };
    app.show(&report, |report| {
        let until =
            report.expires_at.as_deref().map_or_else(String::new, |end| format!(", until {end}"));
        app.ui.data(format!("Login to {host} works{until}"));
        if docker {
            app.ui.status("The Docker command line is logged in as well");
        }
    })?;
    Ok(Exit::Done)
}

/// Logs the Docker command line in; the password goes through its standard input.
async fn docker_login(host: &str, credentials: &crate::registry::Credentials) -> Result<()> {
    use std::process::Stdio;
    use tokio::io::AsyncWriteExt as _;

    let crate::registry::Login::Password { username, password } = &credentials.login else {
        return Err(error::registry(format!("AWS gave no password for {host}")).into());
    };
    let failed = |why: String| error::docker(format!("`docker login {host}` failed: {why}"));
    let mut child = tokio::process::Command::new("docker")
        .args(["login", "--username", username, "--password-stdin", host])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            failed(error.to_string()).with_hint("--docker needs the docker command")
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(password.expose().as_bytes())
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    // A credential store that fails has its output told by `docker login`, and the login was its
    // input.
    Err(failed(credentials.redact(String::from_utf8_lossy(&output.stderr).trim())).into())
}
