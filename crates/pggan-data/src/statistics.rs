//! What the pixels of a store are like: means, deviations, and images that are there twice.

use std::collections::BTreeMap;

use crate::pyramid::level_bytes;
use crate::{MIN_LEVEL, Result, Store, parallel};

/// Mean and standard deviation of a level's pixels, a value for each channel, in 0…255.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Base-2 logarithm of the side.
    pub level: u32,
    /// Mean of each channel.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub std: Vec<f64>,
}

/// The moments of every level, over all pixels of all images, on `threads` threads.
///
/// The sums are of whole numbers: the result does not depend on the threads.
pub fn moments(store: &Store, threads: usize) -> Result<Vec<Moments>> {
    let channels = store.channels();
    (MIN_LEVEL..=store.max_level())
        .map(|level| {
            let mut sums = vec![(0_u128, 0_u128); channels];
            let slots =
                std::iter::repeat_with(|| Ok(Vec::new())).take(4 * threads.max(1)).collect();
            let worker = || {
                Ok(|index: usize, slot: &mut Result<Vec<(u64, u64)>>| {
                    *slot = store.image(level, index as u64).map(|image| {
                        image.chunks_exact(level_bytes(1, level)).map(plane_sums).collect()
                    });
                })
            };
            let count = store.images() as usize;
            parallel::ordered(threads, count, slots, worker, |_, slot| {
                for (sum, (one, squares)) in
                    sums.iter_mut().zip(std::mem::replace(slot, Ok(Vec::new()))?)
                {
                    sum.0 += one as u128;
                    sum.1 += squares as u128;
                }
                Ok(())
            })?;
            let n = store.images() as f64 * level_bytes(1, level) as f64;
            let mean: Vec<f64> = sums.iter().map(|&(sum, _)| sum as f64 / n).collect();
            let variance = |(mean, &(_, squares)): (&f64, &(u128, u128))| {
                (squares as f64 / n - mean * mean).max(0.0).sqrt()
            };
            let std = mean.iter().zip(&sums).map(variance).collect();
            Ok(Moments { level, mean, std })
        })
        .collect()
}

fn plane_sums(plane: &[u8]) -> (u64, u64) {
    let sum = plane.iter().map(|&v| u64::from(v)).sum();
    let squares = plane.iter().map(|&v| u64::from(v) * u64::from(v)).sum();
    (sum, squares)
}

/// Groups of images that look the same, each in the order of the store.
///
/// Images look the same if their 8x8 levels (4x4, where there is no other) rise and fall alike, from each pixel
/// to the one right of it and to the one below, in every channel: a difference hash. It overlooks another
/// encoding, scale, brightness and contrast; mirrored and cropped images differ.
pub fn duplicates(store: &Store) -> Result<Vec<Vec<u64>>> {
    let level = store.max_level().min(3);
    let mut groups: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for index in 0..store.images() {
        let hash = difference_hash(&store.image(level, index)?, 1 << level);
        groups.entry(hash).or_default().push(index);
    }
    let mut groups: Vec<_> = groups.into_values().filter(|images| images.len() > 1).collect();
    groups.sort_unstable();
    Ok(groups)
}

/// A bit for each pair of neighbours.
fn difference_hash(planes: &[u8], side: usize) -> Vec<u8> {
    let right =
        planes.chunks_exact(side).flat_map(|row| row.windows(2).map(|pair| pair[0] < pair[1]));
    let plane = side * side;
    let below = planes
        .chunks_exact(plane)
        .flat_map(|plane| (side..plane.len()).map(|at| plane[at - side] < plane[at]));
    let bits: Vec<bool> = right.chain(below).collect();
    bits.chunks(8).map(|byte| byte.iter().fold(0, |bits, &bit| bits << 1 | u8::from(bit))).collect()
}
