//! Many logs, each in order, as one in order.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _, stream};

/// A line as it was written, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawLine {
    /// Who wrote it: a label, and in an archive also the container's short ID.
    pub(super) origin: Arc<str>,
    pub(super) time: DateTime<Utc>,
    pub(super) bytes: Vec<u8>,
}

/// The lines of one log, oldest first.
pub(super) type Lines = Pin<Box<dyn Stream<Item = Result<RawLine>> + Send>>;

/// The lines of all `logs` by time, each with the index of its log. Reads no further ahead than one
/// line of each. A log that fails gives its error and no more; the others go on.
pub(super) fn merge(logs: Vec<Lines>) -> impl Stream<Item = (usize, Result<RawLine>)> + Send {
    let heads = logs.iter().map(|_| Head::Unknown).collect();
    stream::unfold((logs, heads), |(mut logs, mut heads): (Vec<Lines>, Vec<Head>)| async move {
        let mut missing: Vec<_> = logs
            .iter_mut()
            .zip(&mut heads)
            .filter(|(_, head)| matches!(head, Head::Unknown))
            .collect();
        match missing.as_mut_slice() {
            // As it is for every line but the first.
            [(log, head)] => **head = Head::of(log.next().await),
            _ => {
                let all = missing.into_iter();
                let all = all.map(|(log, head)| async { *head = Head::of(log.next().await) });
                futures_util::future::join_all(all).await;
            }
        }
        let (index, head) = heads.iter_mut().enumerate().min_by_key(|(_, head)| head.urgency())?;
        let item = match std::mem::replace(head, Head::Over) {
            Head::Line(line) => {
                *head = Head::Unknown;
                Ok(line)
            }
            Head::Broken(error) => Err(error),
            Head::Unknown | Head::Over => return None,
        };
        Some(((index, item), (logs, heads)))
    })
}

/// What comes next in a log.
enum Head {
    Unknown,
    Line(RawLine),
    Broken(anyhow::Error),
    Over,
}

impl Head {
    fn of(line: Option<Result<RawLine>>) -> Self {
        match line {
            Some(Ok(line)) => Self::Line(line),
            Some(Err(error)) => Self::Broken(error),
            None => Self::Over,
        }
    }

    /// The least is taken first: failures, then the oldest line, then nothing.
    fn urgency(&self) -> (u8, Option<DateTime<Utc>>) {
        match self {
            Self::Broken(_) => (0, None),
            Self::Line(line) => (1, Some(line.time)),
            Self::Unknown | Self::Over => (2, None),
        }
    }
}
