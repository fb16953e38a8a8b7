//! The loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::Device;
use pggan_data::loader::load;
use pggan_data::{Batch, BatchSpec, Loader, LoaderOptions, Store};
use pggan_model::Growth;
use pggan_model::weights::{Snapshot, SnapshotHeader, write_snapshot};
use tracing::info;

use crate::checkpoint::{self, Progress, State};
use crate::config::Config;
use crate::iteration::Reals;
use crate::pictures::Pictures;
use crate::run_dir::RunDir;
use crate::schedule::Stage;
use crate::stats::{Sums, Tick};
use crate::{Error, Result, iteration, metrics};

/// A training state is written at least this often, however long ticks take.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// What a run works with.
#[derive(Debug)]
pub struct Job<'a> {
    /// The settings, checked.
    pub config: &'a Config,
    /// Where everything is written.
    pub run: &'a RunDir,
    /// The data.
    pub store: Arc<Store>,
    /// The data's name.
    pub dataset: String,
    /// Where networks live.
    pub device: Device,
    /// The networks that a new run begins as, where their weights are not drawn ([`crate::config::RunConfig::start`]).
    pub start: Option<Snapshot>,
    /// Set from outside to end the run: the state is saved first.
    pub stop: &'a AtomicBool,
}

/// How far a run is, for a progress bar.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Real images shown.
    pub images: u64,
    /// What training does at the moment.
    pub stage: Stage,
    /// Real images per second since this process began at this resolution.
    pub images_per_second: f64,
    /// Time left, from the speed so far and the work that the rest will be.
    pub left: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An earlier start had shown all images; nothing was done.
    AlreadyDone,
    /// All images of the schedule were shown; the last picture.
    Done(PathBuf),
    /// [`Job::stop`] was set; the state that the next start goes on from.
    Stopped(PathBuf),
}

/// Trains until the schedule's end or until stopped, from the run's newest training state if it has one.
///
/// # Errors
/// If the data, the device or the disk fails. Whatever had been written by then stays.
pub fn train(job: &Job<'_>, mut report: impl FnMut(Position)) -> Result<Outcome> {
    let Job { config, run, device, .. } = job;
    let (schedule, seed) = (&config.schedule, config.run.seed);
    let total = schedule.total_images();

    // Networks, from the newest state or from nothing.
    let mut state = iteration::begin(config, device)?;
    let pictures = Pictures::new(config, &job.store, device)?;
    match checkpoint::load_latest(run.path(), &mut state)? {
        Some(_) if state.progress.images >= total => return Ok(Outcome::AlreadyDone),
        Some(path) => info!("going on from {}", path.display()),
        None => {
            if let Some(start) = &job.start {
                adopt(start, &mut state)?;
            } else if config.run.start.is_empty() {
                calibrate(job, &mut state)?;
            } else {
                let path = run.path().to_owned();
                let reason = "it begins from weights that it has not saved yet; give them again with --resume WEIGHTS";
                return Err(Error::NoCheckpoint { path, reason: reason.to_owned() });
            }
            pictures.write_reals(&run.file("reals.png"), config, &job.store)?;
            write_fakes(job, &state, &pictures)?;
            if job.start.is_some() {
                // From now on the run needs nothing but itself.
                checkpoint::save(run.path(), &state, header(job, &state), config.run.keep)?;
            }
        }
    }
    let before = run.rewind_stats(state.progress.images)?.map_or(0.0, |tick| tick.seconds);

    // The batches that will be wanted are known for as long as the schedule is, so reading runs ahead.
    let options = LoaderOptions { seed, mirror: config.data.mirror, ..LoaderOptions::default() };
    let specs =
        Iterations::new(config, state.progress.images).flat_map(|(images, stage, repeats)| {
            (0..repeats).map(move |i| BatchSpec {
                level: stage.growth.level,
                first_position: images + (i * stage.minibatch) as u64,
                count: stage.minibatch,
            })
        });
    let mut loader = Loader::new(&job.store, options, specs);

    let begin = Instant::now();
    let mut clock = Clock::new(state.progress.images);
    let mut saved = Instant::now();
    for (images, stage, repeats) in Iterations::new(config, state.progress.images) {
        // Growth: Adam forgets what it knew of the smaller networks.
        let interval = Some(stage.interval());
        if state.progress.interval != interval {
            if schedule.reset_optimizer {
                state.g_optim.reset()?;
                state.d_optim.reset()?;
            }
            state.progress.interval = interval;
            clock.stage_began(images);
        }

        // Train.
        let mut shown = images;
        for repeat in 0..repeats {
            let batch = loader.next().expect("as many batches as steps")?;
            let (pixels, indices, labels) = (&batch.pixels, &batch.indices, job.store.labels());
            let reals = Reals { pixels, indices, labels };
            iteration::step(config, &mut state, stage, reals, shown, repeat)?;
            loader.recycle(batch);
            shown += stage.minibatch as u64;
        }
        state.progress.images = shown;
        report(clock.position(config, stage, shown));

        // Tick: a line, a picture, a checkpoint. The state that ends a tick comes after all that the tick leaves, so that
        // whoever is killed between them does the tick again, to the same bytes. (Metrics can be measured later.)
        let done = shown >= total;
        let ticked = done || shown >= state.progress.tick_images + stage.tick_images;
        if ticked {
            let tick = Tick {
                seconds: before + begin.elapsed().as_secs_f64(),
                ..clock.tick_ended(&state.progress, stage, loader.waited())
            };
            state.progress = Progress {
                tick: tick.tick,
                tick_images: shown,
                sums: Sums::default(),
                ..state.progress
            };
            info!("{}", tick.line());
            let picture = write_fakes(job, &state, &pictures)?;
            run.append_stats(&tick)?;
            let snapshot = done || tick.tick.is_multiple_of(config.run.snapshot_ticks);
            let snapshot = snapshot.then(|| write_network(job, &state)).transpose()?;
            checkpoint::save(run.path(), &state, header(job, &state), config.run.keep)?;
            saved = Instant::now();
            if let Some(snapshot) = snapshot {
                metrics::training::measure(job, &snapshot)?;
            }
            clock.tick_begins(shown, loader.waited());
            if done {
                return Ok(Outcome::Done(picture));
            }
        }
        if job.stop.load(Ordering::Relaxed) || saved.elapsed() > SAVE_EVERY {
            let path = checkpoint::save(run.path(), &state, header(job, &state), config.run.keep)?;
            saved = Instant::now();
            if job.stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped(path));
            }
        }
    }
    // Reached only by a schedule of no images at all.
    Ok(Outcome::AlreadyDone)
}

/// Images that minibatch discrimination is set up with, as in the official code.
const CALIBRATION: usize = 500;

fn calibrate(job: &Job<'_>, state: &mut State) -> Result<()> {
    let Job { config, store, .. } = job;
    if config.model.mbdisc_kernels == 0 {
        return Ok(());
    }
    let stage = config.schedule.stage_at(config.model.max_level(), 0);
    let options = LoaderOptions { seed: config.run.seed, ..LoaderOptions::default() };
    let spec = BatchSpec { level: stage.growth.level, first_position: 0, count: CALIBRATION };
    let batch = load(store, &options, spec, Batch::empty())?;
    iteration::calibrate(config, state, stage, &batch.pixels)
}

/// Puts given weights into a run's networks; the optimizers stay fresh.
fn adopt(start: &Snapshot, state: &mut State) -> Result<()> {
    for (ours, theirs) in [
        (state.g.params_mut(), start.g.params()),
        (state.g_ema.params_mut(), start.g_ema.params()),
        (state.d.params_mut(), start.d.params()),
    ] {
        let mut values = theirs.iter();
        ours.update(|_, _, value| {
            let theirs = values.next().expect("networks of one shape");
            *value = theirs.value.to_device(value.device())?.copy()?;
            Ok(())
        })?;
    }
    Ok(())
}

/// From some number of images on: (images shown, what to do, steps of the discriminator) until the schedule ends.
struct Iterations<'a> {
    config: &'a Config,
    images: u64,
}

impl<'a> Iterations<'a> {
    fn new(config: &'a Config, images: u64) -> Self {
        Self { config, images }
    }
}

impl Iterator for Iterations<'_> {
    type Item = (u64, Stage, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let schedule = &self.config.schedule;
        if self.images >= schedule.total_images() {
            return None;
        }
        let images = self.images;
        let stage = schedule.stage_at(self.config.model.max_level(), images);
        let repeats = schedule.minibatch_repeats * schedule.d_repeats;
        self.images += (stage.minibatch * repeats) as u64;
        Some((images, stage, repeats))
    }
}

fn header(job: &Job<'_>, state: &State) -> SnapshotHeader {
    let growth = last_growth(job, state);
    SnapshotHeader {
        format: 1,
        model: job.config.model.clone(),
        level: growth.level,
        alpha: growth.alpha,
        images_shown: state.progress.images,
        dataset: job.dataset.clone(),
    }
}

/// How far the networks have been trained: at a run's end the schedule may already be one step further.
fn last_growth(job: &Job<'_>, state: &State) -> Growth {
    let last = state.progress.images.saturating_sub(1);
    job.config.schedule.stage_at(job.config.model.max_level(), last).growth
}

fn write_network(job: &Job<'_>, state: &State) -> Result<PathBuf> {
    let name = format!("network-snapshot-{:06}.safetensors", state.progress.images / 1000);
    let path = job.run.file(&name);
    write_snapshot(&path, &header(job, state), &state.g, &state.d, &state.g_ema)?;
    info!("wrote {}", path.display());
    Ok(path)
}

fn write_fakes(job: &Job<'_>, state: &State, pictures: &Pictures) -> Result<PathBuf> {
    let path = job.run.file(&format!("fakes{:06}.png", state.progress.images / 1000));
    pictures.write_fakes(path, job.config, &state.g_ema, last_growth(job, state))
}

/// Times of this process; none of them reaches a file that must be the same after a resumption.
struct Clock {
    tick_began: Instant,
    tick_ended: Instant,
    tick_first_image: u64,
    maintenance: Duration,
    waited: Duration,
    stage_began: Instant,
    stage_first_image: u64,
    stage_maintenance: Duration,
}

impl Clock {
    fn new(images: u64) -> Self {
        let now = Instant::now();
        Self {
            tick_began: now,
            tick_ended: now,
            tick_first_image: images,
            maintenance: Duration::ZERO,
            waited: Duration::ZERO,
            stage_began: now,
            stage_first_image: images,
            stage_maintenance: Duration::ZERO,
        }
    }

    fn stage_began(&mut self, images: u64) {
        self.stage_began = Instant::now();
        self.stage_first_image = images;
        self.stage_maintenance = Duration::ZERO;
    }

    /// The end of a tick's training; what follows is maintenance.
    fn tick_ended(&mut self, progress: &Progress, stage: Stage, waited: Duration) -> Tick {
        self.tick_ended = Instant::now();
        let seconds = (self.tick_ended - self.tick_began).as_secs_f64().max(1e-9);
        Tick {
            tick: progress.tick + 1,
            images: progress.images,
            lod: stage.lod,
            resolution: stage.growth.resolution(),
            alpha: stage.growth.alpha,
            minibatch: stage.minibatch,
            seconds,
            tick_seconds: seconds,
            images_per_second: (progress.images - self.tick_first_image) as f64 / seconds,
            maintenance_seconds: self.maintenance.as_secs_f64(),
            waiting_share: waited.saturating_sub(self.waited).as_secs_f64() / seconds,
            means: progress.sums.means(),
        }
    }

    fn tick_begins(&mut self, images: u64, waited: Duration) {
        self.tick_began = Instant::now();
        self.tick_first_image = images;
        self.maintenance = self.tick_began - self.tick_ended;
        self.stage_maintenance += self.maintenance;
        self.waited = waited;
    }

    fn position(&self, config: &Config, stage: Stage, images: u64) -> Position {
        let seconds =
            self.stage_began.elapsed().saturating_sub(self.stage_maintenance).as_secs_f64();
        let images_per_second = (images - self.stage_first_image) as f64 / seconds.max(1e-9);
        let work_per_second = images_per_second * work(config, stage).max(1.0);
        // The rest of the schedule in pieces, each at the work of its own resolution.
        let rest = config.schedule.total_images().saturating_sub(images) as f64;
        let pieces = 256;
        let work_left: f64 = (0..pieces)
            .map(|i| {
                let at = images + (rest * f64::from(i) / f64::from(pieces)) as u64;
                let stage = config.schedule.stage_at(config.model.max_level(), at);
                work(config, stage) * rest / f64::from(pieces)
            })
            .sum();
        let left = Duration::try_from_secs_f64(work_left / work_per_second);
        Position { images, stage, images_per_second, left: left.unwrap_or(Duration::MAX) }
    }
}

/// Multiplications that training takes for each image: a step of the generator runs it four times over (two
/// forward passes and a backward one), the two steps run the discriminator fourteen times over.
fn work(config: &Config, stage: Stage) -> f64 {
    let (g, d) = config.model.multiplications(stage.growth.level);
    4.0 * g + 14.0 * d
}
