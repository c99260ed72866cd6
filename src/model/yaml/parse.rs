//! From text to a tree whose nodes know their bytes.
//!
//! saphyr-parser supplies the events. Its spans count characters, leave out the `-`, `|` and `:`
//! that introduce a node, and end quoted scalars late, so every start is found again in the source,
//! token by token, and compared with the parser's: a document that the two read differently is
//! refused instead of edited in the wrong place.

use std::borrow::Cow;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::depth::{self, quoted_end};
use super::document::{
    Document, Documents, MAX_BYTES, MAX_DEPTH, NONE, NodeData, Position, Shape, Style, YamlError,
    position, to_u32,
};

/// Mappings with more entries than this are searched by a sorted index.
const LINEAR_SEARCH: usize = 12;

/// By how many columns the lines of flow collections are indented where the parser asks for it:
/// more than any key's.
const INDENTATION: usize = 256;

/// The most lines for which that is done.
const MOST_INDENTED: usize = 50_000;

/// Reads one document or all; see [`Document::parse`] and [`Document::parse_all`].
pub fn parse(text: &str, documents: Documents) -> Result<Document, YamlError> {
    if text.len() > MAX_BYTES {
        let message = format!(
            "the file is {} bytes long, more than the {} MiB that are read",
            text.len(),
            MAX_BYTES >> 20
        );
        return Err(YamlError::new(Position { line: 1, column: 1 }, message));
    }
    if let Some(nul) = text.find('\0') {
        return Err(YamlError::new(position(text, nul), "a NUL character"));
    }
    let lines = depth::flow_lines(text).map_err(|offset| too_deep(position(text, offset)))?;
    let parsed = Builder::new(text).build(documents);
    if parsed.is_ok() || lines.is_empty() || lines.len() > MOST_INDENTED {
        return parsed;
    }
    // Composes and the old tool take a flow collection that is not indented beyond its key, which
    // the specification and the parser do not.
    Builder::indenting(text, &lines).build(documents).or(parsed)
}

fn too_deep(position: Position) -> YamlError {
    YamlError::new(position, format!("nested deeper than {MAX_DEPTH} levels"))
}

/// Byte offsets of character offsets: one step per [`STRIDE`] characters is stored.
struct CharacterIndex {
    steps: Vec<u32>,
}

const STRIDE: usize = 64;

impl CharacterIndex {
    fn new(text: &str) -> Self {
        if text.is_ascii() {
            return Self { steps: Vec::new() };
        }
        let steps = text.char_indices().step_by(STRIDE).map(|(offset, _)| to_u32(offset)).collect();
        Self { steps }
    }

    fn byte(&self, text: &str, character: usize) -> usize {
        if self.steps.is_empty() {
            return character.min(text.len());
        }
        let Some(&step) = self.steps.get(character / STRIDE) else { return text.len() };
        let rest = &text[step as usize..];
        step as usize
            + rest.char_indices().nth(character % STRIDE).map_or(rest.len(), |(offset, _)| offset)
    }
}

/// What stands before the content of a node.
#[derive(Clone, Copy)]
struct Properties {
    anchor: bool,
    tag: bool,
}

/// A collection whose end has not come yet.
struct Open {
    id: u32,
    /// Where its children begin in `Builder::pending`.
    first: usize,
    bracket: bool,
}

/// Builds the tree from the parser's events.
pub(super) struct Builder<'a> {
    text: &'a str,
    characters: CharacterIndex,
    /// Which characters of the text that the parser gets have [`INDENTATION`] before them that is
    /// not in the source.
    indented: Vec<usize>,
    nodes: Vec<NodeData>,
    children: Vec<u32>,
    texts: Vec<Box<str>>,
    indexes: Vec<(u32, Vec<u32>)>,
    /// Node of each anchor, by the parser's number.
    anchors: Vec<u32>,
    shared: Vec<u32>,
    /// Finished children of the open collections.
    pending: Vec<u32>,
    open: Vec<Open>,
    /// Everything before this byte has been read.
    cursor: usize,
    /// The outermost node of each finished document.
    roots: Vec<u32>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            characters: CharacterIndex::new(text),
            indented: Vec::new(),
            nodes: Vec::new(),
            children: Vec::new(),
            texts: Vec::new(),
            indexes: Vec::new(),
            anchors: vec![NONE],
            shared: Vec::new(),
            pending: Vec::new(),
            open: Vec::new(),
            cursor: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 },
            roots: Vec::new(),
        }
    }

    /// As [`Self::new`], for a parser that shall see the lines that begin at these bytes indented.
    fn indenting(text: &'a str, lines: &[usize]) -> Self {
        let mut characters = 0;
        let mut from = 0;
        let starts = lines.iter().enumerate().map(|(number, &line)| {
            characters += text[from..line].chars().count();
            from = line;
            characters + number * INDENTATION
        });
        let indented = starts.collect();
        Self { indented, ..Self::new(text) }
    }

    /// What the parser gets.
    fn source(&self) -> Cow<'a, str> {
        if self.indented.is_empty() {
            return Cow::Borrowed(self.text);
        }
        let mut source = String::with_capacity(self.text.len() + self.indented.len() * INDENTATION);
        let mut from = 0;
        for number in 0..self.indented.len() {
            let line = self.byte(self.indented[number]);
            source.push_str(&self.text[from..line]);
            source.extend(std::iter::repeat_n(' ', INDENTATION));
            from = line;
        }
        source.push_str(&self.text[from..]);
        Cow::Owned(source)
    }

    fn build(mut self, documents: Documents) -> Result<Document, YamlError> {
        let source = self.source();
        for event in Parser::new_from_str(&source) {
            let (event, span) = event.map_err(|error| {
                let position =
                    Position { line: error.marker().line(), column: error.marker().col() + 1 };
                YamlError::new(position, error.info())
            })?;
            if matches!(event, Event::DocumentStart(_))
                && documents == Documents::One
                && !self.roots.is_empty()
            {
                let start = self.byte(span.start.index());
                return Err(
                    self.error(start, "a second document begins here, only one is expected")
                );
            }
            self.event(event, span)?;
        }
        Ok(self.finished())
    }

    /// The tree, after the last event.
    fn finished(mut self) -> Document {
        if self.roots.is_empty() {
            let end = self.text.len();
            let root = self.push(Shape::Null, end, end, end, NONE);
            self.roots.push(root);
        }
        self.shared.sort_unstable();
        self.shared.dedup();
        self.indexes.sort_unstable_by_key(|(node, _)| *node);
        Document {
            source: self.text.to_owned(),
            nodes: self.nodes,
            children: self.children,
            texts: self.texts,
            indexes: self.indexes,
            shared: self.shared,
            roots: self.roots,
            lines: std::sync::OnceLock::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, characters: Span) -> Result<(), YamlError> {
        let span = self.byte(characters.start.index())..self.byte(characters.end.index());
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            // Behind the `---` or the `...`, if there is one.
            Event::DocumentStart(true) | Event::DocumentEnd => {
                self.cursor = self.cursor.max(span.end);
                Ok(())
            }
            Event::DocumentStart(false) => Ok(()),
            Event::Alias(anchor) => self.alias(anchor, &span),
            Event::Scalar(text, style, anchor, tag) => {
                let tag =
                    tag.as_deref().map(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                self.scalar(&text, style, anchor, tag, &span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection(false, anchor, tag.is_some(), &span)
            }
            Event::MappingStart(anchor, tag) => self.collection(true, anchor, tag.is_some(), &span),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn alias(&mut self, anchor: usize, span: &Range<usize>) -> Result<(), YamlError> {
        let (outer, indicator, explicit) = self.node_start(true)?;
        let end = span.end;
        self.check(outer, span)?;
        let target = self.anchors.get(anchor).copied().unwrap_or(NONE);
        if target == NONE {
            return Err(self.error(outer, "an alias of an unknown anchor"));
        }
        self.nodes[target as usize].shared = true;
        self.shared.push(self.nodes[target as usize].outer);
        let id = self.push(Shape::Alias, outer, outer, end, indicator);
        self.nodes[id as usize].payload = target;
        self.nodes[id as usize].explicit = explicit;
        self.finish(id, end);
        Ok(())
    }

    pub(super) fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        string_tag: Option<bool>,
        span: &Range<usize>,
    ) -> Result<(), YamlError> {
        let bare = anchor == 0 && string_tag.is_none();
        let empty = style == ScalarStyle::Plain && text.is_empty();
        let (outer, indicator, explicit) = self.node_start(!(empty && bare))?;
        let properties = Properties { anchor: anchor != 0, tag: string_tag.is_some() };
        let start = self.skip_properties(outer, properties, !empty);
        let (style, end) = match style {
            ScalarStyle::Plain => (Style::Plain, if empty { start } else { span.end }),
            ScalarStyle::SingleQuoted => {
                (Style::Single, quoted_end(self.text.as_bytes(), start, b'\''))
            }
            ScalarStyle::DoubleQuoted => {
                (Style::Double, quoted_end(self.text.as_bytes(), start, b'"'))
            }
            ScalarStyle::Literal => (Style::Literal, self.block_scalar_end(start, b'|', span)?),
            ScalarStyle::Folded => (Style::Folded, self.block_scalar_end(start, b'>', span)?),
        };
        if !empty && !matches!(style, Style::Literal | Style::Folded) {
            self.check(outer, span)?;
        }
        let null_word = matches!(text, "" | "~" | "null" | "Null" | "NULL");
        let null = style == Style::Plain && null_word && string_tag != Some(true);
        let quote = usize::from(matches!(style, Style::Single | Style::Double));
        let id = self.push(
            if null { Shape::Null } else { Shape::Scalar(style) },
            outer,
            start,
            end,
            indicator,
        );
        let written = if matches!(style, Style::Literal | Style::Folded) {
            None
        } else {
            self.text.get(start + quote..end.saturating_sub(quote).max(start + quote))
        };
        if !null && written != Some(text) {
            self.nodes[id as usize].payload = to_u32(self.texts.len());
            self.texts.push(text.into());
        }
        self.nodes[id as usize].explicit = explicit;
        self.register(anchor, id);
        self.finish(id, end);
        Ok(())
    }

    pub(super) fn collection(
        &mut self,
        mapping: bool,
        anchor: usize,
        tagged: bool,
        span: &Range<usize>,
    ) -> Result<(), YamlError> {
        let (outer, indicator, explicit) = self.node_start(true)?;
        if self.open.len() == MAX_DEPTH {
            return Err(too_deep(position(self.text, outer)));
        }
        let properties = Properties { anchor: anchor != 0, tag: tagged };
        let start = self.skip_properties(outer, properties, true);
        // A block collection's span ends before its first entry, which may begin with a bracket
        // itself.
        let bracket = span.end > start && (self.at(start, b'[') || self.at(start, b'{'));
        // A pair inside a flow sequence, `[a: b]`, is flow without brackets of its own.
        let flow = bracket || self.open.last().is_some_and(|open| self.is_flow(open.id));
        let shape = if mapping { Shape::Mapping { flow } } else { Shape::Sequence { flow } };
        let id = self.push(shape, outer, start, start, indicator);
        self.nodes[id as usize].explicit = explicit;
        self.register(anchor, id);
        self.open.push(Open { id, first: self.pending.len(), bracket });
        self.cursor = if bracket { start + 1 } else { start };
        Ok(())
    }

    pub(super) fn close(&mut self) -> Result<(), YamlError> {
        let Some(Open { id, first, bracket }) = self.open.pop() else { return Ok(()) };
        let mut end = self.cursor;
        if bracket {
            end = self.trivia_end(end);
            if self.at(end, b',') {
                end = self.trivia_end(end + 1);
            }
            if !self.at(end, b']') && !self.at(end, b'}') {
                return Err(self.lost(end));
            }
            end += 1;
        }
        let data = &mut self.nodes[id as usize];
        data.payload = to_u32(self.children.len());
        data.len = to_u32(self.pending.len() - first);
        let mapping = matches!(data.shape, Shape::Mapping { .. });
        self.children.extend(self.pending.drain(first..));
        self.finish(id, end);
        if mapping { self.check_keys(id) } else { Ok(()) }
    }

    /// Finds where the next node begins, its anchor and tag included: offset, its `-` or `:`,
    /// whether it is a key written with `?`. A node without `content` is empty and ends where it
    /// begins.
    fn node_start(&mut self, content: bool) -> Result<(usize, u32, bool), YamlError> {
        let Some(open) = self.open.last() else {
            let start = if content { self.trivia_end(self.cursor) } else { self.cursor };
            return Ok((start, NONE, false));
        };
        let count = self.pending.len() - open.first;
        let (flow, bracket) = (self.is_flow(open.id), open.bracket);
        let mapping = matches!(self.nodes[open.id as usize].shape, Shape::Mapping { .. });
        let mut at = self.trivia_end(self.cursor);
        if mapping && count % 2 == 1 {
            if !self.at(at, b':') {
                return Ok((self.cursor, NONE, false));
            }
            let value = if content { self.trivia_end(at + 1) } else { at + 1 };
            return Ok((value, to_u32(at), false));
        }
        if flow && bracket && count > 0 {
            if !self.at(at, b',') {
                return Err(self.lost(at));
            }
            at = self.trivia_end(at + 1);
        }
        if mapping {
            let explicit =
                self.at(at, b'?') && self.text[at + 1..].starts_with([' ', '\t', '\n', '\r']);
            if explicit {
                at = if content { self.trivia_end(at + 1) } else { at + 1 };
            }
            return Ok((at, NONE, explicit));
        }
        if flow {
            return Ok((at, NONE, false));
        }
        if !self.at(at, b'-') {
            return Err(self.lost(at));
        }
        Ok((if content { self.trivia_end(at + 1) } else { at + 1 }, to_u32(at), false))
    }

    fn push(
        &mut self,
        shape: Shape,
        outer: usize,
        start: usize,
        end: usize,
        indicator: u32,
    ) -> u32 {
        let id = to_u32(self.nodes.len());
        self.nodes.push(NodeData {
            shape,
            outer: to_u32(outer),
            start: to_u32(start),
            end: to_u32(end),
            indicator,
            payload: NONE,
            len: 0,
            explicit: false,
            shared: false,
        });
        id
    }

    fn register(&mut self, anchor: usize, id: u32) {
        if anchor != 0 {
            self.anchors.resize(self.anchors.len().max(anchor + 1), NONE);
            self.anchors[anchor] = id;
        }
    }

    fn finish(&mut self, id: u32, end: usize) {
        self.nodes[id as usize].end = to_u32(end);
        self.cursor = end;
        if self.open.is_empty() {
            self.roots.push(id);
        } else {
            self.pending.push(id);
        }
    }

    /// Refuses a mapping with the same key twice, at the second one; indexes large mappings.
    fn check_keys(&mut self, id: u32) -> Result<(), YamlError> {
        let data = self.nodes[id as usize];
        let children = &self.children[data.payload as usize..(data.payload + data.len) as usize];
        let keys: Vec<_> = children.chunks_exact(2).map(|entry| self.key_text(entry[0])).collect();
        let duplicate = if keys.len() > LINEAR_SEARCH {
            let mut order: Vec<u32> = (0..to_u32(keys.len())).collect();
            order.sort_by_key(|&entry| keys[entry as usize]);
            let twins = order.windows(2).filter(|pair| keys[pair[0] as usize].is_some());
            let twins = twins.filter(|pair| keys[pair[0] as usize] == keys[pair[1] as usize]);
            let duplicate = twins.map(|pair| pair[1] as usize).min();
            self.indexes.push((id, order));
            duplicate
        } else {
            (1..keys.len())
                .find(|&entry| keys[entry].is_some() && keys[..entry].contains(&keys[entry]))
        };
        let Some(entry) = duplicate else { return Ok(()) };
        let key = self.nodes[self.children[data.payload as usize + entry * 2] as usize];
        let name = &self.text[key.start as usize..key.end as usize];
        Err(self.error(key.start as usize, format!("duplicate key `{name}`")))
    }

    /// A scalar key's text; `None` for keys that are collections or aliases.
    fn key_text(&self, id: u32) -> Option<&str> {
        let data = &self.nodes[id as usize];
        let written = data.start as usize..data.end as usize;
        match data.shape {
            Shape::Null => Some(&self.text[written]),
            Shape::Scalar(_) if data.payload != NONE => Some(&self.texts[data.payload as usize]),
            Shape::Scalar(Style::Plain) => Some(&self.text[written]),
            Shape::Scalar(_) => Some(&self.text[written.start + 1..written.end - 1]),
            Shape::Alias => self.key_text(data.payload),
            Shape::Mapping { .. } | Shape::Sequence { .. } => None,
        }
    }

    fn is_flow(&self, id: u32) -> bool {
        matches!(
            self.nodes[id as usize].shape,
            Shape::Mapping { flow: true } | Shape::Sequence { flow: true }
        )
    }

    /// The byte of a character that the parser counts.
    fn byte(&self, character: usize) -> usize {
        let lines = self.indented.partition_point(|&start| start < character);
        let within = lines
            .checked_sub(1)
            .map(|last| self.indented[last])
            .filter(|start| character < start + INDENTATION);
        let own = match within {
            Some(start) => start - (lines - 1) * INDENTATION,
            None => character - lines * INDENTATION,
        };
        self.characters.byte(self.text, own)
    }

    fn at(&self, offset: usize, byte: u8) -> bool {
        self.text.as_bytes().get(offset) == Some(&byte)
    }

    /// The first byte at or after `from` that is not space, line break or comment.
    fn trivia_end(&self, from: usize) -> usize {
        trivia_end(self.text, from)
    }

    /// The end of the node's anchor and tag, which begin at `from`, and of the trivia behind them
    /// when content follows. Others behind them are those of its first entry.
    fn skip_properties(&self, from: usize, mut left: Properties, content: bool) -> usize {
        let bytes = self.text.as_bytes();
        let (mut at, mut end) = (from, from);
        loop {
            match bytes.get(at) {
                Some(b'&') if left.anchor => left.anchor = false,
                Some(b'!') if left.tag => left.tag = false,
                _ => break,
            }
            let verbatim = self.text[at..].starts_with("!<");
            let stop = bytes[at..].iter().position(|byte| match byte {
                b' ' | b'\t' | b'\r' | b'\n' => true,
                b',' | b'[' | b']' | b'{' | b'}' => !verbatim,
                _ => false,
            });
            end = stop.map_or(bytes.len(), |length| at + length);
            at = self.trivia_end(end);
        }
        if content { at } else { end }
    }

    /// The end of the block scalar whose `|` or `>` stands at `start`; with `+` the blank lines
    /// after it are content and belong to it.
    fn block_scalar_end(
        &self,
        start: usize,
        indicator: u8,
        span: &Range<usize>,
    ) -> Result<usize, YamlError> {
        if !self.at(start, indicator) {
            return Err(self.lost(start));
        }
        let header = line_end(self.text, start);
        let end = span.end.max(header);
        if self.text[start..header].split('#').next().is_some_and(|header| header.contains('+')) {
            // The parser's end may be behind the indentation of what follows.
            let line = line_start(self.text, end);
            return Ok(
                if line > header && self.text[line..end].trim_start_matches(' ').is_empty() {
                    line
                } else {
                    end
                },
            );
        }
        let trimmed =
            header + self.text[header..end].trim_end_matches([' ', '\t', '\r', '\n']).len();
        Ok(line_end(self.text, trimmed))
    }

    /// Compares a start found here with the parser's.
    fn check(&self, offset: usize, span: &Range<usize>) -> Result<(), YamlError> {
        if span.start == offset { Ok(()) } else { Err(self.lost(offset)) }
    }

    fn lost(&self, offset: usize) -> YamlError {
        self.error(offset, "YAML in a layout that cannot be followed here")
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> YamlError {
        YamlError::new(position(self.text, offset.min(self.text.len())), message)
    }
}

/// The first byte at or after `from` that is not space, line break or comment.
pub(super) fn trivia_end(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'#' => at = line_end(text, at),
            _ => break,
        }
    }
    at
}

/// The end of the line that `offset` stands on, before its line break.
pub(super) fn line_end(text: &str, offset: usize) -> usize {
    let rest = &text.as_bytes()[offset..];
    offset + rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len())
}

/// Where the line of `offset` begins, a byte order mark left out.
pub(super) fn line_start(text: &str, offset: usize) -> usize {
    let start = text.as_bytes()[..offset]
        .iter()
        .rposition(|byte| matches!(byte, b'\n' | b'\r'))
        .map_or(0, |at| at + 1);
    if start == 0 && text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8().min(offset)
    } else {
        start
    }
}
