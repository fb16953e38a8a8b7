//! Starting a job's program, passing signals on to it, and reporting how it ended.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    path::Path,
    process::ExitStatus,
};

use tokio::process::Command;

use crate::job::{Job, OnDevice, Program, device_feature};

/// The cargo profile that binaries are built in; tests set it to `dev`.
const PROFILE: &str = "PGGAN_PROFILE";
/// Tells a binary where the workspace is: the built-in data set lies there, whatever the working directory.
const ROOT: &str = "PGGAN_ROOT";

/// The program that runs `job` with `args`, which are passed on as they are.
pub(crate) fn command(job: &Job, args: &[OsString], root: &Path) -> Command {
    let mut program = match job.program {
        Program::Binary { package, command, on_device } => {
            let feature = if on_device == OnDevice::Yes { device_feature(args) } else { None };
            let mut cargo = cargo_run(root, package, feature);
            cargo.arg("--").arg(command);
            cargo
        }
        Program::Script(path) => {
            let mut bash = Command::new("bash");
            bash.arg(root.join(path));
            bash
        }
    };
    program.args(args).env(ROOT, root);
    program
}

/// `cargo run`, which on Unix replaces itself by the binary once that is built: the child's process id is then the
/// binary's own, so that signals and the exit status need no go-between.
fn cargo_run(root: &Path, package: &str, feature: Option<&str>) -> Command {
    // The cargo that started us, if one did.
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let profile = env::var_os(PROFILE).unwrap_or_else(|| "release".into());
    cargo.arg("run").arg("--manifest-path").arg(root.join("Cargo.toml"));
    cargo.args(["--package", package]).arg("--profile").arg(profile);
    if let Some(feature) = feature {
        cargo.args(["--features", feature]);
    }
    // What the cargo that started us told us about this package: build scripts that look at it would run again, and what
    // depends on them would be built anew.
    for (name, _) in env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if told {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs `command` to its end and returns the exit code to pass on: the program's own, or 128 + n where signal n
/// killed it, as shells have it.
///
/// # Errors
/// Where the program cannot be started.
pub(crate) async fn run(mut command: Command) -> io::Result<u8> {
    // Before the child exists: a signal that comes while it starts must not end us.
    let mut signals = Signals::new()?;
    let mut child =
        command.spawn().map_err(|error| could_not_start(command.as_std().get_program(), &error))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(exit_code(status?)),
            signal = signals.next() => pass_on(signal, &child),
        }
    }
}

fn could_not_start(program: &OsStr, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("could not start {}: {error}; is it installed and on PATH?", program.display()),
    )
}

fn exit_code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal as u8;
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(unix)]
mod unix {
    use std::{fs::File, io};

    use rustix::process::{Pid, Signal, getpgrp, kill_process};
    use rustix::termios::tcgetpgrp;
    use tokio::process::Child;
    use tokio::signal::unix::{SignalKind, signal};

    /// The signals that ask a program to end. Each is the child's to answer: it may have work to save.
    pub(super) struct Signals {
        interrupt: tokio::signal::unix::Signal,
        hangup: tokio::signal::unix::Signal,
        terminate: tokio::signal::unix::Signal,
    }

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }

        pub(super) async fn next(&mut self) -> Signal {
            tokio::select! {
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.hangup.recv() => Signal::HUP,
                _ = self.terminate.recv() => Signal::TERM,
            }
        }
    }

    /// Hands `signal` to the child, unless the terminal has done so: Ctrl-C goes to the whole foreground group, where
    /// the child is too, and a second one would tell it to stop without saving.
    pub(super) fn pass_on(signal: Signal, child: &Child) {
        if signal != Signal::TERM && in_foreground() {
            return;
        }
        // No id means that it has ended; an error, that it ends at this moment. Either way `wait` tells.
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
            let _ = kill_process(pid, signal);
        }
    }

    fn in_foreground() -> bool {
        let terminal = File::open("/dev/tty");
        terminal.is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
    }
}
#[cfg(unix)]
use unix::{Signals, pass_on};

#[cfg(not(unix))]
mod other {
    use std::io;

    use tokio::process::Child;

    /// Ctrl-C, which the console sends to the child as well: it is only kept from ending us first.
    pub(super) struct Signals;

    impl Signals {
        #[expect(clippy::unnecessary_wraps, reason = "the same face as on Unix, where it can fail")]
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn next(&mut self) {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn pass_on((): (), _: &Child) {}
}
#[cfg(not(unix))]
use other::{Signals, pass_on};
