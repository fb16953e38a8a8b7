//! One iteration on real pixels: what the loop does for each minibatch, and what a benchmark times.

use candle_core::{DType, Device, Tensor};
use pggan_data::Labels;
use pggan_model::{Discriminator, Generator, Grads, Noise};
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

/// A minibatch as the store has it.
///
/// # Shapes
/// `pixels`: `[N, C, R, R]` in 0…255; `indices`: the image of the data set that each is.
#[derive(Clone, Copy, Debug)]
pub struct Reals<'a> {
    /// The images.
    pub pixels: &'a [u8],
    /// Which they are.
    pub indices: &'a [u64],
    /// The labels of all images, where the networks have labels.
    pub labels: Option<&'a Labels>,
}

impl Reals<'_> {
    /// Labels of some images of the data set, `[N, classes]`.
    fn labels_of(
        &self,
        indices: impl Iterator<Item = u64>,
        classes: usize,
        device: &Device,
    ) -> Result<Option<Tensor>> {
        let Some(table) = self.labels.filter(|_| classes > 0) else { return Ok(None) };
        let rows: Vec<f32> = indices.flat_map(|index| label(table, index, classes)).collect();
        Ok(Some(Tensor::from_vec(rows, ((), classes), device)?))
    }
}

/// The first `classes` numbers of an image's label.
pub(crate) fn label(table: &Labels, index: u64, classes: usize) -> Vec<f32> {
    let mut row = Vec::with_capacity(table.width());
    table.push_row(index, &mut row);
    row.truncate(classes);
    row
}

/// The label of a class.
pub(crate) fn one_hot(class: usize, classes: usize) -> Vec<f32> {
    (0..classes).map(|c| if c == class { 1.0 } else { 0.0 }).collect()
}

/// What a minibatch of real images does: it moves the discriminator and, as the last of [`d_repeats`] minibatches (the
/// `repeat`-th from 0 on), the generator. `shown`: real images before it.
///
/// # Errors
/// If the images do not fit the stage, or the device is out of memory.
///
/// [`d_repeats`]: crate::schedule::ScheduleConfig::d_repeats
pub fn step(
    config: &Config,
    state: &mut State,
    stage: Stage,
    reals: Reals<'_>,
    shown: u64,
    repeat: usize,
) -> Result<()> {
    let _awake = keep_awake();
    let (device, classes) = (state.g.params().device(), config.model.label_size);
    let (d_grads, report) = discriminator(config, state, stage, reals, shown)?;
    if !config.schedule.separate_funcs {
        let labels = reals.labels_of(reals.indices.iter().copied(), classes, &device)?;
        let noise = noise(config, state, stage, shown, &NOISE_OF_D[1..2])?;
        let (labels, noise) = (labels.as_ref(), noise.as_ref());
        let (g_grads, loss) = generator(config, state, stage, TOWARD_D, shown, labels, noise)?;
        move_discriminator(state, stage, &d_grads, &report)?;
        move_generator(config, state, stage, &g_grads, loss)?;
        state.progress.noise = state.progress.noise.after(&report, &config.loss);
        return Ok(());
    }
    move_discriminator(state, stage, &d_grads, &report)?;
    drop(d_grads);
    if (repeat + 1).is_multiple_of(config.schedule.d_repeats) {
        let shown = shown + stage.minibatch as u64;
        let of = "labels of the generator's step";
        let images = reals.labels.map_or(1, |table| table.len() as u64);
        let indices = random::choice(config.run.seed, of, shown, stage.minibatch, images);
        let labels = reals.labels_of(indices, classes, &device)?;
        let noise = noise(config, state, stage, shown, &["noise of the generator's step"])?;
        let (labels, noise) = (labels.as_ref(), noise.as_ref());
        let (g_grads, loss) = generator(config, state, stage, TOWARD_G, shown, labels, noise)?;
        move_generator(config, state, stage, &g_grads, loss)?;
        state.progress.noise = state.progress.noise.after(&report, &config.loss);
    }
    Ok(())
}

/// What noise in the discriminator is drawn for.
const NOISE_OF_D: [&str; 3] =
    ["noise of real images", "noise of generated images", "noise of mixed images"];

/// The noise of the discriminator's layers, a minibatch for each purpose; none while its strength is 0.
fn noise(
    config: &Config,
    state: &State,
    stage: Stage,
    shown: u64,
    purposes: &[&str],
) -> Result<Option<Noise>> {
    let strength = state.progress.noise.strength(&config.loss);
    if strength == 0.0 {
        return Ok(None);
    }
    let (seed, n, device) = (config.run.seed, stage.minibatch, state.d.params().device());
    let size = state.d.noise_channels(stage.growth);
    let draws = purposes.iter().map(|of| random::latents(seed, of, shown, n, size, &device));
    let draws = Tensor::cat(&draws.collect::<Result<Vec<_>, _>>()?, 0)?;
    Ok(Some(Noise { strength, draws }))
}

/// What latent vectors are drawn for.
const TOWARD_D: &str = "latents of the discriminator's step";
const TOWARD_G: &str = "latents of the generator's step";

/// Gives minibatch discrimination a start that suits the data; other networks stay as they are.
///
/// # Errors
/// As [`step`].
pub fn calibrate(config: &Config, state: &mut State, stage: Stage, pixels: &[u8]) -> Result<()> {
    let images = real_images(config, stage, pixels, 0, &state.d.params().device())?;
    Ok(state.d.calibrate(&images, stage.growth, stage.minibatch)?)
}

/// Stored images as the discriminator sees them, `[N, R, R, C]`.
fn real_images(
    config: &Config,
    stage: Stage,
    pixels: &[u8],
    shown: u64,
    device: &Device,
) -> Result<Tensor> {
    let (channels, r) = (config.model.channels, stage.growth.resolution());
    let mut images = pggan_ops::reals::normalize(pixels, channels, r, stage.growth.alpha);
    if config.data.dequantize {
        random::dequantize(config.run.seed, shown, channels * r * r, &mut images);
    }
    Ok(Tensor::from_vec(images, ((), r, r, channels), device)?)
}

/// The gradients of the discriminator.
fn discriminator(
    config: &Config,
    state: &State,
    stage: Stage,
    reals: Reals<'_>,
    shown: u64,
) -> Result<(Grads, DiscriminatorReport)> {
    let (device, n) = (state.g.params().device(), stage.minibatch);
    let seed = config.run.seed;
    let real = real_images(config, stage, reals.pixels, shown, &device)?;
    let latents = random::latents(seed, TOWARD_D, shown, n, config.model.latent_size(), &device)?;
    let indices = reals.indices.iter().copied();
    let labels = reals.labels_of(indices, config.model.label_size, &device)?;
    let fake = state.g.forward_only(&latents, labels.as_ref(), stage.growth)?;
    // The discriminator's passes are where memory peaks; what the generator keeps is quickly made again.
    state.g.params().release();
    let mixing = random::mixing(seed, shown, n, &device)?;
    let passes = if config.loss.penalized() { 3 } else { 2 };
    let noise = noise(config, state, stage, shown, &NOISE_OF_D[..passes])?;
    let (labels, noise) = (labels.as_ref(), noise.as_ref());
    let batch = Batch { real: &real, fake: &fake, mixing: &mixing, labels, noise };
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
    labels: Option<&Tensor>,
    noise: Option<&Noise>,
) -> Result<(Grads, f64)> {
    let (device, n) = (state.g.params().device(), stage.minibatch);
    let (seed, size) = (config.run.seed, config.model.latent_size());
    let latents = random::latents(seed, purpose, shown, n, size, &device)?;
    let (State { g, d, .. }, growth) = (state, stage.growth);
    Ok(generator_step(g, d, &latents, labels, noise, growth, &config.loss)?)
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

#[cfg(test)]
mod tests {
    use pggan_model::Params;

    use crate::config::Settings;

    use super::*;

    fn config(settings: &str) -> Config {
        let model = "[model]\nresolution = 4\nfmap_base = 16\nfmap_max = 4\nlabel_size = 2\n";
        let schedule = "[schedule]\nminibatch_base = 4\n";
        let mut all = Settings::parse(&format!("{model}{schedule}"), "test").unwrap();
        all.merge(Settings::parse(settings, "test").unwrap());
        let config = all.resolve().unwrap();
        config.validate().unwrap();
        config
    }

    /// `minibatches` of four images each; the states before and after.
    fn train(config: &Config, minibatches: usize) -> [State; 2] {
        let stage = config.schedule.stage_at(2, 0);
        let labels = Labels::Classes { count: 2, of: vec![0, 1, 1, 0, 1] };
        let pixels: Vec<u8> = (0..4 * 3 * 16).map(|i| (i * 37 % 256) as u8).collect();
        let reals = Reals { pixels: &pixels, indices: &[4, 0, 2, 1], labels: Some(&labels) };
        let [before, mut after] = [0, 1].map(|_| begin(config, &Device::Cpu).unwrap());
        for i in 0..minibatches {
            let repeat = i % config.schedule.d_repeats;
            step(config, &mut after, stage, reals, 4 * i as u64, repeat).unwrap();
        }
        [before, after]
    }

    fn values(params: &Params) -> Vec<Vec<f32>> {
        params.iter().map(|p| p.value.flatten_all().unwrap().to_vec1().unwrap()).collect()
    }

    #[test]
    fn without_an_average_samples_are_made_with_the_generator_itself() {
        let [before, after] = train(&config("optim.ema_beta = 0.0"), 2);
        assert_ne!(values(before.g.params()), values(after.g.params()));
        assert_eq!(values(after.g_ema.params()), values(after.g.params()));
    }

    #[test]
    fn the_average_moves_with_either_networks_steps() {
        for (steps, moves) in [("discriminator", 3), ("generator", 1)] {
            let settings = format!(
                "optim = {{ ema_beta = 0.9, ema_steps = '{steps}' }}\nschedule.d_repeats = 3"
            );
            let config = config(&settings);
            // After its first step the average is the generator that was; after the second it has moved once.
            let [start, first] = train(&config, 3);
            let [_, second] = train(&config, 6);
            assert_eq!(values(first.g_ema.params()), values(start.g.params()));
            let beta = 0.9f32.powi(moves);
            let all = [start.g, first.g, second.g_ema].map(|g| values(g.params()).concat());
            for ((old, new), average) in all[0].iter().zip(&all[1]).zip(&all[2]) {
                assert!((new + (old - new) * beta - average).abs() < 1e-6, "{steps}");
            }
        }
    }

    #[test]
    fn moved_at_once_neither_network_sees_the_others_step() {
        let [_, at_once] = train(&config("schedule.separate_funcs = false"), 1);
        let [start, in_turn] = train(&config(""), 1);
        assert_eq!(values(at_once.d.params()), values(in_turn.d.params()));
        assert_ne!(values(at_once.g.params()), values(in_turn.g.params()));

        // The generator's step by hand: the latents and labels of the discriminator's step, and D as it was.
        let config = config("");
        let latents = random::latents(
            config.run.seed,
            TOWARD_D,
            0,
            4,
            config.model.latent_size(),
            &Device::Cpu,
        )
        .unwrap();
        let labels =
            Tensor::new(&[[0f32, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let growth = config.schedule.stage_at(2, 0).growth;
        let State { mut g, d, mut g_optim, .. } = start;
        let (grads, _) =
            generator_step(&g, &d, &latents, Some(&labels), None, growth, &config.loss).unwrap();
        g_optim.step(g.params_mut(), &grads, 0.001).unwrap();
        assert_eq!(values(at_once.g.params()), values(g.params()));
    }

    #[test]
    fn noise_follows_the_discriminator() {
        let loss = "loss = { kind = 'lsgan-reversed', gdrop_coef = 0.2, gdrop_tracks = 'loss' }";
        let [before, after] = train(&config(loss), 3);
        assert_eq!(before.progress.noise.average, 0.0);
        assert!(after.progress.noise.average > 0.0);
    }
}
