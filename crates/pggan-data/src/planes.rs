//! Pixels, as decoders and files have them, to planes, as networks have them, and back.

#![expect(
    clippy::inline_always,
    reason = "loops are compiled anew for each instruction set, see `pulp`"
)]

use pulp::{Arch, Simd, WithSimd};

/// `[…, channels]` to `[channels, …]`.
pub(crate) fn split(pixels: &[u8], channels: usize, planes: &mut [u8]) {
    match channels {
        3 => Arch::new().dispatch(Split::<3> { pixels, planes }),
        4 => Arch::new().dispatch(Split::<4> { pixels, planes }),
        _ => planes.copy_from_slice(pixels),
    }
}

struct Split<'a, const C: usize> {
    pixels: &'a [u8],
    planes: &'a mut [u8],
}

impl<const C: usize> WithSimd for Split<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { pixels, planes: mut rest } = self;
        let length = pixels.len() / C;
        let mut planes: [&mut [u8]; C] = std::array::from_fn(|_| {
            let (plane, behind) = std::mem::take(&mut rest).split_at_mut(length);
            rest = behind;
            plane
        });
        for (i, pixel) in pixels.as_chunks::<C>().0.iter().enumerate() {
            for (plane, &value) in planes.iter_mut().zip(pixel) {
                plane[i] = value;
            }
        }
    }
}

/// `[channels, …]` to `[…, channels]`, appended.
pub(crate) fn interleave(planes: &[u8], channels: usize, pixels: &mut Vec<u8>) {
    let plane = planes.len() / channels;
    let start = pixels.len();
    pixels.resize(start + planes.len(), 0);
    for (channel, plane) in planes.chunks_exact(plane.max(1)).enumerate() {
        for (pixel, &value) in pixels[start..].chunks_exact_mut(channels).zip(plane) {
            pixel[channel] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for channels in [1, 3, 4] {
            let pixels: Vec<u8> = (0..channels as u8 * 15).collect();
            let mut planes = vec![0; pixels.len()];
            split(&pixels, channels, &mut planes);
            let first: Vec<u8> = pixels.iter().copied().step_by(channels).collect();
            assert_eq!(planes[..15], first);
            let mut back = vec![7];
            interleave(&planes, channels, &mut back);
            assert_eq!(back[1..], pixels);
        }
    }
}
