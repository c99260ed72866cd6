//! Lossless reading and editing of YAML documents.
//!
//! A [`Document`] keeps its source text and knows where every node stands in it. Changes are
//! collected as [`Edit`]s against one parsed document and spliced into the source once, so whatever
//! they do not name keeps its bytes: comments, quoting, order, indentation, line endings.

mod depth;
mod document;
mod edit;
mod parse;
mod plan;
mod quote;
mod splice;
mod value;
mod verify;

pub use document::{Document, Kind, Node, Position, Style, YamlError};
pub use edit::{Edit, Item, Segment};
pub use value::{Value, emit};

#[cfg(test)]
mod tests;
