//! The tests' own tools: the binaries are found and run, and an outcome is judged.

use std::process::Command;

use pggan_tests::{Outcome, Sandbox, binary};

fn shell(script: &str) -> Outcome {
    Outcome::of(Command::new("sh").args(["-c", script]))
}

#[test]
fn binaries_run_in_the_sandbox() {
    let sandbox = Sandbox::new();
    assert!(binary("xtask").is_file());
    let outcome = sandbox.run("xtask", ["--help"]).succeeded();
    assert!(outcome.stdout.contains("cargo xtask train"), "{outcome}");
    assert!(sandbox.run("xtask", ["no-such-command"]).refused().contains("no-such-command"));
}

#[test]
fn what_a_program_says_is_kept() {
    let outcome = shell("echo out; echo err >&2; exit 3");
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (Some(3), "out\n", "err\n"));
    assert_eq!(shell("kill -KILL $$").code, None);
}

#[test]
fn only_one_line_of_error_and_code_2_is_a_refusal() {
    assert_eq!(
        shell("echo working >&2; echo 'error: no such file' >&2; exit 2").refused(),
        "error: no such file"
    );
    for script in [
        "echo 'error: a' >&2; exit 1",
        "exit 2",
        "echo 'error: a' >&2; echo 'error: b' >&2; exit 2",
        "echo 'thread panicked at' >&2; echo 'error: a' >&2; exit 2",
    ] {
        let judged = std::panic::catch_unwind(|| shell(script).refused());
        assert!(judged.is_err(), "{script} passed for a refusal");
    }
}
