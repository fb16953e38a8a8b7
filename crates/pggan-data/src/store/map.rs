//! Files mapped into memory: the only unsafe code of this crate.

#![expect(unsafe_code, reason = "memory-mapped files are how images are read without copies")]

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps a whole file for reading.
///
/// The mapping is only as good as the file: a process that truncates it in place makes later reads fail
/// with SIGBUS. Writers of stores replace files by renaming, which leaves mappings of the old ones whole.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: bytes of the file are only ever read as `u8`, for which every value is valid. Shards are
    // never changed in place: `Staging` writes new files and renames them.
    unsafe { Mmap::map(file) }
}
