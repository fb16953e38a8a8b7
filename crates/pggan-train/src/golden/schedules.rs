//! Schedules.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Checks;
use crate::schedule::{ByResolution, ScheduleConfig};
use crate::{Error, Result};

impl Checks<'_> {
    pub(super) fn schedules(&mut self, path: &Path) -> Result<()> {
        #[derive(Deserialize)]
        struct Case {
            params: Settings,
            points: Vec<Point>,
        }
        #[derive(Deserialize)]
        struct Settings {
            rl2: u32,
            init_res: usize,
            train_k: f64,
            trans_k: f64,
            mb_base: usize,
            mb_dict: BTreeMap<usize, usize>,
            lr_base: f64,
            lr_dict: BTreeMap<usize, f64>,
        }
        #[derive(Deserialize)]
        struct Point {
            kimg: f64,
            lod: f64,
            resolution: usize,
            alpha: f64,
            minibatch: usize,
            lrate: f64,
        }
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let cases: BTreeMap<String, Case> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
        for (name, Case { params, points }) in cases {
            let schedule = ScheduleConfig {
                initial_resolution: params.init_res,
                training_kimg: params.train_k,
                transition_kimg: params.trans_k,
                minibatch_base: params.mb_base,
                minibatch: ByResolution(params.mb_dict),
                learning_rate_base: params.lr_base,
                learning_rate: ByResolution(params.lr_dict),
                ..ScheduleConfig::default()
            };
            let mut worst = 0f64;
            for point in &points {
                let stage = schedule.stage_at(params.rl2, (point.kimg * 1000.0).round() as u64);
                for (ours, expected) in [
                    (stage.lod, point.lod),
                    (stage.growth.alpha, point.alpha),
                    (stage.growth.resolution() as f64, point.resolution as f64),
                    (stage.minibatch as f64, point.minibatch as f64),
                    (stage.learning_rate, point.lrate),
                ] {
                    worst = worst.max((ours - expected).abs());
                }
            }
            self.row(format!("{name}, {} points", points.len()), worst, 1e-9);
        }
        Ok(())
    }
}
