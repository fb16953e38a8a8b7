//! Whatever is wrong with the input: one line that says what, where and what to do; exit code 2; nothing lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use pggan_tests::binary;

use crate::common::{Prepared, run, train, training_states};

/// The command fails as it should, and says all of `words`.
fn refuses(command: &mut Command, words: &[&str]) {
    let output = run(command);
    let said = &output.stderr;
    assert_eq!(output.code, Some(2), "{command:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one line: {said}");
    for word in words {
        assert!(errors[0].contains(word) || said.contains(word), "{word:?} is not in: {said}");
    }
}

fn data_tool(args: &[&str], source: &Path, dest: &Path) -> Command {
    let mut command = Command::new(binary("pggan-data"));
    command.arg("prepare").arg("--source").arg(source).arg("--dest").arg(dest).args(args);
    command
}

#[test]
fn train_refuses_what_it_cannot_use() {
    let data = Prepared::new(8);
    let out = data.path("runs");
    let pictures = data.path("pictures");
    let file = data.path("file");
    fs::write(&file, "in the way").unwrap();
    let with = |args: &[&str]| {
        let mut command = train(&data, &out);
        command.args(args);
        command
    };
    for (args, words) in [
        (&["--resolution", "48"][..], &["model.resolution = 48", "power of two"][..]),
        (&["--resolution", "16"], &["--resolution 16", "8x8 at most", "prepare-dataset"]),
        (&["--batch", "6"], &["minibatch at 4x4 = 6", "multiple", "group, 4"]),
        (&["--batch", "0"], &["minibatch at 4x4 = 0"]),
        (&["--speed", "9"], &["--speed"]),
        (&["--preset", "v9"], &["v9", "quick, small"]),
        (&["--set", "model.depth=9"], &["unknown field `depth`"]),
        (&["--set", "schedule.total_kimg=soon"], &["invalid type", "soon"]),
        (&["--set", "nonsense"], &["nonsense", "KEY=VALUE"]),
        (&["--set", "optim.beta2=1.5", "--set", "loss.drift=-1"], &["optim.beta2 = 1.5", "loss.drift = -1"]),
        (&["--device", "tpu"], &["--device tpu", "auto, cpu"]),
        (&["--grid", "8"], &["'8'", "--grid"]),
        (&["--threads", "0"], &["--threads 0"]),
        (&["--resume", "nowhere"], &["nowhere", "no such file"]),
        (&["--config", "nowhere.toml"], &["nowhere.toml"]),
    ] {
        // clap refuses a flag given twice in its own words, so these replace those of `train`.
        let mut command = Command::new(binary("pggan-train"));
        command.arg("train").arg("--data").arg(data.data()).arg("--outdir").arg(&out).args(args);
        refuses(&mut command, words);
    }
    let mut elsewhere = |path: &Path, words: &[&str]| {
        let mut command = Command::new(binary("pggan-train"));
        refuses(command.arg("train").arg("--data").arg(path).arg("--outdir").arg(&out), words);
    };
    elsewhere(&data.path("missing"), &["missing"]);
    elsewhere(&pictures, &["not a prepared data set", "prepare-dataset --source"]);
    assert!(!out.exists(), "nothing was begun");

    let below = file.join("runs");
    let mut command = train(&data, &below);
    refuses(&mut command, &[file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");

    // A run with other settings is not touched.
    assert_eq!(run(&mut with(&["--kimg", "1"])).code, Some(0));
    let folder = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let state = training_states(&folder).pop().unwrap();
    let before = fs::read(&state).unwrap();
    let mut command = Command::new(binary("pggan-train"));
    command.arg("train").arg("--resume").arg(&state).args(["--batch", "8", "--device", "cpu"]);
    refuses(&mut command, &["other settings", "schedule.minibatch_base: 16 there, 8 here", "--new"]);
    assert_eq!(before, fs::read(&state).unwrap());

    // A damaged shard is found before the first step.
    let shard = data.data().join("r02-00000.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, &bytes).unwrap();
    refuses(&mut with(&["--new"]), &["r02-00000.safetensors", "prepare-dataset"]);
    fs::write(&shard, &bytes[..bytes.len() - 9]).unwrap();
    refuses(&mut with(&["--new"]), &["r02-00000.safetensors"]);
}

#[test]
fn generate_refuses_what_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("out");
    let file = folder.path().join("network.safetensors");
    fs::write(&file, b"not weights").unwrap();
    let generate = |network: &Path, args: &[&str]| {
        let mut command = Command::new(binary("pggan-train"));
        command.arg("generate").arg("--network").arg(network).arg("--dest").arg(&dest).args(args);
        command
    };
    refuses(&mut generate(&file, &[]), &["network.safetensors", "damaged"]);
    refuses(&mut generate(folder.path(), &[]), &["no network-snapshot-"]);
    refuses(&mut generate(&folder.path().join("missing"), &[]), &["missing", "no such file"]);
    refuses(&mut generate(&file, &["--seeds", "9-1"]), &["9-1", "0,1,4-6"]);
    refuses(&mut generate(&file, &["--seed", "1"]), &["--seed"]);
    assert!(!dest.exists());
}

#[test]
fn prepare_refuses_what_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let (source, dest) = (folder.path().join("pictures"), folder.path().join("data"));
    refuses(&mut data_tool(&[], &source, &dest), &["pictures"]);
    fs::create_dir(&source).unwrap();
    refuses(&mut data_tool(&[], &source, &dest), &["pictures"]);
    fs::write(source.join("a.png"), "text").unwrap();
    refuses(&mut data_tool(&[], &source, &dest), &["a.png"]);
    refuses(&mut data_tool(&["--strict"], &source, &dest), &["a.png"]);

    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/fluent-emoji/images");
    let mut pictures: Vec<_> = fs::read_dir(all).unwrap().map(|e| e.unwrap().path()).collect();
    pictures.sort();
    for picture in &pictures[..3] {
        fs::copy(picture, source.join(picture.file_name().unwrap())).unwrap();
    }
    refuses(&mut data_tool(&["--resolution", "48"], &source, &dest), &["48", "power of two"]);
    refuses(&mut data_tool(&["--resolution", "1024"], &source, &dest), &["1024", "--upscale"]);
    refuses(&mut data_tool(&["--speed"], &source, &dest), &["--speed"]);
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    refuses(&mut data_tool(&[], &source, &file.join("below")), &["file"]);
    assert!(!dest.exists(), "nothing was begun");

    let done = run(&mut data_tool(&["--resolution", "16"], &source, &dest));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("a.png"), "{}", done.stderr);
    let before = fs::read(dest.join("manifest.json")).unwrap();
    refuses(&mut data_tool(&["--resolution", "8"], &source, &dest), &["--force"]);
    assert_eq!(before, fs::read(dest.join("manifest.json")).unwrap());
}
