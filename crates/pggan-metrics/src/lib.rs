//! Two streams of images to numbers: sliced Wasserstein distance, MS-SSIM and distances of features.
//!
//! A metric reads an [`ImageSet`], or [`Features`] and logits that a network made of one, and returns numbers.
//! It does not know where the images come from, opens no file and draws its random numbers from a seed: the same
//! seed gives the same digits, whatever the number of threads.
//!
//! | metric | takes | module |
//! |---|---|---|
//! | sliced Wasserstein distance (SWD) | two sets of images | [`swd`] |
//! | multi-scale structural similarity (MS-SSIM) | one set of images, as pairs | [`ms_ssim`] |
//! | Fréchet distance (FID) | mean and covariance of features | [`frechet`] |
//! | kernel distance (KID) | two sets of features | [`kernel`] |
//! | inception score (IS) | logits | [`inception_score`] |
//! | precision, recall, density, coverage | two sets of features | [`precision_recall`] |
//! | path length | short steps through a latent space | [`path_length`] |
//!
//! Features come from a [`network`]; [`registry`] has the metrics' names and [`evaluate`] measures by name.
//!
//! ```
//! use pggan_metrics::{ImageShape, Pixels, swd};
//!
//! let shape = ImageShape::new(3, 32)?;
//! let noise = |seed: usize| (0..8 * shape.bytes()).map(|i| (i * seed % 251) as u8).collect::<Vec<_>>();
//! let (reals, fakes) = (noise(7919), noise(104_729));
//! let score = swd::sliced_wasserstein(
//!     &Pixels::new(shape, &reals)?,
//!     &Pixels::new(shape, &fakes)?,
//!     &swd::Options::default(),
//! )?;
//! assert_eq!(score.levels.iter().map(|l| l.resolution).collect::<Vec<_>>(), [32, 16]);
//! # Ok::<(), pggan_metrics::Error>(())
//! ```

mod error;
mod features;
mod images;
mod random;
mod scratch;
mod wasserstein;
mod window;

pub mod descriptors;
pub mod evaluate;
pub mod frechet;
pub mod inception_score;
pub mod kernel;
pub mod laplacian;
pub mod ms_ssim;
pub mod network;
pub mod path_length;
pub mod precision_recall;
pub mod registry;
pub mod swd;

pub use error::{Error, Result, SourceError};
pub use features::Features;
pub use images::{ImageSet, ImageShape, Part, Pixels};
