//! Compose command lines as values; nothing here runs anything.
//!
//! `--remove-orphans` is never among them: with application and database files in one project, each
//! half looks like orphans to the other.

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
    Up {
        /// Compose services.
        services: Vec<String>,
        /// Leave alone what the named services depend on.
        no_deps: bool,
    },
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
}

/// The arguments of one Compose call, without the program.
#[must_use]
pub fn arguments(generation: Generation, selection: &Selection, action: &Action) -> Vec<OsString> {
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
    let (words, services): (&[&str], &[String]) = match action {
        Action::Up { services, no_deps: false } => (&["up", "-d"], services),
        Action::Up { services, no_deps: true } => (&["up", "-d", "--no-deps"], services),
        Action::Down => (&["down"], &[]),
        Action::Build { services } => (&["build"], services),
        Action::Start { services } => (&["start"], services),
        Action::Remove { services } => (&["rm", "--stop", "--force"], services),
        Action::Stop { services } => (&["stop"], services),
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
        let words: Vec<String> = arguments(generation, selection, action)
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
        let up = Action::Up { services: vec![], no_deps: false };
        assert_eq!(line(Generation::V2, &Selection::default(), &up), "up -d");
    }

    #[test]
    fn an_update_is_one_call_that_names_every_changed_service() {
        let up =
            Action::Up { services: vec!["req-router".into(), "settings".into()], no_deps: true };
        assert_eq!(
            line(Generation::V1, &Selection::default(), &up),
            "up -d --no-deps req-router settings"
        );
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
        };
        let up = Action::Up { services: vec![], no_deps: false };
        assert_eq!(
            line(Generation::V2, &selection, &up),
            "--project-directory deploy -p shop -f db/db.yml up -d"
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
