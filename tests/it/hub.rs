//! Networks on the hub, as the trainer sends and fetches them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pggan_tests::{Outcome, Sandbox, root};

use crate::metrics::{images, made_up, mobilenet};
use crate::stub::{COMMIT, Stub};

fn trainer(hub: &Stub, sandbox: &Sandbox, args: &[&str]) -> Command {
    hub.command("pggan-train", sandbox, args)
}

/// A small network of our own, imported from a file in the repository.
fn imported(sandbox: &Sandbox) -> PathBuf {
    let source = root().join("tests/import/zoo-stable.pth");
    let args = ["import", "--source", source.to_str().unwrap(), "--dest", "imported"];
    sandbox.run("pggan-train", args).succeeded();
    sandbox.path("imported/network-snapshot-000000.safetensors")
}

#[test]
fn what_is_pushed_is_what_is_generated_with() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    let snapshot = imported(&sandbox);
    let push = ["push-to-hub", "--network", "imported", "--repo", "me/faces"];
    let line = Outcome::of(&mut trainer(&hub, &sandbox, &push)).refused();
    assert!(line.contains("me/faces") && line.contains("set HF_TOKEN"), "{line}");
    let line = Outcome::of(trainer(&hub, &sandbox, &push).env("HF_TOKEN", "wrong")).refused();
    assert!(line.contains("403") && line.contains("You need write access"), "{line}");
    assert!(hub.state.lock().unwrap().files.is_empty());

    let done = Outcome::of(trainer(&hub, &sandbox, &push).env("HF_TOKEN", "secret")).succeeded();
    assert!(done.stderr.contains(&format!("/me/faces/commit/{COMMIT}")), "{done}");
    {
        let state = hub.state.lock().unwrap();
        let names: Vec<_> =
            state.files.keys().map(|name| name.trim_start_matches("me/faces/")).collect();
        assert_eq!(names, ["README.md", "config.json", "model.safetensors", "samples.png"]);
        assert_eq!(state.store.len(), 1, "the weights alone are large");
        assert_eq!(state.files["me/faces/model.safetensors"], fs::read(snapshot).unwrap());
        let card = String::from_utf8(state.files["me/faces/README.md"].clone()).unwrap();
        for words in ["tags:\n- pggan", "16x16", "samples.png", "--network me/faces", "zoo-stable"]
        {
            assert!(card.contains(words), "{card}");
        }
        let picture = image::load_from_memory(&state.files["me/faces/samples.png"]).unwrap();
        assert_eq!((picture.width(), picture.height()), (64, 64));
    }
    hub.requests();

    // The same picture from the hub as from here; the first download breaks twice and goes on where it was.
    hub.state.lock().unwrap().broken = vec![3000, 20_000];
    let generate = |network: &'static str, dest: &'static str| {
        trainer(&hub, &sandbox, &["generate", "--network", network, "--seeds", "5", "--dest", dest])
    };
    Outcome::of(&mut generate("me/faces", "a")).succeeded();
    Outcome::of(&mut generate("imported", "b")).succeeded();
    let picture = |folder: &str| fs::read(sandbox.path(folder).join("seed0005.png")).unwrap();
    assert_eq!(picture("a"), picture("b"));
    let requests = hub.requests().join("\n");
    for range in
        ["model.safetensors HTTP/1.1 bytes=0-\n", "bytes=20000-", "bytes=23000-", "config.json"]
    {
        assert!(requests.contains(range), "{range}: {requests}");
    }

    // Again, and without the hub: the cache has it.
    Outcome::of(&mut generate("me/faces", "c")).succeeded();
    Outcome::of(generate("me/faces", "d").env("HF_HUB_OFFLINE", "1")).succeeded();
    assert_eq!((picture("c"), picture("d")), (picture("b"), picture("b")));
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn foreign_weights_are_imported_from_a_repository() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    let import = |source: &'static str| {
        trainer(&hub, &sandbox, &["import", "--source", source, "--dest", "out"])
    };
    let bytes = fs::read(root().join("tests/import/genforce-fused.pth")).unwrap();
    hub.put("huggan/pggan/README.md", b"# A network".to_vec());
    hub.put("huggan/pggan/pytorch_model.bin", bytes.clone());
    let done = Outcome::of(&mut import("huggan/pggan")).succeeded();
    assert!(done.stderr.contains("16x16"), "{done}");

    hub.put("some/nets/a.pth", bytes.clone());
    hub.put("some/nets/b/c.pth", bytes);
    let line = Outcome::of(&mut import("some/nets")).refused();
    assert!(line.contains("several files") && line.contains("some/nets/a.pth"), "{line}");
    Outcome::of(&mut import("some/nets/b/c.pth")).succeeded();
}

#[test]
fn weights_of_feature_networks_come_from_the_hub_once() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    images(&sandbox.path("a"), 4, 32, 0);
    mobilenet(&sandbox.path("made-up.safetensors"), made_up);
    hub.put(
        "me/nets/w/made-up.safetensors",
        fs::read(sandbox.path("made-up.safetensors")).unwrap(),
    );
    let measure = |more: &[&str]| {
        let images = ["metrics", "--images", "a", "--images", "a", "--cache", "none", "--json"];
        let metric = ["--metrics", "fd-mobilenetv2"];
        trainer(&hub, &sandbox, &[&images[..], &metric, more].concat())
    };

    let own = ["--own-weights", "mobilenetv2=me/nets/w/made-up.safetensors"];
    let first = Outcome::of(&mut measure(&own)).succeeded();
    assert!(first.stdout.contains("fd-mobilenetv2-own-weights"), "{first}");
    assert!(hub.requests().join("\n").contains("/me/nets/resolve/main/w/made-up.safetensors"));
    Outcome::of(measure(&own).env("HF_HUB_OFFLINE", "1")).succeeded();
    assert_eq!(hub.requests(), [""; 0]);

    // Published files are known by their SHA-256, wherever they come from.
    let line = Outcome::of(&mut measure(&["--weights", "me/nets/w/made-up.safetensors"])).refused();
    assert!(line.contains("its SHA-256 is") && line.contains("b0353104"), "{line}");
    let line = Outcome::of(&mut measure(&["--weights", "me/nets/other.pth"])).refused();
    assert!(line.contains("me/nets/other.pth") && line.contains(&hub.address), "{line}");
}

#[test]
fn what_is_not_there_is_said_in_one_line() {
    let (hub, sandbox) = (Stub::new(), Sandbox::new());
    let generate =
        || trainer(&hub, &sandbox, &["generate", "--network", "no/such", "--dest", "out"]);
    let line = Outcome::of(&mut generate()).refused();
    assert!(line.contains("no/such/model.safetensors") && line.contains(&hub.address), "{line}");
    let line = Outcome::of(generate().env("HF_HUB_OFFLINE", "1")).refused();
    assert!(line.contains("not in the cache") && line.contains("HF_HUB_OFFLINE"), "{line}");
    let line = Outcome::of(generate().env("HF_ENDPOINT", "http://127.0.0.1:1")).refused();
    assert!(line.contains("http://127.0.0.1:1"), "{line}");
    hub.put("bad/net/model.safetensors", b"not weights".to_vec());
    let line = Outcome::of(&mut trainer(
        &hub,
        &sandbox,
        &["generate", "--network", "bad/net", "--dest", "out"],
    ))
    .refused();
    assert!(line.contains("model.safetensors") && line.contains("damaged"), "{line}");
    assert!(!sandbox.path("out").exists());
}
