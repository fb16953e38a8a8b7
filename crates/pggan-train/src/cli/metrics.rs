//! `metrics` and `import-features`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use pggan_metrics::evaluate::{Networks, StatisticsCache};
use pggan_metrics::network::Kind;
use pggan_metrics::registry::{self, FAMILIES, Metric};
use pggan_train::metrics::record::{Record, plot, table};
use pggan_train::metrics::weights::{self, Folder};
use pggan_train::metrics::{Judged, Request, measure, snapshots};
use pggan_train::{device, run_dir};
use tracing::{info, warn};

/// Measure how good generated images are: SWD, MS-SSIM, FID and others, of networks or of any images.
///
/// Results go to standard output as a table, or as lines of JSON (--json); those of a run also into its folder, as
/// metric-NAME.jsonl and, over all of its snapshots, as metric-NAME.svg.
#[derive(Args)]
#[command(after_help = after_help())]
pub(super) struct MetricsArgs {
    /// A snapshot to judge, or the folder of a run (then all of its snapshots)
    #[arg(long, value_name = "FILE_OR_DIR", conflicts_with = "images")]
    network: Option<PathBuf>,
    /// Images to judge: a folder, a zip archive or prepared data; a second one is what to compare with
    #[arg(long, value_name = "PATH")]
    images: Vec<PathBuf>,
    /// Real images to compare with: prepared data, a folder or a zip archive [default: the data of the network's run]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// What to measure, as swd16k,msssim10k,fid50k,pr50k3 (see below)
    #[arg(long, value_name = "LIST", default_value = "swd,msssim")]
    metrics: String,
    /// Images of each set, for metrics whose name has no number [default: all there are, up to the usual number]
    #[arg(long, value_name = "N")]
    num: Option<usize>,
    /// Measure so often, with other latent vectors, patches and subsets, and print a 95% confidence interval
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeats: usize,
    /// Also measure what real images score against other real images ("Reals2"); always done for fd metrics
    #[arg(long)]
    floor: bool,
    /// Mirror real images by chance [default: as in the network's run]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    mirror: Option<bool>,
    /// Weights of a feature network, as published or from `import-features`; a path, or owner/repository/file on the
    /// Hugging Face hub. May be repeated
    #[arg(long, value_name = "FILE")]
    weights: Vec<String>,
    /// Weights of your own for a network; results are named accordingly
    #[arg(long, value_name = "NETWORK=FILE")]
    own_weights: Vec<String>,
    /// Folder for statistics of real images, or `none` [default: pggan/statistics in the system's cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Folder for metric-NAME.jsonl [default: the run's]
    #[arg(long, value_name = "DIR")]
    dest: Option<PathBuf>,
    /// Seed of latent vectors, patches, directions and subsets
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Megabytes that SWD may take; less means more passes over the images, same result
    #[arg(long, value_name = "MB", default_value_t = 2000)]
    memory: usize,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Threads of the CPU [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One line of JSON for each result, and nothing else, on standard output
    #[arg(long)]
    json: bool,
}

fn after_help() -> String {
    let mut text = "\
Examples:
  cargo xtask metrics --network runs/00000-fluent-emoji-32-quick --metrics swd,msssim --num 640 --floor
  cargo xtask metrics --network network-snapshot-006000.safetensors --data datasets/prepared/faces --metrics swd16k,msssim10k
  cargo xtask metrics --images out --images photos --metrics swd --num 8192 --threads 2 --json
  cargo xtask metrics --images out --data faces --metrics fd10k-mobilenetv2 --weights mobilenet_v2-b0353104.pth

Metrics, as NAME, NAME10k (so many images), pr10k3 (so many neighbours), fid50k-clean (resized as clean-fid does),
fd10k-mobilenetv2 (features of another network):
"
    .to_owned();
    for family in FAMILIES {
        let _ = writeln!(text, "  {:<7} {} [{} images]", family.name, family.about, family.images);
    }
    text
}

/// Turn published weights of a feature network into a safetensors file.
///
/// The file is known by its SHA-256 and read as data: nothing in it is executed. `metrics --weights` takes either.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask import-features --source pt_inception-2015-12-05-6726825d.pth --dest inception.safetensors")]
pub(super) struct ImportFeaturesArgs {
    /// The published file
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    dest: PathBuf,
}

impl ImportFeaturesArgs {
    pub(super) fn run(self) -> Result<()> {
        super::use_threads(None)?;
        let kind = weights::convert(&self.source, &self.dest)?;
        info!("wrote the weights of {} to {}", kind.name(), self.dest.display());
        Ok(())
    }
}

impl MetricsArgs {
    pub(super) fn run(self) -> Result<()> {
        super::use_threads(self.threads)?;
        let metrics = registry::parse(&self.metrics)?;
        if self.repeats == 0 || self.num == Some(0) {
            bail!("--repeats and --num: at least 1 is needed");
        }
        let device = device::open(&self.device)?;
        let (judged, reals) = match (&self.network, &self.images[..], &self.data) {
            (None, [], _) => bail!("nothing to judge: name a --network, or --images"),
            (Some(network), _, data) => (snapshots(network)?, data.clone()),
            (None, [_], data) => (Vec::new(), data.clone()),
            (None, [_, second], None) => (Vec::new(), Some(second.clone())),
            (None, ..) => bail!("--images: one set to judge and one to compare with, not more"),
        };
        let run = self.network.as_deref().and_then(run_of);
        let config = run.as_deref().and_then(|run| run_dir::read_config(run).ok());
        let recorded = || config.as_ref().map(|config| PathBuf::from(&config.data.path));
        let reals = reals.or_else(|| recorded().filter(|path| path.exists()));
        let mirror = self.mirror.unwrap_or_else(|| config.as_ref().is_some_and(|c| c.data.mirror));

        let (networks, own, origins) = self.networks(&metrics, &device)?;
        let cache = match &self.cache {
            Some(path) if path.as_os_str() == "none" => None,
            Some(path) => Some(Folder(path.clone())),
            None => Folder::usual(),
        };
        let request = Request {
            metrics: &metrics,
            judged: match &self.images[..] {
                [images, ..] => Judged::Images(images),
                [] => Judged::Snapshots(&judged),
            },
            reals: reals.as_deref(),
            mirror,
            images: self.num,
            repeats: self.repeats,
            seed: self.seed,
            floor: self.floor,
            memory: self.memory.saturating_mul(1_000_000),
            networks: &networks,
            own: &own,
            origins: &origins,
            cache: cache.as_ref().map(|folder| folder as &dyn StatisticsCache),
            device: &device,
        };
        let dest = self.dest.clone().or(run);
        if let Some(dest) = &dest {
            std::fs::create_dir_all(dest).with_context(|| dest.display().to_string())?;
        }
        let mut written = BTreeSet::new();
        let records = measure(&request, |record| {
            warn_of_bias(record, &metrics, &networks);
            if let Some(dest) = &dest {
                written.insert(record.append(dest)?);
            }
            if self.json {
                super::print(&record.line())
                    .map_err(|e| pggan_train::Error::Usage(e.to_string()))?;
            }
            Ok(())
        })?;
        if !self.json {
            super::print(&table(&records))?;
        }
        for path in &written {
            info!("wrote {}", path.display());
            if let Some(svg) = plot(path)? {
                info!("wrote {}", svg.display());
            }
        }
        Ok(())
    }

    /// The networks that metrics ask for, those with weights of the user's own, and the SHA-256 of each file.
    fn networks(
        &self,
        metrics: &[Metric],
        device: &candle_core::Device,
    ) -> Result<(Networks, BTreeSet<Kind>, BTreeMap<Kind, String>)> {
        let needed: BTreeSet<Kind> =
            metrics.iter().filter_map(|metric| Some(metric.extractor?.network)).collect();
        let (mut networks, mut own, mut origins) =
            (Networks::new(), BTreeSet::new(), BTreeMap::new());
        let mut add = |kind: Kind, path: &Path, weights: pggan_metrics::network::Weights| {
            origins.insert(kind, weights.provenance().source_sha256.clone());
            if needed.contains(&kind) {
                weights::add(&mut networks, kind, path, weights, device)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        for name in &self.weights {
            let path = weights::locate(name)?;
            let found = weights::read(&path)?;
            add(weights::recognize(&path, &found)?, &path, found)?;
        }
        for text in &self.own_weights {
            let named = text.split_once('=').and_then(|(name, path)| {
                let mut kinds = Kind::ALL.into_iter();
                Some((kinds.find(|kind| kind.name() == name)?, path))
            });
            let Some((kind, path)) = named else {
                let names = Kind::ALL.map(Kind::name).join(", ");
                bail!("--own-weights {text}: NETWORK=FILE is needed, with one of {names}");
            };
            let path = weights::locate(path)?;
            add(kind, &path, weights::read(&path)?)?;
            own.insert(kind);
        }
        Ok((networks, own, origins))
    }
}

/// What a number cannot tell by itself.
fn warn_of_bias(record: &Record, metrics: &[Metric], networks: &Networks) {
    let metric = metrics.iter().find(|metric| record.metric.starts_with(&metric.name));
    let network = metric.and_then(|m| networks.get(&m.extractor?.network));
    let fewest = record.images.min(record.reals.unwrap_or(usize::MAX));
    if let Some(dim) = network.map(|network| network.features())
        && metric.is_some_and(Metric::is_fd)
        && fewest <= dim
    {
        warn!(
            "{}: {fewest} images are fewer than the {dim} features: the distance is mostly bias, compare it with \
             its floor alone",
            record.metric
        );
    }
}

/// The folder of the run that a network belongs to.
fn run_of(network: &Path) -> Option<PathBuf> {
    let folder = if network.is_dir() { network } else { network.parent()? };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    folder.join("config.toml").is_file().then(|| folder.to_owned())
}
