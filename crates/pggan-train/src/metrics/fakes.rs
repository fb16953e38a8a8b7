//! Generators as sources of images and of paths through their latent space.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pggan_metrics::path_length::{Ends, Paths, STEP};
use pggan_metrics::{ImageShape, SourceError};
use pggan_model::weights::{self, SnapshotHeader};
use pggan_model::{Generator, Growth};
use rand::Rng as _;

use super::kept::Kept;
use super::sets::ranges;
use crate::{Result, random, samples};

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
