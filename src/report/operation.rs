//! `operations`, `undo` and `redo`.

use serde::Serialize;

use super::Changes;
use crate::model::operation::{Log, Operation};

/// `operations`: what was done, newest first.
#[derive(Debug, Serialize)]
pub struct Operations {
    /// One entry an operation.
    pub operations: Vec<OperationView>,
}

/// One operation, and what it is now.
#[derive(Debug, Serialize)]
pub struct OperationView {
    /// What was written down of it.
    #[serde(flatten)]
    pub operation: Operation,
    /// Whether it is in the log; an edit of the manifest gets there with the next command that
    /// writes.
    pub recorded: bool,
    /// Whether it has been undone.
    pub undone: bool,
    /// Whether `undo` can take it back, with all that came after it.
    pub undoable: bool,
}

impl Operations {
    /// The report of `log`. Its last operation may be an edit that is not written down yet.
    #[must_use]
    pub fn of(log: &Log, is_edited: bool) -> Self {
        let stacks = log.stacks();
        let newest = log.operations().rev().enumerate();
        let views = newest.map(|(place, operation)| OperationView {
            recorded: !(is_edited && place == 0),
            undone: stacks.undone.contains(&operation.id),
            undoable: stacks.done.contains(&operation.id),
            operation: operation.clone(),
        });
        Self { operations: views.collect() }
    }
}

/// `undo` and `redo`.
#[derive(Debug, Serialize)]
pub struct Undone {
    /// The number of this operation; with `--dry-run`, that it would get.
    pub operation: u64,
    /// The operations that are undone or redone.
    pub takes: Vec<u64>,
    /// The data that was saved before these, and that stays as it is.
    pub data_backups: Vec<String>,
    /// What becomes of services and files.
    #[serde(flatten)]
    pub changes: Changes,
}
