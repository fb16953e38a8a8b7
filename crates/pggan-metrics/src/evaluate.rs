//! Metrics by name over two sets: images that are judged, and real ones.
//!
//! Features are computed once for all metrics that need them. A *floor* is what real images score against other real
//! images, or by themselves: no generator can be expected to do better, and every distance of so many images has one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::frechet::{Statistics, frechet_distance};
use crate::inception_score::inception_score;
use crate::kernel::kernel_distance_of_subsets;
use crate::ms_ssim::ms_ssim;
use crate::network::{Extractor, FeatureNetwork, Kind, Outputs, extract};
use crate::path_length::{Paths, path_length};
use crate::precision_recall::precision_recall;
use crate::registry::{Measure, Metric};
use crate::{Error, Features, ImageSet, Part, Result, swd};

/// Subsets of a kernel distance, and images in each of them at most.
const SUBSETS: usize = 100;
const SUBSET: usize = 1000;
/// Splits of the inception score.
const SPLITS: usize = 10;

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The metric's name; where it has two numbers, with which of them: `pr50k3_recall`.
    pub metric: String,
    /// The number.
    pub value: f64,
    /// Standard deviation over splits (inception score) or subsets (kernel distance).
    pub std: Option<f64>,
    /// By pyramid level, where there are levels.
    pub levels: Vec<swd::LevelScore>,
    /// Images that were judged.
    pub images: usize,
    /// Real images that they were compared with.
    pub reals: Option<usize>,
}

/// Networks that are at hand.
pub type Networks = BTreeMap<Kind, Box<dyn FeatureNetwork>>;

/// Where statistics of real images are kept between runs, by a key of their content.
pub trait StatisticsCache {
    /// What was kept under a key.
    fn get(&self, key: &str) -> Option<Statistics>;
    /// Keeps it; a failure is not an error.
    fn put(&self, key: &str, statistics: &Statistics);
}

/// How to measure.
pub struct Evaluator<'a> {
    /// For metrics of features.
    pub networks: &'a Networks,
    /// Seed of patches, directions and subsets.
    pub seed: u64,
    /// Bytes that SWD may take.
    pub memory: usize,
    /// For Fréchet distances.
    pub cache: Option<&'a dyn StatisticsCache>,
}

/// A set of images with the features that were made of it.
pub struct Set<'a> {
    images: &'a dyn ImageSet,
    /// `judged` or `real`, for messages.
    role: &'static str,
    outputs: RefCell<BTreeMap<Extractor, Rc<Outputs>>>,
    statistics: RefCell<BTreeMap<(Extractor, usize), Rc<Statistics>>>,
    content: RefCell<BTreeMap<usize, String>>,
}

impl<'a> Set<'a> {
    /// Images to judge.
    pub fn judged(images: &'a dyn ImageSet) -> Self {
        Self::new(images, "judged")
    }

    /// Images to compare with.
    pub fn real(images: &'a dyn ImageSet) -> Self {
        Self::new(images, "real")
    }

    fn new(images: &'a dyn ImageSet, role: &'static str) -> Self {
        Self {
            images,
            role,
            outputs: RefCell::default(),
            statistics: RefCell::default(),
            content: RefCell::default(),
        }
    }

    /// Images there are.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// BLAKE3 of the first `count` images and their shape.
    fn content(&self, count: usize) -> Result<String> {
        if let Some(hash) = self.content.borrow().get(&count) {
            return Ok(hash.clone());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.images.shape().to_string().as_bytes());
        let part = Part::new(self.images, 0, count);
        crate::images::for_each_batch(&part, |_, batch| {
            hasher.update(batch);
            Ok(())
        })?;
        let hash = hasher.finalize().to_hex().to_string();
        self.content.borrow_mut().insert(count, hash.clone());
        Ok(hash)
    }
}

/// How many images of each set a metric takes: what its name says, or what there is, up to the usual number.
///
/// Real images may be fewer than the judged ones where features are compared: all that there are, then.
pub fn counts(metric: &Metric, judged: usize, reals: Option<usize>) -> Result<(usize, usize)> {
    let not_enough = |set, minimum, found| {
        Err(Error::NotEnough { metric: metric.name.clone(), set, minimum, found })
    };
    let compared = match (metric.compares(), reals) {
        (true, None) => return Err(Error::NoReals { metric: metric.name.clone() }),
        (true, Some(reals)) => Some(reals),
        (false, _) => None,
    };
    let pairs = metric.measure == Measure::Swd;
    let fallback = metric.usual.min(judged).min(if pairs { compared.unwrap_or(0) } else { judged });
    let images = metric.images.unwrap_or(fallback);
    if judged < images || images == 0 {
        return not_enough("judged", images.max(1), judged);
    }
    let reals = match compared {
        Some(found) if pairs && found < images => return not_enough("real", images, found),
        Some(0) => return not_enough("real", 1, 0),
        Some(found) => found.min(images),
        None => 0,
    };
    Ok((images, reals))
}

impl Evaluator<'_> {
    /// Measures one metric.
    ///
    /// # Errors
    /// Among others [`Error::NotEnough`], with the number of images that it takes, and [`Error::NoNetwork`].
    pub fn measure(
        &self,
        metric: &Metric,
        judged: &Set<'_>,
        reals: Option<&Set<'_>>,
    ) -> Result<Vec<Score>> {
        let (images, real_images) = counts(metric, judged.len(), reals.map(Set::len))?;
        let judged_part = Part::new(judged.images, 0, images);
        match (metric.measure, reals) {
            (Measure::Swd, Some(reals)) => {
                let score = self.swd(&judged_part, &Part::new(reals.images, 0, images))?;
                Ok(vec![Score {
                    levels: score.levels,
                    ..single(metric, score.average, images, Some(images))
                }])
            }
            (Measure::MsSsim, _) => Ok(vec![single(metric, ms_ssim(&judged_part)?, images, None)]),
            (Measure::InceptionScore, _) => {
                let (network, outputs) = self.outputs(metric, judged, images)?;
                let logits = &outputs.logits[..images * network.classes()];
                let score = inception_score(Features::new(logits, network.classes())?, SPLITS)?;
                let std = Some(score.std);
                Ok(vec![Score { std, ..single(metric, score.mean, images, None) }])
            }
            (Measure::Frechet, Some(reals)) => {
                let first = self.statistics(metric, judged, images)?;
                let second = self.statistics(metric, reals, real_images)?;
                let distance = frechet_distance(&first, &second)?;
                Ok(vec![single(metric, distance, images, Some(real_images))])
            }
            (Measure::PathLength, _) => Err(Error::NoPaths { metric: metric.name.clone() }),
            (_, Some(reals)) => {
                let (network, first) = self.outputs(metric, judged, images)?;
                let (_, second) = self.outputs(metric, reals, real_images)?;
                let dim = network.features();
                let first = Features::new(&first.features[..images * dim], dim)?;
                let second = Features::new(&second.features[..real_images * dim], dim)?;
                self.compare(metric, first, second)
            }
            (_, None) => Err(Error::NoReals { metric: metric.name.clone() }),
        }
    }

    /// What the real images score: against other real images, as many as the metric takes if there are twice as many and
    /// else half of all against the other half; or by themselves, where the metric is of one set.
    pub fn floor(&self, metric: &Metric, reals: &Set<'_>, images: usize) -> Result<Vec<Score>> {
        let one_set = Metric { images: Some(images.min(reals.len())), ..metric.clone() };
        if metric.measure == Measure::PathLength {
            return Ok(Vec::new());
        }
        if !metric.compares() {
            return self.measure(&one_set, reals, None);
        }
        let half = images.min(reals.len() / 2);
        if half == 0 {
            let (metric, found) = (metric.name.clone(), reals.len());
            return Err(Error::NotEnough { metric, set: "real", minimum: 2, found });
        }
        if metric.extractor.is_none() {
            let second = Part::new(reals.images, half, half);
            let score = self.swd(&Part::new(reals.images, 0, half), &second)?;
            let levels = score.levels;
            return Ok(vec![Score { levels, ..single(metric, score.average, half, Some(half)) }]);
        }
        let (network, outputs) = self.outputs(metric, reals, 2 * half)?;
        let dim = network.features();
        let (first, second) = outputs.features[..2 * half * dim].split_at(half * dim);
        self.compare(metric, Features::new(first, dim)?, Features::new(second, dim)?)
    }

    /// Path length: of pairs of images that only a generator can make.
    pub fn path_length(
        &self,
        metric: &Metric,
        paths: &dyn Paths,
        images: usize,
    ) -> Result<Vec<Score>> {
        let (extractor, network) = self.network(metric)?;
        let length = path_length(network, extractor.resize, paths, images)?;
        Ok(vec![single(metric, length, images, None)])
    }

    fn swd(&self, first: &dyn ImageSet, second: &dyn ImageSet) -> Result<swd::Score> {
        let options = swd::Options { seed: self.seed, memory: self.memory };
        swd::sliced_wasserstein(first, second, &options)
    }

    /// Two sets of features by any metric that compares such.
    fn compare(
        &self,
        metric: &Metric,
        judged: Features<'_>,
        reals: Features<'_>,
    ) -> Result<Vec<Score>> {
        varied(judged, "judged")?;
        varied(reals, "real")?;
        let of = |part: &str, value| Score {
            metric: format!("{}{part}", metric.name),
            ..single(metric, value, judged.rows(), Some(reals.rows()))
        };
        Ok(match metric.measure {
            Measure::Kernel => {
                let size = SUBSET.min(judged.rows()).min(reals.rows());
                let found = kernel_distance_of_subsets(judged, reals, SUBSETS, size, self.seed)?;
                vec![Score { std: Some(found.std), ..of("", found.mean) }]
            }
            Measure::PrecisionRecall => {
                let found = precision_recall(reals, judged, metric.neighbours)?;
                vec![of("_precision", found.precision), of("_recall", found.recall)]
            }
            Measure::DensityCoverage => {
                let found = precision_recall(reals, judged, metric.neighbours)?;
                vec![of("_density", found.density), of("_coverage", found.coverage)]
            }
            _ => {
                let distance = frechet_distance(&Statistics::of(judged)?, &Statistics::of(reals)?)?;
                vec![of("", distance)]
            }
        })
    }

    fn network(&self, metric: &Metric) -> Result<(Extractor, &dyn FeatureNetwork)> {
        let none = || Error::NoNetwork { metric: metric.name.clone(), network: "" };
        let extractor = metric.extractor.ok_or_else(none)?;
        match self.networks.get(&extractor.network) {
            Some(network) => Ok((extractor, &**network)),
            None => Err(Error::NoNetwork {
                metric: metric.name.clone(),
                network: extractor.network.published_as(),
            }),
        }
    }

    /// The features of a set's first images, made now if they have not been yet.
    fn outputs(
        &self,
        metric: &Metric,
        set: &Set<'_>,
        images: usize,
    ) -> Result<(&dyn FeatureNetwork, Rc<Outputs>)> {
        let (extractor, network) = self.network(metric)?;
        let made = set.outputs.borrow().get(&extractor).cloned();
        let enough = made.filter(|made| made.features.len() >= images * network.features());
        if let Some(made) = enough {
            return Ok((network, made));
        }
        let made = extract(network, extractor.resize, &Part::new(set.images, 0, images))?;
        let made = Rc::new(made);
        set.outputs.borrow_mut().insert(extractor, Rc::clone(&made));
        Ok((network, made))
    }

    fn statistics(&self, metric: &Metric, set: &Set<'_>, images: usize) -> Result<Rc<Statistics>> {
        let (extractor, network) = self.network(metric)?;
        if let Some(known) = set.statistics.borrow().get(&(extractor, images)) {
            return Ok(Rc::clone(known));
        }
        // Real images are met again and again; those that are judged, once.
        let cache = self.cache.filter(|_| set.role == "real");
        let key = if cache.is_some() {
            let Extractor { network: kind, resize } = extractor;
            let (content, weights) = (set.content(images)?, network.weights());
            Some(format!("{}-{}-{weights}-{images}-{content}", kind.name(), resize.name()))
        } else {
            None
        };
        let kept = cache.zip(key.as_ref()).and_then(|(cache, key)| cache.get(key));
        let fits =
            |kept: &Statistics| (kept.count(), kept.mean().len()) == (images, network.features());
        let found = if let Some(kept) = kept.filter(fits) {
            kept
        } else {
            let (_, outputs) = self.outputs(metric, set, images)?;
            let dim = network.features();
            let features = Features::new(&outputs.features[..images * dim], dim)?;
            varied(features, set.role)?;
            let made = Statistics::of(features)?;
            if let Some((cache, key)) = cache.zip(key.as_ref()) {
                cache.put(key, &made);
            }
            made
        };
        let found = Rc::new(found);
        set.statistics.borrow_mut().insert((extractor, images), Rc::clone(&found));
        Ok(found)
    }
}

fn single(metric: &Metric, value: f64, images: usize, reals: Option<usize>) -> Score {
    let metric = metric.name.clone();
    Score { metric, value, std: None, levels: Vec::new(), images, reals }
}

/// More than one image must give more than one row.
fn varied(features: Features<'_>, set: &'static str) -> Result<()> {
    let first = features.row(0);
    if features.rows() > 1 && (1..features.rows()).all(|row| features.row(row) == first) {
        return Err(Error::ConstantFeatures { set });
    }
    Ok(())
}
