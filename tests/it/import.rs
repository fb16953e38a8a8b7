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

/// One file of each kind through the real binary; the numbers beside them are what PyTorch made of them (`make_*.py`).
#[test]
fn foreign_networks_give_their_images() {
    for (name, ending, note) in [
        // Its discriminator compares samples in another way, which must not pass in silence.
        ("zoo-fading", "pth", "consecutive samples"),
        ("nvidia-unfused", "pkl", ""),
        ("genforce-fused", "pth", "no discriminator"),
    ] {
        let sandbox = Sandbox::new();
        let source = fixture(&format!("{name}.{ending}"));
        let args = ["import", "--source", source.to_str().unwrap(), "--dest", "imported"];
        let outcome = sandbox.run("pggan-train", args).succeeded();
        assert!(outcome.stderr.contains(note), "{outcome}");

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
        ("cycle", pickle(b"]q\0h\0a."), "something else than NVIDIA's"),
        ("networks-in-themselves", pickle(b"}q\0(U\x09variablesh\0uh\0h\0\x87."), "no ToRGB_lod0"),
        ("many-values", pickle(&b"N".repeat(3_000_000)), "more values"),
        // An ordered dictionary's entries are copied each time: 4 bytes for 256 of them.
        ("many-copies", pickle(&many_copies()), "more values"),
        ("numpy-code", pickle(b"cnumpy.testing._private.utils\nrunstring\n."), "runstring"),
        ("module-code", pickle(b"ctfutil\nrun\nX\x01\0\0\0xR."), "tfutil.run"),
        ("numpy-lie", pickle(&numpy_lie()), "12 numbers behind it"),
        (
            "safetensors-lie",
            safetensors("\"shape\":[9],\"data_offsets\":[0,36]", 8),
            "safetensors:",
        ),
        ("safetensors-overflow", safetensors(&overflow(), 0), "safetensors:"),
        ("shape-lie", shape_lie(), "more weights than it holds numbers"),
        (
            "unknown-names",
            safetensors("\"shape\":[1],\"data_offsets\":[0,4]", 4),
            "no implementation",
        ),
        (
            "deep",
            pickle(&[vec![b']'; 200_000], vec![b'a'; 199_999], vec![b'.']].concat()),
            "something else than NVIDIA's",
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

/// One tensor, `x`.
fn safetensors(entry: &str, bytes: usize) -> Vec<u8> {
    header(&format!("{{\"x\":{{\"dtype\":\"F32\",{entry}}}}}"), bytes)
}

fn header(json: &str, bytes: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; bytes]].concat()
}

fn overflow() -> String {
    format!("\"shape\":[{m},{m}],\"data_offsets\":[0,{m}]", m = u64::MAX)
}

/// Names of the zoo, shapes of a network of gigabytes, and no numbers at all.
fn shape_lie() -> Vec<u8> {
    let names = ["formatLayer", "groupScale0.0", "toRGBLayers.0"];
    let shapes = ["[262144,0]", "[16384,16384,0,3]", "[3,0,1,1]"];
    let tensors = names.iter().zip(shapes).map(|(name, shape)| {
        format!(
            "\"netG.{name}.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,0]}}"
        )
    });
    let biases = "\"netG.formatLayer.bias\":{\"dtype\":\"F32\",\"shape\":[262144],\"data_offsets\":[0,1048576]}";
    let json: Vec<String> = tensors.chain([biases.to_owned()]).collect();
    header(&format!("{{{}}}", json.join(",")), 1 << 20)
}

/// A hundred thousand ordered dictionaries of the same 256 entries.
fn many_copies() -> Vec<u8> {
    let entries = b"K\x01K\x02\x86".repeat(256);
    let build = b"h\x01h\x02R0".repeat(100_000);
    [b"ccollections\nOrderedDict\nq\x01](", &entries[..], b"e\x85q\x02", &build, b"."].concat()
}

/// Networks of one variable: an array of a million millions that has the bytes of twelve numbers.
fn numpy_lie() -> Vec<u8> {
    let array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01M\xff\xffM\xff\xff\x86cnumpy\ndtype\nU\x02f4\x85RI00\nU\x30";
    let variable = [b"U\x08x/weight", &array[..], &[0; 48], b"tb\x86"].concat();
    let network = [b"}(U\x09variables](", &variable[..], b"eu"].concat();
    [&network[..], &network, &network, b"\x87."].concat()
}
