//! `cargo xtask`: one command for everything that this project does.
//!
//! Each command launches a binary of the workspace (`job.rs` has the table) and passes on its arguments, signals and
//! exit code (`launch.rs`). Nothing of the project is linked here: this must be compiled before anything starts, a
//! device chooses the cargo features of what is launched, and each flag is defined in the one crate that owns it.

mod job;
mod launch;

use std::{env, ffi::OsString, fmt::Write as _, path::Path, process::ExitCode};

use clap::Command;

use crate::job::{JOBS, Job};

const EXAMPLES: &str = "\
From nothing to samples:
  cargo xtask train
      The built-in data set, to 32x32, in some minutes; samples appear in runs/

With pictures of your own:
  cargo xtask prepare-dataset --source ~/photos --dest datasets/prepared/photos --resolution 64
  cargo xtask inspect-dataset datasets/prepared/photos
  cargo xtask train --data datasets/prepared/photos
  cargo xtask generate --network runs/00000-photos-32-quick --seeds 0-63 --grid 8x8 --dest out";

/// Exit code for what the user can mend: a wrong command, a missing program.
const MISUSE: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Only the command's name is ours to read. All that follows is the program's, untouched: `--help`, flags that are
    // unknown here, `--`, names that are not UTF-8.
    let mut args = env::args_os();
    let matches = cli().get_matches_from(args.by_ref().take(2));
    let args: Vec<OsString> = args.collect();

    let (name, _) = matches.subcommand().expect("clap insists on a command");
    let job = Job::named(name).expect("clap knows only the jobs of the table");
    match launch::run(launch::command(job, &args, workspace_root())).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the one place that reports an error")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::from(MISUSE)
        }
    }
}

fn cli() -> Command {
    Command::new("xtask")
        .bin_name("cargo xtask")
        .about("Progressive growing of GANs: prepare pictures, train on them, draw new ones")
        .override_usage("cargo xtask COMMAND [ARGUMENT]...\n       cargo xtask COMMAND --help")
        .help_template("{about}\n\nUsage: {usage}{after-help}\n")
        .after_help(format!("{}\n{EXAMPLES}", listing()))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(JOBS.iter().map(|job| Command::new(job.name).about(job.about)))
}

/// The jobs, one line each under the heading of their group.
fn listing() -> String {
    let width = JOBS.iter().map(|job| job.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    let mut group = "";
    for job in JOBS {
        if job.group != group {
            group = job.group;
            writeln!(text, "{}{group}:", if text.is_empty() { "" } else { "\n" })
                .expect("a string takes all");
        }
        writeln!(text, "  {:width$}  {}", job.name, job.about).expect("a string takes all");
    }
    text
}

/// Where the workspace is. A checkout that moves is compiled anew, so this holds.
fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        cli().debug_assert();
    }

    #[test]
    fn help_names_every_job() {
        let help = cli().render_help().to_string();
        for job in JOBS {
            assert!(help.contains(&format!("  {} ", job.name)), "{help}");
            assert!(help.contains(job.about), "{help}");
        }
    }
}
