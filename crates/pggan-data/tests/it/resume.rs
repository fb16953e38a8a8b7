//! Preparation that is killed, and goes on.

use std::fs::{self, File};
use std::process::Stdio;

use crate::support::{Space, snapshot};

const SMALL_SHARDS: [&str; 2] = ["--shard-mib", "1"];

/// Starts `prepare` and kills it as soon as `file` is in `out`; tells whether it was in time.
fn kill_at(space: &Space, arguments: &[&str], file: &str) -> bool {
    let mut child =
        space.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let file = space.file("out").join(file);
    while child.try_wait().unwrap().is_none() {
        if file.exists() {
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        std::thread::yield_now();
    }
    false
}

/// The same, from the start and again until it was in time and the file is still there.
pub(crate) fn killed_at(space: &Space, arguments: &[&str], file: &str, before: impl Fn()) {
    loop {
        fs::remove_dir_all(space.file("out")).ok();
        before();
        if kill_at(space, arguments, file) && space.file("out").join(file).exists() {
            return;
        }
    }
}

#[test]
fn a_killed_run_is_continued_to_the_same_bytes() {
    let undisturbed = Space::with_images(150, 128, 128);
    undisturbed.write("in/0050-bad.png", b"no image");
    undisturbed.prepare(&SMALL_SHARDS).ok();
    let expected: Vec<_> = snapshot(&undisturbed.file("out")).into_values().collect();

    let killed = Space::with_images(150, 128, 128);
    killed.write("in/0050-bad.png", b"no image");
    let out = killed.file("out");
    // Again and again, each time a little later: as soon as there is anything, then at each shard (there
    // are eight of 21 images), then at the manifest.
    kill_at(&killed, &SMALL_SHARDS, "");
    for shard in 0..7 {
        kill_at(&killed, &SMALL_SHARDS, &format!(".partial/journal-{shard:05}.json"));
        if out.join("manifest.json").exists() {
            killed.run(&["verify", "out"]).ok();
        }
    }
    kill_at(&killed, &SMALL_SHARDS, ".partial/manifest.json");
    kill_at(&killed, &SMALL_SHARDS, "manifest.json");
    killed.prepare(&SMALL_SHARDS).ok();
    assert!(snapshot(&out).into_values().eq(expected.clone()));

    // The last moment of all: only the empty staging folder was left to be removed.
    killed.write("out/.partial/lock", b"");
    assert!(killed.prepare(&SMALL_SHARDS).ok().starts_with("already prepared"));
    assert!(snapshot(&out).into_values().eq(expected));
}

#[test]
fn finished_shards_are_taken_over_and_damaged_ones_are_not() {
    let space = Space::with_images(100, 128, 128);
    space.prepare(&SMALL_SHARDS).ok();
    let expected = snapshot(&space.file("out"));

    killed_at(&space, &SMALL_SHARDS, ".partial/journal-00002.json", || {});
    // Damage the second of them: the first is taken over, the others are made again.
    let mut bytes = fs::read(space.file("out/.partial/r07-00001.safetensors")).unwrap();
    bytes[5000] ^= 1;
    space.write("out/.partial/r07-00001.safetensors", &bytes);
    let said = space.prepare(&SMALL_SHARDS).ok();
    assert!(said.contains("21 taken over from an earlier run"), "{said}");
    assert_eq!(snapshot(&space.file("out")), expected);
}

#[test]
fn a_run_with_other_settings_starts_afresh() {
    let space = Space::with_images(100, 128, 128);
    killed_at(&space, &SMALL_SHARDS, ".partial/journal-00001.json", || {});
    let said = space.prepare(&["--shard-mib", "1", "--resolution", "64"]).ok();
    assert!(said.contains("100 images at 4x4 to 64x64") && !said.contains("taken over"), "{said}");
    space.run(&["verify", "out"]).ok();
}

/// Until the new store is complete the old one stays.
#[test]
fn an_older_store_survives_a_killed_replacement() {
    let space = Space::with_images(100, 128, 128);
    let replace = ["--shard-mib", "1", "--force"];
    killed_at(&space, &replace, ".partial/journal-00001.json", || {
        space.prepare(&["--resolution", "8"]).ok();
    });
    let out = space.file("out");
    assert_eq!(pggan_data::Store::open(&out).unwrap().max_level(), 3);
    assert!(space.run(&["verify", "out"]).ok().contains("sound"));
    assert!(space.prepare(&replace).ok().contains("taken over"));
    assert_eq!(pggan_data::Store::open(&out).unwrap().max_level(), 7);
    assert!(!out.join(".partial").exists());
}

#[test]
fn two_at_once_do_not_mix() {
    let space = Space::with_images(3, 8, 8);
    space.write("out/.partial/lock", b"");
    let lock = File::open(space.file("out/.partial/lock")).unwrap();
    lock.lock().unwrap();
    let error = space.prepare(&[]).error();
    assert!(error.contains("out: another process is preparing data here"), "{error}");
    drop(lock);
    space.prepare(&[]).ok();
}
