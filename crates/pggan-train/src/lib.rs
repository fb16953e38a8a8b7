//! Progressive training: batches and networks to checkpoints, samples and logs.
//!
//! ```text
//! Batch(u8) ─feed─► [-1, 1], faded ─step (G, D; growth from the schedule)─► weights ─► checkpoints, pictures, stats
//! ```
//!
//! [`train::train`] is the loop, and it is one page; each thing it does is a module: [`schedule`] says what is to be
//! done after so many images, [`step`] has the mathematics, [`optim`] moves the weights, [`checkpoint`] keeps them,
//! [`pictures`] shows, [`stats`] counts. All randomness comes from [`random`], keyed by the images shown, so a
//! run that was killed goes on as if nothing had happened, byte for byte.
//!
//! ```
//! use pggan_train::config::Settings;
//!
//! let mut settings = Settings::preset("v2-1gpu")?;
//! settings.set_text("schedule.total_kimg=100")?;
//! let config = settings.resolve()?;
//! let stage = config.schedule.stage_at(config.model.max_level(), 900_000);
//! assert_eq!((stage.growth.resolution(), stage.growth.alpha, stage.minibatch), (8, 0.5, 128));
//! # Ok::<(), pggan_train::Error>(())
//! ```

pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod device;
mod error;
pub mod export;
pub mod generate;
pub mod golden;
pub mod import;
pub mod iteration;
pub mod loss;
pub mod metrics;
pub mod optim;
pub mod pictures;
pub mod presets;
pub mod random;
pub mod run_dir;
pub mod samples;
pub mod schedule;
pub mod stats;
pub mod step;
pub mod train;

pub use error::{Error, Result};
