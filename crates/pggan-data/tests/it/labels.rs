//! Labels and channels, from the source to the batch.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use pggan_data::{BatchSpec, Labels, Loader, LoaderOptions, Store};

use crate::support::{Space, noise, snapshot};

fn open(space: &Space) -> Store {
    Store::open(space.file("out")).unwrap()
}

/// Images `a/0.png`, `a/1.png`, `b/0.png`, … of three folders.
fn in_folders() -> Space {
    let space = Space::new();
    for (folder, count) in [("ant", 2), ("bee", 3), ("cat", 1)] {
        fs::create_dir(space.file(&format!("in/{folder}"))).unwrap();
        for i in 0..count {
            noise(i, 8, 8).save(space.file(&format!("in/{folder}/{i}.png"))).unwrap();
        }
    }
    space
}

#[test]
fn folders_are_classes() {
    let space = in_folders();
    noise(9, 8, 8).save(space.file("in/beside.png")).unwrap();
    let run = space.prepare(&["--labels", "folders"]);
    assert!(run.stderr.contains("bad file beside.png: it has no label"), "{}", run.stderr);
    assert!(run.ok().starts_with("prepared 6 images with 3 labels"));
    let store = open(&space);
    assert_eq!(store.manifest().class_names, ["ant", "bee", "cat"]);
    assert_eq!(store.labels(), Some(&Labels::Classes { count: 3, of: vec![0, 0, 1, 1, 1, 2] }));
    assert_eq!(store.labels().unwrap().by_class().unwrap(), [vec![0, 1], vec![2, 3, 4], vec![5]]);

    let table = space.run(&["inspect", "out", "--contact-sheet", "sheet.png"]).ok();
    assert!(table.contains("3 classes") && table.contains("1           3  bee"), "{table}");
    let sheet = image::open(space.file("sheet.png")).unwrap().to_rgb8();
    assert_eq!(sheet.dimensions(), (3 * 8, 3 * 8), "a row for each class");
    assert_eq!(image::imageops::crop_imm(&sheet, 8, 8, 8, 8).to_image(), noise(1, 8, 8));
    assert!(space.run(&["verify", "out"]).ok().contains("6 images with 3 labels agree"));

    // Without being asked for, folders are no labels; the request is another one.
    let refused = space.prepare(&[]).error();
    assert!(refused.contains("other labels") && refused.contains("--force"), "{refused}");
    space.prepare(&["--force"]).ok();
    assert_eq!(open(&space).labels(), None);
    assert!(!space.file("out/labels.safetensors").exists());
}

#[test]
fn dataset_json_gives_classes_or_vectors() {
    let space = Space::with_images(4, 8, 8);
    let json = br#"{"labels": [["0001.png", 2], ["0000.png", 7], ["0003.png", 0], ["gone.png", 9],
                    ["0002.png", 1], ["0002.png", 2]]}"#;
    space.write("in/dataset.json", json);
    assert!(space.prepare(&[]).ok().starts_with("prepared 4 images with 8 labels"));
    assert_eq!(open(&space).labels(), Some(&Labels::Classes { count: 8, of: vec![7, 2, 2, 0] }));

    space.write(
        "in/dataset.json",
        br#"{"labels": [["0000.png", [1, 0.5]], ["0001.png", [-1, 2e3]]]}"#,
    );
    let run = space.prepare(&["--force", "--labels", "dataset.json"]);
    assert!(run.stderr.contains("bad file 0002.png: it has no label"), "{}", run.stderr);
    run.ok();
    let store = open(&space);
    let values = vec![1.0, 0.5, -1.0, 2000.0];
    assert_eq!(store.labels(), Some(&Labels::Vectors { width: 2, values }));
    assert!(space.run(&["inspect", "out"]).ok().contains("labels of 2 numbers"));

    space.prepare(&["--force", "--labels", "none"]).ok();
    assert_eq!((open(&space).images(), open(&space).labels()), (4, None));
}

#[test]
fn labels_in_a_zip() {
    let space = Space::with_images(2, 8, 8);
    let mut zip = zip::ZipWriter::new(File::create(space.file("set.zip")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for i in 0..2 {
        zip.start_file(format!("00000/img{i:08}.png"), options).unwrap();
        zip.write_all(&fs::read(space.file(&format!("in/{i:04}.png"))).unwrap()).unwrap();
    }
    zip.start_file("dataset.json", options).unwrap();
    let json = br#"{"labels": [["00000/img00000001.png", 1], ["00000\\img00000000.png", 0]]}"#;
    zip.write_all(json).unwrap();
    zip.finish().unwrap();
    space.run(&["prepare", "--source", "set.zip", "--dest", "out"]).ok();
    assert_eq!(open(&space).labels(), Some(&Labels::Classes { count: 2, of: vec![0, 1] }));
}

#[test]
fn labels_that_cannot_be_used() {
    let space = Space::with_images(2, 8, 8);
    for (json, flag, words) in [
        ("{\"labels\": [[\"0000.png\", -1]]}", "auto", "in: labels: its dataset.json: "),
        ("{\"labels\": [[\"0000.png\", 1.5]]}", "auto", "--labels none"),
        ("{\"labels\": [[\"0000.png\", [1e999]]]}", "auto", "dataset.json"),
        ("{\"labels\": [[\"0000.png\", 4000000000]]}", "auto", "at most 65536"),
        ("{\"labels\": [[\"0000.png\", 1], [\"0001.png\", [1]]]}", "auto", "some are vectors"),
        (
            "{\"labels\": [[\"0000.png\", [1, 2]], [\"0001.png\", [1]]]}",
            "auto",
            "2 and of 1 numbers",
        ),
        ("{\"labels\": [[\"x.png\", 1]]}", "auto", "names none of its images"),
        ("{\"labels\": [[\"0000.png\", 1", "auto", "EOF"),
        ("\u{7f}", "dataset.json", "dataset.json"),
        ("{\"labels\": null}", "dataset.json", "has no labels"),
        ("{}", "folders", "no image lies in a folder"),
    ] {
        space.write("in/dataset.json", json.as_bytes());
        let error = space.prepare(&["--labels", flag]).error();
        assert!(error.contains(words), "{json}: {error}");
        assert!(!space.file("out").exists());
    }
    fs::remove_file(space.file("in/dataset.json")).unwrap();
    let error = space.prepare(&["--labels", "dataset.json"]).error();
    assert!(error.contains("it has no dataset.json"), "{error}");
}

#[test]
fn batches_carry_the_labels_of_their_images() {
    let space = in_folders();
    space.prepare(&["--labels", "folders"]).ok();
    let store = Arc::new(open(&space));
    let specs = [(2, 0, 7), (3, 7, 4)].map(|(level, first_position, count)| BatchSpec {
        level,
        first_position,
        count,
    });
    let options = LoaderOptions { seed: 3, mirror: true, ..LoaderOptions::default() };
    for batch in Loader::new(&store, options, specs.into_iter()) {
        let batch = batch.unwrap();
        assert_eq!(batch.labels.len(), batch.count * 3);
        for (row, &index) in batch.labels.chunks_exact(3).zip(&batch.indices) {
            let mut expected = [0.0; 3];
            expected[store.labels().unwrap().class(index).unwrap() as usize] = 1.0;
            assert_eq!(row, expected);
        }
    }
}

#[test]
fn damaged_labels() {
    let space = in_folders();
    space.prepare(&["--labels", "folders"]).ok();
    let sound = snapshot(&space.file("out"));
    let path = space.file("out/labels.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (damage, words) in [
        (Some(flipped), "BLAKE3"),
        (Some(bytes[..20].to_vec()), "BLAKE3"),
        (Some(vec![]), ""),
        (None, "missing"),
    ] {
        match damage {
            Some(bytes) => space.write("out/labels.safetensors", &bytes),
            None => fs::remove_file(&path).unwrap(),
        }
        for command in ["inspect", "verify"] {
            let error = space.run(&[command, "out"]).error();
            assert!(error.contains("labels.safetensors") && error.contains(words), "{error}");
        }
        space.prepare(&["--labels", "folders", "--force"]).ok();
        assert_eq!(snapshot(&space.file("out")), sound);
    }
    // Hashes that were made to fit do not help labels that do not.
    let other = Labels::Classes { count: 3, of: vec![0, 1] };
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![2], &[0; 16]);
    let bytes = safetensors::serialize([("labels", view.unwrap())], None).unwrap();
    assert_eq!(other.len(), 2);
    let old = store_hash(&path);
    space.write("out/labels.safetensors", &bytes);
    let manifest = fs::read_to_string(space.file("out/manifest.json")).unwrap();
    space.write("out/manifest.json", manifest.replace(&old, &store_hash(&path)).as_bytes());
    let error = space.run(&["verify", "out"]).error();
    assert!(error.contains("do not fit 6 images"), "{error}");
}

fn store_hash(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap()).to_hex().to_string()
}

#[test]
fn a_killed_run_keeps_its_labels() {
    let space = Space::new();
    for i in 0..100 {
        let folder = format!("in/{}", i % 7);
        fs::create_dir_all(space.file(&folder)).unwrap();
        noise(i, 128, 128).save(space.file(&format!("{folder}/{i}.png"))).unwrap();
    }
    let flags = ["--labels", "folders", "--shard-mib", "1"];
    space.prepare(&flags).ok();
    let expected = snapshot(&space.file("out"));
    // What a run leaves that was killed after its second shard.
    let mut child = space
        .command(&[&flags[..], &["--force"]].concat())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() {
        if space.file("out/.partial/journal-00001.json").exists() {
            child.kill().unwrap();
        }
    }
    space.prepare(&[&flags[..], &["--force"]].concat()).ok();
    assert_eq!(snapshot(&space.file("out")), expected);
}

#[test]
fn grey_and_rgba_stores() {
    let space = Space::new();
    for i in 0..3_u8 {
        let image = image::RgbaImage::from_fn(8, 8, |x, y| {
            image::Rgba([30 * x as u8, 30 * y as u8, 90, if i == 1 { 255 } else { 0 }])
        });
        image.save(space.file(&format!("in/{i}.png"))).unwrap();
    }
    space.prepare(&["--channels", "4"]).ok();
    let store = open(&space);
    assert_eq!((store.channels(), store.manifest().channels), (4, 4));
    let (clear, opaque) = (store.image(3, 0).unwrap(), store.image(3, 1).unwrap());
    assert_eq!((clear.len(), opaque.len()), (256, 256));
    assert_eq!(clear[..192], opaque[..192], "colours of what is transparent are kept");
    assert!(clear[192..].iter().all(|&a| a == 0) && opaque[192..].iter().all(|&a| a == 255));
    assert!(space.run(&["verify", "out"]).ok().contains("sound"));
    assert!(space.run(&["inspect", "out", "--contact-sheet", "s.png"]).ok().contains("RGBA"));
    let sheet = image::open(space.file("s.png")).unwrap().to_rgb8();
    assert_eq!(sheet.get_pixel(3, 3).0, [255; 3], "the transparent one is white");
    assert_eq!(sheet.get_pixel(11, 2).0, [90, 60, 90]);

    let refused = space.prepare(&[]).error();
    assert!(refused.contains("channels 4, not 3"), "{refused}");
    space.prepare(&["--channels", "1", "--force", "--background", "black"]).ok();
    let store = open(&space);
    assert_eq!(*store.image(3, 0).unwrap(), [0; 64]);
    // 0.299·90 + 0.587·60 + 0.114·90 = 72.4
    assert_eq!(store.image(3, 1).unwrap()[2 * 8 + 3], 72);
    assert!(space.run(&["verify", "out"]).ok().contains("sound"));
    let loaded = pggan_data::loader::load(
        &store,
        &LoaderOptions::default(),
        BatchSpec { level: 2, first_position: 0, count: 5 },
        pggan_data::Batch::empty(),
    );
    assert_eq!(loaded.unwrap().pixels.len(), 5 * 16);
    for wrong in ["2", "0", "rgb", "5"] {
        let error = space.run(&["prepare", "--source=in", "--dest=x", "--channels", wrong]).error();
        assert!(error.contains("1 (grey), 3 (RGB) or 4"), "{error}");
    }
}

/// A store that the program of before labels and channels has written.
#[test]
fn version_1_is_read() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let store = Store::open(data.join("version-1")).unwrap();
    assert_eq!((store.images(), store.channels(), store.max_level()), (3, 3, 3));
    assert_eq!(store.labels(), None);
    store.verify(2, |_| {}).unwrap();

    // The request that made it finds it done.
    let space = Space::new();
    fs::create_dir(space.file("out")).unwrap();
    for item in fs::read_dir(data.join("version-1")).unwrap() {
        let path = item.unwrap().path();
        fs::copy(&path, space.file("out").join(path.file_name().unwrap())).unwrap();
    }
    let source = data.join("version-1-source");
    let run = space.run(&["prepare", "--source", source.to_str().unwrap(), "--dest", "out"]);
    assert!(run.ok().starts_with("already prepared: 3 images at"));
}
