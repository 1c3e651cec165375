//! What this kernel, this file and the limits of this process allow, tried rather than guessed.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::str::FromStr;

use io_uring::{IoUring, Probe, opcode};
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;

use super::file::SourceFile;
use super::mmap;
use super::uring::aligned::ALIGNMENT;
use crate::extent::Extent;

/// A way to read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reader {
    /// Whichever suits the file, the delivery and the kernel.
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

/// What happens to the bytes on their way to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// They are handed to the kernel as they are.
    Plain,
    /// They are read in user space, to be encrypted.
    Tls,
}

/// Whose signal SIGBUS is. A map that is read in user space raises it when its file is truncated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sigbus {
    /// The program's: a map is read here only where [`Reader::Mmap`] asks for one.
    #[default]
    Theirs,
    /// Ours to handle before the program does: for whoever owns the process. Files in the page cache take 8 %
    /// less processor time over TLS then.
    Ours,
}

/// What the choice of a reader depends on, beside the file.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// What the bytes are read for.
    pub delivery: Delivery,
    /// Whether maps may be read here unasked.
    pub sigbus: Sigbus,
    /// What [`ring`] gave.
    pub ring: &'a Result<(), Declined>,
}

/// How much of a file the page cache held when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// 0 to 100, rounded down; 0 as well when the kernel did not tell.
    pub percent: u8,
}

/// Why something is not to be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
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
    /// Something between here and the kernel says no, most likely a seccomp filter.
    #[error(
        "io_uring is forbidden to this process, most likely by a container's seccomp profile; \
         allow io_uring_setup, io_uring_enter and io_uring_register in it"
    )]
    Forbidden,
    /// `RLIMIT_MEMLOCK` leaves no room.
    #[error(
        "the limit on locked memory leaves no room for io_uring; raise `ulimit -l` (LimitMEMLOCK= in systemd)"
    )]
    Memlock,
    /// The ring is there and lacks an operation.
    #[error("this kernel's io_uring is too old to read into buffers; Linux 5.6 or later does")]
    TooOld,
    /// The reading thread runs without a ring.
    #[error("the reading thread was started without a ring")]
    NoRing,
    /// The file system does not read around the page cache.
    #[error("the file system does not support O_DIRECT here")]
    NoDirect,
    /// The file system wants larger alignment than a block has.
    #[error("O_DIRECT needs reads aligned to {needed} bytes here, blocks are aligned to {ALIGNMENT}")]
    Alignment {
        /// Bytes.
        needed: u32,
    },
    /// All the places for maps that survive truncation are taken.
    #[error("too many files are mapped at once, {limit} can be; upload fewer files at a time")]
    TooManyMaps {
        /// How many there may be in this process.
        limit: usize,
    },
    /// Another error of the kernel.
    #[error("the kernel said: {}", io::Error::from_raw_os_error(*errno))]
    Other {
        /// As in errno(3).
        errno: i32,
    },
}

/// Which reader is taken for a file, and why. The reader is never [`Reader::Auto`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The reader taken.
    pub reader: Reader,
    /// What the bytes are read for.
    pub delivery: Delivery,
    /// What the page cache held of the file.
    pub residency: Residency,
    /// The reason.
    pub why: Why,
}

/// Why a reader was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// It suits what the page cache holds of the file.
    Residency(Residency),
    /// Another would have been taken.
    Declined {
        /// The reader that is not to be had.
        wanted: Reader,
        /// Why it is not.
        declined: Declined,
    },
}

/// Sets up a ring as a worker would, and takes it down again (io_uring_setup(2)).
///
/// # Errors
/// Why this process may not have one.
pub fn ring() -> Result<(), Declined> {
    let ring = IoUring::new(RING_ENTRIES).map_err(|error| Declined::of_ring(&error))?;
    let mut probe = Probe::new();
    // Kernels before 5.6 know neither the question nor the operation.
    ring.submitter().register_probe(&mut probe).map_err(|_| Declined::TooOld)?;
    match probe.is_supported(opcode::Read::CODE) && probe.is_supported(opcode::ReadFixed::CODE) {
        true => Ok(()),
        false => Err(Declined::TooOld),
    }
}

/// Asks the page cache about the file: cachestat(2), on older kernels samples by mincore(2).
pub fn residency(file: &SourceFile) -> Residency {
    Residency { percent: resident_percent(file.file(), file.len()).unwrap_or(0) }
}

/// How much of the file's first `len` bytes the page cache holds, 0 to 100; `None` when nobody tells.
///
/// Of a large file it looks at samples, since the kernel walks over every cached page.
pub(super) fn resident_percent(file: &File, len: u64) -> Option<u8> {
    let page = rustix::param::page_size() as u64;
    let step = len.div_ceil(SAMPLES).next_multiple_of(SAMPLE_BYTES).max(SAMPLE_BYTES);
    let (mut pages, mut cached) = (0, 0);
    for part in Extent::new(0, len).blocks(step) {
        let sample = part.take(SAMPLE_BYTES);
        pages += sample.len().div_ceil(page);
        cached += mmap::cached_pages(file, sample)?;
    }
    Some((cached * 100).checked_div(pages).unwrap_or(100).min(100) as u8)
}

/// Takes the reader `wanted` for a file if it is to be had, and [`Reader::Pread`] if it is not.
///
/// By itself, hot data goes out as a map, and by the ring where it would be read in user space and
/// [`Sigbus`] is not ours; cold data goes around the page cache.
pub fn choose(wanted: Reader, file: &SourceFile, circumstances: &Circumstances<'_>) -> Choice {
    let Circumstances { delivery, sigbus, ring } = *circumstances;
    let residency = residency(file);
    let (reader, why) = match wanted {
        Reader::Auto => (suited(residency, delivery, sigbus), Why::Residency(residency)),
        asked => (asked, Why::Asked),
    };
    let (reader, why) = match to_be_had(reader, file, ring) {
        Ok(()) => (reader, why),
        Err(declined) => (Reader::Pread, Why::Declined { wanted: reader, declined }),
    };
    Choice { reader, delivery, residency, why }
}

fn suited(residency: Residency, delivery: Delivery, sigbus: Sigbus) -> Reader {
    match (delivery, sigbus) {
        _ if residency.is_cold() => Reader::Direct,
        (Delivery::Plain, _) | (Delivery::Tls, Sigbus::Ours) => Reader::Mmap,
        (Delivery::Tls, Sigbus::Theirs) => Reader::Uring,
    }
}

fn to_be_had(reader: Reader, file: &SourceFile, ring: &Result<(), Declined>) -> Result<(), Declined> {
    match reader {
        Reader::Auto | Reader::Pread => Ok(()),
        Reader::Uring => ring.clone(),
        Reader::Direct => ring.clone().and_then(|()| direct(file)),
        Reader::Mmap => mmap::mappable(file),
    }
}

/// Whether the file can be read around the page cache into our blocks.
fn direct(file: &SourceFile) -> Result<(), Declined> {
    let direct = file.open_direct().map_err(|error| Declined::of_direct(&error))?;
    let Ok(stat) = statx(&direct, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Ok(()); // Too old to tell: the first read will.
    };
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(());
    }
    match stat.stx_dio_offset_align.max(stat.stx_dio_mem_align) {
        0 => Err(Declined::NoDirect),
        needed if needed as usize > ALIGNMENT => Err(Declined::Alignment { needed }),
        _ => Ok(()),
    }
}

impl Residency {
    /// Whether reading the file is mostly reading its disk.
    pub fn is_cold(self) -> bool {
        self.percent < HOT_PERCENT
    }

    /// Whether nothing of it has to come from a disk, as far as the kernel told.
    pub fn is_whole(self) -> bool {
        self.percent == 100
    }
}

impl Declined {
    fn of_ring(error: &io::Error) -> Declined {
        match Errno::from_io_error(error) {
            Some(Errno::NOSYS) => Declined::NoSuchCall,
            Some(Errno::NOMEM) => Declined::Memlock,
            Some(Errno::PERM | Errno::ACCESS) => match disabled_by_sysctl() {
                Some(value) => Declined::Disabled { value },
                None => Declined::Forbidden,
            },
            _ => Declined::other(error),
        }
    }

    pub(super) fn of_registration(error: &io::Error) -> Declined {
        match Errno::from_io_error(error) {
            Some(Errno::NOMEM) => Declined::Memlock,
            _ => Declined::other(error),
        }
    }

    pub(super) fn of_direct(error: &io::Error) -> Declined {
        match Errno::from_io_error(error) {
            Some(Errno::INVAL | Errno::OPNOTSUPP) => Declined::NoDirect,
            _ => Declined::other(error),
        }
    }

    pub(super) fn other(error: &io::Error) -> Declined {
        Declined::Other { errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// The sysctl when it says no (Documentation/admin-guide/sysctl/kernel.rst, since Linux 6.6).
fn disabled_by_sysctl() -> Option<u8> {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    value.trim().parse().ok().filter(|value| *value > 0)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reader, self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Asked => f.write_str("as asked"),
            Why::Residency(Residency { percent }) => write!(f, "{percent}% of the file is in the page cache"),
            Why::Declined { wanted, declined } => write!(f, "{wanted} is not to be had: {declined}"),
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

/// The text names no reader.
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
    /// All of them, `auto` first.
    pub const ALL: [Reader; 5] = [Reader::Auto, Reader::Uring, Reader::Direct, Reader::Mmap, Reader::Pread];
}

/// Below this, a worker would wait for the disk too often while it holds up its other lanes.
const HOT_PERCENT: u8 = 90;

/// Samples of the page cache, and the bytes of one: files up to the product are looked at whole.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 16 << 20;

/// About what the ring of a worker takes, whose queue is shorter and whose completions are more.
const RING_ENTRIES: u32 = 64;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    fn file_of(len: usize) -> (tempfile::NamedTempFile, SourceFile) {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&vec![7; len]).unwrap();
        let file = SourceFile::open(temp.path()).unwrap();
        (temp, file)
    }

    fn plain(ring: &Result<(), Declined>) -> Circumstances<'_> {
        Circumstances { delivery: Delivery::Plain, sigbus: Sigbus::Theirs, ring }
    }

    fn tls(ring: &Result<(), Declined>) -> Circumstances<'_> {
        Circumstances { delivery: Delivery::Tls, ..plain(ring) }
    }

    fn chill(temp: &tempfile::NamedTempFile) {
        temp.as_file().sync_all().unwrap();
        rustix::fs::fadvise(temp.as_file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    /// What `ring()` says on a thread whose io_uring_setup fails with `errno`.
    fn ring_refused_with(errno: i32) -> Result<(), Declined> {
        let refused = std::thread::spawn(move || {
            let calls = [(libc::SYS_io_uring_setup, vec![])].into();
            let action = SeccompAction::Errno(errno as u32);
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let filter = SeccompFilter::new(calls, SeccompAction::Allow, action, arch).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            apply_filter(&program).unwrap();
            ring()
        });
        refused.join().unwrap()
    }

    #[test]
    fn a_refused_ring_says_who_refused_it() {
        assert_eq!(ring_refused_with(libc::EPERM), Err(Declined::Forbidden));
        assert_eq!(ring_refused_with(libc::ENOSYS), Err(Declined::NoSuchCall));
        assert_eq!(ring_refused_with(libc::ENOMEM), Err(Declined::Memlock));
        let choked = ring_refused_with(libc::EMFILE).unwrap_err();
        assert!(choked.to_string().contains("open files"), "{choked}");
    }

    #[test]
    fn without_a_ring_everything_that_needs_one_becomes_pread() {
        let (_temp, file) = file_of(100_000);
        let ring = ring_refused_with(libc::EPERM);
        for wanted in [Reader::Uring, Reader::Direct] {
            let choice = choose(wanted, &file, &tls(&ring));
            assert_eq!(choice.reader, Reader::Pread);
            assert_eq!(choice.why, Why::Declined { wanted, declined: Declined::Forbidden });
            assert!(choice.to_string().contains("seccomp"), "{choice}");
        }
    }

    #[test]
    fn hot_data_is_mapped_where_nobody_reads_it() {
        let (_temp, file) = file_of(1 << 20);
        let choice = choose(Reader::Auto, &file, &plain(&Ok(())));
        assert_eq!((choice.reader, choice.residency.percent), (Reader::Mmap, 100));
        assert_eq!(choice.to_string(), "mmap: 100% of the file is in the page cache");
    }

    #[test]
    fn hot_data_that_is_read_here_is_mapped_where_the_signal_is_ours() {
        let (_temp, file) = file_of(1 << 20);
        let ring = Ok(());
        assert_eq!(choose(Reader::Auto, &file, &tls(&ring)).reader, Reader::Uring);
        let ours = Circumstances { sigbus: Sigbus::Ours, ..tls(&ring) };
        assert_eq!(choose(Reader::Auto, &file, &ours).reader, Reader::Mmap);
    }

    #[test]
    fn cold_data_goes_around_the_page_cache() {
        let (temp, file) = file_of(4 << 20);
        chill(&temp);
        for delivery in [Delivery::Plain, Delivery::Tls] {
            let sigbus = Sigbus::Ours;
            let choice = choose(Reader::Auto, &file, &Circumstances { delivery, sigbus, ring: &Ok(()) });
            if !choice.residency.is_cold() {
                return; // A file system in memory.
            }
            assert!(matches!(choice.reader, Reader::Direct | Reader::Pread), "{choice}");
            let ring = &Err(Declined::Forbidden);
            let without = choose(Reader::Auto, &file, &Circumstances { delivery, sigbus, ring });
            assert_eq!(without.reader, Reader::Pread);
        }
    }

    #[test]
    fn a_reader_that_is_to_be_had_is_taken_as_asked() {
        let (_temp, file) = file_of(5000);
        for wanted in [Reader::Uring, Reader::Mmap, Reader::Pread] {
            let choice = choose(wanted, &file, &tls(&Ok(())));
            assert_eq!((choice.reader, choice.why), (wanted, Why::Asked));
        }
    }

    #[test]
    fn readers_are_read_back_from_their_names() {
        for reader in Reader::ALL {
            assert_eq!(reader.to_string().parse(), Ok(reader));
        }
        assert_eq!("splice".parse::<Reader>(), Err(UnknownReader));
    }

    #[test]
    fn an_empty_file_is_hot() {
        let (_temp, file) = file_of(0);
        assert!(!residency(&file).is_cold());
    }

    #[test]
    fn a_huge_file_is_sampled() {
        let (temp, _) = file_of(100 << 20);
        temp.as_file().set_len(200 << 30).unwrap();
        let percent = resident_percent(temp.as_file(), 200 << 30).unwrap();
        assert!((1..=2).contains(&percent), "{percent}");
    }
}
