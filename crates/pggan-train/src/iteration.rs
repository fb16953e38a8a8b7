//! One iteration on real pixels: what the loop does for each minibatch, and what a benchmark times.

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Grads};
use pggan_ops::pool::keep_awake;
use tracing::trace_span;

use crate::checkpoint::{Progress, State};
use crate::config::Config;
use crate::optim::{Average, Optimizer, Steps};
use crate::schedule::Stage;
use crate::step::{Batch, DiscriminatorReport, discriminator_step, generator_step};
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

/// What a minibatch of real images does: it moves the discriminator and, as the last of [`d_repeats`] minibatches (the
/// `repeat`-th from 0 on), the generator.
///
/// # Shapes
/// `pixels`: a minibatch of stored images, `[N, C, R, R]` in 0…255; `shown`: real images before it.
///
/// # Errors
/// If the pixels do not fit the stage, or the device is out of memory.
///
/// [`d_repeats`]: crate::schedule::ScheduleConfig::d_repeats
pub fn step(
    config: &Config,
    state: &mut State,
    stage: Stage,
    pixels: &[u8],
    shown: u64,
    repeat: usize,
) -> Result<()> {
    let _awake = keep_awake();
    let (d_grads, report) = discriminator(config, state, stage, pixels, shown)?;
    if !config.schedule.separate_funcs {
        let (g_grads, loss) = generator(config, state, stage, TOWARD_D, shown)?;
        move_discriminator(state, stage, &d_grads, &report)?;
        move_generator(config, state, stage, &g_grads, loss)?;
        state.progress.noise = state.progress.noise.after(&report, &config.loss);
        return Ok(());
    }
    move_discriminator(state, stage, &d_grads, &report)?;
    drop(d_grads);
    if (repeat + 1).is_multiple_of(config.schedule.d_repeats) {
        let shown = shown + stage.minibatch as u64;
        let (g_grads, loss) = generator(config, state, stage, TOWARD_G, shown)?;
        move_generator(config, state, stage, &g_grads, loss)?;
        state.progress.noise = state.progress.noise.after(&report, &config.loss);
    }
    Ok(())
}

/// What latent vectors are drawn for.
const TOWARD_D: &str = "latents of the discriminator's step";
const TOWARD_G: &str = "latents of the generator's step";

/// The gradients of the discriminator.
fn discriminator(
    config: &Config,
    state: &State,
    stage: Stage,
    pixels: &[u8],
    shown: u64,
) -> Result<(Grads, DiscriminatorReport)> {
    let (device, n) = (state.g.params().device(), stage.minibatch);
    let (channels, r) = (config.model.channels, stage.growth.resolution());
    let seed = config.run.seed;
    let mut real = pggan_ops::reals::normalize(pixels, channels, r, stage.growth.alpha);
    if config.data.dequantize {
        random::dequantize(seed, shown, channels * r * r, &mut real);
    }
    let real = Tensor::from_vec(real, (n, r, r, channels), &device)?;
    let latents = random::latents(seed, TOWARD_D, shown, n, config.model.latent_size(), &device)?;
    let fake = state.g.forward_only(&latents, None, stage.growth)?;
    // The discriminator's passes are where memory peaks; what the generator keeps is quickly made again.
    state.g.params().release();
    let mixing = random::mixing(seed, shown, n, &device)?;
    let batch = Batch { real: &real, fake: &fake, mixing: &mixing, labels: None };
    Ok(discriminator_step(&state.d, batch, stage.growth, &config.loss)?)
}

fn move_discriminator(
    state: &mut State,
    stage: Stage,
    grads: &Grads,
    report: &DiscriminatorReport,
) -> Result<()> {
    let norm = trace_span!("adam", layer = "discriminator")
        .in_scope(|| state.d_optim.step(state.d.params_mut(), grads, stage.learning_rate))?;
    state.progress.sums.discriminator(report, norm);
    Ok(())
}

/// The gradients of the generator, and its loss.
fn generator(
    config: &Config,
    state: &State,
    stage: Stage,
    purpose: &str,
    shown: u64,
) -> Result<(Grads, f64)> {
    let (device, n) = (state.g.params().device(), stage.minibatch);
    let (seed, size) = (config.run.seed, config.model.latent_size());
    let latents = random::latents(seed, purpose, shown, n, size, &device)?;
    Ok(generator_step(&state.g, &state.d, &latents, None, stage.growth, &config.loss)?)
}

/// Moves the generator's average, then the generator.
fn move_generator(
    config: &Config,
    state: &mut State,
    stage: Stage,
    grads: &Grads,
    loss: f64,
) -> Result<()> {
    state.g.params_mut().observe(grads)?;
    // The official code moves the average with every step of the discriminator, towards the generator before its
    // own step: all those moves at once.
    let moves = match config.optim.ema_steps {
        Steps::Discriminator => config.schedule.d_repeats as f64,
        Steps::Generator => 1.0,
    };
    let average = Average {
        params: state.g_ema.params_mut(),
        beta: config.optim.ema_beta.powf(moves),
        level: stage.growth.level,
    };
    let norm = trace_span!("adam", layer = "generator").in_scope(|| {
        let (params, rate) = (state.g.params_mut(), stage.learning_rate);
        if average.beta > 0.0 {
            return state.g_optim.step_and_average(params, grads, rate, average);
        }
        // No average: what samples are made with is the generator after its step.
        let norm = state.g_optim.step(params, grads, rate)?;
        average.take(params)?;
        Ok(norm)
    })?;
    state.progress.sums.generator(loss, norm);
    Ok(())
}
