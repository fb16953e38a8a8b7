//! Every random number of a run, as a pure function of what it is for.
//!
//! A stream is keyed by (seed, purpose, images shown, index of the sample), so nothing has to be remembered for
//! a run to be resumed, and a sample's draws do not depend on the batch that it is in.

use candle_core::{DType, Device, Tensor};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal, StandardUniform};
use rayon::prelude::*;

/// The random numbers of one purpose at one moment.
pub fn stream(seed: u64, purpose: &str, images_shown: u64, index: u64) -> ChaCha8Rng {
    let mut key = blake3::Hasher::new_derive_key("pggan-train 2025 random stream");
    for number in [seed, images_shown, index] {
        key.update(&number.to_le_bytes());
    }
    key.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(*key.finalize().as_bytes())
}

/// Fills `values` from N(0, 1).
pub fn normal(mut stream: ChaCha8Rng, values: &mut [f32]) {
    for value in values {
        *value = StandardNormal.sample(&mut stream);
    }
}

/// Latent vectors for `count` samples.
///
/// # Shapes
/// Returns `[count, size]`, each component from N(0, 1).
///
/// # Errors
/// If the device is out of memory.
pub fn latents(
    seed: u64,
    purpose: &str,
    images_shown: u64,
    count: usize,
    size: usize,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let mut values = vec![0f32; count * size];
    for (i, values) in values.chunks_exact_mut(size).enumerate() {
        normal(stream(seed, purpose, images_shown, i as u64), values);
    }
    Tensor::from_vec(values, (count, size), device)
}

/// Mixing factors of real and generated images.
///
/// # Shapes
/// Returns `[count, 1, 1, 1]`, each from U[0, 1).
///
/// # Errors
/// If the device is out of memory.
pub fn mixing(
    seed: u64,
    images_shown: u64,
    count: usize,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let draw = |i| StandardUniform.sample(&mut stream(seed, "mixing", images_shown, i));
    let values: Vec<f32> = (0..count as u64).map(draw).collect();
    Tensor::from_vec(values, (count, 1, 1, 1), device)?.to_dtype(DType::F32)
}

/// Images of the data set by chance, `count` of `images`.
pub fn choice(
    seed: u64,
    purpose: &str,
    images_shown: u64,
    count: usize,
    images: u64,
) -> impl Iterator<Item = u64> {
    (0..count as u64).map(move |i| stream(seed, purpose, images_shown, i).random_range(0..images))
}

/// Undoes the rounding of pixels: adds U[-0.5, 0.5) steps of 1/255 of the range to each value of real images.
///
/// # Shapes
/// `images`: `[N, R, R, C]` in [-1, 1], `size` values each.
pub fn dequantize(seed: u64, images_shown: u64, size: usize, images: &mut [f32]) {
    images.par_chunks_mut(size).enumerate().for_each(|(i, image)| {
        let mut stream = stream(seed, "dequantization", images_shown, i as u64);
        for value in image {
            let noise: f32 = StandardUniform.sample(&mut stream);
            *value += (noise - 0.5) * (2.0 / 255.0);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, purpose: &str, images: u64, index: u64) -> [f32; 2] {
        let mut values = [0.0; 2];
        normal(stream(seed, purpose, images, index), &mut values);
        values
    }

    /// Files of runs depend on these: they must never change.
    #[test]
    fn streams_are_stable() {
        assert_eq!(first(0, "latents", 0, 0), [0.990_010_44, 0.930_248_14]);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = first(1, "a", 2, 3);
        for other in
            [first(2, "a", 2, 3), first(1, "b", 2, 3), first(1, "a", 3, 3), first(1, "a", 2, 4)]
        {
            assert_ne!(base, other);
        }
        assert_eq!(base, first(1, "a", 2, 3));
    }

    #[test]
    fn samples_do_not_depend_on_their_batch() {
        let rows = |n| latents(7, "x", 0, n, 4, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows(2)[..], rows(5)[..2]);
    }

    #[test]
    fn dequantized_pixels_stay_within_half_a_step() {
        let mut images = vec![0.25f32; 20_000];
        dequantize(7, 0, 5000, &mut images);
        let steps: Vec<f32> = images.iter().map(|x| (x - 0.25) * 127.5).collect();
        assert!(steps.iter().all(|step| step.abs() <= 0.5001));
        let mean = steps.iter().sum::<f32>() / 20_000.0;
        let square = steps.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.01 && (square - 1.0 / 12.0).abs() < 0.002, "{mean} {square}");
        // Of each sample by itself, and of none other.
        assert_ne!(images[..5000], images[5000..10_000]);
        let mut first = vec![0.25f32; 5000];
        dequantize(7, 0, 5000, &mut first);
        assert_eq!(first, images[..5000]);
    }

    #[test]
    fn normals_are_normal() {
        let mut values = vec![0f32; 100_000];
        normal(stream(3, "moments", 0, 0), &mut values);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let variance = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
