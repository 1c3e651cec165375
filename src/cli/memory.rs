//! Default memory limit for streams on this machine or in this container.

use std::fs;
use std::path::{Component, Path};

/// Returns the bytes for the chunks of streams: a quarter of the available memory, at most 256 MiB, and at
/// least `least`.
///
/// Available is the lower of `MemAvailable` and the limits of the process's control groups. `root` contains
/// `proc` and `sys`.
pub(super) fn for_streams(root: &Path, least: u64) -> u64 {
    let room = [available(root), limit(root)].into_iter().flatten().min();
    let share = room.map_or(MAX_BYTES, |room| room / SHARE);
    // `least` comes last: without a whole chunk in memory nothing can be sent.
    share.min(MAX_BYTES).max(least)
}

/// Returns the limit where no stream is sent, so that nothing needs to be read about the machine.
pub(super) fn without_streams(least: u64) -> u64 {
    MAX_BYTES.max(least)
}

/// Returns `MemAvailable` (proc_meminfo(5)).
fn available(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the lowest limit of the process's control groups and of their ancestors (cgroups(7)), versions 1
/// and 2.
fn limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            // Version 2 alone, or beside version 1 in the hybrid hierarchy of systemd.
            for mount in ["sys/fs/cgroup", "sys/fs/cgroup/unified"] {
                limits.extend(limits_of(&root.join(mount), path, &["memory.max", "memory.high"]));
            }
        } else if controllers.split(',').any(|name| name == "memory") {
            limits.extend(limits_of(&root.join("sys/fs/cgroup/memory"), path, &["memory.limit_in_bytes"]));
        }
    }
    limits.into_iter().min()
}

/// Returns the limits of a group and of its ancestors.
///
/// In a container the path may be the host's although only the container's own group is mounted. That group
/// is the topmost one here.
fn limits_of(mount: &Path, path: &str, files: &[&str]) -> Vec<u64> {
    let names = Path::new(path).components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let mut group = mount.to_owned();
    let mut limits = read_limits(&group, files);
    for name in names {
        group.push(name);
        limits.extend(read_limits(&group, files));
    }
    limits
}

/// Returns the limits in `files`. `max` does not parse as a number and is skipped.
fn read_limits(group: &Path, files: &[&str]) -> Vec<u64> {
    let read = |file: &&str| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    files.iter().filter_map(read).collect()
}

const MAX_BYTES: u64 = 256 << 20;
/// Leaves room for connections, TLS and the kernel's own pages.
const SHARE: u64 = 4;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn default_is_256_mib_or_a_quarter_of_the_available_memory() {
        let meminfo = |mib: u64| format!("MemTotal:  99 kB\nMemAvailable:  {} kB\n", mib * 1024);
        let of = |mib| for_streams(machine(&[("proc/meminfo", &meminfo(mib))]).path(), 5 * MIB);
        assert_eq!(of(8192), 256 * MIB);
        assert_eq!(of(400), 100 * MIB);
        assert_eq!(of(8), 5 * MIB);
        assert_eq!(for_streams(machine(&[]).path(), 5 * MIB), 256 * MIB);
    }

    #[test]
    fn lowest_limit_of_the_group_hierarchy_applies() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/system.slice/films.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "134217728\n"),
            ("sys/fs/cgroup/system.slice/films.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/films.service/memory.high", "268435456\n"),
        ]);
        assert_eq!(for_streams(root.path(), 5 * MIB), 32 * MIB);
    }

    #[test]
    fn a_container_sees_only_its_own_group() {
        let version_2 = machine(&[
            ("proc/self/cgroup", "0::/../../docker/abc\n"),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
        ]);
        assert_eq!(for_streams(version_2.path(), 5 * MIB), 64 * MIB);
        let version_1 = machine(&[
            ("proc/self/cgroup", "9:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
        ]);
        assert_eq!(for_streams(version_1.path(), 5 * MIB), 32 * MIB);
    }
}
