//! Adam with visible state.

use candle_core::Tensor;
use pggan_model::{Grads, Params};
use pggan_ops::adam::{self, Adam, Epsilon, Running};
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
    /// What the generator's running average keeps of itself at a step; 0 for none: samples are made with the
    /// generator itself.
    pub ema_beta: f64,
    /// At whose steps it moves; with one step of the discriminator for each of the generator's it is the same.
    pub ema_steps: Steps,
}

/// The steps of one of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steps {
    /// The discriminator's, as in the official TensorFlow code.
    Discriminator,
    /// The generator's, as in the official Theano code.
    Generator,
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
            ema_steps: Steps::Discriminator,
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
        let sum = sum_of_squares(grads)?;
        if !sum.is_finite() {
            return Ok(sum);
        }
        let step = self.next(learning_rate);
        params.update(|i, _, value| match grads.get(i) {
            Some(gradient) => {
                step.update(value, gradient, self.first.get_mut(i), &mut self.second[i], None)
            }
            None => Ok(()),
        })?;
        Ok(sum.sqrt())
    }

    /// [`Optimizer::step`]; before it, the network's running average (paper, Appendix A.1) moves towards the
    /// parameters that were, whatever the gradients: for Adam's parameters both are one pass.
    ///
    /// # Errors
    /// If a gradient or the average does not fit.
    pub fn step_and_average(
        &mut self,
        params: &mut Params,
        grads: &Grads,
        learning_rate: f64,
        average: Average<'_>,
    ) -> Result<f64> {
        let sum = sum_of_squares(grads)?;
        let step = sum.is_finite().then(|| self.next(learning_rate));
        let Average { params: average, beta, level } = average;
        params.update_beside(average, |i, param, value| {
            if param.level().is_some_and(|l| l > level) {
                return Ok(());
            }
            match step.zip(grads.get(i)) {
                Some((step, gradient)) => {
                    let (first, second) = (self.first.get_mut(i), &mut self.second[i]);
                    let running = Some(Running { value, beta });
                    step.update(&mut param.value, gradient, first, second, running)
                }
                None => adam::average(value, &param.value, beta),
            }
        })?;
        Ok(if step.is_some() { sum.sqrt() } else { sum })
    }

    /// The constants of the step after all that have been taken.
    fn next(&mut self, learning_rate: f64) -> Adam {
        self.steps += 1;
        Adam {
            lr: learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            form: match self.config.epsilon_form {
                EpsilonForm::Official => Epsilon::Official,
                EpsilonForm::Paper => Epsilon::Paper,
            },
            step: self.steps,
        }
    }
}

/// A network's running average, to move along with it.
#[derive(Debug)]
pub struct Average<'a> {
    /// The average.
    pub params: &'a mut Params,
    /// What it keeps of itself.
    pub beta: f64,
    /// How far the network has grown: above, no parameter has ever moved, and the average is the same.
    pub level: u32,
}

impl Average<'_> {
    /// Becomes what it is the average of.
    ///
    /// # Errors
    /// If it is of another network.
    pub fn take(self, params: &mut Params) -> Result<()> {
        params.update_beside(self.params, |_, param, value| {
            adam::average(value, &param.value, 0.0)
        })?;
        Ok(())
    }
}

/// Of all gradients together; not finite if one of them is not.
fn sum_of_squares(grads: &Grads) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in grads.iter().flatten() {
        sum += adam::sum_of_squares(gradient)?;
    }
    Ok(sum)
}
