//! A store opened for reading.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;

use super::manifest::{Manifest, Shard};
use super::{HEADER_BYTES, map, shard_header, writer};
use crate::error::Context;
use crate::pyramid::level_bytes;
use crate::{Error, MIN_LEVEL, Result};

/// A pyramid on disk, opened for reading. It can be shared between threads.
///
/// What is checked when: [`open`](Self::open) compares the manifest, the length of every shard and its
/// header, which is quick however large the store. A shard's BLAKE3 is compared when an image of it is
/// first asked for, so nothing is ever trained on damaged pixels; this costs one read of the file, which
/// a first epoch pays anyway. [`check_hashes`](Self::check_hashes) does so for all shards ahead of time,
/// and [`verify`](Self::verify) also recomputes every pyramid.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    manifest: Manifest,
    /// The shards by level, from 4x4 up.
    levels: Vec<Vec<OpenShard>>,
}

#[derive(Debug)]
pub(super) struct OpenShard {
    pub(super) level: u32,
    pub(super) about: Shard,
    path: PathBuf,
    /// Filled once the hash has been found right.
    map: OnceLock<Mmap>,
}

impl Store {
    /// Opens the store in `dir`.
    ///
    /// Errors: [`Error::NoStore`] if there is none or its preparation was not finished,
    /// [`Error::Damaged`] if a file is missing, has another length or another header than the manifest
    /// says.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_owned();
        let Some(manifest) = Manifest::read(&dir)? else {
            return Err(Error::NoStore { unfinished: writer::is_unfinished(&dir), dir });
        };
        let mut levels = Vec::new();
        for level in &manifest.levels {
            let shards = level.shards.iter().map(|shard| OpenShard::new(&dir, level.level, shard));
            levels.push(shards.collect::<Result<_>>()?);
        }
        Ok(Self { dir, manifest, levels })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds and where it came from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of images.
    pub fn images(&self) -> u64 {
        self.manifest.images
    }

    /// The highest level.
    pub fn max_level(&self) -> u32 {
        self.manifest.max_level
    }

    /// The pixels of an image, `[3, side, side]` with `side = 2^level`.
    ///
    /// The slice is the file itself, mapped into memory.
    pub fn image(&self, level: u32, index: u64) -> Result<&[u8]> {
        let shards = level.checked_sub(MIN_LEVEL).and_then(|place| self.levels.get(place as usize));
        let Some(shards) = shards.filter(|_| index < self.images()) else {
            let (dir, images, max_level) = (self.dir.clone(), self.images(), self.max_level());
            return Err(Error::OutOfRange { dir, level, index, images, max_level });
        };
        let shard = &shards[shards.partition_point(|shard| shard.about.first <= index) - 1];
        let start = HEADER_BYTES + (index - shard.about.first) as usize * level_bytes(level);
        Ok(&shard.map()?[start..start + level_bytes(level)])
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &OpenShard> {
        self.levels.iter().flatten()
    }
}

impl OpenShard {
    fn new(dir: &Path, level: u32, about: &Shard) -> Result<Self> {
        let path = dir.join(&about.file);
        check_shape(&path, level, about.count)?;
        Ok(Self { level, about: about.clone(), path, map: OnceLock::new() })
    }

    /// The whole file, once its hash is right.
    pub(super) fn map(&self) -> Result<&[u8]> {
        // Two threads may both hash a shard at first; they find the same.
        if self.map.get().is_none() {
            let map = map_and_check(&self.path, self.level, &self.about)?;
            self.map.set(map).ok();
        }
        Ok(self.map.get().expect("it has just been set"))
    }
}

/// Whether the file has the header and the length of a shard with `count` images.
fn check_shape(path: &Path, level: u32, count: u64) -> Result<File> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged("it is missing".into()));
        }
        Err(error) => return Err(error).context("read", path),
    };
    let length = file.metadata().context("read", path)?.len();
    let pixels = count.checked_mul(level_bytes(level) as u64);
    if pixels.and_then(|pixels| pixels.checked_add(HEADER_BYTES as u64)) != Some(length) {
        return Err(damaged(format!("its length of {length} bytes does not fit {count} images")));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).context("read", path)?;
    if header != shard_header(level, count) {
        return Err(damaged("its header is not the one this program wrote".into()));
    }
    Ok(file)
}

/// Maps a shard whose length, header and BLAKE3 are as `about` says.
pub(super) fn map_and_check(path: &Path, level: u32, about: &Shard) -> Result<Mmap> {
    let file = check_shape(path, level, about.count)?;
    let map = map::map(&file).context("map", path)?;
    if blake3::hash(&map).to_hex().as_str() != about.blake3 {
        let reason = "its content does not have the BLAKE3 of the manifest".into();
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    Ok(map)
}
