//! Metrics of generators and of sets of images: sets are opened, numbers measured by [`pggan_metrics`], results kept.

pub mod fakes;
pub mod kept;
pub mod record;
pub mod sets;
pub mod training;
pub mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use fakes::{FakePaths, Fakes};
use kept::Kept;
use pggan_metrics::evaluate::{Evaluator, Networks, Score, Set, StatisticsCache, counts};
use pggan_metrics::network::Kind;
use pggan_metrics::registry::{Measure, Metric};
use pggan_metrics::{ImageSet, ImageShape};
use record::{Record, confidence};
use sets::StoreSet;

use crate::bench::peak_mib;
use crate::{Error, Result, checkpoint};

/// What to measure, and how.
pub struct Request<'a> {
    /// The metrics.
    pub metrics: &'a [Metric],
    /// What is judged.
    pub judged: Judged<'a>,
    /// Real images: prepared data, a folder or a zip archive.
    pub reals: Option<&'a Path>,
    /// Whether real images are mirrored by chance, as they are in training.
    pub mirror: bool,
    /// Images for metrics whose name says nothing.
    pub images: Option<usize>,
    /// How often to measure, each time with other latent vectors, patches, directions and subsets.
    pub repeats: usize,
    /// Seed of the first repeat.
    pub seed: u64,
    /// Whether to measure what real images score, too.
    pub floor: bool,
    /// Bytes that SWD may take.
    pub memory: usize,
    /// Feature networks at hand.
    pub networks: &'a Networks,
    /// Of which these have weights that are nobody's published ones, with the SHA-256 of each file.
    pub own: &'a BTreeSet<Kind>,
    /// The SHA-256 of each network's file.
    pub origins: &'a BTreeMap<Kind, String>,
    /// Where statistics of real images are kept.
    pub cache: Option<&'a dyn StatisticsCache>,
    /// Where generators run.
    pub device: &'a Device,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub enum Judged<'a> {
    /// Snapshots of generators.
    Snapshots(&'a [PathBuf]),
    /// A set of images.
    Images(&'a Path),
}

/// The snapshots that a path stands for: itself, or a run's, newest first, or its last training state as long as it has none.
///
/// # Errors
/// If there is none.
pub fn snapshots(network: &Path) -> Result<Vec<PathBuf>> {
    if network.is_file() {
        return Ok(vec![network.to_owned()]);
    }
    let nothing = |why: &str| Err(Error::Usage(format!("--network {}: {why}", network.display())));
    if !network.is_dir() {
        return nothing(
            "no such file or folder; name a network-snapshot-NNNNNN.safetensors or a run's folder",
        );
    }
    let mut found = checkpoint::snapshots(network)?;
    found.reverse();
    if found.is_empty() {
        found.extend(checkpoint::list(network)?.pop());
    }
    if found.is_empty() {
        return nothing("no network-snapshot-NNNNNN.safetensors in this folder");
    }
    Ok(found)
}

/// Measures everything, calling `done` with each result as soon as it is there.
///
/// # Errors
/// If sets do not go together or are too small, or anything cannot be read.
pub fn measure(
    request: &Request<'_>,
    mut done: impl FnMut(&Record) -> Result<()>,
) -> Result<Vec<Record>> {
    match request.judged {
        Judged::Images(path) => {
            let images = open(path, None, request.limit(1), false, false)?;
            let reals = request.open_reals(images.shape())?;
            let reals = reals.as_deref().map(Set::real);
            let floors = request.floors(reals.as_ref(), images.len())?;
            let name = short(path);
            let about = Record { judged: name, ..Record::default() };
            let judged = Set::judged(&*images);
            let repeats: Vec<_> = (0..request.repeats as u64).map(|_| (&judged, None)).collect();
            request.all(&about, &repeats, reals.as_ref(), &floors, &mut done)
        }
        Judged::Snapshots(paths) => {
            let mut records = Vec::new();
            let mut reals: Option<Box<dyn ImageSet>> = None;
            let first = Fakes::open(&paths[0], request.device)?;
            if request.metrics.iter().any(Metric::compares) || request.reals.is_some() {
                reals = request.open_reals(first.shape())?;
            }
            let reals = reals.as_deref().map(Set::real);
            let wanted = request.generated(reals.as_ref().map(Set::len))?;
            let floors = request.floors(reals.as_ref(), wanted)?;
            for path in paths {
                let fakes = Fakes::open(path, request.device)?;
                if fakes.shape() != first.shape() {
                    return Err(Error::Usage(format!(
                        "{} makes images of {}, {} of {}: measure them apart",
                        path.display(),
                        fakes.shape(),
                        paths[0].display(),
                        first.shape()
                    )));
                }
                let about = Record {
                    judged: short(path),
                    kimg: Some(fakes.header().images_shown as f64 / 1000.0),
                    ..Record::default()
                };
                let seeds = request.seed..request.seed + request.repeats as u64;
                let made: Vec<Kept> =
                    seeds.clone().map(|seed| fakes.images(seed, wanted)).collect::<Result<_>>()?;
                let sets: Vec<Set<'_>> = made.iter().map(|kept| Set::judged(kept)).collect();
                let paths: Vec<_> = seeds.map(|seed| FakePaths { fakes: &fakes, seed }).collect();
                let repeats: Vec<_> = sets.iter().zip(paths.iter().map(Some)).collect();
                records.extend(request.all(
                    &about,
                    &repeats,
                    reals.as_ref(),
                    &floors,
                    &mut done,
                )?);
            }
            Ok(records)
        }
    }
}

/// What the real images score, by place in the list of metrics.
type Floors = Vec<Vec<Score>>;

impl Request<'_> {
    /// The metrics, each with its number of images where the request says one.
    fn metrics(&self) -> impl Iterator<Item = Metric> {
        self.metrics
            .iter()
            .map(|metric| Metric { images: metric.images.or(self.images), ..metric.clone() })
    }

    /// The most images that are looked at, `times` over.
    fn limit(&self, times: usize) -> usize {
        let all: Option<Vec<usize>> = self.metrics().map(|metric| metric.images).collect();
        all.and_then(|all| all.into_iter().max()).map_or(usize::MAX, |n| n.saturating_mul(times))
    }

    fn open_reals(&self, shape: ImageShape) -> Result<Option<Box<dyn ImageSet>>> {
        let Some(path) = self.reals else {
            return match self.metrics.iter().find(|metric| metric.compares()) {
                Some(metric) => {
                    let metric = metric.name.clone();
                    Err(pggan_metrics::Error::NoReals { metric }.into())
                }
                None => Ok(None),
            };
        };
        let limit = self.limit(if self.floor { 2 } else { 1 });
        // Two sets of files that are compared are both taken by name, so that a pair of them gives the same numbers
        // whichever is judged.
        let in_any_order = matches!(self.judged, Judged::Snapshots(_));
        let reals = open(path, Some(shape.resolution()), limit, in_any_order, self.mirror)?;
        if reals.shape() != shape {
            let (first, second) = (shape, reals.shape());
            return Err(pggan_metrics::Error::DifferentShapes { first, second }.into());
        }
        Ok(Some(reals))
    }

    /// How many images generators must make.
    fn generated(&self, reals: Option<usize>) -> Result<usize> {
        let mut most = 0;
        for metric in self.metrics() {
            let reals = reals.filter(|_| metric.compares());
            // What there is, where nothing else is said, is as many as there are real images.
            let available =
                metric.images.unwrap_or(reals.unwrap_or(metric.usual).min(metric.usual));
            if metric.measure != Measure::PathLength {
                most = most.max(counts(&metric, available, reals)?.0);
            }
        }
        Ok(most)
    }

    fn floors(&self, reals: Option<&Set<'_>>, judged: usize) -> Result<Floors> {
        self.metrics()
            .map(|metric| match reals {
                Some(reals) if self.floor || metric.is_fd() => {
                    let compared = Some(reals.len()).filter(|_| metric.compares());
                    let (images, _) = counts(&metric, judged, compared)?;
                    Ok(self.evaluator(self.seed).floor(&metric, reals, images)?)
                }
                _ => Ok(Vec::new()),
            })
            .collect()
    }

    fn evaluator(&self, seed: u64) -> Evaluator<'_> {
        Evaluator { networks: self.networks, seed, memory: self.memory, cache: self.cache }
    }

    /// All metrics of one judged thing, of which there is a set (and a path) for each repeat.
    fn all(
        &self,
        about: &Record,
        repeats: &[(&Set<'_>, Option<&FakePaths<'_>>)],
        reals: Option<&Set<'_>>,
        floors: &Floors,
        done: &mut impl FnMut(&Record) -> Result<()>,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (metric, floors) in self.metrics().zip(floors) {
            reset_peak();
            let begin = Instant::now();
            let mut measured = Vec::new();
            for (repeat, (judged, paths)) in repeats.iter().enumerate() {
                let evaluator = self.evaluator(self.seed + repeat as u64);
                measured.push(match (metric.measure, paths) {
                    (Measure::PathLength, Some(paths)) => {
                        let steps = metric.images.unwrap_or(metric.usual);
                        evaluator.path_length(&metric, *paths, steps)?
                    }
                    _ => evaluator.measure(&metric, judged, reals)?,
                });
            }
            let (seconds, peak_mib) = (begin.elapsed().as_secs_f64(), peak_mib());
            for (i, score) in measured[0].iter().enumerate() {
                let values: Vec<f64> = measured.iter().map(|scores| scores[i].value).collect();
                let level = |l: usize| {
                    let of_repeats = measured.iter().map(|scores| scores[i].levels[l].distance);
                    of_repeats.sum::<f64>() / measured.len() as f64
                };
                let (value, ci95) = confidence(&values);
                let kind = metric.extractor.map(|extractor| extractor.network);
                let own = kind.is_some_and(|kind| self.own.contains(&kind));
                let record = Record {
                    metric: format!("{}{}", score.metric, if own { "-own-weights" } else { "" }),
                    value,
                    ci95,
                    repeats: if values.len() > 1 { values } else { Vec::new() },
                    std: score.std,
                    per_level: (0..score.levels.len()).map(level).collect(),
                    levels: score.levels.iter().map(|level| level.resolution).collect(),
                    floor: floors.get(i).map(|floor| floor.value),
                    floor_images: floors.get(i).map(|floor| floor.images),
                    images: score.images,
                    reals: score.reals,
                    data: self.reals.filter(|_| metric.compares()).map(short),
                    weights: kind.and_then(|kind| self.origins.get(&kind).cloned()),
                    seed: self.seed,
                    threads: rayon::current_num_threads(),
                    seconds,
                    peak_mib,
                    ..about.clone()
                };
                done(&record)?;
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// Prepared data, a folder or a zip archive.
fn open(
    path: &Path,
    resolution: Option<usize>,
    limit: usize,
    in_any_order: bool,
    mirror: bool,
) -> Result<Box<dyn ImageSet>> {
    if path.join("manifest.json").is_file() {
        return Ok(Box::new(StoreSet::open(path, resolution, mirror)?));
    }
    Ok(Box::new(Kept::files(path, limit, in_any_order)?))
}

/// The last part of a path: what people call it.
fn short(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or("/".into(), |name| name.to_string_lossy().into_owned())
}

/// From here on, [`peak_mib`] is of what follows, where the system can do that.
fn reset_peak() {
    let file = File::options().write(true).open("/proc/self/clear_refs");
    // Without it the peak is that of all metrics so far.
    file.and_then(|mut file| file.write_all(b"5")).ok();
}
