//! Checks against numbers that another implementation made: forward passes, gradients, steps of training, single
//! operations and schedules, from a folder of safetensors files.
//!
//! Sizes, alphas and names are read from the files. `NET_params` has a network's weights under the official code's
//! names, `NET_forward` what comes out of it, `NET_*` with a `mode` in its metadata the gradients of a step or the
//! weights after three. What was computed in `f64` is compared with our `f64` (the generic path) and with our `f32`
//! (the engine's own kernels).

mod file;
mod networks;
mod operations;
mod passes;
mod schedules;
mod steps;

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use self::file::File;
use self::networks::Networks;
use crate::{Error, Result};

/// One comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// The file, without its ending.
    pub file: String,
    /// What was compared, as the file names it, and in which type we computed it.
    pub quantity: String,
    /// The largest difference, by the largest number expected.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
}

impl Row {
    /// Whether the error is within the tolerance.
    pub fn ok(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// What a folder's files were compared with.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All comparisons, file by file.
    pub rows: Vec<Row>,
    /// Files that are not of a kind that is checked here.
    pub skipped: Vec<String>,
}

/// Largest errors allowed; all relative to the largest number of a tensor.
mod tolerance {
    /// Forward in `f64` and in `f32`.
    pub(super) const FORWARD: [f64; 2] = [1e-12, 1e-5];
    /// Gradients in `f64`, and of numbers that were rounded to `f32`.
    pub(super) const GRADIENT: f64 = 1e-10;
    pub(super) const ROUNDED: f64 = 1e-6;
    /// Gradients in `f32`, and as a multiple of what the other implementation lost in `f32`.
    pub(super) const GRADIENT32: f64 = 5e-5;
    pub(super) const MULTIPLE: f64 = 10.0;
    /// Weights after some steps, in `f64`.
    pub(super) const STEPS: f64 = 1e-9;
    /// Single operations: of the generic path and of the engine.
    pub(super) const OPERATION: [f64; 2] = [1e-12, 2e-6];
}

/// Checks every file of a folder.
///
/// # Errors
/// If the folder or a file cannot be read, or holds something else than its name says.
pub fn check(folder: &Path) -> Result<Report> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    let mut report = Report::default();
    for name in &names {
        let path = folder.join(name);
        let stem = name.split('.').next().unwrap_or_default();
        let mut checks = Checks { file: stem.to_owned(), rows: &mut report.rows };
        if name == "schedule.json" {
            checks.schedules(&path)?;
        } else if name == "ops.safetensors" {
            checks.operations(&File::read(&path)?)?;
        } else if let Some(net) = network(folder, name) {
            let file = File::read(&path)?;
            let net =
                Networks::read(&folder.join(format!("{net}_params.safetensors")), folder, net)?;
            match file.meta("mode") {
                None => checks.forward(&net, &file)?,
                Some(_) if file.tensors.contains_key("real0") => checks.steps(&net, &file)?,
                Some(_) => checks.gradients(&net, &file)?,
            }
        } else if !name.ends_with("_params.safetensors") && !name.ends_with("_f32_error.json") {
            report.skipped.push(name.clone());
        }
    }
    if report.rows.is_empty() {
        let reason = "no file to check; it should hold NET_params.safetensors, NET_forward.safetensors and so on";
        return Err(Error::Usage(format!("{}: {reason}", folder.display())));
    }
    Ok(report)
}

/// The network that a file is about: the longest name whose weights are in the folder.
fn network<'a>(folder: &Path, file: &'a str) -> Option<&'a str> {
    let stem = file.strip_suffix(".safetensors").filter(|stem| !stem.ends_with("_params"))?;
    stem.rmatch_indices('_')
        .map(|(at, _)| &stem[..at])
        .find(|net| folder.join(format!("{net}_params.safetensors")).exists())
}

const TYPES: [(DType, &str); 2] = [(DType::F64, "f64"), (DType::F32, "f32")];

/// The comparisons of one file.
struct Checks<'a> {
    file: String,
    rows: &'a mut Vec<Row>,
}

impl Checks<'_> {
    fn row(&mut self, quantity: String, error: f64, tolerance: f64) {
        self.rows.push(Row { file: self.file.clone(), quantity, error, tolerance });
    }

    fn compare(
        &mut self,
        quantity: String,
        ours: &Tensor,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let error = relative(ours, expected)?;
        self.row(quantity, error, tolerance);
        Ok(())
    }

    fn number(
        &mut self,
        quantity: String,
        ours: f64,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let ours = Tensor::new(&[ours], &Device::Cpu)?;
        self.compare(quantity, &ours, expected, tolerance)
    }
}

/// The largest difference, by the size of the largest number that is expected; infinite where shapes differ.
fn relative(ours: &Tensor, expected: &Tensor) -> Result<f64> {
    if ours.elem_count() != expected.elem_count() {
        return Ok(f64::INFINITY);
    }
    let ours = ours.to_dtype(DType::F64)?.reshape(expected.dims())?;
    let expected = expected.to_dtype(DType::F64)?;
    let error = largest(&(ours - &expected)?)? / largest(&expected)?.max(f64::MIN_POSITIVE);
    // A comparison that is not a number has failed.
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

fn largest(x: &Tensor) -> Result<f64> {
    let values = x.flatten_all()?.to_vec1::<f64>()?;
    // Unlike `f64::max`, keeps what is not a number.
    Ok(values.iter().fold(0.0, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m }))
}
