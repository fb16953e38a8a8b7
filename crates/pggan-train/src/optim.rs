//! Adam with visible state.

use candle_core::Tensor;
use pggan_model::{Grads, Params};
use pggan_ops::adam::{Adam, Epsilon, sum_of_squares};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The optimizer's constants. The defaults are the paper's (Appendix A.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// Added to Adam's denominator.
    pub epsilon: f64,
    /// Where it is added.
    pub epsilon_form: EpsilonForm,
    /// What the generator's running average keeps of itself at each step of the discriminator.
    pub ema_beta: f64,
}

/// Where Adam adds its epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpsilonForm {
    /// Outside the bias correction: TensorFlow's form, which the official code ran.
    Official,
    /// Inside it: the form of Adam's paper, and PyTorch's.
    Paper,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            beta1: 0.0,
            beta2: 0.99,
            epsilon: 1e-8,
            epsilon_form: EpsilonForm::Official,
            ema_beta: 0.999,
        }
    }
}

impl OptimConfig {
    /// What is wrong with these settings.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in
            [("beta1", self.beta1), ("beta2", self.beta2), ("ema_beta", self.ema_beta)]
        {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!("optim.{key} = {value}: must be at least 0 and below 1"));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            problems.push(format!("optim.epsilon = {}: must be above 0", self.epsilon));
        }
        problems
    }
}

/// The state of Adam for one network.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimConfig,
    /// Second moments, in the parameters' order.
    pub second: Vec<Tensor>,
    /// First moments, where β₁ is not 0.
    pub first: Vec<Tensor>,
    /// Steps since the last reset.
    pub steps: u64,
}

impl Optimizer {
    /// A fresh optimizer for `params`.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(config: &OptimConfig, params: &Params) -> Result<Self> {
        let zeros = || params.iter().map(|p| p.value.zeros_like()).collect::<Result<Vec<_>, _>>();
        let first = if config.beta1 > 0.0 { zeros()? } else { Vec::new() };
        Ok(Self { config: config.clone(), second: zeros()?, first, steps: 0 })
    }

    /// Forgets all moments.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn reset(&mut self) -> Result<()> {
        for moment in self.second.iter_mut().chain(&mut self.first) {
            *moment = moment.zeros_like()?;
        }
        self.steps = 0;
        Ok(())
    }

    /// Moves the parameters against their gradients, unless one of those is not finite: then nothing changes,
    /// as in the official code. Returns the norm of all gradients.
    ///
    /// # Errors
    /// If a gradient does not fit its parameter.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, learning_rate: f64) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in grads.iter().flatten() {
            sum += sum_of_squares(gradient)?;
        }
        if !sum.is_finite() {
            return Ok(sum);
        }
        self.steps += 1;
        let adam = Adam {
            lr: learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            form: match self.config.epsilon_form {
                EpsilonForm::Official => Epsilon::Official,
                EpsilonForm::Paper => Epsilon::Paper,
            },
            step: self.steps,
        };
        params.update(|i, _, value| match grads.get(i) {
            Some(gradient) => {
                adam.update(value, gradient, self.first.get_mut(i), &mut self.second[i])
            }
            None => Ok(()),
        })?;
        Ok(sum.sqrt())
    }
}

/// Moves the running average of a generator towards it (paper, Appendix A.1).
///
/// # Errors
/// If they are of different shapes.
pub fn update_average(average: &mut Params, params: &Params, beta: f64) -> Result<()> {
    let values: Vec<&Tensor> = params.iter().map(|p| &p.value).collect();
    average.update(|i, _, value| pggan_ops::adam::average(value, values[i], beta))?;
    Ok(())
}
