//! A store opened for reading.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;

use super::manifest::{Manifest, Shard};
use super::{HEADER_BYTES, LABELS, map, shard_header, writer};
use crate::error::Context;
use crate::pyramid::level_bytes;
use crate::{Error, Labels, MIN_LEVEL, Result};

/// A pyramid on disk, opened for reading. It can be shared between threads.
///
/// What is checked when: [`open`](Self::open) compares the manifest, the labels with their BLAKE3, the
/// length of every shard and its header, which is quick however large the store. A shard's BLAKE3 is compared when an image of it is
/// first asked for, so nothing is ever trained on damaged pixels; this costs one read of the file, which
/// a first epoch pays anyway. [`check_hashes`](Self::check_hashes) does so for all shards ahead of time,
/// and [`verify`](Self::verify) also recomputes every pyramid.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    manifest: Manifest,
    labels: Option<Labels>,
    /// The images of each class that has some; filled when it is first asked for.
    classes: OnceLock<Vec<Vec<u64>>>,
    /// The shards by level, from 4x4 up.
    levels: Vec<Vec<OpenShard>>,
}

#[derive(Debug)]
pub(super) struct OpenShard {
    channels: usize,
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
        let channels = manifest.channels;
        for level in &manifest.levels {
            let open = |shard| OpenShard::new(&dir, channels, level.level, shard);
            levels.push(level.shards.iter().map(open).collect::<Result<_>>()?);
        }
        let labels = Self::read_labels(&dir, &manifest)?;
        Ok(Self { dir, manifest, labels, classes: OnceLock::new(), levels })
    }

    /// The images of each class that has some; nothing where images have no classes.
    pub fn classes(&self) -> &[Vec<u64>] {
        self.classes.get_or_init(|| {
            let mut classes = self.labels.as_ref().and_then(Labels::by_class).unwrap_or_default();
            classes.retain(|images| !images.is_empty());
            classes
        })
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

    /// Colour planes: 1 (grey), 3 (RGB) or 4 (RGB and opacity).
    pub fn channels(&self) -> usize {
        self.manifest.channels
    }

    /// The label of every image; none if they have no labels.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// The highest level.
    pub fn max_level(&self) -> u32 {
        self.manifest.max_level
    }

    /// The pixels of an image, `[channels, side, side]` with `side = 2^level`.
    ///
    /// The slice is the file itself, mapped into memory.
    pub fn image(&self, level: u32, index: u64) -> Result<&[u8]> {
        let shards = level.checked_sub(MIN_LEVEL).and_then(|place| self.levels.get(place as usize));
        let Some(shards) = shards.filter(|_| index < self.images()) else {
            let (dir, images, max_level) = (self.dir.clone(), self.images(), self.max_level());
            return Err(Error::OutOfRange { dir, level, index, images, max_level });
        };
        let shard = &shards[shards.partition_point(|shard| shard.about.first <= index) - 1];
        let bytes = level_bytes(self.channels(), level);
        let start = HEADER_BYTES + (index - shard.about.first) as usize * bytes;
        Ok(&shard.map()?[start..start + bytes])
    }

    /// The labels, if the manifest promises any.
    pub(crate) fn read_labels(dir: &Path, manifest: &Manifest) -> Result<Option<Labels>> {
        let Some(expected) = &manifest.labels_blake3 else { return Ok(None) };
        let path = dir.join(LABELS);
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("it is missing".into()));
            }
            Err(error) => return Err(error).context("read", &path),
        };
        let map = map::map(&file).context("map", &path)?;
        if blake3::hash(&map).to_hex().as_str() != expected {
            return Err(damaged("its content does not have the BLAKE3 of the manifest".into()));
        }
        Labels::from_bytes(&map, manifest.images, manifest.labels as usize)
            .map(Some)
            .map_err(damaged)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &OpenShard> {
        self.levels.iter().flatten()
    }
}

impl OpenShard {
    fn new(dir: &Path, channels: usize, level: u32, about: &Shard) -> Result<Self> {
        let path = dir.join(&about.file);
        check_shape(&path, channels, level, about.count)?;
        Ok(Self { channels, level, about: about.clone(), path, map: OnceLock::new() })
    }

    /// The whole file, once its hash is right.
    pub(super) fn map(&self) -> Result<&[u8]> {
        // Two threads may both hash a shard at first; they find the same.
        if self.map.get().is_none() {
            let map = map_and_check(&self.path, self.channels, self.level, &self.about)?;
            self.map.set(map).ok();
        }
        Ok(self.map.get().expect("it has just been set"))
    }
}

/// Whether the file has the header and the length of a shard with `count` images.
fn check_shape(path: &Path, channels: usize, level: u32, count: u64) -> Result<File> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged("it is missing".into()));
        }
        Err(error) => return Err(error).context("read", path),
    };
    let length = file.metadata().context("read", path)?.len();
    let pixels = count.checked_mul(level_bytes(channels, level) as u64);
    if pixels.and_then(|pixels| pixels.checked_add(HEADER_BYTES as u64)) != Some(length) {
        return Err(damaged(format!("its length of {length} bytes does not fit {count} images")));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).context("read", path)?;
    if header != shard_header(channels, level, count) {
        return Err(damaged("its header is not the one this program wrote".into()));
    }
    Ok(file)
}

/// Maps a shard whose length, header and BLAKE3 are as `about` says.
pub(super) fn map_and_check(
    path: &Path,
    channels: usize,
    level: u32,
    about: &Shard,
) -> Result<Mmap> {
    let file = check_shape(path, channels, level, about.count)?;
    let map = map::map(&file).context("map", path)?;
    if blake3::hash(&map).to_hex().as_str() != about.blake3 {
        let reason = "its content does not have the BLAKE3 of the manifest".into();
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    Ok(map)
}
