//! The pictures of a run: real images once, and at every tick what the generator makes of the same latent vectors and
//! labels, so that one can watch them change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use pggan_data::sampler::Sampler;
use pggan_data::{Labels, Store};
use pggan_model::{Generator, Growth};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::config::Config;
use crate::{Result, iteration, random, samples};

/// What a picture's rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Whatever comes first.
    #[default]
    Random,
    /// The images of one class in each row, from the first class down, and again where there are more rows.
    RowPerClass,
}

/// What stands where.
#[derive(Debug)]
pub struct Pictures {
    columns: usize,
    /// The real image of each cell; none where the data have no image of the row's class.
    reals: Vec<Option<u64>>,
    /// What the generator is given for each cell.
    latents: Tensor,
    labels: Option<Tensor>,
}

impl Pictures {
    /// The pictures of a run.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(config: &Config, store: &Store, device: &Device) -> Result<Self> {
        let (columns, rows) = config.run.grid.size(config.model.resolution);
        let (seed, count, classes) = (config.run.seed, columns * rows, config.model.label_size);
        let order = Sampler::new(seed, store.images());
        let in_order = (0..store.images()).map(|position| order.index(position));
        let table = store.labels().filter(|_| classes > 0);
        let reals = match (config.run.grid_layout, table) {
            (Layout::RowPerClass, Some(table)) => {
                of_classes(table, in_order, classes, columns, rows)
            }
            _ => in_order.map(Some).cycle().take(count).collect(),
        };
        let labels = table.map(|table| {
            let mut values = Vec::with_capacity(count * classes);
            for (i, real) in reals.iter().enumerate() {
                let class = i / columns % classes;
                let none = || iteration::one_hot(class, classes);
                let row = real.map_or_else(none, |index| iteration::label(table, index, classes));
                values.extend(row);
            }
            Tensor::from_vec(values, (count, classes), device)
        });
        let (purpose, size) = ("latents of the grid", config.model.latent_size());
        let latents = random::latents(seed, purpose, 0, count, size, device)?;
        Ok(Self { columns, reals, latents, labels: labels.transpose()? })
    }

    /// Writes what the generator makes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_fakes(
        &self,
        path: PathBuf,
        config: &Config,
        g: &Generator,
        growth: Growth,
    ) -> Result<PathBuf> {
        let images = samples::generate(g, &self.latents, self.labels.as_ref(), growth)?;
        self.write(&path, config, &images, growth.resolution())?;
        Ok(path)
    }

    /// Writes real images at the final resolution, each at most once unless rows are classes.
    ///
    /// # Errors
    /// If the data cannot be read or the file not be written.
    pub fn write_reals(&self, path: &Path, config: &Config, store: &Arc<Store>) -> Result<()> {
        let level = config.model.max_level();
        let blank = vec![255u8; config.model.channels << (2 * level)];
        let count = match config.run.grid_layout {
            Layout::Random => self.reals.len().min(store.images() as usize),
            Layout::RowPerClass => self.reals.len(),
        };
        let mut images = Vec::with_capacity(count);
        for real in &self.reals[..count] {
            images.push(match real {
                Some(index) => store.image(level, *index)?.to_vec(),
                None => blank.clone(),
            });
        }
        self.write(path, config, &images, config.model.resolution)
    }

    /// Small images are enlarged to the final resolution, as the official code does.
    fn write(
        &self,
        path: &Path,
        config: &Config,
        images: &[Vec<u8>],
        resolution: usize,
    ) -> Result<()> {
        let zoom = config.model.resolution / resolution;
        let channels = config.model.channels;
        samples::write_grid(path, images, self.columns, channels, resolution, zoom)?;
        info!("wrote {}", path.display());
        Ok(())
    }
}

/// The images of each row's class, in the order given, and again from the first where there are too few.
fn of_classes(
    table: &Labels,
    order: impl Iterator<Item = u64>,
    classes: usize,
    columns: usize,
    rows: usize,
) -> Vec<Option<u64>> {
    // A class that several rows show needs so many images.
    let wanted = columns * rows.div_ceil(classes);
    let mut found = vec![Vec::new(); classes];
    let mut full = 0;
    for index in order {
        for (class, value) in iteration::label(table, index, classes).into_iter().enumerate() {
            if value != 0.0 && found[class].len() < wanted {
                found[class].push(index);
                full += usize::from(found[class].len() == wanted);
            }
        }
        if full == classes {
            break;
        }
    }
    let cell = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let images: &Vec<u64> = &found[row % classes];
        (!images.is_empty()).then(|| images[(row / classes * columns + column) % images.len()])
    };
    (0..columns * rows).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_classes() {
        // Seven images of four classes, of which the third has none.
        let table = Labels::Classes { count: 4, of: vec![0, 1, 1, 0, 3, 1, 0] };
        let cells = of_classes(&table, [6, 5, 4, 3, 2, 1, 0].into_iter(), 4, 2, 6);
        let expected = [
            [Some(6), Some(3)],
            [Some(5), Some(2)],
            [None, None],
            [Some(4), Some(4)],
            // The first two classes again, with what they have left.
            [Some(0), Some(6)],
            [Some(1), Some(5)],
        ];
        assert_eq!(cells, expected.concat());
    }

    #[test]
    fn labels_may_be_fewer_than_the_datas() {
        let table = Labels::Classes { count: 4, of: vec![0, 3, 1] };
        let cells = of_classes(&table, 0..3, 2, 1, 2);
        assert_eq!(cells, [Some(0), Some(2)]);
        assert_eq!(iteration::label(&table, 1, 2), [0.0, 0.0]);
    }
}
