//! A small data set, and a run so short that tests can have many.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pggan_tests::{Outcome, Sandbox, root};

/// Some of the default pictures, in order.
pub(crate) fn default_pictures(count: usize) -> Vec<PathBuf> {
    let folder = root().join("datasets/fluent-emoji/images");
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all.iter().step_by(all.len() / count).take(count).cloned().collect()
}

/// Forty of the default pictures, prepared at 8x8.
pub(crate) struct Prepared {
    sandbox: Sandbox,
}

impl Prepared {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        let source = sandbox.path("pictures");
        fs::create_dir(&source).unwrap();
        for picture in default_pictures(40) {
            fs::copy(&picture, source.join(picture.file_name().unwrap())).unwrap();
        }
        let args = ["prepare", "--source", "pictures", "--dest", "data", "--resolution", "8"];
        sandbox.run("pggan-data", args).succeeded();
        Self { sandbox }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.sandbox.path(name)
    }

    /// `pggan-train` with `args`, in the folder that has `data` and `pictures`.
    pub(crate) fn trainer<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.sandbox.command("pggan-train");
        command.args(args);
        command
    }

    /// `train` into `outdir`: 4x4 to 8x8 in five ticks, a few kilobytes of weights.
    pub(crate) fn train(&self, outdir: &str) -> Command {
        let mut command = self.trainer(["train", "--data", "data", "--device", "cpu"]);
        command.args(["--resolution", "8", "--grid", "2x2", "--snap", "2", "--outdir", outdir]);
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

    /// [`Prepared::train`] to its end; returns what it said and the one run in `outdir`.
    pub(crate) fn trained(&self, outdir: &str) -> (Outcome, PathBuf) {
        let outcome = Outcome::of(&mut self.train(outdir)).succeeded();
        let runs = fs::read_dir(self.path(outdir)).unwrap();
        let mut runs: Vec<PathBuf> = runs.map(|e| e.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        (outcome, runs.pop().unwrap())
    }
}

pub(crate) fn training_states(run: &Path) -> Vec<PathBuf> {
    let is_state =
        |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with("training-state-");
    let files = fs::read_dir(run).unwrap().map(|e| e.unwrap().path());
    let mut states: Vec<PathBuf> = files.filter(is_state).collect();
    states.sort();
    states
}
