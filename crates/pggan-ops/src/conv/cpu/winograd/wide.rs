//! Layers of many channels: the points of many blocks are made first and shared by tasks, each of which
//! maps the weights of some output channels for itself. Mapped weights are not kept: they would take
//! four times the memory of the weights.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::super::super::Resample;
use super::super::Size;
use super::super::filters::Filters;
use super::super::finish::Finish;
use super::super::scratch::Scratch;
use super::job::{Job, Mapping, Outputs, Points, Products, Weights, blocks};
use super::tiling::Tile;
use super::transform::Layout;
use super::{BLOCK, SKEW};
use crate::cells::{self, Cell, Matrix};
use crate::pool;

/// Tiles of one task at most; they share its mapped weights.
const GROUP: usize = 4 * BLOCK;
/// Tasks that are wanted, for machines of many cores.
const TASKS: usize = 8;
/// Output channels of one task.
const COLUMNS: usize = 64;
/// Points held at a time, in floats; with the weights they should fit the last cache.
const HELD: usize = 4 << 20;
/// Blocks up to which a task keeps the sums of all, and the channels whose weights it then maps at
/// a time.
const FEW: usize = 2;
const SHALLOW: usize = 128;
/// Tiles that one task maps to points.
const PIECE: usize = 16;
/// Input channels that an idle thread maps for another's task.
const MAPPED: usize = 32;

/// `[n, h, w, inputs]` to `[n, h', w', outputs]`.
pub(in super::super) fn apply(
    filters: &Filters,
    tile: Tile,
    resample: Resample,
    x: &[f32],
    size: Size,
    finish: Finish<'_>,
) -> Vec<f32> {
    let panels = filters.panels;
    let zeros = vec![0.0; panels.inputs];
    let job = Job::new((tile, resample), panels, x, size, &zeros);
    let tiling = job.tiling;
    let width = COLUMNS.next_multiple_of(panels.widths.panel);

    // Tasks enough for many threads, but not so small that mapping the weights dominates.
    let across = panels.outputs.div_ceil(width);
    let tasks = TASKS.div_ceil(across).min(tiling.tiles() / (BLOCK / 2));
    // An even number, so that two threads share them evenly.
    let even = if across.is_multiple_of(2) { 1 } else { 2 };
    let groups = tiling.tiles().div_ceil(GROUP).max(tasks).next_multiple_of(even);
    let rows = tiling.rows().div_ceil(groups);
    // As many groups as may be held; of several an even number, so that each of two threads multiplies the points that it
    // made. Those of the other would come from its cache, a tenth slower.
    let held = HELD * BLOCK / (rows * tiling.across * job.points_len(BLOCK));
    let chunk = (held / 2 * 2).max(1) * rows;

    let mut y = Matrix::new(tiling.output.pixels(), panels.outputs);
    for first in (0..tiling.rows()).step_by(chunk) {
        let last = (first + chunk).min(tiling.rows());
        let starts = || (first..last).step_by(rows);
        // Blocks never reach from group to group, so that each group finds its own.
        let blocks: Vec<Vec<Range<usize>>> = starts()
            .map(|row| blocks(row * tiling.across..(row + rows).min(last) * tiling.across))
            .collect();
        let bounds: Vec<usize> =
            starts().chain([last]).map(|row| tiling.first_pixel(row)).collect();
        let points = points(&job, &blocks);
        y.append(&bounds, width, |group, columns, mut cell| {
            let before =
                blocks[..group].iter().map(Vec::len).sum::<usize>() * job.points_len(BLOCK);
            Arch::new().dispatch(Task {
                job: &job,
                filters,
                blocks: &blocks[group],
                points: &points[before..],
                origin: bounds[group],
                columns: columns.clone(),
                cell: cell.reborrow(),
            });
            finish.cell(bounds[group], columns, cell);
        });
    }
    y.into_vec()
}

/// The points of many blocks, one block after the other.
fn points(job: &Job<'_>, blocks: &[Vec<Range<usize>>]) -> Scratch {
    let (Layout { point, tile }, rows) = (job.points_layout(), job.tiling.form.points.pow(2));
    let blocks: Vec<&Range<usize>> = blocks.iter().flatten().collect();
    let bounds: Vec<usize> = (0..=blocks.len()).map(|block| block * rows).collect();
    let mut points = Scratch::new(blocks.len() * job.points_len(BLOCK));
    let cells = cells::cut(&mut points, point, &bounds, PIECE * tile);
    let pieces = cells.filter_map(|(block, columns, cell)| {
        let at = |column: usize| (blocks[block].start + column / tile).min(blocks[block].end);
        let tiles = at(columns.start)..at(columns.end);
        (!tiles.is_empty()).then_some(Points { job, tiles, cell })
    });
    pool::for_each_of(pieces, |points| Arch::new().dispatch(points));
    points
}

/// Some tiles' outputs in some channels.
struct Task<'a> {
    job: &'a Job<'a>,
    filters: &'a Filters,
    blocks: &'a [Range<usize>],
    /// Of these blocks.
    points: &'a [f32],
    /// The output pixel in the cell's first row.
    origin: usize,
    columns: Range<usize>,
    cell: Cell<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Self { job, filters, .. } = self;
        let (form, inputs, panel) = (job.tiling.form, job.panels.inputs, job.panels.widths.panel);
        let panels: Vec<usize> =
            (self.columns.start / panel..self.columns.end.div_ceil(panel)).collect();

        // A few blocks keep all their sums, and the weights are mapped by and by: both stay in the
        // cache. Many blocks take turns with one block's sums, and the weights are all mapped
        // first.
        let few = self.blocks.len() <= FEW;
        let (slots, depth) =
            if few { (self.blocks.len(), SHALLOW.min(inputs)) } else { (1, inputs) };
        let weights_stride = depth * panel + SKEW;
        let weights_bounds = [0, form.products.len().pow(2)];
        let weights_len = weights_bounds[1] * weights_stride;
        let (_, sums_len) = job.sums_stride_and_len();
        let points_len = job.points_len(BLOCK);
        let mut weights = Scratch::new(panels.len() * weights_len);
        let mut sums = Scratch::new(slots * panels.len() * sums_len);

        for first in (0..inputs).step_by(depth) {
            let channels = first..(first + depth).min(inputs);
            for (&panel, out) in panels.iter().zip(weights.chunks_exact_mut(weights_len)) {
                let row = job.panels.width(panel);
                let cells = cells::cut(out, weights_stride, &weights_bounds, MAPPED * row);
                let pieces = channels.clone().step_by(MAPPED).zip(cells);
                pool::for_each_of(pieces, |(first, (.., cell))| {
                    let channels = first..(first + MAPPED).min(channels.end);
                    simd.vectorize(Mapping { filters, form, panel, channels, row, cell });
                });
            }
            for (b, block) in self.blocks.iter().enumerate() {
                let points = &self.points[b * points_len..];
                let sums = &mut sums[b % slots * panels.len() * sums_len..];
                for (i, &panel) in panels.iter().enumerate() {
                    let sums = &mut sums[i * sums_len..][..sums_len];
                    let weights = Weights {
                        data: &weights[i * weights_len..][..weights_len],
                        product: weights_stride,
                        row: job.panels.width(panel),
                    };
                    let products = Products {
                        job,
                        pairs: &job.pairs,
                        panel,
                        channels: channels.clone(),
                        tiles: block.len(),
                        points,
                        weights,
                        sums,
                    };
                    products.make(simd);
                    if channels.end == inputs {
                        simd.vectorize(Outputs {
                            job,
                            panel,
                            tiles: block.clone(),
                            sums,
                            origin: (self.origin, self.columns.start),
                            cell: &mut self.cell,
                        });
                    }
                }
            }
        }
    }
}
