//! Where images come from. What a path holds is told by its content and, of folders, by the names in them.
//!
//! | source | labels of its own |
//! |---|---|
//! | folder of image files, with all folders below it | `dataset.json` |
//! | `.zip` of image files (stylegan2/3) | `dataset.json` |
//! | `.tar`, `.tar.gz`, or a folder of them (webdataset) | `.cls` or `.json` beside each image, or `dataset.json` |
//! | CIFAR-10, CIFAR-100: binary or Python version, `.tar.gz` or unpacked | (fine) classes |
//! | MNIST's IDX, also `.gz` | `labels` file beside the images |
//! | SVHN's `.mat` | digits |
//! | LMDB of image files (LSUN): the folder or `data.mdb` | |
//! | Parquet with a column of images (Hugging Face): a file or a folder (feature `parquet`) | `ClassLabel` |
//! | the paper's TFRecords: the folder or one file | `-rxx.labels` |
//! | `hf://OWNER/NAME` on the Hugging Face hub (feature `hub`) | as the files there have them |
//! | `synthetic:COUNTxSIDE` | disc, square, triangle |
//!
//! A source is a list of names in a fixed order; opening it decodes no image. Each thread that reads images
//! has a [`Reader`] of its own. A format is one file here: it lists its images and makes readers of them.

mod blob;
mod cifar;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod idx;
mod labelling;
mod lmdb;
#[cfg(feature = "parquet")]
mod parquet;
mod pixels;
mod svhn;
mod synthetic;
mod tar;
mod tfrecords;
mod zip;

use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use labelling::LabelsFrom;

use crate::decode::Form;
use crate::labels::{Label, Labels, Scheme};
use crate::{Error, Result};

/// Files above this many bytes are not read: no image file is that large, but a lie may be.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// What a file must be called to be looked at. What it *is*, its content tells.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp"];
/// Of a file, what tells its format.
const BEGINNING: u64 = 512;
/// Labels beside images, as stylegan's `dataset_tool.py` writes them.
const DATASET_JSON: &str = "dataset.json";

/// A collection of images in a fixed order.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    listing: Listing,
    scheme: Option<Scheme>,
}

/// One image of a [`Source`].
#[derive(Debug)]
pub struct Entry {
    /// Path inside the source, with `/` between parts. For people only: it is never used to open or
    /// write a file.
    pub name: String,
    /// Bytes of the encoded image.
    pub bytes: u64,
    /// CRC-32 where the container states it.
    checksum: Option<u32>,
    /// What it is of, if the source says so.
    pub label: Option<Label>,
}

impl Entry {
    fn new(name: String, bytes: u64) -> Self {
        Self { name, bytes, checksum: None, label: None }
    }
}

/// What a format finds at a path.
#[derive(Debug)]
struct Listing {
    /// In the order of the store. That of files is the order of the bytes of their names.
    entries: Vec<Entry>,
    /// Files that are not called like an image.
    passed_over: u64,
    /// What classes are called, where that is known: then there are as many, even if some have no image.
    class_names: Vec<String>,
    /// How many classes there are at least.
    classes: usize,
    /// The content of `dataset.json` beside the images.
    dataset_json: Option<Vec<u8>>,
    container: Box<dyn Container>,
}

impl Listing {
    /// Images of a format that consists of nothing else.
    fn of(entries: Vec<Entry>, container: Box<dyn Container>) -> Self {
        let (class_names, classes, dataset_json) = (Vec::new(), 0, None);
        Self { entries, passed_over: 0, class_names, classes, dataset_json, container }
    }
}

/// Images in one format.
trait Container: Debug + Send + Sync {
    /// A reader for one thread.
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>>;
}

/// Reads images of a [`Container`].
trait ReadEntry: Debug {
    /// Reads the first `limit` bytes of an entry into `bytes`, which is empty.
    ///
    /// The error is the reason for which the file is bad.
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String>;
}

impl Source {
    /// Lists the images at `path`, see [the table](self).
    ///
    /// In folders and archives, files whose extension is not an image's, and files whose name begins with a
    /// dot, are passed over.
    pub fn open(path: &Path, labels: LabelsFrom) -> Result<Self> {
        Self::fetch(path, labels, |_, _| {})
    }

    /// The same; `progress` is told how many bytes of what lies elsewhere are here, and of how many.
    pub fn fetch(
        path: &Path,
        labels: LabelsFrom,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let mut listing = match path.to_str().filter(|path| path.starts_with("hf://")) {
            Some(address) => list_remote(address, &mut progress)?,
            None => list(path)?,
        };
        let bad_labels = |reason: String| Error::Labels { path: path.to_owned(), reason };
        labelling::label(&mut listing, labels).map_err(bad_labels)?;
        let classes = listing.classes.max(listing.class_names.len());
        let given = listing.entries.iter().filter_map(|entry| entry.label.as_ref());
        let scheme = Scheme::of(given, classes).map_err(bad_labels)?;
        if let Some(Scheme::Classes(count)) = scheme
            && count > listing.class_names.len()
        {
            listing.class_names.clear();
        }
        Ok(Self { path: path.to_owned(), listing, scheme })
    }

    /// These files of a folder, in this order. What is not there is a bad file.
    pub(crate) fn chosen<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::SourceMissing { path: path.to_owned() });
        }
        let listing = folder::chosen(path, names);
        Ok(Self { path: path.to_owned(), listing, scheme: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of its path: what people call it.
    pub fn name(&self) -> String {
        let full = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        full.file_name().map_or_else(|| "/".into(), |name| printable(&name.to_string_lossy()))
    }

    /// Its images, in their order.
    pub fn entries(&self) -> &[Entry] {
        &self.listing.entries
    }

    /// How many files are not called like an image.
    pub fn passed_over(&self) -> u64 {
        self.listing.passed_over
    }

    /// What its classes are called; empty where that is not known.
    pub fn class_names(&self) -> &[String] {
        &self.listing.class_names
    }

    /// The labels of some of its entries, all of which have one; none if the source has no labels.
    pub fn labels(&self, entries: &[usize]) -> Option<Labels> {
        let labels = entries.iter().filter_map(|&entry| self.entries()[entry].label.as_ref());
        self.scheme.map(|scheme| scheme.table(labels))
    }

    /// BLAKE3 over every name, size and checksum: equal for equal sources, wherever they lie.
    ///
    /// The contents are not read, so an edit that changes neither name nor size goes unnoticed.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for Entry { name, bytes, checksum, .. } in self.entries() {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&bytes.to_le_bytes());
            hasher.update(&checksum.unwrap_or(0).to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// BLAKE3 over the labels of all entries and what classes are called; none without labels.
    pub fn labels_fingerprint(&self) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}", self.scheme?).as_bytes());
        for entry in self.entries() {
            match &entry.label {
                None => hasher.update(b"-"),
                Some(Label::Class(class)) => hasher.update(b"c").update(&class.to_le_bytes()),
                Some(Label::Vector(vector)) => {
                    hasher.update(b"v");
                    for value in vector {
                        hasher.update(&value.to_le_bytes());
                    }
                    &mut hasher
                }
            };
        }
        hasher.update(self.class_names().join("\n").as_bytes());
        Some(hasher.finalize().to_hex().to_string())
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Result<Reader<'_>> {
        Ok(Reader { source: self, reader: self.listing.container.reader()? })
    }
}

#[cfg(feature = "hub")]
fn list_remote(address: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Listing> {
    hub::list(address, progress)
}

#[cfg(not(feature = "hub"))]
fn list_remote(address: &str, _: &mut dyn FnMut(u64, u64)) -> Result<Listing> {
    let reason = "the hub is not built in; build pggan-data with its feature `hub`".into();
    Err(Error::SourceUnreadable { path: address.into(), reason })
}

/// What is at a path.
fn list(path: &Path) -> Result<Listing> {
    let unreadable = |reason: String| Error::SourceUnreadable { path: path.to_owned(), reason };
    if path.is_dir() {
        return list_folder(path);
    }
    if path.is_file() {
        return list_file(path).map_err(unreadable);
    }
    if path.symlink_metadata().is_ok() {
        return Err(unreadable("neither a folder nor a file that can be opened".into()));
    }
    match path.to_str().and_then(synthetic::parse) {
        Some(asked) => {
            let (count, side) = asked.map_err(unreadable)?;
            Ok(synthetic::list(count, side))
        }
        None => Err(Error::SourceMissing { path: path.to_owned() }),
    }
}

fn list_folder(path: &Path) -> Result<Listing> {
    let unreadable = |reason: String| Error::SourceUnreadable { path: path.to_owned(), reason };
    let files = folder::files(path)?;
    let names = || files.iter().filter_map(|file| file.file_name()?.to_str());
    let with = |ending: &str| -> Vec<&Path> {
        let ends = |file: &&PathBuf| file.to_str().is_some_and(|file| file.ends_with(ending));
        files.iter().filter(ends).map(PathBuf::as_path).collect()
    };
    if names().any(is_image_name) {
        return folder::list(path);
    }
    if cifar::is_cifar(names()) {
        return cifar::list_files(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>())
            .map_err(unreadable);
    }
    if let Some(file) = tfrecords::highest(&with(".tfrecords")) {
        return tfrecords::list(file).map_err(unreadable);
    }
    if let &[database] = &with("/data.mdb")[..] {
        let blob = blob::Blob::open(database).map_err(|error| unreadable(error.to_string()))?;
        return lmdb::list(blob).map_err(unreadable);
    }
    let tables = with(".parquet");
    if !tables.is_empty() {
        return list_parquet(&tables).map_err(unreadable);
    }
    let shards = with(".tar");
    if !shards.is_empty() {
        return tar::archives(&shards).and_then(tar::list).map_err(unreadable);
    }
    folder::list(path)
}

#[cfg(feature = "parquet")]
fn list_parquet(paths: &[&Path]) -> Result<Listing, String> {
    parquet::list(&parquet::training(paths))
}

#[cfg(not(feature = "parquet"))]
fn list_parquet(_: &[&Path]) -> Result<Listing, String> {
    Err("Parquet is not built in; build pggan-data with its feature `parquet`".into())
}

fn list_file(path: &Path) -> Result<Listing, String> {
    let mut beginning = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(BEGINNING).read_to_end(&mut beginning).map_err(|error| error.to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if is_called(&name, "tfrecords") {
        return tfrecords::list(path);
    }
    if beginning.starts_with(b"PK") || is_called(&name, "zip") {
        return zip::list(path);
    }
    if is_called(&name, "bin") {
        return cifar::list_files(&[path]);
    }
    if beginning.starts_with(b"PAR1") {
        return list_parquet(&[path]);
    }
    let blob = blob::Blob::open(path).map_err(|error| error.to_string())?;
    let beginning = blob.beginning(BEGINNING).map_err(|error| error.to_string())?;
    if idx::is_idx(&beginning) {
        return idx::list(path, blob);
    }
    if lmdb::is_lmdb(&beginning) {
        return lmdb::list(blob);
    }
    if svhn::is_mat(&beginning) {
        return svhn::list(&blob);
    }
    if tar::is_tar(&beginning) {
        let members = tar::members(&blob)?;
        if cifar::is_cifar(members.iter().map(|(name, _, _)| name.as_str())) {
            return cifar::list_archive(&blob);
        }
        return tar::list(vec![(name, blob)]);
    }
    Err("its content is none of the formats that are known".into())
}

/// Reads the images of a [`Source`].
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a Source,
    reader: Box<dyn ReadEntry + 'a>,
}

impl Reader<'_> {
    /// Reads the first `limit` bytes of entry `index` into `bytes`, which is cleared before.
    ///
    /// The error is the reason for which the file is bad.
    pub fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        bytes.clear();
        let Entry { bytes: size, label, .. } = &self.source.entries()[index];
        match *size {
            0 => return Err("the file is empty".into()),
            1..=MAX_FILE_BYTES => {}
            size => return Err(format!("{size} bytes are too many for an image file")),
        }
        if self.source.scheme.is_some() && label.is_none() {
            return Err("it has no label, and others have".into());
        }
        self.reader.read(index, limit.min(MAX_FILE_BYTES), bytes)
    }
}

/// Whether a file of this name (its last part only) is looked at.
fn is_image_name(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    // `._x.jpg` is macOS's note about x.jpg, not an image.
    !name.starts_with('.')
        && extension.is_some_and(|e| EXTENSIONS.iter().any(|image| e.eq_ignore_ascii_case(image)))
}

/// Whether a name has this extension.
fn is_called(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
}

/// A name fit for a terminal and for one line of a file.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for name in ["a.png", "a.b.JPG", "x.webp", "y.Gif", "z.bmp", "w.jpeg"] {
            assert!(is_image_name(name), "{name}");
        }
        for name in ["a.txt", "png", ".png", "._a.png", "a.png.part", "dataset.json", ""] {
            assert!(!is_image_name(name), "{name}");
        }
    }

    #[test]
    fn names_do_not_reach_the_terminal_raw() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
