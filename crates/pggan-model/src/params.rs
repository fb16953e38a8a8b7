use std::ops::RangeInclusive;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor, bail};
use pggan_ops::conv::{Kernel, Resample};
use pggan_ops::mix;

use crate::Growth;
use crate::error::Result;

/// How much of a running average is the newest batch's (Lasagne's default, which the official code took).
const OBSERVED: f64 = 0.1;

/// See [`Params::are_short_on`]. Measured with two threads: 32 images of 32x32 gain a little, of 64x64 nothing.
const SHORT_PIXELS: usize = 32 << 10;
const SHORT_COUNT: usize = 2 << 20;

/// See [`Params::are_tiny_on`]. Measured with two threads: 16 images of 8x8 and of 16x16 by 32 maps gain, of 4x4 by 32 maps,
/// of 32x32 by 32 maps and of 16x16 by 64 maps do not.
const TINY_PIXELS: RangeInclusive<usize> = 1 << 10..=8 << 10;
const TINY_COUNT: usize = 1 << 17;

/// One parameter of a network: what it learns, or (batch norm's statistics) what it remembers.
#[derive(Clone, Debug)]
pub struct Param {
    /// The path of the layer, `level05.conv1.weight`.
    pub name: String,
    /// Weights are `[O, I, k, k]` or `[out, in]`, biases and gains `[C]`, statistics `[3, C]`.
    pub value: Tensor,
}

/// Where a parameter stands in its network's [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParamId(usize);

/// The parameters of a network, in a fixed order.
///
/// What the convolution engine makes of a weight is kept beside it until the next [`Params::update`].
#[derive(Debug)]
pub struct Params {
    entries: Vec<Param>,
    kernels: Vec<OnceLock<Kernel>>,
}

impl Param {
    /// The level of the layer that it belongs to; up to there a network must grow for it to take part.
    pub fn level(&self) -> Option<u32> {
        self.name.strip_prefix("level")?.get(..2)?.parse().ok()
    }
}

impl Params {
    /// All parameters, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Param> {
        self.entries.iter()
    }

    /// The parameter of that name.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn named(&self, name: &str) -> Result<&Tensor> {
        match self.entries.iter().find(|p| p.name == name) {
            Some(param) => Ok(&param.value),
            None => bail!("these parameters have no {name}"),
        }
    }

    /// How many numbers there are in all.
    pub fn count(&self) -> usize {
        self.entries.iter().map(|p| p.value.elem_count()).sum()
    }

    /// Whether the passes on these images (`[N, R, R, C]`) are so short that those which don't depend on each other should run
    /// beside each other, which takes more memory ([`pggan_ops::pool::both`]). The shapes decide, not the number of threads,
    /// since sums may be rounded differently. Another device than the CPU has its own queue, and gains nothing.
    pub fn are_short_on(&self, images: &Tensor) -> bool {
        let [n, h, w, _] = *images.dims() else { return false };
        images.device().is_cpu() && n * h * w <= SHORT_PIXELS && self.count() <= SHORT_COUNT
    }

    /// Whether a step on so many samples is made of operations so short that halves of the minibatch should go all
    /// the way beside each other ([`pggan_ops::pool::join`]): each thread then waits once, and finds in its cache what it
    /// wrote. Shapes decide, as in [`Params::are_short_on`].
    pub fn are_tiny_on(&self, samples: usize, growth: Growth) -> bool {
        let pixels = 1usize.checked_shl(growth.level.saturating_mul(2)).unwrap_or(usize::MAX);
        let pixels = pixels.saturating_mul(samples);
        self.device().is_cpu() && TINY_PIXELS.contains(&pixels) && self.count() <= TINY_COUNT
    }

    /// Where they live.
    pub fn device(&self) -> Device {
        self.entries.first().map_or(Device::Cpu, |p| p.value.device().clone())
    }

    /// Changes parameters: the one way to do so. `change` gets each one with its position.
    ///
    /// # Errors
    /// Whatever `change` returns; and if it changes a shape.
    pub fn update(
        &mut self,
        mut change: impl FnMut(usize, &str, &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        for (i, param) in self.entries.iter_mut().enumerate() {
            let shape = param.value.shape().clone();
            self.kernels[i] = OnceLock::new();
            change(i, &param.name, &mut param.value)?;
            if param.value.shape() != &shape {
                bail!("{}: {shape:?} cannot become {:?}", param.name, param.value.shape());
            }
        }
        Ok(())
    }

    /// Changes parameters together with those of another network of the same shape: a running average.
    ///
    /// # Errors
    /// Whatever `change` returns; if the networks differ; and if it changes a shape.
    pub fn update_beside(
        &mut self,
        other: &mut Params,
        mut change: impl FnMut(usize, &mut Param, &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        if self.entries.len() != other.entries.len() {
            bail!("networks of {} and {} parameters", self.entries.len(), other.entries.len());
        }
        for (i, (param, beside)) in self.entries.iter_mut().zip(&mut other.entries).enumerate() {
            let shape = param.value.shape().clone();
            (self.kernels[i], other.kernels[i]) = (OnceLock::new(), OnceLock::new());
            change(i, param, &mut beside.value)?;
            for value in [&param.value, &beside.value] {
                if value.shape() != &shape {
                    bail!("{}: {shape:?} cannot become {:?}", param.name, value.shape());
                }
            }
        }
        Ok(())
    }

    /// Takes in what a pass has seen of the batch: batch norm's running averages move by a tenth. To be called once after each
    /// step of the generator; without batch norm it does nothing. What is not finite is passed over, like such a step.
    ///
    /// # Errors
    /// If the gradients are of another network.
    pub fn observe(&mut self, grads: &Grads) -> Result<()> {
        for (id, seen) in &grads.observed {
            let sum = seen.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if sum.is_finite() {
                let average = (self.value(*id) * (1.0 - OBSERVED))?;
                self.set(*id, (average + (seen * OBSERVED)?)?)?;
            }
        }
        Ok(())
    }

    /// Changes one parameter.
    pub(crate) fn set(&mut self, id: ParamId, value: Tensor) -> Result<()> {
        let param = &mut self.entries[id.0];
        if param.value.shape() != value.shape() {
            bail!("{}: {:?} cannot become {:?}", param.name, param.value.shape(), value.shape());
        }
        param.value = value;
        self.kernels[id.0] = OnceLock::new();
        Ok(())
    }

    /// Frees what the engine keeps beside the weights where it takes much memory; it is made again when it is wanted.
    pub fn release(&self) {
        self.kernels.iter().filter_map(OnceLock::get).for_each(Kernel::release);
    }

    /// The same parameters in memory of their own.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn copy(&self) -> Result<Self> {
        let mut entries = Vec::with_capacity(self.entries.len());
        for param in &self.entries {
            entries.push(Param { name: param.name.clone(), value: param.value.copy()? });
        }
        let kernels = entries.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { entries, kernels })
    }

    pub(crate) fn value(&self, id: ParamId) -> &Tensor {
        &self.entries[id.0].value
    }

    /// The convolution with this weight; a dense layer is one of 1x1.
    pub(crate) fn kernel(&self, id: ParamId, scale: f64, resample: Resample) -> Result<&Kernel> {
        if let Some(kernel) = self.kernels[id.0].get() {
            return Ok(kernel);
        }
        let weight = &self.entries[id.0].value;
        let kernel = match *weight.dims() {
            [o, i] => Kernel::new(&weight.reshape((o, i, 1, 1))?, scale, resample)?,
            _ => Kernel::new(weight, scale, resample)?,
        };
        Ok(self.kernels[id.0].get_or_init(|| kernel))
    }
}

/// Draws the standard normal values of a new weight, given its name.
pub(crate) type Normal<'a> = dyn FnMut(&str, &mut [f32]) + 'a;

/// Makes a network's parameters, one layer after the other.
pub(crate) struct Builder<'a> {
    dtype: DType,
    device: &'a Device,
    normal: &'a mut Normal<'a>,
    equalized: bool,
    entries: Vec<Param>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        dtype: DType,
        device: &'a Device,
        normal: &'a mut Normal<'a>,
        equalized: bool,
    ) -> Self {
        Self { dtype, device, normal, equalized, entries: Vec::new() }
    }

    /// A weight of a layer whose weights have the standard deviation `std`, and the factor that it is to be multiplied by
    /// whenever the layer runs: drawn from N(0, 1) with the factor `std` where the learning rate is equalized (paper
    /// §4.1), from N(0, std²) with the factor 1 elsewhere.
    pub(crate) fn weight(
        &mut self,
        layer: &str,
        shape: &[usize],
        std: f64,
    ) -> Result<(ParamId, f64)> {
        if self.equalized {
            return Ok((self.plain_weight(layer, shape, 1.0)?, std));
        }
        Ok((self.plain_weight(layer, shape, std)?, 1.0))
    }

    /// A weight from N(0, std²).
    pub(crate) fn plain_weight(
        &mut self,
        layer: &str,
        shape: &[usize],
        std: f64,
    ) -> Result<ParamId> {
        let name = format!("{layer}.weight");
        let mut values = vec![0f32; shape.iter().product()];
        (self.normal)(&name, &mut values);
        let value = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?;
        let value = if std == 1.0 { value } else { (value * std)? };
        Ok(self.push(name, value.to_device(self.device)?))
    }

    /// `layer.kind`, which begins as `value` everywhere.
    pub(crate) fn constant(
        &mut self,
        layer: &str,
        kind: &str,
        shape: &[usize],
        value: f64,
    ) -> Result<ParamId> {
        let value = Tensor::full(value, shape, self.device)?.to_dtype(self.dtype)?.contiguous()?;
        Ok(self.push(format!("{layer}.{kind}"), value))
    }

    pub(crate) fn finish(self) -> Params {
        let kernels = self.entries.iter().map(|_| OnceLock::new()).collect();
        Params { entries: self.entries, kernels }
    }

    fn push(&mut self, name: String, value: Tensor) -> ParamId {
        self.entries.push(Param { name, value });
        ParamId(self.entries.len() - 1)
    }
}

/// Gradients, by the position of their parameters; `None` where a parameter took no part.
#[derive(Debug)]
pub struct Grads {
    values: Vec<Option<Tensor>>,
    /// What passes have seen of the batch: see [`Params::observe`].
    observed: Vec<(ParamId, Tensor)>,
}

impl Grads {
    /// No gradient yet for any of `params`.
    pub fn new(params: &Params) -> Self {
        Self { values: vec![None; params.entries.len()], observed: Vec::new() }
    }

    /// The gradient of the parameter at `position`.
    pub fn get(&self, position: usize) -> Option<&Tensor> {
        self.values.get(position)?.as_ref()
    }

    /// All of them, in the parameters' order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&Tensor>> {
        self.values.iter().map(Option::as_ref)
    }

    /// Adds those of another loss.
    ///
    /// # Errors
    /// If they are of another network.
    pub fn merge(&mut self, others: Self) -> Result<()> {
        if others.values.len() != self.values.len() {
            bail!("gradients of {} and {} parameters", self.values.len(), others.values.len());
        }
        for (position, gradient) in others.values.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                self.add(ParamId(position), gradient)?;
            }
        }
        self.observed.extend(others.observed);
        Ok(())
    }

    /// Takes what there is of a parameter's gradient so far, and puts back what `add` makes of it.
    pub(crate) fn accumulate(
        &mut self,
        id: ParamId,
        add: impl FnOnce(Option<Tensor>) -> Result<Tensor>,
    ) -> Result<()> {
        let slot = &mut self.values[id.0];
        *slot = Some(add(slot.take())?);
        Ok(())
    }

    /// Adds to a parameter's gradient.
    pub(crate) fn add(&mut self, id: ParamId, gradient: Tensor) -> Result<()> {
        self.accumulate(id, |sum| match sum {
            Some(sum) => mix::add(sum, &gradient),
            None => Ok(gradient),
        })
    }

    /// Keeps what was seen for [`Params::observe`].
    pub(crate) fn observe(&mut self, id: ParamId, seen: Tensor) {
        self.observed.push((id, seen));
    }
}
