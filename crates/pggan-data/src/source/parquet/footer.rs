//! The footer of a file: its columns, and where they lie. It is read here: the library follows the tree of columns
//! as deep as a file says, makes room for as many, and counts to the end of lists that are not there.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use ::parquet::basic::{Repetition, Type as Physical};
use ::parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};

use super::thrift::Thrift;

/// The length of the footer, and the magic.
const TAIL: u64 = 8;
/// Footers above this many bytes or elements of columns are not read: they take up to fifty times as much memory.
const MAX_FOOTER: u64 = 16 << 20;
const MAX_ELEMENTS: u64 = 10_000;
/// No column lies that deep.
const MAX_DEPTH: usize = 64;

/// What a footer says.
pub(super) struct Footer {
    pub(super) columns: SchemaDescPtr,
    pub(super) groups: Vec<Group>,
    /// What Hugging Face notes about the columns.
    pub(super) notes: Option<String>,
}

/// A group of rows.
#[derive(Default)]
pub(super) struct Group {
    pub(super) rows: i64,
    /// By column.
    pub(super) chunks: Vec<Chunk>,
}

/// The pages of a column in a group.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Chunk {
    /// How they are packed.
    pub(super) codec: i64,
    /// Where they begin, with the dictionary if there is one.
    pub(super) start: i64,
    pub(super) bytes: i64,
    pub(super) bytes_unpacked: i64,
}

impl Footer {
    pub(super) fn read(file: &mut File) -> Result<Self, String> {
        let bytes = bytes(file).map_err(|error| error.to_string())?;
        metadata(&mut Thrift(&bytes)).ok_or_else(|| "its footer is damaged".into())
    }
}

fn bytes(file: &mut File) -> std::io::Result<Vec<u8>> {
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

/// A `FileMetaData`.
fn metadata(thrift: &mut Thrift<'_>) -> Option<Footer> {
    let (mut root, mut groups, mut notes) = (None, Vec::new(), None);
    thrift.fields(|thrift, id, kind| match id {
        // The columns and their groups, each before what is in it.
        2 => {
            let mut left = Some(thrift.list()?.0).filter(|&count| count <= MAX_ELEMENTS)?;
            root = Some(column(thrift, &mut left, MAX_DEPTH)?);
            (left == 0).then_some(())
        }
        4 => thrift.each(|thrift| {
            groups.push(group(thrift)?);
            Some(())
        }),
        5 => thrift.each(|thrift| {
            let (mut key, mut value) = (None, None);
            thrift.fields(|thrift, id, kind| {
                match id {
                    1 => key = Some(thrift.string()?),
                    2 => value = Some(thrift.string()?),
                    _ => thrift.skip(kind)?,
                }
                Some(())
            })?;
            if key == Some(b"huggingface") {
                notes = value.map(|value| String::from_utf8_lossy(value).into_owned());
            }
            Some(())
        }),
        _ => thrift.skip(kind),
    })?;
    let columns = Arc::new(SchemaDescriptor::new(Arc::new(root.filter(Type::is_group)?)));
    let whole = groups.iter().all(|group| group.chunks.len() == columns.num_columns());
    whole.then_some(Footer { columns, groups, notes })
}

/// A `RowGroup`.
fn group(thrift: &mut Thrift<'_>) -> Option<Group> {
    let mut group = Group::default();
    thrift.fields(|thrift, id, kind| {
        match id {
            1 => thrift.each(|thrift| {
                group.chunks.push(chunk(thrift)?);
                Some(())
            })?,
            3 => group.rows = thrift.integer()?,
            _ => thrift.skip(kind)?,
        }
        Some(())
    })?;
    Some(group)
}

/// A `ColumnChunk`, of which the `ColumnMetaData` counts.
fn chunk(thrift: &mut Thrift<'_>) -> Option<Chunk> {
    let mut chunk = Chunk::default();
    let mut dictionary = None;
    thrift.fields(|thrift, id, kind| {
        if id != 3 {
            return thrift.skip(kind);
        }
        thrift.fields(|thrift, id, kind| {
            match id {
                4 => chunk.codec = thrift.integer()?,
                6 => chunk.bytes_unpacked = thrift.integer()?,
                7 => chunk.bytes = thrift.integer()?,
                9 => chunk.start = thrift.integer()?,
                11 => dictionary = Some(thrift.integer()?),
                _ => thrift.skip(kind)?,
            }
            Some(())
        })
    })?;
    chunk.start = dictionary.unwrap_or(chunk.start);
    Some(chunk)
}

/// A column or a group, a `SchemaElement`, of which `left` are still to come.
fn column(thrift: &mut Thrift<'_>, left: &mut u64, depth: usize) -> Option<Type> {
    *left = left.checked_sub(1)?;
    let (mut physical, mut length, mut repetition, mut children) = (None, -1, 0, 0);
    let mut name: &[u8] = b"";
    thrift.fields(|thrift, id, kind| {
        match id {
            1 => physical = Some(thrift.integer()?),
            2 => length = thrift.integer()?,
            3 => repetition = thrift.integer()?,
            4 => name = thrift.string()?,
            5 => children = thrift.integer()?,
            _ => thrift.skip(kind)?,
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
        let child = |_| column(thrift, left, depth).map(Arc::new);
        let children = (0..children).map(child).collect::<Option<_>>()?;
        Type::group_type_builder(name).with_repetition(repetition).with_fields(children).build()
    };
    built.ok()
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
        let footer = super::metadata(&mut Thrift(metadata))?;
        Some(footer.columns.columns().first()?.path().string())
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
