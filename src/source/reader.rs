//! The ways to read a file, the choice of one, and the reasons why one is unavailable.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::io::Errno;

use super::aligned::ALIGNMENT;
use super::page_cache::Residency;

/// A way to read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reader {
    /// The reader that fits the file, the delivery and the kernel.
    #[default]
    Auto,
    /// io_uring through the page cache, into registered buffers.
    Uring,
    /// io_uring around the page cache (`O_DIRECT`), into registered buffers.
    Direct,
    /// A map of the whole file.
    Mmap,
    /// Plain reads.
    Pread,
}

/// The processing of the bytes on their way to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The kernel receives the bytes as they are.
    Plain,
    /// The bytes are read in user space, to be encrypted.
    Tls,
}

/// The reason why a reader cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// io_uring_setup(2) is not in this kernel, or hidden by a sandbox.
    #[error(
        "this kernel offers no io_uring (a sandbox may hide it); nothing to do, Linux 5.6 or later has it"
    )]
    NoSuchCall,
    /// The sysctl `kernel.io_uring_disabled` is set.
    #[error("the sysctl kernel.io_uring_disabled is {value}; as root, `sysctl kernel.io_uring_disabled=0`")]
    Disabled {
        /// 1: for processes without privilege; 2: for all.
        value: u8,
    },
    /// The kernel refuses without a sysctl being set, most likely because of a seccomp filter.
    #[error(
        "io_uring is forbidden to this process, most likely by a container's seccomp profile; \
         allow io_uring_setup, io_uring_enter and io_uring_register in it"
    )]
    Forbidden,
    /// `RLIMIT_MEMLOCK` leaves no room for a ring or its buffers.
    #[error(
        "the limit on locked memory leaves no room for io_uring; raise `ulimit -l` (LimitMEMLOCK= in systemd)"
    )]
    Memlock,
    /// The ring exists and lacks an operation that is needed.
    #[error("this kernel's io_uring is too old to read into buffers; Linux 5.6 or later does")]
    TooOld,
    /// The program was built without the feature `uring`.
    #[error("this program was built without io_uring; the feature `uring` of ringlift has it")]
    LeftOut,
    /// The reading thread runs without a ring.
    #[error("the reading thread was started without a ring")]
    NoRing,
    /// The file system does not support reads that bypass the page cache.
    #[error("the file system does not support O_DIRECT here")]
    NoDirect,
    /// The file system needs a larger alignment than a block has.
    #[error("O_DIRECT needs reads aligned to {needed} bytes here, blocks are aligned to {ALIGNMENT}")]
    Alignment {
        /// The alignment that the file system needs, in bytes.
        needed: u32,
    },
    /// The process already has the maximum number of maps that are read in user space.
    #[error("too many files are mapped at once, {limit} can be; upload fewer files at a time")]
    TooManyMaps {
        /// The maximum in this process.
        limit: usize,
    },
    /// Another error of the kernel.
    #[error("error of the kernel: {}", io::Error::from_raw_os_error(*errno))]
    Other {
        /// The error number, see errno(3).
        errno: i32,
    },
}

/// The reader chosen for a file, and the reason. The reader is never [`Reader::Auto`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The chosen reader.
    pub reader: Reader,
    /// The delivery that the bytes are read for.
    pub delivery: Delivery,
    /// The share of the file that the page cache held.
    pub residency: Residency,
    /// The reason for the choice.
    pub reason: Reason,
}

/// The reason why a reader was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller requested this reader.
    Asked,
    /// The reader fits the share of the file that the page cache holds.
    Residency(Residency),
    /// Another reader was wanted and is unavailable.
    Unavailable {
        /// The unavailable reader.
        wanted: Reader,
        /// The reason.
        declined: Unavailable,
    },
}

impl Unavailable {
    pub(super) fn from_direct_error(error: &io::Error) -> Unavailable {
        match Errno::from_io_error(error) {
            // open(2): EINVAL if the file system has no O_DIRECT; FUSE and network file systems may return
            // EOPNOTSUPP.
            Some(Errno::INVAL | Errno::OPNOTSUPP) => Unavailable::NoDirect,
            _ => Unavailable::from_other_error(error),
        }
    }

    pub(super) fn from_other_error(error: &io::Error) -> Unavailable {
        // Errors that the standard library makes carry no number.
        Unavailable::Other { errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reader, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Asked => f.write_str("as requested"),
            Reason::Residency(Residency { percent }) => {
                write!(f, "{percent}% of the file is in the page cache")
            }
            Reason::Unavailable { wanted, declined } => write!(f, "{wanted} is unavailable: {declined}"),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Reader::Auto => "auto",
            Reader::Uring => "uring",
            Reader::Direct => "direct",
            Reader::Mmap => "mmap",
            Reader::Pread => "pread",
        })
    }
}

/// The text is not the name of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `auto`, `uring`, `direct`, `mmap` or `pread`")]
pub struct UnknownReader;

impl FromStr for Reader {
    type Err = UnknownReader;

    fn from_str(text: &str) -> Result<Reader, UnknownReader> {
        Reader::ALL.into_iter().find(|reader| reader.to_string() == text).ok_or(UnknownReader)
    }
}

impl Reader {
    /// All readers, `auto` first.
    pub const ALL: [Reader; 5] = [Reader::Auto, Reader::Uring, Reader::Direct, Reader::Mmap, Reader::Pread];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_read_back_from_their_names() {
        for reader in Reader::ALL {
            assert_eq!(reader.to_string().parse(), Ok(reader));
        }
        assert_eq!("splice".parse::<Reader>(), Err(UnknownReader));
    }
}
