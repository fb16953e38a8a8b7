//! Everything that can be wrong with the input of a metric.

use crate::ImageShape;

/// What a metric returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of whatever an [`ImageSet`](crate::ImageSet) reads from.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a metric cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Images that are neither grey nor RGB.
    #[error("images have {found} channels, expected 1 (grey) or 3 (RGB)")]
    Channels {
        /// Channels of the images.
        found: usize,
    },
    /// Not square images with a power of two as their side.
    #[error(
        "images are {found} pixels wide, expected a power of two; prepare the set at 16, 32, … 1024"
    )]
    Resolution {
        /// Side of the images.
        found: usize,
    },
    /// Images with fewer pixels than a metric's windows ask for.
    #[error("{metric} needs images of at least {minimum}x{minimum}, these are {found}x{found}")]
    TooSmall {
        /// The metric.
        metric: &'static str,
        /// The smallest side.
        minimum: usize,
        /// Side of the images.
        found: usize,
    },
    /// Two sets of different channels or resolution.
    #[error(
        "the first set has {first} images, the second {second}; prepare both at one resolution"
    )]
    DifferentShapes {
        /// Shape of the first set's images.
        first: ImageShape,
        /// Shape of the second set's images.
        second: ImageShape,
    },
    /// Two sets of different size where a metric pairs them off.
    #[error(
        "the first set has {first} images, the second {second}; take the same number from both"
    )]
    DifferentCounts {
        /// Images in the first set.
        first: usize,
        /// Images in the second set.
        second: usize,
    },
    /// Fewer images, or rows of features, than the metric is defined for.
    #[error("{metric} needs at least {minimum} images, there are {found}")]
    TooFew {
        /// The metric.
        metric: &'static str,
        /// The smallest number.
        minimum: usize,
        /// Images in the set.
        found: usize,
    },
    /// A set of images that ended before or after the number that it promised.
    #[error(
        "the set promised {promised} images and gave {given}; it may have changed while it was read"
    )]
    Count {
        /// What [`ImageSet::len`](crate::ImageSet::len) said.
        promised: usize,
        /// What its batches held.
        given: usize,
    },
    /// A buffer that does not hold a whole number of images.
    #[error("a batch of {bytes} bytes is not a whole number of {shape} images")]
    Ragged {
        /// Length of the buffer.
        bytes: usize,
        /// Shape of each image.
        shape: ImageShape,
    },
    /// A channel without contrast cannot be normalised.
    #[error(
        "channel {channel} of the {set} set is constant in every patch of level {resolution}x{resolution}: \
         SWD is not defined; check that the images are not blank"
    )]
    Constant {
        /// `first` or `second`.
        set: &'static str,
        /// Channel, from 0.
        channel: usize,
        /// Side of the pyramid level.
        resolution: usize,
    },
    /// A patch that lies partly outside of its level.
    #[error(
        "patch {patch} is centred at ({x}, {y}); a 7x7 patch of a {resolution}x{resolution} level does not fit there"
    )]
    Position {
        /// Patch, from 0.
        patch: usize,
        /// Column of the centre.
        x: usize,
        /// Row of the centre.
        y: usize,
        /// Side of the pyramid level.
        resolution: usize,
    },
    /// Sizes that do not go together.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// What was measured.
        what: &'static str,
        /// The size that fits.
        expected: usize,
        /// The size given.
        found: usize,
    },
    /// NaN or infinity among features or logits.
    #[error(
        "row {row}, column {column} is {value}; features must be finite: check the network that made them"
    )]
    NotFinite {
        /// Row (image), from 0.
        row: usize,
        /// Column (feature), from 0.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// An index beyond the rows of its features.
    #[error("row {row} was asked for, there are {rows}")]
    Row {
        /// The row asked for.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// An eigenvalue iteration that did not converge.
    #[error(
        "the eigenvalues of the covariance were not found: it holds values that are too large for f64"
    )]
    Eigen,
    /// The source of the images failed.
    #[error("reading images: {0}")]
    Source(#[source] SourceError),
}
