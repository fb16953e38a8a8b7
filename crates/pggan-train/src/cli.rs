//! The command line: from flags to a job. One file for each command.

mod bench;
mod data;
mod export;
mod generate;
mod golden;
mod import;
mod metrics;
mod train;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use indicatif::ProgressStyle;
use tracing::info_span;
use tracing_indicatif::span_ext::IndicatifSpanExt as _;

use crate::console::Console;

/// Progressive GAN: train generators that grow from 4x4 to 1024x1024, and generate with them.
#[derive(Parser)]
#[command(name = "cargo xtask", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<train::TrainArgs>),
    Generate(generate::GenerateArgs),
    Bench(bench::BenchArgs),
    Golden(golden::GoldenArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    PushToHub(export::PushArgs),
    Metrics(Box<metrics::MetricsArgs>),
    ImportFeatures(metrics::ImportFeaturesArgs),
}

impl Cli {
    pub(crate) fn run(self, console: &Console) -> Result<ExitCode> {
        match self.command {
            Command::Golden(args) => return args.run(),
            Command::Import(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::PushToHub(args) => args.run(),
            Command::Train(args) => args.run(console),
            Command::Generate(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Metrics(args) => args.run(),
            Command::ImportFeatures(args) => args.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What a person may want to pipe somewhere; all else goes to the log.
fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

/// The project's folder, as the orchestrator tells it; the current one otherwise.
fn root() -> PathBuf {
    std::env::var_os("PGGAN_ROOT").map_or_else(PathBuf::new, PathBuf::from)
}

/// More than these are a slip of the keyboard, and the system may not have them to give.
const MOST_THREADS: usize = 1024;

fn check_threads(threads: usize) -> Result<()> {
    match threads {
        0 => bail!("--threads 0: at least one is needed"),
        1..=MOST_THREADS => Ok(()),
        _ => bail!("--threads {threads}: at most {MOST_THREADS}"),
    }
}

/// This thread becomes one of rayon's: handing every operation to another thread and waiting for it would cost two
/// switches each.
fn use_threads(threads: Option<usize>) -> Result<()> {
    threads.map_or(Ok(()), check_threads)?;
    // Zero stands for all of the machine's.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    pool.use_current_thread().build_global()?;
    Ok(())
}

/// Numbers of a generator from which its weights are most of the memory, up to images of 16x16.
const LARGE: usize = 10_000_000;

/// How long the allocator keeps free memory for the next step. What goes back to the system returns as zeros: with 512 maps
/// at 128x128 that was a twelfth of the processors' time. Only where weights are most of the memory is it given back
/// within a step, for the buffers of different passes pile up (512 maps at 16x16: 564 instead of 589 MiB).
fn keep_memory(model: &pggan_model::ModelConfig, resolution: usize) {
    /// `purge_delay`, which has no name in Rust.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    let weights = resolution <= 16 && model.generator_parameters() >= LARGE;
    let milliseconds = if weights { 300 } else { 600_000 };
    #[expect(unsafe_code, reason = "the allocator is written in C")]
    // SAFETY: the index is in range. The allocator's options are plain words, which it sets and reads from any thread
    // itself; one that frees memory meanwhile takes the old number. `MIMALLOC_PURGE_DELAY` has precedence.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds);
    }
}

fn bar(template: &str) -> tracing::Span {
    let span = info_span!("progress");
    if let Ok(style) = ProgressStyle::with_template(template) {
        span.pb_set_style(&style);
    }
    span.pb_start();
    span
}
