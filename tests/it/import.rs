//! Weights of other implementations: their images, and what becomes of files that are up to no good.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pggan_tests::{Sandbox, binary, root};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    root().join("tests/import").join(name)
}

/// Shape and numbers of a file's `images`.
fn images(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let images = file.tensor("images").unwrap();
    let numbers = images.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    (images.shape().to_vec(), numbers.collect())
}

/// Files of `torch.save` in both forms; the numbers beside them are what PyTorch made of them (`make_zoo.py`).
#[test]
fn a_checkpoint_of_the_zoo_gives_its_images() {
    for name in ["zoo-stable", "zoo-fading"] {
        let sandbox = Sandbox::new();
        let source = fixture(&format!("{name}.pth"));
        let args = ["import", "--source", source.to_str().unwrap(), "--dest", "imported"];
        let outcome = sandbox.run("pggan-train", args).succeeded();
        // Its discriminator compares samples in another way, which must not pass in silence.
        assert!(outcome.stderr.contains("consecutive samples"), "{outcome}");

        let expected = fixture(&format!("{name}.safetensors"));
        let latents = expected.to_str().unwrap();
        let args = [
            "generate",
            "--network",
            "imported",
            "--latents",
            latents,
            "--dest",
            "out.safetensors",
        ];
        sandbox.run("pggan-train", args).succeeded();
        let (ours, theirs) = (images(&sandbox.path("out.safetensors")), images(&expected));
        assert_eq!((&ours.0, &ours.0), (&theirs.0, &vec![4, 3, 16, 16]));
        let largest = theirs.1.iter().fold(0f32, |m, v| m.max(v.abs()));
        let off = ours.1.iter().zip(&theirs.1).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < 1e-5 * largest, "{name}: {off:e} of {largest}");

        // The snapshot is one like any other.
        let args = ["generate", "--network", "imported", "--seeds", "3", "--dest", "pictures"];
        sandbox.run("pggan-train", args).succeeded();
        assert!(sandbox.path("pictures/seed0003.png").is_file());
    }
}

#[test]
fn hostile_files_are_refused_at_once() {
    // Built before any clock starts.
    binary("pggan-train");
    let sandbox = Sandbox::new();
    let good = fs::read(fixture("zoo-fading.pth")).unwrap();
    let zip = fs::read(fixture("zoo-stable.pth")).unwrap();
    let pickle = |program: &[u8]| [b"\x80\x02", program].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("system", pickle(b"cos\nsystem\nX\x02\0\0\0id\x85R."), "os.system"),
        (
            "stack-global",
            pickle(b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."),
            "builtins.eval",
        ),
        ("inst", pickle(b"(X\x02\0\0\0idiposix\nsystem\n."), "posix.system"),
        ("huge-string", pickle(b"X\xff\xff\xff\xff"), "ends too early"),
        ("huge-bytes", pickle(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"), "ends too early"),
        ("cycle", pickle(b"]q\0h\0a."), "neither"),
        (
            "deep",
            pickle(&[vec![b']'; 200_000], vec![b'a'; 199_999], vec![b'.']].concat()),
            "neither",
        ),
        ("marks", pickle(&b"(".repeat(500_000)), "ends too early"),
        ("no-stack", pickle(b"R."), "without its value"),
        ("empty", Vec::new(), "ends too early"),
        ("text", b"not a checkpoint at all\n".to_vec(), "its pickle"),
        ("truncated", good[..good.len() / 2].to_vec(), "too early"),
        ("truncated-zip", zip[..zip.len() / 2].to_vec(), "zip archive"),
    ];
    for (name, bytes, expected) in cases {
        fs::write(sandbox.path(name), bytes).unwrap();
        let start = Instant::now();
        let args = ["import", "--source", name, "--dest", "out"];
        let line = sandbox.run("pggan-train", args).refused();
        assert!(line.contains(expected) && line.contains(name), "{name}: {line}");
        // Starting the program is most of it; a lie about lengths would take minutes or all memory.
        assert!(start.elapsed() < Duration::from_secs(20), "{name}");
        assert!(!sandbox.path("out").exists(), "{name}: something was written");
    }
}
