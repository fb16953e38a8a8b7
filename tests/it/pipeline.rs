//! From pictures to samples, through every kind of interruption.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pggan_tests::Outcome;

use crate::common::{Prepared, training_states};

/// Files of a run that must not depend on how often it was interrupted.
fn lasting_files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let lasting = |path: &PathBuf| {
        let kind = path.extension().and_then(OsStr::to_str);
        matches!(kind, Some("png" | "safetensors" | "toml"))
    };
    let paths = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(lasting)
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect()
}

/// What the steps of a run reported, without its times.
fn measurements(run: &Path) -> Vec<serde_json::Value> {
    let stats = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    let without_times = |line: &str| {
        let mut tick: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = tick.as_object_mut().unwrap();
        fields.retain(|key, _| !key.contains("second") && key != "waiting_share");
        tick
    };
    stats.lines().map(without_times).collect()
}

pub(crate) fn assert_same(a: &Path, b: &Path) {
    assert_eq!(measurements(a), measurements(b));
    let (a, b) = (lasting_files(a), lasting_files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs");
    }
}

/// Starts a process, reads what it says and calls `then` once, when a line has `trigger` in it. Returns all lines.
pub(crate) fn watch(
    command: &mut Command,
    trigger: &str,
    then: impl FnOnce(&mut Child),
) -> (Child, Vec<String>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut then = Some(then);
    let mut seen = Vec::new();
    for line in lines {
        let now = line.contains(trigger);
        seen.push(line);
        if now && let Some(then) = then.take() {
            then(&mut child);
        }
    }
    assert!(then.is_none(), "{trigger:?} was not said: {seen:?}");
    (child, seen)
}

#[test]
fn train_again_further_anew_and_generate() {
    let data = Prepared::new();
    let (first, run) = data.trained("runs");
    assert!(first.stderr.contains("tick 1 ") && first.stderr.contains("img/s"), "{first}");
    let wrote: Vec<&str> = first.stderr.lines().filter_map(|l| l.strip_prefix("wrote ")).collect();
    assert!(wrote.len() > 5 && wrote.iter().all(|file| data.path(file).is_file()), "{wrote:?}");
    for name in ["reals.png", "fakes000000.png", "fakes000005.png", "config.toml", "log.txt"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    let last = measurements(&run).pop().unwrap();
    assert_eq!((&last["resolution"], &last["alpha"]), (&8.into(), &1.0.into()));
    assert!(last["gradient_norm"].as_f64().unwrap().is_finite());
    let log = fs::read_to_string(run.join("log.txt")).unwrap();
    assert!(log.contains("tick 1 ") && log.contains("device  cpu"), "{log}");

    let before = lasting_files(&run);
    let second = Outcome::of(&mut data.train("runs")).succeeded();
    assert!(second.stderr.contains("is done"), "{second}");
    assert_eq!(before, lasting_files(&run));

    let further = Outcome::of(data.train("runs").args(["--kimg", "6"]));
    // `--kimg` and `--set schedule.total_kimg` are the same setting, and the last word is `--set`'s.
    assert!(further.succeeded().stderr.contains("is done"));
    let further = data
        .trainer(["train", "--resume", "runs", "--kimg", "6"])
        .arg("--device=cpu")
        .output()
        .unwrap();
    assert!(further.status.success(), "{}", String::from_utf8_lossy(&further.stderr));
    assert!(measurements(&run).last().unwrap()["images"].as_u64().unwrap() >= 6000);

    let anew = Outcome::of(data.train("runs").args(["--new", "--seed", "5"])).succeeded();
    assert!(anew.stderr.contains("00001-data-8-quick"), "{anew}");

    // A seed is an image, alone or among others.
    let generate = |seeds: &str, dest: &str| {
        let mut command = data.trainer(["generate", "--seeds", seeds, "--dest", dest, "--network"]);
        Outcome::of(command.arg(&run).args(["--grid", "3x3", "--device", "cpu"])).succeeded();
        data.path(dest)
    };
    let (alone, among, again) =
        (generate("7", "alone"), generate("0-8", "among"), generate("7", "again"));
    let seven = |folder: &Path| fs::read(folder.join("seed0007.png")).unwrap();
    assert_eq!(seven(&alone), seven(&among));
    assert_eq!(seven(&alone), seven(&again));
    let picture = image::open(among.join("grid.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (24, 24));
    let eight = image::open(among.join("seed0008.png")).unwrap();
    assert_eq!(picture.crop_imm(16, 16, 8, 8).to_rgb8(), eight.to_rgb8());
}

/// SIGKILL as soon as the trainer has said each of these, in turn: amid steps, pictures and checkpoints.
#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let data = Prepared::new();
    let (_, whole) = data.trained("whole");
    for trigger in ["device", "fakes000000", "tick 1 ", "tick 2 ", "fakes000002", "tick 4 "] {
        let kill = |child: &mut Child| child.kill().unwrap();
        let (mut child, seen) = watch(&mut data.train("killed"), trigger, kill);
        assert!(!child.wait().unwrap().success(), "{seen:?}");
    }
    let (last, killed) = data.trained("killed");
    assert!(last.stderr.contains("going on from"), "{last}");
    assert_same(&whole, &killed);
}

/// A disk that fails for a line of the log or for a network, and a kill at that moment, cost a tick and not the file.
#[cfg(unix)]
#[test]
fn what_a_tick_leaves_is_written_before_the_state_that_ends_it() {
    let data = Prepared::new();
    let (_, whole) = data.trained("whole");
    // A run of these settings that has not begun.
    let run = data.path("failing").join(whole.file_name().unwrap());
    fs::create_dir_all(&run).unwrap();
    fs::copy(whole.join("config.toml"), run.join("config.toml")).unwrap();

    let stats = run.join("stats.jsonl");
    std::os::unix::fs::symlink("no-such-folder/stats.jsonl", &stats).unwrap();
    let refused = Outcome::of(&mut data.train("failing")).refused();
    assert!(refused.contains("stats.jsonl"), "{refused}");
    fs::remove_file(&stats).unwrap();

    for name in ["network-snapshot-000002.safetensors", "network-snapshot-000005.safetensors"] {
        fs::create_dir(run.join(name)).unwrap();
        let refused = Outcome::of(&mut data.train("failing")).refused();
        assert!(refused.contains(name), "{refused}");
        fs::remove_dir(run.join(name)).unwrap();
    }
    data.trained("failing");
    assert_same(&whole, &run);
}

/// SIGTERM (a cluster's) and SIGINT (Ctrl-C) save in the middle of a tick and end with 0.
#[cfg(unix)]
#[test]
fn a_stopped_run_saves_and_ends_with_the_same_bytes() {
    let data = Prepared::new();
    let (_, whole) = data.trained("whole");
    for (signal, trigger) in [("TERM", "tick 1 "), ("INT", "tick 3 ")] {
        let stop = |child: &mut Child| {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        };
        let (mut child, seen) = watch(&mut data.train("stopped"), trigger, stop);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{seen:?}");
        assert!(seen.iter().any(|l| l.contains("stopped; saved")), "{seen:?}");
    }
    let (_, stopped) = data.trained("stopped");
    assert_same(&whole, &stopped);

    // Stopped before its first snapshot, a run still has the networks that it would go on with.
    let snapshots = fs::read_dir(&stopped).unwrap().map(|entry| entry.unwrap().path());
    for path in snapshots.filter(|path| path.to_string_lossy().contains("network-snapshot-")) {
        fs::remove_file(path).unwrap();
    }
    let draw = |run: &Path, dest: &str| {
        let mut command = data.trainer(["generate", "--seeds", "3", "--dest", dest, "--network"]);
        Outcome::of(command.arg(run).args(["--device", "cpu"])).succeeded();
        fs::read(data.path(dest).join("seed0003.png")).unwrap()
    };
    assert_eq!(draw(&stopped, "from-state"), draw(&whole, "from-snapshot"));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_taken() {
    let data = Prepared::new();
    let (_, whole) = data.trained("whole");
    let (_, run) = data.trained("damaged");
    let newest = training_states(&run).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&newest, bytes).unwrap();
    let again = Outcome::of(&mut data.train("damaged")).succeeded();
    let warning = again.stderr.lines().find(|l| l.starts_with("warning: ")).unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(warning.contains(name) && warning.contains("falling back"), "{warning}");
    assert_same(&whole, &run);

    // All of them damaged: an error, and nothing begins anew by itself.
    for state in training_states(&run) {
        fs::write(state, b"nothing").unwrap();
    }
    let lost = Outcome::of(&mut data.train("damaged")).refused();
    assert!(lost.contains("no checkpoint that can be read") && lost.contains("--new"), "{lost}");
}
