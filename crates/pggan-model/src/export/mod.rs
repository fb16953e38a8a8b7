//! Networks of ours as files that other programs read.
//!
//! What another program's networks cannot be is refused by name; a file that is nearly the same network would be worse than none.

mod onnx;
mod proto;
mod zoo;

pub use onnx::onnx;
pub use zoo::zoo;

use crate::{Activation, GeneratorNorm, ModelConfig, OutputActivation};

/// Why networks cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A setting of the networks that the other program does not have.
    #[error("{format} has no place for model.{setting}")]
    Unsupported {
        /// The other program, or the format.
        format: &'static str,
        /// The setting with its value, as in a configuration file.
        setting: String,
    },
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<crate::Error> for ExportError {
    fn from(error: crate::Error) -> Self {
        candle_core::Error::wrap(error).into()
    }
}

/// The first of `settings` (name, value, whether it can be exported) that cannot.
fn require(
    format: &'static str,
    settings: &[(&str, &dyn std::fmt::Debug, bool)],
) -> Result<(), ExportError> {
    match settings.iter().find(|(_, _, good)| !good) {
        Some((name, value, _)) => {
            Err(ExportError::Unsupported { format, setting: format!("{name} = {value:?}") })
        }
        None => Ok(()),
    }
}

/// Whether the generator is the paper's but for its sizes, for programs that know no other.
fn require_plain_generator(format: &'static str, config: &ModelConfig) -> Result<(), ExportError> {
    let c = config;
    require(
        format,
        &[
            ("label_size", &c.label_size, c.label_size == 0),
            ("normalize_latents", &c.normalize_latents, c.normalize_latents),
            ("equalized", &c.equalized, c.equalized),
            ("g_activation", &c.g_activation, c.g_activation == Activation::LeakyRelu),
            ("g_norm", &c.g_norm, c.g_norm == GeneratorNorm::PixelNorm),
            ("g_output", &c.g_output, c.g_output == OutputActivation::Linear),
            ("pixelnorm_epsilon", &c.pixelnorm_epsilon, c.pixelnorm_epsilon == 1e-8),
        ],
    )
}
