//! What the control groups of the process leave it, in version 2 and in version 1 of their interface.
//!
//! Every group on the way to the root limits what is in it. What a group uses counts its page cache, which the system drops
//! before it refuses memory; so that is taken for free, as `MemAvailable` does for the machine.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::memory::{Available, least};

/// The files of one version.
struct Version {
    /// Where its groups are.
    mount: &'static str,
    limits: &'static [&'static str],
    used: &'static str,
    /// Lines of `memory.stat` with the page cache.
    cache: [&'static str; 2],
}

const V2: Version = Version {
    mount: "sys/fs/cgroup",
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    cache: ["active_file", "inactive_file"],
};

const V1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    cache: ["total_active_file", "total_inactive_file"],
};

/// The least that a group of the process leaves; `None` where none limits memory.
pub(crate) fn available(root: &Path) -> Option<Available> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    least(groups.lines().filter_map(|line| {
        // `0::/path` in version 2, `4:memory:/path` in version 1.
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => V2.available(root, path),
            _ if controllers.split(',').any(|controller| controller == "memory") => V1.available(root, path),
            _ => None,
        }
    }))
}

impl Version {
    fn available(&self, root: &Path, group: &str) -> Option<Available> {
        let mount = root.join(self.mount);
        // In a container the path may be the host's, and its own group be where the root is: what is not there is passed over.
        let names = Path::new(group).components().filter(|name| matches!(name, Component::Normal(_)));
        let group = mount.join(names.collect::<PathBuf>());
        let groups = group.ancestors().take_while(|group| group.starts_with(&mount));
        least(groups.filter_map(|group| self.left(root, group)))
    }

    /// What one group leaves.
    fn left(&self, root: &Path, group: &Path) -> Option<Available> {
        let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        // Version 1 writes "no limit" as the largest number of pages.
        let limit = |&file: &&'static str| Some((number(file).filter(|&bytes| bytes < 1 << 60)?, file));
        let (limit, file) = self.limits.iter().filter_map(limit).min()?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let of_stat = |name: &str| {
            let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let cache = self.cache.map(of_stat).into_iter().fold(0, u64::saturating_add);
        let used = number(self.used).unwrap_or(0).saturating_sub(cache);
        let place = Path::new("/").join(group.strip_prefix(root).unwrap_or(group));
        Some(Available::new(limit.saturating_sub(used), format!("{file} of the control group {}", place.display())))
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::tests::{MEMINFO, machine};

    fn check(files: &[(&str, &str)], expected: u64, limit: &str) {
        let (_dir, machine) = machine(&[&[MEMINFO], files].concat());
        let found = machine.touchable().unwrap();
        assert_eq!((found.bytes, found.limit.as_str()), (expected, limit), "{files:?}");
    }

    #[test]
    fn every_group_on_the_way_to_the_root_limits() {
        let own = "proc/self/cgroup";
        let a = |file: &'static str| [("sys/fs/cgroup/a/", file)].map(|(folder, file)| format!("{folder}{file}"));
        let [max] = a("memory.max");
        let [current] = a("memory.current");
        let files = [
            (own, "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "1000\n"),
            (max.as_str(), "5000\n"),
            (current.as_str(), "3000\n"),
        ];
        check(&files, 2000, "memory.max of the control group /sys/fs/cgroup/a");
        let high = [&files[..], &[("sys/fs/cgroup/a/b/memory.high", "1500\n")]].concat();
        check(&high, 500, "memory.high of the control group /sys/fs/cgroup/a/b");
        // What can be dropped is free.
        let stat = ("sys/fs/cgroup/a/b/memory.stat", "anon 5\nactive_file 300\ninactive_file 100\nfile 9000\n");
        check(&[&high[..], &[stat]].concat(), 900, "memory.high of the control group /sys/fs/cgroup/a/b");
        // Nothing is left of a limit that is exceeded.
        let over = [(own, "0::/a\n"), (max.as_str(), "10\n"), (current.as_str(), "11\n")];
        check(&over, 0, "memory.max of the control group /sys/fs/cgroup/a");
    }

    #[test]
    fn in_a_container_the_root_is_its_group() {
        let files = [("sys/fs/cgroup/memory.max", "4096\n"), ("sys/fs/cgroup/memory.current", "96\n")];
        for group in ["0::/\n", "0::/docker/not/seen/here\n", "0::/../outside\n"] {
            let files = [&files[..], &[("proc/self/cgroup", group)]].concat();
            check(&files, 4000, "memory.max of the control group /sys/fs/cgroup");
        }
    }

    #[test]
    fn version_1_is_read_too() {
        let (own, groups) = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/job\n0::/unified\n");
        let files = [
            (own, groups),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "777\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "6000\n"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "4000\n"),
            ("sys/fs/cgroup/memory/job/memory.stat", "cache 99\ntotal_active_file 1\ntotal_inactive_file 499\n"),
        ];
        check(&files, 2500, "memory.limit_in_bytes of the control group /sys/fs/cgroup/memory/job");
        check(&[(own, groups)], 800 * 1024, "MemAvailable of /proc/meminfo");
    }
}
