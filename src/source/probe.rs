//! The choice of a reader, by trying what this kernel, this file and this process's limits allow.

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::aligned::ALIGNMENT;
use super::file::SourceFile;
use super::mmap;
use super::page_cache::{Residency, residency};
use super::reader::{Choice, Delivery, Reader, Reason, Unavailable};
pub use super::uring::check_ring;

/// The permission to install a process-wide SIGBUS handler. A map that is read in user space raises that
/// signal if its file is truncated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SigbusHandler {
    /// Do not install a handler. A map is read in user space only if [`Reader::Mmap`] is requested.
    #[default]
    Leave,
    /// Install the handler, which runs before the program's own. For callers that own the process. Files in
    /// the page cache then take 8 % less processor time over TLS.
    Install,
}

/// The inputs of [`choose`] beside the file.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The delivery that the bytes are read for.
    pub delivery: Delivery,
    /// The permission to read maps in user space without a request for [`Reader::Mmap`].
    pub sigbus: SigbusHandler,
    /// The result of [`check_ring`].
    pub ring: &'a Result<(), Unavailable>,
}

/// Chooses the reader `wanted` for a file if it is available, and [`Reader::Pread`] if it is not.
///
/// [`Reader::Auto`] maps a file that is in the page cache, and reads it by io_uring if the map would be read
/// in user space without permission for a [`SigbusHandler`]. A cold file is read with `O_DIRECT`. A file of a few pages
/// is copied by a plain read, whether it is cached or not.
pub fn choose(wanted: Reader, file: &SourceFile, environment: &Environment<'_>) -> Choice {
    let Environment { delivery, sigbus, ring } = *environment;
    let residency = residency(file);
    let (reader, reason) = match wanted {
        Reader::Auto => (preferred(residency, file.len(), delivery, sigbus), Reason::Residency(residency)),
        asked => (asked, Reason::Asked),
    };
    let (reader, reason) = match check_available(reader, file, ring) {
        Ok(()) => (reader, reason),
        Err(declined) => (Reader::Pread, Reason::Unavailable { wanted: reader, declined }),
    };
    Choice { reader, delivery, residency, reason }
}

fn preferred(residency: Residency, len: u64, delivery: Delivery, sigbus: SigbusHandler) -> Reader {
    match (delivery, sigbus) {
        // Also if the file is cold: the first read by the rings pins all blocks, 32 MiB with the usual lanes.
        _ if len <= COPIED_BYTES => Reader::Pread,
        // A page fault on a cold map would block the worker's thread, and with it all its lanes.
        _ if residency.is_cold() => Reader::Direct,
        (Delivery::Plain, _) | (Delivery::Tls, SigbusHandler::Install) => Reader::Mmap,
        (Delivery::Tls, SigbusHandler::Leave) => Reader::Uring,
    }
}

fn check_available(
    reader: Reader,
    file: &SourceFile,
    ring: &Result<(), Unavailable>,
) -> Result<(), Unavailable> {
    match reader {
        Reader::Auto | Reader::Pread => Ok(()),
        Reader::Uring => ring.clone(),
        Reader::Direct => ring.clone().and_then(|()| direct(file)),
        Reader::Mmap => mmap::mappable(file),
    }
}

/// Checks that the file can be read with `O_DIRECT` into aligned blocks.
fn direct(file: &SourceFile) -> Result<(), Unavailable> {
    let direct = file.open_direct().map_err(|error| Unavailable::from_direct_error(&error))?;
    let Ok(stat) = statx(&direct, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Ok(()); // Before Linux 6.1 only the first read shows the result.
    };
    // The file system does not report its alignment; a read that fails with EINVAL falls back to the page
    // cache.
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(());
    }
    // A block has one alignment, for its address and for its offset in the file.
    match stat.stx_dio_offset_align.max(stat.stx_dio_mem_align) {
        // statx(2) reports 0 for a file without direct I/O.
        0 => Err(Unavailable::NoDirect),
        needed if needed as usize > ALIGNMENT => Err(Unavailable::Alignment { needed }),
        _ => Ok(()),
    }
}

/// The longest file that is copied by plain reads. The copy of a cached file takes less time than two maps of it, one
/// to test the reader and one to send, and a request with a copy needs one system call instead of three.
const COPIED_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(len: usize) -> (tempfile::NamedTempFile, SourceFile) {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&vec![7; len]).unwrap();
        let file = SourceFile::open(temp.path()).unwrap();
        (temp, file)
    }

    fn plain(ring: &Result<(), Unavailable>) -> Environment<'_> {
        Environment { delivery: Delivery::Plain, sigbus: SigbusHandler::Leave, ring }
    }

    fn tls(ring: &Result<(), Unavailable>) -> Environment<'_> {
        Environment { delivery: Delivery::Tls, ..plain(ring) }
    }

    fn chill(temp: &tempfile::NamedTempFile) {
        temp.as_file().sync_all().unwrap();
        rustix::fs::fadvise(temp.as_file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }

    #[test]
    fn without_a_ring_readers_that_need_one_become_pread() {
        let (_temp, file) = file_of(100_000);
        let ring = Err(Unavailable::Forbidden);
        for wanted in [Reader::Uring, Reader::Direct] {
            let choice = choose(wanted, &file, &tls(&ring));
            assert_eq!(choice.reader, Reader::Pread);
            assert_eq!(choice.reason, Reason::Unavailable { wanted, declined: Unavailable::Forbidden });
            assert!(choice.to_string().contains("seccomp"), "{choice}");
        }
    }

    #[test]
    fn cached_files_are_mapped_on_plain_connections() {
        let (_temp, file) = file_of(1 << 20);
        let choice = choose(Reader::Auto, &file, &plain(&Ok(())));
        assert_eq!((choice.reader, choice.residency.percent), (Reader::Mmap, 100));
        assert_eq!(choice.to_string(), "mmap: 100% of the file is in the page cache");
    }

    #[test]
    fn cached_files_are_mapped_over_tls_only_with_a_sigbus_handler() {
        let (_temp, file) = file_of(1 << 20);
        let ring = Ok(());
        assert_eq!(choose(Reader::Auto, &file, &tls(&ring)).reader, Reader::Uring);
        let ours = Environment { sigbus: SigbusHandler::Install, ..tls(&ring) };
        assert_eq!(choose(Reader::Auto, &file, &ours).reader, Reader::Mmap);
    }

    #[test]
    fn cached_files_of_a_few_pages_are_copied() {
        for (len, reader) in [(1, Reader::Pread), (16 << 10, Reader::Pread), ((16 << 10) + 1, Reader::Mmap)] {
            let (_temp, file) = file_of(len);
            assert_eq!(choose(Reader::Auto, &file, &plain(&Ok(()))).reader, reader);
        }
    }

    #[test]
    fn cold_files_of_a_few_pages_are_read_without_the_ring() {
        for len in [1, 16 << 10] {
            let (temp, file) = file_of(len);
            chill(&temp);
            for environment in [plain(&Ok(())), tls(&Ok(()))] {
                assert_eq!(choose(Reader::Auto, &file, &environment).reader, Reader::Pread, "{len}");
            }
        }
    }

    #[test]
    fn cold_files_bypass_the_page_cache() {
        let (temp, file) = file_of(4 << 20);
        chill(&temp);
        for delivery in [Delivery::Plain, Delivery::Tls] {
            let sigbus = SigbusHandler::Install;
            let choice = choose(Reader::Auto, &file, &Environment { delivery, sigbus, ring: &Ok(()) });
            if !choice.residency.is_cold() {
                return; // A file system in memory.
            }
            assert!(matches!(choice.reader, Reader::Direct | Reader::Pread), "{choice}");
            let ring = &Err(Unavailable::Forbidden);
            let without = choose(Reader::Auto, &file, &Environment { delivery, sigbus, ring });
            assert_eq!(without.reader, Reader::Pread);
        }
    }

    #[test]
    fn an_available_reader_is_used_as_requested() {
        let (_temp, file) = file_of(5000);
        for wanted in [Reader::Uring, Reader::Mmap, Reader::Pread] {
            let choice = choose(wanted, &file, &tls(&Ok(())));
            assert_eq!((choice.reader, choice.reason), (wanted, Reason::Asked));
        }
    }
}
