//! The errors that callers act on: what kind of failure it was, and what to do next.
//!
//! Everything else travels as [`anyhow::Error`] with context. [`exit_code`] finds the first error
//! in a chain that knows its kind; a chain without one is unexpected.

use std::fmt;

/// What went wrong, as the exit code tells it (the table is `--help`'s and the README's too).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A failure that nobody planned for.
    Unexpected,
    /// Flags, an unknown service, a malformed tag, an unanswered prompt.
    Usage,
    /// The manifest, `versions.env`, the disk, an unfinished update.
    State,
    /// Another dkv holds the lock.
    Locked,
    /// A registry is unreachable, refuses, or has no such tag.
    Registry,
    /// The Docker daemon or Compose.
    Docker,
    /// An update failed; the previous versions are restored and healthy.
    Restored,
    /// An update failed and so did the restore.
    RestoreFailed,
    /// Some services are done, others failed.
    Partial,
    /// Updates are available and somebody asked, or there is drift.
    Different,
    /// Interrupted by a signal.
    Interrupted,
}

impl Kind {
    /// The process exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::State => 3,
            Self::Locked => 4,
            Self::Registry => 5,
            Self::Docker => 6,
            Self::Restored => 7,
            Self::RestoreFailed => 8,
            Self::Partial => 9,
            Self::Different => 10,
            Self::Interrupted => 130,
        }
    }
}

/// A failure whose kind decides the exit code, with the next step for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    detail: Detail,
}

/// What callers tell apart within a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    None,
    /// Nobody answered, as opposed to an answer that says no.
    Unanswered,
    /// A file is not there, as opposed to one that cannot be looked at.
    Missing,
}

impl Error {
    /// An error of `kind`; `message` names what failed and on which file, service or host.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, detail: Detail::None }
    }

    /// Adds what the operator can do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that nobody answered, as opposed to an answer that says no.
    #[must_use]
    pub fn unanswered(self) -> Self {
        Self { detail: Detail::Unanswered, ..self }
    }

    /// Says that a file is not there, as opposed to one that cannot be looked at.
    #[must_use]
    pub fn missing(self) -> Self {
        Self { detail: Detail::Missing, ..self }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the operator can do next, if anything is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Whether nobody answered, as opposed to an answer that says no.
pub fn is_unanswered(error: &anyhow::Error) -> bool {
    let mut own = error.chain().filter_map(|cause| cause.downcast_ref::<Error>());
    own.any(|own| own.detail == Detail::Unanswered)
}

/// Whether a file is not there, as opposed to one that cannot be looked at.
pub fn is_missing(error: &anyhow::Error) -> bool {
    find(error).is_some_and(|own| own.detail == Detail::Missing)
}

/// A usage error (exit 2).
pub fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message)
}

/// A state error (exit 3).
pub fn state(message: impl Into<String>) -> Error {
    Error::new(Kind::State, message)
}

/// A registry error (exit 5).
pub fn registry(message: impl Into<String>) -> Error {
    Error::new(Kind::Registry, message)
}

/// A Docker or Compose error (exit 6).
pub fn docker(message: impl Into<String>) -> Error {
    Error::new(Kind::Docker, message)
}

/// The first error of `chain` that knows its kind.
#[must_use]
pub fn find(chain: &anyhow::Error) -> Option<&Error> {
    chain.chain().find_map(|error| error.downcast_ref::<Error>())
}

/// The kind that decides the exit code of `chain`.
#[must_use]
pub fn kind(chain: &anyhow::Error) -> Kind {
    find(chain).map_or(Kind::Unexpected, Error::kind)
}

/// The failures of several services as one, with the kind of the first; none if there are none.
/// `total` is how many services there were, `consequence` what the failure means for all of them.
///
/// # Errors
///
/// As said.
pub fn together(
    mut failures: Vec<anyhow::Error>,
    total: usize,
    consequence: &str,
) -> anyhow::Result<()> {
    if failures.len() <= 1 {
        let Some(only) = failures.pop() else { return Ok(()) };
        let hint = match find(&only).and_then(Error::hint) {
            Some(hint) => format!("{hint}; {consequence}"),
            None => consequence.to_owned(),
        };
        return Err(Error::new(kind(&only), format!("{only:#}")).with_hint(hint).into());
    }
    let lines: Vec<String> = failures.iter().map(|failure| format!("\n  {failure:#}")).collect();
    let mut hints: Vec<&str> =
        failures.iter().filter_map(|failure| find(failure)?.hint()).collect();
    hints.sort_unstable();
    hints.dedup();
    hints.push(consequence);
    let message = format!("{} of {total} services failed:{}", failures.len(), lines.concat());
    Err(Error::new(kind(&failures[0]), message).with_hint(hints.join("; ")).into())
}
