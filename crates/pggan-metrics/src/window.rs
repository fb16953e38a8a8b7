//! Gaussian windows over images, for loops that a caller compiles for the SIMD of this machine.

#![expect(clippy::inline_always, reason = "code is vectorised only as a part of the caller")]

/// Numbers that SIMD works on at once.
pub(crate) const LANES: usize = 16;

/// `LANES` numbers from `at` on: rows are padded for them.
#[inline(always)]
fn lanes(row: &[f32], at: usize) -> &[f32; LANES] {
    row[at..].first_chunk().expect("rows are padded")
}

/// A Gaussian whose weights sum to 1.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    size: usize,
    /// Its first half, for it is symmetric: pixels are taken in pairs. The middle of an odd one is half a weight,
    /// as its pixel pairs with itself.
    half: Vec<f32>,
}

impl Window {
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Of `size` weights and a deviation in proportion: 1.5 for 11.
    pub(crate) fn gaussian(size: usize) -> Self {
        let sigma = 1.5 / 11.0 * size as f64;
        let middle = (size - 1) as f64 / 2.0;
        let weights =
            || (0..size).map(|i| (-(i as f64 - middle).powi(2) / (2.0 * sigma * sigma)).exp());
        let total: f64 = weights().sum();
        let mut half: Vec<f32> =
            weights().take(size.div_ceil(2)).map(|weight| (weight / total) as f32).collect();
        if size % 2 == 1 {
            half[size / 2] *= 0.5;
        }
        Self { size, half }
    }

    /// Each pair of pixels with its weight: the place of one, of the other, the weight.
    #[inline(always)]
    fn pairs(&self) -> impl Iterator<Item = (usize, usize, f32)> {
        self.half.iter().enumerate().map(|(i, &weight)| (i, self.size - 1 - i, weight))
    }

    /// The weighted means over the first rows of an image, and those of the squares.
    #[inline(always)]
    pub(crate) fn of_rows(
        &self,
        plane: &[f32],
        size: usize,
        means: &mut [f32],
        squares: &mut [f32],
    ) {
        let columns = (0..size).step_by(LANES);
        let out = means.as_chunks_mut().0.iter_mut().zip(squares.as_chunks_mut().0);
        for (x, (means, squares)) in columns.zip(out) {
            let (mut mean, mut square) = ([0.0; LANES], [0.0; LANES]);
            for (i, j, weight) in self.pairs() {
                let (upper, lower) = (lanes(plane, i * size + x), lanes(plane, j * size + x));
                for l in 0..LANES {
                    mean[l] += weight * (upper[l] + lower[l]);
                    square[l] += weight * (upper[l] * upper[l] + lower[l] * lower[l]);
                }
            }
            (*means, *squares) = (mean, square);
        }
    }

    /// The weighted means along a row.
    #[inline(always)]
    pub(crate) fn of_columns(&self, row: &[f32], means: &mut [f32]) {
        for (k, means) in means.as_chunks_mut().0.iter_mut().enumerate() {
            let mut mean = [0.0; LANES];
            for (i, j, weight) in self.pairs() {
                let (left, right) = (lanes(row, k * LANES + i), lanes(row, k * LANES + j));
                for l in 0..LANES {
                    mean[l] += weight * (left[l] + right[l]);
                }
            }
            *means = mean;
        }
    }
}
