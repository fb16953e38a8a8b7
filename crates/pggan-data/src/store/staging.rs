//! The folder in which a store is made, so that it can be killed at any moment.
//!
//! Everything is made in the folder `.partial` inside the destination and moved up when all is done, the
//! manifest last; until then an older store at the destination stays as it is. Each finished shard of the
//! *top* level is noted in a journal file beside it. A later run takes the noted shards over if their
//! hashes are right, computes the levels below from them (no file is decoded twice) and goes on behind.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{Bad, Manifest, Recipe, Shard};
use super::shard::{Kind, MappedShard};
use super::{LABELS, MANIFEST, NAMES, shard_name, sync_folder, write_atomically};
use crate::error::Context;
use crate::{Error, Labels, Result};

const PARTIAL: &str = ".partial";
const LOCK: &str = "lock";
const RECIPE: &str = "recipe.json";

/// Whether a preparation was begun in `dir`.
pub(super) fn is_unfinished(dir: &Path) -> bool {
    dir.join(PARTIAL).is_dir()
}

/// Whether `dir` holds files, but neither a store nor the beginning of one.
pub(crate) fn is_foreign(dir: &Path) -> Result<bool> {
    if !dir.is_dir() || is_unfinished(dir) || dir.join(MANIFEST).exists() {
        return Ok(false);
    }
    Ok(fs::read_dir(dir).context("list", dir)?.next().is_some())
}

/// The folder in which a store is made.
#[derive(Debug)]
pub(crate) struct Staging {
    dest: PathBuf,
    dir: PathBuf,
    /// Held for as long as this lives; the system frees it if the process dies.
    _lock: File,
    /// Whether `dest` was there before.
    dest_is_ours: bool,
}

/// What is known of a finished shard of the top level.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) shard: Shard,
    /// The first of the source's entries that was not used up when it was finished.
    pub(crate) next_entry: usize,
    /// The source's entries that became its images.
    pub(crate) kept: Vec<usize>,
    /// Files that failed to decode on the way.
    pub(crate) bad: Vec<Bad>,
    /// Its images that were enlarged.
    pub(crate) enlarged: u64,
}

impl Staging {
    /// Opens the staging folder in `dest`, making both as needed, for a store of `recipe` at `max_level`.
    /// What an earlier run left there for another recipe is removed.
    pub(crate) fn open(dest: &Path, recipe: &Recipe, max_level: u32) -> Result<Self> {
        let dest_is_ours = !dest.exists();
        let dir = dest.join(PARTIAL);
        fs::create_dir_all(&dir).context("create", &dir)?;
        let staging = Self { dest: dest.to_owned(), _lock: lock(dest, &dir)?, dir, dest_is_ours };
        let note = serde_json::to_vec(&(recipe, max_level)).expect("a recipe always serializes");
        if fs::read(staging.dir.join(RECIPE)).ok().as_ref() != Some(&note) {
            staging.keep_only(&[])?;
            write_atomically(&staging.dir.join(RECIPE), &note)?;
        }
        Ok(staging)
    }

    /// The folder that shards are written to.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest, if an earlier run got as far as that and had only to move the files up.
    pub(crate) fn finished(&self) -> Option<Manifest> {
        Manifest::read(&self.dir).ok().flatten()
    }

    /// Shards of the top level which an earlier run finished; all else is removed.
    pub(crate) fn restore(&self, top: Kind) -> Result<Vec<(Journal, MappedShard)>> {
        let mut restored: Vec<(Journal, MappedShard)> = Vec::new();
        let mut keep = vec![RECIPE.to_owned()];
        loop {
            let number = restored.len();
            let first =
                restored.last().map_or(0, |(journal, _)| journal.shard.first + journal.shard.count);
            let (name, note) = (shard_name(top.level, number), journal_name(number));
            let Some(journal) = fs::read(self.dir.join(&note))
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Journal>(&bytes).ok())
                .filter(|journal| journal.shard.file == name && journal.shard.first == first)
            else {
                break;
            };
            let Ok(shard) = MappedShard::open(&self.dir.join(&name), top, &journal.shard) else {
                break;
            };
            keep.extend([name, note]);
            restored.push((journal, shard));
        }
        self.keep_only(&keep)?;
        Ok(restored)
    }

    /// Notes a finished shard of the top level.
    pub(crate) fn note(&self, number: usize, journal: &Journal) -> Result<()> {
        let bytes = serde_json::to_vec(journal).expect("a journal always serializes");
        write_atomically(&self.dir.join(journal_name(number)), &bytes)
    }

    /// Completes the manifest with names and labels and moves all to the destination.
    pub(crate) fn finish(
        self,
        mut manifest: Manifest,
        names: &str,
        labels: Option<&Labels>,
    ) -> Result<Manifest> {
        if let Some(labels) = labels {
            let bytes = labels.to_bytes();
            manifest.labels = labels.width() as u64;
            manifest.labels_blake3 = Some(blake3::hash(&bytes).to_hex().to_string());
            write_atomically(&self.dir.join(LABELS), &bytes)?;
        }
        manifest.names_blake3 = blake3::hash(names.as_bytes()).to_hex().to_string();
        write_atomically(&self.dir.join(NAMES), names.as_bytes())?;
        write_atomically(&self.dir.join(MANIFEST), &manifest.to_bytes())?;
        self.publish(&manifest)?;
        Ok(manifest)
    }

    /// Moves a finished store to the destination. A run that dies on the way leaves no manifest at the
    /// destination and one here, and the next run goes on with this.
    pub(crate) fn publish(self, manifest: &Manifest) -> Result<()> {
        let old = self.dest.join(MANIFEST);
        if let Err(error) = fs::remove_file(&old)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).context("replace", &old);
        }
        sync_folder(&self.dest)?;
        let labels = manifest.labels_blake3.is_some().then_some(LABELS);
        let files: Vec<&str> = manifest
            .levels
            .iter()
            .flat_map(|level| &level.shards)
            .map(|s| s.file.as_str())
            .chain(labels)
            .collect();
        for item in fs::read_dir(&self.dest).context("list", &self.dest)? {
            let item = item.context("list", &self.dest)?;
            let name = item.file_name().to_string_lossy().into_owned();
            if (is_shard_name(&name) || name == LABELS) && !files.contains(&name.as_str()) {
                fs::remove_file(item.path()).context("remove", &item.path())?;
            }
        }
        for name in files.into_iter().chain([NAMES]) {
            match fs::rename(self.dir.join(name), self.dest.join(name)) {
                // Moved by a run that died a moment later.
                Err(error)
                    if error.kind() == ErrorKind::NotFound && self.dest.join(name).exists() => {}
                moved => moved.context("move", &self.dir.join(name))?,
            }
        }
        sync_folder(&self.dest)?;
        fs::rename(self.dir.join(MANIFEST), &old).context("write", &old)?;
        sync_folder(&self.dest)?;
        fs::remove_dir_all(&self.dir).context("remove", &self.dir)
    }

    /// Leaves the destination as it was before.
    pub(crate) fn discard(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).context("remove", &self.dir)?;
        if self.dest_is_ours {
            fs::remove_dir(&self.dest).context("remove", &self.dest)?;
        }
        Ok(())
    }

    fn keep_only(&self, names: &[String]) -> Result<()> {
        for item in fs::read_dir(&self.dir).context("list", &self.dir)? {
            let item = item.context("list", &self.dir)?;
            let name = item.file_name();
            if name != LOCK && !names.iter().any(|kept| *kept == *name.to_string_lossy()) {
                fs::remove_file(item.path()).context("remove", &item.path())?;
            }
        }
        Ok(())
    }
}

/// Removes what a run for `recipe` left behind if it died when all but that was done.
pub(crate) fn tidy(dest: &Path, recipe: &Recipe) -> Result<()> {
    let dir = dest.join(PARTIAL);
    let of_other = |note: Vec<u8>| match serde_json::from_slice::<(Recipe, u32)>(&note) {
        Ok((other, _)) => other != *recipe,
        Err(_) => false,
    };
    // Without a note it holds nothing but the lock: it was being removed.
    if dir.is_dir() && !fs::read(dir.join(RECIPE)).is_ok_and(of_other) {
        let _lock = lock(dest, &dir)?;
        fs::remove_dir_all(&dir).context("remove", &dir)?;
    }
    Ok(())
}

/// Holds off other processes for as long as the file is open.
fn lock(dest: &Path, dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let lock = File::create(&path).context("write", &path)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Busy { dest: dest.to_owned() }),
        // A file system without locks: go on without.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(lock),
    }
}

fn journal_name(number: usize) -> String {
    format!("journal-{number:05}.json")
}

/// Whether a store could have a shard of this name.
fn is_shard_name(name: &str) -> bool {
    let parts =
        name.strip_prefix('r').and_then(|rest| rest.strip_suffix(".safetensors")?.split_once('-'));
    parts
        .and_then(|(level, number)| Some(shard_name(level.parse().ok()?, number.parse().ok()?)))
        .is_some_and(|own| own == name)
}
