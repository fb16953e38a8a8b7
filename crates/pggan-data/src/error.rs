//! Everything that can go wrong, in the words of the person who has to mend it.

use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What --source takes.
const SOURCES: &str = "a folder, .zip or .tar of images; CIFAR, MNIST, SVHN, LMDB, Parquet or TFRecord files; hf://owner/name; or synthetic:1000x64";

/// What went wrong, where, and what to do about it.
///
/// The cause of an [`Error::Io`] is its [`source`](std::error::Error::source); print the chain
/// (`{:#}` with `anyhow`) to see it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is at the source's path.
    #[error("{}: no such file or folder; --source takes {SOURCES}", path.display())]
    SourceMissing {
        /// The path that was given.
        path: PathBuf,
    },

    /// Something is at the source's path, but no collection of images.
    #[error("{}: {reason}; --source takes {SOURCES}", path.display())]
    SourceUnreadable {
        /// The path that was given.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },

    /// The source's labels cannot be used.
    #[error("{}: labels: {reason}", path.display())]
    Labels {
        /// The source.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },

    /// A table of landmarks that cannot be used.
    #[error("{}: landmarks: {reason}", path.display())]
    Landmarks {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// CelebA-HQ's list of images or its deltas cannot be used.
    #[error("{}: deltas: {reason}", path.display())]
    Deltas {
        /// The list, an archive, or their folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Faces cannot be aligned like this.
    #[error("aligned faces {reason}")]
    Align {
        /// What they have.
        reason: &'static str,
    },

    /// A number of channels that images do not have.
    #[error("channels {given}: pass 1 (grey), 3 (RGB) or 4 (RGB and transparency)")]
    Channels {
        /// What was asked for.
        given: usize,
    },

    /// JPEG for images that are transparent.
    #[error("JPEG has no transparency: pass --codec png or webp, or --channels 3")]
    NoTransparency,

    /// There is nothing to learn from one image.
    #[error(
        "{}: {good} good images among {files} image files ({passed_over} other files passed over); \
         at least 2 are needed{}",
        path.display(), first_reason(first_bad.as_deref())
    )]
    TooFewImages {
        /// The source.
        path: PathBuf,
        /// Images that could be read.
        good: u64,
        /// Files with an image's extension.
        files: u64,
        /// Files without one.
        passed_over: u64,
        /// The first bad file and its reason.
        first_bad: Option<String>,
    },

    /// The resolution is no power of two in range.
    #[error(
        "resolution {given}: the networks grow by doubling; pass a power of two from 4 to {}, \
         such as {nearest}",
        crate::MAX_RESOLUTION
    )]
    Resolution {
        /// What was asked for.
        given: u32,
        /// The nearest power of two in range.
        nearest: u32,
    },

    /// The data are smaller than the resolution asked for.
    #[error(
        "resolution {resolution} is above the data's: {smaller} of {images} images are smaller; \
         pass --resolution {fits}, or --upscale to enlarge them"
    )]
    ResolutionAboveData {
        /// What was asked for.
        resolution: u32,
        /// Images whose shorter side is below it.
        smaller: u64,
        /// Images in all.
        images: u64,
        /// The largest resolution that the data allow.
        fits: u32,
    },

    /// A bad file, where bad files are not to be skipped.
    #[error("{name}: {reason}; mend or remove it, or leave out --strict to skip bad files")]
    BadFile {
        /// Its name in the source.
        name: String,
        /// Why it cannot be used.
        reason: String,
    },

    /// The destination holds prepared data that the request does not describe.
    #[error(
        "{}: holds data prepared differently ({difference}); \
         choose another --dest, or pass --force to replace it", dest.display()
    )]
    OtherStore {
        /// The destination.
        dest: PathBuf,
        /// The first difference.
        difference: String,
    },

    /// The destination holds files that are not ours.
    #[error("{}: not empty, and not prepared data; --dest takes a new or an empty folder", dest.display())]
    ForeignFolder {
        /// The destination.
        dest: PathBuf,
    },

    /// Parts of a data set that cannot be joined.
    #[error("{}: {reason}", dest.display())]
    Parts {
        /// Where they are.
        dest: PathBuf,
        /// Why.
        reason: String,
    },

    /// Something is where an export is to go.
    #[error("{}: exists already; choose another --dest", dest.display())]
    Exists {
        /// The destination.
        dest: PathBuf,
    },

    /// Two processes at one destination.
    #[error("{}: another process is preparing data here; wait for it or choose another --dest", dest.display())]
    Busy {
        /// The destination.
        dest: PathBuf,
    },

    /// No prepared data at this path.
    #[error(
        "{}: {}; make it with `cargo xtask prepare-dataset --source IMAGES --dest {0}`",
        dir.display(),
        if *unfinished { "preparation was not finished" } else { "no prepared data here" }
    )]
    NoStore {
        /// The folder.
        dir: PathBuf,
        /// Whether a preparation was begun.
        unfinished: bool,
    },

    /// A file of the store is not what the manifest or the format says.
    #[error(
        "{}: damaged: {reason}; prepare the data again with \
         `cargo xtask prepare-dataset … --force`", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A level or an index that the store does not have.
    #[error("{}: no image {index} at level {level}; it has images 0 to {} at levels 2 to {max_level}",
        dir.display(), images.saturating_sub(1))]
    OutOfRange {
        /// The store.
        dir: PathBuf,
        /// The level asked for.
        level: u32,
        /// The index asked for.
        index: u64,
        /// Images in the store.
        images: u64,
        /// The store's highest level.
        max_level: u32,
    },

    /// A thread of the loader is gone.
    #[error("a loader thread ended unexpectedly; its panic message is above, please report it")]
    LoaderDied,

    /// A data set on the hub could not be had.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(pggan_hub::HubError),

    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "read", "write", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn first_reason(bad: Option<&str>) -> String {
    bad.map_or_else(String::new, |bad| format!("; the first bad file is {bad}"))
}

/// Names the action and the path that an I/O error lacks.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}
