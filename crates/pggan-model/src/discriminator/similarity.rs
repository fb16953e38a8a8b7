//! Minibatch discrimination (Salimans et al. 2016), as in row (e*) of the paper's Table 1: to a sample's numbers it appends, for
//! each of its kernels, how many samples of the minibatch are like it.

use candle_core::{Tensor, bail};
use pggan_ops::conv::{Kernel, Resample};
use pggan_ops::similarity::{self, Kernels};
use pggan_ops::{activation, mix};

use crate::config::KERNEL_SIZE;
use crate::error::Result;
use crate::params::{Builder, Grads, ParamId, Params};

/// Begins as the code of Salimans et al.: directions from N(0, 0.05²), scales of e⁰, biases of −1; see
/// [`Similarity::calibrated`].
#[derive(Debug)]
pub(super) struct Similarity {
    inputs: usize,
    kernels: usize,
    directions: ParamId, // [kernels * 5, inputs]; only where they point matters
    log_scales: ParamId, // [kernels * 5]
    biases: ParamId,     // [kernels]
}

/// The weights that follow from the parameters: each direction divided by its length and multiplied by e to its scale.
struct Weights {
    kernel: Kernel,
    value: Tensor,  // [kernels * 5, inputs]
    unit: Tensor,   // the same, of length 1
    factor: Tensor, // value / direction, [kernels * 5, 1]
}

impl Similarity {
    pub(super) fn new(
        params: &mut Builder<'_>,
        name: &str,
        inputs: usize,
        kernels: usize,
    ) -> Result<Self> {
        let rows = kernels * KERNEL_SIZE;
        Ok(Self {
            inputs,
            kernels,
            directions: params.plain_weight(name, &[rows, inputs], 0.05)?,
            log_scales: params.constant(name, "log_scale", &[rows], 0.0)?,
            biases: params.constant(name, "bias", &[kernels], -1.0)?,
        })
    }

    /// # Shapes
    /// `x`: `[N, 1, 1, inputs]`; returns `[N, 1, 1, inputs + kernels]`.
    pub(super) fn forward(&self, params: &Params, x: &Tensor, parts: usize) -> Result<Tensor> {
        let seen = self.weights(params)?.seen(x)?;
        let near = similarity::forward(&seen, self.count(parts))?;
        self.append(x, &activation::add_bias(near, params.value(self.biases))?)
    }

    pub(super) fn backward(
        &self,
        params: &Params,
        x: &Tensor,
        dy: &Tensor,
        parts: usize,
        grads: Option<&mut Grads>,
    ) -> Result<Tensor> {
        let weights = self.weights(params)?;
        let (past, near) = self.split(dy)?;
        let seen = similarity::backward(&weights.seen(x)?, &near, self.count(parts))?;
        let seen = pixels(&seen)?;
        if let Some(grads) = grads {
            grads.add(self.biases, activation::bias_grad(&near)?)?;
            self.learn(params, &weights, &weights.kernel.weight_grad(x, &seen)?, grads)?;
        }
        mix::add(weights.kernel.input_grad(&seen)?, &past)
    }

    pub(super) fn tangent(
        &self,
        params: &Params,
        x: &Tensor,
        dx: &Tensor,
        parts: usize,
    ) -> Result<Tensor> {
        let weights = self.weights(params)?;
        let (at, along) = (weights.seen(x)?, weights.seen(dx)?);
        self.append(dx, &similarity::tangent(&at, &along, self.count(parts))?)
    }

    pub(super) fn curvature(
        &self,
        params: &Params,
        x: &Tensor,
        (dx, dy): (&Tensor, &Tensor),
        parts: usize,
        grads: &mut Grads,
    ) -> Result<Tensor> {
        let weights = self.weights(params)?;
        let (at, along) = (weights.seen(x)?, weights.seen(dx)?);
        let (_, near) = self.split(dy)?;
        // The weights stand between the sample and what is seen of it, and between the two tangents.
        let kernels = self.count(parts);
        let of_seen = pixels(&similarity::curvature(&at, &along, &near, kernels)?)?;
        let of_tangent = pixels(&similarity::backward(&at, &near, kernels)?)?;
        let gradient = weights.kernel.weight_grad(x, &of_seen)?;
        let gradient = weights.kernel.add_weight_grad(dx, &of_tangent, gradient)?;
        self.learn(params, &weights, &gradient, grads)?;
        weights.kernel.input_grad(&of_seen)
    }

    /// Scales and biases for samples like these: twice the mean distance to the nearest other one becomes the unit, and on
    /// average nothing is appended. The official code begins so, with 500 real images.
    pub(super) fn calibrated(&self, params: &Params, x: &Tensor) -> Result<[(ParamId, Tensor); 2]> {
        let mut seen = self.weights(params)?.seen(x)?;
        let kernels = self.count(1);
        let nearest = similarity::nearest(&seen, kernels)?;
        if nearest.iter().any(|distance| !(distance.is_finite() && *distance > 0.0)) {
            bail!("minibatch discrimination cannot begin with images that are all alike");
        }
        let units: Vec<f64> =
            nearest.iter().flat_map(|distance| [0.5 * distance; KERNEL_SIZE]).collect();
        let units = Tensor::new(units, x.device())?.to_dtype(x.dtype())?;
        seen = seen.broadcast_div(&units)?;
        let mean = similarity::forward(&seen, kernels)?.mean(0)?;
        let log_scales = (params.value(self.log_scales) - units.log()?)?;
        Ok([(self.log_scales, log_scales), (self.biases, mean.neg()?)])
    }

    fn weights(&self, params: &Params) -> Result<Weights> {
        let directions = params.value(self.directions);
        let length = directions.sqr()?.sum_keepdim(1)?.sqrt()?;
        let scale = params.value(self.log_scales).exp()?.reshape(length.dims())?;
        let unit = directions.broadcast_div(&length)?;
        let value = unit.broadcast_mul(&scale)?;
        let (rows, inputs) = value.dims2()?;
        let kernel = Kernel::new(&value.reshape((rows, inputs, 1, 1))?, 1.0, Resample::Same)?;
        Ok(Weights { kernel, value, unit, factor: (scale / length)? })
    }

    /// From the gradient of the weights to those of the parameters.
    fn learn(
        &self,
        params: &Params,
        weights: &Weights,
        gradient: &Tensor,
        grads: &mut Grads,
    ) -> Result<()> {
        let gradient = gradient.reshape(params.value(self.directions).dims())?;
        grads.add(self.log_scales, (&gradient * &weights.value)?.sum(1)?)?;
        let along = (&gradient * &weights.unit)?.sum_keepdim(1)?;
        let across = (gradient - weights.unit.broadcast_mul(&along)?)?;
        grads.add(self.directions, across.broadcast_mul(&weights.factor)?)
    }

    fn count(&self, parts: usize) -> Kernels {
        Kernels { count: self.kernels, size: KERNEL_SIZE, parts }
    }

    fn append(&self, x: &Tensor, near: &Tensor) -> Result<Tensor> {
        let n = x.dim(0)?;
        Tensor::cat(&[x, &near.reshape((n, 1, 1, self.kernels))?], 3)
    }

    /// The gradients of what passes through, `[N, 1, 1, inputs]`, and of what is appended, `[N, kernels]`.
    fn split(&self, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        let past = dy.narrow(3, 0, self.inputs)?.contiguous()?;
        let near = dy.narrow(3, self.inputs, self.kernels)?.contiguous()?;
        Ok((past, near.flatten_from(1)?))
    }
}

impl Weights {
    /// What the kernels see of samples, `[N, kernels * 5]`.
    fn seen(&self, x: &Tensor) -> Result<Tensor> {
        self.kernel.forward(x)?.flatten_from(1)
    }
}

/// Rows as samples of one pixel.
fn pixels(rows: &Tensor) -> Result<Tensor> {
    rows.reshape((rows.dim(0)?, 1, 1, ()))
}
