//! `.env.gpg`: a deployment's environment that is on the disk only encrypted.
//!
//! The plain text goes from gpg's pipe into memory and from there into the environment of the
//! programs that dkv starts; never to the disk, a command line or a message.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::compose::dotenv;
use crate::error;
use crate::store::{MAX_FILE_BYTES, look};

/// The encrypted file.
const ENCRYPTED: &str = ".env.gpg";
/// The file that makes it superfluous.
const PLAIN: &str = ".env";

/// Variables that no message may show.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// The value of one variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All variables, for a child's environment.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone()))
    }
}

/// Shows names only.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Whether the deployment's environment is there only encrypted.
///
/// # Errors
///
/// It cannot be looked at (exit 3).
pub fn is_encrypted(directory: &Path) -> Result<bool> {
    Ok(look(&directory.join(ENCRYPTED))?.is_some() && look(&directory.join(PLAIN))?.is_none())
}

/// Decrypts the deployment's environment with gpg, which asks for the passphrase itself where no
/// agent or file has it. Variables that `inherited` has are left out, as Compose prefers them to
/// its `.env`.
///
/// # Errors
///
/// There is no gpg, it cannot decrypt the file, or the text is no `.env` (exit 3).
pub async fn decrypt(
    directory: &Path,
    inherited: &dyn Fn(&str) -> Option<String>,
) -> Result<Secrets> {
    let path = directory.join(ENCRYPTED);
    let text = plain_text(&path).await?;
    let variables = dotenv::parse(&text, inherited).map_err(|error| {
        error::state(format!(
            "`{}` decrypts to something that is not a .env file: {error}",
            path.display()
        ))
        .with_hint("decrypt it by hand, mend that line, and encrypt it again")
    })?;
    Ok(Secrets(variables.into_iter().filter(|(name, _)| inherited(name).is_none()).collect()))
}

async fn plain_text(path: &Path) -> Result<String> {
    let mut command = Command::new("gpg");
    // Standard input stays: gpg may read the passphrase from there, and its prompt needs the
    // terminal.
    command.args(["--quiet", "--decrypt", "--"]).arg(std::path::absolute(path)?);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| {
        let hint = match source.kind() {
            ErrorKind::NotFound => "install gpg (package gnupg), or put a decrypted .env beside it",
            _ => "check that gpg runs, or put a decrypted .env beside it",
        };
        error::state(format!(
            "`{}` cannot be decrypted: gpg cannot be run: {source}",
            path.display()
        ))
        .with_hint(hint)
    })?;
    let mut bytes = Vec::new();
    if let Some(output) = child.stdout.take() {
        output
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .await
            .context("cannot read what gpg prints")?;
    }
    let status = child.wait().await.context("cannot wait for gpg")?;
    if !status.success() {
        return Err(error::state(format!("gpg cannot decrypt `{}` ({status})", path.display()))
            .with_hint(
                "gpg says why above; check the passphrase, or the key. Nothing was started \
                or stopped",
            )
            .into());
    }
    Ok(String::from_utf8(bytes).map_err(|_| {
        error::state(format!("`{}` decrypts to something that is not text", path.display()))
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deployment_without_plain_text_is_encrypted() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_encrypted(directory.path()).unwrap());
        std::fs::write(directory.path().join(ENCRYPTED), "").unwrap();
        assert!(is_encrypted(directory.path()).unwrap());
        std::fs::write(directory.path().join(PLAIN), "").unwrap();
        assert!(!is_encrypted(directory.path()).unwrap());
    }

    #[test]
    fn values_cannot_be_printed() {
        let secrets = Secrets(BTreeMap::from([("DB_PASSWORD".to_owned(), "hunter22".to_owned())]));
        assert_eq!(format!("{secrets:?}"), "[\"DB_PASSWORD\"]");
    }
}
