//! The tree of a file's columns, read here: the library follows it as deep as the file says, and makes room for
//! as many branches as it says.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use ::parquet::basic::{Repetition, Type as Physical};
use ::parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};

use crate::tfrecord::next_varint;

/// The length of the footer, and the magic.
const TAIL: u64 = 8;
/// Footers above this many bytes are not read.
const MAX_FOOTER: u64 = 256 << 20;
/// No column lies that deep, and no number of a footer.
const MAX_DEPTH: usize = 64;

/// Reads the columns of a file.
pub(super) fn read(file: &mut File) -> Result<SchemaDescPtr, String> {
    let footer = footer(file).map_err(|error| error.to_string())?;
    let root = columns(&mut Thrift(&footer)).ok_or("its columns are damaged")?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

fn footer(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut tail = [0; TAIL as usize];
    let place = file.seek(SeekFrom::End(-(TAIL as i64)))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if &magic != b"PAR1" || length > place.min(MAX_FOOTER) {
        return Err(std::io::Error::other("it does not end like a Parquet file"));
    }
    file.seek(SeekFrom::Start(place - length))?;
    let mut footer = Vec::new();
    file.take(length).read_to_end(&mut footer)?;
    Ok(footer)
}

/// The schema of a `FileMetaData`, its second field: the columns and their groups, each before what is in it.
fn columns(metadata: &mut Thrift<'_>) -> Option<Type> {
    let mut root = None;
    metadata.fields(|metadata, id, kind| {
        if id != 2 || root.is_some() {
            return metadata.skip(kind, MAX_DEPTH);
        }
        let (mut left, _) = metadata.list()?;
        root = Some(column(metadata, &mut left, MAX_DEPTH)?);
        (left == 0).then_some(())
    })?;
    root.filter(Type::is_group)
}

/// A column or a group, a `SchemaElement`, of which `left` are still to come.
fn column(metadata: &mut Thrift<'_>, left: &mut u64, depth: usize) -> Option<Type> {
    *left = left.checked_sub(1)?;
    let (mut physical, mut length, mut repetition, mut children) = (None, -1, 0, 0);
    let mut name: &[u8] = b"";
    metadata.fields(|metadata, id, kind| {
        match id {
            1 => physical = Some(metadata.integer()?),
            2 => length = metadata.integer()?,
            3 => repetition = metadata.integer()?,
            4 => name = metadata.string()?,
            5 => children = metadata.integer()?,
            _ => metadata.skip(kind, depth)?,
        }
        Some(())
    })?;
    let name = std::str::from_utf8(name).ok()?;
    let repetition = match repetition {
        0 => Repetition::REQUIRED,
        1 => Repetition::OPTIONAL,
        2 => Repetition::REPEATED,
        _ => return None,
    };
    let built = if let (Some(physical), 0) = (physical, children) {
        let physical = match physical {
            0 => Physical::BOOLEAN,
            1 => Physical::INT32,
            2 => Physical::INT64,
            3 => Physical::INT96,
            4 => Physical::FLOAT,
            5 => Physical::DOUBLE,
            6 => Physical::BYTE_ARRAY,
            7 => Physical::FIXED_LEN_BYTE_ARRAY,
            _ => return None,
        };
        let length = i32::try_from(length).ok()?;
        Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .with_length(length)
            .build()
    } else {
        let depth = depth.checked_sub(1)?;
        let child = |_| column(metadata, left, depth).map(Arc::new);
        let children = (0..children).map(child).collect::<Option<_>>()?;
        Type::group_type_builder(name).with_repetition(repetition).with_fields(children).build()
    };
    built.ok()
}

/// What is left of data in Thrift's compact protocol. Nothing in it can be read where it is damaged.
struct Thrift<'a>(&'a [u8]);

impl<'a> Thrift<'a> {
    fn bytes(&mut self, count: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        next_varint(&mut self.0)
    }

    fn integer(&mut self) -> Option<i64> {
        self.number().map(|number| (number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.bytes(length)
    }

    /// The fields of a structure, whose contents `field` reads: their numbers and kinds.
    fn fields(&mut self, mut field: impl FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        let mut id = 0_i64;
        loop {
            let head = self.bytes(1)?[0];
            let kind = head & 0xF;
            if kind == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.integer()?,
                step => id.saturating_add(step.into()),
            };
            field(self, id, kind)?;
        }
    }

    /// The head of a list: its length and the kind of what is in it.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.bytes(1)?[0];
        let length = match head >> 4 {
            15 => self.number()?,
            length => length.into(),
        };
        Some((length, head & 0xF))
    }

    /// Passes over the content of a field.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // Truth is told by the kind.
            1 | 2 => {}
            3 => drop(self.bytes(1)?),
            4..=6 => drop(self.number()?),
            7 => drop(self.bytes(8)?),
            8 => drop(self.string()?),
            9 | 10 => {
                let (length, kind) = self.list()?;
                for _ in 0..length {
                    // In a list truth takes a byte.
                    self.skip(if kind < 3 { 3 } else { kind }, depth)?;
                }
            }
            12 => self.fields(|this, _, kind| this.skip(kind, depth))?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FileMetaData` whose schema is these elements.
    fn metadata(elements: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0x15, 2, 0x19, 0xFC, elements.len() as u8];
        bytes.extend(elements.concat());
        bytes.push(0);
        bytes
    }

    /// A group of so many columns.
    fn group(name: u8, columns: u8) -> Vec<u8> {
        vec![0x35, 0, 0x18, 1, name, 0x15, 2 * columns, 0]
    }

    /// The path of the first column.
    fn first(metadata: &[u8]) -> Option<String> {
        let root = columns(&mut Thrift(metadata))?;
        Some(SchemaDescriptor::new(Arc::new(root)).columns().first()?.path().string())
    }

    #[test]
    fn trees_are_followed_as_far_as_they_go() {
        let (root, image) = (group(b'r', 1), group(b'i', 1));
        let bytes: &[u8] = &[0x15, 12, 0x25, 2, 0x18, 1, b'b', 0];
        let sound = metadata(&[&root, &image, bytes]);
        assert_eq!(first(&sound).as_deref(), Some("i.b"));
        for cut in 0..sound.len() {
            assert_eq!(first(&sound[..cut]), None, "{cut} bytes");
        }
        for (what, elements) in [
            ("more columns than the tree has", &[&root, &image, bytes, bytes][..]),
            ("fewer columns", &[&root, &group(b'i', 63), bytes]),
            ("a column and no group", &[bytes]),
        ] {
            assert_eq!(first(&metadata(elements)), None, "{what}");
        }
    }

    #[test]
    fn trees_without_an_end() {
        let bytes: &[u8] = &[0x15, 12, 0x25, 2, 0x18, 1, b'b', 0];
        let image = group(b'i', 1);
        let path = |depth| first(&metadata(&[&vec![&image[..]; depth][..], &[bytes]].concat()));
        assert!(path(MAX_DEPTH).is_some());
        assert_eq!(path(MAX_DEPTH + 1), None);
        // The number of columns is the largest there is.
        let wide = [&image[..6], &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F, 0]].concat();
        assert_eq!(first(&metadata(&[&wide, bytes])), None);
    }
}
