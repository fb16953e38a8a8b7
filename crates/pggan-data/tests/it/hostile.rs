//! The hostile files of `tests/bad`: each is refused in one line or named as a bad file, in bounded memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Space, noise, run};

/// Address space that each run may take: what the program says it needs at most for small images, generously.
const KIB: u64 = 1 << 20;

fn corpus(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bad").join(kind);
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).collect();
    paths.sort();
    paths
}

/// `prepare` with the address space limited, where the system can.
fn limited(space: &Space, source: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_pggan-data");
    let script = format!("ulimit -v {KIB} 2>/dev/null; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, binary, "prepare", "--dest", "out", "--threads", "2", "--source"]);
    command.arg(source).current_dir(space.file("")).env_remove("RUST_LOG");
    command
}

#[test]
fn every_hostile_image_is_named_and_skipped() {
    let images = corpus("images");
    assert!(images.len() >= 50, "{} files", images.len());
    let space = Space::new();
    for path in &images {
        fs::copy(path, space.file("in").join(path.file_name().unwrap())).unwrap();
    }
    for good in 0..2 {
        noise(good, 8, 8).save(space.file(&format!("in/good-{good}.png"))).unwrap();
    }
    let done = run(limited(&space, Path::new("in")));
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    for path in &images {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(done.stderr.contains(&format!("bad file {name}: ")), "{name}:\n{}", done.stderr);
    }
    assert!(done.ok().contains(&format!("{} bad files skipped", images.len())));
    let store = pggan_data::Store::open(space.file("out")).unwrap();
    assert_eq!((store.images(), store.manifest().bad.count as usize), (2, images.len()));
}

#[test]
fn every_hostile_source_is_refused_in_one_line() {
    let sources = corpus("sources");
    assert!(sources.len() >= 50, "{} files", sources.len());
    let space = Space::new();
    for source in sources.iter().filter(|path| !path.ends_with("idx-few-labels-idx1-ubyte")) {
        let done = run(limited(&space, source));
        assert!(!done.stderr.contains("panicked"), "{}: {}", source.display(), done.stderr);
        let error = done.error();
        let name = source.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name), "{error}");
        assert!(!space.file("out").exists(), "{}", source.display());
    }
    assert!(!space.file("../up.png").exists() && !Path::new("/etc/root.png").exists());
}
