//! Networks for other programs, through the real binary; and runs that begin with given weights.

use std::fs;
use std::path::Path;

use pggan_tests::{Outcome, Sandbox, root};
use safetensors::SafeTensors;
use tract_onnx::prelude::*;

use crate::common::{Prepared, training_states};

fn imported(sandbox: &Sandbox, file: &str, dest: &str) {
    let source = root().join("tests/import").join(file);
    let args = ["import", "--source", source.to_str().unwrap(), "--dest", dest];
    sandbox.run("pggan-train", args).succeeded();
}

#[test]
fn every_format_is_written_and_what_it_cannot_say_is_refused() {
    let sandbox = Sandbox::new();
    imported(&sandbox, "zoo-fading.pth", "zoo");
    imported(&sandbox, "nvidia-fused.pkl", "labels");
    let export = |network: &str, format: &str, dest: &str| {
        sandbox.run(
            "pggan-train",
            ["export", "--network", network, "--format", format, "--dest", dest],
        )
    };
    let picture = |network: &str| {
        let args = ["generate", "--network", network, "--seeds", "1", "--dest", "out"];
        sandbox.run("pggan-train", args).succeeded();
        fs::read(sandbox.path("out/seed0001.png")).unwrap()
    };

    // Ours: a folder that is a network.
    export("zoo", "safetensors", "ours").succeeded();
    assert_eq!(picture("ours"), picture("zoo"));
    let config = fs::read_to_string(sandbox.path("ours/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["alpha"], &config["model"]["widths"][2]), (&0.7.into(), &7.into()));

    // The zoo's: there and back again.
    let done = export("zoo", "zoo", "there/zoo.safetensors").succeeded();
    assert!(done.stderr.contains("minibatch stddev"), "{done}");
    let bytes = fs::read(sandbox.path("there/zoo.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = file.tensor("avgG.scaleLayers.1.0.module.weight").unwrap().shape().to_vec();
    assert_eq!(shape, [7, 10, 3, 3]);
    let args = ["import", "--source", "there/zoo.safetensors", "--dest", "back"];
    sandbox.run("pggan-train", args).succeeded();
    assert_eq!(picture("back"), picture("zoo"));

    // ONNX: what is in it is checked where it is made.
    export("zoo", "onnx", "g.onnx").succeeded();
    export("labels", "onnx", "labels.onnx").succeeded();
    assert!(fs::metadata(sandbox.path("g.onnx")).unwrap().len() > 20_000);

    let line = export("labels", "zoo", "no.safetensors").refused();
    assert!(line.contains("pytorch_GAN_zoo has no place for model.label_size = 3"), "{line}");
    let line = export("zoo", "tflite", "no").refused();
    assert!(line.contains("safetensors, zoo, onnx"), "{line}");
    assert!(export("nowhere", "onnx", "no").refused().contains("no such file"));
    assert!(!sandbox.path("no.safetensors").exists() && !sandbox.path("no").exists());
}

/// In a fade and with labels: what another engine makes of the exported graph is what `pytorch_GAN_zoo` and NVIDIA's code make
/// of the same weights.
#[test]
fn another_engine_draws_the_same_images() {
    for name in ["zoo-fading.pth", "nvidia-fused.pkl"] {
        let sandbox = Sandbox::new();
        imported(&sandbox, name, "network");
        let args = ["export", "--network", "network", "--format", "onnx", "--dest", "g.onnx"];
        sandbox.run("pggan-train", args).succeeded();
        let fixture = root().join("tests/import").join(name).with_extension("safetensors");
        let bytes = fs::read(fixture).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Option<(Vec<usize>, Vec<f32>)> {
            let view = file.tensor(name).ok()?;
            let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Some((view.shape().to_vec(), values))
        };

        let mut model = onnx().model_for_path(sandbox.path("g.onnx")).unwrap();
        let mut inputs = tvec!();
        for (i, (shape, values)) in
            ["z", "labels"].iter().filter_map(|name| floats(name)).enumerate()
        {
            model = model.with_input_fact(i, f32::fact(&shape).into()).unwrap();
            let input = tract_ndarray::Array2::from_shape_vec((shape[0], shape[1]), values);
            inputs.push(Tensor::from(input.unwrap()).into());
        }
        let model = model.into_optimized().unwrap().into_runnable().unwrap();
        let images = model.run(inputs).unwrap();
        let images = images[0].to_plain_array_view::<f32>().unwrap();

        let (shape, expected) = floats("images").unwrap();
        assert_eq!(images.shape(), shape, "{name}");
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let off = images.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < 1e-5 * largest, "{name}: {off:e} of {largest}");
    }
}

/// Numbers of a file, by tensor.
fn tensors(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

#[test]
fn a_run_begins_with_given_weights() {
    let data = Prepared::new();
    let (_, first) = data.trained("first");
    let snapshot = first.join("network-snapshot-000005.safetensors");
    fs::create_dir(data.path("weights")).unwrap();
    fs::copy(&snapshot, data.path("weights/network-snapshot-000000.safetensors")).unwrap();
    let tune = |more: &[&str]| {
        let mut command =
            data.trainer(["train", "--data", "data", "--device", "cpu", "--resume", "weights"]);
        command
            .args(["--outdir", "tuned", "--grid", "2x2", "--kimg", "1", "--tick", "1"])
            .args(more);
        command
    };
    for (flags, word) in [
        (["--resolution", "8"], "leave out 8"),
        (["--set", "model.fmap_max=4"], "model.fmap_max=4"),
    ] {
        let line = Outcome::of(&mut tune(&flags)).refused();
        assert!(line.contains("the networks come with it") && line.contains(word), "{line}");
    }
    assert!(!data.path("tuned").exists());

    let done = Outcome::of(&mut tune(&[])).succeeded();
    assert!(done.stderr.contains("done: 1000 images"), "{done}");
    let run = fs::read_dir(data.path("tuned")).unwrap().next().unwrap().unwrap().path();
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("initial_resolution = 8"), "{config}");
    assert!(!config.contains("start = \"\""), "{config}");
    // Its first picture is the last one that was made of the weights.
    let picture = |run: &Path, name: &str| fs::read(run.join(name)).unwrap();
    assert_eq!(picture(&run, "fakes000000.png"), picture(&first, "fakes000005.png"));
    // A new run, at the weights' resolution, and no longer the same weights.
    let stats = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    assert!(stats.lines().all(|line| line.contains("\"resolution\":8")), "{stats}");
    let (before, after) = (tensors(&snapshot), tensors(training_states(&run).last().unwrap()));
    assert!(before.iter().filter(|(name, bytes)| after[*name] != **bytes).count() > 20);

    // What is finished is finished.
    let again = Outcome::of(&mut tune(&[])).succeeded();
    assert!(again.stderr.contains("is done"), "{again}");
}
