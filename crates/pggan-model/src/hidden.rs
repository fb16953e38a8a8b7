//! The generator's hidden layers: convolution, batch norm if there is one, bias, activation, pixel norm if there is one.

use candle_core::{DType, Tensor};
use pggan_ops::batch_norm::{self, Statistics};
use pggan_ops::conv::Resample;

use crate::ModelConfig;
use crate::config::GeneratorNorm;
use crate::error::Result;
use crate::layers::{Layer, NORM_EPSILON, Nonlinearity, Output, Shape};
use crate::params::{Builder, Grads, ParamId, Params};

/// A hidden layer.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// All of it where there is no batch norm, else the convolution alone.
    pub(crate) layer: Layer,
    norm: Option<BatchNorm>,
}

/// What follows the convolution in a layer with batch norm.
#[derive(Debug)]
struct BatchNorm {
    /// Gains, bias and activation.
    affine: Layer,
    /// Sums of what batches were like, each a tenth less than its successor: of means, of 1 / standard deviation, and of
    /// ones, `[3, C]`. The first two divided by the third are averages that do not lean towards where they began, and
    /// stay so in a running average of the whole network.
    statistics: ParamId,
}

/// Whose statistics batch norm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moments {
    /// The batch's own: training.
    Batch,
    /// The running averages, so that no image depends on the others beside it. The batch's own as long as there are none.
    Running,
}

/// A hidden layer's output, and what its gradient needs besides.
#[derive(Debug)]
pub(crate) struct HiddenOutput {
    pub(crate) out: Output,
    /// Batch norm's output, and what it saw.
    normed: Option<(Tensor, Statistics)>,
}

impl Hidden {
    pub(crate) fn new(
        params: &mut Builder<'_>,
        name: &str,
        shape: &Shape,
        gain: f64,
        resample: Resample,
        config: &ModelConfig,
    ) -> Result<Self> {
        let slope = config.g_activation.slope();
        let nonlinearity = match config.g_norm {
            GeneratorNorm::PixelNorm => {
                Nonlinearity::ReluPixelNorm { slope, epsilon: config.pixelnorm_epsilon }
            }
            GeneratorNorm::BatchNorm | GeneratorNorm::None => Nonlinearity::Relu(slope),
        };
        if config.g_norm != GeneratorNorm::BatchNorm {
            let layer = Layer::new(params, name, shape, gain, resample, nonlinearity)?;
            return Ok(Self { layer, norm: None });
        }
        let maps = shape.outputs / shape.outputs_per_bias;
        let (layer, affine) =
            Layer::around_norm(params, name, shape, (gain, maps), resample, nonlinearity)?;
        let statistics = params.constant(name, "statistics", &[3, maps], 0.0)?;
        Ok(Self { layer, norm: Some(BatchNorm { affine, statistics }) })
    }

    pub(crate) fn forward(
        &self,
        params: &Params,
        x: &Tensor,
        moments: Moments,
    ) -> Result<HiddenOutput> {
        if self.norm.is_none() {
            return Ok(HiddenOutput { out: self.layer.forward(params, x)?, normed: None });
        }
        self.finish(params, self.layer.linear(params, x)?, moments)
    }

    /// All that follows the convolution.
    pub(crate) fn finish(
        &self,
        params: &Params,
        x: Tensor,
        moments: Moments,
    ) -> Result<HiddenOutput> {
        let Some(norm) = &self.norm else {
            return Ok(HiddenOutput { out: self.layer.activate(params, x)?, normed: None });
        };
        let statistics = norm.statistics(params, &x, moments)?;
        let normed = batch_norm::forward(&x, &statistics)?;
        let out = norm.affine.forward(params, &normed)?;
        Ok(HiddenOutput { out, normed: Some((normed, statistics)) })
    }

    /// The activation of what has its bias already, one for each position: without batch norm.
    pub(crate) fn finish_biased(&self, x: Tensor) -> Result<HiddenOutput> {
        Ok(HiddenOutput { out: self.layer.activate_biased(x)?, normed: None })
    }

    /// From the gradient of the output to that of the convolution; adds those of bias and gains, and what batch norm saw,
    /// to `grads`. The output must be of a pass with [`Moments::Batch`].
    pub(crate) fn delta(
        &self,
        params: &Params,
        dy: &Tensor,
        output: &HiddenOutput,
        grads: &mut Grads,
    ) -> Result<Tensor> {
        let (Some(norm), Some((normed, statistics))) = (&self.norm, &output.normed) else {
            let delta = self.layer.unactivate(dy, &output.out)?;
            self.layer.bias_grad(&delta, grads)?;
            return Ok(delta);
        };
        let affine = &norm.affine;
        let delta = affine.unactivate(dy, &output.out)?;
        affine.bias_grad(&delta, grads)?;
        affine.weight_grad(params, normed, &delta, grads)?;
        let Statistics { mean, inv_std } = statistics;
        grads.observe(norm.statistics, Tensor::stack(&[mean, inv_std, &mean.ones_like()?], 0)?);
        batch_norm::backward(&affine.input_grad(params, &delta)?, normed, statistics)
    }
}

impl HiddenOutput {
    pub(crate) fn y(&self) -> &Tensor {
        &self.out.y
    }
}

impl BatchNorm {
    fn statistics(&self, params: &Params, x: &Tensor, moments: Moments) -> Result<Statistics> {
        let sums = params.value(self.statistics);
        let weight = sums.get(2)?.get(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if moments == Moments::Batch || weight <= 0.0 {
            return Statistics::of(x, NORM_EPSILON);
        }
        let average = |row| sums.get(row)? / weight;
        Ok(Statistics { mean: average(0)?, inv_std: average(1)? })
    }
}
