//! Where an update was begun: what its replay depends on besides the journal and the files. From
//! another shell the same words can mean another project, or another daemon.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What decides, beside the files' own words, which containers a call of Compose is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The daemon's address.
    pub endpoint: String,
    /// What the daemon calls itself, however it is reached.
    pub engine: Option<String>,
    /// The Compose project.
    pub project: String,
    /// Which of the two Composes.
    pub compose: String,
    /// The application's Compose files.
    pub files: Vec<String>,
    /// The databases' Compose files.
    pub db_files: Vec<String>,
    /// The profiles that are switched on.
    pub profiles: Vec<String>,
    /// The files that `COMPOSE_ENV_FILES` names.
    pub env_files: Option<String>,
    /// The variables of the shell that the Compose files use; their values may be secrets.
    pub variables: BTreeSet<String>,
}

/// Something that was otherwise when an update began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What was otherwise, and how it was and is.
    pub what: String,
    /// What makes it as it was: an assignment to put before the command, or words where there is
    /// none.
    pub mend: Result<String, String>,
}

impl Setting {
    /// What is otherwise `now`.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut note = |what: &str, before: &str, now: &str, mend| {
            let shown = |text: &str| if text.is_empty() { "none" } else { text }.to_owned();
            let what = format!("{what} {}, now {}", shown(before), shown(now));
            found.push(Difference { what, mend });
        };
        let set = |name: &str, value: &str| Ok(format!("{name}={}", quoted(value)));
        let is_same_engine =
            self.endpoint == now.endpoint || (self.engine.is_some() && self.engine == now.engine);
        if !is_same_engine {
            let mend = set("DOCKER_HOST", &self.endpoint);
            note("the Docker daemon was", &self.endpoint, &now.endpoint, mend);
        }
        if self.files != now.files {
            let (before, after) = (self.files.join(", "), now.files.join(", "));
            let mend = set("COMPOSE_FILE", &self.files.join(":"));
            note("the Compose files were", &before, &after, mend);
        }
        if self.db_files != now.db_files {
            let (before, after) = (self.db_files.join(", "), now.db_files.join(", "));
            let mend = Err("let `compose.db_files` in the manifest name the database files as \
                they were"
                .to_owned());
            note("the database files were", &before, &after, mend);
        }
        if self.env_files != now.env_files {
            let (before, after) = (
                self.env_files.as_deref().unwrap_or_default(),
                now.env_files.as_deref().unwrap_or_default(),
            );
            note("COMPOSE_ENV_FILES was", before, after, set("COMPOSE_ENV_FILES", before));
        }
        if self.profiles != now.profiles {
            let (before, after) = (self.profiles.join(","), now.profiles.join(","));
            note("the profiles were", &before, &after, set("COMPOSE_PROFILES", &before));
        }
        if self.project != now.project {
            let mend = set("COMPOSE_PROJECT_NAME", &self.project);
            note("the Compose project was", &self.project, &now.project, mend);
        }
        if self.compose != now.compose {
            let mend = Err(format!("let this user find {} here, as then", self.compose));
            note("Compose was", &self.compose, &now.compose, mend);
        }
        let missing: Vec<&str> =
            self.variables.difference(&now.variables).map(String::as_str).collect();
        if !missing.is_empty() {
            let names = missing.join(", ");
            found.push(Difference {
                what: format!("{names}, which the Compose files use, was set in the shell"),
                mend: Err(format!("set {names} as it was")),
            });
        }
        found
    }
}

/// A value as a shell takes it.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting {
            endpoint: "unix:///var/run/docker.sock".to_owned(),
            engine: Some("ABCD".to_owned()),
            project: "shop".to_owned(),
            compose: "Compose 2".to_owned(),
            variables: ["KEY".to_owned()].into(),
            files: vec!["docker-compose.yml".to_owned(), "more.yml".to_owned()],
            ..Setting::default()
        }
    }

    /// What is told, and what is put before the command.
    fn told(change: impl FnOnce(&mut Setting)) -> String {
        let mut now = setting();
        change(&mut now);
        let differences = setting().differences(&now).into_iter();
        let words = differences.map(|one| match one.mend {
            Ok(mend) | Err(mend) => format!("{} ({mend})", one.what),
        });
        words.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_as_it_was_is_not_told() {
        assert_eq!(told(|_| ()), "");
        // The same daemon by another way, or one that does not say who it is.
        assert_eq!(told(|now| now.endpoint = "tcp://127.0.0.1:2375".to_owned()), "");
        assert_eq!(told(|now| now.engine = None), "");
    }

    #[test]
    fn what_is_otherwise_is_told_with_what_makes_it_as_it_was() {
        assert_eq!(
            told(|now| now.project = "app".to_owned()),
            "the Compose project was shop, now app (COMPOSE_PROJECT_NAME=shop)"
        );
        assert_eq!(
            told(|now| {
                (now.endpoint, now.engine) = ("tcp://h:1".to_owned(), None);
                now.profiles.push("debug".to_owned());
            }),
            "the Docker daemon was unix:///var/run/docker.sock, now tcp://h:1 \
             (DOCKER_HOST=unix:///var/run/docker.sock); \
             the profiles were none, now debug (COMPOSE_PROFILES='')"
        );
        assert_eq!(
            told(|now| now.files.truncate(1)),
            "the Compose files were docker-compose.yml, more.yml, now docker-compose.yml \
             (COMPOSE_FILE=docker-compose.yml:more.yml)"
        );
        assert!(told(|now| now.db_files.push("db.yml".to_owned())).contains("compose.db_files"));
        assert!(told(|now| now.env_files = Some(".prod".to_owned())).contains("was none, now"));
        assert!(told(|now| now.compose = "Compose 1".to_owned()).contains("find Compose 2"));
        assert!(told(|now| now.variables.clear()).contains("(set KEY as it was)"));
        assert_eq!(told(|now| now.variables.extend(["MORE".to_owned()])), "");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
