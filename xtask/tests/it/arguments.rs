//! What reaches the launched program: arguments, environment, working directory; and its exit code on the way back.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use crate::{FakeCargo, root};

/// The arguments that cargo is started with by `xtask` with `args`.
fn forwarded(args: &[&str]) -> Vec<String> {
    let fake = FakeCargo::new(r#"printf '%s\n' "$@""#);
    let output = fake.xtask().args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What stands before and behind the `--` between cargo's arguments and the program's.
fn split(args: &[&str]) -> (Vec<String>, Vec<String>) {
    let all = forwarded(args);
    let middle = all.iter().position(|arg| arg == "--").unwrap();
    (all[..middle].to_vec(), all[middle + 1..].to_vec())
}

#[test]
fn cargo_runs_the_binary_in_release() {
    let manifest = root().join("Cargo.toml").display().to_string();
    let (cargo, program) = split(&["prepare-dataset"]);
    assert_eq!(
        cargo,
        ["run", "--manifest-path", &manifest, "--package", "pggan-data", "--profile", "release"]
    );
    assert_eq!(program, ["prepare"]);
}

#[test]
fn each_command_has_its_binary() {
    #[track_caller]
    fn check(job: &str, package: &str, command: &str) {
        let (cargo, program) = split(&[job]);
        assert!(cargo.contains(&package.to_owned()), "{cargo:?}");
        assert_eq!(program, [command]);
    }
    check("prepare-dataset", "pggan-data", "prepare");
    check("inspect-dataset", "pggan-data", "inspect");
    check("verify-dataset", "pggan-data", "verify");
    check("train", "pggan-train", "train");
    check("generate", "pggan-train", "generate");
}

#[test]
fn arguments_pass_untouched() {
    let args = [
        "--help",
        "-h",
        "-x",
        "--unknown=1",
        "--",
        "-5",
        "",
        "a b",
        "--",
        "--device",
        "cpu",
        "train",
        "--version",
    ];
    let (_, program) = split(&[&["train"], &args[..]].concat());
    assert_eq!(program[0], "train");
    assert_eq!(program[1..], args);
}

#[test]
fn a_leading_separator_passes() {
    let (_, program) = split(&["generate", "--", "--seeds"]);
    assert_eq!(program, ["generate", "--", "--seeds"]);
}

#[test]
fn names_that_are_not_utf8_pass() {
    let fake = FakeCargo::new(r#"shift 9; printf '%s' "$1""#);
    let name = vec![b'a', 0xff, 0xfe, b' ', b'b'];
    let output = fake.xtask().arg("train").arg(OsString::from_vec(name.clone())).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.ends_with(&name), "{output:?}");
}

#[test]
fn device_adds_a_feature_and_stays_an_argument() {
    #[track_caller]
    fn check(job: &str, args: &[&str], features: &[&str]) {
        let (cargo, program) = split(&[&[job], args].concat());
        assert_eq!(cargo[7..], *features);
        assert_eq!(program[1..], *args);
    }
    check("train", &["--device", "cuda:1"], &["--features", "cuda"]);
    check("generate", &["--device=metal"], &["--features", "metal"]);
    check("train", &["--device", "cpu"], &[]);
    check("prepare-dataset", &["--device", "cuda"], &[]);
}

#[test]
fn the_profile_can_be_chosen() {
    let fake = FakeCargo::new(r#"printf '%s ' "$@""#);
    let output = fake.xtask().arg("train").env("PGGAN_PROFILE", "dev").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("--profile dev -- train"));
}

#[test]
fn the_program_learns_the_root_and_keeps_the_working_directory() {
    let fake = FakeCargo::new(r#"printf '%s\n' "$PGGAN_ROOT"; pwd -P"#);
    let output = fake.xtask().arg("train").output().unwrap();
    let expected =
        format!("{}\n{}\n", root().display(), fake.folder.path().canonicalize().unwrap().display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn exit_codes_come_back() {
    #[track_caller]
    fn check(script: &'static str, code: i32) {
        let status = FakeCargo::new(script).xtask().arg("train").status().unwrap();
        assert_eq!(status.code(), Some(code), "{script}");
    }
    check("exit 0", 0);
    check("exit 1", 1);
    check("exit 101", 101);
    check("exit 255", 255);
    check("kill -KILL $$", 128 + 9);
    check("kill -TERM $$", 128 + 15);
}

#[test]
fn a_missing_cargo_is_one_line() {
    let fake = FakeCargo::new("");
    let output = fake.xtask().arg("train").env("CARGO", "/nowhere/cargo").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: could not start /nowhere/cargo: "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}
