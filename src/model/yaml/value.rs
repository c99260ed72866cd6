//! What an edit writes: plain data, and its layout, learned from the siblings it is written among.

use super::document::{Kind, Node, Style};
use super::quote::write_text;

/// Content to be written into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text; quoted exactly when a YAML 1.1 or 1.2 reader would take it for something else.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// Keys and values in the order they are written.
    Mapping(Vec<(String, Value)>),
    /// Items in the order they are written.
    Sequence(Vec<Value>),
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A mapping of the given entries.
    pub fn mapping<Key: Into<String>>(entries: impl IntoIterator<Item = (Key, Value)>) -> Self {
        Self::Mapping(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl Value {
    pub(super) fn is_empty_collection(&self) -> bool {
        match self {
            Self::Mapping(entries) => entries.is_empty(),
            Self::Sequence(items) => items.is_empty(),
            _ => false,
        }
    }

    fn is_collection(&self) -> bool {
        matches!(self, Self::Mapping(_) | Self::Sequence(_))
    }

    /// Whether `node` is a non-empty collection of the same kind, so that it shows the layout to
    /// follow.
    pub(super) fn is_like(&self, node: Node<'_>) -> bool {
        let kind = match self {
            Self::Mapping(_) => Kind::Mapping,
            Self::Sequence(_) => Kind::Sequence,
            _ => return false,
        };
        !node.is_alias() && node.kind() == kind && !node.is_childless()
    }
}

/// How a document lays out what is new in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The line break.
    pub newline: &'static str,
    /// Columns from a key to the keys of the mapping that is its value.
    pub mapping_step: usize,
    /// Columns from a key to the dashes of the list that is its value.
    pub sequence_step: usize,
    /// Columns from a dash to its item.
    pub dash_step: usize,
    /// The quotes for what needs some.
    pub quote: Style,
}

impl Layout {
    /// PyYAML's.
    pub const DEFAULT: Self = Self {
        newline: "\n",
        mapping_step: 2,
        sequence_step: 0,
        dash_step: 2,
        quote: Style::Single,
    };

    /// Whether `value` goes on lines of its own, as its `model` does, or as it wishes.
    pub fn is_block(&self, value: &Value, model: Option<Node<'_>>) -> bool {
        let wishes_block = value.is_collection();
        let model = model.filter(|&model| value.is_like(model));
        !value.is_empty_collection() && model.map_or(wishes_block, |model| !model.is_flow())
    }

    /// Writes `value` on one line, inside brackets when `flow`.
    pub fn inline(&self, out: &mut String, value: &Value, model: Option<Node<'_>>, flow: bool) {
        self.inline_as(out, value, model, model.and_then(Node::style), flow);
    }

    fn inline_as(
        &self,
        out: &mut String,
        value: &Value,
        model: Option<Node<'_>>,
        style: Option<Style>,
        flow: bool,
    ) {
        match value {
            Value::Text(text) => write_text(out, text, style, self.quote, flow),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Mapping(entries) => {
                let model = model.filter(|&model| value.is_like(model));
                let padding = if model.is_some_and(Node::is_padded) { " " } else { "" };
                out.push('{');
                for (number, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if number > 0 { ", " } else { padding });
                    self.entry(out, key, value, model, 0, true);
                }
                out.push_str(if entries.is_empty() { "" } else { padding });
                out.push('}');
            }
            Value::Sequence(items) => {
                let model = model
                    .filter(|&model| value.is_like(model))
                    .and_then(|model| model.items().next());
                out.push('[');
                for (number, item) in items.iter().enumerate() {
                    out.push_str(if number > 0 { ", " } else { "" });
                    self.inline(out, item, model, true);
                }
                out.push(']');
            }
        }
    }

    /// Writes `key: value`, as a sibling of the entries of `mapping`, whose keys stand at `column`.
    pub fn entry(
        &self,
        out: &mut String,
        key: &str,
        value: &Value,
        mapping: Option<Node<'_>>,
        column: usize,
        flow: bool,
    ) {
        let namesake = mapping.and_then(|mapping| mapping.own(key)).filter(|node| !node.is_alias());
        let sibling = if value.is_collection() {
            mapping.and_then(|mapping| mapping.last_like(value))
        } else {
            None
        };
        let model =
            namesake.filter(|&node| !value.is_collection() || value.is_like(node)).or(sibling);
        self.entry_like(out, (key, value), mapping, model, column, flow);
    }

    /// As [`Layout::entry`], with the value laid out like `model`.
    pub fn entry_like(
        &self,
        out: &mut String,
        (key, value): (&str, &Value),
        mapping: Option<Node<'_>>,
        model: Option<Node<'_>>,
        column: usize,
        flow: bool,
    ) {
        let key_style =
            mapping.and_then(|mapping| mapping.entries().next()).and_then(|(key, _)| key.style());
        write_text(out, key, key_style, self.quote, flow);
        out.push(':');
        if !flow && self.is_block(value, model) {
            let step = match value {
                Value::Sequence(_) => self.sequence_step,
                _ => self.mapping_step,
            };
            self.line(out, column + step);
            self.block(out, value, model, column + step);
        } else {
            out.push(' ');
            // Where even keys are in double quotes, as in JSON, so is every text.
            let style =
                model.and_then(Node::style).or(key_style.filter(|&style| style == Style::Double));
            self.inline_as(out, value, model, style, flow);
        }
    }

    /// Writes a collection that is not empty in block style; its first line begins where `out`
    /// ends, at `column`.
    pub fn block(&self, out: &mut String, value: &Value, model: Option<Node<'_>>, column: usize) {
        let model = model.filter(|&model| value.is_like(model));
        match value {
            Value::Mapping(entries) => {
                for (number, (key, value)) in entries.iter().enumerate() {
                    if number > 0 {
                        self.line(out, column);
                    }
                    self.entry(out, key, value, model, column, false);
                }
            }
            Value::Sequence(items) => {
                let model = model.and_then(|model| model.items().next());
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        self.line(out, column);
                    }
                    self.item(out, item, model, column);
                }
            }
            scalar => self.inline(out, scalar, model, false),
        }
    }

    /// Writes `- item` with the dash at `column`.
    pub fn item(&self, out: &mut String, item: &Value, model: Option<Node<'_>>, column: usize) {
        out.push('-');
        if self.is_block(item, model) {
            out.push_str(&" ".repeat(self.dash_step - 1));
            self.block(out, item, model, column + self.dash_step);
        } else {
            out.push(' ');
            self.inline(out, item, model, false);
        }
    }

    /// Begins a new line at `column`.
    pub fn line(&self, out: &mut String, column: usize) {
        out.push_str(self.newline);
        out.extend(std::iter::repeat_n(' ', column));
    }
}

/// A new document in block style, as PyYAML would lay it out.
#[must_use]
pub fn emit(value: &Value) -> String {
    let mut out = String::new();
    if Layout::DEFAULT.is_block(value, None) {
        Layout::DEFAULT.block(&mut out, value, None, 0);
    } else {
        Layout::DEFAULT.inline(&mut out, value, None, false);
    }
    out.push('\n');
    out
}
