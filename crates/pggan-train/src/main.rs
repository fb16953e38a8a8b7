//! `pggan-train train | generate | import | bench | golden`: the flags, the log, the progress bar.

mod cli;
mod console;

use std::process::ExitCode;

/// Training takes and gives back large buffers at every step; this allocator keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Milliseconds after which it gives back what is not used again. Its own second is many steps of a small network, and lets the
/// buffers of different passes pile up.
const PURGE_DELAY: (libmimalloc_sys::mi_option_t, std::ffi::c_long) = (15, 100); // by number: it has no name in Rust

fn main() -> ExitCode {
    let (option, milliseconds) = PURGE_DELAY;
    #[expect(unsafe_code, reason = "the allocator is written in C")]
    // SAFETY: no other thread runs yet. `MIMALLOC_PURGE_DELAY` in the environment has precedence.
    unsafe {
        libmimalloc_sys::mi_option_set_default(option, milliseconds);
    }
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
