//! Fréchet distance of features (Heusel et al. 2017). With pool3 features of the 2015 Inception network it is the FID.
//!
//! `|m1 - m2|² + tr S1 + tr S2 - 2 tr (S1 S2)^½` of means m and covariances S, all in f64.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Col, Mat, MatRef, Par, Spec};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Error, Features, Result};

/// Mean and covariance of features, gathered batch by batch.
#[derive(Debug, Clone)]
pub struct Statistics {
    count: usize,
    mean: Vec<f64>,
    /// Sum over rows of `(x - mean)(x - mean)ᵀ`; the lower triangle counts.
    scatter: Mat<f64>,
}

/// Rows that are added to the scatter matrix at a time.
const BLOCK: usize = 512;
/// Columns of the scatter matrix that a task works on.
const STRIP: usize = 128;

impl Statistics {
    /// Of no images yet, with `dim` features each.
    pub fn new(dim: usize) -> Self {
        Self { count: 0, mean: vec![0.0; dim], scatter: Mat::zeros(dim, dim) }
    }

    /// The statistics of all rows.
    pub fn of(features: Features<'_>) -> Result<Self> {
        let mut statistics = Self::new(features.dim());
        statistics.add(features)?;
        Ok(statistics)
    }

    /// Adds images. Some hundred rows at a time are fastest.
    pub fn add(&mut self, features: Features<'_>) -> Result<()> {
        if features.dim() != self.mean.len() {
            let (expected, found) = (self.mean.len(), features.dim());
            return Err(Error::Mismatch { what: "features of a batch", expected, found });
        }
        for start in (0..features.rows()).step_by(BLOCK) {
            self.add_block(features, start, (start + BLOCK).min(features.rows()));
        }
        Ok(())
    }

    /// Merges a block's own mean and scatter (Chan et al. 1979), which cancels no digits.
    fn add_block(&mut self, features: Features<'_>, start: usize, end: usize) {
        let (dim, rows) = (self.mean.len(), end - start);
        let mut mean = vec![0.0; dim];
        for row in start..end {
            mean.iter_mut().zip(features.row(row)).for_each(|(mean, &x)| *mean += f64::from(x));
        }
        for mean in &mut mean {
            *mean /= rows as f64;
        }

        // The way from one mean to the other enters as one more row.
        let (before, after) = (self.count as f64, (self.count + rows) as f64);
        let weight = (before * rows as f64 / after).sqrt();
        let centred = Mat::from_fn(rows + 1, dim, |i, j| {
            if i < rows {
                f64::from(features.row(start + i)[j]) - mean[j]
            } else {
                weight * (mean[j] - self.mean[j])
            }
        });
        // The tasks are the same for any number of threads, and so are the sums.
        self.scatter.as_mut().par_col_chunks_mut(STRIP).enumerate().for_each(|(i, strip)| {
            let from = i * STRIP;
            let (left, right) =
                (centred.subcols(from, dim - from), centred.subcols(from, strip.ncols()));
            let strip = strip.subrows_mut(from, dim - from);
            matmul(strip, Accum::Add, left.transpose(), right, 1.0, Par::Seq);
        });
        for (total, block) in self.mean.iter_mut().zip(&mean) {
            *total += (block - *total) * (rows as f64 / after);
        }
        self.count += rows;
    }

    /// Images added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Mean of each feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The bytes of a safetensors file that [`Statistics::from_safetensors`] reads.
    pub fn to_safetensors(&self) -> Vec<u8> {
        let dim = self.mean.len();
        let bytes = |values: &mut dyn Iterator<Item = f64>| -> Vec<u8> {
            values.flat_map(f64::to_le_bytes).collect()
        };
        let mean = bytes(&mut self.mean.iter().copied());
        let lower = |p: usize| self.scatter[(p / dim, p % dim)];
        let scatter =
            bytes(&mut (0..dim * dim).map(|p| if p % dim <= p / dim { lower(p) } else { 0.0 }));
        let count = (self.count as u64).to_le_bytes();
        let sum = blake3::hash(&[&count[..], &mean, &scatter].concat()).to_hex().to_string();
        let view = |dtype, shape, data| {
            TensorView::new(dtype, shape, data).expect("shapes and numbers belong together")
        };
        let views = [
            ("count", view(Dtype::U64, vec![1], &count)),
            ("mean", view(Dtype::F64, vec![dim], &mean)),
            ("scatter", view(Dtype::F64, vec![dim, dim], &scatter)),
        ];
        safetensors::serialize(views, Some([("blake3".to_owned(), sum)].into()))
            .expect("shapes and numbers belong together")
    }

    /// What [`Statistics::to_safetensors`] wrote; none if the bytes are not that any more.
    pub fn from_safetensors(bytes: &[u8]) -> Option<Self> {
        let file = SafeTensors::deserialize(bytes).ok()?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
        let [count, mean, scatter] =
            ["count", "mean", "scatter"].map(|name| file.tensor(name).ok().map(|view| view.data()));
        let (count, mean, scatter) = (count?, mean?, scatter?);
        let sum = blake3::hash(&[count, mean, scatter].concat()).to_hex().to_string();
        if metadata.metadata().as_ref()?.get("blake3") != Some(&sum) {
            return None;
        }
        let numbers = |bytes: &[u8]| -> Vec<f64> {
            bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
        };
        let (mean, scatter) = (numbers(mean), numbers(scatter));
        let dim = mean.len();
        Some(Self {
            count: usize::try_from(u64::from_le_bytes(count.try_into().ok()?)).ok()?,
            scatter: (scatter.len() == dim * dim)
                .then(|| Mat::from_fn(dim, dim, |i, j| scatter[i * dim + j]))?,
            mean,
        })
    }

    /// Covariance `[D, D]`, divided by N - 1. Two images at least.
    pub fn covariance(&self) -> Result<Mat<f64>> {
        if self.count < 2 {
            return Err(Error::TooFew {
                metric: "Fréchet distance",
                minimum: 2,
                found: self.count,
            });
        }
        let divisor = (self.count - 1) as f64;
        let dim = self.mean.len();
        Ok(Mat::from_fn(dim, dim, |i, j| self.scatter[(i.max(j), i.min(j))] / divisor))
    }
}

/// The distance of two sets, squared as is usual; 0 is best.
///
/// It is biased: it falls with the number of images, so that only distances of the same number compare.
/// Covariances of fewer images than features are singular, which does no harm.
pub fn frechet_distance(first: &Statistics, second: &Statistics) -> Result<f64> {
    let dim = first.mean.len();
    if second.mean.len() != dim {
        return Err(Error::Mismatch {
            what: "features of the second set",
            expected: dim,
            found: second.mean.len(),
        });
    }
    let (s1, s2) = (first.covariance()?, second.covariance()?);
    let means: f64 = first.mean.iter().zip(&second.mean).map(|(a, b)| (a - b) * (a - b)).sum();
    let traces: f64 = (0..dim).map(|i| s1[(i, i)] + s2[(i, i)]).sum();

    // With S1 = Q Λ Qᵀ, S1 S2 has the eigenvalues of the symmetric matrix Λ^½ Qᵀ S2 Q Λ^½.
    let (values, mut vectors) = eigen(s1.as_ref(), ComputeEigenvectors::Yes)?;
    for j in 0..dim {
        let root = values[j].max(0.0).sqrt();
        vectors.col_mut(j).iter_mut().for_each(|v| *v *= root);
    }
    let mut half = Mat::zeros(dim, dim);
    matmul(&mut half, Accum::Replace, &s2, &vectors, 1.0, Par::Seq);
    let mut product = Mat::zeros(dim, dim);
    triangular::matmul(
        &mut product,
        BlockStructure::TriangularLower,
        Accum::Replace,
        vectors.transpose(),
        BlockStructure::Rectangular,
        &half,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    let (values, _) = eigen(product.as_ref(), ComputeEigenvectors::No)?;
    let root_trace: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok(means + traces - 2.0 * root_trace)
}

/// Eigenvalues of a symmetric matrix, of which the lower triangle is read, and the vectors if asked for.
fn eigen(matrix: MatRef<'_, f64>, vectors: ComputeEigenvectors) -> Result<(Col<f64>, Mat<f64>)> {
    let dim = matrix.nrows();
    let mut values = Col::zeros(dim);
    let wanted = matches!(vectors, ComputeEigenvectors::Yes);
    let mut basis = if wanted { Mat::zeros(dim, dim) } else { Mat::new() };
    let mut memory =
        MemBuffer::new(self_adjoint_evd_scratch::<f64>(dim, vectors, Par::Seq, Spec::default()));
    self_adjoint_evd(
        matrix,
        values.as_diagonal_mut(),
        wanted.then(|| basis.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        Spec::default(),
    )
    .map_err(|_| Error::Eigen)?;
    Ok((values, basis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seed: usize, count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim)
            .map(|i| ((i + seed) as f64 * 0.618_033_988_749).fract() as f32 * (1 + i % dim) as f32)
            .collect()
    }

    #[test]
    fn one_dimension_is_the_formula() {
        // N(m, s²): (m1 - m2)² + (s1 - s2)².
        let (x, y) = ([0.0, 2.0, 4.0], [1.0, 11.0]);
        let (x, y) = (Features::new(&x, 1).unwrap(), Features::new(&y, 1).unwrap());
        let distance =
            frechet_distance(&Statistics::of(x).unwrap(), &Statistics::of(y).unwrap()).unwrap();
        assert!((distance - (16.0 + (2.0 - 50.0_f64.sqrt()).powi(2))).abs() < 1e-12, "{distance}");
    }

    #[test]
    fn statistics_do_not_depend_on_batches_or_a_far_mean() {
        let (count, dim) = (BLOCK + 300, 7);
        let mut values = rows(1, count, dim);
        for v in &mut values {
            *v = (*v * 64.0).round() / 64.0 + 4096.0; // exact in f32
        }
        let whole = Statistics::of(Features::new(&values, dim).unwrap()).unwrap();
        let mut parts = Statistics::new(dim);
        for part in values.chunks(dim * 37) {
            parts.add(Features::new(part, dim).unwrap()).unwrap();
        }
        assert_eq!((whole.count(), parts.count()), (count, count));
        let (a, b) = (whole.covariance().unwrap(), parts.covariance().unwrap());
        for i in 0..dim {
            let column = || values.iter().skip(i).step_by(dim).map(|&v| f64::from(v));
            let mean = column().sum::<f64>() / count as f64;
            let variance = column().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
            assert!((whole.mean()[i] - mean).abs() < 1e-9);
            assert!((a[(i, i)] - variance).abs() < 1e-9 * variance);
            for j in 0..dim {
                assert!((a[(i, j)] - b[(i, j)]).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let dim = 300;
        let (x, y) = (rows(1, 700, dim), rows(5, 650, dim));
        let distance = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let of = |values| Statistics::of(Features::new(values, dim).unwrap()).unwrap();
                frechet_distance(&of(&x), &of(&y)).unwrap()
            })
        };
        let alone = distance(1);
        assert!(alone.is_finite() && alone > 0.0);
        for threads in [2, 3, 8] {
            assert_eq!(distance(threads), alone);
        }
    }

    #[test]
    fn statistics_are_kept_to_the_last_bit_or_refused() {
        let values = rows(3, 20, 4);
        let statistics = Statistics::of(Features::new(&values, 4).unwrap()).unwrap();
        let mut bytes = statistics.to_safetensors();
        let back = Statistics::from_safetensors(&bytes).unwrap();
        assert_eq!((back.count(), back.mean()), (20, statistics.mean()));
        assert_eq!(back.covariance().unwrap(), statistics.covariance().unwrap());
        *bytes.last_mut().unwrap() ^= 1;
        assert!(Statistics::from_safetensors(&bytes).is_none());
        assert!(Statistics::from_safetensors(b"").is_none());
    }

    #[test]
    fn wrong_input_is_named() {
        let one = Statistics::of(Features::new(&[1.0, 2.0], 2).unwrap()).unwrap();
        assert!(matches!(
            frechet_distance(&one, &one),
            Err(Error::TooFew { minimum: 2, found: 1, .. })
        ));
        assert!(matches!(frechet_distance(&one, &Statistics::new(3)), Err(Error::Mismatch { .. })));
        assert!(Statistics::new(3).add(Features::new(&[1.0, 2.0], 2).unwrap()).is_err());
    }
}
