//! Networks that turn images into features.

mod conv;
mod inception;
mod mobilenet;
mod resize;
mod weights;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

pub use inception::{Flavour, Inception};
pub use mobilenet::MobileNetV2;
pub use resize::{Resize, resize};
pub use weights::{Provenance, Weights};

use crate::images::for_each_batch;
use crate::{Error, ImageSet, Result};

/// A network that is known by name and by the hash of its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Inception-v3 as released on 2015-12-05, which FID, KID and IS are defined by.
    Inception2015,
    /// torchvision's Inception-v3.
    InceptionV3,
    /// torchvision's MobileNetV2.
    MobileNetV2,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inception2015, Self::InceptionV3, Self::MobileNetV2];

    /// What it is called in names of metrics and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inception2015 => "inception-2015-12-05",
            Self::InceptionV3 => "inceptionv3",
            Self::MobileNetV2 => "mobilenetv2",
        }
    }

    /// How the SHA-256 of the file that its authors published begins; whole where it is known to us.
    pub fn sha256(self) -> &'static str {
        match self {
            Self::Inception2015 => {
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
            }
            Self::InceptionV3 => "0cc3c7bd",
            Self::MobileNetV2 => "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        }
    }

    /// The published file.
    pub fn published_as(self) -> &'static str {
        match self {
            Self::Inception2015 => "pt_inception-2015-12-05-6726825d.pth",
            Self::InceptionV3 => "inception_v3_google-0cc3c7bd.pth",
            Self::MobileNetV2 => "mobilenet_v2-b0353104.pth",
        }
    }

    /// How images are brought to its size where a name does not say.
    pub fn usual_resize(self) -> Resize {
        match self {
            Self::Inception2015 => Resize::Tf,
            Self::InceptionV3 | Self::MobileNetV2 => Resize::Clean,
        }
    }

    /// Makes the network; a missing tensor, one of another shape and one too many are errors.
    pub fn build(self, weights: Weights, device: &Device) -> Result<Box<dyn FeatureNetwork>> {
        Ok(match self {
            Self::Inception2015 => Box::new(Inception::new(weights, Flavour::Fid2015, device)?),
            Self::InceptionV3 => Box::new(Inception::new(weights, Flavour::Torchvision, device)?),
            Self::MobileNetV2 => Box::new(MobileNetV2::new(weights, device)?),
        })
    }
}

/// What makes features: a network and the way in which images are brought to its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extractor {
    /// The network.
    pub network: Kind,
    /// How images are resized.
    pub resize: Resize,
}

/// What a network says of some images, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    /// Pooled features `[N, D]`.
    pub features: Vec<f32>,
    /// Logits `[N, classes]`, without the last layer's bias, as the inception score is defined.
    pub logits: Vec<f32>,
}

/// A network that turns images into features. It is called from many threads at once.
pub trait FeatureNetwork: Send + Sync {
    /// Side of the images that it takes.
    fn side(&self) -> usize;

    /// Features for each image, D.
    fn features(&self) -> usize;

    /// Classes.
    fn classes(&self) -> usize;

    /// Which weights: the BLAKE3 of its tensors.
    fn weights(&self) -> &str;

    /// Where it computes.
    fn device(&self) -> &Device;

    /// Pooled features and logits of images.
    ///
    /// # Shapes
    /// `images`: `[N, 3, side, side]`, RGB in [0, 255]; returns `[N, D]` and `[N, classes]`.
    fn forward(&self, images: &Tensor) -> candle_core::Result<(Tensor, Tensor)>;
}

/// Features and logits of all images of a set.
///
/// Grey images are taken as RGB. On the CPU images go through the network one by one, on all threads at once, so that
/// what comes out does not depend on the batches.
pub fn extract(
    network: &dyn FeatureNetwork,
    resizing: Resize,
    set: &dyn ImageSet,
) -> Result<Outputs> {
    let shape = set.shape();
    let mut outputs = Outputs::default();
    let together = if network.device().is_cpu() { 1 } else { 32 };
    for_each_batch(set, |_, batch| {
        let pieces: Vec<&[u8]> = batch.chunks(together * shape.bytes()).collect();
        let forward = |pixels: &&[u8]| -> Result<Outputs> {
            let images = pixels.len() / shape.bytes();
            let side = network.side();
            let mut resized = Vec::with_capacity(images * 3 * side * side);
            for image in pixels.chunks_exact(shape.bytes()) {
                resize(image, shape, side, resizing, &mut resized)?;
            }
            let images = Tensor::from_vec(resized, (images, 3, side, side), network.device())?;
            let (features, logits) = network.forward(&images)?;
            Ok(Outputs { features: rows(&features)?, logits: rows(&logits)? })
        };
        let made: Vec<Outputs> = if network.device().is_cpu() {
            pieces.par_iter().map(forward).collect::<Result<_>>()?
        } else {
            pieces.iter().map(forward).collect::<Result<_>>()?
        };
        for made in made {
            outputs.features.extend(made.features);
            outputs.logits.extend(made.logits);
        }
        Ok(())
    })?;
    Ok(outputs)
}

fn rows(values: &Tensor) -> candle_core::Result<Vec<f32>> {
    values.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error)
    }
}
