//! Metrics against the numbers that their Python originals gave.

#![expect(
    clippy::unwrap_used,
    reason = "these are tests, and so are the functions that they share"
)]

mod features;
mod golden;
mod ms_ssim;
mod networks;
mod sets;
mod swd;
