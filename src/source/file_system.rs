//! File systems, by the properties of a file that survive a remount.

use std::fs::File;

/// A file system, by the stat(2) fields of a file that survive a remount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileSystem {
    /// Inode number and ctime stay: ext4, XFS, Btrfs, tmpfs, NFS. Also unknown file systems.
    #[default]
    Stable,
    /// The inode number may be a new one, ctime stays: overlayfs, SMB.
    Renumbering,
    /// The inode number may be a new one, and many report mtime as ctime: FUSE.
    Fuse,
    /// The inode number is a new one, and ctime is not stored: FAT, exFAT.
    Fat,
}

impl FileSystem {
    /// Returns the file system of an open file; stable, the strictest assumption, if fstatfs(2) fails.
    pub(super) fn of(file: &File) -> FileSystem {
        // The type is a signed word on some machines, and a magic number of 32 bits on all.
        rustix::fs::fstatfs(file).map_or(FileSystem::Stable, |found| FileSystem::of_type(found.f_type as u32))
    }

    fn of_type(magic: u32) -> FileSystem {
        match magic {
            FUSE => FileSystem::Fuse,
            MSDOS | EXFAT => FileSystem::Fat,
            OVERLAYFS | SMB | CIFS | SMB2 => FileSystem::Renumbering,
            // The strictest comparison, since a wrong guess then costs a new upload and never mixes bytes.
            _ => FileSystem::Stable,
        }
    }
}

/// statfs(2), linux/magic.h
const FUSE: u32 = 0x6573_5546;
const MSDOS: u32 = 0x4d44;
const EXFAT: u32 = 0x2011_bab0;
const OVERLAYFS: u32 = 0x794c_7630;
const SMB: u32 = 0x517b;
const CIFS: u32 = 0xff53_4d42;
const SMB2: u32 = 0xfe53_4d42;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_classified_by_their_statfs_type() {
        for (magic, kept) in [
            (0xef53, FileSystem::Stable),
            (0x0102_1994, FileSystem::Stable),
            (0x6969, FileSystem::Stable),
            (0x6573_5546, FileSystem::Fuse),
            (0x4d44, FileSystem::Fat),
            (0x2011_bab0, FileSystem::Fat),
            (0x794c_7630, FileSystem::Renumbering),
            (0xff53_4d42, FileSystem::Renumbering),
        ] {
            assert_eq!(FileSystem::of_type(magic), kept, "{magic:x}");
        }
        assert_eq!(FileSystem::of(&File::open("/proc/version").unwrap()), FileSystem::Stable);
    }
}
