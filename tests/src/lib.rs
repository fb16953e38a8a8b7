//! What the end-to-end tests share: the workspace's binaries as this checkout builds them, and a folder to run them in.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// The workspace's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is a folder of the workspace")
}

/// `cargo`, the one that runs these tests where one does, with `args`, in the workspace's root.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(root());
    // What Cargo tells a test about its package is none of another Cargo's business: build scripts that look at it would run again, and
    // all that depends on them would be built anew, there and back.
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

/// The path of the workspace's binary `name`, built first: once for all binaries and tests of a process, in the
/// profile of the tests themselves.
///
/// # Panics
/// Where the build fails or the workspace has no such binary.
pub fn binary(name: &str) -> PathBuf {
    static BINARIES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let binaries = BINARIES.get_or_init(build);
    binaries
        .get(name)
        .unwrap_or_else(|| panic!("no binary {name} among {:?}", binaries.keys()))
        .clone()
}

/// Builds every binary of the workspace and returns where each one lies.
fn build() -> BTreeMap<String, PathBuf> {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    // With the tests, so that dependencies have the features that `cargo test` built them with: all is there already.
    let output = cargo(&["build", "--workspace", "--bins", "--tests", "--profile", profile])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts: it runs this test");
    assert!(output.status.success(), "cargo build: {}", output.status);

    let messages = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    messages
        .map(|line| {
            serde_json::from_slice::<Value>(line).expect("cargo writes one JSON value a line")
        })
        .filter(|message| message["profile"]["test"] == false)
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, message["executable"].as_str()?.into()))
        })
        .collect()
}

/// A temporary folder, and the working directory of what is run in it. It goes with the value.
#[derive(Debug)]
pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    /// An empty folder.
    ///
    /// # Panics
    /// Where the system has no place for temporary files.
    #[expect(
        clippy::new_without_default,
        reason = "it makes a folder: not what a default value does"
    )]
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("the system has a place for temporary files") }
    }

    /// The folder, or what lies at `relative` in it.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// The workspace's binary `name`, to start in this folder: as from a shell, with none of our variables set.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("PGGAN_ROOT");
        command
    }

    /// Runs the workspace's binary `name` with `args` to its end.
    pub fn run<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(self.command(name).args(args))
    }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs `command` to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } =
            command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Itself, where the program succeeded.
    ///
    /// # Panics
    /// With all that it said, where it did not.
    #[track_caller]
    #[expect(
        clippy::return_self_not_must_use,
        reason = "that it succeeded is often all that is asked"
    )]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The program's one `error: …` line, where it refused in the way of this project: exit code 2 and no panic.
    ///
    /// # Panics
    /// With all that it said, where it ended in another way.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(self.code, Some(2), "{self}");
        assert!(!self.stderr.contains("panicked at"), "{self}");
        let errors: Vec<_> =
            self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors[..] else { panic!("not one line of error:\n{self}") };
        error.to_owned()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit code {code:?}\n--- standard output\n{stdout}\n--- standard error\n{stderr}")
    }
}
