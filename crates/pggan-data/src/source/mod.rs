//! Where images come from: a folder or a zip archive of image files.
//!
//! A source is a sorted list of names; opening it reads no image. Each thread that reads images has a
//! [`Reader`] of its own.

mod folder;
mod zip;

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Files above this many bytes are not read: no image file is that large, but a lie may be.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// What a file must be called to be looked at. What it *is*, its content tells.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp"];

/// A collection of image files in a fixed order: by the bytes of their names.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    entries: Vec<Entry>,
    passed_over: u64,
    kind: Kind,
}

/// One image file of a [`Source`].
#[derive(Debug)]
pub struct Entry {
    /// Path inside the source, with `/` between parts. For people only: it is never used to open or
    /// write a file.
    pub name: String,
    /// Bytes of the encoded image.
    pub bytes: u64,
    /// CRC-32 where the container states it.
    checksum: Option<u32>,
}

#[derive(Debug)]
enum Kind {
    Folder(folder::Folder),
    Zip(zip::Zip),
}

impl Source {
    /// Lists the image files at `path`: a folder (with all folders below it) or a zip archive.
    ///
    /// Files whose extension is not an image's, and files whose name begins with a dot, are passed over.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |reason: String| Error::SourceUnreadable { path: path.to_owned(), reason };
        let (entries, passed_over, kind) = if path.is_dir() {
            let (entries, passed_over, folder) = folder::Folder::list(path)?;
            (entries, passed_over, Kind::Folder(folder))
        } else if path.is_file() {
            let (entries, passed_over, zip) = zip::Zip::list(path).map_err(unreadable)?;
            (entries, passed_over, Kind::Zip(zip))
        } else if path.symlink_metadata().is_ok() {
            return Err(unreadable("neither a folder nor a file that can be opened".into()));
        } else {
            return Err(Error::SourceMissing { path: path.to_owned() });
        };
        Ok(Self { path: path.to_owned(), entries, passed_over, kind })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of its path: what people call it.
    pub fn name(&self) -> String {
        let full = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        full.file_name().map_or_else(|| "/".into(), |name| printable(&name.to_string_lossy()))
    }

    /// Its image files, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many files are not called like an image.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// BLAKE3 over every name, size and checksum: equal for equal sources, wherever they lie.
    ///
    /// The contents are not read, so an edit that changes neither name nor size goes unnoticed.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for Entry { name, bytes, checksum } in &self.entries {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&bytes.to_le_bytes());
            hasher.update(&checksum.unwrap_or(0).to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Result<Reader<'_>> {
        let handle = match &self.kind {
            Kind::Folder(folder) => Handle::Folder(folder),
            Kind::Zip(zip) => Handle::Zip(zip.reader(&self.path)?),
        };
        Ok(Reader { entries: &self.entries, handle })
    }
}

/// Reads the files of a [`Source`].
#[derive(Debug)]
pub struct Reader<'a> {
    entries: &'a [Entry],
    handle: Handle<'a>,
}

#[derive(Debug)]
enum Handle<'a> {
    Folder(&'a folder::Folder),
    Zip(zip::ZipReader<'a>),
}

impl Reader<'_> {
    /// Reads the first `limit` bytes of entry `index` into `bytes`, which is cleared before.
    ///
    /// The error is the reason for which the file is bad.
    pub fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<(), String> {
        bytes.clear();
        let size = self.entries[index].bytes;
        match size {
            0 => return Err("the file is empty".into()),
            1..=MAX_FILE_BYTES => {}
            _ => return Err(format!("{size} bytes are too many for an image file")),
        }
        match &mut self.handle {
            Handle::Folder(folder) => folder.read(index, limit.min(MAX_FILE_BYTES), bytes),
            Handle::Zip(zip) => zip.read(index, limit.min(MAX_FILE_BYTES), bytes),
        }
    }
}

/// Whether a file of this name (its last part only) is looked at.
fn is_image_name(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    // `._x.jpg` is macOS's note about x.jpg, not an image.
    !name.starts_with('.')
        && extension.is_some_and(|e| EXTENSIONS.iter().any(|image| e.eq_ignore_ascii_case(image)))
}

/// A name fit for a terminal and for one line of a file.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for name in ["a.png", "a.b.JPG", "x.webp", "y.Gif", "z.bmp", "w.jpeg"] {
            assert!(is_image_name(name), "{name}");
        }
        for name in ["a.txt", "png", ".png", "._a.png", "a.png.part", "dataset.json", ""] {
            assert!(!is_image_name(name), "{name}");
        }
    }

    #[test]
    fn names_do_not_reach_the_terminal_raw() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
