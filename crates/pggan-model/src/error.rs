use std::path::PathBuf;

/// What can go wrong with a network or its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that no network can have.
    #[error("model.{field} = {value}: {reason}")]
    Config {
        /// The setting's name in [`crate::ModelConfig`].
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What it must be.
        reason: &'static str,
    },
    /// An operation on tensors failed; candle's message names the shapes.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it claims to be.
    #[error("{}: damaged or not a weights file: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds weights of another network.
    #[error("{}: does not fit this network: {reason}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The tensors that are missing, unknown or of another shape.
        reason: String,
    },
}

/// candle's result where nothing is said of the error: most of what networks do is on tensors.
pub(crate) type Result<T, E = candle_core::Error> = std::result::Result<T, E>;
