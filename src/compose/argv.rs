//! Compose command lines as values; nothing here runs anything.
//!
//! `--remove-orphans` is never among them: with application and database files in one project, each
//! half looks like orphans to the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Which of the two Compose programs: they differ in default files, in `config` and in what they
/// accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `docker-compose` 1.x, written in Python.
    V1,
    /// `docker compose` 2 or newer, written in Go.
    V2,
}

impl Generation {
    /// The name that Compose gives the image of a service that it builds and whose files name none.
    #[must_use]
    pub fn built_image(self, project: &str, service: &str) -> String {
        let separator = if self == Self::V1 { '_' } else { '-' };
        format!("{project}{separator}{service}")
    }
}

/// Which files of a deployment a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// The application files.
    Application,
    /// The database files.
    Databases,
    /// Both, as one project.
    All,
}

/// What Compose is asked to do. Where Compose services are named, an empty list means all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create or recreate what differs, and start it in the background.
    Up(Up),
    /// Stop and remove containers and networks; volumes stay.
    Down,
    /// Build the images of services that have a build section.
    Build {
        /// Compose services.
        services: Vec<String>,
    },
    /// Start existing containers.
    Start {
        /// Compose services.
        services: Vec<String>,
    },
    /// Stop containers and remove them.
    Remove {
        /// The services.
        services: Vec<String>,
    },
    /// Stop containers without removing them.
    Stop {
        /// Compose services.
        services: Vec<String>,
    },
    /// Print the files as Compose understands them.
    Config,
    /// Print from what Compose would make the containers of each service.
    Hashes,
    /// Whatever an operator asks of it, word by word.
    Pass(Vec<OsString>),
}

/// How an `up` goes about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Up {
    /// Compose services; none means all.
    pub services: Vec<String>,
    /// Leave alone what the named services depend on.
    pub no_deps: bool,
    /// What it may do about images.
    pub pull: Pull,
    /// Which containers it makes anew.
    pub recreate: Recreate,
    /// How many containers services get that shall not have what their files say.
    pub counts: BTreeMap<String, u32>,
}

/// Whether `up` may pull. Compose 1 pulls what is not here and nothing else, whatever the files say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// Never, whatever `pull_policy` says: all that it starts is here.
    #[default]
    Never,
    /// What is not here.
    Missing,
}

/// Which containers `up` makes anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recreate {
    /// Those whose image or configuration differs.
    #[default]
    Changed,
    /// Those as well that depend on one that is made anew. Compose 2 sees by itself which hang on
    /// to what is gone.
    Dependents,
    /// All.
    All,
}

/// How a call names its project; empty when Compose's own convention finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Files to name with `-f`, in order; none leaves the choice, overrides and `COMPOSE_FILE` to
    /// Compose.
    pub files: Vec<PathBuf>,
    /// The directory that relative paths in the files are relative to, where it is not the first
    /// file's.
    pub project_directory: Option<PathBuf>,
    /// The project's name, where Compose would take another.
    pub project_name: Option<String>,
    /// The profiles to switch on, in place of those of `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
}

impl Up {
    fn words(&self, generation: Generation, can_choose_pull: bool) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["up".into(), "-d".into()];
        let mut add = |list: &[&str]| words.extend(list.iter().map(OsString::from));
        if self.no_deps {
            add(&["--no-deps"]);
        }
        if can_choose_pull {
            add(match self.pull {
                Pull::Never => &["--pull", "never"],
                Pull::Missing => &["--pull", "missing"],
            });
        }
        add(match (self.recreate, generation) {
            (Recreate::Changed, _) | (Recreate::Dependents, Generation::V2) => &[],
            (Recreate::Dependents, Generation::V1) => &["--always-recreate-deps"],
            (Recreate::All, _) => &["--force-recreate"],
        });
        for (service, count) in &self.counts {
            words.extend(["--scale".into(), format!("{service}={count}").into()]);
        }
        words
    }
}

/// The arguments of one Compose call, without the program. `can_choose_pull` says whether this
/// Compose can be told at `up` what to pull.
#[must_use]
pub fn arguments(
    generation: Generation,
    can_choose_pull: bool,
    selection: &Selection,
    action: &Action,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(directory) = &selection.project_directory {
        arguments.extend(["--project-directory".into(), directory.into()]);
    }
    if let Some(name) = &selection.project_name {
        arguments.extend(["-p".into(), name.into()]);
    }
    for file in &selection.files {
        arguments.extend(["-f".into(), file.into()]);
    }
    for profile in &selection.profiles {
        arguments.extend(["--profile".into(), profile.into()]);
    }
    let (words, services): (&[&str], &[String]) = match action {
        Action::Up(up) => {
            arguments.extend(up.words(generation, can_choose_pull));
            (&[], &up.services)
        }
        Action::Down => (&["down"], &[]),
        Action::Build { services } => (&["build"], services),
        Action::Start { services } => (&["start"], services),
        Action::Remove { services } => (&["rm", "--stop", "--force"], services),
        Action::Stop { services } => (&["stop"], services),
        Action::Hashes => (&["config", "--hash", "*"], &[]),
        Action::Pass(words) => {
            arguments.extend(words.iter().cloned());
            (&[], &[])
        }
        Action::Config => match generation {
            Generation::V1 => (&["config"], &[]),
            Generation::V2 => (&["config", "--format", "json"], &[]),
        },
    };
    arguments.extend(words.iter().map(OsString::from));
    arguments.extend(services.iter().map(OsString::from));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(generation: Generation, selection: &Selection, action: &Action) -> String {
        let can_choose_pull = generation == Generation::V2;
        let words: Vec<String> = arguments(generation, can_choose_pull, selection, action)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    fn both() -> Selection {
        Selection {
            files: vec!["docker-compose.yml".into(), "db-docker-compose.yml".into()],
            ..Selection::default()
        }
    }

    #[test]
    fn application_calls_leave_the_files_to_compose() {
        let up = Action::Up(Up::default());
        assert_eq!(line(Generation::V1, &Selection::default(), &up), "up -d");
    }

    #[test]
    fn an_update_is_one_call_that_names_every_changed_service() {
        let services = vec!["req-router".into(), "settings".into()];
        let up = Action::Up(Up { services, no_deps: true, ..Up::default() });
        assert_eq!(
            line(Generation::V1, &Selection::default(), &up),
            "up -d --no-deps req-router settings"
        );
    }

    #[test]
    fn what_was_decided_is_passed_on_to_up() {
        let up = Up {
            services: vec!["web".into()],
            no_deps: true,
            recreate: Recreate::Dependents,
            counts: [("web".to_owned(), 3)].into(),
            ..Up::default()
        };
        for (generation, up, expected) in [
            (Generation::V2, up.clone(), "up -d --no-deps --pull never --scale web=3 web"),
            (Generation::V1, up, "up -d --no-deps --always-recreate-deps --scale web=3 web"),
            (
                Generation::V2,
                Up { pull: Pull::Missing, recreate: Recreate::All, ..Up::default() },
                "up -d --pull missing --force-recreate",
            ),
            (
                Generation::V1,
                Up { pull: Pull::Missing, recreate: Recreate::All, ..Up::default() },
                "up -d --force-recreate",
            ),
        ] {
            assert_eq!(line(generation, &Selection::default(), &Action::Up(up)), expected);
        }
    }

    #[test]
    fn down_is_one_call_with_all_files() {
        assert_eq!(
            line(Generation::V1, &both(), &Action::Down),
            "-f docker-compose.yml -f db-docker-compose.yml down"
        );
    }

    #[test]
    fn directory_and_name_come_before_the_files() {
        let selection = Selection {
            files: vec!["db/db.yml".into()],
            project_directory: Some("deploy".into()),
            project_name: Some("shop".into()),
            profiles: vec!["tools".into(), "more".into()],
        };
        let up = Action::Up(Up::default());
        assert_eq!(
            line(Generation::V1, &selection, &up),
            "--project-directory deploy -p shop -f db/db.yml --profile tools --profile more up -d"
        );
    }

    #[test]
    fn only_v2_can_print_json() {
        assert_eq!(line(Generation::V1, &Selection::default(), &Action::Config), "config");
        assert_eq!(
            line(Generation::V2, &Selection::default(), &Action::Config),
            "config --format json"
        );
    }

    #[test]
    fn build_start_and_stop_name_their_services() {
        let services = vec!["web".to_owned()];
        for (action, expected) in [
            (Action::Build { services: services.clone() }, "build web"),
            (Action::Start { services: services.clone() }, "start web"),
            (Action::Stop { services }, "stop web"),
        ] {
            assert_eq!(line(Generation::V2, &Selection::default(), &action), expected);
        }
    }
}
