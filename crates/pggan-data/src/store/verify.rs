//! Looks at every byte of a store.

use std::fs;

use super::manifest::Layout;
use super::{NAMES, Store};
use crate::error::Context;
use crate::pyramid::{Pyramid, levels, pyramid_bytes};
use crate::{Error, MIN_LEVEL, Result, parallel};

/// What [`Store::verify`] has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Shards whose BLAKE3 is right.
    pub shards: u64,
    /// Images whose lower levels are the means of their top level.
    pub images: u64,
    /// Bytes in all shards.
    pub bytes: u64,
}

/// How far a JPEG may be from what it was made of, root mean square, of 255. Noise at low quality is 30 off;
/// another picture is further.
const LOSS: f64 = 40.0;

impl Store {
    /// The source's names of all images, once their BLAKE3 has been found right.
    pub fn names(&self) -> Result<Vec<String>> {
        let path = self.dir().join(NAMES);
        let bytes = fs::read(&path).context("read", &path)?;
        if blake3::hash(&bytes).to_hex().as_str() != self.manifest().names_blake3 {
            let reason = "its content does not have the BLAKE3 of the manifest".into();
            return Err(Error::Damaged { path, reason });
        }
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// Compares the BLAKE3 of every shard on `threads` threads; reading images is then free of checks.
    pub fn check_hashes(&self, threads: usize) -> Result<()> {
        let shards: Vec<_> = self.shards().collect();
        let slots = std::iter::repeat_with(|| Ok(())).take(2 * threads.max(1)).collect();
        let worker =
            || Ok(|index: usize, slot: &mut Result<()>| *slot = shards[index].mapped().map(drop));
        parallel::ordered(threads, shards.len(), slots, worker, |_, slot| {
            std::mem::replace(slot, Ok(()))
        })
    }

    /// Compares every hash (that of the labels was compared by [`open`](Self::open)) and recomputes the pyramid of every image on `threads` threads.
    ///
    /// `progress` is told the number of images done. The error is the first damage found.
    pub fn verify(&self, threads: usize, mut progress: impl FnMut(u64)) -> Result<Verified> {
        self.names()?;
        self.check_hashes(threads)?;

        let max_level = self.max_level();
        let slots = std::iter::repeat_with(|| Ok(())).take(4 * threads.max(1)).collect();
        let worker = || {
            let mut pyramid = Pyramid::new(self.channels());
            let mut expected = vec![0; pyramid_bytes(self.channels(), max_level)];
            Ok(move |index: usize, slot: &mut Result<()>| {
                *slot = self.image(max_level, index as u64).and_then(|top| {
                    expected[..top.len()].copy_from_slice(&top);
                    pyramid.fill(max_level, &mut expected);
                    self.compare(index as u64, &expected)
                });
            })
        };
        parallel::ordered(threads, self.images() as usize, slots, worker, |index, slot| {
            progress(index as u64 + 1);
            std::mem::replace(slot, Ok(()))
        })?;
        let bytes = (MIN_LEVEL..=max_level).map(|level| self.bytes_on_disk(level)).sum();
        Ok(Verified { shards: self.shards().count() as u64, images: self.images(), bytes })
    }

    fn compare(&self, index: u64, expected: &[u8]) -> Result<()> {
        for (level, pixels) in levels(self.channels(), self.max_level(), expected).skip(1) {
            let stored = self.image(level, index)?;
            let same = match self.layout(level) {
                Layout::Raw | Layout::Png | Layout::Webp => *stored == *pixels,
                Layout::Jpeg => distance(&stored, pixels) <= LOSS,
            };
            if !same {
                let reason =
                    format!("image {index} at level {level} is not the mean of the level above");
                return Err(Error::Damaged { path: self.dir().to_owned(), reason });
            }
        }
        Ok(())
    }
}

/// Root mean square difference.
fn distance(a: &[u8], b: &[u8]) -> f64 {
    let squares = a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2));
    (squares.sum::<u64>() as f64 / a.len().max(1) as f64).sqrt()
}
