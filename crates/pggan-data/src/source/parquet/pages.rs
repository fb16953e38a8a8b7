//! The pages of a column. They are found and unpacked here: the library makes room for whatever a page claims, and
//! looks for the end of a header behind that of the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use ::parquet::basic::Encoding;
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::column::reader::{ColumnReader, get_column_reader};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::schema::types::ColumnDescPtr;
use flate2::read::MultiGzDecoder;

use super::footer::Chunk;
use super::thrift::Thrift;
use crate::source::blob::most_unpacked;

/// Bytes in which the header of a page is looked for at first, and at most: it may hold two values.
const HEADER: u64 = 1 << 10;
const MAX_HEADER: u64 = 1 << 24;

/// How pages are packed.
const PLAIN: i64 = 0;
const SNAPPY: i64 = 1;
const GZIP: i64 = 2;

/// A reader of the values of a column that lie in `chunk`.
pub(super) fn values(file: File, column: ColumnDescPtr, chunk: Chunk) -> Result<ColumnReader> {
    let size = file.metadata()?.len();
    let (Ok(place), Ok(left)) = (u64::try_from(chunk.start), u64::try_from(chunk.bytes)) else {
        return Err(damaged("a column of less than nothing"));
    };
    if place.checked_add(left).is_none_or(|end| end > size) {
        return Err(damaged("a column that is not all in the file"));
    }
    let optional = column.max_def_level() > 0;
    let pages = Pages { file, place, left, codec: chunk.codec, optional, next: None };
    Ok(get_column_reader(column, Box::new(pages)))
}

/// The pages of a column that are left.
struct Pages {
    file: File,
    place: u64,
    left: u64,
    codec: i64,
    /// Whether there may be rows without a value.
    optional: bool,
    /// The page whose header has been read, without its content, and the length of that.
    next: Option<(Page, u64)>,
}

impl Pages {
    /// Reads the header of the next page, if there is one and it has not been read.
    fn look(&mut self) -> Result<()> {
        while self.next.is_none() && self.left > 0 {
            let mut length = HEADER.min(self.left);
            let (page, header, content) = loop {
                let bytes = self.read(length)?;
                let mut thrift = Thrift(&bytes);
                if let Some((page, content)) = header(&mut thrift, self.optional) {
                    break (page, length - thrift.0.len() as u64, content);
                }
                let most = MAX_HEADER.min(self.left);
                if length == most {
                    return Err(damaged(
                        "the header of a page is damaged, or of an encoding that is not read",
                    ));
                }
                length = (16 * length).min(most);
            };
            self.pass(header);
            if content > self.left {
                return Err(damaged("a page is cut off"));
            }
            match page {
                Some(page) => self.next = Some((page, content)),
                None => self.pass(content),
            }
        }
        Ok(())
    }

    /// The next bytes.
    fn read(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.seek(SeekFrom::Start(self.place))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn pass(&mut self, length: u64) {
        self.place += length;
        self.left -= length;
    }

    /// Gives a page its content.
    fn fill(&self, page: &mut Page, content: Vec<u8>) -> Result<()> {
        let (bytes, levels, packed) = match page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => (buf, 0, true),
            Page::DataPageV2 {
                buf,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                ..
            } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                (buf, levels as usize, *is_compressed)
            }
        };
        let (levels, values) =
            content.split_at_checked(levels).ok_or_else(|| damaged("a page is cut off"))?;
        *bytes = if packed && self.codec != PLAIN {
            unpacked(self.codec, levels, values)?.into()
        } else {
            content.into()
        };
        // Room is made for all values of a dictionary at once, each of which takes at least four bytes.
        if let Page::DictionaryPage { buf, num_values, .. } = page
            && *num_values as usize > buf.len() / 4
        {
            return Err(damaged("a dictionary with more values than bytes"));
        }
        Ok(())
    }
}

/// The header of a page: the page without its content, unless it is none of values, and the length of that.
fn header(thrift: &mut Thrift<'_>, optional: bool) -> Option<(Option<Page>, u64)> {
    let (mut kind, mut content, mut about) = (None, None, [-1; 8]);
    thrift.fields(|thrift, id, field| {
        match id {
            1 => kind = Some(thrift.integer()?),
            3 => content = u64::try_from(thrift.integer()?).ok(),
            // A header of data, of a dictionary, and of data in the second version.
            5 | 7 | 8 => about = numbers(thrift)?,
            _ => thrift.skip(field)?,
        }
        Some(())
    })?;
    let (buf, statistics) = (Vec::new().into(), None);
    let count = |place: usize| u32::try_from(about[place]).ok();
    let num_values = count(1);
    let page = match kind? {
        0 => Page::DataPage {
            buf,
            num_values: num_values?,
            encoding: encoding(about[2])?,
            def_level_encoding: levels(about[3], optional)?,
            rep_level_encoding: Encoding::RLE,
            statistics,
        },
        2 => Page::DictionaryPage {
            buf,
            num_values: num_values?,
            encoding: encoding(about[2])?,
            is_sorted: about[3] == 1,
        },
        3 => Page::DataPageV2 {
            buf,
            num_values: num_values?,
            num_nulls: count(2)?,
            num_rows: count(3)?,
            encoding: encoding(about[4])?,
            def_levels_byte_len: count(5)?,
            rep_levels_byte_len: count(6)?,
            is_compressed: about[7] != 0,
            statistics,
        },
        _ => return Some((None, content?)),
    };
    Some((Some(page), content?))
}

/// The first fields of a structure that are whole numbers or truth; -1 where there is none.
fn numbers(thrift: &mut Thrift<'_>) -> Option<[i64; 8]> {
    let mut numbers = [-1; 8];
    thrift.fields(|thrift, id, kind| {
        let number = usize::try_from(id).ok().and_then(|id| numbers.get_mut(id));
        match (number, kind) {
            (Some(number), 1) => *number = 1,
            (Some(number), 2) => *number = 0,
            (Some(number), 5) => *number = thrift.integer()?,
            _ => thrift.skip(kind)?,
        }
        Some(())
    })?;
    Some(numbers)
}

/// How values are encoded. Those of strings by their lengths make room for as many as they claim, and nobody
/// keeps images so.
fn encoding(number: i64) -> Option<Encoding> {
    match number {
        0 => Some(Encoding::PLAIN),
        2 => Some(Encoding::PLAIN_DICTIONARY),
        5 => Some(Encoding::DELTA_BINARY_PACKED),
        8 => Some(Encoding::RLE_DICTIONARY),
        _ => None,
    }
}

/// How it is encoded which rows have a value: in one way, for ten years. Where all have, it is of no account.
fn levels(number: i64, optional: bool) -> Option<Encoding> {
    (number == 3 || !optional).then_some(Encoding::RLE)
}

/// Unpacks a page, whose levels are not packed.
fn unpacked(codec: i64, levels: &[u8], packed: &[u8]) -> Result<Vec<u8>> {
    if packed.is_empty() {
        // A page of rows that have no value.
        return Ok(levels.to_vec());
    }
    let most = most_unpacked(packed.len() as u64);
    let bomb = || damaged("a page unpacks to too much: a bomb");
    let mut bytes = levels.to_vec();
    match codec {
        SNAPPY => {
            let error = |error: snap::Error| damaged(&error.to_string());
            let length = snap::raw::decompress_len(packed).map_err(error)?;
            if length as u64 > most {
                return Err(bomb());
            }
            bytes.resize(levels.len() + length, 0);
            let values = &mut bytes[levels.len()..];
            snap::raw::Decoder::new().decompress(packed, values).map_err(error)?;
        }
        GZIP => {
            let read = MultiGzDecoder::new(packed).take(most + 1).read_to_end(&mut bytes)?;
            if read as u64 > most {
                return Err(bomb());
            }
        }
        _ => return Err(damaged("pages packed by something else than Snappy or gzip")),
    }
    Ok(bytes)
}

fn damaged(reason: &str) -> ParquetError {
    ParquetError::General(reason.into())
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.look()?;
        let Some((mut page, length)) = self.next.take() else { return Ok(None) };
        let content = self.read(length)?;
        self.pass(length);
        self.fill(&mut page, content)?;
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.look()?;
        Ok(self.next.as_ref().map(|(page, _)| PageMetadata {
            num_rows: match page {
                Page::DataPageV2 { num_rows, .. } => Some(*num_rows as usize),
                _ => None,
            },
            num_levels: page.is_data_page().then(|| page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.look()?;
        if let Some((_, length)) = self.next.take() {
            self.pass(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn levels_stay_and_values_are_unpacked() {
        let values = b"some values, some values, some values";
        let packed = snap::raw::Encoder::new().compress_vec(values).unwrap();
        for (codec, packed) in [(GZIP, gzip(values)), (SNAPPY, packed)] {
            for levels in [&b""[..], b"levels"] {
                let found = unpacked(codec, levels, &packed).unwrap();
                assert_eq!(found, [levels, values].concat());
                assert_eq!(unpacked(codec, levels, b"").unwrap(), levels);
                unpacked(codec, levels, &packed[..packed.len() - 1]).unwrap_err();
            }
        }
        let error = unpacked(GZIP, b"", &gzip(&vec![0; 32 << 20])).unwrap_err();
        assert!(error.to_string().contains("a bomb"), "{error}");
    }
}
