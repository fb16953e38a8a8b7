//! MobileNetV2 (Sandler et al. 2018), torchvision's.
//!
//! Its weights come with a Python package, so that a Fréchet distance can be had without a network connection. Features
//! are the 1280 means before the classifier.

use candle_core::{Device, Result, Tensor};

use super::FeatureNetwork;
use super::conv::{Activation, Conv, Geometry};
use super::weights::Weights;

/// MobileNetV2.
#[derive(Debug)]
pub struct MobileNetV2 {
    first: Conv,
    blocks: Vec<Block>,
    last: Conv,
    logits: Conv,
    weights: String,
    device: Device,
}

/// An inverted residual: widened, filtered map by map, narrowed.
#[derive(Debug)]
struct Block {
    convs: Vec<Conv>,
    residual: bool,
}

const EPSILON: f64 = 1e-5;
const FEATURES: usize = 1280;
const CLASSES: usize = 1000;

/// Of each group of blocks: widening, maps, blocks, stride of the first (the paper's Table 2).
const GROUPS: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

impl MobileNetV2 {
    /// The network of these weights; each tensor must be there, and none besides.
    pub fn new(mut weights: Weights, device: &Device) -> crate::Result<Self> {
        let hash = weights.provenance().blake3.clone();
        let mut conv = |conv: &str, norm: &str, shape: [usize; 4], stride, activation| {
            let depthwise = shape[1] == 1;
            let padding = (shape[2] / 2, shape[3] / 2);
            let geometry = Geometry { stride, padding, depthwise };
            let names = (conv, norm);
            Conv::normalised(&mut weights, names, shape, EPSILON, (geometry, activation), device)
        };
        let relu = Activation::Relu6;
        let first = conv("features.0.0", "features.0.1", [32, 3, 3, 3], 2, relu)?;
        let (mut maps, mut blocks) = (32, Vec::new());
        for [widening, out, count, stride] in GROUPS {
            for i in 0..count {
                let stride = if i == 0 { stride } else { 1 };
                let name = format!("features.{}.conv", blocks.len() + 1);
                let (wide, mut convs) = (maps * widening, Vec::new());
                let mut at = 0;
                if widening > 1 {
                    let (c, n) = (format!("{name}.0.0"), format!("{name}.0.1"));
                    convs.push(conv(&c, &n, [wide, maps, 1, 1], 1, relu)?);
                    at = 1;
                }
                let (c, n) = (format!("{name}.{at}.0"), format!("{name}.{at}.1"));
                convs.push(conv(&c, &n, [wide, 1, 3, 3], stride, relu)?);
                let (c, n) = (format!("{name}.{}", at + 1), format!("{name}.{}", at + 2));
                convs.push(conv(&c, &n, [out, wide, 1, 1], 1, Activation::None)?);
                blocks.push(Block { convs, residual: stride == 1 && maps == out });
                maps = out;
            }
        }
        let last = conv("features.18.0", "features.18.1", [FEATURES, maps, 1, 1], 1, relu)?;
        let logits = Conv::dense(&mut weights, "classifier.1", [CLASSES, FEATURES], device)?;
        weights.take("classifier.1.bias", &[CLASSES])?;
        weights.finish()?;
        Ok(Self { first, blocks, last, logits, weights: hash, device: device.clone() })
    }
}

impl FeatureNetwork for MobileNetV2 {
    fn side(&self) -> usize {
        224
    }

    fn features(&self) -> usize {
        FEATURES
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn weights(&self) -> &str {
        &self.weights
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, images: &Tensor) -> Result<(Tensor, Tensor)> {
        // Mean and deviation of ImageNet, of pixels in [0, 1].
        let of_channels = |values: [f32; 3]| {
            Tensor::new(&values, &self.device)?.affine(255.0, 0.0)?.reshape((1, 3, 1, 1))
        };
        let (mean, deviation) =
            (of_channels([0.485, 0.456, 0.406])?, of_channels([0.229, 0.224, 0.225])?);
        let x = images.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
        let mut x = self.first.forward(&x)?;
        for Block { convs, residual } in &self.blocks {
            let y = convs.iter().try_fold(x.clone(), |x, conv| conv.forward(&x))?;
            x = if *residual { (x + y)? } else { y };
        }
        let pooled = self.last.forward(&x)?.mean_keepdim(3)?.mean_keepdim(2)?; // [N, 1280, 1, 1]
        let logits = self.logits.forward(&pooled)?;
        Ok((pooled.flatten_from(1)?, logits.flatten_from(1)?))
    }
}
