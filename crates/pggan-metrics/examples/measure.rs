//! Times the image metrics on raw u8 `[N, C, H, W]` files:
//!
//! ```sh
//! cargo run --release -p pggan-metrics --example measure -- swd a.raw b.raw 128
//! cargo run --release -p pggan-metrics --example measure -- ms-ssim a.raw 128
//! ```
//! Prints one JSON line: value, seconds without reading the files, peak memory. `RAYON_NUM_THREADS` sets the threads.
#![allow(clippy::print_stdout, reason = "this is a program")]

use std::error::Error;
use std::time::Instant;

use pggan_metrics::{ImageSet as _, ImageShape, Pixels, ms_ssim, swd};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let shape =
        |side: &str| -> Result<_, Box<dyn Error>> { Ok(ImageShape::new(3, side.parse()?)?) };
    match arguments[..] {
        ["swd", a, b, side] => {
            let (a, b) = (std::fs::read(a)?, std::fs::read(b)?);
            let (a, b) = (Pixels::new(shape(side)?, &a)?, Pixels::new(shape(side)?, &b)?);
            report("swd", a.len(), || {
                let score = swd::sliced_wasserstein(&a, &b, &swd::Options::default())?;
                Ok(score.levels.iter().map(|level| level.distance).chain([score.average]).collect())
            })
        }
        ["ms-ssim", a, side] => {
            let a = std::fs::read(a)?;
            let a = Pixels::new(shape(side)?, &a)?;
            report("ms-ssim", a.len(), || Ok(vec![ms_ssim::ms_ssim(&a)?]))
        }
        _ => Err("usage: measure swd A.raw B.raw SIDE | measure ms-ssim A.raw SIDE".into()),
    }
}

fn report(
    metric: &str,
    n: usize,
    measure: impl Fn() -> pggan_metrics::Result<Vec<f64>>,
) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let value = measure()?;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        r#"{{"metric": "{metric}", "n": {n}, "value": {value:?}, "seconds": {seconds:.3}, "peak_mib": {}}}"#,
        peak_mib()
    );
    Ok(())
}

/// Peak resident memory as Linux tells it, 0 elsewhere.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}
