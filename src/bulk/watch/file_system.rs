//! File systems that report no events for changes by other machines.

use std::os::fd::AsFd;
use std::path::Path;

/// Returns the type of the file system at `path` if events do not report all changes of its files; `None` if they do, or
/// if statfs(2) fails.
pub(super) fn without_events(path: &Path) -> Option<u32> {
    rustix::fs::statfs(path).ok().and_then(|found| unreported(found.f_type as u32))
}

/// Returns the same as [`without_events`], for the file system of an open file. Uses fstatfs(2).
pub(super) fn without_events_of(file: impl AsFd) -> Option<u32> {
    rustix::fs::fstatfs(file).ok().and_then(|found| unreported(found.f_type as u32))
}

fn unreported(magic: u32) -> Option<u32> {
    WITHOUT_EVENTS.contains(&magic).then_some(magic)
}

/// The types of network and cluster file systems and of FUSE, by statfs(2), linux/magic.h and their sources.
#[rustfmt::skip]
const WITHOUT_EVENTS: [u32; 19] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE, also virtiofs
    0x0102_1997, // 9p
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6b41_4653, // AFS of the kernel
    0x7375_7245, // Coda
    0x564c,      // NCP
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x7461_636f, // OCFS2
    0x0116_1970, // GFS2
    0x1983_0326, // BeeGFS
    0xaad7_aaea, // PanFS
    0xbacb_acbc, // VMware's shared folders
    0x786f_4256, // VirtualBox's shared folders
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_have_no_events_and_local_ones_do() {
        for magic in [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x786f_4256] {
            assert_eq!(unreported(magic), Some(magic), "{magic:#x}");
        }
        // ext4, tmpfs, XFS, Btrfs, overlayfs, ZFS, FAT.
        for magic in [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630, 0x2fc1_2fc1, 0x4d44] {
            assert_eq!(unreported(magic), None, "{magic:#x}");
        }
        assert_eq!(without_events(Path::new("/dev/shm/is not there")), None);
    }
}
