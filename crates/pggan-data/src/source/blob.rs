//! A file, or what a compressed file holds, to read anywhere from any thread.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;

/// What a compressed file may unpack to at most …
const MAX_UNPACKED: u64 = 1 << 40;
/// … and from this many bytes on, at most as many times its packed size.
const BOMB_BYTES: u64 = 16 << 20;
const BOMB_RATIO: u64 = 100;

/// Bytes in a file. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    file: Arc<Mutex<File>>,
    length: u64,
}

impl Blob {
    /// Opens a file; one that is compressed by gzip is unpacked to a temporary file first, which goes away
    /// with the process however it ends.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(2).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        if magic == [0x1F, 0x8B] {
            file = unpack(file)?;
        }
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(Mutex::new(file)), length })
    }

    /// `length` bytes of a reader, in a temporary file. It is an error if there are not as many.
    pub(super) fn unpacked(from: &mut impl Read, length: u64) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        if io::copy(&mut from.take(length), &mut file)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { file: Arc::new(Mutex::new(file)), length })
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Appends `length` bytes from `offset` on. It is an error if there are not as many.
    pub(super) fn read(&self, offset: u64, length: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = bytes.len();
        bytes.resize(start + length as usize, 0);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes[start..])
    }

    /// The first bytes, at most `length`.
    pub(super) fn beginning(&self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(0, length.min(self.length), &mut bytes)?;
        Ok(bytes)
    }

    /// A reader of a part, with a place of its own.
    pub(super) fn part(&self, offset: u64, length: u64) -> BufReader<Part<'_>> {
        BufReader::with_capacity(1 << 16, Part { blob: self, begin: offset, length, place: 0 })
    }
}

/// A part of a [`Blob`] as a reader.
#[derive(Debug)]
pub(super) struct Part<'a> {
    blob: &'a Blob,
    begin: u64,
    length: u64,
    place: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.length.saturating_sub(self.place).min(to.len() as u64) as usize;
        let mut file = self.blob.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.begin + self.place))?;
        let read = file.read(&mut to[..count])?;
        self.place += read as u64;
        Ok(read)
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.place.checked_add_signed(by),
        };
        self.place = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.place)
    }
}

/// What so many packed bytes may unpack to.
pub(super) fn most_unpacked(packed: u64) -> u64 {
    packed.saturating_mul(BOMB_RATIO).clamp(BOMB_BYTES, MAX_UNPACKED)
}

fn unpack(packed: File) -> io::Result<File> {
    let size = packed.metadata()?.len();
    let limit = most_unpacked(size);
    let mut unpacked = tempfile::tempfile()?;
    let mut reader = MultiGzDecoder::new(BufReader::new(packed)).take(limit + 1);
    if io::copy(&mut reader, &mut unpacked)? > limit {
        return Err(io::Error::other(format!("{size} bytes unpack to more than {limit}: a bomb")));
    }
    unpacked.flush()?;
    Ok(unpacked)
}
