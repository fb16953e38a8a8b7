//! Which way of computing serves which shape; from measurements, see `docs/PERFORMANCE.md`.

use super::super::Resample;
use super::direct::Size;
use super::winograd::Tile;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Direct,
    Winograd(Tile),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Weights applied to images: forward or input gradient.
    Apply,
    WeightGrad,
}

pub(super) fn choose(
    way: Way,
    taps: usize,
    inputs: usize,
    outputs: usize,
    resample: Resample,
    size: Size,
) -> Plan {
    let _ = way;
    if taps == 1 {
        return Plan::Direct;
    }
    let tiny = inputs.min(outputs) < 8;
    let edge = match resample {
        Resample::Up => 2 * size.h.min(size.w),
        _ => size.h.min(size.w),
    };
    match resample {
        Resample::Same if tiny => Plan::Direct,
        _ if edge >= 8 && !tiny => Plan::Winograd(Tile::Large),
        _ => Plan::Winograd(Tile::Small),
    }
}
