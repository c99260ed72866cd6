//! What can go wrong between dkv and a registry.

use std::time::Duration;

use reqwest::StatusCode;

use crate::error::Kind;
use crate::model::reference::Digest;

/// The result of a registry operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed registry operation. All of them exit 5; callers tell them apart to decide what to try
/// next.
///
/// Text that a registry supplied is already stripped of control characters and shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry or its token server wants a login, or another one.
    #[error("{host} refuses access to {repository}: {detail}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository as the user wrote it.
        repository: String,
        /// What the registry said.
        detail: String,
    },
    /// The registry has no such repository, tag or digest.
    #[error("{host} has no {reference}")]
    NotFound {
        /// The registry.
        host: String,
        /// The image in the user's spelling.
        reference: String,
    },
    /// Too many requests, and waiting longer does not fit into the time allowed.
    #[error("{host} limits the rate of requests{}", retry_after.map_or_else(
        String::new,
        |wait| format!("; it asks to wait {} s", wait.as_secs())
    ))]
    RateLimited {
        /// The host that said so.
        host: String,
        /// How long it asks to wait, if it said.
        retry_after: Option<Duration>,
    },
    /// No usable answer: name lookup, connection, timeout, reset, truncated answer.
    #[error("cannot reach {host}: {detail}")]
    Unreachable {
        /// The host.
        host: String,
        /// What happened.
        detail: String,
    },
    /// It has taken all the time that a run gives it.
    #[error("{host} has taken its {seconds} s and is not done")]
    OutOfTime {
        /// The host.
        host: String,
        /// That time.
        seconds: u64,
    },
    /// The server's certificate is not trusted, or TLS failed otherwise.
    #[error("no trusted connection to {host}: {detail}")]
    Tls {
        /// The host.
        host: String,
        /// What happened.
        detail: String,
    },
    /// The content is not what its digest promises.
    #[error("{host} served wrong content for {reference}: expected {expected}, got {actual}")]
    WrongDigest {
        /// The registry.
        host: String,
        /// The image in the user's spelling.
        reference: String,
        /// The digest asked for or announced.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// An answer is larger than anything sensible.
    #[error("{host} sends more than {limit} bytes for {reference}")]
    TooLarge {
        /// The host.
        host: String,
        /// What was asked for.
        reference: String,
        /// The cap in bytes.
        limit: usize,
    },
    /// An answer that breaks the protocol or asks for something unsafe.
    #[error("{host} gives an unusable answer for {reference}: {detail}")]
    Malformed {
        /// The host.
        host: String,
        /// What was asked for.
        reference: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// Any other failure that the server reports.
    #[error("{host} answers {status} for \
        {reference}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        reference: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the server said, possibly nothing.
        detail: String,
        /// How long it asks to wait, if it said.
        retry_after: Option<Duration>,
    },
}

impl Error {
    /// Whether asking the same host once more is of no use in this run.
    #[must_use]
    pub(super) fn is_of_host(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::OutOfTime { .. } | Self::Tls { .. })
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unauthorized { host, .. } => format!(
                "check the image name, and log in with `docker login {host}` if the image is \
                    private or the login has expired"
            ),
            Self::NotFound { .. } => "check the image name and the tag; tags can be deleted from \
                a registry"
                .to_owned(),
            Self::RateLimited { retry_after: Some(wait), .. } => {
                format!(
                    "try again in {} s, or log in: registries allow more to known users",
                    wait.as_secs().max(1)
                )
            }
            Self::RateLimited { .. } => "try again later, or log in: registries allow more to \
                known users"
                .to_owned(),
            Self::Unreachable { .. } => {
                "check the network, the registry's name and the proxy settings, then try again"
                    .to_owned()
            }
            Self::OutOfTime { .. } => "try again later, or give registries more time with \
                --registry-timeout"
                .to_owned(),
            Self::Tls { host, .. } => format!(
                "install the registry's CA certificate in the system store or as \
                    /etc/docker/certs.d/{host}/ca.crt, or name it in SSL_CERT_FILE"
            ),
            Self::WrongDigest { .. } => {
                "do not use this image; tell the registry's operator, or look for a broken proxy \
                    or cache"
                    .to_owned()
            }
            Self::TooLarge { .. } | Self::Malformed { .. } => {
                "check that the name belongs to a container registry; a proxy or a login page may \
                    be answering in its place"
                    .to_owned()
            }
            Self::Status { retry_after: Some(wait), .. } => {
                format!("try again in {} s", wait.as_secs().max(1))
            }
            Self::Status { status, .. } if status.is_server_error() => "the registry has a \
                problem; try again later"
                .to_owned(),
            Self::Status { .. } => "check the image name".to_owned(),
        }
    }
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let is_unanswered = matches!(
            error,
            Error::Unreachable { .. }
                | Error::OutOfTime { .. }
                | Error::Tls { .. }
                | Error::Unauthorized { .. }
        );
        let told = Self::new(Kind::Registry, error.to_string()).with_hint(error.hint());
        if is_unanswered { told.unanswered() } else { told }
    }
}

/// The most characters of a registry's own words that a message shows.
const SHOWN_CHARACTERS: usize = 300;

/// Text from the network made fit for a message: one line, no control characters, at most 300
/// characters.
pub(super) fn printable(text: &str) -> String {
    let words = text.split(|c: char| {
        // Bidirectional overrides and zero-width characters could disguise the text around them.
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    });
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut shown: String = line.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    shown
}

/// What the body of a failed answer says: the errors of the distribution specification ("CODE:
/// message"), else the text itself unless it is a web page.
pub(super) fn message_in(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else {
        return if text.trim_start().starts_with('<') { String::new() } else { printable(&text) };
    };
    let listed = json["errors"].as_array().into_iter().flatten().map(|error| {
        let parts = [&error["code"], &error["message"]];
        parts.into_iter().filter_map(|part| part.as_str()).collect::<Vec<_>>().join(": ")
    });
    let mut said: Vec<String> = listed.filter(|text| !text.is_empty()).collect();
    if said.is_empty() {
        // Token servers are freer: `details`, `message`, or OAuth's `error_description`.
        said.extend(
            ["details", "message", "error_description", "error"]
                .iter()
                .find_map(|key| json[key].as_str().map(str::to_owned)),
        );
    }
    printable(&said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_registries_cannot_reach_the_terminal_raw() {
        assert_eq!(printable("a\u{1b}[31mred\r\nb\u{202e}c\0"), "a [31mred b c");
        assert_eq!(printable(&"é".repeat(400)).chars().count(), 301);
        assert_eq!(message_in(b"<html>login"), "");
        assert_eq!(
            message_in(b"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[0m\"},{\"code\":\"X\"}]}"),
            "DENIED: no [0m; X"
        );
        assert_eq!(
            message_in(b"{\"details\":\"incorrect username or password\"}"),
            "incorrect username or password"
        );
        assert_eq!(message_in(b"{\"errors\":null}"), "");
    }

    #[test]
    fn every_error_exits_5_with_a_hint() {
        let error =
            Error::NotFound { host: "r.example".to_owned(), reference: "r.example/a:1".to_owned() };
        let chain = anyhow::Error::from(crate::error::Error::from(error)).context("service a");
        assert_eq!(crate::error::kind(&chain), Kind::Registry);
        assert_eq!(
            crate::error::find(&chain).unwrap().to_string(),
            "r.example has no r.example/a:1"
        );
        assert!(crate::error::find(&chain).unwrap().hint().unwrap().contains("tag"));
    }
}
