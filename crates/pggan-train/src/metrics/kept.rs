//! Images of files or of a generator, decoded or made once.

use std::borrow::Cow;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::Path;

use pggan_data::decode::Decoder;
use pggan_data::source::{LabelsFrom, MAX_FILE_BYTES, Source};
use pggan_metrics::{ImageSet, ImageShape};
use rayon::prelude::*;
use tempfile::NamedTempFile;

use super::sets::{Batches, batch, ranges, shuffled};
use crate::{Error, Result};

/// Sets of at most so many bytes are kept in memory.
const IN_MEMORY: usize = 128 << 20;

/// Images that are dear to make: made once, and kept in memory while they are few, in a temporary file else.
pub struct Kept {
    shape: ImageShape,
    len: usize,
    place: Place,
}

enum Place {
    Memory(Vec<u8>),
    File(NamedTempFile),
}

impl Kept {
    /// What `images` makes, `at_once` at a time.
    pub(super) fn make(
        shape: ImageShape,
        len: usize,
        at_once: usize,
        mut images: impl FnMut(Range<usize>) -> Result<Vec<u8>>,
    ) -> Result<Self> {
        let io = |e: std::io::Error| Error::io(&std::env::temp_dir())(e);
        let mut place = if len * shape.bytes() <= IN_MEMORY {
            Place::Memory(Vec::with_capacity(len * shape.bytes()))
        } else {
            Place::File(NamedTempFile::with_prefix("pggan-images-").map_err(io)?)
        };
        for range in ranges(len, at_once) {
            let pixels = images(range)?;
            match &mut place {
                Place::Memory(all) => all.extend(pixels),
                Place::File(file) => file.write_all(&pixels).map_err(io)?,
            }
        }
        Ok(Self { shape, len, place })
    }

    /// The image files of a folder or zip archive, by name or `in_any_order`; the first `limit` of them. All must be
    /// squares of one size, a power of two.
    ///
    /// # Errors
    /// If there is none, or one cannot be read or is of another size: it is named.
    pub fn files(path: &Path, limit: usize, in_any_order: bool) -> Result<Self> {
        let source = Source::open(path, LabelsFrom::None)?;
        let entries = source.entries();
        let problem = |what: String| Error::Usage(format!("{}: {what}", path.display()));
        if entries.is_empty() {
            return Err(problem("no image files here".to_owned()));
        }
        let order =
            if in_any_order { shuffled(entries.len()) } else { (0..entries.len()).collect() };
        let decode = |reader: &mut pggan_data::source::Reader<'_>, index: usize| {
            let bad = |why: String| problem(format!("{}: {why}", entries[index].name));
            let mut bytes = Vec::new();
            let form = reader.read(index, MAX_FILE_BYTES, &mut bytes).map_err(bad)?;
            let planes = Decoder::new(3, [255; 3]).decode(form, &bytes, |picture| {
                let (w, h) = (picture.width as usize, picture.height as usize);
                let mut planes = vec![0; 3 * w * h];
                for (i, pixel) in picture.pixels.as_chunks::<3>().0.iter().enumerate() {
                    for (c, &value) in pixel.iter().enumerate() {
                        planes[c * w * h + i] = value;
                    }
                }
                (w, h, planes)
            });
            planes.map_err(bad)
        };
        let (w, h, _) = decode(&mut source.reader()?, order[0])?;
        let shape = ImageShape::new(3, w).ok().filter(|_| w == h).ok_or_else(|| {
            problem(format!(
                "{} is {w}x{h}; metrics take squares of a power of two: prepare them with `cargo xtask \
                 prepare-dataset`, and name the result",
                entries[order[0]].name
            ))
        })?;
        Self::make(shape, order.len().min(limit), batch(shape), |range| {
            let one = |reader: &mut Result<_, pggan_data::Error>, &index: &usize| {
                let reader = match reader {
                    Ok(reader) => reader,
                    Err(e) => return Err(problem(e.to_string())),
                };
                let (width, height, planes) = decode(reader, index)?;
                if (width, height) != (w, w) {
                    return Err(problem(format!(
                        "{} is {width}x{height}, the others are {w}x{w}: all must be of one size",
                        entries[index].name
                    )));
                }
                Ok(planes)
            };
            let images = order[range].par_iter().map_init(|| source.reader(), one);
            Ok(images.collect::<Result<Vec<_>>>()?.concat())
        })
    }
}

impl ImageSet for Kept {
    fn shape(&self) -> ImageShape {
        self.shape
    }

    fn len(&self) -> usize {
        self.len
    }

    fn batches(&self) -> Batches<'_> {
        let bytes = self.shape.bytes();
        let ranges = ranges(self.len, batch(self.shape));
        match &self.place {
            Place::Memory(all) => Box::new(
                ranges.map(move |r| Ok(Cow::Borrowed(&all[r.start * bytes..r.end * bytes]))),
            ),
            Place::File(file) => {
                let mut file = file.reopen();
                Box::new(ranges.map(move |range| {
                    let file = file
                        .as_mut()
                        .map_err(|e| std::io::Error::new(e.kind(), "its temporary file is gone"))?;
                    let mut pixels = vec![0; range.len() * bytes];
                    file.seek(SeekFrom::Start((range.start * bytes) as u64))?;
                    file.read_exact(&mut pixels)?;
                    Ok(Cow::Owned(pixels))
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_images_are_the_same_in_memory_and_in_a_file() {
        let shape = ImageShape::new(3, 16).unwrap();
        let image = |i: usize| vec![i as u8; shape.bytes()];
        let images: Vec<u8> = (0..21).flat_map(image).collect();
        let make = |range: Range<usize>| Ok(range.flat_map(image).collect());
        let mut kept = Kept::make(shape, 21, 4, make).unwrap();
        let all = |set: &Kept| -> Vec<u8> {
            set.batches().flat_map(|batch| batch.unwrap().into_owned()).collect()
        };
        assert_eq!(all(&kept), images);
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&images).unwrap();
        kept.place = Place::File(file);
        assert_eq!(all(&kept), images);
        assert_eq!(all(&kept), images, "a second time");
    }
}
