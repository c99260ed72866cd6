//! A judgement in words: what an operator needs to know about a container that is not good.

use super::{Cause, Chain, Judged, Verdict, Waiting};
use crate::compose::config::Condition;
use crate::docker::{ContainerDetail, HealthProbe, HealthStatus};

/// The judgement in lines without indentation: the first says which service and what is wrong, the
/// others the facts that help to find out why.
#[must_use]
pub fn explain(judged: &Judged) -> Vec<String> {
    let name = match &judged.container {
        Some(container) => format!("{} ({})", judged.service, container.name),
        None => judged.service.clone(),
    };
    let mut lines = vec![format!("{name}: {}", describe(&judged.verdict))];
    if matches!(judged.verdict, Verdict::Pending(_) | Verdict::Failed(_)) {
        lines.extend(judged.container.as_ref().and_then(facts));
    }
    if !judged.log.is_empty() {
        lines.push("last log lines:".to_owned());
        lines.extend(judged.log.iter().map(|line| format!("  {line}")));
    }
    lines
}

/// Restarts and kills, as far as there were any.
fn facts(container: &ContainerDetail) -> Option<String> {
    let mut facts = Vec::new();
    if container.restart_count > 0 {
        facts.push(format!("restarts: {}", container.restart_count));
    }
    if container.oom_killed {
        facts.push("killed for its memory use: yes".to_owned());
    }
    if let Some(health) = container.health.as_ref().filter(|health| health.failing_streak > 0) {
        facts.push(format!("health check failures in a row: {}", health.failing_streak));
        if health.status == HealthStatus::Unhealthy {
            facts.push("past its start period and retries".to_owned());
        }
    }
    (!facts.is_empty()).then(|| facts.join(", "))
}

/// The judgement in one phrase, to follow a name and a colon.
#[must_use]
pub fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Healthy => "healthy".to_owned(),
        Verdict::Unchecked => "running (unchecked: it has no health check)".to_owned(),
        Verdict::Completed => "completed".to_owned(),
        Verdict::Pending(waiting) => pending(waiting),
        Verdict::Failed(cause) => failed(cause),
    }
}

fn pending(waiting: &Waiting) -> String {
    match waiting {
        Waiting::Starting(last) => {
            with_probe("starting: its health check has not passed yet", last.as_ref())
        }
        Waiting::Unhealthy(last) => with_probe("unhealthy", last.as_ref()),
        Waiting::Stabilising { .. } => "running, not yet for long enough".to_owned(),
        Waiting::Flapping { setbacks, .. } => {
            format!(
                "good again after {}, not yet for long enough",
                times("setback", i64::from(*setbacks))
            )
        }
        Waiting::Completing => "has not finished yet".to_owned(),
        Waiting::Restarting { restarts, code } => {
            let last = code.map_or_else(
                || "has just started again".to_owned(),
                |code| exited(code) + ", about to be restarted",
            );
            format!("{last} ({} so far)", times("restart", *restarts))
        }
        Waiting::NotStarted => "not started yet".to_owned(),
        Waiting::Blocked(chain) => blocked("not started yet", chain),
        Waiting::State(state) => state.to_string(),
        Waiting::Missing => "has no container yet".to_owned(),
    }
}

fn failed(cause: &Cause) -> String {
    match cause {
        Cause::Exited { code: 0 } => format!("{}, although it should keep running", exited(0)),
        Cause::Exited { code } => exited(*code),
        Cause::RestartLoop { restarts, code } => {
            let last = code.map_or_else(
                || "it has just started again".to_owned(),
                |code| format!("last it {}", exited(code)),
            );
            format!("keeps restarting ({} so far): {last}", times("restart", *restarts))
        }
        Cause::OutOfMemory { restarts: 0 } => "was killed because it ran out of memory".to_owned(),
        Cause::OutOfMemory { restarts } => {
            format!(
                "was killed because it ran out of memory, and restarted {} so far",
                times("time", *restarts)
            )
        }
        Cause::CannotStart { error } => format!("could not be started: {error}"),
        Cause::Unhealthy(last) => with_probe("unhealthy", last.as_ref()),
        Cause::NeverHealthy(last) => {
            with_probe("its health check did not pass in time", last.as_ref())
        }
        Cause::Flapping { setbacks } => {
            format!("unstable: stopped being good {}", times("time", i64::from(*setbacks)))
        }
        Cause::NotCompleted => "did not finish in time".to_owned(),
        Cause::NeverStarted(chain) => blocked("never started", chain),
        Cause::Stuck(state) => format!("stuck in the state {state}"),
        Cause::Missing => "has no container".to_owned(),
    }
}

fn with_probe(phrase: &str, last: Option<&HealthProbe>) -> String {
    match last {
        Some(probe) if probe.exit_code == 0 => phrase.to_owned(),
        Some(probe) if probe.output.is_empty() => {
            format!("{phrase}: its health check exits with {} and prints nothing", probe.exit_code)
        }
        Some(probe) => {
            format!("{phrase}: its health check exits with {}: {}", probe.exit_code, probe.output)
        }
        None => phrase.to_owned(),
    }
}

/// `exited with code 137 (killed)`: the shells' and the daemon's conventions for codes above 124.
fn exited(code: i64) -> String {
    let meaning = match code {
        125 => " (the daemon could not run it)",
        126 => " (its command cannot be executed)",
        127 => " (its command was not found)",
        134 => " (aborted)",
        137 => " (killed)",
        139 => " (segmentation fault)",
        143 => " (terminated)",
        _ => "",
    };
    format!("exited with code {code}{meaning}")
}

fn blocked(phrase: &str, chain: &Chain) -> String {
    let mut parts: Vec<String> = chain
        .links
        .iter()
        .map(|link| {
            let condition = match link.condition {
                Condition::Started => "started",
                Condition::Healthy => "healthy",
                Condition::CompletedSuccessfully => "completed",
            };
            format!("{} waits for {} ({condition})", link.service, link.waits_for)
        })
        .collect();
    if let (Some(service), Some(culprit)) = (chain.culprit_service(), &chain.culprit) {
        parts.push(format!("{service}{}{}", joint(culprit), describe(culprit)));
    }
    if parts.is_empty() { phrase.to_owned() } else { format!("{phrase}: {}", parts.join(", ")) }
}

/// What stands between a name and [`describe`] in a sentence.
fn joint(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Failed(Cause::NeverHealthy(_)) => ": ",
        Verdict::Failed(Cause::Unhealthy(_) | Cause::Flapping { .. } | Cause::Stuck(_))
        | Verdict::Pending(
            Waiting::Starting(_)
            | Waiting::Unhealthy(_)
            | Waiting::Stabilising { .. }
            | Waiting::State(_),
        )
        | Verdict::Healthy
        | Verdict::Unchecked => " is ",
        _ => " ",
    }
}

fn times(noun: &str, count: i64) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
