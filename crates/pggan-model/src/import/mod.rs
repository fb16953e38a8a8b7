//! Weights that other implementations wrote, as networks of ours.
//!
//! Nothing that a file says is ever executed: pickles are read as data (see `pickle`), and one that asks for anything
//! but data is refused. Each implementation has its module, which says how its layers become ours.

mod array;
mod gandissect;
mod genforce;
mod mmgen;
mod numpy;
mod nvidia;
mod pickle;
mod state;
mod torch;
pub(crate) mod zoo;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use self::state::State;
use crate::layout::{DLayer, GLayer};
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

type Result<T, E = ImportError> = std::result::Result<T, E>;

/// A layer's weight and bias, in the layout and with the constants that ours has.
type Weights = (Tensor, Tensor);

/// Which of a file's two generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Trained,
    /// Its running average.
    Average,
}

/// What a foreign file holds, in our terms.
struct Summary {
    config: ModelConfig,
    growth: Growth,
    average: bool,
    discriminator: bool,
    notes: Vec<String>,
}

/// A file of weights of another implementation.
trait Foreign {
    fn summary(&self) -> Result<Summary>;

    fn g(&self, which: Which, layer: GLayer) -> Result<Weights>;

    fn d(&self, layer: DLayer) -> Result<Weights>;
}

/// Networks from a foreign file.
#[derive(Debug)]
pub struct Imported {
    /// The generator as it was trained; its average where the file has nothing else.
    pub g: Generator,
    /// Its running average; the same where the file has none.
    pub g_ema: Generator,
    /// The discriminator, where the file has one that ours can be.
    pub d: Option<Discriminator>,
    /// How far they had grown.
    pub growth: Growth,
    /// What is not as it was.
    pub notes: Vec<String>,
}

/// Reads a file of weights, whatever its name: NVIDIA's pickles (TensorFlow's and Theano's networks), and what
/// `torch.save` or safetensors hold of `pytorch_GAN_zoo`, genforce, mmgeneration and gandissect.
///
/// # Errors
/// [`ImportError`]; hostile files end here too, soon and without running anything.
pub fn read(bytes: &[u8]) -> Result<Imported> {
    let foreign = open(bytes)?;
    let Summary { config, growth, average, discriminator, notes } = foreign.summary()?;
    config.validate()?;
    // Every number takes two bytes at least, so a shape that is a lie costs no memory.
    if config.generator_parameters() > bytes.len() / 2 {
        let reason = "its networks have more weights than it holds numbers";
        return Err(ImportError::Format(reason.to_owned()));
    }
    let generator = |which: Which| -> Result<Generator> {
        let mut g = Generator::new(&config, DType::F32, &Device::Cpu, &mut |_, _| ())?;
        let layers = GLayer::all(config.max_level()).map(|layer| (layer, layer.name()));
        fill(g.params_mut(), layers, |layer| foreign.g(which, layer))?;
        Ok(g)
    };
    let g = generator(Which::Trained)?;
    let g_ema = if average { generator(Which::Average)? } else { g.duplicate()? };
    let d = if discriminator {
        let mut d = Discriminator::new(&config, DType::F32, &Device::Cpu, &mut |_, _| ())?;
        let layers = DLayer::all(config.max_level()).map(|layer| (layer, layer.name()));
        fill(d.params_mut(), layers, |layer| foreign.d(layer))?;
        Some(d)
    } else {
        None
    };
    Ok(Imported { g, g_ema, d, growth, notes })
}

/// The tensors of what `torch.save` made of a dictionary of them (a `state_dict`), as `f32` on the CPU.
///
/// # Errors
/// [`ImportError`], as of [`read`].
pub fn state_dict(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    if !torch::recognize(bytes) {
        return Err(ImportError::Format("it is no file of torch.save".to_owned()));
    }
    torch::read(bytes)?.tensors()
}

/// Finds out what a file is of.
fn open(bytes: &[u8]) -> Result<Box<dyn Foreign>> {
    let state: State = if torch::recognize(bytes) {
        torch::read(bytes)?
    } else if state::is_safetensors(bytes) {
        State::from_safetensors(bytes)?
    } else {
        return Ok(Box::new(nvidia::Networks::read(bytes)?));
    };
    if zoo::recognize(&state) {
        Ok(Box::new(zoo::Checkpoint(state)))
    } else if genforce::recognize(&state) {
        Ok(Box::new(genforce::Checkpoint(state)))
    } else if mmgen::recognize(&state) {
        Ok(Box::new(mmgen::Checkpoint(state)))
    } else if gandissect::recognize(&state) {
        Ok(Box::new(gandissect::Checkpoint(state)))
    } else {
        let reason = "its weights are of no implementation that is known here; those are pytorch_GAN_zoo's, genforce's, \
                      mmgeneration's and gandissect's, and NVIDIA's in a .pkl";
        Err(ImportError::Format(reason.to_owned()))
    }
}

/// Kernels turned by half a turn: what a convolution of one library does as a transposed, or a true one, of another.
fn turned(weight: &Tensor) -> candle_core::Result<Tensor> {
    weight.contiguous()?.flip(&[2, 3])
}

/// Gives every parameter its weights.
fn fill<L: Copy>(
    params: &mut Params,
    layers: impl Iterator<Item = (L, String)>,
    find: impl Fn(L) -> Result<Weights>,
) -> Result<()> {
    let mut weights = BTreeMap::new();
    for (layer, name) in layers {
        let (weight, bias) = find(layer)?;
        for (kind, value) in [("weight", weight), ("bias", bias)] {
            let name = format!("{name}.{kind}");
            let dims = params.iter().find(|p| p.name == name).map(|p| p.value.dims());
            if let Some(needed) = dims.filter(|dims| *dims != value.dims()) {
                let dims = value.dims();
                return Err(ImportError::Format(format!(
                    "{name} is {dims:?} instead of {needed:?}"
                )));
            }
            weights.insert(name, value);
        }
    }
    let mut missing = None;
    params.update(|_, name, value| {
        match weights.remove(name) {
            Some(weight) => *value = weight.force_contiguous()?.copy()?,
            None => missing = Some(ImportError::Missing(name.to_owned())),
        }
        Ok(())
    })?;
    missing.map_or(Ok(()), Err)
}
