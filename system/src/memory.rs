//! How many bytes the process may still take.
//!
//! Memory is *mapped* when it is allocated and *touched* when it is first written. Limits on touching: what the machine has left
//! (`MemAvailable` of `/proc/meminfo`, which counts what can be dropped from the page cache), and the control groups. Limits
//! on mapping: `RLIMIT_AS`, `RLIMIT_DATA`, and the commit limit of a system that does not overcommit. The least counts.
//!
//! An answer costs the reading of some ten small files, about 0.1 ms.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use crate::cgroup;
use crate::promise::Books;

/// Bytes that may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// How many.
    pub bytes: u64,
    /// What allows no more, as the middle of a sentence: `MemAvailable of /proc/meminfo`.
    pub limit: String,
}

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes ({})", self.bytes, self.limit)
    }
}

impl Available {
    pub(crate) fn new(bytes: u64, limit: impl Into<String>) -> Self {
        Self { bytes, limit: limit.into() }
    }
}

/// Where the system tells what it allows, and the books of what was promised of it.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
    pub(crate) books: Arc<Books>,
}

/// This machine, once: its books are those of the whole process.
static HERE: LazyLock<Machine> = LazyLock::new(|| Machine::at(Path::new("/")));

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        HERE.clone()
    }

    /// A machine whose `/proc` and `/sys` are in the folder `root`: for tests.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), books: Arc::default() }
    }

    /// What may be mapped and touched; `None` where the system tells nothing.
    pub fn available(&self) -> Option<Available> {
        least(self.touchable().into_iter().chain(self.mappable()))
    }

    /// What may be touched of memory that is mapped already.
    pub fn touchable(&self) -> Option<Available> {
        let free = self.kilobytes("proc/meminfo", "MemAvailable");
        let free = free.map(|bytes| Available::new(bytes, "MemAvailable of /proc/meminfo"));
        least(free.into_iter().chain(cgroup::available(&self.root)))
    }

    /// What may be mapped.
    pub fn mappable(&self) -> Option<Available> {
        let limits = self.read("proc/self/limits");
        let limit = |name: &str| {
            let rest = limits.as_deref()?.lines().find_map(|line| line.strip_prefix(name))?;
            // Soft, then hard; `unlimited` is no number.
            rest.split_whitespace().next()?.parse::<u64>().ok()
        };
        let of_process = |name, field, limit_name: &str| {
            let used = self.kilobytes("proc/self/status", field).unwrap_or(0);
            Some(Available::new(limit(name)?.saturating_sub(used), limit_name))
        };
        let never_overcommits = self.read("proc/sys/vm/overcommit_memory").is_some_and(|mode| mode.trim() == "2");
        let commit = || {
            let [limit, used] = ["CommitLimit", "Committed_AS"].map(|field| self.kilobytes("proc/meminfo", field));
            Some(Available::new(limit?.saturating_sub(used?), "CommitLimit of /proc/meminfo"))
        };
        least(
            [
                of_process("Max address space", "VmSize", "RLIMIT_AS of the process, `ulimit -v`"),
                of_process("Max data size", "VmData", "RLIMIT_DATA of the process, `ulimit -d`"),
                never_overcommits.then(commit).flatten(),
            ]
            .into_iter()
            .flatten(),
        )
    }

    /// Whether the process may map so little that it counts: less than the address space which the C library keeps for each of a
    /// few dozen threads.
    fn has_little_address_space(&self) -> bool {
        self.mappable().is_some_and(|available| available.bytes < 4 << 30)
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.root.join(file)).ok()
    }

    /// A line `field:   12 kB`, in bytes.
    fn kilobytes(&self, file: &str, field: &str) -> Option<u64> {
        let text = self.read(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }
}

/// Lets all threads share the C library's allocator where the process may map little: otherwise it keeps 64 MiB of address space
/// for each thread, and there is none left for what needs it. For programs, at their start; it holds for the process.
pub fn share_the_allocator_where_address_space_is_little() {
    #[cfg(target_env = "gnu")]
    if Machine::here().has_little_address_space() {
        // SAFETY: sets a number of the C library's; no other thread of a program that is starting allocates.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// The one that allows least.
pub(crate) fn least(limits: impl IntoIterator<Item = Available>) -> Option<Available> {
    limits.into_iter().min_by_key(|available| available.bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine of these files.
    pub(crate) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let machine = Machine::at(dir.path());
        (dir, machine)
    }

    pub(crate) const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 900 kB\nMemAvailable:     800 kB\nCommitLimit:  700 kB\nCommitted_AS:      650 kB\n",
    );

    fn limits(address_space: &str, data: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             {data}            unlimited            bytes     \n\
             Max address space         {address_space}            unlimited            bytes     \n"
        )
    }

    #[test]
    fn the_least_limit_counts_and_is_named() {
        let status = ("proc/self/status", "Name:\tx\nVmSize:\t     100 kB\nVmData:\t      40 kB\n");
        let kib = |kib: u64| (kib * 1024).to_string();
        let cases = [
            ("unlimited".to_owned(), "unlimited".to_owned(), "0", 800, "MemAvailable"),
            (kib(500), "unlimited".to_owned(), "1", 400, "RLIMIT_AS"),
            (kib(500), kib(300), "0", 260, "RLIMIT_DATA"),
            (kib(50), kib(300), "0", 0, "RLIMIT_AS"),
            (kib(500), kib(300), "2", 50, "CommitLimit"),
        ];
        for (address_space, data, overcommit, expected, name) in cases {
            let limits = limits(&address_space, &data);
            let files = [MEMINFO, status, ("proc/self/limits", &limits), ("proc/sys/vm/overcommit_memory", overcommit)];
            let (_dir, machine) = machine(&files);
            let available = machine.available().unwrap();
            assert_eq!(available.bytes, expected * 1024, "{available}");
            assert!(available.limit.contains(name), "{available}");
            assert_eq!(machine.touchable().unwrap().bytes, 800 * 1024);
        }
    }

    #[test]
    fn a_system_that_tells_nothing_limits_nothing() {
        let (_dir, machine) = machine(&[("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: many kB\n")]);
        assert_eq!((machine.available(), machine.touchable()), (None, None));
    }

    #[test]
    fn this_machine_has_memory() {
        let available = Machine::here().available().unwrap();
        assert!(available.bytes > 1 << 20 && available.bytes < 1 << 50, "{available}");
    }
}
