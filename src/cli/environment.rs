//! The process environment, read once; everything else gets values as arguments.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use super::parse::one_line;
use crate::store::{self, Kind};

/// The variables of the process. An empty variable counts as unset, as it does for Docker and
/// Compose.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment of this process. Without `HOME` (a system service, say) the home directory
    /// is the user database's.
    #[must_use]
    pub fn read() -> Self {
        let mut environment: Self = std::env::vars_os().collect();
        if environment.value("HOME").is_none()
            && let Some(home) = std::env::home_dir()
        {
            environment.variables.insert("HOME".into(), home.into());
        }
        environment
    }

    /// What this machine calls itself.
    #[must_use]
    pub fn host() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// The value of any variable, exactly as it is.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// The value of any variable as text; bytes that are not UTF-8 become replacement characters.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// The value of any variable as a path.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// `HOME`.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// `DOCKER_HOST`.
    #[must_use]
    pub fn docker_host(&self) -> Option<String> {
        self.text("DOCKER_HOST")
    }

    /// `DOCKER_CONTEXT`.
    #[must_use]
    pub fn docker_context(&self) -> Option<String> {
        self.text("DOCKER_CONTEXT")
    }

    /// `DOCKER_API_VERSION`.
    #[must_use]
    pub fn docker_api_version(&self) -> Option<String> {
        self.text("DOCKER_API_VERSION")
    }

    /// `DOCKER_CERT_PATH`.
    #[must_use]
    pub fn docker_cert_path(&self) -> Option<PathBuf> {
        self.path("DOCKER_CERT_PATH")
    }

    /// The directory of Docker's client configuration: `DOCKER_CONFIG`, else `~/.docker`.
    #[must_use]
    pub fn docker_config(&self) -> Option<PathBuf> {
        self.path("DOCKER_CONFIG").or_else(|| Some(self.home()?.join(".docker")))
    }

    /// `SSL_CERT_FILE`.
    #[must_use]
    pub fn ssl_cert_file(&self) -> Option<PathBuf> {
        self.path("SSL_CERT_FILE")
    }

    /// Who is at work, for `deployed_by`: the user behind `sudo`, else `USER`, else `LOGNAME`, else
    /// what the user database calls the process's user (a cron job has no variables).
    #[must_use]
    pub fn user(&self) -> Option<String> {
        ["SUDO_USER", "USER", "LOGNAME"]
            .iter()
            .filter_map(|name| self.text(name))
            .map(|name| one_line(&name, USER_CHARACTERS))
            .find(|name| !name.is_empty())
            .or_else(account_name)
    }

    /// Whether AWS credentials seem to be there, by variables and files alone: asking the SDK would
    /// end in a slow probe of the instance metadata address.
    #[must_use]
    pub fn has_aws_credentials(&self) -> bool {
        const SOURCES: [&str; 5] = [
            "AWS_ACCESS_KEY_ID",
            "AWS_PROFILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        const FILES: [(&str, &str); 2] =
            [("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")];
        SOURCES.iter().any(|name| self.value(name).is_some())
            || FILES.iter().any(|(variable, name)| {
                self.path(variable)
                    .or_else(|| Some(self.home()?.join(".aws").join(name)))
                    .is_some_and(|path| matches!(store::look(&path), Ok(Some(Kind::File))))
            })
    }

    /// Whether colour is unwanted: `NO_COLOR` (<https://no-color.org>), or a terminal that knows
    /// none.
    #[must_use]
    pub(super) fn no_color(&self) -> bool {
        self.value("NO_COLOR").is_some() || self.terminal_is_dumb()
    }

    /// Whether the terminal cannot move its cursor.
    #[must_use]
    pub(super) fn terminal_is_dumb(&self) -> bool {
        self.value("TERM").is_some_and(|term| term == "dumb")
    }

    /// `DKV_NOW`: an RFC 3339 time instead of the clock, for tests.
    #[must_use]
    pub(super) fn now(&self) -> Option<String> {
        self.text("DKV_NOW")
    }
}

/// The most characters of a user's name that are recorded.
const USER_CHARACTERS: usize = 80;

/// The name that `/etc/passwd` has for this process's user (passwd(5): name:password:UID:…).
fn account_name() -> Option<String> {
    let id = rustix::process::getuid().as_raw().to_string();
    let accounts = store::read(Path::new("/etc/passwd")).ok()??.bytes;
    let accounts = String::from_utf8_lossy(&accounts);
    let mut fields = accounts.lines().map(|line| line.split(':'));
    fields.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    })
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect() }
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect()
    }

    #[test]
    fn empty_variables_are_unset() {
        let environment = environment(&[
            ("DOCKER_HOST", ""),
            ("NO_COLOR", ""),
            ("SUDO_USER", ""),
            ("USER", "alice"),
        ]);
        assert_eq!(environment.docker_host(), None);
        assert!(!environment.no_color());
        assert_eq!(environment.user().as_deref(), Some("alice"));
    }

    #[test]
    fn the_user_behind_sudo_comes_first() {
        let environment = environment(&[("SUDO_USER", "alice"), ("USER", "root")]);
        assert_eq!(environment.user().as_deref(), Some("alice"));
    }

    #[test]
    fn docker_config_defaults_to_the_home_directory() {
        assert_eq!(environment(&[("HOME", "/h")]).docker_config(), Some("/h/.docker".into()));
        assert_eq!(
            environment(&[("HOME", "/h"), ("DOCKER_CONFIG", "/c")]).docker_config(),
            Some("/c".into())
        );
        assert_eq!(environment(&[]).docker_config(), None);
    }

    #[test]
    fn aws_credentials_are_seen_without_asking_anyone() {
        assert!(!environment(&[("HOME", "/nonexistent")]).has_aws_credentials());
        assert!(environment(&[("AWS_ACCESS_KEY_ID", "x")]).has_aws_credentials());
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(environment(&[("AWS_SHARED_CREDENTIALS_FILE", path)]).has_aws_credentials());
    }

    #[test]
    fn values_do_not_print() {
        let shown = format!("{:?}", environment(&[("TOKEN", "sentinel")]));
        assert!(shown.contains("TOKEN") && !shown.contains("sentinel"));
    }
}
