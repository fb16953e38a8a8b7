//! The pages of a column, unpacked here: the library makes room for whatever a page claims.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use ::parquet::basic::{Compression, Encoding};
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::column::reader::{ColumnReader, get_column_reader};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::serialized_reader::SerializedPageReader;
use flate2::read::MultiGzDecoder;

use crate::source::blob::most_unpacked;

/// A reader of a column of a row group.
pub(super) fn column(
    file: File,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
) -> Result<ColumnReader> {
    let group = metadata.row_group(group);
    let about = group.column(column);
    let start = about.dictionary_page_offset().unwrap_or_else(|| about.data_page_offset());
    let length = about.compressed_size();
    let end = start.checked_add(length).and_then(|end| u64::try_from(end).ok());
    let size = file.metadata()?.len();
    if start < 0 || length < 0 || end.is_none_or(|end| end > size) {
        return Err(damaged("a column that is not all in the file"));
    }
    let packed = about.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
    let rows = group.num_rows() as usize;
    let packed = SerializedPageReader::new(Arc::new(file), &packed, rows, None)?;
    let pages = Pages { packed, compression: about.compression(), next: None };
    Ok(get_column_reader(about.column_descr_ptr(), Box::new(pages)))
}

/// Pages as they lie in the file, and what is done to them.
struct Pages {
    packed: SerializedPageReader<File>,
    compression: Compression,
    /// The page that comes next, where it has been looked at.
    next: Option<Page>,
}

impl Pages {
    fn unpack(&self, mut page: Page) -> Result<Page> {
        use Encoding::{DELTA_BINARY_PACKED, PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY};
        // Those of strings by their lengths make room for as many as they claim, and nobody keeps images so.
        let known = [PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY, DELTA_BINARY_PACKED];
        if !known.contains(&page.encoding()) {
            let reason = format!("values in {}, which is not read", page.encoding());
            return Err(ParquetError::General(reason));
        }
        let (bytes, plain, packed) = match &mut page {
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
            bytes.split_at_checked(plain).ok_or_else(|| damaged("a page is cut off"))?;
        if packed && self.compression != Compression::UNCOMPRESSED {
            *bytes = unpacked(self.compression, levels, values)?.into();
        }
        // Room is made for all values of a dictionary at once, each of which takes at least four bytes.
        if let Page::DictionaryPage { buf, num_values, .. } = &page
            && *num_values as usize > buf.len() / 4
        {
            return Err(damaged("a dictionary with more values than bytes"));
        }
        Ok(page)
    }
}

/// Unpacks a page, whose levels are not packed.
fn unpacked(compression: Compression, levels: &[u8], packed: &[u8]) -> Result<Vec<u8>> {
    if packed.is_empty() {
        // A page of rows that have no value.
        return Ok(levels.to_vec());
    }
    let most = most_unpacked(packed.len() as u64);
    let bomb = || damaged("a page unpacks to too much: a bomb");
    let mut bytes = levels.to_vec();
    match compression {
        Compression::SNAPPY => {
            let length = snap::raw::decompress_len(packed)?;
            if length as u64 > most {
                return Err(bomb());
            }
            bytes.resize(levels.len() + length, 0);
            snap::raw::Decoder::new().decompress(packed, &mut bytes[levels.len()..])?;
        }
        Compression::GZIP(_) => {
            let read = MultiGzDecoder::new(packed).take(most + 1).read_to_end(&mut bytes)?;
            if read as u64 > most {
                return Err(bomb());
            }
        }
        other => {
            let reason = format!("pages packed by {other}, which is not read");
            return Err(ParquetError::General(reason));
        }
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
        self.peek_next_page()?;
        self.next.take().map(|page| self.unpack(page)).transpose()
    }

    /// The library's own way to look ahead panics where a header lacks its second half.
    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        if self.next.is_none() {
            self.next = self.packed.get_next_page()?;
        }
        Ok(self.next.as_ref().map(|page| PageMetadata {
            num_rows: match page {
                Page::DataPageV2 { num_rows, .. } => Some(*num_rows as usize),
                _ => None,
            },
            num_levels: page.is_data_page().then(|| page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.peek_next_page()?;
        self.next = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ::parquet::basic::GzipLevel;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn levels_stay_and_values_are_unpacked() {
        let (gz, snappy) = (Compression::GZIP(GzipLevel::default()), Compression::SNAPPY);
        let values = b"some values, some values, some values";
        let packed = snap::raw::Encoder::new().compress_vec(values).unwrap();
        for (compression, packed) in [(gz, gzip(values)), (snappy, packed)] {
            for levels in [&b""[..], b"levels"] {
                let found = unpacked(compression, levels, &packed).unwrap();
                assert_eq!(found, [levels, values].concat());
                assert_eq!(unpacked(compression, levels, b"").unwrap(), levels);
                unpacked(compression, levels, &packed[..packed.len() - 1]).unwrap_err();
            }
        }
        let error = unpacked(gz, b"", &gzip(&vec![0; 32 << 20])).unwrap_err();
        assert!(error.to_string().contains("a bomb"), "{error}");
    }
}
