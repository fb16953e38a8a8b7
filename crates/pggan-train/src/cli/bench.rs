//! `bench`: a table of speeds, one measurement, or a comparison.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use pggan_train::bench::{Case, Gain, Measured, Profile, median, sgemm_gflops};
use pggan_train::config::Settings;
use pggan_train::device;
use pggan_train::presets::PRESETS;
use serde::Deserialize;
use tracing::info;
use tracing_subscriber::layer::SubscriberExt as _;

/// Measure how fast training runs.
///
/// A whole iteration is timed on made-up images: a step of the discriminator with its penalty, one of the generator,
/// both optimizers, the running average. Every row of a table runs in a process of its own, for its memory's sake.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                   the quick preset, every resolution, stable and fading
  cargo xtask bench --preset v2-1gpu --resolution 4,8,16
  cargo xtask bench --width 128 --resolution 32 --batch 16 --alpha 1 --threads 2 --iters 5 --json
  cargo xtask bench --width 512 --resolution 16 --layers       where the time goes
  cargo xtask bench --width 32 --resolution 16 --threads 1,2 --turns 100    what the second thread gains
  cargo xtask bench --width 128 --compare torch                in turn with PyTorch, where Python has it

GFLOP/s are reckoned for convolutions as they are defined; fast algorithms take fewer, so that they may exceed what the
machine can do, which the first line of a table says.")]
pub(super) struct BenchArgs {
    /// Settings to take networks and minibatches from [default: quick]
    #[arg(long, value_name = "NAME", conflicts_with = "width")]
    preset: Option<String>,
    /// Instead of a preset: networks of at most so many feature maps, halved where the paper halves
    #[arg(long, value_name = "MAPS")]
    width: Option<usize>,
    /// Resolutions to train at [default: 4 up to the preset's, or to 128]
    #[arg(long, value_name = "R", value_delimiter = ',')]
    resolution: Vec<usize>,
    /// Images in a minibatch [default: the preset's, or 16, or 8 and 4 at 64x64 and 128x128 of 512 maps]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Weights of the newest layers; below 1 they are being faded in [default: 1,0.5]
    #[arg(long, value_name = "A", value_delimiter = ',')]
    alpha: Vec<f64>,
    /// Iterations to take the median of, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 5)]
    iters: usize,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "D", default_value = "auto")]
    device: String,
    /// Threads of the CPU; several numbers take turns in one process and are compared with the first [default: all]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// One line of JSON for each measurement, and nothing else, on standard output
    #[arg(long)]
    json: bool,
    /// Also the time in each layer and pass (small networks: with --threads 1, since passes that run beside each other
    /// on other threads are not told apart)
    #[arg(long, conflicts_with = "compare")]
    layers: bool,
    /// Run another implementation in turn on the same case
    #[arg(long, value_name = "PEER", requires = "width")]
    compare: Option<Peer>,
    /// Turns of a comparison, with a peer or between numbers of threads; medians are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,
    /// The peer's variants; the fastest one is compared with
    #[arg(
        long,
        value_name = "V",
        value_delimiter = ',',
        default_value = "fused,fused+cl,fused+cl+sep,eager+sep"
    )]
    variants: Vec<String>,
    /// Python to run a peer with
    #[arg(long, value_name = "EXE", default_value = "python3")]
    python: OsString,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    /// crates/pggan-train/benches/torch_pggan.py
    Torch,
}

/// The part of the peer's line that is compared.
#[derive(Deserialize)]
struct PeerMeasured {
    sec_med: f64,
    rss_gib: f64,
}

impl BenchArgs {
    pub(super) fn run(self) -> Result<()> {
        // Where several numbers take turns, they have pools of their own besides.
        self.threads.iter().try_for_each(|&threads| super::check_threads(threads))?;
        super::use_threads(self.threads.first().copied())?;
        if self.iters == 0 || self.turns == 0 {
            bail!("--iters and --turns: at least one is needed");
        }
        if self.threads.len() > 1 && (self.layers || self.compare.is_some()) {
            bail!("--layers and --compare: one number of --threads is needed");
        }
        let cases = self.cases()?;
        if self.compare.is_some() {
            return self.compare(&cases);
        }
        if let ([case], true) = (&cases[..], self.json || self.layers) {
            return self.measure(case);
        }
        if self.layers {
            bail!("--layers shows one case: name one --resolution and one --alpha");
        }
        self.table(&cases)
    }

    /// Every resolution, stable and fading.
    fn cases(&self) -> Result<Vec<Case>> {
        let settings = Settings::preset(self.preset.as_deref().unwrap_or(PRESETS[0].0))?;
        let config = settings.resolve()?;
        let largest = if self.width.is_some() { 128 } else { config.model.resolution };
        let resolutions = if self.resolution.is_empty() {
            (2..=largest.ilog2()).map(|level| 1 << level).collect()
        } else {
            self.resolution.clone()
        };
        let mut cases = Vec::new();
        for resolution in resolutions {
            let all: &[f64] = if resolution == 4 { &[1.0] } else { &[1.0, 0.5] };
            for &alpha in if self.alpha.is_empty() { all } else { &self.alpha } {
                let case = if let Some(width) = self.width {
                    let fits = if width < 512 { 16 } else { (512 / resolution.max(32)).min(16) };
                    Case::of_width(width, resolution, self.batch.unwrap_or(fits), alpha)
                } else {
                    let batch = self.batch.unwrap_or(config.schedule.minibatch_at(resolution));
                    Case::new(config.clone(), resolution, batch, alpha)
                };
                cases.push(Case { iters: self.iters, ..case? });
            }
        }
        Ok(cases)
    }

    /// One case, in this process.
    fn measure(&self, case: &Case) -> Result<()> {
        let device = device::open(&self.device)?;
        super::keep_memory(&case.config.model, case.growth.resolution());
        if !self.layers {
            let lines = match self.threads[..] {
                [] | [_] => vec![case.measure(&device)?],
                _ => case.measure_in_turn(&device, &self.threads, self.turns)?,
            };
            for line in lines {
                super::print(&format!("{}\n", serde_json::to_string(&line)?))?;
            }
            return Ok(());
        }
        let profile = Profile::default();
        let subscriber = tracing_subscriber::registry().with(profile.clone());
        let measured = tracing::subscriber::with_default(subscriber, || case.measure(&device))?;
        // The iteration that does not count is in the profile too.
        let total = measured.seconds * (case.iters + 1) as f64;
        let share = |time: f64| 100.0 * time / total;
        let mut passes = std::collections::BTreeMap::<_, f64>::new();
        let mut text = String::new();
        let _ = writeln!(text, "{:<24} {:<12} {:>8} {:>6}", "layer", "pass", "ms", "share");
        for (layer, pass, time) in profile.rows() {
            let time = time.as_secs_f64();
            let each = 1e3 * time / (case.iters + 1) as f64;
            *passes.entry(pass).or_default() += time;
            let _ = writeln!(text, "{layer:<24} {pass:<12} {each:>8.2} {:>5.1}%", share(time));
        }
        let _ = writeln!(text);
        for (pass, time) in &passes {
            let _ = writeln!(text, "{pass:<12} {:>5.1}%", share(*time));
        }
        let rest = total - passes.values().sum::<f64>();
        let _ = writeln!(text, "{:<12} {:>5.1}%", "the rest", share(rest));
        let _ = writeln!(text, "{}", row(&measured));
        super::print(&text)
    }

    /// Every case, each in a process of its own.
    fn table(&self, cases: &[Case]) -> Result<()> {
        if !self.json {
            let (rate, threads) = (sgemm_gflops()?, rayon::current_num_threads());
            super::print(&format!(
                "matrix product: {rate:.0} GFLOP/s on {threads} threads\n\n{HEAD}\n"
            ))?;
        }
        for case in cases {
            for measured in self.in_child(case, case.iters)? {
                let line = match measured.gain {
                    _ if self.json => serde_json::to_string(&measured)?,
                    Some(Gain { speedup, room, .. }) => format!(
                        "{}  threads: {}, {speedup:.2}x (a loop in registers {room:.2}x)",
                        row(&measured),
                        measured.threads
                    ),
                    None => row(&measured),
                };
                super::print(&format!("{line}\n"))?;
            }
        }
        Ok(())
    }

    /// Every case in turn with another implementation.
    fn compare(&self, cases: &[Case]) -> Result<()> {
        if !self.json {
            super::print(&format!(
                "{HEAD}  {:<10} {:>9} {:>9} {:>6} {:>6}\n",
                "peer", "img/s", "peak MiB", "speed", "memory"
            ))?;
        }
        for case in cases {
            let mut best: Option<(f64, &String)> = None;
            for variant in &self.variants {
                let seconds = self.peer(case, variant, 3)?.sec_med;
                info!("{variant}: {seconds:.3} s");
                if best.is_none_or(|(least, _)| seconds < least) {
                    best = Some((seconds, variant));
                }
            }
            let Some((seconds, variant)) = best else {
                bail!("--variants: at least one is needed")
            };
            // Short iterations are repeated within a turn, the same number for both.
            let iters = ((0.3 / seconds).ceil() as usize).clamp(1, 10);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..self.turns {
                ours.extend(self.in_child(case, iters)?);
                theirs.push(self.peer(case, variant, iters)?);
            }
            let seconds = median(ours.iter().map(|m| m.seconds));
            let peak = ours.iter().filter_map(|m| m.peak_mib).fold(0.0, f64::max);
            let peer_seconds = median(theirs.iter().map(|m| m.sec_med));
            let peer_peak = 1024.0 * theirs.iter().map(|m| m.rss_gib).fold(0.0, f64::max);
            let images = case.batch as f64;
            let measured = Measured {
                seconds,
                img_s: images / seconds,
                gflops: ours[0].gflops * ours[0].seconds / seconds,
                peak_mib: Some(peak),
                iters: self.turns,
                ..ours.swap_remove(0)
            };
            let line = if self.json {
                let mut line = serde_json::to_value(&measured)?;
                line["peer"] = serde_json::json!({
                    "variant": variant,
                    "seconds": peer_seconds,
                    "img_s": images / peer_seconds,
                    "peak_mib": peer_peak,
                });
                line.to_string()
            } else {
                format!(
                    "{}  {variant:<10} {:>9.2} {peer_peak:>9.0} {:>5.2}x {:>5.2}x",
                    row(&measured),
                    images / peer_seconds,
                    peer_seconds / seconds,
                    peak / peer_peak
                )
            };
            super::print(&format!("{line}\n"))?;
        }
        Ok(())
    }

    /// A case in a process of its own; a line for each number of threads.
    fn in_child(&self, case: &Case, iters: usize) -> Result<Vec<Measured>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--json", "--device", &self.device]);
        command.args(["--iters", &iters.to_string(), "--batch", &case.batch.to_string()]);
        command.args(["--resolution", &case.growth.resolution().to_string()]);
        command.args(["--alpha", &case.growth.alpha.to_string()]);
        for threads in &self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command.args(["--turns", &self.turns.to_string()]);
        match (self.width, &self.preset) {
            (Some(width), _) => command.args(["--width", &width.to_string()]),
            (None, Some(preset)) => command.args(["--preset", preset]),
            (None, None) => &mut command,
        };
        let lines = output_of(&mut command)?;
        Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    fn peer(&self, case: &Case, variant: &str, iters: usize) -> Result<PeerMeasured> {
        let width = match case.config.model.fmap_max {
            512 => "full",
            128 => "small",
            32 => "tiny",
            other => bail!("--width {other}: the PyTorch peer has 512, 128 and 32"),
        };
        let script: PathBuf = super::root().join("crates/pggan-train/benches/torch_pggan.py");
        let mut command = Command::new(&self.python);
        command.arg(&script).args(["--width", width, "--variant", variant]);
        command.args(["--res", &case.growth.resolution().to_string()]);
        command.args(["--batch", &case.batch.to_string()]);
        command.args(["--alpha", &case.growth.alpha.to_string()]);
        command.args(["--threads", &rayon::current_num_threads().to_string()]);
        command.args(["--iters", &iters.to_string()]);
        // Whatever it says before is not for us.
        let output = output_of(&mut command)?;
        let line = output
            .lines()
            .last()
            .with_context(|| format!("{}: printed nothing", script.display()))?;
        Ok(serde_json::from_str(line)?)
    }
}

const HEAD: &str = " width resolution  batch  alpha   seconds      img/s  GFLOP/s  peak MiB";

fn row(m: &Measured) -> String {
    let peak = m.peak_mib.map_or("-".to_owned(), |mib| format!("{mib:.0}"));
    format!(
        "{:>6} {:>10} {:>6} {:>6} {:>9.4} {:>10.2} {:>8.0} {peak:>9}",
        m.width, m.resolution, m.batch, m.alpha, m.seconds, m.img_s, m.gflops
    )
}

/// What a program prints.
fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::piped()).output().with_context(|| name.clone())?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let reason = reason.trim().lines().last().unwrap_or("no reason given").to_owned();
        bail!("{name}: {reason}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
