//! Faces to squares that stand upright, as CelebA-HQ was made: the paper's Appendix C.
//!
//! ```text
//! landmarks ─geometry─► plan       (a square around eyes and mouth, as it lies in the picture)
//! picture ─reduce, cut out, enlarge─► face ─margin─► face with a border ─quad─► 4R x 4R ─Lanczos─► R x R ─deltas─► CelebA-HQ
//! ```
//!
//! Everything is to the byte what Pillow 3.1.1, `NumPy` and `SciPy` make, which CelebA-HQ's checksums ask for.
//! Of the square at 4R only the rows of the moment exist.
//!
//! Memory: a face and its margin are at most 82 million pixels, 11 bytes each; those above 24 million take turns,
//! over all threads. Ordinary ones, a few hundred pixels in the picture, need up to 150 MiB a thread with a margin and 40
//! MiB without.

mod deltas;
mod geometry;
mod jpeg;
mod landmarks;
mod margin;
mod pillow;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use self::deltas::{Deltas, Listed};
use self::geometry::Plan;
use self::landmarks::{Points, Table};
use self::pillow::Quad;
use crate::decode::{self, Decoder, Form, Picture};
use crate::planes;
use crate::source::{LabelsFrom, Source};
use crate::{Error, Result};

/// The most pixels a side of an aligned face: the paper's, and what the bound on memory is for.
pub const MAX_RESOLUTION: u32 = 1024;
/// Faces with more pixels than this, with their margin, take turns.
const LARGE_PIXELS: u64 = 24 << 20;
static LARGE: Mutex<()> = Mutex::new(());
static LARGE_FILE: Mutex<()> = Mutex::new(());

/// What faces are aligned by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Align {
    /// A table of eyes, nose and corners of the mouth: CelebA's or any CSV, with a row for each image: its name and ten
    /// numbers.
    pub landmarks: PathBuf,
    /// Whether, and how, the images are CelebA's, of which CelebA-HQ is made.
    pub celebahq: Option<CelebaHq>,
}

/// How CelebA-HQ is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CelebaHq {
    /// All images are aligned, and nothing else is done.
    All,
    /// Those of the `image_list.txt` in this folder, in its order.
    Listed(PathBuf),
    /// Those, and the deltas in this folder are added: CelebA-HQ itself.
    WithDeltas(PathBuf),
}

/// The landmarks of a source's images, and their deltas.
#[derive(Debug)]
pub(crate) struct Faces {
    points: Vec<Option<Points>>,
    /// Whether files are read as Pillow reads them: neither turned by EXIF nor converted to sRGB.
    as_stored: bool,
    listed: Vec<Listed>,
    deltas: Option<Deltas>,
}

impl Faces {
    /// Lists the images at `path` and reads their landmarks.
    pub(crate) fn open(align: &Align, path: &Path, labels: LabelsFrom) -> Result<(Source, Self)> {
        let table = Table::read(&align.landmarks)?;
        let (mut listed, mut deltas) = (Vec::new(), None);
        let source = match &align.celebahq {
            None | Some(CelebaHq::All) => Source::open(path, labels)?,
            Some(CelebaHq::Listed(dir) | CelebaHq::WithDeltas(dir)) => {
                listed = deltas::list(dir)?;
                if matches!(align.celebahq, Some(CelebaHq::WithDeltas(_))) {
                    deltas = Some(Deltas::open(dir)?);
                }
                Source::chosen(path, listed.iter().map(|listed| listed.file.as_str()))?
            }
        };
        let points = table.of(&source, &align.landmarks)?;
        if points.iter().all(Option::is_none) {
            let first = source.entries().first().map_or("none", |entry| &entry.name);
            let reason =
                format!("it has none of the images of {} (such as {first})", path.display());
            return Err(Error::Landmarks { path: align.landmarks.clone(), reason });
        }
        Ok((source, Self { points, as_stored: align.celebahq.is_some(), listed, deltas }))
    }

    /// BLAKE3 over everything here that decides the images.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(self.as_stored), u8::from(self.deltas.is_some())]);
        for points in &self.points {
            hasher.update(&[u8::from(points.is_some())]);
            for value in points.iter().flatten().flatten() {
                hasher.update(&value.to_le_bytes());
            }
        }
        for listed in &self.listed {
            hasher.update(listed.finished.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn points(&self, entry: usize) -> Result<&Points, String> {
        self.points[entry].as_ref().ok_or_else(|| "it has no landmarks".into())
    }

    /// The resolution that an image's face reaches without being enlarged.
    pub(crate) fn reach(&self, entry: usize) -> Result<u32, String> {
        geometry::square(self.points(entry)?).map(|(_, side)| side.round() as u32)
    }

    /// The worker of one thread.
    pub(crate) fn aligner(&self, resolution: u32, decoder: Decoder) -> Aligner<'_> {
        let decoder = if self.as_stored { decoder.unturned() } else { decoder };
        Aligner { faces: self, resolution, decoder }
    }
}

/// Aligns the images of a source, one after the other.
#[derive(Debug)]
pub(crate) struct Aligner<'a> {
    faces: &'a Faces,
    resolution: u32,
    decoder: Decoder,
}

impl Aligner<'_> {
    /// Decodes and aligns an image, and writes it as planes, `[channels, resolution, resolution]`.
    ///
    /// The error is the reason for which the image cannot be used.
    pub(crate) fn apply(
        &mut self,
        entry: usize,
        form: Form,
        bytes: &[u8],
        planes: &mut [u8],
    ) -> Result<(), String> {
        let (points, resolution) = (self.faces.points(entry)?, self.resolution);
        let mut put = |picture: Picture<'_>| align(picture, points, resolution, planes);
        if self.faces.as_stored && form == Form::Encoded && jpeg::is_jpeg(bytes) {
            let (width, height) = decode::dimensions(form, bytes)?;
            let large = width as u64 * height as u64 > LARGE_PIXELS;
            let _turn = large.then(|| LARGE_FILE.lock().unwrap_or_else(PoisonError::into_inner));
            let jpeg::Image { width, height, channels, pixels } = jpeg::decode(bytes)?;
            let form = Form::Pixels { width, height, channels };
            self.decoder.decode(form, &pixels, &mut put).flatten()?;
        } else {
            self.decoder.decode(form, bytes, &mut put).flatten()?;
        }
        match &self.faces.deltas {
            Some(deltas) => deltas.add(&self.faces.listed[entry], bytes, planes),
            None => Ok(()),
        }
    }
}

/// Cuts out the face with these points.
fn align(
    picture: Picture<'_>,
    points: &Points,
    resolution: u32,
    planes: &mut [u8],
) -> Result<(), String> {
    let Picture { width, height, channels, .. } = picture;
    let plan = Plan::new(points, (width, height), resolution)?;
    // A panic elsewhere leaves nothing half done behind this lock.
    let large = plan.pixels() > LARGE_PIXELS;
    let _turn = large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));

    let reduced = plan.reduced.map(|(w, h)| {
        let pixels = pillow::resize_picture(picture, (w as usize, h as usize));
        (w as usize, pixels)
    });
    let (wide, pixels) = match &reduced {
        Some((wide, pixels)) => (*wide, &pixels[..]),
        None => (width as usize, picture.pixels),
    };
    let [left, top, right, bottom] = plan.crop.map(|v| v as usize);
    let cut = (right - left, bottom - top);
    let (mut w, mut h) = (cut.0 * plan.superres as usize, cut.1 * plan.superres as usize);
    let mut face = pillow::resize(cut, (w, h), channels, |y, row| {
        row.copy_from_slice(&pixels[((top + y) * wide + left) * channels..][..channels * cut.0]);
    });
    drop(reduced);
    if let Some(margin) = &plan.margin {
        (face, w, h) = margin::pad(&face, (w, h), channels, margin);
    }

    let face = Picture { width: w as u32, height: h as u32, channels, pixels: &face };
    let (side, wide) = (resolution as usize, 4 * resolution as usize);
    let quad = Quad::new(face, &plan.quad.map(|corner| corner.map(|v| v + 0.5)), wide);
    let square = pillow::resize((wide, wide), (side, side), channels, |y, row| quad.row(y, row));
    planes::split(&square, channels, planes);
    Ok(())
}

#[cfg(test)]
mod tests;
