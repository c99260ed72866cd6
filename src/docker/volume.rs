//! Volumes: where the daemon keeps their data.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Result;

use super::{Docker, is_not_found};

/// A volume of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where its data is.
    pub kept: Kept,
}

/// Where the data of a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this directory of the daemon's host.
    Directory(PathBuf),
    /// In memory: it ends with its last container.
    Memory,
    /// Where it can be read only while a container uses it, or not at all; by what keeps it.
    Elsewhere(String),
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
            kept: kept(&volume.driver, volume.mountpoint, &volume.options),
        }))
    }
}

/// The daemon mounts what `options` name at the volume's place only while a container uses it: the
/// place is empty otherwise.
fn kept(driver: &str, place: String, options: &HashMap<String, String>) -> Kept {
    if driver != "local" {
        return Kept::Elsewhere(format!("the driver {driver}"));
    }
    let option = |key: &str| options.get(key).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let is_bind = option("o").split(',').any(|word| matches!(word, "bind" | "rbind"));
    match (kind, device) {
        ("tmpfs", _) => Kept::Memory,
        (_, device) if is_bind && device.starts_with('/') => Kept::Directory(device.into()),
        ("", "") => Kept::Directory(place.into()),
        ("", device) => Kept::Elsewhere(format!("a mount of {device}")),
        (kind, _) => Kept::Elsewhere(format!("a mount of type {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_where_it_is_and_not_at_an_empty_mount_point() {
        let place = || Kept::Directory("/var/lib/docker/volumes/x/_data".into());
        let elsewhere = |by: &str| Kept::Elsewhere(by.to_owned());
        for (driver, options, expected) in [
            ("local", "", place()),
            ("local", "size=10G", place()),
            ("local", "type=none o=bind device=/srv/pg", Kept::Directory("/srv/pg".into())),
            ("local", "type=bind o=bind,rw device=/srv/pg", Kept::Directory("/srv/pg".into())),
            ("local", "type=tmpfs device=tmpfs o=size=10m", Kept::Memory),
            ("local", "type=nfs o=addr=10.0.0.1 device=:/pg", elsewhere("a mount of type nfs")),
            ("local", "device=/dev/sdb1 o=rw", elsewhere("a mount of /dev/sdb1")),
            ("rexray", "", elsewhere("the driver rexray")),
        ] {
            let pairs = options.split_whitespace().filter_map(|pair| pair.split_once('='));
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let found = kept(driver, "/var/lib/docker/volumes/x/_data".to_owned(), &pairs);
            assert_eq!(found, expected, "{driver} {options}");
        }
    }
}
