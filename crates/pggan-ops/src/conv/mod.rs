//! Convolution: 3x3 with zero padding, plain or fused with a change of resolution, and 1x1.
//!
//! A [`Kernel`] holds one layer's weights as they are at the moment; it has the three directions of the
//! layer. Because a convolution is linear, the forward pass is also its own tangent.

mod cpu;
mod generic;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor, bail};

use crate::{activation, slices};

/// What happens to the resolution around a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The resolution stays.
    Same,
    /// Nearest-neighbour doubling, then the 3x3 convolution.
    Up,
    /// The 3x3 convolution, then the mean over 2x2 pixels.
    Down,
}

/// What is done to a convolution's output before it leaves the cache: a pass over memory of its own would take longer
/// than the arithmetic.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a> {
    /// Nothing.
    Nothing,
    /// [`activation::bias_lrelu`] with `bias` `[C]`; a slope of 1 leaves the bias alone.
    Activate {
        /// `[C]`.
        bias: &'a Tensor,
        /// Leaky ReLU's below zero.
        slope: f64,
    },
    /// [`activation::lrelu_grad`] where leaky ReLU gave `y`.
    Slopes {
        /// Of the shape of the convolution's output.
        y: &'a Tensor,
        /// Leaky ReLU's below zero.
        slope: f64,
    },
}

impl Finish<'_> {
    /// Calls `f` with the same on slices.
    fn read<R>(self, f: impl FnOnce(cpu::Finish<'_>) -> R) -> Result<R> {
        match self {
            Self::Nothing => Ok(f(cpu::Finish::Nothing)),
            Self::Activate { bias, slope } => {
                slices::read(bias, |bias| f(cpu::Finish::Activate { bias, slope: slope as f32 }))
            }
            Self::Slopes { y, slope } => {
                slices::read(y, |y| f(cpu::Finish::Slopes { y, slope: slope as f32 }))
            }
        }
    }

    /// What `x` becomes, as a pass of its own.
    fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Nothing => Ok(x),
            Self::Activate { bias, slope } => activation::bias_lrelu(x, bias, slope),
            Self::Slopes { y, slope } => activation::lrelu_grad_in_place(x, y, slope, 1.0),
        }
    }

    /// # Errors
    /// If it does not belong to an output of this shape.
    fn check(self, output: [usize; 4]) -> Result<()> {
        match self {
            Self::Activate { bias, .. } if bias.dims() != [output[3]] => {
                bail!("biases {:?} for an output {output:?}", bias.dims())
            }
            Self::Slopes { y, .. } if y.dims() != output => {
                bail!("an activation {:?} for an output {output:?}", y.dims())
            }
            _ => Ok(()),
        }
    }
}

/// The weights of one convolution, ready to be applied in every direction.
///
/// What the CPU kernels make of the weights is made on first use and, where that shows in the time, kept, if it takes much
/// memory until [`Kernel::release`]: make a new `Kernel` whenever the weights have changed.
#[derive(Debug)]
pub struct Kernel {
    weight: Tensor,
    scale: f64,
    resample: Resample,
    out_channels: usize,
    in_channels: usize,
    size: usize,
    forward: Kept,
    back: Kept,
}

type Kept = Mutex<Option<Arc<cpu::Packed>>>;

impl Kernel {
    /// The convolution with `weight * scale`; `weight` is `[O, I, k, k]` with k = 3, or k = 1 where the
    /// resolution stays. `scale` is the constant of the equalized learning rate (paper §4.1).
    ///
    /// # Errors
    /// If the shape of `weight` is not one of these.
    pub fn new(weight: &Tensor, scale: f64, resample: Resample) -> Result<Self> {
        let (out_channels, in_channels, size, width) = weight.dims4()?;
        if size != width || !(size == 3 || (size == 1 && resample == Resample::Same)) {
            bail!("no convolution for weights of shape {:?} with {resample:?}", weight.dims());
        }
        Ok(Self {
            weight: weight.clone(),
            scale,
            resample,
            out_channels,
            in_channels,
            size,
            forward: Kept::default(),
            back: Kept::default(),
        })
    }

    /// # Shapes
    /// `x`: `[N, H, W, I]`; returns `[N, H', W', O]` with H' = H, 2H or H/2.
    ///
    /// # Errors
    /// If the channels of `x` are not those of the weights, or H or W is odd where they are to be halved.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_then(x, Finish::Nothing)
    }

    /// [`Kernel::forward`] and what follows it.
    ///
    /// # Errors
    /// As [`Kernel::forward`]; and if `finish` is of another shape.
    pub fn forward_then(&self, x: &Tensor, finish: Finish<'_>) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        self.check(c, self.in_channels, h, w)?;
        let (ho, wo) = self.output_size(h, w);
        let shape = [n, ho, wo, self.out_channels];
        finish.check(shape)?;
        if !slices::is_fast(x) {
            return finish.apply(generic::forward(x, &self.scaled()?, self.resample)?);
        }
        let y = self.apply(x, cpu::Direction::Forward, cpu::Size { n, h, w }, finish)?;
        slices::tensor(y, &shape)
    }

    /// The gradient with respect to the input, from the one with respect to the output.
    ///
    /// # Shapes
    /// `dy`: `[N, H', W', O]`; returns `[N, H, W, I]`.
    ///
    /// # Errors
    /// If the shape of `dy` cannot have come out of [`Kernel::forward`].
    pub fn input_grad(&self, dy: &Tensor) -> Result<Tensor> {
        self.input_grad_then(dy, Finish::Nothing)
    }

    /// [`Kernel::input_grad`] and what follows it on the way back.
    ///
    /// # Errors
    /// As [`Kernel::input_grad`]; and if `finish` is of another shape.
    pub fn input_grad_then(&self, dy: &Tensor, finish: Finish<'_>) -> Result<Tensor> {
        let (n, h, w, c) = dy.dims4()?;
        let size = cpu::Size { n, h, w };
        let (h, w) = self.input_size(h, w)?;
        self.check(c, self.out_channels, h, w)?;
        let shape = [n, h, w, self.in_channels];
        finish.check(shape)?;
        if !slices::is_fast(dy) {
            return finish.apply(generic::input_grad(dy, &self.scaled()?, self.resample)?);
        }
        let dx = self.apply(dy, cpu::Direction::Back, size, finish)?;
        slices::tensor(dx, &shape)
    }

    /// The gradient with respect to the stored weights (so it carries the factor `scale` as well).
    ///
    /// # Shapes
    /// `x`: `[N, H, W, I]`, `dy`: `[N, H', W', O]`; returns `[O, I, k, k]`.
    ///
    /// # Errors
    /// If the two shapes do not belong together.
    pub fn weight_grad(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let size = self.check_pair(x, dy)?;
        if !slices::is_fast(x) {
            return generic::weight_grad(x, dy, self.size, self.resample)? * self.scale;
        }
        let spec = self.spec();
        let dw = slices::read(x, |x| {
            slices::read(dy, |dy| cpu::weight_grad(x, dy, size, spec, self.scale as f32))
        })??;
        slices::tensor(dw, &[self.out_channels, self.in_channels, self.size, self.size])
    }

    /// [`Kernel::weight_grad`], added to the sum of earlier ones; the memory of `sum` is used again.
    ///
    /// # Shapes
    /// As [`Kernel::weight_grad`]; `sum`: `[O, I, k, k]`.
    ///
    /// # Errors
    /// If the shapes do not belong together.
    pub fn add_weight_grad(&self, x: &Tensor, dy: &Tensor, sum: Tensor) -> Result<Tensor> {
        let shape = [self.out_channels, self.in_channels, self.size, self.size];
        if sum.elem_count() != shape.iter().product::<usize>() {
            bail!("a sum of shape {:?} for weights of shape {shape:?}", sum.dims());
        }
        if !slices::is_fast(x) {
            return &sum + self.weight_grad(x, dy)?.reshape(sum.dims())?;
        }
        let size = self.check_pair(x, dy)?;
        let sum = slices::owned(sum)?;
        let (spec, scale) = (self.spec(), self.scale as f32);
        slices::read(x, |x| {
            slices::read(dy, |dy| {
                slices::write(&sum, |sum| cpu::add_weight_grad(x, dy, size, spec, scale, sum))
            })
        })???;
        Ok(sum)
    }

    /// The size of `x`, which must belong to `dy`.
    fn check_pair(&self, x: &Tensor, dy: &Tensor) -> Result<cpu::Size> {
        let (n, h, w, c) = x.dims4()?;
        self.check(c, self.in_channels, h, w)?;
        let (ho, wo) = self.output_size(h, w);
        if dy.dims() != [n, ho, wo, self.out_channels] {
            bail!("gradient {:?} does not belong to input {:?} ({self:?})", dy.dims(), x.dims());
        }
        Ok(cpu::Size { n, h, w })
    }

    fn spec(&self) -> cpu::Spec {
        cpu::Spec {
            ci: self.in_channels,
            co: self.out_channels,
            k: self.size,
            resample: self.resample,
        }
    }

    /// Frees what the CPU kernels made of the weights where it takes much memory; it is made again when it is wanted.
    pub fn release(&self) {
        for kept in [&self.forward, &self.back] {
            kept.lock().unwrap_or_else(PoisonError::into_inner).take_if(|packed| packed.is_large());
        }
    }

    /// The engine's own kernels on `x` of `size`, which comes in from this direction.
    fn apply(
        &self,
        x: &Tensor,
        direction: cpu::Direction,
        size: cpu::Size,
        finish: Finish<'_>,
    ) -> Result<Vec<f32>> {
        let (spec, pixels) = (self.spec(), size.pixels());
        if cpu::reads_stored(spec, direction, pixels) {
            let (way, scale) = ((spec, direction), self.scale as f32);
            return slices::read(&self.weight, |weight| {
                slices::read(x, |x| {
                    finish.read(|finish| cpu::apply_stored(weight, x, pixels, way, scale, finish))
                })
            })??;
        }
        let packed = self.packed(direction, size)?;
        slices::read(x, |x| finish.read(|finish| packed.apply(x, size, finish)))?
    }

    fn packed(&self, direction: cpu::Direction, size: cpu::Size) -> Result<Arc<cpu::Packed>> {
        let kept = match direction {
            cpu::Direction::Forward => &self.forward,
            cpu::Direction::Back => &self.back,
        };
        let kept = || kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = kept().as_ref().filter(|packed| packed.serves(size)) {
            return Ok(packed.clone());
        }
        // Made outside the lock: its tasks may pick up others that want the same.
        let (spec, scale) = (self.spec(), self.scale as f32);
        let made =
            slices::read(&self.weight, |w| cpu::Packed::new(w, scale, spec, direction, size))?;
        let made = Arc::new(made);
        if made.are_worth_keeping(direction, size) {
            *kept() = Some(made.clone());
        }
        Ok(made)
    }

    fn scaled(&self) -> Result<Tensor> {
        &self.weight * self.scale
    }

    fn output_size(&self, h: usize, w: usize) -> (usize, usize) {
        match self.resample {
            Resample::Same => (h, w),
            Resample::Up => (2 * h, 2 * w),
            Resample::Down => (h / 2, w / 2),
        }
    }

    fn input_size(&self, h: usize, w: usize) -> Result<(usize, usize)> {
        Ok(match self.resample {
            Resample::Same => (h, w),
            Resample::Up if !(h.is_multiple_of(2) && w.is_multiple_of(2)) => {
                bail!("{h}x{w} pixels cannot have come out of an upscaling layer")
            }
            Resample::Up => (h / 2, w / 2),
            Resample::Down => (2 * h, 2 * w),
        })
    }

    fn check(&self, channels: usize, expected: usize, h: usize, w: usize) -> Result<()> {
        if channels != expected {
            bail!("{channels} channels, but the convolution has {expected} ({self:?})");
        }
        if self.resample == Resample::Down && !(h.is_multiple_of(2) && w.is_multiple_of(2)) {
            bail!("{h}x{w} pixels cannot be halved");
        }
        Ok(())
    }
}
