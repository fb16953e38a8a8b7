//! Shards, image by image.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::manifest::{Layout, Level, Shard};
use super::shard::Kind;
use super::{WriteBehind, map, shard_name, sync_folder};
use crate::Result;
use crate::error::Context;

/// Bytes that are hashed and written at once. (BLAKE3 is quickest on aligned powers of two.)
const PIECE: usize = 1 << 18;

/// Bytes of a shard after which they are brought to the disk.
const SYNCED: usize = 1 << 24;

/// Writes the shards of one level, image by image, in order.
#[derive(Debug)]
pub(crate) struct LevelWriter<'a> {
    dir: &'a Path,
    behind: &'a WriteBehind,
    kind: Kind,
    /// Images in a full shard.
    capacity: u64,
    /// Images there will be in all shards, at most.
    total: u64,
    shards: Vec<Shard>,
    open: Option<OpenFile<'a>>,
}

#[derive(Debug)]
struct OpenFile<'a> {
    path: PathBuf,
    file: File,
    behind: &'a WriteBehind,
    /// Bytes written since they were last asked to be brought to the disk.
    unsynced: usize,
    /// What is not in the file yet, less than a [`PIECE`].
    rest: Vec<u8>,
    /// Images that the header promises.
    promised: u64,
    /// Images so far.
    count: u64,
    /// Where each file begins, behind the header, and the last one ends. Pixels need no such list.
    offsets: Vec<u64>,
    /// Of all pixels so far. The header of files is known at the end only, and the shard is read again.
    hasher: Option<blake3::Hasher>,
}

impl<'a> LevelWriter<'a> {
    /// A writer into `dir` that goes on after `shards`, until there are `total` images or fewer.
    pub(crate) fn new(
        dir: &'a Path,
        behind: &'a WriteBehind,
        kind: Kind,
        shard_bytes: u64,
        shards: Vec<Shard>,
        total: u64,
    ) -> Self {
        let capacity = (shard_bytes / kind.image_bytes() as u64).max(1);
        Self { dir, behind, kind, capacity, total, shards, open: None }
    }

    /// The first image of the next shard.
    fn first(&self) -> u64 {
        self.shards.last().map_or(0, |shard| shard.first + shard.count)
    }

    /// Appends an image, pixels or file as the layout asks; tells the shard that it completed, if it did.
    pub(crate) fn push(&mut self, stored: &[u8]) -> Result<Option<&Shard>> {
        let promised = self.capacity.min(self.total.saturating_sub(self.first()));
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenFile::create(
                &self.dir.join(shard_name(self.kind.level, self.shards.len())),
                self.behind,
                self.kind,
                promised,
            )?),
        };
        open.append(stored)?;
        open.count += 1;
        if let Some(begin) = open.offsets.last() {
            open.offsets.push(begin + stored.len() as u64);
        }
        if open.count == self.capacity { self.complete() } else { Ok(None) }
    }

    /// Completes the last shard, if it is open.
    pub(crate) fn complete(&mut self) -> Result<Option<&Shard>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let count = open.count;
        let whole = open.path.with_extension("safetensors");
        let blake3 = open.finish(self.kind, &whole)?;
        sync_folder(self.dir)?;
        let first = self.first();
        let file = shard_name(self.kind.level, self.shards.len());
        self.shards.push(Shard { file, first, count, blake3 });
        Ok(self.shards.last())
    }

    /// All shards, when the last is complete.
    pub(crate) fn into_level(self) -> Level {
        Level { level: self.kind.level, layout: self.kind.layout, shards: self.shards }
    }
}

impl<'a> OpenFile<'a> {
    /// Begins a shard of `promised` images that will be called `path`.
    fn create(path: &Path, behind: &'a WriteBehind, kind: Kind, promised: u64) -> Result<Self> {
        let path = path.with_extension("partial");
        let file = File::create(&path).context("write", &path)?;
        let (hasher, offsets) = match kind.layout {
            Layout::Raw => (Some(blake3::Hasher::new()), Vec::new()),
            _ => (None, vec![0]),
        };
        let rest = Vec::with_capacity(PIECE);
        let (unsynced, count) = (0, 0);
        let mut open =
            Self { path, file, behind, unsynced, rest, promised, count, offsets, hasher };
        // For the time being: there may be fewer images, and files have other lengths.
        open.append(&kind.header(promised, promised.saturating_mul(kind.image_bytes() as u64)))?;
        Ok(open)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.rest.len() + bytes.len() >= PIECE {
            if self.rest.is_empty() {
                let (whole, behind) = bytes.split_at(bytes.len() / PIECE * PIECE);
                self.write(whole)?;
                bytes = behind;
            } else {
                let (filling, behind) = bytes.split_at(PIECE - self.rest.len());
                self.rest.extend_from_slice(filling);
                self.flush()?;
                bytes = behind;
            }
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut rest = std::mem::take(&mut self.rest);
        self.write(&rest)?;
        rest.clear();
        self.rest = rest;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.file.write_all(bytes).context("write", &self.path)?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNCED && self.behind.sync(&self.file, &self.path) {
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Writes what is missing, and names the file `whole`; returns its BLAKE3.
    fn finish(mut self, kind: Kind, whole: &Path) -> Result<String> {
        let mut bytes = self.count * kind.image_bytes() as u64;
        if let Some(&end) = self.offsets.last() {
            bytes = end.next_multiple_of(8);
            self.append(&[0; 8][..(bytes - end) as usize])?;
            let offsets: Vec<u8> = self.offsets.iter().flat_map(|at| at.to_le_bytes()).collect();
            self.append(&offsets)?;
        }
        self.flush()?;
        let Self { path, mut file, promised, count, hasher, .. } = self;
        let hash = match hasher {
            Some(hasher) if count == promised => hasher.finalize(),
            _ => {
                file.seek(SeekFrom::Start(0)).context("write", &path)?;
                file.write_all(&kind.header(count, bytes)).context("write", &path)?;
                let file = File::open(&path).context("read", &path)?;
                blake3::hash(&map::map(&file).context("map", &path)?)
            }
        };
        file.sync_all().context("write", &path)?;
        fs::rename(&path, whole).context("write", whole)?;
        Ok(hash.to_hex().to_string())
    }
}
