//! Which tile serves which shape.

use super::super::Resample;
use super::Size;
use super::winograd::{self, Tile};

/// Mapping one weight costs about as much as multiplying it with this many tiles (measured; see
/// `docs/PERFORMANCE.md`).
const MAPPING: usize = 7;

/// The tile with the least work. The large one needs fewer products for each pixel, but more for
/// each tile, of which a part lies outside small images, and more for each weight, which shows when
/// there are few tiles.
pub(super) fn tile(resample: Resample, size: Size) -> Tile {
    let work = |tile: Tile| {
        let (tiles, products) = winograd::count(tile, resample, size);
        products * (tiles + MAPPING)
    };
    if work(Tile::Large) < work(Tile::Small) { Tile::Large } else { Tile::Small }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tiles_serve_all_but_few_pixels() {
        let check = |n: usize, edge: usize, resample: Resample, expected: Tile| {
            assert_eq!(
                tile(resample, Size { n, h: edge, w: edge }),
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
    }
}
