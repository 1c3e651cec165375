//! The rate of each reader on a file, in the page cache and not in it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use rustix::fs::{Advice, fadvise};

use super::ceiling::{Ceiling, CeilingPart};
use crate::body::ChunkBody;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::Extent;
use crate::source::{AnySource, BufferPool, Delivery, Environment, Reader, SigbusHandler, SourceFile, probe};
use crate::usage::cpu_time;
use crate::wire::Envelope;

/// Measures each reader on the first 512 MiB of the file, cached and uncached, for at most a second each.
///
/// Every block is copied once into a small buffer, as encryption would read it. Drops the file from the page cache
/// repeatedly. Leaves out readers that this kernel, this file or `sigbus` do not permit, and uncached reading where the
/// file stays in memory. Returns nothing for a file of less than [`LEAST_READER_BYTES`].
///
/// # Errors
/// If the file cannot be opened or read, or if it returns no byte for 30 seconds; the thread that reads it is then
/// left behind.
pub fn measure_readers(path: &Path, sigbus: SigbusHandler) -> Result<Vec<Ceiling>> {
    let mut ceilings = Vec::new();
    for is_cached in [true, false] {
        for reader in READERS {
            // `O_DIRECT` reads the disk, whether the page cache has the file or not.
            let is_left_out = is_cached && reader == Reader::Direct
                || reader == Reader::Mmap && sigbus == SigbusHandler::Leave;
            if !is_left_out {
                let mut measured = measure_apart(path, reader, is_cached)?;
                // The first pass over an uncached file may also fill a cache of the disk or of a hypervisor.
                if let Some(first) = measured.filter(|_| !is_cached) {
                    let second = measure_apart(path, reader, is_cached)?;
                    measured =
                        second.filter(|second| second.bytes_per_second > first.bytes_per_second).or(measured);
                }
                ceilings.extend(measured);
            }
        }
    }
    Ok(ceilings)
}

/// Measures on a thread of its own: a file system that does not respond blocks a thread for ever.
fn measure_apart(path: &Path, reader: Reader, is_cached: bool) -> Result<Option<Ceiling>> {
    let doing = || format!("read {}", path.display());
    let (sender, receiver) = channel();
    let owned = PathBuf::from(path);
    let measure = move || {
        // The receiver is gone if this thread was too late.
        let _ = sender.send(measure(&owned, reader, is_cached));
    };
    let started = thread::Builder::new().name("ringlift-tune".to_owned()).spawn(measure);
    started.map_err(|error| Error::new(ErrorKind::Internal, doing()).with_source(error))?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(measured) => measured,
        Err(_) => {
            Err(Error::new(ErrorKind::Stalled, doing()).because("the file system returned nothing for 30 s"))
        }
    }
}

/// Returns `None` if the reader is not available, if the file is too small or cannot be brought into the state.
fn measure(path: &Path, reader: Reader, is_cached: bool) -> Result<Option<Ceiling>> {
    let file = SourceFile::open(path)?;
    if file.len() < LEAST_READER_BYTES {
        return Ok(None);
    }
    let ring = probe::check_ring();
    let environment = Environment { delivery: Delivery::Tls, sigbus: SigbusHandler::Install, ring: &ring };
    if is_cached {
        warm(path);
    } else {
        chill(path);
    }
    let choice = probe::choose(reader, &file, &environment);
    let len = file.len().min(MOST_BYTES);
    // The sample of a large file says little about its beginning, which was warmed.
    let is_in_state =
        if is_cached { len < file.len() || !choice.residency.is_cold() } else { choice.residency.is_cold() };
    if choice.reader != reader || !is_in_state {
        return Ok(None);
    }
    let run = |pool: BufferPool| async move {
        let (source, opened) = AnySource::open(&file, &choice, &pool);
        if opened.is_err() {
            return Ok(None);
        }
        let (cpu, started) = (cpu_time(), Instant::now());
        let bytes = drain(source, len).await?;
        let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu);
        Ok(Some(Ceiling::new(CeilingPart::Reader { reader, is_cached }, bytes, elapsed, cpu)))
    };
    let failed = |error: std::io::Error| Error::new(ErrorKind::Internal, "start a reader").with_source(error);
    if ring.is_ok() {
        tokio_uring::start(async { run(BufferPool::in_ring(BLOCKS, BLOCK_BYTES).map_err(failed)?).await })
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map_err(failed)?
            .block_on(async { run(BufferPool::new(BLOCKS, BLOCK_BYTES).map_err(failed)?).await })
    }
}

/// Reads for at most a second, and returns the bytes that were read.
async fn drain(source: AnySource, len: u64) -> Result<u64> {
    let envelope = Envelope::new("boundary", "sample.mp4", None);
    let mut body = ChunkBody::new(&envelope, source, Extent::new(0, len), Arc::default());
    let (started, mut bytes, mut record) = (Instant::now(), 0, [0; RECORD_BYTES]);
    while let Some(frame) = body.frame().await {
        let Ok(block) = frame?.into_data() else { continue };
        for piece in block.chunks(RECORD_BYTES) {
            record[..piece.len()].copy_from_slice(piece);
            std::hint::black_box(&mut record);
        }
        bytes += block.len() as u64;
        if started.elapsed() >= LONGEST_READ {
            break;
        }
    }
    Ok(bytes)
}

/// Reads the beginning of the file into the page cache. An error shows in the measurement.
fn warm(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let started = Instant::now();
    let (mut file, mut block) = (file.take(MOST_BYTES), vec![0; 1 << 20]);
    // The other half is left for the measurement.
    while started.elapsed() < PATIENCE / 2 && file.read(&mut block).is_ok_and(|len| len > 0) {}
}

/// Drops the file from the page cache. Pages that are dirty or in use stay, and show in the residency.
fn chill(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

/// The smallest file whose readers are measured, in bytes: the blocks that a lane reads ahead. In less, the time of the
/// first read is most of the time.
pub const LEAST_READER_BYTES: u64 = BLOCKS as u64 * BLOCK_BYTES;

const READERS: [Reader; 4] = [Reader::Uring, Reader::Direct, Reader::Mmap, Reader::Pread];
const MOST_BYTES: u64 = 512 << 20;
const LONGEST_READ: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// The blocks of an upload lane: those that it reads ahead, and two that hyper holds.
const BLOCKS: usize = 8;
const BLOCK_BYTES: u64 = 512 << 10;
/// A record of TLS.
const RECORD_BYTES: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_cached_file_is_read_by_plain_reads_at_least() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![7; 4 << 20]).unwrap();
        file.as_file().sync_all().unwrap();
        let ceilings = measure_readers(file.path(), SigbusHandler::Leave).unwrap();
        let has = |reader, is_cached| {
            ceilings.iter().any(|ceiling| ceiling.part == CeilingPart::Reader { reader, is_cached })
        };
        assert!(has(Reader::Pread, true), "{ceilings:?}");
        assert!(!has(Reader::Direct, true) && !has(Reader::Mmap, true), "{ceilings:?}");
        assert!(ceilings.iter().all(|ceiling| ceiling.bytes_per_second > 0.0), "{ceilings:?}");
    }

    #[test]
    fn a_file_of_a_few_blocks_says_nothing_about_its_disk() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for len in [0, 1, LEAST_READER_BYTES - 1] {
            file.as_file_mut().set_len(len).unwrap();
            assert_eq!(measure_readers(file.path(), SigbusHandler::Leave).unwrap(), [], "{len}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = measure_readers(Path::new("/no/such/file.mp4"), SigbusHandler::Leave).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSuchFile);
        assert!(error.to_string().contains("/no/such/file.mp4"), "{error}");
    }
}
