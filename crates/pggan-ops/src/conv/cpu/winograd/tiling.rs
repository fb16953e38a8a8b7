//! What the matrices of an algorithm mean for images: windows, tiles, points, and who is multiplied
//! with whom.

use super::super::super::Resample;
use super::super::Size;

/// Edge of the tile of outputs (of the higher resolution, where two are involved).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Tile {
    /// 2x2, exact to rounding.
    Small,
    /// 4x4, with fewer products and somewhat less exact.
    Large,
}

/// One algorithm: its numbers in one dimension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) tile: Tile,
    pub(super) resample: Resample,
    /// Edge of the window of inputs. Windows start one pixel before their tile and overlap by two.
    pub(super) window: usize,
    /// Values made of a window.
    pub(super) points: usize,
    /// Sums that make a tile.
    pub(super) sums: usize,
    /// Edge of the tile of outputs.
    pub(super) outputs: usize,
    /// The point and the sum of each product.
    pub(super) products: &'static [(usize, usize)],
}

impl Form {
    pub(super) fn new(tile: Tile, resample: Resample) -> Self {
        let (window, points, sums, outputs, products): (_, _, _, _, &[_]) = match (tile, resample) {
            (Tile::Large, Resample::Same) => {
                (6, 6, 6, 4, &[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)])
            }
            (Tile::Large, Resample::Up) => (4, 4, 5, 4, &[(0, 0), (1, 1), (2, 2), (2, 3), (3, 4)]),
            (Tile::Large, Resample::Down) => {
                (6, 5, 4, 2, &[(0, 0), (1, 1), (2, 2), (3, 2), (4, 3)])
            }
            (Tile::Small, Resample::Same) => (4, 4, 4, 2, &[(0, 0), (1, 1), (2, 2), (3, 3)]),
            (Tile::Small, Resample::Up) => (3, 3, 3, 2, &[(0, 0), (1, 1), (2, 2)]),
            (Tile::Small, Resample::Down) => (4, 3, 1, 1, &[(0, 0), (1, 0), (2, 0)]),
        };
        Self { tile, resample, window, points, sums, outputs, products }
    }

    /// Pixels from one window to the next.
    pub(super) fn step(self) -> usize {
        self.window - 2
    }

    /// All products in two dimensions, sorted by the sum that they go to.
    pub(super) fn pairs(self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (i, &(point_y, sum_y)) in self.products.iter().enumerate() {
            for (j, &(point_x, sum_x)) in self.products.iter().enumerate() {
                pairs.push(Pair {
                    point: point_y * self.points + point_x,
                    filter: i * self.products.len() + j,
                    sum: sum_y * self.sums + sum_x,
                    add: false,
                });
            }
        }
        pairs.sort_by_key(|pair| (pair.sum, pair.filter));
        for i in 1..pairs.len() {
            pairs[i].add = pairs[i].sum == pairs[i - 1].sum;
        }
        pairs
    }
}

/// A product in two dimensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) point: usize,
    pub(super) filter: usize,
    pub(super) sum: usize,
    /// Whether an earlier product goes to the same sum.
    pub(super) add: bool,
}

/// The tiles of a batch of images, counted in rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub(super) form: Form,
    pub(super) input: Size,
    pub(super) output: Size,
    /// Tiles in one image's column and row.
    pub(super) down: usize,
    pub(super) across: usize,
}

impl Tiling {
    pub(super) fn new(form: Form, input: Size) -> Self {
        let output = input.after(form.resample);
        let (down, across) = (output.h.div_ceil(form.outputs), output.w.div_ceil(form.outputs));
        Self { form, input, output, down, across }
    }

    /// Rows of tiles in all images.
    pub(super) fn rows(self) -> usize {
        self.input.n * self.down
    }

    pub(super) fn tiles(self) -> usize {
        self.rows() * self.across
    }

    /// The first output pixel of a row of tiles. Rows of tiles follow one another in memory, also
    /// from image to image.
    pub(super) fn first_pixel(self, row: usize) -> usize {
        (row / self.down * self.output.h + row % self.down * self.form.outputs) * self.output.w
    }

    /// Image, row and column of a tile.
    pub(super) fn place(self, tile: usize) -> (usize, usize, usize) {
        let row = tile / self.across;
        (row / self.down, row % self.down, tile % self.across)
    }
}

/// Tiles, and products for each pair of channels in a tile.
pub(in super::super) fn count(tile: Tile, resample: Resample, size: Size) -> (usize, usize) {
    let tiling = Tiling::new(Form::new(tile, resample), size);
    (tiling.tiles(), tiling.form.products.len().pow(2))
}
