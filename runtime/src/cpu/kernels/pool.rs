//! A fork-join pool whose workers spin a while, then park.
//!
//! A region is `chunks` numbered pieces of work; who runs which piece is decided by an atomic counter, so a
//! result may depend on the piece, never on the worker. The caller takes part. A panic in a piece is carried to
//! the caller.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Spins before a worker parks: about 50 microseconds.
const SPINS: usize = 20_000;

/// What a region runs: piece number, worker number.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The published region.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    chunks: usize,
}

// SAFETY: the pointee is `Sync`, and `Pool::run` outlives every use of the pointer.
unsafe impl Send for Job {}

struct Shared {
    epoch: AtomicUsize,
    next: AtomicUsize,
    /// Workers inside the region; one enters only while `job` is published, under its lock.
    active: AtomicUsize,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    job: Mutex<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The threads; dropped, it joins them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    region: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool of `threads` participants, the caller of [`Pool::run`] being one of them.
    ///
    /// # Errors
    /// The operating system's, when it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: Mutex::new(None),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::new(), region: Mutex::new(()) };
        for worker in 1..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("tgc-cpu-{worker}"));
            pool.workers.push(thread.spawn(move || serve(&shared, worker))?);
        }
        Ok(pool)
    }

    /// Participants, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(piece, worker)` for each piece below `chunks`, `worker` below [`Pool::threads`]; returns when
    /// all are done. While another caller's region is running, the pieces run on this thread as worker 0 of its
    /// own: results do not depend on it.
    pub fn run(&self, chunks: usize, work: &Work<'_>) {
        let alone = self.workers.is_empty() || chunks <= 1;
        let guard = if alone { None } else { self.region.try_lock().ok() };
        if guard.is_none() {
            (0..chunks).for_each(|piece| work(piece, 0));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; this function returns after every worker has left the region.
        let work = unsafe {
            std::mem::transmute::<*const Work<'_>, *const Work<'static>>(std::ptr::from_ref(work))
        };
        let job = Job { work, chunks };
        shared.next.store(0, Ordering::Relaxed);
        *lock(&shared.job) = Some(job);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            self.workers.iter().for_each(|worker| worker.thread().unpark());
        }
        take_pieces(shared, job, 0);
        // From here on nobody enters; a worker that has not woken up yet is not waited for.
        *lock(&shared.job) = None;
        while shared.active.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
        let panic = lock(&shared.panic).take();
        drop(guard);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panics are carried to callers, so its own end says nothing more.
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs pieces until none is left; keeps the first panic.
fn take_pieces(shared: &Shared, job: Job, worker: usize) {
    loop {
        let piece = shared.next.fetch_add(1, Ordering::Relaxed);
        if piece >= job.chunks {
            return;
        }
        // SAFETY: `Pool::run` keeps the closure alive while `active` counts this worker (or, for the caller
        // itself, for the whole call).
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)(piece, worker) }));
        if let Err(panic) = result {
            lock(&shared.panic).get_or_insert(panic);
        }
    }
}

/// Life of a worker.
fn serve(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        wait(shared, seen);
        seen = shared.epoch.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        if let Some(job) = enter(shared) {
            take_pieces(shared, job, worker);
            shared.active.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The open region, counted as entered.
fn enter(shared: &Shared) -> Option<Job> {
    let job = lock(&shared.job);
    if job.is_some() {
        shared.active.fetch_add(1, Ordering::Relaxed);
    }
    *job
}

/// Returns when the epoch is no longer `seen`.
fn wait(shared: &Shared, seen: usize) {
    for _ in 0..SPINS {
        if shared.epoch.load(Ordering::Acquire) != seen {
            return;
        }
        std::hint::spin_loop();
    }
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    while shared.epoch.load(Ordering::SeqCst) == seen {
        std::thread::park();
    }
    shared.sleepers.fetch_sub(1, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once_whatever_the_threads() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for chunks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(chunks, &|piece, worker| {
                    assert!(worker < threads);
                    counts[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn parked_workers_wake_up() {
        let pool = Pool::new(3).unwrap();
        let shared = Arc::clone(&pool.shared);
        while shared.sleepers.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let sum = AtomicUsize::new(0);
        pool.run(10, &|piece, _| {
            sum.fetch_add(piece, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(4, &|piece, _| assert_ne!(piece, 2, "piece two fails"));
        }));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_, _| {
            sum.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4);
    }

    #[test]
    fn two_callers_share_one_pool() {
        let pool = Pool::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(5, &|_, _| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 2000);
    }
}
