//! Nearest-neighbour doubling and 2x2 means, and their gradients.

use candle_core::{Result, Tensor};

use crate::cells::fill;
use crate::slices;

/// Doubles height and width by repeating pixels.
///
/// # Shapes
/// `[N, H, W, C]` to `[N, 2H, 2W, C]`.
pub fn up2(x: &Tensor) -> Result<Tensor> {
    spread(x, 1.0)
}

/// The gradient of [`up2`]: sums over 2x2 pixels.
///
/// # Shapes
/// `[N, 2H, 2W, C]` to `[N, H, W, C]`.
pub fn up2_grad(dy: &Tensor) -> Result<Tensor> {
    gather(dy, 1.0)
}

/// Halves height and width by means over 2x2 pixels.
///
/// # Shapes
/// `[N, H, W, C]` to `[N, H/2, W/2, C]`; H and W are even.
pub fn mean2x2(x: &Tensor) -> Result<Tensor> {
    gather(x, 0.25)
}

/// The gradient of [`mean2x2`].
///
/// # Shapes
/// `[N, H/2, W/2, C]` to `[N, H, W, C]`.
pub fn mean2x2_grad(dy: &Tensor) -> Result<Tensor> {
    spread(dy, 0.25)
}

/// Each pixel, times `factor`, into 2x2 pixels.
fn spread(x: &Tensor, factor: f32) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    if !slices::is_fast(x) {
        let y = x.reshape((n, h, 1, w, 1, c))?.broadcast_as((n, h, 2, w, 2, c))?;
        let y = y.contiguous()?.reshape((n, 2 * h, 2 * w, c))?;
        return if factor == 1.0 { Ok(y) } else { y * f64::from(factor) };
    }
    let y = slices::read(x, |x| {
        // One row of x makes two rows of y.
        fill(n * h, 4 * w * c, |first, y| {
            let rows = x[first * w * c..].chunks_exact((w * c).max(1));
            for (y, x) in y.chunks_exact_mut((4 * w * c).max(1)).zip(rows) {
                let (top, bottom) = y.split_at_mut(2 * w * c);
                for (y, x) in top.chunks_exact_mut(2 * c).zip(x.chunks_exact(c)) {
                    let (left, right) = y.split_at_mut(c);
                    for ((l, r), x) in left.iter_mut().zip(right).zip(x) {
                        *l = x * factor;
                        *r = x * factor;
                    }
                }
                bottom.copy_from_slice(top);
            }
        })
    })?;
    slices::tensor(y, &[n, 2 * h, 2 * w, c])
}

/// The sum of 2x2 pixels, times `factor`.
fn gather(x: &Tensor, factor: f32) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    if !(h.is_multiple_of(2) && w.is_multiple_of(2)) {
        candle_core::bail!("{h}x{w} pixels cannot be halved");
    }
    let (h, w) = (h / 2, w / 2);
    if !slices::is_fast(x) {
        let y = x.reshape((n, h, 2, w, 2, c))?.sum(4)?.sum(2)?;
        return if factor == 1.0 { Ok(y) } else { y * f64::from(factor) };
    }
    let y = slices::read(x, |x| {
        fill(n * h, w * c, |first, y| {
            let rows = x[4 * first * w * c..].chunks_exact((4 * w * c).max(1));
            for (y, x) in y.chunks_exact_mut((w * c).max(1)).zip(rows) {
                let (top, bottom) = x.split_at(2 * w * c);
                let pairs = top.chunks_exact(2 * c).zip(bottom.chunks_exact(2 * c));
                for (y, (top, bottom)) in y.chunks_exact_mut(c).zip(pairs) {
                    for (i, y) in y.iter_mut().enumerate() {
                        *y = ((top[i] + top[c + i]) + (bottom[i] + bottom[c + i])) * factor;
                    }
                }
            }
        })
    })?;
    slices::tensor(y, &[n, h, w, c])
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn doubling_and_halving_agree_on_both_paths() -> Result<()> {
        for (n, h, w, c) in [(1, 2, 2, 1), (2, 4, 6, 3), (3, 8, 2, 17)] {
            let count = n * h * w * c;
            let x = Tensor::from_iter((0..count).map(|i| (i * 37 % 101) as f64), &Device::Cpu)?;
            let x = x.reshape((n, h, w, c))?;
            let fast = x.to_dtype(DType::F32)?;
            for f in [up2, up2_grad, mean2x2, mean2x2_grad] {
                let (a, b) = (f(&x)?, f(&fast)?.to_dtype(DType::F64)?);
                assert_eq!(a.dims(), b.dims());
                let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
                assert!(worst < 1e-4, "{worst}");
            }
            let round_trip = mean2x2(&up2(&x)?)?;
            assert_eq!(round_trip.to_string(), x.to_string());
        }
        Ok(())
    }
}
