//! Image files in a zip archive, such as stylegan's `dataset_tool.py` writes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use ::zip::ZipArchive;
use ::zip::read::ZipReadOptions;

use super::{Entry, is_image_name, printable};
use crate::Result;
use crate::error::Context;

/// An entry that unpacks to this many bytes or more, …
const BOMB_BYTES: u64 = 16 << 20;
/// … and to this many times its packed size, is a bomb: image formats are compressed already.
const BOMB_RATIO: u64 = 100;

type Input = BufReader<File>;

/// An archive's table of contents; `order` leads from entries to it.
#[derive(Debug)]
pub(super) struct Zip {
    archive: ZipArchive<Input>,
    order: Vec<usize>,
}

impl Zip {
    pub(super) fn list(path: &Path) -> Result<(Vec<Entry>, u64, Self), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| format!("not a readable zip archive ({error})"))?;
        let mut found = Vec::new();
        let mut passed_over = 0;
        for index in 0..archive.len() {
            let file = archive.by_index_data(index).map_err(|error| error.to_string())?;
            if file.is_dir() {
                continue;
            }
            let name = file.name().unwrap_or_else(|_| String::from_utf8_lossy(file.name_raw()));
            let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
            if is_image_name(last) && !name.starts_with("__MACOSX/") {
                let (bytes, checksum) = (file.size(), Some(file.crc32()));
                found.push((Entry { name: printable(&name), bytes, checksum }, index));
            } else {
                passed_over += 1;
            }
        }
        found.sort_by(|(a, _), (b, _)| a.name.as_bytes().cmp(b.name.as_bytes()));
        let (entries, order) = found.into_iter().unzip();
        Ok((entries, passed_over, Self { archive, order }))
    }

    /// Shares the table of contents, but has its own place in the file.
    pub(super) fn reader(&self, path: &Path) -> Result<ZipReader<'_>> {
        Ok(ZipReader { zip: self, input: BufReader::new(File::open(path).context("open", path)?) })
    }
}

#[derive(Debug)]
pub(super) struct ZipReader<'a> {
    zip: &'a Zip,
    input: Input,
}

impl ZipReader<'_> {
    pub(super) fn read(
        &mut self,
        index: usize,
        limit: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), String> {
        let in_archive = self.zip.order[index];
        let file = self.zip.archive.by_index_data(in_archive).map_err(|error| error.to_string())?;
        let (size, packed) = (file.size(), file.compressed_size());
        if size >= BOMB_BYTES && size / BOMB_RATIO >= packed {
            return Err(format!("{packed} bytes in the archive unpack to {size}: a zip bomb"));
        }
        let file = file
            .with_reader(&mut self.input, ZipReadOptions::new())
            .map_err(|error| error.to_string())?;
        // The sizes above are the archive's claim; this holds whatever it claims. Reading to the true
        // end also makes `zip` compare the checksum.
        file.take(limit.min(size + 1)).read_to_end(bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > size {
            return Err("larger than the archive says".into());
        }
        Ok(())
    }
}
