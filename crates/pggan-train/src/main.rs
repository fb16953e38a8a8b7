//! `pggan-train train | generate | import | bench | golden`: the flags, the log, the progress bar.

mod cli;
mod console;

use std::process::ExitCode;

/// Training takes and gives back large buffers at every step; this allocator keeps them (see `cli::keep_memory`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let console = console::init();
    let outcome = pggan_data::flags::parse::<cli::Cli>().map_err(anyhow::Error::msg);
    match outcome.and_then(|cli| cli.run(&console)) {
        Ok(code) => code,
        Err(e) => {
            // The one line that says why the program ends.
            tracing::error!("{e:#}");
            ExitCode::from(2)
        }
    }
}
