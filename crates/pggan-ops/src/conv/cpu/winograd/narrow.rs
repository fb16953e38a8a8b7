//! Layers of few channels: all their weights are mapped once, and shared by tasks that each keep their
//! own points in the cache.

use std::fmt;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::super::super::Resample;
use super::super::Size;
use super::super::filters::{Filters, Panels};
use super::super::finish::Finish;
use super::super::scratch::Scratch;
use super::job::{Job, Mapping, Outputs, Points, Products, Weights, blocks};
use super::tiling::{Form, Tile};
use super::{BLOCK, SKEW};
use crate::cells::{Cell, Matrix};

/// Input times output channels up to which this is the way.
const NARROW: usize = 128 * 128;
/// Tiles of one task at most.
const GROUP: usize = 4 * BLOCK;
/// Tasks that are wanted, for machines of many cores.
const TASKS: usize = 8;
/// Input channels that one task maps.
const MAPPED: usize = 16;

/// Whether a layer has few channels in this sense.
pub(in super::super) fn is_narrow(inputs: usize, outputs: usize) -> bool {
    inputs * outputs <= NARROW
}

/// Weights in the domain of a tile: they serve until the weights change.
pub(in super::super) struct Mapped {
    panels: Panels,
    tile: Tile,
    resample: Resample,
    /// A row for each product of each panel, `[input channel][column]`.
    data: Vec<f32>,
    /// Columns of the widest panel.
    widest: usize,
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { panels: Panels { inputs, outputs, .. }, tile, resample, .. } = self;
        write!(f, "Mapped({resample:?}, {tile:?} tiles, {inputs} -> {outputs})")
    }
}

impl Mapped {
    pub(in super::super) fn new(filters: &Filters, tile: Tile, resample: Resample) -> Self {
        let (panels, form) = (filters.panels, Form::new(tile, resample));
        let widest = panels.widths.padded(panels.outputs.clamp(1, panels.widths.panel));
        let products = form.products.len().pow(2);
        let mut mapped = Self { panels, tile, resample, data: Vec::new(), widest };
        let bounds: Vec<usize> = (0..=panels.count()).map(|panel| panel * products).collect();
        let mut data = Matrix::new(panels.count() * products, mapped.row_len());
        data.append(&bounds, MAPPED * widest, |panel, columns, cell| {
            let inputs = columns.start / widest..(columns.end / widest).min(panels.inputs);
            let mapping = Mapping { filters, form, panel, channels: inputs, row: widest, cell };
            Arch::new().dispatch(mapping);
        });
        mapped.data = data.into_vec();
        mapped
    }

    /// Whether they are what this tile wants.
    pub(in super::super) fn are_for(&self, tile: Tile) -> bool {
        self.tile == tile
    }

    pub(in super::super) fn panels(&self) -> Panels {
        self.panels
    }

    /// Rows of a power of two would crowd the cache.
    fn row_len(&self) -> usize {
        self.panels.inputs * self.widest + SKEW
    }

    fn of_panel(&self, panel: usize) -> Weights<'_> {
        let products = Form::new(self.tile, self.resample).products.len().pow(2);
        let product = self.row_len();
        Weights { data: &self.data[panel * products * product..], product, row: self.widest }
    }

    /// `[n, h, w, inputs]` to `[n, h', w', outputs]`.
    pub(in super::super) fn apply(&self, x: &[f32], size: Size, finish: Finish<'_>) -> Vec<f32> {
        let Panels { inputs, outputs, .. } = self.panels;
        let zeros = vec![0.0; inputs];
        let job = Job::new((self.tile, self.resample), self.panels, x, size, &zeros);
        let tiling = job.tiling;
        let tasks = TASKS.min(tiling.tiles() / (BLOCK / 2));
        // An even number, so that two threads share them evenly.
        let groups = tiling.tiles().div_ceil(GROUP).max(tasks).next_multiple_of(2);
        let rows = tiling.rows().div_ceil(groups);
        let starts: Vec<usize> = (0..tiling.rows()).step_by(rows).chain([tiling.rows()]).collect();
        let bounds: Vec<usize> = starts.iter().map(|row| tiling.first_pixel(*row)).collect();
        let mut y = Matrix::new(tiling.output.pixels(), outputs);
        y.append(&bounds, outputs, |group, columns, mut cell| {
            Arch::new().dispatch(Task {
                job: &job,
                mapped: self,
                tiles: starts[group] * tiling.across..starts[group + 1] * tiling.across,
                origin: bounds[group],
                cell: cell.reborrow(),
            });
            finish.cell(bounds[group], columns, cell);
        });
        y.into_vec()
    }
}

/// Some tiles' outputs.
struct Task<'a> {
    job: &'a Job<'a>,
    mapped: &'a Mapped,
    tiles: Range<usize>,
    /// The output pixel in the cell's first row.
    origin: usize,
    cell: Cell<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Self { job, mapped, .. } = self;
        let mut points = Scratch::new(job.points_len(BLOCK));
        let mut sums = Scratch::new(job.sums_stride_and_len().1);
        for tiles in blocks(self.tiles) {
            let cell = job.block(&mut points);
            simd.vectorize(Points { job, tiles: tiles.clone(), cell });
            for panel in 0..job.panels.count() {
                let products = Products {
                    job,
                    pairs: &job.pairs,
                    panel,
                    channels: 0..job.panels.inputs,
                    tiles: tiles.len(),
                    points: &points,
                    weights: mapped.of_panel(panel),
                    sums: &mut sums,
                };
                products.make(simd);
                simd.vectorize(Outputs {
                    job,
                    panel,
                    tiles: tiles.clone(),
                    sums: &sums,
                    origin: (self.origin, 0),
                    cell: &mut self.cell,
                });
            }
        }
    }
}
