//! Inception score (Salimans et al. 2016): `exp` of the mean divergence (natural logarithm) of each image's class
//! probabilities from those of its split. Higher is better.

use crate::{Error, Features, Result};

/// Scores by split.
#[derive(Debug, Clone, PartialEq)]
pub struct InceptionScore {
    /// Mean over the splits.
    pub mean: f64,
    /// Standard deviation over the splits, divided by their number.
    pub std: f64,
    /// Score of each split.
    pub splits: Vec<f64>,
}

/// Scores logits `[N, classes]` in `splits` splits of consecutive images; 10 are usual.
///
/// Split i holds the rows from `i N / splits`, rounded down, to those of the next.
pub fn inception_score(logits: Features<'_>, splits: usize) -> Result<InceptionScore> {
    if splits == 0 {
        return Err(Error::Mismatch { what: "splits", expected: 1, found: 0 });
    }
    logits.at_least("inception score", splits)?;
    let start = |split: usize| split * logits.rows() / splits;
    let splits: Vec<f64> =
        (0..splits).map(|split| score(logits, start(split), start(split + 1))).collect();
    let count = splits.len() as f64;
    let mean = splits.iter().sum::<f64>() / count;
    let variance = splits.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
    Ok(InceptionScore { mean, std: variance.sqrt(), splits })
}

fn score(logits: Features<'_>, start: usize, end: usize) -> f64 {
    let count = (end - start) as f64;
    let mut marginal = vec![0.0; logits.dim()];
    // The mean divergence is the mean of Σ p ln p less Σ q ln q of the mean probabilities q.
    let mut negentropy = 0.0;
    let mut probabilities = Vec::with_capacity(logits.dim());
    for row in start..end {
        let row = logits.row(row);
        let highest = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        probabilities.clear();
        probabilities.extend(row.iter().map(|&logit| (f64::from(logit) - highest).exp()));
        let total: f64 = probabilities.iter().sum();
        for ((q, &logit), p) in marginal.iter_mut().zip(row).zip(&probabilities) {
            let p = p / total;
            negentropy += p * (f64::from(logit) - highest - total.ln()); // 0, not NaN, where p is 0
            *q += p / count;
        }
    }
    let of_marginal: f64 = marginal.iter().filter(|&&q| q > 0.0).map(|q| q * q.ln()).sum();
    (negentropy / count - of_marginal).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes() {
        // Sure of a different class each time: as many as there are classes.
        let sure: Vec<f32> =
            (0..40 * 4).map(|i| if i % 4 == i / 4 % 4 { 1e6 } else { 0.0 }).collect();
        let found = inception_score(Features::new(&sure, 4).unwrap(), 1).unwrap();
        assert!((found.mean - 4.0).abs() < 1e-9, "{found:?}");
        // Always the same answer: 1, whatever it is.
        for logits in [vec![0.0; 60], [5.0, -3.0, 0.5].repeat(20)] {
            let found = inception_score(Features::new(&logits, 3).unwrap(), 5).unwrap();
            assert!((found.mean - 1.0).abs() < 1e-12 && found.std < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn wrong_input_is_named() {
        let logits = Features::new(&[0.0; 6], 2).unwrap();
        assert!(matches!(
            inception_score(logits, 4),
            Err(Error::TooFew { minimum: 4, found: 3, .. })
        ));
        assert!(inception_score(logits, 0).is_err());
    }
}
