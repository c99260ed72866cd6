//! Challenges of registries and answers of token servers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde::Deserialize;

use super::credentials::Secret;
use crate::model::reference::is_loopback_host;

/// How a registry wants requests to be authorised (`WWW-Authenticate`, RFC 9110 section 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server (the distribution project's token authentication).
    Bearer {
        /// The token server.
        realm: Url,
        /// The registry's name at the token server.
        service: Option<String>,
        /// What the refused request needed.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge among the values of all `WWW-Authenticate` headers: Bearer before Basic.
    ///
    /// # Errors
    /// Why none is usable.
    pub fn parse<'a>(
        values: impl Iterator<Item = &'a str>,
        registry: &str,
    ) -> Result<Self, String> {
        let challenges: Vec<RawChallenge> = values.flat_map(challenges).collect();
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.has_scheme("bearer")) {
            let realm = bearer.parameter("realm").ok_or("its challenge names no token server")?;
            return Ok(Self::Bearer {
                realm: token_server(realm, registry)?,
                service: bearer.parameter("service").map(str::to_owned),
                scope: bearer
                    .parameter("scope")
                    .filter(|scope| !scope.is_empty())
                    .map(str::to_owned),
            });
        }
        if challenges.iter().any(|challenge| challenge.has_scheme("basic")) {
            return Ok(Self::Basic);
        }
        Err("it names no way of logging in that dkv knows".to_owned())
    }

    /// The scope to ask for in order to read the repository at `path`. A registry whose scope does
    /// not depend on the repository (ECR Public says `aws`) keeps it.
    #[must_use]
    pub fn scope_for(&self, path: &str) -> String {
        match self {
            Self::Bearer { scope: Some(scope), .. } if !scope.starts_with("repository:") => {
                scope.clone()
            }
            _ => format!("repository:{path}:pull"),
        }
    }
}

/// The token server's address, if it is safe to send a login there: TLS, or loopback for a registry
/// that is itself on loopback.
fn token_server(realm: &str, registry: &str) -> Result<Url, String> {
    let url =
        Url::parse(realm).map_err(|_| "its token server has an invalid address".to_owned())?;
    let is_near = url.host_str().is_some_and(is_loopback_host);
    let is_registry_near = is_loopback_host(registry);
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its token server's address contains a login".to_owned());
    }
    match url.scheme() {
        "https" if !is_near || is_registry_near => Ok(url),
        "http" if is_near && is_registry_near => Ok(url),
        "https" => Err("its token server is on loopback, but the registry is not".to_owned()),
        _ => Err("its token server has no TLS".to_owned()),
    }
}

/// A challenge as it stands in the header.
#[derive(Debug, Default)]
struct RawChallenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl RawChallenge {
    fn has_scheme(&self, name: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(name)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header value. A comma separates both challenges and parameters; a word
/// that no `=` follows begins a challenge.
fn challenges(value: &str) -> Vec<RawChallenge> {
    let mut found: Vec<RawChallenge> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find([',', ' ', '\t', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after_blank = after.trim_start_matches([' ', '\t']);
        if let Some(assigned) = after_blank.strip_prefix('=') {
            let (text, remainder) = parameter_value(assigned.trim_start_matches([' ', '\t', '=']));
            if let Some(challenge) = found.last_mut().filter(|_| !word.is_empty()) {
                challenge.parameters.push((word.to_owned(), text));
            }
            rest = remainder;
        } else if word.is_empty() {
            return found;
        } else {
            found.push(RawChallenge { scheme: word.to_owned(), parameters: Vec::new() });
            rest = after;
        }
    }
}

/// A token or a quoted string at the beginning of `text`, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// How long a token lives if the server does not say (distribution's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// The longest that a token is kept, whatever the server says.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A token server's answer.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    issued_at: Option<String>,
}

/// The token in `body`, and how long it may be used.
///
/// The answer may be older than it looks (a cached one); its age is measured by the server's own
/// `date`, because the local clock may be wrong by hours.
///
/// # Errors
/// Why there is none.
pub(super) fn token_in(
    body: &[u8],
    date: Option<DateTime<Utc>>,
) -> Result<(Secret, Duration), &'static str> {
    let answer: TokenAnswer = serde_json::from_slice(body)
        .map_err(|_| "the token server's answer is no JSON object with a token")?;
    let mut tokens = [answer.token, answer.access_token].into_iter().flatten();
    let token = tokens.find(|token| !token.is_empty());
    let token = token.ok_or("the token server's answer has no token")?;
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the token server's token has characters that no header can hold");
    }
    let lifetime = answer
        .expires_in
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let issued = answer.issued_at.and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    let age = match (date, issued) {
        (Some(date), Some(issued)) => {
            (date - issued.with_timezone(&Utc)).to_std().unwrap_or_default()
        }
        _ => Duration::ZERO,
    };
    let left = lifetime.min(LONGEST_LIFETIME).saturating_sub(age);
    // Renewed a little early, so that it does not expire on the way.
    Ok((Secret::from(token), left - (left / 4).min(Duration::from_secs(30))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Challenge, String> {
        Challenge::parse([value].into_iter(), "r.example")
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
        )
        .unwrap();
        let Challenge::Bearer { realm, service, scope } = &hub else { panic!("{hub:?}") };
        assert_eq!(realm.as_str(), "https://auth.docker.io/token");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scope.as_deref(), Some("repository:library/nginx:pull"));
        assert_eq!(hub.scope_for("a/b"), "repository:a/b:pull");

        let ecr = parse(
            r#"Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws""#,
        )
        .unwrap();
        assert_eq!(ecr.scope_for("a/b"), "aws");
        let empty = parse(r#"Bearer realm="https://t.example",service="",scope="""#).unwrap();
        assert_eq!(empty.scope_for("a/b"), "repository:a/b:pull");
        assert_eq!(
            parse(r#"Basic realm="https://1.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com""#).unwrap(),
            Challenge::Basic
        );
        assert_eq!(parse("basic").unwrap(), Challenge::Basic);
    }

    #[test]
    fn several_challenges_and_quoting_are_understood() {
        let value = r#"Negotiate dG9rZW4==, Basic realm="a, \"b\"", bearer Realm = "https://t.example/x" ,service=s"#;
        let Challenge::Bearer { realm, service, scope } = parse(value).unwrap() else { panic!() };
        assert_eq!(
            (realm.as_str(), service.as_deref(), scope),
            ("https://t.example/x", Some("s"), None)
        );
        let both = ["Basic realm=x", r#"Bearer realm="https://t.example""#];
        assert!(matches!(
            Challenge::parse(both.into_iter(), "r.example"),
            Ok(Challenge::Bearer { .. })
        ));
        for bad in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"",
            "=",
            "realm=x",
            "Bearer realm=\"nonsense\"",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn token_servers_must_be_safe() {
        for (realm, registry, safe) in [
            ("https://t.example/", "r.example", true),
            ("http://t.example/", "r.example", false),
            ("http://127.0.0.1:5001/", "r.example", false),
            ("https://127.0.0.1:5001/", "r.example", false),
            ("http://127.0.0.1:5001/", "127.0.0.1:5000", true),
            ("http://localhost:5001/", "[::1]:5000", true),
            ("http://t.example/", "127.0.0.1:5000", false),
            ("https://t.example/", "127.0.0.1:5000", true),
            ("https://user:pass@t.example/", "r.example", false),
            ("file:///etc/passwd", "r.example", false),
        ] {
            assert_eq!(token_server(realm, registry).is_ok(), safe, "{realm} for {registry}");
        }
    }

    #[test]
    fn tokens_have_a_lifetime() {
        let date =
            Some(DateTime::parse_from_rfc3339("2026-01-12T12:01:00Z").unwrap().with_timezone(&Utc));
        let seconds = |body: &str| token_in(body.as_bytes(), date).unwrap().1.as_secs();
        assert_eq!(seconds(r#"{"token":"t"}"#), 45);
        assert_eq!(seconds(r#"{"access_token":"t","expires_in":300}"#), 270);
        assert_eq!(
            seconds(r#"{"token":"t","expires_in":300,"issued_at":"2026-01-12T12:00:00Z"}"#),
            210
        );
        assert_eq!(
            seconds(r#"{"token":"t","expires_in":30,"issued_at":"2026-01-12T12:00:00Z"}"#),
            0
        );
        // A clock that is an hour behind or ahead of the other must not matter.
        assert_eq!(
            seconds(r#"{"token":"t","expires_in":300,"issued_at":"2026-01-12T13:00:00Z"}"#),
            270
        );
        assert_eq!(token_in(br#"{"token":"a","access_token":"b"}"#, None).unwrap().0.expose(), "a");
        assert_eq!(token_in(br#"{"token":"","access_token":"b"}"#, None).unwrap().0.expose(), "b");
        for bad in ["", "[]", "{}", r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":1}"#] {
            assert!(token_in(bad.as_bytes(), None).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_is_too_strange(value in "[ ,=\"\\\\a-cB\t]{0,60}") {
            let _ = parse(&value);
        }
    }
}
