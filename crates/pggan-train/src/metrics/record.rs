//! Results: a line of JSON each for programs, a table and a plot for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use pggan_model::weights::write_atomic;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The metric's name.
    pub metric: String,
    /// The number: the mean where it was measured repeatedly.
    pub value: f64,
    /// By pyramid level, finest first; empty where there are none.
    pub per_level: Vec<f64>,
    /// Sides of those levels.
    pub levels: Vec<usize>,
    /// Half the width of the 95% confidence interval of the mean over repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci95: Option<f64>,
    /// Each repeat's number.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub repeats: Vec<f64>,
    /// Standard deviation over the splits or subsets that the metric is defined with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// What real images score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// With so many of them on each side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_images: Option<usize>,
    /// Images judged.
    pub images: usize,
    /// Real images compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reals: Option<usize>,
    /// What was judged.
    pub judged: String,
    /// What it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Thousands of real images that the network was trained with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kimg: Option<f64>,
    /// SHA-256 of the file that the feature network's weights come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Seed of the first repeat.
    pub seed: u64,
    /// Threads of the CPU.
    pub threads: usize,
    /// Time it took, features included where this metric was the first to need them.
    pub seconds: f64,
    /// The most memory that the process held meanwhile, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
}

impl Record {
    /// The line of JSON.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("strings and numbers have a JSON form");
        line.push('\n');
        line
    }

    /// Appends it to `metric-NAME.jsonl` of a folder.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn append(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("metric-{}.jsonl", self.metric));
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut f| f.write_all(self.line().as_bytes())).map_err(Error::io(&path))?;
        Ok(path)
    }
}

/// Mean of repeats and half the width of its 95% confidence interval (Student's t).
pub(super) fn confidence(values: &[f64]) -> (f64, Option<f64>) {
    const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, None);
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let t = T.get(values.len() - 2).copied().unwrap_or(2.0);
    (mean, Some(t * (variance / n).sqrt()))
}

/// Rows for people.
pub fn table(records: &[Record]) -> String {
    let header = ["judged", "metric", "value", "floor", "images", "by level"].map(str::to_owned);
    let mut rows = vec![header];
    for record in records {
        let digits = if record.value.abs() < 10.0 { 4 } else { 2 };
        let spread = record.ci95.or(record.std);
        let spread = spread.map_or(String::new(), |s| format!(" ± {s:.digits$}"));
        let floor = record.floor.map_or(String::new(), |floor| format!("{floor:.digits$}"));
        let of_floor = match record.floor_images {
            Some(n) if n != record.images => format!(" ({n} images)"),
            _ => String::new(),
        };
        let pairs = record.levels.iter().zip(&record.per_level);
        let levels: Vec<String> =
            pairs.map(|(side, value)| format!("{side}: {value:.2}")).collect();
        let images = match record.reals {
            Some(reals) if reals != record.images => format!("{} / {reals}", record.images),
            _ => record.images.to_string(),
        };
        rows.push([
            record.judged.clone(),
            record.metric.clone(),
            format!("{:.digits$}{spread}", record.value),
            format!("{floor}{of_floor}"),
            images,
            levels.join("  "),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Draws `metric-NAME.svg` beside `metric-NAME.jsonl`: the metric over thousands of images, the latest result of each.
/// None if there are fewer than two.
///
/// # Errors
/// If a file cannot be read or written.
pub fn plot(jsonl: &Path) -> Result<Option<PathBuf>> {
    let text = std::fs::read_to_string(jsonl).map_err(Error::io(jsonl))?;
    // A line that a kill cut off is none.
    let records = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    let latest: BTreeMap<u64, Record> =
        records.filter_map(|r| Some(((r.kimg? * 1000.0) as u64, r))).collect();
    let points: Vec<(f64, &Record)> =
        latest.iter().map(|(&images, r)| (images as f64 / 1000.0, r)).collect();
    let [(first, record), .., (last, _)] = points[..] else { return Ok(None) };
    let floor = points.iter().rev().find_map(|(_, r)| r.floor);
    let half = |r: &Record| r.ci95.unwrap_or(0.0);
    let highest =
        points.iter().map(|(_, r)| r.value + half(r)).chain(floor).fold(f64::MIN, f64::max);
    let lowest = points.iter().map(|(_, r)| r.value - half(r)).chain(floor).fold(0.0, f64::min);
    let path = jsonl.with_extension("svg");
    let mut svg = String::new();
    let drawn = draw(
        &mut svg,
        &record.metric,
        (first..last, lowest..highest + 0.05 * (highest - lowest).max(1e-9)),
        &points,
        floor,
    );
    drawn.map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
    write_atomic(&path, svg.as_bytes()).map_err(Error::io(&path))?;
    Ok(Some(path))
}

type Span = std::ops::Range<f64>;

fn draw(
    svg: &mut String,
    title: &str,
    (x, y): (Span, Span),
    points: &[(f64, &Record)],
    floor: Option<f64>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let plain = |e: &dyn std::fmt::Display| e.to_string();
    let root = SVGBackend::with_string(svg, (720, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| plain(&e))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x.clone(), y)
        .map_err(|e| plain(&e))?;
    chart.configure_mesh().x_desc("thousands of real images").draw().map_err(|e| plain(&e))?;
    if let Some(floor) = floor {
        let line = LineSeries::new([(x.start, floor), (x.end, floor)], BLACK.mix(0.4));
        chart.draw_series(line).map_err(|e| plain(&e))?;
    }
    let line = LineSeries::new(points.iter().map(|(kimg, r)| (*kimg, r.value)), BLUE);
    chart.draw_series(line).map_err(|e| plain(&e))?;
    let dots = points.iter().map(|(kimg, r)| Circle::new((*kimg, r.value), 3, BLUE.filled()));
    chart.draw_series(dots).map_err(|e| plain(&e))?;
    for (kimg, r) in points {
        if let Some(half) = r.ci95 {
            let bar = PathElement::new([(*kimg, r.value - half), (*kimg, r.value + half)], BLUE);
            chart.draw_series([bar]).map_err(|e| plain(&e))?;
        }
    }
    root.present().map_err(|e| plain(&e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_students() {
        assert_eq!(confidence(&[3.0]), (3.0, None));
        let (mean, half) = confidence(&[1.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-12 && (half.unwrap() - 12.706).abs() < 1e-9);
        let (_, half) = confidence(&[1.0; 50]);
        assert_eq!(half, Some(0.0));
    }

    #[test]
    fn lines_come_back_and_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let record = |kimg, value| Record {
            metric: "swd2k".to_owned(),
            value,
            floor: Some(1.5),
            kimg: Some(kimg),
            ..Record::default()
        };
        let first = record(10.0, 30.0);
        let path = first.append(folder.path()).unwrap();
        assert_eq!(path.file_name().unwrap(), "metric-swd2k.jsonl");
        assert_eq!(serde_json::from_str::<Record>(&first.line()).unwrap(), first);
        assert_eq!(plot(&path).unwrap(), None, "one point is no curve");
        record(20.0, 12.0).append(folder.path()).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"metric\": \"sw").unwrap();
        let svg = std::fs::read_to_string(plot(&path).unwrap().unwrap()).unwrap();
        assert!(
            svg.contains("<svg") && svg.contains("swd2k") && svg.matches("<circle").count() == 2
        );
    }

    #[test]
    fn tables_have_a_row_for_each() {
        let record = Record {
            metric: "swd".to_owned(),
            judged: "a".to_owned(),
            value: 12.345,
            per_level: vec![10.0, 14.69],
            levels: vec![32, 16],
            images: 64,
            floor: Some(1.0),
            floor_images: Some(32),
            ..Record::default()
        };
        let text = table(&[record]);
        let row = text.lines().nth(1).unwrap();
        assert!(row.contains("12.35") || row.contains("12.34"), "{row}");
        assert!(row.contains("1.00 (32 images)") && row.contains("32: 10.00  16: 14.69"), "{row}");
    }
}
