//! From a source to a store: the whole of the first line of the crate's map.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::build::{Build, Built};
use crate::faces::{self, Align, Faces};
use crate::source::{LabelsFrom, Source};
use crate::store::manifest::{
    Bad, BadFiles, Compression, Crop, Filter, Layout, MAX_LISTED, Manifest, Recipe,
};
use crate::store::{MANIFEST, Staging, is_foreign, tidy};
use crate::survey::{Survey, check_resolution};
use crate::{CHANNELS, Error, Part, Result};

/// What to prepare and how.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Where the images are, see [`crate::source`].
    pub source: PathBuf,
    /// Where the store is to be: a new or empty folder, or an older store.
    pub dest: PathBuf,
    /// Pixels a side, a power of two from 4 to 8192. None: the largest that at least 95% of the images
    /// reach without being enlarged, at most 1024.
    pub resolution: Option<u32>,
    /// The most images to take, in the source's order.
    pub max_images: Option<u64>,
    /// Whether the first bad file is an error; otherwise it is named, counted and skipped.
    pub strict: bool,
    /// Whether a store at `dest` may be replaced.
    pub force: bool,
    /// Whether a resolution may be above that of the images.
    pub upscale: bool,
    /// Colour planes: 1 (grey), 3 (RGB) or 4 (RGB and transparency).
    pub channels: usize,
    /// How pictures become squares.
    pub crop: Crop,
    /// How they are resized.
    pub filter: Filter,
    /// A square of each picture that is taken before all else: its middle, x and y, and its side.
    pub window: Option<[u32; 3]>,
    /// Faces are turned upright by landmarks; `crop`, `filter` and `window` have no say then. For RGB or grey, at up to
    /// 1024 pixels a side.
    pub align: Option<Align>,
    /// Only a part of the source, for [`merge`](crate::merge) to join: `dest` gets a folder for it. Every part
    /// must be prepared at the same stated resolution.
    pub part: Option<Part>,
    /// Where labels come from.
    pub labels: LabelsFrom,
    /// What shows through transparent images where there are 1 or 3 channels, and beside those that do not
    /// fill the square, RGB.
    pub background: [u8; 3],
    /// Threads that decode, the calling one among them. Their number does not change the result.
    pub threads: usize,
    /// The most bytes of pixels in a shard.
    pub shard_bytes: u64,
    /// How large levels are compressed; none: not at all.
    pub compression: Option<Compression>,
}

impl PrepareOptions {
    /// All images of `source` at the resolution that fits them, RGB on white, with all processors.
    pub fn new(source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            dest: dest.into(),
            resolution: None,
            max_images: None,
            strict: false,
            force: false,
            upscale: false,
            channels: 3,
            crop: Crop::Center,
            filter: Filter::Lanczos3,
            window: None,
            align: None,
            part: None,
            labels: LabelsFrom::Auto,
            background: [255; 3],
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            shard_bytes: 256 << 20,
            compression: None,
        }
    }
}

impl PrepareOptions {
    /// The entries of a source of `entries` that are to be looked at.
    pub(crate) fn slice(&self, entries: usize) -> std::ops::Range<usize> {
        self.part.map_or(0..entries, |part| part.slice(entries))
    }
}

/// How far [`prepare`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// What lies on the hub is being brought here.
    Download {
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Headers are being read.
    Survey {
        /// Files looked at.
        done: u64,
        /// Files in the source.
        total: u64,
    },
    /// Images are being decoded and stored.
    Images {
        /// Images done, those of an earlier run included.
        done: u64,
        /// Images in all.
        total: u64,
        /// Taken over from an earlier run.
        restored: u64,
    },
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A store was made.
    Prepared,
    /// A store was made from `restored` images of a run that was cut short, and the rest of the source.
    Resumed {
        /// Images that were not decoded again.
        restored: u64,
    },
    /// The same request had been carried out before; nothing was done.
    AlreadyThere,
}

/// What [`prepare`] has done.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the store is.
    pub dest: PathBuf,
    /// What became of the request.
    pub outcome: Outcome,
    /// Images in the store.
    pub images: u64,
    /// Files that were skipped; the manifest names them.
    pub bad: u64,
    /// Files that are not called like an image.
    pub passed_over: u64,
    /// Images that were enlarged.
    pub enlarged: u64,
    /// Classes, or numbers in a label; 0 without labels.
    pub labels: u64,
    /// The store's highest level.
    pub max_level: u32,
    /// Bytes of images on disk.
    pub bytes: u64,
    /// Time taken.
    pub elapsed: Duration,
}

/// Makes a store from image files. Bad files are named by `tracing` warnings as they are met.
///
/// A run that was cut short, even killed, is continued by the next one with the same options. Until the
/// new store is complete, an older one at `dest` stays; if this fails, it stays for good.
///
/// Memory: the names of the files; per thread an encoded file, its pixels (see [`crate::decode`]) and two
/// pyramids, compressed or not; and per level a quarter of a megabyte. It does not grow with the number of images
/// otherwise.
///
/// # Errors
///
/// Those of [`Error`] that concern sources and destinations. Nothing is written when the request itself is
/// wrong.
pub fn prepare(options: &PrepareOptions, mut progress: impl FnMut(Progress)) -> Result<Report> {
    let begin = Instant::now();
    let mut options = options.clone();
    if let Some(part) = options.part {
        let wrong =
            |reason: &str| Error::Parts { dest: options.dest.clone(), reason: reason.into() };
        if part.number == 0 || part.number > part.of || part.of > 99_999 {
            return Err(wrong("parts are numbered from 1/n to n/n, and n is at most 99999"));
        }
        if options.resolution.is_none() || options.max_images.is_some() {
            return Err(wrong("a part needs a --resolution and takes no --max-images"));
        }
        if options.dest.join(MANIFEST).exists() {
            return Err(wrong("the parts are merged already; choose another --dest"));
        }
        options.dest = part.dir(&options.dest);
    }
    let options = &options;
    if let Some(resolution) = options.resolution {
        check_resolution(resolution)?;
    }
    if !CHANNELS.contains(&options.channels) {
        return Err(Error::Channels { given: options.channels });
    }
    if options.channels == 4 && options.compression.is_some_and(|c| c.codec == Layout::Jpeg) {
        return Err(Error::NoTransparency);
    }
    let (source, faces) = open(options, &mut progress)?;
    let recipe = Recipe {
        source: source.fingerprint(),
        labels: source.labels_fingerprint(),
        channels: options.channels,
        resolution: options.resolution,
        crop: options.crop,
        filter: options.filter,
        upscale: options.upscale,
        background: options.background,
        max_images: options.max_images,
        shard_bytes: options.shard_bytes,
        window: options.window,
        align: faces.as_ref().map(Faces::fingerprint),
        slice: options.part.map(|part| [part.number, part.of]),
        compression: options.compression,
    };
    if let Some(manifest) = existing(&options.dest, &recipe, options.force)? {
        tidy(&options.dest, &recipe)?;
        return Ok(report(options, &manifest, Outcome::AlreadyThere, begin));
    }

    let total = options.slice(source.entries().len()).len() as u64;
    // A part may have but one image; all of them together will have more.
    let needed = if options.part.is_some() { 1 } else { 2 };
    let survey = Survey::take(&source, options, faces.as_ref(), |done| {
        progress(Progress::Survey { done, total });
    })?;
    let too_few = |good: u64, bad: &[Bad]| Error::TooFewImages {
        path: options.source.clone(),
        good,
        files: total,
        passed_over: source.passed_over(),
        first_bad: bad.first().map(|bad| format!("{}: {}", bad.name, bad.reason)),
    };
    if survey.good.len() < needed {
        return Err(too_few(survey.good.len() as u64, &survey.bad));
    }
    let max_level = survey.level(options)?;

    let staging = Staging::open(&options.dest, &recipe, max_level)?;
    if let Some(manifest) = staging.finished() {
        staging.publish(&manifest)?;
        let outcome = Outcome::Resumed { restored: manifest.images };
        return Ok(report(options, &manifest, outcome, begin));
    }
    let top = recipe.kind(max_level);
    let build = Build {
        options,
        source: &source,
        faces: faces.as_ref(),
        survey,
        recipe: &recipe,
        top,
        staging: &staging,
    };
    let Built { restored, kept, bad, enlarged, levels } = build.run(progress)?;
    if kept.len() < needed {
        staging.discard()?;
        return Err(too_few(kept.len() as u64, &bad));
    }

    let mut manifest = Manifest::new(&source, recipe, levels);
    manifest.enlarged = enlarged;
    manifest.bad = BadFiles { count: bad.len() as u64, files: bad };
    manifest.bad.files.truncate(MAX_LISTED);
    let mut names = String::new();
    for &entry in &kept {
        names.push_str(&source.entries()[entry].name);
        names.push('\n');
    }
    let manifest = staging.finish(manifest, &names, source.labels(&kept).as_ref())?;
    let outcome = if restored == 0 { Outcome::Prepared } else { Outcome::Resumed { restored } };
    Ok(report(options, &manifest, outcome, begin))
}

/// The source, and whose faces are in it, if these are to be aligned.
fn open(
    options: &PrepareOptions,
    progress: &mut impl FnMut(Progress),
) -> Result<(Source, Option<Faces>)> {
    let Some(align) = &options.align else {
        let source = Source::fetch(&options.source, options.labels, |done, total| {
            progress(Progress::Download { done, total });
        })?;
        return Ok((source, None));
    };
    check_faces(options)?;
    let (source, faces) = Faces::open(align, &options.source, options.labels)?;
    Ok((source, Some(faces)))
}

/// Refuses what faces cannot become.
fn check_faces(options: &PrepareOptions) -> Result<()> {
    if options.channels > 3 {
        return Err(Error::Align { reason: "are RGB or grey; pass --channels 3 or 1" });
    }
    if options.resolution.is_some_and(|side| side > faces::MAX_RESOLUTION) {
        return Err(Error::Align {
            reason: "have at most 1024 pixels a side; pass --resolution 1024",
        });
    }
    Ok(())
}

/// The manifest at `dest` if it answers the request. Refuses to touch what it does not describe.
fn existing(dest: &Path, recipe: &Recipe, force: bool) -> Result<Option<Manifest>> {
    match Manifest::read(dest) {
        _ if force && dest.join(MANIFEST).exists() => Ok(None),
        Ok(Some(manifest)) => match manifest.recipe.difference(recipe) {
            None => Ok(Some(manifest)),
            Some(difference) => Err(Error::OtherStore { dest: dest.to_owned(), difference }),
        },
        Ok(None) if is_foreign(dest)? => Err(Error::ForeignFolder { dest: dest.to_owned() }),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    }
}

fn report(
    options: &PrepareOptions,
    manifest: &Manifest,
    outcome: Outcome,
    begin: Instant,
) -> Report {
    Report {
        dest: options.dest.clone(),
        outcome,
        images: manifest.images,
        bad: manifest.bad.count,
        passed_over: manifest.passed_over,
        enlarged: manifest.enlarged,
        labels: manifest.labels,
        max_level: manifest.max_level,
        bytes: manifest.bytes_on_disk(&options.dest),
        elapsed: begin.elapsed(),
    }
}
