/// How far the networks have grown (paper §2, Figures 1 and 2).
///
/// The official code counts from the other end: `lod = max_level − level + (1 − alpha)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// log2 of the resolution at work, from 2.
    pub level: u32,
    /// Weight of the newest layer, 0 to 1; below 1 it is fading in. At level 2 nothing fades.
    pub alpha: f64,
}

impl Growth {
    /// `level`, with its newest layer all there.
    pub fn full(level: u32) -> Self {
        Self { level, alpha: 1.0 }
    }

    /// Width and height of the images, pixels.
    pub fn resolution(self) -> usize {
        1 << self.level
    }

    /// Whether the newest layer is fading in.
    pub fn fading(self) -> bool {
        self.level > 2 && self.alpha < 1.0
    }

    /// The official code's level of detail in networks that can grow to `max_level`.
    pub fn lod(self, max_level: u32) -> f64 {
        f64::from(max_level) - f64::from(self.level) + (1.0 - self.alpha)
    }
}
