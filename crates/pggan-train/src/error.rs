use std::path::{Path, PathBuf};

/// What can stop a training run or a generation; the message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that cannot be used; all of them at once.
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The run in this folder has other settings than the ones asked for.
    #[error("{} is a run with other settings ({differences}): start a run of its own with --new, or leave these flags out", path.display())]
    OtherRun {
        /// The run's folder.
        path: PathBuf,
        /// The settings that differ.
        differences: String,
    },
    /// No checkpoint of a run can be read.
    #[error("{}: no checkpoint that can be read ({reason}); begin again with --new", path.display())]
    NoCheckpoint {
        /// The run's folder.
        path: PathBuf,
        /// What is wrong with the last one that was tried.
        reason: String,
    },
    /// Another process is training in this folder.
    #[error("{}: another process is training in this folder", path.display())]
    Locked {
        /// The run's folder.
        path: PathBuf,
    },
    /// A device that this machine or this build does not have.
    #[error("--device {asked}: {reason}")]
    Device {
        /// What was asked for.
        asked: String,
        /// Why it is not to be had, and what to do.
        reason: String,
    },
    /// Anything else the user has asked for that cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The data set.
    #[error(transparent)]
    Data(#[from] pggan_data::Error),
    /// Networks elsewhere.
    #[error(transparent)]
    Hub(#[from] pggan_hub::HubError),
    /// The networks or their files.
    #[error(transparent)]
    Model(#[from] pggan_model::Error),
    /// A metric.
    #[error(transparent)]
    Metric(#[from] pggan_metrics::Error),
    /// An operation on tensors.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}
