//! Bad input: one line that says what, where and what to do; exit code 2; nothing overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};

use crate::support::{Space, noise, snapshot};

/// Runs `prepare` and expects an error with all of `words`, and no trace of it.
#[track_caller]
fn refused(space: &Space, arguments: &[&str], words: &[&str]) {
    let before = snapshot(&space.file(""));
    let error = space.run(&[&["prepare"], arguments].concat()).error();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert_eq!(snapshot(&space.file("")), before);
    assert!(!space.file("out").exists());
}

const FROM_TO: [&str; 4] = ["--source", "in", "--dest", "out"];

#[test]
fn sources_that_are_none() {
    let space = Space::new();
    refused(
        &space,
        &["--source", "nowhere", "--dest", "out"],
        &["nowhere: no such file", "--source"],
    );
    refused(&space, &FROM_TO, &["in: 0 good images among 0 image files", "at least 2"]);

    space.write("in/notes.txt", b"no image");
    refused(&space, &FROM_TO, &["0 image files (1 other files passed over)"]);

    space.write("in/notes.png", b"no image");
    noise(1, 8, 8).save(space.file("in/one.png")).unwrap();
    refused(&space, &FROM_TO, &["1 good images among 2", "notes.png: its content is no image"]);

    space.write("set.zip", b"PK\x03\x04 and then nothing of the kind");
    refused(
        &space,
        &["--source", "set.zip", "--dest", "out"],
        &["set.zip: not a readable zip archive"],
    );
    refused(
        &space,
        &["--source", "in/notes.txt", "--dest", "out"],
        &["in/notes.txt: its content is none of the formats"],
    );
}

#[test]
fn resolutions_that_are_none() {
    let space = Space::with_images(3, 20, 40);
    let with = |resolution| [FROM_TO.as_slice(), &["--resolution", resolution]].concat();
    refused(&space, &with("24"), &["resolution 24", "power of two from 4 to 8192", "such as 16"]);
    refused(&space, &with("32"), &["3 of 3 images are smaller", "--resolution 16", "--upscale"]);
    for wrong in ["64x32", "big", "-1", ""] {
        let run = space.prepare(&[&format!("--resolution={wrong}")]);
        assert_eq!(run.code, Some(2), "{wrong:?}");
        assert!(run.stderr.starts_with("error: ") && !space.file("out").exists(), "{}", run.stderr);
    }
}

#[test]
fn flags_that_are_none() {
    let space = Space::with_images(2, 8, 8);
    for wrong in ["--resolutoin=8", "--background=mauve", "--max-images=1", "--threads=0"] {
        let run = space.prepare(&[wrong]);
        assert_eq!(run.code, Some(2), "{wrong}");
        assert!(run.stderr.starts_with("error: ") && !space.file("out").exists(), "{}", run.stderr);
    }
}

#[test]
fn bad_files_are_named_counted_listed_and_skipped() {
    let space = Space::with_images(4, 16, 16);
    let mut jpeg = std::io::Cursor::new(Vec::new());
    noise(7, 64, 64).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    space.write("in/0000-cut.jpg", &jpeg[..jpeg.len() / 2]);
    space.write("in/0001-text.png", b"no image");
    space.write("in/0002-empty.gif", b"");
    let run = space.prepare(&[]);
    for name in
        ["0000-cut.jpg: JPEG: ", "0001-text.png: its content", "0002-empty.gif: the file is empty"]
    {
        assert!(run.stderr.contains(&format!("bad file {name}")), "{}", run.stderr);
    }
    assert!(run.ok().contains("3 bad files skipped"));

    let store = pggan_data::Store::open(space.file("out")).unwrap();
    assert_eq!((store.images(), store.manifest().bad.count), (4, 3));
    let listed: Vec<_> = store.manifest().bad.files.iter().map(|bad| bad.name.as_str()).collect();
    assert_eq!(
        listed,
        ["0000-cut.jpg", "0001-text.png", "0002-empty.gif"],
        "headers and pixels, in order"
    );
    assert_eq!(
        store.image(4, 3).unwrap()[..16],
        noise(3, 16, 16).as_raw().iter().copied().step_by(3).take(16).collect::<Vec<_>>()
    );

    let strict = space.run(&["prepare", "--source", "in", "--dest", "strict", "--strict"]).error();
    assert!(strict.contains("0001-text.png") && strict.contains("--strict"), "{strict}");
}

/// Headers are good, pixels are not: known only when the work has begun.
#[test]
fn nothing_is_left_when_all_images_turn_out_bad() {
    let space = Space::new();
    let mut png = std::io::Cursor::new(Vec::new());
    noise(7, 64, 64).write_to(&mut png, image::ImageFormat::Png).unwrap();
    for i in 0..3 {
        space.write(&format!("in/{i}.png"), &png.get_ref()[..2000]);
    }
    refused(&space, &FROM_TO, &["0 good images among 3", "0.png: "]);
}

#[test]
fn zip_bombs_are_bad_files() {
    let space = Space::new();
    let mut zip = zip::ZipWriter::new(File::create(space.file("set.zip")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for i in 0..3 {
        zip.start_file(format!("{i}.png"), options).unwrap();
        let mut png = std::io::Cursor::new(Vec::new());
        noise(i, 8, 8).write_to(&mut png, image::ImageFormat::Png).unwrap();
        zip.write_all(png.get_ref()).unwrap();
    }
    zip.start_file("../../bomb.png", options.compression_method(zip::CompressionMethod::Deflated))
        .unwrap();
    for _ in 0..64 {
        zip.write_all(&vec![0; 1 << 20]).unwrap();
    }
    zip.finish().unwrap();
    let run = space.run(&["prepare", "--source", "set.zip", "--dest", "out"]);
    assert!(
        run.stderr.contains("bad file ../../bomb.png") && run.stderr.contains("a zip bomb"),
        "{}",
        run.stderr
    );
    assert!(run.ok().contains("prepared 3 images"));
}

#[test]
fn destinations_that_cannot_be_written() {
    let space = Space::with_images(2, 8, 8);
    space.write("file", b"mine");
    refused(
        &space,
        &["--source", "in", "--dest", "file/out"],
        &["cannot create file/out/.partial: "],
    );
    refused(&space, &["--source", "in", "--dest", "file"], &["cannot create file/.partial: "]);
    space.write("full/mine.txt", b"mine");
    refused(
        &space,
        &["--source", "in", "--dest", "full"],
        &["full: not empty, and not prepared data"],
    );
    refused(&space, &["--source", "in", "--dest", "full", "--force"], &["full: not empty"]);
}

#[test]
fn stores_that_are_none() {
    let space = Space::new();
    for command in ["inspect", "verify"] {
        let error = space.run(&[command, "in"]).error();
        assert!(
            error.contains("in: no prepared data here") && error.contains("prepare-dataset"),
            "{error}"
        );
    }
    fs::create_dir(space.file("in/.partial")).unwrap();
    let error = space.run(&["verify", "in"]).error();
    assert!(error.contains("not finished"), "{error}");
}

/// Each damage is found, named and mended by --force.
#[test]
fn damaged_stores() {
    let space = Space::with_images(6, 16, 16);
    space.prepare(&[]).ok();
    let sound = snapshot(&space.file("out"));
    let flip = |name: &str, at: u64| {
        let mut file = OpenOptions::new().write(true).open(space.file(name)).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[0x55]).unwrap();
    };
    let cut = |name: &str, length: u64| {
        OpenOptions::new().write(true).open(space.file(name)).unwrap().set_len(length).unwrap();
    };
    let shard = "out/r04-00000.safetensors";
    let damages: [(&str, &dyn Fn(), &str); 7] = [
        (shard, &|| flip(shard, 1000), "BLAKE3"),
        (shard, &|| flip(shard, 20), "header"),
        (shard, &|| cut(shard, 4000), "length of 4000 bytes"),
        (shard, &|| fs::remove_file(space.file(shard)).unwrap(), "missing"),
        ("out/names.txt", &|| flip("out/names.txt", 3), "BLAKE3"),
        ("out/manifest.json", &|| cut("out/manifest.json", 100), "EOF"),
        ("out/manifest.json", &|| space.write("out/manifest.json", b"[1e999]"), "damaged"),
    ];
    for (name, damage, reason) in damages {
        damage();
        let error = space.run(&["verify", "out"]).error();
        assert!(error.contains(&format!("{name}: damaged")), "{error}");
        assert!(error.contains(reason) && error.contains("--force"), "{error}");
        space.prepare(&["--force"]).ok();
        assert_eq!(snapshot(&space.file("out")), sound, "{name} is mended");
    }
}

/// Hashes that were made to fit wrong levels are not enough for `verify`.
#[test]
fn levels_that_disagree() {
    let space = Space::with_images(3, 8, 8);
    space.prepare(&[]).ok();
    let (shard, manifest) =
        (space.file("out/r02-00000.safetensors"), space.file("out/manifest.json"));
    let mut bytes = fs::read(&shard).unwrap();
    let old = blake3::hash(&bytes).to_hex();
    bytes[200] ^= 1;
    space.write("out/r02-00000.safetensors", &bytes);
    let text = fs::read_to_string(&manifest)
        .unwrap()
        .replace(old.as_str(), blake3::hash(&bytes).to_hex().as_str());
    space.write("out/manifest.json", text.as_bytes());
    let error = space.run(&["verify", "out"]).error();
    assert!(error.contains("image 1 at level 2 is not the mean"), "{error}");
}

/// A manifest that claims what cannot be is refused without panic or allocation.
#[test]
fn lying_manifests() {
    let space = Space::with_images(3, 8, 8);
    space.prepare(&[]).ok();
    let text = fs::read_to_string(space.file("out/manifest.json")).unwrap();
    for (from, to) in [
        ("\"images\": 3", "\"images\": 18446744073709551615"),
        ("\"max_level\": 3", "\"max_level\": 63"),
        ("\"count\": 3", "\"count\": 4611686018427387904"),
        ("\"count\": 3", "\"count\": 0"),
        ("\"first\": 0", "\"first\": 1"),
        ("r03-00000", "../r03-00000"),
        ("\"version\": 3", "\"version\": 4"),
        ("\"labels\": 0", "\"labels\": 5"),
        ("\"labels\": 0", "\"labels\": 18446744073709551615"),
        ("pggan-pyramid", "another"),
        ("\"channels\": 3", "\"channels\": 0"),
    ] {
        assert!(text.contains(from));
        space.write("out/manifest.json", text.replace(from, to).as_bytes());
        let error = space.run(&["verify", "out"]).error();
        assert!(error.contains("out/manifest.json: damaged"), "{from} -> {to}: {error}");
    }
}

/// Counts of shards that add up to the number of images only beyond what a number can be.
#[test]
fn counts_that_overflow() {
    let space = Space::with_images(3, 8, 8);
    space.prepare(&[]).ok();
    let path = space.file("out/manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["images"] = u64::MAX.into();
    let shards = manifest["levels"][0]["shards"].as_array_mut().unwrap();
    shards[0]["count"] = u64::MAX.into();
    let mut next = shards[0].clone();
    next["file"] = "r02-00001.safetensors".into();
    next["first"] = u64::MAX.into();
    shards.push(next);
    space.write("out/manifest.json", manifest.to_string().as_bytes());
    let error = space.run(&["verify", "out"]).error();
    assert!(error.contains("out/manifest.json: damaged: r02-00001.safetensors has"), "{error}");
}
