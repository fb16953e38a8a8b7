//! Layers of feature networks: convolution with what follows it, pooling. Channels first, forward only.
//!
//! candle's own convolution runs on every device; on the CPU it lays out the whole of its matrix in memory. Here a few
//! output rows at a time are laid out, and the sum of a layer goes straight into its place.

use candle_core::{Device, Result, Storage, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::weights::Weights;

/// Numbers of a laid out piece: it stays within the second-level cache.
const PIECE: usize = 1 << 16;

/// What follows a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Relu,
    Relu6,
}

/// Where a convolution looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) stride: usize,
    /// Rows above and below, columns left and right.
    pub(super) padding: (usize, usize),
    /// Each channel by itself.
    pub(super) depthwise: bool,
}

/// The plain one.
pub(super) const PLAIN: Geometry = Geometry { stride: 1, padding: (0, 0), depthwise: false };

/// A convolution with batch normalisation folded into it.
#[derive(Debug)]
pub(super) struct Conv {
    /// `[O, I, kh, kw]`, I = 1 where depthwise.
    weight: Tensor,
    /// `[O]`.
    bias: Tensor,
    geometry: Geometry,
    activation: Activation,
}

impl Conv {
    /// A convolution without bias and the batch normalisation after it, both from their tensors: `conv.weight`, and
    /// `norm.weight`, `bias`, `running_mean`, `running_var`.
    pub(super) fn normalised(
        weights: &mut Weights,
        (conv, norm): (&str, &str),
        shape: [usize; 4],
        epsilon: f64,
        (geometry, activation): (Geometry, Activation),
        device: &Device,
    ) -> crate::Result<Self> {
        let out = shape[0];
        let mut kernel = weights.take(&format!("{conv}.weight"), &shape)?;
        let mut of_norm = |part: &str| weights.take(&format!("{norm}.{part}"), &[out]);
        let (gamma, beta) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let mut bias = Vec::with_capacity(out);
        for (o, kernel) in kernel.chunks_exact_mut(shape[1] * shape[2] * shape[3]).enumerate() {
            let scale = f64::from(gamma[o]) / (f64::from(variance[o]) + epsilon).sqrt();
            for w in kernel {
                *w = (f64::from(*w) * scale) as f32;
            }
            bias.push((f64::from(beta[o]) - f64::from(mean[o]) * scale) as f32);
        }
        Ok(Self {
            weight: Tensor::from_vec(kernel, &shape, device)?,
            bias: Tensor::from_vec(bias, out, device)?,
            geometry,
            activation,
        })
    }

    /// A fully connected layer `[classes, features]` without its bias, as a convolution of single pixels.
    pub(super) fn dense(
        weights: &mut Weights,
        name: &str,
        [classes, features]: [usize; 2],
        device: &Device,
    ) -> crate::Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[classes, features])?;
        Ok(Self {
            weight: Tensor::from_vec(weight, (classes, features, 1, 1), device)?,
            bias: Tensor::zeros(classes, candle_core::DType::F32, device)?,
            geometry: PLAIN,
            activation: Activation::None,
        })
    }

    /// # Shapes
    /// `x`: `[N, I, H, W]`; returns `[N, O, H', W']`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() { self.on_cpu(x) } else { self.on_any(x) }
    }

    /// The same in candle's operations.
    fn on_any(&self, x: &Tensor) -> Result<Tensor> {
        let Geometry { stride, padding: (rows, columns), depthwise } = self.geometry;
        let groups = if depthwise { self.weight.dim(0)? } else { 1 };
        let mut x = x.clone();
        if rows > 0 {
            x = x.pad_with_zeros(2, rows, rows)?;
        }
        if columns > 0 {
            x = x.pad_with_zeros(3, columns, columns)?;
        }
        let y = x.contiguous()?.conv2d(&self.weight, 0, stride, 1, groups)?;
        let y = y.broadcast_add(&self.bias.reshape((1, (), 1, 1))?)?;
        match self.activation {
            Activation::None => Ok(y),
            Activation::Relu => y.relu(),
            Activation::Relu6 => y.clamp(0f32, 6f32),
        }
    }

    fn on_cpu(&self, x: &Tensor) -> Result<Tensor> {
        let (n, channels, h, w) = x.dims4()?;
        let (out, _, kh, kw) = self.weight.dims4()?;
        let Geometry { stride, padding: (rows, columns), depthwise } = self.geometry;
        let side = |size: usize, padding: usize, k: usize| (size + 2 * padding - k) / stride + 1;
        let (oh, ow) = (side(h, rows, kh), side(w, columns, kw));
        let window = Window { h, w, kh, kw, oh, ow, stride, rows, columns };
        let mut y = vec![0f32; n * out * oh * ow];
        read(x, |x| {
            read(&self.weight, |weight| {
                let images = x.chunks_exact(channels * h * w);
                for (image, y) in images.zip(y.chunks_exact_mut(out * oh * ow)) {
                    if depthwise {
                        window.depthwise(image, weight, y);
                    } else {
                        window.dense(image, weight, y);
                    }
                }
            })
        })??;
        read(&self.bias, |bias| {
            for y in y.chunks_exact_mut(out * oh * ow) {
                for (plane, &bias) in y.chunks_exact_mut(oh * ow).zip(bias) {
                    let (least, most) = match self.activation {
                        Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
                        Activation::Relu => (0.0, f32::INFINITY),
                        Activation::Relu6 => (0.0, 6.0),
                    };
                    for y in plane {
                        // NaN stays NaN.
                        *y = (*y + bias).clamp(least, most);
                    }
                }
            }
        })?;
        Tensor::from_vec(y, (n, out, oh, ow), &Device::Cpu)
    }
}

/// One convolution's sizes.
#[derive(Clone, Copy)]
struct Window {
    h: usize,
    w: usize,
    kh: usize,
    kw: usize,
    oh: usize,
    ow: usize,
    stride: usize,
    rows: usize,
    columns: usize,
}

impl Window {
    /// `y[O, oh ow] = weight[O, I kh kw] . columns[I kh kw, oh ow]`, some rows at a time.
    fn dense(self, image: &[f32], weight: &[f32], y: &mut [f32]) {
        let Self { h, w, kh, kw, oh, ow, stride, rows, columns } = self;
        let depth = image.len() / (h * w) * kh * kw;
        let pixels = oh * ow;
        let out = y.len() / pixels;
        let weight = MatRef::from_row_major_slice(weight, out, depth);
        let mut y = MatMut::from_row_major_slice_mut(y, out, pixels);
        if (kh, kw, stride, rows, columns) == (1, 1, 1, 0, 0) {
            let image = MatRef::from_row_major_slice(image, depth, pixels);
            matmul(y, Accum::Replace, weight, image, 1.0, Par::Seq);
            return;
        }
        let at_once = (PIECE / (depth * ow)).clamp(1, oh);
        let mut laid_out = vec![0f32; depth * at_once * ow];
        for from in (0..oh).step_by(at_once) {
            let to = (from + at_once).min(oh);
            let width = (to - from) * ow;
            let laid_out = &mut laid_out[..depth * width];
            for (k, row) in laid_out.chunks_exact_mut(width).enumerate() {
                let (plane, ky, kx) = (&image[k / (kh * kw) * h * w..], k / kw % kh, k % kw);
                for (oy, row) in (from..to).zip(row.chunks_exact_mut(ow)) {
                    self.shifted_row(plane, oy, ky, kx, row);
                }
            }
            let laid_out = MatRef::from_row_major_slice(laid_out, depth, width);
            let y = y.as_mut().subcols_mut(from * ow, width);
            matmul(y, Accum::Replace, weight, laid_out, 1.0, Par::Seq);
        }
    }

    /// What weight (ky, kx) meets along output row `oy`.
    fn shifted_row(self, plane: &[f32], oy: usize, ky: usize, kx: usize, row: &mut [f32]) {
        let Self { h, w, stride, rows, columns, .. } = self;
        let Some(iy) = (oy * stride + ky).checked_sub(rows).filter(|&iy| iy < h) else {
            row.fill(0.0);
            return;
        };
        let line = &plane[iy * w..][..w];
        if stride == 1 {
            // Output x meets input x + kx - columns.
            let first = columns.saturating_sub(kx).min(row.len());
            let last = (w + columns).saturating_sub(kx).clamp(first, row.len());
            row[..first].fill(0.0);
            row[last..].fill(0.0);
            if first < last {
                row[first..last].copy_from_slice(&line[first + kx - columns..][..last - first]);
            }
        } else {
            for (ox, value) in row.iter_mut().enumerate() {
                let ix = (ox * stride + kx).checked_sub(columns);
                *value = ix.and_then(|ix| line.get(ix)).copied().unwrap_or(0.0);
            }
        }
    }

    fn depthwise(self, image: &[f32], weight: &[f32], y: &mut [f32]) {
        let Self { h, w, kh, kw, oh, ow, .. } = self;
        let mut row = vec![0f32; ow];
        let planes = image.chunks_exact(h * w).zip(weight.chunks_exact(kh * kw));
        for ((plane, weight), y) in planes.zip(y.chunks_exact_mut(oh * ow)) {
            for (oy, y) in y.chunks_exact_mut(ow).enumerate() {
                for (k, &weight) in weight.iter().enumerate() {
                    self.shifted_row(plane, oy, k / kw, k % kw, &mut row);
                    y.iter_mut().zip(&row).for_each(|(y, x)| *y += weight * x);
                }
            }
        }
    }
}

/// The mean over 3x3 pixels around each pixel; `padded` says whether those beyond the border count as zeros.
pub(super) fn mean3x3(x: &Tensor, padded: bool) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let sum = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.contiguous()?;
    let mean = sum.avg_pool2d_with_stride(3, 1)?;
    if padded {
        return Ok(mean);
    }
    let inside = |size: usize| {
        move |i: usize| 3.0 - f32::from(u8::from(i == 0)) - f32::from(u8::from(i + 1 == size))
    };
    let factors = (0..h * w).map(|p| 9.0 / (inside(h)(p / w) * inside(w)(p % w)));
    mean.broadcast_mul(&Tensor::from_iter(factors, x.device())?.reshape((1, 1, h, w))?)
}

/// The largest of 3x3 pixels around each pixel that is not negative.
pub(super) fn max3x3(x: &Tensor) -> Result<Tensor> {
    x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.contiguous()?.max_pool2d_with_stride(3, 1)
}

/// The largest of 3x3 pixels at every second pixel, within the image.
pub(super) fn max3x3_halved(x: &Tensor) -> Result<Tensor> {
    x.max_pool2d_with_stride(3, 2)
}

/// Calls `f` with the numbers of a CPU tensor in row-major order.
fn read<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a CPU tensor is needed here")
    };
    let (from, to) = layout.contiguous_offsets().expect("made contiguous above");
    Ok(f(&storage.as_slice::<f32>()?[from..to]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.73 + seed).sin()).collect()
    }

    /// Our convolution beside candle's.
    #[test]
    fn both_ways_agree() {
        let cases = [
            ([5, 3, 3, 3], 1, (1, 1), false),
            ([5, 3, 3, 3], 2, (0, 0), false),
            ([4, 2, 1, 7], 1, (0, 3), false),
            ([4, 2, 7, 1], 1, (3, 0), false),
            ([6, 2, 5, 5], 1, (2, 2), false),
            ([6, 4, 1, 1], 1, (0, 0), false),
            ([6, 1, 3, 3], 1, (1, 1), true),
            ([6, 1, 3, 3], 2, (1, 1), true),
            ([2, 150, 3, 3], 1, (1, 1), false), // in several pieces
        ];
        for (i, (shape, stride, padding, depthwise)) in cases.into_iter().enumerate() {
            let channels = if depthwise { shape[0] } else { shape[1] };
            let (h, w) = (9 + i, 12);
            let weight = Tensor::from_vec(wave(shape.iter().product(), 0.3), &shape, &Device::Cpu);
            let activation = [Activation::None, Activation::Relu, Activation::Relu6][i % 3];
            let conv = Conv {
                weight: weight.unwrap(),
                bias: Tensor::from_vec(wave(shape[0], 0.9), shape[0], &Device::Cpu).unwrap(),
                geometry: Geometry { stride, padding, depthwise },
                activation,
            };
            let x = Tensor::from_vec(
                wave(2 * channels * h * w, 0.1),
                (2, channels, h, w),
                &Device::Cpu,
            );
            let x = x.unwrap();
            let (ours, theirs) = (conv.forward(&x).unwrap(), conv.on_any(&x).unwrap());
            assert_eq!(ours.dims(), theirs.dims(), "{i}");
            let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-4, "{i}: {off}");
        }
    }

    #[test]
    fn means_count_the_border_or_not() {
        let x = Tensor::ones((1, 1, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let flat = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(flat(mean3x3(&x, false).unwrap()).iter().all(|v| (v - 1.0).abs() < 1e-6));
        let padded = flat(mean3x3(&x, true).unwrap());
        assert!((padded[0] - 4.0 / 9.0).abs() < 1e-6 && (padded[4] - 1.0).abs() < 1e-6);
    }
}
