//! The minimal-filtering algorithms in one dimension, as matrices; two dimensions are the same applied twice.
//!
//! Each computes a tile of outputs `y` from a window of inputs `x` and three weights `w` as
//! `y = OUTPUT * m`, `m[b] = sum over products (a, b) of (INPUT * x)[a] * (FILTER * w)[product]`.
//! F(m, 3) for the plain convolution is Winograd's (Lavin and Gray 2016), with the points 0, 1, -1, infinity, and
//! 2, -2 for the larger tile. Doubling the resolution repeats every pixel, and halving it averages pairs: on either,
//! the point -1 vanishes, and the values at 2 and -2 are multiples of one another. What is left are products with
//! 5 (or 3) instead of 6 (or 4) points in each dimension and transforms at the lower resolution.

use pulp::Simd;

/// A linear map of `I` values to `O`, lane by lane.
pub(super) trait Map<const I: usize, const O: usize> {
    const MATRIX: [[f32; I]; O];

    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: [S::f32s; I]) -> [S::f32s; O] {
        std::array::from_fn(|o| {
            let mut sum = None;
            for i in 0..I {
                let factor = Self::MATRIX[o][i];
                if factor != 0.0 {
                    sum = Some(match sum {
                        None if factor == 1.0 => x[i],
                        None => simd.mul_f32s(simd.splat_f32s(factor), x[i]),
                        Some(sum) if factor == 1.0 => simd.add_f32s(sum, x[i]),
                        Some(sum) if factor == -1.0 => simd.sub_f32s(sum, x[i]),
                        Some(sum) => simd.mul_add_e_f32s(simd.splat_f32s(factor), x[i], sum),
                    });
                }
            }
            sum.unwrap_or(simd.splat_f32s(0.0))
        })
    }
}

/// The adjoint of a map.
pub(super) struct Transposed<T>(std::marker::PhantomData<T>);

impl<const I: usize, const O: usize, T: Map<O, I>> Map<I, O> for Transposed<T> {
    const MATRIX: [[f32; I]; O] = {
        let mut transposed = [[0.0; I]; O];
        let mut o = 0;
        while o < O {
            let mut i = 0;
            while i < I {
                transposed[o][i] = T::MATRIX[i][o];
                i += 1;
            }
            o += 1;
        }
        transposed
    };
}

/// `algorithm!(name: INPUT, OUTPUT, FILTER)` makes the three maps of one algorithm.
macro_rules! algorithm {
    ($name:ident: [$input:literal -> $points:literal] $b:expr, [$sums:literal -> $out:literal] $a:expr,
     [$products:literal] $g:expr) => {
        pub(super) mod $name {
            pub(in super::super) struct Input;
            impl super::Map<$input, $points> for Input {
                const MATRIX: [[f32; $input]; $points] = $b;
            }
            pub(in super::super) struct Output;
            impl super::Map<$sums, $out> for Output {
                const MATRIX: [[f32; $sums]; $out] = $a;
            }
            pub(in super::super) struct Filter;
            impl super::Map<3, $products> for Filter {
                const MATRIX: [[f32; 3]; $products] = $g;
            }
        }
    };
}

algorithm!(large_same:
    [6 -> 6] [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ],
    [6 -> 4] [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ],
    [6] [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ]
);

algorithm!(large_up:
    [4 -> 4] [
        [4.0, -5.0, 1.0, 0.0],
        [0.0, -4.0, 1.0, 0.0],
        [0.0, -1.0, 1.0, 0.0],
        [0.0, 4.0, -5.0, 1.0],
    ],
    [5 -> 4] [
        [1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, 8.0, -8.0, 1.0],
    ],
    [5] [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0],
        [1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0],
        [-1.0 / 24.0, 1.0 / 12.0, -1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ]
);

algorithm!(large_down:
    [6 -> 5] [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ],
    [4 -> 2] [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 4.0, 1.0]],
    [5] [
        [1.0 / 8.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 16.0, 1.0 / 8.0, 1.0 / 4.0],
        [-1.0 / 48.0, 1.0 / 24.0, -1.0 / 12.0],
        [0.0, 0.0, 1.0 / 2.0],
    ]
);

algorithm!(small_same:
    [4 -> 4] [[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]],
    [4 -> 2] [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, -1.0]],
    [4] [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]]
);

algorithm!(small_up:
    [3 -> 3] [[1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, -1.0]],
    [3 -> 2] [[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]],
    [3] [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
);

algorithm!(small_down:
    [4 -> 3] [[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]],
    [1 -> 1] [[1.0]],
    [3] [[0.5, 0.0, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, -0.5]]
);
