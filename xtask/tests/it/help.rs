//! `cargo xtask` explains itself.

use crate::FakeCargo;

/// Exit code, standard output and standard error of `xtask` with `args`; the program that it launches says `launched`.
fn ask(args: &[&str]) -> (Option<i32>, String, String) {
    let output = FakeCargo::new("echo launched").xtask().args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const COMMANDS: [&str; 6] =
    ["prepare-dataset", "inspect-dataset", "verify-dataset", "train", "generate", "ci"];

#[test]
fn help_lists_commands_and_examples() {
    for flag in ["--help", "-h"] {
        let (code, help, _) = ask(&[flag]);
        assert_eq!(code, Some(0));
        for command in COMMANDS {
            assert!(help.contains(&format!("\n  {command} ")), "{command} is not in:\n{help}");
        }
        assert!(help.contains("cargo xtask train --data"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
}

#[test]
fn alone_it_shows_the_help_and_does_nothing() {
    let (code, _, shown) = ask(&[]);
    assert_eq!(code, Some(2));
    assert_eq!(shown, ask(&["--help"]).1);
}

#[test]
fn help_of_a_command_is_the_programs_own() {
    assert_eq!(ask(&["train", "--help"]), (Some(0), "launched\n".to_owned(), String::new()));
}

#[test]
fn a_mistyped_command_is_put_right() {
    let (code, out, message) = ask(&["trian"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(message.starts_with("error: "), "{message}");
    assert!(message.contains("'train'"), "{message}");
}

#[test]
fn a_flag_before_the_command_is_refused() {
    let (code, out, message) = ask(&["--device", "cuda", "train"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(message.starts_with("error: "), "{message}");
}
