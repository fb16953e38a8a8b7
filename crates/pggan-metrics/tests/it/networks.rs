//! Feature networks beside PyTorch's, with weights that both draw by one formula (`tests/features/make_features.py`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Device;
use pggan_metrics::evaluate::{Evaluator, Networks, Set};
use pggan_metrics::frechet::{Statistics, frechet_distance};
use pggan_metrics::network::{Kind, Resize, Weights, extract, resize};
use pggan_metrics::registry::Metric;
use pggan_metrics::{Error, Features, ImageShape, Pixels};
use safetensors::SafeTensors;

use crate::golden::{images, splitmix};

fn file(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/features").join(name))
        .unwrap()
}

/// Shape and numbers of an output of PyTorch.
fn output(name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = file("outputs.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let data = tensor.data();
    let numbers = match tensor.dtype() {
        safetensors::Dtype::F32 => {
            data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        _ => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
    };
    (tensor.shape().to_vec(), numbers)
}

/// A tensor whose numbers follow from its name.
fn made_up(name: &str, shape: &[usize]) -> Vec<f32> {
    let key = name.bytes().fold(0, |key, byte| splitmix(key ^ u64::from(byte)));
    let scale = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
    (0..shape.iter().product::<usize>() as u64)
        .map(|i| (splitmix(key.wrapping_add(i)) >> 40) as f64 / f64::from(1 << 23) - 1.0)
        .map(|value| {
            if name.ends_with("running_var") {
                1.0 + 0.2 * value
            } else if shape.len() > 1 {
                value * scale
            } else if name.ends_with("weight") {
                1.0 + 0.1 * value
            } else {
                0.1 * value
            }
        })
        .map(|value| value as f32)
        .collect()
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(kind: Kind) -> Tensors {
    let all: BTreeMap<String, BTreeMap<String, Vec<usize>>> =
        serde_json::from_slice(&file("tensors.json")).unwrap();
    let names = all[kind.name()].clone().into_iter();
    names
        .map(|(name, shape)| {
            let numbers = made_up(&name, &shape);
            (name, (shape, numbers))
        })
        .collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let found = f64::from(found);
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what} {i}: {found} {expected}"
        );
    }
}

#[test]
fn features_and_logits_are_those_of_pytorch() {
    let shape = ImageShape::new(3, 64).unwrap();
    let pixels = images(11, 0..2, 64, 1);
    let set = Pixels::new(shape, &pixels).unwrap();
    for kind in Kind::ALL {
        let network = kind.build(Weights::new(tensors(kind), ""), &Device::Cpu).unwrap();
        let found = extract(&*network, kind.usual_resize(), &set).unwrap();
        for (what, found) in [("features", &found.features), ("logits", &found.logits)] {
            let name = format!("{}/{what}", kind.name());
            let (dims, expected) = output(&name);
            assert_eq!(dims[0], 2);
            let spread = expected.iter().map(|v| v.abs()).sum::<f64>() / expected.len() as f64;
            assert!(spread > 0.01, "{name}: the test shows nothing");
            assert_close(&name, found, &expected, 1e-4);
        }
        assert_eq!(found.features.len(), 2 * network.features());
        assert_eq!(found.logits.len(), 2 * network.classes());
    }
}

#[test]
fn tensors_must_be_all_there_and_no_more() {
    let build = |kind: Kind, change: &dyn Fn(&mut Tensors)| {
        let mut tensors: Tensors = tensors(kind)
            .into_iter()
            .map(|(name, (shape, _))| {
                let zeros = vec![0.0; shape.iter().product()];
                (name, (shape, zeros))
            })
            .collect();
        change(&mut tensors);
        kind.build(Weights::new(tensors, ""), &Device::Cpu).map(|_| ())
    };
    for kind in Kind::ALL {
        let first = tensors(kind).into_keys().find(|name| !name.starts_with("Aux")).unwrap();
        let missing = build(kind, &|t| drop(t.remove(&first))).unwrap_err();
        assert!(matches!(&missing, Error::MissingWeight { name } if *name == first), "{missing}");
        let shape = build(kind, &|t| t.get_mut(&first).unwrap().0.push(1)).unwrap_err();
        assert!(matches!(&shape, Error::WeightShape { name, .. } if *name == first), "{shape}");
        let extra =
            build(kind, &|t| drop(t.insert("zz".into(), (vec![1], vec![0.0])))).unwrap_err();
        assert!(matches!(&extra, Error::ExtraWeights { count: 1, .. }), "{extra}");
    }
    // The two Inceptions are told apart.
    let other = tensors(Kind::InceptionV3);
    assert!(Kind::Inception2015.build(Weights::new(other, ""), &Device::Cpu).is_err());
}

#[test]
fn images_are_resized_as_tensorflow_and_pillow_do() {
    let shape = ImageShape::new(1, 64).unwrap();
    let image = &images(11, 0..1, 64, 1)[..shape.bytes()];
    for (how, tolerance) in [(Resize::Tf, 1e-6), (Resize::Clean, 1e-5)] {
        for side in [24, 150] {
            let (_, expected) = output(&format!("resize/{}/{side}", how.name()));
            let mut found = Vec::new();
            resize(image, shape, side, how, &mut found).unwrap();
            assert_close(&format!("{how:?} {side}"), &found[..side * side], &expected, tolerance);
        }
    }
}

#[test]
fn frechet_distance_is_that_of_scipys_square_root() {
    let statistics = ["a", "b"].map(|name| {
        let (shape, numbers) = output(&format!("frechet/{name}"));
        let numbers: Vec<f32> = numbers.iter().map(|&v| v as f32).collect();
        Statistics::of(Features::new(&numbers, shape[1]).unwrap()).unwrap()
    });
    let (_, expected) = output("frechet/distance");
    let found = frechet_distance(&statistics[0], &statistics[1]).unwrap();
    assert!((found - expected[0]).abs() < 1e-6 * expected[0], "{found} {}", expected[0]);
}

/// All metrics of one network by name, of two small sets.
#[test]
fn metrics_by_name_go_through_one_network() {
    let kind = Kind::MobileNetV2;
    let network = kind.build(Weights::new(tensors(kind), ""), &Device::Cpu).unwrap();
    let networks: Networks = [(kind, network)].into();
    let evaluator = Evaluator { networks: &networks, seed: 0, memory: 1 << 30, cache: None };
    let shape = ImageShape::new(3, 32).unwrap();
    let (a, b) = (images(11, 0..12, 32, 1), images(12, 0..12, 32, 3));
    let (a, b) = (Pixels::new(shape, &a).unwrap(), Pixels::new(shape, &b).unwrap());
    let (judged, reals) = (Set::judged(&a), Set::real(&b));
    let metric = |name: &str| name.parse::<Metric>().unwrap();
    let measure = |name: &str| evaluator.measure(&metric(name), &judged, Some(&reals));

    let distance = measure("fd10-mobilenetv2").unwrap();
    assert!(distance[0].value > 0.0 && distance[0].metric == "fd10-mobilenetv2");
    assert_eq!((distance[0].images, distance[0].reals), (10, Some(10)));
    let names: Vec<_> = measure("pr12k3-mobilenetv2").unwrap_err().to_string().chars().collect();
    assert!(names.iter().collect::<String>().contains("12000"));
    let shares = measure("pr12-mobilenetv2").unwrap();
    assert_eq!(shares[1].metric, "pr12-mobilenetv2_recall");
    let kernel = measure("kd-mobilenetv2").unwrap();
    assert!(kernel[0].std.is_some() && kernel[0].images == 12);
    let floor = evaluator.floor(&metric("fd-mobilenetv2"), &reals, 12).unwrap();
    assert_eq!((floor[0].images, floor[0].value > 0.0), (6, true));
    assert!(matches!(measure("fid10"), Err(Error::NoNetwork { .. })));

    // One image again and again has no features to compare.
    let same = a_repeated(shape, 12);
    let same = Pixels::new(shape, &same).unwrap();
    let constant = evaluator.measure(&metric("fd-mobilenetv2"), &Set::judged(&same), Some(&reals));
    assert!(matches!(constant, Err(Error::ConstantFeatures { set: "judged" })));
}

fn a_repeated(shape: ImageShape, times: usize) -> Vec<u8> {
    images(11, 0..1, shape.resolution() as u64, 1).repeat(times)
}
