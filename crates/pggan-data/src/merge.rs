//! Parts that were prepared apart, joined into one store.
//!
//! `prepare` with [`Part`] *i* of *n* makes a store of a slice of the source in `DEST/part-0000i-of-0000n`. Any
//! scheduler can run the n of them, wherever the source and DEST can be seen, and again those that failed.
//! [`merge`] moves their shards to DEST: nothing is copied, and the manifest appears last. Killed, it is
//! continued by the next run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::labels::Labels;
use crate::store::manifest::{Manifest, Shard};
use crate::store::{LABELS, MANIFEST, NAMES, shard_name, sync_folder, write_atomically};
use crate::{Error, Result, Store};

/// A slice of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which, from 1.
    pub number: u32,
    /// Of how many, at most 99999.
    pub of: u32,
}

impl Part {
    /// The folder of the part in a destination.
    pub fn dir(self, dest: &Path) -> PathBuf {
        dest.join(format!("part-{:05}-of-{:05}", self.number, self.of))
    }

    /// Its share of `entries` entries.
    pub(crate) fn slice(self, entries: usize) -> std::ops::Range<usize> {
        let begin = |number: u32| (entries as u128 * number as u128 / self.of as u128) as usize;
        begin(self.number - 1)..begin(self.number)
    }

    /// The part that a folder is called after.
    fn of_dir(name: &str) -> Option<Self> {
        let (number, of) = name.strip_prefix("part-")?.split_once("-of-")?;
        let part = Self { number: number.parse().ok()?, of: of.parse().ok()? };
        let named = part.dir(Path::new("")) == Path::new(name);
        (named && (1..=part.of).contains(&part.number)).then_some(part)
    }
}

/// Joins the parts in `dest`; returns the number of images.
///
/// # Errors
/// [`Error::Parts`] if a part is missing or was prepared otherwise than the others, [`Error::Damaged`] and
/// [`Error::Io`] as they come.
pub fn merge(dest: &Path) -> Result<u64> {
    let wrong = |reason: String| Error::Parts { dest: dest.to_owned(), reason };
    let parts = parts(dest)?;
    if let Some(merged) = Manifest::read(dest)? {
        if parts.is_empty() {
            return Err(wrong("there are no parts, and a data set is there already".into()));
        }
        // All was moved; the run before died while it removed what was left.
        remove(dest, &parts, &merged)?;
        return Ok(merged.images);
    }
    let of = parts.first().map(|part| part.of);
    let Some(of) = of else {
        return Err(wrong("there are no parts; make them with --shard".into()));
    };
    if parts.iter().any(|part| part.of != of) {
        return Err(wrong("there are parts of different numbers of shards".into()));
    }
    let missing: Vec<String> = (1..=of)
        .filter(|number| {
            let part = Part { number: *number, of };
            !part.dir(dest).join(MANIFEST).exists()
        })
        .map(|number| format!("{number}/{of}"))
        .collect();
    if !missing.is_empty() {
        return Err(wrong(format!("not finished: --shard {}", missing.join(", "))));
    }
    let mut manifests = Vec::new();
    for part in &parts {
        let dir = part.dir(dest);
        manifests.push(Manifest::read(&dir)?.ok_or(Error::NoStore { dir, unfinished: true })?);
    }
    let first = &manifests[0];
    for (part, manifest) in parts.iter().zip(&manifests) {
        let same = (manifest.max_level, manifest.labels, &manifest.class_names)
            == (first.max_level, first.labels, &first.class_names);
        if !same || !manifest.recipe.same_but_slice(&first.recipe) {
            return Err(wrong(format!("part {}/{of} was prepared differently", part.number)));
        }
    }
    join(dest, &parts, &manifests)
}

fn join(dest: &Path, parts: &[Part], manifests: &[Manifest]) -> Result<u64> {
    let mut names = Vec::new();
    let mut labels: Option<Labels> = None;
    for (part, manifest) in parts.iter().zip(manifests) {
        let path = part.dir(dest).join(NAMES);
        let bytes = fs::read(&path).context("read", &path)?;
        if blake3::hash(&bytes).to_hex().as_str() != manifest.names_blake3 {
            let reason = "its content does not have the BLAKE3 of the manifest".into();
            return Err(Error::Damaged { path, reason });
        }
        names.extend(bytes);
        match (&mut labels, Store::read_labels(&part.dir(dest), manifest)?) {
            (Some(all), Some(more)) => all.append(more),
            (none, more) => *none = more,
        }
    }
    let mut merged = manifests[0].clone();
    merged.recipe.slice = None;
    for manifest in &manifests[1..] {
        merged.add(manifest);
    }
    write_atomically(&dest.join(NAMES), &names)?;
    merged.names_blake3 = blake3::hash(&names).to_hex().to_string();
    if let Some(labels) = labels {
        let bytes = labels.to_bytes();
        write_atomically(&dest.join(LABELS), &bytes)?;
        merged.labels_blake3 = Some(blake3::hash(&bytes).to_hex().to_string());
    }
    for (place, level) in merged.levels.iter_mut().enumerate() {
        let mut shards = Vec::new();
        let mut next = 0;
        for (part, manifest) in parts.iter().zip(manifests) {
            for shard in &manifest.levels[place].shards {
                let file = shard_name(level.level, shards.len());
                let (from, to) = (part.dir(dest).join(&shard.file), dest.join(&file));
                if from.exists() || !to.exists() {
                    fs::rename(&from, &to).context("move", &from)?;
                }
                shards.push(Shard { file, first: next, ..shard.clone() });
                next += shard.count;
            }
        }
        level.shards = shards;
    }
    sync_folder(dest)?;
    write_atomically(&dest.join(MANIFEST), &merged.to_bytes())?;
    remove(dest, parts, &merged)?;
    Ok(merged.images)
}

/// The folders of parts in `dest`, in order.
fn parts(dest: &Path) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for item in fs::read_dir(dest).context("list", dest)? {
        let item = item.context("list", dest)?;
        parts.extend(item.file_name().to_str().and_then(Part::of_dir));
    }
    parts.sort_by_key(|part| (part.of, part.number));
    Ok(parts)
}

/// Removes the parts' folders, once all of `merged` is where it belongs.
fn remove(dest: &Path, parts: &[Part], merged: &Manifest) -> Result<()> {
    for shard in merged.levels.iter().flat_map(|level| &level.shards) {
        let path = dest.join(&shard.file);
        path.metadata().context("find", &path)?;
    }
    for part in parts {
        let dir = part.dir(dest);
        fs::remove_dir_all(&dir).context("remove", &dir)?;
    }
    sync_folder(dest)
}
