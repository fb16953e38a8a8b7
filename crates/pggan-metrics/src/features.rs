//! Features of images: one row each, as a network made them.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use crate::{Error, Result};

/// Features (or logits) of a set of images, f32 `[N, D]` row by row, all finite.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Features<'a> {
    /// Rows of `dim` numbers. An error names the first that is NaN or infinite.
    pub fn new(values: &'a [f32], dim: usize) -> Result<Self> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(Error::Mismatch {
                what: "numbers in rows of features",
                expected: dim,
                found: values.len(),
            });
        }
        if let Some(i) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { row: i / dim, column: i % dim, value: values[i] });
        }
        Ok(Self { values, dim })
    }

    /// Number of images, N.
    pub fn rows(self) -> usize {
        self.values.len() / self.dim
    }

    /// Numbers for each image, D.
    pub fn dim(self) -> usize {
        self.dim
    }

    /// The features of image `row`.
    pub(crate) fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// The given rows, one after the other.
    pub(crate) fn select(self, rows: &[usize]) -> Result<Vec<f32>> {
        let mut selected = Vec::with_capacity(rows.len() * self.dim);
        for &row in rows {
            if row >= self.rows() {
                return Err(Error::Row { row, rows: self.rows() });
            }
            selected.extend_from_slice(self.row(row));
        }
        Ok(selected)
    }

    pub(crate) fn at_least(self, metric: &'static str, minimum: usize) -> Result<()> {
        if self.rows() < minimum {
            return Err(Error::TooFew { metric, minimum, found: self.rows() });
        }
        Ok(())
    }

    pub(crate) fn same_dim(self, other: Self) -> Result<()> {
        if self.dim != other.dim {
            return Err(Error::Mismatch {
                what: "features of the second set",
                expected: self.dim,
                found: other.dim,
            });
        }
        Ok(())
    }

    /// Rows as the columns of an f64 matrix `[D, rows]`.
    fn columns(self, rows: Range<usize>) -> Mat<f64> {
        Mat::from_fn(self.dim, rows.len(), |i, j| f64::from(self.row(rows.start + j)[i]))
    }
}

/// Rows of one set that meet rows of the other at a time: their features in f64 stay within the caches.
const TILE: usize = 192;

/// The inner products of some rows of `x` with some of `y`.
pub(crate) struct Tile<'a> {
    /// Which rows of y.
    pub(crate) y: Range<usize>,
    /// `[rows of x, rows of y]`.
    pub(crate) products: MatRef<'a, f64>,
}

/// Walks over the inner products of all rows of `x` with all of `y` in f64, without holding them all.
///
/// Some rows of `x` at a time, in parallel, `start` makes a state and `each` meets it with one tile of `y` after the
/// other; the states come back in the order of `x`.
pub(crate) fn inner_products<T: Send>(
    x: Features<'_>,
    y: Features<'_>,
    start: impl Fn(Range<usize>) -> T + Sync,
    each: impl Fn(&mut T, &Tile<'_>) + Sync,
) -> Vec<T> {
    let tiles =
        |rows: usize| (0..rows.div_ceil(TILE)).map(move |i| i * TILE..((i + 1) * TILE).min(rows));
    let of_x: Vec<Range<usize>> = tiles(x.rows()).collect();
    of_x.into_par_iter()
        .map(|rows| {
            let columns = x.columns(rows.clone());
            let mut products = Mat::zeros(rows.len(), TILE);
            let mut state = start(rows);
            for y_rows in tiles(y.rows()) {
                let mut products = products.subcols_mut(0, y_rows.len());
                let y_columns = y.columns(y_rows.clone());
                matmul(
                    products.as_mut(),
                    Accum::Replace,
                    columns.transpose(),
                    &y_columns,
                    1.0,
                    Par::Seq,
                );
                each(&mut state, &Tile { y: y_rows, products: products.as_ref() });
            }
            state
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_products_once() {
        let (n, m, dim) = (TILE + 3, 2 * TILE + 1, 3);
        let values: Vec<f32> = (0..m * dim).map(|i| (i % 11) as f32 - 5.0).collect();
        let (x, y) =
            (Features::new(&values[..n * dim], dim).unwrap(), Features::new(&values, dim).unwrap());
        let start = |rows: Range<usize>| (rows, Vec::new());
        let states = inner_products(x, y, start, |(rows, found), tile| {
            for (i, row) in rows.clone().enumerate() {
                found.extend(
                    tile.y
                        .clone()
                        .enumerate()
                        .map(|(j, column)| (row, column, tile.products[(i, j)])),
                );
            }
        });
        let mut found: Vec<(usize, usize, f64)> =
            states.into_iter().flat_map(|(_, found)| found).collect();
        found.sort_by_key(|&(row, column, _)| (row, column));
        assert_eq!(found.len(), n * m);
        for (i, (row, column, product)) in found.into_iter().enumerate() {
            let expected: f32 = x.row(row).iter().zip(y.row(column)).map(|(x, y)| x * y).sum();
            assert_eq!((row, column, product), (i / m, i % m, f64::from(expected)));
        }
    }

    #[test]
    fn wrong_features_are_named() {
        assert!(matches!(Features::new(&[0.0; 5], 2), Err(Error::Mismatch { .. })));
        assert!(matches!(Features::new(&[0.0; 4], 0), Err(Error::Mismatch { .. })));
        let nan = [0.0, 0.0, 0.0, f32::NAN];
        assert!(matches!(Features::new(&nan, 2), Err(Error::NotFinite { row: 1, column: 1, .. })));
        assert!(matches!(
            Features::new(&nan[..2], 2).unwrap().select(&[1]),
            Err(Error::Row { row: 1, rows: 1 })
        ));
    }
}
