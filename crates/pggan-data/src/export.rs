//! A store in the formats of others: the paper's TFRecords, stylegan's archives, plain folders, webdataset.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::codec::Codec;
use crate::error::Context;
use crate::store::manifest::Layout;
use crate::store::sync_folder;
use crate::survey::check_resolution;
use crate::tfrecord::{npy_header, write_record};
use crate::{Error, Labels, MIN_LEVEL, Result, Store, parallel};

/// Bytes of images in a shard of webdataset.
const SHARD_BYTES: u64 = 256 << 20;

/// What to make of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A folder with `NAME-r02.tfrecords` … and `NAME-rxx.labels`, every level, as the paper's code reads them.
    Tfrecord,
    /// An archive of PNG files and `dataset.json`, as stylegan2 and 3 read them.
    Zip,
    /// The same in a folder.
    Folder,
    /// A folder of tar files with `00000000.png`, `00000000.cls`, …
    Webdataset,
}

/// Where to and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The folder or the archive to make. It must not be there yet, or be an empty folder.
    pub dest: PathBuf,
    /// In which format.
    pub format: Format,
    /// Pixels a side, of TFRecords the most; none: the highest level.
    pub resolution: Option<u32>,
    /// Threads that encode. Their number does not change the result.
    pub threads: usize,
}

/// Writes a store in another format. `progress` is told the number of images done.
///
/// The result is built beside its destination and moved there when it is complete.
///
/// # Errors
/// [`Error::Exists`] if there is something at the destination; [`Error::Resolution`] and
/// [`Error::OutOfRange`] if the store has no such level; those of reading the store and of writing.
pub fn export(store: &Store, options: &ExportOptions, mut progress: impl FnMut(u64)) -> Result<()> {
    let level = match options.resolution {
        None => store.max_level(),
        Some(resolution) => {
            check_resolution(resolution)?;
            resolution.trailing_zeros()
        }
    };
    store.image(level, 0)?;
    let dest = &options.dest;
    let empty = || fs::read_dir(dest).is_ok_and(|mut items| items.next().is_none());
    if dest.symlink_metadata().is_ok() && !(options.format != Format::Zip && empty()) {
        return Err(Error::Exists { dest: dest.clone() });
    }
    let mut partial = dest.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if let Some(parent) = dest.parent() {
        fs::create_dir_all(parent).context("create", parent)?;
    }
    let images = Images { store, level, threads: options.threads };
    let made = write(&images, options, &partial, &mut progress);
    if made.is_err() {
        fs::remove_dir_all(&partial).or_else(|_| fs::remove_file(&partial)).ok();
    }
    made?;
    fs::rename(&partial, dest).context("write", dest)?;
    dest.parent().map_or(Ok(()), sync_folder)
}

fn write(
    images: &Images<'_>,
    options: &ExportOptions,
    partial: &Path,
    progress: &mut impl FnMut(u64),
) -> Result<()> {
    if options.format == Format::Zip {
        return archive(images, partial, progress);
    }
    if partial.is_dir() {
        // Of a run that was killed.
        fs::remove_dir_all(partial).context("remove", partial)?;
    }
    fs::create_dir(partial).context("create", partial)?;
    match options.format {
        Format::Tfrecord => {
            let name = options.dest.file_name().unwrap_or_default().to_string_lossy();
            tfrecords(images, &partial.join(&*name), progress)?;
        }
        Format::Webdataset => {
            let name = options.dest.file_name().unwrap_or_default().to_string_lossy();
            webdataset(images, &partial.join(&*name), progress)?;
        }
        Format::Zip | Format::Folder => folder(images, partial, progress)?,
    }
    sync_folder(partial)
}

/// `PREFIX-rNN.tfrecords` of every level, and `PREFIX-rxx.labels`.
fn tfrecords(images: &Images<'_>, prefix: &Path, progress: &mut impl FnMut(u64)) -> Result<()> {
    let &Images { store, level: top, .. } = images;
    let beside = |ending: String| {
        let mut path = prefix.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    for level in MIN_LEVEL..=top {
        let mut file = NewFile::create(beside(format!("-r{level:02}.tfrecords")))?;
        let mut record = Vec::new();
        for index in 0..store.images() {
            record.clear();
            write_record(store.channels(), 1 << level, &store.image(level, index)?, &mut record);
            file.append(&record)?;
            if level == top {
                progress(index + 1);
            }
        }
        file.finish()?;
    }
    let Some(labels) = store.labels() else { return Ok(()) };
    let mut file = NewFile::create(beside("-rxx.labels".into()))?;
    file.append(&npy_header(labels.len(), labels.width()))?;
    let mut row = Vec::new();
    for index in 0..store.images() {
        row.clear();
        labels.push_row(index, &mut row);
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.append(&bytes)?;
    }
    file.finish()
}

fn archive(images: &Images<'_>, path: &Path, progress: &mut impl FnMut(u64)) -> Result<()> {
    let file = File::create(path).context("write", path)?;
    let mut zip = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let zipped = |result: zip::result::ZipResult<()>| {
        result.map_err(std::io::Error::other).context("write", path)
    };
    images.each_png(|index, png| {
        zipped(zip.start_file(stylegan_name(index), options))?;
        zip.write_all(png).context("write", path)?;
        progress(index + 1);
        Ok(())
    })?;
    zipped(zip.start_file("dataset.json", options))?;
    zip.write_all(&dataset_json(images.store)).context("write", path)?;
    let file = zip.finish().map_err(std::io::Error::other).context("write", path)?;
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    file.and_then(|file| file.sync_all()).context("write", path)
}

fn folder(images: &Images<'_>, dir: &Path, progress: &mut impl FnMut(u64)) -> Result<()> {
    images.each_png(|index, png| {
        let path = dir.join(stylegan_name(index));
        if index % 1000 == 0
            && let Some(parent) = path.parent()
        {
            fs::create_dir(parent).context("create", parent)?;
        }
        let mut file = NewFile::create(path)?;
        file.append(png)?;
        progress(index + 1);
        file.finish()
    })?;
    let mut file = NewFile::create(dir.join("dataset.json"))?;
    file.append(&dataset_json(images.store))?;
    file.finish()
}

fn webdataset(images: &Images<'_>, prefix: &Path, progress: &mut impl FnMut(u64)) -> Result<()> {
    let mut shards = 0;
    let mut open: Option<(tar::Builder<BufWriter<File>>, PathBuf, u64)> = None;
    images.each_png(|index, png| {
        if open.as_ref().is_some_and(|(_, _, bytes)| *bytes + png.len() as u64 > SHARD_BYTES)
            && let Some((tar, path, _)) = open.take()
        {
            close(tar, &path)?;
        }
        if open.is_none() {
            let mut path = prefix.as_os_str().to_owned();
            path.push(format!("-{shards:06}.tar"));
            let path = PathBuf::from(path);
            let file = File::create(&path).context("write", &path)?;
            open = Some((tar::Builder::new(BufWriter::new(file)), path, 0));
            shards += 1;
        }
        let (tar, path, bytes) = open.as_mut().expect("it has just been opened");
        let mut append = |ending: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{index:08}.{ending}"), content)
                .context("write", path)
        };
        append("png", png)?;
        match images.store.labels() {
            None => {}
            Some(Labels::Classes { of, .. }) => {
                append("cls", of[index as usize].to_string().as_bytes())?;
            }
            Some(labels) => {
                let mut row = Vec::new();
                labels.push_row(index, &mut row);
                append("json", &serde_json::to_vec(&row).expect("numbers always serialize"))?;
            }
        }
        *bytes += png.len() as u64;
        progress(index + 1);
        Ok(())
    })?;
    open.map_or(Ok(()), |(tar, path, _)| close(tar, &path))
}

fn close(tar: tar::Builder<BufWriter<File>>, path: &Path) -> Result<()> {
    let file = tar.into_inner().context("write", path)?;
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    file.and_then(|file| file.sync_all()).context("write", path)
}

/// As stylegan's `dataset_tool.py` numbers them: a thousand to a folder.
fn stylegan_name(index: u64) -> String {
    let number = format!("{index:08}");
    format!("{}/img{number}.png", &number[..5])
}

fn dataset_json(store: &Store) -> Vec<u8> {
    let labels = store.labels().map(|labels| {
        let label = |index: u64| {
            let name = stylegan_name(index);
            if let Some(class) = labels.class(index) {
                return serde_json::json!([name, class]);
            }
            let mut row = Vec::new();
            labels.push_row(index, &mut row);
            serde_json::json!([name, row])
        };
        (0..store.images()).map(label).collect::<Vec<_>>()
    });
    serde_json::json!({ "labels": labels }).to_string().into_bytes()
}

/// The images of one level.
struct Images<'a> {
    store: &'a Store,
    level: u32,
    threads: usize,
}

impl Images<'_> {
    /// Encodes all of them on several threads, and hands them over in order.
    fn each_png(&self, mut then: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let slots = std::iter::repeat_with(|| (Ok(()), Vec::new())).take(2 * self.threads + 2);
        let worker = || {
            let mut codec = Codec::new(self.store.channels());
            Ok(move |index: usize, (outcome, png): &mut (Result<()>, Vec<u8>)| {
                *outcome = self.store.image(self.level, index as u64).and_then(|planes| {
                    codec
                        .encode(Layout::Png, 0, 1 << self.level, &planes, png)
                        .map_err(std::io::Error::other)
                        .context("encode", self.store.dir())
                });
            })
        };
        let count = self.store.images() as usize;
        parallel::ordered(self.threads, count, slots.collect(), worker, |index, (outcome, png)| {
            std::mem::replace(outcome, Ok(()))?;
            then(index as u64, png)
        })
    }
}

/// A file that is synced when it is complete.
struct NewFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    fn create(path: PathBuf) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 18, File::create(&path).context("write", &path)?);
        Ok(Self { path, file })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).context("write", &self.path)
    }

    fn finish(self) -> Result<()> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).context("write", &self.path)
    }
}
