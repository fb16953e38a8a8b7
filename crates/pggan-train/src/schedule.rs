//! Images shown to what training does then: a pure function (paper §2 and Appendix A.1).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use pggan_model::Growth;
use serde::{Deserialize, Serialize};

/// A setting that may differ by resolution: `{ "4" = 128, "8" = 64 }` in a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, T>", into = "BTreeMap<String, T>")]
#[serde(bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct ByResolution<T>(pub BTreeMap<usize, T>);

impl<T> TryFrom<BTreeMap<String, T>> for ByResolution<T> {
    type Error = String;

    fn try_from(map: BTreeMap<String, T>) -> Result<Self, String> {
        map.into_iter()
            .map(|(key, value)| match usize::from_str(&key) {
                Ok(r) if r.is_power_of_two() && (4..=1024).contains(&r) => Ok((r, value)),
                _ => Err(format!(
                    "{key:?} is no resolution: a power of two from 4 to 1024 is needed"
                )),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl<T> From<ByResolution<T>> for BTreeMap<String, T> {
    fn from(map: ByResolution<T>) -> Self {
        map.0.into_iter().map(|(r, value)| (r.to_string(), value)).collect()
    }
}

impl<T: Copy> ByResolution<T> {
    fn at(&self, resolution: usize, otherwise: T) -> T {
        self.0.get(&resolution).copied().unwrap_or(otherwise)
    }
}

/// When the networks grow, and what changes with them. The defaults are the official code's for one GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Thousands of real images until training ends.
    pub total_kimg: f64,
    /// Resolution to begin at; 0 means the final one, so that nothing grows.
    pub initial_resolution: usize,
    /// Thousands of images for which each resolution is trained before the next one fades in.
    pub training_kimg: f64,
    /// Thousands of images that a new resolution takes to fade in.
    pub transition_kimg: f64,
    /// Images in a minibatch, where `minibatch` does not say otherwise.
    pub minibatch_base: usize,
    /// Images in a minibatch, by resolution.
    pub minibatch: ByResolution<usize>,
    /// Adam's learning rate, where `learning_rate` does not say otherwise.
    pub learning_rate_base: f64,
    /// Adam's learning rate, by resolution.
    pub learning_rate: ByResolution<f64>,
    /// Thousands of images over which the learning rate rises to its full value, as `exp(-5 (1 - p)²)`; 0 for none.
    pub rampup_kimg: f64,
    /// Iterations for which the schedule is looked up once.
    pub minibatch_repeats: usize,
    /// Steps of the discriminator for each of the generator.
    pub d_repeats: usize,
    /// The generator's step sees the discriminator that its own step has moved; if not, both are moved at once, from
    /// the same generated images.
    pub separate_funcs: bool,
    /// Forget Adam's moments at both ends of each fade.
    pub reset_optimizer: bool,
    /// Thousands of images in a tick (a line of the log and a picture), where `tick_kimg` does not say otherwise.
    pub tick_kimg_base: f64,
    /// Thousands of images in a tick, by resolution.
    pub tick_kimg: ByResolution<f64>,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        let ticks = [160.0, 140.0, 120.0, 100.0, 80.0, 60.0, 40.0, 20.0, 10.0];
        let resolutions = (2..=10).map(|level| 1 << level);
        Self {
            total_kimg: 12_000.0,
            initial_resolution: 4,
            training_kimg: 600.0,
            transition_kimg: 600.0,
            minibatch_base: 16,
            minibatch: ByResolution::default(),
            learning_rate_base: 0.001,
            learning_rate: ByResolution::default(),
            rampup_kimg: 0.0,
            minibatch_repeats: 4,
            d_repeats: 1,
            separate_funcs: true,
            reset_optimizer: true,
            tick_kimg_base: 160.0,
            tick_kimg: ByResolution(resolutions.zip(ticks).collect()),
        }
    }
}

/// What training does at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How far the networks have grown.
    pub growth: Growth,
    /// The official code's level of detail, from which the rest follows.
    pub lod: f64,
    /// Images in a minibatch.
    pub minibatch: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Images in a tick.
    pub tick_images: u64,
}

impl Stage {
    /// Whole resolutions that take part, as (⌊lod⌋, ⌈lod⌉): it changes at both ends of each fade.
    pub fn interval(&self) -> (u32, u32) {
        (self.lod.floor() as u32, self.lod.ceil() as u32)
    }
}

impl ScheduleConfig {
    /// What to do after `images` real images, in networks that can grow to 2^`max_level`.
    pub fn stage_at(&self, max_level: u32, images: u64) -> Stage {
        let kimg = images as f64 / 1000.0;
        let phase = self.training_kimg + self.transition_kimg;
        let levels = f64::from(max_level - self.initial_level(max_level));
        let index = if phase > 0.0 { (kimg / phase).floor() } else { 0.0 };
        let into = kimg - index * phase;
        let mut lod = levels - index;
        if self.transition_kimg > 0.0 {
            lod -= (into - self.training_kimg).max(0.0) / self.transition_kimg;
        }
        let lod = lod.max(0.0);
        let growth =
            Growth { level: max_level - lod.floor() as u32, alpha: 1.0 - (lod - lod.floor()) };
        let resolution = growth.resolution();
        let tick_kimg = self.tick_kimg.at(resolution, self.tick_kimg_base);
        Stage {
            growth,
            lod,
            minibatch: self.minibatch_at(resolution),
            learning_rate: self.learning_rate_at(resolution) * self.rampup(kimg),
            tick_images: ((tick_kimg * 1000.0).round() as u64).max(1),
        }
    }

    /// log2 of the resolution that networks which can grow to 2^`max_level` begin at.
    pub fn initial_level(&self, max_level: u32) -> u32 {
        if self.initial_resolution == 0 { max_level } else { self.initial_resolution.ilog2() }
    }

    /// Share of the learning rate that is reached.
    fn rampup(&self, kimg: f64) -> f64 {
        if kimg >= self.rampup_kimg {
            return 1.0;
        }
        let missing = 1.0 - kimg / self.rampup_kimg;
        (-5.0 * missing * missing).exp()
    }

    /// Images in a minibatch at a resolution.
    pub fn minibatch_at(&self, resolution: usize) -> usize {
        self.minibatch.at(resolution, self.minibatch_base)
    }

    /// Adam's learning rate at a resolution, once it has risen.
    pub fn learning_rate_at(&self, resolution: usize) -> f64 {
        self.learning_rate.at(resolution, self.learning_rate_base)
    }

    /// Real images until training ends.
    pub fn total_images(&self) -> u64 {
        (self.total_kimg * 1000.0).round() as u64
    }

    /// What is wrong with these settings.
    pub fn problems(&self, max_level: u32, mbstd_group: usize) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, key: &str, value: &dyn Display, needs: &str| {
            if !good {
                problems.push(format!("schedule.{key} = {value}: {needs}"));
            }
        };
        let (initial, full) = (self.initial_resolution, 1usize << max_level);
        let grows = initial != 0;
        let fits = !grows || initial.is_power_of_two() && (4..=full).contains(&initial);
        let needs =
            format!("must be a power of two from 4 to the full resolution, {full}, or 0 for that");
        check(fits, "initial_resolution", &initial, &needs);
        for (key, kimg) in [
            ("total_kimg", self.total_kimg),
            ("training_kimg", self.training_kimg),
            ("transition_kimg", self.transition_kimg),
            ("rampup_kimg", self.rampup_kimg),
        ] {
            let good = kimg.is_finite() && (0.0..1e9).contains(&kimg);
            check(good, key, &kimg, "must be from 0 to 1e9 (thousands of images)");
        }
        let phase = self.training_kimg + self.transition_kimg;
        check(
            !(grows && fits && initial < full) || phase > 0.0,
            "training_kimg",
            &self.training_kimg,
            "a phase of growth must take some images",
        );
        check(
            self.minibatch_repeats > 0,
            "minibatch_repeats",
            &self.minibatch_repeats,
            "must be at least 1",
        );
        check(self.d_repeats > 0, "d_repeats", &self.d_repeats, "must be at least 1");
        let together = self.separate_funcs || self.d_repeats == 1;
        check(together, "d_repeats", &self.d_repeats, "must be 1 where separate_funcs is false");
        let first = if fits { self.initial_level(max_level) } else { 2 };
        for resolution in (first..=max_level).map(|level| 1usize << level) {
            let batch = self.minibatch.at(resolution, self.minibatch_base);
            let key = format!("minibatch at {resolution}x{resolution}");
            let fits = batch > 0 && batch.is_multiple_of(mbstd_group.clamp(1, batch.max(1)));
            let needs = format!(
                "must be a multiple of the minibatch-stddev group, {mbstd_group} (model.mbstd_group)"
            );
            check(fits, &key, &batch, &needs);
            check(batch <= 1 << 16, &key, &batch, "must be at most 65536");
            let rate = self.learning_rate_at(resolution);
            let key = format!("learning_rate at {resolution}x{resolution}");
            check(rate.is_finite() && rate > 0.0, &key, &rate, "must be above 0");
            let tick = self.tick_kimg.at(resolution, self.tick_kimg_base);
            let key = format!("tick_kimg at {resolution}x{resolution}");
            check(tick.is_finite() && tick > 0.0, &key, &tick, "must be above 0");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The official code's schedule at many moments, for five configurations.
    #[test]
    fn official_schedule() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/golden/schedule.json")).unwrap();
        let mut compared = 0;
        for (name, case) in golden.as_object().unwrap() {
            let p = &case["params"];
            let number = |key: &str| p[key].as_f64().unwrap();
            let by = |key: &str| {
                let map = p[key].as_object().unwrap();
                map.iter().map(|(r, v)| (r.parse().unwrap(), v.as_f64().unwrap()))
            };
            let config = ScheduleConfig {
                initial_resolution: number("init_res") as usize,
                training_kimg: number("train_k"),
                transition_kimg: number("trans_k"),
                minibatch_base: number("mb_base") as usize,
                minibatch: ByResolution(by("mb_dict").map(|(r, v)| (r, v as usize)).collect()),
                learning_rate_base: number("lr_base"),
                learning_rate: ByResolution(by("lr_dict").collect()),
                ..ScheduleConfig::default()
            };
            for point in case["points"].as_array().unwrap() {
                let number = |key: &str| point[key].as_f64().unwrap();
                let kimg = number("kimg");
                let stage =
                    config.stage_at(p["rl2"].as_u64().unwrap() as u32, (kimg * 1000.0) as u64);
                let near = |a: f64, b: f64| {
                    assert!((a - b).abs() < 1e-9, "{name} at {kimg} kimg: {a} {b}");
                };
                near(stage.lod, number("lod"));
                near(stage.growth.alpha, number("alpha"));
                near(stage.growth.resolution() as f64, number("resolution"));
                near(stage.minibatch as f64, number("minibatch"));
                near(stage.learning_rate, number("lrate"));
                compared += 1;
            }
        }
        assert!(compared > 50, "{compared}");
    }

    #[test]
    fn every_level_comes_and_none_goes() {
        let config = ScheduleConfig::default();
        let mut last = config.stage_at(10, 0);
        let mut resets = 0;
        for images in (0..12_000_000).step_by(10_000) {
            let stage = config.stage_at(10, images);
            assert!(stage.lod <= last.lod && stage.growth.level - last.growth.level <= 1);
            resets += u32::from(stage.interval() != last.interval());
            last = stage;
        }
        assert_eq!(last.growth, Growth::full(10));
        assert_eq!(resets, 16, "both ends of eight fades");
    }

    #[test]
    fn the_learning_rate_rises() {
        let config = ScheduleConfig { rampup_kimg: 40.0, ..ScheduleConfig::default() };
        for (kimg, share) in [(0, (-5f64).exp()), (20, (-1.25f64).exp()), (40, 1.0), (100, 1.0)] {
            let rate = config.stage_at(5, kimg * 1000).learning_rate;
            assert!((rate - 0.001 * share).abs() < 1e-15, "{kimg} {rate}");
        }
        assert_eq!(ScheduleConfig::default().stage_at(5, 0).learning_rate, 0.001);
    }

    #[test]
    fn nothing_grows_where_it_begins_at_the_end() {
        let config = ScheduleConfig {
            initial_resolution: 0,
            training_kimg: 0.0,
            transition_kimg: 0.0,
            ..ScheduleConfig::default()
        };
        assert!(config.problems(7, 4).is_empty());
        for images in [0, 1_000_000, 20_000_000] {
            let stage = config.stage_at(7, images);
            assert_eq!((stage.growth, stage.interval()), (Growth::full(7), (0, 0)));
        }
    }

    #[test]
    fn impossible_settings_are_all_named() {
        let config = ScheduleConfig {
            d_repeats: 5,
            separate_funcs: false,
            initial_resolution: 6,
            minibatch_base: 6,
            learning_rate_base: 0.0,
            ..ScheduleConfig::default()
        };
        let problems = config.problems(3, 4).join("\n");
        for words in [
            "initial_resolution = 6",
            "d_repeats = 5: must be 1 where separate_funcs is false",
            "minibatch at 8x8 = 6: must be a multiple",
            "learning_rate at 8x8 = 0",
        ] {
            assert!(problems.contains(words), "{problems}");
        }
        assert!(ScheduleConfig::default().problems(10, 4).is_empty());
    }
}
