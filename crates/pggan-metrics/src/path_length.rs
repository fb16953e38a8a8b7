//! Perceptual path length (Karras et al. 2019): how far images move, in a network's features, while the latent vector
//! moves a little. Smooth generators score low.
//!
//! The original takes distances in VGG16 with learned weights (LPIPS). Here they are squared Euclidean distances of
//! pooled features, so that numbers compare among themselves alone.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::network::{FeatureNetwork, Resize, resize};
use crate::{Error, ImageShape, Result, SourceError};

/// The length of a step, as a part of the way between two latent vectors.
pub const STEP: f64 = 1e-3;

/// Images at both ends of short steps through a generator's latent space.
pub trait Paths {
    /// Shape of each image.
    fn shape(&self) -> ImageShape;

    /// `count` steps, some at a time: images before and after, f32 `[N, C, H, W]` in [0, 255], not rounded.
    fn steps(&self, count: usize) -> Box<dyn Iterator<Item = Result<Ends, SourceError>> + '_>;
}

/// Images before and after some steps.
pub type Ends = (Vec<f32>, Vec<f32>);

/// The mean over steps of the squared distance of features, divided by the step's square; the lowest and the highest
/// hundredth are left out, as in the original.
pub fn path_length(
    network: &dyn FeatureNetwork,
    resizing: Resize,
    paths: &dyn Paths,
    count: usize,
) -> Result<f64> {
    let shape = paths.shape();
    let features = |image: &[f32]| -> Result<Vec<f32>> {
        let side = network.side();
        let mut resized = Vec::with_capacity(3 * side * side);
        resize(image, shape, side, resizing, &mut resized)?;
        let image = Tensor::from_vec(resized, (1, 3, side, side), network.device())?;
        let (features, _) = network.forward(&image)?;
        Ok(features.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    };
    let mut distances = Vec::with_capacity(count);
    for ends in paths.steps(count) {
        let (before, after) = ends.map_err(Error::Source)?;
        let pairs = before.par_chunks(shape.bytes()).zip(after.par_chunks(shape.bytes()));
        let found: Vec<f64> = pairs
            .map(|(before, after)| {
                let (before, after) = (features(before)?, features(after)?);
                let squares = before.iter().zip(&after).map(|(a, b)| f64::from(a - b).powi(2));
                Ok(squares.sum::<f64>() / (STEP * STEP))
            })
            .collect::<Result<_>>()?;
        distances.extend(found);
    }
    if distances.len() != count {
        return Err(Error::Count { promised: count, given: distances.len() });
    }
    Ok(trimmed_mean(distances))
}

fn trimmed_mean(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 100;
    let kept = &values[cut..values.len() - cut];
    kept.iter().sum::<f64>() / kept.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_left_out() {
        let values = (0..200).map(f64::from).map(|v| if v < 198.0 { v } else { 1e9 }).collect();
        assert_eq!(trimmed_mean(values), (2..198).map(f64::from).sum::<f64>() / 196.0);
        assert_eq!(trimmed_mean(vec![4.0]), 4.0);
    }
}
