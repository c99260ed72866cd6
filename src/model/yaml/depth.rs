//! A look at the nesting of brackets before parsing.
//!
//! The parser reads ahead over a whole flow collection, in time that grows with its length times
//! its depth: 100,000 nested brackets keep it busy for half a minute. This scan follows just enough
//! of the grammar to know which brackets nest; block collections are counted while parsing.

use super::document::MAX_DEPTH;
use super::parse::line_end;

/// Where the lines begin that go on with a flow collection. The error is where brackets first nest
/// deeper than [`MAX_DEPTH`].
pub fn flow_lines(text: &str) -> Result<Vec<usize>, usize> {
    let at = text.len() - text.trim_start_matches('\u{feff}').len();
    let mut scan = Scan { text, bytes: text.as_bytes(), at, flow_lines: Vec::new() };
    let mut open = Open::Nothing;
    while scan.at < text.len() {
        let line = scan.at;
        scan.skip(|byte| byte == b' ');
        let indent = scan.at - line;
        let blank = matches!(scan.peek(), None | Some(b'\r' | b'\n'));
        let marker = text[line..].starts_with("---");
        open = match open {
            Open::BlockScalar(parent) | Open::Plain(parent)
                if blank || (indent as isize > parent && !marker) =>
            {
                open
            }
            _ if blank => Open::Nothing,
            _ => scan.line(line, indent, marker)?,
        };
        scan.at = line_end(text, scan.at);
        scan.skip(|byte| matches!(byte, b'\r' | b'\n'));
    }
    Ok(scan.flow_lines)
}

/// What the next line may continue, and the column that its lines must be indented beyond.
#[derive(Clone, Copy)]
enum Open {
    Nothing,
    Plain(isize),
    BlockScalar(isize),
}

struct Scan<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    flow_lines: Vec<usize>,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, accepted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&accepted) {
            self.at += 1;
        }
    }

    fn is_break_or_space(byte: Option<&u8>) -> bool {
        matches!(byte, None | Some(b' ' | b'\t' | b'\r' | b'\n'))
    }

    /// Scans one line of block context, and what begins on it in quotes or brackets, to its end.
    fn line(&mut self, line: usize, indent: usize, marker: bool) -> Result<Open, usize> {
        let mut parent = indent as isize - 1;
        if marker {
            self.at += 3;
            parent = -1;
        }
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
            let Some(byte) = self.peek() else { return Ok(Open::Nothing) };
            match byte {
                b'\r' | b'\n' | b'#' => return Ok(Open::Nothing),
                b'-' | b'?' | b':' if Self::is_break_or_space(self.bytes.get(self.at + 1)) => {
                    parent = parent.max((self.at - line) as isize * isize::from(byte != b':'));
                    self.at += 1;
                }
                b'&' | b'!' | b'*' => self.skip(|byte| !Self::is_break_or_space(Some(&byte))),
                b'[' | b'{' => self.brackets()?,
                b'"' | b'\'' => self.quotes(byte),
                b'|' | b'>' => return Ok(Open::BlockScalar(parent)),
                _ => {
                    let start = self.at;
                    let end = line_end(self.text, start);
                    let plain = &self.bytes[start..end];
                    let colon = (0..plain.len()).find(|&at| {
                        plain[at] == b':' && Self::is_break_or_space(plain.get(at + 1))
                    });
                    match colon {
                        Some(colon) => {
                            parent = parent.max((start - line) as isize);
                            self.at = start + colon + 1;
                        }
                        None if self.text[start..end].contains(" #") => return Ok(Open::Nothing),
                        None => return Ok(Open::Plain(parent)),
                    }
                }
            }
        }
    }

    /// Skips a flow collection; the error is where it nests too deep.
    fn brackets(&mut self) -> Result<(), usize> {
        let mut depth = 0;
        let (mut token_begins, mut after_quotes) = (true, false);
        while let Some(byte) = self.peek() {
            let after_space = self.at == 0 || Self::is_break_or_space(self.bytes.get(self.at - 1));
            match byte {
                b'[' | b'{' => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(self.at);
                    }
                    token_begins = true;
                }
                b']' | b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                    token_begins = false;
                }
                b',' => token_begins = true,
                b':' if after_quotes || Self::is_break_or_space(self.bytes.get(self.at + 1)) => {
                    token_begins = true
                }
                b'"' | b'\'' if token_begins => {
                    self.quotes(byte);
                    (token_begins, after_quotes) = (false, true);
                    continue;
                }
                b'#' if after_space => {
                    self.at = line_end(self.text, self.at);
                    continue;
                }
                b'&' | b'!' if token_begins => {
                    self.skip(|byte| {
                        !matches!(byte, b' ' | b'\r' | b'\n' | b',' | b'[' | b']' | b'{' | b'}')
                    });
                    continue;
                }
                b'\n' => self.flow_lines.push(self.at + 1),
                b' ' | b'\t' | b'\r' => {}
                _ => token_begins = false,
            }
            after_quotes = matches!(byte, b']' | b'}');
            self.at += 1;
        }
        Ok(())
    }

    /// Skips a quoted scalar.
    fn quotes(&mut self, quote: u8) {
        self.at = quoted_end(self.bytes, self.at, quote);
    }
}

/// The end of the quoted scalar that begins at `start`, its closing quote included.
pub fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if quote == b'"' => at += 2,
            _ if byte != quote => at += 1,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            _ => return at + 1,
        }
    }
    bytes.len()
}
