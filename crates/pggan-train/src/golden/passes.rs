//! Forward passes, and the gradients of one step.

use candle_core::DType;
use pggan_model::{Grads, Growth, Params};
use pggan_ops::mix;

use super::file::File;
use super::networks::{Networks, official};
use super::{Checks, TYPES, largest, tolerance};
use crate::step::{Batch, discriminator_step, generator_step};
use crate::{Error, Result};

impl Checks<'_> {
    pub(super) fn forward(&mut self, net: &Networks, file: &File) -> Result<()> {
        for ((dtype, name), tolerance) in TYPES.into_iter().zip(tolerance::FORWARD) {
            let labels = file.find("labels", dtype)?;
            let pairs = [net.build(true, dtype)?, net.build(false, dtype)?];
            for (key, expected) in &file.tensors {
                let parts: Vec<&str> = key.split('/').collect();
                let [network, r, alpha, "f64"] = parts[..] else { continue };
                let growth = r.parse::<usize>().ok().zip(alpha.strip_prefix("alpha"));
                let growth = growth.and_then(|(r, alpha)| {
                    Some(Growth { level: r.checked_ilog2()?, alpha: alpha.parse().ok()? })
                });
                let Some(growth) = growth else {
                    return Err(file.problem(&format!("what is {key}?")));
                };
                let (g, d) = &pairs[usize::from(network == "D_unfused")];
                let ours = if network == "G" {
                    g.generate(&file.get("z")?.to_dtype(dtype)?, labels.as_ref(), growth)?
                } else {
                    d.forward(&file.images(&format!("images/{r}"), dtype)?, growth, 1)?.0
                };
                self.compare(
                    format!("{network}/{r}/{alpha} in {name}"),
                    &ours,
                    expected,
                    tolerance,
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn gradients(&mut self, net: &Networks, file: &File) -> Result<()> {
        let (growth, loss) = (file.growth()?, file.loss()?);
        for (dtype, name) in TYPES {
            let exact = dtype == DType::F64;
            let tolerance = if exact { tolerance::GRADIENT } else { tolerance::GRADIENT32 };
            let (g, d) = net.build(file.fused(), dtype)?;
            let (real, mixing) = (file.images("real", dtype)?, file.get("mix")?.to_dtype(dtype)?);
            let labels = file.find("labels", dtype)?;
            let latents = |key: &str| file.get(key)?.to_dtype(dtype).map_err(Error::from);
            let fake = g.forward_only(&latents("z_d")?, labels.as_ref(), growth)?;
            let expected = file.images("D/fake/f64", DType::F64)?;
            self.compare(format!("D/fake in {name}"), &fake, &expected, tolerance)?;

            // Scores, and the gradients that the penalty is of.
            let mixed = mix::lerp_samples(&real, &fake, &mixing)?;
            for (kind, images) in [("real", &real), ("fake", &fake), ("mixed", &mixed)] {
                let Some(expected) = file.tensors.get(&format!("D/scores_{kind}/f64")) else {
                    continue;
                };
                let (outputs, tape) = d.forward(images, growth, 1)?;
                let scores = outputs.narrow(1, 0, 1)?;
                self.compare(format!("D/scores_{kind} in {name}"), &scores, expected, tolerance)?;
                if kind == "mixed" {
                    let ones = scores.ones_like()?.pad_with_zeros(1, 0, outputs.dim(1)? - 1)?;
                    let gradient = d.image_grad(tape, &ones)?;
                    let norms = mix::norms(&gradient)?;
                    let expected = file.get("D/mixed_norms/f64")?;
                    self.compare(format!("D/mixed_norms in {name}"), &norms, expected, tolerance)?;
                    if file.tensors.contains_key("D/mixed_grads/f64") {
                        let expected = file.images("D/mixed_grads/f64", DType::F64)?;
                        self.compare(
                            format!("D/mixed_grads in {name}"),
                            &gradient,
                            &expected,
                            tolerance,
                        )?;
                    }
                }
            }

            let batch = Batch {
                real: &real,
                fake: &fake,
                mixing: &mixing,
                labels: labels.as_ref(),
                noise: None,
            };
            let (grads, report) = discriminator_step(&d, batch, growth, &loss)?;
            self.number(
                format!("D/loss in {name}"),
                report.loss,
                file.get("D/loss/f64")?,
                tolerance,
            )?;
            self.params("D", d.params(), &grads, net, file, (name, exact))?;
            let (grads, value) =
                generator_step(&g, &d, &latents("z_g")?, labels.as_ref(), None, growth, &loss)?;
            self.number(format!("G/loss in {name}"), value, file.get("G/loss/f64")?, tolerance)?;
            self.params("G", g.params(), &grads, net, file, (name, exact))?;
        }
        Ok(())
    }

    /// All gradients of a network's parameters.
    fn params(
        &mut self,
        network: &str,
        params: &Params,
        grads: &Grads,
        net: &Networks,
        file: &File,
        (name, exact): (&str, bool),
    ) -> Result<()> {
        for (param, ours) in params.iter().zip(grads.iter()) {
            let full = official(network, &param.name, net.config.max_level());
            let scope = &full[network.len() + 1..];
            let key = format!("{network}/grad/{scope}");
            let whole = file.tensors.get(&format!("{key}/f64"));
            let rounded = file.tensors.get(&format!("{key}/f64r32"));
            let (ours, expected) = match (ours, whole.or(rounded)) {
                (Some(ours), Some(expected)) => (ours, expected),
                (None, None) => continue,
                // One has a gradient where the other has none.
                (ours, _) => {
                    let side = if ours.is_some() { "expected" } else { "ours" };
                    self.row(format!("{key} in {name}: none {side}"), f64::INFINITY, 0.0);
                    continue;
                }
            };
            let tolerance = match (exact, whole) {
                (true, Some(_)) => tolerance::GRADIENT,
                (true, None) => tolerance::ROUNDED,
                (false, _) => {
                    let case = self.file.split_once('_').map_or("", |(_, case)| case);
                    let lost = net.lost.get(&format!("{case}/{key}")).copied().unwrap_or(0.0);
                    tolerance::GRADIENT32.max(tolerance::MULTIPLE * lost)
                }
            };
            if network == "D" && scope == "4x4/Dense1/bias" {
                // The scores of real and generated images cancel here: only the absolute error says something.
                let off = (ours.to_dtype(DType::F64)? - expected.to_dtype(DType::F64)?)?;
                let off = largest(&off)?;
                self.row(format!("{key} in {name}, absolute"), off, tolerance);
            } else {
                self.compare(format!("{key} in {name}"), ours, expected, tolerance)?;
            }
        }
        Ok(())
    }
}
