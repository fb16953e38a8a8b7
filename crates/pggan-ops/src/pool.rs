//! Threads that work on one operation after the other.
//!
//! A training step is hundreds of operations, many of tens of microseconds. Rayon's threads sleep soon after they ran out of
//! work and are woken late, and handing a job from one to the other takes them some microseconds each time. So for the time of
//! a step they become a *crew* ([`keep_awake`]): whoever has nothing to do looks at what the others have called for help with,
//! one line of memory for each of them. Without a crew operations run on rayon as it is.
#![expect(
    unsafe_code,
    reason = "helpers work on what lies on the stack of the thread that called them, which waits for them"
)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pulp::Arch;
use rayon::prelude::*;

/// How often a thread looks for work in vain before it goes to sleep after all: about a tenth of a second, longer than any
/// gap between two operations, even if the system took a processor away in it, and shorter than anyone would notice.
const PATIENCE: u32 = 1 << 20;
/// After so many tries, the processor is offered to other threads.
const POLITE: u32 = 1 << 6;
/// Operations within operations that can call for help.
const DEPTH: usize = 4;

/// While this lives, idle threads of rayon's pool look for work instead of sleeping.
///
/// The thread that holds this should be one of the pool's (`ThreadPoolBuilder::use_current_thread`).
///
/// ```
/// let _awake = pggan_ops::pool::keep_awake();
/// // many short operations
/// ```
#[derive(Debug)]
pub struct Awake {
    crew: Arc<Crew>,
    before: Option<Rc<Member>>,
    /// It is given back by the thread that has it.
    owner: PhantomData<*const ()>,
}

/// Keeps the threads of the current pool awake until the result is dropped.
#[must_use = "threads may sleep again once this is dropped"]
pub fn keep_awake() -> Awake {
    let places = (0..rayon::current_num_threads()).map(|_| Place::default()).collect();
    let crew = Arc::new(Crew { wanted: AtomicBool::new(true), places });
    let caller = rayon::current_thread_index();
    let before = MEMBER.take();
    if let Some(place) = caller {
        MEMBER.set(Some(Rc::new(Member { crew: Arc::clone(&crew), place })));
    }
    let shared = Arc::clone(&crew);
    rayon::spawn_broadcast(move |thread| {
        if Some(thread.index()) != caller {
            let member = Member { crew: Arc::clone(&shared), place: thread.index() };
            let before = MEMBER.replace(Some(Rc::new(member)));
            shared.serve(thread.index());
            MEMBER.set(before);
        }
    });
    Awake { crew, before, owner: PhantomData }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.crew.wanted.store(false, Ordering::Relaxed);
        let current = MEMBER.take();
        let own = current.as_ref().is_some_and(|member| Arc::ptr_eq(&member.crew, &self.crew));
        let before = self.before.take();
        let before = before.filter(|member| member.crew.wanted.load(Ordering::Relaxed));
        MEMBER.set(if own { before } else { current });
    }
}

thread_local! {
    /// Each thread counts for itself who uses it: with the crew's own count, threads would wait for one another's in every
    /// operation.
    static MEMBER: RefCell<Option<Rc<Member>>> = const { RefCell::new(None) };
    /// Operations that this thread is in, one within the other.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// A thread's place in a crew.
#[derive(Debug)]
struct Member {
    crew: Arc<Crew>,
    place: usize,
}

#[derive(Debug)]
struct Crew {
    wanted: AtomicBool,
    places: Vec<Place>,
}

/// What one thread wants help with: of operations within each other, the outermost first.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    calls: [Call; DEPTH],
}

#[derive(Debug, Default)]
struct Call {
    /// Null where no help is wanted. It lies on the caller's stack for as long as there are helpers.
    work: AtomicPtr<Work<'static>>,
    /// Those who look at the work, or are at it.
    helpers: AtomicUsize,
}

/// Two operations, where they are `short` beside each other: at the end of each, threads wait for one another longer than
/// it would take to do something else. Long ones run one after the other, since each has work for all threads and needs
/// memory of its own.
pub fn both<A: Send, B: Send>(
    short: bool,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    if short { join(a, b) } else { (a(), b()) }
}

/// Two operations beside each other.
pub fn join<A: Send, B: Send>(
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    let (mut of_a, mut of_b) = (None, None);
    let jobs: [Box<dyn FnOnce() + Send + '_>; 2] =
        [Box::new(|| of_a = Some(a())), Box::new(|| of_b = Some(b()))];
    for_each_of(jobs.into_iter(), |job| job());
    (of_a.expect("it ran"), of_b.expect("it ran"))
}

/// Runs `body` once for each of `0..tasks`.
///
/// Each thread begins with a part of its own, the same in every operation of as many tasks, so that it finds in its cache what
/// it wrote in the operation before; then it takes what others have not got round to.
pub(crate) fn for_each(tasks: usize, body: impl Fn(usize) + Sync) {
    if tasks <= 1 || rayon::current_num_threads() == 1 {
        return (0..tasks).for_each(body);
    }
    match MEMBER.with_borrow(Option::clone) {
        Some(member) => member.crew.run(member.place, tasks, &body),
        None => (0..tasks).into_par_iter().with_max_len(1).for_each(&body),
    }
}

/// [`for_each`] of some items, which belong to whoever takes them.
pub(crate) fn for_each_of<T: Send>(items: impl Iterator<Item = T>, body: impl Fn(T) + Sync) {
    let items: Vec<_> = items.map(|item| Mutex::new(Some(item))).collect();
    for_each(items.len(), |i| {
        let item = items[i].lock().unwrap_or_else(PoisonError::into_inner).take();
        body(item.expect("every task runs once"));
    });
}

/// [`for_each_of`] for plain loops over memory: `body` is compiled for the widest vectors that processors have.
pub(crate) fn sweep<T: Send>(items: impl Iterator<Item = T>, body: impl Fn(T) + Sync) {
    for_each_of(items, |item| Arch::new().dispatch(|| body(item)));
}

/// What `body` returns for each of `0..tasks`, in their order.
pub(crate) fn map<R: Send>(tasks: usize, body: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..tasks).map(|_| None).collect();
    for_each_of(results.iter_mut().enumerate(), |(i, result)| *result = Some(body(i)));
    results.into_iter().map(|result| result.expect("every task runs once")).collect()
}

impl Crew {
    /// Helps whoever wants help, and rayon, until the crew is given up or nothing has come for long.
    fn serve(&self, place: usize) {
        let mut in_vain = 0;
        while self.wanted.load(Ordering::Relaxed) && in_vain < PATIENCE {
            let did = self.help(place) || rayon::yield_now() == Some(rayon::Yield::Executed);
            wait(&mut in_vain, did);
        }
    }

    /// Takes part in what another thread has called for; whether there was anything left to do.
    fn help(&self, place: usize) -> bool {
        let (before, behind) = self.places.split_at(place);
        (0..DEPTH).any(|depth| {
            behind[1..].iter().chain(before).any(|other| other.calls[depth].help(place))
        })
    }

    /// The whole of an operation, with the help of others.
    fn run(&self, place: usize, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let depth = CALLS.get();
        let Some(call) = self.places[place].calls.get(depth) else {
            return (0..tasks).for_each(body);
        };
        CALLS.set(depth + 1);
        let work = Work::new(tasks, self.places.len(), body);
        call.work.store(ptr::from_ref(&work).cast_mut().cast(), Ordering::SeqCst);
        work.take(place);
        call.work.store(ptr::null_mut(), Ordering::SeqCst);
        // From here on nobody comes to help, and whoever came before is counted: see `Call::help`.
        let mut in_vain = 0;
        while call.helpers.load(Ordering::SeqCst) > 0 {
            let did = self.help(place);
            wait(&mut in_vain, did);
        }
        CALLS.set(depth);
        if let Some(panic) = work.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

/// A moment's rest where a look was in vain.
fn wait(in_vain: &mut u32, did: bool) {
    if did {
        *in_vain = 0;
        return;
    }
    *in_vain = in_vain.saturating_add(1);
    if in_vain.is_multiple_of(POLITE) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

impl Call {
    fn help(&self, place: usize) -> bool {
        if self.work.load(Ordering::Relaxed).is_null() {
            return false;
        }
        self.helpers.fetch_add(1, Ordering::SeqCst);
        let work = self.work.load(Ordering::SeqCst);
        // SAFETY: this thread was counted before it read the address, and the caller took the address back before it read the
        // count. In the one order of these four either the address is null here, or the caller sees the count and keeps the
        // work alive until it is 0.
        let did = unsafe { work.as_ref() }.is_some_and(|work| {
            let did = work.take(place);
            // Nothing is left to be taken: the others need not look. The caller may have done so, never more.
            let _ = self.work.compare_exchange(
                ptr::from_ref(work).cast_mut(),
                ptr::null_mut(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            did
        });
        self.helpers.fetch_sub(1, Ordering::SeqCst);
        did
    }
}

/// One operation.
struct Work<'a> {
    parts: Vec<Part>,
    body: &'a (dyn Fn(usize) + Sync),
    /// The first task's that had one.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Tasks that one thread begins with. In lines of the cache of their own, since each thread counts in its own.
#[derive(Debug)]
#[repr(align(128))]
struct Part {
    /// The next task to be taken.
    next: AtomicUsize,
    end: usize,
}

impl<'a> Work<'a> {
    fn new(tasks: usize, threads: usize, body: &'a (dyn Fn(usize) + Sync)) -> Self {
        let part = |thread: usize| Part {
            next: AtomicUsize::new(thread * tasks / threads),
            end: (thread + 1) * tasks / threads,
        };
        Self { parts: (0..threads).map(part).collect(), body, panic: Mutex::new(None) }
    }

    /// All tasks that nobody else takes, this thread's own first; whether there were any. A panic is kept for the caller.
    fn take(&self, place: usize) -> bool {
        let mut did = false;
        let tasks = || {
            let (others, own) = self.parts.split_at(place);
            for part in own.iter().chain(others) {
                loop {
                    let task = part.next.fetch_add(1, Ordering::Relaxed);
                    if task >= part.end {
                        break;
                    }
                    did = true;
                    (self.body)(task);
                }
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(tasks)) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        did
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` in pools of these sizes, by rayon and by a crew.
    fn everywhere(body: impl Fn() + Sync) {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(&body);
            pool.install(|| {
                let _awake = keep_awake();
                for _ in 0..20 {
                    body();
                }
            });
        }
    }

    #[test]
    fn work_is_done_while_awake_and_after() {
        let sum = || map(1000, |i| i).into_iter().sum::<usize>();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sums = pool.install(|| {
                let first = keep_awake();
                let second = keep_awake(); // nested, and dropped out of order
                let a = sum();
                drop(first);
                let b = sum();
                std::thread::sleep(std::time::Duration::from_millis(20)); // they sleep as well
                let c = sum();
                drop(second);
                let by_rayon = (0..1000usize).into_par_iter().with_max_len(1).sum::<usize>();
                [a, b, c, sum(), by_rayon]
            });
            assert_eq!(sums, [499_500; 5]);
        }
    }

    #[test]
    fn every_task_runs_once_also_nested() {
        everywhere(|| {
            for tasks in [0, 1, 2, 7, 100] {
                let times: Vec<AtomicUsize> = (0..6 * tasks).map(|_| AtomicUsize::new(0)).collect();
                for_each(tasks, |i| {
                    for_each(3, |j| {
                        for_each_of(0..2, |k| {
                            times[6 * i + 2 * j + k].fetch_add(1, Ordering::Relaxed);
                        });
                    });
                });
                assert!(times.iter().all(|times| times.load(Ordering::Relaxed) == 1));
            }
        });
    }

    #[test]
    fn operations_beside_each_other_have_their_own_results() {
        fn sum(from: usize, to: usize) -> usize {
            if to - from <= 3 {
                return map(to - from, |i| from + i).into_iter().sum();
            }
            let middle = usize::midpoint(from, to);
            let (a, b) = both(true, || sum(from, middle), || sum(middle, to));
            a + b
        }
        everywhere(|| assert_eq!(sum(0, 1000), 499_500));
    }

    #[test]
    fn a_panic_in_any_task_reaches_the_caller() {
        everywhere(|| {
            for bad in [0, 8, 16] {
                let run = || for_each(17, |i| assert!(i != bad, "task {bad}"));
                let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
                assert_eq!(*panic.downcast::<String>().unwrap(), format!("task {bad}"));
            }
            assert_eq!(map(4, |i| i), [0, 1, 2, 3]);
        });
    }
}
