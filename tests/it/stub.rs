//! The Hugging Face hub, as far as it is spoken to: a server on this machine that answers as it does.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use pggan_tests::Sandbox;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// That of the branch on which the hub has converted a data set.
const CONVERTED: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// One repository's files, and what was asked for.
#[derive(Default)]
pub(crate) struct State {
    /// By `owner/name/file`, `datasets/owner/name/file`, or `datasets/owner/name@converted/file`.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What came into the store of large files, by its sum.
    pub(crate) store: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    /// Answers of file contents that break off after so many bytes.
    pub(crate) broken: Vec<usize>,
    /// Files that are said to have another sum than they have.
    pub(crate) lies: Vec<String>,
    /// Data sets that want a token.
    pub(crate) gated: Vec<String>,
}

/// A hub on a port of its own. It serves until the test ends.
pub(crate) struct Stub {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
}

struct Request {
    line: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Stub {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The binary `name`, with this hub and a cache of the sandbox's own in its environment.
    pub(crate) fn command(&self, name: &str, sandbox: &Sandbox, args: &[&str]) -> Command {
        let mut command = sandbox.command(name);
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
    let authorization = request.headers.get("authorization").map(String::as_str);
    let is_known = authorization == Some("Bearer secret");
    if !is_known && state.gated.iter().any(|repo| path.contains(&**repo)) {
        return text(401, json!({"error": "Access to this repository is restricted"}));
    }
    if let Some((repo, file)) = path.split_once("/resolve/") {
        return content(state, repo, file, &range);
    }
    if let Some((repo, revision)) =
        path.strip_prefix("api/").and_then(|p| p.split_once("/revision/"))
    {
        return list(state, repo, revision);
    }
    if let Some(oid) = path.strip_prefix("store/") {
        state.store.insert(oid.to_owned(), request.body.clone());
        return text(200, json!({}));
    }
    if !is_known {
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

/// A part of a file: `file` begins with the revision.
fn content(state: &State, repo: &str, file: &str, range: &str) -> Answer {
    let (revision, name) = file.split_once('/').unwrap();
    let path = format!("{}/{name}", folder(repo, revision));
    let Some(bytes) = state.files.get(&path) else {
        return (404, vec![], b"Entry not found".to_vec());
    };
    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
    if from >= bytes.len() {
        return (416, vec![], vec![]);
    }
    let commit = if revision == CONVERTED { CONVERTED } else { COMMIT };
    let headers = vec![
        ("X-Linked-ETag", format!("\"{}\"", sum(state, &path))),
        ("ETag", "\"of the store\"".to_owned()),
        ("X-Repo-Commit", commit.to_owned()),
        ("Accept-Ranges", "bytes".to_owned()),
        ("Content-Range", format!("bytes {from}-{}/{}", to - 1, bytes.len())),
    ];
    (206, headers, bytes[from..to].to_vec())
}

/// The files of a repository, `models/owner/name` or `datasets/owner/name`, with lengths and sums.
fn list(state: &State, repo: &str, revision: &str) -> Answer {
    let is_converted = revision.starts_with("refs%2Fconvert%2Fparquet");
    let commit = if is_converted { CONVERTED } else { COMMIT };
    let folder = folder(repo.trim_start_matches("models/"), commit) + "/";
    let files = state.files.iter().filter(|(path, _)| path.starts_with(&folder));
    let sibling = |(path, bytes): (&String, &Vec<u8>)| {
        let lfs = json!({"sha256": sum(state, path), "size": bytes.len()});
        json!({"rfilename": &path[folder.len()..], "size": bytes.len(), "lfs": lfs})
    };
    let siblings: Vec<Value> = files.map(sibling).collect();
    if siblings.is_empty() {
        return (404, vec![], b"Repository not found".to_vec());
    }
    (200, vec![], json!({"siblings": siblings, "sha": commit}).to_string().into_bytes())
}

/// Where a repository's files of a revision are in [`State::files`].
fn folder(repo: &str, revision: &str) -> String {
    if revision == CONVERTED { format!("{repo}@converted") } else { repo.to_owned() }
}

/// The SHA-256 of a file, or so it is said.
pub(crate) fn sum(state: &State, path: &str) -> String {
    let hash = Sha256::digest(&state.files[path]);
    let sum = hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    if state.lies.iter().any(|lie| lie == path) { sum.chars().rev().collect() } else { sum }
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
