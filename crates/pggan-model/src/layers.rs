use candle_core::{Result, Tensor};
use pggan_ops::conv::{Kernel, Resample};
use pggan_ops::{activation, mix};
use tracing::trace_span;

use crate::params::{Builder, Grads, ParamId, Params};

/// What follows convolution and bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activation {
    Linear,
    LeakyRelu,
    /// Leaky ReLU, then pixel norm with this epsilon (paper §4.2).
    LeakyReluPixelNorm(f64),
}

/// A layer's output, and what its gradient needs besides.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) y: Tensor,
    factor: Option<Tensor>,
}

/// Convolution with the equalized learning rate, bias, activation.
///
/// Each pass runs in a span of `tracing`, named after the pass and with the layer as its field, so that a
/// subscriber can tell where the time goes; without one a span costs a load.
///
/// The stored weight is of unit variance and is multiplied by `gain / sqrt(fan_in)` whenever the layer runs, so
/// that Adam's steps have the same effect in every layer (paper §4.1). The bias is not scaled.
#[derive(Debug)]
pub(crate) struct Layer {
    name: String,
    weight: ParamId,
    bias: ParamId,
    scale: f64,
    resample: Resample,
    activation: Activation,
}

/// The shape of a [`Layer`]'s weight.
pub(crate) struct Shape {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// 3 or 1; 0 makes a dense layer, of which the weight is stored as `[out, in]`.
    pub(crate) size: usize,
    /// The bias has one value for so many outputs.
    pub(crate) outputs_per_bias: usize,
}

impl Shape {
    pub(crate) fn conv(inputs: usize, outputs: usize, size: usize) -> Self {
        Self { inputs, outputs, size, outputs_per_bias: 1 }
    }

    pub(crate) fn dense(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, size: 0, outputs_per_bias: 1 }
    }
}

impl Layer {
    pub(crate) fn new(
        params: &mut Builder<'_>,
        name: &str,
        shape: &Shape,
        gain: f64,
        resample: Resample,
        activation: Activation,
    ) -> Result<Self> {
        let Shape { inputs, outputs, size, outputs_per_bias } = *shape;
        let area = (size * size).max(1);
        let weight = if size == 0 {
            params.weight(name, &[outputs, inputs])?
        } else {
            params.weight(name, &[outputs, inputs, size, size])?
        };
        let bias = params.bias(name, outputs / outputs_per_bias)?;
        let scale = gain / ((area * inputs) as f64).sqrt();
        Ok(Self { name: name.to_owned(), weight, bias, scale, resample, activation })
    }

    pub(crate) fn forward(&self, params: &Params, x: &Tensor) -> Result<Output> {
        self.activate(params, self.linear(params, x)?)
    }

    /// The convolution alone, without bias.
    pub(crate) fn linear(&self, params: &Params, x: &Tensor) -> Result<Tensor> {
        let _time = trace_span!("forward", layer = self.name).entered();
        self.kernel(params)?.forward(x)
    }

    /// Bias and activation.
    pub(crate) fn activate(&self, params: &Params, x: Tensor) -> Result<Output> {
        self.activate_with(params.value(self.bias), x)
    }

    fn activate_with(&self, bias: &Tensor, x: Tensor) -> Result<Output> {
        let _time = trace_span!("activation", layer = self.name).entered();
        match self.activation {
            Activation::Linear => Ok(Output { y: activation::add_bias(x, bias)?, factor: None }),
            Activation::LeakyRelu => {
                Ok(Output { y: activation::bias_lrelu(x, bias)?, factor: None })
            }
            Activation::LeakyReluPixelNorm(epsilon) => {
                let (y, factor) = activation::bias_lrelu_pixel_norm(x, bias, epsilon)?;
                Ok(Output { y, factor: Some(factor) })
            }
        }
    }

    /// The bias alone.
    pub(crate) fn add_bias(&self, params: &Params, x: Tensor) -> Result<Tensor> {
        activation::add_bias(x, params.value(self.bias))
    }

    /// The activation of what has its bias.
    pub(crate) fn activate_biased(&self, x: Tensor) -> Result<Output> {
        let channels = x.dim(x.rank() - 1)?;
        let none = Tensor::zeros(channels, x.dtype(), x.device())?;
        self.activate_with(&none, x)
    }

    /// From the gradient of the output to that of the sum of convolution and bias.
    pub(crate) fn unactivate(&self, dy: &Tensor, out: &Output) -> Result<Tensor> {
        let Some(factor) = &out.factor else { return self.unactivate_plain(dy, &out.y) };
        let _time = trace_span!("activation", layer = self.name).entered();
        activation::lrelu_pixel_norm_grad(dy, &out.y, factor)
    }

    /// [`Layer::unactivate`] where no pixel norm is.
    pub(crate) fn unactivate_plain(&self, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
        let _time = trace_span!("activation", layer = self.name).entered();
        match self.activation {
            Activation::Linear => Ok(dy.clone()),
            _ => activation::lrelu_grad(dy, y),
        }
    }

    /// The tangent of the layer's output, where no pixel norm is, as its input moves along `x`.
    pub(crate) fn tangent(&self, params: &Params, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let x = self.linear(params, x)?;
        let _time = trace_span!("activation", layer = self.name).entered();
        match self.activation {
            Activation::Linear => Ok(x),
            _ => activation::lrelu_grad_in_place(x, y),
        }
    }

    pub(crate) fn input_grad(&self, params: &Params, delta: &Tensor) -> Result<Tensor> {
        let _time = trace_span!("input grad", layer = self.name).entered();
        self.kernel(params)?.input_grad(delta)
    }

    pub(crate) fn bias_grad(&self, delta: &Tensor, grads: &mut Grads) -> Result<()> {
        let _time = trace_span!("bias grad", layer = self.name).entered();
        grads.accumulate(self.bias, |sum| {
            let gradient = activation::bias_grad(delta)?;
            sum.map_or(Ok(gradient.clone()), |sum| mix::add(sum, &gradient))
        })
    }

    pub(crate) fn weight_grad(
        &self,
        params: &Params,
        x: &Tensor,
        delta: &Tensor,
        grads: &mut Grads,
    ) -> Result<()> {
        let _time = trace_span!("weight grad", layer = self.name).entered();
        let kernel = self.kernel(params)?;
        grads.accumulate(self.weight, |sum| match sum {
            Some(sum) => kernel.add_weight_grad(x, delta, sum),
            None => kernel.weight_grad(x, delta)?.reshape(params.value(self.weight).shape()),
        })
    }

    /// Frees what the engine keeps beside the weight.
    pub(crate) fn release(&self, params: &Params) {
        if let Ok(kernel) = self.kernel(params) {
            kernel.release();
        }
    }

    fn kernel<'a>(&self, params: &'a Params) -> Result<&'a Kernel> {
        params.kernel(self.weight, self.scale, self.resample)
    }
}
