//! Logins from Docker's `config.json` and its credential helpers. Nothing is ever written.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use indexmap::IndexMap;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::error::printable;
use super::transport::Settings;
use crate::model::reference::DOCKER_HUB;
use crate::process::Group;
use crate::store;

/// How `config.json` and the helpers call Docker Hub.
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";

/// The longest that a credential helper may take.
const HELPER_DEADLINE: Duration = Duration::from_secs(10);

/// The most bytes that a credential helper may print.
const HELPER_LIMIT: u64 = 64 * 1024;

/// What the helpers' own library says for "none"; on standard output, as it says everything.
const NO_CREDENTIALS: &str = "credentials not found in native keychain";

/// What else their library says by itself, and so the only output of a failing helper that is
/// shown.
const HARMLESS: [&str; 2] = ["no credentials server URL", "no credentials username"];

/// A text that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A login for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The registry as Docker's configuration keys it: a host, or `https://index.docker.io/v1/`.
    pub server: String,
    /// The login itself.
    pub login: Login,
}

/// What proves who the user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A user name and a password.
    Password {
        /// The user name.
        username: String,
        /// The password or access key.
        password: Secret,
    },
    /// A refresh token that only the token server takes.
    IdentityToken(Secret),
}

impl Credentials {
    /// `text` without the secret, in case that a server or a program repeats it.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        let (secret, encoded) = match &self.login {
            Login::Password { username, password } => {
                let pair = format!("{username}:{}", password.0);
                (password, base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Login::IdentityToken(token) => {
                (token, base64::engine::general_purpose::STANDARD.encode(&token.0))
            }
        };
        // What is shorter than this may well be part of ordinary words, and is no secret worth the
        // name.
        if secret.0.len() < 4 {
            text.to_owned()
        } else {
            text.replace(&secret.0, "***").replace(&encoded, "***")
        }
    }
}

/// The result of looking for a login.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) credentials: Option<Credentials>,
    /// Why a login that seems to be configured could not be read.
    pub(super) problem: Option<String>,
}

/// The user's login for the registry `host`, by Docker's rules: the helper of this registry, else
/// the general one, else what `config.json` itself holds. A problem is a warning; the caller goes
/// on without a login.
pub(super) async fn find(settings: &Settings, host: &str) -> Found {
    let search_path = settings.search_path.as_deref();
    let found = match read_config(settings) {
        Ok(Some(config)) => config.login(host, search_path).await,
        Ok(None) => Ok(None),
        Err(problem) => Err(problem),
    };
    match found {
        Ok(credentials) => Found { credentials, problem: None },
        Err(problem) => {
            tracing::warn!("no login for {host}: {problem}; going on without one");
            Found { credentials: None, problem: Some(problem) }
        }
    }
}

/// What dkv reads of `config.json`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    #[serde(default)]
    auths: Option<IndexMap<String, Option<Entry>>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<IndexMap<String, String>>,
}

/// One login in `config.json`.
#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

fn read_config(settings: &Settings) -> Result<Option<DockerConfig>, String> {
    let usual = settings.home.as_ref().map(|home| home.join(".docker"));
    let Some(directory) = settings.docker_config.clone().or(usual) else { return Ok(None) };
    let path = directory.join("config.json");
    let Some(found) = store::read(&path).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let config = DockerConfig::parse(&found.bytes);
    config.map(Some).map_err(|why| format!("cannot read {}: {why}", path.display()))
}

impl DockerConfig {
    /// What the bytes of `config.json` say.
    ///
    /// # Errors
    /// Where they are no configuration, without quoting them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The parser's own message could quote a password; its position cannot.
        serde_json::from_slice(bytes).map_err(|error| {
            format!("it is no valid configuration, line {} column {}", error.line(), error.column())
        })
    }

    /// The login for the registry `host`. Helpers are looked for in the directories of
    /// `search_path`.
    ///
    /// # Errors
    /// Why a login that seems to be there could not be read.
    pub async fn login(
        &self,
        host: &str,
        search_path: Option<&OsStr>,
    ) -> Result<Option<Credentials>, String> {
        let server = if host == DOCKER_HUB { DOCKER_HUB_SERVER } else { host };
        let helper = self
            .cred_helpers
            .as_ref()
            .and_then(|helpers| of_host(helpers, host))
            .or(self.creds_store.as_ref())
            .filter(|name| !name.is_empty());
        let asked = match helper {
            Some(helper) => ask_helper(helper, server, search_path, HELPER_DEADLINE).await,
            None => Ok(None),
        };
        let login = match asked {
            Ok(None) => self.stored_login(host)?,
            // A broken helper does not hide a login that needs none.
            Err(problem) => Some(self.stored_login(host).ok().flatten().ok_or(problem)?),
            found => found?,
        };
        Ok(login.map(|login| Credentials { server: server.to_owned(), login }))
    }

    fn stored_login(&self, host: &str) -> Result<Option<Login>, String> {
        match self.auths.as_ref().and_then(|auths| of_host(auths, host)) {
            Some(Some(entry)) => entry
                .login()
                .map_err(|why| format!("the login for {host} in the Docker configuration {why}")),
            _ => Ok(None),
        }
    }
}

/// The value whose key means `host`: the key itself first, then keys that are addresses within it.
fn of_host<'a, T>(table: &'a IndexMap<String, T>, host: &str) -> Option<&'a T> {
    let canonical = if host == DOCKER_HUB { DOCKER_HUB_SERVER } else { host };
    table
        .get(canonical)
        .or_else(|| table.iter().find(|(key, _)| host_of(key) == host).map(|(_, value)| value))
}

/// The registry that a key of `config.json` means: `https://host/v2/` and `host` are the same.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB,
        other => other,
    }
}

impl Entry {
    /// The login that the entry holds.
    ///
    /// # Errors
    /// Why it cannot be read, without its text.
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::IdentityToken(Secret(self.identitytoken.clone()))));
        }
        if self.auth.is_empty() {
            return Ok(password_login(&self.username, &self.password));
        }
        let engine = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let bytes = engine.decode(self.auth.trim()).map_err(|_| "is not valid base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "is not text")?;
        let (username, password) = text.split_once(':').ok_or("has no password")?;
        // Docker pads with zero bytes.
        Ok(password_login(username, password.trim_matches('\0')))
    }
}

/// The login that a user name and a password mean; Docker marks identity tokens by a special name.
fn password_login(username: &str, password: &str) -> Option<Login> {
    let secret = Secret(password.to_owned());
    match (username, password) {
        (_, "") => None,
        ("<token>", _) => Some(Login::IdentityToken(secret)),
        ("", _) => None,
        (name, _) => Some(Login::Password { username: name.to_owned(), password: secret }),
    }
}

/// A credential helper's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks `docker-credential-<name> get`: the server on its standard input, the login on its standard
/// output.
async fn ask_helper(
    name: &str,
    server: &str,
    search_path: Option<&OsStr>,
    deadline: Duration,
) -> Result<Option<Login>, String> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err(format!(
            "`{}` in the Docker configuration is no name of a credential helper",
            printable(name)
        ));
    }
    let program = format!("docker-credential-{name}");
    let path =
        executable(&program, search_path).ok_or_else(|| format!("{program} is not installed"))?;
    let (status, output) = match tokio::time::timeout(deadline, run_helper(&path, server)).await {
        Ok(result) => result.map_err(|error| format!("{program} failed: {error}"))?,
        Err(_) => return Err(format!("{program} gives no answer within {} s", deadline.as_secs())),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&output);
        if said.contains(NO_CREDENTIALS) {
            return Ok(None);
        }
        // A helper may print the login and fail all the same: nothing of its output is shown that
        // is not ours.
        if let Some(known) = HARMLESS.iter().find(|known| said.contains(**known)) {
            return Err(format!("{program} failed: {known}"));
        }
        let by_hand = format!("`echo {} | {program} get`", printable(server));
        return Err(format!("{program} failed with {status}; {by_hand} shows what it says"));
    }
    // Its output may hold the secret even when it is garbage, so that none of it is shown.
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| format!("{program} gives an answer that is no login"))?;
    Ok(password_login(&answer.username, &answer.secret))
}

/// The first executable file of that name in the absolute directories of the search path.
fn executable(program: &str, search_path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(search_path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| store::is_program(path))
}

/// Runs a helper in a process group of its own, which is killed as a whole if this future is
/// dropped. Returns how it ended, and its output.
async fn run_helper(
    program: &Path,
    server: &str,
) -> std::io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let group = Group::of(&child);
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(server.as_bytes()).await {
            // A helper that needs no input may have closed it.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
            _ => drop(input),
        }
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_LIMIT + 1).read_to_end(&mut output).await?;
    }
    if u64::try_from(output.len()).unwrap_or(u64::MAX) > HELPER_LIMIT {
        return Err(std::io::Error::other("its answer is larger than 64 KiB"));
    }
    let status = child.wait().await?;
    group.has_ended();
    Ok((status, output))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const AWKWARD: &str = "p>>>???~~~:\u{e9} \"$(x)`'\\";

    fn settings(directory: &Path, config: &str) -> Settings {
        std::fs::write(directory.join("config.json"), config).unwrap();
        Settings {
            docker_config: Some(directory.to_owned()),
            search_path: Some(directory.into()),
            ..Settings::default()
        }
    }

    fn helper(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn password(found: &Found) -> (&str, &str) {
        match found.credentials.as_ref().map(|credentials| &credentials.login) {
            Some(Login::Password { username, password }) => (username, password.expose()),
            other => panic!("{other:?}, {:?}", found.problem),
        }
    }

    #[tokio::test]
    async fn logins_are_found_however_they_are_keyed() {
        let directory = tempfile::tempdir().unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("me:{AWKWARD}\0\0"));
        let settings = settings(
            directory.path(),
            &format!(
                r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{encoded}"}},"https://r.example:5000/v2/":{{"username":"a","password":"b"}},
                "t.example":{{"identitytoken":"refresh"}},"u.example":{{"auth":"PHRva2VuPjpy"}},"empty.example":{{}},"null.example":null,
                "bad.example":{{"auth":"!!"}}}},"HttpHeaders":{{"x":"y"}}}}"#
            ),
        );
        let hub = find(&settings, "docker.io").await;
        assert_eq!(password(&hub), ("me", AWKWARD));
        assert_eq!(hub.credentials.as_ref().unwrap().server, "https://index.docker.io/v1/");
        assert_eq!(password(&find(&settings, "r.example:5000").await), ("a", "b"));
        for host in ["t.example", "u.example"] {
            let found = find(&settings, host).await;
            assert!(matches!(found.credentials.unwrap().login, Login::IdentityToken(_)), "{host}");
        }
        for host in ["r.example", "empty.example", "null.example", "sub.t.example"] {
            let found = find(&settings, host).await;
            assert!(found.credentials.is_none() && found.problem.is_none(), "{host}");
        }
        assert!(find(&settings, "bad.example").await.problem.unwrap().contains("bad.example"));
        assert!(!format!("{hub:?}").contains("p>>>"));
    }

    #[tokio::test]
    async fn a_broken_configuration_is_a_problem_and_a_missing_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let settings =
            settings(directory.path(), "{\"auths\": {\"r.example\": {\"auth\": s3cret}}}");
        let problem = find(&settings, "r.example").await.problem.unwrap();
        assert!(problem.contains("line 1 column") && !problem.contains("s3cret"), "{problem}");
        std::fs::remove_file(directory.path().join("config.json")).unwrap();
        assert!(find(&settings, "r.example").await.problem.is_none());
        assert!(find(&Settings::default(), "r.example").await.problem.is_none());
    }

    #[tokio::test]
    async fn helpers_get_the_server_on_standard_input_only() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        helper(
            directory.path(),
            "own",
            &format!(
                r#"echo "$*" > {0}; cat >> {0}; printf '{{"ServerURL":"x","Username":"u","Secret":"p>>>???~~~"}}'"#,
                log.display()
            ),
        );
        helper(directory.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
        let settings = settings(
            directory.path(),
            r#"{"auths":{"other.example":{"username":"a","password":"b"}},"credsStore":"none","credHelpers":{"r.example":"own","docker.io":"own"}}"#,
        );
        assert_eq!(password(&find(&settings, "r.example").await), ("u", "p>>>???~~~"));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "get\nr.example");
        find(&settings, "docker.io").await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "get\nhttps://index.docker.io/v1/");
        assert_eq!(password(&find(&settings, "other.example").await), ("a", "b"));
        let none = find(&settings, "none.example").await;
        assert!(none.credentials.is_none() && none.problem.is_none());
    }

    #[tokio::test]
    async fn bad_helpers_are_problems() {
        let directory = tempfile::tempdir().unwrap();
        helper(directory.path(), "garbage", "echo s3cret");
        helper(directory.path(), "fails", r#"printf '{"Username":"u","Secret":"s3cret"}'; exit 2"#);
        helper(directory.path(), "killed", "echo s3cret; kill -9 $$");
        helper(directory.path(), "nameless", "echo 'no credentials username, s3cret'; exit 1");
        helper(directory.path(), "endless", "yes");
        let ask = async |name| {
            let path = Some(directory.path().as_os_str());
            ask_helper(name, "r.example", path, Duration::from_secs(9)).await.unwrap_err()
        };
        let garbage = ask("garbage").await;
        assert!(
            garbage.contains("docker-credential-garbage") && !garbage.contains("s3cret"),
            "{garbage}"
        );
        let by_hand = "`echo r.example | docker-credential-fails get` shows what it says";
        assert_eq!(
            ask("fails").await,
            format!("docker-credential-fails failed with exit status: 2; {by_hand}")
        );
        let killed = ask("killed").await;
        assert!(killed.contains("failed with signal: 9") && !killed.contains("s3cret"), "{killed}");
        assert_eq!(
            ask("nameless").await,
            "docker-credential-nameless failed: no credentials username"
        );
        assert!(ask("endless").await.contains("64 KiB"));
        assert!(ask("missing").await.contains("not installed"));
        assert!(ask("../garbage").await.contains("no name"));
    }

    #[tokio::test]
    async fn a_hanging_helper_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("children");
        helper(
            directory.path(),
            "hangs",
            &format!("sleep 1000 & echo $! > {0}; echo $$ >> {0}; wait", log.display()),
        );
        let path = Some(directory.path().as_os_str());
        let answer = ask_helper("hangs", "r.example", path, Duration::from_millis(500)).await;
        assert!(answer.unwrap_err().contains("gives no answer"));
        let text = std::fs::read_to_string(&log).unwrap();
        for id in text.lines() {
            let is_alive = || {
                let status =
                    std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
                // A zombie that nobody has waited for yet is dead, too.
                !status.is_empty() && !status.contains(") Z")
            };
            for _ in 0..200 {
                if !is_alive() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(!is_alive(), "process {id} is still there");
        }
        assert_eq!(text.lines().count(), 2);
    }
}
