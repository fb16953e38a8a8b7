//! The paper's multi-resolution TFRecords: a folder with `name-r02.tfrecords` … and `name-rxx.labels`.
//!
//! The images are those of the highest level; the levels below follow from it, here as there. A single
//! `.tfrecords` file is taken by itself.

use std::path::{Path, PathBuf};

use super::blob::Blob;
use super::{Container, Entry, Listing, MAX_FILE_BYTES, ReadEntry};
use crate::Result;
use crate::decode::Form;
use crate::labels::Label;
use crate::planes::interleave;
use crate::tfrecord::{FOOT, HEAD, example, masked_crc, read_npy, record_length};

/// Where the data of each record lie.
#[derive(Debug)]
struct Records {
    blob: Blob,
    places: Vec<(u64, u64)>,
}

/// The highest level's file among `paths`.
pub(super) fn highest<'a>(paths: &[&'a Path]) -> Option<&'a Path> {
    let level = |path: &Path| level_of(path).unwrap_or(0);
    paths.iter().copied().max_by_key(|path| level(path))
}

/// `NN` of `name-rNN.tfrecords`.
fn level_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".tfrecords")?.rsplit_once("-r")?.1.parse().ok()
}

/// Lists the images of a file.
pub(super) fn list(path: &Path) -> Result<Listing, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of = |reason: String| format!("{name}: {reason}");
    let blob = Blob::open(path).map_err(|error| of(error.to_string()))?;
    let mut places = Vec::new();
    let mut next = 0;
    let mut head = Vec::new();
    while next < blob.len() {
        head.clear();
        blob.read(next, HEAD, &mut head).map_err(|_| of("the last record is cut off".into()))?;
        let at = |reason: String| of(format!("{reason} (record {})", places.len()));
        let head = head[..].try_into().expect("as many were read");
        let length = record_length(head).map_err(at)?;
        let begin = next + HEAD;
        next = begin.checked_add(length).and_then(|end| end.checked_add(FOOT)).unwrap_or(u64::MAX);
        if next > blob.len() {
            return Err(of("the last record is cut off".into()));
        }
        places.push((begin, length));
    }
    let mut entries: Vec<Entry> = (0..places.len())
        .map(|number| Entry::new(format!("{number:08}"), places[number].1))
        .collect();
    let mut classes = 0;
    if let Some(path) = labels_beside(path) {
        let of = |reason: String| format!("{}: {reason}", path.display());
        let mut bytes = Vec::new();
        let labels = Blob::open(&path).map_err(|error| of(error.to_string()))?;
        let length = labels.len().min(MAX_FILE_BYTES);
        labels.read(0, length, &mut bytes).map_err(|error| of(error.to_string()))?;
        classes = label(&mut entries, &bytes).map_err(of)?;
    }
    Ok(Listing { classes, ..Listing::of(entries, Box::new(Records { blob, places })) })
}

/// `name-rxx.labels`.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    level_of(path)?;
    let name = path.file_name()?.to_str()?.rsplit_once("-r")?.0;
    Some(path.with_file_name(format!("{name}-rxx.labels"))).filter(|path| path.is_file())
}

/// Rows that are all one-hot are classes, whose number is returned; a width of 0 is no labels.
fn label(entries: &mut [Entry], npy: &[u8]) -> Result<usize, String> {
    let (rows, width, data) = read_npy(npy)?;
    if rows != entries.len() {
        return Err(format!("{rows} labels for {} images", entries.len()));
    }
    if width == 0 {
        return Ok(0);
    }
    let values: Vec<f32> =
        data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err("a label is not finite".into());
    }
    let class = |row: &[f32]| {
        let ones = row.iter().filter(|&&value| value == 1.0).count();
        let others = row.iter().filter(|&&value| value != 0.0).count();
        row.iter().position(|&value| value == 1.0).filter(|_| ones == 1 && others == 1)
    };
    let classes: Option<Vec<usize>> = values.chunks_exact(width).map(class).collect();
    for (number, entry) in entries.iter_mut().enumerate() {
        entry.label = Some(match &classes {
            Some(classes) => Label::Class(classes[number] as u32),
            None => Label::Vector(values[number * width..][..width].to_vec()),
        });
    }
    Ok(classes.map_or(0, |_| width))
}

impl Container for Records {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(RecordReader { records: self, data: Vec::new() }))
    }
}

#[derive(Debug)]
struct RecordReader<'a> {
    records: &'a Records,
    data: Vec<u8>,
}

impl ReadEntry for RecordReader<'_> {
    fn read(&mut self, index: usize, _: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let (begin, length) = self.records.places[index];
        self.data.clear();
        self.records
            .blob
            .read(begin, length + FOOT, &mut self.data)
            .map_err(|error| error.to_string())?;
        let (data, crc) = self.data.split_at(length as usize);
        if masked_crc(data).to_le_bytes() != crc {
            return Err("the checksum of the record is wrong".into());
        }
        let ([channels, height, width], planes) = example(data)?;
        let side = |size| u32::try_from(size).map_err(|_| format!("a side of {size} pixels"));
        let (width, height) = (side(width)?, side(height)?);
        interleave(planes, channels, bytes);
        Ok(Form::Pixels { width, height, channels })
    }
}
