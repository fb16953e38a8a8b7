//! A store opened for reading.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::manifest::{Layout, Manifest, Shard};
use super::shard::{Kind, MappedShard};
use super::{LABELS, map, staging};
use crate::error::Context;
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
    kind: Kind,
    pub(super) about: Shard,
    path: PathBuf,
    bytes: u64,
    /// Filled once the hash has been found right.
    map: OnceLock<MappedShard>,
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
            return Err(Error::NoStore { unfinished: staging::is_unfinished(&dir), dir });
        };
        let mut levels = Vec::new();
        let channels = manifest.channels;
        for level in &manifest.levels {
            let kind = Kind { channels, level: level.level, layout: level.layout };
            let open = |shard| OpenShard::new(&dir, kind, shard);
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

    /// How images of a level lie on disk.
    pub fn layout(&self, level: u32) -> Layout {
        self.shards_at(level).first().map_or(Layout::Raw, |shard| shard.kind.layout)
    }

    /// Bytes of a level on disk.
    pub fn bytes_on_disk(&self, level: u32) -> u64 {
        self.shards_at(level).iter().map(|shard| shard.bytes).sum()
    }

    /// The pixels of an image, `[channels, side, side]` with `side = 2^level`.
    ///
    /// Where the level is kept raw they are the file itself, mapped into memory; else they are decoded.
    pub fn image(&self, level: u32, index: u64) -> Result<Cow<'_, [u8]>> {
        let shards = self.shards_at(level);
        if shards.is_empty() || index >= self.images() {
            let (dir, images, max_level) = (self.dir.clone(), self.images(), self.max_level());
            return Err(Error::OutOfRange { dir, level, index, images, max_level });
        }
        let shard = &shards[shards.partition_point(|shard| shard.about.first <= index) - 1];
        let place = (index - shard.about.first) as usize;
        shard.mapped()?.image(place).map_err(|reason| Error::Damaged {
            path: shard.path.clone(),
            reason: format!("image {index}: {reason}"),
        })
    }

    fn shards_at(&self, level: u32) -> &[OpenShard] {
        let place = level.checked_sub(MIN_LEVEL).and_then(|place| self.levels.get(place as usize));
        place.map_or(&[], Vec::as_slice)
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
    fn new(dir: &Path, kind: Kind, about: &Shard) -> Result<Self> {
        let path = dir.join(&about.file);
        let bytes = kind.open(&path, about.count)?.metadata().context("read", &path)?.len();
        Ok(Self { kind, about: about.clone(), path, bytes, map: OnceLock::new() })
    }

    /// The whole file, once its hash is right.
    pub(super) fn mapped(&self) -> Result<&MappedShard> {
        // Two threads may both hash a shard at first; they find the same.
        if self.map.get().is_none() {
            self.map.set(MappedShard::open(&self.path, self.kind, &self.about)?).ok();
        }
        Ok(self.map.get().expect("it has just been set"))
    }
}
