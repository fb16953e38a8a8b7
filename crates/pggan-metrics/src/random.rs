//! Keyed random streams: what is drawn depends on what it is for, never on what was drawn before it.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// What the numbers are for. A purpose has a stream of its own for each `index`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Patch centres of an image of one set (0 or 1) at a level.
    Positions { set: u8, resolution: usize },
    /// Directions to project on at a level.
    Directions { resolution: usize },
    /// Rows of a kernel distance's subsets.
    Subsets,
}

/// The stream of `(seed, purpose, index)`.
pub(crate) fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let tag: [u64; 2] = match purpose {
        Purpose::Positions { set, resolution } => [1 + (u64::from(set) << 8), resolution as u64],
        Purpose::Directions { resolution } => [2, resolution as u64],
        Purpose::Subsets => [3, 0],
    };
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, tag[0], tag[1], index]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
