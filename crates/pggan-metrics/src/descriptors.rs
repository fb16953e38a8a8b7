//! Descriptors: the 7x7 patches of a pyramid level whose distributions SWD compares (the paper's section 5).

use rand::Rng as _;
use rayon::prelude::*;

use crate::random::{Purpose, stream};
use crate::{Error, Result};

/// Side of a patch.
pub const PATCH: usize = 7;
/// Patches cut from each image and level.
pub const PATCHES_PER_IMAGE: usize = 128;

const AREA: usize = PATCH * PATCH;
const HALF: usize = PATCH / 2;

/// The column and row of a patch's middle pixel.
pub type Centre = (usize, usize);

/// Where the patches of image number `image` lie: uniform over all places where a patch fits.
/// The two sets that are compared have `set` 0 and 1.
pub fn draw_centres(seed: u64, set: u8, resolution: usize, image: usize) -> Vec<Centre> {
    let mut rng = stream(seed, Purpose::Positions { set, resolution }, image as u64);
    let mut draw = || rng.random_range(HALF as u32..(resolution - HALF) as u32) as usize;
    (0..PATCHES_PER_IMAGE).map(|_| (draw(), draw())).collect()
}

/// Cuts the patches with the given centres from a level `[C, S, S]`, not normalised, to `[C, dx, dy, patches]`: a
/// column-major matrix with a patch in each row, which a matrix product takes as it is. The original stores patches
/// column by column, so dx comes before dy.
pub(crate) fn cut(
    level: &[f32],
    resolution: usize,
    centres: &[Centre],
    out: &mut [f32],
) -> Result<Vec<Sums>> {
    let area = resolution * resolution;
    let equal = |what, expected, found| {
        if expected == found { Ok(()) } else { Err(Error::Mismatch { what, expected, found }) }
    };
    let size = AREA * centres.len();
    equal("values of a pyramid level", out.len() / size.max(1) * area, level.len())?;
    let fits = |at: usize| at >= HALF && at + HALF < resolution;
    if let Some(patch) = centres.iter().position(|&(x, y)| !fits(x) || !fits(y)) {
        let (x, y) = centres[patch];
        return Err(Error::Position { patch, x, y, resolution });
    }
    let corners: Vec<usize> =
        centres.iter().map(|(x, y)| (y - HALF) * resolution + x - HALF).collect();
    let mut sums = Vec::with_capacity(level.len() / area);
    for (plane, out) in level.chunks_exact(area).zip(out.chunks_exact_mut(size)) {
        for (i, out) in out.chunks_exact_mut(corners.len()).enumerate() {
            let (dx, dy) = (i / PATCH, i % PATCH);
            let shifted = &plane[dy * resolution + dx..];
            for (value, &corner) in out.iter_mut().zip(&corners) {
                *value = shifted[corner];
            }
        }
        sums.push(Sums::of(out));
    }
    Ok(sums)
}

/// What normalisation needs to know of a channel.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    values: f64,
    squares: f64,
}

impl Sums {
    /// Sums in several lanes, which SIMD can take, in an order that depends on nothing but the length.
    fn of(values: &[f32]) -> Self {
        const LANES: usize = 8;
        let (mut sum, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let chunks = values.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks.chain(std::iter::once(rest)) {
            for ((sum, square), &value) in sum.iter_mut().zip(&mut squares).zip(chunk) {
                let value = f64::from(value);
                *sum += value;
                *square += value * value;
            }
        }
        Self { values: sum.iter().sum(), squares: squares.iter().sum() }
    }
}

/// All descriptors of a set at one level, in memory that is laid out once and serves one level after the other.
///
/// Each image's patches are a block of their own and unnormalised: normalisation is affine,
/// so it is folded into the directions that the descriptors are projected on.
#[derive(Debug, Clone)]
pub struct Descriptors {
    /// A block for each image, as [`cut`] writes it; not all of them need be filled.
    blocks: Vec<f32>,
    images: usize,
    patches_per_image: usize,
    /// By channel.
    sums: Vec<Sums>,
}

/// Mean and standard deviation of one channel over all patches of a set and all places in them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalisation {
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

impl Descriptors {
    /// Room for the patches of `images` images, at least one, each with `channels` channels.
    pub fn new(images: usize, channels: usize, patches_per_image: usize) -> Self {
        let blocks = vec![0.0; images * patches_per_image * channels * AREA];
        Self { blocks, images: 0, patches_per_image, sums: vec![Sums::default(); channels] }
    }

    /// Forgets the images and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.images = 0;
        self.sums.fill(Sums::default());
    }

    /// Adds the next image's patches: those with the given centres of its level `[C, S, S]`.
    pub fn push(&mut self, level: &[f32], resolution: usize, centres: &[Centre]) -> Result<()> {
        if centres.len() != self.patches_per_image {
            return Err(Error::Mismatch {
                what: "patches of an image",
                expected: self.patches_per_image,
                found: centres.len(),
            });
        }
        let Some(block) = self.free().next() else {
            return Err(Error::Count { promised: self.images, given: self.images + 1 });
        };
        let sums = cut(level, resolution, centres, block)?;
        self.add(&sums);
        Ok(())
    }

    /// The blocks of the next images, to [`cut`] to; each must then be [added](Self::add), in order.
    pub(crate) fn free(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let block = self.block();
        self.blocks[self.images * block..].chunks_exact_mut(block.max(1))
    }

    pub(crate) fn add(&mut self, sums: &[Sums]) {
        for (total, image) in self.sums.iter_mut().zip(sums) {
            total.values += image.values;
            total.squares += image.squares;
        }
        self.images += 1;
    }

    /// Numbers of an image.
    fn block(&self) -> usize {
        self.patches_per_image * self.dims()
    }

    /// Descriptors in the set.
    pub fn len(&self) -> usize {
        self.images * self.patches_per_image
    }

    /// Whether there is no descriptor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels of the images.
    pub fn channels(&self) -> usize {
        self.sums.len()
    }

    /// Numbers in a descriptor: 147 of RGB images, 49 of grey ones.
    pub fn dims(&self) -> usize {
        self.sums.len() * AREA
    }

    /// Bytes that the descriptors of `images` images take.
    pub(crate) fn bytes(images: usize, channels: usize) -> usize {
        images * PATCHES_PER_IMAGE * channels * AREA * size_of::<f32>()
    }

    pub(crate) fn patches_per_image(&self) -> usize {
        self.patches_per_image
    }

    /// Each image's patches, column-major `[patches, dims]`.
    pub(crate) fn images(&self) -> impl IndexedParallelIterator<Item = &[f32]> {
        let block = self.block();
        self.blocks[..self.images * block].par_chunks_exact(block.max(1))
    }

    /// Mean and deviation by channel; the number of a channel that has no deviation if there is one.
    pub(crate) fn normalisation(&self) -> Result<Vec<Normalisation>, usize> {
        let count = (self.len() * AREA) as f64;
        let of_channel = |(channel, sums): (usize, &Sums)| {
            let mean = sums.values / count;
            let variance = sums.squares / count - mean * mean;
            // What rounding leaves of a constant is some 1e-16 of its square.
            if variance > 1e-13 * sums.squares / count {
                Ok(Normalisation { mean, std: variance.sqrt() })
            } else {
                Err(channel)
            }
        };
        self.sums.iter().enumerate().map(of_channel).collect()
    }

    /// The descriptors as the original holds them, row by row `[len, dims]` with mean 0 and deviation 1 in each
    /// channel. Large: for looking at, [`swd`](crate::swd) does without. None if a channel is constant.
    pub fn normalised(&self) -> Option<Vec<f32>> {
        let normalisation = self.normalisation().ok()?;
        let mut rows = Vec::with_capacity(self.len() * self.dims());
        for image in self.blocks.chunks_exact(self.block().max(1)).take(self.images) {
            for patch in 0..self.patches_per_image {
                let row = image[patch..].iter().step_by(self.patches_per_image).enumerate();
                rows.extend(row.map(|(i, &value)| {
                    let Normalisation { mean, std } = normalisation[i / AREA];
                    ((f64::from(value) - mean) / std) as f32
                }));
            }
        }
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_read_column_by_column() {
        let level: Vec<f32> = (0..2 * 16 * 16).map(|i| i as f32).collect();
        let centres = [(3, 3), (12, 5), (8, 12)];
        let mut patches = vec![0.0; 2 * AREA * centres.len()];
        cut(&level, 16, &centres, &mut patches).unwrap();
        for (p, (x, y)) in centres.iter().enumerate() {
            for c in 0..2 {
                for (dx, dy) in (0..AREA).map(|i| (i / PATCH, i % PATCH)) {
                    let value = patches[((c * PATCH + dx) * PATCH + dy) * 3 + p];
                    assert_eq!(value, level[c * 256 + (y + dy - HALF) * 16 + x + dx - HALF]);
                }
            }
        }
    }

    #[test]
    fn normalised_descriptors_have_mean_0_and_deviation_1() {
        let mut descriptors = Descriptors::new(4, 3, PATCHES_PER_IMAGE);
        descriptors.push(&[7.0; 3 * 256], 16, &draw_centres(1, 1, 16, 0)).unwrap();
        descriptors.clear();
        for image in 0..3 {
            let level: Vec<f32> =
                (0..3 * 256).map(|i| ((i * 31 + image * 7) % 97) as f32 + 100.0).collect();
            descriptors.push(&level, 16, &draw_centres(1, 0, 16, image)).unwrap();
        }
        let rows = descriptors.normalised().unwrap();
        assert_eq!(rows.len(), 3 * PATCHES_PER_IMAGE * 147);
        for channel in 0..3 {
            let values = || {
                rows.chunks(147)
                    .flat_map(|row| &row[channel * AREA..][..AREA])
                    .map(|&v| f64::from(v))
            };
            let count = values().count() as f64;
            assert!((values().sum::<f64>() / count).abs() < 1e-6);
            assert!((values().map(|v| v * v).sum::<f64>() / count - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn centres_are_keyed_and_stay_inside() {
        for resolution in [16, 128, 1024] {
            let centres = draw_centres(5, 1, resolution, 9);
            assert_eq!(centres, draw_centres(5, 1, resolution, 9));
            for other in [
                draw_centres(6, 1, resolution, 9),
                draw_centres(5, 0, resolution, 9),
                draw_centres(5, 1, resolution, 8),
            ] {
                assert_ne!(centres, other);
            }
            assert!(centres.iter().all(
                |&(x, y)| (3..resolution - 3).contains(&x) && (3..resolution - 3).contains(&y)
            ));
        }
        // On the coarsest level all places are drawn.
        let columns: std::collections::BTreeSet<_> =
            (0..10).flat_map(|i| draw_centres(0, 0, 16, i)).map(|(x, _)| x).collect();
        assert_eq!(columns.into_iter().collect::<Vec<_>>(), (3..13).collect::<Vec<_>>());
    }

    #[test]
    fn wrong_input_is_named() {
        let level = vec![0.0; 256];
        let mut descriptors = Descriptors::new(1, 1, 2);
        let mut push = |level: &[f32], centres: &[Centre]| descriptors.push(level, 16, centres);
        assert!(matches!(
            push(&level, &[(3, 3), (2, 3)]),
            Err(Error::Position { patch: 1, x: 2, .. })
        ));
        assert!(matches!(push(&level, &[(13, 3); 2]), Err(Error::Position { patch: 0, .. })));
        assert!(matches!(push(&level[1..], &[(3, 3); 2]), Err(Error::Mismatch { .. })));
        assert!(matches!(push(&[0.0; 512], &[(3, 3); 2]), Err(Error::Mismatch { .. })));
        assert!(matches!(push(&level, &[(3, 3)]), Err(Error::Mismatch { .. })));
        push(&level, &[(3, 3); 2]).unwrap();
        assert!(matches!(push(&level, &[(3, 3); 2]), Err(Error::Count { .. })));
        assert_eq!(descriptors.normalisation().unwrap_err(), 0);
    }
}
