//! The first pass over a source: dimensions from headers, to choose or check the resolution.

use crate::faces::Faces;
use crate::source::Source;
use crate::store::manifest::{Bad, Crop};
use crate::transform::inside;
use crate::{Error, MAX_RESOLUTION, MIN_LEVEL, PrepareOptions, Result, decode, parallel};

/// Read of each file at first. It holds the header of most; the rest are read whole.
const BEGINNING: u64 = 16 << 10;
/// The share of the images that must reach the resolution without being enlarged, in percent.
const MUST_REACH: u64 = 95;
/// The highest level chosen without being asked for: the paper's largest.
const MAX_AUTOMATIC_LEVEL: u32 = 10;

/// What the headers say.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Entries with a readable header, and the resolution that they reach without being enlarged.
    pub(crate) good: Vec<(usize, u32)>,
    /// The other entries.
    pub(crate) bad: Vec<Bad>,
}

impl Survey {
    /// Reads the headers of all entries, or of as many as give `max_images` good ones. With `strict` the
    /// first bad file is an error.
    pub(crate) fn take(
        source: &Source,
        options: &PrepareOptions,
        faces: Option<&Faces>,
        mut progress: impl FnMut(u64),
    ) -> Result<Self> {
        let &PrepareOptions { threads, max_images, strict, crop, window, .. } = options;
        let slice = options.slice(source.entries().len());
        let mut survey = Self::default();
        let wanted = max_images.map_or(usize::MAX, |max| max as usize);
        let slots = vec![Ok((0, 0)); 16 * threads];
        let slice_begin = slice.start;
        let worker = || {
            let mut reader = source.reader()?;
            let mut bytes = Vec::new();
            Ok(move |index: usize, slot: &mut Result<(u32, u32), String>| {
                let index = slice_begin + index;
                *slot = reader.read(index, BEGINNING, &mut bytes).and_then(|form| {
                    match decode::dimensions(form, &bytes) {
                        Err(_) if bytes.len() as u64 == BEGINNING => reader
                            .read(index, u64::MAX, &mut bytes)
                            .and_then(|form| decode::dimensions(form, &bytes)),
                        result => result,
                    }
                });
            })
        };
        let walked = parallel::ordered(threads, slice.len(), slots, worker, |index, slot| {
            let entry = slice_begin + index;
            let reach = std::mem::replace(slot, Ok((0, 0))).and_then(|(width, height)| {
                match (faces, window) {
                    (Some(faces), _) => faces.reach(entry),
                    (None, None) => Ok(crop.reach(width, height)),
                    (None, Some(window)) => {
                        inside(window, width, height).map(|_| crop.reach(window[2], window[2]))
                    }
                }
            });
            match reach {
                Ok(reach) => survey.good.push((entry, reach)),
                Err(reason) => survey.bad.push(Bad::found(source, entry, reason, strict)?),
            }
            progress(index as u64 + 1);
            if survey.good.len() < wanted { Ok(()) } else { Err(Stop::Enough) }
        });
        match walked {
            Ok(()) | Err(Stop::Enough) => Ok(survey),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// How many images are smaller than `side` pixels.
    pub(crate) fn smaller_than(&self, side: u32) -> u64 {
        self.good.iter().filter(|(_, short)| *short < side).count() as u64
    }

    /// The level to prepare: that of the resolution asked for, else the highest that at least 95% of the
    /// images reach without being enlarged (1024x1024 at most), or what the first has if none is resized.
    pub(crate) fn level(&self, options: &PrepareOptions) -> Result<u32> {
        if options.crop == Crop::None {
            let resolution = options.resolution.unwrap_or(self.good[0].1);
            return check_resolution(resolution).map(|()| resolution.trailing_zeros());
        }
        self.level_of_most(options.resolution, options.upscale)
    }

    fn level_of_most(&self, asked: Option<u32>, upscale: bool) -> Result<u32> {
        let images = self.good.len() as u64;
        let reached =
            |level: u32| (images - self.smaller_than(1 << level)) * 100 >= images * MUST_REACH;
        let fits = |highest: u32| (MIN_LEVEL..=highest).rev().find(|&level| reached(level));
        match asked {
            Some(resolution) => {
                let level = resolution.trailing_zeros();
                if !upscale && !reached(level) {
                    let smaller = self.smaller_than(resolution);
                    let fits = 1 << fits(level).unwrap_or(MIN_LEVEL);
                    return Err(Error::ResolutionAboveData { resolution, smaller, images, fits });
                }
                Ok(level)
            }
            // Not even 4x4: then every image is enlarged a little.
            None => Ok(fits(MAX_AUTOMATIC_LEVEL).unwrap_or(MIN_LEVEL)),
        }
    }
}

enum Stop {
    Enough,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Refuses what is no power of two in range.
pub(crate) fn check_resolution(given: u32) -> Result<()> {
    if given.is_power_of_two() && (1 << MIN_LEVEL..=MAX_RESOLUTION).contains(&given) {
        return Ok(());
    }
    let clamped = given.clamp(1 << MIN_LEVEL, MAX_RESOLUTION);
    let (lower, upper) = (1 << clamped.ilog2(), clamped.next_power_of_two());
    let nearest = if clamped - lower <= upper - clamped { lower } else { upper };
    Err(Error::Resolution { given, nearest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(sides: &[(u32, usize)]) -> Survey {
        let good =
            sides.iter().flat_map(|&(side, n)| std::iter::repeat_n(side, n)).enumerate().collect();
        Survey { good, bad: Vec::new() }
    }

    #[test]
    fn the_resolution_is_what_nearly_all_images_reach() {
        for (survey, level) in [
            (sides(&[(64, 100)]), 6),
            (sides(&[(63, 100)]), 5),
            (sides(&[(200, 95), (20, 5)]), 7),
            (sides(&[(200, 94), (20, 6)]), 4),
            (sides(&[(5000, 2)]), 10),
            (sides(&[(3, 2)]), 2),
        ] {
            assert_eq!(
                survey.level_of_most(None, false).unwrap(),
                level,
                "{:?}",
                &survey.good[..2]
            );
        }
    }

    #[test]
    fn a_resolution_above_the_data_says_what_fits() {
        let survey = sides(&[(200, 94), (20, 6)]);
        assert_eq!(survey.level_of_most(Some(16), false).unwrap(), 4);
        assert_eq!(survey.level_of_most(Some(256), true).unwrap(), 8);
        let message = survey.level_of_most(Some(64), false).unwrap_err().to_string();
        assert!(
            message.contains("6 of 100 images are smaller; pass --resolution 16,"),
            "{message}"
        );
    }

    #[test]
    fn resolutions() {
        for good in [4, 8, 1024, 8192] {
            assert!(check_resolution(good).is_ok());
        }
        for (bad, nearest) in
            [(0, 4), (2, 4), (5, 4), (96, 64), (97, 128), (100, 128), (u32::MAX, 8192)]
        {
            let Err(Error::Resolution { nearest: found, .. }) = check_resolution(bad) else {
                panic!("{bad} was taken");
            };
            assert_eq!(found, nearest, "{bad}");
        }
    }
}
