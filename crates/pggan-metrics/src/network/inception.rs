//! Inception-v3 (Szegedy et al. 2015), in the two forms whose weights are about.
//!
//! The network that FID, KID and IS are defined by was released on 2015-12-05 as a TensorFlow graph. It differs from
//! torchvision's in what its pooling branches do and in its 1008 classes; the names of the tensors are torchvision's in
//! both, as in the public port `pt_inception-2015-12-05`.

use candle_core::{Device, Result, Tensor};

use super::FeatureNetwork;
use super::conv::{Activation, Conv, Geometry, max3x3, max3x3_halved, mean3x3};
use super::weights::Weights;

/// Which Inception-v3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Of 2015-12-05: means that do not count the border, a maximum in the last block, 1008 classes.
    Fid2015,
    /// torchvision's: means that count the border as zeros, 1000 classes.
    Torchvision,
}

/// Inception-v3.
#[derive(Debug)]
pub struct Inception {
    flavour: Flavour,
    stem: Vec<Conv>,
    blocks: Vec<Block>,
    logits: Conv,
    weights: String,
    device: Device,
}

const EPSILON: f64 = 1e-3;
const FEATURES: usize = 2048;

/// Convolutions of one block, by branch.
#[derive(Debug)]
enum Block {
    /// 35x35 pixels.
    A { one: Conv, five: [Conv; 2], three: [Conv; 3], pool: Conv },
    /// To 17x17.
    B { three: Conv, double: [Conv; 3] },
    /// 17x17.
    C { one: Conv, seven: [Conv; 3], double: [Conv; 5], pool: Conv },
    /// To 8x8.
    D { three: [Conv; 2], seven: [Conv; 4] },
    /// 8x8.
    E {
        one: Conv,
        three: Conv,
        wide: Conv,
        high: Conv,
        double: [Conv; 2],
        wide2: Conv,
        high2: Conv,
        pool: Conv,
        largest: bool,
    },
}

/// Takes the convolutions of one part of the network from its tensors.
struct Part<'a> {
    weights: &'a mut Weights,
    device: &'a Device,
    prefix: &'static str,
}

impl Part<'_> {
    /// The part whose names begin so.
    fn at(&mut self, prefix: &'static str) -> Part<'_> {
        Part { weights: self.weights, device: self.device, prefix }
    }

    /// A convolution from `i` to `o` maps with a `kh`x`kw` window and equal size on both sides, or of every second
    /// pixel where it fits (`halved`).
    fn conv(
        &mut self,
        name: &str,
        i: usize,
        o: usize,
        (kh, kw): (usize, usize),
        how: How,
    ) -> crate::Result<Conv> {
        let name = format!("{}{name}", self.prefix);
        let (stride, padding) = match how {
            How::Same => (1, (kh / 2, kw / 2)),
            How::Valid => (1, (0, 0)),
            How::Halved => (2, (0, 0)),
        };
        let geometry = Geometry { stride, padding, depthwise: false };
        Conv::normalised(
            self.weights,
            (&format!("{name}.conv"), &format!("{name}.bn")),
            [o, i, kh, kw],
            EPSILON,
            (geometry, Activation::Relu),
            self.device,
        )
    }

    fn same(
        &mut self,
        name: &str,
        i: usize,
        o: usize,
        window: (usize, usize),
    ) -> crate::Result<Conv> {
        self.conv(name, i, o, window, How::Same)
    }
}

#[derive(Clone, Copy)]
enum How {
    Same,
    Valid,
    Halved,
}

impl Inception {
    /// The network of these weights; each tensor must be there, and none besides.
    pub fn new(mut weights: Weights, flavour: Flavour, device: &Device) -> crate::Result<Self> {
        let hash = weights.provenance().blake3.clone();
        let classes = match flavour {
            Flavour::Fid2015 => 1008,
            Flavour::Torchvision => 1000,
        };
        let all = &mut Part { weights: &mut weights, device, prefix: "" };
        let stem = vec![
            all.conv("Conv2d_1a_3x3", 3, 32, (3, 3), How::Halved)?,
            all.conv("Conv2d_2a_3x3", 32, 32, (3, 3), How::Valid)?,
            all.same("Conv2d_2b_3x3", 32, 64, (3, 3))?,
            all.conv("Conv2d_3b_1x1", 64, 80, (1, 1), How::Valid)?,
            all.conv("Conv2d_4a_3x3", 80, 192, (3, 3), How::Valid)?,
        ];
        let blocks = vec![
            Block::a(&mut all.at("Mixed_5b."), 192, 32)?,
            Block::a(&mut all.at("Mixed_5c."), 256, 64)?,
            Block::a(&mut all.at("Mixed_5d."), 288, 64)?,
            Block::b(&mut all.at("Mixed_6a."))?,
            Block::c(&mut all.at("Mixed_6b."), 128)?,
            Block::c(&mut all.at("Mixed_6c."), 160)?,
            Block::c(&mut all.at("Mixed_6d."), 160)?,
            Block::c(&mut all.at("Mixed_6e."), 192)?,
            Block::d(&mut all.at("Mixed_7a."))?,
            Block::e(&mut all.at("Mixed_7b."), 1280, false)?,
            Block::e(&mut all.at("Mixed_7c."), FEATURES, flavour == Flavour::Fid2015)?,
        ];
        let logits = Conv::dense(&mut weights, "fc", [classes, FEATURES], device)?;
        // The inception score leaves it out.
        weights.take("fc.bias", &[classes])?;
        if flavour == Flavour::Torchvision {
            weights.leave_out("AuxLogits.");
        }
        weights.finish()?;
        Ok(Self { flavour, stem, blocks, logits, weights: hash, device: device.clone() })
    }
}

impl Block {
    fn a(part: &mut Part<'_>, i: usize, pooled: usize) -> crate::Result<Self> {
        Ok(Self::A {
            one: part.same("branch1x1", i, 64, (1, 1))?,
            five: [
                part.same("branch5x5_1", i, 48, (1, 1))?,
                part.same("branch5x5_2", 48, 64, (5, 5))?,
            ],
            three: [
                part.same("branch3x3dbl_1", i, 64, (1, 1))?,
                part.same("branch3x3dbl_2", 64, 96, (3, 3))?,
                part.same("branch3x3dbl_3", 96, 96, (3, 3))?,
            ],
            pool: part.same("branch_pool", i, pooled, (1, 1))?,
        })
    }

    fn b(part: &mut Part<'_>) -> crate::Result<Self> {
        Ok(Self::B {
            three: part.conv("branch3x3", 288, 384, (3, 3), How::Halved)?,
            double: [
                part.same("branch3x3dbl_1", 288, 64, (1, 1))?,
                part.same("branch3x3dbl_2", 64, 96, (3, 3))?,
                part.conv("branch3x3dbl_3", 96, 96, (3, 3), How::Halved)?,
            ],
        })
    }

    fn c(part: &mut Part<'_>, maps: usize) -> crate::Result<Self> {
        let (i, o) = (768, 192);
        Ok(Self::C {
            one: part.same("branch1x1", i, o, (1, 1))?,
            seven: [
                part.same("branch7x7_1", i, maps, (1, 1))?,
                part.same("branch7x7_2", maps, maps, (1, 7))?,
                part.same("branch7x7_3", maps, o, (7, 1))?,
            ],
            double: [
                part.same("branch7x7dbl_1", i, maps, (1, 1))?,
                part.same("branch7x7dbl_2", maps, maps, (7, 1))?,
                part.same("branch7x7dbl_3", maps, maps, (1, 7))?,
                part.same("branch7x7dbl_4", maps, maps, (7, 1))?,
                part.same("branch7x7dbl_5", maps, o, (1, 7))?,
            ],
            pool: part.same("branch_pool", i, o, (1, 1))?,
        })
    }

    fn d(part: &mut Part<'_>) -> crate::Result<Self> {
        Ok(Self::D {
            three: [
                part.same("branch3x3_1", 768, 192, (1, 1))?,
                part.conv("branch3x3_2", 192, 320, (3, 3), How::Halved)?,
            ],
            seven: [
                part.same("branch7x7x3_1", 768, 192, (1, 1))?,
                part.same("branch7x7x3_2", 192, 192, (1, 7))?,
                part.same("branch7x7x3_3", 192, 192, (7, 1))?,
                part.conv("branch7x7x3_4", 192, 192, (3, 3), How::Halved)?,
            ],
        })
    }

    fn e(part: &mut Part<'_>, i: usize, largest: bool) -> crate::Result<Self> {
        Ok(Self::E {
            one: part.same("branch1x1", i, 320, (1, 1))?,
            three: part.same("branch3x3_1", i, 384, (1, 1))?,
            wide: part.same("branch3x3_2a", 384, 384, (1, 3))?,
            high: part.same("branch3x3_2b", 384, 384, (3, 1))?,
            double: [
                part.same("branch3x3dbl_1", i, 448, (1, 1))?,
                part.same("branch3x3dbl_2", 448, 384, (3, 3))?,
            ],
            wide2: part.same("branch3x3dbl_3a", 384, 384, (1, 3))?,
            high2: part.same("branch3x3dbl_3b", 384, 384, (3, 1))?,
            pool: part.same("branch_pool", i, 192, (1, 1))?,
            largest,
        })
    }

    /// All branches side by side.
    fn forward(&self, x: &Tensor, padded: bool) -> Result<Tensor> {
        let branches = match self {
            Self::A { one, five, three, pool } => vec![
                one.forward(x)?,
                chain(five, x)?,
                chain(three, x)?,
                pool.forward(&mean3x3(x, padded)?)?,
            ],
            Self::B { three, double } => {
                vec![three.forward(x)?, chain(double, x)?, max3x3_halved(x)?]
            }
            Self::C { one, seven, double, pool } => vec![
                one.forward(x)?,
                chain(seven, x)?,
                chain(double, x)?,
                pool.forward(&mean3x3(x, padded)?)?,
            ],
            Self::D { three, seven } => vec![chain(three, x)?, chain(seven, x)?, max3x3_halved(x)?],
            Self::E { one, three, wide, high, double, wide2, high2, pool, largest } => {
                let (three, double) = (three.forward(x)?, chain(double, x)?);
                let pooled = if *largest { max3x3(x)? } else { mean3x3(x, padded)? };
                vec![
                    one.forward(x)?,
                    wide.forward(&three)?,
                    high.forward(&three)?,
                    wide2.forward(&double)?,
                    high2.forward(&double)?,
                    pool.forward(&pooled)?,
                ]
            }
        };
        Tensor::cat(&branches, 1)
    }
}

fn chain(convs: &[Conv], x: &Tensor) -> Result<Tensor> {
    convs.iter().try_fold(x.clone(), |x, conv| conv.forward(&x))
}

impl FeatureNetwork for Inception {
    fn side(&self) -> usize {
        299
    }

    fn features(&self) -> usize {
        FEATURES
    }

    fn classes(&self) -> usize {
        match self.flavour {
            Flavour::Fid2015 => 1008,
            Flavour::Torchvision => 1000,
        }
    }

    fn weights(&self) -> &str {
        &self.weights
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = match self.flavour {
            Flavour::Fid2015 => images.affine(1.0 / 128.0, -1.0)?,
            Flavour::Torchvision => images.affine(1.0 / 127.5, -1.0)?,
        };
        let [a, b, c, d, e] = &self.stem[..] else { unreachable!("made with five") };
        let x = max3x3_halved(&c.forward(&b.forward(&a.forward(&x)?)?)?)?; // [N, 64, 73, 73]
        let mut x = max3x3_halved(&e.forward(&d.forward(&x)?)?)?; // [N, 192, 35, 35]
        for block in &self.blocks {
            x = block.forward(&x, self.flavour == Flavour::Torchvision)?;
        }
        let pooled = x.mean_keepdim(3)?.mean_keepdim(2)?; // [N, 2048, 1, 1]
        let logits = self.logits.forward(&pooled)?;
        Ok((pooled.flatten_from(1)?, logits.flatten_from(1)?))
    }
}
