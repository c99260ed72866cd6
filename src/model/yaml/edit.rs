//! Edits: what a document shall hold instead.

use super::document::{Document, YamlError};
use super::plan::{Plan, plan};
use super::value::Value;
use super::{splice, verify};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// The value of a key.
    Key(String),
    /// The item of a list, from 0.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<String> for Segment {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// One item of a list that is being rearranged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The item that stood at this index before, with edits whose paths begin inside it.
    Keep(usize, Vec<Edit>),
    /// A new item, laid out like its siblings.
    New(Value),
}

/// One change to a document. Paths and indexes mean the document as it was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The number of the document that the path begins in.
    pub(super) document: usize,
    pub(super) path: Vec<Segment>,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// One with `after` adds its key behind that one, also where a merge key gives it.
    Set {
        value: Value,
        after: Option<String>,
    },
    Remove,
    Rearrange(Vec<Item>),
}

impl Edit {
    /// Replaces the node at `path`, or adds it: a new key goes behind its mapping's last entry,
    /// missing mappings on the way are created. A scalar keeps its quotes and its comment.
    pub fn set<Step: Into<Segment>>(
        path: impl IntoIterator<Item = Step>,
        value: impl Into<Value>,
    ) -> Self {
        let action = Action::Set { value: value.into(), after: None };
        Self { document: 0, path: steps(path), action }
    }

    /// As [`Edit::set`], but a new key goes behind the entry of key `after`, if there is one, and is
    /// added as well where a merge key (`<<`) gives it: the mapping's own entry counts more.
    pub fn set_own<Step: Into<Segment>>(
        path: impl IntoIterator<Item = Step>,
        value: impl Into<Value>,
        after: impl Into<String>,
    ) -> Self {
        let action = Action::Set { value: value.into(), after: Some(after.into()) };
        Self { document: 0, path: steps(path), action }
    }

    /// Removes the key or item at `path`, if there is one, with its comments.
    pub fn remove<Step: Into<Segment>>(path: impl IntoIterator<Item = Step>) -> Self {
        Self { document: 0, path: steps(path), action: Action::Remove }
    }

    /// Gives the list at `path` these items in this order; a missing or null list is created. Kept
    /// items keep their text and their comments.
    pub fn rearrange<Step: Into<Segment>>(
        path: impl IntoIterator<Item = Step>,
        items: Vec<Item>,
    ) -> Self {
        Self { document: 0, path: steps(path), action: Action::Rearrange(items) }
    }

    /// The same edit of the document with this number, from 0.
    #[must_use]
    pub fn in_document(self, document: usize) -> Self {
        Self { document, ..self }
    }
}

fn steps<Step: Into<Segment>>(path: impl IntoIterator<Item = Step>) -> Vec<Segment> {
    path.into_iter().map(Into::into).collect()
}

impl Document {
    /// The text with all `edits` made, verified: it parses to the intended content, and every node
    /// outside the edits has its value and style, those of other documents as well.
    ///
    /// # Errors
    /// Edits that contradict each other, that lead through an alias, a shared anchor or a merge
    /// key, or whose result is not what was intended.
    pub fn apply(&self, edits: &[Edit]) -> Result<String, YamlError> {
        let plans = plan(self, edits)?;
        if plans.iter().all(|plan| *plan == Plan::Same) {
            return Ok(self.source().to_owned());
        }
        let text = splice::splice(self, &plans)?;
        verify::verify(self, &plans, &text)?;
        Ok(text)
    }
}
