//! The gradient of the weights among the points: for each product the sum over all tiles of the
//! input's points times the gradient's, mapped back to nine taps.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::super::scratch::Scratch;
use super::super::simd::{self, Panel, Target, Walk, Widths};
use super::super::{Size, Spec};
use super::tiling::{Form, Pair, Tile, Tiling};
use super::transform::{self, Images, Layout, Tiles};
use super::{BLOCK, SKEW};
use crate::cells::{self, Cell, Matrix};
use crate::pool;

/// Output channels of one task; a multiple of the register block's rows.
const OUTPUTS: usize = 48;
/// Points of input and gradient held at a time, in floats.
const HELD: usize = 4 << 20;
/// Tiles of a part at least: every part maps sums back to weights for itself, which is worth it
/// where all would be one task.
const PART: usize = 32;
/// Tiles that one task maps to points.
const PIECE: usize = 16;
/// Tasks below which the tiles are cut into parts.
const TASKS: usize = 16;

/// The gradient `[outputs][inputs][9]`, times `scale`: added to `into`, or else returned.
pub(in super::super) fn weight_grad(
    tile: Tile,
    spec: Spec,
    x: &[f32],
    dy: &[f32],
    size: Size,
    scale: f32,
    into: Option<&mut [f32]>,
) -> Option<Vec<f32>> {
    let Spec { ci: inputs, co: outputs, resample, .. } = spec;
    let tiling = Tiling::new(Form::new(tile, resample), size);
    let widths = Widths::of_this_processor();
    let zeros = vec![0.0; inputs.max(outputs)];
    let job = Job {
        tiling,
        x: Images { data: x, size, stride: inputs, channels: 0..inputs, zeros: &zeros },
        dy: Images {
            data: dy,
            size: tiling.output,
            stride: outputs,
            channels: 0..outputs,
            zeros: &zeros,
        },
        pairs: tiling.form.pairs(),
        widths,
        scale,
    };
    // A small layer on large images has too few weights to keep all threads busy: then the tiles
    // are cut as well, by shape alone so that the sum's order never depends on the threads.
    let tiles = tiling.tiles();
    let tasks = inputs.div_ceil(widths.panel) * outputs.div_ceil(OUTPUTS);
    let least = if tasks == 1 { PART } else { 3 * PART };
    let parts = TASKS.div_ceil(tasks).min(tiles / least).max(1);
    if parts == 1 {
        return job.sum(0..tiles, HELD, into);
    }
    let dw = cells::sum_of_parts(tiles, parts, simd::ROWS, |tiles| {
        job.sum(tiles, HELD / parts.min(4), None).expect("a sum of its own is returned")
    });
    match into {
        None => Some(dw),
        Some(sum) => {
            cells::add(sum, &dw);
            None
        }
    }
}

struct Job<'a> {
    tiling: Tiling,
    x: Images<'a>,
    dy: Images<'a>,
    pairs: Vec<Pair>,
    widths: Widths,
    scale: f32,
}

impl Job<'_> {
    /// The gradient from some of the tiles, of which points of about `held` floats are in memory at
    /// a time: added to `into`, or else returned.
    fn sum(
        &self,
        tiles: Range<usize>,
        held: usize,
        mut into: Option<&mut [f32]>,
    ) -> Option<Vec<f32>> {
        let form = self.tiling.form;
        let (inputs, outputs) = (self.x.channels.len(), self.dy.channels.len());
        let wide = self.widths.panel.min(self.widths.padded(inputs));
        let tall = OUTPUTS.min(self.widths.padded(outputs));
        let (panels, slabs) = (inputs.div_ceil(wide), outputs.div_ceil(tall));
        let one = form.points.pow(2) * panels * wide + form.sums.pow(2) * slabs * tall;
        let chunk = (held / one / BLOCK).max(1) * BLOCK;
        let chunk = tiles.len().div_ceil(tiles.len().div_ceil(chunk));

        let of_x = Layout { tile: wide, point: chunk * wide + SKEW };
        let of_dy = Layout { tile: tall, point: chunk * tall + SKEW };
        let (x_len, dy_len) = (form.points.pow(2) * of_x.point, form.sums.pow(2) * of_dy.point);
        let mut x = Scratch::new(panels * x_len);
        let mut dy = Scratch::new(slabs * dy_len);
        let bounds: Vec<usize> = (0..outputs).step_by(tall).chain([outputs]).collect();
        let bounds_of_x: Vec<usize> = (0..=panels).map(|i| i * form.points.pow(2)).collect();
        let bounds_of_dy: Vec<usize> = (0..=slabs).map(|i| i * form.sums.pow(2)).collect();
        let mut dw = Matrix::new(outputs, inputs * 9);
        for first in tiles.clone().step_by(chunk) {
            let some = first..(first + chunk).min(tiles.end);
            let input = cells::cut(&mut x, of_x.point, &bounds_of_x, PIECE * wide);
            let input = input.map(|piece| self.points(Side::Input, &some, of_x, piece));
            let gradient = cells::cut(&mut dy, of_dy.point, &bounds_of_dy, PIECE * tall);
            let gradient = gradient.map(|piece| self.points(Side::Gradient, &some, of_dy, piece));
            let all = input.chain(gradient);
            if panels * slabs == 1 {
                // All products are one task: it finds the points in its own cache.
                all.for_each(|points| Arch::new().dispatch(points));
            } else {
                pool::for_each_of(all, |points| Arch::new().dispatch(points));
            }
            let body = |block: usize, columns: Range<usize>, cell: Cell<'_>| {
                Arch::new().dispatch(Task {
                    job: self,
                    depth: some.len(),
                    x: (&x[columns.start / 9 / wide * x_len..], of_x),
                    dy: (&dy[block * dy_len..], of_dy),
                    outputs: bounds[block + 1] - bounds[block],
                    inputs: columns.len() / 9,
                    cell,
                });
            };
            match &mut into {
                Some(sum) => cells::update(sum, inputs * 9, &bounds, wide * 9, body),
                None if first == tiles.start => dw.append(&bounds, wide * 9, body),
                None => dw.update(&bounds, wide * 9, body),
            }
        }
        into.is_none().then(|| dw.into_vec())
    }

    /// A task that maps a few of the `held` tiles, in the channels of one panel or slab.
    fn points<'a>(
        &'a self,
        side: Side,
        held: &Range<usize>,
        layout: Layout,
        (block, columns, cell): (usize, Range<usize>, Cell<'a>),
    ) -> Points<'a> {
        let tile = |column: usize| (held.start + column / layout.tile).min(held.end);
        let tiles = tile(columns.start)..tile(columns.end);
        let first = block * layout.tile;
        let all = if matches!(side, Side::Input) { &self.x } else { &self.dy };
        let channels = first..(first + layout.tile).min(all.channels.end);
        Points { job: self, side, channels, tiles, layout, cell }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Input,
    Gradient,
}

/// The points of some tiles in some channels.
struct Points<'a> {
    job: &'a Job<'a>,
    side: Side,
    channels: Range<usize>,
    tiles: Range<usize>,
    layout: Layout,
    cell: Cell<'a>,
}

impl WithSimd for Points<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { job, side, channels, tiles, layout, cell } = self;
        let tiles = Tiles { tiling: job.tiling, range: tiles, layout };
        match side {
            Side::Input => {
                let images = Images { channels, ..job.x.clone() };
                transform::input_points(simd, &tiles, &images, cell);
            }
            Side::Gradient => {
                let images = Images { channels, ..job.dy.clone() };
                transform::gradient_points(simd, &tiles, &images, cell);
            }
        }
    }
}

/// Some weights' gradient from the tiles whose points are held.
struct Task<'a> {
    job: &'a Job<'a>,
    depth: usize,
    x: (&'a [f32], Layout),
    dy: (&'a [f32], Layout),
    outputs: usize,
    inputs: usize,
    cell: Cell<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Job { tiling, ref pairs, widths, scale, .. } = *self.job;
        let (x, of_x) = self.x;
        let (dy, of_dy) = self.dy;
        let width = widths.padded(self.inputs);
        let stride = OUTPUTS * width + SKEW;
        let walk = Walk::straight(of_dy.tile);
        let mut products = Scratch::new(pairs.len() * stride);
        for pair in pairs {
            let gradients = &dy[pair.sum * of_dy.point..];
            let panel = Panel {
                data: &x[pair.point * of_x.point..],
                stride: of_x.tile,
                width,
                depth: self.depth,
            };
            let target = Target {
                data: &mut products[pair.filter * stride..][..OUTPUTS * width],
                stride: width,
                add: false,
            };
            simd::product(simd, self.outputs, |r| &gradients[r..], walk, panel, target);
        }
        let mut taps = [0.0; 9 * 16];
        let mut nines = [0.0; 9 * 16];
        for r in 0..self.outputs {
            let row = self.cell.row(r);
            for (c, row) in row.chunks_mut(9 * S::F32_LANES).enumerate() {
                let at = r * width + c * S::F32_LANES;
                let vectors = transform::weight_taps(simd, tiling.form, &products[at..], stride);
                for (vector, place) in
                    vectors.as_flattened().iter().zip(taps.chunks_exact_mut(S::F32_LANES))
                {
                    simd::store(simd, place, 0, simd.mul_f32s(*vector, simd.splat_f32s(scale)));
                }
                for (i, nine) in nines.chunks_exact_mut(9).enumerate().take(S::F32_LANES) {
                    for tap in 0..9 {
                        nine[tap] = taps[tap * S::F32_LANES + i];
                    }
                }
                for (sum, value) in row.iter_mut().zip(&nines) {
                    *sum += value;
                }
            }
        }
    }
}
