//! Text from outside, made safe for a terminal.

use std::borrow::Cow;

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
