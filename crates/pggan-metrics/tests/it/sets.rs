//! Sets of images that cannot be measured: each is told why, in one line.

use std::borrow::Cow;

use pggan_metrics::ms_ssim::ms_ssim;
use pggan_metrics::swd::{Options, sliced_wasserstein};
use pggan_metrics::{Error, ImageSet, ImageShape, Pixels, SourceError};

use crate::golden::images;

/// A set that promises `promised` images and gives the bytes it has, or fails after them.
struct Unreliable {
    promised: usize,
    bytes: Vec<u8>,
    fails: bool,
}

impl ImageSet for Unreliable {
    fn shape(&self) -> ImageShape {
        ImageShape::new(3, 16).unwrap()
    }

    fn len(&self) -> usize {
        self.promised
    }

    fn batches(&self) -> Box<dyn Iterator<Item = Result<Cow<'_, [u8]>, SourceError>> + '_> {
        let failure = self.fails.then(|| Err("disk on fire".into()));
        Box::new(std::iter::once(Ok(Cow::Borrowed(self.bytes.as_slice()))).chain(failure))
    }
}

fn check(result: pggan_metrics::Result<impl std::fmt::Debug>, message: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(message), "{error:?} does not say {message:?}");
    assert!(!error.contains('\n'), "{error:?}");
}

#[test]
fn shapes_are_checked() {
    check(ImageShape::new(4, 64), "4 channels, expected 1 (grey) or 3 (RGB)");
    check(ImageShape::new(3, 100), "100 pixels wide, expected a power of two");
    check(ImageShape::new(3, 0), "0 pixels wide");
    let shape = ImageShape::new(3, 16).unwrap();
    check(Pixels::new(shape, &[0; 100]), "100 bytes is not a whole number of 16x16x3 images");
}

#[test]
fn sets_that_do_not_match_are_named() {
    let (small, large) = (images(1, 0..4, 16, 1), images(1, 0..4, 32, 1));
    let small = Pixels::new(ImageShape::new(3, 16).unwrap(), &small).unwrap();
    let large = Pixels::new(ImageShape::new(3, 32).unwrap(), &large).unwrap();
    let swd = |a: &dyn ImageSet, b: &dyn ImageSet| sliced_wasserstein(a, b, &Options::default());
    check(swd(&small, &large), "the first set has 16x16x3 images, the second 32x32x3");

    let few = images(1, 0..3, 16, 1);
    let few = Pixels::new(small.shape(), &few).unwrap();
    check(swd(&small, &few), "the first set has 4 images, the second 3");

    let none = Pixels::new(small.shape(), &[]).unwrap();
    check(swd(&none, &none), "SWD needs at least 1 images, there are 0");
    check(ms_ssim(&none), "MS-SSIM needs at least 2 images, there are 0");

    let tiny = Pixels::new(ImageShape::new(3, 8).unwrap(), &[0; 8 * 8 * 3 * 2]).unwrap();
    check(swd(&tiny, &tiny), "SWD needs images of at least 16x16, these are 8x8");
    check(ms_ssim(&tiny), "MS-SSIM needs images of at least 16x16, these are 8x8");
}

#[test]
fn blank_images_are_named() {
    let shape = ImageShape::new(3, 16).unwrap();
    let good = images(1, 0..4, 16, 1);
    let mut blue_is_blank = good.clone();
    blue_is_blank.chunks_mut(256).skip(2).step_by(3).for_each(|plane| plane.fill(77));
    let (good, blank) =
        (Pixels::new(shape, &good).unwrap(), Pixels::new(shape, &blue_is_blank).unwrap());
    let found = sliced_wasserstein(&good, &blank, &Options::default());
    check(found, "channel 2 of the second set is constant in every patch of level 16x16");
}

#[test]
fn broken_promises_are_named() {
    let set = |promised, images_given: usize, fails| Unreliable {
        promised,
        bytes: images(1, 0..images_given as u64, 16, 1),
        fails,
    };
    check(ms_ssim(&set(6, 4, false)), "promised 6 images and gave 4");
    check(ms_ssim(&set(4, 6, false)), "promised 4 images and gave 6");
    check(ms_ssim(&set(6, 4, true)), "reading images: disk on fire");
    assert!(matches!(ms_ssim(&set(6, 4, true)), Err(Error::Source(_))));
    let mut ragged = set(4, 4, false);
    ragged.bytes.pop();
    check(ms_ssim(&ragged), "a batch of 3071 bytes is not a whole number of 16x16x3 images");
}
