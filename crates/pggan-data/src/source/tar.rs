//! Image files in tar archives, webdataset's shards among them.
//!
//! `000017.jpg` has the label that `000017.cls` or `000017.json` beside it says, as webdataset has it: a class
//! or a list of numbers. (Other JSON is about something else, and left alone.)

use std::collections::BTreeMap;
use std::path::Path;

use super::blob::Blob;
use super::{
    Container, DATASET_JSON, Entry, Listing, MAX_FILE_BYTES, ReadEntry, is_called, is_image_name,
    printable,
};
use crate::Result;
use crate::decode::Form;
use crate::labels::Label;
use crate::source::labelling;

/// A file above this many bytes is no label.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// Archives, and where in them the images lie.
#[derive(Debug)]
struct Tar {
    archives: Vec<Blob>,
    /// Archive, offset, length of each entry.
    places: Vec<(usize, u64, u64)>,
}

/// Whether a file begins like a tar archive.
pub(super) fn is_tar(beginning: &[u8]) -> bool {
    beginning.get(257..262) == Some(b"ustar")
}

/// Lists the images of some archives, whose names, if there are several, begin those of their images.
pub(super) fn list(archives: Vec<(String, Blob)>) -> Result<Listing, String> {
    let several = archives.len() > 1;
    let mut found = Vec::new();
    let mut labels = BTreeMap::new();
    let (mut passed_over, mut dataset_json) = (0, None);
    for (number, (archive, blob)) in archives.iter().enumerate() {
        let prefix = if several { format!("{archive}/") } else { String::new() };
        let unreadable =
            |error: std::io::Error| format!("{archive}: not a readable tar archive ({error})");
        let mut tar = ::tar::Archive::new(blob.part(0, blob.len()));
        for file in tar.entries_with_seek().map_err(unreadable)? {
            let file = file.map_err(unreadable)?;
            let (kind, offset, size) =
                (file.header().entry_type(), file.raw_file_position(), file.size());
            let name = String::from_utf8_lossy(&file.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name);
            let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
            let place = (number, offset, size);
            // Links lead to other names and sparse files are in pieces: neither is image data.
            if kind.is_file() && is_image_name(last) {
                found.push((Entry::new(format!("{prefix}{}", printable(name)), size), place));
            } else if kind.is_file()
                && name != DATASET_JSON
                && (is_called(name, "cls") || is_called(name, "json"))
            {
                if let Some(label) = label(blob, offset, size) {
                    labels.insert(format!("{prefix}{}", key(&printable(name))), label);
                }
            } else if kind.is_file() && name == DATASET_JSON && !several && size <= MAX_FILE_BYTES {
                let mut bytes = Vec::new();
                blob.read(offset, size, &mut bytes).map_err(unreadable)?;
                dataset_json = Some(bytes);
            } else if !kind.is_dir() {
                passed_over += 1;
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.name.as_bytes().cmp(b.name.as_bytes()));
    for (entry, _) in &mut found {
        entry.label = labels.get(key(&entry.name)).cloned();
    }
    let (entries, places) = found.into_iter().unzip();
    let tar = Tar { archives: archives.into_iter().map(|(_, blob)| blob).collect(), places };
    Ok(Listing { passed_over, dataset_json, ..Listing::of(entries, Box::new(tar)) })
}

/// What files of one sample have in common: the name up to the first dot of its last part.
fn key(name: &str) -> &str {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    name[last..].find('.').map_or(name, |dot| &name[..last + dot])
}

fn label(blob: &Blob, offset: u64, size: u64) -> Option<Label> {
    let mut bytes = Vec::new();
    blob.read(offset, Some(size).filter(|&size| size <= MAX_LABEL_BYTES)?, &mut bytes).ok()?;
    labelling::parse_one(&bytes)
}

/// The files in an archive: name, offset, length.
pub(super) fn members(blob: &Blob) -> Result<Vec<(String, u64, u64)>, String> {
    let unreadable = |error: std::io::Error| format!("not a readable tar archive ({error})");
    let mut tar = ::tar::Archive::new(blob.part(0, blob.len()));
    let mut members = Vec::new();
    for file in tar.entries_with_seek().map_err(unreadable)? {
        let file = file.map_err(unreadable)?;
        if file.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&file.path_bytes()).into_owned();
            members.push((name, file.raw_file_position(), file.size()));
        }
    }
    Ok(members)
}

/// Opens archives, and names them.
pub(super) fn archives(paths: &[&Path]) -> Result<Vec<(String, Blob)>, String> {
    let open = |path: &&Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let blob = Blob::open(path).map_err(|error| format!("{name}: {error}"))?;
        Ok((printable(&name), blob))
    };
    paths.iter().map(open).collect()
}

impl Container for Tar {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(self))
    }
}

impl ReadEntry for &Tar {
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let (archive, offset, length) = self.places[index];
        self.archives[archive]
            .read(offset, length.min(limit), bytes)
            .map_err(|error| error.to_string())?;
        Ok(Form::Encoded)
    }
}
