//! Networks of several sizes, grey and with labels: every output, every gradient, three steps of training, in `f64` and
//! with the engine's own kernels, beside numbers that another implementation made in `f64`.

use std::path::Path;

use pggan_train::golden;

#[test]
fn all_numbers_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let golden::Report { rows, skipped } = golden::check(&folder).unwrap();
    let wrong: Vec<_> = rows.iter().filter(|row| !row.ok()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The metrics have tests of their own.
    assert_eq!(skipped, ["metrics.json", "metrics.safetensors"]);
    for file in [
        "net16_forward",
        "net16_wgangp_fade",
        "net16_wgangp_stab_unfused",
        "net16_lsgan_fade",
        "net16_steps_wgangp",
        "net16_steps_lsgan",
        "net32_forward",
        "net32_wgangp_fade",
        "cond8_forward",
        "cond8_wgangp_acgan",
        "cond8_wgangp_acgan_stab",
        "ops",
        "schedule",
    ] {
        assert!(rows.iter().any(|row| row.file == file), "nothing of {file} was compared");
    }
}

/// A check that cannot fail says nothing: with other constants it does.
#[test]
fn wrong_numbers_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    for (from, to) in [
        ("net16_params", "other_params"),
        ("net16_forward", "other_forward"),
        ("net16_wgangp_fade", "other_wgangp"),
        ("cond8_params", "cond8_params"),
        ("cond8_forward", "cond8_forward"),
    ] {
        let copy = folder.path().join(format!("{to}.safetensors"));
        std::fs::copy(golden.join(format!("{from}.safetensors")), &copy).unwrap();
        if from.ends_with("forward") || from.ends_with("wgangp_fade") {
            // The numbers end the file: these are inputs and outputs of the networks.
            let mut bytes = std::fs::read(&copy).unwrap();
            let end = bytes.len() - 3;
            bytes[end] ^= 0x40;
            std::fs::write(&copy, bytes).unwrap();
        }
    }
    let golden::Report { rows, .. } = golden::check(folder.path()).unwrap();
    for file in ["other_forward", "other_wgangp", "cond8_forward"] {
        assert!(rows.iter().any(|row| row.file == file && !row.ok()), "{file}");
    }
    let empty = tempfile::tempdir().unwrap();
    let message = golden::check(empty.path()).unwrap_err().to_string();
    assert!(message.contains("no file to check"), "{message}");
}
