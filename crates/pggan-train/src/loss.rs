//! What the networks are trained for: losses of scores, the penalty's settings, the noise that LSGAN needs.

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::step::DiscriminatorReport;

/// The losses. The defaults are the paper's (Appendix A.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Which loss.
    pub kind: LossKind,
    /// Weight λ of the gradient penalty.
    pub gradient_weight: f64,
    /// Norm γ that the penalty asks of the gradient; 750 for CIFAR-10.
    pub gradient_target: f64,
    /// Penalize only norms above the target.
    pub one_sided: bool,
    /// Weight ε of the real images' squared scores, which keeps scores from drifting away from 0.
    pub drift: f64,
    /// Weight of the labels' cross-entropy (AC-GAN), in networks with labels.
    pub label_weight: f64,
    /// Factor of the strength of the discriminator's noise ([`NoiseState`]): 0.2 in the paper's Appendix B, 0 for none.
    pub gdrop_coef: f64,
    /// What the noise's running average keeps of itself.
    pub gdrop_beta: f64,
    /// The average above which there is noise.
    pub gdrop_lim: f64,
    /// Power of what exceeds it.
    pub gdrop_exp: f64,
    /// What the average is of.
    pub gdrop_tracks: Tracked,
}

/// What the scores are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Wasserstein distance with gradient penalty and drift.
    WganGp,
    /// Least squares: real images toward 1, generated ones toward 0. Penalty and drift have no part in it.
    Lsgan,
    /// Least squares as the paper's authors ran them: real images toward 0, generated ones toward 1, those with a
    /// tenth of the weight.
    LsganReversed,
}

/// What the strength of the discriminator's noise follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracked {
    /// Scores of generated images: near 1 where [`LossKind::LsganReversed`] tells them all.
    Fake,
    /// Scores of real images: the same for [`LossKind::Lsgan`].
    Real,
    /// The discriminator's loss, which the authors' code took for a score.
    Loss,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            kind: LossKind::WganGp,
            gradient_weight: 10.0,
            gradient_target: 1.0,
            one_sided: false,
            drift: 0.001,
            label_weight: 1.0,
            gdrop_coef: 0.0,
            gdrop_beta: 0.9,
            gdrop_lim: 0.5,
            gdrop_exp: 2.0,
            gdrop_tracks: Tracked::Fake,
        }
    }
}

impl LossConfig {
    /// What is wrong with these settings.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, key: &str, value: f64, needs: &str| {
            if !(good && value.is_finite()) {
                problems.push(format!("loss.{key} = {value}: must be {needs}"));
            }
        };
        for (key, value) in [
            ("gradient_weight", self.gradient_weight),
            ("drift", self.drift),
            ("label_weight", self.label_weight),
            ("gdrop_coef", self.gdrop_coef),
        ] {
            check(value >= 0.0, key, value, "at least 0");
        }
        for (key, value) in
            [("gradient_target", self.gradient_target), ("gdrop_exp", self.gdrop_exp)]
        {
            check(value > 0.0, key, value, "above 0");
        }
        let beta = self.gdrop_beta;
        check((0.0..1.0).contains(&beta), "gdrop_beta", beta, "at least 0 and below 1");
        check(true, "gdrop_lim", self.gdrop_lim, "a number");
        problems
    }

    /// Whether the gradient penalty is a part of it.
    pub fn penalized(&self) -> bool {
        self.kind == LossKind::WganGp
    }

    /// The discriminator's loss of real images.
    pub fn of_real(&self) -> Quadratic {
        match self.kind {
            LossKind::WganGp => Quadratic([0.0, -1.0, self.drift]),
            LossKind::Lsgan => Quadratic([0.5, -1.0, 0.5]),
            LossKind::LsganReversed => Quadratic([0.0, 0.0, 1.0]),
        }
    }

    /// The discriminator's loss of generated images.
    pub fn of_fake(&self) -> Quadratic {
        match self.kind {
            LossKind::WganGp => Quadratic([0.0, 1.0, 0.0]),
            LossKind::Lsgan => Quadratic([0.0, 0.0, 0.5]),
            LossKind::LsganReversed => Quadratic([0.1, -0.2, 0.1]),
        }
    }

    /// The generator's loss.
    pub fn of_generated(&self) -> Quadratic {
        match self.kind {
            LossKind::WganGp => Quadratic([0.0, -1.0, 0.0]),
            // What the discriminator wants of real images.
            LossKind::Lsgan | LossKind::LsganReversed => self.of_real(),
        }
    }
}

/// A loss of scores: the mean of `a + b s + c s²`. Every loss here is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quadratic(pub [f64; 3]);

impl Quadratic {
    /// Its value.
    pub fn value(self, scores: Moments) -> f64 {
        let [a, b, c] = self.0;
        a + b * scores.mean + c * scores.square
    }

    /// Its gradient with respect to the scores.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn gradient(self, scores: &Tensor) -> Result<Tensor> {
        let ([_, b, c], per_sample) = (self.0, 1.0 / scores.elem_count() as f64);
        scores.affine(2.0 * c * per_sample, b * per_sample)
    }
}

/// Means over a minibatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Of the values.
    pub mean: f64,
    /// Of their squares.
    pub square: f64,
}

impl Moments {
    /// Of all values of a tensor.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of(x: &Tensor) -> Result<Self> {
        let values = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let n = values.len() as f64;
        let square = values.iter().map(|x| x * x).sum::<f64>() / n;
        Ok(Self { mean: values.iter().sum::<f64>() / n, square })
    }
}

/// The multiplicative noise in the discriminator's layers (paper, Appendix B), which sets in as its scores approach
/// the label of what they should tell: `strength = coef max(average − lim, 0)^exp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseState {
    /// Running average of what is tracked, in [0, 1]; `f32`, which a state of text gives back to the last bit.
    pub average: f32,
}

impl NoiseState {
    /// Deviation of the noise's factors from 1, before the root of the layer's width.
    pub fn strength(self, loss: &LossConfig) -> f64 {
        loss.gdrop_coef * (f64::from(self.average) - loss.gdrop_lim).max(0.0).powf(loss.gdrop_exp)
    }

    /// The average after another step of the discriminator; a step without finite scores leaves it.
    #[must_use]
    pub fn after(self, report: &DiscriminatorReport, loss: &LossConfig) -> Self {
        let tracked = match loss.gdrop_tracks {
            Tracked::Fake => report.fake,
            Tracked::Real => report.real,
            Tracked::Loss => report.loss,
        };
        if !tracked.is_finite() {
            return self;
        }
        let beta = loss.gdrop_beta;
        let average = beta * f64::from(self.average) + (1.0 - beta) * tracked.clamp(0.0, 1.0);
        Self { average: average as f32 }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const SCORES: [f64; 3] = [-1.5, 0.25, 2.0];

    fn check(loss: Quadratic, formula: impl Fn(f64) -> f64) {
        let mean = |scores: [f64; 3]| scores.iter().map(|&s| formula(s)).sum::<f64>() / 3.0;
        let scores = Tensor::new(&SCORES, &Device::Cpu).unwrap();
        let value = loss.value(Moments::of(&scores).unwrap());
        assert!((value - mean(SCORES)).abs() < 1e-12, "{loss:?}");
        let gradient = loss.gradient(&scores).unwrap().to_vec1::<f64>().unwrap();
        for (i, gradient) in gradient.iter().enumerate() {
            let (mut up, mut down) = (SCORES, SCORES);
            up[i] += 1e-5;
            down[i] -= 1e-5;
            let difference = (mean(up) - mean(down)) / 2e-5;
            assert!((gradient - difference).abs() < 1e-9, "{loss:?}");
        }
    }

    #[test]
    fn losses_are_those_of_the_papers() {
        let of = |kind| LossConfig { kind, ..LossConfig::default() };
        let wgan = of(LossKind::WganGp);
        check(wgan.of_real(), |s| -s + 0.001 * s * s);
        check(wgan.of_fake(), |s| s);
        check(wgan.of_generated(), |s| -s);
        let usual = of(LossKind::Lsgan);
        check(usual.of_real(), |s| 0.5 * (s - 1.0).powi(2));
        check(usual.of_fake(), |s| 0.5 * s * s);
        check(usual.of_generated(), |s| 0.5 * (s - 1.0).powi(2));
        let reversed = of(LossKind::LsganReversed);
        check(reversed.of_real(), |s| s * s);
        check(reversed.of_fake(), |s| 0.1 * (s - 1.0).powi(2));
        check(reversed.of_generated(), |s| s * s);
    }

    #[test]
    fn noise_follows_what_it_tracks() {
        let report =
            |real, fake, loss| DiscriminatorReport { loss, real, fake, mixed: 0.0, norm: 0.0 };
        let settings =
            |gdrop_tracks| LossConfig { gdrop_coef: 0.2, gdrop_tracks, ..LossConfig::default() };
        let fake = settings(Tracked::Fake);
        let mut noise = NoiseState::default();
        assert_eq!(noise.strength(&fake), 0.0);
        // Scores beyond 1 count as 1: the average approaches it and never passes.
        for step in 1..=50 {
            noise = noise.after(&report(-5.0, 3.0, 9.0), &fake);
            assert!((noise.average - (1.0 - 0.9f32.powi(step))).abs() < 1e-5);
        }
        let over = f64::from(noise.average) - 0.5;
        assert!((noise.strength(&fake) - 0.2 * over * over).abs() < 1e-12);
        assert_eq!(noise.after(&report(0.0, f64::NAN, 0.0), &fake), noise);

        let one = |tracked| {
            NoiseState::default().after(&report(0.5, 0.25, 0.75), &settings(tracked)).average
        };
        for (tracked, value) in [(Tracked::Fake, 0.25), (Tracked::Real, 0.5), (Tracked::Loss, 0.75)]
        {
            assert!((one(tracked) - 0.1 * value).abs() < 1e-6, "{tracked:?}");
        }
    }

    #[test]
    fn impossible_settings_are_all_named() {
        let wrong = LossConfig {
            gradient_target: 0.0,
            drift: -1.0,
            gdrop_beta: 1.0,
            gdrop_lim: f64::NAN,
            ..LossConfig::default()
        };
        let problems = wrong.problems().join("\n");
        for words in [
            "loss.gradient_target = 0: must be above 0",
            "loss.drift = -1: must be at least 0",
            "loss.gdrop_beta = 1: must be at least 0 and below 1",
            "loss.gdrop_lim = NaN",
        ] {
            assert!(problems.contains(words), "{problems}");
        }
        assert!(LossConfig::default().problems().is_empty());
    }
}
