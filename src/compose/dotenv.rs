//! A reader for `.env` files, by Compose v2's rules.
//!
//! Compose reads the file itself. dkv needs it for the variables that say which files and which
//! project there are, and for variables that reach it decrypted.

use std::collections::BTreeMap;

use crate::model::interpolation::Template;

/// Why a `.env` text cannot be read; never shows a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct InvalidLine {
    line: usize,
    why: &'static str,
}

/// Reads `NAME=value` lines: comments, `export`, quotes (single: as is; double: escapes and
/// variables), values over several lines when quoted, `NAME: value`, and variables in values.
///
/// `inherited` gives the environment's variables, which take precedence inside values as they do in
/// Compose; the result holds what the file assigns.
///
/// # Errors
/// The first line that Compose v2 would refuse.
pub fn parse(
    text: &str,
    inherited: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, InvalidLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = BTreeMap::new();
    let mut rest = text;
    // The line of an offset, both counted on as the text is read.
    let (mut line, mut counted) = (1, 0);
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let offset = text.len() - rest.len();
        line += text[counted..offset].matches('\n').count();
        counted = offset;
        let invalid = |why| InvalidLine { line, why };
        let (name, after) = split_assignment(rest).map_err(invalid)?;
        let Some(after) = after else {
            // A name alone passes the environment's value on.
            if let Some(value) = inherited(name) {
                variables.insert(name.to_owned(), value);
            }
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        };
        let (value, after) = split_value(after).map_err(invalid)?;
        let value = value
            .expand(&|name| inherited(name).or_else(|| variables.get(name).cloned()))
            .map_err(invalid)?;
        variables.insert(name.to_owned(), value);
        rest = after;
    }
}

/// Splits `export NAME =` off; the rest is `None` for a name without a value.
fn split_assignment(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let statement = match text.strip_prefix("export") {
        Some(after) if after.starts_with([' ', '\t']) => after.trim_start_matches([' ', '\t']),
        _ => text,
    };
    let line = statement.lines().next().unwrap_or_default();
    let (name, value) = match line.find(['=', ':']) {
        Some(index) => (&line[..index], Some(&statement[index + 1..])),
        None => (line, None),
    };
    let name = name.trim_end();
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']'));
    if is_name {
        Ok((name, value))
    } else {
        Err("a variable's name may hold only letters, digits and `_.-[]`")
    }
}

/// A value, and whether its variables are still to be replaced.
enum Value {
    /// In single quotes: taken as it stands.
    Verbatim(String),
    /// Bare or in double quotes.
    Template(String),
}

impl Value {
    fn expand(self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, &'static str> {
        let text = match self {
            Self::Verbatim(text) => return Ok(text),
            Self::Template(text) => text,
        };
        let template =
            Template::parse(&text).map_err(|_| "the value has a malformed `$` expression")?;
        template.evaluate(lookup).map_err(|_| "the value needs a variable that is not set")
    }
}

/// Splits the value off that stands at the beginning of `text`.
fn split_value(text: &str) -> Result<(Value, &str), &'static str> {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let end = text.find('\n').unwrap_or(text.len());
        let line = &text[..end];
        let value = line.find(" #").map_or(line, |comment| &line[..comment]);
        return Ok((Value::Template(value.trim_end().to_owned()), &text[end..]));
    };
    let inside = &text[1..];
    let mut is_escaped = false;
    for (index, character) in inside.char_indices() {
        if character == quote && !is_escaped {
            let value = &inside[..index];
            let value = if quote == '\'' {
                Value::Verbatim(value.replace("\\'", "'"))
            } else {
                Value::Template(unescape(value))
            };
            let after = &inside[index + 1..];
            return Ok((value, &after[after.find('\n').unwrap_or(after.len())..]));
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    Err("a quote is not closed")
}

/// Undoes the backslashes of a double-quoted value; `\$` stays a literal dollar.
fn unescape(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            value.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some('$') => value.push_str("$$"),
            Some(escaped @ ('"' | '\\')) => value.push(escaped),
            other => {
                value.push('\\');
                value.extend(other);
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, String>, String> {
        let inherited = |name: &str| (name == "HOME").then(|| "/users".to_owned());
        parse(text, &inherited).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_read_as_compose_reads_them() {
        for (text, expected) in [
            ("A=1", "1"),
            ("A = 1 ", "1"),
            ("A: 1", "1"),
            ("export A=1\n", "1"),
            ("\u{feff}A=1\r\n", "1"),
            ("# comment\n\n  A=1 # comment", "1"),
            ("A=1#2", "1#2"),
            ("A=", ""),
            ("A= # comment", "# comment"),
            ("A=x # comment", "x"),
            ("A='x y' # comment", "x y"),
            ("A='$HOME'", "$HOME"),
            (r#"A="a\nb\"c\$d""#, "a\nb\"c$d"),
            ("A=\"one\ntwo\"", "one\ntwo"),
            ("A=$HOME/x", "/users/x"),
            ("B=b\nA=${B:-c}${NONE:-d}", "bd"),
            ("HOME=/srv\nA=$HOME", "/users"),
            ("A=1\nA=2", "2"),
        ] {
            assert_eq!(
                read(text).map(|mut all| all.remove("A")),
                Ok(Some(expected.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_alone_takes_the_inherited_value() {
        let all = read("HOME\nNONE\n").unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [("HOME".to_owned(), "/users".to_owned())]);
    }

    #[test]
    fn errors_name_the_line_and_no_value() {
        for text in
            ["A=1\nB='hush", "A=1\nB C=hush", "A=1\nB=${hush", "A=1\n=hush", "A=1\nB=${NONE:?hush}"]
        {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("line 2: ") && !error.contains("hush"), "{error}");
        }
    }
}
