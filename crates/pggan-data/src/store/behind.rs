//! Bringing shards to the disk while they are still being written, for nobody to wait for all of them at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::Result;
use crate::error::Context;

/// A thread that syncs files.
#[derive(Debug)]
pub(crate) struct WriteBehind {
    files: SyncSender<(File, PathBuf)>,
    thread: JoinHandle<Result<()>>,
}

impl WriteBehind {
    pub(crate) fn start() -> Self {
        let (files, queue) = sync_channel::<(File, PathBuf)>(1);
        let thread = std::thread::spawn(move || {
            queue.iter().try_for_each(|(file, path)| file.sync_data().context("write", &path))
        });
        Self { files, thread }
    }

    /// Asks for what is in `file` to be synced. Tells whether that will be done; it will not if the disk is
    /// behind already.
    pub(super) fn sync(&self, file: &File, path: &Path) -> bool {
        // Whatever fails here is met again when the shard is completed.
        file.try_clone().is_ok_and(|file| self.files.try_send((file, path.to_owned())).is_ok())
    }

    /// Waits for the thread.
    ///
    /// # Errors
    ///
    /// If a file could not be synced: the system may not say so a second time.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.files);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
