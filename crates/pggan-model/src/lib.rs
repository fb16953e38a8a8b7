//! The networks of Progressive GAN (Karras et al., ICLR 2018): tensors in, tensors out.
//!
//! * [`ModelConfig`] says how wide and how deep; [`Growth`] how far the networks have grown.
//! * [`Generator`] and [`Discriminator`] hold their parameters under ordered names and have explicit
//!   passes: forward, backward and, for the gradient penalty, tangent. There is no autograd graph.
//! * [`weights`] reads and writes them as safetensors; [`import`] reads what other implementations wrote, [`export`]
//!   writes what they read.
//!
//! The crate reads no clock, draws no random numbers and touches no files but weights.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use pggan_model::{Generator, Growth, ModelConfig};
//!
//! # fn main() -> Result<(), pggan_model::Error> {
//! let config = ModelConfig { resolution: 16, fmap_base: 64, fmap_max: 16, ..ModelConfig::default() };
//! // Weights are drawn by the caller; here: all the same.
//! let generator = Generator::new(&config, DType::F32, &Device::Cpu, &mut |_, values| values.fill(0.5))?;
//! let latents = Tensor::ones((2, config.latent_size()), DType::F32, &Device::Cpu)?;
//! let images = generator.generate(&latents, None, Growth::full(config.max_level()))?;
//! assert_eq!(images.dims(), [2, 3, 16, 16]);
//! # Ok(())
//! # }
//! ```

mod config;
mod discriminator;
mod error;
pub mod export;
mod generator;
mod growth;
mod hidden;
pub mod import;
mod layers;
mod layout;
mod params;
pub mod weights;

pub use config::{Activation, DiscriminatorNorm, GeneratorNorm, ModelConfig, OutputActivation};
pub use discriminator::{Deltas, Discriminator, Noise, Tape};
pub use error::Error;
pub use generator::{Generator, GeneratorTape};
pub use growth::Growth;
pub use params::{Grads, Param, Params};
