//! `golden`: our numbers beside another implementation's.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use pggan_train::golden;

/// Check this implementation against numbers that another one made.
///
/// A row for each quantity: its largest relative error, what is allowed, and the verdict. Exit code 1 if one fails.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask golden tests/golden
The folder's files say what they hold: NET_params.safetensors are weights under the official names, NET_forward what the
networks make of given inputs, other files of NET the gradients of a step or the weights after three.")]
pub(super) struct GoldenArgs {
    /// Folder of golden files
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl GoldenArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        super::use_threads(None)?;
        let golden::Report { rows, skipped } = golden::check(&self.folder)?;
        let failed = rows.iter().filter(|row| !row.ok()).count();
        let mut text = String::new();
        for row in &rows {
            let verdict = if row.ok() { "ok" } else { "FAIL" };
            let golden::Row { file, quantity, error, tolerance } = row;
            let _ = writeln!(
                text,
                "{file:<28} {quantity:<52} {error:>8.1e} {tolerance:>8.0e}  {verdict}"
            );
        }
        for name in &skipped {
            let _ = writeln!(text, "{name:<28} not of a kind that is checked here");
        }
        let _ = writeln!(text, "{} quantities, {failed} wrong", rows.len());
        super::print(&text)?;
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
