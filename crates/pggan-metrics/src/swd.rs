//! Sliced Wasserstein distance between the patches of two sets of images (the paper's section 5).
//!
//! At each level of a Laplacian pyramid: 128 patches of 7x7 from each image, normalised by set and channel, projected
//! on 512 random directions; the mean over directions of the Wasserstein-1 distance of the projections, times 1000.
//!
//! # Memory
//! One level of both sets takes `2 * N * 128 * 49 C * 4` bytes, 2.47 GB for 16,384 RGB images at any resolution, and
//! projections 0.27 GB, or up to 1 GB where [`Options::memory`] has room: the more directions at once, the less often
//! are descriptors read. As many levels are gathered in one reading of the sets as it allows, one at least, and the next
//! ones in the same memory.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rand::Rng as _;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use crate::descriptors::{Descriptors, PATCH, PATCHES_PER_IMAGE, Sums, cut, draw_centres};
use crate::images::for_each_batch;
use crate::laplacian::{LaplacianPyramid, resolutions};
use crate::random::{Purpose, stream};
use crate::scratch::Scratch;
use crate::wasserstein::{Sample, Workspace};
use crate::{Error, ImageSet, Result};

/// Directions at each level: the original's 4 repeats of 128.
pub const DIRECTIONS: usize = 512;

/// Directions that are projected on before distances are taken, at most.
const DIRECTIONS_AT_ONCE: usize = 128;
/// Bytes that projections of both sets may always take.
const PROJECTION_BYTES: usize = 256 << 20;

/// How to measure; the rest is the paper's.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of patch positions and directions.
    pub seed: u64,
    /// Bytes that descriptors and projections may take. Less memory means more readings of the sets, same result.
    pub memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, memory: 2_000_000_000 }
    }
}

/// Distances by level, times 1000 as in the paper's tables. 0 is best.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Finest level first.
    pub levels: Vec<LevelScore>,
    /// Mean over the levels.
    pub average: f64,
}

/// The distance at one level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelScore {
    /// Side of the level in pixels.
    pub resolution: usize,
    /// Distance times 1000.
    pub distance: f64,
}

/// Measures the distance of two sets of images: same shape, same number, 16x16 at least.
///
/// The sets are read more than once if they are large (see [`Options::memory`]).
pub fn sliced_wasserstein(
    first: &dyn ImageSet,
    second: &dyn ImageSet,
    options: &Options,
) -> Result<Score> {
    let shape = first.shape();
    if second.shape() != shape {
        return Err(Error::DifferentShapes { first: shape, second: second.shape() });
    }
    let images = first.len();
    if second.len() != images {
        return Err(Error::DifferentCounts { first: images, second: second.len() });
    }
    if images == 0 {
        return Err(Error::TooFew { metric: "SWD", minimum: 1, found: 0 });
    }
    let resolutions = resolutions(shape)?;
    let level_bytes = 2 * Descriptors::bytes(images, shape.channels());
    let levels_at_once =
        (options.memory.saturating_sub(PROJECTION_BYTES) / level_bytes).clamp(1, resolutions.len());

    let spare = options.memory.saturating_sub(levels_at_once * level_bytes);
    let mut projections = Projections::within(spare);
    let room = || Descriptors::new(images, shape.channels(), PATCHES_PER_IMAGE);
    let mut firsts: Vec<_> = (0..levels_at_once).map(|_| room()).collect();
    let mut seconds: Vec<_> = (0..levels_at_once).map(|_| room()).collect();
    let mut levels = Vec::with_capacity(resolutions.len());
    for (reading, resolutions) in resolutions.chunks(levels_at_once).enumerate() {
        let from = reading * levels_at_once;
        describe(first, 0, from, resolutions, options.seed, &mut firsts)?;
        describe(second, 1, from, resolutions, options.seed, &mut seconds)?;
        for ((&resolution, first), second) in resolutions.iter().zip(&firsts).zip(&seconds) {
            let directions = Directions::draw(options.seed, resolution);
            let distance = 1e3 * projections.distance(first, second, &directions, resolution)?;
            levels.push(LevelScore { resolution, distance });
        }
    }
    let average = levels.iter().map(|level| level.distance).sum::<f64>() / levels.len() as f64;
    Ok(Score { levels, average })
}

/// The descriptors of a set at the levels `from..`, which have the given resolutions.
fn describe(
    set: &dyn ImageSet,
    number: u8,
    from: usize,
    resolutions: &[usize],
    seed: u64,
    levels: &mut [Descriptors],
) -> Result<()> {
    let shape = set.shape();
    let empty = LaplacianPyramid::new(shape)?;
    let scratch = Scratch::new(|| empty.clone());
    levels.iter_mut().for_each(Descriptors::clear);
    for_each_batch(set, |start, batch| {
        let images = batch.par_chunks_exact(shape.bytes());
        let mut blocks: Vec<Vec<&mut [f32]>> = vec![];
        blocks.resize_with(images.len(), || Vec::with_capacity(levels.len()));
        for level in levels.iter_mut() {
            for (blocks, block) in blocks.iter_mut().zip(level.free()) {
                blocks.push(block);
            }
        }
        let describe_image =
            |pyramid: &mut LaplacianPyramid, image: usize, pixels: &[u8], blocks: Vec<_>| {
                pyramid.build_levels(pixels, from, from + resolutions.len() - 1)?;
                let cut_level = |(level, (&resolution, block)): (usize, (&usize, _))| {
                    let centres = draw_centres(seed, number, resolution, image);
                    cut(pyramid.level(from + level), resolution, &centres, block)
                };
                resolutions.iter().zip(blocks).enumerate().map(cut_level).collect()
            };
        let described: Vec<Vec<Vec<Sums>>> = images
            .zip(blocks)
            .enumerate()
            .map(|(i, (pixels, blocks))| {
                scratch.with(|pyramid| describe_image(pyramid, start + i, pixels, blocks))
            })
            .collect::<Result<_>>()?;
        for image in &described {
            for (level, sums) in levels.iter_mut().zip(image) {
                level.add(sums);
            }
        }
        Ok(())
    })
}

/// Unit vectors in the space of RGB descriptors.
#[derive(Debug, Clone)]
pub struct Directions {
    /// Column-major `[147, count]`.
    columns: Vec<f32>,
}

/// Numbers in an RGB descriptor.
const DIMS: usize = 3 * PATCH * PATCH;

impl Directions {
    /// The 512 directions of a level, uniform on the sphere.
    pub fn draw(seed: u64, resolution: usize) -> Self {
        let mut rng = stream(seed, Purpose::Directions { resolution }, 0);
        let mut columns = Vec::with_capacity(DIMS * DIRECTIONS);
        for _ in 0..DIRECTIONS {
            let column: [f64; DIMS] = std::array::from_fn(|_| rng.sample(StandardNormal));
            let norm = column.iter().map(|v| v * v).sum::<f64>().sqrt();
            columns.extend(column.map(|v| (v / norm) as f32));
        }
        Self { columns }
    }

    /// Given directions, one after the other, 147 numbers each in the order `[C, dx, dy]`.
    pub fn from_columns(columns: Vec<f32>) -> Result<Self> {
        if columns.is_empty() || !columns.len().is_multiple_of(DIMS) {
            return Err(Error::Mismatch {
                what: "numbers in directions",
                expected: DIMS,
                found: columns.len(),
            });
        }
        Ok(Self { columns })
    }
}

/// The mean over directions of the Wasserstein-1 distance of two sets of descriptors, not times 1000.
///
/// `resolution` is that of the level, for messages.
pub fn distance(
    first: &Descriptors,
    second: &Descriptors,
    directions: &Directions,
    resolution: usize,
) -> Result<f64> {
    Projections::within(0).distance(first, second, directions, resolution)
}

/// Memory for projections of both sets on some directions, used from level to level.
#[derive(Debug)]
struct Projections {
    bytes: usize,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Projections {
    fn within(bytes: usize) -> Self {
        Self { bytes: bytes.max(PROJECTION_BYTES), first: Vec::new(), second: Vec::new() }
    }

    fn distance(
        &mut self,
        first: &Descriptors,
        second: &Descriptors,
        directions: &Directions,
        resolution: usize,
    ) -> Result<f64> {
        let (rows, channels) = (first.len(), first.channels());
        if rows == 0 {
            return Err(Error::TooFew { metric: "SWD", minimum: 1, found: 0 });
        }
        if !matches!(channels, 1 | 3) {
            return Err(Error::Channels { found: channels });
        }
        let equal = |what, expected, found| {
            if expected == found { Ok(()) } else { Err(Error::Mismatch { what, expected, found }) }
        };
        equal("descriptors of the second set", rows, second.len())?;
        equal("channels of the second set", channels, second.channels())?;
        let constant = |set| move |channel| Error::Constant { set, channel, resolution };
        let to_first = Projection::new(first, directions).map_err(constant("first"))?;
        let to_second = Projection::new(second, directions).map_err(constant("second"))?;

        let count = directions.columns.len() / DIMS;
        let fit = self.bytes / (2 * rows * size_of::<f32>());
        // Rounds of the same length.
        let rounds = count.div_ceil(fit.clamp(8, DIRECTIONS_AT_ONCE));
        let at_once = count.div_ceil(rounds);
        for memory in [&mut self.first, &mut self.second] {
            if memory.len() < rows * at_once {
                *memory = vec![0.0; rows * at_once];
            }
        }
        let scratch = Scratch::new(Workspace::new);
        let mut distances = Vec::with_capacity(count);
        for start in (0..count).step_by(at_once) {
            let end = (start + at_once).min(count);
            let a = &mut self.first[..rows * (end - start)];
            let b = &mut self.second[..rows * (end - start)];
            to_first.project(first, start..end, a);
            to_second.project(second, start..end, b);
            let offsets = to_first.offsets[start..end].iter().zip(&to_second.offsets[start..end]);
            let pairs = a.par_chunks_exact(rows).zip(b.par_chunks_exact(rows));
            distances.par_extend(pairs.zip(offsets.collect::<Vec<_>>()).map(
                |((a, b), offsets)| {
                    let a = Sample { points: a, offset: *offsets.0 };
                    let b = Sample { points: b, offset: *offsets.1 };
                    scratch.with(|workspace| workspace.distance(a, b))
                },
            ));
        }
        Ok(distances.iter().sum::<f64>() / count as f64)
    }
}

/// Normalisation and projection in one: `(d - mean) / std . v` is `d . (v / std) - mean / std . v`.
struct Projection {
    /// Column-major `[dims, count]`: directions divided by each channel's deviation.
    matrix: Vec<f32>,
    /// What is still to be added to the projections on each direction.
    offsets: Vec<f32>,
}

impl Projection {
    /// The number of a constant channel if there is one.
    fn new(descriptors: &Descriptors, directions: &Directions) -> Result<Self, usize> {
        let normalisation = descriptors.normalisation()?;
        let area = PATCH * PATCH;
        let mut matrix = Vec::with_capacity(directions.columns.len());
        let mut offsets = Vec::with_capacity(directions.columns.len() / DIMS);
        for direction in directions.columns.chunks_exact(DIMS) {
            let mut offset = 0.0;
            for (c, norm) in normalisation.iter().enumerate() {
                for i in 0..area {
                    // A grey image is one of three equal channels: its one channel meets the sum of their directions.
                    let weight: f64 = (c..3)
                        .step_by(normalisation.len())
                        .map(|channel| f64::from(direction[channel * area + i]))
                        .sum();
                    matrix.push((weight / norm.std) as f32);
                    offset -= norm.mean / norm.std * weight;
                }
            }
            offsets.push(offset as f32);
        }
        Ok(Self { matrix, offsets })
    }

    /// Writes the projections on `directions` but for the offsets, column-major `[descriptors, directions]`.
    fn project(
        &self,
        descriptors: &Descriptors,
        directions: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let (rows, dims, patches) =
            (descriptors.len(), descriptors.dims(), descriptors.patches_per_image());
        let matrix = &self.matrix[directions.start * dims..directions.end * dims];
        let matrix = MatRef::from_column_major_slice(matrix, dims, directions.len());
        MatMut::from_column_major_slice_mut(out, rows, directions.len())
            .par_row_chunks_mut(patches)
            .zip(descriptors.images())
            .for_each(|(out, image)| {
                let image = MatRef::from_column_major_slice(image, patches, dims);
                matmul(out, Accum::Replace, image, matrix, 1.0, Par::Seq);
            });
    }
}
