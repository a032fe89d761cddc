//! How much memory a managed Redis may take: half of what this process may, so that there is room for the server, for agents,
//! and for the copy that Redis makes of itself while it rewrites its file.

use std::path::{Path, PathBuf};

/// Share of the memory that Redis may take, in percent.
const SHARE_PERCENT: u64 = 50;
/// Least that it gets, in bytes: less holds no data worth having.
const LEAST_BYTES: u64 = 64 * 1024 * 1024;
/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Deepest nesting of groups that is looked at.
const MAX_DEPTH: usize = 32;

/// `maxmemory` of a managed Redis, in bytes; `None` where the system does not say how much memory there is.
pub(super) fn redis_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total_bytes);
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.as_deref().and_then(|text| group_bytes(Path::new(CGROUPS), text));
    let memory = machine.into_iter().chain(group).min()?;
    Some(share_of(memory))
}

fn share_of(memory: u64) -> u64 {
    (memory / 100 * SHARE_PERCENT).max(LEAST_BYTES)
}

/// `MemTotal` of `/proc/meminfo`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of this process' control group and of those around it. `text`: `/proc/self/cgroup`.
fn group_bytes(root: &Path, text: &str) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            named if named.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut place: PathBuf = root.join(group.trim_start_matches('/'));
        for _ in 0..MAX_DEPTH {
            // "max" is no number.
            let limit =
                std::fs::read_to_string(place.join(file)).ok().and_then(|text| text.trim().parse().ok());
            least = least.into_iter().chain(limit).min();
            if place == root || !place.pop() {
                break;
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("system.slice/mas.service");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("memory.max"), "max\n").unwrap();
        std::fs::write(root.path().join("system.slice/memory.max"), "1000000000\n").unwrap();
        assert_eq!(group_bytes(root.path(), "0::/system.slice/mas.service\n"), Some(1_000_000_000));
        std::fs::write(deep.join("memory.max"), "400000000\n").unwrap();
        assert_eq!(group_bytes(root.path(), "0::/system.slice/mas.service\n"), Some(400_000_000));
        assert_eq!(group_bytes(root.path(), "0::/other\n"), None);
        let old = root.path().join("memory/docker/x");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(old.join("memory.limit_in_bytes"), "300000000\n").unwrap();
        assert_eq!(group_bytes(root.path(), "5:cpu,memory:/docker/x\n"), Some(300_000_000));
    }

    #[test]
    fn half_of_it_is_redis() {
        assert_eq!(total_bytes("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000 * 1024));
        assert_eq!(share_of(1_000_000_000), 500_000_000);
        assert_eq!(share_of(1), LEAST_BYTES);
        assert!(redis_bytes().is_some_and(|bytes| bytes >= LEAST_BYTES));
    }
}
