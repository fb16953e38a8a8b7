//! From pictures to samples, through every kind of interruption.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pggan_tests::binary;

use crate::common::{self, Prepared, run, train};

/// Files of a run that must not depend on how often it was interrupted.
fn lasting_files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let lasting = |name: &str| {
        name.ends_with(".png") || name.ends_with(".safetensors") || name == "config.toml"
    };
    fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            lasting(&name).then(|| (name, fs::read(path).unwrap()))
        })
        .collect()
}

fn assert_same_files(a: &Path, b: &Path) {
    let (a, b) = (lasting_files(a), lasting_files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs");
    }
}

fn run_dir(outdir: &Path) -> PathBuf {
    let mut runs: Vec<PathBuf> = fs::read_dir(outdir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.pop().unwrap()
}

/// What the steps of a run reported, without its times.
fn measurements(run: &Path) -> Vec<serde_json::Value> {
    let stats = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    stats
        .lines()
        .map(|line| {
            let mut tick: serde_json::Value = serde_json::from_str(line).unwrap();
            let tick_fields = tick.as_object_mut().unwrap();
            tick_fields.retain(|key, _| !key.contains("second") && key != "waiting_share");
            tick
        })
        .collect()
}

#[test]
fn prepare_train_again_further_generate() {
    let data = Prepared::new(8);
    let out = data.path("runs");
    let first = run(&mut train(&data, &out));
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stderr.contains("tick 1 ") && first.stderr.contains("img/s"), "{}", first.stderr);
    let folder = run_dir(&out);
    for line in first.stderr.lines().filter_map(|l| l.strip_prefix("wrote ")) {
        assert!(Path::new(line).is_file(), "{line}");
    }
    for name in ["reals.png", "fakes000000.png", "config.toml", "log.txt"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let last = measurements(&folder).pop().unwrap();
    assert_eq!((&last["resolution"], &last["alpha"]), (&8.into(), &1.0.into()));
    assert!(last["gradient_norm"].as_f64().unwrap().is_finite());
    let log = fs::read_to_string(folder.join("log.txt")).unwrap();
    assert!(log.contains("tick 1 ") && log.contains("device  cpu"), "{log}");

    let before = lasting_files(&folder);
    let second = run(&mut train(&data, &out));
    assert_eq!(second.code, Some(0));
    assert!(second.stderr.contains("is done"), "{}", second.stderr);
    assert_eq!(before, lasting_files(&folder));

    let further = run(train(&data, &out).args(["--kimg", "6"]));
    assert_eq!(further.code, Some(0), "{}", further.stderr);
    assert!(further.stderr.contains("going on from"), "{}", further.stderr);
    assert!(measurements(&folder).last().unwrap()["images"].as_u64().unwrap() >= 6000);

    let other = run(train(&data, &out).args(["--new", "--seed", "5"]));
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);

    // A seed is an image, alone or among others.
    let generate = |seeds: &str, dest: &str| {
        let mut command = Command::new(binary("pggan-train"));
        command.arg("generate").arg("--network").arg(&folder).args(["--seeds", seeds, "--dest"]);
        let output = run(command.arg(data.path(dest)).args(["--grid", "3x3", "--device", "cpu"]));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    };
    generate("7", "alone");
    generate("0-8", "among");
    generate("7", "again");
    let seven = |dest: &str| fs::read(data.path(dest).join("seed0007.png")).unwrap();
    assert_eq!(seven("alone"), seven("among"));
    assert_eq!(seven("alone"), seven("again"));
    let picture = image::open(data.path("among").join("grid.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (24, 24));
    let one = image::open(data.path("among").join("seed0008.png")).unwrap();
    assert_eq!(picture.crop_imm(16, 16, 8, 8).to_rgb8(), one.to_rgb8());
}

/// Kills the trainer as soon as it says each of these, in turn, and lets it finish then.
#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let data = Prepared::new(8);
    let (whole, killed) = (data.path("whole"), data.path("killed"));
    assert_eq!(run(&mut train(&data, &whole)).code, Some(0));
    for trigger in ["device", "fakes000000", "tick 1", "tick 2", "tick 2", "tick 4"] {
        let mut child = train(&data, &killed).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let seen = lines.map_while(Result::ok).any(|line| line.contains(trigger));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        assert!(seen, "{trigger}");
    }
    let last = run(&mut train(&data, &killed));
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    assert!(last.stderr.contains("going on from"), "{}", last.stderr);
    assert_same_files(&run_dir(&whole), &run_dir(&killed));
    assert_eq!(measurements(&run_dir(&whole)), measurements(&run_dir(&killed)));
}

/// SIGTERM (a cluster's) and SIGINT (Ctrl-C) save in the middle of a tick and end with 0.
#[cfg(unix)]
#[test]
fn a_stopped_run_saves_and_ends_with_the_same_bytes() {
    let data = Prepared::new(8);
    let (whole, stopped) = (data.path("whole"), data.path("stopped"));
    assert_eq!(run(&mut train(&data, &whole)).code, Some(0));
    for (signal, trigger) in [("TERM", "tick 1"), ("INT", "tick 3")] {
        let mut child = train(&data, &stopped).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        for line in lines.map_while(Result::ok) {
            if line.contains(trigger) && !seen.iter().any(|l: &String| l.contains(trigger)) {
                let id = child.id().to_string();
                assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
            }
            seen.push(line);
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{seen:?}");
        assert!(seen.iter().any(|l| l.contains("stopped; saved")), "{seen:?}");
    }
    assert_eq!(run(&mut train(&data, &stopped)).code, Some(0));
    assert_same_files(&run_dir(&whole), &run_dir(&stopped));
    assert_eq!(measurements(&run_dir(&whole)), measurements(&run_dir(&stopped)));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_taken() {
    let data = Prepared::new(8);
    let (whole, damaged) = (data.path("whole"), data.path("damaged"));
    assert_eq!(run(&mut train(&data, &whole)).code, Some(0));
    let short = run(train(&data, &damaged).args(["--kimg", "3"]));
    assert_eq!(short.code, Some(0), "{}", short.stderr);

    let folder = run_dir(&damaged);
    let states = common::training_states(&folder);
    let newest = states.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(newest, bytes).unwrap();
    let again = run(&mut train(&data, &damaged));
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let warning = again.stderr.lines().find(|l| l.starts_with("warning: ")).unwrap();
    assert!(warning.contains(newest.to_str().unwrap()) && warning.contains("falling back"));

    // All of them damaged: an error, and nothing is trained anew by itself.
    for state in common::training_states(&folder) {
        fs::write(state, b"nothing").unwrap();
    }
    let lost = run(&mut train(&data, &damaged));
    assert_eq!(lost.code, Some(2));
    assert!(lost.stderr.contains("no checkpoint that can be read"), "{}", lost.stderr);
}
