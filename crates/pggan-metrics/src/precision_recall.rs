//! How much of each of two sets lies on the other's manifold of features: precision and recall (Kynkäänniemi et al.
//! 2019), density and coverage (Naeem et al. 2020).
//!
//! A set's manifold is the union of balls around its images, each as large as the distance to its k-th neighbour.

use std::ops::Range;

use crate::features::inner_products;
use crate::{Error, Features, Result};

/// Shares of images, 1 is best (density may exceed it).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of the generated images inside of a real image's ball: do they look real?
    pub precision: f64,
    /// Share of the real images inside of a generated image's ball: is all that is real generated?
    pub recall: f64,
    /// Mean number of real balls that a generated image lies in, divided by k: precision that outliers disturb less.
    pub density: f64,
    /// Share of real balls with a generated image inside: recall that outliers disturb less.
    pub coverage: f64,
}

/// Compares generated images with real ones; k = 3 is usual for precision and recall, 5 for density and coverage.
/// Each set needs k + 1 images at least.
pub fn precision_recall(
    reals: Features<'_>,
    fakes: Features<'_>,
    k: usize,
) -> Result<PrecisionRecall> {
    if k == 0 {
        return Err(Error::Mismatch { what: "neighbours", expected: 1, found: 0 });
    }
    reals.same_dim(fakes)?;
    reals.at_least("precision and recall", k + 1)?;
    fakes.at_least("precision and recall", k + 1)?;
    let (real_squares, fake_squares) = (squares(reals), squares(fakes));
    let real_radii = radii(reals, &real_squares, k);
    let fake_radii = radii(fakes, &fake_squares, k);

    let tasks = inner_products(
        reals,
        fakes,
        |rows| Met::new(rows, fakes.rows()),
        |met, tile| {
            for (fake, products) in tile.y.clone().zip(tile.products.col_iter()) {
                for ((i, real), product) in met.rows.clone().enumerate().zip(products.iter()) {
                    let distance =
                        squared_distance(real_squares[real], fake_squares[fake], *product);
                    // As the authors have it: the boundary belongs to the ball in the first pair of measures only.
                    met.real_balls_closed[fake] |= distance <= real_radii[real];
                    met.real_balls_open[fake] += u32::from(distance < real_radii[real]);
                    met.recalled[i] |= distance <= fake_radii[fake];
                    met.covered[i] |= distance < real_radii[real];
                }
            }
        },
    );

    let count = |flags: &[bool]| flags.iter().filter(|&&flag| flag).count();
    let mut precise = vec![false; fakes.rows()];
    let (mut balls, mut recalled, mut covered) = (0_u64, 0, 0);
    for met in &tasks {
        precise
            .iter_mut()
            .zip(&met.real_balls_closed)
            .for_each(|(precise, inside)| *precise |= inside);
        balls += met.real_balls_open.iter().map(|&balls| u64::from(balls)).sum::<u64>();
        recalled += count(&met.recalled);
        covered += count(&met.covered);
    }
    let (reals, fakes) = (reals.rows() as f64, fakes.rows() as f64);
    Ok(PrecisionRecall {
        precision: count(&precise) as f64 / fakes,
        recall: recalled as f64 / reals,
        density: balls as f64 / (k as f64 * fakes),
        coverage: covered as f64 / reals,
    })
}

/// What some real images found among all generated ones.
struct Met {
    rows: Range<usize>,
    /// By generated image.
    real_balls_closed: Vec<bool>,
    real_balls_open: Vec<u32>,
    /// By real image.
    recalled: Vec<bool>,
    covered: Vec<bool>,
}

impl Met {
    fn new(rows: Range<usize>, fakes: usize) -> Self {
        let (recalled, covered) = (vec![false; rows.len()], vec![false; rows.len()]);
        Self {
            rows,
            real_balls_closed: vec![false; fakes],
            real_balls_open: vec![0; fakes],
            recalled,
            covered,
        }
    }
}

/// `|x|²` of each row.
fn squares(features: Features<'_>) -> Vec<f64> {
    let square = |row| features.row(row).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (0..features.rows()).map(square).collect()
}

fn squared_distance(x_square: f64, y_square: f64, product: f64) -> f64 {
    (x_square + y_square - 2.0 * product).max(0.0)
}

/// The squared distance of each image to its k-th neighbour, itself not counted.
fn radii(features: Features<'_>, squares: &[f64], k: usize) -> Vec<f64> {
    let start = |rows: Range<usize>| {
        let nearest = vec![f64::INFINITY; rows.len() * k];
        (rows, nearest)
    };
    let tasks = inner_products(features, features, start, |(rows, nearest), tile| {
        for (other, products) in tile.y.clone().zip(tile.products.col_iter()) {
            for ((row, nearest), product) in
                rows.clone().zip(nearest.chunks_exact_mut(k)).zip(products.iter())
            {
                let distance = squared_distance(squares[row], squares[other], *product);
                if row != other && distance < nearest[k - 1] {
                    let at = nearest.partition_point(|&nearer| nearer <= distance);
                    nearest[at..].rotate_right(1);
                    nearest[at] = distance;
                }
            }
        }
    });
    tasks
        .iter()
        .flat_map(|(_, nearest)| nearest.chunks_exact(k).map(|nearest| nearest[k - 1]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seed: usize, count: usize, dim: usize, spread: f64) -> Vec<f32> {
        let value =
            |i: usize| ((i + seed * 7919) as f64 * 0.618_033_988 + (i % dim) as f64 * 0.3).fract();
        (0..count * dim).map(|i| ((value(i * i) - 0.5) * spread) as f32).collect()
    }

    fn brute_force(reals: &[f32], fakes: &[f32], dim: usize, k: usize) -> PrecisionRecall {
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
        };
        let radii = |set: &[f32]| -> Vec<f64> {
            let radius = |x: &[f32]| {
                let mut distances: Vec<f64> = set.chunks(dim).map(|y| distance(x, y)).collect();
                distances.sort_by(f64::total_cmp);
                distances[k] // [0] is the image itself
            };
            set.chunks(dim).map(radius).collect()
        };
        let (real_radii, fake_radii) = (radii(reals), radii(fakes));
        let reals = || reals.chunks(dim).zip(&real_radii);
        let fakes = || fakes.chunks(dim).zip(&fake_radii);
        let (n, m) = (real_radii.len() as f64, fake_radii.len() as f64);
        let balls = fakes()
            .map(|(y, _)| reals().filter(|(x, r)| distance(x, y) < **r).count())
            .sum::<usize>();
        PrecisionRecall {
            precision: fakes().filter(|(y, _)| reals().any(|(x, r)| distance(x, y) <= *r)).count()
                as f64
                / m,
            recall: reals().filter(|(x, _)| fakes().any(|(y, r)| distance(x, y) <= *r)).count()
                as f64
                / n,
            density: balls as f64 / (k as f64 * m),
            coverage: reals().filter(|(x, r)| fakes().any(|(y, _)| distance(x, y) < **r)).count()
                as f64
                / n,
        }
    }

    #[test]
    fn shares_are_the_definition() {
        let dim = 3;
        for (spread, k) in [(1.0, 3), (0.4, 5), (2.0, 1)] {
            let (reals, fakes) = (rows(1, 250, dim, 1.0), rows(2, 210, dim, spread));
            let (x, y) = (Features::new(&reals, dim).unwrap(), Features::new(&fakes, dim).unwrap());
            let found = precision_recall(x, y, k).unwrap();
            assert_eq!(found, brute_force(&reals, &fakes, dim, k));
            for share in [found.precision, found.recall, found.coverage] {
                assert!(share > 0.05 && share <= 1.0, "{found:?}");
            }
        }
    }

    #[test]
    fn far_apart_is_nothing() {
        let (reals, mut fakes) = (rows(1, 50, 2, 1.0), rows(2, 50, 2, 1.0));
        for x in &mut fakes {
            *x += 100.0;
        }
        let (x, y) = (Features::new(&reals, 2).unwrap(), Features::new(&fakes, 2).unwrap());
        let nothing = PrecisionRecall { precision: 0.0, recall: 0.0, density: 0.0, coverage: 0.0 };
        assert_eq!(precision_recall(x, y, 3).unwrap(), nothing);
    }

    #[test]
    fn wrong_input_is_named() {
        let x = Features::new(&[0.0; 6], 2).unwrap();
        assert!(matches!(
            precision_recall(x, x, 3),
            Err(Error::TooFew { minimum: 4, found: 3, .. })
        ));
        assert!(precision_recall(x, x, 0).is_err());
        let y = Features::new(&[0.0; 6], 3).unwrap();
        assert!(matches!(precision_recall(x, y, 1), Err(Error::Mismatch { .. })));
    }
}
