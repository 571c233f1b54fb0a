//! Threads that share work.

use std::io;
use std::ops::Deref;
use std::thread::JoinHandle;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::threads;

/// Threads of one pool at most: more than any machine has processors for, and as many as start in about a second.
pub const MAX_THREADS: usize = 1024;

/// Why a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// None, or too many.
    #[error("threads must be from 1 to {MAX_THREADS}, not {0}")]
    Count(usize),
    /// The system refuses threads.
    #[error("cannot start {threads} worker threads: {source}")]
    Start {
        /// How many were asked for.
        threads: usize,
        /// What it said.
        source: ThreadPoolBuildError,
    },
}

/// A rayon pool of [`threads`]. When it is dropped, its threads have ended; so no thread of its own may drop it.
///
/// The number of threads is the caller's: rayon's environment variables are not looked at.
#[derive(Debug)]
pub struct Pool {
    // Dropped first: that tells the threads to end.
    pool: ThreadPool,
    _threads: Joined,
}

impl Pool {
    /// A pool of this many threads, which are called `trtllm-NAME-0` and so on.
    ///
    /// # Errors
    /// [`PoolError`]. Then none of the threads is left.
    pub fn new(name: &str, threads: usize) -> Result<Self, PoolError> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(PoolError::Count(threads));
        }
        let mut started = Joined(Vec::with_capacity(threads));
        let start = |thread: rayon::ThreadBuilder| -> io::Result<()> {
            let name = format!("trtllm-{name}-{}", thread.index());
            started.0.push(threads::spawn(&name, || thread.run())?);
            Ok(())
        };
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .spawn_handler(start)
            .build()
            .map_err(|source| PoolError::Start { threads, source })?;
        Ok(Self { pool, _threads: started })
    }
}

impl Deref for Pool {
    type Target = ThreadPool;

    fn deref(&self) -> &ThreadPool {
        &self.pool
    }
}

/// Threads that are waited for.
#[derive(Debug)]
struct Joined(Vec<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // A panic of a task is the business of whoever waits for the task.
            let _ = thread.join();
        }
    }
}

/// Processors that the process may use: its affinity and the quota of its control group count, logical processors are counted.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into).min(MAX_THREADS)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Names of the threads of this process.
    fn names() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
        tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
    }

    /// Counts the threads that have come to their very end, some time after their last task.
    struct Last;

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    impl Drop for Last {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(30));
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }

    thread_local! {
        static LAST: Last = const { Last };
    }

    #[test]
    fn a_pool_has_the_threads_that_were_asked_for_and_leaves_none() {
        for round in 1..4 {
            let pool = Pool::new("drop", 7).unwrap();
            assert_eq!((pool.current_num_threads(), pool.install(rayon::current_num_threads)), (7, 7));
            pool.broadcast(|_| LAST.with(|_| ()));
            let mut own: Vec<_> = names().into_iter().filter(|name| name.starts_with("trtllm-drop-")).collect();
            own.sort();
            own.dedup();
            assert_eq!(own, (0..7).map(|index| format!("trtllm-drop-{index}")).collect::<Vec<_>>());
            drop(pool);
            assert_eq!(ENDED.load(Ordering::Relaxed), 7 * round);
        }
    }

    #[test]
    fn the_number_of_threads_has_bounds() {
        for threads in [0, MAX_THREADS + 1, usize::MAX] {
            let error = Pool::new("none", threads).unwrap_err().to_string();
            assert_eq!(error, format!("threads must be from 1 to 1024, not {threads}"));
        }
        assert!((1..=MAX_THREADS).contains(&processors()));
    }
}
