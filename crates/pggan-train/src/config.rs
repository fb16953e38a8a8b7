//! All settings of a run: preset, then file, then flags; checked as a whole.

use pggan_model::ModelConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::loss::LossConfig;
use crate::optim::OptimConfig;
use crate::pictures::Layout;
use crate::presets::{self, ABLATIONS, PRESETS};
use crate::samples::Grid;
use crate::schedule::ScheduleConfig;
use crate::{Error, Result};

/// Everything that decides what a run computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The shape of the networks; resolution and channels are the data's unless set.
    pub model: ModelConfig,
    /// When they grow.
    pub schedule: ScheduleConfig,
    /// What they are trained for.
    pub loss: LossConfig,
    /// How they move.
    pub optim: OptimConfig,
    /// What they are shown.
    pub data: DataConfig,
    /// What is written, and the seed.
    pub run: RunConfig,
}

/// How real images are drawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of the prepared data set; where it lies does not matter, what it holds does.
    pub path: String,
    /// BLAKE3 of the data set's manifest, which holds the sums of all its files.
    pub content: String,
    /// Mirror every other image, by chance.
    pub mirror: bool,
    /// Undo the rounding of pixels with noise of half a step to either side.
    pub dequantize: bool,
}

/// What a run writes, and the seed of all its random numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the preset, for the run's folder.
    pub preset: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// BLAKE3 of the snapshot that the networks begin as; empty where their weights are drawn.
    pub start: String,
    /// Columns and rows of the sample pictures, or "1080p" or "4k" as in the official code.
    pub grid: Grid,
    /// What stands in their rows.
    pub grid_layout: Layout,
    /// Ticks between two snapshots.
    pub snapshot_ticks: u64,
    /// Training states that are kept.
    pub keep: usize,
    /// Metrics of every snapshot, as `swd2k`; none where empty.
    pub metrics: String,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            preset: String::new(),
            seed: 1000,
            start: String::new(),
            grid: Grid::Hd,
            grid_layout: Layout::Random,
            snapshot_ticks: 10,
            keep: 2,
            metrics: String::new(),
        }
    }
}

/// Settings on their way to a [`Config`]: whatever has been said so far.
#[derive(Clone, Debug, Default)]
pub struct Settings(Table);

impl Settings {
    /// The settings of a preset.
    ///
    /// # Errors
    /// If there is none of that name; the message lists them.
    pub fn preset(name: &str) -> Result<Self> {
        let text = presets::find(&PRESETS, name).map_err(|names| {
            Error::Usage(match name.strip_suffix("-fp16") {
                Some(base) => format!(
                    "--preset {name}: 16-bit floats with loss scaling are not there; {base} trains in 32 bits"
                ),
                None => {
                    format!("--preset {name}: there is none of that name; choose one of {names}")
                }
            })
        })?;
        let mut settings = Self::parse(text, &format!("preset {name}"))?;
        settings.set("run.preset", Value::from(name))?;
        Ok(settings)
    }

    /// Lays an ablation over the settings, and adds it to the preset's name.
    ///
    /// # Errors
    /// If there is none of that name; the message lists them.
    pub fn ablate(&mut self, name: &str) -> Result<()> {
        let text = presets::find(&ABLATIONS, name).map_err(|names| {
            Error::Usage(format!(
                "--ablate {name}: there is none of that name; choose some of {names}"
            ))
        })?;
        self.merge(Self::parse(text, name)?);
        let preset = self.0.get("run").and_then(|run| run.get("preset")).and_then(Value::as_str);
        let preset = format!("{}-{name}", preset.unwrap_or_default());
        self.set("run.preset", preset.into())
    }

    /// The settings of a TOML document; `origin` names it in errors.
    ///
    /// # Errors
    /// If it is not TOML.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let table = text.parse();
        table
            .map(Self)
            .map_err(|e: toml::de::Error| Error::Usage(format!("{origin}: {}", one_line(&e))))
    }

    /// Lays other settings over these.
    pub fn merge(&mut self, over: Self) {
        merge(&mut self.0, over.0);
    }

    /// Whether a setting has been given, by its dotted key.
    pub fn has(&self, key: &str) -> bool {
        let mut parts = key.split('.');
        let first = parts.next().and_then(|k| self.0.get(k));
        parts.try_fold(first, |v, k| Some(v?.get(k)).filter(Option::is_some)).flatten().is_some()
    }

    /// Gives one setting by its dotted key.
    ///
    /// # Errors
    /// If the key leads through something that is not a table.
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut table = &mut self.0;
        for part in parts {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry
                .as_table_mut()
                .ok_or_else(|| Error::Usage(format!("--set {key}: {part} is not a section")))?;
        }
        table.insert(last.to_owned(), value);
        Ok(())
    }

    /// Takes a setting back, by its dotted key.
    pub fn unset(&mut self, key: &str) {
        if let Some((section, key)) = key.split_once('.')
            && let Some(table) = self.0.get_mut(section).and_then(Value::as_table_mut)
        {
            table.remove(key);
        }
    }

    /// Gives one setting as on the command line: `schedule.training_kimg=60`.
    ///
    /// # Errors
    /// If there is no `=`.
    pub fn set_text(&mut self, text: &str) -> Result<()> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Error::Usage(format!(
                "--set {text}: KEY=VALUE is needed, as in schedule.total_kimg=100"
            )));
        };
        // What is no TOML value is a string.
        let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        self.set(key.trim(), parsed.unwrap_or_else(|| Value::from(value)))
    }

    /// The settings as a whole, of the types they must have.
    ///
    /// # Errors
    /// If a key is unknown or a value of the wrong type.
    pub fn resolve(self) -> Result<Config> {
        Value::Table(self.0)
            .try_into()
            .map_err(|e: toml::de::Error| Error::Config(vec![one_line(&e)]))
    }
}

impl Config {
    /// The settings as a TOML document.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every setting has a TOML form")
    }

    /// # Errors
    /// [`Error::Config`] with everything that is wrong.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        if let Err(e) = self.model.validate() {
            problems.push(e.to_string());
        } else {
            let group = self.model.mbstd_group;
            problems.extend(self.schedule.problems(self.model.max_level(), group));
        }
        problems.extend(self.loss.problems());
        problems.extend(self.optim.problems());
        if self.run.snapshot_ticks == 0 {
            problems.push("run.snapshot_ticks = 0: must be at least 1".to_owned());
        }
        if self.run.keep == 0 {
            problems.push("run.keep = 0: must be at least 1".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
    }

    /// The settings in which `other` differs, in words. How long to train is not one of them, so that a finished
    /// run can be taken further, and neither are where the data lie and what is measured.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let tables =
            [self, other].map(|c| Table::try_from(c).expect("every setting has a TOML form"));
        for (section, a) in &tables[0] {
            for (key, a) in a.as_table().into_iter().flatten() {
                let b = tables[1].get(section).and_then(|s| s.get(key));
                let free = [("schedule", "total_kimg"), ("data", "path"), ("run", "metrics")];
                if b != Some(a) && !free.contains(&(section.as_str(), key.as_str())) {
                    let b = b.map_or("nothing".to_owned(), ToString::to_string);
                    found.push(format!("{section}.{key}: {a} there, {b} here"));
                }
            }
        }
        found
    }
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        if let (Some(Value::Table(base)), Value::Table(over), false) =
            (base.get_mut(&key), &value, is_map(&key))
        {
            merge(base, over.clone());
        } else {
            base.insert(key, value);
        }
    }
}

/// Settings by resolution are replaced as a whole, not merged.
fn is_map(key: &str) -> bool {
    ["minibatch", "learning_rate", "tick_kimg"].contains(&key)
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_sound_and_says_only_what_differs() {
        for (name, _) in PRESETS {
            let config = Settings::preset(name).unwrap().resolve().unwrap();
            config.validate().unwrap();
            let again = Settings::parse(&config.to_toml(), "").unwrap().resolve().unwrap();
            assert_eq!(config, again);
            assert_eq!(config.run.preset, name);
        }
    }

    #[test]
    fn ablations_lie_over_a_preset_and_name_the_run() {
        let mut settings = Settings::preset("v2-1gpu").unwrap();
        for (name, _) in ABLATIONS {
            let before = settings.clone().resolve().unwrap();
            settings.ablate(name).unwrap();
            let after = settings.clone().resolve().unwrap();
            after.validate().unwrap();
            assert!(before.differences(&after).len() > 1, "{name} changes nothing but its name");
        }
        let config = settings.resolve().unwrap();
        assert_eq!(
            config.run.preset,
            "v2-1gpu-nogrowing-nopixelnorm-nowscale-noleakyrelu-nosmoothing-norepeat-noreset"
        );
        let mut settings = Settings::preset("quick").unwrap();
        let message = settings.ablate("nofun").unwrap_err().to_string();
        assert!(message.contains("nofun") && message.contains("norepeat"), "{message}");
    }

    #[test]
    fn later_settings_win_and_unknown_ones_are_named() {
        let mut settings = Settings::preset("v2-1gpu").unwrap();
        settings.set_text("schedule.minibatch={ 4 = 8 }").unwrap();
        settings.set_text("run.grid=2x2").unwrap();
        settings.set_text("model.fmap_max=32").unwrap();
        assert!(settings.has("model.fmap_max") && !settings.has("model.resolution"));
        let config = settings.clone().resolve().unwrap();
        assert_eq!(config.schedule.minibatch.0.into_iter().collect::<Vec<_>>(), [(4, 8)]);
        assert_eq!(config.model.fmap_max, 32);

        settings.set_text("schedule.speed=1").unwrap();
        assert!(settings.resolve().unwrap_err().to_string().contains("unknown field `speed`"));
        let message = Settings::preset("v9").unwrap_err().to_string();
        assert!(message.contains("v9") && message.contains("v2-8gpus"), "{message}");
        let message = Settings::preset("v2-1gpu-fp16").unwrap_err().to_string();
        assert!(message.contains("v2-1gpu trains in 32 bits"), "{message}");
    }

    #[test]
    fn differences_are_named() {
        let config = Settings::preset("quick").unwrap().resolve().unwrap();
        let mut other = config.clone();
        other.schedule.total_kimg *= 2.0;
        assert!(config.differences(&other).is_empty());
        other.optim.beta2 = 0.9;
        assert_eq!(config.differences(&other), ["optim.beta2: 0.99 there, 0.9 here"]);
    }
}
