//! Metrics of folders, of networks, and of what is neither.

use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use pggan_tests::{Outcome, Sandbox, root};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::common::default_pictures;

/// Writes `count` images of `side` pixels: waves with noise, each unlike the others; `bright` is added to all.
pub(crate) fn images(folder: &Path, count: usize, side: u32, bright: u8) {
    fs::create_dir_all(folder).unwrap();
    for n in 0..count {
        let image = RgbImage::from_fn(side, side, |x, y| {
            let (x, y, n) = (f64::from(x), f64::from(y), n as f64);
            let wave = ((x * (0.2 + 0.05 * n)).sin() + (y * (0.5 - 0.02 * n)).cos()) * 30.0;
            let noise = ((x * 12.9898 + y * 78.233 + n).sin() * 43758.5453).fract() * 20.0;
            let value = |c: f64| (90.0 + wave + noise + c) as u8 + bright;
            Rgb([value(0.0), value(n), value(-n)])
        });
        image.save(folder.join(format!("{n:03}.png"))).unwrap();
    }
}

fn metrics(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    let mut all = vec!["metrics", "--device", "cpu", "--cache", "cache"];
    all.extend(args);
    sandbox.run("pggan-train", all)
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn folders_are_compared_in_lines_of_json() {
    let sandbox = Sandbox::new();
    images(&sandbox.path("a"), 12, 32, 0);
    images(&sandbox.path("b"), 14, 32, 60);
    let args = ["--images", "a", "--images", "b", "--metrics", "swd,msssim", "--json"];
    let of = |more: &[&str]| lines(&metrics(&sandbox, &[&args[..], more].concat()).succeeded());
    let found = of(&["--num", "10", "--threads", "2", "--floor"]);
    assert_eq!(found.len(), 2);
    let [swd, msssim] = &found[..] else { panic!() };
    assert_eq!((&swd["metric"], &msssim["metric"]), (&"swd".into(), &"msssim".into()));
    assert_eq!(swd["levels"], serde_json::json!([32, 16]));
    let levels: Vec<f64> =
        swd["per_level"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let value = swd["value"].as_f64().unwrap();
    assert!(levels.len() == 2 && (levels.iter().sum::<f64>() / 2.0 - value).abs() < 1e-9);
    assert_eq!(
        (&swd["images"], &swd["reals"], &swd["threads"]),
        (&10.into(), &10.into(), &2.into())
    );
    assert_eq!(swd["floor_images"], 7, "half of fourteen");
    assert!((0.0..1.0).contains(&msssim["value"].as_f64().unwrap()), "{msssim}");
    for line in &found {
        assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["per_level"].is_array());
        assert!(cfg!(not(target_os = "linux")) || line["peak_mib"].as_f64().unwrap() > 1.0);
    }

    // The same to the last digit, whatever the threads and the memory; repeats have a spread.
    let again = of(&["--num", "10", "--threads", "1", "--memory", "1"]);
    assert_eq!((&again[0]["value"], &again[1]["value"]), (&swd["value"], &msssim["value"]));
    let repeated = of(&["--repeats", "3"]);
    assert_eq!(repeated[0]["repeats"].as_array().unwrap().len(), 3);
    assert!(repeated[0]["ci95"].as_f64().unwrap() > 0.0);
    assert_eq!(repeated[0]["images"], 12, "as many as both have");

    // Without --json: a table.
    let table = metrics(&sandbox, &["--images", "a", "--metrics", "msssim", "--dest", "out"]);
    assert!(table.succeeded().stdout.lines().any(|line| line.starts_with("a ")));
    assert!(sandbox.path("out/metric-msssim.jsonl").is_file());
}

#[test]
fn every_snapshot_of_a_run_is_measured() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("pictures")).unwrap();
    for picture in default_pictures(40) {
        let name = picture.file_name().unwrap();
        fs::copy(&picture, sandbox.path("pictures").join(name)).unwrap();
    }
    let args = ["prepare", "--source", "pictures", "--dest", "data", "--resolution", "16"];
    sandbox.run("pggan-data", args).succeeded();
    let mut train = sandbox.command("pggan-train");
    train.args(["train", "--data", "data", "--device", "cpu", "--outdir", "runs", "--snap", "1"]);
    train.args(["--resolution", "16"]);
    for setting in [
        "schedule.total_kimg=0.9",
        "schedule.tick_kimg_base=0.3",
        "schedule.training_kimg=0.2",
        "schedule.transition_kimg=0.1",
        "run.grid=2x2",
        "model.fmap_base=32",
        "model.fmap_max=8",
        "model.latent_size=8",
    ] {
        train.args(["--set", setting]);
    }
    Outcome::of(&mut train).succeeded();
    let run: PathBuf = fs::read_dir(sandbox.path("runs")).unwrap().next().unwrap().unwrap().path();
    // Ticks shorter than a thousand images share a name.
    let snapshot = run.join("network-snapshot-000000.safetensors");
    if !snapshot.exists() {
        fs::copy(run.join("network-snapshot-000001.safetensors"), &snapshot).unwrap();
    }
    let network = run.to_str().unwrap();
    let args = ["--network", network, "--metrics", "swd40,msssim15", "--floor", "--repeats", "2"];
    let outcome = metrics(&sandbox, &args).succeeded();
    let snapshots = fs::read_dir(&run).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("network-snapshot-")
    });
    let rows = 1 + 2 * snapshots.count();
    assert_eq!(outcome.stdout.lines().count(), rows, "{outcome}");
    let written = fs::read_to_string(run.join("metric-swd40.jsonl")).unwrap();
    let line: Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
    assert_eq!((&line["images"], &line["reals"]), (&40.into(), &40.into()));
    assert_eq!(line["floor_images"], 20);
    assert_eq!(line["levels"], serde_json::json!([16]));
    assert!(line["kimg"].as_f64().unwrap() < 1.0 && line["value"].as_f64().unwrap() > 0.0);
    assert!(run.join("metric-msssim15.jsonl").is_file());

    // A generator's images do not depend on what else is measured.
    let one = |metrics_asked: &str| {
        let snapshot = snapshot.to_str().unwrap();
        let args = ["--network", snapshot, "--data", "data", "--metrics", metrics_asked, "--json"];
        lines(&metrics(&sandbox, &args).succeeded())[0]["value"].clone()
    };
    assert_eq!(one("swd24"), one("swd24,msssim20"));

    // A path through the latent space, the same one always.
    mobilenet(&sandbox.path("made-up.safetensors"), made_up);
    let own = "mobilenetv2=made-up.safetensors";
    let network = snapshot.to_str().unwrap();
    let args = ["--network", network, "--metrics", "ppl3-mobilenetv2", "--own-weights", own];
    let path = |threads: &str| {
        let more = ["--json", "--threads", threads];
        lines(&metrics(&sandbox, &[&args[..], &more].concat()).succeeded()).remove(0)
    };
    let found = path("2");
    assert!(found["images"] == 3 && found["value"].as_f64().unwrap() > 0.0, "{found}");
    assert_eq!(found["value"], path("1")["value"]);
}

/// A file of weights of MobileNetV2: `value` of each tensor's name, shape and index.
pub(crate) fn mobilenet(path: &Path, value: impl Fn(&str, &[usize], usize) -> f32) {
    let json = root().join("crates/pggan-metrics/tests/features/tensors.json");
    let all: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let tensors = all["mobilenetv2"].as_object().unwrap().iter().map(|(name, shape)| {
        let shape: Vec<usize> =
            shape.as_array().unwrap().iter().map(|side| side.as_u64().unwrap() as usize).collect();
        let numbers =
            (0..shape.iter().product()).flat_map(|i| value(name, &shape, i).to_le_bytes());
        (name.clone(), shape.clone(), numbers.collect::<Vec<u8>>())
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub(crate) fn made_up(name: &str, shape: &[usize], i: usize) -> f32 {
    match name.rsplit('.').next().unwrap() {
        "running_var" => 1.0,
        "running_mean" | "bias" => 0.0,
        _ if shape.len() == 1 => 1.0,
        _ => {
            let inputs: usize = shape[1..].iter().product();
            ((i as f32 * 12.9898).sin() * 43_758.547).fract() * (6.0 / inputs as f32).sqrt()
        }
    }
}

#[test]
fn distances_of_own_weights_say_so_and_have_a_floor() {
    let sandbox = Sandbox::new();
    images(&sandbox.path("a"), 6, 32, 0);
    images(&sandbox.path("b"), 8, 32, 60);
    mobilenet(&sandbox.path("made-up.safetensors"), made_up);
    let args = [
        "--images",
        "a",
        "--images",
        "b",
        "--metrics",
        "fd-mobilenetv2,pr-mobilenetv2",
        "--own-weights",
        "mobilenetv2=made-up.safetensors",
        "--json",
    ];
    let outcome = metrics(&sandbox, &args).succeeded();
    assert!(outcome.stderr.contains("fewer than the 1280 features"), "{outcome}");
    let found = lines(&outcome);
    let names: Vec<&str> = found.iter().map(|line| line["metric"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "fd-mobilenetv2-own-weights",
            "pr-mobilenetv2_precision-own-weights",
            "pr-mobilenetv2_recall-own-weights"
        ]
    );
    assert_eq!((&found[0]["images"], &found[0]["floor_images"]), (&6.into(), &4.into()));
    assert_eq!(found[0]["weights"].as_str().unwrap().len(), 64);
    // Statistics of real images are kept, and damaged ones made anew.
    let kept = fs::read_dir(sandbox.path("cache")).unwrap().next().unwrap().unwrap().path();
    fs::write(&kept, b"damaged").unwrap();
    let again = metrics(&sandbox, &args).succeeded();
    assert!(again.stderr.contains("damaged"), "{again}");
    assert_eq!(lines(&again)[0]["value"], found[0]["value"]);
    assert!(!metrics(&sandbox, &args).succeeded().stderr.contains("damaged"));
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    let sandbox = Sandbox::new();
    images(&sandbox.path("a"), 6, 32, 0);
    images(&sandbox.path("small"), 6, 16, 0);
    images(&sandbox.path("tiny"), 6, 8, 0);
    images(&sandbox.path("mixed"), 3, 32, 0);
    RgbImage::new(16, 16).save(sandbox.path("mixed/zz.png")).unwrap();
    for (folder, width) in [("blank", 32), ("wide", 48)] {
        fs::create_dir(sandbox.path(folder)).unwrap();
        for n in 0..6 {
            let image = RgbImage::from_pixel(width, 32, Rgb([90, 120, 150]));
            image.save(sandbox.path(folder).join(format!("{n}.png"))).unwrap();
        }
    }
    fs::create_dir(sandbox.path("empty")).unwrap();
    mobilenet(&sandbox.path("nan.safetensors"), |_, _, _| f32::NAN);
    mobilenet(&sandbox.path("zero.safetensors"), |name, _, _| {
        f32::from(u8::from(name.ends_with("var")))
    });
    fs::write(sandbox.path("text.pth"), "no weights").unwrap();

    let fd = ["--images", "a", "--images", "a", "--metrics", "fd-mobilenetv2"];
    let fd = |more: &[&'static str]| [&fd[..], more].concat();
    let two = |a, b, name| vec!["--images", a, "--images", b, "--metrics", name];
    for (args, words) in [
        (two("a", "small", "swd"), &["32x32x3", "16x16x3", "one resolution"][..]),
        (two("a", "a", "swd2k"), &["swd2k needs 2048 judged images", "there are 6"]),
        (two("a", "a", "msssim10k"), &["msssim10k needs 20000", "there are 6"]),
        (two("tiny", "tiny", "swd"), &["SWD needs images of at least 16x16"]),
        (two("a", "blank", "swd"), &["constant", "second set"]),
        (two("wide", "a", "swd"), &["0.png is 48x32", "prepare-dataset"]),
        (two("mixed", "a", "swd"), &["zz.png is 16x16", "32x32"]),
        (two("empty", "a", "swd"), &["empty", "no image files"]),
        (two("missing", "a", "swd"), &["missing"]),
        (two("a", "a", "ssim"), &["\"ssim\" is no metric", "swd, msssim"]),
        (two("a", "a", "fid"), &["pt_inception-2015-12-05-6726825d.pth", "--weights"]),
        (two("a", "a", "fid-mobilenetv2"), &["2015 Inception"]),
        (vec!["--images", "a", "--metrics", "swd"], &["swd compares", "--data"]),
        (vec!["--images", "a", "--metrics", "ppl"], &["--network"]),
        (vec!["--metrics", "swd"], &["--network", "--images"]),
        (vec!["--network", "missing"], &["missing", "no such file"]),
        (vec!["--network", "a"], &["no network-snapshot-"]),
        (fd(&["--weights", "nan.safetensors"]), &["SHA-256", "b0353104", "--own-weights"]),
        (fd(&["--weights", "text.pth"]), &["text.pth", "torch.save"]),
        (fd(&["--weights", "missing.pth"]), &["missing.pth", "OWNER/REPOSITORY/FILE"]),
        (fd(&["--own-weights", "mobilenetv2=nan.safetensors"]), &["row 0, column 0 is NaN"]),
        (fd(&["--own-weights", "mobilenetv2=zero.safetensors"]), &["the same in every image"]),
        (fd(&["--own-weights", "vgg=nan.safetensors"]), &["NETWORK=FILE", "mobilenetv2"]),
        (
            fd(&["--own-weights", "inceptionv3=nan.safetensors", "--metrics", "fd-inceptionv3"]),
            &["nan.safetensors", "no tensor", "another network"],
        ),
    ] {
        // clap keeps the last of two.
        let args = if args.iter().filter(|&&arg| arg == "--metrics").count() > 1 {
            [&args[..4], &args[6..]].concat()
        } else {
            args
        };
        let line = metrics(&sandbox, &args).refused();
        for word in words {
            assert!(line.contains(word), "{args:?}: {word:?} is not in: {line}");
        }
    }
    let args = ["import-features", "--source", "nan.safetensors", "--dest", "out.safetensors"];
    assert!(sandbox.run("pggan-train", args).refused().contains("SHA-256"));
    assert!(!sandbox.path("out.safetensors").exists());
}
