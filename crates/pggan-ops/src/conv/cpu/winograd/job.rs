//! What every application of weights is made of: the points of a block of tiles, the products with one
//! panel of weights, and the outputs.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::super::Resample;
use super::super::Size;
use super::super::filters::Panels;
use super::super::simd::{self, Panel, Target, Walk};
use super::tiling::{Form, Pair, Tile, Tiling};
use super::transform::{self, Images, Layout, Tiles};
use super::{BLOCK, SKEW};
use crate::cells::Cell;

/// Channels that one product sums over at most.
const DEPTH: usize = 512;

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

    fn points_layout(&self) -> Layout {
        // A power of two from tile to tile would crowd the cache.
        let tile = self.panels.inputs.next_multiple_of(16) + 16;
        Layout { point: BLOCK * tile + SKEW, tile }
    }

    /// Floats that the points of so many tiles take.
    pub(super) fn points_len(&self, tiles: usize) -> usize {
        self.tiling.form.points.pow(2) * (tiles * self.points_layout().tile + SKEW)
    }

    /// The distance between the sums of a block's tiles in one panel, and what all take.
    pub(super) fn sums_stride_and_len(&self) -> (usize, usize) {
        let stride = BLOCK * self.panels.widths.panel + SKEW;
        (stride, self.tiling.form.sums.pow(2) * stride)
    }

    /// One block's sums in one panel, from some of the input channels; later channels add to the
    /// first.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the operands of a product")]
    pub(super) fn multiply<S: Simd>(
        &self,
        simd: S,
        panel: usize,
        channels: &Range<usize>,
        tiles: usize,
        points: &[f32],
        weights: Weights<'_>,
        sums: &mut [f32],
    ) {
        let width = self.panels.width(panel);
        let (layout, (sums_stride, _)) = (self.points_layout(), self.sums_stride_and_len());
        for pair in &self.pairs {
            let points = &points[pair.point * layout.point..];
            let data = &weights.data[pair.filter * weights.product..];
            let sums = &mut sums[pair.sum * sums_stride..];
            for first in channels.clone().step_by(DEPTH) {
                let depth = DEPTH.min(channels.end - first);
                let data = &data[(first - channels.start) * weights.row..];
                simd::product(
                    simd,
                    tiles,
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

/// The points of one block.
pub(super) struct Points<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) tiles: Range<usize>,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Points<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, tiles, out } = self;
        let (layout, points) = (job.points_layout(), job.tiling.form.points.pow(2));
        let out = Cell::over(out, layout.point, points, BLOCK * layout.tile);
        let tiles = Tiles { tiling: job.tiling, range: tiles, layout };
        transform::input_points(simd, &tiles, &job.images, out);
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
