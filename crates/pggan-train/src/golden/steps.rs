//! Three steps of training.

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Grads, Growth};
use pggan_ops::adam;

use super::file::File;
use super::networks::{Networks, official};
use super::{Checks, tolerance};
use crate::loss::LossConfig;
use crate::optim::{Average, EpsilonForm, OptimConfig, Optimizer};
use crate::step::{Batch, DiscriminatorReport, discriminator_step, generator_step};
use crate::{Error, Result};

impl Checks<'_> {
    /// Discriminator, generator, average, three times over: with both forms of Adam.
    pub(super) fn steps(&mut self, net: &Networks, file: &File) -> Result<()> {
        let (growth, loss) = (file.growth()?, file.loss()?);
        let forms = [
            (EpsilonForm::Paper, "after3", "losses_DG/f64"),
            (EpsilonForm::Official, "after3_tfadam", "losses_DG_tfadam/f64"),
        ];
        for (form, after, losses) in forms {
            let config = OptimConfig { epsilon_form: form, ..OptimConfig::default() };
            let Some(expected) = file.tensors.get(losses) else { continue };
            let first = expected.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            let (mut g, mut d) = net.before(file, first.first().copied().unwrap_or_default())?;
            let mut g_ema = g.duplicate()?;
            let mut g_optim = Optimizer::new(&config, g.params())?;
            let mut d_optim = Optimizer::new(&config, d.params())?;
            let mut values = Vec::new();
            for i in 0..3 {
                let (grads, report) = file.d_step(i, &g, &d, growth, &loss)?;
                d_optim.step(d.params_mut(), &grads, 0.001)?;
                let latents = file.get(&format!("z_g{i}"))?.to_dtype(DType::F64)?;
                let (grads, value) = generator_step(&g, &d, &latents, None, None, growth, &loss)?;
                let average = Average {
                    params: g_ema.params_mut(),
                    beta: config.ema_beta,
                    level: growth.level,
                };
                g_optim.step_and_average(g.params_mut(), &grads, 0.001, average)?;
                values.extend([report.loss, value]);
            }
            // The file's average moves after each step of the generator, the official one before it: one move is
            // missing.
            g_ema.params_mut().update_beside(g.params_mut(), |_, average, p| {
                adam::average(&mut average.value, p, config.ema_beta)
            })?;
            let values = Tensor::from_vec(values, (3, 2), &Device::Cpu)?;
            self.compare(losses.to_owned(), &values, expected, tolerance::STEPS)?;
            for (network, part, params) in
                [("G", "G", g.params()), ("D", "D", d.params()), ("G", "Gs", g_ema.params())]
            {
                for param in params.iter() {
                    let name = official(network, &param.name, net.config.max_level());
                    let key = format!("{after}/{part}/{}", &name[network.len() + 1..]);
                    // A file may have the average for one form of Adam only.
                    if let Some(expected) = file.tensors.get(&key) {
                        self.compare(key, &param.value, expected, tolerance::STEPS)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl File {
    /// The i-th step of the discriminator.
    fn d_step(
        &self,
        i: usize,
        g: &Generator,
        d: &Discriminator,
        growth: Growth,
        loss: &LossConfig,
    ) -> Result<(Grads, DiscriminatorReport)> {
        let input =
            |key: &str| self.get(&format!("{key}{i}"))?.to_dtype(DType::F64).map_err(Error::from);
        let real = self.images(&format!("real{i}"), DType::F64)?;
        let fake = g.forward_only(&input("z_d")?, None, growth)?;
        let mixing = input("mix")?;
        let batch = Batch { real: &real, fake: &fake, mixing: &mixing, labels: None, noise: None };
        Ok(discriminator_step(d, batch, growth, loss)?)
    }
}

impl Networks {
    /// Networks as the steps in `file` begin with them: some steps go on from where others ended, and the loss of the
    /// first one tells from which.
    fn before(&self, file: &File, first_loss: f64) -> Result<(Generator, Discriminator)> {
        let mut starts = vec![self.build(file.fused(), DType::F64)?];
        for other in self.steps.iter().filter(|other| other.name != file.name) {
            for (prefix, suffix) in [("after3/", ""), ("after3/", "/f32"), ("after3_tfadam/", "")] {
                let found = |key: &String| {
                    key.starts_with(prefix) && key.ends_with(&format!("bias{suffix}"))
                };
                if other.tensors.keys().any(found) {
                    let affixes = (prefix, suffix);
                    starts.push(self.build_from(other, affixes, file.fused(), DType::F64)?);
                }
            }
        }
        let (growth, loss) = (file.growth()?, file.loss()?);
        let mut best = None;
        for (g, d) in starts {
            let (_, report) = file.d_step(0, &g, &d, growth, &loss)?;
            let off = (report.loss - first_loss).abs();
            if best.as_ref().is_none_or(|(least, _)| off < *least) {
                best = Some((off, (g, d)));
            }
        }
        Ok(best.expect("the weights alone are one").1)
    }
}
