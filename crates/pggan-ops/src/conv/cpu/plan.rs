//! Which algorithm serves which shape.

use super::super::Resample;
use super::Size;
use super::winograd::{self, Tile};

/// Mapping one weight costs about as much as multiplying it with this many tiles (measured; see
/// `docs/PERFORMANCE.md`).
const MAPPING: usize = 7;

/// Channels below which the large tile is not taken: the transforms are then most of the work, the
/// small tile is as fast and rounds less. Where the resolution changes the large tile rounds more.
fn narrow(resample: Resample) -> usize {
    if resample == Resample::Same { 32 } else { 33 }
}

/// How a 3x3 convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    Winograd(Tile),
}

/// Channels up to which no transform pays (measured with 8 and 16; see `docs/PERFORMANCE.md`). At most
/// a panel's width on any processor.
const FEW: usize = 16;

/// The fastest way for a shape.
pub(super) fn way(resample: Resample, size: Size, inputs: usize, outputs: usize) -> Way {
    if inputs.max(outputs) <= FEW {
        Way::Direct
    } else {
        Way::Winograd(tile(resample, size, inputs, outputs))
    }
}

/// The tile with the least work. The large one needs fewer products for each pixel, but more for
/// each tile, of which a part lies outside small images, and more for each weight, which shows when
/// there are few tiles.
fn tile(resample: Resample, size: Size, inputs: usize, outputs: usize) -> Tile {
    let work = |tile: Tile| {
        let (tiles, products) = winograd::count(tile, resample, size);
        products * (tiles + MAPPING)
    };
    let wide = inputs.min(outputs) >= narrow(resample);
    if wide && work(Tile::Large) < work(Tile::Small) { Tile::Large } else { Tile::Small }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_its_way() {
        let check = |n: usize, edge: usize, resample: Resample, expected: Tile| {
            assert_eq!(
                tile(resample, Size { n, h: edge, w: edge }, 64, 64),
                expected,
                "{n} of {edge}x{edge}, {resample:?}"
            );
        };
        check(16, 4, Resample::Same, Tile::Large);
        check(1, 4, Resample::Same, Tile::Small);
        check(1, 16, Resample::Same, Tile::Large);
        check(64, 2, Resample::Same, Tile::Small);
        check(16, 4, Resample::Up, Tile::Large);
        check(16, 8, Resample::Down, Tile::Large);
        check(16, 2, Resample::Down, Tile::Small);
        let size = Size { n: 16, h: 16, w: 16 };
        assert_eq!(way(Resample::Same, size, 16, 8), Way::Direct);
        assert_eq!(way(Resample::Down, size, 16, 17), Way::Winograd(Tile::Small));
        assert_eq!(tile(Resample::Same, size, 31, 64), Tile::Small);
        assert_eq!(tile(Resample::Same, size, 64, 32), Tile::Large);
        assert_eq!(tile(Resample::Up, size, 64, 32), Tile::Small);
    }
}
