//! The folder of a run: `runs/00012-emoji-32-quick/`.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pggan_model::weights::write_atomic;

use crate::checkpoint;
use crate::config::{Config, Settings};
use crate::stats::Tick;
use crate::{Error, Result};

/// A run's folder, locked against other trainers for as long as this lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// A new folder in `outdir`, numbered after all that are there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(outdir: &Path, dataset: &str, config: &Config) -> Result<Self> {
        fs::create_dir_all(outdir).map_err(Error::io(outdir))?;
        let number = list(outdir)?.last().map_or(0, |(number, _)| number + 1);
        let (resolution, preset) = (config.model.resolution, &config.run.preset);
        let path = outdir.join(format!("{number:05}-{dataset}-{resolution}-{preset}"));
        fs::create_dir(&path).map_err(Error::io(&path))?;
        let run = Self::open(&path)?;
        run.write_config(config)?;
        Ok(run)
    }

    /// Takes an existing folder.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process is training in it.
    pub fn open(path: &Path) -> Result<Self> {
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(e)) => Err(Error::io(&lock_path)(e)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        let path = self.file("config.toml");
        write_atomic(&path, config.to_toml().as_bytes()).map_err(Error::io(&path))
    }

    /// Appends a line to `stats.jsonl`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append_stats(&self, tick: &Tick) -> Result<()> {
        let path = self.file("stats.jsonl");
        let mut line = serde_json::to_string(tick).expect("a tick has a JSON form");
        line.push('\n');
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut f| f.write_all(line.as_bytes())).map_err(Error::io(&path))
    }

    /// Drops the lines of `stats.jsonl` that lie after `images`, where a run is about to go on from there.
    /// Returns the last one that stays.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn rewind_stats(&self, images: u64) -> Result<Option<Tick>> {
        let path = self.file("stats.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        // The last line may be half a one, after a kill.
        let parsed =
            text.lines().map_while(|line| Some((line, serde_json::from_str::<Tick>(line).ok()?)));
        let kept: Vec<(&str, Tick)> =
            parsed.take_while(|(_, tick)| tick.images <= images).collect();
        let lines: String = kept.iter().flat_map(|(line, _)| [line, "\n"]).collect();
        if lines != text {
            write_atomic(&path, lines.as_bytes()).map_err(Error::io(&path))?;
        }
        Ok(kept.into_iter().next_back().map(|(_, tick)| tick))
    }
}

/// The settings of the run in a folder.
///
/// # Errors
/// If `config.toml` cannot be read or is not one.
pub fn read_config(run: &Path) -> Result<Config> {
    let path = run.join("config.toml");
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    Settings::parse(&text, &path.display().to_string())?.resolve()
}

/// The newest run in `outdir` with these settings.
///
/// # Errors
/// If `outdir` cannot be listed.
pub fn find(outdir: &Path, config: &Config) -> Result<Option<PathBuf>> {
    let runs = list(outdir)?.into_iter().rev().map(|(_, path)| path);
    let same = |path: &PathBuf| {
        // A folder without readable settings is nobody's run to continue.
        read_config(path).is_ok_and(|found| found.differences(config).is_empty())
    };
    Ok(runs.into_iter().find(same))
}

/// What `--resume` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// A run, to go on with.
    Run(PathBuf),
    /// A snapshot, to begin another run from.
    Weights(PathBuf),
}

/// What `--resume` names: a run as [`locate`] finds it, or weights: a snapshot, a folder with one that is no run's, or the
/// id of a network on the hub.
///
/// # Errors
/// If there is none of these.
pub fn resume(path: &Path) -> Result<Resume> {
    let state = checkpoint::images_in_name(path).is_some();
    let elsewhere = || path.to_string_lossy().parse::<pggan_hub::HubId>().is_ok();
    if (path.is_file() && !state) || (!path.exists() && elsewhere()) {
        return Ok(Resume::Weights(pggan_hub::locate(path)?));
    }
    if path.is_dir()
        && !path.join("config.toml").is_file()
        && let Ok(weights) = pggan_hub::locate(path)
    {
        return Ok(Resume::Weights(weights));
    }
    locate(path).map(Resume::Run)
}

/// The run that `--resume` names: a run's folder, one of its files, or a folder of runs (then the newest).
///
/// # Errors
/// If there is no run.
pub fn locate(path: &Path) -> Result<PathBuf> {
    let nothing = |why: &str| Error::Usage(format!("{}: {why}", path.display()));
    if path.is_file() {
        let folder = path.parent().unwrap_or(Path::new("."));
        return match checkpoint::images_in_name(path) {
            Some(_) => Ok(folder.to_owned()),
            None => Err(nothing("is not a training-state-NNNNNN.safetensors of a run")),
        };
    }
    if path.join("config.toml").is_file() {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        return Err(nothing("no such file or folder; name a run's folder or a training state"));
    }
    match list(path)?.pop() {
        Some((_, newest)) => Ok(newest),
        None => Err(nothing("no run here; start one with `cargo xtask train`")),
    }
}

/// The runs in a folder with their numbers, in order.
fn list(outdir: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let mut runs = Vec::new();
    let entries = match fs::read_dir(outdir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(runs),
        Err(e) => return Err(Error::io(outdir)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(outdir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-'));
        if let Some(Ok(number)) = name.map(|(number, _)| number.parse())
            && path.is_dir()
        {
            runs.push((number, path));
        }
    }
    runs.sort();
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Sums;

    #[test]
    fn runs_are_numbered_found_by_their_settings_and_locked() {
        let folder = tempfile::tempdir().unwrap();
        let config = Settings::preset("quick").unwrap().resolve().unwrap();
        assert!(find(folder.path(), &config).unwrap().is_none());
        let first = RunDir::create(folder.path(), "faces", &config).unwrap();
        assert!(first.path().ends_with("00000-faces-32-quick"));
        let mut other = config.clone();
        other.run.seed += 1;
        let second = RunDir::create(folder.path(), "faces", &other).unwrap();
        assert!(second.path().ends_with("00001-faces-32-quick"));
        assert_eq!(find(folder.path(), &config).unwrap().unwrap(), first.path());
        assert_eq!(locate(folder.path()).unwrap(), second.path());
        assert!(matches!(RunDir::open(first.path()), Err(Error::Locked { .. })));
        let path = first.path().to_owned();
        drop(first);
        assert!(RunDir::open(&path).is_ok());
    }

    #[test]
    fn stats_are_cut_where_a_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path()).unwrap();
        assert!(run.rewind_stats(10).unwrap().is_none());
        let tick = |images| Tick {
            tick: images,
            images,
            lod: 0.0,
            resolution: 4,
            alpha: 1.0,
            minibatch: 4,
            seconds: 1.0,
            tick_seconds: 1.0,
            images_per_second: 1.0,
            maintenance_seconds: 0.0,
            waiting_share: 0.0,
            means: Sums::default().means(),
        };
        for images in [10, 20, 30] {
            run.append_stats(&tick(images)).unwrap();
        }
        let path = run.file("stats.jsonl");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"tick\": 4, \"ima").unwrap();
        assert_eq!(run.rewind_stats(20).unwrap(), Some(tick(20)));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
