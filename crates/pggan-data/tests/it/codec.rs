//! Stores whose large levels are image files.

use std::fs;

use pggan_data::{BatchSpec, LoaderOptions};
use pggan_data::{Store, loader};

use crate::resume::killed_at;
use crate::support::{Space, noise, snapshot};

const CODECS: [&str; 3] = ["png", "webp", "jpeg"];

/// Soft pictures, that compress.
fn with_pictures(count: u32, side: u32) -> Space {
    let space = Space::new();
    for i in 0..count {
        let picture = image::RgbImage::from_fn(side, side, |x, y| {
            let wave = |period: f32| (128.0 + 100.0 * ((x + y * i) as f32 / period).sin()) as u8;
            image::Rgb([wave(7.0), wave(11.0), (i * 9) as u8])
        });
        picture.save(space.file(&format!("in/{i:03}.png"))).unwrap();
    }
    space
}

fn prepare(space: &Space, dest: &str, more: &[&str]) -> String {
    space.run(&[&["prepare", "--source", "in", "--dest", dest][..], more].concat()).ok()
}

#[test]
fn every_codec_is_read_by_everything() {
    let space = with_pictures(9, 64);
    prepare(&space, "raw", &[]);
    let raw = Store::open(space.file("raw")).unwrap();
    for codec in CODECS {
        prepare(&space, codec, &["--codec", codec, "--codec-above", "16"]);
        let store = Store::open(space.file(codec)).unwrap();
        store.verify(2, |_| {}).unwrap();
        assert!(store.bytes_on_disk(6) < raw.bytes_on_disk(6) * 3 / 4, "{codec}");
        let table = space.run(&["inspect", codec, "--stats", "--dedup"]).ok();
        let kept_as = |side: &str| {
            let line = table.lines().find(|line| line.starts_with("  ") && line.contains(side));
            line.unwrap().split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!([kept_as("64x64"), kept_as("32x32"), kept_as("16x16")], [codec, codec, "raw"]);
        for level in 2..=6 {
            for index in 0..9 {
                let (is, was) =
                    (store.image(level, index).unwrap(), raw.image(level, index).unwrap());
                let worst = is.iter().zip(&*was).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= if codec == "jpeg" { 40 } else { 0 }, "{codec} {level}: {worst}");
            }
        }
        let spec = BatchSpec { level: 6, first_position: 0, count: 4 };
        let batch = loader::load(&store, &LoaderOptions::default(), spec, loader::Batch::empty());
        assert_eq!(batch.unwrap().pixels.len(), 4 * 3 * 64 * 64);
        let zip = format!("{codec}.zip");
        space.run(&["export", codec, "--format", "zip", "--dest", &zip]).ok();
        space.run(&["prepare", "--source", &zip, "--dest", &format!("{codec}-again")]).ok();
        let again = Store::open(space.file(&format!("{codec}-again"))).unwrap();
        assert_eq!(again.image(6, 8).unwrap(), store.image(6, 8).unwrap());
    }
}

/// What is taken over was made by a run that is gone, and the levels below are made of it.
#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    for codec in CODECS {
        let space = Space::with_images(90, 128, 128);
        let flags = ["--shard-mib", "1", "--codec", codec, "--codec-above", "32"];
        space.prepare(&flags).ok();
        let expected = snapshot(&space.file("out"));
        killed_at(&space, &flags, ".partial/journal-00001.json", || {});
        assert!(space.prepare(&flags).ok().contains("taken over from an earlier run"));
        assert_eq!(snapshot(&space.file("out")), expected, "{codec}");
    }
}

#[test]
fn parts_are_merged() {
    let space = with_pictures(10, 32);
    let flags = ["--resolution", "32", "--codec", "jpeg", "--codec-above", "8"];
    prepare(&space, "whole", &flags);
    for shard in ["1/2", "2/2"] {
        prepare(&space, "parts", &[&flags[..], &["--shard", shard]].concat());
    }
    space.run(&["merge", "parts"]).ok();
    let (whole, parts) = ["whole", "parts"].map(|dir| Store::open(space.file(dir)).unwrap()).into();
    parts.verify(1, |_| {}).unwrap();
    for index in 0..10 {
        assert_eq!(whole.image(5, index).unwrap(), parts.image(5, index).unwrap());
    }
}

#[test]
fn other_settings_are_another_data_set() {
    let space = with_pictures(3, 32);
    let jpeg = ["--codec", "jpeg", "--codec-above", "8"];
    prepare(&space, "out", &jpeg);
    assert!(prepare(&space, "out", &jpeg).starts_with("already prepared"));
    for other in [&[][..], &["--codec", "png"], &[&jpeg[..], &["--jpeg-quality", "50"]].concat()] {
        let error = space.prepare(other).error();
        assert!(error.contains("another --codec"), "{error}");
    }
    let error = space.prepare(&["--codec", "jpeg", "--channels", "4", "--force"]).error();
    assert!(error.contains("JPEG has no transparency"), "{error}");
}

/// Sums that are right and offsets or files that are not.
#[test]
fn lies_are_named() {
    let space = Space::new();
    for i in 0..3 {
        noise(i, 16, 16).save(space.file(&format!("in/{i}.png"))).unwrap();
    }
    let prepare = || prepare(&space, "out", &["--codec", "png", "--codec-above", "8", "--force"]);
    prepare();
    let sound = fs::read(space.file("out/r04-00000.safetensors")).unwrap();
    let offset = |place: usize| sound.len() - 8 * (4 - place);
    for (at, byte, reason) in [
        (offset(1) + 6, 1, "offsets"),
        (offset(0), 1, "offsets"),
        (offset(3) + 1, 0x7F, "offsets"),
        (256, b'x', "image 0: its content is no image"),
    ] {
        prepare();
        let mut bytes = sound.clone();
        bytes[at] = byte;
        space.write("out/r04-00000.safetensors", &bytes);
        let (old, new) = (blake3::hash(&sound).to_hex(), blake3::hash(&bytes).to_hex());
        let manifest = fs::read_to_string(space.file("out/manifest.json")).unwrap();
        assert!(manifest.contains(old.as_str()));
        space.write("out/manifest.json", manifest.replace(old.as_str(), new.as_str()).as_bytes());
        let error = space.run(&["verify", "out"]).error();
        assert!(error.contains(reason), "{error}");
    }
}
