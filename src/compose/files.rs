//! Which Compose files make up a deployment, and how a call names them.
//!
//! Unless the manifest configures files, Compose's own convention holds, and an application call
//! passes no `-f` at all: that way override files, `COMPOSE_FILE` and `COMPOSE_PROJECT_NAME` keep
//! their meaning. As soon as the database files are meant, files must be named, which switches the
//! convention off, so it is repeated here: the same names in the same order, override file
//! included.
//!
//! Application and database files are one project. Compose takes the project directory (which names
//! the project, holds `.env` and is what relative paths are relative to) from the first file, so a
//! database call passes `--project-directory` if its first file lives elsewhere. The other thing
//! that can set the names apart, a top-level `name:`, is treated in [`super::run`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::argv::{Generation, Selection, Set};
use super::dotenv;
use crate::error;
use crate::store;

/// Compose v2's default files, most preferred first (compose-go's `DefaultFileNames`).
const NAMES_V2: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// Compose v1's default files, most preferred first (its `SUPPORTED_FILENAMES`).
const NAMES_V1: [&str; 4] =
    ["docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml"];
/// Compose v2's override files (compose-go's `DefaultOverrideFileNames`).
const OVERRIDES_V2: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// Compose v1's override files; it refuses to choose when several exist, so their order is v2's.
const OVERRIDES_V1: [&str; 4] = OVERRIDES_V2;
/// The database files dkv looks for; the first that exists is taken.
const DATABASE_NAMES: [&str; 4] =
    ["db-docker-compose.yml", "db-docker-compose.yaml", "db-compose.yaml", "db-compose.yml"];

/// What the manifest's `compose:` says; `None` leaves a set to the convention.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// The application files, relative to the deployment directory.
    pub files: Option<Vec<PathBuf>>,
    /// The database files; an empty list says that there are none.
    pub db_files: Option<Vec<PathBuf>>,
    /// The project's name, where Compose would not find it by itself.
    pub project: Option<String>,
}

/// The Compose files of one deployment directory. Paths are relative to it unless they were
/// absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    directory: PathBuf,
    application: Application,
    databases: Vec<PathBuf>,
    project_name_variable: Option<String>,
    /// The project's name, as the manifest has it.
    project_name: Option<String>,
    profiles: Vec<String>,
    dot_env: DotEnv,
}

/// What `.env` assigns, which may be secret.
#[derive(Clone, Default, PartialEq, Eq)]
struct DotEnv(BTreeMap<String, String>);

/// Shows names only.
impl fmt::Debug for DotEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Application {
    /// Named by the manifest, and therefore with `-f` on every call.
    Configured(Vec<PathBuf>),
    /// Named by `COMPOSE_FILE`, which Compose reads itself.
    Variable(Vec<PathBuf>),
    /// Found by default names, of which each generation prefers others.
    Convention { v1: Vec<PathBuf>, v2: Vec<PathBuf> },
}

impl Files {
    /// Finds the files of `directory`, which is best given as the operator named it, symbolic links
    /// and all: Compose v2 names projects after it. `lookup` gives the variables that Compose will
    /// see in its environment; those that it would read from `.env` are read here.
    ///
    /// # Errors
    /// A file that the manifest configures does not exist, or one that Compose would look for
    /// cannot be looked at (exit 3). That no file was found at all is not an error until one is
    /// needed.
    pub fn discover(
        directory: &Path,
        configured: &Configured,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut variables = Variables { lookup, dot_env: read_dot_env(directory, lookup)? };
        let application = match &configured.files {
            Some(files) if !files.is_empty() => {
                require(directory, files, "compose.files")?;
                Application::Configured(files.clone())
            }
            _ => match variables.compose_file() {
                Some(files) => Application::Variable(files),
                None => by_convention(directory)?,
            },
        };
        let databases = match &configured.db_files {
            Some(files) => {
                require(directory, files, "compose.db_files")?;
                files.clone()
            }
            None => first_existing(directory, &DATABASE_NAMES)?.into_iter().collect(),
        };
        let mut files = Self {
            directory: directory.to_owned(),
            application,
            databases,
            project_name_variable: None,
            project_name: None,
            profiles: Vec::new(),
            dot_env: DotEnv::default(),
        };
        let home = files.project_directory();
        if !home.as_os_str().is_empty() {
            // Compose v2 takes both; what stands where it was started comes first.
            for (name, value) in read_dot_env(&directory.join(home), lookup)? {
                variables.dot_env.entry(name).or_insert(value);
            }
        }
        files.project_name_variable = variables.get("COMPOSE_PROJECT_NAME");
        // Who sets the variable means this call.
        let has_variable = files.project_name_variable.is_some();
        files.project_name = configured.project.clone().filter(|_| !has_variable);
        let profiles = variables.get("COMPOSE_PROFILES").unwrap_or_default();
        files.profiles =
            profiles.split(',').filter(|profile| !profile.is_empty()).map(str::to_owned).collect();
        files.dot_env = DotEnv(variables.dot_env);
        Ok(files)
    }

    /// The deployment directory, where Compose is run.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The application files in the order in which Compose merges them, override file included.
    #[must_use]
    pub fn application(&self, generation: Generation) -> &[PathBuf] {
        match (&self.application, generation) {
            (Application::Configured(files) | Application::Variable(files), _) => files,
            (Application::Convention { v1, .. }, Generation::V1) => v1,
            (Application::Convention { v2, .. }, Generation::V2) => v2,
        }
    }

    /// The database files; empty when the deployment has none.
    #[must_use]
    pub fn databases(&self) -> &[PathBuf] {
        &self.databases
    }

    /// Application files, then database files, each once.
    #[must_use]
    pub fn all(&self, generation: Generation) -> Vec<PathBuf> {
        let mut files = self.application(generation).to_vec();
        for file in &self.databases {
            if !files.contains(file) {
                files.push(file.clone());
            }
        }
        files
    }

    /// `COMPOSE_PROJECT_NAME` as Compose will find it, which decides over every other name.
    #[must_use]
    pub fn project_name_variable(&self) -> Option<&str> {
        self.project_name_variable.as_deref()
    }

    /// A variable of `.env`, as Compose will read it.
    #[must_use]
    pub fn dot_env(&self, name: &str) -> Option<String> {
        self.dot_env.0.get(name).cloned()
    }

    /// The profiles that `COMPOSE_PROFILES` switches on.
    #[must_use]
    pub fn profiles(&self) -> &[String] {
        &self.profiles
    }

    /// How a call about `set` names its files and, if it must, its directory.
    ///
    /// # Errors
    /// There are no such files (exit 3).
    pub fn selection(&self, set: Set, generation: Generation) -> Result<Selection> {
        let application = self.application(generation);
        let files = match set {
            Set::Application | Set::All if application.is_empty() && self.databases.is_empty() => {
                return Err(self.no_files().into());
            }
            Set::Application if application.is_empty() => return Err(self.no_files().into()),
            Set::All if !self.databases.is_empty() => self.all(generation),
            Set::Databases => self.databases.clone(),
            Set::Application | Set::All => match &self.application {
                Application::Configured(files) => files.clone(),
                Application::Variable(_) | Application::Convention { .. } => Vec::new(),
            },
        };
        let elsewhere = set == Set::Databases
            && files.first().is_some_and(|file| parent(file) != self.project_directory());
        let project_directory = elsewhere.then(|| match self.project_directory() {
            here if here.as_os_str().is_empty() => PathBuf::from("."),
            other => other.to_owned(),
        });
        let project_name = self.project_name.clone();
        Ok(Selection { files, project_directory, project_name, ..Selection::default() })
    }

    /// The project's name as the manifest has it, which every call is given.
    #[must_use]
    pub fn project_name(&self) -> Option<&str> {
        self.project_name.as_deref()
    }

    /// The name that Compose v1 gives the project; it has no other source than these.
    #[must_use]
    pub fn project_name_v1(&self) -> String {
        let directory = self.directory.join(self.project_directory());
        let directory = store::resolve(&directory).unwrap_or(directory);
        let name = self.project_name_variable.clone().or_else(|| self.project_name.clone());
        let name =
            name.or_else(|| directory.file_name().map(|name| name.to_string_lossy().into_owned()));
        name.map_or_else(|| "default".to_owned(), |name| normalize_v1(&name))
    }

    /// The first application file's directory, relative to the deployment's; empty for the same.
    pub(super) fn project_directory(&self) -> &Path {
        self.application(Generation::V2)
            .first()
            .or(self.databases.first())
            .map_or(Path::new(""), |file| parent(file))
    }

    fn no_files(&self) -> error::Error {
        error::state(format!("no Compose file in {}", self.directory.display())).with_hint(format!(
            "run dkv in the deployment's directory or name it with -C; Compose looks for {}",
            NAMES_V2.join(", ")
        ))
    }
}

/// The directory of a file, empty for the one that it is relative to.
pub(super) fn parent(file: &Path) -> &Path {
    let parent = file.parent().unwrap_or(Path::new(""));
    parent.strip_prefix(".").unwrap_or(parent)
}

fn require(directory: &Path, files: &[PathBuf], key: &str) -> Result<()> {
    for file in files {
        let path = directory.join(file);
        if store::look(&path)?.is_none() {
            let error = error::state(format!("the Compose file {} does not exist", path.display()));
            let hint = format!("the manifest names it under `{key}`");
            return Err(error.with_hint(hint).missing().into());
        }
    }
    Ok(())
}

fn by_convention(directory: &Path) -> Result<Application> {
    Ok(Application::Convention {
        v1: with_override(directory, &NAMES_V1, &OVERRIDES_V1)?,
        v2: with_override(directory, &NAMES_V2, &OVERRIDES_V2)?,
    })
}

/// The first of these files, and the first of the override files beside it.
fn with_override(directory: &Path, names: &[&str], overrides: &[&str]) -> Result<Vec<PathBuf>> {
    match first_existing(directory, names)? {
        Some(file) => {
            Ok(std::iter::once(file).chain(first_existing(directory, overrides)?).collect())
        }
        None => Ok(Vec::new()),
    }
}

fn first_existing(directory: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    for name in names {
        if store::look(&directory.join(name))?.is_some() {
            return Ok(Some(PathBuf::from(name)));
        }
    }
    Ok(None)
}

/// What `.env` in `directory` assigns. One that is malformed assigns nothing: Compose is about to
/// refuse it in its own words.
fn read_dot_env(
    directory: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    let path = directory.join(".env");
    let bytes = store::read(&path)?.map(|found| found.bytes).unwrap_or_default();
    Ok(dotenv::parse(&String::from_utf8_lossy(&bytes), lookup).unwrap_or_default())
}

/// The variables that tell Compose about files and project: the environment's, else those of
/// `.env`.
struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    dot_env: BTreeMap<String, String>,
}

impl Variables<'_> {
    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
            .or_else(|| self.dot_env.get(name).cloned())
            .filter(|value| !value.is_empty())
    }

    /// The files that `COMPOSE_FILE` names; whether they exist is left to Compose, which also takes
    /// URLs.
    fn compose_file(&self) -> Option<Vec<PathBuf>> {
        let files = self.get("COMPOSE_FILE")?;
        let separator = self.get("COMPOSE_PATH_SEPARATOR").unwrap_or_else(|| ":".to_owned());
        Some(
            files
                .split(separator.as_str())
                .filter(|file| !file.is_empty())
                .map(PathBuf::from)
                .collect(),
        )
    }
}

/// Compose v1's project names: lower case, everything but `[-_a-z0-9]` dropped.
///
/// Compose v2 does the same to a directory's name and also drops leading `-` and `_`, but refuses a
/// configured name that is not in this form; its answer is taken from its `config`.
fn normalize_v1(name: &str) -> String {
    name.to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    fn discover(
        directory: &tempfile::TempDir,
        configured: &Configured,
        variables: &[(&str, &str)],
    ) -> Result<Files> {
        let lookup = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Files::discover(directory.path(), configured, &lookup)
    }

    fn names(files: &[PathBuf]) -> Vec<&str> {
        files.iter().map(|file| file.to_str().unwrap()).collect()
    }

    #[test]
    fn application_calls_name_no_file_by_convention() {
        let directory = deployment(&[
            ("docker-compose.yml", ""),
            ("docker-compose.override.yml", ""),
            ("db-docker-compose.yml", ""),
        ]);
        let files = discover(&directory, &Configured::default(), &[]).unwrap();
        assert_eq!(
            files.selection(Set::Application, Generation::V2).unwrap(),
            Selection::default()
        );
        assert_eq!(
            names(&files.selection(Set::Databases, Generation::V2).unwrap().files),
            ["db-docker-compose.yml"]
        );
        assert_eq!(
            names(&files.selection(Set::All, Generation::V2).unwrap().files),
            ["docker-compose.yml", "docker-compose.override.yml", "db-docker-compose.yml"]
        );
    }

    #[test]
    fn without_database_files_everything_is_the_application() {
        let directory = deployment(&[("compose.yaml", "")]);
        let files = discover(&directory, &Configured::default(), &[]).unwrap();
        assert_eq!(files.selection(Set::All, Generation::V2).unwrap(), Selection::default());
        assert!(files.databases().is_empty());
    }

    #[test]
    fn the_generations_prefer_different_names() {
        let directory = deployment(&[
            ("compose.yaml", ""),
            ("docker-compose.yml", ""),
            ("compose.override.yaml", ""),
        ]);
        let files = discover(&directory, &Configured::default(), &[]).unwrap();
        assert_eq!(
            names(files.application(Generation::V1)),
            ["docker-compose.yml", "compose.override.yaml"]
        );
        assert_eq!(
            names(files.application(Generation::V2)),
            ["compose.yaml", "compose.override.yaml"]
        );
    }

    #[test]
    fn compose_file_names_the_application_from_the_environment_or_dot_env() {
        let directory = deployment(&[
            (
                ".env",
                "COMPOSE_FILE=a.yml,b.yml # \
                    two\nCOMPOSE_PATH_SEPARATOR=,\nCOMPOSE_PROJECT_NAME=shop\nCOMPOSE_PROFILES=a,b\n",
            ),
            ("docker-compose.yml", ""),
            ("db-docker-compose.yml", ""),
        ]);
        let files = discover(&directory, &Configured::default(), &[]).unwrap();
        assert_eq!(names(files.application(Generation::V2)), ["a.yml", "b.yml"]);
        assert_eq!(
            files.selection(Set::Application, Generation::V1).unwrap().files,
            Vec::<PathBuf>::new()
        );
        assert_eq!(
            names(&files.selection(Set::All, Generation::V1).unwrap().files),
            ["a.yml", "b.yml", "db-docker-compose.yml"]
        );
        assert_eq!(files.project_name_variable(), Some("shop"));
        assert_eq!(files.profiles(), ["a", "b"]);

        let files = discover(
            &directory,
            &Configured::default(),
            &[("COMPOSE_FILE", "c.yml"), ("COMPOSE_PROJECT_NAME", "")],
        )
        .unwrap();
        assert_eq!(names(files.application(Generation::V2)), ["c.yml"]);
        assert_eq!(files.project_name_variable(), None);
    }

    #[test]
    fn a_database_file_in_compose_file_is_named_once() {
        let directory = deployment(&[("docker-compose.yml", ""), ("db-docker-compose.yml", "")]);
        let variables = [("COMPOSE_FILE", "docker-compose.yml:db-docker-compose.yml")];
        let files = discover(&directory, &Configured::default(), &variables).unwrap();
        assert_eq!(
            names(&files.all(Generation::V2)),
            ["docker-compose.yml", "db-docker-compose.yml"]
        );
    }

    #[test]
    fn configured_files_are_named_and_must_exist() {
        let directory =
            deployment(&[("deploy/app.yml", ""), ("db/db.yml", ""), ("docker-compose.yml", "")]);
        let configured = Configured {
            files: Some(vec!["deploy/app.yml".into()]),
            db_files: Some(vec!["db/db.yml".into()]),
            project: None,
        };
        let files = discover(&directory, &configured, &[]).unwrap();
        assert_eq!(
            names(&files.selection(Set::Application, Generation::V2).unwrap().files),
            ["deploy/app.yml"]
        );
        let databases = files.selection(Set::Databases, Generation::V2).unwrap();
        assert_eq!(databases.project_directory, Some("deploy".into()));
        assert_eq!(files.selection(Set::All, Generation::V2).unwrap().project_directory, None);

        let missing =
            Configured { db_files: Some(vec!["gone.yml".into()]), ..Configured::default() };
        let error = discover(&directory, &missing, &[]).unwrap_err();
        assert_eq!(error::kind(&error), error::Kind::State);
        assert!(error.to_string().contains("gone.yml"), "{error}");
    }

    #[test]
    fn configured_without_databases_means_none() {
        let directory = deployment(&[("docker-compose.yml", ""), ("db-docker-compose.yml", "")]);
        let configured = Configured { db_files: Some(vec![]), ..Configured::default() };
        assert!(discover(&directory, &configured, &[]).unwrap().databases().is_empty());
    }

    #[test]
    fn a_directory_without_files_is_a_state_error_when_one_is_needed() {
        let directory = deployment(&[]);
        let files = discover(&directory, &Configured::default(), &[]).unwrap();
        for set in [Set::Application, Set::All] {
            let error = files.selection(set, Generation::V2).unwrap_err();
            assert_eq!(error::kind(&error), error::Kind::State);
            assert!(error::find(&error).unwrap().hint().is_some());
        }
    }

    #[test]
    fn databases_alone_can_still_be_stopped() {
        let directory = deployment(&[("db-docker-compose.yml", "")]);
        let files = discover(&directory, &Configured::default(), &[]).unwrap();
        assert_eq!(
            names(&files.selection(Set::All, Generation::V1).unwrap().files),
            ["db-docker-compose.yml"]
        );
        assert_eq!(
            files.selection(Set::Databases, Generation::V1).unwrap().project_directory,
            None
        );
    }

    #[test]
    fn v1_project_names_are_normalized() {
        assert_eq!(normalize_v1("Dag_Knows.App-2"), "dag_knowsapp-2");
        let directory = deployment(&[("My.Shop/docker-compose.yml", "")]);
        let files =
            Files::discover(&directory.path().join("My.Shop"), &Configured::default(), &|_| None)
                .unwrap();
        assert_eq!(files.project_name_v1(), "myshop");
    }
}
