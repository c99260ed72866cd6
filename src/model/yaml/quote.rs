//! Which scalars need quotes, and writing them.

use super::document::Style;

/// Writes `text` so that every reader takes it for this text: in the style `wanted` where that can
/// carry it, else plain, else in `quote` style, else with escapes in double quotes.
pub fn write_text(out: &mut String, text: &str, wanted: Option<Style>, quote: Style, flow: bool) {
    let style = match wanted {
        Some(Style::Single | Style::Double) => wanted,
        _ if is_plain_text(text, flow) => None,
        _ => Some(quote),
    };
    match style {
        None => out.push_str(text),
        Some(Style::Single) if !text.chars().any(needs_escape) => {
            out.push('\'');
            out.push_str(&text.replace('\'', "''"));
            out.push('\'');
        }
        Some(_) => write_escaped(out, text),
    }
}

/// Whether every reader takes unquoted `text` for exactly this text, inside brackets when `flow`.
pub fn is_plain_text(text: &str, flow: bool) -> bool {
    is_plain_syntax(text, flow) && !is_other_type(text)
}

/// Whether `text` without quotes is one scalar that spells it.
fn is_plain_syntax(text: &str, flow: bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    let indicator = match first {
        b'-' | b'?' | b':' => flow || matches!(bytes.get(1), None | Some(b' ')),
        _ => b",[]{}#&*!|>'\"%@`".contains(&first),
    };
    // Older readers take a colon or question mark inside brackets for an indicator wherever it
    // stands.
    let flow_indicator =
        flow && (last == b'-' || bytes.iter().any(|byte| b",[]{}:?".contains(byte)));
    !(indicator
        || flow_indicator
        || first == b' '
        || matches!(last, b' ' | b':')
        || text.starts_with("---")
        || text.starts_with("...")
        || text.contains(": ")
        || text.contains(" #")
        || text.chars().any(needs_escape))
}

/// Whether plain `text` is null, a boolean, a number, a timestamp, a merge or a default key to a
/// reader of YAML 1.1 (<https://yaml.org/type/>) or of the 1.2 core schema.
fn is_other_type(text: &str) -> bool {
    const WORDS: [&str; 15] = [
        "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "=", ".nan", "nan",
        ".inf",
    ];
    if WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    is_number(unsigned) || unsigned.eq_ignore_ascii_case(".inf") || is_timestamp(text)
}

/// Integers of any base, with underscores and in base 60, and floating point numbers.
fn is_number(unsigned: &str) -> bool {
    let prefixed = unsigned.get(..2).map(str::to_ascii_lowercase);
    match prefixed.as_deref() {
        Some("0x") => {
            return is_made_of(&unsigned[2..], |byte| byte.is_ascii_hexdigit() || byte == b'_');
        }
        Some("0o" | "0b") => {
            return is_made_of(&unsigned[2..], |byte| byte.is_ascii_digit() || byte == b'_');
        }
        _ => {}
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let dots = mantissa.bytes().filter(|&byte| byte == b'.').count();
    let colons =
        mantissa.split(':').count() > 1 && mantissa.split(':').all(|part| !part.is_empty());
    is_made_of(exponent, |byte| byte.is_ascii_digit())
        && dots <= 1
        && mantissa.bytes().any(|byte| byte.is_ascii_digit())
        && mantissa.bytes().all(|byte| {
            byte.is_ascii_digit() || matches!(byte, b'_' | b'.') || (colons && byte == b':')
        })
}

fn is_made_of(text: &str, accepted: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(accepted)
}

/// A date, alone or with a time behind it.
fn is_timestamp(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let day = rest.split(['T', 't', ' ', '\t']).next().unwrap_or(rest);
    [(year, 4..=4), (month, 1..=2), (day, 1..=2)].iter().all(|(number, lengths)| {
        lengths.contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// What only an escape in double quotes carries safely: controls, line breaks of any kind, byte
/// order marks.
fn needs_escape(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn write_escaped(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if needs_escape(character) => {
                let code = u32::from(character);
                out.push_str(&if code <= 0xff {
                    format!("\\x{code:02X}")
                } else {
                    format!("\\u{code:04X}")
                });
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}
