//! Compose's variable interpolation: `$NAME`, `${NAME}`, `${NAME:-default}` and their relatives.
//!
//! The rules are Compose v2's. Compose v1 differs in four ways: it knows neither `+` nor `:+`, it
//! ends a default at the first `}`, it does not interpolate inside a default, and it refuses a `$`
//! that begins nothing, which v2 keeps. A template without these means the same to both.

use std::fmt;

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid Compose value: {why}")]
pub struct InvalidTemplate {
    text: String,
    why: &'static str,
}

/// A `${NAME:?message}` whose variable has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the variable `{variable}` must be \
    set{}{message}", if .message.is_empty() { "" } else { ": " })]
pub struct MissingVariable {
    variable: String,
    message: String,
}

/// A Compose value before interpolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable { name: String, rule: Option<Rule> },
}

/// What follows the variable's name, as in `${NAME:-default}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    operator: Operator,
    /// With a colon, an empty value counts as none.
    empty_is_unset: bool,
    operand: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `-`: the operand when there is no value.
    Default,
    /// `+`: the operand when there is a value, else nothing.
    Alternative,
    /// `?`: an error when there is no value.
    Required,
}

impl Template {
    /// Parses a value as it stands in a Compose file.
    ///
    /// # Errors
    /// A `${` without a name, with something else than an operator after it, or without its `}`.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        parse(text).map_err(|why| InvalidTemplate { text: text.to_owned(), why })
    }

    /// The names of all variables in order of appearance, those inside defaults included, each
    /// once.
    #[must_use]
    pub fn variables(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.collect_variables(&mut names);
        names
    }

    fn collect_variables<'a>(&'a self, names: &mut Vec<&'a str>) {
        for part in &self.parts {
            let Part::Variable { name, rule } = part else { continue };
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
            if let Some(rule) = rule {
                rule.operand.collect_variables(names);
            }
        }
    }

    /// The value when no variable is set; `None` if a required variable is missing then.
    #[must_use]
    pub fn default_value(&self) -> Option<String> {
        self.evaluate(&|_| None).ok()
    }

    /// The value with the variables that `lookup` knows; a variable without value or default is
    /// empty.
    ///
    /// # Errors
    /// The first required variable that is missing.
    pub fn evaluate(
        &self,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, MissingVariable> {
        let mut value = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => value.push_str(text),
                Part::Variable { name, rule: None } => {
                    value.push_str(&lookup(name).unwrap_or_default())
                }
                Part::Variable { name, rule: Some(rule) } => {
                    value.push_str(&rule.evaluate(name, lookup)?)
                }
            }
        }
        Ok(value)
    }
}

impl Rule {
    fn evaluate(
        &self,
        name: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, MissingVariable> {
        let value = lookup(name).filter(|value| !(self.empty_is_unset && value.is_empty()));
        match (self.operator, value) {
            (Operator::Default | Operator::Required, Some(value)) => Ok(value),
            (Operator::Default, None) | (Operator::Alternative, Some(_)) => {
                self.operand.evaluate(lookup)
            }
            (Operator::Alternative, None) => Ok(String::new()),
            (Operator::Required, None) => Err(MissingVariable {
                variable: name.to_owned(),
                message: self.operand.evaluate(lookup)?,
            }),
        }
    }
}

/// Writes the template back in its canonical spelling: braces around every variable.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('$', "$$"))?,
                Part::Variable { name, rule: None } => write!(f, "${{{name}}}")?,
                Part::Variable { name, rule: Some(rule) } => {
                    let colon = if rule.empty_is_unset { ":" } else { "" };
                    let operator = match rule.operator {
                        Operator::Default => '-',
                        Operator::Alternative => '+',
                        Operator::Required => '?',
                    };
                    write!(f, "${{{name}{colon}{operator}{}}}", rule.operand)?;
                }
            }
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Template, &'static str> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            literal.push('$');
            rest = after;
            continue;
        }
        let (variable, after) = if let Some(inside) = rest.strip_prefix('{') {
            let end = closing_brace(inside).ok_or("a `${` is not closed")?;
            (parse_braced(&inside[..end])?, &inside[end + 1..])
        } else if let Some((name, after)) = split_name(rest) {
            (Part::Variable { name: name.to_owned(), rule: None }, after)
        } else {
            literal.push('$');
            continue;
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(variable);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(Template { parts })
}

/// Parses what stands between the braces.
fn parse_braced(inside: &str) -> Result<Part, &'static str> {
    let (name, after) = split_name(inside).ok_or("`${` must be followed by a name")?;
    let name = name.to_owned();
    if after.is_empty() {
        return Ok(Part::Variable { name, rule: None });
    }
    let (empty_is_unset, after) = match after.strip_prefix(':') {
        Some(after) => (true, after),
        None => (false, after),
    };
    let operator = match after.chars().next() {
        Some('-') => Operator::Default,
        Some('+') => Operator::Alternative,
        Some('?') => Operator::Required,
        _ => {
            return Err(
                "a variable's name must be followed by `}`, `-`, `+` or `?`, the last three with \
                    or without `:`",
            );
        }
    };
    Ok(Part::Variable {
        name,
        rule: Some(Rule { operator, empty_is_unset, operand: parse(&after[1..])? }),
    })
}

/// Where the brace that was opened before `text` is closed again.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// Splits a leading `[A-Za-z_][A-Za-z0-9_]*` off.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let begins_well = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    (end > 0 && begins_well).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `A` is `a`, `EMPTY` is empty, everything else is unset.
    fn evaluate(text: &str) -> Result<String, String> {
        let template = Template::parse(text).map_err(|error| error.to_string())?;
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        template.evaluate(&lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_is_evaluated() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$A", "a"),
            ("${A}", "a"),
            ("$A-b", "a-b"),
            ("x${A}y$NONE", "xay"),
            ("$$A", "$A"),
            ("$$$A", "$a"),
            ("${NONE:-d}", "d"),
            ("${NONE-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:-d}", "a"),
            ("${NONE:-}", ""),
            ("${A:+b}", "b"),
            ("${EMPTY:+b}", ""),
            ("${EMPTY+b}", "b"),
            ("${NONE+b}", ""),
            ("${A:?gone}", "a"),
            ("${EMPTY?gone}", ""),
            ("${NONE:-${A}}", "a"),
            ("${NONE:-${ALSO:-deep}}/x", "deep/x"),
            ("${NONE:-x:-y?z}", "x:-y?z"),
            ("${NONE:-{}}", "{}"),
            ("${A:-{}}", "a"),
            ("${A}}", "a}"),
            ("a$ $1$", "a$ $1$"),
            ("${NONE:-a/b}:${NONE2:-latest}", "a/b:latest"),
        ] {
            assert_eq!(evaluate(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_required_variable_is_named() {
        assert_eq!(
            evaluate("${NONE:?say which}").unwrap_err(),
            "the variable `NONE` must be set: say which"
        );
        assert_eq!(evaluate("${EMPTY:?}").unwrap_err(), "the variable `EMPTY` must be set");
    }

    #[test]
    fn malformed_templates_are_refused() {
        for text in [
            "${",
            "${A",
            "${}",
            "${1}",
            "${A!b}",
            "${A:b}",
            "${A:-${B}",
            "${A:-{}",
            "${ A}",
            "${A }",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_are_listed_once_and_in_order() {
        let template = Template::parse("${B:-${A:-x}}$C${A}").unwrap();
        assert_eq!(template.variables(), ["B", "A", "C"]);
        assert!(Template::parse("a/b:1 $$5").unwrap().variables().is_empty());
    }

    #[test]
    fn the_default_of_an_image_line_is_its_reference() {
        let template =
            Template::parse("${DK_X_IMAGE:-public.ecr.aws/a/x}:${DK_X_TAG:-latest}").unwrap();
        assert_eq!(template.default_value().as_deref(), Some("public.ecr.aws/a/x:latest"));
        assert_eq!(Template::parse("${TAG:?}").unwrap().default_value(), None);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(text in "[a$A{}:?+ -]{0,24}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in "\\PC{0,40}") {
            let _ = Template::parse(&text);
        }
    }
}
