//! Prepared data as a set of images to measure, and what all such sets share.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use pggan_data::Store;
use pggan_metrics::{ImageSet, ImageShape, SourceError};
use rand::Rng as _;
use rand::seq::SliceRandom as _;

use crate::{Error, Result, random};

/// Bytes of a batch, about.
const BATCH_BYTES: usize = 16 << 20;

pub(super) type Batches<'a> = Box<dyn Iterator<Item = Result<Cow<'a, [u8]>, SourceError>> + 'a>;

/// Images in a batch.
pub(super) fn batch(shape: ImageShape) -> usize {
    (BATCH_BYTES / shape.bytes()).clamp(8, 256)
}

pub(super) fn ranges(len: usize, by: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(by).map(move |start| start..(start + by).min(len))
}

/// The order in which images of data are taken: the same one always, since files are often sorted by what they show.
pub(super) fn shuffled(len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut random::stream(0, "order of real images", 0, 0));
    order
}

/// Prepared data at one level.
pub struct StoreSet {
    store: Store,
    level: u32,
    order: Vec<usize>,
    mirror: bool,
}

impl StoreSet {
    /// The images of a store at `resolution`, or at its highest. With `mirror` each is mirrored or not, by chance.
    ///
    /// # Errors
    /// If it cannot be opened or has no such resolution.
    pub fn open(path: &Path, resolution: Option<usize>, mirror: bool) -> Result<Self> {
        let store = Store::open(path)?;
        let level = resolution.map_or(store.max_level(), usize::ilog2);
        if level > store.max_level() {
            return Err(Error::Usage(format!(
                "{} has images of {}x{} at most, the judged ones are {r}x{r}; prepare it again with `cargo xtask \
                 prepare-dataset --resolution {r}`",
                path.display(),
                1 << store.max_level(),
                1 << store.max_level(),
                r = 1 << level,
            )));
        }
        if store.channels() > 3 {
            return Err(Error::Usage(format!(
                "{} has opacity, which no metric is defined for; prepare it without",
                path.display()
            )));
        }
        let order = shuffled(store.images() as usize);
        Ok(Self { store, level, order, mirror })
    }
}

impl ImageSet for StoreSet {
    fn shape(&self) -> ImageShape {
        ImageShape::new(3, 1 << self.level).expect("levels are powers of two")
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn batches(&self) -> Batches<'_> {
        let (shape, side) = (self.shape(), 1 << self.level);
        Box::new(ranges(self.len(), batch(shape)).map(move |range| {
            let mut pixels = Vec::with_capacity(range.len() * shape.bytes());
            for place in range {
                let start = pixels.len();
                let image = self.store.image(self.level, self.order[place] as u64)?;
                // Grey is RGB of three equal planes.
                for _ in 0..3 / self.store.channels() {
                    pixels.extend_from_slice(&image);
                }
                let chance = || random::stream(0, "mirrored real images", 0, place as u64).random();
                if self.mirror && chance() {
                    pixels[start..].chunks_exact_mut(side).for_each(<[u8]>::reverse);
                }
            }
            Ok(Cow::Owned(pixels))
        }))
    }
}
