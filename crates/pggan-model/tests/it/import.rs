//! Networks of other implementations make the images and scores that they made there; damaged files end in an error or
//! in networks, never in a panic.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use pggan_model::import::{self, Imported};
use pggan_model::{Growth, ModelConfig};

/// Files that the scripts in this folder have written, each beside what the other implementation made of it.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/import")
}

const FILES: [&str; 9] = [
    "zoo-stable.pth",
    "zoo-fading.pth",
    "nvidia-fused.pkl",
    "nvidia-unfused.pkl",
    "nvidia-theano.pkl",
    "genforce.pth",
    "genforce-fused.pth",
    "mmgen.pth",
    "gandissect.pth",
];

fn read(file: &str) -> Imported {
    import::read(&std::fs::read(folder().join(file)).unwrap()).unwrap()
}

fn relative(ours: &Tensor, theirs: &Tensor) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (ours, theirs) = (values(ours), values(theirs));
    let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    ours.iter().zip(&theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn images_and_scores_are_theirs() {
    for file in FILES {
        let networks = read(file);
        let path = folder().join(file).with_extension("safetensors");
        let expected = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let (z, labels) = (&expected["z"], expected.get("labels"));
        let images = networks.g_ema.generate(z, labels, networks.growth).unwrap();
        let off = relative(&images, &expected["images"]);
        assert!(off < 1e-5, "{file}: images {off:e}");
        let Some(scores) = expected.get("scores") else { continue };
        let images = expected["images"].permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let d = networks.d.unwrap();
        let (ours, _) = d.forward(&images, networks.growth, 1).unwrap();
        let off = relative(&ours, scores);
        assert!(off < 1e-5, "{file}: scores {off:e}");
    }
}

#[test]
fn settings_and_growth_are_theirs() {
    let check = |file: &str, growth: Growth, config: &dyn Fn(&ModelConfig) -> bool, note: &str| {
        let networks = read(file);
        assert_eq!(networks.growth, growth, "{file}");
        assert!(config(networks.g.config()), "{file}: {:?}", networks.g.config());
        let notes = networks.notes.join("\n");
        assert!(notes.contains(note) && note.is_empty() == notes.is_empty(), "{file}: {notes}");
    };
    let fading = |alpha| Growth { level: 4, alpha };
    let full = Growth::full(4);
    check("zoo-stable.pth", full, &|c| c.widths == [12, 10, 7] && c.position_bias, "consecutive");
    check("nvidia-fused.pkl", full, &|c| c.fused_scale && c.label_size == 3, "");
    check("nvidia-unfused.pkl", fading(0.625), &|c| !c.fused_scale && c.mbstd_group == 4, "");
    check("nvidia-theano.pkl", full, &|c| !c.fused_scale && c.mbstd_group == 16, "");
    check("genforce.pth", fading(0.75), &|c| !c.fused_scale, "");
    check("genforce-fused.pth", fading(0.75), &|c| c.fused_scale, "");
    check("mmgen.pth", fading(0.75), &|c| c.pixelnorm_epsilon == 1e-12, "3x3 convolution at 4x4");
    check("gandissect.pth", full, &|c| c.widths == [12, 12, 8], "full resolution alone");
    // What was trained and its average are two networks where the file has both.
    let weight = |networks: &Imported, average: bool| {
        let g = if average { &networks.g_ema } else { &networks.g };
        let first = g.params().iter().next().unwrap().value.flatten_all().unwrap();
        first.to_vec1::<f32>().unwrap()[0]
    };
    for (file, two) in [("genforce.pth", true), ("mmgen.pth", true), ("genforce-fused.pth", false)]
    {
        let networks = read(file);
        assert_eq!(weight(&networks, true) != weight(&networks, false), two, "{file}");
    }
}

#[test]
fn damage_is_survived() {
    let mut state = 0x1234_5678_9ABC_DEF1u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for name in FILES {
        let good = std::fs::read(folder().join(name)).unwrap();
        let mut refused = 0;
        for case in 0..200 {
            let mut bad = good.clone();
            // Most of it in the pickles, which come first.
            let region = if case % 4 == 0 { bad.len() } else { bad.len().min(6000) };
            for _ in 0..=next(6) {
                let at = next(region);
                bad[at] = next(256) as u8;
            }
            if case % 10 == 0 {
                bad.truncate(next(bad.len()));
            }
            refused += usize::from(import::read(&bad).is_err());
        }
        assert!(refused > 20, "{name}: {refused}");
    }
}

/// An ordered dictionary with entries and, after them, an attribute of its own.
#[test]
fn dictionaries_of_tensors_are_read_in_both_forms() {
    let names = [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ];
    for file in ["state-dict.pth", "state-dict-legacy.pth"] {
        let bytes = std::fs::read(folder().join(file)).unwrap();
        let tensors = import::state_dict(&bytes).unwrap();
        assert_eq!(tensors.len(), names.len(), "{file}: {:?}", tensors.keys());
        for (i, name) in names.iter().enumerate() {
            let numbers = tensors[*name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(numbers.iter().all(|&n| n == (i + 1) as f32), "{file} {name}: {numbers:?}");
        }
        assert_eq!(tensors["0.weight"].dims(), [1, 2]);
    }
    assert!(import::state_dict(b"PK\x03\x04").is_err());
    assert!(import::state_dict(b"{}").is_err());
}
