//! Kernel distance of features (Bińkowski et al. 2018), the squared maximum mean discrepancy under the kernel
//! `(x . y / D + 1)³`. With pool3 features of the 2015 Inception network it is the KID.

use rand::seq::index;
use rayon::prelude::*;

use crate::features::inner_products;
use crate::random::{Purpose, stream};
use crate::{Error, Features, Result};

/// Both estimates of one distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelDistance {
    /// Without the products of images with themselves: its mean does not depend on the number of images,
    /// and it may be negative. This is what KID means.
    pub unbiased: f64,
    /// With them; never negative.
    pub biased: f64,
}

/// Mean and spread over subsets.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetDistance {
    /// Mean of the subsets' unbiased distances: the KID.
    pub mean: f64,
    /// Their standard deviation, divided by their number.
    pub std: f64,
    /// Unbiased distance of each.
    pub subsets: Vec<f64>,
}

/// The distance of two sets, two images at least in each; all pairs of images are looked at.
pub fn kernel_distance(first: Features<'_>, second: Features<'_>) -> Result<KernelDistance> {
    first.same_dim(second)?;
    first.at_least("kernel distance", 2)?;
    second.at_least("kernel distance", 2)?;
    let (n, m) = (first.rows() as f64, second.rows() as f64);
    let (xx, yy) = (kernel_sums(first, first), kernel_sums(second, second));
    let xy = kernel_sums(first, second).all / (n * m);
    Ok(KernelDistance {
        unbiased: (xx.all - xx.diagonal) / (n * (n - 1.0))
            + (yy.all - yy.diagonal) / (m * (m - 1.0))
            - 2.0 * xy,
        biased: xx.all / (n * n) + yy.all / (m * m) - 2.0 * xy,
    })
}

/// The mean over `subsets` subsets of `size` images, drawn from each set without repetition.
/// Usual are 100 subsets of 1000 images.
pub fn kernel_distance_of_subsets(
    first: Features<'_>,
    second: Features<'_>,
    subsets: usize,
    size: usize,
    seed: u64,
) -> Result<SubsetDistance> {
    first.at_least("kernel distance", size)?;
    second.at_least("kernel distance", size)?;
    let draw = |subset: usize| {
        let mut rng = stream(seed, Purpose::Subsets, subset as u64);
        let mut draw = |rows| index::sample(&mut rng, rows, size).into_vec();
        (draw(first.rows()), draw(second.rows()))
    };
    kernel_distance_of_blocks(first, second, &(0..subsets).map(draw).collect::<Vec<_>>())
}

/// The mean over given subsets: the rows of the first set and of the second for each.
pub fn kernel_distance_of_blocks(
    first: Features<'_>,
    second: Features<'_>,
    blocks: &[(Vec<usize>, Vec<usize>)],
) -> Result<SubsetDistance> {
    if blocks.is_empty() {
        return Err(Error::Mismatch { what: "subsets", expected: 1, found: 0 });
    }
    first.same_dim(second)?;
    let distance = |(of_first, of_second): &(Vec<usize>, Vec<usize>)| {
        let (x, y) = (first.select(of_first)?, second.select(of_second)?);
        let distance =
            kernel_distance(Features::new(&x, first.dim())?, Features::new(&y, second.dim())?)?;
        Ok(distance.unbiased)
    };
    let subsets: Vec<f64> = blocks.par_iter().map(distance).collect::<Result<_>>()?;
    let count = subsets.len() as f64;
    let mean = subsets.iter().sum::<f64>() / count;
    let variance = subsets.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / count;
    Ok(SubsetDistance { mean, std: variance.sqrt(), subsets })
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    all: f64,
    /// Of rows with those of the same number.
    diagonal: f64,
}

fn kernel_sums(x: Features<'_>, y: Features<'_>) -> Sums {
    let per_dim = 1.0 / x.dim() as f64;
    let start = |rows: std::ops::Range<usize>| (rows, Sums::default());
    let tiles = inner_products(x, y, start, |(rows, sums), tile| {
        for (column, products) in tile.y.clone().zip(tile.products.col_iter()) {
            for (row, product) in rows.clone().zip(products.iter()) {
                let base = product * per_dim + 1.0;
                let kernel = base * base * base;
                sums.all += kernel;
                if row == column {
                    sums.diagonal += kernel;
                }
            }
        }
    });
    tiles.into_iter().fold(Sums::default(), |total, (_, sums)| Sums {
        all: total.all + sums.all,
        diagonal: total.diagonal + sums.diagonal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seed: usize, count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim)
            .map(|i| ((i + seed * 977) as f64 * 0.754_877_666).fract() as f32 - 0.3)
            .collect()
    }

    #[test]
    fn sums_are_the_definition() {
        let dim = 5;
        let (x, y) = (rows(1, 230, dim), rows(2, 199, dim));
        let kernel = |a: &[f32], b: &[f32]| {
            let product: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            (product / dim as f64 + 1.0).powi(3)
        };
        let mean = |a: &[f32], b: &[f32], own: bool| {
            let pairs = a
                .chunks(dim)
                .enumerate()
                .flat_map(|a| b.chunks(dim).enumerate().map(move |b| (a, b)));
            let kernels =
                pairs.filter(|((i, _), (j, _))| own || i != j).map(|((_, a), (_, b))| kernel(a, b));
            kernels.clone().sum::<f64>() / kernels.count() as f64
        };
        let cross = mean(&x, &y, true);
        let found =
            kernel_distance(Features::new(&x, dim).unwrap(), Features::new(&y, dim).unwrap())
                .unwrap();
        assert!(
            (found.biased - (mean(&x, &x, true) + mean(&y, &y, true) - 2.0 * cross)).abs() < 1e-12
        );
        assert!(
            (found.unbiased - (mean(&x, &x, false) + mean(&y, &y, false) - 2.0 * cross)).abs()
                < 1e-12
        );
    }

    #[test]
    fn subsets_are_drawn_by_seed() {
        let (x, y) = (rows(1, 60, 4), rows(2, 50, 4));
        let (x, y) = (Features::new(&x, 4).unwrap(), Features::new(&y, 4).unwrap());
        let draw = |seed| kernel_distance_of_subsets(x, y, 6, 20, seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let subsets = draw(1).subsets;
        assert!(subsets.windows(2).all(|pair| pair[0] != pair[1]));
        // The subset of everything is everything.
        let all = kernel_distance_of_subsets(x, x, 1, 60, 3).unwrap();
        assert!((all.mean - kernel_distance(x, x).unwrap().unbiased).abs() < 1e-12);
    }

    #[test]
    fn wrong_input_is_named() {
        let x = Features::new(&[1.0, 2.0, 3.0, 4.0], 2).unwrap();
        let one = Features::new(&[1.0, 2.0], 2).unwrap();
        assert!(matches!(kernel_distance(x, one), Err(Error::TooFew { minimum: 2, found: 1, .. })));
        let other = Features::new(&[1.0, 2.0, 3.0], 3).unwrap();
        assert!(matches!(kernel_distance(x, other), Err(Error::Mismatch { .. })));
        assert!(matches!(
            kernel_distance_of_subsets(x, x, 1, 3, 0),
            Err(Error::TooFew { minimum: 3, .. })
        ));
        assert!(kernel_distance_of_blocks(x, x, &[]).is_err());
        assert!(matches!(
            kernel_distance_of_blocks(x, x, &[(vec![0, 2], vec![0, 1])]),
            Err(Error::Row { row: 2, .. })
        ));
    }
}
