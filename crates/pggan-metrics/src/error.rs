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
    /// Fewer images than a metric's name asks for.
    #[error(
        "{metric} needs {minimum} {set} images at least, there are {found}; ask for fewer, as swd2k or fid10k, or with --num"
    )]
    NotEnough {
        /// The metric's name.
        metric: String,
        /// `judged` or `real`.
        set: &'static str,
        /// The smallest number.
        minimum: usize,
        /// Images in the set.
        found: usize,
    },
    /// A metric that compares, and nothing to compare with.
    #[error("{metric} compares with real images: name them with --data, or as the second --images")]
    NoReals {
        /// The metric's name.
        metric: String,
    },
    /// A metric of a generator's latent space without a generator.
    #[error("{metric} moves through a latent space: it needs a generator, --network")]
    NoPaths {
        /// The metric's name.
        metric: String,
    },
    /// A metric whose network is not at hand.
    #[error(
        "{metric} needs the weights of a network: name {network}, or what import-features made of it, with --weights"
    )]
    NoNetwork {
        /// The metric's name.
        metric: String,
        /// The file that its authors published.
        network: &'static str,
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
    /// A tensor of a feature network that is not there.
    #[error("the weights have no tensor {name}; is it the file of another network?")]
    MissingWeight {
        /// The tensor.
        name: String,
    },
    /// Tensors that a feature network has no place for.
    #[error(
        "the weights have {count} tensors too many, the first is {first}; is it the file of another network?"
    )]
    ExtraWeights {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// A tensor of another shape than a feature network's.
    #[error(
        "{name} of the weights is {found:?}, expected {expected:?}; is it the file of another network?"
    )]
    WeightShape {
        /// The tensor.
        name: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A file of weights that cannot be read.
    #[error("the weights cannot be read: {reason}")]
    DamagedWeights {
        /// What is wrong.
        reason: String,
    },
    /// A feature network failed on its device.
    #[error("computing features: {0}")]
    Network(#[source] candle_core::Error),
    /// Images that do not differ where a metric divides by their spread.
    #[error(
        "all features of the {set} set are the same in every image: is it one image, many times?"
    )]
    ConstantFeatures {
        /// `first` or `second`.
        set: &'static str,
    },
    /// The source of the images failed.
    #[error("reading images: {0}")]
    Source(#[source] SourceError),
}
