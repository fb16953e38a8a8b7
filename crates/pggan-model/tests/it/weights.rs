//! Files of weights: what is written is what is read, and nothing else is.

use candle_core::{DType, Device};
use pggan_model::weights::{
    File, PRETRAINED_WEIGHTS, Snapshot, SnapshotHeader, Writer, check_pretrained, read_generator,
    read_snapshot, write_pretrained, write_snapshot,
};
use pggan_model::{Error, Growth};

use crate::{networks, noise, tiny};

fn header() -> SnapshotHeader {
    SnapshotHeader {
        format: 1,
        model: tiny(8),
        level: 3,
        alpha: 0.5,
        images_shown: 12_000,
        dataset: "faces".to_owned(),
    }
}

#[test]
fn a_snapshot_comes_back_as_it_was_and_always_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (g, d) = networks(&tiny(8));
    let path = folder.path().join("snapshot.safetensors");
    write_snapshot(&path, &header(), &g, &d, &g).unwrap();
    let first = std::fs::read(&path).unwrap();
    write_snapshot(&path, &header(), &g, &d, &g).unwrap();
    assert_eq!(first, std::fs::read(&path).unwrap());

    let (read, found) = read_generator(&path, DType::F64, &Device::Cpu).unwrap();
    assert_eq!(found, header());
    let z = noise("z", &[2, read.config().latent_size()]).unwrap();
    let images = |g: &pggan_model::Generator| {
        let images = g.generate(&z, None, Growth::full(3)).unwrap();
        images.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    for (a, b) in images(&read).iter().zip(images(&g)) {
        assert!((a - b).abs() < 1e-5);
    }
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (g, d) = networks(&tiny(8));
    write_snapshot(&path, &header(), &g, &d, &g).unwrap();
    let good = std::fs::read(&path).unwrap();
    let says = |bytes: &[u8], words: &str| {
        pggan_model::weights::write_atomic(&path, bytes).unwrap();
        let error = read_generator(&path, DType::F32, &Device::Cpu).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("weights.safetensors") && message.contains(words), "{message}");
    };
    says(&[], "header");
    says(b"hello, world", "header");
    says(&u64::MAX.to_le_bytes(), "header");
    says(&good[..good.len() - 5], "");
    says(&good[..100], "");
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    says(&flipped, "not those that were written");

    // A header that lies about the size of the network costs no memory.
    let mut lie = header();
    (lie.model.fmap_base, lie.model.fmap_max) = (1 << 20, 1 << 14);
    let mut writer = Writer::new(&lie).unwrap();
    writer.params("g_ema", g.params()).unwrap();
    says(&writer.bytes().unwrap(), "its header states");
    let mut writer = Writer::new(&SnapshotHeader { level: 9, ..header() }).unwrap();
    writer.params("g_ema", g.params()).unwrap();
    says(&writer.bytes().unwrap(), "level 9");
}

#[test]
fn missing_unknown_and_misshapen_tensors_are_all_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (g, _) = networks(&tiny(8));
    let mut writer = Writer::new(&header()).unwrap();
    for (i, p) in g.params().iter().enumerate() {
        match i {
            0 => writer.tensor("g.level99.weight".to_owned(), &p.value).unwrap(),
            1 => writer.tensor(format!("g.{}", p.name), &noise("b", &[7]).unwrap()).unwrap(),
            _ => writer.tensor(format!("g.{}", p.name), &p.value).unwrap(),
        }
    }
    writer.write(&path).unwrap();
    let (mut target, _) = networks(&tiny(8));
    let message =
        File::open(&path).unwrap().load("g", target.params_mut()).unwrap_err().to_string();
    for words in [
        "g.level02.dense.weight is missing",
        "g.level02.dense.bias is [7]",
        "g.level99.weight is unknown",
    ] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_pretrained_folder_is_a_snapshot_and_its_description() {
    let folder = tempfile::tempdir().unwrap();
    let (g, d) = networks(&tiny(8));
    let g_ema = g.duplicate().unwrap();
    write_pretrained(folder.path(), &Snapshot { header: header(), g, d, g_ema }).unwrap();
    let path = folder.path().join(PRETRAINED_WEIGHTS);
    let read = read_snapshot(&path, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(read.header, header());
    let config = folder.path().join("config.json");
    check_pretrained(&config, &read.header).unwrap();
    let other = SnapshotHeader { level: 2, ..header() };
    let message = check_pretrained(&config, &other).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("another network"), "{message}");
}
