//! `train`: from flags to a run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use candle_core::{DType, Device};
use clap::Args;
use pggan_data::Store;
use pggan_model::weights::{self, Snapshot};
use pggan_train::config::{Config, Settings};
use pggan_train::presets::PRESETS;
use pggan_train::run_dir::{self, Resume, RunDir};
use pggan_train::samples::Grid;
use pggan_train::stats::duration;
use pggan_train::train::{self, Job, Outcome, Position};
use pggan_train::{device, metrics};
use tracing::info;
use tracing_indicatif::span_ext::IndicatifSpanExt as _;

use super::{bar, data};
use crate::console::Console;

/// What `--resume` without a path stands for; no file has this name.
const NEWEST: &str = "";

/// Train a generator and a discriminator, growing both.
///
/// Without flags: the quick preset on the default data set. The same command again continues an unfinished run.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask train                                     the default pictures at 32x32, in minutes
  cargo xtask train --data datasets/prepared/faces --preset small --resolution 64
  cargo xtask train --data datasets/prepared/celebahq --preset v2-1gpu --mirror --device cuda
  cargo xtask train --preset v2-1gpu --data D --dry-run    what would be done
  cargo xtask train --resume runs/00003-faces-64-small --kimg 2400     the same run, for longer
  cargo xtask train --resume imported/celebahq-256 --data D --kimg 100    a new run, from these weights

In the run's folder: fakes*.png, reals.png, log.txt, stats.jsonl (one line a tick, for programs), config.toml,
network-snapshot-*.safetensors (for people), training-state-*.safetensors (to go on from).
Ctrl-C saves the state and ends with exit code 0.")]
pub(super) struct TrainArgs {
    /// Prepared data set (made by `cargo xtask prepare-dataset`) [default: the emoji in datasets/]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of runs; each run makes a folder of its own in it [default: runs/]
    #[arg(long, value_name = "DIR", alias = "output_dir")]
    outdir: Option<PathBuf>,
    /// Settings to start from: quick, small (for CPUs); the official code's v1-1gpu, v2-1gpu, v2-2gpus, v2-4gpus,
    /// v2-8gpus; the paper's celebahq, celebahq-lsgan, lsun, lsun-full, cifar10, and table1-a, -b, -c, -d, -e-star, -e, -f, -g, -h
    /// [default: quick]
    #[arg(long, value_name = "NAME", alias = "cfg")]
    preset: Option<String>,
    /// Leave out a part of the method, as the official code's switches: nogrowing, nopixelnorm, nowscale, noleakyrelu,
    /// nosmoothing, norepeat, noreset
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    ablate: Vec<String>,
    /// TOML file with settings, laid over the preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One more setting; may be repeated. --dry-run prints them all
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Final resolution, a power of two [default: the preset's, or the data's]
    #[arg(long, value_name = "R")]
    resolution: Option<String>,
    /// Length of the run, thousands of real images [default: the preset's]
    #[arg(long, value_name = "N")]
    kimg: Option<f64>,
    /// Minibatch at every resolution [default: the preset's, which may differ by resolution]
    #[arg(long, value_name = "N", alias = "train_batch_size")]
    batch: Option<usize>,
    /// Thousands of images between two lines of the log, each with a picture [default: the preset's]
    #[arg(long, value_name = "KIMG")]
    tick: Option<f64>,
    /// Ticks between two snapshots [default: the preset's]
    #[arg(long, value_name = "TICKS")]
    snap: Option<u64>,
    /// Measure every snapshot, as swd2k,msssim1k: SWD and MS-SSIM; others afterwards with `cargo xtask metrics`
    #[arg(long, value_name = "LIST")]
    metrics: Option<String>,
    /// Columns and rows of the pictures, as 8x8, or 1080p, or 4k [default: the preset's]
    #[arg(long, value_name = "WxH")]
    grid: Option<Grid>,
    /// Rows of the pictures: random, or `row_per_class` for data with labels [default: the preset's]
    #[arg(long, value_name = "LAYOUT", value_parser = ["random", "row_per_class"])]
    grid_layout: Option<String>,
    /// Train networks with the data's labels, or without [default: with them where there are any, unless the preset says]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    cond: Option<bool>,
    /// Mirror every other image, by chance
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    mirror: Option<bool>,
    /// Seed of all random numbers [default: 1000]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Go on with a run: its folder, one of its training states, or nothing for the newest. Or begin a run from weights: a
    /// snapshot, the folder of an import, or the id of a network on the hub
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = NEWEST)]
    resume: Option<PathBuf>,
    /// Begin a new run even if an unfinished one has the same settings
    #[arg(long, conflicts_with = "resume")]
    new: bool,
    /// Print the settings, the networks and the schedule, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl TrainArgs {
    pub(super) fn run(self, console: &Console) -> Result<()> {
        super::use_threads(self.threads)?;
        let outdir = self.outdir.clone().unwrap_or_else(|| super::root().join("runs"));
        let (resumed, weights) = match &self.resume {
            None => (None, None),
            Some(path) if path.as_os_str() == NEWEST => (Some(run_dir::locate(&outdir)?), None),
            Some(path) => match run_dir::resume(path)? {
                Resume::Run(run) => (Some(run), None),
                Resume::Weights(weights) => (None, Some(weights)),
            },
        };
        let recorded = resumed.as_deref().map(run_dir::read_config).transpose()?;

        let mut settings = self.settings(recorded.as_ref())?;
        let start =
            weights.as_deref().map(|path| self.begin_from(path, &mut settings)).transpose()?;
        let data = data::folder(self.data.as_deref(), recorded.as_ref())?;
        let store = Store::open(&data).map_err(|e| data::explain(e, &data))?;
        data::fit(&mut settings, &store, &data)?;
        let config = settings.resolve()?;
        config.validate()?;
        let (resolution, available) = (config.model.resolution, 1 << store.max_level());
        if resolution > available {
            bail!(
                "--resolution {resolution}: {} has images of {available}x{available} at most; prepare it \
                 again with `cargo xtask prepare-dataset --resolution {resolution}`, or ask for less",
                data.display()
            );
        }
        let labels = store.labels().map_or(0, pggan_data::Labels::width);
        if config.model.label_size > labels {
            bail!("model.label_size = {}: the data set has {labels}", config.model.label_size);
        }
        if config.model.channels != store.channels() {
            bail!(
                "model.channels = {}: the data set has {}",
                config.model.channels,
                store.channels()
            );
        }
        metrics::training::check(&config, &store)?;
        let device = device::open(&self.device)?;
        if self.dry_run {
            return dry_run(&config, &store);
        }

        let name = data::name(&data);
        let run = match resumed {
            Some(path) => {
                let differences = recorded.expect("read above").differences(&config);
                if !differences.is_empty() {
                    let differences = differences.join(", ");
                    return Err(pggan_train::Error::OtherRun { path, differences }.into());
                }
                RunDir::open(&path)?
            }
            None => match (self.new, run_dir::find(&outdir, &config)?) {
                (false, Some(path)) => RunDir::open(&path)?,
                _ => RunDir::create(&outdir, &name, &config)?,
            },
        };
        run.write_config(&config)?;
        let log = run.file("log.txt");
        console.log_to(&log).with_context(|| log.display().to_string())?;
        info!("run     {}", run.path().display());
        info!("data    {}: {} images", data.display(), store.images());
        info!("device  {}", describe(&device));
        train_and_show(&Job {
            config: &config,
            run: &run,
            store: Arc::new(store),
            dataset: name,
            device,
            start,
            stop: stop_flag()?,
        })
    }

    /// The networks of a snapshot, and the settings of a run that begins with them: their shape, and a schedule that begins at
    /// their resolution. A layer that was fading in does so again.
    fn begin_from(&self, path: &Path, settings: &mut Settings) -> Result<Snapshot> {
        let own = self.set.iter().find(|text| text.trim_start().starts_with("model."));
        if let Some(flag) = own.or(self.resolution.as_ref()) {
            bail!("--resume {}: the networks come with it; leave out {flag}", path.display());
        }
        let snapshot = weights::read_snapshot(path, DType::F32, &Device::Cpu)?;
        let header = &snapshot.header;
        settings.set("model", toml::Value::try_from(&header.model)?)?;
        let level = header.level - u32::from(header.growth().fading());
        settings.set("schedule.initial_resolution", (1i64 << level).into())?;
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        settings.set("run.start", blake3::hash(&bytes).to_hex().to_string().into())?;
        Ok(snapshot)
    }

    /// Preset or recorded run, then file, then flags.
    fn settings(&self, recorded: Option<&Config>) -> Result<Settings> {
        let mut settings = match (&self.preset, recorded) {
            (None, Some(recorded)) => Settings::parse(&recorded.to_toml(), "config.toml")?,
            (preset, _) => Settings::preset(preset.as_deref().unwrap_or(PRESETS[0].0))?,
        };
        for name in &self.ablate {
            settings.ablate(name)?;
        }
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            settings.merge(Settings::parse(&text, &path.display().to_string())?);
        }
        let mut set = |key: &str, value: Option<toml::Value>| match value {
            Some(value) => settings.set(key, value),
            None => Ok(()),
        };
        if let Some(text) = &self.resolution {
            // 64 or 64x64, as the data tool takes it.
            let side =
                text.split_once('x').map_or(text.as_str(), |(w, h)| if w == h { w } else { "" });
            let Ok(side) = side.parse::<u32>() else {
                bail!("--resolution {text}: a power of two is needed, as 64 or 64x64");
            };
            set("model.resolution", Some(side.into()))?;
        }
        set("schedule.total_kimg", self.kimg.map(Into::into))?;
        if let Some(batch) = self.batch {
            set("schedule.minibatch_base", Some(i64::try_from(batch)?.into()))?;
            set("schedule.minibatch", Some(toml::Table::new().into()))?;
        }
        if let Some(tick) = self.tick {
            set("schedule.tick_kimg_base", Some(tick.into()))?;
            set("schedule.tick_kimg", Some(toml::Table::new().into()))?;
        }
        set("run.snapshot_ticks", self.snap.map(i64::try_from).transpose()?.map(Into::into))?;
        set("run.metrics", self.metrics.clone().map(Into::into))?;
        set("run.grid", self.grid.map(|g| g.to_string().into()))?;
        set("run.grid_layout", self.grid_layout.clone().map(Into::into))?;
        set("run.seed", self.seed.map(i64::try_from).transpose()?.map(Into::into))?;
        set("data.mirror", self.mirror.map(Into::into))?;
        match self.cond {
            Some(true) => settings.unset("model.label_size"),
            Some(false) => settings.set("model.label_size", 0.into())?,
            None => {}
        }
        for text in &self.set {
            settings.set_text(text)?;
        }
        Ok(settings)
    }
}

fn train_and_show(job: &Job<'_>) -> Result<()> {
    let total = job.config.schedule.total_images();
    let span = bar("{bar:30} {percent}% of {len} images, {msg}");
    span.pb_set_length(total);
    let outcome = train::train(job, |at| {
        super::keep_memory(&job.config.model, at.stage.growth.resolution());
        span.pb_set_position(at.images.min(total));
        span.pb_set_message(&describe_position(&at));
    })?;
    drop(span);
    let run = job.run.path().display();
    match outcome {
        Outcome::AlreadyDone => info!(
            "{run} is done: {total} images. Train it further with --kimg, or begin another run with --new"
        ),
        Outcome::Done(picture) => {
            info!("done: {total} images. Look at {}", picture.display());
            info!("more: cargo xtask generate --network {run} --seeds 0-63 --dest out --grid 8x8");
        }
        Outcome::Stopped(state) => {
            info!("stopped; saved {}. The same command goes on from there", state.display());
        }
    }
    Ok(())
}

fn describe_position(at: &Position) -> String {
    let growth = at.stage.growth;
    let r = growth.resolution();
    let fade = if growth.fading() {
        format!(" fading in {:.0}%", 100.0 * growth.alpha)
    } else {
        String::new()
    };
    format!("{r}x{r}{fade}, {:.0} img/s, about {} left", at.images_per_second, duration(at.left))
}

fn dry_run(config: &Config, store: &Store) -> Result<()> {
    let max_level = config.model.max_level();
    let mut text = config.to_toml();
    text.push_str(
        "\n# resolution  maps  minibatch  learning rate  full from kimg  multiplications G, D\n",
    );
    let schedule = &config.schedule;
    let mut kimg = 0.0;
    for level in schedule.initial_level(max_level)..=max_level {
        let (r, (g, d)) = (1usize << level, config.model.multiplications(level));
        let (batch, rate) = (schedule.minibatch_at(r), schedule.learning_rate_at(r));
        let _ = writeln!(
            text,
            "# {r:>10}  {:>4}  {batch:>9}  {rate:>13}  {kimg:>14}  {g:.2e}, {d:.2e}",
            config.model.fmaps(level),
        );
        kimg += schedule.training_kimg + schedule.transition_kimg;
    }
    let _ = writeln!(text, "# {} images in {}", store.images(), store.dir().display());
    super::print(&text)
}

/// Set by the first Ctrl-C or SIGTERM; the second ends the program at once.
fn stop_flag() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        info!("stopping: saving the state (once more to stop at once)");
    })?;
    Ok(&STOP)
}

fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => format!("cpu, {} threads", rayon::current_num_threads()),
        other => format!("{:?}", other.location()),
    }
}
