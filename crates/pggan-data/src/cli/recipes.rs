//! The flags of `prepare` that say which faces to take, and how known data sets are made.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use pggan_data::{Align, CelebaHq, PrepareOptions};

/// Of CelebA's aligned images, 178x218, what the paper takes.
const CELEBA_WINDOW: [u32; 3] = [89, 121, 128];
/// Pixels a side of CelebA-HQ.
const CELEBAHQ_SIDE: u32 = 1024;

#[derive(Args)]
pub(crate) struct Recipes {
    /// Settings of a known data set. `celeba`: the paper's 128x128 faces from CelebA's aligned images, which are
    /// --crop 89,121,128 --resolution 128. `celebahq`: the paper's 1024x1024 faces from CelebA's images as they were
    /// found (--celeba) and its deltas (--deltas).
    #[arg(long, value_enum, hide_possible_values = true, value_name = "celeba|celebahq", conflicts_with_all = ["crop", "resolution", "align"])]
    recipe: Option<Recipe>,

    /// CelebA for --recipe celebahq: a folder with `img_celeba/` and `Anno/list_landmarks_celeba.txt`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "transform", "filter", "channels"])]
    celeba: Option<PathBuf>,

    /// The deltas of CelebA-HQ: a folder with `image_list.txt` and `delta*.zip`. Images whose MD5 is wrong are skipped.
    #[arg(long, value_name = "DIR", requires = "celeba")]
    deltas: Option<PathBuf>,

    /// Make CelebA-HQ without its deltas: all faces are aligned as it has them (or, with --deltas, those of `image_list.txt`),
    /// but no detail is added.
    #[arg(long, requires = "celeba")]
    no_deltas: bool,

    /// Turn faces upright and cut them out as CelebA-HQ has them, by a table of landmarks: a row for each image, with its
    /// name and x and y of left eye, right eye, nose, left and right corner of the mouth.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["crop", "transform", "filter"])]
    align: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Recipe {
    Celeba,
    Celebahq,
}

impl Recipes {
    /// Where the images are, and into `options` what is to be done with them.
    pub(crate) fn apply(
        self,
        source: Option<PathBuf>,
        options: &mut PrepareOptions,
    ) -> anyhow::Result<()> {
        let celeba = match (self.recipe, self.celeba) {
            (Some(Recipe::Celebahq), Some(celeba)) => Some(celeba),
            (Some(Recipe::Celebahq), None) => {
                bail!("--recipe celebahq needs --celeba DIR, CelebA itself")
            }
            (_, Some(_)) => bail!("--celeba is for --recipe celebahq"),
            (_, None) => None,
        };
        if let Some(celeba) = celeba {
            let images = first(&celeba, &["img_celeba", "Img/img_celeba"])?;
            let landmarks =
                first(&celeba, &["Anno/list_landmarks_celeba.txt", "list_landmarks_celeba.txt"])?;
            let celebahq = match (self.deltas, self.no_deltas) {
                (Some(dir), false) => CelebaHq::WithDeltas(dir),
                (Some(dir), true) => CelebaHq::Listed(dir),
                (None, true) => CelebaHq::All,
                (None, false) => bail!(
                    "--recipe celebahq needs --deltas DIR, the deltas that come with the paper; or pass --no-deltas \
                     for faces that are aligned alike and lack their detail"
                ),
            };
            options.source = images;
            options.align = Some(Align { landmarks, celebahq: Some(celebahq) });
            options.resolution = Some(CELEBAHQ_SIDE);
            options.upscale = true;
            return Ok(());
        }
        let Some(source) = source else { bail!("pass --source PATH, the images") };
        options.source = source;
        options.align = self.align.map(|landmarks| Align { landmarks, celebahq: None });
        if self.recipe.is_some() {
            options.window = Some(CELEBA_WINDOW);
            options.resolution = Some(CELEBA_WINDOW[2]);
        }
        Ok(())
    }
}

/// The first of these that is in a folder.
fn first(dir: &Path, names: &[&str]) -> anyhow::Result<PathBuf> {
    ensure!(dir.is_dir(), "{}: no such folder; --celeba takes CelebA's", dir.display());
    let found = names.iter().map(|name| dir.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        anyhow::anyhow!("{}: has no {}; --celeba takes CelebA's folder", dir.display(), names[0])
    })
}
