//! The Hugging Face hub, as far as it is spoken to: a server on this machine that answers as it does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use pggan_tests::{Outcome, Sandbox, root};
use serde_json::{Value, json};

use crate::metrics::{images, made_up, mobilenet};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One repository's files, and what was asked for.
#[derive(Default)]
struct State {
    /// By `owner/name/file`.
    files: BTreeMap<String, Vec<u8>>,
    /// What came into the store of large files, by its sum.
    store: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    /// Answers of file contents that break off after so many bytes.
    broken: Vec<usize>,
}

/// A hub on a port of its own. It serves until the test ends.
struct Stub {
    address: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    line: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Stub {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, own) = (shared.clone(), own.clone());
                std::thread::spawn(move || serve(&stream, &shared, &own));
            }
        });
        Self { address, state }
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The trainer, with this hub and a cache of the sandbox's own in its environment.
    fn trainer(&self, sandbox: &Sandbox, args: &[&str]) -> Command {
        let mut command = sandbox.command("pggan-train");
        for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", &self.address).env("HF_HOME", sandbox.path("hf")).args(args);
        command
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>, address: &str) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let (status, headers, body) = answer(&request, &mut state.lock().unwrap(), address);
        let broken = request.path.contains("/resolve/") && request.headers["range"] != "bytes=0-0";
        let cut = if broken { state.lock().unwrap().broken.pop() } else { None };
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.extend([name, ": ", &value, "\r\n"]);
        }
        let mut out = stream;
        let body = &body[..cut.unwrap_or(body.len()).min(body.len())];
        let sent = out.write_all(head.as_bytes()).and_then(|()| out.write_all(b"\r\n"));
        if sent.and_then(|()| out.write_all(body)).is_err() || cut.is_some() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line: line.trim().to_owned(), path, headers, body })
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn answer(request: &Request, state: &mut State, address: &str) -> Answer {
    let range = request.headers.get("range").cloned().unwrap_or_default();
    state.requests.push(format!("{} {range}", request.line));
    let text = |status, value: Value| (status, vec![], value.to_string().into_bytes());
    let json_body = || serde_json::from_slice::<Value>(&request.body).unwrap();
    let path = request.path.trim_start_matches('/');
    if let Some((repo, file)) = path.split_once("/resolve/main/") {
        let Some(bytes) = state.files.get(&format!("{repo}/{file}")) else {
            return text(404, json!({"error": "Entry not found"}));
        };
        let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
        let headers = vec![
            ("ETag", format!("\"{}-{}\"", file.replace('/', "-"), bytes.len())),
            ("X-Repo-Commit", COMMIT.to_owned()),
            ("Accept-Ranges", "bytes".to_owned()),
            ("Content-Range", format!("bytes {from}-{}/{}", to - 1, bytes.len())),
        ];
        return (206, headers, bytes[from..to].to_vec());
    }
    if let Some(repo) =
        path.strip_prefix("api/models/").and_then(|p| p.strip_suffix("/revision/main"))
    {
        let prefix = format!("{repo}/");
        let files = state.files.keys().filter_map(|file| file.strip_prefix(&prefix));
        let siblings: Vec<Value> = files.map(|file| json!({"rfilename": file})).collect();
        return text(200, json!({"siblings": siblings, "sha": COMMIT}));
    }
    if let Some(oid) = path.strip_prefix("store/") {
        state.store.insert(oid.to_owned(), request.body.clone());
        return text(200, json!({}));
    }
    if request.headers.get("authorization").map(String::as_str) != Some("Bearer secret") {
        return text(403, json!({"error": "You need write access"}));
    }
    if path == "api/repos/create" {
        return text(409, json!({"error": "You already created this model repo"}));
    }
    if path.contains("/preupload/") {
        let files = json_body()["files"].as_array().unwrap().clone();
        let mode =
            |file: &Value| if file["size"].as_u64() > Some(20_000) { "lfs" } else { "regular" };
        let files: Vec<Value> = files
            .iter()
            .map(|file| json!({"path": file["path"], "uploadMode": mode(file)}))
            .collect();
        return text(200, json!({"files": files}));
    }
    if path.ends_with("/info/lfs/objects/batch") {
        let objects = json_body()["objects"].as_array().unwrap().clone();
        let object = |object: &Value| {
            let href = format!("{address}/store/{}", object["oid"].as_str().unwrap());
            let verify = format!("{address}/api/verify");
            json!({"oid": object["oid"], "size": object["size"],
                   "actions": {"upload": {"href": href, "header": {"x-part": "1"}}, "verify": {"href": verify}}})
        };
        return text(200, json!({"objects": objects.iter().map(object).collect::<Vec<_>>()}));
    }
    if path == "api/verify" {
        let known = state.store.contains_key(json_body()["oid"].as_str().unwrap());
        return text(if known { 200 } else { 422 }, json!({}));
    }
    if let Some(repo) =
        path.strip_prefix("api/models/").and_then(|p| p.strip_suffix("/commit/main"))
    {
        for line in request.body.split(|&byte| byte == b'\n') {
            let line: Value = serde_json::from_slice(line).unwrap();
            let value = &line["value"];
            let bytes = match line["key"].as_str().unwrap() {
                "header" => continue,
                "file" => decode(value["content"].as_str().unwrap()),
                _ => state.store[value["oid"].as_str().unwrap()].clone(),
            };
            state.files.insert(format!("{repo}/{}", value["path"].as_str().unwrap()), bytes);
        }
        return text(
            200,
            json!({"commitUrl": format!("{address}/{repo}/commit/{COMMIT}"), "commitOid": COMMIT}),
        );
    }
    text(404, json!({"error": "Not Found"}))
}

/// Base64.
fn decode(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::new();
    for four in text.chunks(4) {
        let bits = four.iter().fold(0u32, |bits, &c| bits << 6 | u32::from(value(c)));
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
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
    let line = Outcome::of(&mut hub.trainer(&sandbox, &push)).refused();
    assert!(line.contains("me/faces") && line.contains("set HF_TOKEN"), "{line}");
    let line = Outcome::of(hub.trainer(&sandbox, &push).env("HF_TOKEN", "wrong")).refused();
    assert!(line.contains("403") && line.contains("You need write access"), "{line}");
    assert!(hub.state.lock().unwrap().files.is_empty());

    let done = Outcome::of(hub.trainer(&sandbox, &push).env("HF_TOKEN", "secret")).succeeded();
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
        hub.trainer(&sandbox, &["generate", "--network", network, "--seeds", "5", "--dest", dest])
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
        hub.trainer(&sandbox, &["import", "--source", source, "--dest", "out"])
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
        hub.trainer(&sandbox, &[&images[..], &metric, more].concat())
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
    let generate = || hub.trainer(&sandbox, &["generate", "--network", "no/such", "--dest", "out"]);
    let line = Outcome::of(&mut generate()).refused();
    assert!(line.contains("no/such/model.safetensors") && line.contains(&hub.address), "{line}");
    let line = Outcome::of(generate().env("HF_HUB_OFFLINE", "1")).refused();
    assert!(line.contains("not in the cache") && line.contains("HF_HUB_OFFLINE"), "{line}");
    let line = Outcome::of(generate().env("HF_ENDPOINT", "http://127.0.0.1:1")).refused();
    assert!(line.contains("http://127.0.0.1:1"), "{line}");
    hub.put("bad/net/model.safetensors", b"not weights".to_vec());
    let line = Outcome::of(
        &mut hub.trainer(&sandbox, &["generate", "--network", "bad/net", "--dest", "out"]),
    )
    .refused();
    assert!(line.contains("model.safetensors") && line.contains("damaged"), "{line}");
    assert!(!sandbox.path("out").exists());
}
