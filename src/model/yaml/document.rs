//! A parsed document: its text, its nodes, and what readers ask of them.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::parse;
use super::value::Value;

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// How many collections may stand inside each other.
pub const MAX_DEPTH: usize = 64;
/// Stands for "none" in the compact fields of [`NodeData`].
pub(super) const NONE: u32 = u32::MAX;

/// Where something stands in a document: both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A document that cannot be read, or an edit that cannot be made, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// What is wrong.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

impl YamlError {
    pub(super) fn new(position: Position, message: impl Into<String>) -> Self {
        Self { message: message.into(), line: position.line, column: position.column }
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for YamlError {}

/// What a node holds, aliases followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing at all, `~` or `null`, unquoted.
    Null,
    /// Text, numbers, booleans: whatever is written as one scalar.
    Scalar,
    /// Keys with values.
    Mapping,
    /// A list.
    Sequence,
}

impl Kind {
    /// The word for it in messages.
    fn noun(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Scalar => "text",
            Self::Mapping => "a mapping",
            Self::Sequence => "a list",
        }
    }
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'…'`
    Single,
    /// `"…"`
    Double,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

/// What a node is in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Scalar(Style),
    /// `{…}` when flow.
    Mapping {
        flow: bool,
    },
    /// `[…]` when flow.
    Sequence {
        flow: bool,
    },
    Alias,
}

/// One node, small enough for hundreds of thousands of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeData {
    pub shape: Shape,
    /// Where its anchor or tag begins; `start` when it has neither.
    pub outer: u32,
    /// Where its content begins: the first entry, the opening bracket or quote, the `|`.
    pub start: u32,
    /// Where its content ends, exclusive: no trailing space, comment or line break.
    pub end: u32,
    /// The `-` before an item, the `:` before a value, or [`NONE`].
    pub indicator: u32,
    /// First child in `Document::children`; the target of an alias; the scalar's text in
    /// `Document::texts`, or [`NONE`] when the source spells it out.
    pub payload: u32,
    /// Number of children; mappings count keys and values.
    pub len: u32,
    /// Whether a key is written with `?`.
    pub explicit: bool,
    /// Whether an alias names this node.
    pub shared: bool,
}

/// How many documents a text may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Documents {
    One,
    Several,
}

/// A parsed text: one document or, where that is asked for, several (`---`).
#[derive(Debug)]
pub struct Document {
    pub(super) source: String,
    pub(super) nodes: Vec<NodeData>,
    pub(super) children: Vec<u32>,
    pub(super) texts: Vec<Box<str>>,
    /// Entry numbers in key order, of mappings too large to search one by one; sorted by node.
    pub(super) indexes: Vec<(u32, Vec<u32>)>,
    /// Byte offsets of the anchors that an alias names, ascending.
    pub(super) shared: Vec<u32>,
    /// The outermost node of each document; at least one.
    pub(super) roots: Vec<u32>,
    /// Where the lines begin, once a position was asked for.
    pub(super) lines: OnceLock<Vec<usize>>,
}

impl Document {
    /// Reads one document.
    ///
    /// # Errors
    /// Text that is not YAML, is larger than [`MAX_BYTES`], nests deeper than [`MAX_DEPTH`], holds
    /// a NUL, a duplicate key, or more than one document.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        parse::parse(text, Documents::One)
    }

    /// Reads one document from bytes that may not be UTF-8.
    ///
    /// # Errors
    /// As [`Document::parse`], and bytes that are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, YamlError> {
        Self::parse(utf8(bytes)?)
    }

    /// Reads all documents of bytes that may not be UTF-8. What one of them anchors, aliases in
    /// those behind it may name, as in the Composes.
    ///
    /// # Errors
    /// As [`Document::parse_bytes`], but for the number of documents.
    pub fn parse_all(bytes: &[u8]) -> Result<Self, YamlError> {
        parse::parse(utf8(bytes)?, Documents::Several)
    }

    /// The text as it was read.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The outermost node, of the first document; null when that is empty.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        self.node(self.roots[0])
    }

    /// The outermost node of each document.
    pub fn roots(&self) -> impl DoubleEndedIterator<Item = Node<'_>> + ExactSizeIterator {
        self.roots.iter().map(|&id| self.node(id))
    }

    /// Line and column of a byte offset.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let lines = self.lines.get_or_init(|| line_starts(&self.source));
        let line = lines.partition_point(|start| *start <= offset);
        let start = lines[..line].last().copied().unwrap_or_default();
        let before = self.source.get(start..offset).unwrap_or_default();
        let columns = before.chars().filter(|character| *character != '\u{feff}').count();
        Position { line, column: columns + 1 }
    }

    /// Makes sure that every `<<` merges a mapping or a list of mappings, as YAML asks.
    ///
    /// # Errors
    /// The first one that does not, at its position.
    pub fn check_merges(&self) -> Result<(), YamlError> {
        for id in 0..self.len() {
            let Some(entry) = self.own_entry(id, "<<") else { continue };
            let merged = self.resolve(self.children(id)[entry * 2 + 1]);
            let parts = match self.data(merged).shape {
                Shape::Sequence { .. } => self.children(merged),
                _ => std::slice::from_ref(&merged),
            };
            if !parts.iter().all(|part| self.node(*part).kind() == Kind::Mapping) {
                let message = "a merge key (`<<`) takes a mapping or a list of mappings";
                return Err(self.node(merged).error(message));
            }
        }
        Ok(())
    }

    pub(super) fn node(&self, id: u32) -> Node<'_> {
        Node { document: self, id }
    }

    /// The number of nodes; their ids count from 0 in the order of the source.
    pub(super) fn len(&self) -> u32 {
        to_u32(self.nodes.len())
    }

    pub(super) fn data(&self, id: u32) -> &NodeData {
        &self.nodes[id as usize]
    }

    /// Keys and values alternately, or items.
    pub(super) fn children(&self, id: u32) -> &[u32] {
        let data = self.data(id);
        match data.shape {
            Shape::Mapping { .. } | Shape::Sequence { .. } => {
                &self.children[data.payload as usize..(data.payload + data.len) as usize]
            }
            _ => &[],
        }
    }

    /// The node that an alias names; any other node itself.
    pub(super) fn resolve(&self, id: u32) -> u32 {
        let data = self.data(id);
        if data.shape == Shape::Alias { data.payload } else { id }
    }

    /// A scalar's text, aliases not followed.
    pub(super) fn scalar_text(&self, id: u32) -> Option<&str> {
        let data = self.data(id);
        let Shape::Scalar(style) = data.shape else { return None };
        if data.payload != NONE {
            return Some(&self.texts[data.payload as usize]);
        }
        let quote = usize::from(matches!(style, Style::Single | Style::Double));
        Some(&self.source[data.start as usize + quote..data.end as usize - quote])
    }

    /// The number of the entry of mapping `id` whose key is `key`; merge keys are not followed.
    pub(super) fn own_entry(&self, id: u32, key: &str) -> Option<usize> {
        if !matches!(self.data(id).shape, Shape::Mapping { .. }) {
            return None;
        }
        let children = self.children(id);
        if let Ok(index) = self.indexes.binary_search_by_key(&id, |(node, _)| *node) {
            let order = &self.indexes[index].1;
            let found = order.binary_search_by(|entry| {
                self.key_text(children[*entry as usize * 2]).cmp(&Some(key))
            });
            return found.ok().map(|at| order[at] as usize);
        }
        children.chunks_exact(2).position(|entry| self.key_text(entry[0]) == Some(key))
    }

    /// A key as it is compared: null is the text that it is written as.
    pub(super) fn key_text(&self, id: u32) -> Option<&str> {
        let id = self.resolve(id);
        let data = self.data(id);
        match data.shape {
            Shape::Null => Some(&self.source[data.start as usize..data.end as usize]),
            _ => self.scalar_text(id),
        }
    }
}

/// The text of a file.
fn utf8(bytes: &[u8]) -> Result<&str, YamlError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        YamlError::new(position(&valid, valid.len()), "the file is not valid UTF-8 here")
    })
}

/// Where the lines of a text begin; see [`position`].
fn line_starts(source: &str) -> Vec<usize> {
    let bytes = source.as_bytes();
    let ends = bytes.iter().enumerate().filter(|(at, byte)| {
        **byte == b'\n' || (**byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
    });
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

/// Line and column of a byte offset; `\n`, `\r\n` and a lone `\r` end lines, a byte order mark has
/// no width.
pub(super) fn position(source: &str, offset: usize) -> Position {
    let before = &source[..offset];
    let line_start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let breaks = before.bytes().filter(|&byte| byte == b'\n').count();
    let lone =
        before.as_bytes().windows(2).filter(|pair| pair[0] == b'\r' && pair[1] != b'\n').count();
    let last = usize::from(before.ends_with('\r') && !source[offset..].starts_with('\n'));
    let columns = before[line_start..].chars().filter(|&character| character != '\u{feff}').count();
    Position { line: breaks + lone + last + 1, column: columns + 1 }
}

/// One node of a [`Document`]. Reading follows aliases; positions are those of the node as written.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    document: &'a Document,
    pub(super) id: u32,
}

/// The entries of a mapping in order, as written (`<<` is an entry like any other).
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    document: &'a Document,
    children: std::slice::ChunksExact<'a, u32>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Node<'a>, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.children.next()?;
        Some((self.document.node(pair[0]), self.document.node(pair[1])))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.children.size_hint()
    }
}

impl ExactSizeIterator for Entries<'_> {}

/// The items of a list in order.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    document: &'a Document,
    children: std::slice::Iter<'a, u32>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        self.children.next().map(|&id| self.document.node(id))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.children.size_hint()
    }
}

impl ExactSizeIterator for Items<'_> {}

/// A mapping and those that it merges with `<<`, in the order in which a key is looked for.
struct Merged<'a> {
    document: &'a Document,
    pending: Vec<u32>,
    seen: HashSet<u32>,
}

impl<'a> Merged<'a> {
    fn of(document: &'a Document, id: u32) -> Self {
        Self { document, pending: vec![id], seen: HashSet::new() }
    }
}

impl Iterator for Merged<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let id = self.pending.pop()?;
        if let Some(merged) = self.document.own_entry(id, "<<")
            && self.seen.insert(id)
        {
            let merged = self.document.resolve(self.document.children(id)[merged * 2 + 1]);
            match self.document.data(merged).shape {
                Shape::Sequence { .. } => {
                    let several = self.document.children(merged).iter().rev();
                    self.pending.extend(several.map(|&id| self.document.resolve(id)));
                }
                _ => self.pending.push(merged),
            }
        }
        Some(id)
    }
}

impl<'a> Node<'a> {
    fn resolved(self) -> &'a NodeData {
        self.document.data(self.document.resolve(self.id))
    }

    /// What the node holds.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.resolved().shape {
            Shape::Mapping { .. } => Kind::Mapping,
            Shape::Sequence { .. } => Kind::Sequence,
            Shape::Scalar(_) => Kind::Scalar,
            // An alias never names an alias.
            Shape::Null | Shape::Alias => Kind::Null,
        }
    }

    /// Whether the node is empty, `~` or `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The node that an alias names; any other node itself.
    #[must_use]
    pub fn target(self) -> Self {
        self.document.node(self.document.resolve(self.id))
    }

    /// The entry of `key` that the mapping has itself, and not from what it merges with `<<`.
    #[must_use]
    pub fn own_value(self, key: &str) -> Option<Node<'a>> {
        self.target().own(key)
    }

    /// The places where an alias stands for this node.
    pub fn aliases(self) -> impl Iterator<Item = Position> + 'a {
        let id = self.document.resolve(self.id);
        let is_shared = self.document.data(id).shared;
        let all = 0..if is_shared { self.document.len() } else { 0 };
        all.filter_map(move |other| {
            let data = self.document.data(other);
            let stands = data.shape == Shape::Alias && data.payload == id;
            stands.then(|| self.document.position(data.start as usize))
        })
    }

    /// Whether the node is written as `*name`.
    #[must_use]
    pub fn is_alias(self) -> bool {
        self.document.data(self.id).shape == Shape::Alias
    }

    /// How a scalar is written.
    #[must_use]
    pub fn style(self) -> Option<Style> {
        match self.resolved().shape {
            Shape::Scalar(style) => Some(style),
            _ => None,
        }
    }

    /// Whether the node is a scalar without quotes.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self.style() == Some(Style::Plain)
    }

    /// Whether the node is a collection in brackets.
    #[must_use]
    pub fn is_flow(self) -> bool {
        matches!(
            self.resolved().shape,
            Shape::Mapping { flow: true } | Shape::Sequence { flow: true }
        )
    }

    /// The bytes of the node as written, without anchor and tag.
    #[must_use]
    pub fn span(self) -> Range<usize> {
        let data = self.document.data(self.id);
        data.start as usize..data.end as usize
    }

    /// Line and column of the node as written.
    #[must_use]
    pub fn position(self) -> Position {
        self.document.position(self.document.data(self.id).start as usize)
    }

    /// An error about this node, at its position.
    pub fn error(self, message: impl Into<String>) -> YamlError {
        YamlError::new(self.position(), message)
    }

    /// The value of `key`, from the mapping itself or else from what it merges with `<<`.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Node<'a>> {
        let id = self.document.resolve(self.id);
        let entry = self.document.own_entry(id, key);
        if entry.is_none() && self.document.own_entry(id, "<<").is_some() {
            return self.get_merged(id, key);
        }
        entry.map(|entry| self.document.node(self.document.children(id)[entry * 2 + 1]))
    }

    /// As [`Self::get`], for a mapping `id` that merges others.
    fn get_merged(self, id: u32, key: &str) -> Option<Node<'a>> {
        Merged::of(self.document, id).find_map(|id| {
            let entry = self.document.own_entry(id, key)?;
            Some(self.document.node(self.document.children(id)[entry * 2 + 1]))
        })
    }

    /// The entries of a mapping with those that it merges with `<<`, each key once and with the
    /// value that [`Self::get`] gives it; of anything else none.
    #[must_use]
    pub fn merged_entries(self) -> Vec<(Node<'a>, Node<'a>)> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for id in Merged::of(self.document, self.document.resolve(self.id)) {
            for (key, value) in self.document.node(id).entries() {
                let text = self.document.key_text(key.id);
                if text != Some("<<") && text.is_none_or(|text| seen.insert(text)) {
                    entries.push((key, value));
                }
            }
        }
        entries
    }

    /// The tag that is written before the node, such as `!reset`; aliases are not followed.
    #[must_use]
    pub fn tag(self) -> Option<&'a str> {
        let data = self.document.data(self.id);
        let properties = &self.document.source[..data.start as usize];
        let mut at = data.outer as usize;
        while let Some(rest) = properties.get(at..).filter(|rest| !rest.is_empty()) {
            let end = rest.find([' ', '\t', '\r', '\n']).unwrap_or(rest.len());
            if rest.starts_with('!') {
                return Some(&rest[..end]);
            }
            at = parse::trivia_end(properties, at + end);
        }
        None
    }

    /// The entries of a mapping; of anything else none.
    #[must_use]
    pub fn entries(self) -> Entries<'a> {
        Entries {
            document: self.document,
            children: self.children_if(Kind::Mapping).chunks_exact(2),
        }
    }

    /// The items of a list; of anything else none.
    #[must_use]
    pub fn items(self) -> Items<'a> {
        Items { document: self.document, children: self.children_if(Kind::Sequence).iter() }
    }

    fn children_if(self, kind: Kind) -> &'a [u32] {
        if self.kind() == kind {
            self.document.children(self.document.resolve(self.id))
        } else {
            &[]
        }
    }

    /// A scalar's text; a plain scalar's is what the source says, `1.40` stays `1.40`.
    #[must_use]
    pub fn as_text(self) -> Option<&'a str> {
        self.document.scalar_text(self.document.resolve(self.id))
    }

    /// The text of a scalar, unquoted numbers and booleans included.
    ///
    /// # Errors
    /// Null, a mapping or a list, at its position.
    pub fn text(self) -> Result<&'a str, YamlError> {
        self.as_text().ok_or_else(|| self.expected("text"))
    }

    /// A plain `true` or `false`, or one of the other spellings of YAML 1.1 (`yes`, `off`, …).
    ///
    /// # Errors
    /// Anything else, at its position.
    pub fn boolean(self) -> Result<bool, YamlError> {
        let word = self.as_text().filter(|_| self.is_plain()).map(str::to_ascii_lowercase);
        match word.as_deref() {
            Some("true" | "yes" | "on" | "y") => Ok(true),
            Some("false" | "no" | "off" | "n") => Ok(false),
            _ => Err(self.expected("true or false")),
        }
    }

    /// The entries of a mapping.
    ///
    /// # Errors
    /// Anything but a mapping, at its position.
    pub fn mapping(self) -> Result<Entries<'a>, YamlError> {
        if self.kind() == Kind::Mapping {
            Ok(self.entries())
        } else {
            Err(self.expected("a mapping"))
        }
    }

    /// The items of a list.
    ///
    /// # Errors
    /// Anything but a list, at its position.
    pub fn sequence(self) -> Result<Items<'a>, YamlError> {
        if self.kind() == Kind::Sequence { Ok(self.items()) } else { Err(self.expected("a list")) }
    }

    /// The value of `key` in the mapping as written, merge keys not followed.
    pub(super) fn own(self, key: &str) -> Option<Node<'a>> {
        let entry = self.document.own_entry(self.id, key)?;
        Some(self.document.node(self.document.children(self.id)[entry * 2 + 1]))
    }

    /// The last value of a mapping that shows how `value` is laid out.
    pub(super) fn last_like(self, value: &Value) -> Option<Node<'a>> {
        let values = self.document.children(self.id).iter().skip(1).step_by(2).rev();
        values.map(|&id| self.document.node(id)).find(|&node| value.is_like(node))
    }

    pub(super) fn is_childless(self) -> bool {
        self.resolved().len == 0
    }

    /// Whether a flow mapping has a space inside its brackets.
    pub(super) fn is_padded(self) -> bool {
        self.document.source[self.span()].starts_with("{ ")
    }

    fn expected(self, what: &str) -> YamlError {
        self.error(format!("expected {what}, found {}", self.kind().noun()))
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?}",
            self.document.data(self.id).shape,
            &self.document.source[self.span()]
        )
    }
}

/// Offsets and counts fit: no document is longer than [`MAX_BYTES`].
pub(super) fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(NONE)
}
