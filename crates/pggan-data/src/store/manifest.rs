//! `manifest.json`: what a store holds and where it came from.

use std::fs::File;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Kind, MANIFEST, shard_name};
use crate::error::Context;
use crate::labels::MAX_LABELS;
use crate::source::Source;
use crate::{CHANNELS, Error, MAX_LEVEL, MIN_LEVEL, Result};

/// What `format` says.
const FORMAT: &str = "pggan-pyramid";
/// What `version` says. Version 1 had neither labels nor a choice of channels, version 2 pixels as they are at
/// every level; both are read. Later ones are refused.
const VERSION: u32 = 3;
/// Bad files that are listed; more are only counted.
pub(crate) const MAX_LISTED: usize = 1000;
/// A manifest above this size is not read. Ours has some 100 bytes a shard.
const MAX_BYTES: u64 = 64 << 20;

/// The whole of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// What people call the data: the last part of the source's path.
    pub name: String,
    /// Colour planes: 1 (grey), 3 (RGB) or 4 (RGB and opacity).
    pub channels: usize,
    /// Images, the same at every level.
    pub images: u64,
    /// Classes, or numbers in a label; 0 if images have no labels.
    pub labels: u64,
    /// What classes are called, in their order; empty if that is not known.
    #[serde(default)]
    pub class_names: Vec<String>,
    /// BLAKE3 of `labels.safetensors`; none without labels.
    #[serde(default)]
    pub labels_blake3: Option<String>,
    /// The highest level.
    pub max_level: u32,
    /// What was asked for.
    pub recipe: Recipe,
    /// Images whose shorter side was below the resolution.
    pub enlarged: u64,
    /// Files that were not called like an image.
    pub passed_over: u64,
    /// Files that could not be used.
    pub bad: BadFiles,
    /// BLAKE3 of `names.txt`.
    pub names_blake3: String,
    /// The levels from 4x4 up.
    pub levels: Vec<Level>,
}

/// Everything that decides the bytes of a store. Two requests with equal recipes give equal stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// BLAKE3 over the source's names and sizes, see [`Source::fingerprint`].
    pub source: String,
    /// BLAKE3 over the source's labels, see [`Source::labels_fingerprint`].
    #[serde(default)]
    pub labels: Option<String>,
    /// Colour planes.
    #[serde(default = "rgb")]
    pub channels: usize,
    /// Pixels a side, or none if it was left to the data.
    pub resolution: Option<u32>,
    /// How a picture becomes a square.
    pub crop: Crop,
    /// How it is resized.
    pub filter: Filter,
    /// Whether images may be enlarged.
    pub upscale: bool,
    /// What shows through transparent images, RGB.
    pub background: [u8; 3],
    /// The most images to take.
    pub max_images: Option<u64>,
    /// The most bytes of pixels in a shard.
    pub shard_bytes: u64,
    /// A square of the picture that is taken before all else: its middle, x and y, and its side.
    #[serde(default)]
    pub window: Option<[u32; 3]>,
    /// BLAKE3 over the landmarks that faces are aligned by, and CelebA-HQ's checksums.
    #[serde(default)]
    pub align: Option<String>,
    /// The part of the source that was taken, and of how many.
    #[serde(default)]
    pub slice: Option<[u32; 2]>,
    /// How large levels are compressed, if they are.
    #[serde(default)]
    pub compression: Option<Compression>,
}

/// Levels that are kept as image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// As what.
    pub codec: Layout,
    /// Levels of more pixels a side than this.
    pub above: u32,
    /// JPEG's, 1 to 100; of no account for the others, which lose nothing.
    pub quality: u8,
}

impl Recipe {
    /// What the shards of a level are like.
    pub(crate) fn kind(&self, level: u32) -> Kind {
        let layout = match self.compression {
            Some(compression) if 1 << level > compression.above => compression.codec,
            _ => Layout::Raw,
        };
        Kind { channels: self.channels, level, layout }
    }
}

/// The channels of version 1.
fn rgb() -> usize {
    3
}

/// How a picture becomes a square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// The middle of the longer side.
    #[default]
    #[value(name = "center-crop")]
    Center,
    /// The middle at four to three, with bars above and below, as LSUN's cars are prepared.
    #[value(name = "center-crop-wide")]
    CenterWide,
    /// All of it, with bars where it is shorter.
    Pad,
    /// All of it, out of shape.
    Stretch,
    /// Nothing is done: pictures must have the resolution.
    None,
}

/// How pictures are resized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Lanczos, three lobes.
    #[default]
    #[value(name = "lanczos")]
    Lanczos3,
    /// Catmull and Rom's cubic, Pillow's bicubic.
    Bicubic,
    /// A triangle.
    Bilinear,
    /// Hamming's window on one lobe.
    Hamming,
    /// A box: plain means.
    Box,
}

impl Recipe {
    /// Whether two parts belong to one whole.
    pub(crate) fn same_but_slice(&self, other: &Self) -> bool {
        Self { slice: None, ..self.clone() } == Self { slice: None, ..other.clone() }
    }

    /// The first difference between the recipe of a store and a request, for people.
    pub(crate) fn difference(&self, asked: &Self) -> Option<String> {
        let resolution = |r: Option<u32>| r.map_or("automatic".into(), |r| r.to_string());
        let limit = |n: Option<u64>| n.map_or("all".into(), |n| n.to_string());
        let differences = [
            (self.source != asked.source, "the source has other files".into()),
            (self.labels != asked.labels, "other labels".into()),
            (
                self.channels != asked.channels,
                format!("channels {}, not {}", self.channels, asked.channels),
            ),
            (
                self.resolution != asked.resolution,
                format!(
                    "resolution {}, not {}",
                    resolution(self.resolution),
                    resolution(asked.resolution)
                ),
            ),
            (
                self.upscale != asked.upscale,
                format!("upscale {}, not {}", self.upscale, asked.upscale),
            ),
            (
                self.background != asked.background,
                format!("background {:?}, not {:?}", self.background, asked.background),
            ),
            (
                self.max_images != asked.max_images,
                format!("images {}, not {}", limit(self.max_images), limit(asked.max_images)),
            ),
            (self.shard_bytes != asked.shard_bytes, "another size of shards".into()),
            (self.crop != asked.crop, format!("transform {:?}, not {:?}", self.crop, asked.crop)),
            (self.window != asked.window, "another --crop".into()),
            (self.align != asked.align, "other landmarks or deltas".into()),
            (self.slice != asked.slice, "another part of the source".into()),
            (self.compression != asked.compression, "another --codec".into()),
            (self != asked, "another filter".into()),
        ];
        differences.into_iter().find(|(differs, _)| *differs).map(|(_, words)| words)
    }
}

/// Files that could not be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadFiles {
    /// How many.
    pub count: u64,
    /// The first 1000, in the source's order.
    pub files: Vec<Bad>,
}

/// A file that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// Its place among the source's entries.
    pub entry: u64,
    /// Its name in the source.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Bad {
    /// Names the file to whoever is watching; with `strict` as an error.
    pub(crate) fn found(
        source: &Source,
        entry: usize,
        reason: String,
        strict: bool,
    ) -> Result<Self> {
        let name = source.entries()[entry].name.clone();
        if strict {
            return Err(Error::BadFile { name, reason });
        }
        tracing::warn!("bad file {name}: {reason}");
        Ok(Self { entry: entry as u64, name, reason })
    }
}

/// The shards of a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Base-2 logarithm of the side.
    pub level: u32,
    /// How images lie in its shards.
    pub layout: Layout,
    /// The shards, without gap or overlap.
    pub shards: Vec<Shard>,
}

/// How images lie in a shard: see [`crate::store`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Pixels as they are.
    #[default]
    Raw,
    /// PNG files, to the bit.
    Png,
    /// JPEG files, without subsampling.
    Jpeg,
    /// Lossless WebP files, to the bit.
    Webp,
}

/// A file of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name in the store.
    pub file: String,
    /// Index of its first image.
    pub first: u64,
    /// Its number of images.
    pub count: u64,
    /// BLAKE3 of the whole file.
    pub blake3: String,
}

impl Manifest {
    /// The manifest of finished shards.
    pub(crate) fn new(source: &Source, recipe: Recipe, levels: Vec<Level>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            name: source.name(),
            channels: recipe.channels,
            images: levels[0].shards.iter().map(|shard| shard.count).sum(),
            labels: 0,
            class_names: source.class_names().to_vec(),
            labels_blake3: None,
            max_level: levels[levels.len() - 1].level,
            recipe,
            enlarged: 0,
            passed_over: source.passed_over(),
            bad: BadFiles::default(),
            names_blake3: String::new(),
            levels,
        }
    }

    /// Counts in what another part, behind this one, found.
    pub(crate) fn add(&mut self, part: &Self) {
        self.images += part.images;
        self.enlarged += part.enlarged;
        self.bad.count += part.bad.count;
        self.bad.files.extend(part.bad.files.iter().cloned());
        self.bad.files.truncate(MAX_LISTED);
    }

    /// Bytes of all shards in `dir`.
    pub(crate) fn bytes_on_disk(&self, dir: &Path) -> u64 {
        let shards = self.levels.iter().flat_map(|level| &level.shards);
        shards.filter_map(|shard| Some(dir.join(&shard.file).metadata().ok()?.len())).sum()
    }

    /// Reads and checks the manifest of the store in `dir`; none if the folder has none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(MANIFEST);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(None),
            Err(error) => return Err(error).context("read", &path),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).context("read", &path)?;
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged(format!("it has more than {MAX_BYTES} bytes")));
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        manifest.check().map_err(damaged)?;
        Ok(Some(manifest))
    }

    /// The bytes of `manifest.json`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec_pretty(self).expect("strings, numbers and lists always serialize");
        text.push(b'\n');
        text
    }

    /// Whether the parts agree with each other.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT || !(1..=VERSION).contains(&self.version) {
            return Err(format!(
                "it is {} version {}, this program reads {FORMAT} up to version {VERSION}",
                self.format, self.version
            ));
        }
        if !CHANNELS.contains(&self.channels) || self.images == 0 {
            return Err(format!("{} channels, {} images", self.channels, self.images));
        }
        let names = self.class_names.len() as u64;
        if self.labels > MAX_LABELS as u64
            || (self.labels > 0) != self.labels_blake3.is_some()
            || (names > 0 && names != self.labels)
        {
            return Err(format!("{} labels, {names} names of classes", self.labels));
        }
        let numbers: Vec<u32> = self.levels.iter().map(|level| level.level).collect();
        if self.max_level > MAX_LEVEL || numbers != (MIN_LEVEL..=self.max_level).collect::<Vec<_>>()
        {
            return Err(format!("levels {numbers:?}, highest {}", self.max_level));
        }
        for Level { level, shards, .. } in &self.levels {
            let mut next = 0_u64;
            for (number, shard) in shards.iter().enumerate() {
                // Also keeps names from leading out of the folder.
                if shard.file != shard_name(*level, number) {
                    return Err(format!(
                        "shard {number} of level {level} is called {:?}",
                        shard.file
                    ));
                }
                if shard.first != next || !(1..=self.images - next).contains(&shard.count) {
                    return Err(format!(
                        "{} has {} images from {}",
                        shard.file, shard.count, shard.first
                    ));
                }
                next += shard.count;
            }
            if next != self.images {
                return Err(format!("level {level} has {next} images of {}", self.images));
            }
        }
        Ok(())
    }
}
