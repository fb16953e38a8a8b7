//! Layers of convolutional networks as functions on tensors, in every direction that training needs.
//!
//! Each operation comes with its forward pass, the gradient with respect to its input and, where it has
//! weights, the gradient with respect to them, as plain functions: whoever composes a network decides which
//! of them run, what is kept between them and for how long. Nothing here builds an autograd graph, since
//! candle's would compute and keep far more than a GAN's step needs.
//!
//! * Activations are channels last, `[N, H, W, C]`; weights are `[O, I, k, k]` and biases `[C]`.
//! * On the CPU in `f32` the engine's own kernels run. Everything else (`f64`, CUDA, Metal) takes the generic
//!   path, the same mathematics in candle's primitives; tests hold the two against each other.
//! * The same input gives the same bytes, whatever the number of threads.
//!
//! The crate knows tensors, not GANs. Errors are candle's own ([`candle_core::Result`]) and name the shapes.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use pggan_ops::conv::{Kernel, Resample};
//!
//! # fn main() -> candle_core::Result<()> {
//! let x = Tensor::ones((1, 8, 8, 3), candle_core::DType::F32, &Device::Cpu)?;
//! let weight = Tensor::ones((16, 3, 3, 3), candle_core::DType::F32, &Device::Cpu)?;
//! let kernel = Kernel::new(&weight, 0.1, Resample::Up)?;
//! assert_eq!(kernel.forward(&x)?.dims(), [1, 16, 16, 16]);
//! # Ok(())
//! # }
//! ```

pub mod activation;
pub mod adam;
pub mod batch_norm;
pub mod conv;
pub mod gain;
pub mod layer_norm;
pub mod mix;
pub mod pixel_norm;
pub mod pool;
pub mod reals;
pub mod resample;
pub mod similarity;
pub mod stddev;

mod cells;
mod slices;
