//! A small data set, and a run so short that tests can have many.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pggan_tests::binary;

/// What a finished process has said.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

pub(crate) fn run(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    Finished {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Forty of the default pictures, prepared.
pub(crate) struct Prepared {
    folder: tempfile::TempDir,
}

impl Prepared {
    pub(crate) fn new(resolution: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("pictures");
        fs::create_dir(&source).unwrap();
        let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/fluent-emoji/images");
        let mut pictures: Vec<PathBuf> = fs::read_dir(all).unwrap().map(|e| e.unwrap().path()).collect();
        pictures.sort();
        for picture in pictures.iter().step_by(pictures.len() / 40).take(40) {
            fs::copy(picture, source.join(picture.file_name().unwrap())).unwrap();
        }
        let prepared = Self { folder };
        let mut command = Command::new(binary("pggan-data"));
        command.arg("prepare").arg("--source").arg(&source).arg("--dest").arg(prepared.data());
        let done = run(command.args(["--resolution", &resolution.to_string()]));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        prepared
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }
}

/// `train` on `data`: 4x4 to 8x8 in five ticks, a few kilobytes of weights.
pub(crate) fn train(data: &Prepared, outdir: &Path) -> Command {
    let mut command = Command::new(binary("pggan-train"));
    command.arg("train").arg("--data").arg(data.data()).arg("--outdir").arg(outdir);
    command.args(["--device", "cpu", "--resolution", "8", "--grid", "2x2", "--snap", "2"]);
    for setting in [
        "schedule.total_kimg=5",
        "schedule.tick_kimg_base=1",
        "schedule.training_kimg=1.4",
        "schedule.transition_kimg=1.6",
        "model.fmap_base=32",
        "model.fmap_max=8",
        "model.latent_size=8",
    ] {
        command.args(["--set", setting]);
    }
    command
}

pub(crate) fn training_states(run: &Path) -> Vec<PathBuf> {
    let mut states: Vec<PathBuf> = fs::read_dir(run)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("training-state-"))
        .collect();
    states.sort();
    states
}
