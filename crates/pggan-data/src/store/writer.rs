//! Shards, image by image.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::manifest::{Layout, Level, Shard};
use super::shard::Kind;
use super::{map, shard_name, sync_folder};
use crate::Result;
use crate::error::Context;

/// Writes the shards of one level, image by image, in order.
#[derive(Debug)]
pub(crate) struct LevelWriter {
    dir: PathBuf,
    kind: Kind,
    /// Images in a full shard.
    capacity: u64,
    shards: Vec<Shard>,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// Images so far.
    count: u64,
    /// Where each file begins, behind the header, and the last one ends. Pixels need no such list.
    offsets: Vec<u64>,
    /// Of a full shard of pixels. Of all others the header is known at the end only, and the file is read again.
    hasher: Option<blake3::Hasher>,
}

impl LevelWriter {
    /// A writer into `dir` that goes on after `shards`.
    pub(crate) fn new(dir: &Path, kind: Kind, shard_bytes: u64, shards: Vec<Shard>) -> Self {
        let capacity = (shard_bytes / kind.image_bytes() as u64).max(1);
        Self { dir: dir.to_owned(), kind, capacity, shards, open: None }
    }

    /// Appends an image, pixels or file as the layout asks; tells the shard that it completed, if it did.
    pub(crate) fn push(&mut self, stored: &[u8]) -> Result<Option<&Shard>> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenFile::create(
                &self.dir.join(shard_name(self.kind.level, self.shards.len())),
                self.kind,
                self.capacity,
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
        let blake3 = open.finish(self.kind, self.capacity, &whole)?;
        sync_folder(&self.dir)?;
        let first = self.shards.last().map_or(0, |shard| shard.first + shard.count);
        let file = shard_name(self.kind.level, self.shards.len());
        self.shards.push(Shard { file, first, count, blake3 });
        Ok(self.shards.last())
    }

    /// All shards, when the last is complete.
    pub(crate) fn into_level(self) -> Level {
        Level { level: self.kind.level, layout: self.kind.layout, shards: self.shards }
    }
}

impl OpenFile {
    /// Begins a shard that will be called `path`.
    fn create(path: &Path, kind: Kind, capacity: u64) -> Result<Self> {
        let path = path.with_extension("partial");
        let file = BufWriter::with_capacity(1 << 18, File::create(&path).context("write", &path)?);
        let (hasher, offsets) = match kind.layout {
            Layout::Raw => (Some(blake3::Hasher::new()), Vec::new()),
            _ => (None, vec![0]),
        };
        let mut open = Self { path, file, count: 0, offsets, hasher };
        // For the time being, unless the shard becomes full.
        open.append(&kind.header(capacity, capacity.saturating_mul(kind.image_bytes() as u64)))?;
        Ok(open)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.file.write_all(bytes).context("write", &self.path)
    }

    /// Writes what is missing, and names the file `whole`; returns its BLAKE3.
    fn finish(mut self, kind: Kind, capacity: u64, whole: &Path) -> Result<String> {
        let mut bytes = self.count * kind.image_bytes() as u64;
        if let Some(&end) = self.offsets.last() {
            bytes = end.next_multiple_of(8);
            self.append(&[0; 8][..(bytes - end) as usize])?;
            let offsets: Vec<u8> = self.offsets.iter().flat_map(|at| at.to_le_bytes()).collect();
            self.append(&offsets)?;
        }
        let Self { path, file, count, hasher, .. } = self;
        let mut file = file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .context("write", &path)?;
        let hash = match hasher {
            Some(hasher) if count == capacity => hasher.finalize(),
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
