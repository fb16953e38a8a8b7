use candle_core::{Result, Tensor, bail};
use pggan_ops::conv::{Finish, Kernel, Resample};
use pggan_ops::{activation, gain, mix, pixel_norm};
use tracing::trace_span;

use crate::params::{Builder, Grads, ParamId, Params};

/// Added under the root by layer norm and batch norm (the official code's, and Lasagne's default).
pub(crate) const NORM_EPSILON: f64 = 1e-4;

/// What follows a layer's linear part and its bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nonlinearity {
    None,
    /// Leaky ReLU of this slope below zero; 0 makes it ReLU.
    Relu(f64),
    /// The same, then pixel norm (paper §4.2).
    ReluPixelNorm {
        slope: f64,
        epsilon: f64,
    },
}

/// A layer's output, and what its gradient needs besides.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) y: Tensor,
    factor: Option<Tensor>,
}

/// A linear map, bias, activation.
///
/// Each pass runs in a span of `tracing`, named after the pass and with the layer as its field, so that a
/// subscriber can tell where the time goes; without one a span costs a load.
#[derive(Debug)]
pub(crate) struct Layer {
    name: String,
    map: Map,
    bias: Option<ParamId>,
    nonlinearity: Nonlinearity,
}

#[derive(Debug)]
enum Map {
    /// Convolution, with the equalized learning rate: the stored weight is of unit variance and is multiplied by
    /// `scale = gain / sqrt(fan_in)` whenever the layer runs, so that Adam's steps have the same effect in every layer (paper
    /// §4.1). The bias is not scaled. Without the equalized learning rate `scale` is 1.
    Convolution { weight: ParamId, scale: f64, resample: Resample },
    /// A gain for each channel, or one for all: what remains of a layer behind its normalization.
    Gain(ParamId),
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
        nonlinearity: Nonlinearity,
    ) -> Result<Self> {
        let map = Map::convolution(params, name, shape, gain, resample)?;
        let biases = [shape.outputs / shape.outputs_per_bias];
        let bias = Some(params.constant(name, "bias", &biases, 0.0)?);
        Ok(Self { name: name.to_owned(), map, bias, nonlinearity })
    }

    /// A layer in two parts, between which a normalization is to run: the convolution, then `gains` gains, the bias and the
    /// activation.
    pub(crate) fn around_norm(
        params: &mut Builder<'_>,
        name: &str,
        shape: &Shape,
        (gain, gains): (f64, usize),
        resample: Resample,
        nonlinearity: Nonlinearity,
    ) -> Result<(Self, Self)> {
        let map = Map::convolution(params, name, shape, gain, resample)?;
        let layer =
            Self { name: name.to_owned(), map, bias: None, nonlinearity: Nonlinearity::None };
        let map = Map::Gain(params.constant(name, "gain", &[gains], 1.0)?);
        let biases = [shape.outputs / shape.outputs_per_bias];
        let bias = Some(params.constant(name, "bias", &biases, 0.0)?);
        Ok((layer, Self { name: name.to_owned(), map, bias, nonlinearity }))
    }

    pub(crate) fn forward(&self, params: &Params, x: &Tensor) -> Result<Output> {
        let slope = match self.nonlinearity {
            Nonlinearity::None => 1.0,
            Nonlinearity::Relu(slope) => slope,
            Nonlinearity::ReluPixelNorm { .. } => {
                return self.activate(params, self.linear(params, x)?);
            }
        };
        let (Map::Convolution { .. }, Some(bias)) = (&self.map, self.bias) else {
            return self.activate(params, self.linear(params, x)?);
        };
        let _time = trace_span!("forward", layer = self.name).entered();
        let finish = Finish::Activate { bias: params.value(bias), slope };
        Ok(Output { y: self.kernel(params)?.forward_then(x, finish)?, factor: None })
    }

    /// The linear map alone, without bias.
    pub(crate) fn linear(&self, params: &Params, x: &Tensor) -> Result<Tensor> {
        let _time = trace_span!("forward", layer = self.name).entered();
        match self.map {
            Map::Gain(id) => gain::forward(x, params.value(id)),
            Map::Convolution { .. } => self.kernel(params)?.forward(x),
        }
    }

    /// Bias and activation.
    pub(crate) fn activate(&self, params: &Params, x: Tensor) -> Result<Output> {
        match self.bias {
            Some(bias) => self.activate_with(params.value(bias), x),
            None => Ok(Output { y: x, factor: None }), // the first part of a layer around its norm
        }
    }

    fn activate_with(&self, bias: &Tensor, x: Tensor) -> Result<Output> {
        let _time = trace_span!("activation", layer = self.name).entered();
        match self.nonlinearity {
            Nonlinearity::None => Ok(Output { y: activation::add_bias(x, bias)?, factor: None }),
            Nonlinearity::Relu(slope) => {
                Ok(Output { y: activation::bias_lrelu(x, bias, slope)?, factor: None })
            }
            Nonlinearity::ReluPixelNorm { slope, epsilon } => {
                let (y, factor) = pixel_norm::bias_lrelu_pixel_norm(x, bias, slope, epsilon)?;
                Ok(Output { y, factor: Some(factor) })
            }
        }
    }

    /// The bias alone.
    pub(crate) fn add_bias(&self, params: &Params, x: Tensor) -> Result<Tensor> {
        match self.bias {
            Some(bias) => activation::add_bias(x, params.value(bias)),
            None => Ok(x),
        }
    }

    /// The activation of what has its bias.
    pub(crate) fn activate_biased(&self, x: Tensor) -> Result<Output> {
        let channels = x.dim(x.rank() - 1)?;
        let none = Tensor::zeros(channels, x.dtype(), x.device())?;
        self.activate_with(&none, x)
    }

    fn slope(&self) -> Option<f64> {
        match self.nonlinearity {
            Nonlinearity::None => None,
            Nonlinearity::Relu(slope) | Nonlinearity::ReluPixelNorm { slope, .. } => Some(slope),
        }
    }

    /// From the gradient of the output to that of the sum of linear map and bias.
    pub(crate) fn unactivate(&self, dy: &Tensor, out: &Output) -> Result<Tensor> {
        let (Some(factor), Some(slope)) = (&out.factor, self.slope()) else {
            return self.unactivate_plain(dy, &out.y, 1.0);
        };
        let _time = trace_span!("activation", layer = self.name).entered();
        pixel_norm::lrelu_pixel_norm_grad(dy, &out.y, factor, slope)
    }

    /// [`Layer::unactivate`] where no pixel norm is, of an output that enters what `dy` is the gradient of with the weight
    /// `share`.
    pub(crate) fn unactivate_plain(&self, dy: &Tensor, y: &Tensor, share: f64) -> Result<Tensor> {
        let _time = trace_span!("activation", layer = self.name).entered();
        match self.slope() {
            Some(slope) => activation::lrelu_grad(dy, y, slope, share),
            None if share == 1.0 => Ok(dy.clone()),
            None => mix::scale(dy, share),
        }
    }

    /// [`Layer::unactivate_plain`] in the memory of `dy`, which nobody else may hold.
    pub(crate) fn unactivate_in_place(&self, dy: Tensor, y: &Tensor, share: f64) -> Result<Tensor> {
        let Some(slope) = self.slope() else { return self.unactivate_plain(&dy, y, share) };
        let _time = trace_span!("activation", layer = self.name).entered();
        activation::lrelu_grad_in_place(dy, y, slope, share)
    }

    /// The tangent of the layer's output, where no pixel norm is, as its input moves along `x`.
    pub(crate) fn tangent(&self, params: &Params, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let Some(slope) = self.slope() else { return self.linear(params, x) };
        match self.map {
            Map::Convolution { .. } => {
                let _time = trace_span!("forward", layer = self.name).entered();
                self.kernel(params)?.forward_then(x, Finish::Slopes { y, slope })
            }
            Map::Gain(_) => {
                let x = self.linear(params, x)?;
                let _time = trace_span!("activation", layer = self.name).entered();
                activation::lrelu_grad_in_place(x, y, slope, 1.0)
            }
        }
    }

    pub(crate) fn input_grad(&self, params: &Params, delta: &Tensor) -> Result<Tensor> {
        let _time = trace_span!("input grad", layer = self.name).entered();
        match self.map {
            Map::Gain(id) => gain::forward(delta, params.value(id)),
            Map::Convolution { .. } => self.kernel(params)?.input_grad(delta),
        }
    }

    /// [`Layer::input_grad`], and on through the activation of the layer `below`, which has no pixel norm and gave `y`.
    pub(crate) fn input_grad_through(
        &self,
        params: &Params,
        delta: &Tensor,
        (below, y): (&Layer, &Tensor),
    ) -> Result<Tensor> {
        let (Map::Convolution { .. }, Some(slope)) = (&self.map, below.slope()) else {
            return below.unactivate_plain(&self.input_grad(params, delta)?, y, 1.0);
        };
        let _time = trace_span!("input grad", layer = self.name).entered();
        self.kernel(params)?.input_grad_then(delta, Finish::Slopes { y, slope })
    }

    pub(crate) fn bias_grad(&self, delta: &Tensor, grads: &mut Grads) -> Result<()> {
        let Some(bias) = self.bias else { return Ok(()) };
        let _time = trace_span!("bias grad", layer = self.name).entered();
        grads.add(bias, activation::bias_grad(delta)?)
    }

    /// The gradient of the linear map's own parameter.
    pub(crate) fn weight_grad(
        &self,
        params: &Params,
        x: &Tensor,
        delta: &Tensor,
        grads: &mut Grads,
    ) -> Result<()> {
        let _time = trace_span!("weight grad", layer = self.name).entered();
        match self.map {
            Map::Gain(id) => {
                let gains = params.value(id).elem_count();
                grads.add(id, gain::gradient(x, delta, gains)?)
            }
            Map::Convolution { weight, .. } => {
                let kernel = self.kernel(params)?;
                grads.accumulate(weight, |sum| match sum {
                    Some(sum) => kernel.add_weight_grad(x, delta, sum),
                    None => kernel.weight_grad(x, delta)?.reshape(params.value(weight).shape()),
                })
            }
        }
    }

    /// Frees what the engine keeps beside the weight.
    pub(crate) fn release(&self, params: &Params) {
        if let Ok(kernel) = self.kernel(params) {
            kernel.release();
        }
    }

    fn kernel<'a>(&self, params: &'a Params) -> Result<&'a Kernel> {
        match self.map {
            Map::Convolution { weight, scale, resample } => params.kernel(weight, scale, resample),
            Map::Gain(_) => bail!("{}: a gain has no kernel", self.name),
        }
    }
}

impl Map {
    fn convolution(
        params: &mut Builder<'_>,
        name: &str,
        shape: &Shape,
        gain: f64,
        resample: Resample,
    ) -> Result<Self> {
        let Shape { inputs, outputs, size, .. } = *shape;
        let area = (size * size).max(1);
        let shape: &[usize] =
            if size == 0 { &[outputs, inputs] } else { &[outputs, inputs, size, size] };
        let (weight, scale) = params.weight(name, shape, gain / ((area * inputs) as f64).sqrt())?;
        Ok(Self::Convolution { weight, scale, resample })
    }
}
