//! Networks under the names and with the constants of `pytorch_GAN_zoo`: the inverse of what `import` does.

use candle_core::Tensor;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::{ExportError, require, require_plain_generator};
use crate::import::zoo::{constant, d_gain, d_name, g_gain, g_name};
use crate::layout::{DLayer, GLayer};
use crate::weights::SnapshotHeader;
use crate::{Activation, Discriminator, DiscriminatorNorm, Generator, Params};

const FORMAT: &str = "pytorch_GAN_zoo";

/// A file in safetensors with the state dictionaries of its checkpoints: `netG.…`, `netD.…`, `avgG.…`, and in the metadata
/// entry `config` the attributes of its settings as JSON. Returns it with notes on what is not as it was.
///
/// The networks are those of the snapshot's level; a layer that is fading in goes on doing so (their `alpha` is 1 minus
/// ours). The discriminator is a start for training on: minibatch stddev is another one there.
///
/// # Errors
/// [`ExportError::Unsupported`] for networks that cannot be represented there.
pub fn zoo(
    header: &SnapshotHeader,
    g: &Generator,
    d: &Discriminator,
    g_ema: &Generator,
) -> Result<(Vec<u8>, Vec<String>), ExportError> {
    let config = &header.model;
    require_plain_generator(FORMAT, config)?;
    let (first, hidden) = (config.fmaps(2), config.nf(0));
    require(
        FORMAT,
        &[
            ("d_activation", &config.d_activation, config.d_activation == Activation::LeakyRelu),
            ("d_norm", &config.d_norm, config.d_norm == DiscriminatorNorm::None),
            ("mbdisc_kernels", &config.mbdisc_kernels, config.mbdisc_kernels == 0),
            ("fmap_base (another width in D's dense layers than at 4x4)", &hidden, hidden == first),
        ],
    )?;
    let stddev = config.mbstd_group > 1;
    let mut notes = Vec::new();
    if stddev {
        let group = config.mbstd_group;
        notes.push(format!(
            "the discriminator's minibatch stddev compares {group} samples a stride apart; theirs compares four consecutive \
             ones by the unbiased variance: it is a start for training on, not the same function"
        ));
    }
    if config.fused_scale {
        notes.push(
            "the discriminator halves before its activations (model.fused_scale), theirs after them: it is a start \
             for training on, not the same function"
                .to_owned(),
        );
    }

    let mut file = StateDict::default();
    for (network, g) in [("netG", g), ("avgG", g_ema)] {
        for layer in GLayer::all(header.level) {
            let name = format!("{network}.{}", g_name(layer));
            file.layer(&name, g.params(), &layer.name(), g_gain(layer))?;
        }
    }
    for layer in DLayer::all(header.level) {
        let name = format!("netD.{}", d_name(layer));
        file.layer(&name, d.params(), &layer.name(), d_gain(layer))?;
    }
    let widths: Vec<usize> = (2..=header.level).map(|level| config.fmaps(level)).collect();
    let settings = json!({
        "alpha": if header.level > 2 { 1.0 - header.alpha } else { 0.0 },
        "depthScale0": widths[0],
        "depthOtherScales": widths[1..],
        "miniBatchStdDev": stddev,
        "perChannelNormalization": true,
        "equalizedlR": true,
        "leakyReluLeak": 0.2,
        "latentVectorDim": config.latent_size(),
        "categoryVectorDim": 0,
        "dimOutput": config.channels,
    });
    Ok((file.bytes(&settings)?, notes))
}

/// Tensors by name.
#[derive(Default)]
struct StateDict(Vec<(String, Vec<usize>, Vec<u8>)>);

impl StateDict {
    /// A layer of ours as one of theirs, of which the weights are ours over `gain`.
    fn layer(
        &mut self,
        theirs: &str,
        params: &Params,
        ours: &str,
        gain: f64,
    ) -> Result<(), ExportError> {
        let weight = params.named(&format!("{ours}.weight"))?;
        let mut bias = (params.named(&format!("{ours}.bias"))? / constant(weight.dims()))?;
        let weight = (weight / gain)?;
        if theirs.ends_with("formatLayer") && bias.dims() != [weight.dim(0)?] {
            // One bias for each of 4x4 positions.
            bias = bias.unsqueeze(1)?.repeat((1, 16))?.flatten_all()?;
        }
        self.tensor(format!("{theirs}.module.weight"), &weight)?;
        self.tensor(format!("{theirs}.module.bias"), &bias)
    }

    fn tensor(&mut self, name: String, value: &Tensor) -> Result<(), ExportError> {
        let numbers = value.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0.push((name, value.dims().to_vec(), bytes));
        Ok(())
    }

    fn bytes(&self, settings: &serde_json::Value) -> Result<Vec<u8>, ExportError> {
        let mut views = Vec::new();
        for (name, shape, bytes) in &self.0 {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            views.push((name, view.map_err(candle_core::Error::wrap)?));
        }
        let metadata = [("config".to_owned(), settings.to_string())].into();
        Ok(safetensors::serialize(views, Some(metadata)).map_err(candle_core::Error::wrap)?)
    }
}
