//! Data sets on the hub, as `prepare` fetches them.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use pggan_tests::{Outcome, Sandbox, root};

use crate::stub::{Stub, sum};

fn prepare(hub: &Stub, sandbox: &Sandbox, source: &str, dest: &str) -> Command {
    let flags =
        ["prepare", "--resolution", "4", "--labels", "none", "--source", source, "--dest", dest];
    hub.command("pggan-data", sandbox, &flags)
}

fn table(split: &str) -> Vec<u8> {
    let file = format!("crates/pggan-data/tests/data/parquet/{split}-00000-of-00001.parquet");
    fs::read(root().join(file)).unwrap()
}

fn png(value: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(4, 4, image::Rgb([value; 3]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// The bytes of the top level of what was prepared.
fn pixels(sandbox: &Sandbox, dest: &str) -> Vec<u8> {
    fs::read(sandbox.path(dest).join("r02-00000.safetensors")).unwrap()
}

#[test]
fn a_data_set_is_brought_and_prepared() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    hub.put("datasets/some/animals/README.md", b"# Animals".to_vec());
    for split in ["train", "test"] {
        hub.put(
            &format!("datasets/some/animals/data/{split}-00000-of-00001.parquet"),
            table(split),
        );
    }
    let local = root().join("crates/pggan-data/tests/data/parquet/train-00000-of-00001.parquet");
    Outcome::of(&mut prepare(&hub, &sandbox, local.to_str().unwrap(), "local")).succeeded();

    // The first connection breaks, twice; what had come is not asked for again.
    hub.state.lock().unwrap().broken = vec![500, 1000];
    let source = "hf://some/animals";
    let done = Outcome::of(&mut prepare(&hub, &sandbox, source, "a")).succeeded();
    assert!(done.stdout.contains("5 images"), "{done}");
    let requests = hub.requests().join("\n");
    for range in ["bytes=0-\n", "bytes=1000-", "bytes=1500-"] {
        assert!(requests.contains(range), "{range}: {requests}");
    }
    assert!(!requests.contains("test-0"), "{requests}");
    assert_eq!(pixels(&sandbox, "a"), pixels(&sandbox, "local"));

    // Again: only the list is asked for. Without the hub: nothing is.
    Outcome::of(&mut prepare(&hub, &sandbox, source, "b")).succeeded();
    assert_eq!(hub.requests().len(), 1);
    Outcome::of(prepare(&hub, &sandbox, source, "c").env("HF_HUB_OFFLINE", "1")).succeeded();
    assert_eq!(hub.requests(), [""; 0]);
    assert_eq!(pixels(&sandbox, "b"), pixels(&sandbox, "c"));

    // What was there when a run was killed.
    let cache = sandbox.path("hf/hub/datasets--some--animals");
    let mut blobs = fs::read_dir(cache.join("blobs")).unwrap().map(|item| item.unwrap().path());
    let blob = blobs.find(|path| path.extension().is_none()).unwrap();
    fs::remove_dir_all(cache.join("snapshots")).unwrap();
    for (have, asked) in [(700, "bytes=700-"), (table("train").len(), "bytes=0-\n")] {
        fs::remove_file(&blob).ok();
        fs::write(blob.with_extension("part"), &table("train")[..have]).unwrap();
        fs::remove_dir_all(cache.join("snapshots")).ok();
        Outcome::of(&mut prepare(&hub, &sandbox, source, &format!("d{have}"))).succeeded();
        let requests = hub.requests().join("\n") + "\n";
        assert!(requests.contains(asked), "{requests}");
    }

    let done = Outcome::of(&mut prepare(&hub, &sandbox, "hf://some/animals:test", "e")).succeeded();
    assert!(done.stdout.contains("2 images"), "{done}");
}

#[test]
fn other_forms_of_data_sets() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    // The hub's own conversion comes before image files.
    hub.put("datasets/o/converted/cat/1.png", png(1));
    hub.put("datasets/o/converted@converted/default/train/0000.parquet", table("train"));
    // Plain images, of which two are equal.
    for (name, value) in [("train/cat/1.png", 9), ("train/cat/2.png", 9), ("train/dog/3.png", 7)] {
        hub.put(&format!("datasets/o/images/{name}"), png(value));
    }
    hub.put("datasets/o/images/test/cat/4.png", png(200));
    let mut tar = tar::Builder::new(Vec::new());
    for i in 0..3 {
        let (mut header, png) = (tar::Header::new_gnu(), png(i));
        header.set_size(png.len() as u64);
        tar.append_data(&mut header, format!("{i:03}.png"), &*png).unwrap();
    }
    hub.put("datasets/o/web/000000.tar", tar.into_inner().unwrap());
    for (source, images) in [("converted", 5), ("images", 3), ("images:test", 1), ("web", 3)] {
        let dest = source.replace(':', "-");
        let mut command = prepare(&hub, &sandbox, &format!("hf://o/{source}"), &dest);
        if images == 1 {
            let line = Outcome::of(&mut command).refused();
            assert!(line.contains("1 good images among 1"), "{line}");
        } else {
            let done = Outcome::of(&mut command).succeeded();
            assert!(done.stdout.contains(&format!("{images} images")), "{done}");
        }
    }
    let flags =
        ["prepare", "--labels", "folders", "--source", "hf://o/images", "--dest", "classes"];
    let done = Outcome::of(&mut hub.command("pggan-data", &sandbox, &flags)).succeeded();
    assert!(done.stdout.contains("with 2 labels"), "{done}");
}

/// Another process, or a thread that brings an equal file, has all bytes and is about to give them their name.
#[test]
fn what_another_process_has_brought_is_left_to_it() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    let (name, content) = ("datasets/o/one/data/train-0.parquet", table("train"));
    hub.put(name, content.clone());
    let sum = sum(&hub.state.lock().unwrap(), name);
    let blobs = sandbox.path("hf/hub/datasets--o--one/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(sum).with_extension("part");
    fs::write(&part, content).unwrap();
    let lock = fs::File::create(part.with_extension("lock")).unwrap();
    lock.lock().unwrap();

    let mut child = prepare(&hub, &sandbox, "hf://o/one", "out").spawn().unwrap();
    let mut requests = String::new();
    while !requests.contains("train-0.parquet") {
        assert!(child.try_wait().unwrap().is_none(), "{requests}");
        thread::sleep(Duration::from_millis(5));
        requests += &hub.requests().join("\n");
    }
    fs::rename(&part, part.with_extension("")).unwrap();
    drop(lock);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_goes_wrong_is_said_in_one_line() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    for name in ["open", "gated", "odd"] {
        hub.put(&format!("datasets/o/{name}/data/train-0.parquet"), table("train"));
    }
    hub.put("datasets/o/nothing/README.md", b"-".to_vec());
    hub.put("datasets/o/escape/../../x.parquet", table("train"));
    hub.state.lock().unwrap().gated.push("o/gated".into());
    hub.state.lock().unwrap().lies.push("datasets/o/odd/data/train-0.parquet".into());
    let refused = |source: &str, variable: (&str, &str)| {
        let mut command = prepare(&hub, &sandbox, source, "out");
        let line = Outcome::of(command.env(variable.0, variable.1)).refused();
        assert!(!sandbox.path("out").exists());
        line
    };
    let none = ("X", "");
    for (source, variable, words) in [
        ("hf://o/missing", none, &["o/missing", &hub.address, "no token was sent"][..]),
        ("hf://o/gated", none, &["o/gated", "not for you", "HF_TOKEN"]),
        ("hf://o/gated", ("HF_TOKEN", "wrong"), &["o/gated", "a token was sent"]),
        ("hf://o/odd", none, &["o/odd/data/train-0.parquet", "SHA-256", "try again"]),
        ("hf://o/open", ("HF_HUB_OFFLINE", "1"), &["o/open", "not in the cache"]),
        ("hf://o/open", ("HF_ENDPOINT", "http://127.0.0.1:1"), &["http://127.0.0.1:1"]),
        ("hf://o/open:dev", none, &["no split dev; there is train"]),
        ("hf://o/open/x.zip", none, &["there is no file x.zip"]),
        ("hf://o/nothing", none, &["no Parquet, tar, zip or image files"]),
        ("hf://o/escape", none, &["a file is called"]),
        ("hf://nobody", none, &["pass hf://OWNER/NAME"]),
    ] {
        let line = refused(source, variable);
        assert!(words.iter().all(|word| line.contains(word)), "{source}: {line}");
    }
    // What was wrong is not kept.
    hub.state.lock().unwrap().lies.clear();
    Outcome::of(&mut prepare(&hub, &sandbox, "hf://o/odd", "odd")).succeeded();
    let mut gated = prepare(&hub, &sandbox, "hf://o/gated", "gated");
    Outcome::of(gated.env("HF_TOKEN", "secret")).succeeded();
}
