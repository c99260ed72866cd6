//! What stood in Compose files before `pin`, so that `pin --unpin` can give it back, to the byte.
//!
//! Each line is remembered by itself: somebody else may have edited the rest of the file since.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::compose::Site;
use crate::error;

/// The lines that were pinned, by file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    #[serde(default)]
    files: BTreeMap<String, Vec<Remembered>>,
}

/// A line that was pinned, or that had its digest already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// The number of the document in the file.
    #[serde(default)]
    document: usize,
    /// The Compose services of the document that have it.
    compose_services: Vec<String>,
    /// What stood there, quotes apart.
    before: String,
    /// What `pin` left there.
    after: String,
}

impl Memory {
    /// Reads what [`Self::text`] has written.
    ///
    /// # Errors
    /// It is something else (exit 3).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| {
            error::state(format!(
                "what stood in the files before `dkv pin` cannot be read: {error}"
            ))
            .into()
        })
    }

    /// As a file keeps it.
    #[must_use]
    pub fn text(&self) -> String {
        // Texts and lists of them always make JSON.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Whether `file` was ever pinned here.
    #[must_use]
    pub fn knows(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// What stood at `site` of `file` before it was pinned. The digest may have changed since, by
    /// hand or by a `pin` elsewhere, but nothing else.
    #[must_use]
    pub fn before(&self, file: &str, site: &Site) -> Option<&str> {
        let lines = self.files.get(file)?;
        let name = |image: &str| image.split('@').next().map(str::to_owned);
        let is_pinned = site.image.contains('@');
        let of_services = lines.iter().find(|one| {
            one.document == site.document && one.compose_services == site.compose_services
        });
        let is_it = |one: &&Remembered| {
            one.after == site.image || (is_pinned && name(&one.after) == name(&site.image))
        };
        if let Some(line) = of_services.filter(is_it) {
            return Some(&line.before);
        }
        // Services may have been renamed.
        let mut same = lines.iter().filter(|one| one.after == site.image);
        let first = same.next()?;
        same.all(|other| other.before == first.before).then_some(&first.before)
    }

    /// Remembers what `file` says now, each of its sites with what stands there before and after
    /// this change.
    pub fn remember<'s>(
        &mut self,
        file: &str,
        lines: impl Iterator<Item = (&'s Site, &'s str, &'s str)>,
    ) {
        let mut known = Vec::new();
        for (site, old, new) in lines {
            let before = self.before(file, site).unwrap_or(old);
            if before != new || new.contains('@') {
                known.push(Remembered {
                    document: site.document,
                    compose_services: site.compose_services.clone(),
                    before: before.to_owned(),
                    after: new.to_owned(),
                });
            }
        }
        if known.is_empty() {
            self.files.remove(file);
        } else {
            self.files.insert(file.to_owned(), known);
        }
    }

    /// Forgets a file, which is as it was before.
    pub fn forget(&mut self, file: &str) {
        self.files.remove(file);
    }
}
