//! The data set that comes with the project is what its recipe says.

use std::{collections::BTreeSet, fs};

use pggan_tests::root;

#[test]
fn fluent_emoji_is_what_was_chosen() {
    let folder = root().join("datasets/fluent-emoji");
    let chosen = fs::read_to_string(folder.join("chosen.txt")).unwrap();
    let names = chosen.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names: Vec<_> =
        names.map(|line| format!("{}.jpg", line.split_once(' ').unwrap().1)).collect();

    let mut bytes = 0;
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder.join("images")).unwrap() {
        let entry = entry.unwrap();
        bytes += entry.metadata().unwrap().len();
        files.insert(entry.file_name().into_string().unwrap());
    }
    assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), files);
    assert_eq!(names.len(), files.len(), "a name stands twice in chosen.txt");
    assert!(bytes < 8 << 20, "{bytes} bytes are more than a clone should have to fetch");
}
