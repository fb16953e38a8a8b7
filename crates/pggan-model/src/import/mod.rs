//! Weights that other implementations wrote, as networks of ours.
//!
//! Nothing that a file says is ever executed: pickles are read as data (see `pickle`), and one that asks for anything
//! but data is refused.

mod pickle;
mod torch;
mod zoo;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::{Discriminator, Generator, Growth, ModelConfig, Params};

/// Why weights cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is damaged, or of no kind that is known here.
    #[error("{0}")]
    Format(String),
    /// A pickle that would run code.
    #[error(
        "it asks for {module}.{name}, which is not data: a file of weights needs no such thing, so it is not read"
    )]
    NotData {
        /// The module.
        module: String,
        /// The class or function.
        name: String,
    },
    /// A part is not there.
    #[error("it has no {0}")]
    Missing(String),
    /// A network that ours cannot be.
    #[error("{0} cannot be represented here")]
    Unsupported(String),
    /// The weights do not make a network.
    #[error(transparent)]
    Model(#[from] crate::Error),
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Tensors by our parameters' names.
type Weights = BTreeMap<String, Tensor>;

/// What a foreign file holds, in our terms.
struct Foreign {
    config: ModelConfig,
    g: Weights,
    g_ema: Weights,
    d: Option<Weights>,
    level: u32,
    alpha: f64,
    notes: Vec<String>,
}

/// Networks from a foreign file.
#[derive(Debug)]
pub struct Imported {
    /// The generator as it was trained.
    pub g: Generator,
    /// Its running average; the same where the file has none.
    pub g_ema: Generator,
    /// The discriminator; fresh (see `notes`) where the file has none.
    pub d: Discriminator,
    /// How far they had grown.
    pub growth: Growth,
    /// What is not as it was.
    pub notes: Vec<String>,
}

/// Reads a file of weights: a checkpoint of `pytorch_GAN_zoo` (`.pth`, in either form of `torch.save`).
///
/// # Errors
/// [`ImportError`]; hostile files end here too, soon and without running anything.
pub fn read(bytes: &[u8]) -> Result<Imported, ImportError> {
    let archive = torch::Archive::read(bytes)?;
    if !zoo::recognize(&archive) {
        let reason = "its weights are of no implementation that is known here: pytorch_GAN_zoo's have `netG` and `config`";
        return Err(ImportError::Format(reason.to_owned()));
    }
    let foreign = zoo::convert(&archive)?;
    foreign.config.validate()?;
    let mut notes = foreign.notes;
    let nothing = &mut |_: &str, _: &mut [f32]| ();
    let generator = |weights: &Weights| {
        let mut g = Generator::new(&foreign.config, DType::F32, &Device::Cpu, &mut |_, _| ())?;
        fill(g.params_mut(), weights)?;
        Ok::<_, ImportError>(g)
    };
    let (g, g_ema) = (generator(&foreign.g)?, generator(&foreign.g_ema)?);
    let mut d = Discriminator::new(&foreign.config, DType::F32, &Device::Cpu, nothing)?;
    match &foreign.d {
        Some(weights) => fill(d.params_mut(), weights)?,
        None => {
            notes.push("it has no discriminator: ours is all zeros, so generate only".to_owned());
        }
    }
    let growth = Growth { level: foreign.level, alpha: foreign.alpha };
    Ok(Imported { g, g_ema, d, growth, notes })
}

/// Gives every parameter its weights.
fn fill(params: &mut Params, weights: &Weights) -> Result<(), ImportError> {
    let mut problem = None;
    params.update(|_, name, value| {
        match weights.get(name) {
            Some(weight) if weight.dims() == value.dims() => *value = weight.copy()?,
            Some(weight) => {
                let shapes = (weight.dims(), value.dims());
                problem = Some(ImportError::Format(format!(
                    "{name} is {:?} instead of {:?}",
                    shapes.0, shapes.1
                )));
            }
            None => problem = Some(ImportError::Missing(name.to_owned())),
        }
        Ok(())
    })?;
    problem.map_or(Ok(()), Err)
}
