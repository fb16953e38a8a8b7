//! Drives the real `xtask` with a shell script in the place of cargo.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod arguments;
mod help;
#[cfg(target_os = "linux")]
mod signals;

use std::{path::Path, process::Command};

use tempfile::TempDir;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// The checkout that the tests run in.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What `xtask` takes for cargo: a shell that runs a script of the test's, in a folder away from the checkout.
struct FakeCargo {
    script: &'static str,
    folder: TempDir,
}

impl FakeCargo {
    fn new(script: &'static str) -> Self {
        Self { script, folder: TempDir::new().unwrap() }
    }

    /// A program that is to start `xtask`, or `xtask` itself.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_remove("PGGAN_PROFILE");
        command
            .env("CARGO", root().join("xtask/tests/it/fake-cargo"))
            .env("FAKE_CARGO", self.script);
        command
    }

    fn xtask(&self) -> Command {
        self.command(XTASK)
    }
}
