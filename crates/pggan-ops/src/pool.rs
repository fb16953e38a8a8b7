//! Threads that always have something to do: they don't fall asleep between the operations of a step, and short operations
//! run beside each other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How often a thread looks for work in vain before it goes to sleep after all: about a tenth of a second, longer than any
/// gap between two operations, even if the system took a processor away in it, and shorter than anyone would notice.
const PATIENCE: u32 = 1 << 20;
/// After so many tries, the processor is offered to other threads.
const POLITE: u32 = 1 << 6;

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
            look_for_work_while(|| shared.load(Ordering::Relaxed));
        }
    });
    Awake(wanted)
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn look_for_work_while(wanted: impl Fn() -> bool) {
    let mut in_vain = 0;
    while wanted() && in_vain < PATIENCE {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            in_vain = 0;
        } else {
            in_vain += 1;
            if in_vain.is_multiple_of(POLITE) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
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

/// Runs `body` once for each of `0..tasks`.
///
/// Each thread of the pool begins with a part of its own, the same in every operation of as many tasks, so that it finds in its
/// cache what it wrote in the operation before; then it takes what others have not got round to. Rayon's own loops let the idle
/// steal from whoever is first; and at their end, who waits for a task that another thread is still at soon falls asleep, and
/// is woken late.
pub(crate) fn for_each(tasks: usize, body: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(tasks);
    if threads <= 1 {
        return (0..tasks).for_each(body);
    }
    let part = |thread: usize| Part {
        next: AtomicUsize::new(thread * tasks / threads),
        end: (thread + 1) * tasks / threads,
    };
    let parts = (0..threads).map(part).collect();
    let work = Work { parts, left: AtomicUsize::new(tasks), body };
    let own = || {
        work.take();
        // Should a task panic, patience ends, and rayon hands the panic on.
        look_for_work_while(|| work.left.load(Ordering::Acquire) > 0);
    };
    rayon::join(own, || work.help(threads - 1));
}

/// [`for_each`] of some items, which belong to whoever takes them.
pub(crate) fn for_each_of<T: Send>(items: impl Iterator<Item = T>, body: impl Fn(T) + Sync) {
    let items: Vec<_> = items.map(|item| Mutex::new(Some(item))).collect();
    for_each(items.len(), |i| {
        let item = items[i].lock().unwrap_or_else(PoisonError::into_inner).take();
        body(item.expect("every task runs once"));
    });
}

/// What `body` returns for each of `0..tasks`, in their order.
pub(crate) fn map<R: Send>(tasks: usize, body: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..tasks).map(|_| None).collect();
    for_each_of(results.iter_mut().enumerate(), |(i, result)| *result = Some(body(i)));
    results.into_iter().map(|result| result.expect("every task runs once")).collect()
}

struct Work<F> {
    parts: Vec<Part>,
    /// Tasks that are not done.
    left: AtomicUsize,
    body: F,
}

/// Tasks that one thread begins with. In lines of the cache of their own, since each thread counts in its own.
#[repr(align(128))]
struct Part {
    /// The next task to be taken.
    next: AtomicUsize,
    end: usize,
}

impl<F: Fn(usize) + Sync> Work<F> {
    /// All tasks that nobody else takes.
    fn take(&self) {
        let own = rayon::current_thread_index().unwrap_or(0) % self.parts.len();
        let (others, first) = self.parts.split_at(own);
        for part in first.iter().chain(others) {
            loop {
                let task = part.next.fetch_add(1, Ordering::Relaxed);
                if task >= part.end {
                    break;
                }
                (self.body)(task);
                self.left.fetch_sub(1, Ordering::Release);
            }
        }
    }

    fn help(&self, threads: usize) {
        if threads == 1 {
            return self.take();
        }
        rayon::join(|| self.help(threads / 2), || self.help(threads - threads / 2));
    }
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

    #[test]
    fn every_task_runs_once_also_nested() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for tasks in [0, 1, 2, 7, 100] {
                let times: Vec<AtomicUsize> = (0..3 * tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.install(|| {
                    for_each(tasks, |i| {
                        for_each(3, |j| {
                            times[3 * i + j].fetch_add(1, Ordering::Relaxed);
                        });
                    });
                });
                assert!(times.iter().all(|times| times.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_in_any_task_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for bad in [0, 8, 16] {
            let run = || for_each(17, |i| assert!(i != bad, "task {bad}"));
            let run = std::panic::AssertUnwindSafe(|| pool.install(run));
            let panic = std::panic::catch_unwind(run).unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), format!("task {bad}"));
        }
        assert_eq!(pool.install(|| (0..10).into_par_iter().sum::<i32>()), 45);
    }
}
