//! `bench` measures what it says, and says it to people and to programs.

use pggan_tests::Sandbox;
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const CASE: [&str; 9] =
    ["bench", "--width", "16", "--resolution", "8", "--batch", "4", "--iters", "2"];

#[test]
fn one_case_is_one_line() {
    let sandbox = Sandbox::new();
    let args = CASE.iter().chain(&["--alpha", "0.5", "--threads", "2", "--json"]);
    let outcome = sandbox.run("pggan-train", args).succeeded();
    let [line] = &lines(&outcome.stdout)[..] else { panic!("{outcome}") };
    for (key, expected) in [("width", 16.0), ("resolution", 8.0), ("batch", 4.0), ("alpha", 0.5)] {
        assert_eq!(line[key].as_f64(), Some(expected), "{key}");
    }
    assert_eq!((line["threads"].as_u64(), line["iters"].as_u64()), (Some(2), Some(2)));
    let number = |key: &str| line[key].as_f64().unwrap();
    assert!(number("seconds") > 0.0 && number("gflops") > 0.0);
    assert!((number("img_s") * number("seconds") - 4.0).abs() < 1e-6);
    if cfg!(target_os = "linux") {
        assert!(number("peak_mib") > 1.0);
    }
}

#[test]
fn numbers_of_threads_take_turns() {
    let sandbox = Sandbox::new();
    let more = ["--alpha", "1", "--threads", "1,2", "--turns", "3"];
    let outcome = sandbox.run("pggan-train", CASE.iter().chain(&more).chain(&["--json"]));
    let outcome = outcome.succeeded();
    let [one, two] = &lines(&outcome.stdout)[..] else { panic!("{outcome}") };
    assert_eq!((one["threads"].as_u64(), two["threads"].as_u64()), (Some(1), Some(2)));
    for gain in ["speedup", "room", "share"] {
        assert_eq!(one["gain"][gain].as_f64(), Some(1.0));
        assert!(two["gain"][gain].as_f64().unwrap() > 0.0);
    }
    // In a table, from a process of their own.
    let outcome = sandbox.run("pggan-train", CASE.iter().chain(&more)).succeeded();
    assert!(outcome.stdout.contains("threads: 1, 1.00x"), "{outcome}");
    assert!(outcome.stdout.contains("threads: 2, "), "{outcome}");
}

#[test]
fn tables_and_profiles_are_for_people() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run("pggan-train", CASE).succeeded();
    // Stable and fading, under the machine's own rate.
    let rows = outcome.stdout.lines().filter(|line| line.trim_start().starts_with("16 "));
    assert_eq!(rows.count(), 2, "{outcome}");
    assert!(outcome.stdout.contains("GFLOP/s on"), "{outcome}");

    let args = CASE.iter().chain(&["--alpha", "1", "--layers"]);
    let outcome = sandbox.run("pggan-train", args).succeeded();
    for word in ["level03.conv0", "weight grad", "input grad", "forward", "adam", "the rest"] {
        assert!(outcome.stdout.contains(word), "{word}: {outcome}");
    }
}

#[test]
fn impossible_cases_are_refused() {
    let sandbox = Sandbox::new();
    for (args, expected) in [
        (&["--width", "16", "--resolution", "12"][..], "resolution = 12"),
        (&["--width", "16", "--resolution", "8", "--batch", "6"], "batch 6"),
        (&["--width", "16", "--resolution", "4", "--alpha", "0.5"], "nothing is faded in"),
        (&["--width", "16", "--resolution", "8", "--alpha", "2"], "alpha 2"),
        (&["--width", "16", "--iters", "0"], "--iters"),
        (&["--width", "16", "--threads", "2,0"], "--threads 0"),
        (&["--width", "16", "--threads", "1,1000000"], "--threads 1000000: at most"),
        (&["--width", "16", "--threads", "1,2", "--compare", "torch"], "one number of --threads"),
        (&["--preset", "nonsense"], "nonsense"),
        (&["--compare", "torch"], "--width"),
    ] {
        let line = sandbox.run("pggan-train", ["bench"].iter().chain(args)).refused();
        assert!(line.contains(expected), "{args:?}: {line}");
    }
}
