//! The minimal-filtering algorithms in one dimension, as matrices; two dimensions are the same
//! applied twice.
//!
//! Each computes a tile of outputs `y` from a window of inputs `x` and three weights `w` as `y =
//! OUTPUT * m`, `m[b] = sum over products (a, b) of (INPUT * x)[a] * (FILTER * w)[product]`. F(m,
//! 3) for the plain convolution is Winograd's (Lavin and Gray 2016), with the points 0, 1, -1 and
//! infinity for the smaller tile, and 0, 3/4, -3/4, 3/2, -3/2 and infinity for the larger one: there
//! the usual 1 and 2 would make the largest error three times as large. Doubling the resolution
//! repeats every pixel, and halving it averages pairs: on either, with points 1, -1, 2, -2, the
//! point -1 vanishes, and the values at 2 and -2 are multiples of one another. What is left are products with 5 (or 3) instead of 6 (or 4) points in
//! each dimension and transforms at the lower resolution.

use pulp::Simd;

/// A linear map of `I` values to `O`, lane by lane.
pub(super) trait Map<const I: usize, const O: usize> {
    const MATRIX: [[f32; I]; O];

    /// `MATRIX * x`. The busiest maps have it written out, with their common terms shared.
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: [S::f32s; I]) -> [S::f32s; O] {
        multiply(simd, &Self::MATRIX, x)
    }

    /// The adjoint map.
    #[inline(always)]
    fn adjoint<S: Simd>(simd: S, y: [S::f32s; O]) -> [S::f32s; I] {
        multiply(simd, &const { transposed(Self::MATRIX) }, y)
    }
}

/// The adjoint of a map, as a map.
pub(super) struct Adjoint<T>(std::marker::PhantomData<T>);

impl<const I: usize, const O: usize, T: Map<O, I>> Map<I, O> for Adjoint<T> {
    const MATRIX: [[f32; I]; O] = transposed(T::MATRIX);

    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: [S::f32s; I]) -> [S::f32s; O] {
        T::adjoint(simd, x)
    }

    #[inline(always)]
    fn adjoint<S: Simd>(simd: S, y: [S::f32s; O]) -> [S::f32s; I] {
        T::apply(simd, y)
    }
}

const fn transposed<const I: usize, const O: usize>(matrix: [[f32; I]; O]) -> [[f32; O]; I] {
    let mut transposed = [[0.0; O]; I];
    let mut o = 0;
    while o < O {
        let mut i = 0;
        while i < I {
            transposed[i][o] = matrix[o][i];
            i += 1;
        }
        o += 1;
    }
    transposed
}

/// `matrix * x`; zeros and ones cost nothing once the loops are unrolled.
#[inline(always)]
fn multiply<S: Simd, const I: usize, const O: usize>(
    simd: S,
    matrix: &[[f32; I]; O],
    x: [S::f32s; I],
) -> [S::f32s; O] {
    // Plain loops here and wherever vectors are handled: a closure that is not inlined loses the
    // vector instructions.
    let mut y = [simd.splat_f32s(0.0); O];
    for o in 0..O {
        let mut first = true;
        for i in 0..I {
            let factor = matrix[o][i];
            if factor != 0.0 {
                y[o] = if first && factor == 1.0 {
                    x[i]
                } else if first {
                    simd.mul_f32s(simd.splat_f32s(factor), x[i])
                } else if factor == 1.0 {
                    simd.add_f32s(y[o], x[i])
                } else if factor == -1.0 {
                    simd.sub_f32s(y[o], x[i])
                } else {
                    simd.mul_add_e_f32s(simd.splat_f32s(factor), x[i], y[o])
                };
                first = false;
            }
        }
    }
    y
}

/// `algorithm!(name: INPUT, OUTPUT, FILTER)` makes the three maps of one algorithm; those of input
/// and output may be followed by methods that replace the general ones.
macro_rules! algorithm {
    ($name:ident: [$input:literal -> $points:literal] $b:expr $(=> { $($input_methods:item)* })?,
     [$sums:literal -> $out:literal] $a:expr $(=> { $($output_methods:item)* })?,
     [$products:literal] $g:expr) => {
        #[allow(unused_imports, clippy::wildcard_imports, reason = "only for some of them")]
        pub(super) mod $name {
            use pulp::Simd;
            use super::*;

            pub(in super::super) struct Input;
            impl Map<$input, $points> for Input {
                const MATRIX: [[f32; $input]; $points] = $b;
                $($($input_methods)*)?
            }
            pub(in super::super) struct Output;
            impl Map<$sums, $out> for Output {
                const MATRIX: [[f32; $sums]; $out] = $a;
                $($($output_methods)*)?
            }
            pub(in super::super) struct Filter;
            impl Map<3, $products> for Filter {
                const MATRIX: [[f32; 3]; $products] = $g;
            }
        }
    };
}

// The points of the larger tile, their squares, and 1 over the products of each one's distances from
// the others.
const A: f32 = 0.75;
const B: f32 = 1.5;
const AA: f32 = A * A;
const BB: f32 = B * B;
const AABB: f32 = AA * BB;
const NEAR: f32 = 0.5 / (AA * (AA - BB));
const FAR: f32 = 0.5 / (BB * (BB - AA));

algorithm!(large_same:
    [6 -> 6] [
        [AABB, 0.0, -AA - BB, 0.0, 1.0, 0.0],
        [0.0, -A * BB, -BB, A, 1.0, 0.0],
        [0.0, A * BB, -BB, -A, 1.0, 0.0],
        [0.0, -B * AA, -AA, B, 1.0, 0.0],
        [0.0, B * AA, -AA, -B, 1.0, 0.0],
        [0.0, AABB, 0.0, -AA - BB, 0.0, 1.0],
    ] => {
        #[inline(always)]
        fn apply<S: Simd>(simd: S, x: [S::f32s; 6]) -> [S::f32s; 6] {
            let fma = |factor: f32, a, b| simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b);
            let (even, odd) = (fma(-BB, x[2], x[4]), fma(-BB, x[1], x[3]));
            let (even2, odd2) = (fma(-AA, x[2], x[4]), fma(-AA, x[1], x[3]));
            [
                fma(AABB, x[0], fma(-AA - BB, x[2], x[4])),
                fma(A, odd, even),
                fma(-A, odd, even),
                fma(B, odd2, even2),
                fma(-B, odd2, even2),
                fma(AABB, x[1], fma(-AA - BB, x[3], x[5])),
            ]
        }
    },
    [6 -> 4] [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, A, -A, B, -B, 0.0],
        [0.0, AA, AA, BB, BB, 0.0],
        [0.0, A * AA, -A * AA, B * BB, -B * BB, 1.0],
    ] => {
        #[inline(always)]
        fn apply<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
            let fma = |factor: f32, a, b| simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b);
            let mul = |factor: f32, a| simd.mul_f32s(simd.splat_f32s(factor), a);
            let (sum, difference) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
            let (sum2, difference2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
            [
                simd.add_f32s(simd.add_f32s(m[0], sum), sum2),
                fma(B, difference2, mul(A, difference)),
                fma(BB, sum2, mul(AA, sum)),
                fma(B * BB, difference2, fma(A * AA, difference, m[5])),
            ]
        }

        #[inline(always)]
        fn adjoint<S: Simd>(simd: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
            let fma = |factor: f32, a, b| simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b);
            let (even, odd) = (fma(AA, y[2], y[0]), fma(AA, y[3], y[1]));
            let (even2, odd2) = (fma(BB, y[2], y[0]), fma(BB, y[3], y[1]));
            [
                y[0],
                fma(A, odd, even),
                fma(-A, odd, even),
                fma(B, odd2, even2),
                fma(-B, odd2, even2),
                y[3],
            ]
        }
    },
    [6] [
        [1.0 / AABB, 0.0, 0.0],
        [NEAR, A * NEAR, AA * NEAR],
        [NEAR, -A * NEAR, AA * NEAR],
        [FAR, B * FAR, BB * FAR],
        [FAR, -B * FAR, BB * FAR],
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
    ] => {
        #[inline(always)]
        fn apply<S: Simd>(simd: S, x: [S::f32s; 6]) -> [S::f32s; 5] {
            let fma = |factor: f32, a, b| simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b);
            let (even, odd) = (fma(-4.0, x[2], x[4]), fma(-4.0, x[1], x[3]));
            let (near, far) = (simd.sub_f32s(x[4], x[2]), simd.sub_f32s(x[3], x[1]));
            [
                fma(4.0, x[0], fma(-5.0, x[2], x[4])),
                simd.add_f32s(even, odd),
                fma(2.0, far, near),
                fma(-2.0, far, near),
                fma(4.0, x[1], fma(-5.0, x[3], x[5])),
            ]
        }
    },
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

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Check<T, const I: usize, const O: usize>(std::marker::PhantomData<T>);

    impl<T: Map<I, O>, const I: usize, const O: usize> WithSimd for Check<T, I, O> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            let vector = |i: usize| simd.splat_f32s((i * i + 3) as f32);
            let bits =
                |v: &[S::f32s]| v.iter().map(|v| simd.reduce_sum_f32s(*v)).collect::<Vec<_>>();
            let (x, y) = (std::array::from_fn(vector), std::array::from_fn(vector));
            // Small whole numbers: any order of summation is exact.
            assert_eq!(bits(&T::apply(simd, x)), bits(&multiply(simd, &T::MATRIX, x)));
            assert_eq!(
                bits(&T::adjoint(simd, y)),
                bits(&multiply(simd, &transposed(T::MATRIX), y))
            );
        }
    }

    #[test]
    fn written_out_maps_equal_their_matrices() {
        Arch::new().dispatch(Check::<large_same::Input, 6, 6>(std::marker::PhantomData));
        Arch::new().dispatch(Check::<large_same::Output, 6, 4>(std::marker::PhantomData));
        Arch::new().dispatch(Check::<large_down::Input, 6, 5>(std::marker::PhantomData));
    }
}
