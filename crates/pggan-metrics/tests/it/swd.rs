//! Sliced Wasserstein distance.

use pggan_metrics::descriptors::Descriptors;
use pggan_metrics::laplacian::LaplacianPyramid;
use pggan_metrics::swd::{Directions, Options, Score, distance, sliced_wasserstein};
use pggan_metrics::{ImageShape, Pixels};

use crate::golden::{Tensors, images, number, numbers, values};

const LEVELS: [(&str, usize); 3] = [("level0", 64), ("level1", 32), ("level2", 16)];

fn shape(resolution: usize) -> ImageShape {
    ImageShape::new(3, resolution).unwrap()
}

/// The largest difference, relative to the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let difference = found.iter().zip(expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    f64::from(difference / largest)
}

#[test]
fn pyramid_is_the_original() {
    let tensors = Tensors::read();
    let pixels = tensors.u8("img_a");
    let mut pyramid = LaplacianPyramid::new(shape(64)).unwrap();
    for (image, pixels) in pixels.chunks(shape(64).bytes()).take(2).enumerate() {
        pyramid.build(pixels).unwrap();
        for ((level, resolution), (size, values)) in LEVELS.into_iter().zip(pyramid.levels()) {
            assert_eq!(size, resolution);
            let (_, expected) = tensors.f32(&format!("swd/pyr_a/{level}"));
            let error = difference(values, &expected[image * values.len()..][..values.len()]);
            assert!(error < 1e-6, "{level}: {error}");
        }
    }
}

/// The descriptors of a golden set at each level, cut at the golden positions.
fn descriptors(tensors: &Tensors, set: &str) -> Vec<Descriptors> {
    let pixels = tensors.u8(&format!("img_{set}"));
    let mut pyramid = LaplacianPyramid::new(shape(64)).unwrap();
    let images = pixels.len() / shape(64).bytes();
    let mut levels = vec![Descriptors::new(images, 3, 4); LEVELS.len()];
    for (image, pixels) in pixels.chunks(shape(64).bytes()).enumerate() {
        pyramid.build(pixels).unwrap();
        for (((level, _), (size, values)), descriptors) in
            LEVELS.iter().zip(pyramid.levels()).zip(&mut levels)
        {
            let positions = tensors.indices(&format!("swd/pos_{set}/{level}"));
            let centres: Vec<_> =
                positions.chunks(2).map(|at| (at[0], at[1])).skip(image * 4).take(4).collect();
            descriptors.push(values, size, &centres).unwrap();
        }
    }
    levels
}

#[test]
fn descriptors_are_the_original() {
    let tensors = Tensors::read();
    for set in ["a", "b"] {
        for ((level, _), descriptors) in LEVELS.into_iter().zip(descriptors(&tensors, set)) {
            let (shape, expected) = tensors.f32(&format!("swd/desc_{set}/{level}"));
            assert_eq!([descriptors.len(), descriptors.dims()], shape[..]);
            let error = difference(&descriptors.normalised().unwrap(), &expected);
            assert!(error < 2e-6, "{set} {level}: {error}");
        }
    }
}

#[test]
fn distance_along_given_directions_is_the_original() {
    let (tensors, values) = (Tensors::read(), values());
    let sets = descriptors(&tensors, "a").into_iter().zip(descriptors(&tensors, "b"));
    for ((level, resolution), (a, b)) in LEVELS.into_iter().zip(sets) {
        let (shape, rows) = tensors.f32(&format!("swd/dirs/{level}"));
        let columns =
            (0..shape[1]).flat_map(|j| rows.iter().skip(j).step_by(shape[1]).copied()).collect();
        let directions = Directions::from_columns(columns).unwrap();
        let found = distance(&a, &b, &directions, resolution).unwrap();
        let expected = number(&values[format!("swd_{level}")]["value_f64"]);
        assert!((found / expected - 1.0).abs() < 1e-6, "{level}: {found} {expected}");
    }
}

fn measure(resolution: usize, count: u64, options: &Options) -> Score {
    let (reals, fakes) =
        (images(11, 0..count, resolution as u64, 1), images(12, 0..count, resolution as u64, 3));
    let reals = Pixels::new(shape(resolution), &reals).unwrap();
    sliced_wasserstein(&reals, &Pixels::new(shape(resolution), &fakes).unwrap(), options).unwrap()
}

/// The whole metric draws its own positions and directions: it must land where the original's draws do.
#[test]
fn whole_metric_lands_where_the_original_does() {
    for resolution in [32, 64] {
        let golden = &values()["swd_statistical"][format!("{resolution}px_N512")];
        let score = measure(resolution, 512, &Options::default());
        let found = score.levels.iter().map(|level| level.distance).chain([score.average]);
        for ((found, mean), std) in found.zip(numbers(&golden["mean"])).zip(numbers(&golden["std"]))
        {
            assert!(
                (found - mean).abs() < 4.0 * std,
                "{resolution}: {found}, expected {mean} +- {std}"
            );
        }
    }
}

#[test]
fn result_depends_on_the_seed_alone() {
    let options = |memory| Options { seed: 7, memory };
    let score = measure(64, 48, &options(3_000_000_000));
    assert_ne!(score, measure(64, 48, &Options { seed: 8, ..options(3_000_000_000) }));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(
            pool.install(|| measure(64, 48, &options(3_000_000_000))),
            score,
            "{threads} threads"
        );
    }
    // Too little memory for more than one level at a time.
    assert_eq!(measure(64, 48, &options(0)), score);
}

#[test]
fn grey_is_three_equal_channels() {
    let (grey, other) = (images(3, 0..8, 32, 1), images(4, 0..8, 32, 2));
    let tiled =
        |set: &[u8]| set.chunks(32 * 32).flat_map(|plane| plane.repeat(3)).collect::<Vec<u8>>();
    let one = ImageShape::new(1, 32).unwrap();
    let sets = (Pixels::new(one, &grey).unwrap(), Pixels::new(one, &other).unwrap());
    let (tiled_a, tiled_b) = (tiled(&grey), tiled(&other));
    let tiled =
        (Pixels::new(shape(32), &tiled_a).unwrap(), Pixels::new(shape(32), &tiled_b).unwrap());
    let found = sliced_wasserstein(&sets.0, &sets.1, &Options::default()).unwrap();
    let expected = sliced_wasserstein(&tiled.0, &tiled.1, &Options::default()).unwrap();
    for (found, expected) in found.levels.iter().zip(&expected.levels) {
        assert!((found.distance / expected.distance - 1.0).abs() < 1e-5, "{found:?} {expected:?}");
    }
}

/// Worse images score worse.
#[test]
fn distance_grows_with_what_is_wrong() {
    let reals = images(11, 0..64, 32, 1);
    let score = |noise| {
        let fakes = images(11, 64..128, 32, noise);
        let (a, b) =
            (Pixels::new(shape(32), &reals).unwrap(), Pixels::new(shape(32), &fakes).unwrap());
        sliced_wasserstein(&a, &b, &Options::default()).unwrap().levels[0].distance
    };
    let scores: Vec<f64> = [1, 3, 5, 7].map(score).to_vec();
    assert!(scores.is_sorted(), "{scores:?}");
}
