//! `ecr-login`: whether login to the private registry works, and until when.

use anyhow::Result;
use clap::Args;

use super::{Effect, Run};
use crate::app::{App, Exit};
use crate::deployment::Deployment;
use crate::error;

/// Check that login to ECR works, and until when
#[derive(Debug, Args)]
pub struct EcrLogin {
    /// Log the Docker command line in as well, for other tools
    #[arg(long)]
    docker: bool,
}

impl Run for EcrLogin {
    fn effect(&self) -> Effect {
        Effect::None
    }

    /// # Errors
    ///
    /// AWS refuses or cannot be reached (exit 5); `docker login` fails (exit 6).
    async fn run(self, app: &App) -> Result<Exit> {
        let docker = self.docker;
        let deployment = Deployment::open_recorded(app)?;
        let ecr = deployment.record()?.manifest.ecr.as_ref().filter(|ecr| ecr.is_private());
        let Some(ecr) = ecr else {
            app.show(&crate::report::EcrLogin::default(), |_| {
                app.ui.data("The manifest uses public ECR, which needs no login");
            })?;
            return Ok(Exit::Done);
        };
        let host = ecr.private_registry.split('/').next().unwrap_or_default();
        let private = crate::registry::ecr_private::PrivateRegistry::new(host, &ecr.private_region);
        let granted = private.login().await?;
        if docker {
            docker_login(host, &granted.credentials).await?;
        }
        let expires_at =
            granted.expires_at.map(|end| end.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        let report =
            crate::report::EcrLogin { registry: Some(host.to_owned()), expires_at, docker };
        app.show(&report, |report| {
            let until = report
                .expires_at
                .as_deref()
                .map_or_else(String::new, |end| format!(", until {end}"));
            app.ui.data(format!("Login to {host} works{until}"));
            if docker {
                app.ui.status("The Docker command line is logged in as well");
            }
        })?;
        Ok(Exit::Done)
    }
}

/// Logs the Docker command line in; the password goes through its standard input.
async fn docker_login(host: &str, credentials: &crate::registry::Credentials) -> Result<()> {
    use std::process::Stdio;
    use tokio::io::AsyncWriteExt as _;

    let crate::registry::Login::Password { username, password } = &credentials.login else {
        return Err(error::registry(format!("AWS gave no password for {host}")).into());
    };
    let mut child = tokio::process::Command::new("docker")
        .args(["login", "--username", username, "--password-stdin", host])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(host, error).with_hint("--docker needs the docker command"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all(password.expose().as_bytes()).await;
        written.map_err(|error| failed(host, error))?;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(host, error))?;
    if output.status.success() {
        return Ok(());
    }
    // A credential store that fails has its output told by `docker login`, and the login was its
    // input.
    Err(failed(host, credentials.redact(String::from_utf8_lossy(&output.stderr).trim())).into())
}

fn failed(host: &str, why: impl std::fmt::Display) -> error::Error {
    error::docker(format!("`docker login {host}` failed: {why}"))
}
