//! Multi-scale structural similarity of pairs (Wang et al. 2003), as the paper measures variation with it.
//!
//! Five scales; at each an 11x11 Gaussian window (sigma 1.5) where it lies wholly inside of the image, shrunk with
//! the image where that is smaller; between scales the mean of 2x2 pixels. A score is the product of the contrast
//! terms of four scales and of the full similarity of the coarsest, each to its weight and not below 0. Lower means
//! more varied images; real images tell what is natural.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::images::for_each_batch;
use crate::scratch::Scratch;
use crate::window::{LANES, Window};
use crate::{Error, ImageSet, ImageShape, Result};

/// Number of scales.
pub const SCALES: usize = 5;

const WEIGHTS: [f64; SCALES] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];
const WINDOW: usize = 11;
const C1: f32 = (0.01 * 255.0) * (0.01 * 255.0);
const C2: f32 = (0.03 * 255.0) * (0.03 * 255.0);
/// The smallest images that can be halved four times.
const MINIMUM: usize = 1 << (SCALES - 1);

/// The mean score over pairs of consecutive images, first with second, third with fourth; a last one without a
/// partner is left out. The original measures 10,000 pairs of generated images.
pub fn ms_ssim(set: &dyn ImageSet) -> Result<f64> {
    let image = set.shape().bytes();
    if set.len() < 2 {
        return Err(Error::TooFew { metric: "MS-SSIM", minimum: 2, found: set.len() });
    }
    let empty = Comparer::new(set.shape())?;
    let scratch = Scratch::new(|| empty.clone());
    let score = |a: &[u8], b: &[u8]| scratch.with(|comparer| comparer.compare(a, b).score());
    let mut single: Vec<u8> = Vec::new();
    let mut total = 0.0;
    for_each_batch(set, |_, mut batch| {
        if !single.is_empty() && !batch.is_empty() {
            let (partner, rest) = batch.split_at(image);
            total += score(&single, partner);
            single.clear();
            batch = rest;
        }
        let pairs = batch.par_chunks_exact(2 * image);
        single.extend_from_slice(pairs.remainder());
        let scores: Vec<f64> = pairs.map(|pair| score(&pair[..image], &pair[image..])).collect();
        total += scores.iter().sum::<f64>();
        Ok(())
    })?;
    Ok(total / (set.len() / 2) as f64)
}

/// How alike two images, u8 `[C, H, W]`, are.
pub fn compare(shape: ImageShape, a: &[u8], b: &[u8]) -> Result<Similarity> {
    for image in [a, b] {
        if image.len() != shape.bytes() {
            return Err(Error::Mismatch {
                what: "bytes of an image",
                expected: shape.bytes(),
                found: image.len(),
            });
        }
    }
    Ok(Comparer::new(shape)?.compare(a, b))
}

/// The terms of each scale, finest first, averaged over pixels and channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Similarity: luminance times contrast and structure.
    pub ssim: [f64; SCALES],
    /// Contrast and structure alone.
    pub contrast: [f64; SCALES],
}

impl Similarity {
    /// The score of the pair: 1 for equal images, 0 at least.
    pub fn score(&self) -> f64 {
        let coarsest = SCALES - 1;
        let contrasts = self.contrast[..coarsest].iter().zip(WEIGHTS);
        let contrast: f64 = contrasts.map(|(c, weight)| c.max(0.0).powf(weight)).product();
        contrast * self.ssim[coarsest].max(0.0).powf(WEIGHTS[coarsest])
    }
}

/// Compares pairs of one shape; its memory is used again for the next pair.
///
/// It works on the sum and the difference of the two images instead of the images: four windowed means
/// (of both and of their squares) then give what would else take five.
#[derive(Debug, Clone)]
struct Comparer {
    shape: ImageShape,
    /// Window of each scale.
    windows: Vec<Window>,
    sum: Vec<f32>,
    difference: Vec<f32>,
    rows: Rows,
}

#[derive(Debug, Clone, Default)]
struct Rows {
    /// Vertically windowed rows: sum, difference and their squares.
    windowed: [Vec<f32>; 4],
    /// The same, windowed both ways.
    means: [Vec<f32>; 4],
    /// Totals of each column: similarity, contrast.
    totals: [Vec<f64>; 2],
}

impl Comparer {
    fn new(shape: ImageShape) -> Result<Self> {
        let resolution = shape.resolution();
        if resolution < MINIMUM {
            return Err(Error::TooSmall { metric: "MS-SSIM", minimum: MINIMUM, found: resolution });
        }
        let windows =
            (0..SCALES).map(|scale| Window::gaussian(WINDOW.min(resolution >> scale))).collect();
        let plane = vec![0.0; resolution * resolution + LANES];
        Ok(Self { shape, windows, sum: plane.clone(), difference: plane, rows: Rows::default() })
    }

    fn compare(&mut self, a: &[u8], b: &[u8]) -> Similarity {
        let (channels, resolution) = (self.shape.channels(), self.shape.resolution());
        let area = resolution * resolution;
        let arch = Arch::new();
        let mut similarity = Similarity { ssim: [0.0; SCALES], contrast: [0.0; SCALES] };
        for (a, b) in a.chunks_exact(area).zip(b.chunks_exact(area)) {
            // Variances do not depend on the mean: without it their squares keep more digits.
            let total: u64 = a.iter().chain(b).map(|&pixel| u64::from(pixel)).sum();
            let mean = total.div_ceil(area as u64) as f32;
            for (((sum, difference), &a), &b) in
                self.sum.iter_mut().zip(&mut self.difference).zip(a).zip(b)
            {
                (*sum, *difference) =
                    (f32::from(a) + f32::from(b) - mean, f32::from(a) - f32::from(b));
            }
            for (scale, window) in self.windows.iter().enumerate() {
                let size = resolution >> scale;
                let (sum, difference) = (&self.sum, &self.difference);
                let rows = &mut self.rows;
                let (ssim, contrast) =
                    arch.dispatch(Scale { sum, difference, mean, size, window, rows });
                similarity.ssim[scale] += ssim / channels as f64;
                similarity.contrast[scale] += contrast / channels as f64;
                if scale + 1 < SCALES {
                    halve(&mut self.sum, size);
                    halve(&mut self.difference, size);
                }
            }
        }
        similarity
    }
}

/// Replaces an image by its 2x2 means, at the beginning of its memory.
fn halve(plane: &mut [f32], size: usize) {
    let half = size / 2;
    for y in 0..half {
        for x in 0..half {
            let at = 2 * (y * size + x);
            let (upper, lower) =
                (plane[at] + plane[at + 1], plane[at + size] + plane[at + size + 1]);
            plane[y * half + x] = (upper + lower) * 0.25;
        }
    }
}

/// The mean similarity and contrast of one channel at one scale.
struct Scale<'a> {
    /// a + b - `mean` and a - b, `[size, size]` and padding.
    sum: &'a [f32],
    difference: &'a [f32],
    mean: f32,
    size: usize,
    window: &'a Window,
    rows: &'a mut Rows,
}

impl WithSimd for Scale<'_> {
    type Output = (f64, f64);

    #[expect(clippy::inline_always, reason = "code is vectorised only as a part of the caller")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, f64) {
        let Self { sum, difference, mean, size, window, rows } = self;
        let inside = size + 1 - window.size();
        // Whole groups of lanes: what lies beyond `inside` is finite and not used.
        let width = inside.next_multiple_of(LANES);
        rows.windowed.iter_mut().for_each(|row| row.resize(width + 2 * LANES, 0.0));
        rows.means.iter_mut().for_each(|row| row.resize(width, 0.0));
        for totals in &mut rows.totals {
            totals.clear();
            totals.resize(width, 0.0);
        }
        for y in 0..inside {
            let [s, d, ss, dd] = &mut rows.windowed;
            window.of_rows(&sum[y * size..], size, s, ss);
            window.of_rows(&difference[y * size..], size, d, dd);
            for (windowed, mean) in rows.windowed.iter().zip(&mut rows.means) {
                window.of_columns(windowed, mean);
            }
            let [s, d, ss, dd] = rows.means.each_ref().map(|row| &row[..width]);
            let [ssim, contrast] = rows.totals.each_mut().map(|row| &mut row[..width]);
            for x in 0..width {
                // With s = a + b, d = a - b: 2 cov(a, b) = (var s - var d) / 2, var a + var b = (var s + var d) / 2.
                let (var_s, var_d) = (ss[x] - s[x] * s[x], dd[x] - d[x] * d[x]);
                let c = (0.5 * (var_s - var_d) + C2) / (0.5 * (var_s + var_d) + C2);
                let (s2, d2) = ((s[x] + mean) * (s[x] + mean), d[x] * d[x]);
                let luminance = (0.5 * (s2 - d2) + C1) / (0.5 * (s2 + d2) + C1);
                contrast[x] += f64::from(c);
                ssim[x] += f64::from(luminance * c);
            }
        }
        let count = (inside * inside) as f64;
        let [ssim, contrast] =
            rows.totals.each_ref().map(|row| row[..inside].iter().sum::<f64>() / count);
        (ssim, contrast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pixels;

    fn noise(seed: u64, count: usize) -> Vec<u8> {
        (0..count as u64)
            .map(|i| ((i + 1).wrapping_mul(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect()
    }

    fn gaussian(size: usize) -> Vec<f64> {
        let exponent = |i: usize| {
            (i as f64 - (size - 1) as f64 / 2.0).powi(2)
                / (2.0 * (1.5 * size as f64 / 11.0).powi(2))
        };
        let weights = || (0..size).map(|i| (-exponent(i)).exp());
        weights().map(|weight| weight / weights().sum::<f64>()).collect()
    }

    /// One scale by definition, in f64, over all windows.
    fn definition(a: &[f64], b: &[f64], size: usize) -> (f64, f64) {
        let window = gaussian(WINDOW.min(size));
        let inside = size + 1 - window.len();
        let (mut ssim, mut contrast) = (0.0, 0.0);
        for (y, x) in (0..inside * inside).map(|p| (p / inside, p % inside)) {
            let mean = |value: &dyn Fn(usize) -> f64| -> f64 {
                let taps =
                    (0..window.len() * window.len()).map(|t| (t / window.len(), t % window.len()));
                taps.map(|(i, j)| window[i] * window[j] * value((y + i) * size + x + j)).sum()
            };
            let (ma, mb) = (mean(&|p| a[p]), mean(&|p| b[p]));
            let va = mean(&|p| a[p] * a[p]) - ma * ma;
            let vb = mean(&|p| b[p] * b[p]) - mb * mb;
            let cov = mean(&|p| a[p] * b[p]) - ma * mb;
            let c = (2.0 * cov + f64::from(C2)) / (va + vb + f64::from(C2));
            contrast += c;
            ssim += c * (2.0 * ma * mb + f64::from(C1)) / (ma * ma + mb * mb + f64::from(C1));
        }
        let count = (inside * inside) as f64;
        (ssim / count, contrast / count)
    }

    #[test]
    fn terms_are_the_definition() {
        for resolution in [16, 32, 64] {
            let shape = ImageShape::new(1, resolution).unwrap();
            let (a, mut b) = (noise(3, shape.bytes()), noise(5, shape.bytes()));
            b.iter_mut().zip(&a).for_each(|(b, &a)| *b = a / 2 + *b / 3 + 20);
            let found = compare(shape, &a, &b).unwrap();
            let (mut a, mut b): (Vec<f64>, Vec<f64>) =
                a.iter().zip(&b).map(|(&a, &b)| (f64::from(a), f64::from(b))).unzip();
            for scale in 0..SCALES {
                let size = resolution >> scale;
                let (ssim, contrast) = definition(&a, &b, size);
                assert!(
                    (found.ssim[scale] - ssim).abs() < 2e-6,
                    "{resolution} {scale}: {} {ssim}",
                    found.ssim[scale]
                );
                assert!((found.contrast[scale] - contrast).abs() < 2e-6, "{resolution} {scale}");
                for plane in [&mut a, &mut b] {
                    *plane = (0..size * size / 4)
                        .map(|p| (p / (size / 2) * 2 * size) + p % (size / 2) * 2)
                        .map(|p| {
                            (plane[p] + plane[p + 1] + plane[p + size] + plane[p + size + 1]) / 4.0
                        })
                        .collect();
                }
            }
        }
    }

    #[test]
    fn an_image_is_like_itself() {
        let shape = ImageShape::new(3, 32).unwrap();
        for image in [noise(9, shape.bytes()), vec![0; shape.bytes()], vec![255; shape.bytes()]] {
            assert!((compare(shape, &image, &image).unwrap().score() - 1.0).abs() < 1e-6);
        }
    }

    /// Gives its images in batches of a given length.
    struct Batches<'a>(Pixels<'a>, &'a [u8], usize);

    impl ImageSet for Batches<'_> {
        fn shape(&self) -> ImageShape {
            self.0.shape()
        }
        fn len(&self) -> usize {
            self.0.len()
        }
        fn batches(
            &self,
        ) -> Box<dyn Iterator<Item = Result<std::borrow::Cow<'_, [u8]>, crate::SourceError>> + '_>
        {
            Box::new(self.1.chunks(self.2 * self.shape().bytes()).map(|batch| Ok(batch.into())))
        }
    }

    #[test]
    fn pairs_do_not_depend_on_batches() {
        let shape = ImageShape::new(3, 16).unwrap();
        let bytes = noise(7, 9 * shape.bytes());
        let images: Vec<&[u8]> = bytes.chunks(shape.bytes()).collect();
        let pairs =
            images.chunks_exact(2).map(|pair| compare(shape, pair[0], pair[1]).unwrap().score());
        let expected = pairs.sum::<f64>() / 4.0;
        let pixels = Pixels::new(shape, &bytes).unwrap();
        for length in 1..=9 {
            let found = ms_ssim(&Batches(pixels, &bytes, length)).unwrap();
            assert!((found - expected).abs() < 1e-12, "{length}: {found} {expected}");
        }
    }

    #[test]
    fn wrong_input_is_named() {
        let small = ImageShape::new(1, 8).unwrap();
        assert!(matches!(
            compare(small, &[0; 64], &[0; 64]),
            Err(Error::TooSmall { minimum: 16, found: 8, .. })
        ));
        let shape = ImageShape::new(1, 16).unwrap();
        assert!(matches!(compare(shape, &[0; 256], &[0; 255]), Err(Error::Mismatch { .. })));
        let one = [0; 256];
        assert!(matches!(
            ms_ssim(&Pixels::new(shape, &one).unwrap()),
            Err(Error::TooFew { minimum: 2, found: 1, .. })
        ));
    }
}
