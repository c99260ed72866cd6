//! What a failed request means: which daemon it was, what it said, and what the operator can do.

use std::io;
use std::time::Duration;

use bollard::errors::Error as ClientError;

use super::endpoint::{Address, ApiVersion, ChosenBy, Endpoint, OLDEST};
use super::transport::NEWEST;
use crate::error::{self, Error};

/// As much of a foreign text as goes into a message.
const LONGEST_TEXT: usize = 500;

/// A foreign text without control characters (a terminal would obey them), on one line, cut to a
/// length that fits a message.
pub(super) fn display_safe(text: &str) -> String {
    let mut safe: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .take(LONGEST_TEXT)
        .collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        safe.push('…');
    }
    safe
}

/// The characters that reorder or hide others (Unicode's bidirectional and zero-width controls).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A connection that never stood, as opposed to one that broke.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Unreachable(pub(super) io::Error);

/// The HTTP status with which the daemon refused.
pub(super) fn status(error: &ClientError) -> Option<u16> {
    match error {
        ClientError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the daemon knows no such thing.
pub(super) fn is_not_found(error: &ClientError) -> bool {
    status(error) == Some(404)
}

/// The error for a failed request; `what` completes "the daemon could not …".
pub(super) fn explain(
    endpoint: &Endpoint,
    what: &str,
    failure: &ClientError,
    patience: Duration,
) -> Error {
    match failure {
        ClientError::RequestTimeoutError => silent(endpoint, patience),
        // Every daemon says why; a proxy, or another server at the same address, may not.
        ClientError::DockerResponseServerError { status_code, message }
            if message.trim().is_empty() =>
        {
            let message = format!(
                "what answers at {endpoint} did not {what}: HTTP status {status_code}, without a \
                    reason"
            );
            error::docker(message)
                .with_hint(format!("no Docker daemon says so little; {}", correction(endpoint)))
        }
        ClientError::DockerResponseServerError { message, .. }
        | ClientError::DockerStreamError { error: message } => {
            let error = error::docker(format!(
                "the daemon at {endpoint} could not {what}: {}",
                display_safe(message)
            ));
            match version_hint(endpoint, message) {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        }
        ClientError::IOError { err }
            if err.get_ref().is_some_and(|inner| inner.is::<Unreachable>()) =>
        {
            unreachable(endpoint, err)
        }
        other => {
            let reason = display_safe(&root_cause(other));
            let hint = match &endpoint.target {
                target @ Address::Ssh { .. } => {
                    format!(
                        "check that `{} docker version` works without asking for a password",
                        ssh_command(target)
                    )
                }
                Address::Tcp { .. } => {
                    format!("see whether it is a Docker daemon, and runs; {}", correction(endpoint))
                }
                Address::Unix(_) => {
                    "see whether it is running and what it logged: `systemctl status docker`, \
                        `journalctl -u docker`"
                        .to_owned()
                }
            };
            error::docker(format!(
                "the daemon at {endpoint} broke off when asked to {what}: {reason}"
            ))
            .with_hint(hint)
        }
    }
}

/// What can be done about a daemon that refuses the API version which it is spoken to in.
fn version_hint(endpoint: &Endpoint, message: &str) -> Option<String> {
    let is_too_old = message.contains("too old");
    match endpoint.api_version {
        _ if !message.contains("client version") => None,
        Some(version) => Some(format!(
            "DOCKER_API_VERSION asks for {version}; unset it or {} it",
            if is_too_old { "raise" } else { "lower" }
        )),
        None => is_too_old.then(|| {
            format!("this dkv speaks {NEWEST} at most: a newer dkv can talk to this daemon")
        }),
    }
}

/// The error for a daemon whose newest API version is older than what is needed.
pub(super) fn too_old(endpoint: &Endpoint, theirs: ApiVersion) -> Error {
    error::docker(format!(
        "the daemon at {endpoint} speaks API version {theirs} at most, and dkv needs {OLDEST} or \
        newer"
    ))
    .with_hint("update Docker to 19.03 or newer")
}

/// The error for a daemon that accepts requests and does not answer them.
pub(super) fn silent(endpoint: &Endpoint, patience: Duration) -> Error {
    error::docker(format!(
        "the daemon at {endpoint} has not answered for {} s",
        patience.as_secs_f64().ceil()
    ))
    .with_hint(
        "it hangs or is overloaded: see `systemctl status docker` and `journalctl -u docker`",
    )
}

/// The error for a daemon that cannot be reached; the hint depends on why, and on who named it.
fn unreachable(endpoint: &Endpoint, failure: &io::Error) -> Error {
    let message = format!(
        "cannot reach the Docker daemon at {endpoint}: {}",
        display_safe(&failure.to_string())
    );
    let hint = match (&endpoint.target, &endpoint.source) {
        (Address::Unix(path), _) if failure.kind() == io::ErrorKind::PermissionDenied => format!(
            "your user may not use {0}: join the group that owns it (`sudo usermod -aG docker \
            $USER`, then log in again), or run dkv with sudo",
            path.display()
        ),
        _ => correction(endpoint),
    };
    error::docker(message).with_hint(hint)
}

/// What can be done about a daemon that is not there, by who named it.
fn correction(endpoint: &Endpoint) -> String {
    match &endpoint.source {
        ChosenBy::Default => {
            "the daemon is not running: start it with `sudo systemctl start docker`".to_owned()
        }
        ChosenBy::HostVariable => {
            format!(
                "DOCKER_HOST is set to {endpoint}: correct it, unset it, or start the daemon that \
                    it names"
            )
        }
        source => format!(
            "{source} names {endpoint}: start that daemon, or choose another context (`docker \
            context ls`, `docker context use`)"
        ),
    }
}

/// The `ssh` that leads to the daemon, as one would type it.
fn ssh_command(target: &Address) -> String {
    let Address::Ssh { user, host, port, .. } = target else { return String::new() };
    let port = port.map_or_else(String::new, |port| format!("-p {port} "));
    let user = user.as_deref().map_or_else(String::new, |user| format!("{}@", display_safe(user)));
    format!("ssh {port}{user}{host}")
}

/// The innermost cause of a failure, which is the one that says something.
pub(super) fn root_cause(failure: &ClientError) -> String {
    let mut cause: &dyn std::error::Error = failure;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
