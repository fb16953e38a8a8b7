//! The invariants of `ARCHITECTURE.md`: who knows whom, and what is done nowhere but in its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use pggan_tests::{Outcome, cargo};
use serde_json::Value;

/// Which crates of ours each member of the workspace may depend on, in tests and builds too.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("pggan-data", &["pggan-hub"]),
    ("pggan-hub", &["pggan-model"]),
    ("pggan-metrics", &[]),
    ("pggan-model", &["pggan-ops"]),
    ("pggan-ops", &[]),
    (
        "pggan-tests",
        &["pggan-data", "pggan-hub", "pggan-metrics", "pggan-model", "pggan-ops", "pggan-train"],
    ),
    ("pggan-train", &["pggan-data", "pggan-hub", "pggan-metrics", "pggan-model", "pggan-ops"]),
    ("xtask", &[]),
];

/// A member of the workspace.
struct Member {
    name: String,
    folder: PathBuf,
    /// Every crate that its manifest names; of those in `used`, the binaries and libraries are made.
    named: BTreeSet<String>,
    used: BTreeSet<String>,
}

fn members() -> Vec<Member> {
    let metadata =
        Outcome::of(&mut cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]))
            .succeeded();
    let metadata: Value = serde_json::from_str(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(member).collect()
}

fn member(package: &Value) -> Member {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let dependencies = package["dependencies"].as_array().unwrap();
    let names = |all: bool| {
        let wanted = dependencies.iter().filter(|dependency| all || dependency["kind"] != "dev");
        wanted.map(|dependency| text(&dependency["name"])).collect()
    };
    Member {
        name: text(&package["name"]),
        folder: Path::new(&text(&package["manifest_path"])).parent().unwrap().to_path_buf(),
        named: names(true),
        used: names(false),
    }
}

fn member_named(name: &str) -> Member {
    members().into_iter().find(|member| member.name == name).unwrap()
}

#[test]
fn crates_know_only_those_below_them() {
    let may_know: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let members = members();
    assert_eq!(members.len(), may_know.len());
    for Member { name, named, .. } in &members {
        let allowed =
            may_know.get(&**name).unwrap_or_else(|| panic!("{name} has no place in MAY_KNOW yet"));
        for other in named.iter().filter(|other| may_know.contains_key(&***other)) {
            assert!(allowed.contains(&&**other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn pggan_data_does_not_know_candle() {
    let named = member_named("pggan-data").named;
    assert!(!named.iter().any(|name| name.starts_with("candle")), "{named:?}");
    // Nor by way of the hub: it is built alone without any of the networks.
    let tree = ["tree", "--offline", "--package", "pggan-data", "--prefix", "none"];
    let tree = Outcome::of(&mut cargo(&[&tree[..], &["--edges", "normal"]].concat())).succeeded();
    assert!(tree.stdout.contains("pggan-hub") && !tree.stdout.contains("candle"), "{tree}");
}

#[test]
fn xtask_stays_light() {
    let light = ["clap", "rustix", "tokio"].map(str::to_owned).into();
    assert_eq!(member_named("xtask").used, light);
}

#[test]
fn versions_are_stated_in_the_root_alone() {
    for Member { name, folder, .. } in members() {
        let manifest: toml::Table =
            fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
        let targets = manifest
            .get("target")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flat_map(toml::Table::values);
        let places = targets.filter_map(toml::Value::as_table).chain([&manifest]);
        for place in places {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                for (dependency, stated) in
                    place.get(kind).and_then(toml::Value::as_table).into_iter().flatten()
                {
                    let inherited = stated.get("workspace").and_then(toml::Value::as_bool);
                    assert_eq!(
                        inherited,
                        Some(true),
                        "{name}: write `{dependency}.workspace = true`"
                    );
                }
            }
        }
    }
}

#[test]
fn networks_and_their_engine_are_pure() {
    for name in ["pggan-model", "pggan-ops"] {
        let Member { folder, used, .. } = member_named(name);
        assert!(
            !used.iter().any(|name| name.starts_with("rand")),
            "{name} draws no random numbers"
        );
        for source in sources(&folder) {
            source.assert_without(&["Instant", "SystemTime"], "networks read no clock");
            source.assert_without(
                &["rand", "randn", "thread_rng"],
                "networks draw no random numbers",
            );
            if source.path != folder.join("src/weights.rs") {
                let io = ["File", "OpenOptions", "TcpStream", "fs", "memmap2", "stdin"];
                source.assert_without(&io, "only pggan-model's weights.rs reads and writes files");
            }
        }
    }
}

#[test]
fn only_main_prints() {
    for Member { folder, .. } in members() {
        for source in sources(&folder) {
            if source.path.file_name() != Some(OsStr::new("main.rs")) {
                let print = ["dbg!", "eprint!", "eprintln!", "print!", "println!"];
                source.assert_without(
                    &print,
                    "only main.rs prints; elsewhere return it or use tracing",
                );
            }
        }
    }
}

/// A source file and the words of its code: identifiers, and names of macros with their `!`.
struct Source {
    path: PathBuf,
    words: BTreeSet<String>,
}

impl Source {
    fn assert_without(&self, unwanted: &[&str], because: &str) {
        let found: Vec<_> = unwanted.iter().filter(|&&word| self.words.contains(word)).collect();
        assert!(found.is_empty(), "{} has {found:?}: {because}", self.path.display());
    }
}

/// All that a member's library and binaries are made of, without comments and unit tests.
fn sources(folder: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![folder.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) {
                let words = words(&fs::read_to_string(&path).unwrap());
                sources.push(Source { path, words });
            }
        }
    }
    assert!(!sources.is_empty());
    sources
}

fn words(source: &str) -> BTreeSet<String> {
    // By our custom a file ends with its unit tests.
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let is_part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '!';
    code.flat_map(|line| line.split(|c| !is_part_of_word(c)))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn words_are_of_code_alone() {
    let source = "use std::{fs, path};\n/// Like `Instant`.\nfn f() { println!(\"{}\", !x); } // rand\n\
                  #[cfg(test)]\nmod tests { use std::time::SystemTime; }\n";
    let words = words(source);
    assert!(
        ["std", "fs", "path", "println!", "!x"].iter().all(|&word| words.contains(word)),
        "{words:?}"
    );
    assert!(
        ["Instant", "rand", "SystemTime", "tests"].iter().all(|&word| !words.contains(word)),
        "{words:?}"
    );
}
