//! Sets of images to measure: prepared data, files, what a generator makes.

use std::borrow::Cow;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pggan_data::Store;
use pggan_data::decode::Decoder;
use pggan_data::source::{LabelsFrom, MAX_FILE_BYTES, Source};
use pggan_metrics::path_length::{Ends, Paths, STEP};
use pggan_metrics::{ImageSet, ImageShape, SourceError};
use pggan_model::weights::{self, SnapshotHeader};
use pggan_model::{Generator, Growth};
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rayon::prelude::*;
use tempfile::NamedTempFile;

use crate::{Error, Result, random, samples};

/// Sets of at most so many bytes are kept in memory.
const IN_MEMORY: usize = 512 << 20;
/// Bytes of a batch, about.
const BATCH_BYTES: usize = 16 << 20;

type Batches<'a> = Box<dyn Iterator<Item = Result<Cow<'a, [u8]>, SourceError>> + 'a>;

/// Images in a batch.
fn batch(shape: ImageShape) -> usize {
    (BATCH_BYTES / shape.bytes()).clamp(8, 256)
}

fn ranges(len: usize, by: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(by).map(move |start| start..(start + by).min(len))
}

/// The order in which images of data are taken: the same one always, since files are often sorted by what they show.
fn shuffled(len: usize) -> Vec<usize> {
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
                    pixels.extend_from_slice(image);
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
    fn make(
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

/// A generator from a snapshot, as a source of images: number n of a seed is one image for ever.
pub struct Fakes {
    g: Generator,
    header: SnapshotHeader,
    device: Device,
}

impl Fakes {
    /// The averaged generator of a snapshot.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(snapshot: &Path, device: &Device) -> Result<Self> {
        let (g, header) = weights::read_generator(snapshot, DType::F32, device)?;
        Ok(Self { g, header, device: device.clone() })
    }

    /// What the snapshot says of itself.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// RGB, at the network's final resolution: smaller images are enlarged, pixel by pixel, as in the official code.
    pub fn shape(&self) -> ImageShape {
        ImageShape::new(3, self.g.config().resolution).expect("resolutions are powers of two")
    }

    /// So many images.
    ///
    /// # Errors
    /// If the device or the temporary file fails.
    pub fn images(&self, seed: u64, count: usize) -> Result<Kept> {
        let shape = self.shape();
        let at_once = self.at_once();
        Kept::make(shape, count, at_once, |range| {
            // Whole batches always: rounding may depend on their size.
            let whole = range.start..range.start + at_once;
            let latents = self.latents(seed, "latents of a metric", whole.clone());
            let images = self.generate(&latents, seed, whole)?;
            let bytes = samples::to_bytes(&images.narrow(0, 0, range.len())?)?;
            let (from, to) = (self.header.growth().resolution(), shape.resolution());
            Ok(enlarge(&bytes, self.g.config().channels, from, to))
        })
    }

    /// Images of a batch: bounded memory at every resolution.
    fn at_once(&self) -> usize {
        let pixels = self.header.growth().resolution().pow(2);
        ((1 << 16) / pixels).clamp(1, 64)
    }

    fn latents(&self, seed: u64, purpose: &str, range: Range<usize>) -> Vec<f32> {
        let size = self.g.config().latent_size();
        let mut values = vec![0f32; range.len() * size];
        for (i, values) in range.zip(values.chunks_exact_mut(size)) {
            random::normal(random::stream(seed, purpose, 0, i as u64), values);
        }
        values
    }

    /// `[N, C, R, R]`; classes, where there are some, by chance.
    fn generate(&self, latents: &[f32], seed: u64, range: Range<usize>) -> Result<Tensor> {
        let (size, classes) = (self.g.config().latent_size(), self.g.config().label_size);
        let latents = Tensor::from_slice(latents, (range.len(), size), &self.device)?;
        let mut labels = vec![0f32; range.len() * classes];
        for (i, label) in range.clone().zip(labels.chunks_exact_mut(classes.max(1))) {
            let mut stream = random::stream(seed, "classes of a metric", 0, i as u64);
            label[stream.random_range(0..classes)] = 1.0;
        }
        let labels = match classes {
            0 => None,
            _ => Some(Tensor::from_vec(labels, (range.len(), classes), &self.device)?),
        };
        let growth: Growth = self.header.growth();
        Ok(self.g.generate(&latents, labels.as_ref(), growth)?)
    }
}

/// Repeats pixels, and grey planes to RGB. `images` is `[N, C, from, from]`.
fn enlarge<P: Copy>(images: &[P], channels: usize, from: usize, to: usize) -> Vec<P> {
    let (zoom, area) = (to / from, from * from);
    let mut out = Vec::with_capacity(images.len() / channels * 3 * zoom * zoom);
    for image in images.chunks_exact(channels * area) {
        for c in 0..3 {
            let plane = &image[c.min(channels - 1) * area..][..area];
            for row in plane.chunks_exact(from) {
                let start = out.len();
                out.extend(row.iter().flat_map(|&pixel| std::iter::repeat_n(pixel, zoom)));
                for _ in 1..zoom {
                    out.extend_from_within(start..start + to);
                }
            }
        }
    }
    out
}

/// Short steps between random latent vectors.
pub struct FakePaths<'a> {
    /// The generator.
    pub fakes: &'a Fakes,
    /// Which vectors.
    pub seed: u64,
}

impl Paths for FakePaths<'_> {
    fn shape(&self) -> ImageShape {
        self.fakes.shape()
    }

    fn steps(&self, count: usize) -> Box<dyn Iterator<Item = Result<Ends, SourceError>> + '_> {
        let Self { fakes, seed } = *self;
        let config = fakes.g.config();
        let size = config.latent_size();
        Box::new(ranges(count, fakes.at_once()).map(move |range| {
            let start = fakes.latents(seed, "begin of a path", range.clone());
            let end = fakes.latents(seed, "end of a path", range.clone());
            let at = |step: f64| -> Result<Vec<f32>> {
                let mut latents = Vec::with_capacity(start.len());
                let pairs = start.chunks_exact(size).zip(end.chunks_exact(size));
                for (i, (a, b)) in range.clone().zip(pairs) {
                    let t: f64 = random::stream(seed, "place on a path", 0, i as u64).random();
                    latents.extend(slerp(a, b, t + step));
                }
                let images = fakes.generate(&latents, seed, range.clone())?;
                let values = images.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
                let values: Vec<f32> = values.iter().map(|x| x * 127.5 + 127.5).collect();
                let (from, to) = (fakes.header.growth().resolution(), fakes.shape().resolution());
                Ok(enlarge(&values, config.channels, from, to))
            };
            Ok((at(0.0)?, at(STEP)?))
        }))
    }
}

/// Between two vectors on the sphere, which is where latent vectors lie once they are normalized.
fn slerp(a: &[f32], b: &[f32], t: f64) -> Vec<f32> {
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (na, nb) = (norm(a).max(1e-30), norm(b).max(1e-30));
    let dot: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let angle = (dot / (na * nb)).clamp(-1.0, 1.0).acos().max(1e-9);
    let (wa, wb) =
        (((1.0 - t) * angle).sin() / (na * angle.sin()), (t * angle).sin() / (nb * angle.sin()));
    let scale = (a.len() as f64).sqrt();
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (scale * (wa * f64::from(a) + wb * f64::from(b))) as f32)
        .collect()
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

    #[test]
    fn small_and_grey_images_are_enlarged() {
        assert_eq!(enlarge(&[1u8, 2, 3, 4], 1, 2, 2), [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
        let large = enlarge(&[1u8, 2, 3], 3, 1, 2);
        assert_eq!(large, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
        let large = enlarge(&[1u8, 2, 3, 4], 1, 2, 4);
        assert_eq!(large[..16], [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
    }

    #[test]
    fn paths_stay_on_the_sphere() {
        let (a, b) = ([3.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]);
        for t in [0.0, 0.3, 1.0] {
            let v = slerp(&a, &b, t);
            assert!((v.iter().map(|x| x * x).sum::<f32>() - 4.0).abs() < 1e-5);
            assert!(
                (f64::from(v[1] / v[0]) - (t * std::f64::consts::FRAC_PI_2).tan()).abs() < 1e-4
                    || t == 1.0
            );
        }
        assert!(slerp(&a, &a, 0.5).iter().all(|x| x.is_finite()));
    }
}
