//! 3x3 convolution in fewer products: windows of pixels are mapped to points, multiplied point by point with the
//! mapped weights, and mapped back to tiles of pixels. The change of resolution, if any, is part of the maps.

mod algorithms;
mod tiling;
mod transform;
mod weight;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::Resample;
use super::Size;
use super::cells::{Cell, Matrix};
use super::filters::Filters;
use super::scratch::Scratch;
use super::simd::{self, Panel, Target};
pub(super) use tiling::Tile;
use tiling::{Form, Pair, Tiling};
use transform::{Images, Layout};
pub(super) use weight::weight_grad;

/// Tiles multiplied at a time: their sums stay in the second-level cache. A multiple of the register block's rows.
const BLOCK: usize = 48;
/// Tiles of one task at most; they share its mapped weights.
const GROUP: usize = 192;
/// Tasks that are wanted, for machines of many cores.
const TASKS: usize = 8;
/// Columns of one task, where many tasks share the points.
const COLUMNS: usize = 64;
/// Input times output channels up to which one task does all: points that only it uses stay in its own cache.
const FUSED: usize = 128 * 128;
/// Points held at a time, in floats, where tasks share them; together with the weights they should fit the last cache.
const HELD: usize = 2 << 20;
/// Blocks up to which a task keeps the sums of all, and the channels whose weights it then maps at a time.
const FEW: usize = 2;
const SHALLOW: usize = 128;
/// Channels that one product sums over.
const DEPTH: usize = 512;
/// Floats between the ends and starts of neighbouring points, so that their addresses don't compete for the same cache lines.
const SKEW: usize = 80;

/// `[n, h, w, inputs]` to `[n, h', w', outputs]`.
pub(super) fn forward(
    filters: &Filters,
    tile: Tile,
    resample: Resample,
    x: &[f32],
    size: Size,
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
    let panel = filters.widths.panel;
    let fused = filters.inputs * filters.outputs <= FUSED;
    let width = if fused {
        filters.outputs.next_multiple_of(panel)
    } else {
        COLUMNS.next_multiple_of(panel)
    };

    // Enough tasks for many threads, but not so small that mapping the weights dominates.
    let tiles = tiling.rows() * tiling.across;
    let wanted = TASKS.div_ceil(filters.outputs.div_ceil(width)).min(tiles.div_ceil(BLOCK / 2));
    let groups = tiles.div_ceil(GROUP).max(wanted).max(1);
    let rows = tiling.rows().div_ceil(groups).max(1); // of tiles, in one task
    let chunk = if fused {
        tiling.rows()
    } else {
        let row = tiling.across * job.points_len(1);
        (HELD / row / rows).max(1) * rows
    };

    let mut y = Matrix::new(tiling.output.pixels(), filters.outputs);
    let mut first = 0;
    while first < tiling.rows() {
        let last = (first + chunk).min(tiling.rows());
        let groups: Vec<Range<usize>> = (first..last)
            .step_by(rows)
            .map(|row| row * tiling.across..(row + rows).min(last) * tiling.across)
            .collect();
        let bounds: Vec<usize> =
            (first..last).step_by(rows).chain([last]).map(|row| tiling.first_pixel(row)).collect();
        // Blocks never reach across groups, so that each group finds its own.
        let blocks: Vec<Range<usize>> = groups.iter().cloned().flat_map(blocks).collect();
        let points = (!fused).then(|| job.all_points(&blocks));
        y.append(&bounds, width, |g, columns, cell| {
            let group = groups[g].clone();
            let first = blocks.partition_point(|block| block.start < group.start);
            let count = blocks[first..].partition_point(|block| block.start < group.end);
            Arch::new().dispatch(Task {
                job: &job,
                blocks: &blocks[first..first + count],
                points: points.as_deref().map(|points| &points[first * job.points_len(BLOCK)..]),
                origin: bounds[g],
                columns,
                cell,
            });
        });
        first = last;
    }
    y.into_vec()
}

/// Tiles, and products for each pair of channels in a tile.
pub(super) fn count(tile: Tile, resample: Resample, size: Size) -> (usize, usize) {
    let tiling = Tiling::new(Form::new(tile, resample), size);
    (tiling.rows() * tiling.across, tiling.form.products.len().pow(2))
}

/// Cuts tiles into blocks of nearly equal size.
fn blocks(tiles: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let count = tiles.len().div_ceil(BLOCK);
    let len = tiles.len().div_ceil(count.max(1)).next_multiple_of(simd::ROWS);
    (0..count)
        .map(move |i| {
            (tiles.start + i * len).min(tiles.end)..(tiles.start + (i + 1) * len).min(tiles.end)
        })
        .filter(|block| !block.is_empty())
}

/// What all tasks of one call share.
struct Job<'a> {
    tiling: Tiling,
    images: Images<'a>,
    filters: &'a Filters,
    pairs: Vec<Pair>,
}

impl Job<'_> {
    /// Floats from tile to tile: not a power of two.
    fn pitch(&self) -> usize {
        self.filters.inputs.next_multiple_of(16) + 16
    }

    fn points_len(&self, tiles: usize) -> usize {
        let points = self.tiling.form.points.pow(2);
        points * (tiles * self.pitch() + SKEW)
    }

    fn points_layout(&self) -> Layout {
        let pitch = self.pitch();
        Layout { point: BLOCK * pitch + SKEW, tile: pitch }
    }

    /// The points of many blocks, one block after the other.
    fn all_points(&self, blocks: &[Range<usize>]) -> Scratch {
        let len = self.points_len(BLOCK);
        let mut points = Scratch::new(blocks.len() * len);
        points.par_chunks_mut(len).zip(blocks).for_each(|(points, block)| {
            Arch::new().dispatch(Points { job: self, tiles: block.clone(), points });
        });
        points
    }
}

struct Points<'a> {
    job: &'a Job<'a>,
    tiles: Range<usize>,
    points: &'a mut [f32],
}

impl WithSimd for Points<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, tiles, points } = self;
        transform::input_points(
            simd,
            job.tiling,
            job.images.clone(),
            tiles,
            job.points_layout(),
            points,
        );
    }
}

/// Some tiles' outputs in some channels.
struct Task<'a> {
    job: &'a Job<'a>,
    blocks: &'a [Range<usize>],
    /// Of these blocks, if they are shared.
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
        let Job { tiling, ref pairs, filters, .. } = *self.job;
        let form = tiling.form;
        let (inputs, panel) = (filters.inputs, filters.widths.panel);
        let panels = self.columns.start / panel..self.columns.end.div_ceil(panel);

        // A few blocks keep all their sums, and the weights are mapped by and by: both stay in the cache. Many blocks take
        // turns with one block's sums, and the weights are all mapped before.
        let few = self.blocks.len() <= FEW;
        let (slots, depth) =
            if few { (self.blocks.len(), SHALLOW.min(inputs)) } else { (1, inputs) };
        let stride = depth * panel + SKEW;
        let mapped = form.products.len().pow(2) * stride;
        let mut weights = Scratch::new(panels.len() * mapped);
        let sum_len = BLOCK * panel + SKEW;
        let block_len = form.sums.pow(2) * sum_len;
        let mut sums = Scratch::new(slots * panels.len() * block_len);
        let points_len = self.job.points_len(BLOCK);
        let mut own = Scratch::new(if self.points.is_none() { slots * points_len } else { 0 });
        let layout = self.job.points_layout();
        for first in (0..inputs).step_by(depth) {
            let rows = first..(first + depth).min(inputs);
            for (p, weights) in panels.clone().zip(weights.chunks_exact_mut(mapped)) {
                simd.vectorize(Mapped {
                    job: self.job,
                    panel: p,
                    rows: rows.clone(),
                    stride,
                    weights,
                });
            }
            for (b, block) in self.blocks.iter().enumerate() {
                let slot = b % slots;
                let points = match self.points {
                    Some(points) => &points[b * points_len..],
                    None => {
                        let points = &mut own[slot * points_len..][..points_len];
                        if first == 0 {
                            simd.vectorize(Points { job: self.job, tiles: block.clone(), points });
                        }
                        points
                    }
                };
                let sums = &mut sums[slot * panels.len() * block_len..];
                for ((p, weights), sums) in panels
                    .clone()
                    .zip(weights.chunks_exact(mapped))
                    .zip(sums.chunks_exact_mut(block_len))
                {
                    let width = filters.width(p);
                    for pair in pairs {
                        let points = &points[pair.point * layout.point..];
                        let weights = &weights[pair.filter * stride..];
                        let sums = &mut sums[pair.sum * sum_len..][..BLOCK * width];
                        for from in (0..rows.len()).step_by(DEPTH) {
                            let depth = DEPTH.min(rows.len() - from);
                            let row = |r: usize| &points[r * layout.tile + first + from..][..depth];
                            let panel = Panel {
                                data: &weights[from * width..],
                                stride: width,
                                width,
                                depth,
                            };
                            let target = Target {
                                data: sums,
                                stride: width,
                                add: pair.add || first + from > 0,
                            };
                            simd::product(simd, block.len(), row, 1, panel, target);
                        }
                    }
                    if rows.end == inputs {
                        let columns = filters.columns(p);
                        simd.vectorize(Outputs {
                            tiling,
                            sums,
                            layout: Layout { point: sum_len, tile: width },
                            tiles: block.clone(),
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

/// One panel's filters for some input channels.
struct Mapped<'a> {
    job: &'a Job<'a>,
    panel: usize,
    rows: Range<usize>,
    stride: usize,
    weights: &'a mut [f32],
}

impl WithSimd for Mapped<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.job.filters.width(self.panel);
        let taps = self.job.filters.taps(self.panel, self.rows.start);
        for (taps, at) in taps.chunks_exact(9 * width).zip((0..self.rows.len()).map(|i| i * width))
        {
            transform::filters(simd, self.job.tiling, taps, self.stride, &mut self.weights[at..]);
        }
    }
}

/// One panel's outputs of one block.
struct Outputs<'a, 'b> {
    tiling: Tiling,
    sums: &'a [f32],
    layout: Layout,
    tiles: Range<usize>,
    first: usize,
    columns: Range<usize>,
    cell: &'a mut Cell<'b>,
}

impl WithSimd for Outputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiling, sums, layout, tiles, first, columns, cell } = self;
        transform::outputs(simd, tiling, sums, layout, tiles, first, columns, cell);
    }
}
