//! Pictures that are grey and have classes, or have opacity, from files to samples.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use image::{ColorType, DynamicImage, GrayImage, Luma};
use pggan_tests::{Outcome, Sandbox};

use crate::common::default_pictures;
use crate::pipeline::{assert_same, watch};

/// Pictures of 8x8 pixels, every third bright: class 1; the others dark: class 0.
fn grey_pictures_with_classes() -> Sandbox {
    let sandbox = Sandbox::new();
    let pictures = sandbox.path("pictures");
    fs::create_dir(&pictures).unwrap();
    let mut labels = Vec::new();
    for i in 0..30u32 {
        let (name, class) = (format!("{i:02}.png"), u32::from(i % 3 == 0));
        let value = |x: u32, y: u32| Luma([(30 + 150 * class + (x * y + i) % 40) as u8]);
        GrayImage::from_fn(8, 8, value).save(pictures.join(&name)).unwrap();
        labels.push(serde_json::json!([name, class]));
    }
    let json = serde_json::json!({ "labels": labels }).to_string();
    fs::write(pictures.join("dataset.json"), json).unwrap();
    let prepare = ["prepare", "--source", "pictures", "--dest", "data", "--channels", "1"];
    sandbox.run("pggan-data", prepare).succeeded();
    sandbox
}

/// 4x4 to 8x8 in four ticks, with everything that a state must keep: noise that follows the scores, noise on real
/// images, classes.
fn train(sandbox: &Sandbox, outdir: &str) -> Command {
    let mut command = sandbox.command("pggan-train");
    command.args(["train", "--data", "data", "--device", "cpu", "--outdir", outdir]);
    command.args([
        "--resolution",
        "8",
        "--grid",
        "3x4",
        "--grid-layout",
        "row_per_class",
        "--kimg",
        "2",
    ]);
    command.args(["--tick", "0.5", "--snap", "2"]);
    for setting in [
        "schedule.training_kimg=0.6",
        "schedule.transition_kimg=0.6",
        "model.fmap_base=32",
        "model.fmap_max=8",
        "model.latent_size=8",
        "loss.kind=lsgan-reversed",
        "loss.gdrop_coef=0.2",
        "loss.gdrop_lim=-1",
        "data.dequantize=true",
    ] {
        command.args(["--set", setting]);
    }
    command
}

fn the_run(sandbox: &Sandbox, outdir: &str) -> PathBuf {
    let mut runs = fs::read_dir(sandbox.path(outdir)).unwrap().map(|e| e.unwrap().path());
    let run = runs.next().unwrap();
    assert!(runs.next().is_none());
    run
}

fn grey(path: &Path) -> GrayImage {
    let picture = image::open(path).unwrap();
    assert_eq!(picture.color(), ColorType::L8, "{}", path.display());
    picture.to_luma8()
}

#[test]
fn grey_pictures_with_classes_train_resume_and_generate() {
    let sandbox = grey_pictures_with_classes();
    Outcome::of(&mut train(&sandbox, "whole")).succeeded();
    let whole = the_run(&sandbox, "whole");
    let config = fs::read_to_string(whole.join("config.toml")).unwrap();
    assert!(config.contains("label_size = 2\n") && config.contains("channels = 1\n"), "{config}");

    // A killed run ends with the same bytes, noise and labels included.
    for trigger in ["tick 1 ", "tick 2 "] {
        let kill = |child: &mut Child| child.kill().unwrap();
        let (mut child, seen) = watch(&mut train(&sandbox, "killed"), trigger, kill);
        assert!(!child.wait().unwrap().success(), "{seen:?}");
    }
    let last = Outcome::of(&mut train(&sandbox, "killed")).succeeded();
    assert!(last.stderr.contains("going on from"), "{last}");
    assert_same(&whole, &the_run(&sandbox, "killed"));

    // Rows of real pictures are dark, bright, dark, bright.
    let reals = grey(&whole.join("reals.png"));
    assert_eq!(reals.dimensions(), (24, 32));
    for (_, y, Luma([value])) in reals.enumerate_pixels() {
        assert_eq!(*value > 100, y / 8 % 2 == 1, "{y}: {value}");
    }
    assert_eq!(grey(&whole.join("fakes000002.png")).dimensions(), (24, 32));

    let generate = |class: &[&str], dest: &str| {
        let mut command = sandbox.command("pggan-train");
        command.args(["generate", "--seeds", "5", "--device", "cpu", "--dest", dest]);
        command.args(class).arg("--network").arg(&whole);
        Outcome::of(&mut command)
    };
    for (class, dest) in [("0", "dark"), ("1", "bright"), ("1", "again")] {
        generate(&["--class", class], dest).succeeded();
    }
    let five = |dest: &str| grey(&sandbox.path(dest).join("seed0005.png"));
    assert_ne!(five("dark"), five("bright"));
    assert_eq!(five("again"), five("bright"));
    assert!(generate(&[], "none").refused().contains("--class, from 0 to 1"));
    assert!(generate(&["--class", "2"], "none").refused().contains("classes 0 to 1"));

    // More labels than the data have; none at all.
    let wanted = |args: &[&str]| Outcome::of(train(&sandbox, "other").args(args));
    let error = wanted(&["--set", "model.label_size=3"]).refused();
    assert!(error.contains("the data set has 2"), "{error}");
    let plain = wanted(&["--cond", "false", "--dry-run"]).succeeded().stdout;
    assert!(plain.contains("label_size = 0\n"), "{plain}");
}

#[test]
fn pictures_with_opacity_stay_so() {
    let sandbox = Sandbox::new();
    let pictures = sandbox.path("pictures");
    fs::create_dir(&pictures).unwrap();
    for picture in default_pictures(8) {
        fs::copy(&picture, pictures.join(picture.file_name().unwrap())).unwrap();
    }
    let prepare = ["prepare", "--source", "pictures", "--dest", "data", "--channels", "4"];
    let prepare = prepare.into_iter().chain(["--resolution", "8"]);
    sandbox.run("pggan-data", prepare).succeeded();
    let mut command = train(&sandbox, "runs");
    command.args(["--set", "schedule.total_kimg=0.5", "--set", "loss.kind=wgan-gp"]);
    Outcome::of(&mut command).succeeded();
    let run = the_run(&sandbox, "runs");
    for name in ["reals.png", "fakes000000.png"] {
        let picture = image::open(run.join(name)).unwrap();
        assert!(matches!(picture, DynamicImage::ImageRgba8(_)), "{name}: {:?}", picture.color());
    }
    let generate = ["generate", "--seeds", "0", "--dest", "out", "--device", "cpu", "--network"];
    let generate = generate.into_iter().map(Into::into).chain([run.into_os_string()]);
    sandbox.run("pggan-train", generate).succeeded();
    let image = image::open(sandbox.path("out").join("seed0000.png")).unwrap();
    assert_eq!(image.color(), ColorType::Rgba8);
}
