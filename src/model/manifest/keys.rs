//! The keys that dkv reads, for what reading lets pass: a misspelled key would do nothing without a
//! word, and a version pattern that no tag can match would make every tag unresolved.

use indexmap::IndexMap;

use super::Manifest;
use crate::model::yaml::{Kind, Node, YamlError};

const ROOT: &[&str] = &[
    "schema_version",
    "deployment_id",
    "customer_id",
    "ecr",
    "compose",
    "env",
    "data_backup",
    "logs",
    "services",
    "untracked",
    "history",
    "custom_overrides",
    "rejected",
];
const ECR: &[&str] =
    &["registry", "repository_alias", "use_private", "private_registry", "private_region"];
const COMPOSE: &[&str] = &["files", "db_files", "project"];
const ENV: &[&str] = &["file", "prefix", "pin"];
const DATA_BACKUP: &[&str] = &["services", "paths", "command", "timeout"];
const LOGS: &[&str] = &["compress_after_days", "delete_after_days"];
const SERVICE: &[&str] = &[
    "image",
    "track",
    "platform",
    "source",
    "held",
    "compose_services",
    "env_tag",
    "env_image",
    "version_pattern",
    "health_timeout",
    "current_tag",
    "image_digest",
    "deployed_at",
    "deployed_by",
];
const RELEASE: &[&str] = &[
    "tag",
    "digest",
    "image_digest",
    "platform_digest",
    "image_id",
    "deployed_at",
    "deployed_by",
    "status",
];
const CUSTOM: &[&str] = &["tag", "digest", "reason", "applied_at", "applied_by"];
const REJECTED: &[&str] = &["digest", "tag", "reason", "at"];

impl Manifest {
    /// A line for each key that dkv does not read and that is spelled almost like one that it does,
    /// with its position. What is misspelled the same way all over is told once.
    #[must_use]
    pub fn misspelled_keys(&self) -> Vec<String> {
        let root = self.document.root();
        let mut found = Suspects::default();
        found.look(root, ROOT);
        for (section, known) in [
            ("ecr", ECR),
            ("compose", COMPOSE),
            ("env", ENV),
            ("data_backup", DATA_BACKUP),
            ("logs", LOGS),
        ] {
            found.look_in(root.get(section), known);
        }
        for (_, service) in entries(root.get("services")) {
            found.look(service, SERVICE);
        }
        for (_, custom) in entries(root.get("custom_overrides")) {
            found.look(custom, CUSTOM);
        }
        for (section, known) in [("history", RELEASE), ("rejected", REJECTED)] {
            let lists =
                entries(root.get(section)).filter(|(_, list)| list.kind() == Kind::Sequence);
            lists.flat_map(|(_, list)| list.items()).for_each(|entry| found.look(entry, known));
        }
        found.told()
    }

    /// Makes sure that every `version_pattern` can match a tag at all.
    ///
    /// # Errors
    ///
    /// One that holds what no tag can hold, such as a regular expression, at its position.
    pub fn check_patterns(&self) -> Result<(), YamlError> {
        for (_, service) in entries(self.document.root().get("services")) {
            let Some(pattern) = service.get("version_pattern") else { continue };
            let text = pattern.as_text().unwrap_or_default();
            if let Some(strange) = text
                .chars()
                .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | '*' | '?'))
            {
                return Err(pattern.error(format!(
                    "`version_pattern` is no regular expression: `*` stands for any characters, \
                        `?` for one, and no tag has `{}`",
                    strange.escape_debug()
                )));
            }
            let literal = text.chars().filter(|c| *c != '*').count();
            if text.starts_with(['.', '-']) || literal > 128 {
                return Err(pattern.error("no tag can match this `version_pattern`"));
            }
        }
        Ok(())
    }
}

/// The entries of a section; none if it is missing or something else than a mapping.
fn entries(section: Option<Node<'_>>) -> impl Iterator<Item = (Node<'_>, Node<'_>)> {
    section.filter(|node| node.kind() == Kind::Mapping).into_iter().flat_map(Node::entries)
}

/// Keys that are probably misspelled: each with the known one, where it stands first, and how
/// often.
#[derive(Default)]
struct Suspects<'a>(IndexMap<(&'a str, &'static str), (Node<'a>, usize)>);

impl<'a> Suspects<'a> {
    fn look_in(&mut self, mapping: Option<Node<'a>>, known: &'static [&'static str]) {
        if let Some(mapping) = mapping {
            self.look(mapping, known);
        }
    }

    fn look(&mut self, mapping: Node<'a>, known: &'static [&'static str]) {
        for (key, _) in entries(Some(mapping)) {
            let Some(text) = key.as_text().filter(|text| !known.contains(text)) else { continue };
            if let Some(near) = nearest(text, known) {
                self.0.entry((text, near)).or_insert((key, 0)).1 += 1;
            }
        }
    }

    fn told(self) -> Vec<String> {
        let lines = self.0.into_iter().map(|((text, near), (node, count))| {
            let more = if count > 1 { format!(" ({count} times)") } else { String::new() };
            let text = text.escape_debug();
            node.error(format!(
                "dkv knows no key `{text}` here and leaves it alone; did you mean `{near}`?{more}"
            ))
            .to_string()
        });
        lines.collect()
    }
}

/// The known key that `text` probably means; short ones are easily taken for one another.
fn nearest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = known.iter().map(|key| (strsim::damerau_levenshtein(key, text), *key));
    let near = near.filter(|(distance, key)| {
        *distance <= [0, 0, 0, 1, 1].get(key.len()).copied().unwrap_or(2)
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../version-manifest.example.yaml");

    fn read(text: &str) -> Manifest {
        Manifest::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_misspelled_key_is_told_with_its_place_and_the_one_that_was_meant() {
        let text = "schema_version: '1.1'\nnote: mine\nservices:\n  web:\n    image: \
            r.example/web\n    helth_timeout: 5s\n    \
                    owner: ops\n  api: {helth_timeout: 5s, Held: true}\nhistory:\n  web:\n  - \
                    {tag: '1', digset: x}\n";
        assert_eq!(
            read(text).misspelled_keys(),
            [
                "line 6, column 5: dkv knows no key `helth_timeout` here and leaves it alone; did \
                    you mean `health_timeout`? (2 times)",
                "line 8, column 28: dkv knows no key `Held` here and leaves it alone; did you \
                    mean `held`?",
                "line 11, column 16: dkv knows no key `digset` here and leaves it alone; did you \
                    mean `digest`?",
            ]
        );
        assert_eq!(read("schema_version: '1.1'\nservcies: {}\nlogs:\n").misspelled_keys().len(), 1);
    }

    #[test]
    fn no_key_of_ours_or_of_the_old_tool_is_misspelled() {
        for text in [
            EXAMPLE,
            include_str!("../../../tests/fixtures/manifests/dkapp-pulled.yaml"),
            include_str!("../../../tests/fixtures/manifests/dkapp-wizard.yaml"),
            include_str!("../../../tests/fixtures/manifests/dkproxy.yaml"),
        ] {
            assert_eq!(read(text).misspelled_keys(), [""; 0]);
        }
    }

    /// The keys are listed here once more; this holds the list to what reading really asks for.
    #[test]
    fn every_key_that_is_read_is_known_and_explained_in_the_example() {
        let source = include_str!("read.rs");
        let known: Vec<&str> =
            [ROOT, ECR, COMPOSE, ENV, DATA_BACKUP, LOGS, SERVICE, RELEASE, CUSTOM, REJECTED]
                .into_iter()
                .flatten()
                .copied()
                .collect();
        let mut read = 0;
        for asked in [", \"", "get(\"", "[\"", "(\""] {
            for rest in source.split(asked).skip(1) {
                let Some((key, rest)) = rest.split_once('"') else { continue };
                let is_key = !key.is_empty()
                    && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                if is_key && rest.starts_with([')', ',', ']']) && key != "current" {
                    assert!(known.contains(&key), "{key} is read, but not listed in keys.rs");
                    read += 1;
                }
            }
        }
        assert!(read > 40, "{read}");
        for key in known {
            assert!(EXAMPLE.contains(&format!("{key}:")), "the example says nothing about {key}");
        }
    }

    #[test]
    fn a_pattern_that_no_tag_can_match_is_an_error_at_its_place() {
        let check = |pattern: &str| {
            let text = format!(
                "schema_version: '1.1'\nservices:\n  web:\n    version_pattern: '{pattern}'\n"
            );
            read(&text).check_patterns().map_err(|error| error.to_string())
        };
        for good in ["", "*", "1.4?", "v2.*-hotfix_1", "*-bookworm"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["^v[0-9]+$", "1.x || 2", r"\d+", "v(1|2)", "1.*,2.*", "é*", ".1", "-*"] {
            let error = check(bad).unwrap_err();
            assert!(error.starts_with("line 4, column 22: "), "{bad}: {error}");
        }
        assert!(check(&"1".repeat(129)).is_err());
    }
}
