//! Checks against numbers that another implementation made: forward passes, gradients, steps of training, single
//! operations and schedules, from a folder of safetensors files.
//!
//! Sizes, alphas and names are read from the files. `NET_params` has a network's weights under the official code's
//! names, `NET_forward` what comes out of it, `NET_*` with a `mode` in its metadata the gradients of a step or the
//! weights after three. What was computed in `f64` is compared with our `f64` (the generic path) and with our `f32`
//! (the engine's own kernels).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Grads, Growth, ModelConfig, Params};
use pggan_ops::activation::SLOPE;
use pggan_ops::conv::{Kernel, Resample};
use pggan_ops::stddev::{self, Groups};
use pggan_ops::{activation, adam, mix, reals, resample};
use serde::Deserialize;

use crate::loss::{LossConfig, LossKind};
use crate::optim::{Average, EpsilonForm, OptimConfig, Optimizer};
use crate::schedule::{ByResolution, ScheduleConfig};
use crate::step::{Batch, DiscriminatorReport, discriminator_step, generator_step};
use crate::{Error, Result, samples};

/// One comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// The file, without its ending.
    pub file: String,
    /// What was compared, as the file names it, and in which type we computed it.
    pub quantity: String,
    /// The largest difference, by the largest number expected.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
}

impl Row {
    /// Whether the error is within the tolerance.
    pub fn ok(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// What a folder's files were compared with.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All comparisons, file by file.
    pub rows: Vec<Row>,
    /// Files that are not of a kind that is checked here.
    pub skipped: Vec<String>,
}

/// Largest errors allowed; all relative to the largest number of a tensor.
mod tolerance {
    /// Forward in `f64` and in `f32`.
    pub(super) const FORWARD: [f64; 2] = [1e-12, 1e-5];
    /// Gradients in `f64`, and of numbers that were rounded to `f32`.
    pub(super) const GRADIENT: f64 = 1e-10;
    pub(super) const ROUNDED: f64 = 1e-6;
    /// Gradients in `f32`, and as a multiple of what the other implementation lost in `f32`.
    pub(super) const GRADIENT32: f64 = 5e-5;
    pub(super) const MULTIPLE: f64 = 10.0;
    /// Weights after some steps, in `f64`.
    pub(super) const STEPS: f64 = 1e-9;
    /// Single operations: of the generic path and of the engine.
    pub(super) const OPERATION: [f64; 2] = [1e-12, 2e-6];
}

/// Checks every file of a folder.
///
/// # Errors
/// If the folder or a file cannot be read, or holds something else than its name says.
pub fn check(folder: &Path) -> Result<Report> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    let mut report = Report::default();
    for name in &names {
        let path = folder.join(name);
        let stem = name.split('.').next().unwrap_or_default();
        let mut checks = Checks { file: stem.to_owned(), rows: &mut report.rows };
        if name == "schedule.json" {
            checks.schedules(&path)?;
        } else if name == "ops.safetensors" {
            checks.operations(&File::read(&path)?)?;
        } else if let Some(net) = network(folder, name) {
            let file = File::read(&path)?;
            let net =
                Networks::read(&folder.join(format!("{net}_params.safetensors")), folder, net)?;
            match file.meta("mode") {
                None => checks.forward(&net, &file)?,
                Some(_) if file.tensors.contains_key("real0") => checks.steps(&net, &file)?,
                Some(_) => checks.gradients(&net, &file)?,
            }
        } else if !name.ends_with("_params.safetensors") && !name.ends_with("_f32_error.json") {
            report.skipped.push(name.clone());
        }
    }
    if report.rows.is_empty() {
        let reason = "no file to check; it should hold NET_params.safetensors, NET_forward.safetensors and so on";
        return Err(Error::Usage(format!("{}: {reason}", folder.display())));
    }
    Ok(report)
}

/// The network that a file is about: the longest name whose weights are in the folder.
fn network<'a>(folder: &Path, file: &'a str) -> Option<&'a str> {
    let stem = file.strip_suffix(".safetensors").filter(|stem| !stem.ends_with("_params"))?;
    stem.rmatch_indices('_')
        .map(|(at, _)| &stem[..at])
        .find(|net| folder.join(format!("{net}_params.safetensors")).exists())
}

/// A safetensors file with its metadata.
struct File {
    name: String,
    tensors: BTreeMap<String, Tensor>,
    meta: BTreeMap<String, String>,
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let name = path.display().to_string();
        let damaged = |e: &dyn std::fmt::Display| Error::Usage(format!("{name}: {e}"));
        let (_, header) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
        let meta = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| damaged(&e))?
            .into_iter()
            .collect();
        Ok(Self { name, tensors, meta })
    }

    fn meta(&self, key: &str) -> Option<&str> {
        self.meta.get(key).map(String::as_str)
    }

    fn get(&self, key: &str) -> Result<&Tensor> {
        self.tensors.get(key).ok_or_else(|| self.problem(&format!("no tensor {key}")))
    }

    fn find(&self, key: &str, dtype: DType) -> Result<Option<Tensor>> {
        Ok(self.tensors.get(key).map(|t| t.to_dtype(dtype)).transpose()?)
    }

    /// Images, channels last.
    fn images(&self, key: &str, dtype: DType) -> Result<Tensor> {
        Ok(channels_last(&self.get(key)?.to_dtype(dtype)?)?)
    }

    fn number(&self, key: &str) -> Result<f64> {
        match self.meta(key).map(str::parse) {
            Some(Ok(number)) => Ok(number),
            _ => Err(self.problem(&format!("its metadata have no number `{key}`"))),
        }
    }

    fn growth(&self) -> Result<Growth> {
        let level = (self.number("resolution")? as usize).max(1).ilog2();
        Ok(Growth { level, alpha: self.number("alpha")? })
    }

    fn loss(&self) -> Result<LossConfig> {
        let kind = match self.meta("mode") {
            Some("wgangp") => LossKind::WganGp,
            Some("lsgan") => LossKind::Lsgan,
            other => return Err(self.problem(&format!("no loss of the name {other:?}"))),
        };
        Ok(LossConfig { kind, ..LossConfig::default() })
    }

    fn fused(&self) -> bool {
        self.meta("fused_d") != Some("False")
    }

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

    fn problem(&self, what: &str) -> Error {
        Error::Usage(format!("{}: {what}", self.name))
    }
}

/// Weights under the official names, and what another implementation loses in `f32`.
struct Networks {
    config: ModelConfig,
    weights: File,
    /// Files of steps of the same networks.
    steps: Vec<File>,
    lost: BTreeMap<String, f64>,
}

impl Networks {
    fn read(path: &Path, folder: &Path, name: &str) -> Result<Self> {
        /// As the files' metadata say it; what is not said is the official default.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Shape {
            resolution: usize,
            num_channels: Option<usize>,
            fmap_base: Option<usize>,
            fmap_decay: Option<f64>,
            fmap_max: Option<usize>,
            latent_size: Option<usize>,
            label_size: Option<usize>,
            mbstd_group: Option<usize>,
        }
        let weights = File::read(path)?;
        let text = weights.meta("config").ok_or_else(|| weights.problem("no config"))?;
        let shape: Shape =
            serde_json::from_str(text).map_err(|e| weights.problem(&format!("config: {e}")))?;
        let usual = ModelConfig::default();
        let config = ModelConfig {
            resolution: shape.resolution,
            channels: shape.num_channels.unwrap_or(usual.channels),
            fmap_base: shape.fmap_base.unwrap_or(usual.fmap_base),
            fmap_decay: shape.fmap_decay.unwrap_or(usual.fmap_decay),
            fmap_max: shape.fmap_max.unwrap_or(usual.fmap_max),
            latent_size: shape.latent_size.unwrap_or(usual.latent_size),
            label_size: shape.label_size.unwrap_or(usual.label_size),
            mbstd_group: shape.mbstd_group.unwrap_or(usual.mbstd_group),
            ..usual
        };
        let lost = fs::read(folder.join(format!("{name}_f32_error.json"))).ok();
        let lost = lost.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut steps = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.starts_with(&format!("{name}_steps")) && file.ends_with(".safetensors") {
                steps.push(File::read(&path)?);
            }
        }
        Ok(Self { config, weights, steps, lost })
    }

    fn build(&self, fused_scale: bool, dtype: DType) -> Result<(Generator, Discriminator)> {
        self.build_from(&self.weights, ("", ""), fused_scale, dtype)
    }

    /// Networks with the weights of a file, under names with something before and behind.
    fn build_from(
        &self,
        weights: &File,
        (prefix, suffix): (&str, &str),
        fused_scale: bool,
        dtype: DType,
    ) -> Result<(Generator, Discriminator)> {
        let config = ModelConfig { fused_scale, ..self.config.clone() };
        let nothing = &mut |_: &str, _: &mut [f32]| ();
        let mut g = Generator::new(&config, dtype, &Device::Cpu, nothing)?;
        let mut d = Discriminator::new(&config, dtype, &Device::Cpu, nothing)?;
        for (network, params) in [("G", g.params_mut()), ("D", d.params_mut())] {
            let level = config.max_level();
            let mut missing = None;
            params.update(|_, name, value| {
                let name = format!("{prefix}{}{suffix}", official(network, name, level));
                match weights.tensors.get(&name) {
                    // A copy: updates are in place.
                    Some(weight) => *value = weight.to_dtype(dtype)?.copy()?,
                    None => missing = Some(name),
                }
                Ok(())
            })?;
            if let Some(name) = missing {
                return Err(weights.problem(&format!("no tensor {name}")));
            }
        }
        Ok((g, d))
    }

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

/// The official code's name of one of our parameters, in networks that grow to 2^`max_level`.
fn official(network: &str, ours: &str, max_level: u32) -> String {
    let (layer, kind) = ours.rsplit_once('.').unwrap_or((ours, ""));
    let (level, layer) = layer.split_once('.').unwrap_or((layer, ""));
    let level: u32 = level.trim_start_matches("level").parse().unwrap_or_default();
    let (r, lod) = (1u32 << level, max_level.saturating_sub(level));
    let scope = match (network, layer) {
        (_, "to_rgb") => format!("ToRGB_lod{lod}"),
        (_, "from_rgb") => format!("FromRGB_lod{lod}"),
        (_, "dense") => "4x4/Dense".to_owned(),
        (_, "dense0") => "4x4/Dense0".to_owned(),
        (_, "dense1") => "4x4/Dense1".to_owned(),
        ("D", "conv") => "4x4/Conv".to_owned(),
        ("G", "conv1") if level == 2 => "4x4/Conv".to_owned(),
        ("G", "conv0") => format!("{r}x{r}/Conv0_up"),
        ("D", "conv1") => format!("{r}x{r}/Conv1_down"),
        (_, "conv0") => format!("{r}x{r}/Conv0"),
        _ => format!("{r}x{r}/Conv1"),
    };
    format!("{network}/{scope}/{kind}")
}

const TYPES: [(DType, &str); 2] = [(DType::F64, "f64"), (DType::F32, "f32")];

/// The comparisons of one file.
struct Checks<'a> {
    file: String,
    rows: &'a mut Vec<Row>,
}

impl Checks<'_> {
    fn row(&mut self, quantity: String, error: f64, tolerance: f64) {
        self.rows.push(Row { file: self.file.clone(), quantity, error, tolerance });
    }

    fn compare(
        &mut self,
        quantity: String,
        ours: &Tensor,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let error = relative(ours, expected)?;
        self.row(quantity, error, tolerance);
        Ok(())
    }

    fn forward(&mut self, net: &Networks, file: &File) -> Result<()> {
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

    fn gradients(&mut self, net: &Networks, file: &File) -> Result<()> {
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

    /// Discriminator, generator, average, three times over: with both forms of Adam.
    fn steps(&mut self, net: &Networks, file: &File) -> Result<()> {
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

    fn operations(&mut self, file: &File) -> Result<()> {
        for ((dtype, name), tolerance) in TYPES.into_iter().zip(tolerance::OPERATION) {
            let mut compare = |what: &str, ours: &Tensor, expected: &str| {
                let expected = file.images(expected, DType::F64)?;
                self.compare(format!("{what} in {name}"), ours, &expected, tolerance)
            };
            let x = file.images("pixelnorm/x", dtype)?;
            compare("pixelnorm", &activation::pixel_norm(&x, 1e-8)?, "pixelnorm/y/f64")?;
            for key in file.tensors.keys() {
                let Some(n) = key.strip_prefix("mbstd/").and_then(|k| k.strip_suffix("/x")) else {
                    continue;
                };
                let groups = Groups { size: 4, parts: 1 };
                let x = file.images(key, dtype)?;
                let y = stddev::forward(&x, groups)?;
                compare(&format!("mbstd/{n}"), &y, &format!("mbstd/{n}/y/f64"))?;
                let dy = file.images(&format!("mbstd/{n}/cot"), dtype)?;
                let dx = stddev::backward(&x, &dy, groups)?;
                compare(&format!("mbstd/{n}/vjp"), &dx, &format!("mbstd/{n}/vjp/f64"))?;
            }
            for (op, resample, expected) in [
                ("upconv", Resample::Up, "upconv/y/f64"),
                ("convdown", Resample::Down, "convdown/y_fused/f64"),
                ("convdown", Resample::Same, "convdown/y_unfused/f64"),
            ] {
                let x = file.images(&format!("{op}/x"), dtype)?;
                let kernel =
                    Kernel::new(&file.get(&format!("{op}/w"))?.to_dtype(dtype)?, 1.0, resample)?;
                let bias = file.get(&format!("{op}/b"))?.to_dtype(dtype)?;
                let y = match resample {
                    Resample::Up => activation::add_bias(kernel.forward(&x)?, &bias)?,
                    Resample::Down => activation::bias_lrelu(kernel.forward(&x)?, &bias, SLOPE)?,
                    Resample::Same => resample::mean2x2(&activation::bias_lrelu(
                        kernel.forward(&x)?,
                        &bias,
                        SLOPE,
                    )?)?,
                };
                compare(expected.trim_end_matches("/f64"), &y, expected)?;
            }
        }
        self.pixels(file)
    }

    /// Stored pixels to what the discriminator sees, and a generator's images to stored pixels.
    fn pixels(&mut self, file: &File) -> Result<()> {
        let pixels = file.get("reals/u8")?;
        let (n, c, r, _) = pixels.dims4()?;
        let mirror = file.get("reals/mirror_u")?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut bytes = pixels.flatten_all()?.to_vec1::<u8>()?;
        for (image, u) in bytes.chunks_exact_mut(c * r * r).zip(mirror) {
            if u >= 0.5 {
                image.chunks_exact_mut(r).for_each(<[u8]>::reverse);
            }
        }
        for key in file.tensors.keys() {
            let alpha = key.strip_prefix("reals/y_alpha").and_then(|k| k.strip_suffix("/f64"));
            let Some(Ok(alpha)) = alpha.map(str::parse) else { continue };
            let ours = reals::normalize(&bytes, c, r, alpha);
            let ours = Tensor::from_vec(ours, (n, r, r, c), &Device::Cpu)?;
            let expected = file.images(key, DType::F64)?;
            self.compare(format!("reals/alpha{alpha}"), &ours, &expected, tolerance::OPERATION[1])?;
        }
        let images = file.get("to_u8/x")?.to_dtype(DType::F32)?;
        let ours = samples::to_bytes(&images)?;
        let expected = file.get("to_u8/y_rint_clip")?.flatten_all()?.to_vec1::<u8>()?;
        let off = ours.iter().zip(&expected).filter(|(a, b)| a != b).count();
        let off = off + ours.len().abs_diff(expected.len());
        self.row("to_u8, pixels that differ".to_owned(), off as f64, 0.0);
        Ok(())
    }

    fn schedules(&mut self, path: &Path) -> Result<()> {
        #[derive(Deserialize)]
        struct Case {
            params: Settings,
            points: Vec<Point>,
        }
        #[derive(Deserialize)]
        struct Settings {
            rl2: u32,
            init_res: usize,
            train_k: f64,
            trans_k: f64,
            mb_base: usize,
            mb_dict: BTreeMap<usize, usize>,
            lr_base: f64,
            lr_dict: BTreeMap<usize, f64>,
        }
        #[derive(Deserialize)]
        struct Point {
            kimg: f64,
            lod: f64,
            resolution: usize,
            alpha: f64,
            minibatch: usize,
            lrate: f64,
        }
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let cases: BTreeMap<String, Case> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
        for (name, Case { params, points }) in cases {
            let schedule = ScheduleConfig {
                initial_resolution: params.init_res,
                training_kimg: params.train_k,
                transition_kimg: params.trans_k,
                minibatch_base: params.mb_base,
                minibatch: ByResolution(params.mb_dict),
                learning_rate_base: params.lr_base,
                learning_rate: ByResolution(params.lr_dict),
                ..ScheduleConfig::default()
            };
            let mut worst = 0f64;
            for point in &points {
                let stage = schedule.stage_at(params.rl2, (point.kimg * 1000.0).round() as u64);
                for (ours, expected) in [
                    (stage.lod, point.lod),
                    (stage.growth.alpha, point.alpha),
                    (stage.growth.resolution() as f64, point.resolution as f64),
                    (stage.minibatch as f64, point.minibatch as f64),
                    (stage.learning_rate, point.lrate),
                ] {
                    worst = worst.max((ours - expected).abs());
                }
            }
            self.row(format!("{name}, {} points", points.len()), worst, 1e-9);
        }
        Ok(())
    }

    fn number(
        &mut self,
        quantity: String,
        ours: f64,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let ours = Tensor::new(&[ours], &Device::Cpu)?;
        self.compare(quantity, &ours, expected, tolerance)
    }
}

fn channels_last(images: &Tensor) -> candle_core::Result<Tensor> {
    images.permute((0, 2, 3, 1))?.contiguous()
}

/// The largest difference, by the size of the largest number that is expected; infinite where shapes differ.
fn relative(ours: &Tensor, expected: &Tensor) -> Result<f64> {
    if ours.elem_count() != expected.elem_count() {
        return Ok(f64::INFINITY);
    }
    let ours = ours.to_dtype(DType::F64)?.reshape(expected.dims())?;
    let expected = expected.to_dtype(DType::F64)?;
    let error = largest(&(ours - &expected)?)? / largest(&expected)?.max(f64::MIN_POSITIVE);
    // A comparison that is not a number has failed.
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

fn largest(x: &Tensor) -> Result<f64> {
    let values = x.flatten_all()?.to_vec1::<f64>()?;
    // Unlike `f64::max`, keeps what is not a number.
    Ok(values.iter().fold(0.0, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m }))
}
