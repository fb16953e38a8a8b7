//! What training reports: means over a tick, a line for people, a line for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::step::DiscriminatorReport;

/// Sums since the last tick. They are a part of the training state, so that a resumed tick counts in full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    d_steps: u64,
    g_steps: u64,
    d_loss: f64,
    g_loss: f64,
    real: f64,
    fake: f64,
    mixed: f64,
    norm: f64,
    d_grad: f64,
    g_grad: f64,
    skipped: u64,
}

impl Sums {
    /// Counts a step of the discriminator; `grad` is the norm of its gradients, not finite if it was skipped.
    pub fn discriminator(&mut self, report: &DiscriminatorReport, grad: f64) {
        if !grad.is_finite() || !report.loss.is_finite() {
            self.skipped += 1;
            return;
        }
        self.d_steps += 1;
        self.d_loss += report.loss;
        self.real += report.real;
        self.fake += report.fake;
        self.mixed += report.mixed;
        self.norm += report.norm;
        self.d_grad += grad;
    }

    /// Counts a step of the generator.
    pub fn generator(&mut self, loss: f64, grad: f64) {
        if !grad.is_finite() || !loss.is_finite() {
            self.skipped += 1;
            return;
        }
        self.g_steps += 1;
        self.g_loss += loss;
        self.g_grad += grad;
    }

    /// The means.
    pub fn means(&self) -> Means {
        let d = |sum: f64| sum / self.d_steps.max(1) as f64;
        let g = |sum: f64| sum / self.g_steps.max(1) as f64;
        Means {
            loss_d: d(self.d_loss),
            loss_g: g(self.g_loss),
            score_real: d(self.real),
            score_fake: d(self.fake),
            score_mixed: d(self.mixed),
            gradient_norm: d(self.norm),
            parameter_gradient_d: d(self.d_grad),
            parameter_gradient_g: g(self.g_grad),
            skipped_steps: self.skipped,
        }
    }
}

/// Means over the steps of a tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// The discriminator's whole loss.
    pub loss_d: f64,
    /// The generator's loss.
    pub loss_g: f64,
    /// Scores of real images.
    pub score_real: f64,
    /// Scores of generated images.
    pub score_fake: f64,
    /// Scores of mixed images.
    pub score_mixed: f64,
    /// Norm of the score's gradient with respect to mixed images; the penalty holds it near its target.
    pub gradient_norm: f64,
    /// Norm of the loss's gradient with respect to all of the discriminator's parameters.
    pub parameter_gradient_d: f64,
    /// The same of the generator.
    pub parameter_gradient_g: f64,
    /// Steps left out because a gradient was not finite.
    pub skipped_steps: u64,
}

/// One line of `stats.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// Number of the tick, from 1.
    pub tick: u64,
    /// Real images shown so far.
    pub images: u64,
    /// Level of detail, as the official code counts.
    pub lod: f64,
    /// Width and height of the images.
    pub resolution: usize,
    /// Weight of the newest layer.
    pub alpha: f64,
    /// Images in a minibatch.
    pub minibatch: usize,
    /// Seconds that the run has taken so far, over all its starts.
    pub seconds: f64,
    /// Seconds of this tick's training.
    pub tick_seconds: f64,
    /// Real images per second of training.
    pub images_per_second: f64,
    /// Seconds spent on pictures and files since the last tick.
    pub maintenance_seconds: f64,
    /// Share of the training time that was spent waiting for images.
    pub waiting_share: f64,
    /// Means over the tick's steps.
    #[serde(flatten)]
    pub means: Means,
}

impl Tick {
    /// The line for people: the official code's, with the speed and what to watch.
    pub fn line(&self) -> String {
        let Self { tick, images, lod, resolution, minibatch, means: m, .. } = self;
        let kimg = *images as f64 / 1000.0;
        let time = duration(Duration::from_secs_f64(self.seconds.max(0.0)));
        let mut line =
            format!("tick {tick:<4} kimg {kimg:<8.1} lod {lod:<5.2} res {resolution:<4} ");
        let _ = write!(
            line,
            "minibatch {minibatch:<4} time {time:<11} sec/tick {:<7.1} ",
            self.tick_seconds
        );
        let _ = write!(
            line,
            "sec/kimg {:<7.2} img/s {:<7.1} ",
            1000.0 / self.images_per_second,
            self.images_per_second
        );
        let _ = write!(
            line,
            "maintenance {:<5.1} wait {:.1}%  ",
            self.maintenance_seconds,
            100.0 * self.waiting_share
        );
        let _ = write!(
            line,
            "loss D {:<8.3} G {:<8.3} grad norm {:.3}",
            m.loss_d, m.loss_g, m.gradient_norm
        );
        if m.skipped_steps > 0 {
            let _ = write!(line, "  {} steps skipped: gradients were not finite", m.skipped_steps);
        }
        line
    }
}

/// `1d 02h 03m 04s`, without leading zeros.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s:02}s"),
        (0, _, _) => format!("{h}h {m:02}m {s:02}s"),
        _ => format!("{d}d {h:02}h {m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        for (seconds, text) in
            [(4, "4s"), (65, "1m 05s"), (3661, "1h 01m 01s"), (90_061, "1d 01h 01m")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn skipped_steps_are_counted_and_do_not_spoil_the_means() {
        let report =
            |loss| DiscriminatorReport { loss, real: 1.0, fake: 2.0, mixed: 3.0, norm: 1.0 };
        let mut sums = Sums::default();
        sums.discriminator(&report(2.0), 0.5);
        sums.discriminator(&report(f64::NAN), f64::INFINITY);
        sums.generator(4.0, 1.0);
        let means = sums.means();
        assert_eq!((means.loss_d, means.loss_g, means.skipped_steps), (2.0, 4.0, 1));
    }
}
