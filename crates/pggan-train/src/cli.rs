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

/// This thread becomes one of rayon's: handing every operation to another thread and waiting for it would cost two
/// switches each.
fn use_threads(threads: Option<usize>) -> Result<()> {
    if threads == Some(0) {
        bail!("--threads 0: at least one is needed");
    }
    // Zero stands for all of the machine's.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    pool.use_current_thread().build_global()?;
    Ok(())
}

fn bar(template: &str) -> tracing::Span {
    let span = info_span!("progress");
    if let Ok(style) = ProgressStyle::with_template(template) {
        span.pb_set_style(&style);
    }
    span.pb_start();
    span
}
