//! Real images on their way into the discriminator.

use crate::pool;

/// Turns stored pixels into what the discriminator sees: `[-1, 1]`, channels last, faded like the networks.
///
/// The fade blends an image with itself at half the resolution, in float and after the change of range, as the
/// official code does: `lerp(up2(mean2x2(x)), x, alpha)`; `alpha` is the weight of the full resolution.
///
/// # Shapes
/// `pixels`: `[N, C, R, R]` in 0…255; returns `[N, R, R, C]` in [-1, 1].
pub fn normalize(pixels: &[u8], channels: usize, resolution: usize, alpha: f64) -> Vec<f32> {
    let (c, r) = (channels, resolution);
    let image = c * r * r;
    let alpha = alpha as f32;
    let mut out = vec![0f32; pixels.len()];
    pool::for_each_of(out.chunks_mut(image).zip(pixels.chunks(image)), |(out, pixels)| {
        for (k, plane) in pixels.chunks_exact(r * r).enumerate() {
            for (out, p) in out.chunks_exact_mut(c).zip(plane) {
                out[k] = f32::from(*p) * (2.0 / 255.0) - 1.0;
            }
        }
        if alpha < 1.0 {
            for y in (0..r).step_by(2) {
                for x in (0..r).step_by(2) {
                    for k in 0..c {
                        let at = |dy, dx| ((y + dy) * r + x + dx) * c + k;
                        let four = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
                        let mean = 0.25 * four.iter().map(|&i| out[i]).sum::<f32>();
                        for i in four {
                            out[i] = mean + (out[i] - mean) * alpha;
                        }
                    }
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_layout_and_fade() {
        // One 2x2 image with two channels.
        let pixels = [0, 255, 0, 255, 51, 51, 51, 51];
        let plain = normalize(&pixels, 2, 2, 1.0);
        assert_eq!(plain[0], -1.0);
        assert_eq!(plain[2], 1.0);
        assert!((plain[1] + 0.6).abs() < 1e-6);
        let half = normalize(&pixels, 2, 2, 0.5);
        assert!((half[0] + 0.5).abs() < 1e-6 && (half[2] - 0.5).abs() < 1e-6);
        let old = normalize(&pixels, 2, 2, 0.0);
        assert!(old[0].abs() < 1e-6 && old[2].abs() < 1e-6);
    }
}
