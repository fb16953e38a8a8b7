//! The command line: from flags to a job. One file for each command.

mod export;
mod inspect;
mod merge;
mod prepare;
mod recipes;
mod verify;

use clap::{Parser, Subcommand};

/// Prepares images for training; shows, checks and exports what was prepared.
#[derive(Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(Box<prepare::Prepare>),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Export(export::Export),
    Merge(merge::Merge),
}

impl Cli {
    /// Does what was asked; returns what to say about it.
    pub(crate) fn run(self) -> anyhow::Result<String> {
        match self.command {
            Command::Prepare(args) => args.run(),
            Command::Inspect(args) => args.run(),
            Command::Verify(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Merge(args) => args.run(),
        }
    }
}

fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn parse_resolution(text: &str) -> Result<u32, String> {
    let side = match text.split_once('x') {
        Some((width, height)) if width == height => width,
        Some(_) => return Err("images become squares: pass one number, such as 64".into()),
        None => text,
    };
    side.parse().map_err(|_| "pass a power of two from 4 to 8192, such as 64 or 64x64".into())
}
