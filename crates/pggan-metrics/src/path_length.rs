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

    /// Twice the first pixels of the red plane.
    struct FirstPixels(usize);

    impl FeatureNetwork for FirstPixels {
        fn side(&self) -> usize {
            16
        }
        fn features(&self) -> usize {
            self.0
        }
        fn classes(&self) -> usize {
            1
        }
        fn weights(&self) -> &'static str {
            "none"
        }
        fn device(&self) -> &Device {
            &Device::Cpu
        }
        fn forward(&self, images: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
            let features = (images.flatten_from(1)?.narrow(1, 0, self.0)? * 2.0)?;
            Ok((features.clone(), features))
        }
    }

    /// A generator that is linear along its paths: pixel j grows by `slopes[j]` from their beginnings to their ends.
    struct Linear<'a>(&'a [f32]);

    impl Paths for Linear<'_> {
        fn shape(&self) -> ImageShape {
            ImageShape::new(3, 16).unwrap()
        }
        fn steps(&self, count: usize) -> Box<dyn Iterator<Item = Result<Ends, SourceError>> + '_> {
            let image = |t: f64| {
                let mut image = vec![0.0; self.shape().bytes()];
                for (pixel, &slope) in image.iter_mut().zip(self.0) {
                    *pixel = (f64::from(slope) * t) as f32;
                }
                image
            };
            // Three steps at a time.
            let places = (0..count).map(move |i| i as f64 / count as f64).collect::<Vec<_>>();
            let ends = |places: &[f64]| {
                let all = |step: f64| places.iter().flat_map(|t| image(t + step)).collect();
                Ok((all(0.0), all(STEP)))
            };
            Box::new(places.chunks(3).map(ends).collect::<Vec<_>>().into_iter())
        }
    }

    #[test]
    fn a_linear_generators_path_is_as_long_as_its_features_move() {
        let slopes = [10.0, -20.0, 0.0, 5.0];
        let network = FirstPixels(slopes.len());
        let found = path_length(&network, Resize::Tf, &Linear(&slopes), 100).unwrap();
        let expected: f64 = slopes.iter().map(|&slope| f64::from(2.0 * slope).powi(2)).sum();
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
        // A generator that does not move.
        assert_eq!(path_length(&network, Resize::Tf, &Linear(&[0.0; 4]), 7).unwrap(), 0.0);
    }

    #[test]
    fn extremes_are_left_out() {
        let values = (0..200).map(f64::from).map(|v| if v < 198.0 { v } else { 1e9 }).collect();
        assert_eq!(trimmed_mean(values), (2..198).map(f64::from).sum::<f64>() / 196.0);
        assert_eq!(trimmed_mean(vec![4.0]), 4.0);
    }
}
