//! How fast images are decoded, and batches loaded, by themselves: what `prepare` and training are measured against.
//!
//! ```sh
//! cargo run --release -p pggan-data --example rates -- decode photos/ 2    # all files of a source, on two threads
//! cargo run --release -p pggan-data --example rates -- load datasets/prepared/photos 2    # every level
//! ```

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use pggan_data::decode::Decoder;
use pggan_data::source::{LabelsFrom, MAX_FILE_BYTES, Source};
use pggan_data::{BatchSpec, Loader, LoaderOptions, Store};

/// Each level is loaded from for so long.
const TIME: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["decode", source, threads] => decode(source, threads.parse()?),
        ["load", store, threads] => load(store, threads.parse()?),
        _ => bail!("rates decode SOURCE THREADS | rates load STORE THREADS"),
    }
}

/// Reads and decodes every image of a source, and does nothing with it.
fn decode(source: &str, threads: usize) -> Result<()> {
    let source = Source::open(source.as_ref(), LabelsFrom::None)?;
    let images = source.entries().len();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        let (mut reader, mut bytes) = (source.reader()?, Vec::new());
        let mut decoder = Decoder::new(3, [255; 3]);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= images {
                return Ok(());
            }
            let form = reader.read(index, MAX_FILE_BYTES, &mut bytes).map_err(|e| anyhow!(e))?;
            decoder.decode(form, &bytes, |_| ()).map_err(|e| anyhow!(e))?;
        }
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panic"))?)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{images} images decoded in {seconds:.3} s: {:.0} img/s", images as f64 / seconds);
    Ok(())
}

/// Takes batches of 16 from the loader, in its random order, at each level.
fn load(store: &str, threads: usize) -> Result<()> {
    let store = Arc::new(Store::open(store)?);
    store.check_hashes(threads)?;
    for level in 2..=store.max_level() {
        let batch = |n: u64| BatchSpec { level, first_position: 16 * n, count: 16 };
        let options =
            LoaderOptions { mirror: true, threads, prefetch: 4, ..LoaderOptions::default() };
        let mut loader = Loader::new(&store, options, (0..).map(batch));
        let (mut images, mut bytes) = (0, 0);
        let begin = Instant::now();
        while begin.elapsed() < TIME
            && let Some(batch) = loader.next()
        {
            let batch = batch?;
            images += batch.count;
            bytes += batch.pixels.len();
            loader.recycle(batch);
        }
        let seconds = begin.elapsed().as_secs_f64();
        let (rate, speed) = (images as f64 / seconds, bytes as f64 / seconds / 1e9);
        println!("{0}x{0}: {rate:.0} img/s, {speed:.2} GB/s", 1 << level);
    }
    Ok(())
}
