//! Making an archive.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{
    Cancelled, Contents, LIST, Order, SUFFIX, Source, check, checksum_file, prepare, remember,
    sync_directory,
};
use crate::store::{self, cannot_write};

/// zstd's fastest regular level: services are stopped while the archive is made.
const COMPRESSION: i32 = 1;

/// What archives are called before they are complete.
const PARTIAL: &str = ".partial";

/// A path that could not be looked at or read.
pub(super) struct Failed {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Calls `visit` for `root` and, if that is a directory, everything in it, directories before what
/// they hold. Links are not followed.
pub(super) fn walk(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>,
) -> Result<(), Failed> {
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let failed = |source| Failed { path: path.clone(), source };
        // The source itself may be a link to the data.
        let metadata =
            if path == root { std::fs::metadata(&path) } else { std::fs::symlink_metadata(&path) };
        let metadata = metadata.map_err(failed)?;
        visit(&path, &metadata).map_err(failed)?;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                left.push(entry.map_err(failed)?.path());
            }
        }
    }
    Ok(())
}

/// Saves `sources` as a new archive, with its checksum, and removes the oldest; an existing archive
/// is never replaced.
///
/// # Errors
///
/// Something cannot be read or written, or `cancelled` was set; no archive is left then.
pub fn create(order: &Order, sources: &[Source], cancelled: &Cancelled) -> Result<PathBuf> {
    prepare(&order.directory)?;
    let (path, partial, file) = open(&order.directory, &order.stamp, SUFFIX)?;
    let made = write(file, sources, &order.about.made_at, cancelled)
        .and_then(|checksum| publish(&path, &partial, &checksum));
    if made.is_err() {
        let _ = std::fs::remove_file(&partial);
        let _ = std::fs::remove_file(checksum_file(&path));
    }
    made?;
    remember(order, &path)?;
    Ok(path)
}

/// A new backup's name, its name until it is complete, and its file.
pub(super) fn open(
    directory: &Path,
    stamp: &str,
    suffix: &str,
) -> Result<(PathBuf, PathBuf, File)> {
    for name in store::list(directory)? {
        // Left by a run that was killed: the operation lock keeps others away.
        if name.ends_with(PARTIAL) {
            let _ = std::fs::remove_file(directory.join(name));
        }
    }
    let mut number = 0;
    let path = loop {
        let name = if number == 0 {
            format!("data-{stamp}{suffix}")
        } else {
            format!("data-{stamp}-{number}{suffix}")
        };
        let path = directory.join(name);
        if !store::is_taken(&path).map_err(|source| cannot_write(&path, &source))? {
            break path;
        }
        number += 1;
    };
    let mut partial = path.clone().into_os_string();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let file = file.map_err(|source| cannot_write(&partial, &source))?;
    Ok((path, partial, file))
}

/// Writes the archive and returns its SHA-256.
fn write(file: File, sources: &[Source], made_at: &str, cancelled: &Cancelled) -> Result<String> {
    let hashing = Hashing { file, hash: Sha256::new() };
    let mut tar = tar::Builder::new(zstd::Encoder::new(hashing, COMPRESSION)?);
    let list = serde_json::to_vec_pretty(&Contents {
        format: 1,
        made_at: made_at.to_owned(),
        sources: sources.to_vec(),
    })?;
    let mut header = tar::Header::new_gnu();
    header.set_size(list.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, LIST, list.as_slice())?;
    let mut links = HashMap::new();
    for (number, source) in sources.iter().enumerate() {
        let top = PathBuf::from(number.to_string());
        walk(&source.path, &mut |path, metadata| {
            check(cancelled)?;
            // Joining nothing would add a slash, which makes a directory of a single file.
            let place = match path.strip_prefix(&source.path) {
                Ok(inside) if !inside.as_os_str().is_empty() => top.join(inside),
                _ => top.clone(),
            };
            append(&mut tar, path, &place, metadata, &mut links, cancelled)
        })
        .map_err(|failed| failed.source)
        .with_context(|| format!("cannot save the data of {source}"))?;
    }
    let mut hashing = tar.into_inner()?.finish()?;
    hashing.flush()?;
    hashing.file.sync_all()?;
    Ok(hashing.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Appends one entry. Sockets, pipes and devices hold no data and are left out.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    place: &Path,
    metadata: &Metadata,
    links: &mut HashMap<(u64, u64), PathBuf>,
    cancelled: &Cancelled,
) -> io::Result<()> {
    let kind = metadata.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    if kind.is_symlink() {
        header.set_size(0);
        return tar.append_link(&mut header, place, std::fs::read_link(path)?);
    }
    if kind.is_dir() {
        header.set_size(0);
        return tar.append_data(&mut header, place, io::empty());
    }
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    if metadata.nlink() > 1 {
        if let Some(first) = links.get(&(metadata.dev(), metadata.ino())) {
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            return tar.append_link(&mut header, place, first);
        }
        links.insert((metadata.dev(), metadata.ino()), place.to_owned());
    }
    // The header promises this many bytes, also for a file that somebody else writes to meanwhile.
    let data = Cancellable { inner: File::open(path)?, cancelled }
        .chain(io::repeat(0))
        .take(metadata.len());
    tar.append_data(&mut header, place, data)
}

/// Makes a finished archive known: first its checksum, then its name.
pub(super) fn publish(path: &Path, partial: &Path, checksum: &str) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let sums = checksum_file(path);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&sums)?;
    file.write_all(format!("{checksum}  {name}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(partial, path)?;
    path.parent().map_or(Ok(()), sync_directory)?;
    Ok(())
}

/// A file that is hashed as it is written.
struct Hashing {
    file: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A reader that stops when it is asked to.
struct Cancellable<'a> {
    inner: File,
    cancelled: &'a Cancelled,
}

impl io::Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check(self.cancelled)?;
        self.inner.read(buffer)
    }
}
