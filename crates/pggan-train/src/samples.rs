//! Pictures: grids of real and generated images.

use std::fmt;
use std::io::Cursor;
use std::path::Path;
use std::str::FromStr;

use candle_core::{Device, Tensor};
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use pggan_model::weights::write_atomic;
use pggan_model::{Generator, Growth};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How many images stand side by side in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grid {
    /// As many as fit 1920x1080 pixels: 3 to 32 columns, 2 to 32 rows.
    Hd,
    /// As many as fit 3840x2160 pixels: 7 to 32 columns, 4 to 32 rows.
    Uhd,
    /// Columns and rows.
    Size(usize, usize),
}

impl Grid {
    /// Columns and rows for images of `resolution` pixels.
    pub fn size(self, resolution: usize) -> (usize, usize) {
        match self {
            Grid::Hd => ((1920 / resolution).clamp(3, 32), (1080 / resolution).clamp(2, 32)),
            Grid::Uhd => ((3840 / resolution).clamp(7, 32), (2160 / resolution).clamp(4, 32)),
            Grid::Size(columns, rows) => (columns, rows),
        }
    }
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1080p" => return Ok(Grid::Hd),
            "4k" => return Ok(Grid::Uhd),
            _ => {}
        }
        let size = text.split_once('x').and_then(|(c, r)| Some((c.parse().ok()?, r.parse().ok()?)));
        match size {
            Some((c, r)) if (1..=256).contains(&c) && (1..=256).contains(&r) => {
                Ok(Grid::Size(c, r))
            }
            _ => Err(format!(
                "{text:?} is no grid: COLUMNSxROWS is needed (as 8x8, each from 1 to 256), or 1080p, or 4k"
            )),
        }
    }
}

impl TryFrom<String> for Grid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Grid> for String {
    fn from(grid: Grid) -> Self {
        grid.to_string()
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grid::Hd => f.write_str("1080p"),
            Grid::Uhd => f.write_str("4k"),
            Grid::Size(columns, rows) => write!(f, "{columns}x{rows}"),
        }
    }
}

/// Generates images one by one, so that each depends on its own latent vector and nothing else, down to the last
/// bit; rounding in a batch depends on the batch.
///
/// # Shapes
/// `latents`: `[N, latent]`; `labels`: `[N, classes]`, of networks with labels; returns N images, each `C * R * R` bytes,
/// planes first.
///
/// # Errors
/// If the latents or labels do not fit the generator.
pub fn generate(
    g: &Generator,
    latents: &Tensor,
    labels: Option<&Tensor>,
    growth: Growth,
) -> Result<Vec<Vec<u8>>> {
    let mut images = Vec::new();
    for i in 0..latents.dim(0)? {
        let labels = labels.map(|labels| labels.narrow(0, i, 1)).transpose()?;
        let image = g.generate(&latents.narrow(0, i, 1)?, labels.as_ref(), growth)?;
        images.push(to_bytes(&image)?);
    }
    Ok(images)
}

/// From [-1, 1] to 0…255, rounded half to even, clipped.
pub(crate) fn to_bytes(image: &Tensor) -> Result<Vec<u8>> {
    let values = image.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values
        .iter()
        .map(|x| (x * 127.5 + 127.5).round_ties_even().clamp(0.0, 255.0) as u8)
        .collect())
}

/// Images of `channels` planes of `resolution`² pixels, enlarged `zoom` times and side by side, as a PNG file.
///
/// # Errors
/// If it cannot be written.
pub fn write_grid(
    path: &Path,
    images: &[Vec<u8>],
    columns: usize,
    channels: usize,
    resolution: usize,
    zoom: usize,
) -> Result<()> {
    let rows = images.len().div_ceil(columns);
    let (side, width) = (resolution * zoom, columns * resolution * zoom);
    let mut pixels = vec![255u8; rows * side * width * channels];
    for (i, image) in images.iter().enumerate() {
        let (top, left) = (i / columns * side, i % columns * side);
        for y in 0..side {
            for x in 0..side {
                let target = ((top + y) * width + left + x) * channels;
                let source = y / zoom * resolution + x / zoom;
                for c in 0..channels {
                    pixels[target + c] = image[c * resolution * resolution + source];
                }
            }
        }
    }
    let color = match channels {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    let mut png = Cursor::new(Vec::new());
    let written =
        PngEncoder::new(&mut png).write_image(&pixels, width as u32, (rows * side) as u32, color);
    written.map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
    write_atomic(path, png.get_ref()).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_the_official_sizes() {
        for (grid, resolution, expected) in [
            (Grid::Hd, 1024, (3, 2)),
            (Grid::Hd, 128, (15, 8)),
            (Grid::Hd, 32, (32, 32)),
            (Grid::Uhd, 1024, (7, 4)),
            (Grid::Size(5, 7), 64, (5, 7)),
        ] {
            assert_eq!(grid.size(resolution), expected);
            assert_eq!(grid.to_string().parse(), Ok(grid));
        }
        for bad in ["8", "0x3", "8x", "axb", "300x1"] {
            assert!(bad.parse::<Grid>().unwrap_err().contains("COLUMNSxROWS"));
        }
    }

    #[test]
    fn bytes_round_half_to_even_and_clip() {
        let values = [-2.0f32, -1.0, 0.0, 1.0, 7.0, 1.0 / 127.5];
        let image = Tensor::new(&values, &Device::Cpu).unwrap();
        assert_eq!(to_bytes(&image).unwrap(), [0, 0, 128, 255, 255, 128]);
    }

    #[test]
    fn a_grid_puts_every_image_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.png");
        let images: Vec<Vec<u8>> = (0..3u8).map(|i| vec![i * 10; 4]).collect();
        write_grid(&path, &images, 2, 1, 2, 3).unwrap();
        let picture = image::open(&path).unwrap().to_luma8();
        assert_eq!(picture.dimensions(), (12, 12));
        let at = |x, y| picture.get_pixel(x, y).0[0];
        assert_eq!([at(0, 0), at(11, 5), at(5, 6), at(6, 6)], [0, 10, 20, 255]);
    }
}
