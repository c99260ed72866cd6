//! The `Link` header of paged lists (RFC 8288, as the distribution specification uses it).

use reqwest::Url;

/// The target of the `rel="next"` link among the values of all `Link` headers.
pub fn next<'a>(values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    values.flat_map(links).find(|link| link.is_next()).map(|link| link.target)
}

/// One link: its target and its parameters, unparsed.
struct Link<'a> {
    target: &'a str,
    parameters: &'a str,
}

impl Link<'_> {
    /// Whether the (first) `rel` parameter contains the relation `next`.
    fn is_next(&self) -> bool {
        let relation = split_outside_quotes(self.parameters, b';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("rel").then(|| value.trim().trim_matches('"'))
        });
        relation.is_some_and(|names| {
            names.split_ascii_whitespace().any(|name| name.eq_ignore_ascii_case("next"))
        })
    }
}

/// The well-formed links of one header value; whatever else stands there is skipped.
fn links(mut value: &str) -> impl Iterator<Item = Link<'_>> {
    std::iter::from_fn(move || {
        // Commas may stand inside the angle brackets, so the target ends before the list is split.
        let (_, rest) = value.split_once('<')?;
        let (target, rest) = rest.split_once('>')?;
        let parameters = split_outside_quotes(rest, b',').next().unwrap_or_default();
        value = &rest[parameters.len()..];
        Some(Link { target: target.trim(), parameters })
    })
}

/// Splits at a separator that does not stand inside a quoted string.
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(move |c: char| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match c {
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        !is_quoted && c == char::from(separator)
    })
}

/// What a link to the next page asks for: its query. Whoever follows it asks the server that the list
/// came from, at the address of the list: registries behind a proxy name the host, the port or the
/// scheme that they see themselves, and no link leads anywhere else.
///
/// # Errors
/// Why the link is not followed.
pub fn query(page: &Url, target: &str) -> Result<String, &'static str> {
    let next = page.join(target).map_err(|_| "the link to its next page is no address")?;
    match next.query().filter(|query| !query.is_empty()) {
        Some(query) => Ok(query.to_owned()),
        None if next.origin() != page.origin() => Err("its next page is on another host"),
        None => Err("its pages go in circles"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let found = |value| next([value].into_iter());
        assert_eq!(
            found(r#"</v2/a/tags/list?last=x&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=x&n=2")
        );
        assert_eq!(found("<a,b;c>; rel=next"), Some("a,b;c"));
        assert_eq!(
            found(r#"<p>; rel="prev", <n>; title="a, \"<b>\""; REL="last NEXT""#),
            Some("n")
        );
        for none in [
            "",
            "<a>",
            "a; rel=next",
            "<a; rel=next",
            r#"<a>; rel="prev""#,
            r#"<a>; title="rel=next""#,
            "<a>; relx=next",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
        assert_eq!(next(["<p>; rel=prev", "<n>; rel=next"].into_iter()), Some("n"));
    }

    #[test]
    fn of_a_link_only_the_query_counts() {
        let page: Url = "https://r.example:5000/v2/a/tags/list?n=1000".parse().unwrap();
        for (target, expected) in [
            ("/v2/a/tags/list?last=1", "last=1"),
            ("?last=1&n=7", "last=1&n=7"),
            ("tags/list?next_page=a%20b", "next_page=a%20b"),
            ("http://r.example/v2/a/tags/list?last=1", "last=1"),
            ("https://user@internal:8443/x?last=1#y", "last=1"),
            ("//evil.example/x?last=a b", "last=a%20b"),
        ] {
            assert_eq!(query(&page, target).as_deref(), Ok(expected), "{target}");
        }
        for (target, why) in [
            ("https://evil.example/x", "another host"),
            ("file:///etc/passwd", "another host"),
            ("/v2/a/tags/list", "circles"),
            ("?", "circles"),
            ("https://[", "no address"),
        ] {
            assert!(query(&page, target).unwrap_err().contains(why), "{target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_too_strange(value in "[<>;,\"\\\\=a-z relnxt]{0,60}") {
            let _ = next([value.as_str()].into_iter());
        }
    }
}
