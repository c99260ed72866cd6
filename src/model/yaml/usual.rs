//! The layout that manifests are mostly written in, read in one pass.
//!
//! The whole grammar takes saphyr-parser some 16 ms a megabyte, most of a short command's time.
//! This reader knows a small part of it, in which nothing needs looking ahead: block mappings and
//! lists, scalars and flow collections that end on their line, comments. Where anything else comes
//! up it gives up without saying why, and the whole grammar decides, errors included. So it may
//! refuse what it likes, but what it reads must be read alike; a property test compares the two.

use super::document::YamlError;
use super::parse::{Builder, line_end};
use saphyr_parser::ScalarStyle;

/// YAML takes no longer text for a key; ours may be a little shorter.
const LONGEST_KEY: usize = 1_000;

/// Reads `text` into `builder`; `None` if it is laid out in another way, or wrong.
pub fn read<'t>(builder: &mut Builder<'t>, text: &'t str) -> Option<()> {
    // Tabs, carriage returns and control characters have rules of their own; EF begins a byte order
    // mark.
    let is_usual = |byte: u8| byte == b'\n' || (byte >= b' ' && byte != 0x7f && byte != 0xef);
    if !text.bytes().all(is_usual) {
        return None;
    }
    let mut reader = Reader { builder, text, bytes: text.as_bytes(), at: 0, column: Some(0) };
    reader.next_content();
    if reader.column != Some(0) {
        return None;
    }
    reader.block_mapping(0)?;
    reader.column.is_none().then_some(())
}

/// What follows on the line behind a key or a dash.
enum Behind {
    Nothing,
    Content,
}

struct Reader<'b, 't> {
    builder: &'b mut Builder<'t>,
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// The column of the content that [`Self::next_content`] found; `None` at the end.
    column: Option<usize>,
}

impl Reader<'_, '_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// Whether a space, a line break or the end stands at `at`.
    fn is_space(&self, at: usize) -> bool {
        matches!(self.byte(at), None | Some(b' ' | b'\n'))
    }

    fn skip_spaces(&mut self) {
        while self.byte(self.at) == Some(b' ') {
            self.at += 1;
        }
    }

    /// Goes on to the next line with content. Stands at the beginning of a line.
    fn next_content(&mut self) {
        loop {
            let line = self.at;
            self.skip_spaces();
            match self.byte(self.at) {
                None => {
                    self.column = None;
                    return;
                }
                Some(b'\n') => self.at += 1,
                Some(b'#') => self.at = (line_end(self.text, self.at) + 1).min(self.bytes.len()),
                Some(_) => {
                    self.column = Some(self.at - line);
                    return;
                }
            }
        }
    }

    /// What follows behind the indicator that ends at `self.at`; its line is left if that is
    /// nothing.
    fn behind(&mut self) -> Option<Behind> {
        let indicator = self.at;
        self.skip_spaces();
        match self.byte(self.at) {
            None | Some(b'\n' | b'#') => self.end_line(indicator).map(|()| Behind::Nothing),
            Some(_) => Some(Behind::Content),
        }
    }

    /// Leaves a line on which nothing but a comment follows the content that ended at `content`.
    fn end_line(&mut self, content: usize) -> Option<()> {
        self.skip_spaces();
        match self.byte(self.at) {
            None => {}
            Some(b'\n') => self.at += 1,
            Some(b'#') if self.at > content => {
                self.at = (line_end(self.text, self.at) + 1).min(self.bytes.len())
            }
            Some(_) => return None,
        }
        self.next_content();
        Some(())
    }

    /// Whether a list's dash stands here.
    fn is_at_dash(&self) -> bool {
        self.byte(self.at) == Some(b'-') && self.byte(self.at + 1) == Some(b' ')
    }

    /// Reads a mapping whose keys stand at `column`, at the first of them.
    fn block_mapping(&mut self, column: usize) -> Option<()> {
        done(self.builder.collection(true, 0, false, &(self.at..self.at)))?;
        loop {
            let key = self.scalar(false)?;
            if self.at - key > LONGEST_KEY
                || self.byte(self.at) != Some(b':')
                || !self.is_space(self.at + 1)
            {
                return None;
            }
            self.at += 1;
            let indicator = self.at;
            match self.behind()? {
                Behind::Content => self.line_value()?,
                Behind::Nothing => self.value_below(column, indicator)?,
            }
            match self.column {
                Some(next) if next == column => {}
                Some(next) if next > column => return None,
                _ => return done(self.builder.close()),
            }
        }
    }

    /// Reads what stands on the lines below the key of a mapping at `column`; null if that is less.
    fn value_below(&mut self, column: usize, indicator: usize) -> Option<()> {
        match self.column {
            Some(next) if next > column && self.is_at_dash() => self.block_sequence(next),
            Some(next) if next > column => self.block_mapping(next),
            Some(next) if next == column && self.is_at_dash() => self.block_sequence(next),
            _ => {
                done(self.builder.scalar("", ScalarStyle::Plain, 0, None, &(indicator..indicator)))
            }
        }
    }

    /// Reads a list whose dashes stand at `column`, at the first of them.
    fn block_sequence(&mut self, column: usize) -> Option<()> {
        done(self.builder.collection(false, 0, false, &(self.at..self.at)))?;
        loop {
            let dash = self.at;
            self.at += 1;
            let Behind::Content = self.behind()? else { return None };
            if self.is_at_key() {
                self.block_mapping(column + (self.at - dash))?;
            } else {
                self.line_value()?;
            }
            match self.column {
                Some(next) if next == column && self.is_at_dash() => {}
                Some(next) if next > column => return None,
                _ => return done(self.builder.close()),
            }
        }
    }

    /// Whether a scalar with a colon behind it stands here.
    fn is_at_key(&self) -> bool {
        let end = self.scalar_end(false).map(|(_, end)| end);
        end.is_some_and(|end| self.byte(end) == Some(b':') && self.is_space(end + 1))
    }

    /// Reads a scalar or a flow collection and leaves its line.
    fn line_value(&mut self) -> Option<()> {
        self.value(false)?;
        self.end_line(self.at)
    }

    fn value(&mut self, flow: bool) -> Option<()> {
        match self.byte(self.at)? {
            b'{' => self.flow_collection(true),
            b'[' => self.flow_collection(false),
            _ => self.scalar(flow).map(drop),
        }
    }

    /// Reads `{…}` or `[…]`.
    fn flow_collection(&mut self, mapping: bool) -> Option<()> {
        let close = if mapping { b'}' } else { b']' };
        done(self.builder.collection(mapping, 0, false, &(self.at..self.at + 1)))?;
        self.at += 1;
        self.skip_spaces();
        if self.byte(self.at) != Some(close) {
            self.flow_entries(mapping, close)?;
        }
        self.at += 1;
        done(self.builder.close())
    }

    /// Reads what stands between brackets, up to the closing one.
    fn flow_entries(&mut self, mapping: bool, close: u8) -> Option<()> {
        loop {
            if mapping {
                self.scalar(true)?;
                if self.byte(self.at) != Some(b':') || self.byte(self.at + 1) != Some(b' ') {
                    return None;
                }
                self.at += 1;
                self.skip_spaces();
            }
            self.value(true)?;
            self.skip_spaces();
            match self.byte(self.at) {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => return Some(()),
                _ => return None,
            }
            self.skip_spaces();
        }
    }

    /// Reads a scalar and returns where it began.
    fn scalar(&mut self, flow: bool) -> Option<usize> {
        let start = self.at;
        let (style, end) = self.scalar_end(flow)?;
        let quote = usize::from(style != ScalarStyle::Plain);
        done(self.builder.scalar(
            &self.text[start + quote..end - quote],
            style,
            0,
            None,
            &(start..end),
        ))?;
        self.at = end;
        Some(start)
    }

    /// How the scalar that stands here is written, and where it ends.
    fn scalar_end(&self, flow: bool) -> Option<(ScalarStyle, usize)> {
        let rest = &self.bytes[self.at..];
        match *rest.first()? {
            quote @ (b'\'' | b'"') => {
                let length = rest[1..]
                    .iter()
                    .position(|&byte| byte == quote || byte == b'\\' || byte == b'\n')?
                    + 2;
                let is_closed = rest[length - 1] == quote
                    && (quote == b'"' || rest.get(length) != Some(&quote));
                let style = if quote == b'"' {
                    ScalarStyle::DoubleQuoted
                } else {
                    ScalarStyle::SingleQuoted
                };
                is_closed.then_some((style, self.at + length))
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'/' | b'$' | b'(' | b'~' | 0x80.. => {
                Some((ScalarStyle::Plain, self.plain_end(flow)?))
            }
            _ => None,
        }
    }

    /// The end of the unquoted scalar that begins here, spaces behind it left out.
    fn plain_end(&self, flow: bool) -> Option<usize> {
        let mut end = self.at;
        let mut at = self.at;
        while let Some(byte) = self.byte(at) {
            match byte {
                b'\n' => break,
                b' ' => {}
                b'#' if end < at => break,
                b':' if self.is_space(at + 1) => break,
                // Readers disagree about these.
                b':' | b'-' if flow && self.byte(at + 1).is_some_and(is_bracket_or_comma) => {
                    return None;
                }
                _ if flow && is_bracket_or_comma(byte) => break,
                _ => end = at + 1,
            }
            at += 1;
        }
        Some(end)
    }
}

/// Whether `byte` ends an unquoted scalar between brackets.
fn is_bracket_or_comma(byte: u8) -> bool {
    matches!(byte, b',' | b'[' | b']' | b'{' | b'}')
}

/// Whether the builder took an event; what it does not take, the whole grammar explains.
fn done(taken: Result<(), YamlError>) -> Option<()> {
    taken.ok()
}
