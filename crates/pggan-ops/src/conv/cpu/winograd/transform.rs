//! From pixels to points, from sums to pixels, from weights to filters and back: the linear maps of an algorithm,
//! applied down the columns and along the rows of small windows, a vector of channels at a time.

use std::ops::Range;

use pulp::Simd;

use super::super::super::Resample;
use super::super::cells::Cell;
use super::super::direct::Size;
use super::super::simd::{load, store};
use super::algorithms::{Map, Transposed, large_down, large_same, large_up, small_down, small_same, small_up};
use super::tiling::{Tile, Tiling};

/// Distances, in floats, between points and between tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) point: usize,
    pub(super) tile: usize,
}

/// Picks the maps of a form: `with_maps!(form, Kind, function(arguments))` calls `function::<_, its map, ..>`.
macro_rules! with_maps {
    ($form:expr, $map:ident, $call:ident($($argument:expr),*)) => {
        match ($form.tile, $form.resample) {
            (Tile::Large, Resample::Same) => $call::<S, large_same::$map, _, _>($($argument),*),
            (Tile::Large, Resample::Up) => $call::<S, large_up::$map, _, _>($($argument),*),
            (Tile::Large, Resample::Down) => $call::<S, large_down::$map, _, _>($($argument),*),
            (Tile::Small, Resample::Same) => $call::<S, small_same::$map, _, _>($($argument),*),
            (Tile::Small, Resample::Up) => $call::<S, small_up::$map, _, _>($($argument),*),
            (Tile::Small, Resample::Down) => $call::<S, small_down::$map, _, _>($($argument),*),
        }
    };
    ($form:expr, transposed $map:ident, $call:ident($($argument:expr),*)) => {
        match ($form.tile, $form.resample) {
            (Tile::Large, Resample::Same) => $call::<S, Transposed<large_same::$map>, _, _>($($argument),*),
            (Tile::Large, Resample::Up) => $call::<S, Transposed<large_up::$map>, _, _>($($argument),*),
            (Tile::Large, Resample::Down) => $call::<S, Transposed<large_down::$map>, _, _>($($argument),*),
            (Tile::Small, Resample::Same) => $call::<S, Transposed<small_same::$map>, _, _>($($argument),*),
            (Tile::Small, Resample::Up) => $call::<S, Transposed<small_up::$map>, _, _>($($argument),*),
            (Tile::Small, Resample::Down) => $call::<S, Transposed<small_down::$map>, _, _>($($argument),*),
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

/// The points of `tiles` of the layer's input.
#[inline(always)]
pub(super) fn input_points<S: Simd>(
    simd: S,
    tiling: Tiling,
    images: Images<'_>,
    tiles: Range<usize>,
    layout: Layout,
    points: &mut [f32],
) {
    let step = tiling.form.step();
    with_maps!(tiling.form, Input, analyze(simd, tiling, images, (step, 1), tiles, layout, points));
}

/// The gradients of the sums, from the gradients of the layer's output.
#[inline(always)]
pub(super) fn gradient_points<S: Simd>(
    simd: S,
    tiling: Tiling,
    images: Images<'_>,
    tiles: Range<usize>,
    layout: Layout,
    points: &mut [f32],
) {
    let step = tiling.form.outputs;
    with_maps!(tiling.form, transposed Output, analyze(simd, tiling, images, (step, 0), tiles, layout, points));
}

/// `step` and `lead`: pixels from window to window, and how many of them lie before the tile.
#[inline(always)]
fn analyze<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    tiling: Tiling,
    images: Images<'_>,
    (step, lead): (usize, usize),
    tiles: Range<usize>,
    layout: Layout,
    points: &mut [f32],
) {
    let Images { data, size, stride, channels, zeros } = images;
    for (t, tile) in tiles.enumerate() {
        let (n, row, column) = tiling.place(tile);
        let window: [[&[f32]; I]; I] = std::array::from_fn(|i| {
            let y = row * step + i;
            std::array::from_fn(|j| {
                let x = column * step + j;
                let inside = (lead..size.h + lead).contains(&y) && (lead..size.w + lead).contains(&x);
                if inside {
                    &data[((n * size.h + y - lead) * size.w + x - lead) * stride..][channels.clone()]
                } else {
                    &zeros[channels.clone()]
                }
            })
        });
        let mut c = 0;
        while c < channels.len() {
            let mut half = [[simd.splat_f32s(0.0); I]; O];
            for j in 0..I {
                let column = T::apply(simd, std::array::from_fn(|i| load(simd, window[i][j], c)));
                for o in 0..O {
                    half[o][j] = column[o];
                }
            }
            let at = t * layout.tile + c;
            for (o, half) in half.into_iter().enumerate() {
                for (p, value) in T::apply(simd, half).into_iter().enumerate() {
                    store(simd, points, at + (o * O + p) * layout.point, value);
                }
            }
            c += S::F32_LANES;
        }
    }
}

/// Writes the outputs of `tiles` to `cell`, whose first row is output pixel `first`; `at` is the panel's first column in
/// the cell. `sums` is `[sum][tile][width]`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "where from and where to")]
pub(super) fn outputs<S: Simd>(
    simd: S,
    tiling: Tiling,
    sums: &[f32],
    layout: Layout,
    tiles: Range<usize>,
    first: usize,
    columns: Range<usize>,
    cell: &mut Cell<'_>,
) {
    with_maps!(tiling.form, Output, synthesize(simd, tiling, sums, layout, tiles, first, columns, cell));
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "where from and where to")]
fn synthesize<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    tiling: Tiling,
    sums: &[f32],
    layout: Layout,
    tiles: Range<usize>,
    first: usize,
    columns: Range<usize>,
    cell: &mut Cell<'_>,
) {
    let size = tiling.output;
    for (t, tile) in tiles.enumerate() {
        let (n, row, column) = tiling.place(tile);
        let (rows, across) = (O.min(size.h - row * O), O.min(size.w - column * O));
        let corner = (n * size.h + row * O) * size.w + column * O - first;
        let mut c = 0;
        while c < columns.len() {
            let at = t * layout.tile + c;
            let mut half = [[simd.splat_f32s(0.0); I]; O];
            for j in 0..I {
                let column =
                    T::apply(simd, std::array::from_fn(|i| load(simd, sums, at + (i * I + j) * layout.point)));
                for o in 0..O {
                    half[o][j] = column[o];
                }
            }
            for (o, half) in half.into_iter().enumerate().take(rows) {
                for (p, value) in T::apply(simd, half).into_iter().enumerate().take(across) {
                    let row = &mut cell.row(corner + o * size.w + p)[..columns.end];
                    store(simd, row, columns.start + c, value);
                }
            }
            c += S::F32_LANES;
        }
    }
}

/// The filters `[product][len]` (`stride` apart) of weights `[tap][len]`.
#[inline(always)]
pub(super) fn filters<S: Simd>(simd: S, tiling: Tiling, weights: [&[f32]; 9], stride: usize, out: &mut [f32]) {
    with_maps!(tiling.form, Filter, expand(simd, weights, stride, out));
}

#[inline(always)]
fn expand<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    weights: [&[f32]; 9],
    stride: usize,
    out: &mut [f32],
) {
    let mut at = 0;
    while at < weights[0].len() {
        let mut half = [[simd.splat_f32s(0.0); I]; O];
        for j in 0..I {
            let column = T::apply(simd, std::array::from_fn(|i| load(simd, weights[i * I + j], at)));
            for o in 0..O {
                half[o][j] = column[o];
            }
        }
        for (o, half) in half.into_iter().enumerate() {
            for (p, value) in T::apply(simd, half).into_iter().enumerate() {
                store(simd, out, at + (o * O + p) * stride, value);
            }
        }
        at += S::F32_LANES;
    }
}

/// The adjoint of [`filters`] at one place: nine vectors of weight gradients from `[product]`, `stride` apart.
#[inline(always)]
pub(super) fn weight_taps<S: Simd>(
    simd: S,
    tiling: Tiling,
    gradients: &[f32],
    stride: usize,
) -> [[S::f32s; 3]; 3] {
    with_maps!(tiling.form, transposed Filter, fold(simd, gradients, stride))
}

#[inline(always)]
fn fold<S: Simd, T: Map<I, O>, const I: usize, const O: usize>(
    simd: S,
    gradients: &[f32],
    stride: usize,
) -> [[S::f32s; O]; O] {
    let mut half = [[simd.splat_f32s(0.0); I]; O];
    for j in 0..I {
        let column = T::apply(simd, std::array::from_fn(|i| load(simd, gradients, (i * I + j) * stride)));
        for o in 0..O {
            half[o][j] = column[o];
        }
    }
    half.map(|row| T::apply(simd, row))
}
