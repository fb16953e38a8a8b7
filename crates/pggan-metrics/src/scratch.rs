//! Memory that parallel tasks work in, one after the other.

use std::sync::{Mutex, PoisonError};

/// Hands out scratch memory: as many pieces come to be as tasks run at once.
pub(crate) struct Scratch<T, F> {
    make: F,
    free: Mutex<Vec<T>>,
}

impl<T, F: Fn() -> T> Scratch<T, F> {
    pub(crate) fn new(make: F) -> Self {
        Self { make, free: Mutex::new(Vec::new()) }
    }

    /// Runs `task` in memory that no other task uses meanwhile; it may find there what another one left.
    pub(crate) fn with<R>(&self, task: impl FnOnce(&mut T) -> R) -> R {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let last = free().pop();
        let mut memory = last.unwrap_or_else(&self.make);
        let result = task(&mut memory);
        free().push(memory);
        result
    }
}
