//! Laplacian pyramids as SWD uses them (the paper's section 5; Burt and Adelson 1983).
//!
//! Each level but the last is a Gaussian level less the expansion of the next coarser one; the last is Gaussian.
//! The kernel is the binomial `[1 4 6 4 1] / 16` in both directions, borders are mirrored without repeating the
//! edge pixel, and expansion is the same kernel on zero-stuffed pixels, times 4.

use crate::{Error, ImageShape, Result};

/// Side of the coarsest level.
pub const COARSEST: usize = 16;

/// The sides of an image's pyramid levels, finest first: `resolution`, half of it, … 16.
pub fn resolutions(shape: ImageShape) -> Result<Vec<usize>> {
    let resolution = shape.resolution();
    if resolution < COARSEST {
        return Err(Error::TooSmall { metric: "SWD", minimum: COARSEST, found: resolution });
    }
    Ok(std::iter::successors(Some(resolution), |r| Some(r / 2))
        .take_while(|&r| r >= COARSEST)
        .collect())
}

/// The pyramid of one image at a time; its memory is used again for the next image.
#[derive(Debug, Clone)]
pub struct LaplacianPyramid {
    channels: usize,
    /// Finest first, each `[C, S, S]`.
    levels: Vec<Level>,
    rows: Rows,
}

#[derive(Debug, Clone)]
struct Level {
    size: usize,
    values: Vec<f32>,
}

impl LaplacianPyramid {
    /// A pyramid for images of `shape`, from their resolution down to 16x16.
    pub fn new(shape: ImageShape) -> Result<Self> {
        let channels = shape.channels();
        let levels = resolutions(shape)?
            .into_iter()
            .map(|size| Level { size, values: vec![0.0; channels * size * size] })
            .collect();
        Ok(Self { channels, levels, rows: Rows::default() })
    }

    /// Builds all levels of an image, u8 `[C, H, W]`.
    pub fn build(&mut self, pixels: &[u8]) -> Result<()> {
        self.build_levels(pixels, 0, self.levels.len() - 1)
    }

    /// Builds levels `first..=last` (0 is the finest); the others hold Gaussian values or stale ones.
    pub(crate) fn build_levels(&mut self, pixels: &[u8], first: usize, last: usize) -> Result<()> {
        let finest = &mut self.levels[0].values;
        if pixels.len() != finest.len() {
            return Err(Error::Mismatch {
                what: "bytes of an image",
                expected: finest.len(),
                found: pixels.len(),
            });
        }
        for (value, &pixel) in finest.iter_mut().zip(pixels) {
            *value = f32::from(pixel);
        }
        let coarsest = (last + 1).min(self.levels.len() - 1);
        for level in 0..coarsest {
            let (fine, coarse) = neighbours(&mut self.levels, level);
            for c in 0..self.channels {
                reduce(fine.plane(c), fine.size, coarse.plane_mut(c), &mut self.rows);
            }
        }
        for level in first..coarsest {
            let (fine, coarse) = neighbours(&mut self.levels, level);
            for c in 0..self.channels {
                subtract_expanded(fine.plane_mut(c), coarse.plane(c), coarse.size, &mut self.rows);
            }
        }
        Ok(())
    }

    /// Each level's side S and values `[C, S, S]`, finest first, as the last call of [`build`](Self::build) left them.
    pub fn levels(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.levels.iter().map(|level| (level.size, level.values.as_slice()))
    }

    pub(crate) fn level(&self, level: usize) -> &[f32] {
        &self.levels[level].values
    }
}

impl Level {
    fn plane(&self, c: usize) -> &[f32] {
        let area = self.size * self.size;
        &self.values[c * area..][..area]
    }

    fn plane_mut(&mut self, c: usize) -> &mut [f32] {
        let area = self.size * self.size;
        &mut self.values[c * area..][..area]
    }
}

fn neighbours(levels: &mut [Level], fine: usize) -> (&mut Level, &mut Level) {
    let (finer, coarser) = levels.split_at_mut(fine + 1);
    (&mut finer[fine], &mut coarser[0])
}

/// Scratch rows after the vertical half of a filter, with mirrored pixels at both ends.
#[derive(Debug, Clone, Default)]
struct Rows {
    even: Vec<f32>,
    odd: Vec<f32>,
}

/// Filters and keeps every second row and column. Vertical first: whole rows go through SIMD, and only half of them.
fn reduce(fine: &[f32], size: usize, coarse: &mut [f32], rows: &mut Rows) {
    let last = size - 1;
    let row = |y: usize| &fine[y * size..][..size];
    let filtered = &mut rows.even;
    filtered.resize(size + 3, 0.0); // columns -2 ..= size
    for (i, out) in coarse.chunks_exact_mut(size / 2).enumerate() {
        let y = 2 * i;
        // Mirrored at the top: -2 is 2, -1 is 1; at the bottom: `size` is `last - 1`.
        let (r0, r1) = if y == 0 { (row(2), row(1)) } else { (row(y - 2), row(y - 1)) };
        let (r2, r3) = (row(y), row(y + 1));
        let r4 = row(if y + 2 > last { last - 1 } else { y + 2 });
        for (x, value) in filtered[2..2 + size].iter_mut().enumerate() {
            *value = (r0[x] + r4[x]) + 4.0 * (r1[x] + r3[x]) + 6.0 * r2[x];
        }
        filtered[0] = filtered[4];
        filtered[1] = filtered[3];
        filtered[size + 2] = filtered[size];
        for (value, f) in out.iter_mut().zip(filtered.windows(5).step_by(2)) {
            *value = ((f[0] + f[4]) + 4.0 * (f[1] + f[3]) + 6.0 * f[2]) * (1.0 / 256.0);
        }
    }
}

/// Subtracts the expansion of `coarse` from `fine`, which is twice as wide.
///
/// On zero-stuffed pixels the kernel falls apart into `[1 6 1] / 8` for even and `[1 1] / 2` for odd positions.
fn subtract_expanded(fine: &mut [f32], coarse: &[f32], size: usize, rows: &mut Rows) {
    let last = size - 1;
    let row = |y: usize| &coarse[y * size..][..size];
    let Rows { even, odd } = rows;
    even.resize(size + 3, 0.0);
    odd.resize(size + 3, 0.0);
    for (i, pair) in fine.chunks_exact_mut(4 * size).enumerate() {
        // The zero-stuffed image has a zero beyond its last pixel, so mirroring repeats the last row and skips the first.
        let above = row(if i == 0 { 1 } else { i - 1 });
        let here = row(i);
        let below = row((i + 1).min(last));
        for x in 0..size {
            even[x + 1] = (above[x] + below[x] + 6.0 * here[x]) * (1.0 / 8.0);
            odd[x + 1] = (here[x] + below[x]) * 0.5;
        }
        let (upper, lower) = pair.split_at_mut(2 * size);
        for (out, filtered) in [(upper, &mut *even), (lower, &mut *odd)] {
            filtered[0] = filtered[2];
            filtered[size + 1] = filtered[size];
            for (out, f) in out.chunks_exact_mut(2).zip(filtered.windows(3)) {
                out[0] -= (f[0] + f[2] + 6.0 * f[1]) * (1.0 / 8.0);
                out[1] -= (f[1] + f[2]) * 0.5;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: the 5x5 kernel on a mirrored image.
    fn convolve(image: &[f64], size: usize, gain: f64) -> Vec<f64> {
        const K: [f64; 5] = [1.0, 4.0, 6.0, 4.0, 1.0];
        let mirror = |i: isize| {
            let last = size as isize - 1;
            (if i < 0 {
                -i
            } else if i > last {
                2 * last - i
            } else {
                i
            }) as usize
        };
        let at = |y: isize, x: isize| image[mirror(y) * size + mirror(x)];
        (0..size * size)
            .map(|p| {
                let (y, x) = ((p / size) as isize, (p % size) as isize);
                let taps = (0..25).map(|t| {
                    K[t / 5] * K[t % 5] * at(y + t as isize / 5 - 2, x + t as isize % 5 - 2)
                });
                taps.sum::<f64>() * gain / 256.0
            })
            .collect()
    }

    fn pixels(count: usize) -> Vec<u8> {
        (0..count as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
    }

    #[test]
    fn levels_are_the_definition() {
        let shape = ImageShape::new(3, 64).unwrap();
        let image = pixels(shape.bytes());
        let mut pyramid = LaplacianPyramid::new(shape).unwrap();
        pyramid.build(&image).unwrap();
        for c in 0..3 {
            let mut gaussian: Vec<f64> =
                image[c * 4096..][..4096].iter().map(|&p| f64::from(p)).collect();
            for (level, size) in [(0, 64), (1, 32), (2, 16)] {
                let mut expected = gaussian.clone();
                if size > COARSEST {
                    let half = size / 2;
                    let filtered = convolve(&gaussian, size, 1.0);
                    gaussian = (0..half * half)
                        .map(|p| filtered[p / half * 2 * size + p % half * 2])
                        .collect();
                    let mut stuffed = vec![0.0; size * size];
                    for (p, &g) in gaussian.iter().enumerate() {
                        stuffed[p / half * 2 * size + p % half * 2] = g;
                    }
                    expected
                        .iter_mut()
                        .zip(convolve(&stuffed, size, 4.0))
                        .for_each(|(e, x)| *e -= x);
                }
                for (found, expected) in
                    pyramid.level(level)[c * size * size..].iter().zip(&expected)
                {
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-4,
                        "level {level}: {found} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_range_of_levels_equals_those_of_the_whole() {
        let shape = ImageShape::new(1, 128).unwrap();
        let image = pixels(shape.bytes());
        let mut whole = LaplacianPyramid::new(shape).unwrap();
        whole.build(&image).unwrap();
        for (first, last) in [(0, 0), (1, 2), (3, 3), (0, 3)] {
            let mut part = LaplacianPyramid::new(shape).unwrap();
            part.build_levels(&image, first, last).unwrap();
            for level in first..=last {
                assert_eq!(
                    part.level(level),
                    whole.level(level),
                    "level {level} of {first}..={last}"
                );
            }
        }
    }

    #[test]
    fn a_flat_image_has_no_detail() {
        let shape = ImageShape::new(1, 32).unwrap();
        let mut pyramid = LaplacianPyramid::new(shape).unwrap();
        pyramid.build(&vec![200; shape.bytes()]).unwrap();
        assert!(pyramid.level(0).iter().all(|&v| v == 0.0));
        assert!(pyramid.level(1).iter().all(|&v| v == 200.0));
    }

    #[test]
    fn wrong_sizes_are_named() {
        assert!(matches!(
            resolutions(ImageShape::new(3, 8).unwrap()),
            Err(Error::TooSmall { minimum: 16, .. })
        ));
        let mut pyramid = LaplacianPyramid::new(ImageShape::new(3, 16).unwrap()).unwrap();
        assert!(matches!(
            pyramid.build(&[0; 5]),
            Err(Error::Mismatch { expected: 768, found: 5, .. })
        ));
    }
}
