//! Stores in the formats of others, and back.

use std::fs;

use pggan_data::Store;

use crate::support::{Space, snapshot};

/// A store with classes and one with vectors, in `out`.
fn spaces() -> Vec<(Space, usize)> {
    [(1, "1"), (3, "3"), (4, "4")]
        .map(|(channels, flag)| {
            let space = Space::with_images(7, 16, 16);
            let label = |i: usize| {
                if channels == 4 { format!("[{i}, 0.5]") } else { format!("{}", 3 * i % 5) }
            };
            let labels: Vec<String> =
                (0..7).map(|i| format!("[\"{i:04}.png\", {}]", label(i))).collect();
            space.write(
                "in/dataset.json",
                format!("{{\"labels\": [{}]}}", labels.join(",")).as_bytes(),
            );
            space.prepare(&["--channels", flag]).ok();
            (space, channels)
        })
        .into()
}

#[test]
fn every_format_is_read_back_pixel_for_pixel() {
    for (space, channels) in spaces() {
        let flag = channels.to_string();
        let original = Store::open(space.file("out")).unwrap();
        for (format, dest) in
            [("tfrecord", "tf/set"), ("zip", "set.zip"), ("folder", "png"), ("webdataset", "wds")]
        {
            space.run(&["export", "out", "--format", format, "--dest", dest]).ok();
            space.run(&["prepare", "--source", dest, "--dest", format, "--channels", &flag]).ok();
            let again = Store::open(space.file(format)).unwrap();
            assert_eq!(again.labels(), original.labels(), "{format} {channels}");
            assert_eq!((again.images(), again.max_level()), (7, 4));
            for level in 2..=4 {
                for index in 0..7 {
                    assert!(
                        again.image(level, index).unwrap() == original.image(level, index).unwrap(),
                        "{format}, {channels} channels, level {level}, image {index}"
                    );
                }
            }
        }
        assert_eq!(
            fs::read_dir(space.file(""))
                .unwrap()
                .filter(|item| {
                    item.as_ref().unwrap().file_name().to_string_lossy().contains("partial")
                })
                .count(),
            0
        );
    }
}

#[test]
fn the_files_are_those_that_others_read() {
    let (space, _) = spaces().swap_remove(1);
    space.run(&["export", "out", "--format", "tfrecord", "--dest", "tf/set"]).ok();
    let sizes: Vec<(String, usize)> = snapshot(&space.file("tf"))
        .into_iter()
        .map(|(path, bytes)| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), bytes.len())
        })
        .collect();
    let expected = [
        ("set-r02.tfrecords", 7 * 98),
        ("set-r03.tfrecords", 7 * 247),
        ("set-r04.tfrecords", 7 * 823),
        ("set-rxx.labels", 80 + 7 * 5 * 4),
    ];
    assert_eq!(sizes, expected.map(|(name, size)| (name.to_owned(), size)));

    space.run(&["export", "out", "--format", "folder", "--dest", "png", "--resolution", "8"]).ok();
    let png = image::open(space.file("png/00000/img00000006.png")).unwrap();
    assert_eq!((png.width(), png.height()), (8, 8));
    let json = fs::read_to_string(space.file("png/dataset.json")).unwrap();
    assert!(
        json.starts_with(r#"{"labels":[["00000/img00000000.png",0],["00000/img00000001.png",3],"#),
        "{json}"
    );

    // The same bytes on any number of threads.
    for threads in ["1", "5"] {
        let dest = format!("{threads}.zip");
        space
            .run(&["export", "out", "--format", "zip", "--dest", &dest, "--threads", threads])
            .ok();
    }
    assert!(fs::read(space.file("1.zip")).unwrap() == fs::read(space.file("5.zip")).unwrap());
}

#[test]
fn exports_that_cannot_be() {
    let space = Space::with_images(3, 8, 8);
    space.prepare(&[]).ok();
    space.write("full/mine.txt", b"mine");
    space.write("mine.zip", b"mine");
    let before = snapshot(&space.file(""));
    for (arguments, words) in [
        (["--format", "folder", "--dest", "full", "--threads", "1"], "full: exists already"),
        (["--format", "zip", "--dest", "mine.zip", "--threads", "1"], "mine.zip: exists already"),
        (["--format", "zip", "--dest", "x.zip", "--resolution", "16"], "at levels 2 to 3"),
        (["--format", "zip", "--dest", "x.zip", "--resolution", "9"], "power of two"),
        (
            ["--format", "zip", "--dest", "mine.zip/x.zip", "--threads", "1"],
            "cannot create mine.zip",
        ),
        (["--format", "gif", "--dest", "x", "--threads", "1"], "gif"),
    ] {
        let error = space.run(&[&["export", "out"], &arguments[..]].concat()).error();
        assert!(error.contains(words), "{error}");
        assert_eq!(snapshot(&space.file("")), before);
    }
    let error = space.run(&["export", "in", "--format", "zip", "--dest", "x.zip"]).error();
    assert!(error.contains("no prepared data here"), "{error}");
    // Damage is found before it is handed on, and nothing half done stays.
    let mut shard = fs::read(space.file("out/r03-00000.safetensors")).unwrap();
    *shard.last_mut().unwrap() ^= 1;
    space.write("out/r03-00000.safetensors", &shard);
    for format in ["tfrecord", "zip", "folder", "webdataset"] {
        let error = space.run(&["export", "out", "--format", format, "--dest", "x"]).error();
        assert!(error.contains("BLAKE3"), "{error}");
        assert!(!space.file("x").exists() && !space.file("x.partial").exists());
    }
}
