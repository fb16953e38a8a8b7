//! Pillow 3.1.1's Lanczos filter and bilinear quadrilateral transform, to the bit.
//!
//! CelebA-HQ is what it is because this release made it. Later ones filter with whole numbers (3.3) and put
//! the coordinates of a transform at the middles of pixels (5.0); 3.1.1 filters in `f32`, tap after tap, and cuts both results to
//! bytes by dropping what is behind the point. The order of every operation here is Pillow's.

use crate::decode::Picture;

/// Rows that are filtered side by side: the additions of one pixel cannot be reordered, those of many rows can.
const LANES: usize = 16;

/// The taps of a Lanczos filter from `from` to `to` samples.
struct Taps {
    /// First tap and where its weights begin and end.
    spans: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<f32>,
}

impl Taps {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f32 / to as f32;
        let stretch = scale.max(1.0);
        let support = 3.0 * stretch;
        let narrow = (1.0 / stretch as f64) as f32;
        let (mut spans, mut weights) = (Vec::with_capacity(to), Vec::new());
        for i in 0..to {
            let center = ((i as f64 + 0.5) * scale as f64) as f32;
            let first = (center - support).floor().max(0.0) as usize;
            let end = ((center + support).ceil() as usize).min(from);
            let begin = weights.len();
            let mut sum = 0.0_f32;
            for tap in first..end {
                let at = ((tap as f32 - center) as f64 + 0.5) * narrow as f64;
                let weight = lanczos(at as f32) * narrow;
                weights.push(weight);
                sum += weight;
            }
            if sum != 0.0 {
                weights[begin..].iter_mut().for_each(|weight| *weight /= sum);
            }
            spans.push((first, begin..weights.len()));
        }
        Self { spans, weights }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.spans.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }
}

fn lanczos(x: f32) -> f32 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn sinc(x: f32) -> f32 {
    if x == 0.0 {
        return 1.0;
    }
    let x = (x as f64 * std::f64::consts::PI) as f32 as f64;
    (x.sin() / x) as f32
}

/// Resizes an image of `from` (width, height) to `to`: `row(y, pixels)` gives its rows, in order, each once, so that
/// it never has to exist as a whole.
///
/// Memory: an image of the new width and the old height.
pub(crate) fn resize(
    from: (usize, usize),
    to: (usize, usize),
    channels: usize,
    mut row: impl FnMut(usize, &mut [u8]),
) -> Vec<u8> {
    if from == to {
        let mut out = vec![0; channels * to.0 * to.1];
        out.chunks_exact_mut(channels * to.0).enumerate().for_each(|(y, to)| row(y, to));
        return out;
    }
    let across = Taps::new(from.0, to.0);
    let stride = channels * to.0;
    let mut narrow = vec![0; stride * from.1];
    let mut pixels = vec![0; channels * from.0];
    let mut lanes = vec![[0.0_f32; LANES]; channels * from.0];
    for (block, rows) in narrow.chunks_mut(LANES * stride).enumerate() {
        for lane in 0..rows.len() / stride {
            row(block * LANES + lane, &mut pixels);
            for (to, &from) in lanes.iter_mut().zip(&pixels) {
                to[lane] = from as f32;
            }
        }
        for (x, (first, weights)) in across.each().enumerate() {
            for c in 0..channels {
                let mut sums = [0.5_f32; LANES];
                let taps = lanes[channels * first + c..].iter().step_by(channels);
                for (values, &weight) in taps.zip(weights) {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum += value * weight;
                    }
                }
                for (row, sum) in rows.chunks_exact_mut(stride).zip(sums) {
                    row[channels * x + c] = sum as u8;
                }
            }
        }
    }

    let down = Taps::new(from.1, to.1);
    let mut out = vec![0; stride * to.1];
    let mut sums = vec![0.0_f32; stride];
    for (to, (first, weights)) in out.chunks_exact_mut(stride).zip(down.each()) {
        sums.fill(0.5);
        for (values, &weight) in narrow[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += value as f32 * weight;
            }
        }
        for (to, &sum) in to.iter_mut().zip(&sums) {
            *to = sum as u8;
        }
    }
    out
}

/// [`resize`] of an image in memory.
pub(crate) fn resize_picture(picture: Picture<'_>, to: (usize, usize)) -> Vec<u8> {
    let Picture { width, height, channels, pixels } = picture;
    let stride = channels * width as usize;
    resize((width as usize, height as usize), to, channels, |y, row| {
        row.copy_from_slice(&pixels[y * stride..][..stride]);
    })
}

/// A picture seen through a quadrilateral, `side` pixels a side.
pub(crate) struct Quad<'a> {
    picture: Picture<'a>,
    /// The corner, and the steps along x, y and both; of x and of y.
    coefficients: [[f64; 4]; 2],
}

impl<'a> Quad<'a> {
    /// `corners`: top left, bottom left, bottom right, top right.
    pub(crate) fn new(picture: Picture<'a>, corners: &[[f32; 2]; 4], side: usize) -> Self {
        let step = 1.0 / side as f64;
        let coefficients = [0, 1].map(|i| {
            let [nw, sw, se, ne] = corners.map(|corner| corner[i]);
            let bend = (se - sw - ne + nw) as f64 * step * step;
            [nw as f64, (ne - nw) as f64 * step, (sw - nw) as f64 * step, bend]
        });
        Self { picture, coefficients }
    }

    /// Writes a row of what is seen; what lies outside of the picture is black.
    pub(crate) fn row(&self, y: usize, row: &mut [u8]) {
        match self.picture.channels {
            1 => self.row_of::<1>(y, row),
            _ => self.row_of::<3>(y, row),
        }
    }

    fn row_of<const C: usize>(&self, y: usize, row: &mut [u8]) {
        let Picture { width, height, pixels, .. } = self.picture;
        let (wide, high) = (width as usize, height as usize);
        let pixels = &pixels.as_chunks::<C>().0[..wide * high];
        let y = y as f64;
        for (x, to) in row.as_chunks_mut::<C>().0.iter_mut().enumerate() {
            let x = x as f64;
            let [u, v] = self.coefficients.map(|[a, b, c, d]| a + b * x + c * y + d * x * y);
            if !(u >= 0.0 && u < width as f64 && v >= 0.0 && v < height as f64) {
                *to = [0; C];
                continue;
            }
            let (u, v) = (u - 0.5, v - 0.5);
            let (left, top) = (u.floor(), v.floor());
            let (du, dv) = (u - left, v - top);
            // -1 becomes 0, as clamping does.
            let (x0, y0) = (left as usize, top as usize);
            let x1 = ((left + 1.0) as usize).min(wide - 1);
            let y1 = ((top + 1.0) as usize).min(high - 1);
            let (above, below) = (&pixels[y0 * wide..][..wide], &pixels[y1 * wide..][..wide]);
            let corners = [above[x0], above[x1], below[x0], below[x1]];
            for (c, to) in to.iter_mut().enumerate() {
                let [a, b, e, f] = corners.map(|pixel| pixel[c] as f64);
                let upper = a + (b - a) * du;
                let lower = e + (f - e) * du;
                *to = (upper + (lower - upper) * dv) as u8;
            }
        }
    }
}
