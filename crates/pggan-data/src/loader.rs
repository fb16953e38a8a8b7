//! Batches ahead of time.
//!
//! The caller says by an iterator which batches will be wanted; it may change level and size from one to
//! the next, so when training grows nothing restarts. Threads read ahead; batches come in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::pyramid::level_bytes;
use crate::sampler::{Sampler, balanced_index, mirror};
use crate::{Error, Result, Store};

/// A batch that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpec {
    /// Base-2 logarithm of the side.
    pub level: u32,
    /// The position of its first image, see [`crate::sampler`]. (Rank *r* of *n* asks for its part of a
    /// common batch by adding *r·count*.)
    pub first_position: u64,
    /// Its number of images.
    pub count: usize,
}

/// Images of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Base-2 logarithm of the side.
    pub level: u32,
    /// The position of its first image.
    pub first_position: u64,
    /// Its number of images.
    pub count: usize,
    /// `[count, channels, side, side]`, mirrored where it fell so.
    pub pixels: Vec<u8>,
    /// `[count, labels]` as networks want them: one-hot classes, or vectors. Empty if the store has none.
    pub labels: Vec<f32>,
    /// Which image of the store each is.
    pub indices: Vec<u64>,
}

/// How a [`Loader`] draws.
#[derive(Debug, Clone, Copy)]
pub struct LoaderOptions {
    /// Decides the order and the mirroring.
    pub seed: u64,
    /// Whether every other image, by chance, is mirrored left to right.
    pub mirror: bool,
    /// Whether every class comes equally often, however many images it has. It needs a store with classes;
    /// others are drawn from as ever.
    pub balanced: bool,
    /// Batches in the making ahead of the one that is asked for.
    pub prefetch: usize,
    /// Threads that read.
    pub threads: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self { seed: 0, mirror: false, balanced: false, prefetch: 4, threads: 1 }
    }
}

/// An iterator over the batches that `specs` asks for, read ahead by threads of its own.
///
/// After an error the loader goes on with the next batch. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader<I> {
    specs: I,
    /// Batch *k* is made by thread *k* modulo their number, so order needs no bookkeeping.
    workers: Vec<Worker>,
    next_worker: usize,
    /// The workers of the batches in the making, oldest first.
    ahead: VecDeque<usize>,
    spare: Vec<Batch>,
    waited: Duration,
}

#[derive(Debug)]
struct Worker {
    /// None when the loader is being dropped.
    requests: Option<Sender<(BatchSpec, Batch)>>,
    batches: Receiver<Result<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl<I: Iterator<Item = BatchSpec>> Loader<I> {
    /// A loader that begins to read at once.
    pub fn new(store: &Arc<Store>, options: LoaderOptions, specs: I) -> Self {
        let workers = (0..options.threads.max(1))
            .map(|_| Worker::spawn(Arc::clone(store), options))
            .collect();
        let (ahead, spare) = (VecDeque::new(), Vec::new());
        let mut loader =
            Self { specs, workers, next_worker: 0, ahead, spare, waited: Duration::ZERO };
        for _ in 0..options.prefetch.max(1) {
            loader.request();
        }
        loader
    }

    /// Gives a used batch back, so that its memory serves another.
    pub fn recycle(&mut self, batch: Batch) {
        // One spare is enough to feed the request that each batch taken makes.
        if self.spare.is_empty() {
            self.spare.push(batch);
        }
    }

    /// The time that `next` has waited for batches that were not ready.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    fn request(&mut self) {
        let Some(spec) = self.specs.next() else { return };
        let worker = self.next_worker;
        self.next_worker = (worker + 1) % self.workers.len();
        self.ahead.push_back(worker);
        if let Some(requests) = &self.workers[worker].requests {
            // A dead worker shows when its batch is to be received.
            requests.send((spec, self.spare.pop().unwrap_or_else(Batch::empty))).ok();
        }
    }
}

impl<I: Iterator<Item = BatchSpec>> Iterator for Loader<I> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batches = &self.workers[self.ahead.pop_front()?].batches;
        let batch = batches.try_recv().or_else(|_| {
            let begin = Instant::now();
            let batch = batches.recv();
            self.waited += begin.elapsed();
            batch
        });
        self.request();
        Some(batch.unwrap_or(Err(Error::LoaderDied)))
    }
}

impl<I> Drop for Loader<I> {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.requests = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // Its panic, if any, was reported as `LoaderDied`.
                thread.join().ok();
            }
        }
    }
}

impl Worker {
    fn spawn(store: Arc<Store>, options: LoaderOptions) -> Self {
        let (requests, wanted) = channel();
        let (made, batches) = channel();
        let thread = std::thread::spawn(move || {
            for (spec, batch) in wanted {
                if made.send(load(&store, &options, spec, batch)).is_err() {
                    return;
                }
            }
        });
        Self { requests: Some(requests), batches, thread: Some(thread) }
    }
}

impl Batch {
    /// A batch of nothing, to be filled.
    pub fn empty() -> Self {
        let (pixels, labels, indices) = (Vec::new(), Vec::new(), Vec::new());
        Self { level: 0, first_position: 0, count: 0, pixels, labels, indices }
    }
}

/// Reads a batch into the memory of another. The loader does this ahead of time; here it is by itself.
pub fn load(
    store: &Store,
    options: &LoaderOptions,
    spec: BatchSpec,
    recycled: Batch,
) -> Result<Batch> {
    let BatchSpec { level, first_position, count } = spec;
    let Batch { mut pixels, mut labels, mut indices, .. } = recycled;
    let sampler = Sampler::new(options.seed, store.images());
    pixels.clear();
    labels.clear();
    indices.clear();
    for position in first_position..first_position + count as u64 {
        let index = match store.classes() {
            classes if options.balanced && !classes.is_empty() => {
                balanced_index(options.seed, classes, position)
            }
            _ => sampler.index(position),
        };
        let image = store.image(level, index)?;
        if pixels.is_empty() {
            pixels.reserve(count * level_bytes(store.channels(), level));
        }
        if options.mirror && mirror(options.seed, position) {
            for row in image.chunks_exact(1 << level) {
                pixels.extend(row.iter().rev());
            }
        } else {
            pixels.extend_from_slice(&image);
        }
        if let Some(table) = store.labels() {
            table.push_row(index, &mut labels);
        }
        indices.push(index);
    }
    Ok(Batch { level, first_position, count, pixels, labels, indices })
}
