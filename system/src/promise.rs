//! Memory that parts of the process count on and have not touched yet. The system does not know of it, so without these books
//! two engines in one process would each be given the same free gigabytes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::memory::{Available, Machine};

/// Bytes of all promises that are not touched.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<u64>);

impl Books {
    fn change<T>(&self, change: impl FnOnce(&mut u64) -> T) -> T {
        // A number is never half-changed.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes that somebody may touch when they are needed. What is left of it ends with it.
#[derive(Debug)]
pub struct Promise {
    books: Arc<Books>,
    left: u64,
}

impl Promise {
    /// Promises as many bytes as `choose` makes of what may be touched beside all other promises; `None` where the system
    /// does not tell. Whoever asks meanwhile waits, so nothing is promised twice.
    pub fn new(machine: &Machine, choose: impl FnOnce(Option<Available>) -> u64) -> Self {
        let left = machine.books.change(|promised| {
            let left = choose(beside(machine.touchable(), *promised));
            *promised = promised.saturating_add(left);
            left
        });
        Self { books: machine.books.clone(), left }
    }

    /// What is left of it.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// What may be touched now, whatever was promised: others may have taken memory since.
    pub fn touchable(&self, machine: &Machine) -> Option<Available> {
        let others = self.books.change(|promised| promised.saturating_sub(self.left));
        beside(machine.touchable(), others)
    }

    /// Notes that `bytes` of it were touched: now the system knows of them.
    pub fn note_touched(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.books.change(|promised| *promised = promised.saturating_sub(bytes));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.note_touched(self.left);
    }
}

fn beside(available: Option<Available>, promised: u64) -> Option<Available> {
    let available = available?;
    let limit = match promised {
        0 => available.limit,
        _ => format!("{}, less {promised} bytes that other engines of this process were promised", available.limit),
    };
    Some(Available { bytes: available.bytes.saturating_sub(promised), limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::machine;

    #[test]
    fn nothing_is_promised_twice() {
        let (dir, machine) = machine(&[("proc/meminfo", "MemAvailable: 1000 kB\n")]);
        let half = |available: Option<Available>| available.unwrap().bytes / 2;
        let mut first = Promise::new(&machine, half);
        assert_eq!(first.left(), 500 * 1024);
        let second = Promise::new(&machine, half);
        assert_eq!(second.left(), 250 * 1024);
        // Each sees what is left beside the other.
        assert_eq!(first.touchable(&machine).unwrap().bytes, 750 * 1024);
        let seen = second.touchable(&machine).unwrap();
        assert_eq!(seen.bytes, 500 * 1024);
        assert!(seen.limit.contains("other engines"), "{seen}");
        // What was touched is gone from the machine, and from the books.
        first.note_touched(400 * 1024);
        std::fs::write(dir.path().join("proc/meminfo"), "MemAvailable: 600 kB\n").unwrap();
        assert_eq!(second.touchable(&machine).unwrap().bytes, 500 * 1024);
        drop(first);
        assert_eq!(second.touchable(&machine).unwrap().bytes, 600 * 1024);
        drop(second);
        // Threads that ask at once share what there is.
        let shares: Vec<_> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| Promise::new(&machine, half));
            let asked: Vec<_> = (0..8).map(|_| ask()).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let all: u64 = shares.iter().map(Promise::left).sum();
        assert!(all > 590 * 1024 && all < 600 * 1024, "{all}");
    }
}
