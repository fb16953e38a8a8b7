//! The inverse transform of a block of 8x8 coefficients to 8 or 16 samples each way, in whole numbers: columns first,
//! kept with 2 bits behind the point, then rows. The constants have 13 bits behind the point.
//!
//! 8 points are Loeffler, Ligtenberg and Moschytz's algorithm with 12 products, as in every libjpeg; 16 points are
//! libjpeg 7's of 28 products. The sums are exact; only which constants are rounded decides the bits.

use super::{Block, Quantization};

/// 13 bits behind the point.
const fn fix(x: f64) -> i64 {
    (x * 8192.0 + 0.5) as i64
}

/// Which sides are doubled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transform {
    pub(super) wide: bool,
    pub(super) high: bool,
}

impl Transform {
    /// Samples across and down.
    pub(super) fn size(self) -> (usize, usize) {
        (if self.wide { 16 } else { 8 }, if self.high { 16 } else { 8 })
    }

    /// Writes the samples of a block to rows of `stride`.
    pub(super) fn apply(self, block: &Block, table: &Quantization, to: &mut [u8], stride: usize) {
        let (width, height) = self.size();
        let mut columns = [[0; 8]; 16];
        for x in 0..8 {
            let column: [i64; 8] =
                std::array::from_fn(|y| block[8 * y + x] as i64 * table[8 * y + x] as i64);
            // A column of its mean alone, as most are, stays that.
            if column[1..] == [0; 7] {
                columns[..height].iter_mut().for_each(|row| row[x] = column[0] << 2);
                continue;
            }
            let samples = points(&column, 1 << 10, self.high);
            for (row, sample) in columns.iter_mut().zip(samples).take(height) {
                // An `int` in libjpeg.
                row[x] = (sample >> 11) as i32 as i64;
            }
        }
        for (y, row) in columns.iter().enumerate().take(height) {
            let samples = points(row, 16 << 13, self.wide);
            for (to, sample) in to[y * stride..][..width].iter_mut().zip(samples) {
                *to = limit(sample >> 18);
            }
        }
    }
}

/// From -128…127 to 0…255. What is far outside, which only damage makes, comes round as in libjpeg.
fn limit(sample: i64) -> u8 {
    match (sample & 1023) as u16 {
        index @ 0..128 => index as u8 + 128,
        128..512 => 255,
        512..896 => 0,
        index => (index - 896) as u8,
    }
}

/// 8 or 16 points, with what rounds them added in.
fn points(x: &[i64; 8], round: i64, doubled: bool) -> [i64; 16] {
    if doubled { sixteen(x, round) } else { eight(x, round) }
}

fn eight(x: &[i64; 8], round: i64) -> [i64; 16] {
    let turned = (x[2] + x[6]) * fix(0.541_196_1);
    let even = [turned + x[2] * fix(0.765_366_865), turned - x[6] * fix(1.847_759_065)];
    let (sum, difference) = (((x[0] + x[4]) << 13) + round, ((x[0] - x[4]) << 13) + round);
    let tops = [sum + even[0], difference + even[1], difference - even[1], sum - even[0]];

    let (a, b) = (x[7] + x[3], x[5] + x[1]);
    let both = (a + b) * fix(1.175_875_602);
    let (a, b) = (both - a * fix(1.961_570_56), both - b * fix(0.390_180_644));
    let outer = (x[7] + x[1]) * -fix(0.899_976_223);
    let inner = (x[5] + x[3]) * -fix(2.562_915_447);
    let odd = [
        x[1] * fix(1.501_321_11) + outer + b,
        x[3] * fix(3.072_711_026) + inner + a,
        x[5] * fix(2.053_119_869) + inner + b,
        x[7] * fix(0.298_631_336) + outer + a,
    ];
    let mut out = [0; 16];
    for i in 0..4 {
        (out[i], out[7 - i]) = (tops[i] + odd[i], tops[i] - odd[i]);
    }
    out
}

fn sixteen(x: &[i64; 8], round: i64) -> [i64; 16] {
    let middle = (x[0] << 13) + round;
    let (far, near) = (x[4] * fix(1.306_562_965), x[4] * fix(0.541_196_1));
    let tops = [middle + far, middle + near, middle - near, middle - far];
    let difference = x[2] - x[6];
    let (low, high) = (difference * fix(0.275_899_379), difference * fix(1.387_039_845));
    let sides = [
        high + x[6] * fix(2.562_915_447),
        low + x[2] * fix(0.899_976_223),
        high - x[2] * fix(0.601_344_887),
        low - x[6] * fix(0.509_795_579),
    ];

    let [z1, z2, z3, z4] = [x[1], x[3], x[5], x[7]];
    let c3 = (z1 + z2) * fix(1.353_318_001);
    let c5 = (z1 + z3) * fix(1.247_225_013);
    let c7 = (z1 + z4) * fix(1.093_201_867);
    let c9 = (z1 - z4) * fix(0.897_167_586);
    let c11 = (z1 + z3) * fix(0.666_655_658);
    let c13 = (z1 - z2) * fix(0.410_524_528);
    let c15 = (z2 + z3) * fix(0.138_617_169);
    let c1 = (z3 - z2) * fix(1.407_403_738);
    let minus_c11 = (z2 + z4) * -fix(0.666_655_658);
    let minus_c5 = (z2 + z4) * -fix(1.247_225_013);
    let minus_c3 = (z3 + z4) * -fix(1.353_318_001);
    let plus_c13 = (z4 - z3) * fix(0.410_524_528);
    let odd = [
        c3 + c5 + c7 - z1 * fix(2.286_341_144),
        c3 + c15 + z2 * fix(0.071_888_074) + minus_c11,
        c5 + c15 - z3 * fix(1.125_726_048) + minus_c3,
        c7 + minus_c11 + z4 * fix(1.065_388_962) + minus_c3,
        c9 + minus_c5 + z4 * fix(3.141_271_809) + plus_c13,
        c11 + c1 - z3 * fix(0.766_367_282) + plus_c13,
        c13 + c1 + z2 * fix(1.971_951_411) + minus_c5,
        c9 + c11 + c13 - z1 * fix(1.835_730_603),
    ];
    let mut out = [0; 16];
    for i in 0..8 {
        let even = if i < 4 { tops[i] + sides[i] } else { tops[7 - i] - sides[7 - i] };
        (out[i], out[15 - i]) = (even + odd[i], even - odd[i]);
    }
    out
}
