//! Work over many items on several threads, with results in order and memory bounded.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls `work` on items `0..count` on `threads` threads, of which the calling one is the first, and `consume` on the
/// results, in order, on the calling one.
///
/// `slots` are buffers that travel with the items: no more items are in the making than there are slots,
/// so memory is bounded by them, however slow `consume` is. Each thread has a worker of its own, made by
/// `worker`, to keep scratch memory in. The first error from either side ends the work.
pub(crate) fn ordered<T, E, W>(
    threads: usize,
    count: usize,
    slots: Vec<T>,
    worker: impl Fn() -> Result<W, E> + Sync,
    mut consume: impl FnMut(usize, &mut T) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    E: Send,
    W: FnMut(usize, &mut T),
{
    let (free, free_slots) = channel();
    let (done, finished) = channel();
    for slot in slots {
        free.send(slot).ok();
    }
    let queue = Mutex::new(Queue { free_slots, next: 0, count });
    thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            let (queue, worker, done) = (&queue, &worker, done.clone());
            scope.spawn(move || match worker() {
                Ok(mut work) => {
                    while let Some((index, mut slot)) = take(queue) {
                        // A panic must reach the consumer, who would wait for this item for ever.
                        let outcome = catch_unwind(AssertUnwindSafe(|| work(index, &mut slot)));
                        let message = match outcome {
                            Ok(()) => Message::Done(index, slot),
                            Err(panic) => Message::Panicked(panic),
                        };
                        if done.send(message).is_err() {
                            break;
                        }
                    }
                }
                Err(error) => drop(done.send(Message::Failed(error))),
            });
        }
        drop(done);
        // Whichever way this ends, `free` and `finished` go away with it, and the threads stop.
        let (free, finished) = (free, finished);
        let mut work = worker()?;
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        while next < count {
            // The others' results come first, since they wait for slots. Then this thread works like them, and
            // waits only when there is nothing to take.
            let message = if let Ok(message) = finished.try_recv() {
                message
            } else if let Some((index, mut slot)) = take_at_once(&queue) {
                work(index, &mut slot);
                Message::Done(index, slot)
            } else {
                finished.recv().expect("a thread has the item that is waited for")
            };
            match message {
                Message::Done(index, slot) => drop(waiting.insert(index, slot)),
                Message::Failed(error) => return Err(error),
                Message::Panicked(panic) => resume_unwind(panic),
            }
            while let Some(mut slot) = waiting.remove(&next) {
                consume(next, &mut slot)?;
                next += 1;
                // No thread left to take it: all items are in the making.
                free.send(slot).ok();
            }
        }
        Ok(())
    })
}

enum Message<T, E> {
    Done(usize, T),
    Failed(E),
    Panicked(Box<dyn Any + Send>),
}

struct Queue<T> {
    free_slots: Receiver<T>,
    next: usize,
    count: usize,
}

/// The next item and a slot for it; none when all are taken or the consumer is gone.
///
/// The slot comes first, so whoever holds the lowest item also holds a slot, and the consumer, who waits
/// for that item, is always served.
fn take<T>(queue: &Mutex<Queue<T>>) -> Option<(usize, T)> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    if queue.next == queue.count {
        return None;
    }
    let slot = queue.free_slots.recv().ok()?;
    queue.next += 1;
    Some((queue.next - 1, slot))
}

/// The same without waiting.
fn take_at_once<T>(queue: &Mutex<Queue<T>>) -> Option<(usize, T)> {
    // Whoever has the lock for longer than a moment waits for a slot.
    let mut queue = queue.try_lock().ok()?;
    if queue.next == queue.count {
        return None;
    }
    let slot = queue.free_slots.try_recv().ok()?;
    queue.next += 1;
    Some((queue.next - 1, slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn squares(
        threads: usize,
        count: usize,
        slots: usize,
        stop: usize,
    ) -> (Vec<usize>, Result<(), usize>) {
        let mut results = Vec::new();
        let outcome = ordered(
            threads,
            count,
            vec![0; slots],
            || Ok(|index: usize, slot: &mut usize| *slot = index * index),
            |index, slot| {
                if index == stop {
                    return Err(index);
                }
                results.push(*slot);
                Ok(())
            },
        );
        (results, outcome)
    }

    #[test]
    fn order_is_kept_whatever_the_threads() {
        for (threads, count, slots) in
            [(1, 0, 1), (1, 10, 1), (3, 1000, 4), (8, 1000, 1), (16, 5, 40)]
        {
            let (results, outcome) = squares(threads, count, slots, usize::MAX);
            assert_eq!(outcome, Ok(()));
            assert_eq!(results, (0..count).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_of_the_consumer_ends_the_work() {
        for threads in [1, 4] {
            let (results, outcome) = squares(threads, 1000, 8, 17);
            assert_eq!((results.len(), outcome), (17, Err(17)));
        }
    }

    #[test]
    fn an_error_of_a_worker_ends_the_work() {
        let made = AtomicUsize::new(0);
        let outcome = ordered(
            2,
            100,
            vec![(); 4],
            || match made.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(|_: usize, (): &mut ()| {}),
                _ => Err("no reader"),
            },
            |_, ()| Ok(()),
        );
        // The first worker may have done everything before the second was made.
        assert!(outcome.is_ok() || outcome == Err("no reader"));
    }
}
