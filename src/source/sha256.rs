//! SHA-256 digests of whole files and streams, in hexadecimal.
//!
//! The reader of an upload and the reader of its digest are separate: a digest must not slow the upload down, and
//! `sendfile` gives the process no bytes to hash.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use tokio::sync::oneshot;

use super::error::SourceError;

/// The SHA-256 of a file, computed on its own thread, for example while the file is being sent.
///
/// Dropping the value stops the thread after its current read.
#[derive(Debug)]
pub struct FileSha256 {
    answer: mpsc::Receiver<Result<String, SourceError>>,
    /// Number of bytes read so far. The thread stops once it holds the only reference.
    read: Arc<AtomicU64>,
    path: PathBuf,
}

impl FileSha256 {
    /// Starts to read the file.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] if the thread cannot be started. A file that cannot be opened or read is reported
    /// by [`FileSha256::finish`].
    pub fn start(path: &Path) -> Result<FileSha256, SourceError> {
        let (reply, answer) = mpsc::channel();
        let (read, path) = (Arc::<AtomicU64>::default(), path.to_owned());
        let (counter, file) = (read.clone(), path.clone());
        let compute = move || {
            if let Some(digest) = of_file(&file, &counter).transpose() {
                // The receiver is gone if the digest was given up.
                let _ = reply.send(digest);
            }
        };
        match thread::Builder::new().name("ringlift-sha256".to_owned()).spawn(compute) {
            Ok(_) => Ok(FileSha256 { answer, read, path }),
            Err(io) => Err(SourceError::Unreadable { path, io }),
        }
    }

    /// Waits for the digest, under any executor. Dropping the future stops the computation within a fraction of a
    /// second.
    ///
    /// # Errors
    /// [`SourceError::NotFound`], [`SourceError::Unreadable`] or [`SourceError::Read`] if the file cannot be opened or
    /// read; [`SourceError::Silent`] if no byte was read for `silence`.
    pub async fn finish(self, silence: Duration) -> Result<String, SourceError> {
        let (reply, answer) = oneshot::channel();
        let path = self.path.clone();
        let watch = move || {
            if let Some(digest) = self.watch(silence, || reply.is_closed()) {
                let _ = reply.send(digest);
            }
        };
        let watcher = thread::Builder::new().name("ringlift-sha256".to_owned()).spawn(watch);
        if let Err(io) = watcher {
            return Err(SourceError::Unreadable { path, io });
        }
        answer.await.unwrap_or_else(|_| Err(ended(path)))
    }

    /// Blocks until the digest is there or the disk is silent for too long. Returns `None` once `is_given_up`.
    fn watch(self, silence: Duration, is_given_up: impl Fn() -> bool) -> Option<Result<String, SourceError>> {
        let mut last = (self.read.load(Ordering::Relaxed), Instant::now());
        loop {
            // A silence below the interval would be noticed too late otherwise.
            match self.answer.recv_timeout(CHECK_INTERVAL.min(silence)) {
                Ok(digest) => return Some(digest),
                Err(RecvTimeoutError::Disconnected) => return Some(Err(ended(self.path))),
                Err(RecvTimeoutError::Timeout) if is_given_up() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.read.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() >= silence {
                return Some(Err(SourceError::Silent { path: self.path, after: silence }));
            }
        }
    }
}

/// Returns the error for a thread that ended without an answer.
fn ended(path: PathBuf) -> SourceError {
    SourceError::Unreadable { path, io: io::Error::other("the thread has ended") }
}

/// Returns the digest of a file, or `None` if it was given up meanwhile.
fn of_file(path: &Path, counter: &Arc<AtomicU64>) -> Result<Option<String>, SourceError> {
    let mut file = File::open(path).map_err(|io| match io.kind() {
        io::ErrorKind::NotFound => SourceError::NotFound { path: path.to_owned() },
        _ => SourceError::Unreadable { path: path.to_owned(), io },
    })?;
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(Some(hex(context.finish().as_ref()))),
            // The watcher has dropped its handle: it has given the file up.
            Ok(_) if Arc::strong_count(counter) == 1 => return Ok(None),
            Ok(read) => {
                context.update(&block[..read]);
                counter.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(io) => {
                let offset = counter.load(Ordering::Relaxed);
                return Err(SourceError::Read { path: path.to_owned(), offset, io });
            }
        }
    }
}

/// The SHA-256 of the bytes that pass through a [`HashingReader`]. Clones share it.
#[derive(Clone)]
pub struct StreamSha256(Arc<Mutex<Context>>);

impl StreamSha256 {
    /// Creates the digest of no bytes.
    pub fn new() -> StreamSha256 {
        StreamSha256(Arc::new(Mutex::new(Context::new(&SHA256))))
    }

    /// Returns the digest of all bytes so far, in hexadecimal.
    pub fn value(&self) -> String {
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hex(context.finish().as_ref())
    }

    /// Returns a reader that adds what it reads from `reader` to this digest.
    pub fn over<R: Read>(&self, reader: R) -> HashingReader<R> {
        HashingReader { reader, digest: self.clone() }
    }
}

impl Default for StreamSha256 {
    fn default() -> StreamSha256 {
        StreamSha256::new()
    }
}

impl fmt::Debug for StreamSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamSha256")
    }
}

/// A reader that hashes the bytes it returns.
#[derive(Debug)]
pub struct HashingReader<R> {
    reader: R,
    digest: StreamSha256,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf)?;
        self.digest.0.lock().unwrap_or_else(PoisonError::into_inner).update(&buf[..read]);
        Ok(read)
    }
}

/// Returns the bytes in hexadecimal, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    // Each job of a manifest has a digest, and `write!` takes six times as many instructions for it.
    let digit = |nibble: u8| char::from(HEX_DIGITS[usize::from(nibble)]);
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        hex.push(digit(byte >> 4));
        hex.push(digit(byte & 0xf));
    }
    hex
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

const BLOCK_BYTES: usize = 1 << 20;

/// Interval at which a waiting thread looks for progress and for a dropped future.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        file
    }

    #[test]
    fn a_file_and_a_stream_of_the_same_bytes_have_the_same_digest() {
        let file = file();
        let digest = FileSha256::start(file.path()).unwrap().finish(Duration::from_secs(60));
        assert_eq!(pollster::block_on(digest).unwrap(), OF_ABC);
        let digest = StreamSha256::new();
        io::copy(&mut digest.over(&b"abc"[..]), &mut io::sink()).unwrap();
        assert_eq!(digest.value(), OF_ABC);
    }

    #[test]
    fn a_dropped_digest_stops_reading() {
        assert_eq!(of_file(file().path(), &Arc::default()).unwrap(), None);
    }

    #[test]
    fn a_missing_file_is_named_by_its_digest() {
        let missing = Path::new("/nowhere/at/all");
        let digest = FileSha256::start(missing).unwrap().finish(Duration::from_secs(60));
        assert!(matches!(pollster::block_on(digest), Err(SourceError::NotFound { path }) if path == missing));
    }

    #[test]
    fn a_disk_that_gives_nothing_is_reported_as_silent() {
        let (_reply, answer) = mpsc::channel();
        let digest = FileSha256 { answer, read: Arc::default(), path: "a.mp4".into() };
        let silent = digest.watch(Duration::from_millis(1), || false).unwrap();
        assert!(matches!(silent, Err(SourceError::Silent { .. })));
    }
}
