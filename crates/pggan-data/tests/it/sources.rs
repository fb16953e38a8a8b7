//! Every format that images come in, and bad files of each.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use pggan_data::source::{LabelsFrom, Source};
use pggan_data::{Labels, Store};

use crate::support::{Space, noise};

/// A CIFAR image: planes of 32x32 that depend on `seed`.
pub(crate) fn cifar_image(seed: usize) -> Vec<u8> {
    (0..3072).map(|i| (i * 7 + i / 1024 * 31 + seed * 13) as u8).collect()
}

fn cifar_10(images: std::ops::Range<usize>) -> Vec<u8> {
    images.flat_map(|i| [vec![(i % 7) as u8], cifar_image(i)].concat()).collect()
}

/// A batch as Python 2 has pickled those of the CIFAR sets.
fn cifar_pickle(key: &str, images: std::ops::Range<usize>) -> Vec<u8> {
    let text = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let mut pickle = b"\x80\x02}q\x01(".to_vec();
    pickle.extend([text("batch_label"), b"q\x02".to_vec(), text("training batch 1 of 5")].concat());
    pickle.extend([text("coarse_labels"), b"]q\x03(K\x01K\x02e".to_vec()].concat());
    pickle.extend([text(key), b"q\x04]q\x05(".to_vec()].concat());
    pickle.extend(images.clone().flat_map(|i| [b'K', (i % 7) as u8]));
    pickle.extend([b"e".to_vec(), text("data"), b"q\x06".to_vec()].concat());
    pickle.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85");
    pickle.extend([text("b"), b"\x87Rq\x09(K\x01".to_vec()].concat());
    pickle.extend([b"M", &(images.len() as u16).to_le_bytes()[..], b"M\x00\x0c\x86"].concat());
    pickle.extend(
        [b"cnumpy\ndtype\nq\x0a".to_vec(), text("u1"), b"K\x00K\x01\x87R(K\x03".to_vec()].concat(),
    );
    pickle
        .extend([text("|"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89".to_vec()].concat());
    let pixels: Vec<u8> = images.flat_map(cifar_image).collect();
    pickle.extend([b"T", &(pixels.len() as u32).to_le_bytes()[..], &pixels, b"tb"].concat());
    pickle
        .extend([text("filenames"), b"q\x0b](".to_vec(), text("a.png"), b"eu.".to_vec()].concat());
    pickle
}

fn tar(path: &Path, files: &[(&str, &[u8])]) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
}

fn gzip(from: &Path, to: &Path) {
    let mut packed =
        flate2::write::GzEncoder::new(File::create(to).unwrap(), flate2::Compression::fast());
    packed.write_all(&fs::read(from).unwrap()).unwrap();
    packed.finish().unwrap();
}

fn png(seed: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    noise(seed, 8, 8).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Prepares `source` to `out`, in place of what was there, and opens it.
fn prepare(space: &Space, source: &str, more: &[&str]) -> Store {
    fs::remove_dir_all(space.file("out")).ok();
    space.run(&[&["prepare", "--source", source, "--dest", "out"], more].concat()).ok();
    Store::open(space.file("out")).unwrap()
}

#[test]
fn cifar_in_all_its_forms() {
    let space = Space::new();
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    for (file, images) in
        [("data_batch_1.bin", 0..5), ("data_batch_2.bin", 5..9), ("test_batch.bin", 50..52)]
    {
        space.write(&format!("in/{file}"), &cifar_10(images));
    }
    space.write("in/batches.meta.txt", names.as_bytes());
    let check = |store: &Store, images: usize, classes: usize| {
        assert_eq!((store.images() as usize, store.max_level()), (images, 5));
        let of = (0..images as u32).map(|i| i % 7).collect();
        assert_eq!(store.labels(), Some(&Labels::Classes { count: classes, of }));
        for i in 0..images {
            assert!(store.image(5, i as u64).unwrap() == cifar_image(i), "image {i}");
        }
    };
    let store = prepare(&space, "in", &[]);
    check(&store, 9, 10);
    assert_eq!(store.manifest().class_names[9], "truck");
    let listed = fs::read_to_string(space.file("out/names.txt")).unwrap();
    assert!(listed.starts_with("data_batch_1/00000\n") && listed.ends_with("data_batch_2/00003\n"));
    check(&prepare(&space, "in/data_batch_1.bin", &[]), 5, 5);

    // Packed, as it is handed out.
    let (first, second) = (cifar_10(0..5), cifar_10(5..9));
    let folder = "cifar-10-batches-bin";
    let files = [
        (format!("{folder}/data_batch_2.bin"), &second[..]),
        (format!("{folder}/batches.meta.txt"), names.as_bytes()),
        (format!("{folder}/data_batch_1.bin"), &first[..]),
        (format!("{folder}/readme.html"), b"..."),
    ];
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    tar(&space.file("set.tar"), &files);
    gzip(&space.file("set.tar"), &space.file("cifar-10-binary.tar.gz"));
    check(&prepare(&space, "cifar-10-binary.tar.gz", &[]), 9, 10);
    check(&prepare(&space, "set.tar", &[]), 9, 10);

    // The Python version, whose pickles are only read.
    let (first, second) = (cifar_pickle("labels", 0..5), cifar_pickle("labels", 5..9));
    let folder = "cifar-10-batches-py";
    let files = [
        (format!("{folder}/data_batch_1"), &first[..]),
        (format!("{folder}/data_batch_2"), &second[..]),
        (format!("{folder}/test_batch"), b"never looked at"),
    ];
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    tar(&space.file("py.tar"), &files);
    check(&prepare(&space, "py.tar", &[]), 9, 7);

    // CIFAR-100: the fine label is the second.
    let records: Vec<u8> =
        (0..4).flat_map(|i| [vec![19, (i % 7) as u8], cifar_image(i)].concat()).collect();
    space.write("hundred/train.bin", &records);
    space.write("hundred/test.bin", b"never looked at");
    check(&prepare(&space, "hundred", &[]), 4, 4);
    let pickle = cifar_pickle("fine_labels", 0..4);
    tar(
        &space.file("py100.tar"),
        &[("cifar-100-python/train", &pickle[..]), ("cifar-100-python/fine_label_names.txt", b"")],
    );
    check(&prepare(&space, "py100.tar", &[]), 4, 4);
}

#[test]
fn mnist_gets_its_margin_and_its_labels() {
    let space = Space::new();
    let image = |i: usize| (0..784).map(move |p| (p + 100 * i) as u8).collect::<Vec<_>>();
    let header = [0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 28, 0, 0, 0, 28];
    let images = [&header[..], &(0..3).flat_map(image).collect::<Vec<_>>()].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 4];
    space.write("train-images-idx3-ubyte", &images);
    space.write("train-labels-idx1-ubyte", &labels);
    gzip(&space.file("train-images-idx3-ubyte"), &space.file("t10k-images-idx3-ubyte.gz"));
    gzip(&space.file("train-labels-idx1-ubyte"), &space.file("t10k-labels-idx1-ubyte.gz"));
    for source in ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"] {
        let store = prepare(&space, source, &["--channels", "1"]);
        assert_eq!((store.images(), store.channels(), store.max_level()), (3, 1, 5));
        assert_eq!(store.labels(), Some(&Labels::Classes { count: 10, of: vec![9, 0, 4] }));
        for i in 0..3 {
            let pixels = store.image(5, i).unwrap();
            for (y, row) in pixels.chunks_exact(32).enumerate() {
                let mut expected = [0; 32];
                if (2..30).contains(&y) {
                    expected[2..30].copy_from_slice(&image(i as usize)[28 * (y - 2)..][..28]);
                }
                assert_eq!(row, expected, "image {i} row {y}");
            }
        }
    }
    // Three channels are the same thrice.
    let store = prepare(&space, "train-images-idx3-ubyte", &[]);
    let pixels = store.image(5, 1).unwrap();
    assert!(pixels[..1024] == pixels[1024..2048] && pixels[..1024] == pixels[2048..]);
}

#[test]
fn tar_archives_and_shards_of_webdataset() {
    let space = Space::new();
    let pngs: Vec<Vec<u8>> = (0..4).map(png).collect();
    let first: [(&str, &[u8]); 6] = [
        ("a/000001.png", &pngs[1]),
        ("a/000001.cls", b"3\n"),
        ("a/000000.png", &pngs[0]),
        ("a/000000.cls", b" 1"),
        ("a/000000.json", b"{\"caption\": \"a class it is not\"}"),
        ("notes.txt", b"-"),
    ];
    tar(&space.file("set.tar"), &first);
    gzip(&space.file("set.tar"), &space.file("set.tgz"));
    for source in ["set.tar", "set.tgz"] {
        let store = prepare(&space, source, &[]);
        assert_eq!(store.labels(), Some(&Labels::Classes { count: 4, of: vec![1, 3] }));
        assert_eq!(store.manifest().passed_over, 1);
        assert_eq!(
            fs::read_to_string(space.file("out/names.txt")).unwrap(),
            "a/000000.png\na/000001.png\n"
        );
    }
    let second: [(&str, &[u8]); 4] = [
        ("000002.png", &pngs[2]),
        ("000002.cls", b"0"),
        ("000003.png", &pngs[3]),
        ("000003.cls", b"0"),
    ];
    fs::rename(space.file("set.tar"), space.file("in/set-000000.tar")).unwrap();
    tar(&space.file("in/set-000001.tar"), &second);
    let store = prepare(&space, "in", &[]);
    assert_eq!(store.labels(), Some(&Labels::Classes { count: 4, of: vec![1, 3, 0, 0] }));
    let expected: Vec<u8> = noise(3, 8, 8).pixels().map(|p| p.0[1]).collect();
    assert_eq!(store.image(3, 3).unwrap()[64..128], expected);
    assert_eq!(prepare(&space, "in", &["--labels", "none"]).labels(), None);
}

/// Files that TensorFlow has written, and what it has read from them.
#[test]
fn tfrecords_of_tensorflow_pixel_for_pixel() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tfrecord");
    let space = Space::new();
    let store = prepare(&space, data.to_str().unwrap(), &[]);
    assert_eq!((store.images(), store.channels(), store.max_level()), (5, 3, 4));
    assert_eq!(store.labels().map(Labels::width), Some(3));
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(data.join("expected.json")).unwrap()).unwrap();
    for level in 2..=4 {
        let images = expected["levels"][(1 << level).to_string()].as_array().unwrap();
        for (index, image) in images.iter().enumerate() {
            let pixels = store.image(level, index as u64).unwrap();
            let mut crc = flate2::Crc::new();
            crc.update(&pixels);
            assert_eq!(image["crc32"], crc.sum(), "level {level} image {index}");
            assert_eq!(image["first4"], serde_json::json!(pixels[..4]));
        }
    }
    let lower = prepare(&space, data.join("tfrecord-r02.tfrecords").to_str().unwrap(), &[]);
    assert_eq!((lower.images(), lower.max_level()), (5, 2));
    for index in 0..5 {
        let mut pixels = Vec::new();
        pixels.extend_from_slice(&lower.image(2, index).unwrap());
        let whole = prepare(&space, data.to_str().unwrap(), &[]);
        assert_eq!(whole.image(2, index).unwrap(), pixels);
    }
}

/// Files that liblmdb and scipy have written: see `tests/data/make.py`.
#[test]
fn lmdb_databases() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lmdb");
    let space = Space::new();
    for source in [data.clone(), data.join("data.mdb")] {
        let store =
            prepare(&space, source.to_str().unwrap(), &["--resolution", "4", "--transform", "pad"]);
        assert_eq!(store.images(), 7);
        let names = fs::read_to_string(space.file("out/names.txt")).unwrap();
        assert_eq!(names, "key-0\nkey-1\nkey-2\nkey-3\nkey-4\nkey-5\nnoise\n");
        for i in 0..6 {
            let blue = &store.image(2, i).unwrap()[32..];
            assert!(blue.iter().all(|&blue| u64::from(blue) == 40 * i), "image {i}: {blue:?}");
        }
    }
}

#[test]
fn svhn_is_turned_upright() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let space = Space::new();
    for source in ["svhn.mat", "svhn-plain.mat"] {
        let store = prepare(&space, data.join(source).to_str().unwrap(), &[]);
        assert_eq!((store.images(), store.max_level()), (4, 5));
        assert_eq!(store.labels(), Some(&Labels::Classes { count: 10, of: vec![1, 0, 3, 2] }));
        for n in 0..4 {
            for (i, &pixel) in store.image(5, n as u64).unwrap().iter().enumerate() {
                let (c, y, x) = (i / 1024, i / 32 % 32, i % 32);
                assert_eq!(pixel as usize, y + 2 * x + 50 * c + 10 * n, "{source} {n} {c} {y} {x}");
            }
        }
    }
}

/// A folder of image files is one, whatever else lies in it.
#[test]
fn image_files_come_first() {
    let space = Space::with_images(3, 8, 8);
    fs::rename(space.file("in/0000.png"), space.file("in/data_batch_1.png")).unwrap();
    tar(&space.file("in/set.tar"), &[("a.png", &png(0))]);
    space.write("in/data.mdb", b"-");
    space.write("in/x.parquet", b"-");
    let store = prepare(&space, "in", &[]);
    assert_eq!((store.images(), store.manifest().passed_over), (3, 3));
}

/// Files that pyarrow has written as the library `datasets` does.
#[test]
fn parquet_of_hugging_face() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
    let space = Space::new();
    let run = |source: &Path, more: &[&str]| {
        fs::remove_dir_all(space.file("out")).ok();
        let source = source.to_str().unwrap();
        let flags = ["prepare", "--source", source, "--dest", "out", "--resolution", "4"];
        space.run(&[&flags, more].concat())
    };
    let file = data.join("train-00000-of-00001.parquet");
    let done = run(&file, &[]);
    for (row, reason) in
        [(2, "it has no label"), (3, "the row has no image"), (5, "it has no label")]
    {
        let words = format!("parquet/{row:08}: {reason}");
        assert!(done.stderr.contains(&words), "{words}: {}", done.stderr);
    }
    done.ok();
    let store = Store::open(space.file("out")).unwrap();
    assert_eq!(store.manifest().class_names, ["cat", "dog", "fox"]);
    assert_eq!(store.labels(), Some(&Labels::Classes { count: 3, of: vec![0, 2, 0] }));
    for (index, i) in [(0, 0), (1, 1), (2, 4)] {
        assert!(store.image(2, index).unwrap()[32..].iter().all(|&blue| blue == 40 * i));
    }
    // Of a folder, the training split; without labels, all that have an image.
    run(&data, &["--labels", "none", "--threads", "3"]).ok();
    assert_eq!(Store::open(space.file("out")).unwrap().images(), 5);

    let sound = fs::read(&file).unwrap();
    space.write("cut.parquet", &sound[..sound.len() / 2]);
    let error = run(&space.file("cut.parquet"), &[]).error();
    assert!(error.contains("cut.parquet"), "{error}");
    let footer = sound.len() - 600;
    for at in (0..200).chain(footer..sound.len()) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x41;
        space.write("damaged.parquet", &damaged);
        if let Ok(source) = Source::open(&space.file("damaged.parquet"), LabelsFrom::Auto) {
            let (mut reader, mut bytes) = (source.reader().unwrap(), Vec::new());
            (0..source.entries().len()).for_each(|i| drop(reader.read(i, 1 << 20, &mut bytes)));
        }
    }
}

/// Each byte of a database changed, and each place it could be cut off at: never a panic.
#[test]
fn damaged_databases_and_arrays() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let space = Space::new();
    for (name, source) in
        [("data.mdb", "lmdb/data.mdb"), ("x.mat", "svhn.mat"), ("y.mat", "svhn-plain.mat")]
    {
        let sound = fs::read(data.join(source)).unwrap();
        let open = |bytes: &[u8]| {
            space.write(name, bytes);
            let opened = Source::open(&space.file(name), LabelsFrom::Auto);
            if let Ok(source) = opened {
                let mut reader = source.reader().unwrap();
                let mut bytes = Vec::new();
                (0..source.entries().len()).for_each(|i| drop(reader.read(i, 1 << 20, &mut bytes)));
            }
        };
        for at in (0..sound.len().min(300)).chain((4096..4500).filter(|at| *at < sound.len())) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x81;
            open(&damaged);
        }
        (0..20).for_each(|part| open(&sound[..sound.len() * part / 20]));
    }
    // A branch that leads to itself.
    let mut circle = fs::read(data.join("lmdb/data.mdb")).unwrap();
    let root = 5 * 4096;
    circle[root + 10] = 1;
    for place in 0..7 {
        let start =
            u16::from_le_bytes([circle[root + 16 + 2 * place], circle[root + 17 + 2 * place]]);
        circle[root + start as usize..][..6].copy_from_slice(&[5, 0, 0, 0, 0, 0]);
    }
    space.write("data.mdb", &circle);
    let error = space.run(&["prepare", "--source", "data.mdb", "--dest", "out"]).error();
    assert!(error.contains("in a circle"), "{error}");
}

#[test]
fn synthetic_images_are_what_they_were() {
    let space = Space::new();
    let store = prepare(&space, "synthetic:40x32", &[]);
    assert_eq!((store.images(), store.max_level()), (40, 5));
    assert_eq!(store.manifest().class_names, ["disc", "square", "triangle"]);
    let counts: Vec<usize> =
        store.labels().unwrap().by_class().unwrap().iter().map(Vec::len).collect();
    assert!(counts.iter().all(|&count| count > 5), "{counts:?}");
    let mut crc = flate2::Crc::new();
    (0..40).for_each(|i| crc.update(&store.image(5, i).unwrap()));
    assert_eq!(crc.sum(), SYNTHETIC_CRC, "a change of these images needs a changelog entry");
    let error = space.run(&["prepare", "--source", "synthetic:9x3", "--dest", "x"]).error();
    assert!(error.contains("synthetic:COUNTxSIDE"), "{error}");
}

const SYNTHETIC_CRC: u32 = 1_055_818_223;

/// Sources that are damaged as a whole: one line, exit code 2, nothing made.
#[test]
fn damaged_containers() {
    let space = Space::new();
    let idx = [0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 4];
    let whole_idx = [&idx[..], &[7; 48]].concat();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tfrecord");
    let record = fs::read(data.join("tfrecord-r02.tfrecords")).unwrap();
    let mut lying_record = record.clone();
    lying_record[0] ^= 1;
    let mut huge_idx = whole_idx.clone();
    huge_idx[4] = 0xFF;
    let pickle = cifar_pickle("labels", 0..2);
    let mut calls = pickle.clone();
    calls.splice(2..2, b"cos\nsystem\n\x8c\x02id\x94\x85R0".iter().copied());
    let fewer = [&pickle[..pickle.len() - 1], b"U\x06labels]K\x01aK\x01aK\x01a."].concat();
    let cases: [(&str, &[u8], &str); 14] = [
        ("cut-idx3-ubyte", &whole_idx[..40], "3 images of 4x4 need 64 bytes"),
        ("huge-idx3-ubyte", &huge_idx, "need 68451041344 bytes"),
        ("empty-idx3-ubyte", &[0, 0, 8, 3, 0, 0], "not an IDX file"),
        ("flat-idx3-ubyte", &[&idx[..8], &[0; 8]].concat(), "images of 0x0 pixels"),
        ("odd.bin", &[0; 4000], "not records of 3073"),
        ("empty.bin", &[], "not records of 3073"),
        ("cut.tfrecords", &record[..record.len() - 5], "the last record is cut off"),
        ("head.tfrecords", &record[..6], "the last record is cut off"),
        ("lying.tfrecords", &lying_record, "checksum of a record's length is wrong (record 0)"),
        ("noise.gz", &[0x1F, 0x8B, 1, 2, 3], "noise.gz: "),
        ("noise", b"what is this?", "none of the formats"),
        ("py-cut.tar", &pickle[..pickle.len() / 2], "the pickle is cut off"),
        ("py-calls.tar", &calls, "an instruction that CIFAR batches do not have (0x8c)"),
        ("py-fewer.tar", &fewer, "6144 bytes of pixels for 5 labels"),
    ];
    for (name, bytes, words) in cases {
        if name.starts_with("py-") {
            tar(&space.file(name), &[("data_batch_1", bytes)]);
        } else {
            space.write(name, bytes);
        }
        let error = space.run(&["prepare", "--source", name, "--dest", "out"]).error();
        assert!(error.contains(words) && error.contains(name), "{name}: {error}");
        assert!(!space.file("out").exists());
    }
    // An archive that ends in the middle of a file, and one whose header lies about the length.
    tar(&space.file("set.tar"), &[("0.png", &png(0)), ("1.png", &png(1))]);
    let sound = fs::read(space.file("set.tar")).unwrap();
    space.write("cut.tar", &sound[..1100]);
    let run = space.run(&["prepare", "--source", "cut.tar", "--dest", "out"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    let mut huge = sound.clone();
    huge[124..136].copy_from_slice(b"77777777777\0");
    space.write("huge.tar", &huge);
    let error = space.run(&["prepare", "--source", "huge.tar", "--dest", "out"]).error();
    assert!(error.contains("huge.tar"), "{error}");
}

/// Files inside a sound container that are bad: named, skipped, counted.
#[test]
fn damaged_entries() {
    let space = Space::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tfrecord");
    let mut record = fs::read(data.join("tfrecord-r03.tfrecords")).unwrap();
    let at = 247 + 100;
    record[at] ^= 1;
    space.write("x-r03.tfrecords", &record);
    let run = space.run(&["prepare", "--source", "x-r03.tfrecords", "--dest", "out"]);
    assert!(run.stderr.contains("bad file 00000001: the checksum of the record"), "{}", run.stderr);
    assert!(run.ok().contains("1 bad files skipped"));
    assert_eq!(Store::open(space.file("out")).unwrap().images(), 4);

    // Links, devices and names that lead elsewhere: never followed, never written to.
    let mut tar = tar::Builder::new(File::create(space.file("links.tar")).unwrap());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "link.png", "/etc/passwd").unwrap();
    for (name, seed) in [("a.png", 1), ("b.png", 2), ("c.png", 3)] {
        let mut header = tar::Header::new_gnu();
        let bytes = png(seed);
        header.set_size(bytes.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if name == "c.png" {
            header.as_gnu_mut().unwrap().name[..15].copy_from_slice(b"../../../up.png");
        }
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    tar.finish().unwrap();
    let store = prepare(&space, "links.tar", &[]);
    assert_eq!((store.images(), store.manifest().passed_over), (3, 1));
    assert_eq!(
        fs::read_to_string(space.file("out/names.txt")).unwrap(),
        "../../../up.png\na.png\nb.png\n"
    );
}
