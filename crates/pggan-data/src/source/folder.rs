//! Image files in a folder and all folders below it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{
    Container, DATASET_JSON, Entry, Listing, MAX_FILE_BYTES, ReadEntry, is_image_name, printable,
};
use crate::Result;
use crate::decode::Form;
use crate::error::Context;

/// The files of a folder and their lengths; their order is that of the entries.
#[derive(Debug)]
struct Folder {
    files: Vec<(PathBuf, u64)>,
}

impl Folder {
    fn listing(found: Vec<(Entry, PathBuf)>) -> Listing {
        let with_length = |(entry, path): (Entry, PathBuf)| {
            let length = entry.bytes;
            (entry, (path, length))
        };
        let (entries, files) = found.into_iter().map(with_length).unzip();
        Listing::of(entries, Box::new(Self { files }))
    }
}

pub(super) fn list(root: &Path) -> Result<Listing> {
    let mut walk = Walk::default();
    walk.visit(root, "", &mut Vec::new())?;
    walk.found.sort_unstable_by(|(a, _), (b, _)| a.name.as_bytes().cmp(b.name.as_bytes()));
    let json = root.join(DATASET_JSON);
    let mut dataset_json = None;
    if json.is_file() {
        let mut bytes = Vec::new();
        let file = File::open(&json).context("read", &json)?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).context("read", &json)?;
        dataset_json = Some(bytes);
        walk.passed_over -= 1;
    }
    let passed_over = walk.passed_over;
    Ok(Listing { passed_over, dataset_json, ..Folder::listing(walk.found) })
}

/// Files of a folder by their names, which must not lead out of it.
pub(super) fn chosen<'a>(root: &Path, names: impl Iterator<Item = &'a str>) -> Listing {
    let found = names.map(|name| {
        let path = root.join(name);
        // One that is not there has no size; reading says what is wrong.
        let bytes = fs::metadata(&path).map_or(1, |meta| meta.len());
        (Entry::new(printable(name), bytes), path)
    });
    Folder::listing(found.collect())
}

/// The files that lie in a folder itself, sorted; what other formats in folders are told by.
pub(super) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(root).context("list", root)? {
        let item = item.context("list", root)?;
        // Asking the system about each file takes as long as listing them.
        let is_file = match item.file_type() {
            Ok(kind) if !kind.is_symlink() => kind.is_file(),
            _ => item.path().is_file(),
        };
        if is_file {
            files.push(item.path());
        }
    }
    // As bytes, which is quicker than part by part.
    files.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(files)
}

impl Container for Folder {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(self))
    }
}

impl ReadEntry for &Folder {
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let (path, length) = &self.files[index];
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        // One call of the system is enough where the length is known.
        bytes.resize((*length).min(limit) as usize, 0);
        file.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => "it has become shorter since it was listed".to_owned(),
            _ => error.to_string(),
        })?;
        Ok(Form::Encoded)
    }
}

#[derive(Default)]
struct Walk {
    found: Vec<(Entry, PathBuf)>,
    passed_over: u64,
}

impl Walk {
    /// `prefix` is the name of `dir` inside the source; `above` are the real paths of the folders on
    /// the way to it, which a symbolic link must not lead back to.
    fn visit(&mut self, dir: &Path, prefix: &str, above: &mut Vec<PathBuf>) -> Result<()> {
        let real = dir.canonicalize().context("open", dir)?;
        if above.contains(&real) {
            return Ok(());
        }
        above.push(real);
        for item in fs::read_dir(dir).context("list", dir)? {
            let item = item.context("list", dir)?;
            let path = item.path();
            let file_name = item.file_name();
            let file_name = file_name.to_string_lossy();
            let name = format!("{prefix}{}", printable(&file_name));
            // Follows links; one that leads nowhere is passed over like any other non-image.
            let meta = match item.metadata() {
                Ok(meta) if meta.is_symlink() => fs::metadata(&path),
                meta => meta,
            };
            match meta {
                Ok(meta) if meta.is_dir() && !file_name.starts_with('.') => {
                    self.visit(&path, &format!("{name}/"), above)?;
                }
                Ok(meta) if meta.is_file() && is_image_name(&file_name) => {
                    self.found.push((Entry::new(name, meta.len()), path));
                }
                Ok(meta) if meta.is_dir() => {}
                _ => self.passed_over += 1,
            }
        }
        above.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recursive_sorted_and_free_of_cycles() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["b.png", "a/z.jpg", "a/b/c.gif", "B.png", "notes.txt", ".hidden/x.png", "a-1.png"]
        {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap();
        }
        #[cfg(unix)]
        for (target, link) in [("..", "a/up"), ("nowhere", "gone.png"), ("b.png", "l.png")] {
            std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
        }
        let Listing { entries, passed_over, .. } = list(dir.path()).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["B.png", "a-1.png", "a/b/c.gif", "a/z.jpg", "b.png", "l.png"]);
        assert_eq!(passed_over, 2, "notes.txt and the broken link");
    }
}
