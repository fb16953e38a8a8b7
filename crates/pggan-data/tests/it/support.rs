//! Images and runs of the binary.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

/// A temporary folder with `in/` to read images from and `out` to make.
pub(crate) struct Space {
    dir: TempDir,
}

/// What a run of the binary gave.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Space {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        Self { dir }
    }

    /// With `count` PNGs of `width` x `height` noise, each its own.
    pub(crate) fn with_images(count: u32, width: u32, height: u32) -> Self {
        let space = Self::new();
        for i in 0..count {
            noise(i, width, height).save(space.file(&format!("in/{i:04}.png"))).unwrap();
        }
        space
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    /// `pggan-data prepare` from `in` to `out` with more arguments.
    pub(crate) fn prepare(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(["prepare", "--source", "in", "--dest", "out"]).args(arguments);
        command.current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let mut command = binary();
        command.args(arguments).current_dir(self.dir.path());
        run(command)
    }
}

pub(crate) fn noise(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let hash = (seed * 977 + y * width + x + 1).wrapping_mul(0x9E37_79B9);
        Rgb([(hash >> 24) as u8, (hash >> 16) as u8, (seed * 40) as u8])
    })
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pggan-data"));
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

pub(crate) fn run(mut command: Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Run {
    /// Stdout of a run that ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The one line that a failed run ends with.
    #[track_caller]
    pub(crate) fn error(self) -> String {
        assert_eq!(self.code, Some(2), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        let errors: Vec<_> =
            self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        assert!(self.stderr.trim_end().ends_with(errors[0]), "{}", self.stderr);
        errors[0].to_owned()
    }
}

/// Every file below a folder with its bytes.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(dir).into_iter().flatten() {
        let path = item.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}
