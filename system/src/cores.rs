//! How many threads can compute at once.
//!
//! Hardware threads of a core share its arithmetic units and its path to memory. Linux tells which share one; a virtual machine that
//! hides it is taken to have none that do. Big and little cores count alike: work is handed out in small pieces, so a slow core takes
//! fewer. Costs a few files of `/sys` for each processor, once for an engine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::pool::processors;

/// Physical cores that the process may use: those of the processors in the affinity of the calling thread, but no more than the
/// quota of its control group. [`processors`] where the system does not tell which processors share a core.
pub fn cores() -> usize {
    distinct_cores(Path::new("/")).map_or_else(processors, |cores| cores.min(processors()))
}

/// Distinct cores among the processors that are online and that this thread may run on; `None` where the system does not say
/// which these are. `/proc` and `/sys` are in the folder `root`.
fn distinct_cores(root: &Path) -> Option<usize> {
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let status = read("proc/thread-self/status")?;
    let mut allowed = list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let folder = "sys/devices/system/cpu";
    if let Some(online) = read(&format!("{folder}/online")).and_then(|online| list(&online)) {
        allowed.retain(|cpu| online.contains(cpu));
    }
    // A core is known by the first of its processors, and one that tells nothing is a core of its own. The second name is that of
    // Linux before 5.5.
    let core = |&cpu: &usize| {
        let names = ["core_cpus_list", "thread_siblings_list"];
        let siblings = names.iter().find_map(|name| list(&read(&format!("{folder}/cpu{cpu}/topology/{name}"))?));
        siblings.and_then(|siblings| siblings.first().copied()).unwrap_or(cpu)
    };
    let cores = allowed.iter().map(core).collect::<BTreeSet<_>>().len();
    (cores > 0).then_some(cores)
}

/// The numbers of a list such as `0-3,8,10-11`; `None` for anything else. No machine has processors beyond [`MOST`].
fn list(text: &str) -> Option<BTreeSet<usize>> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last > MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Linux is built for 8192 at most.
const MOST: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores of a machine with these allowed and online processors, and for each processor a file of its topology.
    fn cores_of(allowed: Option<&str>, online: Option<&str>, topology: &[(usize, &str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        if let Some(allowed) = allowed {
            write("proc/thread-self/status", &format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n"));
        }
        if let Some(online) = online {
            write("sys/devices/system/cpu/online", &format!("{online}\n"));
        }
        for (cpu, name, siblings) in topology {
            write(&format!("sys/devices/system/cpu/cpu{cpu}/topology/{name}"), &format!("{siblings}\n"));
        }
        distinct_cores(root.path())
    }

    const NEW: &str = "core_cpus_list";
    const OLD: &str = "thread_siblings_list";

    #[test]
    fn hardware_threads_of_a_core_count_once() {
        let smt = [(0, NEW, "0,4"), (1, NEW, "1,5"), (2, NEW, "2,6"), (3, NEW, "3,7")];
        let smt = smt.into_iter().flat_map(|(cpu, name, siblings)| [(cpu, name, siblings), (cpu + 4, name, siblings)]);
        let smt: Vec<_> = smt.collect();
        assert_eq!(cores_of(Some("0-7"), Some("0-7"), &smt), Some(4));
        // Of an affinity, the cores that it touches.
        for (allowed, expected) in [("0-3", 4), ("0,4", 1), ("0-1,4", 2), ("7", 1), ("2,3,6-7", 2)] {
            assert_eq!(cores_of(Some(allowed), Some("0-7"), &smt), Some(expected), "{allowed}");
        }
        let neighbours = [(0, OLD, "0-1"), (1, OLD, "0-1"), (2, OLD, "2-3"), (3, OLD, "2-3")];
        assert_eq!(cores_of(Some("0-3"), None, &neighbours), Some(2));
        // Four hardware threads of a core, and the old name where both are there.
        let four = [(0, NEW, "0-3"), (1, NEW, "0-3"), (2, NEW, "0-3"), (3, NEW, "0-3"), (3, OLD, "3")];
        assert_eq!(cores_of(Some("0-3"), Some("0-3"), &four), Some(1));
    }

    #[test]
    fn big_and_little_cores_count_alike() {
        let hybrid = [(0, NEW, "0-1"), (1, NEW, "0-1"), (2, NEW, "2-3"), (3, NEW, "2-3"), (4, NEW, "4"), (5, NEW, "5")];
        assert_eq!(cores_of(Some("0-5"), Some("0-5"), &hybrid), Some(4));
    }

    #[test]
    fn processors_that_are_offline_do_not_count() {
        // Linux keeps them in the affinity, without a topology.
        let online = [(0, NEW, "0"), (1, NEW, "1,3"), (3, NEW, "1,3")];
        assert_eq!(cores_of(Some("0-7"), Some("0-1,3"), &online), Some(2));
        assert_eq!(cores_of(Some("4-7"), Some("0-3"), &online), None);
    }

    #[test]
    fn where_nothing_is_told_each_processor_is_a_core_or_nothing_is_known() {
        // A container without /sys.
        assert_eq!(cores_of(Some("0-2,9"), None, &[]), Some(4));
        let partly = [(0, NEW, "0-1"), (1, NEW, "0-1"), (2, NEW, "nonsense"), (3, OLD, "")];
        assert_eq!(cores_of(Some("0-3"), Some("0-3"), &partly), Some(3));
        for allowed in [None, Some(""), Some("a"), Some("3-1"), Some("0-99999999999"), Some("0-1000000"), Some("1,,2")]
        {
            assert_eq!(cores_of(allowed, Some("0-3"), &[]), None, "{allowed:?}");
        }
    }

    #[test]
    fn this_machine_has_cores_and_no_more_than_processors() {
        assert!((1..=processors()).contains(&cores()));
    }
}
