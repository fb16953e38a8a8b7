//! What is added around a picture whose face comes near its border: the picture mirrored, blurred the more the
//! farther out, and faded to the median colour.
//!
//! The sums have `SciPy`'s order (`gaussian_filter`, in `f64`, rounded to `f32` between its two directions) and the
//! rest `NumPy`'s, in `f32`, so that every byte is theirs. What has no weight in the result is not computed.

use super::geometry::Margin;

/// Lines that are blurred side by side.
const LANES: usize = 16;

/// Adds a margin to an image, `[height, width, channels]`; returns the new one, its width and its height.
///
/// Memory: 8 bytes a pixel of the result beside it, since channels are done in turn.
pub(crate) fn pad(
    pixels: &[u8],
    (width, height): (usize, usize),
    channels: usize,
    margin: &Margin,
) -> (Vec<u8>, usize, usize) {
    let [left, top, ..] = margin.pad.map(|pad| pad as usize);
    let frame = Frame::new((width, height), margin);
    let columns: Vec<usize> = (0..frame.width).map(|x| mirrored(x, left, width)).collect();
    let weights = gaussian(margin.sigma);
    let mut out = vec![0; channels * frame.width * frame.height];
    let mut plane = vec![0.0_f32; frame.width * frame.height];
    let mut blurred = plane.clone();
    for channel in 0..channels {
        for (y, to) in plane.chunks_exact_mut(frame.width).enumerate() {
            let row = &pixels[mirrored(y, top, height) * width * channels..][..width * channels];
            for (to, &x) in to.iter_mut().zip(&columns) {
                *to = row[x * channels + channel] as f32;
            }
        }
        frame.blur_down(&plane, &mut blurred, &weights);
        frame.blur_across(&blurred, &mut plane, &weights);
        let median = median(&plane);
        let rows =
            out.chunks_exact_mut(channels * frame.width).zip(plane.chunks_exact(frame.width));
        for (y, (to, row)) in rows.enumerate() {
            let to = to.iter_mut().skip(channel).step_by(channels);
            for (x, (to, &value)) in to.zip(row).enumerate() {
                let faded = value + (median - value) * frame.mask(x, y).clamp(0.0, 1.0);
                *to = faded.round_ties_even() as u8;
            }
        }
    }
    (out, frame.width, frame.height)
}

/// Where a pixel of a padded line comes from: back and forth, the pixels at the ends once.
fn mirrored(at: usize, pad: usize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let at = (at as i64 - pad as i64).rem_euclid(period as i64) as usize;
    at.min(period - at)
}

/// Half of a Gaussian filter that sums to 1, from its end to its middle; it is cut off at 4 deviations.
fn gaussian(sigma: f64) -> Vec<f64> {
    let radius = (4.0 * sigma + 0.5) as usize;
    let values = |i: usize| (-0.5 / (sigma * sigma) * (i * i) as f64).exp();
    let sum = 1.0 + 2.0 * (1..=radius).map(values).sum::<f64>();
    (0..=radius).rev().map(|i| values(i) / sum).collect()
}

/// The middle of all values, or the mean of the two in the middle. They are from 0 to 255.
fn median(values: &[f32]) -> f32 {
    // Counted by their whole part first; then only those with the middle's are put in order.
    let mut counts = [0_usize; 257];
    for &value in values {
        counts[value as usize] += 1;
    }
    let at = |rank: usize| {
        let (mut below, mut whole) = (0, 0);
        while below + counts[whole] <= rank {
            below += counts[whole];
            whole += 1;
        }
        let mut near: Vec<f32> =
            values.iter().copied().filter(|&value| value as usize == whole).collect();
        *near.select_nth_unstable_by(rank - below, f32::total_cmp).1
    };
    let upper = at(values.len() / 2);
    if values.len() % 2 == 1 { upper } else { f32::midpoint(at(values.len() / 2 - 1), upper) }
}

struct Frame<'a> {
    width: usize,
    height: usize,
    margin: &'a Margin,
    /// How far each column and row lies from its nearer side, in margins of that side.
    across: Vec<f32>,
    down: Vec<f32>,
}

impl<'a> Frame<'a> {
    fn new((width, height): (usize, usize), margin: &'a Margin) -> Self {
        let [left, top, right, bottom] = margin.pad;
        let depths = |before: u32, length: usize, behind: u32| -> Vec<f32> {
            let length = before as usize + length + behind as usize;
            let depth = |at: usize, pad: u32| at as f32 / pad as f32;
            (0..length).map(|at| depth(at, before).min(depth(length - 1 - at, behind))).collect()
        };
        let (across, down) = (depths(left, width, right), depths(top, height, bottom));
        Self { width: across.len(), height: down.len(), margin, across, down }
    }

    /// From 1 at the border to 0 where the picture begins, and on below 0.
    fn mask(&self, x: usize, y: usize) -> f32 {
        1.0 - self.across[x].min(self.down[y])
    }

    /// How far from the left, top, right and bottom anything is blurred.
    fn reach(&self) -> [usize; 4] {
        // Where the mask is above -1/3; a pixel more, for rounding.
        self.margin.pad.map(|pad| (pad as f64 * 4.0 / 3.0) as usize + 2)
    }

    /// The parts of a line of `length` within `head` of its begin and `tail` of its end.
    fn ends(length: usize, head: usize, tail: usize) -> [std::ops::Range<usize>; 2] {
        let head = head.min(length);
        [0..head, length.saturating_sub(tail).max(head)..length]
    }

    /// The first direction: every value that the second needs.
    fn blur_down(&self, from: &[f32], to: &mut [f32], weights: &[f64]) {
        let radius = weights.len() - 1;
        let [left, top, right, bottom] = self.reach();
        let mut line = vec![[0.0; LANES]; self.height + 2 * radius];
        for x in (0..self.width).step_by(LANES) {
            let lanes = LANES.min(self.width - x);
            for (y, to) in line.iter_mut().enumerate() {
                let row = &from[folded(y, radius, self.height) * self.width..][x..x + lanes];
                to.iter_mut().zip(row).for_each(|(to, &from)| *to = from as f64);
            }
            let at_a_side = x < left + radius || x + lanes + right + radius > self.width;
            let all = [0..self.height, 0..0];
            let ends = if at_a_side { all } else { Self::ends(self.height, top, bottom) };
            for y in ends.into_iter().flatten() {
                let sums = convolve(&line[y..=y + 2 * radius], weights);
                let row = &mut to[y * self.width..][x..x + lanes];
                row.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum as f32);
            }
        }
    }

    /// The second direction, blended into `plane` by the mask.
    fn blur_across(&self, from: &[f32], plane: &mut [f32], weights: &[f64]) {
        let radius = weights.len() - 1;
        let [left, top, right, bottom] = self.reach();
        let mut line = vec![[0.0; LANES]; self.width + 2 * radius];
        for y in (0..self.height).step_by(LANES) {
            let lanes = LANES.min(self.height - y);
            let at_an_end = y < top || y + lanes + bottom > self.height;
            let all = [0..self.width, 0..0];
            let ends = if at_an_end { all } else { Self::ends(self.width, left, right) };
            for lane in 0..lanes {
                let row = &from[(y + lane) * self.width..][..self.width];
                for (x, to) in line.iter_mut().enumerate() {
                    to[lane] = row[folded(x, radius, self.width)] as f64;
                }
            }
            for x in ends.into_iter().flatten() {
                let sums = convolve(&line[x..=x + 2 * radius], weights);
                for (lane, sum) in sums.into_iter().enumerate().take(lanes) {
                    let weight = (self.mask(x, y + lane) * 3.0 + 1.0).clamp(0.0, 1.0);
                    let value = &mut plane[(y + lane) * self.width + x];
                    *value += (sum as f32 - *value) * weight;
                }
            }
        }
    }
}

/// Where `SciPy` takes a value beyond the ends of a line: back and forth, the values at the ends twice.
fn folded(at: usize, radius: usize, length: usize) -> usize {
    let period = 2 * length;
    let at = (at as i64 - radius as i64).rem_euclid(period as i64) as usize;
    at.min(period - 1 - at)
}

/// The sum of a window under a symmetric filter: the middle, then pairs from the ends inwards.
fn convolve(window: &[[f64; LANES]], weights: &[f64]) -> [f64; LANES] {
    let radius = weights.len() - 1;
    let mut sums = window[radius].map(|value| value * weights[radius]);
    let (before, behind) = window.split_at(radius);
    for ((a, b), &weight) in before.iter().zip(behind.iter().rev()).zip(weights) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += (a + b) * weight;
        }
    }
    sums
}
