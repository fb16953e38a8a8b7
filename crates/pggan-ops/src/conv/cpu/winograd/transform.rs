//! From pixels to points, from sums to pixels, from weights to filters and back: the linear maps of
//! an algorithm, applied down the columns and along the rows of small windows, a vector of channels
//! at a time.

use std::ops::Range;

use pulp::Simd;

use super::super::super::Resample;
use super::super::Size;
use super::super::simd::{Window, store, store_whole};
use super::algorithms::{
    Adjoint, Map, large_down, large_same, large_up, small_down, small_same, small_up,
};
use super::tiling::{Form, Tile, Tiling};
use crate::cells::Cell;

/// Distances, in floats, between points and between tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) point: usize,
    pub(super) tile: usize,
}

/// Some tiles, and where their values lie in a buffer.
pub(super) struct Tiles {
    pub(super) tiling: Tiling,
    pub(super) range: Range<usize>,
    pub(super) layout: Layout,
}

/// A map as it is, where [`Adjoint`] would turn it round.
type Plain<T> = T;

/// Calls a function with the maps of a form: `with_maps!(form, Plain or Adjoint, Input, Output or
/// Filter, function(arguments))`.
macro_rules! with_maps {
    ($form:expr, $turn:ident, $map:ident, $call:ident($($argument:expr),*)) => {
        match ($form.tile, $form.resample) {
            (Tile::Large, Resample::Same) => $call::<S, $turn<large_same::$map>, _, _>($($argument),*),
            (Tile::Large, Resample::Up) => $call::<S, $turn<large_up::$map>, _, _>($($argument),*),
            (Tile::Large, Resample::Down) => $call::<S, $turn<large_down::$map>, _, _>($($argument),*),
            (Tile::Small, Resample::Same) => $call::<S, $turn<small_same::$map>, _, _>($($argument),*),
            (Tile::Small, Resample::Up) => $call::<S, $turn<small_up::$map>, _, _>($($argument),*),
            (Tile::Small, Resample::Down) => $call::<S, $turn<small_down::$map>, _, _>($($argument),*),
        }
    };
}

/// Images to be cut into windows.
#[derive(Clone)]
pub(super) struct Images<'a> {
    pub(super) data: &'a [f32],
    pub(super) size: Size,
    /// Floats of a pixel, and the channels wanted of them.
    pub(super) stride: usize,
    pub(super) channels: Range<usize>,
    /// One pixel of zeros, met outside the image.
    pub(super) zeros: &'a [f32],
}

/// The points of `tiles` of the layer's input: a row for each point, one tile's channels after the
/// other's.
#[inline(always)]
pub(super) fn input_points<S: Simd>(simd: S, tiles: &Tiles, images: &Images<'_>, points: Cell<'_>) {
    let grid = (tiles.tiling.form.step(), 1);
    with_maps!(tiles.tiling.form, Plain, Input, analyze(simd, tiles, images, grid, points));
}

/// The gradients of the sums, from the gradients of the layer's output, laid out in the same way.
#[inline(always)]
pub(super) fn gradient_points<S: Simd>(
    simd: S,
    tiles: &Tiles,
    images: &Images<'_>,
    points: Cell<'_>,
) {
    let grid = (tiles.tiling.form.outputs, 0);
    with_maps!(tiles.tiling.form, Adjoint, Output, analyze(simd, tiles, images, grid, points));
}

/// `step` and `lead`: pixels from window to window, and how many of them lie before the tile.
#[inline(always)]
fn analyze<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    Tiles { tiling, range, layout }: &Tiles,
    Images { data, size, stride, channels, zeros }: &Images<'_>,
    (step, lead): (usize, usize),
    mut points: Cell<'_>,
) {
    let padded = channels.len().next_multiple_of(S::F32_LANES);
    let mut half = room::<S, I, O>(simd);
    for (t, tile) in range.clone().enumerate() {
        let (n, row, column) = tiling.place(tile);
        let window = Window::<I>::new(channels.len(), |i, j| {
            let (y, x) = (row * step + i, column * step + j);
            if (lead..size.h + lead).contains(&y) && (lead..size.w + lead).contains(&x) {
                &data[((n * size.h + y - lead) * size.w + x - lead) * stride..][channels.clone()]
            } else {
                &zeros[channels.clone()]
            }
        });
        let at = t * layout.tile;
        let mut planes = points.columns(at..at + padded);
        for c in (0..padded).step_by(S::F32_LANES) {
            down::<S, T, I, O>(simd, &window, c, &mut half);
            for o in 0..O {
                let row = T::apply(simd, half[o]);
                for p in 0..O {
                    store_whole::<S>(planes.row(o * O + p), c, row[p]);
                }
            }
        }
    }
}

/// Writes the outputs of `tiles` to `columns` of `cell`, whose first row is output pixel `first`.
#[inline(always)]
pub(super) fn outputs<S: Simd>(
    simd: S,
    tiles: &Tiles,
    sums: &[f32],
    first: usize,
    columns: &Range<usize>,
    cell: &mut Cell<'_>,
) {
    with_maps!(
        tiles.tiling.form,
        Plain,
        Output,
        synthesize(simd, tiles, sums, first, columns, cell)
    );
}

#[inline(always)]
fn synthesize<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    Tiles { tiling, range, layout }: &Tiles,
    sums: &[f32],
    first: usize,
    columns: &Range<usize>,
    cell: &mut Cell<'_>,
) {
    let size = tiling.output;
    let padded = columns.len().next_multiple_of(S::F32_LANES);
    let mut half = room::<S, I, O>(simd);
    for (t, tile) in range.clone().enumerate() {
        let (n, row, column) = tiling.place(tile);
        let (rows, across) = (O.min(size.h - row * O), O.min(size.w - column * O));
        let corner = (n * size.h + row * O) * size.w + column * O - first;
        let window = Window::<I>::new(padded, |i, j| {
            &sums[t * layout.tile + (i * I + j) * layout.point..][..padded]
        });
        for c in (0..padded).step_by(S::F32_LANES) {
            down::<S, T, I, O>(simd, &window, c, &mut half);
            for o in 0..O {
                let row = T::apply(simd, half[o]);
                for p in 0..O {
                    if o < rows && p < across {
                        let pixel = &mut cell.row(corner + o * size.w + p)[..columns.end];
                        store(simd, pixel, columns.start + c, row[p]);
                    }
                }
            }
        }
    }
}

/// Room for what [`down`] writes: made once for many windows, since to fill it with zeros for each
/// took 3% of a training step.
#[inline(always)]
fn room<S: Simd, const I: usize, const O: usize>(simd: S) -> [[S::f32s; I]; O] {
    [[simd.splat_f32s(0.0); I]; O]
}

/// The map applied to the columns of a window, at channel `c`.
#[inline(always)]
fn down<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    window: &Window<'_, I>,
    c: usize,
    half: &mut [[S::f32s; I]; O],
) {
    for j in 0..I {
        let mut column = [simd.splat_f32s(0.0); I];
        for i in 0..I {
            column[i] = window.load(simd, i, j, c);
        }
        let column = T::apply(simd, column);
        for o in 0..O {
            half[o][j] = column[o];
        }
    }
}

/// The filters of weights `[tap][len]`, a row of `out` for each product.
#[inline(always)]
pub(super) fn filters<S: Simd>(simd: S, form: Form, weights: &[f32], out: Cell<'_>) {
    with_maps!(form, Plain, Filter, expand(simd, weights, out));
}

#[inline(always)]
fn expand<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    weights: &[f32],
    mut out: Cell<'_>,
) {
    let len = weights.len() / 9;
    let window = Window::<I>::new(len, |i, j| &weights[(i * I + j) * len..][..len]);
    let mut half = room::<S, I, O>(simd);
    for at in (0..len).step_by(S::F32_LANES) {
        down::<S, T, I, O>(simd, &window, at, &mut half);
        for o in 0..O {
            let row = T::apply(simd, half[o]);
            for p in 0..O {
                store_whole::<S>(out.row(o * O + p), at, row[p]);
            }
        }
    }
}

/// The adjoint of [`filters`] at one place: nine vectors of weight gradients from `[product]`,
/// `stride` apart.
#[inline(always)]
pub(super) fn weight_taps<S: Simd>(
    simd: S,
    form: Form,
    gradients: &[f32],
    stride: usize,
) -> [[S::f32s; 3]; 3] {
    with_maps!(form, Adjoint, Filter, fold(simd, gradients, stride))
}

#[inline(always)]
fn fold<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    gradients: &[f32],
    stride: usize,
) -> [[S::f32s; O]; O] {
    let window =
        Window::<I>::new(S::F32_LANES, |i, j| &gradients[(i * I + j) * stride..][..S::F32_LANES]);
    let mut half = room::<S, I, O>(simd);
    down::<S, T, I, O>(simd, &window, 0, &mut half);
    let mut taps = [[simd.splat_f32s(0.0); O]; O];
    for o in 0..O {
        taps[o] = T::apply(simd, half[o]);
    }
    taps
}
