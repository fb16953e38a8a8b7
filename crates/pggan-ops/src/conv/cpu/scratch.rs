//! Working memory that each thread keeps from call to call: fresh pages cost more than the work
//! done in them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static IDLE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed buffer of floats with arbitrary contents; goes back to its thread's store when
/// dropped.
pub(super) struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// At least `len` floats, the tightest fit among this thread's idle buffers.
    pub(super) fn new(len: usize) -> Self {
        let reused = IDLE.with_borrow_mut(|idle| {
            // The smallest that is large enough, else the largest, which then grows.
            let best = (0..idle.len()).min_by_key(|&i| {
                let size = idle[i].len();
                if size >= len { (0, size) } else { (1, usize::MAX - size) }
            })?;
            Some(idle.swap_remove(best))
        });
        let mut buffer = reused.unwrap_or_default();
        if buffer.len() < len {
            drop(buffer); // before the new one is made: nothing in it is wanted
            buffer = vec![0.0; len];
        }
        Self { buffer, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // At thread exit the store may be gone already; then the buffer simply is freed.
        let _ = IDLE.try_with(|idle| idle.borrow_mut().push(buffer));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}
