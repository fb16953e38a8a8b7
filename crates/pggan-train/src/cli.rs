//! The command line: from flags to a job.

mod bench;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::ProgressStyle;
use pggan_data::{PrepareOptions, Store};
use pggan_train::config::{Config, PRESETS, Settings};
use pggan_train::device;
use pggan_train::generate::{self, Request, parse_seeds};
use pggan_train::golden;
use pggan_train::run_dir::{self, RunDir};
use pggan_train::samples::Grid;
use pggan_train::stats::duration;
use pggan_train::train::{self, Job, Outcome, Position};
use tracing::{info, info_span};
use tracing_indicatif::span_ext::IndicatifSpanExt as _;

use crate::console::Console;

/// What `--resume` without a path stands for; no file has this name.
const NEWEST: &str = "";

/// Progressive GAN: train generators that grow from 4x4 to 1024x1024, and generate with them.
#[derive(Parser)]
#[command(name = "cargo xtask", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<TrainArgs>),
    Generate(GenerateArgs),
    Bench(bench::BenchArgs),
    Golden(GoldenArgs),
    Import(ImportArgs),
}

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

In the run's folder: fakes*.png, reals.png, log.txt, stats.jsonl (one line a tick, for programs), config.toml,
network-snapshot-*.safetensors (for people), training-state-*.safetensors (to go on from).
Ctrl-C saves the state and ends with exit code 0.")]
struct TrainArgs {
    /// Prepared data set (made by `cargo xtask prepare-dataset`) [default: the emoji in datasets/]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of runs; each run makes a folder of its own in it [default: runs/]
    #[arg(long, value_name = "DIR", alias = "output_dir")]
    outdir: Option<PathBuf>,
    /// Settings to start from: quick, small (for CPUs), v1-1gpu, v2-1gpu, v2-2gpus, v2-4gpus, v2-8gpus
    /// (the official code's) [default: quick]
    #[arg(long, value_name = "NAME", alias = "cfg")]
    preset: Option<String>,
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
    /// Columns and rows of the pictures, as 8x8, or 1080p, or 4k [default: the preset's]
    #[arg(long, value_name = "WxH")]
    grid: Option<Grid>,
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
    /// Go on with a run: its folder, one of its training states, or nothing for the newest
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = NEWEST)]
    resume: Option<PathBuf>,
    /// Begin a new run even if an unfinished one has the same settings
    #[arg(long, conflicts_with = "resume")]
    new: bool,
    /// Print the settings, the networks and the schedule, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// Generate images with a trained network.
///
/// A seed is an image: the same network and seed give the same file, alone or among others.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask generate --network runs/00000-fluent-emoji-32-quick --seeds 0-63 --dest out --grid 8x8
  cargo xtask generate --network network-snapshot-000120.safetensors --seeds 7,12,100-109 --dest out
  cargo xtask generate --network runs/00000-faces --latents z.safetensors --dest images.safetensors")]
struct GenerateArgs {
    /// A snapshot, or the folder of a run (then its newest snapshot)
    #[arg(long, value_name = "FILE_OR_DIR")]
    network: PathBuf,
    /// Which images, as 0,1,4-6
    #[arg(long, value_name = "LIST", default_value = "0-63")]
    seeds: String,
    /// Instead of seeds: a safetensors file with latent vectors, `z` [N, latent] (and `labels` [N, classes]); the
    /// images then go to one safetensors file, --dest, as `images` [N, C, R, R], neither rounded nor clipped
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "grid"])]
    latents: Option<PathBuf>,
    /// Folder for the images, seed0000.png and so on
    #[arg(long, value_name = "DIR", alias = "outdir")]
    dest: PathBuf,
    /// Also all of them in one picture, grid.png, of so many columns and rows
    #[arg(long, value_name = "WxH")]
    grid: Option<Grid>,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Turn weights of another implementation into a snapshot of ours.
///
/// Reads checkpoints of `pytorch_GAN_zoo` (.pth, both forms of torch.save). Nothing in the file is executed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask import --source celebaHQ_s6_i80000-6196db68.pth --dest imported/celebahq-256
  cargo xtask generate --network imported/celebahq-256 --seeds 0-63 --dest out --grid 8x8")]
struct ImportArgs {
    /// The file
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// Folder for the snapshot
    #[arg(long, value_name = "DIR")]
    dest: PathBuf,
}

/// Check this implementation against numbers that another one made.
///
/// A row for each quantity: its largest relative error, what is allowed, and the verdict. Exit code 1 if one fails.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask golden tests/golden
The folder's files say what they hold: NET_params.safetensors are weights under the official names, NET_forward what the
networks make of given inputs, other files of NET the gradients of a step or the weights after three.")]
struct GoldenArgs {
    /// Folder of golden files
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Cli {
    pub(crate) fn run(self, console: &Console) -> Result<ExitCode> {
        match self.command {
            Command::Golden(args) => return args.run(),
            Command::Import(args) => args.run(),
            Command::Train(args) => args.run(console),
            Command::Generate(args) => args.run(),
            Command::Bench(args) => args.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

impl TrainArgs {
    fn run(self, console: &Console) -> Result<()> {
        use_threads(self.threads)?;
        let outdir = self.outdir.clone().unwrap_or_else(|| root().join("runs"));
        let resumed = match &self.resume {
            None => None,
            Some(path) if path.as_os_str() == NEWEST => Some(run_dir::locate(&outdir)?),
            Some(path) => Some(run_dir::locate(path)?),
        };
        let recorded = resumed.as_deref().map(run_dir::read_config).transpose()?;

        let mut settings = self.settings(recorded.as_ref())?;
        let data = self.data_path(recorded.as_ref())?;
        let store = Store::open(&data).map_err(|e| explain_data(e, &data))?;
        fit_to_data(&mut settings, &store, &data)?;
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
        if config.model.channels != pggan_data::CHANNELS {
            bail!(
                "model.channels = {}: the data set has {}",
                config.model.channels,
                pggan_data::CHANNELS
            );
        }
        let device = device::open(&self.device)?;
        if self.dry_run {
            return dry_run(&config, &store);
        }

        let name = dataset_name(&data);
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
            stop: stop_flag()?,
        })
    }

    /// Preset or recorded run, then file, then flags.
    fn settings(&self, recorded: Option<&Config>) -> Result<Settings> {
        let mut settings = match (&self.preset, recorded) {
            (None, Some(recorded)) => Settings::parse(&recorded.to_toml(), "config.toml")?,
            (preset, _) => Settings::preset(preset.as_deref().unwrap_or(PRESETS[0].0))?,
        };
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
        set("run.grid", self.grid.map(|g| g.to_string().into()))?;
        set("run.seed", self.seed.map(i64::try_from).transpose()?.map(Into::into))?;
        set("data.mirror", self.mirror.map(Into::into))?;
        for text in &self.set {
            settings.set_text(text)?;
        }
        Ok(settings)
    }

    /// The data set's folder; the default one is prepared if it has not been yet.
    fn data_path(&self, recorded: Option<&Config>) -> Result<PathBuf> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        if let Some(recorded) = recorded.filter(|c| !c.data.path.is_empty()) {
            return Ok(PathBuf::from(&recorded.data.path));
        }
        let source = root().join("datasets").join("fluent-emoji").join("images");
        if !source.exists() {
            bail!(
                "{}: the default data set is not here; start from the project's folder, or name a data set \
                 with --data DIR",
                source.display()
            );
        }
        let dest = root().join("datasets").join("prepared").join("fluent-emoji");
        let span = bar("{msg} {bar:30} {pos}/{len} images, {per_sec}, {eta} left");
        span.pb_set_message("preparing the default data set");
        let report = pggan_data::prepare(&PrepareOptions::new(source, &dest), |progress| {
            if let pggan_data::Progress::Images { done, total, .. } = progress {
                span.pb_set_length(total);
                span.pb_set_position(done);
            }
        })?;
        drop(span);
        if report.outcome != pggan_data::Outcome::AlreadyThere {
            info!("prepared {} images in {}", report.images, dest.display());
        }
        Ok(dest)
    }
}

impl GenerateArgs {
    fn run(self) -> Result<()> {
        use_threads(self.threads)?;
        let seeds = parse_seeds(&self.seeds).map_err(|e| anyhow::anyhow!("--seeds {e}"))?;
        let device = device::open(&self.device)?;
        let span = bar("{bar:30} {pos}/{len} images, {per_sec}, {eta} left");
        if let Some(latents) = &self.latents {
            let report = |done, all| {
                span.pb_set_length(all as u64);
                span.pb_set_position(done as u64);
            };
            let (network, dest) = (&self.network, &self.dest);
            let n = generate::generate_from_latents(network, latents, dest, &device, report)?;
            drop(span);
            info!("wrote {n} images to {}", dest.display());
            return Ok(());
        }
        span.pb_set_length(seeds.len() as u64);
        let request =
            Request { network: &self.network, seeds: &seeds, dest: &self.dest, grid: self.grid };
        let files =
            generate::generate(&request, &device, |done| span.pb_set_position(done as u64))?;
        drop(span);
        info!("wrote {} files to {}", files.len(), self.dest.display());
        if let Some(last) = files.last() {
            info!("the last one: {}", last.display());
        }
        Ok(())
    }
}

impl ImportArgs {
    fn run(self) -> Result<()> {
        use_threads(None)?;
        let report = pggan_train::import::import(&self.source, &self.dest)?;
        for note in &report.notes {
            tracing::warn!("{note}");
        }
        let (r, alpha) = (report.resolution, report.alpha);
        info!(
            "imported a network of {r}x{r} pixels, alpha {alpha}, to {}",
            report.snapshot.display()
        );
        info!("look at it: cargo xtask generate --network {} --dest out", self.dest.display());
        Ok(())
    }
}

impl GoldenArgs {
    fn run(self) -> Result<ExitCode> {
        use_threads(None)?;
        let golden::Report { rows, skipped } = golden::check(&self.folder)?;
        let failed = rows.iter().filter(|row| !row.ok()).count();
        let mut text = String::new();
        for row in &rows {
            let verdict = if row.ok() { "ok" } else { "FAIL" };
            let golden::Row { file, quantity, error, tolerance } = row;
            let _ = writeln!(
                text,
                "{file:<28} {quantity:<52} {error:>8.1e} {tolerance:>8.0e}  {verdict}"
            );
        }
        for name in &skipped {
            let _ = writeln!(text, "{name:<28} not of a kind that is checked here");
        }
        let _ = writeln!(text, "{} quantities, {failed} wrong", rows.len());
        print(&text)?;
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn train_and_show(job: &Job<'_>) -> Result<()> {
    let total = job.config.schedule.total_images();
    let span = bar("{bar:30} {percent}% of {len} images, {msg}");
    span.pb_set_length(total);
    let outcome = train::train(job, |at| {
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
    for level in schedule.initial_resolution.ilog2()..=max_level {
        let (r, (g, d)) = (1u32 << level, config.model.multiplications(level));
        let stage = schedule.stage_at(max_level, (kimg * 1000.0) as u64);
        let (batch, rate) = (stage.minibatch, stage.learning_rate);
        let _ = writeln!(
            text,
            "# {r:>10}  {:>4}  {batch:>9}  {rate:>13}  {kimg:>14}  {g:.2e}, {d:.2e}",
            config.model.fmaps(level),
        );
        kimg += schedule.training_kimg + schedule.transition_kimg;
    }
    let _ = writeln!(text, "# {} images in {}", store.images(), store.dir().display());
    print(&text)
}

/// What a person may want to pipe somewhere; all else goes to the log.
fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

/// What the data decide: resolution, where nothing else is said, and channels; and which data they are.
fn fit_to_data(settings: &mut Settings, store: &Store, data: &Path) -> Result<()> {
    if !settings.has("model.resolution") {
        settings.set("model.resolution", (1i64 << store.max_level()).into())?;
    }
    let path = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    settings.set("data.path", path.to_string_lossy().into_owned().into())?;
    let manifest = data.join("manifest.json");
    let bytes = std::fs::read(&manifest).with_context(|| manifest.display().to_string())?;
    settings.set("data.content", blake3::hash(&bytes).to_hex().to_string().into())?;
    Ok(())
}

/// A person may well name the folder of the images themselves.
fn explain_data(error: pggan_data::Error, data: &Path) -> anyhow::Error {
    let prepared = data.join("manifest.json").exists();
    let error = anyhow::Error::from(error);
    if prepared || !data.exists() {
        return error;
    }
    error.context(format!(
        "{} is not a prepared data set; make one with `cargo xtask prepare-dataset --source {} --dest DIR`",
        data.display(),
        data.display()
    ))
}

fn dataset_name(data: &Path) -> String {
    let name = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let name = name.file_name().map_or("data".into(), |n| n.to_string_lossy().into_owned());
    name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// The project's folder, as the orchestrator tells it; the current one otherwise.
fn root() -> PathBuf {
    std::env::var_os("PGGAN_ROOT").map_or_else(PathBuf::new, PathBuf::from)
}

/// This thread becomes one of rayon's: handing every operation to another thread and waiting for it would cost two
/// switches each.
fn use_threads(threads: Option<usize>) -> Result<()> {
    if threads == Some(0) {
        bail!("--threads 0: at least one is needed");
    }
    // Zero stands for all of the machine's.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    pool.use_current_thread().build_global()?;
    Ok(())
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

fn describe(device: &candle_core::Device) -> String {
    match device {
        candle_core::Device::Cpu => format!("cpu, {} threads", rayon::current_num_threads()),
        other => format!("{:?}", other.location()),
    }
}

fn bar(template: &str) -> tracing::Span {
    let span = info_span!("progress");
    if let Ok(style) = ProgressStyle::with_template(template) {
        span.pb_set_style(&style);
    }
    span.pb_start();
    span
}
