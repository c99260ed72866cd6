//! Volumes: where the daemon keeps their data.

use std::path::PathBuf;

use anyhow::Result;

use super::{Docker, is_not_found};

/// A volume of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What keeps its data; `local` is the daemon itself.
    pub driver: String,
    /// Its directory on the daemon's host.
    pub path: PathBuf,
}

impl Docker {
    /// The volume called `name`; `None` if there is none.
    ///
    /// # Errors
    /// Kind Docker, when the daemon does not answer.
    pub async fn volume(&self, name: &str) -> Result<Option<Volume>> {
        let request = async {
            match self.client.inspect_volume(name).await {
                Ok(volume) => Ok(Some(volume)),
                Err(error) if is_not_found(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let found = self.answer(&format!("inspect the volume {name}"), request).await?;
        Ok(found.map(|volume| Volume {
            name: volume.name,
            driver: volume.driver,
            path: volume.mountpoint.into(),
        }))
    }
}
