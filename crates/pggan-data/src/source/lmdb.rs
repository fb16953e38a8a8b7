//! LMDB databases of encoded images, as LSUN comes: `bedroom_train_lmdb/data.mdb`.
//!
//! The format is read here rather than by liblmdb, which trusts the file that it maps: a damaged one ends
//! the process. Every offset below is checked, nothing is mapped, and no lock file is written. Databases
//! within the database and duplicate keys, which image sets do not have, are passed over.

use super::blob::Blob;
use super::{Container, Entry, Listing, ReadEntry, printable};
use crate::Result;
use crate::decode::Form;

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
/// Bytes before the content of a page.
const PAGE_HEADER: usize = 16;
/// What a page is.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
/// How a value is stored: on pages of its own; in a database within, as one of several.
const BIG: u16 = 1;
const NESTED: u16 = 2 | 4;
/// The root of a tree without pages.
const NO_PAGE: u64 = u64::MAX;
/// No tree is that deep.
const MAX_DEPTH: usize = 32;

/// Whether a file begins like a database.
pub(super) fn is_lmdb(beginning: &[u8]) -> bool {
    beginning.get(16..20) == Some(&MAGIC.to_le_bytes())
}

/// Where each value lies.
#[derive(Debug)]
struct Lmdb {
    blob: Blob,
    places: Vec<(u64, u64)>,
}

/// Lists the values of a database in the order of their keys.
pub(super) fn list(blob: Blob) -> Result<Listing, String> {
    let mut walk =
        Walk { root: 0, size: 0, pages: 0, found: Vec::new(), passed_over: 0, blob: &blob };
    walk.begin()?;
    let Walk { found, passed_over, .. } = walk;
    let (entries, places) = found.into_iter().unzip();
    let lmdb = Lmdb { blob, places };
    Ok(Listing { passed_over, ..Listing::of(entries, Box::new(lmdb)) })
}

struct Walk<'a> {
    blob: &'a Blob,
    root: u64,
    /// Bytes of a page.
    size: usize,
    /// Pages that may still be visited: no more than there are.
    pages: u64,
    found: Vec<(Entry, (u64, u64))>,
    passed_over: u64,
}

impl Walk<'_> {
    /// The first two pages are two states of the database: the later one counts.
    fn begin(&mut self) -> Result<(), String> {
        let damaged = |_| "not a readable LMDB database".to_owned();
        let first = self.blob.beginning(512).map_err(|error| error.to_string())?;
        let meta = Meta::read(&first)?;
        self.size = meta.page_size;
        let mut second = Vec::new();
        self.blob.read(self.size as u64, 512, &mut second).map_err(damaged)?;
        let latest = match Meta::read(&second) {
            Ok(other) if other.transaction > meta.transaction => other,
            _ => meta,
        };
        self.root = latest.root;
        self.pages = self.blob.len() / self.size as u64;
        if self.root == NO_PAGE { Ok(()) } else { self.visit(self.root, MAX_DEPTH) }
    }

    fn visit(&mut self, number: u64, depth: usize) -> Result<(), String> {
        let damaged = || format!("page {number} of the LMDB database is damaged");
        if depth == 0 || self.pages == 0 {
            return Err(format!("the LMDB database's pages lead in a circle (page {number})"));
        }
        self.pages -= 1;
        let offset = number.checked_mul(self.size as u64).ok_or_else(damaged)?;
        let mut page = Vec::new();
        self.blob.read(offset, self.size as u64, &mut page).map_err(|_| damaged())?;
        let flags = u16_at(&page, 10).ok_or_else(damaged)?;
        let lower = u16_at(&page, 12).ok_or_else(damaged)? as usize;
        let count = lower.checked_sub(PAGE_HEADER).ok_or_else(damaged)? / 2;
        let mut room = self.size as u64;
        for place in 0..count {
            let start = u16_at(&page, PAGE_HEADER + 2 * place).ok_or_else(damaged)? as usize;
            let node = page.get(start..).ok_or_else(damaged)?;
            let [low, high, node_flags, key] =
                [0, 2, 4, 6].map(|at| u16_at(node, at).map(u64::from)).map(|v| v.unwrap_or(0));
            if node.len() < 8 {
                return Err(damaged());
            }
            if flags & BRANCH != 0 {
                self.visit(low | high << 16 | node_flags << 32, depth - 1)?;
            } else if flags & LEAF != 0 {
                // Nodes that overlap would make much of a small file.
                room = room.checked_sub(8 + key).ok_or_else(damaged)?;
                let key_bytes = node.get(8..8 + key as usize).ok_or_else(damaged)?;
                let name = printable(&String::from_utf8_lossy(key_bytes));
                let length = low | high << 16;
                let at = if node_flags as u16 & BIG != 0 {
                    let own = node.get(8 + key as usize..).and_then(|rest| u64_at(rest, 0));
                    self.overflow(own.ok_or_else(damaged)?).ok_or_else(damaged)?
                } else {
                    offset + (start + 8) as u64 + key
                };
                if node_flags as u16 & NESTED != 0 {
                    self.passed_over += 1;
                } else if at.checked_add(length).is_none_or(|end| end > self.blob.len()) {
                    return Err(damaged());
                } else {
                    self.found.push((Entry::new(name, length), (at, length)));
                }
            } else {
                return Err(damaged());
            }
        }
        Ok(())
    }

    /// Where the content of overflow pages begins.
    fn overflow(&self, number: u64) -> Option<u64> {
        let offset = number.checked_mul(self.size as u64)?;
        let mut header = Vec::new();
        self.blob.read(offset, PAGE_HEADER as u64, &mut header).ok()?;
        (u16_at(&header, 10)? & OVERFLOW != 0).then_some(offset + PAGE_HEADER as u64)
    }
}

/// What a meta page says.
struct Meta {
    page_size: usize,
    root: u64,
    transaction: u64,
}

impl Meta {
    /// Behind the page's header: magic, version, address, size; two records of 48 bytes, of the free pages
    /// and of the data; the last page; the transaction.
    fn read(page: &[u8]) -> Result<Self, String> {
        let meta = page.get(PAGE_HEADER..).unwrap_or_default();
        let u32_at = |at: usize| Some(u32::from_le_bytes(meta.get(at..at + 4)?.try_into().ok()?));
        let read =
            || Some((u32_at(0)?, u32_at(4)?, u32_at(24)?, u64_at(meta, 112)?, u64_at(meta, 128)?));
        match read() {
            Some((MAGIC, VERSION, page_size, root, transaction))
                if page_size.is_power_of_two() && (256..=65_536).contains(&page_size) =>
            {
                Ok(Self { page_size: page_size as usize, root, transaction })
            }
            _ => Err("not a readable LMDB database of version 1".into()),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Container for Lmdb {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(self))
    }
}

impl ReadEntry for &Lmdb {
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let (offset, length) = self.places[index];
        self.blob.read(offset, length.min(limit), bytes).map_err(|error| error.to_string())?;
        Ok(Form::Encoded)
    }
}
