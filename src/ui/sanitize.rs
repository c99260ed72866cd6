//! Text from outside, made safe for a terminal.

use std::borrow::Cow;
use std::ops::Range;

/// The text without terminal escape sequences and control characters; line breaks and tabs stay.
///
/// Also removed are the characters that reorder what is shown (Unicode's bidirectional controls).
#[must_use]
pub fn sanitize(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                match characters.next_if(|c| matches!(c, '[' | ']' | 'P' | 'X' | '^' | '_')) {
                    Some('[') => skip_control_sequence(&mut characters),
                    Some(_) => skip_control_string(&mut characters),
                    // A two-character escape, perhaps with intermediate characters (ECMA-35).
                    None => {
                        while characters.next_if(|c| matches!(c, ' '..='/')).is_some() {}
                        characters.next_if(|c| matches!(c, '0'..='~'));
                    }
                }
            }
            '\u{9b}' => skip_control_sequence(&mut characters),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_control_string(&mut characters),
            _ if is_unsafe(character) => {}
            _ => clean.push(character),
        }
    }
    Cow::Owned(clean)
}

/// The sanitised text as one line.
#[must_use]
pub fn sanitize_line(text: &str) -> String {
    sanitize(text).split(['\n', '\t']).collect::<Vec<_>>().join(" ")
}

/// The text with the passwords in its addresses and image names hidden: `https://***@host/web`,
/// `user:***@host/web:1.0`. Digests, `web:1.0@sha256:…`, are none.
#[must_use]
pub fn hide_passwords(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let is_boundary = |c: char| c.is_whitespace() || matches!(c, '`' | '\'' | '"' | '\\' | ',');
    let mut hidden = String::with_capacity(text.len());
    for word in text.split_inclusive(is_boundary) {
        match secret_in(word) {
            Some(secret) => {
                hidden.extend([&word[..secret.start], "***", &word[secret.end..]]);
            }
            None => hidden.push_str(word),
        }
    }
    Cow::Owned(hidden)
}

/// Where the password stands in a word that begins like `https://user:password@host` or
/// `user:password@host`; where no user is named, a token stands in its place.
fn secret_in(word: &str) -> Option<Range<usize>> {
    let scheme = word.find("://");
    let start = scheme.map_or(0, |at| at + 3);
    let end = word.rmatch_indices('@').map(|(at, _)| at).find(|at| {
        let after = &word[at + 1..];
        // A digest, or a variable that holds one.
        let is_digest = after.starts_with("sha256:") || after.starts_with("sha512:");
        !is_digest && (scheme.is_some() || !after.starts_with('$'))
    })?;
    let login = word.get(start..end)?;
    match login.find(':') {
        Some(colon) => Some(start + colon + 1..end),
        None if scheme
            .is_some_and(|at| word[..at].ends_with("http") || word[..at].ends_with("https")) =>
        {
            Some(start..end)
        }
        None => None,
    }
}

/// Whether a terminal might act on the character.
pub(super) fn is_unsafe(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t'))
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips the parameters and the final character of a control sequence (ECMA-48, 5.4).
fn skip_control_sequence(characters: &mut Characters<'_>) {
    while characters.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    characters.next_if(|c| matches!(c, '@'..='~'));
}

/// Skips a control string (ECMA-48, 5.6) up to its terminator. One without a terminator ends with
/// its line, so that a stray introducer cannot swallow everything that follows.
fn skip_control_string(characters: &mut Characters<'_>) {
    while let Some(character) = characters.next_if(|c| *c != '\n') {
        match character {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                characters.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_vanish_and_text_stays() {
        for (text, clean) in [
            ("plain ünïcode → ✓", "plain ünïcode → ✓"),
            ("a\nb\tc", "a\nb\tc"),
            ("a\r\nb", "a\nb"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{9b}2Jx", "x"),
            ("\u{1b}(Bx", "x"),
            ("\u{1b}7x", "x"),
            ("\u{1b}Pq…", ""),
            ("\u{1b}]never ends\nnext line", "\nnext line"),
            ("\u{1b}[31", ""),
            ("bell\u{7} null\0 delete\u{7f} backspace\u{8}", "bell null delete backspace"),
            ("1.42\u{202e}24.1", "1.4224.1"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(sanitize(text), clean, "{text:?}");
        }
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(sanitize_line("1.42\nwarning: forged\ttext\r\n"), "1.42 warning: forged text ");
    }

    #[test]
    fn passwords_are_hidden_and_digests_are_not() {
        for (text, hidden) in [
            ("https://user:s3cr3t@reg.example/web:1.0", "https://user:***@reg.example/web:1.0"),
            (
                "f.yml:3: https://ghp_x@reg.example/web is",
                "f.yml:3: https://***@reg.example/web is",
            ),
            ("`user:s3cr3t@reg.example:5000/web:1.0`", "`user:***@reg.example:5000/web:1.0`"),
            ("u:s3:c@r3t@reg.example/web@sha256:1a", "u:***@reg.example/web@sha256:1a"),
            (r#"{"image": "u:p@r/web"}"#, r#"{"image": "u:***@r/web"}"#),
            ("\"a\\nu:p@r/web\"", "\"a\\nu:***@r/web\""),
            ("http://u:p@proxy:3128: refused", "http://u:***@proxy:3128: refused"),
        ] {
            assert_eq!(hide_passwords(text), hidden);
        }
        for text in [
            "web:1.0@sha256:1a",
            "r.example:5000/web:1.0@sha256:1a",
            "web:${TAG:-1.0}@${DIGEST}",
            "ssh://user@host:22",
            "alice@example.org",
            "12:30 @ noon",
        ] {
            assert_eq!(hide_passwords(text), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_survives(text in "(\\PC|[\u{0}-\u{9f}]|\u{202e}|\u{1b}\\[|\u{1b}\\])*") {
            prop_assert!(!sanitize(&text).contains(is_unsafe));
        }

        #[test]
        fn clean_text_is_unchanged(text in "\\PC*") {
            prop_assume!(!text.contains(is_unsafe));
            prop_assert_eq!(sanitize(&text), text.as_str());
        }
    }
}
