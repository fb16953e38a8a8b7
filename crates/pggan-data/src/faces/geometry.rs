//! Where a face is cut out and how large it becomes: the numbers of the paper's Appendix C, no pixels.
//!
//! They are computed in the precision that `NumPy` has for them, because a corner that falls on the other side
//! of a whole number changes the image.

use super::landmarks::Points;

/// What is done to a picture, in this order, to align a face.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Width and height that the picture is reduced to, if the face is much too large.
    pub(crate) reduced: Option<(u32, u32)>,
    /// The part around the face that is kept: left, top, right, bottom.
    pub(crate) crop: [u32; 4],
    /// What that is enlarged by, a power of two.
    pub(crate) superres: u32,
    /// What is added around it, if the face comes near a border.
    pub(crate) margin: Option<Margin>,
    /// The corners of the square in what that gives: top left, bottom left, bottom right, top right.
    pub(crate) quad: [[f32; 2]; 4],
}

/// Pixels that are added at the sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Margin {
    /// Left, top, right, bottom; none is 0.
    pub(crate) pad: [u32; 4],
    /// Standard deviation of the blur at the border, in pixels.
    pub(crate) sigma: f64,
}

/// Faces below this many pixels are not enlarged: the margin, whose least width is fixed, would grow beyond bounds.
const MIN_SIDE: f64 = 8.0;

/// The oriented square around a face: its corners, as in [`Plan::quad`], and its side, in pixels of the picture.
pub(crate) fn square(points: &Points) -> Result<([[f32; 2]; 4], f64), String> {
    if !points.iter().flatten().all(|v| v.is_finite() && v.abs() < 1e6) {
        return Err("its landmarks are not positions in an image".into());
    }
    let [eye_left, eye_right, _, mouth_left, mouth_right] = *points;
    let middle = |a: [f32; 2], b: [f32; 2]| [0, 1].map(|i| (a[i] + b[i]) * 0.5 + 0.5);
    let (eyes, mouth) = (middle(eye_left, eye_right), middle(mouth_left, mouth_right));
    let eye_to_eye = [0, 1].map(|i| eye_right[i] - eye_left[i]);
    let eye_to_mouth = [0, 1].map(|i| mouth[i] - eyes[i]);
    let turned = turned(eye_to_mouth);
    let x = [0, 1].map(|i| eye_to_eye[i] - turned[i]);
    let length = hypot(x);
    let half = (hypot(eye_to_eye) as f64 * 2.0).max(hypot(eye_to_mouth) as f64 * 1.8);
    let x = x.map(|v| v / length * half as f32);
    let side = hypot(x) as f64 * 2.0;
    if !side.is_finite() || side < MIN_SIDE {
        return Err(format!("its face has fewer than {MIN_SIDE} pixels a side, by its landmarks"));
    }
    let y = self::turned(x);
    let c = [0, 1].map(|i| eyes[i] + eye_to_mouth[i] * 0.1);
    let quad = [
        [0, 1].map(|i| c[i] - x[i] - y[i]),
        [0, 1].map(|i| c[i] - x[i] + y[i]),
        [0, 1].map(|i| c[i] + x[i] + y[i]),
        [0, 1].map(|i| c[i] + x[i] - y[i]),
    ];
    Ok((quad, side))
}

impl Plan {
    /// The plan for a face with these points in a picture of this size, at `resolution` pixels a side.
    ///
    /// The error is the reason for which the face cannot be aligned.
    pub(crate) fn new(
        points: &Points,
        (mut width, mut height): (u32, u32),
        resolution: u32,
    ) -> Result<Self, String> {
        let (mut quad, side) = square(points)?;
        let resolution = resolution as f64;
        let mut zoom = resolution / side;

        let mut reduced = None;
        let shrink = (0.5 / zoom).floor();
        if shrink > 1.0 {
            let less = |side: u32| (side as f64 / shrink).round_ties_even() as u32;
            (width, height) = (less(width), less(height));
            if width == 0 || height == 0 {
                return Err("its face is much larger than the image, by its landmarks".into());
            }
            reduced = Some((width, height));
            quad = quad.map(|corner| corner.map(|v| v / shrink as f32));
            zoom *= shrink;
        }

        let border = (resolution * 0.1 / zoom).round_ties_even().max(3.0) as i64;
        let [left, top, right, bottom] = bounds(&quad);
        let crop = [
            (left - border).max(0),
            (top - border).max(0),
            (right + border).min(width as i64),
            (bottom + border).min(height as i64),
        ];
        if crop[0] >= crop[2] || crop[1] >= crop[3] {
            return Err("its face is outside of the image, by its landmarks".into());
        }
        quad = quad.map(|corner| [corner[0] - crop[0] as f32, corner[1] - crop[1] as f32]);

        // The paper enlarges with a network, whose effect only the deltas have.
        let superres = if zoom > 1.0 { zoom.log2().ceil().exp2() } else { 1.0 };
        if superres > 1.0 {
            quad = quad.map(|corner| corner.map(|v| v * superres as f32));
            zoom /= superres;
        }
        let (width, height) =
            ((crop[2] - crop[0]) * superres as i64, (crop[3] - crop[1]) * superres as i64);

        let [left, top, right, bottom] = bounds(&quad);
        let over = [border - left, border - top, right - width + border, bottom - height + border];
        let mut margin = None;
        // (The border is not enlarged here: it is a few pixels of the picture as it was.)
        if over.into_iter().fold(0, i64::max) > border - 4 {
            let least = (resolution * 0.3 / zoom).round_ties_even() as i64;
            let pad = over.map(|over| over.max(least) as u32);
            margin = Some(Margin { pad, sigma: resolution * 0.02 / zoom });
            quad = quad.map(|corner| [corner[0] + pad[0] as f32, corner[1] + pad[1] as f32]);
        }
        Ok(Self { reduced, crop: crop.map(|v| v as u32), superres: superres as u32, margin, quad })
    }

    /// Pixels of the face with its margin.
    pub(crate) fn pixels(&self) -> u64 {
        let pad = self.margin.map_or([0; 4], |margin| margin.pad);
        let side = |i: usize| {
            let length = (self.crop[i + 2] - self.crop[i]) as u64 * self.superres as u64;
            length + pad[i] as u64 + pad[i + 2] as u64
        };
        side(0) * side(1)
    }
}

fn hypot([x, y]: [f32; 2]) -> f32 {
    (x as f64 * x as f64 + y as f64 * y as f64).sqrt() as f32
}

/// By a right angle.
fn turned([x, y]: [f32; 2]) -> [f32; 2] {
    [-y, x]
}

/// The upright rectangle around it: left, top, right, bottom.
fn bounds(quad: &[[f32; 2]; 4]) -> [i64; 4] {
    let fold = |i: usize, pick: fn(f32, f32) -> f32| {
        quad.iter().map(|corner| corner[i]).reduce(pick).unwrap_or_default()
    };
    let low = |i| fold(i, f32::min).floor() as i64;
    let high = |i| fold(i, f32::max).ceil() as i64;
    [low(0), low(1), high(0), high(1)]
}
