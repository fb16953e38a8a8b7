//! `prepare`: images to a data set.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use pggan_data::source::LabelsFrom;
use pggan_data::store::manifest::{Compression, Crop, Filter, Layout};
use pggan_data::{Outcome, Part, PrepareOptions, Progress, Report, inspect, prepare};

use super::parse_resolution;
use super::recipes::Recipes;
use crate::Meter;

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
  cargo xtask prepare-dataset --source hf://owner/name:train --dest datasets/name --resolution 64
  cargo xtask prepare-dataset --source photos/ --align landmarks.csv --dest datasets/faces-256 --resolution 256
  cargo xtask prepare-dataset --recipe celebahq --celeba CelebA/ --deltas deltas/ --dest datasets/celebahq")]
pub(crate) struct Prepare {
    /// Folder (with all folders in it), .zip or .tar of images; CIFAR (.tar.gz or unpacked), MNIST's IDX,
    /// SVHN's .mat, LMDB, Parquet or TFRecord files; hf://OWNER/NAME[@REVISION][:SPLIT] on the Hugging Face hub;
    /// or synthetic:COUNTxSIDE.
    #[expect(clippy::doc_markdown, reason = "help shows this as it stands")]
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

    /// Keep large levels as image files, which take a third to two thirds of the room, and time to read: png and webp
    /// lose nothing, jpeg a little.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "raw|png|jpeg|webp"
    )]
    codec: Layout,

    /// The levels that --codec is for: those of more than R pixels a side.
    #[arg(long, value_name = "R", default_value = "256", value_parser = parse_resolution)]
    codec_above: u32,

    /// The quality of JPEG, 1 to 100.
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg_quality: u8,
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

impl Prepare {
    pub(crate) fn run(self) -> anyhow::Result<String> {
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
        options.compression = (self.codec != Layout::Raw).then_some(Compression {
            codec: self.codec,
            above: self.codec_above,
            quality: if self.codec == Layout::Jpeg { self.jpeg_quality } else { 0 },
        });

        let mut download = Meter::new("downloading", "MiB");
        let mut survey = Meter::new("looking at files", "files");
        let mut images = Meter::new("preparing", "img");
        let report = prepare(&options, |progress| match progress {
            Progress::Download { done, total } => download.show(done >> 20, total >> 20, 0),
            Progress::Survey { done, total } => {
                download.finish();
                survey.show(done, total, 0);
            }
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
