//! Putting an archive back.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use tar::EntryType;

use super::{Cancelled, Contents, LIST, MEBIBYTE, Place, check, checksum, checksum_file};
use crate::error::{self, Error};
use crate::store;

/// Compares `archive` with its checksum.
///
/// # Errors
///
/// It has none, or is another (exit 3), or cannot be read.
pub fn verify(archive: &Path, cancelled: &Cancelled) -> Result<()> {
    let sums = checksum_file(archive);
    let expected = match crate::store::read(&sums) {
        Ok(Some(found)) => String::from_utf8_lossy(&found.bytes)
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
        Ok(None) => {
            let why = format!("its checksum `{}` is not there", sums.display());
            return Err(damaged(archive, &why).into());
        }
        Err(source) => return Err(damaged(archive, &format!("{source:#}")).into()),
    };
    if checksum(archive, cancelled)? == expected {
        return Ok(());
    }
    Err(damaged(archive, "its checksum is another").into())
}

const NOT_OURS: &str = "it was not made by dkv";

fn damaged(archive: &Path, why: &str) -> Error {
    error::state(format!("the data backup `{}` cannot be used: {why}", archive.display()))
        .with_hint("nothing was changed; another backup may be in the same directory")
}

/// What an archive holds, by its own list and by its entries.
#[derive(Debug)]
pub struct Inspected {
    /// Its list.
    pub contents: Contents,
    /// Of each source, whether it is a single file.
    pub files: Vec<bool>,
    /// Of each source, how many bytes its files have.
    pub sizes: Vec<u64>,
}

/// Looks at everything in `archive` before any of it is unpacked. An archive that this dkv made
/// (`is_own`) may hold links to anywhere, as the data did; they are put back and never followed.
///
/// # Errors
///
/// It is no data backup, or an entry would be made outside its source, or is neither file,
/// directory nor link (exit 3); it cannot be read, or `cancelled` was set.
pub fn inspect(archive: &Path, is_own: bool, cancelled: &Cancelled) -> Result<Inspected> {
    let mut tar = open(archive)?;
    let mut entries = tar.entries().map_err(|source| damaged(archive, &source.to_string()))?;
    let contents = list(archive, entries.next())?;
    let count = contents.sources.len();
    let mut found = Inspected { contents, files: vec![false; count], sizes: vec![0; count] };
    let mut seen = vec![false; count];
    let mut links: HashSet<PathBuf> = HashSet::new();
    for entry in entries {
        check(cancelled)?;
        let entry = entry.map_err(|source| damaged(archive, &source.to_string()))?;
        let path = entry.path().map_err(|source| damaged(archive, &source.to_string()))?;
        let refused =
            |why: &str| damaged(archive, &format!("its entry `{}` {why}", path.display()));
        let number = source_of(&path).filter(|number| *number < count);
        let number = number.ok_or_else(|| refused("belongs to none of its sources"))?;
        if path.ancestors().any(|above| links.contains(above)) {
            return Err(refused("stands behind a link").into());
        }
        let is_top = path.components().count() == 1;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Regular => {
                found.sizes[number] = found.sizes[number].saturating_add(entry.size());
                found.files[number] |= is_top;
            }
            EntryType::Directory => {}
            EntryType::Symlink | EntryType::Link if is_top => {
                return Err(refused("is a link in the place of data").into());
            }
            EntryType::Symlink => {
                let target = entry.link_name().ok().flatten();
                let target = target.ok_or_else(|| refused("links to nothing"))?;
                if !is_own && leaves(&path, &target) {
                    return Err(refused("is a link that leaves its source").into());
                }
                links.insert(path.to_path_buf());
            }
            EntryType::Link => {
                let target = entry.link_name().ok().flatten();
                let inside = target.as_deref().and_then(source_of) == Some(number);
                let behind = |target: &Path| target.ancestors().any(|above| links.contains(above));
                if !inside || target.as_deref().is_some_and(behind) {
                    return Err(refused("is a link that leaves its source").into());
                }
            }
            _ => return Err(refused("is no file, directory or link").into()),
        }
        if !is_top && !seen[number] {
            return Err(refused("comes before its source").into());
        }
        seen[number] = true;
    }
    if let Some(missing) = seen.iter().position(|seen| !seen) {
        let why = format!("{} is not in it", found.contents.sources[missing]);
        return Err(damaged(archive, &why).into());
    }
    Ok(found)
}

/// The number of the source that a path in an archive belongs to; `None` for one that is not plain.
fn source_of(path: &Path) -> Option<usize> {
    let mut components = path.components();
    let Some(Component::Normal(top)) = components.next() else { return None };
    let is_plain = components.all(|component| matches!(component, Component::Normal(_)));
    let number = top.to_str()?;
    let parsed: usize = number.parse().ok()?;
    (is_plain && parsed.to_string() == number).then_some(parsed)
}

/// Whether a symbolic link at `path` leads out of its source.
fn leaves(path: &Path, target: &Path) -> bool {
    // How many directories of the source are above the link.
    let mut depth = path.components().count().saturating_sub(2);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

/// Reads the list that is an archive's first entry.
fn list<R: Read>(archive: &Path, first: Option<io::Result<tar::Entry<'_, R>>>) -> Result<Contents> {
    let Some(Ok(mut entry)) = first else {
        return Err(damaged(archive, NOT_OURS).into());
    };
    if entry.path()?.as_os_str() != OsStr::new(LIST) {
        return Err(damaged(archive, NOT_OURS).into());
    }
    let mut bytes = Vec::new();
    let read = entry.by_ref().take(MEBIBYTE).read_to_end(&mut bytes);
    read.map_err(|source| damaged(archive, &source.to_string()))?;
    let contents: Contents =
        serde_json::from_slice(&bytes).map_err(|_| damaged(archive, NOT_OURS))?;
    if contents.format != 1 {
        return Err(damaged(archive, "it was made by a newer dkv").into());
    }
    Ok(contents)
}

fn open(archive: &Path) -> Result<tar::Archive<zstd::Decoder<'static, io::BufReader<File>>>> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(store::open_present(archive)?)?);
    tar.set_preserve_permissions(true);
    tar.set_preserve_mtime(true);
    tar.set_preserve_ownerships(rustix::process::geteuid().is_root());
    Ok(tar)
}

/// Makes sure that what was inspected can be unpacked at `places`.
///
/// # Errors
///
/// A disk is too small, a file stands where a directory was or the other way round, or what an
/// earlier restore replaced is still there (exit 3).
pub fn check_places(places: &[Place], inspected: &Inspected) -> Result<()> {
    for (place, size) in places.iter().zip(&inspected.sizes) {
        place.check(*size)?;
    }
    Ok(())
}

/// Unpacks what `archive` holds beside what it is to replace.
///
/// # Errors
///
/// Something cannot be read or written, or `cancelled` was set; nothing is left then.
pub fn unpack(archive: &Path, places: &[Place], cancelled: &Cancelled) -> Result<()> {
    let unpacked = places
        .iter()
        .try_for_each(Place::clear)
        .context("cannot remove what an earlier restore left")
        .and_then(|()| unpack_all(archive, places, cancelled));
    if unpacked.is_err() {
        // The next restore does it otherwise.
        let _ = places.iter().try_for_each(Place::clear);
    }
    unpacked.with_context(|| format!("cannot unpack `{}`; nothing was replaced", archive.display()))
}

/// Unpacks source `n` as `n` where the n-th place has what is to come.
fn unpack_all(archive: &Path, places: &[Place], cancelled: &Cancelled) -> Result<()> {
    for place in places {
        std::fs::create_dir_all(place.coming())?;
    }
    let mut tar = open(archive)?;
    // A directory's own mode could keep its contents out, and they change its time.
    let mut directories = Vec::new();
    for entry in tar.entries()? {
        check(cancelled)?;
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(place) = source_of(&path).and_then(|number| places.get(number)) else { continue };
        if entry.header().entry_type().is_dir() {
            std::fs::create_dir_all(place.coming().join(&path))?;
            directories.push((place.coming(), entry));
        } else {
            entry.unpack_in(place.coming())?;
        }
    }
    for (coming, mut directory) in directories.into_iter().rev() {
        directory.unpack_in(coming)?;
    }
    places.iter().try_for_each(Place::sync)?;
    Ok(())
}
