//! Whatever is wrong with the input: one line that says what, where and what to do; exit code 2; nothing lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use pggan_tests::{Outcome, Sandbox};

use crate::common::{Prepared, default_pictures, training_states};

/// The command refuses in one line, which has all of `words`.
#[track_caller]
fn refuses(command: &mut Command, words: &[&str]) {
    let outcome = Outcome::of(command);
    assert!(!outcome.stderr.contains("Usage:"), "one line is enough: {outcome}");
    let line = outcome.refused();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

#[test]
fn train_refuses_settings_that_cannot_be() {
    let data = Prepared::new();
    for (args, words) in [
        (&["--resolution", "48"][..], &["model.resolution = 48", "power of two"][..]),
        (&["--resolution", "wide"], &["--resolution wide", "power of two"]),
        (&["--resolution", "16"], &["--resolution 16", "8x8 at most", "prepare-dataset"]),
        (&["--batch", "6"], &["minibatch at 4x4 = 6", "multiple", "group, 4"]),
        (&["--batch", "0"], &["minibatch at 4x4 = 0"]),
        (&["--speed", "9"], &["--speed"]),
        (&["--preset", "v9"], &["v9", "quick, small"]),
        (&["--set", "model.depth=9"], &["unknown field `depth`"]),
        (&["--set", "schedule.total_kimg=soon"], &["invalid type", "soon"]),
        (&["--set", "nonsense"], &["nonsense", "KEY=VALUE"]),
        (
            &["--set", "optim.beta2=2", "--set", "loss.drift=-1"],
            &["optim.beta2 = 2", "loss.drift = -1"],
        ),
        (&["--device", "tpu"], &["--device tpu", "auto, cpu"]),
        (&["--grid", "8"], &["'8'", "--grid"]),
        (&["--threads", "0"], &["--threads 0"]),
        (&["--resume", "nowhere"], &["nowhere", "no such file"]),
        (&["--config", "nowhere.toml"], &["nowhere.toml"]),
        (&["--outdir", "file/runs"], &["file"]),
    ] {
        fs::write(data.path("file"), "in the way").unwrap();
        let mut command = data.trainer(["train", "--data", "data"]);
        if !args.contains(&"--resolution") {
            command.args(["--resolution", "8"]);
        }
        if !args.contains(&"--outdir") {
            command.args(["--outdir", "runs"]);
        }
        refuses(command.args(args), words);
        assert!(!data.path("runs").exists(), "{args:?} began a run");
        assert_eq!(fs::read_to_string(data.path("file")).unwrap(), "in the way");
    }
}

#[test]
fn train_refuses_data_and_runs_that_it_cannot_use() {
    let data = Prepared::new();
    let with_data = |path: &str| data.trainer(["train", "--outdir", "runs", "--data", path]);
    refuses(&mut with_data("missing"), &["missing"]);
    refuses(&mut with_data("pictures"), &["not a prepared data set", "prepare-dataset --source"]);
    refuses(&mut data.trainer(["train"]), &["default data set", "--data DIR"]);
    assert!(!data.path("runs").exists());

    // A run with other settings is not touched.
    let (_, run) = data.trained("runs");
    let state = training_states(&run).pop().unwrap();
    let before = fs::read(&state).unwrap();
    let mut command = data.trainer(["train", "--batch", "8", "--device", "cpu", "--resume"]);
    refuses(command.arg(&state), &["other settings", "minibatch_base: 16 there, 8 here", "--new"]);
    assert_eq!(before, fs::read(&state).unwrap());

    // Damage to the data is found before the first step.
    let shard = data.path("data/r02-00000.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    for damaged in [&bytes[..], &bytes[..bytes.len() - 9], b""] {
        fs::write(&shard, damaged).unwrap();
        refuses(&mut data.train("fresh"), &["r02-00000.safetensors", "prepare-dataset"]);
    }
}

#[test]
fn generate_refuses_what_is_not_a_network() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("network.safetensors"), b"not weights").unwrap();
    let generate = |network: &str, args: &[&str]| {
        let mut command = sandbox.command("pggan-train");
        command.args(["generate", "--dest", "out", "--network", network]).args(args);
        command
    };
    refuses(&mut generate("network.safetensors", &[]), &["network.safetensors", "damaged"]);
    refuses(&mut generate(".", &[]), &["no network-snapshot-"]);
    refuses(&mut generate("missing", &[]), &["missing", "no such file"]);
    refuses(&mut generate("network.safetensors", &["--seeds", "9-1"]), &["9-1", "0,1,4-6"]);
    refuses(&mut generate("network.safetensors", &["--seed", "1"]), &["--seed"]);
    assert!(!sandbox.path("out").exists());
}

#[test]
fn prepare_refuses_what_are_not_pictures() {
    let sandbox = Sandbox::new();
    let prepare = |args: &[&str]| {
        let mut command = sandbox.command("pggan-data");
        command.args(["prepare", "--source", "pictures"]).args(args);
        if !args.contains(&"--dest") {
            command.args(["--dest", "data"]);
        }
        command
    };
    let pictures = sandbox.path("pictures");
    refuses(&mut prepare(&[]), &["pictures"]);
    fs::create_dir(&pictures).unwrap();
    refuses(&mut prepare(&[]), &["pictures"]);
    fs::write(pictures.join("a.png"), "text").unwrap();
    refuses(&mut prepare(&[]), &["good"]);
    refuses(&mut prepare(&["--strict"]), &["a.png"]);

    for picture in default_pictures(3) {
        fs::copy(&picture, pictures.join(picture.file_name().unwrap())).unwrap();
    }
    refuses(&mut prepare(&["--resolution", "48"]), &["48", "power of two"]);
    refuses(&mut prepare(&["--resolution", "1024"]), &["1024", "--upscale"]);
    refuses(&mut prepare(&["--speed"]), &["--speed"]);
    fs::write(sandbox.path("file"), "in the way").unwrap();
    refuses(&mut prepare(&["--dest", "file/below"]), &["file"]);
    assert!(!sandbox.path("data").exists(), "nothing was begun");

    let done = Outcome::of(&mut prepare(&["--resolution", "16"])).succeeded();
    assert!(done.stderr.contains("a.png"), "{done}");
    let manifest = |path: &Path| fs::read(path.join("manifest.json")).unwrap();
    let before = manifest(&sandbox.path("data"));
    refuses(&mut prepare(&["--resolution", "8"]), &["--force"]);
    assert_eq!(before, manifest(&sandbox.path("data")));
}
