//! Convolution in candle's own primitives: any device, any precision.
//!
//! candle's backward passes are not used (its convolution's is slow, its nearest-neighbour upsampling's wrong
//! where the input has another consumer): the input gradient is a forward convolution with the flipped and
//! transposed weights, the weight gradient one matrix product over shifted views.

use candle_core::{Result, Tensor};

use super::Resample;
use crate::resample::{mean2x2, mean2x2_grad, up2, up2_grad};

pub(super) fn forward(x: &Tensor, w: &Tensor, resample: Resample) -> Result<Tensor> {
    match resample {
        Resample::Same => conv(x, w),
        Resample::Up => conv(&up2(x)?, w),
        Resample::Down => mean2x2(&conv(x, w)?),
    }
}

pub(super) fn input_grad(dy: &Tensor, w: &Tensor, resample: Resample) -> Result<Tensor> {
    let w = w.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?; // [i, o, k, k]
    match resample {
        Resample::Same => conv(dy, &w),
        Resample::Up => up2_grad(&conv(dy, &w)?),
        Resample::Down => conv(&mean2x2_grad(dy)?, &w),
    }
}

pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, k: usize, resample: Resample) -> Result<Tensor> {
    let (x, dy) = match resample {
        Resample::Same => (x.clone(), dy.clone()),
        Resample::Up => (up2(x)?, dy.clone()),
        Resample::Down => (x.clone(), mean2x2_grad(dy)?),
    };
    let (n, h, w, i) = x.dims4()?;
    let o = dy.dim(3)?;
    let p = k / 2;
    let padded = x.pad_with_zeros(1, p, p)?.pad_with_zeros(2, p, p)?;
    let mut taps = Vec::with_capacity(k * k);
    for ky in 0..k {
        for kx in 0..k {
            taps.push(padded.narrow(1, ky, h)?.narrow(2, kx, w)?);
        }
    }
    let taps = Tensor::cat(&taps, 3)?.reshape((n * h * w, k * k * i))?;
    let dy = dy.contiguous()?.reshape((n * h * w, o))?;
    let dw = dy.t()?.contiguous()?.matmul(&taps)?; // [o, k*k*i]
    dw.reshape((o, k, k, i))?.permute((0, 3, 1, 2))?.contiguous()
}

/// `x`: `[N, H, W, I]`, `w`: `[O, I, k, k]`, zero padding k/2.
fn conv(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let padding = w.dim(2)? / 2;
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    x.conv2d(&w.contiguous()?, padding, 1, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
}
