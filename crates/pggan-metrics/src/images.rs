//! Sets of images, read in batches as often as a metric needs.

use std::borrow::Cow;
use std::fmt;

use crate::{Error, Result, SourceError};

/// The shape of each image in a set: square, a power of two wide, grey or RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    channels: usize,
    resolution: usize,
}

impl ImageShape {
    /// `channels` is 1 or 3; `resolution`, the side in pixels, is a power of two.
    pub fn new(channels: usize, resolution: usize) -> Result<Self> {
        if !matches!(channels, 1 | 3) {
            return Err(Error::Channels { found: channels });
        }
        if !resolution.is_power_of_two() || resolution > 1 << 15 {
            return Err(Error::Resolution { found: resolution });
        }
        Ok(Self { channels, resolution })
    }

    /// 1 (grey) or 3 (RGB).
    pub fn channels(self) -> usize {
        self.channels
    }

    /// Side in pixels.
    pub fn resolution(self) -> usize {
        self.resolution
    }

    /// Bytes of one image, `C * H * W`.
    pub fn bytes(self) -> usize {
        self.channels * self.resolution * self.resolution
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, resolution } = self;
        write!(f, "{resolution}x{resolution}x{channels}")
    }
}

/// Images of one shape that can be read from the beginning, in the same order, as often as a metric needs:
/// SWD reads a large set once per group of pyramid levels so that its memory stays bounded.
/// A generator is such a set if it draws its latents by image number.
pub trait ImageSet {
    /// Shape of each image.
    fn shape(&self) -> ImageShape;

    /// Number of images that [`batches`](Self::batches) will give.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images from the first on, u8 `[N, C, H, W]` in batches of any N.
    /// A batch is worked on by all threads at once: give some tens of images in each.
    fn batches(&self) -> Box<dyn Iterator<Item = Result<Cow<'_, [u8]>, SourceError>> + '_>;
}

/// Images in memory, u8 `[N, C, H, W]`.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    shape: ImageShape,
    bytes: &'a [u8],
}

impl<'a> Pixels<'a> {
    /// `bytes` holds a whole number of images.
    pub fn new(shape: ImageShape, bytes: &'a [u8]) -> Result<Self> {
        if !bytes.len().is_multiple_of(shape.bytes()) {
            return Err(Error::Ragged { bytes: bytes.len(), shape });
        }
        Ok(Self { shape, bytes })
    }
}

impl ImageSet for Pixels<'_> {
    fn shape(&self) -> ImageShape {
        self.shape
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.shape.bytes()
    }

    fn batches(&self) -> Box<dyn Iterator<Item = Result<Cow<'_, [u8]>, SourceError>> + '_> {
        const BATCH: usize = 64;
        Box::new(
            self.bytes.chunks(BATCH * self.shape.bytes()).map(|batch| Ok(Cow::Borrowed(batch))),
        )
    }
}

/// Some consecutive images of a set.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    set: &'a dyn ImageSet,
    start: usize,
    len: usize,
}

impl<'a> Part<'a> {
    /// The images from `start` on, `len` of them or as many as there are.
    pub fn new(set: &'a dyn ImageSet, start: usize, len: usize) -> Self {
        let start = start.min(set.len());
        Self { set, start, len: len.min(set.len() - start) }
    }
}

impl ImageSet for Part<'_> {
    fn shape(&self) -> ImageShape {
        self.set.shape()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn batches(&self) -> Box<dyn Iterator<Item = Result<Cow<'_, [u8]>, SourceError>> + '_> {
        let bytes = self.shape().bytes();
        let (mut before, mut left) = (self.start * bytes, self.len * bytes);
        let batches = self.set.batches().map(move |batch| {
            batch.map(|batch| {
                let from = before.min(batch.len());
                let to = (from + left).min(batch.len());
                before -= from;
                left -= to - from;
                match batch {
                    Cow::Borrowed(batch) => (Cow::Borrowed(&batch[from..to]), left),
                    Cow::Owned(mut batch) => {
                        batch.truncate(to);
                        batch.drain(..from);
                        (Cow::Owned(batch), left)
                    }
                }
            })
        });
        // Nothing is read beyond the last image.
        let mut done = self.len == 0;
        let wanted = batches.map_while(move |batch| {
            if std::mem::replace(&mut done, matches!(batch, Ok((_, 0)))) {
                return None;
            }
            Some(batch.map(|(batch, _)| batch))
        });
        Box::new(wanted.filter(|batch| !matches!(batch, Ok(batch) if batch.is_empty())))
    }
}

/// Calls `each` with every batch and the number of its first image, and checks that the set keeps its promise.
pub(crate) fn for_each_batch(
    set: &dyn ImageSet,
    mut each: impl FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let (shape, promised) = (set.shape(), set.len());
    let mut given = 0;
    for batch in set.batches() {
        let batch = batch.map_err(Error::Source)?;
        if !batch.len().is_multiple_of(shape.bytes()) {
            return Err(Error::Ragged { bytes: batch.len(), shape });
        }
        let count = batch.len() / shape.bytes();
        if given + count > promised {
            return Err(Error::Count { promised, given: given + count });
        }
        each(given, &batch)?;
        given += count;
    }
    if given < promised {
        return Err(Error::Count { promised, given });
    }
    Ok(())
}
