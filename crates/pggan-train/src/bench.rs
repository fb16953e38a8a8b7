//! How fast training runs: whole iterations on made-up images, and where their time goes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Device;
use pggan_data::Labels;
use pggan_model::{Growth, ModelConfig};
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::checkpoint::State;
use crate::config::Config;
use crate::iteration::Reals;
use crate::schedule::Stage;
use crate::{Error, Result, iteration};

/// What is timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The settings; of the schedule only the number of discriminator steps for each of the generator counts.
    pub config: Config,
    /// Where in the growth.
    pub growth: Growth,
    /// Images in a minibatch.
    pub batch: usize,
    /// Iterations that count. One more goes before them, for everything that happens once.
    pub iters: usize,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Most feature maps of a layer.
    pub width: usize,
    /// Resolution trained at.
    pub resolution: usize,
    /// Images in a minibatch.
    pub batch: usize,
    /// Weight of the newest layers; below 1 they are being faded in.
    pub alpha: f64,
    /// Threads of the CPU.
    pub threads: usize,
    /// Iterations that the median is of.
    pub iters: usize,
    /// Median time of an iteration: a step of the discriminator, one of the generator, both optimizers, the average.
    pub seconds: f64,
    /// Images in a second.
    pub img_s: f64,
    /// Billions of floating-point operations in a second, reckoned for convolutions as they are defined: fast
    /// algorithms take fewer.
    pub gflops: f64,
    /// Most memory the process has held, in MiB; `None` where the system does not tell.
    pub peak_mib: Option<f64>,
    /// Where numbers of threads took turns: what this one gains over the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<Gain>,
}

/// What a number of threads gains over another: medians over turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// How many times faster iterations are.
    pub speedup: f64,
    /// The same of a loop in registers, right before and after each turn's iterations: what the processors themselves had
    /// to give. Virtual ones may be halves of one core, or share it with neighbours.
    pub room: f64,
    /// `speedup / room` of each turn.
    pub share: f64,
}

impl Case {
    /// The networks of a benchmark by their width alone: at most `width` feature maps, halved as the paper does
    /// from 32x32 up (`fmap_base = 16 width`), and of the resolution that they are timed at.
    ///
    /// # Errors
    /// If there are no such networks.
    pub fn of_width(width: usize, resolution: usize, batch: usize, alpha: f64) -> Result<Self> {
        let model = ModelConfig {
            resolution,
            fmap_base: 16 * width,
            fmap_max: width,
            ..ModelConfig::default()
        };
        let config = Config { model, ..Config::default() };
        Self::new(config, resolution, batch, alpha)
    }

    /// Networks of any settings at one of their resolutions.
    ///
    /// # Errors
    /// If the settings, the resolution, the batch or alpha are impossible.
    pub fn new(config: Config, resolution: usize, batch: usize, alpha: f64) -> Result<Self> {
        config.validate()?;
        let (largest, group) = (config.model.resolution, config.model.mbstd_group.max(1));
        let usage = |problem: String| Err(Error::Usage(problem));
        if !resolution.is_power_of_two() || !(4..=largest).contains(&resolution) {
            return usage(format!(
                "resolution {resolution}: must be a power of two from 4 to {largest}"
            ));
        }
        if batch == 0 || !batch.is_multiple_of(group.min(batch)) {
            return usage(format!(
                "batch {batch}: must be a multiple of the stddev group, {group}"
            ));
        }
        if !(0.0..=1.0).contains(&alpha) {
            return usage(format!("alpha {alpha}: must be from 0 to 1"));
        }
        if alpha < 1.0 && resolution == 4 {
            return usage("alpha: nothing is faded in at 4x4, it must be 1".to_owned());
        }
        let growth = Growth { level: resolution.ilog2(), alpha };
        Ok(Self { config, growth, batch, iters: 5 })
    }

    /// Runs the iterations on the current pool of threads.
    ///
    /// # Errors
    /// If no iteration is to count, or the device is out of memory.
    pub fn measure(&self, device: &Device) -> Result<Measured> {
        let seconds = Running::new(self, device)?.seconds()?;
        Ok(self.measured(seconds, rayon::current_num_threads()))
    }

    /// What more threads gain: runs the iterations on each number of threads, one after the other, as often as there are
    /// `turns`. Virtual processors change their pace from one second to the next; in turns as short as these, in one
    /// process, it changes for all alike.
    ///
    /// # Errors
    /// If no iteration is to count, there are no turns or no threads to be had, or the device is out of memory.
    pub fn measure_in_turn(
        &self,
        device: &Device,
        threads: &[usize],
        turns: usize,
    ) -> Result<Vec<Measured>> {
        if turns == 0 {
            return Err(Error::Usage("turns: there must be at least one".to_owned()));
        }
        let pool = |&threads: &usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.map_err(|e| Error::Usage(format!("{threads} threads: {e}")))
        };
        let pools = threads.iter().map(pool).collect::<Result<Vec<_>>>()?;
        let mut running = Running::new(self, device)?;
        let mut one_turn = |pool: &ThreadPool| -> Result<Turn> {
            let before = pace(pool);
            let seconds = pool.install(|| running.seconds())?;
            Ok(Turn { pace: f64::midpoint(before, pace(pool)), seconds })
        };
        let all = (0..turns)
            .map(|_| pools.iter().map(&mut one_turn).collect())
            .collect::<Result<Vec<Vec<Turn>>>>()?;
        let of_threads = |(i, &threads): (usize, &usize)| {
            let over_turns = |f: &dyn Fn(&Turn, &Turn) -> f64| {
                median(all.iter().map(|turn| f(&turn[0], &turn[i])))
            };
            let speedup = |first: &Turn, this: &Turn| first.seconds / this.seconds;
            let room = |first: &Turn, this: &Turn| this.pace / first.pace;
            let gain = Gain {
                speedup: over_turns(&speedup),
                room: over_turns(&room),
                share: over_turns(&|first, this| speedup(first, this) / room(first, this)),
            };
            let seconds = over_turns(&|_, this| this.seconds);
            Measured { gain: Some(gain), ..self.measured(seconds, threads) }
        };
        Ok(threads.iter().enumerate().map(of_threads).collect())
    }

    /// What an iteration in so many seconds amounts to.
    fn measured(&self, seconds: f64, threads: usize) -> Measured {
        let Self { config, growth, batch, iters } = self;
        let images = (batch * config.schedule.d_repeats) as f64;
        let (g, d) = config.model.multiplications(growth.level);
        // A step of the discriminator runs it twelve times over: real, fake and mixed images forward; the first two
        // back to inputs and weights; the mixed back to the images, forward along that gradient, each layer's
        // weights, and back from minibatch stddev. A step of the generator runs that forward and back to inputs
        // and weights, and the discriminator forward and back to the images.
        let d_step = g + 12.0 * d;
        let g_step = 3.0 * g + 2.0 * d;
        let work = 2.0 * *batch as f64 * (d_step * config.schedule.d_repeats as f64 + g_step);
        Measured {
            width: config.model.fmap_max,
            resolution: growth.resolution(),
            batch: *batch,
            alpha: growth.alpha,
            threads,
            iters: *iters,
            seconds,
            img_s: images / seconds,
            gflops: work / seconds / 1e9,
            peak_mib: peak_mib(),
            gain: None,
        }
    }
}

/// What some threads did in their turn.
struct Turn {
    /// See [`pace`]; the mean of before and after.
    pace: f64,
    /// For an iteration, the median.
    seconds: f64,
}

/// Loops in a second that a pool's threads run at the same time, in registers: the sum of what each reaches, however
/// unlike they are.
fn pace(pool: &ThreadPool) -> f64 {
    /// Some milliseconds, so that waking the threads does not count.
    const ROUNDS: usize = 1 << 20;
    let rates = pool.broadcast(|_| {
        let start = Instant::now();
        let mut numbers = black_box([1f32; 64]);
        for _ in 0..ROUNDS {
            for x in &mut numbers {
                *x = *x * 0.5 + 0.5;
            }
        }
        black_box(numbers);
        1.0 / start.elapsed().as_secs_f64()
    });
    rates.into_iter().sum()
}

/// A case under way.
struct Running<'a> {
    case: &'a Case,
    state: State,
    pixels: Vec<u8>,
    indices: Vec<u64>,
    labels: Option<Labels>,
    shown: u64,
}

impl<'a> Running<'a> {
    fn new(case: &'a Case, device: &Device) -> Result<Self> {
        let Case { config, growth, batch, .. } = case;
        let r = growth.resolution();
        let pixels = (0..batch * config.model.channels * r * r)
            .map(|i| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        let classes = config.model.label_size;
        let of = (0..*batch as u32).map(|i| i % classes.max(1) as u32).collect();
        let labels = Some(Labels::Classes { count: classes, of }).filter(|_| classes > 0);
        let indices = (0..*batch as u64).collect();
        let state = iteration::begin(config, device)?;
        Ok(Self { case, state, pixels, indices, labels, shown: 0 })
    }

    /// Median time of the case's iterations, after one that does not count.
    fn seconds(&mut self) -> Result<f64> {
        let Self { case: Case { config, growth, batch, iters }, state, .. } = self;
        if *iters == 0 {
            return Err(Error::Usage("iterations: there must be at least one".to_owned()));
        }
        let stage = Stage {
            growth: *growth,
            lod: 0.0,
            minibatch: *batch,
            learning_rate: 0.001,
            tick_images: 0,
        };
        let reals =
            Reals { pixels: &self.pixels, indices: &self.indices, labels: self.labels.as_ref() };
        let mut times = Vec::new();
        for _ in 0..=*iters {
            let start = Instant::now();
            for repeat in 0..config.schedule.d_repeats {
                iteration::step(config, state, stage, reals, self.shown, repeat)?;
                self.shown += *batch as u64;
            }
            state.g.params().device().synchronize()?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.remove(0);
        Ok(median(times))
    }
}

/// The middle one of some numbers, of an even count the upper.
///
/// # Panics
/// If there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The most memory that this process has held so far.
pub fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The rate of a square matrix product on the CPU, in billions of floating-point operations a second: what a machine
/// can do, to compare with.
///
/// # Errors
/// If memory runs out.
pub fn sgemm_gflops() -> Result<f64> {
    let n = 2048;
    let wave = |seed: f32| (0..n * n).map(move |i| (i as f32 * 0.37 + seed).sin());
    let a = candle_core::Tensor::from_iter(wave(0.0), &Device::Cpu)?.reshape((n, n))?;
    let b = candle_core::Tensor::from_iter(wave(1.0), &Device::Cpu)?.reshape((n, n))?;
    let mut best = f64::MAX;
    for _ in 0..6 {
        let start = Instant::now();
        a.matmul(&b)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (n as f64).powi(3) / best / 1e9)
}

/// Adds up the time spent in every layer's passes: a layer for a `tracing` subscriber.
#[derive(Clone, Debug, Default)]
pub struct Profile(Arc<Mutex<BTreeMap<(String, &'static str), Duration>>>);

impl Profile {
    /// Time by layer and pass, the longest first.
    pub fn rows(&self) -> Vec<(String, &'static str, Duration)> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> =
            times.iter().map(|((layer, pass), time)| (layer.clone(), *pass, *time)).collect();
        rows.sort_by_key(|&(.., time)| std::cmp::Reverse(time));
        rows
    }

    /// Forgets what it has seen.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

struct Timed {
    layer: String,
    entered: Option<Instant>,
}

impl<S> tracing_subscriber::Layer<S> for Profile
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut name = LayerName(None);
        attributes.record(&mut name);
        if let (Some(layer), Some(span)) = (name.0, context.span(id)) {
            span.extensions_mut().insert(Timed { layer, entered: None });
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(timed) = span.extensions_mut().get_mut::<Timed>()
        {
            timed.entered = Some(Instant::now());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(timed) = extensions.get_mut::<Timed>() else { return };
        let Some(entered) = timed.entered.take() else { return };
        let key = (timed.layer.clone(), span.metadata().name());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() +=
            entered.elapsed();
    }
}

struct LayerName(Option<String>);

impl Visit for LayerName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "layer" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
