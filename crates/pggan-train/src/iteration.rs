//! One iteration on real pixels: what the loop does for each minibatch, and what a benchmark times.

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator};
use tracing::trace_span;

use crate::checkpoint::{Progress, State};
use crate::config::Config;
use crate::optim::{Average, Optimizer};
use crate::schedule::Stage;
use crate::step::{Batch, discriminator_step, generator_step};
use crate::{Result, random};

/// Networks as a run begins with them.
///
/// # Errors
/// If the device is out of memory.
pub fn begin(config: &Config, device: &Device) -> Result<State> {
    let draw = |network: &'static str| {
        move |name: &str, values: &mut [f32]| {
            random::normal(
                random::stream(config.run.seed, &format!("{network}.{name}"), 0, 0),
                values,
            );
        }
    };
    let g = Generator::new(&config.model, DType::F32, device, &mut draw("g"))?;
    let d = Discriminator::new(&config.model, DType::F32, device, &mut draw("d"))?;
    Ok(State {
        g_ema: g.duplicate()?,
        g_optim: Optimizer::new(&config.optim, g.params())?,
        d_optim: Optimizer::new(&config.optim, d.params())?,
        g,
        d,
        progress: Progress::default(),
    })
}

/// Moves the discriminator.
///
/// # Shapes
/// `pixels`: a minibatch of stored images, `[N, C, R, R]` in 0…255; `shown`: real images before it.
///
/// # Errors
/// If the pixels do not fit the stage, or the device is out of memory.
pub fn d_step(
    config: &Config,
    state: &mut State,
    stage: Stage,
    pixels: &[u8],
    shown: u64,
) -> Result<()> {
    let (device, n) = (state.g.params().device(), stage.minibatch);
    let (channels, r) = (config.model.channels, stage.growth.resolution());
    let real = pggan_ops::reals::normalize(pixels, channels, r, stage.growth.alpha);
    let real = Tensor::from_vec(real, (n, r, r, channels), &device)?;
    let (seed, size) = (config.run.seed, config.model.latent_size());
    let latents =
        random::latents(seed, "latents of the discriminator's step", shown, n, size, &device)?;
    let fake = state.g.forward_only(&latents, None, stage.growth)?;
    // The discriminator's passes are where memory peaks; what the generator keeps is quickly made again.
    state.g.params().release();
    let mixing = random::mixing(seed, shown, n, &device)?;
    let batch = Batch { real: &real, fake: &fake, mixing: &mixing, labels: None };
    let (grads, report) = discriminator_step(&state.d, batch, stage.growth, &config.loss)?;
    let norm = trace_span!("adam", layer = "discriminator")
        .in_scope(|| state.d_optim.step(state.d.params_mut(), &grads, stage.learning_rate))?;
    state.progress.sums.discriminator(&report, norm);
    Ok(())
}

/// Moves the generator's average, then the generator.
///
/// # Errors
/// If the device is out of memory.
pub fn g_step(config: &Config, state: &mut State, stage: Stage, shown: u64) -> Result<()> {
    let (device, n) = (state.g.params().device(), stage.minibatch);
    let (seed, size) = (config.run.seed, config.model.latent_size());
    let latents =
        random::latents(seed, "latents of the generator's step", shown, n, size, &device)?;
    let (grads, loss) =
        generator_step(&state.g, &state.d, &latents, None, stage.growth, &config.loss)?;
    // The official code moves the average with every step of the discriminator, towards the generator before its
    // own step: all those moves at once.
    let average = Average {
        params: state.g_ema.params_mut(),
        beta: config.optim.ema_beta.powf(config.schedule.d_repeats as f64),
        level: stage.growth.level,
    };
    let norm = trace_span!("adam", layer = "generator").in_scope(|| {
        let (params, rate) = (state.g.params_mut(), stage.learning_rate);
        state.g_optim.step_and_average(params, &grads, rate, average)
    })?;
    state.progress.sums.generator(loss, norm);
    Ok(())
}
