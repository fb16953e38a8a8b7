//! Weights applied to images: the forward pass, and the gradient of the input with adjoint weights.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::super::Resample;
use super::super::Size;
use super::super::filters::Filters;
use super::super::finish::Finish;
use super::super::scratch::Scratch;
use super::super::simd::{self, Panel, Target, Walk};
use super::tiling::{Form, Pair, Tile, Tiling};
use super::transform::{self, Images, Layout, Tiles};
use super::{BLOCK, SKEW};
use crate::cells::{Cell, Matrix};

/// Tiles of one task at most; they share its mapped weights.
const GROUP: usize = 192;
/// Tasks that are wanted, for machines of many cores.
const TASKS: usize = 8;
/// Output channels of one task, where many tasks share the points.
const COLUMNS: usize = 64;
/// Input times output channels up to which one task does all: points that only it uses stay in its
/// own cache.
const FUSED: usize = 128 * 128;
/// Points held at a time where tasks share them, in floats; with the weights they should fit the
/// last cache.
const HELD: usize = 2 << 20;
/// Blocks up to which a task keeps the sums of all, and the channels whose weights it then maps at
/// a time.
const FEW: usize = 2;
const SHALLOW: usize = 128;
/// Channels that one product sums over at most.
const DEPTH: usize = 512;

/// `[n, h, w, inputs]` to `[n, h', w', outputs]`.
pub(in super::super) fn apply(
    filters: &Filters,
    tile: Tile,
    resample: Resample,
    x: &[f32],
    size: Size,
    finish: Finish<'_>,
) -> Vec<f32> {
    let tiling = Tiling::new(Form::new(tile, resample), size);
    let zeros = vec![0.0; filters.inputs];
    let images = Images {
        data: x,
        size,
        stride: filters.inputs,
        channels: 0..filters.inputs,
        zeros: &zeros,
    };
    let job = Job { tiling, images, filters, pairs: tiling.form.pairs() };
    let fused = filters.inputs * filters.outputs <= FUSED;
    let width =
        if fused { filters.outputs } else { COLUMNS }.next_multiple_of(filters.widths.panel);

    // Tasks enough for many threads, but not so small that mapping the weights dominates.
    let tasks = TASKS.div_ceil(filters.outputs.div_ceil(width)).min(tiling.tiles() / (BLOCK / 2));
    // An even number, so that two threads share them evenly.
    let groups = tiling.tiles().div_ceil(GROUP).max(tasks).next_multiple_of(2);
    let rows = tiling.rows().div_ceil(groups);
    let chunk = if fused {
        tiling.rows()
    } else {
        (HELD / (rows * tiling.across * job.points_len(1))).max(1) * rows
    };

    let mut y = Matrix::new(tiling.output.pixels(), filters.outputs);
    for first in (0..tiling.rows()).step_by(chunk) {
        let last = (first + chunk).min(tiling.rows());
        let starts = || (first..last).step_by(rows);
        // Blocks never reach from group to group, so that each group finds its own.
        let blocks: Vec<Vec<Range<usize>>> = starts()
            .map(|row| blocks(row * tiling.across..(row + rows).min(last) * tiling.across))
            .collect();
        let bounds: Vec<usize> =
            starts().chain([last]).map(|row| tiling.first_pixel(row)).collect();
        let points = (!fused).then(|| job.points(&blocks));
        y.append(&bounds, width, |group, columns, mut cell| {
            let before =
                blocks[..group].iter().map(Vec::len).sum::<usize>() * job.points_len(BLOCK);
            Arch::new().dispatch(Task {
                job: &job,
                blocks: &blocks[group],
                points: points.as_deref().map(|points| &points[before..]),
                origin: bounds[group],
                columns: columns.clone(),
                cell: cell.reborrow(),
            });
            finish.cell(bounds[group], columns, cell);
        });
    }
    y.into_vec()
}

/// Cuts tiles into blocks of nearly equal size.
fn blocks(tiles: Range<usize>) -> Vec<Range<usize>> {
    let len = tiles.len().div_ceil(tiles.len().div_ceil(BLOCK)).next_multiple_of(simd::ROWS);
    tiles.clone().step_by(len).map(|first| first..(first + len).min(tiles.end)).collect()
}

/// What all tasks of one call share.
struct Job<'a> {
    tiling: Tiling,
    images: Images<'a>,
    filters: &'a Filters,
    pairs: Vec<Pair>,
}

impl Job<'_> {
    fn points_layout(&self) -> Layout {
        // A power of two from tile to tile would crowd the cache.
        let tile = self.filters.inputs.next_multiple_of(16) + 16;
        Layout { point: BLOCK * tile + SKEW, tile }
    }

    fn points_len(&self, tiles: usize) -> usize {
        self.tiling.form.points.pow(2) * (tiles * self.points_layout().tile + SKEW)
    }

    /// The points of many blocks, one block after the other.
    fn points(&self, blocks: &[Vec<Range<usize>>]) -> Scratch {
        let len = self.points_len(BLOCK);
        let blocks: Vec<&Range<usize>> = blocks.iter().flatten().collect();
        let mut points = Scratch::new(blocks.len() * len);
        points.par_chunks_mut(len).zip(blocks).for_each(|(points, block)| {
            Arch::new().dispatch(Points { job: self, tiles: block.clone(), out: points });
        });
        points
    }
}

/// The points of one block.
struct Points<'a> {
    job: &'a Job<'a>,
    tiles: Range<usize>,
    out: &'a mut [f32],
}

impl WithSimd for Points<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, tiles, out } = self;
        let tiles = Tiles { tiling: job.tiling, range: tiles, layout: job.points_layout() };
        transform::input_points(simd, &tiles, &job.images, out);
    }
}

/// Some tiles' outputs in some channels.
struct Task<'a> {
    job: &'a Job<'a>,
    blocks: &'a [Range<usize>],
    /// Of these blocks, if tasks share them.
    points: Option<&'a [f32]>,
    /// The output pixel in the cell's first row.
    origin: usize,
    columns: Range<usize>,
    cell: Cell<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Job { tiling, filters, .. } = *self.job;
        let (form, inputs, panel) = (tiling.form, filters.inputs, filters.widths.panel);
        let panels: Vec<usize> =
            (self.columns.start / panel..self.columns.end.div_ceil(panel)).collect();

        // A few blocks keep all their sums, and the weights are mapped by and by: both stay in the
        // cache. Many blocks take turns with one block's sums, and the weights are all mapped
        // first.
        let few = self.blocks.len() <= FEW;
        let (slots, depth) =
            if few { (self.blocks.len(), SHALLOW.min(inputs)) } else { (1, inputs) };
        let weights_stride = depth * panel + SKEW;
        let weights_len = form.products.len().pow(2) * weights_stride;
        let sums_stride = BLOCK * panel + SKEW;
        let sums_len = form.sums.pow(2) * sums_stride;
        let points_len = self.job.points_len(BLOCK);
        let mut weights = Scratch::new(panels.len() * weights_len);
        let mut sums = Scratch::new(slots * panels.len() * sums_len);
        let mut own = Scratch::new(if self.points.is_none() { slots * points_len } else { 0 });

        for first in (0..inputs).step_by(depth) {
            let channels = first..(first + depth).min(inputs);
            for (&p, weights) in panels.iter().zip(weights.chunks_exact_mut(weights_len)) {
                let channels = channels.clone();
                simd.vectorize(Mapping {
                    job: self.job,
                    panel: p,
                    channels,
                    stride: weights_stride,
                    weights,
                });
            }
            for (b, block) in self.blocks.iter().enumerate() {
                let slot = b % slots;
                let points = if let Some(points) = self.points {
                    &points[b * points_len..]
                } else {
                    let out = &mut own[slot * points_len..][..points_len];
                    if first == 0 {
                        simd.vectorize(Points { job: self.job, tiles: block.clone(), out });
                    }
                    out
                };
                let sums = &mut sums[slot * panels.len() * sums_len..];
                for (i, &p) in panels.iter().enumerate() {
                    let sums = &mut sums[i * sums_len..][..sums_len];
                    let weights = (&weights[i * weights_len..][..weights_len], weights_stride);
                    self.job.multiply(
                        simd,
                        p,
                        &channels,
                        block.len(),
                        points,
                        weights,
                        (sums, sums_stride),
                    );
                    if channels.end == inputs {
                        let columns = filters.columns(p);
                        let layout = Layout { point: sums_stride, tile: filters.width(p) };
                        simd.vectorize(Outputs {
                            tiles: Tiles { tiling, range: block.clone(), layout },
                            sums,
                            first: self.origin,
                            columns: columns.start - self.columns.start
                                ..columns.end - self.columns.start,
                            cell: &mut self.cell,
                        });
                    }
                }
            }
        }
    }
}

impl Job<'_> {
    /// One block's sums in one panel, from some of the input channels; later channels add to the
    /// first.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the operands of a product")]
    fn multiply<S: Simd>(
        &self,
        simd: S,
        panel: usize,
        channels: &Range<usize>,
        tiles: usize,
        points: &[f32],
        (weights, weights_stride): (&[f32], usize),
        (sums, sums_stride): (&mut [f32], usize),
    ) {
        let width = self.filters.width(panel);
        let layout = self.points_layout();
        for pair in &self.pairs {
            let points = &points[pair.point * layout.point..];
            let weights = &weights[pair.filter * weights_stride..];
            let sums = &mut sums[pair.sum * sums_stride..];
            for first in channels.clone().step_by(DEPTH) {
                let depth = DEPTH.min(channels.end - first);
                let data = &weights[(first - channels.start) * width..];
                simd::product(
                    simd,
                    tiles,
                    |r| &points[r * layout.tile + first..][..depth],
                    Walk::straight(1),
                    Panel { data, stride: width, width, depth },
                    Target { data: sums, stride: width, add: pair.add || first > 0 },
                );
            }
        }
    }
}

/// One panel's filters for some input channels.
struct Mapping<'a> {
    job: &'a Job<'a>,
    panel: usize,
    channels: Range<usize>,
    stride: usize,
    weights: &'a mut [f32],
}

impl WithSimd for Mapping<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.job.filters.width(self.panel);
        let taps = self.job.filters.taps(self.panel, self.channels.start);
        for (i, taps) in taps.chunks_exact(9 * width).take(self.channels.len()).enumerate() {
            transform::filters(
                simd,
                self.job.tiling.form,
                taps,
                self.stride,
                &mut self.weights[i * width..],
            );
        }
    }
}

/// One panel's outputs of one block.
struct Outputs<'a, 'b> {
    tiles: Tiles,
    sums: &'a [f32],
    first: usize,
    columns: Range<usize>,
    cell: &'a mut Cell<'b>,
}

impl WithSimd for Outputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        transform::outputs(simd, &self.tiles, self.sums, self.first, &self.columns, self.cell);
    }
}
