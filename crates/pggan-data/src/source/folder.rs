//! Image files in a folder and all folders below it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Entry, is_image_name, printable};
use crate::Result;
use crate::error::Context;

/// The files of a folder; their order is that of the entries.
#[derive(Debug)]
pub(super) struct Folder {
    paths: Vec<PathBuf>,
}

impl Folder {
    pub(super) fn list(root: &Path) -> Result<(Vec<Entry>, u64, Self)> {
        let mut walk = Walk::default();
        walk.visit(root, "", &mut Vec::new())?;
        walk.found.sort_unstable_by(|(a, _), (b, _)| a.name.as_bytes().cmp(b.name.as_bytes()));
        let (entries, paths) = walk.found.into_iter().unzip();
        Ok((entries, walk.passed_over, Self { paths }))
    }

    pub(super) fn read(&self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<(), String> {
        let file = File::open(&self.paths[index]).map_err(|error| error.to_string())?;
        file.take(limit).read_to_end(bytes).map_err(|error| error.to_string())?;
        Ok(())
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
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() && !file_name.starts_with('.') => {
                    self.visit(&path, &format!("{name}/"), above)?;
                }
                Ok(meta) if meta.is_file() && is_image_name(&file_name) => {
                    self.found.push((Entry { name, bytes: meta.len(), checksum: None }, path));
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
        let (entries, passed_over, _) = Folder::list(dir.path()).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["B.png", "a-1.png", "a/b/c.gif", "a/z.jpg", "b.png", "l.png"]);
        assert_eq!(passed_over, 2, "notes.txt and the broken link");
    }
}
