//! `pggan-data`: prepares, shows and checks data sets.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what people read")]

mod recipes;

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use indicatif::ProgressStyle;
use pggan_data::source::LabelsFrom;
use pggan_data::store::manifest::{Crop, Filter};
use pggan_data::{
    ExportOptions, Format, Outcome, Part, PrepareOptions, Progress, Report, Store, export, inspect,
    merge, prepare, statistics,
};
use recipes::Recipes;
use tracing::Span;
use tracing_indicatif::IndicatifLayer;
use tracing_indicatif::span_ext::IndicatifSpanExt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Prepares images for training; shows, checks and exports what was prepared.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(Prepare),
    Inspect(Inspect),
    Verify(Verify),
    Export(Export),
    Merge(Merge),
}

/// Turn images into a data set to train on.
///
/// Images may have any size, shape and colour type (PNG, JPEG, WebP, GIF, BMP). Each is turned upright,
/// made a square (--transform), resized to a power of two and stored at every resolution from 4x4 up. Files that
/// cannot be used are named and skipped. A run that is cut short is continued by the same command.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask prepare-dataset --source photos/ --dest datasets/photos
      as large as nearly all photos allow, at most 1024x1024
  cargo xtask prepare-dataset --source faces.zip --dest datasets/faces-64 --resolution 64
  cargo xtask prepare-dataset --source icons/ --dest datasets/icons --background black --strict
  cargo xtask prepare-dataset --source photos/ --align landmarks.csv --dest datasets/faces-256 --resolution 256
  cargo xtask prepare-dataset --recipe celebahq --celeba CelebA/ --deltas deltas/ --dest datasets/celebahq")]
struct Prepare {
    /// Folder (with all folders in it), .zip or .tar of images; CIFAR (.tar.gz or unpacked), MNIST's IDX,
    /// SVHN's .mat, LMDB, Parquet or TFRecord files; or synthetic:COUNTxSIDE.
    #[arg(long, value_name = "PATH", required_unless_present = "celeba")]
    source: Option<PathBuf>,

    /// Folder to make; an unfinished one is continued, a finished one left alone.
    #[arg(long, value_name = "DIR")]
    dest: PathBuf,

    /// Pixels a side, such as 64 or 64x64: a power of two. [default: the largest that 95% of the images
    /// reach, at most 1024]
    #[arg(long, value_name = "R", value_parser = parse_resolution)]
    resolution: Option<u32>,

    /// Take only the first N images.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    max_images: Option<u64>,

    /// Stop at the first bad file.
    #[arg(long)]
    strict: bool,

    /// Replace a data set in DIR that was prepared differently or is damaged.
    #[arg(long)]
    force: bool,

    /// Allow a resolution above that of the images.
    #[arg(long)]
    upscale: bool,

    /// Colour channels: 1 (grey), 3 (RGB) or 4 (RGB and transparency).
    #[arg(long, value_name = "N", default_value = "3", value_parser = parse_channels)]
    channels: usize,

    /// How pictures become squares: their middle (center-crop), their middle at 4:3 with bars
    /// (center-crop-wide), all of them with bars (pad) or out of shape (stretch), or as they are (none).
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "center-crop|center-crop-wide|pad|stretch|none"
    )]
    transform: Crop,

    /// Take a square of each picture first: X and Y of its middle, and its SIDE.
    #[arg(long, value_name = "X,Y,SIDE", value_parser = parse_window)]
    crop: Option<[u32; 3]>,

    #[command(flatten)]
    recipes: Recipes,

    /// Prepare only part I of N, in a folder of its own in DIR; `merge` joins them. For schedulers.
    #[arg(long, value_name = "I/N", value_parser = parse_part)]
    shard: Option<Part>,

    /// How they are resized.
    #[arg(long, value_enum, default_value_t)]
    filter: Filter,

    /// Where labels come from. `auto`: dataset.json if there is one, else what the format itself says;
    /// `folders`: the folders at the top are the classes.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "auto|none|folders|dataset.json"
    )]
    labels: LabelsFrom,

    /// What shows through transparent images and as bars: white, black, or R,G,B.
    #[arg(long, value_name = "COLOUR", default_value = "white", value_parser = parse_colour)]
    background: Colour,

    /// Threads to decode on. [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// The most MiB of pixels in a file.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    shard_mib: u64,
}

/// Print what a data set holds.
#[derive(Args)]
#[command(after_help = "Example:
  pggan-data inspect datasets/faces-64 --contact-sheet faces.png")]
struct Inspect {
    /// Folder of a prepared data set.
    dir: PathBuf,

    /// Also the mean and standard deviation of every level, which reads everything.
    #[arg(long)]
    stats: bool,

    /// Also which images look the same (by a difference hash of their 8x8 level).
    #[arg(long)]
    dedup: bool,

    /// Also write up to 64 of its images to this PNG.
    #[arg(long, value_name = "FILE.png")]
    contact_sheet: Option<PathBuf>,
}

/// Check every byte of a data set: all hashes, and every level against the one above.
#[derive(Args)]
struct Verify {
    /// Folder of a prepared data set.
    dir: PathBuf,

    /// Threads to check on. [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Write a data set in another format.
///
/// `tfrecord`: a folder with `NAME-r02.tfrecords` and so on, as the paper's code reads them. `zip`, `folder`: PNG
/// files with dataset.json, as stylegan2 and 3 read them. `webdataset`: a folder of tar files.
#[derive(Args)]
#[command(after_help = "Examples:
  pggan-data export datasets/faces-64 --format zip --dest faces-64x64.zip
  pggan-data export datasets/faces-64 --format tfrecord --dest datasets/tf/faces")]
struct Export {
    /// Folder of a prepared data set.
    dir: PathBuf,

    /// Folder or archive to make.
    #[arg(long, value_name = "PATH")]
    dest: PathBuf,

    /// The format.
    #[arg(long, value_enum)]
    format: Format,

    /// Pixels a side; of TFRecords, the most. [default: the data set's]
    #[arg(long, value_name = "R", value_parser = parse_resolution)]
    resolution: Option<u32>,

    /// Threads to encode on. [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Join the parts that `prepare --shard` has made in a folder.
#[derive(Args)]
#[command(after_help = "Example:
  for i in 1 2 3 4; do
      pggan-data prepare --source bedroom_train_lmdb --dest bedroom --resolution 256 --shard $i/4 &
  done; wait
  pggan-data merge bedroom")]
struct Merge {
    /// The --dest of the parts.
    dir: PathBuf,
}

#[derive(Clone, Copy)]
struct Colour([u8; 3]);

fn parse_colour(text: &str) -> Result<Colour, String> {
    let colour = match text {
        "white" => Some([255; 3]),
        "black" => Some([0; 3]),
        _ => {
            let parts: Result<Vec<u8>, _> =
                text.split(',').map(|part| part.trim().parse()).collect();
            parts.ok().and_then(|parts| parts.try_into().ok())
        }
    };
    colour
        .map(Colour)
        .ok_or_else(|| "pass white, black, or three numbers from 0 to 255 such as 255,128,0".into())
}

fn parse_channels(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "4" => Ok(4),
        _ => Err("pass 1 (grey), 3 (RGB) or 4 (RGB and transparency)".into()),
    }
}

fn parse_window(text: &str) -> Result<[u32; 3], String> {
    let parts: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let window: Option<[u32; 3]> = parts.ok().and_then(|parts| parts.try_into().ok());
    window.filter(|&[_, _, side]| side > 0).ok_or_else(|| "pass X,Y,SIDE such as 89,121,128".into())
}

fn parse_part(text: &str) -> Result<Part, String> {
    let part = text
        .split_once('/')
        .and_then(|(number, of)| Some(Part { number: number.parse().ok()?, of: of.parse().ok()? }));
    part.ok_or_else(|| "pass I/N such as 3/8, with I from 1 to N".into())
}

fn parse_resolution(text: &str) -> Result<u32, String> {
    let side = match text.split_once('x') {
        Some((width, height)) if width == height => width,
        Some(_) => return Err("images become squares: pass one number, such as 64".into()),
        None => text,
    };
    side.parse().map_err(|_| "pass a power of two from 4 to 8192, such as 64 or 64x64".into())
}

fn main() -> ExitCode {
    let bars = IndicatifLayer::new();
    let log = tracing_subscriber::fmt::layer()
        .with_writer(bars.get_stderr_writer())
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let bars = std::io::stderr().is_terminal().then_some(bars);
    tracing_subscriber::registry().with(filter).with(log).with(bars).init();

    let cli = pggan_data::flags::parse::<Cli>().map_err(anyhow::Error::msg);
    let result = cli.and_then(|cli| match cli.command {
        Command::Prepare(args) => args.run(),
        Command::Inspect(args) => args.run(),
        Command::Verify(args) => args.run(),
        Command::Export(args) => args.run(),
        Command::Merge(args) => args.run(),
    });
    match result {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Prepare {
    fn run(self) -> anyhow::Result<String> {
        let mut options = PrepareOptions::new("", self.dest);
        options.resolution = self.resolution;
        options.max_images = self.max_images;
        options.strict = self.strict;
        options.force = self.force;
        options.upscale = self.upscale;
        options.channels = self.channels;
        options.labels = self.labels;
        options.window = self.crop;
        options.part = self.shard;
        self.recipes.apply(self.source, &mut options)?;
        options.crop = self.transform;
        options.filter = self.filter;
        options.background = self.background.0;
        options.threads = self.threads.map_or(options.threads, usize::from);
        options.shard_bytes = self.shard_mib << 20;

        let mut survey = Meter::new("looking at files", "files");
        let mut images = Meter::new("preparing", "img");
        let report = prepare(&options, |progress| match progress {
            Progress::Survey { done, total } => survey.show(done, total, 0),
            Progress::Images { done, total, restored } => {
                survey.finish();
                images.show(done, total, restored);
            }
            _ => {}
        })?;
        images.finish();
        Ok(summary(&report))
    }
}

fn summary(report: &Report) -> String {
    let Report { images, dest, max_level, bytes, elapsed, .. } = report;
    let (side, dest, size) = (1 << max_level, dest.display(), inspect::size(*bytes));
    let labels = match report.labels {
        0 => String::new(),
        labels => format!(" with {labels} labels"),
    };
    let what = format!("{images} images{labels} at 4x4 to {side}x{side}, {size}, in {dest}");
    let restored = match report.outcome {
        Outcome::AlreadyThere => {
            return format!("already prepared: {what} (pass --force to prepare again)");
        }
        Outcome::Resumed { restored } => restored,
        Outcome::Prepared => 0,
    };
    let seconds = elapsed.as_secs_f64();
    let rate = (images - restored) as f64 / seconds.max(1e-3);
    let mut text = format!("prepared {what}: {seconds:.1} s, {rate:.0} img/s");
    for (count, note) in [
        (restored, "taken over from an earlier run"),
        (report.bad, "bad files skipped, see manifest.json"),
        (report.enlarged, "enlarged"),
        (report.passed_over, "other files passed over"),
    ] {
        if count > 0 {
            // Writing to a string cannot fail.
            write!(text, "; {count} {note}").ok();
        }
    }
    text
}

impl Inspect {
    fn run(self) -> anyhow::Result<String> {
        let store = Store::open(&self.dir)?;
        let mut text = inspect::table(&store);
        if self.stats {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            text.push_str(&inspect::statistics(&statistics::moments(&store, threads)?));
        }
        if self.dedup {
            text.push_str(&inspect::duplicates(&store, &statistics::duplicates(&store)?)?);
        }
        if let Some(path) = self.contact_sheet {
            inspect::contact_sheet(&store, &path)?;
            write!(text, "\n  contact sheet: {}", path.display())?;
        }
        Ok(text)
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<String> {
        let store = Store::open(&self.dir)?;
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or(all, usize::from);
        let begin = Instant::now();
        let mut meter = Meter::new("checking", "img");
        let done = store.verify(threads, |done| meter.show(done, store.images(), 0))?;
        meter.finish();
        Ok(format!(
            "{}: sound; {} files ({}) have the right BLAKE3 and the levels of all {} images{} agree ({:.1} s)",
            self.dir.display(),
            done.shards,
            inspect::size(done.bytes),
            done.images,
            store.labels().map_or_else(String::new, |l| format!(" with {} labels", l.width())),
            begin.elapsed().as_secs_f64()
        ))
    }
}

impl Export {
    fn run(self) -> anyhow::Result<String> {
        let store = Store::open(&self.dir)?;
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or(all, usize::from);
        let Self { dest, format, resolution, .. } = self;
        let options = ExportOptions { dest, format, resolution, threads };
        let mut meter = Meter::new("writing", "img");
        export(&store, &options, |done| meter.show(done, store.images(), 0))?;
        meter.finish();
        Ok(format!("wrote {} images to {}", store.images(), options.dest.display()))
    }
}

impl Merge {
    fn run(self) -> anyhow::Result<String> {
        let images = merge(&self.dir)?;
        Ok(format!("{}: {images} images of all parts", self.dir.display()))
    }
}

/// Progress: a bar on a terminal, else a line now and then.
struct Meter {
    verb: &'static str,
    unit: &'static str,
    /// The bar lives as long as its span.
    span: Option<Span>,
    begin: Instant,
    next_line: Duration,
}

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Meter {
    fn new(verb: &'static str, unit: &'static str) -> Self {
        Self { verb, unit, span: None, begin: Instant::now(), next_line: LINE_EVERY }
    }

    fn show(&mut self, done: u64, total: u64, restored: u64) {
        if std::io::stderr().is_terminal() {
            self.bar(total, restored).pb_set_position(done);
            return;
        }
        if done == restored + 1 {
            self.begin = Instant::now();
        }
        let elapsed = self.begin.elapsed();
        if elapsed >= self.next_line && done > restored {
            self.next_line = elapsed + LINE_EVERY;
            let rate = (done - restored) as f64 / elapsed.as_secs_f64();
            let left = (total - done) as f64 / rate;
            eprintln!(
                "{} {done} of {total}, {rate:.0} {}/s, {left:.0} s left",
                self.verb, self.unit
            );
        }
    }

    fn bar(&mut self, total: u64, restored: u64) -> &Span {
        self.span.get_or_insert_with(|| {
            let span = tracing::info_span!("progress");
            let template =
                format!("{} {{bar:32}} {{pos}}/{{len}}  {{per_sec}}  {{eta}} left", self.verb);
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            span.pb_set_style(&style);
            span.pb_set_length(total);
            span.pb_start();
            span.pb_set_position(restored);
            span.pb_reset_eta();
            span
        })
    }

    fn finish(&mut self) {
        self.span = None;
    }
}
