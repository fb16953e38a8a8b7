//! Threads that always have something to do: they don't fall asleep between the operations of a step, and short operations
//! run beside each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a thread looks for work in vain before it goes to sleep after all: about a millisecond,
/// longer than any gap between two operations, shorter than anyone would notice.
const PATIENCE: u32 = 20_000;

/// While this lives, idle threads of rayon's pool look for work instead of sleeping.
///
/// An operation of a training step takes tens of microseconds, and after as long a gap rayon's
/// threads sleep; where processors are virtual, waking one takes longer than the operation. The
/// thread that holds this should be one of the pool's (`ThreadPoolBuilder::use_current_thread`).
///
/// ```
/// let _awake = pggan_ops::pool::keep_awake();
/// // many short operations
/// ```
#[derive(Debug)]
pub struct Awake(Arc<AtomicBool>);

/// Keeps the threads of the current pool awake until the result is dropped.
#[must_use = "threads may sleep again once this is dropped"]
pub fn keep_awake() -> Awake {
    let wanted = Arc::new(AtomicBool::new(true));
    let caller = rayon::current_thread_index();
    let shared = Arc::clone(&wanted);
    rayon::spawn_broadcast(move |thread| {
        if Some(thread.index()) != caller {
            look_for_work(&shared);
        }
    });
    Awake(wanted)
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn look_for_work(wanted: &AtomicBool) {
    let mut in_vain = 0;
    while wanted.load(Ordering::Relaxed) && in_vain < PATIENCE {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            in_vain = 0;
        } else {
            in_vain += 1;
            std::hint::spin_loop();
        }
    }
}

/// Two operations, where they are `short` beside each other: at the end of each, threads wait for one another longer than
/// it would take to do something else. Long ones run one after the other, since each has work for all threads and needs
/// memory of its own.
pub fn both<A: Send, B: Send>(
    short: bool,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if short { rayon::join(a, b) } else { (a(), b()) }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn work_is_done_while_awake_and_after() {
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sum = || (0..1000u32).into_par_iter().with_max_len(1).sum::<u32>();
            let sums = pool.install(|| {
                let first = keep_awake();
                let second = keep_awake(); // nested, and dropped out of order
                let a = sum();
                drop(first);
                let b = sum();
                std::thread::sleep(std::time::Duration::from_millis(20)); // they sleep as well
                let c = sum();
                drop(second);
                [a, b, c, sum()]
            });
            assert_eq!(sums, [499_500; 4]);
        }
    }
}
