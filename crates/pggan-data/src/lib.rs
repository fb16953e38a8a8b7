//! Image files to a multi-resolution pyramid on disk to batches.
//!
//! ```text
//! image files ─source─► bytes ─decode─► pixels ─transform─► 2^k square ─pyramid─► levels 4…2^k ─store─► disk
//!             disk ─store─► images ─sampler, loader─► batches of u8
//! ```
//!
//! [`prepare`] walks the first line once; [`Loader`] the second for as long as training lasts. Each step is
//! one module: [`source`], [`decode`], [`transform`], [`pyramid`], [`store`], [`sampler`], [`loader`].
//!
//! A *level* is the base-2 logarithm of a side: level 2 is 4x4, level 10 is 1024x1024. Pixels are `u8`,
//! planes first: `[channels, side, side]`. Images may have labels: see [`labels`].
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use pggan_data::{BatchSpec, Loader, LoaderOptions, PrepareOptions, Store, prepare};
//!
//! # let temporary = tempfile::tempdir()?;
//! # let (images, dest) = (temporary.path().join("images"), temporary.path().join("prepared"));
//! # std::fs::create_dir(&images)?;
//! # for i in 0..3_u8 {
//! #     image::RgbImage::from_pixel(20, 30, image::Rgb([80 * i; 3])).save(images.join(format!("{i}.png")))?;
//! # }
//! let report = prepare(&PrepareOptions::new(&images, &dest), |_| {})?;
//! assert_eq!((report.images, report.max_level), (3, 4)); // 20x30 pixels: squares of 16
//!
//! let store = Arc::new(Store::open(&dest)?);
//! let growing = (2..=4).map(|level| BatchSpec { level, first_position: 100, count: 8 });
//! for batch in Loader::new(&store, LoaderOptions::default(), growing) {
//!     let batch = batch?;
//!     assert_eq!(batch.pixels.len(), 8 * 3 << (2 * batch.level));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod codec;
pub mod decode;
mod error;
pub mod export;
pub mod faces;
pub mod flags;
mod icc;
pub mod inspect;
pub mod labels;
pub mod loader;
mod merge;
mod parallel;
mod planes;
mod prepare;
pub mod pyramid;
pub mod sampler;
pub mod source;
pub mod statistics;
pub mod store;
mod survey;
mod tfrecord;
pub mod transform;

pub use error::{Error, Result};
pub use export::{ExportOptions, Format, export};
pub use faces::{Align, CelebaHq};
pub use labels::Labels;
pub use loader::{Batch, BatchSpec, Loader, LoaderOptions};
pub use merge::{Part, merge};
pub use prepare::{Outcome, PrepareOptions, Progress, Report, prepare};
pub use store::Store;

/// The colour planes that images may have: grey; red, green, blue; these and opacity.
pub const CHANNELS: [usize; 3] = [1, 3, 4];
/// The lowest level, 4x4.
pub const MIN_LEVEL: u32 = 2;
/// The highest level, 8192x8192: one image of it fits a shard.
pub const MAX_LEVEL: u32 = 13;
/// Pixels a side at [`MAX_LEVEL`].
pub const MAX_RESOLUTION: u32 = 1 << MAX_LEVEL;
