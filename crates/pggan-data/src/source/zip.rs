//! Image files in a zip archive, such as stylegan's `dataset_tool.py` writes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ::zip::ZipArchive;
use ::zip::read::ZipReadOptions;

use super::{
    Container, DATASET_JSON, Entry, Listing, MAX_FILE_BYTES, ReadEntry, is_image_name, printable,
};
use crate::Result;
use crate::decode::Form;
use crate::error::Context;

/// An entry that unpacks to this many bytes or more, …
const BOMB_BYTES: u64 = 16 << 20;
/// … and to this many times its packed size, is a bomb: image formats are compressed already.
const BOMB_RATIO: u64 = 100;

type Input = BufReader<File>;

/// An archive's table of contents; `order` leads from entries to it.
#[derive(Debug)]
struct Zip {
    path: PathBuf,
    archive: ZipArchive<Input>,
    order: Vec<usize>,
}

pub(super) fn list(path: &Path) -> Result<Listing, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| format!("not a readable zip archive ({error})"))?;
    let mut found = Vec::new();
    let mut passed_over = 0;
    let mut json = None;
    for index in 0..archive.len() {
        let file = archive.by_index_data(index).map_err(|error| error.to_string())?;
        if file.is_dir() {
            continue;
        }
        let name = file.name().unwrap_or_else(|_| String::from_utf8_lossy(file.name_raw()));
        let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
        if is_image_name(last) && !name.starts_with("__MACOSX/") {
            let mut entry = Entry::new(printable(&name), file.size());
            entry.checksum = Some(file.crc32());
            found.push((entry, index));
        } else if name == DATASET_JSON {
            json = Some(index);
        } else {
            passed_over += 1;
        }
    }
    found.sort_by(|(a, _), (b, _)| a.name.as_bytes().cmp(b.name.as_bytes()));
    let (entries, order) = found.into_iter().unzip();
    let zip = Zip { path: path.to_owned(), archive, order };
    let mut dataset_json = None;
    if let Some(index) = json {
        let mut input = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
        let mut bytes = Vec::new();
        zip.read(index, &mut input, MAX_FILE_BYTES, &mut bytes)
            .map_err(|reason| format!("{DATASET_JSON}: {reason}"))?;
        dataset_json = Some(bytes);
    }
    Ok(Listing { passed_over, dataset_json, ..Listing::of(entries, Box::new(zip)) })
}

impl Zip {
    fn read(
        &self,
        in_archive: usize,
        input: &mut Input,
        limit: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), String> {
        let file = self.archive.by_index_data(in_archive).map_err(|error| error.to_string())?;
        let (size, packed) = (file.size(), file.compressed_size());
        if size >= BOMB_BYTES && size / BOMB_RATIO >= packed {
            return Err(format!("{packed} bytes in the archive unpack to {size}: a zip bomb"));
        }
        let file =
            file.with_reader(input, ZipReadOptions::new()).map_err(|error| error.to_string())?;
        // The sizes above are the archive's claim; this holds whatever it claims. Reading to the true
        // end also makes `zip` compare the checksum.
        file.take(limit.min(size + 1)).read_to_end(bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > size {
            return Err("larger than the archive says".into());
        }
        Ok(())
    }
}

impl Container for Zip {
    /// Shares the table of contents, but has its own place in the file.
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        let input = BufReader::new(File::open(&self.path).context("open", &self.path)?);
        Ok(Box::new(ZipReader { zip: self, input }))
    }
}

#[derive(Debug)]
struct ZipReader<'a> {
    zip: &'a Zip,
    input: Input,
}

impl ReadEntry for ZipReader<'_> {
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        self.zip.read(self.zip.order[index], &mut self.input, limit, bytes)?;
        Ok(Form::Encoded)
    }
}
