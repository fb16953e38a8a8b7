//! Images from a snapshot: one seed, one latent vector, one image, for ever.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pggan_model::{Generator, weights};

use crate::samples::{self, Grid};
use crate::{Error, Result, iteration, random};

/// What to generate.
#[derive(Debug)]
pub struct Request<'a> {
    /// A snapshot, a folder that has one (of a run, then its newest), or the id of a network on the hub.
    pub network: &'a Path,
    /// The seeds, each of which is an image.
    pub seeds: &'a [u64],
    /// The class of all images, where the network has classes.
    pub class: Option<usize>,
    /// Folder for `seed0000.png`, ….
    pub dest: &'a Path,
    /// Also all images in one picture, `grid.png`.
    pub grid: Option<Grid>,
}

/// Writes the images, calling `progress` after each; returns the files.
///
/// # Errors
/// If the snapshot cannot be read or the folder not be written.
pub fn generate(
    request: &Request<'_>,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Vec<PathBuf>> {
    let snapshot = pggan_hub::locate(request.network)?;
    let (g, header) = weights::read_generator(&snapshot, DType::F32, device)?;
    let label = class_label(&g, request.class, device)?;
    let growth = header.growth();
    let (channels, resolution) = (g.config().channels, growth.resolution());
    std::fs::create_dir_all(request.dest).map_err(Error::io(request.dest))?;

    let mut images = Vec::new();
    let mut files = Vec::new();
    for (i, &seed) in request.seeds.iter().enumerate() {
        let mut latent = vec![0f32; g.config().latent_size()];
        random::normal(random::stream(seed, "latent of a seed", 0, 0), &mut latent);
        let latent = Tensor::from_vec(latent, (1, ()), device)?;
        let image = samples::generate(&g, &latent, label.as_ref(), growth)?;
        let path = request.dest.join(format!("seed{seed:04}.png"));
        samples::write_grid(&path, &image, 1, channels, resolution, 1)?;
        files.push(path);
        if request.grid.is_some() {
            images.extend(image);
        }
        progress(i + 1);
    }
    if let Some(grid) = request.grid {
        let (columns, rows) = grid.size(resolution);
        images.truncate(columns * rows);
        let path = request.dest.join("grid.png");
        samples::write_grid(&path, &images, columns, channels, resolution, 1)?;
        files.push(path);
    }
    Ok(files)
}

/// The row of a class, `[1, classes]`.
fn class_label(g: &Generator, class: Option<usize>, device: &Device) -> Result<Option<Tensor>> {
    let classes = g.config().label_size;
    match class {
        None if classes == 0 => Ok(None),
        None => Err(Error::Usage(format!(
            "the network has classes: name one with --class, from 0 to {}",
            classes - 1
        ))),
        Some(class) if class < classes => {
            let row = iteration::one_hot(class, classes);
            Ok(Some(Tensor::from_vec(row, (1, classes), device)?))
        }
        Some(class) if classes == 0 => {
            Err(Error::Usage(format!("--class {class}: the network has no classes")))
        }
        Some(class) => Err(Error::Usage(format!(
            "--class {class}: the network has the classes 0 to {}",
            classes - 1
        ))),
    }
}

/// Generates from latent vectors in a file, for whoever compares numbers: reads `z` `[N, latent]`, and `labels`
/// `[N, classes]` where the network has some, and writes `images` `[N, C, R, R]`, `f32`, neither rounded nor clipped.
/// Returns how many.
///
/// # Errors
/// If a file cannot be read or written, or the latents do not fit the network.
pub fn generate_from_latents(
    network: &Path,
    latents: &Path,
    dest: &Path,
    device: &Device,
    mut progress: impl FnMut(usize, usize),
) -> Result<usize> {
    let (g, header) = weights::read_generator(&pggan_hub::locate(network)?, DType::F32, device)?;
    let problem = |what: String| Error::Usage(format!("--latents {}: {what}", latents.display()));
    let bytes = std::fs::read(latents).map_err(Error::io(latents))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)
        .map_err(|e| problem(format!("{e}; a safetensors file is needed")))?;
    let (size, classes) = (g.config().latent_size(), g.config().label_size);
    let find = |name: &str, width: usize| {
        let wanted = format!("the network takes `{name}` of shape [N, {width}]");
        match tensors.get(name) {
            Some(t) if t.dims().len() == 2 && t.dims()[1] == width => Ok(t.to_dtype(DType::F32)?),
            Some(t) => Err(problem(format!("`{name}` is {:?}, but {wanted}", t.dims()))),
            None => Err(problem(format!("no tensor of that name, but {wanted}"))),
        }
    };
    let z = find("z", size)?;
    let labels = if classes > 0 { Some(find("labels", classes)?) } else { None };
    let n = z.dim(0)?;
    if n == 0 || labels.as_ref().is_some_and(|labels| labels.dims()[0] != n) {
        return Err(problem(
            "`z` and `labels` need the same number of rows, at least one".to_owned(),
        ));
    }
    let mut images = Vec::with_capacity(n);
    for i in 0..n {
        let labels = labels.as_ref().map(|labels| labels.narrow(0, i, 1)).transpose()?;
        images.push(g.generate(&z.narrow(0, i, 1)?, labels.as_ref(), header.growth())?);
        progress(i + 1, n);
    }
    let images = Tensor::cat(&images, 0)?.to_device(&Device::Cpu)?;
    let file = std::collections::BTreeMap::from([("images", images)]);
    let bytes = safetensors::serialize(&file, None)
        .map_err(|e| Error::Usage(format!("{}: {e}", dest.display())))?;
    if let Some(folder) = dest.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    weights::write_atomic(dest, &bytes).map_err(Error::io(dest))?;
    Ok(n)
}

/// `0,1,4-6` as numbers.
///
/// # Errors
/// If it is something else, or more than a million.
pub fn parse_seeds(text: &str) -> Result<Vec<u64>, String> {
    let bad = || format!("{text:?} is no list of seeds: numbers and ranges are needed, as 0,1,4-6");
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.trim().parse::<u64>().map_err(|_| bad());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last - first >= 1_000_000 {
            return Err(bad());
        }
        seeds.extend(first..=last);
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_and_ranges() {
        assert_eq!(parse_seeds("0,1,4-6"), Ok(vec![0, 1, 4, 5, 6]));
        assert_eq!(parse_seeds("7"), Ok(vec![7]));
        for bad in ["", "a", "3-1", "1-", "-1", "0-99999999999"] {
            assert!(parse_seeds(bad).unwrap_err().contains("0,1,4-6"), "{bad}");
        }
    }
}
