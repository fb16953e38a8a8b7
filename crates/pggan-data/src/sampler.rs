//! Which image comes when: shuffling without state.
//!
//! A *position* counts images drawn since training began. Position `p` of a run shows image
//! `index(p)`: the epochs follow each other, `images` positions each, and each is a permutation of all
//! images that depends on the seed and the epoch alone. So a resumed run draws what an uninterrupted one
//! would have, and ranks that draw from different positions share an epoch without talking.

/// The order of the images of a data set under one seed.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    seed: u64,
    images: u64,
}

impl Sampler {
    /// The order of `images` images (at least one) under `seed`.
    pub fn new(seed: u64, images: u64) -> Self {
        Self { seed, images: images.max(1) }
    }

    /// The image at a position.
    pub fn index(&self, position: u64) -> u64 {
        let keys = round_keys(self.seed, position / self.images);
        // The network permutes a power of four that is at most four times `images` (or 4). Walking along
        // the cycle until it comes back below `images` gives a permutation of exactly those.
        let half_bits = (u64::BITS - (self.images - 1).leading_zeros()).div_ceil(2).max(1);
        let mut index = position % self.images;
        loop {
            index = permute(index, half_bits, &keys);
            if index < self.images {
                return index;
            }
        }
    }
}

/// The image at a position where all classes come equally often: of every `classes.len()` positions each class
/// has one, and the images of a class follow each other as those of a data set of their own.
///
/// `classes` are the images of each class; none is empty.
pub fn balanced_index(seed: u64, classes: &[Vec<u64>], position: u64) -> u64 {
    let count = classes.len() as u64;
    let class = Sampler::new(mix(seed ^ 0x0C1A_55E5), count).index(position);
    let images = &classes[class as usize];
    let within = Sampler::new(mix(seed.wrapping_add(class + 1)), images.len() as u64);
    images[within.index(position / count) as usize]
}

/// Whether the image at a position is mirrored: half of them are.
pub fn mirror(seed: u64, position: u64) -> bool {
    keyed("pggan-data mirror", seed, position).as_bytes()[0] & 1 == 1
}

/// Rounds of the Feistel network. Four make it hard to tell from chance for large halves; ours may have
/// but one bit, so it has more.
const ROUNDS: usize = 12;

/// A balanced Feistel network on `2 · half_bits` bits: a permutation, whatever the keys.
fn permute(value: u64, half_bits: u32, keys: &[u64; ROUNDS]) -> u64 {
    let mask = (1 << half_bits) - 1;
    let (mut left, mut right) = (value >> half_bits, value & mask);
    for key in keys {
        (left, right) = (right, left ^ (mix(right ^ key) >> 32 & mask));
    }
    left << half_bits | right
}

/// The finalizer of `SplitMix64`: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn round_keys(seed: u64, epoch: u64) -> [u64; ROUNDS] {
    let hash = keyed("pggan-data shuffle", seed, epoch);
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    // Twelve keys from 256 random bits: a word each, told apart by the round.
    std::array::from_fn(
        |round| mix(u64::from_le_bytes(words[round % 4]).wrapping_add(round as u64)),
    )
}

/// 256 random bits for a purpose, a seed and a number.
fn keyed(purpose: &str, seed: u64, number: u64) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose.as_bytes()).update(&seed.to_le_bytes()).update(&number.to_le_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_image_exactly_once_an_epoch(seed: u64, images in 1..3000_u64, epoch in 0..1_u64 << 40) {
            let sampler = Sampler::new(seed, images);
            let mut seen: Vec<_> = (0..images).map(|i| sampler.index(epoch * images + i)).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..images));
        }
    }

    /// Over many epochs each image comes at each place equally often, for sets so small that a weak
    /// network would show.
    #[test]
    fn no_place_is_preferred() {
        for images in [2, 3, 5, 10, 17] {
            let epochs = 20_000;
            let sampler = Sampler::new(5, images);
            let mut counts = vec![0_u32; (images * images) as usize];
            for position in 0..epochs * images {
                counts[(position % images * images + sampler.index(position)) as usize] += 1;
            }
            let expected = epochs as f64 / images as f64;
            let chi2: f64 = counts.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
            let freedom = ((images - 1) * (images - 1)) as f64;
            assert!(chi2 < freedom + 5.0 * (2.0 * freedom).sqrt() + 5.0, "{images} images: {chi2}");
        }
    }

    #[test]
    fn neighbours_are_scattered() {
        let images = 10_000;
        let sampler = Sampler::new(1, images);
        let order: Vec<_> = (0..images).map(|i| sampler.index(i)).collect();
        let steps: f64 = order.windows(2).map(|w| w[0].abs_diff(w[1]) as f64).sum();
        let mean = steps / (images - 1) as f64 / images as f64;
        assert!((mean - 1.0 / 3.0).abs() < 0.02, "mean distance of two draws is a third: {mean}");
        let other = Sampler::new(2, images);
        let equal = (0..images).filter(|&i| other.index(i) == order[i as usize]).count();
        assert!(equal < 10, "another seed, another order");
        let next = (0..images).filter(|&i| sampler.index(images + i) == order[i as usize]).count();
        assert!(next < 10, "another epoch, another order");
    }

    /// These numbers are part of every run's reproducibility: a change of them needs a changelog entry.
    #[test]
    fn golden() {
        let order = |images| (0..8).map(|i| Sampler::new(7, images).index(i)).collect::<Vec<_>>();
        assert_eq!(order(8), [6, 4, 3, 2, 0, 5, 1, 7]);
        assert_eq!(order(1000), [388, 246, 682, 639, 696, 741, 294, 895]);
        let mirrors: Vec<_> = (0..16).map(|i| u8::from(mirror(7, i))).collect();
        assert_eq!(mirrors, [1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn balanced_classes_come_equally_often() {
        let classes = [vec![0, 1, 2, 3, 4, 5, 6], vec![10], vec![20, 21, 22]];
        let mut counts = std::collections::BTreeMap::new();
        for round in 0..700_u64 {
            let drawn: Vec<u64> =
                (0..3).map(|i| balanced_index(9, &classes, 3 * round + i)).collect();
            let of = |class: &[u64]| drawn.iter().filter(|index| class.contains(index)).count();
            assert!(classes.iter().all(|class| of(class) == 1), "{drawn:?}");
            for index in drawn {
                *counts.entry(index).or_insert(0) += 1;
            }
        }
        // 700 rounds are 100 epochs of the first class, and 233 and a third of the last.
        assert!((0..7).all(|index| counts[&index] == 100) && counts[&10] == 700, "{counts:?}");
        assert!((20..23).all(|index| (233..=234).contains(&counts[&index])), "{counts:?}");
    }

    #[test]
    fn half_are_mirrored() {
        let mirrored = (0..10_000).filter(|&position| mirror(3, position)).count();
        assert!((4800..5200).contains(&mirrored), "{mirrored}");
    }
}
