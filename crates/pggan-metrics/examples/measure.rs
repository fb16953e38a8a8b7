//! Times the image metrics on raw u8 `[N, C, H, W]` files:
//!
//! ```sh
//! cargo run --release -p pggan-metrics --example measure -- swd a.raw b.raw 128
//! cargo run --release -p pggan-metrics --example measure -- ms-ssim a.raw 128
//! cargo run --release -p pggan-metrics --example measure -- limits
//! ```
//! Prints one JSON line: value, seconds without reading the files, peak memory; or what this machine's matrix product and
//! memory do at best. `RAYON_NUM_THREADS` sets the threads.
#![allow(clippy::print_stdout, reason = "this is a program")]

use std::error::Error;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use pggan_metrics::{ImageSet as _, ImageShape, Pixels, ms_ssim, swd};
use rayon::prelude::*;

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
        ["limits"] => {
            limits();
            Ok(())
        }
        _ => Err("usage: measure swd A.raw B.raw SIDE | ms-ssim A.raw SIDE | limits".into()),
    }
}

/// The best of some tries: a large matrix product in `f32`, and copying of what fits into no cache, where each byte is
/// read and written.
fn limits() {
    const SIDE: usize = 2048;
    const BYTES: usize = 512 << 20;
    let best = |mut work: Box<dyn FnMut()>| {
        let time = |_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64()
        };
        (0..7).map(time).fold(f64::INFINITY, f64::min)
    };
    let (a, b) = (Mat::<f32>::full(SIDE, SIDE, 0.5), Mat::<f32>::full(SIDE, SIDE, 0.25));
    let mut c = Mat::<f32>::zeros(SIDE, SIDE);
    let product = best(Box::new(move || {
        matmul(c.as_mut(), Accum::Replace, &a, &b, 1.0, Par::rayon(0));
    }));
    let (from, mut to) = (vec![1u8; BYTES], vec![0u8; BYTES]);
    let copy = best(Box::new(move || {
        let pairs = to.par_chunks_mut(1 << 20).zip(from.par_chunks(1 << 20));
        pairs.for_each(|(to, from)| to.copy_from_slice(from));
    }));
    let (gflops, gbs) = (2e-9 * (SIDE as f64).powi(3) / product, 2e-9 * BYTES as f64 / copy);
    println!(r#"{{"sgemm_gflops": {gflops:.0}, "memory_gb_per_second": {gbs:.1}}}"#);
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
