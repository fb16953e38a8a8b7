//! Multi-scale structural similarity.

use pggan_metrics::ms_ssim::{compare, ms_ssim};
use pggan_metrics::{ImageShape, Pixels};

use crate::golden::{images, number, numbers, values};

/// Between two images, `k` eighths of the second.
fn blend(a: &[u8], b: &[u8], k: u32) -> Vec<u8> {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| ((u32::from(a) * (8 - k) + u32::from(b) * k) / 8) as u8)
        .collect()
}

#[test]
fn pairs_are_the_original() {
    let at = |seed, n, size, noise| images(seed, n..n + 1, size, noise);
    let (a, b, large) = (|n| at(11, n, 64, 1), |n| at(12, n, 64, 3), |n| at(13, n, 128, 1));
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..4).map(|i| (a(2 * i), a(2 * i + 1))).collect();
    pairs.extend([0, 1, 2, 4].map(|k| (a(0), blend(&a(0), &a(1), k))));
    pairs.push((a(2), b(2)));
    pairs.push((large(0), blend(&large(0), &large(1), 1)));
    pairs.push((large(2), blend(&large(2), &large(3), 3)));

    let golden = values();
    let golden = golden["ms_ssim_pairs"].as_array().unwrap();
    assert_eq!(golden.len(), pairs.len());
    for (expected, (a, b)) in golden.iter().zip(&pairs) {
        let shape = ImageShape::new(3, (a.len() / 3).isqrt()).unwrap();
        let found = compare(shape, a, b).unwrap();
        // The original works in f32 by FFT: its terms are up to 2e-6 away from those in f64.
        let check = |what: &str, found: f64, expected: f64| {
            assert!(
                (found - expected).abs() < 3e-6,
                "{what} of {shape} images: {found} {expected}"
            );
        };
        check("score", found.score(), number(&expected["ms_ssim"]));
        for (scale, terms) in expected["per_scale_ssim_cs"].as_array().unwrap().iter().enumerate() {
            let terms = numbers(terms);
            check("similarity", found.ssim[scale], terms[0]);
            check("contrast", found.contrast[scale], terms[1]);
        }
    }
}

#[test]
fn means_over_pairs_are_the_original() {
    let shape = ImageShape::new(3, 64).unwrap();
    for (count, name) in
        [(16, "ms_ssim_api_img_a"), (256, "ms_ssim_api_images(seed,0..256,64px,noise1)")]
    {
        let pixels = images(11, 0..count, 64, 1);
        let found = ms_ssim(&Pixels::new(shape, &pixels).unwrap()).unwrap();
        let expected = number(&values()[name]);
        assert!((found - expected).abs() < 1e-6, "{name}: {found} {expected}");
    }
}
