//! The one place where floating-point work meets the processor: a register-blocked product of a few
//! rows with a panel of columns, and loads and stores of one vector. Everything is generic over
//! [`pulp::Simd`], which picks AVX-512, AVX2 with FMA, NEON or plain code when the program runs.
#![expect(
    unsafe_code,
    reason = "unaligned vector loads without a bounds check for each; checked once per call"
)]

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

/// Rows of one register block. Six rows of four vectors (32 registers) or of two (16 registers)
/// keep both multiply-add units busy and leave room for the panel's vectors and one broadcast.
pub(super) const ROWS: usize = 6;

/// Vectors in a full panel's width.
#[inline(always)]
const fn panel_vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// Columns of a full panel and of one vector on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Widths {
    pub(super) panel: usize,
    pub(super) lanes: usize,
}

impl Widths {
    pub(super) fn of_this_processor() -> Self {
        struct Ask;
        impl WithSimd for Ask {
            type Output = Widths;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Widths {
                Widths { panel: panel_vectors::<S>() * S::F32_LANES, lanes: S::F32_LANES }
            }
        }
        Arch::new().dispatch(Ask)
    }

    /// `count` rounded up to whole vectors.
    pub(super) fn padded(self, count: usize) -> usize {
        count.next_multiple_of(self.lanes)
    }
}

/// The right-hand side of a [`product`]: `depth` rows of `width` columns, `stride` floats apart.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    /// Whole vectors, at most a full panel.
    pub(super) width: usize,
    pub(super) depth: usize,
}

/// How a [`product`] goes along its rows: `run` values `step` floats apart, then as many `jump` floats
/// behind these, and so on.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    pub(super) step: usize,
    pub(super) run: usize,
    pub(super) jump: usize,
}

impl Walk {
    /// All values `step` floats apart.
    pub(super) const fn straight(step: usize) -> Self {
        Self { step, run: usize::MAX, jump: 0 }
    }

    /// Floats of a row that `depth` values lie in.
    #[inline(always)]
    fn len(self, depth: usize) -> usize {
        (depth - 1) / self.run * self.jump + (self.run.min(depth) - 1) * self.step + 1
    }
}

/// Where a [`product`] goes: rows `stride` floats apart, overwritten or added to.
pub(super) struct Target<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) add: bool,
}

/// `target[r][c] (+)= sum over k of row(r)[k] * panel[k][c]` for `count` rows, with the k-th value of a
/// row where `walk` meets it.
#[inline(always)]
pub(super) fn product<'a, S: Simd>(
    simd: S,
    count: usize,
    row: impl Fn(usize) -> &'a [f32],
    walk: Walk,
    panel: Panel<'_>,
    target: Target<'_>,
) {
    let vectors = panel.width / S::F32_LANES;
    let Target { data, stride, add } = target;
    let mut first = 0;
    while first < count {
        let into = Target { data: &mut data[first * stride..], stride, add };
        if vectors == 1 && count - first >= 2 * ROWS {
            // One vector wide, six rows would leave the units waiting for their own sums.
            let mut rows: [&[f32]; 2 * ROWS] = [&[]; 2 * ROWS];
            for (i, place) in rows.iter_mut().enumerate() {
                *place = row(first + i);
            }
            simd.vectorize(Block::<{ 2 * ROWS }, 1> { rows, walk, panel, into });
            first += 2 * ROWS;
            continue;
        }
        let rows = (count - first).min(ROWS);
        macro_rules! block {
            ($($m:literal)*) => { match rows { $(
                $m => {
                    let mut rows: [&[f32]; $m] = [&[]; $m];
                    for (i, place) in rows.iter_mut().enumerate() {
                        *place = row(first + i);
                    }
                    match vectors {
                        1 => simd.vectorize(Block::<$m, 1> { rows, walk, panel, into }),
                        2 => simd.vectorize(Block::<$m, 2> { rows, walk, panel, into }),
                        3 => simd.vectorize(Block::<$m, 3> { rows, walk, panel, into }),
                        _ => simd.vectorize(Block::<$m, 4> { rows, walk, panel, into }),
                    }
                }
            )* _ => unreachable!("at most ROWS rows") } };
        }
        block!(1 2 3 4 5 6);
        first += rows;
    }
}

/// One register block of a [`product`].
struct Block<'a, const M: usize, const V: usize> {
    rows: [&'a [f32]; M],
    walk: Walk,
    panel: Panel<'a>,
    into: Target<'a>,
}

impl<const M: usize, const V: usize> WithSimd for Block<'_, M, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, walk, panel, into } = self;
        let (depth, width) = (panel.depth, V * S::F32_LANES);
        assert!(depth > 0 && panel.width == width);
        let len = walk.len(depth);
        assert!(rows.iter().all(|row| row.len() >= len));
        assert!(panel.data.len() >= (depth - 1) * panel.stride + width);
        assert!(into.data.len() >= (M - 1) * into.stride + width);

        let mut sums = [[simd.splat_f32s(0.0); V]; M];
        let rows = rows.map(<[f32]>::as_ptr);
        let mut columns = panel.data.as_ptr();
        let (mut start, mut left) = (0, depth);
        while left > 0 {
            let run = walk.run.min(left);
            let mut k = start;
            for _ in 0..run {
                // SAFETY: the assertions above bound `rows[i] + k`, with `k` below `walk.len(depth)`,
                // and `columns` plus `width`, with `columns` at most `(depth - 1) * stride` from the
                // start.
                unsafe {
                    let mut vectors = [simd.splat_f32s(0.0); V];
                    for j in 0..V {
                        vectors[j] =
                            columns.add(j * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                    }
                    for i in 0..M {
                        let value = simd.splat_f32s(*rows[i].add(k));
                        for j in 0..V {
                            sums[i][j] = simd.mul_add_e_f32s(value, vectors[j], sums[i][j]);
                        }
                    }
                }
                columns = columns.wrapping_add(panel.stride);
                k += walk.step;
            }
            left -= run;
            start += walk.jump;
        }
        let out = into.data.as_mut_ptr();
        for i in 0..M {
            for j in 0..V {
                // SAFETY: the last assertion bounds row `M - 1`'s last vector.
                unsafe {
                    let at = out.add(i * into.stride + j * S::F32_LANES).cast::<S::f32s>();
                    let old = if into.add { at.read_unaligned() } else { simd.splat_f32s(0.0) };
                    at.write_unaligned(simd.add_f32s(sums[i][j], old));
                }
            }
        }
    }
}

/// A square window of pixels, each of `channels` floats.
pub(super) struct Window<'a, const N: usize> {
    pixels: [[*const f32; N]; N],
    channels: usize,
    owner: PhantomData<&'a [f32]>,
}

impl<'a, const N: usize> Window<'a, N> {
    #[inline(always)]
    pub(super) fn new(channels: usize, pixel: impl Fn(usize, usize) -> &'a [f32]) -> Self {
        let mut pixels = [[std::ptr::null(); N]; N];
        for (i, row) in pixels.iter_mut().enumerate() {
            for (j, place) in row.iter_mut().enumerate() {
                let pixel = pixel(i, j);
                assert!(pixel.len() >= channels);
                *place = pixel.as_ptr();
            }
        }
        Self { pixels, channels, owner: PhantomData }
    }

    /// The vector at channel `c` of a pixel, filled up with zeros after the last channel.
    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, simd: S, i: usize, j: usize, c: usize) -> S::f32s {
        let pixel = self.pixels[i][j];
        // SAFETY: every pixel has `channels` floats.
        unsafe {
            if c + S::F32_LANES <= self.channels {
                pixel.add(c).cast::<S::f32s>().read_unaligned()
            } else {
                assert!(c <= self.channels);
                simd.partial_load_f32s(std::slice::from_raw_parts(pixel.add(c), self.channels - c))
            }
        }
    }
}

/// Writes the vector to `row[at..]`, all of it.
#[inline(always)]
pub(super) fn store_whole<S: Simd>(row: &mut [f32], at: usize, value: S::f32s) {
    let place = &mut row[at..at + S::F32_LANES];
    // SAFETY: the slice holds exactly one vector.
    unsafe { place.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) }
}

/// Writes the vector to `row[at..]`, dropping what lies behind the row's end.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, row: &mut [f32], at: usize, value: S::f32s) {
    match row.get_mut(at..at + S::F32_LANES) {
        // SAFETY: the slice holds exactly one vector.
        Some(full) => unsafe { full.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) },
        None => simd.partial_store_f32s(&mut row[at..], value),
    }
}
