//! The image lines of Compose files for those who do not have [`super::ComposeFiles`] at hand.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::texts::ComposeFiles;

/// A service of one Compose file and the image that the file gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLine {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The Compose service.
    pub service: String,
    /// The `image:` as written, variables and all; [`crate::model::interpolation::Template`] reads
    /// it.
    pub image: Option<String>,
    /// Whether the service has a build section.
    pub has_build: bool,
}

/// The image lines of `files` (relative to `directory`), in order; included files come first.
///
/// # Errors
/// A file that cannot be read or parsed (exit 3).
pub fn read(directory: &Path, files: &[PathBuf]) -> Result<Vec<ImageLine>> {
    let files = ComposeFiles::of(directory, files);
    let lines = files.require()?.lines().iter().map(|line| ImageLine {
        file: line.file.clone(),
        service: line.service.clone(),
        image: line.image_text().map(str::to_owned),
        has_build: line.has_build,
    });
    Ok(lines.collect())
}

/// One line per service: the last file that gives it an image decides, as when Compose merges them.
#[must_use]
pub fn merge(lines: Vec<ImageLine>) -> Vec<ImageLine> {
    let mut merged: indexmap::IndexMap<String, ImageLine> = indexmap::IndexMap::new();
    for line in lines {
        match merged.entry(line.service.clone()) {
            indexmap::map::Entry::Vacant(vacant) => {
                vacant.insert(line);
            }
            indexmap::map::Entry::Occupied(mut occupied) => {
                let has_build = line.has_build || occupied.get().has_build;
                if line.image.is_some() {
                    *occupied.get_mut() = line;
                }
                occupied.get_mut().has_build = has_build;
            }
        }
    }
    merged.into_values().collect()
}
