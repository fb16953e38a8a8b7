//! Metrics of snapshots as they are written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pggan_data::Store;
use pggan_metrics::evaluate::{Networks, counts};
use pggan_metrics::registry::{self, Metric};
use tracing::info;

use super::record::plot;
use super::{Judged, Request};
use crate::config::Config;
use crate::train::Job;
use crate::{Error, Result};

/// SWD may take so many bytes, beside the networks that are trained.
const MEMORY: usize = 1_000_000_000;

/// Whether the metrics of the settings can be measured in a run on these data, before it begins.
///
/// # Errors
/// If they need weights, more images than there are, or larger ones.
pub fn check(config: &Config, store: &Store) -> Result<()> {
    for metric in metrics(config)? {
        let problem = |why: String| Err(Error::Usage(format!("--metrics {metric}: {why}")));
        if metric.extractor.is_some() {
            return problem(
                "it needs a feature network; measure it afterwards with `cargo xtask metrics --network RUN`".to_owned(),
            );
        }
        if config.model.resolution < 16 {
            return problem("images of at least 16x16 are needed".to_owned());
        }
        let judged = metric.images.unwrap_or(metric.usual);
        counts(&metric, judged, Some(store.images() as usize))?;
    }
    Ok(())
}

fn metrics(config: &Config) -> Result<Vec<Metric>> {
    match config.run.metrics.as_str() {
        "" => Ok(Vec::new()),
        list => registry::parse(list).map_err(|e| Error::Usage(format!("--metrics: {e}"))),
    }
}

/// Measures a run's snapshot: a line of the log, one of `metric-NAME.jsonl`, and the curve so far.
pub(crate) fn measure(job: &Job<'_>, snapshot: &Path) -> Result<()> {
    let metrics = metrics(job.config)?;
    if metrics.is_empty() {
        return Ok(());
    }
    let request = Request {
        metrics: &metrics,
        judged: Judged::Snapshots(&[snapshot.to_owned()]),
        reals: Some(job.store.dir()),
        mirror: job.config.data.mirror,
        images: None,
        repeats: 1,
        seed: 0,
        floor: false,
        memory: MEMORY,
        networks: &Networks::new(),
        own: &BTreeSet::new(),
        origins: &BTreeMap::new(),
        cache: None,
        device: &job.device,
    };
    super::measure(&request, |record| {
        info!(
            "{} {:.3} ({} images, {:.0} s)",
            record.metric, record.value, record.images, record.seconds
        );
        plot(&record.append(job.run.path())?)?;
        Ok(())
    })?;
    Ok(())
}
