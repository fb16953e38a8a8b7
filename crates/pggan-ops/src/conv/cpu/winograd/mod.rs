//! 3x3 convolution in fewer products: windows of pixels are mapped to points, multiplied point by
//! point with the mapped weights, and mapped back to tiles of pixels. The change of resolution, if
//! any, is part of the maps.

mod algorithms;
mod job;
mod narrow;
mod tiling;
mod transform;
mod weight;
mod wide;

pub(super) use narrow::{Mapped, is_narrow};
pub(super) use tiling::{Tile, count};
pub(super) use weight::weight_grad;
pub(super) use wide::apply;

/// Tiles multiplied at a time: their sums stay in the second-level cache. A multiple of the
/// register block's rows.
const BLOCK: usize = 48;

/// Floats between neighbouring planes of points, so that a tile's points don't all compete for the
/// same lines of the cache.
const SKEW: usize = 80;
