//! From a source to a store: the whole of the first line of the crate's map.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::Mmap;

use crate::decode::{Decoder, Form};
use crate::faces::{self, Align, Aligner, Faces};
use crate::pyramid::{Pyramid, level_bytes, levels, pyramid_bytes};
use crate::source::{LabelsFrom, MAX_FILE_BYTES, Source};
use crate::store::manifest::{Bad, BadFiles, Crop, Filter, MAX_LISTED, Manifest, Recipe};
use crate::store::{HEADER_BYTES, Journal, LevelWriter, MANIFEST, Staging, is_foreign, tidy};
use crate::survey::{Survey, check_resolution};
use crate::transform::Transform;
use crate::{CHANNELS, Error, MIN_LEVEL, Part, Result, parallel};

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
    /// Threads that decode. Their number does not change the result.
    pub threads: usize,
    /// The most bytes of pixels in a shard.
    pub shard_bytes: u64,
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
    /// Bytes of pixels.
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
/// pyramids; and per level a quarter of a megabyte. It does not grow with the number of images otherwise.
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
    let (source, faces) = match &options.align {
        None => (Source::open(&options.source, options.labels)?, None),
        Some(align) => {
            check_faces(options)?;
            let (source, faces) = Faces::open(align, &options.source, options.labels)?;
            (source, Some(faces))
        }
    };
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
    let faces = faces.as_ref();

    let staging = Staging::open(&options.dest, &recipe, max_level)?;
    if let Some(manifest) = staging.finished() {
        staging.publish(&manifest)?;
        let outcome = Outcome::Resumed { restored: manifest.images };
        return Ok(report(options, &manifest, outcome, begin));
    }
    let build = Build { options, source: &source, faces, survey, max_level, staging: &staging };
    let Built { restored, kept, bad, enlarged, writers } = build.run(progress)?;
    if kept.len() < needed {
        staging.discard()?;
        return Err(too_few(kept.len() as u64, &bad));
    }

    let levels = writers.into_iter().rev().map(LevelWriter::into_level).collect();
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
        bytes: manifest.images * pyramid_bytes(manifest.channels, manifest.max_level) as u64,
        elapsed: begin.elapsed(),
    }
}

/// The second pass: decode, resize, halve, write.
struct Build<'a> {
    options: &'a PrepareOptions,
    source: &'a Source,
    faces: Option<&'a Faces>,
    survey: Survey,
    max_level: u32,
    staging: &'a Staging,
}

struct Built {
    restored: u64,
    /// The entries that became images.
    kept: Vec<usize>,
    bad: Vec<Bad>,
    enlarged: u64,
    /// From the top level down.
    writers: Vec<LevelWriter>,
}

/// An image on its way from a thread to the writer.
#[derive(Clone)]
struct Slot {
    outcome: Result<(), String>,
    pyramid: Vec<u8>,
}

impl Build<'_> {
    fn run(self, mut progress: impl FnMut(Progress)) -> Result<Built> {
        let Self { options, source, faces, survey, max_level, staging } = self;
        let channels = options.channels;
        let restored = staging.restore(channels, max_level)?;
        let next_entry = restored.last().map_or(0, |(journal, _)| journal.next_entry);
        let fresh = &survey.good[survey.good.partition_point(|&(entry, _)| entry < next_entry)..];
        let (journals, maps): (Vec<Journal>, Vec<Mmap>) = restored.into_iter().unzip();
        let tops: Vec<&[u8]> = maps
            .iter()
            .flat_map(|map| map[HEADER_BYTES..].chunks_exact(level_bytes(channels, max_level)))
            .collect();

        let mut shards = Vec::new();
        let mut kept = Vec::new();
        let mut bad = Vec::new();
        let mut enlarged = 0;
        for journal in journals {
            shards.push(journal.shard);
            kept.extend(journal.kept);
            bad.extend(journal.bad);
            enlarged += journal.enlarged;
        }
        // What the shard that is being filled adds to these begins here.
        let (mut noted_kept, mut noted_bad, mut noted_enlarged) = (kept.len(), bad.len(), enlarged);
        let mut writers: Vec<LevelWriter> = (MIN_LEVEL..=max_level)
            .rev()
            .map(|level| {
                let shards =
                    if level == max_level { std::mem::take(&mut shards) } else { Vec::new() };
                LevelWriter::new(staging.dir(), channels, level, options.shard_bytes, shards)
            })
            .collect();

        let worker = || make_worker(options, source, faces, max_level, &tops, fresh);
        let slot = Slot { outcome: Ok(()), pyramid: vec![0; pyramid_bytes(channels, max_level)] };
        let slots = vec![slot; 2 * options.threads + 2];
        let total = tops.len() + fresh.len();
        parallel::ordered(options.threads, total, slots, worker, |index, slot| {
            let done = index as u64 + 1;
            progress(Progress::Images { done, total: total as u64, restored: tops.len() as u64 });
            let (entry, short) =
                if index < tops.len() { (0, u32::MAX) } else { fresh[index - tops.len()] };
            if let Err(reason) = std::mem::replace(&mut slot.outcome, Ok(())) {
                bad.push(Bad::found(source, entry, reason, options.strict)?);
                return Ok(());
            }
            for (writer, (level, pixels)) in
                writers.iter_mut().zip(levels(channels, max_level, &slot.pyramid))
            {
                if level < max_level {
                    writer.push(pixels)?;
                } else if index >= tops.len() {
                    kept.push(entry);
                    enlarged += u64::from(short < 1 << max_level);
                    if let Some(shard) = writer.push(pixels)? {
                        let number = (shard.first / shard.count) as usize;
                        let journal = Journal {
                            shard: shard.clone(),
                            next_entry: entry + 1,
                            kept: kept[noted_kept..].to_vec(),
                            bad: bad[noted_bad..].to_vec(),
                            enlarged: enlarged - noted_enlarged,
                        };
                        staging.note(number, &journal)?;
                        (noted_kept, noted_bad, noted_enlarged) = (kept.len(), bad.len(), enlarged);
                    }
                }
            }
            Ok(())
        })?;
        for writer in &mut writers {
            writer.complete()?;
        }
        bad.extend(survey.bad);
        bad.sort_by_key(|bad| bad.entry);
        Ok(Built { restored: tops.len() as u64, kept, bad, enlarged, writers })
    }
}

/// Makes the pyramids of one thread: of the restored images first, of the fresh ones behind them.
fn make_worker<'a>(
    options: &PrepareOptions,
    source: &'a Source,
    faces: Option<&'a Faces>,
    max_level: u32,
    tops: &'a [&'a [u8]],
    fresh: &'a [(usize, u32)],
) -> Result<impl FnMut(usize, &mut Slot) + use<'a>> {
    let mut reader = source.reader()?;
    let mut encoded = Vec::new();
    let channels = options.channels;
    let mut squares = Squares::new(options, faces, 1 << max_level);
    let mut pyramid = Pyramid::new(channels);
    Ok(move |index: usize, slot: &mut Slot| {
        let top = &mut slot.pyramid[..level_bytes(channels, max_level)];
        slot.outcome = if let Some(restored) = tops.get(index) {
            top.copy_from_slice(restored);
            Ok(())
        } else {
            let (entry, _) = fresh[index - tops.len()];
            reader
                .read(entry, MAX_FILE_BYTES, &mut encoded)
                .and_then(|form| squares.fill(entry, form, &encoded, top))
        };
        if slot.outcome.is_ok() {
            pyramid.fill(max_level, &mut slot.pyramid);
        }
    })
}

/// Bytes of images to squares.
enum Squares<'a> {
    Plain { decoder: Decoder, transform: Transform },
    Faces(Aligner<'a>),
}

impl<'a> Squares<'a> {
    fn new(options: &PrepareOptions, faces: Option<&'a Faces>, side: u32) -> Self {
        let decoder = Decoder::new(options.channels, options.background);
        if let Some(faces) = faces {
            return Self::Faces(faces.aligner(side, decoder));
        }
        let PrepareOptions { crop, filter, background, window, .. } = *options;
        let transform = Transform::new(side, crop, filter, background).of_window(window);
        Self::Plain { decoder, transform }
    }

    fn fill(
        &mut self,
        entry: usize,
        form: Form,
        bytes: &[u8],
        top: &mut [u8],
    ) -> Result<(), String> {
        match self {
            Self::Plain { decoder, transform } => {
                decoder.decode(form, bytes, |picture| transform.apply(picture, top)).flatten()
            }
            Self::Faces(aligner) => aligner.apply(entry, form, bytes, top),
        }
    }
}
