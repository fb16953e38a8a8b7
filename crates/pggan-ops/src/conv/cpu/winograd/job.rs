//! What every application of weights is made of: the points of a block of tiles, the products with one
//! panel of weights, and the outputs.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::super::Resample;
use super::super::Size;
use super::super::filters::{Filters, Panels};
use super::super::simd::{self, Panel, Target, Walk};
use super::tiling::{Form, Pair, Tile, Tiling};
use super::transform::{self, Images, Layout, Tiles};
use super::{BLOCK, SKEW};
use crate::cells::Cell;
use crate::pool;

/// Channels that one product sums over at most.
const DEPTH: usize = 512;
/// Multiplications of one piece of a task at least, some twenty microseconds, and pieces at most.
const PIECE: usize = 1 << 20;
const PIECES: usize = 8;

/// Cuts tiles into blocks of nearly equal size.
pub(super) fn blocks(tiles: Range<usize>) -> Vec<Range<usize>> {
    let len = tiles.len().div_ceil(tiles.len().div_ceil(BLOCK)).next_multiple_of(simd::ROWS);
    tiles.clone().step_by(len).map(|first| first..(first + len).min(tiles.end)).collect()
}

/// What all tasks of one call share.
pub(super) struct Job<'a> {
    pub(super) tiling: Tiling,
    pub(super) panels: Panels,
    pub(super) pairs: Vec<Pair>,
    images: Images<'a>,
}

impl<'a> Job<'a> {
    /// `zeros`: one pixel of them.
    pub(super) fn new(
        (tile, resample): (Tile, Resample),
        panels: Panels,
        x: &'a [f32],
        size: Size,
        zeros: &'a [f32],
    ) -> Self {
        let tiling = Tiling::new(Form::new(tile, resample), size);
        let channels = 0..panels.inputs;
        let images = Images { data: x, size, stride: panels.inputs, channels, zeros };
        Self { tiling, panels, pairs: tiling.form.pairs(), images }
    }

    pub(super) fn points_layout(&self) -> Layout {
        // A power of two from tile to tile would crowd the cache.
        let tile = self.panels.inputs.next_multiple_of(16) + 16;
        Layout { point: BLOCK * tile + SKEW, tile }
    }

    /// Floats that the points of so many tiles take.
    pub(super) fn points_len(&self, tiles: usize) -> usize {
        self.tiling.form.points.pow(2) * (tiles * self.points_layout().tile + SKEW)
    }

    /// One block's points: a row for each.
    pub(super) fn block<'s>(&self, points: &'s mut [f32]) -> Cell<'s> {
        let Layout { point, tile } = self.points_layout();
        Cell::over(points, point, self.tiling.form.points.pow(2), BLOCK * tile)
    }

    /// The distance between the sums of a block's tiles in one panel, and what all take.
    pub(super) fn sums_stride_and_len(&self) -> (usize, usize) {
        let stride = BLOCK * self.panels.widths.panel + SKEW;
        (stride, self.tiling.form.sums.pow(2) * stride)
    }
}

/// A block's sums in one panel, from some of the input channels; later channels add to the first.
pub(super) struct Products<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) pairs: &'a [Pair],
    pub(super) panel: usize,
    pub(super) channels: Range<usize>,
    /// How many.
    pub(super) tiles: usize,
    pub(super) points: &'a [f32],
    pub(super) weights: Weights<'a>,
    /// Those of `pairs`.
    pub(super) sums: &'a mut [f32],
}

impl Products<'_> {
    /// Makes them, with the help of threads that have nothing else to do: of a few long tasks, some threads finish theirs
    /// well before the others.
    #[inline(always)]
    pub(super) fn make<S: Simd>(self, simd: S) {
        let width = self.job.panels.width(self.panel);
        let all = self.pairs.len() * self.tiles * self.channels.len() * width;
        match (all / PIECE).min(PIECES) {
            0 | 1 => simd.vectorize(self),
            pieces => pool::for_each_of(self.cut(pieces), |piece| simd.vectorize(piece)),
        }
    }

    /// About as many pieces, each of whole sums.
    fn cut(self, pieces: usize) -> impl Iterator<Item = Self> {
        let Self { job, pairs, panel, channels, tiles, points, weights, sums } = self;
        let (stride, count) = (job.sums_stride_and_len().0, job.tiling.form.sums.pow(2));
        let some = count.div_ceil(pieces);
        let before = move |sum: usize| pairs.partition_point(|pair| pair.sum < sum);
        let pieces = (0..count).step_by(some).zip(sums.chunks_mut(some * stride));
        pieces.map(move |(first, sums)| {
            let pairs = &pairs[before(first)..before(first + some)];
            let channels = channels.clone();
            Self { job, pairs, panel, channels, tiles, points, weights, sums }
        })
    }
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, pairs, channels, points, weights, sums, .. } = self;
        let width = job.panels.width(self.panel);
        let (layout, (sums_stride, _)) = (job.points_layout(), job.sums_stride_and_len());
        for pair in pairs {
            let points = &points[pair.point * layout.point..];
            let data = &weights.data[pair.filter * weights.product..];
            let sums = &mut sums[(pair.sum - pairs[0].sum) * sums_stride..];
            for first in channels.clone().step_by(DEPTH) {
                let depth = DEPTH.min(channels.end - first);
                let data = &data[(first - channels.start) * weights.row..];
                simd::product(
                    simd,
                    self.tiles,
                    |r| &points[r * layout.tile + first..][..depth],
                    Walk::straight(1),
                    Panel { data, stride: weights.row, width, depth },
                    Target { data: sums, stride: width, add: pair.add || first > 0 },
                );
            }
        }
    }
}

/// Mapped weights of one panel, for each product `[input channel][column]`.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub(super) data: &'a [f32],
    /// Floats from product to product, and from input channel to input channel.
    pub(super) product: usize,
    pub(super) row: usize,
}

/// One panel's weights of some input channels, mapped: a row for each product, `[input channel][column]`.
pub(super) struct Mapping<'a> {
    pub(super) filters: &'a Filters,
    pub(super) form: Form,
    pub(super) panel: usize,
    pub(super) channels: Range<usize>,
    /// Floats from input channel to input channel.
    pub(super) row: usize,
    pub(super) cell: Cell<'a>,
}

impl WithSimd for Mapping<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = self.filters.panels.width(self.panel);
        for (i, input) in self.channels.enumerate() {
            let taps = &self.filters.taps(self.panel, input)[..9 * width];
            let at = i * self.row;
            transform::filters(simd, self.form, taps, self.cell.columns(at..at + width));
        }
    }
}

/// The points of some tiles of one block.
pub(super) struct Points<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) tiles: Range<usize>,
    /// A row for each point, from the first of the tiles on.
    pub(super) cell: Cell<'a>,
}

impl WithSimd for Points<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, tiles, cell } = self;
        let tiles = Tiles { tiling: job.tiling, range: tiles, layout: job.points_layout() };
        transform::input_points(simd, &tiles, &job.images, cell);
    }
}

/// One panel's outputs of one block.
pub(super) struct Outputs<'a, 'b> {
    pub(super) job: &'a Job<'a>,
    pub(super) panel: usize,
    pub(super) tiles: Range<usize>,
    pub(super) sums: &'a [f32],
    /// The output pixel in the cell's first row, and the channel in its first column.
    pub(super) origin: (usize, usize),
    pub(super) cell: &'a mut Cell<'b>,
}

impl WithSimd for Outputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, panel, tiles, sums, origin: (pixel, channel), cell } = self;
        let (columns, (stride, _)) = (job.panels.columns(panel), job.sums_stride_and_len());
        let layout = Layout { point: stride, tile: job.panels.width(panel) };
        let tiles = Tiles { tiling: job.tiling, range: tiles, layout };
        let columns = columns.start - channel..columns.end - channel;
        transform::outputs(simd, &tiles, sums, pixel, &columns, cell);
    }
}
