//! Every preset: what it resolves to, and that it trains.

use std::fs;

use pggan_tests::{Outcome, Sandbox, root};

use crate::common::default_pictures;

const PRESETS: [&str; 21] = [
    "quick",
    "small",
    "v1-1gpu",
    "v2-1gpu",
    "v2-2gpus",
    "v2-4gpus",
    "v2-8gpus",
    "celebahq",
    "celebahq-lsgan",
    "lsun",
    "lsun-full",
    "cifar10",
    "table1-a",
    "table1-b",
    "table1-c",
    "table1-d",
    "table1-e-star",
    "table1-e",
    "table1-f",
    "table1-g",
    "table1-h",
];

/// What `--dry-run` says of pictures of 128x128, without where they lie and which they are.
fn resolved(sandbox: &Sandbox, args: &[&str]) -> String {
    let all = ["train", "--data", "data", "--device", "cpu", "--dry-run"];
    let outcome = sandbox.run("pggan-train", all.iter().chain(args)).succeeded();
    let kept = |line: &&str| !["path = ", "content = "].iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = outcome.stdout.lines().filter(kept).collect();
    let (last, lines) = lines.split_last().unwrap();
    assert!(last.starts_with("# 3 images in "), "{last}");
    lines.join("\n")
}

#[test]
fn presets_resolve_to_these_settings() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("pictures")).unwrap();
    for picture in default_pictures(3) {
        let name = picture.file_name().unwrap();
        fs::copy(&picture, sandbox.path("pictures").join(name)).unwrap();
    }
    let args = ["prepare", "--source", "pictures", "--dest", "data", "--resolution", "128"];
    sandbox.run("pggan-data", args).succeeded();
    for preset in PRESETS {
        insta::assert_snapshot!(preset, resolved(&sandbox, &["--preset", preset]));
    }
    let switches = "nogrowing,nopixelnorm,nowscale,noleakyrelu,nosmoothing,norepeat,noreset";
    let all = ["--preset", "v2-1gpu", "--ablate", switches, "--resolution", "32"];
    insta::assert_snapshot!("all-ablations", resolved(&sandbox, &all));

    let unknown = |args: &[&str]| {
        let all = ["train", "--data", "data", "--dry-run"];
        sandbox.run("pggan-train", all.iter().chain(args)).refused()
    };
    assert!(unknown(&["--preset", "v2-1gpu-fp16"]).contains("v2-1gpu trains in 32 bits"));
    assert!(unknown(&["--preset", "v9"]).contains("table1-e-star"));
    assert!(unknown(&["--ablate", "nofun"]).contains("noleakyrelu"));
    assert!(unknown(&["--set", "model.dtype=float16"]).contains("unknown field `dtype`"));
}

/// Three ticks of every preset on the default pictures, growing where it grows: narrow, and on a short schedule.
#[test]
fn every_preset_trains_on_the_default_pictures() {
    let sandbox = Sandbox::new();
    let source = root().join("datasets/fluent-emoji/images");
    let prepare = ["prepare", "--dest", "data", "--source"].map(Into::into);
    sandbox.run("pggan-data", prepare.into_iter().chain([source.into_os_string()])).succeeded();
    for preset in PRESETS {
        let mut command = sandbox.command("pggan-train");
        command.args(["train", "--data", "data", "--device", "cpu", "--preset", preset]);
        command.args(["--kimg", "0.12", "--tick", "0.04", "--batch", "4", "--grid", "2x1"]);
        for setting in [
            "schedule.training_kimg=0.04",
            "schedule.transition_kimg=0.04",
            "model.fmap_base=64",
            "model.fmap_max=8",
        ] {
            command.args(["--set", setting]);
        }
        let outcome = Outcome::of(&mut command).succeeded();
        let ticks: Vec<&str> =
            outcome.stderr.lines().filter(|line| line.starts_with("tick ")).collect();
        assert_eq!(ticks.len(), 3, "{preset}: {outcome}");
        assert!(!outcome.stderr.contains("steps skipped"), "{preset}: {outcome}");
        assert!(!outcome.stderr.contains("NaN"), "{preset}: {outcome}");
    }
}
